//! What is announced, looked up and withdrawn, and when; and who was found. No clock, no IO.

use std::collections::BTreeMap;
use std::time::Duration;

use peeroxide_dht::messages::Ipv4Peer;

use super::Key;
use crate::discovery::{Mode, Topic};

/// How long to wait after each round of a topic, and after each further one. Peers that come look for us: only two who come at once need a second
/// look. Nodes forget an announcement after 20 minutes.
const WAITS: [Duration; 5] = [
    Duration::from_secs(5),
    Duration::from_secs(20),
    Duration::from_secs(80),
    Duration::from_secs(320),
    Duration::from_secs(600),
];

/// Peers that are remembered. More are left out until some are gone.
const PEERS: usize = 1024;

/// Relay nodes that are remembered of each peer.
const RELAYS: usize = 6;

/// A peer that is missing in so many lookups in a row is gone. Nodes differ in what they hold.
const MISSING: u8 = 2;

/// What to do now. Only one thing is under way for each topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    Round { topic: Topic, announce: bool, lookup: bool },
    Withdraw(Topic),
}

/// What a lookup changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) found: Vec<Key>,
    pub(super) lost: Vec<Key>,
}

#[derive(Debug, Default)]
pub(super) struct Topics {
    topics: BTreeMap<Topic, Entry>,
    peers: BTreeMap<Key, Peer>,
}

#[derive(Debug)]
struct Entry {
    /// None if it was left.
    mode: Option<Mode>,
    announced: bool,
    busy: bool,
    due: Duration,
    /// When the last round began.
    begun: Duration,
    rounds: usize,
    /// A round did all that it was to do since the topic was joined.
    settled: bool,
}

#[derive(Debug, Default)]
struct Peer {
    relays: Vec<Ipv4Peer>,
    /// In how many lookups in a row it was missing.
    topics: BTreeMap<Topic, u8>,
    /// Dials so far: each begins with another relay, as a dead one takes all of a dial's time.
    dials: usize,
}

impl Topics {
    pub(super) fn join(&mut self, topic: Topic, mode: Mode, now: Duration) {
        let new = Entry { mode: None, announced: false, busy: false, due: now, begun: now, rounds: 0, settled: false };
        let entry = self.topics.entry(topic).or_insert(new);
        (entry.mode, entry.due, entry.rounds, entry.settled) = (Some(mode), now, 0, false);
    }

    pub(super) fn leave(&mut self, topic: &Topic) {
        if let Some(entry) = self.topics.get_mut(topic) {
            entry.mode = None;
            self.forget(topic);
        }
    }

    pub(super) fn leave_all(&mut self) {
        self.topics.values_mut().for_each(|entry| entry.mode = None);
        self.peers.clear();
    }

    fn forget(&mut self, topic: &Topic) {
        self.peers.retain(|_, peer| {
            peer.topics.remove(topic);
            !peer.topics.is_empty()
        });
    }

    /// Nothing is joined, under way or announced.
    pub(super) fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Each topic was announced and looked up since it was joined, and each that was left is withdrawn.
    pub(super) fn is_settled(&self) -> bool {
        self.topics.values().all(|entry| entry.mode.is_some() && entry.settled)
    }

    /// Whether any topic has to be announced.
    pub(super) fn serves(&self) -> bool {
        self.topics.values().any(|entry| entry.mode.is_some_and(Mode::is_server))
    }

    /// All topics are due, as if they had just been joined.
    pub(super) fn hurry(&mut self, now: Duration) {
        self.topics.values_mut().for_each(|entry| (entry.due, entry.rounds) = (now, 0));
    }

    /// Looks again soon for the peers of a topic.
    pub(super) fn look_again(&mut self, key: &Key, now: Duration) {
        let Some(peer) = self.peers.get(key) else { return };
        for topic in peer.topics.keys() {
            if let Some(entry) = self.topics.get_mut(topic) {
                (entry.due, entry.rounds) = (entry.due.min(now.saturating_add(WAITS[0])), 0);
            }
        }
    }

    /// What to do now. Whatever it is, [`withdrawn`](Self::withdrawn) or [`round_over`](Self::round_over) follows.
    pub(super) fn poll(&mut self, now: Duration) -> Vec<Work> {
        self.topics.retain(|_, entry| entry.mode.is_some() || entry.busy || entry.announced);
        let mut work = Vec::new();
        for (topic, entry) in self.topics.iter_mut().filter(|(_, entry)| !entry.busy) {
            let serves = entry.mode.is_some_and(Mode::is_server);
            if entry.announced && !serves {
                entry.busy = true;
                work.push(Work::Withdraw(*topic));
            } else if let Some(mode) = entry.mode.filter(|_| entry.due <= now) {
                (entry.busy, entry.begun) = (true, now);
                entry.announced |= serves;
                work.push(Work::Round { topic: *topic, announce: serves, lookup: mode.is_client() });
            }
        }
        work
    }

    /// When something is due, if nothing happens before.
    pub(super) fn due(&self) -> Option<Duration> {
        self.topics.values().filter(|entry| !entry.busy && entry.mode.is_some()).map(|entry| entry.due).min()
    }

    pub(super) fn withdrawn(&mut self, topic: &Topic) {
        if let Some(entry) = self.topics.get_mut(topic) {
            (entry.busy, entry.announced) = (false, false);
        }
    }

    /// A round is over, and did all that it was to do, or not. `found` is whom its lookup named, if there was one; each peer is named several times.
    pub(super) fn round_over(
        &mut self,
        topic: Topic,
        done: bool,
        found: Option<Vec<(Key, Vec<Ipv4Peer>)>>,
        now: Duration,
    ) -> Changes {
        let Some(entry) = self.topics.get_mut(&topic) else { return Changes::default() };
        entry.busy = false;
        // One that was joined anew meanwhile is due already.
        if entry.due <= entry.begun {
            entry.settled |= done;
            let rounds = if done { entry.rounds } else { 0 };
            let wait = WAITS.get(rounds).or(WAITS.last()).copied().unwrap_or_default();
            (entry.due, entry.rounds) = (now.saturating_add(wait), if done { rounds + 1 } else { 0 });
        }
        match found {
            Some(found) if entry.mode.is_some_and(Mode::is_client) => self.take_found(topic, found),
            _ => Changes::default(),
        }
    }

    fn take_found(&mut self, topic: Topic, found: Vec<(Key, Vec<Ipv4Peer>)>) -> Changes {
        let mut changes = Changes::default();
        for peer in self.peers.values_mut() {
            peer.topics.entry(topic).and_modify(|missing| *missing += 1);
        }
        for (key, relays) in found {
            if !self.peers.contains_key(&key) && self.peers.len() >= PEERS {
                continue;
            }
            let peer = self.peers.entry(key).or_default();
            if peer.topics.insert(topic, 0) != Some(0) {
                // The first that names it in this lookup: its old relays no longer count.
                peer.relays.clear();
                changes.found.push(key);
            }
            for relay in relays {
                if peer.relays.len() < RELAYS && !peer.relays.contains(&relay) {
                    peer.relays.push(relay);
                }
            }
        }
        self.peers.retain(|key, peer| {
            if peer.topics.get(&topic).is_some_and(|missing| *missing >= MISSING) {
                peer.topics.remove(&topic);
                changes.lost.push(*key);
            }
            !peer.topics.is_empty()
        });
        changes
    }

    /// The relay nodes for a dial to a peer, the best one first.
    pub(super) fn relays(&mut self, key: &Key) -> Vec<Ipv4Peer> {
        let Some(peer) = self.peers.get_mut(key) else { return Vec::new() };
        let mut relays = peer.relays.clone();
        if !relays.is_empty() {
            let count = relays.len();
            relays.rotate_left(peer.dials % count);
            peer.dials = peer.dials.wrapping_add(1);
        }
        relays
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn topic(n: u8) -> Topic {
        Topic::from([n; 32])
    }

    fn relay(port: u16) -> Ipv4Peer {
        Ipv4Peer { host: "192.0.2.1".to_owned(), port }
    }

    fn round(topic: Topic, announce: bool, lookup: bool) -> Work {
        Work::Round { topic, announce, lookup }
    }

    #[test]
    fn a_topic_is_announced_again_and_withdrawn_once() {
        let mut topics = Topics::default();
        topics.join(topic(1), Mode::Both, Duration::ZERO);
        assert_eq!(topics.poll(Duration::ZERO), [round(topic(1), true, true)]);
        assert!(topics.poll(Duration::ZERO).is_empty(), "one thing at a time");
        let mut now = Duration::ZERO;
        let mut waits = Vec::new();
        for _ in 0..7 {
            topics.round_over(topic(1), true, Some(Vec::new()), now);
            let due = topics.due().unwrap();
            waits.push((due - now).as_secs());
            assert!(topics.poll(due - SECOND).is_empty());
            now = due;
            assert_eq!(topics.poll(now), [round(topic(1), true, true)]);
        }
        assert_eq!(waits, [5, 20, 80, 320, 600, 600, 600]);
        // Left while a round is under way: it is withdrawn after that, and then forgotten.
        topics.leave(&topic(1));
        assert!(topics.poll(now).is_empty() && !topics.is_empty());
        topics.round_over(topic(1), true, Some(vec![([7; 32], vec![])]), now);
        assert!(topics.peers.is_empty());
        assert_eq!(topics.poll(now), [Work::Withdraw(topic(1))]);
        topics.withdrawn(&topic(1));
        assert!(topics.poll(now).is_empty() && topics.is_empty());
    }

    #[test]
    fn a_topic_that_is_joined_again_meanwhile_is_announced_again() {
        let mut topics = Topics::default();
        topics.join(topic(1), Mode::Both, Duration::ZERO);
        topics.poll(Duration::ZERO);
        topics.round_over(topic(1), true, None, Duration::ZERO);
        topics.leave(&topic(1));
        assert_eq!(topics.poll(SECOND), [Work::Withdraw(topic(1))]);
        topics.join(topic(1), Mode::Both, SECOND);
        assert!(topics.poll(SECOND).is_empty());
        topics.withdrawn(&topic(1));
        assert_eq!(topics.poll(SECOND), [round(topic(1), true, true)]);
        assert!(!topics.is_settled());
        // From both to client: what was announced is withdrawn, and then it looks on.
        topics.round_over(topic(1), true, None, SECOND);
        assert!(topics.is_settled());
        topics.join(topic(1), Mode::Client, SECOND);
        assert_eq!(topics.poll(SECOND), [Work::Withdraw(topic(1))]);
        topics.withdrawn(&topic(1));
        assert_eq!(topics.poll(SECOND), [round(topic(1), false, true)]);
        assert!(!topics.serves());
    }

    #[test]
    fn a_round_that_fails_is_repeated_soon() {
        let mut topics = Topics::default();
        topics.join(topic(1), Mode::Server, Duration::ZERO);
        for n in 0..3 {
            let now = n * 5 * SECOND;
            assert_eq!(topics.poll(now), [round(topic(1), true, false)]);
            topics.round_over(topic(1), false, None, now);
            assert!(!topics.is_settled());
            assert_eq!(topics.due(), Some(now + 5 * SECOND));
        }
    }

    #[test]
    fn who_is_found_is_told_once_a_lookup_and_lost_after_two_without_it() {
        let mut topics = Topics::default();
        topics.join(topic(1), Mode::Client, Duration::ZERO);
        let mut look = |found: &[(u8, u16)]| {
            let now = topics.due().unwrap();
            topics.poll(now);
            let found = found.iter().map(|(key, port)| ([*key; 32], vec![relay(*port)])).collect();
            let changes = topics.round_over(topic(1), true, Some(found), now);
            (changes, topics.relays(&[7; 32]).len())
        };
        let both = Changes { found: vec![[7; 32], [8; 32]], lost: vec![] };
        assert_eq!(look(&[(7, 1), (8, 1), (7, 2), (7, 1)]), (both, 2));
        // Each lookup reports it: a peer that was given up is tried again.
        let only = |key: u8| Changes { found: vec![[key; 32]], lost: vec![] };
        assert_eq!(look(&[(8, 1)]), (only(8), 2));
        assert_eq!(look(&[(7, 3), (8, 1)]), (Changes { found: vec![[7; 32], [8; 32]], lost: vec![] }, 1));
        look(&[]);
        assert_eq!(look(&[]), (Changes { found: vec![], lost: vec![[7; 32], [8; 32]] }, 0));
    }

    #[test]
    fn answers_without_end_fill_no_memory() {
        let mut topics = Topics::default();
        topics.join(topic(1), Mode::Client, Duration::ZERO);
        topics.poll(Duration::ZERO);
        let key = |n: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&n.to_le_bytes());
            key
        };
        let relays: Vec<_> = (1..100).map(relay).collect();
        let found = (0..5000).map(|n| (key(n), relays.clone())).collect();
        assert_eq!(topics.round_over(topic(1), true, Some(found), Duration::ZERO).found.len(), PEERS);
        assert_eq!(topics.relays(&key(0)).len(), RELAYS);
    }
}
