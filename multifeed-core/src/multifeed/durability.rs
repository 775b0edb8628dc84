//! What outlives a power cut, and when: fsyncing, the journal, and what remotes may see meanwhile.

use std::collections::BTreeSet;

use super::{FeedSlot, Multifeed};
use crate::cores::durability::Durability;
use crate::cores::journal::{Checkpoint, Stamp};
use crate::error::StoreError;
use crate::feed::Feed;
use crate::ids::FeedId;
use crate::log::log;
use crate::merkle;
use crate::storage::{Slot, Storage};

/// Feeds that are fsynced in one go before others have their turn.
const SYNCED_AT_ONCE: usize = 64;

/// An fsync that failed.
#[derive(Debug)]
pub(super) struct SyncFailure {
    error: StoreError,
    /// Of the feed's own files nobody knows what is on the disk after that: only opening it again tells.
    lasting: bool,
}

impl<S: Storage> Multifeed<S> {
    /// Returns what a power cut may take.
    pub fn durability(&self) -> Durability {
        self.cores.durability
    }

    /// Returns how much of a feed is known to be on the disk, in blocks. With [`Durability::None`] what was fsynced when it was opened, or by
    /// [`sync`](Self::sync).
    pub fn synced_len(&self, id: FeedId) -> u64 {
        let Some(FeedSlot { feed, .. }) = self.entry(id) else { return 0 };
        let mark = self.cores.journal.mark(feed.slot(), &feed.key());
        mark.filter(|mark| mark.synced).map_or(0, |mark| mark.length.min(feed.len()))
    }

    /// Returns why what is new in a feed could not be fsynced. If one of its own files could not be, nothing can be appended to it until
    /// the store is opened again. Nobody knows what is on the disk then, and a second fsync would not tell.
    pub fn sync_error(&self, id: FeedId) -> Option<&StoreError> {
        self.entry(id)?.sync_failure.as_ref().map(|failure| &failure.error)
    }

    /// Writes and fsyncs all that is new, now, whatever the [`Durability`].
    ///
    /// # Errors
    ///
    /// The first of what [`sync_error`](Self::sync_error) then tells.
    pub fn sync(&mut self) -> Result<(), StoreError> {
        let (mut next, mut result) = self.sync_step(None);
        while next.is_some() {
            let step;
            (next, step) = self.sync_step(next);
            result = result.and(step);
        }
        result
    }

    /// As [`sync`](Self::sync), of some feeds: from where to go on, `None` after the last one, and the first error of these. A feed
    /// that failed stops no other. A place of another store is [`StoreError::UnknownFeed`].
    pub fn sync_step(&mut self, from: Option<FeedId>) -> (Option<FeedId>, Result<(), StoreError>) {
        if let Some(Err(error)) = from.map(|from| self.check_id(from)) {
            return (None, Err(error));
        }
        let from = from.unwrap_or(FeedId(0, self.number));
        // What is staged is written first.
        self.commit(self.now);
        let unwritten = self.uncommitted.unwritten.iter().copied().filter(|&id| id >= from);
        let due: BTreeSet<FeedId> = self.cores.unsynced.range(from..).copied().chain(unwritten).collect();
        let next = due.iter().nth(SYNCED_AT_ONCE).copied();
        let ids: Vec<FeedId> = due.into_iter().take(SYNCED_AT_ONCE).collect();
        self.sync_feeds(&ids);
        self.commit(self.now);
        let failed = ids.into_iter().find_map(|id| self.sync_error(id));
        (next, failed.map_or(Ok(()), |error| Err(error.clone())))
    }

    /// As [`sync`](Self::sync), of one feed alone: what cannot be written of others is no failure of it.
    ///
    /// # Errors
    ///
    /// What [`sync_error`](Self::sync_error) then returns of it.
    pub fn sync_feed(&mut self, id: FeedId) -> Result<(), StoreError> {
        self.live(id)?;
        self.commit(self.now);
        self.sync_feeds(&[id]);
        self.commit(self.now);
        self.sync_error(id).map_or(Ok(()), |error| Err(error.clone()))
    }

    /// To be called before the first change of a feed: the journal says that the store is in use. If anything is fsynced, the feed's key is
    /// before its first block: blocks without a key could be anybody's, and would be kept.
    /// Fails if the store was moved since it was opened.
    pub(super) fn touch(&mut self, id: FeedId) -> Result<(), StoreError> {
        let slot = self.slot(id).feed.slot();
        self.cores.storage.check_place(slot).map_err(|error| StoreError::from_slot(slot, "write to", error))?;
        self.follow_removal()?;
        let sync = self.cores.durability.syncs() || self.slot(id).feed.writable();
        self.begin(sync)?;
        self.cores.unsynced.insert(id);
        if !self.cores.durability.syncs() {
            return Ok(());
        }
        let slot = &mut self.feeds[id.0 as usize];
        let synced = slot.feed.sync_key(&mut self.cores.storage);
        if let Err(error) = &synced {
            slot.sync_failure = Some(Box::new(SyncFailure { error: error.clone(), lasting: true }));
        }
        synced
    }

    pub(super) fn begin(&mut self, sync: bool) -> Result<(), StoreError> {
        self.cores.journal.begin(&mut self.cores.storage, self.members.catalog.end(), sync)
    }

    /// Why nothing can be appended to a feed.
    pub(super) fn lasting_failure(&self, id: FeedId) -> Option<StoreError> {
        self.slot(id).sync_failure.as_ref().filter(|failure| failure.lasting).map(|failure| failure.error.clone())
    }

    /// A feed was opened: what remotes may see of it, and whether it still has to be fsynced.
    pub(super) fn adopt(&mut self, id: FeedId) {
        let feed = &self.slot(id).feed;
        let mark = self.cores.journal.mark(feed.slot(), &feed.key());
        let synced =
            mark.is_some_and(|mark| mark.synced && (feed.was_unchanged() || mark.is_same_as(&feed.mark(true))));
        if !synced && (self.cores.journal.is_unclean() || self.cores.durability.syncs()) {
            self.cores.unsynced.insert(id);
        }
        if self.cores.durability.syncs() && self.slot(id).feed.writable() {
            let length = self.synced_len(id);
            self.feeds[id.0 as usize].feed.serve(Some(length));
        }
    }

    /// A feed is about to be made in a folder. The journal has to know it first if it is a writer's, or if another one
    /// was there before. Else after a crash a writer's would be taken for one of somebody else's.
    pub(super) fn expect_feed(
        &mut self,
        slot: Slot,
        feed: &multifeed_proto::FeedKey,
        ours: bool,
    ) -> Result<(), StoreError> {
        // A number that another feed had does not tell that the feed is new. Without the note, what a power cut leaves of its folder
        // would be taken for somebody else's, and hide all that follow it from JS.
        let noted = ours || self.cores.journal.must_know(slot);
        let sync = noted || self.cores.durability.syncs();
        self.begin(sync)?;
        if noted {
            match self.cores.journal.signed(feed).map(|(at, _)| at).filter(|_| ours) {
                // It was written here before, and is no new feed.
                Some(at) => self.cores.journal.renumber(at, slot, feed),
                None => {
                    let mut mark = Checkpoint::new(feed, 0, &merkle::root_hash(&[]));
                    mark.synced = true;
                    self.cores.journal.note(slot, mark);
                }
            }
            self.cores.journal.write(&mut self.cores.storage, sync)?;
        }
        Ok(())
    }

    /// With [`Durability::Always`]: fsyncs the feeds that were appended to and have to be announced.
    pub(super) fn sync_appended(&mut self) {
        if self.cores.durability != Durability::Always {
            return;
        }
        let due = self.uncommitted.dirty.iter().chain(&self.uncommitted.unwritten).copied();
        let due: Vec<FeedId> = due.filter(|id| self.slot(*id).feed.is_held_back()).collect();
        self.sync_feeds(&due);
    }

    /// Fsyncs a feed of ours now, if a remote that comes must see all of it.
    pub(super) fn sync_before_serving(&mut self, id: FeedId) {
        if self.slot(id).feed.is_held_back() {
            self.sync_feeds(&[id]);
        }
    }

    /// As [`sync_before_serving`](Self::sync_before_serving), of as many feeds as may be in one go: each of the others is before its channel opens.
    pub(super) fn sync_some_before_serving(&mut self) {
        let held_back = self.feeds().filter(|&id| self.slot(id).feed.is_held_back());
        let due: Vec<FeedId> = held_back.take(SYNCED_AT_ONCE).collect();
        if !due.is_empty() {
            self.sync_feeds(&due);
            self.commit(self.now);
        }
    }

    /// A feed will get holes. One of ours is fsynced first: after a crash a hole beyond what is known of it would be taken for its end.
    pub(super) fn sync_before_clearing(&mut self, id: FeedId) -> Result<(), StoreError> {
        self.touch(id)?;
        if !self.slot(id).feed.writable() || self.synced_len(id) == self.slot(id).feed.len() {
            return Ok(());
        }
        self.sync_feeds(&[id]);
        self.cores.unsynced.insert(id);
        self.sync_error(id).map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Has the disk and the journal know that blocks or nodes are no longer held, if any are, before anything else of them changes. After a crash the journal is
    /// believed: it would speak for blocks that came again and were lost.
    pub(super) fn sync_unmarked(&mut self, id: FeedId, any: bool) -> Result<(), StoreError> {
        let feed = &self.slot(id).feed;
        if !any {
            return Ok(());
        }
        if feed.writable() {
            return self.note_cleared(id);
        }
        let Some(known) = self.cores.journal.mark(feed.slot(), &feed.key()) else { return Ok(()) };
        if !self.cores.durability.syncs() {
            // What came since is not known to be on the disk: it must not be believed.
            let less = feed.checkpoint_within(known);
            self.cores.journal.note(feed.slot(), less);
            return self.cores.journal.write(&mut self.cores.storage, false);
        }
        self.sync_feeds(&[id]);
        self.sync_error(id).map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Has the journal know which blocks of a feed of ours were cleared: others whose marks are lost are marked again when it is opened, or reported.
    fn note_cleared(&mut self, id: FeedId) -> Result<(), StoreError> {
        let feed = &self.slot(id).feed;
        let Some(known) = self.cores.journal.mark(feed.slot(), &feed.key()) else { return Ok(()) };
        let writer_behind = feed.is_writer_behind();
        let known = Checkpoint { pages: feed.cleared_marks(), writer_behind, ..known.clone() };
        self.cores.journal.note(feed.slot(), known);
        self.cores.journal.write(&mut self.cores.storage, self.cores.durability.syncs())
    }

    /// A feed of ours was opened and repaired. If the journal cannot be written, the next opening looks again.
    pub(super) fn note_repaired(&mut self, id: FeedId) {
        let feed = &self.slot(id).feed;
        let is_repaired = feed.writable() && feed.recovered().is_some() && feed.older_copy().is_none();
        if is_repaired && !self.cores.storage.is_read_only() {
            let _ = self.note_cleared(id);
        }
    }

    /// A feed of ours turned out to be longer than what is held of it, and is fsynced at once. After a crash the first block that is missing
    /// would be taken for its end, and what was appended past it for nothing.
    pub(super) fn outgrew(&mut self, id: FeedId) {
        self.feeds[id.0 as usize].writer_behind = true;
        // First of all: what is marked up to that length and not held would else be taken for cleared, after a kill.
        if let Err(error) = self.note_behind(id) {
            self.feeds[id.0 as usize].sync_failure = Some(Box::new(SyncFailure { error, lasting: false }));
            return;
        }
        if self.slot(id).feed.older_copy().is_none() {
            self.cores.report.caught_up(&self.feeds[id.0 as usize].feed);
        }
        self.sync_feeds(&[id]);
    }

    /// Has the journal know that not all of a feed of ours is here.
    fn note_behind(&mut self, id: FeedId) -> Result<(), StoreError> {
        let feed = &self.slot(id).feed;
        let known = self.cores.journal.mark(feed.slot(), &feed.key()).filter(|known| !known.writer_behind);
        let Some(known) = known.cloned() else { return Ok(()) };
        let slot = feed.slot();
        self.begin(true)?;
        self.cores.journal.note(slot, Checkpoint { writer_behind: true, ..known });
        self.cores.journal.write(&mut self.cores.storage, true)
    }

    /// Nothing is appended to a feed that is longer than what is held of it before that is known on the disk. Nor is anything appended to one of
    /// which the journal knows nothing, as JS made it. Nobody could tell what a crash left of the append from what was lost of the feed.
    pub(super) fn sync_before_appending(&mut self, id: FeedId) -> Result<(), StoreError> {
        let FeedSlot { feed, writer_behind, .. } = self.slot(id);
        if *writer_behind || self.cores.journal.mark(feed.slot(), &feed.key()).is_none() {
            self.sync_feeds(&[id]);
            self.sync_error(id).map_or(Ok(()), |error| Err(error.clone()))?;
        }
        self.touch(id)
    }

    /// Fsyncs what is due, a part of it at a time.
    pub(super) fn sync_due(&mut self) {
        let Some(interval) = self.cores.durability.interval() else { return };
        if self.cores.next_sync.is_none_or(|at| self.now < at) {
            return;
        }
        let ids: Vec<FeedId> = self.cores.unsynced.iter().copied().take(SYNCED_AT_ONCE).collect();
        self.sync_feeds(&ids);
        let left = ids.iter().any(|id| self.cores.unsynced.contains(id));
        self.cores.next_sync = match self.cores.unsynced.is_empty() {
            true => None,
            // Those that failed are tried again in time.
            false if left => Some(self.now + interval),
            false => Some(self.now),
        };
        self.commit(self.now);
    }

    /// Writes and fsyncs feeds, then notes them in the journal, and then lets remotes see them.
    fn sync_feeds(&mut self, ids: &[FeedId]) {
        let mut synced = Vec::with_capacity(ids.len());
        // Lists first: nobody finds a feed that is on the disk and in no list.
        let lists: Vec<_> = self.members.sets.lists.feeds().filter(|list| self.cores.unsynced.contains(list)).collect();
        for &id in lists.iter().chain(ids.iter().filter(|id| !lists.contains(id))) {
            if self.lasting_failure(id).is_some() {
                self.cores.unsynced.remove(&id);
                continue;
            }
            if let Some(error) = self.listing_failure(id) {
                self.feeds[id.0 as usize].sync_failure = Some(Box::new(SyncFailure { error, lasting: false }));
                continue;
            }
            match self.sync_files(id) {
                Ok(()) => {
                    let feed = &self.slot(id).feed;
                    if feed.is_known_to_be_whole() {
                        self.cores.journal.note(feed.slot(), feed.mark(true));
                    }
                    synced.push(id);
                }
                Err(failure) if self.lasting_failure(id).is_none() => {
                    self.feeds[id.0 as usize].sync_failure = Some(Box::new(failure));
                }
                Err(_) => {}
            }
        }
        if synced.is_empty() {
            return;
        }
        let written = self.begin(true);
        let written = written.and_then(|()| self.cores.journal.write(&mut self.cores.storage, true));
        match &written {
            Ok(()) => log!(DEBUG, "store", "fsynced", feeds = ?synced.len()),
            Err(error) => log!(DEBUG, "store", "the journal could not be written", error = %error),
        }
        for id in synced {
            let serves_all = !self.cores.durability.syncs();
            let slot = &mut self.feeds[id.0 as usize];
            if let Err(error) = &written {
                slot.sync_failure = Some(Box::new(SyncFailure { error: error.clone(), lasting: false }));
                continue;
            }
            slot.sync_failure = None;
            slot.writer_behind = false;
            self.cores.unsynced.remove(&id);
            if slot.feed.writable() && !serves_all {
                slot.feed.serve(Some(slot.feed.len()));
            }
            if !slot.unannounced.is_empty() {
                self.mark_dirty(id);
            }
        }
    }

    /// Notes what is known of a remote feed together with what the storage says of its files, unless that stands there: they are changed no more.
    fn stamp(&mut self, id: FeedId) {
        let feed = &self.slot(id).feed;
        let (slot, known) = (feed.slot(), self.cores.journal.mark(feed.slot(), &feed.key()));
        let is_stamped = feed.was_unchanged() && known.is_some_and(|mark| mark.stamp.is_some());
        // What the journal knows more than is here it knew of other files.
        let is_less = feed.older_copy().is_some();
        let is_ours = feed.writable() || feed.is_unread_writer();
        let Some(known) = known.filter(|_| !is_ours && !is_stamped && !is_less) else { return };
        let mut mark = feed.mark(known.synced);
        mark.synced &= mark.is_same_as(known);
        let roots = feed.scattered_roots();
        mark.stamp = self.cores.storage.stamp(slot, false).map(|files| Stamp { files, roots });
        // What is known already is not worth a note without it.
        if mark.stamp.is_some() {
            self.cores.journal.note(slot, mark);
        }
    }

    fn sync_files(&mut self, id: FeedId) -> Result<(), SyncFailure> {
        let staged = self.slot(id).feed.is_staged();
        let begun = if staged { self.touch(id) } else { self.follow_removal() };
        let feed = &mut self.feeds[id.0 as usize].feed;
        let written = begun.and_then(|()| if staged { feed.flush(&mut self.cores.storage) } else { Ok(()) });
        let synced = match written {
            Ok(()) => feed.sync(&mut self.cores.storage).map_err(|error| SyncFailure { error, lasting: true }),
            Err(error) => Err(SyncFailure { error, lasting: false }),
        };
        if let Err(failure) = &synced {
            log!(DEBUG, "feed", "could not be fsynced", key = ?feed.key(), error = %failure.error);
        }
        synced
    }

    /// Writes what is staged, fsyncs what [`Durability`] promises of a closed store, and says in the journal that it is closed.
    pub(super) fn close_feeds(&mut self) -> Result<(), StoreError> {
        // What is left of a removal can be done at the next opening of the store, too.
        let _ = self.resume_removal();
        let mut result = self.follow_removal();
        let mut any_synced = self.cores.durability.syncs();
        for id in self.feeds().collect::<Vec<_>>() {
            // Nothing is to be written of a store that is only read: what waits is that blocks which rotted are not held.
            if self.slot(id).feed.is_staged() && !self.cores.storage.is_read_only() {
                result = result.and(self.touch(id));
                result = result.and(self.feeds[id.0 as usize].feed.flush(&mut self.cores.storage));
            }
            result = result.and(self.feeds[id.0 as usize].feed.undo_failed_append(&mut self.cores.storage));
            // It counts as unsynced no more, as no second fsync would tell; nor was it closed.
            if let Some(error) = self.lasting_failure(id) {
                result = result.and(Err(error));
                continue;
            }
            let feed = &self.slot(id).feed;
            let unknown = self.cores.journal.mark(feed.slot(), &feed.key()).is_none();
            if !self.cores.journal.is_open() {
                continue;
            }
            if !(unknown || self.cores.unsynced.contains(&id)) {
                self.stamp(id);
                continue;
            }
            let syncs = self.cores.durability.syncs() || feed.writable();
            any_synced |= syncs;
            if syncs {
                result = result.and(self.feeds[id.0 as usize].feed.sync(&mut self.cores.storage));
                log!(DEBUG, "feed", "fsynced at the end", key = ?self.slot(id).feed.key());
            }
            let feed: &Feed = &self.slot(id).feed;
            if result.is_ok() && feed.is_known_to_be_whole() {
                self.cores.journal.note(feed.slot(), feed.mark(syncs));
                self.stamp(id);
            }
        }
        // Else it is as after a crash: the next one to open it has a look, also at what could not be looked at after the last one.
        let looked_at = !(self.cores.report.unopened && self.cores.journal.is_unclean());
        if result.is_ok() && self.cores.journal.is_open() && !self.cores.storage.is_read_only() {
            result = match looked_at {
                true => self.cores.journal.close(&mut self.cores.storage, any_synced),
                false => self.cores.journal.write(&mut self.cores.storage, any_synced),
            };
        }
        result
    }
}
