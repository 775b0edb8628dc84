//! Blocks that may take longer to send than a JS peer waits for an answer. The remote is played by hand.

use crate::common;
use crate::link;
use crate::played;

use bytes::Bytes;
use common::key_pair;
use link::Link;
use multifeed_core::{MemoryStorage, Multifeed, Options, PeerEvent, Replicate};
use multifeed_proto::{Command, Event, FeedKey, Have, Message, Origin, Request, Root, Token};
use played::Played;

const TOKEN: Token = Token(0);

/// A store with a feed of two blocks of so many bytes.
fn store(size: usize) -> (Multifeed<MemoryStorage>, FeedKey) {
    let mut store = Multifeed::open(MemoryStorage::default(), Options::default()).unwrap();
    let id = store.writer(Some("w"), || key_pair(1)).unwrap();
    store.append(id, &[7, 8].map(|byte| Bytes::from(vec![byte; size]))).unwrap();
    (store, key_pair(1).public_key())
}

/// A session with a remote that is not of ours, and opened the channel of our feed, of two blocks.
fn start(size: usize, grant: usize) -> (Played, FeedKey) {
    let (store, key) = store(size);
    let mut played = Played::start_with_grant(store, Replicate::live(), true, grant);
    played.event(Event::Manifest { root: Root::FIRST, keys: vec![], fields: None });
    played.event(Event::Replicate { root: Root::FIRST, keys: vec![key], origin: Origin::Local });
    played.commands();
    played.event(Event::Opened { token: TOKEN });
    played.events();
    (played, key)
}

fn ask(played: &mut Played, index: u64) {
    let request = Request { index, bytes: 0, hash: false, nodes: 0 };
    played.event(Event::Message { token: TOKEN, message: Message::Request(request) });
}

/// The remote has a block.
fn acknowledge(played: &mut Played, index: u64) {
    let ack = Have { start: index, length: 1, bitfield: None, ack: true };
    played.event(Event::Message { token: TOKEN, message: Message::Have(ack) });
}

/// Whether a block went out, which then arrives, and what was reported.
fn sent(played: &mut Played) -> (bool, Vec<(FeedKey, u64, u64, u64)>) {
    let data = |command: &Command| match command {
        Command::Send { message: Message::Data(data), .. } => Some(data.index),
        _ => None,
    };
    let sent = played.commands().iter().find_map(data);
    sent.into_iter().for_each(|index| acknowledge(played, index));
    let sent = sent.is_some();
    let reported = played.events().into_iter().filter_map(|event| match event {
        PeerEvent::SlowBlock { key, index, size, per_second } => Some((key, index, size, per_second)),
        _ => None,
    });
    (sent, reported.collect())
}

#[test]
fn it_is_reported_once_for_a_feed_as_it_is_sent() {
    let (mut played, key) = start(200_000, usize::MAX);
    ask(&mut played, 0);
    assert_eq!(sent(&mut played), (true, vec![]), "the rate is not known");
    // 9.95 s.
    played.store.set_send_rate(played.peer, 20_100, 0);
    ask(&mut played, 0);
    assert_eq!(sent(&mut played), (true, vec![]));
    played.store.set_send_rate(played.peer, 20_000, 0);
    assert_eq!(sent(&mut played), (false, vec![]), "nothing is on its way");
    ask(&mut played, 1);
    assert_eq!(sent(&mut played), (true, vec![(key, 1, 200_000, 20_000)]));
    ask(&mut played, 0);
    assert_eq!(sent(&mut played), (true, vec![]), "it was said");
}

/// The first block of a session goes out before any rate is known.
#[test]
fn one_on_its_way_is_reported_as_soon_as_the_rate_is_known() {
    let (mut played, key) = start(200_000, 100_000);
    ask(&mut played, 0);
    assert_eq!(sent(&mut played), (true, vec![]));
    played.store.set_send_rate(played.peer, 5_000, 0);
    assert_eq!(sent(&mut played), (false, vec![(key, 0, 200_000, 5_000)]));
    played.store.set_send_rate(played.peer, 4_000, 0);
    assert_eq!(sent(&mut played), (false, vec![]), "it was said");
}

/// Once all of it went out, it can no longer be late.
#[test]
fn one_that_went_out_is_not_reported() {
    let (mut played, _) = start(200_000, 100_000);
    ask(&mut played, 0);
    assert_eq!(sent(&mut played), (true, vec![]));
    played.store.grant(played.peer, 200_000);
    played.store.set_send_rate(played.peer, 5_000, 0);
    assert_eq!(sent(&mut played), (false, vec![]));
}

/// Thousands of requests for the largest blocks, of a remote that reads nothing: one answer waits, and each further one is read when there is
/// room for it.
#[test]
fn large_answers_are_read_one_at_a_time() {
    const LARGE: usize = (8 << 20) - (16 << 10);
    let (mut played, _) = start(LARGE, 0);
    let mut answers = 0;
    let mut bytes = 0;
    let mut count = |played: &mut Played| {
        for command in played.commands() {
            if let Command::Send { message: Message::Data(data), .. } = command {
                answers += 1;
                bytes += data.value.map_or(0, |value| value.len());
            }
        }
        (answers, bytes)
    };
    for index in 0..4_000 {
        ask(&mut played, index % 2);
        assert!(count(&mut played).0 <= 1, "{index} requests");
    }
    let waiting = count(&mut played).0;
    for room in 1..=3 {
        played.store.grant(played.peer, LARGE);
        (0..2).for_each(|index| acknowledge(&mut played, index));
        let sent = count(&mut played);
        assert!(sent.0 <= waiting + room && sent.1 == sent.0 * LARGE, "{sent:?}, and room for {room}");
    }
    assert!(count(&mut played).0 > 1, "it goes on once there is room");
}

/// Blocks go out as others arrive; hashes and news go out without waiting for that. What is not acknowledged is waited for 5 s.
#[test]
fn a_js_peer_is_not_sent_far_ahead() {
    let (mut played, _) = start(40_000, usize::MAX);
    let indexes = |played: &mut Played| {
        let data = |command| match command {
            Command::Send { message: Message::Data(data), .. } => Some((data.index, data.value.is_some())),
            _ => None,
        };
        played.commands().into_iter().filter_map(data).collect::<Vec<_>>()
    };
    (0..10).for_each(|n| ask(&mut played, n % 2));
    assert_eq!(indexes(&mut played), [(0, true), (1, true)]);
    let hash = Request { index: 1, bytes: 0, hash: true, nodes: 0 };
    played.event(Event::Message { token: TOKEN, message: Message::Request(hash) });
    assert_eq!(indexes(&mut played), [(1, false)]);
    // All of it came at once, after a round trip: nothing says yet that the link is slow.
    played.millis(4_000);
    acknowledge(&mut played, 1);
    assert_eq!(indexes(&mut played), [0, 1, 0, 1, 0, 1, 0].map(|index| (index, true)));
    played.millis(8_999);
    assert_eq!(indexes(&mut played), []);
    played.millis(14_000);
    assert_eq!(indexes(&mut played), [(1, true)]);
}

#[test]
fn a_rate_of_nothing_is_no_fault() {
    let (mut played, key) = start(100, usize::MAX);
    played.store.set_send_rate(played.peer, 0, 0);
    ask(&mut played, 0);
    assert_eq!(sent(&mut played).1, [(key, 0, 100, 0)]);
}

/// One of ours waits as long as bytes come.
#[test]
fn one_of_ours_is_not_concerned() {
    let (left, _) = store(200_000);
    let right = Multifeed::open(MemoryStorage::default(), Options::default()).unwrap();
    let mut stores = [left, right];
    let mut links = [Link::plain(&mut stores, [0, 1], Replicate::default())];
    let peer = links[0].ends[0].1.peer();
    stores[0].set_send_rate(peer, 1_000, 0);
    link::run(&mut stores, &mut links, std::time::Duration::ZERO);
    assert_eq!(links[0].totals(1).blocks_received, 2);
    assert!(!links[0].events[0].iter().any(|event| matches!(event, PeerEvent::SlowBlock { .. })));
}
