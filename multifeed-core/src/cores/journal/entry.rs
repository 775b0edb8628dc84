//! The entries of the journal's records, in bytes.

use std::collections::{BTreeMap, BTreeSet};

use super::Journal;
use super::body::{Body, Stop};
use super::checkpoint::{Checkpoint, Removal, Stamp, VerifiedSignature, Writer};
use crate::bitfield::Marks;
use crate::error::StoreError;
use crate::limits::{Limits, MAX_FEED_BLOCKS};
use crate::storage::{Slot, Storage};

/// The most bytes that the marks of one page take: see [`Bitfield`](crate::Bitfield).
pub(super) const MAX_PAGE: usize = 4096 + 8;
/// The most pages of a feed.
const MAX_PAGES: u64 = MAX_FEED_BLOCKS / 8192;

/// The entry lists all pages.
const WHOLE: u8 = 1;
/// The entry is of a feed that was fsynced.
const SYNCED: u8 = 2;
/// The entry has a seal.
const SEALED: u8 = 4;
/// The entry says that nothing is known of the folder.
const GONE: u8 = 8;
/// The entry is a removal that begins. Instead of a length it has the number of the last folder, or only ones, and instead of a root what
/// stands for the key in that.
const REMOVAL: u8 = 16;
/// The entry is of a feed that was found to be longer than what was held of it.
const OUTGROWN: u8 = 32;

/// The entry's last page is none, but says which writer it is.
const WRITER: u8 = 64;
/// The entry has a stamp.
const STAMPED: u8 = 128;
/// Bytes of changes that are put into the marks together, unless those are more.
const MERGED_AT: usize = 16 << 10;
/// Bytes of the shortest entry.
const BARE: u64 = 33;
/// Bytes of a root.
const ROOT: usize = 40;
/// Its number. Builds that do not know it take it for a page of the bitfield; a writer's entry has none of those, and it is passed over.
const WRITER_PAGE: u32 = (MAX_PAGES - 1) as u32;

/// Writes an entry. Of one that replaces another, only the pages that differ are written. Numbers are little-endian:
///
/// - folder (u32), flags (1 byte), a checksum of the key (8), length (u64), start of the root hash (8);
/// - the seal, if it has one: checksums of the signature and of the secret key (8 each);
/// - the stamp, if it has one: 8 bytes, the number of roots (1), and 40 bytes for each;
/// - number of pages (u32), and for each its number (u32), its size (u16) and that many bytes.
pub(super) fn encode(slot: Slot, mark: &Checkpoint, old: Option<&Checkpoint>, out: &mut Vec<u8>) {
    let writer = mark.writer.as_ref().filter(|_| old.is_none_or(|old| old.writer != mark.writer));
    let flags = if old.is_none() { WHOLE } else { 0 }
        | if mark.synced { SYNCED } else { 0 }
        | if mark.writer_behind { OUTGROWN } else { 0 }
        | if mark.seal.is_some() { SEALED } else { 0 }
        | if writer.is_some() { WRITER } else { 0 }
        | if mark.stamp.is_some() { STAMPED } else { 0 };
    out.extend_from_slice(&slot.0.to_le_bytes());
    out.push(flags);
    out.extend_from_slice(&mark.key);
    out.extend_from_slice(&mark.length.to_le_bytes());
    out.extend_from_slice(&mark.root);
    if let Some(VerifiedSignature { signature, secret }) = &mark.seal {
        out.extend_from_slice(signature);
        out.extend_from_slice(secret);
    }
    if let Some(Stamp { files, roots }) = &mark.stamp {
        out.extend_from_slice(files);
        out.push((roots.len() / ROOT) as u8);
        out.extend_from_slice(roots);
    }
    let none = Marks::default();
    let pages = mark.pages.changes_since(old.map_or(&none, |old| &old.pages));
    let writer = writer.map(|writer| (WRITER_PAGE, writer.encode()));
    let count = pages.len() + usize::from(writer.is_some());
    out.extend_from_slice(&(count as u32).to_le_bytes());
    let writer = writer.as_ref().map(|(page, bytes)| (*page, &bytes[..]));
    for (page, bytes) in pages.into_iter().chain(writer) {
        out.extend_from_slice(&page.to_le_bytes());
        out.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
        out.extend_from_slice(bytes);
    }
}

pub(super) fn encode_removal(removal: &Removal, out: &mut Vec<u8>) {
    let (last, root) = removal.last.map_or((u64::MAX, [0; 8]), |(slot, key)| (u64::from(slot.0), key));
    encode_bare(removal.slot, REMOVAL, removal.key, last, root, out);
}

pub(super) fn encode_gone(slot: Slot, out: &mut Vec<u8>) {
    encode_bare(slot, GONE, [0; 8], 0, [0; 8], out);
}

/// An entry without pages.
fn encode_bare(slot: Slot, flags: u8, key: [u8; 8], length: u64, root: [u8; 8], out: &mut Vec<u8>) {
    out.extend_from_slice(&slot.0.to_le_bytes());
    out.push(flags);
    out.extend_from_slice(&key);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&root);
    out.extend_from_slice(&0u32.to_le_bytes());
}

/// The folders that exist, and how many others the file may tell of. `None` if it has no room for more than those.
pub(super) fn absent_at_most<S: Storage + ?Sized>(
    storage: &mut S,
    len: u64,
    limits: &Limits,
) -> Result<Option<(BTreeSet<Slot>, usize)>, StoreError> {
    if len / BARE < limits.journal_absent as u64 {
        return Ok(None);
    }
    let slots = storage.list().map_err(|error| StoreError::from_store("list", error))?;
    Ok(Some((slots.into_iter().collect(), limits.journal_absent)))
}

/// What is known while the file is read.
#[derive(Default)]
pub(super) struct Reader {
    /// Pages that changed, as [`Marks`] has them, and that are not in the marks yet: each change by itself would cost as much as all there is.
    later: BTreeMap<Slot, Vec<u8>>,
    /// The folders that exist, and how many others may be listed, if the file has room for more than that.
    folders: Option<(BTreeSet<Slot>, usize)>,
}

impl Reader {
    pub(super) fn new(folders: Option<(BTreeSet<Slot>, usize)>) -> Self {
        Self { later: BTreeMap::new(), folders }
    }

    /// Takes up a record.
    pub(super) fn apply<S: Storage + ?Sized>(
        &mut self,
        journal: &mut Journal,
        body: &mut Body<'_, S>,
    ) -> Result<(), Stop> {
        while !body.is_done() {
            let slot = Slot(u32::from_le_bytes(body.take()?));
            let [flags] = body.take()?;
            let key = body.take()?;
            let length = u64::from_le_bytes(body.take()?);
            let root = body.take()?;
            let seal = match flags & SEALED {
                0 => None,
                _ => Some(VerifiedSignature { signature: body.take()?, secret: body.take()? }),
            };
            let stamp = match flags & STAMPED {
                0 => None,
                _ => {
                    let (files, [roots]) = (body.take()?, body.take()?);
                    Some(Stamp { files, roots: body.bytes(usize::from(roots) * ROOT)?.into() })
                }
            };
            let count = u32::from_le_bytes(body.take()?);
            if flags & REMOVAL != 0 {
                let last = match u32::try_from(length) {
                    Ok(last) => Some((Slot(last), root)),
                    Err(_) if length == u64::MAX => None,
                    Err(_) => return Err(Stop::Malformed),
                };
                journal.removal = Some(Removal { slot, key, last });
                continue;
            }
            journal.removal = journal.removal.filter(|removal| removal.slot != slot);
            if flags & GONE != 0 {
                journal.marks.remove(&slot);
                self.later.remove(&slot);
                continue;
            }
            let old = journal.marks.remove(&slot).filter(|_| flags & WHOLE == 0);
            if old.is_none() {
                self.later.remove(&slot);
            }
            let (pages, mut writer) = old.map(|old| (old.pages, old.writer)).unwrap_or_default();
            let mut changes = self.later.remove(&slot).unwrap_or_default();
            for _ in 0..count {
                let page = u32::from_le_bytes(body.take()?);
                let size = u16::from_le_bytes(body.take()?);
                if usize::from(size) > MAX_PAGE || u64::from(page) >= MAX_PAGES {
                    return Err(Stop::Malformed);
                }
                let bytes = body.bytes(usize::from(size))?;
                if flags & WRITER != 0 && page == WRITER_PAGE {
                    writer = Writer::decode(bytes).map(Box::new);
                    continue;
                }
                changes.extend_from_slice(&page.to_le_bytes());
                changes.extend_from_slice(&size.to_le_bytes());
                changes.extend_from_slice(bytes);
            }
            if length > MAX_FEED_BLOCKS {
                return Err(Stop::Malformed);
            }
            let (synced, writer_behind) = (flags & SYNCED != 0, flags & OUTGROWN != 0);
            let mut mark = Checkpoint { key, length, root, synced, writer_behind, seal, stamp, pages, writer };
            if changes.len() > mark.pages.size() + MERGED_AT {
                mark.pages = mark.pages.merge(std::mem::take(&mut changes));
            }
            if !changes.is_empty() {
                self.later.insert(slot, changes);
            }
            self.count(journal, slot)?;
            journal.marks.insert(slot, mark);
        }
        Ok(())
    }

    /// Puts what changed into the marks.
    pub(super) fn finish(self, journal: &mut Journal) {
        for (slot, changes) in self.later {
            if let Some(mark) = journal.marks.get_mut(&slot) {
                mark.pages = std::mem::take(&mut mark.pages).merge(changes);
            }
        }
    }

    /// Counts a folder that will have a checkpoint.
    fn count(&self, journal: &Journal, slot: Slot) -> Result<(), Stop> {
        match &self.folders {
            // Those that exist are not too many, and the others as many as may be.
            Some((there, absent)) if journal.marks.len() >= there.len() + absent && !there.contains(&slot) => {
                Err(Stop::Absent)
            }
            _ => Ok(()),
        }
    }
}
