//! Root keys that a peer did not answer, and that are left out of the next connection to it.

use std::collections::BTreeMap;
use std::time::Duration;

use multifeed_proto::FeedKey;

use crate::networker::ids::{DialId, PeerKey};

/// By what a peer is known again: its static key, or how it is reached, since many draw a new key for each stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Whom {
    Peer(PeerKey),
    Dial(DialId),
}

/// Which root keys to leave out of whose connections, and since when that is known.
#[derive(Debug, Default)]
pub(crate) struct LeftOut(BTreeMap<(Whom, FeedKey), Duration>);

impl LeftOut {
    /// Remembers one more; the oldest is forgotten if that is more than `most`.
    pub(crate) fn add(&mut self, whom: Whom, root: FeedKey, now: Duration, most: usize) {
        self.0.insert((whom, root), now);
        while self.0.len() > most
            && let Some(oldest) = self.0.iter().min_by_key(|(_, at)| **at).map(|(entry, _)| *entry)
        {
            self.0.remove(&oldest);
        }
    }

    /// Whether to leave out a root key for any of these: it was not answered at most `time` ago.
    pub(crate) fn has(&self, whom: [Option<Whom>; 2], root: FeedKey, now: Duration, time: Duration) -> bool {
        let is_new = |whom| self.0.get(&(whom, root)).is_some_and(|at| at.saturating_add(time) > now);
        whom.into_iter().flatten().any(is_new)
    }

    /// Forgets all of a root key.
    pub(crate) fn forget(&mut self, root: FeedKey) {
        self.0.retain(|(_, of), _| *of != root);
    }

    /// Forgets all of a dial.
    pub(crate) fn forget_dial(&mut self, dial: DialId) {
        self.0.retain(|(whom, _), _| *whom != Whom::Dial(dial));
    }
}
