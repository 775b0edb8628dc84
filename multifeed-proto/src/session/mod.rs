//! The session: it routes between the machines, each of which owns its own data in its own file.

mod channels;
mod events;
mod io;
mod partial;
mod recv;
mod route;
mod send;
mod timer;
mod unproven;
mod waiting;

use alloc::boxed::Box;
use core::ops::RangeInclusive;
use core::time::Duration;

use bytes::BytesMut;
use rand_core::CryptoRng;

use crate::channel::{Channels, Owner};
use crate::config::{Config, RootConfig};
use crate::crypto::capability::Split;
#[cfg(feature = "fuzzing")]
use crate::crypto::noise::Established;
use crate::crypto::noise::Handshake;
use crate::error::ApiMisuse;
use crate::error::{self, Phase, SessionError};
use crate::event::{Command, Event};
use crate::exchange::{Kind, ManifestFields};
use crate::extension::Extensions;
use crate::identity::Role;
use crate::ids::{Root, Token};
use crate::key::{FeedKey, PeerKey};
use crate::machine::Machine;
use crate::roots::Roots;
use crate::trace::Tracer;
use events::Events;
use io::Io;
use partial::Partial;
use recv::Input;
use send::Output;
use timer::{Due, Timers};
use waiting::Waiting;

/// One stream between two multifeeds.
///
/// A caller reads from its socket to the end of [`recv_buf`](Self::recv_buf), calls [`handle_input`](Self::handle_input), takes
/// [`poll_event`](Self::poll_event) until there is none, and [`poll_output`](Self::poll_output) to write; it calls
/// [`handle_timeout`](Self::handle_timeout) when [`poll_timeout`](Self::poll_timeout) has come. Any order of calls is safe, and
/// none is lost: what the caller does not take makes the session pause, not drop. Errors stick: after one, every
/// call tells the same, and the last event is [`Event::Closed`]. A call that does not fit those before it does nothing, and returns an
/// [`ApiMisuse`].
pub struct Session {
    role: Role,
    state: State,
    phase: Phase,
    input: Input,
    channels: Channels,
    roots: Roots,
    timers: Timers,
    /// How long a multifeed may take to be ready.
    patience: Option<Duration>,
    /// How long our handshake is held for the remote's.
    greeting_hold: Duration,
    authenticate: bool,
    discover: bool,
    remote_public_key: Option<PeerKey>,
    /// The remote knows a key of ours, or was accepted.
    proven: bool,
    /// It was let in, and has to prove itself, whether or not a root key was named for the session's start.
    admitted: bool,
    /// Bytes of messages until then.
    unproven: u64,
    strays: u64,
    /// The message that is arriving, as it was last reported.
    partial: Partial,
    /// The caller's commands until channels may be opened.
    waiting: Waiting,
    /// The remote ended its half.
    ended: bool,
    ended_told: bool,
    closed: Option<Result<(), SessionError>>,
    closed_told: bool,
    io: Io,
}

enum State {
    Noise(Handshake),
    Open(Split),
    Over,
}

/// What went over a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
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
        let timers = Timers::new(&config, now);
        let deadline = config.handshake_timeout.map(|timeout| now.saturating_add(timeout));
        let extensions = {
            let mut extensions = Extensions::default();
            for kind in Kind::ALL {
                extensions.listen(kind.name());
            }
            for name in &config.extensions {
                if Kind::from_name(name).is_none() && extensions.has_room_for(name, &config.limits) {
                    extensions.add(name);
                }
            }
            extensions
        };
        Self {
            role,
            state,
            phase: Phase::START,
            input: Input::new(),
            channels: Channels::new(),
            roots: Roots::new(config.root, deadline, &config.limits),
            timers,
            patience: config.handshake_timeout,
            greeting_hold: config.greeting_hold,
            authenticate: config.authenticate,
            discover: config.discover,
            remote_public_key: None,
            proven: false,
            admitted: false,
            unproven: 0,
            strays: 0,
            partial: Partial::default(),
            waiting: Waiting::default(),
            ended: false,
            ended_told: false,
            closed: None,
            closed_told: false,
            io: Io { output, events: Events::default(), extensions, limits: config.limits, tracer: None, now },
        }
    }

    /// Returns the buffer to whose end the caller appends bytes from the stream, with room for a read. `None` while the session is
    /// paused, until events are polled or output is taken, and after its end.
    pub fn recv_buf(&mut self) -> Option<&mut BytesMut> {
        if self.closed.is_some() || self.ended || self.is_paused() {
            return None;
        }
        Some(self.input.buffer())
    }

    /// Decrypts in place what was appended to [`recv_buf`](Self::recv_buf) by the time `now`, and parses what is whole.
    /// An error is the session's end, and [`Event::Closed`] reports it as well.
    pub fn handle_input(&mut self, now: Duration) -> Result<(), SessionError> {
        self.set_time(now);
        if self.closed.is_some() {
            self.input.clear();
        } else {
            let new = self.input.count();
            if new > 0 {
                self.timers.received(new);
            }
            self.advance_handshake();
            if matches!(self.state, State::Open(_)) {
                self.input.take_frames(self.message_limit());
            }
            self.process();
            self.timers.arriving(self.arriving().map(|(start, came, _)| (start, came)));
        }
        match &self.closed {
            Some(Err(error)) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Notes that the remote ended its half of the stream. After whole messages of a session that is ready this is [`Event::RemoteEnded`],
    /// otherwise an error.
    pub fn handle_eof(&mut self) {
        self.ended = true;
        self.process();
    }

    /// Does what is due at `now`. Never too early, and late is harmless.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.set_time(now);
        while self.closed.is_none()
            && let Some(due) = self.timers.due(self.phase, self.roots.deadline())
        {
            match due {
                Due::Handshake => self.fail(SessionError::Timeout(self.phase)),
                Due::Root => self.fail_late_roots(),
                // While we do not read, the remote's silence is our own.
                Due::Idle if self.is_paused() => self.timers.received(0),
                Due::Idle => self.fail(SessionError::Timeout(self.phase)),
                Due::Slow if self.is_paused() => self.timers.not_read(),
                Due::Slow => {
                    let (bytes, waited) = self.timers.arrived();
                    self.fail(SessionError::SlowMessage { bytes, waited });
                }
                // What waits here, for the caller or for a slow stream, stands in nobody else's way.
                Due::Stall if self.is_paused() || self.io.output.len() > 0 => self.timers.moved(),
                Due::Stall => self.fail(SessionError::Stalled { waited: self.timers.stood_still() }),
                Due::Hold => {
                    self.timers.held();
                    self.roots.waited();
                    self.open_roots();
                }
                Due::OtherRoot => self.fail_other_root(),
                Due::Greeting => self.release(),
                Due::KeepAlive => {
                    // What waits already will do as one.
                    if self.io.output.len() == 0 {
                        self.io.output.keep_alive();
                    }
                    self.timers.sent();
                    self.input.rest();
                }
            }
            // A timeout of zero would be due again at once.
            if self.timers.due(self.phase, self.roots.deadline()) == Some(due) {
                break;
            }
        }
    }

    /// Returns when to call [`handle_timeout`](Self::handle_timeout), on the caller's clock.
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.closed.is_some() { None } else { self.timers.next(self.phase, self.roots.deadline()) }
    }

    /// Returns the next event. After [`Event::Closed`] there is none.
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

    /// Moves what waits to be sent to the end of `out`, without a copy if that is empty. `false` when there was nothing.
    pub fn poll_output(&mut self, out: &mut BytesMut) -> bool {
        let keep = 2 * self.io.limits.output_bytes;
        if self.io.output.has_messages() {
            self.timers.moved();
        }
        let taken = self.io.output.take(out, keep);
        if taken {
            self.timers.sent();
        }
        taken
    }

    /// Gives back memory that is kept for what may be sent: for a session on which nothing moves for a while.
    pub fn shrink(&mut self) {
        self.io.output.shrink();
    }

    /// Returns whether the session is over, and every last byte was taken: time to shut our half of the stream.
    pub fn output_finished(&self) -> bool {
        self.closed.is_some() && self.io.output.len() == 0
    }

    /// Returns how many bytes of commands (by [`Command::size`]) the session will still queue. One message past it is accepted, so that any
    /// message can go at all. 0 after the end.
    pub fn send_credit(&self) -> usize {
        if self.closed.is_some() {
            return 0;
        }
        let queued = self.io.output.len() + self.waiting.bytes() + 67 * self.roots.waiting_keys();
        self.io.limits.output_bytes.saturating_sub(queued)
    }

    /// Returns how many bytes wait to be taken by [`poll_output`](Self::poll_output).
    pub fn unsent(&self) -> usize {
        self.io.output.len()
    }

    /// Returns what went over the stream so far.
    pub fn totals(&self) -> Totals {
        Totals {
            bytes_in: self.input.bytes,
            bytes_out: self.io.output.bytes,
            messages_in: self.input.messages,
            messages_out: self.io.output.messages,
        }
    }

    /// Accepts the remote's static key: the session goes on, as [`Config::authenticate`] made it wait. The time that multifeeds
    /// have to become ready begins anew.
    ///
    /// # Errors
    ///
    /// [`ApiMisuse::WrongPhase`] if the session does not wait for that: before [`Event::Connected`], after an earlier call, and without
    /// [`Config::authenticate`].
    pub fn accept(&mut self) -> Result<(), ApiMisuse> {
        if self.is_held("accept")? {
            self.proven = true;
            self.go_on();
        }
        Ok(())
    }

    /// Goes on as after [`accept`](Self::accept), with a remote that stays a stranger until it proves that it knows a key of ours. The caller only
    /// knows who it says it is. [`Limits::unproven_bytes`](crate::Limits::unproven_bytes) bounds it also if [`Config::root`] named no root key.
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept).
    pub fn admit(&mut self) -> Result<(), ApiMisuse> {
        if self.is_held("admit")? {
            self.admitted = true;
            self.go_on();
        }
        Ok(())
    }

    /// Whether the session waits for the caller's word on the remote's key; not after its end.
    fn is_held(&self, call: &'static str) -> Result<bool, ApiMisuse> {
        match self.phase {
            _ if self.closed.is_some() => Ok(false),
            Phase::Held => Ok(true),
            phase => Err(ApiMisuse::WrongPhase { call, phase }),
        }
    }

    fn go_on(&mut self) {
        self.roots.wait_until(self.patience.map(|timeout| self.timers.now().saturating_add(timeout)));
        self.begin();
    }

    /// Refuses the remote's static key: the session ends with [`SessionError::Refused`]. The remote hears nothing else.
    ///
    /// # Errors
    ///
    /// [`ApiMisuse::WrongPhase`] before [`Event::Connected`]: there is nothing to refuse.
    pub fn refuse(&mut self) -> Result<(), ApiMisuse> {
        match self.remote_public_key {
            _ if self.closed.is_some() => {}
            Some(remote_public_key) => self.fail(SessionError::Refused { remote_public_key }),
            None => return Err(ApiMisuse::WrongPhase { call: "refuse", phase: self.phase }),
        }
        Ok(())
    }

    /// Syncs one more multifeed over this stream, with an exchange of its own; corestore-multifeed does so. [`Event::Ready`]
    /// tells when the remote proved that it knows the root key, [`Event::RootClosed`] if it does not in the time that
    /// [`Config::handshake_timeout`] gives: the others, and the stream, go on.
    ///
    /// # Errors
    ///
    /// [`ApiMisuse::RootInUse`] for a name that was used before, also of one that is over; [`ApiMisuse::RootKeyInUse`] for a key that is
    /// open.
    pub fn open_root(&mut self, root: Root, config: RootConfig) -> Result<(), ApiMisuse> {
        if self.closed.is_none() {
            let deadline = self.patience.map(|timeout| self.timers.now().saturating_add(timeout));
            self.roots.add(root, config, deadline, &self.io.limits)?;
            self.open_roots();
        }
        Ok(())
    }

    /// Offers feeds of a multifeed to the remote (MANIFEST), once that is ready. An empty offer is sent too. What was offered
    /// once can be requested until the end.
    ///
    /// # Errors
    ///
    /// [`ApiMisuse::UnknownRoot`] if no such multifeed was ever opened here.
    pub fn offer_feeds(&mut self, root: Root, keys: &[FeedKey]) -> Result<(), ApiMisuse> {
        self.offer_feeds_with(root, keys, None)
    }

    /// As [`offer_feeds`](Self::offer_feeds), with what the remote's application gets to know of the feeds. A list that takes several
    /// messages has it in each.
    ///
    /// # Errors
    ///
    /// As [`offer_feeds`](Self::offer_feeds).
    pub fn offer_feeds_with(
        &mut self,
        root: Root,
        keys: &[FeedKey],
        fields: Option<&ManifestFields>,
    ) -> Result<(), ApiMisuse> {
        if self.closed.is_none() {
            let offered = self.with_voice(root, |exchange, voice| exchange.offer(keys, fields, voice));
            offered.ok_or(ApiMisuse::UnknownRoot(root))?;
        }
        Ok(())
    }

    /// Requests feeds that the remote offered (REQUEST_FEEDS). An empty request is sent too: JS peers wait for it, and
    /// so does our own answer to a remote that requests nothing.
    ///
    /// # Errors
    ///
    /// As [`offer_feeds`](Self::offer_feeds).
    pub fn request_feeds(&mut self, root: Root, keys: &[FeedKey]) -> Result<(), ApiMisuse> {
        if self.closed.is_none() {
            let requested = self.with_voice(root, |exchange, voice| exchange.request(keys, voice));
            requested.ok_or(ApiMisuse::UnknownRoot(root))?;
        }
        Ok(())
    }

    /// Sends a keep-alive now, whenever the next one would be due. There are none during the handshake.
    pub fn ping(&mut self) {
        if matches!(self.phase, Phase::Exchange | Phase::Ready) {
            self.io.output.keep_alive();
        }
    }

    /// Closes a root key's channel, once its multifeed is ready: what a JS side that is not live does when it ends. Feeds go on,
    /// and so do the lists with a multifeed 6.
    pub fn close_root(&mut self, root: Root) {
        if let Some(entry) = self.roots.get(root) {
            entry.close = true;
            self.close_root_when_ready(root);
        }
    }

    /// Takes a multifeed off the stream: closes its root key's channel, and those of `feeds` that are open. Nothing more is reported of
    /// either. The others go on, and so does the stream. A remote whose lists of it go over the root key's own channel takes it
    /// for that multifeed's end. One that speaks as multifeed 6 has no word for it, and stays until the stream ends. The key can be
    /// opened again under another name, if it is over for the remote too. A stream that ends before any multifeed was ready ends with
    /// an error if [`Config::root`] named one, also if that one was left.
    pub fn leave_root(&mut self, root: Root, feeds: RangeInclusive<Token>) {
        self.io.events.forget_root(root);
        // Those of channels that the remote has closed, too.
        self.io.events.forget(&feeds);
        if self.closed.is_some() {
            return;
        }
        self.waiting.forget(&feeds);
        if let Some(entry) = self.roots.get(root) {
            // The remote's answer to the Close is nobody's.
            entry.exchange.fail();
        }
        self.roots.over(root);
        let owner = Owner::Root(root);
        if let Some(id) = self.channels.close(owner) {
            self.io.close(Some(owner), id, None);
        }
        for owner in self.channels.tokens(feeds).into_iter().map(Owner::Feed) {
            if let Some(id) = self.channels.close(owner) {
                self.io.close(Some(owner), id, None);
            }
        }
        self.open_roots();
    }

    /// Returns whether nothing more comes of a multifeed's lists: it failed, it was left, or the remote closed the channel that they went
    /// over. With a multifeed 6 they go on when the root key's channel is closed.
    pub fn root_is_over(&self, root: Root) -> bool {
        self.roots.is_over(root)
    }

    /// Gives each message, in and out, to a tracer, or to none.
    pub fn set_tracer(&mut self, tracer: Option<Box<dyn Tracer>>) {
        self.io.tracer = tracer;
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
    ///
    /// # Errors
    ///
    /// As the method of that name.
    pub fn apply(&mut self, command: Command) -> Result<(), ApiMisuse> {
        match command {
            Command::Accept => self.accept()?,
            Command::Admit => self.admit()?,
            Command::Refuse => self.refuse()?,
            Command::OpenRoot { root, config } => self.open_root(root, config)?,
            Command::Offer { root, keys, fields } => self.offer_feeds_with(root, &keys, fields.as_ref())?,
            Command::Request { root, keys } => self.request_feeds(root, &keys)?,
            Command::Open { token, key } => self.open_channel(token, key)?,
            Command::Send { token, message } => self.send(token, &message),
            Command::Close { token } => self.close_channel(token),
            Command::RefuseChannel { discovery_key } => self.refuse_channel(discovery_key),
            Command::RegisterExtension { scope, name } => self.register_extension(scope, &name)?,
            Command::SendExtension { scope, name, body } => self.send_extension(scope, &name, &body)?,
            Command::Ping => self.ping(),
            Command::CloseRoot { root } => self.close_root(root),
            Command::LeaveRoot { root, feeds } => self.leave_root(root, feeds),
            Command::Finish => self.finish(),
            Command::Abort(error) => self.abort(error),
        }
        Ok(())
    }

    /// Whether commands for channels wait: until those may be opened, and behind the ones that wait.
    fn must_wait(&self) -> bool {
        !self.roots.others_may_follow() || !self.waiting.is_empty()
    }

    fn wait(&mut self, command: Command) -> Result<(), ApiMisuse> {
        if self.closed.is_some() { Ok(()) } else { self.waiting.push(command, &self.io.limits) }
    }

    fn set_time(&mut self, now: Duration) {
        self.timers.set(now);
        self.io.now = self.timers.now();
    }

    /// Nothing more is read until the caller took events, or output, or accepted the remote.
    fn is_paused(&self) -> bool {
        self.phase == Phase::Held
            || self.input.is_waiting()
            || self.is_full()
            || self.io.output.answers() > self.io.limits.reply_bytes
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
            self.phase.on(error::Step::End);
            self.state = State::Over;
            self.channels = Channels::new();
            self.roots = Roots::new(None, None, &self.io.limits);
            self.waiting = Waiting::default();
            self.input.clear();
        }
    }
}

impl core::fmt::Debug for Session {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Session")
            .field("phase", &self.phase)
            .field("closed", &self.closed)
            .field("totals", &self.totals())
            .finish_non_exhaustive()
    }
}
