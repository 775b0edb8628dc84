//! A corestore's folder in any state, and on a disk that fails at any call.

use crate::common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use common::key_pair;
use multifeed_core::storage::faults::{DiskCall, Fault, Faults, FaultyDisk};
use multifeed_core::{
    Corestore, CorestoreError, CorestoreOptions, FileCoreStorage, FileStorageOptions, KeyPair, MasterKey,
};
use multifeed_proto::FeedKey;
use proptest::prelude::*;

/// Cores that are written: by name, and one by a key pair.
const CORES: usize = 4;
const FILES: [&str; 8] = ["master_key", "key", "name", "secret_key", "bitfield", "tree", "signatures", "data"];
/// Those of keys, which nothing ever changes.
const KEY_FILES: usize = 4;

#[derive(Debug, Clone)]
enum Op {
    /// Appends to a core this many blocks.
    Append(usize, usize),
    /// Closes, or only leaves, the corestore, and opens it again.
    Reopen { close: bool },
    /// Does something to one file of a core, looks what comes of it, and puts the folder back as it was.
    Damage { core: usize, file: usize, damage: Damage },
}

#[derive(Debug, Clone)]
enum Damage {
    Remove,
    Cut(usize),
    Flip(usize),
    Fill(Vec<u8>),
    Folder,
}

fn damages() -> impl Strategy<Value = Damage> {
    prop_oneof![
        Just(Damage::Remove),
        (0usize..200).prop_map(Damage::Cut),
        (0usize..5_000).prop_map(Damage::Flip),
        proptest::collection::vec(any::<u8>(), 0..80).prop_map(Damage::Fill),
        Just(Damage::Folder),
    ]
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..CORES, 0usize..4).prop_map(|(core, blocks)| Op::Append(core, blocks)),
        1 => any::<bool>().prop_map(|close| Op::Reopen { close }),
        3 => (0..CORES, 0..FILES.len(), damages()).prop_map(|(core, file, damage)| Op::Damage { core, file, damage }),
    ]
}

fn open(path: &Path) -> Result<Corestore<FileCoreStorage>, CorestoreError> {
    let mut options = CorestoreOptions::default();
    options.limits.cores_open = 2;
    Corestore::open(FileCoreStorage::open(path)?, options, || MasterKey::new([1; 32]))
}

fn pair(core: usize) -> KeyPair {
    if core == 0 { key_pair(7) } else { MasterKey::new([1; 32]).key_pair(&[core as u8]) }
}

fn append(
    store: &mut Corestore<FileCoreStorage>,
    core: usize,
    blocks: &[Bytes],
) -> Result<std::ops::Range<u64>, CorestoreError> {
    let mut core = if core == 0 { store.with_key_pair(&pair(0))? } else { store.named([core as u8])? };
    core.append(blocks)
}

/// Every block of a core that is given is the one that was appended; how many are held.
fn held(store: &mut Corestore<FileCoreStorage>, key: &FeedKey, model: &[Bytes]) -> Result<usize, CorestoreError> {
    let mut core = store.get(key)?;
    let mut held = 0;
    for index in 0..core.info().len {
        if let Some(block) = core.block(index)? {
            assert_eq!(Some(&block), model.get(index as usize), "block {index} is another one");
            held += 1;
        }
    }
    Ok(held)
}

fn folder_of(path: &Path, key: &FeedKey) -> PathBuf {
    let name = key.discovery_key().to_string();
    path.join(&name[..2]).join(&name[2..4]).join(name)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to)
        } else {
            _ = fs::copy(entry.path(), to).unwrap()
        }
    }
}

fn damage_file(path: &Path, damage: &Damage) {
    let old = fs::read(path).unwrap_or_default();
    let new = match damage {
        Damage::Remove | Damage::Folder => {
            let _ = fs::remove_file(path);
            if matches!(damage, Damage::Folder) {
                fs::create_dir_all(path).unwrap();
            }
            return;
        }
        Damage::Cut(len) => old[..old.len().min(*len)].to_vec(),
        Damage::Flip(bit) => {
            let mut new = old.clone();
            let len = new.len().max(1);
            if let Some(byte) = new.get_mut(bit / 8 % len) {
                *byte ^= 1 << (bit % 8);
            }
            new
        }
        Damage::Fill(bytes) => bytes.clone(),
    };
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, new).unwrap();
}

/// What is at a path, by its bytes; `None` if it is no file.
fn at(path: &Path) -> Option<Vec<u8>> {
    fs::read(path).ok()
}

fn play(ops: Vec<Op>) {
    let (folder, spare) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = folder.path();
    let mut store = open(path).unwrap();
    let mut model: BTreeMap<usize, Vec<Bytes>> = BTreeMap::new();
    for (number, op) in ops.into_iter().enumerate() {
        match op {
            Op::Append(core, count) => {
                let blocks: Vec<Bytes> = (0..count).map(|block| Bytes::from(vec![number as u8; block * 20])).collect();
                let known = model.entry(core).or_default();
                assert_eq!(append(&mut store, core, &blocks).unwrap().start, known.len() as u64);
                known.extend(blocks);
            }
            Op::Reopen { close } => {
                if close {
                    store.close().unwrap();
                } else {
                    drop(store);
                }
                store = open(path).unwrap();
                // What a killed process appended is there. A core stays open to the loss of what was not synced until it is opened again.
                for (core, blocks) in &model {
                    assert_eq!(held(&mut store, &pair(*core).public_key(), blocks).unwrap(), blocks.len());
                }
            }
            Op::Damage { core, file, damage } => {
                store.close().unwrap();
                let copied = spare.path().join(number.to_string());
                copy(path, &copied);
                let key = pair(core).public_key();
                let place = if file == 0 { path.to_path_buf() } else { folder_of(path, &key) }.join(FILES[file]);
                damage_file(&place, &damage);
                let damaged = at(&place);
                if let Ok(mut store) = open(path) {
                    for (other, blocks) in &model {
                        let found = held(&mut store, &pair(*other).public_key(), blocks);
                        let harmed = file == 0 || *other == core;
                        assert!(harmed || found.is_ok_and(|held| held == blocks.len()), "core {other} is harmed");
                    }
                    let listed = store.list().unwrap();
                    assert!(listed.cores.len() + listed.problems.len() >= model.len().saturating_sub(1));
                    // An append comes after what is there, or not at all.
                    let known = model.get(&core).cloned().unwrap_or_default();
                    if let Ok(range) = append(&mut store, core, &[Bytes::from_static(b"on")])
                        && file >= KEY_FILES
                    {
                        assert!(range.start >= known.len().saturating_sub(3) as u64, "{range:?} of {}", known.len());
                    }
                    let _ = store.close();
                } else {
                    assert_eq!(file, 0, "the whole corestore is harmed");
                }
                // A key that is missing or empty may be restored; what is there stays.
                if file < KEY_FILES && damaged.as_ref().is_some_and(|bytes| !bytes.is_empty()) {
                    assert_eq!(at(&place), damaged, "{} was changed", FILES[file]);
                }
                fs::remove_dir_all(path).unwrap();
                copy(&copied, path);
                store = open(path).unwrap();
            }
        }
    }
    for (core, blocks) in &model {
        assert_eq!(held(&mut store, &pair(*core).public_key(), blocks).unwrap(), blocks.len());
    }
    store.close().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_folder_holds_no_other_block_is_given_and_no_key_is_overwritten(ops in proptest::collection::vec(ops(), 1..14)) {
        play(ops);
    }
}

/// Fails one call.
#[derive(Debug, Default)]
struct Nth {
    calls: AtomicUsize,
    fails: usize,
    errno: i32,
}

impl FaultyDisk for Nth {
    fn fault(&self, _call: &DiskCall<'_>) -> Option<Fault> {
        (self.calls.fetch_add(1, Relaxed) == self.fails).then_some(Fault::Errno(self.errno))
    }
}

/// Appends to two cores and closes; how many blocks of each were acknowledged, and whether it was closed.
fn write(path: &Path, faults: Faults) -> ([u64; 2], Result<(), CorestoreError>) {
    let mut acknowledged = [0; 2];
    let mut options = FileStorageOptions::default();
    options.faults = faults;
    let mut write = || {
        let storage = FileCoreStorage::open_with(path, options.clone())?;
        let mut limits = CorestoreOptions::default();
        limits.limits.cores_open = 1;
        let mut store = Corestore::open(storage, limits, || MasterKey::new([1; 32]))?;
        for round in 0..2u8 {
            for (core, acknowledged) in acknowledged.iter_mut().enumerate() {
                *acknowledged = append(&mut store, core, &[Bytes::from(vec![round; 50])])?.end;
            }
        }
        store.close()
    };
    let result = write();
    (acknowledged, result)
}

#[test]
fn a_call_that_fails_is_an_error_and_loses_nothing_that_was_acknowledged() {
    let counting = Arc::new(Nth { fails: usize::MAX, ..Nth::default() });
    let folder = tempfile::tempdir().unwrap();
    let (whole, result) = write(folder.path(), Faults::new(counting.clone()));
    result.unwrap();
    assert_eq!(whole, [2, 2]);
    let calls = counting.calls.load(Relaxed);
    assert!(calls > 100, "{calls}");
    let mut failed = 0;
    // EIO and ENOSPC, each at some of the calls; all together have all kinds of them.
    for (first, errno) in [(0, 5), (3, 28)] {
        for fails in (first..calls).step_by(7) {
            let folder = tempfile::tempdir().unwrap();
            let faults = Faults::new(Arc::new(Nth { fails, errno, ..Nth::default() }));
            let (acknowledged, result) = write(folder.path(), faults);
            if let Err(error) = &result {
                failed += 1;
                assert!(matches!(error.code(), "ERR_STORE_IO" | "ERR_STORE_FULL"), "{fails}: {error}");
            }
            // Then the disk works again.
            let mut store = open(folder.path()).unwrap();
            for (core, acknowledged) in acknowledged.into_iter().enumerate() {
                let blocks: Vec<Bytes> = (0..2).map(|round| Bytes::from(vec![round; 50])).collect();
                let key = pair(core).public_key();
                let held = held(&mut store, &key, &blocks).unwrap();
                assert!(held as u64 >= acknowledged, "call {fails}: {held} of {acknowledged}");
                assert_eq!(append(&mut store, core, &[Bytes::from_static(b"on")]).unwrap().start, held as u64);
            }
            assert!(store.list().unwrap().problems.is_empty());
            store.close().unwrap();
        }
    }
    assert!(failed > calls / 6, "{failed} of {calls} failed");
}
