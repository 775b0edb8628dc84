//! What an application waits for, gives up and watches.

use std::ops::Range;

use multifeed_proto::Node;

use super::{FeedSlot, Multifeed};
use crate::error::StoreError;
use crate::feed::{Audit, Located, Repair, RepairCursor, SignatureSearch};
use crate::ids::{FeedId, SessionId};
use crate::keys::key_pair::KeyPair;
use crate::multifeed::feed_events::{FeedEvent, FeedNews};
use crate::replication::peer::PeerInfo;
use crate::replication::wants::{Want, WantEnd, WantError, WantId, WantOptions};
use crate::storage::Storage;

impl<S: Storage> Multifeed<S> {
    /// Waits for something of a feed, and asks sessions for it: those that are there, and those that come.
    /// [`poll_want`](Self::poll_want) reports how it ends: at once if it is there already.
    ///
    /// # Errors
    ///
    /// If no feed can have such a block, a range ends before it starts, the feed was removed, or as much is waited for as may be.
    pub fn want(&mut self, id: FeedId, want: Want, options: WantOptions) -> Result<WantId, WantError> {
        want.check()?;
        self.live(id).map_err(|error| match error {
            StoreError::UnknownFeed => WantError::UnknownFeed,
            _ => WantError::Removed,
        })?;
        let number = self.waits.add(id, &options, self.limits.wants)?;
        self.slot_mut(id).wants.add(number, want, options);
        self.end_fulfilled(id);
        self.ask(id);
        self.give_up_unavailable();
        Ok(number)
    }

    /// Waits no longer for something. If the session is sparse, what was requested for it alone is taken back. Returns false if it
    /// ended before.
    pub fn unwant(&mut self, want: WantId) -> bool {
        let Some(id) = self.forget(want) else { return false };
        self.take_back(id);
        true
    }

    /// Ends what is waited for in a range: single blocks of it, and ranges that lie within it (hypercore's `cancel`).
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownFeed`] if the id is of another store. Nothing is waited for of a feed that was removed.
    pub fn cancel(&mut self, id: FeedId, range: Range<u64>) -> Result<(), StoreError> {
        let entry = self.entry(id).ok_or(StoreError::UnknownFeed)?;
        for want in entry.wants.within(&range) {
            self.end(want, WantEnd::Cancelled);
        }
        self.take_back(id);
        Ok(())
    }

    /// Returns how waiting for something ended: each want ends once, unless [`unwant`](Self::unwant) came first.
    pub fn poll_want(&mut self) -> Option<(WantId, WantEnd)> {
        self.waits.poll()
    }

    /// Gives up blocks of a feed, and reports that to its sessions. Their hashes stay. Returns how many were held.
    ///
    /// Bytes are given back to the disk if nothing that is held follows them in the feed, or if the disk can make holes in files.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotRegular`] if the feed's `data` is behind a link: then nothing was changed. Else if writing fails; the blocks then count
    /// as not held.
    pub fn clear(&mut self, id: FeedId, range: Range<u64>) -> Result<u64, StoreError> {
        self.live(id)?;
        slot_of(&mut self.feeds, id).feed.check_clearable(&mut self.cores.storage, &range)?;
        self.sync_before_clearing(id)?;
        let slot = slot_of(&mut self.feeds, id);
        let cleared = slot.feed.unmark(&mut self.cores.storage, range)?;
        self.retract(id, &cleared);
        self.sync_unmarked(id, !cleared.is_empty())?;
        slot_of(&mut self.feeds, id).feed.give_back(&mut self.cores.storage, &cleared)?;
        Ok(cleared.iter().map(|range| range.end - range.start).sum())
    }

    /// Checks held blocks against their hashes, from `from` on, for about `max_bytes` of work. Gives up those that are corrupt, and reports that to
    /// the sessions. Repeated with [`Audit::next`] until that is `None`, it has looked at all.
    ///
    /// # Errors
    ///
    /// If reading or writing fails.
    pub fn audit_step(&mut self, id: FeedId, from: u64, max_bytes: usize) -> Result<Audit, StoreError> {
        self.live(id)?;
        self.sync_before_clearing(id)?;
        let slot = slot_of(&mut self.feeds, id);
        slot.feed.flush(&mut self.cores.storage)?;
        let audit = slot.feed.audit_step(&mut self.cores.storage, from, max_bytes)?;
        slot.feed.lost(&audit.dropped);
        self.retract(id, &audit.dropped);
        self.sync_unmarked(id, !audit.dropped.is_empty())?;
        Ok(audit)
    }

    /// Repairs a feed on from a cursor, for about `max_bytes` of work. Makes nodes and signatures again that rotted and that the rest proves.
    /// Gives up what is corrupt, and reports that to the sessions. Repeated until [`Repair::done`], it has looked at all. At the end it takes in what other
    /// folders of the feed without a secret key have beyond it (while there is no session), and removes those of which it has all.
    ///
    /// # Errors
    ///
    /// If reading or writing fails.
    pub fn repair_step(
        &mut self,
        id: FeedId,
        cursor: &mut RepairCursor,
        max_bytes: usize,
    ) -> Result<Repair, StoreError> {
        self.live(id)?;
        self.sync_before_clearing(id)?;
        let slot = slot_of(&mut self.feeds, id);
        slot.feed.flush(&mut self.cores.storage)?;
        let mut step = slot.feed.repair_step(&mut self.cores.storage, cursor, max_bytes)?;
        slot.feed.lost(&step.dropped);
        self.retract(id, &step.dropped);
        self.sync_unmarked(id, !step.dropped.is_empty() || step.nodes_dropped > 0)?;
        if step.done {
            self.join_spare_folders(id, &mut step)?;
        }
        Ok(step)
    }

    /// Finds the byte at an offset, as exactly as is known here.
    ///
    /// # Errors
    ///
    /// If reading fails.
    pub fn locate(&mut self, id: FeedId, offset: u64) -> Result<Located, StoreError> {
        self.live(id)?;
        slot_of(&mut self.feeds, id).feed.locate(&mut self.cores.storage, offset)
    }

    /// Returns how many blocks of a range are held.
    pub fn count_held(&self, id: FeedId, range: Range<u64>) -> u64 {
        self.entry(id).map_or(0, |entry| entry.feed.count_held(range))
    }

    /// Returns the roots of a length, from left to right; `None` if one of them is not held.
    ///
    /// # Errors
    ///
    /// If reading fails.
    pub fn roots_at(&mut self, id: FeedId, blocks: u64) -> Result<Option<Vec<Node>>, StoreError> {
        self.live(id)?;
        slot_of(&mut self.feeds, id).feed.roots_at(&mut self.cores.storage, blocks)
    }

    /// Looks for the first signature that covers a block, and the length that it signs, from a block on. Reads about `max_bytes`, and returns
    /// from which block to go on.
    ///
    /// # Errors
    ///
    /// If reading fails.
    pub fn signature_step(&mut self, id: FeedId, from: u64, max_bytes: usize) -> Result<SignatureSearch, StoreError> {
        self.live(id)?;
        slot_of(&mut self.feeds, id).feed.signature_step(&mut self.cores.storage, from, max_bytes)
    }

    /// Checks whether this is the writer's signature of a length; `None` if the roots of that length are not held.
    ///
    /// # Errors
    ///
    /// If reading fails.
    pub fn verify_signature(
        &mut self,
        id: FeedId,
        blocks: u64,
        signature: &[u8; 64],
    ) -> Result<Option<bool>, StoreError> {
        self.live(id)?;
        slot_of(&mut self.feeds, id).feed.verify_signature(&mut self.cores.storage, blocks, signature)
    }

    /// Begins or ends to fetch a feed's blocks and to serve them, on every session that has the feed and on later ones. It overrides what was
    /// set for those, as far as their policies allow. `None` leaves it as it is (hypercore's `setDownloading` and `setUploading`).
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownFeed`] if the id is of another store. For a feed that was removed it means nothing.
    pub fn set_transfer(&mut self, id: FeedId, download: Option<bool>, upload: Option<bool>) -> Result<(), StoreError> {
        self.check_id(id)?;
        let slot = self.slot_mut(id);
        slot.download = download.or(slot.download);
        slot.upload = upload.or(slot.upload);
        for peer_id in slot.subscribers.clone() {
            let may = self.may_feed(peer_id, id);
            let (download, upload) = (download.map(|on| on && may.want), upload.map(|on| on && may.offer));
            self.with_peer(peer_id, id, |peer, work| {
                peer.set_transfer(download, upload, work);
                Ok(())
            });
            self.wake(peer_id);
        }
        self.give_up_unavailable();
        Ok(())
    }

    /// Returns the key pair of a feed that is ours.
    pub fn key_pair(&self, id: FeedId) -> Option<KeyPair> {
        self.entry(id)?.feed.key_pair().cloned()
    }

    /// Returns the sessions of a feed, and how it stands on each.
    pub fn peers(&self, id: FeedId) -> Vec<(SessionId, PeerInfo)> {
        let Some(FeedSlot { feed, subscribers, .. }) = self.entry(id) else { return Vec::new() };
        let info = |peer: &SessionId| Some((*peer, self.sessions.get(peer)?.peers.get(&id)?.info(feed)));
        subscribers.iter().filter_map(info).collect()
    }

    /// Returns whether any session fetches blocks of a feed, or the next one will.
    pub fn is_fetched(&self, id: FeedId) -> bool {
        let fetches = |peer: &SessionId| {
            self.sessions.get(peer).and_then(|session| session.peers.get(&id)).is_some_and(|peer| peer.is_downloading())
        };
        self.entry(id).is_some_and(|entry| entry.feed.is_writer_behind() || entry.subscribers.iter().any(fetches))
    }

    /// Begins, or ends, to note what happens to a feed, for [`poll_feed_event`](Self::poll_feed_event).
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownFeed`] if the id is of another store. Nothing happens to a feed that was removed.
    pub fn watch(&mut self, id: FeedId, watched: bool) -> Result<(), StoreError> {
        self.check_id(id)?;
        let limit = self.limits.feed_events;
        let slot = self.slot_mut(id);
        match (watched, &slot.news) {
            (true, None) => slot.news = Some(Box::new(FeedNews::new(limit))),
            (false, Some(_)) => slot.news = None,
            _ => {}
        }
        Ok(())
    }

    /// Returns what happened to the feeds that are watched. What is not taken is bounded, for each feed, by
    /// [`Limits::feed_events`](crate::Limits::feed_events).
    pub fn poll_feed_event(&mut self) -> Option<(FeedId, FeedEvent)> {
        loop {
            let id = self.outbox.feed()?;
            let slot = self.slot_mut(id);
            if let Some(event) = slot.news.as_mut().and_then(|news| news.pop()) {
                return Some((id, event));
            }
            slot.has_events = false;
            self.outbox.pop_feed();
        }
    }

    /// Blocks of a feed were written.
    pub(super) fn committed(&mut self, id: FeedId, fresh: &[(Range<u64>, Option<SessionId>)]) {
        let slot = slot_of(&mut self.feeds, id);
        let (len, synced) = (slot.feed.len(), slot.feed.downloaded() == slot.feed.len());
        if len > std::mem::replace(&mut slot.reported_len, len) {
            self.outbox.push_feed_event(id, slot, FeedEvent::Append { len });
        }
        for (blocks, from) in fresh {
            if from.is_some() {
                self.outbox.push_feed_event(id, slot, FeedEvent::Download { blocks: blocks.clone() });
            }
        }
        let before = std::mem::replace(&mut slot.synced, synced);
        let grew = fresh.iter().any(|(_, from)| from.is_some());
        if synced && !slot.feed.writable() && (!before || grew) {
            self.outbox.push_feed_event(id, slot, FeedEvent::Sync);
        }
        self.end_fulfilled(id);
    }

    /// Notes an event of a feed that is watched.
    pub(super) fn tell(&mut self, id: FeedId, event: FeedEvent) {
        if let Some(slot) = self.feeds.get_mut(id.0 as usize) {
            self.outbox.push_feed_event(id, slot, event);
        }
    }

    /// Ends what is waited for beyond its deadline.
    pub(super) fn give_up_late(&mut self) {
        while let Some(want) = self.waits.pop_late(self.now) {
            let feed = self.waits.feed(want);
            self.end(want, WantEnd::TimedOut);
            feed.into_iter().for_each(|id| self.take_back(id));
        }
    }

    /// Ends what no session can bring, if it was to be given up then.
    pub(super) fn give_up_unavailable(&mut self) {
        for id in self.waits.if_available() {
            // What came and is not written yet may be what is waited for.
            if self.slot(id).dirty {
                continue;
            }
            let wants = &self.slot(id).wants;
            let waiting = wants.if_available();
            if waiting.is_empty() {
                self.waits.none_if_available(id);
                continue;
            }
            let hopeless = |want: &WantId| !self.sessions.values().any(|session| session.may_bring(id, wants, *want));
            let given_up: Vec<WantId> = waiting.into_iter().filter(hopeless).collect();
            given_up.into_iter().for_each(|want| self.end(want, WantEnd::Unavailable));
        }
    }

    fn retract(&mut self, id: FeedId, cleared: &[Range<u64>]) {
        for blocks in cleared {
            self.tell(id, FeedEvent::Clear { blocks: blocks.clone() });
        }
        if !cleared.is_empty() {
            self.unmatch(id);
        }
        let limits = self.limits.clone();
        for peer_id in self.slot(id).subscribers.clone() {
            self.with_peer(peer_id, id, |peer, work| {
                cleared.iter().for_each(|blocks| peer.retract(blocks.clone(), &limits));
                peer.advance(work);
                Ok(())
            });
            self.wake(peer_id);
        }
    }

    /// Has the sessions of a feed request what is new to be requested.
    fn ask(&mut self, id: FeedId) {
        for peer_id in self.slot(id).subscribers.clone() {
            self.with_peer(peer_id, id, |peer, work| {
                peer.retry_requests(work);
                Ok(())
            });
            self.wake(peer_id);
        }
    }

    /// Has the sessions of a feed take back what nobody waits for.
    fn take_back(&mut self, id: FeedId) {
        for peer_id in self.slot(id).subscribers.clone() {
            let mut released = false;
            self.with_peer(peer_id, id, |peer, work| {
                released = peer.cancel(work);
                Ok(())
            });
            if released {
                self.retry_requests(id, Some(peer_id));
            }
            self.wake(peer_id);
        }
    }

    fn end_fulfilled(&mut self, id: FeedId) {
        let slot = slot_of(&mut self.feeds, id);
        if slot.wants.is_empty() {
            return;
        }
        let FeedSlot { feed, wants, .. } = slot;
        // If the tree cannot be read, a seek goes on waiting; the next call that reads the feed gets the error.
        let ended = wants.fulfilled(feed, &mut self.cores.storage).unwrap_or_default();
        for (want, end) in ended {
            self.end(want, end);
        }
    }

    pub(super) fn end(&mut self, want: WantId, end: WantEnd) {
        if self.forget(want).is_some() {
            self.waits.report(want, end);
        }
    }

    /// Whose feed it was.
    fn forget(&mut self, want: WantId) -> Option<FeedId> {
        let id = self.waits.feed(want)?;
        self.waits.remove(want, &mut slot_of(&mut self.feeds, id).wants);
        Some(id)
    }

    fn slot_mut(&mut self, id: FeedId) -> &mut FeedSlot {
        slot_of(&mut self.feeds, id)
    }
}

fn slot_of(feeds: &mut [Box<FeedSlot>], id: FeedId) -> &mut FeedSlot {
    &mut feeds[id.0 as usize]
}
