//! Model files with random contents, written by `docs/format.md` without any checkpoint: for models that
//! have ALiBi, a gate and multipliers.

use serde_json::{Value, json};

use super::checkpoint::Random;

/// The bytes of a file and its tensors' headers.
struct Writer {
    random: Random,
    data: Vec<u8>,
    /// The safetensors header's entries, in file order.
    entries: Vec<String>,
    checksums: Vec<u32>,
    /// What the metadata says of the matrices.
    matrices: serde_json::Map<String, Value>,
}

/// A model with every switch of the BTLM family; `config` is the whole configuration. The MLP is int4 in
/// groups of 32, all else int8 in groups of 64.
pub fn btlm(config: &Value) -> Vec<u8> {
    let count = |field: &str| config[field].as_u64().unwrap() as usize;
    let (embd, inner) = (count("n_embd"), count("n_inner"));
    let mut writer = Writer {
        random: Random(3),
        data: Vec::new(),
        entries: Vec::new(),
        checksums: Vec::new(),
        matrices: serde_json::Map::new(),
    };
    let layers = 0..count("n_layer");
    writer.matrix("wte.weight", count("vocab_size"), embd);
    for n in layers.clone() {
        writer.matrix(&format!("h.{n}.attn.c_attn.weight"), 3 * embd, embd);
        writer.matrix(&format!("h.{n}.attn.c_proj.weight"), embd, embd);
        writer.matrix(&format!("h.{n}.mlp.c_fc.weight"), inner, embd);
        writer.matrix(&format!("h.{n}.mlp.c_fc2.weight"), inner, embd);
        writer.matrix(&format!("h.{n}.mlp.c_proj.weight"), embd, inner);
    }
    for n in layers {
        writer.norm(&format!("h.{n}.ln_1"), embd);
        writer.vector(&format!("h.{n}.attn.c_attn.bias"), 3 * embd, 0.0, 0.1);
        writer.vector(&format!("h.{n}.attn.c_proj.bias"), embd, 0.0, 0.1);
        writer.norm(&format!("h.{n}.ln_2"), embd);
        writer.vector(&format!("h.{n}.mlp.c_fc.bias"), inner, 0.0, 0.1);
        writer.vector(&format!("h.{n}.mlp.c_fc2.bias"), inner, 0.0, 0.1);
        writer.vector(&format!("h.{n}.mlp.c_proj.bias"), embd, 0.0, 0.1);
    }
    writer.norm("ln_f", embd);
    writer.vector("alibi.slopes", count("n_head"), -0.05, 0.04);
    writer.finish(config)
}

impl Writer {
    fn norm(&mut self, name: &str, width: usize) {
        self.vector(&format!("{name}.weight"), width, 1.0, 0.4);
        self.vector(&format!("{name}.bias"), width, 0.0, 0.2);
    }

    fn vector(&mut self, name: &str, width: usize, mean: f32, spread: f32) {
        let values = (0..width).map(|_| mean + spread * self.random.uniform());
        let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        self.tensor(name, "F32", &[width], &bytes);
    }

    /// Random weights, those of the padding too, and scales of 2^-5..2^-3 of either sign.
    fn matrix(&mut self, name: &str, rows: usize, cols: usize) {
        let int8 = !name.contains("mlp");
        let (scheme, group_size, exponent) = if int8 { ("int8", 64, -6) } else { ("int4", 32, -2) };
        let (groups, panels) = (cols.div_ceil(group_size), rows.div_ceil(16));
        let weights = groups * group_size * if int8 { 16 } else { 8 };
        let mut bytes = Vec::new();
        for _ in 0..panels {
            bytes.extend((0..weights).map(|_| self.random.bits() as u8));
            let scales = (0..16 * groups).map(|_| 0x2800 | self.random.bits() as u16 & 0x87ff);
            bytes.extend(scales.flat_map(u16::to_le_bytes));
            bytes.resize(bytes.len().next_multiple_of(64), 0);
        }
        let info = json!({
            "scheme": scheme, "group_size": group_size, "shape": [rows, cols], "exponent": exponent,
        });
        self.matrices.insert(name.to_owned(), info);
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
        let offsets = [self.data.len(), self.data.len() + table.len() + 8];
        let shape = [table.len() + 8];
        let entry = json!({ "dtype": "U8", "shape": shape, "data_offsets": offsets });
        self.entries.push(format!("\"checksums\":{entry}"));
        let metadata = json!({
            "version": 1, "config": config, "tensors": self.matrices, "source": null,
            "quantizer": {},
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
