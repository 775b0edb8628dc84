//! What a remote has of a feed, what we ask it for, and when there is nothing left to ask.

mod announced;
mod denied;
mod doubled;
mod exclusive;
mod history;
mod late;
mod promised;
mod windows;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

use multifeed_proto::Request;

pub(super) use self::announced::Announced;
use self::exclusive::ExclusiveRequest;
use self::promised::{Again, Promised};

use self::doubled::Withdrawn;
use super::history::{HistoryCheck, Terms};
use super::questions::Questions;
use super::unanswered::Unanswered;
use crate::feed::Feed;
use crate::replication::transfer::Share;
use crate::replication::wants::{WantId, Wants};
use crate::sets::sparse_bits::SparseBits;

/// Blocks that one Want covers: hypercore asks for 1 Mi at a time, and answers only multiples of 8192.
pub(super) const WANT_BLOCKS: u64 = 1 << 20;
/// Wants on their way at once; hypercore has 16, and one window is in use at a time.
const WANTS_IN_FLIGHT: u32 = 2;
/// The fewest requests in flight: hypercore's own number, fit for blocks of any size.
const FEWEST_REQUESTS: usize = 16;
/// The most requests in flight: past this, the longer proofs cost more than the round trips saved.
const MOST_REQUESTS: usize = 256;
/// The most to a remote that answers in order, which makes proofs no longer.
const MOST_IN_ORDER: usize = 1024;
/// Requests in flight beyond those, for blocks that somebody waits for: hypercore's own number.
const URGENT_REQUESTS: usize = 16;
/// Requests given up, of which answers may still come: many times those in flight, but a remote that never answers must not fill memory.
const MOST_LATE: usize = 4 * MOST_IN_ORDER;
/// Answers on their way at once, in bytes of blocks; what the remote may have to queue for us.
const BYTES_IN_FLIGHT: u64 = 4 << 20;
/// Blocks of which the proof is no small part of an answer.
const SMALL_BLOCK: u64 = 1 << 10;
/// Over how many words of 64 blocks small ones are asked for in a scattered order: two to this.
const SCATTERED_BITS: u32 = 4;

/// The downloading half of a [`FeedChannel`](super::FeedChannel).
#[derive(Debug, Default)]
pub(super) struct Download {
    /// One past the highest block that the remote spoke of.
    remote_len: u64,
    /// What the remote has and we did not when it said so, in the windows that were wanted.
    has: SparseBits,
    /// Windows of [`WANT_BLOCKS`] below this one were wanted, or are whole here.
    next_window: u64,
    /// Windows past those that were wanted for what is asked for in them.
    ahead: BTreeSet<u64>,
    /// Windows in which blocks were given up here: the remote may have those, and has told so when they were held.
    stale: BTreeSet<u64>,
    /// Wants that have no answer yet.
    wants_unanswered: u32,
    /// Whether the remote ever told what it has.
    heard: bool,
    /// Whether it left a Want without an answer.
    ignored: bool,
    /// Whether it was left, or left, before it had told or brought everything.
    cut_short: bool,
    /// What it had told of and did not bring when it had brought as much as it may; some of it may be held by now.
    cut: SparseBits,
    /// Whether to ask it for all of it once more.
    again: bool,
    /// Nothing more is asked for, and what comes of what was is not taken.
    draining: bool,
    /// No word of `has` below this one holds a block that can be requested now.
    cursor: u64,
    /// Blocks asked for, oldest first.
    in_flight: VecDeque<u64>,
    /// Where the answer for the last of them [ends](Share::through).
    asked_through: u64,
    /// What was taken back of that, and may come all the same.
    withdrawn: Withdrawn,
    /// Those of them that were asked for again, since what came did not verify.
    again_asked: BTreeMap<u64, Again>,
    /// The remote answers in the order in which it is asked.
    in_order: bool,
    /// What the answers under way bring of it.
    promised: Promised,
    /// Blocks that were asked for in vain, [`MOST_LATE`] of them: the remote may only be slow.
    late: BTreeSet<u64>,
    /// What the remote was asked for in vain, whether or not that may still come.
    unanswered: Unanswered,
    /// What is asked without a block.
    questions: Questions,
    /// Whether the remote's history is the same.
    comparison: HistoryCheck,
    /// How far the Wants have to go, in blocks.
    limit: u64,
    /// When the remote last answered, or was first asked.
    progress_at: Duration,
    /// When it was last asked what it has.
    wanted_at: Duration,
    /// What it alone was asked for, and since when others wait for that.
    turn: Option<ExclusiveRequest>,
}

/// What to download, as a call needs to know it.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    /// What is asked for.
    pub(super) wants: &'a Wants,
    /// Nothing else is.
    pub(super) sparse: bool,
    /// Whether to fetch whatever the remote has.
    pub(super) fetches: bool,
    /// Whether to compare its history with the one that is here.
    pub(super) compares: bool,
    /// How far our own blocks are compared with the remote's, whatever it has.
    pub(super) reach: u64,
}

/// Which block to ask for first, if the remote has more than we.
enum Continuation {
    /// This one.
    Block(u64),
    /// It did not tell yet whether it has it, or was asked for a whole proof of it.
    Unknown,
    /// It does not have it.
    Nobodys,
}

impl Download {
    /// `in_order`: the remote answers in the order in which it is asked.
    pub(super) fn new(terms: Terms, in_order: bool) -> Self {
        Self { comparison: HistoryCheck::new(terms), in_order, ..Self::default() }
    }

    /// Forgets what the remote told, to hear it anew.
    pub(super) fn restart(&mut self) {
        self.comparison.restart();
        self.unanswered.restart();
        let (comparison, unanswered) = (std::mem::take(&mut self.comparison), std::mem::take(&mut self.unanswered));
        let (draining, in_order) = (self.draining, self.in_order);
        *self = Self { comparison, unanswered, draining, in_order, ..Self::default() };
    }

    /// Blocks that the remote has and we lack, those asked for included.
    pub(super) fn missing(&self) -> u64 {
        self.has.count()
    }

    /// Gives back memory that is kept for what may come.
    pub(super) fn shrink(&mut self) {
        self.in_flight.shrink_to_fit();
    }

    /// The blocks that the remote has, and that were not held here when it said so.
    pub(super) fn to_come(&self) -> &SparseBits {
        &self.has
    }

    pub(super) fn start(&mut self, now: Duration) {
        self.progress_at = now;
        self.wanted_at = now;
    }

    /// Whether the remote has told everything, and nothing can be asked of it.
    pub(super) fn has_nothing(&self) -> bool {
        self.has_announced() && self.has.is_empty() && self.in_flight.is_empty() && !self.is_questioned()
    }

    /// Returns the next Request, if one more may be in flight and the remote has a block that nobody was asked for. First comes
    /// what somebody waits for, then what is asked for, then, unless the session is sparse, whatever it has.
    pub(super) fn request(
        &mut self,
        scope: Scope<'_>,
        feed: &Feed,
        reserved: &mut SparseBits,
        share: &mut Share,
        now: Duration,
    ) -> Option<Request> {
        let room = self.window(feed);
        let cost = share.cost(mean_size(feed));
        let continuation = self.continuation(feed, reserved);
        // Up to which block anything can be asked for. A sparse session may never hear of one that shows the same history.
        let end = match continuation {
            Continuation::Unknown if !scope.sparse && feed.is_empty() => 0,
            Continuation::Block(_) | Continuation::Unknown if !scope.sparse => feed.len() + 1,
            _ => u64::MAX,
        };
        if self.in_flight.len() < room + URGENT_REQUESTS && !scope.wants.is_empty() {
            if let Some((index, seek)) = self.questions.next(scope.wants, &self.has, self.remote_len) {
                self.note_request(now);
                // What is held of the proof of this block says nothing of the one that turns out to hold the byte.
                let nodes = if seek > 0 { 0 } else { feed.digest(index) };
                return Some(Request { index, bytes: seek, hash: true, nodes });
            }
            if let Some(index) = self.awaited(scope.wants, feed, reserved, end) {
                share.take(cost);
                return Some(self.ask_for(index, feed, reserved, share.through(), now));
            }
        }
        if self.in_flight.len() >= room || self.has.is_empty() {
            return None;
        }
        if !share.has_room(cost) {
            share.starve();
            return None;
        }
        let scattered = share.is_scattered() && mean_size(feed).is_some_and(|mean| mean <= SMALL_BLOCK);
        let index = self.next_block(scope, continuation, feed, reserved, end, scattered)?;
        share.take(cost);
        Some(self.ask_for(index, feed, reserved, share.through(), now))
    }

    /// The next block to ask for that nobody waits for by itself.
    fn next_block(
        &mut self,
        scope: Scope<'_>,
        continuation: Continuation,
        feed: &Feed,
        reserved: &SparseBits,
        end: u64,
        scattered: bool,
    ) -> Option<u64> {
        let asked_for = scope
            .wants
            .ranges()
            .iter()
            .find_map(|range| self.free_in(feed, reserved, &(range.start..range.end.min(end))));
        if asked_for.is_some() {
            return asked_for;
        }
        if scope.sparse {
            return None;
        }
        match continuation {
            Continuation::Unknown => return None,
            Continuation::Block(index) if reserved.get(index) => return None,
            Continuation::Block(index) => return Some(index),
            Continuation::Nobodys => {}
        }
        let mut at = self.cursor;
        while let Some(word) = self.has.next_word(at) {
            self.prune(feed, word);
            let free = self.has.word(word) & !reserved.word(word);
            if free != 0 {
                self.cursor = word;
                let first = word * 64 + u64::from(free.leading_zeros());
                return Some(if scattered { self.scattered(word, feed, reserved).unwrap_or(first) } else { first });
            }
            at = word + 1;
        }
        self.cursor = u64::MAX;
        None
    }

    /// The next block in a scattered order, that of a count with its bits reversed, among the words around this one.
    fn scattered(&mut self, word: u64, feed: &Feed, reserved: &SparseBits) -> Option<u64> {
        let words = word >> SCATTERED_BITS << SCATTERED_BITS;
        let free: [(u64, u64); 1 << SCATTERED_BITS] = std::array::from_fn(|count| {
            let word = words + reversed(count as u64, SCATTERED_BITS);
            self.prune(feed, word);
            (word, self.has.word(word) & !reserved.word(word))
        });
        (0..64).map(|count| reversed(count, 6)).find_map(|place| {
            let (word, _) = free.iter().find(|(_, free)| free << place >> 63 == 1)?;
            Some(word * 64 + place)
        })
    }

    /// The block after the length that is held. Its proof is built on all roots of that length, and so proves that what the remote has
    /// is the same history, grown. A block further on could be of another one and not show it: until this one came, none
    /// is asked for. Of a feed of which nothing is known yet, one remote is asked alone, in its [`ExclusiveRequest`], until it has proven a length.
    fn continuation(&self, feed: &Feed, reserved: &SparseBits) -> Continuation {
        let next = feed.len();
        if next == 0 && !self.may_take_its_turn(reserved) {
            return Continuation::Unknown;
        }
        if next == 0 || next >= self.remote_len {
            return Continuation::Nobodys;
        }
        if self.has.get(next) && !feed.has(next) {
            return Continuation::Block(next);
        }
        if self.wants_unanswered > 0 || !self.again_asked.is_empty() {
            Continuation::Unknown
        } else {
            Continuation::Nobodys
        }
    }

    /// A block before `end` that somebody waits for by itself, and the remote has.
    fn awaited(&self, wants: &Wants, feed: &Feed, reserved: &SparseBits, end: u64) -> Option<u64> {
        let free = |index: &u64| *index < end && self.has.get(*index) && !reserved.get(*index) && !feed.has(*index);
        let seeks = wants.questions().values().filter(|question| question.needs_block());
        // Of a pair of leaves either tells the place.
        let pairs = seeks
            .filter(|question| !question.span.clone().any(|index| reserved.get(index) || feed.has(index)))
            .filter_map(|question| question.span.clone().find(free));
        wants.urgent(0).find(free).or_else(|| pairs.min())
    }

    fn ask_for(&mut self, index: u64, feed: &Feed, reserved: &mut SparseBits, through: u64, now: Duration) -> Request {
        self.asked_through = through;
        self.begin_turn(index, feed, now);
        reserved.insert(index);
        self.note_request(now);
        self.in_flight.push_back(index);
        Request { index, bytes: 0, hash: false, nodes: self.digest(feed, index) }
    }

    fn note_request(&mut self, now: Duration) {
        if self.in_flight.is_empty() {
            self.progress_at = now;
        }
    }

    /// The first block of a range that the remote has, that is not held, and that nobody was asked for.
    fn free_in(&mut self, feed: &Feed, reserved: &SparseBits, range: &Range<u64>) -> Option<u64> {
        loop {
            let index = self.first_of(range, Some(reserved))?;
            if !feed.has(index) {
                return Some(index);
            }
            self.prune(feed, index / 64);
        }
    }

    /// The first block of a range that the remote has, and that is not in `except`.
    fn first_of(&self, range: &Range<u64>, except: Option<&SparseBits>) -> Option<u64> {
        self.has.first_in(range.clone(), except)
    }

    /// Takes back the requests for blocks that nobody waits for.
    pub(super) fn cancel(&mut self, wants: &Wants) -> Vec<u64> {
        self.late.retain(|&index| wants.wants(index));
        self.unanswered.keep(wants);
        let (kept, cancelled): (_, VecDeque<u64>) = self.in_flight.iter().partition(|&&index| wants.wants(index));
        self.in_flight = kept;
        self.withdrawn.clear();
        if !cancelled.is_empty() {
            self.promised.clear();
        }
        cancelled.into()
    }

    /// Whether a want may still be fulfilled by this remote.
    pub(super) fn may_bring(&self, wants: &Wants, id: WantId) -> bool {
        if !self.has_announced() || self.questions.is_asked(id) {
            return true;
        }
        if let Some(index) = wants.block_of(id) {
            return self.is_due(index / WANT_BLOCKS) || self.has.get(index) || self.in_flight.contains(&index);
        }
        self.questions.is_open(wants, id, &self.has, self.remote_len)
    }

    /// A message without a block answers a question. Whether there was one.
    pub(super) fn answered_question(&mut self, index: u64, now: Duration) -> bool {
        let answered = self.questions.answered(index);
        if answered {
            self.progress_at = now;
        }
        answered
    }

    /// Whether something was asked without a block, and not answered.
    fn is_questioned(&self) -> bool {
        self.questions.is_waiting() || self.comparison.is_waiting()
    }

    /// One past the highest block that the remote spoke of.
    pub(super) fn remote_len(&self) -> u64 {
        self.remote_len
    }

    /// Blocks asked for.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// How many requests may be in flight: a few until a proof told the size of the blocks, and verified roots keep later proofs short.
    fn window(&self, feed: &Feed) -> usize {
        match mean_size(feed) {
            None if self.remote_len > FEWEST_REQUESTS as u64 => 1,
            None => FEWEST_REQUESTS,
            Some(mean) => {
                let most = if self.in_order { MOST_IN_ORDER } else { MOST_REQUESTS };
                let fit = usize::try_from(BYTES_IN_FLIGHT / mean.max(1)).unwrap_or(most);
                fit.clamp(FEWEST_REQUESTS, most)
            }
        }
    }

    /// A block came, or if that is none its hash alone. Returns whether the block was asked for here.
    pub(super) fn answered(&mut self, index: u64, block: bool, now: Duration) -> bool {
        let Some(at) = self.in_flight.iter().position(|&asked| asked == index) else { return false };
        self.in_flight.remove(at);
        self.withdrawn.answered(at);
        if block {
            self.progress_at = now;
            self.promised.came(index);
        } else {
            self.promised.clear();
        }
        true
    }

    /// A block came whose proof holds.
    pub(super) fn proved(&mut self, index: u64) {
        self.again_asked.remove(&index);
    }

    /// A block that came is held now.
    pub(super) fn stored(&mut self, index: u64) {
        self.has.remove(index);
        self.unanswered.came(index);
    }

    /// Blocks are held now that came from elsewhere.
    pub(super) fn gained(&mut self, blocks: Range<u64>) {
        self.has.remove_range(blocks.start, blocks.end);
    }

    /// Blocks that others were asked for can be asked for again.
    pub(super) fn retry_requests(&mut self) {
        self.cursor = 0;
        if self.in_flight.is_empty() {
            self.turn = None;
        }
    }

    /// Takes back everything that is asked for.
    pub(super) fn release(&mut self) -> VecDeque<u64> {
        self.again_asked.clear();
        self.promised.clear();
        self.withdrawn.clear();
        std::mem::take(&mut self.in_flight)
    }

    /// Asks for nothing more, and waits for the answers that are under way: to what.
    pub(super) fn drain(&mut self) -> VecDeque<u64> {
        let in_flight = std::mem::take(&mut self.in_flight);
        let _ = self.stop();
        self.in_flight = in_flight;
        self.draining = true;
        self.in_flight.clone()
    }

    /// Whether nothing more is asked for, and what comes of what was is not taken.
    pub(super) fn is_draining(&self) -> bool {
        self.draining
    }

    /// What comes counts again.
    pub(super) fn stop_draining(&mut self) {
        self.draining = false;
    }

    /// The remote serves nothing any more: forgets what it has, and gives back what was asked for.
    pub(super) fn stop(&mut self) -> VecDeque<u64> {
        self.cut_short |= !self.has_announced() || !self.has.is_empty();
        self.has.clear();
        self.late.clear();
        (self.wants_unanswered, self.again) = (0, false);
        self.heard = true;
        self.next_window = u64::MAX;
        self.give_up_questions();
        self.questions = Questions::default();
        self.comparison.restart();
        self.release()
    }

    /// If something is asked for: since when nothing of that was answered.
    pub(super) fn waits_since(&self) -> Option<Duration> {
        let asked = !self.in_flight.is_empty() || self.is_questioned();
        let wanted = (self.wants_unanswered > 0).then_some(self.wanted_at);
        asked.then_some(self.progress_at).into_iter().chain(wanted).min()
    }

    /// If Data, or else a Have, can answer something: since when that waits.
    pub(super) fn waits_for(&self, is_data: bool) -> Option<Duration> {
        let asked = !self.in_flight.is_empty() || self.is_questioned();
        let (waits, since) = match is_data {
            true => (asked, self.progress_at),
            false => (self.wants_unanswered > 0 && !(asked && self.progress_at <= self.wanted_at), self.wanted_at),
        };
        waits.then_some(since)
    }

    /// Whether the remote has told everything, and has nothing that we lack; in a sparse session, nothing that is asked for.
    pub(super) fn finished(&mut self, scope: Scope<'_>, feed: &Feed) -> bool {
        if !self.has_announced() || !self.in_flight.is_empty() || self.is_questioned() {
            return false;
        }
        if scope.compares && self.to_compare(feed).is_some() {
            return false;
        }
        if scope.sparse {
            let wants = scope.wants;
            if feed.is_staged() && !wants.questions().is_empty() {
                // What came is looked at when it is written, and may lead to more.
                return false;
            }
            let open = |id| self.questions.is_open(wants, id, &self.has, self.remote_len);
            return self.window_asked_for(scope, feed).is_none()
                && !wants.urgent(0).any(|index| self.has.get(index) && !feed.has(index))
                && !wants.ranges().iter().any(|range| self.lacks(feed, range))
                && !wants.questions().keys().any(|&id| open(id));
        }
        !self.lacks_any(feed)
    }

    /// Whether the remote has a block that is not held.
    fn lacks_any(&mut self, feed: &Feed) -> bool {
        while let Some(word) = self.has.next_word(0) {
            self.prune(feed, word);
            if self.has.word(word) != 0 {
                return true;
            }
        }
        false
    }

    /// Whether the remote has a block of a range that is not held.
    fn lacks(&self, feed: &Feed, range: Range<u64>) -> bool {
        let mut at = range.start;
        while let Some(index) = self.first_of(&(at..range.end), None) {
            if !feed.has(index) {
                return true;
            }
            at = index + 1;
        }
        false
    }

    /// Forgets what came from elsewhere meanwhile.
    fn prune(&mut self, feed: &Feed, word: u64) {
        let members = self.has.word(word);
        let missing = members & !feed.bitfield().word(word);
        if missing != members {
            self.has.set_word(word, missing);
        }
    }
}

/// The lowest bits of a count, in reverse.
fn reversed(count: u64, bits: u32) -> u64 {
    count.reverse_bits() >> (64 - bits)
}

/// The mean size of a feed's blocks in bytes, once one of them is proven.
pub(super) fn mean_size(feed: &Feed) -> Option<u64> {
    feed.byte_len().checked_div(feed.len())
}
