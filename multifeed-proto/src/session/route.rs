//! How what arrives finds its machine, and how channels come to be.

use alloc::string::String;
use core::time::Duration;

use super::io::Voice;
use super::{Session, State};
use crate::channel::{LocalOpen, Owner};
use crate::crypto::cipher::Keystream;
use crate::crypto::noise::Established;
use crate::error::{FrameError, Phase, SessionError, Step};
use crate::event::Event;
use crate::exchange::{Exchange, Kind, Sink, Stage};
use crate::identity::Role;
use crate::ids::{Root, Token};
use crate::key::{DiscoveryKey, FeedKey};
use crate::machine::Machine;
use crate::roots::{Dialect, Turn};
use crate::trace::{Direction, Scope};
use crate::wire::frame::{self, Frame};
use crate::wire::message::{self, Message, Options, kind};
use crate::wire::schema;

/// How long an initiator waits for an Open of the remote's before it sends its first. A peer that waits for ours is kept waiting
/// no longer than this.
const HOLD: Duration = Duration::from_millis(100);

/// How long a remote whose first channel is not our only root key's has to open that one too. A corestore-multifeed opens all of its root keys at
/// once, in an order of its own.
const OTHER_ROOT: Duration = Duration::from_secs(2);

/// Bytes of a remote's extension names that are kept for a channel on which we speak none (yet).
const NAMES_KEPT: usize = 256;

impl Session {
    pub(super) fn advance_handshake(&mut self) {
        let State::Noise(handshake) = &mut self.state else { return };
        match handshake.receive(&mut self.input.buf, &mut self.io.output.handshake) {
            Ok(None) => self.input.counted(),
            Ok(Some(established)) => self.establish(established),
            Err(error) => self.fail(error.into()),
        }
    }

    /// Noise is done.
    pub(super) fn establish(&mut self, established: Established) {
        let Established { remote_public_key, handshake_hash, split, nonce, remote_nonce } = established;
        self.io.output.encrypt_with(Keystream::new(&split.tx, &nonce));
        self.input.decrypt_with(Keystream::new(&split.rx, &remote_nonce));
        self.io.events.push(Event::Connected { remote_public_key, handshake_hash });
        self.remote_public_key = Some(remote_public_key);
        self.state = State::Open(split);
        if self.authenticate {
            self.phase.on(Step::NoiseToBeAccepted);
        } else {
            self.begin();
        }
    }

    /// The conversation begins.
    pub(super) fn begin(&mut self) {
        self.timers.established();
        let turn = self.roots.established(self.role);
        self.phase.on(if self.roots.is_strict() { Step::RootsFollow } else { Step::NoRootFollows });
        if self.role == Role::Initiator && turn == Turn::Hold {
            self.timers.hold(HOLD);
        }
        self.open_roots();
        if turn == Turn::All {
            self.io.announce();
        }
    }

    /// Opens what root keys' channels may be opened now, before any other: JS takes a channel that it has not opened itself for
    /// another root key.
    pub(super) fn open_roots(&mut self) {
        while let Some((root, key)) = self.roots.next() {
            self.timers.held();
            self.open_root_channel(root, key);
        }
        if !self.waiting.is_empty() && self.roots.others_may_follow() && !self.roots.is_doubtful() {
            for command in self.waiting.take() {
                // It was looked at when it came.
                let _ = self.apply(command);
            }
        }
    }

    fn open_root_channel(&mut self, root: Root, key: FeedKey) {
        let State::Open(split) = &self.state else { return };
        let owner = Owner::Root(root);
        match self.channels.open(owner, key, split) {
            LocalOpen::Open { id, discovery_key, complete } => {
                self.io.open(owner, id, discovery_key, split.capability(&key));
                // With it, so that another one of ours need not hold its handshake.
                if self.roots.default_dialect() == Dialect::Stream {
                    self.with_voice(root, |_, voice| voice.introduce());
                }
                self.io.announce();
                if complete {
                    self.verify_root(root);
                }
            }
            LocalOpen::Unproven { id, discovery_key } => {
                // Somebody who knows no more than the discovery key hears nothing, unless it is one multifeed of several.
                if !self.roots.is_last(root) {
                    self.io.close(None, id, Some(discovery_key));
                }
                self.fail_root(root, SessionError::Capability(discovery_key));
            }
            LocalOpen::TokenInUse | LocalOpen::KeyInUse => {
                self.fail_root(root, SessionError::Local("a root key that is open as a feed's".into()));
            }
            LocalOpen::Exhausted => self.fail(exhausted()),
        }
    }

    /// The remote proved that it knows a root key.
    fn verify_root(&mut self, root: Root) {
        self.proven = true;
        let default = self.roots.default_dialect();
        let limit = self.io.limits.message_bytes;
        let Some(entry) = self.roots.get(root) else { return };
        entry.dialect.get_or_insert(default);
        if entry.exchange.handshake_len() >= limit {
            let text = alloc::format!("our own handshake, with its user data, is more than {limit} bytes");
            return self.fail_root(root, SessionError::Local(text));
        }
        if entry.dialect == Some(Dialect::Channel) {
            // Before our handshake, so that the remote knows them when it is ready.
            self.io.announce();
        }
        self.with_voice(root, |exchange, voice| exchange.verified(voice));
        self.io.announce();
        let is_heard = self.roots.get(root).is_some_and(|entry| entry.extensions.speaks_multifeed());
        if is_heard || self.io.is_introduced() {
            self.with_voice(root, |exchange, voice| exchange.release(voice));
        }
        self.timers.hold_greeting(self.greeting_hold);
        self.check_ready(root);
    }

    /// Sends the handshakes that were held.
    pub(super) fn release(&mut self) {
        for root in self.roots.held() {
            self.with_voice(root, |exchange, voice| exchange.release(voice));
        }
        self.timers.greeted();
    }

    /// A multifeed cannot be synced with this remote; the others go on, if there are any.
    fn fail_root(&mut self, root: Root, error: SessionError) {
        if self.roots.is_last(root) {
            return self.fail(error);
        }
        if let Some(entry) = self.roots.get(root) {
            entry.exchange.fail();
        }
        self.roots.over(root);
        let owner = Owner::Root(root);
        if let Some(id) = self.channels.close(owner) {
            self.io.close(Some(owner), id, None);
        }
        self.io.events.push(Event::RootClosed { root, error: Some(error) });
    }

    pub(super) fn fail_late_roots(&mut self) {
        for root in self.roots.late(self.timers.now()) {
            self.fail_root(root, SessionError::Timeout(Phase::Exchange));
        }
        self.open_roots();
    }

    /// Lets a multifeed speak.
    pub(super) fn with_voice<R>(
        &mut self,
        root: Root,
        speak: impl FnOnce(&mut Exchange, &mut Voice<'_>) -> R,
    ) -> Option<R> {
        let default = self.roots.default_dialect();
        let channel = self.channels.local_id(Owner::Root(root));
        let entry = self.roots.get(root)?;
        let dialect = entry.dialect.unwrap_or(default);
        let mut voice = Voice { io: &mut self.io, root, dialect, channel, extensions: &mut entry.extensions };
        Some(speak(&mut entry.exchange, &mut voice))
    }

    fn check_ready(&mut self, root: Root) {
        if self.roots.get(root).is_some_and(|entry| entry.exchange.is_ready()) {
            self.roots.ready(root);
            self.phase.on(Step::RootReady);
            self.close_root_when_ready(root);
        }
    }

    pub(super) fn close_root_when_ready(&mut self, root: Root) {
        let Some(entry) = self.roots.get(root).filter(|entry| entry.close && entry.exchange.is_ready()) else { return };
        entry.close = false;
        let goes_on = entry.dialect == Some(Dialect::Stream);
        let owner = Owner::Root(root);
        if let Some(id) = self.channels.close(owner) {
            self.io.close(Some(owner), id, None);
        }
        if !goes_on {
            self.roots.over(root);
        }
    }

    /// Both sides opened a feed's channel.
    pub(super) fn channel_opened(&mut self, token: Token) {
        self.proven = true;
        self.io.events.push(Event::Opened { token });
        self.send_options(token);
    }

    /// Tells the remote our extensions and wishes on a feed's channel, if we have any.
    pub(super) fn send_options(&mut self, token: Token) {
        if let Some((id, true, ours)) = self.channels.options(token)
            && let Some(extensions) = ours.extensions.as_mut().filter(|extensions| extensions.is_spoken())
        {
            let (names, ack) = (extensions.names(), ours.ack);
            extensions.announce();
            self.io.options(Some(Owner::Feed(token)), id, names, Some(ack));
        }
    }

    /// Handles what has arrived, as far as the caller has room for what comes of it.
    pub(super) fn process(&mut self) {
        if matches!(self.phase, Phase::Noise | Phase::Held) {
            return self.handle_end();
        }
        // Output does not stop it: answers are no longer than what they answer, and what arrived is bounded. So polling events
        // is all that it takes to go on.
        while self.closed.is_none() && !self.is_full() {
            match self.input.next(self.message_limit()) {
                Ok(Some(frame)) => {
                    self.timers.moved();
                    if let Err(error) = self.count_unproven() {
                        return self.fail(error);
                    }
                    self.io.events.read(self.input.consumed);
                    let before = self.io.output.len();
                    if let Err(error) = self.handle_frame(frame) {
                        self.fail(error);
                    }
                    self.io.output.answered(before);
                }
                Ok(None) => {
                    self.report_partial();
                    return self.handle_end();
                }
                Err(FrameError::TooLong { size, .. }) if size <= self.io.limits.message_bytes as u64 => {
                    self.fail(SessionError::limit("unproven_message_bytes", self.io.limits.unproven_message_bytes));
                }
                Err(error) => self.fail(error.into()),
            }
        }
    }

    /// Whether this stream may carry several multifeeds, and the remote is one of ours. It changes to the dialect of the root key's own channel when
    /// it hears that. Only there a Close says that a multifeed leaves.
    fn is_kin_of_a_shared_stream(&self) -> bool {
        self.roots.default_dialect() == Dialect::Channel && self.io.extensions.is_kin()
    }

    /// Everything that arrived was handled; was it all there is?
    fn handle_end(&mut self) {
        if !self.ended || self.ended_told {
            return;
        }
        self.ended_told = true;
        match (self.phase, self.roots.mismatch()) {
            (Phase::Ready, _) if !self.input.is_partial() => {
                self.timers.ended();
                self.io.events.push(Event::RemoteEnded);
            }
            (Phase::Exchange, Some((us, them))) => self.fail(SessionError::RootKeyMismatch { us, them }),
            (phase, _) => self.fail(SessionError::Disconnected(phase)),
        }
    }

    fn handle_frame(&mut self, frame: Frame) -> Result<(), SessionError> {
        let owner = self.channels.route(frame.channel);
        if self.io.tracer.is_some() && frame.kind != kind::EXTENSION {
            self.io.trace(Direction::In, frame.channel, owner, frame.kind, None, frame.body.len());
        }
        match (frame.kind, owner) {
            (kind::OPEN, _) => self.handle_open(frame.channel, &frame),
            (kind::CLOSE, _) => self.handle_close(frame.channel, &frame),
            (kind::EXTENSION, _) => self.handle_extension(owner, frame),
            (kind, Some(Owner::Feed(token))) => {
                let Some(message) = Message::decode(kind, frame.body, &self.io.limits)? else { return self.stray() };
                if let Message::Options(options) = &message
                    && let Some((_, _, ours)) = self.channels.options(token)
                {
                    // The application may register its own when it hears that the channel is open, after this was read.
                    let size: usize = options.extensions.iter().map(String::len).sum();
                    if ours.extensions.is_some() || (1..=NAMES_KEPT).contains(&size) {
                        ours.extensions.get_or_insert_default().update(options.extensions.clone());
                    }
                }
                self.io.events.push(Event::Message { token, message });
                Ok(())
            }
            (kind::OPTIONS, Some(Owner::Root(root))) => {
                let options = Options::decode(&frame.body, &self.io.limits)?;
                let Some(entry) = self.roots.get(root) else { return Ok(()) };
                let speaks = speaks(&options);
                entry.extensions.update(options.extensions);
                if speaks && entry.hear(Dialect::Channel) {
                    self.with_voice(root, |exchange, voice| exchange.greet(voice));
                }
                if speaks {
                    // There JS needs them for nothing before its handshake, which is on its way then.
                    self.with_voice(root, |exchange, voice| exchange.release(voice));
                }
                Ok(())
            }
            (kind::OPTIONS, None) if frame.channel == 0 => {
                let options = Options::decode(&frame.body, &self.io.limits)?;
                let speaks = speaks(&options);
                self.io.extensions.update(options.extensions);
                let kin = self.is_kin_of_a_shared_stream();
                if let Some((root, entry)) = self.roots.of_stream()
                    && speaks
                    && !kin
                    && entry.hear(Dialect::Stream)
                {
                    self.with_voice(root, |exchange, voice| exchange.greet(voice));
                }
                if self.io.is_introduced() {
                    self.release();
                }
                Ok(())
            }
            (kind::HAVE, None) => {
                if let Some(token) = self.channels.closing(frame.channel)
                    && let Some(Message::Have(have)) = Message::decode(kind::HAVE, frame.body, &self.io.limits)?
                {
                    self.io.events.late_have(token, &have);
                }
                self.stray()
            }
            _ => self.stray(),
        }
    }

    fn handle_extension(&mut self, owner: Option<Owner>, frame: Frame) -> Result<(), SessionError> {
        let (channel, size) = (frame.channel, frame.body.len());
        let (id, body) = message::extension(frame.body)?;
        let extensions = match owner {
            None if channel == 0 => Some(&self.io.extensions),
            None => None,
            Some(Owner::Root(root)) => self.roots.get(root).map(|entry| &entry.extensions),
            Some(Owner::Feed(token)) => match self.channels.extensions(token) {
                Some(extensions) => Some(extensions),
                // The caller numbers on its own.
                None => {
                    self.io.trace(Direction::In, channel, owner, kind::EXTENSION, None, size);
                    self.io.events.push(Event::Message { token, message: Message::Extension { id, body } });
                    return Ok(());
                }
            },
        };
        let name = extensions.and_then(|extensions| extensions.name(id)).cloned();
        let is_named = extensions.is_some_and(|extensions| extensions.is_named(id));
        let multifeed = name.as_deref().and_then(Kind::from_name);
        let root = match owner {
            Some(Owner::Root(root)) => Some(root),
            _ => self.roots.of_stream().map(|(root, _)| root).filter(|_| multifeed.is_some()),
        };
        let owner = owner.or(root.map(Owner::Root));
        self.io.trace(Direction::In, channel, owner, kind::EXTENSION, name.as_deref(), size);
        match (name, multifeed, owner) {
            (_, Some(kind), Some(Owner::Root(root))) => self.handle_exchange(root, kind, &body),
            (Some(name), None, None) => {
                self.io.events.push(Event::Extension { scope: Scope::Stream, name, body });
                Ok(())
            }
            (Some(name), _, Some(Owner::Feed(token))) => {
                self.io.events.push(Event::Extension { scope: Scope::Channel(token), name, body });
                Ok(())
            }
            (Some(name), None, Some(Owner::Root(root))) => {
                self.io.events.push(Event::Extension { scope: Scope::Root(root), name, body });
                Ok(())
            }
            // A name that we do not know is no mistake, and leaves nothing behind.
            _ if is_named => Ok(()),
            _ => self.stray(),
        }
    }

    fn handle_open(&mut self, id: u32, frame: &Frame) -> Result<(), SessionError> {
        let State::Open(split) = &self.state else { return Ok(()) };
        let open: schema::Open = message::parse("Open", &frame.body)?;
        let discovery_key = open.discovery_key.ok_or(message::missing("Open", "discoveryKey"))?;
        let discovery_key = DiscoveryKey::new(message::array("Open", "discoveryKey", &discovery_key)?);
        let root = self.roots.find(&discovery_key);
        let limit = (self.io.limits.channels, self.roots.named());
        let opened = self.channels.remote_open(id, discovery_key, open.capability, split, limit)?;
        self.roots.remote_opened(discovery_key, root);
        let is_doubtful = self.roots.is_doubtful();
        if is_doubtful {
            self.timers.expect_root(OTHER_ROOT);
        } else {
            self.timers.root_came();
        }
        // Its Options may have come before we knew whose they are.
        let spoken = self.io.extensions.speaks_multifeed() && !self.is_kin_of_a_shared_stream();
        if let Some((_, entry)) = self.roots.of_stream().filter(|(stream, _)| spoken && Some(*stream) == root) {
            entry.hear(Dialect::Stream);
        }
        match opened {
            Some(Owner::Root(root)) => self.verify_root(root),
            Some(Owner::Feed(token)) => self.channel_opened(token),
            None if root.is_none() && self.discover && !is_doubtful => {
                self.io.events.push(Event::Discovered { discovery_key })
            }
            None => {}
        }
        self.open_roots();
        Ok(())
    }

    /// The remote opened another root key than our only one, and not that one in time.
    pub(super) fn fail_other_root(&mut self) {
        self.timers.root_came();
        if let Some((us, them)) = self.roots.mismatch().filter(|_| self.roots.is_doubtful()) {
            self.fail(SessionError::RootKeyMismatch { us, them });
        }
    }

    fn handle_close(&mut self, id: u32, frame: &Frame) -> Result<(), SessionError> {
        let close: schema::Close = message::parse("Close", &frame.body)?;
        let discovery_key = match close.discovery_key {
            Some(bytes) => Some(DiscoveryKey::new(message::array("Close", "discoveryKey", &bytes)?)),
            None => None,
        };
        let closed = self.channels.remote_close(id, discovery_key);
        if let Some(id) = closed.answer {
            self.io.close(closed.owner, id, None);
        }
        match closed.owner {
            Some(Owner::Root(root)) => self.root_closed(root),
            Some(Owner::Feed(token)) => self.io.events.push(Event::ChannelClosed { token }),
            None => {}
        }
        Ok(())
    }

    fn root_closed(&mut self, root: Root) {
        let is_last = self.roots.is_last(root);
        let Some(entry) = self.roots.get(root) else { return };
        // One that failed was reported then.
        if entry.exchange.is_failed() {
            return;
        }
        let lists_go_on = entry.dialect == Some(Dialect::Stream) && entry.exchange.stage() == Stage::Ready;
        // The only one may have been closed in a race; if not, the timeout reports that the remote never was ready.
        let time_tells = is_last && entry.exchange.is_waiting();
        if !lists_go_on && !time_tells {
            self.roots.over(root);
        }
        self.io.events.push(Event::RootClosed { root, error: None });
    }

    fn handle_exchange(&mut self, root: Root, kind: Kind, body: &[u8]) -> Result<(), SessionError> {
        let limits = self.io.limits.clone();
        let received = self.with_voice(root, |exchange, voice| exchange.receive(kind, body, &limits, voice));
        match received.unwrap_or(Ok(())) {
            Err(error @ (SessionError::VersionMismatch { .. } | SessionError::ClientMismatch { .. })) => {
                self.fail_root(root, error);
                self.open_roots();
            }
            received => received?,
        }
        self.check_ready(root);
        Ok(())
    }

    /// A message that means nothing to us: JS drops it, and so do we, but not without end.
    fn stray(&mut self) -> Result<(), SessionError> {
        self.strays += 1;
        let limit = self.io.limits.stray_messages;
        if self.strays > limit { Err(SessionError::Limit { what: "stray_messages", limit }) } else { Ok(()) }
    }
}

/// Whether a remote's Options say that it speaks multifeed there.
fn speaks(options: &Options) -> bool {
    options.extensions.iter().any(|name| Kind::from_name(name).is_some())
}

/// All channel ids were used.
pub(super) fn exhausted() -> SessionError {
    SessionError::limit("channel ids", frame::CHANNELS as usize)
}
