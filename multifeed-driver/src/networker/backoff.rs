//! When to dial again. It reads no clock, and its randomness is a seed's.

use std::time::Duration;

/// How long to wait between two dials.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackoffOptions {
    /// The delay after the first failure; it doubles with each that follows. Default 1 s.
    pub first: Duration,
    /// The longest delay. Default 5 minutes.
    pub most: Duration,
    /// A connection that served for so long counts as a success, however it ended: the next delay is the first one. Default 8 s: JS ends
    /// a connection after 10 s on which it opened a root key that is not joined here.
    pub good_service: Duration,
    /// The delay after a connection that ended in sync, if it is another one than `first`. Default `None`.
    pub in_sync: Option<Duration>,
}

impl Default for BackoffOptions {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            most: Duration::from_secs(300),
            good_service: Duration::from_secs(8),
            in_sync: None,
        }
    }
}

/// What a dial came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// No connection.
    Failed,
    /// A connection, which was up for so long, and did not end in sync.
    Ended(Duration),
    /// A connection whose sessions ended in sync.
    InSync,
}

/// The delays of one dial.
#[derive(Debug)]
pub(crate) struct Backoff {
    options: BackoffOptions,
    /// The delay after the next failure, before jitter.
    delay: Duration,
    seed: u64,
}

impl Backoff {
    pub(crate) fn new(options: BackoffOptions, seed: u64) -> Self {
        let delay = options.first.min(options.most);
        Self { options, delay, seed }
    }

    /// Returns how long to wait after a dial: between half of the delay and all of it. So peers that lost each other at one time do not
    /// come back at one time.
    pub(crate) fn after(&mut self, outcome: Outcome) -> Duration {
        let is_good = match outcome {
            Outcome::InSync => true,
            Outcome::Ended(served) => served >= self.options.good_service,
            Outcome::Failed => false,
        };
        if is_good {
            self.delay = self.options.first.min(self.options.most);
        }
        let mut delay = self.delay;
        if !is_good {
            self.delay = delay.saturating_mul(2).min(self.options.most);
        } else if outcome == Outcome::InSync {
            delay = self.options.in_sync.unwrap_or(delay).min(self.options.most);
        }
        delay / 2 + (delay / 2).mul_f64(self.draw())
    }

    /// A number from 0 up to 1 (SplitMix64).
    fn draw(&mut self) -> f64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.seed;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        f64::from((bits >> 32) as u32) / 4_294_967_296.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn delays_double_up_to_the_longest_and_good_service_resets_them() {
        let mut backoff = Backoff::new(BackoffOptions::default(), 7);
        // What happened, and the delay in seconds that follows, before jitter.
        let failed = Outcome::Failed;
        let table = [
            (failed, 1),
            (failed, 2),
            (Outcome::Ended(secs(7)), 4),
            (Outcome::Ended(secs(8)), 1),
            (failed, 1),
            (failed, 2),
            (failed, 4),
            (Outcome::InSync, 1),
            (Outcome::InSync, 1),
            (failed, 1),
            (failed, 2),
            (failed, 4),
            (failed, 8),
            (failed, 16),
            (failed, 32),
            (failed, 64),
            (failed, 128),
            (failed, 256),
            (failed, 300),
            (failed, 300),
            (Outcome::Ended(Duration::MAX), 1),
        ];
        for (at, (outcome, delay)) in table.into_iter().enumerate() {
            let after = backoff.after(outcome);
            assert!((secs(delay) / 2..=secs(delay)).contains(&after), "{at}: {outcome:?}, {after:?}");
        }
    }

    #[test]
    fn one_that_ended_in_sync_may_wait_longer_than_one_that_failed() {
        let options = BackoffOptions { in_sync: Some(secs(6)), ..BackoffOptions::default() };
        let mut backoff = Backoff::new(options, 7);
        for (outcome, delay) in [(Outcome::Failed, 1), (Outcome::Failed, 2), (Outcome::InSync, 6), (Outcome::Failed, 1)]
        {
            let after = backoff.after(outcome);
            assert!((secs(delay) / 2..=secs(delay)).contains(&after), "{outcome:?}, {after:?}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_delays_and_others_differ() {
        let delays = |seed| {
            let mut backoff = Backoff::new(BackoffOptions::default(), seed);
            std::iter::repeat_with(|| backoff.after(Outcome::Failed)).take(12).collect::<Vec<_>>()
        };
        assert_eq!(delays(1), delays(1));
        assert_ne!(delays(1), delays(2));
        // Jitter spreads over its half: of 1,000 dials after one failure each quarter of it has its part.
        let mut quarters = [0; 4];
        for seed in 0..1000 {
            let first = Backoff::new(BackoffOptions::default(), seed).after(Outcome::Failed);
            quarters[usize::try_from((first - secs(1) / 2).as_millis() / 126).unwrap()] += 1;
        }
        assert!(quarters.iter().all(|&count| count > 150), "{quarters:?}");
    }

    #[test]
    fn any_options_give_delays() {
        for (first, most) in [(0, 0), (5, 1), (0, 9), (u64::MAX, u64::MAX)] {
            let options = BackoffOptions {
                first: secs(first),
                most: secs(most),
                good_service: Duration::ZERO,
                in_sync: Some(secs(first)),
            };
            let mut backoff = Backoff::new(options, 3);
            for _ in 0..100 {
                assert!(backoff.after(Outcome::Failed) <= secs(most));
                assert!(backoff.after(Outcome::InSync) <= secs(most));
            }
        }
    }
}
