//! Two copies of a model on their way through a text, layer by layer.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use cerebellum::format::network::{Input, Role, TensorId};
use cerebellum::quant::hadamard;
use half::bf16;
use rayon::prelude::*;

use super::{Calibration, Moments};
use crate::checkpoint::Checkpoint;
use crate::reference::{
    Layer, Norm, Parallelism, Result, STREAM, Tensors, Value, add, squared_norm,
};
use crate::round::round;

/// Groups whose largest activation is smaller become zeros.
const MIN_ACTIVATION: f32 = f32::from_bits((127 - 100) << 23); // 2^-100

/// Tokens whose inputs to a matrix are in memory together, about.
const WAVE_TOKENS: usize = 4096;

/// The float model and the quantized one on their way through a text.
///
/// The quantized one begins each layer with the float weights. Its matrices are replaced one by one, each after
/// those that come before it on the way: what a matrix reads is what it will read in the file.
///
/// Matrix products of a window are computed by one thread: nothing depends on how many there are.
pub struct Walk<'a> {
    checkpoint: &'a Checkpoint,
    calibration: &'a Calibration,
    float: Walker,
    quantized: Walker,
    /// The current layer's matrices that were replaced.
    replaced: BTreeSet<TensorId>,
}

/// One of the two models.
struct Walker {
    layer: Option<(usize, Layer)>,
    /// Values of the current layer for the whole text that others follow from, (tokens, width).
    kept: BTreeMap<Value, Vec<f32>>,
    /// Group sizes by which inputs are rounded to int8.
    rounding: BTreeMap<Input, usize>,
}

impl<'a> Walk<'a> {
    /// Both models before the first layer, with the embedding as trained.
    ///
    /// # Errors
    /// If the checkpoint cannot be read.
    pub fn new(checkpoint: &'a Checkpoint, calibration: &'a Calibration) -> Result<Self> {
        let embedding = checkpoint.tensor(&TensorId::outside(Role::Embedding).name())?;
        let width = checkpoint.config().n_embd;
        let mut x = vec![0.0; calibration.tokens().len() * width];
        for (row, &token) in x.chunks_mut(width).zip(calibration.tokens()) {
            let token = token as usize;
            embedding.read_rows_into(token..token + 1, row)?;
        }
        let x = embed(checkpoint, calibration, x)?;
        let (float, quantized) = (Walker::new(x.clone()), Walker::new(x));
        Ok(Self { checkpoint, calibration, float, quantized, replaced: BTreeSet::new() })
    }

    /// Gives the quantized model its embedding: `rows(token)` is the token's row as the file will have
    /// it, `[n_embd]`.
    ///
    /// # Errors
    /// If the checkpoint cannot be read.
    ///
    /// # Panics
    /// After `enter`.
    pub fn set_embedding<'r>(&mut self, rows: impl Fn(u32) -> &'r [f32]) -> Result<()> {
        assert!(self.quantized.layer.is_none(), "the embedding comes before all layers");
        let x = self.calibration.tokens().iter().flat_map(|&token| rows(token)).copied().collect();
        self.quantized = Walker::new(embed(self.checkpoint, self.calibration, x)?);
        Ok(())
    }

    /// Goes on to a layer.
    ///
    /// # Errors
    /// If the checkpoint cannot be read.
    pub(crate) fn enter(&mut self, index: usize) -> Result<()> {
        self.finish_layer();
        let layer = Layer::load(self.checkpoint, index)?;
        self.quantized.layer = Some((index, layer.clone()));
        self.float.layer = Some((index, layer));
        Ok(())
    }

    /// The current layer's index.
    pub fn layer(&self) -> Option<usize> {
        self.float.layer.as_ref().map(|(index, _)| *index)
    }

    /// Of each matrix of the layer that was just entered, the mean of `g gᵀ` over directions `g`, gradients of
    /// the predictions by the float model's outputs of the matrix over their norms: `[n_out, n_out]`. `by_stream`
    /// are the gradients after the layer, of so many windows of the text as [`Calibration::part`] spreads.
    ///
    /// A few tokens have most of the gradients' squares. As directions all count alike, and fewer tokens tell as
    /// much.
    pub(crate) fn output_moments(&self, by_stream: &[bf16]) -> BTreeMap<TensorId, Vec<f64>> {
        let (layer, text) = (self.float.layer(), self.calibration);
        let window = text.window() * self.checkpoint.config().n_embd;
        let gradients: Vec<&[bf16]> = by_stream.chunks(window).collect();
        let streams = text.spread(gradients.len()).map(|i| &self.float.kept[&STREAM][i * window..]);
        let work: Vec<_> = streams.zip(gradients).collect();
        let mut moments: BTreeMap<TensorId, Moments> = BTreeMap::new();
        for wave in work.chunks(WAVE_TOKENS.div_ceil(text.window())) {
            let directions = wave.par_iter().map(|(x, by_stream)| {
                let by_stream = by_stream.iter().map(|g| g.to_f32()).collect();
                let mut found = Vec::new();
                layer.backward(&x[..window], by_stream, &mut |id, _, gradients| {
                    found.push((id, directions(gradients, text.window())));
                });
                found
            });
            for (id, directions) in directions.collect::<Vec<_>>().into_iter().flatten() {
                let width = directions.len() / text.window();
                moments.entry(id).or_insert_with(|| Moments::alone(width)).add_alone(&directions);
            }
        }
        moments.into_iter().map(|(id, moments)| (id, moments.second())).collect()
    }

    /// Takes both models to the end of the current layer, if there is one.
    fn finish_layer(&mut self) {
        if let Some((_, layer)) = &self.quantized.layer {
            self.check(layer.output());
        }
        self.float.finish_layer(self.calibration);
        self.quantized.finish_layer(self.calibration);
        self.replaced.clear();
    }

    /// Takes only the float model through all layers: the moments of what its head reads, rounded in
    /// groups of `group_size`.
    ///
    /// # Errors
    /// If the checkpoint cannot be read.
    pub fn float_head_moments(&self, group_size: usize) -> Result<Moments> {
        let mut walker = Walker::new(self.float.kept[&STREAM].clone());
        for index in 0..self.checkpoint.config().n_layer {
            walker.layer = Some((index, Layer::load(self.checkpoint, index)?));
            walker.finish_layer(self.calibration);
        }
        self.head_moments_of(&walker, &walker, group_size)
    }

    /// The moments of what the head reads after the last layer.
    ///
    /// # Errors
    /// If the checkpoint cannot be read.
    pub fn head_moments(&mut self, group_size: usize) -> Result<Moments> {
        self.finish_layer();
        self.head_moments_of(&self.float, &self.quantized, group_size)
    }

    fn head_moments_of(&self, x: &Walker, y: &Walker, group_size: usize) -> Result<Moments> {
        let tensors = Tensors::new(self.checkpoint);
        let norm = Norm::load(&tensors, TensorId::outside(Role::FinalNorm))?;
        let width = norm.width();
        let mut moments = Moments::new(width);
        for wave in waves(self.calibration) {
            let rows = wave.start * width..wave.end * width;
            let mut float = norm.forward(&x.kept[&STREAM][rows.clone()], Parallelism::Rayon);
            let mut other = norm.forward(&y.kept[&STREAM][rows], Parallelism::Rayon);
            round_activations(&mut other, width, group_size);
            moments.add(&mut float, &other);
        }
        Ok(moments)
    }

    /// The moments of what the current layer's matrices read; the quantized model's inputs are rounded in
    /// groups of `group_size`.
    ///
    /// # Panics
    /// If a matrix that comes before was not replaced.
    pub fn moments(&mut self, input: Input, group_size: usize) -> Moments {
        self.quantized.rounding.insert(input, group_size);
        let value = self.quantized.layer().input(input);
        self.check(value);
        let text = self.calibration;
        self.float.keep_for(value, text);
        self.quantized.keep_for(value, text);
        let mut moments: Option<Moments> = None;
        for wave in waves(text) {
            let tokens = wave.len();
            let mut x = self.float.rows(value, wave.clone(), text);
            let y = self.quantized.rows(value, wave, text);
            let moments = moments.get_or_insert_with(|| Moments::new(x.len() / tokens));
            moments.add(&mut x, &y);
        }
        moments.expect("a text has a window")
    }

    /// Replaces a matrix of the quantized model's current layer: `weights(weight, bias)` gets the trained
    /// ones, and returns those of the file.
    ///
    /// # Panics
    /// Before [`enter`](Self::enter).
    pub(crate) fn replace(
        &mut self,
        id: TensorId,
        weights: impl FnOnce(&[f32], Option<&mut Vec<f32>>) -> Vec<f32>,
    ) {
        let (_, layer) = self.quantized.layer.as_mut().expect("a layer was entered");
        let linear = layer.linear_mut(id);
        linear.weight = weights(&linear.weight, linear.bias.as_mut());
        self.replaced.insert(id);
    }

    /// Checks that all matrices on the way to a value of the quantized model were replaced.
    fn check(&self, value: Value) {
        let layer = self.quantized.layer();
        let missing = layer.missing(|value| self.quantized.kept.contains_key(&value), value);
        for linear in (0..missing.len()).filter(|&v| missing[v]).filter_map(|v| layer.linear_of(v))
        {
            let id = linear.id;
            assert!(self.replaced.contains(&id), "{id:?} comes after what follows from it");
        }
    }
}

impl Walker {
    /// Before the first layer.
    fn new(x: Vec<f32>) -> Self {
        Self { layer: None, kept: BTreeMap::from([(STREAM, x)]), rounding: BTreeMap::new() }
    }

    fn layer(&self) -> &Layer {
        &self.layer.as_ref().expect("a layer was entered").1
    }

    /// Goes to the end of the current layer, if there is one.
    fn finish_layer(&mut self, text: &Calibration) {
        let Some((_, layer)) = &self.layer else { return };
        let output = layer.output();
        self.keep_for(output, text);
        let x = self.kept.remove(&output).expect("was kept");
        *self = Self::new(x);
    }

    /// Makes, and keeps, the values worth keeping that `value` follows from, and itself if it is one. Forgets
    /// those of which nothing more will be made.
    fn keep_for(&mut self, value: Value, text: &Calibration) {
        let layer = self.layer();
        let missing = layer.missing(|value| self.kept.contains_key(&value), value);
        let wanted = (0..missing.len()).filter(|&v| missing[v] && layer.is_worth_keeping(v));
        for value in wanted.collect::<Vec<_>>() {
            let mut rows = Vec::new();
            for wave in waves(text) {
                let tokens = wave.len();
                let of_wave = self.rows(value, wave, text);
                rows.reserve_exact(of_wave.len() / tokens * text.tokens().len() - rows.len());
                rows.extend(of_wave);
            }
            self.kept.insert(value, rows);
            let layer = self.layer();
            let missing = layer.missing(|value| self.kept.contains_key(&value), layer.output());
            let to_come = (0..missing.len()).filter(|&v| missing[v]);
            let mut needed: BTreeSet<Value> =
                to_come.flat_map(|v| layer.reads(v)).copied().collect();
            needed.insert(layer.output());
            self.kept.retain(|value, _| needed.contains(value));
        }
    }

    /// A value of the tokens `wave`, (tokens, width), out of those that are kept.
    fn rows(&self, value: Value, wave: Range<usize>, text: &Calibration) -> Vec<f32> {
        let windows = windows(wave, text).into_par_iter();
        windows.map(|window| self.evaluate(value, window, text)).collect::<Vec<_>>().concat()
    }

    /// The same of one window, on the calling thread.
    fn evaluate(&self, value: Value, window: Range<usize>, text: &Calibration) -> Vec<f32> {
        let tokens = text.tokens().len();
        let kept = self.kept.iter().map(|(&value, rows)| {
            let width = rows.len() / tokens;
            (value, &rows[window.start * width..window.end * width])
        });
        let kept: Vec<_> = kept.collect();
        self.layer().evaluate(&kept, value, Parallelism::Serial, &mut |at, h| {
            if let Some(&group_size) = self.rounding.get(&at.input) {
                round_activations(h, h.len() / window.len(), group_size);
            }
        })
    }
}

/// Vectors of `tokens` rows over their norms; zeros stay.
fn directions(vectors: &[f32], tokens: usize) -> Vec<f32> {
    let mut directions = vectors.to_vec();
    for row in directions.chunks_mut(vectors.len() / tokens) {
        let norm = squared_norm(row).sqrt();
        if norm > 0.0 {
            row.iter_mut().for_each(|g| *g = (f64::from(*g) / norm) as f32);
        }
    }
    directions
}

/// Adds positions to embeddings of the text's tokens, and scales them.
fn embed(checkpoint: &Checkpoint, text: &Calibration, mut x: Vec<f32>) -> Result<Vec<f32>> {
    let config = checkpoint.config();
    if let Some(table) = Tensors::new(checkpoint).find(TensorId::outside(Role::Positions))? {
        x.chunks_mut(text.window() * config.n_embd).for_each(|x| add(x, &table));
    }
    x.iter_mut().for_each(|x| *x *= config.embeddings_scale);
    Ok(x)
}

/// The text's tokens in waves of whole windows.
fn waves(text: &Calibration) -> impl Iterator<Item = Range<usize>> + use<> {
    let (tokens, window) = (text.tokens().len(), text.window());
    let wave = (WAVE_TOKENS / window).max(1) * window;
    (0..tokens).step_by(wave).map(move |start| start..tokens.min(start + wave))
}

/// The windows of some of the text's tokens.
fn windows(tokens: Range<usize>, text: &Calibration) -> Vec<Range<usize>> {
    tokens.step_by(text.window()).map(|start| start..start + text.window()).collect()
}

/// Rounds rows of activations, `[tokens, width]`, to int8 and back, as `docs/numbers.md` section 3 does.
pub(crate) fn round_activations(h: &mut [f32], width: usize, group_size: usize) {
    for row in h.chunks_mut(width) {
        hadamard(row);
        for group in row.chunks_mut(group_size) {
            let max = group.iter().fold(0.0, |max: f32, x| max.max(x.abs()));
            if max < MIN_ACTIVATION {
                group.fill(0.0);
                continue;
            }
            let (scale, inverse) = (max / 127.0, 127.0 / max);
            group.iter_mut().for_each(|x| *x = round(*x * inverse) * scale);
        }
        hadamard(row);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::random::SplitMix;
    use crate::reference::Reference;

    const IN_ORDER: [Role; 5] =
        [Role::AttentionIn, Role::AttentionOut, Role::MlpUp, Role::MlpGate, Role::MlpDown];
    const GATE_FIRST: [Role; 5] =
        [Role::AttentionIn, Role::AttentionOut, Role::MlpGate, Role::MlpUp, Role::MlpDown];
    const MLP_FIRST: [Role; 5] =
        [Role::MlpUp, Role::MlpGate, Role::MlpDown, Role::AttentionIn, Role::AttentionOut];

    fn checkpoint(case: &str) -> Checkpoint {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data");
        Checkpoint::open(&data.join(case)).unwrap()
    }

    fn text(checkpoint: &Checkpoint) -> Calibration {
        let (config, mut random) = (checkpoint.config(), SplitMix(7));
        let mut token = || random.below(config.vocab_size) as u32;
        let tokens: Vec<u32> = (0..3 * config.n_positions).map(|_| token()).collect();
        Calibration::new(&tokens, 3, config).unwrap()
    }

    /// Asserts that the mean inputs of all matrices in layers, and of the head, are those of the reference, when
    /// the matrices of each layer are met in the order of `roles`.
    fn compare(case: &str, roles: &[Role]) {
        let checkpoint = checkpoint(case);
        let (config, text) = (checkpoint.config(), text(&checkpoint));
        let mut expected: BTreeMap<TensorId, Vec<f64>> = BTreeMap::new();
        let reference = Reference::load(&checkpoint).unwrap();
        for window in text.tokens().chunks(text.window()) {
            let mut observe = |matrix: TensorId, h: &[f32]| {
                let width = h.len() / window.len();
                let sums = expected.entry(matrix).or_insert_with(|| vec![0.0; width]);
                for row in h.chunks(width) {
                    sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
                }
            };
            reference.logits_observed(window, &mut observe).unwrap();
        }
        let check = |matrix: TensorId, moments: &Moments| {
            let tokens = text.tokens().len() as f64;
            let expected: Vec<f64> = expected[&matrix].iter().map(|sum| sum / tokens).collect();
            let size = expected.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
            let [found, _] = moments.means();
            let pairs = expected.iter().zip(&found);
            let worst = pairs.fold(0.0, |max: f64, (a, b)| max.max((a - b).abs()));
            assert!(worst < 1e-5 * size, "{case} {matrix:?}: {worst:e} of {size}");
        };
        let mut walk = Walk::new(&checkpoint, &text).unwrap();
        for layer in 0..config.n_layer {
            walk.enter(layer).unwrap();
            let matrices = roles.iter().map(|&role| TensorId::in_layer(layer, role));
            for matrix in matrices.filter(|matrix| expected.contains_key(matrix)) {
                check(matrix, &walk.moments(matrix.role.reads().unwrap(), 32));
                walk.replace(matrix, |trained, _| trained.to_vec());
            }
        }
        check(checkpoint.head(), &walk.head_moments(32).unwrap());
    }

    #[test]
    fn matrices_read_what_they_read_in_the_reference() {
        for case in ["golden/btlm-6-heads", "golden-modern/gemma3-text"] {
            compare(case, &IN_ORDER);
            compare(case, &GATE_FIRST);
        }
        compare("golden-modern/olmo2-post-norm", &IN_ORDER);
        for order in [&IN_ORDER, &MLP_FIRST] {
            compare("golden-modern/gpt-neox-parallel", order);
        }
    }

    #[test]
    #[should_panic(expected = "comes after what follows from it")]
    fn what_follows_from_a_matrix_waits_for_it() {
        compare("golden/btlm-6-heads", &MLP_FIRST);
    }
}
