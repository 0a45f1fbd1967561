//! From a checkpoint to a model file.
//!
//! Tensors are streamed one by one: read, quantized by chunks of rows on all threads, written with
//! their checksums. [`scale`] finds each group's scale, `matrix` fills the panels, `writer` knows the
//! file. The same checkpoint and options give the same bytes, for any number of threads.

mod budget;
mod calibrated;
mod cholesky;
mod error;
mod feedback;
mod k_best;
mod lanes;
mod levels;
mod matrix;
mod observer;
mod options;
mod rounding;
pub mod scale;
mod stakes;
mod trellis;
mod writer;

use std::time::Instant;

use cerebellum::Model;
use cerebellum::format::network::Role;
use cerebellum::format::{
    ChatJson, FileLayout, Header, MatrixInfo, Provenance, Source, Tensor, TensorKind, VERSION,
    matrix_names,
};
use cerebellum::quant::{EXPONENTS, Scheme};
use half::f16;
use half::slice::HalfFloatSliceExt;

pub use budget::Choice;
pub use error::{Error, Result};
pub use observer::Observer;
pub use options::{MatrixFormat, Options};

use crate::calibrate::Sensitivity;
use crate::checkpoint::{self, Checkpoint};
use crate::output::Output;
use crate::summary::Summary;
use budget::Budget;
use calibrated::Calibrated;
use matrix::{Method, Quantized, quantize_matrix};
use writer::ModelWriter;

/// Windows that gradients are measured on: two would do for the embedding.
const SENSITIVITY_WINDOWS: usize = 16;

/// As long as any relative error gets in JSON: four digits behind the most zeros that `serde_json`
/// writes out; smaller numbers get an exponent, which is shorter.
const WIDEST_ERROR: f32 = 0.000001234;

/// As long as any digest.
const UNKNOWN_DIGEST: blake3::Hash = blake3::Hash::from_bytes([0; blake3::OUT_LEN]);

/// Quantizes `checkpoint` into `output`, with the `tokenizer`'s tables if there are any, on the
/// threads of the current rayon pool. The output is read back before it gets its name.
///
/// # Errors
/// Those of [`write()`].
pub fn quantize(
    checkpoint: &Checkpoint,
    tokenizer: Option<&[u8]>,
    options: &Options,
    output: Output,
    observer: &dyn Observer,
) -> Result<Summary> {
    let (output, summary) = write(checkpoint, tokenizer, options, output, observer)?;
    output.commit()?;
    Ok(summary)
}

/// As [`quantize`], but the file, which is complete, has no name yet.
///
/// Memory is bounded by some rows per thread, plus the checkpoint's mapped pages of one tensor; what a
/// calibration text and a budget take beside is in `docs/quantization.md`.
///
/// # Errors
/// See [`Error`]. The output is removed then.
pub fn write(
    checkpoint: &Checkpoint,
    tokenizer: Option<&[u8]>,
    options: &Options,
    output: Output,
    observer: &dyn Observer,
) -> Result<(Output, Summary)> {
    let tokenizer_bytes = tokenizer.map(<[u8]>::len);
    let (mut header, mut layout) = describe(checkpoint, tokenizer_bytes, options, &[])?;
    let weights = |info: &MatrixInfo| (info.shape[0] * info.shape[1]) as u64;
    let passes = 1 + u64::from(options.calibration.is_some()) + u64::from(options.bits.is_some());
    observer.begin(passes * header.tensors.values().map(weights).sum::<u64>());
    let budget = options.bits.map(|bits| Budget::new(&header, bits)).transpose()?;
    let calibration = options.calibration.as_ref();
    if budget.is_some() && calibration.is_none() {
        return Err(Error::BudgetWithoutText);
    }
    let mut sensitivity = None;
    if let Some(calibration) = calibration {
        observer.turn_to("gradients");
        let text = calibration.part(SENSITIVITY_WINDOWS);
        let sensitivity = sensitivity.insert(Sensitivity::measure(checkpoint, &text)?);
        if let Some(budget) = budget {
            let stakes = stakes::measure(checkpoint, &text, sensitivity)?;
            let choices = budget.choose(checkpoint, &stakes, observer)?;
            (header, layout) = describe(checkpoint, tokenizer_bytes, options, &choices)?;
        }
    }
    observer.turn_to("digest of the checkpoint");
    header.source = Some(source(checkpoint, &checkpoint.digest().to_hex())?);
    let mut writer = ModelWriter::new(output, &header, layout.clone())?;
    let is_coarse = header.tensors.values().any(|info| info.scheme != Scheme::Int8);
    let calibrated = calibration
        .zip(sensitivity)
        .map(|(text, sensitivity)| Calibrated::new(checkpoint, text, sensitivity, is_coarse));
    let mut calibrated = calibrated.transpose()?;
    let mut clock = LayerClock::default();
    for tensor in layout.tensors() {
        observer.turn_to(&tensor.name);
        if let (Some(layer), true) = (tensor.id.and_then(|id| id.layer), calibrated.is_some()) {
            clock.enter(layer, header.config.n_layer, observer);
        }
        let quantized = write_tensor(
            checkpoint,
            tensor,
            tokenizer,
            &mut writer,
            calibrated.as_mut(),
            observer,
        )?;
        if let (Some(quantized), Some(info)) = (quantized, header.tensors.get_mut(&tensor.name)) {
            info.exponent = quantized.exponent;
            info.relative_error = quantized.relative_error;
        }
    }
    observer.turn_to("reading back");
    let (output, file_bytes) = writer.finish(&header)?;
    Ok((output, Summary::new(&header, &layout, file_bytes)))
}

/// Tells after the first layer how long the others will take.
#[derive(Default)]
struct LayerClock {
    /// While the first layer is in work.
    started: Option<Instant>,
}

impl LayerClock {
    fn enter(&mut self, layer: usize, layers: usize, observer: &dyn Observer) {
        if layer == 0 {
            self.started.get_or_insert_with(Instant::now);
        } else if let Some(started) = self.started.take() {
            let left = u32::try_from(layers - 1).unwrap_or(u32::MAX);
            observer.expect(started.elapsed().saturating_mul(left));
        }
    }
}

/// What [`quantize`] would make of `checkpoint`, with `tokenizer_bytes` of tokenizer if there is one:
/// the file's summary, without digest and errors of quantization, and a model without weights, to plan
/// with.
///
/// Reads no weights. Nothing but the plan and the configuration of that model means anything.
///
/// # Errors
/// Those of [`quantize`] that can be known without reading weights.
pub fn preview(
    checkpoint: &Checkpoint,
    tokenizer_bytes: Option<usize>,
    options: &Options,
) -> Result<(Summary, Model)> {
    let (mut header, layout) = describe(checkpoint, tokenizer_bytes, options, &[])?;
    let image = writer::hollow(&header, &layout)?;
    let file_bytes = image.len() as u64;
    let model = Model::borrow(image).expect("the writer's own header can be read");
    header.tensors.values_mut().for_each(|info| info.relative_error = None);
    header.source.iter_mut().for_each(|source| source.digest.clear());
    Ok((Summary::new(&header, &layout, file_bytes), model))
}

/// The header, as long as it can get, and the layout that follows from it; with the formats of `choices`,
/// if there are any.
fn describe(
    checkpoint: &Checkpoint,
    tokenizer_bytes: Option<usize>,
    options: &Options,
    choices: &[Choice],
) -> Result<(Header, FileLayout)> {
    let config = checkpoint.config().clone();
    config.validate()?;
    let matrices = matrix_names(&config);
    options.check(&matrices)?;
    let mut header = Header {
        version: VERSION,
        tensors: matrices.into_iter().map(|m| widest_info(m, options, choices)).collect(),
        source: Some(source(checkpoint, &UNKNOWN_DIGEST.to_hex())?),
        quantizer: Provenance::default(),
        templates: options.templates.clone().into_iter().collect(),
        chat: options.chat.as_ref().map(ChatJson::from),
        end_tokens: options.end_tokens.clone(),
        config,
    };
    header.quantizer = provenance(options, choices).into();
    let layout = FileLayout::new(&header.config, &header.tensors, tokenizer_bytes)?;
    Ok((header, layout))
}

/// Writes one tensor; the checksums are the writer's own.
fn write_tensor(
    checkpoint: &Checkpoint,
    tensor: &Tensor,
    tokenizer: Option<&[u8]>,
    writer: &mut ModelWriter,
    calibrated: Option<&mut Calibrated>,
    observer: &dyn Observer,
) -> Result<Option<Quantized>> {
    let mut quantized = None;
    match &tensor.kind {
        TensorKind::Matrix(matrix) => {
            let id = tensor.id.expect("a matrix is the network's");
            let source = checkpoint.tensor(&tensor.name)?;
            quantized = Some(match calibrated {
                None => {
                    let method = Method::NEAREST;
                    quantize_matrix(&source, matrix.tiles, method, |part| {
                        observer.advance((part.rows.len() * matrix.tiles.cols()) as u64);
                        writer.write(&part.panels)
                    })?
                }
                Some(calibrated) => {
                    let metric = calibrated.begin(id, matrix.tiles.group_size())?;
                    observer.advance((matrix.tiles.rows() * matrix.tiles.cols()) as u64);
                    let feedback = calibrated.feedback(id);
                    let (metric, feedback) = (Some(&*metric), feedback.as_ref());
                    let method = Method { metric, feedback, restore: true };
                    let quantized = quantize_matrix(&source, matrix.tiles, method, |part| {
                        observer.advance((part.rows.len() * matrix.tiles.cols()) as u64);
                        calibrated.take(id, &part);
                        writer.write(&part.panels)
                    })?;
                    calibrated.end(id)?;
                    quantized
                }
            });
        }
        TensorKind::Vector => {
            let id = tensor.id.expect("a vector is the network's");
            let corrected = calibrated.and_then(|calibrated| calibrated.bias(id));
            let values = match (corrected, id.role) {
                (Some(bias), _) => bias,
                (None, Role::Slopes) => checkpoint.derived().slopes.clone(),
                (None, _) => checkpoint.read_f32(&tensor.name)?,
            };
            writer.write(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())?;
        }
        TensorKind::Frequencies => {
            let values = checkpoint.derived().frequencies.iter();
            writer.write(&values.flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())?;
        }
        TensorKind::Positions => write_positions(&checkpoint.tensor(&tensor.name)?, writer)?,
        TensorKind::Tokenizer => writer.write(tokenizer.expect("in the layout only if given"))?,
        TensorKind::Checksums => return Ok(None),
    }
    writer.end_tensor();
    Ok(quantized)
}

/// Writes the position table as float16, rounded to nearest even.
fn write_positions(source: &checkpoint::Tensor, writer: &mut ModelWriter) -> Result<()> {
    let cols = source.columns();
    let (mut values, mut halves) = (vec![0.0; cols], vec![f16::ZERO; cols]);
    for row in 0..source.rows() {
        source.read_rows_into(row..row + 1, &mut values)?;
        halves.convert_from_f32_slice(&values);
        if let Some(col) = halves.iter().position(|h| !h.is_finite()) {
            let (tensor, value) = (source.name().to_owned(), values[col]);
            return Err(Error::PositionTooLarge { tensor, value, index: [row, col] });
        }
        writer.write(&halves.iter().flat_map(|h| h.to_le_bytes()).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// What the header will say of a matrix, with the longest values where they are not known yet: its
/// length decides where the data begins.
fn widest_info(
    (name, shape): (String, [usize; 2]),
    options: &Options,
    choices: &[Choice],
) -> (String, MatrixInfo) {
    let choice = choices.iter().find(|choice| choice.tensor == name).map(Choice::format);
    let exception = || options.exceptions.get(&name).copied();
    let format = choice.or_else(exception).unwrap_or(options.format);
    let info = MatrixInfo {
        scheme: format.scheme,
        group_size: format.group_size,
        shape,
        exponent: *EXPONENTS.start(),
        relative_error: Some(WIDEST_ERROR),
    };
    (name, info)
}

fn source(checkpoint: &Checkpoint, digest: &str) -> Result<Source> {
    let mut bytes = 0;
    for name in checkpoint.tensor_names() {
        bytes += checkpoint.tensor(name)?.stored_bytes();
    }
    Ok(Source { digest: format!("blake3:{digest}"), bytes })
}

/// What made the file: what decides its bytes beside the checkpoint.
fn provenance(options: &Options, choices: &[Choice]) -> serde_json::Value {
    let mut record = match options.bits {
        None => serde_json::json!({
            "weights": options.format.scheme.name(),
            "group_size": options.format.group_size,
        }),
        Some(bits) => serde_json::json!({ "bits": bits, "choices": choices }),
    };
    let exceptions = options.exceptions.iter().filter(|_| options.bits.is_none());
    for (name, MatrixFormat { scheme, group_size }) in exceptions {
        record["exceptions"][name] =
            serde_json::json!({ "weights": scheme.name(), "group_size": group_size });
    }
    if let Some(calibration) = &options.calibration {
        record["calibration"] = serde_json::json!({
            "tokens": calibration.digest(),
            "windows": calibration.windows(),
            "window": calibration.window(),
        });
    }
    let mut provenance =
        serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "options": record });
    // Whether JSON objects keep the order of insertion is up to other crates' features.
    provenance.sort_all_objects();
    provenance
}
