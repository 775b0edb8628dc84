//! What a remote tells that it has of a feed, or lost of it.

use std::ops::Range;

use multifeed_proto::Have;

use super::{Download, WANT_BLOCKS};
use crate::bitfield::rle;
use crate::feed::Feed;
use crate::replication::peer::PeerFault;

/// All that the remote has in a range.
pub(in crate::replication::peer) struct Announced {
    start: u64,
    end: u64,
    bits: Vec<u8>,
}

impl Announced {
    /// The range, in blocks; whole words.
    pub(in crate::replication::peer) fn span(&self) -> (u64, u64) {
        (self.start, self.end.saturating_add(63) & !63)
    }

    /// The remote's blocks in a word of the range.
    pub(in crate::replication::peer) fn word(&self, word: u64) -> u64 {
        let at = word.checked_sub(self.start / 64).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.bits.chunks(8).nth(at)).map_or(0, word_from_wire)
    }

    /// Whether the remote has a block of the range.
    fn has(&self, index: u64) -> bool {
        let at = usize::try_from(index - self.start).unwrap_or(usize::MAX);
        self.bits.get(at / 8).is_some_and(|byte| byte & (0x80 >> (at % 8)) != 0)
    }

    /// The words of the range, each with the remote's blocks in it, the first in the most significant bit.
    pub(in crate::replication::peer) fn words(&self) -> impl Iterator<Item = (u64, u64)> {
        let none: &[u8] = &[];
        let bytes = self.bits.chunks(8).chain(std::iter::repeat(none));
        (self.start / 64..self.end.div_ceil(64)).zip(bytes.map(word_from_wire))
    }
}

impl Download {
    /// The remote says what it has; a bitfield tells all of a range.
    pub(in crate::replication::peer) fn have(
        &mut self,
        feed: &Feed,
        have: &Have,
    ) -> Result<Option<Announced>, PeerFault> {
        let length = have.length.max(1);
        let end = have.start.checked_add(length).ok_or_else(|| {
            PeerFault::message(feed, format!("Have of {length} blocks from {} passes 2^64", have.start))
        })?;
        if have.bitfield.is_some() && self.wants_unanswered > 0 {
            self.wants_unanswered -= 1;
        }
        self.heard = true;
        match &have.bitfield {
            Some(bitfield) => self.have_bitfield(feed, have.start, end, bitfield).map(Some),
            None => {
                self.have_range(feed, have.start, end);
                Ok(None)
            }
        }
    }

    fn have_bitfield(&mut self, feed: &Feed, start: u64, end: u64, bitfield: &[u8]) -> Result<Announced, PeerFault> {
        // A bitfield for the whole feed (length 0 or 1, an older hypercore's answer) speaks of the first window too.
        let end = if end - start == 1 { start.saturating_add(WANT_BLOCKS) } else { end };
        if !start.is_multiple_of(64) || end - start > WANT_BLOCKS {
            let blocks = end - start;
            return Err(PeerFault::message(feed, format!("Have with a bitfield of {blocks} blocks from {start}")));
        }
        let bits = rle::decode(bitfield, (WANT_BLOCKS / 8) as usize)
            .map_err(|why| PeerFault::message(feed, format!("Have with a malformed bitfield: {why}")))?;
        if self.covers(start / WANT_BLOCKS) {
            self.has.remove_range(start, end);
        }
        let told = Announced { start, end, bits };
        // Words that are full mostly follow each other.
        let mut run = start..start;
        self.unanswered.said(start..end, |index| !told.has(index));
        for (word, members) in told.words().take(told.bits.len().div_ceil(8)) {
            let first = word * 64;
            if members != 0 {
                self.remote_len = self.remote_len.max(first + 64 - u64::from(members.trailing_zeros()));
            }
            if members != u64::MAX {
                self.add_word(feed, word, members);
            } else if run.end == first {
                run.end += 64;
            } else {
                self.add(feed, std::mem::replace(&mut run, first..first + 64));
            }
        }
        self.add(feed, run);
        self.cursor = self.cursor.min(start / 64);
        Ok(told)
    }

    fn have_range(&mut self, feed: &Feed, start: u64, end: u64) {
        self.remote_len = self.remote_len.max(end);
        if end - start > WANT_BLOCKS {
            // Cheaper for both to hear it as bitfields, window by window, as they are needed.
            self.next_window = self.next_window.min(start / WANT_BLOCKS);
            self.ahead.retain(|window| *window < start / WANT_BLOCKS);
            return;
        }
        self.add(feed, start..end);
        self.cursor = self.cursor.min(start / 64);
    }

    /// Notes blocks of the remote's that we lack, in the windows that were wanted.
    pub(super) fn add(&mut self, feed: &Feed, blocks: Range<u64>) {
        let mut from = blocks.start;
        while from < blocks.end {
            let window = from / WANT_BLOCKS;
            let end = blocks.end.min((window + 1).saturating_mul(WANT_BLOCKS));
            if self.covers(window) {
                self.has.insert_range(from, end);
                let mut at = from;
                while let Some(held) = feed.bitfield().next_held(at, end) {
                    at = feed.bitfield().next_missing(held, end).unwrap_or(end);
                    self.has.remove_range(held, at);
                }
            }
            from = end;
        }
    }

    /// The same of one word.
    fn add_word(&mut self, feed: &Feed, word: u64, members: u64) {
        let missing = members & !feed.bitfield().word(word);
        if missing != 0 && self.covers(word * 64 / WANT_BLOCKS) {
            self.has.set_word(word, self.has.word(word) | missing);
        }
    }

    /// The remote lost blocks. What was asked for among them comes back, to be asked of others.
    ///
    /// In a live session it may have given them up since, and nobody has them; in another one it told of them a moment ago.
    pub(in crate::replication::peer) fn unhave(&mut self, start: u64, length: u64, live: bool) -> Vec<u64> {
        let end = start.saturating_add(length.max(1));
        if start == 0 && end >= self.remote_len {
            self.remote_len = 0;
        }
        self.has.remove_range(start, end);
        self.cut.remove_range(start, end);
        self.late.retain(|index| !(start..end).contains(index));
        self.questions.lost(start..end);
        self.comparison.lost(&(start..end));
        let (lost, kept) = self.in_flight.iter().partition(|&&index| (start..end).contains(&index));
        self.in_flight = kept;
        self.withdrawn.clear();
        self.again_asked.retain(|index, _| !(start..end).contains(index));
        self.promised.clear();
        let lost = Vec::from_iter(lost);
        if live {
            self.unanswered.forget(&(start..end));
        } else {
            self.unanswered.said(start..end, |_| true);
            lost.iter().for_each(|&index| self.unanswered.block(index));
        }
        lost
    }
}

/// Up to eight bytes of a bitfield as a word, the first block in the most significant bit.
fn word_from_wire(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_be_bytes(word)
}
