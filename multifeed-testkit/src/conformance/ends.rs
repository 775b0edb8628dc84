//! Sessions that end before their time.

use std::io::{Read, Write};
use std::time::Duration;

use multifeed_driver::{Error, Fault, FeedKey, Multifeed, Options, Replicate, Replication, Role, SyncError};

use super::wire::blocking_pair;
use super::{Adapter, Proxy, assert_same, connect, ends, fill, filled, held, is_closed, memory, memory_with, sync};

/// Two peers that are cut off in the middle keep what they have, and get the rest later: from the source, or each other.
pub async fn peers_vanish_and_come_back<A: Adapter>() {
    let source = memory().await;
    let feed = filled(&source, "source", 1, 400, 10_000).await;
    let (b, c) = (memory().await, memory().await);
    for (peer, bytes) in [(&b, 1_500_000), (&c, 2_500_000)] {
        let (left, proxy, right) = Proxy::new(bytes);
        let ours = A::replicate(&source, A::stream(left), Role::Responder, Replicate::default());
        let theirs = A::replicate(peer, A::stream(right), Role::Initiator, Replicate::default());
        let (ours, theirs) = ends(ours, theirs).await;
        assert_eq!(fault(ours), Fault::Network);
        assert_eq!(fault(theirs), Fault::Network);
        assert!(proxy.passed() > bytes);
        let downloaded = peer.feed(feed.key()).map_or(0, |feed| feed.downloaded());
        // How much of what went through was read before the cut is the system's choice.
        assert!((1..400).contains(&downloaded), "{downloaded}");
    }
    sync::<A>(&b, &c).await;
    fill(&feed, 1, 10, 10_000).await;
    sync::<A>(&source, &b).await;
    let (_, right) = sync::<A>(&source, &c).await;
    assert!(right.moved.blocks_received < 400, "what was held was sent again");
    assert_same(&feed, &b).await;
    assert_same(&feed, &c).await;
}

/// With different root keys nothing is said, and both sides know why.
pub async fn another_root_key<A: Adapter>() {
    let a = memory().await;
    let b = memory_with(Options::new(FeedKey::new([8; 32]))).await;
    let feed = filled(&a, "a", 1, 1, 1).await;
    let errors = mismatch::<A>(&a, &b, "ERR_ROOT_KEY_MISMATCH").await;
    for error in errors {
        assert!(error.us().is_some() && error.them().is_some() && error.us() != error.them());
    }
    assert_eq!(b.feed(feed.key()), None);
}

/// Another major version is refused, with both values.
pub async fn another_version<A: Adapter>() {
    let a = memory().await;
    let mut options = Options::default();
    options.session.root.as_mut().unwrap().version = "5.1.0".into();
    let b = memory_with(options).await;
    let feed = filled(&b, "b", 1, 1, 1).await;
    for error in mismatch::<A>(&a, &b, "ERR_VERSION_MISMATCH").await {
        let mut values = [error.us().unwrap(), error.them().unwrap()];
        values.sort();
        assert_eq!(values, ["4.0.0", "5.1.0"]);
    }
    assert_eq!(a.feed(feed.key()), None);
}

/// Another client is refused, with both values.
pub async fn another_client<A: Adapter>() {
    let a = memory().await;
    let mut options = Options::default();
    options.session.root.as_mut().unwrap().client = "OTHER".into();
    let b = memory_with(options).await;
    for error in mismatch::<A>(&a, &b, "ERR_CLIENT_MISMATCH").await {
        let mut values = [error.us().unwrap(), error.them().unwrap()];
        values.sort();
        assert_eq!(values, ["MULTIFEED", "OTHER"]);
    }
}

/// Both sides fail with this code. Returns both errors.
async fn mismatch<A: Adapter>(a: &Multifeed, b: &Multifeed, code: &str) -> [SyncError; 2] {
    let (left, right) = connect::<A>(a, b, &Replicate::default());
    let (left, right) = ends(left, right).await;
    let errors = [left.unwrap_err(), right.unwrap_err()];
    assert!(errors.iter().all(|error| error.code() == code), "{errors:?}");
    // The stores are as they were, and of use.
    for multi in [a, b] {
        multi.writer("after").await.unwrap().append("x").await.unwrap();
    }
    errors
}

/// A `Replication` that is dropped ends its session, cleanly for the other side, and leaves the multifeed as it is.
pub async fn dropping_a_sync_ends_it<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    let feed = filled(&a, "a", 1, 10, 10).await;
    let (left, right) = connect::<A>(&a, &b, &Replicate::live());
    held(&b, feed.key(), 10).await;
    drop(left);
    right.finish().await.unwrap();
    assert_same(&feed, &b).await;

    // At any moment: before the first byte too.
    let (left, right) = connect::<A>(&a, &b, &Replicate::live());
    drop(left);
    let _ = right.finish().await;
    fill(&feed, 1, 1, 10).await;
    sync::<A>(&a, &b).await;
    assert_same(&feed, &b).await;
}

/// `close` ends the sessions; what came before is on disk, and the folder is free.
pub async fn closing_during_a_sync<A: Adapter>() {
    let folder = tempfile::tempdir().unwrap();
    let a = memory().await;
    let feed = filled(&a, "a", 1, 2_000, 5_000).await;
    let b = Multifeed::open(folder.path(), Options::default()).await.unwrap();
    let (left, right) = connect::<A>(&a, &b, &Replicate::live());
    held(&b, feed.key(), 1).await;
    b.close().await.unwrap();
    right.finish().await.unwrap();
    left.finish().await.unwrap();

    let b = Multifeed::open(folder.path(), Options::default()).await.unwrap();
    assert!(b.problems().is_empty() && b.recovered().is_empty(), "{:?} {:?}", b.problems(), b.recovered());
    let copy = b.feed(feed.key()).unwrap();
    assert!(copy.downloaded() > 0);
    let (_, right) = sync::<A>(&a, &b).await;
    assert!(right.moved.blocks_received < 2_000);
    assert_same(&feed, &b).await;
    b.close().await.unwrap();
}

/// A second `close`, at the same time or later, returns the first one's result; appends, reads and new writers after it fail with `Closed`.
pub async fn closing_twice<A: Adapter>() {
    let multi = memory().await;
    let feed = filled(&multi, "a", 1, 1, 1).await;
    multi.close().await.unwrap();
    multi.closed().await;
    assert!(multi.is_closed());
    multi.close().await.unwrap();
    assert!(is_closed(&multi.writer("b").await));
    assert!(is_closed(&feed.append("x").await));
    assert!(is_closed(&feed.get(0).await));
    assert!(multi.feeds().is_empty());
    assert!(multi.events().next().await.is_none());

    let multi = memory().await;
    // By two handles, while a session still has to end; a third one gives up, and it is closed all the same.
    let (other, another) = (memory().await, multi.clone());
    filled(&multi, "a", 1, 3, 3).await;
    let (_left, _right) = connect::<A>(&multi, &other, &Replicate::live());
    let mut given_up = Box::pin(multi.close());
    let _ = futures_lite::future::poll_once(&mut given_up).await;
    drop(given_up);
    let (first, second) = futures_lite::future::zip(multi.close(), another.close()).await;
    first.unwrap();
    second.unwrap();
    assert!(multi.is_closed() && another.is_closed());
    other.close().await.unwrap();
}

/// What is no multifeed gets no further than the handshake.
pub async fn garbage_instead_of_a_handshake<A: Adapter>() {
    let multi = memory().await;
    let feed = filled(&multi, "a", 1, 10, 10).await;
    let (other, another) = (memory().await, memory().await);
    let (left, right) = connect::<A>(&multi, &other, &Replicate::live());
    held(&other, feed.key(), 10).await;

    let garbage: [&[u8]; 4] = [b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n", &[0xff; 100], &[0x3a; 60], &[0; 1000]];
    // The first and the last are no whole message: the stream ends in the middle of one, or before any.
    let codes = ["ERR_DISCONNECTED", "ERR_HANDSHAKE", "ERR_HANDSHAKE", "ERR_DISCONNECTED"];
    for (bytes, code) in garbage.into_iter().zip(codes) {
        for role in [Role::Responder, Role::Initiator] {
            let error = raw::<A>(&multi, role, bytes).await.finish().await.unwrap_err();
            assert_eq!(error.code(), code, "{role:?}, {bytes:?}: {error}");
        }
    }
    // One that says nothing and leaves.
    let error = raw::<A>(&multi, Role::Responder, b"").await.finish().await.unwrap_err();
    assert_eq!(error.code(), "ERR_DISCONNECTED");

    // Nobody else took note.
    fill(&feed, 1, 5, 10).await;
    held(&other, feed.key(), 15).await;
    sync::<A>(&multi, &another).await;
    assert_same(&feed, &another).await;
    drop(left);
    right.finish().await.unwrap();
}

/// A session with a remote that writes these bytes, ends its half, and reads what there is.
async fn raw<A: Adapter>(multi: &Multifeed, role: Role, bytes: &'static [u8]) -> Replication {
    let (ours, mut theirs) = blocking_pair();
    ours.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let _ = theirs.write_all(bytes);
        let _ = theirs.shutdown(std::net::Shutdown::Write);
        let _ = theirs.read_to_end(&mut Vec::new());
    });
    A::replicate(multi, A::stream(ours), role, Replicate::default())
}

/// A remote that never speaks is not waited for without end.
pub async fn silence_instead_of_a_handshake<A: Adapter>() {
    let mut options = Options::default();
    options.session.handshake_timeout = Some(Duration::from_millis(50));
    options.pump.linger = Duration::from_millis(50);
    let multi = memory_with(options).await;
    let (ours, theirs) = super::pair();
    let sync = A::replicate(&multi, A::stream(ours), Role::Initiator, Replicate::live());
    let error = sync.finish().await.unwrap_err();
    assert_eq!(error.code(), "ERR_TIMEOUT");
    drop(theirs);
}

/// A remote that falls silent is not waited for without end; one that is only idle is.
pub async fn silence_later<A: Adapter>() {
    let options = || {
        let mut options = Options::default();
        options.session.idle_timeout = Some(Duration::from_millis(600));
        options.session.keep_alive = Some(Duration::from_millis(100));
        options.pump.linger = Duration::from_millis(50);
        options
    };
    let (a, b) = (memory_with(options()).await, memory_with(options()).await);
    let feed = filled(&a, "a", 1, 10, 10).await;
    let (left, proxy, right) = Proxy::new(u64::MAX);
    let left = A::replicate(&a, A::stream(left), Role::Initiator, Replicate::live());
    let right = A::replicate(&b, A::stream(right), Role::Responder, Replicate::live());
    held(&b, feed.key(), 10).await;
    // Twice the time-out without anything to say: keep-alives carry it.
    A::sleep(Duration::from_millis(1200)).await;
    fill(&feed, 1, 1, 10).await;
    held(&b, feed.key(), 11).await;

    proxy.rightward.shut();
    proxy.leftward.shut();
    let (left, right) = ends(left, right).await;
    assert_eq!(left.unwrap_err().code(), "ERR_TIMEOUT");
    assert_eq!(right.unwrap_err().code(), "ERR_TIMEOUT");
    proxy.rightward.open();
    proxy.leftward.open();
}

/// A session that is started on a closed multifeed ends at once.
pub async fn replicating_when_closed<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    a.close().await.unwrap();
    let (left, right) = connect::<A>(&a, &b, &Replicate::live());
    let (left, right) = ends(left, right).await;
    match left.unwrap_err() {
        SyncError::Session(error) => assert_eq!(error.fault(), Fault::Local),
        error => panic!("{error}"),
    }
    assert_eq!(fault(right), Fault::Network);
}

/// The last handle that goes closes the multifeed, and frees its folder.
pub async fn dropping_all_handles_closes<A: Adapter>() {
    let folder = tempfile::tempdir().unwrap();
    let multi = Multifeed::open(folder.path(), Options::default()).await.unwrap();
    let feed = filled(&multi, "a", 1, 3, 10).await;
    drop(multi);
    // The feed still holds it open.
    fill(&feed, 1, 1, 10).await;
    drop(feed);
    let multi = loop {
        match Multifeed::open(folder.path(), Options::default()).await {
            Ok(multi) => break multi,
            Err(Error::Store(error)) if error.code() == "ERR_STORE_LOCKED" => A::sleep(Duration::from_millis(1)).await,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(multi.feed_by_name("a").unwrap().len(), 4);
    multi.close().await.unwrap();
}

fn fault<T: std::fmt::Debug>(result: Result<T, SyncError>) -> Fault {
    match result.unwrap_err() {
        SyncError::Session(error) => error.fault(),
        error => panic!("{error}"),
    }
}
