//! One corestore folder with three multifeeds, one of them in a namespace, in turns of a seed: appends, syncs, removals, bans, kills, cores that are lost,
//! put back, or without their `name`; and in a part of the seeds turns of JS between them. What is here is compared with what was acknowledged.
//!
//! `MULTIFEED_TURNS=1000` plays so many seeds, `MULTIFEED_TURNS_FIRST` says from which on, and `MULTIFEED_TURNS_JS` how many with JS.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use multifeed_core::{
    CoreFiles, Corestore, CorestoreOptions, FeedId, FileCoreStorage, KeyPair, MasterKey, MemoryStorage, Multifeed,
    Namespace, Options, Replicate, SetId, Storage, StoreError,
};
use multifeed_proto::FeedKey;
use multifeed_testkit::blocks::block;
use multifeed_testkit::js::JsCorestore;
use multifeed_testkit::random::Random;
use serde_json::json;

use crate::link::Link;

const SIZE: usize = 40;
/// Of these JS opens the first two.
const PLACES: [(&str, [u8; 32]); 3] = [("", [0x11; 32]), ("", [0x22; 32]), ("x", [0x11; 32])];
const NAMES: [&str; 3] = ["a", "b", "c"];

type Store = Multifeed<CoreFiles<FileCoreStorage>>;

/// A writer of the folder, by its multifeed and its name.
#[derive(Debug, Default)]
struct Writer {
    key: Option<FeedKey>,
    /// What was acknowledged.
    signed: Vec<Bytes>,
    banned: bool,
    /// It was removed or taken out, and nothing brought it back.
    out: bool,
    /// Less may be here than was signed.
    older: bool,
    /// Ours wrote it: of what JS alone wrote the journal does not know how much there was.
    by_us: bool,
}

struct Play {
    random: Random,
    folder: tempfile::TempDir,
    writers: BTreeMap<(usize, usize), Writer>,
    remotes: Vec<Multifeed<MemoryStorage>>,
    /// What remotes appended, and whether it is banned here.
    theirs: [(Vec<Bytes>, bool); 3],
    /// Copies of the folders of cores.
    kept: Vec<(FeedKey, tempfile::TempDir)>,
    seconds: u64,
    blocks: u32,
    /// What was done, for a seed that fails.
    log: Vec<String>,
}

impl Drop for Play {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log.join("\n"));
        }
    }
}

fn their_pair(place: usize) -> KeyPair {
    KeyPair::from_seed(&[place as u8 + 1; 32])
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn held<S: Storage>(store: &mut Multifeed<S>, id: FeedId, signed: &[Bytes]) -> u64 {
    let info = store.info(id).unwrap();
    assert!(info.len <= signed.len() as u64, "longer than what was signed: {} of {}", info.len, signed.len());
    for (index, expected) in (0..info.len).zip(signed) {
        let block = store.get(id, index).unwrap();
        assert!(block.is_none_or(|block| block == *expected), "block {index} is another one");
    }
    info.downloaded
}

impl Play {
    fn new(seed: u64) -> Self {
        let remote = |place| {
            let mut remote = Multifeed::open(MemoryStorage::default(), Options::default()).unwrap();
            remote.writer(Some("theirs"), || their_pair(place)).unwrap();
            remote
        };
        Self {
            random: Random::new(seed),
            folder: tempfile::tempdir().unwrap(),
            writers: (0..3).flat_map(|place| (0..3).map(move |name| ((place, name), Writer::default()))).collect(),
            remotes: (0..3).map(remote).collect(),
            theirs: Default::default(),
            kept: Vec::new(),
            seconds: 0,
            blocks: 0,
            log: Vec::new(),
        }
    }

    fn below(&mut self, end: usize) -> usize {
        self.random.between(0, end as u64 - 1) as usize
    }

    fn some_blocks(&mut self) -> (u32, u32) {
        self.blocks += 100;
        (self.blocks, self.random.between(1, 4) as u32)
    }

    fn folder_of(&self, key: &FeedKey) -> PathBuf {
        let core = key.discovery_key().to_string();
        self.folder.path().join(&core[..2]).join(&core[2..4]).join(core)
    }

    /// Opens the folder and holds it against what was acknowledged.
    fn open(&mut self) -> (Store, [SetId; 3]) {
        let storage = FileCoreStorage::open(self.folder.path()).unwrap();
        let store = Corestore::open(storage, CorestoreOptions::default(), || MasterKey::new([7; 32])).unwrap();
        let mut store = store.into_multifeeds(Options::default()).unwrap();
        let sets = PLACES.map(|(namespace, root)| {
            let base = if namespace.is_empty() { Namespace::root() } else { Namespace::root().namespace(namespace) };
            store.open_root(&base, &FeedKey::new(root)).unwrap()
        });
        self.look(&mut store, sets);
        for problem in store.problems() {
            let key = match problem {
                StoreError::OlderWriter { key, .. } | StoreError::CoreMissing { key, .. } => key,
                // JS made it anew, or it was put back.
                StoreError::OlderCopy { key, .. } if self.writers.values().all(|writer| writer.key != Some(*key)) => {
                    continue;
                }
                problem => panic!("{problem}"),
            };
            let writer = self.writers.values().find(|writer| writer.key == Some(*key));
            assert!(writer.is_some_and(|writer| writer.older), "nothing is wrong with it: {problem}");
        }
        (store, sets)
    }

    fn look(&mut self, store: &mut Store, sets: [SetId; 3]) {
        for ((place, name), writer) in &self.writers {
            let Some(key) = writer.key else { continue };
            let id = store.find(&key).filter(|id| store.is_in(sets[*place], *id));
            if let Some(id) = id {
                let held = held(store, id, &writer.signed);
                assert!(writer.older || held == writer.signed.len() as u64, "{held} of {writer:?}");
                assert_eq!(store.name_in(sets[*place], id), Some(NAMES[*name]));
            }
            assert!(id.is_some() || writer.out || writer.older, "{place} {name}: it is not listed: {writer:?}");
            let others = (0..3).filter(|other| other != place);
            for other in others {
                assert!(!id.is_some_and(|id| store.is_in(sets[other], id)), "it is in another multifeed");
            }
        }
        for (place, (theirs, _)) in self.theirs.iter().enumerate() {
            if let Some(id) = store.find(&their_pair(place).public_key()) {
                held(store, id, theirs);
            }
        }
    }

    fn append(&mut self, store: &mut Store, sets: [SetId; 3]) {
        let (place, name) = (self.below(3), self.below(3));
        let (seed, count) = self.some_blocks();
        let writer = self.writers.get_mut(&(place, name)).unwrap();
        let blocks: Vec<Bytes> = (0..count).map(|index| block(seed, index, SIZE).into()).collect();
        let made = store.writer_in(sets[place], Some(NAMES[name]));
        let done = made.and_then(|id| {
            let before = store.info(id).unwrap().len;
            match store.append(id, &blocks) {
                Ok(_) => Ok((id, before)),
                Err(multifeed_core::AppendError::Store(error)) => Err(error),
                Err(error) => panic!("{error}"),
            }
        });
        self.log.push(format!("append {place} {name}: {:?}", done.as_ref().map(|(_, before)| before)));
        match done {
            Ok((id, before)) => {
                assert_eq!(before, writer.signed.len() as u64, "a second history: {writer:?}");
                writer.key = Some(store.info(id).unwrap().key);
                writer.signed.extend(blocks);
                (writer.out, writer.older, writer.by_us) = (false, false, true);
            }
            Err(StoreError::Banned { .. }) => assert!(writer.banned, "{writer:?}"),
            Err(StoreError::OlderWriter { .. } | StoreError::CoreMissing { .. }) => assert!(writer.older, "{writer:?}"),
            Err(error) => panic!("{error}: {writer:?}"),
        }
    }

    fn sync(&mut self, store: &mut Store, sets: [SetId; 3], place: usize) {
        if self.random.one_in(2) {
            let (seed, count) = self.some_blocks();
            let blocks: Vec<Bytes> = (0..count).map(|index| block(seed, index, SIZE).into()).collect();
            let id = self.remotes[place].find(&their_pair(place).public_key()).unwrap();
            self.remotes[place].append(id, &blocks).unwrap();
            self.theirs[place].0.extend(blocks);
        }
        let remote = &mut self.remotes[place];
        let ours = Replicate { set: sets[place], ..Replicate::default() };
        let options = [ours, Replicate::default()];
        let begins = self.random.one_in(2);
        let mut link = if begins {
            Link::between(store, remote, options)
        } else {
            let [ours, theirs] = options;
            Link::between(remote, store, [theirs, ours])
        };
        for _ in 0..4 {
            self.seconds += 1;
            let now = Duration::from_secs(self.seconds);
            store.handle_timeout(now);
            remote.handle_timeout(now);
            store.commit(now);
            remote.commit(now);
            if begins { link.run_between(store, remote, now) } else { link.run_between(remote, store, now) }
        }
        let side = usize::from(!begins);
        self.log.push(format!("sync {place}, begins: {begins}"));
        assert_eq!(link.closed(), [Some(true); 2], "{:?}", link.events);
        let in_sync = store.in_sync(link.ends[side].1.peer());
        let mut alike = !self.theirs[place].1;
        let ids: Vec<_> = remote.feeds().collect();
        for id in ids {
            let there = remote.info(id).unwrap();
            let here = store.find(&there.key).filter(|id| store.is_in(sets[place], *id));
            let here = here.map_or(0, |id| store.info(id).unwrap().downloaded);
            let writer = self.writers.values_mut().find(|writer| writer.key == Some(there.key));
            if writer.as_ref().map_or(self.theirs[place].1, |writer| writer.banned) {
                continue;
            }
            assert_eq!(here, there.downloaded, "{place}: {writer:?} is not as it is there: {there:?}");
            if let Some(writer) = writer.filter(|writer| here == writer.signed.len() as u64) {
                (writer.older, writer.out) = (false, false);
            }
        }
        let mut ours = self.writers.iter().filter(|((at, _), _)| *at == place);
        alike &= ours.all(|(_, writer)| !writer.banned && !writer.older);
        assert!(in_sync || !alike, "{place}: it is all the same, and not in sync: {:?}", link.events);
        assert_eq!((store.conflicts_kept(), remote.conflicts_kept()), (0, 0));
    }

    /// Something of a multifeed's members.
    fn change(&mut self, store: &mut Store, sets: [SetId; 3]) {
        let (place, name) = (self.below(3), self.below(4));
        let theirs = their_pair(place).public_key();
        let Some(key) = (if name == 3 { Some(theirs) } else { self.writers[&(place, name)].key }) else { return };
        let here = store.find(&key).filter(|id| store.is_in(sets[place], *id));
        let what = self.below(6);
        self.log.push(format!("change {place} {name}: {what}, is in it: {}", here.is_some()));
        let (writer, banned) = match self.writers.get_mut(&(place, name)) {
            Some(writer) => (Some(writer), None),
            None => (None, Some(&mut self.theirs[place].1)),
        };
        match (what, here) {
            (0, Some(id)) if name == 3 => store.remove(id).unwrap(),
            (0, Some(id)) => {
                store.remove_writer(id).unwrap();
                let writer = writer.unwrap();
                (writer.banned, writer.out) = (true, true);
                writer.older |= !writer.signed.is_empty();
            }
            (1, Some(id)) => {
                assert!(store.take_out_of(sets[place], id).unwrap());
                writer.into_iter().for_each(|writer| writer.out = true);
            }
            (2, _) => {
                store.ban(key).unwrap();
                writer.map(|writer| &mut writer.banned).or(banned).into_iter().for_each(|banned| *banned = true);
            }
            _ => {
                store.unban(key).unwrap();
                writer.map(|writer| &mut writer.banned).or(banned).into_iter().for_each(|banned| *banned = false);
            }
        }
    }

    /// Somebody copies, deletes or puts back the folder of a core, or its `name`.
    fn tamper(&mut self) {
        let (place, name) = (self.below(3), self.below(4));
        let theirs = their_pair(place).public_key();
        let Some(key) = (if name == 3 { Some(theirs) } else { self.writers[&(place, name)].key }) else { return };
        if self.writers.get(&(place, name)).is_some_and(|writer| !writer.by_us) {
            return;
        }
        let folder = self.folder_of(&key);
        let what = self.below(5);
        self.log.push(format!("tamper {place} {name}: {what}"));
        let kept = self.kept.iter().filter(|(of, _)| *of == key).count();
        match what {
            0 | 1 if folder.join("key").exists() => {
                let aside = tempfile::tempdir().unwrap();
                copy(&folder, aside.path());
                self.kept.push((key, aside));
                return;
            }
            2 if folder.join("key").exists() => std::fs::remove_dir_all(&folder).unwrap(),
            3 if kept > 0 => {
                let chosen = self.below(kept);
                let (_, aside) = self.kept.iter().filter(|(of, _)| *of == key).nth(chosen).unwrap();
                copy(aside.path(), &folder);
                if self.random.one_in(3) {
                    let _ = std::fs::remove_file(folder.join("name"));
                }
            }
            4 if folder.join("name").exists() => {
                std::fs::remove_file(folder.join("name")).unwrap();
                return;
            }
            _ => return,
        }
        if let Some(writer) = self.writers.get_mut(&(place, name)) {
            writer.older |= !writer.signed.is_empty();
        }
    }

    /// JS opens the folder, has all that is whole, and appends.
    fn js(&mut self) {
        let (mut steps, mut lengths, mut batches, mut multifeeds) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (place, (_, root)) in PLACES.iter().enumerate().take(2) {
            let mut writers = Vec::new();
            for (name, text) in NAMES.iter().enumerate() {
                let (seed, count) = self.some_blocks();
                let writer = &self.writers[&(place, name)];
                if let Some(key) = writer.key {
                    steps.push(json!({"key": key.to_string()}));
                    lengths.push((!writer.older).then_some(writer.signed.len() as u64));
                }
                let may = writer.key.is_none_or(|key| self.folder_of(&key).join("name").exists());
                if may && !(writer.older || writer.banned || writer.out) && count <= 2 {
                    let append = json!([{"seed": seed, "from": 0, "count": count, "size": SIZE}]);
                    writers.push(json!({"name": text, "append": append}));
                    batches.push((place, name, seed, count));
                }
            }
            multifeeds.push(json!({"key": FeedKey::new(*root).to_string(), "writers": writers}));
        }
        let js = JsCorestore::open(self.folder.path(), &json!({"steps": steps, "multifeeds": multifeeds})).unwrap();
        for (core, length) in js.cores.iter().zip(lengths) {
            let core = core.as_ref().unwrap();
            assert!(length.is_none_or(|length| length == core.downloaded), "{core:?}, and {length:?} were signed");
        }
        self.log.push(format!("JS: {batches:?}"));
        for (place, name, seed, count) in batches {
            let named = js.multifeeds[place].iter().find(|(text, _)| text.as_deref() == Some(NAMES[name])).unwrap();
            let writer = self.writers.get_mut(&(place, name)).unwrap();
            writer.key = Some(named.1.parse().unwrap());
            writer.signed.extend((0..count).map(|index| Bytes::from(block(seed, index, SIZE))));
        }
        js.close().unwrap();
    }

    fn play(&mut self, with_js: bool) {
        for _ in 0..self.random.between(3, 10) {
            let (mut store, sets) = self.open();
            for _ in 0..self.random.between(1, 5) {
                match self.below(8) {
                    0..3 => self.append(&mut store, sets),
                    3..6 => {
                        let place = self.below(3);
                        self.sync(&mut store, sets, place);
                    }
                    _ => self.change(&mut store, sets),
                }
            }
            self.look(&mut store, sets);
            let how = self.below(4);
            self.log.push(["killed", "synced and killed", "closed", "closed"][how].to_owned());
            self.seconds += 100;
            store.commit(Duration::from_secs(self.seconds));
            if how == 1 {
                store.sync().unwrap();
            }
            if how > 1 {
                store.close().unwrap()
            } else {
                drop(store)
            }
            // What was never synced the journal cannot miss.
            for _ in 0..if how > 1 || (how == 1 && !with_js) { self.random.between(0, 2) } else { 0 } {
                self.tamper();
            }
            if with_js && self.random.one_in(2) {
                self.js();
            }
        }
        self.end(with_js);
    }

    /// Whatever happened: with all bans lifted, and a sync of each, all goes on that a remote has or that was not lost.
    fn end(&mut self, with_js: bool) {
        let (mut store, sets) = self.open();
        let keys = self.writers.values_mut().filter_map(|writer| {
            writer.banned = false;
            writer.key
        });
        for key in keys.chain((0..3).map(|place| their_pair(place).public_key())) {
            store.unban(key).unwrap();
        }
        self.theirs.iter_mut().for_each(|theirs| theirs.1 = false);
        for place in 0..3 {
            self.sync(&mut store, sets, place);
        }
        for _ in 0..20 {
            self.append(&mut store, sets);
        }
        for place in 0..3 {
            self.sync(&mut store, sets, place);
        }
        store.close().unwrap();
        if with_js {
            self.js();
        }
        let (store, _) = self.open();
        store.close().unwrap();
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn play(seeds: std::ops::Range<u64>, with_js: bool) {
    for seed in seeds {
        let played = std::panic::catch_unwind(|| Play::new(seed).play(with_js));
        assert!(played.is_ok(), "seed {seed}, with JS: {with_js}");
    }
}

#[test]
fn whatever_happens_to_a_corestore_no_second_history_is_signed_and_nothing_is_lost() {
    let first = number("MULTIFEED_TURNS_FIRST").unwrap_or(0);
    play(first..first + number("MULTIFEED_TURNS").unwrap_or(40), false);
}

#[test]
fn js_has_its_turns_at_a_corestore_between_ours() {
    let first = number("MULTIFEED_TURNS_FIRST").unwrap_or(0);
    play(first..first + number("MULTIFEED_TURNS_JS").unwrap_or(3), true);
}
