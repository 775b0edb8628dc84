//! When a remote has kept a feed waiting for too long, where a session has ten thousand of them.

use std::time::Duration;

/// The answers of a remote, of all feeds on a session.
///
/// What a remote is asked for at once, for every feed, it answers one after the other, and on a slow connection or a slow machine the last
/// answer comes long after the first. So a feed is not kept waiting while answers come that have waited about as long. It is
/// where none come at all, or where the remote answers what it was asked for much later.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Answers {
    /// When the last one came.
    last: Duration,
    /// The latest time since which something had waited when it was answered.
    waited_since: Duration,
}

impl Answers {
    /// Something was answered that had waited since then.
    pub(crate) fn came(&mut self, waited_since: Duration, now: Duration) {
        self.last = self.last.max(now);
        self.waited_since = self.waited_since.max(waited_since);
    }

    /// Whether what waits since then has waited for too long.
    pub(crate) fn are_overdue(&self, since: Duration, now: Duration, patience: Duration) -> bool {
        let passed_over = self.waited_since >= since.saturating_add(patience);
        now >= since.max(self.last).saturating_add(patience) || passed_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_that_waits_its_turn_is_not_overdue() {
        let mut answers = Answers::default();
        // A hundred feeds are asked at once, and answered one a second, each asked again.
        for second in 0..100 {
            answers.came(at(0), at(second));
            assert!(!answers.are_overdue(at(0), at(second + 1), PATIENCE), "{second}");
        }
        assert!(!answers.are_overdue(at(0), at(118), PATIENCE));
        assert!(answers.are_overdue(at(0), at(119), PATIENCE));
    }

    #[test]
    fn one_that_is_passed_over_is_overdue() {
        let mut answers = Answers::default();
        answers.came(at(19), at(30));
        assert!(!answers.are_overdue(at(0), at(30), PATIENCE));
        answers.came(at(20), at(30));
        assert!(answers.are_overdue(at(0), at(30), PATIENCE));
        assert!(!answers.are_overdue(at(1), at(30), PATIENCE));
    }

    #[test]
    fn without_answers_it_is_the_time_alone() {
        assert!(!Answers::default().are_overdue(at(5), at(24), PATIENCE));
        assert!(Answers::default().are_overdue(at(5), at(25), PATIENCE));
    }
}
