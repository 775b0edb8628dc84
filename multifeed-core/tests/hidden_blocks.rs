//! Marks of a writer's own blocks that are gone from its `bitfield`, by a bad sector or a bit that flipped: the blocks are there and are held again.
//! What was cleared stays cleared, and what is lost is named until it is back.

use crate::common;
use crate::link;

use std::ops::Range;
use std::time::Duration;

use common::{block, blocks, file, key_pair};
use link::{Link, run};
use multifeed_core::feed::Problem;
use multifeed_core::{
    Durability, Feed, FeedId, FileKind, MemoryStorage, Multifeed, Options, PeerEvent, Replicate, Slot, Storage,
    VerifyCursor,
};

const N: u8 = 23;
const PAGE: u64 = 3584;

type Store = Multifeed<MemoryStorage>;

/// How the store is found: closed, without a journal, or as a crash leaves it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Left {
    Closed,
    Unknown,
    Crashed,
}

fn open(mut disk: MemoryStorage) -> Store {
    disk.reopen();
    let options = Options { durability: Durability::Always, ..Options::default() };
    let store = Multifeed::open(disk, options).unwrap();
    assert!(store.problems().is_empty(), "{:?}", store.problems());
    store
}

/// What a writer's store of so many blocks leaves, of which some were cleared.
fn store(len: u64, cleared: Range<u64>, left: Left) -> MemoryStorage {
    let mut store = open(MemoryStorage::new());
    let id = store.writer(Some("w"), || key_pair(N)).unwrap();
    store.append(id, &blocks(N, 0..len)).unwrap();
    store.sync().unwrap();
    store.clear(id, cleared).unwrap();
    if left == Left::Crashed {
        return store.storage().clone();
    }
    close(store, left)
}

fn close(mut store: Store, left: Left) -> MemoryStorage {
    store.sync().unwrap();
    let mut disk = store.storage().clone();
    disk.reopen();
    Multifeed::open(&mut disk, Options::default()).unwrap().close().unwrap();
    disk.reopen();
    if left == Left::Unknown {
        disk.lose(file(0, FileKind::Journal));
    }
    disk
}

fn ours(store: &Store) -> FeedId {
    store.find(&key_pair(N).public_key()).unwrap()
}

fn held(store: &Store) -> Vec<u64> {
    let id = ours(store);
    (0..store.info(id).unwrap().len).filter(|block| store.has(id, *block)).collect()
}

fn problems(store: &mut Store) -> Vec<Problem> {
    let (id, mut cursor, mut problems) = (ours(store), VerifyCursor::default(), Vec::new());
    loop {
        let step = store.verify_step(id, &mut cursor, 1 << 20).unwrap();
        problems.extend(step.findings.into_iter().map(|found| found.problem));
        if step.done {
            return problems;
        }
    }
}

fn change(disk: &mut MemoryStorage, kind: FileKind, at: u64, change: impl Fn(&mut [u8]), size: usize) {
    let mut bytes = vec![0; size];
    let count = disk.read_at(file(0, kind), at, &mut bytes).unwrap();
    change(&mut bytes[..count]);
    disk.write_at(file(0, kind), at, &bytes[..count]).unwrap();
}

#[test]
fn a_mark_that_flipped_or_a_sector_of_them_hides_no_block() {
    for len in [1, 5, 12, 61, 9000] {
        for left in [Left::Closed, Left::Unknown, Left::Crashed] {
            let cleared = if len > 5 && left != Left::Unknown { 2..4 } else { 0..0 };
            let whole = store(len, cleared.clone(), left);
            let expected: Vec<_> = (0..len).filter(|block| !cleared.contains(block)).collect();
            let marks = [0, 1, len / 2, len - 1].map(|block| (32 + block / 8, 1, 128u8 >> (block % 8)));
            let nodes = [0, 1, 2, len - 1].map(|node| (32 + 1024 + node / 8, 1, 128u8 >> (node % 8)));
            let sectors = [0, 32, 512, 1056, 1536].map(|at: u64| (at.max(32), 512, 0xff));
            for (at, size, bits) in marks.into_iter().chain(nodes).chain(sectors) {
                let case = format!("{len} blocks, {left:?}, {size} from {at}, {bits:x}");
                let mut disk = whole.clone();
                change(
                    &mut disk,
                    FileKind::Bitfield,
                    at,
                    |bytes| bytes.iter_mut().for_each(|byte| *byte &= !bits),
                    size,
                );
                let mut store = open(disk);
                // Without a journal a bit that is not set, among others that are not, is one of a block that was cleared.
                let full = size > 1 || left != Left::Unknown || at >= 32 + 1024;
                if full {
                    assert_eq!(held(&store), expected, "{case}: {:?}", store.recovered());
                    assert!(
                        store.recovered().iter().all(|told| told.lost.is_empty()),
                        "{case}: {:?}",
                        store.recovered()
                    );
                }
                assert_eq!(problems(&mut store), [], "{case}");
                // It is written that way, and nobody has to look again.
                let store = open(close(store, Left::Closed));
                assert!(store.recovered().is_empty() && (!full || held(&store) == expected), "{case}");
            }
        }
    }
}

#[test]
fn a_page_of_marks_that_is_gone_hides_no_block() {
    for left in [Left::Closed, Left::Unknown, Left::Crashed] {
        let whole = store(20_000, 9000..9100, left);
        // Without the first or the last page and a journal nobody knows how long the feed was: it is refused.
        for page in if left == Left::Unknown { 1..2 } else { 0..3 } {
            let mut disk = whole.clone();
            change(&mut disk, FileKind::Bitfield, 32 + page * PAGE, |bytes| bytes.fill(0), PAGE as usize);
            let mut store = open(disk);
            // Of the page that tells what was cleared nothing is left without a journal: what is there is held.
            let known = left != Left::Unknown || page != 1;
            let expected: Vec<_> = (0..20_000).filter(|block| !(known && (9000..9100).contains(block))).collect();
            let is_loss = store.recovered().iter().any(|told| told.is_loss());
            match known {
                true => assert!(held(&store) == expected && !is_loss, "{left:?}, {page}: {:?}", store.recovered()),
                // Their bytes were given back; an empty block has none.
                false => assert!(is_loss && (19_900..19_910).contains(&held(&store).len()), "{:?}", store.recovered()),
            }
            let lost = if known { 0 } else { 20_000 - held(&store).len() };
            assert_eq!(problems(&mut store).len(), lost, "{left:?}, {page}");
        }
    }
}

#[test]
fn what_another_program_cleared_stays_cleared() {
    for range in [3..9, 0..20, 16..20] {
        let mut disk = store(20, 0..0, Left::Closed);
        // As JS does: the marks and what the disk gives back, and no journal.
        let mut feed = Feed::open(&mut disk, Slot(0)).unwrap();
        feed.clear(&mut disk, range.clone()).unwrap();
        feed.flush(&mut disk).unwrap();
        let mut store = open(disk);
        let expected: Vec<_> = (0..20).filter(|block| !range.contains(block)).collect();
        assert!(held(&store) == expected && store.recovered().is_empty(), "{range:?}: {:?}", store.recovered());
        assert_eq!(problems(&mut store), []);
        let store = open(close(store, Left::Closed));
        assert!(held(&store) == expected && store.recovered().is_empty(), "{range:?}");
    }
}

#[test]
fn a_block_that_is_lost_is_named_until_it_is_back() {
    let whole = store(12, 2..4, Left::Closed);
    let mut disk = whole.clone();
    let at: u64 = (0..5).map(|index| block(N, index).len() as u64).sum();
    change(&mut disk, FileKind::Data, at, |bytes| bytes[0] ^= 1, 1);
    let mut store = open(disk);
    let id = ours(&store);
    assert_eq!(problems(&mut store), [Problem::BlockDamaged { block: 5 }]);
    let dropped = store.audit_step(id, 0, usize::MAX).unwrap().dropped;
    assert_eq!(dropped.into_iter().flatten().collect::<Vec<_>>(), [5]);
    // It was given up, and not cleared.
    let lost = [Problem::BlockLost { block: 5, file: FileKind::Data }];
    for _ in 0..3 {
        assert_eq!(problems(&mut store), lost);
        store = open(close(store, Left::Closed));
    }
    store = open(store.storage().clone());
    assert_eq!(problems(&mut store), lost);
    // What the mark of a cleared block stood for is not asked for; a peer brings the other.
    let mut other = Multifeed::open(MemoryStorage::new(), Options::default()).unwrap();
    let copy = other.add(key_pair(N).public_key()).unwrap();
    let source = open(self::store(12, 0..0, Left::Closed));
    let mut stores = vec![source, other];
    let mut links = [Link::plain(&mut stores, [0, 1], Replicate::default())];
    run(&mut stores, &mut links, Duration::ZERO);
    assert_eq!(stores[1].info(copy).unwrap().downloaded, 12);
    stores[0] = store;
    let mut links = [Link::plain(&mut stores, [0, 1], Replicate::default())];
    run(&mut stores, &mut links, Duration::ZERO);
    let mut store = stores.swap_remove(0);
    assert_eq!(problems(&mut store), []);
    assert!(store.has(ours(&store), 5));
    let mut store = open(close(store, Left::Closed));
    assert!(store.recovered().is_empty() && problems(&mut store).is_empty());
}

#[test]
fn blocks_that_a_writer_cleared_are_told_alike_on_both_sides() {
    for live in [false, true] {
        let source = open(self::store(12, 2..4, Left::Closed));
        let mut stores = vec![source, Multifeed::open(MemoryStorage::new(), Options::default()).unwrap()];
        let options = if live { Replicate::live() } else { Replicate::default() };
        let mut links = [Link::plain(&mut stores, [0, 1], options)];
        let ids = links[0].ends.each_ref().map(|(_, connection)| connection.peer());
        for side in 0..2 {
            stores[side].observe(ids[side]);
        }
        run(&mut stores, &mut links, Duration::ZERO);
        for (side, events) in links[0].events.iter().enumerate() {
            let told = events.iter().rev().find_map(|event| match event {
                PeerEvent::Progress(state) => Some((state.in_sync, state.missing_here, state.missing_there)),
                _ => None,
            });
            assert_eq!(told, Some((true, 0, 0)), "side {side}, live: {live}");
        }
    }
}
