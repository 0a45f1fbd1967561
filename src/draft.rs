//! Guessing what comes next, so that several tokens can be evaluated in one pass.
//!
//! A text often repeats itself: it quotes its prompt, or a phrase of its own. The draft is what followed
//! the last time that the most recent tokens occurred (prompt lookup: Saxena, 2023). The pass that
//! evaluates the next token evaluates the draft after it, and every draft token that turns out to be
//! the one chosen costs no pass of its own (speculative decoding: Leviathan et al., 2023).
//!
//! Nothing here can change a text: logits do not depend on what else is in a pass, a token is chosen
//! from its own logits, its position and the tokens before it, and a wrong draft is overwritten. So the
//! decision to draft is free to depend on measured times. It is made where it pays: tokens to expect
//! from a pass, by how often drafts like this one were right lately, over what passes of as many rows
//! have cost.

use core::time::Duration;

/// The most tokens that can be drafted at once.
pub(crate) const MAX_DRAFT: usize = 15;

/// How many recent tokens must have occurred before, and how many are compared.
const SHORTEST_MATCH: usize = 2;
const LONGEST_MATCH: usize = 8;

/// A draft must promise to be faster by this factor.
const LEAST_GAIN: f32 = 1.05;
/// After this many matches that promised too little, the next one is drafted from nevertheless, by one token:
/// only trying tells whether drafts have become better.
const TRY_AGAIN: u32 = 48;
/// What a row is assumed to add to the time of one row until it was measured.
const ROW_COST: f32 = 0.15;
/// How much less an earlier draft's outcome counts than the one after it.
const DECAY: f32 = 0.9;
/// Outcomes that the first guess of a probability counts as.
const PRIOR: f32 = 2.0;

/// What became of a session's guesses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DraftCounts {
    /// Passes that evaluated guesses along with a token.
    pub passes: u64,
    /// Tokens that were guessed.
    pub drafted: u64,
    /// Guesses that were right, each of which saved a pass.
    pub accepted: u64,
}

/// Drafts for one session.
pub(crate) struct Drafter {
    counts: DraftCounts,
    /// The most tokens of a draft; 0 for none ever.
    most: usize,
    /// Time of a pass of `n` rows in seconds, at index `n`; 0 until measured.
    seconds: [f32; MAX_DRAFT + 2],
    /// How drafts went, by the length of the match.
    outcomes: [Outcomes; LONGEST_MATCH + 1],
    /// Length of the match that the last draft was made from.
    length: usize,
    /// Matches since the last draft that promised too little.
    skipped: u32,
}

/// How often draft tokens were right.
#[derive(Clone, Copy)]
struct Outcomes {
    accepted: f32,
    tried: f32,
}

impl Outcomes {
    fn note(&mut self, accepted: f32) {
        self.accepted = self.accepted * DECAY + accepted;
        self.tried = self.tried * DECAY + 1.0;
    }

    fn probability(self) -> f32 {
        self.accepted / self.tried
    }
}

impl Drafter {
    /// Drafts of at most `most` tokens, which is at most [`MAX_DRAFT`].
    pub fn new(most: usize) -> Self {
        let outcomes = core::array::from_fn(|length| {
            // Longer matches are right more often.
            let probability = 1.0 - 1.0 / (1.0 + 0.25 * length as f32);
            Outcomes { accepted: PRIOR * probability, tried: PRIOR }
        });
        let seconds = [0.0; MAX_DRAFT + 2];
        Self {
            counts: DraftCounts::default(),
            most: most.min(MAX_DRAFT),
            seconds,
            outcomes,
            length: 0,
            skipped: 0,
        }
    }

    /// Writes what may follow `history` to `draft`, and returns how many tokens: none if that does not
    /// pay. `room` is how many there is room for.
    pub fn propose(&mut self, history: &[u32], room: usize, draft: &mut [u32; MAX_DRAFT]) -> usize {
        let most = self.most.min(room);
        if most == 0 {
            return 0;
        }
        let Some((from, length)) = longest_match(history) else { return 0 };
        let mut tokens = self.worthwhile(self.outcomes[length].probability(), most);
        if tokens == 0 {
            self.skipped += 1;
            if self.skipped < TRY_AGAIN {
                return 0;
            }
            tokens = 1;
        }
        self.skipped = 0;
        self.length = length;
        self.counts.passes += 1;
        self.counts.drafted += tokens as u64;
        for i in 0..tokens {
            // What follows may reach the end of the history, and goes on with itself.
            let at = from + i;
            draft[i] = if at < history.len() { history[at] } else { draft[at - history.len()] };
        }
        tokens
    }

    /// All drafts so far.
    pub fn counts(&self) -> DraftCounts {
        self.counts
    }

    /// The number of tokens, each right with this probability, that promises the most tokens per
    /// second; 0 if none is worth it.
    fn worthwhile(&self, probability: f32, most: usize) -> usize {
        let (mut best, mut best_gain) = (0, LEAST_GAIN);
        let (mut expected, mut all_right) = (1.0, 1.0);
        for tokens in 1..=most {
            all_right *= probability;
            expected += all_right;
            let gain = expected / self.cost(tokens + 1);
            if gain > best_gain {
                (best, best_gain) = (tokens, gain);
            }
        }
        best
    }

    /// Time of a pass of `rows` rows over that of one row.
    fn cost(&self, rows: usize) -> f32 {
        let assumed = |rows: usize| 1.0 + ROW_COST * (rows - 1) as f32;
        let one = self.seconds[1];
        if one == 0.0 {
            return assumed(rows);
        }
        // The next smaller pass that was measured says something about this one.
        let known = (1..=rows).rev().find(|&n| self.seconds[n] > 0.0).unwrap_or(1);
        self.seconds[known] / one * assumed(rows) / assumed(known)
    }

    /// Notes how long a pass of `rows` rows took.
    pub fn took(&mut self, rows: usize, time: Duration) {
        let Some(known) = self.seconds.get_mut(rows) else { return };
        let seconds = time.as_secs_f32();
        // What slows a pass down is mostly something else that runs on the machine.
        let weight = match () {
            () if *known == 0.0 => 1.0,
            () if seconds < *known => 0.5,
            () => 0.125,
        };
        let seconds = if *known > 0.0 { seconds.min(2.0 * *known) } else { seconds };
        *known += weight * (seconds - *known);
    }

    /// The next token of the last draft was chosen.
    pub fn accepted(&mut self) {
        self.counts.accepted += 1;
        self.outcomes[self.length].note(1.0);
    }

    /// Another token than the next one of the last draft was chosen.
    pub fn rejected(&mut self) {
        self.outcomes[self.length].note(0.0);
    }
}

/// Where the longest earlier occurrence of the end of `history` goes on, and its length; the most
/// recent one of equal length.
fn longest_match(history: &[u32]) -> Option<(usize, usize)> {
    let (&last, before) = history.split_last()?;
    let mut best = (0, SHORTEST_MATCH - 1);
    for (at, _) in before.iter().enumerate().rev().filter(|(_, token)| **token == last) {
        let earlier = before[..at].iter().rev();
        let equal = earlier.zip(before.iter().rev()).take(LONGEST_MATCH - 1);
        let length = 1 + equal.take_while(|(a, b)| a == b).count();
        if length > best.1 {
            best = (at + 1, length);
            if length == LONGEST_MATCH {
                break;
            }
        }
    }
    (best.0 > 0).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn propose(drafter: &mut Drafter, history: &[u32], room: usize) -> Vec<u32> {
        let mut draft = [0; MAX_DRAFT];
        let n = drafter.propose(history, room, &mut draft);
        draft[..n].to_vec()
    }

    #[test]
    fn the_longest_match_wins_then_the_latest() {
        assert_eq!(longest_match(&[]), None);
        assert_eq!(longest_match(&[7]), None);
        assert_eq!(longest_match(&[7, 1, 7]), None);
        assert_eq!(longest_match(&[1, 2, 3, 1, 2, 4, 1, 2]), Some((5, 2)));
        assert_eq!(longest_match(&[9, 1, 2, 3, 1, 2, 4, 9, 1, 2]), Some((3, 3)));
        assert_eq!(longest_match(&[5; 20]), Some((19, 8)));
    }

    #[test]
    fn a_draft_copies_and_runs_on_into_itself() {
        let mut drafter = Drafter::new(6);
        drafter.outcomes.fill(Outcomes { accepted: 1.0, tried: 1.0 });
        assert_eq!(
            propose(&mut drafter, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2], 9),
            [3, 4, 5, 6, 7, 8]
        );
        assert_eq!(propose(&mut drafter, &[1, 2, 1, 2], 9), [1, 2, 1, 2, 1, 2]);
        assert_eq!(propose(&mut drafter, &[1, 2, 1, 2], 3), [1, 2, 1]);
        assert!(propose(&mut drafter, &[1, 2, 1, 2], 0).is_empty());
        assert!(propose(&mut Drafter::new(0), &[1, 2, 1, 2], 9).is_empty());
    }

    #[test]
    fn what_does_not_pay_is_left_alone_and_tried_again() {
        let history = [1, 2, 3, 1, 2];
        let mut drafter = Drafter::new(4);
        for rows in 1..=5 {
            drafter.took(rows, Duration::from_millis(10 + rows as u64));
        }
        assert!(!propose(&mut drafter, &history, 9).is_empty());
        for _ in 0..20 {
            drafter.rejected();
        }
        let drafts = (0..2 * TRY_AGAIN).map(|_| propose(&mut drafter, &history, 9).len());
        assert_eq!(drafts.sum::<usize>(), 2);
        for _ in 0..20 {
            drafter.accepted();
        }
        assert_eq!(propose(&mut drafter, &history, 9).len(), 4);
        // Rows that cost as much as passes of their own are not worth it, however right.
        for rows in 1..=5 {
            for _ in 0..100 {
                drafter.took(rows, Duration::from_millis(10 * rows as u64));
            }
        }
        assert_eq!(propose(&mut drafter, &history, 9).len(), 0);
    }
}
