//! Conversations of the real JS protocol, recorded by `interop/vectors/proto.js`, replayed against a session in both roles.

use crate::common;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::{Replay, push};
use multifeed_proto::crypto::cipher::Keystream;
use multifeed_proto::*;
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/wire.json")).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

fn chunks(side: &Value) -> Vec<Vec<u8>> {
    side["chunks"].as_array().unwrap().iter().map(bytes).collect()
}

fn node(n: u8) -> Node {
    Node { index: n.into(), hash: [n; 32], size: u64::from(n) * 1000 }
}

/// What each side of the recording said on the feed's channel.
fn messages() -> Vec<Message> {
    let have = |start, length, bitfield, ack| Message::Have(Have { start, length, bitfield, ack });
    let request = |index, bytes, hash, nodes| Message::Request(Request { index, bytes, hash, nodes });
    let data = |index, value, nodes, signature| Message::Data(Data { index, value, nodes, signature });
    vec![
        Message::Options(Options { extensions: vec!["a".into(), "b".into()], ack: true }),
        Message::Options(Options::default()),
        Message::Status { uploading: true, downloading: false },
        have(5, 1, None, false),
        have(8192, 8192, Some(Bytes::from_static(&[0x0b])), false),
        have(7, 1, None, true),
        have(10, 3, None, false),
        have(0, 0, Some(Bytes::new()), false),
        Message::Unhave { start: 1, length: 2 },
        Message::Want { start: 0, length: 1_048_576 },
        Message::Unwant { start: 8192, length: 8192 },
        request(300, 0, false, 11),
        request(0, 70_000, true, 0),
        Message::Cancel { index: 300, bytes: 0, hash: false },
        data(0, Some(Bytes::new()), vec![], None),
        data(300, Some(Bytes::from(vec![0x55; 200])), vec![node(2), node(200)], Some([0x66; 64])),
        data(1, None, vec![node(5)], None),
        Message::Extension { id: 1, body: Bytes::from_static(b"hello") },
        Message::Extension { id: 200, body: Bytes::new() },
    ]
}

/// Plays one side of the recording: says what that side said, in the same order, while the other's recorded bytes come in.
fn replay(role: Role) {
    let vectors = vectors();
    let (ours, theirs) = match role {
        Role::Initiator => (&vectors["initiator"], &vectors["responder"]),
        Role::Responder => (&vectors["responder"], &vectors["initiator"]),
    };
    let feed = FeedKey::new(array(&vectors["feed"]));
    assert_eq!(feed.discovery_key(), DiscoveryKey::new(array(&vectors["discovery_key"])));
    let static_key = StaticKeyPair::from_secret_key(array(&ours["static_secret"]));
    assert_eq!(static_key.public_key().as_bytes(), &array(&ours["static_public"]));

    let mut config = Config::new(FeedKey::new(array(&vectors["root"])));
    config.static_key = Some(static_key);
    let drawn = [bytes(&ours["ephemeral"]), bytes(&ours["nonce"])].concat();
    let mut rng = Replay(VecDeque::from(drawn));
    let mut session = Session::new(role, config, Duration::ZERO, &mut rng);
    assert!(rng.0.is_empty(), "all of it was drawn");

    let mut sent = BytesMut::new();
    let mut events = Vec::new();
    let incoming = chunks(theirs);
    let closes = incoming.len() - 3;
    for (at, chunk) in incoming.iter().enumerate() {
        if at == closes {
            // Before the remote's Closes come, so that ours are no answers.
            for message in messages() {
                session.send(Token(7), &message);
            }
            session.close_channel(Token(7));
            session.close_root(Root::FIRST);
        }
        push(&mut session, chunk).unwrap();
        while let Some(event) = session.poll_event() {
            match &event {
                Event::Ready { .. } => session.offer_feeds(Root::FIRST, &[feed]).unwrap(),
                Event::Manifest { root: Root::FIRST, keys, .. } => session.request_feeds(Root::FIRST, keys).unwrap(),
                Event::Replicate { origin: Origin::Remote, keys, .. } => {
                    session.open_channel(Token(7), keys[0]).unwrap()
                }
                _ => {}
            }
            events.push(event);
        }
        session.poll_output(&mut sent);
    }

    // JS sent a last Close by discovery key, for a channel that is closed: ours would not.
    let mut expected = chunks(ours);
    expected.pop();
    assert_eq!(hex::encode(&sent), hex::encode(expected.concat()));

    let mut expected = vec![Event::Connected {
        remote_public_key: PeerKey::new(array(&theirs["static_public"])),
        handshake_hash: HandshakeHash::new(array(&ours["handshake_hash"])),
    }];
    let ready = events[1].clone();
    let Event::Ready { remote: RemoteHandshake { version, client, user_data: None, live: Some(false), .. }, .. } =
        &ready
    else {
        panic!("{ready:?}")
    };
    assert_eq!((version.as_str(), client.as_str()), ("4.0.0", "MULTIFEED"));
    expected.push(ready);
    expected.push(Event::Manifest { root: Root::FIRST, keys: vec![feed], fields: None });
    expected.push(Event::Replicate { root: Root::FIRST, keys: vec![feed], origin: Origin::Local });
    expected.push(Event::Replicate { root: Root::FIRST, keys: vec![feed], origin: Origin::Remote });
    expected.push(Event::Opened { token: Token(7) });
    expected.extend(messages().into_iter().map(|message| Event::Message { token: Token(7), message }));
    expected.push(Event::RootClosed { root: Root::FIRST, error: None });
    assert_eq!(events, expected);
}

#[test]
fn a_recorded_conversation_as_initiator() {
    replay(Role::Initiator);
}

#[test]
fn a_recorded_conversation_as_responder() {
    replay(Role::Responder);
}

#[test]
fn the_cipher_at_any_chunking() {
    let vector = &vectors()["xsalsa20"];
    let keystream = bytes(&vector["keystream"]);
    for size in [1, 7, 63, 64, 65, 333] {
        let mut cipher = Keystream::new(&array(&vector["key"]), &array(&vector["nonce"]));
        let mut out = vec![0; keystream.len()];
        out.chunks_mut(size).for_each(|chunk| cipher.apply(chunk));
        assert_eq!(out, keystream, "in pieces of {size}");
    }
}

#[test]
fn capabilities_differ_by_side_and_are_checked() {
    use multifeed_proto::crypto::capability::Split;
    let vectors = vectors();
    let feed = FeedKey::new(array(&vectors["feed"]));
    let sides = [&vectors["initiator"], &vectors["responder"]];
    let splits = sides.map(|side| Split { tx: array(&side["tx"]), rx: array(&side["rx"]) });
    let capabilities: [[u8; 32]; 2] = sides.map(|side| array(&side["capability"]));
    for (us, them) in [(0, 1), (1, 0)] {
        assert_eq!(splits[us].capability(&feed), capabilities[us]);
        assert!(splits[us].verify(&feed, Some(&capabilities[them])));
        assert!(!splits[us].verify(&feed, Some(&capabilities[us])));
        assert!(!splits[us].verify(&feed, Some(&capabilities[them][..31])));
        assert!(!splits[us].verify(&feed, None));
    }
}
