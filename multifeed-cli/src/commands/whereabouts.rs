//! Whether a store that is served or synced is still in the place that the command line says: what others append there later would be another store.

use std::path::PathBuf;

use multifeed_tokio::{Error, StoreError};

use crate::args::Global;
use crate::error::CliError;

/// The place of a store when it was opened.
pub(super) struct Whereabouts {
    path: PathBuf,
    /// Device and number of its folder, if the system says.
    folder: Option<(u64, u64)>,
}

impl Whereabouts {
    /// Notes the place of the open store.
    pub(super) fn of(global: &Global) -> Self {
        let path = global.store.clone();
        let folder = std::fs::metadata(&path).ok().and_then(|found| identity(&found));
        Self { path, folder }
    }

    /// Fails if the store was moved, removed or replaced since. What cannot be known is no failure.
    pub(super) fn check(&self) -> Result<(), CliError> {
        use std::io::ErrorKind::{NotADirectory, NotFound};
        let is_here = match std::fs::metadata(&self.path) {
            Ok(found) => identity(&found) == self.folder,
            Err(error) => !matches!(error.kind(), NotFound | NotADirectory),
        };
        if is_here || self.folder.is_none() {
            return Ok(());
        }
        Err(Error::Store(StoreError::Moved { slot: None, path: Some(self.path.clone()) }).into())
    }
}

#[cfg(unix)]
#[allow(clippy::unnecessary_wraps)] // Other systems do not say.
fn identity(found: &std::fs::Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    Some((found.dev(), found.ino()))
}

#[cfg(not(unix))]
fn identity(_found: &std::fs::Metadata) -> Option<(u64, u64)> {
    None
}
