//! One layer of the network as a list of steps.
//!
//! [`Layer::load`] has the order, with the shapes beside, as the runtime's `src/program.rs` has it. Each step
//! makes one value out of earlier ones and knows how a gradient goes back through it: the forward pass walks
//! through the list, the backward pass walks back, and calibration computes single values of it.

use cerebellum::format::network::{Input, Role, TensorId};
use cerebellum::format::{Activation, MlpKind, NormKind, Positions, QueryKeyNorm, ResidualOrder};

use super::activation::{activate, activate_backward};
use super::attention::Heads;
use super::elementwise::add;
use super::error::Result;
use super::inputs::{InputAt, Visit};
use super::linear::Linear;
use super::norm::{Norm, QueryKeyNorms};
use super::parallel::Parallelism;
use super::rotation::Rotation;
use super::weights::{Tensors, Weights};

/// A value of a layer, a row for each token: [`STREAM`], or `n + 1` for what step `n` makes.
pub(crate) type Value = usize;

/// The residual stream as it enters the layer.
pub(crate) const STREAM: Value = 0;

/// Sees the weights' name, the input, (tokens, n_in), and the gradient by the output, (tokens, n_out), of linear
/// layers on the way back.
pub(crate) type VisitBackward<'a> = &'a mut dyn FnMut(TensorId, &[f32], &[f32]);

/// A layer: attention and MLP around a residual stream.
#[derive(Clone)]
pub(crate) struct Layer {
    index: usize,
    steps: Vec<Step>,
}

#[derive(Clone)]
struct Step {
    operation: Operation,
    reads: Vec<Value>,
}

/// What makes a value.
#[derive(Clone)]
enum Operation {
    /// What matrices read: the output of a norm, or a copy where there is none.
    Input(Input, Option<Norm>),
    Multiply(Linear),
    /// The norm of an output of attention or MLP.
    Norm(Norm),
    NormQueriesAndKeys(QueryKeyNorms),
    Rotate(Rotation),
    Attend(Heads),
    Activate(Activation),
    /// The product of two values.
    Gate,
    /// One value plus a multiple of another.
    AddScaled(f32),
}

impl Layer {
    /// Layer `index`.
    pub fn load(weights: &impl Weights, index: usize) -> Result<Self> {
        let config = weights.config();
        let mut list = List { tensors: Tensors::new(weights), index, steps: Vec::new() };
        // Attention                                                shapes of a row
        let x = STREAM; //                                          [E]
        let h = list.input(x, Input::AttentionNorm)?; //            [E]
        let qkv = list.multiply(h, Role::AttentionIn)?; //          [(H + 2 K) D]
        let qkv = list.norm_queries_and_keys(qkv)?; //              [(H + 2 K) D]
        let qkv = list.rotate(qkv)?; //                             [(H + 2 K) D]
        let heads = list.attend(qkv)?; //                           [H D]
        let h = list.input(heads, Input::Heads)?; //                [H D]
        let out = list.multiply(h, Role::AttentionOut)?; //         [E]
        let out = list.norm(out, Role::AttentionOutNorm)?; //       [E]
        let y = list.add_scaled(x, out); //                         [E]

        // MLP
        let from = if config.residual.order == ResidualOrder::Parallel { x } else { y };
        let h = list.input(from, Input::MlpNorm)?; //               [E]
        let up = list.multiply(h, Role::MlpUp)?; //                 [F]
        let inner = if config.mlp.kind == MlpKind::Gated {
            let gate = list.multiply(h, Role::MlpGate)?; //         [F]
            let gate = list.activate(gate); //                      [F]
            list.gate(gate, up)
        } else {
            list.activate(up)
        };
        let h = list.input(inner, Input::Hidden)?; //               [F]
        let out = list.multiply(h, Role::MlpDown)?; //              [E]
        let out = list.norm(out, Role::MlpOutNorm)?; //             [E]
        list.add_scaled(y, out); //                                 [E]
        Ok(Self { index, steps: list.steps })
    }

    /// What the layer makes of the residual stream `x`: (tokens, E) → the same. `visit` gets what matrices
    /// read before they do.
    pub fn forward(&self, x: &[f32], parallelism: Parallelism, visit: Visit) -> Vec<f32> {
        self.evaluate(&[(STREAM, x)], self.output(), parallelism, visit)
    }

    /// The value `target`, out of those that are `known`.
    ///
    /// # Panics
    /// If it does not follow from them.
    pub fn evaluate(
        &self,
        known: &[(Value, &[f32])],
        target: Value,
        parallelism: Parallelism,
        visit: Visit,
    ) -> Vec<f32> {
        let find = |value| known.iter().find(|(known, _)| *known == value).map(|known| known.1);
        let mut missing = self.missing(|value| find(value).is_some(), target);
        let mut values = vec![None; self.steps.len() + 1];
        for (index, Step { operation, reads }) in self.steps.iter().enumerate() {
            if !std::mem::take(&mut missing[index + 1]) {
                continue;
            }
            let read = |&value: &Value| values[value].as_deref().or_else(|| find(value));
            let inputs: Vec<&[f32]> = reads.iter().map(|v| read(v).expect("made before")).collect();
            let mut out = operation.forward(&inputs, parallelism);
            if let Operation::Input(input, _) = operation {
                visit(InputAt { layer: Some(self.index), input: *input }, &mut out);
            }
            values[index + 1] = Some(out);
            // What no step to come reads makes room.
            let steps = self.steps.iter().enumerate();
            let to_come = || steps.clone().filter(|(step, _)| missing[step + 1]);
            for &value in reads {
                if !to_come().any(|(_, step)| step.reads.contains(&value)) {
                    values[value] = None;
                }
            }
        }
        values[target].take().or_else(|| find(target).map(<[f32]>::to_vec)).expect("was made")
    }

    /// `x`: the layer's input; `grad`: a loss's gradient by its output → by its input; (tokens, E) all. `visit`
    /// gets what there is at each linear layer. On the calling thread.
    pub fn backward(&self, x: &[f32], grad: Vec<f32>, visit: VisitBackward) -> Vec<f32> {
        let mut values: Vec<Vec<f32>> = vec![x.to_vec()];
        for Step { operation, reads } in &self.steps {
            let inputs: Vec<&[f32]> = reads.iter().map(|&value| &values[value][..]).collect();
            values.push(operation.forward(&inputs, Parallelism::Serial));
        }
        let mut grads = vec![None; values.len()];
        grads[self.output()] = Some(grad);
        for (index, Step { operation, reads }) in self.steps.iter().enumerate().rev() {
            values.pop(); // No step before needs its own output.
            let grad = grads[index + 1].take().expect("every value is read");
            let inputs: Vec<&[f32]> = reads.iter().map(|&value| &values[value][..]).collect();
            if let Operation::Multiply(linear) = operation {
                visit(linear.id, inputs[0], &grad);
            }
            for (&value, by_input) in reads.iter().zip(operation.backward(&inputs, grad)) {
                match &mut grads[value] {
                    Some(sum) => add(sum, &by_input),
                    none => *none = Some(by_input),
                }
            }
        }
        grads[STREAM].take().expect("the first step reads it")
    }

    /// The value that leaves the layer.
    pub fn output(&self) -> Value {
        self.steps.len()
    }

    /// The value that is an input of matrices.
    pub fn input(&self, input: Input) -> Value {
        let is_it = |step: &Step| matches!(step.operation, Operation::Input(i, _) if i == input);
        1 + self.steps.iter().position(is_it).expect("every layer has every input")
    }

    /// Which values have to be made to get `target`, if some are known: of each whether it has.
    pub fn missing(&self, is_known: impl Fn(Value) -> bool, target: Value) -> Vec<bool> {
        let mut missing = vec![false; self.steps.len() + 1];
        missing[target] = !is_known(target);
        for (index, step) in self.steps.iter().enumerate().rev() {
            if missing[index + 1] {
                step.reads.iter().for_each(|&value| missing[value] |= !is_known(value));
            }
        }
        missing
    }

    /// Whether a value takes long to make, or goes on to the next layer: one to keep where values are made
    /// one by one.
    pub fn is_worth_keeping(&self, value: Value) -> bool {
        let operation = value.checked_sub(1).map(|step| &self.steps[step].operation);
        matches!(operation, Some(Operation::Attend(_) | Operation::AddScaled(_)))
    }

    /// What a step reads that makes `value`.
    pub fn reads(&self, value: Value) -> &[Value] {
        value.checked_sub(1).map_or(&[], |step| &self.steps[step].reads)
    }

    /// The linear layer that makes `value`, if one does.
    pub fn linear_of(&self, value: Value) -> Option<&Linear> {
        match &self.steps[value.checked_sub(1)?].operation {
            Operation::Multiply(linear) => Some(linear),
            _ => None,
        }
    }

    /// The linear layer with the weight `id`.
    ///
    /// # Panics
    /// If it is another layer's.
    pub fn linear_mut(&mut self, id: TensorId) -> &mut Linear {
        let linears = self.steps.iter_mut().filter_map(|step| match &mut step.operation {
            Operation::Multiply(linear) => Some(linear),
            _ => None,
        });
        linears.into_iter().find(|linear| linear.id == id).expect("one of this layer's matrices")
    }
}

impl Operation {
    fn forward(&self, inputs: &[&[f32]], parallelism: Parallelism) -> Vec<f32> {
        let x = inputs[0];
        match self {
            Self::Input(_, None) => x.to_vec(),
            Self::Input(_, Some(norm)) | Self::Norm(norm) => norm.forward(x, parallelism),
            Self::Multiply(linear) => linear.forward(x, parallelism),
            Self::NormQueriesAndKeys(norms) => norms.forward(x, parallelism),
            Self::Rotate(rotation) => rotation.forward(x, parallelism),
            Self::Attend(heads) => heads.forward(x, parallelism),
            Self::Activate(activation) => activate(*activation, x, parallelism),
            Self::Gate => zip(x, inputs[1], |x, y| x * y),
            Self::AddScaled(scale) => zip(x, inputs[1], |x, y| x + y * scale),
        }
    }

    /// `grad`: a loss's gradient by the output → by each input.
    fn backward(&self, inputs: &[&[f32]], grad: Vec<f32>) -> Vec<Vec<f32>> {
        let x = inputs[0];
        match self {
            Self::Input(_, None) => vec![grad],
            Self::Input(_, Some(norm)) | Self::Norm(norm) => vec![norm.backward(x, &grad)],
            Self::Multiply(linear) => vec![linear.backward(&grad)],
            Self::NormQueriesAndKeys(norms) => vec![norms.backward(x, &grad)],
            Self::Rotate(rotation) => vec![rotation.backward(&grad)],
            Self::Attend(heads) => vec![heads.backward(x, &grad)],
            Self::Activate(activation) => vec![activate_backward(*activation, x, grad)],
            Self::Gate => {
                vec![zip(&grad, inputs[1], |g, y| g * y), zip(&grad, x, |g, x| g * x)]
            }
            Self::AddScaled(scale) => {
                let scaled = grad.iter().map(|g| g * scale).collect();
                vec![grad, scaled]
            }
        }
    }
}

fn zip(x: &[f32], y: &[f32], function: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    x.iter().zip(y).map(|(&x, &y)| function(x, y)).collect()
}

/// A layer's list in the making. What the network does not have is left out.
struct List<'a, W> {
    tensors: Tensors<'a, W>,
    index: usize,
    steps: Vec<Step>,
}

impl<W: Weights> List<'_, W> {
    fn push(&mut self, operation: Operation, reads: Vec<Value>) -> Value {
        self.steps.push(Step { operation, reads });
        self.steps.len()
    }

    fn id(&self, role: Role) -> TensorId {
        TensorId::in_layer(self.index, role)
    }

    fn find_norm(&self, role: Role) -> Result<Option<Norm>> {
        let id = self.id(role);
        let norm = self.tensors.has(id).then(|| Norm::load(&self.tensors, id));
        Ok(norm.transpose()?)
    }

    fn input(&mut self, from: Value, input: Input) -> Result<Value> {
        let norm = match input.norm() {
            Some(role) => self.find_norm(role)?,
            None => None,
        };
        Ok(self.push(Operation::Input(input, norm), vec![from]))
    }

    fn multiply(&mut self, from: Value, role: Role) -> Result<Value> {
        let linear = Linear::load(&self.tensors, self.id(role))?;
        Ok(self.push(Operation::Multiply(linear), vec![from]))
    }

    fn norm(&mut self, from: Value, role: Role) -> Result<Value> {
        Ok(match self.find_norm(role)? {
            Some(norm) => self.push(Operation::Norm(norm), vec![from]),
            None => from,
        })
    }

    fn norm_queries_and_keys(&mut self, qkv: Value) -> Result<Value> {
        let attention = &self.tensors.config().attention;
        if attention.query_key_norm == QueryKeyNorm::None {
            return Ok(qkv);
        }
        let norm = |role| Norm::of_kind(&self.tensors, self.id(role), NormKind::Rms);
        let norms = QueryKeyNorms {
            query: norm(Role::QueryNorm)?,
            key: norm(Role::KeyNorm)?,
            widths: [attention.query_width(), attention.kv_width(), attention.qkv_width()],
        };
        Ok(self.push(Operation::NormQueriesAndKeys(norms), vec![qkv]))
    }

    fn rotate(&mut self, qkv: Value) -> Result<Value> {
        let config = self.tensors.config();
        let (attention, base) = (&config.attention, config.layer_kind(self.index).base);
        let (Positions::Rope { pairs, factors }, Some(base)) = (&config.positions, base) else {
            return Ok(qkv);
        };
        let rotation = Rotation {
            frequencies: self.tensors.weights.frequencies()?[base * pairs..][..*pairs].to_vec(),
            factor: factors[base],
            heads: attention.heads + attention.kv_heads,
            head_size: attention.head_size,
            width: attention.qkv_width(),
        };
        Ok(self.push(Operation::Rotate(rotation), vec![qkv]))
    }

    fn attend(&mut self, qkv: Value) -> Result<Value> {
        let slopes = self.tensors.weights.slopes()?;
        let heads = Heads::new(self.tensors.config(), slopes, self.index);
        Ok(self.push(Operation::Attend(heads), vec![qkv]))
    }

    fn activate(&mut self, from: Value) -> Value {
        let activation = self.tensors.config().mlp.activation;
        self.push(Operation::Activate(activation), vec![from])
    }

    fn gate(&mut self, gate: Value, up: Value) -> Value {
        self.push(Operation::Gate, vec![gate, up])
    }

    /// The branch's output is added to the stream.
    fn add_scaled(&mut self, stream: Value, branch: Value) -> Value {
        let scale = self.tensors.config().residual.scale;
        self.push(Operation::AddScaled(scale), vec![stream, branch])
    }
}
