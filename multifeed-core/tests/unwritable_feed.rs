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
        for index in 0..store.info(id).unwrap().len {
            assert!(store.get(id, index).unwrap().is_none_or(|read| read == block(n, index)));
        }
        let step = store.verify_step(id, &mut VerifyCursor::default(), usize::MAX).unwrap();
        assert!(step.done && step.findings.is_empty(), "{:?}", step.findings);
        held.push(store.info(id).unwrap().downloaded);
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
        for errno in [Errno::FBIG, Errno::IO, Errno::ACCESS, Errno::ROFS] {
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
                let failing = stores[1].feeds().find(|&id| stores[1].info(id).unwrap().name == "1").unwrap();
                let failing =
                    (0..FEEDS).find(|n| key_pair(*n).public_key() == stores[1].info(failing).unwrap().key).unwrap();
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

/// Feed 0 of store 0, and the reader's folder, in which its data cannot be written any more.
fn live_pair(folder: &Path) -> ([Store; 2], Arc<Unwritable>) {
    let disk = Arc::new(Unwritable { name: "data", from: 0, errno: Errno::IO, fails: AtomicBool::new(false) });
    let mut writer =
        Multifeed::open(Box::new(MemoryStorage::default()) as Box<dyn Storage>, Options::default()).unwrap();
    writer.writer(Some("w"), || key_pair(0)).unwrap();
    let mut stores = [writer, open(folder, disk.clone(), Durability::None)];
    append_to_first(&mut stores[0], 0..5);
    // Its folder has the number that the disk fails in.
    stores[1].writer(Some("own"), || key_pair(9)).unwrap();
    (stores, disk)
}

fn append_to_first(store: &mut Store, range: std::ops::Range<u64>) {
    let id = store.find(&key_pair(0).public_key()).unwrap();
    store.append(id, &blocks(0, range)).unwrap();
    store.commit(START);
}

fn held_of_first(store: &Store) -> u64 {
    store.find(&key_pair(0).public_key()).map_or(0, |id| store.info(id).unwrap().downloaded)
}

/// A link that is observed.
fn watched(stores: &mut [Store], ends: [usize; 2], options: Replicate) -> Link {
    let link = Link::plain(stores, ends, options);
    for (store, connection) in &link.ends {
        stores[*store].observe(connection.peer());
    }
    link
}

/// Whether a store's end of a link is in sync, as its last progress said too.
fn in_sync(stores: &[Store], link: &Link, store: usize) -> bool {
    let side = link.ends.iter().position(|(at, _)| *at == store).unwrap();
    let told = link.events[side].iter().rev().find_map(|event| match event {
        PeerEvent::Progress(state) => Some(state.in_sync),
        _ => None,
    });
    let in_sync = stores[store].in_sync(link.ends[side].1.peer());
    assert_eq!(told, Some(in_sync));
    in_sync
}

#[test]
fn a_live_session_is_not_in_sync_with_a_remote_whose_disk_took_no_more() {
    for ends in [[0, 1], [1, 0]] {
        let folder = tempfile::tempdir().unwrap();
        let (mut stores, disk) = live_pair(folder.path());
        let mut links = [watched(&mut stores, ends, Replicate::live())];
        run(&mut stores, &mut links, START);
        assert!([0, 1].into_iter().all(|store| in_sync(&stores, &links[0], store)));
        disk.fails.store(true, Relaxed);
        let before = links[0].events.each_ref().map(Vec::len);
        append_to_first(&mut stores[0], 5..10);
        run(&mut stores, &mut links, START);
        assert_eq!(held_of_first(&stores[1]), 5);
        for (side, before) in before.into_iter().enumerate() {
            let claims = |event: &PeerEvent| matches!(event, PeerEvent::Progress(state) if state.in_sync);
            assert!(!links[0].events[side][before..].iter().any(claims), "{ends:?}, side {side}");
        }
        assert!(![0, 1].into_iter().any(|store| in_sync(&stores, &links[0], store)));
        append_to_first(&mut stores[0], 10..11);
        run(&mut stores, &mut links, START);
        assert!(!in_sync(&stores, &links[0], 0));
    }
}

#[test]
fn what_comes_after_a_remotes_disk_failed_is_missing_there() {
    for ends in [[2, 1], [1, 2]] {
        let folder = tempfile::tempdir().unwrap();
        let (stores, disk) = live_pair(folder.path());
        let third =
            Multifeed::open(Box::new(MemoryStorage::default()) as Box<dyn Storage>, Options::default()).unwrap();
        let [writer, reader] = stores;
        let mut stores = [writer, reader, third];
        let mut links = vec![watched(&mut stores, [0, 1], Replicate::live())];
        run(&mut stores, &mut links, START);
        links.push(watched(&mut stores, ends, Replicate::live()));
        run(&mut stores, &mut links, START);
        assert!(in_sync(&stores, &links[1], 1) && in_sync(&stores, &links[1], 2));
        // The third hears nothing of what comes, as it cannot be written.
        disk.fails.store(true, Relaxed);
        append_to_first(&mut stores[0], 5..10);
        run(&mut stores, &mut links, START);
        assert_eq!((held_of_first(&stores[1]), held_of_first(&stores[2])), (5, 5));
        assert!(in_sync(&stores, &links[1], 2), "both hold the same");
        links.push(watched(&mut stores, [0, 2], Replicate::live()));
        run(&mut stores, &mut links, START);
        assert_eq!((held_of_first(&stores[1]), held_of_first(&stores[2])), (5, 10));
        assert!(!in_sync(&stores, &links[1], 2), "{ends:?}");
        assert!(in_sync(&stores, &links[2], 2));
        // Its own removal of the feed ends that.
        let id = stores[2].find(&key_pair(0).public_key()).unwrap();
        stores[2].remove(id).unwrap();
        stores[2].commit(START);
        run(&mut stores, &mut links, START);
        assert!(in_sync(&stores, &links[1], 2));
    }
}

/// The third's disk was full when the feed was offered, so that nothing of it was asked for when the remote left it.
#[test]
fn a_feed_that_a_remote_left_while_the_disk_was_full_is_missing_here() {
    for ends in [[2, 1], [1, 2]] {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (stores, failing) = live_pair(folders[0].path());
        let full = Arc::new(Unwritable { name: "key", from: 0, errno: Errno::NOSPC, fails: AtomicBool::new(true) });
        let mut third = open(folders[1].path(), full.clone(), Durability::None);
        third.writer(Some("own"), || key_pair(8)).unwrap();
        let [writer, reader] = stores;
        let mut stores = [writer, reader, third];
        let mut links = vec![watched(&mut stores, [0, 1], Replicate::live())];
        run(&mut stores, &mut links, START);
        assert_eq!(held_of_first(&stores[1]), 5);
        links.push(watched(&mut stores, ends, Replicate::live()));
        run(&mut stores, &mut links, START);
        assert!(stores[2].disk_full().is_some() && held_of_first(&stores[2]) == 0);
        failing.fails.store(true, Relaxed);
        append_to_first(&mut stores[0], 5..10);
        run(&mut stores, &mut links, START);
        full.fails.store(false, Relaxed);
        for second in 1..=60 {
            let now = Duration::from_secs(second);
            stores.iter_mut().for_each(|store| store.handle_timeout(now));
            run(&mut stores, &mut links, now);
        }
        assert!(stores[2].disk_full().is_none() && held_of_first(&stores[2]) == 0);
        assert!(!in_sync(&stores, &links[1], 2), "{ends:?}");
        assert!(links[1].result(0).is_none() && links[1].result(1).is_none());
    }
}

#[test]
fn a_remote_that_removes_a_feed_takes_no_more_of_it() {
    for ends in [[0, 1], [1, 0]] {
        let folder = tempfile::tempdir().unwrap();
        let (mut stores, _) = live_pair(folder.path());
        let mut links = [watched(&mut stores, ends, Replicate::live())];
        // It holds some of it.
        links[0].chunk = 100;
        while held_of_first(&stores[1]) == 0 {
            assert!(links[0].turn(&mut stores, START));
        }
        assert!(!in_sync(&stores, &links[0], 0));
        let id = stores[1].find(&key_pair(0).public_key()).unwrap();
        stores[1].remove(id).unwrap();
        stores[1].commit(START);
        run(&mut stores, &mut links, START);
        let peer = links[0].ends[ends[0]].1.peer();
        let stands = |stores: &[Store]| {
            let state = stores[0].sync_state(peer, START).unwrap();
            (state.in_sync, state.not_taken, state.missing_there)
        };
        let (in_sync_then, not_taken, missing) = stands(&stores);
        assert!((1..5).contains(&missing) && not_taken == 1 && !in_sync_then, "{ends:?}: {missing}");
        append_to_first(&mut stores[0], 5..10);
        run(&mut stores, &mut links, START);
        assert_eq!(stands(&stores), (false, 1, missing + 5), "{ends:?}");
        // That it removed the feed itself is no reason there.
        assert!(in_sync(&stores, &links[0], 1), "{ends:?}");
    }
}

#[test]
fn a_remote_that_removes_a_feed_that_it_holds_is_in_sync_until_there_is_more() {
    for ends in [[0, 1], [1, 0]] {
        let folder = tempfile::tempdir().unwrap();
        let (mut stores, _) = live_pair(folder.path());
        let mut links = [watched(&mut stores, ends, Replicate::live())];
        run(&mut stores, &mut links, START);
        let id = stores[1].find(&key_pair(0).public_key()).unwrap();
        stores[1].remove(id).unwrap();
        stores[1].commit(START);
        run(&mut stores, &mut links, START);
        assert!(in_sync(&stores, &links[0], 0) && in_sync(&stores, &links[0], 1), "{ends:?}");
        append_to_first(&mut stores[0], 5..10);
        run(&mut stores, &mut links, START);
        let state = stores[0].sync_state(links[0].ends[ends[0]].1.peer(), START).unwrap();
        assert_eq!((state.in_sync, state.not_taken, state.missing_there), (false, 1, 5), "{ends:?}");
    }
}

#[test]
fn what_was_sent_is_missing_there_until_it_is_written() {
    for case in 0..8 {
        // Lists and acknowledgements as with JS, too.
        let (ends, fails, reconcile) = ([case % 2, 1 - case % 2], case / 2 % 2 == 1, (case >= 4).then_some(false));
        let options = Replicate { reconcile, ..Replicate::default() };
        let folder = tempfile::tempdir().unwrap();
        let (mut stores, disk) = live_pair(folder.path());
        let mut first = [watched(&mut stores, ends, options.clone())];
        run(&mut stores, &mut first, START);
        append_to_first(&mut stores[0], 5..40);
        disk.fails.store(fails, Relaxed);
        let mut link = watched(&mut stores, ends, options.clone());
        link.chunk = 50;
        let (writer, peer) = (ends[0], link.ends[ends[0]].1.peer());
        let mut told = false;
        while link.turn(&mut stores, START) {
            let state = stores[0].sync_state(peer, START).unwrap();
            let lacks = 40 - if fails { held_of_first(&stores[1]).min(5) } else { held_of_first(&stores[1]) };
            told |= state.missing_there > 0;
            if told && link.result(writer).is_none() && !stores[0].peers(stores[0].feeds().next().unwrap()).is_empty() {
                assert!(state.missing_there >= lacks, "{ends:?}, {fails}, {reconcile:?}: {lacks} lacking, {state:?}");
            }
            assert!(lacks == 0 || !state.in_sync, "{ends:?}, {fails}, {reconcile:?}: {lacks} lacking, {state:?}");
        }
        assert!(told);
        let totals = link.totals(writer);
        assert_eq!((totals.not_taken, totals.missing), (u64::from(fails), 0), "{ends:?}, {fails}, {reconcile:?}");
        assert_eq!(stores[0].in_sync(peer), !fails, "{ends:?}, {fails}, {reconcile:?}");
        assert_eq!(held_of_first(&stores[1]), if fails { 5 } else { 40 });
    }
}

/// What becomes of a feed's folder, or of the store's, while a live session brings more.
#[test]
fn a_feed_whose_folder_is_moved_leaves_the_others_alone() {
    for what in ["removed", "replaced by nothing", "replaced by a copy", "the store removed"] {
        for durability in [Durability::None, Durability::Always] {
            let case = format!("{what}, {durability:?}");
            let place = tempfile::tempdir().unwrap();
            let (folder, moved) = (place.path().join("store"), place.path().join("moved"));
            let disk = Arc::new(Unwritable { name: "", from: 0, errno: Errno::IO, fails: AtomicBool::new(false) });
            let mut stores = [source(), open(&folder, disk, durability)];
            let mut links = [watched(&mut stores, [0, 1], Replicate::live())];
            run(&mut stores, &mut links, START);
            assert!(in_sync(&stores, &links[0], 1), "{case}");
            let at = folder.join("1");
            match what {
                "the store removed" => std::fs::rename(&folder, &moved).unwrap(),
                _ => std::fs::rename(&at, &moved).unwrap(),
            }
            match what {
                "replaced by nothing" => std::fs::create_dir(&at).unwrap(),
                "replaced by a copy" => {
                    std::fs::create_dir(&at).unwrap();
                    for file in std::fs::read_dir(&moved).unwrap().map(Result::unwrap) {
                        std::fs::copy(file.path(), at.join(file.file_name())).unwrap();
                    }
                }
                _ => {}
            }
            append(&mut stores[0], 20..40);
            run(&mut stores, &mut links, START);
            if what == "the store removed" {
                assert_eq!(links[0].error(1).code(), "ERR_STORE_MOVED", "{case}");
                continue;
            }
            let gone = stores[1].feeds().find(|&id| stores[1].info(id).unwrap().name == "1").unwrap();
            let gone = (0..FEEDS).find(|n| key_pair(*n).public_key() == stores[1].info(gone).unwrap().key).unwrap();
            assert!(links[0].result(0).is_none() && links[0].result(1).is_none(), "{case}: {:?}", links[0].events[1]);
            append(&mut stores[0], 40..50);
            run(&mut stores, &mut links, START);
            assert!(links[0].result(1).is_none(), "{case}: {:?}", links[0].events[1]);
            for n in (0..FEEDS).filter(|n| *n != gone) {
                let id = stores[1].find(&key_pair(n).public_key()).unwrap();
                assert_eq!(stores[1].info(id).unwrap().downloaded, 50, "{case}: {n}");
            }
            assert_eq!(damaged(&links[0]), 1, "{case}: {:?}", links[0].events[1]);
            assert!(!in_sync(&stores, &links[0], 1), "{case}");
            // Nothing was written to what is in its place.
            assert!(what != "replaced by nothing" || std::fs::read_dir(&at).unwrap().next().is_none(), "{case}");
            stores[1].finish(links[0].ends[1].1.peer());
            run(&mut stores, &mut links, START);
            assert_eq!(links[0].error(1).code(), "ERR_STORE_MOVED", "{case}");
            drop(stores);
            // At its new path it is as it was.
            let mut files = FileStorage::open(place.path().join("another")).unwrap();
            files.close().unwrap();
            std::fs::rename(&moved, place.path().join("another").join("0")).unwrap();
            let mut store =
                Multifeed::open(FileStorage::open(place.path().join("another")).unwrap(), Options::default()).unwrap();
            let id = store.find(&key_pair(gone).public_key());
            let id = id.unwrap_or_else(|| panic!("{case}: {:?}", store.problems()));
            assert_eq!(store.info(id).unwrap().downloaded, 20, "{case}");
            assert_eq!(store.get(id, 19).unwrap(), Some(block(gone, 19)), "{case}");
        }
    }
}
