//! What is known to be whole on the disk: a small file of ours beside the numbered folders.
//!
//! # What it says
//!
//! For each feed it has a [`Checkpoint`]: at some time, all of the feed was known to be in its files, with this length and this root. A remote
//! feed's checkpoint also has the blocks and nodes that were marked as held. For a feed that is written here, and with a
//! [`Durability`](crate::Durability) that fsyncs, *known* means fsynced before the checkpoint was written. A feed only grows, so a checkpoint
//! stays true whatever is appended after it: an old one costs time when the feed is opened, and nothing else. And one byte says whether the
//! store was closed since.
//!
//! A checkpoint is also sealed, with a checksum of each, if the newest signature was verified with the key, and the secret key matched the
//! public one. While the files still have these very bytes, and the roots and the key are those of the checkpoint, the signature need not be
//! verified anew when the feed is opened. That is most of what opening it costs. If anything differs, it is verified.
//!
//! A checkpoint of a remote feed is stamped when the store is closed: with what the storage says of the feed's files, which changes with them.
//! As long as the storage says the same, the bitfield is the one that the checkpoint has. Neither it nor the proof of the last block is read
//! anew, nor are the roots of a feed that is long. A feed that is long by its writer's word alone has those scattered over files of gigabytes.
//!
//! # Why that is enough
//!
//! If that byte says that the store was not closed, opening a feed checks what is marked beyond its checkpoint, block by block, against
//! hashes and signatures. So it does not matter which of the writes after the checkpoint reached the disk, nor in which order. A writer's feed
//! that is found shorter than its checkpoint is damaged, and is not touched.
//!
//! # Torn writes
//!
//! The file is a header and records that are only ever appended. Each record has a checksum over its number and its bytes, and what
//! follows a torn one is not read. One that no power cut leaves is damage, and reported. A record is appended only if the last one read or
//! written was whole. Else the file is replaced, as it is when it has grown far past what it says. What is overwritten in place are the byte that
//! says whether the store is in use, the note of damage and the number of folders then. These may be torn apart: an older number only makes more
//! folders count as new.
//!
//! # Removals
//!
//! A feed's removal is noted, and fsynced, before its first step, with the folder that will take the number. The next opening of the store
//! finishes what was begun. An entry about the folder that follows ends it.
//!
//! # Other hands
//!
//! JS knows nothing of the file. A checkpoint names its feed by the key and the history by its root, and is passed over if the
//! folder has another one. What JS appended or fetched lies beyond the checkpoint, as after a crash.

mod body;
mod checkpoint;
mod damage;
mod entry;
pub(crate) mod numbers;

use std::collections::BTreeMap;

use multifeed_proto::FeedKey;

use self::body::{Body, Stop};
use self::checkpoint::start;
pub(crate) use self::checkpoint::{Checkpoint, Removal, Stamp, VerifiedSignature, Writer, name};
use self::damage::{NOTE, is_damaged, is_torn_header};
use self::entry::{Reader, absent_at_most, encode, encode_gone, encode_removal};
use crate::error::StoreError;
use crate::limits::Limits;
use crate::storage::{FileId, FileKind, Slot, Storage};

/// What the file begins with: its version, whether it is open, and room.
const HEADER: usize = 32;
const MAGIC: &[u8; 20] = b"multifeed-journal 1\n";
/// The offset in the header of `o` or `c`, and a newline.
const STATE: u64 = MAGIC.len() as u64;
/// The offset in the header of the first number that no folder had when the store was opened, as u32 LE.
const NEW: usize = 24;
const OPEN: u8 = b'o';
const CLOSED: u8 = b'c';
/// In front of each record: its size, and the checksum.
const RECORD: usize = 4 + 8;
/// The file may be this much longer than twice what it says, in bytes, before it is written anew.
const SLACK: u64 = 64 << 10;
const FILE: FileId = FileId { slot: Slot(0), kind: FileKind::Journal };

/// The journal of one store.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    marks: BTreeMap<Slot, Checkpoint>,
    /// The one that is under way.
    removal: Option<Removal>,
    /// The folder that a writer had when the file was read, by what stands for the key.
    writers: BTreeMap<[u8; 8], Slot>,
    /// The folder that a feed had, in a store whose folders are known by their keys.
    slots: BTreeMap<[u8; 8], Slot>,
    /// Whether the file says that the store is in use.
    open: bool,
    /// Whether it said so when it was read: the store was not closed.
    unclean: bool,
    /// Whether the state in the header is fsynced.
    open_synced: bool,
    /// Folders from this number on were made after the store was opened, as far as the file says.
    first_new: u32,
    file: File,
    /// What is wrong with the file, or was.
    damage: Option<String>,
    /// Changes that are not in the file.
    pending: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum File {
    #[default]
    Absent,
    /// Whole up to `end`, the offset of record number `records`.
    Whole { end: u64, records: u64, size_when_new: u64 },
    /// Torn, or not ours: to be replaced.
    Torn,
    /// The disk does not give it: it is not replaced, as it may be whole.
    Unreadable,
}

impl Journal {
    /// Reads the file. One that cannot be made out, or passes a limit, is taken for that of a store that was not closed, with no checkpoints.
    pub(crate) fn read<S: Storage + ?Sized>(storage: &mut S, limits: &Limits) -> Result<Self, StoreError> {
        match Self::read_as_far(storage, limits)? {
            (_, Some(error)) => Err(error),
            (journal, None) => Ok(journal),
        }
    }

    /// As [`read`](Self::read). If the disk fails, returns what it gave of the file, and the error.
    pub(crate) fn read_as_far<S: Storage + ?Sized>(
        storage: &mut S,
        limits: &Limits,
    ) -> Result<(Self, Option<StoreError>), StoreError> {
        let failed = |error| StoreError::from_file(FILE, "read", error);
        let mut unreadable =
            Self { open: true, unclean: true, file: File::Torn, first_new: u32::MAX, ..Self::default() };
        let len = match storage.len(FILE).map_err(failed) {
            Err(error) if error.is_of_the_disk() || matches!(error, StoreError::NotRegular { .. }) => {
                unreadable.cannot_be_read(&error);
                return Ok((unreadable, Some(error)));
            }
            len => len?,
        };
        let Some(len) = len else { return Ok((Self::default(), None)) };
        let mut header = [0; HEADER];
        let count = match storage.read_at(FILE, 0, &mut header).map_err(failed) {
            Err(error) if error.is_of_the_disk() => {
                unreadable.cannot_be_read(&error);
                return Ok((unreadable, Some(error)));
            }
            count => count?,
        };
        if len > limits.journal_bytes || count < HEADER || !header.starts_with(MAGIC) {
            if len > limits.journal_bytes {
                unreadable.note_damage(format!("it has {len} bytes, and {} are read", limits.journal_bytes));
            } else if !is_torn_header(&header[..count]) {
                unreadable.note_damage("it does not begin as a journal does");
            }
            return Ok((unreadable, None));
        }
        let open = header[MAGIC.len()] != CLOSED;
        let first_new = header[NEW..].first_chunk().copied().map_or(u32::MAX, u32::from_le_bytes);
        let mut journal = Self { open, unclean: open, first_new, ..Self::default() };
        if header[NOTE] == 1 {
            journal.note_damage("it was damaged, and written anew");
        }
        let mut reader = Reader::new(absent_at_most(storage, len, limits)?);
        let (mut end, mut number) = (HEADER as u64, 0);
        let stopped = loop {
            let mut body = match Body::find(storage, end, len, number) {
                Ok(Some(body)) => body,
                Ok(None) => break is_damaged(storage, (end, len), number, limits).map(|is| is.then(|| changed(end))),
                Err(error) => break Err(error),
            };
            match reader.apply(&mut journal, &mut body) {
                Ok(()) => {}
                Err(Stop::Io(error)) => break Err(error),
                Err(Stop::Malformed) => break Ok(Some(changed(end))),
                Err(Stop::Absent) => {
                    unreadable.note_damage("it names more folders that are not there than are believed");
                    return Ok((unreadable, None));
                }
            }
            end = body.end();
            number += 1;
        };
        reader.finish(&mut journal);
        match stopped {
            Err(error) if error.is_unreadable() => {
                journal.cannot_be_read(&error);
                return Ok((journal, Some(error)));
            }
            stopped => stopped?.into_iter().for_each(|what| journal.note_damage(what)),
        }
        journal.file = if end == len {
            File::Whole { end: len, records: number, size_when_new: journal.size() }
        } else {
            File::Torn
        };
        Ok((journal, None))
    }

    /// Whether the store was in use when it was last left.
    pub(crate) fn is_unclean(&self) -> bool {
        self.unclean
    }

    /// Whether the file says that the store is in use.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// What is known of the feed in a folder.
    pub(crate) fn mark(&self, slot: Slot, key: &FeedKey) -> Option<&Checkpoint> {
        self.marks.get(&slot).filter(|mark| mark.is_of(key))
    }

    /// What is known of a feed that is written here, and may be in another folder than it was.
    pub(crate) fn mark_of_writer(&self, slot: Slot, key: &FeedKey) -> Option<&Checkpoint> {
        let before = || self.marks.get(self.writers.get(&name(key))?).filter(|mark| mark.is_of(key));
        self.mark(slot, key).or_else(before)
    }

    /// Has writers found by their keys, whatever folders they are in now.
    pub(crate) fn index_writers(&mut self) {
        self.writers = self.writers().map(|(slot, mark)| (mark.key, slot)).collect();
    }

    /// Returns what is known of a folder, if it is of another feed.
    pub(crate) fn mark_of_another(&self, slot: Slot, key: &FeedKey) -> Option<&Checkpoint> {
        self.marks.get(&slot).filter(|mark| !mark.is_of(key))
    }

    /// Whether a folder is known to be of a writer that a signer of the application's signs for.
    pub(crate) fn is_signed_elsewhere(&self, slot: Slot) -> bool {
        self.marks.get(&slot).is_some_and(Checkpoint::is_signed_elsewhere)
    }

    /// Whether a secret key in a folder is the one that was held against its public half before the store was closed.
    pub(crate) fn knows_secret(&self, slot: Slot, secret: &[u8; 64]) -> bool {
        let seal = self.marks.get(&slot).filter(|_| !self.unclean).and_then(|mark| mark.seal);
        seal.is_some_and(|seal| seal.secret == VerifiedSignature::checksum(secret))
    }

    /// Whether a folder was made after the store was opened that was not closed, and none of it was ever known to be on the disk.
    pub(crate) fn is_leftover(&self, slot: Slot) -> bool {
        let is_new = match self.marks.get(&slot) {
            None => slot.0 >= self.first_new,
            // It was noted because another feed had been there before.
            Some(mark) => mark.length == 0 && mark.pages.is_empty(),
        };
        self.unclean && is_new
    }

    /// Notes that what is in a folder without a key is somebody's, and not what a crash left of a feed that was made since.
    pub(crate) fn keep(&mut self, slot: Slot) {
        self.note(slot, Checkpoint::new(&FeedKey::new([0; 32]), 1, &[0; 32]));
    }

    /// Whether a folder made now has to be noted at once: its number does not tell when it was made, or something else is known of it.
    pub(crate) fn must_know(&self, slot: Slot) -> bool {
        slot.0 < self.first_new || self.has_mark(slot)
    }

    /// Says that the store is in use, before the first change; `sync` if that must outlive a power cut. No folder has `next_slot` or
    /// a greater number.
    pub(crate) fn begin<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        next_slot: u32,
        sync: bool,
    ) -> Result<(), StoreError> {
        if self.open && (self.open_synced || !sync) && self.file != File::Absent {
            return Ok(());
        }
        let was_open = std::mem::replace(&mut self.open, true);
        if !was_open {
            self.first_new = next_slot;
        }
        let begun = match self.file {
            File::Whole { .. } if was_open => Ok(()),
            File::Whole { .. } => write(storage, STATE, &self.header(OPEN)[MAGIC.len()..]),
            File::Absent if !sync => write(storage, 0, &self.header(OPEN)).map(|()| {
                self.file = File::Whole { end: HEADER as u64, records: 0, size_when_new: HEADER as u64 };
            }),
            File::Absent | File::Torn | File::Unreadable => {
                let written = self.rewrite(storage);
                if written.is_err() {
                    self.open = was_open;
                }
                return written;
            }
        };
        let begun = begun.and_then(|()| if sync { sync_file(storage) } else { Ok(()) });
        if begun.is_err() {
            self.open = was_open;
            self.file = File::Torn;
        }
        self.open_synced |= sync && begun.is_ok();
        begun
    }

    /// Notes what is known of a feed now. [`write`](Self::write) puts it into the file.
    pub(crate) fn note(&mut self, slot: Slot, mark: Checkpoint) {
        let old = self.marks.get(&slot).filter(|old| old.key == mark.key);
        if old == Some(&mark) {
            return;
        }
        encode(slot, &mark, old, &mut self.pending);
        self.marks.insert(slot, mark);
        // It would end the removal.
        if let Some(removal) = self.removal.filter(|removal| removal.slot == slot) {
            encode_removal(&removal, &mut self.pending);
        }
    }

    /// The removal that was begun and not ended.
    pub(crate) fn removal(&self) -> Option<Removal> {
        self.removal
    }

    /// Says, for good, that a feed is about to be removed. The file says before that the store is in use.
    pub(crate) fn begin_removal<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        removal: Removal,
    ) -> Result<(), StoreError> {
        if self.removal == Some(removal) {
            return Ok(());
        }
        let before = self.removal.replace(removal);
        encode_removal(&removal, &mut self.pending);
        let written = self.write(storage, true);
        if written.is_err() {
            // Nobody knows whether the file says it. If it can be written at all, it has to say that it was not begun.
            self.removal = before;
            let _ = self.rewrite(storage);
        }
        written
    }

    /// A feed's folder has another number now: what is known of the feed is known of it there.
    pub(crate) fn renumber(&mut self, from: Slot, to: Slot, key: &FeedKey) {
        if let Some(mark) = self.mark(from, key).cloned() {
            self.forget(from);
            self.note(to, mark);
        }
    }

    /// Says, for good, that the removal is done: nothing is known of the folder, unless it is of the feed that is `there` now. Of one of which
    /// nothing was known, nothing is.
    pub(crate) fn end_removal<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        there: Option<&FeedKey>,
    ) -> Result<(), StoreError> {
        let Some(removal) = self.removal.take() else { return Ok(()) };
        let known = there.and_then(|key| self.mark(removal.slot, key)).cloned();
        self.forget(removal.slot);
        if let Some(mark) = known {
            self.note(removal.slot, mark);
        }
        let written = self.write(storage, true);
        if written.is_err() {
            // It is ended once that is known to be written.
            self.removal = Some(removal);
        }
        written
    }

    /// What is known of feeds, by folder.
    pub(crate) fn marks(&self) -> impl Iterator<Item = (Slot, &Checkpoint)> {
        self.marks.iter().map(|(slot, mark)| (*slot, mark))
    }

    /// What is known of feeds that are written here, by folder.
    pub(crate) fn writers(&self) -> impl Iterator<Item = (Slot, &Checkpoint)> {
        self.marks().filter(|(_, mark)| mark.is_of_a_writer())
    }

    /// The name of the writer that is known of a folder.
    pub(crate) fn writer_name(&self, slot: Slot) -> Option<String> {
        self.marks.get(&slot)?.writer.as_ref()?.name.clone()
    }

    /// Says, for good, that a writer is about to have another name: it is taken from here if the folder has another one. Nothing is said of a feed
    /// of which no name is known.
    pub(crate) fn rename_writer<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        slot: Slot,
        key: &FeedKey,
        name: &str,
    ) -> Result<(), StoreError> {
        let Some(mut mark) = self.mark(slot, key).cloned() else { return Ok(()) };
        let Some(writer) = &mut mark.writer else { return Ok(()) };
        writer.name = Some(name.to_owned());
        self.note(slot, mark);
        self.write(storage, true)
    }

    /// Notes that nothing is known of a folder.
    pub(crate) fn forget(&mut self, slot: Slot) {
        self.marks.remove(&slot);
        encode_gone(slot, &mut self.pending);
    }

    /// Whether anything is known of a folder, whosever feed is in it.
    pub(crate) fn has_mark(&self, slot: Slot) -> bool {
        self.marks.contains_key(&slot)
    }

    /// Writes what was noted, and fsyncs it if that is asked for.
    pub(crate) fn write<S: Storage + ?Sized>(&mut self, storage: &mut S, sync: bool) -> Result<(), StoreError> {
        let File::Whole { end, records, size_when_new } = self.file else { return self.rewrite(storage) };
        if end > 2 * size_when_new + SLACK {
            return self.rewrite(storage);
        }
        if self.pending.is_empty() {
            return Ok(());
        }
        let body = std::mem::take(&mut self.pending);
        let record = record(records, &body);
        // Should this fail, nobody knows what of it is there.
        self.file = File::Torn;
        write(storage, end, &record)?;
        if sync {
            sync_file(storage)?;
        }
        self.file = File::Whole { end: end + record.len() as u64, records: records + 1, size_when_new };
        Ok(())
    }

    /// Says that the store was closed, after all that was noted.
    pub(crate) fn close<S: Storage + ?Sized>(&mut self, storage: &mut S, sync: bool) -> Result<(), StoreError> {
        self.open = false;
        if let File::Whole { .. } = self.file {
            self.write(storage, false)?;
            write(storage, STATE, &[CLOSED])?;
            if sync { sync_file(storage) } else { Ok(()) }
        } else {
            self.rewrite(storage)
        }
    }

    fn rewrite<S: Storage + ?Sized>(&mut self, storage: &mut S) -> Result<(), StoreError> {
        if let Some(error) = self.damage().filter(|_| self.file == File::Unreadable) {
            return Err(error);
        }
        let mut body = Vec::new();
        for (slot, mark) in &self.marks {
            encode(*slot, mark, None, &mut body);
        }
        if let Some(removal) = &self.removal {
            encode_removal(removal, &mut body);
        }
        let mut bytes = self.header(if self.open { OPEN } else { CLOSED }).to_vec();
        let records = u64::from(!body.is_empty());
        if !body.is_empty() {
            bytes.extend_from_slice(&record(0, &body));
        }
        self.pending.clear();
        self.file = File::Torn;
        storage.replace(FILE, &bytes).map_err(|error| StoreError::from_file(FILE, "write", error))?;
        let size = bytes.len() as u64;
        self.open_synced = self.open;
        self.file = File::Whole { end: size, records, size_when_new: size };
        Ok(())
    }

    fn header(&self, state: u8) -> [u8; HEADER] {
        let mut header = header(state, self.first_new);
        header[NOTE] = u8::from(self.damage.is_some());
        header
    }

    /// About the size of the file that says no more than what is known now.
    fn size(&self) -> u64 {
        let pages = |mark: &Checkpoint| mark.pages.size() as u64;
        let seal = |mark: &Checkpoint| if mark.seal.is_some() { 16 } else { 0 };
        let writer = |mark: &Checkpoint| mark.writer.as_ref().map_or(0, |writer| 6 + writer.encode().len() as u64);
        let stamp = |mark: &Checkpoint| mark.stamp.as_ref().map_or(0, |stamp| 9 + stamp.roots.len() as u64);
        let entry = |mark: &Checkpoint| 33 + seal(mark) + stamp(mark) + pages(mark) + writer(mark);
        (HEADER + RECORD) as u64 + self.marks.values().map(entry).sum::<u64>()
    }
}

fn header(state: u8, first_new: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..MAGIC.len()].copy_from_slice(MAGIC);
    header[MAGIC.len()] = state;
    header[MAGIC.len() + 1] = b'\n';
    header[NEW..NEW + 4].copy_from_slice(&first_new.to_le_bytes());
    header
}

fn changed(offset: u64) -> String {
    format!("its record at byte {offset} is not what was written")
}

fn record(number: u64, body: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(RECORD + body.len());
    record.extend_from_slice(&(body.len() as u32).to_le_bytes());
    record.extend_from_slice(&start(checksum(number).update(body).finalize().as_bytes()));
    record.extend_from_slice(body);
    record
}

/// BLAKE2b of eight bytes over the record's number and its body.
fn checksum(number: u64) -> blake2b_simd::State {
    let mut state = blake2b_simd::Params::new().hash_length(8).to_state();
    state.update(&number.to_le_bytes());
    state
}

fn write<S: Storage + ?Sized>(storage: &mut S, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
    storage.write_at(FILE, offset, bytes).map_err(|error| StoreError::from_file(FILE, "write", error))
}

fn sync_file<S: Storage + ?Sized>(storage: &mut S) -> Result<(), StoreError> {
    storage.sync(FILE).map_err(|error| StoreError::from_file(FILE, "sync", error))
}

#[cfg(test)]
mod tests {
    use super::entry::MAX_PAGE;
    use super::*;
    use crate::bitfield::Marks;
    use crate::storage::MemoryStorage;

    const MOST: u64 = 256 << 20;

    fn mark(key: u8, length: u64, pages: &[(u32, &[u8])]) -> Checkpoint {
        let mut mark = Checkpoint::new(&FeedKey::new([key; 32]), length, &[key ^ 1; 32]);
        mark.pages = Marks::new(pages.iter().map(|(page, bytes)| (*page, *bytes)));
        mark.synced = key.is_multiple_of(2);
        mark.writer_behind = key.is_multiple_of(5);
        mark.writer = key.is_multiple_of(4).then(|| {
            let name = key.is_multiple_of(8).then(|| "a writer".to_owned());
            Box::new(Writer { key: FeedKey::new([key; 32]), name })
        });
        mark.stamp =
            key.is_multiple_of(3).then(|| Stamp { files: [key; 8], roots: vec![key; usize::from(key) * 40].into() });
        mark.seal =
            key.is_multiple_of(3).then(|| VerifiedSignature { signature: [key; 8], secret: length.to_le_bytes() });
        mark
    }

    fn bytes(disk: &MemoryStorage) -> Vec<u8> {
        disk.contents(FILE).unwrap_or_default()
    }

    #[test]
    fn what_was_noted_is_read_again() {
        let mut disk = MemoryStorage::new();
        let mut journal = Journal::read(&mut disk, &Limits::default()).unwrap();
        assert!(!journal.is_unclean() && !journal.is_open());
        journal.begin(&mut disk, 0, false).unwrap();
        journal.note(Slot(3), mark(1, 10, &[(0, b"abc"), (7, b"x")]));
        journal.note(Slot(0), mark(2, 5, &[]));
        journal.write(&mut disk, true).unwrap();
        let size = bytes(&disk).len();
        journal.note(Slot(3), mark(1, 12, &[(0, b"abcd"), (8, b"y")]));
        journal.note(Slot(3), mark(1, 12, &[(0, b"abcd"), (8, b"y")]));
        journal.write(&mut disk, true).unwrap();
        // Only what changed: one entry, two pages and one that is gone.
        assert_eq!(bytes(&disk).len() - size, RECORD + 33 + 3 * 6 + 5);

        let read = Journal::read(&mut disk, &Limits::default()).unwrap();
        assert!(read.is_unclean());
        assert_eq!(read.marks, journal.marks);
        assert_eq!(read.file, File::Whole { end: bytes(&disk).len() as u64, records: 2, size_when_new: read.size() });
        assert!(read.mark(Slot(3), &FeedKey::new([1; 32])).is_some());
        assert_eq!(read.mark(Slot(3), &FeedKey::new([2; 32])), None);

        journal.note(Slot(3), mark(9, 1, &[]));
        journal.note(Slot(5), mark(8, 1, &[]));
        journal.note(Slot(5), mark(8, 2, &[]));
        journal.close(&mut disk, true).unwrap();
        let mut read = Journal::read(&mut disk, &Limits::default()).unwrap();
        assert!(!read.is_unclean());
        assert_eq!(read.marks, journal.marks);
        // And on in the same file.
        read.begin(&mut disk, 0, true).unwrap();
        assert!(Journal::read(&mut disk, &Limits::default()).unwrap().is_unclean());
        read.note(Slot(4), mark(4, 4, &[]));
        read.close(&mut disk, false).unwrap();
        let last = Journal::read(&mut disk, &Limits::default()).unwrap();
        assert_eq!(last.writer_name(Slot(5)).as_deref(), Some("a writer"));
        assert!(last.writers().map(|(slot, _)| slot).eq([Slot(3), Slot(4), Slot(5)]));
        assert!(!last.is_unclean() && last.marks.len() == 4 && last.has_mark(Slot(4)));
    }

    #[test]
    fn a_torn_record_ends_it_and_the_next_write_replaces_it() {
        let mut disk = MemoryStorage::new();
        let mut journal = Journal::default();
        journal.begin(&mut disk, 0, true).unwrap();
        journal.note(Slot(0), mark(1, 1, &[]));
        journal.write(&mut disk, true).unwrap();
        let whole = bytes(&disk).len();
        journal.note(Slot(0), mark(1, 2, &[]));
        journal.note(Slot(1), mark(2, 2, &[(0, &[5; 100])]));
        journal.write(&mut disk, true).unwrap();
        let full = bytes(&disk);
        for len in 0..full.len() {
            let mut torn = MemoryStorage::new();
            torn.write_at(FILE, 0, &full[..len]).unwrap();
            let mut read = Journal::read(&mut torn, &Limits::default()).unwrap();
            assert!(read.is_unclean());
            let expected = if len >= whole { 1 } else { 0 };
            assert_eq!(read.marks.len(), expected, "{len}");
            let torn_here = len != whole && len != HEADER;
            assert_eq!(read.file == File::Torn, torn_here, "{len}");
            read.note(Slot(5), mark(5, 5, &[]));
            read.write(&mut torn, true).unwrap();
            let again = Journal::read(&mut torn, &Limits::default()).unwrap();
            assert!(matches!(again.file, File::Whole { .. }));
            assert_eq!(again.marks, read.marks);
        }
        // And one with a flipped bit anywhere.
        for at in 0..full.len() * 8 {
            let mut bytes = full.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            let mut flipped = MemoryStorage::new();
            flipped.write_at(FILE, 0, &bytes).unwrap();
            let read = Journal::read(&mut flipped, &Limits::default()).unwrap();
            for (slot, mark) in &read.marks {
                let known = journal.marks.get(slot) == Some(mark) || (*slot == Slot(0) && mark.length == 1);
                assert!(known, "bit {at}: {mark:?}");
            }
        }
    }

    #[test]
    fn records_of_an_older_file_are_not_taken_for_new_ones() {
        // The second record was lost and the third was not; then another second one of the same size is written.
        let mut disk = MemoryStorage::new();
        let mut journal = Journal::default();
        journal.begin(&mut disk, 0, true).unwrap();
        for length in 1..=3 {
            journal.note(Slot(0), mark(1, length, &[]));
            journal.write(&mut disk, true).unwrap();
        }
        let size = RECORD + 33;
        disk.write_at(FILE, (HEADER + size) as u64, &vec![0; size]).unwrap();
        let mut read = Journal::read(&mut disk, &Limits::default()).unwrap();
        assert_eq!(read.marks[&Slot(0)].length, 1);
        read.note(Slot(0), mark(1, 9, &[]));
        read.write(&mut disk, true).unwrap();
        assert_eq!(Journal::read(&mut disk, &Limits::default()).unwrap().marks[&Slot(0)].length, 9);
    }

    #[test]
    fn of_a_feed_only_what_changed_is_written_again_and_of_another_feed_all() {
        let mut disk = MemoryStorage::new();
        let mut journal = Journal::default();
        journal.begin(&mut disk, 0, false).unwrap();
        for mark in [
            mark(1, 10, &[(0, &[7; 1000]), (7, b"x")]),
            mark(1, 12, &[(0, &[7; 1000]), (8, b"y")]),
            mark(2, 3, &[(9, b"z")]),
            mark(2, 0, &[]),
        ] {
            journal.note(Slot(3), mark.clone());
            journal.write(&mut disk, false).unwrap();
            assert_eq!(Journal::read(&mut disk, &Limits::default()).unwrap().marks[&Slot(3)], mark);
        }
        assert!(bytes(&disk).len() < 1500);
        assert!(!mark(1, 10, &[]).has_root(&[7; 32]) && mark(1, 10, &[]).has_root(&[0; 32]));
    }

    #[test]
    fn a_new_file_has_the_size_and_the_header_that_it_should() {
        let mut disk = MemoryStorage::new();
        let mut journal = Journal::default();
        journal.note(Slot(1), mark(1, 10, &[(0, b"abc"), (7, b"x")]));
        journal.note(Slot(2), mark(3, 10, &[]));
        journal.begin(&mut disk, 0x0102, true).unwrap();
        let written = bytes(&disk);
        assert_eq!(written[..HEADER], *b"multifeed-journal 1\no\n\0\0\x02\x01\0\0\0\0\0\0");
        // What is written anew, once it is worth that, is measured by this.
        assert_eq!(journal.size(), written.len() as u64);
        assert_eq!(Journal::read(&mut disk, &Limits::default()).unwrap().size(), written.len() as u64);
    }

    #[test]
    fn folders_that_were_made_since_are_told_from_those_that_were_there() {
        let mut disk = MemoryStorage::new();
        let mut journal = Journal::default();
        journal.begin(&mut disk, 5, false).unwrap();
        journal.note(Slot(6), mark(1, 10, &[]));
        journal.write(&mut disk, false).unwrap();
        // Made now: those before 5 are not known by their number, and 6 was another's.
        assert_eq!([4, 5, 6, 7].map(|slot| journal.must_know(Slot(slot))), [true, false, true, false]);
        assert_eq!([4, 5, 6, 7].map(|slot| journal.is_leftover(Slot(slot))), [false; 4]);
        let mut read = Journal::read(&mut disk, &Limits::default()).unwrap();
        assert_eq!([4, 5, 6, 7].map(|slot| read.is_leftover(Slot(slot))), [false, true, false, true]);
        assert!(read.is_open());
        // Of a store that is open already, the first number stays.
        read.begin(&mut disk, 9, true).unwrap();
        assert!(
            read.is_leftover(Slot(5)) && Journal::read(&mut disk, &Limits::default()).unwrap().is_leftover(Slot(5))
        );
        read.close(&mut disk, false).unwrap();
        let closed = Journal::read(&mut disk, &Limits::default()).unwrap();
        assert!(!closed.is_open() && !closed.is_leftover(Slot(5)));
        // Nothing counts as left over if the file cannot be made out.
        disk.replace(FILE, b"something else").unwrap();
        let torn = Journal::read(&mut disk, &Limits::default()).unwrap();
        assert!(torn.is_unclean() && torn.is_open() && !torn.is_leftover(Slot(5)));
    }

    #[test]
    fn a_page_that_no_feed_has_is_not_believed() {
        for (page, believed) in [(131_071, true), (131_072, false)] {
            let mut disk = MemoryStorage::new();
            let mut journal = Journal::default();
            journal.begin(&mut disk, 0, false).unwrap();
            journal.note(Slot(0), mark(1, 1 << 30, &[(page, b"x")]));
            journal.write(&mut disk, false).unwrap();
            assert_eq!(Journal::read(&mut disk, &Limits::default()).unwrap().has_mark(Slot(0)), believed);
        }
    }

    #[test]
    fn a_removal_stands_until_it_ends() {
        let mut disk = MemoryStorage::new();
        let mut journal = Journal::default();
        journal.begin(&mut disk, 3, true).unwrap();
        for slot in 0..3 {
            journal.note(Slot(slot), mark(slot as u8, 4, &[(0, &[slot as u8])]));
        }
        journal.write(&mut disk, true).unwrap();
        let key = |byte: u8| FeedKey::new([byte; 32]);
        let removal = Removal::new(Slot(0), &key(0), Some((Slot(2), key(2))));
        journal.begin_removal(&mut disk, removal).unwrap();
        for rewrite in [false, true] {
            if rewrite {
                journal.rewrite(&mut disk).unwrap();
            }
            let read = Journal::read(&mut disk, &Limits::default()).unwrap();
            assert_eq!((read.removal(), &read.marks), (Some(removal), &journal.marks));
        }
        // The folder took the number: until all is done, the removal stands, whatever is noted of either.
        journal.renumber(Slot(2), Slot(0), &key(2));
        journal.note(Slot(0), mark(2, 5, &[(0, &[2])]));
        journal.write(&mut disk, true).unwrap();
        let read = Journal::read(&mut disk, &Limits::default()).unwrap();
        assert_eq!((read.removal(), &read.marks), (Some(removal), &journal.marks));
        journal.end_removal(&mut disk, Some(&key(2))).unwrap();
        let read = Journal::read(&mut disk, &Limits::default()).unwrap();
        assert_eq!((read.removal(), &read.marks), (None, &journal.marks));
        assert_eq!(read.mark(Slot(0), &key(2)), Some(&mark(2, 5, &[(0, &[2])])));
        assert!(!read.has_mark(Slot(2)) && read.has_mark(Slot(1)));
        // The last folder's own; and one of which nothing was known.
        journal.begin_removal(&mut disk, Removal::new(Slot(1), &key(1), None)).unwrap();
        journal.end_removal(&mut disk, None).unwrap();
        journal.begin_removal(&mut disk, Removal::new(Slot(0), &key(2), Some((Slot(9), key(9))))).unwrap();
        journal.renumber(Slot(9), Slot(0), &key(9));
        journal.end_removal(&mut disk, Some(&key(9))).unwrap();
        let read = Journal::read(&mut disk, &Limits::default()).unwrap();
        assert_eq!((read.removal(), read.marks.len()), (None, 0));
    }

    #[test]
    fn it_grows_to_twice_what_it_says_before_it_is_written_anew() {
        let mut disk = MemoryStorage::new();
        let mut journal = Journal::default();
        journal.begin(&mut disk, 0, true).unwrap();
        let full = [7; MAX_PAGE];
        let pages: Vec<(u32, &[u8])> = (1..50).map(|page| (page, &full[..])).collect();
        journal.note(Slot(1), mark(2, 1, &pages));
        journal.rewrite(&mut disk).unwrap();
        let most_allowed = 2 * journal.size() + SLACK;
        let mut most = 0;
        for length in 1..10_000 {
            journal.note(Slot(0), mark(1, length, &[]));
            journal.write(&mut disk, true).unwrap();
            most = most.max(disk.len(FILE).unwrap().unwrap_or(0));
        }
        assert!(most > most_allowed - 100 && most < most_allowed + 100, "{most} of {most_allowed}");
    }

    #[test]
    fn a_file_that_is_far_too_long_is_taken_for_that_of_a_store_that_was_not_closed() {
        let mut disk = MemoryStorage::new();
        disk.write_at(FILE, 0, &header(CLOSED, 3)).unwrap();
        assert!(!Journal::read(&mut disk, &Limits::default()).unwrap().is_unclean());
        disk.truncate(FILE, MOST + 1).unwrap();
        assert!(Journal::read(&mut disk, &Limits::default()).unwrap().is_unclean());
    }

    /// A file of one record, as it may be forged.
    fn forged(body: &[u8]) -> MemoryStorage {
        let mut disk = MemoryStorage::new();
        disk.replace(FILE, &[&header(CLOSED, 0)[..], &record(0, body)].concat()).unwrap();
        disk
    }

    #[test]
    fn it_tells_of_no_more_folders_than_exist_and_a_bound() {
        let limits = Limits { journal_absent: 100, ..Limits::default() };
        let body = |slots: std::ops::Range<u32>| {
            let mut body = Vec::new();
            slots.for_each(|slot| encode(Slot(slot), &mark(1, 1, &[]), None, &mut body));
            body
        };
        for (there, marks, believed) in [(0, 100, true), (0, 101, false), (50, 150, true), (50, 151, false)] {
            let mut disk = forged(&body(0..marks));
            (0..there).for_each(|slot| disk.write_at(FileId::new(Slot(slot), FileKind::Key), 0, b"k").unwrap());
            let read = Journal::read(&mut disk, &limits).unwrap();
            assert_eq!(
                (read.marks.len(), read.is_unclean()),
                if believed { (marks as usize, false) } else { (0, true) }
            );
        }
        // A million of them cost what is read at once, and not what they would take.
        let mut disk = forged(&body(0..1_000_000));
        let memory = allocation_counter::measure(|| assert!(Journal::read(&mut disk, &limits).unwrap().is_unclean()));
        assert!(memory.bytes_max < 1 << 20, "{memory:?}");
    }

    #[test]
    fn small_changes_of_a_great_mark_are_taken_together() {
        let full = [0x55; MAX_PAGE];
        let pages: Vec<(u32, &[u8])> = (0..250).map(|page| (page, &full[..])).collect();
        let mut known = mark(1, 1, &pages);
        let mut body = Vec::new();
        encode(Slot(0), &known, None, &mut body);
        for length in 2..20_000u64 {
            let old = known.clone();
            let page = length as u32 % 250;
            known.length = length;
            known.pages = known.pages.merge([&page.to_le_bytes()[..], &[8, 0], &length.to_le_bytes()].concat());
            // Only the page that differs.
            let mut entry = Vec::new();
            encode(Slot(0), &known, Some(&old), &mut entry);
            assert_eq!(entry.len(), 33 + 6 + 8);
            body.append(&mut entry);
        }
        let mut disk = forged(&body);
        let memory = allocation_counter::measure(|| {
            let read = Journal::read(&mut disk, &Limits::default()).unwrap();
            assert_eq!(read.marks.values().collect::<Vec<_>>(), [&known]);
        });
        // Each by itself would copy the megabyte.
        assert!(memory.bytes_total < 200 << 20, "{memory:?}");
    }

    #[test]
    fn all_of_it_of_one_feed_takes_twice_its_size() {
        let full = [0x55; MAX_PAGE];
        let mut body = Vec::new();
        for page in (0..4096).rev() {
            encode(Slot(0), &mark(1, 1, &[(page, &full[..])]), Some(&mark(1, 1, &[])), &mut body);
        }
        let mut disk = forged(&body);
        let memory = allocation_counter::measure(|| {
            let read = Journal::read(&mut disk, &Limits::default()).unwrap();
            assert_eq!(read.marks[&Slot(0)].pages.iter().count(), 4096);
        });
        assert!(memory.bytes_max < (body.len() * 9 / 4) as u64, "{memory:?} of {}", body.len());
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let mut disk = MemoryStorage::new();
        let mut journal = Journal::default();
        journal.begin(&mut disk, 0, true).unwrap();
        let mut most = 0;
        for length in 1..5000 {
            journal.note(Slot(0), mark(1, length, &[(0, &length.to_le_bytes())]));
            journal.write(&mut disk, true).unwrap();
            most = most.max(bytes(&disk).len());
        }
        assert!(most as u64 <= SLACK + 1000, "{most}");
        assert_eq!(Journal::read(&mut disk, &Limits::default()).unwrap().marks[&Slot(0)].length, 4999);
    }
}
