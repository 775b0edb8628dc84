//! Two sessions on a pipe, on virtual time; and a hostile peer that can send anything.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use multifeed_proto::crypto::capability::Split;
use multifeed_proto::crypto::cipher::Keystream;
use multifeed_proto::crypto::noise::{Established, Handshake};
use multifeed_proto::wire::frame::{self, Frame, Scanner};
use multifeed_proto::wire::message::kind;
use multifeed_proto::*;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

pub const MAX: usize = 8 * 1024 * 1024;
pub const NAMES: [&str; 4] =
    ["MULTIFEED_HANDSHAKE", "MULTIFEED_MANIFEST", "MULTIFEED_REPLICATE_FEEDS", "MULTIFEED_REQUEST_FEEDS"];
pub const HANDSHAKE: &str = r#"{"live":true,"_id":"ff","client":"MULTIFEED","version":"4.0.0"}"#;

pub fn key(n: u8) -> FeedKey {
    FeedKey::new([n; 32])
}

pub fn session(role: Role, config: Config) -> Session {
    let seed = if role == Role::Initiator { 1 } else { 2 };
    Session::new(role, config, Duration::ZERO, &mut ChaCha8Rng::seed_from_u64(seed))
}

/// Gives out fixed bytes if randomness is asked for.
pub struct Replay(pub VecDeque<u8>);

impl rand_core::TryRng for Replay {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("only bytes are drawn")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("only bytes are drawn")
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        dst.fill_with(|| self.0.pop_front().expect("nothing more is drawn"));
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Replay {}

/// A session, and what it reported.
pub struct Side {
    pub session: Session,
    pub events: Vec<Event>,
    /// Offered when ready; everything offered by the other side is requested, and what is agreed on is opened.
    pub offers: Option<Vec<FeedKey>>,
    pub opened: Vec<FeedKey>,
    /// Bytes on their way to this side.
    pub inbox: BytesMut,
}

impl Side {
    pub fn new(role: Role, config: Config) -> Self {
        let session = session(role, config);
        Self { session, events: Vec::new(), offers: None, opened: Vec::new(), inbox: BytesMut::new() }
    }

    pub fn token(&self, key: FeedKey) -> Token {
        Token(self.opened.iter().position(|opened| *opened == key).expect("an opened feed") as u64)
    }

    pub fn closed(&self) -> Option<&Result<(), SessionError>> {
        match self.events.last() {
            Some(Event::Closed(result)) => Some(result),
            _ => None,
        }
    }

    pub fn poll(&mut self) -> bool {
        let mut any = false;
        while let Some(event) = self.session.poll_event() {
            any = true;
            self.react(&event);
            self.events.push(event);
        }
        any
    }

    fn react(&mut self, event: &Event) {
        let Some(offers) = &self.offers else { return };
        match event {
            Event::Ready { root, .. } => self.session.offer_feeds(*root, offers).unwrap(),
            Event::Manifest { root, keys, .. } => self.session.request_feeds(*root, keys).unwrap(),
            Event::Replicate { keys, .. } => {
                for key in keys {
                    if !self.opened.contains(key) {
                        self.session.open_channel(Token(self.opened.len() as u64), *key).unwrap();
                        self.opened.push(*key);
                    }
                }
            }
            _ => {}
        }
    }

    /// Reads up to `size` bytes of what is on its way. `false` when there was nothing, or the session is paused.
    pub fn read(&mut self, size: usize, now: Duration) -> bool {
        if self.inbox.is_empty() {
            return false;
        }
        let Some(buf) = self.session.recv_buf() else { return false };
        let size = size.min(self.inbox.len());
        buf.extend_from_slice(&self.inbox.split_to(size));
        let _ = self.session.handle_input(now);
        true
    }
}

/// Two sides on a pipe.
pub struct Pair {
    pub a: Side,
    pub b: Side,
    pub now: Duration,
}

impl Pair {
    pub fn new(a: Config, b: Config) -> Self {
        Self { a: Side::new(Role::Initiator, a), b: Side::new(Role::Responder, b), now: Duration::ZERO }
    }

    /// A pair of which each offers its feeds.
    pub fn offering(a: &[FeedKey], b: &[FeedKey]) -> Self {
        let mut pair = Self::new(Config::default(), Config::default());
        pair.a.offers = Some(a.to_vec());
        pair.b.offers = Some(b.to_vec());
        pair
    }

    /// Moves bytes, in pieces of the sizes given, until nothing moves any more.
    pub fn run_chunked(&mut self, mut sizes: impl FnMut() -> usize) {
        loop {
            let mut moved = false;
            let Self { a, b, .. } = self;
            moved |= a.poll() | a.session.poll_output(&mut b.inbox);
            moved |= b.poll() | b.session.poll_output(&mut a.inbox);
            for side in [&mut self.a, &mut self.b] {
                moved |= side.read(sizes(), self.now);
            }
            if !moved {
                return;
            }
        }
    }

    pub fn run(&mut self) {
        self.run_chunked(|| usize::MAX);
    }

    /// Runs on until `until`, with timeouts in their time.
    pub fn run_until(&mut self, until: Duration) {
        loop {
            self.run();
            let next = [&self.a, &self.b].into_iter().filter_map(|side| side.session.poll_timeout()).min();
            let Some(next) = next.filter(|&next| next <= until) else { break };
            self.now = self.now.max(next);
            self.a.session.handle_timeout(self.now);
            self.b.session.handle_timeout(self.now);
        }
        self.now = until;
    }
}

/// The other end of a session, in the test's hands.
pub struct Peer {
    pub session: Session,
    pub split: Split,
    /// What was sent to the session until Noise was done.
    pub handshake: Vec<u8>,
    tx: Keystream,
    rx: Keystream,
    input: BytesMut,
    scanner: Scanner,
}

impl Peer {
    /// Does the Noise handshake with a session.
    pub fn connect(role: Role, config: Config) -> Self {
        let mut session = session(role, config);
        let ours = if role == Role::Initiator { Role::Responder } else { Role::Initiator };
        let mut handshake = Handshake::new(ours, None, &mut ChaCha8Rng::seed_from_u64(3)).unwrap();
        let (mut to_us, mut to_session) = (BytesMut::new(), BytesMut::new());
        handshake.start(&mut to_session).unwrap();
        let mut sent = Vec::new();
        let established = loop {
            sent.extend_from_slice(&to_session);
            push(&mut session, &to_session.split()).unwrap();
            session.poll_output(&mut to_us);
            if let Some(established) = handshake.receive(&mut to_us, &mut to_session).unwrap() {
                break established;
            }
        };
        sent.extend_from_slice(&to_session);
        push(&mut session, &to_session).unwrap();
        let Established { split, nonce, remote_nonce, .. } = established;
        let (tx, mut rx) = (Keystream::new(&split.tx, &nonce), Keystream::new(&split.rx, &remote_nonce));
        rx.apply(&mut to_us);
        Self { session, split, handshake: sent, tx, rx, input: to_us, scanner: Scanner::default() }
    }

    /// Goes on until the session is ready.
    pub fn ready(role: Role, config: Config) -> Self {
        let mut peer = Self::connect(role, config);
        peer.open(1, DEFAULT_ROOT_KEY).unwrap();
        peer.options().unwrap();
        peer.extension(0, HANDSHAKE).unwrap();
        let events = peer.events();
        assert!(matches!(events[..], [Event::Connected { .. }, Event::Ready { .. }]), "{events:?}");
        peer.frames();
        peer
    }

    /// Sends bytes, as they are before they are encrypted.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        let bytes = self.encrypt(bytes);
        push(&mut self.session, &bytes)
    }

    /// The next bytes of the remote's stream, as they stand on the wire.
    pub fn encrypt(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        self.encrypt_in_place(&mut bytes);
        bytes
    }

    pub fn encrypt_in_place(&mut self, bytes: &mut [u8]) {
        self.tx.apply(bytes);
    }

    pub fn frame(&mut self, channel: u32, kind: u8, body: &[u8]) -> Result<(), SessionError> {
        let wire = wire(channel, kind, body);
        self.raw(&wire)
    }

    pub fn open(&mut self, channel: u32, key: FeedKey) -> Result<(), SessionError> {
        let capability = self.split.capability(&key);
        self.open_with(channel, key, Some(&capability))
    }

    pub fn open_with(&mut self, channel: u32, key: FeedKey, capability: Option<&[u8]>) -> Result<(), SessionError> {
        let body = open_body(key, capability);
        self.frame(channel, kind::OPEN, &body)
    }

    pub fn options(&mut self) -> Result<(), SessionError> {
        self.frame(0, kind::OPTIONS, &options_body())
    }

    pub fn extension(&mut self, id: u8, json: &str) -> Result<(), SessionError> {
        self.frame(0, kind::EXTENSION, &[&[id], json.as_bytes()].concat())
    }

    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }

    /// What the session sent since.
    pub fn frames(&mut self) -> Vec<Frame> {
        let mut bytes = BytesMut::new();
        self.session.poll_output(&mut bytes);
        self.rx.apply(&mut bytes);
        self.input.unsplit(bytes);
        let whole = self.scanner.scan(&self.input, MAX).unwrap();
        self.scanner.taken();
        let mut span = self.input.split_to(whole).freeze();
        std::iter::from_fn(|| frame::next(&mut span, MAX).unwrap()).collect()
    }
}

pub fn options_body() -> Vec<u8> {
    let mut body = Vec::new();
    for name in NAMES {
        body.extend_from_slice(&[0x0a, name.len() as u8]);
        body.extend_from_slice(name.as_bytes());
    }
    body
}

pub fn open_body(key: FeedKey, capability: Option<&[u8]>) -> Vec<u8> {
    let mut body = vec![0x0a, 32];
    body.extend_from_slice(key.discovery_key().as_bytes());
    if let Some(capability) = capability {
        body.extend_from_slice(&[0x12, capability.len() as u8]);
        body.extend_from_slice(capability);
    }
    body
}

pub fn wire(channel: u32, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    frame::put_header(&mut wire, channel, kind, body.len());
    wire.put_slice(body);
    wire
}

pub fn push(session: &mut Session, bytes: &[u8]) -> Result<(), SessionError> {
    match session.recv_buf() {
        Some(buf) => buf.extend_from_slice(bytes),
        None => assert!(bytes.is_empty() || session.output_finished() || session.send_credit() == 0, "paused"),
    }
    session.handle_input(Duration::ZERO)
}

pub fn have(start: u64) -> Message {
    Message::Have(Have { start, length: 1, bitfield: None, ack: false })
}

pub fn data(index: u64, value: Bytes) -> Message {
    Message::Data(Data { index, value: Some(value), nodes: Vec::new(), signature: None })
}
