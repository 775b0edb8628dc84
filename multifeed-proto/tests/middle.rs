//! Somebody between two sessions: who flips bits, replays what was said before, or sends it back to its sender. The
//! cipher has no MAC, so that what is flipped after the handshake arrives; it must do no more harm than end the session.

use crate::common;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::*;
use multifeed_proto::*;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

/// Lengths of the three handshake messages with their varints.
const HANDSHAKE_BYTES: [usize; 3] = [59, 123, 91];

/// A pair with somebody in the middle, who changes one byte of one direction.
struct Middle {
    pair: Pair,
    /// To the responder, or to the initiator; which byte of that direction; which bits.
    flip: Option<(bool, usize, u8)>,
    /// Bytes that went each way.
    passed: [usize; 2],
}

impl Middle {
    fn new(flip: Option<(bool, usize, u8)>) -> Self {
        Self { pair: Pair::offering(&[key(1)], &[key(2)]), flip, passed: [0; 2] }
    }

    fn run(&mut self) {
        for turn in 0.. {
            // Each turn moves bytes or takes events, and both are bounded.
            assert!(turn < 1000, "it does not come to rest");
            let Pair { a, b, now } = &mut self.pair;
            let mut moved = a.poll() | b.poll();
            for to_responder in [true, false] {
                let (from, to) = if to_responder { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
                let mut out = BytesMut::new();
                moved |= from.session.poll_output(&mut out);
                let passed = &mut self.passed[usize::from(to_responder)];
                if let Some((_, at, bits)) = self.flip.filter(|flip| flip.0 == to_responder)
                    && let Some(byte) = at.checked_sub(*passed).and_then(|at| out.get_mut(at))
                {
                    *byte ^= bits;
                }
                *passed += out.len();
                to.inbox.extend_from_slice(&out);
                moved |= to.read(usize::MAX, *now);
            }
            if !moved {
                return;
            }
        }
    }

    /// A whole conversation: feeds offered and opened, messages each way, channels closed, and the time after it.
    fn converse(&mut self) {
        self.run();
        for side in [&mut self.pair.a, &mut self.pair.b] {
            for token in 0..2 {
                side.session.send(Token(token), &have(5));
                side.session.send(Token(token), &data(5, Bytes::from_static(b"a block")));
                let request = Request { index: 7, bytes: 0, hash: false, nodes: 3 };
                side.session.send(Token(token), &Message::Request(request));
            }
        }
        self.run();
        self.pair.a.session.close_channel(Token(0));
        self.pair.b.session.close_root(Root::FIRST);
        self.run();
        // A length that was made longer is waited for: until the rest of the conversation fills it, or the time is over.
        for second in [10, 20, 30, 40, 50, 60] {
            self.pair.now = Duration::from_secs(second);
            for side in [&mut self.pair.a, &mut self.pair.b] {
                side.session.handle_timeout(Duration::from_secs(second));
            }
            self.run();
        }
    }

    fn sides(&self) -> [&Side; 2] {
        [&self.pair.a, &self.pair.b]
    }
}

fn is_connected(side: &Side) -> bool {
    side.events.iter().any(|event| matches!(event, Event::Connected { .. }))
}

fn is_ready(side: &Side) -> bool {
    side.events.iter().any(|event| matches!(event, Event::Ready { .. }))
}

#[test]
fn nobody_in_the_middle_is_nothing_to_notice() {
    let mut middle = Middle::new(None);
    middle.converse();
    for side in middle.sides() {
        assert!(is_ready(side) && side.closed().is_none());
        let messages = side.events.iter().filter(|event| matches!(event, Event::Message { .. })).count();
        assert_eq!(messages, 6);
    }
}

#[test]
fn every_flipped_bit_of_the_handshake_is_noticed() {
    let [first, second, third] = HANDSHAKE_BYTES;
    for (to_responder, bytes) in [(true, 0..first + third), (false, 0..second)] {
        for at in bytes {
            for bit in 0..8 {
                let mut middle = Middle::new(Some((to_responder, at, 1 << bit)));
                middle.converse();
                let [initiator, responder] = middle.sides();
                let text = format!("byte {at}, bit {bit}, to the responder: {to_responder}");
                assert!(!is_connected(responder) && !is_ready(initiator), "{text}");
                // Only the last message is sent by who is done already.
                assert_eq!(is_connected(initiator), to_responder && at >= first, "{text}");
                for side in middle.sides() {
                    let Some(Err(error)) = side.closed() else { panic!("{text}: {:?}", side.events) };
                    assert!(
                        matches!(error.code(), "ERR_HANDSHAKE" | "ERR_OLD_RELEASE" | "ERR_TIMEOUT"),
                        "{text}: {error}"
                    );
                }
            }
        }
    }
}

#[test]
fn every_flipped_bit_of_every_frame_ends_in_messages_or_an_error() {
    let mut sound = Middle::new(None);
    sound.converse();
    let [first, second, third] = HANDSHAKE_BYTES;
    let (mut ended, mut went_on) = (0, 0);
    for (to_responder, start) in [(true, first + third), (false, second)] {
        for at in start..sound.passed[usize::from(to_responder)] {
            for bit in 0..8 {
                let mut middle = Middle::new(Some((to_responder, at, 1 << bit)));
                middle.converse();
                for side in middle.sides() {
                    let text = || format!("byte {at}, bit {bit}, to the responder: {to_responder}: {:?}", side.events);
                    let closed = side.events.iter().filter(|event| matches!(event, Event::Closed(_))).count();
                    match side.closed() {
                        Some(Err(error)) => {
                            ended += 1;
                            assert_eq!(closed, 1, "{}", text());
                            assert!(!matches!(error.fault(), Fault::Local), "{}", text());
                        }
                        Some(Ok(())) => panic!("nobody ended it well: {}", text()),
                        None => {
                            went_on += 1;
                            assert_eq!(closed, 0, "{}", text());
                        }
                    }
                    // Whatever was flipped, no channel opens without the proof that the remote knows its key.
                    let opened = side.events.iter().filter(|event| matches!(event, Event::Opened { .. })).count();
                    assert!(
                        opened <= 2 && side.opened.iter().all(|feed| [key(1), key(2)].contains(feed)),
                        "{}",
                        text()
                    );
                }
            }
        }
    }
    // Some flips change a value that only a signature or a hash could tell, most end the session.
    assert!(ended > 5000 && went_on > 1000, "{ended} ended, {went_on} went on");
}

/// What each side of a whole conversation sent.
fn recorded() -> [BytesMut; 2] {
    let mut pair = Pair::offering(&[key(1)], &[key(2)]);
    let mut sent = [BytesMut::new(), BytesMut::new()];
    loop {
        let (mut to_b, mut to_a) = (BytesMut::new(), BytesMut::new());
        pair.a.poll();
        pair.b.poll();
        if !(pair.a.session.poll_output(&mut to_b) | pair.b.session.poll_output(&mut to_a)) {
            return sent;
        }
        sent[0].extend_from_slice(&to_b);
        sent[1].extend_from_slice(&to_a);
        pair.b.inbox.extend_from_slice(&to_b);
        pair.a.inbox.extend_from_slice(&to_a);
        pair.a.read(usize::MAX, Duration::ZERO);
        pair.b.read(usize::MAX, Duration::ZERO);
    }
}

#[test]
fn a_replayed_handshake() {
    let [by_initiator, by_responder] = recorded();
    for (role, bytes) in [(Role::Responder, by_initiator), (Role::Initiator, by_responder)] {
        // The very session that it was said to would take it again; one with other ephemeral keys does not.
        let mut same = session(role, Config::default());
        assert_eq!(push(&mut same, &bytes), Ok(()));
        for seed in 10..20 {
            let rng = &mut ChaCha8Rng::seed_from_u64(seed);
            // The static key stays the same, as that of a long-lived peer does.
            let mut config = Config::default();
            config.static_key = Some(StaticKeyPair::from_secret_key([5; 32]));
            let mut session = Session::new(role, config, Duration::ZERO, rng);
            let error = match role {
                Role::Responder => HandshakeError::Decrypt,
                // A second message that does not decrypt may be npm multifeed 5's.
                Role::Initiator => HandshakeError::OldRelease,
            };
            assert_eq!(push(&mut session, &bytes), Err(error.into()));
            assert!(!std::iter::from_fn(|| session.poll_event()).any(|event| matches!(event, Event::Connected { .. })));
        }
    }
}

#[test]
fn a_reflected_handshake() {
    // An initiator that hears itself.
    let mut alone = session(Role::Initiator, Config::default());
    let mut own = BytesMut::new();
    alone.poll_output(&mut own);
    let error = push(&mut alone, &[&own[..], &own[..], &own[..]].concat()).unwrap_err();
    assert_eq!(error, HandshakeError::Decrypt.into());

    // Two initiators, who might be one and the same behind a proxy; two responders wait for each other in vain.
    let mut pair = Pair::offering(&[], &[]);
    pair.b = Side::new(Role::Initiator, Config::default());
    pair.run();
    for side in [&pair.a, &pair.b] {
        assert_eq!(side.closed(), Some(&Err(HandshakeError::Decrypt.into())));
    }
    let mut pair = Pair::offering(&[], &[]);
    pair.a = Side::new(Role::Responder, Config::default());
    pair.run_until(Duration::from_secs(21));
    for side in [&pair.a, &pair.b] {
        assert_eq!(side.closed(), Some(&Err(SessionError::Timeout(Phase::Noise))));
    }
}

#[test]
fn our_own_frames_sent_back() {
    for role in [Role::Initiator, Role::Responder] {
        // A remote that does not know the root key says what we say, our capability included.
        let mut peer = Peer::connect(role, Config::default());
        peer.session.handle_timeout(Duration::from_secs(1));
        let frames = peer.frames();
        assert!(!frames.is_empty());
        let result = frames.iter().try_for_each(|frame| peer.frame(frame.channel, frame.kind, &frame.body));
        assert_eq!(result, Err(SessionError::Capability(DEFAULT_ROOT_KEY.discovery_key())));
    }
    // And its bytes as they stand on the wire are noise.
    let mut pair = Pair::offering(&[key(1)], &[key(1)]);
    pair.run();
    pair.a.session.send(Token(0), &have(1));
    let mut own = BytesMut::new();
    pair.a.session.poll_output(&mut own);
    let before = pair.a.events.len();
    pair.a.inbox.extend_from_slice(&own.repeat(100));
    pair.run();
    assert!(!pair.a.events[before..].contains(&Event::Message { token: Token(0), message: have(1) }));
}
