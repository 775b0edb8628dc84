//! What a remote does not take of what it is offered is counted, and nothing else is.

use crate::link;
use crate::long;

use std::time::Duration;

use bytes::Bytes;
use link::{Link, Store, run};
use multifeed_core::{
    Feed, KeyPair, Limits, MemoryStorage, Multifeed, Options, PeerEvent, Policy, Remote, Replicate, Slot, prepare,
};
use multifeed_proto::{Fault, FeedKey, SessionError};

const START: Duration = Duration::ZERO;

fn pair(number: u32) -> KeyPair {
    let mut seed = [6; 32];
    seed[..4].copy_from_slice(&number.to_le_bytes());
    KeyPair::from_seed(&seed)
}

fn limited(change: impl FnOnce(&mut Limits)) -> Store {
    let mut options = Options::default();
    change(&mut options.limits);
    Multifeed::open(MemoryStorage::default(), options).unwrap()
}

/// A store that writes feeds of so many blocks of a hundred bytes.
fn writes(numbers: std::ops::Range<u32>, blocks: usize) -> Store {
    let mut store = limited(|_| ());
    for number in numbers {
        let id = store.writer(Some(&number.to_string()), || pair(number)).unwrap();
        store.append(id, &vec![Bytes::from(vec![7; 100]); blocks]).unwrap();
    }
    store.commit(START);
    while store.poll_event().is_some() {}
    store
}

fn ways() -> [Replicate; 2] {
    [true, false].map(|reconcile| Replicate { reconcile: Some(reconcile), ..Replicate::default() })
}

/// Syncs two stores. How many feeds of each were not taken by the other.
fn sync(stores: &mut [Store; 2], options: [Replicate; 2]) -> [u64; 2] {
    let mut links = [Link::new(stores, [0, 1], options, Default::default())];
    for second in 0..40 {
        let now = Duration::from_secs(second);
        stores.iter_mut().for_each(|store| store.handle_timeout(now));
        run(stores, &mut links, now);
    }
    [0, 1].map(|side| links[0].totals(side).not_taken)
}

#[test]
fn what_both_take_is_not_counted() {
    for options in ways() {
        let mut stores = [writes(0..20, 3), writes(10_000..10_020, 700)];
        assert_eq!(sync(&mut stores, [options.clone(), options.clone()]), [0, 0], "{options:?}");
        // Nothing is left, and one that grew.
        assert_eq!(sync(&mut stores, [options.clone(), options.clone()]), [0, 0], "{options:?}");
        let id = stores[0].find(&pair(3).public_key()).unwrap();
        stores[0].append(id, &[Bytes::from_static(b"more")]).unwrap();
        assert_eq!(sync(&mut stores, [options.clone(), options.clone()]), [0, 0], "{options:?}");
        // A third one, which takes what is the others' own and what is not.
        let [first, _] = stores;
        let mut stores = [limited(|_| ()), first];
        assert_eq!(sync(&mut stores, [options.clone(), options.clone()]), [0, 0], "{options:?}");
        assert_eq!(stores[0].feeds().count(), 40);
    }
}

#[test]
fn what_is_past_a_bound_of_the_remotes_store_is_counted() {
    // One of ours tells of blocks that it was sent and did not store. JS has no such bound.
    for options in [Replicate::default()] {
        let ways = [options.clone(), options.clone()];
        // Feeds.
        let mut stores = [writes(0..5, 2), limited(|limits| limits.peer.feeds = 3)];
        assert_eq!(sync(&mut stores, ways.clone()), [2, 0], "{options:?}");
        let mut stores = [writes(0..5, 2), limited(|limits| limits.peer.feeds = 0)];
        assert_eq!(sync(&mut stores, ways.clone()), [5, 0], "{options:?}");
        // Bytes, in the middle of a feed, at its end, and before the next one.
        for bytes in [550, 1000, 1050] {
            let mut stores = [writes(0..1, 10), limited(|limits| limits.peer.bytes = bytes)];
            let not_taken = sync(&mut stores, ways.clone());
            let all = stores[1].feeds().all(|id| stores[1].info(id).unwrap().downloaded == 10);
            assert_eq!((not_taken, all), ([u64::from(bytes < 1000), 0], bytes >= 1000), "{bytes}: {options:?}");
        }
        // Feeds that are too long, and too large.
        let mut stores = [writes(0..2, 10), limited(|limits| limits.feed_blocks = 9)];
        assert_eq!(sync(&mut stores, ways.clone()), [2, 0], "{options:?}");
        let mut stores = [writes(0..2, 1), limited(|limits| limits.feed_bytes = 99)];
        assert_eq!(sync(&mut stores, ways.clone()), [2, 0], "{options:?}");
    }
}

#[derive(Debug)]
struct Wants(FeedKey);

impl Policy for Wants {
    fn wants(&self, key: &FeedKey, _: &Remote) -> bool {
        *key == self.0
    }
}

#[test]
fn what_the_remotes_application_does_not_want_is_counted() {
    for options in ways() {
        let mut stores = [writes(0..5, 2), writes(10..12, 2)];
        let chooses = options.clone().with_policy(Wants(pair(3).public_key()));
        assert_eq!(sync(&mut stores, [options.clone(), chooses]), [4, 0], "{options:?}");
        // What is not served is not counted.
        let mut stores = [writes(0..5, 2), writes(10..12, 2)];
        let chooses = options.clone().with_policy(Wants(pair(3).public_key()));
        assert_eq!(sync(&mut stores, [options.clone().download_only(), chooses]), [0, 0], "{options:?}");
        // Nor is a side that takes nothing at all not seen.
        let mut stores = [writes(0..5, 2), limited(|_| ())];
        assert_eq!(sync(&mut stores, [options.clone(), options.upload_only()]), [5, 0]);
    }
}

/// A writer signs a first block of any size, and makes the second one.
#[test]
fn a_feed_whose_bytes_are_claimed_is_refused_by_name_and_the_others_come() {
    let default = Options::default().limits.feed_bytes;
    for (limit, claimed) in [(default, default), (default, (1 << 53) - 1000), (1000, 1001)] {
        let mut storage = MemoryStorage::new();
        let mut feed = Feed::create(&mut storage, Slot(0), pair(0).public_key(), None, None).unwrap();
        let block = Bytes::from_static(b"the only block");
        feed.put(&mut storage, prepare(long::claim_bytes(&pair(0), claimed, &block))).unwrap();
        feed.flush(&mut storage).unwrap();
        let mut hostile = Multifeed::open(storage, Options::default()).unwrap();
        let id = hostile.writer(Some("w"), || pair(1)).unwrap();
        hostile.append(id, &[Bytes::from_static(b"x")]).unwrap();
        let mut stores = [hostile, limited(|limits| limits.feed_bytes = limit)];
        let mut links = [Link::plain(&mut stores, [0, 1], Replicate::default())];
        run(&mut stores, &mut links, START);
        let refused: Vec<_> = links[0].events[1]
            .iter()
            .filter_map(|event| match event {
                PeerEvent::LimitReached(error) => Some(error),
                _ => None,
            })
            .collect();
        let [error @ SessionError::FeedTooLarge { feed, bytes, limit: told }] = refused[..] else {
            panic!("{refused:?}")
        };
        assert_eq!((error.code(), error.fault()), ("ERR_LIMIT", Fault::Limit));
        assert_eq!((*feed, *bytes, *told), (pair(0).public_key(), claimed + block.len() as u64, limit));
        assert!(links[0].totals(1).blocks_received == 1 && links[0].totals(0).not_taken == 1);
        let held: Vec<FeedKey> = stores[1].feeds().map(|id| stores[1].info(id).unwrap().key).collect();
        assert_eq!(held, [pair(1).public_key()]);
    }
}
