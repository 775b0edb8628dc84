//! What is synced when, what remotes see before that, and two histories of one writer: through the multifeed, on virtual time.

use std::time::Duration;

use bytes::Bytes;
use multifeed_core::{
    Durability, FeedId, FileId, FileKind, KeyPair, MemoryStorage, Multifeed, MultifeedEvent, Options, Replicate, Slot,
    Storage, StoreError, VerifyCursor,
};

use crate::link::Link;

type Store = Multifeed<MemoryStorage>;

const START: Duration = Duration::ZERO;

fn open(disk: MemoryStorage, durability: Durability) -> Store {
    Multifeed::open(disk, Options { durability, ..Options::default() }).unwrap()
}

fn pair(seed: u8) -> KeyPair {
    KeyPair::from_seed(&[seed; 32])
}

fn writer(store: &mut Store, seed: u8) -> FeedId {
    store.writer(Some("w"), || pair(seed)).unwrap()
}

fn append(store: &mut Store, id: FeedId, text: &str) {
    store.append(id, &[Bytes::copy_from_slice(text.as_bytes())]).unwrap();
}

fn events(store: &mut Store) -> Vec<MultifeedEvent> {
    std::iter::from_fn(|| store.poll_event()).collect()
}

fn conflicts(store: &mut Store) -> usize {
    events(store).iter().filter(|event| matches!(event, MultifeedEvent::Conflict { .. })).count()
}

fn ended_well(link: &Link) {
    assert_eq!(link.closed(), [Some(true); 2], "{:?}", link.events);
}

fn sync(a: &mut Store, b: &mut Store, options: [Replicate; 2]) -> Link {
    let mut link = Link::between(a, b, options);
    link.run_between(a, b, START);
    link
}

fn plain() -> [Replicate; 2] {
    [Replicate::default(), Replicate::default()]
}

fn len(store: &Store, seed: u8) -> u64 {
    store.find(&pair(seed).public_key()).map_or(0, |id| store.info(id).unwrap().len)
}

#[test]
fn with_an_interval_a_live_remote_hears_of_a_block_when_it_is_synced() {
    let interval = Duration::from_millis(300);
    let mut ours = open(MemoryStorage::new(), Durability::Interval(interval));
    let mut theirs = open(MemoryStorage::new(), Durability::None);
    let id = writer(&mut ours, 1);
    append(&mut ours, id, "before");
    let mut link = Link::between(&mut ours, &mut theirs, [Replicate::live(), Replicate::live()]);
    link.run_between(&mut ours, &mut theirs, START);
    // A session does not wait for the interval.
    assert_eq!((ours.synced_len(id), len(&theirs, 1)), (1, 1));

    append(&mut ours, id, "one");
    append(&mut ours, id, "two");
    link.run_between(&mut ours, &mut theirs, START);
    assert_eq!((ours.info(id).unwrap().len, ours.synced_len(id), len(&theirs, 1)), (3, 1, 1));
    assert_eq!(ours.get(id, 2).unwrap().unwrap(), "two");
    let due = ours.poll_timeout().unwrap();
    assert!(due <= interval);
    ours.handle_timeout(due - Duration::from_nanos(1));
    link.run_between(&mut ours, &mut theirs, due);
    assert_eq!(len(&theirs, 1), 1);
    ours.handle_timeout(due);
    assert_eq!(ours.synced_len(id), 3);
    link.run_between(&mut ours, &mut theirs, due);
    assert_eq!(len(&theirs, 1), 3);
}

#[test]
fn what_is_not_synced_is_not_served_however_it_is_asked_for() {
    let mut ours = open(MemoryStorage::new(), Durability::Interval(Duration::from_secs(9)));
    let id = writer(&mut ours, 1);
    for at in 0..20 {
        append(&mut ours, id, &format!("block {at}"));
    }
    let mut theirs = open(MemoryStorage::new(), Durability::None);
    let mut link = Link::between(&mut ours, &mut theirs, [Replicate::live(), Replicate::live()]);
    link.run_between(&mut ours, &mut theirs, START);
    // A second remote, which wants to know while blocks wait: the first session synced before it was served.
    (0..5).for_each(|at| append(&mut ours, id, &format!("late {at}")));
    assert_eq!((ours.info(id).unwrap().len, ours.synced_len(id), len(&theirs, 1)), (25, 20, 20));
    link.run_between(&mut ours, &mut theirs, START);
    assert_eq!(len(&theirs, 1), 20);
    let mut third = open(MemoryStorage::new(), Durability::None);
    let mut other = Link::between(&mut ours, &mut third, plain());
    other.run_between(&mut ours, &mut third, START);
    ended_well(&other);
    assert_eq!((ours.synced_len(id), len(&third, 1)), (25, 25));
    link.run_between(&mut ours, &mut theirs, START);
    assert_eq!(len(&theirs, 1), 25);
}

#[test]
fn a_remote_that_comes_to_a_feed_sees_all_of_it_at_once() {
    let mut ours = open(MemoryStorage::new(), Durability::Interval(Duration::from_secs(9)));
    let mut theirs = open(MemoryStorage::new(), Durability::None);
    let mut link = Link::between(&mut ours, &mut theirs, [Replicate::live(), Replicate::live()]);
    link.run_between(&mut ours, &mut theirs, START);
    // It is made while the session runs: what is there when its channel opens is not waited for.
    let id = writer(&mut ours, 1);
    (0..3).for_each(|at| append(&mut ours, id, &format!("block {at}")));
    link.run_between(&mut ours, &mut theirs, START);
    assert_eq!((ours.synced_len(id), len(&theirs, 1)), (3, 3));
}

#[test]
fn a_session_that_compares_lists_compares_all_that_was_appended() {
    let mut ours = open(MemoryStorage::new(), Durability::Interval(Duration::from_secs(9)));
    let mut theirs = open(MemoryStorage::new(), Durability::None);
    let id = writer(&mut ours, 1);
    for length in 1..4 {
        append(&mut ours, id, "one more");
        ended_well(&sync(&mut ours, &mut theirs, plain()));
        assert_eq!((ours.synced_len(id), len(&theirs, 1)), (length, length));
    }
}

/// What remotes may not see yet is fsynced as a session begins, or as its channel opens: no call does it for all feeds.
#[test]
fn many_feeds_are_synced_in_steps() {
    let mut ours = open(MemoryStorage::new(), Durability::Interval(Duration::from_secs(9)));
    let ids: Vec<FeedId> = (1..=200).map(|seed| ours.writer(None, || pair(seed)).unwrap()).collect();
    for &id in &ids {
        append(&mut ours, id, "one");
    }
    let mut stores = vec![ours, open(MemoryStorage::new(), Durability::None)];
    let synced =
        |store: &Store| ids.iter().filter(|id| store.synced_len(**id) == store.info(**id).unwrap().len).count();
    for reconcile in [None, Some(false)] {
        let options = Replicate { reconcile, ..Replicate::live() };
        let mut link = Link::plain(&mut stores, [0, 1], options);
        let mut before = synced(&stores[0]);
        loop {
            let mut moved = link.turn(&mut stores, START);
            moved |= stores[0].poll_timeout() == Some(START);
            stores[0].handle_timeout(START);
            let now = synced(&stores[0]);
            // A turn is more than one call.
            assert!(now - before <= 64 + 3 * 16, "{before} and {now}");
            before = now;
            if !moved {
                break;
            }
        }
        assert_eq!((before, stores[1].feeds().count()), (200, 200));
        for &id in &ids {
            append(&mut stores[0], id, "one");
        }
    }
}

#[test]
fn a_store_that_is_opened_serves_all_that_it_may() {
    // A writer that promises nothing, left by a process that was killed; and a copy that was not synced.
    let mut ours = open(MemoryStorage::new(), Durability::None);
    let id = writer(&mut ours, 1);
    append(&mut ours, id, "one");
    ours.sync().unwrap();
    append(&mut ours, id, "two");
    let mut copy = open(MemoryStorage::new(), Durability::None);
    ended_well(&sync(&mut ours, &mut copy, plain()));
    let again = open(ours.storage().clone(), Durability::None);
    let copy = open(closed(copy), Durability::Interval(Duration::from_secs(9)));
    for mut store in [again, copy] {
        let mut theirs = open(MemoryStorage::new(), Durability::None);
        ended_well(&sync(&mut store, &mut theirs, plain()));
        assert_eq!(len(&theirs, 1), 2);
    }
}

#[test]
fn what_need_not_wait_for_a_sync_does_not() {
    let live = || [Replicate::live(), Replicate::live()];
    let mut ours = open(MemoryStorage::new(), Durability::None);
    let mut relay = open(MemoryStorage::new(), Durability::Interval(Duration::from_secs(9)));
    let mut last = open(MemoryStorage::new(), Durability::None);
    let id = writer(&mut ours, 1);
    append(&mut ours, id, "one");
    let mut near = Link::between(&mut ours, &mut relay, live());
    let mut far = Link::between(&mut relay, &mut last, live());
    near.run_between(&mut ours, &mut relay, START);
    far.run_between(&mut relay, &mut last, START);
    // A sync that was asked for changes nothing of that: neither if nothing is promised, nor of what others wrote.
    ours.sync().unwrap();
    relay.sync().unwrap();
    append(&mut ours, id, "two");
    near.run_between(&mut ours, &mut relay, START);
    far.run_between(&mut relay, &mut last, START);
    assert_eq!((ours.synced_len(id), len(&relay, 1), len(&last, 1)), (1, 2, 2));
}

#[test]
fn always_syncs_a_group_of_appends_at_once() {
    let mut ours = open(MemoryStorage::new(), Durability::Always);
    let mut theirs = open(MemoryStorage::new(), Durability::None);
    let id = writer(&mut ours, 1);
    let mut link = Link::between(&mut ours, &mut theirs, [Replicate::live(), Replicate::live()]);
    link.run_between(&mut ours, &mut theirs, START);
    (0..10).for_each(|at| append(&mut ours, id, &format!("{at}")));
    assert_eq!(ours.synced_len(id), 0);
    ours.commit(START);
    assert_eq!(ours.synced_len(id), 10);
    link.run_between(&mut ours, &mut theirs, START);
    assert_eq!(len(&theirs, 1), 10);
}

#[test]
fn a_writer_shorter_than_what_was_synced_is_reported_and_left_alone() {
    let mut disk = MemoryStorage::new();
    let mut store =
        Multifeed::open(&mut disk, Options { durability: Durability::Always, ..Options::default() }).unwrap();
    let id = store.writer(Some("w"), || pair(1)).unwrap();
    for at in 0..10 {
        store.append(id, &[Bytes::from(format!("block {at}"))]).unwrap();
        store.commit(START);
    }
    drop(store);
    let file = |kind| FileId::new(Slot(0), kind);
    // The last three appends, cut off as if they had never been: without the journal nothing would tell.
    for (kind, size) in [(FileKind::Data, 7 * 7), (FileKind::Tree, 32 + 13 * 40), (FileKind::Signatures, 32 + 7 * 64)] {
        disk.truncate(file(kind), size).unwrap();
    }
    disk.truncate(file(FileKind::Bitfield), 32).unwrap();
    let before = FileKind::ALL.map(|kind| disk.contents(file(kind)));
    let store = open(disk.clone(), Durability::Always);
    assert_eq!(store.problems().iter().map(|problem| problem.code()).collect::<Vec<_>>(), ["ERR_WRITER_OLDER"]);
    assert!(before == FileKind::ALL.map(|kind| store.storage().contents(file(kind))));
    let mut store = store;
    let id = store.writer(Some("w"), || pair(2)).unwrap();
    assert_eq!(store.append(id, &[Bytes::from("other")]).unwrap_err().code(), "ERR_WRITER_OLDER");
    assert_eq!((store.info(id).unwrap().len, store.get(id, 6).unwrap().unwrap()), (7, Bytes::from("block 6")));

    disk.truncate(FileId::beside(FileKind::Journal), 0).unwrap();
    let store = open(disk, Durability::Always);
    assert_eq!((store.problems().len(), len(&store, 1)), (0, 7));
}

#[test]
fn what_js_wrote_since_is_taken_as_it_is() {
    // Closed well; then somebody who knows no journal appends, and fetches.
    let mut disk = MemoryStorage::new();
    let mut store = Multifeed::open(&mut disk, Options::default()).unwrap();
    let id = store.writer(Some("w"), || pair(1)).unwrap();
    store.append(id, &[Bytes::from("a")]).unwrap();
    store.close().unwrap();
    disk.reopen();
    let journal = disk.contents(FileId::beside(FileKind::Journal)).unwrap();
    disk.truncate(FileId::beside(FileKind::Journal), 0).unwrap();
    let mut js = Multifeed::open(&mut disk, Options::default()).unwrap();
    let id = js.find_name("w").unwrap();
    (0..20).for_each(|at| _ = js.append(id, &[Bytes::from(format!("{at}"))]).unwrap());
    js.close().unwrap();
    disk.reopen();
    for unclean in [false, true] {
        let mut disk = disk.clone();
        let mut journal = journal.clone();
        journal[20] = if unclean { b'o' } else { b'c' };
        disk.replace(FileId::beside(FileKind::Journal), &journal).unwrap();
        let mut store = open(disk, Durability::None);
        assert!(store.problems().is_empty() && store.recovered().is_empty(), "{:?}", store.recovered());
        assert_eq!(len(&store, 1), 21);
        let mut cursor = VerifyCursor::default();
        let id = store.find_name("w").unwrap();
        assert_eq!(store.verify_step(id, &mut cursor, usize::MAX).unwrap().findings, []);
    }
}

#[test]
fn recovery_is_told_by_an_event_and_by_feed() {
    let mut store = open(MemoryStorage::new(), Durability::None);
    let id = writer(&mut store, 1);
    append(&mut store, id, "one");
    store.sync().unwrap();
    append(&mut store, id, "two");
    let mut disk = store.storage().clone();
    disk.write_at(FileId::new(Slot(0), FileKind::Data), 4, b"!").unwrap();
    let mut again = open(disk, Durability::None);
    let told = events(&mut again);
    let [MultifeedEvent::Recovered(recovered)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(recovered.key, pair(1).public_key());
    assert_eq!((recovered.unclean, recovered.synced_length), (true, Some(1)));
    assert_eq!((recovered.marked_length, recovered.length, recovered.blocks_unmarked), (2, 1, 1));
    assert_eq!(again.recovered(), std::slice::from_ref(recovered));
}

/// The evidence beside the folders, a line each.
/// Opens a store again, and closes it.
fn closed(store: Store) -> MemoryStorage {
    let mut disk = store.storage().clone();
    drop(store);
    Multifeed::open(&mut disk, Options::default()).unwrap().close().unwrap();
    disk.reopen();
    disk
}

/// Opens a store with one byte of a file changed.
fn with_rot(disk: &MemoryStorage, kind: FileKind, at: u64) -> Store {
    let (mut disk, file) = (disk.clone(), FileId::new(Slot(0), kind));
    let mut byte = [0];
    assert_eq!(disk.read_at(file, at, &mut byte).unwrap(), 1);
    disk.write_at(file, at, &[byte[0] ^ 4]).unwrap();
    open(disk, Durability::None)
}

#[test]
fn what_rotted_since_the_store_was_closed_is_noticed_when_it_is_opened() {
    let [mut a, mut b] = [(); 2].map(|()| open(MemoryStorage::new(), Durability::None));
    let id = writer(&mut a, 1);
    append(&mut a, id, "one");
    ended_well(&sync(&mut a, &mut b, plain()));
    append(&mut a, id, "two");
    append(&mut a, id, "three");
    ended_well(&sync(&mut a, &mut b, plain()));
    let [ours, copy] = [a, b].map(closed);
    for disk in [&ours, &copy] {
        let store = open(disk.clone(), Durability::None);
        assert!(store.recovered().is_empty() && store.problems().is_empty());
        assert_eq!(len(&store, 1), 3);
    }

    let newest = 32 + 2 * 64 + 9;
    let store = with_rot(&ours, FileKind::Signatures, newest);
    assert_eq!((len(&store, 1), store.recovered().len()), (3, 1));
    assert!(store.recovered()[0].signed_again && !store.recovered()[0].unclean);
    // Nobody can sign a copy again; the journal proves it.
    let store = with_rot(&copy, FileKind::Signatures, newest);
    assert_eq!((len(&store, 1), store.recovered().len(), store.problems().len()), (3, 0, 1));

    for at in [3, 32 + 3] {
        let store = with_rot(&ours, FileKind::SecretKey, at);
        let [StoreError::Damaged { file, slot, .. }] = store.problems() else { panic!("{:?}", store.problems()) };
        assert_eq!((*file, *slot, len(&store, 1)), (FileKind::SecretKey, Slot(0), 3));
    }
    // A root, and the last block.
    for (kind, at) in [(FileKind::Tree, 32 + 40 + 9), (FileKind::Data, 8)] {
        for disk in [&ours, &copy] {
            let store = with_rot(disk, kind, at);
            assert_eq!(store.recovered().len() + store.problems().len(), 1, "{kind:?}");
        }
    }
}

fn evidence(store: &Store) -> Vec<serde_json::Value> {
    let bytes = store.storage().contents(FileId::beside(FileKind::Conflicts)).unwrap_or_default();
    String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_secret_key_on_two_devices_ends_in_a_conflict_and_not_in_loss() {
    // Whatever the lengths: the shorter, the longer and the equally long history come second.
    for (shared, first_more, second_more) in
        [(3, 2, 4), (3, 4, 2), (3, 3, 3), (0, 1, 1), (8, 1, 9), (5, 30, 1), (1, 200, 300)]
    {
        let case = format!("{shared}+{first_more} and {shared}+{second_more}");
        let mut first = open(MemoryStorage::new(), Durability::Always);
        let id = writer(&mut first, 1);
        (0..shared).for_each(|at| append(&mut first, id, &format!("shared {at}")));
        first.commit(START);
        // The folder is copied, key and all, and both go on.
        let mut second = open(first.storage().clone(), Durability::Always);
        (0..first_more).for_each(|at| append(&mut first, id, &format!("first {at}")));
        let copied = writer(&mut second, 1);
        (0..second_more).for_each(|at| append(&mut second, copied, &format!("second {at}")));

        let mut reader = open(MemoryStorage::new(), Durability::None);
        ended_well(&sync(&mut reader, &mut first, plain()));
        assert_eq!(len(&reader, 1), shared + first_more, "{case}");
        let mut also = second.writer(Some("another"), || pair(3)).unwrap();
        append(&mut second, also, "of the same peer");
        let link = sync(&mut reader, &mut second, plain());
        // The session goes on, and brings the peer's other feeds; it is not the peer's fault.
        ended_well(&link);
        assert_eq!(len(&reader, 3), 1, "{case}");
        // A shorter history than the one held has no block to ask for: its writer sees that there are two.
        let seen = usize::from(second_more >= first_more);
        assert_eq!(link.conflicts(0), seen, "{case}: {:?}", link.events[0]);
        assert_eq!(conflicts(&mut reader), seen, "{case}");
        // Nothing is lost, nor mixed.
        also = reader.find(&pair(1).public_key()).unwrap();
        for (store, name) in [(&mut reader, "first"), (&mut first, "first")] {
            let id = store.find(&pair(1).public_key()).unwrap();
            assert_eq!(store.info(id).unwrap().downloaded, shared + first_more, "{case}");
            let last = store.get(id, shared + first_more - 1).unwrap().unwrap();
            assert_eq!(last, format!("{name} {}", first_more - 1), "{case}");
        }
        assert_eq!(len(&second, 1), shared + second_more, "{case}");
        let kept = evidence(&reader);
        assert_eq!(kept.len(), seen, "{case}");
        if seen == 0 {
            continue;
        }
        assert_eq!(kept[0]["key"], pair(1).public_key().to_string());
        assert_eq!(kept[0]["held_length"], shared + first_more);
        assert!(
            kept[0]["signature"].as_str().unwrap().len() == 128 && kept[0]["signature"] != kept[0]["held_signature"]
        );
        // Again: reported by the session, and not kept twice.
        let link = sync(&mut reader, &mut second, plain());
        ended_well(&link);
        assert_eq!((link.conflicts(0), conflicts(&mut reader), evidence(&reader).len()), (1, 0, 1), "{case}");
        let listed = reader.conflicts();
        assert_eq!(
            (listed.len(), listed[0].key, listed[0].held_length),
            (1, pair(1).public_key(), shared + first_more)
        );
        assert_eq!(kept[0]["length"], listed[0].length);
        // Forgotten, it is reported and kept anew.
        assert_eq!((reader.clear_conflicts().unwrap(), evidence(&reader).len()), (1, 0));
        ended_well(&sync(&mut reader, &mut second, plain()));
        assert_eq!((conflicts(&mut reader), evidence(&reader).len(), reader.conflicts()), (1, 1, listed));
        let mut cursor = VerifyCursor::default();
        assert_eq!(reader.verify_step(also, &mut cursor, usize::MAX).unwrap().findings, []);
    }
}

#[test]
fn the_two_devices_find_out_by_themselves_where_they_also_read() {
    let both = || Replicate { download: Some(true), ..Replicate::default() };
    let mut first = open(MemoryStorage::new(), Durability::Always);
    let id = writer(&mut first, 1);
    append(&mut first, id, "shared");
    first.commit(START);
    let mut second = open(first.storage().clone(), Durability::Always);
    let copied = writer(&mut second, 1);
    append(&mut second, copied, "second");
    second.commit(START);
    // One is only behind: it catches up, and goes on from there.
    ended_well(&sync(&mut first, &mut second, [both(), both()]));
    assert_eq!((len(&first, 1), first.get(id, 1).unwrap().unwrap()), (2, Bytes::from("second")));
    append(&mut first, id, "a");
    append(&mut second, copied, "b");
    append(&mut second, copied, "c");
    let link = sync(&mut first, &mut second, [both(), both()]);
    assert!(link.conflicts(0) == 1, "{:?}", link.events);
    assert_eq!((first.get(id, 2).unwrap().unwrap(), second.get(copied, 2).unwrap().unwrap()), ("a".into(), "b".into()));
    assert_eq!(evidence(&first).len(), 1);
}

#[test]
fn evidence_is_bounded() {
    let mut options = Options::default();
    options.limits.conflicts = 6;
    let mut reader = Multifeed::open(MemoryStorage::new(), options).unwrap();
    let mut told = 0;
    for seed in 1..4 {
        let mut first = open(MemoryStorage::new(), Durability::None);
        let id = writer(&mut first, seed);
        append(&mut first, id, "first");
        ended_well(&sync(&mut reader, &mut first, plain()));
        let mut second = open(MemoryStorage::new(), Durability::None);
        let id = writer(&mut second, seed);
        for at in 0..7 {
            append(&mut second, id, &format!("second {at}"));
            ended_well(&sync(&mut reader, &mut second, plain()));
            assert_eq!(len(&reader, seed), 1);
            told += conflicts(&mut reader);
        }
    }
    assert_eq!(told, 21);
    let keys: Vec<_> = evidence(&reader).into_iter().map(|line| line["key"].to_string()).collect();
    assert_eq!(keys.len(), 6);
    assert!(keys[..4].iter().all(|key| *key == keys[0]) && keys[4] != keys[0], "{keys:?}");
}
