//! A checkpoint in a GGUF file: weights, configuration and tokenizer in one.
//!
//! The configuration is put in terms of `config.json` and checked as one, with the errors naming the
//! file's own keys. What a `config.json` says and no key does, the tensors or llama.cpp's conventions say.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use cerebellum::format::Architecture;
use serde_json::{Map, Value as Json};

use super::config::{MODEL_TYPES, Parsed, Scaling, check_frequencies};
use super::error::{Error, Result};
use super::names::{Names, gguf as names};
use super::storage::{Layout, MappedFile, Source, StoredTensor};
use crate::dtype::Dtype;
use crate::gguf::{Gguf, MAGIC, TensorEntry, Value, gpt2, keys};

const EMBEDDING: &str = "token_embd.weight";
/// How the names of the tensors begin that longrope takes its frequencies from.
const LONG_ROPE: &str = "rope_factors_";
/// Layers of Gemma 3 27B, whose scores are not scaled by the size of a head; no key says it.
pub(crate) const LARGEST_GEMMA3: usize = 62;
/// How far the entry of inverse frequencies may be from what the other entries make, which hold 24 bits.
const FREQUENCY_TOLERANCE: f64 = 1e-6;
/// A key, after the architecture's name, that asks for nothing where it is true.
const CAUSAL: &str = "attention.causal";
/// Keys, likewise, that ask for nothing at 1.
const NEUTRAL_AT_1: [&str; 2] = ["rope.scaling.attn_factor", "rope.scale_linear"];

/// A family, by llama.cpp's name of it.
#[derive(Debug)]
pub(crate) struct Family {
    /// The value of `general.architecture`, and the beginning of the family's keys.
    pub architecture: &'static str,
    /// Its `model_type` in `config.json`.
    pub model_type: &'static str,
    /// What its tensors are called.
    pub names: &'static Names,
    /// Fields beyond those of all families.
    pub fields: &'static [(&'static str, &'static str)],
}

impl Family {
    /// The one that computes models of this architecture.
    pub fn of(architecture: Architecture) -> Option<&'static Self> {
        let model_type = match architecture {
            // Llama with windows.
            Architecture::Mistral => "llama",
            // GPT-2 with parts that llama.cpp's has not, each of which a model may lack.
            Architecture::Btlm => "gpt2",
            _ => MODEL_TYPES.iter().find(|(_, known)| *known == architecture)?.0,
        };
        FAMILIES.iter().find(|family| family.model_type == model_type)
    }

    /// The key that ends so.
    pub fn key(&self, rest: &str) -> String {
        format!("{}.{rest}", self.architecture)
    }
}

const fn family(
    architecture: &'static str,
    model_type: &'static str,
    names: &'static Names,
    fields: &'static [(&'static str, &'static str)],
) -> Family {
    Family { architecture, model_type, names, fields }
}

const FAMILIES: [Family; 10] = [
    family(gpt2::ARCHITECTURE, gpt2::ARCHITECTURE, &names::GPT2, &[]),
    family("llama", "llama", &names::INTERLEAVED, &[keys::WINDOW]),
    family("qwen2", "qwen2", &names::PLAIN, &[]),
    family("qwen3", "qwen3", &names::PLAIN, &[]),
    family("gemma3", "gemma3_text", &names::PLAIN, &[keys::WINDOW, keys::WINDOW_PATTERN]),
    family("smollm3", "smollm3", &names::INTERLEAVED, &[]),
    family("granite", "granite", &names::INTERLEAVED, &keys::MULTIPLIERS),
    family("olmo2", "olmo2", &names::PLAIN, &[]),
    family("phi3", "phi3", &names::PHI3, &[keys::WINDOW]),
    family("gptneox", "gpt_neox", &names::GPT_NEOX, &[]),
];

/// Whether this is a file that means to be GGUF, by name or by its first bytes.
pub(super) fn is_gguf(path: &Path) -> bool {
    if !path.is_file() {
        return false;
    }
    let mut magic = [0; MAGIC.len()];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    path.extension().is_some_and(|extension| extension == "gguf") || read.is_ok() && magic == *MAGIC
}

pub(super) fn open(path: &Path) -> Result<Source> {
    let file = MappedFile::open(path)?;
    let gguf = Gguf::parse(file.bytes())
        .map_err(|source| Error::Gguf { path: path.to_owned(), source })?;
    let family = family_of(&gguf, path)?;
    let reader = Reader { gguf: &gguf, path, family };
    let config = if family.model_type == gpt2::ARCHITECTURE {
        reader.gpt2_config()?
    } else {
        reader.config()?
    };
    let mut config_bytes = serde_json::to_vec(&config).expect("a map of plain values");
    let mut parsed = Parsed::parse(&config_bytes, path).map_err(|error| reader.with_key(error))?;
    // A head is there if it differs from the embedding.
    parsed.tied = None;
    let mut tensors = gguf.tensors().to_vec();
    if family.names.is_strict {
        let divisors = tensors.iter().position(|tensor| tensor.name == keys::ROPE_DIVISORS);
        if let Some(place) = divisors {
            let divisors = tensors.remove(place);
            reader.divide_frequencies(&divisors, file.bytes(), &mut parsed)?;
            // The digest sees what the configuration's bytes are.
            config_bytes.extend(&file.bytes()[divisors.bytes]);
        }
        if let Some(frequencies) = reader.exact_frequencies(&parsed)? {
            config_bytes.extend(frequencies.iter().flat_map(|frequency| frequency.to_le_bytes()));
            parsed.derived.frequencies = frequencies;
        }
    }
    let tensors = tensors.into_iter().map(stored).collect();
    let (files, names, layout) = (vec![file], family.names, Some(Layout::Linear));
    Ok(Source { parsed, config_bytes, files, tensors, names, layout })
}

fn family_of(gguf: &Gguf, path: &Path) -> Result<&'static Family> {
    let path = path.to_owned();
    let supported = || FAMILIES.map(|family| family.architecture).join(", ");
    let family = match gguf.get(keys::ARCHITECTURE) {
        Some(Value::Text(found)) => {
            let family = FAMILIES.iter().find(|family| family.architecture == found);
            family.ok_or_else(|| Error::UnsupportedModelType {
                path: path.clone(),
                field: keys::ARCHITECTURE,
                found: found.to_owned(),
                supported: supported(),
            })?
        }
        _ => {
            let problem = format!("is missing: only models of these are read: {}", supported());
            return Err(Error::ConfigField { path, field: keys::ARCHITECTURE.to_owned(), problem });
        }
    };
    match gguf.get(keys::SPLIT_COUNT) {
        Some(Value::Int(count)) if count > 1 => {
            let problem = format!("is {count}: merge the parts by `llama-gguf-split --merge`");
            Err(Error::ConfigField { path, field: keys::SPLIT_COUNT.to_owned(), problem })
        }
        _ => Ok(family),
    }
}

/// Reads the configuration of a family from a file.
struct Reader<'a> {
    gguf: &'a Gguf<'a>,
    path: &'a Path,
    family: &'static Family,
}

impl Reader<'_> {
    fn error(&self, key: &str, problem: impl Into<String>) -> Error {
        let (path, problem) = (self.path.to_owned(), problem.into());
        Error::ConfigField { path, field: key.to_owned(), problem }
    }

    /// The value under `key`, if there is one.
    fn value(&self, key: &str) -> Result<Option<Json>> {
        Ok(Some(match self.gguf.get(key) {
            None => return Ok(None),
            Some(Value::Int(value)) => value.into(),
            // JSON has no other floats: as null it would count as missing.
            Some(Value::Float(value)) if !value.is_finite() => {
                return Err(self.error(key, format!("is {value}, but must be a finite number")));
            }
            Some(Value::Float(value)) => value.into(),
            Some(Value::Text(value)) => value.into(),
            Some(Value::Bool(value)) => value.into(),
            Some(Value::Array(_)) => {
                return Err(self.error(key, "is an array, but must be one value"));
            }
        }))
    }

    /// The metadata of a GPT-2 as a `config.json`.
    fn gpt2_config(&self) -> Result<Map<String, Json>> {
        let mut map = Map::new();
        map.insert("model_type".to_owned(), gpt2::ARCHITECTURE.into());
        for (field, key) in gpt2::KEYS {
            if let Some(value) = self.value(key)? {
                map.insert(field.to_owned(), value);
            }
        }
        map.insert("vocab_size".to_owned(), self.vocab_size()?.into());
        Ok(map)
    }

    /// No key is sure to say how large the vocabulary is; the embedding is.
    fn vocab_size(&self) -> Result<usize> {
        match self.tensor(EMBEDDING).map(|tensor| &tensor.shape[..]) {
            Some([rows, _]) => Ok(*rows),
            _ => {
                let (tensor, location) = (EMBEDDING.to_owned(), self.path.to_owned());
                let hint = "every model has it, a matrix; convert the model again".to_owned();
                Err(Error::MissingTensor { tensor, location, hint })
            }
        }
    }

    fn tensor(&self, name: &str) -> Option<&TensorEntry> {
        self.gguf.tensors().iter().find(|tensor| tensor.name == name)
    }

    fn key(&self, rest: &str) -> String {
        self.family.key(rest)
    }

    /// The metadata of another family as a `config.json`.
    fn config(&self) -> Result<Map<String, Json>> {
        let mut map = Map::new();
        let fields = keys::FIELDS.iter().chain(self.family.fields);
        for (field, rest) in fields {
            if let Some(value) = self.value(&self.key(rest))? {
                map.insert((*field).to_owned(), value);
            }
        }
        for (field, key) in keys::TOKEN_FIELDS {
            if let Some(value) = self.value(key)? {
                map.insert(field.to_owned(), value);
            }
        }
        map.insert("vocab_size".to_owned(), self.vocab_size()?.into());
        self.add_rope_scaling(&mut map)?;
        self.add_conventions(&mut map)?;
        self.check_value_length(&map)?;
        self.refuse_unknown()?;
        Ok(map)
    }

    fn add_rope_scaling(&self, map: &mut Map<String, Json>) -> Result<()> {
        let mut scaling = Map::new();
        for (field, rest) in keys::ROPE_SCALING {
            if let Some(value) = self.value(&self.key(rest))? {
                scaling.insert(field.to_owned(), value);
            }
        }
        if scaling.contains_key("factor") {
            scaling.entry("rope_type").or_insert_with(|| "linear".into());
        }
        if scaling.get("rope_type").is_some_and(|kind| kind != "none") {
            map.insert("rope_scaling".to_owned(), scaling.into());
        }
        match self.gguf.tensors().iter().find(|tensor| tensor.name.starts_with(LONG_ROPE)) {
            Some(tensor) => {
                let problem = "is for longrope, a scaling of positions that is not supported; take a \
                               model that was trained without it";
                Err(self.error(&tensor.name, problem))
            }
            None => Ok(()),
        }
    }

    /// What the keys do not say: what llama.cpp takes where one is missing, or computes for a family.
    fn add_conventions(&self, map: &mut Map<String, Json>) -> Result<()> {
        let count = |map: &Map<_, Json>, field| map.get(field).and_then(Json::as_u64);
        let architecture = self.family.architecture;
        let (width, heads) = (count(map, "hidden_size"), count(map, "num_attention_heads"));
        let window = map.get("sliding_window").cloned();
        let has_window = window.as_ref().is_some_and(|window| *window != 0);
        let has = |name: &str| self.tensor(name).is_some();
        let mut set = |field: &str, value: Json| {
            map.entry(field).or_insert(value);
        };
        if let (Some(width), Some(heads)) = (width, heads) {
            set("num_key_value_heads", heads.into());
            if heads > 0 && width.is_multiple_of(heads) {
                set("head_dim", (width / heads).into());
            }
        }
        set("rope_theta", 1e4.into());
        if matches!(architecture, "llama" | "granite" | "smollm3") {
            set("mlp_bias", has("blk.0.ffn_gate.bias").into());
        }
        if !matches!(architecture, "qwen2" | "phi3") {
            let biased = has("blk.0.attn_q.bias") || has("blk.0.attn_qkv.bias");
            set("attention_bias", biased.into());
        }
        let mut model_type = self.family.model_type;
        if architecture == "gptneox"
            && let Some(activation) = self.value(gpt2::ACTIVATION)?
        {
            map.insert("hidden_act".to_owned(), activation);
        }
        match architecture {
            // A window of 0 is none. Mistral is Llama with windows.
            "llama" | "phi3" if !has_window => drop(map.remove("sliding_window")),
            "llama" => model_type = "mistral",
            "gemma3" if window.is_none() => {
                return Err(
                    self.error(&self.key(keys::WINDOW.1), "is missing: convert the model again")
                );
            }
            "gemma3" if count(map, "num_hidden_layers") == Some(LARGEST_GEMMA3 as u64) => {
                let scalar = width.zip(heads.filter(|heads| *heads > 0));
                let scalar = scalar.map(|(width, heads)| width as f64 / heads as f64);
                map.insert("query_pre_attn_scalar".to_owned(), scalar.into());
            }
            "gemma3" => {
                let head_size = map.get("head_dim").cloned().unwrap_or_default();
                map.insert("query_pre_attn_scalar".to_owned(), head_size);
            }
            "granite" if !map.contains_key("attention_multiplier") => {
                let key = self.key("attention.scale");
                return Err(self.error(&key, "is missing: convert the model again"));
            }
            _ => {}
        }
        map.insert("model_type".to_owned(), model_type.into());
        Ok(())
    }

    fn check_value_length(&self, map: &Map<String, Json>) -> Result<()> {
        let key = self.key(keys::VALUE_LENGTH);
        let Some(length) = self.value(&key)? else { return Ok(()) };
        match map.get("head_dim") {
            Some(head) if *head == length => Ok(()),
            _ => Err(self.error(&key, format!("is {length}, but must be as that of keys"))),
        }
    }

    /// Refuses a key of the family that nothing has asked for, unless its value asks for nothing.
    fn refuse_unknown(&self) -> Result<()> {
        let prefix = self.key("");
        let fields = keys::FIELDS.iter().chain(self.family.fields).chain(&keys::ROPE_SCALING);
        let mut known: Vec<&str> = fields.map(|(_, rest)| *rest).collect();
        known.extend(keys::HARMLESS);
        known.push(keys::VALUE_LENGTH);
        for key in self.gguf.keys() {
            let Some(rest) = key.strip_prefix(&prefix) else { continue };
            let value = self.gguf.get(key);
            let is_off = match value {
                Some(Value::Bool(value)) => value == (rest == CAUSAL),
                Some(Value::Int(value)) => value == 0,
                Some(Value::Float(value)) => {
                    value == f64::from(u8::from(NEUTRAL_AT_1.contains(&rest)))
                }
                _ => false,
            };
            if let Some(value) = value
                && !is_off
                && !known.contains(&rest)
            {
                let problem = format!(
                    "is {value}, which this program does not know: it may change what the model \
                     computes; convert the original checkpoint instead"
                );
                return Err(self.error(key, problem));
            }
        }
        Ok(())
    }

    /// Divides the inverse frequencies by those of Llama 3.1's scaling.
    fn divide_frequencies(
        &self,
        divisors: &TensorEntry,
        file: &[u8],
        parsed: &mut Parsed,
    ) -> Result<()> {
        let (key, frequencies) = (keys::ROPE_DIVISORS, &mut parsed.derived.frequencies);
        if divisors.dtype != Ok(Dtype::F32) || divisors.shape != [frequencies.len()] {
            let (shape, pairs) = (&divisors.shape, frequencies.len());
            let problem = format!("has shape {shape:?}, but must be {pairs} numbers in F32");
            return Err(self.error(key, problem));
        }
        let mut values = vec![0.0; frequencies.len()];
        Dtype::F32.decode(&file[divisors.bytes.clone()], &mut values);
        frequencies.iter_mut().zip(values).for_each(|(f, divisor)| *f /= f64::from(divisor));
        parsed.bases.iter_mut().for_each(|base| base.scaling = Scaling::Divided);
        check_frequencies(frequencies)
            .map_err(|frequency| self.error(key, format!("makes an inverse frequency {frequency}")))
    }

    /// The inverse frequencies in all their bits, if the file has them: they must be those that its other
    /// entries make, but for rounding.
    fn exact_frequencies(&self, parsed: &Parsed) -> Result<Option<Vec<f64>>> {
        let Some(value) = self.gguf.get(keys::FREQUENCIES) else { return Ok(None) };
        let expected = &parsed.derived.frequencies;
        let float = |value: Value| match value {
            Value::Float(value) => Some(value),
            _ => None,
        };
        let found: Option<Vec<f64>> = match value {
            Value::Array(array) if array.len() == expected.len() => {
                array.iter().map(float).collect()
            }
            _ => None,
        };
        let Some(found) = found else {
            let problem = format!("is {value}, but must be {} numbers", expected.len());
            return Err(self.error(keys::FREQUENCIES, problem));
        };
        let is_near = |(a, b): (&f64, &f64)| (a - b).abs() <= FREQUENCY_TOLERANCE * b;
        if !found.iter().zip(expected).all(is_near) {
            let problem =
                "contradicts the keys that begin with `rope.`: remove it if they are right";
            return Err(self.error(keys::FREQUENCIES, problem));
        }
        check_frequencies(&found).map_err(|frequency| {
            self.error(keys::FREQUENCIES, format!("has an inverse frequency {frequency}"))
        })?;
        Ok(Some(found))
    }

    /// The error with the file's key in place of the field of `config.json`.
    fn with_key(&self, error: Error) -> Error {
        let Error::ConfigField { path, field, problem } = error else { return error };
        let is_gpt2 = self.family.model_type == gpt2::ARCHITECTURE;
        let find = |table: &[(&str, &str)], field: &str| {
            table.iter().find(|(known, _)| *known == field).map(|(_, key)| (*key).to_owned())
        };
        let of_family = || {
            let key = match field.strip_prefix("rope_scaling.") {
                Some(part) => find(&keys::ROPE_SCALING, part),
                None => find(&keys::FIELDS, &field).or_else(|| find(self.family.fields, &field)),
            };
            key.map(|rest| self.key(&rest)).or_else(|| find(&keys::TOKEN_FIELDS, &field))
        };
        let key = if is_gpt2 { find(&gpt2::KEYS, &field) } else { of_family() };
        Error::ConfigField { path, field: key.unwrap_or(field), problem }
    }
}

fn stored(tensor: TensorEntry) -> StoredTensor {
    let TensorEntry { name, shape, dtype, bytes } = tensor;
    StoredTensor { name, dtype, shape, file: 0, bytes }
}
