//! What an application waits for, gives up and watches, over sessions on one thread and virtual time.

use crate::link;

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use link::{Link, Store, run, store};
use multifeed_core::{
    FeedEvent, FeedId, FileId, FileKind, KeyPair, Located, MemoryStorage, Multifeed, Options, Place, Replicate, Slot,
    Storage, Want, WantEnd, WantId, WantOptions,
};
use proptest::prelude::*;

const START: Duration = Duration::ZERO;

fn blocks(sizes: impl IntoIterator<Item = usize>) -> Vec<Bytes> {
    sizes.into_iter().enumerate().map(|(index, size)| Bytes::from(vec![index as u8; size])).collect()
}

/// A store with a writer of these blocks, and one that will copy only what is asked for.
fn pair(blocks: &[Bytes]) -> ([Store; 2], FeedId) {
    let mut source = store();
    let id = source.writer(Some("w"), || KeyPair::from_seed(&[1; 32])).unwrap();
    source.append(id, blocks).unwrap();
    source.commit(START);
    ([source, sparse()], id)
}

fn sparse() -> Store {
    let options = Options { sparse: true, ..Options::default() };
    Multifeed::open(MemoryStorage::default(), options).unwrap()
}

/// A live session of the two, until nothing moves.
fn live(stores: &mut [Store]) -> Vec<Link> {
    let mut links = vec![Link::plain(stores, [0, 1], Replicate::live())];
    run(stores, &mut links, START);
    links
}

/// Cuts every session.
fn hang_up(stores: &mut [Store]) {
    for store in stores {
        for id in store.feeds() {
            for (peer, _) in store.peers(id) {
                store.disconnect(peer);
            }
        }
    }
}

fn want(store: &mut Store, id: FeedId, want: Want) -> WantId {
    store.want(id, want, WantOptions::default()).unwrap()
}

fn if_available(store: &mut Store, id: FeedId, want: Want) -> WantId {
    store.want(id, want, WantOptions { if_available: true, ..WantOptions::default() }).unwrap()
}

fn held(store: &Store, id: FeedId, within: Range<u64>) -> Vec<u64> {
    within.filter(|&index| store.has(id, index)).collect()
}

fn events(store: &mut Store) -> Vec<FeedEvent> {
    std::iter::from_fn(|| store.poll_feed_event()).map(|(_, event)| event).collect()
}

#[test]
fn a_sparse_session_fetches_what_is_asked_for() {
    let (mut stores, _) = pair(&blocks([10; 40]));
    let mut links = live(&mut stores);
    let id = stores[1].feeds().next().unwrap();
    assert_eq!((stores[1].info(id).unwrap().len, stores[1].info(id).unwrap().downloaded), (40, 0));

    let single = want(&mut stores[1], id, Want::Block(7));
    let some = want(&mut stores[1], id, Want::Blocks(vec![30, 20, 20, 7]));
    let range = want(&mut stores[1], id, Want::Range { start: 10, end: Some(13) });
    assert_eq!(stores[1].poll_want(), None);
    run(&mut stores, &mut links, START);
    assert_eq!(held(&stores[1], id, 0..40), [7, 10, 11, 12, 20, 30]);
    assert_eq!(stores[1].info(id).unwrap().len, 40);
    let mut ends: Vec<_> = std::iter::from_fn(|| stores[1].poll_want()).collect();
    ends.sort_by_key(|(want, _)| *want);
    assert_eq!(ends, [(single, WantEnd::Done), (some, WantEnd::Done), (range, WantEnd::Done)]);
    // What is there is done at once.
    let again = want(&mut stores[1], id, Want::Block(7));
    assert_eq!(stores[1].poll_want(), Some((again, WantEnd::Done)));
    assert!(!stores[1].unwant(again));
}

#[test]
fn what_comes_later_is_asked_for_too() {
    let (mut stores, source) = pair(&blocks([10; 3]));
    let mut links = live(&mut stores);
    let id = stores[1].feeds().next().unwrap();
    let open = want(&mut stores[1], id, Want::Range { start: 2, end: None });
    let late = want(&mut stores[1], id, Want::Block(6));
    run(&mut stores, &mut links, START);
    assert_eq!(held(&stores[1], id, 0..10), [2]);
    stores[0].append(source, &blocks([5; 4])).unwrap();
    stores[0].commit(START);
    run(&mut stores, &mut links, START);
    assert_eq!(held(&stores[1], id, 0..10), [2, 3, 4, 5, 6]);
    assert_eq!(stores[1].poll_want(), Some((late, WantEnd::Done)));
    assert!(stores[1].unwant(open) && !stores[1].unwant(open));
    stores[0].append(source, &blocks([5; 4])).unwrap();
    stores[0].commit(START);
    run(&mut stores, &mut links, START);
    assert_eq!(held(&stores[1], id, 7..20), [0; 0]);

    // And by sessions that come later.
    hang_up(&mut stores);
    let wanted = want(&mut stores[1], id, Want::Block(9));
    run(&mut stores, &mut [], START);
    assert_eq!(stores[1].poll_want(), None);
    live(&mut stores);
    assert_eq!(stores[1].poll_want(), Some((wanted, WantEnd::Done)));
}

#[test]
fn a_block_that_somebody_waits_for_comes_before_the_rest() {
    let mut source = store();
    let writer = source.writer(Some("w"), || KeyPair::from_seed(&[1; 32])).unwrap();
    source.append(writer, &blocks([100; 5_000])).unwrap();
    source.commit(START);
    let mut stores = [source, store()];
    let mut links = [Link::plain(&mut stores, [0, 1], Replicate::live())];
    links[0].chunk = 2_000;
    let mut waited = None;
    for _ in 0..1_000_000 {
        if stores[1].feeds().next().is_some_and(|id| stores[1].info(id).unwrap().downloaded > 0) && waited.is_none() {
            let id = stores[1].feeds().next().unwrap();
            waited = Some(want(&mut stores[1], id, Want::Block(4_999)));
        }
        if stores[1].poll_want().is_some() {
            break;
        }
        links[0].turn(&mut stores, START);
    }
    let id = stores[1].feeds().next().unwrap();
    assert!(waited.is_some() && stores[1].has(id, 4_999));
    let before = stores[1].info(id).unwrap().downloaded;
    assert!(before < 1_500, "{before} blocks came before the one that was waited for");
}

#[test]
fn a_request_that_nobody_waits_for_is_taken_back() {
    let (mut stores, _) = pair(&blocks([10; 4]));
    let mut links = live(&mut stores);
    let id = stores[1].feeds().next().unwrap();
    let (first, second) = (want(&mut stores[1], id, Want::Block(1)), want(&mut stores[1], id, Want::Block(1)));
    let peer = |store: &Store| store.peers(id)[0].1;
    assert_eq!(peer(&stores[1]).in_flight, 1);
    stores[1].unwant(first);
    assert_eq!(peer(&stores[1]).in_flight, 1, "somebody else waits for it");
    stores[1].unwant(second);
    assert_eq!(peer(&stores[1]).in_flight, 0);
    run(&mut stores, &mut links, START);
    assert_eq!(held(&stores[1], id, 0..4), [0; 0]);
    // It can be asked for again, and `cancel` ends what lies in a range.
    let third = want(&mut stores[1], id, Want::Block(1));
    let outside = want(&mut stores[1], id, Want::Range { start: 0, end: Some(5) });
    stores[1].cancel(id, 0..3).unwrap();
    assert_eq!(stores[1].poll_want(), Some((third, WantEnd::Cancelled)));
    assert_eq!(stores[1].poll_want(), None);
    stores[1].cancel(id, 0..5).unwrap();
    assert_eq!(stores[1].poll_want(), Some((outside, WantEnd::Cancelled)));
}

#[test]
fn a_sparse_sync_that_is_not_live_ends_with_what_was_asked_for() {
    let (mut stores, _) = pair(&blocks([10; 50]));
    let mut links = vec![Link::plain(&mut stores, [0, 1], Replicate::default())];
    run(&mut stores, &mut links, START);
    let id = stores[1].feeds().next().unwrap();
    for side in 0..2 {
        let totals = links[0].totals(side);
        assert_eq!((totals.blocks_received, totals.blocks_sent, totals.holes.len()), (0, 0, 0));
    }
    want(&mut stores[1], id, Want::Range { start: 40, end: Some(45) });
    want(&mut stores[1], id, Want::Block(90));
    want(&mut stores[1], id, Want::Length(50));
    want(&mut stores[1], id, Want::Byte(107));
    let mut links = vec![Link::plain(&mut stores, [0, 1], Replicate::default())];
    run(&mut stores, &mut links, START);
    assert_eq!(links[0].totals(1).blocks_received, 6, "five blocks, and one of the pair that holds the byte");
    assert_eq!(held(&stores[1], id, 0..50).len(), 6);
    assert_eq!(std::iter::from_fn(|| stores[1].poll_want()).count(), 3);

    // What was asked for and nobody has is named.
    want(&mut stores[1], id, Want::Blocks(vec![3, 4]));
    let source = stores[0].feeds().next().unwrap();
    stores[0].clear(source, 3..4).unwrap();
    let mut links = vec![Link::plain(&mut stores, [0, 1], Replicate::default())];
    run(&mut stores, &mut links, START);
    let key = stores[1].info(id).unwrap().key;
    let [holes] = &links[0].totals(1).holes[..] else { panic!("{:?}", links[0].totals(1)) };
    assert_eq!((holes.key, holes.blocks, holes.ranges.len(), holes.ranges[0].start), (key, 1, 1, 3));
}

#[test]
fn an_update_tells_the_length_without_a_block() {
    let (mut stores, source) = pair(&blocks([10; 9]));
    let mut links = live(&mut stores);
    let id = stores[1].feeds().next().unwrap();
    stores[1].watch(id, true).unwrap();
    assert_eq!(
        (stores[1].info(id).unwrap().len, stores[1].info(id).unwrap().byte_len, stores[1].info(id).unwrap().downloaded),
        (9, 90, 0)
    );
    stores[0].append(source, &blocks([10])).unwrap();
    stores[0].commit(START);
    run(&mut stores, &mut links, START);
    assert_eq!(stores[1].info(id).unwrap().len, 9);
    let longer = want(&mut stores[1], id, Want::Length(10));
    run(&mut stores, &mut links, START);
    assert_eq!(stores[1].poll_want(), Some((longer, WantEnd::Done)));
    assert_eq!(
        (stores[1].info(id).unwrap().len, stores[1].info(id).unwrap().byte_len, stores[1].info(id).unwrap().downloaded),
        (10, 100, 0)
    );
    let events = events(&mut stores[1]);
    assert_eq!(
        events.iter().filter(|event| matches!(event, FeedEvent::Append { .. })).collect::<Vec<_>>(),
        [&FeedEvent::Append { len: 10 }]
    );
    let longer = want(&mut stores[1], id, Want::Length(12));
    for count in [1, 5] {
        run(&mut stores, &mut links, START);
        assert_eq!(stores[1].poll_want(), None);
        stores[0].append(source, &blocks(vec![10; count])).unwrap();
        stores[0].commit(START);
    }
    run(&mut stores, &mut links, START);
    assert_eq!(stores[1].poll_want(), Some((longer, WantEnd::Done)));
    assert_eq!((stores[1].info(id).unwrap().len, stores[1].info(id).unwrap().downloaded), (16, 0));
}

#[test]
fn a_remote_seek_finds_every_byte_and_fetches_at_most_a_block_for_it() {
    let sizes = [7, 0, 1, 300, 20, 0, 0, 5, 64, 2, 9, 1, 33];
    let total: u64 = sizes.iter().sum::<usize>() as u64;
    let place = |offset: u64| {
        let mut left = offset;
        sizes.iter().enumerate().find_map(|(index, &size)| {
            let here = left < size as u64;
            let place = Place { block: index as u64, offset: left };
            left = left.wrapping_sub(size as u64);
            here.then_some(place)
        })
    };
    for offset in (1..total).step_by(3).chain([total - 1]) {
        let (mut stores, _) = pair(&blocks(sizes));
        let mut links = live(&mut stores);
        let id = stores[1].feeds().next().unwrap();
        let seek = want(&mut stores[1], id, Want::Byte(offset));
        run(&mut stores, &mut links, START);
        assert_eq!(stores[1].poll_want(), Some((seek, WantEnd::Found(place(offset).unwrap()))), "byte {offset}");
        assert!(stores[1].info(id).unwrap().downloaded <= 1);
        assert_eq!(stores[1].locate(id, offset).unwrap(), Located::At(place(offset).unwrap()));
    }
    // The end is the block after the last; past it there is nothing, until there is.
    let (mut stores, source) = pair(&blocks(sizes));
    let mut links = live(&mut stores);
    let id = stores[1].feeds().next().unwrap();
    let past = want(&mut stores[1], id, Want::Byte(total + 2));
    let gone = if_available(&mut stores[1], id, Want::Byte(total + 2));
    run(&mut stores, &mut links, START);
    assert_eq!(stores[1].poll_want(), Some((gone, WantEnd::Unavailable)));
    let end = want(&mut stores[1], id, Want::Byte(total));
    assert_eq!(stores[1].poll_want(), Some((end, WantEnd::Found(Place { block: 13, offset: 0 }))));
    stores[0].append(source, &blocks([1, 50])).unwrap();
    stores[0].commit(START);
    run(&mut stores, &mut links, START);
    assert_eq!(stores[1].poll_want(), Some((past, WantEnd::Found(Place { block: 14, offset: 1 }))));
}

#[test]
fn waiting_ends_in_time_and_where_nobody_has_it() {
    let mut alone = sparse();
    let id = alone.writer(Some("w"), || KeyPair::from_seed(&[1; 32])).unwrap();
    let given_up = if_available(&mut alone, id, Want::Block(0));
    assert_eq!(alone.poll_want(), Some((given_up, WantEnd::Unavailable)), "there is no session");
    let deadline = Some(Duration::from_secs(5));
    let late = alone.want(id, Want::Block(0), WantOptions { deadline, ..WantOptions::default() }).unwrap();
    let later = alone
        .want(id, Want::Length(1), WantOptions { deadline: Some(Duration::from_secs(6)), ..WantOptions::default() })
        .unwrap();
    assert_eq!(alone.poll_timeout(), deadline);
    alone.handle_timeout(Duration::from_millis(4_999));
    assert_eq!(alone.poll_want(), None);
    alone.handle_timeout(Duration::from_secs(5));
    assert_eq!(alone.poll_want(), Some((late, WantEnd::TimedOut)));
    alone.append(id, &blocks([1])).unwrap();
    alone.commit(Duration::from_secs(5));
    assert_eq!(alone.poll_want(), Some((later, WantEnd::Done)));
    assert_eq!(alone.poll_timeout(), None);

    // With a session: not before it has told what it has, and then what it lacks.
    let (mut stores, _) = pair(&blocks([10; 8]));
    live(&mut stores);
    hang_up(&mut stores);
    let id = stores[1].feeds().next().unwrap();
    let mut links = vec![Link::plain(&mut stores, [0, 1], Replicate::live())];
    while stores[1].peers(id).is_empty() {
        links[0].turn(&mut stores, START);
    }
    let there = if_available(&mut stores[1], id, Want::Block(3));
    let missing = if_available(&mut stores[1], id, Want::Block(8));
    let longer = if_available(&mut stores[1], id, Want::Length(9));
    assert_eq!(stores[1].poll_want(), None);
    run(&mut stores, &mut links, START);
    let mut ends: Vec<_> = std::iter::from_fn(|| stores[1].poll_want()).collect();
    ends.sort_by_key(|(want, _)| *want);
    assert_eq!(ends, [(there, WantEnd::Done), (missing, WantEnd::Unavailable), (longer, WantEnd::Unavailable)]);
}

#[test]
fn wants_are_bounded() {
    let mut options = Options::default();
    options.limits.wants = 2;
    let mut store: Store = Multifeed::open(MemoryStorage::default(), options).unwrap();
    let id = store.writer(Some("w"), || KeyPair::from_seed(&[1; 32])).unwrap();
    let first = want(&mut store, id, Want::Block(0));
    want(&mut store, id, Want::Block(1));
    let refused = store.want(id, Want::Block(2), WantOptions::default()).unwrap_err();
    assert_eq!(refused.code(), "ERR_LIMIT");
    assert_eq!(store.want(id, Want::Block(u64::MAX), WantOptions::default()).unwrap_err().code(), "ERR_OUT_OF_RANGE");
    store.unwant(first);
    want(&mut store, id, Want::Block(2));
}

#[test]
fn what_is_cleared_is_unheld_everywhere_and_can_come_back() {
    let (mut stores, source) = pair(&blocks([10; 20]));
    stores[1] = store();
    let mut links = live(&mut stores);
    let id = stores[1].feeds().next().unwrap();
    assert_eq!(stores[1].info(id).unwrap().downloaded, 20);
    stores[0].watch(source, true).unwrap();
    stores[1].watch(id, true).unwrap();

    assert_eq!(stores[1].clear(id, 5..15).unwrap(), 10);
    assert_eq!(stores[1].clear(id, 5..15).unwrap(), 0);
    assert_eq!(stores[1].count_held(id, 0..u64::MAX), 10);
    assert_eq!(stores[1].get(id, 7).unwrap(), None);
    assert_eq!(events(&mut stores[1]), [FeedEvent::Clear { blocks: 5..15 }]);
    // A third one hears which blocks the second still has.
    stores[0].clear(source, 0..3).unwrap();
    run(&mut stores, &mut links, START);
    assert_eq!(stores[1].info(id).unwrap().downloaded, 20, "fetched again, since the session is not sparse");

    // The next session fetches what is missing, but not what the other side gave up.
    hang_up(&mut stores);
    stores[1].clear(id, 0..10).unwrap();
    live(&mut stores);
    assert_eq!(held(&stores[1], id, 0..20), (3..20).collect::<Vec<_>>());
    let gone: Vec<_> = (0..20).filter(|&index| !stores[0].has(source, index)).collect();
    assert_eq!(gone, [0, 1, 2], "a writer does not fetch its own");
}

/// What is appended while a remote fetches nothing is fetched when it does again, however the messages meet.
#[test]
fn fetching_and_serving_can_end_and_begin_again() {
    let (mut stores, source) = pair(&blocks([10; 5]));
    stores[1] = store();
    // The reader's messages go first, so that they meet news that were not sent yet.
    let mut links = vec![Link::plain(&mut stores, [1, 0], Replicate::live())];
    run(&mut stores, &mut links, START);
    let id = stores[1].feeds().next().unwrap();
    let grow = |stores: &mut [Store], links: &mut [Link], turns: usize| {
        stores[0].append(source, &blocks([10; 5])).unwrap();
        stores[0].commit(START);
        for link in links.iter_mut() {
            (0..turns).for_each(|_| _ = link.turn(stores, START));
        }
    };
    for turns in [0, 1, 2, 3, 20] {
        stores[1].set_transfer(id, Some(false), None).unwrap();
        (0..turns / 2).for_each(|_| _ = links[0].turn(&mut stores, START));
        grow(&mut stores, &mut links, turns);
        stores[1].set_transfer(id, Some(true), None).unwrap();
        run(&mut stores, &mut links, START);
        assert_eq!(stores[1].info(id).unwrap().downloaded, stores[0].info(source).unwrap().len, "{turns} turns");
        stores[0].set_transfer(source, None, Some(false)).unwrap();
        grow(&mut stores, &mut links, turns);
        stores[0].set_transfer(source, None, Some(true)).unwrap();
        run(&mut stores, &mut links, START);
        assert_eq!(stores[1].info(id).unwrap().downloaded, stores[0].info(source).unwrap().len, "{turns} turns");
    }
    // At rest, nothing is fetched or served that was switched off.
    let before = stores[1].info(id).unwrap().downloaded;
    stores[1].set_transfer(id, Some(false), None).unwrap();
    run(&mut stores, &mut links, START);
    grow(&mut stores, &mut links, 0);
    run(&mut stores, &mut links, START);
    assert_eq!(stores[1].info(id).unwrap().downloaded, before);
    stores[0].set_transfer(source, None, Some(false)).unwrap();
    stores[1].set_transfer(id, Some(true), None).unwrap();
    run(&mut stores, &mut links, START);
    assert_eq!(stores[1].info(id).unwrap().downloaded, before);
}

/// More runs of cleared blocks than are reported one by one: the remote ends with the same picture all the same.
#[test]
fn many_scattered_blocks_are_given_up_in_few_messages() {
    let mut options = Options::default();
    options.limits.announcements_queued = 4;
    let mut source: Store = Multifeed::open(MemoryStorage::default(), options).unwrap();
    let writer = source.writer(Some("w"), || KeyPair::from_seed(&[1; 32])).unwrap();
    source.append(writer, &blocks(vec![3; 200])).unwrap();
    source.commit(START);
    let mut stores = [source, sparse()];
    let mut links = live(&mut stores);
    let id = stores[1].feeds().next().unwrap();
    let longer = want(&mut stores[1], id, Want::Length(200));
    run(&mut stores, &mut links, START);
    assert_eq!(stores[1].poll_want(), Some((longer, WantEnd::Done)));
    for index in (0..200).filter(|index| index % 3 == 0) {
        stores[0].clear(writer, index..index + 1).unwrap();
    }
    // New blocks that go again before they were announced to anyone.
    stores[0].append(writer, &blocks(vec![3; 10])).unwrap();
    stores[0].commit(START);
    stores[0].clear(writer, 203..208).unwrap();
    run(&mut stores, &mut links, START);
    for index in 0..210 {
        let asked = if_available(&mut stores[1], id, Want::Block(index));
        run(&mut stores, &mut links, START);
        let end = if stores[0].has(writer, index) { WantEnd::Done } else { WantEnd::Unavailable };
        assert_eq!(stores[1].poll_want(), Some((asked, end)), "block {index}");
    }
    assert_eq!(held(&stores[1], id, 0..210), held(&stores[0], writer, 0..210));
}

#[test]
fn bytes_at_the_end_of_a_cleared_feed_go_back_and_it_opens_and_grows() {
    let mut writer = store();
    let id = writer.writer(Some("w"), || KeyPair::from_seed(&[1; 32])).unwrap();
    writer.append(id, &blocks([10; 10])).unwrap();
    let data = FileId::new(Slot(0), FileKind::Data);
    writer.clear(id, 2..4).unwrap();
    assert_eq!(writer.storage().contents(data).unwrap().len(), 100, "something follows them");
    writer.clear(id, 6..100).unwrap();
    assert_eq!(writer.storage().contents(data).unwrap().len(), 60);
    writer.clear(id, 0..6).unwrap();
    assert_eq!(writer.storage().contents(data).unwrap().len(), 0);

    let mut disk = writer.storage().clone();
    disk.reopen();
    let mut writer: Store = Multifeed::open(disk, Options::default()).unwrap();
    assert!(writer.problems().is_empty() && writer.recovered().is_empty(), "{:?}", writer.recovered());
    let id = writer.find_name("w").unwrap();
    assert_eq!(
        (writer.info(id).unwrap().len, writer.info(id).unwrap().downloaded, writer.info(id).unwrap().byte_len),
        (10, 0, 100)
    );
    writer.append(id, &blocks([4; 3])).unwrap();
    assert_eq!(writer.get(id, 12).unwrap().unwrap(), vec![2; 4]);
    let mut disk = writer.storage().clone();
    disk.reopen();
    let mut writer: Store = Multifeed::open(disk, Options::default()).unwrap();
    assert!(writer.recovered().is_empty());
    let id = writer.find_name("w").unwrap();
    assert_eq!(held(&writer, id, 0..13), [10, 11, 12]);
    assert_eq!(writer.get(id, 10).unwrap().unwrap(), vec![0; 4]);
}

#[test]
fn an_audit_gives_up_what_rotted_and_the_next_sync_brings_it_back() {
    let (mut stores, _) = pair(&blocks([10; 20]));
    stores[1] = store();
    live(&mut stores);
    hang_up(&mut stores);
    // Else opening would check it, as after a crash.
    stores[1].sync().unwrap();
    let mut disk = stores[1].storage().clone();
    let data = FileId::new(Slot(0), FileKind::Data);
    for block in [3, 4, 11] {
        disk.write_at(data, block * 10 + 5, &[99]).unwrap();
    }
    disk.reopen();
    stores[1] = Multifeed::open(disk, Options::default()).unwrap();
    let id = stores[1].feeds().next().unwrap();
    let (mut valid, mut invalid, mut dropped, mut from, mut steps) = (0, 0, Vec::new(), Some(0), 0);
    while let Some(next) = from {
        let step = stores[1].audit_step(id, next, 1_000).unwrap();
        valid += step.valid;
        invalid += step.invalid;
        dropped.extend(step.dropped.into_iter().flatten());
        from = step.next;
        steps += 1;
    }
    assert_eq!((valid, invalid, dropped), (17, 3, vec![3, 4, 11]));
    assert!(steps > 2, "in slices");
    assert_eq!(stores[1].info(id).unwrap().downloaded, 17);
    live(&mut stores);
    assert_eq!(stores[1].info(id).unwrap().downloaded, 20);
    assert_eq!(stores[1].audit_step(id, 0, usize::MAX).unwrap().invalid, 0);
}

#[test]
fn what_happens_to_a_feed_is_told_to_who_watches() {
    let (mut stores, source) = pair(&blocks([10; 20]));
    stores[0].watch(source, true).unwrap();
    stores[1] = store();
    let mut links = live(&mut stores);
    let id = stores[1].feeds().next().unwrap();
    let peer = stores[0].peers(source)[0].0;
    let told = events(&mut stores[0]);
    assert_eq!(told.first(), Some(&FeedEvent::PeerOpen { peer }));
    let sent: u64 = told
        .iter()
        .map(|event| if let FeedEvent::Upload { blocks } = event { blocks.end - blocks.start } else { 0 })
        .sum();
    assert_eq!(sent, 20);
    assert_eq!(events(&mut stores[1]), [], "nobody watched");

    stores[1].watch(id, true).unwrap();
    stores[0].append(source, &blocks([10; 2])).unwrap();
    stores[0].commit(START);
    run(&mut stores, &mut links, START);
    assert_eq!(events(&mut stores[0])[0], FeedEvent::Append { len: 22 });
    let peer = stores[1].peers(id)[0].0;
    let told = events(&mut stores[1]);
    assert_eq!(told[0], FeedEvent::RemoteUpdate { peer, len: 22 });
    assert_eq!(told.last(), Some(&FeedEvent::Sync));
    assert!(told.contains(&FeedEvent::Append { len: 22 }), "{told:?}");
    let came: Vec<u64> = told
        .into_iter()
        .flat_map(|event| if let FeedEvent::Download { blocks } = event { blocks } else { 0..0 })
        .collect();
    assert_eq!(came, [20, 21]);
    let info = stores[1].peers(id)[0].1;
    assert!(info.opened && info.downloading && info.uploading && info.remote_uploading, "{info:?}");
    assert_eq!((info.remote_len, info.missing, info.in_flight), (22, 0, 0));
    stores[1].disconnect(peer);
    assert_eq!(events(&mut stores[1]), [FeedEvent::PeerClose { peer }]);
}

#[test]
fn events_that_nobody_takes_are_bounded() {
    let mut options = Options::default();
    options.limits.feed_events = 8;
    let mut writer: Store = Multifeed::open(MemoryStorage::default(), options).unwrap();
    let id = writer.writer(Some("w"), || KeyPair::from_seed(&[1; 32])).unwrap();
    writer.watch(id, true).unwrap();
    for _ in 0..100 {
        writer.append(id, &blocks([1, 1])).unwrap();
        writer.commit(START);
        let len = writer.info(id).unwrap().len;
        writer.clear(id, len - 1..len).unwrap();
    }
    let told = events(&mut writer);
    assert_eq!(told.len(), 9);
    assert_eq!(told[0], FeedEvent::Lagged { missed: 192 });
    assert_eq!(told[8], FeedEvent::Clear { blocks: 199..200 });
}

fn wants_strategy() -> impl Strategy<Value = Want> {
    prop_oneof![
        (0..60u64).prop_map(Want::Block),
        prop::collection::vec(0..60u64, 0..5).prop_map(Want::Blocks),
        (0..60u64, 0..20u64).prop_map(|(start, len)| Want::Range { start, end: Some(start + len) }),
        (0..60u64).prop_map(|start| Want::Range { start, end: None }),
    ]
}

fn asked(want: &Want) -> BTreeSet<u64> {
    match want {
        Want::Block(index) => BTreeSet::from([*index]),
        Want::Blocks(blocks) => blocks.iter().copied().collect(),
        Want::Range { start, end } => (*start..end.unwrap_or(100)).collect(),
        _ => BTreeSet::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is asked for, taken back and cleared, of however many that have however much. What is held in the end is what is
    /// asked for and anybody has, and nothing else.
    #[test]
    fn what_is_held_is_what_was_asked_for(
        count in 1..50usize,
        cleared in (0..50u64, 0..20u64),
        steps in prop::collection::vec((wants_strategy(), 0..4u8), 1..12),
    ) {
        let (mut stores, source) = pair(&blocks(vec![3; count]));
        stores[0].clear(source, cleared.0..cleared.0 + cleared.1).unwrap();
        let id = stores[1].add(stores[0].info(source).unwrap().key).unwrap();
        let mut links = live(&mut stores);
        let there: BTreeSet<u64> = (0..count as u64).filter(|&index| stores[0].has(source, index)).collect();
        let mut open: Vec<(WantId, Want)> = Vec::new();
        let mut expected = BTreeSet::new();
        for (what, step) in steps {
            if step == 0 && !open.is_empty() {
                let (id, _) = open.remove(0);
                stores[1].unwant(id);
            } else {
                open.push((want(&mut stores[1], id, what.clone()), what));
            }
            // What was asked for before this came to rest may have come.
            if step > 1 {
                run(&mut stores, &mut links, START);
                for (_, want) in &open {
                    expected.extend(asked(want).intersection(&there));
                }
                let now: BTreeSet<u64> = (0..100).filter(|&index| stores[1].has(id, index)).collect();
                prop_assert_eq!(&now, &expected);
                let ended: BTreeSet<WantId> = std::iter::from_fn(|| stores[1].poll_want()).map(|(id, _)| id).collect();
                for (id, want) in &open {
                    let endless = matches!(want, Want::Range { end: None, .. });
                    prop_assert_eq!(ended.contains(id), !endless && asked(want).is_subset(&now), "{:?}", want);
                }
                open.retain(|(id, _)| !ended.contains(id));
            }
        }
    }

    /// Of several remotes, each of which has a part: what is asked for comes once, from whoever has it, though they leave and come.
    #[test]
    fn what_is_asked_for_comes_from_whoever_has_it(
        count in 1..50usize,
        cleared in prop::collection::vec((0..50u64, 0..30u64), 2),
        wanted in prop::collection::vec(wants_strategy(), 1..8),
        leaves in any::<bool>(),
    ) {
        let ([source, _], id) = pair(&blocks(vec![3; count]));
        let mut stores = [source, store(), sparse()];
        run_once(&mut stores, [0, 1]);
        let copy = stores[1].feeds().next().unwrap();
        let there = |store: &Store, id| (0..count as u64).filter(|&at| store.has(id, at)).collect::<BTreeSet<u64>>();
        for ((store, id), (start, length)) in stores.iter_mut().zip([id, copy]).zip(&cleared) {
            store.clear(id, *start..start + length).unwrap();
        }
        let expected: BTreeSet<u64> = &there(&stores[0], id) | &there(&stores[1], copy);
        let target = stores[2].add(stores[0].info(id).unwrap().key).unwrap();
        let mut links: Vec<Link> =
            [0, 1].map(|side| Link::plain(&mut stores, [side, 2], Replicate::live())).into_iter().collect();
        run(&mut stores, &mut links, START);
        for what in &wanted {
            want(&mut stores[2], target, what.clone());
        }
        if leaves {
            // The requests to the first one are free for the other, and what only the first one had comes when it is back.
            let link = links.remove(0);
            stores[2].disconnect(link.ends[1].1.peer());
            run(&mut stores, &mut links, START);
            links.push(Link::plain(&mut stores, [0, 2], Replicate::live()));
        }
        run(&mut stores, &mut links, START);
        let asked: BTreeSet<u64> = wanted.iter().flat_map(asked).collect();
        let held: BTreeSet<u64> = (0..100).filter(|&index| stores[2].has(target, index)).collect();
        prop_assert_eq!(held, &asked & &expected);
    }
}

/// One session of two of the stores, until it ends by itself.
fn run_once(stores: &mut [Store], ends: [usize; 2]) {
    let mut links = [Link::plain(stores, ends, Replicate::default())];
    run(stores, &mut links, START);
    links[0].totals(0);
}
