//! The files of one feed: where things stand in them, their headers, and how they are made and read.

use multifeed_proto::FeedKey;

use super::Opening;
use super::local_name::is_key_name;
use crate::bitfield::{Bitfield, DEFAULT_PAGE_BYTES};
use crate::error::StoreError;
use crate::keys::signer::WriterKey;
use crate::limits::MAX_FEED_BLOCKS;
use crate::storage::{FileId, FileKind, Slot, Storage};

/// Bytes in front of `tree`, `signatures` and `bitfield`.
pub(super) const HEADER: usize = 32;
/// Bytes of a node in `tree`: its hash and its size.
pub(super) const NODE: usize = 40;
/// Bytes of a signature.
pub(super) const SIGNATURE: usize = 64;
/// Signatures that are read at once in search of one.
pub(super) const SIGNATURES_AT_ONCE: u64 = 1024;
/// Blocks that a page of the bitfield is about, in JS and here.
pub(super) const BLOCKS_OF_A_PAGE: u64 = 8192;

pub(super) fn node_offset(index: u64) -> u64 {
    HEADER as u64 + index * NODE as u64
}

pub(super) fn signature_offset(position: u64) -> u64 {
    HEADER as u64 + position * SIGNATURE as u64
}

/// The headers that JS writes: `05 02 57`, type, version 0, entry size as u16 BE, and the algorithm's name with its length.
pub(super) fn headers(page_bytes: usize) -> [(FileKind, [u8; HEADER]); 3] {
    let header = |kind: u8, size: usize, name: &[u8]| {
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&[5, 2, 0x57, kind]);
        header[5..7].copy_from_slice(&(size as u16).to_be_bytes());
        header[7] = name.len() as u8;
        header[8..8 + name.len()].copy_from_slice(name);
        header
    };
    [
        (FileKind::Bitfield, header(0, page_bytes, b"")),
        (FileKind::Signatures, header(1, SIGNATURE, b"Ed25519")),
        (FileKind::Tree, header(2, NODE, b"BLAKE2b")),
    ]
}

/// What to do if a folder can't be opened because of one of its files.
pub(super) const WAY_OUT: &str = "Put the file back from a copy; or, if the feed is not written here, move the folder away while the store is closed, \
                                  and a sync with a peer that has the feed fetches it";

/// The files of one feed, with typed errors.
pub(super) struct Files<'a, S: ?Sized> {
    pub(super) storage: &'a mut S,
    pub(super) slot: Slot,
}

/// What is said of a file whose right content is known. It may be known in memory alone, as of a store that is only read.
pub(super) const WRITTEN_AGAIN: &str = "opening the store to write puts that back";

impl<S: Storage + ?Sized> Files<'_, S> {
    pub(super) fn id(&self, kind: FileKind) -> FileId {
        FileId::new(self.slot, kind)
    }

    /// Makes a feed in an empty folder. If that fails, what was made of it goes again, so that the store is as it was.
    pub(super) fn make(
        &mut self,
        key: &FeedKey,
        writer_key: Option<&WriterKey>,
        name: Option<&str>,
    ) -> Result<(), StoreError> {
        let slot = self.slot;
        match self.leftovers()? {
            None => return Err(StoreError::Occupied { slot }),
            Some(false) => {}
            Some(true) => self.storage.remove(slot).map_err(|error| StoreError::from_slot(slot, "clear", error))?,
        }
        self.write_new(key, writer_key, name).inspect_err(|_| _ = self.storage.remove(slot))
    }

    /// The key comes last.
    fn write_new(
        &mut self,
        key: &FeedKey,
        writer_key: Option<&WriterKey>,
        name: Option<&str>,
    ) -> Result<(), StoreError> {
        if let Some(name) = name {
            self.replace(FileKind::LocalName, name.as_bytes())?;
        }
        if let Some(pair) = writer_key.and_then(WriterKey::key_pair) {
            self.replace(FileKind::SecretKey, &*pair.secret_key())?;
        }
        for (kind, header) in headers(DEFAULT_PAGE_BYTES) {
            self.write(kind, 0, &header)?;
        }
        // A lost copy is fetched again; a lost writer is not, and it is worth the wait for the disk.
        match writer_key {
            Some(_) => self.replace(FileKind::Key, key.as_bytes()),
            None => self.write(FileKind::Key, 0, key.as_bytes()),
        }
    }

    pub(super) fn len(&mut self, kind: FileKind) -> Result<Option<u64>, StoreError> {
        if self.slot == Slot::NOWHERE {
            return Ok(None);
        }
        let id = self.id(kind);
        self.storage.len(id).map_err(|error| StoreError::from_file(id, "look at", error))
    }

    pub(super) fn read(&mut self, kind: FileKind, offset: u64, buf: &mut [u8]) -> Result<usize, StoreError> {
        if self.slot == Slot::NOWHERE {
            return Ok(0);
        }
        let id = self.id(kind);
        self.storage.read_at(id, offset, buf).map_err(|error| StoreError::from_file(id, "read", error))
    }

    /// The first offset from this one on that may hold anything but zeros.
    pub(super) fn next_data(&mut self, kind: FileKind, offset: u64) -> Result<Option<u64>, StoreError> {
        if self.slot == Slot::NOWHERE {
            return Ok(None);
        }
        let id = self.id(kind);
        self.storage.next_data(id, offset).map_err(|error| StoreError::from_file(id, "read", error))
    }

    /// How many bytes from this offset on, up to `end`, are a hole of the file.
    pub(super) fn hole_at(&mut self, kind: FileKind, offset: u64, end: u64) -> Result<u64, StoreError> {
        let data = self.next_data(kind, offset)?.unwrap_or(u64::MAX);
        Ok(data.min(end).saturating_sub(offset))
    }

    pub(super) fn write(&mut self, kind: FileKind, offset: u64, data: &[u8]) -> Result<(), StoreError> {
        let id = self.id(kind);
        self.storage.write_at(id, offset, data).map_err(|error| StoreError::from_file(id, "write", error))
    }

    pub(super) fn truncate(&mut self, kind: FileKind, len: u64) -> Result<(), StoreError> {
        let id = self.id(kind);
        self.storage.truncate(id, len).map_err(|error| StoreError::from_file(id, "cut", error))
    }

    pub(super) fn punch(&mut self, kind: FileKind, range: core::ops::Range<u64>) -> Result<(), StoreError> {
        let id = self.id(kind);
        self.storage.punch(id, range).map_err(|error| StoreError::from_file(id, "make a hole in", error))
    }

    pub(super) fn sync(&mut self, kind: FileKind) -> Result<(), StoreError> {
        let id = self.id(kind);
        self.storage.sync(id).map_err(|error| StoreError::from_file(id, "sync", error))
    }

    pub(super) fn replace(&mut self, kind: FileKind, data: &[u8]) -> Result<(), StoreError> {
        let id = self.id(kind);
        self.storage.replace(id, data).map_err(|error| StoreError::from_file(id, "write", error))
    }

    /// A file of exactly so many bytes, or `None` if it is absent.
    pub(super) fn read_exactly<const N: usize>(&mut self, kind: FileKind) -> Result<Option<[u8; N]>, StoreError> {
        let Some(len) = self.len(kind)? else { return Ok(None) };
        let mut bytes = [0; N];
        if len != N as u64 || self.read(kind, 0, &mut bytes)? != N {
            let why = format!("it has {len} bytes where {N} belong");
            return Err(StoreError::damaged(self.slot, kind, why));
        }
        Ok(Some(bytes))
    }

    /// What a creation that was cut short left in the folder: whether anything, or `None` if it is more than that.
    pub(super) fn leftovers(&mut self) -> Result<Option<bool>, StoreError> {
        let mut any = false;
        for kind in FileKind::ALL {
            let len = self.len(kind)?;
            any |= len.is_some();
            let harmless = match kind {
                FileKind::Key | FileKind::Data => 0,
                FileKind::Tree | FileKind::Signatures | FileKind::Bitfield => HEADER as u64,
                // Whole, as it is always written, it is a writer's, which `open` knows without `key`.
                FileKind::SecretKey => 0,
                FileKind::LocalName
                | FileKind::Journal
                | FileKind::Conflicts
                | FileKind::Banned
                | FileKind::Removed => u64::MAX,
            };
            if len.is_some_and(|len| len > harmless) {
                return Ok(None);
            }
        }
        Ok(Some(any))
    }

    /// Whether what is there may be of a feed: each file that begins with a header has it, and a secret key is one, of the key that is there.
    pub(super) fn is_remnant(&mut self) -> Result<bool, StoreError> {
        let key = match self.len(FileKind::Key)? {
            Some(32) => self.read_exactly::<32>(FileKind::Key)?,
            _ => None,
        };
        match self.len(FileKind::SecretKey)?.unwrap_or(0) {
            0 => {}
            64 => {
                let secret = self.read_exactly::<64>(FileKind::SecretKey)?.map(zeroize::Zeroizing::new);
                if let (Some(key), Some(secret)) = (key, secret)
                    && secret[32..] != key
                {
                    return Ok(false);
                }
            }
            _ => return Ok(false),
        }
        let mut any = false;
        for (kind, ours) in headers(DEFAULT_PAGE_BYTES) {
            let mut theirs = [0; HEADER];
            let count = self.read(kind, 0, &mut theirs)?;
            any |= self.len(kind)?.is_some();
            // A bitfield's pages may have another size than ours.
            let same =
                |(at, (theirs, ours)): (usize, (&u8, &u8))| theirs == ours || *theirs == 0 || matches!(at, 5 | 6);
            if !theirs[..count].iter().zip(&ours).enumerate().all(same) {
                return Ok(false);
            }
        }
        // Beside its key nothing else has to be there: a removal that was cut short took it.
        Ok(any || key.is_some() || self.len(FileKind::Data)?.unwrap_or(0) == 0)
    }

    /// Writes the name of a writer again that the journal knows, and that is missing from its folder or is another one there. Returns the damage to
    /// report: nothing of a feed that is named by its key, as another one has its name.
    pub(super) fn write_name_again(&mut self, there: Option<&str>, name: &str, key: &FeedKey) -> Option<StoreError> {
        match self.replace(FileKind::LocalName, name.as_bytes()) {
            Ok(()) if is_key_name(name, key) => None,
            Ok(()) => {
                let found = there.map_or("it had no name".to_owned(), |there| format!("it had the name `{there}`"));
                let why = format!("{found}: this is the writer `{name}`, by the journal; {WRITTEN_AGAIN}");
                Some(StoreError::damaged(self.slot, FileKind::LocalName, why))
            }
            Err(error) => Some(error),
        }
    }

    /// A short file as text up to its first NUL, with what is no UTF-8 replaced; `None` if it is absent or empty. A name has no NUL: a torn
    /// file, and a hole, do.
    pub(super) fn read_text(&mut self, kind: FileKind) -> Result<Option<String>, StoreError> {
        let mut bytes = vec![0; 4096];
        let count = self.read(kind, 0, &mut bytes)?;
        bytes.truncate(count);
        let count = bytes.iter().position(|byte| *byte == 0).unwrap_or(count);
        bytes.truncate(count);
        Ok((count > 0).then(|| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The bitfield, and the headers to write because their files have none. Pages that the disk does not give mark nothing: what is
    /// there is marked again, as when they are lost. The error is added to `opening`.
    #[allow(clippy::type_complexity)]
    pub(super) fn load_bitfield(
        &mut self,
        opening: &mut Opening,
    ) -> Result<(Bitfield, Vec<(FileKind, [u8; HEADER])>), StoreError> {
        let mut page_bytes = DEFAULT_PAGE_BYTES;
        let mut missing = Vec::new();
        for (kind, ours) in headers(DEFAULT_PAGE_BYTES) {
            let mut theirs = [0; HEADER];
            let count = match self.read(kind, 0, &mut theirs) {
                Err(unread) if unread.is_unreadable() => {
                    opening.unread.push(unread);
                    continue;
                }
                count => count?,
            };
            // Not there, or torn: then zeros follow its end.
            let end = theirs[..count].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            if theirs != ours && ours.starts_with(&theirs[..end]) {
                missing.push((kind, ours));
                continue;
            }
            let size = usize::from(u16::from_be_bytes([theirs[5], theirs[6]]));
            let fits = match kind {
                FileKind::Bitfield => Bitfield::is_page_size(size),
                _ => theirs[5..7] == ours[5..7],
            };
            let is_such = theirs[..4] == ours[..4];
            // Either of the two may have rotted, if the rest is as it must be. Of what size pages were if not of ours, nothing else tells.
            if is_such != fits && theirs[7..] == ours[7..] && (fits || kind != FileKind::Bitfield) {
                let entries = if kind == FileKind::Bitfield { size } else { page_bytes };
                missing.extend(headers(entries).into_iter().filter(|(of, _)| *of == kind));
            } else if !is_such || !fits {
                let why = if is_such {
                    format!("its entries cannot have {size} bytes")
                } else {
                    "its header is not that of such a file".into()
                };
                return Err(StoreError::damaged(self.slot, kind, format!("{why}; nothing was changed. {WAY_OUT}")));
            }
            if kind == FileKind::Bitfield {
                page_bytes = size;
            }
        }

        let stored = self.len(FileKind::Bitfield)?.unwrap_or(0).saturating_sub(HEADER as u64);
        let size = page_bytes as u64;
        let pages = stored.div_ceil(size);
        if pages > MAX_FEED_BLOCKS / BLOCKS_OF_A_PAGE {
            let why = "it tells of more blocks than a feed can have";
            return Err(StoreError::damaged(self.slot, FileKind::Bitfield, why));
        }
        let mut bitfield = Bitfield::load(page_bytes, pages);
        // Pages that nothing was written to are passed over: a feed that is long by claim alone has a file of half a gigabyte.
        let (mut at_once, mut after_hole) = (1, false);
        let mut buffer = Vec::new();
        let mut next = 0;
        while next < pages {
            let first = match next {
                0 => 0,
                _ => match self.next_data(FileKind::Bitfield, HEADER as u64 + next * size)? {
                    Some(data) => (data.saturating_sub(HEADER as u64) / size).max(next),
                    None => break,
                },
            };
            // After a hole as much as two blocks of the disk mostly touch, and then more and more.
            at_once = match (first == next, after_hole) {
                (false, _) => 3,
                (true, true) => 1,
                (true, false) => (at_once * 2).min(16),
            };
            after_hole = first != next;
            let count = pages.saturating_sub(first).min(at_once);
            buffer.resize(usize::try_from(count * size).unwrap_or(0), 0);
            let offset = |page: u64| HEADER as u64 + page * size;
            next = first + count;
            match self.read(FileKind::Bitfield, offset(first), &mut buffer) {
                // Each of them by itself.
                Err(unread) if unread.is_unreadable() => {
                    opening.unread.push(unread);
                    for number in first..next {
                        let page = &mut buffer[..page_bytes];
                        match self.read(FileKind::Bitfield, offset(number), page) {
                            Err(unread) if unread.is_unreadable() => {}
                            read => bitfield.load_page(number, &page[..read?]),
                        }
                    }
                }
                read => {
                    for (number, page) in (first..).zip(buffer[..read?].chunks(page_bytes)) {
                        bitfield.load_page(number, page);
                    }
                }
            }
        }
        Ok((bitfield, missing))
    }
}
