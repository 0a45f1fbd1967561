//! Choosing each matrix's format under a budget of bits.
//!
//! What a format costs is estimated: half of what is at stake with a matrix ([`super::stakes`]) times the
//! variance of the errors that the format leaves in its weights, each rounded to the nearest, and half of the
//! same about its inputs. Costs of small errors add up, so the best choice under a budget is nearly the one
//! that a greedy walk finds: from the smallest formats on, always the step that saves the most divergence a
//! byte (Fox, 1966, "Discrete optimization via marginal analysis").

use std::collections::BTreeMap;

use cerebellum::format::network::TensorId;
use cerebellum::format::{FileLayout, Header};
use cerebellum::quant::{GROUP_SIZES, Scheme, TileLayout};
use serde::Serialize;

use super::error::{Error, Result};
use super::matrix::{Method, quantize_matrix};
use super::observer::Observer;
use super::options::MatrixFormat;
use super::stakes::Stake;
use crate::checkpoint::{Checkpoint, Tensor};
use crate::reference::squared_norm;

/// Every format, by size. Levels of four bits take as many bytes as int4 and lose less.
const FORMATS: [MatrixFormat; 12] = [
    MatrixFormat { scheme: Scheme::Tc2, group_size: 128 },
    MatrixFormat { scheme: Scheme::Tc2, group_size: 64 },
    MatrixFormat { scheme: Scheme::Tc2, group_size: 32 },
    MatrixFormat { scheme: Scheme::Tc3, group_size: 128 },
    MatrixFormat { scheme: Scheme::Tc3, group_size: 64 },
    MatrixFormat { scheme: Scheme::Tc3, group_size: 32 },
    MatrixFormat { scheme: Scheme::Nl4, group_size: 128 },
    MatrixFormat { scheme: Scheme::Nl4, group_size: 64 },
    MatrixFormat { scheme: Scheme::Nl4, group_size: 32 },
    MatrixFormat { scheme: Scheme::Int8, group_size: 128 },
    MatrixFormat { scheme: Scheme::Int8, group_size: 64 },
    MatrixFormat { scheme: Scheme::Int8, group_size: 32 },
];
/// A matrix, its format, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Choice {
    /// The matrix.
    pub tensor: String,
    /// The name of its scheme.
    pub weights: &'static str,
    /// Inputs that share a scale.
    pub group_size: usize,
    /// What this format costs, in nats a token: an estimate of the mean KL divergence from the float model if this
    /// matrix alone is calibrated and rounded to it.
    pub kl: f64,
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
}

/// Three significant digits, so that it prints shortly.
fn short(value: f64) -> f64 {
    format!("{value:.2e}").parse().expect("a float's own text")
}

/// The bytes that all matrices together may take.
pub struct Budget {
    bytes: usize,
}

impl Budget {
    /// `bits` a weight for the model of `header`, which is any of its headers.
    ///
    /// # Errors
    /// [`Error::Budget`] if `bits` are fewer than the smallest formats take or more than the largest.
    pub fn new(header: &Header, bits: f64) -> Result<Self> {
        let extent = |format: MatrixFormat| -> Result<[usize; 2]> {
            let mut infos = header.tensors.clone();
            infos.values_mut().for_each(|info| {
                (info.scheme, info.group_size) = (format.scheme, format.group_size);
            });
            let layout = FileLayout::new(&header.config, &infos, None)?;
            let all = layout.data_bytes() - layout.tensors().last().map_or(0, |t| t.range.len());
            let matrices = infos.values().map(|info| tiles(info.shape, format).bytes());
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

    /// The best formats that a greedy search finds, given what is at stake with each matrix.
    pub fn choose(
        &self,
        checkpoint: &Checkpoint,
        stakes: &BTreeMap<TensorId, Stake>,
        observer: &dyn Observer,
    ) -> Result<Vec<Choice>> {
        observer.turn_to("cost of each tensor");
        let candidates = stakes.iter().map(|(&id, stake)| {
            let source = checkpoint.tensor(&id.name())?;
            let candidate = Candidate::new(id, &source, stake)?;
            observer.advance((source.rows() * source.columns()) as u64);
            Ok(candidate)
        });
        let candidates = candidates.collect::<Result<Vec<Candidate>>>()?;
        let formats = self.spend(&candidates);
        let choice = |(candidate, format): (Candidate, usize)| Choice {
            weights: FORMATS[format].scheme.name(),
            group_size: FORMATS[format].group_size,
            kl: short(candidate.costs[format]),
            tensor: candidate.id.name(),
        };
        Ok(candidates.into_iter().zip(formats).map(choice).collect())
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

fn tiles([rows, cols]: [usize; 2], format: MatrixFormat) -> TileLayout {
    let tiles = TileLayout::new(rows, cols, format.scheme, format.group_size);
    tiles.expect("a shape and a format that exist")
}

impl Candidate {
    fn new(id: TensorId, source: &Tensor, stake: &Stake) -> Result<Self> {
        let shape = [source.rows(), source.columns()];
        let weights = source.read_f32()?;
        let mean_square = squared_norm(&weights) / weights.len() as f64;
        drop(weights);
        let mut costs = [0.0; FORMATS.len()];
        for (cost, format) in costs.iter_mut().zip(FORMATS) {
            let quantized =
                quantize_matrix(source, tiles(shape, format), Method::NEAREST, |_| Ok(()))?;
            let error = f64::from(quantized.relative_error.unwrap_or(0.0)).powi(2);
            let group = GROUP_SIZES.iter().position(|&size| size == format.group_size);
            let of_inputs = stake.activations[group.expect("all sizes are listed")];
            *cost = 0.5 * mean_square * (error * stake.weights + of_inputs);
        }
        Ok(Self { id, bytes: FORMATS.map(|format| tiles(shape, format).bytes()), costs })
    }
}
