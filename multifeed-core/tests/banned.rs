//! `multifeed.blocked`: one in which a person wrote too, and one that is longer than may be.

use multifeed_core::{FileId, FileKind, KeyPair, Limits, MemoryStorage, Multifeed, Options, Storage, StoreError};
use multifeed_proto::FeedKey;

const FILE: FileId = FileId { slot: multifeed_core::Slot(0), kind: FileKind::Banned };

fn key(seed: u8) -> FeedKey {
    KeyPair::from_seed(&[seed; 32]).public_key()
}

fn open(disk: &mut MemoryStorage, banned: usize) -> Multifeed<&mut MemoryStorage> {
    disk.reopen();
    let mut limits = Limits::default();
    limits.banned = banned;
    Multifeed::open(disk, Options { limits, ..Options::default() }).unwrap()
}

fn text(disk: &MemoryStorage) -> Vec<u8> {
    disk.contents(FILE).unwrap()
}

#[test]
fn what_a_person_wrote_stays() {
    let mut disk = MemoryStorage::new();
    let (one, two, three) = (key(1), key(2), key(3));
    let mut by_hand =
        format!("# from the list of last year\r\n\n  {one}\r\nwho is {two}?\n# spam\n{two}\n{one}\n").into_bytes();
    by_hand.extend_from_slice(b"\xff\xfe no text\n# no end");
    disk.replace(FILE, &by_hand).unwrap();
    let mut store = open(&mut disk, 10);
    assert_eq!(store.problems().len(), 1);
    assert_eq!(store.problems()[0].to_string(), "`multifeed.blocked` is damaged: its line 4 is no key");
    assert_eq!(store.banned().count(), 2);
    // A key is written once, behind all of it, and goes again; it is not in the file's way that somebody wrote it there meanwhile.
    assert!(store.ban(three).unwrap() && !store.ban(two).unwrap());
    assert_eq!(text(store.storage()), [&by_hand[..], format!("\n{three}\n").as_bytes()].concat());
    assert!(store.unban(three).unwrap());
    assert_eq!(text(store.storage()), [&by_hand[..], b"\n"].concat());
    // All lines of a key go, and nothing else.
    assert!(store.unban(one).unwrap() && !store.unban(one).unwrap());
    let rest = format!("# from the list of last year\r\n\nwho is {two}?\n# spam\n{two}\n");
    assert_eq!(text(store.storage()), [rest.as_bytes(), b"\xff\xfe no text\n# no end\n"].concat());
    drop(store);
    assert_eq!(open(&mut disk, 10).banned().collect::<Vec<_>>(), [two]);

    // Notes alone are no damage; and a key that somebody adds while the store is open is not written twice.
    disk.replace(FILE, b"# nothing yet\n").unwrap();
    disk.reopen();
    let mut copy = disk.clone();
    let mut store = open(&mut copy, 10);
    assert!(store.problems().is_empty(), "{:?}", store.problems());
    assert!(store.ban(two).unwrap());
    assert_eq!(text(store.storage()), format!("# nothing yet\n{two}\n").as_bytes());
}

#[test]
fn keys_past_a_lowered_limit_stay_banned() {
    let mut disk = MemoryStorage::new();
    let mut store = open(&mut disk, 10);
    for seed in 1..=5 {
        assert!(store.ban(key(seed)).unwrap());
    }
    drop(store);
    let mut store = open(&mut disk, 2);
    assert!(store.problems().is_empty());
    assert!((1..=5).all(|seed| store.is_banned(&key(seed))));
    assert!(matches!(store.ban(key(6)), Err(StoreError::TooManyBanned { max: 2 })));
    assert!(store.unban(key(3)).unwrap());
    drop(store);
    let mut store = open(&mut disk, 2);
    assert_eq!(store.banned().count(), 4);
    for seed in [1, 2, 4] {
        assert!(store.unban(key(seed)).unwrap());
    }
    assert!(store.ban(key(6)).unwrap());
    assert_eq!(store.banned().count(), 2);
}

#[test]
fn a_file_that_is_too_long_to_be_read_whole_is_not_written() {
    const MOST: u64 = 16 << 20;
    let mut disk = MemoryStorage::new();
    let mut store = open(&mut disk, 10);
    store.ban(key(1)).unwrap();
    drop(store);
    // As long as may be: there is no room for one more key. And one byte longer.
    disk.write_at(FILE, 65, b"#").unwrap();
    disk.truncate(FILE, MOST).unwrap();
    let mut store = open(&mut disk, 10);
    assert!(store.problems().is_empty(), "{:?}", store.problems());
    assert!(matches!(store.ban(key(2)), Err(StoreError::TooManyBanned { max: 10 })));
    drop(store);
    disk.truncate(FILE, MOST + 1).unwrap();
    let before = text(&disk);
    let mut store = open(&mut disk, 10);
    assert_eq!(store.problems().len(), 1);
    let why = format!("`multifeed.blocked` is damaged: it has {} bytes, and {MOST} are read", MOST + 1);
    assert_eq!(store.problems()[0].to_string(), why);
    assert_eq!(store.ban(key(2)).unwrap_err().to_string(), why);
    assert_eq!(store.unban(key(1)).unwrap_err().to_string(), why);
    assert!(store.is_banned(&key(1)) && !store.is_banned(&key(2)));
    drop(store);
    assert!(text(&disk) == before);
    // A limit above that reads it.
    let mut store = open(&mut disk, 1 << 20);
    assert!(store.problems().is_empty());
    assert!(store.unban(key(1)).unwrap());
}

/// A disk that lost what was in the file: nobody is banned any more, which is said. If the last ban was lifted, that is no damage.
#[test]
fn a_file_that_lost_its_lines_is_reported() {
    let mut disk = MemoryStorage::new();
    let mut store = Multifeed::open(&mut disk, Options::default()).unwrap();
    store.ban(key(1)).unwrap();
    assert!(store.unban(key(1)).unwrap());
    store.close().unwrap();
    disk.reopen();
    let mut store = Multifeed::open(&mut disk, Options::default()).unwrap();
    assert!(store.problems().is_empty() && store.banned().count() == 0, "{:?}", store.problems());
    store.ban(key(2)).unwrap();
    store.close().unwrap();
    disk.reopen();
    disk.replace(FILE, b"").unwrap();
    for turn in 0..2 {
        let mut store = Multifeed::open(&mut disk, Options::default()).unwrap();
        let told = store
            .problems()
            .iter()
            .any(|problem| problem.to_string().contains("`multifeed.blocked` is damaged: it is empty"));
        assert!(told == (turn == 0), "{turn}: {:?}", store.problems());
        store.ban(key(2)).unwrap();
        store.close().unwrap();
        disk.reopen();
    }
}
