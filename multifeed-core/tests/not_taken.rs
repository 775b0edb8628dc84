//! What a remote does not take of what it is offered is counted, and nothing else is.

use crate::link;
use crate::long;
use crate::played;

use std::time::Duration;

use bytes::Bytes;
use link::{Link, Store, run};
use multifeed_core::{
    Answer, Feed, KeyPair, Limits, MemoryStorage, Multifeed, Options, PeerEvent, Policy, Remote, Replicate, Slot,
    prepare,
};
use multifeed_proto::{Command, Event, Fault, FeedKey, Have, Message, Origin, Request, Root, SessionError, Token};
use played::Played;

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

const MI: u64 = 1 << 20;

/// A remote that offers nothing takes these.
fn agree(played: &mut Played, keys: Vec<FeedKey>) {
    let root = Root::FIRST;
    played.event(Event::Manifest { root, keys: vec![], fields: None });
    played.event(Event::Replicate { root, keys: vec![], origin: Origin::Remote });
    played.event(Event::Replicate { root, keys, origin: Origin::Local });
}

/// Of two feeds the remote takes one, and says that it is done with it; then that one grows.
#[test]
fn what_comes_after_a_channel_closed_is_counted() {
    for (observed, grows) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut played = Played::start(writes(0..2, 1), Replicate::default(), false);
        if observed {
            played.store.observe(played.peer);
        }
        agree(&mut played, (0..2).map(|number| pair(number).public_key()).collect());
        let opened = played.commands().into_iter().find_map(|command| match command {
            Command::Open { token: Token(0), key } => Some(key),
            _ => None,
        });
        let first = played.store.find(&opened.unwrap()).unwrap();
        for token in [Token(0), Token(1)] {
            played.event(Event::Opened { token });
            for message in [
                Message::Want { start: 0, length: MI },
                Message::Have(Have { start: 0, length: MI, bitfield: Some(Bytes::new()), ack: false }),
                Message::Request(Request { index: 0, bytes: 0, hash: false, nodes: 0 }),
            ] {
                played.event(Event::Message { token, message });
            }
            let sent = |command: &Command| matches!(command, Command::Send { message: Message::Data(_), .. });
            assert!(played.commands().iter().any(sent));
            let done = Message::Status { uploading: true, downloading: false };
            let acknowledged = Message::Have(Have { start: 0, length: 1, bitfield: None, ack: true });
            for message in [acknowledged, done] {
                played.event(Event::Message { token, message });
            }
            assert!(played.commands().contains(&Command::Close { token }));
            if grows && token == Token(0) {
                played.store.append(first, &[Bytes::from_static(b"more")]).unwrap();
                played.store.commit(played.now);
            }
        }
        played.event(Event::Closed(Ok(())));
        let Some(PeerEvent::Closed(Ok(totals))) = played.events().pop() else { panic!("it failed") };
        let case = format!("observed {observed}, grows {grows}: {totals:?}");
        assert_eq!((totals.not_taken, played.store.in_sync(played.peer)), (u64::from(grows), !grows), "{case}");
    }
}

/// A feed is through, and its channel closed, as the remote tells of one more block of it.
#[test]
fn what_is_heard_after_a_channel_closed_is_missing() {
    let mut stores = [writes(0..1, 1), limited(|_| ())];
    sync(&mut stores, [Replicate::default(), Replicate::default()]);
    let [_, store] = stores;
    let mut disk = MemoryStorage::new();
    let mut feed = Feed::create(&mut disk, Slot(0), pair(0).public_key(), Some(&pair(0)), None).unwrap();
    feed.append(&mut disk, &[Bytes::from(vec![7; 100])]).unwrap();
    // On its way, or reported by the session as too late.
    let have = |start| Message::Have(Have { start, length: 1, bitfield: None, ack: false });
    let on_its_way = |start| Event::Message { token: Token(0), message: have(start) };
    let late = |start| Event::LateHave { token: Token(0), blocks: start..start + 1 };
    let heard: [Option<Event>; 5] = [None, Some(on_its_way(0)), Some(late(0)), Some(on_its_way(1)), Some(late(1))];
    let mut played = Played::start(store, Replicate::default(), false);
    for (at, event) in heard.into_iter().enumerate() {
        let lacks = at > 2;
        let Played { store, now, .. } = played;
        played = Played::start(store, Replicate::default(), false);
        played.now = now;
        agree(&mut played, vec![pair(0).public_key()]);
        played.event(Event::Opened { token: Token(0) });
        for message in [
            Message::Want { start: 0, length: MI },
            // It has the block.
            Message::Have(Have { start: 0, length: MI, bitfield: Some(Bytes::from_static(&[2, 0x80])), ack: false }),
        ] {
            played.event(Event::Message { token: Token(0), message });
        }
        // Its history is looked at.
        let asked = played.commands().into_iter().find_map(|command| match command {
            Command::Send { message: Message::Request(request), .. } => Some(request),
            _ => None,
        });
        let Answer::Data(data) = feed.answer(&mut disk, &asked.unwrap()).unwrap() else { panic!("no answer") };
        for message in [Message::Data(data), Message::Status { uploading: true, downloading: false }] {
            played.event(Event::Message { token: Token(0), message });
        }
        assert!(played.commands().contains(&Command::Close { token: Token(0) }), "{at}");
        event.into_iter().for_each(|event| played.event(event));
        played.event(Event::Closed(Ok(())));
        let Some(PeerEvent::Closed(Ok(totals))) = played.events().pop() else { panic!("{at}: it failed") };
        let in_sync = played.store.in_sync(played.peer);
        assert_eq!((totals.missing, in_sync), (u64::from(lacks), !lacks), "{at}: {totals:?}");
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
