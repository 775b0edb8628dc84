//! What shows whether a feed's files were changed since.

use super::{Folders, Paths};
use crate::storage::folder::Version;
use crate::storage::{FileKind, Slot};

/// A checksum of what the system says of the files of a folder; `None` if one of them is absent, no file, or cannot be looked at. If `settled`, also if one may have
/// changed since the journal was written.
pub(super) fn of(folders: &mut Folders, paths: &Paths, slot: Slot, settled: bool) -> Option<[u8; 8]> {
    let written = if settled { Some(folders.root.version(FileKind::Journal.name())?.changed) } else { None };
    let folder = folders.slot(paths, slot).ok()??;
    let mut state = blake2b_simd::Params::new().hash_length(8).to_state();
    for kind in FileKind::GROWING {
        let Version { file, len, changed } = folder.version(kind.name())?;
        if written.is_some_and(|written| changed >= written) {
            return None;
        }
        state.update(&file.to_le_bytes()).update(&len.to_le_bytes());
        state.update(&changed.0.to_le_bytes()).update(&changed.1.to_le_bytes());
    }
    state.finalize().as_bytes().first_chunk().copied()
}
