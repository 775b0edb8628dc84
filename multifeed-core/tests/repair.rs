//! Repairing a feed whose files rotted: what the rest proves is made again, the rest is given up, and the next session with a peer that is whole
//! brings it. Then the feed is as it was.
//!
//! `MULTIFEED_REPAIRS=COUNT` runs more of the random ones, from seed `MULTIFEED_REPAIRS_FIRST` on.

use crate::common;

use crate::link;

use std::ops::Range;

use bytes::Bytes;
use common::file;
use link::{Store, closed, findings, store, sync};
use multifeed_core::feed::{Finding, Problem};
use multifeed_core::{
    FeedId, FileKind, KeyPair, MemoryStorage, Multifeed, Options, PeerEvent, Repair, RepairCursor, Storage, StoreError,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// In slices of so many bytes.
fn repair(store: &mut Store, id: FeedId, slice: usize) -> Repair {
    let (mut cursor, mut all) = (RepairCursor::default(), Repair::default());
    while !all.done {
        all.add(store.repair_step(id, &mut cursor, slice).unwrap());
    }
    all
}

/// A writer's store, and a copy of its feed. One of them rots.
struct Case {
    blocks: Vec<Bytes>,
    disks: [MemoryStorage; 2],
    /// Which.
    rots: usize,
    /// Blocks that the writer does not hold, and does not fetch.
    cleared: Vec<Range<u64>>,
}

impl Case {
    /// Each of these many blocks in an append of its own.
    fn new(appends: impl IntoIterator<Item = Vec<Bytes>>, rots: usize) -> Self {
        let mut stores = [store(), store()];
        let id = stores[0].writer(Some("w"), || KeyPair::from_seed(&[1; 32])).unwrap();
        let mut blocks = Vec::new();
        for append in appends {
            stores[0].append(id, &append).unwrap();
            blocks.extend(append);
        }
        sync(&mut stores, [0, 1]).totals(1);
        Self { blocks, disks: stores.map(|store| closed(&store)), rots, cleared: Vec::new() }
    }

    /// The writer clears blocks, after they were fetched.
    fn clear(&mut self, ranges: &[Range<u64>]) {
        let mut store = Multifeed::open(self.disks[0].clone(), Options::default()).unwrap();
        let id = store.feeds().next().unwrap();
        for range in ranges {
            store.clear(id, range.clone()).unwrap();
        }
        self.disks[0] = closed(&store);
        self.cleared = ranges.to_vec();
    }

    fn is_cleared(&self, index: u64) -> bool {
        self.cleared.iter().any(|range| range.contains(&index))
    }

    fn write(&mut self, kind: FileKind, at: u64, bytes: &[u8]) {
        self.disks[self.rots].write_at(file(0, kind), at, bytes).unwrap();
    }

    fn flip(&mut self, kind: FileKind, at: u64, bit: u8) {
        let mut byte = [0];
        self.disks[self.rots].read_at(file(0, kind), at, &mut byte).unwrap();
        self.write(kind, at, &[byte[0] ^ (1 << bit)]);
    }

    /// What lies at these places, or zeros.
    fn rot(&mut self, kind: FileKind, at: u64, bytes: &[u8]) {
        let len = self.disks[self.rots].len(file(0, kind)).unwrap().unwrap_or(0);
        let end = len.min(at + bytes.len() as u64);
        if at < end {
            self.write(kind, at, &bytes[..(end - at) as usize]);
        }
    }

    /// What is read is what was written, or fails.
    fn reads(&self, store: &mut Store, id: FeedId, case: &str) {
        for (index, block) in (0..).zip(&self.blocks) {
            if let Ok(Some(read)) = store.get(id, index) {
                assert_eq!(read, block, "{case}: block {index}");
            }
        }
    }

    /// Repairs it, has a session bring what was given up, and holds both against what was written. Returns what the repair did.
    fn heals(&self, slice: usize, case: &str) -> Repair {
        let mut stores = self.disks.clone().map(|disk| Multifeed::open(disk, Options::default()).unwrap());
        let rotten = &mut stores[self.rots];
        let Some(id) = rotten.feeds().next() else { panic!("{case}: {:?}", rotten.problems()) };
        self.reads(rotten, id, case);
        let is_less = rotten
            .problems()
            .iter()
            .any(|problem| matches!(problem, StoreError::OlderCopy { .. } | StoreError::OlderWriter { .. }));
        let held = rotten.info(id).unwrap().downloaded;
        let done = repair(rotten, id, slice);
        self.reads(rotten, id, case);
        let left = findings(rotten, id);
        let is_fetched = |found: &Finding| matches!(found.problem, Problem::BlockLost { .. });
        let is_newest = |found: &Finding| found.block() + 1 == self.blocks.len() as u64;
        assert!(is_less || left.iter().all(|found| is_fetched(found) || is_newest(found)), "{case}: {left:?}");
        // A second one finds nothing to do.
        assert_eq!(repair(rotten, id, usize::MAX), Repair { done: true, ..Repair::default() }, "{case}");
        let lost: u64 = done.dropped.iter().map(|range| range.end - range.start).sum();
        assert_eq!(rotten.info(id).unwrap().downloaded + lost, held, "{case}");
        let kept = (0..self.blocks.len() as u64).filter(|&index| !self.is_cleared(index)).count();
        let lost = kept as u64 - rotten.info(id).unwrap().downloaded;

        let link = sync(&mut stores, [0, 1]);
        for side in 0..2 {
            let is_told = |event: &&PeerEvent| matches!(event, PeerEvent::Damaged { .. });
            let told = link.events[side].iter().find(is_told);
            assert!(told.is_none(), "{case}: side {side}, {done:?}: {told:?}");
        }
        // Nothing was written but what was lacking.
        let data = |store: &Store| store.storage().contents(file(0, FileKind::Data)).unwrap_or_default();
        assert!(!self.cleared.is_empty() || data(&stores[0]) == data(&stores[1]), "{case}");
        let totals = link.totals(self.rots);
        // A writer that lacks blocks fetches all that it lacks.
        let most = lost + (self.blocks.len() - kept) as u64;
        assert!((lost..=most).contains(&totals.blocks_received) && totals.missing == 0, "{case}: {totals:?} of {lost}");
        for (side, store) in stores.iter().enumerate() {
            let mut store = Multifeed::open(closed(store), Options::default()).unwrap();
            assert!(store.problems().is_empty() && store.recovered().is_empty(), "{case}: {:?}", store.recovered());
            let id = store.feeds().next().unwrap();
            assert_eq!(findings(&mut store, id), [], "{case}");
            for (index, block) in (0..).zip(&self.blocks) {
                let read = store.get(id, index).unwrap();
                let may_lack = side == 0 && self.is_cleared(index);
                assert!(read.as_ref().map_or(may_lack, |read| read == block), "{case}: block {index}: {read:?}");
            }
        }
        done
    }
}

/// Some are empty, and what is in others is in many.
fn block(index: u64) -> Bytes {
    vec![(index % 3) as u8; (index * 7 % 23) as usize].into()
}

fn singly(count: u64) -> impl Iterator<Item = Vec<Bytes>> {
    (0..count).map(|index| vec![block(index)])
}

/// A bit of any leaf beside another one: `verify` names `tree` alone, and a repair makes the leaf again and says so.
#[test]
fn a_leaf_that_rotted_is_named_in_the_tree_and_made_again() {
    for (rots, count) in [(0, 21), (1, 21), (1, 32)] {
        // Opening mends the last one itself.
        for leaf in (0..2 * (count - count % 2) - 4).step_by(2) {
            for byte in [3, 39] {
                let case = format!("rots: {rots}, {count} blocks, leaf {leaf}, byte {byte}");
                let mut rotten = Case::new(singly(count), rots);
                rotten.flip(FileKind::Tree, 32 + 40 * leaf + byte, 3);
                let mut store = Multifeed::open(rotten.disks[rots].clone(), Options::default()).unwrap();
                let id = store.feeds().next().unwrap();
                let found: Vec<_> = findings(&mut store, id).iter().map(|found| found.problem).collect();
                assert!(found.contains(&Problem::LeafDamaged { block: leaf / 2 }), "{case}: {found:?}");
                let is_of_it =
                    |problem: &Problem| matches!(problem, Problem::LeafDamaged { .. } | Problem::BlockMisplaced { .. });
                assert!(found.iter().all(is_of_it), "{case}: {found:?}");
                let done = repair(&mut store, id, 1000);
                assert_eq!(done, Repair { nodes_made: 1, done: true, ..Repair::default() }, "{case}");
                assert_eq!(findings(&mut store, id), [], "{case}");
            }
        }
    }
}

/// `verify` names `data` alone if its bytes are what is wrong, and never if they are whole; `bitfield` only if that is wrong.
#[test]
fn the_file_that_is_wrong_is_named() {
    let named = |case: &Case| {
        let mut store = Multifeed::open(case.disks[case.rots].clone(), Options::default()).unwrap();
        let id = store.feeds().next().unwrap();
        findings(&mut store, id)
    };
    for rots in 0..2 {
        // A bit of any block; opening gives up the last one, which is a writer's, or comes again.
        let mut at = 0;
        for (index, block) in (0..21).map(|index| (index, block(index))).filter(|(_, block)| !block.is_empty()) {
            at = at.max((0..index).map(|before| self::block(before).len() as u64).sum());
            let mut rotten = Case::new(singly(21), rots);
            rotten.flip(FileKind::Data, at, 3);
            let found = named(&rotten);
            let is_data = |found: &Finding| found.files() == [FileKind::Data] && found.block() == index;
            assert!(found.iter().all(is_data), "rots: {rots}, block {index}, {block:?}: {found:?}");
            assert!(found.len() == 1 || (rots == 1 && index == 20), "rots: {rots}, block {index}: {found:?}");
        }
        // Opening makes those of the last four again.
        for node in 0..28 {
            let mut rotten = Case::new(singly(21), rots);
            rotten.rot(FileKind::Tree, 32 + 40 * node, &[0x5a; 90]);
            let found = named(&rotten);
            let may_be_tree = |found: &Finding| found.files().contains(&FileKind::Tree);
            let is_signature = |found: &Finding| found.files() == [FileKind::Signatures];
            assert!(found.iter().any(may_be_tree), "rots: {rots}, nodes from {node}: {found:?}");
            let all = found.iter().all(|found| may_be_tree(found) || is_signature(found));
            assert!(all, "rots: {rots}, nodes from {node}: {found:?}");
        }
    }
}

/// A bit of any node that is none of a leaf, and of any signature but the newest: all is made again, or not needed; no block comes again.
#[test]
fn what_the_rest_proves_is_made_again() {
    for (rots, count) in [(0, 21), (1, 21), (0, 32), (1, 32), (1, 47)] {
        for node in (0..2 * count - 1).filter(|node| node % 2 == 1) {
            for byte in [3, 38] {
                let case = format!("rots: {rots}, {count} blocks, node {node}, byte {byte}");
                let mut rotten = Case::new(singly(count), rots);
                rotten.flip(FileKind::Tree, 32 + 40 * node + byte, 5);
                let done = rotten.heals(1000, &case);
                assert!(done.dropped.is_empty() && done.nodes_dropped == 0, "{case}: {done:?}");
            }
        }
        for length in 1..count {
            let case = format!("rots: {rots}, {count} blocks, signature of length {length}");
            let mut rotten = Case::new(singly(count), rots);
            rotten.flip(FileKind::Signatures, 32 + 64 * (length - 1) + 40, 2);
            let done = rotten.heals(1000, &case);
            let made = u64::from(rots == 0);
            let expected =
                Repair { signatures_made: made, signatures_dropped: 1 - made, done: true, ..Repair::default() };
            assert_eq!(done, expected, "{case}");
            // What is made again is what was there.
            let mut store = Multifeed::open(rotten.disks[rots].clone(), Options::default()).unwrap();
            let id = store.feeds().next().unwrap();
            repair(&mut store, id, usize::MAX);
            let whole = rotten.disks[0].contents(file(0, FileKind::Signatures)).unwrap();
            let mut whole =
                Case::new(singly(count), rots).disks[rots].contents(file(0, FileKind::Signatures)).unwrap_or(whole);
            if rots == 1 {
                whole[32 + 64 * (length as usize - 1)..][..64].fill(0);
            }
            assert_eq!(store.storage().contents(file(0, FileKind::Signatures)).unwrap(), whole, "{case}");
        }
    }
}

/// A sector or a page that is zeros, or anything, of any file but the newest signature.
#[test]
fn a_sector_that_is_lost_comes_again() {
    let count = std::env::var("MULTIFEED_REPAIRS").map_or(100, |count| count.parse().unwrap());
    let mut gave_up = 0;
    let first = std::env::var("MULTIFEED_REPAIRS_FIRST").map_or(0, |first| first.parse().unwrap());
    for seed in first..first + count {
        let mut rng = StdRng::seed_from_u64(seed);
        let blocks = rng.random_range(1..400);
        let mut appends: Vec<Vec<Bytes>> = Vec::new();
        let mut next = 0;
        let batched = rng.random_range(0..3) == 0;
        let rots = rng.random_range(0..2);
        let alike = rng.random_range(0..3);
        while next < blocks {
            let batch = if batched { rng.random_range(1..40) } else { 1 };
            // All bytes are alike in some, and many blocks in others: then what is in the wrong place may look right.
            let block = |index| match alike {
                0 => Bytes::from(vec![b'a'; block(index).len()]),
                1 => Bytes::from(b"ping ok\n".repeat([1, 2, 8, 1, 1][(index * index % 11 % 5) as usize])),
                _ => block(index),
            };
            appends.push((next..next + batch).map(block).collect());
            next += batch;
        }
        let clears = (0..rng.random_range(0..3)).map(|_| {
            let start = rng.random_range(0..blocks);
            // A writer whose last block is cleared fetches it.
            start..(start + rng.random_range(1..60)).min(blocks - 1).max(start)
        });
        let clears: Vec<_> = clears.filter(|_| rots == 0).collect();
        let mut rotten = Case::new(appends, rots);
        rotten.clear(&clears);
        let kind = [FileKind::Tree, FileKind::Tree, FileKind::Data, FileKind::Signatures][rng.random_range(0..4)];
        let header = if kind == FileKind::Data { 0 } else { 32 };
        let mut len = rotten.disks[rots].len(file(0, kind)).unwrap().unwrap();
        if kind == FileKind::Signatures {
            len -= 64;
        }
        let size = [1u64, 40, 512, 4096][rng.random_range(0..4)];
        let places = len.saturating_sub(header).div_ceil(size).max(1);
        let at = (rng.random_range(0..places) * size).max(header);
        let end = len.min(at + size);
        if at >= end {
            continue;
        }
        let (bytes, what): (Vec<u8>, _) = match rng.random_range(0..3) {
            0 => (vec![0; (end - at) as usize], "zeros"),
            1 => ((at..end).map(|_| rng.random()).collect(), "anything"),
            // Written to the wrong place.
            _ => {
                let from = (rng.random_range(0..places) * size).max(header);
                let mut other = vec![0; (end - at) as usize];
                rotten.disks[rots].read_at(file(0, kind), from, &mut other).unwrap();
                (other, "another part")
            }
        };
        rotten.rot(kind, at, &bytes);
        let case = format!("seed {seed}, {blocks} blocks, rots: {rots}, {what} at {at}..{end} of {kind}");
        gave_up += u64::from(!rotten.heals(rng.random_range(1..100_000), &case).dropped.is_empty());
    }
    assert!(gave_up * 10 > count, "{gave_up}");
}

/// A sector of `tree` that has a place for nodes past the end, written to the wrong place: what nothing proves there, as nodes above it are lost, fits the
/// blocks that it leads to, if bytes repeat.
#[test]
fn a_sector_in_the_wrong_place_vouches_for_nothing_beside_what_it_lacks() {
    for (blocks, rots) in [384, 399, 412].into_iter().flat_map(|blocks| [(blocks, 0), (blocks, 1)]) {
        let mut rotten = Case::new(singly(blocks), rots);
        let mut sector = [0; 4096];
        rotten.disks[rots].read_at(file(0, FileKind::Tree), 28672, &mut sector).unwrap();
        rotten.rot(FileKind::Tree, 8192, &sector);
        rotten.heals(10_000, &format!("rots: {rots}, {blocks} blocks"));
    }
}

/// Of a writer there may be no other copy: what stands beside a sector that is lost, and fits its blocks, is kept.
#[test]
fn a_writer_alone_loses_no_more_than_the_sector_told_of() {
    for (size, at) in [512, 4096].into_iter().flat_map(|size| [512, 4096, 8192, 12288].map(|at| (size, at))) {
        let mut rotten = Case::new((0..400).map(|index| vec![Bytes::from(format!("line {index}"))]), 0);
        rotten.rot(FileKind::Tree, at, &vec![0; size as usize]);
        let mut store = Multifeed::open(rotten.disks[0].clone(), Options::default()).unwrap();
        let id = store.feeds().next().unwrap();
        repair(&mut store, id, 1000);
        // A leaf each 80 bytes, and one beside each end.
        let told_of = size / 80 + 4;
        let held = store.info(id).unwrap().downloaded;
        assert!(held >= 400 - told_of, "{size} bytes at {at}: {held}");
        let kept: Vec<_> = (0..400).filter(|&index| store.has(id, index)).collect();
        for index in kept {
            assert_eq!(store.get(id, index).unwrap().unwrap(), format!("line {index}"), "{size} bytes at {at}");
        }
    }
}

/// Parts of `tree` that are zeros, anything, or stand in the wrong place, and whether there was one in each.
fn parts_of_the_tree(case: &mut Case, size: u64, step: u64) -> Vec<(u64, Vec<u8>)> {
    let tree = case.disks[case.rots].contents(file(0, FileKind::Tree)).unwrap();
    let mut rng = StdRng::seed_from_u64(size);
    let places = (0..tree.len() as u64 - size).step_by(step as usize).map(|at| at.max(32));
    places
        .flat_map(|at| {
            let anything = (0..size).map(|_| rng.random()).collect();
            // Nodes that stand where others did, all of them whole but the first and the last.
            let from = 32 + (at as usize + 2560) % (tree.len() - 32 - size as usize);
            [vec![0; size as usize], anything, tree[from..][..size as usize].to_vec()].map(|bytes| (at, bytes))
        })
        .collect()
}

/// What a repair without a peer gives up for each of these parts of `tree`; all else is read.
fn given_up_alone(case: &Case, at: u64, bytes: &[u8]) -> u64 {
    let what = format!("rots: {}, {} bytes at {at}", case.rots, bytes.len());
    let mut rotten =
        Case { blocks: case.blocks.clone(), disks: case.disks.clone(), rots: case.rots, cleared: case.cleared.clone() };
    rotten.rot(FileKind::Tree, at, bytes);
    let mut store = Multifeed::open(rotten.disks[rotten.rots].clone(), Options::default()).unwrap();
    let id = store.feeds().next().unwrap();
    let done = repair(&mut store, id, 10_000);
    let kept = (0..).zip(&case.blocks).filter(|(index, block)| match store.get(id, *index).unwrap() {
        Some(read) => {
            assert_eq!(read, block, "{what}: block {index}");
            true
        }
        None => false,
    });
    let lost = case.blocks.len() as u64 - kept.count() as u64;
    if lost == 0 {
        assert!(done.dropped.is_empty() && done.nodes_dropped == 0, "{what}: {done:?}");
        assert_eq!(findings(&mut store, id), [], "{what}");
        let tree = |disk: &MemoryStorage| disk.contents(file(0, FileKind::Tree)).unwrap();
        assert_eq!(tree(store.storage()), tree(&case.disks[case.rots]), "{what}");
    }
    lost
}

/// Some 90 bytes each, which are all alike in some: then what is in the wrong place may look right.
fn lines(count: u64, batch: u64, alike: bool) -> Vec<Vec<Bytes>> {
    let line = |index: u64| match alike {
        true => Bytes::from(vec![b'a'; (index * 37 % 90) as usize]),
        false => Bytes::from(format!("{index} {}", "x".repeat((index * 37 % 90) as usize))),
    };
    (0..count / batch).map(|append| (append * batch..(append + 1) * batch).map(line).collect()).collect()
}

/// The two or three nodes that 40 bytes are of, or one more: the sizes of the nodes around them tell where the blocks are, and the blocks what the nodes were.
#[test]
fn forty_bytes_of_the_tree_cost_no_block() {
    for (rots, batch, alike) in [(0, 1, false), (0, 109, true), (1, 109, false), (0, 10, true)] {
        let mut case = Case::new(lines(109, batch, alike), rots);
        for (size, step) in [(40, 120), (40, 200), (72, 520)] {
            for (at, bytes) in parts_of_the_tree(&mut case, size, step) {
                assert_eq!(given_up_alone(&case, at, &bytes), 0, "rots: {rots}, {size} bytes at {at}");
            }
        }
    }
}

/// A sector has the leaves of six or seven blocks in a row, of which only the sum of the lengths is known. Their signatures tell the length of each.
#[test]
fn a_sector_of_the_tree_costs_no_block_whose_length_was_signed() {
    for alike in [false, true] {
        let mut case = Case::new(lines(400, 1, alike), 0);
        let end = 768 * 40;
        for (at, bytes) in parts_of_the_tree(&mut case, 512, 2560).into_iter().filter(|(at, _)| *at < end) {
            assert_eq!(given_up_alone(&case, at, &bytes), 0, "{alike}: at {at}");
        }
    }
}

/// A writer that cleared most of the blocks beside its last one, and lost nodes above them: that the last one is provable again after a session hangs on nodes of
/// which nothing is held below.
#[test]
fn what_proves_a_block_beside_cleared_ones_is_kept_of_a_writer() {
    for (blocks, at) in [(32, 1536), (32, 512), (64, 3072), (47, 1536)] {
        let mut rotten = Case::new(singly(blocks), 0);
        rotten.clear(std::slice::from_ref(&(blocks / 2 + blocks / 8..blocks - 1)));
        rotten.rot(FileKind::Tree, at, &[0; 512]);
        rotten.heals(1000, &format!("{blocks} blocks, zeros at {at}"));
    }
}

/// A copy that lacks some blocks, and whose tree rotted: a session writes what it brings over no block that is held, and past no end.
#[test]
fn a_sync_without_a_repair_writes_over_no_block() {
    let (mut came, count) = (0, 400);
    for seed in 0..count {
        let mut rng = StdRng::seed_from_u64(seed);
        let blocks = rng.random_range(8..200);
        let mut rotten = Case::new(singly(blocks), 1);
        let mut copy = Multifeed::open(rotten.disks[1].clone(), Options::default()).unwrap();
        let id = copy.feeds().next().unwrap();
        let lacks: Vec<u64> = (0..blocks).filter(|_| rng.random_range(0..4) == 0).collect();
        lacks.iter().for_each(|&index| _ = copy.clear(id, index..index + 1).unwrap());
        rotten.disks[1] = closed(&copy);
        // The size of a node is what tells where blocks begin.
        let node = rng.random_range(0..2 * blocks - 1);
        rotten.flip(FileKind::Tree, 32 + 40 * node + 39, rng.random_range(0..5));
        let case = format!("seed {seed}, {blocks} blocks, node {node}");
        let mut stores = rotten.disks.clone().map(|disk| Multifeed::open(disk, Options::default()).unwrap());
        came += sync(&mut stores, [0, 1]).totals(1).blocks_received;
        let data = stores[1].storage().contents(file(0, FileKind::Data)).unwrap_or_default();
        let whole = rotten.disks[0].contents(file(0, FileKind::Data)).unwrap();
        assert!(data.len() <= whole.len(), "{case}: {} bytes", data.len());
        let mut start = 0;
        for (index, block) in (0..).zip(&rotten.blocks) {
            let end = start + block.len();
            let held = !lacks.contains(&index) && end <= data.len();
            assert!(!held || data[start..end] == block[..], "{case}: block {index}");
            start = end;
        }
    }
    assert!(came > 10 * count, "{came}");
}

/// The tree rotted, also to what fits the blocks that it leads to: clearing blocks gives back no byte of another one.
#[test]
fn clearing_blocks_takes_no_byte_of_another() {
    let (mut given_back, mut read) = (0, 0);
    for seed in 0..400 {
        let mut rng = StdRng::seed_from_u64(seed);
        let blocks = rng.random_range(8..200);
        let rots = rng.random_range(0..2);
        let mut rotten = Case::new((0..blocks).map(|index| vec![Bytes::from(vec![b'a'; block(index).len()])]), rots);
        let mut before = rotten.disks[rots].contents(file(0, FileKind::Data)).unwrap();
        let (node, from) = (rng.random_range(0..2 * blocks - 1), rng.random_range(0..2 * blocks - 1));
        if rng.random_range(0..2) == 0 {
            rotten.flip(FileKind::Tree, 32 + 40 * node + 39, rng.random_range(0..5));
        } else {
            let mut other = [0; 400];
            rotten.disks[rots].read_at(file(0, FileKind::Tree), 32 + 40 * from, &mut other).unwrap();
            rotten.rot(FileKind::Tree, 32 + 40 * node, &other);
        }
        let mut store = Multifeed::open(rotten.disks[rots].clone(), Options::default()).unwrap();
        let id = store.feeds().next().unwrap();
        let start = rng.random_range(0..blocks);
        let cleared = start..(start + rng.random_range(1..20)).min(blocks);
        let held: Vec<_> = (0..blocks).filter(|&index| store.has(id, index) && !cleared.contains(&index)).collect();
        store.clear(id, cleared.clone()).unwrap();
        let mut after = store.storage().contents(file(0, FileKind::Data)).unwrap_or_default();
        given_back += u64::from(after != before);
        let size = before.len().max(after.len());
        before.resize(size, 0);
        after.resize(size, 0);
        let mut at = 0;
        for (index, block) in (0..).zip(&rotten.blocks) {
            let place = at..at + block.len();
            let same = !held.contains(&index) || after[place.clone()] == before[place];
            assert!(
                same,
                "seed {seed}, {blocks} blocks, rots: {rots}, node {node} of {from}, {cleared:?}: block {index}"
            );
            at += block.len();
            read += 1;
        }
    }
    assert!(given_back > 50 && read > 10_000, "{given_back}, {read}");
}

/// A bit of a file's header, which is the same in all feeds, and a sector of marks past the end of a writer: the files tell what they are.
#[test]
fn a_header_and_marks_of_nothing_are_set_right() {
    for (rots, kind, bit) in (0..2).flat_map(|rots| {
        let kinds = [FileKind::Tree, FileKind::Signatures, FileKind::Bitfield];
        kinds.into_iter().flat_map(move |kind| (0..64).step_by(5).chain([100, 255]).map(move |bit| (rots, kind, bit)))
    }) {
        let mut rotten = Case::new(singly(9), rots);
        rotten.flip(kind, bit / 8, (bit % 8) as u8);
        // The size of a bitfield's pages.
        if kind == FileKind::Bitfield && (40..56).contains(&bit) {
            continue;
        }
        let done = rotten.heals(usize::MAX, &format!("rots: {rots}, bit {bit} of {kind}"));
        assert_eq!(done, Repair { done: true, ..Repair::default() });
    }
    for rots in 0..2 {
        let rotten = Case::new(singly(9), rots);
        let bitfield = rotten.disks[rots].contents(file(0, FileKind::Bitfield)).unwrap();
        let garbage: Vec<u8> = (0..512).map(|at| (at * 37 % 251) as u8).collect();
        for at in [512, 1024, 1536, bitfield.len() as u64 - 512, bitfield.len() as u64] {
            for (bytes, what) in [(&garbage[..], "garbage"), (&[255; 512], "ones")] {
                let mut more =
                    Case { disks: rotten.disks.clone(), blocks: rotten.blocks.clone(), rots, cleared: Vec::new() };
                more.write(FileKind::Bitfield, at, bytes);
                more.heals(usize::MAX, &format!("rots: {rots}, {what} at {at} of the bitfield"));
            }
        }
    }
}
