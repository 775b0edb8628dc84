//! There is no control socket on this system: a store that another process has open is locked.

use std::convert::Infallible;
use std::path::Path;

use bytes::Bytes;
use multifeed_tokio::{FeedKey, Multifeed};

use crate::args::Global;
use crate::error::CliError;

/// What an append is about.
pub(super) struct Request {
    pub(super) writer: String,
    pub(super) new_key: bool,
    pub(super) sync_each: bool,
    pub(super) place: Place,
}

/// A multifeed of a corestore.
pub(super) struct Place;

impl Place {
    pub(super) fn new(_root_key: &FeedKey, _global: &Global) -> Self {
        Self
    }
}

/// A writer of a store that another process has open: there is never one.
pub(super) struct Remote {
    never: Infallible,
    pub(super) key: String,
    pub(super) name: String,
    pub(super) length: u64,
}

impl Remote {
    pub(super) async fn append(&mut self, _blocks: &[Bytes]) -> Result<(), CliError> {
        match self.never {}
    }

    pub(super) async fn finish(&mut self) -> Result<(), CliError> {
        match self.never {}
    }
}

pub(super) struct Control;

impl Control {
    pub(super) fn listen(_store: &Path, _served: Vec<(Place, Multifeed)>) -> Option<Self> {
        None
    }

    pub(super) fn end(self) -> Result<(), CliError> {
        Ok(())
    }
}

/// Finds no process that listens.
#[allow(clippy::unused_async)] // As on systems with sockets.
pub(super) async fn is_served(_store: &Path) -> bool {
    false
}

/// Finds no process that listens.
pub(super) async fn connect(_store: &Path, request: &Request) -> Option<Result<Remote, CliError>> {
    let _ = (&request.writer, request.new_key, request.sync_each, &request.place);
    None
}
