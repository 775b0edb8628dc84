//! What is opened, closed and sent on a session's channels, and the extensions that are spoken there.

use crate::channel::{LocalOpen, Owner};
use crate::error::ApiMisuse;
use crate::error::SessionError;
use crate::event::{Command, Event};
use crate::exchange::{Kind, Sink};
use crate::extension::Extensions;
use crate::ids::Token;
use crate::key::{DiscoveryKey, FeedKey};
use crate::roots::Dialect;
use crate::trace::Scope;
use crate::wire::message::Message;

use super::{Session, State, route};

impl Session {
    /// Opens a feed's channel. [`Event::Opened`] follows when the remote opened it too, and proved that it knows the key.
    /// [`Event::ChannelClosed`] follows if it did not prove it, or if the key's channel is open already under another token.
    ///
    /// # Errors
    ///
    /// [`ApiMisuse::TokenInUse`] for the token of a channel that is open. Use one again when its [`Event::ChannelClosed`] was polled, or after
    /// [`close_channel`](Self::close_channel).
    pub fn open_channel(&mut self, token: Token, key: FeedKey) -> Result<(), ApiMisuse> {
        if self.must_wait() {
            return self.wait(Command::Open { token, key });
        }
        let State::Open(split) = &self.state else { return Ok(()) };
        let owner = Owner::Feed(token);
        if self.channels.local_id(owner).is_none() && self.roots.find(&key.discovery_key()).is_some() {
            self.io.events.push(Event::ChannelClosed { token });
            return Ok(());
        }
        match self.channels.open(owner, key, split) {
            LocalOpen::Open { id, discovery_key, complete } => {
                self.io.open(owner, id, discovery_key, split.capability(&key));
                if complete {
                    self.channel_opened(token);
                }
            }
            LocalOpen::Unproven { id, discovery_key } => {
                self.io.close(None, id, Some(discovery_key));
                self.io.events.push(Event::ChannelClosed { token });
            }
            LocalOpen::KeyInUse => self.io.events.push(Event::ChannelClosed { token }),
            LocalOpen::TokenInUse => return Err(ApiMisuse::TokenInUse(token)),
            LocalOpen::Exhausted => self.fail(route::exhausted()),
        }
        Ok(())
    }

    /// Closes a channel. Nothing more comes from it but [`Event::LateHave`], and the token is free.
    pub fn close_channel(&mut self, token: Token) {
        if self.must_wait() {
            // A Close is never a mistake.
            let _ = self.wait(Command::Close { token });
            return;
        }
        let owner = Owner::Feed(token);
        // Also if the remote closed it first: what tells so would come under the token's next feed.
        self.io.events.close(token);
        if let Some(id) = self.channels.close(owner) {
            self.io.close(Some(owner), id, None);
        }
    }

    /// Sends a message on a channel. On one that we have not open it is dropped: the remote may just have closed it. One
    /// that JS peers would refuse for its size ends the session with a local error. If extensions are registered on the channel,
    /// the names in an Options message are theirs.
    pub fn send(&mut self, token: Token, message: &Message) {
        if self.must_wait() {
            // Nor is a message.
            let _ = self.wait(Command::Send { token, message: message.clone() });
            return;
        }
        if let Message::Options(options) = message
            && let Some((_, _, ours)) = self.channels.options(token)
        {
            ours.ack = options.ack;
            if ours.extensions.as_ref().is_some_and(|extensions| extensions.is_spoken()) {
                return self.send_options(token);
            }
        }
        let owner = Owner::Feed(token);
        let Some(id) = self.channels.local_id(owner) else { return };
        let Some(len) = self.fitting(message.encoded_len()) else { return };
        message.encode(self.io.message(Some(owner), id, message.kind(), len));
    }

    /// Speaks an extension of the application's own on the stream, or on a feed's channel that we have open. The remote hears of
    /// it before its first use; messages of the same name come as [`Event::Extension`]. What a message holds is the application's
    /// business: JSON by custom ([`Json`](crate::Json) reads and writes it), or any bytes. On a feed's channel register when it opens or
    /// before: of what the remote said of its own extensions there no more than 256 bytes are kept until then. On a channel that is not
    /// open the call does nothing: the remote may just have closed it.
    ///
    /// # Errors
    ///
    /// - [`ApiMisuse::ReservedExtension`] for multifeed's own four names;
    /// - [`ApiMisuse::ExtensionTaken`] for one that is registered there;
    /// - [`ApiMisuse::NoRoomForExtension`], as peers take no more names than [`Limits::extensions`](crate::Limits::extensions);
    /// - [`ApiMisuse::UnknownRoot`] if no such multifeed was ever opened here.
    pub fn register_extension(&mut self, scope: Scope, name: &str) -> Result<(), ApiMisuse> {
        if self.closed.is_some() {
            return Ok(());
        }
        if Kind::from_name(name).is_some() {
            return Err(ApiMisuse::ReservedExtension(name.into()));
        }
        match scope {
            Scope::Stream => {
                self.io.extensions.register(name, &self.io.limits)?;
                if self.roots.others_may_follow() {
                    self.io.announce();
                }
            }
            Scope::Root(root) => {
                let limits = &self.io.limits;
                let entry = self.roots.get(root).ok_or(ApiMisuse::UnknownRoot(root))?;
                if !entry.exchange.is_over() {
                    entry.extensions.register(name, limits)?;
                    if entry.dialect == Some(Dialect::Channel) {
                        self.with_voice(root, |_, voice| voice.introduce());
                    }
                }
            }
            Scope::Channel(_) if self.must_wait() => {
                return self.wait(Command::RegisterExtension { scope, name: name.into() });
            }
            Scope::Channel(token) => {
                let limits = &self.io.limits;
                if let Some((_, both, ours)) = self.channels.options(token) {
                    ours.extensions.get_or_insert_default().register(name, limits)?;
                    if both {
                        self.send_options(token);
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends a message of an extension that was registered. On a channel that we have not open nothing is sent: the remote may just have
    /// closed it. A remote that does not speak the extension drops it. A message that JS peers would refuse for its size ends the session
    /// with a local error.
    ///
    /// # Errors
    ///
    /// - [`ApiMisuse::UnknownExtension`] if the name is not registered there;
    /// - [`ApiMisuse::ReservedExtension`] for multifeed's own four names;
    /// - [`ApiMisuse::UnknownRoot`] if no such multifeed was ever opened here.
    pub fn send_extension(&mut self, scope: Scope, name: &str, body: &[u8]) -> Result<(), ApiMisuse> {
        if self.closed.is_some() {
            return Ok(());
        }
        if Kind::from_name(name).is_some() {
            return Err(ApiMisuse::ReservedExtension(name.into()));
        }
        if !self.is_registered(scope, name)? {
            return Err(ApiMisuse::UnknownExtension(name.into()));
        }
        if self.must_wait() {
            return self.wait(Command::SendExtension { scope, name: name.into(), body: body.to_vec().into() });
        }
        if self.fitting(body.len() + 8).is_none() {
            return Ok(());
        }
        match scope {
            Scope::Stream => {
                self.io.announce();
                if let Some(id) = self.io.extensions.id(name) {
                    self.io.extension(None, 0, id, name, body);
                }
            }
            Scope::Root(root) => {
                let channel = self.channels.local_id(Owner::Root(root));
                let entry = self.roots.get(root).filter(|entry| entry.dialect == Some(Dialect::Channel));
                if let (Some(channel), Some(id)) = (channel, entry.and_then(|entry| entry.extensions.id(name))) {
                    self.with_voice(root, |_, voice| voice.introduce());
                    self.io.extension(Some(Owner::Root(root)), channel, id, name, body);
                }
            }
            Scope::Channel(token) => {
                if let Some(channel) = self.channels.local_id(Owner::Feed(token))
                    && let Some(id) = self.channels.extensions(token).and_then(|extensions| extensions.id(name))
                {
                    self.io.extension(Some(Owner::Feed(token)), channel, id, name, body);
                }
            }
        }
        Ok(())
    }

    /// Whether an extension is registered somewhere, or may have been: on a channel that is not open (any more), or of a multifeed that is over.
    fn is_registered(&self, scope: Scope, name: &str) -> Result<bool, ApiMisuse> {
        let speaks =
            |extensions: Option<&Extensions>| extensions.is_some_and(|extensions| extensions.id(name).is_some());
        Ok(match scope {
            Scope::Stream => speaks(Some(&self.io.extensions)),
            Scope::Root(root) => {
                let entry = self.roots.peek(root).ok_or(ApiMisuse::UnknownRoot(root))?;
                entry.exchange.is_over() || speaks(Some(&entry.extensions))
            }
            Scope::Channel(token) if self.must_wait() => {
                self.waiting.get(token).is_none_or(|names| speaks(Some(names)))
            }
            Scope::Channel(token) => {
                self.channels.local_id(Owner::Feed(token)).is_none() || speaks(self.channels.extensions(token))
            }
        })
    }

    /// Returns whether the remote said that it speaks an extension of ours.
    pub fn remote_speaks(&self, scope: Scope, name: &str) -> bool {
        match scope {
            Scope::Stream => self.io.extensions.remote_speaks(name),
            Scope::Root(root) => self.roots.peek(root).is_some_and(|entry| entry.extensions.remote_speaks(name)),
            Scope::Channel(token) => {
                self.channels.extensions(token).is_some_and(|extensions| extensions.remote_speaks(name))
            }
        }
    }

    /// Tells the remote that a channel which it opened will not be opened here: see [`Event::Discovered`].
    pub fn refuse_channel(&mut self, discovery_key: DiscoveryKey) {
        if let Some(id) = self.channels.refuse(&discovery_key) {
            self.io.close(None, id, Some(discovery_key));
        }
    }

    /// A message's length, if peers accept it; a longer one is the caller's mistake, and ends the session.
    fn fitting(&mut self, len: usize) -> Option<usize> {
        if len > self.io.limits.message_bytes {
            let text = alloc::format!("a message of {len} bytes is more than peers accept");
            self.fail(SessionError::Local(text));
            return None;
        }
        Some(len)
    }
}
