//! What the machines speak to: the remote, the caller, and the tracer.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::{BufMut, BytesMut};

use super::events::Events;
use super::send::Output;
use crate::channel::Owner;
use crate::event::Event;
use crate::exchange::{self, Kind, ManifestFields};
use crate::extension::Extensions;
use crate::ids::Root;
use crate::key::{DiscoveryKey, FeedKey};
use crate::limits::Limits;
use crate::roots::Dialect;
use crate::trace::{Direction, Record, Tracer};
use crate::wire::message::kind;
use crate::wire::{frame, schema, varint};

pub(super) struct Io {
    pub(super) output: Output,
    pub(super) events: Events,
    /// The extensions of channel 0.
    pub(super) extensions: Extensions,
    pub(super) limits: Limits,
    pub(super) tracer: Option<Box<dyn Tracer>>,
    /// The time that the caller gave last.
    pub(super) now: Duration,
}

/// A multifeed's voice: its lists in the dialect that the remote understands.
pub(super) struct Voice<'a> {
    pub(super) io: &'a mut Io,
    pub(super) root: Root,
    pub(super) dialect: Dialect,
    /// Our number of the root key's channel, while that is open.
    pub(super) channel: Option<u32>,
    /// The extensions of that channel.
    pub(super) extensions: &'a mut Extensions,
}

impl Io {
    pub(super) fn open(&mut self, owner: Owner, id: u32, discovery_key: DiscoveryKey, capability: [u8; 32]) {
        let open = schema::Open {
            discovery_key: Some(discovery_key.as_bytes().to_vec()),
            capability: Some(capability.to_vec()),
        };
        self.put(Some(owner), id, kind::OPEN, &open);
    }

    pub(super) fn close(&mut self, owner: Option<Owner>, id: u32, discovery_key: Option<DiscoveryKey>) {
        let close = schema::Close { discovery_key: discovery_key.map(|key| key.as_bytes().to_vec()) };
        self.put(owner, id, kind::CLOSE, &close);
    }

    pub(super) fn options(&mut self, owner: Option<Owner>, id: u32, extensions: Vec<String>, ack: Option<bool>) {
        self.put(owner, id, kind::OPTIONS, &schema::Options { extensions, ack });
    }

    /// Announces the names of the stream's extensions to the remote, if they changed since it heard them.
    pub(super) fn announce(&mut self) {
        if let Some(names) = self.extensions.announce() {
            self.options(None, 0, names, None);
        }
    }

    /// Whether the remote's Options on channel 0 show that our handshake need not be held. They do if it speaks an extension of ours: it is
    /// no plain JS peer. They do too if they name nothing but multifeed's own: JS sends such with its handshake, ours with its Open.
    /// One that speaks others may have sent them for those.
    pub(super) fn is_introduced(&self) -> bool {
        let is_kin = self.extensions.is_kin() || self.extensions.shared().any(|name| Kind::from_name(name).is_none());
        is_kin || (self.extensions.speaks_multifeed() && !self.extensions.has_unknown())
    }

    /// Starts a message; exactly `len` bytes must be appended to the buffer.
    pub(super) fn message(&mut self, owner: Option<Owner>, channel: u32, kind: u8, len: usize) -> &mut BytesMut {
        self.trace(Direction::Out, channel, owner, kind, None, len);
        self.output.message(channel, kind, len)
    }

    /// Writes an extension's message.
    pub(super) fn extension(&mut self, owner: Option<Owner>, channel: u32, id: u64, name: &str, body: &[u8]) {
        let len = varint::len(id) + body.len();
        self.trace(Direction::Out, channel, owner, kind::EXTENSION, Some(name), len);
        let buf = self.output.message(channel, kind::EXTENSION, len);
        varint::encode(id, buf);
        buf.put_slice(body);
    }

    /// Reports a message to the tracer, if there is one.
    #[inline]
    pub(super) fn trace(
        &mut self,
        direction: Direction,
        channel: u32,
        owner: Option<Owner>,
        kind: u8,
        extension: Option<&str>,
        size: usize,
    ) {
        if let Some(tracer) = &mut self.tracer {
            let (token, root) = match owner {
                Some(Owner::Feed(token)) => (Some(token), None),
                Some(Owner::Root(root)) => (None, Some(root)),
                None => (None, None),
            };
            tracer.message(&Record { time: self.now, direction, channel, token, root, kind, extension, size });
        }
    }

    fn put(&mut self, owner: Option<Owner>, channel: u32, kind: u8, message: &impl prost::Message) {
        let buf = self.message(owner, channel, kind, message.encoded_len());
        crate::wire::message::put(message, buf);
    }
}

impl Voice<'_> {
    /// The channel that an extension of multifeed's is spoken on, and its id there, whose name the remote has heard by then.
    fn place(&mut self, kind: Kind) -> Option<(u32, u64)> {
        exchange::Sink::introduce(self);
        match self.dialect {
            Dialect::Stream => Some((0, self.io.extensions.id(kind.name())?)),
            Dialect::Channel => Some((self.channel?, self.extensions.id(kind.name())?)),
        }
    }
}

impl exchange::Sink for Voice<'_> {
    fn introduce(&mut self) {
        match (self.dialect, self.channel) {
            (Dialect::Stream, _) => {
                for kind in Kind::ALL {
                    self.io.extensions.add(kind.name());
                }
                self.io.announce();
            }
            (Dialect::Channel, Some(channel)) => {
                if let Some(names) = self.extensions.announce() {
                    self.io.options(Some(Owner::Root(self.root)), channel, names, None);
                }
            }
            (Dialect::Channel, None) => {}
        }
    }

    fn handshake(&mut self, json: &[u8]) {
        if let Some((channel, id)) = self.place(Kind::Handshake) {
            self.io.extension(Some(Owner::Root(self.root)), channel, id, Kind::Handshake.name(), json);
        }
    }

    fn keys(&mut self, kind: Kind, keys: &[FeedKey], fields: Option<&ManifestFields>) {
        let Some((channel, id)) = self.place(kind) else { return };
        let mut size = 0;
        exchange::put_keys(kind, keys, fields, self.io.output.frames(), |buf, len| {
            size = varint::len(id) + len;
            frame::put_header(buf, channel, kind::EXTENSION, size);
            varint::encode(id, buf);
        });
        let owner = Some(Owner::Root(self.root));
        self.io.trace(Direction::Out, channel, owner, kind::EXTENSION, Some(kind.name()), size);
    }

    fn on_channel(&self) -> bool {
        self.dialect == Dialect::Channel
    }

    fn shared_extensions(&self) -> Vec<Arc<str>> {
        shared(&self.io.extensions)
    }

    fn shared_root_extensions(&self) -> Vec<Arc<str>> {
        if self.on_channel() { shared(self.extensions) } else { Vec::new() }
    }

    fn event(&mut self, event: Event) {
        self.io.events.push(event);
    }
}

/// What both sides speak, apart from multifeed's own.
fn shared(extensions: &Extensions) -> Vec<Arc<str>> {
    extensions.shared().filter(|name| Kind::from_name(name).is_none()).cloned().collect()
}
