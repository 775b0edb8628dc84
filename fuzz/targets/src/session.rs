//! One session past the Noise handshake, with a remote that says anything, in two chunkings, which must both report the same.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use bytes::BytesMut;
use multifeed_proto::{Event, Role, Session};

use crate::sides::{Said, Told, Watch, is_no_fault_of_ours, keystream, other, session as past_noise};

#[derive(Debug, Arbitrary)]
struct Input {
    initiator: bool,
    /// A sound remote's first words go first.
    greeted: bool,
    events: u8,
    pieces: Vec<u8>,
    steps: Vec<Step>,
}

#[derive(Debug, Arbitrary)]
enum Step {
    Remote(Said),
    Caller(Told),
    Eof,
    Finish,
}

/// Events and output of a remote's words and a caller's calls.
pub fn session(data: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let whole = play(&input, &[], 512);
    let pieces: Vec<usize> = input.pieces.iter().map(|size| usize::from(*size).max(1)).collect();
    let apart = play(&input, &pieces, usize::from(input.events).max(1));
    assert_eq!(apart, whole);
}

fn play(input: &Input, pieces: &[usize], events: usize) -> (Vec<Event>, BytesMut) {
    let role = if input.initiator { Role::Initiator } else { Role::Responder };
    let remote = other(role);
    let mut cipher = keystream(remote);
    let mut player = Player { session: past_noise(role, events), ..Player::new(pieces, role) };
    let mut wire = Vec::new();
    if input.greeted {
        Said::greeting(1).iter().for_each(|said| said.put(remote, &mut wire));
    }
    for step in &input.steps {
        if let Step::Remote(said) = step {
            said.put(remote, &mut wire);
            continue;
        }
        cipher.apply(&mut wire);
        player.feed(&std::mem::take(&mut wire));
        // The same order of bytes and calls.
        player.poll(usize::MAX);
        match step {
            Step::Remote(_) => {}
            Step::Caller(told) => {
                let command = told.command();
                player.watch.told(&command);
                // It may be a mistake, which does nothing.
                let _ = player.session.apply(command);
            }
            Step::Eof => {
                player.session.handle_eof();
                player.ended = true;
            }
            Step::Finish => player.session.finish(),
        }
    }
    cipher.apply(&mut wire);
    player.feed(&wire);
    player.poll(usize::MAX);
    while player.session.poll_output(&mut player.output) {}
    if let Some(Event::Closed(Err(error))) = player.events.last() {
        assert!(is_no_fault_of_ours(error), "{error}");
        assert!(player.session.output_finished() && player.session.poll_timeout().is_none());
    }
    (player.events, player.output)
}

struct Player {
    session: Session,
    watch: Watch,
    pieces: Vec<usize>,
    turn: usize,
    events: Vec<Event>,
    output: BytesMut,
    /// The remote ended its half.
    ended: bool,
}

impl Player {
    fn new(pieces: &[usize], role: Role) -> Self {
        Self {
            session: past_noise(role, 512),
            watch: Watch::default(),
            pieces: pieces.to_vec(),
            turn: 0,
            events: Vec::new(),
            output: BytesMut::new(),
            ended: false,
        }
    }

    fn poll(&mut self, most: usize) {
        for _ in 0..most {
            let Some(event) = self.session.poll_event() else { return };
            self.watch.event(&event);
            self.events.push(event);
        }
    }

    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.turn += 1;
            let size = match self.pieces.len() {
                0 => usize::MAX,
                len => self.pieces.get(self.turn % len).copied().unwrap_or(1),
            };
            let Some(buf) = self.session.recv_buf() else {
                let before = self.events.len();
                self.poll(1);
                let taken = self.session.poll_output(&mut self.output);
                // Frames without an event may have waited behind the events: then it reads on.
                if self.events.len() == before && !taken && self.session.recv_buf().is_none() {
                    assert!(self.ended || self.session.output_finished(), "paused for ever");
                    return;
                }
                continue;
            };
            let (piece, rest) = bytes.split_at(bytes.len().min(size));
            buf.extend_from_slice(piece);
            let _ = self.session.handle_input(Duration::ZERO);
            bytes = rest;
        }
    }
}
