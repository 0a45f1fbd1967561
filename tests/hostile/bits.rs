//! Every bit of what precedes the tensors, flipped.

use cerebellum::format::read_header;

use crate::base::{golden, tiny, tiny_btlm, tiny_int8, tiny_modern};
use crate::class::Class;
use crate::parts::seal;

fn header_bits(file: &[u8]) -> usize {
    8 * read_header(file).unwrap().1.tensors()[0].range.start
}

#[test]
fn header_bits_flipped() {
    let mut class = Class::new("header bits");
    for file in [tiny(), tiny_btlm(), tiny_modern(), golden()] {
        let mut damaged = file.to_vec();
        let stored_checksum = 8 * (file.len() - 4)..8 * file.len();
        for bit in (0..header_bits(file)).chain(stored_checksum) {
            damaged[bit / 8] ^= 1 << (bit % 8);
            class.run(bit, &damaged).expect(bit, &["frame", "checksum"]);
            damaged[bit / 8] ^= 1 << (bit % 8);
        }
    }
    class.print();
}

/// With a matching checksum, so that the parser is what stands between these bytes and the kernels.
#[test]
fn header_bits_flipped_and_sealed() {
    let mut class = Class::new("header bits, sealed");
    for file in [tiny(), tiny_int8(), tiny_btlm(), tiny_modern()] {
        for bit in 0..header_bits(file) {
            let mut damaged = file.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            seal(&mut damaged);
            let outcome = class.run(bit, &damaged);
            assert!(bit < 64 || outcome.label() != "checksum", "bit {bit} was not sealed");
        }
    }
    class.print();
}
