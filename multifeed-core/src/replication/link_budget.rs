//! How many bytes may be under way at once on a link, by how fast the other side takes or brings them.

use std::time::Duration;

/// What a small answer counts at the least: its proof, its message and its turn cost more than its bytes.
pub(crate) const LEAST_COST: u64 = 4 << 10;
/// What may be under way at the start, and at the least: 16 small answers, or one large. A JS peer asks for as many itself.
pub(crate) const LEAST_BUDGET: u64 = 16 * LEAST_COST;
/// What it may grow to at once when the rate was measured; beyond that it doubles.
const MEASURED_BUDGET: u64 = 4 * LEAST_BUDGET;
/// Over how long the rate is measured at the most.
const MEASURED_OVER: Duration = Duration::from_secs(2);
/// The longest round trip that is allowed for.
pub(crate) const LONGEST_TRIP: Duration = Duration::from_secs(4);
/// For how much longer if what goes the other way holds it up.
pub(crate) const LONGEST_DELAY: Duration = Duration::from_millis(1500);

/// What may be under way. It follows the rate of the link, which is measured over the time in which something could have come: not over a round trip in
/// which nothing could.
#[derive(Debug)]
pub(crate) struct LinkBudget {
    /// Bytes that may be under way.
    bytes: u64,
    /// Since when it measures, and what came since then.
    since: Duration,
    came: u64,
    /// For how long, of that time, something could have come.
    busy: Duration,
    /// When something last came.
    last: Duration,
}

impl Default for LinkBudget {
    fn default() -> Self {
        let zero = Duration::ZERO;
        Self { bytes: LEAST_BUDGET, since: zero, came: 0, busy: zero, last: zero }
    }
}

impl LinkBudget {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What came since it measures.
    pub(crate) fn came(&self) -> u64 {
        self.came
    }

    /// For how long it measures.
    pub(crate) fn elapsed(&self, now: Duration) -> Duration {
        now.saturating_sub(self.since)
    }

    /// Since when it measures.
    pub(crate) fn since(&self) -> Duration {
        self.since
    }

    /// Begins to measure.
    pub(crate) fn begin(&mut self, now: Duration) {
        (self.since, self.came, self.busy) = (now, 0, Duration::ZERO);
    }

    /// So many bytes came, which could have come from `earliest` on.
    pub(crate) fn add(&mut self, bytes: u64, earliest: Duration, now: Duration) {
        self.came += bytes;
        self.busy += now.saturating_sub(self.last.max(earliest));
        self.last = now;
    }

    /// How much comes in a second, once all that may be under way came, or after [`MEASURED_OVER`].
    pub(crate) fn rate(&self, now: Duration) -> Option<u64> {
        let is_measured = self.came >= self.bytes || self.elapsed(now) >= MEASURED_OVER;
        is_measured.then(|| per_second(self.came, self.busy))
    }

    /// As much as is wanted, as far as it may grow at once.
    pub(crate) fn grown(&self, wanted: u64) -> u64 {
        wanted.clamp(LEAST_BUDGET, self.bytes.saturating_mul(2).max(MEASURED_BUDGET))
    }

    pub(crate) fn set(&mut self, bytes: u64) {
        self.bytes = bytes;
    }
}

/// So much in that time, in a second.
pub(crate) fn per_second(bytes: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(bytes) * 1_000_000 / time.as_micros().max(1)).unwrap_or(u64::MAX)
}

/// How much comes in that time, at so much a second.
pub(crate) fn comes_in(time: Duration, per_second: u64) -> u64 {
    u64::try_from(u128::from(per_second) * time.as_micros() / 1_000_000).unwrap_or(u64::MAX)
}

/// How long so much takes, at so much a second.
pub(crate) fn time_of(bytes: u64, per_second: u64) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1000) / per_second.max(1))
}

/// What an answer with a block of so many bytes counts, beyond which is its proof; `least` if it is a small one.
pub(crate) fn cost_of(size: u64, least: u64) -> u64 {
    const PROOF_BYTES: u64 = 256;
    size.saturating_add(PROOF_BYTES).max(least)
}
