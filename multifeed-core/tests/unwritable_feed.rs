//! One feed's files take no more: the disk fails there, or a file is as long as it can be. The feed leaves its sessions, and the others go on.
#![cfg(unix)]

use crate::common;
use crate::link;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use common::{block, blocks, key_pair};
use link::{Link, run};
use multifeed_core::storage::faults::{DiskCall, DiskOp, Fault, Faults, FaultyDisk};
use multifeed_core::{
    Durability, FileStorage, FileStorageOptions, MemoryStorage, Multifeed, Options, PeerEvent, Replicate, Slot,
    Storage, VerifyCursor,
};
use rustix::io::Errno;

const START: Duration = Duration::ZERO;
const FEEDS: u8 = 3;

/// A file of the second folder that cannot be written from some place on, while it is so.
#[derive(Debug)]
struct Unwritable {
    name: &'static str,
    from: u64,
    errno: Errno,
    fails: AtomicBool,
}

impl FaultyDisk for Unwritable {
    fn fault(&self, call: &DiskCall<'_>) -> Option<Fault> {
        let here = call.op == DiskOp::Write && call.slot == Some(Slot(1)) && call.name == self.name;
        let hit = here && call.range.end > self.from && self.fails.load(Relaxed);
        hit.then(|| Fault::Errno(self.errno.raw_os_error()))
    }
}

type Store = Multifeed<Box<dyn Storage>>;

fn open(path: &Path, disk: Arc<Unwritable>, durability: Durability) -> Store {
    let mut files = FileStorageOptions::default();
    files.faults = Faults::new(disk);
    let options = Options { durability, ..Options::default() };
    let storage: Box<dyn Storage> = Box::new(FileStorage::open_with(path, files).unwrap());
    Multifeed::open(storage, options).unwrap()
}

/// Somebody who writes three feeds.
fn source() -> Store {
    let mut store =
        Multifeed::open(Box::new(MemoryStorage::default()) as Box<dyn Storage>, Options::default()).unwrap();
    for n in 0..FEEDS {
        store.writer(Some(&format!("writer {n}")), || key_pair(n)).unwrap();
    }
    append(&mut store, 0..20);
    store
}

fn append(store: &mut Store, range: std::ops::Range<u64>) {
    for n in 0..FEEDS {
        let id = store.find(&key_pair(n).public_key()).unwrap();
        store.append(id, &blocks(n, range.clone())).unwrap();
    }
    store.commit(START);
}

/// How many blocks of each feed are held, each of which is right on the disk.
fn held(store: &mut Store) -> Vec<u64> {
    let mut held = Vec::new();
    for n in 0..FEEDS {
        let Some(id) = store.find(&key_pair(n).public_key()) else {
            held.push(0);
            continue;
        };
        for index in 0..store.info(id).len {
            assert!(store.get(id, index).unwrap().is_none_or(|read| read == block(n, index)));
        }
        let step = store.verify_step(id, &mut VerifyCursor::default(), usize::MAX).unwrap();
        assert!(step.done && step.findings.is_empty(), "{:?}", step.findings);
        held.push(store.info(id).downloaded);
    }
    held
}

fn damaged(link: &Link) -> usize {
    link.events[1].iter().filter(|event| matches!(event, PeerEvent::Damaged { .. })).count()
}

#[test]
fn a_feed_whose_files_cannot_be_written_leaves_the_others_alone() {
    let files = [("data", 0), ("data", 300), ("tree", 100), ("signatures", 40), ("bitfield", 0), ("bitfield", 40)];
    for (name, from) in files {
        for errno in [Errno::FBIG, Errno::IO] {
            for (live, durability) in [(false, Durability::None), (true, Durability::None), (true, Durability::Always)]
            {
                let case = format!("{name} from {from}, {errno}, live: {live}, {durability:?}");
                let folder = tempfile::tempdir().unwrap();
                let disk = Arc::new(Unwritable { name, from, errno, fails: AtomicBool::new(false) });
                let mut stores = [source(), open(folder.path(), disk.clone(), durability)];
                // All have their folders, and some blocks.
                let mut first = [Link::plain(&mut stores, [0, 1], Replicate::default())];
                run(&mut stores, &mut first, START);
                first[0].totals(1);
                append(&mut stores[0], 20..40);

                disk.fails.store(true, Relaxed);
                let options = if live { Replicate::live() } else { Replicate::default() };
                let mut links = [Link::plain(&mut stores, [0, 1], options)];
                run(&mut stores, &mut links, START);
                let failing = stores[1].feeds().find(|&id| stores[1].info(id).name == "1").unwrap();
                let failing = (0..FEEDS).find(|n| key_pair(*n).public_key() == stores[1].info(failing).key).unwrap();
                // Of that feed what was written is held, which may be found by its proof alone.
                let check = |store: &mut Store, others: u64| {
                    for (n, held) in (0..FEEDS).zip(held(store)) {
                        assert!(if n == failing { (20..40).contains(&held) } else { held == others }, "{case}: {held}");
                    }
                };
                check(&mut stores[1], 40);
                assert_eq!(damaged(&links[0]), 1, "{case}");
                assert_eq!(stores[1].uncommitted(), None, "{case}");
                if live {
                    // The others go on in the same session.
                    assert!(links[0].result(1).is_none(), "{case}");
                    append(&mut stores[0], 40..50);
                    run(&mut stores, &mut links, START);
                    check(&mut stores[1], 50);
                    stores[1].finish(links[0].ends[1].1.peer());
                    run(&mut stores, &mut links, START);
                }
                let error = links[0].error(1);
                assert_eq!(error.code(), "ERR_STORE_IO", "{case}: {error}");
                assert!(error.to_string().contains(name), "{case}: {error}");

                // The same store takes the feed up again, once its files can be written.
                disk.fails.store(false, Relaxed);
                let mut links = [Link::plain(&mut stores, [0, 1], Replicate::default())];
                run(&mut stores, &mut links, START);
                links[0].totals(1);
                let all = if live { 50 } else { 40 };
                assert_eq!(held(&mut stores[1]), [all; FEEDS as usize], "{case}");
                let [_, store] = stores;
                store.close().unwrap();
                let mut store = open(folder.path(), disk, durability);
                assert!(store.recovered().is_empty() && store.problems().is_empty(), "{case}");
                assert_eq!(held(&mut store), [all; FEEDS as usize], "{case}");
            }
        }
    }
}
