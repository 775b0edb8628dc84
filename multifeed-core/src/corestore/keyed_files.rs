//! The files of one core as a store of one feed: what is derived stands in for what is not on the disk.

use std::io;
use std::ops::Range;

use zeroize::Zeroizing;

use crate::storage::{FileId, FileKind, Slot, Storage, Unsupported};

/// The number of the feed in a store of one feed. What stands beside its folder is in it.
pub(super) const HERE: Slot = Slot(0);

/// The place of a core's secret key.
#[derive(Clone, Default)]
pub(super) enum SecretKey {
    /// In `secret_key`, or nowhere.
    #[default]
    Stored,
    /// It is derived from the core's name, which is being made.
    Awaited,
    /// It was derived from the core's name: there is no file.
    Derived(Zeroizing<[u8; 64]>),
}

/// The files of a corestore while one core uses them.
pub(super) struct KeyedFiles<'a, S> {
    pub(super) files: &'a mut S,
    /// The core's number in the corestore.
    pub(super) slot: Slot,
    pub(super) secret: &'a mut SecretKey,
}

impl<S> KeyedFiles<'_, S> {
    /// The file in the corestore.
    fn at(&self, file: FileId) -> FileId {
        FileId::new(self.slot, file.kind)
    }

    /// What stands for a file that is not on the disk: its contents, if it has any.
    fn instead(&self, file: FileId) -> Option<Option<&[u8]>> {
        match (file.kind, &*self.secret) {
            // Multifeed's own, and not one of a corestore's.
            (FileKind::LocalName, _) | (FileKind::SecretKey, SecretKey::Awaited) => Some(None),
            (FileKind::SecretKey, SecretKey::Derived(secret)) => Some(Some(&secret[..])),
            _ => None,
        }
    }
}

impl<S: Storage> Storage for KeyedFiles<'_, S> {
    fn list(&mut self) -> io::Result<Vec<Slot>> {
        Ok(vec![HERE])
    }

    fn permissions(&mut self, file: FileId) -> io::Result<Option<u32>> {
        if self.instead(file).is_some() { Ok(None) } else { self.files.permissions(self.at(file)) }
    }

    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let Some(instead) = self.instead(file) else { return self.files.read_at(self.at(file), offset, buf) };
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = instead.and_then(|bytes| bytes.get(from..)).unwrap_or_default();
        let count = bytes.len().min(buf.len());
        buf[..count].copy_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.instead(file).is_some() { refuse() } else { self.files.write_at(self.at(file), offset, data) }
    }

    fn len(&mut self, file: FileId) -> io::Result<Option<u64>> {
        match self.instead(file) {
            Some(instead) => Ok(instead.map(|bytes| bytes.len() as u64)),
            None => self.files.len(self.at(file)),
        }
    }

    fn next_data(&mut self, file: FileId, offset: u64) -> io::Result<Option<u64>> {
        match self.instead(file) {
            Some(instead) => Ok(Some(offset).filter(|at| *at < instead.map_or(0, |bytes| bytes.len() as u64))),
            None => self.files.next_data(self.at(file), offset),
        }
    }

    fn can_punch(&self) -> bool {
        self.files.can_punch()
    }

    fn punch(&mut self, file: FileId, range: Range<u64>) -> io::Result<()> {
        if self.instead(file).is_some() { refuse() } else { self.files.punch(self.at(file), range) }
    }

    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()> {
        if self.instead(file).is_some() { refuse() } else { self.files.truncate(self.at(file), len) }
    }

    fn replace(&mut self, file: FileId, data: &[u8]) -> io::Result<()> {
        match (file.kind, &*self.secret, data.try_into()) {
            (FileKind::SecretKey, SecretKey::Awaited, Ok(secret)) => {
                *self.secret = SecretKey::Derived(Zeroizing::new(secret));
                Ok(())
            }
            _ if self.instead(file).is_some() => refuse(),
            _ => self.files.replace(self.at(file), data),
        }
    }

    fn sync(&mut self, file: FileId) -> io::Result<()> {
        if self.instead(file).is_some() { Ok(()) } else { self.files.sync(self.at(file)) }
    }

    fn check_removable(&mut self, _slot: Slot) -> io::Result<()> {
        self.files.check_removable(self.slot)
    }

    fn check_cuttable(&mut self, file: FileId) -> io::Result<()> {
        self.files.check_cuttable(self.at(file))
    }

    fn remove(&mut self, _slot: Slot) -> io::Result<()> {
        self.files.remove(self.slot)
    }

    fn rename(&mut self, _from: Slot, _to: Slot) -> io::Result<()> {
        refuse()
    }

    fn close(&mut self) -> io::Result<()> {
        self.files.close()
    }

    fn free_space(&mut self) -> io::Result<Option<u64>> {
        self.files.free_space()
    }

    fn check_place(&mut self, _slot: Slot) -> io::Result<()> {
        self.files.check_place(self.slot)
    }

    fn unsupported(&self) -> Unsupported {
        self.files.unsupported()
    }

    fn close_idle_files(&mut self) -> usize {
        self.files.close_idle_files()
    }
}

/// Nothing is written to what is derived.
pub(super) fn refuse<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}
