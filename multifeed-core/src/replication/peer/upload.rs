//! What a remote asked of a feed, answered as its session can take it.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use multifeed_proto::{Have, Message, Request};

use super::download::WANT_BLOCKS;
use super::{PeerFault, Work};
use crate::error::StoreError;
use crate::feed::Answer;
use crate::limits::Limits;
use crate::storage::Storage;

/// A Want is answered only if its start and length are multiples of this (hypercore's bits of a page).
const WANT_ALIGN: u64 = 8192;

/// The uploading half of a [`FeedChannel`](super::FeedChannel): requests are queued, never answers.
#[derive(Debug, Default)]
pub(super) struct Upload {
    /// Ranges that the remote wants to hear about, in the order of their coming, without repeats.
    wants: VecDeque<(u64, u64)>,
    /// Blocks that the remote asked for, in the order of their coming.
    requests: VecDeque<Request>,
    /// How many of them came before the remote's history was asked about last, and how many before it was last known to be the same.
    questioned: Option<usize>,
    cleared: usize,
    /// What is wanted is not answered for now.
    holds_wants: bool,
    /// New blocks, not announced yet.
    pending_haves: VecDeque<Range<u64>>,
    /// Blocks that were given up, which were not reported to the remote yet.
    retracted: VecDeque<Range<u64>>,
    /// Whether the remote wanted anything: only then does it hear what is new.
    listens: bool,
    /// When the remote last asked for anything, or something new was announced to it.
    asked_at: Duration,
    /// Whether it asked for something that is damaged here.
    hit_damage: bool,
    waits: Waits,
    /// No block is sent that was asked for since the remote's history was last known to be the same.
    withholds: bool,
}

/// What the next block waits for. Hashes wait for nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Waits {
    #[default]
    Nothing,
    /// Room for a block of so many bytes.
    Room(u64),
    /// The remote's acknowledgement of others.
    Acks,
}

impl Upload {
    /// Returns when the remote last asked for anything, or something new was announced to it, if ever.
    pub(super) fn asked_at(&self) -> Option<Duration> {
        self.listens.then_some(self.asked_at)
    }

    /// Whether the remote asked for something that is damaged here.
    pub(super) fn is_wounded(&self) -> bool {
        self.hit_damage
    }

    /// Whether the remote asks for blocks, and not for hashes alone.
    pub(super) fn is_asked_for_blocks(&self) -> bool {
        self.requests.iter().any(|request| !request.hash)
    }

    /// Whether the remote asked what is here.
    pub(super) fn was_asked(&self) -> bool {
        self.listens || !self.wants.is_empty()
    }

    /// Whether something is new here that was not announced to the remote.
    pub(super) fn has_news(&self) -> bool {
        !self.pending_haves.is_empty()
    }

    /// The next news that were not announced, for a channel that closes.
    pub(super) fn last_news(&mut self) -> Option<Have> {
        let blocks = self.pending_haves.pop_front()?;
        Some(Have { start: blocks.start, length: blocks.end - blocks.start, bitfield: None, ack: false })
    }

    /// Whether there is something to send.
    pub(super) fn has_output(&self) -> bool {
        self.next().is_some() || self.answers_wants() || !(self.pending_haves.is_empty() && self.retracted.is_empty())
    }

    /// Returns the place in the queue of the request to answer next.
    fn next(&self) -> Option<usize> {
        let sends = self.waits == Waits::Nothing;
        let withheld = if self.withholds { self.cleared } else { usize::MAX };
        let mut requests = self.requests.iter().enumerate();
        requests.find_map(|(at, request)| (request.hash || (sends && at < withheld)).then_some(at))
    }

    /// While the histories are compared no block is sent that was asked for since: a JS peer that gets one of another history ends its whole
    /// stream.
    pub(super) fn withhold(&mut self, withholds: bool) {
        self.withholds = withholds;
    }

    /// The remote's history is asked about. What it asked for before came from one that the answer tells of.
    pub(super) fn questions(&mut self) {
        self.questioned = Some(self.requests.len());
    }

    /// That was answered: what it had asked for before is withheld no more, however much it tells of by now.
    pub(super) fn was_answered(&mut self) {
        if let Some(questioned) = self.questioned.take() {
            self.cleared = questioned;
        }
    }

    /// A request is gone.
    fn removed(&mut self, at: usize) {
        self.cleared -= usize::from(at < self.cleared);
        if let Some(questioned) = &mut self.questioned {
            *questioned -= usize::from(at < *questioned);
        }
    }

    /// What the remote wants to hear about is answered later, or from now on.
    pub(super) fn hold_wants(&mut self, hold: bool) {
        self.holds_wants = hold;
    }

    /// Whether what is sent next is that blocks were given up here.
    pub(super) fn retracts(&self) -> bool {
        !self.retracted.is_empty()
    }

    fn answers_wants(&self) -> bool {
        !self.wants.is_empty() && !self.holds_wants
    }

    pub(super) fn is_idle(&self) -> bool {
        self.wants.is_empty() && self.requests.is_empty() && self.pending_haves.is_empty() && self.retracted.is_empty()
    }

    /// How many bytes the block has that waits until there is room to send it.
    pub(super) fn room_needed(&self) -> Option<u64> {
        match self.waits {
            Waits::Room(size) => Some(size),
            Waits::Nothing | Waits::Acks => None,
        }
    }

    /// The block that waits for room may be tried again.
    pub(super) fn make_room(&mut self) {
        if self.room_needed().is_some() {
            self.waits = Waits::Nothing;
        }
    }

    /// Whether the next block waits until the remote acknowledges others.
    pub(super) fn is_paced(&self) -> bool {
        self.waits == Waits::Acks
    }

    /// The block that waits for that may be tried again.
    pub(super) fn unpace(&mut self) {
        if self.is_paced() {
            self.waits = Waits::Nothing;
        }
    }

    /// Gives back memory that is kept for what may come.
    pub(super) fn shrink(&mut self) {
        self.wants.shrink_to_fit();
        self.requests.shrink_to_fit();
        self.pending_haves.shrink_to_fit();
        self.retracted.shrink_to_fit();
    }

    /// The remote wants to hear what we have in a range.
    pub(super) fn want(&mut self, start: u64, length: u64, limits: &Limits, now: Duration) -> Result<(), PeerFault> {
        self.asked_at = now;
        let aligned = start.is_multiple_of(WANT_ALIGN) && length.is_multiple_of(WANT_ALIGN);
        if !aligned || self.wants.contains(&(start, length)) {
            return Ok(());
        }
        if self.wants.len() >= limits.wants_queued {
            return Err(PeerFault::limit("wants_queued", limits.wants_queued));
        }
        self.wants.push_back((start, length));
        Ok(())
    }

    /// The remote asks for a block.
    pub(super) fn request(&mut self, request: Request, limits: &Limits, now: Duration) -> Result<(), PeerFault> {
        self.asked_at = now;
        if self.requests.len() >= limits.requests_queued {
            return Err(PeerFault::limit("requests_queued", limits.requests_queued));
        }
        self.requests.push_back(request);
        Ok(())
    }

    /// The remote does not want a block any more.
    pub(super) fn cancel(&mut self, index: u64) {
        while let Some(at) = self.requests.iter().position(|request| request.index == index) {
            self.requests.remove(at);
            self.removed(at);
        }
        self.make_room();
    }

    /// The remote asks for nothing any more. If it `listens`, as in a live session, it still hears what is new.
    pub(super) fn stop(&mut self, listens: bool) {
        self.requests.clear();
        (self.questioned, self.cleared) = (self.questioned.map(|_| 0), 0);
        self.make_room();
        if !listens {
            self.pending_haves.clear();
            self.retracted.clear();
        }
    }

    /// Blocks are new here, which the remote did not send itself.
    pub(super) fn announce(&mut self, blocks: Range<u64>, limits: &Limits) {
        if !self.listens {
            return;
        }
        match self.pending_haves.back_mut() {
            Some(last) if last.end == blocks.start => last.end = blocks.end,
            _ => self.pending_haves.push_back(blocks),
        }
        if self.pending_haves.len() > limits.announcements_queued {
            self.summarise();
        }
    }

    /// Blocks are no longer here.
    pub(super) fn retract(&mut self, blocks: Range<u64>, limits: &Limits) {
        if !self.listens {
            return;
        }
        let news = std::mem::take(&mut self.pending_haves);
        let left =
            news.into_iter().flat_map(|new| [new.start..new.end.min(blocks.start), new.start.max(blocks.end)..new.end]);
        self.pending_haves = left.filter(|new| new.start < new.end).collect();
        match self.retracted.back_mut() {
            Some(last) if last.end == blocks.start => last.end = blocks.end,
            _ => self.retracted.push_back(blocks),
        }
        if self.retracted.len() > limits.announcements_queued {
            // One range over all of it, after which the remote hears again what is there.
            let start = self.retracted.iter().map(|blocks| blocks.start).min().unwrap_or(0);
            let end = self.retracted.iter().map(|blocks| blocks.end).max().unwrap_or(0);
            self.retracted.clear();
            self.retracted.push_back(start..end);
            self.pending_haves.push_back(start..end);
            self.summarise();
        }
    }

    /// Turns a long list of small news into answers to Wants that the remote did not need to repeat.
    fn summarise(&mut self) {
        let windows: std::collections::BTreeSet<u64> = self
            .pending_haves
            .drain(..)
            .flat_map(|blocks| blocks.start / WANT_BLOCKS..=(blocks.end - 1) / WANT_BLOCKS)
            .collect();
        for window in windows {
            let want = (window * WANT_BLOCKS, WANT_BLOCKS);
            if !self.wants.contains(&want) {
                self.wants.push_back(want);
            }
        }
    }

    /// Blocks that the remote asked for and that were not sent yet.
    pub(super) fn requested(&self) -> u64 {
        self.requests.len() as u64
    }

    /// The next message to send: what we have before what is new, and both before blocks. Requests of hashes alone overtake those of blocks
    /// that wait or are withheld.
    pub(super) fn poll<S: Storage>(&mut self, work: &mut Work<'_, S>) -> Result<Option<Message>, PeerFault> {
        // Before what is there: a Have that comes later counts.
        if let Some(blocks) = self.retracted.pop_front() {
            let unhave = Message::Unhave { start: blocks.start, length: blocks.end - blocks.start };
            return Ok(Some(unhave));
        }
        if let Some(&(start, length)) = self.wants.front().filter(|_| !self.holds_wants) {
            return self
                .answer_want(start, length, work)
                .map(|have| Some(Message::Have(have)))
                .map_err(PeerFault::Store);
        }
        if let Some(blocks) = self.pending_haves.pop_front() {
            // The remote may have nothing to ask for until it hears of this.
            self.asked_at = work.now;
            let have = Have { start: blocks.start, length: blocks.end - blocks.start, bitfield: None, ack: false };
            return Ok(Some(Message::Have(have)));
        }
        let next = self.next();
        let Some((at, request)) = next.and_then(|at| Some((at, *self.requests.get(at)?))) else { return Ok(None) };
        if !request.hash && work.paced {
            self.waits = Waits::Acks;
            return Ok(None);
        }
        if !request.hash {
            let next = self.requests.iter().skip(at + 1).filter(|request| !request.hash && request.bytes == 0);
            work.feed.check_ahead(work.storage, request.index, next.map(|request| request.index));
        }
        let answer = work.feed.answer_within(work.storage, &request, work.room);
        if let Ok(Answer::NoRoom { size }) = answer {
            self.waits = Waits::Room(size);
            return Ok(None);
        }
        self.requests.remove(at);
        self.removed(at);
        match answer {
            Ok(Answer::Data(data)) => return Ok(Some(Message::Data(data))),
            Ok(Answer::TooLarge { index, size }) => work.too_large.push((index, size)),
            Ok(Answer::Nothing | Answer::NoRoom { .. }) => {}
            // The other blocks are not harmed by it. It is reported once for a channel.
            Err(error) if error.is_of_one_place() => {
                if !std::mem::replace(&mut self.hit_damage, true) {
                    work.damaged = Some((request.index, error));
                }
            }
            Err(error) => return Err(PeerFault::Store(error)),
        }
        Ok(Some(Message::Unhave { start: request.index, length: 1 }))
    }

    fn answer_want<S: Storage>(&mut self, start: u64, length: u64, work: &mut Work<'_, S>) -> Result<Have, StoreError> {
        // A JS peer that asks for a block and gets no answer ends its stream: it must not hear of one that can't be sent.
        let oversized = work.feed.oversized(work.storage)?;
        if !std::mem::replace(&mut self.listens, true) {
            work.too_large.extend(&oversized);
            // The first Want also gets the last block that is served, if that is the feed's last one or lies past what was asked about. Else the
            // remote would not ask about more.
            let last = work.feed.last_served(&oversized);
            let end = start.saturating_add(length);
            if let Some(last) = last.filter(|&last| last >= end || last + 1 == work.feed.served_len()) {
                return Ok(Have { start: last, length: 1, bitfield: None, ack: false });
            }
        }
        self.wants.pop_front();
        let bitfield = work.feed.served_range(start, length, &oversized);
        Ok(Have { start, length, bitfield: Some(bitfield.into()), ack: false })
    }
}
