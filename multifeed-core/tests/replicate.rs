//! Two multifeeds and more on one thread and virtual time, joined by their sessions' bytes.

use crate::link;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use link::{Link, Store, run, store};
use multifeed_core::limits::MAX_BLOCK_BYTES;
use multifeed_core::merkle::{self, leaf_hash};
use multifeed_core::{
    FeedId, FileId, FileKind, KeyPair, MemoryStorage, Multifeed, MultifeedEvent, Options, PeerEvent, Replicate, Slot,
    Storage, SyncError, SyncTotals,
};
use multifeed_proto::{Config, Fault, FeedKey, Node};

fn writer(store: &mut Store, name: &str, seed: u8) -> FeedId {
    store.writer(Some(name), || KeyPair::from_seed(&[seed; 32])).unwrap()
}

fn blocks(from: u64, count: u64, size: usize) -> Vec<Bytes> {
    (from..from + count).map(|index| index.to_le_bytes().iter().copied().cycle().take(size).collect()).collect()
}

fn contents(store: &mut Store) -> BTreeMap<FeedKey, Vec<Option<Bytes>>> {
    let ids: Vec<FeedId> = store.feeds().collect();
    ids.into_iter()
        .map(|id| {
            let info = store.info(id).unwrap();
            (info.key, (0..info.len).map(|index| store.get(id, index).unwrap()).collect())
        })
        .collect()
}

fn sync(stores: &mut [Store], options: Replicate) -> Link {
    let mut link = Link::plain(stores, [0, 1], options);
    run(stores, std::slice::from_mut(&mut link), Duration::ZERO);
    link
}

fn assert_equal(stores: &mut [Store]) {
    let first = contents(&mut stores[0]);
    assert!(first.values().flatten().all(Option::is_some), "the first store has holes");
    for (number, store) in stores.iter_mut().enumerate().skip(1) {
        assert_eq!(contents(store), first, "store {number}");
    }
}

#[test]
fn two_empty_stores_end() {
    let mut stores = [store(), store()];
    let link = sync(&mut stores, Replicate::default());
    assert_eq!(link.totals(0), &SyncTotals::default());
    assert_eq!(link.totals(1), &SyncTotals::default());
}

#[test]
fn every_number_of_blocks_arrives_and_both_sides_end() {
    for count in [0, 1, 2, 3, 7, 8, 16, 17, 64, 65, 1000, 9000] {
        let mut stores = [store(), store()];
        let id = writer(&mut stores[0], "local", 1);
        stores[0].append(id, &blocks(0, count, 50)).unwrap();
        let link = sync(&mut stores, Replicate::default());
        match count {
            // Of an empty feed nothing is kept.
            0 => assert_eq!(stores[1].feeds().count(), 0),
            _ => assert_equal(&mut stores),
        }
        assert_eq!(link.totals(0).blocks_sent, count);
        assert_eq!((link.totals(1).blocks_received, link.totals(1).bytes_received), (count, count * 50));
        assert_eq!(link.totals(1).feeds, 1);
    }
}

#[test]
fn writers_on_both_sides_and_every_chunking() {
    for chunk in [1, 7, 100, 5000, 1 << 20] {
        let mut stores = [store(), store()];
        for (side, store) in stores.iter_mut().enumerate() {
            for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
                let id = writer(store, name, (side * 3 + number) as u8);
                store.append(id, &blocks(0, 5 * number as u64, 300)).unwrap();
                store.append(id, &blocks(100, 1, 0)).unwrap();
            }
        }
        let mut link = Link::plain(&mut stores, [1, 0], Replicate::default());
        link.chunk = chunk;
        run(&mut stores, std::slice::from_mut(&mut link), Duration::ZERO);
        assert_equal(&mut stores);
        assert_eq!(link.totals(0).blocks_received, 18);
        assert_eq!(link.totals(1).blocks_received, 18);
    }
}

#[test]
fn a_live_session_carries_late_writers_and_late_blocks() {
    let mut stores = [store(), store()];
    let id = writer(&mut stores[0], "early", 1);
    stores[0].append(id, &blocks(0, 3, 10)).unwrap();
    let mut links = [Link::plain(&mut stores, [0, 1], Replicate::live())];
    run(&mut stores, &mut links, Duration::ZERO);
    assert_equal(&mut stores);
    for turn in 1..20 {
        stores[0].append(id, &blocks(turn * 10, turn, 10)).unwrap();
        let late = writer(&mut stores[1], &format!("late {turn}"), 100 + turn as u8);
        run(&mut stores, &mut links, Duration::ZERO);
        stores[1].append(late, &blocks(0, 2, 20)).unwrap();
        run(&mut stores, &mut links, Duration::ZERO);
        assert_equal(&mut stores);
    }
    assert!(links[0].result(0).is_none() && links[0].result(1).is_none(), "a live session ended");
    let peer = links[0].ends[0].1.peer();
    stores[0].finish(peer);
    run(&mut stores, &mut links, Duration::ZERO);
    assert_eq!(links[0].totals(1).feeds, 20);
    links[0].totals(0);
}

#[test]
fn a_session_that_is_live_on_one_side_only_ends() {
    for live in [0, 1] {
        for writing in [0, 1] {
            let mut stores = [store(), store()];
            let id = writer(&mut stores[writing], "local", 1);
            stores[writing].append(id, &blocks(0, 300, 100)).unwrap();
            let mut options = [Replicate::default(), Replicate::default()];
            options[live].live = true;
            let mut links = [Link::new(&mut stores, [0, 1], options, Default::default())];
            run(&mut stores, &mut links, Duration::ZERO);
            assert_equal(&mut stores);
            assert_eq!(links[0].totals(0).feeds, 1, "live side {live}, writer {writing}");
            assert_eq!(links[0].totals(1).feeds, 1);
        }
    }
}

#[test]
fn blocks_go_on_from_store_to_store() {
    let mut stores = [store(), store(), store()];
    let live = Replicate::live();
    let mut links = [Link::plain(&mut stores, [0, 1], live.clone()), Link::plain(&mut stores, [1, 2], live)];
    run(&mut stores, &mut links, Duration::ZERO);
    let id = writer(&mut stores[0], "first", 1);
    let last = writer(&mut stores[2], "last", 2);
    for turn in 0..10 {
        stores[0].append(id, &blocks(turn * 40, 40, 10)).unwrap();
        stores[2].append(last, &blocks(turn, 1, 10)).unwrap();
        run(&mut stores, &mut links, Duration::ZERO);
        assert_equal(&mut stores);
    }
}

#[test]
fn two_remotes_share_the_work_and_one_that_vanishes_is_replaced() {
    let mut stores = [store(), store(), store()];
    let id = writer(&mut stores[0], "first", 1);
    stores[0].append(id, &blocks(0, 3000, 100)).unwrap();
    sync(&mut stores[..2], Replicate::default());
    let mut links =
        vec![Link::plain(&mut stores, [0, 2], Replicate::live()), Link::plain(&mut stores, [1, 2], Replicate::live())];
    let received = |stores: &[Store]| stores[2].feeds().map(|id| stores[2].info(id).unwrap().downloaded).sum::<u64>();
    while received(&stores) < 500 {
        assert!(links.iter_mut().fold(false, |moved, link| link.turn(&mut stores, Duration::ZERO) | moved));
    }
    // The first remote is gone without a word: what it was asked for is asked of the second.
    let gone = links.remove(0);
    for (store, connection) in gone.ends {
        connection.close(&mut stores[store]);
    }
    run(&mut stores, &mut links, Duration::ZERO);
    assert_equal(&mut stores);
}

#[test]
fn a_remote_that_does_not_answer_is_passed_over_in_time() {
    let mut stores = [store(), store(), store()];
    let id = writer(&mut stores[0], "first", 1);
    stores[0].append(id, &blocks(0, 200, 100)).unwrap();
    sync(&mut stores[..2], Replicate::default());
    let mut links =
        vec![Link::plain(&mut stores, [0, 2], Replicate::live()), Link::plain(&mut stores, [1, 2], Replicate::live())];
    while stores[2].feeds().all(|id| stores[2].info(id).unwrap().downloaded < 10) {
        assert!(links.iter_mut().fold(false, |moved, link| link.turn(&mut stores, Duration::ZERO) | moved));
    }
    let _silent = links.remove(0);
    run(&mut stores, &mut links, Duration::ZERO);
    assert_eq!(stores[2].poll_timeout(), Some(Duration::from_secs(2)));
    for second in (2..40).step_by(2) {
        stores[2].handle_timeout(Duration::from_secs(second));
        stores[2].poll_timeout();
        run(&mut stores, &mut links, Duration::from_secs(second));
    }
    assert_equal(&mut stores);
}

#[test]
fn holes_that_nobody_can_fill_do_not_keep_a_session_open_and_are_named() {
    let mut stores = [store(), store(), store()];
    let id = writer(&mut stores[0], "first", 1);
    stores[0].append(id, &blocks(0, 300, 1000)).unwrap();
    // The second store gets a part only: its session is cut.
    let mut links = [Link::plain(&mut stores, [0, 1], Replicate::default())];
    while stores[1].feeds().all(|id| stores[1].info(id).unwrap().downloaded < 100) {
        links[0].turn(&mut stores, Duration::ZERO);
    }
    let [link] = links;
    for (store, connection) in link.ends {
        connection.close(&mut stores[store]);
    }
    let partial = stores[1].info(stores[1].feeds().next().unwrap()).unwrap();
    assert!((100..300).contains(&partial.downloaded));
    let mut links = [Link::plain(&mut stores, [1, 2], Replicate::default())];
    run(&mut stores, &mut links, Duration::ZERO);
    let lacking = 300 - partial.downloaded;
    assert_eq!(links[0].totals(1).blocks_received, partial.downloaded);
    for side in [0, 1] {
        let [holes] = &links[0].totals(side).holes[..] else { panic!("{:?}", links[0].totals(side)) };
        assert_eq!((holes.key, holes.blocks, holes.unlisted), (partial.key, lacking, 0));
        let named: Vec<u64> = holes.ranges.iter().cloned().flatten().collect();
        let id = stores[1 + side].feeds().next().unwrap();
        let missing: Vec<u64> = (0..300).filter(|&index| !stores[1 + side].has(id, index)).collect();
        assert_eq!(named, missing);
    }
}

#[test]
fn another_root_key_ends_both_without_harm() {
    let mut stores = [store(), store()];
    writer(&mut stores[0], "local", 1);
    let configs = [Config::default(), Config::new("42".repeat(32).parse().unwrap())];
    let mut links = [Link::new(&mut stores, [0, 1], Default::default(), configs)];
    // Each waits for a moment, as the other may have several root keys.
    for seconds in [0, 1, 3].map(Duration::from_secs) {
        links[0].ends.iter_mut().for_each(|(_, end)| end.session().handle_timeout(seconds));
        run(&mut stores, &mut links, seconds);
    }
    for (side, store) in stores.iter().enumerate() {
        assert_eq!(links[0].error(side).code(), "ERR_ROOT_KEY_MISMATCH");
        assert_ne!(links[0].error(side).us(), links[0].error(side).them());
        assert_eq!(store.feeds().count(), 1 - side);
    }
}

#[test]
fn download_and_upload_can_be_refused() {
    for (download, upload) in [(Some(false), None), (None, Some(false))] {
        let mut stores = [store(), store()];
        let id = writer(&mut stores[0], "local", 1);
        stores[0].append(id, &blocks(0, 30, 10)).unwrap();
        let sender = Replicate { upload, ..Replicate::default() };
        let receiver = Replicate { download, ..Replicate::default() };
        let mut links = [Link::new(&mut stores, [0, 1], [sender, receiver], Default::default())];
        run(&mut stores, &mut links, Duration::ZERO);
        assert_eq!(links[0].totals(1).blocks_received, 0);
        assert_eq!(links[0].totals(0).blocks_sent, 0);
        assert_eq!(stores[1].feeds().count(), 0);
    }
}

#[test]
fn a_tampered_block_ends_the_session_by_name_and_harms_no_store() {
    let mut stores = [store(), store()];
    let id = writer(&mut stores[0], "local", 1);
    let block: Bytes = vec![0x5a; 4000].into();
    stores[0].append(id, &[block]).unwrap();
    let mut link = Link::plain(&mut stores, [0, 1], Replicate::default());
    let mut flipped = false;
    for _ in 0..100 {
        // The cipher has no MAC: a bit flipped inside the block's bytes arrives as such.
        if !flipped && link.wires[0].len() > 3000 {
            link.wires[0][2000] ^= 1;
            flipped = true;
        }
        // The wire is filled and drained within a turn, so it is slowed down.
        link.chunk = if flipped { 1 << 20 } else { 50 };
        link.turn(&mut stores, Duration::ZERO);
    }
    assert!(flipped);
    let error = link.error(1);
    assert_eq!(error.code(), "ERR_PROOF");
    assert!(matches!(error, SyncError::Session(error) if error.fault() == Fault::Remote));
    assert_eq!(stores[1].feeds().count(), 0);
    sync(&mut stores, Replicate::default());
    assert_equal(&mut stores);
}

#[test]
fn events_name_new_feeds_and_tell_progress() {
    let mut stores = [store(), store()];
    let id = writer(&mut stores[0], "local", 1);
    let key = stores[0].info(id).unwrap().key;
    stores[0].append(id, &blocks(0, 3, 10)).unwrap();
    let link = sync(&mut stores, Replicate::default());
    let told: Vec<_> = link.events[1]
        .iter()
        .filter(|event| matches!(event, PeerEvent::Feed { .. } | PeerEvent::RemoteFeeds { .. }))
        .collect();
    assert!(matches!(told[0], PeerEvent::RemoteFeeds { keys } if keys == &[key]), "{told:?}");
    assert!(matches!(told[1], PeerEvent::Feed { key: k, name } if *k == key && name == "0"), "{told:?}");
    let last = link.events[1].iter().rev().find_map(|event| match event {
        PeerEvent::Progress(progress) => Some(*progress),
        _ => None,
    });
    let last = last.expect("progress");
    assert_eq!((last.moved.blocks_received, last.moved.bytes_received, last.missing_here), (3, 30, 0));
    let mut events = Vec::new();
    while let Some(event) = stores[1].poll_event() {
        events.push(event);
    }
    let id = stores[1].find(&key).unwrap();
    assert_eq!(events, [MultifeedEvent::Feed { id, key, name: "0".into() }, MultifeedEvent::Blocks { id }]);
}

#[test]
fn a_store_closed_and_opened_again_is_the_same() {
    let mut stores = [store(), store()];
    let id = writer(&mut stores[0], "local", 1);
    stores[0].append(id, &blocks(0, 100, 10)).unwrap();
    sync(&mut stores, Replicate::default());
    let before = contents(&mut stores[1]);
    let disk = stores[1].storage().clone();
    let mut again = Multifeed::open(disk, Options::default()).unwrap();
    assert!(again.problems().is_empty() && again.recovered().is_empty());
    assert_eq!(contents(&mut again), before);
}

#[test]
fn a_feed_of_empty_blocks_has_its_data_file() {
    // JS reads an empty block from `data` all the same, and takes the block for damaged if there is no such file.
    let mut stores = [store(), store()];
    let id = writer(&mut stores[0], "local", 1);
    stores[0].append(id, &[Bytes::new()]).unwrap();
    sync(&mut stores, Replicate::default());
    let mut disk = stores[1].storage().clone();
    assert_eq!(disk.len(FileId::new(Slot(0), FileKind::Data)).unwrap(), Some(0));
}

#[test]
fn blocks_that_no_message_can_carry_are_not_announced_and_told_by_name() {
    // JS appends up to 8 MiB; the message with its proof would pass what JS itself accepts.
    let mut stores = [store(), store()];
    let id = writer(&mut stores[0], "local", 1);
    let key = stores[0].info(id).unwrap().key;
    stores[0].append(id, &blocks(0, 2, 10)).unwrap();
    let error = stores[0].append(id, &[vec![0; MAX_BLOCK_BYTES + 1].into()]).unwrap_err();
    assert_eq!(error.code(), "ERR_BLOCK_TOO_LARGE");
    let mut disk = stores[0].storage().clone();
    write_oversized(&mut disk);
    stores[0] = Multifeed::open(disk, Options::default()).unwrap();
    let id = stores[0].find(&key).unwrap();
    assert_eq!(stores[0].info(id).unwrap().len, 3);
    let link = sync(&mut stores, Replicate::default());
    let told = link.events[0].iter().find_map(|event| match event {
        PeerEvent::TooLarge { key, index, size } => Some((*key, *index, *size)),
        _ => None,
    });
    assert_eq!(told, Some((key, 2, MAX_BLOCK_BYTES as u64 + 1)));
    assert_eq!(link.totals(1).blocks_received, 2);
    let [holes] = &link.totals(1).holes[..] else { panic!("{:?}", link.totals(1)) };
    assert_eq!((holes.key, holes.blocks, holes.ranges.len(), holes.ranges[0].start), (key, 1, 1, 2));
}

/// Appends a block as JS would that ours refuses: the files of the feed with one more leaf, root and signature.
fn write_oversized(disk: &mut MemoryStorage) {
    let file = |kind| FileId::new(Slot(0), kind);
    let block = vec![7; MAX_BLOCK_BYTES + 1];
    let mut nodes = [0; 2 * 40];
    let mut read = |kind, offset, buf: &mut [u8]| assert_eq!(disk.read_at(file(kind), offset, buf).unwrap(), buf.len());
    read(FileKind::Tree, 32 + 40, &mut nodes[..40]);
    let mut secret = [0; 64];
    read(FileKind::SecretKey, 0, &mut secret);
    let node = |index, bytes: &[u8]| Node {
        index,
        hash: bytes[..32].try_into().unwrap(),
        size: u64::from_be_bytes(bytes[32..40].try_into().unwrap()),
    };
    let leaf = Node { index: 4, hash: leaf_hash(&block), size: block.len() as u64 };
    let root = merkle::root_hash(&[node(1, &nodes), leaf]);
    let pair = KeyPair::from_secret_key(&secret).unwrap();
    let signature = pair.sign(&merkle::signable(&root, 3));
    disk.write_at(file(FileKind::Data), 20, &block).unwrap();
    disk.write_at(file(FileKind::Tree), 32 + 4 * 40, &[&leaf.hash[..], &leaf.size.to_be_bytes()].concat()).unwrap();
    disk.write_at(file(FileKind::Signatures), 32 + 2 * 64, &signature).unwrap();
    // Blocks 0 to 2; nodes 0 to 2 and 4; the index's first byte stays "mixed".
    disk.write_at(file(FileKind::Bitfield), 32, &[0b1110_0000]).unwrap();
    disk.write_at(file(FileKind::Bitfield), 32 + 1024, &[0b1110_1000]).unwrap();
}

#[test]
fn a_folder_whose_creation_was_cut_gives_its_number_to_the_last_one() {
    // A crash in the middle of a creation. JS would take the folder for the end of the store, and overwrite what follows.
    let mut stores = [store(), store()];
    for (name, seed) in [("a", 1), ("b", 2)] {
        let id = writer(&mut stores[0], name, seed);
        stores[0].append(id, &blocks(0, 1, 10)).unwrap();
    }
    sync(&mut stores, Replicate::default());
    let mut disk = stores[1].storage().clone();
    disk.remove(Slot(0)).unwrap();
    disk.truncate(FileId::new(Slot(0), FileKind::Key), 0).unwrap();
    let mut again = Multifeed::open(disk, Options::default()).unwrap();
    assert!(again.problems().is_empty(), "nothing was lost with it: {:?}", again.problems());
    assert_eq!(again.feeds().map(|id| again.info(id).unwrap().name).collect::<Vec<_>>(), ["0"]);
    let id = writer(&mut again, "c", 3);
    again.append(id, &blocks(0, 1, 10)).unwrap();
    let again = Multifeed::open(again.storage().clone(), Options::default()).unwrap();
    assert!(again.problems().is_empty());
    assert_eq!(again.feeds().map(|id| again.info(id).unwrap().name).collect::<Vec<_>>(), ["0", "c"]);
}

#[test]
fn a_folder_without_a_key_that_holds_blocks_stays() {
    let mut stores = [store(), store()];
    let id = writer(&mut stores[0], "a", 1);
    stores[0].append(id, &blocks(0, 1, 10)).unwrap();
    sync(&mut stores, Replicate::default());
    // Else it would be what a power cut left of a feed that was new.
    stores[1].sync().unwrap();
    let mut disk = stores[1].storage().clone();
    disk.truncate(FileId::new(Slot(0), FileKind::Key), 0).unwrap();
    let mut again = Multifeed::open(disk, Options::default()).unwrap();
    assert_eq!(again.problems().iter().map(|problem| problem.code()).collect::<Vec<_>>(), ["ERR_STORE_DAMAGED"]);
    let id = writer(&mut again, "b", 2);
    assert_eq!(again.storage().clone().list().unwrap(), [Slot(0), Slot(1)]);
    // JS ends at a folder without a key: the feeds come before it.
    assert_eq!((again.info(id).unwrap().name.as_str(), again.slot_of(id).unwrap()), ("b", Slot(0)));
    assert_eq!(again.storage().clone().len(FileId::new(Slot(1), FileKind::Data)).unwrap(), Some(10));
    assert_eq!(again.problems()[0].slot(), Some(Slot(1)));
}

#[test]
fn a_writer_that_cannot_be_opened_is_not_replaced_by_another_of_its_name() {
    let mut first = store();
    let id = writer(&mut first, "w", 1);
    first.append(id, &blocks(0, 3, 10)).unwrap();
    let mut disk = first.storage().clone();
    disk.truncate(FileId::new(Slot(0), FileKind::SecretKey), 10).unwrap();
    let mut again = Multifeed::open(disk, Options::default()).unwrap();
    let error = again.writer(Some("w"), || KeyPair::from_seed(&[2; 32])).unwrap_err();
    assert_eq!(error.code(), "ERR_STORE_DAMAGED");
    let shown: Vec<_> = again.feeds().map(|id| again.info(id).unwrap()).collect();
    assert!(shown.len() == 1 && shown[0].len == 3 && !shown[0].writable, "{shown:?}");
    writer(&mut again, "another", 2);
}

#[test]
fn remotes_cannot_keep_the_owner_from_writing() {
    let mut options = Options::default();
    options.limits.feeds = 3;
    let mut stores = [store(), Multifeed::open(MemoryStorage::default(), options).unwrap()];
    for seed in 0..5 {
        let id = writer(&mut stores[0], &format!("w{seed}"), seed);
        stores[0].append(id, &blocks(0, 1, 10)).unwrap();
    }
    for live in [false, true] {
        let mut links = [Link::plain(&mut stores, [0, 1], Replicate { live, ..Replicate::default() })];
        run(&mut stores, &mut links, Duration::ZERO);
        assert_eq!(stores[1].feeds().count(), 3);
        let reached =
            |event: &&PeerEvent| matches!(event, PeerEvent::LimitReached(error) if error.code() == "ERR_LIMIT");
        assert_eq!(links[0].events[1].iter().filter(reached).count(), 1);
        // The feeds that are here go on.
        let ids: Vec<FeedId> = stores[0].feeds().collect();
        for &id in &ids {
            let len = stores[0].info(id).unwrap().len;
            stores[0].append(id, &blocks(len, 1, 10)).unwrap();
        }
        stores[0].commit(Duration::ZERO);
        run(&mut stores, &mut links, Duration::ZERO);
        if !live {
            assert!((0..2).all(|side| links[0].totals(side).holes.is_empty()));
            links = [sync(&mut stores, Replicate::default())];
        }
        let len = stores[0].info(ids[0]).unwrap().len;
        assert!(stores[1].feeds().all(|id| stores[1].info(id).unwrap().downloaded == len), "{:?}", links[0].events[1]);
    }
    writer(&mut stores[1], "own", 99);
}

#[test]
fn a_block_that_rotted_is_our_own_fault_and_is_neither_read_nor_served() {
    let mut stores = [store(), store()];
    let id = writer(&mut stores[0], "w", 1);
    stores[0].append(id, &blocks(0, 30, 100)).unwrap();
    // What is not synced would be cut off, as after a crash.
    stores[0].sync().unwrap();
    let mut disk = stores[0].storage().clone();
    disk.write_at(FileId::new(Slot(0), FileKind::Data), 1_550, b"?").unwrap();
    stores[0] = Multifeed::open(disk, Options::default()).unwrap();
    let id = writer(&mut stores[0], "w", 1);
    assert_eq!(stores[0].get(id, 15).unwrap_err().code(), "ERR_STORE_DAMAGED");
    assert_eq!(stores[0].get(id, 14).unwrap().unwrap().len(), 100);
    let other = writer(&mut stores[0], "other", 2);
    stores[0].append(other, &blocks(0, 30, 100)).unwrap();
    let theirs = writer(&mut stores[1], "theirs", 3);
    stores[1].append(theirs, &blocks(0, 30, 100)).unwrap();
    for live in [false, true] {
        let mut links = [Link::plain(&mut stores, [0, 1], Replicate { live, ..Replicate::default() })];
        let peer = links[0].ends[0].1.peer();
        stores[0].observe(peer);
        run(&mut stores, &mut links, Duration::ZERO);
        // The two do not hold the same, and the side that knows why does not say so.
        assert!(!stores[0].in_sync(peer), "live: {live}");
        let told = |event: &&PeerEvent| matches!(event, PeerEvent::Damaged { error, .. } if error.code() == "ERR_STORE_DAMAGED");
        assert_eq!(links[0].events[0].iter().filter(told).count(), 1);
        // The other feeds are not harmed, and what was sent of this one is right.
        assert_eq!(stores.each_ref().map(|store| store.feeds().count()), [3, 3]);
        for (from, to, id) in [(0, 1, other), (1, 0, theirs)] {
            let key = stores[from].info(id).unwrap().key;
            let there = stores[to].find(&key).unwrap();
            assert_eq!(stores[to].info(there).unwrap().downloaded, 30);
        }
        let key = stores[0].info(id).unwrap().key;
        let copy = stores[1].find(&key).unwrap();
        assert!(!stores[1].has(copy, 15) && stores[1].has(copy, 0));
        if !live {
            assert!((0..2).all(|side| links[0].result(side).unwrap().is_ok()));
            assert_eq!(links[0].totals(1).holes.len(), 1);
        }
    }
}

#[test]
fn a_live_remote_that_leaves_early_leaves_blocks_missing_and_no_holes() {
    let mut stores = [store(), store()];
    let id = writer(&mut stores[0], "w", 1);
    stores[0].append(id, &blocks(0, 3000, 1000)).unwrap();
    let mut links = [Link::plain(&mut stores, [0, 1], Replicate::live())];
    while stores[1].feeds().all(|id| stores[1].info(id).unwrap().downloaded < 100) {
        links[0].turn(&mut stores, Duration::ZERO);
    }
    let peer = links[0].ends[0].1.peer();
    stores[0].finish(peer);
    run(&mut stores, &mut links, Duration::ZERO);
    let totals = links[0].totals(1);
    assert_eq!((totals.blocks_received + totals.missing, &totals.holes[..]), (3000, &[][..]));
    assert!(totals.missing > 0);
}
