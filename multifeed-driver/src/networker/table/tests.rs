//! The decisions of a networker: tables, and a random test with several of them over links with a delay.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::mismatch::MISMATCHES_LOGGED;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn root(n: u8) -> FeedKey {
    FeedKey::new([n; 32])
}

fn table(own: u8) -> Table {
    with(own, NetworkerLimits::default())
}

fn with(own: u8, limits: NetworkerLimits) -> Table {
    let mut table = Table::new(PeerKey::new([own; 32]), limits, BackoffOptions::default());
    assert!(table.join(root(1), true, secs(0)));
    table
}

/// A connection to a peer, as far as this side lets it.
fn meet(table: &mut Table, initiator: bool, peer: u8, now: Duration) -> ConnectionId {
    let id = table.enter(initiator, None, now).unwrap();
    table.connected(id, PeerKey::new([peer; 32]), true, now);
    id
}

fn reason(table: &Table, id: ConnectionId) -> Option<EndReason> {
    match table.connections.get(&id)?.stage {
        Stage::Ending(reason) => Some(reason),
        _ => None,
    }
}

fn state(table: &Table, id: ConnectionId, root: FeedKey) -> Option<RootState> {
    table.connections.get(&id)?.roots.get(&root).map(|on| on.state)
}

#[test]
fn of_two_connections_to_a_peer_the_larger_key_decides_which_stays() {
    use EndReason::Merged;
    // Who we are (the peer is 5), who began the older and the newer one, whether bytes moved on the older; who is ended, and when.
    let table_of_cases = [
        (9, true, true, false, "older", 0),
        (9, true, false, false, "newer", 0),
        (9, false, true, false, "older", 0),
        (9, false, false, false, "older", 0),
        (9, true, false, true, "older", 0),
        (9, false, true, true, "older", 0),
        // The peer decides; this side does if that takes too long, as the peer would have.
        (1, true, true, false, "older", 5),
        (1, true, false, false, "older", 5),
        (1, false, true, false, "newer", 5),
        (1, false, true, true, "older", 5),
        (1, false, false, true, "older", 5),
    ];
    for case in table_of_cases {
        let (own, older_is_ours, newer_is_ours, moved, ended, after) = case;
        let mut table = table(own);
        let older = meet(&mut table, older_is_ours, 5, secs(1));
        if moved {
            table.ready(older, root(1), secs(2));
        }
        let newer = meet(&mut table, newer_is_ours, 5, secs(10));
        if after > 0 {
            assert_eq!((reason(&table, older), reason(&table, newer)), (None, None), "{case:?}");
            assert_eq!(table.due(newer), Some(secs(15)), "{case:?}");
            assert_eq!(table.take_orders(newer), [Order::Listen], "nothing is said on one that waits: {case:?}");
            // What moves on the older one meanwhile changes nothing.
            table.ready(older, root(1), secs(12));
            table.expire(newer, secs(15));
        }
        let (lost, stays) = if ended == "older" { (older, newer) } else { (newer, older) };
        assert_eq!((reason(&table, lost), reason(&table, stays)), (Some(Merged), None), "{case:?}");
        let orders = table.take_orders(stays);
        assert_eq!(orders, [Order::Open(root(1)), Order::Admit], "{case:?}");
        assert_eq!(table.open().map(|view| view.id).collect::<Vec<_>>(), [stays]);
        // What was under way on the one that ends is not lost: the other one is up before it is gone.
        assert_eq!(table.ended(lost, secs(16)).unwrap().reason, Some(Merged));
        assert_eq!(table.open().count(), 1);
    }
}

#[test]
fn one_that_waits_takes_the_place_of_one_that_ends_and_few_wait() {
    let limits = NetworkerLimits { per_peer: 2, ..NetworkerLimits::default() };
    let mut table = with(1, limits);
    let older = meet(&mut table, true, 5, secs(1));
    let newer = meet(&mut table, false, 5, secs(2));
    let third = meet(&mut table, false, 5, secs(2));
    assert_eq!(reason(&table, third), Some(EndReason::TooManyToPeer));
    assert_eq!(table.take_orders(third), [Order::Refuse]);
    // The remote ended the older one.
    let ended = table.ended(older, secs(3)).unwrap();
    assert_eq!((ended.reason, ended.in_sync), (None, false));
    assert_eq!(table.take_orders(newer), [Order::Listen, Order::Open(root(1)), Order::Admit]);
    table.ended(third, secs(3)).unwrap();
    table.ended(newer, secs(3)).unwrap();
    assert!(table.peers.is_empty() && table.connections.is_empty());
}

#[test]
fn who_is_not_wanted_is_told_nothing() {
    let mut table = table(5);
    assert!(table.ban(PeerKey::new([7; 32]), secs(0)));
    for (peer, accepted, expected) in [
        (5, true, Some(EndReason::OwnKey)),
        (7, true, Some(EndReason::Banned)),
        (8, false, Some(EndReason::NotAccepted)),
        (8, true, None),
    ] {
        let id = table.enter(false, None, secs(1)).unwrap();
        table.connected(id, PeerKey::new([peer; 32]), accepted, secs(1));
        assert_eq!(reason(&table, id), expected);
        let orders = table.take_orders(id);
        assert_eq!(orders.contains(&Order::Refuse), expected.is_some());
        assert_eq!(orders.contains(&Order::Open(root(1))), expected.is_none());
    }
    // A ban ends what is there, and lasts until it is lifted.
    assert!(table.ban(PeerKey::new([8; 32]), secs(2)));
    assert_eq!(table.open().count(), 0);
    assert_eq!(table.banned(), [PeerKey::new([7; 32]), PeerKey::new([8; 32])]);
    assert!(table.unban(&PeerKey::new([8; 32])) && !table.unban(&PeerKey::new([8; 32])));
    let again = meet(&mut table, false, 8, secs(3));
    assert_eq!(reason(&table, again), None);
    let limits = NetworkerLimits { banned: 1, ..NetworkerLimits::default() };
    let mut table = with(5, limits);
    assert!(
        table.ban(PeerKey::new([1; 32]), secs(0))
            && table.ban(PeerKey::new([1; 32]), secs(0))
            && !table.ban(PeerKey::new([2; 32]), secs(0))
    );
}

#[test]
fn strangers_share_their_places_and_peers_theirs() {
    let mut limits = NetworkerLimits::default();
    (limits.connections, limits.handshakes) = (2, 2);
    let mut table = with(5, limits);
    let first = table.enter(false, None, secs(1)).unwrap();
    let second = table.enter(false, None, secs(2)).unwrap();
    assert_eq!(table.enter(false, None, secs(1)), Err(NotTaken::Full), "each has its moment");
    let third = table.enter(false, None, secs(3)).unwrap();
    assert_eq!((reason(&table, first), reason(&table, second)), (Some(EndReason::GaveWay), None));
    table.ended(first, secs(3));
    for (id, peer) in [(second, 1), (third, 2)] {
        table.connected(id, PeerKey::new([peer; 32]), true, secs(3));
        table.ready(id, root(1), secs(3));
    }
    // A third that proves itself finds no place, as both carry a root key; until one of them does not.
    let fourth = meet(&mut table, false, 3, secs(4));
    table.ready(fourth, root(1), secs(4));
    assert_eq!(reason(&table, fourth), Some(EndReason::GaveWay));
    table.ended(fourth, secs(4));
    assert!(table.enter(true, Some(DialId(0)), secs(4)).is_err());
    table.over(second, root(1), true, secs(5));
    let fifth = meet(&mut table, false, 4, secs(6));
    table.ready(fifth, root(1), secs(6));
    assert_eq!((reason(&table, fifth), reason(&table, second)), (None, Some(EndReason::GaveWay)));
    // Nothing shared: it goes by itself.
    let idle = meet(&mut table, false, 6, secs(7));
    assert_eq!(table.due(idle), Some(secs(37)));
    table.expire(idle, secs(37));
    assert_eq!(reason(&table, idle), Some(EndReason::NothingShared));
}

#[test]
fn root_keys_come_and_go_on_a_connection() {
    let mut table = table(5);
    let id = meet(&mut table, true, 1, secs(1));
    assert_eq!(table.take_orders(id), [Order::Open(root(1)), Order::Admit]);
    // One joined late starts at once.
    assert!(table.join(root(2), true, secs(2)) && !table.join(root(2), true, secs(2)));
    assert_eq!(table.take_orders(id), [Order::Open(root(2))]);
    table.ready(id, root(1), secs(2));
    // The remote does not have the second one: the first goes on.
    table.over(id, root(2), false, secs(22));
    assert_eq!(state(&table, id, root(1)), Some(RootState::Ready));
    // It has it later.
    table.discovered(id, root(2).discovery_key(), secs(30));
    table.expire(id, secs(30));
    assert_eq!(table.take_orders(id), [Order::Open(root(2))]);
    table.ready(id, root(2), secs(30));
    // Leaving, and coming back before the session is over.
    assert!(table.leave(root(2)) && table.carries(root(2)));
    assert!(table.join(root(2), true, secs(31)));
    assert_eq!(table.take_orders(id), [Order::Close(root(2))]);
    table.over(id, root(2), true, secs(31));
    assert_eq!(table.take_orders(id), [Order::Open(root(2))]);
    assert!(table.leave(root(2)) && !table.leave(root(2)));
    table.over(id, root(2), true, secs(32));
    assert_eq!(state(&table, id, root(2)), None);
    assert!(!table.carries(root(2)));
    // What nobody here has changes nothing.
    table.discovered(id, root(9).discovery_key(), secs(33));
    assert_eq!(table.take_orders(id), [Order::Close(root(2))]);
    let limits = NetworkerLimits { roots: 1, ..NetworkerLimits::default() };
    assert!(!with(5, limits).join(root(2), true, secs(0)));
}

#[test]
fn a_root_key_that_is_opened_and_closed_for_ever_is_opened_once_a_second() {
    let mut table = table(5);
    let id = meet(&mut table, false, 1, secs(1));
    let mut opened = 0;
    for step in 0..10_000u64 {
        // 10 s, a thousand times a second.
        let now = secs(1) + Duration::from_millis(step);
        table.expire(id, now);
        for order in table.take_orders(id) {
            if order == Order::Open(root(1)) {
                opened += 1;
                table.ready(id, root(1), now);
            }
        }
        table.discovered(id, root(1).discovery_key(), now);
        table.over(id, root(1), true, now);
    }
    assert!((9..=11).contains(&opened), "{opened}");
    assert_eq!(table.connections.values().map(|found| found.roots.len()).sum::<usize>(), 1);
}

/// The reports of an order that the root keys differ; whether each is the first one of its peer.
fn mismatches(table: &mut Table, id: ConnectionId, now: Duration) -> Vec<(DiscoveryKey, bool)> {
    table.expire(id, now);
    let orders = table.take_orders(id);
    let reports = orders.into_iter().filter_map(|order| match order {
        Order::Mismatch(Mismatch { theirs, is_new }) => Some((theirs, is_new)),
        _ => None,
    });
    reports.collect()
}

#[test]
fn root_keys_that_differ_are_reported_once_a_connection_and_logged_once_a_peer() {
    let theirs = root(9).discovery_key();
    let mut table = table(5);
    let id = meet(&mut table, false, 1, secs(1));
    table.discovered(id, theirs, secs(2));
    table.discovered(id, root(8).discovery_key(), secs(2));
    assert_eq!(table.due(id), Some(secs(3)));
    assert_eq!(mismatches(&mut table, id, secs(3) - Duration::from_nanos(1)), []);
    assert_eq!(mismatches(&mut table, id, secs(3)), [(theirs, true)]);
    assert_eq!(mismatches(&mut table, id, secs(4)), []);
    // It stays as long as any other on which nothing is shared.
    assert_eq!((table.due(id), reason(&table, id)), (Some(secs(31)), None));
    assert_eq!(table.ended(id, secs(5)).unwrap().mismatch, None);
    // The next connection, with another static key: the remote ends it at once.
    let id = meet(&mut table, false, 2, secs(6));
    table.discovered(id, theirs, secs(6));
    assert_eq!(table.ended(id, secs(6)).unwrap().mismatch, Some(Mismatch { theirs, is_new: false }));
    // A dial is a peer of its own.
    let dial = table.dials.add(None, 1, secs(6));
    for is_new in [true, false] {
        let id = table.enter(true, Some(dial), secs(7)).unwrap();
        table.connected(id, PeerKey::new([3; 32]), true, secs(7));
        table.discovered(id, theirs, secs(7));
        assert_eq!(table.ended(id, secs(7)).unwrap().mismatch, Some(Mismatch { theirs, is_new }));
    }
    // What this side ends differs in nothing.
    let id = meet(&mut table, false, 4, secs(9));
    table.discovered(id, theirs, secs(9));
    table.end(id, EndReason::Disconnected, secs(9));
    assert_eq!(table.ended(id, secs(9)).unwrap().mismatch, None);
}

#[test]
fn root_keys_do_not_differ_if_one_is_shared_or_may_be() {
    let theirs = root(9).discovery_key();
    // The remote has several.
    let mut several = table(5);
    let id = meet(&mut several, false, 1, secs(1));
    several.discovered(id, theirs, secs(2));
    several.ready(id, root(1), secs(2));
    assert_eq!((mismatches(&mut several, id, secs(40)), several.other_root(id)), (vec![], None));
    assert_eq!(several.ended(id, secs(40)).unwrap().mismatch, None);
    // The remote's joins here later; or another one, which the remote has a second for.
    for (joins, is_theirs) in [(root(9), true), (root(2), false)] {
        let mut late = table(5);
        let id = meet(&mut late, false, 1, secs(1));
        late.discovered(id, theirs, secs(2));
        assert!(late.join(joins, true, secs(2)));
        assert_eq!(mismatches(&mut late, id, secs(3) - Duration::from_nanos(1)), []);
        assert_eq!(mismatches(&mut late, id, secs(3)).is_empty(), is_theirs);
    }
    // Nothing is joined here: nothing differs.
    let mut none = Table::new(PeerKey::new([5; 32]), NetworkerLimits::default(), BackoffOptions::default());
    let id = meet(&mut none, false, 1, secs(1));
    none.discovered(id, theirs, secs(1));
    assert_eq!(mismatches(&mut none, id, secs(20)), []);
    assert!(none.join(root(9), true, secs(20)));
    assert_eq!(mismatches(&mut none, id, secs(25)), []);
    // Nor while another connection to the same peer is used.
    let mut held = table(1);
    let used = meet(&mut held, true, 5, secs(1));
    let waits = meet(&mut held, false, 5, secs(2));
    held.discovered(waits, theirs, secs(2));
    assert_eq!(mismatches(&mut held, waits, secs(4)), []);
    held.ended(used, secs(5)).unwrap();
    assert_eq!(mismatches(&mut held, waits, secs(6) - Duration::from_nanos(1)), []);
    assert_eq!(mismatches(&mut held, waits, secs(6)), [(theirs, true)]);
}

#[test]
fn peers_whose_root_keys_differ_are_not_logged_without_end() {
    let mut table = table(5);
    let mut logged = 0;
    for n in 0..2000_u32 {
        let id = meet(&mut table, false, 1, secs(1));
        let mut theirs = [0; 32];
        theirs[..4].copy_from_slice(&n.to_le_bytes());
        table.discovered(id, DiscoveryKey::new(theirs), secs(1));
        logged += usize::from(table.ended(id, secs(1)).unwrap().mismatch.unwrap().is_new);
    }
    assert_eq!((logged, table.mismatched.len()), (MISMATCHES_LOGGED, MISMATCHES_LOGGED));
}

#[test]
fn what_a_peer_did_not_answer_is_left_out_of_its_next_connection_only() {
    let mut table = table(5);
    table.join(root(2), true, secs(0));
    let id = meet(&mut table, true, 1, secs(1));
    table.ready(id, root(1), secs(1));
    // Another end than the remote's, or an early one, says nothing.
    for (at, by_us) in [(3, false), (30, true)] {
        let id = meet(&mut table, true, 2, secs(1));
        if by_us {
            table.end(id, EndReason::Disconnected, secs(at));
        }
        assert_eq!(table.ended(id, secs(at)).unwrap().unanswered, []);
    }
    // JS's end after 10 s. The sessions on the stream are over just before it.
    table.over(id, root(1), false, secs(11));
    table.over(id, root(2), false, secs(11));
    assert_eq!(table.ended(id, secs(12)).unwrap().unanswered, [root(2)]);
    let next = meet(&mut table, true, 1, secs(13));
    assert_eq!(table.take_orders(next), [Order::Open(root(1)), Order::Admit]);
    assert_eq!(state(&table, next, root(2)), Some(RootState::LeftOut));
    let other = meet(&mut table, true, 3, secs(13));
    assert_eq!(table.take_orders(other).len(), 3);
    // The remote has it now: it opens it.
    table.discovered(next, root(2).discovery_key(), secs(14));
    assert_eq!(table.take_orders(next), [Order::Open(root(2))]);
    table.ended(next, secs(14));
    // It is forgotten in time, and if the application joins it anew.
    for forget in [true, false] {
        if forget {
            table.leave(root(2));
            table.join(root(2), true, secs(15));
        }
        let at = if forget { secs(15) } else { secs(24) + NetworkerLimits::default().left_out_time };
        let next = meet(&mut table, true, 1, at);
        assert_eq!(table.take_orders(next).len(), 3);
        table.ready(next, root(1), at);
        table.ended(next, at + secs(9));
    }
}

#[test]
fn sessions_that_are_not_live_end_the_connection_with_the_last_of_them() {
    let mut table = Table::new(PeerKey::new([5; 32]), NetworkerLimits::default(), BackoffOptions::default());
    table.join(root(1), false, secs(0));
    table.join(root(2), false, secs(0));
    let id = meet(&mut table, true, 1, secs(1));
    table.ready(id, root(1), secs(1));
    table.over(id, root(1), true, secs(2));
    assert_eq!(reason(&table, id), None);
    table.over(id, root(2), false, secs(21));
    assert_eq!(reason(&table, id), Some(EndReason::Done));
    assert!(table.ended(id, secs(21)).unwrap().in_sync, "what was not shared does not count");
}

#[test]
fn dials_wait_for_their_peer_and_their_time() {
    let mut table = table(5);
    let dial = table.dials.add(None, 1, secs(0));
    let same = table.dials.add(Some(PeerKey::new([2; 32])), 2, secs(0));
    assert_eq!(table.poll_dial(dial, secs(0)), Step::Connect);
    assert_eq!(table.poll_dial(dial, secs(0)), Step::Wait(None), "one at a time");
    let delay = table.dials.failed(dial, secs(1)).unwrap();
    assert!(delay >= SECOND / 2 && delay <= SECOND);
    assert_eq!(table.poll_dial(dial, secs(1)), Step::Wait(Some(secs(1) + delay)));
    assert_eq!(table.poll_dial(dial, secs(2)), Step::Connect);
    let id = table.enter(true, Some(dial), secs(2)).unwrap();
    table.connected(id, PeerKey::new([2; 32]), true, secs(2));
    // The other dial is for the same peer.
    assert_eq!(table.poll_dial(same, secs(2)), Step::Wait(None));
    table.dials.take_touched();
    table.ready(id, root(1), secs(2));
    table.over(id, root(1), true, secs(3));
    let ended = table.ended(id, secs(3)).unwrap();
    assert!(ended.in_sync && ended.dial.unwrap().1 <= SECOND, "a success: {ended:?}");
    assert!(table.dials.take_touched().contains(&same));
    // Each has its time after that; only one of them goes.
    assert!(matches!(table.poll_dial(same, secs(3)), Step::Wait(Some(_))));
    assert_eq!(table.poll_dial(same, secs(4)), Step::Connect);
    assert_eq!(table.poll_dial(dial, secs(4)), Step::Wait(None));
    // Somebody else answers.
    let id = table.enter(true, Some(same), secs(4)).unwrap();
    table.connected(id, PeerKey::new([3; 32]), true, secs(4));
    assert_eq!(reason(&table, id), Some(EndReason::OtherPeer));
    table.ended(id, secs(4));
    assert_eq!(table.poll_dial(dial, secs(4)), Step::Connect);
    // The peer comes by itself: the dial that has lost to it waits for its end.
    let own = table.enter(true, Some(dial), secs(5)).unwrap();
    table.connected(own, PeerKey::new([2; 32]), true, secs(5));
    table.ready(own, root(1), secs(5));
    let came = meet(&mut table, false, 2, secs(6));
    assert_eq!(reason(&table, own), Some(EndReason::Merged));
    assert_eq!(table.ended(own, secs(6)).unwrap().dial, Some((dial, Duration::ZERO)));
    assert_eq!(table.poll_dial(dial, secs(6)), Step::Wait(None));
    table.ended(came, secs(7));
    assert!(matches!(table.poll_dial(dial, secs(7)), Step::Wait(Some(_))));
    // A stop leaves nothing.
    assert_eq!(table.poll_dial(dial, secs(20)), Step::Connect);
    let id = table.enter(true, Some(dial), secs(20)).unwrap();
    assert!(table.stop_dial(dial, secs(20)) && !table.stop_dial(dial, secs(20)));
    assert_eq!((reason(&table, id), table.poll_dial(dial, secs(20))), (Some(EndReason::DialStopped), Step::Stop));
    assert_eq!(table.ended(id, secs(20)).unwrap().dial, None);
    table.remove_dial(dial);
    table.close(secs(21));
    assert_eq!(table.poll_dial(same, secs(21)), Step::Stop);
    table.remove_dial(same);
    assert!(table.is_closed());
    assert_eq!(table.enter(false, None, secs(22)), Err(NotTaken::Closed));
}

/// Networkers over links with a delay: what the tasks and streams would do, on virtual time.
struct World {
    seed: u64,
    now: Duration,
    nodes: Vec<Table>,
    links: Vec<Link>,
    /// What happens when, in the order in which it was caused.
    events: BTreeMap<(Duration, u64), Event>,
    next: u64,
}

struct Link {
    ends: [End; 2],
    over: bool,
}

struct End {
    node: usize,
    id: ConnectionId,
    admitted: bool,
    open: BTreeSet<FeedKey>,
    ready: BTreeSet<FeedKey>,
    /// The remote's Opens that are not read before it is let in.
    unread: VecDeque<FeedKey>,
}

enum Event {
    Connected(usize, usize),
    Opened(usize, usize, FeedKey),
    Closed(usize, usize, FeedKey),
    TimedOut(usize, usize, FeedKey),
    Ended(usize, usize),
}

impl World {
    fn new(seed: u64, nodes: u8) -> Self {
        let keys = (1..=nodes)
            .map(|own| Table::new(PeerKey::new([own; 32]), NetworkerLimits::default(), BackoffOptions::default()));
        let (now, events) = (Duration::ZERO, BTreeMap::new());
        Self { seed, now, nodes: keys.collect(), links: Vec::new(), events, next: 0 }
    }

    fn draw(&mut self, below: usize) -> usize {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.seed >> 33).unwrap() % below
    }

    /// Links keep the order of what goes over them.
    fn after(&mut self, millis: u64, event: Event) {
        self.next += 1;
        self.events.insert((self.now + Duration::from_millis(millis), self.next), event);
    }

    fn connect(&mut self, from: usize, to: usize) {
        let Ok(a) = self.nodes[from].enter(true, None, self.now) else { return };
        let end = |node, id| End {
            node,
            id,
            admitted: false,
            open: BTreeSet::new(),
            ready: BTreeSet::new(),
            unread: VecDeque::new(),
        };
        let Ok(b) = self.nodes[to].enter(false, None, self.now) else {
            self.nodes[from].ended(a, self.now);
            return;
        };
        self.links.push(Link { ends: [end(from, a), end(to, b)], over: false });
        let link = self.links.len() - 1;
        for side in [0, 1] {
            let delay = 5 + self.draw(20) as u64;
            self.after(delay, Event::Connected(link, side));
        }
    }

    fn side(&mut self, link: usize, side: usize) -> (&mut Table, &mut End) {
        let end = &mut self.links[link].ends[side];
        (&mut self.nodes[end.node], end)
    }

    fn opened(&mut self, link: usize, side: usize, root: FeedKey) {
        let now = self.now;
        let (table, end) = self.side(link, side);
        if !end.admitted {
            end.unread.push_back(root);
        } else if end.open.contains(&root) {
            if end.ready.insert(root) {
                table.ready(end.id, root, now);
            }
        } else {
            table.discovered(end.id, root.discovery_key(), now);
        }
    }

    fn close(&mut self, link: usize, side: usize, root: FeedKey, in_sync: bool) {
        let now = self.now;
        let (table, end) = self.side(link, side);
        if end.open.remove(&root) {
            end.ready.remove(&root);
            table.over(end.id, root, in_sync, now);
        }
    }

    fn run_orders(&mut self) {
        for link in 0..self.links.len() {
            for side in [0, 1] {
                let now = self.now;
                let (table, end) = self.side(link, side);
                table.expire(end.id, now);
                for order in table.take_orders(end.id) {
                    let (_, end) = self.side(link, side);
                    match order {
                        Order::Open(root) => {
                            end.open.insert(root);
                            // The remote's may be there already.
                            let theirs = self.links[link].ends[1 - side].open.contains(&root);
                            self.after(10, Event::Opened(link, 1 - side, root));
                            if theirs {
                                self.after(10, Event::Opened(link, side, root));
                            }
                            self.after(20_000, Event::TimedOut(link, side, root));
                        }
                        Order::Close(root) => {
                            self.close(link, side, root, true);
                            self.after(10, Event::Closed(link, 1 - side, root));
                        }
                        Order::Listen | Order::Mismatch(_) => {}
                        Order::Admit => {
                            end.admitted = true;
                            for root in std::mem::take(&mut end.unread) {
                                self.opened(link, side, root);
                            }
                        }
                        Order::Refuse | Order::End => self.cut(link),
                    }
                }
            }
        }
    }

    fn cut(&mut self, link: usize) {
        if !std::mem::replace(&mut self.links[link].over, true) {
            self.after(1, Event::Ended(link, 0));
            self.after(11, Event::Ended(link, 1));
        }
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Connected(link, side) => {
                let peer = self.nodes[self.links[link].ends[1 - side].node].own_key;
                let (table, end) = self.side(link, side);
                table.connected(end.id, peer, true, now);
            }
            Event::Opened(link, side, root) => {
                // It may have been closed meanwhile.
                if self.links[link].ends[1 - side].open.contains(&root) {
                    self.opened(link, side, root);
                }
            }
            Event::Closed(link, side, root) => self.close(link, side, root, true),
            Event::TimedOut(link, side, root) => {
                let (_, end) = self.side(link, side);
                if end.open.contains(&root) && !end.ready.contains(&root) {
                    self.close(link, side, root, false);
                }
            }
            Event::Ended(link, side) => {
                for root in self.links[link].ends[side].open.clone() {
                    self.close(link, side, root, false);
                }
                let (table, end) = self.side(link, side);
                table.ended(end.id, now);
            }
        }
    }

    fn run_until(&mut self, until: Duration) {
        while self.now < until {
            self.run_orders();
            let due = self.links.iter().flat_map(|link| &link.ends).filter_map(|end| self.nodes[end.node].due(end.id));
            let next = self.events.keys().next().map(|(at, _)| *at);
            let next = due.chain(next).min().unwrap_or(until).max(self.now).min(until);
            self.now = next;
            while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let event = entry.remove();
                self.happen(event);
            }
            if next == until {
                break;
            }
        }
        self.run_orders();
    }

    fn act(&mut self) {
        let nodes = self.nodes.len();
        let (node, other, root) = (self.draw(nodes), self.draw(nodes), root(1 + u8::try_from(self.draw(4)).unwrap()));
        match self.draw(8) {
            0 | 1 => _ = self.nodes[node].join(root, true, self.now),
            2 => _ = self.nodes[node].leave(root),
            3 => {
                let open = self.nodes[node].open().next().map(|view| view.id);
                open.into_iter().for_each(|id| self.nodes[node].end(id, EndReason::Disconnected, self.now));
            }
            4 if !self.links.is_empty() => {
                // A network that fails.
                let link = self.draw(self.links.len());
                self.cut(link);
            }
            _ => self.connect(node, other),
        }
    }
}

#[test]
fn whatever_happens_each_pair_ends_with_one_connection_and_all_shared_root_keys() {
    let (mut pairs, mut shared, mut merged) = (0, 0, 0);
    for seed in 0..100 {
        let mut world = World::new(seed, 4);
        for _ in 0..60 {
            world.act();
            let pause = [0, 3, 15, 200, 3000, 12_000][world.draw(6)];
            world.run_until(world.now + Duration::from_millis(pause));
        }
        for table in &world.nodes {
            merged += table.next;
        }
        // Then every pair meets, from both sides at about one time, on top of what is there.
        for a in 0..4 {
            for b in 0..4 {
                if a != b {
                    world.connect(a, b);
                }
            }
        }
        world.run_until(world.now + secs(29));
        for a in 0..4 {
            for b in (a + 1)..4 {
                let up =
                    |from: &Table, to: &Table| from.open().filter(|view| view.peer == to.own_key).collect::<Vec<_>>();
                let (here, there) = (up(&world.nodes[a], &world.nodes[b]), up(&world.nodes[b], &world.nodes[a]));
                assert_eq!((here.len(), there.len()), (1, 1), "seed {seed}: {a} and {b}");
                let is_link = |link: &&Link| {
                    let ids = [here[0].id, there[0].id];
                    let ends = [&link.ends[0], &link.ends[1]];
                    ends.iter().all(|end| (end.node == a && end.id == ids[0]) || (end.node == b && end.id == ids[1]))
                };
                assert_eq!(world.links.iter().filter(is_link).count(), 1, "seed {seed}: not the same one");
                pairs += 1;
                for root in world.nodes[a].roots().filter(|root| world.nodes[b].roots.contains_key(root)) {
                    let ready = Some(RootState::Ready);
                    let states = (state(&world.nodes[a], here[0].id, root), state(&world.nodes[b], there[0].id, root));
                    assert_eq!(states, (ready, ready), "seed {seed}: {a} and {b}, {root}");
                    shared += 1;
                }
            }
        }
        for table in &mut world.nodes {
            let held = table.connections.values().filter(|found| matches!(found.stage, Stage::Held { .. })).count();
            assert_eq!(held, 0, "seed {seed}: one still waits");
            table.close(world.now);
        }
        world.run_until(world.now + secs(60));
        assert!(world.nodes.iter().all(Table::is_closed), "seed {seed}: something is left");
        assert!(world.nodes.iter().all(|table| table.peers.is_empty() && table.touched.len() <= 64));
    }
    assert!(pairs == 600 && shared > 300 && merged > 3000, "{pairs} {shared} {merged}");
}
