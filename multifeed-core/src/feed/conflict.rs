//! Nodes that contradict each other: two histories of one writer, or damage here.

use multifeed_proto::Node;

use super::Feed;
use super::files::{Files, SIGNATURE, SIGNATURES_AT_ONCE, signature_offset};
use crate::error::{Conflict, ProofError, PutError, StoreError};
use crate::merkle::{self, index as flat};
use crate::storage::{FileKind, Storage};

// A search is one call, and no steps between other work: what the message meets, and whose fault it is, hangs on its end. Few can start one: a
// proof that the feed's own writer signed, or, for a copy with holes, a lie about the size of a node that is held. Signatures are valid as they
// are written, so that the first one found ends it, unless the file is damaged. At the worst one call takes 0.34 s (4096 checks, measured with
// signatures that are another length's), or reads 256 MiB of zeros (64 MiB of cached ones took 19 to 44 ms). Holes in the file are not read.

/// Lengths of which a signature is looked for in one go, 256 MiB of them: the next proof that shows the same goes on where this one ended.
const MOST_LENGTHS: u64 = 1 << 22;
/// Signatures that are held against roots in one go.
const MOST_CHECKED: usize = 4096;

/// How far a signature over a node was looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Search {
    /// The node, no root of the feed's length.
    top: Node,
    /// No shorter length has one that is valid.
    from: u64,
}

/// A length that is signed: in blocks, its root hash, and the signature, which an unsigned feed has not.
type Signed = (u64, [u8; 32], Option<[u8; SIGNATURE]>);
/// The same of one that has a signature.
type Other = (u64, [u8; 32], [u8; SIGNATURE]);

impl Feed {
    /// A signed proof has another node than the one held: what that makes of it.
    pub(super) fn contradiction<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        node: u64,
        length: u64,
        root_hash: [u8; 32],
        signature: [u8; 64],
    ) -> PutError {
        match self.signed_over(storage, node) {
            Ok(Some(held)) => conflict(node, (length, root_hash, signature), held),
            Ok(None) => self.damaged_node(node).into(),
            Err(error) => error.into(),
        }
    }

    /// A proof leads up to a node that is held, and has another one below it than the one held. That is of another history, which was taken in
    /// when nothing showed it, or damaged. The message is true in any case.
    pub(super) fn contradiction_within<S: Storage + ?Sized>(&mut self, storage: &mut S, node: u64) -> PutError {
        match self.both_signed(storage, node) {
            Ok(Some((other, held))) => conflict(node, other, held),
            Ok(None) => self.damaged_node(node).into(),
            Err(error) => error.into(),
        }
    }

    /// The proof of a block has the node that is held, with another size.
    pub(super) fn contradiction_of_size<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        block: u64,
        node: u64,
    ) -> PutError {
        match self.signed_over(storage, node) {
            Ok(Some(_)) => ProofError::Mismatch { index: block, node }.into(),
            Ok(None) => self.damaged_node(node).into(),
            Err(error) => error.into(),
        }
    }

    /// The older length that a node which is held belongs to, and the one that all is held of now.
    fn both_signed<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        node: u64,
    ) -> Result<Option<(Other, Signed)>, StoreError> {
        let top = self.top_over(storage, node)?;
        let Some(other) = self.signed_before(storage, top, (MOST_LENGTHS, MOST_CHECKED))? else { return Ok(None) };
        let held = self.signature(storage, self.length)?;
        Ok(Some((other, (self.length, merkle::root_hash(&self.roots), held))))
    }

    fn damaged_node(&self, node: u64) -> StoreError {
        let why = format!(
            "node {node} is not what the nodes around it are made of, and no signature was found that covers it"
        );
        StoreError::damaged(self.slot, FileKind::Tree, why)
    }

    /// The signed length here that a node which is held belongs to: the feed's, or an older one if another history came after it.
    fn signed_over<S: Storage + ?Sized>(&mut self, storage: &mut S, node: u64) -> Result<Option<Signed>, StoreError> {
        let top = self.top_over(storage, node)?;
        if self.roots.contains(&top) {
            let signature = self.signature(storage, self.length)?;
            return Ok(Some((self.length, merkle::root_hash(&self.roots), signature)));
        }
        let older = self.signed_before(storage, top, (MOST_LENGTHS, MOST_CHECKED))?;
        Ok(older.map(|(length, root_hash, signature)| (length, root_hash, Some(signature))))
    }

    /// The highest node that is held and made of this one.
    fn top_over<S: Storage + ?Sized>(&mut self, storage: &mut S, node: u64) -> Result<Node, StoreError> {
        let mut top = self.node(storage, node)?;
        while !self.roots.contains(&top) && self.bitfield.node(flat::sibling(top.index)) {
            let sibling = self.node(storage, flat::sibling(top.index))?;
            let Some(parent) = merkle::parent_of(top, sibling) else { break };
            if !self.bitfield.node(parent.index) || self.node(storage, parent.index)? != parent {
                break;
            }
            top = parent;
        }
        Ok(top)
    }

    /// The first length before the feed's that has this node as a root and is signed. No more than so many lengths are looked at, and signatures
    /// checked, before the next call.
    ///
    /// A writer that appends a million blocks at once signs the last of them alone, so the signature may lie as far away as the node has
    /// blocks below it.
    fn signed_before<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        top: Node,
        (lengths, mut checks): (u64, usize),
    ) -> Result<Option<Other>, StoreError> {
        // It is a root of these lengths.
        let first = flat::right_span(top.index) / 2 + 1;
        let end = (flat::right_span(flat::parent(top.index)) / 2 + 1).min(self.length);
        let searched = self.searched.take().filter(|searched| searched.top == top);
        let mut from = searched.map_or(first, |searched| searched.from);
        let stop = end.min(from.saturating_add(lengths));
        let mut buffer = Vec::new();
        // Position, not length, is what the file counts by.
        while let Some(position) = self.next_signature_place(storage, from - 1, stop.saturating_sub(1))? {
            from = position + 1;
            let count = (stop - from).min(SIGNATURES_AT_ONCE);
            buffer.clear();
            buffer.resize(count as usize * SIGNATURE, 0);
            Files { storage, slot: self.slot }.read(FileKind::Signatures, signature_offset(from - 1), &mut buffer)?;
            for (length, written) in (from..).zip(buffer.chunks_exact(SIGNATURE)) {
                let staged = self.staged.signature(length - 1);
                let signature = staged.or_else(|| written.try_into().ok()).filter(|bytes| *bytes != [0; SIGNATURE]);
                let Some(signature) = signature else { continue };
                if checks == 0 {
                    self.searched = Some(Box::new(Search { top, from: length }));
                    return Ok(None);
                }
                checks -= 1;
                if let Some(roots) = self.roots_of(storage, length)?
                    && let root_hash = merkle::root_hash(&roots)
                    && self.signature_is_valid(&root_hash, length, &signature)
                {
                    self.searched = Some(Box::new(Search { top, from: length }));
                    return Ok(Some((length, root_hash, signature)));
                }
            }
            from += count;
        }
        from = from.max(stop);
        self.searched = (from < end).then(|| Box::new(Search { top, from }));
        Ok(None)
    }
}

fn conflict(node: u64, (length, root_hash, signature): Other, held: Signed) -> PutError {
    let (held_length, held_root_hash, held_signature) = held;
    let conflict = Conflict { length, root_hash, signature, node, held_length, held_root_hash, held_signature };
    ProofError::Conflict(Box::new(conflict)).into()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::keys::key_pair::KeyPair;
    use crate::storage::{MemoryStorage, Slot};

    /// A feed that signed every length, the node over its first four blocks, and a disk on which the signatures of some lengths are no more
    /// what they were.
    fn signed(len: u64, wrong: &[u64], lost: &[u64]) -> (Feed, MemoryStorage, Node) {
        let mut disk = MemoryStorage::new();
        let pair = KeyPair::from_seed(&[1; 32]);
        let mut feed = Feed::create(&mut disk, Slot(0), pair.public_key(), Some(&pair), None).unwrap();
        for _ in 0..len {
            feed.append(&mut disk, &[Bytes::from_static(b"x")]).unwrap();
        }
        let file = crate::storage::FileId::new(Slot(0), FileKind::Signatures);
        for (lengths, byte) in [(wrong, 7), (lost, 0)] {
            for length in lengths {
                disk.write_at(file, signature_offset(length - 1), &[byte; SIGNATURE]).unwrap();
            }
        }
        let top = feed.node(&mut disk, 3).unwrap();
        (feed, disk, top)
    }

    #[test]
    fn a_search_goes_on_where_it_ended() {
        // The node is a root of the lengths from 4 to 7.
        for (wrong, lost, bounds, gone, found) in [
            (&[][..], &[][..], (4, 4), 0, Some(4)),
            (&[], &[4, 5, 6], (4, 1), 0, Some(7)),
            (&[], &[4, 5, 6], (1, 1), 3, Some(7)),
            (&[4, 5], &[6], (4, 1), 2, Some(7)),
            (&[4, 5], &[6], (4, 3), 0, Some(7)),
            (&[4], &[5, 6], (3, 9), 1, Some(7)),
            (&[4, 5], &[6, 7], (4, 2), 0, None),
            (&[4, 5, 6, 7], &[], (1, 1), 3, None),
        ] {
            let (mut feed, mut disk, top) = signed(9, wrong, lost);
            let case = format!("{wrong:?}, {lost:?}, {bounds:?}");
            for _ in 0..gone {
                assert!(feed.signed_before(&mut disk, top, bounds).unwrap().is_none(), "{case}");
                assert!(feed.searched.is_some(), "{case}");
            }
            for again in [false, true] {
                let told = feed.signed_before(&mut disk, top, bounds).unwrap().map(|(length, ..)| length);
                assert_eq!(told, found, "{case}, again: {again}");
                // What was found is found again at once; if nothing was, a signature may come.
                assert_eq!(feed.searched.as_ref().map(|searched| searched.from), found, "{case}");
                if found.is_none() {
                    break;
                }
            }
            // Another node is looked for from its own beginning.
            let other = feed.node(&mut disk, 0).unwrap();
            assert_eq!(feed.signed_before(&mut disk, other, (4, 4)).unwrap().map(|(length, ..)| length), Some(1));
        }
        // The length that all is held of is not before itself.
        let (mut feed, mut disk, top) = signed(7, &[], &[4, 5, 6]);
        assert!(feed.signed_before(&mut disk, top, (4, 4)).unwrap().is_none());
    }
}
