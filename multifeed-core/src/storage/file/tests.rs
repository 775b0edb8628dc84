use std::fs::{self, File};

use crate::storage::file::*;

fn id(slot: u32, kind: FileKind) -> FileId {
    FileId::new(Slot(slot), kind)
}

#[test]
fn a_second_opener_is_told_which_lock() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = FileStorage::open(folder.path()).unwrap();
    let error = FileStorage::open(folder.path()).unwrap_err();
    assert_eq!(error.code(), "ERR_STORE_LOCKED");
    assert!(error.to_string().contains(LOCK), "{error}");
    first.close().unwrap();
    assert!(first.list().is_err());
    FileStorage::open(folder.path()).unwrap();
}

#[test]
fn a_lock_ends_with_its_store_though_a_new_process_has_the_file_open_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = FileStorage::open(folder.path()).unwrap();
    let _inherited = first.lock.as_ref().unwrap().file.try_clone().unwrap();
    first.close().unwrap();
    FileStorage::open(folder.path()).unwrap();
}

#[test]
fn what_is_opened_for_reading_alone_is_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let file = id(0, FileKind::Data);
    fs::create_dir(folder.path().join("0")).unwrap();
    fs::write(folder.path().join("0/data"), b"abc").unwrap();
    let mut store = FileStorage::open_read_only(folder.path()).unwrap();
    let mut bytes = [0; 5];
    assert_eq!((store.list().unwrap(), store.read_at(file, 1, &mut bytes).unwrap()), (vec![Slot(0)], 2));
    assert_eq!((store.len(file).unwrap(), store.len(id(0, FileKind::Key)).unwrap()), (Some(3), None));
    store.sync(file).unwrap();
    let absent = id(1, FileKind::Key);
    let changes = [
        store.write_at(file, 0, b"x"),
        store.write_at(absent, 0, b"x"),
        store.truncate(file, 0),
        store.replace(absent, b"x"),
        store.rename(Slot(0), Slot(1)),
        store.remove(Slot(0)),
    ];
    for error in changes.map(Result::unwrap_err) {
        assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
        let error = StoreError::from_store("write", error).to_string();
        let place = folder.path().to_str().unwrap();
        assert!(error.contains(place) && error.contains("opened for reading alone"), "{error}");
    }
    let entries = |path: &Path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!((entries(folder.path()), entries(&folder.path().join("0"))), (vec!["0".into()], vec!["data".into()]));
    assert_eq!(fs::read(folder.path().join("0/data")).unwrap(), b"abc");
    store.close().unwrap();
    assert!(store.list().is_err());

    // If there is a lock, it counts.
    let mut writing = FileStorage::open(folder.path()).unwrap();
    assert_eq!(FileStorage::open_read_only(folder.path()).unwrap_err().code(), "ERR_STORE_LOCKED");
    writing.close().unwrap();
    let _reading = FileStorage::open_read_only(folder.path()).unwrap();
    assert_eq!(FileStorage::open(folder.path()).unwrap_err().code(), "ERR_STORE_LOCKED");
    let error = FileStorage::open_read_only(folder.path().join("none")).unwrap_err();
    assert!(error.to_string().contains("none"), "{error}");
}

#[test]
fn a_bitfield_locked_as_hypercore_locks_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = FileStorage::open(folder.path()).unwrap();
    let file = id(0, FileKind::Bitfield);
    store.write_at(file, 0, b"x").unwrap();
    store.close().unwrap();
    let mut store = FileStorage::open(folder.path()).unwrap();
    let theirs = File::open(folder.path().join("0/bitfield")).unwrap();
    theirs.try_lock().unwrap();
    let error = store.read_at(file, 0, &mut [0]).unwrap_err();
    let error = StoreError::from_file(file, "read", error);
    assert!(matches!(&error, StoreError::Locked { slot: Some(Slot(0)), .. }), "{error:?}");
    theirs.unlock().unwrap();
    assert_eq!(store.read_at(file, 0, &mut [0]).unwrap(), 1);
    assert!(theirs.try_lock().is_err());
}

#[test]
fn handles_are_bounded_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let options = FileStorageOptions { max_open_files: 7, ..FileStorageOptions::default() };
    let mut store = FileStorage::open_with(folder.path(), options).unwrap();
    for slot in 0..10 {
        store.write_at(id(slot, FileKind::Data), 2, &[slot as u8]).unwrap();
        assert!(store.pool.len() <= 3 && store.open_files() <= 6);
    }
    for slot in 0..10 {
        let mut buf = [9; 5];
        assert_eq!(store.read_at(id(slot, FileKind::Data), 1, &mut buf).unwrap(), 2);
        assert_eq!(buf[..2], [0, slot as u8]);
    }
    assert_eq!(store.len(id(3, FileKind::Data)).unwrap(), Some(3));
    assert_eq!(store.len(id(3, FileKind::Tree)).unwrap(), None);
    assert_eq!(store.read_at(id(3, FileKind::Tree), 0, &mut [0]).unwrap(), 0);
    store.truncate(id(3, FileKind::Data), 1).unwrap();
    store.sync(id(3, FileKind::Data)).unwrap();
    assert_eq!(store.len(id(3, FileKind::Data)).unwrap(), Some(1));
}

#[test]
fn a_hole_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = FileStorage::open(folder.path()).unwrap();
    let file = id(0, FileKind::Tree);
    assert_eq!(store.next_data(file, 0).unwrap(), None);
    store.write_at(file, 1 << 40, b"far").unwrap();
    let (mut at, mut steps) = (0, 0);
    while let Some(next) = store.next_data(file, at).unwrap() {
        let mut bytes = [0; 4096];
        let count = store.read_at(file, next, &mut bytes).unwrap();
        assert!(next >= at && count > 0);
        (at, steps) = (next + count as u64, steps + 1);
        if bytes[..count].ends_with(b"far") {
            break;
        }
        // On a disk that knows no holes, every offset is data.
        if steps > 1000 {
            return;
        }
    }
    assert_eq!(at, (1 << 40) + 3);
    assert_eq!(store.next_data(file, at).unwrap(), None);
    // After a cut, and past any end.
    store.truncate(file, 10).unwrap();
    assert_eq!(store.next_data(file, 1 << 41).unwrap(), None);
    assert_eq!(store.next_data(file, u64::MAX).unwrap(), None);
}

#[test]
fn foreign_names_are_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = FileStorage::open(folder.path()).unwrap();
    for name in ["0", "7", "07", "+1", "x", "4294967296", "-1"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("3"), b"a file").unwrap();
    assert_eq!(store.list().unwrap(), [Slot(0), Slot(7)]);
}

#[test]
fn a_folder_with_somebody_elses_file_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = FileStorage::open(folder.path()).unwrap();
    store.write_at(id(0, FileKind::Key), 0, b"k").unwrap();
    store.write_at(id(1, FileKind::Key), 0, b"k").unwrap();
    fs::write(folder.path().join("1/notes"), b"mine").unwrap();
    store.remove(Slot(0)).unwrap();
    store.remove(Slot(1)).unwrap();
    assert_eq!(store.list().unwrap(), [Slot(1)]);
    assert_eq!(fs::read(folder.path().join("1/notes")).unwrap(), b"mine");
    assert_eq!(store.len(id(1, FileKind::Key)).unwrap(), None);
}

#[test]
fn what_a_cut_replacement_left_goes_with_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = FileStorage::open(folder.path()).unwrap();
    store.replace(id(0, FileKind::SecretKey), b"k").unwrap();
    fs::write(folder.path().join("0/secret_key.tmp"), b"half a key").unwrap();
    store.remove(Slot(0)).unwrap();
    assert!(!folder.path().join("0").exists());
}

#[test]
fn a_folder_takes_the_number_of_one_that_was_removed() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = FileStorage::open(folder.path()).unwrap();
    for slot in 0..3 {
        store.write_at(id(slot, FileKind::Bitfield), 0, &[slot as u8]).unwrap();
        store.sync(id(slot, FileKind::Bitfield)).unwrap();
    }
    fs::write(folder.path().join("1/notes"), b"mine").unwrap();
    store.remove(Slot(1)).unwrap();
    store.rename(Slot(2), Slot(1)).unwrap();
    assert_eq!(store.list().unwrap(), [Slot(0), Slot(1)]);
    assert_eq!(fs::read(folder.path().join("1.left/notes")).unwrap(), b"mine");
    let mut byte = [9];
    assert_eq!(store.read_at(id(2, FileKind::Bitfield), 0, &mut byte).unwrap(), 0);
    assert_eq!((store.read_at(id(1, FileKind::Bitfield), 0, &mut byte).unwrap(), byte), (1, [2]));
    // And once more, beside those.
    store.write_at(id(2, FileKind::Bitfield), 0, &[3]).unwrap();
    fs::write(folder.path().join("1/notes"), b"more").unwrap();
    store.remove(Slot(1)).unwrap();
    store.rename(Slot(2), Slot(1)).unwrap();
    assert_eq!(fs::read(folder.path().join("1.left/notes")).unwrap(), b"mine");
    assert_eq!(fs::read(folder.path().join("1.left.2/notes")).unwrap(), b"more");
    // What is written there is fsynced there.
    store.write_at(id(1, FileKind::Bitfield), 0, b"x").unwrap();
    store.sync(id(1, FileKind::Bitfield)).unwrap();
    assert_eq!(fs::read(folder.path().join("1/bitfield")).unwrap(), b"x");
    assert!(store.rename(Slot(7), Slot(8)).is_err());
}

#[cfg(unix)]
#[test]
fn files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("new/store");
    let mut store = FileStorage::open(&root).unwrap();
    store.replace(id(0, FileKind::SecretKey), &[1; 64]).unwrap();
    store.replace(id(0, FileKind::SecretKey), &[2; 64]).unwrap();
    store.write_at(id(0, FileKind::Data), 0, b"x").unwrap();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(root.clone()), 0o700);
    assert_eq!(mode(root.join("0")), 0o700);
    assert_eq!(mode(root.join("0/secret_key")), 0o600);
    assert_eq!(mode(root.join("0/data")), 0o600);
    assert_eq!(fs::read(root.join("0/secret_key")).unwrap(), [2; 64]);
    assert!(!root.join("0/secret_key.tmp").exists());
}

/// A system makes a failing disk read-only while a store on it is open.
#[test]
fn a_file_that_cannot_be_written_is_opened_to_be_read() {
    use io::ErrorKind::{Other, PermissionDenied, ReadOnlyFilesystem};
    for (kind, reads) in [(PermissionDenied, true), (ReadOnlyFilesystem, true), (Other, false)] {
        let mut writes = Vec::new();
        let opened = pool::open_as_allowed(|access| {
            writes.push(matches!(access, Access::Write));
            if writes.len() == 1 { Err(kind.into()) } else { Ok(None) }
        });
        assert_eq!((opened.is_ok(), &writes[..]), (reads, if reads { &[true, false][..] } else { &[true] }), "{kind}");
    }
}
