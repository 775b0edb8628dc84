//! Several multifeeds of one corestore in one process.

use std::path::Path;

use futures_lite::future::zip;
use multifeed_driver::{
    Corestore, Error, FeedKey, Multifeed, Namespace, Options, ReadOptions, Replicate, Role, StreamOptions,
    generate_key_pair,
};

use super::{Adapter, assert_same, connect, ends, filled, memory_with};

const NOTES: FeedKey = FeedKey::new([1; 32]);
const CHAT: FeedKey = FeedKey::new([2; 32]);

async fn open(folder: &Path) -> Corestore {
    Corestore::open(folder, Options::default()).await.unwrap()
}

async fn multifeed(store: &Corestore, root_key: FeedKey) -> Multifeed {
    Multifeed::in_corestore(store, &Namespace::root(), root_key).await.unwrap()
}

/// Each has its own writers, events, sessions and remotes. A feed that both have is stored once, and is removed from one of them alone.
pub async fn multifeeds_of_one_corestore<A: Adapter>() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let (notes, chat) = (multifeed(&store, NOTES).await, multifeed(&store, CHAT).await);
    let mut events = chat.events();
    let (note, word) = (filled(&notes, "local", 1, 3, 100).await, filled(&chat, "local", 2, 4, 100).await);
    assert_ne!(note.key(), word.key(), "a name is another writer for each root key");
    let of_notes = memory_with(Options::new(NOTES)).await;
    let shared = filled(&of_notes, "theirs", 3, 5, 100).await;
    let of_chat = memory_with(Options::new(CHAT)).await;
    let both = chat.add(shared.key()).await.unwrap();

    let (to_notes, from_notes) = connect::<A>(&notes, &of_notes, &Replicate::live());
    let (to_chat, from_chat) = connect::<A>(&chat, &of_chat, &Replicate::live());
    for sync in [&to_notes, &from_notes] {
        sync.in_sync().await.unwrap();
    }
    notes.in_sync().await.unwrap();
    for feed in [&note, &shared] {
        assert_same(feed, &of_notes).await;
    }
    // What one multifeed's remote brought the other one has too, and passes it on.
    assert_eq!(both.fetch(4).await.unwrap().len(), 100);
    chat.in_sync().await.unwrap();
    zip(to_chat.in_sync(), from_chat.in_sync()).await.0.unwrap();
    assert_same(&shared, &of_chat).await;
    assert_eq!((of_notes.feeds().len(), of_chat.feeds().len()), (2, 2), "no feed of another root key");
    assert_eq!((notes.feeds().len(), chat.feeds().len()), (2, 2));
    let (state, of_all) = (chat.sync_state().await.unwrap(), notes.sync_state().await.unwrap());
    assert_eq!((state.sessions, of_all.sessions), (1, 1));

    notes.feed(shared.key()).unwrap().remove().await.unwrap();
    assert_eq!((notes.feeds().len(), chat.feeds().len()), (1, 2));
    assert_eq!(both.fetch(0).await.unwrap().len(), 100);

    chat.close().await.unwrap();
    let (here, there) = ends(to_chat, from_chat).await;
    here.unwrap();
    there.unwrap();
    let mut keys = Vec::new();
    while let Some(event) = events.next().await {
        if let multifeed_driver::MultifeedEvent::Feed(feed) = event {
            keys.push(feed.key());
        }
    }
    assert_eq!(keys, [word.key(), shared.key()]);
    // The other one goes on.
    note.append("late").await.unwrap();
    zip(to_notes.in_sync(), from_notes.in_sync()).await.0.unwrap();
    assert_same(&note, &of_notes).await;
    store.close().await.unwrap();
    let (here, there) = ends(to_notes, from_notes).await;
    here.unwrap();
    there.unwrap();
    assert!(matches!(note.append("x").await, Err(Error::Closed)));

    // As it was left.
    let store = open(folder.path()).await;
    let (notes, chat) = (multifeed(&store, NOTES).await, multifeed(&store, CHAT).await);
    assert_eq!((notes.feeds().len(), chat.feeds().len()), (1, 2));
    assert_eq!(notes.feed_by_name("local").unwrap().len(), 4);
}

/// A folder is released when nobody has a handle any more: of the corestore or of one of its multifeeds.
pub async fn a_corestore_is_held_by_each_of_its_handles<A: Adapter>() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let (notes, chat) = (multifeed(&store, NOTES).await, multifeed(&store, CHAT).await);
    drop(store);
    let feed = filled(&notes, "local", 1, 3, 10).await;
    let again = Corestore::open(folder.path(), Options::default()).await.unwrap_err();
    assert!(matches!(again, Error::Store(multifeed_driver::StoreError::Locked { .. })), "{again}");
    chat.close().await.unwrap();
    assert!(chat.is_closed() && !notes.is_closed());
    assert!(matches!(chat.writer("local").await, Err(Error::Closed)));
    feed.append("more").await.unwrap();
    drop(notes);
    // A feed's handle is one as well.
    assert_eq!(feed.append("and more").await.unwrap(), 4);
    drop(feed);
    let store = loop {
        match Corestore::open(folder.path(), Options::default()).await {
            Ok(store) => break store,
            Err(Error::Store(multifeed_driver::StoreError::Locked { .. })) => {
                A::sleep(std::time::Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error}"),
        }
    };
    let notes = multifeed(&store, NOTES).await;
    assert_eq!(notes.feed_by_name("local").unwrap().len(), 5);
    // One that is open is given again; one that was closed can be opened again, with its feeds.
    let other = multifeed(&store, NOTES).await;
    let mut events = other.events();
    notes.writer("second").await.unwrap();
    assert!(events.next().await.is_some());
    notes.close().await.unwrap();
    assert!(other.is_closed());
    let notes = multifeed(&store, NOTES).await;
    assert_eq!(notes.feeds().len(), 2);
    notes.writer("local").await.unwrap().append("on").await.unwrap();
    // Namespaces are apart.
    let apart = Multifeed::in_corestore(&store, &Namespace::root().namespace("apart"), NOTES).await.unwrap();
    assert_eq!(apart.feeds().len(), 0);
    assert_ne!(apart.writer("local").await.unwrap().key(), notes.writer("local").await.unwrap().key());
    store.close().await.unwrap();
    assert!(notes.is_closed() && apart.is_closed() && store.is_closed());
    store.close().await.unwrap();
}

/// A call that waits for a peer ends if its multifeed is closed, and one of another multifeed waits on.
pub async fn closing_one_multifeed_of_a_corestore<A: Adapter>() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let (notes, chat) = (multifeed(&store, NOTES).await, multifeed(&store, CHAT).await);
    let of_notes = memory_with(Options::new(NOTES)).await;
    let theirs = of_notes.writer("theirs").await.unwrap();
    let (waits, ends) = (notes.add(theirs.key()).await.unwrap(), chat.add(theirs.key()).await.unwrap());
    let mut live = ends.stream(ReadOptions::live());
    let ending = zip(ends.fetch(0), live.next());
    let ((closed, end), held) = zip(ending, async {
        chat.close().await.unwrap();
        let block = zip(waits.fetch(0), async {
            theirs.append("a block").await.unwrap();
            drop(connect::<A>(&notes, &of_notes, &Replicate::default()).0.finish().await);
        });
        block.await.0
    })
    .await;
    assert!(matches!(closed, Err(Error::Closed)), "{closed:?}");
    assert!(end.is_none(), "{end:?}");
    assert_eq!(held.unwrap(), "a block");
}

/// Plain cores: made by name and key pair, found by key, listed, synced over a stream, and beside the multifeeds of the same folder.
pub async fn plain_cores_of_a_corestore<A: Adapter>() {
    let (folder, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(folder.path()).await;
    let absent = generate_key_pair().unwrap();
    assert!(store.get(absent.public_key()).await.unwrap().is_none());
    assert_eq!(store.list().await.unwrap().cores, []);

    let log = store.named("log").await.unwrap();
    assert_eq!((log.name().as_str(), log.writable(), log.len()), ("log", true, 0));
    log.append_batch(["a", "b", "c"]).await.unwrap();
    let main = store.default_core(&Namespace::root()).await.unwrap();
    main.append("main").await.unwrap();
    let pair = store.with_key_pair(absent.clone()).await.unwrap();
    assert_eq!((pair.key(), pair.name()), (absent.public_key(), absent.public_key().to_string()));
    assert!(pair.writable() && store.get(pair.key()).await.unwrap().as_ref() == Some(&pair));
    assert_eq!(store.named("log").await.unwrap(), log);
    let mut names: Vec<_> = store.list().await.unwrap().cores.into_iter().map(|core| core.name).collect();
    names.sort();
    assert_eq!(names, [None, Some(b"default".to_vec()), Some(b"log".to_vec())]);
    for name in [&[][..], &[0; 5000]] {
        assert!(matches!(store.named(name).await, Err(Error::Store(error)) if error.code() == "ERR_BAD_NAME"));
    }

    // A multifeed's feed is a core; its list is the multifeed's alone.
    let notes = multifeed(&store, NOTES).await;
    let note = filled(&notes, "local", 1, 3, 100).await;
    let as_core = store.get(note.key()).await.unwrap().unwrap();
    as_core.append("more").await.unwrap();
    assert_eq!((note.len(), as_core.len()), (4, 4));
    assert_eq!(notes.feeds().len(), 1, "plain cores are in no multifeed");
    let list = Namespace::root().namespace(&format!("@multifeed:{NOTES}")).namespace("@multifeed:persist");
    let refused = store.default_core(&list).await.unwrap_err();
    assert!(matches!(&refused, Error::Store(error) if error.code() == "ERR_LIST_OF_FEEDS"), "{refused}");
    as_core.remove_writer().await.unwrap();
    assert_eq!((notes.feeds().len(), store.get(note.key()).await.unwrap().unwrap().len()), (1, 4));

    // Over a stream, one core alone.
    let other = open(theirs.path()).await;
    let (here, there) = A::pair();
    let (here, there) = (A::stream(here), A::stream(there));
    let here = A::open_stream(here, Role::Initiator, StreamOptions::default());
    let there = A::open_stream(there, Role::Responder, StreamOptions::default());
    let copy = other.add(log.key()).await.unwrap();
    let (sent, fetched) =
        (log.replicate_over(&here, Replicate::live()), copy.replicate_over(&there, Replicate::live()));
    assert_eq!(&copy.fetch(2).await.unwrap()[..], b"c");
    log.append("d").await.unwrap();
    assert_eq!(&copy.fetch(3).await.unwrap()[..], b"d");
    assert!(!copy.writable());
    assert_eq!(other.list().await.unwrap().cores.len(), 1, "no other core");
    sent.close();
    let (sent, fetched) = zip(sent.finish(), fetched.finish()).await;
    sent.unwrap();
    fetched.unwrap();
    here.close();
    there.close();

    // Handles that are dropped close nothing of it; the corestore's own last one does.
    drop((log, main, pair, as_core));
    assert_eq!(store.named("log").await.unwrap().len(), 4);
    store.close().await.unwrap();
    assert!(matches!(note.append("x").await, Err(Error::Closed)));
    assert!(matches!(store.named("log").await, Err(Error::Closed)));
    drop(other);
    assert_eq!(copy.get(0).await.unwrap().as_deref(), Some(&b"a"[..]), "a core's handle holds the folder");
    drop(copy);
    let other = loop {
        match Corestore::open(theirs.path(), Options::default()).await {
            Ok(store) => break store,
            Err(Error::Store(multifeed_driver::StoreError::Locked { .. })) => {
                A::sleep(std::time::Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error}"),
        }
    };
    let copy = other.list().await.unwrap().cores.pop().unwrap();
    assert_eq!(other.get(copy.key).await.unwrap().unwrap().len(), 4);
}
