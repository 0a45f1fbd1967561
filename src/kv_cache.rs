//! The key-value cache: where each head's keys and values lie (`docs/numbers.md` section 7).
//!
//! Layers of a kind lie together. Where a layer's queries see all positions, the cache has all of them.
//! Where they see a window, it is a ring: position `p` lies in slot `p % capacity`, and the positions that
//! no query will see again make room for new ones.

use core::ops::Range;

use crate::error::Result;
use crate::format::{Config, MAX_KINDS};
use crate::kernels::{HeadCache, HeadCacheMut, KEY_PANEL, KEY_STEP, SEGMENT, prefetch};
use crate::memory::{Arena, Plain, Planner, Region};

/// Positions of a block of keys and values that can be copied from one sequence of a batch to another
/// ([`Batch::copy_block`](crate::batch::Batch::copy_block)).
pub const CACHE_BLOCK: usize = KEY_PANEL;

/// How much of a head's keys, and of its values, is fetched ahead.
const PREFETCH_BYTES: usize = 8 << 10;
/// What one prefetch brings.
const LINE: usize = 64;

/// Type of the cached keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
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

/// Keys and values of every layer and head of keys, for a fixed number of positions.
pub(crate) struct KvCache {
    kinds: [Option<OfKind>; MAX_KINDS],
    kind: KvType,
    heads: usize,
    head_size: usize,
    history: History,
}

/// The cache of the layers of a kind.
#[derive(Clone, Copy)]
struct OfKind {
    regions: Regions,
    layers: usize,
    /// Positions that queries see; `None` if all.
    window: Option<usize>,
    /// Slots for positions: whole panels, or whole segments where the slots are a ring.
    capacity: usize,
}

/// What was stored since the cache was last empty: in a ring, newer positions have taken the places of
/// older ones.
#[derive(Clone, Copy, Default)]
struct History {
    /// The position after the last one that was ever stored.
    highest: usize,
    /// Where a saved session was restored, of which a ring has only what later queries see.
    restored: usize,
}

/// A layer's place: which kind it is of, and which of that kind it is.
pub(crate) type LayerPlace = (usize, usize);

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

impl OfKind {
    fn plan(
        planner: &mut Planner,
        kind: KvType,
        all: [usize; 3],
        head_size: usize,
    ) -> Result<Regions> {
        let with = |size: usize| [all[0], all[1], all[2], size];
        Ok(match kind {
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
        })
    }

    /// The first position that a query at `position` or a later one sees, at the beginning of a panel.
    fn first_seen(&self, position: usize) -> usize {
        let window = self.window.unwrap_or(usize::MAX);
        (position + 1).saturating_sub(window) / KEY_PANEL * KEY_PANEL
    }

    /// Whether the keys are there that a query at `position` sees.
    fn holds(&self, position: usize, history: History) -> bool {
        self.first_seen(position) >= self.oldest(history)
    }

    /// The first position whose keys are there.
    fn oldest(&self, history: History) -> usize {
        // Storing takes the place of what lies `capacity` before it, in whole panels.
        let overwritten = history.highest.next_multiple_of(KEY_PANEL).saturating_sub(self.capacity);
        let restored = match self.window {
            Some(_) if history.restored > 0 => self.first_seen(history.restored),
            _ => 0,
        };
        overwritten.max(restored)
    }

    /// Slots of the positions `from..to`, in order: the second range has those behind which the ring began anew.
    fn slots(&self, from: usize, to: usize) -> [Range<usize>; 2] {
        let capacity = self.capacity;
        let (start, len) = (from % capacity, to - from);
        let first = start..capacity.min(start + len);
        let rest = len - first.len();
        [first, 0..rest]
    }

    /// The part of a region that belongs to one head of a layer, with `size` values per position.
    fn range(&self, layer: usize, heads: usize, head: usize, size: usize) -> Range<usize> {
        let len = self.capacity * size;
        let start = (layer * heads + head) * len;
        start..start + len
    }
}

impl KvCache {
    /// Plans a cache for `context` positions, stored by passes over at most `rows` tokens.
    pub fn plan(
        planner: &mut Planner,
        config: &Config,
        kind: KvType,
        context: usize,
        rows: usize,
    ) -> Result<Self> {
        let (heads, head_size) = (config.attention.kv_heads, config.attention.head_size);
        let mut kinds = [None; MAX_KINDS];
        for (index, layer_kind) in config.attention.kinds.iter().enumerate() {
            let layers = (0..config.n_layer).filter(|&n| config.kind_index(n) == index).count();
            let capacity = capacity(layer_kind.window, context, rows);
            let regions = OfKind::plan(planner, kind, [layers, heads, capacity], head_size)?;
            kinds[index] = Some(OfKind { regions, layers, window: layer_kind.window, capacity });
        }
        Ok(Self { kinds, kind, heads, head_size, history: History::default() })
    }

    /// Bytes of a cache for `context` positions.
    pub fn bytes(config: &Config, kind: KvType, context: usize, rows: usize) -> Result<usize> {
        let mut planner = Planner::default();
        Self::plan(&mut planner, config, kind, context, rows)?;
        Ok(planner.bytes())
    }

    /// The type of its values.
    pub fn kind(&self) -> KvType {
        self.kind
    }

    /// Whether a query at `position` finds the keys that it sees, if those before it were all stored at
    /// some time. Where it does not, as after a long way back in a model with windows, the tokens before
    /// it have to be evaluated again, from the first one.
    pub fn holds(&self, position: usize) -> bool {
        self.kinds().all(|of_kind| of_kind.holds(position, self.history))
    }

    /// Notes that positions up to `end` are being stored.
    pub fn note_stored(&mut self, end: usize) {
        self.history.highest = self.history.highest.max(end);
    }

    /// Notes that the cache is empty, or filled with what [`used`](Self::used) says of another one that had
    /// `position` positions.
    pub fn note_restored(&mut self, position: usize) {
        self.history = History { highest: position, restored: position };
    }

    /// Notes that a pass was given up while the tokens before it were evaluated again: nothing that is there
    /// is worth anything until all of it is.
    pub fn note_lost(&mut self) {
        self.history.highest = usize::MAX / 2;
    }

    fn kinds(&self) -> impl Iterator<Item = OfKind> + '_ {
        self.kinds.iter().copied().flatten()
    }

    fn of(&self, (kind, _): LayerPlace) -> OfKind {
        self.kinds[kind].expect("a layer is of a kind that the configuration has")
    }

    /// Where everything lies that queries from `positions` on will see of the positions before, in bytes
    /// from the beginning of the arena: the same lengths in the same order for any cache of the same model
    /// and type, however many positions it has. Keys come in whole panels.
    pub fn used(&self, positions: usize) -> impl Iterator<Item = Range<usize>> + '_ {
        self.parts().flat_map(move |(of_kind, part)| {
            let from = of_kind.first_seen(positions).min(positions / KEY_PANEL * KEY_PANEL);
            let to = if part.keys { positions.next_multiple_of(KEY_PANEL) } else { positions };
            self.places(of_kind, part, from, to)
        })
    }

    /// How many bytes [`used`](Self::used) are.
    pub fn used_bytes(&self, positions: usize) -> usize {
        self.used(positions).map(|range| range.len()).sum()
    }

    /// Where a block of [`CACHE_BLOCK`] positions lies, the first of which is `start`: the same lengths in the
    /// same order for any block of any cache of the same model and type.
    pub fn block(&self, start: usize) -> impl Iterator<Item = Range<usize>> + '_ {
        debug_assert_eq!(start % CACHE_BLOCK, 0);
        self.parts()
            .flat_map(move |(of_kind, part)| self.places(of_kind, part, start, start + CACHE_BLOCK))
    }

    /// Whether the block at `start`, all of which was stored, is still there.
    pub fn has_block(&self, start: usize) -> bool {
        self.kinds().all(|of_kind| start >= of_kind.oldest(self.history))
    }

    /// The regions of each kind, keys first.
    fn parts(&self) -> impl Iterator<Item = (OfKind, Part)> + '_ {
        let key_size = self.head_size.next_multiple_of(KEY_STEP);
        let size = self.head_size;
        let parts = match self.kind {
            KvType::F16 => 2,
            KvType::Int8 => 4,
        };
        let kinds = self.kinds.len();
        (0..parts * kinds).filter_map(move |number| {
            let of_kind = self.kinds[number % kinds]?;
            let part = match (of_kind.regions, number / kinds) {
                (Regions::F16 { keys, .. }, 0) => Part::new(keys, size, true),
                (Regions::F16 { values, .. }, _) => Part::new(values, size, false),
                (Regions::Int8 { keys, .. }, 0) => Part::new(keys, key_size, true),
                (Regions::Int8 { key_scales, .. }, 1) => Part::new(key_scales, 1, false),
                (Regions::Int8 { values, .. }, 2) => Part::new(values, size, false),
                (Regions::Int8 { value_scales, .. }, _) => Part::new(value_scales, 1, false),
            };
            Some((of_kind, part))
        })
    }

    /// Where the positions `from..to` lie in a region, head by head.
    fn places(
        &self,
        of_kind: OfKind,
        part: Part,
        from: usize,
        to: usize,
    ) -> impl Iterator<Item = Range<usize>> + use<> {
        let slots = of_kind.slots(from, to);
        (0..2 * of_kind.layers * self.heads).filter_map(move |number| {
            let slots = slots[number % 2].clone();
            (!slots.is_empty()).then(|| part.of_head(number / 2, of_kind.capacity, slots))
        })
    }

    /// Clears the lanes of keys that were never stored, or were stored and rewound, in the panel
    /// that `positions` ends in; nobody attends to them, but they would be saved.
    pub fn clear_unused_lanes(&mut self, arena: &mut Arena, positions: usize) {
        let lane = positions % KEY_PANEL;
        if lane == 0 {
            return;
        }
        self.note_stored(positions.next_multiple_of(KEY_PANEL));
        for of_kind in self.kinds() {
            let (lane_bytes, rows, keys) = match of_kind.regions {
                Regions::F16 { keys, .. } => {
                    (size_of::<u16>(), self.head_size, Part::new(keys, self.head_size, true))
                }
                Regions::Int8 { keys, .. } => {
                    let size = self.head_size.next_multiple_of(KEY_STEP);
                    (KEY_STEP, size / KEY_STEP, Part::new(keys, size, true))
                }
            };
            // A panel is rows of 16 lanes: a row per dimension, or per step of dimensions.
            let panel = positions / KEY_PANEL * KEY_PANEL % of_kind.capacity;
            for head in 0..of_kind.layers * self.heads {
                let panel = keys.of_head(head, of_kind.capacity, panel..panel + KEY_PANEL);
                debug_assert_eq!(panel.len(), KEY_PANEL * lane_bytes * rows);
                for row in arena.bytes(panel).chunks_exact_mut(KEY_PANEL * lane_bytes) {
                    row[lane * lane_bytes..].fill(0);
                }
            }
        }
    }

    /// One head's keys and values in a layer.
    ///
    /// # Safety
    /// Nobody writes that head's cache while the slices live.
    pub unsafe fn head<'a>(
        &self,
        arena: &'a Arena,
        layer: LayerPlace,
        head: usize,
    ) -> HeadCache<'a> {
        let of_kind = self.of(layer);
        let of = |size: usize| of_kind.range(layer.1, self.heads, head, size);
        let key_size = self.head_size.next_multiple_of(KEY_STEP);
        // SAFETY: the caller's promise, region by region.
        unsafe {
            match of_kind.regions {
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

    /// One head's keys and values in a layer, to write.
    ///
    /// # Safety
    /// Nobody else reads or writes that head's cache while the slices live.
    pub unsafe fn head_mut<'a>(
        &self,
        arena: &'a Arena,
        layer: LayerPlace,
        head: usize,
    ) -> HeadCacheMut<'a> {
        let of_kind = self.of(layer);
        let of = |size: usize| of_kind.range(layer.1, self.heads, head, size);
        let key_size = self.head_size.next_multiple_of(KEY_STEP);
        // SAFETY: the caller's promise, region by region.
        unsafe {
            match of_kind.regions {
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

    /// Fetches one head's first `positions` keys and values ahead, or the beginning of more of them: caches
    /// of several sequences lie apart, and the processor fetches ahead of a long stream only.
    pub fn prefetch(&self, arena: &Arena, layer: LayerPlace, head: usize, positions: usize) {
        let of_kind = self.of(layer);
        let positions = positions.next_multiple_of(KEY_PANEL).min(of_kind.capacity);
        let head = layer.1 * self.heads + head;
        let fetch = |range: Range<usize>| {
            for line in (range.start..range.end.min(range.start + PREFETCH_BYTES)).step_by(LINE) {
                prefetch(arena.address_of(line));
            }
        };
        let of = |part: Part| part.of_head(head, of_kind.capacity, 0..positions);
        let key_size = self.head_size.next_multiple_of(KEY_STEP);
        match of_kind.regions {
            Regions::F16 { keys, values } => {
                fetch(of(Part::new(keys, self.head_size, true)));
                fetch(of(Part::new(values, self.head_size, false)));
            }
            Regions::Int8 { keys, values, .. } => {
                fetch(of(Part::new(keys, key_size, true)));
                fetch(of(Part::new(values, self.head_size, false)));
            }
        }
    }
}

/// One of the regions of a kind, in bytes.
#[derive(Clone, Copy)]
struct Part {
    /// Where it begins in the arena.
    start: usize,
    /// Bytes of a position.
    position: usize,
    /// Whether it has keys, which come in panels.
    keys: bool,
}

impl Part {
    fn new<T: Plain>(region: Region<T>, size: usize, keys: bool) -> Self {
        let start = region.bytes_of(0..0).start;
        Self { start, position: size * size_of::<T>(), keys }
    }

    /// The bytes of some slots of a head.
    fn of_head(self, head: usize, capacity: usize, slots: Range<usize>) -> Range<usize> {
        let at = |slot| self.start + (head * capacity + slot) * self.position;
        at(slots.start)..at(slots.end)
    }
}

/// Slots for positions in the layers of a kind.
///
/// A ring keeps what a pass over `rows` tokens sees: the window of its first query, and its own. In whole
/// segments, so that none is torn, and with two panels to spare, since saved sessions have whole panels.
fn capacity(window: Option<usize>, context: usize, rows: usize) -> usize {
    let whole = context.next_multiple_of(KEY_PANEL);
    let Some(window) = window else { return whole };
    let seen = window.saturating_add(rows.max(KEY_PANEL) + 2 * KEY_PANEL);
    match seen.checked_next_multiple_of(SEGMENT) {
        Some(ring) if ring < whole => ring,
        _ => whole,
    }
}
