//! Checking what was read of the disk before it leaves the store: bits rot.
//!
//! What a remote gets that does not fit looks like a fault of ours, and a JS peer ends its whole stream over it. So a block is held against
//! its leaf, and a node against those above it up to a root, which the writer's signature covers. That is done once for as long as it stays
//! in a cache, for any number of remotes and requests. What is in memory does not rot, and a block or a node that is held never changes.

use bytes::Bytes;
use multifeed_proto::Node;

use super::covered::Cover;
use super::files::SIGNATURE;
use super::{CheckedSignature, Cursor, Feed};
use crate::cores::journal::VerifiedSignature;
use crate::error::StoreError;
use crate::merkle::{self, index as flat};
use crate::storage::{FileKind, Storage};

/// Blocks of a window that are checked together: as many as are hashed at a time.
const CHECKED_TOGETHER: usize = 16;

/// A signature that was checked.
pub(super) struct Signed {
    pub(super) signature: [u8; SIGNATURE],
    /// The roots that it is over, unless those are the newest.
    pub(super) roots: Vec<Node>,
}

impl Feed {
    /// As [`get`](Self::get), and checked against the block's leaf, unless it comes from a cache and was checked there.
    ///
    /// # Errors
    /// As [`get`](Self::get); [`StoreError::Damaged`] also if the block has another hash, and it is not the leaf alone that is damaged.
    pub fn get_verified<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        index: u64,
    ) -> Result<Option<Bytes>, StoreError> {
        match self.get_checked(storage, index) {
            Err(StoreError::Damaged { .. }) if self.regain_rotten_leaf(storage, index)? => {
                self.get_checked(storage, index)
            }
            read => read,
        }
    }

    /// Makes the leaf of a block, or of the one beside it, again of its block, if the tree has another and what is above and beside it proves it.
    /// Whether that was so. The next write puts it back.
    pub(super) fn regain_rotten_leaf<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        index: u64,
    ) -> Result<bool, StoreError> {
        for block in [index, index ^ 1] {
            let before = self.readable_node(storage, 2 * block)?;
            if self.has(block) && self.remake_leaf(storage, block)? && self.readable_node(storage, 2 * block)? != before
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn get_checked<S: Storage + ?Sized>(&mut self, storage: &mut S, index: u64) -> Result<Option<Bytes>, StoreError> {
        if self.has(index)
            && let Some(block) = self.checked_block(index)
        {
            return Ok(Some(block));
        }
        let in_order = self.read_cursor.block == index;
        let Some(block) = self.get(storage, index)? else { return Ok(None) };
        let leaf = self.node(storage, 2 * index)?;
        // After `get` the cursor is at the block's end.
        let mut place = self.read_cursor;
        let start = place.offset.saturating_sub(leaf.size);
        // What is staged may not be in the window yet, which has zeros in its place.
        let cached = self.window.get(start, block.len()).is_some_and(|cached| cached == block);
        let mut run = Vec::with_capacity(CHECKED_TOGETHER);
        run.push((leaf, block.clone()));
        // One that follows another in the window is read in order, and so will be those after it.
        if cached && self.window.follows(index) {
            self.read_neighbours(storage, &mut place, &mut run)?;
        }
        let mut hashes = Vec::with_capacity(run.len());
        match &run[..] {
            [(leaf, block)] if self.large.knows(leaf, block) => hashes.push(leaf.hash),
            run => merkle::leaf_hashes(run.iter().map(|(_, block)| &block[..]), &mut hashes),
        }
        let fits = hashes.iter().zip(&run).take_while(|(hash, (leaf, _))| **hash == leaf.hash).count();
        // A wrong size must not shift what comes after.
        if fits == 0 {
            self.read_cursor = Cursor::default();
            let why = format!("block {index} does not have the hash that the tree tells");
            return Err(StoreError::damaged(self.slot, FileKind::Data, why));
        }
        if let Some(cover) = self.misplaced(storage, leaf, start, in_order)? {
            self.read_cursor = Cursor::default();
            return Err(self.uncovered(leaf.index, cover));
        }
        self.large.know(&leaf, &block);
        if cached {
            let mut offset = start;
            for (at, (leaf, block)) in run[..fits].iter().enumerate() {
                if at > 0 && self.misplaced(storage, *leaf, offset, true)?.is_some() {
                    break;
                }
                self.window.check(leaf.index / 2, offset, block.len());
                offset = offset.saturating_add(leaf.size);
            }
        }
        Ok(Some(block))
    }

    /// Of a block that has the hash of its leaf, why it is not the one that belongs there: the leaf, or nodes that tell where it begins, do not fit those above
    /// them. What was lost above them does not count, if no node near it is wrong. One read in order begins where the one before it, which was looked at, ends.
    pub(super) fn misplaced<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        leaf: Node,
        start: u64,
        in_order: bool,
    ) -> Result<Option<Cover>, StoreError> {
        let mut proven = self.is_known(storage, leaf.index)?;
        for root in flat::full_roots(leaf.index / 2).filter(|_| !in_order) {
            proven = proven && self.bitfield.node(root) && self.is_known(storage, root)?;
        }
        if proven {
            return Ok(None);
        }
        let cover = self.cover(storage, leaf)?;
        Ok(match cover {
            Cover::Signed { start: place } => {
                self.nodes.proved(leaf.index);
                (place != start).then_some(cover)
            }
            Cover::Unknown => self.misfits_near(storage, leaf.index)?.then_some(cover),
            Cover::Misfit { .. } => Some(cover),
        })
    }

    /// Whether a node is known to be as the roots say, or is proven now.
    pub(super) fn is_known<S: Storage + ?Sized>(&mut self, storage: &mut S, index: u64) -> Result<bool, StoreError> {
        match self.node_checked(storage, index) {
            Ok((node, known)) => Ok(known || self.prove_node(storage, node, &[]).unwrap_or(false)),
            Err(error) if error.is_of_one_place() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A block that is held, from the cache, if it was checked there.
    pub(super) fn checked_block(&mut self, index: u64) -> Option<Bytes> {
        let (block, end) = self.window.checked(index).or_else(|| self.large.take(index))?;
        self.read_cursor = Cursor { block: index + 1, offset: end };
        Some(block)
    }

    /// Adds the blocks that follow in the window, as many as are checked together.
    fn read_neighbours<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        place: &mut Cursor,
        run: &mut Vec<(Node, Bytes)>,
    ) -> Result<(), StoreError> {
        while run.len() < CHECKED_TOGETHER && self.has(place.block) {
            // Whoever asks for a block whose leaf was lost has it made again.
            let Some(leaf) = self.find_node(storage, 2 * place.block)? else { break };
            let size = usize::try_from(leaf.size).ok();
            let Some(block) = size.and_then(|size| self.window.get(place.offset, size)) else { break };
            *place = Cursor { block: place.block + 1, offset: place.offset.saturating_add(leaf.size) };
            run.push((leaf, block));
        }
        Ok(())
    }

    /// The nodes of a proof of `node`, all of which are held, checked. `signed` are roots of another length that were checked against its
    /// signature: those of a sparse feed may have nothing else around them.
    ///
    /// # Errors
    /// The storage's error; [`StoreError::Damaged`] if one of them does not fit those around it.
    pub(super) fn checked_nodes<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        node: u64,
        proof: &[u64],
        signed: &[Node],
    ) -> Result<Vec<Node>, StoreError> {
        let mut nodes = Vec::with_capacity(proof.len());
        let mut proven = true;
        let may_be_staged = self.staged.has_nodes();
        for &index in proof {
            if !may_be_staged && let Some(found) = self.nodes.get_proven(index) {
                nodes.push(found);
                continue;
            }
            let (found, known) = self.node_checked(storage, index)?;
            // What cannot be read further up says nothing of this one.
            proven = proven && (known || self.prove_node(storage, found, signed).unwrap_or(false));
            nodes.push(found);
        }
        if !proven && let Err(error) = self.check_nodes_near(storage, node, &nodes, signed) {
            // What came with a shorter length may have nothing around it but the roots of that, which this proof does not reach.
            let shorter = merkle::verified_by(&self.bitfield, node) / 2;
            match self.checked_signature(storage, shorter) {
                Ok(Some(Signed { roots, .. })) if signed.is_empty() && !roots.is_empty() => {
                    self.check_nodes_near(storage, node, &nodes, &roots)?;
                }
                _ => return Err(error),
            }
        }
        Ok(nodes)
    }

    /// A node that is held, and whether it is known to be as the roots say.
    pub(super) fn node_checked<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        index: u64,
    ) -> Result<(Node, bool), StoreError> {
        // What is staged was proven before.
        if let Some(node) = self.staged.node(index) {
            return Ok((node, true));
        }
        match self.nodes.get_checked(storage, self.slot, index)? {
            Some(found) => Ok(found),
            None => Ok((self.node(storage, index)?, true)),
        }
    }

    /// The signature of a length, checked against the key. The newest is kept while the feed is in use; an older one is checked once for as long as the
    /// same bytes are read, of it and of the roots.
    ///
    /// # Errors
    /// The storage's error; [`StoreError::Damaged`] if it is not the writer's signature of that length.
    pub(super) fn checked_signature<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        blocks: u64,
    ) -> Result<Option<Signed>, StoreError> {
        let newest = blocks == self.length;
        // What stands in its place is known to be none, and reported.
        if newest && self.lacks_signature() {
            return Ok(None);
        }
        if let Some(CheckedSignature::Newest(signature)) = self.checked_signature.as_deref()
            && newest
            && self.verified.is_some_and(|(length, _)| length == blocks)
        {
            return Ok(Some(Signed { signature: *signature, roots: Vec::new() }));
        }
        let Some(signature) = self.signature(storage, blocks)? else { return Ok(None) };
        let checksum = VerifiedSignature::checksum(&signature);
        if newest && (self.verified == Some((blocks, checksum)) || self.staged.signature(blocks - 1).is_some()) {
            if self.verified == Some((blocks, checksum)) {
                self.checked_signature = Some(Box::new(CheckedSignature::Newest(signature)));
            }
            return Ok(Some(Signed { signature, roots: Vec::new() }));
        }
        let mut roots = Vec::new();
        // The newest are in memory, which does not rot.
        let root_hash = if newest {
            merkle::root_hash(&self.roots)
        } else {
            let Some(older) = self.roots_at(storage, blocks)? else { return Ok(None) };
            roots = older;
            merkle::root_hash(&roots)
        };
        let is_known = match self.checked_signature.as_deref() {
            Some(CheckedSignature::Older(root, known)) => (*root, *known) == (root_hash, checksum),
            _ => false,
        };
        if !is_known {
            if !self.signature_is_valid(&root_hash, blocks, &signature) {
                let why = format!(
                    "the signature of length {blocks} is not the writer's, or a root of that length is another"
                );
                return Err(StoreError::damaged(self.slot, FileKind::Signatures, why));
            }
            self.checked_signature = Some(Box::new(CheckedSignature::Older(root_hash, checksum)));
        }
        Ok(Some(Signed { signature, roots }))
    }

    /// Holds a node against those above it, up to one that is known or to a root. Whether that proved it, and with it all on the way: not if
    /// one of them is damaged, or if a sibling is not held, as in sparse feeds. A parent that is not held is computed.
    pub(super) fn prove_node<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        node: Node,
        signed: &[Node],
    ) -> Result<bool, StoreError> {
        let mut seen = Vec::with_capacity(16);
        let mut top = node;
        loop {
            if let Some(root) = self.roots.iter().chain(signed).find(|root| root.index == top.index) {
                if *root != top {
                    return Ok(false);
                }
                seen.push(top.index);
                break;
            }
            let (beside, above) = (flat::sibling(top.index), flat::parent(top.index));
            if !self.bitfield.node(beside) {
                return Ok(false);
            }
            let (beside, _) = self.node_checked(storage, beside)?;
            let Some(made) = merkle::parent_of(top, beside) else { return Ok(false) };
            seen.extend([top.index, beside.index]);
            if self.bitfield.node(above) {
                let (above, known) = self.node_checked(storage, above)?;
                if made != above {
                    return Ok(false);
                }
                if known {
                    break;
                }
            }
            top = made;
        }
        seen.into_iter().filter(|index| self.bitfield.node(*index)).for_each(|index| self.nodes.proved(index));
        Ok(true)
    }

    /// Holds the nodes of a proof of `node` against those just above them. What is damaged or missing further up harms no one.
    ///
    /// # Errors
    /// As [`checked_nodes`](Self::checked_nodes), and if nothing around a node proves it. Only rot leaves such a one, as all that was received was
    /// proven to a node or a signature that is kept with it.
    fn check_nodes_near<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        node: u64,
        nodes: &[Node],
        signed: &[Node],
    ) -> Result<(), StoreError> {
        let Some(highest) = nodes.iter().map(|node| flat::depth(node.index)).max() else { return Ok(()) };
        let is_sent = |index: u64| nodes.iter().any(|node| node.index == index);
        let mut top = self.node(storage, node)?;
        // The lowest node to be sent that no node above it has confirmed.
        let mut unproven = None;
        while flat::depth(top.index) <= highest {
            let (beside, above) = (flat::sibling(top.index), flat::parent(top.index));
            unproven = unproven.or([top.index, beside].into_iter().find(|index| is_sent(*index)));
            let beside = if self.bitfield.node(beside) { Some(self.node(storage, beside)?) } else { None };
            let stored = if self.bitfield.node(above) { Some(self.node(storage, above)?) } else { None };
            let slot = self.slot;
            let misfit = || {
                let why = format!("node {above} is not what the two below it make");
                StoreError::damaged(slot, FileKind::Tree, why)
            };
            top = match (beside, stored) {
                (Some(beside), stored) => {
                    let made = merkle::parent_of(top, beside).ok_or_else(misfit)?;
                    if stored.is_some_and(|stored| stored != made) {
                        return Err(misfit());
                    }
                    if stored.is_some() {
                        unproven = None;
                    }
                    made
                }
                (None, Some(stored)) if unproven.is_none() => stored,
                (None, _) => break,
            };
        }
        let reached = flat::depth(top.index);
        for node in nodes.iter().filter(|node| flat::depth(node.index) >= reached) {
            if !self.roots.contains(node) && !signed.contains(node) && !self.fits_above(storage, *node)? {
                unproven = unproven.or(Some(node.index));
            }
        }
        if let Some(index) = unproven.filter(|index| self.roots.iter().chain(signed).all(|root| root.index != *index)) {
            let why = format!("nothing around node {index} proves it");
            return Err(StoreError::damaged(self.slot, FileKind::Tree, why));
        }
        let fits = |node: &Node| self.roots.iter().chain(signed).all(|root| root.index != node.index || root == node);
        match nodes.iter().chain([&top]).find(|node| !fits(node)) {
            Some(node) => {
                let why = format!("node {} is not the root that the signature is over", node.index);
                Err(StoreError::damaged(self.slot, FileKind::Tree, why))
            }
            None => Ok(()),
        }
    }

    /// Whether the node and its sibling make the node above them, all of which are held.
    fn fits_above<S: Storage + ?Sized>(&mut self, storage: &mut S, node: Node) -> Result<bool, StoreError> {
        let (beside, above) = (flat::sibling(node.index), flat::parent(node.index));
        if !self.bitfield.node(beside) || !self.bitfield.node(above) {
            return Ok(false);
        }
        let (beside, above) = (self.node(storage, beside)?, self.node(storage, above)?);
        Ok(merkle::parent_of(node, beside) == Some(above))
    }
}

#[cfg(test)]
mod tests {
    use multifeed_proto::Request;

    use super::*;
    use crate::feed::files::node_offset;
    use crate::feed::{Answer, Problem, VerifyCursor};
    use crate::keys::key_pair::KeyPair;
    use crate::storage::{MemoryStorage, Slot};

    const BLOCKS: u64 = 21;

    fn block(index: u64) -> Bytes {
        vec![index as u8; 3 + index as usize % 5].into()
    }

    fn written() -> (Feed, MemoryStorage) {
        let pair = KeyPair::from_seed(&[1; 32]);
        let mut disk = MemoryStorage::new();
        let mut feed = Feed::create(&mut disk, Slot(0), pair.public_key(), Some(&pair), None).unwrap();
        feed.append(&mut disk, &(0..BLOCKS).map(block).collect::<Vec<_>>()).unwrap();
        feed.trim();
        (feed, disk)
    }

    fn answer(feed: &mut Feed, disk: &mut MemoryStorage, index: u64, digest: u64) -> Result<Vec<Node>, StoreError> {
        match feed.answer(disk, &Request { index, bytes: 0, hash: false, nodes: digest })? {
            Answer::Data(data) => {
                assert_eq!(data.value, Some(block(index)));
                Ok(data.nodes)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Digests of remotes that hold nothing, a few of the siblings, and a node so many levels up.
    fn digests() -> impl DoubleEndedIterator<Item = u64> + Clone {
        [0, 2, 4, 6, 1].into_iter().chain((1..6).map(|levels| (2 << levels) | 1))
    }

    #[test]
    fn nothing_false_is_served_and_what_is_wrong_further_up_keeps_nothing_else_from_being_served() {
        let (mut whole, mut disk) = written();
        let requests = (0..BLOCKS).flat_map(|index| digests().map(move |digest| (index, digest)));
        let nodes: Vec<u64> = (0..2 * BLOCKS).filter(|&node| whole.bitfield.node(node)).collect();
        let (mut served, mut refused) = (0, 0);
        // In the hash, and in the size.
        for (&rotten, byte) in nodes.iter().flat_map(|node| [3, 38].map(|byte| (node, byte))) {
            let mut theirs = disk.clone();
            theirs.flip(FileKind::Tree, node_offset(rotten) + byte);
            let (mut feed, _) = written();
            // In an order in which not all comes from what was read ahead.
            for (index, digest) in requests.clone().chain(requests.clone().rev()) {
                let expected = answer(&mut whole, &mut disk, index, digest).unwrap();
                let highest = expected.iter().map(|node| flat::depth(node.index)).max();
                // What is looked at: the block's place and leaf, and the nodes that are sent with those just above them.
                let mut near: Vec<u64> = flat::full_roots(index).chain([2 * index]).collect();
                let mut top = 2 * index;
                while highest.is_some_and(|highest| flat::depth(top) <= highest) {
                    near.extend([flat::sibling(top), flat::parent(top)]);
                    top = flat::parent(top);
                }
                near.extend(expected.iter().map(|node| node.index));
                match answer(&mut feed, &mut theirs, index, digest) {
                    Ok(nodes) => {
                        assert_eq!(nodes, expected, "node {rotten} rotted, block {index}, digest {digest}");
                        served += 1;
                    }
                    Err(StoreError::Damaged { .. }) => {
                        assert!(near.contains(&rotten), "node {rotten} rotted, block {index}, digest {digest}");
                        refused += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
        assert!(served > 3 * refused && refused > 1000, "{served} served, {refused} refused");
    }

    #[test]
    fn what_was_checked_is_served_as_it_was_until_it_is_read_again() {
        let (mut feed, mut disk) = written();
        let proofs: Vec<_> = (0..BLOCKS).map(|index| answer(&mut feed, &mut disk, index, 0).unwrap()).collect();
        for at in (0..feed.byte_len()).step_by(3) {
            disk.flip(FileKind::Data, at);
        }
        for node in 0..2 * BLOCKS - 1 {
            disk.flip(FileKind::Tree, node_offset(node));
        }
        // The second remote costs no read and no hash.
        for index in 0..BLOCKS {
            assert_eq!(answer(&mut feed, &mut disk, index, 0).unwrap(), proofs[index as usize]);
            assert!(feed.window.checked(index).is_some());
            assert!(proofs[index as usize].iter().all(|node| feed.nodes.get_proven(node.index).as_ref() == Some(node)));
        }
        feed.trim();
        for index in 0..BLOCKS {
            let damaged = answer(&mut feed, &mut disk, index, 0);
            assert!(matches!(damaged, Err(StoreError::Damaged { .. })), "{index}: {damaged:?}");
            assert!(feed.window.checked(index).is_none());
        }
    }

    #[test]
    fn verify_and_audit_find_what_rotted_under_the_caches() {
        let (mut feed, mut disk) = written();
        let proofs: Vec<_> = (0..BLOCKS).map(|index| answer(&mut feed, &mut disk, index, 0).unwrap()).collect();
        disk.flip(FileKind::Data, 0);
        disk.flip(FileKind::Tree, node_offset(1));
        let step = feed.verify_step(&mut disk, &mut VerifyCursor::default(), usize::MAX).unwrap();
        let found: Vec<_> = step.findings.iter().map(|finding| finding.problem).collect();
        let node = |node| Problem::NodeDamaged { node };
        // Block 2 begins where node 1 ends, and only its size was not touched.
        assert_eq!(found, [Problem::BlockDamaged { block: 0 }, node(1)]);
        // What was checked is served as before, until an audit gives it up.
        for index in 0..BLOCKS {
            assert_eq!(answer(&mut feed, &mut disk, index, 0).unwrap(), proofs[index as usize]);
        }
        let audit = feed.audit_step(&mut disk, 0, usize::MAX).unwrap();
        assert!(audit.invalid == 1 && audit.dropped[0] == (0..1), "{audit:?}");
        assert!(!feed.has(0) && feed.get_verified(&mut disk, 0).unwrap().is_none());
    }

    #[test]
    fn a_block_that_rotted_is_not_checked_with_its_neighbours() {
        for rotten in 0..BLOCKS {
            let (mut feed, mut disk) = written();
            disk.flip(FileKind::Data, (0..rotten).map(|index| block(index).len() as u64).sum());
            for index in (0..BLOCKS).chain(0..BLOCKS) {
                let read = feed.get_verified(&mut disk, index);
                assert_eq!(read.is_err(), index == rotten, "{rotten}: {index}");
                assert!(index == rotten || read.unwrap() == Some(block(index)));
            }
        }
    }

    #[test]
    fn zeros_read_where_a_block_was_missing_do_not_pass_for_it() {
        let (mut source, mut their_disk) = written();
        let mut disk = MemoryStorage::new();
        let mut feed = Feed::create(&mut disk, Slot(0), source.key(), None, None).unwrap();
        let mut fetch = |feed: &mut Feed, disk: &mut MemoryStorage, index| {
            let request = Request { index, bytes: 0, hash: false, nodes: feed.digest(index) };
            let Answer::Data(data) = source.answer(&mut their_disk, &request).unwrap() else { panic!("no answer") };
            feed.put(disk, crate::prepare(data)).unwrap();
        };
        (0..BLOCKS).filter(|index| index % 4 != 2).for_each(|index| fetch(&mut feed, &mut disk, index));
        feed.flush(&mut disk).unwrap();
        // Read ahead over the holes.
        assert_eq!(feed.get_verified(&mut disk, 0).unwrap(), Some(block(0)));
        assert_eq!(feed.get_verified(&mut disk, 1).unwrap(), Some(block(1)));
        (0..BLOCKS).filter(|index| index % 4 == 2).for_each(|index| fetch(&mut feed, &mut disk, index));
        for _ in 0..2 {
            for index in 0..BLOCKS {
                assert_eq!(feed.get_verified(&mut disk, index).unwrap(), Some(block(index)));
                assert!(feed.window.checked(index).is_none_or(|(cached, _)| cached == block(index)), "{index}");
            }
        }
    }
}
