//! The key-value cache: where each head's keys and values lie (`docs/numbers.md` section 7).

use crate::error::Result;
use crate::format::Config;
use crate::kernels::{HeadCache, HeadCacheMut, KEY_PANEL, KEY_STEP};
use crate::memory::{Arena, Planner, Region};

/// Type of the cached keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvType {
    /// Float16.
    #[default]
    F16,
    /// Int8 with one scale per head and position: about half the bytes.
    Int8,
}

impl KvType {
    /// The name used on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }
}

/// Keys and values of every layer and head, for a fixed number of positions.
pub(crate) struct KvCache {
    regions: Regions,
    heads: usize,
    head_size: usize,
    /// Positions, in whole panels.
    positions: usize,
}

/// Each region is `[layers][heads][one head]`.
#[derive(Clone, Copy)]
enum Regions {
    F16 {
        keys: Region<u16>,
        values: Region<u16>,
    },
    Int8 {
        keys: Region<i8>,
        key_scales: Region<f32>,
        values: Region<i8>,
        value_scales: Region<f32>,
    },
}

impl KvCache {
    /// Plans a cache for `context` positions.
    pub fn plan(
        planner: &mut Planner,
        config: &Config,
        kind: KvType,
        context: usize,
    ) -> Result<Self> {
        let (heads, head_size) = (config.n_head, config.head_size());
        let positions = context.next_multiple_of(KEY_PANEL);
        let all = [config.n_layer, heads, positions];
        let with = |size: usize| [all[0], all[1], all[2], size];
        let regions = match kind {
            KvType::F16 => Regions::F16 {
                keys: planner.reserve(&with(head_size))?,
                values: planner.reserve(&with(head_size))?,
            },
            KvType::Int8 => Regions::Int8 {
                keys: planner.reserve(&with(head_size.next_multiple_of(KEY_STEP)))?,
                key_scales: planner.reserve(&all)?,
                values: planner.reserve(&with(head_size))?,
                value_scales: planner.reserve(&all)?,
            },
        };
        Ok(Self { regions, heads, head_size, positions })
    }

    /// One head's keys and values.
    ///
    /// # Safety
    /// Nobody writes that head's cache while the slices live.
    pub unsafe fn head<'a>(&self, arena: &'a Arena, layer: usize, head: usize) -> HeadCache<'a> {
        let of = |size: usize| self.range(layer, head, size);
        let key_size = self.head_size.next_multiple_of(KEY_STEP);
        // SAFETY: the caller's promise, region by region.
        unsafe {
            match self.regions {
                Regions::F16 { keys, values } => HeadCache::F16 {
                    keys: arena.read(keys, of(self.head_size)),
                    values: arena.read(values, of(self.head_size)),
                },
                Regions::Int8 { keys, key_scales, values, value_scales } => HeadCache::Int8 {
                    keys: arena.read(keys, of(key_size)),
                    key_scales: arena.read(key_scales, of(1)),
                    values: arena.read(values, of(self.head_size)),
                    value_scales: arena.read(value_scales, of(1)),
                },
            }
        }
    }

    /// One head's keys and values, to write.
    ///
    /// # Safety
    /// Nobody else reads or writes that head's cache while the slices live.
    pub unsafe fn head_mut<'a>(
        &self,
        arena: &'a Arena,
        layer: usize,
        head: usize,
    ) -> HeadCacheMut<'a> {
        let of = |size: usize| self.range(layer, head, size);
        let key_size = self.head_size.next_multiple_of(KEY_STEP);
        // SAFETY: the caller's promise, region by region.
        unsafe {
            match self.regions {
                Regions::F16 { keys, values } => HeadCacheMut::F16 {
                    keys: arena.write(keys, of(self.head_size)),
                    values: arena.write(values, of(self.head_size)),
                },
                Regions::Int8 { keys, key_scales, values, value_scales } => HeadCacheMut::Int8 {
                    keys: arena.write(keys, of(key_size)),
                    key_scales: arena.write(key_scales, of(1)),
                    values: arena.write(values, of(self.head_size)),
                    value_scales: arena.write(value_scales, of(1)),
                },
            }
        }
    }

    /// The part of a region that belongs to one head, with `size` values per position.
    fn range(&self, layer: usize, head: usize, size: usize) -> std::ops::Range<usize> {
        let len = self.positions * size;
        let start = (layer * self.heads + head) * len;
        start..start + len
    }
}
