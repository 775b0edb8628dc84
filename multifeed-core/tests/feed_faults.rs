//! A disk that fails in the middle of a write: after each cut the feed opens, verifies, and has what it promised.

use crate::common;

use std::collections::BTreeSet;

use common::{Faulty, Random, block, blocks, create, create_copy, file, key_pair, pull, verify};
use multifeed_core::feed::{Finding, Problem};
use multifeed_core::{AppendError, Feed, FileKind, MemoryStorage, Slot, Storage, StoreError};

const QUARTERS: [usize; 4] = [0, 1, 3, 4];

/// Opens the feed after a cut, checks it, and returns its length.
fn check_writer(disk: &mut MemoryStorage, n: u8, promised: u64, case: &str) -> u64 {
    let mut feed = Feed::open(disk, Slot(0)).unwrap_or_else(|error| panic!("{case}: {error}"));
    let length = feed.len();
    assert!(length >= promised, "{case}: {length} of {promised} blocks");
    assert_eq!(feed.downloaded(), length, "{case}");
    for i in (0..length).rev().take(40) {
        assert_eq!(feed.get(disk, i).unwrap().unwrap(), block(n, i), "{case}: block {i}");
    }
    assert_eq!(verify(&mut feed, disk), [], "{case}");
    // And it goes on as if nothing had been.
    feed.append(disk, &blocks(n, length..length + 3)).unwrap();
    let mut feed = Feed::open(disk, Slot(0)).unwrap();
    assert_eq!(feed.recovered(), None, "{case}");
    assert_eq!(feed.len(), length + 3, "{case}");
    assert_eq!(verify(&mut feed, disk), [], "{case}");
    length
}

#[test]
fn appends_that_are_cut_lose_nothing_that_was_promised() {
    let n = 21;
    let (mut regained, mut refused) = (false, 0);
    // From nothing, and over the end of a bitfield page.
    for start in [0, 8180] {
        let mut prepared = MemoryStorage::new();
        let mut feed = create(&mut prepared, 0, n, None);
        feed.append(&mut prepared, &blocks(n, 0..start)).unwrap();
        for quarters in QUARTERS {
            for writes in 0.. {
                let case = format!("from {start}, write {writes}, {quarters}/4");
                let mut disk = Faulty::new(prepared.clone(), writes, quarters);
                let mut feed = Feed::open(&mut disk, Slot(0)).unwrap();
                let mut promised = start;
                for batch in [1, 1, 3, 1, 5, 8, 1, 2] {
                    match feed.append(&mut disk, &blocks(n, promised..promised + batch)) {
                        Ok(_) => promised += batch,
                        Err(error) => {
                            assert!(matches!(error, AppendError::Store(StoreError::Full { .. })), "{case}: {error}");
                            assert_eq!(feed.len(), promised, "{case}");
                            break;
                        }
                    }
                }
                let finished = !disk.failed;
                // If its marks would end with a page, and no journal tells more, one that goes on after them is left as it is.
                if promised % 8192 == 0
                    && let Err(error) = Feed::open(&mut disk.disk.clone(), Slot(0))
                {
                    assert!(matches!(error, StoreError::Damaged { .. }), "{case}: {error}");
                    refused += 1;
                    continue;
                }
                regained |= check_writer(&mut disk.disk, n, promised, &case) > promised;
                if finished {
                    break;
                }
            }
        }
    }
    // The last cut of a batch comes when all but the bitfield is there.
    assert!(regained && (1..60).contains(&refused), "{refused}");
}

#[test]
fn an_append_that_failed_can_be_tried_again() {
    let n = 22;
    for writes in 0..12 {
        let mut disk = Faulty::new(MemoryStorage::new(), usize::MAX, 2);
        let mut feed = create(&mut disk, 0, n, None);
        feed.append(&mut disk, &blocks(n, 0..5)).unwrap();
        disk.writes = writes;
        disk.transient = true;
        let mut failures = 0;
        while feed.len() < 20 {
            let start = feed.len();
            let batch = blocks(n, start..start + 1 + start % 3);
            match feed.append(&mut disk, &batch) {
                Ok(range) => assert_eq!(range.start, start),
                Err(_) => {
                    failures += 1;
                    assert_eq!(feed.len(), start);
                    assert!(!feed.has(start));
                    assert_eq!(feed.get(&mut disk, start).unwrap(), None);
                    // Another block than the one that failed: it was never promised.
                    feed.append(&mut disk, &blocks(n, start..start + 1)).unwrap();
                }
            }
        }
        assert_eq!(failures, 1);
        assert_eq!(verify(&mut feed, &mut disk), []);
        check_writer(&mut disk.disk, n, feed.len(), &format!("write {writes}"));
    }
}

#[test]
fn copies_that_are_cut_hold_what_was_flushed() {
    let n = 23;
    for length in [60, 8250] {
        let mut source_disk = MemoryStorage::new();
        let mut source = create(&mut source_disk, 0, n, None);
        for start in (0..length).step_by(30) {
            source.append(&mut source_disk, &blocks(n, start..length.min(start + 30))).unwrap();
        }
        for (quarters, writes) in QUARTERS.iter().flat_map(|quarters| (0..100).map(move |writes| (*quarters, writes))) {
            // The long one is sampled.
            if length > 1000 && writes % 7 != quarters {
                continue;
            }
            let case = format!("{length} blocks, write {writes}, {quarters}/4");
            let mut random = Random(writes as u32 * 4 + 1);
            let mut empty = MemoryStorage::new();
            create_copy(&mut empty, 0, n);
            let mut disk = Faulty::new(empty, writes, quarters);
            let mut feed = Feed::open(&mut disk, Slot(0)).unwrap();
            let mut flushed = BTreeSet::new();
            let mut staged = Vec::new();
            for _ in 0..60 {
                // In order for a while, then anywhere; the end of the page too.
                let index = match random.below(4) {
                    0 => u64::from(random.below(length as u32)),
                    1 => length - 1 - u64::from(random.below(60.min(length as u32))),
                    _ => feed.bitfield().next_missing(0, length).unwrap_or(0),
                };
                if feed.has(index) {
                    continue;
                }
                pull((&mut source, &mut source_disk), (&mut feed, &mut disk), index);
                staged.push(index);
                if staged.len() >= 5 {
                    if feed.flush(&mut disk).is_err() {
                        break;
                    }
                    flushed.extend(staged.drain(..));
                }
            }

            let mut disk = disk.disk;
            let mut feed = Feed::open(&mut disk, Slot(0)).unwrap();
            for index in &flushed {
                assert_eq!(feed.get(&mut disk, *index).unwrap().as_ref(), Some(&block(n, *index)), "{case}: {index}");
            }
            assert_eq!(verify(&mut feed, &mut disk), [], "{case}");
            for index in (0..length).rev().take(60) {
                if !feed.has(index) {
                    pull((&mut source, &mut source_disk), (&mut feed, &mut disk), index);
                }
            }
            feed.flush(&mut disk).unwrap();
            let mut feed = Feed::open(&mut disk, Slot(0)).unwrap();
            assert_eq!(feed.recovered(), None, "{case}");
            assert_eq!(feed.len(), length, "{case}");
            assert_eq!(verify(&mut feed, &mut disk), [], "{case}");
        }
    }
}

#[test]
fn a_flush_that_failed_is_tried_again() {
    let n = 24;
    let mut source_disk = MemoryStorage::new();
    let mut source = create(&mut source_disk, 0, n, None);
    source.append(&mut source_disk, &blocks(n, 0..30)).unwrap();
    for writes in 0..8 {
        let mut disk = Faulty::new(MemoryStorage::new(), usize::MAX, 1);
        let mut feed = create_copy(&mut disk, 0, n);
        for index in [3, 4, 5, 20, 29] {
            pull((&mut source, &mut source_disk), (&mut feed, &mut disk), index);
        }
        disk.writes = writes;
        disk.transient = true;
        let failed = feed.flush(&mut disk).is_err();
        assert_eq!(feed.staged_bytes() > 0, failed);
        assert_eq!(feed.get(&mut disk, 20).unwrap().unwrap(), block(n, 20));
        feed.flush(&mut disk).unwrap();
        assert_eq!(feed.staged_bytes(), 0);
        let mut feed = Feed::open(&mut disk, Slot(0)).unwrap();
        assert_eq!(feed.recovered(), None);
        assert_eq!(feed.downloaded(), 5);
        assert_eq!(verify(&mut feed, &mut disk), []);
    }
}

#[test]
fn a_creation_that_is_cut_can_be_done_again() {
    let pair = key_pair(25);
    for quarters in QUARTERS {
        for writes in 0.. {
            let mut disk = Faulty::new(MemoryStorage::new(), writes, quarters);
            let made = Feed::create(&mut disk, Slot(0), pair.public_key(), Some(&pair), Some("me"));
            let mut disk = disk.disk;
            if made.is_ok() {
                assert!(writes > 3);
                break;
            }
            match Feed::open(&mut disk, Slot(0)) {
                // The key was the last thing to be written.
                Ok(feed) => assert_eq!(feed.local_name(), Some("me")),
                Err(error) => {
                    assert_eq!(error.code(), "ERR_STORE_DAMAGED", "{error}");
                    Feed::create(&mut disk, Slot(0), pair.public_key(), Some(&pair), None).unwrap();
                    let feed = Feed::open(&mut disk, Slot(0)).unwrap();
                    assert_eq!((feed.writable(), feed.local_name()), (true, None));
                }
            }
        }
    }
}

/// Cuts each file of a finished feed, as a power cut can, and opens it.
#[test]
fn a_writer_whose_signatures_are_gone_keeps_its_blocks() {
    let n = 30;
    let mut whole = MemoryStorage::new();
    let mut feed = create(&mut whole, 0, n, Some("w"));
    for start in (0..100).step_by(20) {
        feed.append(&mut whole, &blocks(n, start..start + 20)).unwrap();
    }
    let signatures = file(0, FileKind::Signatures);
    let len = whole.contents(signatures).unwrap().len() as u64;
    for keep in [0, 10, 32, 741, len - 1] {
        let mut disk = whole.clone();
        disk.truncate(signatures, keep).unwrap();
        let feed = Feed::open(&mut disk, Slot(0)).unwrap();
        assert_eq!((feed.len(), feed.recovered().unwrap().signed_again), (100, true), "{keep}");
        // The same history: the same signature, byte for byte.
        let (ours, theirs) = (disk.contents(signatures).unwrap(), whole.contents(signatures).unwrap());
        assert_eq!(ours[ours.len() - 64..], theirs[theirs.len() - 64..], "{keep}");
        // And those that were whole are there.
        let whole = keep.saturating_sub(32) as usize / 64 * 64;
        assert!(ours[..32 + whole] == theirs[..32 + whole], "{keep}");
        assert_eq!(check_writer(&mut disk, n, 100, "signed again"), 100);
    }
    // A bit in the newest signature.
    let mut disk = whole.clone();
    let mut last = whole.contents(signatures).unwrap()[len as usize - 64..].to_vec();
    last[54] ^= 1;
    disk.write_at(signatures, len - 64, &last).unwrap();
    assert_eq!(check_writer(&mut disk, n, 100, "a bit flipped"), 100);
    // And a block: then it is damage, not a crash, and nothing is touched.
    disk.write_at(signatures, len - 64, &last).unwrap();
    disk.write_at(file(0, FileKind::Data), 3, b"?").unwrap();
    let tree = disk.len(file(0, FileKind::Tree)).unwrap().unwrap();
    disk.truncate(file(0, FileKind::Tree), 2000).unwrap();
    disk.truncate(file(0, FileKind::Tree), tree).unwrap();
    let before = FileKind::ALL.map(|kind| disk.contents(file(0, kind)));
    assert!(matches!(Feed::open(&mut disk, Slot(0)), Err(StoreError::Damaged { .. })));
    assert!(before == FileKind::ALL.map(|kind| disk.contents(file(0, kind))));
}

#[test]
fn files_that_end_too_early() {
    let n = 26;
    let mut whole = MemoryStorage::new();
    let mut feed = create(&mut whole, 0, n, None);
    for start in (0..60).step_by(4) {
        feed.append(&mut whole, &blocks(n, start..start + 4)).unwrap();
    }
    let mut copied = MemoryStorage::new();
    let mut copy = create_copy(&mut copied, 0, n);
    for index in 0..60 {
        pull((&mut feed, &mut whole), (&mut copy, &mut copied), index);
    }
    copy.flush(&mut copied).unwrap();

    let mut refused = 0;
    let mut opened = Vec::new();
    for kind in [FileKind::Data, FileKind::Tree, FileKind::Signatures, FileKind::Bitfield] {
        let len = whole.contents(file(0, kind)).unwrap().len() as u64;
        for cut in [1, 20, 39, 40, 41, 63, 64, 65, 100, 300, 700, len - 33, len - 32, len - 10, len] {
            let case = format!("{kind} less {cut}");
            if cut > len {
                continue;
            }
            let mut disk = whole.clone();
            disk.truncate(file(0, kind), len - cut).unwrap();
            let before = FileKind::ALL.map(|kind| disk.contents(file(0, kind)));
            match Feed::open(&mut disk, Slot(0)) {
                // Its length is signed, and its blocks are what `data` has still.
                Ok(mut feed) if kind == FileKind::Data && cut > 0 => {
                    assert_eq!(feed.len(), 60, "{case}");
                    let held = feed.downloaded();
                    // One of no bytes lacks nothing.
                    let end = |index| (0..=index).map(|at| block(n, at).len() as u64).sum::<u64>();
                    let is_there = |index| block(n, index).is_empty() || end(index) <= len - cut;
                    let expected = |index| is_there(index).then(|| block(n, index));
                    let last = (0..60).rev().find(|index| !is_there(*index)).unwrap();
                    assert!((0..60).all(|index| feed.get(&mut disk, index).unwrap() == expected(index)), "{case}");
                    assert!(held < 60 && feed.recovered().is_some_and(|told| told.lost.contains(&last)), "{case}");
                    let lost =
                        |found: &Finding| matches!(found.problem, Problem::BlockLost { block, .. } if !is_there(block));
                    assert!(verify(&mut feed, &mut disk).iter().all(lost), "{case}");
                    feed.append(&mut disk, &blocks(n, 60..61)).unwrap();
                    let mut feed = Feed::open(&mut disk, Slot(0)).unwrap();
                    assert_eq!((feed.len(), feed.downloaded()), (61, held + 1), "{case}");
                    assert!(verify(&mut feed, &mut disk).iter().all(lost), "{case}");
                    opened.push((kind, cut));
                }
                Ok(_) => {
                    let length = check_writer(&mut disk, n, 0, &case);
                    assert_eq!(length, 60, "{case}");
                    opened.push((kind, cut));
                }
                Err(error) => {
                    refused += 1;
                    assert!(matches!(error, StoreError::Damaged { slot: Slot(0), .. }), "{case}: {error}");
                    assert!(kind == FileKind::Tree, "{case}: {error}");
                    let after = FileKind::ALL.map(|kind| disk.contents(file(0, kind)));
                    assert!(before == after, "{case}: the folder was changed");
                }
            }

            let mut disk = copied.clone();
            let len = disk.contents(file(0, kind)).unwrap().len() as u64;
            disk.truncate(file(0, kind), len.saturating_sub(cut)).unwrap();
            let mut copy = Feed::open(&mut disk, Slot(0)).unwrap();
            if kind == FileKind::Bitfield {
                assert_eq!(
                    (copy.len(), copy.downloaded()),
                    (60, 60),
                    "{case}: all is there, and only the marks are gone"
                );
            }
            if kind == FileKind::Data {
                assert_eq!(copy.len(), 60, "{case}: blocks are lost, the length is not");
                assert!(copy.downloaded() < 60);
            }
            assert_eq!(verify(&mut copy, &mut disk), [], "{case}");
            for index in 0..60 {
                if copy.has(index) {
                    assert_eq!(copy.get(&mut disk, index).unwrap().unwrap(), block(n, index), "{case}");
                } else {
                    pull((&mut feed, &mut whole), (&mut copy, &mut disk), index);
                }
            }
            copy.flush(&mut disk).unwrap();
            let mut copy = Feed::open(&mut disk, Slot(0)).unwrap();
            assert_eq!((copy.recovered(), copy.downloaded()), (None, 60), "{case}");
            assert_eq!(verify(&mut copy, &mut disk), [], "{case}");
        }
    }
    assert!(refused > 5, "something is gone from {refused} of them");
    // A writer's blocks may all have been seen by somebody: its length is never less. The last leaf is proven by the signature, with what stands before it.
    let most = |kind| opened.iter().filter(|(of, _)| *of == kind).map(|(_, cut)| *cut).max().unwrap_or(0);
    let all = whole.contents(file(0, FileKind::Data)).unwrap().len() as u64;
    assert_eq!([FileKind::Data, FileKind::Tree].map(most), [all, 65]);
}

#[test]
fn keys_that_are_not_keys_leave_the_folder_as_it_is() {
    let n = 27;
    let mut whole = MemoryStorage::new();
    create(&mut whole, 0, n, Some("me")).append(&mut whole, &blocks(n, 0..10)).unwrap();
    let other = *key_pair(99).secret_key();
    let mut torn = *key_pair(n).secret_key();
    torn[5] ^= 1;
    for (kind, bytes) in [
        (FileKind::Key, &[1; 31][..]),
        (FileKind::Key, &[b'a'; 64]),
        (FileKind::SecretKey, &[]),
        (FileKind::SecretKey, &other[..40]),
        (FileKind::SecretKey, &other),
        (FileKind::SecretKey, &torn),
        (FileKind::Tree, b"\x05\x02\x57\x01 something else, at least 32 bytes"),
        (FileKind::Bitfield, b"garbage in front, of at least 32 bytes"),
        (
            FileKind::Bitfield,
            &[5, 2, 0x57, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
    ] {
        let mut disk = whole.clone();
        disk.replace(file(0, kind), bytes).unwrap();
        let before: Vec<_> = FileKind::ALL.map(|kind| disk.contents(file(0, kind))).into();
        match Feed::open(&mut disk, Slot(0)) {
            Err(StoreError::Damaged { slot: Slot(0), file, .. }) => assert_eq!(file, kind),
            other => panic!("{kind} {bytes:?}: {other:?}"),
        }
        let error = Feed::create(&mut disk, Slot(0), key_pair(1).public_key(), None, None).unwrap_err();
        assert!(matches!(error, StoreError::Occupied { slot: Slot(0) }), "{error:?}");
        let after: Vec<_> = FileKind::ALL.map(|kind| disk.contents(file(0, kind))).into();
        // What is no key can be made again of the secret key.
        let good = FileKind::ALL.map(|kind| whole.contents(file(0, kind))).to_vec();
        assert!(after == if kind == FileKind::Key { good } else { before });
    }
    assert!(matches!(
        Feed::open(&mut MemoryStorage::new(), Slot(0)),
        Err(StoreError::Damaged { file: FileKind::Key, .. })
    ));
}

#[test]
fn a_writer_whose_key_is_gone_has_it_back_from_its_secret_key() {
    let mut whole = MemoryStorage::new();
    create(&mut whole, 0, 29, Some("me")).append(&mut whole, &blocks(29, 0..10)).unwrap();
    let mut disk = whole.clone();
    disk.replace(file(0, FileKind::Key), &[]).unwrap();
    // It is said as it is put back.
    let error = Feed::open(&mut disk, Slot(0)).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { file: FileKind::Key, .. }), "{error}");
    let feed = Feed::open(&mut disk, Slot(0)).unwrap();
    assert_eq!((feed.key(), feed.len(), feed.local_name()), (key_pair(29).public_key(), 10, Some("me")));
    assert_eq!(disk.contents(file(0, FileKind::Key)), whole.contents(file(0, FileKind::Key)));
}

#[test]
fn a_remote_feed_has_no_local_name() {
    let mut disk = MemoryStorage::new();
    create_copy(&mut disk, 0, 28);
    disk.replace(file(0, FileKind::LocalName), b"stale").unwrap();
    assert_eq!(Feed::open(&mut disk, Slot(0)).unwrap().local_name(), None);
}
