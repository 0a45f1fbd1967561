//! A model file read by `docs/format.md`: the safetensors library finds the tensors, the rest is here.

use safetensors::SafeTensors;
use serde_json::Value;

use super::arithmetic::float16;
use super::rope::Base;

/// The levels of `docs/numbers.md` section 2.
const NL4: [i32; 16] = [-31, -23, -18, -14, -11, -8, -5, -2, 1, 4, 7, 10, 13, 17, 22, 28];
const TC3: [i32; 16] = [-31, -21, -16, -12, -9, -6, -4, -1, 1, 4, 6, 9, 12, 15, 20, 27];
const TC2: [i32; 8] = [-24, -14, -8, -2, 3, 9, 16, 29];

/// A matrix `[out, in]`, as integers and scales.
pub struct Matrix {
    pub rows: usize,
    pub cols: usize,
    pub group_size: usize,
    /// `2^k`.
    pub unit: f32,
    /// Each row with the padding of its last group.
    pub weights: Vec<Vec<i32>>,
    /// Each row's scales `h`.
    pub scales: Vec<Vec<f32>>,
}

pub struct File<'a> {
    tensors: SafeTensors<'a>,
    /// What stands behind the metadata key `cerebellum`.
    metadata: Value,
}

impl<'a> File<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
        let metadata = &header.metadata().as_ref().unwrap()["cerebellum"];
        Self {
            tensors: SafeTensors::deserialize(bytes).unwrap(),
            metadata: serde_json::from_str(metadata).unwrap(),
        }
    }

    /// What stands at a JSON pointer of the configuration.
    pub fn config(&self, pointer: &str) -> &Value {
        self.metadata["config"].pointer(pointer).unwrap_or_else(|| panic!("no {pointer}"))
    }

    pub fn count(&self, pointer: &str) -> usize {
        self.config(pointer).as_u64().unwrap() as usize
    }

    pub fn word(&self, pointer: &str) -> &str {
        self.config(pointer).as_str().unwrap()
    }

    pub fn flag(&self, pointer: &str) -> bool {
        self.config(pointer).as_bool().unwrap()
    }

    /// A number in binary32.
    pub fn number(&self, pointer: &str) -> f32 {
        self.config(pointer).as_f64().unwrap() as f32
    }

    /// A field of a layer's kind.
    pub fn of_kind(&self, layer: usize, field: &str) -> Option<usize> {
        let layers = &self.config("/attention")["layers"];
        let kind = layers.get(layer).map_or(0, |kind| kind.as_u64().unwrap());
        self.config(&format!("/attention/kinds/{kind}/{field}")).as_u64().map(|n| n as usize)
    }

    /// The bases of rotation; none if positions are not rotated.
    pub fn bases(&self) -> Vec<Base> {
        let Some(rope) = self.config("/positions").get("rope") else { return Vec::new() };
        let pairs = rope["pairs"].as_u64().unwrap() as usize;
        let frequencies = self.bytes("rope.inverse_frequencies").as_chunks().0;
        let frequencies: Vec<f64> = frequencies.iter().map(|&f| f64::from_le_bytes(f)).collect();
        let factors = rope["factors"].as_array().unwrap();
        let bases = factors.iter().zip(frequencies.chunks(pairs));
        bases
            .map(|(factor, frequencies)| Base {
                frequencies: frequencies.to_vec(),
                factor: factor.as_f64().unwrap(),
            })
            .collect()
    }

    fn bytes(&self, name: &str) -> &[u8] {
        self.tensors.tensor(name).unwrap().data()
    }

    /// A float32 vector.
    pub fn vector(&self, name: &str) -> Vec<f32> {
        let values = self.bytes(name).as_chunks().0;
        values.iter().map(|&value| f32::from_le_bytes(value)).collect()
    }

    /// The position table, row after row.
    pub fn positions(&self) -> Vec<f32> {
        let values = self.bytes("wpe.weight").as_chunks().0;
        values.iter().map(|&value| float16(u16::from_le_bytes(value))).collect()
    }

    pub fn matrix(&self, name: &str) -> Matrix {
        let info = &self.metadata["tensors"][name];
        let number = |value: &Value| value.as_i64().unwrap() as usize;
        let (rows, cols) = (number(&info["shape"][0]), number(&info["shape"][1]));
        let group_size = number(&info["group_size"]);
        let scheme = info["scheme"].as_str().unwrap();
        let bits = match scheme {
            "int8" => 8,
            "int4" | "nl4" => 4,
            "tc3" => 3,
            "tc2" => 2,
            _ => panic!("{scheme}"),
        };
        let groups = cols.div_ceil(group_size);
        let group_bytes = 2 * bits * group_size;
        let panel_bytes = (groups * (group_bytes + 32)).next_multiple_of(64);
        let panels = self.bytes(name);
        assert_eq!(panels.len(), rows.div_ceil(16) * panel_bytes, "{name}");

        let weight = |row: usize, col: usize| {
            let group = &panels[row / 16 * panel_bytes + col / group_size * group_bytes..];
            let (step, i) = (col % group_size / 4, col % 4);
            let within = 4 * (row % 16) + i;
            let byte = |line: usize| i32::from(group[64 * line + within]);
            let (unit, j) = (step / 8, step % 8);
            let nibble = || byte(step / 2) >> (4 * (step % 2)) & 15;
            // The bits of each input `i` of each step `j` of a unit: own ones from a step's or half a step's line,
            // and the path's.
            let bit = |line: usize, j: usize, i: usize| {
                let byte = group[64 * (bits * unit + line) + 4 * (row % 16) + i];
                i32::from(byte) >> (4 * (j % 2) + j / 2) & 1
            };
            let two = || byte(3 * unit + j / 4) >> (4 * (j % 2) + 2 * (j % 4 / 2)) & 3;
            // The path's bit at a place: step by step in the order 0, 2, 4, 6, 1, 3, 5, 7, input by input; 0 before it.
            let path = |place: i32| match place {
                0.. => {
                    let (slot, i) = (place as usize / 4, place as usize % 4);
                    bit(bits - 1, 2 * (slot % 4) + slot / 4, i)
                }
                _ => 0,
            };
            let place = (16 * (j % 2) + 4 * (j / 2) + i) as i32;
            let quarter = || 2 * (path(place) ^ path(place - 2)) + path(place - 1);
            match scheme {
                "int8" => byte(step) - 128,
                "int4" => nibble() - 8,
                "nl4" => NL4[nibble() as usize],
                "tc3" => TC3[(4 * two() + quarter()) as usize],
                _ => TC2[(4 * bit(0, j, i) + quarter()) as usize],
            }
        };
        let scale = |row: usize, group: usize| {
            let at = row / 16 * panel_bytes + groups * group_bytes + 32 * group + 2 * (row % 16);
            float16(u16::from_le_bytes([panels[at], panels[at + 1]]))
        };
        let padded = groups * group_size;
        Matrix {
            rows,
            cols,
            group_size,
            unit: f64::powi(2.0, info["exponent"].as_i64().unwrap() as i32) as f32,
            weights: (0..rows).map(|r| (0..padded).map(|c| weight(r, c)).collect()).collect(),
            scales: (0..rows).map(|r| (0..groups).map(|g| scale(r, g)).collect()).collect(),
        }
    }
}
