//! Arguments that bytes choose: a fuzzer's, or random ones.

use cerebellum::generate::GenerateOptions;
use cerebellum::kernels::Isa;
use cerebellum::sampler::SamplerOptions;
use cerebellum::{KvType, LogitsFor, Model, SessionOptions};

/// Positions of a model that has no end of them.
pub const LONGEST: u8 = 60;

/// Bytes as a list of choices; when they run out, all choices are 0.
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// Those of these bytes.
    pub fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether they have run out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes that were not used.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// The next so many, as far as there are.
    pub fn part(&mut self, length: usize) -> Choices<'a> {
        let (part, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        Choices(part)
    }

    /// At most so many bytes as text.
    pub fn text(&mut self, most: u8) -> String {
        let length = self.below(most + 1);
        String::from_utf8_lossy(self.part(length).0).into_owned()
    }

    /// A byte.
    pub fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u8) -> usize {
        usize::from(self.byte() % end)
    }

    /// Yes or no.
    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Tokens, rarely one that does not exist.
    pub fn tokens(&mut self, most: u8, vocab_size: usize) -> Vec<u32> {
        let count = self.below(most + 1);
        let token =
            |byte: u8| if byte == 255 { u32::MAX } else { u32::from(byte) % (vocab_size as u32) };
        (0..count).map(|_| token(self.byte())).collect()
    }

    /// A session's options, most of them sound.
    pub fn options(&mut self, model: &Model) -> SessionOptions {
        let isas: Vec<Isa> = Isa::available().collect();
        SessionOptions {
            context: Some(model.config().max_context().min(self.below(LONGEST))),
            kv: if self.flag() { KvType::F16 } else { KvType::Int8 },
            threads: 1 + self.below(2),
            chunk: self.below(9),
            logits: if self.flag() { LogitsFor::All } else { LogitsFor::Last },
            draft: self.below(17),
            isa: Some(isas[self.below(isas.len() as u8)]),
        }
    }

    /// A sampler's options, any of which may be out of its range.
    pub fn sampler(&mut self) -> SamplerOptions {
        // Bounds, what is just past them, and what has gone wrong elsewhere.
        let number = |byte: u8| match byte {
            246 => 1e-45,
            247 => 0.01,
            248 => 1.0 - f32::EPSILON,
            249 => 5.0,
            250 => -5.0,
            251 => 100.0,
            252 => 100.1,
            253 => 1e38,
            254 => f32::INFINITY,
            255 => f32::NAN,
            _ => f32::from(byte) / 64.0,
        };
        SamplerOptions {
            temperature: number(self.byte()),
            top_k: self.below(30),
            top_p: number(self.byte()),
            min_p: number(self.byte()),
            repetition_penalty: number(self.byte()),
            repetition_window: self.below(70),
            logit_bias: vec![(u32::from(self.byte()) % 26, number(self.byte()) * 200.0)],
            seed: u64::from(self.byte()),
        }
    }

    /// Options of a generation.
    pub fn generation(&mut self) -> GenerateOptions {
        GenerateOptions {
            max_tokens: self.below(20),
            sampler: self.sampler(),
            ignore_end_of_text: self.flag(),
            ..Default::default()
        }
    }
}
