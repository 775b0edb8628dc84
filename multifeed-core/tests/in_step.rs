//! Feeds that both sides held alike, so that no channel is open for them: what is new in one of them makes the session not in sync.

use crate::link;

use std::time::Duration;

use bytes::Bytes;
use link::{Link, Store, run};
use multifeed_core::{Durability, FeedId, KeyPair, MemoryStorage, Multifeed, Options, PeerEvent, Replicate};

const START: Duration = Duration::ZERO;

fn store(durability: Durability) -> Store {
    Multifeed::open(MemoryStorage::default(), Options { durability, ..Options::default() }).unwrap()
}

fn writer(store: &mut Store, seed: u8) -> FeedId {
    store.writer(Some(&format!("writer {seed}")), || KeyPair::from_seed(&[seed; 32])).unwrap()
}

fn append(store: &mut Store, id: FeedId) {
    store.append(id, &[Bytes::from_static(b"block")]).unwrap();
}

/// Two stores that hold the same, and a live session between them that found it out. The feed is the first one's.
fn alike(durability: Durability) -> ([Store; 2], Link, FeedId) {
    let mut stores = [store(durability), store(durability)];
    let id = writer(&mut stores[0], 1);
    append(&mut stores[0], id);
    let mut link = Link::plain(&mut stores, [0, 1], Replicate::default());
    run(&mut stores, std::slice::from_mut(&mut link), START);
    let mut link = Link::plain(&mut stores, [0, 1], Replicate::live());
    for (store, connection) in &link.ends {
        stores[*store].observe(connection.peer());
    }
    run(&mut stores, std::slice::from_mut(&mut link), START);
    assert_eq!(in_sync(&stores, &link), [true, true]);
    (stores, link, id)
}

fn in_sync(stores: &[Store], link: &Link) -> [bool; 2] {
    [0, 1].map(|side| stores[link.ends[side].0].in_sync(link.ends[side].1.peer()))
}

/// Whether the last progress that a side reported was in sync.
fn told_in_sync(link: &Link, side: usize) -> bool {
    let told = |event: &PeerEvent| match event {
        PeerEvent::Progress(state) => Some(state.in_sync),
        _ => None,
    };
    link.events[side].iter().rev().find_map(told).expect("no progress was reported")
}

/// The store holds the block back until it is synced: the remote lacks it meanwhile.
#[test]
fn a_block_that_is_not_synced_yet_makes_it_not_in_sync() {
    let interval = Duration::from_secs(5);
    let (mut stores, mut link, id) = alike(Durability::Interval(interval));
    append(&mut stores[0], id);
    stores[0].commit(START);
    run(&mut stores, std::slice::from_mut(&mut link), START);
    assert_eq!(stores[1].feeds().map(|id| stores[1].info(id).unwrap().len).sum::<u64>(), 1, "it is synced already");
    assert!(!in_sync(&stores, &link)[0]);
    assert!(!told_in_sync(&link, 0));
    let feed = stores[0].feed_sync_state(id, START);
    assert_eq!((feed.sessions, feed.sessions_in_sync), (1, 0));

    let later = interval * 2;
    stores[0].handle_timeout(later);
    run(&mut stores, std::slice::from_mut(&mut link), later);
    assert_eq!(stores[1].feeds().map(|id| stores[1].info(id).unwrap().len).sum::<u64>(), 2);
    assert_eq!(in_sync(&stores, &link), [true, true]);
    assert!(told_in_sync(&link, 0));
}

/// What is appended or made while a live session ends does not reach the remote, and the end does not say that it did.
#[test]
fn what_is_new_while_a_session_ends_makes_it_not_in_sync() {
    for makes_feed in [false, true] {
        let (mut stores, mut link, mut id) = alike(Durability::None);
        let peer = link.ends[0].1.peer();
        stores[0].finish(peer);
        if makes_feed {
            id = writer(&mut stores[0], 2);
        }
        append(&mut stores[0], id);
        run(&mut stores, std::slice::from_mut(&mut link), START);
        assert!(link.result(0).is_some_and(Result::is_ok), "{:?}", link.result(0));
        assert_eq!(
            stores[1].feeds().map(|id| stores[1].info(id).unwrap().downloaded).sum::<u64>(),
            1,
            "it reached the remote"
        );
        assert!(!in_sync(&stores, &link)[0], "a new feed: {makes_feed}");
        assert!(!told_in_sync(&link, 0), "a new feed: {makes_feed}");
        // The remote never heard of it.
        assert!(in_sync(&stores, &link)[1], "a new feed: {makes_feed}");
    }
}
