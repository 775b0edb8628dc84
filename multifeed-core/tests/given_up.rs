//! A remote that tells of blocks, and brings them late or never: what the session reports of them, and that it takes what comes late.

use crate::common;
use crate::played;

use std::collections::BTreeSet;

use bytes::Bytes;
use common::{blocks, create, create_copy, pull};
use multifeed_core::{Answer, Feed, MemoryStorage, Multifeed, Options, PeerEvent, Replicate, SyncError};
use multifeed_proto::{Command, Event, FeedKey, Have, Message, Origin, Request, Root, Token};
use played::Played;

/// A remote with one feed, whose answers the test gives when it wants to.
struct Remote {
    played: Played,
    source: (Feed, MemoryStorage),
    token: Option<Token>,
    asked: Vec<Request>,
    events: Vec<PeerEvent>,
}

impl Remote {
    /// The feed is new to the store, or its first blocks are held.
    fn new(count: u64, held: u64, live: bool) -> Self {
        let mut remote = Self::with_blocks(count, 0, live);
        while remote.held() < held {
            let request = remote.asked.remove(0);
            remote.bring(request);
        }
        remote
    }

    /// The store holds the feed's first blocks before the session begins.
    fn with_blocks(count: u64, held: u64, live: bool) -> Self {
        let mut disk = MemoryStorage::new();
        let mut source = create(&mut disk, 0, 1, None);
        source.append(&mut disk, &blocks(1, 0..count)).unwrap();
        let mut here = MemoryStorage::default();
        if held > 0 {
            let mut copy = create_copy(&mut here, 0, 1);
            (0..held).for_each(|index| _ = pull((&mut source, &mut disk), (&mut copy, &mut here), index));
            copy.flush(&mut here).unwrap();
        }
        let store = Multifeed::open(here, Options::default()).unwrap();
        let played = Played::start(store, Replicate { live, ..Replicate::default() }, live);
        let mut remote = Self { played, source: (source, disk), token: None, asked: Vec::new(), events: Vec::new() };
        remote.played.store.observe(remote.played.peer);
        let keys = vec![remote.key()];
        remote.played.event(Event::Manifest { root: Root::FIRST, keys: keys.clone(), fields: None });
        remote.played.event(Event::Replicate { root: Root::FIRST, keys, origin: Origin::Remote });
        remote.played.event(Event::Replicate { root: Root::FIRST, keys: Vec::new(), origin: Origin::Local });
        remote.run();
        remote
    }

    fn key(&self) -> FeedKey {
        self.source.0.key()
    }

    fn count(&self) -> u64 {
        self.source.0.len()
    }

    /// Answers all but requests.
    fn run(&mut self) {
        loop {
            self.events.extend(self.played.events());
            let commands = self.played.commands();
            if commands.is_empty() {
                return;
            }
            for command in commands {
                match command {
                    Command::Open { token, .. } => {
                        self.token = Some(token);
                        self.played.event(Event::Opened { token });
                    }
                    Command::Close { token } => {
                        self.token = None;
                        self.played.event(Event::ChannelClosed { token });
                    }
                    Command::Send { message: Message::Want { start, length }, .. } => {
                        let bits: Vec<u8> = match start {
                            0 => (0..self.count().div_ceil(8)).map(|at| byte(self.count() - 8 * at)).collect(),
                            _ => Vec::new(),
                        };
                        let coded = [vec![(bits.len() as u8) << 1], bits].concat();
                        self.message(Message::Have(Have {
                            start,
                            length,
                            bitfield: Some(Bytes::from(coded)),
                            ack: false,
                        }));
                    }
                    Command::Send { message: Message::Request(request), .. } => self.asked.push(request),
                    // As JS does if neither side is live.
                    Command::Send { message: Message::Status { downloading: false, .. }, .. } => {
                        self.message(Message::Status { uploading: true, downloading: false });
                    }
                    Command::Finish => self.played.event(Event::Closed(Ok(()))),
                    _ => {}
                }
            }
        }
    }

    fn message(&mut self, message: Message) {
        if let Some(token) = self.token {
            self.played.event(Event::Message { token, message });
        }
    }

    fn bring(&mut self, request: Request) {
        let Answer::Data(data) = self.source.0.answer(&mut self.source.1, &request).unwrap() else { panic!() };
        self.message(Message::Data(data));
        self.run();
    }

    fn time(&mut self, seconds: u64) {
        for second in self.played.now.as_secs() + 1..=seconds {
            self.played.time(second);
            self.run();
        }
    }

    fn held(&self) -> u64 {
        let store = &self.played.store;
        store.find(&self.key()).map_or(0, |id| store.info(id).unwrap().downloaded)
    }

    /// What is reported of it now, and what was reported last.
    fn reports(&self) -> (bool, u64) {
        let state = self.played.store.sync_state(self.played.peer, self.played.now).unwrap();
        let told = self.events.iter().rev().find_map(|event| match event {
            PeerEvent::Progress(state) => Some((state.in_sync, state.missing_here)),
            _ => None,
        });
        assert_eq!(told, Some((state.in_sync, state.missing_here)));
        (state.in_sync, state.missing_here)
    }

    fn ended(&self) -> Option<&Result<multifeed_core::SyncTotals, SyncError>> {
        self.events.iter().find_map(|event| match event {
            PeerEvent::Closed(result) => Some(result),
            _ => None,
        })
    }
}

/// The first blocks of a byte of a bitfield.
fn byte(blocks: u64) -> u8 {
    if blocks >= 8 { 0xff } else { !(0xff >> blocks) }
}

#[test]
fn blocks_that_were_given_up_are_missing_and_the_session_is_not_in_sync() {
    for (count, held) in [(1, 0), (2, 0), (3, 0), (16, 0), (40, 0), (40, 3)] {
        let mut remote = Remote::new(count, held, true);
        for second in 1..200 {
            remote.time(second);
            assert_eq!(remote.reports(), (false, count - held), "{count}, {held}, after {second} s");
        }
        // What the remote says that it lost counts no more.
        remote.message(Message::Unhave { start: 0, length: count });
        remote.run();
        assert_eq!(remote.reports(), (true, 0), "{count}, {held}");
    }
}

#[test]
fn late_blocks_of_a_new_feed_are_taken() {
    for (count, held) in [(1, 0), (3, 0), (40, 0), (40, 3)] {
        for late in [25, 30, 90] {
            let mut remote = Remote::new(count, held, true);
            remote.time(late);
            for request in std::mem::take(&mut remote.asked) {
                remote.bring(request);
            }
            let taken = remote.held();
            assert!(taken > held, "{count}, {held}, {late}: {taken}");
            for _ in 0..count {
                for request in std::mem::take(&mut remote.asked) {
                    remote.bring(request);
                }
            }
            assert_eq!((remote.held(), remote.reports()), (count, (true, 0)), "{late}");
        }
    }
}

#[test]
fn a_session_with_a_remote_that_brings_nothing_ends_soon() {
    for (count, held) in [(1, 0), (3, 0), (50, 0), (500, 0), (500, 1), (500, 300)] {
        let mut remote = Remote::new(count, held, false);
        remote.time(58);
        match remote.ended() {
            Some(Err(SyncError::GivenUp { blocks, feeds: 1 })) => assert_eq!(*blocks, count - held),
            other => panic!("{count}, {held}: {other:?}"),
        }
    }
}

#[test]
fn one_that_brings_something_now_and_then_is_asked_for_the_rest() {
    let mut remote = Remote::new(50, 0, false);
    for second in [15, 30, 45, 60, 75] {
        remote.time(second);
        let request = remote.asked.remove(0);
        remote.bring(request);
    }
    assert!(remote.ended().is_none() && remote.held() == 5, "{}", remote.held());
}

/// Only so many machines stay for what may come late; what is put away counts too.
#[test]
fn nor_is_it_in_sync_with_many_new_feeds_of_which_nothing_comes() {
    let mut options = Options::default();
    options.limits.feeds_asked = 2;
    let store = Multifeed::open(MemoryStorage::default(), options).unwrap();
    let mut played = Played::start(store, Replicate { live: true, ..Replicate::default() }, true);
    played.store.observe(played.peer);
    let keys: Vec<FeedKey> = (1..=7).map(|seed| create(&mut MemoryStorage::new(), 0, seed, None).key()).collect();
    played.event(Event::Manifest { root: Root::FIRST, keys: keys.clone(), fields: None });
    played.event(Event::Replicate { root: Root::FIRST, keys, origin: Origin::Remote });
    played.event(Event::Replicate { root: Root::FIRST, keys: Vec::new(), origin: Origin::Local });
    let mut asked = BTreeSet::new();
    for second in 1..200 {
        for command in played.commands() {
            match command {
                Command::Open { token, .. } => played.event(Event::Opened { token }),
                Command::Send { token, message: Message::Want { start, length } } => {
                    let bitfield = Some(Bytes::from_static(if start == 0 { &[0x02, 0x80] } else { &[0x00] }));
                    let message = Message::Have(Have { start, length, bitfield, ack: false });
                    played.event(Event::Message { token, message });
                }
                Command::Send { token, message: Message::Request(_) } => _ = asked.insert(token),
                _ => {}
            }
        }
        assert!(!played.store.in_sync(played.peer), "after {second} s");
        played.time(second);
    }
    let state = played.store.sync_state(played.peer, played.now).unwrap();
    assert_eq!((asked.len(), state.missing_here, state.in_sync), (7, 7, false));
}

/// The hashes of a block are asked for first, to compare the histories, and its value later. If the hashes come after both were asked for, they are no
/// refusal of the block.
#[test]
fn hashes_that_come_late_are_no_refusal_of_the_block() {
    for live in [false, true] {
        let mut remote = Remote::with_blocks(10, 3, live);
        let question = remote.asked.remove(0);
        assert!(question.hash && remote.asked.is_empty(), "{question:?}");
        remote.time(21);
        let requests = |remote: &Remote| remote.asked.iter().any(|request| request.index == question.index);
        while !requests(&remote) {
            let request = remote.asked.remove(0);
            remote.bring(request);
        }
        remote.bring(question);
        while !remote.asked.is_empty() {
            let request = remote.asked.remove(0);
            remote.bring(request);
        }
        assert_eq!(remote.held(), 10, "live: {live}");
        for event in &remote.events {
            if let PeerEvent::Closed(result) = event {
                assert!(result.as_ref().is_ok_and(|totals| totals.holes.is_empty()), "{result:?}");
            }
        }
    }
}
