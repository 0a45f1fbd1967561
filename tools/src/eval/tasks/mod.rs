//! What users get: how often a model's greedy answers are right.
//!
//! A task is a table of inputs and right answers. Each input is put into a [`Template`], the model
//! continues it greedily to the end of the line ([`answer_by_model`], [`answer_by_reference`]), and the
//! answers are held against the table: exactly right or not ([`exact`]), and for translations by how many
//! character n-grams they share with it ([`Chrf`]).

mod answers;
mod chrf;

pub use answers::{answer_by_model, answer_by_reference};
pub use chrf::Chrf;

use super::{Error, Result, mean_interval};

/// An input with the answers that are right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// What is asked.
    pub input: String,
    /// The right answers: at least one.
    pub references: Vec<String>,
}

impl Example {
    /// The examples of a table with a tab between its columns: the input, then right answers in the
    /// next `columns` ones, which may be fewer but the first.
    ///
    /// # Errors
    /// [`Error::Example`] for a line without an input or an answer, [`Error::NoExamples`].
    pub fn parse(table: &str, columns: usize) -> Result<Vec<Self>> {
        let lines = table.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let examples = lines.map(|(index, line)| {
            let mut cells = line.split('\t').map(str::trim);
            let input = cells.next().unwrap_or_default().to_owned();
            let references: Vec<_> =
                cells.take(columns).filter(|cell| !cell.is_empty()).map(str::to_owned).collect();
            match input.is_empty() || references.is_empty() {
                true => Err(Error::Example { line: index + 1 }),
                false => Ok(Self { input, references }),
            }
        });
        let examples: Vec<_> = examples.collect::<Result<_>>()?;
        if examples.is_empty() { Err(Error::NoExamples) } else { Ok(examples) }
    }

    /// Whether `answer` is one of the right ones.
    pub fn is_right(&self, answer: &str) -> bool {
        self.references.iter().any(|reference| reference == answer)
    }
}

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

/// A mean over examples, in percent, with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percent {
    /// The mean.
    pub value: f64,
    /// Its interval; `None` below 10 examples.
    pub interval: Option<[f64; 2]>,
}

impl Percent {
    fn mean(values: &[f64]) -> Self {
        let value = 100.0 * values.iter().sum::<f64>() / values.len() as f64;
        Self { value, interval: mean_interval(values).map(|ends| ends.map(|end| 100.0 * end)) }
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
    fn tables_are_parsed() {
        let table = "set an alarm\talarm\tutility\n\nhello\tgreeting\n";
        let examples = Example::parse(table, 1).unwrap();
        assert_eq!(examples.len(), 2);
        assert_eq!(examples[0].references, ["alarm"]);
        assert!(examples[0].is_right("alarm") && !examples[0].is_right("utility"));
        let examples = Example::parse(table, usize::MAX).unwrap();
        assert_eq!(examples[0].references, ["alarm", "utility"]);
        for (table, line) in [("a\tb\nno tab\n", 2), ("\tb\n", 1), ("a\t\n", 1)] {
            let error = Example::parse(table, 1).unwrap_err();
            assert!(matches!(error, Error::Example { line: found } if found == line), "{error}");
        }
        assert!(matches!(Example::parse("\n\n", 1), Err(Error::NoExamples)));
    }

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
