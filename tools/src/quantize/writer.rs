//! Writing a model file front to back: reserved header, tensors with their checksums, header.

use std::io::{self, Read, Seek, SeekFrom, Write};

use cerebellum::format::{
    Dtype, FileLayout, Header, MAX_HEADER_BYTES, MAX_PROVENANCE_BYTES, METADATA_KEY, Tensor,
    checksum,
};
use cerebellum::quant::TILE_ALIGN;
use crc32fast::Hasher;
use memmap2::{Mmap, MmapMut};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::error::{Error, Result};
use crate::output::Output;

/// The header's length field.
const LENGTH_BYTES: usize = 8;
const READ_BACK_BYTES: usize = 1 << 20;

/// Writes the tensors of a layout in their order, and last the header over the space kept for it.
///
/// The header comes last because it holds what is only known then: exponents and errors.
pub struct ModelWriter {
    output: Output,
    layout: FileLayout,
    /// Bytes before the data.
    header_bytes: usize,
    /// Checksums of the tensors that are complete.
    checksums: Vec<u32>,
    /// Checksum and length of the tensor that is being written.
    current: (Hasher, usize),
}

impl ModelWriter {
    /// Reserves space for a header no longer than `widest`, whose layout is the file's.
    pub fn new(output: Output, widest: &Header, layout: FileLayout) -> Result<Self> {
        let header_bytes = reserve_header(widest, &layout)?;
        let current = (Hasher::new(), 0);
        let mut writer = Self { output, layout, header_bytes, checksums: Vec::new(), current };
        writer.write_raw(&vec![0; header_bytes])?;
        Ok(writer)
    }

    /// Appends bytes to the current tensor.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.current.0.update(bytes);
        self.current.1 += bytes.len();
        self.write_raw(bytes)
    }

    /// Ends the current tensor, which must have as many bytes as the layout gives it.
    pub fn end_tensor(&mut self) {
        let (hasher, length) = std::mem::take(&mut self.current);
        let tensor = &self.layout.tensors()[self.checksums.len()];
        assert_eq!(length, tensor.range.len(), "tensor {} has the wrong size", tensor.name);
        self.checksums.push(hasher.finalize());
    }

    /// Writes the checksums and the header, and reads everything back. Returns the file, which has no name yet,
    /// and its length.
    pub fn finish(mut self, header: &Header) -> Result<(Output, u64)> {
        let frame = frame(header, &self.layout, self.header_bytes);
        let table = checksum_table(&self.checksums, &frame);
        self.write_raw(&table)?;
        let rewound = self.output.file().rewind();
        rewound.map_err(|e| self.output.error("write", e))?;
        self.write_raw(&frame)?;
        self.read_back(&frame, &table)?;
        let file_bytes = frame.len() + self.layout.data_bytes();
        Ok((self.output, file_bytes as u64))
    }

    /// Checks what the system gives back, through buffered reads: a map of the whole file would
    /// count as memory of this process.
    fn read_back(&mut self, frame: &[u8], table: &[u8]) -> Result<()> {
        let read_error = |output: &Output, e| Error::from(output.error("read back", e));
        let file = self.output.file();
        let head = file.seek(SeekFrom::Start(0)).and_then(|_| hash_next(file, frame.len()));
        let head = head.map_err(|e| read_error(&self.output, e))?;
        if head != checksum(frame) {
            return Err(Error::ReadBack { what: "the header".to_owned() });
        }
        let expected = self.checksums.iter().copied().chain([checksum(table)]);
        for (Tensor { name, range, .. }, expected) in self.layout.tensors().iter().zip(expected) {
            let found = hash_next(self.output.file(), range.len());
            if found.map_err(|e| read_error(&self.output, e))? != expected {
                return Err(Error::ReadBack { what: format!("tensor {name}") });
            }
        }
        Ok(())
    }

    fn write_raw(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.output.file().write_all(bytes);
        written.map_err(|e| self.output.error("write", e).into())
    }
}

/// A file's image with this header and no content: its tensors are zeros, which take no memory as long
/// as nobody reads them. It can be opened, and planned for, as the file can.
pub fn hollow(header: &Header, layout: &FileLayout) -> Result<Mmap> {
    let frame = frame(header, layout, reserve_header(header, layout)?);
    let table = checksum_table(&vec![0; layout.tensors().len() - 1], &frame);
    let length = frame.len() + layout.data_bytes();
    let image = MmapMut::map_anon(length).map_err(|source| Error::NoSpace { length, source });
    let mut image = image?;
    image[..frame.len()].copy_from_slice(&frame);
    image[length - table.len()..].copy_from_slice(&table);
    image.make_read_only().map_err(|source| Error::NoSpace { length, source })
}

/// How many bytes the header `widest` takes, everything before the data included.
fn reserve_header(widest: &Header, layout: &FileLayout) -> Result<usize> {
    let header_bytes = (LENGTH_BYTES + json(widest, layout).len()).next_multiple_of(TILE_ALIGN);
    let bounds = [
        (header_bytes - LENGTH_BYTES, MAX_HEADER_BYTES),
        // With a budget of bits the record has an entry for each matrix.
        (widest.quantizer.text().len(), MAX_PROVENANCE_BYTES),
    ];
    match bounds.into_iter().find(|(bytes, limit)| bytes > limit) {
        Some((bytes, limit)) => Err(Error::HeaderTooLarge { bytes, limit }),
        None => Ok(header_bytes),
    }
}

/// The bytes before the data: length, JSON, spaces.
fn frame(header: &Header, layout: &FileLayout, header_bytes: usize) -> Vec<u8> {
    let json = json(header, layout);
    let padded = header_bytes - LENGTH_BYTES;
    assert!(json.len() <= padded, "the header outgrew its reserved space");
    let mut frame = (padded as u64).to_le_bytes().to_vec();
    frame.extend(json);
    frame.resize(header_bytes, b' ');
    frame
}

/// The content of the tensor `checksums` (`docs/format.md`).
fn checksum_table(tensors: &[u32], frame: &[u8]) -> Vec<u8> {
    let mut table: Vec<u8> = tensors.iter().flat_map(|crc| crc.to_le_bytes()).collect();
    let of_entries = checksum(&table);
    table.extend(of_entries.to_le_bytes());
    table.extend(checksum(frame).to_le_bytes());
    table
}

/// The checksum of the next `length` bytes.
fn hash_next(file: &mut impl Read, length: usize) -> io::Result<u32> {
    let mut buffer = vec![0; READ_BACK_BYTES.min(length)];
    let (mut hasher, mut left) = (Hasher::new(), length);
    while left > 0 {
        let part = &mut buffer[..READ_BACK_BYTES.min(left)];
        file.read_exact(part)?;
        hasher.update(part);
        left -= part.len();
    }
    Ok(hasher.finalize())
}

/// The safetensors header, tensors in file order.
fn json(header: &Header, layout: &FileLayout) -> Vec<u8> {
    serde_json::to_vec(&TopLevel { header, layout }).expect("no maps with other keys than strings")
}

struct TopLevel<'a> {
    header: &'a Header,
    layout: &'a FileLayout,
}

/// A tensor as a safetensors header has it.
#[derive(Serialize)]
struct Listed<'a> {
    dtype: Dtype,
    shape: &'a [usize],
    data_offsets: (usize, usize),
}

impl Serialize for TopLevel<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let metadata = serde_json::to_string(self.header).map_err(serde::ser::Error::custom)?;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("__metadata__", &serde_json::json!({ METADATA_KEY: metadata }))?;
        for tensor in self.layout.tensors() {
            let info = Listed {
                dtype: tensor.dtype,
                shape: &tensor.shape,
                data_offsets: (tensor.range.start, tensor.range.end),
            };
            map.serialize_entry(&tensor.name, &info)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use cerebellum::format::{
        CHECKSUMS, Config, MatrixInfo, VERSION, matrix_names, read_header, verify,
    };
    use cerebellum::quant::Scheme;

    use super::super::WIDEST_ERROR;
    use super::*;

    fn tiny() -> (Header, FileLayout) {
        let mut config = Config::gpt2(7, 5, 12, 3, 1);
        config.mlp.inner = 20;
        config.tie_word_embeddings = true;
        let info = |(name, shape)| {
            let (scheme, relative_error) = (Scheme::Int4, Some(WIDEST_ERROR));
            (name, MatrixInfo { scheme, group_size: 32, shape, exponent: -18, relative_error })
        };
        let tensors = matrix_names(&config).into_iter().map(info).collect();
        let quantizer = Default::default();
        let templates = Default::default();
        let header = Header {
            version: VERSION,
            config,
            tensors,
            source: None,
            quantizer,
            templates,
            chat: None,
            end_tokens: Vec::new(),
        };
        let layout = FileLayout::new(&header.config, &header.tensors, None).unwrap();
        (header, layout)
    }

    /// A writer with all tensors written.
    fn full(target: &Path) -> (ModelWriter, Header) {
        let (header, layout) = tiny();
        let output = Output::create::<&Path>(target, false, &[]).unwrap();
        let mut writer = ModelWriter::new(output, &header, layout.clone()).unwrap();
        for tensor in layout.tensors().iter().filter(|tensor| tensor.name != CHECKSUMS) {
            writer.write(&vec![0x5a; tensor.range.len()]).unwrap();
            writer.end_tensor();
        }
        (writer, header)
    }

    #[test]
    fn a_finished_file_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("file");
        let (writer, mut header) = full(&target);
        header.tensors.values_mut().for_each(|info| info.relative_error = None);
        let (output, length) = writer.finish(&header).unwrap();
        output.commit().unwrap();
        let file = std::fs::read(&target).unwrap();
        assert_eq!(length, file.len() as u64);
        let (found, layout) = read_header(&file).unwrap();
        assert_eq!(found, header);
        assert_eq!(verify(&file, &layout), []);
    }

    #[test]
    fn what_was_not_written_well_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let (mut writer, header) = full(&directory.path().join("file"));
        let at = writer.header_bytes as u64 + 1;
        let file = writer.output.file();
        file.seek(SeekFrom::Start(at)).and_then(|_| file.write_all(&[0])).unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        let error = writer.finish(&header).unwrap_err();
        assert!(matches!(error, Error::ReadBack { what } if what == "tensor wte.weight"));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    /// Readers refuse a longer record, so no such file is begun.
    #[test]
    fn a_record_of_too_many_matrices_is_refused() {
        let (mut header, layout) = tiny();
        for (bytes, is_accepted) in
            [(MAX_PROVENANCE_BYTES - 2, true), (MAX_PROVENANCE_BYTES, false)]
        {
            header.quantizer = serde_json::Value::from("x".repeat(bytes)).into();
            let written = hollow(&header, &layout);
            assert_eq!(written.is_ok(), is_accepted, "{bytes}");
            assert_eq!(
                written.is_ok_and(|file| read_header(&file).is_ok()),
                is_accepted,
                "{bytes}"
            );
        }
    }

    #[test]
    fn no_error_is_longer_than_its_placeholder() {
        let text = |error: f32| serde_json::to_string(&error).unwrap();
        let widest = text(WIDEST_ERROR).len();
        for exponent in -45..=1 {
            let error: f32 = format!("1.234e{exponent}").parse().unwrap();
            assert!(text(error).len() <= widest, "{}", text(error));
        }
    }
}
