//! Stores with as many feeds as they may have: every session makes progress, and nobody is kept out for good.

#[path = "common/link.rs"]
mod link;

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
    store.feeds().filter(|&id| store.info(id).downloaded > 0).count()
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

/// `MANY=65536 cargo test -p multifeed-core --release --test many_feeds -- --ignored --nocapture`
#[test]
#[ignore = "takes minutes"]
fn as_many_as_told() {
    let many: u32 = std::env::var("MANY").map_or(65_536, |many| many.parse().unwrap());
    let mut stores = [store(many as usize), store(many as usize)];
    write(&mut stores[0], 0..many);
    for options in ways() {
        stores[1] = store(many as usize);
        let begun = std::time::Instant::now();
        let mut links = [Link::plain(&mut stores, [0, 1], options.clone())];
        run(&mut stores, &mut links, START);
        println!(
            "live {}, reconciles {:?}: {} of {many} in {:?}, {:?}",
            options.live,
            options.reconcile,
            held(&stores[1]),
            begun.elapsed(),
            links[0].result(1).map(|end| end.as_ref().map(|totals| totals.feeds).map_err(|error| error.to_string()))
        );
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
    for (options, open) in ways().flat_map(|options| [(options.clone(), [1, 1]), (options.clone(), [7, 3]), (options, [16, 16])]) {
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
            assert_eq!((stores[1].info(id).downloaded, held(&stores[0])), (2, 160));
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
