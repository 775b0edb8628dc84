//! Two sessions on a pipe, on virtual time.
#![allow(missing_docs, clippy::disallowed_methods, clippy::disallowed_types)]

use crate::common;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::*;
use multifeed_proto::wire::message::kind;
use multifeed_proto::*;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

fn shared() -> [FeedKey; 3] {
    [key(1), key(2), key(3)]
}

/// Both sides offer, request, open, and send a block each way on each feed.
fn converse(mut sizes: impl FnMut() -> usize) -> Pair {
    let [x, y, z] = shared();
    let mut pair = Pair::offering(&[x, y], &[y, z]);
    pair.run_chunked(&mut sizes);
    for feed in shared() {
        for side in [&mut pair.a, &mut pair.b] {
            let token = side.token(feed);
            side.session.send(token, &have(5));
            side.session.send(token, &data(5, Bytes::from(vec![feed.as_bytes()[0]; 3000])));
            side.session.send(token, &data(6, Bytes::new()));
        }
    }
    pair.run_chunked(&mut sizes);
    let token = pair.a.token(x);
    pair.a.session.close_channel(token);
    pair.run_chunked(&mut sizes);
    pair.b.session.close_root(Root::FIRST);
    pair.run_chunked(&mut sizes);
    pair.a.session.finish();
    pair.run_chunked(&mut sizes);
    assert!(pair.a.session.output_finished());
    pair.b.session.handle_eof();
    pair.run_chunked(&mut sizes);
    pair.b.session.finish();
    pair.run_chunked(&mut sizes);
    pair
}

#[test]
fn a_whole_conversation() {
    let [x, y, z] = shared();
    let pair = converse(|| usize::MAX);
    let Event::Connected { handshake_hash, .. } = pair.a.events[0] else { panic!("{:?}", pair.a.events) };
    let connected =
        |event: &Event| matches!(event, Event::Connected { handshake_hash: hash, .. } if *hash == handshake_hash);
    assert!(connected(&pair.b.events[0]));
    assert!(matches!(&pair.a.events[1], Event::Ready { remote, .. } if remote.live == Some(false)));

    for (side, theirs, ours) in [(&pair.a, vec![y, z], vec![x, y]), (&pair.b, vec![x, y], vec![y, z])] {
        let has = |event: Event| assert!(side.events.contains(&event), "{event:?} in {:?}", side.events);
        has(Event::Manifest { root: Root::FIRST, keys: theirs.clone(), fields: None });
        has(Event::Replicate { root: Root::FIRST, keys: theirs, origin: Origin::Remote });
        has(Event::Replicate { root: Root::FIRST, keys: ours, origin: Origin::Local });
        for feed in shared() {
            let token = side.token(feed);
            let at = |event: Event| side.events.iter().position(|other| *other == event).expect("an event");
            let opened = at(Event::Opened { token });
            let message = |message| at(Event::Message { token, message });
            let value = Bytes::from(vec![feed.as_bytes()[0]; 3000]);
            assert!(opened < message(have(5)));
            assert!(message(have(5)) < message(data(5, value)));
            has(Event::Message { token, message: data(6, Bytes::new()) });
        }
        has(Event::RootClosed { root: Root::FIRST, error: None });
        assert_eq!(side.closed(), Some(&Ok(())));
        assert_eq!(
            side.events
                .iter()
                .filter(|event| matches!(
                    event,
                    Event::Closed(_) | Event::RootClosed { root: Root::FIRST, error: None }
                ))
                .count(),
            2
        );
    }
    let closed = Event::ChannelClosed { token: pair.b.token(x) };
    assert!(pair.b.events.contains(&closed) && !pair.a.events.contains(&closed));
    assert!(pair.b.events.contains(&Event::RemoteEnded));

    let (a, b) = (pair.a.session.totals(), pair.b.session.totals());
    assert_eq!((a.bytes_out, a.messages_out), (b.bytes_in, b.messages_in));
    assert!(b.bytes_out >= a.bytes_in && a.messages_in > 10);
}

#[test]
fn the_same_events_at_any_chunking() {
    let whole = converse(|| usize::MAX);
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let sizes: [&mut dyn FnMut() -> usize; 4] = [&mut || 1, &mut || 2, &mut || 61, &mut || rng.random_range(1..4000)];
    for sizes in sizes {
        let pair = converse(sizes);
        // What depends on which of two crossing messages is handled first may change places.
        for (one, other) in [(&whole.a, &pair.a), (&whole.b, &pair.b)] {
            let sorted = |events: &[Event]| {
                let mut texts: Vec<_> = events.iter().map(|event| format!("{event:?}")).collect();
                texts.sort();
                texts
            };
            assert_eq!(one.events.len(), other.events.len());
            if one.opened == other.opened {
                assert_eq!(sorted(&one.events), sorted(&other.events));
            }
        }
    }
}

#[test]
fn the_same_bytes_for_the_same_seed() {
    let run = || {
        let mut pair = Pair::offering(&shared(), &[]);
        pair.a.poll();
        let mut out = BytesMut::new();
        pair.a.session.poll_output(&mut out);
        pair.b.inbox.extend_from_slice(&out);
        pair.run();
        out.extend_from_slice(format!("{:?}{:?}", pair.a.events, pair.b.events).as_bytes());
        out
    };
    assert_eq!(run(), run());
}

#[test]
fn a_large_message_in_small_pieces_is_not_parsed_over_and_over() {
    let mut pair = Pair::offering(&[key(1)], &[]);
    pair.run();
    let value = Bytes::from(vec![9; 4 << 20]);
    let token = pair.a.token(key(1));
    pair.a.session.send(token, &data(0, value.clone()));
    assert_eq!(pair.a.session.send_credit(), 0);
    let start = std::time::Instant::now();
    pair.run_chunked(|| 100);
    // 42,000 pieces; parsing or copying the message anew for each of them would move 88 GB.
    assert!(start.elapsed() < Duration::from_secs(20));
    let token = pair.b.token(key(1));
    assert_eq!(pair.b.events.last(), Some(&Event::Message { token, message: data(0, value) }));
}

#[test]
fn a_message_that_peers_refuse_is_our_own_mistake() {
    let mut pair = Pair::offering(&[key(1)], &[]);
    pair.run();
    let token = pair.a.token(key(1));
    // 6 bytes for the index, and the value's tag and length.
    pair.a.session.send(token, &data(0, Bytes::from(vec![9; MAX - 7])));
    pair.run();
    assert!(matches!(pair.b.events.last(), Some(Event::Message { .. })));
    pair.a.session.send(token, &data(0, Bytes::from(vec![9; MAX])));
    pair.run();
    assert_eq!(pair.a.closed().unwrap().as_ref().unwrap_err().fault(), Fault::Local);
}

#[test]
fn the_callers_pace_is_the_sessions_pace() {
    let mut config = Config::default();
    config.limits.events = 4;
    let mut pair = Pair::new(Config::default(), config);
    pair.a.offers = Some(vec![key(1)]);
    pair.b.offers = Some(vec![]);
    pair.run();
    let token = pair.a.token(key(1));
    for index in 0..100 {
        pair.a.session.send(token, &have(index));
    }
    pair.a.session.poll_output(&mut pair.b.inbox);
    assert!(pair.b.read(usize::MAX, Duration::ZERO));
    assert!(pair.b.session.recv_buf().is_none(), "paused");
    // The remote is not silent while we do not listen.
    pair.b.session.handle_timeout(Duration::from_secs(1000));
    let before = pair.b.events.len();
    for _ in 0..3 {
        pair.b.events.push(pair.b.session.poll_event().unwrap());
    }
    assert!(pair.b.session.recv_buf().is_none(), "still paused");
    pair.b.poll();
    assert!(pair.b.session.recv_buf().is_some());
    let token = pair.b.token(key(1));
    let expected: Vec<_> = (0..100).map(|index| Event::Message { token, message: have(index) }).collect();
    assert_eq!(pair.b.events[before..], expected);
}

#[test]
fn the_output_goes_without_a_copy_where_there_is_room_for_it() {
    let mut pair = Pair::offering(&[key(1)], &[]);
    pair.run();
    let credit = pair.a.session.send_credit();
    let token = pair.a.token(key(1));
    let message = data(0, Bytes::from(vec![7; 100_000]));
    let command = Command::Send { token, message };
    let size = command.size();
    pair.a.session.apply(command).unwrap();
    let used = credit - pair.a.session.send_credit();
    assert!(used <= size && size < used + 32, "{used} and {size}");
    let (mut empty, mut full) = (BytesMut::new(), BytesMut::from(&b"x"[..]));
    assert!(pair.a.session.poll_output(&mut empty));
    assert_eq!(empty.len(), used);
    assert!(!pair.a.session.poll_output(&mut empty));
    assert_eq!(pair.a.session.send_credit(), credit);
    pair.a.session.send(token, &have(1));
    assert!(pair.a.session.poll_output(&mut full) && full[0] == b'x' && full.len() == 5);
}

#[test]
fn commands_before_the_handshake_and_after_the_end() {
    let mut pair = Pair::new(Config::default(), Config::default());
    for side in [&mut pair.a, &mut pair.b] {
        side.session.offer_feeds(Root::FIRST, &[key(1)]).unwrap();
        side.session.request_feeds(Root::FIRST, &[key(1)]).unwrap();
        side.session.open_channel(Token(1), key(1)).unwrap();
        side.session.open_channel(Token(2), key(2)).unwrap();
        side.session.close_channel(Token(2));
        side.session.send(Token(1), &have(3));
        side.session.send(Token(9), &have(3));
        side.session.close_root(Root::FIRST);
    }
    pair.run();
    for side in [&mut pair.a, &mut pair.b] {
        let has = |event: Event| assert!(side.events.contains(&event), "{event:?} in {:?}", side.events);
        has(Event::Manifest { root: Root::FIRST, keys: vec![key(1)], fields: None });
        has(Event::Replicate { root: Root::FIRST, keys: vec![key(1)], origin: Origin::Remote });
        has(Event::Opened { token: Token(1) });
        has(Event::RootClosed { root: Root::FIRST, error: None });
        side.session.abort(SessionError::Local("enough".into()));
        side.session.finish();
        side.session.abort(SessionError::Local("more than enough".into()));
        let mut out = BytesMut::new();
        side.session.poll_output(&mut out);
        side.session.offer_feeds(Root::FIRST, &[key(1)]).unwrap();
        side.session.request_feeds(Root::FIRST, &[key(1)]).unwrap();
        side.session.open_channel(Token(5), key(5)).unwrap();
        side.session.send(Token(1), &have(3));
        side.session.close_channel(Token(1));
        side.session.close_root(Root::FIRST);
        side.session.handle_eof();
        assert_eq!(side.session.handle_input(Duration::ZERO), Err(SessionError::Local("enough".into())));
        assert!(side.session.output_finished() && !side.session.poll_output(&mut out));
        assert_eq!((side.session.poll_timeout(), side.session.send_credit()), (None, 0));
        assert!(side.session.recv_buf().is_none());
        side.session.handle_timeout(Duration::MAX);
        assert_eq!(side.session.poll_event(), Some(Event::Closed(Err(SessionError::Local("enough".into())))));
        assert_eq!(side.session.poll_event(), None);
    }
}

#[test]
fn a_channels_key_and_token_are_used_once() {
    let mut pair = Pair::offering(&[key(1)], &[]);
    pair.run();
    let before = pair.a.events.len();
    pair.a.session.open_channel(Token(7), key(1)).unwrap();
    pair.a.session.open_channel(Token(8), DEFAULT_ROOT_KEY).unwrap();
    let used = pair.a.token(key(1));
    assert_eq!(pair.a.session.open_channel(used, key(2)), Err(ApiMisuse::TokenInUse(used)));
    pair.run();
    assert_eq!(
        pair.a.events[before..],
        [Event::ChannelClosed { token: Token(7) }, Event::ChannelClosed { token: Token(8) }]
    );
    // Closed, it can be opened again, under any token.
    pair.a.session.close_channel(pair.a.token(key(1)));
    pair.run();
    pair.b.session.open_channel(Token(3), key(1)).unwrap();
    pair.a.session.open_channel(Token(4), key(1)).unwrap();
    pair.run();
    assert_eq!(pair.a.events.last(), Some(&Event::Opened { token: Token(4) }));
    assert_eq!(pair.b.events.last(), Some(&Event::Opened { token: Token(3) }));
}

#[test]
fn user_data_and_other_values_are_told() {
    let (mut a, b) = (Config::default(), Config::default());
    let user_data = Json::new(r#"{"name": "a", "n": [1, 2.50]}"#);
    let root = a.root.as_mut().unwrap();
    (root.user_data, root.live) = (user_data.clone(), true);
    let mut pair = Pair::new(a.clone(), b);
    pair.run();
    let Event::Ready { remote, .. } = &pair.b.events[1] else { panic!() };
    assert_eq!((&remote.user_data, remote.live), (&user_data, Some(true)));
    let Event::Ready { remote, .. } = &pair.a.events[1] else { panic!() };
    assert_eq!((&remote.user_data, remote.live), (&None, Some(false)));
}

#[test]
fn mismatches_are_told_with_both_values() {
    let default = Config::default();
    let mut version = default.clone();
    version.root.as_mut().unwrap().version = "5.1.0".into();
    let mut client = default.clone();
    client.root.as_mut().unwrap().client = "OTHER".into();
    let root = Config::new(key(9));
    let keys = [DEFAULT_ROOT_KEY, key(9)].map(|key| key.discovery_key().to_string());
    let cases = [
        (version, "ERR_VERSION_MISMATCH", "4.0.0", "5.1.0"),
        (client, "ERR_CLIENT_MISMATCH", "MULTIFEED", "OTHER"),
        (root, "ERR_ROOT_KEY_MISMATCH", keys[0].as_str(), keys[1].as_str()),
    ];
    for (config, code, ours, theirs) in cases {
        let mut pair = Pair::new(default.clone(), config);
        pair.run_until(Duration::from_secs(3));
        for (side, us, them) in [(&pair.a, ours, theirs), (&pair.b, theirs, ours)] {
            let Some(Err(error)) = side.closed() else { panic!("{code}: {:?}", side.events) };
            assert_eq!((error.code(), error.us().as_deref(), error.them().as_deref()), (code, Some(us), Some(them)));
            assert_eq!(error.fault(), Fault::Incompatible);
            assert!(side.session.output_finished());
        }
    }
}

#[test]
fn keep_alives_keep_a_quiet_session_alive() {
    let mut pair = Pair::offering(&[], &[]);
    pair.run_until(Duration::from_secs(3600));
    assert!(pair.a.closed().is_none() && pair.b.closed().is_none());
    let before = pair.a.session.totals();
    pair.run_until(Duration::from_secs(7200));
    // One byte each ten seconds, and no message.
    let after = pair.a.session.totals();
    assert_eq!((after.bytes_in - before.bytes_in, after.messages_in), (360, before.messages_in));
}

fn stalling(timeout: u64) -> Config {
    let mut config = Config::default();
    config.stall_timeout = Some(Duration::from_secs(timeout));
    // That a message comes too slowly is not what these are about.
    config.limits.slowest_rate = 0;
    config
}

/// Time passes; the remote sends a keep-alive each second, and what the session has to send is taken.
fn only_keep_alives(peer: &mut Peer, seconds: std::ops::Range<u64>) {
    for second in seconds {
        peer.session.handle_timeout(Duration::from_secs(second));
        let keep_alive = peer.encrypt(&[0]);
        if let Some(buf) = peer.session.recv_buf() {
            buf.extend_from_slice(&keep_alive);
        }
        let _ = peer.session.handle_input(Duration::from_secs(second));
        peer.session.poll_output(&mut BytesMut::new());
    }
}

#[test]
fn a_remote_that_only_keeps_the_stream_alive_ends_a_session_that_asks_for_more() {
    let mut peer = Peer::ready(Role::Responder, stalling(60));
    only_keep_alives(&mut peer, 1..50);
    // What is said puts it off, and so does what is heard.
    peer.session.offer_feeds(Root::FIRST, &[]).unwrap();
    only_keep_alives(&mut peer, 50..109);
    assert_eq!(peer.events(), []);
    peer.extension(1, r#"{"keys":[]}"#).unwrap();
    assert_eq!(peer.events().len(), 1);
    only_keep_alives(&mut peer, 109..168);
    assert_eq!(peer.events(), []);
    only_keep_alives(&mut peer, 168..170);
    let error = SessionError::Stalled { waited: Duration::from_secs(60) };
    assert_eq!(peer.events(), [Event::Closed(Err(error.clone()))]);
    assert_eq!((error.code(), error.fault()), ("ERR_TIMEOUT", Fault::Network));
    assert_eq!(peer.session.handle_input(Duration::from_secs(200)), Err(error));
}

/// The length of a message was altered on its way: what follows is taken for its body, keep-alives too.
#[test]
fn keep_alives_that_a_message_swallows_are_none_the_less_keep_alives() {
    let mut peer = Peer::ready(Role::Responder, stalling(600));
    let mut large = wire(0, kind::EXTENSION, &[0; 1 << 20]);
    large.truncate(10);
    peer.raw(&large).unwrap();
    only_keep_alives(&mut peer, 1..600);
    assert_eq!(peer.events(), []);
    only_keep_alives(&mut peer, 600..601);
    assert!(matches!(peer.events()[..], [Event::Closed(Err(SessionError::Stalled { .. }))]));
}

#[test]
fn a_large_message_on_a_slow_stream_is_no_stall() {
    let mut config = stalling(600);
    config.idle_timeout = None;
    let mut peer = Peer::ready(Role::Responder, config);
    let large = peer.encrypt(&wire(0, kind::EXTENSION, &[9; 1 << 20]));
    for (second, piece) in (0..).step_by(300).zip(large.chunks(16 * 1024)) {
        peer.session.handle_timeout(Duration::from_secs(second));
        peer.session.recv_buf().expect("a running session").extend_from_slice(piece);
        peer.session.handle_input(Duration::from_secs(second)).unwrap();
        peer.session.poll_output(&mut BytesMut::new());
    }
    // On the way out the keep-alive waits behind it until it is gone.
    let last = Duration::from_secs(64 * 300);
    peer.session.handle_timeout(last + Duration::from_secs(590));
    peer.session.handle_input(last + Duration::from_secs(590)).unwrap();
    peer.session.handle_timeout(last + Duration::from_secs(9000));
    assert_eq!(peer.events(), []);
}

#[test]
fn silence_ends_a_session_in_each_phase() {
    let config = Config::default();
    let mut alone = Side::new(Role::Initiator, config.clone());
    assert_eq!(alone.session.poll_timeout(), Some(Duration::from_secs(20)));
    alone.session.handle_timeout(Duration::from_millis(19_999));
    assert!(!alone.poll());
    alone.session.handle_timeout(Duration::from_secs(20));
    alone.poll();
    assert_eq!(alone.closed(), Some(&Err(SessionError::Timeout(Phase::Noise))));

    // Bytes that lead nowhere do not help: the handshake has its own time.
    let mut peer = Peer::connect(Role::Responder, config.clone());
    for second in 0..19 {
        peer.raw(&[0]).unwrap();
        peer.session.handle_timeout(Duration::from_secs(second));
    }
    peer.session.handle_timeout(Duration::from_secs(20));
    assert_eq!(peer.events().last(), Some(&Event::Closed(Err(SessionError::Timeout(Phase::Exchange)))));

    let mut peer = Peer::ready(Role::Responder, config);
    peer.session.handle_timeout(Duration::from_secs(10));
    assert!(peer.events().is_empty());
    let mut out = BytesMut::new();
    assert!(peer.session.poll_output(&mut out) && out.len() == 1);
    peer.session.handle_timeout(Duration::from_secs(20));
    let error = SessionError::Timeout(Phase::Ready);
    assert_eq!((error.code(), error.fault()), ("ERR_TIMEOUT", Fault::Network));
    assert_eq!(peer.events(), [Event::Closed(Err(error))]);
}

#[test]
fn an_end_in_the_middle_is_an_error_and_at_a_boundary_is_not() {
    let config = Config::default();
    let mut alone = Side::new(Role::Responder, config.clone());
    push(&mut alone.session, &[0x3a, 1, 2]).unwrap();
    alone.session.handle_eof();
    alone.poll();
    assert_eq!(alone.closed(), Some(&Err(SessionError::Disconnected(Phase::Noise))));

    let mut peer = Peer::connect(Role::Responder, config.clone());
    peer.session.handle_eof();
    assert_eq!(peer.events().last(), Some(&Event::Closed(Err(SessionError::Disconnected(Phase::Exchange)))));

    let mut peer = Peer::ready(Role::Responder, config.clone());
    peer.raw(&wire(2, 9, &[0; 20])[..10]).unwrap();
    peer.session.handle_eof();
    let error = SessionError::Disconnected(Phase::Ready);
    assert_eq!(error.code(), "ERR_DISCONNECTED");
    assert_eq!(peer.events(), [Event::Closed(Err(error))]);

    let mut peer = Peer::ready(Role::Responder, config);
    peer.session.handle_eof();
    peer.session.handle_eof();
    assert_eq!(peer.events(), [Event::RemoteEnded]);
    assert_eq!(peer.session.recv_buf(), None);
    // We may still send; nobody waits for bytes that cannot come.
    peer.session.handle_timeout(Duration::from_secs(100));
    assert!(peer.events().is_empty());
    peer.session.finish();
    assert_eq!(peer.events(), [Event::Closed(Ok(()))]);
}

#[test]
fn an_end_is_told_after_what_came_before_it() {
    let mut config = Config::default();
    config.limits.events = 2;
    let mut peer = Peer::ready(Role::Initiator, config);
    peer.session.open_channel(Token(1), key(1)).unwrap();
    peer.open(5, key(1)).unwrap();
    let haves: Vec<u8> = (0..10u8).flat_map(|index| wire(5, 3, &[8, index])).collect();
    peer.raw(&haves).unwrap();
    peer.session.handle_eof();
    let events = peer.events();
    assert_eq!((events.len(), &events[0], &events[11]), (12, &Event::Opened { token: Token(1) }, &Event::RemoteEnded));
}

#[test]
fn a_message_that_takes_long_is_reported_while_it_arrives() {
    let mut peer = Peer::ready(Role::Initiator, Config::default());
    peer.session.open_channel(Token(1), key(1)).unwrap();
    peer.open(5, key(1)).unwrap();
    peer.events();
    // Index 0 and a value of 5,000 bytes.
    let body = [&[8, 0, 0x12, 0x88, 0x27][..], &[7; 5000]].concat();
    let message = wire(5, 9, &body);
    let at = |peer: &mut Peer, millis, bytes: &[u8]| {
        peer.session.handle_timeout(Duration::from_millis(millis));
        peer.raw(bytes).unwrap();
        peer.events()
    };
    let partial = |is_data, bytes| [Event::Partial { token: Token(1), is_data, bytes }];
    assert!(at(&mut peer, 1_000, &message[..1]).is_empty(), "the header is not whole");
    assert!(at(&mut peer, 2_500, &message[1..1000]).is_empty(), "it began just now");
    assert!(at(&mut peer, 3_400, &message[1000..1500]).is_empty(), "not a second ago");
    assert_eq!(at(&mut peer, 3_500, &message[1500..2000]), partial(true, 2000));
    assert!(at(&mut peer, 4_499, &message[2000..2001]).is_empty(), "at most once a second");
    assert_eq!(at(&mut peer, 6_000, &message[2001..2002]), partial(true, 2));
    assert!(at(&mut peer, 9_000, &[]).is_empty(), "nothing new came");
    let whole = at(&mut peer, 10_000, &[&message[2002..], &message[..10]].concat());
    assert!(matches!(&whole[..], [Event::Message { message: Message::Data(_), .. }]), "{whole:?}");
    // The next one has a time of its own, as has what is on no feed's channel, or no answer.
    assert_eq!(at(&mut peer, 11_000, &message[10..20]), partial(true, 20));
    at(&mut peer, 11_000, &message[20..]);
    let request = wire(5, 7, &[8, 0, 16, 0, 24, 0, 32, 0]);
    assert!(at(&mut peer, 12_000, &request[..4]).is_empty());
    assert!(at(&mut peer, 15_000, &request[4..5]).is_empty());
    at(&mut peer, 15_000, &request[5..]);
    let have = wire(5, 3, &[8, 0, 16, 8, 26, 2, 2, 255]);
    assert!(at(&mut peer, 20_000, &have[..5]).is_empty());
    assert_eq!(at(&mut peer, 22_000, &have[5..6]), partial(false, 6));
}

/// What the remote announces after we closed a channel, and before it closes it, is reported; of other messages nothing.
#[test]
fn blocks_that_are_told_of_too_late() {
    let mut peer = Peer::ready(Role::Initiator, Config::default());
    peer.session.open_channel(Token(1), key(1)).unwrap();
    peer.open(5, key(1)).unwrap();
    assert_eq!(peer.events(), [Event::Opened { token: Token(1) }]);
    let have = |start| wire(5, 3, &[8, start, 16, 3]);
    let late = |start: u64| Event::LateHave { token: Token(1), blocks: start..start + 3 };
    // The first one waits to be polled as the channel is closed.
    peer.raw(&have(1)).unwrap();
    peer.session.close_channel(Token(1));
    peer.raw(&have(10)).unwrap();
    let request = wire(5, 7, &[8, 0, 16, 0, 24, 0, 32, 0]);
    let (answer, acknowledged) = (wire(5, 3, &[8, 0, 16, 8, 26, 2, 2, 255]), wire(5, 3, &[8, 0, 16, 1, 32, 1]));
    peer.raw(&[request, answer, acknowledged].concat()).unwrap();
    assert_eq!(peer.events(), [late(1), late(10)]);
    // The remote heard of it, and its id means nothing any more.
    peer.raw(&wire(5, 10, &[])).unwrap();
    peer.raw(&have(20)).unwrap();
    assert_eq!(peer.events(), []);
}

#[test]
fn last_bytes_are_flushed_after_an_error() {
    let mut peer = Peer::ready(Role::Initiator, Config::default());
    peer.session.open_channel(Token(1), key(1)).unwrap();
    peer.session.send(Token(1), &have(1));
    assert!(peer.frame(1, 0, b"\x0a\x01\x01").is_err());
    assert!(!peer.session.output_finished());
    peer.session.send(Token(1), &have(2));
    assert_eq!(peer.frames().len(), 2);
    assert!(peer.session.output_finished());
}

#[test]
fn sessions_can_be_sent_to_other_threads() {
    fn is_send<T: Send>() {}
    is_send::<Session>();
    is_send::<Event>();
    is_send::<Command>();
}
