//! Repairing a feed whose disk rots, in slices: what is left of it proves some of what was lost, and that is made again. The rest is given up, so
//! that a session brings it: a mark without what it stands for, or with something else there, would keep it from coming.

use std::ops::Range;

use multifeed_proto::Node;

use super::Feed;
use super::files::SIGNATURE;
use super::verify::{NODE_COST, SIGNATURE_COST};
use crate::error::StoreError;
use crate::merkle::{self, index as flat};
use crate::storage::Storage;

/// How far [`Feed::repair_step`] has come. A new one starts at the beginning.
#[derive(Debug, Clone, Default)]
pub struct RepairCursor {
    stage: Stage,
    position: u64,
    /// Nodes that were passed and are looked at when all below them was.
    passed: Vec<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    /// Nodes that the rest proves: they tell where blocks begin.
    #[default]
    Proven,
    Blocks,
    /// All nodes, now that leaves are the hashes of the blocks that are held.
    Nodes,
    Signatures,
    Done,
}

/// What a repair did, or one slice of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repair {
    /// Blocks that were marked as held and do not have their hash, as ranges, ascending: they are no longer held, and can be fetched again.
    pub dropped: Vec<Range<u64>>,
    /// Nodes of the tree that were made again of what is below them, or are those that the signature is over.
    pub nodes_made: u64,
    /// Nodes of the tree that nothing proves: they are no longer held, and come again with the blocks below them.
    pub nodes_dropped: u64,
    /// Signatures of earlier lengths that were made again, in a feed that is written here.
    pub signatures_made: u64,
    /// Signatures of earlier lengths that were taken out: the newest one proves all that they did.
    pub signatures_dropped: u64,
    /// Whether all was looked at.
    pub done: bool,
}

impl Repair {
    /// Adds what the next slice did.
    pub fn add(&mut self, next: Repair) {
        for dropped in next.dropped {
            match self.dropped.last_mut() {
                Some(last) if last.end == dropped.start => last.end = dropped.end,
                _ => self.dropped.push(dropped),
            }
        }
        self.nodes_made += next.nodes_made;
        self.nodes_dropped += next.nodes_dropped;
        self.signatures_made += next.signatures_made;
        self.signatures_dropped += next.signatures_dropped;
        self.done = next.done;
    }
}

/// Whether a node is as those above it say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Yes,
    No,
    /// Too little is held to tell.
    Unknown,
}

impl Feed {
    /// Repairs on from a cursor, for about this many bytes of work: blocks (as [`audit_step`](Self::audit_step)), nodes and
    /// signatures. At least one thing is looked at, so that calling until [`Repair::done`] ends. All is read from the files anew, not from
    /// caches. The newest signature is left as it is: opening the feed reports it, and makes it again or has a session bring it.
    ///
    /// # Errors
    /// What the storage says; what it holds that is wrong is what a repair finds, not an error.
    pub fn repair_step<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        cursor: &mut RepairCursor,
        max_bytes: usize,
    ) -> Result<Repair, StoreError> {
        if cursor.stage == Stage::Blocks {
            let audit = self.audit_step(storage, cursor.position, max_bytes)?;
            cursor.position = audit.next.unwrap_or(0);
            if audit.next.is_none() {
                cursor.stage = Stage::Nodes;
            }
            return Ok(Repair { dropped: audit.dropped, ..Repair::default() });
        }
        self.check_changeable()?;
        let step = self.without_caches(|feed| feed.repair_on(storage, cursor, max_bytes))?;
        if step != Repair::default() || !self.staged.is_empty() {
            self.untouched = false;
            self.trim();
            self.flush(storage)?;
        }
        Ok(Repair { done: cursor.stage == Stage::Done, ..step })
    }

    fn repair_on<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        cursor: &mut RepairCursor,
        max_bytes: usize,
    ) -> Result<Repair, StoreError> {
        let mut step = Repair::default();
        let mut work = 0;
        while work < max_bytes.max(1) && cursor.stage != Stage::Done {
            let cost = match cursor.stage {
                Stage::Proven | Stage::Nodes => self.repair_next_node(storage, cursor, &mut step)?,
                Stage::Signatures => self.repair_next_signature(storage, cursor, &mut step)?,
                Stage::Blocks | Stage::Done => break,
            };
            match cost {
                Some(cost) => work += cost,
                None => {
                    cursor.position = 0;
                    cursor.stage = match cursor.stage {
                        Stage::Proven => Stage::Blocks,
                        Stage::Blocks | Stage::Nodes => Stage::Signatures,
                        Stage::Signatures | Stage::Done => Stage::Done,
                    };
                }
            }
        }
        Ok(step)
    }

    /// Looks at the next node of which all below it was looked at. `None`: there are no more.
    fn repair_next_node<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        cursor: &mut RepairCursor,
        step: &mut Repair,
    ) -> Result<Option<usize>, StoreError> {
        let next = self.bitfield.next_node(cursor.position, self.bitfield.nodes_end());
        let passed = cursor.passed.pop_if(|passed| next.is_none_or(|next| next > flat::right_span(*passed)));
        match (passed, next) {
            (Some(node), _) => self.repair_node(storage, node, cursor.stage, step)?,
            (None, Some(node)) => {
                cursor.position = node + 1;
                if flat::children(node).is_some() {
                    cursor.passed.push(node);
                } else {
                    self.repair_node(storage, node, cursor.stage, step)?;
                }
            }
            (None, None) => return Ok(None),
        }
        Ok(Some(NODE_COST))
    }

    fn repair_node<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        index: u64,
        stage: Stage,
        step: &mut Repair,
    ) -> Result<(), StoreError> {
        let stored = self.marked_readable_node(storage, index)?;
        if let Some(root) = self.roots.iter().find(|root| root.index == index).copied() {
            if stored != Some(root) {
                self.staged.put_node(&root);
                step.nodes_made += 1;
            }
            return Ok(());
        }
        if let Some(stored) = stored
            && (self.is_of_what_is_below(storage, stored)? || self.fits(storage, stored)? == Fit::Yes)
        {
            return Ok(());
        }
        let made = self.made_of_children(storage, index)?;
        if let Some(made) = made
            && (self.fits(storage, made)? == Fit::Yes
                || (stage == Stage::Nodes && self.has_sound_children(storage, index)?))
        {
            self.staged.put_node(&made);
            step.nodes_made += 1;
            return Ok(());
        }
        if stage == Stage::Proven {
            return Ok(());
        }
        let wrong = match stored {
            Some(stored) => made.is_some() || self.fits(storage, stored)? == Fit::No,
            None => true,
        };
        if wrong {
            step.nodes_dropped += u64::from(self.bitfield.clear_node(index));
            // If only one of the two is wrong, nothing tells which. Nothing above proves those below any more.
            let beside = stored.map(|_| flat::sibling(index));
            let below = flat::children(index).map_or([None; 2], |(left, right)| [Some(left), Some(right)]);
            for node in below.into_iter().chain([beside]).flatten() {
                self.drop_unless_sound(storage, node, step)?;
            }
        }
        Ok(())
    }

    /// Gives a node up, unless it is a root, or what is below it makes it.
    fn drop_unless_sound<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        index: u64,
        step: &mut Repair,
    ) -> Result<(), StoreError> {
        if !self.roots.iter().any(|root| root.index == index)
            && let Some(node) = self.marked_readable_node(storage, index)?
            && !self.is_of_what_is_below(storage, node)?
        {
            step.nodes_dropped += u64::from(self.bitfield.clear_node(index));
        }
        Ok(())
    }

    /// The node that the two below it make, if both are held and there.
    pub(super) fn made_of_children<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        index: u64,
    ) -> Result<Option<Node>, StoreError> {
        let Some((left, right)) = flat::children(index) else { return Ok(None) };
        let Some(left) = self.marked_readable_node(storage, left)? else { return Ok(None) };
        let Some(right) = self.marked_readable_node(storage, right)? else { return Ok(None) };
        Ok(merkle::parent(&left, &right))
    }

    /// Whether a node is what the two below it make, or a leaf the hash of its block: those of blocks that are held were checked before.
    fn is_of_what_is_below<S: Storage + ?Sized>(&mut self, storage: &mut S, node: Node) -> Result<bool, StoreError> {
        match flat::children(node.index) {
            Some(_) => Ok(self.made_of_children(storage, node.index)? == Some(node)),
            None => Ok(self.has(node.index / 2)),
        }
    }

    fn has_sound_children<S: Storage + ?Sized>(&mut self, storage: &mut S, index: u64) -> Result<bool, StoreError> {
        let Some((left, right)) = flat::children(index) else { return Ok(false) };
        for child in [left, right] {
            let Some(child) = self.marked_readable_node(storage, child)? else { return Ok(false) };
            if !self.is_of_what_is_below(storage, child)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a node leads to the one above it, to one further up if that is wrong, or to a root.
    pub(super) fn fits<S: Storage + ?Sized>(&mut self, storage: &mut S, node: Node) -> Result<Fit, StoreError> {
        let (mut top, mut unknown) = (node, Fit::Unknown);
        loop {
            if let Some(root) = self.roots.iter().find(|root| root.index == top.index) {
                return Ok(if *root == top { Fit::Yes } else { Fit::No });
            }
            let Some(beside) = self.marked_readable_node(storage, flat::sibling(top.index))? else {
                return Ok(unknown);
            };
            let Some(made) = merkle::parent_of(top, beside) else { return Ok(Fit::No) };
            match self.marked_readable_node(storage, made.index)? {
                Some(above) if above == made => return Ok(Fit::Yes),
                Some(_) => unknown = Fit::No,
                None => {}
            }
            top = made;
        }
    }

    /// A block was given up: its leaf is too, unless those around it prove it.
    pub(super) fn keep_leaf_if_proven<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        block: u64,
    ) -> Result<(), StoreError> {
        let leaf = self.marked_readable_node(storage, 2 * block)?;
        let proven = match leaf {
            Some(leaf) => self.fits(storage, leaf)? == Fit::Yes,
            None => false,
        };
        if !proven {
            self.bitfield.clear_node(2 * block);
        }
        Ok(())
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
        // Of another history than the newest one, or it cannot be told.
        for root in roots {
            if self.fits(storage, root)? != Fit::Yes {
                return Ok(Some(SIGNATURE_COST));
            }
        }
        match &self.key_pair {
            // The newest signature covers these roots: it was signed here before, and is the same signature.
            Some(pair) => {
                let signature = pair.sign(&merkle::signable(&root_hash, length));
                self.staged.put_signature(position, signature);
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
