//! A model file taken apart, changed and put together again with checksums that match, so that
//! what is behind the checksums is tried. The fuzz targets seal their inputs too.

use serde_json::Value;

/// What is in a model file.
#[derive(Clone)]
pub struct Parts {
    /// The safetensors header, without the metadata.
    pub listing: Value,
    /// The JSON in the metadata.
    pub metadata: Value,
    /// The tensors.
    pub data: Vec<u8>,
}

impl Parts {
    /// Takes a sound file apart.
    pub fn of(file: &[u8]) -> Self {
        let (json, data) = split(file).expect("a sound file");
        let mut listing: Value = serde_json::from_slice(json).unwrap();
        let metadata = listing.as_object_mut().unwrap().remove("__metadata__").unwrap();
        let metadata = serde_json::from_str(metadata["cerebellum"].as_str().unwrap()).unwrap();
        Self { listing, metadata, data: data.to_vec() }
    }

    /// The JSON header.
    pub fn json(&self) -> String {
        let mut listing = self.listing.clone();
        listing["__metadata__"] = serde_json::json!({ "cerebellum": self.metadata.to_string() });
        listing.to_string()
    }

    /// The whole file.
    pub fn file(&self) -> Vec<u8> {
        assemble(self.json().as_bytes(), &self.data)
    }
}

/// The JSON and the data of a file, if the header's length is within the file.
pub fn split(file: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = file.split_first_chunk::<8>()?;
    rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)
}

/// A file of this JSON, padded, and these tensors, with matching checksums.
pub fn assemble(json: &[u8], data: &[u8]) -> Vec<u8> {
    let padded = (8 + json.len()).next_multiple_of(64) - 8;
    let mut file = (padded as u64).to_le_bytes().to_vec();
    file.extend(json);
    file.resize(8 + padded, b' ');
    file.extend(data);
    seal(&mut file);
    file
}

/// The file that a fuzzer means: JSON and tensors with an empty line between them, so that the JSON may
/// grow and shrink; or else a whole file. Either is sealed.
pub fn from_fuzzer(input: &[u8]) -> Vec<u8> {
    if let Some(at) = input.windows(2).position(|pair| pair == b"\n\n") {
        return assemble(&input[..at], &input[at + 2..]);
    }
    let mut file = input.to_vec();
    seal(&mut file);
    file
}

/// Makes the checksums of the table of checksums and of the header match, as far as there is room.
pub fn seal(file: &mut [u8]) {
    let Some((json, data)) = split(file) else { return };
    let (head, data_bytes) = (8 + json.len(), data.len());
    let table = table_bytes(json).filter(|table| (8..=data_bytes).contains(table));
    let end = file.len();
    if let Some(table) = table {
        let crc = crc32fast::hash(&file[end - table..end - 8]);
        file[end - 8..end - 4].copy_from_slice(&crc.to_le_bytes());
    }
    if data_bytes >= 4 {
        let crc = crc32fast::hash(&file[..head]);
        file[end - 4..].copy_from_slice(&crc.to_le_bytes());
    }
}

/// The size of the table of checksums, read without parsing the JSON: it may be broken elsewhere.
fn table_bytes(json: &[u8]) -> Option<usize> {
    let after = |json: &[u8], key: &[u8]| {
        json.windows(key.len()).position(|window| window == key).map(|at| at + key.len())
    };
    let json = &json[after(json, b"\"checksums\":")?..];
    let json = &json[after(json, b"\"shape\":[")?..];
    let digits = json.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&json[..digits]).ok()?.parse().ok()
}
