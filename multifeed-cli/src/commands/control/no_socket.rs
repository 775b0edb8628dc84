//! There is no control socket on this system: a store that another process has open is locked.

use std::path::Path;

use multifeed_tokio::Multifeed;
use tokio::io::{BufStream, DuplexStream};

use super::Place;
use crate::error::CliError;
use crate::output::Output;

/// What a request goes through.
pub(in crate::commands) type Stream = BufStream<DuplexStream>;

pub(in crate::commands) struct Control;

impl Control {
    pub(in crate::commands) fn listen(
        _store: &Path,
        _served: Vec<(Place, Multifeed)>,
        _output: &Output,
    ) -> Option<Self> {
        None
    }

    pub(in crate::commands) fn end(self) -> Result<(), CliError> {
        Ok(())
    }
}

/// Finds no process that listens.
#[allow(clippy::unused_async)]
pub(super) async fn connect(_store: &Path) -> Option<Stream> {
    None
}
