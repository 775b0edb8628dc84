//! Stores with as many feeds as they may have: every session makes progress, and nobody is kept out for good.

use crate::link;

use std::time::Duration;

use bytes::Bytes;
use link::{Link, Store, run};
use multifeed_core::{KeyPair, MemoryStorage, Multifeed, Options, Replicate};
use multifeed_proto::Config;

const START: Duration = Duration::ZERO;

fn pair(number: u32) -> KeyPair {
    let mut seed = [5; 32];
    seed[..4].copy_from_slice(&number.to_le_bytes());
    KeyPair::from_seed(&seed)
}

fn store(feeds: usize) -> Store {
    let mut options = Options::default();
    (options.limits.feeds, options.limits.feeds_offered) = (feeds, feeds);
    Multifeed::open(MemoryStorage::default(), options).unwrap()
}

fn write(store: &mut Store, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let id = store.writer(Some(&format!("writer {number}")), || pair(number)).unwrap();
        store.append(id, &[Bytes::from_static(b"x")]).unwrap();
    }
    store.commit(START);
    while store.poll_event().is_some() {}
}

fn held(store: &Store) -> usize {
    store.feeds().filter(|&id| store.info(id).unwrap().downloaded > 0).count()
}

fn ways() -> impl Iterator<Item = Replicate> {
    [(false, true), (false, false), (true, true), (true, false)].into_iter().map(|(live, reconcile)| Replicate {
        live,
        reconcile: Some(reconcile),
        ..Replicate::default()
    })
}

#[test]
fn a_store_at_its_limit_is_synced_whole() {
    for options in ways() {
        let mut stores = [store(300), store(300)];
        write(&mut stores[0], 0..300);
        let mut config = Config::default();
        config.limits.channels = 300;
        let mut links = [Link::new(&mut stores, [0, 1], [options.clone(), options.clone()], [config.clone(), config])];
        run(&mut stores, &mut links, START);
        if let Some(Err(error)) = links[0].result(1) {
            panic!("{error}");
        }
        assert_eq!(held(&stores[1]), 300, "{options:?}");
    }
}

/// `MULTIFEED_FEEDS=100000` for a long run.
#[test]
fn many_feeds_are_synced_with_the_default_limits() {
    let count: u32 = std::env::var("MULTIFEED_FEEDS").map_or(1200, |count| count.parse().unwrap());
    let mut stores = [limited(|_| ()), limited(|_| ())];
    write(&mut stores[0], 0..count);
    for options in ways() {
        stores[1] = limited(|_| ());
        let mut links = [Link::plain(&mut stores, [0, 1], options.clone())];
        run(&mut stores, &mut links, START);
        assert_eq!(held(&stores[1]), count as usize, "{options:?}");
        assert!(links[0].result(1).is_none_or(Result::is_ok));
    }
}

/// Stores that take their feeds a few at a time.
fn store_of_turns(feeds: usize, open: usize) -> Store {
    let mut options = Options::default();
    (options.limits.feeds, options.limits.feeds_offered) = (feeds, feeds);
    (options.limits.feeds_open, options.limits.feeds_asked) = (open, open);
    Multifeed::open(MemoryStorage::default(), options).unwrap()
}

#[test]
fn feeds_have_their_turn_a_few_at_a_time() {
    for (options, open) in
        ways().flat_map(|options| [(options.clone(), [1, 1]), (options.clone(), [7, 3]), (options, [16, 16])])
    {
        let mut stores = open.map(|open| store_of_turns(400, open));
        // Some are written at either side, some came to both before, and grew at one.
        write(&mut stores[0], 0..60);
        write(&mut stores[1], 100..160);
        let mut links = [Link::plain(&mut stores, [0, 1], options.clone())];
        let mut most = 0;
        while links[0].turn(&mut stores, START) {
            most = most.max((0..2).map(|side| open_channels(&stores[side], &links[0], side)).max().unwrap());
        }
        assert_eq!([held(&stores[0]), held(&stores[1])], [120, 120], "{options:?} {open:?}");
        if options.live {
            // A feed whose channel is open goes on.
            let id = stores[0].find(&pair(5).public_key()).unwrap();
            stores[0].append(id, &[Bytes::from_static(b"more")]).unwrap();
            write(&mut stores[1], 160..200);
            run(&mut stores, &mut links, START);
            let id = stores[1].find(&pair(5).public_key()).unwrap();
            assert_eq!((stores[1].info(id).unwrap().downloaded, held(&stores[0])), (2, 160));
        } else {
            assert!(most <= 2 * open[0].max(open[1]), "{most} channels at once, {open:?}");
            for side in 0..2 {
                assert_eq!(links[0].totals(side).feeds, 120);
                assert!(links[0].totals(side).holes.is_empty());
            }
            assert!(stores[0].in_sync(links[0].ends[0].1.peer()), "{options:?} {open:?}");
        }
    }
}

/// How many feeds a session speaks of at this time.
fn open_channels(store: &Store, link: &Link, side: usize) -> usize {
    let peer = link.ends[side].1.peer();
    store.feeds().filter(|&id| store.peers(id).iter().any(|(of, _)| *of == peer)).count()
}

fn limited(change: impl FnOnce(&mut multifeed_core::Limits)) -> Store {
    let mut options = Options::default();
    change(&mut options.limits);
    Multifeed::open(MemoryStorage::default(), options).unwrap()
}

/// The feeds of others take no room from those that are written here.
#[test]
fn writers_have_room_in_a_store_that_others_filled() {
    let mut stores = [store(400), limited(|limits| limits.feeds = 300)];
    write(&mut stores[0], 0..400);
    run_one(&mut stores, Replicate::default());
    assert_eq!(held(&stores[1]), 300);
    write(&mut stores[1], 1000..1050);
    assert_eq!(held(&stores[1]), 350);
    assert!(matches!(stores[1].add(pair(7777).public_key()), Err(multifeed_core::StoreError::TooManyFeeds { .. })));
    // It serves all of it, and takes what is new of the feeds that are here.
    for number in 0..400 {
        let id = stores[0].find(&pair(number).public_key()).unwrap();
        stores[0].append(id, &[Bytes::from_static(b"y")]).unwrap();
    }
    stores[0].commit(START);
    run_one(&mut stores, Replicate::default());
    let blocks: u64 = stores[1].feeds().map(|id| stores[1].info(id).unwrap().downloaded).sum();
    assert_eq!(blocks, 2 * 300 + 50);
    let mut pair_of_stores = {
        let [_, second] = stores;
        [second, store(400)]
    };
    run_one(&mut pair_of_stores, Replicate::default());
    assert_eq!(held(&pair_of_stores[1]), 350);
}

fn run_one(stores: &mut [Store; 2], options: Replicate) -> Link {
    let mut links = [Link::plain(stores, [0, 1], options)];
    run(stores, &mut links, START);
    let [link] = links;
    link
}

/// A peer that comes again and again brings no more than it may, and others have their room.
#[test]
fn what_one_peer_brings_is_summed_up_over_its_sessions() {
    let from = |address: &str| Replicate { source: Some(address.to_owned()), ..Replicate::default() };
    let mut store_of_all = limited(|limits| (limits.peer.feeds, limits.peer.bytes) = (100, 10_000));
    let mut brought = 0;
    for round in 0..10 {
        let mut stores = [store(400), store_of_all];
        write(&mut stores[0], round * 60..round * 60 + 60);
        run_one(&mut stores, from("10.0.0.1"));
        let [_, second] = stores;
        store_of_all = second;
        brought = held(&store_of_all);
    }
    assert_eq!(brought, 100);
    // Two sessions at once are one peer too.
    let mut stores = vec![store_of_all, store(400), store(400), store(400)];
    write(&mut stores[1], 2000..2080);
    write(&mut stores[2], 3000..3080);
    write(&mut stores[3], 4000..4080);
    let options = |address: &str| [from("us"), from(address)];
    let configs = || [Config::default(), Config::default()];
    let mut links = [
        Link::new(&mut stores, [1, 0], options("10.0.0.2"), configs()),
        Link::new(&mut stores, [2, 0], options("10.0.0.2"), configs()),
        Link::new(&mut stores, [3, 0], options("10.0.0.3"), configs()),
    ];
    run(&mut stores, &mut links, START);
    let of = |range: std::ops::Range<u32>| range.filter(|&n| stores[0].find(&pair(n).public_key()).is_some()).count();
    assert_eq!((of(2000..2080) + of(3000..3080), of(4000..4080)), (100, 80));
    let told = |event: &multifeed_core::PeerEvent| matches!(event, multifeed_core::PeerEvent::LimitReached(_));
    assert!(links[0].events[1].iter().chain(&links[1].events[1]).any(told));
    assert!(links.iter().all(|link| link.result(1).is_some_and(Result::is_ok)));
}

/// A hostile peer brings as many feeds of one byte as it can, on several sessions, live or not, while honest ones come, and after it.
#[test]
fn one_that_brings_feeds_without_end_keeps_nobody_out() {
    for live in [false, true] {
        let from = |address: &str| Replicate { source: Some(address.to_owned()), live, ..Replicate::default() };
        let victim = limited(|limits| (limits.feeds, limits.feeds_open, limits.peer.feeds) = (400, 16, 150));
        let mut stores = vec![victim, store(2000), store(2000), store(2000), store(2000)];
        write(&mut stores[0], 9000..9010);
        write(&mut stores[1], 0..1000);
        write(&mut stores[2], 1000..2000);
        write(&mut stores[3], 5000..5060);
        write(&mut stores[4], 6000..6060);
        let link = |stores: &mut [Store], side, address| {
            let options = [Replicate { live, ..Replicate::default() }, from(address)];
            Link::new(stores, [side, 0], options, [Config::default(), Config::default()])
        };
        // Both of the hostile sessions are of one address.
        let mut links =
            vec![link(&mut stores, 1, "evil"), link(&mut stores, 2, "evil"), link(&mut stores, 3, "beside")];
        run(&mut stores, &mut links, START);
        links.push(link(&mut stores, 4, "after"));
        run(&mut stores, &mut links, START);
        let of = |range: std::ops::Range<u32>| {
            range.filter(|&number| stores[0].find(&pair(number).public_key()).is_some()).count()
        };
        assert_eq!((of(0..2000), of(5000..5060), of(6000..6060)), (150, 60, 60), "live {live}");
        for link in &links[2..] {
            assert!(if live { link.result(1).is_none() } else { matches!(link.result(1), Some(Ok(_))) });
        }
        // Whoever comes to it next gets all that is there.
        write(&mut stores[0], 9010..9020);
        stores.push(store(2000));
        let mut next = [link(&mut stores, 5, "fresh")];
        run(&mut stores, &mut next, START);
        assert_eq!(held(&stores[5]), 150 + 60 + 60 + 20);
    }
}
