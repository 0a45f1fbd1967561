//! Files that were cut short or have more than they should.

use std::fs;

use cerebellum::format::read_header;
use cerebellum::{Access, Model};

use crate::base::{golden, tiny};
use crate::class::{Class, Outcome};
use crate::exercise::Ran;
use crate::parts::seal;
use crate::random::Random;

/// Where tensors begin and end, and one byte beside.
fn edges(file: &[u8]) -> Vec<usize> {
    let (_, layout) = read_header(file).unwrap();
    let edges = layout.tensors().iter().flat_map(|t| [t.range.start, t.range.end]);
    let edges = edges.flat_map(|edge| [edge - 1, edge, edge + 1]);
    edges.filter(|&edge| edge < file.len()).collect()
}

fn header_bytes(file: &[u8]) -> usize {
    read_header(file).unwrap().1.tensors()[0].range.start
}

#[test]
fn truncated() {
    let mut class = Class::new("truncated");
    for length in 0..tiny().len() {
        class.run(length, &tiny()[..length]).expect(length, &["frame", "checksum"]);
    }
    let mut random = Random::new(1);
    let places = (0..1000).map(|_| random.below(golden().len())).collect::<Vec<_>>();
    let places = (0..=header_bytes(golden())).chain(edges(golden())).chain(places);
    for length in places {
        class.run(length, &golden()[..length]).expect(length, &["frame", "checksum"]);
    }
    class.print();
}

/// The last four bytes, wherever they are, hold the header's checksum: only the length tells.
#[test]
fn truncated_and_sealed() {
    let mut class = Class::new("truncated, sealed");
    let sealed = |file: &[u8], length: usize| {
        let mut file = file[..length].to_vec();
        seal(&mut file);
        file
    };
    for length in 0..tiny().len() {
        let labels = ["frame", "length"];
        class.run(length, &sealed(tiny(), length)).expect(length, &labels);
    }
    for length in edges(golden()) {
        class.run(length, &sealed(golden(), length)).expect(length, &["length", "frame"]);
    }
    class.print();
}

#[test]
fn extended() {
    let mut class = Class::new("extended");
    for junk in (1..=130).chain([tiny().len()]) {
        for byte in [0, b' ', 0xff] {
            let mut file = [tiny(), &vec![byte; junk]].concat();
            class.run(junk, &file).expect(junk, &["checksum"]);
            seal(&mut file);
            class.run(junk, &file).expect(junk, &["length"]);
        }
    }
    class.run("twice", &[tiny(), tiny()].concat()).expect("twice", &["length"]);
    class.print();
}

/// By way of the file system, mapped and read.
#[test]
fn truncated_on_disk() {
    let mut class = Class::new("truncated on disk");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.cbl");
    let run = |access| {
        let model = Model::open(&path, access)?;
        let damaged = model.verify()?.into_iter().map(|fault| fault.tensor).collect();
        Ok(Ran { damaged, tokenizer: Ok(()), evaluation: Ok(()) })
    };
    let page = 4096;
    let lengths = [0, 1, 7, 8, 63, 64, page - 1, page, page + 1];
    for length in lengths.into_iter().chain(edges(tiny())).filter(|&at| at < tiny().len()) {
        fs::write(&path, &tiny()[..length]).unwrap();
        for access in [Access::Map, Access::Read] {
            let outcome: Outcome = class.attempt(length, &tiny()[..length], || run(access));
            outcome.expect(length, &["frame", "checksum"]);
        }
    }
    fs::write(&path, tiny()).unwrap();
    for access in [Access::Map, Access::Read] {
        class.attempt("whole", tiny(), || run(access)).expect("whole", &["runs"]);
    }
    class.print();
}
