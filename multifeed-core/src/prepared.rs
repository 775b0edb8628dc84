//! The part of taking in blocks that needs no feed: hashing them, on any thread.

use multifeed_proto::{Data, Event, Message};

use crate::merkle::{leaf_hash, leaf_hashes};

/// A Data message with the leaf hash of its block.
#[derive(Debug, Clone)]
pub struct PreparedData {
    pub(crate) data: Data,
    pub(crate) leaf: Option<[u8; 32]>,
}

/// A session's event, with the leaf hash of the block that it brings, if that was computed.
#[derive(Debug)]
pub struct PreparedEvent {
    pub(crate) event: Event,
    pub(crate) leaf: Option<[u8; 32]>,
}

impl PreparedData {
    /// Returns the block that it is about.
    pub fn index(&self) -> u64 {
        self.data.index
    }

    /// Returns the message itself.
    pub fn data(&self) -> &Data {
        &self.data
    }
}

impl From<Event> for PreparedEvent {
    fn from(event: Event) -> Self {
        Self { event, leaf: None }
    }
}

/// Hashes the block of a Data message. This is most of the work of taking it in, and is safe on any thread.
pub fn prepare(data: Data) -> PreparedData {
    let leaf = data.value.as_ref().map(|value| leaf_hash(value));
    PreparedData { data, leaf }
}

/// Hashes the blocks that came in these events, several at a time, which takes about half as long as one by one.
/// [`Multifeed::handle`](crate::Multifeed::handle) takes the events one after the other.
pub fn prepare_events(events: &mut Vec<Event>) -> impl Iterator<Item = PreparedEvent> + use<'_> {
    let blocks = events.iter().filter_map(block);
    let mut leaves = Vec::new();
    // One by itself waits for its turn: it may turn out not to be wanted.
    if blocks.clone().nth(1).is_some() {
        leaf_hashes(blocks, &mut leaves);
    }
    let mut leaves = leaves.into_iter();
    events.drain(..).map(move |event| {
        let leaf = block(&event).and_then(|_| leaves.next());
        PreparedEvent { event, leaf }
    })
}

/// The block that an event brings.
fn block(event: &Event) -> Option<&[u8]> {
    match event {
        Event::Message { message: Message::Data(Data { value: Some(value), .. }), .. } => Some(value),
        _ => None,
    }
}
