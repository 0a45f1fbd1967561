//! Reading a checkpoint tensor by tensor must not keep its pages resident. This test has a process
//! of its own, because it watches the process's memory.
#![cfg(target_os = "linux")]

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;

use cerebellum_tools::checkpoint::Checkpoint;

const EMBD: usize = 512;
const LAYERS: usize = 12;

/// Resident pages of mapped files, in bytes.
fn resident_file_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssFile:")).unwrap();
    1024 * line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
}

/// A 150 MB checkpoint of zeros; the file is sparse, so that it takes no time to write.
fn write_checkpoint(directory: &std::path::Path) -> u64 {
    let config = format!(
        r#"{{"model_type":"gpt2","vocab_size":100,"n_positions":10,"n_embd":{EMBD},"n_head":8,"n_layer":{LAYERS}}}"#
    );
    fs::write(directory.join("config.json"), config).unwrap();
    let mut tensors = vec![
        ("wte.weight".to_owned(), vec![100, EMBD]),
        ("wpe.weight".to_owned(), vec![10, EMBD]),
        ("ln_f.weight".to_owned(), vec![EMBD]),
        ("ln_f.bias".to_owned(), vec![EMBD]),
    ];
    for layer in 0..LAYERS {
        let name = |part: &str| format!("h.{layer}.{part}");
        for (part, n_in, n_out) in [
            ("attn.c_attn", EMBD, 3 * EMBD),
            ("attn.c_proj", EMBD, EMBD),
            ("mlp.c_fc", EMBD, 4 * EMBD),
            ("mlp.c_proj", 4 * EMBD, EMBD),
        ] {
            tensors.push((name(&format!("{part}.weight")), vec![n_in, n_out]));
            tensors.push((name(&format!("{part}.bias")), vec![n_out]));
        }
        for part in ["ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias"] {
            tensors.push((name(part), vec![EMBD]));
        }
    }
    let (mut header, mut end) = (String::from("{"), 0);
    for (name, shape) in &tensors {
        let start = end;
        end += 4 * shape.iter().product::<usize>();
        let comma = if start == 0 { "" } else { "," };
        write!(
            header,
            r#"{comma}"{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
        )
        .unwrap();
    }
    header.push('}');
    let mut file = File::create(directory.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    let length = (8 + header.len() + end) as u64;
    file.set_len(length).unwrap();
    length
}

#[test]
fn resident_memory_stays_below_the_largest_tensor() {
    let directory = tempfile::tempdir().unwrap();
    let file_bytes = write_checkpoint(directory.path());
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let before = resident_file_bytes();
    let largest = 4 * 4 * (EMBD * EMBD) as u64;

    let mut peak = 0;
    for name in checkpoint.tensor_names() {
        let tensor = checkpoint.tensor(name).unwrap();
        for row in (0..tensor.rows()).step_by(64) {
            tensor.read_rows(row..tensor.rows().min(row + 64)).unwrap();
        }
        peak = peak.max(resident_file_bytes().saturating_sub(before));
        drop(tensor);
        checkpoint.read_f32(name).unwrap();
    }
    checkpoint.digest();
    let after = resident_file_bytes().saturating_sub(before);
    println!("file {file_bytes}, largest tensor {largest}, peak {peak}, after {after} bytes");
    // A page that neighbours share, and what the kernel maps around a fault, come on top.
    let slack = 4 << 20;
    assert!(file_bytes > 8 * (largest + slack), "the model is too small to prove anything");
    assert!(peak <= largest + slack, "peak of {peak} bytes");
    assert!(after <= slack, "{after} bytes still resident");
}
