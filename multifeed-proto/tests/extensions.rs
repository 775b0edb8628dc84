//! What applications do beside the feeds: extensions of their own, the remote's key, pings, counts and traces.
#![allow(missing_docs, clippy::disallowed_methods, clippy::disallowed_types)]

use crate::common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::*;
use multifeed_proto::wire::message::kind;
use multifeed_proto::*;

fn heard(side: &Side) -> Vec<(Scope, &str, &[u8])> {
    let extensions = side.events.iter().filter_map(|event| match event {
        Event::Extension { scope, name, body } => Some((*scope, &**name, &body[..])),
        _ => None,
    });
    extensions.collect()
}

fn json(text: &str) -> Bytes {
    Json::new(text).expect("JSON").into()
}

#[test]
fn an_extension_of_the_stream() {
    let mut pair = Pair::offering(&[key(1)], &[]);
    let id = json(r#"{"id":"abc"}"#);
    // Before anything is there: what is said waits.
    for side in [&mut pair.a, &mut pair.b] {
        side.session.register_extension(Scope::Stream, "peer-id").unwrap();
        side.session.send_extension(Scope::Stream, "peer-id", &id).unwrap();
    }
    pair.b.session.register_extension(Scope::Stream, "Zeta").unwrap();
    pair.run_until(Duration::from_secs(1));
    for side in [&pair.a, &pair.b] {
        assert_eq!(heard(side), [(Scope::Stream, "peer-id", &id[..])]);
        assert!(side.session.remote_speaks(Scope::Stream, "peer-id"));
        assert!(side.events.iter().any(|event| matches!(event, Event::Replicate { .. })), "feeds go on");
    }
    let Event::Extension { body, .. } =
        pair.a.events.iter().find(|event| matches!(event, Event::Extension { .. })).unwrap()
    else {
        unreachable!()
    };
    assert_eq!(Json::from_bytes(body), Json::new(r#"{"id":"abc"}"#));

    // One that comes later shifts the numbers of the others, multifeed's among them.
    pair.a.session.register_extension(Scope::Stream, "A").unwrap();
    pair.run();
    assert!(!pair.b.session.remote_speaks(Scope::Stream, "A") && !pair.b.session.remote_speaks(Scope::Stream, "Zeta"));
    pair.b.session.register_extension(Scope::Stream, "A").unwrap();
    assert!(pair.b.session.remote_speaks(Scope::Stream, "A"));
    pair.a.session.send_extension(Scope::Stream, "A", &[0, 255]).unwrap();
    pair.a.session.send_extension(Scope::Stream, "peer-id", &[]).unwrap();
    pair.a.session.offer_feeds(Root::FIRST, &[key(2)]).unwrap();
    pair.run();
    assert_eq!(heard(&pair.b)[1..], [(Scope::Stream, "A", &[0, 255][..]), (Scope::Stream, "peer-id", &[])]);
    assert!(pair.b.events.contains(&Event::Manifest { root: Root::FIRST, keys: vec![key(2)], fields: None }));
}

#[test]
fn what_both_speak_from_the_start_is_known_when_they_are_ready() {
    let config = |names: &[&str]| {
        let mut config = Config::default();
        config.extensions = names.iter().map(ToString::to_string).collect();
        config
    };
    let mut pair = Pair::new(config(&["c", "Ours", "MULTIFEED_MANIFEST"]), config(&["a", "c", "Ours"]));
    pair.run_until(Duration::from_secs(1));
    for side in [&pair.a, &pair.b] {
        let told = side.events.iter().find_map(|event| match event {
            Event::Ready { remote, .. } => Some(remote.extensions.iter().map(|name| &**name).collect::<Vec<_>>()),
            _ => None,
        });
        assert_eq!(told, Some(vec!["Ours", "c"]));
    }
    pair.a.session.send_extension(Scope::Stream, "Ours", b"hello").unwrap();
    pair.run();
    assert_eq!(heard(&pair.b), [(Scope::Stream, "Ours", &b"hello"[..])]);
}

#[test]
fn what_is_not_spoken_is_dropped_and_no_fault() {
    let mut config = Config::default();
    config.limits.stray_messages = 3;
    let mut pair = Pair::new(Config::default(), config);
    pair.a.session.register_extension(Scope::Stream, "x").unwrap();
    pair.run_until(Duration::from_secs(1));
    for _ in 0..10 {
        // A name that is known to one side.
        pair.a.session.send_extension(Scope::Stream, "x", b"hello").unwrap();
        pair.a.session.register_extension(Scope::Channel(Token(9)), "x").unwrap();
        pair.a.session.send_extension(Scope::Channel(Token(9)), "x", b"hello").unwrap();
    }
    pair.run();
    assert_eq!((heard(&pair.a).len(), heard(&pair.b).len()), (0, 0));
    assert!(pair.a.closed().is_none() && pair.b.closed().is_none());
    assert!(!pair.a.events.iter().any(|event| matches!(event, Event::Manifest { .. })));
}

#[test]
fn numbers_without_a_name_are_counted() {
    let mut config = Config::default();
    config.limits.stray_messages = 3;
    let mut peer = Peer::ready(Role::Responder, config);
    for _ in 0..3 {
        peer.extension(9, "{}").unwrap();
    }
    assert_eq!(peer.extension(9, "{}").unwrap_err().code(), "ERR_LIMIT");
}

#[test]
fn an_extension_of_a_feed() {
    let mut pair = Pair::offering(&[key(1)], &[]);
    pair.run_until(Duration::from_secs(1));
    let scope = Scope::Channel(Token(0));
    // Registered after the channel opened: the names go out by themselves.
    for side in [&mut pair.a, &mut pair.b] {
        side.session.register_extension(scope, "typing").unwrap();
    }
    pair.run();
    pair.a.session.send_extension(scope, "typing", b"a").unwrap();
    pair.b.session.send_extension(scope, "typing", b"b").unwrap();
    pair.run();
    assert_eq!(heard(&pair.a), [(scope, "typing", &b"b"[..])]);
    assert_eq!(heard(&pair.b), [(scope, "typing", &b"a"[..])]);
    assert!(pair.a.session.remote_speaks(scope, "typing"));
    // Other messages are not touched, and the application's wish for acknowledgements goes along with the names.
    pair.a.session.send(Token(0), &Message::Options(Options { extensions: vec![], ack: true }));
    pair.run();
    let options = Options { extensions: vec!["typing".into()], ack: true };
    assert_eq!(pair.b.events.last(), Some(&Event::Message { token: Token(0), message: Message::Options(options) }));
}

#[test]
fn a_feeds_extensions_are_told_first() {
    for remote_first in [false, true] {
        let mut peer = Peer::ready(Role::Responder, Config::default());
        if remote_first {
            peer.open(5, key(5)).unwrap();
        }
        peer.session.open_channel(Token(1), key(5)).unwrap();
        peer.session.register_extension(Scope::Channel(Token(1)), "b").unwrap();
        peer.session.register_extension(Scope::Channel(Token(1)), "a").unwrap();
        if !remote_first {
            peer.frames();
            peer.open(5, key(5)).unwrap();
        }
        peer.session.send(Token(1), &have(1));
        let frames = peer.frames();
        let kinds: Vec<_> = frames.iter().map(|frame| frame.kind).collect();
        if remote_first {
            assert_eq!(kinds, [kind::OPEN, kind::OPTIONS, kind::OPTIONS, kind::HAVE]);
        } else {
            assert_eq!(kinds, [kind::OPTIONS, kind::HAVE]);
        }
        let options = &frames[frames.len() - 2];
        assert_eq!(&options.body[..], b"\x0a\x01a\x0a\x01b\x10\x00");
        // In the numbers of the remote's own list.
        peer.frame(5, kind::OPTIONS, b"\x0a\x01A\x0a\x01a\x0a\x01z").unwrap();
        peer.frame(5, kind::EXTENSION, b"\x01hi").unwrap();
        peer.frame(5, kind::EXTENSION, b"\x02nobody").unwrap();
        let events = peer.events();
        let Some(Event::Extension { scope, name, body }) = events.last() else { panic!("{events:?}") };
        assert_eq!((*scope, &**name, &body[..]), (Scope::Channel(Token(1)), "a", &b"hi"[..]));
    }
}

#[test]
fn a_message_too_large_is_our_own_mistake() {
    let mut pair = Pair::offering(&[], &[]);
    pair.a.session.register_extension(Scope::Stream, "x").unwrap();
    pair.run_until(Duration::from_secs(1));
    pair.a.session.send_extension(Scope::Stream, "x", &vec![0; MAX]).unwrap();
    pair.run();
    let Some(Err(error)) = pair.a.closed() else { panic!() };
    assert_eq!(error.fault(), Fault::Local);
}

#[test]
fn the_remotes_key_is_accepted_or_not() {
    let pair_of = |static_key: Option<StaticKeyPair>| {
        let (mut a, mut b) = (Config::default(), Config::default());
        a.authenticate = true;
        b.static_key = static_key;
        let mut pair = Pair::new(a, b);
        (pair.a.offers, pair.b.offers) = (Some(vec![key(1)]), Some(vec![]));
        pair.run_until(Duration::from_secs(1));
        pair
    };
    let known = StaticKeyPair::from_secret_key([5; 32]);
    let mut pair = pair_of(Some(known.clone()));
    let [Event::Connected { remote_public_key, .. }] = &pair.a.events[..] else { panic!("{:?}", pair.a.events) };
    assert_eq!(remote_public_key, known.public_key());
    // Until we say so nothing is read, and nothing said.
    assert!(pair.a.session.recv_buf().is_none());
    let sent = pair.a.session.totals().bytes_out;
    assert_eq!(sent, 1 + 58 + 1 + 90);
    pair.a.session.accept().unwrap();
    pair.run_until(Duration::from_secs(2));
    assert!(pair.b.events.contains(&Event::Manifest { root: Root::FIRST, keys: vec![key(1)], fields: None }));
    pair.run_until(Duration::from_secs(60));
    assert!(pair.a.closed().is_none());

    let mut pair = pair_of(None);
    pair.a.session.apply(Command::Refuse).unwrap();
    pair.run();
    let Some(Err(error @ SessionError::Refused { .. })) = pair.a.closed() else { panic!("{:?}", pair.a.events) };
    assert_eq!((error.code(), error.fault()), ("ERR_REFUSED", Fault::Local));
    assert!(pair.a.session.output_finished());
    assert_eq!(pair.a.session.totals().bytes_out, sent, "it was told nothing");

    // Who does not judge in time is late.
    let mut pair = pair_of(None);
    pair.run_until(Duration::from_secs(21));
    assert_eq!(pair.a.closed(), Some(&Err(SessionError::Timeout(Phase::Held))));
}

#[test]
fn what_came_while_we_judged_is_not_lost() {
    let mut config = Config::default();
    config.authenticate = true;
    let mut peer = Peer::connect(Role::Responder, config);
    assert!(peer.session.recv_buf().is_none());
    peer.session.accept().unwrap();
    peer.open(1, DEFAULT_ROOT_KEY).unwrap();
    assert_eq!(peer.frames().len(), 2, "Open and Options");
    // The end of a stream whose key was not judged yet.
    let mut config = Config::default();
    config.authenticate = true;
    let mut peer = Peer::connect(Role::Responder, config);
    peer.session.handle_eof();
    let events = peer.events();
    assert_eq!(events.last(), Some(&Event::Closed(Err(SessionError::Disconnected(Phase::Held)))));
}

#[test]
fn a_ping_is_a_keep_alive() {
    let mut peer = Peer::connect(Role::Responder, Config::default());
    peer.frames();
    let before = peer.session.totals().bytes_out;
    peer.session.ping();
    peer.session.poll_output(&mut BytesMut::new());
    assert_eq!(peer.session.totals().bytes_out, before + 1);
    let mut pair = Pair::offering(&[], &[]);
    pair.a.session.ping();
    pair.run_until(Duration::from_secs(1));
    pair.a.session.apply(Command::Ping).unwrap();
    pair.run();
    assert!(pair.b.closed().is_none());
    let mut early = session(Role::Responder, Config::default());
    early.ping();
    assert!(!early.poll_output(&mut BytesMut::new()), "there are none in the handshake");
}

type Row = (Direction, u32, Option<Token>, Option<Root>, &'static str, Option<String>, usize, Duration);

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Row>>>);

impl Tracer for Log {
    fn message(&mut self, record: &Record<'_>) {
        let extension = record.extension.map(str::to_owned);
        let Record { direction, channel, token, root, size, time, .. } = *record;
        self.0.lock().unwrap().push((direction, channel, token, root, record.name(), extension, size, time));
    }
}

#[test]
fn a_trace_tells_every_message_once() {
    let mut pair = Pair::offering(&[key(1)], &[key(2)]);
    let logs = [Log::default(), Log::default()];
    pair.a.session.set_tracer(Some(Box::new(logs[0].clone())));
    pair.b.session.set_tracer(Some(Box::new(logs[1].clone())));
    pair.b.session.register_extension(Scope::Stream, "x").unwrap();
    pair.run_until(Duration::from_secs(3));
    for side in [&mut pair.a, &mut pair.b] {
        side.session.handle_timeout(Duration::from_secs(3));
    }
    let token = pair.a.token(key(2));
    pair.a.session.send(token, &data(7, Bytes::from(vec![1; 1000])));
    pair.b.session.send_extension(Scope::Stream, "x", b"hi").unwrap();
    pair.run();
    pair.a.session.close_root(Root::FIRST);
    pair.run();

    let rows = logs.map(|log| log.0.lock().unwrap().clone());
    for (rows, side) in rows.iter().zip([&pair.a, &pair.b]) {
        let totals = side.session.totals();
        let count = |way| rows.iter().filter(|row| row.0 == way).count() as u64;
        assert_eq!((count(Direction::In), count(Direction::Out)), (totals.messages_in, totals.messages_out));
        // The trace has each byte of a message: the rest is the handshake, lengths, and headers of 1 or 2 bytes, and pings.
        let bytes: u64 = rows.iter().filter(|row| row.0 == Direction::Out).map(|row| row.6 as u64).sum();
        let rest = totals.bytes_out - bytes;
        assert!(rest > 120 && rest < 182 + 6 * totals.messages_out, "{rest}");
    }
    // What one says the other hears, in the same order.
    for (from, to) in [(&rows[0], &rows[1]), (&rows[1], &rows[0])] {
        let list = |rows: &[Row], way| -> Vec<_> {
            rows.iter().filter(|row| row.0 == way).map(|row| (row.1, row.4, row.6)).collect()
        };
        assert_eq!(list(from, Direction::Out), list(to, Direction::In));
    }
    let has = |row: Row| assert!(rows[0].contains(&row), "{row:?} in {:?}", rows[0]);
    let (out, root) = (Direction::Out, Some(Root::FIRST));
    has((out, 1, None, root, "Open", None, 68, Duration::ZERO));
    let manifest = Some("MULTIFEED_MANIFEST".to_owned());
    has((out, 0, None, root, "Extension", manifest, 1 + 13 + 64, Duration::ZERO));
    let channel = rows[0].iter().find(|row| row.4 == "Data").unwrap().1;
    has((out, channel, Some(token), None, "Data", None, 1005, Duration::from_secs(3)));
    has((Direction::In, 0, None, None, "Extension", None, 3, Duration::from_secs(3)));
    let x = (Direction::Out, 0, None, None, "Extension", Some("x".to_owned()), 3, Duration::from_secs(3));
    assert!(rows[1].contains(&x));
    has((out, 1, root.and(None), root, "Close", None, 0, Duration::from_secs(3)));

    pair.a.session.set_tracer(None);
    pair.a.session.send(token, &have(3));
    pair.run();
    assert_eq!(rows[0].len() as u64, pair.a.session.totals().messages_in + pair.a.session.totals().messages_out - 1);
}

#[test]
fn a_session_can_be_sent_and_shared() {
    fn check<T: Send + Sync>() {}
    check::<Session>();
}
