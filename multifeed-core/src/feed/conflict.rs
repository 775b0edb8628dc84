//! Nodes that contradict each other: two histories of one writer, or damage here.

use multifeed_proto::Node;

use super::contradiction::{Claim, Contradiction, Other, Search};
use super::files::SIGNATURE;
use super::{Feed, SignatureSearch};
use crate::error::{Conflict, ProofError, PutError, StoreError};
use crate::merkle::{self, index as flat};
use crate::storage::{FileKind, Storage};

// A signature is valid as it is written, so that the first one found ends a search, unless the file is damaged. Few can start one: a proof that
// the feed's own writer signed, or, for a copy with holes, a lie about the size of a node that is held. Holes in the file are not read.

/// Signatures that are read in one step: 1 MiB.
const MOST_READ: u64 = (1 << 20) / SIGNATURE as u64;
/// Signatures that are held against roots in one step.
const MOST_CHECKED: usize = 64;

/// What a step of a search came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Signature(Other),
    /// Nothing yet, and there is more to look at.
    NotYet,
    /// Nothing, and all was looked at.
    Nothing,
}

/// A length that is signed: in blocks, its root hash, and the signature, which an unsigned feed has not.
type Signed = (u64, [u8; 32], Option<[u8; SIGNATURE]>);

impl Feed {
    /// A proof has another node than the one held: what that makes of it, or [`PutError::Contradiction`] if one step does not tell.
    pub(super) fn contradiction<S: Storage + ?Sized>(&mut self, storage: &mut S, node: u64, claim: Claim) -> PutError {
        let mut contradiction = Contradiction { node, claim, search: None };
        let error = self.resolve(storage, &mut contradiction);
        error.unwrap_or_else(|| PutError::Contradiction(Box::new(contradiction)))
    }

    /// Looks on for what a contradiction makes of a proof: the error that it deserves, or `None` if there is more to look at. One call reads at
    /// most 1 MiB of signatures, and checks 64 of them.
    pub fn resolve<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        contradiction: &mut Contradiction,
    ) -> Option<PutError> {
        self.look_on(storage, contradiction).unwrap_or_else(|error| Some(error.into()))
    }

    fn look_on<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        Contradiction { node, claim, search }: &mut Contradiction,
    ) -> Result<Option<PutError>, StoreError> {
        let (node, claim) = (*node, *claim);
        let top = self.top_over(storage, node)?;
        let older = if self.roots.contains(&top) && claim != Claim::Within {
            None
        } else {
            let search = match search {
                Some(search) if search.top == top => search,
                _ => search.insert(self.search_of(top)),
            };
            match self.search(storage, search)? {
                Found::Signature(older) => Some(older),
                Found::NotYet => return Ok(None),
                Found::Nothing => return Ok(Some(self.damaged_node(node).into())),
            }
        };
        let held = (self.length, merkle::root_hash(&self.roots), self.signature(storage, self.length)?);
        let signed = |(length, root_hash, signature): Other| (length, root_hash, Some(signature));
        Ok(Some(match (claim, older) {
            (Claim::Size(block), _) => ProofError::Mismatch { index: block, node }.into(),
            (Claim::Signed(claimed), older) => conflict(node, claimed, older.map_or(held, signed)),
            (Claim::Within, Some(older)) => conflict(node, older, held),
            (Claim::Within, None) => self.damaged_node(node).into(),
        }))
    }

    /// A signature of this length was staged: no search has seen it.
    pub(super) fn note_signature(&mut self, length: u64) {
        if let Some(searched) = &mut self.searched {
            searched.from = searched.from.min(length);
        }
    }

    fn damaged_node(&self, node: u64) -> StoreError {
        let why = format!(
            "node {node} is not what the nodes around it are made of, and no signature was found that covers it"
        );
        StoreError::damaged(self.slot, FileKind::Tree, why)
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

    /// Where to begin to look for a signature over a node: where the last search ended, if that was of the same.
    fn search_of(&self, top: Node) -> Search {
        // It is a root of the lengths from this one on.
        let first = flat::right_span(top.index) / 2 + 1;
        let searched = self.searched.as_deref().filter(|searched| searched.top == top);
        Search { top, from: searched.map_or(first, |searched| searched.from.max(first)) }
    }

    /// Takes one step in search of the first length before the feed's that has a node as a root and is signed.
    fn search<S: Storage + ?Sized>(&mut self, storage: &mut S, search: &mut Search) -> Result<Found, StoreError> {
        let found = self.search_within(storage, search, (MOST_READ, MOST_CHECKED))?;
        if found != Found::NotYet {
            self.searched = Some(Box::new(*search));
        }
        Ok(found)
    }

    /// As [`search`](Self::search), by no more signatures than that, which are read and checked.
    ///
    /// A writer that appends a million blocks at once signs the last of them alone, so the signature may lie as far away as the node has
    /// blocks below it.
    fn search_within<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        Search { top, from }: &mut Search,
        (mut reads, checks): (u64, usize),
    ) -> Result<Found, StoreError> {
        let end = (flat::right_span(flat::parent(top.index)) / 2 + 1).min(self.length);
        for _ in 0..checks {
            // Position, not length, is what the file counts by.
            let (length, signature) =
                match self.signature_within(storage, *from - 1..end.saturating_sub(1), &mut reads)? {
                    SignatureSearch::Found(length, signature) => (length, signature),
                    SignatureSearch::From(position) => {
                        *from = position + 1;
                        return Ok(Found::NotYet);
                    }
                    SignatureSearch::Absent => {
                        *from = end.max(*from);
                        return Ok(Found::Nothing);
                    }
                };
            let root_hash = self.roots_of(storage, length)?.map(|roots| merkle::root_hash(&roots));
            if let Some(root_hash) = root_hash.filter(|hash| self.signature_is_valid(hash, length, &signature)) {
                *from = length;
                return Ok(Found::Signature((length, root_hash, signature)));
            }
            *from = length + 1;
        }
        Ok(Found::NotYet)
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
    use crate::feed::files::signature_offset;
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
            (&[4, 5], &[6, 7], (4, 2), 1, None),
            (&[4, 5, 6, 7], &[], (1, 1), 4, None),
        ] {
            let (mut feed, mut disk, top) = signed(9, wrong, lost);
            let case = format!("{wrong:?}, {lost:?}, {bounds:?}");
            let mut search = feed.search_of(top);
            for _ in 0..gone {
                assert_eq!(feed.search_within(&mut disk, &mut search, bounds).unwrap(), Found::NotYet, "{case}");
            }
            let told = feed.search_within(&mut disk, &mut search, bounds).unwrap();
            assert_eq!(length(told), found, "{case}");
            assert_eq!(search.from, found.unwrap_or(8), "{case}");
        }
        // The length that all is held of is not before itself.
        let (mut feed, mut disk, top) = signed(7, &[], &[4, 5, 6]);
        let mut search = feed.search_of(top);
        assert_eq!(feed.search_within(&mut disk, &mut search, (4, 4)).unwrap(), Found::Nothing);
    }

    fn length(found: Found) -> Option<u64> {
        match found {
            Found::Signature((length, ..)) => Some(length),
            Found::Nothing => None,
            Found::NotYet => panic!("there is more to look at"),
        }
    }

    #[test]
    fn what_a_search_found_is_known_and_what_it_did_not_find_may_come() {
        for (wrong, found) in [(&[4][..], Some(5)), (&[4, 5, 6, 7], None)] {
            let (mut feed, mut disk, top) = signed(9, wrong, &[]);
            for _ in 0..2 {
                let mut search = feed.search_of(top);
                assert_eq!(length(feed.search(&mut disk, &mut search).unwrap()), found);
                assert_eq!(feed.search_of(top).from, found.unwrap_or(8));
            }
            // Another node is looked for from its own beginning.
            let other = feed.node(&mut disk, 0).unwrap();
            assert_eq!(feed.search_of(other).from, 1);
            let pair = feed.key_pair().unwrap().clone();
            let roots = feed.roots_of(&mut disk, 4).unwrap().unwrap();
            feed.staged.put_signature(3, pair.sign(&merkle::signable(&merkle::root_hash(&roots), 4)));
            feed.note_signature(4);
            let mut search = feed.search_of(top);
            assert_eq!(length(feed.search(&mut disk, &mut search).unwrap()), Some(4));
        }
    }

    #[test]
    fn a_step_reads_no_more_than_a_mebibyte_and_checks_no_more_than_64() {
        let mut disk = MemoryStorage::new();
        let pair = KeyPair::from_seed(&[1; 32]);
        let mut feed = Feed::create(&mut disk, Slot(0), pair.public_key(), Some(&pair), None).unwrap();
        feed.append(&mut disk, &vec![Bytes::new(); (1 << 16) + 1]).unwrap();
        let file = crate::storage::FileId::new(Slot(0), FileKind::Signatures);
        let first = 1 << 15;
        let top = feed.node(&mut disk, first - 1).unwrap();
        // It is a root of the lengths up to 65535, of which none is signed. Zeros that are written are no hole.
        for (byte, reached) in [(0, MOST_READ), (7, MOST_CHECKED as u64)] {
            disk.write_at(file, signature_offset(first - 1), &vec![byte; SIGNATURE << 15]).unwrap();
            let mut search = Search { top, from: first };
            assert_eq!(feed.search(&mut disk, &mut search).unwrap(), Found::NotYet);
            assert_eq!(search.from, first + reached);
        }
    }
}
