//! What a remote may send before it has proven that it knows a key of ours, and how long a message may take.

use crate::common;

use std::time::Duration;

use bytes::Bytes;
use common::*;
use multifeed_proto::wire::message::kind;
use multifeed_proto::*;

const LIMIT: usize = 65_536;

fn stranger(config: Config) -> Peer {
    Peer::connect(Role::Responder, config)
}

/// A handshake of about this many bytes, by its user data.
fn handshake(size: usize) -> String {
    format!(r#"{{"client":"MULTIFEED","version":"4.0.0","userData":"{}"}}"#, "x".repeat(size))
}

fn limit(result: Result<(), SessionError>) -> &'static str {
    match result {
        Err(SessionError::Limit { what, .. }) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn before_the_root_key_a_message_is_refused_by_its_length() {
    for (role, size) in [(Role::Responder, MAX), (Role::Initiator, MAX), (Role::Responder, LIMIT + 1)] {
        let mut peer = Peer::connect(role, Config::default());
        let begun = &wire(0, kind::EXTENSION, &vec![0; size])[..10];
        assert_eq!(limit(peer.raw(begun)), "unproven_message_bytes");
        let end = peer.events().pop();
        assert_eq!(
            end,
            Some(Event::Closed(Err(SessionError::Limit { what: "unproven_message_bytes", limit: 65_536 })))
        );
    }
    // What no session takes is an error as before.
    let begun = &wire(0, kind::EXTENSION, &vec![0; MAX + 1])[..10];
    assert!(matches!(stranger(Config::default()).raw(begun), Err(SessionError::Frame(_))));

    let mut peer = stranger(Config::default());
    peer.frame(0, kind::EXTENSION, &vec![0x7f; LIMIT]).unwrap();
    assert!(!peer.session.is_proven());
    // The right discovery key with a capability that is none proves nothing.
    assert!(peer.open_with(1, DEFAULT_ROOT_KEY, Some(&[7; 32])).is_err());
    assert!(!peer.session.is_proven());
}

#[test]
fn before_the_root_key_all_messages_are_bounded_together() {
    let mut peer = stranger(Config::default());
    peer.options().unwrap();
    let results: Vec<_> = (0..5).map(|_| peer.frame(0, kind::EXTENSION, &vec![0x7f; LIMIT - 100])).collect();
    assert!(results[..3].iter().all(Result::is_ok), "{results:?}");
    assert_eq!(limit(results[4].clone()), "unproven_bytes");

    // Tiny ones, too.
    let mut peer = stranger(Config::default());
    let tiny = wire(9, kind::HAVE, &[]).repeat(1000);
    let first = (0..200).find_map(|_| peer.raw(&tiny).err());
    assert_eq!(limit(first.map_or(Ok(()), Err)), "unproven_bytes");
}

/// JS sends its handshake, with all that its options hold, right behind its Open; both may come in one read, or byte by byte.
#[test]
fn behind_the_root_key_a_message_may_be_large_however_it_is_cut() {
    let large = [&b"\x00"[..], handshake(900_000).as_bytes()].concat();
    for chunk in [usize::MAX, 70_000, 4096, 97] {
        for role in [Role::Responder, Role::Initiator] {
            let mut peer = Peer::connect(role, Config::default());
            let capability = peer.split.capability(&DEFAULT_ROOT_KEY);
            let open = wire(1, kind::OPEN, &open_body(DEFAULT_ROOT_KEY, Some(&capability)));
            let all = [open, wire(0, kind::OPTIONS, &options_body()), wire(0, kind::EXTENSION, &large)].concat();
            let all = peer.encrypt(&all);
            for piece in all.chunks(chunk.min(all.len())) {
                push(&mut peer.session, piece).unwrap();
            }
            assert!(peer.session.is_proven());
            assert!(matches!(peer.events()[..], [Event::Connected { .. }, Event::Ready { .. }]), "{role:?}, {chunk}");
        }
    }
}

#[test]
fn a_feeds_channel_or_the_callers_word_are_proof_as_well() {
    let large = |peer: &mut Peer| peer.frame(0, kind::EXTENSION, &vec![0x7f; MAX]);
    assert_eq!(limit(large(&mut stranger(Config::plain()))), "unproven_message_bytes");

    // A stream that waits for its first multifeed may wait for long.
    let mut peer = stranger(Config::plain());
    for _ in 0..10 {
        peer.frame(0, kind::EXTENSION, &vec![0x7f; LIMIT]).unwrap();
    }
    peer.session.open_channel(Token(1), key(1)).unwrap();
    peer.open(2, key(1)).unwrap();
    assert!(peer.session.is_proven());
    large(&mut peer).unwrap();

    let mut config = Config::plain();
    config.authenticate = true;
    let mut peer = stranger(config.clone());
    peer.session.accept().unwrap();
    large(&mut peer).unwrap();

    // Who is let in without a word for it stays a stranger.
    let mut peer = stranger(config.clone());
    peer.session.admit().unwrap();
    assert_eq!(limit(large(&mut peer)), "unproven_message_bytes");
    let mut peer = stranger(config);
    peer.session.admit().unwrap();
    let results: Vec<_> = (0..5).map(|_| peer.frame(0, kind::EXTENSION, &vec![0x7f; LIMIT])).collect();
    assert!(results[..3].iter().all(Result::is_ok), "{results:?}");
    assert_eq!(limit(results[4].clone()), "unproven_bytes");
}

fn slow(proven: bool) -> Peer {
    let mut config = Config::default();
    config.handshake_timeout = None;
    if proven { Peer::ready(Role::Responder, config) } else { stranger(config) }
}

/// Brings so many bytes of a message each second, until the session ends: when, and why.
fn trickle(peer: &mut Peer, message: &[u8], each_second: usize) -> Option<(u64, SessionError)> {
    let bytes = peer.encrypt(message);
    for (second, piece) in (0..).zip(bytes.chunks(each_second)) {
        let now = Duration::from_secs(second);
        peer.session.handle_timeout(now);
        if let Some(buf) = peer.session.recv_buf() {
            buf.extend_from_slice(piece);
        }
        if let Err(error) = peer.session.handle_input(now) {
            return Some((second, error));
        }
        peer.session.poll_output(&mut bytes::BytesMut::new());
    }
    None
}

#[test]
fn a_message_that_trickles_ends_the_session() {
    for proven in [false, true] {
        let message = wire(0, kind::EXTENSION, &vec![0x7f; LIMIT]);
        let mut peer = slow(proven);
        let (second, error) = trickle(&mut peer, &message, 1).expect("an end");
        assert_eq!((second, error.code()), (21, "ERR_TIMEOUT"), "{error}");
        assert!(matches!(error, SessionError::SlowMessage { bytes: 21, .. }), "{error}");
        // Half of the rate buys twice the time, and no more.
        let (second, _) = trickle(&mut slow(proven), &message, 128).expect("an end");
        assert_eq!(second, 40);
    }
}

#[test]
fn a_slow_link_brings_the_largest_message() {
    let mut body = bytes::BytesMut::new();
    data(0, Bytes::from(vec![7; MAX - 20])).encode(&mut body);
    let message = wire(0, kind::EXTENSION, &body);
    assert_eq!(trickle(&mut slow(true), &message, 30_000), None);
    assert_eq!(trickle(&mut slow(true), &message, 300), None);
    // Many small ones are not one long one.
    let small = wire(0, kind::EXTENSION, &[0x7f; 100]).repeat(1000);
    assert_eq!(trickle(&mut slow(true), &small, 50), None);
}

#[test]
fn time_in_which_the_session_is_paused_does_not_count() {
    let mut config = Config::default();
    config.limits.events = 3;
    let mut peer = Peer::ready(Role::Responder, config);
    peer.session.register_extension(Scope::Stream, "x").unwrap();
    let names = wire(0, kind::OPTIONS, &[&options_body()[..], &[0x0a, 1, b'x']].concat());
    peer.raw(&names).unwrap();
    let message = wire(0, kind::EXTENSION, &[4, 1, 2, 3]);
    let three_and_a_part = [&message.repeat(3)[..], &message[..2]].concat();
    peer.raw(&three_and_a_part).unwrap();
    assert!(peer.session.recv_buf().is_none());
    for second in 0..100 {
        peer.session.handle_timeout(Duration::from_secs(second));
    }
    assert!(matches!(peer.events()[..], [Event::Extension { .. }, Event::Extension { .. }, Event::Extension { .. }]));
    let rest = peer.encrypt(&message[2..]);
    peer.session.recv_buf().unwrap().extend_from_slice(&rest);
    peer.session.handle_input(Duration::from_secs(118)).unwrap();
    assert!(matches!(peer.events()[..], [Event::Extension { .. }]));
}
