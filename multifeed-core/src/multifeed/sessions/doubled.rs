//! Two remotes are asked for a block if the first is slow and the second has nothing else to do.

use crate::ids::{FeedId, SessionId};
use crate::multifeed::Multifeed;
use crate::storage::Storage;

/// Which part of what came for a feed may have come twice.
const PART: u64 = 20;
/// As many bytes may in any case.
const LEAST: u64 = 64 << 10;

impl<S: Storage> Multifeed<S> {
    /// Asks a remote for what others are slow with. Of a new feed that is one block: each remote could show another history.
    pub(in crate::multifeed) fn ask_too(&mut self, id: SessionId, feed: FeedId) {
        let Some(slot) = self.feeds.get_mut(feed.0 as usize) else { return };
        let mean = slot.feed.byte_len().checked_div(slot.feed.len());
        let allowed = match mean.map(|mean| mean.max(1)) {
            Some(mean) => {
                (slot.moved.bytes_received / PART + mean.max(LEAST)).saturating_sub(slot.doubled_bytes) / mean
            }
            None => u64::from(slot.doubled.is_empty()),
        };
        let allowed = usize::try_from(allowed).unwrap_or(usize::MAX);
        // How late each comes, in thousandths of what is late.
        let mut late: Vec<(u64, u64)> = Vec::new();
        for other in slot.subscribers.iter().filter(|other| **other != id) {
            let Some(session) = self.sessions.get(other) else { continue };
            let Some(peer) = session.peers.get(&feed) else { continue };
            let soon = session.transfer.comes_soon(session.transfer.time(self.now));
            let asked = peer.asked(session.answer_cost(mean), session.comes_before(peer.asked_through()));
            let asked =
                asked.filter(|&(index, end)| end > soon && !slot.doubled.contains(&index) && !slot.feed.has(index));
            late.extend(asked.map(|(index, end)| (end.saturating_mul(1000) / soon.max(1), index)));
        }
        // The last first: what comes before is brought meanwhile.
        late.sort_unstable_by(|a, b| b.cmp(a));
        let blocks: Vec<u64> = late.into_iter().map(|(_, index)| index).take(allowed).collect();
        if blocks.is_empty() {
            return;
        }
        let Some(session) = self.sessions.get_mut(&id).filter(|session| !session.turns.is_taken()) else { return };
        session.turns.begin(feed);
        let mut asked = Vec::new();
        self.with_peer(id, feed, |peer, work| {
            asked = peer.ask_too(&blocks, work);
            Ok(())
        });
        if let Some(session) = self.sessions.get_mut(&id) {
            session.turns.end();
        }
        let slot = &mut self.feeds[feed.0 as usize];
        slot.doubled_bytes =
            slot.doubled_bytes.saturating_add(mean.unwrap_or_default().saturating_mul(asked.len() as u64));
        slot.doubled.extend(asked);
        self.wake(id);
    }

    /// A block came that may have been asked for twice: the other remote need not send it.
    pub(in crate::multifeed) fn came_from(&mut self, id: SessionId, feed: FeedId, index: u64, size: u64) {
        if !self.feeds[feed.0 as usize].doubled.remove(&index) {
            return;
        }
        for other in self.slot(feed).subscribers.clone().into_iter().filter(|other| *other != id) {
            let mut cancelled = false;
            self.with_peer(other, feed, |peer, _| {
                cancelled = peer.came_elsewhere(index);
                Ok(())
            });
            if cancelled {
                let slot = &mut self.feeds[feed.0 as usize];
                slot.doubled_bytes = slot.doubled_bytes.saturating_sub(size);
            }
            self.wake(other);
        }
    }
}
