//! How much may wait to be written to one stream.

use std::time::Duration;

use crate::options::PumpOptions;

/// How much may wait to be written, of commands: on a slow stream what goes out in about a second, since what is sent next waits behind it,
/// and a JS peer ends the stream after 20 s without an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outflow {
    window: usize,
    least: usize,
    most: usize,
    since: Duration,
    written: usize,
    /// The stream took no more.
    blocked: bool,
    /// Since when more waits than the stream takes, and what it took since.
    rated: Option<(Duration, usize)>,
    /// Bytes a second that it took when that was last measured, and whether that is new.
    rate: Option<u64>,
    is_new: bool,
}

/// Over what time the rate is measured: long enough for a few round trips of a slow link.
const RATED_OVER: Duration = Duration::from_secs(2);

impl Outflow {
    pub(crate) fn new(options: &PumpOptions) -> Self {
        let most = options.credit_bytes.max(1);
        let least = options.slow_credit_bytes.clamp(1, most);
        Self {
            window: least,
            least,
            most,
            since: Duration::ZERO,
            written: 0,
            blocked: false,
            rated: None,
            rate: None,
            is_new: false,
        }
    }

    pub(crate) fn written(&mut self, bytes: usize) {
        self.written = self.written.saturating_add(bytes);
        if let Some((_, written)) = &mut self.rated {
            *written = written.saturating_add(bytes);
        }
        if !self.blocked && self.written >= self.window {
            self.window = self.window.saturating_mul(2).min(self.most);
        }
    }

    /// The stream takes no more for now: what it took since it last did not is what it can take.
    pub(crate) fn blocked(&mut self, now: Duration) {
        self.blocked = true;
        let (since, written) = *self.rated.get_or_insert((now, 0));
        let time = now.saturating_sub(since);
        if time >= RATED_OVER && written > 0 {
            let per_second = written as u128 * 1000 / time.as_millis().max(1);
            (self.rate, self.is_new) = (Some(u64::try_from(per_second).unwrap_or(u64::MAX)), true);
            self.rated = Some((now, 0));
        }
    }

    /// Everything is written.
    pub(crate) fn drained(&mut self) {
        self.rated = None;
    }

    /// Bytes a second that the stream takes, if that was measured since the last call.
    pub(crate) fn new_rate(&mut self) -> Option<u64> {
        self.rate.filter(|_| std::mem::take(&mut self.is_new))
    }

    pub(crate) fn window(&mut self, now: Duration) -> usize {
        if now >= self.since.saturating_add(Duration::from_secs(1)) {
            if self.blocked {
                self.window = self.written.clamp(self.least, self.most);
            }
            (self.since, self.written, self.blocked) = (now, 0, false);
        }
        self.window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_rate_is_measured_only_while_more_waits() {
        let mut outflow = Outflow::new(&PumpOptions::default());
        // The system's buffer.
        outflow.written(2_000_000);
        outflow.blocked(seconds(10));
        outflow.written(20_000);
        outflow.blocked(seconds(11));
        assert_eq!(outflow.new_rate(), None, "too early");
        outflow.written(20_000);
        outflow.blocked(seconds(12));
        assert_eq!((outflow.new_rate(), outflow.new_rate()), (Some(20_000), None));
        outflow.blocked(seconds(15));
        assert_eq!(outflow.new_rate(), None, "it is only looked at");
        outflow.written(60_000);
        outflow.blocked(seconds(18));
        assert_eq!(outflow.new_rate(), Some(10_000));
        // Nothing waits for a minute.
        outflow.written(1_000);
        outflow.drained();
        outflow.written(30_000);
        outflow.blocked(seconds(78));
        outflow.written(100_000);
        outflow.blocked(seconds(80));
        assert_eq!(outflow.new_rate(), Some(50_000));
    }
}
