//! How far a sync is: what moved, how fast, and what is still missing on either side.

use std::time::Duration;

/// How far back rates look. Younger transfers are measured over the time that they have lasted, one second at the least.
pub const RATE_WINDOW: Duration = Duration::from_secs(SLOTS * SLOT.as_secs());

const SLOT: Duration = Duration::from_secs(1);
const SLOTS: u64 = 10;

/// Blocks and bytes of blocks, both ways: so many in all, or so many a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Moved {
    /// Blocks that came and were stored.
    pub blocks_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Blocks that were sent.
    pub blocks_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
}

/// How a session stands, or, summed up, all of them.
///
/// What a remote has is known as far as it told. One that serves nothing tells nothing. Of feeds that are not fetched from it (those that
/// are written here, say) it is asked only once the session is [observed](crate::Multifeed::observe). Before that `missing_there` leaves
/// them out, and nothing is said to be in sync.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SyncState {
    /// Feeds whose channels are open, and those that need none, because both sides [turned out](crate::reconcile) to hold them alike. In a
    /// session that is not live, those whose channels are closed by now, too: in the end all that were replicated.
    pub feeds: u64,
    /// Those of them that are in sync.
    pub feeds_in_sync: u64,
    /// What moved so far. A block counts as sent when it was handed to the session.
    pub moved: Moved,
    /// What moved in a second, over the last [`RATE_WINDOW`].
    pub per_second: Moved,
    /// Blocks of those that were received that are not written: they wait for the disk, or it did not take them.
    pub unwritten: u64,
    /// Blocks that the remote has and that it has to bring: in a sparse session those that were requested. What it did not bring in time counts
    /// until it comes.
    pub missing_here: u64,
    /// About as many bytes, by the mean size of each feed's blocks, which its newest signature proves; 0 for a feed of which none came.
    pub bytes_missing_here: u64,
    /// Blocks that we hold and the remote lacks, as far as it told what it has. What it was sent counts until it acknowledges it, if the session is
    /// observed from its start; otherwise until it is sent.
    pub missing_there: u64,
    /// About as many bytes.
    pub bytes_missing_there: u64,
    /// Feeds that the remote does not take, or takes no more of, though it lacks blocks that are held and served here: see
    /// [`SyncTotals::not_taken`](crate::SyncTotals::not_taken). Those that it never asked for, or never
    /// fetched anything of, keep nobody from being in sync.
    pub not_taken: u64,
    /// Blocks that were requested and did not come yet.
    pub in_flight: u64,
    /// About as many bytes, by the mean size of each feed's blocks; 0 for a feed of which none is known.
    pub bytes_in_flight: u64,
    /// Blocks that the remote asked for and that were not sent yet.
    pub requested: u64,
    /// Whether both sides hold the same blocks, as [`Multifeed::in_sync`](crate::Multifeed::in_sync) defines it.
    pub in_sync: bool,
}

/// How a feed stands, over all sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct FeedSyncState {
    /// Its length in blocks, as far as a signature that came proves it.
    pub len: u64,
    /// Blocks that are held.
    pub downloaded: u64,
    /// The greatest length that a session's remote has told of.
    pub remote_len: u64,
    /// Sessions that sync it.
    pub sessions: u64,
    /// Those of them in which it is in sync.
    pub sessions_in_sync: u64,
    /// Blocks that are in flight on any of them.
    pub in_flight: u64,
    /// What moved since the store was opened, on all sessions.
    pub moved: Moved,
    /// What moved in a second, over the last [`RATE_WINDOW`].
    pub per_second: Moved,
}

/// How a store stands with all its peers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct StoreSyncState {
    /// Sessions that are not over.
    pub sessions: u64,
    /// Those of them that are in sync.
    pub sessions_in_sync: u64,
    /// All of them together: a block that is missing at three remotes counts three times. `moved` counts since the store was opened, sessions
    /// that are over included.
    pub all: SyncState,
}

impl Moved {
    pub(crate) fn received(bytes: u64) -> Self {
        Self { blocks_received: 1, bytes_received: bytes, ..Self::default() }
    }

    pub(crate) fn sent(bytes: u64) -> Self {
        Self { blocks_sent: 1, bytes_sent: bytes, ..Self::default() }
    }

    pub(crate) fn add(&mut self, other: Moved) {
        self.blocks_received += other.blocks_received;
        self.bytes_received += other.bytes_received;
        self.blocks_sent += other.blocks_sent;
        self.bytes_sent += other.bytes_sent;
    }

    fn per(self, time: Duration) -> Self {
        let millis = time.as_millis().max(1);
        let rate = |count: u64| u64::try_from(u128::from(count) * 1000 / millis).unwrap_or(u64::MAX);
        Self {
            blocks_received: rate(self.blocks_received),
            bytes_received: rate(self.bytes_received),
            blocks_sent: rate(self.blocks_sent),
            bytes_sent: rate(self.bytes_sent),
        }
    }
}

/// What moved lately, by the second.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// The slots of the last [`RATE_WINDOW`], each at its number modulo their count.
    slots: [Moved; SLOTS as usize],
    /// The number of the newest slot.
    newest: u64,
    /// When this transfer began: the first move after a window without any.
    since: Duration,
}

impl Meter {
    pub(crate) fn add(&mut self, moved: Moved, now: Duration) {
        if self.is_idle(now) {
            *self = Self { newest: slot(now), since: now, ..Self::default() };
        }
        while self.newest < slot(now) {
            self.newest += 1;
            self.slots[(self.newest % SLOTS) as usize] = Moved::default();
        }
        self.slots[(self.newest % SLOTS) as usize].add(moved);
    }

    pub(crate) fn per_second(&self, now: Duration) -> Moved {
        let mut sum = Moved::default();
        let first = slot(now).saturating_sub(SLOTS - 1);
        for number in (self.newest.saturating_sub(SLOTS - 1)..=self.newest).filter(|number| *number >= first) {
            sum.add(self.slots[(number % SLOTS) as usize]);
        }
        let start = self.since.max(SLOT * u32::try_from(first).unwrap_or(u32::MAX));
        sum.per(now.saturating_sub(start).max(SLOT))
    }

    /// Whether nothing moved within the window.
    pub(crate) fn is_idle(&self, now: Duration) -> bool {
        slot(now).saturating_sub(self.newest) >= SLOTS || self.slots == [Moved::default(); SLOTS as usize]
    }
}

fn slot(now: Duration) -> u64 {
    now.as_secs() / SLOT.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn rates_follow_what_moved_within_the_window() {
        let mut meter = Meter::default();
        assert!(meter.is_idle(at(0)));
        assert_eq!(meter.per_second(at(5000)), Moved::default());
        // 100 blocks of 10 bytes a second for 20 seconds, after a long time of nothing.
        for step in 0..200 {
            for _ in 0..10 {
                meter.add(Moved::received(10), at(1_000_000 + step * 100));
            }
            let now = at(1_000_000 + step * 100 + 99);
            let rate = meter.per_second(now);
            if step >= 9 {
                assert!((95..=115).contains(&rate.blocks_received), "step {step}: {rate:?}");
                assert!((950..=1150).contains(&rate.bytes_received), "step {step}: {rate:?}");
            } else {
                assert_eq!(rate.blocks_received, (step + 1) * 10, "a young transfer is measured over a second");
            }
        }
        // It fades, and is gone after the window.
        let end = 1_020_000;
        let fading: Vec<u64> = (0..11).map(|s| meter.per_second(at(end + s * 1000)).blocks_received).collect();
        assert!(fading.windows(2).all(|pair| pair[0] >= pair[1]) && fading[0] >= 90, "{fading:?}");
        assert_eq!(meter.per_second(at(end + 10_000)), Moved::default());
        assert!(meter.is_idle(at(end + 10_000)) && !meter.is_idle(at(end + 8_000)));
        // What comes after that is a transfer of its own.
        meter.add(Moved::sent(7), at(end + 60_000));
        let rate = meter.per_second(at(end + 60_500));
        assert_eq!((rate.blocks_sent, rate.bytes_sent, rate.blocks_received), (1, 7, 0));
    }

    #[test]
    fn time_that_stands_still_or_leaps_is_no_error() {
        let mut meter = Meter::default();
        for now in [at(0), at(0), Duration::MAX, Duration::MAX, at(5)] {
            meter.add(Moved::sent(u64::from(u32::MAX)), now);
            meter.per_second(now);
            meter.per_second(Duration::MAX);
            meter.per_second(Duration::ZERO);
        }
    }
}
