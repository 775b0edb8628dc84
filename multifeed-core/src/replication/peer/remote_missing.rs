//! What a remote lacks of what we hold.
//!
//! It is the difference between what it told and what we hold, kept as blocks come and go on either side. What we sent counts as the
//! remote's when it acknowledges it, if it was asked to; else at once. The stream is in order, so that a session that ends well has
//! delivered it.

use std::ops::Range;

use super::download::Announced;
use crate::feed::Feed;
use crate::sets::sparse_bits::{SparseBits, words_of};

/// Blocks sent that are remembered at the least: far more than any remote has asked for at a time.
const RECENT: u64 = 4096;

/// The blocks that we hold and the remote lacks, as far as it told what it has. If nothing moved it takes no room.
#[derive(Debug, Default)]
pub(super) struct RemoteMissing(Option<Box<Account>>);

#[derive(Debug, Default)]
struct Account {
    /// What it lacks.
    blocks: SparseBits,
    /// Of what we hold, what the remote gave up: it lacks that and did not ask for it again.
    given_up: SparseBits,
    /// What the remote has and we gave up.
    left: SparseBits,
    /// Blocks that were sent, and that the remote has to acknowledge.
    unacknowledged: SparseBits,
    /// Blocks that were sent lately, the older ones apart. A remote that says what it has may not have stored them when it says so.
    recent: SparseBits,
    older: SparseBits,
    /// Blocks that were sent and that it did not store.
    returned: SparseBits,
}

impl RemoteMissing {
    pub(super) fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, |account| account.blocks.count())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// How many blocks the remote lacks that it was not sent, or was sent and did not store. What it was sent and did not acknowledge counts if it
    /// `acknowledges` all before it closes the channel; else it may have stored that.
    pub(super) fn lacking(&self, acknowledges: bool) -> u64 {
        let Some(Account { blocks, returned, unacknowledged, .. }) = self.0.as_deref() else { return 0 };
        if blocks.is_empty() && unacknowledged.is_empty() && returned.is_empty() {
            return 0;
        }
        let mut lacking = blocks.clone();
        match acknowledges {
            true => lacking.insert_all(unacknowledged),
            false => lacking.remove_all(unacknowledged),
        }
        lacking.insert_all(returned);
        lacking.count()
    }

    /// As [`lacking`](Self::lacking), of a remote that may have stored none of what it was sent lately.
    pub(super) fn lacking_with_sent(&self) -> u64 {
        let Some(Account { blocks, returned, unacknowledged, recent, older, .. }) = self.0.as_deref() else { return 0 };
        let mut lacking = blocks.clone();
        [returned, unacknowledged, recent, older].into_iter().for_each(|sent| lacking.insert_all(sent));
        lacking.count()
    }

    /// Whether the remote lacks a block that we hold, given up there or not.
    pub(super) fn lacks_block(&self, index: u64) -> bool {
        self.0.as_deref().is_some_and(|account| account.blocks.get(index) || account.given_up.get(index))
    }

    /// Whether the remote lacks all blocks of a range, as far as it told.
    pub(super) fn lacks_all(&self, blocks: &Range<u64>) -> bool {
        self.0.as_deref().is_some_and(|account| account.blocks.run_end(blocks.start, blocks.end) >= blocks.end)
    }

    /// Whether a block was sent lately, or will be.
    pub(super) fn was_sent(&self, index: u64) -> bool {
        let sent =
            |account: &Account| [&account.recent, &account.older, &account.blocks].iter().any(|bits| bits.get(index));
        self.0.as_deref().is_some_and(sent)
    }

    /// The remote did not store a block that it was sent.
    pub(super) fn returned(&mut self, index: u64) {
        self.account().returned.insert(index);
    }

    /// How many blocks the remote did not store that it was sent.
    pub(super) fn returned_count(&self) -> u64 {
        self.0.as_ref().map_or(0, |account| account.returned.count())
    }

    /// Whether blocks are on their way to the remote, which has to acknowledge them.
    pub(super) fn is_delivering(&self) -> bool {
        self.delivering() > 0
    }

    /// How many blocks are on their way to the remote, which has to acknowledge them.
    pub(super) fn delivering(&self) -> u64 {
        self.0.as_ref().map_or(0, |account| account.unacknowledged.count())
    }

    /// How many blocks the remote has, if we hold `ours` and lack `missing` of it.
    pub(super) fn remote_blocks(&self, ours: u64, missing: u64) -> u64 {
        let Some(account) = &self.0 else { return ours + missing };
        (ours + missing + account.left.count()).saturating_sub(account.blocks.count() + account.given_up.count())
    }

    /// The remote told all that it has in a range; so it lacks the rest of what we hold there.
    ///
    /// `held` gives the words of what we hold, and `never_sent` is not counted: blocks that no message can carry.
    pub(super) fn announced(
        &mut self,
        feed: &Feed,
        told: &Announced,
        held: impl Fn(u64) -> u64,
        never_sent: &[(u64, u64)],
    ) {
        let (start, end) = told.span();
        let end = end.min(feed.len().next_multiple_of(64));
        let mut lacking = Vec::new();
        let mut at = start;
        while let Some(block) = feed.bitfield().next_held(at, end) {
            let word = block / 64;
            at = (word + 1) * 64;
            let lacks = held(word) & !told.word(word);
            if lacks != 0 {
                lacking.push((word, lacks));
            }
        }
        if !lacking.is_empty() || self.0.is_some() {
            self.account().announced(start..end, &lacking);
        }
        if let Some(account) = &mut self.0 {
            let returned = !account.returned.is_empty();
            for (word, members) in told.words().filter(|_| returned) {
                account.returned.set_word(word, account.returned.word(word) & !members);
            }
            never_sent.iter().for_each(|(index, _)| _ = account.blocks.remove(*index));
        }
    }

    /// The remote has blocks.
    pub(super) fn has(&mut self, start: u64, length: u64) {
        self.forget(&(start..start.saturating_add(length.max(1))));
    }

    /// The remote has blocks that it was sent. Those that we gave up meanwhile are not in `to_come`, unless it told of them again.
    pub(super) fn acknowledged(&mut self, feed: &Feed, start: u64, length: u64, to_come: &SparseBits) {
        let blocks = start..start.saturating_add(length.max(1)).min(feed.len());
        if let Some(account) = &mut self.0 {
            for (word, mask) in words_of(blocks.start, blocks.end) {
                let left = mask & !feed.bitfield().word(word) & !to_come.word(word);
                account.left.set_word(word, account.left.word(word) | left);
            }
        }
        self.forget(&blocks);
    }

    /// The remote gave blocks up, or did not take what was sent.
    pub(super) fn lost(&mut self, feed: &Feed, blocks: Range<u64>) {
        let end = blocks.end.min(feed.len());
        let account = self.account();
        // What it was sent and did not take is lacking still, and so is what it lacked: it may say so when it is asked for the hashes alone.
        let mut refused = account.unacknowledged.clone();
        refused.insert_all(&account.blocks);
        account.lost(blocks.start..end);
        let mut at = blocks.start;
        while let Some(held) = feed.bitfield().next_held(at, end) {
            at = feed.bitfield().next_missing(held, end).unwrap_or(end);
            for (word, mask) in words_of(held, at) {
                let lacking = mask & refused.word(word);
                account.blocks.set_word(word, account.blocks.word(word) | lacking);
                account.given_up.set_word(word, account.given_up.word(word) | (mask & !lacking));
            }
        }
    }

    /// Blocks are held here now, of which the remote has those in `theirs`.
    pub(super) fn gained(&mut self, blocks: Range<u64>, theirs: &SparseBits) {
        for (word, mask) in words_of(blocks.start, blocks.end) {
            self.account().gained(word, mask, theirs.word(word));
        }
    }

    /// Blocks that were held are given up here.
    pub(super) fn cleared(&mut self, blocks: &Range<u64>) {
        for (word, mask) in words_of(blocks.start, blocks.end) {
            self.account().cleared(word, mask);
        }
        self.forget(blocks);
    }

    /// Blocks count no more: they are not held here, or are there.
    pub(super) fn forget(&mut self, blocks: &Range<u64>) {
        if let Some(account) = &mut self.0 {
            account.blocks.remove_range(blocks.start, blocks.end);
            account.given_up.remove_range(blocks.start, blocks.end);
            account.returned.remove_range(blocks.start, blocks.end);
            account.unacknowledged.remove_range(blocks.start, blocks.end);
        }
    }

    /// The remote sent a block.
    pub(super) fn received(&mut self, index: u64) {
        if let Some(account) = &mut self.0 {
            account.left.remove(index);
        }
    }

    /// A block was sent. `asking` while the remote was asked what it has, and did not answer yet. `acks` if it says when the block is there, and
    /// `may_return` if it does so of what it returned.
    pub(super) fn sent(&mut self, index: u64, asking: bool, acks: bool, may_return: bool) {
        let account = self.account();
        if !may_return {
            account.returned.remove(index);
        }
        if acks {
            account.given_up.remove(index);
            account.blocks.insert(index);
            account.unacknowledged.insert(index);
            return;
        }
        account.blocks.remove(index);
        account.given_up.remove(index);
        if account.recent.count() >= RECENT && !asking {
            account.older = std::mem::take(&mut account.recent);
        }
        account.recent.insert(index);
    }

    fn account(&mut self) -> &mut Account {
        self.0.get_or_insert_default()
    }
}

impl Account {
    /// Of these words the remote lacks so much of what we hold, and nothing of the rest of the range.
    fn announced(&mut self, range: Range<u64>, lacking: &[(u64, u64)]) {
        let given_up = |&(word, lacks): &(u64, u64)| (word, lacks & self.given_up.word(word));
        let given_up: Vec<(u64, u64)> = lacking.iter().map(given_up).collect();
        let on_their_way: Vec<u64> =
            lacking.iter().map(|&(word, lacks)| lacks & self.unacknowledged.word(word)).collect();
        for bits in [&mut self.given_up, &mut self.left, &mut self.blocks, &mut self.unacknowledged] {
            bits.remove_range(range.start, range.end);
        }
        for (&(word, lacks), ((_, given_up), on_their_way)) in
            lacking.iter().zip(given_up.into_iter().zip(on_their_way))
        {
            self.unacknowledged.set_word(word, on_their_way);
            let lacks = lacks & !self.recent.word(word) & !self.older.word(word);
            self.given_up.set_word(word, lacks & given_up);
            self.blocks.set_word(word, lacks & !given_up);
        }
    }

    fn lost(&mut self, range: Range<u64>) {
        for bits in [&mut self.recent, &mut self.older, &mut self.blocks, &mut self.left, &mut self.unacknowledged] {
            bits.remove_range(range.start, range.end);
        }
    }

    fn gained(&mut self, word: u64, mask: u64, theirs: u64) {
        self.forget_sent(word, mask);
        let theirs = theirs | self.left.word(word);
        self.blocks.set_word(word, self.blocks.word(word) | (mask & !theirs));
        self.left.set_word(word, self.left.word(word) & !mask);
    }

    fn cleared(&mut self, word: u64, mask: u64) {
        let theirs = mask & !self.blocks.word(word) & !self.given_up.word(word);
        self.left.set_word(word, self.left.word(word) | theirs);
    }

    fn forget_sent(&mut self, word: u64, mask: u64) {
        for sent in [&mut self.recent, &mut self.older] {
            let members = sent.word(word);
            if members & mask != 0 {
                sent.set_word(word, members & !mask);
            }
        }
    }
}
