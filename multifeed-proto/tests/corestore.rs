//! Conversations of the real corestore-multifeed 0.0.1, recorded by `interop/vectors/corestore.js`. They are replayed against a
//! session in both roles: what the one side said comes in, and ours says on the root keys' channels what the other side said.

use crate::common;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::{Replay, push};
use multifeed_proto::crypto::cipher::Keystream;
use multifeed_proto::wire::frame::{self, Frame, Scanner};
use multifeed_proto::wire::message::kind;
use multifeed_proto::*;
use serde_json::Value;

const MAX: usize = 8 * 1024 * 1024;

/// Bytes of Noise's messages, which come before everything else, by role.
const NOISE: [usize; 2] = [59 + 91, 123];

/// What the application says on the stream.
const PEER_ID: &str = "peer-id";

fn conversations() -> Vec<Value> {
    let recorded: Value = serde_json::from_str(include_str!("vectors/corestore.json")).unwrap();
    recorded["conversations"].as_array().unwrap().clone()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

/// The feeds that a side wrote to, by root key.
fn written(side: &Value) -> BTreeMap<[u8; 32], FeedKey> {
    list(&side["feeds"]).iter().map(|feed| (array(&feed["root"]), FeedKey::new(array(&feed["key"])))).collect()
}

/// The frames of a side's whole stream.
fn frames(stream: &[u8], side: &Value, noise: usize) -> Vec<Frame> {
    let mut clear = BytesMut::from(&stream[noise..]);
    Keystream::new(&array(&side["tx"]), &array(&side["nonce"])).apply(&mut clear);
    let whole = Scanner::default().scan(&clear, MAX).unwrap();
    assert_eq!(whole, clear.len());
    let mut span = clear.freeze();
    std::iter::from_fn(|| frame::next(&mut span, MAX).unwrap()).collect()
}

/// What was said on each channel whose key is `keys`', by key: options, and extensions' messages.
fn lists(frames: &[Frame], keys: &[FeedKey]) -> BTreeMap<FeedKey, Vec<Bytes>> {
    let mut said = BTreeMap::new();
    for key in keys {
        let opens = |frame: &&Frame| frame.kind == kind::OPEN && frame.body[2..34] == *key.discovery_key().as_bytes();
        let channel = frames.iter().find(opens).expect("a channel for each root key").channel;
        let of_it = frames.iter().filter(|frame| frame.channel == channel && frame.kind != kind::OPEN);
        said.insert(*key, of_it.map(|frame| frame.body.clone()).collect());
    }
    said
}

fn replay(conversation: &Value, role: Role) {
    let name = &conversation["name"];
    let (at, ours, theirs) = match role {
        Role::Initiator => (0, &conversation["initiator"], &conversation["responder"]),
        Role::Responder => (1, &conversation["responder"], &conversation["initiator"]),
    };
    let roots: Vec<FeedKey> = list(&ours["roots"]).iter().map(|root| FeedKey::new(array(root))).collect();
    let (our_feeds, their_feeds) = (written(ours), written(theirs));
    let feed = |feeds: &BTreeMap<_, _>, root: Root| feeds[roots[root.0 as usize].as_bytes()];

    let mut config = Config::new(roots[0]);
    config.static_key = Some(StaticKeyPair::from_secret_key(array(&ours["static_secret"])));
    let drawn = [bytes(&ours["ephemeral"]), bytes(&ours["nonce"])].concat();
    let mut session = Session::new(role, config, Duration::ZERO, &mut Replay(VecDeque::from(drawn)));
    for (at, root) in roots.iter().enumerate().skip(1) {
        session.open_root(Root(at as u32), RootConfig::new(*root)).unwrap();
    }
    session.register_extension(Scope::Stream, PEER_ID).unwrap();

    let (mut sent, mut events, mut opened) = (BytesMut::new(), Vec::new(), Vec::new());
    let mut say = BytesMut::new();
    session.poll_output(&mut sent);
    for chunk in list(&theirs["chunks"]) {
        push(&mut session, &bytes(chunk)).unwrap();
        while let Some(event) = session.poll_event() {
            match &event {
                Event::Ready { root, .. } => session.offer_feeds(*root, &[feed(&our_feeds, *root)]).unwrap(),
                Event::Manifest { root, keys, .. } => session.request_feeds(*root, keys).unwrap(),
                Event::Replicate { keys, .. } => {
                    for key in keys {
                        session.open_channel(Token(opened.len() as u64), *key).unwrap();
                        opened.push(*key);
                    }
                }
                _ => {}
            }
            events.push(event);
        }
        if session.poll_output(&mut say) {
            sent.extend_from_slice(&say.split());
        }
    }

    // Every event that the remote's bytes hold.
    let has = |event: Event| assert!(events.contains(&event), "{name}, {role:?}: {event:?} in {events:#?}");
    for root in (0..).map(Root).take(roots.len()) {
        let ready = |event: &Event| matches!(event, Event::Ready { root: of, .. } if *of == root);
        assert!(events.iter().any(ready), "{name}: {root:?} is not ready");
        has(Event::Manifest { root, keys: vec![feed(&their_feeds, root)], fields: None });
        has(Event::Replicate { root, keys: vec![feed(&our_feeds, root)], origin: Origin::Local });
        has(Event::Replicate { root, keys: vec![feed(&their_feeds, root)], origin: Origin::Remote });
    }
    for (token, key) in opened.iter().enumerate() {
        has(Event::Opened { token: Token(token as u64) });
        let theirs = their_feeds.values().any(|feed| feed == key);
        let received = events.iter().filter(|event| match event {
            Event::Message { token: at, message } => {
                at.0 == token as u64 && matches!(message, Message::Data(_)) == theirs
            }
            _ => false,
        });
        assert!(received.count() > 0, "{name}: blocks of theirs, requests for ours");
    }
    if let Some(said) = list(&theirs["messages"]).iter().rev().find(|message| message["channel"] == 0) {
        let body = said["text"].as_str().unwrap().to_owned().into();
        has(Event::Extension { scope: Scope::Stream, name: PEER_ID.into(), body });
    }
    let fatal = |event: &Event| matches!(event, Event::Closed(_) | Event::RootClosed { .. });
    assert!(!events.iter().any(fatal), "{name}: {events:#?}");

    // On the root keys' channels, what JS said in our place. Its order among the messages is its own: each list goes its own way.
    let recorded: Vec<u8> = list(&ours["chunks"]).iter().flat_map(bytes).collect();
    assert_eq!(sent[..NOISE[at]], recorded[..NOISE[at]], "{name}: Noise");
    let sorted = |stream: &[u8]| {
        let mut said = lists(&frames(stream, ours, NOISE[at]), &roots);
        for messages in said.values_mut() {
            messages.iter_mut().for_each(|message| *message = plain(message));
            messages.sort();
        }
        said
    };
    assert_eq!(sorted(&sent), sorted(&recorded), "{name}, {role:?}");
}

/// A message, without what our handshake says beyond JS's: that we are not live.
fn plain(message: &Bytes) -> Bytes {
    match message.strip_prefix(&[0]).and_then(|json| serde_json::from_slice::<Value>(json).ok()) {
        Some(mut handshake) => {
            handshake.as_object_mut().unwrap().remove("live");
            handshake.to_string().into()
        }
        None => message.clone(),
    }
}

#[test]
fn recorded_conversations_as_initiator() {
    let all = conversations();
    assert_eq!(all.len(), 3);
    all.iter().for_each(|conversation| replay(conversation, Role::Initiator));
}

#[test]
fn recorded_conversations_as_responder() {
    conversations().iter().for_each(|conversation| replay(conversation, Role::Responder));
}

/// The recording tells its messages in the clear as well.
#[test]
fn the_messages_in_the_clear_are_those_of_the_streams() {
    for conversation in conversations() {
        for (side, noise) in ["initiator", "responder"].into_iter().zip(NOISE) {
            let side = &conversation[side];
            let stream: Vec<u8> = list(&side["chunks"]).iter().flat_map(bytes).collect();
            let messages: Vec<_> = list(&side["messages"])
                .iter()
                .map(|message| (message["channel"].as_u64(), message["type"].as_u64(), bytes(&message["body"])))
                .collect();
            let frames = frames(&stream, side, noise);
            let frames =
                frames.iter().map(|frame| (Some(frame.channel.into()), Some(frame.kind.into()), frame.body.to_vec()));
            assert_eq!(frames.collect::<Vec<_>>(), messages);
        }
    }
}
