//! What a generated text must be like, as the options say it.

#[cfg(feature = "constraints")]
pub(super) use with_constraints::{Setting, Vocabulary};
#[cfg(not(feature = "constraints"))]
pub(super) use without_constraints::Setting;

#[cfg(feature = "constraints")]
mod with_constraints {
    use std::sync::{Arc, OnceLock};

    use super::super::boundary::Failure;
    use super::super::model::Shared;
    use crate::constraint::{self, Form};
    use crate::error::Result;
    use crate::generate::Constraint;

    /// None by default.
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

        /// Takes the form that `value` describes; none if it is empty.
        fn set(
            &mut self,
            value: &str,
            form: impl FnOnce(&str) -> Result<Form>,
        ) -> Result<(), Failure> {
            self.0 = if value.is_empty() { None } else { Some(form(value)?) };
            Ok(())
        }

        /// The name of the option that is set, if one is.
        pub fn name(&self) -> Option<&'static str> {
            self.0.as_ref().map(Form::option)
        }

        /// For one text.
        pub fn constraint(&self, shared: &Shared) -> Result<Option<Box<dyn Constraint + Send>>> {
            let Some(form) = &self.0 else { return Ok(None) };
            Ok(Some(Box::new(shared.vocabulary.of(shared)?.constrain(form)?)))
        }

        /// One for each of so many texts; none at all without a constraint.
        pub fn constraints(
            &self,
            shared: &Shared,
            texts: usize,
        ) -> Result<Vec<Option<Box<dyn Constraint>>>> {
            let texts = if self.0.is_some() { texts } else { 0 };
            let one = |_| Ok(self.constraint(shared)?.map(|it| it as Box<dyn Constraint>));
            (0..texts).map(one).collect()
        }
    }

    /// A model's, prepared when it is first asked for.
    #[derive(Default)]
    pub struct Vocabulary(OnceLock<constraint::Vocabulary>);

    impl Vocabulary {
        fn of(&self, shared: &Shared) -> Result<&constraint::Vocabulary> {
            let tokenizer = shared.tokenizer()?;
            if let Some(prepared) = self.0.get() {
                return Ok(prepared);
            }
            let tokenizer = Arc::clone(tokenizer);
            let prepared = constraint::Vocabulary::new(&shared.model, tokenizer)?;
            // If two threads come here at once, one result is dropped.
            Ok(self.0.get_or_init(|| prepared))
        }
    }
}

#[cfg(not(feature = "constraints"))]
mod without_constraints {
    use super::super::boundary::Failure;
    use super::super::model::Shared;
    use super::super::status::cbl_status::CBL_UNSUPPORTED;
    use crate::error::Result;
    use crate::generate::Constraint;

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

        pub fn constraint(&self, _: &Shared) -> Result<Option<Box<dyn Constraint + Send>>> {
            Ok(None)
        }

        pub fn constraints(
            &self,
            _: &Shared,
            _: usize,
        ) -> Result<Vec<Option<Box<dyn Constraint>>>> {
            Ok(Vec::new())
        }
    }
}
