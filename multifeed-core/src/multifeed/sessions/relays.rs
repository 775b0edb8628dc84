//! Sessions whose remotes pass on feeds of others.

use std::time::Duration;

use crate::ids::SessionId;
use crate::multifeed::Multifeed;
use crate::storage::Storage;

/// How often sessions are looked at while something hangs on what their remotes pass on.
const RELAY_CHECK: Duration = Duration::from_millis(250);

impl<S: Storage> Multifeed<S> {
    /// Has the next look at the sessions soon.
    pub(in crate::multifeed) fn check_relays(&mut self) {
        let at = self.now + RELAY_CHECK;
        self.next_check = Some(self.next_check.map_or(at, |check| check.min(at)));
    }

    /// Ends the channel that stayed open of a session, if it need not any more.
    pub(super) fn end_late(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let now = session.transfer.time(self.now);
        if let Some(feed) = session.stayed_open(now) {
            self.with_peer(id, feed, |peer, work| {
                peer.end_late(work);
                Ok(())
            });
        }
    }
}
