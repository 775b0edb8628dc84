//! A disk that is full, or nearly so, stops what is new, and nothing else.

use crate::link;

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use link::{Link, run};
use multifeed_core::{
    AppendError, FileId, FileKind, KeyPair, MemoryStorage, Multifeed, Options, PeerEvent, Replicate, Slot, Storage,
    StoreError, SyncError,
};

const START: Duration = Duration::ZERO;

/// A disk with room for so many bytes more.
struct Small {
    disk: MemoryStorage,
    free: Rc<Cell<u64>>,
    /// It tells how much is free.
    tells: bool,
}

impl Small {
    /// Takes room for what a file grows by. A write that has not enough is done in part, as on a real disk.
    fn grow(&mut self, file: FileId, end: u64) -> io::Result<u64> {
        let len = self.disk.len(file)?.unwrap_or(0);
        let more = end.saturating_sub(len);
        let given = more.min(self.free.get());
        self.free.set(self.free.get() - given);
        Ok(more - given)
    }
}

impl Storage for Small {
    fn list(&mut self) -> io::Result<Vec<Slot>> {
        self.disk.list()
    }
    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.disk.read_at(file, offset, buf)
    }
    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        let lacking = self.grow(file, offset + data.len() as u64)?;
        let written = data.len().saturating_sub(lacking as usize);
        if written > 0 || data.is_empty() {
            self.disk.write_at(file, offset, &data[..written])?;
        }
        if lacking > 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
    fn len(&mut self, file: FileId) -> io::Result<Option<u64>> {
        self.disk.len(file)
    }
    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()> {
        self.disk.truncate(file, len)
    }
    fn replace(&mut self, file: FileId, data: &[u8]) -> io::Result<()> {
        if (data.len() as u64) > self.free.get() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.disk.replace(file, data)
    }
    fn sync(&mut self, file: FileId) -> io::Result<()> {
        self.disk.sync(file)
    }
    fn remove(&mut self, slot: Slot) -> io::Result<()> {
        self.disk.remove(slot)
    }
    fn rename(&mut self, from: Slot, to: Slot) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn close(&mut self) -> io::Result<()> {
        self.disk.close()
    }
    fn free_space(&mut self) -> io::Result<Option<u64>> {
        Ok(self.tells.then(|| self.free.get()))
    }
}

type Store = Multifeed<Small>;

fn store(free: u64, tells: bool, keep_free: u64) -> (Store, Rc<Cell<u64>>) {
    let free = Rc::new(Cell::new(free));
    let mut options = Options::default();
    options.limits.keep_free = keep_free;
    let disk = Small { disk: MemoryStorage::default(), free: free.clone(), tells };
    (Multifeed::open(disk, options).unwrap(), free)
}

const ROOMY: u64 = 1 << 40;

fn pair(seed: u8) -> KeyPair {
    KeyPair::from_seed(&[seed; 32])
}

/// Makes the writer if there is none, and appends to it.
fn append(store: &mut Store, seed: u8, blocks: u64, size: usize) -> Result<(), AppendError> {
    let id = store.writer(Some(&format!("writer {seed}")), || pair(seed))?;
    for block in 0..blocks {
        store.append(id, &[Bytes::from(vec![block as u8; size])])?;
    }
    store.commit(START);
    Ok(())
}

fn downloaded(store: &Store, seed: u8) -> u64 {
    store.find(&pair(seed).public_key()).map_or(0, |id| store.info(id).unwrap().downloaded)
}

fn count(link: &Link, side: usize, is: impl Fn(&PeerEvent) -> bool) -> usize {
    link.events[side].iter().filter(|event| is(event)).count()
}

/// Lets time pass.
fn wait(stores: &mut [Store], links: &mut [Link], seconds: std::ops::RangeInclusive<u64>) {
    for second in seconds {
        let now = Duration::from_secs(second);
        stores.iter_mut().for_each(|store| store.handle_timeout(now));
        run(stores, links, now);
    }
}

/// Of three stores the middle one has a disk that fills up: by a write that fails, or by what must be kept free.
#[test]
fn a_full_disk_stops_new_data_and_not_serving() {
    // What is free, whether the disk tells it, and what must be kept free.
    for (free, tells, keep_free) in [(300_000, false, 0), (300_000, true, 0), (5_000_000, true, 4_900_000)] {
        for reconcile in [true, false] {
            let what = format!("{free} {tells} {keep_free} {reconcile}");
            let (middle, room) = store(free, tells, keep_free);
            let mut stores = [store(ROOMY, true, 0).0, middle, store(ROOMY, true, 0).0];
            append(&mut stores[1], 9, 20, 1000).unwrap();
            append(&mut stores[0], 1, 10, 100).unwrap();
            let live = Replicate { reconcile: Some(reconcile), ..Replicate::live() };
            let mut links = [Link::plain(&mut stores, [0, 1], live.clone()), Link::plain(&mut stores, [1, 2], live)];
            run(&mut stores, &mut links, START);
            assert_eq!((downloaded(&stores[2], 1), downloaded(&stores[2], 9)), (10, 20), "{what}");

            // A feed that is here grows, and new ones come, by more than there is room for.
            append(&mut stores[0], 1, 1000, 1000).unwrap();
            (20..60).for_each(|seed| append(&mut stores[0], seed, 3, 10_000).unwrap());
            run(&mut stores, &mut links, START);
            wait(&mut stores, &mut links, 1..=60);
            assert!(stores[1].disk_full().is_some(), "{what}");
            assert!(downloaded(&stores[1], 1) < 1010);
            let full = |event: &PeerEvent| match event {
                PeerEvent::DiskFull(error) => {
                    assert_eq!(error.code(), "ERR_STORE_FULL");
                    assert!(!error.to_string().is_empty());
                    true
                }
                _ => false,
            };
            assert_eq!((count(&links[0], 1, full), count(&links[1], 0, full)), (1, 1), "{what}");
            assert!(links.iter().all(|link| link.result(0).is_none() && link.result(1).is_none()), "a session ended");
            assert!(!stores[1].in_sync(links[0].ends[1].1.peer()));
            if keep_free > 0 {
                assert!(room.get() > keep_free - 200_000, "{what}: {} bytes are left", room.get());
                // Its own writers go on.
                append(&mut stores[1], 9, 5, 1000).unwrap();
            } else {
                // What was appended before is there, and whoever comes now is served.
                assert!(append(&mut stores[1], 9, 500, 1000).is_err());
            }
            let kept = downloaded(&stores[1], 1);
            stores[2] = store(ROOMY, true, 0).0;
            links[1] = Link::plain(&mut stores, [1, 2], Replicate::live());
            run(&mut stores, &mut links, Duration::from_secs(60));
            assert!(downloaded(&stores[2], 9) >= 20, "{what}");
            assert!(downloaded(&stores[2], 1) >= kept.min(10), "{what}");

            // There is room again.
            room.set(ROOMY);
            wait(&mut stores, &mut links, 61..=120);
            let freed = |event: &PeerEvent| matches!(event, PeerEvent::SpaceFreed);
            assert_eq!(count(&links[0], 1, freed), 1, "{what}");
            for side in [1, 2] {
                assert_eq!(downloaded(&stores[side], 1), 1010, "{what}");
                assert!((20..60).all(|seed| downloaded(&stores[side], seed) == 3), "{what}: not all came to {side}");
            }
            assert!(stores[1].disk_full().is_none());
        }
    }
}

/// A session that is not live serves what it can, and does not end as if it had all.
#[test]
fn a_session_that_is_not_live_ends_and_the_next_goes_on() {
    for (free, keep_free, writes_fail) in [(300_000, 0, true), (5_000_000, 4_900_000, false)] {
        let (other, room) = store(free, true, keep_free);
        let mut stores = [store(ROOMY, true, 0).0, other];
        append(&mut stores[1], 9, 20, 1000).unwrap();
        append(&mut stores[0], 1, 1000, 1000).unwrap();
        (20..40).for_each(|seed| append(&mut stores[0], seed, 3, 10_000).unwrap());
        let mut links = [Link::plain(&mut stores, [0, 1], Replicate::default())];
        run(&mut stores, &mut links, START);
        wait(&mut stores, &mut links, 1..=60);
        assert_eq!(downloaded(&stores[0], 9), 20, "it was not served");
        assert!(downloaded(&stores[1], 1) < 1000);
        let peer = links[0].ends[1].1.peer();
        assert!(!stores[1].in_sync(peer));
        match links[0].result(1).expect("the session goes on") {
            Ok(totals) => panic!("it ended as if all had come: {totals:?}"),
            Err(SyncError::Store(StoreError::Full { .. })) => assert!(writes_fail),
            Err(SyncError::Store(StoreError::LowSpace { .. })) => assert!(!writes_fail),
            Err(error) => panic!("{error}"),
        }
        // The next one finds the disk full from its start, and its remote reads so. One that only serves ends well.
        for (options, served) in [(Replicate::default(), false), (Replicate::default().upload_only(), true)] {
            let options = [Replicate::default(), options];
            let mut links = [Link::new(&mut stores, [0, 1], options, Default::default())];
            run(&mut stores, &mut links, Duration::from_secs(61));
            assert_eq!(count(&links[0], 1, |event| matches!(event, PeerEvent::DiskFull(_))), 1);
            let result = links[0].result(1).expect("the session goes on");
            assert_eq!(result.as_ref().map_err(SyncError::code).err(), (!served).then_some("ERR_STORE_FULL"));
        }
        room.set(ROOMY);
        wait(&mut stores, &mut [], 62..=90);
        let mut links = [Link::plain(&mut stores, [0, 1], Replicate::default())];
        run(&mut stores, &mut links, Duration::from_secs(91));
        assert!(stores[1].in_sync(links[0].ends[1].1.peer()));
        assert_eq!(downloaded(&stores[1], 1), 1000);
        assert!((20..40).all(|seed| downloaded(&stores[1], seed) == 3));
    }
}

/// The disk is full as a session begins that would stay, and has room again when it is known that the remote does not stay. What was
/// left out until then is not taken for what is here. If there is room before the handshake, nothing was left out.
#[test]
fn a_session_that_turns_out_not_to_be_live_does_not_end_as_if_it_had_all() {
    for early in [false, true] {
        let (full, room) = store(5_000_000, true, 6_000_000);
        let mut stores = [store(ROOMY, true, 0).0, full];
        (20..40).for_each(|seed| append(&mut stores[0], seed, 3, 1000).unwrap());
        let options = [Replicate::default(), Replicate::live()];
        let mut link = Link::new(&mut stores, [0, 1], options, Default::default());
        let peer = link.ends[1].1.peer();
        stores[1].observe(peer);
        let ready = |link: &Link| count(link, 1, |event| matches!(event, PeerEvent::RemoteFeeds { .. })) > 0;
        while !early && !ready(&link) {
            assert!(link.turn(&mut stores, START), "it stands still");
        }
        room.set(ROOMY);
        let later = Duration::from_secs(3);
        stores[1].handle_timeout(later);
        assert!(stores[1].disk_full().is_none());
        let mut links = [link];
        run(&mut stores, &mut links, later);
        wait(&mut stores, &mut links, 4..=60);
        let result = links[0].result(1).expect("the session goes on");
        let all = (20..40).all(|seed| downloaded(&stores[1], seed) == 3);
        assert_eq!((all, stores[1].in_sync(peer)), (early, early));
        assert_eq!(result.as_ref().map_err(SyncError::code).err(), (!early).then_some("ERR_STORE_FULL"));
        let claims = |event: &PeerEvent| matches!(event, PeerEvent::Progress(state) if state.in_sync);
        assert_eq!(count(&links[0], 1, claims) > 0, early);
    }
}

/// What came of other feeds cannot be written: that is no failure of a block that was appended.
#[test]
fn what_was_appended_is_synced_though_others_cannot_be_written() {
    let (mut theirs, _) = store(ROOMY, true, 0);
    append(&mut theirs, 1, 4, 4000).unwrap();
    let (mut ours, free) = store(ROOMY, true, 0);
    append(&mut ours, 2, 1, 10).unwrap();
    ours.sync().unwrap();
    let mut stores = [theirs, ours];
    let mut links = [Link::plain(&mut stores, [0, 1], Replicate::live())];
    free.set(9_000);
    run(&mut stores, &mut links, START);
    assert!(stores[1].disk_full().is_some());
    let id = stores[1].find(&pair(2).public_key()).unwrap();
    for len in 2..4 {
        // There is room for a block of ours and its signature; a file of theirs may take the rest, and what the journal needs.
        free.set(600);
        stores[1].append(id, &[Bytes::from_static(b"ours")]).unwrap();
        if let Err(error) = stores[1].sync_feed(id) {
            assert!(matches!(error, StoreError::Full { file: Some(FileKind::Journal), .. }), "{error}");
        }
        assert_eq!(stores[1].info(id).unwrap().len, len);
    }
}

/// A disk that fills up in the middle of a session that is not live. What could not be written is returned to its sender. Both sides end at once, and
/// wait for nothing.
#[test]
fn a_session_that_fills_the_disk_ends_without_a_wait() {
    let mut full = 0;
    for live in [false, true] {
        for feeds in [4, 12, 40] {
            for free in (20_000..200_000).step_by(20_000) {
                let case = format!("{feeds} feeds, {free} bytes, served live: {live}");
                let mut stores = [store(ROOMY, true, 0).0, store(free, true, 0).0];
                append(&mut stores[1], 9, 3, 100).unwrap();
                (20..20 + feeds).for_each(|seed| append(&mut stores[0], seed, 10, 2_000).unwrap());
                let options = [Replicate::default(), if live { Replicate::live() } else { Replicate::default() }];
                let mut links = [Link::new(&mut stores, [0, 1], options, Default::default())];
                run(&mut stores, &mut links, START);
                full += u32::from(stores[1].disk_full().is_some());
                assert!(links[0].result(0).is_some() && links[0].result(1).is_some(), "{case}: it waits");
            }
        }
    }
    assert!(full > 30, "{full}");
}

/// How many blocks of a writer are on the disk, as whoever opens the files now finds.
fn on_disk(store: &Store, seed: u8) -> u64 {
    let mut disk = store.storage().disk.clone();
    disk.reopen();
    let mut found = Multifeed::open(disk, Options::default()).unwrap();
    let Some(id) = found.find(&pair(seed).public_key()) else { return 0 };
    (0..found.info(id).unwrap().len).filter(|&block| found.get(id, block).unwrap().is_some()).count() as u64
}

/// Blocks wait in memory for a disk that is full. Nobody counts them as held meanwhile: not the remote that sent them, in this session or the next, and
/// nobody else. When there is room, a live session ends in sync all the same.
#[test]
fn what_waits_for_the_disk_is_not_held() {
    const BLOCKS: u64 = 10;
    let mut stopped = 0;
    for (free, chunk, tells) in [40_000u64, 130_000, 260_000, 399_000, 405_000]
        .into_iter()
        .flat_map(|free| [1 << 20, 50_000, 3_000].map(|chunk| (free, chunk)))
        .flat_map(|(free, chunk)| [true, false].map(|tells| (free, chunk, tells)))
    {
        for (live, swapped) in [(true, false), (true, true), (false, false), (false, true)] {
            let case = format!("{free} bytes, pieces of {chunk}, tells: {tells}, live: {live}, dialled: {swapped}");
            let (full, room) = store(free, tells, 0);
            let mut stores = [store(ROOMY, true, 0).0, full, store(ROOMY, true, 0).0];
            append(&mut stores[0], 1, BLOCKS, 40_000).unwrap();
            let options = || if live { Replicate::live() } else { Replicate::default() };
            let link = |stores: &mut [Store], now| {
                let mut link = Link::plain(stores, if swapped { [1, 0] } else { [0, 1] }, options());
                link.chunk = chunk;
                let from = usize::from(swapped);
                stores[0].observe(link.ends[from].1.peer());
                stores[1].observe(link.ends[1 - from].1.peer());
                let mut links = [link];
                // At no time does the sender say that it is there.
                for _ in 0..1_000_000 {
                    let moved = links[0].turn(stores, now);
                    let peer = links[0].ends[from].1.peer();
                    let there = on_disk(&stores[1], 1);
                    assert!(!stores[0].in_sync(peer) || there == BLOCKS, "in sync with {there} blocks there: {case}");
                    if let Some(state) =
                        stores[0].sync_state(peer, now).filter(|state| state.moved.blocks_sent == BLOCKS)
                    {
                        let missing = state.missing_there;
                        assert!(
                            links[0].result(from).is_some() || !live || missing + there >= BLOCKS,
                            "{missing} missing, {there} there: {case}"
                        );
                    }
                    if !moved {
                        break;
                    }
                }
                let [link] = links;
                link
            };
            let first = link(&mut stores, START);
            if stores[1].disk_full().is_none() {
                continue;
            }
            stopped += 1;
            let there = on_disk(&stores[1], 1);
            if there == BLOCKS {
                // What is full is the journal alone.
                continue;
            }
            let (sender, receiver) = (usize::from(swapped), usize::from(!swapped));
            let full_session = !stores[1].in_sync(first.ends[receiver].1.peer());
            assert!(full_session, "{case}");
            if !live {
                assert_eq!(first.error(receiver).code(), "ERR_STORE_FULL", "{case}");
            }
            // Whoever comes next is served what is there, and no more; the sender finds out what differs.
            let mut others = [Link::plain(&mut stores, [1, 2], Replicate::default())];
            run(&mut stores, &mut others, Duration::from_secs(1));
            // Of a write that failed in its middle some may be there already.
            assert!(downloaded(&stores[2], 1) <= there, "{case}");
            let second = link(&mut stores, Duration::from_secs(2));
            assert!(!stores[1].in_sync(second.ends[receiver].1.peer()), "{case}");
            // There is room.
            room.set(ROOMY);
            let mut links = [first, second];
            wait(&mut stores, &mut links, 3..=60);
            let [first, second] = links;
            if !live {
                drop((first, second));
                let last = link(&mut stores, Duration::from_secs(61));
                assert!(stores[0].in_sync(last.ends[sender].1.peer()), "{case}: {:?}", last.closed());
                assert!(stores[1].in_sync(last.ends[receiver].1.peer()), "{case}");
            } else {
                for link in [first, second] {
                    assert!(stores[0].in_sync(link.ends[sender].1.peer()), "{case}");
                    let peer = link.ends[receiver].1.peer();
                    assert!(
                        stores[1].in_sync(peer),
                        "{case}: {:?}",
                        stores[1].sync_state(peer, Duration::from_secs(60))
                    );
                }
            }
            assert_eq!(on_disk(&stores[1], 1), BLOCKS, "{case}");
        }
    }
    assert!(stopped > 40, "{stopped}");
}
