//! The setting for the form of generated texts.

#[cfg(feature = "constraints")]
pub use with_constraints::Setting;
#[cfg(not(feature = "constraints"))]
pub use without_constraints::Setting;

#[cfg(feature = "constraints")]
mod with_constraints {
    use crate::constraint::Form;
    use crate::error::Result;
    use crate::ffi::failure::Failure;

    /// The form that generated texts must have. None by default.
    #[derive(Default)]
    pub struct Setting(Option<Form>);

    impl Setting {
        pub fn set_choices(&mut self, lines: &str) -> Result<(), Failure> {
            self.set(lines, |lines| {
                let choices = Form::Choices(lines.lines().map(str::to_owned).collect());
                choices.check()?;
                Ok(Form::AfterSpace(Box::new(choices)))
            })
        }

        pub fn set_regex(&mut self, regex: &str) -> Result<(), Failure> {
            self.set(regex, |regex| {
                let regex = Form::Regex(regex.to_owned());
                regex.check()?;
                Ok(regex)
            })
        }

        pub fn set_json_schema(&mut self, schema: &str) -> Result<(), Failure> {
            self.set(schema, |schema| Ok(Form::AfterSpace(Box::new(Form::json_schema(schema)?))))
        }

        /// Sets the form that `value` describes, or none if it is empty.
        fn set(
            &mut self,
            value: &str,
            form: impl FnOnce(&str) -> Result<Form>,
        ) -> Result<(), Failure> {
            self.0 = if value.is_empty() { None } else { Some(form(value)?) };
            Ok(())
        }

        /// The name of the option that sets the form, if there is a form.
        pub fn name(&self) -> Option<&'static str> {
            self.0.as_ref().map(Form::option)
        }

        /// The form, if there is one.
        pub fn form(&self) -> Option<&Form> {
            self.0.as_ref()
        }
    }
}

#[cfg(not(feature = "constraints"))]
mod without_constraints {
    use crate::ffi::failure::Failure;
    use crate::ffi::status::cbl_status::CBL_UNSUPPORTED;

    const UNSUPPORTED: Failure =
        Failure::Misuse(CBL_UNSUPPORTED, "this build of the library cannot constrain texts");

    #[derive(Default)]
    pub struct Setting;

    impl Setting {
        pub fn set_choices(&mut self, _: &str) -> Result<(), Failure> {
            Err(UNSUPPORTED)
        }

        pub fn set_regex(&mut self, _: &str) -> Result<(), Failure> {
            Err(UNSUPPORTED)
        }

        pub fn set_json_schema(&mut self, _: &str) -> Result<(), Failure> {
            Err(UNSUPPORTED)
        }

        pub fn name(&self) -> Option<&'static str> {
            None
        }
    }
}
