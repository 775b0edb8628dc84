//! A remote that does whatever it likes.

use crate::common;

use std::time::Duration;

use bytes::BytesMut;
use common::*;
use multifeed_proto::crypto::noise::Handshake;
use multifeed_proto::wire::message::kind;
use multifeed_proto::*;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};

fn ready() -> Peer {
    Peer::ready(Role::Responder, Config::default())
}

/// A session that is ready, with a feed's channel open on both sides: token 1, the remote's id 2.
fn with_channel() -> Peer {
    let mut peer = ready();
    peer.session.open_channel(Token(1), key(1)).unwrap();
    peer.open(2, key(1)).unwrap();
    assert_eq!(peer.events(), [Event::Opened { token: Token(1) }]);
    peer.frames();
    peer
}

/// The error that ends the session, reported by the call, by every later call, and by one event.
fn ends(peer: &mut Peer, result: Result<(), SessionError>) -> SessionError {
    let error = result.unwrap_err();
    assert_eq!(peer.events(), [Event::Closed(Err(error.clone()))]);
    assert_eq!(peer.session.handle_input(Duration::ZERO), Err(error.clone()));
    assert!(peer.events().is_empty() && peer.session.recv_buf().is_none());
    error
}

#[test]
fn garbage_instead_of_a_handshake() {
    let garbage: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: example.com\r\nAccept: everything there is\r\n\r\n and more of it, so that it is long enough",
        &[0xff; 200],
        &[0x01, 0x02, 0x03, 0x04],
        &[0; 3],
        &[0x3a; 300],
    ];
    for bytes in garbage {
        for role in [Role::Initiator, Role::Responder] {
            let mut session = session(role, Config::default());
            match push(&mut session, bytes) {
                Err(error) => {
                    assert_eq!((error.code(), error.fault()), ("ERR_HANDSHAKE", Fault::Remote));
                    assert_eq!(session.poll_event(), Some(Event::Closed(Err(error))));
                }
                // Zero lengths are skipped, as in JS; the handshake's time is limited.
                Ok(()) => assert_eq!(bytes, [0; 3]),
            }
        }
    }
}

#[test]
fn a_handshake_message_longer_than_noise_allows() {
    // 65,535 is waited for, one more is not.
    let mut waiting = session(Role::Responder, Config::default());
    assert_eq!(push(&mut waiting, &[0xff, 0xff, 0x03]), Ok(()));
    for bytes in [[0x80, 0x80, 0x04], [0xff, 0xff, 0xff]] {
        let mut session = session(Role::Responder, Config::default());
        assert_eq!(push(&mut session, &bytes), Err(HandshakeError::TooLong.into()));
    }
}

/// The first two messages of a handshake, as an initiator session gets the second.
fn second_message() -> (Session, BytesMut) {
    let mut session = session(Role::Initiator, Config::default());
    let (mut first, mut second) = (BytesMut::new(), BytesMut::new());
    session.poll_output(&mut first);
    let mut responder = Handshake::new(Role::Responder, None, &mut ChaCha8Rng::seed_from_u64(5)).unwrap();
    assert!(responder.receive(&mut first, &mut second).unwrap().is_none());
    assert_eq!(second.len(), 123);
    (session, second)
}

#[test]
fn every_changed_byte_of_the_second_handshake_message_is_noticed() {
    let (_, second) = second_message();
    // 1 byte of length, 32 of ephemeral key, 48 of static key, 42 of payload.
    for at in 1..second.len() {
        let (mut session, mut second) = second_message();
        // Not its highest bit, which X25519 ignores and the handshake hash does not.
        second[at] ^= 1;
        // It is like that of npm multifeed 5, which derives other keys.
        assert_eq!(push(&mut session, &second), Err(HandshakeError::OldRelease.into()), "{at}");
    }
    let (mut session, second) = second_message();
    for byte in second {
        push(&mut session, &[byte]).unwrap();
    }
    assert!(matches!(session.poll_event(), Some(Event::Connected { .. })));
}

#[test]
fn keys_that_give_an_all_zero_secret() {
    let (mut initiator, mut second) = second_message();
    second[1..33].fill(0);
    assert_eq!(push(&mut initiator, &second), Err(HandshakeError::LowOrderKey.into()));

    // The first message's payload is in the clear: 0a 18 and the nonce.
    let mut first = vec![58];
    first.extend_from_slice(&[0; 32]);
    first.extend_from_slice(&[0x0a, 0x18]);
    first.extend_from_slice(&[1; 24]);
    let mut responder = session(Role::Responder, Config::default());
    let error = push(&mut responder, &first).unwrap_err();
    assert_eq!(error, HandshakeError::LowOrderKey.into());
    assert_eq!(error.code(), "ERR_HANDSHAKE");
}

#[test]
fn frames_that_are_none() {
    let cases: [(&[u8], FrameError); 4] = [
        (&[0xff; 9], FrameError::Varint),
        (&[0x01, 0x99, 0x01], FrameError::TooShort(1)),
        // 8,388,609 bytes of body and one of header.
        (&[0x82, 0x80, 0x80, 0x04, 0x29], FrameError::TooLong { size: MAX as u64 + 1, limit: MAX as u64 }),
        (&[0x09, 0x80, 0x80, 0x80, 0x80, 0x08], FrameError::Channel),
    ];
    for (bytes, expected) in cases {
        for at_once in [true, false] {
            let mut peer = with_channel();
            let result = match at_once {
                true => peer.raw(bytes),
                false => bytes.iter().try_for_each(|&byte| peer.raw(&[byte])),
            };
            let error = ends(&mut peer, result);
            assert_eq!((error.code(), error), ("ERR_FRAME", expected.into()));
        }
    }
}

#[test]
fn what_stands_in_front_of_a_bad_frame_is_handled() {
    let mut peer = with_channel();
    let bytes = [wire(2, kind::HAVE, &[8, 1]), vec![0x01, 0x99, 0x01]].concat();
    let error = peer.raw(&bytes).unwrap_err();
    assert_eq!(peer.events(), [Event::Message { token: Token(1), message: have(1) }, Event::Closed(Err(error))]);
}

#[test]
fn messages_that_are_none() {
    use MessageError::{Missing, Number, Protobuf, Size};
    let node = |hash: usize| {
        [&[0x08, 0, 0x1a, hash as u8 + 6, 8, 2, 0x12, hash as u8], &vec![1; hash][..], &[0x18, 1]].concat()
    };
    let cases: Vec<(u8, Vec<u8>, MessageError)> = vec![
        (kind::OPTIONS, vec![0x0a, 0x02, 0xff, 0xff], Protobuf("Options")),
        (kind::STATUS, vec![0x08], Protobuf("Status")),
        (kind::STATUS, vec![0x0b, 0x0c], Protobuf("Status")),
        (kind::HAVE, vec![], Missing("Have", "start")),
        (kind::HAVE, vec![0x08, 0x80], Protobuf("Have")),
        (kind::HAVE, vec![0x08, 1, 0x1a, 9, 1], Protobuf("Have")),
        (kind::HAVE, vec![0x0a, 1, 1], Protobuf("Have")),
        (kind::UNHAVE, vec![0x10, 1], Missing("Unhave", "start")),
        (kind::WANT, vec![0x10, 1], Missing("Want", "start")),
        (kind::UNWANT, vec![0x10, 1], Missing("Unwant", "start")),
        (kind::WANT, vec![0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10], Number("Want")),
        (kind::REQUEST, vec![0x20, 1], Missing("Request", "index")),
        (kind::REQUEST, vec![0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Number("Request")),
        (kind::CANCEL, vec![], Missing("Cancel", "index")),
        (kind::DATA, vec![0x12, 0], Missing("Data", "index")),
        (kind::DATA, vec![0x08, 0, 0x22, 2, 1, 1], Size("Data", "signature", 2)),
        (kind::DATA, vec![0x08, 0, 0x1a, 0], Missing("Node", "index")),
        (kind::DATA, node(31), Size("Node", "hash", 31)),
        (kind::DATA, node(33), Size("Node", "hash", 33)),
        (kind::DATA, vec![0x08, 0, 0x1a, 3, 8, 1], Protobuf("Data")),
        (kind::DATA, vec![0x00, 0], Protobuf("Data")),
        (kind::EXTENSION, vec![], Protobuf("Extension")),
        (kind::EXTENSION, vec![0x80; 9], Protobuf("Extension")),
        (kind::OPEN, vec![], Missing("Open", "discoveryKey")),
        (kind::OPEN, vec![0x0a, 1, 1], Size("Open", "discoveryKey", 1)),
        (kind::OPEN, vec![0x0a, 40], Protobuf("Open")),
        (kind::CLOSE, vec![0x0a, 1, 1], Size("Close", "discoveryKey", 1)),
        (kind::CLOSE, vec![0x07], Protobuf("Close")),
    ];
    for (kind, body, expected) in cases {
        let mut peer = with_channel();
        let result = peer.frame(2, kind, &body);
        let error = ends(&mut peer, result);
        assert_eq!((error.code(), error.fault()), ("ERR_MESSAGE", Fault::Remote));
        assert_eq!(error, expected.into(), "type {kind}: {body:?}");
    }
}

#[test]
fn unknown_types_and_closed_channels_are_ignored_to_a_bound() {
    let mut config = Config::default();
    config.limits.stray_messages = 20;
    let mut peer = Peer::ready(Role::Responder, config);
    peer.session.open_channel(Token(1), key(1)).unwrap();
    peer.open(2, key(1)).unwrap();
    for kind in 11..15 {
        peer.frame(2, kind, b"whatever").unwrap();
        peer.frame(0, kind, b"whatever").unwrap();
    }
    // A channel never opened, the root key's, the stream's own.
    for channel in [77, 1, 0] {
        peer.frame(channel, kind::HAVE, &[8, 1]).unwrap();
    }
    peer.extension(9, "{}").unwrap();
    peer.frame(2, kind::CLOSE, &[]).unwrap();
    for _ in 0..8 {
        peer.frame(2, kind::HAVE, &[8, 1]).unwrap();
    }
    assert_eq!(peer.events(), [Event::Opened { token: Token(1) }, Event::ChannelClosed { token: Token(1) }]);
    let result = peer.frame(2, kind::HAVE, &[8, 1]);
    let error = ends(&mut peer, result);
    assert_eq!(error, SessionError::Limit { what: "stray_messages", limit: 20 });
    assert_eq!((error.code(), error.fault()), ("ERR_LIMIT", Fault::Limit));
}

#[test]
fn closes_that_mean_nothing() {
    let mut peer = ready();
    for channel in [0, 5, 77] {
        peer.frame(channel, kind::CLOSE, &[]).unwrap();
        peer.frame(channel, kind::CLOSE, &open_body(key(8), None)).unwrap();
    }
    assert!(peer.events().is_empty() && peer.frames().is_empty());
}

#[test]
fn another_root_key() {
    let mut peer = Peer::connect(Role::Responder, Config::default());
    peer.events();
    peer.open(1, key(9)).unwrap();
    peer.open(2, key(8)).unwrap();
    peer.session.handle_timeout(Duration::from_millis(1999));
    assert_eq!(peer.events(), []);
    peer.session.handle_timeout(Duration::from_secs(2));
    let ended = peer.session.handle_input(Duration::from_secs(2));
    let error = ends(&mut peer, ended);
    assert_eq!((error.code(), error.fault()), ("ERR_ROOT_KEY_MISMATCH", Fault::Incompatible));
    assert_eq!(error.us(), Some(DEFAULT_ROOT_KEY.discovery_key().to_string()));
    assert_eq!(error.them(), Some(key(9).discovery_key().to_string()));
}

#[test]
fn a_root_key_known_by_its_discovery_key_only() {
    for role in [Role::Initiator, Role::Responder] {
        for capability in [None, Some(&[0; 32][..]), Some(&[0; 5])] {
            let mut peer = Peer::connect(role, Config::default());
            peer.events();
            let result = peer.open_with(1, DEFAULT_ROOT_KEY, capability);
            let error = ends(&mut peer, result);
            assert_eq!(error.code(), "ERR_CAPABILITY");
            // At most our own Open, and which extensions we speak, was said to it: an initiator waits for the responder's.
            assert_eq!(peer.frames().len(), 2 * usize::from(role == Role::Responder));
        }
    }
}

#[test]
fn an_initiator_waits_for_the_responders_open_but_not_for_long() {
    let mut peer = Peer::connect(Role::Initiator, Config::default());
    peer.session.open_channel(Token(1), key(1)).unwrap();
    assert!(peer.frames().is_empty());
    let wake = peer.session.poll_timeout().unwrap();
    assert_eq!(wake, Duration::from_millis(100));
    peer.session.handle_timeout(wake);
    let opens: Vec<_> = peer.frames().iter().map(|frame| (frame.channel, frame.kind)).collect();
    assert_eq!(opens, [(1, kind::OPEN), (0, kind::OPTIONS), (2, kind::OPEN)]);
    peer.open(1, DEFAULT_ROOT_KEY).unwrap();
    assert!(peer.frames().is_empty(), "the handshake is held");
    peer.options().unwrap();
    assert_eq!(peer.frames().len(), 1, "the handshake");

    let mut peer = Peer::connect(Role::Initiator, Config::default());
    peer.session.open_channel(Token(1), key(1)).unwrap();
    peer.open(1, DEFAULT_ROOT_KEY).unwrap();
    let kinds: Vec<_> = peer.frames().iter().map(|frame| (frame.channel, frame.kind)).collect();
    assert_eq!(kinds, [(1, kind::OPEN), (0, kind::OPTIONS), (2, kind::OPEN)]);
}

#[test]
fn a_feed_without_its_capability() {
    // We opened first: fatal.
    let mut peer = ready();
    peer.session.open_channel(Token(1), key(1)).unwrap();
    let result = peer.open_with(2, key(1), Some(&[7; 32]));
    assert_eq!(ends(&mut peer, result), SessionError::Capability(key(1).discovery_key()));

    // The remote opened first: it gets a Close with the discovery key, on an id of its own, and the session lives.
    let mut peer = ready();
    peer.open_with(2, key(1), None).unwrap();
    peer.frame(2, kind::HAVE, &[8, 1]).unwrap();
    assert!(peer.events().is_empty());
    peer.session.open_channel(Token(1), key(1)).unwrap();
    assert_eq!(peer.events(), [Event::ChannelClosed { token: Token(1) }]);
    let frames = peer.frames();
    assert_eq!((frames.len(), frames[0].channel, frames[0].kind), (1, 2, kind::CLOSE));
    assert_eq!(frames[0].body, open_body(key(1), None));
    peer.session.open_channel(Token(1), key(1)).unwrap();
    peer.open(3, key(1)).unwrap();
    assert_eq!(peer.events(), [Event::Opened { token: Token(1) }]);
    assert_eq!(peer.frames()[0].channel, 3);
}

#[test]
fn opens_twice() {
    for (channel, feed) in [(2, key(2)), (3, key(1)), (0, key(5)), (3, DEFAULT_ROOT_KEY)] {
        let mut peer = with_channel();
        let result = peer.open(channel, feed);
        assert_eq!(ends(&mut peer, result), MessageError::OpenTwice.into());
    }
}

#[test]
fn a_hundred_thousand_channels() {
    let mut peer = ready();
    let capability = peer.split.capability(&key(1));
    let mut channel = 1u32;
    let result = loop {
        channel += 1;
        let mut feed = [0; 32];
        feed[..4].copy_from_slice(&channel.to_be_bytes());
        // Discovery keys can be made up.
        let mut body = vec![0x0a, 32];
        body.extend_from_slice(&feed);
        body.extend_from_slice(&[0x12, 32]);
        body.extend_from_slice(&capability);
        let result = peer.frame(channel, kind::OPEN, &body);
        if result.is_err() || channel > 100_000 {
            break result;
        }
    };
    assert_eq!(channel, 65_537);
    assert_eq!(ends(&mut peer, result), SessionError::Limit { what: "channels", limit: 65_536 });
}

#[test]
fn lists_that_are_none() {
    let bad = format!("[\"{}\",null]", key(1));
    let manifest = format!("{{\"keys\":{bad}}}");
    for (id, json) in [(0, "{"), (1, "{\"keys\":null}"), (1, &manifest), (2, &bad), (3, &bad), (3, "{}")] {
        let mut peer = ready();
        let result = peer.extension(id, json);
        let error = ends(&mut peer, result);
        assert_eq!((error.code(), error.fault()), ("ERR_FEED_EXCHANGE", Fault::Remote), "{json}");
    }
}

#[test]
fn a_manifest_before_the_handshake_and_extensions_before_options() {
    let mut peer = Peer::connect(Role::Initiator, Config::default());
    // Before Options nothing can be told what it is.
    peer.extension(0, HANDSHAKE).unwrap();
    peer.options().unwrap();
    peer.extension(1, &format!("{{\"keys\":[\"{}\"]}}", key(1))).unwrap();
    peer.extension(0, HANDSHAKE).unwrap();
    assert!(matches!(peer.events()[..], [Event::Connected { .. }]));
    peer.open(1, DEFAULT_ROOT_KEY).unwrap();
    let events = peer.events();
    assert!(
        matches!(&events[..], [Event::Ready { .. }, Event::Manifest { root: Root::FIRST, keys, .. }] if keys[..] == [key(1)]),
        "{events:?}"
    );
}

#[test]
fn too_many_names_and_nodes() {
    let mut peer = ready();
    let result = peer.frame(0, kind::OPTIONS, &[0x0a, 0].repeat(257));
    assert_eq!(ends(&mut peer, result), SessionError::Limit { what: "extensions", limit: 256 });
    let mut peer = with_channel();
    let result = peer.frame(2, kind::OPTIONS, &[0x10, 1].repeat(32_769));
    assert_eq!(ends(&mut peer, result), SessionError::Limit { what: "options_bytes", limit: 65_536 });

    let mut node = vec![0x1a, 38, 0x08, 1, 0x12, 32];
    node.extend_from_slice(&[3; 32]);
    node.extend_from_slice(&[0x18, 1]);
    for count in [128, 129] {
        let mut peer = with_channel();
        let body = [&[0x08, 0][..], &node.repeat(count)].concat();
        let result = peer.frame(2, kind::DATA, &body);
        if count == 128 {
            assert!(result.is_ok());
        } else {
            assert_eq!(ends(&mut peer, result), SessionError::Limit { what: "proof_nodes", limit: 128 });
        }
    }
}

#[test]
fn a_remote_that_makes_us_answer_and_does_not_read() {
    let mut config = Config::default();
    config.limits.reply_bytes = 10_000;
    config.limits.events = 1_000_000;
    let mut peer = Peer::ready(Role::Responder, config);
    peer.session.request_feeds(Root::FIRST, &[]).unwrap();
    let mut sent = 0;
    let requests = wire(0, kind::EXTENSION, b"\x03[]").repeat(100);
    while peer.session.recv_buf().is_some() {
        peer.raw(&requests).unwrap();
        sent += requests.len();
        assert!(sent < 20_000);
    }
    // Paused, not ended: it goes on once the answers are taken.
    assert!(!peer.session.output_finished());
    let mut out = BytesMut::new();
    peer.session.poll_output(&mut out);
    assert!(out.len() < 11_000);
    assert!(peer.session.recv_buf().is_some());
}

#[test]
fn floods_of_keep_alives_and_empty_messages_leave_nothing() {
    let mut peer = with_channel();
    for _ in 0..100 {
        peer.raw(&[0; 10_000]).unwrap();
    }
    assert!(peer.events().is_empty());
    assert!(peer.session.recv_buf().unwrap().is_empty());
    assert_eq!(peer.session.totals().messages_in, 4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_frames_end_in_events_or_an_error(
        frames in prop::collection::vec((0u32..4, 0u8..16, prop::collection::vec(any::<u8>(), 0..60)), 0..30),
    ) {
        let mut peer = with_channel();
        for (channel, kind, body) in frames {
            if let Err(error) = peer.frame(channel, kind, &body) {
                prop_assert!(matches!(error.fault(), Fault::Remote | Fault::Limit));
                break;
            }
            peer.events();
        }
    }

    #[test]
    fn any_bytes_end_in_events_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
        let mut peer = with_channel();
        if peer.raw(&bytes).is_ok() {
            peer.events();
            peer.session.handle_eof();
        }
        let mut session = session(Role::Responder, Config::default());
        let _ = push(&mut session, &bytes);
    }
}

/// snow's own primitives, for a handshake with a fixed ephemeral key.
struct NoRandomness;

impl snow::types::Random for NoRandomness {
    fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), snow::Error> {
        Err(snow::Error::Rng)
    }
}

impl CryptoResolver for NoRandomness {
    fn resolve_rng(&self) -> Option<Box<dyn snow::types::Random>> {
        Some(Box::new(Self))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn snow::types::Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn snow::types::Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn snow::types::Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// An initiator whose payloads are what the test says.
fn with_payloads(payloads: [&[u8]; 2]) -> Result<(), SessionError> {
    let mut session = session(Role::Responder, Config::default());
    let params = "Noise_XX_25519_ChaChaPoly_BLAKE2b".parse().unwrap();
    let mut noise = snow::Builder::with_resolver(params, Box::new(NoRandomness))
        .local_private_key(&[5; 32])
        .unwrap()
        .fixed_ephemeral_key_for_testing_only(&[6; 32])
        .build_initiator()
        .unwrap();
    let mut buf = [0; 1000];
    let mut send = |noise: &mut snow::HandshakeState, session: &mut Session, payload: &[u8]| {
        let len = noise.write_message(payload, &mut buf).unwrap();
        push(session, &[&[len as u8], &buf[..len]].concat())
    };
    send(&mut noise, &mut session, payloads[0])?;
    let mut answer = BytesMut::new();
    session.poll_output(&mut answer);
    noise.read_message(&answer[1..], &mut [0; 1000]).unwrap();
    send(&mut noise, &mut session, payloads[1])
}

#[test]
fn payloads_of_the_handshake() {
    let sound = [&[0x0a, 24][..], &[1; 24]].concat();
    assert_eq!(with_payloads([&sound, &sound]), Ok(()));
    assert_eq!(with_payloads([&sound, &[]]), Ok(()));
    assert_eq!(with_payloads([&[], &sound]), Ok(()));
    assert_eq!(with_payloads([&[], &[]]), Err(HandshakeError::NoPayload.into()));
    let short = [&[0x0a, 23][..], &[1; 23]].concat();
    for bad in [&short[..], &sound[..20], &[0x12, 0], b"garbage"] {
        assert_eq!(with_payloads([bad, &sound]), Err(HandshakeError::BadPayload.into()));
        assert_eq!(with_payloads([&sound, bad]), Err(HandshakeError::BadPayload.into()));
    }
}
