//! The tensors of a file: of which of the model's they are made, and writing them.

use std::io::Write;
use std::ops::Range;

use cerebellum::format::Positions;
use cerebellum::format::network::{Role, TensorId};
use half::f16;
use half::slice::HalfFloatSliceExt;

use super::error::{Failure, WriteError};
use super::precision::Precision;
use crate::checkpoint::expected::{Expected, expected};
use crate::checkpoint::gguf::Family;
use crate::checkpoint::tensor::Order;
use crate::checkpoint::{Checkpoint, Scaling, Tensor};
use crate::gguf::{DEFAULT_ALIGNMENT, TensorHead, keys};

/// Values written at once.
const CHUNK: usize = 1 << 18;

/// Families whose head llama.cpp wants as a tensor of its own, whether or not it is the embedding.
const OWN_HEAD: [&str; 2] = ["olmo2", "gptneox"];

/// A tensor of the file to be.
pub struct Planned<'a> {
    stored_name: String,
    /// Row-major, a linear layer's is `[out, in]`.
    shape: Vec<usize>,
    /// What it is made of, in order.
    content: Content<'a>,
    precision: Precision,
    /// From the beginning of the data.
    offset: usize,
}

enum Content<'a> {
    /// Rows of the model's tensors.
    Rows(Vec<Source<'a>>),
    /// Numbers that follow from the configuration.
    Numbers(Vec<f32>),
}

/// Rows, or elements of a vector, of a tensor of the model.
struct Source<'a> {
    tensor: Tensor<'a>,
    /// Which of them.
    rows: Range<usize>,
    /// In which order the file has them.
    order: Order,
    /// The first of the stored tensor's rows that they are.
    place: usize,
}

impl Planned<'_> {
    /// What the file's table says of it.
    pub fn head(&self) -> TensorHead<'_> {
        TensorHead {
            name: &self.stored_name,
            shape: self.shape.clone(),
            kind: self.precision.number(),
            offset: self.offset,
        }
    }

    /// Where its bytes end.
    pub fn end(&self) -> usize {
        self.offset + self.shape.iter().product::<usize>() * self.precision.bytes()
    }
}

/// All tensors of the file, in the order of the model's.
pub fn plan<'a>(
    checkpoint: &'a Checkpoint,
    family: &Family,
    precision: Precision,
) -> Result<Vec<Planned<'a>>, WriteError> {
    let mut planned: Vec<Planned> = Vec::new();
    let model = expected(checkpoint.config(), family.names);
    for tensor in &model {
        add_tensor(&mut planned, checkpoint, tensor, precision)?;
    }
    let embedding = model.iter().find(|tensor| tensor.id == TensorId::outside(Role::Embedding));
    if let (Some(embedding), true, true) =
        (embedding, checkpoint.is_tied(), OWN_HEAD.contains(&family.architecture))
    {
        let (name, _) = family.names.pieces(TensorId::outside(Role::Head)).swap_remove(0);
        let rows = 0..embedding.shape[0];
        let tensor = checkpoint.tensor(&embedding.name)?;
        let source = Source { tensor, rows, order: Order::Plain, place: 0 };
        planned.push(Planned {
            stored_name: name,
            shape: embedding.shape.clone(),
            content: Content::Rows(vec![source]),
            precision,
            offset: 0,
        });
    }
    planned.extend(divisors(checkpoint));
    for tensor in &mut planned {
        if let Content::Rows(sources) = &mut tensor.content {
            sources.sort_by_key(|source| source.place);
        }
    }
    let mut end = 0usize;
    for tensor in &mut planned {
        tensor.offset = end.next_multiple_of(DEFAULT_ALIGNMENT);
        end = tensor.end();
    }
    Ok(planned)
}

/// Adds the stored tensors that a tensor of the model is a part of, or consists of.
fn add_tensor<'a>(
    planned: &mut Vec<Planned<'a>>,
    checkpoint: &'a Checkpoint,
    expected: &Expected,
    precision: Precision,
) -> Result<(), WriteError> {
    let is_vector = expected.shape.len() < 2 || expected.id.role == Role::Positions;
    let mut first = 0;
    for piece in &expected.pieces {
        let tensor = checkpoint.tensor(&expected.name)?;
        let rows = first..first + piece.taken.len();
        first = rows.end;
        let source = Source { tensor, rows, order: piece.order, place: piece.taken.start };
        let known = planned.iter_mut().find(|known| known.stored_name == piece.name);
        match known.map(|known| &mut known.content) {
            Some(Content::Rows(sources)) => sources.push(source),
            _ => {
                let mut shape = expected.shape.clone();
                shape[0] = piece.stored_rows;
                planned.push(Planned {
                    stored_name: piece.name.clone(),
                    shape,
                    content: Content::Rows(vec![source]),
                    precision: if is_vector { Precision::F32 } else { precision },
                    offset: 0,
                });
            }
        }
    }
    Ok(())
}

/// By what llama.cpp divides the inverse frequencies, where no entry says how they are scaled.
fn divisors<'a>(checkpoint: &Checkpoint) -> Option<Planned<'a>> {
    let base = checkpoint.bases().first().filter(|base| base.scaling == Scaling::Divided)?;
    let Positions::Rope { pairs, .. } = checkpoint.config().positions else { return None };
    let plain = |i: usize| 1.0 / libm::pow(base.theta, i as f64 / pairs as f64);
    let frequencies = checkpoint.derived().frequencies.iter().enumerate();
    let numbers: Vec<f32> = frequencies.map(|(i, scaled)| (plain(i) / scaled) as f32).collect();
    Some(Planned {
        stored_name: keys::ROPE_DIVISORS.to_owned(),
        shape: vec![numbers.len()],
        content: Content::Numbers(numbers),
        precision: Precision::F32,
        offset: 0,
    })
}

/// Writes the whole file.
pub fn write(file: &mut impl Write, header: &[u8], tensors: &[Planned]) -> Result<(), Failure> {
    file.write_all(header)?;
    let mut at = 0;
    for planned in tensors {
        let padding = planned.offset - at;
        file.write_all(&[0; DEFAULT_ALIGNMENT][..padding])?;
        match &planned.content {
            Content::Numbers(numbers) => write_values(file, numbers, planned, "")?,
            Content::Rows(sources) => {
                for source in sources {
                    write_rows(file, source, planned)?;
                }
            }
        }
        at = planned.end();
    }
    Ok(file.flush()?)
}

fn write_rows(file: &mut impl Write, source: &Source, planned: &Planned) -> Result<(), Failure> {
    let Source { tensor, rows, order, .. } = source;
    let failed = |error| Failure::Other(WriteError::from(error));
    if planned.shape.len() < 2 {
        // The rows of a vector are its elements.
        let all = tensor.read_rows(0..1).map_err(failed)?;
        let values = ordered(&all[rows.clone()], *order, 1);
        return write_values(file, &values, planned, tensor.name());
    }
    let columns = tensor.columns();
    let step = match order {
        Order::Interleaved { head_size } => *head_size,
        _ => (CHUNK / columns).max(1),
    };
    for first in rows.clone().step_by(step) {
        let values = tensor.read_rows(first..rows.end.min(first + step)).map_err(failed)?;
        write_values(file, &ordered(&values, *order, columns), planned, tensor.name())?;
    }
    Ok(())
}

/// Rows in the order of the file: whole heads, where they are ordered by head.
fn ordered(values: &[f32], order: Order, columns: usize) -> Vec<f32> {
    let mut stored = values.to_vec();
    if order != Order::Plain {
        for (row, values) in values.chunks(columns).enumerate() {
            stored[order.place(row) * columns..][..columns].copy_from_slice(values);
        }
    }
    stored
}

fn write_values(
    file: &mut impl Write,
    values: &[f32],
    planned: &Planned,
    tensor: &str,
) -> Result<(), Failure> {
    let bytes: Vec<u8> = match planned.precision {
        Precision::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Precision::F16 => {
            let mut halves = vec![f16::ZERO; values.len()];
            halves.convert_from_f32_slice(values);
            if let Some(at) = halves.iter().position(|half| !half.is_finite()) {
                let (tensor, value) = (tensor.to_owned(), values[at]);
                return Err(Failure::Other(WriteError::TooLarge { tensor, value }));
            }
            halves.iter().flat_map(|half| half.to_le_bytes()).collect()
        }
    };
    Ok(file.write_all(&bytes)?)
}
