//! An older copy of a writer's folder in its place. It is read and served, and nothing is appended to it. It is a writer's again once what it lacks
//! came from a remote. Never is a second history signed.

use crate::common;
use crate::link;

use std::time::Duration;

use bytes::Bytes;
use common::Faulty;
use link::{Link, Store, run, store};
use multifeed_core::{
    FeedId, FileId, FileKind, KeyPair, MemoryStorage, Multifeed, Options, PeerEvent, Replicate, Slot, Storage,
    StoreError,
};

const NOW: Duration = Duration::ZERO;

fn pair() -> KeyPair {
    KeyPair::from_seed(&[7; 32])
}

fn text(at: u64) -> Bytes {
    format!("block {at}").into()
}

fn append(store: &mut Store, count: u64) {
    let id = store.writer(Some("w"), pair).unwrap();
    let len = store.info(id).unwrap().len;
    (len..len + count).for_each(|at| _ = store.append(id, &[text(at)]).unwrap());
}

fn open(mut disk: MemoryStorage) -> Store {
    disk.reopen();
    Multifeed::open(disk, Options::default()).unwrap()
}

/// What is on the disk once the store was closed.
fn closed(store: Store) -> MemoryStorage {
    let mut disk = store.storage().clone();
    drop(store);
    disk.reopen();
    let mut store = Multifeed::open(&mut disk, Options::default()).unwrap();
    store.sync().unwrap();
    store.close().unwrap();
    disk
}

/// The folder of the writer is the older one's, the journal is not.
fn put_back(now: &mut MemoryStorage, older: &MemoryStorage) {
    now.reopen();
    now.remove(Slot(0)).unwrap();
    for kind in FileKind::ALL.into_iter().filter(|kind| *kind != FileKind::Journal) {
        if let Some(bytes) = older.contents(FileId::new(Slot(0), kind)) {
            now.write_at(FileId::new(Slot(0), kind), 0, &bytes).unwrap();
        }
    }
}

fn ours(store: &Store) -> FeedId {
    store.find(&pair().public_key()).expect("the writer's feed")
}

/// Length here and as it was signed of each problem.
fn older(store: &Store) -> Vec<(u64, u64)> {
    let told = |problem: &StoreError| match problem {
        StoreError::OlderWriter { blocks, signed, name, .. } => {
            assert_eq!(name.as_deref(), Some("w"));
            (*blocks, *signed)
        }
        other => panic!("{other}"),
    };
    store.problems().iter().map(told).collect()
}

fn refused(store: &mut Store) {
    let id = store.writer(Some("w"), || KeyPair::from_seed(&[50; 32])).unwrap();
    let before = store.info(id).unwrap().len;
    let error = store.append(id, &[Bytes::from("another history")]).unwrap_err();
    assert_eq!((error.code(), store.info(id).unwrap().len), ("ERR_WRITER_OLDER", before));
    assert!(error.to_string().contains("sync with a peer"), "{error}");
}

fn sync(stores: &mut [Store], options: &Replicate) -> Link {
    let mut link = Link::plain(stores, [0, 1], options.clone());
    run(stores, std::slice::from_mut(&mut link), NOW);
    let conflict = |event: &PeerEvent| matches!(event, PeerEvent::Conflict { .. });
    assert!(!link.events.iter().flatten().any(conflict), "{:?}", link.events);
    link
}

fn all(store: &mut Store, len: u64) {
    let id = ours(store);
    assert_eq!(store.info(id).unwrap().len, len);
    (0..len).for_each(|at| assert_eq!(store.get(id, at).unwrap(), Some(text(at))));
}

#[test]
fn an_older_copy_of_a_writer_is_a_writer_again_once_a_remote_brought_the_rest() {
    for (held, len) in [(0, 1), (0, 5), (1, 2), (3, 4), (4, 9), (8, 16)] {
        for unclean in [false, true] {
            for live in [false, true] {
                let case = format!("{held} of {len}, unclean {unclean}, live {live}");
                let mut before = store();
                append(&mut before, held);
                before.sync().unwrap();
                let older_folder = before.storage().clone();
                append(&mut before, len - held);
                let mut stores = vec![before, store()];
                sync(&mut stores, &Replicate::default());
                let remote = stores.pop().unwrap();
                let mut now = stores.pop().unwrap();
                now.sync().unwrap();
                let mut disk = now.storage().clone();
                match unclean {
                    true => drop(now),
                    false => disk = closed(now),
                }
                put_back(&mut disk, &older_folder);

                // As often as it is opened.
                for _ in 0..3 {
                    let mut store = open(disk);
                    assert_eq!(older(&store), [(held, len)], "{case}");
                    refused(&mut store);
                    all(&mut store, held);
                    disk = closed(store);
                }
                // A remote that has less changes nothing of that.
                let mut lacking = crate::link::store();
                let mut source = open(older_folder.clone());
                if held > 0 {
                    let mut stores = vec![source, lacking];
                    sync(&mut stores, &Replicate::default());
                    lacking = stores.pop().unwrap();
                    source = stores.pop().unwrap();
                }
                drop(source);
                let mut stores = vec![open(disk), lacking];
                sync(&mut stores, &Replicate::default());
                assert_eq!(older(&stores[0]), [(held, len)], "{case}");
                refused(&mut stores[0]);

                stores[1] = remote;
                let options = if live { Replicate::live() } else { Replicate::default() };
                sync(&mut stores, &options);
                eprintln!("{case}; {:?} {:?}", stores[0].recovered(), stores[0].problems());
                assert!(stores[0].problems().is_empty(), "{case}: {:?}", stores[0].problems());
                all(&mut stores[0], len);
                append(&mut stores[0], 2);
                let disk = closed(stores.remove(0));
                let mut store = open(disk);
                assert!(store.problems().is_empty(), "{case}: {:?}", store.problems());
                all(&mut store, len + 2);
                stores.insert(0, store);
                sync(&mut stores, &Replicate::default());
                all(&mut stores[1], len + 2);
            }
        }
    }
}

/// A remote that has a part of what is lost: it is still not the writer's to go on.
#[test]
fn a_part_of_what_is_lost_is_not_enough() {
    let mut whole = store();
    append(&mut whole, 2);
    whole.sync().unwrap();
    let older_folder = whole.storage().clone();
    append(&mut whole, 3);
    let mut stores = vec![whole, store()];
    sync(&mut stores, &Replicate::default());
    let part = stores.pop().unwrap();
    append(&mut stores[0], 4);
    stores.push(store());
    sync(&mut stores, &Replicate::default());
    let all_of_it = stores.pop().unwrap();
    let mut disk = closed(stores.pop().unwrap());
    put_back(&mut disk, &older_folder);

    let mut stores = vec![open(disk), part];
    assert_eq!(older(&stores[0]), [(2, 9)]);
    sync(&mut stores, &Replicate::default());
    all(&mut stores[0], 5);
    refused(&mut stores[0]);
    let disk = closed(stores.remove(0));
    let mut store = open(disk);
    assert_eq!(older(&store), [(5, 9)]);
    refused(&mut store);
    let mut stores = vec![store, all_of_it];
    sync(&mut stores, &Replicate::default());
    all(&mut stores[0], 9);
    append(&mut stores[0], 1);
}

/// An older copy that was extended elsewhere, with another store or JS, and put back: this store signed other blocks. They are never passed over in
/// silence, and nothing is appended.
#[test]
fn a_copy_that_was_extended_elsewhere_is_another_history() {
    for (held, len, other) in [(1, 2, 2), (3, 6, 6), (3, 6, 8), (3, 5, 11), (4, 6, 7), (8, 9, 16)] {
        for unclean in [false, true] {
            let case = format!("{held} of {len}, {other} elsewhere, unclean {unclean}");
            let mut before = store();
            append(&mut before, held);
            before.sync().unwrap();
            let mut elsewhere = open(closed(open(before.storage().clone())));
            let id = ours(&elsewhere);
            let others = |at: u64| Bytes::from(format!("other {at}"));
            (held..other).for_each(|at| _ = elsewhere.append(id, &[others(at)]).unwrap());
            elsewhere.sync().unwrap();
            let elsewhere = closed(elsewhere);
            append(&mut before, len - held);
            before.sync().unwrap();
            let whole = before.storage().clone();
            let mut disk = if unclean { whole.clone() } else { closed(before) };
            put_back(&mut disk, &elsewhere);
            for turn in 0..3 {
                let mut now = open(disk);
                let problems = now.problems();
                let forked = |problem: &StoreError| matches!(problem, StoreError::ForkedWriter { blocks, signed, .. } if (*blocks, *signed) == (other, len));
                assert!(problems.len() == 1 && problems.iter().all(forked), "{case}, {turn}: {problems:?}");
                let id = now.writer(Some("w"), || KeyPair::from_seed(&[50; 32])).unwrap();
                assert_eq!(id, ours(&now), "{case}");
                let error = now.append(id, &[Bytes::from("more")]).unwrap_err();
                assert_eq!((error.code(), now.info(id).unwrap().len), ("ERR_WRITER_FORKED", other), "{case}: {error}");
                let text = |at| if at < held { text(at) } else { others(at) };
                assert!((0..other).all(|at| now.get(id, at).unwrap() == Some(text(at))), "{case}");
                disk = closed(now);
            }
            // The right folder is back.
            put_back(&mut disk, &whole);
            let mut now = open(disk);
            assert!(now.problems().is_empty(), "{case}: {:?}", now.problems());
            append(&mut now, 1);
            all(&mut now, len + 1);
        }
    }
}

/// The process is killed, at any write, while it takes back what the older copy lacks: the next one goes on.
#[test]
fn a_kill_while_it_is_taken_back_is_no_end() {
    for (held, len) in [(0, 5), (3, 4), (4, 30), (7, 17)] {
        let mut before = store();
        append(&mut before, held);
        before.sync().unwrap();
        let older_folder = before.storage().clone();
        append(&mut before, len - held);
        let mut stores = vec![before, store()];
        sync(&mut stores, &Replicate::default());
        let remote = closed(stores.pop().unwrap());
        let mut disk = closed(stores.pop().unwrap());
        put_back(&mut disk, &older_folder);
        for (writes, quarters) in (0..).flat_map(|writes| [0, 2, 4].map(|quarters| (writes, quarters))) {
            let open_at = |disk: &MemoryStorage, writes| {
                let mut disk = disk.clone();
                disk.reopen();
                Multifeed::open(Faulty::new(disk, writes, quarters), Options::default()).unwrap()
            };
            let mut stores = vec![open_at(&disk, writes), open_at(&remote, usize::MAX)];
            let mut link = Link::plain(&mut stores, [0, 1], Replicate::default());
            link.chunk = 200;
            while !stores[0].storage().failed && link.turn(&mut stores, NOW) {
                stores[0].commit(NOW);
            }
            drop(link);
            let failed = stores[0].storage().failed;
            let case = format!("{held} of {len}, killed at write {writes}, {quarters} quarters of it");
            let mut stores = vec![open(stores[0].storage().disk.clone()), open(remote.clone())];
            sync(&mut stores, &Replicate::default());
            eprintln!("{case}; {:?} {:?}", stores[0].recovered(), stores[0].problems());
            assert!(stores[0].problems().is_empty(), "{case}: {:?}", stores[0].problems());
            let id = ours(&stores[0]);
            let info = stores[0].info(id).unwrap();
            assert_eq!((info.len, info.downloaded), (len, len), "{case}");
            append(&mut stores[0], 1);
            let mut ended = open(closed(stores.remove(0)));
            assert!(ended.problems().is_empty(), "{case}: {:?}", ended.problems());
            all(&mut ended, len + 1);
            if !failed {
                break;
            }
        }
    }
}

#[test]
fn a_writer_that_was_removed_signs_no_second_history_when_its_key_pair_is_there_again() {
    for reopened in [false, true] {
        let mut stores = vec![store(), store()];
        append(&mut stores[0], 3);
        sync(&mut stores, &Replicate::default());
        append(&mut stores[0], 2);
        let remote = stores.pop().unwrap();
        let mut store = stores.pop().unwrap();
        let id = ours(&store);
        store.remove_writer(id).unwrap();
        assert!(matches!(store.writer(Some("w"), pair), Err(StoreError::Banned { .. })));
        if reopened {
            store = open(closed(store));
            assert!(store.problems().is_empty(), "a removed writer is not missed: {:?}", store.problems());
        }
        assert!(store.unban(pair().public_key()).unwrap());
        for turn in 0..3 {
            let id = store.writer(Some("w"), pair).unwrap();
            let error = store.append(id, &[Bytes::from("another history")]).unwrap_err();
            assert_eq!((error.code(), store.info(id).unwrap().len), ("ERR_WRITER_OLDER", 0), "{turn}");
            store = open(closed(store));
            assert_eq!(older(&store), [(0, 5)]);
        }
        // A peer that has a part of it does not suffice, one that has all of it does.
        let mut stores = vec![store, remote];
        sync(&mut stores, &Replicate::default());
        all(&mut stores[0], 3);
        refused(&mut stores[0]);
        let _ = stores.pop();
        let mut store = open(closed(stores.pop().unwrap()));
        assert_eq!(older(&store), [(3, 5)]);
        refused(&mut store);
    }
}

#[test]
fn a_writer_that_was_removed_is_one_again_once_a_remote_brought_what_it_signed() {
    let mut stores = vec![store(), store()];
    append(&mut stores[0], 5);
    sync(&mut stores, &Replicate::default());
    let id = ours(&stores[0]);
    stores[0].remove_writer(id).unwrap();
    stores[0].unban(pair().public_key()).unwrap();
    let remote = stores.pop().unwrap();
    let store = open(closed(stores.pop().unwrap()));
    let mut stores = vec![store, remote];
    stores[0].writer(Some("w"), pair).unwrap();
    sync(&mut stores, &Replicate::default());
    assert!(stores[0].problems().is_empty(), "{:?}", stores[0].problems());
    append(&mut stores[0], 2);
    all(&mut stores[0], 7);
    sync(&mut stores, &Replicate::default());
    all(&mut stores[1], 7);
    let remote = stores.pop().unwrap();
    let mut store = open(closed(stores.pop().unwrap()));
    assert!(store.problems().is_empty() && store.recovered().is_empty());
    all(&mut store, 7);
    drop(remote);
}

#[test]
fn a_missing_writer_that_is_given_up_signs_no_second_history_either() {
    let mut store = store();
    append(&mut store, 4);
    let mut disk = closed(store);
    disk.reopen();
    disk.remove(Slot(0)).unwrap();
    let mut store = open(disk);
    // Not under another name either.
    let id = store.writer(Some("other"), pair).unwrap();
    assert_eq!(store.append(id, &[Bytes::from("x")]).unwrap_err().code(), "ERR_WRITER_OLDER");
    let mut disk = closed(store);
    disk.reopen();
    disk.remove(Slot(0)).unwrap();
    let mut store = open(disk);
    assert!(store.give_up_missing(&pair().public_key()).unwrap());
    let mut store = open(closed(store));
    assert!(store.problems().is_empty(), "{:?}", store.problems());
    store.unban(pair().public_key()).unwrap();
    let id = store.writer(Some("w"), pair).unwrap();
    assert_eq!(store.append(id, &[Bytes::from("x")]).unwrap_err().code(), "ERR_WRITER_OLDER");
}
