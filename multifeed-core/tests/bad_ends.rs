//! A writer's feed whose end is bad: a bad sector or a changed byte in its last block, leaf or signature. It is the writer's as before, with all that
//! is good; what is proven is made again, and a block that is gone comes back from a remote. Nothing that was signed is signed otherwise.
#![cfg(unix)]

use crate::common;
use crate::link;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use common::{blocks, key_pair};
use link::{Link, run};
use multifeed_core::feed::{Finding, Problem};
use multifeed_core::storage::faults::{DiskCall, DiskOp, Fault, Faults, FaultyDisk};
use multifeed_core::{
    Durability, FeedId, FileStorage, FileStorageOptions, MemoryStorage, Multifeed, Options, PeerEvent, Replicate,
    Storage, VerifyCursor,
};
use rustix::io::Errno;

const N: u8 = 61;
const START: Duration = Duration::ZERO;

type Store = Multifeed<Box<dyn Storage>>;

/// EIO at one byte of a file, until that is written to.
#[derive(Debug)]
struct BadSector {
    name: &'static str,
    at: u64,
    healed: AtomicBool,
}

impl FaultyDisk for BadSector {
    fn fault(&self, call: &DiskCall<'_>) -> Option<Fault> {
        if call.name != self.name || !call.range.contains(&self.at) || self.healed.load(Relaxed) {
            return None;
        }
        match call.op {
            DiskOp::Read => Some(Fault::Errno(Errno::IO.raw_os_error())),
            DiskOp::Write => {
                self.healed.store(true, Relaxed);
                None
            }
            _ => None,
        }
    }
}

fn open(path: &Path, durability: Durability, bad: Option<&Arc<BadSector>>) -> Store {
    let mut files = FileStorageOptions::default();
    if let Some(bad) = bad {
        files.faults = Faults::new(bad.clone());
    }
    let options = Options { durability, ..Options::default() };
    let storage: Box<dyn Storage> = Box::new(FileStorage::open_with(path, files).unwrap());
    Multifeed::open(storage, options).unwrap()
}

fn remote() -> Store {
    Multifeed::open(Box::new(MemoryStorage::default()) as Box<dyn Storage>, Options::default()).unwrap()
}

fn sync(stores: &mut Vec<Store>) -> Link {
    let mut links = [Link::plain(stores, [0, 1], Replicate::default())];
    run(stores, &mut links, START);
    let [link] = links;
    link.totals(0);
    link.totals(1);
    assert!(
        !link.events.iter().flatten().any(|event| matches!(event, PeerEvent::Conflict { .. })),
        "{:?}",
        link.events
    );
    link
}

fn ours(store: &Store) -> FeedId {
    store.find(&key_pair(N).public_key()).expect("the writer's feed")
}

/// All that is held is right, and verifies.
fn check(store: &mut Store, len: u64, missing: &[u64], case: &str) {
    let id = ours(store);
    assert_eq!(store.info(id).unwrap().len, len, "{case}");
    let expected = blocks(N, 0..len);
    for index in 0..len {
        let held = store.get(id, index).unwrap_or_else(|error| panic!("{case}: block {index}: {error}"));
        assert_eq!(
            held.as_ref(),
            Some(&expected[index as usize]).filter(|_| !missing.contains(&index)),
            "{case}: {index}"
        );
    }
    let found = verify(store);
    let lost: Vec<_> = found.iter().map(Finding::block).collect();
    assert!(found.iter().all(|found| matches!(found.problem, Problem::BlockLost { .. })), "{case}: {found:?}");
    let expected = missing.to_vec();
    // Who only receives has no block that is lost.
    let expected = if store.info(id).unwrap().writable { expected } else { Vec::new() };
    assert_eq!(lost, expected, "{case}");
}

fn verify(store: &mut Store) -> Vec<Finding> {
    let (id, mut cursor, mut findings) = (ours(store), VerifyCursor::default(), Vec::new());
    loop {
        let step = store.verify_step(id, &mut cursor, 1 << 20).unwrap();
        findings.extend(step.findings);
        if step.done {
            return findings;
        }
    }
}

/// How the store is found: closed, as JS leaves it, or as a crash does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Left {
    Closed,
    Unknown,
    Crashed,
}

/// The places of the bad byte, and whether the block is gone with it.
fn places(len: u64) -> [(&'static str, u64, bool); 3] {
    let data: u64 = blocks(N, 0..len - 1).iter().map(|block| block.len() as u64).sum();
    [("data", data, true), ("tree", 32 + 2 * (len - 1) * 40 + 7, false), ("signatures", 32 + (len - 1) * 64 + 9, false)]
}

#[test]
fn of_a_writer_a_bad_end_costs_no_more_than_its_block() {
    // A last leaf that is a root, and some that are not.
    for len in [1, 2, 5, 12, 41] {
        for (name, at, lost) in places(len) {
            for left in [Left::Closed, Left::Unknown, Left::Crashed] {
                for (is_sector, durability) in
                    [(false, Durability::None), (true, Durability::None), (true, Durability::Always)]
                {
                    let case = format!("{len} blocks, {name}, {left:?}, bad sector {is_sector}, {durability:?}");
                    one_bad_end(len, (name, at, lost), left, is_sector, durability, &case);
                }
            }
        }
    }
}

fn one_bad_end(
    len: u64,
    (name, at, lost): (&'static str, u64, bool),
    left: Left,
    is_sector: bool,
    durability: Durability,
    case: &str,
) {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path(), durability, None);
    let id = store.writer(Some("w"), || key_pair(N)).unwrap();
    for start in (0..len).step_by(3) {
        store.append(id, &blocks(N, start..len.min(start + 3))).unwrap();
    }
    store.sync().unwrap();
    // Somebody has all of it.
    let mut stores = vec![store, remote()];
    sync(&mut stores);
    let whole = stores.pop().unwrap();
    let store = stores.pop().unwrap();
    match left {
        Left::Crashed => drop(store),
        _ => store.close().unwrap(),
    }
    if left == Left::Unknown {
        fs::remove_file(folder.path().join("multifeed.journal")).unwrap();
    }
    let path = folder.path().join("0").join(name);
    let signatures = fs::read(folder.path().join("0/signatures")).unwrap();
    let bad = Arc::new(BadSector { name, at, healed: AtomicBool::new(false) });
    let bad = is_sector.then_some(&bad);
    if !is_sector {
        let file = fs::File::options().read(true).write(true).open(&path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 4], at).unwrap();
    }

    // A crash proves nothing of a block that a byte was changed in: it is cut, if nobody can have seen it. This one was synced.
    let mut store = open(folder.path(), durability, bad);
    assert!(store.problems().is_empty(), "{case}: {:?}", store.problems());
    let missing: Vec<u64> = lost.then_some(len - 1).into_iter().collect();
    let told: Vec<_> = store.recovered().iter().map(|told| (told.lost.clone(), told.is_loss())).collect();
    match lost && !is_sector {
        true => {
            assert_eq!(told, [(missing.clone(), true)], "{case}");
            let text = store.recovered()[0].to_string();
            assert!(text.contains(&format!("of this writer ({})", len - 1)), "{case}: {text}");
        }
        false => assert!(told.iter().all(|(lost, is_loss)| lost.is_empty() && !is_loss), "{case}: {told:?}"),
    }
    if lost && is_sector {
        // The disk may give it again, as any other block: it is given up when that is asked for.
        let id = ours(&store);
        assert!(store.get(id, len - 1).is_err(), "{case}");
        let findings = verify(&mut store);
        assert!(matches!(&findings[..], [found] if found.block() == len - 1), "{case}: {findings:?}");
    } else {
        check(&mut store, len, &missing, case);
    }
    // Who comes gets the good ones.
    let mut stores = vec![store, remote()];
    sync(&mut stores);
    if len > 1 || !lost {
        check(&mut stores[1], len, &missing, case);
    }
    // The writer goes on after it, also if it is opened anew before it is fetched.
    let mut store = stores.swap_remove(0);
    if lost && is_sector {
        let audit = store.audit_step(ours(&store), 0, usize::MAX).unwrap();
        assert_eq!(audit.dropped.into_iter().flatten().collect::<Vec<_>>(), missing, "{case}");
    }
    let id = store.writer(Some("w"), || key_pair(99)).unwrap();
    assert_eq!(store.append(id, &blocks(N, len..len + 1)).unwrap(), len..len + 1, "{case}");
    store.close().unwrap();
    let mut store = open(folder.path(), durability, bad);
    assert!(store.problems().is_empty() && store.recovered().is_empty(), "{case}: {:?}", store.recovered());
    check(&mut store, len + 1, &missing, case);
    // It comes back from the one who has it, who gets what is new: one history.
    let mut stores = vec![store, whole];
    sync(&mut stores);
    check(&mut stores[0], len + 1, &[], case);
    check(&mut stores[1], len + 1, &[], case);
    stores.swap_remove(0).close().unwrap();
    let now = fs::read(folder.path().join("0/signatures")).unwrap();
    assert!(now.starts_with(&signatures), "{case}");
    let mut store = open(folder.path(), durability, None);
    assert!(store.problems().is_empty() && store.recovered().is_empty(), "{case}: {:?}", store.recovered());
    check(&mut store, len + 1, &[], case);
}

/// A block that was damaged, and is as it was again: it is the writer's, without a remote.
#[test]
fn a_last_block_that_is_there_again_is_held_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path(), Durability::Always, None);
    let id = store.writer(Some("w"), || key_pair(N)).unwrap();
    store.append(id, &blocks(N, 0..9)).unwrap();
    store.close().unwrap();
    let (name, at, _) = places(9)[0];
    let path = folder.path().join("0").join(name);
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[at as usize] ^= 1;
    fs::write(&path, &bad).unwrap();
    for _ in 0..2 {
        let mut store = open(folder.path(), Durability::Always, None);
        check(&mut store, 9, &[8], "bad");
        store.close().unwrap();
    }
    fs::write(&path, &good).unwrap();
    let mut store = open(folder.path(), Durability::Always, None);
    assert_eq!(store.recovered().iter().map(|told| told.blocks_regained).collect::<Vec<_>>(), [1]);
    check(&mut store, 9, &[], "good again");
    // What was cleared stays cleared.
    store.clear(ours(&store), 8..9).unwrap();
    store.close().unwrap();
    let mut store = open(folder.path(), Durability::Always, None);
    assert!(store.recovered().is_empty());
    assert!(store.get(ours(&store), 8).unwrap().is_none() && verify(&mut store).is_empty());
}
