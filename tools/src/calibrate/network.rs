//! Two copies of a model on their way through a text, layer by layer.

use std::ops::Range;

use cerebellum::format::Positions;
use cerebellum::format::network::{Input, Role, TensorId};
use rayon::prelude::*;

use super::{Calibration, Moments};
use crate::checkpoint::Checkpoint;
use crate::quantize::scale::round;
use crate::reference::layers::{LayerNorm, Linear, add};
use crate::reference::{Block, Parallelism, Result};

/// Groups whose largest activation is smaller become zeros.
const MIN_ACTIVATION: f32 = f32::from_bits((127 - 100) << 23); // 2^-100

/// Tokens whose inputs to a matrix are in memory together, about.
const WAVE_TOKENS: usize = 4096;

/// The places in a layer where matrices read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// `c_attn` reads the first layer norm's output.
    AttentionIn,
    /// `attn.c_proj` reads what the heads gathered.
    AttentionOut,
    /// `c_fc`, and the gate if there is one, read the second layer norm's output.
    MlpIn,
    /// `mlp.c_proj` reads the hidden units.
    MlpOut,
}

impl Stage {
    /// All stages, as a token passes them.
    pub const ALL: [Self; 4] = [Self::AttentionIn, Self::AttentionOut, Self::MlpIn, Self::MlpOut];

    /// The layer of a matrix in a layer, and where it reads.
    pub fn of(matrix: TensorId) -> Option<(usize, Self)> {
        let stage = match matrix.role.reads()? {
            Input::AttentionNorm => Self::AttentionIn,
            Input::Heads => Self::AttentionOut,
            Input::MlpNorm => Self::MlpIn,
            Input::Hidden => Self::MlpOut,
            _ => return None,
        };
        Some((matrix.layer?, stage))
    }
}

/// The activations at a layer's beginning of the float model and of the quantized one, and the two
/// models' current layer.
///
/// Matrix products of a window are computed by one thread: nothing depends on how many there are.
pub struct Network<'a> {
    checkpoint: &'a Checkpoint,
    calibration: &'a Calibration,
    float: Stream,
    quantized: Stream,
}

/// One of the two models.
struct Stream {
    /// The residual stream, (tokens, n_embd).
    x: Vec<f32>,
    /// What the heads gathered, (tokens, n_embd); empty before they did.
    gathered: Vec<f32>,
    block: Option<Block>,
    /// Group sizes by which a stage's input is rounded to int8.
    rounding: [Option<usize>; 4],
}

impl<'a> Network<'a> {
    /// Both models before the first layer, with the embedding as trained.
    ///
    /// # Errors
    /// If the checkpoint cannot be read.
    pub fn new(checkpoint: &'a Checkpoint, calibration: &'a Calibration) -> Result<Self> {
        let wte = checkpoint.tensor(&TensorId::outside(Role::Embedding).name())?;
        let width = checkpoint.config().n_embd;
        let mut x = vec![0.0; calibration.tokens().len() * width];
        for (row, &token) in x.chunks_mut(width).zip(calibration.tokens()) {
            let token = token as usize;
            wte.read_rows_into(token..token + 1, row)?;
        }
        let mut network = Self {
            checkpoint,
            calibration,
            float: Stream::new(Vec::new()),
            quantized: Stream::new(Vec::new()),
        };
        network.quantized.x = network.embed(x.clone())?;
        network.float.x = network.embed(x)?;
        Ok(network)
    }

    /// Gives the quantized model its embedding: `rows(token)` is the token's row as the file will have
    /// it, `[n_embd]`.
    ///
    /// # Errors
    /// If the checkpoint cannot be read.
    pub fn set_embedding<'r>(&mut self, rows: impl Fn(u32) -> &'r [f32]) -> Result<()> {
        let x = self.calibration.tokens().iter().flat_map(|&token| rows(token)).copied().collect();
        self.quantized.x = self.embed(x)?;
        Ok(())
    }

    /// Adds positions to embeddings, and scales them.
    fn embed(&self, mut x: Vec<f32>) -> Result<Vec<f32>> {
        let config = self.checkpoint.config();
        if config.positions == Positions::Learned {
            let wpe = self.checkpoint.read_f32(&TensorId::outside(Role::Positions).name())?;
            x.chunks_mut(self.calibration.window() * config.n_embd).for_each(|x| add(x, &wpe));
        }
        x.iter_mut().for_each(|x| *x *= config.embeddings_scale);
        Ok(x)
    }

    /// Loads a layer, as `prepare` changes it. The quantized model begins with the float weights.
    ///
    /// # Errors
    /// If the checkpoint cannot be read.
    pub(crate) fn enter(&mut self, layer: usize, prepare: impl FnOnce(&mut Block)) -> Result<()> {
        let mut block = Block::load(self.checkpoint, layer)?;
        prepare(&mut block);
        self.quantized.block = Some(block.clone());
        self.float.block = Some(block);
        self.quantized.rounding = [None; 4];
        Ok(())
    }

    /// Takes only the float model through all layers: the moments of what its head reads, rounded in
    /// groups of `group_size`.
    ///
    /// # Errors
    /// If the checkpoint cannot be read.
    pub fn float_head_moments(&self, group_size: usize) -> Result<Moments> {
        let mut stream = Stream::new(self.float.x.clone());
        for layer in 0..self.checkpoint.config().n_layer {
            stream.block = Some(Block::load(self.checkpoint, layer)?);
            Stage::ALL.iter().for_each(|&stage| self.advance_stream(&mut stream, stage));
        }
        self.head_moments_of(&stream, &stream, group_size)
    }

    /// Takes only the float model through all layers: `visit` sees each layer's number, one of its two
    /// norms by who reads it, the norm's output (tokens, n_embd), and the layer.
    ///
    /// # Errors
    /// If the checkpoint cannot be read.
    pub(crate) fn visit_norms(
        &self,
        mut visit: impl FnMut(usize, Stage, &[f32], &Block),
    ) -> Result<()> {
        let mut stream = Stream::new(self.float.x.clone());
        for layer in 0..self.checkpoint.config().n_layer {
            stream.block = Some(Block::load(self.checkpoint, layer)?);
            for stage in Stage::ALL {
                if matches!(stage, Stage::AttentionIn | Stage::MlpIn) {
                    let tokens = 0..self.calibration.tokens().len();
                    visit(layer, stage, &self.inputs(&stream, stage, tokens), stream.block());
                }
                self.advance_stream(&mut stream, stage);
            }
        }
        Ok(())
    }

    /// The moments of what the head reads after the last layer.
    ///
    /// # Errors
    /// If the checkpoint cannot be read.
    pub fn head_moments(&self, group_size: usize) -> Result<Moments> {
        self.head_moments_of(&self.float, &self.quantized, group_size)
    }

    fn head_moments_of(&self, x: &Stream, y: &Stream, group_size: usize) -> Result<Moments> {
        let ln_f = LayerNorm::load(self.checkpoint, TensorId::outside(Role::FinalNorm))?;
        let width = self.checkpoint.config().n_embd;
        let mut moments = Moments::new(width);
        for wave in self.waves() {
            let rows = wave.start * width..wave.end * width;
            let mut float = ln_f.forward(&x.x[rows.clone()], Parallelism::Rayon);
            let mut other = ln_f.forward(&y.x[rows], Parallelism::Rayon);
            round_activations(&mut other, width, group_size);
            moments.add(&mut float, &other);
        }
        Ok(moments)
    }

    /// The moments of what the current layer's matrices read at `stage`; the quantized model's inputs
    /// are rounded in groups of `group_size`.
    pub fn moments(&mut self, stage: Stage, group_size: usize) -> Moments {
        self.quantized.rounding[stage as usize] = Some(group_size);
        if stage == Stage::AttentionOut {
            self.float.gathered = self.gather(&self.float);
            self.quantized.gathered = self.gather(&self.quantized);
        }
        let config = self.checkpoint.config();
        let width = if stage == Stage::MlpOut { config.mlp.inner } else { config.n_embd };
        let mut moments = Moments::new(width);
        for wave in self.waves() {
            let mut x = self.inputs(&self.float, stage, wave.clone());
            moments.add(&mut x, &self.inputs(&self.quantized, stage, wave));
        }
        moments
    }

    /// The quantized model's current layer, to replace its weights.
    ///
    /// # Panics
    /// Before [`enter`](Self::enter).
    pub(crate) fn linear(&mut self, id: TensorId) -> &mut Linear {
        self.quantized.block.as_mut().expect("a layer was entered").linear_mut(id)
    }

    /// Goes on behind the matrices that read at `stage`.
    pub fn advance(&mut self, stage: Stage) {
        let (mut float, mut quantized) = (self.float.take(), self.quantized.take());
        self.advance_stream(&mut float, stage);
        self.advance_stream(&mut quantized, stage);
        (self.float, self.quantized) = (float, quantized);
    }

    /// Only the two projections, whose outputs end in the residual stream, change anything.
    fn advance_stream(&self, stream: &mut Stream, stage: Stage) {
        let width = self.checkpoint.config().n_embd;
        let size = self.calibration.window() * width;
        if stage == Stage::AttentionOut && stream.gathered.is_empty() {
            stream.gathered = self.gather(stream);
        }
        let mut x = std::mem::take(&mut stream.x);
        match stage {
            Stage::AttentionIn | Stage::MlpIn => (),
            Stage::AttentionOut => {
                let mut gathered = std::mem::take(&mut stream.gathered);
                let windows = x.par_chunks_mut(size).zip(gathered.par_chunks_mut(size));
                windows.for_each(|(x, h)| {
                    stream.round(h, width, stage);
                    add(x, &stream.block().attn_proj.forward(h, Parallelism::Serial));
                });
            }
            Stage::MlpOut => x.par_chunks_mut(size).for_each(|x| {
                let h = self.hidden(stream, x);
                add(x, &stream.block().mlp_proj.forward(&h, Parallelism::Serial));
            }),
        }
        stream.x = x;
    }

    /// The inputs of the tokens `wave` at `stage`, (tokens, n_embd or n_inner).
    fn inputs(&self, stream: &Stream, stage: Stage, wave: Range<usize>) -> Vec<f32> {
        let (window, width) = (self.calibration.window(), self.checkpoint.config().n_embd);
        let rows = wave.start * width..wave.end * width;
        let windows = stream.x[rows.clone()].par_chunks(window * width);
        let windows: Vec<Vec<f32>> = match stage {
            Stage::AttentionIn => windows.map(|x| self.attention_in(stream, x)).collect(),
            Stage::AttentionOut => {
                let mut h = stream.gathered[rows].to_vec();
                stream.round(&mut h, width, stage);
                vec![h]
            }
            Stage::MlpIn => windows.map(|x| self.mlp_in(stream, x)).collect(),
            Stage::MlpOut => windows.map(|x| self.hidden(stream, x)).collect(),
        };
        windows.concat()
    }

    fn attention_in(&self, stream: &Stream, x: &[f32]) -> Vec<f32> {
        let mut h = stream.block().ln_1.forward(x, Parallelism::Serial);
        stream.round(&mut h, self.checkpoint.config().n_embd, Stage::AttentionIn);
        h
    }

    fn mlp_in(&self, stream: &Stream, x: &[f32]) -> Vec<f32> {
        let mut h = stream.block().ln_2.forward(x, Parallelism::Serial);
        stream.round(&mut h, self.checkpoint.config().n_embd, Stage::MlpIn);
        h
    }

    fn hidden(&self, stream: &Stream, x: &[f32]) -> Vec<f32> {
        let config = self.checkpoint.config();
        let h = self.mlp_in(stream, x);
        let mut h = stream.block().hidden(&h, config, Parallelism::Serial);
        stream.round(&mut h, config.mlp.inner, Stage::MlpOut);
        h
    }

    /// What the heads gather over the whole text, (tokens, n_embd).
    fn gather(&self, stream: &Stream) -> Vec<f32> {
        let config = self.checkpoint.config();
        let mut out = vec![0.0; stream.x.len()];
        let size = self.calibration.window() * config.n_embd;
        out.par_chunks_mut(size).zip(stream.x.par_chunks(size)).for_each(|(out, x)| {
            let h = self.attention_in(stream, x);
            out.copy_from_slice(&stream.block().attend(&h, Parallelism::Serial));
        });
        out
    }

    /// The text's tokens in waves of whole windows.
    fn waves(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (tokens, window) = (self.calibration.tokens().len(), self.calibration.window());
        let wave = (WAVE_TOKENS / window).max(1) * window;
        (0..tokens).step_by(wave).map(move |start| start..tokens.min(start + wave))
    }
}

impl Stream {
    fn new(x: Vec<f32>) -> Self {
        Self { x, gathered: Vec::new(), block: None, rounding: [None; 4] }
    }

    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::new(Vec::new()))
    }

    fn block(&self) -> &Block {
        self.block.as_ref().expect("a layer was entered")
    }

    fn round(&self, h: &mut [f32], width: usize, stage: Stage) {
        if let Some(group_size) = self.rounding[stage as usize] {
            round_activations(h, width, group_size);
        }
    }
}

/// Rounds rows of activations, `[tokens, width]`, to int8 and back, as `docs/numbers.md` section 3 does.
pub(crate) fn round_activations(h: &mut [f32], width: usize, group_size: usize) {
    for group in h.chunks_mut(width).flat_map(|row| row.chunks_mut(group_size)) {
        let max = group.iter().fold(0.0, |max: f32, x| max.max(x.abs()));
        if max < MIN_ACTIVATION {
            group.fill(0.0);
            continue;
        }
        let (scale, inverse) = (max / 127.0, 127.0 / max);
        group.iter_mut().for_each(|x| *x = round(*x * inverse) * scale);
    }
}
