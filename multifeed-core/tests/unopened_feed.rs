//! A folder that cannot be opened: remotes that have its feed lack a place for it here, and all other feeds go both ways.

use crate::common;
use crate::link;

use std::time::Duration;

use common::{block, key_pair};
use link::{Link, run};
use multifeed_core::{
    FileId, FileKind, MemoryStorage, Multifeed, Options, PeerEvent, Replicate, Slot, Storage, StoreError,
};

const START: Duration = Duration::ZERO;

fn open(disk: &mut MemoryStorage) -> Multifeed<&mut MemoryStorage> {
    disk.reopen();
    Multifeed::open(disk, Options::default()).unwrap()
}

fn write(store: &mut Multifeed<&mut MemoryStorage>, n: u8, len: u64) {
    let id = store.writer(Some(&format!("writer {n}")), || key_pair(n)).unwrap();
    let at = store.info(id).len;
    let blocks: Vec<_> = (at..len).map(|index| block(n, index)).collect();
    store.append(id, &blocks).unwrap();
    store.commit(START);
}

/// The length and the held blocks of a feed.
fn held(store: &Multifeed<&mut MemoryStorage>, n: u8) -> Option<(u64, u64)> {
    store.find(&key_pair(n).public_key()).map(|id| store.info(id)).map(|info| (info.len, info.downloaded))
}

#[test]
fn a_folder_that_cannot_be_opened_holds_up_no_other_feed() {
    for live in [false, true] {
        for damaged_serves in [false, true] {
            let (mut p, mut d) = (MemoryStorage::new(), MemoryStorage::new());
            {
                let mut stores = [open(&mut p), open(&mut d)];
                (1..=4).for_each(|n| write(&mut stores[0], n, 2));
                let mut links = [Link::plain(&mut stores, [0, 1], Replicate::default())];
                run(&mut stores, &mut links, START);
                links[0].totals(1);
            }
            d.write_at(FileId::new(Slot(1), FileKind::Signatures), 0, b"EVIL").unwrap();
            let mut stores = [open(&mut p), open(&mut d)];
            let lost = (1..=4).find(|&n| held(&stores[1], n).is_none()).expect("the damage is found");
            // New feeds, more of those that both have, and one of the damaged store's own.
            (5..=8).for_each(|n| write(&mut stores[0], n, 2));
            (1..=4).for_each(|n| write(&mut stores[0], n, 100));
            write(&mut stores[1], 9, 3);

            let options = if live { Replicate::live() } else { Replicate::default() };
            let ends = if damaged_serves { [1, 0] } else { [0, 1] };
            let mut links = [Link::plain(&mut stores, ends, options)];
            run(&mut stores, &mut links, START);
            let case = format!("live: {live}, damaged serves: {damaged_serves}");
            for n in (1..=8).filter(|&n| n != lost) {
                let len = if n <= 4 { 100 } else { 2 };
                assert_eq!(held(&stores[1], n), Some((len, len)), "{case}: {n}");
            }
            assert_eq!(held(&stores[0], 9), Some((3, 3)), "{case}");
            assert_eq!(held(&stores[1], lost), None, "{case}");
            let side = usize::from(!damaged_serves);
            // It is reported by key, once, and neither side is in sync.
            let reports: Vec<_> = links[0].events[side]
                .iter()
                .filter_map(|event| match event {
                    PeerEvent::Damaged { key, block: None, error: StoreError::Occupied { slot } } => {
                        Some((*key, *slot))
                    }
                    _ => None,
                })
                .collect();
            assert_eq!(reports, [(key_pair(lost).public_key(), Slot(1))], "{case}");
            for side in 0..2 {
                let (store, connection) = &links[0].ends[side];
                assert!(links[0].result(side).is_none_or(Result::is_ok), "{case}: {:?}", links[0].events[side]);
                if live {
                    assert!(!stores[*store].in_sync(connection.peer()), "{case}: {side}");
                }
            }
            // What comes later goes on as well.
            if live {
                write(&mut stores[0], 5, 7);
                run(&mut stores, &mut links, START);
                assert_eq!(held(&stores[1], 5), Some((7, 7)), "{case}");
            }
        }
    }
}
