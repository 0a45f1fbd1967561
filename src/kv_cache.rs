//! The key-value cache: where each head's keys and values lie (`docs/numbers.md` section 7).

use std::ops::Range;

use crate::error::Result;
use crate::format::Config;
use crate::kernels::{HeadCache, HeadCacheMut, KEY_PANEL, KEY_STEP, fetch};
use crate::memory::{Arena, Plain, Planner, Region};

/// How much of a head's keys, and of its values, is fetched ahead.
const FETCH_BYTES: usize = 8 << 10;
/// What one fetch brings.
const LINE: usize = 64;

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
    layers: usize,
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

/// The first positions of every head in one region, in bytes.
#[derive(Clone, Copy)]
struct Prefix {
    start: usize,
    stride: usize,
    bytes: usize,
}

impl Prefix {
    fn of_head(self, head: usize) -> Range<usize> {
        let start = self.start + head * self.stride;
        start..start + self.bytes
    }
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
        Ok(Self { regions, layers: config.n_layer, heads, head_size, positions })
    }

    /// Bytes for each position.
    pub fn position_bytes(config: &Config, kind: KvType) -> Result<usize> {
        let mut planner = Planner::default();
        Self::plan(&mut planner, config, kind, KEY_PANEL)?;
        Ok(planner.bytes().div_ceil(KEY_PANEL))
    }

    /// The type of its values.
    pub fn kind(&self) -> KvType {
        match self.regions {
            Regions::F16 { .. } => KvType::F16,
            Regions::Int8 { .. } => KvType::Int8,
        }
    }

    /// Where the first `positions` positions lie, in bytes from the beginning of the arena, head by
    /// head: the same lengths in the same order for any cache of the same model and type, however
    /// many positions it has. Keys come in whole panels.
    pub fn prefix(&self, positions: usize) -> impl Iterator<Item = Range<usize>> + '_ {
        let key_size = self.head_size.next_multiple_of(KEY_STEP);
        let whole = positions.next_multiple_of(KEY_PANEL);
        let parts = match self.regions {
            Regions::F16 { keys, values } => [
                Some(self.prefix_of(keys, self.head_size, whole)),
                Some(self.prefix_of(values, self.head_size, positions)),
                None,
                None,
            ],
            Regions::Int8 { keys, key_scales, values, value_scales } => [
                Some(self.prefix_of(keys, key_size, whole)),
                Some(self.prefix_of(key_scales, 1, positions)),
                Some(self.prefix_of(values, self.head_size, positions)),
                Some(self.prefix_of(value_scales, 1, positions)),
            ],
        };
        let heads = 0..self.layers * self.heads;
        parts
            .into_iter()
            .flatten()
            .flat_map(move |part| heads.clone().map(move |n| part.of_head(n)))
    }

    fn prefix_of<T: Plain>(&self, region: Region<T>, size: usize, positions: usize) -> Prefix {
        let head = region.bytes_of(0..self.positions * size);
        Prefix { start: head.start, stride: head.len(), bytes: positions * size * size_of::<T>() }
    }

    /// Clears the lanes of keys that were never stored, or were stored and rewound, in the panel
    /// that `positions` ends in; nobody attends to them, but they would be saved.
    pub fn clear_unused_lanes(&self, arena: &mut Arena, positions: usize) {
        let lane = positions % KEY_PANEL;
        if lane == 0 {
            return;
        }
        let (lane_bytes, size, keys) = match self.regions {
            Regions::F16 { keys, .. } => {
                (size_of::<u16>(), self.head_size, self.prefix_of(keys, self.head_size, positions))
            }
            Regions::Int8 { keys, .. } => {
                let size = self.head_size.next_multiple_of(KEY_STEP);
                (KEY_STEP, size / KEY_STEP, self.prefix_of(keys, size, positions))
            }
        };
        // A panel is rows of 16 lanes: a row per dimension, or per step of dimensions.
        let panel = KEY_PANEL * lane_bytes * size;
        for head in 0..self.layers * self.heads {
            let start = keys.of_head(head).start + positions / KEY_PANEL * panel;
            let rows = arena.bytes(start..start + panel);
            for row in rows.chunks_exact_mut(KEY_PANEL * lane_bytes) {
                row[lane * lane_bytes..].fill(0);
            }
        }
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

    /// Fetches one head's first `positions` keys and values, or the beginning of more of them: caches of
    /// several sequences lie apart, and the processor fetches ahead of a long stream only.
    pub fn fetch(&self, arena: &Arena, layer: usize, head: usize, positions: usize) {
        let positions = positions.next_multiple_of(KEY_PANEL).min(self.positions);
        match self.regions {
            Regions::F16 { keys, values } => {
                self.fetch_head(arena, keys, self.head_size, (layer, head, positions));
                self.fetch_head(arena, values, self.head_size, (layer, head, positions));
            }
            Regions::Int8 { keys, values, .. } => {
                let key_size = self.head_size.next_multiple_of(KEY_STEP);
                self.fetch_head(arena, keys, key_size, (layer, head, positions));
                self.fetch_head(arena, values, self.head_size, (layer, head, positions));
            }
        }
    }

    fn fetch_head<T: Plain>(
        &self,
        arena: &Arena,
        region: Region<T>,
        size: usize,
        (layer, head, positions): (usize, usize, usize),
    ) {
        let first = self.range(layer, head, size).start;
        let head = region.bytes_of(first..first + positions * size);
        let bytes = head.len().min(FETCH_BYTES);
        for line in (head.start..head.start + bytes).step_by(LINE) {
            fetch(arena.address_of(line));
        }
    }

    /// The part of a region that belongs to one head, with `size` values per position.
    fn range(&self, layer: usize, head: usize, size: usize) -> Range<usize> {
        let len = self.positions * size;
        let start = (layer * self.heads + head) * len;
        start..start + len
    }
}
