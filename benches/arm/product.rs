//! One matrix product between two marks, for `products.py`, which follows every instruction of it.
//!
//!     product ISA int4|int8 GROUP_SIZE ROWS INPUTS TOKENS

use cerebellum_kernels::kernels::{
    CellWriter, Epilogue, Isa, Kernels, Matmul, QuantizedRowMut, QuantizedRows, Weights,
};
use cerebellum_kernels::quant::{Scheme, TileLayout};

/// Where the trace to look at begins.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn trace_begin() {
    std::hint::black_box(1);
}

/// Where it ends.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn trace_end() {
    std::hint::black_box(2);
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [isa, scheme, group_size, rows, inputs, tokens] = &arguments[..] else {
        panic!("product ISA int4|int8 GROUP_SIZE ROWS INPUTS TOKENS");
    };
    let number = |text: &str| -> usize { text.parse().expect("a number") };
    let scheme = if scheme == "int4" { Scheme::Int4 } else { Scheme::Int8 };
    let kernels = Isa::from_name(isa).and_then(Kernels::new).expect("a supported instruction set");
    let (rows, tokens) = (number(rows), number(tokens));
    let tiles = TileLayout::new(rows, number(inputs), scheme, number(group_size)).expect("sound");

    // The way of a product does not depend on what is multiplied.
    let bytes = vec![0x11; tiles.bytes()];
    let x: Vec<f32> = (0..tiles.cols()).map(|i| i as f32).collect();
    let mut values = vec![0; tokens * tiles.padded_cols()];
    let mut scales = vec![0.0; tokens * tiles.groups()];
    let mut corrections = vec![[0; 2]; tokens * tiles.blocks()];
    for t in 0..tokens {
        let out = QuantizedRowMut {
            values: &mut values[t * tiles.padded_cols()..][..tiles.padded_cols()],
            scales: &mut scales[t * tiles.groups()..][..tiles.groups()],
            corrections: &mut corrections[t * tiles.blocks()..][..tiles.blocks()],
        };
        kernels.quantize(&x, tiles.group_size(), out);
    }
    let job = Matmul {
        weights: Weights::new(tiles, 1.0, &bytes),
        input: QuantizedRows {
            values: &values,
            scales: &scales,
            corrections: &corrections,
            padded_cols: tiles.padded_cols(),
            groups: tiles.groups(),
            blocks: tiles.blocks(),
        },
        bias: None,
        epilogue: Epilogue::Store,
    };
    let mut cells = vec![0.0; tokens * rows];
    let out = CellWriter::new(&mut cells, rows);
    trace_begin();
    // SAFETY: one thread, and the cells are used through this writer only.
    unsafe { kernels.matmul(&job, 0..tiles.panels(), &out) };
    trace_end();
    std::hint::black_box(cells);
}
