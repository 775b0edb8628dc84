//! A disk after a cut, put into real files: what the system does below the storage changes nothing of what is left. Reads and writes are short, calls
//! are slow, some are not supported, and one fails.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use multifeed_core::storage::faults::{DiskCall, DiskOp, Fault, Faults, FaultyDisk};
use multifeed_core::{
    FeedId, FileId, FileKind, FileStorage, FileStorageOptions, MemoryStorage, Multifeed, Options, Storage, StoreError,
};

use super::{Contents, History, told, verify};
use crate::disk::errno;
use crate::random::Random;

/// What is odd about the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Oddity {
    /// A read or a write moves a third of the bytes at most.
    Short,
    /// Locks, holes and every sync are EINVAL.
    Lacks,
    /// One call in seven takes a while.
    Slow,
    /// This call is EIO, and no other.
    Fails(u64),
}

#[derive(Debug)]
struct OddDisk {
    oddity: Oddity,
    calls: AtomicU64,
}

impl FaultyDisk for OddDisk {
    fn fault(&self, call: &DiskCall<'_>) -> Option<Fault> {
        let number = self.calls.fetch_add(1, Relaxed);
        match self.oddity {
            Oddity::Short if matches!(call.op, DiskOp::Read | DiskOp::Write) => {
                let bytes = call.range.end - call.range.start;
                Some(Fault::Short(usize::try_from(bytes.div_ceil(3)).unwrap_or(1)))
            }
            Oddity::Lacks
                if matches!(call.op, DiskOp::Lock | DiskOp::SyncFolder | DiskOp::SyncFile | DiskOp::PunchHole) =>
            {
                Some(Fault::Errno(errno::EINVAL))
            }
            Oddity::Slow if number.is_multiple_of(7) => {
                std::thread::sleep(Duration::from_micros(50));
                None
            }
            Oddity::Fails(at) if at == number => Some(Fault::Errno(errno::EIO)),
            _ => None,
        }
    }
}

impl History {
    /// Opens a disk in real files, on a system with one oddity or another. `as_js`: any of it may be gone.
    ///
    /// # Errors
    ///
    /// What is not as it is in memory.
    pub(super) fn try_folder(&self, disk: &MemoryStorage, at: usize, as_js: bool) -> Result<()> {
        let mut random = Random::new(self.seed.wrapping_mul(31) ^ at as u64);
        let oddity = match random.between(0, 4) {
            0 => Oddity::Short,
            1 => Oddity::Lacks,
            2 => Oddity::Slow,
            _ => Oddity::Fails(random.between(0, 150)),
        };
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? };
        put(disk, folder.path())?;
        let tried = match oddity {
            Oddity::Fails(_) => self.try_failing(disk, folder.path(), oddity, as_js),
            _ => self.try_odd(disk, folder.path(), oddity, as_js),
        };
        tried.with_context(|| format!("in files, {oddity:?}"))
    }

    fn open_folder(&self, folder: &Path, oddity: Option<Oddity>) -> Result<Multifeed<FileStorage>, StoreError> {
        let disk = oddity.map(|oddity| Arc::new(OddDisk { oddity, calls: AtomicU64::new(0) }));
        let faults = disk.map_or_else(Faults::default, |disk| Faults::new(disk));
        let mut files = FileStorageOptions::default();
        files.faults = faults;
        let storage = FileStorage::open_with(folder, files)?;
        Multifeed::open(storage, Options { durability: self.durability, ..Options::default() })
    }

    /// What the system does is no failure: all is as it is in memory.
    fn try_odd(&self, disk: &MemoryStorage, folder: &Path, oddity: Oddity, as_js: bool) -> Result<()> {
        let options = Options { durability: self.durability, ..Options::default() };
        let mut memory = Multifeed::open(disk.clone(), options)?;
        let mut expected = readable(&mut memory);
        let mut store = self.open_folder(folder, Some(oddity))?;
        ensure!(store.problems().len() == memory.problems().len(), "{:?}", store.problems());
        let seen = readable(&mut store);
        ensure!(seen == expected, "{}, and in memory {}", told(&seen), told(&expected));
        let ours: Vec<FeedId> = store.feeds().filter(|id| store.info(*id).unwrap().writable).collect();
        for id in ours {
            store.append(id, &[b"in files".to_vec().into()])?;
            expected.entry(store.info(id).unwrap().key).or_default().push(Some(b"in files".to_vec()));
        }
        store.commit(Duration::ZERO);
        store.close()?;
        let mut store = self.open_folder(folder, None)?;
        ensure!(as_js || store.recovered().is_empty(), "closed well, and yet {:?}", store.recovered());
        let seen = readable(&mut store);
        ensure!(seen == expected, "closed with {}, and opened with {}", told(&expected), told(&seen));
        Ok(())
    }

    /// A call fails while the store is opened, read and closed: what is read is right, and no block that was written here is lost by it.
    fn try_failing(&self, disk: &MemoryStorage, folder: &Path, oddity: Oddity, as_js: bool) -> Result<()> {
        let options = Options { durability: self.durability, ..Options::default() };
        let mut memory = Multifeed::open(disk.clone(), options)?;
        let problems = memory.problems().len();
        let expected = readable(&mut memory);
        if let Ok(mut store) = self.open_folder(folder, Some(oddity)) {
            self.check_blocks(&readable(&mut store))?;
            // That may be the call that fails.
            let _ = store.close();
        }
        let mut store = self.open_folder(folder, None)?;
        ensure!(as_js || store.problems().len() == problems, "{:?}", store.problems());
        verify(&mut store, as_js)?;
        let seen = readable(&mut store);
        self.check_blocks(&seen)?;
        for id in store.feeds().filter(|id| store.info(*id).unwrap().writable).collect::<Vec<_>>() {
            let key = store.info(id).unwrap().key;
            ensure!(seen.get(&key) == expected.get(&key), "{}, and in memory {}", told(&seen), told(&expected));
        }
        let ours =
            |store: &Multifeed<FileStorage>| store.feeds().filter(|id| store.info(*id).unwrap().writable).count();
        let writers = memory.feeds().filter(|id| memory.info(*id).unwrap().writable).count();
        ensure!(ours(&store) == writers, "{} writers of {writers}", ours(&store));
        Ok(())
    }

    /// Each block is the one that was appended.
    fn check_blocks(&self, seen: &Contents) -> Result<()> {
        for (key, blocks) in seen {
            let appended = self.blocks.get(key).with_context(|| format!("a feed that never was: {key}"))?;
            for (index, block) in blocks.iter().enumerate() {
                ensure!(block.is_none() || block.as_ref() == appended.get(index), "block {index} of {key} is another");
            }
        }
        Ok(())
    }
}

/// The blocks of each feed, without those that cannot be read.
fn readable<S: Storage>(store: &mut Multifeed<S>) -> Contents {
    let mut all = Contents::new();
    for id in store.feeds().collect::<Vec<_>>() {
        let info = store.info(id).unwrap();
        let read = |index| store.get(id, index).ok().flatten().map(|block| block.to_vec());
        all.insert(info.key, (0..info.len).map(read).collect());
    }
    all
}

/// Writes what a disk has into a folder.
fn put(disk: &MemoryStorage, folder: &Path) -> Result<()> {
    for slot in disk.clone().list()? {
        for kind in FileKind::ALL {
            if let Some(contents) = disk.contents(FileId::new(slot, kind)) {
                let path = folder.join(slot.to_string());
                fs::create_dir_all(&path)?;
                fs::write(path.join(kind.name()), contents)?;
            }
        }
    }
    for kind in FileKind::EVERY.into_iter().filter(|kind| kind.is_beside()) {
        if let Some(contents) = disk.contents(FileId::beside(kind)) {
            fs::write(folder.join(kind.name()), contents)?;
        }
    }
    Ok(())
}
