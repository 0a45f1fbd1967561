//! Scales that move from what a norm puts out into the matrices that read it.
//!
//! A row of activations shares one int8 scale with the largest of its group, so a channel that is always
//! large takes the precision of all others. Dividing the norm's weight, and bias if it has one, by `s` for
//! each channel and multiplying the matrices' columns by it leaves the product as it is and evens the
//! channels out (SmoothQuant, Xiao et al., 2023, arXiv 2211.10438). Scales are powers of two, so that nothing
//! is rounded. It pays for int8 only: with int4 it is the weights that need their precision. Where matrices
//! read the residual stream itself nothing is folded: a norm after a block is no norm before the next matrix.
//!
//! With a text, scales minimize the expected error of the product, by coordinate descent; see
//! [`Channels::descend`]. Without one, they are the channels' magnitudes as far as weights tell
//! ([`magnitudes`]).

use std::collections::BTreeMap;

use cerebellum::format::network::{self, Part, Role, TensorId};
use cerebellum::format::{Config, Header, MatrixInfo, ResidualOrder};
use cerebellum::quant::Scheme;
use rayon::prelude::*;

use super::error::Result;
use crate::calibrate::{Calibration, Walk};
use crate::checkpoint::{Checkpoint, Tensor};
use crate::reference::{InputAt, Layer, Tensors, readers};

/// Windows of the text that scales are chosen by: a channel is large everywhere or nowhere.
const WINDOWS: usize = 4;
/// Tokens, and rows of a matrix, that are looked at, about: maxima over groups settle with few.
const SAMPLES: usize = 512;
/// Scales are at most `2^MAX_EXPONENT`, and at least its inverse.
const MAX_EXPONENT: i32 = 6;
const MAX_SWEEPS: usize = 4;

/// Mean square of what a projection reads, whose outputs grow the residual stream: between those of the
/// heads' outputs and of the hidden units in trained models, which lie from 0.001 to 0.1.
const PROJECTION_INPUT: f64 = 0.02;
/// Rows of a table that are summed up together.
const CHUNK_ROWS: usize = 256;

/// The scales of each folded norm's channels, by the norm's weight.
#[derive(Default)]
pub struct Folding(BTreeMap<TensorId, Vec<f32>>);

/// The norms to be folded: by what matrices read of each, the norm's weight and the readers' group size.
type Norms = BTreeMap<InputAt, (TensorId, usize)>;

impl Folding {
    /// Chooses scales for the norms whose readers are all int8; by `text`, if there is one.
    pub fn choose(
        checkpoint: &Checkpoint,
        text: Option<&Calibration>,
        matrices: &BTreeMap<String, MatrixInfo>,
    ) -> Result<Self> {
        let norms = norms(matrices, checkpoint.config());
        if norms.is_empty() {
            return Ok(Self::default());
        }
        match text {
            Some(text) => Self::of_text(checkpoint, &text.part(WINDOWS), &norms),
            None => Self::of_weights(checkpoint, &norms),
        }
    }

    fn of_text(checkpoint: &Checkpoint, text: &Calibration, norms: &Norms) -> Result<Self> {
        let mut folding = Self::default();
        let walk = Walk::new(checkpoint, text)?;
        walk.visit_norms(|at, outputs, layer| {
            if let Some((norm, group_size)) = norms.get(&at) {
                folding.0.insert(*norm, scales_of_text(outputs, layer, at, *group_size));
            }
        })?;
        Ok(folding)
    }

    fn of_weights(checkpoint: &Checkpoint, norms: &Norms) -> Result<Self> {
        let mut folding = Self::default();
        let vectors = Tensors::new(checkpoint);
        let mut stream = embedding_variances(checkpoint)?;
        for layer in 0..checkpoint.config().n_layer {
            let id = |role| TensorId::in_layer(layer, role);
            let mut fold = |role, stream: &[f64]| -> Result<()> {
                let norm = norms.values().map(|(norm, _)| *norm).find(|norm| *norm == id(role));
                if let Some(norm) = norm {
                    let scales = powers_of_two(&magnitudes(&vectors, norm, stream)?);
                    folding.0.insert(norm, scales);
                }
                Ok(())
            };
            let branch = |role, norm| branch_variances(checkpoint, &vectors, id(role), id(norm));
            fold(Role::AttentionNorm, &stream)?;
            if checkpoint.config().residual.order == ResidualOrder::Parallel {
                fold(Role::MlpNorm, &stream)?;
            }
            add(&mut stream, &branch(Role::AttentionOut, Role::AttentionOutNorm)?);
            if checkpoint.config().residual.order == ResidualOrder::Sequential {
                fold(Role::MlpNorm, &stream)?;
            }
            add(&mut stream, &branch(Role::MlpDown, Role::MlpOutNorm)?);
        }
        Ok(folding)
    }

    /// What the columns of the matrix `id` are multiplied by, if by anything.
    pub fn of_matrix(&self, id: TensorId) -> Option<&[f32]> {
        let norm = TensorId { layer: id.layer, ..TensorId::outside(id.role.reads()?.norm()?) };
        self.0.get(&norm).map(Vec::as_slice)
    }

    /// Divides the vector `id` if it is a folded norm's.
    pub fn fold_vector(&self, id: TensorId, values: &mut [f32]) {
        if let Some(scales) = self.0.get(&TensorId { part: Part::Weight, ..id }) {
            values.iter_mut().zip(scales).for_each(|(value, scale)| *value /= scale);
        }
    }

    /// Folds a layer in float32.
    pub fn fold_layer(&self, index: usize, layer: &mut Layer) {
        for input in layer.normed_inputs() {
            let norm = InputAt { layer: Some(index), input }.norm();
            let Some(scales) = norm.and_then(|norm| self.0.get(&norm)) else { continue };
            layer.norm_mut(input).expect("its input is normed").divide(scales);
            for linear in layer.readers_mut(input) {
                multiply_columns(&mut linear.weight, scales);
            }
        }
    }

    /// The checkpoint's tensor, with its columns multiplied as they will be.
    pub fn source<'a>(&'a self, id: TensorId, tensor: Tensor<'a>) -> Source<'a> {
        let scales = self.of_matrix(id);
        Source { tensor, scales }
    }
}

/// A matrix of a checkpoint as it is quantized.
pub struct Source<'a> {
    tensor: Tensor<'a>,
    scales: Option<&'a [f32]>,
}

impl Source<'_> {
    pub fn name(&self) -> &str {
        self.tensor.name()
    }

    pub fn rows(&self) -> usize {
        self.tensor.rows()
    }

    pub fn columns(&self) -> usize {
        self.tensor.columns()
    }

    /// As [`Tensor::read_rows_into`].
    pub fn read_rows_into(&self, rows: std::ops::Range<usize>, values: &mut [f32]) -> Result<()> {
        self.tensor.read_rows_into(rows, values)?;
        if let Some(scales) = self.scales {
            multiply_columns(values, scales);
        }
        Ok(())
    }
}

/// Multiplies each row of `[rows, columns]`, element by element.
pub fn multiply_columns(rows: &mut [f32], scales: &[f32]) {
    for row in rows.chunks_mut(scales.len()) {
        row.iter_mut().zip(scales).for_each(|(value, scale)| *value *= scale);
    }
}

/// Undoes [`multiply_columns`], exactly.
pub fn divide_columns(rows: &mut [f32], scales: &[f32]) {
    for row in rows.chunks_mut(scales.len()) {
        row.iter_mut().zip(scales).for_each(|(value, scale)| *value /= scale);
    }
}

/// Whether any norm of a file with this header is folded.
pub fn applies(header: &Header) -> bool {
    !norms(&header.tensors, &header.config).is_empty()
}

/// The norms in layers whose readers are all int8.
fn norms(matrices: &BTreeMap<String, MatrixInfo>, config: &Config) -> Norms {
    let tensors: Vec<_> = network::tensors(config).into_iter().map(|tensor| tensor.id).collect();
    let fold = |(at, readers): (InputAt, Vec<TensorId>)| {
        let norm = at.norm().filter(|norm| at.layer.is_some() && tensors.contains(norm))?;
        let infos: Vec<_> = readers.iter().map(|matrix| &matrices[&matrix.name()]).collect();
        let is_int8 = infos.iter().all(|info| info.scheme == Scheme::Int8);
        is_int8.then(|| (at, (norm, infos[0].group_size)))
    };
    readers(config).into_iter().filter_map(fold).collect()
}

/// Mean squares of the residual stream's channels before the first layer.
fn embedding_variances(checkpoint: &Checkpoint) -> Result<Vec<f64>> {
    let config = checkpoint.config();
    let table = |role| checkpoint.tensor(&TensorId::outside(role).name());
    let mut variances = mean_squares(&table(Role::Embedding)?)?;
    if Tensors::new(checkpoint).has(TensorId::outside(Role::Positions)) {
        add(&mut variances, &mean_squares(&table(Role::Positions)?)?);
    }
    let scale = f64::from(config.embeddings_scale).powi(2);
    variances.iter_mut().for_each(|variance| *variance *= scale);
    Ok(variances)
}

/// `x += y`, element by element.
fn add(x: &mut [f64], y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// Of each column, over the rows.
fn mean_squares(table: &Tensor) -> Result<Vec<f64>> {
    let starts: Vec<usize> = (0..table.rows()).step_by(CHUNK_ROWS).collect();
    let sums = starts.par_iter().map(|&start| {
        let rows = table.read_rows(start..table.rows().min(start + CHUNK_ROWS))?;
        let mut sums = vec![0.0; table.columns()];
        for row in rows.chunks(table.columns()) {
            sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
        }
        Ok(sums)
    });
    let mut total = vec![0.0; table.columns()];
    for sums in sums.collect::<Vec<Result<Vec<f64>>>>() {
        total.iter_mut().zip(sums?).for_each(|(total, sum)| *total += sum);
    }
    total.iter_mut().for_each(|total| *total /= table.rows() as f64);
    Ok(total)
}

/// Mean squares of what attention or MLP adds to the residual stream, `[n_embd]`, as far as weights tell:
/// `projection` is its last matrix, `norm` the norm after it, if there is one.
fn branch_variances(
    checkpoint: &Checkpoint,
    vectors: &Tensors<Checkpoint>,
    projection: TensorId,
    norm: TensorId,
) -> Result<Vec<f64>> {
    let weight = checkpoint.tensor(&projection.name())?;
    let bias = vectors.find(projection.bias())?;
    let square = |x: &f32| f64::from(*x) * f64::from(*x);
    let mut variances = vec![0.0; weight.rows()];
    let chunks = variances.par_chunks_mut(CHUNK_ROWS).enumerate();
    chunks.try_for_each(|(index, variances)| -> Result<()> {
        let start = index * CHUNK_ROWS;
        let rows = weight.read_rows(start..start + variances.len())?;
        for (variance, row) in variances.iter_mut().zip(rows.chunks(weight.columns())) {
            *variance = PROJECTION_INPUT * row.iter().map(square).sum::<f64>();
        }
        Ok(())
    })?;
    if let Some(bias) = bias {
        variances.iter_mut().zip(&bias).for_each(|(variance, bias)| *variance += square(bias));
    }
    if vectors.has(norm) {
        variances = magnitudes(vectors, norm, &variances)?.iter().map(|x| x * x).collect();
    }
    let scale = f64::from(checkpoint.config().residual.scale).powi(2);
    variances.iter_mut().for_each(|variance| *variance *= scale);
    Ok(variances)
}

/// How large a norm's outputs are, channel by channel, as far as weights tell: `stream` has the mean
/// squares of what it reads.
fn magnitudes(vectors: &Tensors<Checkpoint>, norm: TensorId, stream: &[f64]) -> Result<Vec<f64>> {
    let weight = vectors.read(norm)?;
    let bias = vectors.find(norm.bias())?.unwrap_or_else(|| vec![0.0; weight.len()]);
    let mean = (stream.iter().sum::<f64>() / stream.len() as f64).max(f64::MIN_POSITIVE);
    let channel = |((&square, &weight), &bias): ((&f64, &f32), &f32)| {
        let (weight, bias) = (f64::from(weight), f64::from(bias));
        (weight * weight * (square / mean) + bias * bias).sqrt()
    };
    Ok(stream.iter().zip(&weight).zip(&bias).map(channel).collect())
}

/// The powers of two nearest to `values` over their median. A factor common to all changes nothing.
fn powers_of_two(values: &[f64]) -> Vec<f32> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[sorted.len() / 2];
    let power = |value: &f64| {
        let ratio = value / median * std::f64::consts::SQRT_2;
        // The exponent of a normal number; 0 and what is no number stay as they are.
        let exponent = if ratio.is_normal() { (ratio.to_bits() >> 52) as i32 - 1023 } else { 0 };
        2f32.powi(exponent.clamp(-MAX_EXPONENT, MAX_EXPONENT))
    };
    values.iter().map(power).collect()
}

/// The scales of a norm's outputs, `[tokens, n_embd]`, and of the matrices that read them.
fn scales_of_text(outputs: &[f32], layer: &Layer, at: InputAt, group_size: usize) -> Vec<f32> {
    let readers = layer.readers(at.input);
    let weights: Vec<f32> = readers.iter().flat_map(|linear| &linear.weight).copied().collect();
    let width = readers[0].inputs();
    let starts: Vec<usize> = (0..width).step_by(group_size).collect();
    let groups = starts.par_iter().map(|&start| {
        let columns = start..width.min(start + group_size);
        let columns = |rows: &[f32]| -> Vec<Vec<f32>> {
            let step = (rows.len() / width / SAMPLES).max(1);
            let rows = rows.chunks(width).step_by(step);
            rows.map(|row| row[columns.clone()].iter().map(|x| x.abs()).collect()).collect()
        };
        Channels::new(columns(outputs), columns(&weights)).descend()
    });
    groups.collect::<Vec<_>>().concat()
}

/// The channels of a group: magnitudes of activations and of weights.
struct Channels {
    /// (tokens, channels)
    tokens: Vec<Vec<f32>>,
    /// (rows, channels)
    rows: Vec<Vec<f32>>,
    /// Mean squares of `tokens` and of `rows`, (channels).
    squares: [Vec<f32>; 2],
}

impl Channels {
    fn new(tokens: Vec<Vec<f32>>, rows: Vec<Vec<f32>>) -> Self {
        let squares = [&tokens, &rows].map(|samples| {
            let mean = |channel: usize| {
                samples.iter().map(|sample| sample[channel].powi(2)).sum::<f32>()
                    / samples.len() as f32
            };
            (0..samples[0].len()).map(mean).collect()
        });
        Self { tokens, rows, squares }
    }

    /// The expected squared error of an output, up to a factor, when activations over `scales` and weights
    /// times `scales` are rounded to int8: rounding is as coarse as the largest of a group, and each
    /// channel's error is multiplied by its other factor.
    fn cost(&self, scales: &[f32]) -> f32 {
        let inverse: Vec<f32> = scales.iter().map(|scale| 1.0 / scale).collect();
        let sum = |squares: &[f32], factors: &[f32]| -> f32 {
            squares.iter().zip(factors).map(|(square, factor)| square * factor * factor).sum()
        };
        mean_square_of_largest(&self.tokens, &inverse) * sum(&self.squares[1], scales)
            + mean_square_of_largest(&self.rows, scales) * sum(&self.squares[0], &inverse)
    }

    /// Scales of least cost: from even ones, or from what makes activations and weights equally uneven,
    /// doubling and halving one at a time.
    fn descend(&self) -> Vec<f32> {
        let even = vec![1.0; self.squares[0].len()];
        let balanced = powers_of_two(&self.balanced());
        let costs = [self.cost(&even), self.cost(&balanced)];
        let (mut scales, mut best) =
            if costs[1] < costs[0] { (balanced, costs[1]) } else { (even, costs[0]) };
        for _ in 0..MAX_SWEEPS {
            let before = best;
            for channel in 0..scales.len() {
                for factor in [2.0, 0.5] {
                    let old = scales[channel];
                    scales[channel] = old * factor;
                    let cost = self.cost(&scales);
                    let limit = 2f32.powi(MAX_EXPONENT);
                    if cost < best && (1.0 / limit..=limit).contains(&scales[channel]) {
                        best = cost;
                        break;
                    }
                    scales[channel] = old;
                }
            }
            if best == before {
                break;
            }
        }
        scales
    }

    /// SmoothQuant's scales with `alpha = 0.5`: `sqrt(max |x| / max |w|)`.
    fn balanced(&self) -> Vec<f64> {
        let largest = |samples: &[Vec<f32>], channel: usize| {
            f64::from(samples.iter().fold(0.0, |max: f32, sample| max.max(sample[channel])))
        };
        let ratio =
            |channel: usize| (largest(&self.tokens, channel) / largest(&self.rows, channel)).sqrt();
        (0..self.squares[0].len()).map(ratio).collect()
    }
}

/// The mean square of each sample's largest value, after multiplication by `factors`.
fn mean_square_of_largest(samples: &[Vec<f32>], factors: &[f32]) -> f32 {
    let largest = |sample: &Vec<f32>| {
        let mut max = [0.0f32; 16];
        let (values, factors) = (sample.chunks(16), factors.chunks(16));
        for (values, factors) in values.zip(factors) {
            for ((max, value), factor) in max.iter_mut().zip(values).zip(factors) {
                let product = value * factor;
                *max = if product > *max { product } else { *max };
            }
        }
        max.iter().fold(0.0, |all: f32, max| all.max(*max))
    };
    samples.iter().map(|sample| largest(sample).powi(2)).sum::<f32>() / samples.len() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One channel of activations is 16 times the others; weights are alike.
    #[test]
    fn a_large_channel_is_evened_out() {
        let noise = |i: usize| ((i * 7919 + 13) % 1009) as f32 / 1009.0 + 0.1;
        let samples = |count: usize, seed: usize| -> Vec<Vec<f32>> {
            (0..count).map(|t| (0..64).map(|i| noise(t * 64 + i + seed)).collect()).collect()
        };
        let mut tokens = samples(40, 0);
        tokens.iter_mut().for_each(|token| token[17] *= 16.0);
        let channels = Channels::new(tokens, samples(40, 5));
        let scales = channels.descend();
        assert!(channels.cost(&scales) < 0.25 * channels.cost(&[1.0; 64]));
        let others = scales.iter().enumerate().filter(|(i, _)| *i != 17);
        assert!(others.fold(0.0, |max: f32, (_, s)| max.max(*s)) < scales[17], "{scales:?}");
        assert!(scales.iter().all(|scale| scale.log2().fract() == 0.0));
    }

    #[test]
    fn even_channels_stay() {
        let channels = Channels::new(vec![vec![1.0; 32]; 3], vec![vec![0.5; 32]; 3]);
        assert_eq!(channels.descend(), [1.0; 32]);
        let dead = Channels::new(vec![vec![0.0; 32]; 3], vec![vec![0.0; 32]; 3]);
        assert_eq!(dead.descend(), [1.0; 32]);
    }

    #[test]
    fn powers_of_two_are_the_nearest_ones() {
        let found = powers_of_two(&[0.0, 0.7, 0.72, 1.0, 1.4, 1.42, 3.0, 1e9]);
        // Over the median, 1.4: 0, 0.5, 0.51, 0.71, 1, 1.01, 2.1, a lot.
        assert_eq!(found, [1.0, 0.5, 0.5, 1.0, 1.0, 1.0, 2.0, 64.0]);
        assert_eq!(powers_of_two(&[0.0; 3]), [1.0; 3]);
    }
}
