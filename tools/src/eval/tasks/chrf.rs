//! chrF: how many character n-grams a translation shares with a right one.
//!
//! Popović, "chrF: character n-gram F-score for automatic MT evaluation" (WMT 2015), with the settings
//! of sacrebleu's `chrF2`: n-grams of 1 to 6 characters, white space left out, recall weighing twice as
//! much as precision, several right answers by the best one of each sentence.

use std::collections::HashMap;

use super::example::Example;
use super::percent::Percent;

/// The longest n-gram.
const ORDER: usize = 6;
/// How much more recall weighs than precision, `β`.
const BETA: f64 = 2.0;
/// The normal distribution's two-sided 95 % quantile.
const QUANTILE: f64 = 1.959964;

/// N-grams of each length: those of the answer, of the right one, and common to both.
#[derive(Clone, Copy, Debug, Default)]
struct Counts([[u64; 3]; ORDER]);

/// The answers' n-grams, sentence by sentence.
#[derive(Clone, Debug)]
pub struct Chrf {
    sentences: Vec<Counts>,
    total: Counts,
}

impl Chrf {
    /// Counts the n-grams of `answers`, one to each example.
    pub fn new(examples: &[Example], answers: &[String]) -> Self {
        let pairs = examples.iter().zip(answers);
        let sentences: Vec<_> = pairs.map(|(e, answer)| Counts::best(answer, e)).collect();
        let total = sentences.iter().fold(Counts::default(), |total, one| total.plus(one));
        Self { sentences, total }
    }

    /// The score of all sentences together, 0 to 100; its interval by the jackknife over sentences.
    pub fn score(&self) -> Percent {
        let score = |leave_out: &Counts| self.total.minus(leave_out).score();
        jackknife(self.total.score(), self.sentences.iter().map(score).collect())
    }

    /// How much higher the score is than that of `baseline` on the same examples.
    ///
    /// # Panics
    /// If the two differ in length.
    pub fn difference(&self, baseline: &Self) -> Percent {
        assert_eq!(self.sentences.len(), baseline.sentences.len(), "different examples");
        let pairs = self.sentences.iter().zip(&baseline.sentences);
        let without = |(one, other): (&Counts, &Counts)| {
            self.total.minus(one).score() - baseline.total.minus(other).score()
        };
        let value = self.total.score() - baseline.total.score();
        jackknife(value, pairs.map(without).collect())
    }
}

/// The interval of a figure from what it is `without` each sentence in turn. Tukey, 1958.
fn jackknife(value: f64, without: Vec<f64>) -> Percent {
    let n = without.len() as f64;
    let mean = without.iter().sum::<f64>() / n;
    let squares: f64 = without.iter().map(|value| (value - mean).powi(2)).sum();
    let half = QUANTILE * ((n - 1.0) / n * squares).sqrt();
    let interval = (without.len() >= 10).then_some([value - half, value + half]);
    Percent { value, interval }
}

impl Counts {
    /// Those against the right answer that gives the best score.
    fn best(answer: &str, example: &Example) -> Self {
        let of_references = example.references.iter().map(|right| Self::new(answer, right));
        let better =
            |best: Self, other: Self| if other.score() > best.score() { other } else { best };
        of_references.reduce(better).unwrap_or_default()
    }

    fn new(answer: &str, right: &str) -> Self {
        let (answer, right) = (characters(answer), characters(right));
        let mut counts = Self::default();
        for (i, [of_answer, of_right, common]) in counts.0.iter_mut().enumerate() {
            let (found, expected) = (ngrams(&answer, i + 1), ngrams(&right, i + 1));
            *of_right = expected.values().sum();
            // An order that the right answer is too short for does not count.
            *of_answer = if expected.is_empty() { 0 } else { found.values().sum() };
            let shared = found.iter().filter_map(|(ngram, n)| Some(*n.min(expected.get(ngram)?)));
            *common = shared.sum();
        }
        counts
    }

    fn plus(mut self, other: &Self) -> Self {
        let counts = self.0.as_flattened_mut().iter_mut().zip(other.0.as_flattened());
        counts.for_each(|(count, other)| *count += other);
        self
    }

    fn minus(mut self, other: &Self) -> Self {
        let counts = self.0.as_flattened_mut().iter_mut().zip(other.0.as_flattened());
        counts.for_each(|(count, other)| *count -= other);
        self
    }

    /// The F-score of mean precision and mean recall over the orders that both sides have, in percent.
    fn score(&self) -> f64 {
        let orders = self.0.iter().filter(|[answer, right, _]| *answer > 0 && *right > 0);
        let (mut n, mut precision, mut recall) = (0.0, 0.0, 0.0);
        for &[answer, right, common] in orders {
            n += 1.0;
            precision += common as f64 / answer as f64;
            recall += common as f64 / right as f64;
        }
        if precision + recall == 0.0 {
            return 0.0;
        }
        let (precision, recall, weight) = (precision / n, recall / n, BETA * BETA);
        100.0 * (1.0 + weight) * precision * recall / (weight * precision + recall)
    }
}

fn characters(text: &str) -> Vec<char> {
    text.split_whitespace().flat_map(str::chars).collect()
}

fn ngrams(text: &[char], n: usize) -> HashMap<&[char], u64> {
    let mut counts = HashMap::new();
    text.windows(n).for_each(|ngram| *counts.entry(ngram).or_default() += 1);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples() -> (Vec<Example>, Vec<String>) {
        let pairs: [(&str, &[&str]); 7] = [
            ("Je suis là.", &["Je suis ici.", "Je suis là !"]),
            ("Tom se souvient de tout", &["Tom se souvenait de tout."]),
            ("", &["Oui."]),
            (
                "Il m'a fallu  terminer",
                &[
                    "J'ai dû terminer ce que j'avais commencé.",
                    "Il m'a fallu terminer ce que j'avais commencé.",
                ],
            ),
            ("日本語 テスト", &["日本語のテスト"]),
            ("ab", &["abc", "ab"]),
            ("J'ai faim.", &["J'ai faim."]),
        ];
        let example = |right: &[&str]| Example {
            input: String::new(),
            references: right.iter().map(|&right| right.to_owned()).collect(),
        };
        pairs.iter().map(|(answer, right)| (example(right), (*answer).to_owned())).unzip()
    }

    /// Values of sacrebleu 2.6.0: `CHRF().corpus_score`, for all sentences and for each alone.
    #[test]
    fn scores_are_those_of_sacrebleu() {
        let (examples, answers) = examples();
        let all = Chrf::new(&examples, &answers);
        assert!((all.score().value - 58.64651689913476).abs() < 1e-9, "{:?}", all.score());
        let expected = [
            83.40608465608467,
            62.793148602771474,
            0.0,
            47.8584131105691,
            33.147831050228305,
            100.0,
            100.0,
        ];
        for (i, expected) in expected.into_iter().enumerate() {
            let one = Chrf::new(&examples[i..=i], &answers[i..=i]).score();
            assert!((one.value - expected).abs() < 1e-9, "{i}: {one:?} {expected}");
            assert_eq!(one.interval, None);
        }
        assert_eq!(all.difference(&all).value, 0.0);
    }

    /// The jackknife of a mean is its usual standard error.
    #[test]
    fn the_jackknife_of_a_mean_is_its_standard_error() {
        let values: Vec<f64> = (0..20).map(|i| f64::from(i * i % 7)).collect();
        let sum: f64 = values.iter().sum();
        let without = values.iter().map(|value| (sum - value) / 19.0).collect();
        let [low, high] = jackknife(sum / 20.0, without).interval.unwrap();
        let [expected_low, expected_high] = crate::eval::mean_interval(&values).unwrap();
        assert!((low - expected_low).abs() < 1e-9 && (high - expected_high).abs() < 1e-9);
    }
}
