//! Large blocks, which a session's driver makes room for.

use super::Multifeed;
use crate::ids::SessionId;
use crate::storage::Storage;

impl<S: Storage> Multifeed<S> {
    /// Has blocks of more than so many bytes wait on a session until [`give_room`](Self::give_room), before they are read. By default a grant
    /// of one byte lets a block of any size go.
    pub fn set_spare(&mut self, id: SessionId, bytes: u64) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.set_spare(bytes);
        }
    }

    /// Returns the bytes of the block that waits for room on a session, if one does.
    pub fn room_needed(&mut self, id: SessionId) -> Option<u64> {
        self.sessions.get_mut(&id)?.room_needed()
    }

    /// Lets a session be sent `bytes` more, and the block that waits for room if it is no larger.
    pub fn give_room(&mut self, id: SessionId, bytes: usize) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.outgoing.grant(bytes);
            session.give_room(bytes as u64);
            self.wake(id);
        }
    }

    /// Takes back what a session was granted and did not use, up to `bytes`. What it used meanwhile it owes.
    pub fn revoke(&mut self, id: SessionId, bytes: usize) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.outgoing.revoke(bytes);
        }
    }
}
