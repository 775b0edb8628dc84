//! Taking in a block from a peer, or nodes without one: nothing is kept before it is proven.

use multifeed_proto::{Data, Node};

use super::contradiction::Claim;
use super::covered::Cover;
use super::{Cursor, Feed};
use crate::error::{ProofError, PutError, StoreError};
use crate::limits::{FeedSize, MAX_FEED_BLOCKS, MAX_FEED_BYTES, MAX_PROOF_NODES};
use crate::merkle::{self, index as flat};
use crate::prepared::PreparedData;
use crate::storage::{FileKind, Storage};

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
    /// The block is proven, but not where it begins: nodes that tell that are lost here, and the message left them out. Only nodes were kept. A proof that
    /// builds on nothing that is held may have them.
    Unplaced,
}

/// What a remote's history of a feed turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compared {
    /// It is the one that is held, as far as it goes.
    Same,
    /// It is the one that is held, whose signature was lost: that is staged.
    Signed,
    /// It goes on from the end of the one that is held: that length is known now.
    Grew,
    /// It has this length in blocks, which is more than that of the one that is held, and what was shown of it does not tell of all that is held.
    Unclear(u64),
}

/// What a proof proves.
#[derive(Default)]
struct Proven {
    /// Nodes that are not held yet.
    fresh: Vec<Node>,
    /// The held node at which the climb ended, if it did not end at a signature.
    held: Option<Node>,
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
    /// The block.
    block: u64,
    /// Nodes of the message that were not used yet.
    rest: &'a [Node],
    /// Nodes to keep, if none differs.
    fresh: Vec<Node>,
    /// The first node found that differs from the one held.
    differs: Option<u64>,
    /// What may stand in for nodes that the message left out.
    stands_in: StandsIn,
}

/// Which nodes that are held stand in for those that a message left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StandsIn {
    /// Any, and the climb ends at the first one that is held.
    Held,
    /// Those that lead to roots that are signed. All is looked at, up to the roots.
    Covered,
    /// None. All is looked at, up to the signature.
    Nothing,
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
    /// ([`ProofError::Conflict`]). [`PutError::Contradiction`]: [`resolve`](Self::resolve) finds out which. [`PutError::Store`]: the storage
    /// failed. Nothing was kept in any case.
    pub fn put<S: Storage + ?Sized>(&mut self, storage: &mut S, prepared: PreparedData) -> Result<Put, PutError> {
        self.put_within(storage, prepared, FeedSize::MAX)
    }

    /// As [`put`](Self::put), if the feed may become so large; one that is written here may always.
    ///
    /// # Errors
    /// As [`put`](Self::put), and [`PutError::TooLong`] and [`PutError::TooManyBytes`].
    pub(crate) fn put_within<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        prepared: PreparedData,
        limit: FeedSize,
    ) -> Result<Put, PutError> {
        let PreparedData { data, leaf } = prepared;
        let index = data.index;
        check(&data)?;

        let new_block = data.value.as_ref().filter(|_| !self.has(index));
        let mut proven = self.prove(storage, &data, leaf, StandsIn::Held)?;
        if new_block.is_some() && self.put_cursor.block != index && self.lacks_place(index, &proven) {
            // What was lost here is in a whole proof. JS leaves out of that, too, what it sent before.
            match self.prove(storage, &data, leaf, StandsIn::Covered) {
                Ok(whole) if !self.lacks_place(index, &whole) => proven = whole,
                Ok(_) => return self.keep_nodes_alone(storage, proven),
                Err(PutError::Proof(error)) if !matches!(error, ProofError::Conflict(_)) => {
                    return self.keep_nodes_alone(storage, proven);
                }
                Err(error) => return Err(error),
            }
        }
        self.check_size(&proven, limit)?;
        let length = proven.signed.as_ref().map_or(0, |signed| signed.length);
        if self.awaits_more_than(length) {
            return Ok(Put::Known);
        }
        let grows = length > self.length;
        if grows && self.writable() && self.length > 0 && index != self.length {
            // It is not built on all that is here, and could be of another history, which would be signed over.
            return Ok(Put::Known);
        }
        // The one read that can still fail comes before the first change.
        let offset = match new_block {
            Some(_) => Some(self.put_offset(storage, index, &proven)?),
            None => None,
        };
        if let (Some(offset), Some(value)) = (offset, new_block) {
            let bytes = offset.saturating_add(value.len() as u64);
            let signed = proven.signed.iter().flat_map(|signed| &signed.roots);
            if bytes > signed.fold(0u64, |sum, root| sum.saturating_add(root.size)).max(self.byte_length) {
                // A size that rotted here, and not what the remote sent.
                let why = format!("the nodes before block {index} tell of more bytes than the whole feed has");
                return Err(StoreError::damaged(self.slot, FileKind::Tree, why).into());
            }
            if bytes > limit.bytes && !self.writable() {
                // It was taken in once, and the disk may take no write at its place.
                return Err(PutError::TooManyBytes { bytes, limit: limit.bytes });
            }
        }

        let known = proven.fresh.is_empty();
        let grew = self.keep(proven);
        let (Some(value), Some(offset)) = (new_block, offset) else {
            return Ok(if known { Put::Known } else { Put::Proven { grew } });
        };
        self.staged.put_block(index, offset, value);
        self.bitfield.set(index, true);
        self.writer_behind = self.is_writer_behind();
        self.put_cursor = Cursor { block: index + 1, offset: offset.saturating_add(value.len() as u64) };
        Ok(Put::Stored { grew })
    }

    /// Holds a proof without a block, which builds on nothing that is held, against the history that is held. If it goes on from there,
    /// that is staged.
    ///
    /// # Errors
    /// As [`put_within`](Self::put_within), of which [`ProofError::Conflict`] says that there are two histories, and
    /// [`PutError::Contradiction`] that there may be.
    pub(crate) fn compare<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        data: &Data,
        limit: FeedSize,
    ) -> Result<Compared, PutError> {
        check(data)?;
        let proven = self.prove(storage, data, None, StandsIn::Nothing)?;
        self.check_size(&proven, limit)?;
        match &proven.signed {
            Some(signed) if signed.length == self.length && self.lacks_signature() => {
                self.keep(proven);
                Ok(Compared::Signed)
            }
            Some(signed) if signed.length <= self.length || self.awaits_more_than(signed.length) => Ok(Compared::Same),
            // What of ours is under the nodes that were shown is known only if they begin at its end.
            Some(_) if self.length == 0 || data.index == self.length => {
                self.keep(proven);
                Ok(Compared::Grew)
            }
            signed => Ok(Compared::Unclear(signed.as_ref().map_or(0, |signed| signed.length))),
        }
    }

    /// Refuses a size that is signed and past a bound. A signature that is not the writer's was refused before, as the peer's fault.
    fn check_size(&self, proven: &Proven, limit: FeedSize) -> Result<(), PutError> {
        let Some(signed) = proven.signed.as_ref().filter(|_| !self.writable()) else { return Ok(()) };
        if signed.length > limit.blocks.max(self.length) {
            return Err(PutError::TooLong { length: signed.length, limit: limit.blocks });
        }
        let bytes = signed.roots.iter().fold(0u64, |sum, root| sum.saturating_add(root.size));
        if bytes > limit.bytes.max(self.byte_length) {
            return Err(PutError::TooManyBytes { bytes, limit: limit.bytes });
        }
        Ok(())
    }

    /// Stages the nodes of a block whose place is not known, if what they were held against is signed: the remote may send them only once.
    fn keep_nodes_alone<S: Storage + ?Sized>(&mut self, storage: &mut S, proven: Proven) -> Result<Put, PutError> {
        if let Some(held) = proven.held
            && self.is_covered(storage, held)?
        {
            self.keep(Proven { signed: None, ..proven });
        }
        Ok(Put::Unplaced)
    }

    /// Stages what was proven. Whether the feed grew.
    fn keep(&mut self, proven: Proven) -> bool {
        for node in &proven.fresh {
            self.staged.put_node(node);
            self.bitfield.set_node(node.index);
        }
        let Some(Signed { length, roots, signature }) = proven.signed else { return false };
        if let Some(signature) = signature {
            self.staged.put_signature(length - 1, signature);
            self.note_signature(length);
        }
        if length < self.length {
            return false;
        }
        if let Some(signature) = &signature {
            self.verified(length, signature);
        }
        if length == self.length {
            return false;
        }
        self.writer_behind = self.writable();
        self.length = length;
        self.byte_length = roots.iter().map(|root| root.size).sum();
        self.roots = roots;
        true
    }

    /// Proves what a message says.
    fn prove<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        data: &Data,
        leaf: Option<[u8; 32]>,
        stands_in: StandsIn,
    ) -> Result<Proven, PutError> {
        let leaf_index = 2 * data.index;
        let mut climb = Climb { block: data.index, rest: &data.nodes, fresh: Vec::new(), differs: None, stands_in };
        let all_is_looked_at = stands_in != StandsIn::Held;
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
        if self.is_held(storage, &top, &mut climb)? && !all_is_looked_at {
            return Ok(Proven { held: Some(top), ..Proven::default() });
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
                None => match self.stand_in(storage, sibling_index, stands_in)? {
                    Some(held) => held,
                    // No way further up: it must be a root.
                    None => break,
                },
            };
            let Some(parent) = merkle::parent_of(top, sibling) else {
                return Err(too_large(data, top.index, &[], "a node is past all feeds").into());
            };
            if !self.bitfield.node(top.index) {
                climb.fresh.push(top);
            }
            top = parent;
            if self.is_held(storage, &top, &mut climb)? {
                if let Some(node) = climb.differs {
                    return Err(self.contradiction(storage, node, Claim::Within));
                }
                if !all_is_looked_at || (stands_in == StandsIn::Covered && self.roots.contains(&top)) {
                    let fresh = without_unproven_pair(climb.fresh, leaf_index, pair_unproven);
                    return Ok(Proven { fresh, held: Some(top), signed: None });
                }
            }
        }
        let signed = self.prove_roots(storage, data, top, &mut climb)?;
        Ok(Proven {
            fresh: without_unproven_pair(climb.fresh, leaf_index, pair_unproven),
            held: None,
            signed: Some(signed),
        })
    }

    /// Proves the node at which a climb ended as one of the roots that a signature covers.
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
            } else if let Some(held) = self.stand_in(storage, root, climb.stands_in)? {
                held
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
            return Err(too_large(data, top.index, &roots, "its length is past all feeds").into());
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
                Err(self.contradiction(storage, node, Claim::Signed((length, root_hash, signature))))
            }
            (_, Some(node), _) => Err(ProofError::Mismatch { index, node }.into()),
            (false, None, _) => Err(ProofError::BadSignature { index, length }.into()),
        }
    }

    /// A node that is held and may stand in for one that a message left out.
    fn stand_in<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        index: u64,
        stands_in: StandsIn,
    ) -> Result<Option<Node>, StoreError> {
        match stands_in {
            StandsIn::Held if self.bitfield.node(index) => Ok(Some(self.node(storage, index)?)),
            StandsIn::Covered => match self.marked_readable_node(storage, index)? {
                Some(held) if self.is_covered(storage, held)? => Ok(Some(held)),
                _ => Ok(None),
            },
            StandsIn::Held | StandsIn::Nothing => Ok(None),
        }
    }

    /// The error of a node on the way of a block's proof that is held here and does not lead to roots that are signed, if there is one: then it is no fault of
    /// a remote's that a proof which builds on it does not hold.
    pub(crate) fn damage_on_the_way<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        block: u64,
    ) -> Result<Option<StoreError>, StoreError> {
        let path = core::iter::successors(Some(2 * block), |node| Some(flat::parent(*node)));
        let path = path.take_while(|node| flat::left_span(*node) < 2 * self.length).take(64);
        let beside = path.flat_map(|node| [node, flat::sibling(node)]);
        for index in beside.chain(flat::full_roots(self.length)).collect::<Vec<_>>() {
            if !self.bitfield.node(index) {
                continue;
            }
            let cover = match self.readable_node(storage, index)? {
                Some(node) => self.cover(storage, node)?,
                None => Cover::Unknown,
            };
            if !matches!(cover, Cover::Signed { .. }) {
                return Ok(Some(self.uncovered(index, cover)));
            }
        }
        Ok(None)
    }

    /// Whether this very node is held; notes if another one is. The same hash is never of another size: if the one that is held is proven, the
    /// message lies. No signature shows that if it moved bytes from one leaf of a pair to the other, and it is not a second history.
    fn is_held<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        node: &Node,
        climb: &mut Climb<'_>,
    ) -> Result<bool, PutError> {
        if !self.bitfield.node(node.index) {
            return Ok(false);
        }
        let held = self.node(storage, node.index)?;
        if held.hash == node.hash {
            let same = held.size == node.size;
            let claim = Claim::Size(climb.block);
            return if same { Ok(true) } else { Err(self.contradiction(storage, node.index, claim)) };
        }
        climb.differs.get_or_insert(node.index);
        Ok(false)
    }

    /// Whether a node that tells the place of a block in `data` is neither held nor proven now.
    fn lacks_place(&self, index: u64, proven: &Proven) -> bool {
        let is_known = |root: u64| self.bitfield.node(root) || proven.fresh.iter().any(|node| node.index == root);
        !flat::full_roots(index).all(is_known)
    }

    /// Returns the place of a proven block in `data`. The nodes that tell it are below what the climb proved, or beside its way on to a root.
    /// One that rotted would have the block written over others.
    fn put_offset<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        index: u64,
        proven: &Proven,
    ) -> Result<u64, StoreError> {
        if self.put_cursor.block == index {
            return Ok(self.put_cursor.offset);
        }
        // What is under the node at which the climb ended is proven by it.
        let (mut offset, mut from) = (0u64, 0);
        if let Some(held) = proven.held
            && !self.is_known(storage, held.index)?
        {
            match self.cover(storage, held)? {
                Cover::Signed { start } => (offset, from) = (start, flat::left_span(held.index)),
                // What is above it was lost.
                Cover::Unknown => {}
                cover @ Cover::Misfit { .. } => return Err(self.uncovered(held.index, cover)),
            }
        }
        for root in flat::full_roots(index).filter(|root| *root >= from) {
            let size = match proven.fresh.iter().find(|node| node.index == root) {
                Some(node) => node.size,
                None => self.held_node(storage, root)?.size,
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

/// The error for sizes that add up to more than a feed can have. If one of them was not sent but is held, it may have rotted here: the remote is asked
/// for a whole proof before it is blamed.
#[cold]
fn too_large(data: &Data, top: u64, roots: &[Node], why: &'static str) -> ProofError {
    let index = data.index;
    let path = core::iter::successors(Some(2 * index), |node| Some(flat::parent(*node)).filter(|_| *node < 1 << 60));
    let siblings = path.take_while(|node| flat::depth(*node) <= flat::depth(top)).map(flat::sibling);
    let others = roots.iter().map(|root| root.index).filter(|root| *root != top);
    let held = match roots {
        // The climb ended below the last one.
        [] => siblings.collect(),
        _ => siblings.take_while(|node| flat::depth(*node) < flat::depth(top)).chain(others).collect::<Vec<_>>(),
    };
    let ours = held.into_iter().find(|node| data.nodes.iter().all(|sent| sent.index != *node));
    ours.map_or(ProofError::Malformed { index, why }, |node| ProofError::Mismatch { index, node })
}

/// Refuses what no message about a feed can be.
fn check(data: &Data) -> Result<(), ProofError> {
    let index = data.index;
    let malformed = |why| Err(ProofError::Malformed { index, why });
    if index >= MAX_FEED_BLOCKS {
        return malformed("its index is past all feeds");
    }
    if data.nodes.len() > MAX_PROOF_NODES {
        return malformed("it has more nodes than any proof");
    }
    // Sizes are looked at when they are added up. Above these nodes there is none that a feed cannot have.
    if data.nodes.iter().any(|node| node.index >= 2 * MAX_FEED_BLOCKS - 1) {
        return malformed("a node is past all feeds");
    }
    Ok(())
}

/// A parent's hash covers the sum of its children's sizes, not each. With a block, its own size is certain and so the other
/// one's. Of a pair of leaves that came without a block neither is, and a wrong one would make the true block look false.
fn without_unproven_pair(mut fresh: Vec<Node>, leaf: u64, pair_unproven: bool) -> Vec<Node> {
    if pair_unproven {
        fresh.retain(|node| node.index != leaf && node.index != flat::sibling(leaf));
    }
    fresh
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use multifeed_proto::Request;

    use super::*;
    use crate::feed::Answer;
    use crate::keys::key_pair::KeyPair;
    use crate::storage::{FileId, FileKind, MemoryStorage, Slot};

    fn feed(blocks: &[&'static str]) -> (Feed, MemoryStorage) {
        let pair = KeyPair::from_seed(&[1; 32]);
        let mut disk = MemoryStorage::new();
        let mut feed = Feed::create(&mut disk, Slot(0), pair.public_key(), Some(&pair), None).unwrap();
        for block in blocks {
            feed.append(&mut disk, &[Bytes::from(*block)]).unwrap();
        }
        (feed, disk)
    }

    /// What a remote with these blocks answers to the question for this one.
    fn shown(blocks: &[&'static str], index: u64) -> Data {
        let (mut feed, mut disk) = feed(blocks);
        let request = Request { index, bytes: 0, hash: true, nodes: 0 };
        let Answer::Data(data) = feed.answer(&mut disk, &request).unwrap() else { panic!("no answer") };
        data
    }

    #[test]
    fn what_is_staged_is_held_here_and_shown_to_nobody() {
        let blocks = ["a", "b", "c", "d", "e", "f", "g"];
        let (mut writer, mut theirs) = feed(&blocks);
        let mut disk = MemoryStorage::new();
        let mut reader = Feed::create(&mut disk, Slot(0), writer.key(), None, None).unwrap();
        let request = |index| Request { index, bytes: 0, hash: false, nodes: 0 };
        let mut written = Vec::new();
        for (index, is_flushed) in [(1, true), (2, false), (6, true), (0, false), (5, false), (3, true), (4, true)] {
            let Answer::Data(data) = writer.answer(&mut theirs, &request(index)).unwrap() else { panic!("no answer") };
            assert!(matches!(reader.put(&mut disk, crate::prepared::prepare(data)).unwrap(), Put::Stored { .. }));
            for flushed in [false, true] {
                if flushed && !is_flushed {
                    break;
                }
                if flushed {
                    reader.flush(&mut disk).unwrap();
                    written = (0..7).filter(|&index| reader.has(index)).collect();
                }
                assert!(reader.has(index) && reader.get(&mut disk, index).unwrap().is_some());
                let case = format!("{index}, flushed: {flushed}");
                let listed = |is: &dyn Fn(u64) -> bool| (0..7).filter(|&index| is(index)).collect::<Vec<u64>>();
                assert_eq!(listed(&|index| reader.serves(index)), written, "{case}");
                assert_eq!(listed(&|index| reader.served_word(0) << index >> 63 == 1), written, "{case}");
                assert_eq!(reader.served_runs().flatten().collect::<Vec<_>>(), written, "{case}");
                assert_eq!(reader.last_served(&[]), written.last().copied(), "{case}");
                let bits = crate::bitfield::rle::decode(&reader.served_range(0, 8192, &[]), 1024).unwrap();
                assert_eq!(
                    listed(&|index| bits.first().copied().unwrap_or(0) >> (7 - index) & 1 == 1),
                    written,
                    "{case}"
                );
                for index in 0..7 {
                    let answer = reader.answer(&mut disk, &request(index)).unwrap();
                    assert_eq!(matches!(answer, Answer::Data(_)), written.contains(&index), "{case}: {index}");
                }
            }
        }
    }

    fn compared(ours: &[&'static str], data: &Data) -> Result<Compared, PutError> {
        let (mut feed, mut disk) = feed(ours);
        let before = (feed.len(), feed.byte_len(), feed.is_staged());
        let compared = feed.compare(&mut disk, data, FeedSize::MAX);
        match compared {
            Ok(Compared::Grew) => assert!(feed.len() > before.0 && feed.is_staged()),
            _ => assert_eq!((feed.len(), feed.byte_len(), feed.is_staged()), before),
        }
        compared
    }

    fn is_conflict(compared: &Result<Compared, PutError>) -> bool {
        matches!(compared, Err(PutError::Proof(ProofError::Conflict(_))))
    }

    #[test]
    fn a_history_is_compared_by_all_of_its_roots() {
        let all = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
        for ours in 1..=all.len() {
            for theirs in 1..=all.len() {
                let index = ours.min(theirs - 1);
                let whole = compared(&all[..ours], &shown(&all[..theirs], index as u64));
                let expected = if theirs > ours { Compared::Grew } else { Compared::Same };
                assert!(matches!(whole, Ok(compared) if compared == expected), "{ours} and {theirs}: {whole:?}");
                // Any one block that is another, in ours or theirs.
                for other in 0..ours.min(theirs) {
                    let mut changed = all;
                    changed[other] = "other";
                    let changed = compared(&changed[..ours], &shown(&all[..theirs], index as u64));
                    assert!(is_conflict(&changed), "{ours} and {theirs}, block {other}: {changed:?}");
                }
            }
        }
    }

    #[test]
    fn what_came_too_late_to_tell_is_not_believed() {
        // When the question was asked there was one block here; since then the same one was appended that the remote has, and another.
        let data = shown(&["a", "x", "y", "z"], 1);
        assert!(matches!(compared(&["a"], &data), Ok(Compared::Grew)));
        assert!(matches!(compared(&["a", "x"], &data), Ok(Compared::Unclear(4))));
        assert!(matches!(compared(&["a", "x", "q"], &data), Ok(Compared::Unclear(4))));
        assert!(is_conflict(&compared(&["a", "q"], &data)));
        // The sizes of a pair of leaves, of which their parent knows the sum alone.
        let mut shifted = shown(&["aaa", "b", "c"], 1);
        (shifted.nodes[0].size, shifted.nodes[1].size) = (2, 2);
        let refused = compared(&["aaa", "b", "c"], &shifted);
        assert!(matches!(refused, Err(PutError::Proof(ProofError::Mismatch { .. }))), "{refused:?}");
        // The same if their parent is not known yet: of a writer's feed, and of a reader's.
        let mut shifted = shown(&["a", "b", "ccc", "d"], 3);
        assert_eq!(shifted.nodes[1].index, 4);
        (shifted.nodes[0].size, shifted.nodes[1].size) = (2, 2);
        let refused = compared(&["a", "b", "ccc"], &shifted);
        assert!(matches!(refused, Err(PutError::Proof(ProofError::Mismatch { .. }))), "{refused:?}");
        let (mut feed, mut disk) = feed(&["a", "b", "ccc"]);
        let refused = feed.put(&mut disk, crate::prepare(shifted));
        assert!(matches!(refused, Err(PutError::Proof(ProofError::Mismatch { .. }))), "{refused:?}");
        // Of nothing at all any block's proof tells enough.
        assert!(matches!(compared(&[], &shown(&["a", "x", "y", "z"], 2)), Ok(Compared::Grew)));
    }

    #[test]
    fn a_size_that_rotted_here_is_not_the_remotes_fault() {
        let all = ["a", "b", "ccc", "d", "e"];
        for (length, index, node) in [(3, 2, 4), (3, 0, 4), (2, 1, 0), (4, 3, 4), (5, 4, 3)] {
            let data = shown(&all[..length], index);
            assert!(data.nodes.iter().any(|shown| shown.index == node), "{node}: {data:?}");
            let (mut feed, mut disk) = feed(&all);
            assert!(matches!(feed.compare(&mut disk, &data, FeedSize::MAX), Ok(Compared::Same)));
            feed.flush(&mut disk).unwrap();
            feed.trim();
            let size = crate::feed::files::node_offset(node) + 39;
            disk.write_at(FileId::new(Slot(0), FileKind::Tree), size, &[9]).unwrap();
            let told = feed.compare(&mut disk, &data, FeedSize::MAX);
            let damaged = matches!(told, Err(PutError::Store(StoreError::Damaged { file: FileKind::Tree, .. })));
            assert!(damaged, "{length}, {index}, {node}: {told:?}");
        }
    }

    /// JS leaves out of a whole proof what it sent before on that channel. A node that tells where the block begins is lost here.
    #[test]
    fn of_a_whole_proof_that_was_sent_before_may_be_left_out() {
        let all = ["a", "bc", "def", "g", "hi", "j", "klm", "n"];
        let (mut source, mut their_disk) = feed(&all);
        let mut asked = |index, nodes, left_out: &[u64]| {
            let request = Request { index, bytes: 0, hash: false, nodes };
            let Answer::Data(mut data) = source.answer(&mut their_disk, &request).unwrap() else { panic!("no answer") };
            data.nodes.retain(|node| !left_out.contains(&node.index));
            crate::prepare(data)
        };
        let mut disk = MemoryStorage::new();
        let key = KeyPair::from_seed(&[1; 32]).public_key();
        let mut copy = Feed::create(&mut disk, Slot(0), key, None, None).unwrap();
        for index in [0, 7] {
            let nodes = copy.digest(index);
            copy.put(&mut disk, asked(index, nodes, &[])).unwrap();
        }
        copy.flush(&mut disk).unwrap();
        copy.bitfield.clear_node(9);
        copy.put_cursor = Cursor::default();
        // It says that it holds what is above, as it does.
        let digest = copy.digest(6);
        assert_eq!(copy.put(&mut disk, asked(6, digest, &[])).unwrap(), Put::Unplaced);
        assert_eq!(copy.put(&mut disk, asked(6, 0, &[9])).unwrap(), Put::Unplaced);
        assert!(!copy.has(6));
        assert_eq!(copy.put(&mut disk, asked(6, 0, &[3])).unwrap(), Put::Stored { grew: false });
        copy.flush(&mut disk).unwrap();
        assert_eq!(copy.get_verified(&mut disk, 6).unwrap().unwrap(), "klm");
        assert_eq!(copy.get_verified(&mut disk, 7).unwrap().unwrap(), "n");
        // What stands in has to lead to a root.
        let file = FileId::new(Slot(0), FileKind::Tree);
        disk.write_at(file, crate::feed::files::node_offset(3) + 5, &[9]).unwrap();
        copy.trim();
        copy.bitfield.set(6, false);
        copy.bitfield.clear_node(9);
        copy.put_cursor = Cursor::default();
        assert_eq!(copy.put(&mut disk, asked(6, 0, &[3])).unwrap(), Put::Unplaced);
        assert!(!copy.has(6));
    }

    #[test]
    fn a_writers_feed_grows_by_what_is_built_on_all_of_it_alone() {
        let all = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
        let (mut source, mut their_disk) = feed(&all);
        let mut answer = |index| {
            let request = Request { index, bytes: 0, hash: false, nodes: 0 };
            let Answer::Data(data) = source.answer(&mut their_disk, &request).unwrap() else { panic!("no answer") };
            crate::prepare(data)
        };
        // The last block is another one: the proof of a block after the next does not show it.
        let (mut parted, mut disk) = feed(&["a", "b", "c", "d", "other"]);
        assert!(matches!(parted.put(&mut disk, answer(7)), Ok(Put::Known)));
        assert_eq!((parted.len(), parted.downloaded(), parted.is_staged()), (5, 5, false));
        let told = parted.put(&mut disk, answer(5));
        assert!(matches!(told, Err(PutError::Proof(ProofError::Conflict(_)))), "{told:?}");

        let (mut behind, mut disk) = feed(&all[..5]);
        assert!(matches!(behind.put(&mut disk, answer(7)), Ok(Put::Known)));
        assert!(matches!(behind.put(&mut disk, answer(5)), Ok(Put::Stored { grew: true })));
        assert!(matches!(behind.put(&mut disk, answer(7)), Ok(Put::Stored { grew: false })));
        assert_eq!((behind.len(), behind.downloaded()), (9, 7));
    }

    #[test]
    fn what_is_left_out_or_forged_tells_nothing() {
        let all = ["a", "b", "c", "d", "e", "f", "g"];
        let whole = shown(&all, 3);
        let error = |data: &Data| match compared(&["a", "b", "c"], data) {
            Err(PutError::Proof(error)) => error,
            other => panic!("{other:?}"),
        };
        for gone in 0..whole.nodes.len() {
            let mut data = whole.clone();
            data.nodes.remove(gone);
            assert!(
                matches!(
                    error(&data),
                    ProofError::MissingRoot { .. } | ProofError::Malformed { .. } | ProofError::BadSignature { .. }
                ),
                "without node {gone}: {:?}",
                error(&data)
            );
        }
        let unsigned = Data { signature: None, ..whole.clone() };
        assert!(matches!(error(&unsigned), ProofError::MissingSignature { .. }), "{:?}", error(&unsigned));
        let mut forged = whole.clone();
        forged.signature = Some([1; 64]);
        assert!(matches!(error(&forged), ProofError::BadSignature { .. }));
        for node in 0..whole.nodes.len() {
            let mut data = whole.clone();
            data.nodes[node].hash[5] ^= 1;
            assert!(
                matches!(error(&data), ProofError::BadSignature { .. } | ProofError::Mismatch { .. }),
                "{:?}",
                error(&data)
            );
        }
    }
}
