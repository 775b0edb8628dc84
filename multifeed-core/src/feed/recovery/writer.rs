//! A feed that is written here: its length is what was signed, and nobody else can give back what of that is lost.

use multifeed_proto::Node;

use super::is_known;
use super::remake::InData;
use super::report::Recovered;
use crate::cores::journal::Checkpoint;
use crate::error::StoreError;
use crate::feed::Feed;
use crate::feed::files::{
    BLOCKS_OF_A_PAGE, Files, HEADER, SIGNATURE, SIGNATURES_AT_ONCE, node_offset, signature_offset,
};
use crate::limits::MAX_FEED_BLOCKS;
use crate::merkle::{self, index as flat};
use crate::storage::{FileKind, Storage};

impl Feed {
    /// As [`recover`](Self::recover), of a feed that is written here.
    pub(super) fn recover_writer<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        known: Option<&Checkpoint>,
        mut report: Recovered,
    ) -> Result<(), StoreError> {
        let unclean = report.unclean;
        self.forget_stray_marks(storage, &mut report)?;
        let doubtful = self.is_bitfield_doubtful(storage, report.marked_length)?;
        let most_marked = if doubtful { self.bitfield.last_held(u64::MAX).map_or(0, |last| last + 1) } else { 0 };
        let most_marked = most_marked.max(report.marked_length);
        // What a crash left of a feed that no journal knows cannot be told from damage.
        let may_mend = !unclean || known.is_some();
        self.unmark_past_the_tree(storage, &mut report)?;
        let hidden = match may_mend {
            true => self.find_hidden(storage, known.map_or(0, |mark| mark.length).max(report.marked_length), known)?,
            false => Default::default(),
        };
        if unclean {
            self.bitfield.mend_index();
            // Who it was that made a feed which no journal knows is unknown too: a crash of JS's cannot be told from damage.
            if let Some(known) = known {
                self.return_to(storage, known, &mut report)?;
            }
        }
        let marked = merkle::length(&self.bitfield);
        let mut is_known = false;
        match self.signed_roots(storage, marked, known.filter(|_| !unclean))? {
            Some((roots, known)) => {
                is_known = known;
                self.set_roots(roots);
            }
            None => {
                let remade = if may_mend { self.remake_roots(storage, marked, known)? } else { None };
                report.signed_again = match remade {
                    Some(signed_again) => signed_again,
                    None => self.sign_again(storage, marked, known)?,
                };
            }
        }
        if self.length != marked {
            self.find_signed_length(storage, marked)?;
        }
        self.check_leaves(storage, &mut report)?;
        self.find_last_again(storage, &mut report)?;
        self.mark_hidden(storage, hidden, &mut report)?;
        self.check_tail(storage, may_mend, &mut report)?;
        report.blocks_regained += self.regain(storage, 0, &mut report)?;
        report.length = self.length;
        match known {
            Some(known) if self.length < known.length => {
                self.stay_older_than(known);
                return Ok(());
            }
            Some(known) if !is_known && !report.signed_again && self.is_another_history(storage, known)? => {
                self.forked = true;
                self.stay_older_than(known);
                return Ok(());
            }
            // Nobody saw what was not fsynced, or the application took that upon itself.
            Some(_) if unclean => {}
            _ if self.length < report.marked_length => {
                let error = self.shorter(storage, report.marked_length)?;
                return self.refuse_appends(storage, error, report.marked_length);
            }
            _ if doubtful => match self.past_the_end(storage)? {
                Some(_) if self.is_one_unended_append(storage, report.marked_length, most_marked)? => {
                    self.cut_past_the_end(storage)?;
                }
                Some(error) => return self.refuse_appends(storage, error, most_marked),
                None => {}
            },
            _ => {}
        }
        if report.signed_again {
            // What is left of a signature that was cut would look like a wrong one.
            let whole = self.whole_signatures(storage)?;
            self.cut_signatures_after(storage, whole)?;
        }
        self.write_repairs(storage, report)?;
        if unclean && known.is_some() && self.length.is_multiple_of(BLOCKS_OF_A_PAGE) {
            return self.cut_past_the_end(storage);
        }
        // Of an append that was cut: what comes to stand there will not be what it signed.
        self.cut_signatures(storage)
    }

    /// Signs a writable feed again whose newest signature is gone, if its roots are those that are known, or every block is there. Then it is the
    /// history that was signed before.
    pub(super) fn sign_again<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        length: u64,
        known: Option<&Checkpoint>,
    ) -> Result<bool, StoreError> {
        if length == 0 || !self.writable() {
            return Ok(false);
        }
        let Some(held) = self.roots_of(storage, length)? else { return Ok(false) };
        if is_known(known, length, &merkle::root_hash(&held)) {
            self.set_signed_roots(length, held)?;
            return Ok(true);
        }
        let mut roots: Vec<Node> = Vec::new();
        let mut offset = 0u64;
        for block in 0..length {
            let Some(leaf) = self.marked_node(storage, 2 * block)? else { return Ok(false) };
            if !self.bitfield.get(block) || !self.has_block(storage, offset, &leaf)? {
                return Ok(false);
            }
            offset = offset.saturating_add(leaf.size);
            climb(&mut roots, leaf, |_| {});
        }
        if roots != held {
            return Ok(false);
        }
        self.set_signed_roots(length, roots)?;
        Ok(true)
    }

    /// Takes a writable feed back to what is known of it, and from there to the newest length that is whole and signed.
    ///
    /// Nothing is done if the tree does not have that length with that root: another history, or damage, for the checks that
    /// follow to tell.
    pub(super) fn return_to<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        known: &Checkpoint,
        report: &mut Recovered,
    ) -> Result<(), StoreError> {
        let roots = match self.roots_of(storage, known.length)? {
            Some(roots) => roots,
            None if self.remake_roots(storage, known.length, Some(known))?.is_some() => self.roots.clone(),
            None => {
                // That the disk does not give one now does not tell that what follows is none of ours.
                for root in flat::full_roots(known.length) {
                    self.marked_node(storage, root)?;
                }
                return Ok(());
            }
        };
        let root_hash = merkle::root_hash(&roots);
        if !known.has_root(&root_hash) {
            return Ok(());
        }
        let valid = match self.readable_signature(storage, known.length)? {
            Some(signature) => self.signature_is_valid(&root_hash, known.length, &signature),
            None => known.length == 0,
        };
        if !valid && let Some(writer_key) = &self.writer_key {
            // The root is known to be that of the history that was signed: so the same signature.
            let signature = writer_key.sign(self.slot, &merkle::signable(&root_hash, known.length))?;
            self.staged.put_signature(known.length - 1, signature);
            report.signed_again = true;
        }
        let before = self.bitfield.clone();
        let marked = report.marked_length;
        self.forget_after(known.length);
        self.set_roots(roots);
        report.blocks_checked += self.regain(storage, marked, report)?;
        report.blocks_unmarked += marked.saturating_sub(self.length);
        report.nodes_unmarked += before.nodes_besides(&self.bitfield);
        report.blocks_regained += self.length.saturating_sub(marked.max(known.length));
        self.bitfield.forget_unchanged(&before);
        Ok(())
    }

    /// Takes up blocks after the length of a writable feed that are in `data` and `tree`, as far as one of the signatures
    /// after it covers them. Only leaves are read, everything above them is computed again.
    ///
    /// `marked` is a length that the bitfield told, or 0: marks are the last that an append writes, so that all up to it was
    /// signed. If every block up to it is whole and its signature is not there, it is signed again. So are signatures on
    /// the way that are torn.
    pub(super) fn regain<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        marked: u64,
        report: &mut Recovered,
    ) -> Result<u64, StoreError> {
        let Some(writer_key) = self.writer_key.clone() else { return Ok(0) };
        let mut files = Files { storage, slot: self.slot };
        let stored =
            files.len(FileKind::Signatures)?.unwrap_or(0).saturating_sub(HEADER as u64).div_ceil(SIGNATURE as u64);
        let start = self.length;
        let mut roots = self.roots.clone();
        let mut offset = self.byte_length;
        let (mut pending, mut torn, mut unread) = (Vec::new(), Vec::new(), None);
        for block in start..stored.max(marked).min(MAX_FEED_BLOCKS) {
            let leaf = match self.nodes.get(storage, self.slot, 2 * block)? {
                Some(leaf) => match self.look_for(storage, offset, &leaf)? {
                    InData::Whole => Some(leaf),
                    // That is none of a torn append, and a signature over its leaf proves that it was signed.
                    InData::Unreadable(error) => {
                        unread.get_or_insert(error);
                        Some(leaf)
                    }
                    InData::Other => None,
                },
                None => None,
            };
            let leaf = match leaf {
                Some(leaf) => leaf,
                None => match self.leaf_of_the_rest(storage, block, offset, &roots)? {
                    Some(leaf) => leaf,
                    None => break,
                },
            };
            offset += leaf.size;
            climb(&mut roots, leaf, |node| pending.push(node));
            let root_hash = merkle::root_hash(&roots);
            let slot = self.slot;
            let sign = || writer_key.sign(slot, &merkle::signable(&root_hash, block + 1));
            match self.stored_signature(storage, block + 1)? {
                Some(signature) if self.signature_is_valid(&root_hash, block + 1, &signature) => {}
                _ if unread.is_some() => continue,
                stored if block + 1 == marked => torn.push((block, sign()?, stored.is_some())),
                Some(_) => {
                    torn.push((block, sign()?, true));
                    continue;
                }
                None => continue,
            }
            for node in pending.drain(..) {
                if self.nodes.get(storage, self.slot, node.index)? != Some(node) {
                    self.staged.put_node(&node);
                }
                self.bitfield.set_node(node.index);
            }
            for (position, signature, torn) in torn.drain(..) {
                self.staged.put_signature(position, signature);
                report.signatures_mended += u64::from(torn);
            }
            for regained in self.length..=block {
                self.bitfield.set(regained, true);
            }
            unread = None;
            self.set_roots(roots.clone());
        }
        // Without it nobody knows whether it was appended: the disk may give it again.
        unread.map_or(Ok(self.length - start), Err)
    }

    /// What stands in the place of a length's signature, also if the file ends in it; `None` if that is nothing but zeros.
    pub(super) fn stored_signature<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        length: u64,
    ) -> Result<Option<[u8; SIGNATURE]>, StoreError> {
        let mut signature = [0; SIGNATURE];
        let offset = signature_offset(length.saturating_sub(1));
        Files { storage, slot: self.slot }.read(FileKind::Signatures, offset, &mut signature)?;
        Ok((signature != [0; SIGNATURE]).then_some(signature))
    }

    /// Whether `bitfield` may be lost, or end too early, if it tells of so many blocks. That is so if more were signed, or are marked, or it ends
    /// with a page, as it does if it is cut after one, or is empty.
    pub(super) fn is_bitfield_doubtful<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        marked: u64,
    ) -> Result<bool, StoreError> {
        let ends_with_a_page = marked.is_multiple_of(BLOCKS_OF_A_PAGE);
        let more_is_marked = self.bitfield.last_held(u64::MAX).is_some_and(|last| last >= marked);
        Ok(ends_with_a_page || more_is_marked || self.is_signed_after(storage, marked)?)
    }

    /// Whether a signature is there, valid or not, that is none of a length up to this one.
    pub(super) fn is_signed_after<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        length: u64,
    ) -> Result<bool, StoreError> {
        Ok(self.next_signature(storage, length)?.is_some())
    }

    /// The position of the first signature from this one on, valid or not. What the disk does not give may be one.
    pub(super) fn next_signature<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        from: u64,
    ) -> Result<Option<u64>, StoreError> {
        let end = self.whole_signatures(storage)?;
        let mut start = from;
        let mut buffer = Vec::new();
        while let Some(first) =
            self.next_entry(storage, FileKind::Signatures, SIGNATURE, start)?.filter(|first| *first < end)
        {
            start = first;
            let next = end.min(start + SIGNATURES_AT_ONCE);
            buffer.resize((next - start) as usize * SIGNATURE, 0);
            let mut files = Files { storage, slot: self.slot };
            let count = match files.read(FileKind::Signatures, signature_offset(start), &mut buffer) {
                Err(error) if error.is_unreadable() => return Ok(Some(start)),
                count => count?,
            };
            if let Some(at) = buffer[..count].iter().position(|byte| *byte != 0) {
                return Ok(Some(start + (at / SIGNATURE) as u64));
            }
            self.pass_zeros(FileKind::Signatures, count as u64)?;
            start = next;
        }
        Ok(None)
    }

    /// The error for a writable feed whose bitfield tells of more than is signed, and that no journal knows. It names the file that ends before
    /// that, or if none does the bitfield.
    pub(super) fn shorter<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        told: u64,
    ) -> Result<StoreError, StoreError> {
        let mut bytes = Some(0u64);
        for root in flat::full_roots(told) {
            let node = self.readable_node(storage, root)?;
            bytes = bytes.zip(node).map(|(bytes, root)| bytes.saturating_add(root.size));
        }
        let mut files = Files { storage, slot: self.slot };
        let data_len = files.len(FileKind::Data)?.unwrap_or(0);
        let tree_ends = files.len(FileKind::Tree)?.unwrap_or(0) < node_offset((2 * told).saturating_sub(1));
        let file = match bytes {
            None => FileKind::Tree,
            Some(bytes) if data_len < bytes => FileKind::Data,
            Some(_) if tree_ends => FileKind::Tree,
            Some(_) => FileKind::Bitfield,
        };
        let length = self.length;
        let why = format!(
            "there were {told} blocks of this writer, and no more than {length} are whole and signed. Nothing was changed, and nothing \
             can be appended to it before a sync with a peer that has them, or a copy of the folder, brings the others back"
        );
        Ok(StoreError::damaged(self.slot, file, why))
    }
}

/// Returns the ends of the files of a feed that has these blocks and bytes, and nothing after them.
pub(super) fn ends(length: u64, byte_length: u64) -> [(FileKind, u64); 3] {
    [
        (FileKind::Signatures, signature_offset(length)),
        (FileKind::Tree, node_offset((2 * length).saturating_sub(1))),
        (FileKind::Data, byte_length),
    ]
}

/// Adds a leaf to the roots of the blocks before it; `made` is called with the leaf, and with each parent that comes to be.
pub(super) fn climb(roots: &mut Vec<Node>, leaf: Node, mut made: impl FnMut(Node)) {
    let mut node = leaf;
    made(node);
    while let Some(left) = roots.last()
        && left.index == flat::sibling(node.index)
        && let Some(parent) = merkle::parent(left, &node)
    {
        roots.pop();
        made(parent);
        node = parent;
    }
    roots.push(node);
}
