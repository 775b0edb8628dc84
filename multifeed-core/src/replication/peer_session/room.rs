//! Blocks that are large wait for room, before they are read.

use std::collections::VecDeque;

use super::PeerSession;
use crate::ids::FeedId;

/// What a session's blocks may take beyond its grant, and which of them wait for more.
#[derive(Debug)]
pub(crate) struct Room {
    /// The largest block that goes on any grant.
    spare: u64,
    /// The feeds whose next block is larger, in the order in which they came to it.
    waiting: VecDeque<FeedId>,
    /// The feed that was given room for its block, and how much.
    given: Option<(FeedId, u64)>,
}

impl Default for Room {
    fn default() -> Self {
        Self { spare: u64::MAX, waiting: VecDeque::new(), given: None }
    }
}

impl Room {
    /// The largest block that goes on any grant.
    pub(crate) fn spare(&self) -> u64 {
        self.spare
    }

    /// The largest block of a feed that may be read now.
    pub(crate) fn of(&self, feed: FeedId) -> u64 {
        let given = self.given.filter(|(to, _)| *to == feed).map_or(0, |(_, bytes)| bytes);
        self.spare.max(given)
    }

    /// A feed's machine was polled. Its block may wait for room now; and what it was given is over, if it used it or has no use for it.
    pub(crate) fn note(&mut self, feed: FeedId, waits: bool, has_used: bool) {
        self.given.take_if(|(to, _)| *to == feed && has_used);
        if waits && !self.waiting.contains(&feed) {
            self.waiting.push_back(feed);
        }
    }
}

impl PeerSession {
    /// Blocks of more than so many bytes are not read before there is room for them.
    pub(crate) fn set_spare(&mut self, bytes: u64) {
        self.room.spare = bytes;
    }

    /// How many bytes the block has that is next to be given room.
    pub(crate) fn room_needed(&mut self) -> Option<u64> {
        while let Some(feed) = self.room.waiting.front() {
            if let Some(size) = self.peers.get(feed).and_then(|peer| peer.room_needed()) {
                return Some(size);
            }
            self.room.waiting.pop_front();
        }
        None
    }

    /// There is room for a block of so many bytes.
    pub(crate) fn give_room(&mut self, bytes: u64) {
        let needed = self.room_needed();
        let Some(feed) = self.room.waiting.pop_front() else { return };
        if let Some(peer) = self.peers.get_mut(&feed).filter(|_| needed.is_some()) {
            peer.make_room();
            self.room.given = Some((feed, bytes));
            // It goes before others of the session: what was granted for it is there now.
            self.turns.activate_first(feed, peer);
        }
    }
}
