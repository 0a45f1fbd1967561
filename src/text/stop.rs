//! Ends generation at a stop string, although tokens cut it anywhere.

use alloc::collections::TryReserveError;
use alloc::string::String;
use alloc::vec::Vec;

use super::TextError;

/// Passes text through until one of several stop strings appears.
///
/// Text that may be the beginning of a stop string is held back until it is certain; everything
/// else is passed on at once. The stop string that is complete first ends the text, which is cut
/// where that string begins. If several are complete at the same character, the longest counts;
/// of equal ones the first. The result does not depend on how the text is cut into pieces.
///
/// Each stop string runs its own Knuth-Morris-Pratt automaton (SIAM J. Comput. 6, 1977): its state
/// is the length of the longest beginning of the stop string that the text ends with, which is
/// also exactly the text to hold back.
///
/// After the first pieces nothing is allocated: the buffer grows to the longest piece plus the
/// longest stop string, and `out` belongs to the caller.
#[derive(Debug, Clone, Default)]
pub struct StopMatcher {
    stops: Vec<Automaton>,
    /// Text not yet passed on; at least as long as every automaton's state.
    held: String,
    matched: Option<usize>,
}

#[derive(Debug, Clone)]
struct Automaton {
    pattern: Vec<u8>,
    /// `borders[n]`: length of the longest proper beginning of `pattern[..=n]` that also ends it.
    borders: Vec<usize>,
    /// Number of bytes of the pattern that the text ends with.
    state: usize,
}

impl StopMatcher {
    /// A matcher for `stops`; without any it passes everything through.
    ///
    /// # Errors
    /// [`TextError::EmptyStop`] if a stop string is empty; [`TextError::OutOfMemory`].
    pub fn new<S: AsRef<str>>(stops: impl IntoIterator<Item = S>) -> Result<Self, TextError> {
        let mut automata = Vec::new();
        for (index, stop) in stops.into_iter().enumerate() {
            if stop.as_ref().is_empty() {
                return Err(TextError::EmptyStop { index });
            }
            reserve(&mut automata, 1)?;
            automata.push(Automaton::new(stop.as_ref().as_bytes())?);
        }
        let stops = automata;
        Ok(Self { stops, held: String::new(), matched: None })
    }

    /// Makes room for pieces of up to `piece` bytes, so that no push allocates.
    ///
    /// # Errors
    /// If the memory is not to be had.
    pub fn reserve(&mut self, piece: usize) -> Result<(), TryReserveError> {
        let longest = self.stops.iter().map(|stop| stop.pattern.len()).max().unwrap_or(0);
        self.held.try_reserve_exact(piece + longest)
    }

    /// Takes the next piece of text and appends to `out` what is certain to come before any stop
    /// string. Returns the number of the stop string once one is complete; from then on nothing
    /// more is passed on.
    pub fn push(&mut self, text: &str, out: &mut String) -> Option<usize> {
        if self.matched.is_some() {
            return self.matched;
        }
        let before = self.held.len();
        self.held.push_str(text);
        for (end, byte) in (before + 1..).zip(text.bytes()) {
            if let Some((stop, len)) = self.advance(byte) {
                out.push_str(&self.held[..end - len]);
                self.held.clear();
                self.matched = Some(stop);
                return self.matched;
            }
        }
        self.release(out);
        None
    }

    /// Ends the text: what was held back is no stop string and is passed on. Does nothing after a
    /// match.
    pub fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
        self.stops.iter_mut().for_each(|stop| stop.state = 0);
    }

    /// The number of the stop string that ended the text, if one did.
    pub fn matched(&self) -> Option<usize> {
        self.matched
    }

    /// Forgets the text, for a new generation with the same stop strings.
    pub fn reset(&mut self) {
        self.held.clear();
        self.matched = None;
        self.stops.iter_mut().for_each(|stop| stop.state = 0);
    }

    /// Feeds one byte to every automaton; the complete stop string that wins, and its length.
    fn advance(&mut self, byte: u8) -> Option<(usize, usize)> {
        let mut best = None;
        for (index, stop) in self.stops.iter_mut().enumerate() {
            let len = stop.pattern.len();
            if stop.advance(byte) && best.is_none_or(|(_, longest)| len > longest) {
                best = Some((index, len));
            }
        }
        best
    }

    /// Passes on all but the longest beginning of a stop string. Both ends of that beginning are
    /// character boundaries, because stop strings and pieces of text are whole characters.
    fn release(&mut self, out: &mut String) {
        let keep = self.stops.iter().map(|stop| stop.state).max().unwrap_or(0);
        let certain = self.held.len() - keep;
        out.push_str(&self.held[..certain]);
        self.held.drain(..certain);
    }
}

impl Automaton {
    fn new(bytes: &[u8]) -> Result<Self, TextError> {
        let (mut pattern, mut borders) = (Vec::new(), Vec::new());
        reserve(&mut pattern, bytes.len())?;
        pattern.extend_from_slice(bytes);
        reserve(&mut borders, bytes.len())?;
        borders.resize(bytes.len(), 0);
        let mut border = 0;
        for n in 1..pattern.len() {
            while border > 0 && pattern[n] != pattern[border] {
                border = borders[border - 1];
            }
            border += usize::from(pattern[n] == pattern[border]);
            borders[n] = border;
        }
        Ok(Self { pattern, borders, state: 0 })
    }

    /// Takes one byte of text; whether the pattern is now complete. Not called after that.
    fn advance(&mut self, byte: u8) -> bool {
        while self.state > 0 && self.pattern[self.state] != byte {
            self.state = self.borders[self.state - 1];
        }
        self.state += usize::from(self.pattern[self.state] == byte);
        self.state == self.pattern.len()
    }
}

fn reserve<T>(list: &mut Vec<T>, more: usize) -> Result<(), TextError> {
    let bytes = (list.len() + more).saturating_mul(size_of::<T>());
    list.try_reserve_exact(more).map_err(|_| TextError::OutOfMemory { bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What passed, which stop matched, after each piece and after the end.
    fn run<'a>(
        stops: &[&str],
        pieces: impl IntoIterator<Item = &'a str>,
    ) -> (String, Option<usize>) {
        let (mut matcher, mut out) = (StopMatcher::new(stops).unwrap(), String::new());
        for piece in pieces {
            matcher.push(piece, &mut out);
        }
        matcher.finish(&mut out);
        (out, matcher.matched())
    }

    /// The definition, word for word: the first end at which the text ends with a stop string.
    fn oracle(stops: &[String], text: &str) -> (String, Option<usize>) {
        for end in (0..=text.len()).filter(|&end| text.is_char_boundary(end)) {
            let ending = |stop: &&(usize, &String)| text[..end].ends_with(stop.1.as_str());
            let all: Vec<_> = stops.iter().enumerate().collect();
            // `max_by_key` takes the last of equal ones, so look from the back.
            let longest = all.iter().rev().filter(ending).max_by_key(|(_, stop)| stop.len());
            if let Some((index, stop)) = longest {
                return (text[..end - stop.len()].to_string(), Some(*index));
            }
        }
        (text.to_string(), None)
    }

    #[test]
    fn holds_back_only_what_may_become_a_stop_string() {
        let (mut matcher, mut out) = (StopMatcher::new(["\n\nUser:"]).unwrap(), String::new());
        for (piece, passed) in
            [("Hello", "Hello"), (" there\n", " there"), ("\n", ""), ("\nUs", "\n"), ("er", "")]
        {
            assert_eq!(matcher.push(piece, &mut out), None);
            assert_eq!(out, passed);
            out.clear();
        }
        assert_eq!(matcher.push(": hi", &mut out), Some(0));
        assert_eq!(matcher.push("more", &mut out), Some(0));
        matcher.finish(&mut out);
        assert_eq!(out, "");
        matcher.reset();
        assert_eq!(matcher.push("again", &mut out), None);
        assert_eq!(out, "again");
    }

    #[test]
    fn a_held_beginning_appears_at_the_end() {
        assert_eq!(run(&["stop"], ["don't sto"]), ("don't sto".into(), None));
        assert_eq!(run(&[], ["every", "thing"]), ("everything".into(), None));
    }

    #[test]
    fn overlapping_stop_strings_follow_the_rule() {
        // "bc" is complete before "abcd".
        assert_eq!(run(&["abcd", "bc"], ["xabcd"]), ("xa".into(), Some(1)));
        // Complete together: the longest, then the first.
        assert_eq!(run(&["c", "abc", "abc"], ["xab", "c"]), ("x".into(), Some(1)));
        // A failed beginning contains a new one.
        assert_eq!(run(&["aab"], ["a", "a", "a", "b"]), ("a".into(), Some(0)));
    }

    #[test]
    fn an_empty_stop_string_is_an_error() {
        let error = StopMatcher::new(["a", ""]).unwrap_err();
        assert_eq!(error, TextError::EmptyStop { index: 1 });
    }

    /// All words of up to `longest` letters a and b.
    fn words(longest: u32) -> impl Iterator<Item = String> {
        let letter = |word: u32, n: u32| if word >> n & 1 == 0 { 'a' } else { 'b' };
        (1..=longest).flat_map(move |len| {
            (0..1 << len).map(move |word| (0..len).map(|n| letter(word, n)).collect())
        })
    }

    #[test]
    fn finds_every_short_stop_string_in_every_short_text() {
        let texts: Vec<String> = words(11).collect();
        for stop in words(7) {
            let mut matcher = StopMatcher::new([&stop]).unwrap();
            let mut out = String::new();
            for text in &texts {
                let found = matcher.push(text, &mut out).map(|_| out.len());
                assert_eq!(found, text.find(&stop), "{stop} in {text}");
                matcher.reset();
                out.clear();
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 4000 }))]
        #[test]
        fn agrees_with_the_definition_however_the_text_is_cut(
            stops in proptest::collection::vec("[abé]{1,5}", 0..4),
            pieces in proptest::collection::vec("[abé🦀]{0,6}", 0..8),
        ) {
            let text = pieces.concat();
            let stops_str: Vec<&str> = stops.iter().map(String::as_str).collect();
            let found = run(&stops_str, pieces.iter().map(String::as_str));
            prop_assert_eq!(found, oracle(&stops, &text));
        }

        #[test]
        fn holds_back_exactly_the_longest_possible_beginning(
            stop in "[ab]{2,5}", text in "[abc]{0,20}",
        ) {
            let (mut matcher, mut out) = (StopMatcher::new([&stop]).unwrap(), String::new());
            if matcher.push(&text, &mut out).is_some() {
                return Ok(());
            }
            let held = (0..stop.len()).rev().find(|&n| text.ends_with(&stop[..n])).unwrap();
            prop_assert_eq!(out, &text[..text.len() - held]);
        }
    }
}
