//! Telling `Conv1D` from `Linear`: whether the file has a linear layer `[in, out]` or `[out, in]`.
//!
//! transformers' GPT-2 has the former; checkpoints that went through other frameworks may have the
//! latter. A matrix that is not square shows which; attention's output projection is square and
//! goes with the others, of which attention's input projection (`n_embd` to three times that) always
//! is not. A checkpoint with both ways is refused, since nothing would tell for the square one.

use std::collections::BTreeMap;

use super::error::{Error, Result};
use super::expected::Expected;
use super::storage::{Layout, MappedFile, StoredTensor};

/// The layout that all linear layers agree on; `Conv1D` where none has either shape.
pub(super) fn detect(
    expected: &[Expected],
    stored: &BTreeMap<String, StoredTensor>,
    files: &[MappedFile],
) -> Result<Layout> {
    let mut found: Option<(Layout, &StoredTensor)> = None;
    for expected in expected {
        let [piece] = &expected.pieces[..] else { continue };
        let Some(tensor) = stored.get(&piece.name) else { continue };
        let Some(layout) = layout(expected, &tensor.shape) else { continue };
        match found {
            Some((first, other)) if first != layout => {
                return Err(Error::MixedLayouts {
                    file: files[tensor.file].path().to_owned(),
                    tensor: tensor.name.clone(),
                    other: other.name.clone(),
                });
            }
            _ => found = Some((layout, tensor)),
        }
    }
    Ok(found.map_or(Layout::Conv1d, |(layout, _)| layout))
}

/// Which way round this is the tensor expected; `None` if neither or if one cannot tell.
fn layout(expected: &Expected, shape: &[usize]) -> Option<Layout> {
    let fits = |layout| expected.stored_shape(0, layout) == shape;
    match (fits(Layout::Conv1d), fits(Layout::Linear)) {
        (true, false) => Some(Layout::Conv1d),
        (false, true) => Some(Layout::Linear),
        _ => None,
    }
}
