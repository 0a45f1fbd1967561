//! Keys and values to the cache.

use super::inputs::*;
use super::report::*;
use crate::kernels::*;

/// Owned [`HeadCache`], full of NaN, infinities and junk where nothing was stored.
#[derive(Clone)]
pub enum Cache {
    F16 { keys: Vec<u16>, values: Vec<u16> },
    Int8 { keys: Vec<i8>, key_scales: Vec<f32>, values: Vec<i8>, value_scales: Vec<f32> },
}

impl Cache {
    pub fn new(kind: CacheKind, positions: usize, size: usize) -> Self {
        let positions = positions.next_multiple_of(KEY_PANEL);
        match kind {
            CacheKind::F16 => {
                let junk = [0x7e00, 0x7c00, 0xfc00].into_iter().cycle();
                let junk: Vec<u16> = junk.take(positions * size).collect();
                Self::F16 { keys: junk.clone(), values: junk }
            }
            CacheKind::Int8 => {
                // The padding of a step is zero.
                let keys = positions * size.next_multiple_of(KEY_STEP);
                Self::Int8 {
                    keys: vec![0; keys],
                    key_scales: vec![f32::NAN; positions],
                    values: vec![-128; positions * size],
                    value_scales: vec![f32::NAN; positions],
                }
            }
        }
    }

    pub fn get(&self) -> HeadCache<'_> {
        match self {
            Self::F16 { keys, values } => HeadCache::F16 { keys, values },
            Self::Int8 { keys, key_scales, values, value_scales } => {
                HeadCache::Int8 { keys, key_scales, values, value_scales }
            }
        }
    }

    pub fn get_mut(&mut self) -> HeadCacheMut<'_> {
        match self {
            Self::F16 { keys, values } => HeadCacheMut::F16 { keys, values },
            Self::Int8 { keys, key_scales, values, value_scales } => {
                HeadCacheMut::Int8 { keys, key_scales, values, value_scales }
            }
        }
    }
}

pub const HEAD_SIZES: [usize; 12] = [1, 4, 7, 8, 16, 20, 32, 64, 80, 96, 128, 256];
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheKind {
    F16,
    Int8,
}

pub const KINDS: [CacheKind; 2] = [CacheKind::F16, CacheKind::Int8];

#[test]
fn store_equals_the_definition() {
    each_table("store", |kernels, report| {
        let random = &mut Random(7);
        for (size, kind) in HEAD_SIZES.into_iter().flat_map(|size| KINDS.map(|kind| (size, kind))) {
            for floats in FLOATS {
                let [mut got, mut want] = [0; 2].map(|_| Cache::new(kind, SEGMENT, size));
                // The last ones come around.
                for position in [0, 1, 15, 16, 31, 255, 256 + 2, 7 * 256 + 3] {
                    let [key, value] = [0; 2].map(|_| floats.row(size, random));
                    kernels.store(&mut got.get_mut(), position, &key, &value);
                    scalar().store(&mut want.get_mut(), position % SEGMENT, &key, &value);
                }
                let case = format!("{size} {kind:?} {floats:?}");
                compare_caches(&case, &got, &want, report);
            }
        }
    });
}

pub fn compare_caches(case: &str, got: &Cache, want: &Cache, report: &mut Report) {
    let halves =
        |bits: &[u16]| -> Vec<f32> { bits.iter().map(|&bits| scalar::f16_to_f32(bits)).collect() };
    match (got.get(), want.get()) {
        (HeadCache::F16 { keys: k1, values: v1 }, HeadCache::F16 { keys: k2, values: v2 }) => {
            report.case(format!("keys {case}"), &halves(k1), &halves(k2));
            report.case(format!("values {case}"), &halves(v1), &halves(v2));
        }
        (
            HeadCache::Int8 { keys: k1, key_scales: ks1, values: v1, value_scales: vs1 },
            HeadCache::Int8 { keys: k2, key_scales: ks2, values: v2, value_scales: vs2 },
        ) => {
            report.case(format!("keys {case}"), k1, k2);
            report.case(format!("key scales {case}"), ks1, ks2);
            report.case(format!("values {case}"), v1, v2);
            report.case(format!("value scales {case}"), vs1, vs2);
        }
        _ => unreachable!("caches of one type"),
    }
}
