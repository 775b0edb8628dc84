//! Whether what a remote brings or takes gets on, while it holds memory that others may wait for.

use std::time::Duration;

/// Over what time a rate is measured, and how long nothing at all may move.
const TIME: Duration = Duration::from_secs(5);

/// How often a slow remote is looked at again, until it is faster or others wait.
const AGAIN: Duration = Duration::from_secs(1);

/// The pace of one remote, in one direction.
#[derive(Debug, Default)]
pub(crate) struct Pace(Option<Seen>);

#[derive(Debug)]
struct Seen {
    /// When the time over which it is measured began, and how many bytes there were then.
    since: (Duration, u64),
    /// When anything last moved, and how many bytes there were then.
    moved: (Duration, u64),
}

/// Too few bytes moved.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Slow {
    pub(crate) bytes: u64,
    /// In how long.
    pub(crate) waited: Duration,
}

impl Pace {
    /// Forgets what it saw: there is nothing to be quick about.
    pub(crate) fn rest(&mut self) {
        self.0 = None;
    }

    /// Looks at how many bytes there are in all by now, if `rate` bytes a second are enough. Too few matter only if others wait. Returns when to
    /// look again.
    pub(crate) fn look(
        &mut self,
        bytes: u64,
        rate: u64,
        now: Duration,
        others_wait: impl FnOnce() -> bool,
    ) -> Result<Duration, Slow> {
        let seen = self.0.get_or_insert(Seen { since: (now, bytes), moved: (now, bytes) });
        if bytes > seen.moved.1 {
            seen.moved = (now, bytes);
        }
        let still = Slow { bytes: 0, waited: now.saturating_sub(seen.moved.0) };
        let (since, before) = seen.since;
        let all = Slow { bytes: bytes.saturating_sub(before), waited: now.saturating_sub(since) };
        let slow = if still.waited >= TIME {
            Some(still)
        } else if all.waited < TIME {
            None
        } else if all.bytes >= rate.saturating_mul(all.waited.as_secs()) {
            seen.since = (now, bytes);
            None
        } else {
            Some(all)
        };
        match slow {
            Some(slow) if others_wait() => Err(slow),
            Some(_) => Ok(now.saturating_add(AGAIN)),
            None => Ok(seen.since.0.min(seen.moved.0).saturating_add(TIME)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn who_stops_or_is_slow_gives_way_if_others_wait() {
        let mut pace = Pace::default();
        let mut look = |bytes, at, wait| pace.look(bytes, 1000, seconds(at), || wait);
        assert_eq!(look(100, 10, true), Ok(seconds(15)));
        assert_eq!(look(101, 14, true), Ok(seconds(15)));
        assert_eq!(look(102, 15, false), Ok(seconds(16)));
        assert_eq!(look(103, 16, true), Err(Slow { bytes: 3, waited: seconds(6) }));
        assert_eq!(look(10_000, 16, true), Ok(seconds(21)));
        assert_eq!(look(20_000, 20, true), Ok(seconds(21)));
        assert_eq!(look(20_000, 21, true), Ok(seconds(25)), "in the middle of the next five seconds");
        assert_eq!(look(20_000, 25, false), Ok(seconds(26)));
        assert_eq!(look(20_000, 600, true), Err(Slow { bytes: 0, waited: seconds(580) }));
        pace.rest();
        assert_eq!(pace.look(20_000, 1000, seconds(700), || true), Ok(seconds(705)));
    }
}
