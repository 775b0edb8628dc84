//! The entries of the journal's records, in bytes.

use std::collections::BTreeMap;

use super::Journal;
use super::checkpoint::{Checkpoint, Removal, Stamp, VerifiedSignature, Writer};
use crate::bitfield::Marks;
use crate::limits::MAX_FEED_BLOCKS;
use crate::storage::Slot;

/// The most bytes that the marks of one page take: see [`Bitfield`](crate::Bitfield).
pub(super) const MAX_PAGE: usize = 4096 + 8;
/// The most pages of a feed.
const MAX_PAGES: u64 = MAX_FEED_BLOCKS / 8192;

/// The entry lists all pages.
const WHOLE: u8 = 1;
/// The entry is of a feed that was synced.
const SYNCED: u8 = 2;
/// The entry has a seal.
const SEALED: u8 = 4;
/// The entry says that nothing is known of the folder.
const GONE: u8 = 8;
/// The entry is a removal that begins: instead of a length it has the number of the last folder, or only ones, and instead of a root what
/// stands for the key in that.
const REMOVAL: u8 = 16;
/// The entry is of a feed that was found to be longer than what was held of it.
const OUTGROWN: u8 = 32;

/// The entry's last page is none, but says which writer it is.
const WRITER: u8 = 64;
/// The entry has a stamp.
const STAMPED: u8 = 128;
/// Bytes of a root.
const ROOT: usize = 40;
/// Its number. Builds that do not know it take it for a page of the bitfield; a writer's entry has none of those, and it is passed over.
const WRITER_PAGE: u32 = (MAX_PAGES - 1) as u32;

/// An entry: folder (u32), flags (1 byte), a checksum of the key (8), length (u64), start of the root hash (8), the seal where there is one
/// (checksums of the signature and of the secret key, 8 each), the stamp where there is one (8, the number of roots, and 40 for each), number of pages (u32), and for each its number (u32), its size (u16) and that many bytes. Numbers are little-endian. Of an entry that replaces one, only the
/// pages that differ are written.
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

impl Journal {
    /// Takes up a record. `None` where it is none of ours, whatever its checksum says.
    pub(super) fn apply(&mut self, mut body: &[u8]) -> Option<()> {
        while !body.is_empty() {
            let slot = Slot(u32::from_le_bytes(take(&mut body)?));
            let [flags] = take(&mut body)?;
            let key = take(&mut body)?;
            let length = u64::from_le_bytes(take(&mut body)?);
            let root = take(&mut body)?;
            let seal = match flags & SEALED {
                0 => None,
                _ => Some(VerifiedSignature { signature: take(&mut body)?, secret: take(&mut body)? }),
            };
            let stamp = match flags & STAMPED {
                0 => None,
                _ => Some(take_stamp(&mut body)?),
            };
            let count = u32::from_le_bytes(take(&mut body)?);
            if flags & REMOVAL != 0 {
                let last = if length == u64::MAX { None } else { Some((Slot(u32::try_from(length).ok()?), root)) };
                self.removal = Some(Removal { slot, key, last });
                continue;
            }
            self.removal = self.removal.filter(|removal| removal.slot != slot);
            if flags & GONE != 0 {
                self.marks.remove(&slot);
                continue;
            }
            let old = self.marks.remove(&slot).filter(|_| flags & WHOLE == 0);
            let (old, mut writer) = old.map(|old| (old.pages, old.writer)).unwrap_or_default();
            let mut changes = BTreeMap::new();
            for _ in 0..count {
                let page = u32::from_le_bytes(take(&mut body)?);
                let size = usize::from(u16::from_le_bytes(take(&mut body)?));
                let (bytes, rest) = body.split_at_checked(size).filter(|_| size <= MAX_PAGE)?;
                body = rest;
                if u64::from(page) >= MAX_PAGES {
                    return None;
                }
                if flags & WRITER != 0 && page == WRITER_PAGE {
                    writer = Writer::decode(bytes).map(Box::new);
                    continue;
                }
                changes.insert(page, bytes);
            }
            let pages = old.with(&changes);
            let (synced, writer_behind) = (flags & SYNCED != 0, flags & OUTGROWN != 0);
            let mark = Checkpoint { key, length, root, synced, writer_behind, seal, stamp, pages, writer };
            (length <= MAX_FEED_BLOCKS).then(|| self.marks.insert(slot, mark))?;
        }
        Some(())
    }
}

fn take_stamp(body: &mut &[u8]) -> Option<Stamp> {
    let (files, [roots]) = (take(body)?, take(body)?);
    let (roots, rest) = body.split_at_checked(usize::from(roots) * ROOT)?;
    *body = rest;
    Some(Stamp { files, roots: roots.into() })
}

pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}
