//! There is no control socket on this system.

use std::path::Path;

/// Finds no process that listens.
#[allow(clippy::unused_async)] // As on systems with sockets.
pub(super) async fn is_served(_store: &Path) -> bool {
    false
}
