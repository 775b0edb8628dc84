//! Nodes of `tree` that were lost (zeros) after the store was closed. Opening reads few of them, so that it costs the same for any length, and
//! tells nothing then. Whoever reads a block whose place or hash such a node tells has it made again of what is held around it, and so for a leaf
//! that rotted. If that is damaged too, the block cannot be read until an audit gives it up and a remote brings it again.

use crate::common;

use crate::link;

use std::time::Duration;

use bytes::Bytes;
use common::file;
use link::{Link, Store, closed, findings, store, sync};
use multifeed_core::feed::Finding;
use multifeed_core::{
    FileKind, KeyPair, MemoryStorage, Multifeed, Options, PeerEvent, RepairedInMemory, Replicate, Storage, StoreError,
};

const BLOCKS: u64 = 20;

fn block(index: u64) -> Bytes {
    vec![index as u8; 10].into()
}

fn open(disk: MemoryStorage) -> Store {
    let store = Multifeed::open(disk, Options::default()).unwrap();
    assert!(store.recovered().is_empty() && store.problems().is_empty(), "{:?}", store.recovered());
    store
}

fn damage_of(error: &StoreError, node: u64) -> bool {
    matches!(error, StoreError::Damaged { file: FileKind::Tree, why, .. } if why.contains(&format!("node {node} ")))
}

/// A writer's store and a copy, one of which lost a node of its tree, and an empty one.
fn with_lost(own: bool, node: u64, rotten: Option<u64>) -> ([Store; 3], usize) {
    let damaged = usize::from(!own);
    let mut stores = [store(), store(), store()];
    let id = stores[0].writer(Some("w"), || KeyPair::from_seed(&[1; 32])).unwrap();
    stores[0].append(id, &(0..BLOCKS).map(block).collect::<Vec<_>>()).unwrap();
    sync(&mut stores, [0, 1]).totals(1);
    let mut disk = closed(&stores[damaged]);
    disk.write_at(file(0, FileKind::Tree), 32 + 40 * node, &[0; 40]).unwrap();
    if let Some(block) = rotten {
        disk.write_at(file(0, FileKind::Data), 10 * block, b"rot").unwrap();
    }
    stores[damaged] = open(disk);
    (stores, damaged)
}

/// What is whole when it is opened again.
fn assert_whole(store: &Store, case: &str) {
    let mut store = open(closed(store));
    let id = store.feeds().next().unwrap();
    assert_eq!((store.info(id).unwrap().downloaded, findings(&mut store, id)), (BLOCKS, vec![]), "{case}");
    assert!((0..BLOCKS).all(|index| store.get(id, index).unwrap() == Some(block(index))), "{case}");
}

#[test]
fn a_lost_node_is_made_again_by_whoever_reads_it() {
    // Leaves that tell the place of the next block, and that do not; a root of all lengths past 4, and one of the whole.
    for (own, node) in [true, false].into_iter().flat_map(|own| [8, 10, 3, 9].map(|node| (own, node))) {
        let case = format!("own: {own}, node {node}");
        let (mut stores, damaged) = with_lost(own, node, None);
        let id = stores[damaged].feeds().next().unwrap();
        assert_ne!(findings(&mut stores[damaged], id), [], "{case}");
        sync(&mut stores, [damaged, 2]).totals(0);
        assert_whole(&stores[2], &case);
        assert!((0..BLOCKS).all(|index| stores[damaged].get(id, index).unwrap() == Some(block(index))), "{case}");

        // What was made again is written with whatever is written next, when the store is closed at the latest.
        let mut disk = stores[damaged].storage().clone();
        disk.reopen();
        let mut store = Multifeed::open(&mut disk, Options::default()).unwrap();
        let id = store.feeds().next().unwrap();
        // If one is read after the other, no inner node is asked for its place.
        (0..BLOCKS).rev().for_each(|index| assert_eq!(store.get(id, index).unwrap(), Some(block(index)), "{case}"));
        store.close().unwrap();
        let tree = file(0, FileKind::Tree);
        assert!(disk.contents(tree) == stores[1 - damaged].storage().contents(tree), "{case}");
        disk.reopen();
        assert_whole(&open(disk), &case);
    }
}

#[test]
fn a_lost_leaf_of_a_rotten_block_is_named_and_the_block_comes_again() {
    for (own, leaf, unreadable) in [(true, 4, 4..5), (false, 4, 4..5), (true, 5, 5..6), (false, 5, 5..6)] {
        let case = format!("own: {own}, leaf of block {leaf}");
        let (mut stores, damaged) = with_lost(own, 2 * leaf, Some(leaf));
        let store = &mut stores[damaged];
        let id = store.feeds().next().unwrap();
        for index in 0..BLOCKS {
            match store.get(id, index) {
                Ok(read) => assert!(!unreadable.contains(&index) && read == Some(block(index)), "{case}: {index}"),
                Err(error) => assert!(unreadable.contains(&index) && damage_of(&error, 2 * leaf), "{case}: {error}"),
            }
        }
        let found: Vec<u64> = findings(store, id).iter().map(Finding::block).collect();
        assert!(unreadable.clone().all(|index| found.contains(&index)), "{case}: {found:?}");

        // Nothing wrong is served: the feed's channel closes, and the session says why.
        let link = sync(&mut stores, [damaged, 2]);
        let told = |event: &PeerEvent| matches!(event, PeerEvent::Damaged { error, .. } if damage_of(error, 2 * leaf));
        assert!(link.events[0].iter().any(told), "{case}");
        let copy = stores[2].feeds().next().unwrap();
        assert!(unreadable.clone().all(|index| !stores[2].has(copy, index)), "{case}");
        assert_eq!(findings(&mut stores[2], copy), [], "{case}");

        let audit = stores[damaged].audit_step(id, 0, usize::MAX).unwrap();
        assert_eq!((audit.dropped, audit.next), (vec![unreadable], None), "{case}");
        // Of what is written here nothing is fetched unless that is asked for.
        stores[damaged].set_transfer(id, Some(true), None).unwrap();
        let link = sync(&mut stores, [damaged, 1 - damaged]);
        assert_eq!((link.totals(0).blocks_received, link.totals(0).missing), (audit.invalid, 0), "{case}");
        sync(&mut stores, [damaged, 2]).totals(0);
        for at in [damaged, 2] {
            assert_whole(&stores[at], &format!("{case}: {at}"));
        }
    }
}

/// If only the leaf rotted, its hash or its size, the block is given up by no audit: the leaf is made again of it, also on the disk.
#[test]
fn an_audit_makes_a_rotten_leaf_again_of_its_block() {
    for (own, leaf, place) in
        [(true, 4, 3), (false, 4, 3), (true, 5, 38), (false, 5, 38), (true, 4, 38), (false, 11, 39)]
    {
        let case = format!("own: {own}, leaf of block {leaf}, byte {place}");
        let damaged = usize::from(!own);
        let mut stores = [store(), store()];
        let id = stores[0].writer(Some("w"), || KeyPair::from_seed(&[1; 32])).unwrap();
        stores[0].append(id, &(0..BLOCKS).map(block).collect::<Vec<_>>()).unwrap();
        sync(&mut stores, [0, 1]).totals(1);
        let mut disk = closed(&stores[damaged]);
        disk.write_at(file(0, FileKind::Tree), 32 + 40 * 2 * leaf + place, &[0xee]).unwrap();
        let mut rotten = open(disk);
        let id = rotten.feeds().next().unwrap();
        assert_ne!(findings(&mut rotten, id), [], "{case}");
        let audit = rotten.audit_step(id, 0, usize::MAX).unwrap();
        assert_eq!((audit.valid, audit.invalid, audit.next), (BLOCKS, 0, None), "{case}");
        assert_whole(&rotten, &case);
    }
}

/// What rots in a store that is open, or where opening does not look. Of the blocks that it is in nothing false is served, the others go on, and so
/// does every other feed. It is reported once for a session.
#[test]
fn a_store_that_is_only_read_closes_well_whatever_rotted_in_it() {
    for own in [true, false] {
        let (stores, damaged) = with_lost(own, 2 * BLOCKS - 1, None);
        let mut disk = closed(&stores[damaged]);
        disk.write_at(file(0, FileKind::Data), 45, b"rot").unwrap();
        let mut reading = Multifeed::open(RepairedInMemory::new(disk), Options::default()).unwrap();
        let mut other = store();
        let mut link = Link::between(&mut reading, &mut other, [Replicate::default(), Replicate::default()]);
        link.run_between(&mut reading, &mut other, Duration::ZERO);
        let damage = |event: &PeerEvent| matches!(event, PeerEvent::Damaged { .. });
        assert!(link.events[0].iter().any(damage), "own: {own}: {:?}", link.events[0]);
        link.close(&mut reading, &mut other);
        reading.close().map(drop).unwrap_or_else(|error| panic!("own: {own}: {error}"));
    }
}

#[test]
fn what_rotted_is_not_served_and_the_rest_is() {
    // In the middle of a block, and of nodes above the leaves: hash and size.
    let rot = [(FileKind::Data, 45), (FileKind::Data, 0)];
    let higher =
        [(FileKind::Tree, 32 + 40 * 9 + 3), (FileKind::Tree, 32 + 40 * 11 + 39), (FileKind::Tree, 32 + 40 * 3 + 3)];
    for ((kind, at), own) in rot.into_iter().chain(higher).flat_map(|rot| [true, false].map(|own| (rot, own))) {
        let case = format!("byte {at} of {kind}, own: {own}");
        let (mut stores, damaged) = with_lost(own, 2 * BLOCKS - 1, None);
        let mut disk = closed(&stores[damaged]);
        let mut byte = [0];
        disk.read_at(file(0, kind), at, &mut byte).unwrap();
        disk.write_at(file(0, kind), at, &[byte[0] ^ 0x20]).unwrap();
        stores[damaged] = open(disk);
        let id = stores[damaged].writer(Some("other"), || KeyPair::from_seed(&[2; 32])).unwrap();
        stores[damaged].append(id, &[block(1), block(2)]).unwrap();
        stores[damaged].commit(Duration::ZERO);

        let link = sync(&mut stores, [damaged, 2]);
        let damage = |event: &&PeerEvent| matches!(event, PeerEvent::Damaged { .. });
        assert_eq!(link.events[0].iter().filter(damage).count(), 1, "{case}: {:?}", link.events[0]);
        assert_eq!(link.events[1].iter().filter(damage).count(), 0, "{case}: {:?}", link.events[1]);
        for side in 0..2 {
            link.totals(side);
        }
        let told = |event: &PeerEvent| matches!(event, PeerEvent::Progress(state) if state.in_sync);
        assert!(!link.events[0].iter().any(told), "{case}");
        let other = stores[2].find(&KeyPair::from_seed(&[2; 32]).public_key()).unwrap();
        assert_eq!(stores[2].info(other).unwrap().downloaded, 2, "{case}");
        let copy = stores[2].find(&KeyPair::from_seed(&[1; 32]).public_key()).unwrap();
        let held: Vec<u64> = (0..BLOCKS).filter(|&index| stores[2].has(copy, index)).collect();
        assert!(
            (12..BLOCKS as usize).contains(&held.len()),
            "{case}: {held:?} {:?} {:?}",
            link.events,
            stores[1].recovered()
        );
        for index in held {
            assert_eq!(stores[2].get(copy, index).unwrap(), Some(block(index)), "{case}");
        }
        assert_eq!(findings(&mut stores[2], copy), [], "{case}");
        // And the rest comes of whoever is whole.
        sync(&mut stores, [1 - damaged, 2]).totals(0);
        assert!((0..BLOCKS).all(|index| stores[2].get(copy, index).unwrap() == Some(block(index))), "{case}");
    }
}

/// What rots of the tree of a store that fetches, a bit or a sector of it, is damage here. It is not the remote's fault, and the session goes on.
#[test]
fn what_rotted_of_the_tree_is_not_the_remotes_fault() {
    // Blocks that were given up; or those that the writer appended since.
    for grows in [false, true] {
        let length = if grows { 13 } else { BLOCKS };
        let mut stores = [store(), store()];
        let id = stores[0].writer(Some("w"), || KeyPair::from_seed(&[1; 32])).unwrap();
        stores[0].append(id, &(0..length).map(block).collect::<Vec<_>>()).unwrap();
        sync(&mut stores, [0, 1]).totals(1);
        let copy = stores[1].feeds().next().unwrap();
        if grows {
            stores[0].append(id, &(length..BLOCKS).map(block).collect::<Vec<_>>()).unwrap();
        } else {
            for range in [3..4, 6..8, 11..15, 19..20] {
                stores[1].clear(copy, range).unwrap();
            }
        }
        let [writer, reader] = stores.map(|store| closed(&store));
        for (node, byte, size) in (0..2 * length - 1).flat_map(|node| [(node, 39, 1), (node, 0, 512)]) {
            let case = format!("node {node}, {size} from {byte}, grows: {grows}");
            let mut disk = reader.clone();
            let (at, mut rotten) = (32 + 40 * node + byte, vec![0; size]);
            let count = disk.read_at(file(0, FileKind::Tree), at, &mut rotten).unwrap();
            rotten.iter_mut().for_each(|byte| *byte ^= 0x20);
            disk.write_at(file(0, FileKind::Tree), at, &rotten[..count]).unwrap();
            let mut stores = [open(writer.clone()), Multifeed::open(disk, Options::default()).unwrap()];
            let link = sync(&mut stores, [0, 1]);
            link.totals(0);
            link.totals(1);
            let held = stores[1].feeds().next().map(|copy| stores[1].info(copy).unwrap().downloaded);
            let told = |event: &PeerEvent| matches!(event, PeerEvent::Damaged { .. });
            assert!(
                held == Some(BLOCKS) || link.events[1].iter().any(told),
                "{case}: {held:?} {:?} {:?}",
                link.events,
                stores[1].recovered()
            );
            assert!(!link.events[0].iter().any(told), "{case}");
        }
    }
}

/// A bit of a leaf that flipped, in its hash or its size: the leaf is made again by whoever reads its block, the one beside it, or serves either.
#[test]
fn a_rotten_leaf_is_made_again() {
    for (own, leaf) in [true, false].into_iter().flat_map(|own| (0..BLOCKS).map(move |leaf| (own, leaf))) {
        for (byte, reads) in [(3, true), (39, true), (3, false), (39, false)] {
            let case = format!("own: {own}, leaf of block {leaf}, byte {byte}, reads: {reads}");
            let (mut stores, damaged) = with_lost(own, 2 * BLOCKS - 1, None);
            let mut disk = closed(&stores[damaged]);
            let (tree, at) = (file(0, FileKind::Tree), 32 + 80 * leaf + byte);
            let whole = disk.contents(tree);
            let mut rotten = [0];
            disk.read_at(tree, at, &mut rotten).unwrap();
            disk.write_at(tree, at, &[rotten[0] ^ 4]).unwrap();
            stores[damaged] = Multifeed::open(disk, Options::default()).unwrap();
            let id = stores[damaged].feeds().next().unwrap();
            if reads {
                let read = |store: &mut Store, index| store.get(id, index).unwrap();
                let of = [leaf ^ 1, leaf];
                let held = of.map(|index| (read(&mut stores[damaged], index), Some(block(index))));
                assert!(held.iter().all(|(read, block)| read == block), "{case}: {held:?}");
            } else {
                let link = sync(&mut stores, [damaged, 2]);
                assert!(
                    !link.events[0].iter().any(|event| matches!(event, PeerEvent::Damaged { .. })),
                    "{case}: {:?}",
                    link.events[0]
                );
                link.totals(0);
                assert_whole(&stores[2], &case);
            }
            assert!((0..BLOCKS).all(|index| stores[damaged].get(id, index).unwrap() == Some(block(index))), "{case}");
            // It is written when the store is closed at the latest.
            let mut disk = stores[damaged].storage().clone();
            disk.reopen();
            let mut store = Multifeed::open(&mut disk, Options::default()).unwrap();
            let id = store.feeds().next().unwrap();
            (0..BLOCKS).rev().for_each(|index| assert_eq!(store.get(id, index).unwrap(), Some(block(index)), "{case}"));
            store.close().unwrap();
            assert!(disk.contents(tree) == whole, "{case}");
            disk.reopen();
            assert_whole(&open(disk), &case);
        }
    }
}
