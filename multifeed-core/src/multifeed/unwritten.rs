//! A write that failed: who hears of it, and what becomes of what should have been written.

use super::Multifeed;
use crate::error::StoreError;
use crate::feed::Feed;
use crate::ids::{FeedId, SessionId};
use crate::log::log;
use crate::replication::peer::PeerFault;
use crate::storage::Storage;

impl<S: Storage> Multifeed<S> {
    /// What came of a feed could not be written. If that is the fault of its own files, it leaves its sessions, and the other feeds go on.
    /// Else the sessions that brought it end.
    ///
    /// A session that brought some of it hears of it even if the feed's channel was closed since: nothing ends well that was not written.
    pub(super) fn not_written(&mut self, id: FeedId, error: StoreError) {
        let slot = &mut self.feeds[id.0 as usize];
        log!(DEBUG, "feed", "blocks could not be written", error = %error);
        let mut sources: Vec<SessionId> = slot.unannounced.iter().filter_map(|(_, from)| *from).collect();
        sources.sort_unstable();
        sources.dedup();
        if !error.is_of_one_feed() {
            // The blocks stay staged, and are tried again with the next batch.
            self.uncommitted.unwritten.push(id);
            if let StoreError::Full { .. } = error {
                self.stop_at_full_disk(error);
                return self.return_unwritten(id);
            }
            sources.into_iter().for_each(|peer| self.fault(peer, PeerFault::Store(error.clone())));
            return self.wait_no_longer(id);
        }
        slot.unannounced.clear();
        let key = slot.feed.key();
        // What was staged counted as held: others may have compared it, or be through with it.
        self.unmatch(id);
        for session in self.sessions.values_mut().filter(|session| session.relies_on(id)) {
            session.part();
        }
        let slot = &mut self.feeds[id.0 as usize];
        let mut concerned: Vec<SessionId> = sources.iter().chain(&slot.subscribers).copied().collect();
        concerned.sort_unstable();
        concerned.dedup();
        for peer in concerned {
            let Some(session) = self.sessions.get_mut(&peer) else { continue };
            if session.single_feed().is_some() {
                self.fault(peer, PeerFault::Store(error.clone()));
                continue;
            }
            if sources.contains(&peer) {
                session.lose(&error);
                session.note_feed_written(id, true);
            }
            session.damaged(key, None, error.clone());
            self.leave_channel(peer, id);
        }
        if !self.read_again(id) {
            self.uncommitted.unwritten.push(id);
        }
    }

    /// Tells remotes that what they sent of a feed is not stored: those that end would wait for it.
    fn return_unwritten(&mut self, id: FeedId) {
        let slot = &mut self.feeds[id.0 as usize];
        let mut returned = slot.unwritten.unwrap_or_default();
        let mut brought = Vec::new();
        for (blocks, from) in &slot.unannounced {
            let before = returned.min(blocks.end - blocks.start);
            returned -= before;
            brought.extend(from.map(|from| (blocks.start + before..blocks.end, from)));
        }
        for (blocks, session) in brought.into_iter().filter(|(blocks, _)| !blocks.is_empty()) {
            self.with_peer(session, id, |peer, work| {
                peer.return_unwritten(blocks, work);
                Ok(())
            });
            self.wake(session);
        }
        self.wait_no_longer(id);
    }

    /// No session waits any longer for what could not be written of a feed.
    fn wait_no_longer(&mut self, id: FeedId) {
        let slot = &mut self.feeds[id.0 as usize];
        slot.unwritten = Some(slot.unannounced.iter().map(|(blocks, _)| blocks.end - blocks.start).sum());
        for session in slot.subscribers.clone() {
            self.with_peer(session, id, |peer, work| {
                peer.advance(work);
                Ok(())
            });
            self.wake(session);
        }
    }

    /// Opens a remote's feed anew, as it is on the disk: what was staged of it is forgotten, and can be fetched again. False if it is written
    /// here, or cannot be opened: it then stays as it is.
    fn read_again(&mut self, id: FeedId) -> bool {
        let slot = &mut self.feeds[id.0 as usize];
        if slot.feed.writable() {
            return false;
        }
        // Its marks were written by this process, after what they are about.
        match Feed::open(&mut self.cores.storage, slot.feed.slot()) {
            Ok(feed) if feed.key() == slot.feed.key() && !feed.writable() => {
                slot.reported_len = slot.reported_len.min(feed.len());
                slot.synced = feed.downloaded() == feed.len();
                slot.feed = feed;
                true
            }
            _ => false,
        }
    }
}
