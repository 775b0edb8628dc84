//! What a session's remote was asked for: how much at once, and how long it may take to answer.

use std::collections::VecDeque;
use std::time::Duration;

use crate::ids::FeedId;
use crate::replication::link_budget::{
    LEAST_BUDGET, LEAST_COST, LONGEST_DELAY, LONGEST_TRIP, LinkBudget, comes_in, cost_of, per_second, time_of,
};

/// What an answer counts before any came: a small one.
const FIRST_COST: u64 = LEAST_COST;
/// For how long answers are asked for beyond a round trip. The remote is then never idle while a turn of ours is late, and what it asks for
/// itself does not wait long behind its answers. Of small blocks, few proofs are under way that repeat each other.
const AHEAD: Duration = Duration::from_millis(400);
/// Below this budget small blocks are asked for in a [scattered](Share::is_scattered) order.
const SCATTERED_BUDGET: u64 = 256 * LEAST_COST;
/// What a remote needs longer for may be asked of another one, too.
const SLOW: Duration = Duration::from_secs(1);
/// What one feed takes in its turn, in bytes of answers: ten small ones, as each turn of a feed costs an opening of its files on either side. Even
/// the least budget leaves room for another feed. Small ones it takes whole: room comes back by single answers.
const TURN_BYTES: u64 = LEAST_BUDGET / 8 * 5;

/// What one feed may ask for now, of its session's budget.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    room: u64,
    /// What small answers may take beyond that.
    beyond: u64,
    /// What an answer of a feed counts of which no block came yet.
    unknown: u64,
    /// There was more to ask for than there is room.
    starved: bool,
    scattered: bool,
    /// How many blocks were asked for, and when.
    asked: usize,
    at: Duration,
    /// What the session was asked for so far, in all.
    through: u64,
}

impl Share {
    /// What an answer counts, if blocks have so many bytes.
    pub(crate) fn cost(&self, mean: Option<u64>) -> u64 {
        mean.map_or(self.unknown, cost)
    }

    /// Whether one more block may be asked for, whose answer counts so much.
    pub(crate) fn has_room(&self, cost: u64) -> bool {
        self.room > 0 || (cost <= LEAST_COST && self.beyond > 0)
    }

    /// A block is asked for, whose answer counts so much.
    pub(crate) fn take(&mut self, cost: u64) {
        self.beyond = self.beyond.saturating_sub(cost.saturating_sub(self.room));
        self.room = self.room.saturating_sub(cost);
        self.asked += 1;
        self.through += cost;
    }

    /// Where the answer to what was asked for last ends, among all of the session's.
    pub(crate) fn through(&self) -> u64 {
        self.through
    }

    /// There is more to ask for, and no room.
    pub(crate) fn starve(&mut self) {
        self.starved = true;
    }

    pub(crate) fn is_starved(&self) -> bool {
        self.starved
    }

    /// Whether to ask for small blocks in a scattered order. Those under way in a row have most of their proofs in common, and each brings
    /// its own. That is 7 hashes each if 77 are under way, but 2 if they are scattered over 1024. On a slow link that is more than the
    /// blocks.
    pub(crate) fn is_scattered(&self) -> bool {
        self.scattered
    }
}

/// How much is asked for at once.
#[derive(Debug)]
struct Budget {
    /// Bytes of answers that may be waited for.
    link: LinkBudget,
    /// Answers that came since the link was last measured.
    answers: u64,
    /// When what is waited for was asked for, the first first. One that is not answered counts as another's, until it is dropped.
    asked: VecDeque<Duration>,
    /// Whether there was more to ask for than that.
    used_up: bool,
    /// The shortest time that an answer took.
    trip: Option<Duration>,
    /// What an answer counts, by what came last.
    mean: u64,
    /// How much came in a second, also of time in which nothing could, when that was last measured.
    rate: Option<u64>,
}

impl Default for Budget {
    fn default() -> Self {
        let (link, asked) = (LinkBudget::default(), VecDeque::new());
        Self { link, answers: 0, asked, used_up: false, trip: None, mean: FIRST_COST, rate: None }
    }
}

impl Budget {
    /// A block of so many bytes came. When the link is measured, the budget follows its rate: what comes in [`AHEAD`] and a round trip, and one
    /// answer. What is under way the other way holds up the trip by `delay`.
    fn came(&mut self, size: u64, delay: Duration, now: Duration) {
        let trip = self.trip.unwrap_or_default().min(LONGEST_TRIP);
        let asked = self.asked.pop_front().unwrap_or(self.link.since());
        self.link.add(cost(size), asked.saturating_add(trip), now);
        self.answers += 1;
        let Some(rate) = self.link.rate(now) else { return };
        self.mean = self.link.came() / self.answers.max(1);
        self.rate = Some(per_second(self.link.came(), self.link.elapsed(now)));
        if self.used_up {
            // What goes the other way holds up the requests, and comes and goes.
            let ahead = if delay.is_zero() { AHEAD } else { LONGEST_DELAY };
            let ahead = ahead.saturating_add(delay.min(LONGEST_DELAY)).saturating_add(trip);
            // The next answer is asked for before one is whole, unless that takes long.
            let next = self.mean.min(comes_in(LONGEST_DELAY, rate));
            self.link.set(self.link.grown(comes_in(ahead, rate).saturating_add(next)));
        }
        self.begin(now);
    }

    fn begin(&mut self, now: Duration) {
        self.link.begin(now);
        (self.answers, self.used_up) = (0, false);
    }

    /// Answers that count so much are waited for: what was asked for before them is not.
    fn waits_for(&mut self, in_flight: u64, now: Duration) {
        if in_flight == 0 {
            self.begin(now);
        }
        let most = usize::try_from(in_flight / LEAST_COST).unwrap_or(usize::MAX);
        self.asked.drain(..self.asked.len().saturating_sub(most));
    }
}

/// What an answer with a block of so many bytes counts.
pub(crate) fn cost(size: u64) -> u64 {
    cost_of(size, LEAST_COST)
}

/// What a session asks its remote for, of all feeds: how much at once, and whether the remote still answers.
///
/// The feeds share one budget, as large as what comes in a second and a half. So whatever the remote asks for does not wait long behind what
/// it sends. When it is used up they take turns.
///
/// What a remote is asked for at once, for every feed, it answers one after the other, and on a slow link the last answer comes long
/// after the first. So a feed is not kept waiting while answers come, or parts of one, that have waited about as long. It is if none
/// come at all, or if the remote answers what it was asked for much later.
///
/// Times are on the session's own clock ([`time`](Self::time)), which stops while the remote's silence is our own.
#[derive(Debug, Default)]
pub(crate) struct Transfer {
    /// When the last bytes of an answer came.
    last: Duration,
    /// The latest time since which something had waited when it was answered.
    waited_since: Duration,
    /// Bytes of an answer that is under way, which came since `last` and were too few to count.
    trickle: usize,
    /// What `last` was before the message that is under way, which may turn out to be no answer.
    before: Option<Duration>,
    /// The feed of that message.
    arriving: Option<FeedId>,
    /// How long the clock stood, in all.
    excused: Duration,
    /// What was asked for, in all.
    asked: u64,
    budget: Budget,
}

impl Transfer {
    /// What a feed may ask for while answers that count `in_flight` are waited for; in its turn no more than others have. If others wait for theirs,
    /// it takes it whole.
    pub(crate) fn share(&mut self, in_flight: u64, in_turn: bool, others: bool, now: Duration) -> Share {
        self.budget.waits_for(in_flight, now);
        let room = self.room(in_flight);
        if !in_turn || room == 0 {
            return self.share_of(room, now);
        }
        let share = self.share_of(room.min(TURN_BYTES), now);
        // On a slow link what is under way in vain costs more than a file that is opened.
        let whole = others && !share.scattered;
        Share { beyond: if whole { TURN_BYTES - share.room } else { 0 }, ..share }
    }

    /// A share of nothing: others wait for their turns.
    pub(crate) fn no_share(&self, now: Duration) -> Share {
        self.share_of(0, now)
    }

    fn share_of(&self, room: u64, at: Duration) -> Share {
        let scattered = self.budget.rate.is_some() && self.budget.link.bytes() < SCATTERED_BUDGET;
        Share {
            room,
            beyond: 0,
            unknown: self.budget.mean,
            starved: false,
            scattered,
            asked: 0,
            at,
            through: self.asked,
        }
    }

    /// A feed used its share.
    pub(crate) fn used(&mut self, share: Share) {
        self.asked = share.through;
        self.budget.asked.extend(std::iter::repeat_n(share.at, share.asked));
        self.budget.used_up |= share.starved;
    }

    /// How much more may be asked for. One request always can be.
    pub(crate) fn room(&self, in_flight: u64) -> u64 {
        self.budget.link.bytes().saturating_sub(in_flight)
    }

    /// What an answer counts, if blocks have so many bytes.
    pub(crate) fn answer_cost(&self, mean: Option<u64>) -> u64 {
        mean.map_or(self.budget.mean, cost)
    }

    /// How much comes up to the end of the answer that ends [there](Share::through), while answers that count `in_flight` are waited for.
    pub(crate) fn comes_before(&self, through: u64, in_flight: u64) -> u64 {
        through.saturating_sub(self.asked.saturating_sub(in_flight))
    }

    /// How much of what is asked for comes within [`SLOW`], as far as the rate of what came tells.
    pub(crate) fn comes_soon(&self, now: Duration) -> u64 {
        let Budget { link, rate, trip, .. } = &self.budget;
        let time = link.elapsed(now);
        let rate = if time < SLOW / 4 { rate.unwrap_or(u64::MAX) } else { per_second(link.came(), time) };
        // The last of it was asked for just now, and takes a round trip first. The longer the remote is silent, the less it is relied on.
        let silent = now.saturating_sub(self.last.max(link.since()));
        let time = SLOW.saturating_sub(trip.unwrap_or_default()).saturating_sub(silent);
        comes_in(time, rate)
    }

    /// How long answers that count `in_flight` take, as far as the rate of what came tells.
    pub(crate) fn delay(&self, in_flight: u64) -> Duration {
        self.budget.rate.map_or(Duration::ZERO, |rate| time_of(in_flight, rate))
    }

    /// A block of so many bytes came that was asked for; what is sent takes `delay` to arrive.
    pub(crate) fn brought(&mut self, size: u64, delay: Duration, now: Duration) {
        self.budget.came(size, delay, now);
    }

    /// Returns what time it is for the remote.
    pub(crate) fn time(&self, now: Duration) -> Duration {
        now.saturating_sub(self.excused)
    }

    /// Stops the clock for so long: the remote was not read, or had not been sent what it was asked for.
    pub(crate) fn excuse(&mut self, time: Duration) {
        self.excused = self.excused.saturating_add(time);
    }

    /// Notes that something was answered that had waited since then.
    pub(crate) fn came(&mut self, waited_since: Duration, now: Duration) {
        self.last = self.last.max(now);
        self.waited_since = self.waited_since.max(waited_since);
        (self.trickle, self.before, self.arriving) = (0, None, None);
    }

    /// A question that is answered at once, before any blocks, took so long.
    pub(crate) fn took(&mut self, trip: Duration) {
        self.budget.trip = Some(self.budget.trip.map_or(trip, |shortest| shortest.min(trip)));
    }

    /// Notes a part of what may answer something of a feed that has waited since then. It counts if no fewer than `slowest` bytes
    /// came for each second since anything did.
    pub(crate) fn arrives(&mut self, feed: FeedId, bytes: usize, since: Duration, now: Duration, slowest: u64) {
        self.trickle = self.trickle.saturating_add(bytes);
        let waited = now.saturating_sub(self.last.max(since)).as_millis();
        if (self.trickle as u128).saturating_mul(1000) < u128::from(slowest).saturating_mul(waited) {
            return;
        }
        self.before.get_or_insert(self.last);
        self.arriving = Some(feed);
        (self.last, self.trickle) = (self.last.max(now), 0);
    }

    /// Whether a message of a feed is under way that may answer something, and of which enough came.
    pub(crate) fn is_arriving(&self, feed: FeedId) -> bool {
        self.arriving == Some(feed)
    }

    /// Notes that a message was no answer: its parts do not count either.
    pub(crate) fn came_in_vain(&mut self) {
        if let Some(before) = self.before.take() {
            (self.last, self.trickle, self.arriving) = (before, 0, None);
        }
    }

    /// Whether what waits since then has waited for too long.
    pub(crate) fn is_overdue(&self, since: Duration, now: Duration, patience: Duration) -> bool {
        let passed_over = self.waited_since >= since.saturating_add(patience);
        now >= since.max(self.last).saturating_add(patience) || passed_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEED: FeedId = FeedId::test(3);
    const PATIENCE: Duration = Duration::from_secs(20);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_that_waits_its_turn_is_not_overdue() {
        let mut transfer = Transfer::default();
        // A hundred feeds are asked at once, and answered one a second, each asked again.
        for second in 0..100 {
            transfer.came(at(0), at(second));
            assert!(!transfer.is_overdue(at(0), at(second + 1), PATIENCE), "{second}");
        }
        assert!(!transfer.is_overdue(at(0), at(118), PATIENCE));
        assert!(transfer.is_overdue(at(0), at(119), PATIENCE));
    }

    #[test]
    fn one_that_is_passed_over_is_overdue() {
        let mut transfer = Transfer::default();
        transfer.came(at(19), at(30));
        assert!(!transfer.is_overdue(at(0), at(30), PATIENCE));
        transfer.came(at(20), at(30));
        assert!(transfer.is_overdue(at(0), at(30), PATIENCE));
        assert!(!transfer.is_overdue(at(1), at(30), PATIENCE));
    }

    #[test]
    fn without_answers_it_is_the_time_alone() {
        assert!(!Transfer::default().is_overdue(at(5), at(24), PATIENCE));
        assert!(Transfer::default().is_overdue(at(5), at(25), PATIENCE));
    }

    #[test]
    fn parts_count_unless_they_trickle_or_answer_nothing() {
        let mut transfer = Transfer::default();
        // 300 bytes a second, for ten minutes.
        for second in 1..600 {
            transfer.arrives(FEED, 300, at(0), at(second), 256);
            assert!(transfer.is_arriving(FEED));
            assert!(!transfer.is_overdue(at(0), at(second + 19), PATIENCE));
        }
        assert!(transfer.is_overdue(at(0), at(619), PATIENCE));
        // It was no answer.
        transfer.came_in_vain();
        assert!(transfer.is_overdue(at(0), at(600), PATIENCE));
        // 200 a second do not count, and neither does what waited before.
        let mut transfer = Transfer::default();
        for second in 101..120 {
            transfer.arrives(FEED, 200, at(100), at(second), 256);
            assert!(!transfer.is_arriving(FEED));
            assert!(!transfer.is_overdue(at(100), at(second), PATIENCE));
        }
        assert!(transfer.is_overdue(at(100), at(120), PATIENCE));
        // In all they are enough as soon as they come faster.
        transfer.arrives(FEED, 2000, at(100), at(120), 256);
        assert!(!transfer.is_overdue(at(100), at(139), PATIENCE));
    }

    #[test]
    fn the_clock_stands_while_silence_is_our_own() {
        let mut transfer = Transfer::default();
        transfer.excuse(at(30));
        assert_eq!((transfer.time(at(10)), transfer.time(at(50))), (at(0), at(20)));
        assert!(!transfer.is_overdue(at(5), transfer.time(at(54)), PATIENCE));
        assert!(transfer.is_overdue(at(5), transfer.time(at(55)), PATIENCE));
    }

    /// Answers come on a link of this rate and round trip, as many at once as the budget allows: what it comes to in a minute.
    fn budget_of(rate: u64, trip: Duration, size: u64) -> u64 {
        let mut transfer = Transfer::default();
        transfer.took(trip);
        let (mut now, mut free, mut in_flight) = (at(100), at(100), std::collections::VecDeque::new());
        let mut waiting = 0;
        while now < at(160) {
            loop {
                let mut share = transfer.share(waiting, false, false, now);
                if !share.has_room(share.cost(Some(size))) {
                    share.starve();
                    transfer.used(share);
                    break;
                }
                share.take(share.cost(Some(size)));
                transfer.used(share);
                waiting += share.cost(Some(size));
                free = free.max(now) + Duration::from_secs_f64(cost_of(size, 0) as f64 / rate as f64);
                in_flight.push_back(free + trip);
            }
            now = in_flight.pop_front().unwrap();
            waiting -= cost(size);
            transfer.brought(size, Duration::ZERO, now);
        }
        transfer.budget.link.bytes()
    }

    #[test]
    fn the_budget_is_what_comes_in_a_round_trip_and_a_little() {
        for size in [8 << 10, 64 << 10] {
            for rate in [100_000, 1_000_000, 20_000_000] {
                for trip in [at(0), Duration::from_millis(300), at(2)] {
                    let budget = budget_of(rate, trip, size);
                    let next = cost(size).min((rate as f64 * LONGEST_DELAY.as_secs_f64()) as u64);
                    let expected = (rate as f64 * (AHEAD + trip).as_secs_f64()) as u64 + next;
                    let least = LEAST_BUDGET.max(expected * 7 / 10);
                    assert!(
                        (least..=expected.max(LEAST_BUDGET) * 13 / 10).contains(&budget),
                        "{size} {rate} {trip:?}: {budget}, {expected}"
                    );
                }
            }
        }
        // Small answers count by their number: 140 come in a second.
        assert!((50 * LEAST_COST..=60 * LEAST_COST).contains(&budget_of(50_000, at(0), 100)));
        assert_eq!(budget_of(10_000, at(0), 1 << 20), LEAST_BUDGET);
    }

    #[test]
    fn a_budget_doubles_in_each_round_trip_that_it_fits_into() {
        let mut transfer = Transfer::default();
        let trip = Duration::from_secs(3);
        transfer.took(trip);
        let mut counts = Vec::new();
        for round in 0..6 {
            let mut share = transfer.share(0, false, false, trip * round);
            while share.has_room(LEAST_COST) {
                share.take(share.cost(Some(100)));
            }
            share.starve();
            transfer.used(share);
            (0..share.asked).for_each(|_| transfer.brought(100, Duration::ZERO, trip * (round + 1)));
            counts.push(share.asked);
        }
        assert_eq!(counts, [16, 64, 128, 256, 512, 1024]);
    }

    #[test]
    fn what_is_never_answered_is_not_remembered() {
        let mut transfer = Transfer::default();
        for second in 0..10_000 {
            // One request is answered late, and all others are refused.
            let mut share = transfer.share(LEAST_COST, false, false, at(second));
            (0..8).for_each(|_| share.take(LEAST_COST));
            transfer.used(share);
            assert!(transfer.budget.asked.len() <= 9);
        }
    }

    #[test]
    fn a_budget_that_is_not_used_up_stays() {
        let mut transfer = Transfer::default();
        for second in 0..100 {
            transfer.brought(100, Duration::ZERO, at(second));
        }
        assert_eq!(transfer.budget.link.bytes(), LEAST_BUDGET);
        // One request can always be made, and a turn is no more than others have.
        assert!(transfer.share(LEAST_BUDGET - 1, false, false, at(100)).has_room(LEAST_COST));
        for in_turn in [false, true] {
            assert!(!transfer.share(LEAST_BUDGET, in_turn, in_turn, at(100)).has_room(LEAST_COST));
        }
        let mut turn = transfer.share(0, true, true, at(100));
        turn.take(TURN_BYTES);
        assert!(!turn.has_room(LEAST_COST));
    }

    #[test]
    fn a_turn_of_small_answers_is_taken_whole_if_others_wait() {
        let mut transfer = Transfer::default();
        let mut taken = |cost: u64, others| {
            let mut turn = transfer.share(LEAST_BUDGET - LEAST_COST, true, others, at(1));
            while turn.has_room(cost) {
                turn.take(cost);
            }
            turn.asked
        };
        assert_eq!([taken(LEAST_COST, true), taken(LEAST_COST + 1, true), taken(LEAST_COST, false)], [10, 1, 1]);
        // On a slow link it is not.
        transfer.budget.rate = Some(10_000);
        let turn = transfer.share(LEAST_BUDGET - LEAST_COST, true, true, at(1));
        assert_eq!((turn.room, turn.beyond), (LEAST_COST, 0));
    }
}
