//! How far a remote is sent blocks ahead of its acknowledgements.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use crate::ids::FeedId;
use crate::replication::link_budget::{LONGEST_DELAY, LONGEST_TRIP, LinkBudget, comes_in, cost_of, time_of};

/// For how long blocks are under way beyond a round trip. That is far below the 20 s after which a JS peer that waits for a request of its
/// own, behind those answers, ends the stream.
const AHEAD: Duration = Duration::from_millis(1500);
/// What a small block counts at the least. 64 of these go out at the start.
const LEAST_COST: u64 = 1 << 10;
/// After how long without an acknowledgement what was sent counts as arrived, if it should have been long before. A JS peer says nothing of
/// a block that it got from another remote meanwhile.
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);
/// The same if blocks are large, or nothing was acknowledged yet: half of what a JS peer waits for an answer.
const LONGEST_UNACKNOWLEDGED: Duration = Duration::from_secs(10);
/// How often that happens before anything is acknowledged, until nothing waits for it any more.
const MOST_UNACKNOWLEDGED: u8 = 2;

/// What a remote was sent and did not acknowledge, which a JS peer does one block after the other.
///
/// What lies between the two sides is more than the stream shows: the system's buffers, and those on the way. All that is asked for later, either
/// way, waits behind it. So blocks go out as they are acknowledged: what the remote takes in [`AHEAD`] and a round trip is under way at the
/// most. Requests and all else go at once.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// What may be under way, in bytes of answers.
    budget: LinkBudget,
    /// Blocks that were sent, the oldest first.
    sent: VecDeque<SentBlock>,
    /// What they count.
    in_flight: u64,
    /// How much was acknowledged in a second, when that was last measured.
    rate: Option<u64>,
    /// The shortest time between when a block was sent and when it was acknowledged.
    trip: Duration,
    /// When something was last acknowledged, or given up.
    last: Duration,
    /// Whether anything ever was acknowledged, and else how often that was given up.
    heard: bool,
    given_up: u8,
    /// Feeds whose next block waits, each once, the next one first.
    waiting: VecDeque<FeedId>,
}

#[derive(Debug, Clone, Copy)]
struct SentBlock {
    feed: FeedId,
    index: u64,
    /// What it counts.
    cost: u64,
    at: Duration,
}

impl Default for Ahead {
    fn default() -> Self {
        Self {
            budget: LinkBudget::default(),
            sent: VecDeque::new(),
            in_flight: 0,
            rate: None,
            trip: LONGEST_TRIP,
            last: Duration::ZERO,
            heard: false,
            given_up: 0,
            waiting: VecDeque::new(),
        }
    }
}

impl Ahead {
    /// Whether a block may be sent. One always can be.
    pub(crate) fn has_room(&self) -> bool {
        self.in_flight < self.budget.bytes() || !self.is_kept()
    }

    /// Whether the remote acknowledges what it is sent, as far as that is known.
    fn is_kept(&self) -> bool {
        self.heard || self.given_up < MOST_UNACKNOWLEDGED
    }

    /// A block of so many bytes is sent.
    pub(crate) fn sent(&mut self, feed: FeedId, index: u64, size: u64, now: Duration) {
        if !self.is_kept() {
            return;
        }
        if self.sent.is_empty() {
            self.last = now;
            self.budget.begin(now);
        }
        let cost = cost(size);
        self.in_flight += cost;
        self.sent.push_back(SentBlock { feed, index, cost, at: now });
    }

    /// The remote has blocks of a feed that it was sent, or refused them. What was sent before them arrived, too. What comes the other way, and
    /// holds up what the remote says, takes `delay`.
    pub(crate) fn arrived(&mut self, feed: FeedId, blocks: &Range<u64>, delay: Duration, now: Duration) {
        (self.last, self.heard) = (now, true);
        let is_it = |block: &SentBlock| block.feed == feed && blocks.contains(&block.index);
        let Some(at) = self.sent.iter().rposition(is_it) else { return };
        let (mut arrived, mut sent) = (0, Duration::ZERO);
        for block in self.sent.drain(..=at) {
            arrived += block.cost;
            sent = block.at;
        }
        self.in_flight -= arrived;
        self.trip = self.trip.min(now.saturating_sub(sent));
        self.budget.add(arrived, sent.saturating_add(self.trip), now);
        let Some(rate) = self.budget.rate(now) else { return };
        self.rate = Some(rate);
        let ahead = AHEAD.saturating_add(delay.min(LONGEST_DELAY)).saturating_add(self.trip);
        let budget = self.budget.grown(comes_in(ahead, rate));
        // A rate that nothing more was to be sent at is no measure of what could be.
        if budget > self.budget.bytes() || !self.waiting.is_empty() {
            self.budget.set(budget);
        }
        self.budget.begin(now);
    }

    /// What was sent of a feed is not acknowledged any more: its channel is closed.
    pub(crate) fn forget(&mut self, feed: FeedId) {
        self.sent.retain(|block| block.feed != feed);
        self.in_flight = self.sent.iter().map(|block| block.cost).sum();
        self.waiting.retain(|of| *of != feed);
    }

    /// A feed's block waits for room.
    pub(crate) fn wait(&mut self, feed: FeedId) {
        self.waiting.push_back(feed);
    }

    /// Whether a feed's block waits for which there is room.
    pub(crate) fn has_next(&self) -> bool {
        !self.waiting.is_empty() && self.has_room()
    }

    /// The feed whose block waits, and can be sent.
    pub(crate) fn next(&mut self) -> Option<FeedId> {
        if self.has_room() { self.waiting.pop_front() } else { None }
    }

    /// How long what was sent takes to arrive, as far as the rate was measured.
    pub(crate) fn delay(&self) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| time_of(self.in_flight, rate))
    }

    /// Gives up waiting for acknowledgements that should be here.
    pub(crate) fn look(&mut self, now: Duration) {
        let least = if self.heard { UNACKNOWLEDGED } else { LONGEST_UNACKNOWLEDGED };
        let patience = self.delay().saturating_mul(2).clamp(least, LONGEST_UNACKNOWLEDGED);
        if self.sent.is_empty() || now < self.last.saturating_add(patience) {
            return;
        }
        self.given_up = self.given_up.saturating_add(1);
        self.sent.clear();
        (self.in_flight, self.last) = (0, now);
    }
}

/// What a block of so many bytes counts.
fn cost(size: u64) -> u64 {
    cost_of(size, LEAST_COST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::link_budget::LEAST_BUDGET;

    const FEED: FeedId = FeedId::test(3);

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Blocks of so many bytes, over a link of so many bytes a second and with a delay each way; what is under way at the most after a minute.
    fn budget_of(rate: u64, delay: Duration, size: u64) -> u64 {
        let mut ahead = Ahead::default();
        let (mut free, mut now, mut next) = (Duration::ZERO, Duration::ZERO, 0);
        let mut acknowledgements = VecDeque::new();
        while now < Duration::from_secs(60) {
            while ahead.has_room() {
                ahead.sent(FEED, next, size, now);
                free = free.max(now) + Duration::from_secs_f64(size as f64 / rate as f64);
                acknowledgements.push_back((next, free + delay * 2));
                next += 1;
            }
            if ahead.waiting.is_empty() {
                ahead.wait(FEED);
            }
            let (index, comes) = acknowledgements.pop_front().unwrap();
            now = comes;
            ahead.arrived(FEED, &(index..index + 1), Duration::ZERO, now);
        }
        ahead.budget.bytes()
    }

    #[test]
    fn what_the_remote_takes_in_a_second_and_a_half_is_under_way() {
        for rate in [45_000, 1_000_000, 20_000_000] {
            for delay in [at(0), at(50), at(1000)] {
                let budget = budget_of(rate, delay, 16_384);
                let trip = delay * 2 + Duration::from_secs_f64(16_384.0 / rate as f64);
                let expected = (rate as f64 * (AHEAD + trip).as_secs_f64()) as u64;
                let fits = expected * 9 / 10..=expected * 11 / 10;
                assert!(fits.contains(&budget), "{rate} {delay:?}: {budget}, {expected}");
            }
        }
        assert_eq!(budget_of(10_000, at(0), 16_384), LEAST_BUDGET);
    }

    #[test]
    fn what_may_be_under_way_doubles_in_each_round_trip_that_it_fits_into() {
        let mut ahead = Ahead::default();
        let (mut next, mut counts) = (0, Vec::new());
        for round in 0..6 {
            let begun = next;
            while ahead.has_room() {
                ahead.sent(FEED, next, 100, at(round * 3000));
                next += 1;
            }
            ahead.wait(FEED);
            counts.push(next - begun);
            ahead.arrived(FEED, &(begun..next), Duration::ZERO, at((round + 1) * 3000));
        }
        assert_eq!(counts, [64, 256, 512, 1024, 2048, 4096]);
    }

    #[test]
    fn what_is_never_acknowledged_holds_up_nothing_for_long() {
        let mut ahead = Ahead::default();
        let fill = |ahead: &mut Ahead, now| {
            while ahead.has_room() {
                ahead.sent(FEED, 0, 16_384, now);
            }
        };
        fill(&mut ahead, at(0));
        ahead.look(at(9_999));
        assert!(!ahead.has_room());
        ahead.look(at(10_000));
        assert!(ahead.has_room());
        // Acknowledged late: it is not a remote that acknowledges nothing.
        fill(&mut ahead, at(10_000));
        ahead.arrived(FEED, &(9..10), Duration::ZERO, at(11_000));
        ahead.look(at(15_999));
        assert!(!ahead.has_room());
        ahead.look(at(16_000));
        assert!(ahead.has_room());
        // One that never says anything is not waited for again and again.
        let mut ahead = Ahead::default();
        for second in [10, 20] {
            fill(&mut ahead, at(second * 1000 - 10_000));
            ahead.look(at(second * 1000));
        }
        (0..100).for_each(|_| ahead.sent(FEED, 0, 1 << 20, at(20_000)));
        assert!(ahead.has_room() && ahead.sent.is_empty());
    }

    #[test]
    fn what_went_before_arrived_too_and_a_closed_channel_waits_for_nothing() {
        let mut ahead = Ahead::default();
        for (feed, index) in [(FEED, 0), (FeedId::test(4), 0), (FEED, 1), (FeedId::test(4), 1)] {
            assert!(ahead.has_room());
            ahead.sent(feed, index, 16_384, at(0));
        }
        assert!(!ahead.has_room());
        ahead.wait(FEED);
        ahead.wait(FeedId::test(4));
        assert_eq!((ahead.has_next(), ahead.next()), (false, None));
        // Of another feed, or one that was not sent.
        ahead.arrived(FeedId::test(5), &(0..1), Duration::ZERO, at(1));
        ahead.arrived(FEED, &(7..9), Duration::ZERO, at(1));
        assert!(!ahead.has_room());
        ahead.arrived(FEED, &(1..2), Duration::ZERO, at(100));
        assert_eq!(ahead.sent.len(), 1);
        ahead.forget(FeedId::test(4));
        assert_eq!((ahead.in_flight, ahead.has_next(), ahead.next(), ahead.next()), (0, true, Some(FEED), None));
    }
}
