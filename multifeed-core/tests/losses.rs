//! Which blocks that are gone count as lost, and which as what a crash takes: those of a remote feed that were known to be on the disk.

use crate::common;
use crate::link;

use std::time::Duration;

use common::{blocks, file, key_pair};
use link::{Link, run};
use multifeed_core::{Durability, FileKind, MemoryStorage, Multifeed, Options, Recovered, Replicate, Storage};

const N: u8 = 7;
const START: Duration = Duration::ZERO;

fn options() -> Options {
    Options { durability: Durability::Always, ..Options::default() }
}

/// A store that has fetched a feed of 20 blocks, with all of it synced, and was not closed. `then` is done to it before.
fn fetched(then: fn(&mut Multifeed<&mut MemoryStorage>)) -> MemoryStorage {
    let (mut disk, mut theirs) = (MemoryStorage::new(), MemoryStorage::new());
    let mut stores =
        vec![Multifeed::open(&mut disk, options()).unwrap(), Multifeed::open(&mut theirs, options()).unwrap()];
    let feed = stores[1].writer(Some("theirs"), || key_pair(N)).unwrap();
    stores[1].append(feed, &blocks(N, 0..20)).unwrap();
    stores[1].commit(START);
    let mut links = [Link::plain(&mut stores, [0, 1], Replicate::default())];
    run(&mut stores, &mut links, START);
    links[0].totals(0);
    stores[0].sync().unwrap();
    then(&mut stores[0]);
    drop(stores);
    disk.reopen();
    disk
}

fn recovered(disk: &mut MemoryStorage) -> Vec<Recovered> {
    let store = Multifeed::open(disk, options()).unwrap();
    assert!(store.problems().is_empty(), "{:?}", store.problems());
    store.recovered().to_vec()
}

#[test]
fn a_synced_block_that_is_gone_after_a_crash_is_a_loss() {
    // `data` ends in the last block, whose length stays signed.
    let mut disk = fetched(|_| ());
    let len = disk.len(file(0, FileKind::Data)).unwrap().unwrap();
    disk.truncate(file(0, FileKind::Data), len - 1).unwrap();
    let told = recovered(&mut disk);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].unclean && told[0].length == 20 && told[0].synced_lost == 1 && told[0].is_loss(), "{told:?}");
}

#[test]
fn what_was_cleared_is_no_loss() {
    let mut disk = fetched(|store| {
        let id = store.feeds().next().unwrap();
        assert_eq!(store.clear(id, 3..20).unwrap(), 17);
    });
    let cleared = disk.contents(file(0, FileKind::Bitfield)).unwrap();
    assert!(!recovered(&mut disk).iter().any(Recovered::is_loss));
    // Nor if the journal did not come to know of it: the marks are taken out before.
    let mut disk = fetched(|_| ());
    disk.write_at(file(0, FileKind::Bitfield), 0, &cleared).unwrap();
    assert!(!recovered(&mut disk).iter().any(Recovered::is_loss));
}

/// Marks and all that tells of them are lost with a part of the bitfield.
#[test]
fn what_is_lost_with_the_marks_is_a_loss() {
    for of_data in [0, 5] {
        let mut disk = fetched(|_| ());
        // The first 16 blocks, and the nodes under them.
        disk.write_at(file(0, FileKind::Bitfield), 32, &[0; 2]).unwrap();
        disk.write_at(file(0, FileKind::Bitfield), 32 + 1024, &[0; 3]).unwrap();
        disk.write_at(file(0, FileKind::Data), 0, &vec![0; of_data]).unwrap();
        // What is there is marked again.
        let told = recovered(&mut disk);
        assert!(told.iter().any(|told| told.blocks_regained == if of_data == 0 { 16 } else { 15 }), "{told:?}");
        assert_eq!(told.iter().any(Recovered::is_loss), of_data > 0, "{told:?}");
    }
}
