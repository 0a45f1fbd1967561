//! The settings in a set of options, by key.

use alloc::borrow::ToOwned;

use super::chat;
use super::classification::{self, cbl_calibration, cbl_normalization};
use super::constraint;
use super::keys::{Kind, cbl_option, name_of, unknown};
use super::pooling::cbl_pooling;
use super::values::{cbl_access, cbl_cache};
use crate::draft::MAX_DRAFT;
use crate::error::{Error, Result};
use crate::ffi::failure::Failure;
use crate::ffi::host::{Arena, Log, OnProgress, Pool};
use crate::generate::GenerateOptions;
use crate::kernels::Isa;
use crate::sampler::{SamplerOptions, check_bias};
use crate::session::Pooling;
use crate::session_options::{LogitsFor, SessionOptions};
use crate::threads::MAX_WORKERS;
use crate::{Access, KvType};

/// The settings in a set of options.
#[derive(Default)]
pub struct Options {
    pub access: Access,
    pub verify: bool,
    pub session: SessionOptions,
    pub generate: GenerateOptions,
    pub parse_special: bool,
    pub begin_of_text: bool,
    /// The largest number of tokens in a template's result, if there is a limit.
    pub template_tokens: Option<usize>,
    pub chat: chat::Setting,
    pub pooling: Pooling,
    pub classification: classification::Settings,
    pub constraint: constraint::Setting,
    pub log: Option<Log>,
    pub progress: Option<OnProgress>,
    pub pool: Option<Pool>,
    pub arena: Option<Arena>,
}

impl Options {
    /// The settings for the choice of a single token.
    pub fn choice(&self) -> Result<&SamplerOptions> {
        match self.constraint.name() {
            None => Ok(&self.generate.sampler),
            Some(name) => {
                let detail =
                    "concerns a whole text: generate one, or leave it out to choose a token";
                Err(Error::Option { name, detail: detail.to_owned() })
            }
        }
    }

    pub fn set_int(&mut self, key: i32, value: i64) -> Result<(), Failure> {
        use cbl_option as key_;
        let name = name_of(key, Kind::Int)?;
        let (session, generate) = (&mut self.session, &mut self.generate);
        match key {
            k if k == key_::CBL_OPTION_ACCESS as i32 => {
                let values = [
                    (cbl_access::CBL_ACCESS_MAP as i64, Access::Map),
                    (cbl_access::CBL_ACCESS_READ as i64, Access::Read),
                ];
                self.access = choose(name, value, values)?;
            }
            k if k == key_::CBL_OPTION_VERIFY as i32 => self.verify = switch(name, value)?,
            k if k == key_::CBL_OPTION_CONTEXT as i32 => {
                session.context = Some(size(name, value, 0, usize::MAX)?).filter(|&n| n > 0);
            }
            k if k == key_::CBL_OPTION_CACHE as i32 => {
                let values = [
                    (cbl_cache::CBL_CACHE_F16 as i64, KvType::F16),
                    (cbl_cache::CBL_CACHE_INT8 as i64, KvType::Int8),
                ];
                session.kv = choose(name, value, values)?;
            }
            k if k == key_::CBL_OPTION_THREADS as i32 => {
                session.threads = size(name, value, 1, MAX_WORKERS)?;
            }
            k if k == key_::CBL_OPTION_CHUNK as i32 => {
                session.chunk = size(name, value, 1, usize::MAX)?;
            }
            k if k == key_::CBL_OPTION_ALL_LOGITS as i32 => {
                let all = switch(name, value)?;
                session.logits = if all { LogitsFor::All } else { LogitsFor::Last };
            }
            k if k == key_::CBL_OPTION_MAX_TOKENS as i32 => {
                generate.max_tokens = size(name, value, 0, usize::MAX)?;
            }
            k if k == key_::CBL_OPTION_TEMPLATE_TOKENS as i32 => {
                let most = size(name, value, 0, usize::MAX)?;
                self.template_tokens = Some(most).filter(|&most| most > 0);
            }
            k if k == key_::CBL_OPTION_TOP_K as i32 => {
                generate.sampler.top_k = size(name, value, 0, usize::MAX)?;
            }
            k if k == key_::CBL_OPTION_REPETITION_WINDOW as i32 => {
                let window = size(name, value, 0, usize::MAX)?;
                generate.sampler.repetition_window = window;
            }
            k if k == key_::CBL_OPTION_SEED as i32 => {
                generate.sampler.seed = value.cast_unsigned();
            }
            k if k == key_::CBL_OPTION_IGNORE_END_OF_TEXT as i32 => {
                generate.ignore_end_of_text = switch(name, value)?;
            }
            k if k == key_::CBL_OPTION_PARSE_SPECIAL as i32 => {
                self.parse_special = switch(name, value)?;
            }
            k if k == key_::CBL_OPTION_BEGIN_OF_TEXT as i32 => {
                self.begin_of_text = switch(name, value)?;
            }
            k if k == key_::CBL_OPTION_DRAFT as i32 => {
                session.draft = size(name, value, 0, MAX_DRAFT)?;
            }
            k if k == key_::CBL_OPTION_POOLING as i32 => {
                let values = [
                    (cbl_pooling::CBL_POOLING_MEAN as i64, Pooling::Mean),
                    (cbl_pooling::CBL_POOLING_LAST as i64, Pooling::Last),
                ];
                self.pooling = choose(name, value, values)?;
            }
            k if k == key_::CBL_OPTION_NORMALIZATION as i32 => {
                use cbl_normalization::{CBL_NORMALIZATION_MEAN, CBL_NORMALIZATION_SUM};
                let values = [CBL_NORMALIZATION_SUM, CBL_NORMALIZATION_MEAN].map(|v| (v as i64, v));
                let chosen = choose(name, value, values)?;
                self.classification.set_normalization(chosen)?;
            }
            k if k == key_::CBL_OPTION_CALIBRATION as i32 => {
                use cbl_calibration::{
                    CBL_CALIBRATION_CONTENT_FREE, CBL_CALIBRATION_MUTUAL_INFORMATION,
                    CBL_CALIBRATION_NONE,
                };
                let values = [
                    CBL_CALIBRATION_NONE,
                    CBL_CALIBRATION_CONTENT_FREE,
                    CBL_CALIBRATION_MUTUAL_INFORMATION,
                ];
                let chosen = choose(name, value, values.map(|v| (v as i64, v)))?;
                self.classification.set_calibration(chosen)?;
            }
            k if k == key_::CBL_OPTION_THINKING as i32 => {
                let values = [(-1, None), (0, Some(false)), (1, Some(true))];
                let chosen = values.into_iter().find(|&(number, _)| number == value);
                let (_, thinking) = chosen.ok_or_else(|| {
                    let detail = format!("{value} is not in -1..=1");
                    Error::Option { name, detail }
                })?;
                self.chat.set_thinking(thinking)?;
            }
            _ => return Err(unknown(key).into()),
        }
        Ok(())
    }

    pub fn set_float(&mut self, key: i32, value: f64) -> Result<()> {
        name_of(key, Kind::Float)?;
        let value = value as f32;
        let field: fn(&mut SamplerOptions) -> &mut f32 = match key {
            k if k == cbl_option::CBL_OPTION_TEMPERATURE as i32 => |it| &mut it.temperature,
            k if k == cbl_option::CBL_OPTION_TOP_P as i32 => |it| &mut it.top_p,
            k if k == cbl_option::CBL_OPTION_MIN_P as i32 => |it| &mut it.min_p,
            k if k == cbl_option::CBL_OPTION_REPETITION_PENALTY as i32 => {
                |it| &mut it.repetition_penalty
            }
            _ => return Err(unknown(key)),
        };
        // The old value is kept, not a copy of the whole sampler: a copy may need memory.
        let sampler = &mut self.generate.sampler;
        let before = core::mem::replace(field(sampler), value);
        sampler.check().inspect_err(|_| *field(sampler) = before)
    }

    pub fn set_logit_bias(&mut self, token: u32, bias: f64) -> Result<()> {
        let bias = bias as f32;
        check_bias(bias)?;
        let biases = &mut self.generate.sampler.logit_bias;
        if bias == 0.0 {
            biases.retain(|&(known, _)| known != token);
            return Ok(());
        }
        let memory = |_| Error::OutOfMemory { bytes: size_of::<(u32, f32)>() };
        biases.try_reserve(1).map_err(memory)?;
        match biases.iter_mut().find(|(known, _)| *known == token) {
            Some((_, known)) => *known = bias,
            None => biases.push((token, bias)),
        }
        Ok(())
    }

    pub fn set_string(&mut self, key: i32, value: &str) -> Result<(), Failure> {
        name_of(key, Kind::String)?;
        match key {
            k if k == cbl_option::CBL_OPTION_ISA as i32 => {
                let isa = Isa::from_name(value).ok_or_else(|| {
                    let detail = "no instruction set of that name; cbl_isa_name() lists them";
                    Error::Option { name: "isa", detail: detail.to_owned() }
                })?;
                self.session.isa = Some(isa);
            }
            k if k == cbl_option::CBL_OPTION_TEMPLATE as i32 => {
                self.classification.set_template(value)?;
            }
            k if k == cbl_option::CBL_OPTION_DATE as i32 => self.chat.set_date(value)?,
            k if k == cbl_option::CBL_OPTION_CHOICES as i32 => {
                self.constraint.set_choices(value)?;
            }
            k if k == cbl_option::CBL_OPTION_REGEX as i32 => self.constraint.set_regex(value)?,
            k if k == cbl_option::CBL_OPTION_JSON_SCHEMA as i32 => {
                self.constraint.set_json_schema(value)?;
            }
            _ => return Err(unknown(key).into()),
        }
        Ok(())
    }
}

fn size(name: &'static str, value: i64, least: usize, most: usize) -> Result<usize> {
    let size = usize::try_from(value).ok().filter(|size| (least..=most).contains(size));
    size.ok_or_else(|| {
        let detail = match most {
            usize::MAX => format!("{value} is not at least {least}"),
            _ => format!("{value} is not in {least}..={most}"),
        };
        Error::Option { name, detail }
    })
}

fn choose<T: Copy, const N: usize>(
    name: &'static str,
    value: i64,
    values: [(i64, T); N],
) -> Result<T> {
    let chosen = values.into_iter().find(|&(number, _)| number == value);
    chosen.map(|(_, chosen)| chosen).ok_or_else(|| {
        let detail = format!("{value} is not in 0..={}", N - 1);
        Error::Option { name, detail }
    })
}

fn switch(name: &'static str, value: i64) -> Result<bool> {
    choose(name, value, [(0, false), (1, true)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_set_as_another_kind_says_its_name_and_its_setter() {
        use cbl_option::*;
        let mut options = Options::default();
        let texts = [
            options.set_int(CBL_OPTION_TEMPERATURE as i32, 1).map_err(|e| e.to_string()),
            options.set_float(CBL_OPTION_SEED as i32, 1.0).map_err(|e| e.to_string()),
            options.set_string(CBL_OPTION_TOP_P as i32, "1").map_err(|e| e.to_string()),
            options.set_int(CBL_OPTION_REGEX as i32, 1).map_err(|e| e.to_string()),
            options.set_int(0, 1).map_err(|e| e.to_string()),
            options.set_float(99, 1.0).map_err(|e| e.to_string()),
            options.set_int(CBL_OPTION_TOP_K as i32, -1).map_err(|e| e.to_string()),
            options.set_float(CBL_OPTION_TEMPERATURE as i32, 101.0).map_err(|e| e.to_string()),
        ];
        let wants = [
            "temperature: is a float: set it with cbl_options_set_float(), not cbl_options_set_int()",
            "seed: is an int: set it with cbl_options_set_int(), not cbl_options_set_float()",
            "top_p: is a float: set it with cbl_options_set_float(), not cbl_options_set_string()",
            "regex: is a string: set it with cbl_options_set_string(), not cbl_options_set_int()",
            "key: 0 is not the key of an option of this version",
            "key: 99 is not the key of an option of this version",
            "top_k: -1 is not at least 0",
            "temperature: 101 is not in 0..=100",
        ];
        for (text, want) in texts.into_iter().zip(wants) {
            assert_eq!(text.unwrap_err(), format!("option {want}"));
        }
    }
}
