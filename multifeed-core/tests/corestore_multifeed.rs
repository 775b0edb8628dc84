//! Multifeeds on a corestore: several in one folder, each with its list of feeds.

use crate::link;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use link::{Link, run};
use multifeed_core::{
    Corestore, CorestoreOptions, Durability, FeedId, FeedList, FileCoreStorage, FileStorageOptions, KeyPair, MasterKey,
    MemoryStorage, Multifeed, MultifeedEvent, Namespace, Options, Policy, Remote, Replicate, SetId, Storage,
    StoreError,
};
use multifeed_proto::{Config, FeedKey};

pub(crate) type Store = Multifeed<Box<dyn Storage>>;

pub(crate) const A: FeedKey = FeedKey::new([0x11; 32]);
pub(crate) const B: FeedKey = FeedKey::new([0x22; 32]);

pub(crate) fn corestore(path: &Path) -> Corestore<FileCoreStorage> {
    let storage = FileCoreStorage::open(path).unwrap();
    Corestore::open(storage, CorestoreOptions::default(), || MasterKey::new([7; 32])).unwrap()
}

pub(crate) fn open_with(path: &Path, options: Options) -> Store {
    let files = corestore(path).into_files(&options.limits).unwrap();
    Multifeed::open(Box::new(files) as Box<dyn Storage>, options).unwrap()
}

pub(crate) fn open(path: &Path) -> Store {
    open_with(path, Options::default())
}

pub(crate) fn other() -> Store {
    Multifeed::open(Box::new(MemoryStorage::default()) as Box<dyn Storage>, Options::default()).unwrap()
}

pub(crate) fn root(store: &mut Store, key: &FeedKey) -> SetId {
    store.open_root(&Namespace::root(), key).unwrap()
}

pub(crate) fn fill(store: &mut Store, id: FeedId, blocks: u64) {
    for index in 0..blocks {
        store.append(id, &[Bytes::from(format!("block {index}"))]).unwrap();
    }
}

pub(crate) fn pair(seed: u8) -> KeyPair {
    KeyPair::from_seed(&[seed; 32])
}

pub(crate) fn writer(store: &mut Store, seed: u8, blocks: u64) -> FeedId {
    let id = store.writer(Some(&format!("w{seed}")), || pair(seed)).unwrap();
    fill(store, id, blocks);
    id
}

/// The names of a set's feeds, and how many blocks are held of each.
pub(crate) fn feeds(store: &Store, set: SetId) -> Vec<(String, u64)> {
    let mut feeds: Vec<_> = store
        .feeds_in(set)
        .map(|id| (store.name_in(set, id).unwrap().to_owned(), store.info(id).unwrap().downloaded))
        .collect();
    feeds.sort();
    feeds
}

/// The list of a multifeed as a plain corestore reads it.
pub(crate) fn list(path: &Path, key: &FeedKey) -> Vec<String> {
    let mut store = corestore(path);
    let mut core = store.default_core(&FeedList::list_namespace(key)).unwrap();
    let mut list = FeedList::default();
    list.read(&mut core).unwrap();
    assert_eq!(core.info().len, list.feeds().len() as u64, "no feed is listed twice");
    let names = list.feeds().iter().map(|feed| feed.name.clone()).collect();
    store.close().unwrap();
    names
}

pub(crate) fn settle(stores: &mut [Store], links: &mut [Link], second: &mut u64) {
    for _ in 0..4 {
        *second += 1;
        let now = Duration::from_secs(*second);
        for store in stores.iter_mut() {
            store.handle_timeout(now);
            store.commit(now);
        }
        run(stores, links, now);
    }
}

pub(crate) fn live(set: SetId) -> Replicate {
    Replicate { set, ..Replicate::live() }
}

/// Links of store 0's sets, one for each of the others.
pub(crate) fn links(stores: &mut [Store], sets: &[SetId]) -> Vec<Link> {
    let link = |(other, &set): (usize, &SetId)| {
        let configs = [Config::default(), Config::default()];
        Link::new(stores, [0, other + 1], [live(set), live(SetId::ALL)], configs)
    };
    sets.iter().enumerate().map(link).collect()
}

#[test]
fn two_multifeeds_in_one_folder_see_nothing_of_each_other() {
    for durability in [Durability::None, Durability::Always] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let options = || Options { durability, ..Options::default() };
        let mut store = open_with(path, options());
        let sets = [root(&mut store, &A), root(&mut store, &B)];
        assert_eq!(root(&mut store, &A), sets[0]);
        assert!(sets[0] != sets[1] && store.root_key_of(sets[1]) == Some(B));
        // Nothing is made before there is a feed.
        assert_eq!(std::fs::read_dir(path).unwrap().count(), 2, "`master_key` and the lock");
        for (set, blocks) in [(sets[0], 3), (sets[1], 5)] {
            let alice = store.writer_in(set, Some("alice")).unwrap();
            assert_eq!(store.writer_in(set, Some("alice")).unwrap(), alice);
            fill(&mut store, alice, blocks);
            assert_eq!(store.find_name_in(set, "alice"), Some(alice));
        }
        let mut stores = vec![store, other(), other()];
        writer(&mut stores[1], 1, 2);
        writer(&mut stores[2], 2, 4);
        let mut links = links(&mut stores, &sets);
        let mut now = 0;
        settle(&mut stores, &mut links, &mut now);
        let expected = |n: u64, m: u64| vec![("1".to_owned(), n), ("alice".to_owned(), m)];
        assert_eq!(feeds(&stores[0], sets[0]), expected(2, 3));
        assert_eq!(feeds(&stores[0], sets[1]), expected(4, 5));
        assert_eq!(stores[1].feeds().count() + stores[2].feeds().count(), 4);
        let events: Vec<_> = std::iter::from_fn(|| stores[0].poll_event()).collect();
        let seen = |id: &FeedId| stores[0].feeds_in(sets[0]).chain(stores[0].feeds_in(sets[1])).any(|feed| feed == *id);
        let shown = |event: &MultifeedEvent| match event {
            MultifeedEvent::Blocks { id } | MultifeedEvent::Feed { id, .. } => seen(id),
            _ => true,
        };
        assert!(events.iter().all(shown), "the lists are nobody's business: {events:?}");

        // The same feed in both, stored once.
        let bob = stores[0].find_name_in(sets[0], "1").unwrap();
        assert!(stores[0].include(sets[1], bob).unwrap());
        settle(&mut stores, &mut links, &mut now);
        assert_eq!(stores[2].feeds().count(), 3);
        stores.remove(0).close().unwrap();
        assert_eq!(
            (list(path, &A), list(path, &B)),
            (vec!["alice".into(), "1".into()], vec!["alice".into(), "1".into(), "2".into()])
        );

        // As it was, opened again; a set alone opens its own cores alone.
        let mut store = open_with(path, options());
        let set = root(&mut store, &A);
        assert_eq!(feeds(&store, set), expected(2, 3));
        assert_eq!((store.feeds().count(), store.recovered().len(), store.problems().len()), (3, 0, 0));
        let set = root(&mut store, &B);
        assert_eq!(feeds(&store, set).iter().map(|feed| feed.1).sum::<u64>(), 11);
        assert_eq!(store.feeds().count(), 6);
        let alice = store.writer_in(set, Some("alice")).unwrap();
        fill(&mut store, alice, 1);
        store.close().unwrap();
        assert_eq!(list(path, &B).len(), 3);
    }
}

#[test]
fn what_was_acknowledged_survives_a_killed_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut lengths = 0;
    for turn in 1..=5 {
        let mut store = open_with(path, Options { durability: Durability::Always, ..Options::default() });
        let set = root(&mut store, &A);
        let alice = store.writer_in(set, Some("alice")).unwrap();
        assert_eq!(store.info(alice).unwrap().len, lengths);
        fill(&mut store, alice, turn);
        lengths += turn;
        store.writer_in(set, Some(&format!("w{turn}"))).unwrap();
        store.commit(Duration::from_secs(turn));
        assert_eq!(store.synced_len(alice), lengths);
        // Not closed.
        drop(store);
        let mut store = open(path);
        let set = root(&mut store, &A);
        assert_eq!(store.feeds_in(set).count() as u64, turn + 1);
        assert!(store.problems().is_empty(), "{:?}", store.problems());
        drop(store);
    }
    assert_eq!(list(path, &A), ["alice", "w1", "w2", "w3", "w4", "w5"]);
}

#[test]
fn what_is_taken_out_stays_out_until_a_remote_brings_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut store = open(path);
    let sets = [root(&mut store, &A), root(&mut store, &B)];
    store.writer_in(sets[0], Some("alice")).unwrap();
    let mut stores = vec![store, other()];
    for seed in [1, 2] {
        writer(&mut stores[1], seed, 2);
    }
    let mut all = links(&mut stores, &sets[..1]);
    let mut now = 0;
    settle(&mut stores, &mut all, &mut now);
    let mut store = stores.remove(0);
    let [first, second] = [1, 2].map(|seed| store.find(&pair(seed).public_key()).unwrap());
    store.include(sets[1], first).unwrap();
    // Out of one multifeed, it goes on in the other; out of the store, the core is gone.
    assert!(store.take_out_of(sets[0], first).unwrap() && !store.take_out_of(sets[0], first).unwrap());
    let folder_of = |key: &FeedKey| {
        let core = key.discovery_key().to_string();
        path.join(&core[..2]).join(&core[2..4]).join(core)
    };
    let folder = folder_of(&pair(2).public_key());
    assert!(folder.join("key").exists());
    store.remove(second).unwrap();
    assert!(!folder.exists());
    store.close().unwrap();

    let mut store = open(path);
    let sets = [root(&mut store, &A), root(&mut store, &B)];
    assert_eq!(feeds(&store, sets[0]), [("alice".into(), 0)]);
    assert_eq!(feeds(&store, sets[1]), [("0".into(), 2)]);
    // A writer that is removed is banned, as its key would be derived again.
    let alice = store.find_name_in(sets[0], "alice").unwrap();
    store.remove_writer(alice).unwrap();
    assert!(matches!(store.writer_in(sets[0], Some("alice")), Err(StoreError::Banned { .. })));
    store.close().unwrap();

    let mut store = open(path);
    let set = root(&mut store, &A);
    assert_eq!(feeds(&store, set), []);
    let mut stores = vec![store, other()];
    writer(&mut stores[1], 1, 3);
    writer(&mut stores[1], 2, 3);
    let mut all = links(&mut stores, &[set]);
    settle(&mut stores, &mut all, &mut now);
    let brought = vec![("1".to_owned(), 3), ("2".to_owned(), 3)];
    assert_eq!(feeds(&stores[0], set), brought);
    stores.remove(0).close().unwrap();
    let mut store = open(path);
    let set = root(&mut store, &A);
    assert_eq!(feeds(&store, set), brought);
    store.close().unwrap();
    assert_eq!(list(path, &A), ["alice", "1", "2"]);
}

#[test]
fn a_remote_brings_no_core_of_ours_into_a_multifeed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut plain = corestore(path);
    plain.named("private").unwrap().append(&[Bytes::from_static(b"secret")]).unwrap();
    let private = plain.named("private").unwrap().info().key;
    plain.close().unwrap();
    let mut store = open(path);
    let sets = [root(&mut store, &A), root(&mut store, &B)];
    let alice = store.writer_in(sets[1], Some("alice")).unwrap();
    fill(&mut store, alice, 1);
    let key = store.info(alice).unwrap().key;
    let list = store.feeds().find(|id| store.feeds_in(sets[1]).all(|feed| feed != *id)).unwrap();
    let list = store.info(list).unwrap().key;
    let mut stores = vec![store, other()];
    // A peer of the first multifeed that knows the keys offers them.
    for key in [private, key, list] {
        stores[1].add(key).unwrap();
    }
    let mut all = links(&mut stores, &sets[..1]);
    settle(&mut stores, &mut all, &mut 0);
    assert_eq!(feeds(&stores[0], sets[0]), []);
    assert!(stores[1].feeds().all(|id| stores[1].info(id).unwrap().downloaded == 0));
    // The application may.
    let private = stores[0].add(private).unwrap();
    stores[0].include(sets[0], private).unwrap();
    settle(&mut stores, &mut all, &mut 100);
    assert_eq!(stores[1].feeds().filter(|id| stores[1].info(*id).unwrap().downloaded == 1).count(), 1);
}

/// A remote offers many feeds whose cores are on the disk, for a multifeed that did not know them: no call opens all.
#[test]
fn cores_that_are_offered_are_opened_in_steps() {
    let folder = tempfile::tempdir().unwrap();
    let mut stores = vec![open(folder.path()), other()];
    for seed in 1..=60 {
        writer(&mut stores[1], seed, 1);
    }
    let set = root(&mut stores[0], &A);
    let mut all = links(&mut stores, &[set]);
    settle(&mut stores, &mut all, &mut 0);
    assert_eq!(feeds(&stores[0], set).len(), 60);
    drop(all);
    stores.remove(0).close().unwrap();

    stores.insert(0, open(folder.path()));
    let set = root(&mut stores[0], &B);
    let mut all = links(&mut stores, &[set]);
    let (mut steps, now) = (vec![stores[0].feeds_in(set).count()], Duration::ZERO);
    loop {
        run(&mut stores, &mut all, now);
        steps.push(stores[0].feeds_in(set).count());
        if stores[0].poll_timeout() != Some(now) {
            break;
        }
        stores[0].handle_timeout(now);
        steps.push(stores[0].feeds_in(set).count());
    }
    assert!(steps.windows(2).all(|both| both[1] - both[0] <= 16), "{steps:?}");
    assert_eq!(steps.last(), Some(&60), "{steps:?}");
}

#[test]
fn a_writer_whose_core_is_gone_is_not_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut store = open(path);
    let set = root(&mut store, &A);
    let alice = store.writer_in(set, Some("alice")).unwrap();
    fill(&mut store, alice, 4);
    let core = store.info(alice).unwrap().key.discovery_key().to_string();
    let core = path.join(&core[..2]).join(&core[2..4]).join(&core);
    store.close().unwrap();
    // An older copy of it in its place is shown, and nothing is appended to it.
    let files = ["bitfield", "data", "signatures", "tree"]
        .map(|file| (core.join(file), std::fs::read(core.join(file)).unwrap()));
    let mut store = open(path);
    let set = root(&mut store, &A);
    let alice = store.writer_in(set, Some("alice")).unwrap();
    fill(&mut store, alice, 2);
    store.close().unwrap();
    files.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    let mut store = open(path);
    let set = root(&mut store, &A);
    let older = |problem: &StoreError| matches!(problem, StoreError::OlderWriter { blocks: 4, signed: 6, .. });
    assert!(store.problems().len() == 1 && store.problems().iter().all(older), "{:?}", store.problems());
    let alice = store.writer_in(set, Some("alice")).unwrap();
    assert!(store.append(alice, &[Bytes::from("another")]).is_err());
    store.close().unwrap();
    std::fs::remove_dir_all(core).unwrap();
    let mut store = open(path);
    let set = root(&mut store, &A);
    let gone = |problem: &StoreError| matches!(problem, StoreError::CoreMissing { blocks: 6, .. });
    assert!(store.problems().len() == 1 && store.problems().iter().all(gone), "{:?}", store.problems());
    let missing = store.writer_in(set, Some("alice")).unwrap_err();
    assert!(matches!(missing, StoreError::CoreMissing { blocks: 6, .. }), "{missing}");
    store.writer_in(set, Some("bob")).unwrap();
    store.close().unwrap();
}

#[test]
fn a_damaged_list_of_what_was_taken_out_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut store = open(path);
    let set = root(&mut store, &A);
    for name in ["alice", "bob", "carol"] {
        store.writer_in(set, Some(name)).unwrap();
    }
    let alice = store.find_name_in(set, "alice").unwrap();
    assert!(store.take_out_of(set, alice).unwrap());
    store.close().unwrap();
    let file = path.join("multifeed.removed");
    let mut text = std::fs::read_to_string(&file).unwrap();
    for more in ["no key\n", "abcd ef\n"] {
        text.push_str(more);
        std::fs::write(&file, &text).unwrap();
        let mut store = open(path);
        let set = root(&mut store, &A);
        assert_eq!(feeds(&store, set), [("bob".into(), 0), ("carol".into(), 0)]);
        assert!(store.problems().iter().any(|problem| problem.to_string().contains("multifeed.removed")));
        let bob = store.find_name_in(set, "bob").unwrap();
        assert!(matches!(store.take_out_of(set, bob), Err(StoreError::Damaged { .. })));
        assert!(store.is_in(set, bob));
        store.close().unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    }
}

#[test]
fn a_removal_that_was_cut_short_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut stores = vec![open(path), other()];
    let set = root(&mut stores[0], &A);
    stores[0].writer_in(set, Some("alice")).unwrap();
    writer(&mut stores[1], 1, 2);
    let mut all = links(&mut stores, &[set]);
    settle(&mut stores, &mut all, &mut 0);
    let list = stores[0].feeds().find(|id| stores[0].name_in(set, *id).is_none()).unwrap();
    let list = stores[0].info(list).unwrap().key;
    stores.remove(0).close().unwrap();
    // As if the process had been killed after it was written down.
    let key = pair(1).public_key();
    std::fs::write(path.join("multifeed.removed"), format!("- {key}\n{list} {key}\n")).unwrap();
    let core = key.discovery_key().to_string();
    let core = path.join(&core[..2]).join(&core[2..4]).join(core);
    assert!(core.join("key").exists());
    let mut store = open(path);
    assert!(!core.exists() && store.problems().is_empty());
    let set = root(&mut store, &A);
    assert_eq!(feeds(&store, set), [("alice".into(), 0)]);
    store.close().unwrap();
    assert_eq!(std::fs::read_to_string(path.join("multifeed.removed")).unwrap(), format!("{list} {key}\n"));
}

/// Offers writers of one name alone.
#[derive(Debug)]
struct Named(&'static str);

impl Policy for Named {
    fn offers(&self, _: &FeedKey, writer: Option<&str>, _: &Remote) -> bool {
        writer == Some(self.0)
    }
}

#[test]
fn a_policy_hears_the_names_of_the_multifeeds_writers() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    let set = root(&mut store, &A);
    for name in ["alice", "bob"] {
        let id = store.writer_in(set, Some(name)).unwrap();
        fill(&mut store, id, 2);
    }
    let key = store.writer_key_in(set, Some("bob")).unwrap();
    let mut stores = vec![store, other()];
    let options = Replicate { policy: Some(Arc::new(Named("bob"))), ..live(set) };
    let options = [options, live(SetId::ALL)];
    let mut link = [Link::new(&mut stores, [0, 1], options, [Config::default(), Config::default()])];
    settle(&mut stores, &mut link, &mut 0);
    assert_eq!(stores[1].feeds().map(|id| stores[1].info(id).unwrap().key).collect::<Vec<_>>(), [key]);
}

#[test]
fn a_bounded_number_of_files_is_open_however_many_feeds_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let mut options = FileStorageOptions::default();
        options.max_open_files = 16;
        let storage = FileCoreStorage::open_with(folder.path(), options).unwrap();
        let store = Corestore::open(storage, CorestoreOptions::default(), || MasterKey::new([7; 32])).unwrap();
        let mut store = store.into_multifeeds(Options::default()).unwrap();
        let set = store.open_root(&Namespace::root(), &A).unwrap();
        (store, set)
    };
    let (mut store, set) = open();
    for n in 0..150 {
        let id = store.writer_in(set, Some(&format!("w{n}"))).unwrap();
        store.append(id, &[Bytes::from(format!("block of {n}"))]).unwrap();
        assert!(store.storage().storage().open_files() <= 16);
    }
    store.close().unwrap();
    let (mut store, set) = open();
    for n in 0..150 {
        let id = store.find_name_in(set, &format!("w{n}")).unwrap();
        assert_eq!(store.get(id, 0).unwrap().unwrap(), format!("block of {n}"));
        assert!(store.storage().storage().open_files() <= 16);
    }
    assert_eq!(store.feeds_in(set).count(), 150);
    store.close().unwrap();
}

#[test]
fn a_writer_is_made_where_js_left_headers_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut store = open(path);
    let set = root(&mut store, &A);
    let bob = store.writer_in(set, Some("bob")).unwrap();
    let keys = [store.info(bob).unwrap().key, store.writer_key_in(set, Some("alice")).unwrap()];
    store.close().unwrap();
    let [bob, alice] = keys.map(|key| {
        let core = key.discovery_key().to_string();
        path.join(&core[..2]).join(&core[2..4]).join(core)
    });
    std::fs::create_dir_all(&alice).unwrap();
    for file in ["bitfield", "signatures", "tree"] {
        std::fs::copy(bob.join(file), alice.join(file)).unwrap();
    }
    for len in 0..2 {
        let mut store = open(path);
        let set = root(&mut store, &A);
        let alice = store.writer_in(set, Some("alice")).unwrap();
        assert_eq!(
            (store.info(alice).unwrap().len, store.info(alice).unwrap().writable, store.info(alice).unwrap().key),
            (len, true, keys[1])
        );
        fill(&mut store, alice, 1);
        store.close().unwrap();
    }
    assert!(alice.join("name").exists() && !alice.join("secret_key").exists());
}

#[test]
fn a_plain_corestore_and_a_multifeed_use_the_same_cores_in_turn() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for turn in 0..10 {
        let mut plain = corestore(path);
        let mut alice = plain.default_core(&FeedList::writer_namespace(&A, Some("alice"))).unwrap();
        assert!(alice.feed().recovered().is_none());
        assert_eq!(alice.info().len, 2 * turn);
        alice.append(&[Bytes::from_static(b"plain")]).unwrap();
        plain.close().unwrap();
        let mut store = open(path);
        let set = root(&mut store, &A);
        let alice = store.writer_in(set, Some("alice")).unwrap();
        assert_eq!(store.info(alice).unwrap().len, 2 * turn + 1);
        fill(&mut store, alice, 1);
        assert!(store.problems().is_empty() && store.recovered().is_empty());
        store.close().unwrap();
    }
    // In a namespace of the corestore it is another multifeed.
    let mut store = open(path);
    let set = store.open_root(&Namespace::root().namespace("x"), &A).unwrap();
    assert_eq!(feeds(&store, set), []);
    store.close().unwrap();
    // A numbered store has no root keys.
    assert!(matches!(other().open_root(&Namespace::root(), &A), Err(StoreError::NotCorestore)));
}
