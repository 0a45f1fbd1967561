//! The logits of `tests/data/recorded/logits.txt`, in its form: what `.ci/bare` compares.

use core::fmt::Write;

use cerebellum::{KvType, Model, Result, SessionOptions};

use crate::semihosting::Out;

const PROMPTS: [&str; 5] = [
    "Once upon a time",
    "Utterance: set an alarm for six\nIntent:",
    "The dog said to the cat: \"",
    "3 + 4 = ",
    "Grüße, 世界! \u{1f600}\n\n",
];
const TOKENS: usize = 64;

/// The CRC-32 of model files, bit by bit.
struct Crc(u32);

impl Default for Crc {
    fn default() -> Self {
        Self(!0)
    }
}

impl Crc {
    fn add(&mut self, bytes: [u8; 4]) {
        self.0 ^= u32::from_le_bytes(bytes);
        for _ in 0..32 {
            self.0 = self.0 >> 1 ^ (0xEDB8_8320 & (self.0 & 1).wrapping_neg());
        }
    }
}

/// Sets the floating-point unit against the library, which must not depend on it: subnormals flushed, NaNs lost,
/// rounding towards zero.
#[cfg(target_arch = "arm")]
fn be_hostile() {
    // SAFETY: no arithmetic of this program depends on it.
    unsafe { core::arch::asm!("vmsr fpscr, {}", in(reg) 0x03C0_0000_u32) }
}

#[cfg(not(target_arch = "arm"))]
fn be_hostile() {}

/// A line for each of the first prompts, and for each type of cache.
pub fn run(model: &Model, prompts: usize, out: &mut Out) -> Result<()> {
    let scheme = model.header().tensors.values().next().map_or("", |matrix| matrix.scheme.name());
    be_hostile();
    let tokenizer = model.tokenizer()?;
    for kv in [KvType::F16, KvType::Int8] {
        let options = SessionOptions { context: Some(128), kv, chunk: 16, ..Default::default() };
        let mut session = model.session(&options)?;
        for text in PROMPTS.iter().take(prompts) {
            session.reset();
            let (mut all, mut tokens) = (Crc::default(), Crc::default());
            let mut next = tokenizer.encode(text, Default::default())?;
            for _ in 0..TOKENS {
                let logits = session.evaluate(&next)?;
                logits.iter().for_each(|x| all.add(x.to_le_bytes()));
                let better =
                    |&a: &usize, &b: &usize| logits[a].total_cmp(&logits[b]).then(b.cmp(&a));
                let best = (0..logits.len()).max_by(better).unwrap_or_default() as u32;
                tokens.add(best.to_le_bytes());
                next = [best].into();
            }
            let (logits, tokens) = (!all.0, !tokens.0);
            let _ =
                writeln!(out, "{scheme} {kv:?} logits {logits:08x} tokens {tokens:08x} {text:?}");
        }
    }
    Ok(())
}
