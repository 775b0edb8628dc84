//! Opening a feed after whatever happened to it.
mod hidden;
mod older;
mod recheck;
mod remake;
pub(super) mod report;

use multifeed_proto::Node;

use super::recovery::remake::InData;
use super::recovery::report::Recovered;
use super::{BLOCKS_OF_A_PAGE, Cursor, Feed, Files, HEADER, NODE, SIGNATURE, signature_offset};
use crate::cores::journal::Checkpoint;
use crate::error::StoreError;
use crate::limits::{MAX_FEED_BLOCKS, MAX_FEED_BYTES};
use crate::merkle::{self, index as flat};
use crate::storage::{FileKind, Storage};

/// Signatures that are read at once when a signed length is searched for.
const SIGNATURES_AT_ONCE: u64 = 1024;
/// Nodes that are looked at for each question where the next data of `tree` is.
const NODES_AT_ONCE: u64 = 1024;
/// Levels above the last block that opening a feed holds against each other: those that lie in one page of the bitfield. In a feed that is long
/// by claim alone each one above is a read of its own, and what is served is held against what is above it in any case.
const LEVELS_CHECKED: u32 = 13;

/// What the last block held tells of `data`.
enum State {
    /// It is there, and so `data` goes as far as any block before it.
    Whole,
    /// It is empty, and lies past the end of `data`: whether those before it are there it does not tell.
    SaysNothing,
    Missing,
    /// The disk does not give it. The file goes as far as it should, and the disk may give it again: it stays marked, as any that rotted.
    Unreadable,
}

impl Feed {
    /// Finds the length, and makes marks and files agree. See [`Feed::open`] for what is looked at. What is wrong with a file and cannot be set right is
    /// added to `told`.
    pub(super) fn recover<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        known: Option<&Checkpoint>,
        unclean: bool,
        told: &mut Vec<StoreError>,
    ) -> Result<(), StoreError> {
        let mut files = Files { storage, slot: self.slot };
        let of_marks = |error: &StoreError| matches!(error, StoreError::Io { file: Some(FileKind::Bitfield), .. });
        let marks_unread = told.iter().any(of_marks);
        let tree_len = files.len(FileKind::Tree)?.unwrap_or(0);
        let mut report = Recovered::new(self.key, self.slot);
        report.marked_length = merkle::length(&self.bitfield);
        let doubtful = self.writable() && self.is_bitfield_doubtful(storage, report.marked_length)?;
        report.unclean = unclean;
        report.synced_length = known.filter(|mark| mark.synced).map(|mark| mark.length);

        // What a crash left of a writer's feed that no journal knows is not to be told from damage.
        let may_mend = !self.writable() || !unclean || known.is_some();
        let synced = known.filter(|known| unclean && known.synced && !self.writable());
        let before = synced.map(|known| (known, self.bitfield.clone()));
        let nodes = tree_len.saturating_sub(HEADER as u64) / NODE as u64;
        report.nodes_unmarked += self.unmark_nodes_from(nodes);
        self.mark_parents_between_pages(storage)?;
        let hidden = match self.writable() && may_mend {
            true => self.find_hidden(storage, known.map_or(0, |mark| mark.length).max(report.marked_length), known)?,
            false => Default::default(),
        };
        if unclean {
            self.bitfield.mend_index();
            match known {
                Some(known) if self.writable() => self.return_to(storage, known, &mut report)?,
                // Who it was that made the feed nobody knows: a crash of JS's is not to be told from damage.
                None if self.writable() => {}
                _ => {
                    if marks_unread {
                        let length = self.whole_signatures(storage)?;
                        self.mark_anew(storage, nodes.min(2 * length), &mut report)?;
                    }
                    self.recheck(storage, known, &mut report)?;
                }
            }
        } else if !self.writable() {
            let length = self.whole_signatures(storage)?.max(known.map_or(0, |mark| mark.length));
            if marks_unread || report.marked_length < length {
                self.mark_anew(storage, nodes.min(2 * length), &mut report)?;
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
        // What is signed before it comes again from a peer, with what follows. Nothing else is given up.
        if self.length == 0 && !self.writable() && self.take_known_roots(storage, marked, known)? {
            told.push(self.without_signature(storage, marked));
        }
        if !unclean {
            self.check_owner(storage, marked)?;
        }

        self.check_leaves(storage, &mut report)?;
        self.find_last_again(storage, &mut report)?;
        self.mark_hidden(storage, hidden, &mut report)?;
        self.check_tail(storage, may_mend, &mut report)?;
        if self.writable() {
            report.blocks_regained += self.regain(storage, 0, &mut report)?;
        }
        report.length = self.length;
        report.synced_lost = before.map_or(0, |(known, before)| self.bitfield.lost_of(&known.pages, &before));
        if self.writable() {
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
                // Nobody saw what was not synced, or the application took that upon itself.
                Some(_) if unclean => {}
                _ if self.length < report.marked_length => {
                    return Err(self.shorter(storage, report.marked_length)?);
                }
                _ if doubtful => self.refuse_what_is_past_the_end(storage)?,
                _ => {}
            }
        }
        if report.signed_again {
            // What is left of a signature that was cut would look like a wrong one.
            let whole = self.whole_signatures(storage)?;
            self.cut_signatures_after(storage, whole)?;
        }
        self.keep_data_file(storage)?;
        if self.bitfield.is_dirty()
            || !self.staged.is_empty()
            || report.marked_length != report.length
            || report.synced_lost > 0
            || !report.lost.is_empty()
        {
            self.flush(storage)?;
            self.recovered = Some(Box::new(report));
        }
        if self.writable() && unclean && known.is_some() && self.length.is_multiple_of(BLOCKS_OF_A_PAGE) {
            return self.cut_after_a_page(storage);
        }
        // Of an append that was cut: what comes to stand there will not be what it signed.
        self.cut_signatures(storage)
    }

    /// Cuts what a torn append left of a writable feed whose length ends with a page of the bitfield, also 0: once the store was closed, that
    /// would be taken for blocks whose marks are lost. So the disk has to know of it before.
    fn cut_after_a_page<S: Storage + ?Sized>(&mut self, storage: &mut S) -> Result<(), StoreError> {
        let mut files = Files { storage, slot: self.slot };
        for (kind, end) in ends(self.length, self.byte_length) {
            if files.len(kind)?.is_some_and(|len| len > end) {
                files.truncate(kind, end)?;
                files.sync(kind)?;
            }
        }
        Ok(())
    }

    /// Refuses a remote feed that the journal knows under another key: in `key` a bit flipped. Of a writer's feed the secret key tells.
    pub(super) fn check_key<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        known: &Checkpoint,
    ) -> Result<(), StoreError> {
        if self.writable() {
            return Ok(());
        }
        let roots = self.roots_of(storage, known.length)?.filter(|roots| !roots.is_empty());
        if roots.is_some_and(|roots| known.has_root(&merkle::root_hash(&roots))) {
            let why = "they were known by another key than that in `key`; nothing was changed";
            return Err(StoreError::damaged(self.slot, FileKind::Signatures, why));
        }
        Ok(())
    }

    /// Refuses a remote feed that has roots and a signature, and no signature that is the key's: a bit flipped in `key`, or in the only
    /// signature. To unmark all of it would be to lose it, and nothing would come again where the key is nobody's.
    fn check_owner<S: Storage + ?Sized>(&mut self, storage: &mut S, marked: u64) -> Result<(), StoreError> {
        if self.writable() || self.length > 0 || self.roots_of(storage, marked)?.is_none() {
            return Ok(());
        }
        if self.signature(storage, marked)?.is_some() {
            let why = "none is of the key in `key`, and there are blocks; nothing was changed";
            return Err(StoreError::damaged(self.slot, FileKind::Signatures, why));
        }
        Ok(())
    }

    /// Takes the roots of a remote feed whose signature is damaged, or on a bad sector, if the journal has them: the signature was verified before.
    fn take_known_roots<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        length: u64,
        known: Option<&Checkpoint>,
    ) -> Result<bool, StoreError> {
        let roots = self.roots_of(storage, length)?.filter(|_| length > 0);
        let roots = roots.filter(|roots| is_known(known, length, &merkle::root_hash(roots)));
        Ok(roots.map(|roots| self.set_roots(roots)).is_some())
    }

    /// What is told of a feed whose newest signature is none.
    fn without_signature<S: Storage + ?Sized>(&mut self, storage: &mut S, length: u64) -> StoreError {
        self.signature(storage, length).err().unwrap_or_else(|| {
            let why =
                format!("the signature of {length} blocks is damaged: the journal proves them, and they can be read");
            StoreError::damaged(self.slot, FileKind::Signatures, why)
        })
    }

    /// Signs a writable feed again whose newest signature is gone, if its roots are those that are known, or every block is there: it is the history
    /// that was signed before.
    fn sign_again<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        length: u64,
        known: Option<&Checkpoint>,
    ) -> Result<bool, StoreError> {
        if length == 0 || self.key_pair.is_none() {
            return Ok(false);
        }
        let Some(held) = self.roots_of(storage, length)? else { return Ok(false) };
        if is_known(known, length, &merkle::root_hash(&held)) {
            self.set_signed_roots(length, held);
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
        self.set_signed_roots(length, roots);
        Ok(true)
    }

    /// Marks a remote feed's nodes and blocks again, as far as they are proven, where `bitfield` tells of fewer than were known or have
    /// signatures: it is lost, or was cut, or a part of it is on a bad sector. Nodes before `end` are looked for.
    fn mark_anew<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        end: u64,
        report: &mut Recovered,
    ) -> Result<(), StoreError> {
        let before = self.bitfield.clone();
        let mut from = 0;
        while from < end {
            let Some(first) = self.next_entry(storage, FileKind::Tree, NODE, from)? else { break };
            from = end.min(first + NODES_AT_ONCE);
            let mut found = false;
            for node in first..from {
                if self.find_node(storage, node)?.is_some() {
                    found = true;
                    self.bitfield.set_node_alone(node);
                    if node % 2 == 0 {
                        self.bitfield.set(node / 2, true);
                    }
                }
            }
            if !found {
                self.pass_zeros(FileKind::Tree, NODES_AT_ONCE * NODE as u64)?;
            }
        }
        self.bitfield.mend_index();
        let unmarked = (report.blocks_unmarked, report.nodes_unmarked);
        self.recheck(storage, None, report)?;
        (report.blocks_unmarked, report.nodes_unmarked) = unmarked;
        report.blocks_unmarked += before.blocks_besides(&self.bitfield);
        report.nodes_unmarked += before.nodes_besides(&self.bitfield);
        report.blocks_regained += self.bitfield.blocks_besides(&before);
        Ok(())
    }

    /// The error for a writable feed whose bitfield tells of more than is signed, and that no journal knows. It names the file that ends before
    /// that, or where none does the bitfield.
    fn shorter<S: Storage + ?Sized>(&mut self, storage: &mut S, told: u64) -> Result<StoreError, StoreError> {
        let mut bytes = Some(0u64);
        for root in flat::full_roots(told) {
            let node = self.readable_node(storage, root)?;
            bytes = bytes.zip(node).map(|(bytes, root)| bytes.saturating_add(root.size));
        }
        let mut files = Files { storage, slot: self.slot };
        let data_len = files.len(FileKind::Data)?.unwrap_or(0);
        let tree_ends = files.len(FileKind::Tree)?.unwrap_or(0) < super::node_offset((2 * told).saturating_sub(1));
        let file = match bytes {
            None => FileKind::Tree,
            Some(bytes) if data_len < bytes => FileKind::Data,
            Some(_) if tree_ends => FileKind::Tree,
            Some(_) => FileKind::Bitfield,
        };
        let length = self.length;
        let why = format!(
            "there were {told} blocks of this writer, and no more than {length} are whole and signed; \
             nothing was changed, and nothing can be appended to it"
        );
        Ok(StoreError::damaged(self.slot, file, why))
    }

    /// Whether `bitfield` may be lost, or end too early, where it tells of so many blocks: more were signed, or are marked, or it ends with a page, as
    /// it does where it is cut after one, or is empty.
    fn is_bitfield_doubtful<S: Storage + ?Sized>(&mut self, storage: &mut S, marked: u64) -> Result<bool, StoreError> {
        let ends_with_a_page = marked.is_multiple_of(BLOCKS_OF_A_PAGE);
        let more_is_marked = self.bitfield.last_held(u64::MAX).is_some_and(|last| last >= marked);
        Ok(ends_with_a_page || more_is_marked || self.is_signed_after(storage, marked)?)
    }

    /// Whether a signature is there, valid or not, that is none of a length up to this one.
    fn is_signed_after<S: Storage + ?Sized>(&mut self, storage: &mut S, length: u64) -> Result<bool, StoreError> {
        let end = self.whole_signatures(storage)?;
        let mut start = length;
        let mut buffer = Vec::new();
        while let Some(first) =
            self.next_entry(storage, FileKind::Signatures, SIGNATURE, start)?.filter(|first| *first < end)
        {
            start = first;
            let next = end.min(start + SIGNATURES_AT_ONCE);
            buffer.resize((next - start) as usize * SIGNATURE, 0);
            let mut files = Files { storage, slot: self.slot };
            let count = match files.read(FileKind::Signatures, signature_offset(start), &mut buffer) {
                // It may be anything.
                Err(error) if error.is_unreadable() => return Ok(true),
                count => count?,
            };
            if buffer[..count].iter().any(|byte| *byte != 0) {
                return Ok(true);
            }
            self.pass_zeros(FileKind::Signatures, count as u64)?;
            start = next;
        }
        Ok(false)
    }

    /// Where the marks of a writable feed are lost, nobody knows what was signed but its other files. Another one of them may have lost its end too:
    /// so all of them have to end with the block that is the last one, or it would be signed over.
    fn refuse_what_is_past_the_end<S: Storage + ?Sized>(&mut self, storage: &mut S) -> Result<(), StoreError> {
        let length = self.length;
        for (kind, end) in ends(length, self.byte_length) {
            let len = Files { storage, slot: self.slot }.len(kind)?;
            if len.is_some_and(|len| len > end) {
                let why = format!(
                    "`bitfield` does not tell of all blocks of this writer, {length} are whole and signed, and this goes on after them: \
                     nothing was changed, and nothing can be appended to it"
                );
                return Err(StoreError::damaged(self.slot, kind, why));
            }
        }
        Ok(())
    }

    /// Takes a writable feed back to what is known of it, and from there to the newest length that is whole and signed.
    ///
    /// Nothing is done where the tree does not have that length with that root: another history, or damage, for the checks that
    /// follow to tell.
    fn return_to<S: Storage + ?Sized>(
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
        if !valid && let Some(pair) = &self.key_pair {
            // The root is known to be that of the history that was signed: so the same signature.
            self.staged.put_signature(known.length - 1, pair.sign(&merkle::signable(&root_hash, known.length)));
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
        self.bitfield.settle(&before);
        Ok(())
    }

    /// JS cannot read an empty block where there is no `data` at all, which a feed of empty blocks alone may have lost.
    fn keep_data_file<S: Storage + ?Sized>(&mut self, storage: &mut S) -> Result<(), StoreError> {
        let mut files = Files { storage, slot: self.slot };
        if self.bitfield.count() > 0 && files.len(FileKind::Data)?.is_none() {
            files.write(FileKind::Data, 0, &[])?;
        }
        Ok(())
    }

    /// The first entry from this one on, in a file of entries of this size, that is not in a hole as a whole.
    pub(super) fn next_entry<S: Storage + ?Sized>(
        &self,
        storage: &mut S,
        kind: FileKind,
        size: usize,
        from: u64,
    ) -> Result<Option<u64>, StoreError> {
        let offset = |entry: u64| HEADER as u64 + entry * size as u64;
        let next = Files { storage, slot: self.slot }.next_data(kind, offset(from))?;
        Ok(next.map(|at| from.max(at.saturating_sub(HEADER as u64) / size as u64)))
    }

    /// Counts zeros that had to be read.
    pub(super) fn pass_zeros(&mut self, kind: FileKind, bytes: u64) -> Result<(), StoreError> {
        let left = self.zeros_left.checked_sub(bytes).ok_or_else(|| {
            let why = "it is nearly all zeros, and opening this store would read too many of them (`Limits::opening_zeros`): \
                       nothing was changed";
            StoreError::damaged(self.slot, kind, why)
        })?;
        self.zeros_left = left;
        Ok(())
    }

    /// How many signatures have their place in the file whole.
    fn whole_signatures<S: Storage + ?Sized>(&mut self, storage: &mut S) -> Result<u64, StoreError> {
        let len = Files { storage, slot: self.slot }.len(FileKind::Signatures)?.unwrap_or(0);
        Ok((len.saturating_sub(HEADER as u64) / SIGNATURE as u64).min(MAX_FEED_BLOCKS))
    }

    /// Cuts signatures past the length.
    pub(super) fn cut_signatures<S: Storage + ?Sized>(&mut self, storage: &mut S) -> Result<(), StoreError> {
        self.cut_signatures_after(storage, self.length)
    }

    fn cut_signatures_after<S: Storage + ?Sized>(&mut self, storage: &mut S, length: u64) -> Result<(), StoreError> {
        let end = signature_offset(length);
        let mut files = Files { storage, slot: self.slot };
        if files.len(FileKind::Signatures)?.is_some_and(|len| len > end) {
            files.truncate(FileKind::Signatures, end)?;
        }
        Ok(())
    }

    /// Blocks that are marked while their leaves are not: a page was written in part, or `tree` ends too early.
    fn check_leaves<S: Storage + ?Sized>(&mut self, storage: &mut S, report: &mut Recovered) -> Result<(), StoreError> {
        let mut from = 0;
        while let Some(block) = self.bitfield.next_without_leaf(from) {
            // It is marked no more after this, or its leaf is.
            from = block;
            if self.regain_leaf(storage, block)? {
                continue;
            }
            report.blocks_unmarked += u64::from(self.bitfield.set(block, false));
            if self.writable() && block < self.length {
                self.find_signed_length(storage, block)?;
            }
        }
        Ok(())
    }

    /// Makes a node again that is marked and was lost since the feed was opened, which reads few of them: of its block or its children, where
    /// what is held above and beside it proves it. The next write puts it back.
    pub(super) fn regain_node<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        index: u64,
    ) -> Result<Option<Node>, StoreError> {
        if !self.bitfield.node(index) {
            return Ok(None);
        }
        let Some((left, right)) = flat::children(index) else {
            let regained = self.regain_leaf(storage, index / 2)?;
            return if regained { self.find_node(storage, index) } else { Ok(None) };
        };
        let children = (self.marked_node(storage, left)?, self.marked_node(storage, right)?);
        let (Some(left), Some(right)) = children else { return Ok(None) };
        let Some(node) = merkle::parent(&left, &right) else { return Ok(None) };
        let above = self.marked_node(storage, flat::parent(index))?;
        let beside = self.marked_node(storage, flat::sibling(index))?;
        let proven = match (above, beside) {
            (Some(above), Some(beside)) => merkle::parent_of(node, beside) == Some(above),
            _ => self.roots.contains(&node),
        };
        if !proven {
            return Ok(None);
        }
        self.staged.put_node(&node);
        Ok(Some(node))
    }

    /// Finds a leaf in `tree`, or makes it again from its block, where what is held above and beside it proves it.
    fn regain_leaf<S: Storage + ?Sized>(&mut self, storage: &mut S, block: u64) -> Result<bool, StoreError> {
        let index = 2 * block;
        let Some(parent) = self.marked_node(storage, flat::parent(index))? else { return Ok(false) };
        let Some(sibling) = self.find_node(storage, flat::sibling(index))? else { return Ok(false) };
        let Some(size) = parent.size.checked_sub(sibling.size) else { return Ok(false) };
        match self.find_node(storage, index)? {
            Some(leaf) => Ok(self.take_leaf(Node { size, ..leaf }, sibling, parent)),
            None => self.remake_leaf(storage, block),
        }
    }

    /// Unmarks what lies past the length, and makes sure that the last block held is there: then those before it are. The length stays: it is signed.
    fn check_tail<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        may_mend: bool,
        report: &mut Recovered,
    ) -> Result<(), StoreError> {
        let data_len = Files { storage, slot: self.slot }.len(FileKind::Data)?.unwrap_or(0);
        let mut end = u64::MAX;
        loop {
            let (blocks, nodes) = self.forget_after(self.length);
            report.blocks_unmarked += blocks;
            report.nodes_unmarked += nodes;
            let Some(last) = self.bitfield.last_held(end.min(self.length)) else { return Ok(()) };
            end = last;
            match self.state_of(storage, last, data_len)? {
                State::Whole | State::Unreadable => return Ok(()),
                State::SaysNothing => {}
                State::Missing if may_mend && self.mend_leaf(storage, last, data_len)? => return Ok(()),
                State::Missing => {
                    let leaf = match self.find_node(storage, 2 * last) {
                        Err(error) if error.is_unreadable() => return Ok(()),
                        found => found?,
                    };
                    self.lose_block(last, report);
                    if leaf.is_none() {
                        report.nodes_unmarked += u64::from(self.bitfield.clear_node(2 * last));
                    }
                }
            }
        }
    }

    /// Makes the leaf of a block again that is whole, or that of the block beside it.
    fn mend_leaf<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        block: u64,
        data_len: u64,
    ) -> Result<bool, StoreError> {
        let mended = self.regain_rotten_leaf(storage, block)?;
        Ok(mended && matches!(self.state_of(storage, block, data_len)?, State::Whole))
    }

    pub(super) fn set_roots(&mut self, roots: Vec<Node>) {
        self.length = roots.last().map_or(0, |last| flat::right_span(last.index) / 2 + 1);
        self.byte_length = roots.iter().map(|root| root.size).sum();
        self.roots = roots;
        self.read_cursor = Cursor::default();
    }

    /// Unmarks the nodes past the end of `tree`.
    fn unmark_nodes_from(&mut self, nodes: u64) -> u64 {
        let end = self.bitfield.nodes_end();
        let mut from = nodes;
        let mut unmarked = 0;
        while let Some(node) = self.bitfield.next_node(from, end) {
            unmarked += u64::from(self.bitfield.clear_node(node));
            from = node;
        }
        unmarked
    }

    /// A node over two pages of the bitfield is marked in the first of them, which may be the one that was not written.
    fn mark_parents_between_pages<S: Storage + ?Sized>(&mut self, storage: &mut S) -> Result<(), StoreError> {
        for node in self.bitfield.nodes_over_pages() {
            let both =
                flat::children(node).is_some_and(|(left, right)| self.bitfield.node(left) && self.bitfield.node(right));
            if both && !self.bitfield.node(node) && self.find_node(storage, node)?.is_some() {
                self.bitfield.set_node(node);
            }
        }
        Ok(())
    }

    /// The roots of a length, where all are there and the signature of that length is theirs, and whether the mark is of this very length and root:
    /// the signature that it is sealed with was verified before.
    fn signed_roots<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        length: u64,
        known: Option<&Checkpoint>,
    ) -> Result<Option<(Vec<Node>, bool)>, StoreError> {
        let Some(roots) = self.roots_of(storage, length)? else { return Ok(None) };
        if length == 0 {
            return Ok(Some((roots, false)));
        }
        let root_hash = merkle::root_hash(&roots);
        let known = known.filter(|known| is_known(Some(known), length, &root_hash));
        let valid = match self.readable_signature(storage, length)? {
            Some(signature) => {
                let sealed = known.and_then(|mark| mark.seal).is_some_and(|seal| seal.is_over(&signature));
                let valid = sealed || self.signature_is_valid(&root_hash, length, &signature);
                if valid {
                    self.verified(length, &signature);
                }
                valid
            }
            // An unsigned feed of JS's.
            None => root_hash == *self.key.as_bytes(),
        };
        Ok(valid.then_some((roots, known.is_some())))
    }

    pub(super) fn roots_of<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        length: u64,
    ) -> Result<Option<Vec<Node>>, StoreError> {
        let mut roots = Vec::new();
        let mut bytes = 0u64;
        for root in flat::full_roots(length) {
            let Some(node) = self.marked_readable_node(storage, root)? else { return Ok(None) };
            bytes = bytes.saturating_add(node.size);
            roots.push(node);
        }
        Ok((bytes <= MAX_FEED_BYTES).then_some(roots))
    }

    /// Takes the greatest length up to this one that is signed and whose roots are there.
    fn find_signed_length<S: Storage + ?Sized>(&mut self, storage: &mut S, most: u64) -> Result<(), StoreError> {
        let mut end = most;
        let mut buffer = Vec::new();
        // Mostly one of the last is it. Holes are passed over in growing steps.
        let mut step = 4;
        while end > 0 {
            let start = end.saturating_sub(step);
            let data = self.next_entry(storage, FileKind::Signatures, SIGNATURE, start)?;
            if data.is_none_or(|data| data >= end) {
                (end, step) = (start, step * 4);
                continue;
            }
            if step > SIGNATURES_AT_ONCE {
                step = SIGNATURES_AT_ONCE.max(step / 4);
                continue;
            }
            step = SIGNATURES_AT_ONCE.min(step * 4);
            buffer.resize((end - start) as usize * SIGNATURE, 0);
            let count = self.read_signatures(storage, start, &mut buffer)?;
            if buffer[..count].iter().all(|byte| *byte == 0) {
                self.pass_zeros(FileKind::Signatures, count as u64)?;
            }
            for (position, signature) in buffer[..count].chunks_exact(SIGNATURE).enumerate().rev() {
                if signature.iter().all(|byte| *byte == 0) {
                    continue;
                }
                if let Some((roots, _)) = self.signed_roots(storage, start + position as u64 + 1, None)? {
                    self.set_roots(roots);
                    return Ok(());
                }
            }
            end = start;
        }
        self.set_roots(Vec::new());
        Ok(())
    }

    /// Whether a block is in `data` as its leaf says, and the leaf under what is held above it.
    fn state_of<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        block: u64,
        data_len: u64,
    ) -> Result<State, StoreError> {
        let Some(leaf) = self.marked_readable_node(storage, 2 * block)? else { return Ok(State::Missing) };
        let mut offset = 0u64;
        for root in flat::full_roots(block) {
            let Some(node) = self.marked_node(storage, root)? else { return Ok(State::Missing) };
            offset = offset.saturating_add(node.size);
        }
        match self.look_for(storage, offset, &leaf)? {
            InData::Unreadable(_) => return Ok(State::Unreadable),
            InData::Whole if self.is_under_held(storage, leaf)? => {}
            InData::Whole | InData::Other => return Ok(State::Missing),
        }
        Ok(if leaf.size == 0 && offset > data_len { State::SaysNothing } else { State::Whole })
    }

    /// Whether the held nodes above a leaf are made of it, as far up as [`LEVELS_CHECKED`] of them.
    fn is_under_held<S: Storage + ?Sized>(&mut self, storage: &mut S, leaf: Node) -> Result<bool, StoreError> {
        let mut node = leaf;
        for _ in 0..LEVELS_CHECKED {
            let Some(parent) = self.marked_node(storage, flat::parent(node.index))? else { return Ok(true) };
            let Some(sibling) = self.marked_node(storage, flat::sibling(node.index))? else { return Ok(true) };
            if merkle::parent_of(node, sibling) != Some(parent) {
                return Ok(false);
            }
            node = parent;
        }
        Ok(true)
    }

    pub(super) fn marked_node<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        node: u64,
    ) -> Result<Option<Node>, StoreError> {
        if self.bitfield.node(node) { self.find_node(storage, node) } else { Ok(None) }
    }

    /// Takes up blocks after the length of a writable feed that are in `data` and `tree`, as far as one of the signatures
    /// after it covers them. Only leaves are read, everything above them is computed again.
    ///
    /// `marked` is a length that the bitfield told, or 0: marks are the last that an append writes, so that all up to it was
    /// signed. Where every block up to it is whole and its signature is not there, it is signed again. So are signatures on
    /// the way that are torn.
    fn regain<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        marked: u64,
        report: &mut Recovered,
    ) -> Result<u64, StoreError> {
        let Some(pair) = self.key_pair.clone() else { return Ok(0) };
        let mut files = Files { storage, slot: self.slot };
        let stored =
            files.len(FileKind::Signatures)?.unwrap_or(0).saturating_sub(HEADER as u64).div_ceil(SIGNATURE as u64);
        let start = self.length;
        let mut roots = self.roots.clone();
        let mut offset = self.byte_length;
        let (mut pending, mut torn, mut unread) = (Vec::new(), Vec::new(), None);
        for block in start..stored.max(marked).min(MAX_FEED_BLOCKS) {
            let Some(leaf) = self.nodes.get(storage, self.slot, 2 * block)? else { break };
            match self.look_for(storage, offset, &leaf)? {
                InData::Whole => {}
                // That is none of a torn append, and a signature over its leaf proves that it was signed.
                InData::Unreadable(error) => _ = unread.get_or_insert(error),
                InData::Other => break,
            }
            offset += leaf.size;
            climb(&mut roots, leaf, |node| pending.push(node));
            let root_hash = merkle::root_hash(&roots);
            let sign = || pair.sign(&merkle::signable(&root_hash, block + 1));
            match self.stored_signature(storage, block + 1)? {
                Some(signature) if self.signature_is_valid(&root_hash, block + 1, &signature) => {}
                _ if unread.is_some() => continue,
                stored if block + 1 == marked => torn.push((block, sign(), stored.is_some())),
                Some(_) => {
                    torn.push((block, sign(), true));
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

    /// What stands in the place of a length's signature, also where the file ends in it; `None` where that is nothing but zeros.
    fn stored_signature<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        length: u64,
    ) -> Result<Option<[u8; SIGNATURE]>, StoreError> {
        let mut signature = [0; SIGNATURE];
        let offset = signature_offset(length.saturating_sub(1));
        Files { storage, slot: self.slot }.read(FileKind::Signatures, offset, &mut signature)?;
        Ok((signature != [0; SIGNATURE]).then_some(signature))
    }
}

/// Whether the journal knows this root hash of a length.
fn is_known(known: Option<&Checkpoint>, length: u64, root_hash: &[u8; 32]) -> bool {
    known.is_some_and(|mark| mark.length == length && mark.has_root(root_hash))
}

/// Where the files of a feed end that has these blocks and bytes, and nothing after them.
fn ends(length: u64, byte_length: u64) -> [(FileKind, u64); 3] {
    [
        (FileKind::Signatures, signature_offset(length)),
        (FileKind::Tree, super::node_offset((2 * length).saturating_sub(1))),
        (FileKind::Data, byte_length),
    ]
}

/// Adds a leaf to the roots of the blocks before it; `made` is told the leaf, and each parent that comes to be.
fn climb(roots: &mut Vec<Node>, leaf: Node, mut made: impl FnMut(Node)) {
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::cores::journal::{Journal, VerifiedSignature};
    use crate::feed::Opening;
    use crate::keys::key_pair::KeyPair;
    use crate::limits::Limits;
    use crate::storage::{FileId, MemoryStorage, Slot};

    #[test]
    fn a_sealed_signature_is_not_verified_anew_and_any_other_is() {
        let (slot, pair) = (Slot(0), KeyPair::from_seed(&[1; 32]));
        let mut disk = MemoryStorage::new();
        let mut feed = Feed::create(&mut disk, slot, pair.public_key(), Some(&pair), None).unwrap();
        feed.append(&mut disk, &[Bytes::from("block")]).unwrap();
        let good = feed.mark(true);
        assert!(good.seal.is_some());
        // Something that is no signature, which only a seal can make pass for one.
        disk.write_at(FileId::new(slot, FileKind::Signatures), HEADER as u64, &[7; SIGNATURE]).unwrap();
        let believed =
            good.seal.map(|seal| VerifiedSignature { signature: VerifiedSignature::checksum(&[7; SIGNATURE]), ..seal });
        let sealed = Checkpoint { seal: believed, ..good.clone() };
        let reopen = |mark: Checkpoint| {
            let mut journal = Journal::default();
            journal.note(slot, mark);
            Feed::open_known(&mut disk.clone(), slot, &journal, &mut Opening::new(&Limits::default())).unwrap()
        };
        assert_eq!(reopen(sealed.clone()).recovered(), None);
        let others = [
            good.clone(),
            Checkpoint { seal: None, ..good.clone() },
            Checkpoint { length: 0, ..sealed.clone() },
            Checkpoint { root: [0; 8], ..sealed.clone() },
            Checkpoint { key: [0; 8], ..sealed },
        ];
        for mark in others {
            let feed = reopen(mark);
            assert!(feed.recovered().is_some_and(|recovered| recovered.signed_again));
            assert_eq!(feed.mark(true), good);
        }
    }
}
