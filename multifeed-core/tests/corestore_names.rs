//! Cores of a corestore that lost their `name`, by which it is known that they are written here.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use multifeed_core::{
    Corestore, CorestoreOptions, FileCoreStorage, FileStorageOptions, MasterKey, Multifeed, Options, RepairedInMemory,
    Storage, StoreError,
};

use crate::corestore_losses::{copy, find, folder_of, list_folder, refused, shared, sync};
use crate::corestore_multifeed::{A, Store, corestore, feeds, fill, list, open, root};

/// A folder with a writer `alice` of three blocks and a feed of a remote's that has them; the files of alice's core.
fn store(path: &Path) -> (PathBuf, Store, multifeed_proto::FeedKey) {
    let (mut store, remote) = shared(path);
    let set = root(&mut store, &A);
    let alice = find(&store, set, "alice");
    let key = store.info(alice).unwrap().key;
    store.close().unwrap();
    (folder_of(path, &key), remote, key)
}

fn open_read_only(path: &Path) -> Store {
    let storage = FileCoreStorage::open_read_only_with(path, FileStorageOptions::default()).unwrap();
    let store = Corestore::open(storage, CorestoreOptions::default(), || MasterKey::new([7; 32])).unwrap();
    let files = RepairedInMemory::new(store.into_files(&Options::default().limits).unwrap());
    Multifeed::open(Box::new(files) as Box<dyn Storage>, Options::default()).unwrap()
}

#[test]
fn a_writer_that_lost_its_name_gets_it_again() {
    for of_the_list in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let (core, remote, _) = store(path);
        let file = if of_the_list { list_folder(path, &A) } else { core }.join("name");
        let name = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        // One that only reads changes nothing.
        let mut store = open_read_only(path);
        let set = root(&mut store, &A);
        assert_eq!(feeds(&store, set), [("1".to_owned(), 2), ("alice".to_owned(), 3)]);
        assert!(store.problems().is_empty(), "{:?}", store.problems());
        store.close().unwrap();
        assert!(!file.exists());
        let mut store = open(path);
        let set = root(&mut store, &A);
        assert!(store.problems().is_empty(), "{:?}", store.problems());
        assert_eq!(std::fs::read(&file).unwrap(), name);
        let alice = store.writer_in(set, Some("alice")).unwrap();
        fill(&mut store, alice, 1);
        store.writer_in(set, Some("bob")).unwrap();
        let (store, remote) = sync(store, remote, set, 100);
        assert_eq!(remote.conflicts_kept() + store.conflicts_kept(), 0);
        store.close().unwrap();
        assert_eq!(list(path, &A), ["alice", "1", "bob"]);
    }
}

/// Its folder is an older copy, or what JS makes of a core that is gone: headers and the key.
#[test]
fn a_writer_without_its_name_signs_nothing_before_it_is_whole_again() {
    for case in 0..3 {
        let folder = tempfile::tempdir().unwrap();
        let aside = tempfile::tempdir().unwrap();
        let path = folder.path();
        let (core, remote, key) = store(path);
        copy(&core, aside.path());
        std::fs::remove_file(aside.path().join("name")).unwrap();
        let mut store = open(path);
        let mut set = root(&mut store, &A);
        let alice = store.writer_in(set, Some("alice")).unwrap();
        fill(&mut store, alice, 2);
        let (mut store, remote) = sync(store, remote, set, 100);
        if case == 2 {
            store.remove_writer(alice).unwrap();
        }
        store.close().unwrap();
        if case > 0 {
            for file in ["data", "multifeed.journal"] {
                let _ = std::fs::remove_file(aside.path().join(file));
            }
            for file in ["tree", "signatures", "bitfield"] {
                let header = std::fs::read(aside.path().join(file)).unwrap();
                std::fs::write(aside.path().join(file), &header[..32]).unwrap();
            }
        }
        let _ = std::fs::remove_dir_all(&core);
        copy(aside.path(), &core);
        let mut store = open(path);
        if case == 2 {
            store.unban(key).unwrap();
        }
        set = root(&mut store, &A);
        let held = [3, 0, 0][case];
        let older = |problem: &StoreError| matches!(problem, StoreError::OlderWriter { blocks, signed: 5, .. } if *blocks == held);
        assert!(store.problems().len() == 1 && store.problems().iter().all(older), "{case}: {:?}", store.problems());
        let alice = store.writer_in(set, Some("alice")).unwrap();
        assert_eq!(refused(&mut store, alice), "ERR_WRITER_OLDER");
        let (mut store, remote) = sync(store, remote, set, 200);
        assert!(store.problems().is_empty(), "{case}: {:?}", store.problems());
        fill(&mut store, alice, 1);
        let (store, remote) = sync(store, remote, set, 300);
        assert_eq!(remote.info(remote.find(&key).unwrap()).unwrap().downloaded, 6);
        assert_eq!(remote.conflicts_kept() + store.conflicts_kept(), 0);
        store.close().unwrap();
        assert!(core.join("name").exists());
    }
}

/// The lists are gone that would tell it: what is reported is what is missing, and it is put right once they are back.
#[test]
fn a_name_that_nothing_tells_is_reported_as_missing() {
    let folder = tempfile::tempdir().unwrap();
    let aside = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (core, remote, key) = store(path);
    std::fs::remove_file(core.join("name")).unwrap();
    let listed = list_folder(path, &A);
    copy(&listed, aside.path());
    std::fs::remove_dir_all(&listed).unwrap();
    let mut store = open(path);
    let set = root(&mut store, &A);
    let (mut store, _) = sync(store, remote, set, 100);
    let told: Vec<_> = store.problems().iter().map(|problem| store.told(problem.clone()).to_string()).collect();
    assert!(told.iter().any(|told| told.contains("`name` is damaged: it is missing")), "{told:?}");
    assert!(!told.iter().any(|told| told.contains("`secret_key` is")), "{told:?}");
    let alice = store.find(&key).expect("it is read, as the remote has it");
    assert!(matches!(store.remove(alice), Err(StoreError::OwnWriter { .. })));
    store.close().unwrap();
    assert!(!core.join("name").exists());
    copy(aside.path(), &listed);
    let mut store = open(path);
    let set = root(&mut store, &A);
    assert!(store.problems().is_empty(), "{:?}", store.problems());
    let alice = store.writer_in(set, Some("alice")).unwrap();
    fill(&mut store, alice, 1);
    store.close().unwrap();
}

/// As JS made it, and ours never wrote it: how much was signed is not known. It is read, as in JS.
#[test]
fn a_core_without_a_name_that_was_never_written_here_is_read_as_in_js() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (core, _, _) = store(path);
    for file in [core.join("name"), path.join("multifeed.journal")] {
        std::fs::remove_file(file).unwrap();
    }
    let _ = std::fs::remove_file(core.join("multifeed.journal"));
    let mut store = open(path);
    let set = root(&mut store, &A);
    assert_eq!(feeds(&store, set), [("1".to_owned(), 2), ("alice".to_owned(), 3)]);
    assert!(store.problems().is_empty(), "{:?}", store.problems());
    let error = store.writer_in(set, Some("alice")).unwrap_err();
    let error = store.told(error).to_string();
    assert!(error.contains("`name`") && error.contains("under another name"), "{error}");
    assert!(!core.join("name").exists());
    // Under another name it can be written.
    let bob = store.writer_in(set, Some("bob")).unwrap();
    store.append(bob, &[Bytes::from("a")]).unwrap();
    store.close().unwrap();
    corestore(path).close().unwrap();
}
