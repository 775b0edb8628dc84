//! When a session wants to be woken, and for what. All times are on the caller's clock.

use core::time::Duration;

use crate::config::Config;
use crate::error::Phase;

/// Bytes of a message under way that count as progress. The slowest stream brings as many in any time that is worth waiting for; keep-alives
/// that are taken for the body of a message whose length was altered do not.
const PIECE: u64 = 16 * 1024;

/// The clocks of a session.
#[derive(Debug)]
pub(crate) struct Timers {
    /// The latest time that the caller gave.
    now: Duration,
    received: Duration,
    sent: Duration,
    idle: Option<Duration>,
    keep_alive: Option<Duration>,
    /// How long nothing may move.
    stall: Option<Duration>,
    /// When a message last came or went, or a piece of one.
    moved: Duration,
    /// Bytes that came since.
    unmoved: u64,
    /// The message that is arriving.
    message: Option<Arriving>,
    message_time: Duration,
    slowest_rate: u64,
    /// Until the Noise handshake is done, and the remote's key accepted.
    handshake: Option<Duration>,
    /// Until we open a root key's channel without an Open of the remote's.
    hold: Option<Duration>,
    /// Until the remote has to open our root key, having opened another channel first.
    other_root: Option<Duration>,
    /// Until our handshake goes out without the remote's.
    greeting: Option<Duration>,
}

/// A message of which not all has come.
#[derive(Debug, Clone, Copy)]
struct Arriving {
    /// Its offset in the stream.
    start: u64,
    since: Duration,
    /// Bytes of it that came.
    bytes: u64,
}

/// What time it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// The Noise handshake is not done in time.
    Handshake,
    /// A multifeed is not ready in time.
    Root,
    /// Nothing came for too long.
    Idle,
    /// A message comes too slowly.
    Slow,
    /// Nothing but keep-alives came or went for too long.
    Stall,
    /// The remote opens no channel before us.
    Hold,
    /// The remote opened another channel, and not our root key after it.
    OtherRoot,
    /// The remote sends no handshake before us.
    Greeting,
    /// Nothing went out for a while.
    KeepAlive,
}

impl Timers {
    pub(crate) fn new(config: &Config, now: Duration) -> Self {
        Self {
            now,
            received: now,
            sent: now,
            idle: config.idle_timeout,
            keep_alive: config.keep_alive,
            stall: config.stall_timeout,
            moved: now,
            unmoved: 0,
            message: None,
            message_time: config.limits.message_time,
            slowest_rate: config.limits.slowest_rate,
            handshake: config.handshake_timeout.map(|timeout| now.saturating_add(timeout)),
            hold: None,
            other_root: None,
            greeting: None,
        }
    }

    /// The caller gave the time. It does not run backwards.
    pub(crate) fn set(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    /// Bytes came, or their absence is nobody's fault.
    pub(crate) fn received(&mut self, bytes: usize) {
        self.received = self.now;
        self.unmoved = self.unmoved.saturating_add(bytes as u64);
        if self.unmoved >= PIECE {
            self.moved();
        }
    }

    /// A message came or went, or nothing can move because of ourselves.
    pub(crate) fn moved(&mut self) {
        (self.moved, self.unmoved) = (self.now, 0);
    }

    /// How long nothing has moved.
    pub(crate) fn stood_still(&self) -> Duration {
        self.now.saturating_sub(self.moved)
    }

    /// The message that is arriving: its offset in the stream, and how many bytes of it came.
    pub(crate) fn arriving(&mut self, message: Option<(u64, u64)>) {
        self.message = message.map(|(start, bytes)| {
            let since = self.message.filter(|known| known.start == start).map_or(self.now, |known| known.since);
            Arriving { start, since, bytes }
        });
    }

    /// That the message did not arrive yet is because of ourselves.
    pub(crate) fn not_read(&mut self) {
        if let Some(message) = &mut self.message {
            message.since = self.now;
        }
    }

    /// How many bytes of the message that is arriving came, in what time.
    pub(crate) fn arrived(&self) -> (u64, Duration) {
        self.message.map_or((0, Duration::ZERO), |message| (message.bytes, self.now.saturating_sub(message.since)))
    }

    pub(crate) fn sent(&mut self) {
        self.sent = self.now;
    }

    /// The latest time that the caller gave.
    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    /// The remote is given this long to open a channel first.
    pub(crate) fn hold(&mut self, hold: Duration) {
        self.hold = Some(self.now.saturating_add(hold));
    }

    /// There is no more need to wait for that.
    pub(crate) fn held(&mut self) {
        self.hold = None;
    }

    /// The remote is given this long to open our root key too, from its first other channel on.
    pub(crate) fn expect_root(&mut self, wait: Duration) {
        self.other_root.get_or_insert(self.now.saturating_add(wait));
    }

    /// The remote opened our root key.
    pub(crate) fn root_came(&mut self) {
        self.other_root = None;
    }

    /// The remote is given this long to send its handshake first, from when that was first said.
    pub(crate) fn hold_greeting(&mut self, hold: Duration) {
        self.greeting.get_or_insert(self.now.saturating_add(hold));
    }

    /// No handshake of ours is held.
    pub(crate) fn greeted(&mut self) {
        self.greeting = None;
    }

    /// The Noise handshake is done.
    pub(crate) fn established(&mut self) {
        self.handshake = None;
        self.moved();
    }

    /// The remote ended its half: nothing more is expected.
    pub(crate) fn ended(&mut self) {
        self.idle = None;
    }

    /// When something is due next; `roots` is when a multifeed has to be ready. There are no keep-alives during the Noise
    /// handshake, as in JS.
    pub(crate) fn next(&self, phase: Phase, roots: Option<Duration>) -> Option<Duration> {
        let holds = [self.handshake, roots, self.hold, self.other_root, self.greeting];
        let others = [self.idle_at(), self.slow_at(), self.stall_at(phase), self.keep_alive_at(phase)];
        holds.into_iter().chain(others).flatten().min()
    }

    /// What is due now, the most serious first.
    pub(crate) fn due(&self, phase: Phase, roots: Option<Duration>) -> Option<Due> {
        let past = |at: Option<Duration>| at.is_some_and(|at| at <= self.now);
        if past(self.handshake) {
            Some(Due::Handshake)
        } else if past(roots) {
            Some(Due::Root)
        } else if past(self.idle_at()) {
            Some(Due::Idle)
        } else if past(self.slow_at()) {
            Some(Due::Slow)
        } else if past(self.stall_at(phase)) {
            Some(Due::Stall)
        } else if past(self.hold) {
            Some(Due::Hold)
        } else if past(self.other_root) {
            Some(Due::OtherRoot)
        } else if past(self.greeting) {
            Some(Due::Greeting)
        } else if past(self.keep_alive_at(phase)) {
            Some(Due::KeepAlive)
        } else {
            None
        }
    }

    fn idle_at(&self) -> Option<Duration> {
        self.idle.map(|timeout| self.received.saturating_add(timeout))
    }

    fn slow_at(&self) -> Option<Duration> {
        let Arriving { since, bytes, .. } = self.message?;
        let earned = bytes.saturating_mul(1000).checked_div(self.slowest_rate)?;
        Some(since.saturating_add(self.message_time).saturating_add(Duration::from_millis(earned)))
    }

    /// Until a session is up its handshakes have times of their own.
    fn stall_at(&self, phase: Phase) -> Option<Duration> {
        let timeout = self.stall.filter(|_| phase == Phase::Ready)?;
        Some(self.moved.saturating_add(timeout))
    }

    fn keep_alive_at(&self, phase: Phase) -> Option<Duration> {
        let interval = self.keep_alive.filter(|_| !matches!(phase, Phase::Noise | Phase::Held))?;
        Some(self.sent.saturating_add(interval))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn each_deadline_comes_in_its_time() {
        let mut timers = Timers::new(&Config::default(), secs(100));
        assert_eq!(timers.next(Phase::Noise, None), Some(secs(120)));
        assert_eq!(timers.next(Phase::Exchange, None), Some(secs(110)));
        timers.set(secs(110));
        assert_eq!((timers.due(Phase::Noise, None), timers.due(Phase::Exchange, None)), (None, Some(Due::KeepAlive)));
        timers.sent();
        timers.received(1);
        assert_eq!(timers.due(Phase::Exchange, None), None);
        timers.set(secs(120));
        assert_eq!(timers.due(Phase::Noise, None), Some(Due::Handshake));
        timers.established();
        assert_eq!(timers.due(Phase::Ready, None), Some(Due::KeepAlive));
        timers.set(secs(130));
        timers.set(secs(1));
        assert_eq!(timers.due(Phase::Ready, None), Some(Due::Idle));
        timers.ended();
        timers.sent();
        assert_eq!((timers.due(Phase::Ready, None), timers.next(Phase::Ready, None)), (None, Some(secs(140))));
    }

    #[test]
    fn a_multifeeds_deadline_counts_among_them() {
        let mut timers = Timers::new(&Config::default(), secs(100));
        timers.established();
        assert_eq!(timers.next(Phase::Exchange, Some(secs(105))), Some(secs(105)));
        timers.set(secs(105));
        assert_eq!(timers.due(Phase::Exchange, Some(secs(105))), Some(Due::Root));
        assert_eq!(timers.due(Phase::Exchange, Some(secs(106))), None);
    }

    #[test]
    fn only_what_moves_something_puts_off_a_stall() {
        let mut config = Config::default();
        (config.stall_timeout, config.keep_alive, config.idle_timeout) = (Some(secs(60)), None, None);
        let mut timers = Timers::new(&config, secs(100));
        timers.set(secs(110));
        timers.established();
        // The handshakes have times of their own.
        assert_eq!((timers.next(Phase::Exchange, None), timers.next(Phase::Ready, None)), (None, Some(secs(170))));
        // Keep-alives, or such of a large message, do not.
        timers.set(secs(150));
        timers.received(PIECE as usize - 1);
        timers.sent();
        assert_eq!(timers.next(Phase::Ready, None), Some(secs(170)));
        timers.received(1);
        assert_eq!(timers.next(Phase::Ready, None), Some(secs(210)));
        timers.set(secs(200));
        timers.moved();
        assert_eq!(timers.next(Phase::Ready, None), Some(secs(260)));
        timers.set(secs(259));
        timers.received(PIECE as usize - 1);
        assert_eq!(timers.due(Phase::Ready, None), None);
        timers.set(secs(261));
        assert_eq!((timers.due(Phase::Ready, None), timers.stood_still()), (Some(Due::Stall), secs(61)));
        assert_eq!(timers.due(Phase::Exchange, None), None);
    }

    #[test]
    fn a_message_has_its_time_and_what_its_bytes_earn() {
        let mut config = Config::default();
        (config.keep_alive, config.idle_timeout, config.handshake_timeout) = (None, None, None);
        let mut timers = Timers::new(&config, secs(100));
        assert_eq!(timers.next(Phase::Ready, None), None);
        timers.arriving(Some((1000, 1)));
        timers.set(secs(110));
        timers.arriving(Some((1000, 2560)));
        assert_eq!((timers.next(Phase::Ready, None), timers.due(Phase::Ready, None)), (Some(secs(130)), None));
        timers.set(secs(130));
        assert_eq!((timers.due(Phase::Ready, None), timers.arrived()), (Some(Due::Slow), (2560, secs(30))));
        timers.not_read();
        assert_eq!(timers.next(Phase::Ready, None), Some(secs(160)));
        // The next one.
        timers.arriving(Some((9000, 1)));
        assert!(timers.next(Phase::Ready, None) < Some(secs(151)));
        timers.arriving(None);
        assert_eq!(timers.next(Phase::Ready, None), None);
        config.limits.slowest_rate = 0;
        let mut timers = Timers::new(&config, secs(100));
        timers.arriving(Some((0, 1)));
        assert_eq!(timers.next(Phase::Ready, None), None);
    }

    #[test]
    fn the_hold_of_the_root() {
        let mut timers = Timers::new(&Config::default(), secs(100));
        timers.hold(secs(1));
        assert_eq!((timers.next(Phase::Exchange, None), timers.due(Phase::Exchange, None)), (Some(secs(101)), None));
        timers.set(secs(101));
        assert_eq!(timers.due(Phase::Exchange, None), Some(Due::Hold));
        timers.held();
        assert_eq!(timers.due(Phase::Exchange, None), None);
    }

    #[test]
    fn none_and_the_far_future_never_come() {
        let mut config = Config::default();
        (config.idle_timeout, config.keep_alive, config.handshake_timeout) = (None, None, None);
        assert_eq!(Timers::new(&config, secs(0)).next(Phase::Ready, None), None);
        config.idle_timeout = Some(Duration::MAX);
        assert_eq!(Timers::new(&config, secs(9)).next(Phase::Ready, None), Some(Duration::MAX));
    }
}
