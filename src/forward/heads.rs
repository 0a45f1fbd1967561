//! Operations that go by heads of keys and values: storing them, and attention.

use core::ops::Range;

use super::{Pass, Span, row_range};
use crate::format::Positions;
use crate::kernels::{
    Alibi, Attention, AttentionScratch, MOST_QUERIES, QUERY_BLOCK, SEGMENT, padded_head_size,
    part_width,
};
use crate::program::Operation;
use crate::threads::Worker;

/// What queries are multiplied by, and how many positions they see if not all.
pub(super) type Attending = (f32, Option<usize>);

impl Pass<'_> {
    /// Keys and values of all rows -> caches.
    pub(super) fn store(&self, layer: usize, worker: &Worker) {
        for head in worker.share(self.model.config().attention.kv_heads) {
            for span in self.spans {
                // SAFETY: the contract of a phase: this head's caches are this worker's.
                unsafe { self.store_span(span, layer, head) };
            }
        }
    }

    /// Queries and caches -> heads side by side. If `narrow`, those of the wanted rows.
    pub(super) fn attend(&self, layer: usize, attending: Attending, narrow: bool, worker: &Worker) {
        let mut scratch = self.attention_scratch(worker);
        let at_once = self.tokens_at_once();
        let blocks = self.spans.last().map_or(0, |span| span.block + span.blocks());
        // Head by head, so that most of a worker's queries share one head's cache.
        for mut items in worker.claims(self.model.config().attention.kv_heads * blocks) {
            while let Some(item) = items.next() {
                let (head, block) = (item / blocks, item % blocks);
                let span = &self.spans[self.spans.partition_point(|span| span.block <= block) - 1];
                // As many blocks of this head and span as there are.
                let first = block - span.block;
                let count = (span.blocks() - first).min(1 + items.len());
                let count = count.min((at_once / QUERY_BLOCK).max(1));
                items.start += count - 1;
                let unwanted = if narrow { span.len - span.logits } else { 0 };
                let tokens = span.block_rows(first..first + count);
                let tokens = tokens.start.max(unwanted)..tokens.end;
                for first in tokens.clone().step_by(at_once) {
                    let tokens = first..tokens.end.min(first + at_once);
                    // SAFETY: the contract of a phase: nobody writes a cache in it, and an item is one
                    // worker's.
                    unsafe {
                        self.attend_tokens(span, tokens, layer, head, attending, &mut scratch)
                    };
                }
            }
        }
    }

    /// The row's queries and caches -> what each head gathers in each segment.
    pub(super) fn attend_segments(&self, layer: usize, attending: Attending, worker: &Worker) {
        let mut scratch = self.attention_scratch(worker);
        let segments = self.segments(attending.1);
        let items = self.model.config().attention.kv_heads * segments.len();
        for item in worker.claims(items).flatten() {
            let (head, segment) = (item / segments.len(), segments.start + item % segments.len());
            // SAFETY: the contract of a phase: nobody writes queries or a cache in it, and the head's cells in
            // the segment's row are this worker's.
            unsafe {
                let job = self.attention(&self.spans[0], 0..1, layer, head, attending);
                let job = Attention { segment: Some(segment), ..job };
                let out = self.cells_from(self.buffers.parts, 0, self.parts_width());
                self.kernels.attend(&job, &mut scratch, &out);
            }
        }
    }

    /// What each head gathered in each segment -> the heads, side by side.
    pub(super) fn merge(&self, window: Option<usize>, worker: &Worker) {
        let attention = &self.model.config().attention;
        let (d, stride) = (attention.head_size, self.parts_width());
        let segments = self.segments(window);
        for head in worker.share(attention.heads) {
            let columns = row_range(head, part_width(d));
            // SAFETY: the contract of a phase: nobody writes parts in it, and the head's cells are this worker's.
            unsafe {
                let rows = segments.start * stride..segments.end * stride;
                let rows = self.arena.read(self.buffers.parts, rows);
                let out = self.cells_from(self.buffers.attended, 0, attention.query_width());
                self.kernels.merge(rows, stride, columns, out.cells(0, row_range(head, d)));
            }
        }
    }

    /// The segments of which one row's queries see a position.
    fn segments(&self, window: Option<usize>) -> Range<usize> {
        let end = self.spans[0].position + 1;
        let start = window.map_or(0, |window| end.saturating_sub(window));
        start / SEGMENT..end.div_ceil(SEGMENT)
    }

    fn parts_width(&self) -> usize {
        let attention = &self.model.config().attention;
        attention.heads * part_width(attention.head_size)
    }

    /// The most tokens of a call to the kernel: each has a query for every head of a group.
    fn tokens_at_once(&self) -> usize {
        (MOST_QUERIES / self.model.config().attention.group()).max(1)
    }

    /// Operations up to attention, a head of a span at a time. Of a tree, each head goes through the
    /// spans in order.
    pub(super) fn head_by_head(&self, layer: usize, operations: &[Operation], worker: &Worker) {
        let mut scratch = self.attention_scratch(worker);
        let at_once = if self.is_tree() { self.spans.len() } else { 1 };
        let parts = self.spans.len() / at_once;
        let items = self.model.config().attention.kv_heads * parts;
        let of_item = |item| (item / parts, &self.spans[item % parts * at_once..][..at_once]);
        let place = self.model.program().layers[layer].kind;
        for item in worker.claims(items).flatten() {
            // One row's heads are one stream.
            if item + 1 < items && !self.is_one_row() {
                let (head, spans) = of_item(item + 1);
                let positions = spans[0].position + spans[0].len;
                self.caches[spans[0].cache].prefetch(self.arena, place, head, positions);
            }
            let (head, spans) = of_item(item);
            for span in spans {
                for operation in operations {
                    // SAFETY: the contract of a phase: this head's queries, keys, values, cache and
                    // cells are this worker's.
                    unsafe {
                        self.head_operation(operation, span, layer, head, &mut scratch, worker);
                    }
                }
            }
        }
    }

    /// An operation on one head of keys and values of a span, and on the queries that it serves.
    ///
    /// # Safety
    /// During the call nobody else uses these heads of the span's rows in qkv, the head's cache, and the
    /// cells of the queries; nobody writes angles.
    unsafe fn head_operation(
        &self,
        operation: &Operation,
        span: &Span,
        layer: usize,
        head: usize,
        scratch: &mut AttentionScratch,
        worker: &Worker,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match operation {
                Operation::RotateHeads { norms, base } => {
                    let attention = &self.model.config().attention;
                    let queries = head * attention.group()..(head + 1) * attention.group();
                    for t in span.rows() {
                        for head in queries.clone().chain([attention.heads + head]) {
                            self.rotate_head(t, head, norms.as_ref(), *base, worker);
                        }
                    }
                }
                Operation::Store => self.store_span(span, layer, head),
                Operation::Attend { scale, window } => {
                    let at_once = self.tokens_at_once();
                    for first in (0..span.len).step_by(at_once) {
                        let tokens = first..span.len.min(first + at_once);
                        let attending = (*scale, *window);
                        self.attend_tokens(span, tokens, layer, head, attending, scratch);
                    }
                }
                _ => unreachable!("no schedule has another operation here"),
            }
        }
    }

    /// Keys and values of a span -> one head of its cache.
    ///
    /// # Safety
    /// Nobody else uses that head's cache, and nobody writes that head's keys and values in qkv, during
    /// the call.
    unsafe fn store_span(&self, span: &Span, layer: usize, head: usize) {
        let attention = &self.model.config().attention;
        let (d, width) = (attention.head_size, attention.qkv_width());
        let place = self.model.program().layers[layer].kind;
        // SAFETY: the caller's promise.
        let mut cache = unsafe { self.caches[span.cache].head_mut(self.arena, place, head) };
        for (position, t) in (span.position..).zip(span.rows()) {
            let key = t * width + attention.query_width() + head * d;
            let value = key + attention.kv_width();
            // SAFETY: the caller's promise.
            let (key, value) = unsafe {
                let read = |start| self.arena.read(self.buffers.qkv, start..start + d);
                (read(key), read(value))
            };
            self.kernels.store(&mut cache, position, key, value);
        }
    }

    /// Attention of one head of keys and values over queries of a span, those of its rows `tokens`, which
    /// are at most [`Self::tokens_at_once`].
    ///
    /// # Safety
    /// During the call nobody writes these queries or that head's cache, and nobody else uses the cells
    /// of the queries.
    unsafe fn attend_tokens(
        &self,
        span: &Span,
        tokens: Range<usize>,
        layer: usize,
        head: usize,
        attending: Attending,
        scratch: &mut AttentionScratch,
    ) {
        let query_width = self.model.config().attention.query_width();
        // SAFETY: the caller's promise.
        unsafe {
            let job = self.attention(span, tokens, layer, head, attending);
            let out = self.cells_from(self.buffers.attended, span.row, query_width);
            self.kernels.attend(&job, scratch, &out);
        }
    }

    /// The attention of one head of keys and values over queries of a span, those of its rows `tokens`.
    ///
    /// # Safety
    /// As long as it lives nobody writes these queries or that head's cache.
    unsafe fn attention(
        &self,
        span: &Span,
        tokens: Range<usize>,
        layer: usize,
        head: usize,
        (scale, window): Attending,
    ) -> Attention<'_> {
        let config = self.model.config();
        let attention = &config.attention;
        let (d, width, group) = (attention.head_size, attention.qkv_width(), attention.group());
        let place = self.model.program().layers[layer].kind;
        // SAFETY: the caller's promise.
        unsafe {
            Attention {
                cache: self.caches[span.cache].head(self.arena, place, head),
                queries: self.arena.read(self.buffers.qkv, span.row * width..span.end() * width),
                stride: width,
                columns: row_range(head * group, d),
                group,
                tokens,
                position: span.position,
                window,
                scale,
                bias: self.model.slopes().map(|slopes| Alibi {
                    slopes: &slopes[head * group..][..group],
                    train_len: match config.positions {
                        Positions::Alibi { train_len } => train_len,
                        _ => None,
                    },
                }),
                segment: None,
            }
        }
    }

    fn attention_scratch(&self, worker: &Worker) -> AttentionScratch<'_> {
        let (b, index) = (self.buffers, worker.index());
        let padded = padded_head_size(self.model.config().attention.head_size);
        let rows = row_range(index, MOST_QUERIES * padded);
        // SAFETY: the contract of a phase: the rows with the worker's index are its own.
        unsafe {
            AttentionScratch {
                queries: self.arena.write(b.queries, rows.clone()),
                queries_i8: self.arena.write(b.queries_i8, rows.clone()),
                scores: self.arena.write(b.scores, row_range(index, QUERY_BLOCK * SEGMENT)),
                sums: self.arena.write(b.sums, rows),
                part: self.arena.write(b.part, row_range(index, QUERY_BLOCK * padded)),
            }
        }
    }
}
