//! Syncs that end by themselves, and what handles do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use multifeed_driver::{
    DiscoveryKey, Error, FeedKey, Json, KeyPair, Multifeed, Options, Replicate, Signer, StoreError, SyncEvent,
};

use super::{Adapter, assert_same, connect, connect_with, ends, fill, filled, hang_up, held, memory, sync};
use crate::blocks::block;

/// Nothing to sync is no reason to hang.
pub async fn two_empty_ones_end_with_nothing<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    let (left, right) = sync::<A>(&a, &b).await;
    assert_eq!((left.moved.feeds, right.moved.feeds), (0, 0));
    assert!(a.feeds().is_empty() && b.feeds().is_empty());
}

/// A writer's feed comes to the other side, in either role.
pub async fn one_writer<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    let feed = filled(&a, "a", 1, 100, 50).await;
    let (left, right) = sync::<A>(&a, &b).await;
    assert_same(&feed, &b).await;
    assert_eq!((left.moved.blocks_sent, left.moved.bytes_sent), (100, 5000));
    assert_eq!((right.moved.blocks_received, right.moved.bytes_received), (100, 5000));
    assert!(right.moved.holes.is_empty());
    // The side that ends first takes no note of the other's last bytes.
    let (there, back) = (left.stream.bytes_out - right.stream.bytes_in, right.stream.bytes_out - left.stream.bytes_in);
    assert!(there < 100 && back < 100 && right.stream.bytes_in > 5000, "{left:?} {right:?}");

    let c = memory().await;
    sync::<A>(&c, &b).await;
    assert_same(&feed, &c).await;
    assert!(!c.feed(feed.key()).unwrap().writable());
}

/// Both sides end with both feeds.
pub async fn both_write<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    let ours = filled(&a, "a", 1, 40, 1000).await;
    let theirs = filled(&b, "b", 2, 60, 500).await;
    sync::<A>(&a, &b).await;
    assert_same(&ours, &b).await;
    assert_same(&theirs, &a).await;
    assert_eq!((a.feeds().len(), b.feeds().len()), (2, 2));
}

/// Every size that a message can carry.
pub async fn blocks_of_0_bytes_to_4_mib<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    let feed = a.writer("sizes").await.unwrap();
    for (index, size) in [0, 1, 2, 127, 128, 65_535, 65_536, 1 << 20, 0, 4 << 20].into_iter().enumerate() {
        feed.append(block(3, index as u32, size)).await.unwrap();
    }
    sync::<A>(&a, &b).await;
    assert_same(&feed, &b).await;
}

/// More blocks than any window.
pub async fn thousands_of_blocks<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    let feed = filled(&a, "many", 4, 5_000, 20).await;
    let short = filled(&b, "few", 5, 10, 20).await;
    sync::<A>(&a, &b).await;
    assert_same(&feed, &b).await;
    assert_same(&short, &a).await;
}

/// Keys, hex, discovery keys and names name the same feed.
pub async fn feeds_are_found_by_key_and_name<A: Adapter>() {
    let multi = memory().await;
    let feed = multi.writer("named").await.unwrap();
    let hex = feed.key().to_string();
    assert_eq!(multi.feed(feed.key()), Some(feed.clone()));
    assert_eq!(multi.feed(hex.as_str()), Some(feed.clone()));
    assert_eq!(multi.feed(&hex.to_uppercase()), Some(feed.clone()));
    assert_eq!(multi.feed(feed.discovery_key()), Some(feed.clone()));
    assert_eq!(multi.feed(feed.discovery_key().to_string().as_str()), Some(feed.clone()));
    assert_eq!(multi.feed_by_name("named"), Some(feed.clone()));
    assert_eq!(multi.feeds(), [feed]);
    assert_eq!(multi.feed("no key"), None);
    assert_eq!(multi.feed(DiscoveryKey::new([7; 32])), None);
    assert_eq!(multi.feed_by_name("other"), None);
}

/// A name is one writer, however often and however concurrently it is asked for.
pub async fn writers_are_found_again<A: Adapter>() {
    let multi = memory().await;
    let (first, second) = futures_lite::future::zip(multi.writer("x"), multi.writer("x")).await;
    assert_eq!(first.unwrap(), second.unwrap());
    let nameless = multi.writer(None).await.unwrap();
    assert_eq!(nameless.name(), "1");
    // JS takes a property of its object for the feed.
    let constructor = multi.writer("constructor").await;
    assert!(matches!(constructor, Err(Error::Store(StoreError::ReservedName { .. }))));
    assert_eq!(multi.feeds().len(), 2);
}

/// A writer with a given key pair has its key, and syncs as any other.
pub async fn own_key_pairs<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    let pair = KeyPair::from_seed(&[9; 32]);
    let feed = a.writer_with("mine", pair.clone()).await.unwrap();
    assert_eq!(feed.key(), pair.public_key());
    fill(&feed, 6, 3, 10).await;
    sync::<A>(&a, &b).await;
    assert_same(&feed, &b).await;
}

/// A writer whose secret key the application keeps. While that does not sign nothing is appended, and the feed is as it was.
pub async fn a_key_that_the_application_keeps<A: Adapter>() {
    struct Keychain(KeyPair, AtomicBool);

    impl Signer for Keychain {
        fn public_key(&self) -> FeedKey {
            self.0.public_key()
        }

        fn sign(&self, message: &[u8]) -> Result<[u8; 64], Box<dyn std::error::Error + Send + Sync>> {
            if self.1.load(Ordering::Relaxed) { Err("it is locked".into()) } else { Ok(self.0.sign(message)) }
        }
    }

    let (a, b) = (memory().await, memory().await);
    let keychain = Arc::new(Keychain(KeyPair::from_seed(&[9; 32]), AtomicBool::new(false)));
    let feed = a.writer_with_signer("mine", keychain.clone()).await.unwrap();
    fill(&feed, 6, 3, 10).await;
    keychain.1.store(true, Ordering::Relaxed);
    let refused = feed.append("not signed").await.unwrap_err();
    assert_eq!((refused.code(), feed.len(), feed.writable()), ("ERR_SIGNER", 3, true));
    sync::<A>(&a, &b).await;
    assert_same(&feed, &b).await;
    keychain.1.store(false, Ordering::Relaxed);
    feed.append("signed").await.unwrap();
    let taken = a.writer_with("another", KeyPair::from_seed(&[9; 32])).await.unwrap_err();
    assert_eq!(taken.code(), "ERR_KEY_IN_USE");
    assert!(feed.key_pair().await.unwrap().is_none());
}

/// What is not held is `None`; what cannot be done is an error.
pub async fn reads_and_errors<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    let feed = filled(&a, "a", 7, 4, 9).await;
    assert_eq!(feed.get(4).await.unwrap(), None);
    assert_eq!(feed.get(u64::MAX).await.unwrap(), None);
    assert_eq!(feed.head().await.unwrap().unwrap(), block(7, 3, 9));
    assert_eq!((feed.has(3).await.unwrap(), feed.has(4).await.unwrap()), (true, false));
    assert_eq!((feed.len(), feed.byte_len(), feed.downloaded()), (4, 36, 4));
    sync::<A>(&a, &b).await;
    let copy = b.feed(feed.key()).unwrap();
    copy.clear(3..).await.unwrap();
    assert_eq!(copy.head().await.unwrap(), None, "nobody is there who has it");
    let (left, right) = connect::<A>(&a, &b, &Replicate::live().with_sparse(true));
    assert_eq!(copy.head().await.unwrap().unwrap(), block(7, 3, 9));
    hang_up(left, right).await;
    feed.clear(3..).await.unwrap();
    assert_eq!(feed.head().await.unwrap(), None, "it was cleared");
    let refused = copy.append("not ours").await;
    assert!(matches!(&refused, Err(Error::Append(_))), "{refused:?}");
    assert_eq!(refused.unwrap_err().code(), "ERR_READ_ONLY");
    let refused = feed.append(vec![0; 9 << 20]).await;
    assert_eq!(refused.unwrap_err().code(), "ERR_BLOCK_TOO_LARGE");
    assert_eq!(feed.append_batch(Vec::<String>::new()).await.unwrap(), 4..4);
    let mut verification = copy.verify();
    let mut blocks = 0;
    while let Some(step) = verification.next().await.unwrap() {
        assert!(step.findings.is_empty(), "{:?}", step.findings);
        blocks += step.blocks;
    }
    assert_eq!(blocks, 4);
}

/// A folder is one multifeed's at a time, and holds everything afterwards.
pub async fn files_outlive_their_multifeed<A: Adapter>() {
    let folder = tempfile::tempdir().unwrap();
    let multi = Multifeed::open(folder.path(), Options::default()).await.unwrap();
    let feed = filled(&multi, "disk", 8, 20, 1000).await;
    let other = memory().await;
    let theirs = filled(&other, "theirs", 9, 5, 10).await;
    sync::<A>(&multi, &other).await;

    let second = Multifeed::open(folder.path(), Options::default()).await;
    assert_eq!(second.unwrap_err().code(), "ERR_STORE_LOCKED");

    let key = feed.key();
    multi.close().await.unwrap();
    let multi = Multifeed::open(folder.path(), Options::default()).await.unwrap();
    assert!(multi.problems().is_empty() && multi.recovered().is_empty());
    let again = multi.writer("disk").await.unwrap();
    assert_eq!((again.key(), again.len()), (key, 20));
    assert_eq!(again.get(19).await.unwrap().unwrap(), block(8, 19, 1000));
    assert_same(&theirs, &multi).await;
    fill(&again, 8, 1, 1000).await;
    multi.close().await.unwrap();
    drop(folder);
}

/// The second sync of the same two moves what is new, and reports the remote's feeds again.
pub async fn sync_twice<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    let feed = filled(&a, "a", 1, 10, 10).await;
    let (left, _) = sync::<A>(&a, &b).await;
    assert_eq!(left.moved.blocks_sent, 10);
    fill(&feed, 1, 5, 10).await;

    let (left, mut right) = connect_with::<A>(&a, Replicate::default(), &b, Replicate::default());
    let mut remote_feeds = Vec::new();
    while let Some(event) = right.next().await {
        if let SyncEvent::RemoteFeeds { keys } = event {
            remote_feeds.push(keys);
        }
    }
    assert!(remote_feeds.contains(&vec![feed.key()]), "{remote_feeds:?}");
    let (left, right) = ends(left, right).await;
    assert_eq!((left.unwrap().moved.blocks_sent, right.unwrap().moved.blocks_received), (5, 5));
    assert_same(&feed, &b).await;
}

/// Two that hold the same find out without a word of any feed; what one of them appends later reaches the other all the same.
pub async fn equal_ones_say_next_to_nothing<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    for number in 0..40 {
        filled(&a, &format!("a{number}"), number, 2, 10).await;
    }
    let feed = filled(&b, "b", 100, 3, 10).await;
    sync::<A>(&a, &b).await;

    let (left, right) = sync::<A>(&a, &b).await;
    for totals in [left, right] {
        assert_eq!((totals.moved.feeds, totals.moved.in_step), (41, 41));
        let stream = totals.stream;
        assert!(stream.messages_out <= 8 && stream.bytes_out < 1000, "{stream:?}");
    }
    let plain = Replicate { reconcile: Some(false), ..Replicate::default() };
    let (left, right) = connect::<A>(&a, &b, &plain);
    let (left, right) = ends(left, right).await;
    for totals in [left.unwrap(), right.unwrap()] {
        assert_eq!((totals.moved.feeds, totals.moved.in_step), (41, 0));
        assert!(totals.stream.messages_out > 41);
    }

    let (left, right) = connect::<A>(&a, &b, &Replicate::live());
    fill(&feed, 100, 4, 10).await;
    held(&a, feed.key(), 7).await;
    hang_up(left, right).await;
    assert_same(&feed, &a).await;
}

/// What an application says in the handshake, the other hears; and both hear the handshake's facts.
pub async fn user_data_arrives<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    let for_a = Replicate::default().with_user_data(Json::new(r#"{"name":"a"}"#).unwrap());
    let (left, mut right) = connect_with::<A>(&a, for_a, &b, Replicate::default());
    let (mut connected, mut ready) = (false, false);
    while let Some(event) = right.next().await {
        match event {
            SyncEvent::Connected { remote_public_key, .. } => connected = *remote_public_key.as_bytes() != [0; 32],
            SyncEvent::Ready(handshake) => {
                ready = true;
                assert_eq!(handshake.user_data.unwrap().as_str(), r#"{"name":"a"}"#);
                assert_eq!((handshake.client.as_str(), handshake.version.as_str()), ("MULTIFEED", "4.0.0"));
            }
            _ => {}
        }
    }
    assert!(connected && ready);
    let (left, right) = ends(left, right).await;
    left.unwrap();
    right.unwrap();
}
