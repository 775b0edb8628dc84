//! What was done to a storage, and what is left of it after a kill or a power cut at any moment.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use multifeed_core::{FileId, FileKind, MemoryStorage, Slot, Storage};

use crate::random::Random;

/// One step of a [`Record`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Bytes at an offset.
    Write {
        /// The file.
        file: FileId,
        /// The offset.
        offset: u64,
        /// The bytes.
        data: Vec<u8>,
    },
    /// A hole.
    Punch {
        /// The file.
        file: FileId,
        /// The bytes that are gone.
        range: Range<u64>,
    },
    /// A new length.
    Truncate {
        /// The file.
        file: FileId,
        /// Its length.
        len: u64,
    },
    /// All of a file at once.
    Replace {
        /// The file.
        file: FileId,
        /// Its new contents.
        data: Vec<u8>,
    },
    /// A folder less.
    Remove {
        /// The folder.
        slot: Slot,
    },
    /// A folder has another number.
    Rename {
        /// The old one.
        from: Slot,
        /// The new one.
        to: Slot,
    },
    /// All earlier steps on the file are on the disk now.
    Sync {
        /// The file.
        file: FileId,
    },
}

/// Every change and sync of a storage, in order: from it, what a disk holds after a crash at any moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record(Vec<Change>);

impl Record {
    pub(super) fn push(&mut self, change: Change) {
        self.0.push(change);
    }

    /// The steps.
    pub fn changes(&self) -> &[Change] {
        &self.0
    }

    /// The moments to crash at: before each step, and after the last.
    pub fn moments(&self) -> std::ops::RangeInclusive<usize> {
        0..=self.0.len()
    }

    /// What the disk holds after a kill at one moment after the other. `base` is what it held when the recording began.
    pub fn replay(&self, base: &MemoryStorage) -> Replay<'_> {
        Replay { record: self, disk: reopened(base), at: 0 }
    }

    /// What is on the disk after the process died before the step `at`, see [`Replay::after_crash`].
    ///
    /// # Errors
    ///
    /// The storage's own.
    pub fn after_crash(&self, base: &MemoryStorage, at: usize, torn: usize) -> io::Result<MemoryStorage> {
        self.replay(base).after_crash(at, torn)
    }

    /// What is on the disk after the power went before the step `at`: every earlier step that a sync of its file
    /// followed in time; of the others, some, whole or torn, whichever `seed` picks. A write is torn at its end, or by the sector:
    /// some of its 512 bytes are there and others not. A replacement is there, as its call returned, and so are a removal and a renaming; of
    /// a removal at `at` itself some files may be gone, as [`Storage::remove`] says.
    ///
    /// # Errors
    ///
    /// The storage's own.
    pub fn after_power_cut(&self, base: &MemoryStorage, at: usize, seed: u64) -> io::Result<MemoryStorage> {
        let done = &self.0[..at.min(self.0.len())];
        // A file that is synced may have had its folder renamed since it was written.
        let mut folders = Folders::default();
        let files: Vec<Option<(u32, FileKind)>> = done.iter().map(|change| folders.file_of(change)).collect();
        let mut secured: BTreeMap<(u32, FileKind), usize> = BTreeMap::new();
        for (index, (change, file)) in done.iter().zip(&files).enumerate() {
            if let (Change::Sync { .. } | Change::Replace { .. }, Some(file)) = (change, file) {
                secured.insert(*file, index);
            }
        }
        let mut random = Random::new(seed);
        // From one step in five that is lost, to four in five.
        let odds = random.between(1, 4);
        let mut disk = reopened(base);
        for (index, change) in done.iter().enumerate() {
            let file = files.get(index).copied().flatten();
            let synced = file.is_none_or(|file| secured.get(&file).is_some_and(|last| *last >= index));
            let lost = random.between(0, 4) < odds;
            let torn = random.between(0, 7);
            let keep = random.number();
            if synced {
                apply(&mut disk, change, usize::MAX)?;
            } else if !lost {
                match change {
                    Change::Write { file, offset, data } if torn == 0 => {
                        apply_sectors(&mut disk, *file, *offset, data, keep)?
                    }
                    _ if torn == 1 => {
                        let most = usize::try_from(keep % (change.len() + 1)).unwrap_or(0);
                        apply(&mut disk, change, most)?;
                    }
                    _ => apply(&mut disk, change, usize::MAX)?,
                }
            }
        }
        if let Some(Change::Remove { slot }) = self.0.get(at) {
            let keep = random.number();
            let mut lost: Vec<FileKind> = FileKind::ALL
                .into_iter()
                .enumerate()
                .filter(|(bit, _)| keep >> bit & 1 == 0)
                .map(|(_, kind)| kind)
                .collect();
            // Any of them may be gone, but `data` is for good before another one but `localname` goes.
            if lost.iter().any(|kind| !matches!(kind, FileKind::Data | FileKind::LocalName)) {
                lost.push(FileKind::Data);
            }
            lost.into_iter().for_each(|kind| disk.lose(FileId::new(*slot, kind)));
        }
        Ok(disk)
    }
}

/// Which folder each number stood for, in the course of a record.
#[derive(Default)]
struct Folders {
    numbers: BTreeMap<Slot, u32>,
    next: u32,
}

impl Folders {
    /// The file that a step is about, however its folder is called then. None for what is on the disk in any case.
    fn file_of(&mut self, change: &Change) -> Option<(u32, FileKind)> {
        match change {
            Change::Remove { slot } => {
                self.numbers.remove(slot);
                None
            }
            Change::Rename { from, to } => {
                let number = self.number(*from);
                self.numbers.remove(from);
                self.numbers.insert(*to, number);
                None
            }
            Change::Write { file, .. }
            | Change::Punch { file, .. }
            | Change::Truncate { file, .. }
            | Change::Replace { file, .. }
            | Change::Sync { file } => {
                let number = if file.kind.is_beside() { u32::MAX } else { self.number(file.slot) };
                Some((number, file.kind))
            }
        }
    }

    fn number(&mut self, slot: Slot) -> u32 {
        let Self { numbers, next } = self;
        *numbers.entry(slot).or_insert_with(|| {
            *next += 1;
            *next
        })
    }
}

/// The steps of a [`Record`], applied to a disk as far as it was asked for.
#[derive(Clone, Debug)]
pub struct Replay<'a> {
    record: &'a Record,
    disk: MemoryStorage,
    at: usize,
}

impl Replay<'_> {
    /// What is on the disk after the process died before the step `at`: all earlier steps, in order, and of a write at
    /// `at` its first `torn` bytes. No moment before the last one that was asked for: it does not go back.
    ///
    /// # Errors
    ///
    /// The storage's own, or that it was to go back.
    pub fn after_crash(&mut self, at: usize, torn: usize) -> io::Result<MemoryStorage> {
        let at = at.min(self.record.0.len());
        let Some(steps) = self.record.0.get(self.at..at) else {
            return Err(io::Error::other("a replay does not go back"));
        };
        for change in steps {
            apply(&mut self.disk, change, usize::MAX)?;
        }
        self.at = at;
        let mut disk = self.disk.clone();
        match self.record.0.get(at) {
            Some(write @ (Change::Write { .. } | Change::Punch { .. })) => apply(&mut disk, write, torn)?,
            Some(Change::Remove { slot }) => {
                let lost = FileKind::ALL.into_iter().rev().take(torn % (FileKind::ALL.len() + 1));
                lost.for_each(|kind| disk.lose(FileId::new(*slot, kind)));
            }
            _ => {}
        }
        Ok(disk)
    }
}

/// Applies those sectors of a write whose bits are set in `keep`, in turn.
fn apply_sectors(disk: &mut MemoryStorage, file: FileId, offset: u64, data: &[u8], keep: u64) -> io::Result<()> {
    const SECTOR: u64 = 512;
    let mut at = offset;
    let mut rest = data;
    while !rest.is_empty() {
        let count = usize::try_from(SECTOR - at % SECTOR).unwrap_or(rest.len()).min(rest.len());
        let (sector, after) = rest.split_at(count);
        if keep >> (at / SECTOR % 64) & 1 == 1 {
            disk.write_at(file, at, sector)?;
        }
        at += count as u64;
        rest = after;
    }
    Ok(())
}

impl Change {
    /// Bytes of a write or a hole; other steps happen or do not.
    fn len(&self) -> u64 {
        match self {
            Change::Write { data, .. } => data.len() as u64,
            Change::Punch { range, .. } => range.end - range.start,
            _ => 0,
        }
    }
}

/// Applies one step, of a write or a hole only its first bytes.
fn apply(disk: &mut MemoryStorage, change: &Change, most: usize) -> io::Result<()> {
    match change {
        Change::Write { file, offset, data } => match &data[..most.min(data.len())] {
            [] if !data.is_empty() => Ok(()),
            data => disk.write_at(*file, *offset, data),
        },
        Change::Punch { file, range } => {
            let end = range.start.saturating_add(most as u64).min(range.end);
            disk.punch(*file, range.start..end)
        }
        Change::Truncate { file, len } => disk.truncate(*file, *len),
        Change::Replace { file, data } => disk.replace(*file, data),
        Change::Remove { slot } => disk.remove(*slot),
        Change::Rename { from, to } => match disk.rename(*from, *to) {
            // All that was in it is lost.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            renamed => renamed,
        },
        Change::Sync { .. } => Ok(()),
    }
}

fn reopened(base: &MemoryStorage) -> MemoryStorage {
    let mut disk = base.clone();
    disk.reopen();
    disk
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::FaultyStorage;

    const DATA: FileId = FileId { slot: Slot(0), kind: FileKind::Data };
    const TREE: FileId = FileId { slot: Slot(0), kind: FileKind::Tree };

    #[test]
    fn a_crash_keeps_the_order_and_tears_the_last() -> io::Result<()> {
        let (mut disk, faults) = FaultyStorage::new(MemoryStorage::new());
        faults.record();
        disk.write_at(DATA, 0, b"abc")?;
        disk.truncate(DATA, 2)?;
        disk.write_at(TREE, 0, b"tree")?;
        let record = faults.take_record();
        let base = MemoryStorage::new();
        let at = |at, torn| -> io::Result<_> {
            let disk = record.after_crash(&base, at, torn)?;
            Ok((disk.contents(DATA), disk.contents(TREE)))
        };
        assert_eq!(at(0, 0)?, (None, None));
        assert_eq!(at(0, 1)?, (Some(b"a".to_vec()), None));
        assert_eq!(at(1, 0)?, (Some(b"abc".to_vec()), None));
        assert_eq!(at(2, 3)?, (Some(b"ab".to_vec()), Some(b"tre".to_vec())));
        assert_eq!(at(3, 0)?, (Some(b"ab".to_vec()), Some(b"tree".to_vec())));
        assert_eq!(record.moments().count(), 4);
        Ok(())
    }

    #[test]
    fn a_power_cut_spares_what_was_synced_and_loses_the_rest_in_any_order() -> io::Result<()> {
        let (mut disk, faults) = FaultyStorage::new(MemoryStorage::new());
        faults.record();
        disk.write_at(DATA, 0, b"abc")?;
        disk.sync(DATA)?;
        disk.write_at(DATA, 3, b"def")?;
        disk.write_at(TREE, 0, b"tree")?;
        let record = faults.take_record();
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..500 {
            let disk = record.after_power_cut(&MemoryStorage::new(), 4, seed)?;
            let data = disk.contents(DATA).unwrap_or_default();
            assert!(data.starts_with(b"abc"));
            seen.insert((data, disk.contents(TREE)));
        }
        let has = |data: &[u8], tree: Option<&[u8]>| seen.contains(&(data.to_vec(), tree.map(<[u8]>::to_vec)));
        assert!(has(b"abc", None) && has(b"abcdef", Some(b"tree")));
        assert!(has(b"abc", Some(b"tree")) && has(b"abcde", None) && has(b"abcdef", Some(b"tr")));
        // The sync came after this moment, so that nothing is safe yet.
        let lost = (0..50).any(|seed| {
            record.after_power_cut(&MemoryStorage::new(), 1, seed).is_ok_and(|disk| disk.contents(DATA).is_none())
        });
        assert!(lost);
        Ok(())
    }
}
