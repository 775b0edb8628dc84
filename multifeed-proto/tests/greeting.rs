//! When our multifeed handshake goes out. A JS peer that reads it together with our Open, and does not agree with it, drops the stream
//! before its own has left. Then neither code nor values could be told.

use crate::common;

use std::time::Duration;

use common::*;
use multifeed_proto::wire::message::kind;
use multifeed_proto::*;

const OTHER_VERSION: &str = r#"{"client":"MULTIFEED","version":"5.1.0"}"#;
const OTHER_CLIENT: &str = r#"{"client":"CABAL","version":"4.0.0"}"#;

/// Our handshakes among what the session sent since.
fn greetings(peer: &mut Peer) -> usize {
    peer.frames().iter().filter(|frame| frame.kind == kind::EXTENSION).count()
}

/// A peer whose Open came, and nothing else.
fn opened(role: Role, config: Config) -> Peer {
    let mut peer = Peer::connect(role, config);
    peer.open(1, DEFAULT_ROOT_KEY).unwrap();
    peer
}

fn options(names: &[&str]) -> Vec<u8> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names.iter().flat_map(|name| [&[0x0a, name.len() as u8], name.as_bytes()].concat()).collect()
}

#[test]
fn what_does_not_agree_is_told_with_both_values_and_hears_ours() {
    for role in [Role::Initiator, Role::Responder] {
        for (handshake, code, us, them) in [
            (OTHER_VERSION, "ERR_VERSION_MISMATCH", "4.0.0", "5.1.0"),
            (OTHER_CLIENT, "ERR_CLIENT_MISMATCH", "MULTIFEED", "CABAL"),
        ] {
            let mut peer = opened(role, Config::default());
            assert_eq!(greetings(&mut peer), 0);
            // Other names beside multifeed's: an app's, who may have sent them before.
            peer.frame(0, kind::OPTIONS, &options(&[&NAMES[..], &["peer-id"]].concat())).unwrap();
            assert_eq!(greetings(&mut peer), 0);
            let error = peer.extension(0, handshake).unwrap_err();
            assert_eq!((error.code(), error.us().as_deref(), error.them().as_deref()), (code, Some(us), Some(them)));
            assert_eq!(greetings(&mut peer), 1, "the remote learns our values too");
        }
    }
}

#[test]
fn a_handshake_is_held_for_the_remotes_but_not_for_long() {
    for role in [Role::Initiator, Role::Responder] {
        let mut peer = opened(role, Config::default());
        assert_eq!(greetings(&mut peer), 0);
        let wake = peer.session.poll_timeout().unwrap();
        assert_eq!(wake, Config::default().greeting_hold);
        peer.session.handle_timeout(wake - Duration::from_millis(1));
        assert_eq!(greetings(&mut peer), 0);
        peer.session.handle_timeout(wake);
        assert_eq!(greetings(&mut peer), 1);
        peer.options().unwrap();
        peer.extension(0, HANDSHAKE).unwrap();
        assert_eq!(greetings(&mut peer), 0, "once");
        assert!(peer.events().iter().any(|event| matches!(event, Event::Ready { .. })));
    }
}

#[test]
fn options_tell_when_a_handshake_need_not_be_held() {
    let ours: &[&str] = &["multifeed/reconcile/1"];
    for (names, released) in [
        // JS sends them with its own handshake, ours with its Open.
        (&NAMES[..], true),
        // One that speaks an extension of ours is no plain JS peer.
        (&[&NAMES[..], ours, &["peer-id"]].concat(), true),
        (ours, true),
        // What JS needed first for another one says nothing.
        (&[&NAMES[..], &["peer-id"]].concat(), false),
        (&["peer-id"], false),
    ] {
        for before_open in [true, false] {
            let mut config = Config::default();
            config.extensions = ours.iter().map(ToString::to_string).collect();
            let mut peer = Peer::connect(Role::Responder, config);
            if !before_open {
                peer.open(1, DEFAULT_ROOT_KEY).unwrap();
            }
            peer.frame(0, kind::OPTIONS, &options(names)).unwrap();
            if before_open {
                peer.open(1, DEFAULT_ROOT_KEY).unwrap();
            }
            assert_eq!(greetings(&mut peer), usize::from(released), "{names:?}, before the Open: {before_open}");
        }
    }
}

/// What npm multifeed 1.3.12, 2.1.0, 3.0.8 and 4.3.0 send first, whoever connected, with one feed each. Each was seen so.
#[test]
fn older_releases_are_told_by_what_they_send_first() {
    let discovery_key = [0xc0; 32];
    let feed = |length: u8| [&[length, 0, 0x0a, 32][..], &discovery_key].concat();
    let one = [&[1, 0][..], &[7; 32]].concat();
    let two = [&b"\x5f\0\0\0{\"version\":\"1.0.0\",\"keys\":[\""[..], &[b'a'; 64], b"\"]}"].concat();
    let three = [&feed(0x3d)[..], &[0x12, 0x18], &[9; 24]].concat();
    for bytes in [one.clone(), [one, feed(0x23)].concat(), [vec![0, 0], feed(0x23)].concat(), two, three] {
        for role in [Role::Initiator, Role::Responder] {
            let mut session = session(role, Config::default());
            let error = push(&mut session, &bytes).unwrap_err();
            assert_eq!(error, SessionError::Handshake(HandshakeError::OldRelease), "{role:?}, {bytes:02x?}");
            assert_eq!((error.code(), error.fault()), ("ERR_OLD_RELEASE", Fault::Incompatible));
            assert!(error.to_string().ends_with("not a multifeed 6 peer; perhaps npm multifeed 5 or older"), "{error}");
        }
    }
}

/// The first handshake message of npm multifeed 5.2.4 (Node 12), and its answer to one.
const RELEASE_5: [&str; 2] = [
    "3aa9fe3af2a32acc0c914056df5566c9805924c7381af396ffa7921d72051b59100a18ce542e793f4702255759945a3d1b78a64edfbf7cc9843782",
    "7a861d7d4bbce33775ed894ac20ab47fd64fff2ba2261ec44130baf301f369871682dd39bd102f3b20e428327bea9b709143aaee7b33bcdec32565108e13ba73986d155807b1c4e91f51469659a34cdc3478604a02f8bb9f667b1ff03372718d0f3f1ce38911e84c9412dcd3475fda0ecfe3b7a461abf6ffca4afd",
];

/// npm multifeed 5 has handshake messages of the same sizes, and derives other keys: its answer does not decrypt. If it connects, it leaves when it
/// gets our answer, as anybody may.
#[test]
fn release_5_is_told_by_its_handshake() {
    let [first, answer] = RELEASE_5.map(|hex| {
        let bytes = hex.as_bytes().chunks(2).map(|digits| std::str::from_utf8(digits).unwrap());
        bytes.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect::<Vec<u8>>()
    });
    let mut responder = session(Role::Responder, Config::default());
    push(&mut responder, &first).unwrap();
    let mut ours = bytes::BytesMut::new();
    while responder.poll_output(&mut ours) {}
    assert_eq!((ours.len(), answer.len()), (1 + 122, 1 + 122));
    responder.handle_eof();
    let events: Vec<_> = std::iter::from_fn(|| responder.poll_event()).collect();
    let gone = Event::Closed(Err(SessionError::Disconnected(Phase::Noise)));
    assert_eq!(events, std::slice::from_ref(&gone));

    let mut initiator = session(Role::Initiator, Config::default());
    assert_eq!(push(&mut initiator, &answer), Err(SessionError::Handshake(HandshakeError::OldRelease)));

    // What leaves before it said anything is only gone.
    let mut responder = session(Role::Responder, Config::default());
    push(&mut responder, &first[..20]).unwrap();
    responder.handle_eof();
    let events: Vec<_> = std::iter::from_fn(|| responder.poll_event()).collect();
    assert_eq!(events, [gone]);
}

/// Between two of ours nobody waits: neither for the time that a handshake is held at most, nor for a round trip more.
#[test]
fn two_of_ours_are_ready_without_waiting() {
    for extensions in [&[][..], &["multifeed/reconcile/1"]] {
        let mut config = Config::default();
        config.extensions = extensions.iter().map(ToString::to_string).collect();
        let mut initiator = session(Role::Initiator, config.clone());
        let mut responder = session(Role::Responder, config);
        let mut ready = [false; 2];
        let mut flights = 0;
        while ready != [true; 2] {
            flights += 1;
            assert!(flights < 10, "they wait for each other: {ready:?}");
            // All that one has to say arrives at the other at once.
            let (from, to, side) = match flights % 2 {
                1 => (&mut initiator, &mut responder, 1),
                _ => (&mut responder, &mut initiator, 0),
            };
            let mut wire = bytes::BytesMut::new();
            while from.poll_output(&mut wire) {}
            push(to, &wire).unwrap();
            while let Some(event) = to.poll_event() {
                ready[side] |= matches!(event, Event::Ready { .. });
            }
        }
        // Three of Noise's, the responder's Open, and each one's handshake.
        assert_eq!(flights, 6);
    }
}
