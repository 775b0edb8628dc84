//! Remotes that have another root key, and none of ours.

use std::time::Duration;

use multifeed_proto::DiscoveryKey;

use super::{Connection, Stage, Table};
use crate::networker::ids::ConnectionId;
use crate::networker::orders::Mismatch;

/// How long a remote that opened another root key has to open one of ours too. Only then are the root keys said to differ: a remote with several opens
/// them one after the other.
const MISMATCH_TIME: Duration = Duration::from_secs(1);

/// Remotes whose root keys differ are logged once each; after so many, no others.
pub(super) const MISMATCHES_LOGGED: usize = 1024;

impl Table {
    /// The remote's root key, if it may be another than ours, and when that is certain enough to be reported.
    pub(super) fn may_mismatch(&self, connection: &Connection) -> Option<(DiscoveryKey, Duration)> {
        let is_possible = connection.stage == Stage::Open && !connection.mismatch && !self.roots.is_empty();
        let theirs = self.unshared_root(connection).filter(|_| is_possible)?;
        let (_, since) = connection.unknown?;
        Some((theirs, since.max(connection.since).saturating_add(MISMATCH_TIME)))
    }

    /// The root keys differ on a connection, as far as is known. Returned once for each.
    pub(super) fn mismatch(&mut self, id: ConnectionId) -> Option<Mismatch> {
        let connection = self.connections.get(&id)?;
        let (theirs, _) = self.may_mismatch(connection)?;
        let who = (connection.dial, theirs);
        let is_new = self.mismatched.len() < MISMATCHES_LOGGED && self.mismatched.insert(who);
        self.connections.get_mut(&id)?.mismatch = true;
        Some(Mismatch { theirs, is_new })
    }

    /// The remote's root key, if no root key is shared on a connection and the remote opened one that is not joined here.
    pub(crate) fn other_root(&self, id: ConnectionId) -> Option<DiscoveryKey> {
        self.unshared_root(self.connections.get(&id)?)
    }

    fn unshared_root(&self, connection: &Connection) -> Option<DiscoveryKey> {
        let (theirs, _) = connection.unknown.filter(|_| !connection.served)?;
        Some(theirs).filter(|theirs| !self.discovery_keys.contains_key(theirs))
    }
}
