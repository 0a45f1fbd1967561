//! Keys and values to the cache.

use crate::kernels::generic::quantize::{scale_of, to_i8, transformed, transformed_scale_of};
use crate::kernels::types::{HeadCacheMut, KEY_PANEL, KEY_STEP};
use crate::kernels::vector::{LANES, Vector};
use crate::quant::HADAMARD_BLOCK;

/// Puts the key and value of one position into a slot of the cache.
#[inline(always)]
pub(in crate::kernels) fn store<V: Vector>(
    v: V,
    head: &mut HeadCacheMut,
    slot: usize,
    key: &[f32],
    value: &[f32],
) {
    let (panel, lane) = (slot / KEY_PANEL, slot % KEY_PANEL);
    let size = key.len();
    match head {
        HeadCacheMut::F16 { keys, values } => {
            let keys = &mut keys[panel * size * KEY_PANEL..][..size * KEY_PANEL];
            let values = &mut values[slot * size..][..size];
            for (key, keys) in key.chunks(LANES).zip(keys.chunks_mut(LANES * KEY_PANEL)) {
                let key = to_f16(v, key);
                for (key, keys) in key.into_iter().zip(keys.chunks_exact_mut(KEY_PANEL)) {
                    keys[lane] = key;
                }
            }
            for (value, values) in value.chunks(LANES).zip(values.chunks_mut(LANES)) {
                values.copy_from_slice(&to_f16(v, value)[..values.len()]);
            }
        }
        HeadCacheMut::Int8 { keys, key_scales, values, value_scales } => {
            const STEP: usize = KEY_PANEL * KEY_STEP;
            let panel_size = size.next_multiple_of(KEY_STEP) * KEY_PANEL;
            let keys = &mut keys[panel * panel_size..][..panel_size];
            let values = &mut values[slot * size..][..size];
            let ((ks, kr), (vs, vr)) = (transformed_scale_of(v, key), scale_of(v, value));
            key_scales[slot] = ks;
            value_scales[slot] = vs;
            let blocks = keys.chunks_mut(HADAMARD_BLOCK / KEY_STEP * STEP);
            for (key, steps) in key.chunks(HADAMARD_BLOCK).zip(blocks) {
                let mut block = [0.0; HADAMARD_BLOCK];
                let key = transformed(v, key, &mut block);
                let steps = steps.chunks_mut(LANES / KEY_STEP * STEP);
                for (key, steps) in key.chunks(LANES).zip(steps) {
                    let key = to_i8(v, key, kr);
                    let (key, _) = key.as_chunks::<KEY_STEP>();
                    for (key, step) in key.iter().zip(steps.chunks_exact_mut(STEP)) {
                        step[lane * KEY_STEP..][..KEY_STEP].copy_from_slice(key);
                    }
                }
            }
            for (value, values) in value.chunks(LANES).zip(values.chunks_mut(LANES)) {
                values.copy_from_slice(&to_i8(v, value, vr)[..values.len()]);
            }
        }
    }
}

/// `f32_to_f16_saturating` of up to 16 floats.
#[inline(always)]
fn to_f16<V: Vector>(v: V, x: &[f32]) -> [u16; LANES] {
    const MAX: f32 = 65504.0;
    let x = v.at_most(v.load_part(x), v.splat(MAX));
    v.to_f16(v.at_least(x, v.splat(-MAX)))
}
