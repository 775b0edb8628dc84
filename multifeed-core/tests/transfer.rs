//! How much a session asks its remote for at once, how long it waits for it, and when it leaves one that never says that it is done. The
//! remote is played by hand, on virtual time.

use crate::common;
use crate::played;

use std::time::Duration;

use bytes::Bytes;
use common::{create, key_pair};
use multifeed_core::{Answer, Feed, MemoryStorage, Multifeed, Options, PeerEvent, Replicate, SyncError};
use multifeed_proto::{Command, Event, FeedKey, Have, Message, Origin, Request, Root, Token};
use played::Played;

const MI: u64 = 1 << 20;

/// A remote that has some feeds, each of so many blocks of so many bytes, and a session that asked for them.
struct Remote {
    played: Played,
    feeds: Vec<(Feed, MemoryStorage)>,
    /// What it was asked for and did not answer, each with its feed.
    asked: Vec<(usize, Request)>,
    live: bool,
}

impl Remote {
    fn new(feeds: u8, count: u64, size: usize, options: Replicate) -> Self {
        let store = Multifeed::open(MemoryStorage::default(), Options::default()).unwrap();
        let live = options.live;
        let mut played = Played::start(store, options, live);
        played.store.observe(played.peer);
        let feeds: Vec<_> = (0..feeds)
            .map(|n| {
                let mut disk = MemoryStorage::new();
                let mut feed = create(&mut disk, 0, n, None);
                let blocks: Vec<Bytes> = (0..count).map(|index| vec![index as u8; size].into()).collect();
                feed.append(&mut disk, &blocks).unwrap();
                (feed, disk)
            })
            .collect();
        let mut keys: Vec<FeedKey> = feeds.iter().map(|(feed, _)| feed.key()).collect();
        keys.sort_unstable();
        let mut remote = Self { played, feeds, asked: Vec::new(), live };
        remote.event(Event::Manifest { root: Root::FIRST, keys: keys.clone(), fields: None });
        remote.event(Event::Replicate { root: Root::FIRST, keys: vec![], origin: Origin::Local });
        remote.event(Event::Replicate { root: Root::FIRST, keys, origin: Origin::Remote });
        remote
    }

    /// A feed's channel is named by when it was opened, which was in the order of the discovery keys.
    fn token(&self, feed: usize) -> Token {
        let key = self.feeds[feed].0.key().discovery_key();
        Token(self.feeds.iter().filter(|(other, _)| other.key().discovery_key() < key).count() as u64)
    }

    fn event(&mut self, event: Event) {
        self.played.event(event);
        for command in self.played.commands() {
            match command {
                Command::Open { token, .. } => {
                    self.event(Event::Opened { token });
                }
                Command::Send { token, message: Message::Want { start: 0, length } } => {
                    let feed = (0..self.feeds.len()).find(|&feed| self.token(feed) == token).unwrap();
                    let count = self.feeds[feed].0.len();
                    assert!(count.is_multiple_of(8) && count < 8 * 64);
                    let mut bits = vec![(count / 8 * 2) as u8];
                    bits.resize(1 + count as usize / 8, 0xff);
                    let have = Have { start: 0, length, bitfield: Some(bits.into()), ack: false };
                    self.message(feed, Message::Have(have));
                }
                Command::Send { token, message: Message::Request(request) } => {
                    let feed = (0..self.feeds.len()).find(|&feed| self.token(feed) == token).unwrap();
                    self.asked.push((feed, request));
                }
                _ => {}
            }
        }
    }

    fn message(&mut self, feed: usize, message: Message) {
        let token = self.token(feed);
        self.event(Event::Message { token, message });
    }

    fn part(&mut self, feed: usize, bytes: usize) {
        let token = self.token(feed);
        self.event(Event::Partial { token, is_data: true, bytes });
    }

    /// Answers the oldest request: of which feed it was.
    fn answer(&mut self) -> usize {
        let (at, request) = self.asked.remove(0);
        self.bring(at, request);
        at
    }

    fn bring(&mut self, at: usize, request: Request) {
        let (feed, disk) = &mut self.feeds[at];
        let Answer::Data(data) = feed.answer(disk, &request).unwrap() else { panic!("no answer to {request:?}") };
        self.message(at, Message::Data(data));
    }

    fn time(&mut self, millis: u64) {
        let until = Duration::from_millis(millis);
        while self.played.now < until {
            self.played.now = self.played.store.poll_timeout().unwrap().min(until).max(self.played.now);
            self.played.store.handle_timeout(self.played.now);
            self.played.store.commit(self.played.now);
        }
    }

    fn held(&self) -> u64 {
        let store = &self.played.store;
        self.feeds
            .iter()
            .filter_map(|(feed, _)| store.find(&feed.key()))
            .map(|id| store.info(id).unwrap().downloaded)
            .sum()
    }

    fn in_sync(&self) -> bool {
        self.played.store.in_sync(self.played.peer)
    }

    /// The session ends, as the remote is done: how.
    fn end(&mut self) -> Result<(u64, u64), String> {
        for feed in 0..self.feeds.len() {
            self.message(feed, Message::Status { uploading: true, downloading: false });
        }
        self.event(Event::Closed(Ok(())));
        let events = self.played.events();
        let state = events.iter().rev().find_map(|event| match event {
            PeerEvent::Progress(state) => Some(state.in_sync),
            _ => None,
        });
        assert_eq!(state.unwrap_or(false), self.in_sync(), "the last progress says the same");
        match events.into_iter().next_back() {
            Some(PeerEvent::Closed(Ok(totals))) => Ok((totals.missing, totals.holes.len() as u64)),
            Some(PeerEvent::Closed(Err(SyncError::GivenUp { blocks, feeds }))) => Err(format!("{blocks} of {feeds}")),
            other => panic!("{other:?}"),
        }
    }
}

fn once() -> Replicate {
    Replicate::default()
}

#[test]
fn a_block_that_takes_long_is_waited_for_while_bytes_of_it_come() {
    for options in [once(), Replicate::live()] {
        let mut remote = Remote::new(1, 8, 1000, options);
        // 100 s for one block.
        for second in 1..=100 {
            remote.time(second * 1000);
            remote.part(0, 300);
            assert!(!remote.in_sync(), "{second}");
        }
        while !remote.asked.is_empty() {
            remote.answer();
        }
        assert_eq!((remote.held(), remote.in_sync()), (8, true));
        if !remote.live {
            assert_eq!(remote.end(), Ok((0, 0)));
            assert!(remote.in_sync());
        }
    }
}

#[test]
fn a_remote_that_trickles_is_given_up_and_said_to_be() {
    for bytes in [0, 1, 255] {
        let mut remote = Remote::new(2, 8, 1000, once());
        let until = |remote: &Remote, second| remote.played.now.as_secs() < second;
        while until(&remote, 25) {
            let next = remote.played.now.as_millis() as u64 + 1000;
            remote.time(next);
            remote.part(0, bytes);
        }
        assert_eq!((remote.held(), remote.in_sync()), (0, false));
        assert_eq!(remote.end(), Err("16 of 2".to_owned()), "{bytes}");
        assert!(!remote.in_sync());
    }
}

/// Of a feed that nothing of it is asked of, or of a block that nobody asked for.
#[test]
fn parts_of_what_was_not_asked_for_do_not_count() {
    let mut remote = Remote::new(1, 8, 1000, once());
    let asked = std::mem::take(&mut remote.asked);
    for second in 1..=18 {
        remote.time(second * 1000);
        remote.part(0, 10_000);
    }
    // It was the block that had been brought before.
    let (feed, first) = asked[0];
    remote.bring(feed, first);
    let held = remote.held();
    remote.time(20_000);
    for second in 21..=36 {
        remote.time(second * 1000);
        remote.part(0, 10_000);
    }
    remote.bring(feed, first);
    assert_eq!(remote.held(), held);
    remote.time(44_000);
    assert!(remote.end().is_err(), "what it brought was no answer");
}

#[test]
fn silence_that_is_our_own_does_not_count() {
    for all in [false, true] {
        let mut remote = Remote::new(1, 8, 1000, once());
        remote.time(10_000);
        let peer = remote.played.peer;
        // The store was busy for a minute, or what was asked was not sent.
        remote.played.now = Duration::from_secs(70);
        match all {
            true => remote.played.store.excuse_all(Duration::from_secs(60)),
            false => remote.played.store.excuse(peer, Duration::from_secs(60)),
        }
        remote.time(78_000);
        while !remote.asked.is_empty() {
            remote.answer();
        }
        assert_eq!((remote.held(), remote.end()), (8, Ok((0, 0))));
    }
}

#[test]
fn feeds_share_a_budget_and_take_turns() {
    // 4 MB in 40 feeds of 24 blocks, on a link that brings 100 KB a second.
    let mut remote = Remote::new(40, 24, 4000, once());
    let mut last = vec![0u64; 40];
    let mut brought = 0u64;
    let mut most = 0;
    while !remote.asked.is_empty() {
        brought += 1;
        remote.time(brought * 43);
        let feed = remote.answer();
        last[feed] = brought;
        if brought > 100 {
            most = most.max(remote.asked.len());
        }
    }
    assert_eq!(remote.held(), 40 * 24);
    // No more than what comes within a second waits in front of what the remote asks for.
    assert!((16..=24).contains(&most), "{most}");
    // None was done long before the others.
    let (first, all) = (last.iter().min().unwrap(), 40 * 24);
    assert!(*first > all / 2, "{last:?}");
    assert_eq!(remote.end(), Ok((0, 0)));
}

/// At 10 kB/s each small answer takes 0.4 s. What is asked for at once comes within seven seconds from the first request on, before any rate is
/// known, as from a JS peer that asks for 16. Whatever the remote asks for waits behind it.
#[test]
fn on_a_slow_link_little_is_asked_for_from_the_start() {
    for (feeds, count) in [(1, 104), (4, 24)] {
        let mut remote = Remote::new(feeds, count, 4_000, once());
        let (mut millis, mut most) = (0, remote.asked.len());
        while !remote.asked.is_empty() {
            millis += 426;
            remote.time(millis);
            remote.answer();
            most = most.max(remote.asked.len());
        }
        assert_eq!((remote.held(), remote.end()), (u64::from(feeds) * count, Ok((0, 0))));
        // Nor so little that the link would be idle.
        assert!((12..=16).contains(&most), "{feeds}: {most}");
    }
}

/// Small blocks that are asked for in a row, many at a time, each come with most of the same hashes. Scattered they do not.
#[test]
fn on_a_slow_link_small_blocks_cost_few_hashes() {
    let mut remote = Remote::new(1, 504, 100, once());
    let (mut millis, mut hashes, mut most) = (0, 0, 0);
    while !remote.asked.is_empty() {
        millis += 10;
        remote.time(millis);
        let (at, request) = remote.asked.remove(0);
        let (feed, disk) = &mut remote.feeds[at];
        let Answer::Data(data) = feed.answer(disk, &request).unwrap() else { panic!("no answer to {request:?}") };
        hashes += data.nodes.len();
        remote.message(at, Message::Data(data));
        most = most.max(remote.asked.len());
    }
    assert_eq!((remote.held(), remote.end()), (504, Ok((0, 0))));
    assert!((32..=48).contains(&most), "{most} at once");
    assert!(hashes < 504 * 5 / 2, "{hashes}");
}

#[test]
fn on_a_fast_link_the_budget_does_not_bind() {
    let mut remote = Remote::new(2, 504, 100, once());
    let mut most = 0;
    while !remote.asked.is_empty() {
        remote.answer();
        most = most.max(remote.asked.len());
    }
    assert_eq!(remote.held(), 2 * 504);
    assert!(most >= 256, "{most}");
}

#[test]
fn what_the_application_waits_for_is_asked_beyond_the_budget() {
    let mut remote = Remote::new(1, 504, 100_000, Replicate::live());
    while remote.asked.len() < 2 {
        remote.answer();
    }
    let waiting = remote.asked.len();
    let id = remote.played.store.find(&key_pair(0).public_key()).unwrap();
    let options = multifeed_core::WantOptions::default();
    remote.played.store.want(id, multifeed_core::Want::Block(500), options).unwrap();
    remote.event(Event::Partial { token: Token(0), is_data: true, bytes: 1 });
    assert_eq!(remote.asked.len(), waiting + 1);
    assert_eq!(remote.asked.last().unwrap().1.index, 500);
}

#[test]
fn a_js_peer_that_never_says_that_it_is_done_is_left() {
    for (lacks, in_sync) in [(false, true), (true, false)] {
        let store = Multifeed::open(MemoryStorage::default(), Options::default()).unwrap();
        let mut played = Played::start(store, once(), false);
        let id = played.store.writer(Some("w"), || key_pair(1)).unwrap();
        played.store.append(id, &[Bytes::from_static(b"a"), Bytes::from_static(b"b")]).unwrap();
        let key = played.store.info(id).unwrap().key;
        played.store.observe(played.peer);
        played.event(Event::Manifest { root: Root::FIRST, keys: vec![], fields: None });
        played.event(Event::Replicate { root: Root::FIRST, keys: vec![], origin: Origin::Remote });
        played.event(Event::Replicate { root: Root::FIRST, keys: vec![key], origin: Origin::Local });
        played.event(Event::Replicate { root: Root::FIRST, keys: vec![key], origin: Origin::Local });
        played.event(Event::Opened { token: Token(0) });
        let bits: &[u8] = if lacks { &[0x02, 0x80] } else { &[0x02, 0xc0] };
        let have = Have { start: 0, length: MI, bitfield: Some(Bytes::copy_from_slice(bits)), ack: false };
        let answer = |played: &mut Played, message| played.event(Event::Message { token: Token(0), message });
        answer(&mut played, Message::Have(have));
        let asks = played.commands().into_iter().find_map(|command| match command {
            Command::Send { message: Message::Request(request), .. } => Some(request),
            _ => None,
        });
        // Its history is looked at, which has to be answered.
        if let Some(request) = asks {
            let mut disk = MemoryStorage::new();
            let mut feed = create(&mut disk, 0, 1, None);
            feed.append(&mut disk, &[Bytes::from_static(b"a"), Bytes::from_static(b"b")]).unwrap();
            let Answer::Data(data) = feed.answer(&mut disk, &request).unwrap() else { panic!() };
            answer(&mut played, Message::Data(data));
        }
        played.time(4);
        assert!(!played.commands().contains(&Command::Close { token: Token(0) }));
        // It is reminded of the end; it fetches nothing, and says nothing.
        played.time(6);
        played.commands();
        played.time(12);
        let commands = played.commands();
        assert!(commands.contains(&Command::Close { token: Token(0) }), "lacks {lacks}");
        assert!(commands.contains(&Command::Finish), "{commands:?}");
        played.event(Event::Closed(Ok(())));
        let Some(PeerEvent::Closed(Ok(totals))) = played.events().pop() else { panic!("it failed") };
        // It was sent all that it asked for.
        assert_eq!((totals.not_taken, totals.unwanted), (0, u64::from(lacks)));
        assert_eq!(played.store.in_sync(played.peer), in_sync, "lacks {lacks}");
    }
}

/// A slow remote is met first, and a second later a fast one that has everything too.
#[test]
fn a_slow_remote_that_is_met_first_does_not_hold_up_a_fast_one() {
    for (slow, live) in [(43_000u64, true), (43_000, false), (4_300, true), (0, true)] {
        let options = Replicate { live, ..Replicate::default() };
        let mut remote = Remote::new(1, 504, 8_000, options.clone());
        // The first block comes, so that the length is known.
        remote.time(100);
        remote.answer();
        let first = (remote.played.peer, std::mem::take(&mut remote.asked));
        let mut slow_asked: std::collections::VecDeque<_> = first.1.into();
        remote.time(1_000);
        // The fast one.
        let store = std::mem::replace(
            &mut remote.played.store,
            Multifeed::open(MemoryStorage::default(), Options::default()).unwrap(),
        );
        let now = remote.played.now;
        remote.played = Played::start(store, options, live);
        remote.played.now = now;
        let key = remote.feeds[0].0.key();
        remote.event(Event::Manifest { root: Root::FIRST, keys: vec![key], fields: None });
        remote.event(Event::Replicate { root: Root::FIRST, keys: vec![], origin: Origin::Local });
        remote.event(Event::Replicate { root: Root::FIRST, keys: vec![key], origin: Origin::Remote });
        let (mut twice, mut fast, mut slow_at) = (0u64, 0u64, 1_000);
        let mut millis = 1_000;
        while remote.held() < 504 && millis < 100_000 {
            // 500 KB a second; and at the same time the slow one.
            millis += 16;
            remote.time(millis);
            let before = remote.held();
            if !remote.asked.is_empty() {
                remote.answer();
                fast += 1;
                twice += u64::from(remote.held() == before);
            }
            while slow > 0 && slow_at + 8_600_000 / slow <= millis {
                slow_at += 8_600_000 / slow;
                let Some((feed, request)) = slow_asked.pop_front() else { break };
                let fast_peer = std::mem::replace(&mut remote.played.peer, first.0);
                let before = remote.held();
                let asked = std::mem::take(&mut remote.asked);
                remote.bring(feed, request);
                slow_asked.extend(std::mem::replace(&mut remote.asked, asked));
                twice += u64::from(remote.held() == before);
                remote.played.peer = fast_peer;
            }
        }
        assert_eq!(remote.held(), 504, "{slow}");
        // The fast one alone takes eight seconds.
        assert!(millis <= 1_000 + 12_000, "{slow}: {millis}");
        assert!(fast > 400 && twice <= 504 / 20 + 16, "{slow}: {fast} and {twice} twice");
    }
}
