//! Reading blocks, and answering requests for them.

use std::ops::Range;

use bytes::Bytes;
use multifeed_proto::{Data, Node, Request};

use super::cache::Window;
use super::files::{Files, SIGNATURE, SIGNATURES_AT_ONCE, signature_offset};
use super::{Cursor, Feed};
use crate::error::StoreError;
use crate::limits::{MAX_BLOCK_BYTES, MAX_FEED_BLOCKS, MAX_MESSAGE_BYTES};
use crate::merkle::{self, index as flat};
use crate::storage::{FileKind, Storage};

/// Bytes that are read at once when blocks are read in order, and kept.
const WINDOW: usize = 64 * 1024;
/// Larger blocks are read by themselves.
const MAX_WINDOWED: usize = 16 * 1024;

/// The place of a byte of a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The block that it is in; the length for the feed's very end.
    pub block: u64,
    /// Its offset in that block.
    pub offset: u64,
}

/// What the held nodes tell of the place of a byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Located {
    /// Its place.
    At(Place),
    /// It is in one of these blocks; past the length where they are.
    Within(Range<u64>),
}

/// What a step of the search for a signature came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureSearch {
    /// The length that is signed, in blocks, and the signature.
    Found(u64, [u8; 64]),
    /// No signature covers the block.
    Absent,
    /// The search goes on from this block.
    From(u64),
}

/// The answer to a Request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The message to send.
    Data(Data),
    /// The block is not held, or no node that would prove it, or no signature. JS sends nothing either.
    Nothing,
    /// The message would pass what JS peers accept: a block of a JS store that was too large from the start.
    TooLarge {
        /// The block.
        index: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// The block waits until there is room to send it.
    NoRoom {
        /// Its size in bytes.
        size: u64,
    },
}

/// No runtime of JS makes a larger block, in bytes.
const MAX_JS_BLOCK_BYTES: u64 = 1 << 32;
/// The most bytes of a block that are read out of holes of its file: zeros that somebody appended may be stored as one.
pub(super) const MAX_HOLES: u64 = 64 << 20;

impl Feed {
    /// Returns the block, or `None` if it is not held. What is staged is held.
    ///
    /// A small block can be a slice of a 64 KiB buffer that was read ahead: copy what is kept for long.
    ///
    /// # Errors
    /// The storage's error; [`StoreError::Damaged`] if the block is marked as held and is not there.
    pub fn get<S: Storage + ?Sized>(&mut self, storage: &mut S, index: u64) -> Result<Option<Bytes>, StoreError> {
        if !self.has(index) {
            return Ok(None);
        }
        let size = self.node(storage, 2 * index)?.size;
        let in_order = self.read_cursor.block == index;
        let cursor = self.read_cursor;
        let offset = self.offset_of(storage, index, cursor)?;
        let block = self.read_block(storage, offset, size, in_order)?;
        self.read_cursor = Cursor { block: index + 1, offset: offset.saturating_add(size) };
        Ok(Some(block))
    }

    /// Returns the answer to a request, by its digest alone: nothing is remembered of what was sent before. A block that is staged is not sent before
    /// it is written.
    ///
    /// A request with `bytes` is a seek: it is answered for the block at that offset if that is known, else for its
    /// index. That JS drops an immediate repeat of the same offset is the channel's matter.
    ///
    /// # Errors
    /// The storage's error; [`StoreError::Damaged`] if something is marked as held and is not there.
    pub fn answer<S: Storage + ?Sized>(&mut self, storage: &mut S, request: &Request) -> Result<Answer, StoreError> {
        self.answer_within(storage, request, u64::MAX)
    }

    /// As [`answer`](Self::answer), but a block of more than `room` bytes is not read.
    pub(crate) fn answer_within<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        request: &Request,
        room: u64,
    ) -> Result<Answer, StoreError> {
        let mut index = request.index;
        let mut digest = request.nodes;
        if request.bytes > 0
            && let Some(found) = self.seek(storage, request.bytes)?
        {
            index = found;
            digest = 0;
        }
        if index >= MAX_FEED_BLOCKS || (!request.hash && !self.serves(index)) {
            return Ok(Answer::Nothing);
        }
        let Some(proof) = merkle::proof(&self.served_nodes(), 2 * index, digest, request.hash) else {
            return Ok(Answer::Nothing);
        };
        // A full root that the tree has no mark for: JS has an error here.
        if proof.signed_length > 0 && proof.nodes.iter().any(|node| !self.bitfield.node(*node)) {
            return Ok(Answer::Nothing);
        }
        let (mut signature, mut signed) = (None, Vec::new());
        if proof.signed_length > 0 {
            if let Some(found) = self.checked_signature(storage, proof.signed_length)? {
                (signature, signed) = (Some(found.signature), found.roots);
            } else if !self.is_static() {
                return Ok(Answer::Nothing);
            }
        }
        let nodes = match self.checked_nodes(storage, 2 * index, &proof.nodes, &signed) {
            Err(StoreError::Damaged { .. }) if self.regain_rotten_leaf(storage, index)? => {
                self.checked_nodes(storage, 2 * index, &proof.nodes, &signed)
            }
            checked => checked,
        }?;
        let value = if request.hash {
            None
        } else {
            let checked = self.checked_block(index);
            let size = match &checked {
                Some(block) => block.len() as u64,
                None => self.node(storage, 2 * index)?.size,
            };
            if size > MAX_BLOCK_BYTES as u64 {
                return Ok(Answer::TooLarge { index, size });
            }
            if size > room {
                return Ok(Answer::NoRoom { size });
            }
            match checked {
                Some(block) => Some(block),
                None => self.get_verified(storage, index)?,
            }
        };
        Ok(Answer::Data(Data { index, value, nodes, signature }))
    }

    /// Finds the block that holds the byte at this offset, if the held nodes tell (hypercore 9's `_seek`).
    ///
    /// # Errors
    /// The storage's error.
    pub fn seek<S: Storage + ?Sized>(&mut self, storage: &mut S, offset: u64) -> Result<Option<u64>, StoreError> {
        Ok(match self.locate(storage, offset)? {
            Located::At(place) => Some(place.block),
            Located::Within(_) => None,
        })
    }

    /// Finds the byte at this offset, as exactly as the held nodes tell.
    ///
    /// # Errors
    /// The storage's error.
    pub fn locate<S: Storage + ?Sized>(&mut self, storage: &mut S, offset: u64) -> Result<Located, StoreError> {
        if offset == 0 {
            return Ok(Located::At(Place { block: 0, offset: 0 }));
        }
        let Some(root) = self
            .roots
            .iter()
            .try_fold(offset, |left, root| {
                // Breaks with the root that holds the offset.
                if left < root.size { Err((root.index, left)) } else { Ok(left - root.size) }
            })
            .err()
        else {
            // JS takes the end for the block after the last.
            return Ok(if offset == self.byte_length {
                Located::At(Place { block: self.length, offset: 0 })
            } else {
                Located::Within(self.length..u64::MAX)
            });
        };
        let (mut node, mut left) = root;
        while let Some((low, high)) = flat::children(node) {
            if !self.bitfield.node(low) {
                return Ok(Located::Within(flat::left_span(node) / 2..flat::right_span(node) / 2 + 1));
            }
            let size = self.node(storage, low)?.size;
            if left < size {
                node = low;
            } else {
                left -= size;
                node = high;
            }
        }
        Ok(Located::At(Place { block: node / 2, offset: left }))
    }

    /// Returns the roots of a length, from left to right (hypercore's `rootHashes`); `None` if one of them is not held.
    ///
    /// # Errors
    /// The storage's error.
    pub fn roots_at<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        blocks: u64,
    ) -> Result<Option<Vec<Node>>, StoreError> {
        let mut roots = Vec::new();
        for root in flat::full_roots(blocks.min(MAX_FEED_BLOCKS)) {
            if !self.bitfield.node(root) {
                return Ok(None);
            }
            roots.push(self.node(storage, root)?);
        }
        Ok((blocks <= self.length).then_some(roots))
    }

    /// Looks for the first signature that covers a block, and the length that it signs (hypercore's `signature`), from a block on. Reads about
    /// `max_bytes`: a writer that appended a million blocks at once signed the last of them alone. Returns from which block to go on.
    ///
    /// # Errors
    /// The storage's error.
    pub fn signature_step<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        from: u64,
        max_bytes: usize,
    ) -> Result<SignatureSearch, StoreError> {
        let end = self.length;
        self.signature_within(storage, from..end, &mut ((max_bytes.max(SIGNATURE) / SIGNATURE) as u64))
    }

    /// As [`signature_step`](Self::signature_step), of these places. `left` is how many of them may be read still.
    pub(super) fn signature_within<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        Range { start: mut from, end }: Range<u64>,
        left: &mut u64,
    ) -> Result<SignatureSearch, StoreError> {
        let (mut buffer, mut batch) = (Vec::new(), 1);
        while let Some(position) = self.next_signature_place(storage, from, end)? {
            if *left == 0 {
                return Ok(SignatureSearch::From(position));
            }
            let count = (end - position).min(batch).min(*left);
            buffer.clear();
            buffer.resize(count as usize * SIGNATURE, 0);
            *left -= count;
            Files { storage, slot: self.slot }.read(FileKind::Signatures, signature_offset(position), &mut buffer)?;
            for (position, written) in (position..).zip(buffer.chunks_exact(SIGNATURE)) {
                let signature = self.staged.signature(position).or_else(|| written.try_into().ok());
                if let Some(signature) = signature.filter(|bytes| *bytes != [0; SIGNATURE]) {
                    return Ok(SignatureSearch::Found(position + 1, signature));
                }
            }
            // Mostly it is the first one.
            batch = SIGNATURES_AT_ONCE.min(batch * 8);
            from = position + count;
        }
        Ok(SignatureSearch::Absent)
    }

    /// Checks whether this is the writer's signature of a length (hypercore's `verify`); `None` if the roots of that length are not held.
    ///
    /// # Errors
    /// The storage's error.
    pub fn verify_signature<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        blocks: u64,
        signature: &[u8; 64],
    ) -> Result<Option<bool>, StoreError> {
        let roots = self.roots_at(storage, blocks)?.filter(|roots| !roots.is_empty());
        Ok(roots.map(|roots| self.signature_is_valid(&merkle::root_hash(&roots), blocks, signature)))
    }

    /// Returns how many blocks of a range are held.
    pub fn count_held(&self, range: Range<u64>) -> u64 {
        self.bitfield.count_in(range)
    }

    /// Returns the offset of a block in `data`, from the roots of what stands before it, or from what is held around it if one of those is lost.
    pub(super) fn offset_of<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        index: u64,
        cursor: Cursor,
    ) -> Result<u64, StoreError> {
        if cursor.block == index {
            return Ok(cursor.offset);
        }
        let mut offset = 0u64;
        for root in flat::full_roots(index) {
            let size = match self.held_node(storage, root) {
                Ok(node) => node.size,
                Err(error) => return self.offset_within(storage, index)?.ok_or(error),
            };
            offset = offset.saturating_add(size);
        }
        Ok(offset)
    }

    /// Returns the offset of a block in `data`, from what is held around it.
    pub(super) fn offset_within<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        index: u64,
    ) -> Result<Option<u64>, StoreError> {
        let (start, end) = self.ends_of(storage, index)?;
        if start.is_some() {
            return Ok(start);
        }
        let leaf = self.marked_readable_node(storage, 2 * index)?;
        Ok(end.zip(leaf).and_then(|(end, leaf)| end.checked_sub(leaf.size)))
    }

    /// Where a block begins and where it ends in `data`, by the root over it and the nodes on the way down, without its leaf: each begins where the one
    /// before it ends, or ends where the one after it begins.
    pub(super) fn ends_of<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        index: u64,
    ) -> Result<(Option<u64>, Option<u64>), StoreError> {
        let mut begin = 0u64;
        let Some(root) = self.roots.iter().find(|root| {
            let is_over = flat::left_span(root.index) <= 2 * index && 2 * index <= flat::right_span(root.index);
            if !is_over {
                begin = begin.saturating_add(root.size);
            }
            is_over
        }) else {
            return Ok((None, None));
        };
        let (mut start, mut end) = (Some(begin), Some(begin.saturating_add(root.size)));
        let mut top = root.index;
        while let Some((left, right)) = flat::children(top) {
            let size = |feed: &mut Self, storage: &mut S, node| {
                feed.marked_readable_node(storage, node).map(|node| node.map(|node| node.size))
            };
            let (mut before, mut after) = (size(self, storage, left)?, size(self, storage, right)?);
            match 2 * index {
                leaf if leaf == left => before = None,
                leaf if leaf == right => after = None,
                _ => {}
            }
            let of_left = start.zip(before).map(|(start, size)| start.saturating_add(size));
            let of_right = end.zip(after).and_then(|(end, size)| end.checked_sub(size));
            // If they differ, one of the two sizes is wrong.
            let between =
                of_left.or(of_right).filter(|_| of_left.is_none() || of_right.is_none() || of_left == of_right);
            if 2 * index < top {
                (top, end) = (left, between);
            } else {
                (top, start) = (right, between);
            }
        }
        Ok((start, end))
    }

    pub(super) fn read_block<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        offset: u64,
        size: u64,
        in_order: bool,
    ) -> Result<Bytes, StoreError> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        let slot = self.slot;
        let short =
            move || StoreError::damaged(slot, FileKind::Data, format!("it ends before {size} bytes at {offset}"));
        let wanted = usize::try_from(size).map_err(|_| short())?;
        if let Some(block) = self.staged.block(offset, wanted) {
            return Ok(block);
        }
        if let Some(block) = self.window.get(offset, wanted) {
            return Ok(block);
        }
        let mut files = Files { storage, slot };
        // A size that only a damaged node can tell must not be allocated.
        if wanted > MAX_MESSAGE_BYTES {
            let end = offset.saturating_add(size);
            if size > MAX_JS_BLOCK_BYTES || files.len(FileKind::Data)?.unwrap_or(0) < end || self.byte_length < end {
                return Err(short());
            }
            return files.read_large(offset, wanted)?.map(Bytes::from).ok_or_else(short);
        }
        let kept = in_order && wanted <= WINDOW;
        let ahead = kept && wanted <= MAX_WINDOWED;
        // No further than the feed goes: of short feeds there may be very many.
        let left = usize::try_from(self.byte_length.saturating_sub(offset)).unwrap_or(WINDOW);
        let mut bytes = vec![0; if ahead { WINDOW.min(left).max(wanted) } else { wanted }];
        let count = match files.read(FileKind::Data, offset, &mut bytes) {
            // What lies beside a bad sector can be read by itself.
            Err(error) if bytes.len() > wanted && error.is_of_one_place() => {
                bytes.truncate(wanted);
                files.read(FileKind::Data, offset, &mut bytes)?
            }
            read => read?,
        };
        if count < wanted {
            return Err(short());
        }
        bytes.truncate(count);
        let bytes = Bytes::from(bytes);
        let block = bytes.slice(..wanted);
        if kept {
            self.window = Window::new(offset, bytes);
        }
        Ok(block)
    }

    /// Whether the feed is one of JS's unsigned ones, whose key is its root hash.
    pub(super) fn is_static(&self) -> bool {
        self.length > 0 && merkle::root_hash(&self.roots) == *self.key.as_bytes()
    }
}

impl<S: Storage + ?Sized> Files<'_, S> {
    /// A block that no message can carry, as JS appends it. `None` if it is not there. Then `data` ends before it, or has a hole of more
    /// than anybody leaves in a block, so that memory is taken for what is on the disk.
    fn read_large(&mut self, offset: u64, size: usize) -> Result<Option<Vec<u8>>, StoreError> {
        let (mut bytes, mut holes) = (Vec::new(), 0);
        while bytes.len() < size {
            let (done, at) = (bytes.len(), offset + bytes.len() as u64);
            let wanted = MAX_MESSAGE_BYTES.min(size - done);
            let hole = self.hole_at(FileKind::Data, at, offset + size as u64)?;
            if holes + hole > MAX_HOLES {
                return Ok(None);
            }
            holes += hole.min(wanted as u64);
            bytes.resize(done + wanted, 0);
            if self.read(FileKind::Data, at, &mut bytes[done..])? < wanted {
                return Ok(None);
            }
        }
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::key_pair::KeyPair;
    use crate::storage::{FileId, MemoryStorage, Slot};

    #[test]
    fn a_signature_is_looked_for_in_bounded_steps() {
        let mut disk = MemoryStorage::new();
        let pair = KeyPair::from_seed(&[1; 32]);
        let mut feed = Feed::create(&mut disk, Slot(0), pair.public_key(), Some(&pair), None).unwrap();
        // One signature for all of them, and zeros before it that are no hole.
        feed.append(&mut disk, &vec![Bytes::from_static(b"x"); 3000]).unwrap();
        feed.flush(&mut disk).unwrap();
        let file = FileId::new(Slot(0), FileKind::Signatures);
        disk.write_at(file, signature_offset(0), &[0; 2999 * SIGNATURE]).unwrap();
        feed.append(&mut disk, &[Bytes::from_static(b"y")]).unwrap();
        for (from, bytes, expected) in
            [(0, 1000 * SIGNATURE, vec![1000, 2000]), (2999, 0, vec![]), (2990, 4 * SIGNATURE, vec![2994, 2998])]
        {
            let (mut at, mut steps) = (from, Vec::new());
            let found = loop {
                match feed.signature_step(&mut disk, at, bytes).unwrap() {
                    SignatureSearch::From(next) => at = next,
                    found => break found,
                }
                steps.push(at);
            };
            assert!(
                matches!(found, SignatureSearch::Found(3000, _)) && steps == expected,
                "from {from}: {found:?}, {steps:?}"
            );
        }
        // The next one is staged.
        assert!(matches!(feed.signature_step(&mut disk, 3000, 0), Ok(SignatureSearch::Found(3001, _))));
        assert!(matches!(feed.signature_step(&mut disk, 3001, 0), Ok(SignatureSearch::Absent)));
    }
}
