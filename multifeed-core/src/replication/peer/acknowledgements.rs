//! What was sent is acknowledged when it is here, or returned: said not to be here.

use std::ops::Range;
use std::time::Duration;

use multifeed_proto::{Have, Message, Options};

use super::{Effect, FeedChannel, Work};
use crate::feed::Feed;
use crate::storage::Storage;

/// Which side acknowledges blocks of a feed when they are written.
#[derive(Debug, Default)]
pub(super) struct Acks {
    /// The remote was asked for them: what it was sent counts as its own when it says so.
    asked_for: bool,
    /// The remote asked for them.
    remote: bool,
    /// The remote, one of ours, got an Unhave for blocks: those that come all the same are acknowledged.
    has_returned: bool,
    /// Since when both sides are through, and what one of them sent is not acknowledged.
    since: Option<Duration>,
}

impl Acks {
    /// Whether the remote was asked to acknowledge what it is sent.
    pub(super) fn are_asked_for(&self) -> bool {
        self.asked_for
    }

    /// Whether the remote hears of blocks that it sent when they are here.
    pub(super) fn are_given(&self) -> bool {
        self.remote || self.has_returned
    }

    /// Whether the remote asked for that.
    pub(super) fn remote(&self) -> bool {
        self.remote
    }

    /// The remote asks for them, or for none from now on.
    pub(super) fn set_remote(&mut self, acks: bool) {
        self.remote = acks;
    }

    /// The channel stays open for them, though both sides are through.
    pub(super) fn wait(&mut self, now: Duration) {
        self.since.get_or_insert(now);
    }

    /// Since when it does.
    pub(super) fn waits_since(&self) -> Option<Duration> {
        self.since
    }
}

impl FeedChannel {
    /// Asks the remote to say what arrived, if it hangs on that what is said of the session, when it ends, or how much is sent ahead.
    pub(super) fn ask_for_acks(&mut self, feed: &Feed) {
        // One that is not of ours may never say that it is done: what is on its way to it is not idleness. And it is not sent much ahead.
        let takes = !self.options.reconciles && self.upload.is_asked_for_blocks();
        if self.acks.asked_for
            || !self.state.was_opened()
            || !self.uploading
            || !(self.options.observed || takes || self.ends_alone(feed))
        {
            return;
        }
        self.acks.asked_for = true;
        self.out.push_back(Message::Options(Options { extensions: Vec::new(), ack: true }));
    }

    /// Acknowledges a block that a remote of ours sent and that is held already: else it would wait for that before it closes the channel.
    pub(super) fn confirm<S: Storage>(&mut self, index: u64, work: &mut Work<'_, S>, effect: &mut Effect) {
        if !self.options.reconciles || !self.acks.are_given() || !work.feed.has(index) {
            return;
        }
        match work.feed.is_staged() {
            true => (effect.held, work.unannounced) = (Some(index), true),
            false => self.ack(index..index + 1),
        }
    }

    /// Whether blocks that came are not written yet. One of ours hears that nothing more is fetched only then: it takes that for a word on all that it
    /// sent, and closes the channel.
    pub(super) fn awaits_write<S: Storage>(&self, work: &Work<'_, S>) -> bool {
        self.options.reconciles && !self.options.live && self.fetch.is_on() && work.unannounced
    }

    /// Tells a remote of ours that a block which it sent is not stored here. JS would ask nothing and say nothing of it.
    pub(super) fn give_back(&mut self, index: u64, feed: &Feed) {
        if self.options.reconciles && !feed.has(index) {
            self.return_block(index);
        }
    }

    /// Tells the remote that a block which it sent, or was asked for, is not here. One of ours counts it as missing until it is acknowledged.
    pub(super) fn return_block(&mut self, index: u64) {
        self.acks.has_returned |= self.options.reconciles && !self.options.live;
        self.out.push_back(Message::Unhave { start: index, length: 1 });
    }

    /// Tells a remote of ours that blocks which it sent could not be written, if the session ends when both sides are through.
    pub(crate) fn return_unwritten<S: Storage>(&mut self, blocks: Range<u64>, work: &mut Work<'_, S>) {
        if self.options.live || !self.options.reconciles || self.state.is_closed() {
            return;
        }
        blocks.for_each(|index| self.return_block(index));
        self.advance(work);
    }

    /// Tells a remote of ours that blocks which it was asked for are given up: it may have sent them, and would take them for delivered. In a live
    /// session it waits for their acknowledgements.
    pub(super) fn tell_given_up<'a>(&mut self, blocks: impl Iterator<Item = &'a u64>, feed: &Feed) {
        if self.options.live || !self.options.reconciles {
            return;
        }
        for &index in blocks.filter(|&&index| !feed.has(index)) {
            self.return_block(index);
        }
    }

    /// Blocks that the remote sent are written: says so, if it asked for that and the channel is not closed yet.
    pub(crate) fn acknowledge(&mut self, blocks: Range<u64>) {
        if !self.acks.are_given() || self.state.is_closed() {
            return;
        }
        if self.options.reconciles {
            return self.ack(blocks);
        }
        // JS acknowledges one at a time, and its applications may count them.
        blocks.for_each(|index| self.ack(index..index + 1));
    }

    pub(super) fn ack(&mut self, blocks: Range<u64>) {
        let (start, length) = (blocks.start, blocks.end - blocks.start);
        self.out.push_back(Message::Have(Have { start, length, bitfield: None, ack: true }));
    }
}
