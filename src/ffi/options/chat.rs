//! The settings of chat templates.

use crate::ffi::failure::Failure;

#[cfg(feature = "text")]
pub use with_text::Setting;
#[cfg(not(feature = "text"))]
pub use without_text::Setting;

#[cfg(feature = "text")]
mod with_text {
    use super::Failure;
    use crate::chat::{ChatOptions, Date};
    use crate::error::Error;
    use alloc::borrow::ToOwned;

    /// What a chat template is given besides the messages.
    #[derive(Clone, Copy, Default)]
    pub struct Setting(ChatOptions);

    impl Setting {
        pub fn options(self) -> ChatOptions {
            self.0
        }

        pub fn set_date(&mut self, date: &str) -> Result<(), Failure> {
            self.0.date = match date {
                "" => None,
                date => Some(Date::parse(date).ok_or_else(|| {
                    let detail = "this is not a day from 1970 on in the form 2025-01-31".to_owned();
                    Error::Option { name: "date", detail }
                })?),
            };
            Ok(())
        }

        pub fn set_thinking(&mut self, thinking: Option<bool>) -> Result<(), Failure> {
            self.0.thinking = thinking;
            Ok(())
        }
    }
}

#[cfg(not(feature = "text"))]
mod without_text {
    use super::Failure;
    use crate::ffi::failure::NO_TOKENIZING as UNSUPPORTED;

    /// There is none.
    #[derive(Clone, Copy, Default)]
    pub struct Setting;

    impl Setting {
        pub fn set_date(&mut self, _: &str) -> Result<(), Failure> {
            Err(UNSUPPORTED)
        }

        pub fn set_thinking(&mut self, _: Option<bool>) -> Result<(), Failure> {
            Err(UNSUPPORTED)
        }
    }
}
