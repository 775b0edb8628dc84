//! Checking a whole feed again, in slices.

use core::{fmt, mem};

use multifeed_proto::{FeedKey, Node};

use super::covered::Cover;
use super::files::SIGNATURE;
use super::{Cursor, Feed};
use crate::error::{StoreError, home};
use crate::merkle::{self, index as flat};
use crate::storage::{FileKind, Slot, Storage};

/// What checking a node or looking for a signature counts against a slice's bytes.
pub(super) const NODE_COST: usize = 256;
/// What looking at a node counts that has nothing below it.
pub(super) const LEAF_COST: usize = 32;
/// What checking a signature counts.
pub(super) const SIGNATURE_COST: usize = 32 * 1024;

/// How far [`Feed::verify_step`] has come. A new one starts at the beginning.
#[derive(Debug, Clone, Default)]
pub struct VerifyCursor {
    stage: Stage,
    position: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Blocks,
    Nodes,
    Signatures,
    Done,
}

/// What one slice found.
#[derive(Debug, Clone, Default)]
pub struct VerifyStep {
    /// Blocks checked.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Whether all was checked.
    pub done: bool,
}

/// Something in a feed that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The feed.
    pub key: FeedKey,
    /// Its folder.
    pub slot: Slot,
    /// What is wrong.
    pub problem: Problem,
}

/// What can be wrong in a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// A block does not have the hash that its leaf tells, which leads to roots that are signed.
    BlockDamaged {
        /// The block.
        block: u64,
    },
    /// A block does not have the hash that its leaf tells, and nothing shows which of the two is wrong: the leaf, or a node that tells where the block begins,
    /// does not lead to such roots.
    BlockMismatched {
        /// The block.
        block: u64,
    },
    /// A block is marked as held, and `data` ends before it.
    BlockMissing {
        /// The block.
        block: u64,
    },
    /// The disk does not give a block: a bad sector, say.
    BlockUnreadable {
        /// The block.
        block: u64,
    },
    /// A block of a feed that is written here is not held, and was not cleared: its mark is lost, and the block too, or is still to be fetched.
    BlockLost {
        /// The block.
        block: u64,
        /// What is wrong: `data` if its bytes are not those of its leaf, `tree` if the leaf is lost or fits nothing, else `bitfield`.
        file: FileKind,
    },
    /// A block is marked as held, and no leaf of it is, or a node that tells its offset is not.
    BlockUnproven {
        /// The block.
        block: u64,
    },
    /// A block is what the node above its leaf says, and the leaf is lost, or another one.
    LeafDamaged {
        /// The block.
        block: u64,
    },
    /// A block is there and has its hash, and a node that tells where it begins is wrong.
    BlockMisplaced {
        /// The block.
        block: u64,
    },
    /// A node is marked as held, and `tree` has none.
    NodeMissing {
        /// The node (a flat-tree index).
        node: u64,
    },
    /// The disk does not give a node.
    NodeUnreadable {
        /// The node (a flat-tree index).
        node: u64,
    },
    /// A node is not the parent of its children.
    NodeDamaged {
        /// The node (a flat-tree index).
        node: u64,
    },
    /// A signature is not that of the roots of its length.
    SignatureInvalid {
        /// The length in blocks.
        length: u64,
    },
    /// The disk does not give a signature.
    SignatureUnreadable {
        /// The length in blocks.
        length: u64,
    },
    /// The feed's length has no signature.
    SignatureMissing {
        /// The length in blocks.
        length: u64,
    },
}

impl Finding {
    /// Returns the file that it is in, or those of which one is wrong if nothing shows which.
    pub fn files(&self) -> &'static [FileKind] {
        match self.problem {
            Problem::BlockDamaged { .. }
            | Problem::BlockMissing { .. }
            | Problem::BlockUnreadable { .. }
            | Problem::BlockLost { file: FileKind::Data, .. } => &[FileKind::Data],
            Problem::BlockMismatched { .. } => &[FileKind::Data, FileKind::Tree],
            Problem::BlockLost { file: FileKind::Tree, .. } => &[FileKind::Tree],
            Problem::BlockUnproven { .. } | Problem::BlockLost { .. } => &[FileKind::Bitfield],
            Problem::LeafDamaged { .. }
            | Problem::BlockMisplaced { .. }
            | Problem::NodeMissing { .. }
            | Problem::NodeDamaged { .. }
            | Problem::NodeUnreadable { .. } => &[FileKind::Tree],
            Problem::SignatureInvalid { .. }
            | Problem::SignatureMissing { .. }
            | Problem::SignatureUnreadable { .. } => &[FileKind::Signatures],
        }
    }

    /// Returns the block that it is about, or the first of those under the node or before the signature that it is about.
    pub fn block(&self) -> u64 {
        match self.problem {
            Problem::BlockDamaged { block }
            | Problem::BlockMissing { block }
            | Problem::BlockUnreadable { block }
            | Problem::BlockUnproven { block }
            | Problem::LeafDamaged { block }
            | Problem::BlockMisplaced { block }
            | Problem::BlockMismatched { block }
            | Problem::BlockLost { block, .. } => block,
            Problem::NodeMissing { node } | Problem::NodeDamaged { node } | Problem::NodeUnreadable { node } => {
                flat::left_span(node) / 2
            }
            Problem::SignatureInvalid { length }
            | Problem::SignatureMissing { length }
            | Problem::SignatureUnreadable { length } => length.saturating_sub(1),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: Vec<_> = self.files().iter().map(|file| format!("`{file}`")).collect();
        write!(f, "feed {} ({} of {}): ", self.key, files.join(" or "), home(self.slot, &self.key))?;
        match self.problem {
            Problem::BlockDamaged { block } => write!(f, "block {block} does not have its hash"),
            Problem::BlockMissing { block } => write!(f, "block {block} is marked as held, and not there"),
            Problem::BlockUnreadable { block } => write!(f, "block {block} cannot be read: the disk fails there"),
            Problem::BlockMismatched { block } => {
                write!(f, "block {block} does not have the hash that the tree tells, and nothing proves that hash")
            }
            Problem::BlockLost { block, .. } => write!(
                f,
                "block {block} of this writer is not held, and was not cleared: a sync with a peer that has it brings it back"
            ),
            Problem::BlockUnproven { block } => write!(f, "block {block} is marked as held, and nothing proves it"),
            Problem::LeafDamaged { block } => {
                let leaf = 2 * block;
                write!(f, "block {block} is as it was written, and its hash, tree node {leaf}, is not")
            }
            Problem::BlockMisplaced { block } => {
                write!(f, "block {block} is as it was written, and a tree node that tells where it begins is not")
            }
            Problem::NodeMissing { node } => {
                write!(f, "block {}: tree node {node} is marked as held, and not there", self.block())
            }
            Problem::NodeUnreadable { node } => {
                write!(f, "block {}: tree node {node} cannot be read: the disk fails there", self.block())
            }
            Problem::NodeDamaged { node } => {
                write!(f, "block {}: tree node {node} is not that of its children", self.block())
            }
            Problem::SignatureInvalid { length } => {
                write!(f, "block {}: the signature of length {length} is not valid", self.block())
            }
            Problem::SignatureUnreadable { length } => {
                write!(
                    f,
                    "block {}: the signature of length {length} cannot be read: the disk fails there",
                    self.block()
                )
            }
            Problem::SignatureMissing { length } => {
                write!(f, "block {}: the signature of length {length} is missing", self.block())
            }
        }
    }
}

impl Feed {
    /// Checks on from a cursor, for about this many bytes of work: every held block against its leaf, every held node
    /// against its children if both are held, every signature against its roots if all are held. At least one thing is
    /// checked, so that calling until [`VerifyStep::done`] ends.
    ///
    /// The feed may grow meanwhile. Staged blocks are checked as if they were written. All else is read from the files anew, not from caches.
    ///
    /// # Errors
    /// The storage's error; what it holds that is wrong is a finding, not an error.
    pub fn verify_step<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        cursor: &mut VerifyCursor,
        max_bytes: usize,
    ) -> Result<VerifyStep, StoreError> {
        self.without_caches(|feed| feed.verify_on(storage, cursor, max_bytes))
    }

    /// Lets `read` find nothing that was read before; the caches are then as they were. Nothing may be written to `data` or `tree` meanwhile.
    pub(super) fn without_caches<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let blocks = (mem::take(&mut self.window), mem::take(&mut self.large));
        let cached = (mem::take(&mut self.nodes), mem::take(&mut self.read_cursor));
        let result = read(self);
        (self.window, self.large) = blocks;
        (self.nodes, self.read_cursor) = cached;
        result
    }

    fn verify_on<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        cursor: &mut VerifyCursor,
        max_bytes: usize,
    ) -> Result<VerifyStep, StoreError> {
        let mut step = VerifyStep::default();
        let mut work = 0;
        while work < max_bytes.max(1) && cursor.stage != Stage::Done {
            let cost = match cursor.stage {
                Stage::Blocks => self.verify_next_block(storage, cursor, &mut step)?,
                Stage::Nodes => self.verify_next_node(storage, cursor, &mut step)?,
                Stage::Signatures => self.verify_next_signature(storage, cursor, &mut step)?,
                Stage::Done => None,
            };
            match cost {
                Some(cost) => work = work.saturating_add(cost),
                None => {
                    cursor.position = 0;
                    cursor.stage = match cursor.stage {
                        Stage::Blocks => Stage::Nodes,
                        Stage::Nodes => Stage::Signatures,
                        Stage::Signatures | Stage::Done => Stage::Done,
                    };
                }
            }
        }
        step.done = cursor.stage == Stage::Done;
        Ok(step)
    }

    fn find(&self, step: &mut VerifyStep, problem: Problem) {
        step.findings.push(Finding { key: self.key, slot: self.slot, problem });
    }

    /// `None`: there are no more.
    fn verify_next_block<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        cursor: &mut VerifyCursor,
        step: &mut VerifyStep,
    ) -> Result<Option<usize>, StoreError> {
        let held = self.bitfield.next_held(cursor.position, self.bitfield.end());
        if let Some(block) = self.next_lost(cursor.position, held.unwrap_or(self.length)) {
            cursor.position = block + 1;
            let file = self.wrong_of_lost(storage, block)?;
            self.find(step, Problem::BlockLost { block, file });
            return Ok(Some(NODE_COST));
        }
        let Some(block) = held else { return Ok(None) };
        cursor.position = block + 1;
        step.blocks += 1;
        if !self.bitfield.node(2 * block) {
            self.find(step, Problem::BlockUnproven { block });
            return Ok(Some(NODE_COST));
        }
        let Some(leaf) = readable(self.find_node(storage, 2 * block))?.flatten() else {
            let problem = match self.leaf_of_block(storage, block)? {
                Some(_) => Problem::LeafDamaged { block },
                // The node itself is found in its turn.
                None => Problem::BlockUnproven { block },
            };
            self.find(step, problem);
            return Ok(Some(NODE_COST));
        };
        let at = self.read_cursor;
        let found = self.offset_of(storage, block, at).and_then(|offset| {
            let in_order = at.block == block;
            self.read_cursor = Cursor { block: block + 1, offset: offset.saturating_add(leaf.size) };
            // The end of the feed bounds what is read for a size that only damage can tell.
            if offset.saturating_add(leaf.size) > self.byte_length {
                return Ok(None);
            }
            self.read_block(storage, offset, leaf.size, in_order).map(Some)
        });
        match found {
            Ok(Some(bytes)) if merkle::leaf_hash(&bytes) == leaf.hash => {
                step.bytes += leaf.size;
                return Ok(Some(NODE_COST + bytes.len()));
            }
            Ok(_) => {
                let problem = self.blame(storage, block)?;
                self.find(step, problem);
            }
            Err(StoreError::Damaged { file: FileKind::Data, .. }) => {
                let problem = match self.blame(storage, block)? {
                    Problem::BlockDamaged { block } => Problem::BlockMissing { block },
                    problem => problem,
                };
                self.find(step, problem);
            }
            Err(StoreError::Damaged { .. } | StoreError::Io { file: Some(FileKind::Tree), .. }) => {
                self.find(step, Problem::BlockUnproven { block });
            }
            Err(error) if error.is_of_one_place() => self.find(step, Problem::BlockUnreadable { block }),
            Err(error) => return Err(error),
        }
        // A wrong size must not shift what comes after.
        self.read_cursor = Cursor::default();
        Ok(Some(NODE_COST + usize::try_from(leaf.size.min(1 << 23)).unwrap_or(0)))
    }

    /// What is wrong with a block that does not have the hash of its leaf.
    fn blame<S: Storage + ?Sized>(&mut self, storage: &mut S, block: u64) -> Result<Problem, StoreError> {
        if self.leaf_of_block(storage, block)?.is_some() {
            return Ok(Problem::LeafDamaged { block });
        }
        let mut misplaced = self.is_found_within(storage, block)?;
        // The leaf before it may tell another size than its block has.
        if !misplaced
            && let Some(before) = block.checked_sub(1).filter(|_| block % 2 == 1)
            && let Some((before, leaf, _)) = self.leaf_of_block(storage, before)?
            && let Ok(start) = self.offset_of(storage, block - 1, Cursor::default())
        {
            misplaced = self.has_block(storage, start.saturating_add(before.size), &leaf)?;
        }
        Ok(match misplaced {
            true => Problem::BlockMisplaced { block },
            false if self.place_of(storage, block)?.is_some() => Problem::BlockDamaged { block },
            false => Problem::BlockMismatched { block },
        })
    }

    /// The leaf of a block, and where the block is, if a signature covers that.
    fn place_of<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        block: u64,
    ) -> Result<Option<(Node, u64)>, StoreError> {
        let Some(leaf) = self.marked_readable_node(storage, 2 * block)? else { return Ok(None) };
        let beside = flat::sibling(2 * block);
        // It would be made again of its block, and not be found.
        if self.bitfield.node(beside) && self.readable_node(storage, beside)?.is_none() {
            return Ok(None);
        }
        match self.cover(storage, leaf)? {
            Cover::Signed { start } => Ok(Some((leaf, start))),
            Cover::Misfit { .. } | Cover::Unknown => Ok(None),
        }
    }

    /// Which file is wrong if a block of a writer is not held that was not cleared.
    fn wrong_of_lost<S: Storage + ?Sized>(&mut self, storage: &mut S, block: u64) -> Result<FileKind, StoreError> {
        Ok(match self.place_of(storage, block)? {
            Some((leaf, start)) if self.has_block(storage, start, &leaf)? => FileKind::Bitfield,
            Some(_) => FileKind::Data,
            None => FileKind::Tree,
        })
    }

    fn verify_next_node<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        cursor: &mut VerifyCursor,
        step: &mut VerifyStep,
    ) -> Result<Option<usize>, StoreError> {
        let Some(index) = self.bitfield.next_node(cursor.position, self.bitfield.nodes_end()) else { return Ok(None) };
        cursor.position = index + 1;
        let Some(found) = readable(self.find_node(storage, index))? else {
            self.find(step, Problem::NodeUnreadable { node: index });
            return Ok(Some(NODE_COST));
        };
        let Some(node) = found else {
            self.find(step, Problem::NodeMissing { node: index });
            return Ok(Some(NODE_COST));
        };
        let Some((left, right)) = flat::children(index) else { return Ok(Some(LEAF_COST)) };
        if !self.bitfield.node(left) || !self.bitfield.node(right) {
            return Ok(Some(LEAF_COST));
        }
        // A child that is missing was found already, or will be; so was one that is wrong itself.
        if let Some(left) = readable(self.find_node(storage, left))?.flatten()
            && let Some(right) = readable(self.find_node(storage, right))?.flatten()
            && merkle::parent(&left, &right).as_ref() != Some(&node)
            && !self.is_wrong(storage, left)?
            && !self.is_wrong(storage, right)?
        {
            self.find(step, Problem::NodeDamaged { node: index });
        }
        Ok(Some(NODE_COST))
    }

    /// Whether what is below a node shows that it is another one than it was: that is found in its turn.
    fn is_wrong<S: Storage + ?Sized>(&mut self, storage: &mut S, node: Node) -> Result<bool, StoreError> {
        Ok(match flat::children(node.index) {
            Some(_) => self.made_of_children(storage, node.index)?.is_some_and(|made| made != node),
            None if !self.has(node.index / 2) => false,
            None => self.leaf_of_block(storage, node.index / 2)?.is_some_and(|(leaf, ..)| leaf != node),
        })
    }

    fn verify_next_signature<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        cursor: &mut VerifyCursor,
        step: &mut VerifyStep,
    ) -> Result<Option<usize>, StoreError> {
        let Some(newest) = self.length.checked_sub(1).filter(|newest| cursor.position <= *newest) else {
            return Ok(None);
        };
        let next = self.next_signature_place(storage, cursor.position, newest)?;
        let length = next.unwrap_or(newest) + 1;
        cursor.position = length;
        let Some(signature) = readable(self.signature(storage, length))? else {
            self.find(step, Problem::SignatureUnreadable { length });
            return Ok(Some(SIGNATURE));
        };
        let last = length == self.length;
        let Some(signature) = signature else {
            if last && !self.is_static() {
                self.find(step, Problem::SignatureMissing { length });
            }
            return Ok(Some(SIGNATURE));
        };
        let mut roots = Vec::new();
        for root in flat::full_roots(length) {
            let held = self.bitfield.node(root);
            let node = if held { readable(self.find_node(storage, root))?.flatten() } else { None };
            match node {
                Some(node) => roots.push(node),
                // Nothing to hold it against; a node that should be there is found in its turn.
                None => return Ok(Some(NODE_COST)),
            }
        }
        if !self.signature_is_valid(&merkle::root_hash(&roots), length, &signature) {
            for root in roots {
                if self.is_wrong(storage, root)? {
                    return Ok(Some(SIGNATURE_COST));
                }
            }
            self.find(step, Problem::SignatureInvalid { length });
        }
        Ok(Some(SIGNATURE_COST))
    }
}

/// What was read; `None` if the disk does not give it.
fn readable<T>(read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Err(error) if error.is_of_one_place() => Ok(None),
        read => read.map(Some),
    }
}
