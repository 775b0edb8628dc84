//! What many feeds and long ones cost in files, memory and reads. Nothing here hangs on time; docs/scale.md has the times.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use allocation_counter::measure;
use bytes::{Bytes, BytesMut};
use multifeed_core::storage::FileStorageOptions;
use multifeed_core::storage::faults::{DiskCall, DiskOp, Fault, Faults, FaultyDisk};
use multifeed_core::{
    Connection, Feed, FileId, FileKind, FileStorage, KeyPair, Multifeed, Options, PeerEvent, Replicate, Slot, Storage,
    VerifyCursor,
};
use multifeed_proto::{Config, Role};
use rand::SeedableRng;
use rand::rngs::StdRng;

const BLOCKS: u64 = 3;

/// Files that are never synced, and that count.
struct Counted {
    files: FileStorage,
    most_open: usize,
    /// Calls and bytes.
    reads: BTreeMap<FileKind, (u64, u64)>,
    openings: Arc<Openings>,
}

/// How often a file or a feed's folder was opened, or was to be.
#[derive(Debug, Default)]
struct Openings(AtomicU32);

impl FaultyDisk for Openings {
    fn fault(&self, call: &DiskCall<'_>) -> Option<Fault> {
        if matches!(call.op, DiskOp::OpenFile | DiskOp::OpenFolder) {
            self.0.fetch_add(1, Relaxed);
        }
        None
    }
}

impl Counted {
    fn open(folder: &Path, max_open_files: usize) -> Self {
        let mut options = FileStorageOptions::default();
        options.max_open_files = max_open_files;
        let openings = Arc::<Openings>::default();
        options.faults = Faults::new(openings.clone());
        let files = FileStorage::open_with(folder, options).unwrap();
        Self { files, most_open: 0, reads: BTreeMap::new(), openings }
    }

    fn count<T>(&mut self, result: T) -> T {
        self.most_open = self.most_open.max(self.files.open_files());
        result
    }
}

impl Storage for Counted {
    fn list(&mut self) -> io::Result<Vec<Slot>> {
        self.files.list()
    }
    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.files.read_at(file, offset, buf);
        let (calls, bytes) = self.reads.entry(file.kind).or_default();
        *calls += 1;
        *bytes += *read.as_ref().unwrap_or(&0) as u64;
        self.count(read)
    }
    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        let wrote = self.files.write_at(file, offset, data);
        self.count(wrote)
    }
    fn len(&mut self, file: FileId) -> io::Result<Option<u64>> {
        let len = self.files.len(file);
        self.count(len)
    }
    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()> {
        let cut = self.files.truncate(file, len);
        self.count(cut)
    }
    fn replace(&mut self, file: FileId, data: &[u8]) -> io::Result<()> {
        self.truncate(file, data.len() as u64)?;
        self.write_at(file, 0, data)
    }
    fn sync(&mut self, _: FileId) -> io::Result<()> {
        Ok(())
    }
    fn remove(&mut self, slot: Slot) -> io::Result<()> {
        self.files.remove(slot)
    }
    fn rename(&mut self, from: Slot, to: Slot) -> io::Result<()> {
        self.files.rename(from, to)
    }
    fn close(&mut self) -> io::Result<()> {
        self.files.close()
    }
}

fn open(storage: &mut Counted) -> Multifeed<&mut Counted> {
    Multifeed::open(storage, Options::default()).unwrap()
}

/// Makes writers with some blocks each, of at least so many bytes.
fn make(storage: &mut Counted, feeds: u32, blocks: u64, size: usize) {
    let mut multi = open(storage);
    for number in 0..feeds {
        let mut seed = [9; 32];
        seed[..4].copy_from_slice(&number.to_le_bytes());
        let feed = multi.writer(Some(&format!("writer-{number}")), || KeyPair::from_seed(&seed)).unwrap();
        let blocks: Vec<Bytes> = (0..blocks).map(|block| Bytes::from(format!("{number} {block:size$}"))).collect();
        multi.append(feed, &blocks).unwrap();
        multi.commit(Duration::ZERO);
        while multi.poll_event().is_some() {}
    }
    multi.close().unwrap();
}

/// Two stores that are joined.
struct Joined<'a> {
    stores: [Multifeed<&'a mut Counted>; 2],
    ends: [Connection; 2],
}

impl<'a> Joined<'a> {
    fn new(stores: [Multifeed<&'a mut Counted>; 2], options: &Replicate) -> Self {
        let [mut a, mut b] = stores;
        let mut rng = StdRng::seed_from_u64(1);
        let mut join = |store: &mut Multifeed<&'a mut Counted>, role| {
            Connection::new(store, role, Config::default(), options.clone(), Duration::ZERO, &mut rng)
        };
        let ends = [join(&mut a, Role::Initiator), join(&mut b, Role::Responder)];
        Self { stores: [a, b], ends }
    }

    /// Moves bytes until none are left.
    fn run(&mut self) {
        self.run_at(Duration::ZERO);
    }

    /// The same over a connection on which 16 KiB each way take so long. Gives how long all took.
    fn run_at(&mut self, pace: Duration) -> Duration {
        let mut now = Duration::ZERO;
        let mut wires = [BytesMut::new(), BytesMut::new()];
        let mut moved = true;
        while moved {
            moved = false;
            now += pace;
            for (side, wire) in wires.iter_mut().enumerate() {
                let (store, end) = (&mut self.stores[side], &mut self.ends[side]);
                if store.poll_timeout().is_some_and(|at| at <= now) {
                    store.handle_timeout(now);
                }
                moved |= end.pump(store, now);
                while let Some(event) = end.poll_event(store) {
                    assert!(!matches!(event, PeerEvent::Closed(Err(_))), "{event:?}");
                }
                while store.poll_event().is_some() {}
                while end.session().poll_output(wire) {}
                let (store, end) = (&mut self.stores[1 - side], &mut self.ends[1 - side]);
                let bytes = wire.len().min(if pace.is_zero() { 1 << 16 } else { 1 << 14 });
                if bytes > 0
                    && let Some(buffer) = end.session().recv_buf()
                {
                    buffer.extend_from_slice(&wire.split_to(bytes));
                    end.handle_input(store, now);
                    moved = true;
                }
            }
        }
        now
    }

    fn blocks(&self, side: usize) -> u64 {
        self.stores[side].feeds().map(|feed| self.stores[side].info(feed).unwrap().downloaded).sum()
    }
}

#[test]
fn many_feeds_open_no_more_files_than_they_may() {
    const FEEDS: u32 = 500;
    const FILES: usize = 20;
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    make(&mut Counted::open(folders[0].path(), FILES), FEEDS, 1, 1);
    let [mut a, mut b] = [0, 1].map(|side: usize| Counted::open(folders[side].path(), FILES));
    let mut joined = Joined::new([open(&mut a), open(&mut b)], &Replicate::default());
    joined.run();
    assert_eq!(joined.blocks(1), u64::from(FEEDS));
    joined.stores.into_iter().for_each(|store| store.close().unwrap());
    // One more is for what is open for a moment alone.
    assert_eq!([a.most_open, b.most_open], [FILES - 1, FILES - 1]);
}

#[test]
fn each_of_many_feeds_is_opened_once_to_be_served_and_once_to_be_written() {
    const FEEDS: u32 = 400;
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    make(&mut Counted::open(folders[0].path(), 60), FEEDS, 10, 100);
    let [mut a, mut b] = [0, 1].map(|side: usize| Counted::open(folders[side].path(), 60));
    let openings = [&a, &b].map(|storage| storage.openings.clone());
    let mut joined = Joined::new([open(&mut a), open(&mut b)], &Replicate::default());
    openings.iter().for_each(|openings| openings.0.store(0, Relaxed));
    joined.run();
    assert_eq!(joined.blocks(1), u64::from(FEEDS) * 10);
    let [serves, pulls] = openings.map(|openings| f64::from(openings.0.load(Relaxed)) / f64::from(FEEDS));
    println!("{serves} and {pulls} openings for each feed");
    // The folder, `tree` and `data`, and some of them once more.
    assert!(serves < 8.0, "{serves} openings for each feed that is served");
    // What is there before it is made, the folder and five files, and some of them again to be written.
    assert!(pulls < 30.0, "{pulls} openings for each feed that is pulled");
}

#[test]
fn a_feed_that_rests_costs_little() {
    const FEEDS: u32 = 300;
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    make(&mut Counted::open(folders[0].path(), 240), FEEDS, BLOCKS, 1);
    let mut storages = [0, 1].map(|side: usize| Counted::open(folders[side].path(), 240));
    let [a, b] = &mut storages;

    let mut opened = None;
    let memory = measure(|| opened = Some(open(a)));
    let each = memory.bytes_current / i64::from(FEEDS);
    println!("{each} bytes for each open feed");
    assert!(each < 2_060, "{each} bytes for each open feed");

    // Live, so that every feed's machines stay, on both sides.
    let live = Replicate::live();
    let mut joined = None;
    let memory = measure(|| {
        let pair = joined.insert(Joined::new([opened.take().unwrap(), open(b)], &live));
        pair.run();
        assert_eq!(pair.blocks(1), u64::from(FEEDS) * BLOCKS);
    });
    // Feeds in use keep caches; and buffers do not grow with the feeds.
    let each = (memory.bytes_current - (2 << 20)) / i64::from(FEEDS);
    println!("{each} bytes for each feed that two stores keep in sync, {memory:?}");
    assert!(each < 10_000, "{each} bytes for each feed that two stores keep in sync");
}

#[test]
fn a_slow_connection_takes_its_time_and_brings_all() {
    const FEEDS: u32 = 100;
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    make(&mut Counted::open(folders[0].path(), 240), FEEDS, BLOCKS, 20_000);
    let [mut a, mut b] = [0, 1].map(|side: usize| Counted::open(folders[side].path(), 240));
    let mut joined = Joined::new([open(&mut a), open(&mut b)], &Replicate::default());
    let took = joined.run_at(Duration::from_secs(1));
    // Far longer than a remote may leave anything unanswered, all of which was asked at once.
    assert!(took > Duration::from_secs(100), "{took:?}");
    assert_eq!(joined.blocks(1), u64::from(FEEDS) * BLOCKS);
}

#[test]
fn opening_reads_little() {
    const FEEDS: u32 = 50;
    let folder = tempfile::tempdir().unwrap();
    make(&mut Counted::open(folder.path(), 240), FEEDS, 200, 1);
    let mut storage = Counted::open(folder.path(), 240);
    drop(open(&mut storage));
    let each = |kind| {
        let (calls, bytes) = storage.reads.get(&kind).copied().unwrap_or_default();
        (calls as f64 / f64::from(FEEDS), bytes as f64 / f64::from(FEEDS))
    };
    println!("{:?}", storage.reads);
    // The last block and its path; the page of the newest signature; the marks.
    for (kind, calls, bytes) in [
        (FileKind::Key, 1.0, 32.0),
        (FileKind::Data, 1.0, 10.0),
        (FileKind::Signatures, 2.0, 32.0 + 64.0),
        (FileKind::Bitfield, 2.0, 32.0 + 3584.0),
        (FileKind::Tree, 6.0, 200.0 * 2.0 * 40.0 + 32.0),
    ] {
        let (was_calls, was_bytes) = each(kind);
        assert!(was_calls <= calls && was_bytes <= bytes, "{kind:?}: {was_calls} reads of {was_bytes} bytes");
    }
}

#[test]
fn verifying_reads_many_small_blocks_at_once() {
    let folder = tempfile::tempdir().unwrap();
    make(&mut Counted::open(folder.path(), 240), 1, 200, 100);
    let mut storage = Counted::open(folder.path(), 240);
    let mut feed = Feed::open(&mut storage, Slot(0)).unwrap();
    storage.reads.clear();
    let mut cursor = VerifyCursor::default();
    let step = feed.verify_step(&mut storage, &mut cursor, usize::MAX).unwrap();
    assert!(step.done && step.blocks == 200 && step.findings.is_empty());
    assert_eq!(storage.reads[&FileKind::Data].0, 1);
}

/// What is offered is not held against the folders that could not be opened by reading each of them again.
#[test]
fn the_keys_of_folders_that_cannot_be_opened_are_read_once() {
    const FEEDS: u32 = 200;
    for lose_keys in [false, true] {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        // The peer has the feeds of these folders, and as many others.
        let mut storages = [0, 1].map(|side| Counted::open(folders[side].path(), 64));
        make(&mut storages[0], 2 * FEEDS, 1, 1);
        make(&mut storages[1], FEEDS, 1, 1);
        for number in 0..FEEDS {
            let folder = folders[1].path().join(number.to_string());
            std::fs::write(folder.join("tree"), b"no tree, but far more than none").unwrap();
            if lose_keys {
                std::fs::remove_file(folder.join("key")).unwrap();
                std::fs::create_dir(folder.join("key")).unwrap();
            }
        }
        let mut storages = [0, 1].map(|side| Counted::open(folders[side].path(), 64));
        let [theirs, ours] = &mut storages;
        let stores = [open(theirs), open(ours)];
        assert_eq!(stores[1].problems().len(), FEEDS as usize, "lose keys: {lose_keys}");
        let mut joined = Joined::new(stores, &Replicate::default());
        joined.run();
        let [_, store] = joined.stores;
        // Nobody can tell whose a folder is without its key.
        let came = FEEDS as usize * if lose_keys { 2 } else { 1 };
        assert_eq!(store.feeds().count(), came, "lose keys: {lose_keys}");
        drop(store);
        let (reads, _) = storages[1].reads[&FileKind::Key];
        assert!(reads < 20 * u64::from(FEEDS), "lose keys: {lose_keys}: {reads} reads");
    }
}
