//! The models that people run, as files of many megabytes that are not in the repository.
//!
//! `CEREBELLUM_MODELS` is a directory with `NAME.gguf` and, of the same weights, `NAME-hf`:
//! `CEREBELLUM_MODELS=DIR cargo test --release -p cerebellum-tools --test families_real -- --ignored`.

use std::path::PathBuf;

use cerebellum_tools::checkpoint::Checkpoint;
use cerebellum_tools::reference::Reference;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

fn models() -> PathBuf {
    std::env::var_os("CEREBELLUM_MODELS").expect("CEREBELLUM_MODELS names a directory").into()
}

#[test]
#[ignore = "needs models that are not in the repository"]
fn a_gguf_file_is_read_as_the_directory_of_the_same_weights() {
    let mut compared = 0;
    for entry in models().read_dir().unwrap() {
        let file = entry.unwrap().path();
        let directory =
            file.with_file_name(format!("{}-hf", file.file_stem().unwrap().to_str().unwrap()));
        if file.extension().is_none_or(|extension| extension != "gguf") || !directory.is_dir() {
            continue;
        }
        let (gguf, hf) = (Checkpoint::open(&file).unwrap(), Checkpoint::open(&directory).unwrap());
        assert_eq!(gguf.config(), hf.config(), "{}", file.display());
        assert_eq!(gguf.derived(), hf.derived(), "{}", file.display());
        assert_eq!(gguf.bos_token_id(), hf.bos_token_id());
        assert!(gguf.extra_tensors().is_empty() && hf.extra_tensors().is_empty());
        assert!(gguf.tensor_names().eq(hf.tensor_names()));
        for name in gguf.tensor_names() {
            let (a, b) = (gguf.tensor(name).unwrap(), hf.tensor(name).unwrap());
            for first in (0..a.rows()).step_by(4096) {
                let rows = first..a.rows().min(first + 4096);
                let (a, b) = (a.read_rows(rows.clone()).unwrap(), b.read_rows(rows).unwrap());
                // The directory has norms less one, in float32: the last bit may be lost.
                let same = |(a, b): (&f32, &f32)| a == b || (a - b).abs() <= 1e-7 * a.abs();
                assert!(a.len() == b.len() && a.iter().zip(&b).all(same), "{name} from {first}");
            }
        }
        println!("{}: {} tensors are the same", file.display(), gguf.tensor_names().len());
        compared += 1;
    }
    assert!(compared > 0, "no NAME.gguf beside a NAME-hf");
}

/// `NAME.golden.safetensors` has token ids, and of every position the largest logits and their tokens,
/// which transformers computed in float32.
#[test]
#[ignore = "needs models that are not in the repository"]
fn the_reference_matches_transformers() {
    let mut compared = 0;
    for entry in models().read_dir().unwrap() {
        let file = entry.unwrap().path();
        let golden = file.with_extension("golden.safetensors");
        if file.extension().is_none_or(|extension| extension != "gguf") || !golden.exists() {
            continue;
        }
        let checkpoint = Checkpoint::open(&file).unwrap();
        let model = Reference::load(&checkpoint).unwrap();
        let bytes = std::fs::read(&golden).unwrap();
        let golden = SafeTensors::deserialize(&bytes).unwrap();
        let mut worst = 0f32;
        for name in golden.names().into_iter().filter_map(|name| name.strip_prefix("top_ids.")) {
            let get = |kind: &str| golden.tensor(&format!("{kind}.{name}")).unwrap();
            let integers = |tensor: TensorView| -> Vec<u32> {
                let (data, wide) = (tensor.data(), tensor.dtype() == Dtype::I64);
                let number = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
                data.chunks_exact(if wide { 8 } else { 4 }).map(number).collect()
            };
            let (ids, top) = (integers(get("ids")), integers(get("top_ids")));
            let tensor = get("top_logits");
            let expected = tensor.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));
            let logits = model.logits(&ids).unwrap();
            let vocab = checkpoint.config().vocab_size;
            let kept = top.len() / ids.len();
            for (i, (token, expected)) in top.iter().zip(expected).enumerate() {
                let found = logits[i / kept * vocab + *token as usize];
                worst = worst.max((found - expected).abs());
            }
        }
        println!("{}: largest absolute error {worst:e}", file.display());
        assert!(worst <= 2e-3, "{}: {worst:e}", file.display());
        compared += 1;
    }
    assert!(compared > 0, "no NAME.golden.safetensors beside a NAME.gguf");
}
