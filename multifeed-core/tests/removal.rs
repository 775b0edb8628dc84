//! Feeds that are taken out of a store, and feeds that are banned: on the disk, after a cut at any step, and on sessions.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use multifeed_core::{
    Durability, FeedId, FileId, FileKind, KeyPair, Limits, MemoryStorage, Multifeed, MultifeedEvent, Options,
    Replicate, Slot, Storage, StoreError, Want, WantEnd, WantError, WantOptions,
};
use multifeed_proto::FeedKey;

use crate::link::Link;

const START: Duration = Duration::ZERO;

fn pair(seed: u8) -> KeyPair {
    KeyPair::from_seed(&[seed; 32])
}

fn key(seed: u8) -> FeedKey {
    pair(seed).public_key()
}

fn open<S: Storage>(disk: S) -> Multifeed<S> {
    Multifeed::open(disk, Options::default()).unwrap()
}

fn fill<S: Storage>(store: &mut Multifeed<S>, name: Option<&str>, seed: u8, blocks: u64) -> FeedId {
    let id = store.writer(name, || pair(seed)).unwrap();
    for index in 0..blocks {
        store.append(id, &[Bytes::from(format!("{seed}/{index}"))]).unwrap();
    }
    id
}

fn both(options: Replicate) -> [Replicate; 2] {
    [options.clone(), options]
}

fn sync<A: Storage, B: Storage>(a: &mut Multifeed<A>, b: &mut Multifeed<B>) {
    let mut link = Link::between(a, b, both(Replicate::default()));
    link.run_between(a, b, START);
    assert_eq!(link.closed(), [Some(true); 2]);
}

/// What JS finds in a store: it opens folders until one has no key, and names a feed by its `localname`, or else by its number.
fn as_js(disk: &MemoryStorage) -> BTreeMap<String, FeedKey> {
    let file = |slot, kind| disk.contents(FileId::new(Slot(slot), kind));
    let mut feeds = BTreeMap::new();
    let mut slot = 0;
    while let Some(key) = file(slot, FileKind::Key) {
        let name = file(slot, FileKind::LocalName).map(|name| String::from_utf8(name).unwrap());
        let key = FeedKey::new(key.try_into().unwrap());
        assert_eq!(feeds.insert(name.unwrap_or_else(|| slot.to_string()), key), None, "two feeds with one name");
        slot += 1;
    }
    let mut open = disk.clone();
    open.reopen();
    assert!(open.list().unwrap().iter().all(|found| found.0 < slot), "a gap at {slot}");
    feeds
}

/// A store with remotes' feeds, named writers and unnamed ones: their keys, in the order of their folders.
fn mixed(durability: Durability) -> (MemoryStorage, Vec<FeedKey>) {
    let mut disk = MemoryStorage::new();
    let mut store = Multifeed::open(&mut disk, Options { durability, ..Options::default() }).unwrap();
    fill(&mut store, Some("first"), 1, 3);
    let mut others = open(MemoryStorage::new());
    fill(&mut others, Some("x"), 11, 4);
    sync(&mut store, &mut others);
    fill(&mut store, None, 2, 2);
    fill(&mut store, Some("second"), 3, 5);
    let mut others = open(MemoryStorage::new());
    fill(&mut others, Some("x"), 12, 2);
    sync(&mut store, &mut others);
    fill(&mut store, None, 4, 1);
    let keys = store.feeds().map(|id| store.info(id).unwrap().key).collect();
    store.close().unwrap();
    disk.reopen();
    (disk, keys)
}

/// A store whose feeds are in each other's way. Two writers are named by the number of a remote's folder and of an unnamed one's, one by that of a
/// folder that is not there. Whatever goes, the last folder would take a number that is a name.
fn numbered(durability: Durability) -> (MemoryStorage, Vec<FeedKey>) {
    let mut disk = MemoryStorage::new();
    let mut store = Multifeed::open(&mut disk, Options { durability, ..Options::default() }).unwrap();
    fill(&mut store, Some("1"), 1, 3);
    let mut others = open(MemoryStorage::new());
    fill(&mut others, Some("x"), 11, 4);
    sync(&mut store, &mut others);
    for (seed, name) in [(2, "2"), (3, "0"), (4, "3"), (5, "5")] {
        fill(&mut store, Some(name), seed, 2);
    }
    fill(&mut store, None, 6, 1);
    let mut others = open(MemoryStorage::new());
    fill(&mut others, Some("x"), 12, 2);
    sync(&mut store, &mut others);
    let keys = store.feeds().map(|id| store.info(id).unwrap().key).collect();
    store.close().unwrap();
    disk.reopen();
    (disk, keys)
}

fn remove<S: Storage>(store: &mut Multifeed<S>, key: &FeedKey) -> Result<(), StoreError> {
    let id = store.find(key).unwrap();
    if store.info(id).unwrap().writable { store.remove_writer(id) } else { store.remove(id) }
}

/// Every block of every feed, by key, and the names.
fn contents<S: Storage>(store: &mut Multifeed<S>) -> BTreeMap<FeedKey, (String, Vec<Bytes>)> {
    let mut all = BTreeMap::new();
    for id in store.feeds().collect::<Vec<_>>() {
        let info = store.info(id).unwrap();
        let blocks = (0..info.len).map(|index| store.get(id, index).unwrap().unwrap()).collect();
        all.insert(info.key, (info.name, blocks));
    }
    all
}

fn names<S: Storage>(store: &Multifeed<S>) -> BTreeMap<String, FeedKey> {
    store.feeds().map(|id| store.info(id).unwrap()).map(|info| (info.name, info.key)).collect()
}

#[test]
fn any_feed_can_go_and_js_finds_the_others_under_their_names() {
    for durability in [Durability::None, Durability::Always] {
        for at in 0..6 {
            let (mut disk, mut keys) = mixed(durability);
            let gone = keys.remove(at);
            let mut store = Multifeed::open(&mut disk, Options { durability, ..Options::default() }).unwrap();
            let before = contents(&mut store);
            let id = store.find(&gone).unwrap();
            remove(&mut store, &gone).unwrap();
            assert!(store.is_removed(id) && store.find(&gone).is_none());
            let after = contents(&mut store);
            assert_eq!(after.keys().copied().collect::<BTreeSet<_>>(), keys.iter().copied().collect());
            for (key, (_, blocks)) in &after {
                assert_eq!(&before[key].1, blocks);
            }
            for (name, key) in names(&store) {
                assert_eq!(store.find_name(&name), store.find(&key));
            }
            let told = names(&store);
            // It goes on, in memory and on the disk: feeds that were there, and new ones.
            for (seed, name) in [(1, "first"), (3, "second"), (5, "third")] {
                if !store.is_banned(&key(seed)) {
                    fill(&mut store, Some(name), seed, 2);
                }
            }
            fill(&mut store, None, 6, 1);
            let (ours, now) = (contents(&mut store), names(&store));
            assert!(told.iter().all(|(name, key)| now.get(name) == Some(key)));
            store.close().unwrap();
            assert_eq!(as_js(&disk), now);
            disk.reopen();
            let mut store = Multifeed::open(&mut disk, Options { durability, ..Options::default() }).unwrap();
            assert!(store.problems().is_empty() && store.recovered().is_empty());
            assert_eq!(contents(&mut store), ours);
            // One after another, from the front, until none is left.
            for key in store.feeds().map(|id| store.info(id).unwrap().key).collect::<Vec<_>>() {
                remove(&mut store, &key).unwrap();
            }
            assert_eq!(store.feeds().count(), 0);
            store.close().unwrap();
            assert_eq!(as_js(&disk).len(), 0);
        }
    }
}

#[test]
fn a_removed_feeds_calls_fail_by_a_typed_error() {
    let (mut disk, keys) = mixed(Durability::None);
    let mut store = open(&mut disk);
    let remote = store.find(&keys[1]).unwrap();
    let own = store.find(&keys[0]).unwrap();
    assert!(matches!(store.remove(own), Err(StoreError::OwnWriter { key }) if key == keys[0]));
    let waiting = store.want(remote, Want::Block(99), WantOptions::default()).unwrap();
    while store.poll_event().is_some() {}
    store.remove(remote).unwrap();
    assert_eq!(store.poll_want(), Some((waiting, WantEnd::Removed)));
    let events: Vec<_> = std::iter::from_fn(|| store.poll_event()).collect();
    assert!(
        matches!(&events[..], [MultifeedEvent::Removed { key, name, .. }, MultifeedEvent::Moved { name: new, .. }]
            if *key == keys[1] && name == "1" && new == "1"),
        "{events:?}"
    );
    let removed = |error: StoreError| assert_eq!(error.code(), "ERR_REMOVED");
    removed(store.get(remote, 0).unwrap_err());
    removed(store.remove(remote).unwrap_err());
    removed(store.remove_writer(remote).unwrap_err());
    removed(store.clear(remote, 0..1).unwrap_err());
    removed(store.locate(remote, 0).unwrap_err());
    assert_eq!(store.append(remote, &[Bytes::new()]).unwrap_err().code(), "ERR_REMOVED");
    assert_eq!(store.want(remote, Want::Block(0), WantOptions::default()), Err(WantError::Removed));
    assert_eq!((store.info(remote).unwrap().len, store.has(remote, 0)), (0, false));
    assert_eq!(store.register_extension(remote, "x").unwrap_err().code(), "ERR_PEER_GONE");
    store.sync().unwrap();
    store.close().unwrap();
}

#[test]
fn a_banned_writers_key_is_not_taken_up_again() {
    let (mut disk, _) = mixed(Durability::None);
    let mut store = open(&mut disk);
    let id = store.find(&key(1)).unwrap();
    store.remove_writer(id).unwrap();
    for again in 0..2 {
        let error = store.writer(Some("first"), || pair(1)).unwrap_err();
        assert!(matches!(error, StoreError::Banned { key: banned } if banned == key(1)), "{error}");
        assert!(store.is_banned(&key(1)) && !store.is_banned(&key(2)));
        assert_eq!(store.banned().collect::<Vec<_>>(), [key(1)]);
        if again == 0 {
            store.close().unwrap();
            disk.reopen();
            store = open(&mut disk);
        }
    }
    // The name is free for another one; and who says so may have the old one back, once a peer brought what it signed.
    let other = fill(&mut store, Some("first"), 9, 1);
    assert_eq!(store.info(other).unwrap().len, 1);
    assert!(store.unban(key(1)).unwrap() && !store.unban(key(1)).unwrap());
    let again = store.writer(Some("again"), || pair(1)).unwrap();
    assert_eq!(store.append(again, &[Bytes::from("x")]).unwrap_err().code(), "ERR_WRITER_OLDER");
}

#[test]
fn banned_keys_are_bounded_and_their_file_is_text() {
    let mut disk = MemoryStorage::new();
    let mut limits = Limits::default();
    limits.banned = 2;
    let mut store = Multifeed::open(&mut disk, Options { limits, ..Options::default() }).unwrap();
    assert!(store.ban(key(1)).unwrap() && !store.ban(key(1)).unwrap());
    assert!(store.ban(key(2)).unwrap());
    assert!(matches!(store.ban(key(3)), Err(StoreError::TooManyBanned { max: 2 })));
    store.close().unwrap();
    disk.reopen();
    let file = FileId::beside(FileKind::Banned);
    let mut text = String::from_utf8(disk.contents(file).unwrap()).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    let (one, two) = (key(1).to_string(), key(2).to_string());
    let mut expected = [one.as_str(), two.as_str()];
    expected.sort_unstable();
    assert_eq!(lines, expected);
    // Somebody's hand: what is no key is reported, and the rest counts.
    text.push_str("what is this\n");
    disk.replace(file, text.as_bytes()).unwrap();
    let store = open(&mut disk);
    assert!(matches!(store.problems(), [StoreError::Damaged { file: FileKind::Banned, .. }]), "{:?}", store.problems());
    assert_eq!((store.problems()[0].slot(), store.banned().count()), (None, 2));
    assert_eq!(store.problems()[0].to_string(), "`multifeed.blocked` is damaged: its line 3 is no key");
}

/// A disk that is gone from its n-th change or sync on; of a removal of a folder, so many files were gone first.
struct Cut {
    disk: MemoryStorage,
    steps: usize,
    files: usize,
}

impl Cut {
    fn step(&mut self) -> io::Result<()> {
        let left = self.steps.checked_sub(1).ok_or_else(|| io::Error::other("the power is off"))?;
        self.steps = left;
        Ok(())
    }
}

impl Storage for Cut {
    fn list(&mut self) -> io::Result<Vec<Slot>> {
        self.disk.list()
    }
    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.disk.read_at(file, offset, buf)
    }
    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        self.step()?;
        self.disk.write_at(file, offset, data)
    }
    fn len(&mut self, file: FileId) -> io::Result<Option<u64>> {
        self.disk.len(file)
    }
    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()> {
        self.step()?;
        self.disk.truncate(file, len)
    }
    fn replace(&mut self, file: FileId, data: &[u8]) -> io::Result<()> {
        self.step()?;
        self.disk.replace(file, data)
    }
    fn sync(&mut self, file: FileId) -> io::Result<()> {
        self.step()?;
        self.disk.sync(file)
    }
    fn remove(&mut self, slot: Slot) -> io::Result<()> {
        if self.steps == 0 {
            let lost = FileKind::ALL.into_iter().rev().take(self.files);
            lost.for_each(|kind| self.disk.lose(FileId::new(slot, kind)));
        }
        self.step()?;
        self.disk.remove(slot)
    }
    fn rename(&mut self, from: Slot, to: Slot) -> io::Result<()> {
        self.step()?;
        self.disk.rename(from, to)
    }
    fn close(&mut self) -> io::Result<()> {
        self.disk.close()
    }
}

#[test]
fn a_removal_that_is_cut_anywhere_is_done_or_was_never_begun() {
    for (start, keys) in [mixed(Durability::None), numbered(Durability::None)] {
        cut_anywhere(&start, &keys);
    }
}

fn cut_anywhere(start: &MemoryStorage, keys: &[FeedKey]) {
    let all = contents(&mut open(start.clone()));
    for gone in keys {
        let (mut undone, mut done) = (0, 0);
        for steps in 0.. {
            let mut finished = true;
            for files in 0..=7 {
                let mut store = open(Cut { disk: start.clone(), steps, files });
                finished = remove(&mut store, gone).is_ok();
                let mut disk = store.storage().disk.clone();
                let js = as_js_until_cut(&disk);
                let mut store = open(&mut disk);
                assert!(store.problems().is_empty(), "{steps}: {:?}", store.problems());
                let mut ours = contents(&mut store);
                let mut expected = all.clone();
                match store.find(gone) {
                    Some(_) => undone += 1,
                    None => {
                        done += 1;
                        expected.remove(gone);
                    }
                }
                // Their numbers may have changed, and so may their names, and nothing else.
                let bare = |all: &BTreeMap<FeedKey, (String, Vec<Bytes>)>| {
                    all.iter().map(|(key, (_, blocks))| (*key, blocks.clone())).collect::<Vec<_>>()
                };
                assert_eq!(bare(&ours), bare(&expected), "{steps}");
                assert!(!finished || store.find(gone).is_none());
                // Whatever the moment, JS found no feed that is not one of these.
                assert!(js.iter().all(|key| all.contains_key(key)));
                let id = fill(&mut store, None, 77, 1);
                ours.insert(key(77), (store.info(id).unwrap().name, vec![Bytes::from("77/0")]));
                assert_eq!(contents(&mut store), ours);
                let now = names(&store);
                store.close().unwrap();
                assert_eq!(as_js(&disk), now, "{steps}");
            }
            if finished {
                break;
            }
        }
        assert!(undone > 0 && done > 8, "{undone} {done}");
    }
}

/// A disk some calls of which fail: so many from the n-th on, before or after they did what they were to do.
struct Flaky<'a> {
    disk: &'a mut MemoryStorage,
    fault: Rc<Cell<Option<Fault>>>,
    /// Calls that always fail.
    stuck: Rc<Cell<Option<Stuck>>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Stuck {
    Remove,
    Rename,
    Journal,
}

#[derive(Clone, Copy)]
struct Fault {
    in_calls: usize,
    count: usize,
    done: bool,
}

impl Flaky<'_> {
    fn call<T>(&mut self, call: impl FnOnce(&mut MemoryStorage) -> io::Result<T>) -> io::Result<T> {
        let Some(mut fault) = self.fault.get() else { return call(self.disk) };
        if fault.in_calls > 0 {
            fault.in_calls -= 1;
            self.fault.set(Some(fault));
            return call(self.disk);
        }
        fault.count -= 1;
        self.fault.set(Some(fault).filter(|fault| fault.count > 0));
        if fault.done {
            call(self.disk)?;
        }
        Err(io::ErrorKind::StorageFull.into())
    }
}

impl<'a> Flaky<'a> {
    fn stuck(disk: &'a mut MemoryStorage, stuck: &Rc<Cell<Option<Stuck>>>) -> Self {
        Self { disk, fault: Rc::default(), stuck: Rc::clone(stuck) }
    }

    fn unless(&self, stuck: Stuck) -> io::Result<()> {
        if self.stuck.get() == Some(stuck) { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }
}

impl Storage for Flaky<'_> {
    fn list(&mut self) -> io::Result<Vec<Slot>> {
        self.call(|disk| disk.list())
    }
    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.call(|disk| disk.read_at(file, offset, buf))
    }
    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        if file.kind == FileKind::Journal {
            self.unless(Stuck::Journal)?;
        }
        self.call(|disk| disk.write_at(file, offset, data))
    }
    fn len(&mut self, file: FileId) -> io::Result<Option<u64>> {
        self.call(|disk| disk.len(file))
    }
    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()> {
        self.call(|disk| disk.truncate(file, len))
    }
    fn replace(&mut self, file: FileId, data: &[u8]) -> io::Result<()> {
        if file.kind == FileKind::Journal {
            self.unless(Stuck::Journal)?;
        }
        self.call(|disk| disk.replace(file, data))
    }
    fn sync(&mut self, file: FileId) -> io::Result<()> {
        self.call(|disk| disk.sync(file))
    }
    fn remove(&mut self, slot: Slot) -> io::Result<()> {
        self.unless(Stuck::Remove)?;
        self.call(|disk| disk.remove(slot))
    }
    fn rename(&mut self, from: Slot, to: Slot) -> io::Result<()> {
        self.unless(Stuck::Rename)?;
        self.call(|disk| disk.rename(from, to))
    }
    fn close(&mut self) -> io::Result<()> {
        self.call(|disk| disk.close())
    }
}

/// A history with a call of the storage that fails in a removal, and everything well before and after: nothing that was acknowledged is gone.
/// Whether the fault came.
fn goes_on_after(fault: Fault, start: &MemoryStorage, gone: &FeedKey, durability: Durability) -> bool {
    let options = || Options { durability, ..Options::default() };
    let mut disk = start.clone();
    let flaky = Flaky { disk: &mut disk, fault: Rc::default(), stuck: Rc::default() };
    let faults = Rc::clone(&flaky.fault);
    let mut store = Multifeed::open(flaky, options()).unwrap();
    let mut expected = contents(&mut store);
    let writable: Vec<FeedId> = store.feeds().filter(|id| store.info(*id).unwrap().writable).collect();

    faults.set(Some(fault));
    let removed = remove(&mut store, gone);
    let failed = faults.replace(None).is_none_or(|left| left.count < fault.count);
    assert!(failed || removed.is_ok());
    if store.find(gone).is_none() {
        expected.remove(gone);
    }
    // What is there is read and appended to as if nothing had been.
    let bare = |all: &BTreeMap<FeedKey, (String, Vec<Bytes>)>| {
        all.iter().map(|(key, (_, blocks))| (*key, blocks.clone())).collect::<BTreeMap<_, _>>()
    };
    if fault.count == 1 {
        assert_eq!(bare(&contents(&mut store)), bare(&expected));
    }
    for id in writable.into_iter().filter(|id| !store.is_removed(*id)).collect::<Vec<_>>() {
        store.append(id, &[Bytes::from("after")]).unwrap();
        let info = store.info(id).unwrap();
        expected.get_mut(&info.key).unwrap().1.push(Bytes::from("after"));
    }
    store.commit(START);
    store.sync().unwrap();
    assert_eq!(bare(&contents(&mut store)), bare(&expected));
    // As it is left by a kill.
    let killed = MemoryStorage::clone(store.storage().disk);
    let mut again = Multifeed::open(killed, options()).unwrap();
    assert!(again.problems().is_empty(), "{:?}", again.problems());
    assert_eq!(bare(&contents(&mut again)), bare(&expected));
    again.close().unwrap();

    // And with a new feed, closed.
    let id = fill(&mut store, None, 77, 1);
    expected.insert(key(77), (store.info(id).unwrap().name, vec![Bytes::from("77/0")]));
    let now = names(&store);
    assert_eq!(now.len(), expected.len());
    assert_eq!(bare(&contents(&mut store)), bare(&expected));
    let mut told = BTreeMap::new();
    while let Some(event) = store.poll_event() {
        if let MultifeedEvent::Moved { id, name } = event {
            // Before its folder is moved a feed may have to be renamed.
            assert!(told.insert(id, name.clone()).is_none_or(|before| before == name));
            assert_eq!(store.info(id).unwrap().name, name);
        }
    }
    store.close().unwrap();
    disk.reopen();
    let mut again = Multifeed::open(&mut disk, options()).unwrap();
    assert_eq!(bare(&contents(&mut again)), bare(&expected));
    assert_eq!(names(&again), now);
    again.close().unwrap();
    assert_eq!(as_js(&disk), now);
    failed
}

#[test]
fn a_removal_in_which_a_call_of_the_storage_fails_loses_nothing() {
    for durability in [Durability::None, Durability::Always] {
        for (start, keys) in [mixed(durability), numbered(durability)] {
            for gone in &keys {
                for (count, done) in [(1, false), (1, true), (2, false), (2, true), (1000, false)] {
                    let mut in_calls = 0;
                    while goes_on_after(Fault { in_calls, count, done }, &start, gone, durability) {
                        in_calls += 1;
                    }
                    assert!(in_calls > 8, "{in_calls}");
                }
            }
        }
    }
}

#[test]
fn nothing_is_written_where_the_journal_cannot_say_that_the_store_is_in_use() {
    let mut disk = MemoryStorage::new();
    let stuck = Rc::default();
    let mut ours = Multifeed::open(Flaky::stuck(&mut disk, &stuck), Options::default()).unwrap();
    let mut theirs = open(MemoryStorage::new());
    fill(&mut theirs, None, 1, 3);
    sync(&mut ours, &mut theirs);
    ours.close().unwrap();
    disk.reopen();
    let before = FileKind::ALL.map(|kind| disk.contents(FileId::new(Slot(0), kind)));
    // The store was closed, and blocks come: what is written first is that it is in use.
    let mut ours = Multifeed::open(Flaky::stuck(&mut disk, &stuck), Options::default()).unwrap();
    let id = theirs.feeds().next().unwrap();
    theirs.append(id, &[Bytes::from("new")]).unwrap();
    stuck.set(Some(Stuck::Journal));
    let mut link = Link::between(&mut ours, &mut theirs, both(Replicate::default()));
    link.run_between(&mut ours, &mut theirs, START);
    assert_eq!(link.closed()[0], Some(false));
    // However often it is tried.
    for _ in 0..3 {
        assert_eq!(ours.sync().unwrap_err().code(), "ERR_STORE_IO");
    }
    assert!(FileKind::ALL.map(|kind| ours.storage().disk.contents(FileId::new(Slot(0), kind))) == before);
    stuck.set(None);
    ours.sync().unwrap();
    let id = ours.find(&key(1)).unwrap();
    assert_eq!((ours.info(id).unwrap().downloaded, ours.synced_len(id)), (4, 4));
}

#[test]
fn a_removal_that_cannot_be_done_keeps_nobody_from_the_other_feeds() {
    for stuck in [Stuck::Remove, Stuck::Rename] {
        let (mut disk, keys) = mixed(Durability::None);
        let gone = keys[1];
        let mut expected = contents(&mut open(disk.clone()));
        expected.remove(&gone);
        let blocks = |all: BTreeMap<FeedKey, (String, Vec<Bytes>)>| {
            all.into_iter().map(|(key, (_, blocks))| (key, blocks)).collect::<BTreeMap<_, _>>()
        };
        let mut expected = blocks(expected);
        let is_stuck = Rc::new(Cell::new(Some(stuck)));
        let mut store = open(Flaky::stuck(&mut disk, &is_stuck));
        assert!(remove(&mut store, &gone).is_err());
        assert_eq!(blocks(contents(&mut store)), expected);
        store.close().unwrap();
        disk.reopen();

        let mut store = open(Flaky::stuck(&mut disk, &is_stuck));
        assert!(matches!(store.problems(), [StoreError::Io { .. }]), "{:?}", store.problems());
        assert_eq!(blocks(contents(&mut store)), expected);
        let first = store.writer(Some("first"), || unreachable!()).unwrap();
        store.append(first, &[Bytes::from("more")]).unwrap();
        expected.get_mut(&key(1)).unwrap().push(Bytes::from("more"));
        // What would need its number has to wait.
        assert!(store.writer(Some("new"), || pair(20)).is_err() && store.add(key(21)).is_err());
        let other = store.find(&keys[4]).unwrap();
        assert!(store.remove(other).is_err() && !store.is_removed(other));
        assert_eq!(blocks(contents(&mut store)), expected);

        is_stuck.set(None);
        fill(&mut store, None, 20, 1);
        expected.insert(key(20), vec![Bytes::from("20/0")]);
        assert_eq!(blocks(contents(&mut store)), expected);
        let now = names(&store);
        store.close().unwrap();
        assert_eq!(as_js(&disk), now);
        disk.reopen();
        let mut store = open(&mut disk);
        assert!(store.problems().is_empty());
        assert_eq!(blocks(contents(&mut store)), expected);
    }
}

/// A closed store with a feed to remove, and behind it a writer of JS's, of which our journal knows nothing.
fn with_a_writer_of_js() -> MemoryStorage {
    let (mut disk, mut js) = (MemoryStorage::new(), MemoryStorage::new());
    let mut store = open(&mut disk);
    store.add(key(30)).unwrap();
    store.close().unwrap();
    disk.reopen();
    let mut theirs = open(&mut js);
    fill(&mut theirs, Some("js"), 50, 6);
    theirs.close().unwrap();
    for kind in FileKind::ALL {
        let bytes = js.contents(FileId::new(Slot(0), kind));
        bytes.into_iter().for_each(|bytes| disk.replace(FileId::new(Slot(1), kind), &bytes).unwrap());
    }
    disk
}

#[test]
fn a_feed_that_js_adds_while_a_removal_waits_takes_the_number_and_its_name() {
    let (start, keys) = mixed(Durability::None);
    let last = keys.len() as u32;
    let mut moved = 0;
    for steps in 0.. {
        let mut cut = Cut { disk: start.clone(), steps, files: 0 };
        let done = remove(&mut open(&mut cut), &keys[1]).is_ok();
        if done {
            break;
        }
        let mut disk = cut.disk;
        if as_js_until_cut(&disk).len() < keys.len() {
            continue;
        }
        // JS finds them all, and makes one more, which it names by its number.
        let mut js = MemoryStorage::new();
        let mut theirs = open(&mut js);
        fill(&mut theirs, None, 50, 6);
        theirs.close().unwrap();
        for kind in FileKind::ALL.into_iter().filter(|kind| *kind != FileKind::Journal) {
            let bytes = js.contents(FileId::new(Slot(0), kind));
            bytes.into_iter().for_each(|bytes| disk.replace(FileId::new(Slot(last), kind), &bytes).unwrap());
        }
        disk.replace(FileId::new(Slot(last), FileKind::LocalName), last.to_string().as_bytes()).unwrap();
        // Whatever cuts that removal short.
        for steps in 0..30 {
            let mut cut = Cut { disk: disk.clone(), steps, files: 0 };
            drop(Multifeed::open(&mut cut, Options::default()));
            let store = open(&mut cut.disk);
            assert!(store.problems().is_empty(), "{steps}: {:?}", store.problems());
            let id = store.find(&key(50)).unwrap();
            assert_eq!(store.info(id).unwrap().name, store.slot_of(id).unwrap().to_string(), "{steps}");
            moved += u32::from(store.slot_of(id).unwrap() == Slot(1));
        }
    }
    assert!(moved > 0);
}

#[test]
fn a_damaged_writer_that_is_moved_is_no_shorter_one_after_a_crash() {
    let mut disk = with_a_writer_of_js();
    disk.truncate(FileId::new(Slot(1), FileKind::Tree), 32 + 40).unwrap();
    // It is shown as far as it is proven, and nothing is appended to it.
    let damaged = |store: &mut Multifeed<&mut MemoryStorage>| {
        let refused = matches!(store.problems(), [StoreError::Damaged { file: FileKind::Tree, .. }]);
        let id = store.find(&key(50)).unwrap();
        assert_eq!((refused, store.info(id).unwrap().len), (true, 1), "{:?}", store.problems());
        let error = store.append(id, &[Bytes::from("another history")]).unwrap_err();
        assert_eq!(error.code(), "ERR_STORE_DAMAGED");
    };
    let mut store = open(&mut disk);
    damaged(&mut store);
    remove(&mut store, &key(30)).unwrap();
    // The process is killed here.
    drop(store);
    assert!(disk.contents(FileId::new(Slot(0), FileKind::SecretKey)).is_some());
    damaged(&mut open(&mut disk));
}

#[test]
fn a_secret_key_is_never_taken_for_what_a_crash_left() {
    // The writer was moved; and it was made, and nothing was appended.
    for moved in [true, false] {
        let mut disk = with_a_writer_of_js();
        let mut store = open(&mut disk);
        if moved {
            remove(&mut store, &key(30)).unwrap();
        } else {
            store.writer(Some("new"), || pair(51)).unwrap();
        }
        drop(store);
        let slot = Slot(if moved { 0 } else { 2 });
        disk.truncate(FileId::new(slot, FileKind::Key), 31).unwrap();
        let secret = FileId::new(slot, FileKind::SecretKey);
        assert!(disk.contents(secret).is_some());
        let store = open(&mut disk);
        assert!(matches!(store.problems(), [StoreError::Damaged { file: FileKind::Key, .. }]));
        drop(store);
        assert!(disk.contents(secret).is_some());
    }
}

#[test]
fn a_feed_in_a_number_that_was_used_before_leaves_no_gap_when_the_power_goes() {
    for durability in [Durability::None, Durability::Always] {
        let (start, keys) = mixed(durability);
        let disk = Cached { now: start.clone(), safe: start };
        let mut store = Multifeed::open(disk, Options { durability, ..Options::default() }).unwrap();
        remove(&mut store, &keys[1]).unwrap();
        store.add(key(40)).unwrap();
        store.add(key(41)).unwrap();
        // Of the first folder's files, which were not synced, `tree` happens to be there; of the second one's perhaps the key.
        let mut disk = store.storage().safe.clone();
        let folder = Slot(5);
        assert_eq!(disk.contents(FileId::new(folder, FileKind::Key)), None);
        disk.write_at(FileId::new(folder, FileKind::Tree), 0, &[5, 2, 0x57, 2]).unwrap();
        let mut more = disk.clone();
        let key_of = FileId::new(Slot(6), FileKind::Key);
        more.write_at(key_of, 0, key(41).as_bytes()).unwrap();
        for mut disk in [disk, more] {
            let store = open(&mut disk);
            assert!(store.problems().is_empty(), "{:?}", store.problems());
            let now = names(&store);
            store.close().unwrap();
            assert_eq!(as_js(&disk), now);
        }
    }
}

#[test]
fn what_opening_tells_has_the_numbers_of_after_it() {
    // Four remotes' feeds, of which the power takes the second folder. Of the last one the tree, or the newest block.
    for damaged in [true, false] {
        let mut disk = MemoryStorage::new();
        let mut store = open(&mut disk);
        for seed in [30, 31, 32] {
            store.add(key(seed)).unwrap();
        }
        let mut others = open(MemoryStorage::new());
        fill(&mut others, Some("x"), 33, 3);
        sync(&mut store, &mut others);
        assert_eq!(store.slot_of(store.find(&key(33)).unwrap()).unwrap(), Slot(3));
        drop(store);
        disk.remove(Slot(1)).unwrap();
        if damaged {
            disk.replace(FileId::new(Slot(3), FileKind::Tree), &[7; 40]).unwrap();
            disk.replace(FileId::new(Slot(3), FileKind::LocalName), b"its writer").unwrap();
        } else {
            disk.truncate(FileId::new(Slot(3), FileKind::Data), 9).unwrap();
        }
        let mut store = open(&mut disk);
        assert_eq!(store.find(&key(33)).map(|id| store.slot_of(id).unwrap()), (!damaged).then_some(Slot(1)));
        let told: Vec<_> = store.problems().iter().map(StoreError::slot).collect();
        let recovered: Vec<_> = store.recovered().iter().map(|recovered| (recovered.key, recovered.slot)).collect();
        let events: Vec<_> = std::iter::from_fn(|| store.poll_event()).collect();
        if damaged {
            assert_eq!((told, recovered.len()), (vec![Some(Slot(1))], 0));
            let error = store.writer(Some("its writer"), || pair(34)).unwrap_err();
            assert_eq!(error.slot(), Some(Slot(1)), "{error}");
        } else {
            assert_eq!((told, &recovered), (vec![], &vec![(key(33), Slot(1))]));
            let slots = |event: &MultifeedEvent| match event {
                MultifeedEvent::Recovered(recovered) => Some(recovered.slot),
                _ => None,
            };
            assert_eq!(events.iter().filter_map(slots).collect::<Vec<_>>(), [Slot(1)]);
            // And with a removal, of which nothing more must be reported.
            let id = store.find(&key(33)).unwrap();
            let first = store.find(&key(30)).unwrap();
            store.remove(id).unwrap();
            assert!(store.recovered().is_empty());
            store.remove(first).unwrap();
        }
    }
}

/// A disk, and what of it a power cut leaves: what was synced, and nothing else.
struct Cached {
    now: MemoryStorage,
    safe: MemoryStorage,
}

impl Storage for Cached {
    fn list(&mut self) -> io::Result<Vec<Slot>> {
        self.now.list()
    }
    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.now.read_at(file, offset, buf)
    }
    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        self.now.write_at(file, offset, data)
    }
    fn len(&mut self, file: FileId) -> io::Result<Option<u64>> {
        self.now.len(file)
    }
    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()> {
        self.now.truncate(file, len)
    }
    fn replace(&mut self, file: FileId, data: &[u8]) -> io::Result<()> {
        self.safe.replace(file, data)?;
        self.now.replace(file, data)
    }
    fn sync(&mut self, file: FileId) -> io::Result<()> {
        self.now.contents(file).map_or(Ok(()), |bytes| self.safe.replace(file, &bytes))
    }
    fn remove(&mut self, slot: Slot) -> io::Result<()> {
        self.safe.remove(slot)?;
        self.now.remove(slot)
    }
    fn rename(&mut self, from: Slot, to: Slot) -> io::Result<()> {
        self.safe.rename(from, to)?;
        self.now.rename(from, to)
    }
    fn close(&mut self) -> io::Result<()> {
        self.now.close()
    }
}

fn as_js_until_cut(disk: &MemoryStorage) -> Vec<FeedKey> {
    let key = |slot| disk.contents(FileId::new(Slot(slot), FileKind::Key));
    (0..).map_while(key).map(|key| FeedKey::new(key.try_into().unwrap())).collect()
}

#[test]
fn what_js_makes_in_the_gap_stays() {
    // The removal of folder 1 was cut between its last file and the renaming of the last folder. Then JS was here, saw one feed, and made
    // its next writer in folder 1. Or it saw them all, since `key` was still there, and made one after the last.
    let (start, keys) = mixed(Durability::None);
    let gone = keys[1];
    for in_gap in [true, false] {
        let mut steps = 0;
        let cut = loop {
            let mut store = open(Cut { disk: start.clone(), steps, files: if in_gap { 7 } else { 6 } });
            assert!(remove(&mut store, &gone).is_err());
            let disk = store.storage().disk.clone();
            let has = |kind| disk.contents(FileId::new(Slot(1), kind)).is_some();
            if !has(FileKind::Tree) && has(FileKind::Key) != in_gap {
                break disk;
            }
            steps += 1;
        };
        let mut disk = cut;
        let slot = if in_gap { 1 } else { 6 };
        let mut js = MemoryStorage::new();
        let mut theirs = open(&mut js);
        fill(&mut theirs, Some("js"), 50, 2);
        theirs.close().unwrap();
        for kind in FileKind::ALL {
            if let Some(bytes) = js.contents(FileId::new(Slot(0), kind)) {
                disk.replace(FileId::new(Slot(slot), kind), &bytes).unwrap();
            }
        }
        let mut store = open(&mut disk);
        assert!(store.problems().is_empty(), "{:?}", store.problems());
        let mut expected: BTreeSet<FeedKey> = keys.iter().copied().filter(|key| *key != gone).collect();
        expected.insert(key(50));
        assert_eq!(contents(&mut store).keys().copied().collect::<BTreeSet<_>>(), expected);
        let now = names(&store);
        store.close().unwrap();
        assert_eq!(as_js(&disk), now);
    }
}

#[test]
fn sessions_leave_a_removed_feed_and_go_on() {
    for banned in [false, true] {
        let (mut disk, mut other) = (MemoryStorage::new(), MemoryStorage::new());
        let (mut ours, mut theirs) = (open(&mut disk), open(&mut other));
        let mine = fill(&mut ours, Some("mine"), 1, 3);
        let first = fill(&mut theirs, Some("first"), 2, 3);
        let second = fill(&mut theirs, Some("second"), 3, 3);
        let mut link = Link::between(&mut ours, &mut theirs, both(Replicate::live()));
        link.run_between(&mut ours, &mut theirs, START);
        let here = ours.find(&key(2)).unwrap();
        assert_eq!((ours.info(here).unwrap().len, theirs.peers(first).len()), (3, 1));
        if banned {
            assert!(ours.ban(key(2)).unwrap());
        }
        ours.remove(here).unwrap();
        link.run_between(&mut ours, &mut theirs, START);
        assert_eq!((link.closed(), theirs.peers(first).len(), theirs.peers(second).len()), ([None; 2], 0, 1));
        // The other feeds go on, and what comes of this one goes nowhere.
        for id in [first, second] {
            theirs.append(id, &[Bytes::from("more")]).unwrap();
            theirs.commit(START);
        }
        ours.append(mine, &[Bytes::from("more")]).unwrap();
        ours.commit(START);
        link.run_between(&mut ours, &mut theirs, START);
        let len =
            |store: &Multifeed<&mut MemoryStorage>, seed| store.find(&key(seed)).map(|id| store.info(id).unwrap().len);
        assert_eq!((len(&ours, 2), len(&ours, 3), len(&theirs, 1)), (None, Some(4), Some(4)));
        link.ends[0].1.session().finish();
        link.run_between(&mut ours, &mut theirs, START);

        // The next session brings it again, unless it is banned; and a third one does, which neither offers nor asks before.
        sync(&mut ours, &mut theirs);
        assert_eq!(len(&ours, 2), (!banned).then_some(4));
        assert_eq!(ours.storage().contents(FileId::new(Slot(2), FileKind::Key)).is_some(), !banned);
        if banned {
            assert!(ours.unban(key(2)).unwrap());
            sync(&mut ours, &mut theirs);
            assert_eq!(len(&ours, 2), Some(4));
        }
    }
}

#[test]
fn a_banned_feed_is_neither_offered_nor_asked_for() {
    let (mut disk, mut other) = (MemoryStorage::new(), MemoryStorage::new());
    let (mut ours, mut theirs) = (open(&mut disk), open(&mut other));
    let kept = fill(&mut ours, Some("kept"), 1, 2);
    fill(&mut ours, Some("secret"), 2, 2);
    fill(&mut theirs, Some("junk"), 3, 2);
    ours.ban(key(2)).unwrap();
    ours.ban(key(3)).unwrap();
    for options in [Replicate::default(), Replicate { reconcile: Some(false), ..Replicate::default() }] {
        let mut link = Link::between(&mut ours, &mut theirs, both(options));
        link.run_between(&mut ours, &mut theirs, START);
        assert_eq!(link.closed(), [Some(true); 2]);
        assert_eq!((theirs.feeds().count(), ours.feeds().count()), (2, 2));
        assert!(theirs.find(&key(2)).is_none() && ours.find(&key(3)).is_none());
    }
    // While a session runs: what was synced is not any more, and is again later.
    let mut link = Link::between(&mut ours, &mut theirs, both(Replicate::live()));
    link.run_between(&mut ours, &mut theirs, START);
    ours.ban(key(1)).unwrap();
    ours.append(kept, &[Bytes::from("not for them")]).unwrap();
    ours.commit(START);
    link.run_between(&mut ours, &mut theirs, START);
    let there = theirs.find(&key(1)).unwrap();
    assert_eq!(
        (theirs.info(there).unwrap().len, ours.get(kept, 2).unwrap().unwrap()),
        (2, Bytes::from("not for them"))
    );
    ours.unban(key(1)).unwrap();
    ours.unban(key(2)).unwrap();
    ours.commit(START);
    link.run_between(&mut ours, &mut theirs, START);
    let secret = theirs.find(&key(2)).map(|id| theirs.info(id).unwrap().len);
    assert_eq!((theirs.info(there).unwrap().len, secret, link.closed()), (3, Some(2), [None; 2]));
}
