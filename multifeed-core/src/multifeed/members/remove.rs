//! Taking a feed out of the store for good.
//!
//! JS opens the folders from 0 on until one has no `key`, and numbers the next writer by how many there are: there may be no gap. So the last
//! folder takes the number of the one that goes. Before the first step the journal says what is about to happen. After a crash, or an
//! error, it is done to its end: a step that was done before does no harm.

use multifeed_proto::{Command, FeedKey};

use super::rearranged::Rearranged;
use crate::bitfield::Marks;
use crate::cores::journal::{Checkpoint, Removal};
use crate::error::StoreError;
use crate::feed::Feed;
use crate::ids::{FeedId, SessionId, SetId};
use crate::multifeed::{Multifeed, MultifeedEvent};
use crate::replication::peer_session::PeerSession;
use crate::replication::wants::WantEnd;
use crate::sets::sparse_bits::SparseBits;
use crate::storage::{FileId, FileKind, Slot, Storage};

impl<S: Storage> Multifeed<S> {
    /// Takes a remote's feed out of the store: its folder is gone when this returns, also after a power cut. Sessions close its channel, and
    /// go on; what is waited for of it ends; its [`FeedId`] stands for nothing any more.
    ///
    /// A remote that has it brings it again. To prevent that, [`ban`](Self::ban) it before.
    ///
    /// In a corestore it is taken out of all multifeeds that are open, as by [`take_out_of`](Self::take_out_of), and its core is removed.
    ///
    /// The last folder takes the number of the one that is gone, as JS knows no gaps. If the feed in it has no name of a writer's, it is
    /// named by that number then.
    ///
    /// # Errors
    ///
    /// [`StoreError::OwnWriter`] if the feed is written here, or was and its secret key is missing or unreadable;
    /// [`StoreError::Removed`] if it was removed before; else the storage's error. If that comes from the disk the feed may be gone all the same.
    /// What is left to do is then done before the next feed is made or removed, or when the store is opened again.
    pub fn remove(&mut self, id: FeedId) -> Result<(), StoreError> {
        let feed = self.live(id)?;
        if feed.writable() || self.cores.report.lost_key(feed) {
            return Err(StoreError::OwnWriter { key: feed.key() });
        }
        self.check_removable(id)?;
        self.take_out(id)
    }

    /// As [`remove`](Self::remove), of a feed that is written here too: its secret key is destroyed. Anyone who has a copy of that could go
    /// on from a shorter length, and sign a second history. So the feed is [banned](Self::ban) first, and its key pair is not taken for a
    /// new writer.
    ///
    /// How much it signed stays known. If the ban is lifted and its key pair is there again, as one that is derived from a name always is, the
    /// writer is as an older copy of it would be. Its blocks come back from a remote that has them, and before that nothing is appended
    /// ([`StoreError::OlderWriter`]).
    ///
    /// # Errors
    ///
    /// As [`remove`](Self::remove) and [`ban`](Self::ban).
    pub fn remove_writer(&mut self, id: FeedId) -> Result<(), StoreError> {
        let key = self.live(id)?.key();
        self.check_removable(id)?;
        // One that waits may be why this one has to.
        if self.cores.storage.is_numbered() {
            self.resume_removal()?;
        }
        self.ban(key)?;
        self.begin(true)?;
        self.note_signed(id)?;
        self.take_out(id)
    }

    /// Has the journal know for good what a feed of ours signed that is about to go.
    fn note_signed(&mut self, id: FeedId) -> Result<(), StoreError> {
        let feed = self.live(id)?;
        let (slot, key) = (feed.slot(), feed.key());
        let known = self.cores.journal.mark(slot, &key).filter(|mark| mark.is_of_a_writer());
        let signed = match feed.writable() && feed.is_known_to_be_whole() {
            true => Some(feed.mark(false)),
            false => known.cloned(),
        };
        let Some(signed) = signed.filter(|signed| signed.length > 0) else { return Ok(()) };
        // What is cleared of it is for those who bring it back to say.
        let signed = Checkpoint { pages: Marks::default(), writer_behind: false, synced: false, ..signed };
        self.cores.journal.note_removed(&key, signed);
        self.cores.journal.write(&mut self.cores.storage, true)
    }

    /// Fails before anything is written down if the folder holds what must not be removed. Else the removal would be done by surprise when that
    /// is gone.
    fn check_removable(&mut self, id: FeedId) -> Result<(), StoreError> {
        let slot = self.live(id)?.slot();
        self.cores.storage.check_removable(slot).map_err(|error| StoreError::from_slot(slot, "remove", error))
    }

    /// Returns whether a feed was removed, or its [`FeedId`] is of another store: it stands for nothing here.
    pub fn is_removed(&self, id: FeedId) -> bool {
        self.entry(id).is_none_or(|entry| entry.removed)
    }

    /// The feed, unless it was removed.
    pub(in crate::multifeed) fn live(&self, id: FeedId) -> Result<&Feed, StoreError> {
        let slot = self.entry(id).ok_or(StoreError::UnknownFeed)?;
        if slot.removed { Err(StoreError::Removed { key: slot.feed.key() }) } else { Ok(&slot.feed) }
    }

    fn take_out(&mut self, id: FeedId) -> Result<(), StoreError> {
        if !self.cores.storage.is_numbered() {
            return self.take_out_core(id);
        }
        self.resume_removal()?;
        let feed = self.live(id)?;
        let (slot, key) = (feed.slot(), feed.key());
        self.begin(true)?;
        let last = self.last_folder()?.filter(|(last, _)| *last != slot);
        self.cores.journal.begin_removal(&mut self.cores.storage, Removal::new(slot, &key, last))?;
        self.leave_sessions(id);
        self.forget_feed(id);
        self.resume_removal()
    }

    /// Does what is left to do of a removal, if one was begun.
    pub(in crate::multifeed) fn resume_removal(&mut self) -> Result<(), StoreError> {
        let Some(removal) = self.cores.journal.removal() else { return Ok(()) };
        let there = match self.fill_gap(removal) {
            Ok(there) => there,
            Err(error) => {
                // The folder may have its new number all the same. If the disk does not tell that now, it is asked before the next write.
                let _ = self.follow_removal();
                return Err(error);
            }
        };
        if let Some(key) = &there {
            self.rename_unnamed(key)?;
        }
        self.cores.journal.end_removal(&mut self.cores.storage, there.as_ref())?;
        if there.is_none() {
            self.members.catalog.release(removal.slot);
        }
        Ok(())
    }

    /// As [`resume_removal`](Self::resume_removal), before a feed is made. A removal that waits only because something else than its folder has
    /// the number, or a link that is followed, leaves no gap that the new feed could close. It goes on waiting.
    pub(in crate::multifeed) fn resume_removal_before_a_feed(&mut self) -> Result<(), StoreError> {
        match self.resume_removal() {
            Err(error @ StoreError::NotRegular { .. })
                if self.cores.journal.removal().is_some_and(|removal| error.slot() == Some(removal.slot)) =>
            {
                Ok(())
            }
            done => done,
        }
    }

    /// Whether a folder at the number of a removal that was begun has no file of the feed that has to go, nor is the one that was to take the
    /// number.
    pub(in crate::multifeed) fn is_kept(&mut self, removal: &Removal) -> Result<bool, StoreError> {
        let slot = removal.slot;
        if let Some(there) = self.cores.key_in(slot)?.filter(|there| !removal.is_of(there)) {
            return Ok(removal.last_with(&there).is_none());
        }
        let slots = self.cores.storage.list().map_err(|error| StoreError::from_store("list", error))?;
        if !slots.contains(&slot) {
            return Ok(false);
        }
        let mut any = false;
        for file in FileKind::ALL.map(|kind| FileId::new(slot, kind)) {
            let len = self.cores.storage.len(file).map_err(|error| StoreError::from_file(file, "look at", error))?;
            any |= len.is_some();
        }
        Ok(!any || !Feed::is_remnant(&mut self.cores.storage, slot)?)
    }

    /// Follows a removal that is not done: the feed that takes the number is in the folder in which the disk has it, also after an error of the disk.
    /// Must be called before anything is written to a feed.
    pub(in crate::multifeed) fn follow_removal(&mut self) -> Result<(), StoreError> {
        let Some(removal) = self.cores.journal.removal() else { return Ok(()) };
        let key = match self.cores.key_in(removal.slot) {
            // None of ours: no feed has moved there.
            Err(StoreError::NotRegular { .. }) => None,
            key => key?,
        };
        if let Some(key) = key
            && let Some(from) = removal.last_with(&key)
        {
            self.take_number(from, removal.slot, &key);
        }
        Ok(())
    }

    /// Whether what is in a folder belongs to a feed that is being removed, and not to one that is here.
    pub(in crate::multifeed) fn is_going(&mut self, slot: Slot) -> Result<bool, StoreError> {
        let Some(removal) = self.cores.journal.removal().filter(|removal| removal.slot == slot) else {
            return Ok(false);
        };
        Ok(self.cores.key_in(slot)?.is_none_or(|key| removal.is_of(&key)))
    }

    /// Takes the feed's folder away, and gives the last one its number, from wherever that was left. The key of the feed that has the number
    /// then, if one has.
    fn fill_gap(&mut self, removal: Removal) -> Result<Option<FeedKey>, StoreError> {
        let slot = removal.slot;
        if let Some(there) = self.cores.key_in(slot)?.filter(|there| !removal.is_of(there)) {
            // If JS was here since, and made a feed in the gap, that one stays.
            if let Some(from) = removal.last_with(&there) {
                self.take_number(from, slot, &there);
                // The disk may have said that it failed: whether the new number outlives a power cut nobody knows.
                self.cores.sync_key(slot)?;
            }
            return Ok(Some(there));
        }
        // What has nothing that a feed has was put there by somebody, whatever key is beside it: what takes the number puts it aside.
        if Feed::is_remnant(&mut self.cores.storage, slot)? {
            self.cores.storage.remove(slot).map_err(|error| StoreError::from_slot(slot, "remove", error))?;
        }
        let Some((last, key)) = self.last_folder()?.filter(|(last, _)| *last > slot) else { return Ok(None) };
        // JS may have made others after the one that was the last.
        self.cores.journal.begin_removal(&mut self.cores.storage, removal.with_last(Some((last, key))))?;
        self.cores.sync_key(last)?;
        self.dedupe_names(last, slot, &key)?;
        let slots = self.cores.storage.list().map_err(|error| StoreError::from_store("list", error))?;
        self.cores.storage.rename(last, slot).map_err(|error| StoreError::from_slot(last, "rename", error))?;
        if slots.contains(&slot) {
            self.members.rearranged.push(Rearranged::PutAside { slot });
        }
        self.take_number(last, slot, &key);
        Ok(Some(key))
    }

    /// A feed's folder has another number on the disk: it has it in the journal and in memory too. Changes nothing if it had it before.
    fn take_number(&mut self, from: Slot, to: Slot, key: &FeedKey) {
        self.cores.journal.renumber(from, to, key);
        self.renumber_reported(from, to);
        self.members.catalog.release(from);
        self.members.catalog.occupy(to);
        let Some(id) = self.members.catalog.at(from) else { return };
        self.members.catalog.renumber(id, from, to);
        let feed = &mut self.feeds[id.0 as usize].feed;
        feed.move_to(to);
        // A name that was the number is reported once it has changed.
        if feed.local_name() != Some(&*from.to_string()) {
            let name = crate::multifeed::feed_name(feed);
            self.outbox.push(MultifeedEvent::Moved { id, name });
        }
    }

    /// A writer without a name is named by its folder's number: one that took another number is named by that now. JS counts names, and two
    /// equal ones would make it take a folder that is taken.
    fn rename_unnamed(&mut self, key: &FeedKey) -> Result<(), StoreError> {
        let Some(removal) = self.cores.journal.removal() else { return Ok(()) };
        let (Some(from), slot) = (removal.last_with(key), removal.slot) else { return Ok(()) };
        let Some(mut name) = Feed::name_in(&mut self.cores.storage, slot)? else { return Ok(()) };
        if name == from.to_string() {
            let old = std::mem::replace(&mut name, slot.to_string());
            if self.members.catalog.has_name(&name) {
                name = self.members.catalog.key_name(key);
            }
            self.cores.write_name(slot, key, &name)?;
            self.members.catalog.rename_lost(slot, &old, &name);
        } else if self.cores.journal.writer_name(slot).is_some_and(|known| known == from.to_string()) {
            // The file was written, when the disk said that it failed.
            self.cores.journal.rename_writer(&mut self.cores.storage, slot, key, &name)?;
        }
        let Some(id) = self.members.catalog.at(slot) else { return Ok(()) };
        if self.slot(id).feed.local_name().is_some_and(|before| before != name) {
            self.rename_feed(id, name);
        }
        Ok(())
    }

    /// The last folder that JS would take for a feed's, and the key in it.
    pub(in crate::multifeed) fn last_folder(&mut self) -> Result<Option<(Slot, FeedKey)>, StoreError> {
        let slots = self.cores.storage.list().map_err(|error| StoreError::from_store("list", error))?;
        for slot in slots.into_iter().rev() {
            match self.cores.key_in(slot) {
                Ok(Some(key)) => return Ok(Some((slot, key))),
                // It cannot be used as one.
                Ok(None) | Err(StoreError::NotRegular { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Closes a feed's channel on every session, and says no more of it on any.
    pub(in crate::multifeed) fn leave_sessions(&mut self, id: FeedId) {
        self.leave_sessions_of(None, id);
        // If its turn did not come yet, it does not.
        self.leave_offers(&self.slot(id).feed.key());
    }

    /// Closes a feed's channel on the sessions of a set, or on all, and says no more of it there.
    pub(in crate::multifeed) fn leave_sessions_of(&mut self, set: Option<SetId>, id: FeedId) {
        self.note_leaving(set, id);
        for peer in self.slot(id).subscribers.clone() {
            if set.is_none() || self.set_of(peer) == set {
                self.renounce(peer, id);
            }
        }
        let key = self.slot(id).feed.key();
        let concerned = |session: &&mut PeerSession| set.is_none_or(|set| session.options.set == set);
        for session in self.sessions.values_mut().filter(concerned) {
            session.known.insert(u64::from(id.0));
            session.not_taken.forget(id);
            session.forget_left(id, &key);
            if session.matched.is_running() {
                session.matched.remove(id);
            } else {
                session.unmatch(id);
            }
        }
    }

    /// No session asks for a feed any more that was only offered.
    pub(in crate::multifeed) fn leave_offers(&mut self, key: &FeedKey) {
        let asked = self.members.catalog.offered(key).map(|id| (id, self.slot(id).subscribers.clone()));
        let (id, peers) = asked.unzip();
        for peer in peers.unwrap_or_default() {
            if let Some(id) = id {
                self.renounce(peer, id);
                self.ask_for_offers(peer);
            }
        }
        let waits = |(&peer, session): (&SessionId, &PeerSession)| session.offers.has(key).then_some(peer);
        for peer in self.sessions.iter().filter_map(waits).collect::<Vec<_>>() {
            if let Some(session) = self.sessions.get_mut(&peer) {
                session.refuse(*key, self.now);
            }
            self.end_if_through(peer);
            self.wake(peer);
        }
    }

    /// Closes a feed's channel, as the feed is not wanted any more.
    pub(in crate::multifeed) fn renounce(&mut self, peer: SessionId, id: FeedId) {
        if let Some(session) = self.sessions.get_mut(&peer)
            && let Some(token) = session.token(id)
        {
            session.renounce(token);
        }
        self.left_channel(peer, id);
    }

    /// Closes a feed's channel without a word, though the feed is wanted.
    pub(in crate::multifeed) fn leave_channel(&mut self, peer: SessionId, id: FeedId) {
        if let Some(session) = self.sessions.get_mut(&peer)
            && let Some(token) = session.token(id)
        {
            session.extend(Command::Close { token });
        }
        self.left_channel(peer, id);
    }

    fn left_channel(&mut self, peer: SessionId, id: FeedId) {
        let key = self.slot(id).feed.key();
        self.drop_peer(peer, id);
        if let Some(session) = self.sessions.get_mut(&peer) {
            // It is not missed.
            session.forget_left(id, &key);
        }
        self.end_if_through(peer);
        self.wake(peer);
    }

    pub(in crate::multifeed) fn forget_feed(&mut self, id: FeedId) {
        for want in self.waits.of(id) {
            self.end(want, WantEnd::Removed);
        }
        self.uncommitted.forget(id);
        self.cores.unsynced.remove(&id);
        self.waits.none_if_available(id);
        self.extensions.forget(id);
        let slot = &mut self.feeds[id.0 as usize];
        let (key, folder) = (slot.feed.key(), slot.feed.slot());
        let name = crate::multifeed::feed_name(&slot.feed);
        let others = slot.feed.local_name().filter(|_| slot.feed.writable()).map(str::to_owned);
        slot.feed = Feed::gone(key, name.clone());
        slot.removed = true;
        slot.dirty = false;
        slot.reserved = SparseBits::default();
        slot.unannounced = Vec::new();
        slot.sync_failure = None;
        self.members.catalog.remove(id, &key);
        self.members.sets.forget(id);
        self.members.catalog.forget_lost(folder);
        self.cores.report.forget(folder);
        // Of two writers with one name the other one has it now.
        let same = |other: &FeedId| {
            let feed = &self.slot(*other).feed;
            feed.writable() && feed.local_name() == others.as_deref()
        };
        if let Some(others) = &others
            && let Some(other) = self.feeds().find(same)
        {
            let feed = &self.slot(other).feed;
            self.members.catalog.insert(other, feed.key(), feed.slot(), Some(others));
        }
        // A list of feeds is nobody's business.
        if !self.members.banned.is_hidden(&key) {
            self.outbox.push(MultifeedEvent::Removed { id, key, name });
        }
    }
}
