//! Quantizing with a calibration text: what each matrix is rounded by, in the order of the file, which
//! is the order in which tokens pass the matrices.

use std::collections::BTreeMap;
use std::rc::Rc;

use cerebellum::format::MlpKind;
use cerebellum::format::network::{Role, TensorId};

use super::error::Result;
use super::folding::Folding;
use super::matrix::Part;
use super::rounding::Metric;
use crate::calibrate::{Calibration, Moments, Network, Sensitivity, Stage};
use crate::checkpoint::Checkpoint;

/// Windows that the embedding's sensitivity is measured on: two would do.
const SENSITIVITY_WINDOWS: usize = 4;

/// A model that is being quantized, matrix by matrix.
pub struct Calibrated<'a> {
    checkpoint: &'a Checkpoint,
    calibration: &'a Calibration,
    folding: &'a Folding,
    /// Whether targets make up for what the matrices before did: where all are int8 there is next to nothing
    /// to make up for, and what the text happens to hold weighs more.
    corrects: bool,
    network: Network<'a>,
    /// The tokens of the text.
    tokens: Vec<u32>,
    /// The moments that the current matrix reads with, and what follows from them.
    current: Option<Current>,
    /// Restored weights of the current matrix; of an embedding, the rows of the text's tokens.
    restored: Vec<f32>,
    /// Biases that make up for a mean error of the outputs.
    biases: BTreeMap<TensorId, Vec<f32>>,
}

struct Current {
    stage: Option<Stage>,
    metric: Rc<Metric>,
    means: [Vec<f64>; 2],
}

impl<'a> Calibrated<'a> {
    pub fn new(
        checkpoint: &'a Checkpoint,
        calibration: &'a Calibration,
        folding: &'a Folding,
        corrects: bool,
    ) -> Result<Self> {
        let mut tokens = calibration.tokens().to_vec();
        tokens.sort_unstable();
        tokens.dedup();
        Ok(Self {
            checkpoint,
            calibration,
            folding,
            corrects,
            network: Network::new(checkpoint, calibration)?,
            tokens,
            current: None,
            restored: Vec::new(),
            biases: BTreeMap::new(),
        })
    }

    /// Turns to the matrix `id`; what to round it by.
    pub fn begin(&mut self, id: TensorId, group_size: usize) -> Result<Rc<Metric>> {
        let corrects = self.corrects;
        self.restored.clear();
        let current = if id.role == Role::Embedding {
            let moments = match self.checkpoint.is_tied() {
                true => Some(self.network.float_head_moments(group_size)?),
                false => None,
            };
            let metric = embedding_metric(
                self.checkpoint,
                self.calibration,
                moments.as_ref().map(|moments| (moments, corrects)),
            )?;
            // No bias follows that would need the means.
            let means = Default::default();
            Current { stage: None, metric: Rc::new(metric), means }
        } else if id.role == Role::Head {
            let moments = self.network.head_moments(group_size)?;
            Current::new(None, &moments, corrects)
        } else {
            let (layer, stage) = Stage::of(id).expect("a matrix in a layer");
            if stage == Stage::AttentionIn {
                self.network.enter(layer, |block| self.folding.fold_block(layer, block))?;
            }
            match self.current.take() {
                // A gate reads what its companion read.
                Some(current) if current.stage == Some(stage) => current,
                _ => {
                    let moments = self.network.moments(stage, group_size);
                    Current::new(Some(stage), &moments, corrects)
                }
            }
        };
        Ok(self.current.insert(current).metric.clone())
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
            return Ok(self.network.set_embedding(|token| {
                let row = tokens.binary_search(&token).expect("one of the text's tokens");
                &rows[row * width..][..width]
            })?);
        }
        let Some(Current { stage: Some(stage), means, .. }) = &self.current else {
            return Ok(()); // a head, which nothing follows
        };
        let linear = self.network.linear(id);
        let restored = std::mem::take(&mut self.restored);
        correct_bias(&mut linear.bias, [&linear.weight, &restored], means);
        self.biases.insert(id.bias(), linear.bias.clone());
        linear.weight = restored;
        // The second matrix of a gated MLP reads at the same stage.
        let gate_follows =
            self.checkpoint.config().mlp.kind == MlpKind::Gated && id.role == Role::MlpUp;
        if !gate_follows {
            self.network.advance(*stage);
        }
        Ok(())
    }

    /// The bias `id`, if it changed.
    pub fn bias(&mut self, id: TensorId) -> Option<Vec<f32>> {
        self.biases.remove(&id)
    }
}

impl Current {
    fn new(stage: Option<Stage>, moments: &Moments, corrects: bool) -> Self {
        let shift = corrects.then(|| moments.shift());
        let metric = Rc::new(Metric::new(moments.second(), shift));
        Self { stage, metric, means: moments.means() }
    }
}

/// What to round the embedding by: what its errors cost as the table that tokens are looked up in and, if it
/// is tied, as the head; `head` has the moments that the head reads with, and whether the target makes up for
/// what happened to them.
fn embedding_metric(
    checkpoint: &Checkpoint,
    text: &Calibration,
    head: Option<(&Moments, bool)>,
) -> Result<Metric> {
    let text = text.part(SENSITIVITY_WINDOWS);
    let Sensitivity { embedding: mut second, head: weight } =
        Sensitivity::measure(checkpoint, &text)?;
    let Some((moments, corrects)) = head else { return Ok(Metric::new(second, None)) };
    second.iter_mut().zip(moments.second()).for_each(|(sum, as_head)| *sum += weight * as_head);
    let scaled = |shift: Vec<f32>| shift.iter().map(|shift| weight as f32 * shift).collect();
    Ok(Metric::new(second, corrects.then(|| scaled(moments.shift()))))
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
