//! What users get: how often a model's greedy answers are right.
//!
//! A task is a table of inputs and right answers. Each input is put into a [`Template`], the model
//! continues it greedily to the end of the line ([`answer_by_model`], [`answer_by_reference`]), and the
//! answers are held against the table: exactly right or not ([`exact`]), and for translations by how many
//! character n-grams they share with it ([`Chrf`]).

mod answers;
mod chrf;
mod example;
mod percent;

pub use answers::{answer_by_model, answer_by_reference, choose_by_reference};
pub use chrf::Chrf;
pub use example::Example;
pub use percent::Percent;

use super::error::{Error, Result};

/// What a model is asked to continue: a text with `{text}` in it.
#[derive(Clone, Debug)]
pub struct Template(String);

impl Template {
    /// Where the input goes.
    pub const PLACE: &str = "{text}";

    /// A template.
    ///
    /// # Errors
    /// [`Error::Template`] unless the input has exactly one place in it.
    pub fn new(text: &str) -> Result<Self> {
        match text.matches(Self::PLACE).count() {
            1 => Ok(Self(text.to_owned())),
            places => Err(Error::Template { places }),
        }
    }

    /// The prompt for an input.
    pub fn prompt(&self, input: &str) -> String {
        self.0.replace(Self::PLACE, input)
    }
}

/// Which answers are exactly right: 1 or 0 each.
pub fn exact(examples: &[Example], answers: &[String]) -> Vec<f64> {
    let right =
        |(example, answer): (&Example, &String)| f64::from(u8::from(example.is_right(answer)));
    examples.iter().zip(answers).map(right).collect()
}

/// The share of right answers.
///
/// # Panics
/// If there is none.
pub fn accuracy(right: &[f64]) -> Percent {
    Percent::mean(right)
}

/// How much more often `right` is than `baseline`, on the same examples: the interval is that of the
/// mean of the differences, which is narrower than that of either.
///
/// # Panics
/// If the two differ in length.
pub fn accuracy_difference(right: &[f64], baseline: &[f64]) -> Percent {
    assert_eq!(right.len(), baseline.len(), "answers to different examples");
    let differences: Vec<f64> = right.iter().zip(baseline).map(|(a, b)| a - b).collect();
    Percent::mean(&differences)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_have_one_place() {
        assert_eq!(Template::new("Q: {text}\nA:").unwrap().prompt("{x}"), "Q: {x}\nA:");
        for bad in ["", "{text} {text}"] {
            assert!(matches!(Template::new(bad), Err(Error::Template { .. })));
        }
    }

    /// 100 pairs, of which 10 differ: the standard deviation of the differences is that of ten ones
    /// among zeros, sqrt(0.09 * 100 / 99).
    #[test]
    fn differences_are_paired() {
        let (right, baseline) = (vec![1.0; 100], [vec![0.0; 10], vec![1.0; 90]].concat());
        let difference = accuracy_difference(&right, &baseline);
        assert!((difference.value - 10.0).abs() < 1e-9);
        let half = 100.0 * 1.959964 * (0.09f64 / 99.0).sqrt();
        let [low, high] = difference.interval.unwrap();
        assert!((high - 10.0 - half).abs() < 1e-9 && (10.0 - half - low).abs() < 1e-9);
        assert_eq!(accuracy_difference(&right, &right).interval, Some([0.0, 0.0]));
        assert_eq!(accuracy(&baseline).value, 90.0);
    }
}
