//! Which connections may stay, if strangers can connect.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::lock;

/// How many connections a listener keeps, and from whom.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdmissionLimits {
    /// Connections that have proven the root key. Default 1,024.
    pub sessions: usize,
    /// Connections that have not, which anybody can make. Default 128.
    pub unproven: usize,
    /// Connections of both kinds from one [`Network`]. Default 256, so that many peers behind one NAT have room, and one attacker leaves
    /// most places to others.
    pub per_network: usize,
    /// How long a connection that has proven nothing keeps its place, however many others come. Default 250 ms.
    pub unproven_time: Duration,
    /// How long a session has to be idle before it gives way. Default 10 s.
    pub idle_time: Duration,
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        Self {
            sessions: 1024,
            unproven: 128,
            per_network: 256,
            unproven_time: Duration::from_millis(250),
            idle_time: Duration::from_secs(10),
        }
    }
}

/// Who counts as one: an IPv4 address, or the /64 of an IPv6 address, since a host has all of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(IpAddr);

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
            address => address,
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(address) => write!(f, "{address}/64"),
        }
    }
}

/// Why a connection gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Full {
    /// All places for connections that have proven nothing are taken, none of them for long: one is free at this time at the latest.
    #[error("too many connections at once that have not proven the root key")]
    Until(Duration),
    /// Its network has as many connections as it may, and all of them are busy.
    #[error("too many connections from this address")]
    Network,
    /// There are as many sessions as there may be, and all of them are busy.
    #[error("too many sessions")]
    Sessions,
}

/// Hands out places to connections, and says which one gives way.
///
/// A listener asks for a place, an [`Admitted`], for each connection that it accepts, and drops the connection when that is
/// [lost](Admitted::lost). Two kinds of places are apart, so that strangers take none from peers:
///
/// - While a connection has not [proven](Admitted::prove) the root key, it shares [`AdmissionLimits::unproven`] places. If all are taken, the
///   oldest gives way: of the network that has most of them.
/// - Sessions share [`AdmissionLimits::sessions`] places. If all are taken, the one that has been idle for longest gives way.
/// - A network that has [`AdmissionLimits::per_network`] connections makes room among its own.
///
/// It reads no clock: all times are the caller's. Clones are the same places.
///
/// ```
/// use std::time::Duration;
/// use multifeed_driver::{AdmissionLimits, Admission};
///
/// let places = Admission::new(AdmissionLimits::default());
/// let place = places.enter([192, 0, 2, 7].into(), Duration::ZERO)?; // accepted
/// place.prove(Duration::from_secs(1))?;                             // SyncEvent::Proven
/// place.touch(Duration::from_secs(2));                              // something moved
/// assert!(!place.is_lost());
/// # Ok::<_, multifeed_driver::Full>(())
/// ```
#[derive(Debug, Clone)]
pub struct Admission(Arc<Mutex<Table>>);

#[derive(Debug)]
struct Table {
    limits: AdmissionLimits,
    /// In the order in which they came.
    taken: BTreeMap<u64, Taken>,
    /// Those that have to go, and did not yet.
    lost: BTreeMap<u64, Option<Waker>>,
    next: u64,
}

#[derive(Debug)]
struct Taken {
    network: Network,
    proven: bool,
    /// When it came, or was last busy.
    since: Duration,
    waker: Option<Waker>,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub struct Admitted {
    admission: Admission,
    id: u64,
}

impl Admission {
    /// Makes the places of a listener.
    pub fn new(limits: AdmissionLimits) -> Self {
        Self(Arc::new(Mutex::new(Table { limits, taken: BTreeMap::new(), lost: BTreeMap::new(), next: 0 })))
    }

    /// Gives a new connection a place, for which another one may have to give way.
    ///
    /// # Errors
    /// [`Full::Until`] a time at which to ask again, or [`Full::Network`].
    pub fn enter(&self, address: IpAddr, now: Duration) -> Result<Admitted, Full> {
        let network = Network::from(address);
        let (id, waker) = {
            let mut table = lock(&self.0);
            let mut waker = None;
            if let Some(least) = table.least_of_full(network, now)? {
                waker = table.lose(least);
            }
            if waker.is_none() && table.count(|taken| !taken.proven) >= table.limits.unproven {
                let oldest = table.oldest_stranger();
                let unproven_time = table.limits.unproven_time;
                let (oldest, since) = oldest.ok_or(Full::Until(now.saturating_add(unproven_time)))?;
                let until = since.saturating_add(unproven_time);
                if until > now {
                    return Err(Full::Until(until));
                }
                waker = table.lose(oldest);
            }
            table.next += 1;
            let id = table.next;
            table.taken.insert(id, Taken { network, proven: false, since: now, waker: None });
            (id, waker)
        };
        waker.flatten().into_iter().for_each(Waker::wake);
        Ok(Admitted { admission: self.clone(), id })
    }

    /// Makes one connection give way, since something else has run out, such as file handles. That is the oldest that has proven nothing, or else
    /// the session that has been idle for longest. Returns false if all are busy.
    pub fn make_room(&self, now: Duration) -> bool {
        let waker = {
            let mut table = lock(&self.0);
            let Some(least) = table.least(now, |_| true) else { return false };
            table.lose(least)
        };
        waker.flatten().into_iter().for_each(Waker::wake);
        true
    }

    /// Returns how many connections have proven the root key.
    pub fn sessions(&self) -> usize {
        lock(&self.0).count(|taken| taken.proven)
    }

    /// Returns how many connections have not.
    pub fn unproven(&self) -> usize {
        lock(&self.0).count(|taken| !taken.proven)
    }
}

impl Default for Admission {
    fn default() -> Self {
        Self::new(AdmissionLimits::default())
    }
}

impl Table {
    fn count(&self, counts: impl Fn(&Taken) -> bool) -> usize {
        self.taken.values().filter(|taken| counts(taken)).count()
    }

    /// The oldest that has proven nothing, or else the session that has been idle for longest, of those that have had their time.
    fn least(&self, now: Duration, counts: impl Fn(&Taken) -> bool) -> Option<u64> {
        let time = |taken: &Taken| if taken.proven { self.limits.idle_time } else { self.limits.unproven_time };
        let may = |taken: &Taken| counts(taken) && taken.since.saturating_add(time(taken)) <= now;
        let those = self.taken.iter().filter(|(_, taken)| may(taken));
        those.min_by_key(|(_, taken)| (taken.proven, taken.since)).map(|(id, _)| *id)
    }

    /// If a network has as many connections as it may: the one of them that gives way to another.
    fn least_of_full(&self, network: Network, now: Duration) -> Result<Option<u64>, Full> {
        if self.count(|taken| taken.network == network) < self.limits.per_network {
            return Ok(None);
        }
        self.least(now, |taken| taken.network == network).map(Some).ok_or(Full::Network)
    }

    /// The oldest that has proven nothing, of the network that has most of them.
    fn oldest_stranger(&self) -> Option<(u64, Duration)> {
        let mut of = BTreeMap::<Network, usize>::new();
        let strangers = || self.taken.iter().filter(|(_, taken)| !taken.proven);
        strangers().for_each(|(_, taken)| *of.entry(taken.network).or_default() += 1);
        let most = of.values().copied().max()?;
        let of_most = strangers().filter(|(_, taken)| of.get(&taken.network) == Some(&most));
        of_most.min_by_key(|(id, taken)| (taken.since, **id)).map(|(id, taken)| (*id, taken.since))
    }

    /// Takes a place away; whom to wake.
    fn lose(&mut self, id: u64) -> Option<Option<Waker>> {
        let taken = self.taken.remove(&id)?;
        self.lost.insert(id, None);
        Some(taken.waker)
    }
}

impl Admitted {
    /// Notes that the connection has proven the root key: it is a session now, for which an idle one may have to give way.
    ///
    /// # Errors
    /// [`Full::Sessions`], and the place is lost.
    pub fn prove(&self, now: Duration) -> Result<(), Full> {
        let waker = {
            let mut table = lock(&self.admission.0);
            let is_new = table.taken.get(&self.id).is_some_and(|taken| !taken.proven);
            if !is_new {
                return if table.taken.contains_key(&self.id) { Ok(()) } else { Err(Full::Sessions) };
            }
            let mut waker = None;
            if table.count(|taken| taken.proven) >= table.limits.sessions {
                let Some(least) = table.least(now, |taken| taken.proven) else {
                    table.lose(self.id);
                    return Err(Full::Sessions);
                };
                waker = table.lose(least);
            }
            if let Some(taken) = table.taken.get_mut(&self.id) {
                (taken.proven, taken.since) = (true, now);
            }
            waker
        };
        waker.flatten().into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Notes that the session did something: it is not idle. What a connection does that has proven nothing does not count.
    pub fn touch(&self, now: Duration) {
        if let Some(taken) = lock(&self.admission.0).taken.get_mut(&self.id).filter(|taken| taken.proven) {
            taken.since = taken.since.max(now);
        }
    }

    /// Returns whether the connection has to give way.
    pub fn is_lost(&self) -> bool {
        lock(&self.admission.0).lost.contains_key(&self.id)
    }

    /// Waits until the connection has to give way.
    pub async fn lost(&self) {
        poll_fn(|cx| {
            let mut table = lock(&self.admission.0);
            match table.taken.get_mut(&self.id) {
                Some(taken) => {
                    taken.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
                None => Poll::Ready(()),
            }
        })
        .await;
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut table = lock(&self.admission.0);
        table.taken.remove(&self.id);
        table.lost.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn ip(n: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + n).to_be_bytes())
    }

    fn places(sessions: usize, unproven: usize, per_network: usize) -> Admission {
        Admission::new(AdmissionLimits { sessions, unproven, per_network, ..AdmissionLimits::default() })
    }

    #[test]
    fn the_oldest_stranger_gives_way_and_sessions_do_not() {
        let places = Admission::default();
        let session = places.enter(ip(1), secs(0)).unwrap();
        session.prove(secs(0)).unwrap();
        let strangers: Vec<_> = (0..1024).map(|n| places.enter(ip(n), secs(1 + u64::from(n))).unwrap()).collect();
        assert_eq!((places.sessions(), places.unproven()), (1, 128));
        let lost = strangers.iter().filter(|place| place.is_lost()).count();
        assert_eq!(lost, 1024 - 128);
        assert!(strangers.iter().take(lost).all(Admitted::is_lost), "the oldest");
        assert!(!session.is_lost());
        let peer = places.enter(ip(7), secs(2000)).unwrap();
        peer.prove(secs(2000)).unwrap();
        drop(strangers);
        assert_eq!((places.sessions(), places.unproven()), (2, 0));
    }

    #[test]
    fn strangers_of_the_network_with_most_of_them_go_first() {
        let places = Admission::default();
        let honest = places.enter(ip(1), secs(0)).unwrap();
        let flood: Vec<_> = (0..1000).map(|n| places.enter(ip(2), secs(1 + n)).unwrap()).collect();
        assert!(!honest.is_lost(), "it is the oldest of all");
        assert_eq!(flood.iter().filter(|place| !place.is_lost()).count(), 127);
    }

    #[test]
    fn a_connection_has_a_moment_to_prove_itself() {
        let places = places(10, 4, 10);
        let first: Vec<_> = (0..4).map(|n| places.enter(ip(n), Duration::from_millis(100)).unwrap()).collect();
        let full = places.enter(ip(9), Duration::from_millis(200)).unwrap_err();
        assert_eq!(full, Full::Until(Duration::from_millis(350)));
        let late = places.enter(ip(9), Duration::from_millis(350)).unwrap();
        assert!(first[0].is_lost() && !first[1].is_lost() && !late.is_lost());
        drop(first);
        assert_eq!(places.unproven(), 1);
    }

    #[test]
    fn the_most_idle_session_gives_way_when_all_are_taken() {
        let places = places(3, 4, 10);
        let enter = |n, now| {
            let place = places.enter(ip(n), now).unwrap();
            place.prove(now).map(|()| place)
        };
        let all: Vec<_> = (0..3).map(|n| enter(n, secs(u64::from(n))).unwrap()).collect();
        all[0].touch(secs(9));
        let next = enter(4, secs(20)).unwrap();
        assert_eq!(all.iter().map(Admitted::is_lost).collect::<Vec<_>>(), [false, true, false]);
        // No connection that does something is driven out.
        for place in [&all[0], &all[2], &next] {
            place.touch(secs(29));
        }
        assert_eq!(enter(5, secs(30)).unwrap_err(), Full::Sessions);
        assert_eq!((places.sessions(), places.unproven()), (3, 0));
        assert!(enter(5, secs(39)).is_ok());
    }

    #[test]
    fn a_network_makes_room_among_its_own() {
        let places = places(100, 100, 4);
        let other = places.enter(ip(1), secs(0)).unwrap();
        let sessions: Vec<_> = (0..3).map(|n| places.enter(ip(2), secs(n)).unwrap()).collect();
        sessions.iter().for_each(|place| place.prove(secs(5)).unwrap());
        let stranger = places.enter(ip(2), secs(6)).unwrap();
        let next = places.enter(ip(2), secs(7)).unwrap();
        assert!(stranger.is_lost() && !next.is_lost() && !other.is_lost());
        next.prove(secs(7)).unwrap();
        assert_eq!(places.enter(ip(2), secs(8)).unwrap_err(), Full::Network);
        sessions[0].touch(secs(14));
        let last = places.enter(ip(2), secs(15)).unwrap();
        assert_eq!(sessions.iter().map(Admitted::is_lost).collect::<Vec<_>>(), [false, true, false]);
        assert!(!last.is_lost() && !other.is_lost());
    }

    #[test]
    fn a_prefix_of_64_bits_is_one_network() {
        let of = |text: &str| Network::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_eq!(of("2001:db8:1:2::1").to_string(), "2001:db8:1:2::/64");
        assert_eq!(of("192.0.2.1").to_string(), "192.0.2.1");
    }

    #[test]
    fn something_else_that_runs_out_makes_room_too() {
        let places = Admission::default();
        assert!(!places.make_room(secs(0)));
        let session = places.enter(ip(1), secs(0)).unwrap();
        session.prove(secs(0)).unwrap();
        let stranger = places.enter(ip(1), secs(0)).unwrap();
        assert!(places.make_room(secs(20)) && stranger.is_lost() && !session.is_lost());
        assert!(places.make_room(secs(20)) && session.is_lost());
        assert!(!places.make_room(secs(20)));
        assert_eq!(session.prove(secs(20)), Err(Full::Sessions));
    }

    #[test]
    fn whoever_waits_for_it_hears_that_a_place_is_lost() {
        let places = places(1, 1, 10);
        let first = places.enter(ip(1), secs(0)).unwrap();
        let cx = &mut std::task::Context::from_waker(Waker::noop());
        let mut lost = std::pin::pin!(first.lost());
        assert!(lost.as_mut().poll(cx).is_pending());
        let _second = places.enter(ip(2), secs(1)).unwrap();
        assert!(lost.as_mut().poll(cx).is_ready());
    }
}
