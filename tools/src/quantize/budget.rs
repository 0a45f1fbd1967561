//! Choosing each matrix's format under a budget of bits.
//!
//! What a format costs is measured: the divergence of the float model's predictions when one matrix
//! alone, with the activations it reads, is rounded, as int4 and as int8. Those of other formats follow
//! from the squared error of the weights: of int8 from int8's, of all others from int4's. Costs of small errors add up, so the best choice under a
//! budget is nearly the one that a greedy walk finds: from the smallest formats on, always the step that
//! saves the most divergence a byte (Fox, 1966, "Discrete optimization via marginal analysis").

use std::collections::BTreeMap;

use cerebellum::format::network::{self, Role, TensorId};
use cerebellum::format::{FileLayout, Header};
use cerebellum::quant::{Scheme, TileLayout};
use rayon::prelude::*;
use serde::Serialize;

use super::error::{Error, Result};
use super::matrix::{Method, quantize_matrix};
use super::observer::Observer;
use super::options::MatrixFormat;
use crate::calibrate::{Calibration, round_activations};
use crate::checkpoint::Checkpoint;
use crate::distribution::{LogSoftmax, kl_divergence};
use crate::reference::{InputAt, Parallelism, Reference};

/// Every format, by size. Levels of four bits take as many bytes as int4 and lose less.
const FORMATS: [MatrixFormat; 12] = [
    MatrixFormat { scheme: Scheme::Nl2, group_size: 128 },
    MatrixFormat { scheme: Scheme::Nl2, group_size: 64 },
    MatrixFormat { scheme: Scheme::Nl2, group_size: 32 },
    MatrixFormat { scheme: Scheme::Nl3, group_size: 128 },
    MatrixFormat { scheme: Scheme::Nl3, group_size: 64 },
    MatrixFormat { scheme: Scheme::Nl3, group_size: 32 },
    MatrixFormat { scheme: Scheme::Nl4, group_size: 128 },
    MatrixFormat { scheme: Scheme::Nl4, group_size: 64 },
    MatrixFormat { scheme: Scheme::Nl4, group_size: 32 },
    MatrixFormat { scheme: Scheme::Int8, group_size: 128 },
    MatrixFormat { scheme: Scheme::Int8, group_size: 64 },
    MatrixFormat { scheme: Scheme::Int8, group_size: 32 },
];
/// The formats whose cost is measured.
const MEASURED: [MatrixFormat; 2] = [
    MatrixFormat { scheme: Scheme::Int4, group_size: 64 },
    MatrixFormat { scheme: Scheme::Int8, group_size: 128 },
];
/// Windows that costs are measured on: divergence settles with few tokens.
const WINDOWS: usize = 2;
/// Of so many tokens in a row one is predicted: neighbours tell much the same, and the head of a large vocabulary
/// takes longer than all layers.
const PREDICTED: usize = 4;

/// A matrix, its format, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Choice {
    /// The matrix.
    pub tensor: String,
    /// The name of its scheme.
    pub weights: &'static str,
    /// Inputs that share a scale.
    pub group_size: usize,
    /// Mean KL divergence from the float model, in nats a token, with this matrix alone in int4 in groups
    /// of 64, each weight rounded to the nearest.
    pub kl_int4: f64,
    /// The same with int8 in groups of 128.
    pub kl_int8: f64,
}

impl Choice {
    /// The chosen format.
    pub fn format(&self) -> MatrixFormat {
        let is_chosen = |format: &&MatrixFormat| {
            (format.scheme.name(), format.group_size) == (self.weights, self.group_size)
        };
        *FORMATS.iter().find(is_chosen).expect("made of a format")
    }
}

/// A matrix with what each format takes and costs.
struct Candidate {
    id: TensorId,
    /// In bytes, by format.
    bytes: [usize; FORMATS.len()],
    /// In nats, by format.
    costs: [f64; FORMATS.len()],
    measured: [f64; MEASURED.len()],
}

/// The best formats that a greedy search finds with at most `bits` a weight; `header` is any header of
/// the model.
pub fn choose(
    checkpoint: &Checkpoint,
    calibration: &Calibration,
    header: &Header,
    bits: f64,
    observer: &dyn Observer,
) -> Result<Vec<Choice>> {
    let budget = Budget::new(header, bits)?;
    observer.turn_to("cost of each tensor");
    let probe = Probe::new(checkpoint, &calibration.part(WINDOWS))?;
    let matrices = header.tensors.iter().map(|(name, info)| {
        (TensorId::parse(name).expect("a header lists the network's matrices"), info.shape)
    });
    let candidates = matrices.map(|(id, shape)| {
        let candidate = probe.measure(checkpoint, id, shape)?;
        observer.advance((shape[0] * shape[1]) as u64);
        Ok(candidate)
    });
    let candidates = candidates.collect::<Result<Vec<Candidate>>>()?;
    let formats = budget.spend(&candidates);
    let choice = |(candidate, format): (Candidate, usize)| Choice {
        weights: FORMATS[format].scheme.name(),
        group_size: FORMATS[format].group_size,
        kl_int4: short(candidate.measured[0]),
        kl_int8: short(candidate.measured[1]),
        tensor: candidate.id.name(),
    };
    Ok(candidates.into_iter().zip(formats).map(choice).collect())
}

/// Three significant digits, so that it prints shortly.
fn short(value: f64) -> f64 {
    format!("{value:.2e}").parse().expect("a float's own text")
}

/// The bytes that all matrices together may take.
struct Budget {
    bytes: usize,
}

impl Budget {
    /// # Errors
    /// [`Error::Budget`] if `bits` are fewer than the smallest formats take or more than the largest.
    fn new(header: &Header, bits: f64) -> Result<Self> {
        let extent = |format: MatrixFormat| -> Result<[usize; 2]> {
            let mut infos = header.tensors.clone();
            infos.values_mut().for_each(|info| {
                (info.scheme, info.group_size) = (format.scheme, format.group_size);
            });
            let layout = FileLayout::new(&header.config, &infos, None)?;
            let all = layout.data_bytes() - layout.tensors().last().map_or(0, |t| t.range.len());
            let matrices = infos.values().map(|info| bytes_of(info.shape, format));
            Ok([all, matrices.sum()])
        };
        let ([least, least_matrices], [most, _]) =
            (extent(FORMATS[0])?, extent(FORMATS[FORMATS.len() - 1])?);
        let weights = parameters(header) as f64;
        let in_bits = |bytes: usize| bytes as f64 * 8.0 / weights;
        let allowed = bits * weights / 8.0;
        if !(allowed >= least as f64 && allowed <= most as f64) {
            // With two decimals, as the message prints them, both are budgets that can be met.
            let [least, most] = [in_bits(least), in_bits(most)].map(|bits| bits * 100.0);
            let (least, most) = (least.ceil() / 100.0, most.floor() / 100.0);
            return Err(Error::Budget { bits, least, most });
        }
        Ok(Self { bytes: allowed as usize - (least - least_matrices) })
    }

    /// The index of each candidate's format.
    fn spend(&self, candidates: &[Candidate]) -> Vec<usize> {
        let units = units(candidates);
        let sum = |unit: &[usize], value: &dyn Fn(&Candidate) -> f64| {
            unit.iter().map(|&index| value(&candidates[index])).sum::<f64>()
        };
        let bytes = |unit: &[usize], format: usize| sum(unit, &|c| c.bytes[format] as f64);
        let cost = |unit: &[usize], format: usize| sum(unit, &|c| c.costs[format]);
        let mut formats = vec![0; units.len()];
        let mut left = self.bytes as f64 - units.iter().map(|unit| bytes(unit, 0)).sum::<f64>();
        loop {
            let mut best = (0.0, None);
            for (index, unit) in units.iter().enumerate() {
                let now = formats[index];
                for next in now + 1..FORMATS.len() {
                    let price = bytes(unit, next) - bytes(unit, now);
                    let gain = (cost(unit, now) - cost(unit, next)) / price.max(1.0);
                    if price <= left && gain > best.0 {
                        best = (gain, Some((index, next, price)));
                    }
                }
            }
            let Some((index, next, price)) = best.1 else { break };
            formats[index] = next;
            left -= price;
        }
        let mut of_candidates = vec![0; candidates.len()];
        for (unit, format) in units.iter().zip(formats) {
            unit.iter().for_each(|&index| of_candidates[index] = format);
        }
        of_candidates
    }
}

/// What is chosen together: matrices of a layer that read the same groups, as a gate and its companion do.
fn units(candidates: &[Candidate]) -> Vec<Vec<usize>> {
    let reads = |id: TensorId| (id.layer, id.role.reads());
    let mut units: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, &Candidate { id, .. }) in candidates.iter().enumerate() {
        let is_companion = |other: &&Candidate| id.layer.is_some() && reads(other.id) == reads(id);
        let first = candidates.iter().find(is_companion).map_or(id, |first| first.id);
        units.entry(first.name()).or_default().push(index);
    }
    units.into_values().collect()
}

/// Weights, biases and position entries; tied ones once.
fn parameters(header: &Header) -> usize {
    let layout = FileLayout::new(&header.config, &header.tensors, None);
    crate::summary::Summary::new(header, &layout.expect("a valid header"), 0).parameters as usize
}

fn bytes_of([rows, cols]: [usize; 2], format: MatrixFormat) -> usize {
    let tiles = TileLayout::new(rows, cols, format.scheme, format.group_size);
    tiles.expect("a shape and a format that exist").bytes()
}

/// The float model on a few windows, with one matrix at a time changed.
struct Probe {
    reference: Reference,
    windows: Vec<Window>,
}

struct Window {
    tokens: Vec<u32>,
    /// The residual stream before each layer, (tokens, n_embd).
    boundaries: Vec<Vec<f32>>,
    /// The same after the last layer.
    last: Vec<f32>,
    /// The float model's logits of the tokens that are predicted, (tokens / PREDICTED, vocab_size).
    logits: Vec<f32>,
}

impl Probe {
    fn new(checkpoint: &Checkpoint, calibration: &Calibration) -> Result<Self> {
        let reference = Reference::load(checkpoint)?.with_parallelism(Parallelism::Serial);
        let windows = calibration.tokens().par_chunks(calibration.window()).map(|tokens| {
            let mut last = reference.embed(reference.embedding(), tokens);
            let boundaries = reference.layers.iter().map(|layer| {
                let after = reference.pass(layer, &last, &mut |_, _| ());
                std::mem::replace(&mut last, after)
            });
            let boundaries = boundaries.collect();
            let logits = reference.finish(None, &predicted(&last, &reference), &mut |_, _| ());
            Window { tokens: tokens.to_vec(), boundaries, last, logits }
        });
        let windows = windows.collect();
        Ok(Self { reference, windows })
    }

    fn measure(
        &self,
        checkpoint: &Checkpoint,
        id: TensorId,
        shape: [usize; 2],
    ) -> Result<Candidate> {
        let mut measured = [0.0; MEASURED.len()];
        let mut per_error = [0.0; MEASURED.len()];
        for ((format, measured), per_error) in
            MEASURED.iter().zip(&mut measured).zip(&mut per_error)
        {
            let (restored, error) = nearest(checkpoint, id, *format)?;
            *measured = self.divergence(id, &restored, format.group_size);
            *per_error = *measured / error;
        }
        let mut costs = [0.0; FORMATS.len()];
        for (cost, format) in costs.iter_mut().zip(FORMATS) {
            let which = usize::from(format.scheme == Scheme::Int8);
            let (_, error) = nearest(checkpoint, id, format)?;
            let estimate = per_error[which] * error;
            *cost = if estimate.is_finite() { estimate } else { measured[which] };
        }
        Ok(Candidate { id, bytes: FORMATS.map(|format| bytes_of(shape, format)), costs, measured })
    }

    /// Mean divergence with these weights in place of the trained ones and the activations that they
    /// meet rounded.
    fn divergence(&self, id: TensorId, weights: &[f32], group_size: usize) -> f64 {
        let reference = &self.reference;
        let index = id.layer;
        let layer = index.map(|index| {
            let mut layer = reference.layers[index].clone();
            layer.linear_mut(id).weight.copy_from_slice(weights);
            layer
        });
        let reads = InputAt::of(id, reference.config());
        let embedding = (id.role == Role::Embedding).then_some(weights);
        let head = (id == network::head(reference.config())).then_some(weights);
        let sums = self.windows.par_iter().map(|window| {
            let tokens = window.tokens.len();
            let mut round = |at: InputAt, h: &mut [f32]| {
                if Some(at) == reads {
                    let rows = if at.layer.is_some() { tokens } else { tokens.div_ceil(PREDICTED) };
                    round_activations(h, h.len() / rows, group_size);
                }
            };
            let mut x = match (index, embedding) {
                (Some(index), _) => window.boundaries[index].clone(),
                (None, Some(table)) => reference.embed(table, &window.tokens),
                (None, None) => window.last.clone(),
            };
            if index.is_some() || embedding.is_some() {
                let first = index.unwrap_or(0);
                for (at, trained) in reference.layers.iter().enumerate().skip(first) {
                    let changed = layer.as_ref().filter(|_| Some(at) == index);
                    x = reference.pass(changed.unwrap_or(trained), &x, &mut round);
                }
            }
            let logits = reference.finish(head, &predicted(&x, reference), &mut round);
            let vocab_size = reference.config().vocab_size;
            let rows = window.logits.chunks(vocab_size).zip(logits.chunks(vocab_size));
            rows.map(|(p, q)| kl_divergence(&LogSoftmax::new(p), &LogSoftmax::new(q))).sum::<f64>()
        });
        let sums: Vec<f64> = sums.collect();
        let tokens = self.windows.iter().map(|window| window.tokens.len().div_ceil(PREDICTED));
        sums.iter().sum::<f64>() / tokens.sum::<usize>() as f64
    }
}

/// Of a window's residual stream the rows after which tokens are predicted, the last one among them.
fn predicted(x: &[f32], reference: &Reference) -> Vec<f32> {
    let rows = x.chunks(reference.config().n_embd);
    let first = (rows.len() - 1) % PREDICTED;
    rows.skip(first).step_by(PREDICTED).flatten().copied().collect()
}

/// A matrix rounded without regard to its inputs, and the squared norm of the error over that of the weights.
fn nearest(checkpoint: &Checkpoint, id: TensorId, format: MatrixFormat) -> Result<(Vec<f32>, f64)> {
    let source = checkpoint.tensor(&id.name())?;
    let tiles = TileLayout::new(source.rows(), source.columns(), format.scheme, format.group_size);
    let tiles = tiles.expect("a shape and a format that exist");
    let mut restored = Vec::with_capacity(tiles.rows() * tiles.cols());
    let method = Method { restore: true, ..Method::NEAREST };
    let quantized = quantize_matrix(&source, tiles, method, |part| {
        restored.extend(part.restored);
        Ok(())
    })?;
    Ok((restored, f64::from(quantized.relative_error.unwrap_or(0.0)).powi(2)))
}
