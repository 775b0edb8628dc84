//! A writer withholds the blocks of its feed while it compares histories with a remote, and for no longer: the remote is played by hand, on
//! virtual time.

use crate::{common, played};

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use common::{create, key_pair};
use multifeed_core::{Answer, Feed, MemoryStorage, Multifeed, Options, Replicate};
use multifeed_proto::{Command, Event, Have, Message, Origin, Request, Root, Token};
use played::Played;

/// How long a message takes, each way.
const WAY: u64 = 150;
const WINDOW: u64 = 1 << 20;
/// How many blocks the writer has.
const COUNT: u64 = 1_000;

/// A reader as JS is, that gets a block from somebody else every now and then, and tells of it.
struct Reader {
    played: Played,
    feed: Feed,
    disk: MemoryStorage,
    /// What is on its way to the writer, and to the reader, and when it arrives, in milliseconds.
    there: VecDeque<(u64, Message)>,
    back: VecDeque<(u64, Message)>,
    /// The blocks that the writer sent, each with when it came.
    came: Vec<(u64, u64)>,
    now: u64,
}

fn block(index: u64) -> Bytes {
    index.to_le_bytes().to_vec().into()
}

fn arrived(wire: &mut VecDeque<(u64, Message)>, now: u64) -> Option<Message> {
    wire.front().is_some_and(|(at, _)| *at <= now).then(|| wire.pop_front())?.map(|(_, message)| message)
}

impl Reader {
    /// It has so many blocks as it meets the writer.
    fn new(count: u64) -> Self {
        let mut store = Multifeed::open(MemoryStorage::default(), Options::default()).unwrap();
        let id = store.writer(None, || key_pair(1)).unwrap();
        store.append(id, &(0..COUNT).map(block).collect::<Vec<_>>()).unwrap();
        store.commit(Duration::ZERO);
        let mut disk = MemoryStorage::new();
        let feed = create(&mut disk, 0, 1, None);
        let key = feed.key();
        let mut played = Played::start(store, Replicate::live(), true);
        played.event(Event::Replicate { root: Root::FIRST, keys: vec![key], origin: Origin::Local });
        played.event(Event::Opened { token: Token(0) });
        let (there, back) = Default::default();
        let mut reader = Self { played, feed, disk, there, back, came: Vec::new(), now: 0 };
        (0..count).for_each(|index| reader.get(block(index)));
        reader.say(Message::Want { start: 0, length: WINDOW });
        reader
    }

    fn get(&mut self, block: Bytes) {
        let range = self.feed.append(&mut self.disk, &[block]).unwrap();
        self.feed.flush(&mut self.disk).unwrap();
        self.say(Message::Have(Have { start: range.start, length: 1, bitfield: None, ack: false }));
    }

    fn say(&mut self, message: Message) {
        self.there.push_back((self.now + WAY, message));
    }

    fn ask(&mut self, index: u64) {
        self.say(Message::Request(Request { index, bytes: 0, hash: false, nodes: 0 }));
    }

    /// Lets the clock come to a millisecond.
    fn time(&mut self, until: u64) {
        while self.now < until {
            self.now += 10;
            self.played.millis(self.now);
            while let Some(message) = arrived(&mut self.there, self.now) {
                self.played.event(Event::Message { token: Token(0), message });
            }
            for command in self.played.commands() {
                let Command::Send { message, .. } = command else { continue };
                self.back.push_back((self.now + WAY, message));
            }
            while let Some(message) = arrived(&mut self.back, self.now) {
                self.take(message);
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Want { start: 0, length } => {
                let have = Have { start: 0, length, bitfield: Some(Bytes::new()), ack: false };
                self.say(Message::Have(have));
                for start in 0..self.feed.len() {
                    self.say(Message::Have(Have { start, length: 1, bitfield: None, ack: false }));
                }
            }
            Message::Request(request) => {
                let Answer::Data(data) = self.feed.answer(&mut self.disk, &request).unwrap() else {
                    panic!("{request:?}")
                };
                self.say(Message::Data(data));
            }
            Message::Data(data) if data.value.is_some() => {
                self.came.push((data.index, self.now));
                self.say(Message::Have(Have { start: data.index, length: 1, bitfield: None, ack: true }));
            }
            _ => {}
        }
    }
}

/// It tells of more every 100 ms, sooner than any answer comes: what it asks for is withheld for two round trips, not until it stands still.
#[test]
fn a_reader_that_grows_faster_than_a_round_trip_is_served() {
    let mut reader = Reader::new(10);
    reader.time(2_000);
    let mut asked = Vec::new();
    for step in 0..100 {
        reader.get(block(reader.feed.len()));
        if step % 10 == 0 {
            // Far from what it gets elsewhere, and what it has the neighbours of.
            for index in [500 + step, reader.feed.len() + 30] {
                reader.ask(index);
                asked.push((index, reader.now));
            }
        }
        reader.time(reader.now + 100);
    }
    reader.time(reader.now + 1_000);
    let mut came = reader.came.clone();
    came.sort_unstable();
    asked.sort_unstable();
    assert_eq!(came.len(), asked.len());
    for ((index, at), (asked, since)) in came.into_iter().zip(asked) {
        assert_eq!(index, asked);
        assert!(at - since <= 3 * 2 * WAY, "block {index} took {} ms", at - since);
    }
}

/// What it asked for before its history was looked at is served. What it asks for since is not, as it may have another one by then.
#[test]
fn what_is_asked_for_since_waits_for_the_next_answer() {
    let mut reader = Reader::new(10);
    reader.time(2_000);
    reader.get(block(10));
    reader.time(reader.now + WAY);
    // The writer asks about eleven blocks, and hears of a request meanwhile.
    reader.ask(12);
    reader.time(reader.now + WAY);
    // It heard of eleven. What the reader gets next somebody else has signed.
    reader.get(Bytes::from("another"));
    reader.time(reader.now + 3_000);
    assert_eq!(reader.came, []);
    let told = std::iter::from_fn(|| reader.played.store.poll_event());
    let conflicts = told.filter(|event| matches!(event, multifeed_core::MultifeedEvent::Conflict { .. })).count();
    assert_eq!(conflicts, 1);
}
