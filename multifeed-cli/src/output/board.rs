//! The peers of a process, as they stand: what `status` shows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{PeerName, Standing};

/// A peer of one multifeed.
#[derive(Clone, Debug)]
pub(crate) struct OnBoard {
    pub(crate) name: PeerName,
    /// The discovery key of the root key, if the process has several.
    pub(crate) root: Option<String>,
    pub(crate) standing: Standing,
}

/// All peers that there are. Clones are the same board.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board(Arc<Mutex<Peers>>);

#[derive(Debug, Default)]
struct Peers {
    next: u64,
    of: BTreeMap<u64, OnBoard>,
}

/// A peer's seat on the board, which it leaves with this.
#[derive(Debug)]
pub(crate) struct Seat {
    board: Board,
    number: u64,
}

impl Board {
    /// A seat for a peer, which is empty at first.
    pub(crate) fn seat(&self) -> Seat {
        let mut peers = self.lock();
        peers.next += 1;
        Seat { board: self.clone(), number: peers.next }
    }

    /// The peers of a multifeed.
    pub(crate) fn peers(&self, root: &str) -> Vec<OnBoard> {
        let is_of = |peer: &&OnBoard| peer.root.as_ref().is_none_or(|of| of == root);
        self.lock().of.values().filter(is_of).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Peers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Notes how the peer stands.
    pub(crate) fn set(&self, name: &PeerName, root: Option<&str>, standing: Standing) {
        let peer = OnBoard { name: name.clone(), root: root.map(str::to_owned), standing };
        self.board.lock().of.insert(self.number, peer);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.board.lock().of.remove(&self.number);
    }
}
