//! A journal that is damaged, or on a bad sector: that is reported, feeds are none the worse, and no lost writer becomes another author unasked.
#![cfg(unix)]

use std::sync::Arc;

use bytes::Bytes;
use multifeed_core::storage::faults::{DiskCall, DiskOp, Fault, Faults, FaultyDisk};
use multifeed_core::{FileStorage, FileStorageOptions, KeyPair, Multifeed, Options, RepairedInMemory, StoreError};
use rustix::io::Errno;

/// EIO from this byte of the journal on.
#[derive(Debug)]
struct BadSector(u64);

impl FaultyDisk for BadSector {
    fn fault(&self, call: &DiskCall<'_>) -> Option<Fault> {
        let hit = call.op == DiskOp::Read && call.name == "multifeed.journal" && call.range.end > self.0;
        hit.then(|| Fault::Errno(Errno::IO.raw_os_error()))
    }
}

fn pair(seed: u8) -> KeyPair {
    KeyPair::from_seed(&[seed; 32])
}

/// Whether this is what is said of the journal.
fn is_of_journal(error: &StoreError) -> bool {
    error.code() == "ERR_STORE_DAMAGED" && error.to_string().contains("multifeed.journal")
}

#[test]
fn a_bad_sector_under_it_leaves_all_readable_and_the_file_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Multifeed::open(FileStorage::open(folder.path()).unwrap(), Options::default()).unwrap();
    for seed in 1..=3 {
        let id = store.writer(Some(&format!("w{seed}")), || pair(seed)).unwrap();
        store.append(id, &[Bytes::from("a")]).unwrap();
        store.sync().unwrap();
    }
    store.close().unwrap();
    let journal = folder.path().join("multifeed.journal");
    let before = std::fs::read(&journal).unwrap();
    for at in [0, 40, before.len() as u64 - 1] {
        let mut faulty = FileStorageOptions::default();
        faulty.faults = Faults::new(Arc::new(BadSector(at)));
        let storage = FileStorage::open_with(folder.path(), faulty.clone()).unwrap();
        let mut store = Multifeed::open(storage, Options::default()).unwrap();
        assert!(store.problems().iter().all(is_of_journal) && store.problems().len() == 1, "{:?}", store.problems());
        let id = store.find_name("w2").unwrap();
        assert_eq!(store.get(id, 0).unwrap().unwrap()[..], b"a"[..]);
        let refused = store.append(id, &[Bytes::from("b")]).unwrap_err();
        assert!(is_of_journal(&StoreError::clone(match &refused {
            multifeed_core::AppendError::Store(error) => error,
            other => panic!("{other}"),
        })));
        assert!(is_of_journal(&store.writer(Some("new"), || pair(9)).unwrap_err()));
        store.close().unwrap();
        assert_eq!(std::fs::read(&journal).unwrap(), before);
        let storage = FileStorage::open_read_only_with(folder.path(), faulty).unwrap();
        let store = Multifeed::open(RepairedInMemory::new(storage), Options::default()).unwrap();
        assert!(store.problems().iter().all(is_of_journal) && store.feeds().count() == 3, "{:?}", store.problems());
        let _ = store.close();
    }
    // The disk gives it again: nothing was lost.
    let mut store = Multifeed::open(FileStorage::open(folder.path()).unwrap(), Options::default()).unwrap();
    assert!(store.problems().is_empty(), "{:?}", store.problems());
    let id = store.find_name("w2").unwrap();
    store.append(id, &[Bytes::from("b")]).unwrap();
    store.close().unwrap();
}
