//! What a forward pass does, as a list of operations: compiled from a model's configuration, once.
//!
//! [`layer`] has the order, and each step's shape. A new architecture is a new arm there.

mod operation;
mod places;
mod schedule;

use alloc::vec::Vec;
use core::f32::consts::LOG2_E;
use core::ops::Range;

pub(crate) use self::operation::{Buffer, Operation};
use self::places::Places;
pub(crate) use self::places::{LinearAt, MatrixAt, NormAt};
pub(crate) use self::schedule::{Phases, Schedules};

use crate::format::network::{self, Role, TensorId};
use crate::format::{Config, FileLayout, MlpKind, Positions, QueryKeyNorm, ResidualOrder};
use crate::kernels::Epilogue;

/// A layer.
pub(crate) struct Layer {
    pub operations: Vec<Operation>,
    /// Which kind of layer it is, and how many of that kind come before it: its place in a cache.
    pub kind: (usize, usize),
}

/// A model's weights and operations.
pub(crate) struct Program {
    /// `[V, E]`.
    pub wte: MatrixAt,
    /// Float16 `[n_positions, E]`, if positions are learned.
    pub wpe: Option<Range<usize>>,
    /// `[H]`, if the model has ALiBi.
    pub slopes: Option<Range<usize>>,
    /// Float64 `[bases, pairs]`, if positions are rotated.
    pub frequencies: Option<Range<usize>>,
    pub layers: Vec<Layer>,
    pub schedules: Schedules,
    pub ln_f: NormAt,
    /// `[V, E]`; the same as `wte` when tied.
    pub head: MatrixAt,
}

impl Program {
    /// The program of a model whose header was validated.
    pub fn compile(config: &Config, layout: &FileLayout) -> Self {
        let places = Places(layout);
        let outside = TensorId::outside;
        let mut of_kind = vec![0; config.attention.kinds.len()];
        let layers: Vec<_> = (0..config.n_layer)
            .map(|n| {
                let kind = config.kind_index(n);
                let before = of_kind[kind];
                of_kind[kind] += 1;
                Layer { operations: layer(config, n, &places), kind: (kind, before) }
            })
            .collect();
        Self {
            wte: places.matrix(outside(Role::Embedding)),
            wpe: places.find(outside(Role::Positions)),
            slopes: places.find(outside(Role::Slopes)),
            frequencies: places.find(outside(Role::Frequencies)),
            schedules: Schedules::of(&layers[0].operations),
            layers,
            ln_f: places.norm(outside(Role::FinalNorm)).expect("read_header requires it"),
            head: places.matrix(network::head(config)),
        }
    }

    /// Every matrix that quantized rows enter.
    pub fn matrices(&self) -> impl Iterator<Item = &MatrixAt> {
        let operations = self.layers.iter().flat_map(|layer| &layer.operations);
        let of_layers = operations.filter_map(|operation| match operation {
            Operation::Multiply { linear, .. } => Some(&linear.matrix),
            _ => None,
        });
        of_layers.chain([&self.head])
    }
}

/// The operations of a layer, in the order in which rows pass them.
fn layer(config: &Config, n: usize, places: &Places) -> Vec<Operation> {
    let mut list = List { config, n, places, operations: Vec::new() };
    // Attention                                      shapes of a row
    list.input(Buffer::Residual, Role::AttentionNorm, Role::AttentionIn); // [E]
    list.multiply(Role::AttentionIn, Epilogue::Store, Buffer::Qkv); //       [(H + 2 K) D]
    list.rotate();
    list.push(Operation::Store); //                                          [K D] twice
    list.attend(); //                                                        [H D]
    list.push(Operation::Narrow);
    match config.residual.order {
        ResidualOrder::Sequential => {
            list.input(Buffer::Attended, Role::AttentionOut, Role::AttentionOut);
            list.output(Role::AttentionOut, Role::AttentionOutNorm); //      [E]
            list.mlp_up(); //                                                [F]
        }
        // The MLP reads the residual stream before attention's output is added to it.
        ResidualOrder::Parallel => {
            list.mlp_up(); //                                                [F]
            list.input(Buffer::Attended, Role::AttentionOut, Role::AttentionOut);
            list.output(Role::AttentionOut, Role::AttentionOutNorm); //      [E]
        }
    }
    list.input(Buffer::Inner, Role::MlpDown, Role::MlpDown);
    list.output(Role::MlpDown, Role::MlpOutNorm); //                         [E]
    list.operations
}

/// A layer's list in the making.
struct List<'a> {
    config: &'a Config,
    n: usize,
    places: &'a Places<'a>,
    operations: Vec<Operation>,
}

impl List<'_> {
    fn push(&mut self, operation: Operation) {
        self.operations.push(operation);
    }

    fn id(&self, role: Role) -> TensorId {
        TensorId::in_layer(self.n, role)
    }

    /// A buffer, through the norm of a role if the layer has it, becomes the input of a matrix.
    fn input(&mut self, from: Buffer, norm: Role, matrix: Role) {
        let norm = self.places.norm(self.id(norm)).filter(|_| from == Buffer::Residual);
        let tiles = self.places.matrix(self.id(matrix)).tiles;
        self.push(Operation::Quantize { from, norm, tiles });
    }

    fn multiply(&mut self, role: Role, epilogue: Epilogue, to: Buffer) {
        let linear = self.places.linear(self.id(role));
        self.push(Operation::Multiply { linear, epilogue, to });
    }

    /// A matrix's output is added to the residual stream, or a norm's of it.
    fn output(&mut self, role: Role, norm: Role) {
        let scale = self.config.residual.scale;
        match self.places.norm(self.id(norm)) {
            None if scale == 1.0 => self.multiply(role, Epilogue::AddTo, Buffer::Residual),
            None => self.multiply(role, Epilogue::AddScaled(scale), Buffer::Residual),
            Some(norm) => {
                self.multiply(role, Epilogue::Store, Buffer::Branch);
                self.push(Operation::AddNormed { norm, scale });
            }
        }
    }

    fn mlp_up(&mut self) {
        let mlp = self.config.mlp;
        let activate = Epilogue::Activate(mlp.activation);
        self.input(Buffer::Residual, Role::MlpNorm, Role::MlpUp);
        match mlp.kind {
            MlpKind::Plain => self.multiply(Role::MlpUp, activate, Buffer::Inner),
            MlpKind::Gated => {
                self.multiply(Role::MlpGate, activate, Buffer::Inner);
                self.multiply(Role::MlpUp, Epilogue::MultiplyTo, Buffer::Inner);
            }
        }
    }

    fn rotate(&mut self) {
        let (query, key) = (self.id(Role::QueryNorm), self.id(Role::KeyNorm));
        let norms = self.places.norm(query).zip(self.places.norm(key));
        let base = self.config.layer_kind(self.n).base;
        let rotates = matches!(self.config.positions, Positions::Rope { .. });
        match (self.config.attention.query_key_norm, norms) {
            (QueryKeyNorm::Width, Some((query, key))) => {
                self.push(Operation::NormQueriesAndKeys { query, key });
                self.push(Operation::RotateHeads { norms: None, base });
            }
            (_, norms) if rotates || norms.is_some() => {
                self.push(Operation::RotateHeads { norms, base });
            }
            _ => {}
        }
    }

    fn attend(&mut self) {
        let mut scale = self.config.attention.scale;
        if self.config.attention.scale_by_layer {
            scale /= (self.n + 1) as f32;
        }
        // Softmax is computed in base 2.
        let window = self.config.layer_kind(self.n).window;
        self.push(Operation::Attend { scale: scale * LOG2_E, window });
        self.push(Operation::Merge { window });
    }
}
