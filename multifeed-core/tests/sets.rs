//! Several sets of feeds over the cores of one store: what one is shared by, and what stays apart.

use crate::link;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use link::{Link, Store, run, store};
use multifeed_core::{FeedId, KeyPair, MultifeedEvent, Replicate, SetId};
use multifeed_proto::{Config, FeedKey};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

fn key_pair(seed: u8) -> KeyPair {
    KeyPair::from_seed(&[seed; 32])
}

fn live(set: SetId, reconcile: bool) -> Replicate {
    Replicate { set, reconcile: Some(reconcile), ..Replicate::live() }
}

fn write(store: &mut Store, seed: u8, blocks: u64) -> FeedId {
    let id = store.writer(Some(&format!("w{seed}")), || key_pair(seed)).unwrap();
    for index in 0..blocks {
        store.append(id, &[Bytes::from(format!("{seed}/{index}"))]).unwrap();
    }
    id
}

fn key(seed: u8) -> FeedKey {
    key_pair(seed).public_key()
}

/// Which of the feeds of `seeds` a store has, and how many blocks of each.
fn held(store: &Store, seeds: impl IntoIterator<Item = u8>) -> Vec<(u8, u64)> {
    let found = |seed: u8| Some((seed, store.info(store.find(&key(seed))?).unwrap().downloaded));
    seeds.into_iter().filter_map(found).collect()
}

fn settle(stores: &mut [Store], links: &mut [Link], second: &mut u64) {
    for _ in 0..4 {
        *second += 1;
        let now = Duration::from_secs(*second);
        for store in stores.iter_mut() {
            store.handle_timeout(now);
            store.commit(now);
        }
        run(stores, links, now);
    }
}

/// Store 0 has two sets. Store 1 replicates the first, store 2 the second.
fn two_sets(reconcile: bool) -> (Vec<Store>, Vec<Link>, [SetId; 2], [FeedId; 4]) {
    let mut stores = vec![store(), store(), store()];
    let sets = [stores[0].add_set(), stores[0].add_set()];
    let feeds = [1, 2, 3, 4].map(|seed| write(&mut stores[0], seed, u64::from(seed)));
    let [shared, first, second, _apart] = feeds;
    for (set, feed) in [(sets[0], shared), (sets[1], shared), (sets[0], first), (sets[1], second)] {
        assert!(stores[0].include(set, feed).unwrap() && !stores[0].include(set, feed).unwrap());
    }
    let links = [1, 2].map(|other| {
        let options = [live(sets[other - 1], reconcile), live(SetId::ALL, reconcile)];
        Link::new(&mut stores, [0, other], options, [Config::default(), Config::default()])
    });
    (stores, links.into(), sets, feeds)
}

#[test]
fn a_session_shows_and_fills_its_own_set_alone() {
    for reconcile in [false, true] {
        let (mut stores, mut links, sets, [shared, first, ..]) = two_sets(reconcile);
        let mut now = 0;
        settle(&mut stores, &mut links, &mut now);
        assert_eq!(held(&stores[1], 1..5), [(1, 1), (2, 2)]);
        assert_eq!(held(&stores[2], 1..5), [(1, 1), (3, 3)]);

        // What a session brings is in its set, and in no other.
        write(&mut stores[1], 5, 7);
        settle(&mut stores, &mut links, &mut now);
        let brought = stores[0].find(&key(5)).unwrap();
        assert!(stores[0].is_in(sets[0], brought) && !stores[0].is_in(sets[1], brought));
        assert_eq!((held(&stores[0], 5..6), held(&stores[2], 5..6)), (vec![(5, 7)], vec![]));
        let events: Vec<_> = std::iter::from_fn(|| stores[0].poll_event()).collect();
        assert!(events.contains(&MultifeedEvent::Included { set: sets[0], id: brought }));

        // One core in two sets: its blocks reach the sessions of both.
        assert!(stores[0].include(sets[1], brought).unwrap());
        write(&mut stores[1], 5, 3);
        stores[0].append(shared, &[Bytes::from_static(b"more")]).unwrap();
        settle(&mut stores, &mut links, &mut now);
        assert_eq!(held(&stores[2], [1, 3, 5]), [(1, 2), (3, 3), (5, 10)]);

        // Out of one set it goes on in the other.
        assert!(stores[0].exclude(sets[0], shared).unwrap() && !stores[0].exclude(sets[0], shared).unwrap());
        stores[0].append(shared, &[Bytes::from_static(b"more")]).unwrap();
        stores[0].append(first, &[Bytes::from_static(b"more")]).unwrap();
        settle(&mut stores, &mut links, &mut now);
        assert_eq!(held(&stores[1], [1, 2]), [(1, 2), (2, 3)]);
        assert_eq!(held(&stores[2], [1]), [(1, 3)]);
        assert_eq!(stores[0].feeds_in(sets[0]).count() + stores[0].feeds_in(sets[1]).count(), 5);

        // Out of the store it is out of both.
        stores[0].remove(brought).unwrap();
        assert!(sets.iter().all(|&set| !stores[0].is_in(set, brought)));
        assert!(stores[0].include(sets[0], brought).is_err());
        assert!(links.iter().all(|link| (0..2).all(|side| link.result(side).is_none())));
    }
}

/// What is not written yet came for another set.
#[test]
fn a_session_that_ended_in_sync_stays_it() {
    let mut stores = [store(), store()];
    let feed = write(&mut stores[0], 1, 3);
    let set = stores[0].add_set();
    assert!(stores[0].include(set, feed).unwrap());
    let options = Replicate { set, ..Replicate::default() };
    let mut links = [Link::new(&mut stores, [0, 1], [options, Replicate::default()], Default::default())];
    run(&mut stores, &mut links, Duration::ZERO);
    let sessions = [0, 1].map(|side| links[0].ends[side].1.peer());
    assert_eq!((links[0].totals(0).blocks_sent, links[0].totals(1).blocks_received), (3, 3));
    let other = write(&mut stores[0], 2, 1);
    assert!(!stores[0].is_in(set, other) && stores[0].uncommitted().is_some());
    assert!(stores[0].in_sync(sessions[0]) && stores[1].in_sync(sessions[1]));
}

#[test]
fn a_feed_of_another_set_is_not_asked_for_again_and_joins_when_a_remote_offers_it() {
    for reconcile in [false, true] {
        let (mut stores, mut links, sets, [_, first, ..]) = two_sets(reconcile);
        let mut now = 0;
        settle(&mut stores, &mut links, &mut now);
        // The second remote has one block of a feed that is in the first set here.
        let other = stores[2].add(key(2)).unwrap();
        settle(&mut stores, &mut links, &mut now);
        assert!(stores[0].is_in(sets[1], first));
        assert_eq!(stores[2].info(other).unwrap().downloaded, 2);
        assert_eq!(stores[0].feeds().count(), 4);
    }
}

#[test]
fn a_set_that_no_feed_is_in_offers_nothing() {
    let mut stores = vec![store(), store()];
    write(&mut stores[0], 1, 1);
    let set = stores[0].add_set();
    let options = [Replicate { set, ..Replicate::default() }, Replicate::default()];
    let mut links = [Link::new(&mut stores, [0, 1], options, [Config::default(), Config::default()])];
    settle(&mut stores, &mut links, &mut 0);
    assert_eq!(stores[1].feeds().count(), 0);
    assert_eq!((links[0].totals(0).feeds, links[0].totals(1).feeds), (0, 0));
}

/// Whatever is included, excluded, appended and brought: each remote ends with what was ever in the set that it replicates, and holds
/// all of what is in it now.
#[test]
fn any_order_of_changes_keeps_sets_apart() {
    for seed in 0..100 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut stores: Vec<Store> = (0..4).map(|_| store()).collect();
        let sets: Vec<SetId> = (0..3).map(|_| stores[0].add_set()).collect();
        let mut links = Vec::new();
        for other in 1..4 {
            let reconcile = random.random_bool(0.5);
            let options = [live(sets[other - 1], reconcile), live(SetId::ALL, reconcile)];
            links.push(Link::new(&mut stores, [0, other], options, [Config::default(), Config::default()]));
        }
        let mut ever: Vec<BTreeSet<u8>> = vec![BTreeSet::new(); 3];
        let mut out: Vec<BTreeSet<u8>> = vec![BTreeSet::new(); 3];
        let mut now = 0;
        let mut next = 1;
        for _ in 0..12 {
            let of = random.random_range(0..3);
            let known: Vec<u8> = (1..next).filter(|&seed| stores[0].find(&key(seed)).is_some()).collect();
            let some = known.get(random.random_range(0..known.len().max(1))).copied();
            match (random.random_range(0..5), some) {
                (0, _) | (_, None) => {
                    write(&mut stores[0], next, random.random_range(0..5));
                    next += 1;
                }
                (1, _) => {
                    write(&mut stores[of + 1], next, random.random_range(1..5));
                    ever[of].insert(next);
                    next += 1;
                }
                (2 | 3, Some(some)) => {
                    let feed = stores[0].find(&key(some)).unwrap();
                    // One that was taken out stays out of what its remote hears in this run, unless it is put in again.
                    stores[0].include(sets[of], feed).unwrap();
                    ever[of].insert(some);
                    out[of].remove(&some);
                }
                (_, Some(some)) => {
                    let feed = stores[0].find(&key(some)).unwrap();
                    if stores[0].exclude(sets[of], feed).unwrap() {
                        out[of].insert(some);
                    }
                }
            }
            if random.random_bool(0.7) {
                settle(&mut stores, &mut links, &mut now);
            }
        }
        settle(&mut stores, &mut links, &mut now);
        for (of, set) in sets.iter().enumerate() {
            for feed in stores[0].feeds_in(*set).collect::<Vec<_>>() {
                let info = stores[0].info(feed).unwrap();
                let there = stores[of + 1].find(&info.key).map(|id| stores[of + 1].info(id).unwrap().downloaded);
                assert!(info.len == 0 || there == Some(info.len), "seed {seed}, set {of}: {there:?} of {}", info.len);
            }
            for seed_of_feed in 1..next {
                if stores[of + 1].find(&key(seed_of_feed)).is_some() {
                    assert!(ever[of].contains(&seed_of_feed), "seed {seed}: feed {seed_of_feed} came into set {of}");
                }
            }
        }
    }
}
