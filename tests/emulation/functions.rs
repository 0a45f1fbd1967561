//! Section 8: the elementary functions, step by step from `docs/elementary-functions.md`, with the
//! coefficients that stand in it.

use std::collections::HashMap;

use super::arithmetic::{add, div, fma, mul, sub};

const PAGE: &str = include_str!("../../docs/elementary-functions.md");

/// 1.5 * 2^23.
const ROUND: f32 = 12582912.0;

/// The functions, with the page's tables of constants.
pub struct Functions {
    tables: HashMap<&'static str, Vec<f32>>,
}

impl Functions {
    /// Reads the constants: in indented lines, a name in capitals and the bits that follow it.
    pub fn new() -> Self {
        let mut tables = HashMap::<_, Vec<f32>>::new();
        let mut name = "";
        let lines = PAGE.lines().filter(|line| line.starts_with("    "));
        for word in lines.flat_map(str::split_whitespace) {
            if let Ok(bits) = u32::from_str_radix(word, 16)
                && word.len() == 8
            {
                tables.entry(name).or_default().push(f32::from_bits(bits));
            } else if word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
            {
                name = word;
            }
        }
        let lengths = ["EXP2", "LOG2E", "GELU", "GELU_LIMIT", "GELU_TANH"].map(|t| tables[t].len());
        assert_eq!(lengths, [7, 1, 9, 1, 12], "the page's tables have changed");
        Self { tables }
    }

    pub fn constant(&self, name: &str) -> f32 {
        self.tables[name][0]
    }

    fn horner(&self, table: &str, x: f32) -> f32 {
        let c = &self.tables[table];
        let mut p = c[c.len() - 1];
        for i in (0..c.len() - 1).rev() {
            p = fma(p, x, c[i]);
        }
        p
    }

    /// Steps 7 and 8 of the exponentials.
    fn scale(p: f32, s: f32) -> f32 {
        let e = (s.to_bits() << 23).wrapping_add(126 << 23) as i32;
        mul(p, f32::from_bits(e.max(0x00400000) as u32))
    }

    pub fn exp2(&self, x: f32) -> f32 {
        let x = if x > 128.0 { 128.0 } else { x };
        let s = add(x, ROUND);
        let n = sub(s, ROUND);
        let f = sub(x, n);
        let p = self.horner("EXP2", f);
        let y = Self::scale(p, s);
        if x < -126.0 { 0.0 } else { y }
    }

    fn exp(&self, x: f32) -> f32 {
        let log2e = self.constant("LOG2E");
        let x = if x > 89.0 { 89.0 } else { x };
        let s = fma(x, log2e, ROUND);
        let n = sub(s, ROUND);
        let f = fma(x, log2e, -n);
        let f = fma(x, self.constant("LOG2E_LOW"), f);
        let p = self.horner("EXP2", f);
        let y = Self::scale(p, s);
        if x < self.constant("EXP_UNDERFLOW") { 0.0 } else { y }
    }

    fn relu(x: f32) -> f32 {
        if x < 0.0 { 0.0 } else { x }
    }

    fn silu(&self, x: f32) -> f32 {
        let e = self.exp(-x);
        div(x, add(1.0, e))
    }

    fn gelu(&self, table: &str, limit: &str, x: f32) -> f32 {
        let a = f32::from_bits(x.to_bits() & 0x7fff_ffff);
        let limit = self.constant(limit);
        let a = if a < limit { a } else { limit };
        let mut p = self.horner(table, a);
        for _ in 0..3 {
            p = mul(p, p);
        }
        let h = mul(-0.5, a);
        let r = Self::relu(x);
        fma(h, p, r)
    }

    /// The MLP's function by its name in the file.
    pub fn activation(&self, name: &str, x: f32) -> f32 {
        match name {
            "gelu" => self.gelu("GELU", "GELU_LIMIT", x),
            "gelu_tanh" => self.gelu("GELU_TANH", "GELU_TANH_LIMIT", x),
            "relu" => Self::relu(x),
            "silu" => self.silu(x),
            _ => panic!("no activation {name}"),
        }
    }
}
