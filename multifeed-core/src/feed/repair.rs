//! Repairing a feed whose disk rots, in slices: what is left of it proves some of what was lost, and that is made again. The rest is given up, so
//! that a session brings it: a mark without what it stands for, or with something else there, would keep it from coming.

use std::mem;

use multifeed_proto::Node;

use super::Feed;
use super::covered::Cover;
use super::files::{Files, NODE, SIGNATURE, node_offset};
use super::rebuild::{PAGE_COST, Region};
use super::repaired::Repair;
use super::verify::{LEAF_COST, NODE_COST, SIGNATURE_COST};
use crate::error::StoreError;
use crate::merkle::{self, index as flat};
use crate::storage::{FileKind, Storage};

/// How far [`Feed::repair_step`] has come. A new one starts at the beginning.
#[derive(Debug, Clone, Default)]
pub struct RepairCursor {
    stage: Stage,
    position: u64,
    /// Nodes that were passed and are looked at when all below them was.
    passed: Vec<u64>,
    /// Pages of `tree` that are being rebuilt.
    regions: Vec<Region>,
    /// Whether anything is wrong with the tree or a block. If nothing is, all blocks are where the nodes say.
    damaged: bool,
    /// Some node is not what those below it make: parts of the tree may be in the wrong place. Otherwise, what is lost is lost, and the rest is right.
    misfits: bool,
    /// A node was given up of a feed that is written here: others may have told by it alone where their blocks begin.
    given_up: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    /// Nodes that the rest proves with the blocks around them, page by page.
    #[default]
    Pages,
    /// Nodes that the rest proves: they tell where blocks begin.
    Proven,
    Blocks,
    /// All nodes, now that leaves are the hashes of the blocks that are held.
    Nodes,
    /// Blocks of which nothing tells any more where they begin.
    Placed,
    /// What stands in the places of nodes that are not held.
    Unmarked,
    Signatures,
    Done,
}

impl Feed {
    /// Repairs on from a cursor, for about this many bytes of work: blocks (as [`audit_step`](Self::audit_step)), nodes and
    /// signatures. At least one thing is looked at, so that calling until [`Repair::done`] ends. All is read from the files anew, not from
    /// caches. The newest signature is left as it is: opening the feed reports it, and makes it again or has a session bring it.
    ///
    /// # Errors
    /// The storage's error; what it holds that is wrong is what a repair finds, not an error.
    pub fn repair_step<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        cursor: &mut RepairCursor,
        max_bytes: usize,
    ) -> Result<Repair, StoreError> {
        if matches!(cursor.stage, Stage::Blocks | Stage::Placed) {
            let audit = self.audit_step(storage, cursor.position, max_bytes)?;
            cursor.position = audit.next.unwrap_or(0);
            cursor.damaged |= audit.invalid > 0;
            if audit.next.is_none() {
                cursor.stage = match cursor.stage {
                    Stage::Blocks => Stage::Nodes,
                    _ => Stage::Unmarked,
                };
            }
            return Ok(Repair { dropped: audit.dropped, nodes_made: audit.leaves_made, ..Repair::default() });
        }
        self.check_changeable()?;
        let mut erased = Vec::new();
        let step = self.without_caches(|feed| feed.repair_on(storage, cursor, &mut erased, max_bytes))?;
        if step != Repair::default() || !self.staged.is_empty() || !erased.is_empty() {
            self.untouched = false;
            self.trim();
            self.flush(storage)?;
            self.erase_nodes(storage, &erased)?;
        }
        Ok(Repair { done: cursor.stage == Stage::Done, ..step })
    }

    fn repair_on<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        cursor: &mut RepairCursor,
        erased: &mut Vec<u64>,
        max_bytes: usize,
    ) -> Result<Repair, StoreError> {
        let mut step = Repair::default();
        let mut work = 0;
        while work < max_bytes.max(1) {
            let cost = match cursor.stage {
                Stage::Pages => self.rebuild_on(storage, cursor, &mut step)?,
                Stage::Proven | Stage::Nodes => self.repair_next_node(storage, cursor, &mut step, erased)?,
                Stage::Unmarked => self.find_next_unmarked(storage, cursor, erased)?,
                Stage::Signatures => self.repair_next_signature(storage, cursor, &mut step)?,
                Stage::Blocks | Stage::Placed | Stage::Done => break,
            };
            match cost {
                Some(cost) => work += cost,
                None => {
                    cursor.position = 0;
                    cursor.stage = match cursor.stage {
                        Stage::Pages => Stage::Proven,
                        Stage::Proven => Stage::Blocks,
                        Stage::Nodes if mem::take(&mut cursor.given_up) => Stage::Nodes,
                        Stage::Nodes if cursor.damaged => Stage::Placed,
                        Stage::Nodes => Stage::Unmarked,
                        Stage::Unmarked => Stage::Signatures,
                        Stage::Signatures | Stage::Blocks | Stage::Placed | Stage::Done => Stage::Done,
                    };
                }
            }
        }
        Ok(step)
    }

    /// Rebuilds on, or looks for the next page of `tree` in which nodes are wrong. `None`: there is none.
    fn rebuild_on<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        cursor: &mut RepairCursor,
        step: &mut Repair,
    ) -> Result<Option<usize>, StoreError> {
        let Some(region) = cursor.regions.last_mut() else {
            let Some((regions, next)) = self.next_regions(storage, cursor.position)? else { return Ok(None) };
            (cursor.regions, cursor.position) = (regions, next);
            return Ok(Some(PAGE_COST));
        };
        let cost = self.rebuild_next(storage, region, step)?;
        if cost.is_none() {
            cursor.regions.pop();
        }
        Ok(Some(cost.unwrap_or(NODE_COST)))
    }

    /// Writes zeros over nodes that are no longer held: JS reads nodes without asking for their marks.
    pub(super) fn erase_nodes<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        erased: &[u64],
    ) -> Result<(), StoreError> {
        for node in erased {
            Files { storage, slot: self.slot }.write(FileKind::Tree, node_offset(*node), &[0; NODE])?;
        }
        if !erased.is_empty() {
            self.trim();
        }
        Ok(())
    }

    /// Looks at the next node that is not held and stands in `tree` all the same. If it is none that a signature covers, it is erased: a repair that was cut
    /// short, or opening the feed, left it. `None`: there are no more.
    fn find_next_unmarked<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        cursor: &mut RepairCursor,
        erased: &mut Vec<u64>,
    ) -> Result<Option<usize>, StoreError> {
        let end = (2 * self.length).saturating_sub(1);
        let Some(node) = self.bitfield.next_missing_node(cursor.position, end) else { return Ok(None) };
        cursor.position = match self.next_entry(storage, FileKind::Tree, NODE, node)? {
            Some(written) if written > node => written,
            Some(_) => node + 1,
            None => return Ok(None),
        };
        if cursor.position == node + 1
            && let Some(stored) = self.readable_node(storage, node)?
            && !self.is_covered(storage, stored)?
        {
            erased.push(node);
        }
        Ok(Some(LEAF_COST))
    }

    /// Looks at the next node of which all below it was looked at. `None`: there are no more.
    fn repair_next_node<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        cursor: &mut RepairCursor,
        step: &mut Repair,
        erased: &mut Vec<u64>,
    ) -> Result<Option<usize>, StoreError> {
        let next = self.bitfield.next_node(cursor.position, self.bitfield.nodes_end());
        let passed = cursor.passed.pop_if(|passed| next.is_none_or(|next| next > flat::right_span(*passed)));
        let node = match (passed, next) {
            (Some(node), _) => node,
            (None, Some(node)) => {
                cursor.position = node + 1;
                if flat::children(node).is_some() {
                    cursor.passed.push(node);
                    return Ok(Some(NODE_COST));
                }
                node
            }
            (None, None) => return Ok(None),
        };
        match cursor.stage {
            Stage::Proven => {
                cursor.misfits |= self.is_misfit(storage, node)?;
                cursor.damaged |= self.mend_node(storage, node, step)?;
            }
            _ => {
                let dropped = step.nodes_dropped;
                let keeps_ours = self.writable() && !cursor.misfits;
                cursor.damaged |= !self.keep_if_covered(storage, node, keeps_ours, step, erased)?;
                cursor.given_up |= self.writable() && step.nodes_dropped > dropped;
            }
        }
        Ok(Some(NODE_COST))
    }

    /// Makes a node again if it is not what those below it make, and what they make leads to a root. Whether anything is wrong with it or with those.
    fn mend_node<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        index: u64,
        step: &mut Repair,
    ) -> Result<bool, StoreError> {
        let stored = self.marked_readable_node(storage, index)?;
        let root = self.roots.iter().find(|root| root.index == index).copied();
        if let Some(root) = root.filter(|root| stored != Some(*root)) {
            self.make_again(&root, step);
            return Ok(true);
        }
        let Some((left, right)) = self.children(storage, index)? else { return Ok(stored.is_none()) };
        let made = merkle::parent(&left, &right);
        if made == stored {
            return Ok(made.is_none());
        }
        if let Some(made) = made
            && self.is_covered(storage, made)?
        {
            self.make_again(&made, step);
        }
        Ok(true)
    }

    /// Gives a node up, unless it leads to roots that are signed, or what is below it makes one that does. Whether it is as it was.
    fn keep_if_covered<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        index: u64,
        keeps_ours: bool,
        step: &mut Repair,
        erased: &mut Vec<u64>,
    ) -> Result<bool, StoreError> {
        let stored = self.marked_readable_node(storage, index)?;
        if let Some(stored) = stored
            && (self.is_known(storage, index)? || self.is_covered(storage, stored)?)
        {
            return Ok(true);
        }
        if let Some(stored) = stored
            && keeps_ours
            && self.fits_its_blocks(storage, stored)?
        {
            return Ok(false);
        }
        match self.made_of_children(storage, index)? {
            Some(made) if self.is_covered(storage, made)? || (keeps_ours && self.fits_its_blocks(storage, made)?) => {
                self.make_again(&made, step);
            }
            _ => {
                self.bitfield.clear_node(index);
                step.nodes_dropped += 1;
                erased.push(index);
            }
        }
        Ok(false)
    }

    /// Whether a node fits blocks that are held below it, or the node that it makes with the one beside it, and nothing around it says otherwise: what could
    /// prove it is lost. Of a feed that is written here there may be no other copy of these blocks, nor of what proves one beside a block that was cleared.
    /// What was fetched comes again.
    fn fits_its_blocks<S: Storage + ?Sized>(&mut self, storage: &mut S, node: Node) -> Result<bool, StoreError> {
        if !matches!(self.cover(storage, node)?, Cover::Unknown) {
            return Ok(false);
        }
        let fits_below = match flat::children(node.index) {
            Some(_) => self.made_of_children(storage, node.index)? == Some(node),
            None => self.has(node.index / 2) && self.is_found_within(storage, node.index / 2)?,
        };
        if fits_below {
            return Ok(true);
        }
        let beside = self.marked_readable_node(storage, flat::sibling(node.index))?;
        let above = self.marked_readable_node(storage, flat::parent(node.index))?;
        Ok(above.is_some() && beside.and_then(|beside| merkle::parent_of(node, beside)) == above)
    }

    pub(super) fn make_again(&mut self, node: &Node, step: &mut Repair) {
        self.staged.put_node(node);
        step.nodes_made += 1;
    }

    /// The two nodes below one, if both are held and there.
    pub(super) fn children<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        index: u64,
    ) -> Result<Option<(Node, Node)>, StoreError> {
        let Some((left, right)) = flat::children(index) else { return Ok(None) };
        let left = self.marked_readable_node(storage, left)?;
        Ok(left.zip(self.marked_readable_node(storage, right)?))
    }

    /// The node that the two below it make, if both are held and there.
    pub(super) fn made_of_children<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        index: u64,
    ) -> Result<Option<Node>, StoreError> {
        Ok(self.children(storage, index)?.and_then(|(left, right)| merkle::parent(&left, &right)))
    }

    /// Whether a block is where the nodes around it say, and has the hash that its leaf tells.
    pub(super) fn is_found_within<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        block: u64,
    ) -> Result<bool, StoreError> {
        let Some(leaf) = self.marked_readable_node(storage, 2 * block)? else { return Ok(false) };
        match self.offset_within(storage, block)? {
            Some(offset) => self.has_block(storage, offset, &leaf),
            None => Ok(false),
        }
    }

    /// Whether a node and those beside it on the way lead to a root, whatever stands in the places above them.
    pub(super) fn is_proven<S: Storage + ?Sized>(&mut self, storage: &mut S, node: Node) -> Result<bool, StoreError> {
        let mut top = node;
        loop {
            if let Some(root) = self.roots.iter().find(|root| root.index == top.index) {
                return Ok(*root == top);
            }
            let Some(beside) = self.marked_readable_node(storage, flat::sibling(top.index))? else { return Ok(false) };
            let Some(above) = merkle::parent_of(top, beside) else { return Ok(false) };
            top = above;
        }
    }

    /// A block was given up: so is its leaf, unless that leads to roots that are signed. Whether it is.
    pub(super) fn drop_leaf_unless_covered<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        block: u64,
    ) -> Result<bool, StoreError> {
        if let Some(leaf) = self.marked_readable_node(storage, 2 * block)?
            && self.is_covered(storage, leaf)?
        {
            return Ok(false);
        }
        Ok(self.bitfield.clear_node(2 * block))
    }

    /// `None`: there are no more before the newest.
    fn repair_next_signature<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        cursor: &mut RepairCursor,
        step: &mut Repair,
    ) -> Result<Option<usize>, StoreError> {
        let newest = self.length.saturating_sub(1);
        let Some(position) = self.next_signature_place(storage, cursor.position, newest)? else { return Ok(None) };
        cursor.position = position + 1;
        let length = position + 1;
        let Some(roots) = self.roots_of(storage, length)? else { return Ok(Some(NODE_COST)) };
        let root_hash = merkle::root_hash(&roots);
        match self.signature(storage, length) {
            Ok(None) => return Ok(Some(SIGNATURE)),
            Ok(Some(signature)) if self.signature_is_valid(&root_hash, length, &signature) => {
                return Ok(Some(SIGNATURE_COST));
            }
            Err(error) if !error.is_unreadable() => return Err(error),
            _ => {}
        }
        // Of another history than the newest one, or that cannot be known.
        for root in roots {
            if !self.is_proven(storage, root)? {
                return Ok(Some(SIGNATURE_COST));
            }
        }
        match &self.writer_key {
            // The newest signature covers these roots: it was signed here before, and is the same signature.
            Some(writer_key) => {
                let signature = writer_key.sign(self.slot, &merkle::signable(&root_hash, length))?;
                self.staged.put_signature(position, signature);
                self.note_signature(length);
                step.signatures_made += 1;
            }
            None => {
                self.staged.put_signature(position, [0; SIGNATURE]);
                step.signatures_dropped += 1;
            }
        }
        Ok(Some(SIGNATURE_COST))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use multifeed_proto::Request;

    use super::*;
    use crate::feed::Answer;
    use crate::feed::cache::encode;
    use crate::keys::key_pair::KeyPair;
    use crate::storage::{FileId, MemoryStorage, Slot};

    /// A copy that holds two blocks of eight. JS reads nodes without asking for their marks, so that of those which are not held none may be wrong.
    #[test]
    fn what_stands_in_the_place_of_a_node_that_is_not_held_is_erased() {
        let pair = KeyPair::from_seed(&[1; 32]);
        let (mut disk, mut their_disk) = (MemoryStorage::new(), MemoryStorage::new());
        let mut source = Feed::create(&mut their_disk, Slot(0), pair.public_key(), Some(&pair), None).unwrap();
        source.append(&mut their_disk, &(1..9).map(|size| Bytes::from(vec![b'a'; size])).collect::<Vec<_>>()).unwrap();
        let mut copy = Feed::create(&mut disk, Slot(0), pair.public_key(), None, None).unwrap();
        for index in [0, 7] {
            let request = Request { index, bytes: 0, hash: false, nodes: copy.digest(index) };
            let Answer::Data(data) = source.answer(&mut their_disk, &request).unwrap() else { panic!("no answer") };
            copy.put(&mut disk, crate::prepare(data)).unwrap();
        }
        copy.flush(&mut disk).unwrap();
        let tree = FileId::new(Slot(0), FileKind::Tree);
        let whole = disk.contents(tree).unwrap();
        let leaf = |feed: &mut Feed, disk: &mut MemoryStorage, index| encode(&feed.node(disk, index).unwrap());
        let wrong = leaf(&mut source, &mut their_disk, 2);
        disk.write_at(tree, node_offset(4), &wrong).unwrap();
        disk.write_at(tree, node_offset(10), &leaf(&mut source, &mut their_disk, 10)).unwrap();
        copy.trim();
        for slice in [1, usize::MAX] {
            let (mut cursor, mut all) = (RepairCursor::default(), Repair::default());
            while !all.done {
                all.add(copy.repair_step(&mut disk, &mut cursor, slice).unwrap());
            }
            assert_eq!(all, Repair { done: true, ..Repair::default() });
            assert_eq!(disk.contents(tree).unwrap(), whole);
        }
    }
}
