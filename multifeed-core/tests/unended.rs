//! What JS leaves of an append that never ended, since it was killed. JS writes data, tree and signature at once, in any order. The blocks are
//! marked, and shown to others, only after that. So nobody saw them: the append is completed if all of it is there, and else dropped. If more may
//! have been signed, nothing is appended; what is proven is shown, read and served.

use crate::common;
use crate::link;

use std::time::Duration;

use common::{block, blocks, create, file, key_pair, verify};
use link::{Link, Store, run, store};
use multifeed_core::{Feed, FileKind, MemoryStorage, Multifeed, Options, Replicate, Slot, Storage};

const N: u8 = 61;
const HEADER: u64 = 32;
const NODE: u64 = 40;
const SIGNATURE: u64 = 64;
const KINDS: [FileKind; 4] = [FileKind::Bitfield, FileKind::Signatures, FileKind::Tree, FileKind::Data];
const NOW: Duration = Duration::ZERO;

/// How much of a write came to the disk.
const PARTS: [u64; 3] = [0, 1, 2];

fn contents(disk: &MemoryStorage, kind: FileKind) -> Vec<u8> {
    disk.contents(file(0, kind)).unwrap_or_default()
}

/// What is in a file if so many halves of a write from `at` on came to the disk.
fn torn(before: &[u8], after: &[u8], at: usize, halves: u64) -> Vec<u8> {
    let (end, from) = (after.len(), at.min(after.len()));
    let written = from + (end - from) * halves as usize / 2;
    let mut torn = before.to_vec();
    if written > from {
        torn.resize(torn.len().max(written), 0);
        torn[from..written].copy_from_slice(&after[from..written]);
    }
    torn
}

/// A store of JS's with a writer of so many blocks; or one that was closed here after half of them, and that JS appended to.
fn written(length: u64, known: bool) -> MemoryStorage {
    let mut disk = MemoryStorage::new();
    let mut next = 0;
    if known {
        let mut store = Multifeed::open(&mut disk, Options::default()).unwrap();
        let id = store.writer(Some("w"), || key_pair(N)).unwrap();
        next = length / 2;
        store.append(id, &blocks(N, 0..next)).unwrap();
        store.close().unwrap();
        disk.reopen();
    } else {
        create(&mut disk, 0, N, Some("w"));
    }
    let mut feed = Feed::open(&mut disk, Slot(0)).unwrap();
    while next < length {
        let end = if length > 100 { length } else { next + 1 };
        feed.append(&mut disk, &blocks(N, next..end)).unwrap();
        next = end;
    }
    disk
}

fn open(disk: &MemoryStorage) -> Store {
    let mut disk = disk.clone();
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
    disk.reopen();
    disk
}

fn reads(store: &mut Store, length: u64, case: &str) {
    let id = store.find_name("w").unwrap_or_else(|| panic!("{case}: hidden"));
    assert_eq!(store.info(id).unwrap().len, length, "{case}");
    for at in (0..length).rev().take(30) {
        assert_eq!(store.get(id, at).unwrap(), Some(block(N, at)), "{case}: block {at}");
    }
}

/// Nothing of it is changed, it is shown and read, and appending names what is wrong.
fn is_refused(disk: &MemoryStorage, length: u64, case: &str) {
    let before = KINDS.map(|kind| contents(disk, kind));
    let mut store = open(disk);
    reads(&mut store, length, case);
    let problems: Vec<_> = store.problems().iter().map(|problem| problem.code()).collect();
    assert_eq!(problems, ["ERR_STORE_DAMAGED"], "{case}");
    let id = store.find_name("w").unwrap();
    let error = store.append(id, &blocks(N, 0..1)).unwrap_err();
    assert_eq!(error.code(), "ERR_STORE_DAMAGED", "{case}");
    let disk = closed(store);
    assert!(before == KINDS.map(|kind| contents(&disk, kind)), "{case}");
    // As often as it is opened.
    let store = open(&disk);
    assert_eq!(store.problems().len(), 1, "{case}");
}

#[test]
fn an_append_of_js_that_was_cut_is_completed_or_dropped() {
    let (mut completed, mut dropped, mut refused) = (0, 0, 0);
    for (start, batch, known) in [
        (1, 1, false),
        (3, 1, false),
        (7, 1, true),
        (8, 1, false),
        (5, 4, false),
        (8, 3, true),
        (8191, 1, false),
        (8190, 5, false),
        (8192, 1, false),
        (0, 1, false),
    ] {
        let before = written(start, known);
        let mut after = before.clone();
        let mut feed = Feed::open(&mut after, Slot(0)).unwrap();
        let byte_len = feed.byte_len();
        feed.append(&mut after, &blocks(N, start..start + batch)).unwrap();
        let ends = [
            (FileKind::Data, byte_len),
            (FileKind::Tree, HEADER + 2 * start * NODE),
            (FileKind::Signatures, HEADER + (start + batch - 1) * SIGNATURE),
        ];
        // Parents that stand before the new leaves are written one by one: all or none of them.
        for (data, tree, parents, signature) in PARTS.into_iter().flat_map(|data| {
            PARTS.into_iter().flat_map(move |tree| {
                [0, 2].into_iter().flat_map(move |parents| PARTS.map(|signature| (data, tree, parents, signature)))
            })
        }) {
            let case = format!("{batch} at {start}, known {known}: data {data}, tree {tree}, {parents}, {signature}");
            let mut disk = before.clone();
            for ((kind, at), halves) in ends.into_iter().zip([data, tree, signature]) {
                let (mut old, new) = (contents(&before, kind), contents(&after, kind));
                if kind == FileKind::Tree && parents > 0 {
                    let len = old.len().min(at as usize);
                    old[..len].copy_from_slice(&new[..len]);
                }
                disk.write_at(file(0, kind), 0, &torn(&old, &new, at as usize, halves)).unwrap();
            }
            let is_whole = data == 2 && signature == 2 && (batch == 1 || tree == 2);
            let at_a_page = start % 8192 == 0;
            if at_a_page && !is_whole && (data, tree, signature) != (0, 0, 0) {
                // The marks may be lost, and more of it with them.
                match open(&disk).problems().is_empty() {
                    true => {}
                    false => {
                        refused += 1;
                        is_refused(&disk, start, &case);
                        continue;
                    }
                }
            }
            let mut store = open(&disk);
            assert!(store.problems().is_empty(), "{case}: {:?}", store.problems());
            let length = if is_whole { start + batch } else { start };
            reads(&mut store, length, &case);
            *(if is_whole { &mut completed } else { &mut dropped }) += 1;
            // Another block than the one that was dropped, and smaller.
            let id = store.find_name("w").unwrap();
            store.append(id, &[bytes::Bytes::from_static(b"x")]).unwrap();
            let mut disk = closed(store);
            let mut feed = Feed::open(&mut disk, Slot(0)).unwrap();
            assert_eq!((feed.len(), feed.recovered()), (length + 1, None), "{case}");
            assert_eq!(verify(&mut feed, &mut disk), [], "{case}");
        }
    }
    assert!(completed > 30 && dropped > 200 && refused > 10, "{completed}, {dropped}, {refused}");
}

/// Ten blocks are marked, twenty were signed, and the tree ends with the tenth.
fn with_more_signed() -> (MemoryStorage, MemoryStorage) {
    let ten = written(10, false);
    let twenty = written(20, false);
    let mut disk = ten.clone();
    for kind in [FileKind::Signatures, FileKind::Data] {
        disk.write_at(file(0, kind), 0, &contents(&twenty, kind)).unwrap();
    }
    (disk, twenty)
}

fn sync(stores: &mut [Store]) {
    let mut link = Link::plain(stores, [0, 1], Replicate::default());
    run(stores, std::slice::from_mut(&mut link), NOW);
}

/// A remote's copy of the first so many blocks.
fn copy_of(disk: &MemoryStorage) -> Store {
    let mut stores = vec![open(disk), store()];
    sync(&mut stores);
    stores.pop().unwrap()
}

#[test]
fn a_writer_of_which_more_was_signed_is_shown_and_served_until_a_remote_brings_it() {
    let (disk, twenty) = with_more_signed();
    is_refused(&disk, 10, "ten of twenty");
    // It is served.
    let mut stores = vec![open(&disk), store()];
    sync(&mut stores);
    let id = stores[1].find(&key_pair(N).public_key()).expect("the feed");
    assert_eq!((stores[1].info(id).unwrap().len, stores[1].info(id).unwrap().downloaded), (10, 10));
    // A remote that has a part of what may have been signed changes nothing: what the marks tell is all that anybody knows.
    for part in [10, 15, 19] {
        let mut stores = vec![open(&disk), copy_of(&written(part, false))];
        sync(&mut stores);
        is_refused(&closed(stores.remove(0)), 10, &format!("a remote of {part}"));
    }
    for whole in [twenty, written(23, false)] {
        let mut stores = vec![open(&disk), copy_of(&whole)];
        sync(&mut stores);
        let length = Feed::open(&mut whole.clone(), Slot(0)).unwrap().len();
        assert!(stores[0].problems().is_empty(), "{:?}", stores[0].problems());
        reads(&mut stores[0], length, "brought back");
        let id = stores[0].find_name("w").unwrap();
        stores[0].append(id, &blocks(N, length..length + 1)).unwrap();
        let mut store = open(&closed(stores.remove(0)));
        assert!(store.problems().is_empty(), "{:?}", store.problems());
        reads(&mut store, length + 1, "goes on");
    }
}

/// The message tells what to cut if nobody has more, and then it goes on.
#[test]
fn the_way_out_that_is_told_is_one() {
    let (disk, _) = with_more_signed();
    let told = open(&disk).problems()[0].to_string();
    assert!(told.contains("10 blocks of this writer are marked, whole and signed"), "{told}");
    let mut disk = disk.clone();
    for kind in KINDS {
        let Some((_, rest)) = told.split_once(&format!("`{kind}` to ")) else { continue };
        let end = rest.split_once(" bytes").unwrap().0.parse().unwrap();
        disk.truncate(file(0, kind), end).unwrap();
    }
    let mut store = open(&disk);
    assert!(store.problems().is_empty(), "{:?}", store.problems());
    reads(&mut store, 10, "cut");
    let id = store.find_name("w").unwrap();
    assert_eq!(store.append(id, &blocks(N, 10..11)).unwrap(), 10..11);
}
