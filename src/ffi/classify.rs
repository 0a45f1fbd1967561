//! Classification
//!
//! A classifier finds which of several labels fits a text: the one that the model considers the most
//! probable after the text. Needs a build that can tokenize.
//!
//!     const char *labels[] = {"alarm", "timer", "weather"};
//!     cbl_classifier *classifier;
//!     cbl_classifier_new(model, NULL, labels, 3, &classifier, NULL, 0);
//!     cbl_classify(session, classifier, "wake me at six", 14, &best, NULL, 0);
//!
//! CBL_OPTION_TEMPLATE says where the text and the label stand in what the model reads. The quality
//! depends on it: give the form that the model was trained on, or add some examples.

use core::ffi::c_char;

use super::arguments::{Out, buffer_for, text, texts};
use super::boundary::{self, Report};
use super::handle::{self, Handle, Place};
use super::model::{self, cbl_model};
use super::options::{self, cbl_options};
use super::session::{self, cbl_session};
use super::status::cbl_status;

#[cfg(feature = "text")]
use with_text::Labels;
#[cfg(not(feature = "text"))]
use without_text::Labels;

/// Labels, and what is needed to choose one of them.
pub struct cbl_classifier {
    labels: Labels,
}

impl Handle for cbl_classifier {
    const TAG: u64 = u64::from_le_bytes(*b"cbl-clas");
}

/// Makes a classifier that chooses one of `count` labels. `labels` points to `count` texts of
/// UTF-8, each ended by a zero byte. No two labels are equal, and no label is blank. A label may be
/// the beginning of another.
///
/// `options` may be NULL. Only CBL_OPTION_TEMPLATE, CBL_OPTION_NORMALIZATION,
/// CBL_OPTION_CALIBRATION and the examples of cbl_options_add_example() are used. Everything is
/// copied. `*classifier` is NULL if that fails.
///
/// Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8, CBL_BAD_OPTION if there
/// are no labels or one of them cannot be used, CBL_NO_TOKENIZER, CBL_BAD_TEXT, CBL_MODEL_CHANGED,
/// CBL_NO_MEMORY, CBL_UNSUPPORTED, CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_classifier_new(
    model: *const cbl_model,
    options: *const cbl_options,
    labels: *const *const c_char,
    count: usize,
    classifier: *mut *mut cbl_classifier,
    message: *mut c_char,
    message_size: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let out = Out::new(classifier, core::ptr::null_mut());
        model::with_shared(model, Report::Buffer(message, message_size), |shared| {
            let out = out?;
            let labels = texts(labels, count)?;
            let prepare =
                |options: &options::Options| Labels::new(shared, &labels, &options.classification);
            let labels = options::with(options, prepare)?;
            out.set(Place::new(cbl_classifier { labels })?.give());
            Ok(())
        })
    }
}

/// Frees a classifier; NULL is allowed.
///
/// No other call may be using the handle. Errors: CBL_BAD_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_classifier_free(classifier: *mut cbl_classifier) -> cbl_status {
    if classifier.is_null() {
        return cbl_status::CBL_OK;
    }
    boundary::status(Report::Nothing, || {
        // SAFETY: the caller's contract.
        unsafe {
            handle::get(classifier)?;
            handle::free(classifier);
        }
        Ok(())
    })
}

/// Finds the label that fits a text best. The text is `length` bytes of UTF-8. `*label` receives
/// the index of the label among those of cbl_classifier_new(). `probabilities` has room for
/// `capacity` results, and receives the probability of each label; their sum is 1. It may be NULL
/// if `capacity` is 0.
///
/// The session is any session of the classifier's model. Of its options, only the type of the cache
/// can change the result. The call replaces the tokens that the session holds. If the new tokens
/// begin as the ones before did, this beginning is not evaluated again, so classify many texts in
/// one session. That is fastest if the session is made with CBL_OPTION_ALL_LOGITS.
///
/// One thread at a time for the session; thread-safe for the classifier. Results are written on
/// success only. Errors: CBL_BAD_HANDLE; CBL_BAD_ARGUMENT, also if the session is of another model;
/// CBL_INVALID_UTF8; CBL_BUFFER_TOO_SMALL if there are more labels than `capacity`; CBL_BAD_TEXT;
/// CBL_CONTEXT_FULL if the text is too long; CBL_MODEL_CHANGED; CBL_NON_FINITE; CBL_CANCELLED;
/// CBL_NO_MEMORY; CBL_BUSY; CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_classify(
    session: *mut cbl_session,
    classifier: *const cbl_classifier,
    text: *const c_char,
    length: usize,
    label: *mut usize,
    probabilities: *mut f64,
    capacity: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let out = Out::new(label, 0);
        session::work(session, |inner| {
            let out = out?;
            let labels = &handle::get(classifier)?.labels;
            let text = self::text(text, length)?;
            let wanted = !(probabilities.is_null() && capacity == 0);
            let needed = if wanted { labels.len() } else { 0 };
            let probabilities = buffer_for(needed, probabilities, capacity)?;
            let (best, all) = labels.classify(inner, text)?;
            out.set(best);
            probabilities.iter_mut().zip(all).for_each(|(to, from)| *to = from);
            Ok(())
        })
    }
}

/// Adds an example that the model reads before every text to be classified: a text of `length`
/// bytes and its label of `label_length` bytes, both UTF-8. They are copied. A few examples help a
/// model that was not trained on the task.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8,
/// CBL_UNSUPPORTED, CBL_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_options_add_example(
    options: *mut cbl_options,
    text: *const c_char,
    length: usize,
    label: *const c_char,
    label_length: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        options::change(options, |options| {
            let (text, label) = (self::text(text, length)?, self::text(label, label_length)?);
            options.classification.add_example(text, label)
        })
    }
}

/// Removes all examples.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_options_clear_examples(options: *mut cbl_options) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        options::change(options, |options| {
            options.classification.clear_examples();
            Ok(())
        })
    }
}

#[cfg(feature = "text")]
mod with_text {
    use alloc::sync::Arc;
    use alloc::vec::Vec;

    use crate::classify::{Bias, Classifier};
    use crate::ffi::failure::Failure;
    use crate::ffi::model::Shared;
    use crate::ffi::options::Classification;
    use crate::ffi::session::Inner;
    use crate::ffi::status::cbl_status::CBL_BAD_ARGUMENT;
    use crate::model::TokenizerBytes;
    use crate::sync::OnceLock;
    use crate::text::Tokenizer;

    /// A classifier, and the model that it borrows from.
    pub struct Labels {
        /// Dropped before `shared`, from which it borrows.
        classifier: Classifier<'static, TokenizerBytes>,
        shared: Arc<Shared>,
        /// Measured at the first use. The two types of cache give different numbers.
        bias: [OnceLock<Bias>; 2],
    }

    impl Labels {
        pub fn new(
            shared: &Arc<Shared>,
            labels: &[&str],
            settings: &Classification,
        ) -> Result<Self, Failure> {
            let tokenizer: *const Tokenizer<_> = &**shared.tokenizer()?;
            // SAFETY: the tokenizer lies in `shared` and stays there. The result keeps `shared`.
            let tokenizer = unsafe { &*tokenizer };
            Ok(Self {
                classifier: Classifier::for_model(
                    &shared.model,
                    tokenizer,
                    labels,
                    &settings.classifier_options(&shared.model)?,
                )?,
                shared: Arc::clone(shared),
                bias: [OnceLock::new(), OnceLock::new()],
            })
        }

        pub fn len(&self) -> usize {
            self.classifier.labels().len()
        }

        /// The best label, and the probabilities of all.
        pub fn classify(
            &self,
            inner: &mut Inner,
            text: &str,
        ) -> Result<(usize, Vec<f64>), Failure> {
            if !Arc::ptr_eq(&self.shared, &inner.shared) {
                let detail = "the session is not one of the classifier's model";
                return Err(Failure::Misuse(CBL_BAD_ARGUMENT, detail));
            }
            let bias = &self.bias[inner.setup.options.kv as usize];
            let result = inner.counted_by_position(|session| {
                let bias = match bias.get() {
                    Some(bias) => bias,
                    None => {
                        let found = self.classifier.calibrate(session)?;
                        // If two threads come here at the same time, both have found the same.
                        bias.get_or_init(|| found)
                    }
                };
                self.classifier.classify_with(bias, session, text)
            })?;
            Ok((result.label, result.probabilities))
        }
    }
}

#[cfg(not(feature = "text"))]
mod without_text {
    use alloc::sync::Arc;
    use alloc::vec::Vec;

    use crate::ffi::failure::{Failure, NO_TOKENIZING as UNSUPPORTED};
    use crate::ffi::model::Shared;
    use crate::ffi::options::Classification;
    use crate::ffi::session::Inner;

    /// No value exists: `new` always fails.
    pub enum Labels {}

    impl Labels {
        pub fn new(_: &Arc<Shared>, _: &[&str], _: &Classification) -> Result<Self, Failure> {
            Err(UNSUPPORTED)
        }

        pub fn len(&self) -> usize {
            match *self {}
        }

        pub fn classify(&self, _: &mut Inner, _: &str) -> Result<(usize, Vec<f64>), Failure> {
            match *self {}
        }
    }
}
