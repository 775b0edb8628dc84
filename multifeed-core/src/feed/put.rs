//! Taking in a block from a peer, or nodes without one: nothing is kept before it is proven.

use multifeed_proto::{Data, Node};

use super::{Cursor, Feed};
use crate::error::{Conflict, ProofError, PutError, StoreError};
use crate::limits::{MAX_FEED_BLOCKS, MAX_FEED_BYTES, MAX_PROOF_NODES};
use crate::merkle::{self, index as flat};
use crate::prepared::PreparedData;
use crate::storage::Storage;

/// What became of a Data message that was proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The block was not held and now is.
    Stored {
        /// Whether the feed's length grew with it.
        grew: bool,
    },
    /// Only nodes were kept: the message had no block, or one that is held.
    Proven {
        /// Whether the feed's length grew with it.
        grew: bool,
    },
    /// All of it was known.
    Known,
}

/// What a proof proves.
#[derive(Default)]
struct Proven {
    /// Nodes that are not held yet.
    fresh: Vec<Node>,
    signed: Option<Signed>,
}

/// A length that a signature (or, in an unsigned feed, the key) covers.
struct Signed {
    length: u64,
    roots: Vec<Node>,
    signature: Option<[u8; 64]>,
}

/// A climb from a block to something that is known.
struct Climb<'a> {
    /// Nodes of the message that were not used yet.
    rest: &'a [Node],
    /// Nodes to be kept, where none differs.
    fresh: Vec<Node>,
    /// The first node found that differs from the one held.
    differs: Option<u64>,
}

impl Feed {
    /// Proves a block, or nodes without one, against a node that is held or against the writer's signature, and stages it.
    /// The next calls see it at once; [`flush`](Self::flush) writes it.
    ///
    /// Whether the block was asked for is the caller's matter. Without a block only nodes are kept, and of these not a pair of
    /// leaves whose sizes nothing proves one by one.
    ///
    /// # Errors
    /// [`PutError::Proof`]: the peer sent what it cannot prove, or the writer signed two histories
    /// ([`ProofError::Conflict`]). [`PutError::Store`]: the storage failed. Nothing was kept in any case.
    pub fn put<S: Storage + ?Sized>(&mut self, storage: &mut S, prepared: PreparedData) -> Result<Put, PutError> {
        let PreparedData { data, leaf } = prepared;
        let index = data.index;
        let malformed = |why| ProofError::Malformed { index, why };
        if index >= MAX_FEED_BLOCKS {
            return Err(malformed("its index is past all feeds").into());
        }
        if data.nodes.len() > MAX_PROOF_NODES {
            return Err(malformed("it has more nodes than any proof").into());
        }
        // Sizes are looked at where they are added up. Above these nodes there is none that a feed cannot have.
        if data.nodes.iter().any(|node| node.index >= 2 * MAX_FEED_BLOCKS - 1) {
            return Err(malformed("a node is past all feeds").into());
        }

        let proven = self.prove(storage, &data, leaf)?;
        let new_block = data.value.as_ref().filter(|_| !self.has(index));
        // The one read that can still fail comes before the first change.
        let offset = match new_block {
            Some(_) => Some(self.put_offset(storage, index, &proven)?),
            None => None,
        };

        let known = proven.fresh.is_empty();
        for node in &proven.fresh {
            self.staged.put_node(node);
            self.bitfield.set_node(node.index);
        }
        let grew = proven.signed.is_some_and(|signed| self.keep_signed(signed));
        let (Some(value), Some(offset)) = (new_block, offset) else {
            return Ok(if known { Put::Known } else { Put::Proven { grew } });
        };
        self.staged.put_block(offset, value);
        self.bitfield.set(index, true);
        self.put_cursor = Cursor { block: index + 1, offset: offset.saturating_add(value.len() as u64) };
        Ok(Put::Stored { grew })
    }

    /// Takes up a length that was proven. Whether the feed grew with it.
    fn keep_signed(&mut self, Signed { length, roots, signature }: Signed) -> bool {
        if let Some(signature) = signature {
            self.staged.put_signature(length - 1, signature);
        }
        let grew = length > self.length;
        if grew {
            self.length = length;
            self.byte_length = roots.iter().map(|root| root.size).sum();
            self.roots = roots;
            if let Some(signature) = &signature {
                self.verified(length, signature);
            }
        }
        grew
    }

    fn prove<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        data: &Data,
        leaf: Option<[u8; 32]>,
    ) -> Result<Proven, PutError> {
        let leaf_index = 2 * data.index;
        let mut climb = Climb { rest: &data.nodes, fresh: Vec::new(), differs: None };
        let mut top = match (&data.value, leaf) {
            (Some(value), Some(hash)) => Node { index: leaf_index, hash, size: value.len() as u64 },
            _ => match climb.take(leaf_index) {
                Some(node) => *node,
                None => {
                    let why = "it has neither the block nor its hash";
                    return Err(ProofError::Malformed { index: data.index, why }.into());
                }
            },
        };
        let block = data.value.is_some();
        if self.is_held(storage, &top, &mut climb)? {
            return Ok(Proven::default());
        }
        let mut pair_unproven = false;
        loop {
            let sibling_index = flat::sibling(top.index);
            let sibling = match climb.take(sibling_index) {
                Some(theirs) => {
                    if !self.is_held(storage, theirs, &mut climb)? {
                        pair_unproven |= top.index == leaf_index && !block;
                        climb.fresh.push(*theirs);
                    }
                    *theirs
                }
                None if self.bitfield.node(sibling_index) => self.node(storage, sibling_index)?,
                // No way further up: it must be a root.
                None => break,
            };
            let Some(parent) = merkle::parent_of(top, sibling) else {
                let why = "a node is past all feeds";
                return Err(ProofError::Malformed { index: data.index, why }.into());
            };
            if !self.bitfield.node(top.index) {
                climb.fresh.push(top);
            }
            top = parent;
            if self.is_held(storage, &top, &mut climb)? {
                return match climb.differs {
                    Some(node) => Err(ProofError::Mismatch { index: data.index, node }.into()),
                    None => Ok(Proven { fresh: settle(climb.fresh, leaf_index, pair_unproven), signed: None }),
                };
            }
        }
        let signed = self.prove_roots(storage, data, top, &mut climb)?;
        Ok(Proven { fresh: settle(climb.fresh, leaf_index, pair_unproven), signed: Some(signed) })
    }

    /// Proves the node where a climb ended as one of the roots that a signature covers.
    fn prove_roots<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        data: &Data,
        top: Node,
        climb: &mut Climb<'_>,
    ) -> Result<Signed, PutError> {
        let index = data.index;
        let last = climb.rest.last().map_or(0, |node| flat::right_span(node.index));
        let length = flat::right_span(top.index).max(last) / 2 + 1;
        let mut roots = Vec::with_capacity(8);
        for root in flat::full_roots(length) {
            let node = if root == top.index {
                if !self.bitfield.node(root) {
                    climb.fresh.push(top);
                }
                top
            } else if let Some(theirs) = climb.take(root) {
                if !self.is_held(storage, theirs, climb)? {
                    climb.fresh.push(*theirs);
                }
                *theirs
            } else if self.bitfield.node(root) {
                self.node(storage, root)?
            } else {
                return Err(ProofError::MissingRoot { index, node: root }.into());
            };
            roots.push(node);
        }
        // Else the signature would say nothing of the block. JS does not look.
        if !roots.iter().any(|root| root.index == top.index) {
            return Err(ProofError::MissingRoot { index, node: top.index }.into());
        }
        let bytes = roots.iter().fold(0u64, |sum, root| sum.saturating_add(root.size));
        if bytes > MAX_FEED_BYTES {
            return Err(ProofError::Malformed { index, why: "its length is past all feeds" }.into());
        }

        let root_hash = merkle::root_hash(&roots);
        let valid = match &data.signature {
            Some(signature) => self.signature_is_valid(&root_hash, length, signature),
            None if root_hash == *self.key.as_bytes() => true,
            None => match climb.differs {
                Some(node) => return Err(ProofError::Mismatch { index, node }.into()),
                None => return Err(ProofError::MissingSignature { index, length }.into()),
            },
        };
        match (valid, climb.differs, data.signature) {
            (true, None, signature) => Ok(Signed { length, roots, signature }),
            (true, Some(node), Some(signature)) => {
                let held_length = self.length;
                Err(ProofError::Conflict(Box::new(Conflict {
                    length,
                    root_hash,
                    signature,
                    node,
                    held_length,
                    held_root_hash: merkle::root_hash(&self.roots),
                    held_signature: self.signature(storage, held_length)?,
                }))
                .into())
            }
            (_, Some(node), _) => Err(ProofError::Mismatch { index, node }.into()),
            (false, None, _) => Err(ProofError::BadSignature { index, length }.into()),
        }
    }

    /// Whether this very node is held; notes where another one is.
    fn is_held<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        node: &Node,
        climb: &mut Climb<'_>,
    ) -> Result<bool, StoreError> {
        if !self.bitfield.node(node.index) {
            return Ok(false);
        }
        let held = self.node(storage, node.index)?;
        if held.hash == node.hash && held.size == node.size {
            return Ok(true);
        }
        climb.differs.get_or_insert(node.index);
        Ok(false)
    }

    /// Where a proven block goes in `data`.
    fn put_offset<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        index: u64,
        proven: &Proven,
    ) -> Result<u64, StoreError> {
        if self.put_cursor.block == index {
            return Ok(self.put_cursor.offset);
        }
        let mut offset = 0u64;
        for root in flat::full_roots(index) {
            let size = match proven.fresh.iter().find(|node| node.index == root) {
                Some(node) => node.size,
                None => self.node(storage, root)?.size,
            };
            offset = offset.saturating_add(size);
        }
        Ok(offset)
    }
}

impl<'a> Climb<'a> {
    /// The message's next node, if it is this one.
    fn take(&mut self, index: u64) -> Option<&'a Node> {
        let (first, rest) = self.rest.split_first()?;
        if first.index != index {
            return None;
        }
        self.rest = rest;
        Some(first)
    }
}

/// A parent's hash covers the sum of its children's sizes, not each. With a block, its own size is certain and so the other
/// one's; of a pair of leaves that came without a block neither is, and a wrong one would make the true block look false.
fn settle(mut fresh: Vec<Node>, leaf: u64, pair_unproven: bool) -> Vec<Node> {
    if pair_unproven {
        fresh.retain(|node| node.index != leaf && node.index != flat::sibling(leaf));
    }
    fresh
}
