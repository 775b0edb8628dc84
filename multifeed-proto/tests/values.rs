//! Values that are just inside what a message may hold, and just outside.

use crate::common;

use common::*;
use multifeed_proto::wire::message::{MAX_NUMBER, kind};
use multifeed_proto::wire::varint;
use multifeed_proto::*;

fn with_channel() -> Peer {
    let mut peer = Peer::ready(Role::Responder, Config::default());
    peer.session.open_channel(Token(1), key(1)).unwrap();
    peer.open(2, key(1)).unwrap();
    peer.events();
    peer.frames();
    peer
}

/// A protobuf of numbers, by tag.
fn numbers(fields: &[(u8, u64)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (tag, value) in fields {
        body.push(tag << 3);
        varint::encode(*value, &mut body);
    }
    body
}

#[test]
fn numbers_near_2_to_the_53_and_2_to_the_64() {
    let fields = [
        ("Have", kind::HAVE, 1..3),
        ("Unhave", kind::UNHAVE, 1..3),
        ("Want", kind::WANT, 1..3),
        ("Unwant", kind::UNWANT, 1..3),
        ("Cancel", kind::CANCEL, 1..3),
        ("Data", kind::DATA, 1..2),
    ];
    for (name, kind, tags) in fields {
        for tag in tags {
            for value in [MAX_NUMBER - 1, MAX_NUMBER, MAX_NUMBER + 1, 1 << 62, 1 << 63, u64::MAX - 1, u64::MAX] {
                let mut peer = with_channel();
                // The first field is required.
                let body = if tag == 1 { numbers(&[(1, value)]) } else { numbers(&[(1, 3), (tag, value)]) };
                let result = peer.frame(2, kind, &body);
                let events = peer.events();
                if value <= MAX_NUMBER {
                    assert!(matches!(events[..], [Event::Message { .. }]), "{name} {tag} {value}: {events:?}");
                } else {
                    assert_eq!(result, Err(MessageError::Number(name).into()), "{tag} {value}");
                }
            }
        }
    }
    for tag in [1, 2, 4] {
        for value in [MAX_NUMBER, MAX_NUMBER + 1, u64::MAX] {
            let mut peer = with_channel();
            let body = if tag == 1 { numbers(&[(1, value)]) } else { numbers(&[(1, 3), (tag, value)]) };
            let result = peer.frame(2, kind::REQUEST, &body);
            assert_eq!(result.is_ok(), value <= MAX_NUMBER, "{tag} {value}");
        }
    }
    for tag in [1, 3] {
        for value in [MAX_NUMBER, MAX_NUMBER + 1, u64::MAX] {
            let other = if tag == 1 { 3 } else { 1 };
            let node = [&numbers(&[(tag, value), (other, 1)])[..], &[0x12, 32], &[1; 32]].concat();
            let body = [&[0x08, 0, 0x1a, node.len() as u8], &node[..]].concat();
            let result = with_channel().frame(2, kind::DATA, &body);
            assert_eq!(result.is_ok(), value <= MAX_NUMBER, "node {tag} {value}");
        }
    }
    // The sum of what is allowed overflows nothing.
    let mut peer = with_channel();
    peer.frame(2, kind::HAVE, &numbers(&[(1, MAX_NUMBER), (2, MAX_NUMBER)])).unwrap();
    let Event::Message { message: Message::Have(have), .. } = &peer.events()[0] else { panic!() };
    assert_eq!(have.start.checked_add(have.length), Some(2 * MAX_NUMBER));
}

#[test]
fn channel_ids_up_to_the_last() {
    let last = (1 << 27) - 1;
    let mut peer = Peer::ready(Role::Responder, Config::default());
    peer.session.open_channel(Token(1), key(1)).unwrap();
    peer.open(last, key(1)).unwrap();
    peer.frame(last, kind::HAVE, &[8, 1]).unwrap();
    assert_eq!(
        peer.events(),
        [Event::Opened { token: Token(1) }, Event::Message { token: Token(1), message: have(1) }]
    );
    assert_eq!(peer.open(1 << 27, key(2)), Err(FrameError::Channel.into()));
}

#[test]
fn a_capability_for_another_key() {
    // Of the root key, of another feed, and of this feed but as our own side has it.
    for opened_first in [true, false] {
        for other in [DEFAULT_ROOT_KEY, key(2)] {
            let mut peer = Peer::ready(Role::Responder, Config::default());
            let capability = peer.split.capability(&other);
            if opened_first {
                peer.session.open_channel(Token(1), key(1)).unwrap();
                let result = peer.open_with(2, key(1), Some(&capability));
                assert_eq!(result, Err(SessionError::Capability(key(1).discovery_key())));
                assert_eq!(peer.session.recv_buf(), None);
            } else {
                peer.open_with(2, key(1), Some(&capability)).unwrap();
                peer.session.open_channel(Token(1), key(1)).unwrap();
                assert_eq!(peer.events(), [Event::ChannelClosed { token: Token(1) }]);
                // What it says on that id is nobody's.
                peer.frame(2, kind::HAVE, &[8, 1]).unwrap();
                assert!(peer.events().is_empty());
            }
        }
    }
}

#[test]
fn a_wrong_capability_is_remembered_at_no_size() {
    for size in [0, 1, 31, 33, 100_000] {
        let mut peer = Peer::ready(Role::Responder, Config::default());
        let mut body = open_body(key(1), None);
        body.push(0x12);
        varint::encode(size as u64, &mut body);
        body.resize(body.len() + size, 7);
        peer.frame(2, kind::OPEN, &body).unwrap();
        peer.session.open_channel(Token(1), key(1)).unwrap();
        assert_eq!(peer.events(), [Event::ChannelClosed { token: Token(1) }], "{size}");
    }
}

#[test]
fn messages_before_open_after_close_and_for_ids_never_opened() {
    let mut peer = Peer::ready(Role::Initiator, Config::default());
    // An id whose Open comes later, one that only the remote opened, one that only we opened.
    peer.frame(2, kind::HAVE, &[8, 1]).unwrap();
    peer.open(3, key(3)).unwrap();
    peer.frame(3, kind::HAVE, &[8, 1]).unwrap();
    peer.session.open_channel(Token(1), key(1)).unwrap();
    peer.frame(2, kind::REQUEST, &[8, 1]).unwrap();
    peer.open(2, key(1)).unwrap();
    peer.frame(2, kind::HAVE, &[8, 2]).unwrap();
    assert_eq!(
        peer.events(),
        [Event::Opened { token: Token(1) }, Event::Message { token: Token(1), message: have(2) }]
    );
    // We close; of what was on its way the session reports which blocks are there, and drops what comes for an id after its Close.
    peer.session.close_channel(Token(1));
    peer.frame(2, kind::HAVE, &[8, 3]).unwrap();
    peer.frame(2, kind::CLOSE, &[]).unwrap();
    peer.frame(2, kind::HAVE, &[8, 4]).unwrap();
    peer.frame((1 << 27) - 1, kind::DATA, &[8, 4]).unwrap();
    assert_eq!(peer.events(), [Event::LateHave { token: Token(1), blocks: 3..4 }]);
    // Not even a body that is none is looked at.
    peer.frame(77, kind::DATA, &[0xff; 20]).unwrap();
}

#[test]
fn text_that_is_not_utf8() {
    for (id, json) in [
        (0, &b"{\"version\":\"4.0.0\",\"client\":\"MULTIFEED\xff\"}"[..]),
        (0, b"{\"version\":\"4.0.0\",\"client\":\"MULTIFEED\",\"userData\":\"\xc3\x28\"}"),
        (0, b"\xff\xfe{\x00}\x00"),
        (1, b"{\"keys\":[\"\xed\xa0\x80\"]}"),
        (3, b"[\"\xf0\x28\x8c\xbc\"]"),
    ] {
        let mut peer = Peer::connect(Role::Responder, Config::default());
        peer.open(1, DEFAULT_ROOT_KEY).unwrap();
        peer.options().unwrap();
        let error = peer.frame(0, kind::EXTENSION, &[&[id], json].concat()).unwrap_err();
        assert!(matches!(error.code(), "ERR_FEED_EXCHANGE" | "ERR_CLIENT_MISMATCH"), "{error:?}");
        assert_ne!(error.fault(), Fault::Local);
    }
    let mut peer = with_channel();
    let error = peer.frame(2, kind::OPTIONS, b"\x0a\x02\xff\xff").unwrap_err();
    assert_eq!(error, MessageError::Protobuf("Options").into());
}

#[test]
fn deeply_nested_json() {
    let deep = |open: &str, close: &str, depth: usize| open.repeat(depth) + "1" + &close.repeat(depth);
    for depth in [100, 200, 400_000] {
        for nested in [deep("[", "]", depth), deep("{\"a\":", "}", depth / 3)] {
            // User data is the remote application's own: it comes as its text, however deep.
            let json = format!(r#"{{"version":"4.0.0","client":"MULTIFEED","other":{nested},"userData":{nested}}}"#);
            let mut peer = Peer::connect(Role::Responder, Config::default());
            peer.events();
            peer.open(1, DEFAULT_ROOT_KEY).unwrap();
            peer.options().unwrap();
            match peer.extension(0, &json) {
                Ok(()) => {
                    let events = peer.events();
                    let Some(Event::Ready { remote, .. }) = events.first() else { panic!("{events:?}") };
                    assert_eq!(remote.user_data.as_ref().unwrap().as_str(), nested);
                }
                Err(error) => assert_eq!(error.code(), "ERR_LIMIT", "{depth}: {error}"),
            }
            // In a list it is no key.
            let mut peer = Peer::ready(Role::Responder, Config::default());
            let error = peer.extension(3, &nested).unwrap_err();
            assert_eq!(error.code(), "ERR_FEED_EXCHANGE");
            // Beside a list it is the application's.
            let mut peer = Peer::ready(Role::Responder, Config::default());
            match peer.extension(1, &format!(r#"{{"x":{nested},"keys":[]}}"#)) {
                Ok(()) => {
                    let events = peer.events();
                    let [Event::Manifest { fields: Some(fields), .. }] = &events[..] else { panic!("{events:?}") };
                    assert_eq!(fields.get("x").unwrap().as_str(), nested);
                }
                Err(error) => assert_eq!(error.code(), "ERR_LIMIT", "{depth}: {error}"),
            }
        }
    }
}

#[test]
fn keys_in_the_wrong_case_and_twice() {
    let mut peer = Peer::ready(Role::Responder, Config::default());
    let (lower, other) = (key(0xab).to_string(), key(0xcd).to_string());
    let (upper, mixed) = (lower.to_uppercase(), lower.replacen('a', "A", 7));
    peer.extension(1, &format!(r#"{{"keys":["{upper}","{other}","{lower}","{mixed}","{other}"]}}"#)).unwrap();
    assert_eq!(peer.events(), [Event::Manifest { root: Root::FIRST, keys: vec![key(0xab), key(0xcd)], fields: None }]);
    // Each of them is the same feed to whom it was offered.
    peer.session.offer_feeds(Root::FIRST, &[key(0xab)]).unwrap();
    peer.extension(3, &format!(r#"["{upper}","{lower}"]"#)).unwrap();
    assert_eq!(peer.events(), [Event::Replicate { root: Root::FIRST, keys: vec![key(0xab)], origin: Origin::Local }]);
}

#[test]
fn lists_that_are_repeated_change_nothing() {
    let mut peer = Peer::ready(Role::Responder, Config::default());
    peer.session.offer_feeds(Root::FIRST, &[key(1)]).unwrap();
    peer.session.request_feeds(Root::FIRST, &[key(2)]).unwrap();
    for _ in 0..3 {
        peer.extension(3, &format!(r#"["{}"]"#, key(1))).unwrap();
        peer.extension(2, &format!(r#"["{}"]"#, key(2))).unwrap();
    }
    let replicate = |n, origin| Event::Replicate { root: Root::FIRST, keys: vec![key(n)], origin };
    let both = [replicate(1, Origin::Local), replicate(2, Origin::Remote)];
    assert_eq!(peer.events(), [both.clone(), both.clone(), both].concat());
    // A channel is one channel nevertheless.
    peer.session.open_channel(Token(1), key(1)).unwrap();
    peer.session.open_channel(Token(2), key(1)).unwrap();
    assert_eq!(peer.events(), [Event::ChannelClosed { token: Token(2) }]);
}
