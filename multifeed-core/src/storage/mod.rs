//! The files of a store: numbered folders, a feed in each, laid out as hypercore 9 in a multifeed folder lays them out.
//!
//! The trait is synchronous, so that a replay is exact; whoever owns a store keeps it off an executor's threads.

use std::io;
use std::ops::Range;

use multifeed_proto::FeedKey;

use crate::KeyPair;
use crate::error::StoreError;
use crate::storage::core_list::CoreList;

#[cfg(feature = "file-storage")]
mod changes;
pub(crate) mod core_list;
mod corestore;
#[cfg(feature = "file-storage")]
mod disk;
#[cfg(feature = "file-storage")]
#[doc(hidden)]
pub mod faults;
#[cfg(feature = "file-storage")]
mod file;
mod file_error;
#[cfg(feature = "file-storage")]
mod folder;
#[cfg(feature = "file-storage")]
mod folders;
#[cfg(feature = "file-storage")]
mod layout;
mod memory;
mod names;
pub(crate) mod other_store;
#[cfg(feature = "file-storage")]
mod pool;
mod repaired;
mod unsupported;

#[cfg(feature = "file-storage")]
pub use corestore::FileCoreStorage;
pub use corestore::{CoreFile, CoreFolders, CoreStorage, MemoryCoreStorage, SmallFile};
#[cfg(feature = "file-storage")]
pub use file::{FileStorage, FileStorageOptions};
pub use file_error::{FileError, Found};
pub use memory::MemoryStorage;
pub use names::{FileId, FileKind, Slot};
pub use repaired::RepairedInMemory;
pub use unsupported::Unsupported;

/// All that a store needs of its disk.
///
/// Errors are plain [`io::Error`]s; a storage with paths wraps them in a [`FileError`], so that they name the file.
pub trait Storage {
    /// The numbered folders that exist, ascending. Whatever else stands beside them is ignored.
    fn list(&mut self) -> io::Result<Vec<Slot>>;
    /// The numbers that no feed's folder can have, because something else has them as its name, ascending: a link, a file. To use one of
    /// them fails with what it is. The default has none.
    fn obstacles(&mut self) -> io::Result<Vec<Slot>> {
        Ok(Vec::new())
    }
    /// The permission bits of a file on unix (`0o777`); `None` if it is absent, or the storage has none. The default has none.
    fn permissions(&mut self, _file: FileId) -> io::Result<Option<u32>> {
        Ok(None)
    }
    /// Reads at an offset. Returns how much there was: less than asked for at the file's end, 0 for an absent file.
    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Writes all of it at an offset. Makes folder and file if they are missing; a gap before it reads as zeros.
    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()>;
    /// The file's length in bytes, or `None` if it is absent.
    fn len(&mut self, file: FileId) -> io::Result<Option<u64>>;
    /// Finds the first offset from `offset` on that may hold anything but zeros, without reading what is between. `None`: from there to
    /// the file's end there are zeros alone, or the file is absent.
    ///
    /// The default takes everything for data: right for every file, and slow for a sparse one.
    fn next_data(&mut self, file: FileId, offset: u64) -> io::Result<Option<u64>> {
        Ok(self.len(file)?.filter(|len| offset < *len).map(|_| offset))
    }
    /// Whether [`punch`](Self::punch) can do something. By default it cannot.
    fn can_punch(&self) -> bool {
        false
    }
    /// Gives the place of bytes that nobody reads any more back to the disk, as far as it can, and keeps the file's length. Afterwards they
    /// are zeros, or what they were. Nothing if the file is absent; the default does nothing.
    fn punch(&mut self, _file: FileId, _range: Range<u64>) -> io::Result<()> {
        Ok(())
    }
    /// Cuts the file, or lengthens it with zeros. An absent file is made.
    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()>;
    /// Replaces the whole file: also after a crash it holds the old bytes or the new ones, nothing between. Returns once the new
    /// ones would outlive a power cut.
    fn replace(&mut self, file: FileId, data: &[u8]) -> io::Result<()>;
    /// Returns once what was written to the file, and the file itself, would outlive a power cut. After an error nobody knows
    /// what of it would, also not if a second try goes well.
    fn sync(&mut self, file: FileId) -> io::Result<()>;
    /// Fails if [`remove`](Self::remove) would not touch a folder because something in it is no file of this storage alone, such as a link. It is
    /// asked before a removal is written down. The default is that every folder can be removed.
    fn check_removable(&mut self, _slot: Slot) -> io::Result<()> {
        Ok(())
    }
    /// Fails if [`truncate`](Self::truncate) would not shorten a file because it is no file of this storage alone, such as one behind a link. It is
    /// asked before blocks are cleared. The default is that every file can be cut.
    fn check_cuttable(&mut self, _file: FileId) -> io::Result<()> {
        Ok(())
    }
    /// Removes a feed's files, and its folder if nothing else is in it. Those beside the folders stay. If it is cut short, any of them may
    /// be gone, but `key` goes last. Also after a power cut `data` is gone if another one but `localname` is. It returns once all of it
    /// would outlive a power cut. If one of them is not a file of this storage alone, such as a link, it fails before the first is gone.
    fn remove(&mut self, slot: Slot) -> io::Result<()>;
    /// Gives a folder, with all that is in it, the number of one that was [removed](Self::remove) or never was. Also after a crash it has
    /// the one number or the other. Returns once the new one would outlive a power cut.
    fn rename(&mut self, from: Slot, to: Slot) -> io::Result<()>;
    /// Gives up file handles and locks. Every later call fails.
    fn close(&mut self) -> io::Result<()>;
    /// Returns how many bytes can still be written to the disk that the store is on, or `None` if that is not known, as by default.
    fn free_space(&mut self) -> io::Result<Option<u64>> {
        Ok(None)
    }
    /// Fails if the store, or this folder of it, was moved, removed or replaced since it was opened. What is written would then be lost or lie
    /// where nobody looks. The default has no place to be moved from.
    fn check_place(&mut self, _slot: Slot) -> io::Result<()> {
        Ok(())
    }
    /// Returns a value that is another one once `tree`, `signatures`, `bitfield` or `data` of a folder was changed, by whomever, and the same one in
    /// every process until then. `None` if that cannot be found out, as by default.
    ///
    /// If `settled`, it is `None` also if one of them changed when the journal was written last, or later. By the clock of the disk a change that
    /// came after that need not differ.
    fn stamp(&mut self, _slot: Slot, _settled: bool) -> Option<[u8; 8]> {
        None
    }
    /// Returns what the disk turned out not to support. By default nothing.
    fn unsupported(&self) -> Unsupported {
        Unsupported::default()
    }
    /// Every feed of the store was opened, and what opening repairs was written. The default makes nothing of it.
    fn opened(&mut self) {}
    /// Whether a folder is known by its number, and there must be no gap in the numbers, as in JS's multifeed: so it is by default. If not, as in
    /// a corestore, a number stands for a folder once it was [assigned](Self::assign), for as long as the storage is open.
    fn is_numbered(&self) -> bool {
        true
    }
    /// Has a number stand for the folder of a feed, which need not exist. With a `name` the feed is one that is written here: its
    /// [key pair](Self::key_pair) is derived from that, and the name is written to the folder. Does nothing by default.
    ///
    /// # Errors
    /// If the folder cannot be used; nothing in it was changed then, and the number stands for nothing.
    fn assign(&mut self, _slot: Slot, _key: &FeedKey, _name: Option<&[u8]>) -> Result<(), StoreError> {
        Ok(())
    }
    /// Derives the key pair of an assigned core from its name, which the core's folder has lost. With `to_disk` the name is written there again. Does
    /// nothing if the core has a key pair, and by default.
    ///
    /// The caller has to know how much was signed with that key pair: what is here may be less.
    ///
    /// # Errors
    /// [`CorestoreError::NameMismatch`](crate::CorestoreError::NameMismatch) if it is not the core's name; if the name cannot be written.
    fn restore_name(&mut self, _slot: Slot, _name: &[u8], _to_disk: bool) -> Result<(), StoreError> {
        Ok(())
    }
    /// An assigned number stands for nothing any more. In a numbered folder, what stands there may be another one when it is looked at again. Does
    /// nothing by default.
    fn release(&mut self, _slot: Slot) {}
    /// Derives the key pair of a named core. `None` if the storage has no master key, as by default.
    fn key_pair(&self, _name: &[u8]) -> Option<KeyPair> {
        None
    }
    /// Fails if the named cores that are on the disk were made with another master key, as what is derived from this one would be another author's.
    /// The default has no master key.
    ///
    /// # Errors
    /// [`CorestoreError::MasterKeyMismatch`](crate::CorestoreError::MasterKeyMismatch); the storage's error.
    fn check_master_key(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
    /// Lists the cores that are on the disk, whether they have a number or not. The default is no corestore.
    ///
    /// # Errors
    /// [`StoreError::NotCorestore`]; as [`Corestore::list`](crate::Corestore::list).
    fn list_cores(&mut self) -> Result<CoreList, StoreError> {
        Err(StoreError::NotCorestore)
    }
    /// Closes most files that are open and not in use, and returns how many; they are opened again as they are needed, fewer at once than before.
    /// For a process that has no file handle left for a connection. The default has none.
    fn close_idle_files(&mut self) -> usize {
        0
    }
    /// Whether every write fails from now on, so that the journal of a store that was only read is left as it was. The default says no.
    fn is_read_only(&self) -> bool {
        false
    }
}

/// A storage that is lent or boxed.
macro_rules! forward {
    ($($storage:ty),*) => {$(
        impl<S: Storage + ?Sized> Storage for $storage {
            fn list(&mut self) -> io::Result<Vec<Slot>> {
                (**self).list()
            }
            fn obstacles(&mut self) -> io::Result<Vec<Slot>> {
                (**self).obstacles()
            }
            fn permissions(&mut self, file: FileId) -> io::Result<Option<u32>> {
                (**self).permissions(file)
            }
            fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
                (**self).read_at(file, offset, buf)
            }
            fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
                (**self).write_at(file, offset, data)
            }
            fn len(&mut self, file: FileId) -> io::Result<Option<u64>> {
                (**self).len(file)
            }
            fn next_data(&mut self, file: FileId, offset: u64) -> io::Result<Option<u64>> {
                (**self).next_data(file, offset)
            }
            fn can_punch(&self) -> bool {
                (**self).can_punch()
            }
            fn punch(&mut self, file: FileId, range: Range<u64>) -> io::Result<()> {
                (**self).punch(file, range)
            }
            fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()> {
                (**self).truncate(file, len)
            }
            fn replace(&mut self, file: FileId, data: &[u8]) -> io::Result<()> {
                (**self).replace(file, data)
            }
            fn sync(&mut self, file: FileId) -> io::Result<()> {
                (**self).sync(file)
            }
            fn check_removable(&mut self, slot: Slot) -> io::Result<()> {
                (**self).check_removable(slot)
            }
            fn check_cuttable(&mut self, file: FileId) -> io::Result<()> {
                (**self).check_cuttable(file)
            }
            fn remove(&mut self, slot: Slot) -> io::Result<()> {
                (**self).remove(slot)
            }
            fn rename(&mut self, from: Slot, to: Slot) -> io::Result<()> {
                (**self).rename(from, to)
            }
            fn close(&mut self) -> io::Result<()> {
                (**self).close()
            }
            fn free_space(&mut self) -> io::Result<Option<u64>> {
                (**self).free_space()
            }
            fn check_place(&mut self, slot: Slot) -> io::Result<()> {
                (**self).check_place(slot)
            }
            fn stamp(&mut self, slot: Slot, settled: bool) -> Option<[u8; 8]> {
                (**self).stamp(slot, settled)
            }
            fn unsupported(&self) -> Unsupported {
                (**self).unsupported()
            }
            fn opened(&mut self) {
                (**self).opened();
            }
            fn is_numbered(&self) -> bool {
                (**self).is_numbered()
            }
            fn assign(&mut self, slot: Slot, key: &FeedKey, name: Option<&[u8]>) -> Result<(), StoreError> {
                (**self).assign(slot, key, name)
            }
            fn restore_name(&mut self, slot: Slot, name: &[u8], to_disk: bool) -> Result<(), StoreError> {
                (**self).restore_name(slot, name, to_disk)
            }
            fn release(&mut self, slot: Slot) {
                (**self).release(slot);
            }
            fn key_pair(&self, name: &[u8]) -> Option<KeyPair> {
                (**self).key_pair(name)
            }
            fn check_master_key(&mut self) -> Result<(), StoreError> {
                (**self).check_master_key()
            }
            fn list_cores(&mut self) -> Result<CoreList, StoreError> {
                (**self).list_cores()
            }
            fn close_idle_files(&mut self) -> usize {
                (**self).close_idle_files()
            }
            fn is_read_only(&self) -> bool {
                (**self).is_read_only()
            }
        }
    )*};
}

forward!(&mut S, Box<S>);
