//! How far a sync is, and when both sides hold the same: on one thread and virtual time.

use crate::link;

use std::time::Duration;

use bytes::Bytes;
use link::{Link, Store, run, store};
use multifeed_core::{
    FeedId, KeyPair, MemoryStorage, Multifeed, Options, PeerEvent, Replicate, SessionId, SetId, SyncState,
};
use multifeed_proto::Config;

const START: Duration = Duration::ZERO;

fn writer(store: &mut Store, seed: u8) -> FeedId {
    store.writer(Some(&format!("writer {seed}")), || KeyPair::from_seed(&[seed; 32])).unwrap()
}

fn blocks(from: u64, count: u64, size: usize) -> Vec<Bytes> {
    (from..from + count).map(|index| index.to_le_bytes().iter().copied().cycle().take(size).collect()).collect()
}

fn peer(link: &Link, side: usize) -> SessionId {
    link.ends[side].1.peer()
}

/// Whether each side of a link says that it is in sync.
fn in_sync(stores: &[Store], link: &Link) -> [bool; 2] {
    [0, 1].map(|side| stores[link.ends[side].0].in_sync(peer(link, side)))
}

fn state(stores: &[Store], link: &Link, side: usize, now: Duration) -> SyncState {
    stores[link.ends[side].0].sync_state(peer(link, side), now).unwrap()
}

fn observe(stores: &mut [Store], link: &Link) {
    for side in [0, 1] {
        stores[link.ends[side].0].observe(peer(link, side));
    }
}

/// A link that is observed from its start.
fn observed(stores: &mut [Store], options: [Replicate; 2]) -> Link {
    let link = Link::new(stores, [0, 1], options, [Config::default(), Config::default()]);
    observe(stores, &link);
    link
}

fn live() -> [Replicate; 2] {
    [Replicate::live(), Replicate::live()]
}

/// What is true: each side holds what the other does, of the feeds that somebody has a block of.
fn hold_the_same(stores: &mut [Store]) -> bool {
    let contents = |store: &mut Store| -> Vec<_> {
        let ids: Vec<FeedId> = store.feeds().collect();
        let mut all: Vec<_> = ids
            .into_iter()
            .map(|id| {
                let info = store.info(id).unwrap();
                (info.key, (0..info.len).filter(|&index| store.has(id, index)).collect::<Vec<u64>>())
            })
            .filter(|(_, blocks)| !blocks.is_empty())
            .collect();
        all.sort();
        all
    };
    let (one, other) = stores.split_at_mut(1);
    contents(&mut one[0]) == contents(&mut other[0])
}

/// The other side has the feed's length and lacks its last block, of which it is asked for the hashes alone: it refuses them, and fetches the block.
#[test]
fn a_block_whose_hashes_are_refused_is_missing_there() {
    for (lacks, reconcile) in [(0, None), (1, None), (0, Some(false)), (1, Some(false))] {
        let mut stores = [store(), store()];
        let id = writer(&mut stores[1 - lacks], 0);
        stores[1 - lacks].append(id, &blocks(0, 10, 100)).unwrap();
        let mut copy = [observed(&mut stores, [Replicate::default(), Replicate::default()])];
        run(&mut stores, &mut copy, START);
        assert!(hold_the_same(&mut stores));
        let id = stores[lacks].feeds().next().unwrap();
        stores[lacks].clear(id, 9..10).unwrap();
        let mut link = observed(&mut stores, live().map(|options| Replicate { reconcile, ..options }));
        link.chunk = 20;
        while link.turn(&mut stores, START) {
            let in_sync = in_sync(&stores, &link);
            assert!(hold_the_same(&mut stores) || in_sync == [false, false], "{lacks}, {reconcile:?}: {in_sync:?}");
        }
        assert!(hold_the_same(&mut stores) && in_sync(&stores, &link) == [true, true], "{lacks}, {reconcile:?}");
    }
}

/// Channels close one after the other: the last report of the session counts their feeds as its totals do.
#[test]
fn feeds_whose_channels_closed_are_counted() {
    for reconcile in [None, Some(false)] {
        let mut stores = [store(), store()];
        for (n, side) in [(0, 0), (1, 1), (2, 0)] {
            let id = writer(&mut stores[side], n);
            stores[side].append(id, &blocks(0, 20, 100)).unwrap();
        }
        let options = Replicate { reconcile, ..Replicate::default() };
        let mut link = observed(&mut stores, [options.clone(), options]);
        run(&mut stores, std::slice::from_mut(&mut link), START);
        for side in [0, 1] {
            let told = link.events[side].iter().filter_map(|event| match event {
                PeerEvent::Progress(state) => Some((state.feeds, state.feeds_in_sync)),
                _ => None,
            });
            let told: Vec<_> = told.collect();
            assert_eq!(link.totals(side).feeds, 3);
            assert_eq!(told.last(), Some(&(3, 3)), "{reconcile:?}: {told:?}");
            let counts = told.iter().filter(|(feeds, _)| *feeds > 0).map(|(feeds, _)| feeds);
            assert!(counts.is_sorted(), "{reconcile:?}: {told:?}");
        }
    }
}

#[test]
fn a_live_session_comes_in_sync_and_falls_out_of_it_and_comes_back() {
    let mut stores = [store(), store()];
    let ids: Vec<FeedId> = (0..3).map(|n| writer(&mut stores[(n % 2) as usize], n)).collect();
    stores[0].append(ids[0], &blocks(0, 500, 100)).unwrap();
    stores[1].append(ids[1], &blocks(0, 40, 100)).unwrap();
    let mut link = observed(&mut stores, live());
    assert_eq!(in_sync(&stores, &link), [false, false], "nothing was told yet");
    let (mut turns, mut told_bytes) = (0, false);
    while in_sync(&stores, &link) != [true, true] {
        assert!(link.turn(&mut stores, START), "it comes to rest and is not in sync");
        for (side, in_sync) in in_sync(&stores, &link).into_iter().enumerate() {
            let now = state(&stores, &link, side, START);
            assert!(!in_sync || now.missing_there == 0);
            // A signature that came tells how many bytes a feed has.
            for (blocks, bytes) in
                [(now.missing_here, now.bytes_missing_here), (now.missing_there, now.bytes_missing_there)]
            {
                assert!(bytes == 100 * blocks || bytes == 0, "{now:?}");
                told_bytes |= bytes > 0;
            }
        }
        turns += 1;
    }
    assert!(turns > 3 && told_bytes && hold_the_same(&mut stores));
    run(&mut stores, std::slice::from_mut(&mut link), START);
    assert_eq!(in_sync(&stores, &link), [true, true]);

    let first = state(&stores, &link, 0, START);
    assert_eq!((first.feeds, first.feeds_in_sync, first.missing_here, first.missing_there), (3, 3, 0, 0));
    assert_eq!((first.moved.blocks_sent, first.moved.bytes_sent, first.moved.blocks_received), (500, 50_000, 40));
    assert_eq!((first.in_flight, first.requested, first.in_sync), (0, 0, true));

    // An append puts the writer's side out of it at once, and the other's when it hears of it.
    stores[0].append(ids[0], &blocks(500, 7, 10)).unwrap();
    assert_eq!(in_sync(&stores, &link), [false, true]);
    stores[0].commit(START);
    assert!(!in_sync(&stores, &link)[0]);
    assert_eq!(state(&stores, &link, 0, START).missing_there, 7);
    run(&mut stores, std::slice::from_mut(&mut link), START);
    assert_eq!(in_sync(&stores, &link), [true, true]);
    // So does a writer that is new.
    let late = writer(&mut stores[1], 9);
    stores[1].append(late, &blocks(0, 3, 10)).unwrap();
    assert!(!in_sync(&stores, &link)[1]);
    stores[1].commit(START);
    assert!(!in_sync(&stores, &link)[1]);
    run(&mut stores, std::slice::from_mut(&mut link), START);
    assert_eq!(in_sync(&stores, &link), [true, true]);
    assert!(hold_the_same(&mut stores));
}

#[test]
fn an_old_copy_of_a_writer_is_not_in_sync_with_what_was_written_since() {
    let mut stores = [store(), store()];
    for (store, count) in stores.iter_mut().zip([2, 5]) {
        let id = writer(store, 1);
        store.append(id, &blocks(0, count, 10)).unwrap();
    }
    // One that must fetch nothing does not ask either.
    let mut link = observed(&mut stores, live().map(|options| Replicate { download: Some(false), ..options }));
    run(&mut stores, std::slice::from_mut(&mut link), START);
    assert!(!in_sync(&stores, &link)[0]);
    assert_eq!(stores[0].info(stores[0].feeds().next().unwrap()).unwrap().len, 2);
    let id = stores[0].feeds().next().unwrap();
    stores[0].set_transfer(id, Some(true), None).unwrap();
    run(&mut stores, std::slice::from_mut(&mut link), START);
    assert_eq!((in_sync(&stores, &link), stores[0].info(id).unwrap().len), ([true, true], 5));
}

#[test]
fn progress_tells_each_change_and_ends_with_in_sync() {
    let mut stores = [store(), store()];
    let id = writer(&mut stores[0], 1);
    stores[0].append(id, &blocks(0, 300, 10)).unwrap();
    let mut link = observed(&mut stores, live());
    run(&mut stores, std::slice::from_mut(&mut link), START);
    for side in [0, 1] {
        let progress: Vec<SyncState> = link.events[side]
            .iter()
            .filter_map(|event| match event {
                PeerEvent::Progress(state) => Some(*state),
                _ => None,
            })
            .collect();
        assert!(progress.last().unwrap().in_sync, "side {side}: {progress:#?}");
        assert!(!progress[0].in_sync && progress.windows(2).all(|pair| pair[0] != pair[1]), "{progress:#?}");
        let moved = progress.last().unwrap().moved;
        assert_eq!(moved.blocks_sent + moved.blocks_received, 300);
    }
    // An idle session tells nothing.
    let told = link.events.iter().map(Vec::len).collect::<Vec<_>>();
    run(&mut stores, std::slice::from_mut(&mut link), START);
    assert_eq!(link.events.iter().map(Vec::len).collect::<Vec<_>>(), told);
}

#[test]
fn it_can_be_asked_for_in_the_middle_of_a_session() {
    for turns in [0, 1, 2, 3, 5, 8, 13, 21, 34, 1000] {
        let mut stores = [store(), store()];
        let id = writer(&mut stores[0], 1);
        stores[0].append(id, &blocks(0, 3000, 500)).unwrap();
        let mut link = Link::plain(&mut stores, [0, 1], Replicate::live());
        link.chunk = 20_000;
        for _ in 0..turns {
            link.turn(&mut stores, START);
        }
        assert_eq!(in_sync(&stores, &link), [false, false], "nobody asked");
        observe(&mut stores, &link);
        run(&mut stores, std::slice::from_mut(&mut link), START);
        assert_eq!(in_sync(&stores, &link), [true, true], "after {turns} turns");
        assert_eq!(state(&stores, &link, 0, START).missing_there, 0);
    }
}

#[test]
fn blocks_that_go_round_a_ring_leave_nothing_behind() {
    // Every block can reach each store from two sides at about the same time.
    for chunk in [700, 5000, 1 << 20] {
        let mut stores: Vec<Store> = (0..3).map(|_| store()).collect();
        let ids: Vec<FeedId> = (0..3).map(|n| writer(&mut stores[n as usize], n)).collect();
        let mut links: Vec<Link> = [[0, 1], [1, 2], [2, 0]]
            .into_iter()
            .map(|ends| Link::plain(&mut stores, ends, Replicate::live()))
            .collect();
        for link in &mut links {
            link.chunk = chunk;
            observe(&mut stores, link);
        }
        for round in 0..10 {
            for (n, &id) in ids.iter().enumerate() {
                stores[n].append(id, &blocks(round * 50, 50, 100)).unwrap();
                links.iter_mut().for_each(|link| _ = link.turn(&mut stores, START));
            }
        }
        run(&mut stores, &mut links, START);
        for link in &links {
            assert_eq!(in_sync(&stores, link), [true, true], "chunks of {chunk}");
            for side in [0, 1] {
                let state = state(&stores, link, side, START);
                assert_eq!((state.missing_here, state.missing_there), (0, 0), "chunks of {chunk}");
            }
        }
        for store in &mut stores {
            assert!(store.feeds().all(|id| store.info(id).unwrap().downloaded == 500));
            let all = store.store_sync_state(SetId::ALL, START);
            assert_eq!((all.sessions, all.sessions_in_sync, all.all.in_sync), (2, 2, true));
        }
    }
}

#[test]
fn one_direction_is_enough_where_no_other_was_agreed_on() {
    let download = |download| Replicate { download: Some(download), live: true, ..Replicate::default() };
    // The first one takes nothing: what it lacks does not count, on either side.
    let mut stores = [store(), store()];
    let ids = [0, 1].map(|n| writer(&mut stores[n as usize], n));
    for (n, &id) in ids.iter().enumerate() {
        stores[n].append(id, &blocks(0, 20, 10)).unwrap();
    }
    let mut link = observed(&mut stores, [download(false), Replicate::live()]);
    run(&mut stores, std::slice::from_mut(&mut link), START);
    assert_eq!(in_sync(&stores, &link), [true, true]);
    assert_eq!(link.events[0].len() + link.events[1].len(), link.events.iter().flatten().count());
    assert_eq!(state(&stores, &link, 0, START).moved.blocks_sent, 20);
    assert_eq!(state(&stores, &link, 0, START).moved.blocks_received, 0);

    // The first one serves nothing, and so does not say what it has: only its silence tells, after a while.
    let mut stores = [store(), store()];
    let ids = [0, 1].map(|n| writer(&mut stores[n as usize], n));
    for (n, &id) in ids.iter().enumerate() {
        stores[n].append(id, &blocks(0, 20, 10)).unwrap();
    }
    let upload = Replicate { upload: Some(false), ..Replicate::live() };
    let mut link = observed(&mut stores, [upload, Replicate::live()]);
    run(&mut stores, std::slice::from_mut(&mut link), START);
    assert_eq!(in_sync(&stores, &link), [true, false]);
    for seconds in 1..10 {
        let now = Duration::from_secs(seconds);
        for store in &mut stores {
            if store.poll_timeout().is_some_and(|at| at <= now) {
                store.handle_timeout(now);
            }
        }
        run(&mut stores, std::slice::from_mut(&mut link), now);
        assert_eq!(in_sync(&stores, &link)[1], seconds >= 6, "after {seconds} s");
    }
    stores[1].append(ids[1], &blocks(20, 1, 10)).unwrap();
    stores[1].commit(Duration::from_secs(20));
    run(&mut stores, std::slice::from_mut(&mut link), Duration::from_secs(20));
    assert!(!in_sync(&stores, &link)[1]);
}

#[test]
fn a_sparse_side_is_in_sync_when_it_has_what_it_asked_for() {
    let sparse = Options { sparse: true, ..Options::default() };
    let mut stores = [store(), Multifeed::open(MemoryStorage::default(), sparse).unwrap()];
    let source = writer(&mut stores[0], 1);
    stores[0].append(source, &blocks(0, 100, 10)).unwrap();
    let mut link = observed(&mut stores, live());
    run(&mut stores, std::slice::from_mut(&mut link), START);
    assert_eq!(in_sync(&stores, &link), [false, true], "the other side lacks all of it");
    assert_eq!(state(&stores, &link, 0, START).missing_there, 100);
    let id = stores[1].feeds().next().unwrap();
    stores[1].want(id, multifeed_core::Want::Range { start: 0, end: Some(60) }, Default::default()).unwrap();
    assert!(!in_sync(&stores, &link)[1]);
    run(&mut stores, std::slice::from_mut(&mut link), START);
    assert_eq!(in_sync(&stores, &link), [false, true]);
    assert_eq!(state(&stores, &link, 0, START).missing_there, 40);
    stores[1].want(id, multifeed_core::Want::Range { start: 60, end: Some(100) }, Default::default()).unwrap();
    run(&mut stores, std::slice::from_mut(&mut link), START);
    assert_eq!(in_sync(&stores, &link), [true, true]);
}

#[test]
fn blocks_that_neither_has_do_not_count_and_those_given_up_do() {
    let mut stores = [store(), store()];
    let source = writer(&mut stores[0], 1);
    stores[0].append(source, &blocks(0, 50, 10)).unwrap();
    stores[0].clear(source, 10..20).unwrap();
    let mut link = observed(&mut stores, live());
    run(&mut stores, std::slice::from_mut(&mut link), START);
    assert_eq!(in_sync(&stores, &link), [true, true]);
    let id = stores[1].feeds().next().unwrap();
    assert_eq!(stores[1].info(id).unwrap().downloaded, 40);
    let infos = [(0, source), (1, id)].map(|(n, id): (usize, FeedId)| stores[n].peers(id)[0].1);
    assert_eq!(infos.map(|info| info.remote_blocks), [Some(40), Some(40)]);

    // What the writer gives up does not count. What the reader gives up is fetched again.
    stores[0].clear(source, 0..5).unwrap();
    stores[1].clear(id, 30..35).unwrap();
    run(&mut stores, std::slice::from_mut(&mut link), START);
    assert_eq!(in_sync(&stores, &link), [true, true]);
    assert_eq!([0, 1].map(|side| state(&stores, &link, side, START).missing_there), [0, 0]);
    let infos = [(0, source), (1, id)].map(|(n, id): (usize, FeedId)| stores[n].peers(id)[0].1);
    assert_eq!(infos.map(|info| info.remote_blocks), [Some(40), Some(35)]);
    stores[1].want(id, multifeed_core::Want::Range { start: 32, end: Some(40) }, Default::default()).unwrap();
    run(&mut stores, std::slice::from_mut(&mut link), START);
    assert_eq!(in_sync(&stores, &link), [true, true]);
    assert_eq!(stores[0].peers(source)[0].1.remote_blocks, Some(stores[1].info(id).unwrap().downloaded));
}

#[test]
fn a_session_that_is_not_live_stays_in_sync_after_its_end() {
    let mut stores = [store(), store()];
    let id = writer(&mut stores[0], 1);
    stores[0].append(id, &blocks(0, 100, 10)).unwrap();
    let mut link = observed(&mut stores, [Replicate::default(), Replicate::default()]);
    run(&mut stores, std::slice::from_mut(&mut link), START);
    assert!(link.result(0).is_some() && link.result(1).is_some());
    assert_eq!(in_sync(&stores, &link), [true, true]);
    assert_eq!(stores[0].store_sync_state(SetId::ALL, START).sessions, 0, "it is over");
    // One that was cut was not.
    stores[0].append(id, &blocks(100, 1000, 1000)).unwrap();
    let mut link = observed(&mut stores, [Replicate::default(), Replicate::default()]);
    link.chunk = 1000;
    for _ in 0..30 {
        link.turn(&mut stores, START);
    }
    for side in [0, 1] {
        link.ends[side].1.session().handle_eof();
    }
    run(&mut stores, std::slice::from_mut(&mut link), START);
    assert_eq!(in_sync(&stores, &link), [false, false]);
}

#[test]
fn a_feed_of_several_windows_is_known_whole() {
    // Hypercore asks for 1 Mi blocks at a time. Empty blocks are enough.
    let mut stores = [store(), store()];
    let id = writer(&mut stores[0], 1);
    let total = (1 << 20) + 5000;
    for _ in 0..total / 5000 + 1 {
        stores[0].append(id, &vec![Bytes::new(); 5000]).unwrap();
    }
    // All but the ends are given up: what is known of the rest must not be guessed.
    let len = stores[0].info(id).unwrap().len;
    stores[0].clear(id, 100..len - 100).unwrap();
    let mut link = observed(&mut stores, live());
    run(&mut stores, std::slice::from_mut(&mut link), START);
    assert_eq!(in_sync(&stores, &link), [true, true]);
    let copy = stores[1].feeds().next().unwrap();
    assert_eq!(stores[1].info(copy).unwrap().downloaded, 200);
    assert_eq!(stores[0].peers(id)[0].1.remote_blocks, Some(200));
}

#[test]
fn a_remote_that_does_not_say_what_it_has_is_not_in_sync() {
    // The other side's answers are held back for ever.
    let mut stores = [store(), store()];
    let id = writer(&mut stores[0], 1);
    stores[0].append(id, &blocks(0, 5, 10)).unwrap();
    let mut link = observed(&mut stores, live());
    while stores[0].peers(id).first().is_none_or(|(_, info)| !info.opened) {
        link.turn(&mut stores, START);
    }
    for seconds in 1..60 {
        stores[0].handle_timeout(Duration::from_secs(seconds));
        assert!(!in_sync(&stores, &link)[0], "after {seconds} s");
    }
    assert!(!stores[0].peers(id)[0].1.told);
    run(&mut stores, std::slice::from_mut(&mut link), Duration::from_secs(60));
    assert_eq!(stores[1].feeds().count(), 1);
}

#[test]
fn rates_and_counts_are_told_by_session_feed_and_store() {
    let mut stores = [store(), store()];
    let busy = writer(&mut stores[0], 1);
    let idle = writer(&mut stores[0], 2);
    stores[0].append(idle, &blocks(0, 1, 10)).unwrap();
    let mut link = observed(&mut stores, live());
    run(&mut stores, std::slice::from_mut(&mut link), START);
    let mut now = START;
    for second in 0..30 {
        now = Duration::from_secs(100 + second);
        stores[0].append(busy, &blocks(second * 20, 20, 50)).unwrap();
        stores[0].commit(now);
        run(&mut stores, std::slice::from_mut(&mut link), now);
    }
    let late = now + Duration::from_millis(999);
    let session = state(&stores, &link, 0, late);
    let feed = stores[0].feed_sync_state(busy, late);
    let store = stores[0].store_sync_state(SetId::ALL, late);
    for (rate, moved, extra) in [
        (session.per_second, session.moved, 1),
        (feed.per_second, feed.moved, 0),
        (store.all.per_second, store.all.moved, 1),
    ] {
        assert!((19..=21).contains(&rate.blocks_sent) && (950..=1050).contains(&rate.bytes_sent), "{rate:?}");
        assert_eq!((moved.blocks_sent, moved.bytes_sent), (600 + extra, 30_000 + 10 * extra));
    }
    assert_eq!((feed.len, feed.downloaded, feed.sessions, feed.sessions_in_sync), (600, 600, 1, 1));
    let quiet = stores[0].feed_sync_state(idle, late);
    assert_eq!((quiet.per_second.blocks_sent, quiet.moved.blocks_sent, quiet.sessions_in_sync), (0, 1, 1));
    assert_eq!(stores[0].feed_sync_state(busy, now + Duration::from_secs(11)).per_second.blocks_sent, 0);
    assert_eq!(state(&stores, &link, 1, late).moved.blocks_received, 601);
}

#[test]
fn feeds_that_need_no_channel_are_in_sync() {
    let mut stores = [store(), store()];
    let ids: Vec<FeedId> = (0..5).map(|n| writer(&mut stores[0], n)).collect();
    for &id in &ids {
        stores[0].append(id, &blocks(0, 10, 10)).unwrap();
    }
    let mut link = Link::plain(&mut stores, [0, 1], Replicate::default());
    run(&mut stores, std::slice::from_mut(&mut link), START);
    let mut link = observed(&mut stores, live());
    run(&mut stores, std::slice::from_mut(&mut link), START);
    assert_eq!(in_sync(&stores, &link), [true, true]);
    let quiet = state(&stores, &link, 0, START);
    assert_eq!((quiet.feeds, quiet.feeds_in_sync, quiet.moved.blocks_sent), (5, 5, 0));
    let feed = stores[0].feed_sync_state(ids[3], START);
    assert_eq!((feed.sessions, feed.sessions_in_sync), (1, 1));

    stores[0].append(ids[3], &blocks(10, 1, 10)).unwrap();
    assert!(!in_sync(&stores, &link)[0]);
    stores[0].commit(START);
    assert!(!in_sync(&stores, &link)[0]);
    run(&mut stores, std::slice::from_mut(&mut link), START);
    assert_eq!(in_sync(&stores, &link), [true, true]);
    let state = state(&stores, &link, 0, START);
    assert_eq!((state.feeds, state.feeds_in_sync, state.moved.blocks_sent), (5, 5, 1));
}

/// xorshift32
struct Random(u32);

impl Random {
    fn below(&mut self, below: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % below
    }
}

/// What is said of a remote at rest is what it holds, whatever came and went before, and whenever somebody began to ask.
#[test]
fn what_is_said_of_a_remote_is_true() {
    for seed in (1..=30u32).chain([1446, 2528]) {
        let mut random = Random(seed.wrapping_mul(2_654_435_761) | 1);
        let mut stores: Vec<Store> = (0..3).map(|_| store()).collect();
        let ids: Vec<FeedId> = (0..3).map(|n| writer(&mut stores[n as usize], n)).collect();
        let mut links: Vec<Link> = [[0, 1], [1, 2], [2, 0]]
            .into_iter()
            .map(|ends| Link::plain(&mut stores, ends, Replicate::live()))
            .collect();
        links.iter_mut().for_each(|link| link.chunk = 500 + 200 * random.below(20) as usize);
        let clears = seed % 2 == 0;
        for _ in 0..60 {
            let n = random.below(3) as usize;
            match random.below(8) {
                0 | 1 => {
                    let from = stores[n].info(ids[n]).unwrap().len;
                    let count = u64::from(random.below(40));
                    stores[n].append(ids[n], &blocks(from, count, 60)).unwrap();
                    stores[n].commit(START);
                }
                2 if clears => {
                    let feeds: Vec<FeedId> = stores[n].feeds().collect();
                    let id = feeds[random.below(feeds.len() as u32) as usize];
                    let start = u64::from(random.below(60));
                    stores[n].clear(id, start..start + u64::from(random.below(30))).unwrap();
                }
                3 => observe(&mut stores, &links[n]),
                _ => {
                    for _ in 0..random.below(6) {
                        links[n].turn(&mut stores, START);
                    }
                }
            }
        }
        links.iter().for_each(|link| observe(&mut stores, link));
        run(&mut stores, &mut links, START);
        for link in &links {
            if !clears {
                let states = [0, 1].map(|side| state(&stores, link, side, START));
                assert_eq!(in_sync(&stores, link), [true, true], "seed {seed}: {states:#?}");
            }
            for side in [0, 1] {
                let (here, there) = (link.ends[side].0, link.ends[1 - side].0);
                for id in stores[here].feeds().collect::<Vec<_>>() {
                    let key = stores[here].info(id).unwrap().key;
                    // A feed of which nothing came is not there.
                    let theirs = stores[there].find(&key).map_or(0, |id| stores[there].info(id).unwrap().downloaded);
                    let infos = stores[here].peers(id);
                    let here = infos.iter().find(|(peer, _)| *peer == link.ends[side].1.peer());
                    // Without a channel both turned out to hold the same.
                    let Some((_, info)) = here else { continue };
                    assert!(info.told, "seed {seed}: {info:?}");
                    assert_eq!(info.remote_blocks, Some(theirs), "seed {seed}: {info:?}");
                }
            }
        }
    }
}

/// What is given up and comes back before the remote hears of either is missing there as before.
#[test]
fn what_comes_back_at_once_is_missing_there() {
    let mut stores = [store(), store(), store()];
    let source = writer(&mut stores[0], 1);
    stores[0].append(source, &blocks(0, 60, 100)).unwrap();
    stores[0].commit(START);
    let mut first = Link::plain(&mut stores, [0, 1], Replicate::live());
    run(&mut stores, std::slice::from_mut(&mut first), START);
    let id = stores[1].feeds().next().unwrap();
    let mut link = Link::plain(&mut stores, [1, 2], Replicate::live());
    observe(&mut stores, &link);
    // Less than a block at a time.
    link.chunk = 100;
    let missing = |stores: &[Store], link: &Link| state(stores, link, 0, START).missing_there;
    while missing(&stores, &link) != 50 {
        assert!(link.turn(&mut stores, START));
    }
    assert_eq!(stores[1].clear(id, 50..60).unwrap(), 10);
    stores[1].want(id, multifeed_core::Want::Range { start: 50, end: Some(60) }, Default::default()).unwrap();
    run(&mut stores, std::slice::from_mut(&mut first), START);
    assert_eq!((stores[1].info(id).unwrap().downloaded, missing(&stores, &link)), (60, 50));
    while link.turn(&mut stores, START) {
        let theirs = stores[2].feeds().next().map_or(0, |id| stores[2].info(id).unwrap().downloaded);
        let said =
            stores[1].peers(id).iter().find(|(id, _)| *id == peer(&link, 0)).and_then(|(_, info)| info.remote_blocks);
        // It was sent one of those that were given up, so that it is asked again what it has: until it answers that is not known.
        assert!(said.is_none_or(|said| said <= theirs), "it has {theirs} blocks, not {said:?}");
    }
    let known =
        stores[1].peers(id).iter().find(|(id, _)| *id == peer(&link, 0)).and_then(|(_, info)| info.remote_blocks);
    assert_eq!((missing(&stores, &link), in_sync(&stores, &link)[0], known), (0, true, Some(60)));
}
