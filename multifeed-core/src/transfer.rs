//! What a session's remote was asked for, and how long it may take to answer.

use std::time::Duration;

use crate::multifeed::FeedId;

/// The clock of a session: whether its remote still answers, of all feeds.
///
/// What a remote is asked for at once, for every feed, it answers one after the other, and on a slow link the last answer comes long
/// after the first. So a feed is not kept waiting while answers come, or parts of one, that have waited about as long. It is if none
/// come at all, or if the remote answers what it was asked for much later.
///
/// Times are on the session's own clock ([`time`](Self::time)), which stops while the remote's silence is our own.
#[derive(Debug, Clone, Copy, Default)]
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
}

impl Transfer {
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

    const FEED: FeedId = FeedId(3);
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
    fn without_transfer_it_is_the_time_alone() {
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
}
