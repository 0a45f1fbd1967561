//! The settings for classification.

#[cfg(feature = "text")]
pub use with_text::Settings;
#[cfg(not(feature = "text"))]
pub use without_text::Settings;

/// Values of CBL_OPTION_NORMALIZATION: how the length of a label counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum cbl_normalization {
    /// The score of a label is its log-probability. A longer label has a lower score.
    CBL_NORMALIZATION_SUM = 0,
    /// The score of a label is its log-probability divided by its number of tokens.
    CBL_NORMALIZATION_MEAN = 1,
}

/// Values of CBL_OPTION_CALIBRATION: what is subtracted from the score of a label. A model prefers
/// some labels whatever the text is. A classifier measures that at its first use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum cbl_calibration {
    /// Nothing.
    CBL_CALIBRATION_NONE = 0,
    /// The mean of the label's scores after texts that say nothing (Zhao et al., Calibrate Before
    /// Use, 2021).
    CBL_CALIBRATION_CONTENT_FREE = 1,
    /// The label's score without any text (Holtzman et al., Surface Form Competition, 2021).
    CBL_CALIBRATION_MUTUAL_INFORMATION = 2,
}

#[cfg(feature = "text")]
mod with_text {
    use super::{cbl_calibration, cbl_normalization};
    use crate::classify::{Calibration, ClassifierOptions, Normalization, Template};
    use crate::ffi::failure::Failure;
    use crate::memory::{self, try_vec};
    use crate::model::Model;
    use alloc::string::String;
    use alloc::vec::Vec;

    /// The settings. The defaults take no memory.
    #[derive(Default)]
    pub struct Settings {
        template: Option<Template>,
        examples: Vec<(String, String)>,
        normalization: Normalization,
        calibration: Calibration,
    }

    impl Settings {
        pub fn set_template(&mut self, template: &str) -> Result<(), Failure> {
            self.template = Some(Template::parse(template)?);
            Ok(())
        }

        pub fn set_normalization(&mut self, value: cbl_normalization) -> Result<(), Failure> {
            self.normalization = match value {
                cbl_normalization::CBL_NORMALIZATION_SUM => Normalization::Sum,
                cbl_normalization::CBL_NORMALIZATION_MEAN => Normalization::Mean,
            };
            Ok(())
        }

        pub fn set_calibration(&mut self, value: cbl_calibration) -> Result<(), Failure> {
            self.calibration = match value {
                cbl_calibration::CBL_CALIBRATION_NONE => Calibration::None,
                cbl_calibration::CBL_CALIBRATION_CONTENT_FREE => Calibration::ContentFree,
                cbl_calibration::CBL_CALIBRATION_MUTUAL_INFORMATION => {
                    Calibration::MutualInformation
                }
            };
            Ok(())
        }

        pub fn add_example(&mut self, text: &str, label: &str) -> Result<(), Failure> {
            let example = (memory::copy(text)?, memory::copy(label)?);
            Ok(memory::push(&mut self.examples, example)?)
        }

        pub fn clear_examples(&mut self) {
            self.examples.clear();
        }

        pub fn classifier_options(&self, model: &Model) -> Result<ClassifierOptions, Failure> {
            let mut examples = try_vec(self.examples.len())?;
            for (text, label) in &self.examples {
                examples.push((memory::copy(text)?, memory::copy(label)?));
            }
            Ok(ClassifierOptions {
                template: match &self.template {
                    Some(template) => template.try_clone()?,
                    None => Template::for_model(model)?,
                },
                examples,
                normalization: self.normalization,
                calibration: self.calibration,
            })
        }
    }
}

#[cfg(not(feature = "text"))]
mod without_text {
    use super::{cbl_calibration, cbl_normalization};
    use crate::ffi::failure::{Failure, NO_TOKENIZING as UNSUPPORTED};

    #[derive(Default)]
    pub struct Settings;

    impl Settings {
        pub fn set_template(&mut self, _: &str) -> Result<(), Failure> {
            Err(UNSUPPORTED)
        }

        pub fn set_normalization(&mut self, _: cbl_normalization) -> Result<(), Failure> {
            Err(UNSUPPORTED)
        }

        pub fn set_calibration(&mut self, _: cbl_calibration) -> Result<(), Failure> {
            Err(UNSUPPORTED)
        }

        pub fn add_example(&mut self, _: &str, _: &str) -> Result<(), Failure> {
            Err(UNSUPPORTED)
        }

        pub fn clear_examples(&mut self) {}
    }
}
