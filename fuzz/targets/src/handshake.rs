//! The Noise handshake, with a remote whose messages are changed on their way.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use bytes::BytesMut;
use multifeed_proto::crypto::noise::Handshake;
use multifeed_proto::{Config, Event, Phase, Role, Session, SessionError};

use crate::sides::{Counter, other};

#[derive(Debug, Arbitrary)]
struct Input {
    /// What happens to each message of the remote's.
    edits: [Vec<Edit>; 2],
    /// What comes after them.
    rest: Vec<u8>,
    /// Sizes of the pieces.
    pieces: Vec<u8>,
}

#[derive(Debug, Arbitrary)]
enum Edit {
    Flip { at: u8, bits: u8 },
    Insert { at: u8, bytes: Vec<u8> },
    Cut { at: u8, len: u8 },
    Repeat,
}

impl Edit {
    fn apply(&self, message: &mut Vec<u8>) -> bool {
        let before = message.clone();
        match self {
            Self::Flip { at, bits } => {
                if let Some(byte) = message.get_mut(usize::from(*at)) {
                    *byte ^= bits;
                }
            }
            Self::Insert { at, bytes } => {
                let at = usize::from(*at).min(message.len());
                message.splice(at..at, bytes.iter().copied());
            }
            Self::Cut { at, len } => {
                let at = usize::from(*at).min(message.len());
                message.drain(at..(at + usize::from(*len)).min(message.len()));
            }
            // A hundred of them in a row would be the harness's own memory, not the session's.
            Self::Repeat if message.len() < 100_000 => message.extend_from_within(..),
            Self::Repeat => {}
        }
        *message != before
    }
}

/// A session that starts the handshake.
pub fn handshake_initiator(data: &[u8]) {
    run(Role::Initiator, data);
}

/// A session that answers.
pub fn handshake_responder(data: &[u8]) {
    run(Role::Responder, data);
}

fn run(role: Role, data: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let mut session = Session::new(role, Config::default(), Duration::ZERO, &mut Counter(1));
    let Ok(mut remote) = Handshake::new(other(role), None, &mut Counter(200)) else { return };
    let (mut to_remote, mut from_remote) = (BytesMut::new(), BytesMut::new());
    let _ = remote.start(&mut from_remote);
    let mut pieces = input.pieces.iter().map(|size| usize::from(*size).max(1)).cycle();
    let mut changed = false;
    for edits in &input.edits {
        session.poll_output(&mut to_remote);
        let _ = remote.receive(&mut to_remote, &mut from_remote);
        let mut message = from_remote.split().to_vec();
        for edit in edits {
            changed |= edit.apply(&mut message);
        }
        feed(&mut session, &message, pieces.next().unwrap_or(usize::MAX));
    }
    feed(&mut session, &input.rest, pieces.next().unwrap_or(usize::MAX));
    let mut connected = false;
    let mut last = None;
    while let Some(event) = session.poll_event() {
        connected |= matches!(event, Event::Connected { .. });
        last = Some(event);
    }
    if !changed {
        assert!(connected, "an honest remote was refused: {last:?}");
    }
    // It never waits for ever.
    session.handle_timeout(Duration::from_secs(20));
    let closed = session.poll_event().or(last);
    match closed {
        Some(Event::Closed(Err(SessionError::Handshake(_) | SessionError::Timeout(Phase::Noise)))) => {}
        Some(Event::Closed(Err(error))) => assert!(connected, "{error}"),
        other => panic!("{other:?}"),
    }
    session.poll_output(&mut to_remote);
    assert!(session.output_finished());
}

fn feed(session: &mut Session, bytes: &[u8], size: usize) {
    for piece in bytes.chunks(size) {
        let Some(buf) = session.recv_buf() else { return };
        buf.extend_from_slice(piece);
        let _ = session.handle_input(Duration::ZERO);
    }
}
