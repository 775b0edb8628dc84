//! What is easily got wrong: several multifeeds, extensions, credit and keep-alives at their edges.
#![allow(missing_docs, clippy::disallowed_methods, clippy::disallowed_types)]

use crate::common;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::*;
use multifeed_proto::wire::message::kind;
use multifeed_proto::*;

/// A session with two multifeeds, which the remote speaks on their own channels, 1 and 2.
fn two_on_their_channels() -> Peer {
    let mut peer = Peer::connect(Role::Responder, Config::new(key(1)));
    join(&mut peer, &[2]);
    for (channel, n) in [(1, 1), (2, 2)] {
        peer.open(channel, key(n)).unwrap();
        peer.frame(channel, kind::OPTIONS, &options_body()).unwrap();
        peer.frame(channel, kind::EXTENSION, &[&[0], HANDSHAKE.as_bytes()].concat()).unwrap();
    }
    peer
}

fn join(peer: &mut Peer, roots: &[u8]) {
    for (at, n) in roots.iter().enumerate() {
        peer.session.open_root(Root(at as u32 + 1), RootConfig::new(key(*n))).unwrap();
    }
}
fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn a_responder_with_several_says_no_feed_before_a_root_is_named() {
    let mut config = Config::plain();
    config.authenticate = true;
    let mut peer = Peer::connect(Role::Responder, config);
    join(&mut peer, &[1, 2]);
    peer.session.accept().unwrap();
    peer.session.open_channel(Token(1), key(5)).unwrap();
    assert_eq!(peer.frames(), []);
    peer.open(1, key(2)).unwrap();
    let first = &peer.frames()[0];
    assert_eq!(&first.body[2..34], key(2).discovery_key().as_bytes());
}

#[test]
fn a_foreign_open_after_one_of_ours_is_no_mismatch() {
    let mut peer = Peer::connect(Role::Responder, Config::new(key(1)));
    join(&mut peer, &[2]);
    peer.open(1, key(2)).unwrap();
    peer.open(2, key(9)).unwrap();
    peer.session.handle_eof();
    let events = peer.events();
    assert_eq!(events.last(), Some(&Event::Closed(Err(SessionError::Disconnected(Phase::Exchange)))));
    // Nor one before it.
    let mut peer = Peer::connect(Role::Responder, Config::new(key(1)));
    join(&mut peer, &[2]);
    peer.open(2, key(9)).unwrap();
    peer.open(1, key(2)).unwrap();
    peer.session.handle_eof();
    let events = peer.events();
    assert_eq!(events.last(), Some(&Event::Closed(Err(SessionError::Disconnected(Phase::Exchange)))));
}

#[test]
fn the_next_root_is_tried_when_the_first_is_late() {
    let mut peer = Peer::connect(Role::Initiator, Config::new(key(1)));
    peer.session.handle_timeout(secs(10));
    join(&mut peer, &[2]);
    peer.raw(&[0]).unwrap();
    peer.frames();
    peer.session.handle_timeout(secs(20));
    let opens: Vec<_> = peer.frames().into_iter().filter(|frame| frame.kind == kind::OPEN).collect();
    assert_eq!(opens.len(), 1);
    assert_eq!(&opens[0].body[2..34], key(2).discovery_key().as_bytes());
}

#[test]
fn a_plain_session_tells_its_extensions_at_once() {
    let mut config = Config::plain();
    config.authenticate = true;
    let mut peer = Peer::connect(Role::Responder, config);
    peer.session.register_extension(Scope::Stream, "x").unwrap();
    peer.session.accept().unwrap();
    let frames = peer.frames();
    assert_eq!(frames.len(), 1);
    assert_eq!((frames[0].channel, frames[0].kind, &frames[0].body[..]), (0, kind::OPTIONS, &b"\x0a\x01x"[..]));
}

#[test]
fn who_knows_only_a_root_keys_discovery_key_is_told_by_a_close_where_there_are_several() {
    let mut peer = Peer::connect(Role::Responder, Config::new(key(1)));
    join(&mut peer, &[2]);
    peer.open_with(1, key(2), None).unwrap();
    let closes = peer.frames().into_iter().filter(|frame| frame.kind == kind::CLOSE).count();
    assert_eq!(closes, 1);
    // The only one says nothing.
    let mut peer = Peer::connect(Role::Initiator, Config::new(key(1)));
    assert!(peer.open_with(1, key(1), None).is_err());
    assert_eq!(peer.frames(), []);
}

#[test]
fn a_root_keys_open_is_not_discovered() {
    let mut config = Config::plain();
    config.authenticate = true;
    let mut peer = Peer::connect(Role::Initiator, config);
    join(&mut peer, &[1]);
    peer.session.accept().unwrap();
    peer.open(1, key(1)).unwrap();
    let discovered = |event: &Event| matches!(event, Event::Discovered { .. });
    assert!(!peer.events().iter().any(discovered));
}

#[test]
fn a_multifeed_that_was_late_is_not_opened_afterwards() {
    let mut config = Config::plain();
    config.authenticate = true;
    let mut peer = Peer::connect(Role::Responder, config);
    join(&mut peer, &[1, 2]);
    peer.session.accept().unwrap();
    peer.session.handle_timeout(secs(19));
    peer.raw(&[0]).unwrap();
    peer.session.handle_timeout(secs(20));
    peer.events();
    peer.frames();
    peer.open(1, key(1)).unwrap();
    assert_eq!(peer.frames(), []);
}

#[test]
fn a_remote_with_another_root_key_hears_of_no_feed() {
    let mut peer = Peer::connect(Role::Initiator, Config::new(key(1)));
    peer.session.open_channel(Token(1), key(5)).unwrap();
    peer.open(1, key(9)).unwrap();
    peer.session.handle_timeout(Duration::from_secs(2));
    assert!(matches!(peer.events().last(), Some(Event::Closed(Err(SessionError::RootKeyMismatch { .. })))));
    let frames = peer.frames();
    assert_eq!(frames.iter().map(|frame| frame.kind).collect::<Vec<_>>(), [kind::OPEN, kind::OPTIONS]);
    assert_eq!(&frames[0].body[2..34], key(1).discovery_key().as_bytes());
}

#[test]
fn the_late_answer_to_a_close_does_not_take_the_key_from_its_next_name() {
    let mut peer = two_on_their_channels();
    peer.session.close_root(Root(1));
    peer.session.open_root(Root(5), RootConfig::new(key(2))).unwrap();
    peer.frame(2, kind::CLOSE, &[]).unwrap();
    peer.events();
    // As a feed it is still taken.
    peer.session.open_channel(Token(9), key(2)).unwrap();
    assert_eq!(peer.events(), [Event::ChannelClosed { token: Token(9) }]);
    let there = ApiMisuse::RootKeyInUse(key(2).discovery_key());
    assert_eq!(peer.session.open_root(Root(6), RootConfig::new(key(2))), Err(there));
    assert_eq!(peer.events(), []);
}

#[test]
fn a_multifeed_6_that_is_silent_about_live_gets_empty_lists() {
    let mut peer = Peer::connect(Role::Responder, Config::default());
    peer.open(1, DEFAULT_ROOT_KEY).unwrap();
    peer.options().unwrap();
    peer.extension(0, r#"{"client":"MULTIFEED","version":"4.0.0"}"#).unwrap();
    let events = peer.events();
    assert!(matches!(events.last(), Some(Event::Ready { remote, .. }) if remote.live.is_none()));
    peer.frames();
    peer.session.request_feeds(Root::FIRST, &[]).unwrap();
    assert_eq!(peer.frames().len(), 1);
}

#[test]
fn options_of_others_tell_no_dialect() {
    let mut peer = Peer::connect(Role::Responder, Config::default());
    peer.open(1, DEFAULT_ROOT_KEY).unwrap();
    peer.frames();
    peer.frame(1, kind::OPTIONS, b"\x0a\x01x").unwrap();
    assert_eq!(peer.frames(), []);
    let mut peer = Peer::connect(Role::Responder, Config::new(key(1)));
    join(&mut peer, &[2]);
    peer.open(1, key(2)).unwrap();
    peer.frames();
    peer.frame(0, kind::OPTIONS, b"\x0a\x01x").unwrap();
    assert_eq!(peer.frames(), []);
}

#[test]
fn credit_counts_what_waits_and_gives_it_back() {
    let mut pair = Pair::new(Config::default(), Config::default());
    let free = pair.a.session.send_credit();
    pair.a.session.open_channel(Token(1), key(5)).unwrap();
    let open = Command::Open { token: Token(1), key: key(5) }.size();
    let queued = free - pair.a.session.send_credit();
    assert!(queued >= open, "{queued}");
    pair.a.session.offer_feeds(Root::FIRST, &[key(5); 100]).unwrap();
    assert!(free - pair.a.session.send_credit() >= queued + 6700);
    pair.run_until(secs(1));
    pair.a.session.poll_output(&mut BytesMut::new());
    assert_eq!(pair.a.session.send_credit(), Limits::default().output_bytes);
}

#[test]
fn a_feeds_options_wait_until_both_opened() {
    let mut peer = Peer::ready(Role::Responder, Config::default());
    peer.session.open_channel(Token(1), key(5)).unwrap();
    peer.session.register_extension(Scope::Channel(Token(1)), "x").unwrap();
    let kinds: Vec<_> = peer.frames().iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds, [kind::OPEN]);
}

#[test]
fn no_ping_while_the_remote_is_judged() {
    let mut config = Config::default();
    config.authenticate = true;
    let mut peer = Peer::connect(Role::Responder, config);
    peer.session.ping();
    assert!(!peer.session.poll_output(&mut BytesMut::new()));
}

#[test]
fn no_keep_alive_behind_what_waits() {
    let mut peer = Peer::ready(Role::Responder, Config::default());
    peer.session.offer_feeds(Root::FIRST, &[]).unwrap();
    let mut out = BytesMut::new();
    let before = peer.session.totals().bytes_out;
    peer.raw(&[0]).unwrap();
    peer.session.handle_timeout(secs(11));
    peer.session.poll_output(&mut out);
    // Header, id, `{"keys":[]}`.
    assert_eq!(peer.session.totals().bytes_out - before, 2 + 1 + 11);
}

#[test]
fn sending_puts_off_the_keep_alive() {
    let mut peer = Peer::ready(Role::Responder, Config::default());
    peer.session.handle_timeout(secs(5));
    peer.session.offer_feeds(Root::FIRST, &[]).unwrap();
    peer.frames();
    assert_eq!(peer.session.poll_timeout(), Some(secs(15)));
}

#[test]
fn multifeeds_own_names_are_not_announced_by_the_application() {
    let mut config = Config::plain();
    config.authenticate = true;
    let mut peer = Peer::connect(Role::Responder, config);
    peer.session.register_extension(Scope::Stream, "MULTIFEED_MANIFEST").unwrap_err();
    peer.session.accept().unwrap();
    assert_eq!(peer.frames(), []);
}

#[test]
fn a_multifeed_that_was_closed_on_its_channel_hears_nothing_more() {
    let mut peer = Peer::connect(Role::Responder, Config::default());
    peer.open(1, DEFAULT_ROOT_KEY).unwrap();
    peer.frame(1, kind::OPTIONS, &options_body()).unwrap();
    peer.frame(1, kind::EXTENSION, &[&[0], HANDSHAKE.as_bytes()].concat()).unwrap();
    peer.options().unwrap();
    peer.events();
    peer.session.close_root(Root::FIRST);
    peer.extension(1, r#"{"keys":[]}"#).unwrap();
    assert_eq!(peer.events(), []);
    // Its key is free at once.
    peer.frames();
    peer.session.open_root(Root(4), RootConfig::new(DEFAULT_ROOT_KEY)).unwrap();
    assert_eq!(peer.frames().len(), 1);
}

#[test]
fn an_extension_registered_when_its_channel_opens_is_told_what_came_with_it() {
    let mut peer = Peer::ready(Role::Responder, Config::default());
    peer.session.open_channel(Token(1), key(5)).unwrap();
    // One flight of the remote's: its Open and its Options.
    peer.open(5, key(5)).unwrap();
    peer.frame(5, kind::OPTIONS, b"\x0a\x01a").unwrap();
    assert!(peer.events().contains(&Event::Opened { token: Token(1) }));
    let scope = Scope::Channel(Token(1));
    peer.session.register_extension(scope, "a").unwrap();
    peer.frame(5, kind::EXTENSION, b"\x00hi").unwrap();
    assert!(peer.session.remote_speaks(scope, "a"), "remote_speaks");
    assert_eq!(peer.events(), [Event::Extension { scope, name: "a".into(), body: Bytes::from_static(b"hi") }]);
}

#[test]
fn the_wish_for_acknowledgements_survives_a_registration() {
    let mut peer = Peer::ready(Role::Responder, Config::default());
    peer.session.open_channel(Token(1), key(5)).unwrap();
    peer.open(5, key(5)).unwrap();
    peer.session.send(Token(1), &Message::Options(Options { extensions: vec![], ack: true }));
    peer.session.register_extension(Scope::Channel(Token(1)), "a").unwrap();
    let frames = peer.frames();
    assert_eq!(&frames.last().unwrap().body[..], b"\x0a\x01a\x10\x01");
}

#[test]
fn nothing_comes_from_a_closed_channel() {
    let mut peer = Peer::ready(Role::Responder, Config::default());
    peer.session.open_channel(Token(1), key(5)).unwrap();
    peer.open(5, key(5)).unwrap();
    peer.events();
    peer.frame(5, kind::HAVE, b"\x08\x01").unwrap();
    peer.session.close_channel(Token(1));
    peer.session.open_channel(Token(1), key(6)).unwrap();
    // A message of feed 5 is none of the channel whose token that is now.
    assert_eq!(peer.events(), [Event::LateHave { token: Token(1), blocks: 1..2 }]);
    peer.open(6, key(6)).unwrap();
    assert_eq!(peer.events(), [Event::Opened { token: Token(1) }]);
    peer.frame(6, kind::CLOSE, b"").unwrap();
    peer.session.close_channel(Token(1));
    peer.session.open_channel(Token(1), key(7)).unwrap();
    assert_eq!(peer.events(), [], "the end of feed 6 under the token that is feed 7's now");
}

#[test]
fn options_on_channel_0_before_the_root_is_named() {
    let mut peer = Peer::connect(Role::Responder, Config::new(key(1)));
    join(&mut peer, &[2]);
    peer.options().unwrap();
    peer.open(1, key(2)).unwrap();
    peer.extension(0, HANDSHAKE).unwrap();
    let frames = peer.frames();
    assert!(frames.iter().any(|f| (f.channel, f.kind) == (0, kind::EXTENSION)), "{frames:?}");
}

#[test]
fn a_list_goes_where_the_remote_hears_it() {
    let mut peer = Peer::connect(Role::Responder, Config::new(key(1)));
    join(&mut peer, &[2]);
    peer.options().unwrap();
    peer.open(1, key(2)).unwrap();
    peer.extension(0, HANDSHAKE).unwrap();
    peer.frames();
    peer.session.offer_feeds(Root(1), &[key(9)]).unwrap();
    assert_eq!(peer.frames()[0].channel, 0);
}

#[test]
fn feeds_go_on_when_all_multifeeds_failed() {
    let mut a = Pair::new(Config::plain(), Config::plain());
    a.b.session.open_root(Root(1), RootConfig::new(key(1))).unwrap();
    a.b.session.open_root(Root(2), RootConfig::new(key(2))).unwrap();
    a.b.session.open_channel(Token(7), key(7)).unwrap();
    a.run_until(secs(60));
    let closed = a.b.events.iter().filter(|e| matches!(e, Event::RootClosed { .. })).count();
    assert_eq!(closed, 2, "{:?}", a.b.events);
    assert!(a.b.closed().is_none());
    a.b.session.open_channel(Token(8), key(8)).unwrap();
    a.run_until(secs(61));
    let heard = a.a.events.iter().filter(|e| matches!(e, Event::Discovered { .. })).count();
    assert!(heard >= 2, "feeds never opened: {:?}", a.a.events);
}

#[test]
fn a_shared_stream_ends_well() {
    for wait in [false, true] {
        let mut config = Config::plain();
        config.authenticate = true;
        let mut peer = Peer::connect(Role::Responder, config);
        join(&mut peer, &[1]);
        peer.session.accept().unwrap();
        peer.open(1, key(4)).unwrap();
        peer.session.open_channel(Token(4), key(4)).unwrap();
        if wait {
            for s in [9, 18, 21] {
                peer.raw(&[0]).unwrap();
                peer.session.handle_timeout(secs(s));
            }
        }
        peer.session.handle_eof();
        let events = peer.events();
        assert_eq!(events.last(), Some(&Event::RemoteEnded), "{wait} {events:?}");
    }
}

#[test]
fn lists_on_channel_0_are_not_those_of_a_multifeed_that_failed() {
    let mut peer = Peer::connect(Role::Responder, Config::new(key(1)));
    join(&mut peer, &[2]);
    peer.open_with(1, key(2), None).unwrap();
    peer.open(2, key(1)).unwrap();
    peer.options().unwrap();
    peer.extension(0, HANDSHAKE).unwrap();
    let events = peer.events();
    assert!(matches!(events.last(), Some(Event::Ready { root: Root(0), .. })), "{events:?}");
}

#[test]
fn a_root_key_opened_again_after_it_was_late() {
    let mut peer = Peer::connect(Role::Responder, Config::plain());
    peer.open(1, key(1)).unwrap();
    join(&mut peer, &[1]);
    peer.options().unwrap();
    peer.raw(&[0]).unwrap();
    peer.session.handle_timeout(secs(19));
    peer.raw(&[0]).unwrap();
    peer.session.handle_timeout(secs(20));
    assert!(peer.events().iter().any(|e| matches!(e, Event::RootClosed { .. })));
    peer.frame(1, kind::CLOSE, b"").unwrap();
    peer.session.open_root(Root(9), RootConfig::new(key(1))).unwrap();
    peer.open(2, key(1)).unwrap();
    peer.options().unwrap();
    peer.extension(0, HANDSHAKE).unwrap();
    let events = peer.events();
    assert!(matches!(events.last(), Some(Event::Ready { root: Root(9), .. })), "{events:?}");
}

#[test]
fn user_data_too_large_is_our_own_mistake() {
    let mut config = Config::default();
    config.root.as_mut().unwrap().user_data = Json::new(format!("\"{}\"", "x".repeat(MAX)));
    let mut pair = Pair::new(config, Config::default());
    pair.run_until(secs(1));
    assert!(!matches!(pair.b.closed(), Some(Err(SessionError::Frame(_)))), "{:?}", pair.b.closed());
}

#[test]
fn names_are_bounded_where_they_are_registered() {
    let mut pair = Pair::offering(&[], &[]);
    let taken = (0..300).filter(|n| pair.a.session.register_extension(Scope::Stream, &format!("x{n}")).is_ok()).count();
    assert!((1..300).contains(&taken), "{taken}");
    pair.run_until(secs(1));
    assert!(!matches!(pair.b.closed(), Some(Err(SessionError::Limit { .. }))), "{:?}", pair.b.closed());
}

#[test]
fn a_remote_id_used_again_after_our_close() {
    let mut peer = Peer::ready(Role::Responder, Config::default());
    peer.session.close_root(Root::FIRST);
    peer.session.open_channel(Token(1), key(5)).unwrap();
    // JS uses a number again once it is free; it opens the feed under 1, and closes it.
    let opened = peer.open(1, key(5));
    let _ = peer.frame(1, kind::CLOSE, b"");
    let events = peer.events();
    assert!(opened.is_ok());
    assert_eq!(events.last(), Some(&Event::ChannelClosed { token: Token(1) }), "{events:?}");
}

#[test]
fn a_stream_without_a_root_of_its_own_ends_well_when_its_multifeeds_failed() {
    let mut pair = Pair::new(Config::plain(), Config::plain());
    pair.a.session.open_root(Root(1), RootConfig::new(key(1))).unwrap();
    pair.run_until(secs(30));
    assert!(pair.a.events.iter().any(|e| matches!(e, Event::RootClosed { .. })));
    pair.a.session.handle_eof();
    pair.a.poll();
    assert_eq!(pair.a.events.last(), Some(&Event::RemoteEnded));
}

#[test]
fn a_session_does_not_outlive_its_multifeeds_where_none_was_ready() {
    for others in [&[2][..], &[]] {
        let mut peer = Peer::connect(Role::Responder, Config::new(key(1)));
        join(&mut peer, others);
        peer.open(1, key(1)).unwrap();
        peer.frame(1, kind::CLOSE, b"").unwrap();
        peer.session.handle_timeout(secs(19));
        peer.raw(&[0]).unwrap();
        peer.session.handle_timeout(secs(20));
        let late = Event::Closed(Err(SessionError::Timeout(Phase::Exchange)));
        assert_eq!(peer.events().last(), Some(&late), "{others:?}");
    }
}

#[test]
fn thousands_of_multifeeds_fail_one_after_the_other() {
    let numbered = |n: u32| {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        FeedKey::new(bytes)
    };
    let session = || {
        let mut config = Config::plain();
        config.authenticate = true;
        config.discover = false;
        config.limits.events = 10_000;
        let mut peer = Peer::connect(Role::Initiator, config);
        (0..3000).for_each(|n| peer.session.open_root(Root(n), RootConfig::new(numbered(n))).unwrap());
        peer.session.accept().unwrap();
        peer.events();
        peer
    };
    let failed = |peer: &mut Peer| {
        let is_it = |event: &&Event| matches!(event, Event::RootClosed { error: Some(_), .. });
        peer.events().iter().filter(is_it).count()
    };
    // All late at once.
    let mut peer = session();
    peer.session.handle_timeout(secs(19));
    peer.raw(&[0]).unwrap();
    peer.session.handle_timeout(secs(20));
    assert_eq!(failed(&mut peer), 3000);
    // The remote knows their discovery keys only: the first Open lets ours go, of which each finds the next one's unproven.
    let mut peer = session();
    let opens: Vec<u8> =
        (0..3000).flat_map(|n| wire(n + 1, kind::OPEN, &open_body(numbered(2999 - n), None))).collect();
    let error = peer.raw(&opens).unwrap_err();
    assert_eq!(error.code(), "ERR_CAPABILITY");
}

#[test]
fn lists_on_channel_0_are_not_the_next_ones_when_the_first_is_closed() {
    let mut peer = two_on_their_channels();
    peer.options().unwrap();
    peer.frame(1, kind::CLOSE, &[]).unwrap();
    peer.events();
    // The remote may have heard us on channel 0, and go on there.
    peer.extension(1, r#"{"keys":[]}"#).unwrap();
    assert_eq!(peer.events(), []);
}

#[test]
fn a_root_key_that_comes_too_late_is_no_mismatch() {
    let mut peer = Peer::connect(Role::Initiator, Config::new(key(1)));
    peer.session.handle_timeout(secs(10));
    join(&mut peer, &[2]);
    peer.raw(&[0]).unwrap();
    peer.session.handle_timeout(secs(20));
    peer.open(1, key(1)).unwrap();
    // Nor is what it opens after that.
    peer.open(2, key(9)).unwrap();
    peer.session.handle_eof();
    let events = peer.events();
    assert_eq!(events.last(), Some(&Event::Closed(Err(SessionError::Disconnected(Phase::Exchange)))));
}
