//! Several multifeeds on one stream, and both dialects.
#![allow(missing_docs, clippy::disallowed_methods, clippy::disallowed_types)]

use crate::common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::*;
use multifeed_proto::wire::message::kind;
use multifeed_proto::*;

const MISSING: Duration = Duration::from_secs(21);

/// A session with these root keys, named by their place: the first is the configuration's.
fn with_roots(role: Role, roots: &[u8]) -> Session {
    let mut session = session(role, Config::new(key(roots[0])));
    for (at, n) in roots.iter().enumerate().skip(1) {
        session.open_root(Root(at as u32), RootConfig::new(key(*n))).unwrap();
    }
    session
}

fn pair(a: &[u8], b: &[u8]) -> Pair {
    let mut pair = Pair::new(Config::default(), Config::default());
    pair.a.session = with_roots(Role::Initiator, a);
    pair.b.session = with_roots(Role::Responder, b);
    pair
}

fn ready(side: &Side) -> Vec<u32> {
    let mut roots: Vec<_> = side
        .events
        .iter()
        .filter_map(|event| if let Event::Ready { root, .. } = event { Some(root.0) } else { None })
        .collect();
    roots.sort_unstable();
    roots
}

fn root_closed(side: &Side) -> BTreeMap<u32, Option<SessionError>> {
    let closed = side.events.iter().filter_map(|event| match event {
        Event::RootClosed { root, error } => Some((root.0, error.clone())),
        _ => None,
    });
    closed.collect()
}

/// The places in `ours` of the roots that are in `theirs` too, or are not.
fn places(ours: &[u8], theirs: &[u8], shared: bool) -> Vec<u32> {
    (0..).zip(ours).filter(|(_, n)| theirs.contains(n) == shared).map(|(at, _)| at).collect()
}

#[test]
fn what_both_have_is_synced_and_the_rest_ends_by_itself() {
    let sets: [&[u8]; 7] = [&[1], &[1, 2], &[2, 1], &[3, 2, 1], &[4, 1], &[1, 2, 3, 4, 5], &[5, 1]];
    for ours in sets {
        for theirs in sets {
            let mut pair = pair(ours, theirs);
            pair.run_until(Duration::from_secs(1));
            for (side, ours, theirs) in [(&pair.a, ours, theirs), (&pair.b, theirs, ours)] {
                assert_eq!(ready(side), places(ours, theirs, true), "{ours:?} with {theirs:?}: {:?}", side.events);
                assert_eq!(root_closed(side), BTreeMap::new(), "{ours:?} with {theirs:?}");
            }
            pair.run_until(MISSING);
            for (side, ours, theirs) in [(&mut pair.a, ours, theirs), (&mut pair.b, theirs, ours)] {
                let missing = places(ours, theirs, false);
                let closed = root_closed(side);
                assert_eq!(closed.keys().copied().collect::<Vec<_>>(), missing, "{ours:?} with {theirs:?}");
                let late = |error: &Option<SessionError>| *error == Some(SessionError::Timeout(Phase::Exchange));
                assert!(closed.values().all(late), "{closed:?}");
                assert!(side.closed().is_none());
            }
        }
    }
}

#[test]
fn lists_of_different_multifeeds_do_not_mix() {
    let mut pair = pair(&[1, 2], &[2, 1]);
    pair.run_until(Duration::from_secs(1));
    // The same multifeeds under different names: 0 here is 1 there.
    let Pair { a, b, .. } = &mut pair;
    a.session.offer_feeds(Root(0), &[key(10), key(11)]).unwrap();
    a.session.offer_feeds(Root(1), &[key(20)]).unwrap();
    b.session.offer_feeds(Root(0), &[]).unwrap();
    b.session.request_feeds(Root(1), &[key(10), key(20)]).unwrap();
    b.session.request_feeds(Root(0), &[key(11), key(20)]).unwrap();
    a.session.request_feeds(Root(0), &[]).unwrap();
    a.session.request_feeds(Root(1), &[]).unwrap();
    pair.run();
    let has = |side: &Side, event: Event| assert!(side.events.contains(&event), "{event:?} in {:?}", side.events);
    has(&pair.b, Event::Manifest { root: Root(1), keys: vec![key(10), key(11)], fields: None });
    has(&pair.b, Event::Manifest { root: Root(0), keys: vec![key(20)], fields: None });
    has(&pair.a, Event::Replicate { root: Root(0), keys: vec![key(10)], origin: Origin::Local });
    has(&pair.a, Event::Replicate { root: Root(1), keys: vec![key(20)], origin: Origin::Local });
    has(&pair.b, Event::Replicate { root: Root(1), keys: vec![key(10)], origin: Origin::Remote });
    has(&pair.b, Event::Replicate { root: Root(0), keys: vec![key(20)], origin: Origin::Remote });
    // One channel for a feed, whoever's it is.
    pair.a.session.open_channel(Token(1), key(10)).unwrap();
    pair.b.session.open_channel(Token(2), key(10)).unwrap();
    pair.run();
    has(&pair.a, Event::Opened { token: Token(1) });
    has(&pair.b, Event::Opened { token: Token(2) });
}

/// What a session said: kind, channel, and for an Open the key.
fn said(peer: &mut Peer, keys: &[FeedKey]) -> Vec<(u8, u32, Option<FeedKey>)> {
    let frames = peer.frames();
    let opened = |body: &[u8]| keys.iter().copied().find(|key| body.get(2..34) == Some(key.discovery_key().as_bytes()));
    frames.iter().map(|frame| (frame.kind, frame.channel, opened(&frame.body))).collect()
}

fn join(peer: &mut Peer, roots: &[u8]) {
    for (at, n) in roots.iter().enumerate() {
        peer.session.open_root(Root(at as u32 + 1), RootConfig::new(key(*n))).unwrap();
    }
}

#[test]
fn an_initiator_with_several_opens_one_and_waits() {
    let mut peer = Peer::connect(Role::Initiator, Config::new(key(1)));
    join(&mut peer, &[2, 3]);
    let keys = [1, 2, 3].map(key);
    assert_eq!(said(&mut peer, &keys), []);
    peer.session.handle_timeout(Duration::from_millis(100));
    assert_eq!(said(&mut peer, &keys), [(kind::OPEN, 1, Some(keys[0]))]);
    peer.session.handle_timeout(Duration::from_secs(5));
    assert_eq!(said(&mut peer, &keys), []);
    // The remote names one of ours, and would have ended the stream at any other.
    peer.open(1, key(3)).unwrap();
    let opens = [(kind::OPEN, 2, Some(keys[2])), (kind::OPTIONS, 2, None), (kind::OPEN, 3, Some(keys[1]))];
    assert_eq!(said(&mut peer, &keys), opens);
    // It may hold its handshake as well.
    peer.session.handle_timeout(Duration::from_secs(6));
    assert_eq!(said(&mut peer, &keys), [(kind::EXTENSION, 2, None)]);
}

#[test]
fn an_initiator_answers_the_root_that_is_named_first() {
    let mut peer = Peer::connect(Role::Initiator, Config::new(key(1)));
    join(&mut peer, &[2, 3]);
    peer.open(1, key(2)).unwrap();
    let keys = [1, 2, 3].map(key);
    let opens: Vec<_> = said(&mut peer, &keys).into_iter().filter_map(|(_, _, key)| key).collect();
    assert_eq!(opens, [keys[1], keys[0], keys[2]]);
}

#[test]
fn a_responder_with_several_waits_to_be_told_which() {
    let mut config = Config::plain();
    config.authenticate = true;
    let mut peer = Peer::connect(Role::Responder, config);
    join(&mut peer, &[1, 2, 3]);
    peer.session.accept().unwrap();
    let keys = [1, 2, 3].map(key);
    peer.session.handle_timeout(Duration::from_secs(5));
    assert_eq!(said(&mut peer, &keys), []);
    peer.open(1, key(2)).unwrap();
    let opens: Vec<_> = said(&mut peer, &keys).into_iter().filter_map(|(_, _, key)| key).collect();
    assert_eq!(opens, [keys[1], keys[0], keys[2]]);
}

#[test]
fn the_only_root_key_may_come_after_others() {
    for role in [Role::Initiator, Role::Responder] {
        let mut peer = Peer::connect(role, Config::new(key(1)));
        peer.events();
        // A responder opens what it is asked to open behind its root key, whatever the remote does.
        let held: &[FeedKey] = if role == Role::Initiator { &[key(5)] } else { &[] };
        held.iter().for_each(|key| peer.session.open_channel(Token(1), *key).unwrap());
        peer.open(1, key(2)).unwrap();
        peer.open(2, key(3)).unwrap();
        greet_on_channel(&mut peer, 1);
        peer.session.handle_timeout(Duration::from_secs(1));
        let opens: Vec<_> = said(&mut peer, &[1, 2, 3, 5].map(key)).into_iter().filter_map(|(_, _, key)| key).collect();
        assert_eq!(opens, [key(1)], "{role:?}");
        peer.open(3, key(1)).unwrap();
        greet_on_channel(&mut peer, 3);
        peer.session.handle_timeout(Duration::from_secs(5));
        assert!(matches!(peer.events()[..], [Event::Ready { root: Root::FIRST, .. }]), "{role:?}");
        let opens: Vec<_> = said(&mut peer, &[1, 2, 3, 5].map(key)).into_iter().filter_map(|(_, _, key)| key).collect();
        assert_eq!(opens, held, "{role:?}");
    }
}

#[test]
fn several_that_the_remote_has_none_of() {
    let mut peer = Peer::connect(Role::Initiator, Config::new(key(1)));
    join(&mut peer, &[2]);
    peer.open(1, key(9)).unwrap();
    // JS ends the stream now: it was ours that did not come first.
    peer.session.handle_eof();
    let events = peer.events();
    let Some(Event::Closed(Err(error))) = events.last() else { panic!("{events:?}") };
    let expected = SessionError::RootKeyMismatch { us: key(1).discovery_key(), them: key(9).discovery_key() };
    assert_eq!(*error, expected);

    // One that stays has until the time is over.
    let mut pair = pair(&[1, 2], &[3, 4]);
    pair.run_until(Duration::from_secs(19));
    assert!(pair.a.closed().is_none() && pair.b.closed().is_none());
    pair.run_until(MISSING);
    assert_eq!(pair.a.closed(), Some(&Err(SessionError::Timeout(Phase::Exchange))));
    assert!(matches!(pair.b.closed(), Some(Err(_))));
}

/// Greets on the root key's channel, as corestore-multifeed does: with nothing on channel 0.
fn greet_on_channel(peer: &mut Peer, channel: u32) {
    peer.frame(channel, kind::OPTIONS, &options_body()).unwrap();
    peer.frame(channel, kind::EXTENSION, &[&[0], HANDSHAKE.as_bytes()].concat()).unwrap();
}

#[test]
fn a_corestore_multifeed_is_answered_on_its_channel() {
    for role in [Role::Initiator, Role::Responder] {
        let mut peer = Peer::connect(role, Config::default());
        peer.open(1, DEFAULT_ROOT_KEY).unwrap();
        peer.frames();
        greet_on_channel(&mut peer, 1);
        let frames = peer.frames();
        let [options, handshake] = &frames[..] else { panic!("{frames:?}") };
        assert_eq!((options.kind, options.channel, &options.body[..]), (kind::OPTIONS, 1, &options_body()[..]));
        assert_eq!((handshake.kind, handshake.channel, handshake.body[0]), (kind::EXTENSION, 1, 0));
        let json = std::str::from_utf8(&handshake.body[1..]).unwrap();
        assert_eq!(json, r#"{"client":"MULTIFEED","version":"4.0.0","live":false}"#);

        peer.session.offer_feeds(Root::FIRST, &[key(5)]).unwrap();
        let manifest = format!(r#"{{"keys":["{}"]}}"#, key(5));
        let frames = peer.frames();
        assert_eq!(frames.len(), 1);
        assert_eq!((frames[0].channel, &frames[0].body[..]), (1, &[&[1], manifest.as_bytes()].concat()[..]));
        peer.frame(1, kind::EXTENSION, &[&[3], format!(r#"["{}"]"#, key(5)).as_bytes()].concat()).unwrap();
        let replicate = Event::Replicate { root: Root::FIRST, keys: vec![key(5)], origin: Origin::Local };
        assert_eq!(peer.events().last(), Some(&replicate));
        // Its lists went over that channel, so they end with it.
        peer.session.close_root(Root::FIRST);
        peer.frames();
        peer.session.offer_feeds(Root::FIRST, &[key(6)]).unwrap();
        assert_eq!(peer.frames(), []);
        peer.frame(1, kind::CLOSE, &[]).unwrap();
        assert_eq!(peer.events(), [Event::RootClosed { root: Root::FIRST, error: None }]);
    }
}

#[test]
fn a_root_key_can_be_opened_again_once_its_channel_and_so_its_lists_ended() {
    let mut peer = Peer::connect(Role::Responder, Config::default());
    peer.open(1, DEFAULT_ROOT_KEY).unwrap();
    greet_on_channel(&mut peer, 1);
    peer.frame(1, kind::CLOSE, &[]).unwrap();
    assert_eq!(peer.events().last(), Some(&Event::RootClosed { root: Root::FIRST, error: None }));
    peer.session.open_root(Root(9), RootConfig::new(DEFAULT_ROOT_KEY)).unwrap();
    peer.open(1, DEFAULT_ROOT_KEY).unwrap();
    greet_on_channel(&mut peer, 1);
    let events = peer.events();
    assert!(matches!(events.last(), Some(Event::Ready { root: Root(9), .. })), "{events:?}");
}

#[test]
fn a_multifeed_6_is_answered_on_channel_0_also_where_we_have_several() {
    let mut peer = Peer::connect(Role::Responder, Config::new(key(1)));
    join(&mut peer, &[2]);
    peer.open(1, key(2)).unwrap();
    let frames = peer.frames();
    let speech = |frame: &wire::frame::Frame| frame.kind == kind::EXTENSION;
    assert!(!frames.iter().any(speech), "it is not known yet where: {frames:?}");
    peer.options().unwrap();
    peer.extension(0, HANDSHAKE).unwrap();
    let frames = peer.frames();
    assert_eq!(frames.iter().map(|frame| (frame.channel, frame.kind)).collect::<Vec<_>>(), [(0, 15)]);
    assert!(matches!(peer.events().last(), Some(Event::Ready { root: Root(1), .. })));
    peer.session.offer_feeds(Root(1), &[key(5)]).unwrap();
    assert_eq!(peer.frames()[0].channel, 0);
    peer.extension(1, &format!(r#"{{"keys":["{}"]}}"#, key(7))).unwrap();
    assert_eq!(peer.events(), [Event::Manifest { root: Root(1), keys: vec![key(7)], fields: None }]);
}

#[test]
fn another_version_ends_one_of_several() {
    let mut a = RootConfig::new(key(2));
    a.version = "5.0.0".into();
    let mut pair = Pair::new(Config::new(key(1)), Config::new(key(1)));
    pair.a.session.open_root(Root(7), a).unwrap();
    pair.b.session.open_root(Root(8), RootConfig::new(key(2))).unwrap();
    pair.run_until(Duration::from_secs(60));
    for (side, root, us, them) in [(&pair.a, 7, "5.0.0", "4.0.0"), (&pair.b, 8, "4.0.0", "5.0.0")] {
        assert_eq!(ready(side), [0]);
        let us = us.to_owned();
        let error = SessionError::VersionMismatch { us, them: Some(them.to_owned()) };
        assert_eq!(root_closed(side), BTreeMap::from([(root, Some(error))]));
        assert!(side.closed().is_none());
    }
}

#[test]
fn one_of_several_can_be_closed_and_opened_again() {
    let mut pair = pair(&[1, 2], &[1, 2]);
    pair.run_until(Duration::from_secs(1));
    pair.a.session.close_root(Root(1));
    pair.run();
    let closed = BTreeMap::from([(1, None)]);
    assert_eq!((root_closed(&pair.a), root_closed(&pair.b)), (closed.clone(), closed));
    // A name is used once; the key is free.
    let used = pair.a.session.open_root(Root(1), RootConfig::new(key(2)));
    assert_eq!(used, Err(ApiMisuse::RootInUse(Root(1))));
    pair.run();
    assert_eq!(ready(&pair.a), [0, 1]);
    pair.a.session.open_root(Root(5), RootConfig::new(key(2))).unwrap();
    pair.b.session.open_root(Root(6), RootConfig::new(key(2))).unwrap();
    pair.run();
    assert_eq!((ready(&pair.a), ready(&pair.b)), (vec![0, 1, 5], vec![0, 1, 6]));
    // The other one never noticed.
    pair.a.session.offer_feeds(Root(0), &[key(9)]).unwrap();
    pair.run();
    assert_eq!(pair.b.events.last(), Some(&Event::Manifest { root: Root(0), keys: vec![key(9)], fields: None }));
}

#[test]
fn one_that_leaves_takes_its_feeds_along_and_the_remote_is_told() {
    let mut pair = Pair::new(Config::plain(), Config::plain());
    for side in [&mut pair.a, &mut pair.b] {
        side.session.open_root(Root(1), RootConfig::new(key(1))).unwrap();
    }
    pair.run_until(Duration::from_secs(1));
    // One alone on each side speaks on its own channel too, so that its Close can tell that it leaves.
    for (side, root) in [(&mut pair.a, Root(2)), (&mut pair.b, Root(3))] {
        side.session.open_root(root, RootConfig::new(key(2))).unwrap();
        side.session.open_channel(Token::new(Root(1), 7), key(10)).unwrap();
        side.session.open_channel(Token::new(root, 7), key(20)).unwrap();
        side.session.open_channel(Token::new(root, u32::MAX), key(30)).unwrap();
    }
    pair.run();
    assert_eq!((ready(&pair.a), ready(&pair.b)), (vec![1, 2], vec![1, 3]));
    pair.b.session.offer_feeds(Root(3), &[key(9)]).unwrap();
    pair.a.session.leave_root(Root(2), Token::all(Root(2)));
    assert!(pair.a.session.root_is_over(Root(2)) && !pair.a.session.root_is_over(Root(1)));
    let told = pair.a.events.len();
    pair.run();
    assert_eq!(pair.a.events[told..], [], "whoever left is told nothing more");
    let closed = |feed| Event::ChannelClosed { token: Token::new(Root(3), feed) };
    let told: Vec<_> = pair.b.events.iter().rev().take(3).rev().cloned().collect();
    assert_eq!(told, [Event::RootClosed { root: Root(3), error: None }, closed(7), closed(u32::MAX)]);
    assert!(pair.b.session.root_is_over(Root(3)));
    // The other one goes on, and the key can come back.
    pair.a.session.offer_feeds(Root(1), &[key(10)]).unwrap();
    let have = Message::Have(Have { start: 3, length: 1, bitfield: None, ack: false });
    pair.a.session.send(Token::new(Root(1), 7), &have);
    pair.a.session.open_root(Root(4), RootConfig::new(key(2))).unwrap();
    pair.b.session.open_root(Root(5), RootConfig::new(key(2))).unwrap();
    pair.run();
    assert!(pair.b.events.contains(&Event::Manifest { root: Root(1), keys: vec![key(10)], fields: None }));
    assert!(pair.b.events.contains(&Event::Message { token: Token::new(Root(1), 7), message: have }));
    assert_eq!((ready(&pair.a), ready(&pair.b)), (vec![1, 2, 4], vec![1, 3, 5]));
}

#[test]
fn nothing_that_waited_is_told_of_one_that_left() {
    let mut peer = Peer::ready(Role::Responder, Config::default());
    peer.session.open_channel(Token(1), key(5)).unwrap();
    peer.open(5, key(5)).unwrap();
    peer.events();
    peer.extension(1, r#"{"keys":[]}"#).unwrap();
    peer.frame(5, kind::HAVE, &[8, 1]).unwrap();
    peer.frame(5, kind::CLOSE, b"").unwrap();
    peer.session.leave_root(Root::FIRST, Token(0)..=Token(9));
    peer.session.open_channel(Token(1), key(6)).unwrap();
    assert_eq!(peer.events(), []);
    peer.open(6, key(6)).unwrap();
    assert_eq!(peer.events(), [Event::Opened { token: Token(1) }]);
}

#[test]
fn the_only_one_can_leave_before_the_remote_opens_it() {
    for came_as in [key(1), key(2)] {
        let mut peer = Peer::connect(Role::Responder, Config::new(key(1)));
        peer.session.leave_root(Root::FIRST, Token(0)..=Token(9));
        peer.open(1, came_as).unwrap();
        peer.session.open_channel(Token(1), key(6)).unwrap();
        peer.open(2, key(6)).unwrap();
        assert_eq!(peer.events().last(), Some(&Event::Opened { token: Token(1) }));
        peer.session.handle_eof();
        let error = SessionError::Disconnected(Phase::Exchange);
        assert_eq!(peer.events(), [Event::Closed(Err(error))]);
    }
}

#[test]
fn two_that_left_before_noise_was_done_keep_nobody_waiting() {
    for (left, joins) in [(0, 2), (1, 1)] {
        let mut pair = Pair::new(Config::plain(), Config::plain());
        for n in 1..=2 {
            pair.b.session.open_root(Root(n), RootConfig::new(key(n as u8))).unwrap();
        }
        for n in 1..=2 - left {
            pair.b.session.leave_root(Root(n), Token::all(Root(n)));
        }
        pair.b.session.open_channel(Token(3), key(10)).unwrap();
        pair.run_until(Duration::from_secs(1));
        let discovered = pair.a.events.iter().filter(|event| matches!(event, Event::Discovered { .. })).count();
        assert_eq!(discovered, if joins == 2 { 1 } else { 2 }, "{:?}", pair.a.events);
    }
}

#[test]
fn extensions_from_the_start_are_known_when_a_multifeed_on_its_own_channel_is_ready() {
    let config = |mut config: Config| {
        config.extensions = vec!["x".into()];
        config
    };
    for (a, b) in [(Config::new(key(1)), Config::plain()), (Config::plain(), Config::plain())] {
        let mut pair = Pair::new(config(a.clone()), config(b));
        if a.root.is_none() {
            pair.a.session.open_root(Root(0), RootConfig::new(key(1))).unwrap();
        }
        pair.b.session.open_root(Root(0), RootConfig::new(key(1))).unwrap();
        pair.run_until(Duration::from_secs(1));
        for side in [&pair.a, &pair.b] {
            let names = side.events.iter().find_map(|event| match event {
                Event::Ready { remote, .. } => Some(remote.extensions.iter().map(|name| name.to_string()).collect()),
                _ => None,
            });
            assert_eq!(names, Some(vec!["x".to_owned()]));
        }
    }
}

#[test]
fn one_that_leaves_before_anything_was_said_leaves_nothing_behind() {
    let mut pair = Pair::new(Config::plain(), Config::plain());
    let root = Root(1);
    pair.a.session.open_root(root, RootConfig::new(key(1))).unwrap();
    pair.a.session.open_channel(Token::new(root, 0), key(10)).unwrap();
    pair.a.session.leave_root(root, Token::all(root));
    pair.a.session.leave_root(root, Token::all(root));
    pair.b.session.open_channel(Token(3), key(10)).unwrap();
    pair.run_until(Duration::from_secs(1));
    assert!(matches!(pair.a.events[..], [Event::Connected { .. }, Event::Discovered { .. }]), "{:?}", pair.a.events);
    assert!(matches!(pair.b.events[..], [Event::Connected { .. }]), "{:?}", pair.b.events);
}

#[test]
fn a_multifeed_joins_a_stream_that_others_use() {
    for role in [Role::Initiator, Role::Responder] {
        let mut peer = Peer::connect(role, Config::plain());
        assert!(matches!(peer.events()[..], [Event::Connected { .. }]));
        // Other channels, before any root key's.
        peer.session.open_channel(Token(3), key(3)).unwrap();
        peer.open(1, key(4)).unwrap();
        peer.open(2, key(5)).unwrap();
        let discovered = |n| Event::Discovered { discovery_key: key(n).discovery_key() };
        assert_eq!(peer.events(), [discovered(4), discovered(5)]);
        peer.frames();
        peer.session.refuse_channel(key(5).discovery_key());
        let frames = peer.frames();
        assert_eq!((frames[0].kind, &frames[0].body[2..]), (kind::CLOSE, &key(5).discovery_key().as_bytes()[..]));
        peer.session.open_channel(Token(4), key(4)).unwrap();
        assert_eq!(peer.events(), [Event::Opened { token: Token(4) }]);

        peer.open(9, DEFAULT_ROOT_KEY).unwrap();
        peer.session.open_root(Root(2), RootConfig::new(DEFAULT_ROOT_KEY)).unwrap();
        peer.options().unwrap();
        peer.extension(0, HANDSHAKE).unwrap();
        assert!(matches!(peer.events().last(), Some(Event::Ready { root: Root(2), .. })));
        // One that the remote has not ends by itself.
        peer.session.handle_timeout(Duration::from_secs(9));
        peer.session.open_root(Root(3), RootConfig::new(key(8))).unwrap();
        peer.session.handle_timeout(Duration::from_secs(19));
        peer.raw(&[0]).unwrap();
        peer.session.handle_timeout(Duration::from_secs(28));
        assert_eq!(peer.events(), []);
        peer.session.handle_timeout(Duration::from_secs(29));
        let error = Some(SessionError::Timeout(Phase::Exchange));
        assert_eq!(peer.events(), [Event::RootClosed { root: Root(3), error }]);
        peer.raw(&[0]).unwrap();
    }
}

#[test]
fn a_multifeed_that_joined_later_has_its_own_time() {
    let mut pair = Pair::new(Config::plain(), Config::plain());
    pair.run_until(Duration::from_secs(100));
    pair.a.session.open_root(Root(1), RootConfig::new(key(1))).unwrap();
    pair.run_until(Duration::from_secs(119));
    assert_eq!(root_closed(&pair.a), BTreeMap::new());
    pair.run_until(Duration::from_secs(121));
    assert_eq!(root_closed(&pair.a), BTreeMap::from([(1, Some(SessionError::Timeout(Phase::Exchange)))]));
    // The remote that comes too late finds nobody; one that comes in time does.
    pair.b.session.open_root(Root(1), RootConfig::new(key(1))).unwrap();
    pair.run_until(Duration::from_secs(130));
    assert!(ready(&pair.b).is_empty());
    pair.a.session.open_root(Root(2), RootConfig::new(key(1))).unwrap();
    pair.run_until(Duration::from_secs(131));
    assert_eq!((ready(&pair.a), ready(&pair.b)), (vec![2], vec![1]));
    assert!(pair.a.closed().is_none() && pair.b.closed().is_none());
}

#[test]
fn a_root_key_known_by_its_discovery_key_only_ends_one_of_several() {
    let mut peer = Peer::connect(Role::Responder, Config::new(key(1)));
    join(&mut peer, &[2]);
    peer.open(1, key(1)).unwrap();
    peer.frames();
    peer.events();
    // We opened it first: as in JS, that is an attack on the stream.
    let error = peer.open_with(2, key(2), None).unwrap_err();
    assert_eq!(error.code(), "ERR_CAPABILITY");

    let mut peer = Peer::connect(Role::Responder, Config::new(key(1)));
    join(&mut peer, &[2]);
    peer.open_with(1, key(2), None).unwrap();
    assert!(
        peer.events().contains(&Event::RootClosed {
            root: Root(1),
            error: Some(SessionError::Capability(key(2).discovery_key()))
        })
    );
    peer.open(2, key(1)).unwrap();
    greet_on_channel(&mut peer, 2);
    assert!(matches!(peer.events().last(), Some(Event::Ready { root: Root(0), .. })));
}

#[test]
fn a_root_key_that_is_a_feeds_too() {
    let mut pair = Pair::new(Config::plain(), Config::plain());
    pair.a.session.open_channel(Token(1), key(1)).unwrap();
    pair.a.session.open_root(Root(1), RootConfig::new(key(1))).unwrap();
    pair.a.session.open_root(Root(2), RootConfig::new(key(2))).unwrap();
    pair.a.session.open_channel(Token(2), key(2)).unwrap();
    pair.run_until(Duration::from_secs(1));
    assert!(pair.a.closed().is_none());
    let closed = root_closed(&pair.a);
    assert!(pair.a.events.contains(&Event::ChannelClosed { token: Token(2) }), "{:?}", pair.a.events);
    assert!(
        closed.contains_key(&1) != pair.a.events.contains(&Event::ChannelClosed { token: Token(1) }),
        "one of them"
    );
}

#[test]
fn a_hundred_multifeeds() {
    let roots: Vec<u8> = (1..=100).collect();
    let mut backwards = roots.clone();
    backwards.reverse();
    let mut pair = pair(&roots, &backwards);
    pair.run_until(Duration::from_secs(1));
    for side in [&pair.a, &pair.b] {
        assert_eq!(ready(side), (0..100).collect::<Vec<_>>());
    }
}

#[test]
fn a_remote_that_cannot_decide_on_a_dialect_is_greeted_once_in_each() {
    let mut peer = Peer::connect(Role::Responder, Config::default());
    peer.open(1, DEFAULT_ROOT_KEY).unwrap();
    let greetings = |peer: &mut Peer| peer.frames().iter().filter(|frame| frame.kind == kind::EXTENSION).count();
    assert_eq!(greetings(&mut peer), 0);
    let mut count = 0;
    for _ in 0..1000 {
        peer.frame(1, kind::OPTIONS, &options_body()).unwrap();
        peer.options().unwrap();
        count += greetings(&mut peer);
    }
    assert_eq!(count, 2);
    // Whatever it said last is what it hears.
    peer.extension(0, HANDSHAKE).unwrap();
    peer.session.offer_feeds(Root::FIRST, &[]).unwrap();
    assert_eq!(peer.frames()[0].channel, 0);
    // Once it understood us, that is how it stays.
    peer.frame(1, kind::OPTIONS, &options_body()).unwrap();
    peer.session.offer_feeds(Root::FIRST, &[]).unwrap();
    assert_eq!(peer.frames()[0].channel, 0);
}

#[test]
fn lists_of_one_multifeed_on_the_channel_of_another() {
    // What comes on a root key's channel is that multifeed's, whatever channel 0 says.
    let mut peer = Peer::connect(Role::Responder, Config::new(key(1)));
    join(&mut peer, &[2]);
    for (channel, n) in [(1, 1), (2, 2)] {
        peer.open(channel, key(n)).unwrap();
        greet_on_channel(&mut peer, channel);
    }
    peer.options().unwrap();
    let manifest = |n| format!(r#"{{"keys":["{}"]}}"#, key(n));
    peer.events();
    peer.extension(1, &manifest(30)).unwrap();
    peer.frame(2, kind::EXTENSION, &[&[1], manifest(40).as_bytes()].concat()).unwrap();
    let told = |n, key| Event::Manifest { root: Root(n), keys: vec![key], fields: None };
    assert_eq!(peer.events(), [told(0, key(30)), told(1, key(40))]);
    // And nobody's on the channel of a feed, or on none.
    peer.open(3, key(9)).unwrap();
    peer.session.open_channel(Token(0), key(9)).unwrap();
    peer.frame(3, kind::EXTENSION, &[&[1], manifest(50).as_bytes()].concat()).unwrap();
    peer.frame(77, kind::EXTENSION, &[&[1], manifest(50).as_bytes()].concat()).unwrap();
    assert!(!peer.events().iter().any(|event| matches!(event, Event::Manifest { .. })));
}
