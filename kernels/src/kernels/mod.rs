//! The kernels: every loop whose speed matters, one table of functions per instruction set.
//!
//! [`scalar`] defines what each function computes, bit for bit; other tables compute the same faster.
//! All but the matrix products stands once, in `generic`, over the trait of `vector`; the folder of an
//! instruction set has that trait (`vector`), the functions made of it (`bodies`) and its products.
//! A [`Kernels`] can be had only for an instruction set that this processor supports: holding one is
//! the proof that its functions may be called.

use std::f32::consts::LOG2_E;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::quant::{GROUP_SIZES, PANEL_ROWS, TileLayout, block_size};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(all(target_arch = "x86_64", feature = "vnni"))]
mod avx512;
#[cfg(all(target_arch = "x86_64", feature = "vnni"))]
mod avx_vnni;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", test))]
mod generic;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(test)]
mod portable;
pub mod scalar;
#[cfg(test)]
mod tests;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", test))]
mod vector;

/// Positions in a panel of cached keys: one lane each.
pub const KEY_PANEL: usize = 16;
/// Dimensions that lie together in a panel of int8 keys.
pub const KEY_STEP: usize = 4;
/// Positions that are softmaxed together before segments merge.
pub const SEGMENT: usize = 256;
/// Queries that kernels take through a segment together.
pub const QUERY_BLOCK: usize = 6;
/// The most queries of one call to [`Kernels::attend`]: those of a prompt's chunk, so that each segment is
/// read from memory once for all of them.
pub const MOST_QUERIES: usize = 11 * QUERY_BLOCK;

/// Fetches the line of `at`, which may be any address, into the second level cache; on x86-64, where this
/// was measured to help.
#[inline(always)]
#[allow(clippy::not_unsafe_ptr_arg_deref, reason = "nothing is read")]
pub fn prefetch(at: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch never faults and is part of every x86-64; it changes nothing a program sees.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(at.cast());
    }
    let _ = at;
}

/// An instruction set that has kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isa {
    /// Any processor; slow where a fused multiply-add is emulated.
    Scalar,
    /// The same source with the processor's FMA instruction.
    ScalarFma,
    /// AVX2, FMA and F16C: x86-64 since about 2013.
    Avx2,
    /// AVX2 with VNNI's products of bytes, as AVX-VNNI (since about 2021) or AVX-512 encodes them.
    AvxVnni,
    /// AVX-512 F, BW, DQ, VL and VNNI: Ice Lake, Zen 4 and their successors.
    Avx512Vnni,
    /// NEON: any 64-bit Arm processor.
    Neon,
    /// The same with `sdot`: most since 2018.
    NeonDotprod,
    /// The same with `usdot` and `smmla`: most since 2021.
    NeonI8mm,
}

impl Isa {
    /// All of them, the preferred ones last.
    pub const ALL: &[Isa] = &[
        Isa::Scalar,
        Isa::ScalarFma,
        Isa::Avx2,
        Isa::AvxVnni,
        Isa::Avx512Vnni,
        Isa::Neon,
        Isa::NeonDotprod,
        Isa::NeonI8mm,
    ];

    /// The name by which it is forced and reported.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::ScalarFma => "scalar-fma",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avx-vnni",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Neon => "neon",
            Self::NeonDotprod => "neon-dotprod",
            Self::NeonI8mm => "neon-i8mm",
        }
    }

    /// The instruction set of that name; `avx512` is short for `avx512-vnni`.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = if name == "avx512" { Self::Avx512Vnni.name() } else { name };
        Self::ALL.iter().copied().find(|isa| isa.name() == name)
    }

    /// Those that this processor supports, the best one last; [`Isa::Scalar`] always is.
    pub fn available() -> impl Iterator<Item = Isa> {
        Self::ALL.iter().copied().filter(|&isa| Kernels::new(isa).is_some())
    }

    /// The best that this processor supports.
    pub fn best() -> Self {
        Self::available().last().unwrap_or(Self::Scalar)
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A quantized matrix in place.
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    /// Shape, scheme and tile order.
    pub tiles: TileLayout,
    /// `2^exponent`, the factor common to all scales.
    pub scale: f32,
    bytes: &'a [u8],
}

impl<'a> Weights<'a> {
    /// A matrix over its bytes. Panics unless there are exactly as many as the layout needs.
    pub fn new(tiles: TileLayout, scale: f32, bytes: &'a [u8]) -> Self {
        assert_eq!(bytes.len(), tiles.bytes(), "matrix bytes do not fit the layout");
        Self { tiles, scale, bytes }
    }

    /// The bytes of one panel of 16 rows.
    #[inline(always)]
    pub fn panel(&self, panel: usize) -> &'a [u8] {
        let size = self.tiles.panel_bytes();
        &self.bytes[panel * size..][..size]
    }
}

/// One token's embedding.
pub struct EmbeddingRow<'a> {
    /// The matrix.
    pub weights: Weights<'a>,
    /// The panel that holds the row.
    pub panel: &'a [u8],
    /// The row within the panel.
    pub row: usize,
    /// The position's embedding `[n_embd]` as float16 bits, if the model has one.
    pub position: Option<&'a [u16]>,
    /// What the sum is multiplied by.
    pub scale: f32,
}

impl<'a> EmbeddingRow<'a> {
    /// Row `row` of `weights`, with its position and scale.
    pub fn new(weights: Weights<'a>, row: usize, position: Option<&'a [u16]>, scale: f32) -> Self {
        let panel = weights.panel(row / PANEL_ROWS);
        Self { weights, panel, row: row % PANEL_ROWS, position, scale }
    }
}

/// Tokens' rows as they enter a matrix: integers in -127..=127, their groups' scales, and what the
/// weights' offset takes away from their products.
#[derive(Clone, Copy)]
pub struct QuantizedRows<'a> {
    /// `[tokens][padded_cols]`.
    pub values: &'a [i8],
    /// `[tokens][groups]`.
    pub scales: &'a [f32],
    /// `[tokens][blocks]`: -8 times a block's sum, the first two and the last two inputs of every step
    /// apart ([`Start`]).
    pub starts: &'a [Start],
    /// Inputs with the last group's padding.
    pub padded_cols: usize,
    /// Groups per token.
    pub groups: usize,
    /// Blocks per token ([`block_size`]).
    pub blocks: usize,
}

/// Where the sum of a block's products with int4 weights starts, as the weights are stored with an
/// offset of 8: -8 times the sum of inputs 0 and 1 of every step, and -8 times that of inputs 2 and 3.
/// The two together, and times 16, start a block of int8 weights.
///
/// They lie apart because a product of bytes on x86 sums neighbours in 16 bits, where the two can
/// still wrap around harmlessly ([`block_size`]).
pub type Start = [i16; 2];

impl<'a> QuantizedRows<'a> {
    /// Values, scales and starts of one token.
    #[inline(always)]
    pub fn token(&self, token: usize) -> (&'a [i8], &'a [f32], &'a [Start]) {
        (
            &self.values[token * self.padded_cols..][..self.padded_cols],
            &self.scales[token * self.groups..][..self.groups],
            &self.starts[token * self.blocks..][..self.blocks],
        )
    }
}

/// Where one token's quantized row goes.
pub struct QuantizedRowMut<'a> {
    /// `[padded_cols]`.
    pub values: &'a mut [i8],
    /// `[groups]`.
    pub scales: &'a mut [f32],
    /// `[blocks]`.
    pub starts: &'a mut [Start],
}

/// Weight, bias and epsilon of a layer norm.
pub struct LayerNorm<'a> {
    /// `[n_embd]`.
    pub weight: &'a [f32],
    /// `[n_embd]`.
    pub bias: &'a [f32],
    /// Added to the variance.
    pub epsilon: f32,
}

/// Weight and epsilon of an RMS norm.
pub struct RmsNorm<'a> {
    /// `[n_embd]`.
    pub weight: &'a [f32],
    /// Added to the mean square.
    pub epsilon: f32,
}

/// The non-linearity between the two halves of an MLP (`docs/elementary-functions.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x * Phi(x)`, exact: Cerebras-GPT.
    Gelu,
    /// The tanh form (Hendrycks & Gimpel, 2016): OpenAI's GPT-2 (`gelu_new`).
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// `x * sigmoid(x)`.
    Silu,
}

/// What happens to an output after its bias was added.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Epilogue {
    /// It replaces the cell.
    Store,
    /// It is added to the cell: the residual.
    AddTo,
    /// It, times a factor, is added to the cell: the residual of a model that scales its branches.
    AddScaled(f32),
    /// The activation of it replaces the cell.
    Activate(Activation),
    /// It multiplies the cell: the gate.
    MultiplyTo,
    /// It, times a factor, replaces the cell: logits.
    Scale(f32),
}

/// A matrix product: every row of `weights` with every token of `input`.
pub struct Matmul<'a> {
    /// `[out, in]`.
    pub weights: Weights<'a>,
    /// `[tokens, in]`.
    pub input: QuantizedRows<'a>,
    /// `[out]`.
    pub bias: Option<&'a [f32]>,
    /// What happens after the bias.
    pub epilogue: Epilogue,
}

impl Matmul<'_> {
    /// Tokens of the input.
    #[inline(always)]
    pub fn tokens(&self) -> usize {
        self.input.values.len() / self.input.padded_cols
    }
}

/// A float32 matrix `[tokens][stride]` that several workers write at once, each its own cells.
#[derive(Clone, Copy)]
pub struct CellWriter<'a> {
    cells: *mut f32,
    tokens: usize,
    stride: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: access goes through `cells`, whose contract makes every caller name cells that nobody else
// uses meanwhile; the pointer itself may be anywhere.
unsafe impl Send for CellWriter<'_> {}
// SAFETY: as above.
unsafe impl Sync for CellWriter<'_> {}

impl<'a> CellWriter<'a> {
    /// Over a whole buffer of `[tokens][stride]`.
    pub fn new(buffer: &'a mut [f32], stride: usize) -> Self {
        let tokens = buffer.len() / stride;
        Self { cells: buffer.as_mut_ptr(), tokens, stride, lifetime: PhantomData }
    }

    /// Over `len` floats at `cells`.
    ///
    /// # Safety
    /// - `cells` is valid for reads and writes of `len` floats for `'a`.
    /// - For `'a`, nobody reads or writes them but through this writer and its copies, except cells
    ///   that no user of this writer names in the meantime.
    pub unsafe fn from_raw(cells: *mut f32, len: usize, stride: usize) -> Self {
        Self { cells, tokens: len / stride, stride, lifetime: PhantomData }
    }

    /// The cells `columns` of `token`.
    ///
    /// # Safety
    /// Nobody else reads or writes these cells while the returned slice lives.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "the contract makes the cells exclusive")]
    pub unsafe fn cells(&self, token: usize, columns: Range<usize>) -> &mut [f32] {
        assert!(token < self.tokens && columns.start <= columns.end && columns.end <= self.stride);
        // SAFETY: the assertion puts the cells inside the buffer, which is valid for 'a by the
        // constructors' contracts; the caller promises that they are exclusive.
        unsafe {
            let start = self.cells.add(token * self.stride + columns.start);
            std::slice::from_raw_parts_mut(start, columns.len())
        }
    }
}

/// The cached keys and values of one head (layouts: `docs/numbers.md` section 7).
#[derive(Clone, Copy)]
pub enum HeadCache<'a> {
    /// Float16, as bits.
    F16 {
        /// `[panels][head size][16]`.
        keys: &'a [u16],
        /// `[positions][head size]`.
        values: &'a [u16],
    },
    /// Int8 with a scale per position.
    Int8 {
        /// `[panels][ceil(head size / 4)][16][4]`.
        keys: &'a [i8],
        /// `[positions]`.
        key_scales: &'a [f32],
        /// `[positions][head size]`.
        values: &'a [i8],
        /// `[positions]`.
        value_scales: &'a [f32],
    },
}

impl HeadCache<'_> {
    /// How many positions there is room for: position `p` lies in slot `p % capacity`.
    #[inline(always)]
    pub fn capacity(&self, head_size: usize) -> usize {
        match self {
            Self::F16 { values, .. } => values.len() / head_size,
            Self::Int8 { values, .. } => values.len() / head_size,
        }
    }

    /// Whether the other slices have room for so many positions, in whole panels.
    fn has_room(&self, head_size: usize, capacity: usize) -> bool {
        let positions = capacity.next_multiple_of(KEY_PANEL);
        match self {
            Self::F16 { keys, .. } => keys.len() >= positions * head_size,
            Self::Int8 { keys, key_scales, value_scales, .. } => {
                keys.len() >= positions * head_size.next_multiple_of(KEY_STEP)
                    && key_scales.len() >= positions
                    && value_scales.len() >= capacity
            }
        }
    }
}

/// [`HeadCache`] for writing.
pub enum HeadCacheMut<'a> {
    /// Float16, as bits.
    F16 {
        /// `[panels][head size][16]`.
        keys: &'a mut [u16],
        /// `[positions][head size]`.
        values: &'a mut [u16],
    },
    /// Int8 with a scale per position.
    Int8 {
        /// `[panels][ceil(head size / 4)][16][4]`.
        keys: &'a mut [i8],
        /// `[positions]`.
        key_scales: &'a mut [f32],
        /// `[positions][head size]`.
        values: &'a mut [i8],
        /// `[positions]`.
        value_scales: &'a mut [f32],
    },
}

impl HeadCacheMut<'_> {
    /// How many positions there is room for: position `p` lies in slot `p % capacity`.
    #[inline(always)]
    pub fn capacity(&self, head_size: usize) -> usize {
        match self {
            Self::F16 { values, .. } => values.len() / head_size,
            Self::Int8 { values, .. } => values.len() / head_size,
        }
    }
}

/// Whether a cache may hold some of the positions before `end`: it has room for all, or is a ring.
#[inline(always)]
fn is_within(end: usize, capacity: usize) -> bool {
    end <= capacity || capacity > 0 && capacity.is_multiple_of(SEGMENT)
}

/// Where a position lies in a cache of so many. One that positions have gone beyond is a ring, of whole
/// segments, so that the positions of a segment lie side by side.
#[inline(always)]
fn slot(position: usize, capacity: usize) -> usize {
    if position < capacity {
        return position;
    }
    debug_assert!(capacity.is_multiple_of(SEGMENT));
    position % capacity
}

/// The queries that a call attends to, those of all query heads that share a head of keys and values, and
/// the cache of that head.
///
/// Several at once, because a key or value that was loaded serves all of them. A query is a pair of a
/// token and a member of the group; they are counted token by token.
pub struct Attention<'a> {
    /// Keys and values of the head. Those that a query sees are there; a slot of any other position
    /// may hold anything.
    pub cache: HeadCache<'a>,
    /// `[tokens][stride]`, unscaled.
    pub queries: &'a [f32],
    /// Floats from one token's queries to the next one's.
    pub stride: usize,
    /// The first query head's part of a token's row, in `queries` and in the output: `[head size]`. The
    /// other members' parts follow.
    pub columns: Range<usize>,
    /// How many query heads share the cache, at least one.
    pub group: usize,
    /// The rows whose queries these are, at least one; their queries are at most [`MOST_QUERIES`].
    pub tokens: Range<usize>,
    /// The position of row 0.
    pub position: usize,
    /// How many positions a query sees, up to its own; `None` if it sees all of them. At least one. What
    /// the queries see together must fit into the cache.
    pub window: Option<usize>,
    /// What a query is multiplied by: the attention scale times log2(e).
    pub scale: f32,
    /// ALiBi's bias on the scores, if the model has it.
    pub bias: Option<Alibi<'a>>,
}

/// What ALiBi (Press et al., 2022) adds to the scores of a group's heads.
#[derive(Clone, Copy, Debug)]
pub struct Alibi<'a> {
    /// `[group]`: what a key's distance is multiplied by and added to its score.
    pub slopes: &'a [f32],
    /// The length from which on slopes shrink, so that a query's most distant key gets no larger a bias
    /// than in a text of this length; `None` if they never do.
    pub train_len: Option<usize>,
}

impl Alibi<'_> {
    /// The slope for a member's query at `position`, which `position + 1` keys have been before or at
    /// (`docs/numbers.md` section 7).
    #[inline(always)]
    pub fn slope_at(&self, member: usize, position: usize) -> f32 {
        // As scores, in base 2.
        let slope = self.slopes[member] * LOG2_E;
        match self.train_len {
            Some(length) if position >= length => slope * (length as f32 / (position + 1) as f32),
            _ => slope,
        }
    }
}

impl Attention<'_> {
    /// A member's part of a token's row.
    #[inline(always)]
    pub fn columns_of(&self, member: usize) -> Range<usize> {
        let shift = member * self.columns.len();
        self.columns.start + shift..self.columns.end + shift
    }

    /// The query of a token and member `[head size]`.
    #[inline(always)]
    pub fn query(&self, token: usize, member: usize) -> &[f32] {
        &self.queries[token * self.stride..][self.columns_of(member)]
    }

    /// The queries: their tokens, and the members of the group within.
    #[inline(always)]
    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let group = self.group;
        self.tokens.clone().flat_map(move |token| (0..group).map(move |member| (token, member)))
    }

    /// The positions that a query at `position` sees.
    #[inline(always)]
    pub fn visible(&self, position: usize) -> Range<usize> {
        let end = position + 1;
        self.window.map_or(0, |window| end.saturating_sub(window))..end
    }
}

/// Buffers of one worker for [`Kernels::attend`].
pub struct AttentionScratch<'a> {
    /// `[MOST_QUERIES][padded head size]`: the scaled queries.
    pub queries: &'a mut [f32],
    /// `[MOST_QUERIES][padded head size]`: the quantized queries.
    pub queries_i8: &'a mut [i8],
    /// `[QUERY_BLOCK][SEGMENT]`.
    pub scores: &'a mut [f32],
    /// `[MOST_QUERIES][padded head size]`: the weighted values so far.
    pub sums: &'a mut [f32],
    /// `[QUERY_BLOCK][padded head size]`: those of one segment.
    pub part: &'a mut [f32],
}

/// A head's dimensions with the padding that buffers of [`AttentionScratch`] have.
pub const fn padded_head_size(head_size: usize) -> usize {
    head_size.next_multiple_of(16)
}

type EmbedFn = unsafe fn(&EmbeddingRow, &mut [f32]);
type QuantizeFn = unsafe fn(&[f32], usize, QuantizedRowMut);
type LayerNormFn = unsafe fn(&[f32], &LayerNorm, &mut [f32]);
type AnglesFn = unsafe fn(u32, &[f64], f64, (&mut [f32], &mut [f32]));
type RotateFn = unsafe fn(&mut [f32], &[f32], &[f32]);
type RmsNormFn = unsafe fn(&[f32], &RmsNorm, &mut [f32]);
type MatmulFn = unsafe fn(&Matmul, Range<usize>, &CellWriter);
type StoreFn = unsafe fn(&mut HeadCacheMut, usize, &[f32], &[f32]);
type AttendFn = unsafe fn(&Attention, &mut AttentionScratch, &CellWriter);

/// Work for [`Kernels::run`]: arithmetic of scalars whose fused multiply-adds are worth an instruction. As
/// a call each of them takes ten times as long, and weighing a large vocabulary as long as evaluating a small
/// model.
pub trait Work {
    /// What it results in.
    type Output;

    /// Does it. To be marked `#[inline(always)]`, as all that it calls, so that it is compiled for the
    /// instruction set of whoever calls it.
    fn run(self) -> Self::Output;
}

/// # Safety
/// The processor supports AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_with_avx2<W: Work>(work: W) -> W::Output {
    work.run()
}

/// # Safety
/// The processor supports FMA.
#[cfg(any(target_arch = "x86", all(target_arch = "x86_64", feature = "scalar-fma")))]
#[target_feature(enable = "fma")]
unsafe fn run_with_fma<W: Work>(work: W) -> W::Output {
    work.run()
}

/// [`Kernels::add`]: the compiler makes vectors of it.
struct Add<'a> {
    out: &'a mut [f32],
    x: &'a [f32],
}

impl Work for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (out, &x) in self.out.iter_mut().zip(self.x) {
            *out += x;
        }
    }
}

/// The kernels of one instruction set, which this processor supports.
///
/// The methods check shapes, then call the table's function. Every such function is unsafe for one
/// reason only, that the processor must support its instructions, except `matmul` and `attend`.
pub struct Kernels {
    isa: Isa,
    embed: EmbedFn,
    quantize: QuantizeFn,
    layer_norm: LayerNormFn,
    rms_norm: RmsNormFn,
    angles: AnglesFn,
    rotate: RotateFn,
    matmul: MatmulFn,
    store: StoreFn,
    attend: AttendFn,
}

impl Kernels {
    /// The kernels of `isa`, if this processor supports it: the one ladder of choice.
    pub fn new(isa: Isa) -> Option<&'static Self> {
        match isa {
            Isa::Scalar => Some(&scalar::PORTABLE),
            #[cfg(any(target_arch = "x86", all(target_arch = "x86_64", feature = "scalar-fma")))]
            Isa::ScalarFma => std::is_x86_feature_detected!("fma").then_some(&scalar::FMA),
            #[cfg(not(any(
                target_arch = "x86",
                all(target_arch = "x86_64", feature = "scalar-fma")
            )))]
            Isa::ScalarFma => None,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::is_supported().then_some(&avx2::TABLE),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 => None,
            #[cfg(all(target_arch = "x86_64", feature = "vnni"))]
            Isa::AvxVnni => avx_vnni::table(),
            #[cfg(all(target_arch = "x86_64", feature = "vnni"))]
            Isa::Avx512Vnni => avx512::is_supported().then_some(&avx512::TABLE),
            #[cfg(not(all(target_arch = "x86_64", feature = "vnni")))]
            Isa::AvxVnni | Isa::Avx512Vnni => None,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Some(&neon::NEON),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod => neon::has_dotprod().then_some(&neon::DOTPROD),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm => neon::has_i8mm().then_some(&neon::I8MM),
            #[cfg(not(target_arch = "aarch64"))]
            Isa::Neon | Isa::NeonDotprod | Isa::NeonI8mm => None,
        }
    }

    /// The best that this processor supports.
    pub fn best() -> &'static Self {
        Self::new(Isa::best()).unwrap_or(&scalar::PORTABLE)
    }

    /// Which instruction set they use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Does work that has one source for all instruction sets, compiled for this one.
    #[allow(clippy::match_single_binding, reason = "processors other than x86 have one way")]
    pub fn run<W: Work>(&self, work: W) -> W::Output {
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::AvxVnni | Isa::Avx512Vnni => {
                // SAFETY: `self` exists only if the processor supports its instruction set, each of which
                // includes AVX2 and FMA (`avx2::is_supported`).
                unsafe { run_with_avx2(work) }
            }
            #[cfg(any(target_arch = "x86", all(target_arch = "x86_64", feature = "scalar-fma")))]
            // SAFETY: `self` exists only if the processor supports FMA.
            Isa::ScalarFma => unsafe { run_with_fma(work) },
            // 64-bit Arm always has it; for any other processor it is a call.
            _ => work.run(),
        }
    }

    /// `out = (embedding row + position) * scale`, each `[n_embd]`.
    pub fn embed(&self, row: &EmbeddingRow, out: &mut [f32]) {
        assert_eq!(out.len(), row.weights.tiles.cols());
        assert!(row.position.is_none_or(|position| position.len() == out.len()));
        // SAFETY: `self` exists only if the processor supports it.
        unsafe { (self.embed)(row, out) }
    }

    /// Quantizes one token's row in groups of `group_size`.
    pub fn quantize(&self, x: &[f32], group_size: usize, out: QuantizedRowMut) {
        assert!(GROUP_SIZES.contains(&group_size));
        let groups = x.len().div_ceil(group_size);
        assert_eq!(out.values.len(), groups * group_size);
        assert_eq!(out.scales.len(), groups);
        assert_eq!(out.starts.len(), out.values.len() / block_size(group_size));
        // SAFETY: `self` exists only if the processor supports it.
        unsafe { (self.quantize)(x, group_size, out) }
    }

    /// Layer norm of one token's row.
    pub fn layer_norm(&self, x: &[f32], norm: &LayerNorm, out: &mut [f32]) {
        let n = x.len();
        assert!(norm.weight.len() == n && norm.bias.len() == n && out.len() == n);
        // SAFETY: `self` exists only if the processor supports it.
        unsafe { (self.layer_norm)(x, norm, out) }
    }

    /// RMS norm of one token's row.
    pub fn rms_norm(&self, x: &[f32], norm: &RmsNorm, out: &mut [f32]) {
        assert!(norm.weight.len() == x.len() && out.len() == x.len());
        // SAFETY: `self` exists only if the processor supports it.
        unsafe { (self.rms_norm)(x, norm, out) }
    }

    /// `out = out + x`: a branch that was normed joins the residual.
    pub fn add(&self, out: &mut [f32], x: &[f32]) {
        assert_eq!(out.len(), x.len());
        self.run(Add { out, x });
    }

    /// Cosines and sines of the angles `position * inverse_frequencies[i]` in radians, times a factor,
    /// into `cos` and `sin`, `[pairs of a head]` each. Positions are at most 2^20 and frequencies at
    /// most 1, or the angles are at most [`MAX_ANGLE`](crate::math::angle::MAX_ANGLE) otherwise.
    pub fn angles(
        &self,
        position: u32,
        inverse_frequencies: &[f64],
        factor: f64,
        (cos, sin): (&mut [f32], &mut [f32]),
    ) {
        assert!(cos.len() == inverse_frequencies.len() && sin.len() == cos.len());
        // SAFETY: `self` exists only if the processor supports it.
        unsafe { (self.angles)(position, inverse_frequencies, factor, (cos, sin)) }
    }

    /// Rotates the pairs `(i, i + n)` of a head `[head size]` in place, `n` the number of angles: at
    /// most half the head size; the dimensions after them stay.
    pub fn rotate(&self, head: &mut [f32], cos: &[f32], sin: &[f32]) {
        assert!(cos.len() == sin.len() && 2 * cos.len() <= head.len());
        // SAFETY: `self` exists only if the processor supports it.
        unsafe { (self.rotate)(head, cos, sin) }
    }

    /// The outputs of `panels` (16 rows each) for every token, into `out` `[tokens][rows]`.
    ///
    /// # Safety
    /// Nobody else reads or writes the cells of these panels' rows in `out` during the call.
    pub unsafe fn matmul(&self, job: &Matmul, panels: Range<usize>, out: &CellWriter) {
        let (tiles, input) = (&job.weights.tiles, &job.input);
        assert!(panels.end <= tiles.panels());
        assert!(input.padded_cols == tiles.padded_cols());
        assert!(input.groups == tiles.groups() && input.blocks == tiles.blocks());
        let tokens = job.tokens();
        assert_eq!(input.values.len(), tokens * input.padded_cols);
        assert_eq!(input.scales.len(), tokens * input.groups);
        assert_eq!(input.starts.len(), tokens * input.blocks);
        assert!(job.bias.is_none_or(|bias| bias.len() == tiles.rows()));
        assert!(out.tokens >= tokens && out.stride >= tiles.rows());
        // SAFETY: `self` exists only if the processor supports it; the cells are the caller's promise.
        unsafe { (self.matmul)(job, panels, out) }
    }

    /// Puts the key and value `[head size]` of `position` into a head's cache: into slot
    /// `position % capacity`.
    pub fn store(&self, head: &mut HeadCacheMut, position: usize, key: &[f32], value: &[f32]) {
        let size = key.len();
        assert!(size > 0 && size == value.len());
        let capacity = head.capacity(size);
        assert!(is_within(position + 1, capacity), "position {position} of capacity {capacity}");
        // SAFETY: `self` exists only if the processor supports it.
        unsafe { (self.store)(head, slot(position, capacity), key, value) }
    }

    /// Attention of the queries that share a head of the cache, into their cells of `out`
    /// `[tokens][query heads * head size]`.
    ///
    /// # Safety
    /// Nobody else reads or writes the cells `job.columns_of(member)` of `job.tokens` in `out` during the
    /// call, for any member of the group.
    pub unsafe fn attend(&self, job: &Attention, scratch: &mut AttentionScratch, out: &CellWriter) {
        let (size, group, tokens) = (job.columns.len(), job.group, &job.tokens);
        assert!(size > 0 && group > 0 && !tokens.is_empty());
        assert!(tokens.len() <= MOST_QUERIES / group);
        assert!(job.columns_of(group - 1).end <= job.stride);
        assert!(tokens.end * job.stride <= job.queries.len());
        assert!(job.bias.is_none_or(|bias| bias.slopes.len() == group) && job.window != Some(0));
        let capacity = job.cache.capacity(size);
        let first = job.visible(job.position + tokens.start).start;
        let end = job.position + tokens.end;
        let fits = end - first <= capacity && is_within(end, capacity);
        assert!(fits, "positions {first} to {end} in a cache of capacity {capacity}");
        assert!(job.cache.has_room(size, capacity));
        let [block, padded] = [QUERY_BLOCK, MOST_QUERIES].map(|n| n * padded_head_size(size));
        assert!(scratch.queries.len() == padded && scratch.queries_i8.len() == padded);
        assert!(scratch.sums.len() == padded && scratch.part.len() == block);
        assert_eq!(scratch.scores.len(), QUERY_BLOCK * SEGMENT);
        // SAFETY: `self` exists only if the processor supports it; the cells are the caller's promise.
        unsafe { (self.attend)(job, scratch, out) }
    }
}
