//! Rotated positions (RoPE, Su et al., arXiv 2104.09864) and the ways to stretch them to longer texts.
//!
//! All of them end in a vector of inverse frequencies and a factor of cosine and sine, which the model file
//! has in binary64. Powers and logarithms are those of the `libm` crate, so that the same checkpoint gives
//! the same bytes on every machine.

use std::f64::consts::TAU;
use std::ops::RangeInclusive;

use super::fields::{Fields, MAX_POSITIONS, SCALES};
use super::table::{lookup, names};
use crate::checkpoint::error::Result;

/// The base by which angles fall from pair to pair. From 1 on, so that no inverse frequency is above 1.
const THETAS: RangeInclusive<f64> = 1.0..=1e18;

/// The kinds of scaling, by their names in `rope_type` and, in older files, `type`.
const KINDS: &[(&str, Kind)] = &[
    ("default", Kind::Default),
    ("linear", Kind::Linear),
    ("llama3", Kind::Llama3),
    ("yarn", Kind::Yarn),
];

#[derive(Clone, Copy)]
enum Kind {
    Default,
    Linear,
    Llama3,
    Yarn,
}

/// The rotation of one base.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// The inverse frequency of each pair.
    pub frequencies: Vec<f64>,
    /// What cosine and sine are multiplied by.
    pub factor: f64,
    /// What the two follow from.
    pub base: Base,
}

/// What a rotation follows from, for files that say this instead of frequencies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Base {
    /// The base by which angles fall from pair to pair.
    pub theta: f64,
    /// How the inverse frequencies are scaled.
    pub scaling: Scaling,
}

/// How inverse frequencies are scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scaling {
    /// They are not.
    Default,
    /// All are divided by the factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Each is divided by a number of its own (Llama 3.1).
    Divided,
    /// As `yarn` does.
    Yarn {
        /// What those that turn least are divided by.
        factor: f64,
        /// The positions of the training before the scaling.
        length: usize,
        /// How often a pair turns within them that keeps its frequency.
        fast: f64,
        /// How often one turns whose frequency is divided.
        slow: f64,
    },
}

/// What may be known of a rotation before its fields are read.
pub struct Usual {
    /// The base where the file has none.
    pub theta: f64,
    /// The field of the base in older files.
    pub older_theta: &'static str,
    /// The positions that the model was trained on.
    pub positions: usize,
    /// The size of a head.
    pub head_size: usize,
    /// The field that says which part of each head is rotated, and that part where it does not.
    pub part: Option<(&'static str, f64)>,
}

/// The rotation of a model with one base: `rope_parameters` in newer files; `rope_theta`, or what
/// `usual` has for it, and `rope_scaling` in older ones. Some files have both.
pub fn read(fields: &Fields, usual: &Usual) -> Result<Rope> {
    let (parameters, scaling) = (fields.object("rope_parameters")?, fields.object("rope_scaling")?);
    let theta = alias(fields, ["rope_theta", usual.older_theta], THETAS)?.unwrap_or(usual.theta);
    let pairs = pairs(fields, parameters.as_ref(), usual)?;
    let read = |object: &Option<Fields>| {
        object.as_ref().map(|object| set(object, theta, pairs, usual.positions)).transpose()
    };
    match (read(&parameters)?, read(&scaling)?) {
        (Some(newer), Some(older)) if newer != older => {
            let problem = "contradicts `rope_parameters`: remove the wrong one";
            Err(fields.error("rope_scaling", problem))
        }
        (newer, older) => Ok(newer.or(older).unwrap_or_else(|| Rope::unscaled(theta, pairs))),
    }
}

impl Rope {
    /// The rotation by `theta^(-i / pairs)` for each pair `i`.
    pub fn unscaled(theta: f64, pairs: usize) -> Self {
        let frequency = |i| 1.0 / libm::pow(theta, i as f64 / pairs as f64);
        let base = Base { theta, scaling: Scaling::Default };
        Self { frequencies: (0..pairs).map(frequency).collect(), factor: 1.0, base }
    }
}

/// The number under `field` that is a base.
pub fn theta(fields: &Fields, field: &str) -> Result<Option<f64>> {
    fields.number(field, THETAS)
}

/// The rotation that an object describes: `rope_scaling`, or a set of `rope_parameters`.
pub fn set(set: &Fields, theta: f64, pairs: usize, positions: usize) -> Result<Rope> {
    let theta = set.number("rope_theta", THETAS)?.unwrap_or(theta);
    // Read by `pairs`.
    set.get("partial_rotary_factor");
    let mut rope = Rope::unscaled(theta, pairs);
    match kind(set)? {
        Kind::Default => {}
        Kind::Linear => {
            let factor = required(set, "factor")?;
            rope.frequencies.iter_mut().for_each(|f| *f /= factor);
            rope.base.scaling = Scaling::Linear { factor };
        }
        Kind::Llama3 => llama3(set, &mut rope)?,
        Kind::Yarn => yarn(set, theta, positions, &mut rope)?,
    }
    // llama.cpp's converter writes it; it says that the model was trained with this scaling.
    set.get("finetuned");
    set.refuse_unknown()?;
    check(&rope.frequencies)
        .map(|()| rope)
        .map_err(|frequency| set.error("factor", format!("makes an inverse frequency {frequency}")))
}

/// Whether the runtime turns by these frequencies exactly: its angles hold for those up to 1.
///
/// # Errors
/// The first that is none.
pub fn check(frequencies: &[f64]) -> std::result::Result<(), f64> {
    match frequencies.iter().find(|f| !(**f > 0.0 && **f <= 1.0)) {
        Some(frequency) => Err(*frequency),
        None => Ok(()),
    }
}

fn kind(set: &Fields) -> Result<Kind> {
    // Older files say `type`, and some both.
    let (newer, older) = (set.text("rope_type")?, set.text("type")?);
    let field = if newer.is_some() || older.is_none() { "rope_type" } else { "type" };
    let Some(found) = newer.or(older) else { return Ok(Kind::Default) };
    lookup(KINDS, &found).ok_or_else(|| {
        let known = names(KINDS);
        let problem = format!(
            "is {found:?}, a scaling of positions that is not supported; supported: {known}; take a \
             model that was trained without it"
        );
        set.error(field, problem)
    })
}

fn required(set: &Fields, field: &'static str) -> Result<f64> {
    let found = set.number(field, SCALES)?;
    found.ok_or_else(|| set.error(field, "is missing: take config.json from the original model"))
}

/// Llama 3.1's: low frequencies are divided, high ones are not, those between by turns.
fn llama3(set: &Fields, rope: &mut Rope) -> Result<()> {
    let factor = required(set, "factor")?;
    let (low, high) = (required(set, "low_freq_factor")?, required(set, "high_freq_factor")?);
    if high <= low {
        let problem = format!("is {high}, but must be above `low_freq_factor` {low}");
        return Err(set.error("high_freq_factor", problem));
    }
    let length = set.count("original_max_position_embeddings", 1..=MAX_POSITIONS)? as f64;
    rope.base.scaling = Scaling::Divided;
    for frequency in &mut rope.frequencies {
        // How often the pair turns within the length that the model was trained on first.
        let turns = length * *frequency / TAU;
        *frequency = if turns < low {
            *frequency / factor
        } else if turns > high {
            *frequency
        } else {
            let part = (turns - low) / (high - low);
            (1.0 - part) * *frequency / factor + part * *frequency
        };
    }
    Ok(())
}

/// YaRN (Peng et al., arXiv 2309.00071): pairs that turn often keep their frequency, pairs that turn less than
/// once have it divided, and scores grow with the factor.
fn yarn(set: &Fields, theta: f64, positions: usize, rope: &mut Rope) -> Result<()> {
    let factor = required(set, "factor")?;
    let length = set
        .optional_count("original_max_position_embeddings", 1..=MAX_POSITIONS)?
        .unwrap_or(positions);
    let fast = set.number("beta_fast", SCALES)?.unwrap_or(32.0);
    let slow = set.number("beta_slow", SCALES)?.unwrap_or(1.0);
    rope.base.scaling = Scaling::Yarn { factor, length, fast, slow };
    let length = length as f64;
    let grown = |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * libm::log(factor) + 1.0 };
    let (scale, scale_all) =
        (set.number("mscale", 0.0..=1e6)?, set.number("mscale_all_dim", 0.0..=1e6)?);
    rope.factor = match (set.number("attention_factor", SCALES)?, scale, scale_all) {
        (Some(given), ..) => given,
        (None, Some(scale), Some(all)) if scale != 0.0 && all != 0.0 => grown(scale) / grown(all),
        _ => grown(1.0),
    };

    // The pair, as a fraction of a number, that turns so often within the length.
    let dimensions = 2.0 * rope.frequencies.len() as f64;
    let pair =
        |turns: f64| dimensions * libm::log(length / (turns * TAU)) / (2.0 * libm::log(theta));
    let truncated = set.flag("truncate")?.unwrap_or(true);
    let (mut first, mut last) = (pair(fast), pair(slow));
    if truncated {
        (first, last) = (libm::floor(first), libm::ceil(last));
    }
    (first, last) = (first.max(0.0), last.min(dimensions - 1.0));
    if first == last {
        last += 0.001;
    }
    for (i, frequency) in rope.frequencies.iter_mut().enumerate() {
        let divided = ((i as f64 - first) / (last - first)).clamp(0.0, 1.0);
        *frequency = *frequency / factor * divided + *frequency * (1.0 - divided);
    }
    Ok(())
}

/// The number under either of two names, the newer and the older. Files of the time between have both.
fn alias(
    fields: &Fields,
    [newer, older]: [&str; 2],
    allowed: RangeInclusive<f64>,
) -> Result<Option<f64>> {
    let values = (fields.number(newer, allowed.clone())?, fields.number(older, allowed)?);
    match values {
        (Some(a), Some(b)) if a != b => {
            let problem = format!("is {b}, but `{newer}` is {a}: remove the wrong one");
            Err(fields.error(older, problem))
        }
        (newer, older) => Ok(newer.or(older)),
    }
}

/// The number of pairs of a head that are rotated.
pub fn pairs(fields: &Fields, parameters: Option<&Fields>, usual: &Usual) -> Result<usize> {
    const PART: &str = "partial_rotary_factor";
    let size = usual.head_size;
    let (field, part) = usual.part.unwrap_or((PART, 1.0));
    let within = parameters.map(|set| set.number(PART, 0.0..=1.0)).transpose()?.flatten();
    let outside = alias(fields, [PART, field], 0.0..=1.0)?;
    let part = within.or(outside).unwrap_or(part);
    // In GGUF the number of dimensions stands instead.
    let dimensions = fields.optional_count("rotary_dim", 1..=size)?;
    let dimensions = dimensions.unwrap_or((size as f64 * part) as usize);
    let is_whole = usual.part.is_some() || dimensions == size;
    if dimensions > 0 && dimensions.is_multiple_of(2) && is_whole {
        return Ok(dimensions / 2);
    }
    let problem = match usual.part {
        Some(_) => {
            format!("makes {dimensions} of a head's {size} dimensions, but pairs are rotated")
        }
        None => {
            format!("makes {dimensions} dimensions, but a head has {size}, in pairs, all rotated")
        }
    };
    let field = if fields.has("rotary_dim") { "rotary_dim" } else { field };
    Err(fields.error(field, problem))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::json;

    const USUAL: Usual =
        Usual { theta: 1e4, older_theta: "rope_theta", positions: 128, head_size: 16, part: None };

    fn rope(config: &str) -> Result<Rope> {
        let object = json::parse(config.as_bytes()).unwrap();
        read(&Fields::new(Path::new("config.json"), object), &USUAL)
    }

    #[test]
    fn scaling_is_refused_that_is_not_known_or_makes_no_frequencies() {
        let llama3 = r#""rope_type":"llama3","factor":8,"original_max_position_embeddings":32"#;
        for (scaling, problem) in [
            (r#""rope_type":"longrope""#.to_owned(), "`rope_scaling.rope_type` is \"longrope\""),
            (r#""type":"dynamic","factor":2"#.to_owned(), "`rope_scaling.type` is \"dynamic\""),
            (r#""type":"su""#.to_owned(), "supported: default, linear, llama3, yarn"),
            (r#""type":"linear""#.to_owned(), "`rope_scaling.factor` is missing"),
            (r#""type":"linear","factor":0"#.to_owned(), "`rope_scaling.factor` is 0"),
            (r#""type":"linear","factor":0.5"#.to_owned(), "inverse frequency 2"),
            (r#""type":"linear","factor":"2""#.to_owned(), "`rope_scaling.factor` is \"2\""),
            (r#""type":"linear","factor":2,"bend":1"#.to_owned(), "`rope_scaling.bend` is 1"),
            (llama3.to_owned(), "`rope_scaling.low_freq_factor` is missing"),
            (format!(r#"{llama3},"low_freq_factor":4,"high_freq_factor":4"#), "must be above"),
        ] {
            let error = rope(&format!(r#"{{"rope_scaling":{{{scaling}}}}}"#)).unwrap_err();
            assert!(error.to_string().contains(problem), "{scaling}: {error}");
        }
        for theta in ["0", "-1", "0.5", "1e300", "\"1e4\""] {
            let error = rope(&format!(r#"{{"rope_theta":{theta}}}"#)).unwrap_err().to_string();
            assert!(error.contains("`rope_theta` is"), "{error}");
        }
        let part = rope(r#"{"partial_rotary_factor":0.5}"#).unwrap_err().to_string();
        assert!(part.contains("`partial_rotary_factor` makes 8 dimensions"), "{part}");
    }

    #[test]
    fn newer_and_older_files_say_the_same() {
        let older = rope(r#"{"rope_theta":5000,"rope_scaling":{"type":"linear","factor":4}}"#);
        let newer =
            rope(r#"{"rope_parameters":{"rope_theta":5000,"rope_type":"linear","factor":4}}"#);
        assert_eq!(older.unwrap(), newer.unwrap());
        let both = r#""rope_parameters":{"rope_theta":5000,"rope_type":"linear","factor":4}"#;
        let same = rope(&format!(
            r#"{{{both},"rope_scaling":{{"rope_theta":5000,"type":"linear","factor":4}}}}"#
        ));
        assert_eq!(same.unwrap().frequencies[0], 0.25);
        let other = rope(&format!(r#"{{{both},"rope_scaling":{{"type":"linear","factor":2}}}}"#));
        assert!(other.unwrap_err().to_string().contains("contradicts `rope_parameters`"));
        assert_eq!(rope("{}").unwrap(), Rope::unscaled(1e4, 8));
    }
}
