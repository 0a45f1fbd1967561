//! Attention over the cache.

use super::cache::{Cache, CacheKind, HEAD_SIZES, KINDS};
use super::inputs::*;
use super::report::*;
use crate::kernels::*;

/// Attention of `tokens` tokens, the first at `position`, of the second of three groups of heads.
struct Attend {
    cache: Cache,
    /// Cached positions.
    capacity: usize,
    shape: Shape,
    queries: Vec<f32>,
    slopes: Option<Vec<f32>>,
    train_len: Option<usize>,
}

/// What a call attends to with what.
#[derive(Clone, Copy, Debug)]
struct Shape {
    kind: CacheKind,
    /// Of a head.
    size: usize,
    group: usize,
    position: usize,
    tokens: usize,
    window: Option<usize>,
}

impl Shape {
    /// A group of one that sees all.
    fn plain(kind: CacheKind, size: usize, position: usize, tokens: usize) -> Self {
        Self { kind, size, group: 1, position, tokens, window: None }
    }

    /// How many positions the queries see together.
    fn span(&self) -> usize {
        let seen = self.position + self.tokens;
        self.window.map_or(seen, |window| seen.min(window.saturating_add(self.tokens - 1)))
    }

    fn end(&self) -> usize {
        self.position + self.tokens
    }
}

impl Attend {
    /// With a cache of `capacity` positions, which holds what the queries see.
    fn new(shape: Shape, capacity: usize, floats: Floats, random: &mut Random) -> Self {
        let mut cache = Cache::new(shape.kind, capacity, shape.size);
        // What no query sees stays junk.
        for p in shape.end() - shape.span()..shape.end() {
            // Now and then a position is bad; those after it must not spoil those before.
            let kind = if random.below(64) == 0 { floats } else { Floats::Ordinary };
            let [key, value] = [0; 2].map(|_| kind.row(shape.size, random));
            scalar().store(&mut cache.get_mut(), p, &key, &value);
        }
        let queries = floats.row(shape.tokens * 3 * shape.group * shape.size, random);
        let lengths = [None, Some(1), Some(shape.position + 2), Some(1 << 24)];
        let train_len = random.pick(&lengths);
        let slopes = (0..shape.group).map(|g| -0.36 / (g + 1) as f32).collect();
        let slopes = random.pick(&[false, false, true]).then_some(slopes);
        Self { cache, capacity, shape, queries, slopes, train_len }
    }

    fn run(&self, kernels: &Kernels) -> Vec<f32> {
        self.run_in(kernels, false)
    }

    /// Segment by segment, last ones first, if `apart`.
    fn run_in(&self, kernels: &Kernels, apart: bool) -> Vec<f32> {
        let Shape { size, group, position, tokens, window, .. } = self.shape;
        let width = 3 * group * size;
        let first = group * size;
        // The output's rows have a length of their own.
        let out_width = width + 5;
        let padded = MOST_QUERIES * padded_head_size(size);
        let [mut queries, mut sums] = [0; 2].map(|_| vec![f32::NAN; padded]);
        let mut part = vec![f32::NAN; QUERY_BLOCK * padded_head_size(size)];
        let mut queries_i8 = vec![99; padded];
        let mut scores = vec![f32::NAN; QUERY_BLOCK * SEGMENT];
        let mut scratch = AttentionScratch {
            queries: &mut queries,
            queries_i8: &mut queries_i8,
            scores: &mut scores,
            sums: &mut sums,
            part: &mut part,
        };
        let mut cells = vec![99.0; tokens * out_width];
        let out = CellWriter::new(&mut cells, out_width);
        let at_once = MOST_QUERIES / group;
        for first_token in (0..tokens).step_by(at_once) {
            let mut job = Attention {
                cache: self.cache.get(),
                queries: &self.queries,
                stride: width,
                columns: first..first + size,
                group,
                tokens: first_token..tokens.min(first_token + at_once),
                position,
                window,
                scale: 0.4,
                bias: self
                    .slopes
                    .as_deref()
                    .map(|slopes| Alibi { slopes, train_len: self.train_len }),
                segment: None,
            };
            if !apart {
                // SAFETY: one thread, and the cells are used through this writer only.
                unsafe { kernels.attend(&job, &mut scratch, &out) };
                continue;
            }
            let stride = 3 * group * part_width(size);
            let seen = job.visible(position);
            let segments = seen.start / SEGMENT..seen.end.div_ceil(SEGMENT);
            let mut parts = vec![99.0; segments.end * stride];
            let writer = CellWriter::new(&mut parts, stride);
            for segment in segments.clone().rev() {
                job.segment = Some(segment);
                // SAFETY: as above.
                unsafe { kernels.attend(&job, &mut scratch, &writer) };
            }
            for head in group..2 * group {
                let columns = head * part_width(size)..(head + 1) * part_width(size);
                // SAFETY: as above.
                let to = unsafe { out.cells(0, head * size..(head + 1) * size) };
                kernels.merge(&parts[segments.start * stride..], stride, columns, to);
            }
        }
        cells
    }

    fn compare(&self, kernels: &Kernels, floats: Floats, report: &mut Report) {
        let Self { shape, capacity, slopes, train_len, .. } = self;
        let bias = slopes.as_ref().map(|_| train_len);
        let case = format!("{shape:?} of {capacity} {floats:?} {bias:?}");
        let expected = self.run(scalar());
        if shape.tokens == 1 {
            report.case(format!("{case} apart"), &self.run_in(kernels, true), &expected);
            report.case(format!("{case} apart, scalar"), &self.run_in(scalar(), true), &expected);
        }
        report.case(case, &self.run(kernels), &expected);
    }
}

#[test]
fn attend_equals_the_definition() {
    const POSITIONS: [usize; 12] = [0, 1, 14, 15, 16, 17, 63, 250, 254, 255, 256, 600];
    each_table("attend", |kernels, report| {
        let random = &mut Random(8);
        for (size, kind) in HEAD_SIZES.into_iter().flat_map(|size| KINDS.map(|kind| (size, kind))) {
            for position in POSITIONS {
                for tokens in [1, 2, 3, 4, 5, 6, 7, 20, MOST_QUERIES + 1] {
                    if !report.wants_next() {
                        continue;
                    }
                    let floats = random.pick(&FLOATS);
                    let shape = Shape::plain(kind, size, position, tokens);
                    Attend::new(shape, shape.end(), floats, random)
                        .compare(kernels, floats, report);
                }
            }
        }
    });
}

const GROUPS: [usize; 6] = [1, 2, 3, 4, 8, 9];

const WINDOWS: [Option<usize>; 11] = [
    None,
    Some(1),
    Some(2),
    Some(15),
    Some(16),
    Some(17),
    Some(255),
    Some(256),
    Some(257),
    Some(512),
    Some(1000),
];

/// Some shape with this group and window, and the positions that its cache has: as many as there were,
/// or a ring that has come around, several times mostly.
fn grouped(
    (kind, size): (CacheKind, usize),
    (group, window): (usize, Option<usize>),
    random: &mut Random,
) -> (Shape, usize) {
    let tokens = random.pick(&[1, 2, 3, 7, 20, MOST_QUERIES / group, MOST_QUERIES / group + 1]);
    let position = random.pick(&[0, 14, 250, 255, 256, 505, 767, 1023, 1024, 1100, 2300]);
    let mut shape = Shape { kind, size, group, position, tokens, window };
    // Most cases are small, so that there can be many.
    if size * group * tokens * shape.span() > 2_000_000 && random.below(8) > 0 {
        shape.tokens = 1 + random.below(2);
    }
    let ring = shape.span().next_multiple_of(SEGMENT);
    let capacities = [shape.end(), ring, ring, ring + SEGMENT];
    (shape, random.pick(&capacities))
}

#[test]
fn attend_of_groups_and_windows_equals_the_definition() {
    each_table("attend of groups and windows", |kernels, report| {
        let random = &mut Random(12);
        for cache in HEAD_SIZES.into_iter().flat_map(|size| KINDS.map(|kind| (kind, size))) {
            for window in WINDOWS {
                for _ in 0..2 {
                    let group = random.pick(&GROUPS);
                    if !report.wants_next() {
                        continue;
                    }
                    let floats = random.pick(&FLOATS);
                    let (shape, capacity) = grouped(cache, (group, window), random);
                    Attend::new(shape, capacity, floats, random).compare(kernels, floats, report);
                }
            }
        }
    });
}

/// A ring gives the bits of a cache that still has all positions.
#[test]
fn a_ring_changes_nothing() {
    for kernels in [scalar(), Kernels::best()] {
        let random = &mut Random(13);
        for window in WINDOWS.into_iter().flatten() {
            for kind in KINDS {
                let (shape, _) = grouped((kind, 20), (random.pick(&GROUPS), Some(window)), random);
                let seed = random.bits();
                let of_capacity = |capacity: usize| {
                    let job = Attend::new(shape, capacity, Floats::Ordinary, &mut Random(seed));
                    job.run(kernels).into_iter().map(f32::to_bits).collect::<Vec<_>>()
                };
                let ring = of_capacity(shape.span().next_multiple_of(SEGMENT));
                assert!(ring == of_capacity(shape.end()), "{shape:?}");
            }
        }
    }
}

/// A group gives the bits of its members alone.
#[test]
fn a_group_changes_nothing() {
    for kernels in [scalar(), Kernels::best()] {
        let random = &mut Random(14);
        for (group, kind) in GROUPS.into_iter().flat_map(|group| KINDS.map(|kind| (group, kind))) {
            let (shape, capacity) = grouped((kind, 20), (group, random.pick(&WINDOWS)), random);
            let mut job = Attend::new(shape, capacity, Floats::Ordinary, random);
            let together = job.run(kernels);
            let slopes = job.slopes.take();
            job.shape.group = 1;
            let queries = std::mem::take(&mut job.queries);
            let rows = |member: usize| {
                // The group is the second of three, as its only member is.
                let width = 3 * group * shape.size;
                let first = (group + member) * shape.size;
                let row = |row: &[f32]| {
                    let mut alone = vec![0.0; 3 * shape.size];
                    alone[shape.size..][..shape.size].copy_from_slice(&row[first..][..shape.size]);
                    alone
                };
                queries.chunks_exact(width).flat_map(row).collect::<Vec<_>>()
            };
            for member in 0..group {
                job.queries = rows(member);
                job.slopes = slopes.as_ref().map(|slopes| vec![slopes[member]]);
                let alone = job.run(kernels);
                let (width, width_alone) =
                    (together.len() / shape.tokens, alone.len() / shape.tokens);
                for (together, alone) in together.chunks(width).zip(alone.chunks(width_alone)) {
                    let together = &together[(group + member) * shape.size..][..shape.size];
                    let alone = &alone[shape.size..][..shape.size];
                    assert!(together.iter().zip(alone).all(|(a, b)| a.same(b)), "{shape:?}");
                }
            }
        }
    }
}

/// The definition against the formulas in binary64: which positions a query of which head sees.
#[test]
fn the_definition_attends_to_the_window() {
    let random = &mut Random(15);
    for window in WINDOWS {
        let (size, group, position, tokens) = (8, 3, random.pick(&[0, 270, 1100]), 5);
        let kind = CacheKind::F16;
        let shape = Shape { kind, size, group, position, tokens, window };
        let capacity = shape.span().next_multiple_of(SEGMENT);
        let mut job = Attend::new(shape, capacity, Floats::Ordinary, random);
        job.slopes = None;
        let rows = |random: &mut Random| -> Vec<Vec<f32>> {
            (0..shape.end()).map(|_| Floats::Ordinary.row(size, random)).collect()
        };
        let (keys, values) = (rows(random), rows(random));
        for (p, (key, value)) in keys.iter().zip(&values).enumerate() {
            scalar().store(&mut job.cache.get_mut(), p, key, value);
        }
        let cells = job.run(scalar());
        let rounded = |x: f32| f64::from(half::f16::from_f32(x).to_f32());
        for (token, member) in (0..tokens).flat_map(|t| (0..group).map(move |m| (t, m))) {
            let head = (group + member) * size;
            let query = &job.queries[token * 3 * group * size + head..][..size];
            let at = position + token;
            let (mut sum, mut out) = (0.0, vec![0.0; size]);
            for j in (0..=at).filter(|j| window.is_none_or(|window| at < j + window)) {
                let dot = |(&q, &k): (&f32, &f32)| f64::from(q) * 0.4 * rounded(k);
                let weight = query.iter().zip(&keys[j]).map(dot).sum::<f64>().exp2();
                sum += weight;
                for (out, &value) in out.iter_mut().zip(&values[j]) {
                    *out += weight * rounded(value);
                }
            }
            let row = &cells[token * (cells.len() / tokens) + head..][..size];
            for (&got, want) in row.iter().zip(out) {
                let want = want / sum;
                assert!((f64::from(got) - want).abs() < 1e-5, "{shape:?}: {got}, not {want}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "capacity")]
fn a_ring_too_small_is_refused() {
    let shape = Shape { window: Some(250), ..Shape::plain(CacheKind::F16, 4, 600, 8) };
    Attend::new(shape, SEGMENT, Floats::Ordinary, &mut Random(16)).run(scalar());
}

#[test]
#[should_panic(expected = "capacity")]
fn a_cache_that_is_no_ring_is_refused() {
    let mut cache = Cache::new(CacheKind::F16, 320, 4);
    scalar().store(&mut cache.get_mut(), 320, &[1.0; 4], &[1.0; 4]);
}

/// A million random dot products of queries with keys, and as many weighted values.
#[test]
#[ignore = "takes a minute"]
fn attend_sweep() {
    each_table("attend sweep", |kernels, report| {
        let random = &mut Random(9);
        for round in 0..400 {
            let cache = (KINDS[round % 2], random.pick(&HEAD_SIZES[6..]));
            let floats = random.pick(&[Floats::Ordinary, Floats::Extreme, Floats::AnyMagnitude]);
            let group = 1 + random.below(12);
            let window = Some(1 + random.below(1400)).filter(|&window| window <= 700);
            let tokens = 1 + random.below(1 + 12 / group);
            let (shape, _) = grouped(cache, (group, window), random);
            let shape = Shape { position: random.below(1200), tokens, ..shape };
            let capacity = shape.span().next_multiple_of(SEGMENT);
            Attend::new(shape, capacity, floats, random).compare(kernels, floats, report);
        }
    });
}
