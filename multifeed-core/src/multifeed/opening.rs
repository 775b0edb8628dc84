//! Opening a store: each folder for itself.

use std::collections::BTreeSet;
use std::time::Duration;

use super::extensions::Extensions;
use super::lru::InUse;
use super::members::Members;
use super::members::banned::Banned;
use super::members::cores::unnamed;
use super::members::folder_numbers::NOBODY;
use super::members::rearranged::Rearranged;
use super::members::removed::Removed;
use super::outbox::Outbox;
use super::sessions::progress::Traffic;
use super::sessions::ready::Sessions;
use super::steps::Steps;
use super::uncommitted::Uncommitted;
use super::waits::Waits;
use super::{Multifeed, MultifeedEvent, Options};
use crate::cores::Cores;
use crate::cores::journal::Checkpoint;
use crate::cores::report::ExposedKey;
use crate::error::StoreError;
use crate::feed::local_name::is_key_name;
use crate::feed::{Feed, Opening, Recovered};
use crate::ids::StoreNumber;
use crate::log::log;
use crate::storage::{FileId, FileKind, Found, Slot, Storage, Unsupported};

impl<S: Storage> Multifeed<S> {
    /// Opens the feeds of a store, and repairs what a crash tore.
    ///
    /// A folder that can't be opened, or that another process has locked, is left as it is and reported by [`problems`](Self::problems). So is a
    /// feed without the secret key that it had, and one that a stale `localname` gives a writer's name. The other feeds are not harmed.
    ///
    /// # Errors
    ///
    /// If the store as a whole can't be read.
    pub fn open(storage: S, options: Options) -> Result<Self, StoreError> {
        let mut cores = Cores::open(storage, &options.limits, options.durability, options.signers)?;
        let (banned, damage) = Banned::read(&mut cores.storage, &options.limits)?;
        cores.report.problems.extend(damage);
        let (removed, damage) = match cores.storage.is_numbered() {
            true => Default::default(),
            false => Removed::read(&mut cores.storage, &options.limits)?,
        };
        cores.report.problems.extend(damage);
        let journal_damage = cores.journal.damage();
        let mut opening = Opening::new(&options.limits, &cores.signers);
        let mut multifeed = Self {
            number: StoreNumber::next(),
            limits: options.limits,
            cores,
            members: Members { banned, removed, ..Members::default() },
            feeds: Vec::new(),
            in_use: InUse::default(),
            uncommitted: Uncommitted::default(),
            sessions: Sessions::new(options.sparse, options.policy),
            steps: Steps::default(),
            extensions: Extensions::default(),
            traffic: Traffic::default(),
            waits: Waits::default(),
            outbox: Outbox::default(),
            next_check: None,
            now: Duration::ZERO,
        };
        if !multifeed.cores.storage.is_numbered() {
            // Each multifeed of a corestore is opened by its root key.
            multifeed.keep_numbers();
            multifeed.finish_removals();
            return Ok(multifeed);
        }
        if let Some(error) = journal_damage {
            multifeed.members.catalog.lose_name(error);
        }
        // What cannot be done now must be done before the next feed is made or removed.
        // One that is nobody's only closes a gap, and one of what is none of ours removes nothing.
        let begun = multifeed.cores.journal.removal().filter(|removal| !removal.is_of(&NOBODY));
        let begun = begun.filter(|removal| !multifeed.is_kept(removal).unwrap_or(false));
        match multifeed.resume_removal() {
            Ok(()) => {
                let removal = begun;
                multifeed.members.rearranged.extend(removal.map(|removal| Rearranged::Removed { slot: removal.slot }));
            }
            Err(error) => multifeed.cores.report.add_of_order(error),
        }
        let slots = multifeed.cores.storage.list().map_err(|error| StoreError::from_store("list", error))?;
        let mut doubles = Vec::new();
        for slot in slots.into_iter().filter(|slot| *slot != Slot::NOWHERE) {
            multifeed.members.catalog.see(slot);
            match multifeed.open_folder(slot, &mut opening, &mut doubles) {
                Err(error) if error.is_of_one_folder() => multifeed.leave_alone(slot, error),
                opened => opened?,
            }
        }
        multifeed.see_obstacles()?;
        multifeed.join_copies(doubles);
        multifeed.look_for_missing();
        multifeed.look_for_gone();
        let feeds = multifeed.feeds().collect::<Vec<_>>();
        let older = feeds.into_iter().filter_map(|id| multifeed.slot(id).feed.older_copy());
        let older: Vec<_> = older.collect();
        multifeed.cores.report.problems.extend(older);
        for put_in_order in [Self::close_gaps, Self::part_names] {
            if let Err(error) = put_in_order(&mut multifeed) {
                multifeed.cores.report.add_of_order(error);
            }
        }
        let mut reported = BTreeSet::new();
        multifeed.cores.report.problems.retain(|problem| reported.insert(problem.to_string()));
        multifeed.cores.storage.opened();
        for problem in &multifeed.cores.report.problems {
            log!(DEBUG, "store", "a problem", error = %problem);
        }
        log!(DEBUG, "store", "opened", feeds = ?multifeed.feeds().count(), recovered = ?multifeed.cores.report.recovered.len());
        let recovered = multifeed.cores.report.recovered.iter().cloned();
        recovered.for_each(|recovered| multifeed.outbox.push(MultifeedEvent::Recovered(recovered)));
        Ok(multifeed)
    }

    /// Returns the folders that could not be opened, and why. They were left as they are, and are reported by the numbers that they have now:
    /// those without a key stand behind the feeds.
    pub fn problems(&self) -> &[StoreError] {
        &self.cores.report.problems
    }

    /// Returns what the disk turned out not to support, as far as it was tried.
    pub fn unsupported(&self) -> Unsupported {
        self.cores.storage.unsupported()
    }

    /// Closes most files that are open and not in use, and returns how many: see [`Storage::close_idle_files`].
    pub fn close_idle_files(&mut self) -> usize {
        self.cores.storage.close_idle_files()
    }

    /// Returns what opening had to cut from feeds that a crash tore.
    pub fn recovered(&self) -> &[Recovered] {
        &self.cores.report.recovered
    }

    /// Returns what was changed of folders, by opening the store or since: removals that were cut short before, and folders that hold no feed and had
    /// to give their numbers to feeds.
    pub fn rearranged(&self) -> &[Rearranged] {
        &self.members.rearranged
    }

    /// Returns the secret keys that others than the owner of their file may read or change, by its permissions on unix.
    pub fn exposed_keys(&self) -> &[ExposedKey] {
        &self.cores.report.exposed
    }

    /// Reports what has a folder's number and is none. No feed is put in its place.
    fn see_obstacles(&mut self) -> Result<(), StoreError> {
        let slots = self.cores.storage.obstacles().map_err(|error| StoreError::from_store("list", error))?;
        for slot in slots.into_iter().filter(|slot| *slot != Slot::NOWHERE) {
            let Err(error) = self.cores.storage.len(FileId::new(slot, FileKind::Key)) else { continue };
            match StoreError::from_slot(slot, "open", error) {
                error @ StoreError::NotRegular { found, .. } if !matches!(found, Found::Link | Found::DanglingLink) => {
                    self.members.catalog.occupy(slot);
                    self.cores.report.problems.push(error);
                }
                // A feed may be behind it.
                error => self.leave_alone(slot, error),
            }
        }
        Ok(())
    }

    /// Opens the feed of a folder; one whose files are not what they must be is reported. One whose feed was opened in another folder goes to
    /// `doubles`.
    pub(super) fn open_folder(
        &mut self,
        slot: Slot,
        opening: &mut Opening,
        doubles: &mut Vec<Feed>,
    ) -> Result<(), StoreError> {
        if self.is_going(slot)? {
            self.members.catalog.occupy(slot);
            return Ok(());
        }
        (opening.renamed, opening.unread) = (false, Vec::new());
        let opened = Feed::open_known(&mut self.cores.storage, slot, &self.cores.journal, opening);
        if let Ok(feed) = &opened {
            self.note_unread(feed, &opening.unread);
            self.members.rearranged.extend(opening.renamed.then_some(Rearranged::NamedByKey { slot }));
        }
        match opened {
            Ok(feed) if self.members.catalog.find(&feed.key()).is_some() => {
                self.members.catalog.occupy(slot);
                doubles.push(feed);
            }
            Ok(feed) => {
                self.members.catalog.occupy(slot);
                self.cores.report.recovered.extend(feed.recovered().cloned());
                if !opening.unread.iter().any(StoreError::is_of_a_writer) {
                    self.look_for_its_writer(&feed);
                }
                self.cores.look_at_permissions(&feed)?;
                let id = self.insert(feed);
                self.index(id);
                self.adopt(id);
                self.note_repaired(id);
            }
            Err(
                error @ (StoreError::Locked { .. }
                | StoreError::Io { .. }
                | StoreError::Full { .. }
                | StoreError::NotRegular { .. }
                | StoreError::Signer { .. }
                | StoreError::NoSigner { .. }),
            ) => return Err(error),
            Err(error) => {
                let keyless = matches!(error, StoreError::Damaged { file: FileKind::Key, .. });
                if keyless && self.cores.is_leftover(slot)? && Feed::is_remnant(&mut self.cores.storage, slot)? {
                    let removed = self.cores.storage.remove(slot);
                    removed.map_err(|error| StoreError::from_slot(slot, "clear", error))?;
                } else if !(keyless && Feed::is_vacant(&mut self.cores.storage, slot)?) {
                    if !keyless {
                        self.members.catalog.occupy(slot);
                    }
                    self.lose_writer_in(slot, &error);
                    self.cores.report.problems.push(error);
                }
            }
        }
        Ok(())
    }

    /// Reports what of a feed's files the disk does not give, or is damaged. Without its `secret_key` or `localname` nobody else is given the
    /// name. What a crash left is repaired once the key is there again.
    fn note_unread(&mut self, feed: &Feed, unread: &[StoreError]) {
        for error in unread {
            self.cores.report.unopened |= !feed.writable() && error.is_of_a_writer();
            if error.is_of_a_writer() && (!feed.writable() || feed.local_name().is_none()) {
                self.lose_writer_in(feed.slot(), error);
            }
            self.cores.report.problems.push(error.clone());
        }
    }

    /// A folder that cannot be read now, or repaired, is left to itself. It may hold a key.
    fn leave_alone(&mut self, slot: Slot, error: StoreError) {
        self.cores.report.unopened = true;
        self.members.catalog.occupy(slot);
        self.lose_writer_in(slot, &error);
        self.cores.report.problems.push(error);
    }

    /// The writer in a folder cannot be used: nobody else is given its name.
    pub(super) fn lose_writer_in(&mut self, slot: Slot, why: &StoreError) {
        let name = Feed::name_in(&mut self.cores.storage, slot);
        let known = self.cores.journal.writer_name(slot);
        if name.is_err() && known.is_none() {
            self.members.catalog.lose_name(why.clone());
        }
        // One of them may be damaged.
        for name in name.ok().flatten().into_iter().chain(known) {
            self.members.catalog.lose_writer(name, why.clone());
        }
    }

    /// Tells of a feed that was written here and cannot be any more, and of one that has the name of a writer and never was. Neither name is
    /// for a new writer.
    fn look_for_its_writer(&mut self, feed: &Feed) {
        if feed.writable() {
            return;
        }
        let slot = feed.slot();
        let name = match Feed::name_in(&mut self.cores.storage, slot) {
            Ok(name) => name.filter(|name| !is_key_name(name, &feed.key())),
            Err(error) => {
                self.members.catalog.lose_name(error.clone());
                self.cores.report.problems.push(error);
                None
            }
        };
        let was_ours = self.cores.journal.mark(slot, &feed.key()).is_some_and(Checkpoint::is_of_a_writer);
        let error = match was_ours {
            true if !self.cores.storage.is_numbered() => unnamed(slot, true),
            true => StoreError::damaged(
                slot,
                FileKind::SecretKey,
                "it is missing: the feed can be read, and nothing can be appended to it",
            ),
            false if name.is_none() => return,
            false => StoreError::damaged(
                slot,
                FileKind::LocalName,
                "it names a writer, and there is no secret key: that is lost, or the name was left there by another feed",
            ),
        };
        // One of them may be damaged.
        for name in name.into_iter().chain(self.cores.journal.writer_name(slot).filter(|_| was_ours)) {
            self.members.catalog.lose_writer(name, error.clone());
        }
        self.cores.report.problems.push(error);
    }
}
