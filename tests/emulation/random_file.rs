//! Model files with random contents, written by `docs/format.md` without any checkpoint: for every
//! configuration that a header can state.

use std::ops::Range;

use serde_json::{Map, Value, json};

/// How matrices are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matrices {
    /// The MLP's in int4 with groups of 32, all others in int8 with groups of 64.
    Int4Mlp,
    /// The MLP's in int8 with groups of 128, all others in int4 with groups of 32.
    Int8Mlp,
    /// All in int4 with groups of 32.
    Int4,
    /// The MLP's in levels of three bits with groups of 32, all others in levels of four bits with groups of 64.
    Tc3Mlp,
    /// The MLP's in levels of two bits with groups of 128, all others in levels of three bits with groups of 64.
    Tc2Mlp,
}

impl Matrices {
    /// Scheme, group size, and the exponent that makes weights of some 0.1.
    fn format(self, name: &str) -> (&'static str, usize, i32) {
        match (self, name.contains("mlp")) {
            (Self::Int4, _) | (Self::Int4Mlp, true) | (Self::Int8Mlp, false) => ("int4", 32, -2),
            (Self::Int4Mlp, false) => ("int8", 64, -6),
            (Self::Int8Mlp, true) => ("int8", 128, -6),
            (Self::Tc3Mlp, true) => ("tc3", 32, -4),
            (Self::Tc3Mlp, false) => ("nl4", 64, -4),
            (Self::Tc2Mlp, true) => ("tc2", 128, -4),
            (Self::Tc2Mlp, false) => ("tc3", 64, -4),
        }
    }
}

/// The bytes of a file and its tensors' headers.
struct Writer {
    random: Random,
    matrices: Matrices,
    data: Vec<u8>,
    /// The safetensors header's entries, in file order.
    entries: Vec<String>,
    checksums: Vec<u32>,
    /// What the metadata says of the matrices.
    infos: Map<String, Value>,
}

/// A model of this configuration, which is the whole `config` of a header.
pub fn random_file(config: &Value, matrices: Matrices) -> Vec<u8> {
    let mut writer = Writer {
        random: Random(3),
        matrices,
        data: Vec::new(),
        entries: Vec::new(),
        checksums: Vec::new(),
        infos: Map::new(),
    };
    let count = |pointer: &str| config.pointer(pointer).unwrap().as_u64().unwrap() as usize;
    let embd = count("/n_embd");
    let vocab = count("/vocab_size");
    let layers = 0..count("/n_layer");
    writer.matrix("wte.weight", [vocab, embd]);
    for n in layers.clone() {
        writer.layer_matrices(n, config, &count);
    }
    if config["tie_word_embeddings"] == false {
        writer.matrix("lm_head.weight", [vocab, embd]);
    }
    if let Some(rope) = config["positions"].get("rope") {
        writer.frequencies(rope);
    }
    for n in layers {
        writer.layer_vectors(n, config, &count);
    }
    writer.norm("ln_f", config, embd);
    if config["positions"].get("alibi").is_some() {
        writer.vector("alibi.slopes", count("/attention/heads"), -0.05, 0.04);
    }
    if config["positions"] == "learned" {
        writer.positions(count("/n_positions"), embd);
    }
    writer.finish(config)
}

impl Writer {
    fn layer_matrices(&mut self, n: usize, config: &Value, count: &impl Fn(&str) -> usize) {
        let (embd, inner) = (count("/n_embd"), count("/mlp/inner"));
        let (queries, keys) = widths(count);
        self.matrix(&format!("h.{n}.attn.c_attn.weight"), [queries + 2 * keys, embd]);
        self.matrix(&format!("h.{n}.attn.c_proj.weight"), [embd, queries]);
        self.matrix(&format!("h.{n}.mlp.c_fc.weight"), [inner, embd]);
        if config["mlp"]["kind"] == "gated" {
            self.matrix(&format!("h.{n}.mlp.c_fc2.weight"), [inner, embd]);
        }
        self.matrix(&format!("h.{n}.mlp.c_proj.weight"), [embd, inner]);
    }

    fn layer_vectors(&mut self, n: usize, config: &Value, count: &impl Fn(&str) -> usize) {
        let (embd, inner, head) =
            (count("/n_embd"), count("/mlp/inner"), count("/attention/head_size"));
        let (queries, keys) = widths(count);
        let attention = &config["attention"];
        let (before, after) =
            (config["norm"]["place"] != "after", config["norm"]["place"] != "before");
        let bias = |part: &str| format!("h.{n}.{part}.bias");
        if before {
            self.norm(&format!("h.{n}.ln_1"), config, embd);
        }
        if attention["biases"] != "none" {
            self.vector(&bias("attn.c_attn"), queries + 2 * keys, 0.0, 0.1);
        }
        let norms = match attention["query_key_norm"].as_str().unwrap() {
            "none" => None,
            "head" => Some((head, head)),
            _ => Some((queries, keys)),
        };
        if let Some((query, key)) = norms {
            self.vector(&format!("h.{n}.attn.q_norm.weight"), query, 1.0, 0.4);
            self.vector(&format!("h.{n}.attn.k_norm.weight"), key, 1.0, 0.4);
        }
        if attention["biases"] == "both" {
            self.vector(&bias("attn.c_proj"), embd, 0.0, 0.1);
        }
        if after {
            self.norm(&format!("h.{n}.attn.ln_out"), config, embd);
        }
        if before {
            self.norm(&format!("h.{n}.ln_2"), config, embd);
        }
        if config["mlp"]["biases"] == true {
            self.vector(&bias("mlp.c_fc"), inner, 0.0, 0.1);
            if config["mlp"]["kind"] == "gated" {
                self.vector(&bias("mlp.c_fc2"), inner, 0.0, 0.1);
            }
            self.vector(&bias("mlp.c_proj"), embd, 0.0, 0.1);
        }
        if after {
            self.norm(&format!("h.{n}.mlp.ln_out"), config, embd);
        }
    }

    fn norm(&mut self, name: &str, config: &Value, width: usize) {
        self.vector(&format!("{name}.weight"), width, 1.0, 0.4);
        if config["norm"]["kind"] == "layer" {
            self.vector(&format!("{name}.bias"), width, 0.0, 0.2);
        }
    }

    fn vector(&mut self, name: &str, width: usize, mean: f32, spread: f32) {
        let values = (0..width).map(|_| mean + spread * self.random.uniform());
        let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        self.tensor(name, "F32", &[width], &bytes);
    }

    /// For each factor, frequencies that fall from 1, each base more slowly than the one before.
    fn frequencies(&mut self, rope: &Value) {
        let (bases, pairs) =
            (rope["factors"].as_array().unwrap().len(), rope["pairs"].as_u64().unwrap());
        let frequency = |base: usize, pair: u64| {
            let theta = [1e4, 1e6, 500.0][base % 3];
            f64::powf(theta, -(pair as f64) / pairs as f64)
        };
        let values = (0..bases).flat_map(|base| (0..pairs).map(move |pair| frequency(base, pair)));
        let bytes: Vec<u8> = values.flat_map(f64::to_le_bytes).collect();
        self.tensor("rope.inverse_frequencies", "F64", &[bases, pairs as usize], &bytes);
    }

    /// Numbers of 2^-5..2^-3 of either sign.
    fn positions(&mut self, rows: usize, width: usize) {
        let bytes: Vec<u8> = (0..rows * width).flat_map(|_| self.small_float16()).collect();
        self.tensor("wpe.weight", "F16", &[rows, width], &bytes);
    }

    fn small_float16(&mut self) -> [u8; 2] {
        (0x2800 | self.random.bits() as u16 & 0x87ff).to_le_bytes()
    }

    /// Random weights, those of the padding too, and scales of 2^-5..2^-3 of either sign.
    fn matrix(&mut self, name: &str, [rows, cols]: [usize; 2]) {
        let (scheme, group_size, exponent) = self.matrices.format(name);
        let (groups, panels) = (cols.div_ceil(group_size), rows.div_ceil(16));
        let bits = match scheme {
            "int8" => 8,
            "tc3" => 3,
            "tc2" => 2,
            _ => 4,
        };
        let weights = groups * group_size * 2 * bits;
        let mut bytes = Vec::new();
        for _ in 0..panels {
            bytes.extend((0..weights).map(|_| self.random.bits() as u8));
            bytes.extend((0..16 * groups).flat_map(|_| self.small_float16()));
            bytes.resize(bytes.len().next_multiple_of(64), 0);
        }
        let info = json!({
            "scheme": scheme, "group_size": group_size, "shape": [rows, cols], "exponent": exponent,
        });
        self.infos.insert(name.to_owned(), info);
        self.tensor(name, "U8", &[panels, bytes.len() / panels], &bytes);
    }

    fn tensor(&mut self, name: &str, dtype: &str, shape: &[usize], bytes: &[u8]) {
        let offsets = [self.data.len(), self.data.len() + bytes.len()];
        let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets });
        self.entries.push(format!("\"{name}\":{entry}"));
        self.checksums.push(crc32fast::hash(bytes));
        self.data.extend(bytes);
    }

    /// Checksums, header, frame.
    fn finish(mut self, config: &Value) -> Vec<u8> {
        let table: Vec<u8> = self.checksums.iter().flat_map(|crc| crc.to_le_bytes()).collect();
        let Range { start, end } = self.data.len()..self.data.len() + table.len() + 8;
        let entry = json!({ "dtype": "U8", "shape": [end - start], "data_offsets": [start, end] });
        self.entries.push(format!("\"checksums\":{entry}"));
        let metadata = json!({
            "version": 3, "config": config, "tensors": self.infos, "source": null, "quantizer": {},
        });
        let metadata = json!({ "cerebellum": metadata.to_string() });
        let mut header = format!("{{\"__metadata__\":{metadata},{}}}", self.entries.join(","));
        let padded = (8 + header.len()).next_multiple_of(64) - 8;
        header.extend(std::iter::repeat_n(' ', padded - header.len()));

        let mut file = (padded as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        let header_crc = crc32fast::hash(&file);
        file.extend(&self.data);
        file.extend(&table);
        file.extend(crc32fast::hash(&table).to_le_bytes());
        file.extend(header_crc.to_le_bytes());
        file
    }
}

/// Widths of all queries and of all keys.
fn widths(count: &impl Fn(&str) -> usize) -> (usize, usize) {
    let head = count("/attention/head_size");
    (count("/attention/heads") * head, count("/attention/kv_heads") * head)
}

/// Marsaglia's xorshift32.
pub struct Random(pub u32);

impl Random {
    pub fn bits(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    /// In -1..1.
    pub fn uniform(&mut self) -> f32 {
        (self.bits() >> 8) as f32 / (1 << 23) as f32 - 1.0
    }
}
