//! From logits to a token (`docs/numbers.md` section 10).

use alloc::vec::Vec;
use core::mem::take;
use core::ops::RangeInclusive;

use crate::error::{Error, Result};
use crate::fp_env::FpEnv;
use crate::heap;
use crate::kernels::{Kernels, Work};
use crate::math;
use crate::memory::{Arena, Plain, Planner, Region};
use crate::number::{self, Shortest};
use crate::random;

/// How a token is chosen. The defaults choose the most probable one.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerOptions {
    /// 0 always takes the largest logit; 1 samples from the model's own distribution. 0 to 100.
    pub temperature: f32,
    /// Keeps the `k` most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the most probable tokens that together reach this share, over 0 to 1; 1 keeps all
    /// (Holtzman et al., 2020).
    pub top_p: f32,
    /// Keeps tokens at least this fraction, 0 to 1, as probable as the first; 0 keeps all
    /// (Nguyen et al., 2024).
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of recent tokens, 0.01 to 100; 1 leaves them alone
    /// (Keskar et al., 2019).
    pub repetition_penalty: f32,
    /// How many of the last tokens, those of the prompt among them, are penalized; 0 penalizes all.
    pub repetition_window: usize,
    /// Tokens with what is added to their logits before all else, -1000 to 1000: -100 all but forbids
    /// one, 100 all but forces it. A token that the model does not have is an error.
    pub logit_bias: Vec<(u32, f32)>,
    /// The same seed gives the same tokens on every machine.
    pub seed: u64,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            repetition_window: 64,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

const TEMPERATURES: RangeInclusive<f32> = 0.0..=100.0;
const PENALTIES: RangeInclusive<f32> = 0.01..=100.0;
const BIASES: RangeInclusive<f32> = -1000.0..=1000.0;

impl SamplerOptions {
    /// The options that one number sets, as [`set`](Self::set) and all programs name them.
    pub const NAMES: [&str; 7] = [
        "temperature",
        "top-k",
        "top-p",
        "min-p",
        "repetition-penalty",
        "repetition-window",
        "seed",
    ];

    /// Sets the option of that name to a number in writing. False if there is none of that name.
    ///
    /// # Errors
    /// [`Error::Option`] if it is no number, or out of the option's range. Then nothing is changed.
    pub fn set(&mut self, name: &str, value: &str) -> Result<bool> {
        let mut changed = self.clone();
        match name {
            "temperature" => changed.temperature = number::real("temperature", value)?,
            "top-k" => changed.top_k = number::whole("top_k", value, 0..=usize::MAX)?,
            "top-p" => changed.top_p = number::real("top_p", value)?,
            "min-p" => changed.min_p = number::real("min_p", value)?,
            "repetition-penalty" => {
                changed.repetition_penalty = number::real("repetition_penalty", value)?;
            }
            "repetition-window" => {
                changed.repetition_window =
                    number::whole("repetition_window", value, 0..=usize::MAX)?;
            }
            "seed" => changed.seed = number::whole("seed", value, 0..=u64::MAX)?,
            _ => return Ok(false),
        }
        changed.check()?;
        *self = changed;
        Ok(true)
    }

    /// Fails if an option is out of its range.
    ///
    /// # Errors
    /// [`Error::Option`], which names the option and its range.
    pub fn check(&self) -> Result<()> {
        within("temperature", self.temperature, TEMPERATURES)?;
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            let detail = format!("{} is not over 0 and at most 1", Shortest(self.top_p));
            return Err(Error::Option { name: "top_p", detail });
        }
        within("min_p", self.min_p, 0.0..=1.0)?;
        within("repetition_penalty", self.repetition_penalty, PENALTIES)?;
        self.logit_bias.iter().try_for_each(|&(_, bias)| check_bias(bias))
    }

    /// As [`check`](Self::check), and whether a vocabulary of `vocab_size` tokens has those that are biased.
    ///
    /// # Errors
    /// [`Error::Option`].
    pub fn check_for(&self, vocab_size: usize) -> Result<()> {
        self.check()?;
        let unknown = self.logit_bias.iter().find(|&&(token, _)| token as usize >= vocab_size);
        unknown.map_or(Ok(()), |&(token, _)| {
            let detail = format!("token id {token} is not below the vocabulary size {vocab_size}");
            Err(Error::Option { name: "logit_bias", detail })
        })
    }
}

/// Fails if it is no [`SamplerOptions::logit_bias`].
pub(crate) fn check_bias(bias: f32) -> Result<()> {
    within("logit_bias", bias, BIASES)
}

fn within(name: &'static str, value: f32, range: RangeInclusive<f32>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let [value, least, most] = [value, *range.start(), *range.end()].map(Shortest);
    let detail = format!("{value} is not in {least}..={most}");
    Err(Error::Option { name, detail })
}

/// A token that may be chosen. Its logit is [`settled`].
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Candidate {
    logit: f32,
    token: u32,
}

// SAFETY: two plain numbers without padding.
unsafe impl Plain for Candidate {}

impl Candidate {
    /// Whether it is more probable, or as probable and has the lower id.
    fn is_before(&self, other: &Self) -> bool {
        self.logit > other.logit || self.logit == other.logit && self.token < other.token
    }
}

/// A logit as candidates have it: finite, and of the two zeros the positive one.
///
/// Finite logits have a largest one, which weighs `exp(0) = 1`: so the weights have a positive, finite sum,
/// and the first candidate passes every filter, whatever the options. A sum, product or quotient beyond the
/// largest number becomes that number; a NaN, which no session hands out, the least.
#[inline(always)]
#[allow(clippy::manual_clamp, reason = "`clamp` would hand a NaN on")]
fn settled(logit: f32) -> f32 {
    (logit + 0.0).max(f32::MIN).min(f32::MAX)
}

/// Chooses tokens; its buffers are allocated when it is made.
pub struct Sampler {
    options: SamplerOptions,
    kernels: &'static Kernels,
    candidates: Vec<Candidate>,
    weights: Vec<f64>,
    seen: Vec<u64>,
}

impl Sampler {
    /// A sampler for a vocabulary of `vocab_size` tokens.
    ///
    /// # Errors
    /// [`Error::Option`] if an option is out of range; [`Error::OutOfMemory`].
    pub fn new(options: &SamplerOptions, vocab_size: usize) -> Result<Self> {
        options.check_for(vocab_size)?;
        Ok(Self {
            options: options.clone(),
            kernels: Kernels::best(),
            candidates: zeroed(vocab_size)?,
            weights: zeroed(vocab_size)?,
            seen: zeroed(seen_words(vocab_size))?,
        })
    }

    /// Chooses the token at `position` from the logits before it.
    ///
    /// `history` is the sequence so far, whose end may be penalized. Logits that are not finite count as the
    /// largest or the least number. Allocates nothing. Panics if `logits` is empty or longer than the
    /// vocabulary the sampler was made for.
    pub fn sample(&mut self, logits: &[f32], history: &[u32], position: usize) -> u32 {
        self.choice().make(logits, history, position, None)
    }

    /// As [`sample`](Self::sample), of the tokens that are `allowed`, as
    /// [`Session::sample_within`](crate::Session::sample_within) takes them.
    ///
    /// # Errors
    /// [`Error::NothingAllowed`] if no bit of the vocabulary is set.
    pub fn sample_within(
        &mut self,
        logits: &[f32],
        history: &[u32],
        position: usize,
        allowed: &[u32],
    ) -> Result<u32> {
        if !allows_any(allowed, logits.len()) {
            return Err(Error::NothingAllowed);
        }
        Ok(self.choice().make(logits, history, position, Some(allowed)))
    }

    fn choice(&mut self) -> Choice<'_> {
        Choice {
            options: &self.options,
            kernels: self.kernels,
            candidates: &mut self.candidates,
            weights: &mut self.weights,
            seen: &mut self.seen,
        }
    }
}

fn zeroed<T: Clone + Default>(len: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    let memory = |_| Error::OutOfMemory { bytes: len * size_of::<T>() };
    values.try_reserve_exact(len).map_err(memory)?;
    values.resize(len, T::default());
    Ok(values)
}

fn seen_words(vocab_size: usize) -> usize {
    vocab_size.div_ceil(u64::BITS as usize)
}

/// Places of a sampler's buffers in a session's memory.
pub(crate) struct SamplerRegions {
    candidates: Region<Candidate>,
    weights: Region<f64>,
    seen: Region<u64>,
    vocab_size: usize,
}

impl SamplerRegions {
    /// Plans buffers for a vocabulary of `vocab_size` tokens.
    pub fn plan(planner: &mut Planner, vocab_size: usize) -> Result<Self> {
        Ok(Self {
            candidates: planner.reserve(&[vocab_size])?,
            weights: planner.reserve(&[vocab_size])?,
            seen: planner.reserve(&[seen_words(vocab_size)])?,
            vocab_size,
        })
    }

    /// As [`Sampler::sample`], in these buffers; of the tokens that are `allowed`, if that is given, of
    /// which there is at least one.
    ///
    /// # Safety
    /// Nobody else uses these regions of the arena during the call.
    pub unsafe fn sample(
        &self,
        arena: &Arena,
        (options, kernels): (&SamplerOptions, &Kernels),
        logits: &[f32],
        (history, position): (&[u32], usize),
        allowed: Option<&[u32]>,
    ) -> u32 {
        // SAFETY: the caller's promise, and the regions are apart.
        let choice = unsafe {
            Choice {
                options,
                kernels,
                candidates: arena.write(self.candidates, 0..self.vocab_size),
                weights: arena.write(self.weights, 0..self.vocab_size),
                seen: arena.write(self.seen, 0..seen_words(self.vocab_size)),
            }
        };
        choice.make(logits, history, position, allowed)
    }
}

/// Whether a set of tokens, a bit for each from the lowest of the first word on, has this one.
pub fn is_allowed(allowed: &[u32], token: u32) -> bool {
    allowed.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
}

/// Whether such a set has any token of the vocabulary.
pub(crate) fn allows_any(allowed: &[u32], vocab_size: usize) -> bool {
    let (whole, rest) = (vocab_size / 32, vocab_size % 32);
    let last = allowed.get(whole).map_or(0, |word| word & ((1 << rest) - 1));
    last != 0 || allowed.iter().take(whole).any(|&word| word != 0)
}

/// One choice, in buffers for the whole vocabulary.
struct Choice<'a> {
    options: &'a SamplerOptions,
    kernels: &'a Kernels,
    /// Those that may still be chosen; shrinks.
    candidates: &'a mut [Candidate],
    /// Weight of `candidates[i]` while both are in id order.
    weights: &'a mut [f64],
    /// A bit per token: whether it was penalized already. All zero between choices.
    seen: &'a mut [u64],
}

impl Choice<'_> {
    fn make(
        mut self,
        logits: &[f32],
        history: &[u32],
        position: usize,
        allowed: Option<&[u32]>,
    ) -> u32 {
        let _env = FpEnv::set_default();
        self.begin(logits);
        self.add_bias();
        self.penalize(history);
        if let Some(allowed) = allowed {
            self.keep_allowed(allowed);
        }
        if self.options.temperature == 0.0 {
            return most_probable(self.candidates);
        }
        self.narrow();
        self.draw(random::uniform(self.options.seed, position as u64))
    }

    /// Every token is a candidate.
    fn begin(&mut self, logits: &[f32]) {
        assert!(!logits.is_empty() && logits.len() <= self.candidates.len());
        self.keep(logits.len());
        for ((token, &logit), candidate) in (0..).zip(logits).zip(&mut *self.candidates) {
            *candidate = Candidate { logit: settled(logit), token };
        }
    }

    /// Before any candidate is dropped, so that a token's place is its id.
    fn add_bias(&mut self) {
        for &(token, bias) in &self.options.logit_bias {
            if let Some(candidate) = self.candidates.get_mut(token as usize) {
                candidate.logit = settled(candidate.logit + bias);
            }
        }
    }

    fn keep_allowed(&mut self, allowed: &[u32]) {
        let mut kept = 0;
        for i in 0..self.candidates.len() {
            let candidate = self.candidates[i];
            if is_allowed(allowed, candidate.token) {
                self.candidates[kept] = candidate;
                kept += 1;
            }
        }
        self.keep(kept);
    }

    /// Drops the candidates that the options exclude, and weighs the others.
    fn narrow(&mut self) {
        self.keep_top_k();
        self.weigh();
        self.keep_top_p_and_min_p();
    }

    /// Drops all but the first `n` candidates and weights.
    fn keep(&mut self, n: usize) {
        self.candidates = &mut take(&mut self.candidates)[..n];
        self.weights = &mut take(&mut self.weights)[..n];
    }

    fn penalize(&mut self, history: &[u32]) {
        let penalty = self.options.repetition_penalty;
        if penalty == 1.0 {
            return;
        }
        let recent = match self.options.repetition_window {
            0 => history,
            window => &history[history.len().saturating_sub(window)..],
        };
        for &token in recent {
            let (word, bit) = (token as usize / 64, 1 << (token % 64));
            let Some(candidate) = self.candidates.get_mut(token as usize) else { continue };
            if self.seen[word] & bit == 0 {
                self.seen[word] |= bit;
                let z = candidate.logit;
                candidate.logit = settled(if z > 0.0 { z / penalty } else { z * penalty });
            }
        }
        for &token in recent {
            if let Some(word) = self.seen.get_mut(token as usize / 64) {
                *word = 0;
            }
        }
    }

    fn keep_top_k(&mut self) {
        let k = self.options.top_k;
        if k > 0 && k < self.candidates.len() {
            heap::select(self.candidates, k, Candidate::is_before);
            self.keep(k);
            heap::sort(self.candidates, |a, b| a.token < b.token);
        }
    }

    fn weigh(&mut self) {
        self.kernels.run(Weigh {
            candidates: self.candidates,
            max: self.largest_logit(),
            temperature: self.options.temperature,
            weights: self.weights,
        });
    }

    fn largest_logit(&self) -> f32 {
        self.candidates.iter().fold(f32::NEG_INFINITY, |max, c| max.max(c.logit))
    }

    fn keep_top_p_and_min_p(&mut self) {
        let (top_p, min_p) = (f64::from(self.options.top_p), f64::from(self.options.min_p));
        let last = (top_p < 1.0).then(|| self.last_within(top_p));
        // The largest weight is exp(0) = 1.
        let least = min_p;
        if last.is_none() && least == 0.0 {
            return;
        }
        let mut kept = 0;
        for i in 0..self.candidates.len() {
            let candidate = self.candidates[i];
            let within = last.is_none_or(|last| !last.is_before(&candidate));
            if within && self.weights[i] >= least {
                self.candidates[kept] = candidate;
                self.weights[kept] = self.weights[i];
                kept += 1;
            }
        }
        self.keep(kept);
    }

    /// The last candidate, in order of probability, that top-p keeps.
    ///
    /// Found without sorting them all: the most probable ones are taken from a heap until they reach the
    /// share. Leaves candidates and weights in id order.
    fn last_within(&mut self, top_p: f64) -> Candidate {
        let goal = top_p * self.weights.iter().sum::<f64>();
        let max = self.largest_logit();
        let temperature = self.options.temperature;
        let mut left = self.candidates.len();
        let has_all_tokens = self.candidates[left - 1].token as usize == left - 1;
        let (mut sum, mut last) = (0.0, self.candidates[0]);
        heap::make(self.candidates, Candidate::is_before);
        while sum < goal && left > 0 {
            last = self.candidates[0];
            sum += weight(last.logit, max, temperature);
            heap::pop(&mut self.candidates[..left], Candidate::is_before);
            left -= 1;
        }
        if has_all_tokens {
            put_in_their_places(self.candidates);
        } else {
            heap::sort(self.candidates, |a, b| a.token < b.token);
        }
        last
    }

    fn draw(&self, uniform: f64) -> u32 {
        let goal = uniform * self.weights.iter().sum::<f64>();
        let mut sum = 0.0;
        for (candidate, weight) in self.candidates.iter().zip(&*self.weights) {
            sum += weight;
            if sum > goal {
                return candidate.token;
            }
        }
        self.candidates.last().expect("the first candidate always stays").token
    }
}

/// Sorts candidates by their ids, which are all from 0 on: faster than sorts of any numbers.
fn put_in_their_places(candidates: &mut [Candidate]) {
    for place in 0..candidates.len() {
        // Each exchange puts one candidate into its place.
        while candidates[place].token as usize != place {
            candidates.swap(place, candidates[place].token as usize);
        }
    }
}

/// Fills in the candidates' weights.
struct Weigh<'a> {
    candidates: &'a [Candidate],
    max: f32,
    temperature: f32,
    weights: &'a mut [f64],
}

impl Work for Weigh<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (to, candidate) in self.weights.iter_mut().zip(self.candidates) {
            *to = weight(candidate.logit, self.max, self.temperature);
        }
    }
}

/// 1 for the largest logit, and 0 for one that is too far below it to tell.
#[inline(always)]
fn weight(logit: f32, max: f32, temperature: f32) -> f64 {
    f64::from(math::exp((logit - max) / temperature))
}

/// The largest logit; the lowest id among equals.
fn most_probable(candidates: &[Candidate]) -> u32 {
    let better = |best: Candidate, &c: &Candidate| if c.logit > best.logit { c } else { best };
    candidates[1..].iter().fold(candidates[0], better).token
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::Isa;

    fn base() -> SamplerOptions {
        SamplerOptions::default()
    }

    fn sampler(options: SamplerOptions, vocab_size: usize) -> Sampler {
        Sampler::new(&options, vocab_size).unwrap()
    }

    /// Logits with the given probabilities.
    fn logits(probabilities: &[f64]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln() as f32).collect()
    }

    /// How often each token is drawn in `n` positions.
    fn counts(options: SamplerOptions, logits: &[f32], n: usize) -> Vec<usize> {
        let mut sampler = sampler(options, logits.len());
        let mut counts = vec![0; logits.len()];
        for position in 0..n {
            counts[sampler.sample(logits, &[], position) as usize] += 1;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_lowest_id_among_equals() {
        let mut s = sampler(SamplerOptions::default(), 4);
        assert_eq!(s.sample(&[1.0, 3.0, 3.0, -1.0], &[], 0), 1);
    }

    #[test]
    fn frequencies_follow_the_probabilities() {
        let p = [0.5, 0.1, 0.25, 0.15];
        let options = SamplerOptions { temperature: 1.0, ..Default::default() };
        for (count, p) in counts(options, &logits(&p), 20_000).iter().zip(p) {
            // Four standard deviations of a binomial count.
            let (mean, deviation) = (20_000.0 * p, (20_000.0 * p * (1.0 - p)).sqrt());
            assert!((*count as f64 - mean).abs() < 4.0 * deviation, "{count} for {p}");
        }
    }

    #[test]
    fn filters_keep_what_they_say() {
        let z = logits(&[0.05, 0.4, 0.3, 0.05, 0.2]);
        let base = SamplerOptions { temperature: 1.0, ..Default::default() };
        let kept = |options| -> Vec<usize> {
            let counts = counts(options, &z, 2000);
            (0..5).filter(|&i| counts[i] > 0).collect()
        };
        assert_eq!(kept(SamplerOptions { top_k: 2, ..base.clone() }), [1, 2]);
        assert_eq!(kept(SamplerOptions { top_k: 4, ..base.clone() }), [0, 1, 2, 4]);
        assert_eq!(kept(SamplerOptions { top_p: 0.6, ..base.clone() }), [1, 2]);
        assert_eq!(kept(SamplerOptions { top_p: 0.72, ..base.clone() }), [1, 2, 4]);
        assert_eq!(kept(SamplerOptions { top_p: 1e-9, ..base.clone() }), [1]);
        assert_eq!(kept(SamplerOptions { min_p: 0.4, ..base.clone() }), [1, 2, 4]);
        assert_eq!(kept(SamplerOptions { min_p: 1.0, ..base.clone() }), [1]);
        assert_eq!(kept(SamplerOptions { top_k: 3, top_p: 0.7, ..base.clone() }), [1, 2]);
    }

    #[test]
    fn top_p_over_a_large_flat_vocabulary_equals_a_full_sort() {
        let z: Vec<f32> = (0..5000).map(|i| ((i * 7919) % 5000) as f32 / 1000.0).collect();
        let options = SamplerOptions { temperature: 1.0, top_p: 0.8, ..Default::default() };
        let mut s = sampler(options, z.len());
        let mut choice = s.choice();
        choice.begin(&z);
        choice.narrow();
        let kept: Vec<u32> = choice.candidates.iter().map(|c| c.token).collect();

        let mut order: Vec<usize> = (0..z.len()).collect();
        order.sort_by(|&a, &b| z[b].total_cmp(&z[a]).then(a.cmp(&b)));
        let weight = |i: usize| f64::from(z[i] - 4.999).exp();
        let total: f64 = (0..z.len()).map(weight).sum();
        let mut sum = 0.0;
        let enough = order.iter().position(|&i| {
            sum += weight(i);
            sum >= 0.8 * total
        });
        let mut want: Vec<u32> = order[..=enough.unwrap()].iter().map(|&i| i as u32).collect();
        want.sort_unstable();
        // The library's exp may move the border by one candidate.
        assert!(kept.len().abs_diff(want.len()) <= 1, "{} {}", kept.len(), want.len());
        let both = kept.len().min(want.len());
        assert!(kept.iter().filter(|t| want.contains(t)).count() >= both - 1);
    }

    #[test]
    fn the_penalty_counts_a_token_once_and_only_in_the_window() {
        let options =
            SamplerOptions { repetition_penalty: 2.0, repetition_window: 3, ..Default::default() };
        let mut s = sampler(options, 3);
        assert_eq!(s.sample(&[4.0, 3.0, 1.0], &[0, 0, 0], 0), 1);
        assert_eq!(s.sample(&[4.0, 3.0, 2.5], &[0, 1, 1, 1], 0), 0);
        assert_eq!(s.sample(&[-1.0, -1.5, -4.0], &[0, 2, 0], 0), 1);
        assert_eq!(s.sample(&[1.0, 6.0, 2.5], &[1, 1, 1], 0), 1);
        // The marks of one call do not reach the next.
        assert_eq!(s.sample(&[4.0, 3.0, 1.0], &[], 0), 0);
        // Nor do those of tokens behind the 64th.
        let mut large = sampler(SamplerOptions { repetition_penalty: 2.0, ..base() }, 100);
        let mut z = [0.0; 100];
        (z[70], z[80]) = (4.0, 3.0);
        for _ in 0..2 {
            assert_eq!(large.sample(&z, &[70], 0), 80);
        }
        // A window of 0 is the whole sequence.
        let all = SamplerOptions { repetition_penalty: 2.0, repetition_window: 0, ..base() };
        let history: Vec<u32> = (0..100).map(|i| u32::from(i > 0)).collect();
        assert_eq!(sampler(all, 3).sample(&[4.0, 3.0, 2.5], &history, 0), 2);
    }

    #[test]
    fn a_bias_counts_before_the_penalty_and_allowed_tokens_before_the_filters() {
        let z = [1.0, 3.0, 2.0, 0.5];
        let biased = |logit_bias| {
            let options = SamplerOptions { logit_bias, ..Default::default() };
            sampler(options, 4).sample(&z, &[], 0)
        };
        assert_eq!(biased(vec![(1, -1.5)]), 2);
        assert_eq!(biased(vec![(3, 1.0), (3, 2.0)]), 3);
        let options = SamplerOptions {
            logit_bias: vec![(0, 3.0)],
            repetition_penalty: 2.0,
            ..Default::default()
        };
        assert_eq!(sampler(options, 4).sample(&z, &[0], 0), 1);

        let make = |options: SamplerOptions, allowed: u32, position| {
            let mut sampler = sampler(options, 4);
            sampler.choice().make(&z, &[], position, Some(&[allowed]))
        };
        assert_eq!(make(SamplerOptions::default(), 0b1101, 0), 2);
        let drawn = SamplerOptions { temperature: 1.0, top_k: 2, ..Default::default() };
        let seen: Vec<_> = (0..200).map(|p| make(drawn.clone(), 0b1101, p)).collect();
        assert!(seen.contains(&0) && seen.contains(&2));
        assert!(!seen.contains(&1) && !seen.contains(&3));
        assert!(!is_allowed(&[u32::MAX], 32));
        for (word, vocab_size, any) in [(0b100, 3, true), (0b100, 2, false), (1 << 31, 32, true)] {
            assert_eq!(allows_any(&[word], vocab_size), any);
        }
        assert!(allows_any(&[0, 1], 33) && !allows_any(&[0, 1], 32) && !allows_any(&[], 33));
    }

    #[test]
    fn weights_have_the_same_bits_on_every_instruction_set() {
        let logit = |token: u32| ((token * 7919) % 5003) as f32 / 100.0 - 25.0;
        let candidates: Vec<_> =
            (0..5003).map(|token| Candidate { logit: logit(token), token }).collect();
        let weights = |kernels: &Kernels| {
            let mut weights = vec![0.0; 5003];
            kernels.run(Weigh {
                candidates: &candidates,
                max: 25.03,
                temperature: 0.7,
                weights: &mut weights,
            });
            weights
        };
        let want = weights(Kernels::new(Isa::Scalar).unwrap());
        for kernels in Isa::available().filter_map(Kernels::new) {
            assert_eq!(weights(kernels), want, "{}", kernels.isa());
        }
    }

    #[test]
    fn the_same_seed_and_position_give_the_same_token() {
        let z = logits(&[0.2; 5]);
        let options = SamplerOptions { temperature: 0.7, seed: 42, ..Default::default() };
        let draw = |options: &SamplerOptions, position| {
            sampler(options.clone(), 5).sample(&z, &[], position)
        };
        let first: Vec<u32> = (0..50).map(|p| draw(&options, p)).collect();
        assert_eq!(first, (0..50).map(|p| draw(&options, p)).collect::<Vec<_>>());
        let other = SamplerOptions { seed: 43, ..options };
        assert_ne!(first, (0..50).map(|p| draw(&other, p)).collect::<Vec<_>>());
    }

    #[test]
    fn options_out_of_range_are_errors() {
        for options in [
            SamplerOptions { temperature: -1.0, ..base() },
            SamplerOptions { temperature: f32::NAN, ..base() },
            SamplerOptions { top_p: 0.0, ..base() },
            SamplerOptions { min_p: 1.5, ..base() },
            SamplerOptions { temperature: 100.1, ..base() },
            SamplerOptions { repetition_penalty: 0.0, ..base() },
            SamplerOptions { repetition_penalty: 1e-40, ..base() },
            SamplerOptions { repetition_penalty: 1e38, ..base() },
            SamplerOptions { logit_bias: vec![(5, 1.0)], ..base() },
            SamplerOptions { logit_bias: vec![(0, 1.0), (1, f32::NAN)], ..base() },
            SamplerOptions { logit_bias: vec![(0, f32::NEG_INFINITY)], ..base() },
        ] {
            assert!(Sampler::new(&options, 5).is_err(), "{options:?}");
        }
    }

    #[test]
    fn options_are_set_by_name_or_left_as_they_are() {
        let mut options = base();
        for name in SamplerOptions::NAMES {
            assert!(options.set(name, "1").unwrap(), "{name}");
        }
        let ones = SamplerOptions {
            temperature: 1.0,
            top_k: 1,
            top_p: 1.0,
            min_p: 1.0,
            repetition_penalty: 1.0,
            repetition_window: 1,
            logit_bias: Vec::new(),
            seed: 1,
        };
        assert_eq!(options, ones);
        for (name, value, what) in [
            ("temperature", "101", "option temperature: 101 is not in 0..=100"),
            ("temperature", "warm", "option temperature: \"warm\" is not a number"),
            ("top-p", "0", "option top_p: 0 is not over 0 and at most 1"),
            (
                "repetition-penalty",
                "1e-44",
                "option repetition_penalty: 1e-44 is not in 0.01..=100",
            ),
            ("seed", "-1", "option seed: -1 is not in 0..=18446744073709551615"),
            ("top-k", "1.5", "option top_k: \"1.5\" is not a whole number in 0..="),
        ] {
            let error = options.set(name, value).unwrap_err().to_string();
            assert!(error.starts_with(what), "{error}");
            assert_eq!(options, ones);
        }
        assert!(!options.set("heat", "1").unwrap());
    }

    /// Numbers that sums, products, quotients and differences overflow with, or round to nothing.
    fn nasty() -> impl Strategy<Value = f32> {
        let edges = [0.0, -0.0, 1.0, -1.0, f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45, -1e-45];
        prop_oneof![
            prop::sample::select(edges.to_vec()),
            -30.0..30.0f32,
            any::<f32>().prop_filter("finite", |x| x.is_finite()),
        ]
    }

    fn any_options() -> impl Strategy<Value = SamplerOptions> {
        let share =
            || prop_oneof![Just(1e-45f32), Just(1.0 - f32::EPSILON), Just(1.0), 1e-6..1.0f32];
        let temperature =
            prop_oneof![Just(0.0f32), Just(1e-45), Just(100.0), Just(1.0), 0.0..2.0f32];
        let penalty = prop_oneof![Just(0.01f32), Just(100.0), Just(1.0), 0.5..2.0f32];
        let biases = prop::collection::vec((0..6u32, -1000.0..=1000.0f32), 0..3);
        let least = prop_oneof![Just(0.0f32), share()];
        let rest = (0..8usize, biases, any::<u64>());
        (temperature, 0..8usize, share(), least, penalty, rest).prop_map(
            |(temperature, top_k, top_p, min_p, repetition_penalty, rest)| SamplerOptions {
                temperature,
                top_k,
                top_p,
                min_p,
                repetition_penalty,
                repetition_window: rest.0,
                logit_bias: rest.1,
                seed: rest.2,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn any_options_and_any_finite_logits_give_a_token(
            options in any_options(),
            logits in prop::collection::vec(nasty(), 6),
            history in prop::collection::vec(0..6u32, 0..10),
            allowed in 1..64u32,
            position in any::<usize>(),
        ) {
            let mut sampler = sampler(options, logits.len());
            let token = sampler.sample(&logits, &history, position);
            prop_assert!((token as usize) < logits.len());
            let token = sampler.choice().make(&logits, &history, position, Some(&[allowed]));
            prop_assert!(is_allowed(&[allowed], token), "{token}");
        }
    }

    #[test]
    fn logits_that_are_not_finite_give_a_token_too() {
        let options = SamplerOptions { temperature: 1.0, min_p: 0.5, ..base() };
        let mut s = sampler(options, 3);
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        for logits in [[nan; 3], [inf; 3], [-inf; 3], [nan, inf, -inf]] {
            assert!(s.sample(&logits, &[], 0) < 3);
        }
        assert_eq!(s.sample(&[nan, -inf, -1e30], &[], 0), 2);
    }
}
