//! How much may wait to be written to one stream.

use std::task::Context;
use std::time::Duration;

use crate::budget::Share;
use crate::options::PumpOptions;
use crate::pace::{Pace, Slow};
use multifeed_proto::Root;

/// What a message takes beyond its block, at the most: its header and its proof.
const PROOF_BYTES: usize = 8 * 1024;

/// After how long without anything to write a session gives back what it has beyond its own bytes.
const IDLE: Duration = Duration::from_secs(2);

/// How many bytes of commands may wait to be written. On a slow stream that is what goes out in about a second. What is sent next waits behind it,
/// and a JS peer ends the stream after 20 s without an answer. What is more than the session's own bytes is of the budget of all sessions.
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
    /// The session's own bytes.
    own: usize,
    share: Share,
    /// When something last waited to be written.
    used: Duration,
    /// Which multifeed on the stream was last given room for a block.
    pub(crate) turn: Option<Root>,
    /// How fast the remote takes what waits.
    pace: Pace,
}

/// What waits to be written, or may come at any time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Queue {
    /// Bytes that wait.
    pub(crate) bytes: usize,
    /// The bytes of memory that they take.
    pub(crate) memory: usize,
    /// Bytes that stores were granted and have not used.
    pub(crate) granted: usize,
}

/// What stores may send now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Bytes that may wait, with those that do.
    pub(crate) window: usize,
    /// Room for the block that needs it.
    pub(crate) room: Option<usize>,
    /// Stores must give back what is granted beyond the session's own bytes.
    pub(crate) revokes: bool,
}

/// Over what time the rate is measured: long enough for a few round trips of a slow link.
const RATED_OVER: Duration = Duration::from_secs(2);

impl Outflow {
    pub(crate) fn new(options: &PumpOptions, source: Option<&str>) -> Self {
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
            own: options.send_bytes.max(least),
            share: options.send_budget.share(source),
            used: Duration::ZERO,
            turn: None,
            pace: Pace::default(),
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

    fn window(&mut self, now: Duration) -> usize {
        if now >= self.since.saturating_add(Duration::from_secs(1)) {
            if self.blocked {
                self.window = self.written.clamp(self.least, self.most);
            }
            (self.since, self.written, self.blocked) = (now, 0, false);
        }
        self.window
    }

    /// What stores may send behind what waits already, as far as the budget has room. A block of `needed` bytes waits for its share.
    pub(crate) fn plan(&mut self, queue: Queue, needed: Option<usize>, now: Duration, cx: &Context<'_>) -> Plan {
        let window = self.window(now);
        if queue.bytes > 0 {
            self.used = now;
        }
        let beyond = |bytes: usize| bytes.saturating_sub(self.own);
        let occupied = beyond(queue.memory.saturating_add(queue.granted));
        let revokes = self.is_idle(now);
        let small = window.min(self.own);
        if let Some(bytes) = needed.filter(|_| queue.bytes <= window) {
            self.share.keep(occupied);
            let room = bytes.saturating_add(PROOF_BYTES);
            if !self.share.reserve(occupied.saturating_add(room), cx) {
                return Plan { window: small, room: None, revokes };
            }
            self.used = now;
            return Plan { window: small, room: Some(room), revokes: false };
        }
        self.share.leave();
        let target = beyond(queue.memory.saturating_sub(queue.bytes).saturating_add(window));
        if needed.is_some() || revokes || self.share.is_in_demand() {
            self.share.keep(occupied);
            return Plan { window: small, room: None, revokes };
        }
        self.share.keep(occupied.max(target));
        let window = if self.share.grow(target) { window } else { small };
        Plan { window, room: None, revokes }
    }

    /// A session's own bytes.
    pub(crate) fn own(&self) -> usize {
        self.own
    }

    /// Whether nothing was to be written for a while.
    pub(crate) fn is_idle(&self, now: Duration) -> bool {
        now >= self.used.saturating_add(IDLE)
    }

    /// When it will be idle, if it holds something until then.
    pub(crate) fn idle_at(&self, now: Duration) -> Option<Duration> {
        (self.share.held() > 0 && !self.is_idle(now)).then(|| self.used.saturating_add(IDLE))
    }

    /// Looks whether the remote takes what waits for it, while others wait for that memory. When to look again.
    pub(crate) fn look(
        &mut self,
        queue: Queue,
        taken: u64,
        rate: u64,
        now: Duration,
    ) -> Result<Option<Duration>, Slow> {
        if queue.bytes == 0 || self.share.held() == 0 {
            self.pace.rest();
            return Ok(None);
        }
        self.pace.look(taken, rate, now, || self.share.is_in_demand()).map(Some)
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
        let mut outflow = Outflow::new(&PumpOptions::default(), None);
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
