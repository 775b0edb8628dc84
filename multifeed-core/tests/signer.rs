//! A writer whose secret key the application keeps: nothing secret on the disk, and nothing there that is not signed.

use std::error::Error;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use multifeed_core::{
    AppendError, FeedId, FileId, FileKind, KeyPair, MemoryStorage, Multifeed, Options, Signer, Signers, Slot, Storage,
    StoreError,
};
use multifeed_proto::FeedKey;

use crate::common::{blocks, create_copy, key_pair, pull};

const N: u8 = 3;
const HEADER: u64 = 32;

/// What keeps a key for the application. It can be locked, and count.
#[derive(Debug)]
struct Keychain {
    shown: FeedKey,
    pair: KeyPair,
    locked: Mutex<bool>,
    signed: AtomicUsize,
}

impl Keychain {
    fn new(n: u8) -> Arc<Self> {
        Self::of(key_pair(n).public_key(), n)
    }

    fn of(shown: FeedKey, n: u8) -> Arc<Self> {
        Arc::new(Self { shown, pair: key_pair(n), locked: Mutex::new(false), signed: AtomicUsize::new(0) })
    }

    fn lock(&self, locked: bool) {
        *self.locked.lock().unwrap() = locked;
    }

    fn signed(&self) -> usize {
        self.signed.swap(0, Ordering::Relaxed)
    }
}

impl Signer for Keychain {
    fn public_key(&self) -> FeedKey {
        self.shown
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], Box<dyn Error + Send + Sync>> {
        assert_eq!(message.len(), 40);
        if *self.locked.lock().unwrap() {
            return Err("the keychain is locked".into());
        }
        self.signed.fetch_add(1, Ordering::Relaxed);
        Ok(self.pair.sign(message))
    }
}

fn with(signer: &Arc<Keychain>) -> Options {
    let mut signers = Signers::default();
    signers.add(signer.clone());
    Options { signers, ..Options::default() }
}

fn open(disk: &mut MemoryStorage, options: Options) -> Multifeed<&mut MemoryStorage> {
    disk.reopen();
    Multifeed::open(disk, options).unwrap()
}

fn of(kind: FileKind) -> FileId {
    FileId::new(Slot(0), kind)
}

fn shown<S: Storage>(store: &Multifeed<S>) -> (FeedId, u64, u64, bool, bool) {
    let id = store.find(&key_pair(N).public_key()).unwrap();
    let info = store.info(id).unwrap();
    (id, info.len, info.downloaded, info.writable, info.lost_key)
}

/// A store that was closed, with ten blocks of a signer's writer.
fn closed() -> MemoryStorage {
    let mut disk = MemoryStorage::new();
    let mut store = open(&mut disk, Options::default());
    let id = store.writer_with_signer(Some("w"), Keychain::new(N)).unwrap();
    store.append(id, &blocks(N, 0..10)).unwrap();
    store.close().unwrap();
    disk.reopen();
    disk
}

#[test]
fn a_batch_is_signed_once_and_the_files_are_those_of_a_key_pairs_writer_without_its_secret() {
    let signer = Keychain::new(N);
    let [mut ours, mut theirs] = [MemoryStorage::new(), MemoryStorage::new()];
    let mut store = open(&mut ours, Options::default());
    let id = store.writer_with_signer(Some("w"), signer.clone()).unwrap();
    store.append(id, &blocks(N, 0..10)).unwrap();
    assert_eq!(signer.signed(), 1);
    store.append(id, &blocks(N, 10..11)).unwrap();
    assert_eq!((signer.signed(), shown(&store)), (1, (id, 11, 11, true, false)));
    // Asked for again: by name, by key.
    assert_eq!(store.writer_with_signer(Some("w"), signer.clone()).unwrap(), id);
    assert_eq!(store.writer_with_signer(None, signer.clone()).unwrap(), id);
    store.close().unwrap();
    let mut store = open(&mut theirs, Options::default());
    let id = store.writer(Some("w"), || key_pair(N)).unwrap();
    store.append(id, &blocks(N, 0..10)).unwrap();
    store.append(id, &blocks(N, 10..11)).unwrap();
    store.close().unwrap();
    for kind in FileKind::ALL {
        let expected = theirs.contents(of(kind)).filter(|_| kind != FileKind::SecretKey);
        assert!(ours.contents(of(kind)) == expected, "{kind:?}");
    }
    let secret = key_pair(N).secret_key();
    for kind in FileKind::ALL.into_iter().chain([FileKind::Journal]) {
        for file in [of(kind), FileId::new(Slot(u32::MAX), kind)] {
            let contents = ours.contents(file).unwrap_or_default();
            assert!(!contents.windows(32).any(|bytes| bytes == &secret[..32]), "{kind:?}");
        }
    }
}

#[test]
fn what_signs_another_key_or_fails_appends_nothing() {
    let wrong = Keychain::of(key_pair(N).public_key(), N + 1);
    let mut disk = MemoryStorage::new();
    let mut store = open(&mut disk, Options::default());
    let id = store.writer_with_signer(None, wrong).unwrap();
    let error = store.append(id, &blocks(N, 0..2)).unwrap_err();
    assert!(error.to_string().contains("not valid under that key"), "{error}");
    assert_eq!((error.code(), shown(&store).1), ("ERR_SIGNER", 0));
    store.close().unwrap();
    assert_eq!(disk.contents(of(FileKind::Data)), None);

    let mut disk = closed();
    let before = disk.clone();
    let signer = Keychain::new(N);
    let mut store = open(&mut disk, with(&signer));
    signer.lock(true);
    let id = shown(&store).0;
    let error = store.append(id, &blocks(N, 10..12)).unwrap_err();
    let AppendError::Store(StoreError::Signer { key, source, .. }) = &error else { panic!("{error}") };
    assert_eq!((*key, source.to_string().as_str()), (key_pair(N).public_key(), "the keychain is locked"));
    assert_eq!(shown(&store), (id, 10, 10, true, false));
    for kind in FileKind::ALL {
        assert!(store.storage().contents(of(kind)) == before.contents(of(kind)), "{kind:?}");
    }
    // It is the same feed as soon as the signer signs.
    signer.lock(false);
    store.append(id, &blocks(N, 10..12)).unwrap();
    store.close().unwrap();
    let store = open(&mut disk, with(&signer));
    assert_eq!((shown(&store).1, store.problems().len()), (12, 0));
}

#[test]
fn without_its_signer_a_feed_is_read_and_served_and_the_journal_still_knows_the_writer() {
    let mut disk = closed();
    // A block was cleared: nobody has it, and that is known.
    let signer = Keychain::new(N);
    let mut store = open(&mut disk, with(&signer));
    let id = shown(&store).0;
    store.clear(id, 4..5).unwrap();
    store.close().unwrap();
    for turn in 0..3 {
        let mut store = open(&mut disk, Options::default());
        let (id, len, downloaded, writable, lost_key) = shown(&store);
        assert_eq!((len, downloaded, writable, lost_key), (10, 9, false, true), "{turn}");
        assert!(matches!(store.problems(), [StoreError::NoSigner { .. }]), "{turn}: {:?}", store.problems());
        let error = store.append(id, &blocks(N, 10..11)).unwrap_err();
        assert_eq!(error.code(), "ERR_READ_ONLY");
        // Nobody takes its name, nor its key.
        let other = store.writer(Some("w"), || key_pair(N + 1)).unwrap_err();
        assert_eq!(other.code(), "ERR_NO_SIGNER");
        assert_eq!(store.writer_with_signer(None, signer.clone()).unwrap_err().code(), "ERR_NO_SIGNER");
        assert_eq!(store.get(id, 3).unwrap(), Some(blocks(N, 3..4)[0].clone()));
        store.close().unwrap();
    }
    // Its folder serves a copy.
    let mut served = disk.clone();
    served.reopen();
    let mut feed = multifeed_core::Feed::open(&mut served, Slot(0)).unwrap();
    let mut elsewhere = MemoryStorage::new();
    let mut copy = create_copy(&mut elsewhere, 0, N);
    (5..10).for_each(|index| _ = pull((&mut feed, &mut served), (&mut copy, &mut elsewhere), index));
    assert_eq!(copy.downloaded(), 5);
    // With the signer it is the writer that it was, and the cleared block is not missed.
    let mut store = open(&mut disk, with(&signer));
    let (id, len, downloaded, writable, lost_key) = shown(&store);
    assert_eq!((len, downloaded, writable, lost_key), (10, 9, true, false));
    assert_eq!((store.problems().len(), store.recovered().len()), (0, 0), "{:?}", store.problems());
    assert_eq!(store.writer(Some("w"), || unreachable!()).unwrap(), id);
    store.append(id, &blocks(N, 10..11)).unwrap();
    let other = store.writer_with_signer(Some("w"), Keychain::new(N + 1)).unwrap_err();
    assert_eq!(other.code(), "ERR_KEY_MISMATCH");
}

#[test]
fn after_a_crash_what_was_signed_before_is_signed_again_or_nothing_is_changed() {
    let signer = Keychain::new(N);
    let mut disk = closed();
    let signatures = disk.contents(of(FileKind::Signatures)).unwrap();
    // The newest signature is lost, of a store that was closed, and of one that was not.
    for unclean in [false, true] {
        let mut torn = disk.clone();
        if unclean {
            let mut store = open(&mut torn, with(&signer));
            let id = shown(&store).0;
            store.append(id, &[Bytes::from("seen by nobody")]).unwrap();
            drop(store);
            torn.reopen();
            torn.truncate(of(FileKind::Tree), HEADER + 40 * 19).unwrap();
            torn.truncate(of(FileKind::Signatures), HEADER + 64 * 10).unwrap();
        }
        torn.write_at(of(FileKind::Signatures), HEADER + 64 * 9, &[7; 64]).unwrap();
        let before = torn.clone();
        // Without the signer, and with one that fails, it is no writer, and the files stay as they are.
        signer.lock(true);
        for (options, code) in [(Options::default(), "ERR_NO_SIGNER"), (with(&signer), "ERR_SIGNER")] {
            for close in [false, true] {
                let store = open(&mut torn, options.clone());
                // What can be read without a signature is read.
                let writable = store.feeds().any(|id| store.info(id).unwrap().writable);
                assert!(!writable, "{unclean} {code}");
                let codes: Vec<_> = store.problems().iter().map(StoreError::code).collect();
                assert!(codes.contains(&code), "{unclean}: {:?}", store.problems());
                if close {
                    store.close().unwrap();
                }
                for kind in FileKind::ALL {
                    assert!(torn.contents(of(kind)) == before.contents(of(kind)), "{unclean} {code} {kind:?}");
                }
            }
        }
        signer.lock(false);
        signer.signed();
        let mut store = open(&mut torn, with(&signer));
        assert_eq!(
            (shown(&store).1, shown(&store).3, signer.signed()),
            (10, true, 1),
            "{unclean}: {:?}",
            store.problems()
        );
        assert!(store.recovered()[0].signed_again);
        assert!(store.storage().contents(of(FileKind::Signatures)).unwrap() == signatures, "{unclean}");
        let id = shown(&store).0;
        store.append(id, &blocks(N, 10..12)).unwrap();
        store.close().unwrap();
    }
    // A batch that is marked was signed, and is signed again; one that was cut before is dropped. As of any writer.
    let marks = disk.contents(of(FileKind::Bitfield)).unwrap();
    let mut store = open(&mut disk, with(&signer));
    let id = shown(&store).0;
    store.append(id, &blocks(N, 10..13)).unwrap();
    drop(store);
    for (cut, len) in [(false, 13), (true, 10)] {
        disk.reopen();
        disk.truncate(of(FileKind::Signatures), HEADER + 64 * 10).unwrap();
        if cut {
            disk.replace(of(FileKind::Bitfield), &marks).unwrap();
        }
        let mut torn = disk.clone();
        let store = open(&mut torn, with(&signer));
        assert_eq!((shown(&store).1, shown(&store).3), (len, true), "{:?}", store.problems());
    }
}

#[test]
fn a_signer_of_a_key_that_is_here_under_another_name_hears_whose_that_is() {
    let mut disk = closed();
    let signer = Keychain::new(N);
    let mut store = open(&mut disk, with(&signer));
    let error = store.writer_with_signer(Some("another"), signer).unwrap_err();
    assert_eq!(error.code(), "ERR_KEY_IN_USE");
    let error = store.writer(Some("another"), || key_pair(N)).unwrap_err();
    let key = key_pair(N).public_key();
    assert_eq!(
        error.to_string(),
        format!("feed {key} has that key: it is the writer \"w\" here, which can be asked for by that name")
    );
    // A feed that came from a remote.
    store.add(key_pair(9).public_key()).unwrap();
    let error = store.writer(Some("ours"), || key_pair(9)).unwrap_err();
    assert!(error.to_string().contains("it came from a peer, and is here as \"1\""), "{error}");
}

#[test]
fn a_byte_of_the_key_that_rotted_is_written_again_for_a_signers_feed_too() {
    let mut disk = closed();
    let key = disk.contents(of(FileKind::Key)).unwrap();
    disk.write_at(of(FileKind::Key), 5, &[key[5] ^ 4]).unwrap();
    let store = open(&mut disk, with(&Keychain::new(N)));
    assert_eq!((shown(&store).1, shown(&store).3), (10, true));
    assert_eq!(store.storage().contents(of(FileKind::Key)).unwrap(), key);
}
