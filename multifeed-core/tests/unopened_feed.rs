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
    let at = store.info(id).unwrap().len;
    let blocks: Vec<_> = (at..len).map(|index| block(n, index)).collect();
    store.append(id, &blocks).unwrap();
    store.commit(START);
}

/// The length and the held blocks of a feed.
fn held(store: &Multifeed<&mut MemoryStorage>, n: u8) -> Option<(u64, u64)> {
    store.find(&key_pair(n).public_key()).map(|id| store.info(id).unwrap()).map(|info| (info.len, info.downloaded))
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
            d.write_at(FileId::new(Slot(1), FileKind::Signatures), 0, b"EVIL AND MORE").unwrap();
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
                    // By what is wrong with it.
                    PeerEvent::Damaged { key, block: None, error: StoreError::Damaged { slot, file, .. } } => {
                        assert_eq!(*file, FileKind::Signatures);
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

/// A feed that is kept out by damage is not in sync, on either side that knows of it.
#[test]
fn a_folder_that_cannot_be_opened_is_never_in_sync() {
    for (live, damaged_serves, remote_has_it, long) in
        (0..16).map(|case| (case & 1 > 0, case & 2 > 0, case & 4 > 0, case & 8 > 0))
    {
        let len = if long { 100 } else { 2 };
        let (mut p, mut d) = (MemoryStorage::new(), MemoryStorage::new());
        (1..=2).for_each(|n| write(&mut open(&mut d), n, len));
        if remote_has_it {
            let mut stores = [open(&mut p), open(&mut d)];
            let mut links = [Link::plain(&mut stores, [0, 1], Replicate::default())];
            run(&mut stores, &mut links, START);
        }
        d.write_at(FileId::new(Slot(1), FileKind::Signatures), 0, b"EVIL AND MORE").unwrap();
        let mut stores = [open(&mut p), open(&mut d)];
        assert_eq!(held(&stores[1], 2), None);
        let options = if live { Replicate::live() } else { Replicate::default() };
        let ends = if damaged_serves { [1, 0] } else { [0, 1] };
        let mut links = [Link::plain(&mut stores, ends, options)];
        for (store, connection) in &links[0].ends {
            stores[*store].observe(connection.peer());
        }
        run(&mut stores, &mut links, START);
        let case = format!("live: {live}, damaged serves: {damaged_serves}, both: {remote_has_it}, long: {long}");
        let (theirs, ours) = if damaged_serves { (1, 0) } else { (0, 1) };
        let in_sync = [theirs, ours].map(|side| {
            let (store, connection) = &links[0].ends[side];
            stores[*store].in_sync(connection.peer())
        });
        // The remote cannot know of a feed that nobody told it of.
        assert_eq!(in_sync, [!remote_has_it, false], "{case}");
        let reports = |side: usize| {
            let damaged = |event: &&PeerEvent| matches!(event, PeerEvent::Damaged { key, block: None, .. } if *key == key_pair(2).public_key());
            links[0].events[side].iter().filter(damaged).count()
        };
        assert_eq!([theirs, ours].map(reports), [0, 1], "{case}");
        if !live {
            assert_eq!(links[0].totals(theirs).not_taken, u64::from(remote_has_it), "{case}");
        }
        assert_eq!(held(&stores[0], 1), Some((len, len)), "{case}");
    }
}

/// What the application does not exchange with a remote is not missed there.
#[test]
fn what_is_banned_is_not_missed() {
    let mut d = MemoryStorage::new();
    (1..=2).for_each(|n| write(&mut open(&mut d), n, 2));
    d.write_at(FileId::new(Slot(1), FileKind::Signatures), 0, b"EVIL AND MORE").unwrap();
    let mut p = MemoryStorage::new();
    let mut stores = [open(&mut p), open(&mut d)];
    stores[1].ban(key_pair(2).public_key()).unwrap();
    let mut links = [Link::plain(&mut stores, [0, 1], Replicate::default())];
    run(&mut stores, &mut links, START);
    for (store, connection) in &links[0].ends {
        assert!(stores[*store].in_sync(connection.peer()), "{:?}", links[0].events);
    }
}

/// Whose a folder without a whole key is nobody knows: no session is in sync beside it.
#[test]
fn a_folder_whose_key_cannot_be_read_is_never_in_sync() {
    for live in [false, true] {
        let (mut p, mut d) = (MemoryStorage::new(), MemoryStorage::new());
        (1..=2).for_each(|n| write(&mut open(&mut d), n, 2));
        d.truncate(FileId::new(Slot(1), FileKind::Key), 10).unwrap();
        d.truncate(FileId::new(Slot(1), FileKind::SecretKey), 10).unwrap();
        let mut stores = [open(&mut p), open(&mut d)];
        assert_eq!((held(&stores[1], 2), stores[1].problems().is_empty()), (None, false));
        let options = if live { Replicate::live() } else { Replicate::default() };
        let mut links = [Link::plain(&mut stores, [0, 1], options)];
        for (store, connection) in &links[0].ends {
            stores[*store].observe(connection.peer());
        }
        run(&mut stores, &mut links, START);
        assert_eq!(held(&stores[0], 1), Some((2, 2)), "live: {live}");
        let (store, connection) = &links[0].ends[1];
        assert!(!stores[*store].in_sync(connection.peer()), "live: {live}");
    }
}
