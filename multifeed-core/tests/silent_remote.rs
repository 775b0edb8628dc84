//! Remotes that tell of a new feed and do not bring it: an honest one does, after each of them had its turn.

use crate::common;
use crate::played;

use std::time::Duration;

use bytes::Bytes;
use common::{block, blocks, create};
use multifeed_core::{
    Answer, Feed, Limits, MemoryStorage, Multifeed, Options, Replicate, SessionId, Want, WantOptions,
};
use multifeed_proto::{Command, Data, Event, FeedKey, Have, Message, Origin, Request, Root, Token};
use played::Played;

/// How often timers are looked at, in seconds, as it is in the store.
const STEP: u64 = 2;
/// Longer than any of these takes.
const LONG: u64 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Remote {
    Honest,
    /// Answers nothing.
    Silent,
    /// Answers nothing, and tells of the blocks anew all the time.
    Again,
    /// As that, and tells of so many that it is asked what it has all the time, which it answers.
    Asked,
    /// Takes each block back that it is asked for, and tells of it anew.
    Unhaves,
    /// As that, of all blocks.
    UnhavesAll,
    /// Answers with the hash alone, and tells of the block anew.
    Hashes,
    /// Closes the channel, and offers the feed anew.
    Closes,
    /// Serves nothing any more when it is asked, and then does again.
    Stops,
    /// Has answers that the test gives when it wants to.
    Waits,
}

use Remote::*;

const LIARS: [Remote; 8] = [Silent, Again, Asked, Unhaves, UnhavesAll, Hashes, Closes, Stops];

struct Net {
    store: Multifeed<MemoryStorage>,
    now: Duration,
    /// Each with its channel, and what it was asked and did not answer.
    remotes: Vec<(SessionId, Remote, Option<Token>, Vec<Request>)>,
    source: (Feed, MemoryStorage),
    key: FeedKey,
}

impl Net {
    /// A feed of so many blocks, which is `added` to the store or is none of it, and remotes that tell of all of them in this order.
    fn new(count: u64, added: bool, remotes: &[Remote], options: &Replicate) -> Self {
        let mut disk = MemoryStorage::new();
        let mut source = create(&mut disk, 0, 1, None);
        source.append(&mut disk, &blocks(1, 0..count)).unwrap();
        let key = source.key();
        let mut store = empty();
        if added {
            store.add(key).unwrap();
            store.commit(Duration::ZERO);
        }
        let mut net = Self { store, now: Duration::ZERO, remotes: Vec::new(), source: (source, disk), key };
        net.meet(remotes, options);
        net
    }

    fn meet(&mut self, remotes: &[Remote], options: &Replicate) {
        for &remote in remotes {
            let store = std::mem::replace(&mut self.store, empty());
            let Played { store, peer, .. } = Played::start(store, options.clone(), options.live);
            self.store = store;
            self.remotes.push((peer, remote, None, Vec::new()));
            self.offer(peer);
        }
        self.run();
    }

    fn offer(&mut self, peer: SessionId) {
        let keys = vec![self.key];
        self.event(peer, Event::Manifest { root: Root::FIRST, keys: keys.clone(), fields: None });
        self.event(peer, Event::Replicate { root: Root::FIRST, keys, origin: Origin::Remote });
    }

    fn event(&mut self, peer: SessionId, event: Event) {
        self.store.handle(peer, event, self.now);
        self.store.commit(self.now);
    }

    fn message(&mut self, at: usize, message: Message) {
        if let (peer, _, Some(token), _) = self.remotes[at] {
            self.event(peer, Event::Message { token, message });
        }
    }

    fn count(&self) -> u64 {
        self.source.0.len()
    }

    /// All remotes answer what they are asked, one message at a time; a liar goes on for so long that nobody else would get a word in.
    fn run(&mut self) {
        let mut busy = true;
        for _ in 0..2_000 {
            if !std::mem::take(&mut busy) {
                return;
            }
            for at in 0..self.remotes.len() {
                if let Some(command) = self.store.poll_command(self.remotes[at].0) {
                    busy = true;
                    self.answer(at, command);
                }
            }
        }
    }

    fn answer(&mut self, at: usize, command: Command) {
        let (peer, remote, ..) = self.remotes[at];
        let count = self.count();
        match command {
            Command::Open { token, .. } => {
                self.remotes[at].2 = Some(token);
                self.event(peer, Event::Opened { token });
                self.message(at, have(0, count));
            }
            Command::Close { token } => self.event(peer, Event::ChannelClosed { token }),
            Command::Send { message: Message::Want { start, length }, .. } => {
                self.message(at, bitfield(start, length, count));
            }
            Command::Send { message: Message::Request(request), .. } => self.asked(at, remote, &request),
            _ => {}
        }
    }

    fn asked(&mut self, at: usize, remote: Remote, request: &Request) {
        let (peer, count, index) = (self.remotes[at].0, self.count(), request.index);
        match remote {
            Honest => self.bring(at, request),
            Silent | Again | Asked | Waits => self.remotes[at].3.push(*request),
            Unhaves => {
                self.message(at, Message::Unhave { start: index, length: 1 });
                self.message(at, have(index, 1));
            }
            UnhavesAll => {
                self.message(at, Message::Unhave { start: 0, length: count });
                self.message(at, have(0, count));
            }
            Hashes => {
                let data = Data { index, value: None, nodes: Vec::new(), signature: None };
                self.message(at, Message::Data(data));
                self.message(at, have(index, 1));
            }
            Closes => {
                let Some(token) = self.remotes[at].2.take() else { return };
                self.event(peer, Event::ChannelClosed { token });
                self.offer(peer);
            }
            Stops => {
                self.message(at, Message::Status { uploading: false, downloading: true });
                self.message(at, Message::Status { uploading: true, downloading: true });
                self.message(at, have(0, count));
            }
        }
    }

    fn bring(&mut self, at: usize, request: &Request) {
        let Answer::Data(data) = self.source.0.answer(&mut self.source.1, request).unwrap() else {
            panic!("no answer to {request:?}");
        };
        self.message(at, Message::Data(data));
    }

    /// Lets time pass.
    fn step(&mut self) {
        let count = self.count();
        let due = self.store.poll_timeout().expect("there are sessions");
        self.now = due.max(self.now);
        self.store.handle_timeout(self.now);
        self.store.commit(self.now);
        for at in 0..self.remotes.len() {
            match self.remotes[at].1 {
                Again => self.message(at, have(0, count)),
                Asked => self.message(at, have(0, 1 << 21)),
                _ => {}
            }
        }
        self.run();
    }

    fn downloaded(&self) -> u64 {
        self.store.find(&self.key).map_or(0, |id| self.store.info(id).unwrap().downloaded)
    }

    /// Lets time pass until all of the feed is here: how long that took, in request timeouts, apart from the time between two looks at the timers.
    fn complete(mut self, case: &str) -> u64 {
        let patience = Limits::default().request_timeout.as_secs();
        while self.downloaded() < self.count() && self.now.as_secs() < LONG {
            self.step();
        }
        assert_eq!(self.downloaded(), self.count(), "{case}");
        let id = self.store.find(&self.key).unwrap();
        (0..self.count()).for_each(|at| assert_eq!(self.store.get(id, at).unwrap(), Some(block(1, at)), "{case}"));
        self.now.as_secs() / (patience + STEP)
    }
}

fn empty() -> Multifeed<MemoryStorage> {
    Multifeed::open(MemoryStorage::default(), Options::default()).unwrap()
}

fn have(start: u64, length: u64) -> Message {
    Message::Have(Have { start, length, bitfield: None, ack: false })
}

/// What a remote with so many blocks answers to a Want.
fn bitfield(start: u64, length: u64, count: u64) -> Message {
    let mut bits = vec![0u8; count.div_ceil(8) as usize];
    (start..count).for_each(|index| bits[index as usize / 8] |= 0x80 >> (index % 8));
    let bits = if start < count { bits } else { Vec::new() };
    assert!(bits.len() < 64, "the header is one byte");
    let coded = std::iter::once((bits.len() as u8) << 1).chain(bits).collect::<Vec<_>>();
    Message::Have(Have { start, length, bitfield: Some(Bytes::from(coded)), ack: false })
}

fn live() -> Replicate {
    Replicate { live: true, ..Replicate::default() }
}

fn once() -> Replicate {
    Replicate { live: false, ..Replicate::default() }
}

/// Feeds that are asked for all at once, and one block at a time until one is proven.
const COUNTS: [u64; 3] = [1, 3, 40];

fn cases(liars: &[Remote], most: u64) {
    for count in COUNTS {
        for added in [false, true] {
            for options in [live(), once()] {
                for honest in 0..=liars.len() {
                    let mut remotes = liars.to_vec();
                    remotes.insert(honest, Honest);
                    let case = format!("{count} blocks, added {added}, {remotes:?}, {options:?}");
                    let timeouts = Net::new(count, added, &remotes, &options).complete(&case);
                    assert!(timeouts <= most, "{case}: {timeouts}");
                }
            }
        }
    }
}

#[test]
fn one_that_does_not_bring_a_new_feed_is_passed_over_after_one_timeout() {
    for liar in LIARS {
        cases(&[liar], 1);
    }
}

#[test]
fn of_several_each_has_one_turn() {
    for first in LIARS {
        for second in LIARS {
            cases(&[first, second], 2);
        }
        cases(&[first; 3], 3);
    }
}
/// The block after the end is the one that has to come before any other, so whoever is asked for it holds up all.
#[test]
fn nor_can_one_keep_a_feed_from_growing() {
    for liar in LIARS {
        for liars in 1..3 {
            for honest in 0..=liars {
                let mut net = Net::new(1, false, &[Honest], &live());
                assert_eq!(net.downloaded(), 1);
                net.store.disconnect(net.remotes.remove(0).0);
                let (source, disk) = &mut net.source;
                source.append(disk, &blocks(1, 1..40)).unwrap();
                let mut remotes = vec![liar; liars];
                remotes.insert(honest, Honest);
                net.meet(&remotes, &live());
                let case = format!("{remotes:?}");
                let timeouts = net.complete(&case);
                assert!(timeouts <= 2 * liars as u64, "{case}: {timeouts}");
            }
        }
    }
}

/// Two remotes may have two histories of one feed: until the first block is proven one of them is asked alone, whatever is waited for.
#[test]
fn of_a_new_feed_one_remote_is_asked_at_a_time() {
    for count in COUNTS {
        for waited_for in 0..count.min(3) {
            let mut net = Net::new(count, true, &[], &live());
            let id = net.store.find(&net.key).unwrap();
            net.store.want(id, Want::Block(waited_for), WantOptions::default()).unwrap();
            net.meet(&[Waits, Waits], &live());
            let asked = |net: &Net| net.remotes.iter().map(|remote| remote.3.len()).collect::<Vec<_>>();
            assert!(asked(&net)[0] > 0 && asked(&net)[1] == 0, "{count}, {waited_for}: {:?}", asked(&net));
            let first = net.remotes[0].3.remove(0);
            net.bring(0, &first);
            net.run();
            assert_eq!(net.downloaded(), 1);
            net.remotes.iter_mut().for_each(|remote| remote.1 = Honest);
            for request in std::mem::take(&mut net.remotes[0].3) {
                net.bring(0, &request);
            }
            net.run();
            let rest = std::mem::take(&mut net.remotes[1].3);
            rest.iter().for_each(|request| net.bring(1, request));
            net.run();
            assert_eq!(net.complete("both"), 0);
        }
    }
}
