//! Calls that do not fit those before them: each is an error of the caller's, and does nothing. What a race explains is none.

use crate::common;

use std::time::Duration;

use bytes::BytesMut;
use common::*;
use multifeed_proto::*;

fn taken(name: &str) -> Result<(), ApiMisuse> {
    Err(ApiMisuse::ExtensionTaken(name.into()))
}

fn unknown(name: &str) -> Result<(), ApiMisuse> {
    Err(ApiMisuse::UnknownExtension(name.into()))
}

fn reserved() -> Result<(), ApiMisuse> {
    Err(ApiMisuse::ReservedExtension("MULTIFEED_MANIFEST".into()))
}

#[test]
fn it_is_the_callers_fault() {
    let misuse = ApiMisuse::TokenInUse(Token(7));
    assert_eq!((misuse.fault(), misuse.code()), (Fault::Caller, "ERR_API_MISUSE"));
    assert_eq!(misuse.to_string(), "the token 7 is that of an open channel: close that, or use another");
    let error = SessionError::from(misuse);
    assert_eq!((error.fault(), error.code()), (Fault::Caller, "ERR_API_MISUSE"));
}

#[test]
fn a_root_keys_name_and_the_key_itself_are_used_once() {
    let mut peer = Peer::ready(Role::Responder, Config::default());
    let open = |peer: &mut Peer, root, of: FeedKey| peer.session.open_root(Root(root), RootConfig::new(of));
    assert_eq!(open(&mut peer, 0, key(1)), Err(ApiMisuse::RootInUse(Root::FIRST)));
    let there = ApiMisuse::RootKeyInUse(DEFAULT_ROOT_KEY.discovery_key());
    assert_eq!(open(&mut peer, 1, DEFAULT_ROOT_KEY), Err(there));
    peer.frames();
    assert_eq!((open(&mut peer, 1, key(1)), open(&mut peer, 1, key(2))), (Ok(()), Err(ApiMisuse::RootInUse(Root(1)))));
    assert_eq!(peer.frames().len(), 1, "one Open");
    // It stays used when the multifeed is gone.
    peer.session.leave_root(Root(1), Token(9)..=Token(8));
    assert_eq!((open(&mut peer, 1, key(1)), open(&mut peer, 2, key(1))), (Err(ApiMisuse::RootInUse(Root(1))), Ok(())));
}

#[test]
fn feeds_are_offered_and_requested_of_a_root_that_was_opened() {
    let mut peer = Peer::ready(Role::Responder, Config::default());
    peer.frames();
    let unknown = Err(ApiMisuse::UnknownRoot(Root(3)));
    assert_eq!(peer.session.offer_feeds(Root(3), &[key(1)]), unknown);
    assert_eq!(peer.session.request_feeds(Root(3), &[key(1)]), unknown);
    assert_eq!(peer.session.register_extension(Scope::Root(Root(3)), "x"), unknown);
    assert_eq!(peer.session.send_extension(Scope::Root(Root(3)), "x", b"y"), unknown);
    assert_eq!(peer.frames(), []);
    // One that is over may have ended a moment ago.
    peer.session.leave_root(Root::FIRST, Token(9)..=Token(8));
    peer.frames();
    assert_eq!(peer.session.offer_feeds(Root::FIRST, &[key(1)]), Ok(()));
    assert_eq!(peer.session.request_feeds(Root::FIRST, &[key(1)]), Ok(()));
    assert_eq!(peer.session.register_extension(Scope::Root(Root::FIRST), "x"), Ok(()));
    assert_eq!(peer.session.send_extension(Scope::Root(Root::FIRST), "y", b"y"), Ok(()));
    assert_eq!(peer.frames(), []);
}

/// Also while calls wait, since no channel may be opened before the handshake.
#[test]
fn a_token_is_of_one_channel() {
    for waits in [true, false] {
        let config = Config::default();
        let mut peer =
            if waits { Peer::connect(Role::Initiator, config) } else { Peer::ready(Role::Responder, config) };
        let session = &mut peer.session;
        assert_eq!(session.open_channel(Token(1), key(5)), Ok(()));
        for other in [key(5), key(6), DEFAULT_ROOT_KEY] {
            assert_eq!(session.open_channel(Token(1), other), Err(ApiMisuse::TokenInUse(Token(1))), "{waits}");
        }
        session.close_channel(Token(1));
        assert_eq!(session.open_channel(Token(1), key(6)), Ok(()), "{waits}");
        assert_eq!(session.open_channel(Token(1), key(6)), Err(ApiMisuse::TokenInUse(Token(1))), "{waits}");
        assert_eq!(peer.events().iter().filter(|event| matches!(event, Event::ChannelClosed { .. })).count(), 0);
    }
}

#[test]
fn an_extension_is_registered_once_and_then_sent() {
    for waits in [true, false] {
        let config = Config::default();
        let mut peer =
            if waits { Peer::connect(Role::Initiator, config) } else { Peer::ready(Role::Responder, config) };
        let session = &mut peer.session;
        session.open_channel(Token(1), key(5)).unwrap();
        let channel = Scope::Channel(Token(1));
        for scope in [Scope::Stream, Scope::Root(Root::FIRST), channel] {
            assert_eq!(session.send_extension(scope, "x", b"y"), unknown("x"), "{waits}, {scope:?}");
            assert_eq!(session.register_extension(scope, "x"), Ok(()), "{waits}, {scope:?}");
            assert_eq!(session.register_extension(scope, "x"), taken("x"), "{waits}, {scope:?}");
            assert_eq!(session.send_extension(scope, "x", b"y"), Ok(()), "{waits}, {scope:?}");
            assert_eq!(session.register_extension(scope, "MULTIFEED_MANIFEST"), reserved());
            assert_eq!(session.send_extension(scope, "MULTIFEED_MANIFEST", b"{}"), reserved());
            let more = (0..1000).map(|n| session.register_extension(scope, &format!("x{n}"))).find(Result::is_err);
            assert!(matches!(more, Some(Err(ApiMisuse::NoRoomForExtension(_)))), "{waits}, {scope:?}: {more:?}");
        }
        // A channel that is not open may have been closed a moment ago.
        session.close_channel(Token(1));
        assert_eq!(session.register_extension(channel, "x"), Ok(()));
        assert_eq!(session.send_extension(channel, "z", b"y"), Ok(()));
        session.send(Token(1), &have(1));
        session.close_channel(Token(1));
    }
}

#[test]
fn a_remotes_key_is_judged_once_and_when_it_is_there() {
    let wrong = |call, phase| Err(ApiMisuse::WrongPhase { call, phase });
    // Before it is known.
    let mut early = session(Role::Initiator, Config::default());
    early.poll_output(&mut BytesMut::new());
    assert_eq!(early.accept(), wrong("accept", Phase::Noise));
    assert_eq!(early.admit(), wrong("admit", Phase::Noise));
    assert_eq!(early.refuse(), wrong("refuse", Phase::Noise));
    assert_eq!(early.poll_timeout(), Some(Duration::from_secs(20)), "the handshake's time still runs");
    assert!(early.recv_buf().is_some());
    // Nobody asked.
    let mut peer = Peer::connect(Role::Responder, Config::plain());
    peer.session.register_extension(Scope::Stream, "x").unwrap();
    peer.frames();
    assert_eq!(peer.session.accept(), wrong("accept", Phase::Ready));
    assert_eq!(peer.frames(), []);
    // Twice.
    let mut config = Config::default();
    config.authenticate = true;
    let mut peer = Peer::connect(Role::Responder, config);
    assert_eq!((peer.session.accept(), peer.session.accept()), (Ok(()), wrong("accept", Phase::Exchange)));
    assert_eq!(peer.session.admit(), wrong("admit", Phase::Exchange));
    // It can still be refused; after the end every call fits.
    assert_eq!((peer.session.refuse(), peer.session.refuse(), peer.session.accept()), (Ok(()), Ok(()), Ok(())));
}

#[test]
fn after_the_end_no_call_is_a_mistake() {
    let mut peer = Peer::ready(Role::Responder, Config::default());
    peer.session.open_channel(Token(1), key(5)).unwrap();
    peer.frames();
    peer.session.finish();
    let session = &mut peer.session;
    assert_eq!(session.open_channel(Token(1), key(6)), Ok(()));
    assert_eq!(session.open_root(Root::FIRST, RootConfig::new(key(1))), Ok(()));
    assert_eq!((session.offer_feeds(Root(3), &[]), session.request_feeds(Root(3), &[])), (Ok(()), Ok(())));
    assert_eq!(session.register_extension(Scope::Stream, "MULTIFEED_MANIFEST"), Ok(()));
    assert_eq!(session.send_extension(Scope::Stream, "y", b""), Ok(()));
    assert_eq!((session.accept(), session.admit(), session.refuse()), (Ok(()), Ok(()), Ok(())));
    assert_eq!(peer.frames(), []);
}
