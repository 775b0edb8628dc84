//! Sessions with fixed keys, what the remote may say to them, and what holds whatever it says.

use std::convert::Infallible;
use std::time::Duration;

use arbitrary::Arbitrary;
use bytes::{BufMut, Bytes, BytesMut};
use multifeed_proto::crypto::capability::Split;
use multifeed_proto::crypto::cipher::Keystream;
use multifeed_proto::crypto::noise::Established;
use multifeed_proto::wire::frame;
use multifeed_proto::wire::message::kind;
use multifeed_proto::{
    Command, Config, DEFAULT_ROOT_KEY, Event, Fault, FeedKey, HandshakeHash, Have, Message, Request, Role, Root,
    RootConfig, Scope, Session, SessionError, Token,
};

const NAMES: [&str; 4] =
    ["MULTIFEED_HANDSHAKE", "MULTIFEED_MANIFEST", "MULTIFEED_REPLICATE_FEEDS", "MULTIFEED_REQUEST_FEEDS"];
const HANDSHAKE: &str = r#"{"live":true,"_id":"ff","client":"MULTIFEED","version":"4.0.0"}"#;

/// Bytes that are not random at all.
pub(crate) struct Counter(pub(crate) u8);

impl rand_core::TryRng for Counter {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(4)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(4)
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        for byte in dst {
            self.0 = self.0.wrapping_add(1);
            *byte = self.0;
        }
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Counter {}

/// One of a few feeds, or the root key.
pub(crate) fn key(n: u8) -> FeedKey {
    if n & 7 == 7 { DEFAULT_ROOT_KEY } else { FeedKey::new([n & 7; 32]) }
}

pub(crate) fn split(role: Role) -> Split {
    match role {
        Role::Initiator => Split { tx: [1; 32], rx: [2; 32] },
        Role::Responder => Split { tx: [2; 32], rx: [1; 32] },
    }
}

fn nonce(role: Role) -> [u8; 24] {
    [role as u8 + 1; 24]
}

pub(crate) fn other(role: Role) -> Role {
    match role {
        Role::Initiator => Role::Responder,
        Role::Responder => Role::Initiator,
    }
}

/// What a Noise handshake would have left.
pub(crate) fn established(role: Role) -> Established {
    Established {
        remote_public_key: multifeed_proto::PeerKey::new([3; 32]),
        handshake_hash: HandshakeHash::new([4; 64]),
        split: split(role),
        nonce: nonce(role),
        remote_nonce: nonce(other(role)),
    }
}

/// A session whose Noise handshake is done.
pub(crate) fn session(role: Role, events: usize) -> Session {
    let mut config = Config::default();
    config.limits.events = events.max(1);
    Session::past_noise(role, config, Duration::ZERO, established(role))
}

/// The keystream that a session in this role encrypts with.
pub(crate) fn keystream(role: Role) -> Keystream {
    Keystream::new(&split(role).tx, &nonce(role))
}

/// What a remote says: something that means something, or anything.
#[derive(Debug, Clone, Arbitrary)]
pub(crate) enum Said {
    Open {
        id: u8,
        key: u8,
        proves: bool,
    },
    Close {
        id: u8,
        key: Option<u8>,
    },
    /// On channel 0, or on a root key's.
    Options {
        on: u8,
    },
    Handshake {
        on: u8,
    },
    List {
        on: u8,
        kind: u8,
        keys: Vec<u8>,
    },
    Json {
        on: u8,
        id: u8,
        text: Vec<u8>,
    },
    Frame {
        channel: u32,
        kind: u8,
        body: Vec<u8>,
    },
    Have {
        id: u8,
        start: u64,
        length: u64,
    },
    Block {
        id: u8,
        size: u16,
    },
    KeepAlives(u8),
    Bytes(Vec<u8>),
}

impl Said {
    /// Its bytes, from a remote in this role, before they are encrypted.
    pub(crate) fn put(&self, role: Role, wire: &mut Vec<u8>) {
        match self {
            Self::Open { id, key: n, proves } => {
                let mut body = vec![0x0a, 32];
                body.extend_from_slice(key(*n).discovery_key().as_bytes());
                body.extend_from_slice(&[0x12, 32]);
                body.extend_from_slice(&split(role).capability(&key(n.wrapping_add(u8::from(!proves)))));
                put(wire, (*id).into(), kind::OPEN, &body);
            }
            Self::Close { id, key: n } => {
                let mut body = Vec::new();
                if let Some(n) = n {
                    body.extend_from_slice(&[0x0a, 32]);
                    body.extend_from_slice(key(*n).discovery_key().as_bytes());
                }
                put(wire, (*id).into(), kind::CLOSE, &body);
            }
            Self::Options { on } => {
                let mut body = Vec::new();
                for name in NAMES {
                    body.extend_from_slice(&[0x0a, name.len() as u8]);
                    body.extend_from_slice(name.as_bytes());
                }
                put(wire, channel(*on), kind::OPTIONS, &body);
            }
            Self::Handshake { on } => put(wire, channel(*on), kind::EXTENSION, &[&[0], HANDSHAKE.as_bytes()].concat()),
            Self::List { on, kind, keys } => {
                let keys: Vec<_> = keys.iter().map(|n| format!("\"{}\"", key(*n))).collect();
                let id = kind % 3 + 1;
                let list = format!("[{}]", keys.join(","));
                let text = if id == 1 { format!("{{\"keys\":{list}}}") } else { list };
                put(wire, channel(*on), kind::EXTENSION, &[&[id], text.as_bytes()].concat());
            }
            Self::Json { on, id, text } => put(wire, channel(*on), kind::EXTENSION, &[&[id & 7], &text[..]].concat()),
            Self::Frame { channel, kind, body } => put(wire, channel % frame::CHANNELS, *kind, body),
            Self::Have { id, start, length } => {
                put_message(
                    wire,
                    *id,
                    &Message::Have(Have { start: *start, length: *length, bitfield: None, ack: false }),
                );
            }
            Self::Block { id, size } => {
                let value = Some(Bytes::from(vec![7; usize::from(*size)]));
                let data = multifeed_proto::Data { index: 1, value, nodes: Vec::new(), signature: Some([1; 64]) };
                put_message(wire, *id, &Message::Data(data));
            }
            Self::KeepAlives(count) => wire.resize(wire.len() + usize::from(*count), 0),
            Self::Bytes(bytes) => wire.extend_from_slice(bytes),
        }
    }

    /// What a sound remote says first, its root channel being `id`.
    pub(crate) fn greeting(id: u8) -> [Self; 3] {
        [Self::Open { id, key: 7, proves: true }, Self::Options { on: 0 }, Self::Handshake { on: 0 }]
    }
}

/// Mostly channel 0, and else one of the first.
fn channel(on: u8) -> u32 {
    if on < 128 { 0 } else { (on & 7).into() }
}

fn put(wire: &mut Vec<u8>, channel: u32, kind: u8, body: &[u8]) {
    frame::put_header(wire, channel, kind, body.len());
    wire.put_slice(body);
}

fn put_message(wire: &mut Vec<u8>, id: u8, message: &Message) {
    let mut body = BytesMut::new();
    message.encode(&mut body);
    put(wire, id.into(), message.kind(), &body);
}

/// What a caller asks of a session.
#[derive(Debug, Clone, Arbitrary)]
pub(crate) enum Told {
    Offer {
        root: u8,
        keys: Vec<u8>,
    },
    Request {
        root: u8,
        keys: Vec<u8>,
    },
    Open {
        token: u8,
        key: u8,
    },
    Close {
        token: u8,
    },
    Have {
        token: u8,
        start: u64,
        bitfield: Option<Vec<u8>>,
    },
    Ask {
        token: u8,
        index: u64,
        nodes: u64,
    },
    Extension {
        token: u8,
        id: u64,
        body: Vec<u8>,
    },
    OpenRoot {
        root: u8,
    },
    /// From 128 on it is left, and with it the channels of two tokens.
    CloseRoot {
        root: u8,
    },
    Register {
        on: u8,
        name: u8,
    },
    Speak {
        on: u8,
        name: u8,
        body: Vec<u8>,
    },
    Refuse {
        key: u8,
    },
    Ping,
}

/// One of a few multifeeds: each name has its key, the first the configuration's.
pub(crate) fn root(n: u8) -> Root {
    Root((n & 3).into())
}

fn root_key(n: u8) -> FeedKey {
    if n & 3 == 0 { DEFAULT_ROOT_KEY } else { FeedKey::new([100 + (n & 3); 32]) }
}

fn scope(on: u8) -> Scope {
    if on < 128 { Scope::Stream } else { Scope::Channel(Token((on & 7).into())) }
}

fn name(n: u8) -> String {
    // One of them is multifeed's own.
    if n & 7 == 7 { NAMES[1].to_owned() } else { format!("x{}", n & 7) }
}

impl Told {
    pub(crate) fn command(&self) -> Command {
        let keys = |keys: &[u8]| keys.iter().map(|n| key(*n)).collect();
        let send = |token: u8, message| Command::Send { token: Token((token & 7).into()), message };
        match self {
            Self::Offer { root: n, keys: list } => Command::Offer { root: root(*n), keys: keys(list), fields: None },
            Self::Request { root: n, keys: list } => Command::Request { root: root(*n), keys: keys(list) },
            Self::Open { token, key: n } => Command::Open { token: Token((token & 7).into()), key: key(*n) },
            Self::Close { token } => Command::Close { token: Token((token & 7).into()) },
            Self::Have { token, start, bitfield } => {
                let bitfield = bitfield.clone().map(Bytes::from);
                send(*token, Message::Have(Have { start: *start, length: 1, bitfield, ack: false }))
            }
            Self::Ask { token, index, nodes } => {
                send(*token, Message::Request(Request { index: *index, bytes: 0, hash: false, nodes: *nodes }))
            }
            Self::Extension { token, id, body } => {
                send(*token, Message::Extension { id: *id, body: Bytes::copy_from_slice(body) })
            }
            Self::OpenRoot { root: n } => Command::OpenRoot { root: root(*n), config: RootConfig::new(root_key(*n)) },
            Self::CloseRoot { root: n @ 128.. } => {
                let first = u64::from(n >> 2 & 7);
                Command::LeaveRoot { root: root(*n), feeds: Token(first)..=Token(first + 1) }
            }
            Self::CloseRoot { root: n } => Command::CloseRoot { root: root(*n) },
            Self::Register { on, name: n } => Command::RegisterExtension { scope: scope(*on), name: name(*n) },
            Self::Speak { on, name: n, body } => {
                Command::SendExtension { scope: scope(*on), name: name(*n).into(), body: Bytes::copy_from_slice(body) }
            }
            Self::Refuse { key: n } => Command::RefuseChannel { discovery_key: key(*n).discovery_key() },
            Self::Ping => Command::Ping,
        }
    }
}

/// What holds for the events of any session.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    ready: Vec<Root>,
    failed: Vec<Root>,
    opened: Vec<Root>,
    left: Vec<Root>,
    over: bool,
    open: Vec<Token>,
}

impl Watch {
    pub(crate) fn event(&mut self, event: &Event) {
        assert!(!self.over, "{event:?} after Closed");
        if let Event::Ready { root, .. }
        | Event::Manifest { root, .. }
        | Event::Replicate { root, .. }
        | Event::RootClosed { root, .. } = event
        {
            assert!(!self.left.contains(root), "{event:?} of a multifeed that was left");
        }
        match event {
            Event::Ready { root, .. } => {
                assert!(!self.ready.contains(root) && !self.failed.contains(root), "ready twice");
                self.ready.push(*root);
            }
            Event::RootClosed { root, error: Some(_) } => {
                assert!(!self.failed.contains(root), "failed twice");
                self.failed.push(*root);
            }
            Event::Manifest { root, keys, .. } | Event::Replicate { root, keys, .. } => {
                assert!(self.ready.contains(root) && !self.failed.contains(root), "{event:?} before Ready");
                assert!(keys.is_sorted_by(|a, b| a < b), "{event:?}");
            }
            Event::Opened { token } => {
                assert!(!self.open.contains(token), "opened twice");
                self.open.push(*token);
            }
            Event::Message { token, .. } => assert!(self.open.contains(token), "{event:?} on no open channel"),
            Event::ChannelClosed { token } => self.open.retain(|open| open != token),
            Event::Closed(result) => {
                self.over = true;
                if let Err(error) = result {
                    assert!(!error.code().is_empty() && !error.to_string().is_empty());
                }
            }
            _ => {}
        }
    }

    /// The caller closed a channel, which it may open again under the same token, or left a multifeed, and with it channels.
    pub(crate) fn told(&mut self, command: &Command) {
        match command {
            Command::Close { token } => self.open.retain(|open| open != token),
            Command::OpenRoot { root, .. } => self.opened.push(*root),
            Command::LeaveRoot { root, feeds } => {
                // One that is not there yet can come later.
                if *root == Root::FIRST || self.opened.contains(root) {
                    self.left.push(*root);
                }
                self.open.retain(|open| !feeds.contains(open));
            }
            _ => {}
        }
    }
}

/// An error that the remote can be blamed for, or the time.
pub(crate) fn is_no_fault_of_ours(error: &SessionError) -> bool {
    error.fault() != Fault::Local
}
