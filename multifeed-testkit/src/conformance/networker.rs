//! Any number of multifeeds over connections that come from anywhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_lite::future::zip;
use multifeed_driver::{
    EndReason, FeedKey, Multifeed, Networker, NetworkerError, NetworkerEvent, NetworkerEvents, NetworkerOptions,
    Options, PeerKey, Replicate, Role, RootState, StaticKeyPair,
};

use super::{Adapter, assert_same, fill, filled, held, memory_with};

fn root(n: u8) -> FeedKey {
    FeedKey::new([n; 32])
}

async fn memory(n: u8) -> Multifeed {
    memory_with(Options::new(root(n))).await
}

fn networker(secret: u8) -> Networker {
    let mut options = NetworkerOptions::default();
    options.static_key = Some(StaticKeyPair::from_secret_key([secret; 32]));
    Networker::new(options).expect("a networker")
}

/// Connects two, the first as the initiator.
fn connect<A: Adapter>(a: &Networker, b: &Networker) {
    let (left, right) = A::pair();
    A::connect(a, A::stream(left), Role::Initiator).expect("it is taken");
    A::connect(b, A::stream(right), Role::Responder).expect("it is taken");
}

/// Waits for an event.
async fn until(events: &mut NetworkerEvents, is_it: impl Fn(&NetworkerEvent) -> bool) -> NetworkerEvent {
    loop {
        let event = events.next().await.expect("the networker is open");
        if is_it(&event) {
            return event;
        }
    }
}

/// What both sides have, and nothing else; also what joins, leaves and comes back later. Then nothing is left.
pub async fn a_networker_carries_what_both_sides_have<A: Adapter>() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let accept = move |_: &PeerKey| count.fetch_add(1, Ordering::Relaxed) == 0;
    let ours = Networker::new(NetworkerOptions::default().with_accept(accept)).unwrap();
    let theirs = networker(2);
    let (mut here, mut there) = (ours.events(), theirs.events());
    let (a1, a2, b2, b3) = (memory(1).await, memory(2).await, memory(2).await, memory(3).await);
    let (secret, shared) = (filled(&a1, "secret", 1, 5, 100).await, filled(&a2, "shared", 2, 5, 100).await);
    ours.join(&a1, Replicate::live()).unwrap();
    ours.join(&a2, Replicate::live()).unwrap();
    theirs.join(&b2, Replicate::live()).unwrap();
    theirs.join(&b3, Replicate::live()).unwrap();
    assert!(matches!(ours.join(&a2, Replicate::live()), Err(NetworkerError::Joined { .. })));
    connect::<A>(&ours, &theirs);
    held(&b2, shared.key(), 5).await;
    assert_same(&shared, &b2).await;
    assert!(b2.feeds().len() == 1 && b3.feeds().is_empty(), "only feeds of a shared root key");

    // One joined late starts on the connection that is there.
    let b1 = memory(1).await;
    let mut typing = ours.register_extension("typing").unwrap();
    let theirs_typing = theirs.register_extension("typing").unwrap();
    theirs.join(&b1, Replicate::live()).unwrap();
    held(&b1, secret.key(), 5).await;
    while theirs_typing.speakers().is_empty() {
        A::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert_eq!(theirs_typing.broadcast("a word").unwrap(), 1);
    let message = typing.next().await.unwrap();
    assert_eq!((&message.body[..], message.peer), (&b"a word"[..], theirs.public_key()));
    let status = loop {
        let status = ours.status(&root(2)).unwrap();
        if status.in_sync().count() == 1 {
            break status;
        }
        A::sleep(std::time::Duration::from_millis(1)).await;
    };
    assert_eq!((status.missing_here(), status.missing_there(), status.peers.len()), (0, 0, 1));
    assert_eq!(ours.status(&root(3)), None);
    let peers = ours.peers();
    assert_eq!((peers.len(), peers[0].key, peers[0].initiator), (1, theirs.public_key(), true));
    assert_eq!(peers[0].roots, [(root(1), RootState::Ready), (root(2), RootState::Ready)]);

    // One that leaves ends alone, and comes back.
    assert!(ours.leave(&root(2)).await && !ours.leave(&root(2)).await);
    until(&mut there, |event| matches!(event, NetworkerEvent::RootOver { root: of, .. } if *of == root(2))).await;
    fill(&shared, 2, 5, 100).await;
    fill(&secret, 1, 1, 100).await;
    held(&b1, secret.key(), 6).await;
    assert_eq!(b2.feed(shared.key()).unwrap().len(), 5);
    ours.join(&a2, Replicate::live()).unwrap();
    held(&b2, shared.key(), 10).await;
    // One that is closed leaves by itself.
    b1.close().await.unwrap();
    until(&mut there, |event| matches!(event, NetworkerEvent::RootOver { root: of, .. } if *of == root(1))).await;
    assert_eq!(theirs.roots(), [root(2), root(3)]);
    assert_eq!((ours.peers().len(), asked.load(Ordering::Relaxed)), (1, 1));

    // A peer that is not accepted learns nothing; one that is banned goes.
    let stranger = networker(3);
    stranger.join(&memory(2).await, Replicate::live()).unwrap();
    connect::<A>(&stranger, &ours);
    let refused = |event: &NetworkerEvent| {
        matches!(event, NetworkerEvent::Disconnected { reason: Some(EndReason::NotAccepted), .. })
    };
    until(&mut here, refused).await;
    ours.ban(theirs.public_key()).unwrap();
    let banned =
        |event: &NetworkerEvent| matches!(event, NetworkerEvent::Disconnected { reason: Some(EndReason::Banned), .. });
    until(&mut here, banned).await;
    assert_eq!(ours.banned(), [theirs.public_key()]);
    drop(stranger);
    zip(ours.close(), theirs.close()).await;
    assert_eq!((ours.connections(), theirs.connections()), (0, 0));
    while here.next().await.is_some() {}
    assert!(typing.next().await.is_none());
    let (left, _right) = A::pair();
    let late = A::connect(&ours, A::stream(left), Role::Initiator);
    assert!(matches!(late, Err(NetworkerError::Closed)));
    // The multifeeds go on.
    assert_eq!(shared.append("more").await.unwrap(), 10);
}

/// Both sides report root keys that differ, and go on: one that joins later is synced on the same connection.
pub async fn root_keys_that_differ_are_reported<A: Adapter>() {
    let mut options = NetworkerOptions::default();
    options.session.handshake_timeout = Some(Duration::from_secs(3));
    let (ours, theirs) = (Networker::new(options).unwrap(), networker(2));
    let (mut here, mut there) = (ours.events(), theirs.events());
    let (a, b) = (memory(1).await, memory(2).await);
    let feed = filled(&a, "a", 1, 5, 100).await;
    ours.join(&a, Replicate::live()).unwrap();
    theirs.join(&b, Replicate::live()).unwrap();
    connect::<A>(&ours, &theirs);
    let is_mismatch = |event: &NetworkerEvent| matches!(event, NetworkerEvent::RootKeyMismatch { .. });
    for (events, expected, them) in [(&mut here, theirs.public_key(), 2), (&mut there, ours.public_key(), 1)] {
        let event = until(events, is_mismatch).await;
        let NetworkerEvent::RootKeyMismatch { peer, dial: None, theirs, .. } = event else { panic!("{event:?}") };
        assert_eq!((peer, theirs), (expected, root(them).discovery_key()));
    }
    // What was not answered ends for that reason.
    let over = until(&mut here, |event| matches!(event, NetworkerEvent::RootOver { .. })).await;
    let NetworkerEvent::RootOver { result: Err(error), .. } = over else { panic!("{over:?}") };
    let keys = [1, 2].map(|n| Some(root(n).discovery_key().to_string()));
    assert_eq!((error.code(), [error.us(), error.them()]), ("ERR_ROOT_KEY_MISMATCH", keys));
    let late = memory(1).await;
    theirs.join(&late, Replicate::live()).unwrap();
    held(&late, feed.key(), 5).await;
    assert!(b.feeds().is_empty());
    zip(ours.close(), theirs.close()).await;
    // Once a connection, and no more once something is shared.
    while let Some(event) = here.next().await {
        assert!(!is_mismatch(&event), "{event:?}");
    }
}

/// From both sides at one time, and over a connection that carries something: one stays, and nothing is lost.
pub async fn two_connections_to_one_peer_become_one<A: Adapter>() {
    let (ours, theirs) = (networker(1), networker(2));
    let (a, b) = (memory(1).await, memory(1).await);
    let (x, y) = (filled(&a, "x", 1, 300, 1000).await, filled(&b, "y", 2, 300, 1000).await);
    ours.join(&a, Replicate::live()).unwrap();
    theirs.join(&b, Replicate::live()).unwrap();
    let (mut here, mut there) = (ours.events(), theirs.events());
    connect::<A>(&ours, &theirs);
    connect::<A>(&theirs, &ours);
    let is_over = |event: &NetworkerEvent| matches!(event, NetworkerEvent::Disconnected { .. });
    zip(until(&mut here, is_over), until(&mut there, is_over)).await;
    held(&b, x.key(), 100).await;
    // The newer one stays, in the middle of what the other one carries.
    connect::<A>(&ours, &theirs);
    zip(until(&mut here, is_over), until(&mut there, is_over)).await;
    zip(held(&b, x.key(), 300), held(&a, y.key(), 300)).await;
    assert_same(&x, &b).await;
    assert_same(&y, &a).await;
    assert_eq!((ours.peers().len(), theirs.peers().len()), (1, 1));
    assert_eq!((ours.connections(), theirs.connections()), (1, 1));
    // Itself is no peer.
    let (left, right) = A::pair();
    A::connect(&ours, A::stream(left), Role::Initiator).unwrap();
    A::connect(&ours, A::stream(right), Role::Responder).unwrap();
    let is_own =
        |event: &NetworkerEvent| matches!(event, NetworkerEvent::Disconnected { reason: Some(EndReason::OwnKey), .. });
    until(&mut here, is_own).await;
    // Dropping the last handle is an end as well.
    drop(ours);
    until(&mut there, is_over).await;
    fill(&y, 2, 1, 10).await;
    assert!(theirs.peers().is_empty());
    theirs.close().await;
}
