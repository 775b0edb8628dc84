//! Folders that something has damaged, or that somebody hostile made: opened, read, checked, appended to, and synced with a peer whose
//! store is sound.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use bytes::{Bytes, BytesMut};
use multifeed_core::fuzzing::Remembered;
use multifeed_core::{
    Connection, Durability, FileId, FileKind, FileStorage, FileStorageOptions, KeyPair, MemoryStorage, Multifeed,
    MultifeedEvent, Options, PeerEvent, Replicate, Slot, Storage, StoreError, VerifyCursor,
};
use multifeed_proto::{Config, FeedKey, Role};

use self::things::{Forged, Outside, Thing};
use crate::sides::established;

mod things;

/// Two writers of the store's own, a remote feed that it has all of, and one with holes.
const FOLDERS: u32 = 4;
/// Turns that a sync of so little may take.
const TURNS: usize = 2000;

#[derive(Debug, Arbitrary)]
struct Input {
    durability: u8,
    /// Killed, rather than closed.
    killed: bool,
    edits: Vec<Edit>,
    /// Append before the sync.
    appends: bool,
    /// On a real disk, with these in place of files and folders.
    things: Vec<Thing>,
    /// Links are followed.
    follows: bool,
    /// A journal that somebody made up.
    journal: Option<Forged>,
}

#[derive(Debug, Arbitrary)]
enum Edit {
    Truncate {
        file: Place,
        len: u16,
    },
    Lengthen {
        file: Place,
        by: u16,
    },
    Flip {
        file: Place,
        at: u16,
        bits: u8,
    },
    Write {
        file: Place,
        at: u16,
        bytes: Vec<u8>,
    },
    Zero {
        file: Place,
        at: u16,
        count: u16,
    },
    Swap {
        a: Place,
        b: Place,
    },
    Copy {
        from: Place,
        to: Place,
    },
    Delete {
        file: Place,
    },
    DeleteFolder {
        slot: u8,
    },
    Foreign {
        file: Place,
        bytes: Vec<u8>,
    },
    /// As it was in the middle of the store's life.
    Stale {
        file: Place,
    },
    StaleFolder {
        slot: u8,
    },
    /// A folder more.
    Stray {
        slot: u8,
        file: u8,
        bytes: Vec<u8>,
    },
}

#[derive(Debug, Clone, Copy, Arbitrary)]
struct Place {
    slot: u8,
    kind: u8,
}

type Files = BTreeMap<FileId, Vec<u8>>;
type Truth = BTreeMap<FeedKey, Vec<Bytes>>;

/// A sound store, as it was left and as it was before.
struct Base {
    killed: Files,
    closed: Files,
    stale: Files,
    peer: MemoryStorage,
    truth: Truth,
    /// The key of each folder, how many blocks it holds.
    keys: Vec<(FeedKey, u64)>,
}

/// Damages a store, and opens it.
pub fn folders(data: &[u8]) {
    let Ok(input) = Input::arbitrary(&mut Unstructured::new(data)) else { return };
    thread_local! {
        static BASES: [OnceCell<Base>; 3] = const { [const { OnceCell::new() }; 3] };
    }
    let _once = Remembered::begin();
    BASES.with(|bases| {
        let which = usize::from(input.durability % 3);
        run(bases[which].get_or_init(|| Base::new(durability(which))), durability(which), &input);
    });
}

fn durability(which: usize) -> Durability {
    [Durability::None, Durability::Interval(Duration::from_secs(1)), Durability::Always][which]
}

/// The disk that holds the store.
enum Disk {
    Memory(MemoryStorage),
    Folder(Outside, FileStorageOptions),
}

impl Disk {
    fn new(files: &Files, input: &Input) -> Self {
        if input.things.is_empty() {
            return Self::Memory(storage(files));
        }
        let outside = Outside::new(files, &input.things);
        let mut options = FileStorageOptions::default();
        options.follow_links = input.follows;
        Self::Folder(outside, options)
    }

    /// The store, unless something stands in the place of a file that it can't be opened without.
    fn open(&mut self, options: Options) -> Option<Multifeed<Box<dyn Storage + '_>>> {
        let opened = match self {
            Self::Memory(disk) => {
                disk.reopen();
                Ok(Box::new(disk) as Box<dyn Storage>)
            }
            Self::Folder(outside, files) => {
                FileStorage::open_with(outside.store(), files.clone()).map(|files| Box::new(files) as _)
            }
        };
        match opened.and_then(|storage| Multifeed::open(storage, options)) {
            Ok(store) => Some(store),
            Err(StoreError::NotRegular { .. }) => None,
            Err(error) => panic!("the whole store: {error}"),
        }
    }

    fn check(&self) {
        if let Self::Folder(outside, files) = self {
            outside.check(files.follow_links);
        }
    }
}

fn run(base: &Base, durability: Durability, input: &Input) {
    let mut files = if input.killed { base.killed.clone() } else { base.closed.clone() };
    let before = files.clone();
    for edit in input.edits.iter().take(8) {
        apply(edit, &mut files, base);
    }
    let journal = FileId::beside(FileKind::Journal);
    if let Some(forged) = &input.journal {
        files.insert(journal, forged.bytes(base));
    }
    let mut touched: BTreeSet<Slot> =
        (0..FOLDERS).map(Slot).filter(|slot| in_folder(&before, *slot) != in_folder(&files, *slot)).collect();
    let beside = input.things.iter().any(Thing::is_beside);
    let journal_is_sound = before.get(&journal) == files.get(&journal) && !beside;
    touched.extend(input.things.iter().filter_map(Thing::slot));
    if input.journal.is_some() {
        // It can say of any feed that it is to go, or is longer.
        touched.extend((0..FOLDERS).map(Slot));
    }

    let mut disk = Disk::new(&files, input);
    let options = Options { durability, ..Options::default() };
    let Some(mut store) = disk.open(options.clone()) else { return disk.check() };
    let problems: Vec<StoreError> = store.problems().to_vec();
    for (number, (key, held)) in (0..).zip(&base.keys) {
        let slot = Slot(number);
        // A copy of its key in a folder before it is taken for the feed.
        let copied = |file: &FileId| {
            file.kind == FileKind::Key
                && file.slot != slot
                && files.get(file) == before.get(&FileId::new(slot, FileKind::Key))
        };
        if touched.contains(&slot) || files.keys().any(copied) {
            continue;
        }
        assert!(problems.iter().all(|problem| problem.slot() != Some(slot)), "folder {slot}: {problems:?}");
        let id = store.find(key).unwrap_or_else(|| panic!("the feed of folder {slot} is gone"));
        let info = store.info(id).unwrap();
        assert_eq!((info.len, info.downloaded), (base.truth[key].len() as u64, *held), "folder {slot}");
    }
    read_all(&mut store, &base.truth, &touched);
    let findings = verify(&mut store);
    assert!(
        findings.iter().all(|slot| touched.contains(slot) || slot.0 >= FOLDERS),
        "{findings:?}, and only {touched:?} were touched"
    );

    // Each writer goes on, with a block that nobody has seen.
    let mut truth = base.truth.clone();
    let mut anew = BTreeSet::new();
    if input.appends {
        for id in store.feeds().filter(|id| store.info(*id).unwrap().writable).collect::<Vec<_>>() {
            let block = Bytes::from_static(b"after the damage");
            let key = store.info(id).unwrap().key;
            if let (Ok(range), Some(blocks)) = (store.append(id, std::slice::from_ref(&block)), truth.get_mut(&key)) {
                assert!(range.start <= blocks.len() as u64);
                // What was synced is not signed anew. If the journal is gone, or nothing was promised, nobody can know.
                assert!(
                    range.start == blocks.len() as u64 || !journal_is_sound || durability == Durability::None,
                    "{key} signs its block {} again",
                    range.start
                );
                if range.start == blocks.len() as u64 {
                    blocks.push(block);
                } else {
                    anew.insert(key);
                }
            }
        }
    }
    let mut peer_disk = base.peer.clone();
    let mut peer = open(&mut peer_disk, Durability::None);
    sync(&mut store, &mut peer);
    let conflicts = |event: MultifeedEvent| matches!(event, MultifeedEvent::Conflict { .. });
    let forked = std::iter::from_fn(|| peer.poll_event()).any(conflicts);
    assert!(!forked || !journal_is_sound || durability == Durability::None, "two histories");
    // The peer has all that it had, whatever it heard.
    for (key, blocks) in &base.truth {
        let id = peer.find(key).unwrap_or_else(|| panic!("the peer lost {key}"));
        for (index, block) in (0..).zip(blocks) {
            let held = peer.get(id, index).unwrap_or_else(|error| panic!("the peer: {error}"));
            assert_eq!(held.as_ref(), Some(block), "the peer's block {index} of {key}");
        }
        assert!(
            peer.info(id).unwrap().len <= truth[key].len() as u64
                || forked
                || !journal_is_sound
                || durability == Durability::None
        );
    }
    assert!(verify(&mut peer).is_empty(), "the peer's store is damaged");
    // A feed that went on from before its end has a history of its own now.
    truth.retain(|key, _| !anew.contains(key));
    read_all(&mut store, &truth, &touched);
    let _ = store.close();
    disk.check();
    if let Some(mut store) = disk.open(options) {
        read_all(&mut store, &truth, &touched);
    }
    disk.check();
}

/// Every block that is given is the one that was appended.
fn read_all<S: Storage>(store: &mut Multifeed<S>, truth: &Truth, touched: &BTreeSet<Slot>) {
    for id in store.feeds().collect::<Vec<_>>() {
        let info = store.info(id).unwrap();
        let Some(blocks) = truth.get(&info.key) else { continue };
        for index in 0..info.len.min(blocks.len() as u64) {
            match store.get(id, index) {
                Ok(Some(block)) => assert_eq!(&block, &blocks[index as usize], "block {index} of {}", info.key),
                Ok(None) => {}
                Err(StoreError::Damaged { slot, .. } | StoreError::NotRegular { slot: Some(slot), .. }) => {
                    assert!(touched.contains(&slot) || slot.0 >= FOLDERS, "folder {slot} is damaged")
                }
                Err(error) => panic!("block {index} of {}: {error}", info.key),
            }
        }
    }
}

/// The folders with findings.
fn verify<S: Storage>(store: &mut Multifeed<S>) -> BTreeSet<Slot> {
    let mut found = BTreeSet::new();
    for id in store.feeds().collect::<Vec<_>>() {
        let mut cursor = VerifyCursor::default();
        for slice in 0.. {
            assert!(slice < 10_000, "checking does not end");
            let step = match store.verify_step(id, &mut cursor, 1 << 16) {
                Ok(step) => step,
                Err(StoreError::NotRegular { slot: Some(slot), .. }) => {
                    found.insert(slot);
                    break;
                }
                Err(error) => panic!("checking: {error}"),
            };
            found.extend(step.findings.iter().map(|finding| finding.slot));
            if step.done {
                break;
            }
        }
    }
    found
}

/// Joins two stores until nothing moves any more.
fn sync<A: Storage, B: Storage>(a: &mut Multifeed<A>, b: &mut Multifeed<B>) {
    let options = Replicate::default();
    let now = Duration::ZERO;
    let mut ends = [
        Connection::past_noise(
            a,
            Role::Initiator,
            Config::default(),
            options.clone(),
            now,
            established(Role::Initiator),
        ),
        Connection::past_noise(b, Role::Responder, Config::default(), options, now, established(Role::Responder)),
    ];
    let mut ended = [false; 2];
    for turn in 0.. {
        assert!(turn < TURNS, "the sync does not come to rest");
        let mut moved = ends[0].pump(a, now);
        moved |= ends[1].pump(b, now);
        while let Some(event) = ends[0].poll_event(a) {
            moved |= !matches!(event, PeerEvent::Progress(_));
        }
        while let Some(event) = ends[1].poll_event(b) {
            moved |= !matches!(event, PeerEvent::Progress(_));
        }
        for from in 0..2 {
            let to = 1 - from;
            let mut wire = BytesMut::new();
            while ends[from].session().poll_output(&mut wire) {}
            if !wire.is_empty()
                && let Some(buffer) = ends[to].session().recv_buf()
            {
                buffer.extend_from_slice(&wire);
                moved = true;
                match to {
                    0 => ends[0].handle_input(a, now),
                    _ => ends[1].handle_input(b, now),
                }
            }
            if ends[from].session().output_finished() && !std::mem::replace(&mut ended[from], true) {
                ends[to].session().handle_eof();
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    let [first, second] = ends;
    first.close(a);
    second.close(b);
    a.commit(now);
    b.commit(now);
}

impl Base {
    fn new(durability: Durability) -> Self {
        let mut truth = Truth::new();
        let mut blocks = |key: FeedKey, count: u8, size: usize| -> Vec<Bytes> {
            let all = truth.entry(key).or_default();
            let new: Vec<_> =
                (0..count).map(|at| Bytes::from(vec![key.as_bytes()[0] ^ at; size * usize::from(at % 5)])).collect();
            all.extend(new.iter().cloned());
            new
        };
        let pairs: Vec<KeyPair> = (1..=4).map(|seed| KeyPair::from_seed(&[seed; 32])).collect();
        let mut peer_disk = MemoryStorage::new();
        let mut disk = MemoryStorage::new();
        let mut peer = open(&mut peer_disk, Durability::None);
        let mut store = open(&mut disk, durability);
        let mut append = |store: &mut Multifeed<&mut MemoryStorage>, which: usize, count, size| {
            let pair = pairs[which].clone();
            let key = pair.public_key();
            let id = store.writer(Some(&format!("writer {which}")), || pair);
            let id = id.unwrap_or_else(|error| panic!("a writer on a sound disk: {error}"));
            let range = store.append(id, &blocks(key, count, size));
            range.unwrap_or_else(|error| panic!("appending on a sound disk: {error}"));
            store.commit(Duration::ZERO);
        };
        append(&mut store, 0, 6, 11);
        append(&mut store, 1, 1, 0);
        append(&mut peer, 2, 9, 20);
        sync(&mut store, &mut peer);
        let stale = files(store.storage());
        append(&mut store, 0, 3, 40);
        append(&mut store, 1, 2, 7);
        append(&mut peer, 2, 4, 9);
        sync(&mut store, &mut peer);
        append(&mut peer, 3, 12, 30);
        // Of the last feed only some.
        let sparse = pairs[3].public_key();
        sync_sparse(&mut store, &mut peer, sparse);
        store.sync().unwrap_or_else(|error| panic!("syncing a sound disk: {error}"));
        let keys = store.feeds().map(|id| (store.info(id).unwrap().key, store.info(id).unwrap().downloaded)).collect();
        let killed = files(store.storage());
        store.close().unwrap_or_else(|error| panic!("closing a sound disk: {error}"));
        let closed = files(&&mut disk);
        // The peer, which had everything before the store was damaged.
        peer.close().unwrap_or_else(|error| panic!("closing a sound disk: {error}"));
        peer_disk.reopen();
        Self { killed, closed, stale, peer: peer_disk, truth, keys }
    }
}

/// Fetches a feed, and gives some of its blocks up again.
fn sync_sparse<A: Storage, B: Storage>(store: &mut Multifeed<A>, peer: &mut Multifeed<B>, key: FeedKey) {
    sync(store, peer);
    if let Some(id) = store.find(&key) {
        for range in [2..5, 9..10] {
            store.clear(id, range).unwrap_or_else(|error| panic!("clearing on a sound disk: {error}"));
        }
        store.commit(Duration::ZERO);
    }
}

fn open(disk: &mut MemoryStorage, durability: Durability) -> Multifeed<&mut MemoryStorage> {
    let options = Options { durability, ..Options::default() };
    Multifeed::open(disk, options).unwrap_or_else(|error| panic!("a sound store: {error}"))
}

fn files(disk: &&mut MemoryStorage) -> Files {
    let folders = (0..FOLDERS).flat_map(|slot| FileKind::EVERY.map(|kind| FileId::new(Slot(slot), kind)));
    let beside = FileKind::EVERY.into_iter().filter(|kind| kind.is_beside()).map(FileId::beside);
    let all = folders.filter(|file| !file.kind.is_beside()).chain(beside);
    all.filter_map(|file| Some((file, disk.contents(file)?))).collect()
}

fn storage(files: &Files) -> MemoryStorage {
    let mut disk = MemoryStorage::new();
    for (file, bytes) in files {
        disk.write_at(*file, 0, bytes).unwrap_or_else(|error| panic!("memory: {error}"));
    }
    disk
}

fn in_folder(files: &Files, slot: Slot) -> Vec<(&FileId, &Vec<u8>)> {
    files.iter().filter(|(file, _)| file.slot == slot && !file.kind.is_beside()).collect()
}

impl Place {
    fn file(self) -> FileId {
        match FileKind::EVERY[usize::from(self.kind) % FileKind::EVERY.len()] {
            kind if kind.is_beside() => FileId::beside(kind),
            kind => FileId::new(Slot(u32::from(self.slot) % FOLDERS), kind),
        }
    }
}

fn apply(edit: &Edit, files: &mut Files, base: &Base) {
    match edit {
        Edit::Truncate { file, len } => {
            if let Some(bytes) = files.get_mut(&file.file()) {
                bytes.truncate((*len).into());
            }
        }
        Edit::Lengthen { file, by } => {
            if let Some(bytes) = files.get_mut(&file.file()) {
                bytes.resize((bytes.len() + usize::from(*by)).min(1 << 20), 0);
            }
        }
        Edit::Flip { file, at, bits } => {
            if let Some(byte) = place(files, *file, *at) {
                *byte ^= bits;
            }
        }
        Edit::Write { file, at, bytes } => {
            for (more, byte) in (0u16..).zip(bytes) {
                if let Some(old) = place(files, *file, at.saturating_add(more)) {
                    *old = *byte;
                }
            }
        }
        Edit::Zero { file, at, count } => {
            for more in 0..*count {
                if let Some(byte) = place(files, *file, at.saturating_add(more)) {
                    *byte = 0;
                }
            }
        }
        Edit::Swap { a, b } => {
            let (one, two) = (files.remove(&a.file()), files.remove(&b.file()));
            files.extend(one.map(|bytes| (b.file(), bytes)));
            files.extend(two.map(|bytes| (a.file(), bytes)));
        }
        Edit::Copy { from, to } => {
            if let Some(bytes) = files.get(&from.file()).cloned() {
                files.insert(to.file(), bytes);
            }
        }
        Edit::Delete { file } => {
            files.remove(&file.file());
        }
        Edit::DeleteFolder { slot } => {
            let slot = Slot(u32::from(*slot) % FOLDERS);
            files.retain(|file, _| file.slot != slot || file.kind.is_beside());
        }
        Edit::Foreign { file, bytes } => {
            files.insert(file.file(), bytes.clone());
        }
        Edit::Stale { file } => {
            files.remove(&file.file());
            files.extend(base.stale.get(&file.file()).map(|bytes| (file.file(), bytes.clone())));
        }
        Edit::StaleFolder { slot } => {
            let slot = Slot(u32::from(*slot) % FOLDERS);
            files.retain(|file, _| file.slot != slot || file.kind.is_beside());
            let stale = base.stale.iter().filter(|(file, _)| file.slot == slot && !file.kind.is_beside());
            files.extend(stale.map(|(file, bytes)| (*file, bytes.clone())));
        }
        Edit::Stray { slot, file, bytes } => {
            let kind = FileKind::ALL[usize::from(*file) % FileKind::ALL.len()];
            files.insert(FileId::new(Slot(FOLDERS + u32::from(*slot) % 3), kind), bytes.clone());
        }
    }
}

fn place(files: &mut Files, file: Place, at: u16) -> Option<&mut u8> {
    let bytes = files.get_mut(&file.file())?;
    let len = bytes.len().max(1);
    bytes.get_mut(usize::from(at) % len)
}
