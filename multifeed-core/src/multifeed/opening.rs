//! Opening a store: each folder for itself.

use std::collections::BTreeSet;
use std::time::Duration;

use super::disk::Disk;
use super::evidence::Evidence;
use super::extensions::Extensions;
use super::lru::InUse;
use super::members::banned::Blocked;
use super::members::catalog::Catalog;
use super::members::folder_numbers::NOBODY;
use super::members::rearranged::Rearranged;
use super::outbox::Outbox;
use super::sessions::progress::Traffic;
use super::sessions::ready::Sessions;
use super::waits::Waits;
use super::{ExposedKey, Multifeed, MultifeedEvent, Options};
use crate::cores::journal::{Checkpoint, Journal};
use crate::error::StoreError;
use crate::feed::local_name::is_key_name;
use crate::feed::{Feed, Recovered};
use crate::storage::{FileId, FileKind, Found, Slot, Storage, Unsupported};

impl<S: Storage> Multifeed<S> {
    /// Opens the feeds of a store, and repairs what a crash tore.
    ///
    /// A folder that can't be opened, or that another process has locked, is left as it is and told by [`problems`](Self::problems), as is a
    /// feed without the secret key that it had, and one that a stale `localname` gives a writer's name; the other feeds are not harmed.
    ///
    /// # Errors
    ///
    /// Where the store as a whole can't be read.
    pub fn open(mut storage: S, options: Options) -> Result<Self, StoreError> {
        let mut journal = Journal::read(&mut storage, options.limits.journal_bytes)?;
        journal.index_writers();
        let (blocked, damage) = Blocked::read(&mut storage, &options.limits)?;
        let evidence = Evidence::read(&mut storage, options.limits.conflicts);
        let mut zeros = options.limits.opening_zeros;
        let mut multifeed = Self {
            storage,
            limits: options.limits,
            durability: options.durability,
            journal,
            evidence: Evidence::default(),
            exposed: Vec::new(),
            rearranged: Vec::new(),
            feeds: Vec::new(),
            blocked,
            extensions: Extensions::default(),
            in_use: InUse::default(),
            catalog: Catalog::default(),
            sessions: Sessions::new(options.sparse, options.policy),
            traffic: Traffic::default(),
            dirty: Vec::new(),
            unwritten: Vec::new(),
            unsynced: BTreeSet::new(),
            next_sync: None,
            vacant: BTreeSet::new(),
            unannounced: Vec::new(),
            uncommitted_bytes: 0,
            problems: damage.into_iter().collect(),
            unopened: false,
            recovered: Vec::new(),
            next_check: None,
            waits: Waits::default(),
            outbox: Outbox::default(),
            disk: Disk::default(),
            now: Duration::ZERO,
        };
        match evidence {
            Ok(evidence) => multifeed.evidence = evidence,
            // The feeds are none the worse.
            Err(error) => multifeed.problems.push(error),
        }
        // What cannot be done now is to be done before the next feed is made or removed.
        let begun = multifeed.journal.removal();
        match multifeed.resume_removal() {
            Ok(()) => {
                // One that is nobody's only closes a gap.
                let removal = begun.filter(|removal| !removal.is_of(&NOBODY));
                multifeed.rearranged.extend(removal.map(|removal| Rearranged::Removed { slot: removal.slot }));
            }
            Err(error) => multifeed.problems.push(error),
        }
        let slots = multifeed.storage.list().map_err(|error| StoreError::from_store("list", error))?;
        let mut doubles = Vec::new();
        for slot in slots.into_iter().filter(|slot| *slot != Slot::NOWHERE) {
            multifeed.catalog.see(slot);
            match multifeed.open_folder(slot, &mut zeros, &mut doubles) {
                Err(error) if error.is_of_one_folder() => multifeed.leave_alone(slot, error),
                opened => opened?,
            }
        }
        multifeed.see_obstacles()?;
        multifeed.join_copies(doubles);
        multifeed.look_for_missing();
        if let Err(error) = multifeed.close_gaps() {
            multifeed.problems.push(error);
        }
        if let Err(error) = multifeed.part_names() {
            multifeed.problems.push(error);
        }
        let mut reported = BTreeSet::new();
        multifeed.problems.retain(|problem| reported.insert(problem.to_string()));
        multifeed.storage.opened();
        multifeed
            .recovered
            .iter()
            .cloned()
            .for_each(|recovered| multifeed.outbox.push(MultifeedEvent::Recovered(recovered)));
        Ok(multifeed)
    }

    /// The folders that could not be opened, and why. They were left as they are, and are told by the numbers that they have now: those without a
    /// key stand behind the feeds.
    pub fn problems(&self) -> &[StoreError] {
        &self.problems
    }

    /// What the disk turned out not to support, as far as it was tried.
    pub fn unsupported(&self) -> Unsupported {
        self.storage.unsupported()
    }

    /// Closes most files that are open and not in use, and returns how many: see [`Storage::close_idle_files`].
    pub fn close_idle_files(&mut self) -> usize {
        self.storage.close_idle_files()
    }

    /// What opening had to cut from feeds that a crash tore.
    pub fn recovered(&self) -> &[Recovered] {
        &self.recovered
    }

    /// What was changed of folders, by opening the store or since: removals that were cut short before, and folders that hold no feed and had
    /// to give their numbers to feeds.
    pub fn rearranged(&self) -> &[Rearranged] {
        &self.rearranged
    }

    /// The secret keys that others than the owner of their file may read or change, by its permissions on unix.
    pub fn exposed_keys(&self) -> &[ExposedKey] {
        &self.exposed
    }

    /// Reports what has a folder's number and is none. No feed is put in its place.
    fn see_obstacles(&mut self) -> Result<(), StoreError> {
        let slots = self.storage.obstacles().map_err(|error| StoreError::from_store("list", error))?;
        for slot in slots.into_iter().filter(|slot| *slot != Slot::NOWHERE) {
            let Err(error) = self.storage.len(FileId::new(slot, FileKind::Key)) else { continue };
            match StoreError::from_slot(slot, "open", error) {
                // A feed may be behind it.
                error @ StoreError::NotRegular { found: Found::Link, .. } => self.leave_alone(slot, error),
                error => {
                    self.catalog.occupy(slot);
                    self.problems.push(error);
                }
            }
        }
        Ok(())
    }

    /// Opens the feed of a folder; one whose files are not what they must be is told. One whose feed was opened in another folder goes to
    /// `doubles`.
    fn open_folder(&mut self, slot: Slot, zeros: &mut u64, doubles: &mut Vec<Feed>) -> Result<(), StoreError> {
        if self.is_going(slot)? {
            self.catalog.occupy(slot);
            return Ok(());
        }
        match Feed::open_known(&mut self.storage, slot, &self.journal, zeros) {
            Ok(feed) if self.catalog.find(&feed.key()).is_some() => {
                self.catalog.occupy(slot);
                doubles.push(feed);
            }
            Ok(feed) => {
                self.catalog.occupy(slot);
                self.recovered.extend(feed.recovered().cloned());
                self.look_for_its_writer(&feed);
                self.look_at_permissions(&feed)?;
                let id = self.insert(feed);
                self.index(id);
                self.adopt(id);
            }
            Err(
                error @ (StoreError::Locked { .. }
                | StoreError::Io { .. }
                | StoreError::Full { .. }
                | StoreError::NotRegular { .. }),
            ) => return Err(error),
            Err(error) => {
                let keyless = matches!(error, StoreError::Damaged { file: FileKind::Key, .. });
                if keyless && self.is_leftover(slot)? && Feed::is_remnant(&mut self.storage, slot)? {
                    let removed = self.storage.remove(slot);
                    removed.map_err(|error| StoreError::from_slot(slot, "clear", error))?;
                } else if !(keyless && Feed::is_vacant(&mut self.storage, slot)?) {
                    if !keyless {
                        self.catalog.occupy(slot);
                    }
                    self.lose_writer_in(slot, &error);
                    self.problems.push(error);
                }
            }
        }
        Ok(())
    }

    pub(super) fn look_at_permissions(&mut self, feed: &Feed) -> Result<(), StoreError> {
        let file = FileId::new(feed.slot(), FileKind::SecretKey);
        if feed.writable() {
            let mode = self.storage.permissions(file).map_err(|error| StoreError::from_file(file, "look at", error))?;
            let exposed = mode.filter(|mode| mode & 0o077 != 0);
            self.exposed.extend(exposed.map(|mode| ExposedKey { key: feed.key(), slot: feed.slot(), mode }));
        }
        Ok(())
    }

    /// A folder that cannot be read now, or repaired, is left to itself. It may hold a key.
    fn leave_alone(&mut self, slot: Slot, error: StoreError) {
        self.unopened = true;
        self.catalog.occupy(slot);
        self.lose_writer_in(slot, &error);
        self.problems.push(error);
    }

    /// The writer in a folder cannot be used: nobody else is given its name.
    pub(super) fn lose_writer_in(&mut self, slot: Slot, why: &StoreError) {
        let name = Feed::name_in(&mut self.storage, slot);
        match (name, self.journal.writer_name(slot)) {
            (Ok(Some(name)), _) | (_, Some(name)) => self.catalog.lose_writer(name, why.clone()),
            (Ok(None), None) => {}
            (Err(_), None) => self.catalog.lose_name(why.clone()),
        }
    }

    /// Tells of a feed that was written here and cannot be any more, and of one that has the name of a writer and never was. Neither name is
    /// for a new writer.
    fn look_for_its_writer(&mut self, feed: &Feed) {
        if feed.writable() {
            return;
        }
        let slot = feed.slot();
        let name = match Feed::name_in(&mut self.storage, slot) {
            Ok(name) => name.filter(|name| !is_key_name(name, &feed.key())),
            Err(error) => {
                self.catalog.lose_name(error.clone());
                self.problems.push(error);
                None
            }
        };
        let was_ours = self.journal.mark(slot, &feed.key()).is_some_and(Checkpoint::is_of_a_writer);
        let (file, why) = match was_ours {
            true => (FileKind::SecretKey, "it is missing: the feed can be read, and nothing can be appended to it"),
            false if name.is_none() => return,
            false => (
                FileKind::LocalName,
                "it names a writer, and there is no secret key: that is lost, or the name was left there by another feed",
            ),
        };
        let error = StoreError::damaged(slot, file, why);
        if let Some(name) = name {
            self.catalog.lose_writer(name, error.clone());
        }
        self.problems.push(error);
    }
}
