//! Two remotes are asked for a block if the first is slow and the second has nothing else to do.

use super::{FeedId, Multifeed, PeerId};
use crate::storage::Storage;
use crate::transfer;

/// Which part of what came for a feed may have come twice.
const PART: u64 = 20;
/// As many bytes may in any case.
const LEAST: u64 = 64 << 10;

impl<S: Storage> Multifeed<S> {
    /// Asks a remote for what others are slow with, of a feed of which the length is known: of a new one each remote could show another history.
    pub(super) fn ask_too(&mut self, id: PeerId, feed: FeedId) {
        let Some(slot) = self.feeds.get_mut(feed.0 as usize).filter(|slot| !slot.feed.is_empty()) else { return };
        let mean = slot.feed.byte_len() / slot.feed.len();
        let (cost, mean) = (transfer::cost(mean), mean.max(1));
        let allowed = (slot.moved.bytes_received / PART + mean.max(LEAST)).saturating_sub(slot.doubled_bytes) / mean;
        let allowed = usize::try_from(allowed).unwrap_or(usize::MAX);
        let mut blocks: Vec<u64> = Vec::new();
        for other in slot.subscribers.iter().filter(|other| **other != id) {
            let Some(peering) = self.peerings.get(other) else { continue };
            let Some(peer) = peering.peers.get(&feed) else { continue };
            let soon = peering.transfer.comes_soon(peering.transfer.time(self.now)) / cost;
            let late = peer.asked().skip(usize::try_from(soon).unwrap_or(usize::MAX));
            blocks.extend(late.filter(|index| !slot.doubled.contains(index) && !slot.feed.has(*index)));
        }
        blocks.truncate(allowed);
        if blocks.is_empty() {
            return;
        }
        let Some(peering) = self.peerings.get_mut(&id).filter(|peering| !peering.is_in_turn()) else { return };
        peering.begin_turn(feed);
        let mut asked = Vec::new();
        self.with_peer(id, feed, |peer, work| {
            asked = peer.ask_too(&blocks, work);
            Ok(())
        });
        if let Some(peering) = self.peerings.get_mut(&id) {
            peering.turn_over();
        }
        let slot = &mut self.feeds[feed.0 as usize];
        slot.doubled_bytes = slot.doubled_bytes.saturating_add(mean.saturating_mul(asked.len() as u64));
        slot.doubled.extend(asked);
        self.wake(id);
    }

    /// A block came that may have been asked for twice: the other remote need not send it.
    pub(super) fn came_from(&mut self, id: PeerId, feed: FeedId, index: u64, size: u64) {
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
