//! Sessions that are not live with a store that is still being sent blocks of the same feed by somebody else. They hear of those, and what
//! they report at their end is true.

use crate::common;
use crate::link;

use std::time::Duration;

use bytes::Bytes;
use common::key_pair;
use link::{Link, Store, run, store};
use multifeed_core::Replicate;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const SERVER: usize = 0;
const WRITER: usize = 1;
const READER: usize = 2;

/// An empty server, a writer of 20 blocks, and a reader that was sent some of them before its session broke.
fn start() -> Vec<Store> {
    let mut stores: Vec<Store> = (0..3).map(|_| store()).collect();
    let id = stores[WRITER].writer(Some("w"), || key_pair(1)).unwrap();
    stores[WRITER].append(id, &[0; 20].map(|_| Bytes::from(vec![7; 5_000]))).unwrap();
    let mut broken = Link::plain(&mut stores, [WRITER, READER], Replicate::default());
    broken.chunk = 1_000;
    while held(&mut stores, READER) < 5 {
        assert!(broken.turn(&mut stores, Duration::ZERO));
    }
    for (store, connection) in &broken.ends {
        let peer = connection.peer();
        stores[*store].disconnect(peer);
    }
    assert!((5..20).contains(&held(&mut stores, READER)));
    stores
}

fn held(stores: &mut [Store], at: usize) -> u64 {
    let id = stores[at].find(&key_pair(1).public_key());
    id.map_or(0, |id| stores[at].info(id).unwrap().downloaded)
}

/// Both come to the server at once; the writer's link is the slower one.
fn links(stores: &mut [Store]) -> [Link; 2] {
    let mut writer = Link::plain(stores, [WRITER, SERVER], Replicate::default());
    writer.chunk = 500;
    let reader = Link::plain(stores, [READER, SERVER], Replicate::default());
    [writer, reader]
}

#[test]
fn who_has_holes_hears_of_what_comes_from_others() {
    let mut stores = start();
    let mut links = links(&mut stores);
    // Until the writer has something to bring, the server knows of nothing to come.
    while held(&mut stores, SERVER) == 0 {
        assert!(links[0].turn(&mut stores, Duration::ZERO));
    }
    run(&mut stores, &mut links, Duration::ZERO);
    assert_eq!([SERVER, READER].map(|at| held(&mut stores, at)), [20, 20]);
    for link in &links {
        for side in 0..2 {
            let totals = link.totals(side);
            assert_eq!((totals.missing, totals.holes.len()), (0, 0));
        }
    }
}

/// Who stops to bring anything does not keep others.
#[test]
fn nobody_is_held_for_long_by_one_that_brings_nothing() {
    let mut stores = start();
    let [mut writer, reader] = links(&mut stores);
    while held(&mut stores, SERVER) == 0 {
        assert!(writer.turn(&mut stores, Duration::ZERO));
    }
    let mut links = [reader];
    run(&mut stores, &mut links, Duration::ZERO);
    assert!(links[0].result(0).is_none(), "the writer may go on");
    let mut now = Duration::ZERO;
    while links[0].result(0).is_none() || links[0].result(1).is_none() {
        now += Duration::from_secs(1);
        // What the writer was asked for is asked of others after 20 s at the most.
        assert!(now <= Duration::from_secs(30), "it is held for ever");
        stores.iter_mut().for_each(|store| _ = store.poll_timeout());
        stores.iter_mut().for_each(|store| store.handle_timeout(now));
        run(&mut stores, &mut links, now);
    }

    let holes = &links[0].totals(0).holes;
    assert_eq!(holes.iter().map(|holes| holes.blocks).sum::<u64>(), 20 - held(&mut stores, READER));
}

/// Five copies of one store bring it to one server at once: none of them reports that the server did not take what others brought.
#[test]
fn what_others_brought_counts_as_taken() {
    for round in 0..20 {
        let mut stores: Vec<Store> = (0..6).map(|_| store()).collect();
        for copy in &mut stores[1..] {
            for feed in 0..4 {
                let id = copy.writer(Some(&feed.to_string()), || key_pair(feed)).unwrap();
                copy.append(id, &[0; 20].map(|_| Bytes::from(vec![7; 100]))).unwrap();
            }
        }
        let begin = |copy| Link::plain(&mut stores, [copy, SERVER], Replicate::default());
        let mut links: Vec<Link> = (1..6).map(begin).collect();
        for (at, link) in links.iter_mut().enumerate() {
            link.chunk = [70, 300, 1_000, 3_000, 20_000][(at * (round % 4 + 1) + round) % 5];
            for (store, connection) in &link.ends {
                stores[*store].observe(connection.peer());
            }
        }
        run(&mut stores, &mut links, Duration::ZERO);
        for second in 0..40 {
            stores.iter_mut().for_each(|store| store.handle_timeout(Duration::from_secs(second)));
            run(&mut stores, &mut links, Duration::from_secs(second));
        }
        for (at, link) in links.iter().enumerate() {
            for side in 0..2 {
                let totals = link.totals(side);
                let end = (totals.missing, totals.not_taken, totals.holes.len());
                assert_eq!(end, (0, 0, 0), "round {round}, copy {at}, side {side}");
                let peer = link.ends[side].1.peer();
                assert!(stores[link.ends[side].0].in_sync(peer), "round {round}, copy {at}, side {side}");
            }
        }
    }
}

/// Copies that come one after the other, each at a speed that changes: nothing is claimed of what is only on its way.
#[test]
fn what_is_on_its_way_is_waited_for() {
    // Among them are those that showed a block as lacking that the remote had (760), and one that was announced after the end (17, 32, 73).
    for seed in (0..36).chain([73, 101, 111, 184, 760]) {
        let mut rng = StdRng::seed_from_u64(seed);
        let copies = rng.random_range(2..6);
        let feeds: u8 = rng.random_range(1..21);
        let mut stores: Vec<Store> = (0..=copies).map(|_| store()).collect();
        for copy in &mut stores[1..] {
            for feed in 0..feeds {
                let id = copy.writer(Some(&feed.to_string()), || key_pair(feed)).unwrap();
                copy.append(id, &[0; 20].map(|_| Bytes::from(vec![7; 70]))).unwrap();
            }
        }
        let mut start: Vec<usize> = (0..copies).map(|_| rng.random_range(0..400)).collect();
        start[0] = 0;
        let mut speeds: Vec<u32> = (0..copies).map(|_| rng.random_range(1..10)).collect();
        let mut links: Vec<(usize, Link)> = Vec::new();
        let (mut now, mut idle) = (Duration::ZERO, 0);
        let over = |links: &[(usize, Link)]| {
            links.len() == copies && links.iter().all(|(_, link)| (0..2).all(|side| link.result(side).is_some()))
        };
        for step in 0.. {
            for copy in (0..copies).filter(|&copy| start[copy] == step) {
                let mut link = Link::plain(&mut stores, [copy + 1, SERVER], Replicate::default());
                link.chunk = [70, 300, 1_000, 3_000, 20_000][rng.random_range(0..5)];
                link.ends.iter().for_each(|(store, connection)| stores[*store].observe(connection.peer()));
                links.push((copy, link));
            }
            let mut moved = false;
            for (copy, link) in &mut links {
                if rng.random_range(0..10) < speeds[*copy] {
                    moved |= link.turn(&mut stores, now);
                }
            }
            if rng.random_range(0..50) == 0 {
                speeds.iter_mut().for_each(|speed| *speed = rng.random_range(1..10));
            }
            idle = if moved { 0 } else { idle + 1 };
            if idle > 40 {
                (now, idle) = (now + Duration::from_secs(1), 0);
                stores.iter_mut().for_each(|store| _ = store.poll_timeout());
                stores.iter_mut().for_each(|store| store.handle_timeout(now));
            }
            if over(&links) {
                break;
            }
            assert!(now < Duration::from_secs(100), "seed {seed}: it goes on");
        }
        for (copy, link) in &links {
            for side in 0..2 {
                let totals = link.totals(side);
                let in_sync = stores[link.ends[side].0].in_sync(link.ends[side].1.peer());
                let end = (totals.missing, totals.not_taken, in_sync);
                assert_eq!(end, (0, 0, true), "seed {seed}, copy {copy}, side {side}");
            }
        }
    }
}
