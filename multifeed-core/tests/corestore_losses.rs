//! What is lost of a multifeed in a corestore: cores of writers and of others, and the list of its feeds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use multifeed_core::{FeedId, FeedList, Rearranged, SetId, StoreError};
use multifeed_proto::FeedKey;

use crate::corestore_multifeed::{A, B, Store, feeds, fill, links, list, open, other, pair, root, settle, writer};

pub(crate) fn folder_of(path: &Path, key: &FeedKey) -> PathBuf {
    let core = key.discovery_key().to_string();
    path.join(&core[..2]).join(&core[2..4]).join(core)
}

/// The core of the list of a multifeed.
pub(crate) fn list_folder(path: &Path, key: &FeedKey) -> PathBuf {
    let name = FeedList::list_namespace(key);
    let cores =
        std::fs::read_dir(path).unwrap().filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir());
    let deeper = |path: PathBuf| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let mut cores = cores.flat_map(deeper).flat_map(deeper);
    let is_it = |core: &PathBuf| {
        let name = name.default_name().as_bytes();
        std::fs::read(core.join("name")).is_ok_and(|file| file.ends_with(name))
    };
    cores.find(is_it).expect("the list's core")
}

pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

pub(crate) fn find(store: &Store, set: SetId, name: &str) -> FeedId {
    store.find_name_in(set, name).unwrap_or_else(|| panic!("{name} in {:?}", feeds(store, set)))
}

/// Why an append fails, and that nothing was appended.
pub(crate) fn refused(store: &mut Store, id: FeedId) -> String {
    let len = store.info(id).unwrap().len;
    let error = store.append(id, &[Bytes::from("another history")]).unwrap_err();
    assert_eq!(store.info(id).unwrap().len, len);
    error.code().to_owned()
}

/// A store with a writer and one of a remote's, which has the writer's blocks.
pub(crate) fn shared(path: &Path) -> (Store, Store) {
    let mut stores = vec![open(path), other()];
    let set = root(&mut stores[0], &A);
    let alice = stores[0].writer_in(set, Some("alice")).unwrap();
    fill(&mut stores[0], alice, 3);
    writer(&mut stores[1], 1, 2);
    let mut links = links(&mut stores, &[set]);
    settle(&mut stores, &mut links, &mut 0);
    assert_eq!(feeds(&stores[0], set), [("1".to_owned(), 2), ("alice".to_owned(), 3)]);
    let remote = stores.pop().unwrap();
    (stores.pop().unwrap(), remote)
}

pub(crate) fn sync(store: Store, remote: Store, set: SetId, second: u64) -> (Store, Store) {
    let mut stores = vec![store, remote];
    let mut links = links(&mut stores, &[set]);
    settle(&mut stores, &mut links, &mut { second });
    let remote = stores.pop().unwrap();
    (stores.pop().unwrap(), remote)
}

#[test]
fn a_removed_writer_takes_its_blocks_back_before_it_is_appended_to() {
    // If the application asked for the writer before the sync, or not, in the same run or in another.
    for (asks, reopened) in [(true, false), (true, true), (false, false), (false, true)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let (mut store, remote) = shared(path);
        let mut set = root(&mut store, &A);
        let alice = find(&store, set, "alice");
        let key = store.info(alice).unwrap().key;
        store.remove_writer(alice).unwrap();
        assert!(!folder_of(path, &key).exists());
        let reopen = |store: &mut Store, set: &mut SetId| {
            let old = std::mem::replace(store, other());
            old.close().unwrap();
            *store = open(path);
            *set = root(store, &A);
        };
        if reopened {
            reopen(&mut store, &mut set);
            assert!(store.problems().is_empty(), "a removed writer is not missed: {:?}", store.problems());
        }
        assert!(matches!(store.writer_in(set, Some("alice")), Err(StoreError::Banned { .. })));
        store.unban(key).unwrap();
        if asks {
            let alice = store.writer_in(set, Some("alice")).unwrap();
            assert_eq!(refused(&mut store, alice), "ERR_WRITER_OLDER");
            if reopened {
                reopen(&mut store, &mut set);
                let older =
                    |problem: &StoreError| matches!(problem, StoreError::OlderWriter { blocks: 0, signed: 3, .. });
                assert!(store.problems().len() == 1 && store.problems().iter().all(older), "{:?}", store.problems());
                let alice = store.writer_in(set, Some("alice")).unwrap();
                assert_eq!(refused(&mut store, alice), "ERR_WRITER_OLDER");
            }
        } else if reopened {
            reopen(&mut store, &mut set);
        }
        let (mut store, remote) = sync(store, remote, set, 100);
        assert!(store.problems().is_empty(), "{:?}", store.problems());
        let alice = store.writer_in(set, Some("alice")).unwrap();
        assert_eq!((store.info(alice).unwrap().key, store.info(alice).unwrap().downloaded), (key, 3));
        fill(&mut store, alice, 2);
        store.commit(Duration::from_secs(200));
        let (store, remote) = sync(store, remote, set, 300);
        let theirs = remote.find(&key).unwrap();
        assert_eq!(remote.info(theirs).unwrap().downloaded, 5);
        assert_eq!(store.conflicts_kept() + remote.conflicts_kept(), 0);
        store.close().unwrap();
        let mut store = open(path);
        let set = root(&mut store, &A);
        assert!(store.problems().is_empty() && store.recovered().is_empty());
        assert_eq!(feeds(&store, set), [("1".to_owned(), 2), ("alice".to_owned(), 5)]);
        assert_eq!(std::fs::read_to_string(path.join("multifeed.removed")).unwrap(), "");
        store.close().unwrap();
    }
}

/// Its folder comes from a backup, whole or older, before or after the ban is lifted, while the store is closed or open.
#[test]
fn a_removed_writer_whose_folder_is_put_back_is_in_its_multifeed_again() {
    for case in 0..12 {
        let (held, open_then, unban_first) = ([3, 2][case % 2], case / 2 % 3, case / 6 == 0);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let aside = tempfile::tempdir().unwrap();
        let mut store = open(path);
        let set = root(&mut store, &A);
        let alice = store.writer_in(set, Some("alice")).unwrap();
        let key = store.info(alice).unwrap().key;
        fill(&mut store, alice, held);
        store.close().unwrap();
        copy(&folder_of(path, &key), aside.path());
        let mut store = open(path);
        let set = root(&mut store, &A);
        let alice = find(&store, set, "alice");
        fill(&mut store, alice, 3 - held);
        let mut stores = vec![store, other()];
        let mut links = links(&mut stores, &[set]);
        settle(&mut stores, &mut links, &mut 0);
        let (remote, mut store) = (stores.pop().unwrap(), stores.pop().unwrap());
        store.remove_writer(alice).unwrap();
        // Open all the time; with its root key; or closed meanwhile.
        let close = |store: Store| {
            store.close().unwrap();
            open(path)
        };
        if open_then > 0 {
            store = close(store);
        }
        let mut set = root(&mut store, &A);
        if unban_first {
            store.unban(key).unwrap();
        }
        copy(aside.path(), &folder_of(path, &key));
        if !unban_first {
            store.unban(key).unwrap();
            assert!(open_then == 2 || feeds(&store, set) == [("alice".to_owned(), held)], "{case}");
        }
        if open_then == 2 {
            store = close(store);
            set = root(&mut store, &A);
            assert_eq!(feeds(&store, set), [("alice".to_owned(), held)], "{case}");
            let older = |problem: &StoreError| matches!(problem, StoreError::OlderWriter { signed: 3, .. });
            assert!(store.problems().iter().all(older) && store.problems().len() == usize::from(held < 3), "{case}");
        }
        let (mut store, _) = sync(store, remote, set, 100);
        assert_eq!(feeds(&store, set), [("alice".to_owned(), 3)], "{case}");
        assert!(store.problems().is_empty(), "{case}: {:?}", store.problems());
        let alice = store.writer_in(set, Some("alice")).unwrap();
        fill(&mut store, alice, 1);
        store.close().unwrap();
        let mut store = open(path);
        let set = root(&mut store, &A);
        assert_eq!(feeds(&store, set), [("alice".to_owned(), 4)], "{case}: {:?}", store.problems());
        store.close().unwrap();
        assert_eq!(list(path, &A), ["alice"]);
    }
}

/// What was taken out stays out, also if its ban is lifted: nobody removed it.
#[test]
fn a_writer_that_was_taken_out_is_not_back_with_the_end_of_a_ban() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (mut store, remote) = shared(path);
    let set = root(&mut store, &A);
    let alice = find(&store, set, "alice");
    let key = store.info(alice).unwrap().key;
    store.take_out_of(set, alice).unwrap();
    store.ban(key).unwrap();
    store.unban(key).unwrap();
    store.close().unwrap();
    let mut store = open(path);
    let set = root(&mut store, &A);
    assert_eq!(feeds(&store, set), [("1".to_owned(), 2)]);
    // A remote that has it brings it again, as any other.
    let (store, _) = sync(store, remote, set, 100);
    assert_eq!(feeds(&store, set), [("1".to_owned(), 2), ("alice".to_owned(), 3)]);
    store.close().unwrap();
}

#[test]
fn a_writer_whose_core_is_gone_comes_back_as_one_by_a_sync() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (mut store, remote) = shared(path);
    let set = root(&mut store, &A);
    let alice = find(&store, set, "alice");
    let key = store.info(alice).unwrap().key;
    store.close().unwrap();
    std::fs::remove_dir_all(folder_of(path, &key)).unwrap();
    let mut store = open(path);
    let set = root(&mut store, &A);
    let gone = |problem: &StoreError| matches!(problem, StoreError::CoreMissing { name: Some(name), blocks: 3, .. } if name == "alice");
    assert!(store.problems().len() == 1 && store.problems().iter().all(gone), "{:?}", store.problems());
    assert!(matches!(store.writer_in(set, Some("alice")), Err(StoreError::CoreMissing { .. })));
    let (mut store, _) = sync(store, remote, set, 100);
    let alice = store.writer_in(set, Some("alice")).unwrap();
    assert_eq!(store.info(alice).unwrap().downloaded, 3);
    fill(&mut store, alice, 1);
    assert!(store.problems().is_empty(), "{:?}", store.problems());
    store.close().unwrap();
    assert_eq!(list(path, &A), ["alice", "1"]);
}

#[test]
fn a_writer_whose_core_is_gone_can_be_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (store, _) = shared(path);
    let key = store.writer_key_in(SetId::default(), None);
    assert!(key.is_err());
    store.close().unwrap();
    let mut store = open(path);
    let set = root(&mut store, &A);
    let key = store.writer_key_in(set, Some("alice")).unwrap();
    store.close().unwrap();
    std::fs::remove_dir_all(folder_of(path, &key)).unwrap();
    let mut store = open(path);
    let set = root(&mut store, &A);
    assert!(store.give_up_missing(&key).unwrap() && store.problems().is_empty());
    store.close().unwrap();
    let mut store = open(path);
    let set2 = root(&mut store, &A);
    assert_eq!(set, set2);
    assert!(store.problems().is_empty(), "{:?}", store.problems());
    store.unban(key).unwrap();
    let alice = store.writer_in(set, Some("alice")).unwrap();
    assert_eq!(refused(&mut store, alice), "ERR_WRITER_OLDER");
    store.close().unwrap();
}

#[test]
fn the_core_of_a_feed_that_was_fetched_is_missed_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (store, remote) = shared(path);
    store.close().unwrap();
    let bob = pair(1).public_key();
    std::fs::remove_dir_all(folder_of(path, &bob)).unwrap();
    let mut store = open(path);
    let set = root(&mut store, &A);
    assert_eq!(store.rearranged(), [Rearranged::CoreGone { key: bob, blocks: 2 }]);
    let alice = find(&store, set, "alice");
    fill(&mut store, alice, 1);
    store.close().unwrap();
    let mut store = open(path);
    let set = root(&mut store, &A);
    assert!(store.rearranged().is_empty());
    let (store, _) = sync(store, remote, set, 100);
    assert_eq!(feeds(&store, set), [("1".to_owned(), 2), ("alice".to_owned(), 4)]);
    store.close().unwrap();
}

/// The lost list is the only problem; returns how many entries are here, and how many there were.
fn lost(store: &Store) -> (Option<u64>, u64) {
    match store.problems() {
        [StoreError::ListLost { held, known, .. }] => (*held, *known),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_list_that_is_gone_is_not_made_anew_and_what_needs_no_entry_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (store, mut remote) = shared(path);
    store.close().unwrap();
    let core = list_folder(path, &A);
    let aside = tempfile::tempdir().unwrap();
    copy(&core, aside.path());
    std::fs::remove_dir_all(&core).unwrap();
    writer(&mut remote, 2, 4);
    let mut second = 0;
    for turn in 1..3 {
        let mut store = open(path);
        let set = root(&mut store, &A);
        assert_eq!(lost(&store), (None, 2));
        let alice = store.writer_in(set, Some("alice")).unwrap();
        fill(&mut store, alice, 1);
        let error = store.writer_in(set, Some("carol")).unwrap_err();
        assert!(matches!(error, StoreError::ListLost { .. }), "{error}");
        // What is here is synced, and nothing new is taken.
        second += 100;
        let (store, back) = sync(store, remote, set, second);
        remote = back;
        assert_eq!(store.info(alice).unwrap().len, 3 + turn);
        let alice = remote.find(&store.info(alice).unwrap().key).unwrap();
        assert_eq!(remote.info(alice).unwrap().downloaded, 3 + turn);
        assert!(store.find(&pair(2).public_key()).is_none());
        assert_eq!(feeds(&store, set).len(), 2);
        store.close().unwrap();
        assert!(!core.exists());
    }
    copy(aside.path(), &core);
    let mut store = open(path);
    let set = root(&mut store, &A);
    assert!(store.problems().is_empty(), "{:?}", store.problems());
    assert_eq!(feeds(&store, set), [("1".to_owned(), 2), ("alice".to_owned(), 5)]);
    let (store, _) = sync(store, remote, set, 900);
    assert_eq!(feeds(&store, set).len(), 3);
    store.close().unwrap();
    assert_eq!(list(path, &A), ["alice", "1", "2"]);
}

#[test]
fn a_list_that_is_lost_for_good_is_made_anew_from_the_cores_that_are_here() {
    // It is gone, an older copy, or another history.
    for case in 0..3 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let old = tempfile::tempdir().unwrap();
        let (mut store, remote) = shared(path);
        let sets = [root(&mut store, &A), root(&mut store, &B)];
        // Of another multifeed of the folder, and one that was taken out.
        store.writer_in(sets[1], Some("private")).unwrap();
        let theirs = store.add(FeedKey::new(*pair(9).public_key().as_bytes())).unwrap();
        store.include(sets[1], theirs).unwrap();
        let out = store.writer_in(sets[0], Some("out")).unwrap();
        store.commit(Duration::from_secs(50));
        store.close().unwrap();
        let core = list_folder(path, &A);
        copy(&core, old.path());
        let mut store = open(path);
        let set = root(&mut store, &A);
        store.take_out_of(set, find(&store, set, "out")).unwrap();
        store.writer_in(set, Some("carol")).unwrap();
        assert_eq!(store.rebuild_list(set).unwrap(), None, "nothing is wrong with it");
        store.close().unwrap();
        let _ = (out, &remote);
        std::fs::remove_dir_all(&core).unwrap();
        match case {
            0 => {}
            1 => copy(old.path(), &core),
            _ => {
                let mut plain = crate::corestore_multifeed::corestore(path);
                let mut core = plain.default_core(&FeedList::list_namespace(&A)).unwrap();
                for _ in 0..5 {
                    core.append(&[FeedList::entry(&A, "another")]).unwrap();
                }
                plain.close().unwrap();
            }
        }
        let held = [None, Some(3), Some(5)][case];
        let mut store = open(path);
        let set = root(&mut store, &A);
        assert_eq!(lost(&store), (held, 4));
        assert!(matches!(store.writer_in(set, Some("dave")), Err(StoreError::ListLost { .. })));
        let another = usize::from(case == 2);
        assert_eq!(store.rebuild_list(set).unwrap(), Some([3, 4, 4][case]), "{:?}", list(path, &A));
        assert!(store.problems().is_empty(), "{:?}", store.problems());
        store.writer_in(set, Some("dave")).unwrap();
        let mut names: Vec<_> = feeds(&store, set).into_iter().map(|(name, _)| name).collect();
        names.sort();
        let expected = if case == 2 { ["2", "alice", "carol", "dave"] } else { ["1", "alice", "carol", "dave"] };
        assert_eq!(names, expected, "{case}");
        store.close().unwrap();
        let mut store = open(path);
        let sets = [root(&mut store, &A), root(&mut store, &B)];
        assert!(store.problems().is_empty(), "{:?}", store.problems());
        assert_eq!(feeds(&store, sets[0]).len(), 4);
        assert_eq!(feeds(&store, sets[1]).len(), 2);
        store.close().unwrap();
        assert_eq!(list(path, &A).len(), [4, 5, 4 + another][case]);
    }
}

#[test]
fn a_damaged_block_of_a_list_hides_no_other_feed() {
    for block in 0..4 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let (mut store, mut remote) = shared(path);
        let set = root(&mut store, &A);
        for name in ["bob", "carol"] {
            store.writer_in(set, Some(name)).unwrap();
        }
        store.close().unwrap();
        let core = list_folder(path, &A);
        let whole = std::fs::read(core.join("data")).unwrap();
        let mut data = whole.clone();
        let start = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
        let start: Vec<_> = std::iter::once(0).chain(start).collect();
        data[start[block] + 20] ^= 1;
        std::fs::write(core.join("data"), &data).unwrap();
        let names = ["alice", "1", "bob", "carol"];
        let mut store = open(path);
        let set = root(&mut store, &A);
        let told: Vec<_> = store
            .problems()
            .iter()
            .map(ToString::to_string)
            .chain(store.recovered().iter().map(ToString::to_string))
            .collect();
        assert!(told.iter().any(|told| told.contains(&format!("block {block} of the list"))), "{told:?}");
        assert!(!told.iter().any(|told| told.contains("a sync with")), "{told:?}");
        let mut others: Vec<_> = names.into_iter().filter(|name| *name != names[block]).map(str::to_owned).collect();
        others.sort();
        let seen: Vec<_> = feeds(&store, set).into_iter().map(|(name, _)| name).collect();
        assert_eq!(seen, others);
        // What is appended takes no name that the lost one may have.
        writer(&mut remote, 2, 1);
        let (mut store, _) = sync(store, remote, set, 100);
        for name in names.into_iter().filter(|name| *name != "1") {
            store.writer_in(set, Some(name)).unwrap();
        }
        assert_eq!(feeds(&store, set).len(), 5);
        store.close().unwrap();
        // The block is whole again: all have names of their own.
        let mut data = std::fs::read(core.join("data")).unwrap();
        data[..whole.len()].copy_from_slice(&whole);
        std::fs::write(core.join("data"), data).unwrap();
        let mut store = open(path);
        let set = root(&mut store, &A);
        let seen: Vec<_> = feeds(&store, set).into_iter().map(|(name, _)| name).collect();
        assert!(["1", "alice", "bob", "carol"].iter().all(|name| seen.iter().any(|seen| seen == name)), "{seen:?}");
        let mut distinct = seen.clone();
        distinct.dedup();
        assert_eq!((seen.len(), distinct.len()), (5, 5), "{seen:?}");
        store.close().unwrap();
    }
}

#[test]
fn a_list_with_a_damaged_block_is_made_anew_if_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (store, _) = shared(path);
    store.close().unwrap();
    let data = list_folder(path, &A).join("data");
    let mut bytes = std::fs::read(&data).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&data, &bytes).unwrap();
    let mut store = open(path);
    let set = root(&mut store, &A);
    assert_eq!(feeds(&store, set), [("1".to_owned(), 2)]);
    assert_eq!(store.rebuild_list(set).unwrap(), Some(2));
    assert_eq!(feeds(&store, set), [("1".to_owned(), 2), ("alice".to_owned(), 3)]);
    store.close().unwrap();
    let mut store = open(path);
    let set = root(&mut store, &A);
    assert!(store.problems().is_empty() && store.recovered().is_empty());
    assert_eq!(feeds(&store, set), [("1".to_owned(), 2), ("alice".to_owned(), 3)]);
    store.close().unwrap();
}

/// A power cut leaves a prefix of what was written to a file, or zeros after it.
#[test]
fn a_key_that_a_power_cut_tore_is_written_again_and_any_other_is_left() {
    let bob = pair(1).public_key();
    let torn = |len: usize, to: usize| {
        let mut bytes = bob.as_bytes()[..len].to_vec();
        bytes.resize(to, 0);
        bytes
    };
    let mut flipped = bob.as_bytes().to_vec();
    flipped[3] ^= 1;
    let cases = [(torn(30, 30), true), (torn(1, 1), true), (torn(9, 32), true), (torn(0, 32), true), (flipped, false)];
    for (bytes, mended) in cases {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let (store, _) = shared(path);
        store.close().unwrap();
        let file = folder_of(path, &bob).join("key");
        std::fs::write(&file, &bytes).unwrap();
        let mut store = open(path);
        let set = root(&mut store, &A);
        let expected = if mended { 2 } else { 1 };
        assert_eq!((feeds(&store, set).len(), store.problems().is_empty()), (expected, mended), "{bytes:?}");
        store.close().unwrap();
        let left = std::fs::read(&file).unwrap();
        assert_eq!(left, if mended { bob.as_bytes().to_vec() } else { bytes });
    }
}
