//! Quantizing with a calibration text: what each matrix is rounded by.
//!
//! Matrices are quantized in the order in which tokens pass them, which is that of the file. Which of them
//! read the same input, and share its moments, the network's description says.

use std::collections::BTreeMap;
use std::ops::{Add, Mul, Sub};
use std::rc::Rc;

use cerebellum::format::network::{Part as TensorPart, Role, TensorId};
use cerebellum::quant::hadamard;

use super::error::Result;
use super::feedback::Feedback;
use super::matrix::Part;
use super::rounding::Metric;
use crate::calibrate::{Calibration, Moments, Sensitivity, Walk};
use crate::checkpoint::Checkpoint;
use crate::reference::{InputAt, readers};

/// A model that is being quantized, matrix by matrix.
pub struct Calibrated<'a> {
    checkpoint: &'a Checkpoint,
    /// Whether targets make up for what the matrices before did: where all are int8 there is next to nothing
    /// to make up for, and what the text happens to hold weighs more.
    corrects: bool,
    walk: Walk<'a>,
    /// The tokens of the text.
    tokens: Vec<u32>,
    /// The matrices that are still to come, by what they read.
    to_come: BTreeMap<InputAt, Vec<TensorId>>,
    /// What follows from the moments of inputs that were met and have readers to come.
    metrics: BTreeMap<InputAt, InputMetric>,
    /// Restored weights of the current matrix; of an embedding, the rows of the text's tokens.
    restored: Vec<f32>,
    /// What errors of outputs and of the embedding cost.
    sensitivity: Sensitivity,
    /// How errors of outputs add up, for the current layer's matrices to come.
    outputs: BTreeMap<TensorId, Vec<f64>>,
    /// Biases that make up for a mean error of the outputs.
    biases: BTreeMap<TensorId, Vec<f32>>,
}

/// What the matrices that read an input are rounded by.
struct InputMetric {
    metric: Rc<Metric>,
    /// The mean inputs of the float model and of the quantized one.
    means: [Vec<f64>; 2],
}

impl<'a> Calibrated<'a> {
    pub fn new(
        checkpoint: &'a Checkpoint,
        calibration: &'a Calibration,
        sensitivity: Sensitivity,
        corrects: bool,
    ) -> Result<Self> {
        let mut tokens = calibration.tokens().to_vec();
        tokens.sort_unstable();
        tokens.dedup();
        Ok(Self {
            checkpoint,
            corrects,
            walk: Walk::new(checkpoint, calibration)?,
            tokens,
            to_come: readers(checkpoint.config()),
            metrics: BTreeMap::new(),
            restored: Vec::new(),
            sensitivity,
            outputs: BTreeMap::new(),
            biases: BTreeMap::new(),
        })
    }

    /// Turns to the matrix `id`; what to round it by.
    pub fn begin(&mut self, id: TensorId, group_size: usize) -> Result<Rc<Metric>> {
        self.restored.clear();
        if id.role == Role::Embedding {
            return self.embedding_metric(group_size).map(Rc::new);
        }
        let at = self.input_of(id);
        if !self.metrics.contains_key(&at) {
            let moments = match at.layer {
                Some(layer) => {
                    if self.walk.layer() != Some(layer) {
                        self.walk.enter(layer)?;
                        let by_stream = std::mem::take(&mut self.sensitivity.by_stream[layer]);
                        self.outputs = self.walk.output_moments(&by_stream);
                    }
                    self.walk.moments(at.input, group_size)
                }
                None => self.walk.head_moments(group_size)?,
            };
            self.metrics.insert(at, InputMetric::new(moments, self.corrects));
        }
        Ok(self.metrics[&at].metric.clone())
    }

    /// What the rows of `id` make up for of one another's errors, if anything is known of it.
    pub fn feedback(&mut self, id: TensorId) -> Option<Feedback> {
        Feedback::new(self.outputs.remove(&id)?)
    }

    /// Takes note of rows as they are in the file.
    pub fn take(&mut self, id: TensorId, part: &Part) {
        if id.role != Role::Embedding {
            return self.restored.extend(&part.restored);
        }
        let width = part.restored.len() / part.rows.len();
        let first = self.tokens.partition_point(|&token| (token as usize) < part.rows.start);
        for &token in self.tokens[first..].iter().take_while(|&&t| (t as usize) < part.rows.end) {
            let row = token as usize - part.rows.start;
            self.restored.extend(&part.restored[row * width..][..width]);
        }
    }

    /// Goes on behind the matrix.
    pub fn end(&mut self, id: TensorId) -> Result<()> {
        if id.role == Role::Embedding {
            let width = self.restored.len() / self.tokens.len();
            let (tokens, rows) = (&self.tokens, &self.restored);
            return Ok(self.walk.set_embedding(|token| {
                let row = tokens.binary_search(&token).expect("one of the text's tokens");
                &rows[row * width..][..width]
            })?);
        }
        let at = self.input_of(id);
        let restored = std::mem::take(&mut self.restored);
        if at.layer.is_some() {
            let (biases, means) = (&mut self.biases, &self.metrics[&at].means);
            self.walk.replace(id, |trained, bias| {
                if let Some(bias) = bias {
                    correct_bias(bias, [trained, &restored], means);
                    biases.insert(id.bias(), bias.clone());
                }
                restored
            });
        }
        let to_come = self.to_come.get_mut(&at).expect("every matrix but an embedding reads");
        to_come.retain(|matrix| *matrix != id);
        if to_come.is_empty() {
            self.metrics.remove(&at);
        }
        Ok(())
    }

    /// The bias `id`, if it changed.
    ///
    /// # Panics
    /// If the matrix beside it is still to come.
    pub fn bias(&mut self, id: TensorId) -> Option<Vec<f32>> {
        let weight = TensorId { part: TensorPart::Weight, ..id };
        let is_to_come = self.to_come.values().flatten().any(|matrix| *matrix == weight);
        assert!(!is_to_come, "{id:?} comes before the weights that it makes up for");
        self.biases.remove(&id)
    }

    fn input_of(&self, matrix: TensorId) -> InputAt {
        InputAt::of(matrix, self.checkpoint.config()).expect("every matrix but an embedding reads")
    }

    /// What to round the embedding by: what its errors cost as the table that tokens are looked up in and, if
    /// it is tied, as the head.
    fn embedding_metric(&mut self, group_size: usize) -> Result<Metric> {
        let is_head = self.checkpoint.config().tie_word_embeddings;
        let moments = is_head.then(|| self.walk.float_head_moments(group_size)).transpose()?;
        let mut second = std::mem::take(&mut self.sensitivity.embedding);
        let weight = self.sensitivity.head;
        let Some(moments) = moments else { return Ok(metric(second, None)) };
        second.iter_mut().zip(moments.second()).for_each(|(sum, as_head)| *sum += weight * as_head);
        let scaled = |shift: Vec<f32>| shift.iter().map(|shift| weight as f32 * shift).collect();
        Ok(metric(second, self.corrects.then(|| scaled(moments.shift()))))
    }
}

impl InputMetric {
    fn new(moments: Moments, corrects: bool) -> Self {
        let (means, second) = (moments.means(), moments.second());
        let shift = corrects.then(|| moments.shift());
        // The sums take as much memory as what follows from them.
        drop(moments);
        Self { metric: Rc::new(metric(second, shift)), means }
    }
}

/// The metric of rows of weights as they are rounded, which is after their Hadamard transform: the inputs'
/// moments are those of the transformed inputs.
fn metric(mut second: Vec<f64>, mut shift: Option<Vec<f32>>) -> Metric {
    transform(&mut second);
    shift.iter_mut().for_each(|shift| transform(shift));
    Metric::new(second, shift)
}

/// `H m H` of a square matrix `m`.
pub fn transform<T>(matrix: &mut [T])
where
    T: Copy + Add<Output = T> + Sub<Output = T> + Mul<Output = T> + From<f32>,
{
    let n = matrix.len().isqrt();
    for _ in 0..2 {
        matrix.chunks_mut(n).for_each(hadamard);
        for row in 0..n {
            (0..row).for_each(|column| matrix.swap(row * n + column, column * n + row));
        }
    }
}

/// Adds the mean of what quantization takes from the outputs: `weights` are the trained ones and those
/// in the file, `means` the mean inputs of the float model and of the quantized one.
fn correct_bias(bias: &mut [f32], weights: [&[f32]; 2], means: &[Vec<f64>; 2]) {
    let n = means[0].len();
    for (row, bias) in bias.iter_mut().enumerate() {
        let mean_output = |which: usize| {
            let products = weights[which][row * n..][..n].iter().zip(&means[which]);
            products.map(|(&weight, mean)| f64::from(weight) * mean).sum::<f64>()
        };
        *bias += (mean_output(0) - mean_output(1)) as f32;
    }
}
