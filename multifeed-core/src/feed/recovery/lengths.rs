//! Which lengths are signed, and whether their roots are there.

use multifeed_proto::Node;

use super::is_known;
use crate::cores::journal::Checkpoint;
use crate::error::StoreError;
use crate::feed::files::{Files, HEADER, SIGNATURE, SIGNATURES_AT_ONCE, signature_offset};
use crate::feed::{Cursor, Feed};
use crate::limits::{MAX_FEED_BLOCKS, MAX_FEED_BYTES};
use crate::merkle::{self, index as flat};
use crate::storage::{FileKind, Storage};

impl Feed {
    pub(in crate::feed) fn set_roots(&mut self, roots: Vec<Node>) {
        self.length = roots.last().map_or(0, |last| flat::right_span(last.index) / 2 + 1);
        self.byte_length = roots.iter().map(|root| root.size).sum();
        self.roots = roots;
        self.read_cursor = Cursor::default();
    }

    pub(in crate::feed) fn roots_of<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        length: u64,
    ) -> Result<Option<Vec<Node>>, StoreError> {
        self.roots_with(storage, length, None)
    }

    /// As [`roots_of`](Self::roots_of), with this one in its place, whatever is there.
    pub(in crate::feed) fn roots_with<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        length: u64,
        known: Option<Node>,
    ) -> Result<Option<Vec<Node>>, StoreError> {
        gather_roots(length, |root| match known.filter(|known| known.index == root) {
            Some(known) => Ok(Some(known)),
            None => self.marked_readable_node(storage, root),
        })
    }

    /// Returns the roots of a length, if all are there and the signature of that length is theirs. Also returns whether the checkpoint is of this
    /// very length and root: the signature that it is sealed with was verified before.
    pub(super) fn signed_roots<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        length: u64,
        known: Option<&Checkpoint>,
    ) -> Result<Option<(Vec<Node>, bool)>, StoreError> {
        let Some(roots) = self.roots_of(storage, length)? else { return Ok(None) };
        if length == 0 {
            return Ok(Some((roots, false)));
        }
        let root_hash = merkle::root_hash(&roots);
        let known = known.filter(|known| is_known(Some(known), length, &root_hash));
        let valid = match self.readable_signature(storage, length)? {
            Some(signature) => {
                let sealed = known.and_then(|mark| mark.seal).is_some_and(|seal| seal.is_over(&signature));
                let valid = sealed || self.signature_is_valid(&root_hash, length, &signature);
                if valid {
                    self.verified(length, &signature);
                }
                valid
            }
            // An unsigned feed of JS's.
            None => root_hash == *self.key.as_bytes(),
        };
        Ok(valid.then_some((roots, known.is_some())))
    }

    /// Takes the greatest length up to this one that is signed and whose roots are there.
    pub(super) fn find_signed_length<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        most: u64,
    ) -> Result<(), StoreError> {
        let mut end = most;
        let mut buffer = Vec::new();
        // Mostly one of the last is it. Holes are passed over in growing steps.
        let mut step = 4;
        while end > 0 {
            let start = end.saturating_sub(step);
            let data = self.next_entry(storage, FileKind::Signatures, SIGNATURE, start)?;
            if data.is_none_or(|data| data >= end) {
                (end, step) = (start, step * 4);
                continue;
            }
            if step > SIGNATURES_AT_ONCE {
                step = SIGNATURES_AT_ONCE.max(step / 4);
                continue;
            }
            step = SIGNATURES_AT_ONCE.min(step * 4);
            buffer.resize((end - start) as usize * SIGNATURE, 0);
            let count = self.read_signatures(storage, start, &mut buffer)?;
            if buffer[..count].iter().all(|byte| *byte == 0) {
                self.pass_zeros(FileKind::Signatures, count as u64)?;
            }
            for (position, signature) in buffer[..count].chunks_exact(SIGNATURE).enumerate().rev() {
                if signature.iter().all(|byte| *byte == 0) {
                    continue;
                }
                if let Some((roots, _)) = self.signed_roots(storage, start + position as u64 + 1, None)? {
                    self.set_roots(roots);
                    return Ok(());
                }
            }
            end = start;
        }
        self.set_roots(Vec::new());
        Ok(())
    }

    /// How many signatures have their place in the file whole.
    pub(super) fn whole_signatures<S: Storage + ?Sized>(&mut self, storage: &mut S) -> Result<u64, StoreError> {
        let len = Files { storage, slot: self.slot }.len(FileKind::Signatures)?.unwrap_or(0);
        Ok((len.saturating_sub(HEADER as u64) / SIGNATURE as u64).min(MAX_FEED_BLOCKS))
    }

    /// Cuts signatures past the length.
    pub(in crate::feed) fn cut_signatures<S: Storage + ?Sized>(&mut self, storage: &mut S) -> Result<(), StoreError> {
        self.cut_signatures_after(storage, self.length)
    }

    pub(super) fn cut_signatures_after<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        length: u64,
    ) -> Result<(), StoreError> {
        let end = signature_offset(length);
        let mut files = Files { storage, slot: self.slot };
        if files.len(FileKind::Signatures)?.is_some_and(|len| len > end) {
            files.truncate(FileKind::Signatures, end)?;
        }
        Ok(())
    }

    /// The first entry from this one on, in a file of entries of this size, that is not in a hole as a whole.
    pub(in crate::feed) fn next_entry<S: Storage + ?Sized>(
        &self,
        storage: &mut S,
        kind: FileKind,
        size: usize,
        from: u64,
    ) -> Result<Option<u64>, StoreError> {
        let offset = |entry: u64| HEADER as u64 + entry * size as u64;
        let next = Files { storage, slot: self.slot }.next_data(kind, offset(from))?;
        Ok(next.map(|at| from.max(at.saturating_sub(HEADER as u64) / size as u64)))
    }

    /// Counts zeros that had to be read.
    pub(in crate::feed) fn pass_zeros(&mut self, kind: FileKind, bytes: u64) -> Result<(), StoreError> {
        let left = self.zeros_left.checked_sub(bytes).ok_or_else(|| {
            let why = "it is nearly all zeros, and opening this store would read too many of them (`Limits::opening_zeros`): \
                       nothing was changed";
            StoreError::damaged(self.slot, kind, why)
        })?;
        self.zeros_left = left;
        Ok(())
    }
}

/// The roots of a length, each as `find` has it; `None` if one of them is not there, or together they tell of more bytes than a feed can have.
pub(super) fn gather_roots(
    length: u64,
    mut find: impl FnMut(u64) -> Result<Option<Node>, StoreError>,
) -> Result<Option<Vec<Node>>, StoreError> {
    let (mut roots, mut bytes) = (Vec::new(), 0u64);
    for root in flat::full_roots(length) {
        let Some(node) = find(root)? else { return Ok(None) };
        bytes = bytes.saturating_add(node.size);
        roots.push(node);
    }
    Ok((bytes <= MAX_FEED_BYTES).then_some(roots))
}
