//! Events that the caller has not polled yet, and what they hold on to.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem::size_of;
use core::ops::RangeInclusive;

use crate::event::Event;
use crate::exchange::ManifestFields;
use crate::ids::{Root, Token};
use crate::json::Json;
use crate::key::FeedKey;
use crate::trace::Scope;
use crate::wire::message::{Have, Message, Node};

/// What a buffer of the input holds at the least; more than this is not charged for what came before a message.
const BUFFER: usize = 256 * 1024;

/// A queue of events, each with the bytes that it pins.
#[derive(Debug, Default)]
pub(crate) struct Events {
    queue: VecDeque<(Event, usize)>,
    bytes: usize,
    /// Bytes of the read buffers that no event was charged for.
    read: usize,
}

impl Events {
    /// A frame of so many bytes was read, with what was skipped in front of it. The next message that is a slice of the buffer
    /// pays for them: however small it is, it pins what it came in.
    pub(crate) fn read(&mut self, bytes: usize) {
        self.read = self.read.min(BUFFER).saturating_add(bytes);
    }

    pub(crate) fn push(&mut self, event: Event) {
        let pinned = if is_slice(&event) { core::mem::take(&mut self.read) } else { owned(&event) };
        let bytes = size_of::<(Event, usize)>() + pinned;
        self.bytes += bytes;
        self.queue.push_back((event, bytes));
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        let (event, bytes) = self.queue.pop_front()?;
        self.bytes = self.bytes.saturating_sub(bytes);
        Some(event)
    }

    /// The caller closed a channel: nothing more comes from it but what it told of meanwhile.
    pub(crate) fn close(&mut self, token: Token) {
        let told = self.queue.iter().filter_map(|(event, _)| match event {
            Event::Message { token: of, message: Message::Have(have) } if *of == token => Some(have.clone()),
            _ => None,
        });
        let told: Vec<Have> = told.collect();
        self.forget(&(token..=token));
        told.iter().for_each(|have| self.late_have(token, have));
    }

    /// The remote told of blocks on a channel that the caller had closed.
    pub(crate) fn late_have(&mut self, token: Token, have: &Have) {
        if have.bitfield.is_none() && !have.ack {
            let blocks = have.start..have.start.saturating_add(have.length.max(1));
            self.push(Event::LateHave { token, blocks });
        }
    }

    /// The caller took channels off the stream: nothing more comes from them.
    pub(crate) fn forget(&mut self, tokens: &RangeInclusive<Token>) {
        self.drop_all(|event| match event {
            Event::Opened { token }
            | Event::ChannelClosed { token }
            | Event::Message { token, .. }
            | Event::Partial { token, .. } => tokens.contains(token),
            Event::Extension { scope: Scope::Channel(token), .. } => tokens.contains(token),
            _ => false,
        });
    }

    /// The caller took a multifeed off the stream: nothing more comes of it.
    pub(crate) fn forget_root(&mut self, root: Root) {
        self.drop_all(|event| match event {
            Event::Ready { root: of, .. }
            | Event::Manifest { root: of, .. }
            | Event::Replicate { root: of, .. }
            | Event::RootClosed { root: of, .. } => *of == root,
            _ => false,
        });
    }

    fn drop_all(&mut self, is_its: impl Fn(&Event) -> bool) {
        let bytes = &mut self.bytes;
        self.queue.retain(|(event, held)| {
            let keep = !is_its(event);
            *bytes -= if keep { 0 } else { (*held).min(*bytes) };
            keep
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes that the events hold on to.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Whether an event holds slices of the buffer that it was read into.
fn is_slice(event: &Event) -> bool {
    match event {
        Event::Extension { .. } => true,
        Event::Message { message, .. } => match message {
            Message::Data(data) => data.value.is_some(),
            Message::Have(have) => have.bitfield.is_some(),
            Message::Extension { .. } => true,
            _ => false,
        },
        _ => false,
    }
}

/// Bytes on the heap that are an event's own.
fn owned(event: &Event) -> usize {
    match event {
        Event::Manifest { keys, fields, .. } => {
            keys.capacity() * size_of::<FeedKey>() + fields.as_ref().map_or(0, ManifestFields::len)
        }
        Event::Replicate { keys, .. } => keys.capacity() * size_of::<FeedKey>(),
        Event::Ready { remote, .. } => {
            let user_data = remote.user_data.as_ref().map_or(0, |json: &Json| json.as_str().len());
            remote.version.capacity() + remote.client.capacity() + user_data
        }
        Event::Message { message: Message::Data(data), .. } => data.nodes.capacity() * size_of::<Node>(),
        Event::Message { message: Message::Options(options), .. } => {
            options.extensions.iter().map(|name| size_of::<alloc::string::String>() + name.capacity()).sum()
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const EACH: usize = size_of::<(Event, usize)>();

    fn extension() -> Event {
        Event::Message { token: Token(1), message: Message::Extension { id: 0, body: Bytes::new() } }
    }

    #[test]
    fn slices_pay_for_what_was_read_and_lists_for_what_they_hold() {
        let mut events = Events::default();
        events.read(100);
        events.push(Event::RemoteEnded);
        assert_eq!(events.bytes(), EACH);
        let keys = alloc::vec![FeedKey::new([1; 32]); 10];
        events.push(Event::Manifest { root: Root::FIRST, keys, fields: None });
        assert_eq!(events.bytes(), 2 * EACH + 320);
        events.read(20);
        events.push(extension());
        events.push(extension());
        assert_eq!(events.bytes(), 4 * EACH + 440);
        let have = Have { start: 0, length: 1, bitfield: None, ack: false };
        events.read(50);
        events.push(Event::Message { token: Token(1), message: Message::Have(have) });
        assert_eq!((events.bytes(), events.len()), (5 * EACH + 440, 5));
        while events.pop().is_some() {}
        assert_eq!((events.bytes(), events.len(), events.is_empty()), (0, 0, true));
    }

    #[test]
    fn what_was_read_long_ago_is_not_charged() {
        let mut events = Events::default();
        for _ in 0..100 {
            events.read(BUFFER);
        }
        events.push(extension());
        assert_eq!(events.bytes(), EACH + 2 * BUFFER);
    }
}
