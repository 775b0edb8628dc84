//! A disk that is full, or nearly so: nothing new is fetched, and everything else goes on.

use std::time::Duration;

use super::Multifeed;
use crate::error::StoreError;
use crate::ids::SessionId;
use crate::log::log;
use crate::storage::Storage;

/// How often the free space is looked at, at the least.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long after a write failed the next one is tried.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// Bytes that have to be free, beside those that have to be kept, for a write to be tried again.
const MARGIN: u64 = 1 << 20;
/// About the bytes that a new feed takes on the disk beside its blocks: a folder, and a few files of at least a page each.
pub(super) const FEED_BYTES: u64 = 32 * 1024;

impl<S: Storage> Multifeed<S> {
    /// Returns why nothing new is fetched: the disk is full, or has less free than [`Limits::keep_free`](crate::Limits::keep_free).
    pub fn disk_full(&self) -> Option<&StoreError> {
        self.cores.disk.why()
    }

    /// Counts what is about to be written, and looks at the disk in time.
    pub(super) fn mind_space(&mut self, bytes: u64) {
        if self.limits.keep_free == 0 || self.cores.disk.is_full() {
            return;
        }
        if !self.cores.disk.has_room(bytes) {
            self.measure_disk();
        }
    }

    /// Looks at the disk, as a session begins that would find it full.
    pub(super) fn look_at_disk_now(&mut self) {
        self.cores.disk.look_at(self.now);
        self.look_at_disk();
    }

    /// Looks at the disk, if it is time to.
    pub(super) fn look_at_disk(&mut self) {
        if !self.cores.disk.is_due(self.now) {
            return;
        }
        let keep = self.limits.keep_free;
        let (wait, margin) = match self.cores.disk.why() {
            None if keep == 0 => return,
            None => return self.measure_disk(),
            Some(StoreError::LowSpace { .. }) => (LOOK_EVERY, keep / 16),
            Some(_) => (RETRY_AFTER, MARGIN),
        };
        self.cores.disk.look_at(self.now + wait);
        if self.cores.free_space() < keep.saturating_add(margin) {
            return;
        }
        for id in std::mem::take(&mut self.uncommitted.unwritten) {
            self.commit_feed(id);
        }
        if self.uncommitted.unwritten.is_empty() {
            self.go_on_fetching();
        }
    }

    fn measure_disk(&mut self) {
        self.cores.disk.look_at(self.now + LOOK_EVERY);
        let keep = self.limits.keep_free;
        let free = self.cores.free_space();
        // Half of it, as others write to the disk too.
        self.cores.disk.set_room(free.saturating_sub(keep) / 2);
        if free < keep {
            self.stop_at_full_disk(StoreError::LowSpace { free, keep });
        }
    }

    /// Fetches nothing more on any session. What waits to be written is tried again in time.
    pub(super) fn stop_at_full_disk(&mut self, error: StoreError) {
        if self.cores.disk.is_full() {
            return;
        }
        log!(DEBUG, "store", "nothing new is fetched", error = %error);
        let wait = if matches!(error, StoreError::LowSpace { .. }) { LOOK_EVERY } else { RETRY_AFTER };
        self.cores.disk.set_full(Some(error.clone()));
        self.cores.disk.look_at(self.now + wait);
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            let Some(session) = self.sessions.get_mut(&id).filter(|session| !session.is_over()) else { continue };
            session.pause(error.clone());
            self.stop_fetching(id);
            self.end_if_through(id);
            self.wake(id);
        }
    }

    /// There is room again: live sessions fetch what is missing.
    fn go_on_fetching(&mut self) {
        log!(DEBUG, "store", "the disk has room again");
        self.cores.disk.set_full(None);
        self.measure_disk();
        if self.cores.disk.is_full() {
            return;
        }
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            let Some(session) = self.sessions.get_mut(&id).filter(|session| !session.is_over()) else { continue };
            session.resume();
            session.offers.go_on();
            if session.is_live() {
                for feed in session.peers.keys().copied().collect::<Vec<_>>() {
                    let state = &self.slot(feed).feed;
                    if !self.may_feed(id, feed).want || (state.writable() && !state.is_writer_behind()) {
                        continue;
                    }
                    self.with_peer(id, feed, |peer, work| {
                        peer.begin_again(work);
                        Ok(())
                    });
                    self.apply(id, feed);
                    self.retry_requests(feed, Some(id));
                }
            }
            self.ask_for_offers(id);
            self.wake(id);
        }
    }

    /// A session is over: if something that it brought could not be written, it has failed.
    pub(super) fn mind_unwritten(&mut self, id: SessionId) {
        let brought = |slot: &super::FeedSlot| slot.unannounced.iter().any(|(_, from)| *from == Some(id));
        let lost = self.uncommitted.unwritten.iter().any(|feed| brought(self.slot(*feed)));
        if let Some(error) = self.cores.disk.why().filter(|_| lost)
            && let Some(session) = self.sessions.get_mut(&id)
        {
            session.lose(error);
        }
    }
}
