//! How many lines a listener writes about connections, so that nobody can fill a log.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use multifeed_tokio::Network;

/// Lines about a network's connections that have not proven the root key: at once, and then one in so long.
const STRANGERS: Rate = Rate { burst: 10, each: Duration::from_secs(6) };

/// Lines about its sessions. A busy NAT writes fewer.
const PEERS: Rate = Rate { burst: 1000, each: Duration::from_millis(100) };

/// Lines about connections of all networks together that have not proven the root key.
const ALL_STRANGERS: Rate = Rate { burst: 100, each: Duration::from_millis(600) };

/// Lines about all sessions together.
const ALL_PEERS: Rate = Rate { burst: 10_000, each: Duration::from_millis(10) };

/// Networks that are counted each by itself. All others count as one.
const NETWORKS: usize = 1024;

/// How often to sum up what was left out.
pub(crate) const SUM_UP_EVERY: Duration = Duration::from_secs(60);

/// Networks that a sum names, those with most lines left out.
const NAMED: usize = 10;

#[derive(Clone, Copy)]
struct Rate {
    burst: u32,
    each: Duration,
}

/// Counts the lines about each network's connections. Clones count together.
#[derive(Clone, Default)]
pub(crate) struct LineLimit(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    of: HashMap<Network, Counts>,
    /// Of networks past [`NETWORKS`].
    crowd: Counts,
    /// Of all networks together.
    all: Counts,
}

#[derive(Default)]
struct Counts {
    strangers: Bucket,
    peers: Bucket,
    left_out: u64,
}

/// What was written of late, as time that has to pass until it counts no more.
#[derive(Default)]
struct Bucket {
    until: Duration,
}

impl LineLimit {
    /// Whether a line about a connection from `address` may be written at the time `now`. If not, it is counted.
    pub(crate) fn allows(&self, address: IpAddr, proven: bool, now: Duration) -> bool {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = &mut *lines;
        let network = Network::from(address);
        let is_known = lines.of.contains_key(&network) || lines.of.len() < NETWORKS;
        let counts = if is_known { lines.of.entry(network).or_default() } else { &mut lines.crowd };
        let allowed = if proven {
            counts.peers.has_room(PEERS, now) && lines.all.peers.take(ALL_PEERS, now) && counts.peers.take(PEERS, now)
        } else {
            counts.strangers.has_room(STRANGERS, now)
                && lines.all.strangers.take(ALL_STRANGERS, now)
                && counts.strangers.take(STRANGERS, now)
        };
        counts.left_out += u64::from(!allowed);
        allowed
    }

    /// Says how many lines were left out since the last call, if any were, and about whom. Networks that are quiet are forgotten.
    pub(crate) fn sum_up(&self, now: Duration) -> Option<String> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let crowd = std::mem::take(&mut lines.crowd.left_out);
        let mut left_out: Vec<(String, u64)> = Vec::new();
        lines.of.retain(|network, counts| {
            let count = std::mem::take(&mut counts.left_out);
            if count > 0 {
                left_out.push((network.to_string(), count));
            }
            counts.strangers.until > now || counts.peers.until > now
        });
        let all = crowd + left_out.iter().map(|(_, count)| count).sum::<u64>();
        if all == 0 {
            return None;
        }
        left_out.sort_by(|(a, more), (b, less)| less.cmp(more).then_with(|| a.cmp(b)));
        let mut named: Vec<String> =
            left_out.iter().take(NAMED).map(|(network, count)| format!("{network} ({count})")).collect();
        let others = crowd + left_out.iter().skip(NAMED).map(|(_, count)| count).sum::<u64>();
        if others > 0 {
            named.push(format!("others ({others})"));
        }
        Some(format!("{all} lines about connections were left out: {}", named.join(", ")))
    }
}

impl Bucket {
    fn has_room(&self, rate: Rate, now: Duration) -> bool {
        self.until.max(now).saturating_add(rate.each) <= now.saturating_add(rate.each.saturating_mul(rate.burst))
    }

    fn take(&mut self, rate: Rate, now: Duration) -> bool {
        let allowed = self.has_room(rate, now);
        if allowed {
            self.until = self.until.max(now).saturating_add(rate.each);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + n).to_be_bytes())
    }

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn strangers_fill_no_log_and_peers_are_heard() {
        let lines = LineLimit::default();
        let written = (0..10_000).filter(|_| lines.allows(ip(1), false, secs(0))).count();
        assert_eq!(written, 10);
        assert!(lines.allows(ip(2), false, secs(0)), "another address");
        assert!(lines.allows(ip(1), true, secs(0)), "a peer at the same address");
        assert_eq!((5..65).filter(|second| lines.allows(ip(1), false, secs(*second))).count(), 10);
        assert_eq!(lines.sum_up(secs(65)).unwrap(), "10040 lines about connections were left out: 10.0.0.1 (10040)");
        assert_eq!(lines.sum_up(secs(66)), None);
        // Three lines each of three hundred peers at once.
        assert_eq!((0..900).filter(|_| lines.allows(ip(3), true, secs(70))).count(), 900);
        assert_eq!((0..900).filter(|_| lines.allows(ip(3), true, secs(70))).count(), 100);
    }

    #[test]
    fn many_addresses_are_one_crowd_and_quiet_ones_are_forgotten() {
        let lines = LineLimit::default();
        let written = (0..100_000).filter(|n| lines.allows(ip(*n), false, secs(0))).count();
        assert_eq!(written, 100, "a bound over all");
        let sum = lines.sum_up(secs(1)).unwrap();
        assert!(sum.starts_with("99900 lines about connections were left out: 10.0.0.100 (1), "), "{sum}");
        assert!(sum.ends_with("others (99890)"), "{sum}");
        assert_eq!(lines.sum_up(secs(100)), None);
        assert!(lines.0.lock().unwrap().of.is_empty());
        // Two hundred addresses, for a minute.
        let minute = (0..60).map(|second| (0..200).filter(|n| lines.allows(ip(*n), false, secs(100 + second))).count());
        let written: usize = minute.sum();
        assert!((190..=200).contains(&written), "{written} lines in a minute");
        let _ = lines.sum_up(secs(1000));
        for n in 0..12 {
            (0..11 + n).for_each(|_| _ = lines.allows(ip(n), false, secs(2000)));
        }
        // Ten each for ten of them, and for two none.
        let sum = lines.sum_up(secs(2001)).unwrap();
        assert!(sum.starts_with("98 lines") && sum.contains(": 10.0.0.11 (22), "), "{sum}");
        assert!(sum.ends_with("others (3)"), "{sum}");
    }
}
