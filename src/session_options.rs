//! What a session is made with: options and their checks.

use alloc::vec::Vec;

use crate::error::{Error, Result};
use crate::kernels::{Isa, Kernels};
use crate::kv_cache::KvType;
use crate::model::Model;

/// For which tokens of an evaluation logits are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogitsFor {
    /// The last one only: what generation needs.
    #[default]
    Last,
    /// Every one: what scoring needs. The logits buffer is `chunk` times larger.
    All,
}

/// The instruction set that the environment variable `CEREBELLUM_ISA` names, if it is set and not empty.
/// For programs; the library itself never reads the environment.
#[cfg(feature = "std")]
pub fn isa_from_environment() -> Result<Option<Isa>> {
    let name = std::env::var_os("CEREBELLUM_ISA").filter(|name| !name.is_empty());
    let Some(name) = name else { return Ok(None) };
    let isa = name.to_str().and_then(Isa::from_name);
    let isa = isa.ok_or_else(|| {
        let names: Vec<_> = Isa::ALL.iter().map(|isa| isa.name()).collect();
        let detail = format!("{name:?} is not one of {}", names.join(", "));
        Error::Option { name: "CEREBELLUM_ISA", detail }
    })?;
    Ok(Some(isa))
}

/// What a session is made with.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Positions of the cache; the model's number of positions by default, which is also the most
    /// unless the model has ALiBi. The default is less if the cache would pass
    /// [`Model::memory_budget`].
    pub context: Option<usize>,
    /// Type of the cached keys and values.
    pub kv: KvType,
    /// Workers that share an evaluation, the caller's thread among them; 1 starts no thread.
    pub threads: usize,
    /// The most tokens that are evaluated at once; longer prompts are cut into such chunks. Affects
    /// speed and memory, never the results.
    pub chunk: usize,
    /// For which tokens logits are computed.
    pub logits: LogitsFor,
    /// The most tokens, up to 15, that are guessed and evaluated along with a single token, from what
    /// followed when the session's last tokens occurred before; 0 guesses none. A right guess saves a
    /// pass. Guesses are made where they have proved to save time; they never affect results. Takes
    /// memory for as many more rows of logits.
    pub draft: usize,
    /// Instruction set to use; the best that the processor supports by default.
    pub isa: Option<Isa>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            context: None,
            kv: KvType::F16,
            threads: 1,
            chunk: 64,
            logits: LogitsFor::Last,
            draft: 4,
            isa: None,
        }
    }
}

/// The kernels that the options ask for.
pub(crate) fn kernels_of(options: &SessionOptions) -> Result<&'static Kernels> {
    let isa = options.isa.unwrap_or_else(Isa::best);
    Kernels::new(isa).ok_or_else(|| {
        let names: Vec<_> = Isa::available().map(Isa::name).collect();
        let names = names.join(", ");
        let detail = format!("this processor does not support {isa}; it supports {names}");
        Error::Option { name: "isa", detail }
    })
}

/// Whether there are tokens, all of them in the vocabulary, and `positions` more positions in the
/// context.
pub(crate) fn check_tokens(
    model: &Model,
    tokens: &[u32],
    (position, positions, context): (usize, usize, usize),
) -> Result<()> {
    let vocab_size = model.config().vocab_size;
    if tokens.is_empty() {
        return Err(Error::NoTokens);
    }
    if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
        return Err(Error::TokenOutOfRange { token, vocab_size });
    }
    if positions > context - position {
        return Err(Error::ContextFull { position, tokens: positions, context });
    }
    Ok(())
}
