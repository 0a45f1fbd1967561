//! What happens to an output of a matrix product after its sum (`docs/numbers.md` section 4).

use super::math::activate;
use crate::kernels::types::{Activation, CellWriter, Epilogue, Matmul};
use crate::kernels::vector::Vector;
use crate::quant::PANEL_ROWS;

/// Bias, then residual, gate or activation, into the cells of `panel` and the tokens from `first` on.
///
/// # Safety
/// Nobody else uses these cells, which exist.
#[inline(always)]
pub(in crate::kernels) unsafe fn finish<V: Vector>(
    v: V,
    job: &Matmul,
    panel: usize,
    first: usize,
    acc: &[V::F32],
    out: &CellWriter,
) {
    // Decided here, not for every output, so that its constants stay in registers: each arm passes on
    // an epilogue that the compiler knows.
    macro_rules! finish_as {
        ($epilogue:expr) => {
            // SAFETY: the caller's promise.
            unsafe { finish_as(v, job, panel, first, acc, out, $epilogue) }
        };
    }
    match job.epilogue {
        Epilogue::Store => finish_as!(Epilogue::Store),
        Epilogue::AddTo => finish_as!(Epilogue::AddTo),
        Epilogue::AddScaled(factor) => finish_as!(Epilogue::AddScaled(factor)),
        Epilogue::MultiplyTo => finish_as!(Epilogue::MultiplyTo),
        Epilogue::Scale(factor) => finish_as!(Epilogue::Scale(factor)),
        Epilogue::Activate(activation) => match activation {
            Activation::Gelu => finish_as!(Epilogue::Activate(Activation::Gelu)),
            Activation::GeluTanh => finish_as!(Epilogue::Activate(Activation::GeluTanh)),
            Activation::Relu => finish_as!(Epilogue::Activate(Activation::Relu)),
            Activation::Silu => finish_as!(Epilogue::Activate(Activation::Silu)),
        },
    }
}

/// The same with this epilogue.
///
/// # Safety
/// That of [`finish`].
#[inline(always)]
unsafe fn finish_as<V: Vector>(
    v: V,
    job: &Matmul,
    panel: usize,
    first: usize,
    acc: &[V::F32],
    out: &CellWriter,
    epilogue: Epilogue,
) {
    let first_row = panel * PANEL_ROWS;
    let rows = first_row..job.weights.tiles.rows().min(first_row + PANEL_ROWS);
    // -0 is what changes nothing when it is added.
    let bias = match job.bias {
        Some(bias) => v.load_part(&bias[rows.clone()]),
        None => v.splat(-0.0),
    };
    for (t, &acc) in acc.iter().enumerate() {
        let y = v.add(acc, bias);
        // SAFETY: the caller's promise.
        let cells = unsafe { out.cells(first + t, rows.clone()) };
        // A panel with fewer rows is computed in a copy, so that the epilogue is compiled once.
        let mut padded = [0.0; PANEL_ROWS];
        let is_whole = cells.len() == PANEL_ROWS;
        let whole = match <&mut [f32; PANEL_ROWS]>::try_from(&mut *cells) {
            Ok(whole) => whole,
            Err(_) => {
                padded[..cells.len()].copy_from_slice(cells);
                &mut padded
            }
        };
        v.store(apply(v, epilogue, y, v.load(whole)), whole);
        if !is_whole {
            cells.copy_from_slice(&padded[..cells.len()]);
        }
    }
}

/// The epilogue on 16 outputs, given what the cells hold.
#[inline(always)]
fn apply<V: Vector>(v: V, epilogue: Epilogue, y: V::F32, cells: V::F32) -> V::F32 {
    match epilogue {
        Epilogue::Store => y,
        Epilogue::AddTo => v.add(y, cells),
        Epilogue::AddScaled(factor) => v.add(v.mul(y, v.splat(factor)), cells),
        Epilogue::MultiplyTo => v.mul(y, cells),
        Epilogue::Scale(factor) => v.mul(y, v.splat(factor)),
        Epilogue::Activate(activation) => activate(v, activation, y),
    }
}
