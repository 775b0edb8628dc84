//! What the table decides, case by case.

use super::*;

const OWN: PeerKey = PeerKey::new([255; 32]);
const ENGINE: EngineId = 0;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(super) fn topic(n: u8) -> Topic {
    Topic::new([n; 32])
}

pub(super) fn address(n: u32) -> Route {
    Route::Address(format!("192.0.2.1:{n}"))
}

fn found(route: Route, key: Option<u8>, topics: &[u8]) -> Found {
    let topics = topics.iter().map(|n| topic(*n)).collect();
    Found { route, key: key.map(|n| PeerKey::new([n; 32])), topics, kept: false }
}

fn table() -> Table {
    let mut table = Table::new(OWN, SwarmLimits::default());
    table.join(topic(1), Mode::Both);
    table.join(topic(2), Mode::Both);
    table
}

/// Those to be dialled, and how many dials end.
fn dials(table: &mut Table, now: Duration) -> (Vec<FoundId>, usize) {
    table.poll(now);
    let (mut dialled, mut stopped) = (Vec::new(), 0);
    for order in table.take_orders() {
        match order {
            Order::Dial { peer, .. } => dialled.push(peer),
            Order::Stop(_) => stopped += 1,
            Order::Hasten(_) | Order::Doubt(..) => {}
        }
    }
    (dialled, stopped)
}

#[test]
fn one_peer_has_one_dial_whoever_found_it_and_however_often() {
    let mut table = table();
    for engine in 0..3 {
        for n in [1, 2] {
            table.found(engine, found(address(n), Some(7), &[1]), secs(0));
            table.found(engine, found(address(n), Some(7), &[2]), secs(1));
        }
    }
    // An address without a key is the same one by its text.
    table.found(0, found(address(9), None, &[1]), secs(1));
    table.found(1, found(address(9), None, &[2]), secs(1));
    let (dialled, stopped) = dials(&mut table, secs(2));
    assert_eq!((dialled.len(), stopped), (2, 0));
    assert_eq!(table.routes(dialled[0]).len(), 6);
    let views: Vec<_> = table.peers().collect();
    assert_eq!((views.len(), views[0].topics.len(), views[1].routes.len()), (2, 2, 2));
    // After one that failed, the next attempt begins with another route.
    let mut starts = BTreeSet::new();
    for _ in 0..6 {
        starts.insert(table.routes(dialled[0])[0].clone());
        table.failed(dialled[0], secs(1), secs(2));
        table.peers.get_mut(&dialled[0]).unwrap().failures = 1;
    }
    assert_eq!(starts.len(), 6);
}

#[test]
fn nobody_dials_itself() {
    let mut table = table();
    table.found(ENGINE, found(address(1), Some(255), &[1]), secs(0));
    assert_eq!(dials(&mut table, secs(0)), (vec![], 0));
    // An address shows it by the handshake only.
    table.found(ENGINE, found(address(1), None, &[1]), secs(0));
    let (dialled, _) = dials(&mut table, secs(0));
    table.is_own(dialled[0]);
    assert_eq!(dials(&mut table, secs(0)), (vec![], 1));
    table.found(ENGINE, found(address(1), None, &[2]), secs(100));
    assert_eq!(dials(&mut table, secs(1000)), (vec![], 0));
    assert_eq!(table.peers().next().unwrap().state, FoundState::Own);
}

#[test]
fn what_nobody_looks_for_is_not_dialled() {
    let mut table = table();
    table.join(topic(3), Mode::Server);
    table.found(ENGINE, found(address(1), Some(1), &[3, 4]), secs(0));
    assert_eq!((dials(&mut table, secs(0)), table.peers().count()), ((vec![], 0), 0));
    // It joins late, and the engine reports it again.
    table.join(topic(4), Mode::Client);
    table.found(ENGINE, found(address(1), Some(1), &[3, 4]), secs(1));
    assert_eq!(dials(&mut table, secs(1)).0.len(), 1);
}

#[test]
fn a_peer_that_fails_is_given_up_and_comes_again_if_it_is_found_again() {
    let mut table = table();
    table.found(ENGINE, found(address(1), Some(1), &[1]), secs(0));
    let (dialled, _) = dials(&mut table, secs(0));
    for n in 1..5 {
        table.failed(dialled[0], secs(1), secs(n));
        assert_eq!(dials(&mut table, secs(n)), (vec![], 0), "the networker dials it again");
    }
    table.failed(dialled[0], secs(16), secs(20));
    assert_eq!(dials(&mut table, secs(20)), (vec![], 1));
    assert_eq!(table.peers().count(), 0);
    let lost = |happened: &Happened| matches!(happened, Happened::Lost { reason: LostReason::GivenUp, .. });
    assert!(table.take_happened().iter().any(lost));
    table.found(ENGINE, found(address(1), Some(1), &[1]), secs(21));
    assert_eq!(dials(&mut table, secs(21)).0.len(), 1);
}

#[test]
fn one_that_was_reached_has_all_its_tries_again() {
    let mut table = table();
    table.found(ENGINE, found(address(1), Some(1), &[1]), secs(0));
    let (dialled, _) = dials(&mut table, secs(0));
    for round in 0..10 {
        (0..4).for_each(|_| _ = table.failed(dialled[0], secs(1), secs(round)));
        table.connected(dialled[0]);
        // A dial of ours that loses against the peer's own is no failure.
        (0..10).for_each(|_| assert!(!table.failed(dialled[0], secs(1), secs(round))));
        table.ended(dialled[0]);
    }
    assert_eq!(dials(&mut table, secs(20)), (vec![], 0));
}

#[test]
fn one_that_the_user_named_is_never_given_up() {
    let mut table = table();
    table.found(ENGINE, Found { kept: true, ..found(address(1), None, &[1]) }, secs(0));
    let (dialled, _) = dials(&mut table, secs(0));
    (0..100).for_each(|n| _ = table.failed(dialled[0], secs(1), secs(n)));
    assert_eq!((dials(&mut table, secs(100)), table.peers().count()), ((vec![], 0), 1));
}

#[test]
fn one_that_is_gone_stays_while_it_is_connected() {
    let mut table = table();
    for n in 1..=2 {
        table.found(ENGINE, found(address(n), Some(n as u8), &[1, 2]), secs(0));
    }
    let (dialled, _) = dials(&mut table, secs(0));
    table.connected(dialled[0]);
    for n in 1..=2 {
        table.lost(ENGINE, &address(n), Some(PeerKey::new([n as u8; 32])), &[topic(1)]);
        assert_eq!(dials(&mut table, secs(1)), (vec![], 0), "the other topic is there still");
    }
    for n in 1..=2 {
        table.lost(ENGINE, &address(n), Some(PeerKey::new([n as u8; 32])), &[topic(2)]);
    }
    assert_eq!((dials(&mut table, secs(1)), table.peers().count()), ((vec![], 1), 1));
    table.ended(dialled[0]);
    assert_eq!((dials(&mut table, secs(1)), table.peers().count()), ((vec![], 1), 0));
}

#[test]
fn a_topic_that_is_left_takes_those_with_it_that_had_no_other() {
    let mut table = table();
    table.found(ENGINE, found(address(1), Some(1), &[1]), secs(0));
    table.found(ENGINE, found(address(2), Some(2), &[1, 2]), secs(0));
    let (dialled, _) = dials(&mut table, secs(0));
    dialled.iter().for_each(|id| table.connected(*id));
    assert!(table.leave(&topic(1)) && !table.leave(&topic(1)));
    assert_eq!((dials(&mut table, secs(1)), table.peers().count()), ((vec![], 1), 1));
    assert!(table.leave(&topic(2)));
    assert_eq!((dials(&mut table, secs(1)), table.peers().count()), ((vec![], 1), 0));
}

#[test]
fn a_thousand_dead_addresses_cost_few_dials_at_once_and_few_in_all() {
    let mut table = table();
    let limits = SwarmLimits::default();
    for n in 0..1000 {
        table.found(ENGINE, found(address(n), None, &[1]), secs(0));
    }
    // One who lives comes last.
    table.found(ENGINE, found(address(5000), Some(1), &[1]), secs(0));
    let (mut open, mut began, mut now) = (BTreeSet::new(), 0, Duration::ZERO);
    let mut reached = None;
    while table.peers().any(|peer| peer.state != FoundState::Connected) {
        now += Duration::from_millis(100);
        table.poll(now);
        for order in table.take_orders() {
            match order {
                Order::Dial { peer, key } => {
                    assert!(open.insert(peer), "one dial each");
                    began += 1;
                    if key.is_some() {
                        table.connected(peer);
                        reached = Some((now, began));
                    }
                }
                Order::Stop(peer) => assert!(open.remove(&peer)),
                Order::Hasten(_) | Order::Doubt(..) => {}
            }
        }
        let trying = open.len() - usize::from(reached.is_some());
        assert!(trying <= limits.dials_at_once, "{trying} at once");
        // Each refuses after a second.
        if now.subsec_millis() == 0 {
            open.clone().into_iter().for_each(|peer| _ = table.failed(peer, secs(1), now));
        }
        assert!(now < secs(3600), "it ends");
    }
    let last = table.take_orders();
    assert!(last.iter().all(|order| !matches!(order, Order::Dial { .. })));
    open.retain(|peer| !last.contains(&Order::Stop(*peer)));
    let (when, before) = reached.expect("the one who lives");
    // Nobody is tried twice before everybody was tried once.
    assert!(before <= 1001 && when <= secs(1000 / limits.dials_at_once as u64 + 2), "{before} {when:?}");
    assert!(began <= 1 + 1000 * limits.failures, "{began}");
    assert_eq!(open.len(), 1, "the one who lives has its dial");
}

#[test]
fn of_more_named_addresses_than_dials_each_has_its_turn() {
    let limits = SwarmLimits { dials: 8, ..SwarmLimits::default() };
    let mut table = Table::new(OWN, limits.clone());
    table.join(topic(1), Mode::Both);
    for n in 0..100 {
        table.found(ENGINE, Found { kept: true, ..found(address(n), None, &[1]) }, secs(0));
    }
    let (mut open, mut tried) = (BTreeSet::new(), BTreeSet::new());
    for now in (0..20).map(secs) {
        table.poll(now);
        for order in table.take_orders() {
            match order {
                Order::Dial { peer, .. } => assert!(open.insert(peer)),
                Order::Stop(peer) => assert!(open.remove(&peer)),
                Order::Hasten(_) | Order::Doubt(..) => {}
            }
        }
        assert!(open.len() <= limits.dials, "{}", open.len());
        tried.extend(open.iter().copied());
        open.clone().into_iter().for_each(|peer| _ = table.failed(peer, secs(1), now));
    }
    assert_eq!((tried.len(), table.peers().count()), (100, 100), "none is given up");
}

#[test]
fn places_are_bounded_and_those_that_were_reached_keep_theirs() {
    let limits = SwarmLimits { peers: 10, routes: 3, ..SwarmLimits::default() };
    let mut table = Table::new(OWN, limits);
    table.join(topic(1), Mode::Both);
    for n in 0..20 {
        table.found(ENGINE, found(address(n), None, &[1]), secs(0));
    }
    assert_eq!(table.peers().count(), 10);
    assert_eq!(table.take_happened().iter().filter(|found| **found == Happened::TurnedAway).count(), 10);
    let (dialled, _) = dials(&mut table, secs(0));
    dialled[..5].iter().for_each(|id| table.connected(*id));
    dialled[5..].iter().for_each(|id| _ = table.failed(*id, secs(1), secs(1)));
    for n in 20..40 {
        table.found(ENGINE, found(address(n), None, &[1]), secs(2));
    }
    assert_eq!(table.peers().filter(|peer| peer.state == FoundState::Connected).count(), 5);
    assert_eq!((table.peers().count(), dials(&mut table, secs(2)).1), (10, 5));
    // Routes that are no longer said to be there give way.
    table.connected(table.peers().last().unwrap().id);
    for n in 100..200 {
        table.found(ENGINE, found(address(n), Some(9), &[1]), secs(n.into()));
    }
    assert!(table.peers().all(|peer| peer.routes.len() <= 3));
}

const DHT: Route = Route::Key([5; 32]);

/// What happened to whom.
fn lost(table: &mut Table) -> Vec<(FoundId, LostReason)> {
    let lost = |happened| match happened {
        Happened::Lost { peer, reason, .. } => Some((peer, reason)),
        _ => None,
    };
    table.take_happened().into_iter().filter_map(lost).collect()
}

#[test]
fn one_that_is_connected_by_a_dht_and_then_found_on_the_lan_is_one_and_hastened_once() {
    let mut table = table();
    table.found(1, found(DHT, None, &[1]), secs(0));
    let (dialled, _) = dials(&mut table, secs(0));
    let id = dialled[0];
    table.is_by(id, 1, DHT);
    assert_eq!(table.identify(id, PeerKey::new([7; 32])), None);
    table.connected(id);
    table.poll(secs(1));
    assert!(table.take_orders().is_empty());
    table.found(0, found(address(1), Some(7), &[1, 2]), secs(1));
    for _ in 0..2 {
        table.found(0, found(address(1), Some(7), &[1, 2]), secs(2));
        table.poll(secs(2));
    }
    assert_eq!(table.take_orders(), [Order::Hasten(id)]);
    let view = table.peers().next().unwrap();
    assert_eq!((table.peers().count(), view.routes.len(), view.key), (1, 2, Some(PeerKey::new([7; 32]))));
    // What it is connected by comes first, and without that, addresses do.
    assert_eq!(table.routes(id)[0], (1, DHT));
    table.peers.get_mut(&id).unwrap().by = None;
    assert_eq!(table.routes(id)[0], (0, address(1)));
    // One is lost, and then the other.
    table.lost(1, &DHT, None, &[topic(1)]);
    table.lost(0, &address(1), Some(PeerKey::new([7; 32])), &[topic(1), topic(2)]);
    table.ended(id);
    assert_eq!(lost(&mut table), [(id, LostReason::Gone)]);
    assert!(table.by_name.is_empty());
}

#[test]
fn two_that_prove_one_key_are_one_whichever_connection_stays() {
    for dht_stays in [true, false] {
        let mut table = table();
        table.found(0, found(address(1), Some(7), &[1]), secs(0));
        table.found(1, found(DHT, None, &[2]), secs(0));
        let (dialled, _) = dials(&mut table, secs(0));
        let [lan, dht] = dialled[..] else { panic!("{dialled:?}") };
        table.connected(lan);
        let (stays, goes) = if dht_stays { (dht, lan) } else { (lan, dht) };
        if dht_stays {
            assert_eq!(table.identify(dht, PeerKey::new([7; 32])), Some(lan));
            table.connected(dht);
        } else {
            table.absorb(dht, lan);
        }
        table.poll(secs(0));
        assert_eq!(table.take_orders(), [Order::Stop(goes)]);
        assert_eq!(lost(&mut table), [(goes, LostReason::Same)]);
        let view = table.peers().next().unwrap();
        assert_eq!((table.peers().count(), view.id, view.routes.len(), view.topics.len()), (1, stays, 2, 2));
        // Both names are its own.
        table.found(0, found(address(2), Some(7), &[1]), secs(1));
        table.found(2, found(DHT, None, &[1]), secs(1));
        assert_eq!(table.peers().next().unwrap().routes.len(), 4);
        assert_eq!((table.peers().count(), dials(&mut table, secs(1))), (1, (vec![], 0)));
    }
}

#[test]
fn one_with_a_new_key_at_a_known_address_is_reached() {
    let mut table = table();
    table.found(0, found(address(1), Some(7), &[1]), secs(0));
    let id = dials(&mut table, secs(0)).0[0];
    table.connected(id);
    table.found(1, Found { kept: true, ..found(address(2), None, &[1]) }, secs(0));
    let named = dials(&mut table, secs(0)).0[0];
    table.absorb(named, id);
    table.ended(id);
    assert_eq!(dials(&mut table, secs(0)), (vec![], 1));
    // It came back with another key: the dial that is for the old one gives way.
    table.failed(id, secs(1), secs(1));
    assert_eq!(dials(&mut table, secs(1)), (vec![], 1));
    table.poll(secs(2));
    assert_eq!(table.take_orders(), [Order::Dial { peer: id, key: None }]);
    table.identify(id, PeerKey::new([8; 32]));
    table.connected(id);
    let view = table.peers().next().unwrap();
    assert_eq!(
        (view.key, view.routes.len()),
        (Some(PeerKey::new([8; 32])), 1),
        "what the old key announced is somebody else's"
    );
    table.found(0, found(address(1), Some(7), &[1]), secs(3));
    assert_eq!((table.peers().count(), table.by_name.len()), (2, 3));
}

#[test]
fn one_that_came_by_a_dht_is_found_there_as_the_same() {
    let mut table = table();
    table.found(0, found(address(1), Some(7), &[1]), secs(0));
    let id = dials(&mut table, secs(0)).0[0];
    table.came(&DHT);
    assert_eq!(table.came_from(PeerKey::new([7; 32]), &DHT), None);
    table.connected(id);
    table.found(1, found(DHT, None, &[1]), secs(1));
    assert_eq!((table.peers().count(), table.peers().next().unwrap().routes.len()), (1, 2));
}

#[test]
fn one_that_comes_again_and_again_is_never_dialled_and_stays_one() {
    let mut table = table();
    table.found(1, found(DHT, None, &[1]), secs(0));
    let id = table.peers().next().unwrap().id;
    for n in 0..60 {
        table.came(&DHT);
        assert_eq!(dials(&mut table, secs(n)), (vec![], 0));
        // A peer of JS has another static key each time.
        let key = PeerKey::new([n as u8; 32]);
        assert_eq!(table.came_from(key, &DHT), None);
        assert_eq!(table.with_key(key), Some(id));
        table.connected(id);
        table.found(1, found(DHT, None, &[1]), secs(n));
        table.left(&DHT, secs(n));
        table.ended(id);
    }
    let view = table.peers().next().unwrap();
    assert_eq!((table.peers().count(), view.reached, table.take_happened().len()), (1, true, 1));
    // It stays away.
    assert_eq!((dials(&mut table, secs(60)), table.due(secs(60))), ((vec![], 0), Some(secs(61))));
    assert_eq!(dials(&mut table, secs(61)), (vec![id], 0));
    assert!(table.here.is_empty());
}

#[test]
fn a_dial_ends_when_its_peer_comes_and_what_is_found_of_one_that_is_here_is_that_one() {
    let mut table = table();
    table.found(1, found(DHT, None, &[1]), secs(0));
    let id = dials(&mut table, secs(0)).0[0];
    table.came(&DHT);
    assert_eq!(dials(&mut table, secs(9)), (vec![], 1));
    // The dial's error comes later, and is nobody's failure.
    assert!(!table.failed(id, secs(1), secs(9)));
    // It is on the LAN too.
    table.found(0, found(address(1), Some(7), &[1]), secs(9));
    let lan = dials(&mut table, secs(9)).0[0];
    assert_eq!(table.came_from(PeerKey::new([7; 32]), &DHT), Some(id));
    assert_eq!((table.peers().count(), table.peers().next().unwrap().id), (1, lan));
    // The address alone is tried as long as it is here.
    assert_eq!(table.routes(lan), [(0, address(1))]);
    table.left(&DHT, secs(10));
    assert_eq!(table.routes(lan).len(), 2);
    // One whose connection was there before it was found.
    let other = Route::Key([6; 32]);
    table.came(&other);
    assert_eq!(table.came_from(PeerKey::new([6; 32]), &other), None);
    table.found(1, found(other.clone(), None, &[1]), secs(11));
    assert_eq!((table.with_key(PeerKey::new([6; 32])).is_some(), dials(&mut table, secs(11))), (true, (vec![], 0)));
    let said = Happened::Found {
        peer: table.with_key(PeerKey::new([6; 32])).unwrap(),
        key: Some(PeerKey::new([6; 32])),
        engine: 1,
        route: other,
    };
    assert_eq!(table.take_happened().pop(), Some(said));
}
