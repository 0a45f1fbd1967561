//! Where a text may be cut: the ends of its sentences, words and clusters (what a reader takes for one character),
//! by the rules of Unicode's annex 29.
//!
//! The rules are those of the `unicode-segmentation` library, with which the tests compare every end. Its tables have
//! 77 KB, the one here 10 KB.

mod data;

use core::str::CharIndices;

use data::{Cluster, Conjunct, Kind, Sentence, Word};

/// What the rules know of a character.
fn kind(c: char) -> Kind {
    let c = u32::from(c);
    let at = data::FIRST.partition_point(|first| *first <= c) - 1;
    let mut next = data::FIRST[at];
    let mut runs = data::RUNS[64 * at..].iter();
    // The runs end with the last character.
    while let Some(run) = runs.next() {
        next += match u32::from(run & 0x3FF) {
            0 => runs.next().map_or(0, |count| u32::from(*count) << 8),
            count => count,
        };
        if c < next {
            return data::KINDS[usize::from(run >> 10)];
        }
    }
    data::KINDS[0]
}

/// The ends of the sentences of a text.
pub fn sentence_ends(text: &str) -> impl Iterator<Item = usize> + '_ {
    ends(text, Sentences::default())
}

/// The ends of the words of a text, and of what is between them.
pub fn word_ends(text: &str) -> impl Iterator<Item = usize> + '_ {
    ends(text, Words::default())
}

/// The ends of the clusters of a text.
pub fn cluster_ends(text: &str) -> impl Iterator<Item = usize> + '_ {
    ends(text, Clusters::default())
}

/// A rule that reads a text from its beginning.
trait Rule {
    /// Goes on by a character, behind which is `rest`; returns whether one may cut before it. Nobody cuts before
    /// the first one.
    fn cuts_before(&mut self, kind: Kind, rest: &str) -> bool;
}

fn ends<'t>(text: &'t str, mut rule: impl Rule + 't) -> impl Iterator<Item = usize> + 't {
    let mut chars: CharIndices<'t> = text.char_indices();
    let mut is_over = text.is_empty();
    core::iter::from_fn(move || {
        for (at, c) in chars.by_ref() {
            let cuts = rule.cuts_before(kind(c), &text[at + c.len_utf8()..]);
            if cuts && at > 0 {
                return Some(at);
            }
        }
        (!core::mem::replace(&mut is_over, true)).then_some(text.len())
    })
}

/// Sentences (rules SB3 to SB998).
#[derive(Default)]
struct Sentences {
    /// The last character that is not passed over.
    last: Option<Sentence>,
    /// What may end the sentence.
    end: Option<End>,
}

/// A full stop or the like, and what follows it.
#[derive(Clone, Copy)]
struct End {
    /// A full stop, which may stand in an abbreviation or a number.
    is_stop: bool,
    /// Whether a letter with a case stands before it.
    after_cased: bool,
    /// Whether something stands between it and here.
    closed: bool,
    /// Whether a space does.
    spaced: bool,
}

impl Rule for Sentences {
    fn cuts_before(&mut self, kind: Kind, rest: &str) -> bool {
        use Sentence::{
            Close, Continue, End as Term, Extend, Feed, Lower, Number, Return, Separator, Space,
            Stop, Upper,
        };
        let (now, last) = (kind.sentence, self.last);
        // SB3, SB4.
        if matches!(last, Some(Return | Feed | Separator)) {
            let cuts = !(last == Some(Return) && now == Feed);
            (self.last, self.end) = (Some(now), None);
            self.begin_end(now, None);
            return cuts;
        }
        // SB5.
        if now == Extend && last.is_some() {
            return false;
        }
        let is_separator = matches!(now, Return | Feed | Separator);
        let cuts = self.end.is_some_and(|end| {
            let directly = end.is_stop && !end.closed && !end.spaced;
            let goes_on = directly && (now == Number || end.after_cased && now == Upper)
                || matches!(now, Continue | Term | Stop | Space)
                || is_separator
                || !end.spaced && now == Close
                || end.is_stop && (now == Lower || lower_follows(now, rest));
            !goes_on
        });
        match &mut self.end {
            Some(end) if !cuts && now == Space => end.spaced = true,
            Some(end) if !cuts && now == Close && !end.spaced => end.closed = true,
            _ => self.end = None,
        }
        self.begin_end(now, last);
        self.last = Some(now);
        cuts
    }
}

impl Sentences {
    fn begin_end(&mut self, now: Sentence, last: Option<Sentence>) {
        if matches!(now, Sentence::Stop | Sentence::End) {
            let after_cased = matches!(last, Some(Sentence::Lower | Sentence::Upper));
            let is_stop = now == Sentence::Stop;
            self.end = Some(End { is_stop, after_cased, closed: false, spaced: false });
        }
    }
}

/// Whether a small letter comes before any other letter and before what ends sentences (SB8).
fn lower_follows(now: Sentence, rest: &str) -> bool {
    use Sentence::{End, Feed, Lower, Other, Return, Separator, Stop, Upper};
    let decides = |kind: &Sentence| {
        matches!(kind, Lower | Upper | Other | Return | Feed | Separator | Stop | End)
    };
    let mut following = core::iter::once(now).chain(rest.chars().map(|c| kind(c).sentence));
    following.find(decides) == Some(Lower)
}

/// Words (rules WB3 to WB999).
#[derive(Default)]
struct Words {
    /// The last character.
    direct: Option<Word>,
    /// The last one that is not passed over, and the one before that.
    last: Option<Word>,
    before: Option<Word>,
    /// Whether an odd number of regional indicators precedes.
    odd_flags: bool,
}

impl Rule for Words {
    fn cuts_before(&mut self, kind: Kind, rest: &str) -> bool {
        use Word::{
            Connector, Double, Extend, Feed, Flag, Hebrew, Joiner, Katakana, Letter, Line, MidBoth,
            MidLetter, MidNumber, Number, Return, Single, Space,
        };
        let now = kind.word;
        let direct = self.direct.replace(now);
        let line = |word| matches!(word, Some(Return | Feed | Line));
        // WB3 to WB3d; WB4.
        if line(direct) || line(Some(now)) || direct.is_none() {
            (self.last, self.before, self.odd_flags) = (Some(now), None, now == Flag);
            return !(direct == Some(Return) && now == Feed);
        }
        if matches!(now, Extend | Joiner) {
            return false;
        }
        let (last, before) = (self.last, self.before);
        let letter = |word| matches!(word, Some(Letter | Hebrew));
        let mid_letter = |word| matches!(word, Some(MidLetter | MidBoth | Single));
        let mid_number = |word| matches!(word, Some(MidNumber | MidBoth | Single));
        let number = |word| word == Some(Number);
        let next = || {
            let mut words = rest.chars().map(|c| self::kind(c).word);
            words.find(|word| !matches!(word, Extend | Joiner))
        };
        let this = Some(now);
        let joins = direct == Some(Joiner) && kind.pictograph
            || direct == Some(Space) && now == Space
            // WB5 to WB7c.
            || letter(last) && letter(this)
            || letter(last) && mid_letter(this) && letter(next())
            || letter(before) && mid_letter(last) && letter(this)
            || last == Some(Hebrew) && now == Single
            || last == Some(Hebrew) && now == Double && next() == Some(Hebrew)
            || before == Some(Hebrew) && last == Some(Double) && now == Hebrew
            // WB8 to WB12.
            || number(last) && (number(this) || letter(this))
            || letter(last) && number(this)
            || number(before) && mid_number(last) && number(this)
            || number(last) && mid_number(this) && number(next())
            // WB13 to WB13b.
            || last == Some(Katakana) && now == Katakana
            || matches!(last, Some(Letter | Hebrew | Number | Katakana | Connector))
                && now == Connector
            || last == Some(Connector) && matches!(now, Letter | Hebrew | Number | Katakana)
            // WB15, WB16.
            || self.odd_flags && now == Flag;
        self.odd_flags = now == Flag && !self.odd_flags;
        (self.last, self.before) = (this, last);
        !joins
    }
}

/// Clusters (rules GB3 to GB999).
#[derive(Default)]
struct Clusters {
    last: Option<Cluster>,
    odd_flags: bool,
    /// Whether a pictograph precedes, with nothing but extensions behind it; and then a joiner.
    pictograph: bool,
    /// Whether a consonant precedes that may be joined to the next one, and whether a linker was behind it.
    consonant: bool,
    linked: bool,
}

impl Rule for Clusters {
    fn cuts_before(&mut self, kind: Kind, _: &str) -> bool {
        use Cluster::{
            Control, Extend, Feed, Flag, Joiner, Lead, LeadVowel, LeadVowelTrail, Prepend, Return,
            Spacing, Trail, Vowel,
        };
        let now = kind.cluster;
        let last = self.last.replace(now);
        let joins = match (last, now) {
            (None, _) => false,
            (Some(Return), Feed) => true,
            (Some(Return | Feed | Control), _) | (_, Return | Feed | Control) => false,
            (Some(Lead), Lead | Vowel | LeadVowel | LeadVowelTrail)
            | (Some(LeadVowel | Vowel), Vowel | Trail)
            | (Some(LeadVowelTrail | Trail), Trail)
            | (_, Extend | Joiner | Spacing)
            | (Some(Prepend), _) => true,
            (Some(Joiner), _) if self.pictograph && kind.pictograph => true,
            (Some(Flag), Flag) => self.odd_flags,
            _ => self.linked && kind.conjunct == Conjunct::Consonant,
        };
        self.odd_flags = now == Flag && !(self.odd_flags && last == Some(Flag));
        self.pictograph = kind.pictograph
            || self.pictograph && (now == Extend || now == Joiner && last != Some(Joiner));
        match kind.conjunct {
            Conjunct::Consonant => (self.consonant, self.linked) = (true, false),
            Conjunct::Linker => self.linked = self.consonant,
            Conjunct::Extend => {}
            Conjunct::None => (self.consonant, self.linked) = (false, false),
        }
        !joins
    }
}

#[cfg(test)]
mod tests {
    use unicode_segmentation::UnicodeSegmentation;

    use super::*;

    fn check(text: &str) {
        let ends = |units: &mut dyn Iterator<Item = (usize, &str)>| -> Vec<usize> {
            units.map(|(at, unit)| at + unit.len()).collect()
        };
        let expected = ends(&mut text.split_sentence_bound_indices());
        assert_eq!(sentence_ends(text).collect::<Vec<_>>(), expected, "sentences of {text:?}");
        let expected = ends(&mut text.split_word_bound_indices());
        // With a pictograph behind a joiner the library forgets what else it is (WB5), and what was before (WB6).
        let joined = ["\u{231a}", "\u{24c2}", "\u{1f468}"].map(|c| format!("\u{200d}{c}"));
        if !joined.iter().any(|joined| text.contains(joined)) {
            assert_eq!(word_ends(text).collect::<Vec<_>>(), expected, "words of {text:?}");
        }
        let expected = ends(&mut text.grapheme_indices(true));
        assert_eq!(cluster_ends(text).collect::<Vec<_>>(), expected, "clusters of {text:?}");
    }

    /// One or more of each kind.
    const PARTS: [&str; 58] = [
        "a",
        "B",
        "c",
        "1",
        ".",
        "!",
        "?",
        "\u{2026}",
        ",",
        ":",
        ";",
        "-",
        "'",
        "\"",
        ")",
        "(",
        "\u{bb}",
        " ",
        "\u{2003}",
        "\t",
        "\n",
        "\r",
        "\u{85}",
        "\u{2028}",
        "\u{301}",
        "\u{ad}",
        "\u{200d}",
        "\u{200c}",
        "\u{200b}",
        "_",
        "\u{5d0}",
        "\u{5f4}",
        "\u{30a2}",
        "\u{3042}",
        "\u{65e5}",
        "\u{1f1e6}",
        "\u{1f1e7}",
        "\u{231a}",
        "\u{1f468}",
        "\u{1f3fd}",
        "\u{fe0f}",
        "\u{1100}",
        "\u{1161}",
        "\u{11a8}",
        "\u{ac00}",
        "\u{ac01}",
        "\u{915}",
        "\u{94d}",
        "\u{93e}",
        "\u{600}",
        "\u{e33}",
        "\u{2019}",
        "\u{387}",
        "\u{37e}",
        "\u{3002}",
        "\u{1c5}",
        "\u{24c2}",
        "\u{10a0}",
    ];

    #[test]
    fn ends_are_the_library_s() {
        for a in PARTS {
            check(a);
            PARTS.iter().for_each(|b| check(&[a, b].concat()));
        }
        // SplitMix64.
        let mut state = 1u64;
        let mut below = |limit: usize| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((z ^ (z >> 31)) % limit as u64) as usize
        };
        for _ in 0..100_000 {
            let parts = (0..below(12)).map(|_| PARTS[below(PARTS.len())]);
            check(&parts.collect::<String>());
        }
    }

    #[test]
    fn every_character_is_of_the_library_s_kind() {
        // Planes 4 to 13 have no characters.
        let numbers = (0..0x4_0000).chain(0xE_0000..0xF_0000);
        let chars: Vec<char> = numbers.filter_map(char::from_u32).collect();
        for chars in chars.chunks(32) {
            for (before, after) in [
                ("a", "a"),
                ("1. ", "a"),
                ("A.", "B"),
                ("!", "1"),
                ("\u{5d0}", "\u{5d0}"),
                ("\u{915}\u{94d}", "\u{915}"),
                ("\u{231a}\u{200d}", "\u{231a}"),
                ("_", "\u{30a2}"),
            ] {
                let text: String = chars.iter().map(|c| format!("{before}{c}{after}")).collect();
                check(&text);
            }
        }
    }
}
