//! Any order of calls is safe, and any chunking is equal.

use crate::common;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::*;
use multifeed_proto::wire::message::kind;
use multifeed_proto::*;
use proptest::prelude::*;
use proptest::sample::Index;

/// What happens to a session whose Noise handshake is done or not: the remote's bytes (in the clear), or a call.
#[derive(Debug, Clone)]
enum Step {
    Remote(Vec<u8>),
    Command(Command),
    Eof,
}

/// How a script is played: which pieces the bytes come in, when events are taken and output, and how many of each may wait.
#[derive(Debug, Clone)]
struct Pace {
    /// Sizes of the pieces, over and over.
    pieces: Vec<usize>,
    /// How many events are taken after each piece.
    polls: Vec<usize>,
    /// Whether the output is taken after a piece.
    outputs: Vec<bool>,
    events: usize,
}

impl Pace {
    fn whole() -> Self {
        Self { pieces: vec![usize::MAX], polls: vec![usize::MAX], outputs: vec![true], events: 512 }
    }

    fn bytewise() -> Self {
        Self { pieces: vec![1], ..Self::whole() }
    }
}

#[derive(Debug, PartialEq)]
struct Told {
    events: Vec<Event>,
    output: BytesMut,
    messages_in: u64,
    messages_out: u64,
}

/// A session that was played to, and what it reported.
struct Player {
    session: Session,
    told: Told,
}

impl Player {
    fn poll(&mut self, most: usize) {
        self.told.events.extend(std::iter::from_fn(|| self.session.poll_event()).take(most));
    }

    fn feed(&mut self, mut bytes: &[u8], pace: &Pace, turn: &mut usize) {
        while !bytes.is_empty() {
            *turn += 1;
            let at = *turn;
            if pace.outputs[at % pace.outputs.len()] {
                self.session.poll_output(&mut self.told.output);
            }
            self.poll(pace.polls[at % pace.polls.len()]);
            let Some(buf) = self.session.recv_buf() else {
                if self.session.output_finished() || self.session.send_credit() == 0 {
                    return;
                }
                // Paused until something is taken.
                self.poll(1);
                self.session.poll_output(&mut self.told.output);
                continue;
            };
            let (piece, rest) = bytes.split_at(bytes.len().min(pace.pieces[at % pace.pieces.len()]));
            buf.extend_from_slice(piece);
            let _ = self.session.handle_input(Duration::ZERO);
            bytes = rest;
        }
    }
}

/// The bytes that the remote sends until Noise is done, and the keystream for what it sends after them.
fn handshake(role: Role) -> (Vec<u8>, Peer) {
    let peer = Peer::connect(role, Config::default());
    (peer.handshake.clone(), peer)
}

fn play(role: Role, script: &[Step], pace: &Pace) -> Told {
    let (handshake, mut peer) = handshake(role);
    let mut config = Config::default();
    config.limits.events = pace.events;
    let told = Told { events: Vec::new(), output: BytesMut::new(), messages_in: 0, messages_out: 0 };
    let mut player = Player { session: session(role, config), told };
    let mut turn = 0;
    // What the remote says between two calls of ours comes as one stream, the handshake included.
    let mut wire = handshake;
    for step in script {
        match step {
            Step::Remote(bytes) => wire.extend_from_slice(&peer.encrypt(bytes)),
            Step::Command(command) => {
                player.feed(&std::mem::take(&mut wire), pace, &mut turn);
                // The same order of calls and bytes: everything that came before the call is handled before it.
                player.poll(usize::MAX);
                // It may be a mistake, which does nothing.
                let _ = player.session.apply(command.clone());
            }
            Step::Eof => {
                player.feed(&std::mem::take(&mut wire), pace, &mut turn);
                player.session.handle_eof();
            }
        }
    }
    player.feed(&wire, pace, &mut turn);
    player.poll(usize::MAX);
    while player.session.poll_output(&mut player.told.output) {}
    let totals = player.session.totals();
    (player.told.messages_in, player.told.messages_out) = (totals.messages_in, totals.messages_out);
    player.told
}

/// Frames that mean something at one time or another.
fn remote_frames(role: Role) -> impl Strategy<Value = Step> {
    let split = Peer::connect(role, Config::default()).split.clone();
    let opens = {
        let split = split.clone();
        (1u32..6, 0u8..5).prop_map(move |(id, n)| {
            let key = if n == 0 { DEFAULT_ROOT_KEY } else { key(n) };
            wire(id, kind::OPEN, &open_body(key, Some(&split.capability(&key))))
        })
    };
    let lists = (1u8..4, prop::collection::vec(1u8..5, 0..4)).prop_map(|(id, keys)| {
        let keys: Vec<_> = keys.into_iter().map(|n| format!("\"{}\"", key(n))).collect();
        let list = format!("[{}]", keys.join(","));
        let json = if id == 1 { format!("{{\"keys\":{list}}}") } else { list };
        wire(0, kind::EXTENSION, &[&[id], json.as_bytes()].concat())
    });
    let messages = (1u32..6, 0u64..10, 0usize..2000).prop_map(|(id, index, size)| {
        let mut body = BytesMut::new();
        let message = if size % 3 == 0 { have(index) } else { data(index, Bytes::from(vec![3; size])) };
        message.encode(&mut body);
        wire(id, message.kind(), &body)
    });
    let any = (0u32..6, 0u8..16, prop::collection::vec(any::<u8>(), 0..20))
        .prop_map(|(id, kind, body)| wire(id, kind, &body));
    prop_oneof![
        6 => opens,
        4 => lists,
        12 => messages,
        2 => (1u32..6).prop_map(|id| wire(id, kind::CLOSE, &[])),
        1 => Just(vec![0, 0, 0]),
        1 => Just(wire(0, kind::OPTIONS, &options_body())),
        1 => Just(wire(0, kind::EXTENSION, &[&[0], HANDSHAKE.as_bytes()].concat())),
        1 => any,
    ]
    .prop_map(Step::Remote)
}

fn commands() -> impl Strategy<Value = Command> {
    let keys = || prop::collection::vec((1u8..5).prop_map(key), 0..4);
    prop_oneof![
        2 => keys().prop_map(|keys| Command::Offer { root: Root::FIRST, keys, fields: None }),
        2 => keys().prop_map(|keys| Command::Request { root: Root::FIRST, keys }),
        4 => (0u64..4, 1u8..5).prop_map(|(token, n)| Command::Open { token: Token(token), key: key(n) }),
        4 => (0u64..4, 0u64..9).prop_map(|(token, n)| Command::Send { token: Token(token), message: have(n) }),
        1 => (0u64..4).prop_map(|token| Command::Close { token: Token(token) }),
        1 => (0u64..32).prop_map(|n| Command::LeaveRoot { root: Root(u32::from(n != 31)), feeds: Token(n)..=Token(n) }),
        1 => Just(Command::CloseRoot { root: Root::FIRST }),
    ]
}

/// The root's Open, Options and handshake come in a sound order for the most part, so that there is something behind them.
fn scripts(role: Role) -> impl Strategy<Value = Vec<Step>> {
    let split = Peer::connect(role, Config::default()).split.clone();
    let root = wire(1, kind::OPEN, &open_body(DEFAULT_ROOT_KEY, Some(&split.capability(&DEFAULT_ROOT_KEY))));
    let options = wire(0, kind::OPTIONS, &options_body());
    let hello = wire(0, kind::EXTENSION, &[&[0], HANDSHAKE.as_bytes()].concat());
    let start = prop_oneof![
        4 => Just(vec![root.clone(), options.clone(), hello.clone()]),
        2 => Just(vec![options, hello, root]),
        1 => Just(vec![]),
    ];
    let step = prop_oneof![3 => remote_frames(role), 1 => commands().prop_map(Step::Command)];
    let end = prop_oneof![
        Just(vec![]),
        Just(vec![Step::Eof]),
        Just(vec![Step::Command(Command::Finish)]),
        Just(vec![Step::Eof, Step::Command(Command::Finish)]),
    ];
    let before = prop::collection::vec(commands().prop_map(Step::Command), 0..4);
    (before, start, prop::collection::vec(step, 0..40), end).prop_map(|(before, start, steps, end)| {
        before.into_iter().chain(start.into_iter().map(Step::Remote)).chain(steps).chain(end).collect()
    })
}

fn paces() -> impl Strategy<Value = Pace> {
    let sizes = prop_oneof![1usize..4, 1usize..100, 1usize..5000];
    (
        prop::collection::vec(sizes, 1..8),
        prop::collection::vec(prop_oneof![Just(0), 0usize..3, Just(usize::MAX)], 1..8),
        prop::collection::vec(any::<bool>(), 1..8),
        prop_oneof![1usize..4, Just(512)],
    )
        .prop_map(|(pieces, polls, outputs, events)| Pace { pieces, polls, outputs, events })
}

fn equal_at_any_pace(role: Role, script: &[Step], pace: &Pace) -> Result<(), TestCaseError> {
    let whole = play(role, script, &Pace::whole());
    prop_assert_eq!(&play(role, script, &Pace::whole()), &whole, "the same twice");
    prop_assert_eq!(&play(role, script, &Pace::bytewise()), &whole, "byte by byte");
    prop_assert_eq!(&play(role, script, pace), &whole, "at this pace");
    let closed = whole.events.iter().filter(|event| matches!(event, Event::Closed(_))).count();
    prop_assert!(closed == 0 || closed == 1 && matches!(whole.events.last(), Some(Event::Closed(_))));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn a_responder_tells_the_same_at_any_pace(script in scripts(Role::Responder), pace in paces()) {
        equal_at_any_pace(Role::Responder, &script, &pace)?;
    }

    #[test]
    fn an_initiator_tells_the_same_at_any_pace(script in scripts(Role::Initiator), pace in paces()) {
        equal_at_any_pace(Role::Initiator, &script, &pace)?;
    }
}

#[test]
fn scripts_reach_what_they_are_for() {
    // The properties above would hold for a session that does nothing as well.
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut ready, mut opened, mut messages, mut replicated, mut closed) = (0, 0, 0, 0, 0);
    for _ in 0..500 {
        let script = scripts(Role::Responder).new_tree(&mut runner).unwrap().current();
        for event in play(Role::Responder, &script, &Pace::whole()).events {
            match event {
                Event::Ready { .. } => ready += 1,
                Event::Opened { .. } => opened += 1,
                Event::Message { .. } => messages += 1,
                Event::Replicate { .. } => replicated += 1,
                Event::ChannelClosed { .. } => closed += 1,
                _ => {}
            }
        }
    }
    assert!(
        ready > 150 && opened > 50 && messages > 15 && replicated > 100 && closed > 15,
        "{ready} ready, {opened} opened, {messages} messages, {replicated} replicated, {closed} closed"
    );
}

/// Any call of the public API, on either of two sessions that are joined by a pipe.
#[derive(Debug, Clone)]
enum Call {
    /// Moves so many bytes of what is on its way.
    Read(usize),
    /// Appends to the buffer, without telling.
    Append(Vec<u8>),
    Input(u64),
    Event,
    /// Onto the end of a buffer with something in it, or not.
    Output(bool),
    Timeout(u64),
    Eof,
    Apply(Command),
    Message(u64, Message),
    Abort,
    Ask,
    /// Changes a byte on its way.
    Tamper(Index, u8),
}

fn messages() -> impl Strategy<Value = Message> {
    let number = || prop_oneof![0u64..20, any::<u64>(), Just(u64::MAX), Just((1 << 53) - 1), Just(1 << 53)];
    let bytes = || prop::collection::vec(any::<u8>(), 0..50).prop_map(Bytes::from);
    prop_oneof![
        (prop::collection::vec(".{0,5}", 0..4), any::<bool>())
            .prop_map(|(extensions, ack)| Message::Options(Options { extensions, ack })),
        any::<(bool, bool)>().prop_map(|(uploading, downloading)| Message::Status { uploading, downloading }),
        (number(), number(), prop::option::of(bytes()), any::<bool>())
            .prop_map(|(start, length, bitfield, ack)| Message::Have(Have { start, length, bitfield, ack })),
        (number(), number()).prop_map(|(start, length)| Message::Unhave { start, length }),
        (number(), number()).prop_map(|(start, length)| Message::Want { start, length }),
        (number(), number()).prop_map(|(start, length)| Message::Unwant { start, length }),
        (number(), number(), any::<bool>(), number())
            .prop_map(|(index, bytes, hash, nodes)| Message::Request(Request { index, bytes, hash, nodes })),
        (number(), number(), any::<bool>()).prop_map(|(index, bytes, hash)| Message::Cancel { index, bytes, hash }),
        (number(), prop::option::of(bytes()), any::<bool>()).prop_map(|(index, value, signed)| {
            let nodes = vec![Node { index, hash: [9; 32], size: index }];
            Message::Data(Data { index, value, nodes, signature: signed.then_some([7; 64]) })
        }),
        (number(), bytes()).prop_map(|(id, body)| Message::Extension { id, body }),
    ]
}

fn calls() -> impl Strategy<Value = Call> {
    prop_oneof![
        20 => prop_oneof![1usize..200, Just(usize::MAX)].prop_map(Call::Read),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Call::Append),
        1 => (0u64..60).prop_map(Call::Input),
        10 => Just(Call::Event),
        10 => any::<bool>().prop_map(Call::Output),
        2 => prop_oneof![0u64..15, any::<u64>()].prop_map(Call::Timeout),
        1 => Just(Call::Eof),
        20 => commands().prop_map(Call::Apply),
        10 => (0u64..4, messages()).prop_map(|(token, message)| Call::Message(token, message)),
        1 => prop_oneof![Just(Call::Apply(Command::Finish)), Just(Call::Abort)],
        4 => Just(Call::Ask),
        1 => (any::<Index>(), any::<u8>()).prop_map(|(at, bits)| Call::Tamper(at, bits)),
    ]
}

/// A side of a pipe, and what holds for it whatever is called.
struct Called {
    side: Side,
    failed: Option<SessionError>,
    over: bool,
}

impl Called {
    fn new(role: Role, events: usize) -> Self {
        let mut config = Config::default();
        config.limits.events = events;
        Self { side: Side::new(role, config), failed: None, over: false }
    }

    fn call(&mut self, call: &Call, to_other: &mut BytesMut) -> Result<(), TestCaseError> {
        let session = &mut self.side.session;
        match call {
            Call::Read(size) => drop(self.side.read(*size, Duration::ZERO)),
            Call::Append(bytes) => drop(session.recv_buf().map(|buf| buf.extend_from_slice(bytes))),
            Call::Input(now) => {
                let result = session.handle_input(Duration::from_secs(*now));
                if let Some(failed) = &self.failed {
                    prop_assert_eq!(result.as_ref(), Err(failed), "errors stick");
                }
                self.failed = result.err();
            }
            Call::Event => match session.poll_event() {
                Some(event) => {
                    prop_assert!(!self.over, "{:?} after the end", event);
                    if let Event::Closed(result) = event {
                        self.over = true;
                        if let Some(failed) = &self.failed {
                            prop_assert_eq!(result.as_ref(), Err(failed));
                        }
                        self.failed = result.err();
                    }
                }
                None if self.over => prop_assert!(session.recv_buf().is_none() && session.send_credit() == 0),
                None => {}
            },
            Call::Output(fresh) => {
                let before = to_other.len();
                let moved = match fresh {
                    true => {
                        let mut out = BytesMut::new();
                        let moved = session.poll_output(&mut out);
                        to_other.extend_from_slice(&out);
                        moved
                    }
                    false => session.poll_output(to_other),
                };
                prop_assert_eq!(moved, to_other.len() > before);
            }
            Call::Timeout(now) => session.handle_timeout(Duration::from_secs(*now)),
            Call::Eof => session.handle_eof(),
            Call::Apply(command) => _ = session.apply(command.clone()),
            Call::Message(token, message) => session.send(Token(*token), message),
            Call::Abort => session.abort(SessionError::Local("enough".into())),
            Call::Ask => {
                let text = format!("{session:?}{:?}{:?}", session.poll_timeout(), session.totals());
                prop_assert!(text.starts_with("Session"));
            }
            Call::Tamper(at, bits) => {
                if !to_other.is_empty() {
                    let at = at.index(to_other.len());
                    to_other[at] ^= bits;
                }
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_calls_in_any_order(
        greeted in any::<bool>(),
        events in prop_oneof![1usize..5, Just(512)],
        calls in prop::collection::vec((any::<bool>(), calls()), 0..300),
    ) {
        let (mut a, mut b) = (Called::new(Role::Initiator, events), Called::new(Role::Responder, events));
        if greeted {
            let mut pair = Pair { a: a.side, b: b.side, now: Duration::ZERO };
            pair.run();
            (a.side, b.side) = (pair.a, pair.b);
        }
        for (first, call) in &calls {
            let (side, other) = if *first { (&mut a, &mut b) } else { (&mut b, &mut a) };
            side.call(call, &mut other.side.inbox)?;
        }
        // However it got here, it can be brought to its end.
        for side in [&mut a, &mut b] {
            side.side.session.finish();
            let mut out = BytesMut::new();
            side.side.session.poll_output(&mut out);
            prop_assert!(side.side.session.output_finished());
            let left: Vec<_> = std::iter::from_fn(|| side.side.session.poll_event()).collect();
            prop_assert_eq!(side.over, left.is_empty());
            prop_assert_eq!(!side.over, matches!(left.last(), Some(Event::Closed(_))));
        }
    }
}
