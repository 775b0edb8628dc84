//! Feeds that are long by their writer's word alone: a length is signed, and one block made. What is not held costs nothing.

use crate::link;
use crate::long;
use crate::played;

use std::io;
use std::time::Duration;

use allocation_counter::measure;
use bytes::Bytes;
use link::{Link, Store, run};
use multifeed_core::limits::MAX_FEED_BLOCKS;
use multifeed_core::{
    Feed, FileId, FileKind, FileStorage, KeyPair, MemoryStorage, Multifeed, Options, PeerEvent, PutError, Replicate,
    SignatureSearch, Slot, Storage, VerifyCursor, prepare,
};
use multifeed_proto::{Command, Event, Fault, FeedKey, Have, Message, Origin, Root, SessionError, Token};
use played::Played;

const START: Duration = Duration::ZERO;

fn pair(number: u32) -> KeyPair {
    let mut seed = [5; 32];
    seed[..4].copy_from_slice(&number.to_le_bytes());
    KeyPair::from_seed(&seed)
}

fn block() -> Bytes {
    Bytes::from_static(b"the only block")
}

/// A feed with one block, of a writer that signs a length, in a folder of its own.
fn claimed(storage: &mut impl Storage, slot: u32, length: u64, index: u64) -> Feed {
    let pair = pair(slot);
    let mut feed = Feed::create(storage, Slot(slot), pair.public_key(), None, None).unwrap();
    feed.put(storage, prepare(long::claim(&pair, length, index, &block()))).unwrap();
    feed.flush(storage).unwrap();
    assert_eq!((feed.len(), feed.downloaded()), (length, 1));
    feed
}

/// A storage that counts calls and the bytes that are read.
struct Counted<S> {
    inner: S,
    calls: u64,
    bytes: u64,
}

impl<S: Storage> Counted<S> {
    fn new(inner: S) -> Self {
        Self { inner, calls: 0, bytes: 0 }
    }

    /// What was counted since it was asked last.
    fn take(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.calls), std::mem::take(&mut self.bytes))
    }
}

impl<S: Storage> Storage for Counted<S> {
    fn list(&mut self) -> io::Result<Vec<Slot>> {
        self.inner.list()
    }
    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.calls += 1;
        let read = self.inner.read_at(file, offset, buf)?;
        self.bytes += read as u64;
        Ok(read)
    }
    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        self.calls += 1;
        self.inner.write_at(file, offset, data)
    }
    fn len(&mut self, file: FileId) -> io::Result<Option<u64>> {
        self.inner.len(file)
    }
    fn next_data(&mut self, file: FileId, offset: u64) -> io::Result<Option<u64>> {
        self.calls += 1;
        self.inner.next_data(file, offset)
    }
    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()> {
        self.inner.truncate(file, len)
    }
    fn replace(&mut self, file: FileId, data: &[u8]) -> io::Result<()> {
        self.inner.replace(file, data)
    }
    fn sync(&mut self, _: FileId) -> io::Result<()> {
        Ok(())
    }
    fn remove(&mut self, slot: Slot) -> io::Result<()> {
        self.inner.remove(slot)
    }
    fn rename(&mut self, from: Slot, to: Slot) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn stamp(&mut self, slot: Slot, settled: bool) -> Option<[u8; 8]> {
        self.calls += 1;
        self.inner.stamp(slot, settled)
    }
    fn close(&mut self) -> io::Result<()> {
        self.inner.close()
    }
}

/// The places that the only block may have.
fn places(length: u64) -> [u64; 4] {
    [0, 1, length / 3, length - 1]
}

#[allow(clippy::disallowed_methods)] // The disk's clock has to go on.
#[test]
fn opening_a_store_of_them_costs_what_is_held() {
    const FEEDS: u32 = 40;
    let costs = [1, MAX_FEED_BLOCKS, MAX_FEED_BLOCKS - 1].map(|length| {
        let folder = tempfile::tempdir().unwrap();
        let mut storage = FileStorage::open(folder.path()).unwrap();
        for slot in 0..FEEDS {
            claimed(&mut storage, slot, length, places(length)[slot as usize % 4] % length);
        }
        // The clock of the disk goes on, so that who opens it sees that nothing was changed after it was closed.
        std::thread::sleep(Duration::from_millis(30));
        // The first one to open it makes the journal.
        let mut store = Multifeed::open(storage, Options::default()).unwrap();
        store.writer(Some("w"), || pair(FEEDS)).unwrap();
        store.close().unwrap();
        let mut storage = Counted::new(FileStorage::open(folder.path()).unwrap());
        let mut store = None;
        let memory = measure(|| store = Some(Multifeed::open(&mut storage, Options::default()).unwrap()));
        let store = store.unwrap();
        assert!(store.problems().is_empty(), "{:?}", store.problems());
        assert_eq!((store.recovered(), store.feeds().count()), (&[][..], FEEDS as usize + 1));
        assert!(store.feeds().take(FEEDS as usize).all(|id| store.info(id).unwrap().len == length));
        drop(store);
        let (calls, bytes) = storage.take();
        (memory.bytes_current / i64::from(FEEDS), calls / u64::from(FEEDS), bytes / u64::from(FEEDS))
    });
    let [ordinary, long, odd] = costs;
    for (memory, calls, bytes) in [long, odd] {
        // A whole bitfield is half a gigabyte, and 64 GiB of signatures. Nothing is read of it that is not read of an ordinary one; the journal
        // has some 60 pages and up to 30 roots of each.
        assert!(memory < ordinary.0 + 6000, "{memory} bytes of memory, ordinary {ordinary:?}");
        assert!(calls <= ordinary.1, "{calls} calls, ordinary {ordinary:?}");
        assert!(bytes < ordinary.2 + 4000, "{bytes} bytes read, ordinary {ordinary:?}");
    }
}

#[test]
fn it_is_held_verified_served_and_given_up_at_the_cost_of_what_is_held() {
    for length in [MAX_FEED_BLOCKS, MAX_FEED_BLOCKS - 1, (1 << 29) + 7] {
        for index in places(length) {
            let mut disk = Counted::new(MemoryStorage::new());
            let mut feed = claimed(&mut disk, 0, length, index);
            disk.take();
            let memory = measure(|| {
                let mut cursor = VerifyCursor::default();
                let step = feed.verify_step(&mut disk, &mut cursor, 4 << 20).unwrap();
                assert!(step.done && step.findings.is_empty() && step.blocks == 1, "{step:?}");
                let mut from = index;
                let found = loop {
                    match feed.signature_step(&mut disk, from, 1 << 20).unwrap() {
                        SignatureSearch::From(next) => from = next,
                        found => break found,
                    }
                };
                assert!(matches!(found, SignatureSearch::Found(signed, _) if signed == length), "{found:?}");
                assert_eq!(feed.bitfield().next_missing(0, length), Some(u64::from(index == 0)));
                assert_eq!(feed.bitfield().last_held(length), Some(index));
                assert_eq!(feed.count_held(0..length), 1);
                // The whole bitfield, as a remote may want it.
                assert!(feed.bitfield().rle_range(0, 0).len() < 20);
                assert_eq!(feed.get(&mut disk, index).unwrap(), Some(block()));
                let audit = feed.audit_step(&mut disk, 0, usize::MAX).unwrap();
                assert_eq!((audit.valid, audit.invalid, audit.next), (1, 0, None));
                let cleared = feed.clear(&mut disk, 0..length).unwrap();
                assert!(cleared.len() == 1 && cleared[0] == (index..index + 1), "{cleared:?}");
            });
            let (calls, bytes) = disk.take();
            assert!(memory.bytes_max < 1 << 20, "{length}, {index}: {memory:?}");
            assert!(calls < 10_000 && bytes < 8 << 20, "{length}, {index}: {calls} calls, {bytes} bytes");
        }
    }
}

/// Reads what a store wrote, after it was left without being closed.
#[test]
fn after_an_unclean_end_it_is_checked_at_the_cost_of_what_is_held() {
    for known in [true, false] {
        let mut storage = MemoryStorage::new();
        for (slot, index) in (0..).zip(places(MAX_FEED_BLOCKS)) {
            claimed(&mut storage, slot, MAX_FEED_BLOCKS, index);
        }
        let mut store = Multifeed::open(storage, Options::default()).unwrap();
        let writer = store.writer(Some("w"), || pair(9)).unwrap();
        if known {
            // The journal has what is marked of each.
            let mut storage = store.storage().clone();
            store.close().unwrap();
            storage.reopen();
            store = Multifeed::open(storage, Options::default()).unwrap();
        }
        let _ = writer;
        let writer = store.feeds().last().unwrap();
        store.append(writer, &[block()]).unwrap();
        // The power goes.
        let mut disk = Counted::new(store.storage().clone());
        let mut reopened = None;
        let memory = measure(|| reopened = Some(Multifeed::open(&mut disk, Options::default()).unwrap()));
        let reopened = reopened.unwrap();
        assert!(reopened.problems().is_empty(), "{:?}", reopened.problems());
        for (id, index) in reopened.feeds().zip(places(MAX_FEED_BLOCKS)) {
            let info = reopened.info(id).unwrap();
            assert_eq!((info.len, info.downloaded), (MAX_FEED_BLOCKS, 1));
            assert!(reopened.has(id, index));
        }
        drop(reopened);
        let (calls, bytes) = disk.take();
        assert!(memory.bytes_max < 4 << 20, "{memory:?}");
        assert!(calls < 10_000 && bytes < 64 << 20, "{calls} calls, {bytes} bytes");
    }
}

/// A store that holds feeds by claim, and serves them.
fn hostile(lengths: &[u64]) -> Store {
    let mut storage = MemoryStorage::new();
    for (slot, &length) in (0..).zip(lengths) {
        claimed(&mut storage, slot, length, 0);
    }
    Multifeed::open(storage, Options::default()).unwrap()
}

fn with_limit(blocks: u64) -> Options {
    let mut options = Options::default();
    options.limits.feed_blocks = blocks;
    options
}

#[test]
fn a_feed_that_is_longer_than_may_be_is_refused_by_name_and_the_others_come() {
    let default = Options::default().limits.feed_blocks;
    for (limit, live) in [(default, false), (default, true), (1 << 20, false)] {
        let lengths = [limit + 1, MAX_FEED_BLOCKS, limit, 1];
        let honest = Multifeed::open(MemoryStorage::new(), with_limit(limit)).unwrap();
        let mut stores = [hostile(&lengths), honest];
        let options = if live { Replicate::live() } else { Replicate::default() };
        let mut links = [Link::plain(&mut stores, [0, 1], options)];
        run(&mut stores, &mut links, START);
        let [link] = links;
        let mut refused: Vec<(FeedKey, u64)> = Vec::new();
        for event in &link.events[1] {
            let PeerEvent::LimitReached(error) = event else { continue };
            assert_eq!((error.code(), error.fault()), ("ERR_LIMIT", Fault::Limit));
            let SessionError::FeedTooLong { feed, length, limit: told } = error else { panic!("{error:?}") };
            assert!(error.to_string().contains(&feed.to_string()) && *told == limit, "{error}");
            refused.push((*feed, *length));
        }
        refused.sort();
        let mut expected = [(pair(0).public_key(), limit + 1), (pair(1).public_key(), MAX_FEED_BLOCKS)];
        expected.sort();
        assert_eq!(refused, expected);
        let mut held: Vec<_> =
            stores[1].feeds().map(|id| stores[1].info(id).unwrap()).map(|info| (info.key, info.len)).collect();
        held.sort();
        let mut expected = [(pair(2).public_key(), limit), (pair(3).public_key(), 1)];
        expected.sort();
        assert_eq!(held, expected);
        match live {
            true => assert!(link.result(1).is_none(), "{:?}", link.result(1)),
            false => assert!(link.result(1).is_some_and(Result::is_ok), "{:?}", link.result(1)),
        }
        let mut storage = stores[1].storage().clone();
        assert_eq!(storage.list().unwrap().len(), 2);
    }
}

#[test]
fn the_only_block_comes_wherever_it_is() {
    for (at, length) in (0..).zip([3_300_000, 6_000_000, 1 << 24]) {
        for index in [0, (1 << 20) - 1, 1 << 20, length / 3, length - 2, length - 1] {
            for live in [false, true] {
                let mut storage = MemoryStorage::new();
                claimed(&mut storage, at, length, index);
                let mut stores = [Multifeed::open(storage, Options::default()).unwrap(), link::store()];
                let options = if live { Replicate::live() } else { Replicate::default() };
                let mut links = [Link::plain(&mut stores, [0, 1], options)];
                run(&mut stores, &mut links, START);
                let id = stores[1].find(&pair(at).public_key()).unwrap();
                let (len, held) = (stores[1].info(id).unwrap().len, stores[1].get(id, index).unwrap());
                assert_eq!((len, held), (length, Some(block())), "{index} of {length}, live: {live}");
            }
        }
    }
}

#[test]
fn what_is_here_of_a_longer_feed_stays_and_is_served() {
    let mut storage = MemoryStorage::new();
    claimed(&mut storage, 0, 1 << 20, 3);
    let here = Multifeed::open(storage, with_limit(1000)).unwrap();
    let mut stores = [here, link::store()];
    let mut links = [Link::plain(&mut stores, [0, 1], Replicate::live())];
    run(&mut stores, &mut links, START);
    let id = stores[1].find(&pair(0).public_key()).unwrap();
    assert_eq!((stores[1].info(id).unwrap().len, stores[1].info(id).unwrap().downloaded), (1 << 20, 1));
}

#[test]
fn a_length_that_is_not_signed_is_the_remotes_fault_and_not_the_limits() {
    let mut storage = MemoryStorage::new();
    let mut feed = Feed::create(&mut storage, Slot(0), pair(1).public_key(), None, None).unwrap();
    let forged = long::claim(&pair(2), MAX_FEED_BLOCKS, 0, &block());
    assert!(matches!(feed.put(&mut storage, prepare(forged)), Err(PutError::Proof(_))));
    let past = long::claim(&pair(1), 2 * MAX_FEED_BLOCKS, 0, &block());
    assert!(matches!(feed.put(&mut storage, prepare(past)), Err(PutError::Proof(_))));
    assert_eq!((feed.len(), feed.is_staged()), (0, false));
}

#[test]
fn a_remote_that_says_it_has_everything_costs_next_to_nothing() {
    const MI: u64 = 1 << 20;
    let mut storage = MemoryStorage::new();
    claimed(&mut storage, 0, MAX_FEED_BLOCKS, 0);
    let store = Multifeed::open(storage, Options::default()).unwrap();
    let key = pair(0).public_key();
    let mut played = Played::start(store, Replicate::live(), true);
    played.commands();
    played.event(Event::Replicate { root: Root::FIRST, keys: vec![key], origin: Origin::Local });
    assert_eq!(played.commands(), [Command::Open { token: Token(0), key }]);
    played.event(Event::Opened { token: Token(0) });
    played.commands();
    let mut say = |message: Message| {
        played.event(Event::Message { token: Token(0), message });
        played.commands().len()
    };
    let all: Bytes = multifeed_core::bitfield::rle::encode(&vec![255; MI as usize / 8]).into();
    let have = |start, length, bitfield: Option<&Bytes>| {
        Message::Have(Have { start, length, bitfield: bitfield.cloned(), ack: false })
    };
    let memory = measure(|| {
        for _ in 0..20 {
            for window in [0, 1, 500, 1023, 1 << 30] {
                say(have(window * MI, MI, None));
                say(have(window * MI, MI, Some(&all)));
                say(have(window * MI, MI, Some(&Bytes::new())));
                say(have(window * MI, MI, Some(&all)));
            }
            say(have(0, 1 << 53, None));
            say(Message::Unhave { start: 1, length: 1 << 40 });
            say(have(0, MI, Some(&all)));
        }
    });
    // A window told whole would be 128 KiB of bits, and passes as such for a moment.
    assert!(memory.bytes_current < 64 << 10 && memory.bytes_max < 1 << 20, "{memory:?}");
}

#[test]
fn files_hold_no_more_than_what_is_held() {
    #[cfg(unix)]
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let mut storage = FileStorage::open(folder.path()).unwrap();
    claimed(&mut storage, 0, MAX_FEED_BLOCKS, 12_345_678);
    let mut allocated = 0;
    for kind in [FileKind::Tree, FileKind::Signatures, FileKind::Bitfield, FileKind::Data] {
        let about = std::fs::metadata(storage.path_of(FileId::new(Slot(0), kind))).unwrap();
        // The places of the last node, signature and page that a feed can have.
        let most = match kind {
            FileKind::Tree => 2 * 40 * MAX_FEED_BLOCKS,
            FileKind::Signatures => 32 + 64 * MAX_FEED_BLOCKS,
            FileKind::Bitfield => 32 + MAX_FEED_BLOCKS / 8192 * 3584,
            _ => 14,
        };
        assert!(about.len() <= most, "{kind}: {}", about.len());
        #[cfg(unix)]
        {
            allocated += about.blocks() * 512;
        }
    }
    // Some 60 nodes and as many pages, a block of the disk or two each.
    assert!(allocated < 2 << 20, "{allocated}");
}
