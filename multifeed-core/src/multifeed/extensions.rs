//! Messages of the application's own on feeds' channels: hypercore's `registerExtension`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use multifeed_proto::{Command, FeedKey, Scope};

use super::Multifeed;
use crate::ids::{FeedId, SessionId};
use crate::limits::{MAX_MESSAGE_BYTES, message_cost};
use crate::multifeed::feed_events::FeedEvent;
use crate::storage::Storage;

/// Bytes of a message's own name and id, at the most, before its body.
const HEADER_BYTES: usize = 8;

/// The longest name: as many as [`Limits::extensions`](crate::Limits::extensions) of them fit into the one message that tells them all.
const NAME_BYTES: usize = 256;

/// Bytes of names that a remote says it speaks on a feed's channel, and that are kept though no extension is registered there: as many as the session keeps.
const NAMES_KEPT: usize = 256;

/// Why an extension cannot be registered, or a message of it not be sent. Always the caller's side: a remote drops what it does not
/// understand, and nobody hears of it, as in JS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExtensionError {
    /// The name is multifeed's own, or it is registered there already.
    #[error("the extension's name {0} is taken")]
    Taken(String),
    /// Peers take no more names.
    #[error("more than {max} extensions in one place")]
    TooMany {
        /// [`Limits::extensions`](crate::Limits::extensions).
        max: usize,
    },
    /// The name is too long: all names of one place go into one message.
    #[error("a name of {size} bytes, {max} are allowed")]
    NameTooLong {
        /// Its bytes.
        size: usize,
        /// The bound.
        max: usize,
    },
    /// No peer would take a message of this size.
    #[error("a message of {size} bytes, {max} are allowed")]
    TooLarge {
        /// Its bytes.
        size: usize,
        /// The bound: JS ends a stream at a larger one.
        max: usize,
    },
    /// So much waits for that peer that this does not fit.
    #[error("more than {max} bytes of messages wait for the peer")]
    Full {
        /// [`Limits::extension_bytes`](crate::Limits::extension_bytes).
        max: usize,
    },
    /// The peer has not that feed's channel open (any more), the feed was removed, or the stream is over.
    #[error("the peer, or the feed, is gone")]
    Gone,
    /// The feed's id is of another store.
    #[error("the store has no feed of this id: it is that of another store")]
    UnknownFeed,
}

impl ExtensionError {
    /// Returns a stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Taken(_) => "ERR_EXTENSION_TAKEN",
            Self::TooMany { .. } => "ERR_EXTENSIONS",
            Self::NameTooLong { .. } => "ERR_EXTENSION_NAME",
            Self::TooLarge { .. } => "ERR_MESSAGE_TOO_LARGE",
            Self::Full { .. } => "ERR_EXTENSION_FULL",
            Self::Gone => "ERR_PEER_GONE",
            Self::UnknownFeed => "ERR_UNKNOWN_FEED",
        }
    }

    /// Checks that a name is the application's to use, and a body one that peers take.
    pub fn check(name: &str, body: &[u8]) -> Result<(), Self> {
        let max = MAX_MESSAGE_BYTES - HEADER_BYTES;
        if name.starts_with("MULTIFEED_") || name == crate::replication::reconcile::EXTENSION {
            return Err(Self::Taken(name.to_owned()));
        }
        if name.len() > NAME_BYTES {
            return Err(Self::NameTooLong { size: name.len(), max: NAME_BYTES });
        }
        if body.len() > max { Err(Self::TooLarge { size: body.len(), max }) } else { Ok(()) }
    }
}

/// A message of an extension on a feed's channel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeedMessage {
    /// The feed.
    pub feed: FeedId,
    /// Who sent it.
    pub from: SessionId,
    /// The extension's name.
    pub name: Arc<str>,
    /// What it says.
    pub body: Bytes,
}

/// The extensions of all feeds.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    names: BTreeMap<FeedId, BTreeSet<Arc<str>>>,
    /// What remotes say that they speak on feeds' channels, if it is anything.
    spoken: BTreeMap<(SessionId, FeedKey), Box<[String]>>,
    /// What came and was not taken. Each body is its own memory, not a part of the buffer that it was read into.
    messages: VecDeque<FeedMessage>,
    bytes: usize,
}

impl Extensions {
    /// A feed was removed.
    pub(super) fn forget(&mut self, feed: FeedId) {
        self.names.remove(&feed);
        let messages = std::mem::take(&mut self.messages);
        self.messages = messages.into_iter().filter(|message| message.feed != feed).collect();
        self.bytes = self.messages.iter().map(|message| message_cost(message.body.len())).sum();
    }

    /// A feed's channel is closed.
    pub(super) fn forget_channel(&mut self, session: SessionId, key: &FeedKey) {
        self.spoken.remove(&(session, *key));
    }

    /// A session is over.
    pub(super) fn forget_session(&mut self, session: SessionId) {
        self.spoken.retain(|(of, _), _| *of != session);
    }
}

impl<S: Storage> Multifeed<S> {
    /// Speaks an extension on a feed's channel, with every peer that has it open or opens it later, until the end. A name that was
    /// registered before is spoken already.
    ///
    /// # Errors
    ///
    /// If the name is multifeed's own, there are too many, or the id is of another store.
    pub fn register_extension(&mut self, feed: FeedId, name: &str) -> Result<(), ExtensionError> {
        ExtensionError::check(name, &[])?;
        self.check_id(feed).map_err(|_| ExtensionError::UnknownFeed)?;
        let slot = &self.feeds[feed.0 as usize];
        if slot.removed {
            return Err(ExtensionError::Gone);
        }
        let names = self.extensions.names.entry(feed).or_default();
        if names.contains(name) {
            return Ok(());
        }
        if names.len() >= self.limits.extensions {
            return Err(ExtensionError::TooMany { max: self.limits.extensions });
        }
        names.insert(name.into());
        for peer in slot.subscribers.clone() {
            if let Some(session) = self.sessions.get_mut(&peer)
                && let Some(token) = session.token(feed)
            {
                let scope = Scope::Channel(token);
                session.extend(Command::RegisterExtension { scope, name: name.to_owned() });
                self.wake(peer);
            }
        }
        Ok(())
    }

    /// Sends a message of an extension to one peer of a feed. One that does not speak it drops it.
    ///
    /// # Errors
    ///
    /// If the peer has not the feed's channel open, the message is too large, too much waits for that peer, or the id is of another store.
    pub fn send_extension(
        &mut self,
        feed: FeedId,
        peer: SessionId,
        name: &str,
        body: Bytes,
    ) -> Result<(), ExtensionError> {
        ExtensionError::check(name, &body)?;
        self.check_id(feed).map_err(|_| ExtensionError::UnknownFeed)?;
        let max = self.limits.extension_bytes;
        let session = self.sessions.get_mut(&peer).ok_or(ExtensionError::Gone)?;
        if !session.peers.get(&feed).is_some_and(|peer| peer.is_opened()) || !session.is_running() {
            return Err(ExtensionError::Gone);
        }
        let waiting = session.outgoing.extension_bytes();
        // One that is larger than the bound goes alone.
        if waiting > 0 && waiting.saturating_add(message_cost(body.len())) > max {
            return Err(ExtensionError::Full { max });
        }
        let scope = Scope::Channel(session.token(feed).ok_or(ExtensionError::Gone)?);
        session.extend(Command::SendExtension { scope, name: name.into(), body });
        self.wake(peer);
        Ok(())
    }

    /// Returns the peers that have a feed's channel open.
    pub fn extension_peers(&self, feed: FeedId) -> Vec<SessionId> {
        let subscribers = self.entry(feed).map(|slot| slot.subscribers.as_slice()).unwrap_or_default();
        let is_open = |id: &&SessionId| {
            let peer = self.sessions.get(id).and_then(|session| session.peers.get(&feed));
            peer.is_some_and(|peer| peer.is_opened())
        };
        subscribers.iter().filter(is_open).copied().collect()
    }

    /// Returns the peers that have a feed's channel open and said that they speak an extension which is registered here. A remote says so when it registers
    /// its own: [`FeedEvent::Extensions`] reports that.
    pub fn extension_speakers(&self, feed: FeedId, name: &str) -> Vec<SessionId> {
        if !self.extensions.names.get(&feed).is_some_and(|names| names.contains(name)) {
            return Vec::new();
        }
        let mut peers = self.extension_peers(feed);
        let Some(key) = self.entry(feed).map(|entry| entry.feed.key()) else { return Vec::new() };
        let spoken = &self.extensions.spoken;
        peers.retain(|peer| spoken.get(&(*peer, key)).is_some_and(|names| names.iter().any(|spoken| spoken == name)));
        peers
    }

    /// The remote said which extensions it speaks on a feed's channel, in place of what it said before.
    pub(super) fn note_spoken(&mut self, peer: SessionId, key: FeedKey, names: &[String]) {
        let feed = self.members.catalog.find(&key);
        let size: usize = names.iter().map(String::len).sum();
        let is_registered = feed.is_some_and(|feed| self.extensions.names.contains_key(&feed));
        let names = if is_registered || size <= NAMES_KEPT { names } else { &[] };
        let before = match names {
            [] => self.extensions.spoken.remove(&(peer, key)),
            names => self.extensions.spoken.insert((peer, key), names.into()),
        };
        if let Some(feed) = feed.filter(|_| before.as_deref().unwrap_or_default() != names) {
            self.tell(feed, FeedEvent::Extensions { peer });
        }
    }

    /// Returns the next message of an extension that was registered.
    pub fn poll_extension(&mut self) -> Option<FeedMessage> {
        let message = self.extensions.messages.pop_front()?;
        self.extensions.bytes = self.extensions.bytes.saturating_sub(message_cost(message.body.len()));
        Some(message)
    }

    /// A feed's channel was opened: its extensions are spoken on it.
    pub(super) fn speak(&mut self, peer: SessionId, feed: FeedId) {
        let Some(names) = self.extensions.names.get(&feed) else { return };
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        let Some(token) = session.token(feed) else { return };
        for name in names {
            let scope = Scope::Channel(token);
            session.extend(Command::RegisterExtension { scope, name: name.as_ref().to_owned() });
        }
    }

    /// A message came. While more wait than there is room for, it is lost: extensions promise nothing.
    pub(super) fn hear(&mut self, from: SessionId, feed: FeedId, name: Arc<str>, body: &[u8]) {
        let (extensions, limits) = (&mut self.extensions, &self.limits);
        let is_spoken = extensions.names.get(&feed).is_some_and(|names| names.contains(&name));
        let bytes = extensions.bytes.saturating_add(message_cost(body.len()));
        let has_room = extensions.messages.len() < limits.extension_messages
            && (extensions.messages.is_empty() || bytes <= limits.extension_bytes);
        if is_spoken && has_room {
            extensions.bytes = bytes;
            let body = Bytes::copy_from_slice(body);
            extensions.messages.push_back(FeedMessage { feed, from, name, body });
        }
    }
}
