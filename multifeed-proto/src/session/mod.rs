//! The session: it routes between the machines, each of which owns its own data in its own file.

mod events;
mod recv;
mod send;
mod timer;

use alloc::vec::Vec;
use core::time::Duration;

use bytes::{BufMut, BytesMut};
use rand_core::CryptoRng;

use crate::channel::{Channels, LocalOpen, Owner};
use crate::config::{Config, Role};
use crate::crypto::capability::Split;
use crate::crypto::cipher::Keystream;
use crate::crypto::noise::{Established, Handshake};
use crate::error::{Phase, SessionError};
use crate::event::{Command, Event, Token};
use crate::exchange::{self, Exchange, Kind};
use crate::extension::Extensions;
use crate::key::{DiscoveryKey, FeedKey};
use crate::limits::Limits;
use crate::wire::frame::Frame;
use crate::wire::message::{self, Message, kind};
use crate::wire::{schema, varint};
use events::Events;
use recv::Input;
use send::Output;
use timer::{Due, Timers};

/// How long an initiator waits for the remote's Open of the root key's channel before it sends its own. A JS responder that
/// reads a foreign Open together with the last handshake message drops the stream before it ever says which root key it has;
/// one that is left to open first tells, so that we can too. A peer that waits for our Open is kept waiting no longer than this.
const ROOT_HOLD: Duration = Duration::from_millis(100);

/// One stream between two multifeeds.
///
/// A caller reads from its socket to the end of [`recv_buf`](Self::recv_buf), calls [`handle_input`](Self::handle_input), takes
/// [`poll_event`](Self::poll_event) until there is none, and [`poll_output`](Self::poll_output) to write; it calls
/// [`handle_timeout`](Self::handle_timeout) when [`poll_timeout`](Self::poll_timeout) has come. Any order of calls is safe, and
/// none is lost: what the caller does not take makes the session pause, not drop. Errors stick: after one, every
/// call tells the same, and the last event is [`Event::Closed`].
pub struct Session {
    role: Role,
    root_key: FeedKey,
    /// We opened the root key's channel, so that others may follow.
    root_opened: bool,
    state: State,
    input: Input,
    channels: Channels,
    exchange: Exchange,
    timers: Timers,
    strays: u64,
    /// The caller's commands until the root key's channel is opened.
    waiting: Vec<Command>,
    waiting_bytes: usize,
    /// The caller wants the root key's channel closed, once the session is ready.
    close_root: bool,
    /// The remote ended its half.
    ended: bool,
    ended_told: bool,
    closed: Option<Result<(), SessionError>>,
    closed_told: bool,
    io: Io,
}

/// What the machines speak to: the remote and the caller.
struct Io {
    output: Output,
    events: Events,
    extensions: Extensions,
    limits: Limits,
}

enum State {
    Noise(Handshake),
    Open(Split),
    Over,
}

/// What went over a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Bytes received, handshake and framing included.
    pub bytes_in: u64,
    /// Bytes handed out to be sent, handshake and framing included.
    pub bytes_out: u64,
    /// Messages received.
    pub messages_in: u64,
    /// Messages queued to be sent.
    pub messages_out: u64,
}

impl Session {
    /// Starts a session at the time `now`. Everything random that it will ever need is drawn from `rng` here.
    pub fn new(role: Role, config: Config, now: Duration, rng: &mut impl CryptoRng) -> Self {
        let mut output = Output::default();
        let handshake = Handshake::new(role, config.static_key.as_ref(), rng)
            .and_then(|mut handshake| handshake.start(&mut output.handshake).map(|()| handshake));
        let (state, closed) = match handshake {
            Ok(handshake) => (State::Noise(handshake), None),
            Err(error) => (State::Over, Some(Err(SessionError::Handshake(error)))),
        };
        Self { closed, ..Self::start(role, config, now, state, output) }
    }

    /// Starts a session whose Noise handshake is done, so that fuzzers get past it.
    #[cfg(feature = "fuzzing")]
    #[doc(hidden)]
    pub fn past_noise(role: Role, config: Config, now: Duration, established: Established) -> Self {
        let mut session = Self::start(role, config, now, State::Over, Output::default());
        session.establish(established);
        session
    }

    fn start(role: Role, config: Config, now: Duration, state: State, output: Output) -> Self {
        let mut extensions = Extensions::default();
        for kind in Kind::ALL {
            extensions.add(kind.name());
        }
        Self {
            role,
            root_key: config.root_key,
            root_opened: false,
            state,
            input: Input::new(),
            channels: Channels::new(config.root_key.discovery_key()),
            exchange: Exchange::new(&config),
            timers: Timers::new(&config, now),
            strays: 0,
            waiting: Vec::new(),
            waiting_bytes: 0,
            close_root: false,
            ended: false,
            ended_told: false,
            closed: None,
            closed_told: false,
            io: Io { output, events: Events::default(), extensions, limits: config.limits },
        }
    }

    /// The buffer to whose end bytes from the stream are to be appended, with room for a read. `None` while the session is
    /// paused, until events are polled or output is taken, and after its end.
    pub fn recv_buf(&mut self) -> Option<&mut BytesMut> {
        if self.closed.is_some() || self.ended || self.is_paused() {
            return None;
        }
        Some(self.input.buffer())
    }

    /// Bytes were appended to [`recv_buf`](Self::recv_buf) by the time `now`: decrypts them in place and parses what is whole.
    /// An error is the session's end, and told by [`Event::Closed`] as well.
    pub fn handle_input(&mut self, now: Duration) -> Result<(), SessionError> {
        self.timers.set(now);
        if self.closed.is_some() {
            self.input.clear();
        } else {
            if self.input.count() > 0 {
                self.timers.received();
            }
            self.advance_handshake();
            if matches!(self.state, State::Open(_)) {
                self.input.take_frames(self.io.limits.message_bytes);
            }
            self.process();
        }
        match &self.closed {
            Some(Err(error)) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// The remote ended its half of the stream. After whole messages of a session that is ready this is [`Event::RemoteEnded`],
    /// otherwise an error.
    pub fn handle_eof(&mut self) {
        self.ended = true;
        self.process();
    }

    /// It is `now`: does what is due. Never too early, and late is harmless.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.timers.set(now);
        let phase = self.phase();
        while self.closed.is_none()
            && let Some(due) = self.timers.due(phase)
        {
            match due {
                Due::Handshake => self.fail(SessionError::Timeout(phase)),
                // While we do not read, the remote's silence is our own.
                Due::Idle if self.is_paused() => self.timers.received(),
                Due::Idle => self.fail(SessionError::Timeout(phase)),
                Due::OpenRoot => {
                    if let Err(error) = self.open_root() {
                        self.fail(error);
                    }
                }
                Due::KeepAlive => {
                    // What waits already will do as one.
                    if self.io.output.len() == 0 {
                        self.io.output.keep_alive();
                    }
                    self.timers.sent();
                }
            }
            // A timeout of zero would be due again at once.
            if self.timers.due(phase) == Some(due) {
                break;
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called, on the caller's clock.
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.closed.is_some() { None } else { self.timers.next(self.phase()) }
    }

    /// The next event. After [`Event::Closed`] there is none.
    pub fn poll_event(&mut self) -> Option<Event> {
        if self.io.events.is_empty() {
            self.process();
        }
        if let Some(event) = self.io.events.pop() {
            return Some(event);
        }
        let result = self.closed.clone()?;
        if core::mem::replace(&mut self.closed_told, true) { None } else { Some(Event::Closed(result)) }
    }

    /// Moves what is to be sent to the end of `out`, without a copy where that is empty. `false` when there was nothing.
    pub fn poll_output(&mut self, out: &mut BytesMut) -> bool {
        let keep = 2 * self.io.limits.output_bytes;
        let taken = self.io.output.take(out, keep);
        if taken {
            self.timers.sent();
        }
        taken
    }

    /// The session is over, and every last byte was taken: time to shut our half of the stream.
    pub fn output_finished(&self) -> bool {
        self.closed.is_some() && self.io.output.len() == 0
    }

    /// Bytes of commands (by [`Command::size`]) that the session will still queue. One message past it is accepted, so that any
    /// message can go at all. 0 after the end.
    pub fn send_credit(&self) -> usize {
        if self.closed.is_some() {
            return 0;
        }
        let queued = self.io.output.len() + self.waiting_bytes + 67 * self.exchange.waiting_keys();
        self.io.limits.output_bytes.saturating_sub(queued)
    }

    /// What went over the stream so far.
    pub fn totals(&self) -> Totals {
        Totals {
            bytes_in: self.input.bytes,
            bytes_out: self.io.output.bytes,
            messages_in: self.input.messages,
            messages_out: self.io.output.messages,
        }
    }

    /// Offers feeds to the remote (MANIFEST), once the session is ready. An empty offer is sent too. What was offered
    /// once can be requested until the end.
    pub fn offer_feeds(&mut self, keys: &[FeedKey]) {
        if self.closed.is_none() {
            self.exchange.offer(keys, &mut self.io);
        }
    }

    /// Requests feeds that the remote offered (REQUEST_FEEDS). An empty request is sent too: JS peers wait for it, and
    /// so does our own answer to a remote that requests nothing.
    pub fn request_feeds(&mut self, keys: &[FeedKey]) {
        if self.closed.is_none() {
            self.exchange.request(keys, &mut self.io);
        }
    }

    /// Opens a feed's channel. [`Event::Opened`] follows when the remote opened it too, and proved that it knows the key;
    /// [`Event::ChannelClosed`] where it did not prove it, or where the key's channel is open already under another token. A token
    /// in use is the caller's mistake, and the call does nothing.
    pub fn open_channel(&mut self, token: Token, key: FeedKey) {
        if !self.root_opened {
            return self.wait(Command::Open { token, key });
        }
        let State::Open(split) = &self.state else { return };
        match self.channels.open(Owner::Feed(token), key, split) {
            LocalOpen::Open { id, discovery_key, complete } => {
                self.io.open(id, discovery_key, split.capability(&key));
                if complete {
                    self.io.events.push(Event::Opened { token });
                }
            }
            LocalOpen::Unproven { id, discovery_key } => {
                self.io.close(id, Some(discovery_key));
                self.io.events.push(Event::ChannelClosed { token });
            }
            LocalOpen::KeyInUse => self.io.events.push(Event::ChannelClosed { token }),
            LocalOpen::TokenInUse => {}
            LocalOpen::Exhausted => {
                self.fail(SessionError::limit("channel ids", crate::wire::frame::CHANNELS as usize))
            }
        }
    }

    /// Closes a channel. Nothing more comes from it, and the token is free.
    pub fn close_channel(&mut self, token: Token) {
        if !self.root_opened {
            return self.wait(Command::Close { token });
        }
        if let Some(id) = self.channels.close(Owner::Feed(token)) {
            self.io.close(id, None);
        }
    }

    /// Sends a message on a channel. On one that we have not open it is dropped: the remote may just have closed it. One
    /// that JS peers would refuse for its size ends the session with a local error.
    pub fn send(&mut self, token: Token, message: &Message) {
        if !self.root_opened {
            return self.wait(Command::Send { token, message: message.clone() });
        }
        let Some(id) = self.channels.local_id(token) else { return };
        let len = message.encoded_len();
        if len > self.io.limits.message_bytes {
            let text = alloc::format!("a message of {len} bytes is more than peers accept");
            return self.fail(SessionError::Local(text));
        }
        message.encode(self.io.output.message(id, message.kind(), len));
    }

    /// Closes the root key's channel, once the session is ready: what a JS side that is not live does when it ends.
    pub fn close_root(&mut self) {
        self.close_root = true;
        self.close_root_when_ready();
    }

    /// Ends the session cleanly: what is queued still goes out, nothing more is taken in.
    pub fn finish(&mut self) {
        self.end(Ok(()));
    }

    /// Ends the session with an error of the caller's, at once: what is queued still goes out.
    pub fn abort(&mut self, error: SessionError) {
        self.fail(error);
    }

    /// Does what a command says.
    pub fn apply(&mut self, command: Command) {
        match command {
            Command::Offer(keys) => self.offer_feeds(&keys),
            Command::Request(keys) => self.request_feeds(&keys),
            Command::Open { token, key } => self.open_channel(token, key),
            Command::Send { token, message } => self.send(token, &message),
            Command::Close { token } => self.close_channel(token),
            Command::CloseRoot => self.close_root(),
            Command::Finish => self.finish(),
            Command::Abort(error) => self.abort(error),
        }
    }

    fn wait(&mut self, command: Command) {
        if self.closed.is_none() {
            self.waiting_bytes += command.size();
            self.waiting.push(command);
        }
    }

    fn phase(&self) -> Phase {
        match &self.state {
            State::Noise(_) => Phase::Noise,
            _ if self.exchange.is_ready() => Phase::Ready,
            _ => Phase::Exchange,
        }
    }

    /// Nothing more is read until the caller took events, or output.
    fn is_paused(&self) -> bool {
        self.input.is_waiting() || self.is_full() || self.io.output.answers() > self.io.limits.reply_bytes
    }

    fn is_full(&self) -> bool {
        self.io.events.len() >= self.io.limits.events || self.io.events.bytes() > self.io.limits.event_bytes
    }

    fn fail(&mut self, error: SessionError) {
        self.end(Err(error));
    }

    fn end(&mut self, result: Result<(), SessionError>) {
        if self.closed.is_none() {
            self.closed = Some(result);
            self.state = State::Over;
            self.channels = Channels::new(self.root_key.discovery_key());
            self.waiting = Vec::new();
            self.input.clear();
        }
    }

    fn advance_handshake(&mut self) {
        let State::Noise(handshake) = &mut self.state else { return };
        match handshake.receive(&mut self.input.buf, &mut self.io.output.handshake) {
            Ok(None) => self.input.counted(),
            Ok(Some(established)) => self.establish(established),
            Err(error) => self.fail(error.into()),
        }
    }

    fn establish(&mut self, established: Established) {
        let Established { remote_public_key, handshake_hash, split, nonce, remote_nonce } = established;
        self.io.output.encrypt_with(Keystream::new(&split.tx, &nonce));
        self.input.decrypt_with(Keystream::new(&split.rx, &remote_nonce));
        self.io.events.push(Event::Connected { remote_public_key, handshake_hash });
        self.state = State::Open(split);
        let opened = match self.role {
            Role::Initiator => {
                self.timers.hold_root(ROOT_HOLD);
                Ok(())
            }
            Role::Responder => self.open_root(),
        };
        if let Err(error) = opened {
            self.fail(error);
        }
    }

    /// Opens the root key's channel, before any other: JS takes a channel that it has not opened itself for another root key.
    fn open_root(&mut self) -> Result<(), SessionError> {
        let State::Open(split) = &self.state else { return Ok(()) };
        self.root_opened = true;
        self.timers.root_opened();
        match self.channels.open(Owner::Root, self.root_key, split) {
            LocalOpen::Open { id, discovery_key, complete } => {
                self.io.open(id, discovery_key, split.capability(&self.root_key));
                if complete {
                    self.verify_root();
                }
            }
            LocalOpen::Unproven { discovery_key, .. } => return Err(SessionError::Capability(discovery_key)),
            LocalOpen::TokenInUse | LocalOpen::KeyInUse | LocalOpen::Exhausted => {}
        }
        self.waiting_bytes = 0;
        for command in core::mem::take(&mut self.waiting) {
            self.apply(command);
        }
        Ok(())
    }

    /// The remote proved that it knows the root key.
    fn verify_root(&mut self) {
        self.exchange.verified(&mut self.io);
        self.check_ready();
    }

    /// Handles what has arrived, as far as the caller has room for what comes of it.
    fn process(&mut self) {
        if let State::Noise(_) = &self.state {
            return self.handle_end();
        }
        // Output does not stop it: answers are no longer than what they answer, and what arrived is bounded. So polling events
        // is all that it takes to go on.
        while self.closed.is_none() && !self.is_full() {
            match self.input.next(self.io.limits.message_bytes) {
                Ok(Some(frame)) => {
                    self.io.events.read(self.input.consumed);
                    let before = self.io.output.len();
                    if let Err(error) = self.handle_frame(frame) {
                        self.fail(error);
                    }
                    self.io.output.answered(before);
                }
                Ok(None) => return self.handle_end(),
                Err(error) => self.fail(error.into()),
            }
        }
    }

    /// Everything that arrived was handled; was it all there is?
    fn handle_end(&mut self) {
        if !self.ended || self.ended_told {
            return;
        }
        self.ended_told = true;
        match self.phase() {
            Phase::Ready if !self.input.is_partial() => {
                self.timers.ended();
                self.io.events.push(Event::RemoteEnded);
            }
            phase => self.fail(SessionError::Disconnected(phase)),
        }
    }

    fn handle_frame(&mut self, frame: Frame) -> Result<(), SessionError> {
        match (frame.channel, frame.kind) {
            (id, kind::OPEN) => self.handle_open(id, &frame),
            (id, kind::CLOSE) => self.handle_close(id, &frame),
            (0, kind::OPTIONS) => {
                let options = message::Options::decode(&frame.body, &self.io.limits)?;
                self.io.extensions.update(options.extensions);
                Ok(())
            }
            (0, kind::EXTENSION) => {
                let (id, body) = message::extension(frame.body)?;
                let Some(kind) = self.io.extensions.name(id).and_then(Kind::from_name) else { return self.stray() };
                self.handle_exchange(kind, &body)
            }
            (id, kind) => {
                let Some(Owner::Feed(token)) = self.channels.route(id) else { return self.stray() };
                let Some(message) = Message::decode(kind, frame.body, &self.io.limits)? else { return self.stray() };
                self.io.events.push(Event::Message { token, message });
                Ok(())
            }
        }
    }

    fn handle_open(&mut self, id: u32, frame: &Frame) -> Result<(), SessionError> {
        let State::Open(split) = &self.state else { return Ok(()) };
        let open: schema::Open = message::parse("Open", &frame.body)?;
        let discovery_key = open.discovery_key.ok_or(message::missing("Open", "discoveryKey"))?;
        let discovery_key = DiscoveryKey::new(message::array("Open", "discoveryKey", &discovery_key)?);
        let limit = self.io.limits.channels;
        let opened = self.channels.remote_open(id, discovery_key, open.capability, split, limit);
        if let Err(SessionError::RootKeyMismatch { .. }) = &opened
            && !self.root_opened
        {
            // So that the remote can tell as well.
            self.waiting.clear();
            self.open_root()?;
        }
        match opened? {
            Some(Owner::Root) => self.verify_root(),
            Some(Owner::Feed(token)) => self.io.events.push(Event::Opened { token }),
            None if !self.root_opened => return self.open_root(),
            None => {}
        }
        Ok(())
    }

    fn handle_close(&mut self, id: u32, frame: &Frame) -> Result<(), SessionError> {
        let close: schema::Close = message::parse("Close", &frame.body)?;
        let discovery_key = match close.discovery_key {
            Some(bytes) => Some(DiscoveryKey::new(message::array("Close", "discoveryKey", &bytes)?)),
            None => None,
        };
        let closed = self.channels.remote_close(id, discovery_key);
        if let Some(id) = closed.answer {
            self.io.close(id, None);
        }
        match closed.owner {
            Some(Owner::Root) => self.io.events.push(Event::RootClosed),
            Some(Owner::Feed(token)) => self.io.events.push(Event::ChannelClosed { token }),
            None => {}
        }
        Ok(())
    }

    fn handle_exchange(&mut self, kind: Kind, body: &[u8]) -> Result<(), SessionError> {
        let limits = self.io.limits.clone();
        self.exchange.receive(kind, body, &limits, &mut self.io)?;
        self.check_ready();
        Ok(())
    }

    fn check_ready(&mut self) {
        if self.exchange.is_ready() {
            self.timers.ready();
            self.close_root_when_ready();
        }
    }

    fn close_root_when_ready(&mut self) {
        if self.close_root && self.exchange.is_ready() {
            self.close_root = false;
            if let Some(id) = self.channels.close(Owner::Root) {
                self.io.close(id, None);
            }
        }
    }

    /// A message that means nothing to us: JS drops it, and so do we, but not without end.
    fn stray(&mut self) -> Result<(), SessionError> {
        self.strays += 1;
        let limit = self.io.limits.stray_messages;
        if self.strays > limit { Err(SessionError::Limit { what: "stray_messages", limit }) } else { Ok(()) }
    }
}

impl core::fmt::Debug for Session {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Session")
            .field("phase", &self.phase())
            .field("closed", &self.closed)
            .field("totals", &self.totals())
            .finish_non_exhaustive()
    }
}

impl Io {
    fn open(&mut self, id: u32, discovery_key: DiscoveryKey, capability: [u8; 32]) {
        let open = schema::Open {
            discovery_key: Some(discovery_key.as_bytes().to_vec()),
            capability: Some(capability.to_vec()),
        };
        self.output.put(id, kind::OPEN, &open);
    }

    fn close(&mut self, id: u32, discovery_key: Option<DiscoveryKey>) {
        let close = schema::Close { discovery_key: discovery_key.map(|key| key.as_bytes().to_vec()) };
        self.output.put(id, kind::CLOSE, &close);
    }

    /// The id of a stream extension of ours, whose name the remote has heard by then.
    fn extension(&mut self, kind: Kind) -> u64 {
        if let Some(names) = self.extensions.announce() {
            let options = schema::Options { extensions: names.to_vec(), ack: None };
            self.output.put(0, kind::OPTIONS, &options);
        }
        // All four were added in the constructor.
        self.extensions.id(kind.name()).unwrap_or(u64::MAX >> 8)
    }
}

impl exchange::Sink for Io {
    fn handshake(&mut self, json: &[u8]) {
        let id = self.extension(Kind::Handshake);
        let buf = self.output.message(0, kind::EXTENSION, varint::len(id) + json.len());
        varint::encode(id, buf);
        buf.put_slice(json);
    }

    fn keys(&mut self, kind: Kind, keys: &[FeedKey]) {
        let id = self.extension(kind);
        exchange::put_keys(kind, keys, self.output.frames(), |buf, len| {
            crate::wire::frame::put_header(buf, 0, kind::EXTENSION, varint::len(id) + len);
            varint::encode(id, buf);
        });
    }

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }
}
