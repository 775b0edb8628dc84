//! Nodes that contradict each other: two histories of one writer, or damage here.

use super::Feed;
use crate::error::{Conflict, ProofError, PutError, StoreError};
use crate::merkle::{self, index as flat};
use crate::storage::{FileKind, Storage};

/// The most lengths of which a signature is looked for.
const MOST_LENGTHS: u64 = 4096;

/// A length that is signed: in blocks, its root hash, and the signature, which an unsigned feed has not.
type Signed = (u64, [u8; 32], Option<[u8; 64]>);

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

    /// A proof leads up to a node that is held, and has another one below it than the one held: that is of another history, which was taken in
    /// when nothing showed it, or damaged. The message is true in any case.
    pub(super) fn contradiction_within<S: Storage + ?Sized>(&mut self, storage: &mut S, node: u64) -> PutError {
        let held = self.signature(storage, self.length);
        match (self.signed_over(storage, node), held) {
            (Ok(Some((length, root_hash, Some(signature)))), Ok(held)) if length < self.length => {
                conflict(node, (length, root_hash, signature), (self.length, merkle::root_hash(&self.roots), held))
            }
            (Ok(_), Ok(_)) => self.damaged_node(node).into(),
            (Err(error), _) | (_, Err(error)) => error.into(),
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

    fn damaged_node(&self, node: u64) -> StoreError {
        let why = format!("node {node} is not what the nodes around it are made of, and no signature covers it");
        StoreError::damaged(self.slot, FileKind::Tree, why)
    }

    /// The signed length here that a node which is held belongs to: the feed's, or an older one where another history came after it.
    fn signed_over<S: Storage + ?Sized>(&mut self, storage: &mut S, node: u64) -> Result<Option<Signed>, StoreError> {
        let mut top = self.node(storage, node)?;
        while !self.roots.contains(&top) && self.bitfield.node(flat::sibling(top.index)) {
            let sibling = self.node(storage, flat::sibling(top.index))?;
            let Some(parent) = merkle::parent_of(top, sibling) else { break };
            if !self.bitfield.node(parent.index) || self.node(storage, parent.index)? != parent {
                break;
            }
            top = parent;
        }
        if self.roots.contains(&top) {
            let signature = self.signature(storage, self.length)?;
            return Ok(Some((self.length, merkle::root_hash(&self.roots), signature)));
        }
        // It is a root of these lengths.
        let first = flat::right_span(top.index) / 2 + 1;
        let end = flat::right_span(flat::parent(top.index)) / 2 + 1;
        for length in (first..end.min(self.length)).take(MOST_LENGTHS as usize) {
            let Some(signature) = self.signature(storage, length)? else { continue };
            if let Some(roots) = self.roots_of(storage, length)?
                && let root_hash = merkle::root_hash(&roots)
                && self.signature_is_valid(&root_hash, length, &signature)
            {
                return Ok(Some((length, root_hash, Some(signature))));
            }
        }
        Ok(None)
    }
}

fn conflict(node: u64, (length, root_hash, signature): (u64, [u8; 32], [u8; 64]), held: Signed) -> PutError {
    let (held_length, held_root_hash, held_signature) = held;
    let conflict = Conflict { length, root_hash, signature, node, held_length, held_root_hash, held_signature };
    ProofError::Conflict(Box::new(conflict)).into()
}
