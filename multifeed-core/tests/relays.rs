//! A JS peer that passes on feeds of others before it has a block of them. The remote is played by hand, on virtual time.

use crate::common;
use crate::played;

use bytes::Bytes;
use common::{create, key_pair};
use multifeed_core::{Answer, MemoryStorage, Multifeed, Options, PeerEvent, Replicate, SyncError};
use multifeed_proto::{Command, Event, FeedKey, Have, Message, Origin, Root, SessionError, Token};
use played::Played;

const MI: u64 = 1 << 20;
const OWN: Token = Token(0);
const PASSED_ON: Token = Token(1);

fn key(number: u8) -> FeedKey {
    key_pair(number).public_key()
}

fn offer(played: &mut Played, keys: Vec<FeedKey>) {
    played.event(Event::Manifest { root: Root::FIRST, keys: keys.clone(), fields: None });
    played.event(Event::Replicate { root: Root::FIRST, keys, origin: Origin::Remote });
}

/// Ours brings a feed of a block, all of which the remote took by now, and which passes on a feed of another's.
fn start() -> Played {
    let mut store = Multifeed::open(MemoryStorage::default(), Options::default()).unwrap();
    let id = store.writer(Some("w"), || key_pair(1)).unwrap();
    store.append(id, &[Bytes::from_static(b"a")]).unwrap();
    let mut played = Played::start(store, Replicate::default(), false);
    offer(&mut played, vec![]);
    played.event(Event::Replicate { root: Root::FIRST, keys: vec![key(1)], origin: Origin::Local });
    played.event(Event::Opened { token: OWN });
    message(&mut played, OWN, Message::Want { start: 0, length: MI });
    message(&mut played, OWN, have(0, MI, Some(&[0x02, 0x80])));
    let asks = sent(&mut played, OWN).into_iter().find_map(|message| match message {
        Message::Request(request) => Some(request),
        _ => None,
    });
    // Its history is looked at.
    let mut disk = MemoryStorage::new();
    let mut feed = create(&mut disk, 0, 1, None);
    feed.append(&mut disk, &[Bytes::from_static(b"a")]).unwrap();
    let Answer::Data(data) = feed.answer(&mut disk, &asks.unwrap()).unwrap() else { panic!("no answer") };
    message(&mut played, OWN, Message::Data(data));
    offer(&mut played, vec![key(2)]);
    played
}

/// The remote opens the feed that it passes on, asks what is held of it, and has nothing itself.
fn open(played: &mut Played) {
    played.event(Event::Opened { token: PASSED_ON });
    message(played, PASSED_ON, Message::Want { start: 0, length: MI });
    message(played, PASSED_ON, have(0, MI, Some(&[])));
}

fn message(played: &mut Played, token: Token, message: Message) {
    played.event(Event::Message { token, message });
}

fn have(start: u64, length: u64, bitfield: Option<&'static [u8]>) -> Message {
    Message::Have(Have { start, length, bitfield: bitfield.map(Bytes::from_static), ack: false })
}

fn sent(played: &mut Played, to: Token) -> Vec<Message> {
    let message = |command| match command {
        Command::Send { token, message } if token == to => Some(message),
        _ => None,
    };
    played.commands().into_iter().filter_map(message).collect()
}

const WANT: Message = Message::Want { start: 0, length: MI };
const DONE: Message = Message::Status { uploading: true, downloading: false };

#[test]
fn nothing_is_said_of_an_empty_feed_for_a_while() {
    let mut played = start();
    open(&mut played);
    assert_eq!(sent(&mut played, PASSED_ON), [WANT]);
    played.millis(900);
    assert_eq!(sent(&mut played, PASSED_ON), []);
    played.millis(1_300);
    // A JS feed that hears this first of all is taken for complete.
    assert_eq!(sent(&mut played, PASSED_ON), [DONE, have(0, MI, Some(&[]))]);
}

#[test]
fn what_comes_meanwhile_is_fetched() {
    let mut played = start();
    open(&mut played);
    played.millis(500);
    message(&mut played, PASSED_ON, have(0, 1, None));
    let sent = sent(&mut played, PASSED_ON);
    assert!(matches!(sent[..], [WANT, Message::Request(_), Message::Have(_)]), "{sent:?}");
}

#[test]
fn a_peer_that_passes_on_nothing_is_answered_at_once() {
    let store = Multifeed::open(MemoryStorage::default(), Options::default()).unwrap();
    let mut played = Played::start(store, Replicate::default(), false);
    played.event(Event::Replicate { root: Root::FIRST, keys: vec![], origin: Origin::Local });
    offer(&mut played, vec![key(2)]);
    played.event(Event::Opened { token: OWN });
    message(&mut played, OWN, WANT);
    message(&mut played, OWN, have(0, MI, Some(&[])));
    assert_eq!(sent(&mut played, OWN), [WANT, DONE, have(0, MI, Some(&[]))]);
}

/// JS ends its stream if no channel is open while it adds a feed.
#[test]
fn a_channel_stays_open_while_feeds_are_passed_on() {
    let mut played = start();
    played.commands();
    // The remote is done with ours.
    message(&mut played, OWN, DONE);
    played.millis(900);
    assert!(!played.commands().contains(&Command::Close { token: OWN }));
    played.millis(1_300);
    assert!(played.commands().contains(&Command::Close { token: OWN }));
}

/// A remote that offers the same without end does not keep the session for ever.
#[test]
fn a_channel_does_not_stay_open_for_ever() {
    let mut played = start();
    message(&mut played, OWN, DONE);
    let mut closed = None;
    for half in 1..200 {
        offer(&mut played, vec![key(2)]);
        played.millis(half * 500);
        if played.commands().contains(&Command::Close { token: OWN }) {
            closed.get_or_insert(half / 2);
        }
    }
    assert!(closed.is_some_and(|second| (55..70).contains(&second)), "{closed:?}");
}

/// What was agreed on was not brought, and nobody knows how much that is: it is no clean end, and no broken connection either.
#[test]
fn a_peer_that_ends_as_it_adds_a_feed_left_that_feed() {
    for opens in [false, true] {
        let mut played = start();
        if opens {
            played.event(Event::Opened { token: PASSED_ON });
        }
        played.event(Event::ChannelClosed { token: OWN });
        played.event(Event::RootClosed { root: Root::FIRST, error: None });
        played.event(Event::RemoteEnded);
        assert!(played.commands().contains(&Command::Finish));
        played.event(Event::Closed(Ok(())));
        let end = played.events().pop();
        assert!(
            matches!(end, Some(PeerEvent::Closed(Err(SyncError::GivenUp { blocks: 0, feeds: 1 })))),
            "{opens} {end:?}"
        );
        assert!(!played.store.in_sync(played.peer));
    }
}

/// A feed that is new here was offered as the remote ended: that is no broken connection, but the two are not in sync.
#[test]
fn an_offer_that_crosses_the_end_spoils_nothing() {
    let mut played = start();
    message(&mut played, OWN, DONE);
    played.event(Event::ChannelClosed { token: OWN });
    played.event(Event::Opened { token: PASSED_ON });
    let id = played.store.writer(Some("new"), || key_pair(3)).unwrap();
    played.store.append(id, &[Bytes::from_static(b"b")]).unwrap();
    played.store.commit(played.now);
    played.event(Event::ChannelClosed { token: PASSED_ON });
    let offers = |command: &Command| matches!(command, Command::Offer { keys, .. } if *keys == [key(3)]);
    let commands = played.commands();
    assert!(commands.iter().any(offers), "{commands:?}");
    played.event(Event::RootClosed { root: Root::FIRST, error: None });
    played.event(Event::RemoteEnded);
    assert!(played.commands().contains(&Command::Finish));
    played.event(Event::Closed(Ok(())));
    let end = played.events().pop();
    assert!(matches!(end, Some(PeerEvent::Closed(Ok(_)))), "{end:?}");
    assert!(!played.store.in_sync(played.peer));
}

/// One that had not come to an end with all else was cut off.
#[test]
fn a_peer_that_ends_before_its_channels_is_cut_off() {
    for closes_root in [false, true] {
        let mut played = start();
        if closes_root {
            played.event(Event::RootClosed { root: Root::FIRST, error: None });
        } else {
            played.event(Event::ChannelClosed { token: OWN });
        }
        played.event(Event::RemoteEnded);
        let aborts = |command: &Command| matches!(command, Command::Abort(SessionError::Disconnected(_)));
        assert!(played.commands().iter().any(aborts), "{closes_root}");
    }
}
