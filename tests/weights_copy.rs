//! Weights copied to memory of the host's: the same bits, read from there, and what is refused.

mod common;

use std::alloc::{Layout, alloc, dealloc};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use cerebellum::format::TensorKind;
use cerebellum::quant::Scheme;
use cerebellum::{Access, Error, HostMemory, KvType, LogitsFor, Model, SessionOptions};
use common::{bits, golden, quantize_to, tokens};

/// Memory on a boundary of 64 bytes, which a test may change behind a model's back.
struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: tests change it only when nobody reads it.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes.max(1), HostMemory::ALIGN).unwrap();
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { alloc(layout) }).unwrap();
        let memory = Self { start, layout };
        memory.fill(0..layout.size());
        memory
    }

    /// Overwrites a part of it.
    fn fill(&self, range: Range<usize>) {
        assert!(range.end <= self.layout.size());
        // SAFETY: the assertion keeps it inside; nobody reads meanwhile.
        unsafe { self.start.add(range.start).write_bytes(0xA5, range.len()) };
    }

    /// From a byte on, so many of them.
    fn host(&self, offset: usize, bytes: usize) -> HostMemory {
        // SAFETY: tests outlive neither the memory nor the model; who is given a part of it has it alone.
        unsafe { HostMemory::new(self.start.add(offset), bytes) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it was allocated with the layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// A model file in such memory.
#[derive(Clone)]
struct Flash(Arc<Memory>);

impl Flash {
    fn new(file: &[u8]) -> Self {
        let memory = Memory::new(file.len());
        // SAFETY: it is as long as the file, and new.
        unsafe {
            memory.start.copy_from_nonoverlapping(NonNull::from_ref(file).cast(), file.len())
        };
        Self(Arc::new(memory))
    }
}

impl AsRef<[u8]> for Flash {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: it was filled with a file, and is changed only when nobody reads it.
        unsafe { std::slice::from_raw_parts(self.0.start.as_ptr(), self.0.layout.size()) }
    }
}

const CASES: [(&str, Scheme, usize); 4] = [
    ("cerebras-odd-inner", Scheme::Int4, 64),
    ("tied-bin", Scheme::Int8, 64),
    ("untied-bin-sharded", Scheme::Nl4, 64),
    ("../golden-modern/gemma3-text", Scheme::Int4, 64),
];

/// The model file of a case.
fn file(case: usize) -> Vec<u8> {
    let (checkpoint, scheme, group_size) = CASES[case];
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("model.cbl");
    quantize_to(&file, &golden(checkpoint), scheme, group_size);
    std::fs::read(file).unwrap()
}

/// The bits of all logits, on two threads, a prompt and then a token.
fn logits(model: &Model) -> Vec<u32> {
    let mut all = Vec::new();
    for kv in [KvType::F16, KvType::Int8] {
        let options =
            SessionOptions { kv, threads: 2, logits: LogitsFor::All, ..Default::default() };
        let mut session = model.session(&options).unwrap();
        let prompt = tokens(model, 9.min(model.config().max_context() - 1));
        for tokens in [&prompt[..], &[1]] {
            session.evaluate_each(tokens, |_, logits| all.extend(bits(logits))).unwrap();
        }
    }
    all
}

/// Places of the tensors that a pass reads.
fn places(model: &Model) -> Vec<Range<usize>> {
    let passed = |kind: &TensorKind| !matches!(kind, TensorKind::Tokenizer | TensorKind::Checksums);
    let tensors = model.layout().tensors().iter().filter(|tensor| passed(&tensor.kind));
    tensors.map(|tensor| tensor.range.clone()).collect()
}

/// Copies weights to so many bytes, and sees that logits stay the same and come from the copy.
fn check_copy(file: &[u8], want: &[u32], room: usize) {
    let (flash, memory) = (Flash::new(file), Memory::new(room));
    let model = Model::borrow(flash.clone()).unwrap();
    let copy = model.copy_weights(memory.host(0, room)).unwrap();
    assert_eq!(copy, model.worth_copying(room));
    assert!(copy.range.len() <= room && copy.saved_bytes > 0);
    // Whole tensors, and what the file has in their place is not read any more.
    let places = places(&model);
    assert!(places.iter().any(|place| place.start == copy.range.start));
    assert!(places.iter().any(|place| place.end == copy.range.end));
    flash.0.fill(copy.range.clone());
    assert!(logits(&model) == want, "{room} bytes");
}

#[test]
fn weights_are_read_where_they_are_copied_to() {
    for case in 0..CASES.len() {
        let file = file(case);
        let model = Model::borrow(Flash::new(&file)).unwrap();
        let (want, places) = (logits(&model), places(&model));
        let all = places.last().unwrap().end - places[0].start;
        let largest = places.iter().map(Range::len).max().unwrap();
        for room in [largest, all / 2, all - 64, all, all + 4096] {
            check_copy(&file, &want, room);
        }
        assert_eq!(model.worth_copying(all.next_multiple_of(64)).range.len(), all);
    }
}

/// Tensors shorter than a line of the memory, and every room.
#[test]
fn small_tensors_are_copied_whole_or_not() {
    for file in [
        &include_bytes!("data/hostile/model/seed.cbl")[..],
        include_bytes!("data/hostile/model/modern.cbl"),
    ] {
        let model = Model::borrow(Flash::new(file)).unwrap();
        let want = logits(&model);
        for room in (64..file.len()).step_by(64) {
            if !model.worth_copying(room).range.is_empty() {
                check_copy(file, &want, room);
            }
        }
    }
}

/// What the copy has is what is computed with.
#[test]
fn a_copy_that_is_overwritten_is_found_out() {
    let file = file(0);
    let model = Model::borrow(Flash::new(&file)).unwrap();
    let want = logits(&model);
    let memory = Memory::new(file.len());
    let copy = model.copy_weights(memory.host(0, file.len())).unwrap();
    // The model's contract is broken on purpose: nobody reads at the time.
    memory.fill(0..copy.range.len());
    let session = model.session(&SessionOptions::default());
    let now = session.unwrap().evaluate(&tokens(&model, 9)).map(bits);
    assert!(
        now.is_err()
            || now.unwrap() != want[8 * model.config().vocab_size..][..model.config().vocab_size]
    );
}

/// The best of all intervals, one by one.
#[test]
fn no_other_tensors_save_more() {
    for case in 0..CASES.len() {
        let model = Model::borrow(Flash::new(&file(case))).unwrap();
        let tensors = model.layout().tensors();
        let read: Vec<_> =
            tensors.iter().map(|tensor| tensor.bytes_of_token(model.config())).collect();
        let end = |last: usize| tensors[last].range.end;
        for room in (0..end(tensors.len() - 1)).step_by(1009) {
            let mut best = 0;
            for first in 0..tensors.len() {
                for last in first..tensors.len() {
                    if end(last) - tensors[first].range.start <= room {
                        best = best.max(read[first..=last].iter().sum());
                    }
                }
            }
            let copy = model.layout().worth_copying(model.config(), room);
            assert_eq!(copy.saved_bytes, best, "{room} bytes");
            assert!(copy.range.len() <= room);
        }
    }
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let file = file(0);
    let model = Model::borrow(Flash::new(&file)).unwrap();
    let want = logits(&model);
    let room = file.len();
    let memory = Memory::new(2 * room);
    let smallest = places(&model).iter().map(Range::len).min().unwrap().next_multiple_of(64);
    for (offset, bytes, message) in [
        (0, 0, "no tensor fits"),
        (0, smallest - 1, "no tensor fits"),
        (0, 63, "no tensor fits"),
        (1, room, "begins 1 bytes past a 64-byte boundary"),
        (32, room, "begins 32 bytes past"),
    ] {
        let error = model.copy_weights(memory.host(offset, bytes)).unwrap_err();
        assert!(matches!(error, Error::Option { name: "arena", .. }), "{error}");
        assert!(error.to_string().contains(message), "{error}");
    }
    // Memory of a session.
    let options = SessionOptions { context: Some(8), ..Default::default() };
    let private = model.plan(&options).unwrap().total_private_bytes;
    let arena = Memory::new(private.max(room));
    let executor = cerebellum::threads::Executor::Caller;
    let session = model.session_in(&options, executor, Some(arena.host(0, private))).unwrap();
    let error = model.copy_weights(arena.host(0, room)).unwrap_err();
    assert!(matches!(error, Error::ArenaInUse), "{error}");
    drop(session);
    // The end of the address space is no other place.
    model.copy_weights(arena.host(0, smallest)).unwrap();
    let again = model.copy_weights(memory.host(0, room)).unwrap_err().to_string();
    assert!(again.contains("a copy of weights already"), "{again}");
    assert!(logits(&model) == want);
    // Memory of a model, until it and its sessions are gone.
    let other = Model::borrow(Flash::new(&file)).unwrap();
    assert!(matches!(other.copy_weights(arena.host(0, room)), Err(Error::ArenaInUse)));
    let session = model.session(&options).unwrap();
    drop(model);
    assert!(matches!(other.copy_weights(arena.host(0, room)), Err(Error::ArenaInUse)));
    drop(session);
    other.copy_weights(arena.host(0, room)).unwrap();
    assert!(logits(&other) == want);
}

#[test]
fn a_mapped_file_may_have_a_copy_too() {
    let (checkpoint, scheme, group_size) = CASES[0];
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.cbl");
    quantize_to(&path, &golden(checkpoint), scheme, group_size);
    let model = Model::open(&path, Access::Map).unwrap();
    let want = logits(&model);
    let memory = Memory::new(model.file_bytes());
    let mut session = model.session(&SessionOptions::default()).unwrap();
    let before = bits(session.evaluate(&[1, 2, 3]).unwrap());
    model.copy_weights(memory.host(0, model.file_bytes())).unwrap();
    // A session that was there goes on with the copy.
    session.reset();
    assert_eq!(bits(session.evaluate(&[1, 2, 3]).unwrap()), before);
    assert!(logits(&model) == want);
}
