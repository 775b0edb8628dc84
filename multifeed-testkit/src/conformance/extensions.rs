//! Extensions of the application's own, with stores behind them; and what else a session offers beside its feeds.

use multifeed_driver::{
    Error, ExtensionError, FeedEvent, Json, Options, Replicate, Role, StaticKeyPair, StreamEvent, StreamOptions,
    SyncEvent,
};

use super::{Adapter, assert_same, connect, ends, filled, hang_up, held, memory, memory_with};

/// Both ways, in order, while feeds are synced; on a stream of one's own and on a shared one.
pub async fn extensions_on_a_stream<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    let feed = filled(&a, "a", 1, 100, 1000).await;
    let (left, right) = A::pair();
    let stream = A::open_stream(A::stream(left), Role::Initiator, StreamOptions::default());
    let ours = a.replicate_over(&stream, Replicate::live());
    let theirs = A::replicate(&b, A::stream(right), Role::Responder, Replicate::live());
    let mut our_peer_id = stream.register_extension("peer-id").unwrap();
    let mut their_peer_id = theirs.register_extension("peer-id").unwrap();
    let unheard = ours.register_extension("unheard").unwrap();
    let id = Json::new(r#"{"id":"ours"}"#).unwrap();
    // Before anything is connected: it waits.
    our_peer_id.send_json(&id).await.unwrap();
    for n in 0..500u32 {
        our_peer_id.send(n.to_le_bytes()).await.unwrap();
        unheard.send("nobody there speaks it").await.unwrap();
    }
    assert_eq!(their_peer_id.next().await.as_deref().and_then(Json::from_bytes), Some(id));
    for n in 0..500u32 {
        assert_eq!(their_peer_id.next().await.unwrap()[..], n.to_le_bytes());
    }
    their_peer_id.send("an answer").await.unwrap();
    assert_eq!(our_peer_id.next().await.unwrap(), "an answer");
    // A large one, and one of nothing.
    let large = vec![7; 3_000_000];
    their_peer_id.send(&large).await.unwrap();
    assert_eq!(our_peer_id.next().await.unwrap(), large);
    their_peer_id.send("").await.unwrap();
    assert_eq!(our_peer_id.next().await.unwrap(), "");
    held(&b, feed.key(), 100).await;
    assert_same(&feed, &b).await;
    assert!(stream.totals().bytes_in > 3_000_000 && theirs.stream_totals().bytes_out > 3_000_000);
    ours.close();
    let (ours, theirs) = ends(ours, theirs).await;
    ours.unwrap();
    theirs.unwrap();
    stream.finish().await.unwrap();
    assert_eq!((our_peer_id.next().await, their_peer_id.next().await), (None, None));
    assert_eq!((our_peer_id.lost(), their_peer_id.lost()), (0, 0));
    assert_eq!(our_peer_id.send("late").await, Err(ExtensionError::Gone));
}

/// To one peer and to all, on channels that are open and on such that are opened later.
pub async fn extensions_on_a_feeds_channel<A: Adapter>() {
    let (hub, left, right) = (memory().await, memory().await, memory().await);
    let feed = filled(&hub, "hub", 1, 3, 10).await;
    let mut ours = feed.register_extension("typing").await.unwrap();
    assert_eq!(ours.broadcast("nobody is here").await.unwrap(), 0);
    let (to_left, from_left) = connect::<A>(&hub, &left, &Replicate::live());
    let (to_right, from_right) = connect::<A>(&hub, &right, &Replicate::live());
    let mut on_left = held(&left, feed.key(), 3).await.register_extension("typing").await.unwrap();
    let mut on_right = held(&right, feed.key(), 3).await.register_extension("typing").await.unwrap();
    for (theirs, text) in [(&on_left, "left"), (&on_right, "right")] {
        assert_eq!(theirs.broadcast(text).await.unwrap(), 1);
    }
    for _ in 0..2 {
        let message = ours.next().await.unwrap();
        let expected = if message.from == to_left.id() { "left" } else { "right" };
        assert_eq!(message.body, expected);
        ours.send(message.from, format!("only for {expected}")).await.unwrap();
    }
    assert_eq!(on_left.next().await.unwrap().body, "only for left");
    assert_eq!(on_right.next().await.unwrap().body, "only for right");
    assert_eq!(ours.broadcast("to all").await.unwrap(), 2);
    assert_eq!(on_left.next().await.unwrap().body, "to all");
    assert_eq!(on_right.next().await.unwrap().body, "to all");

    // Sending to one that is gone fails.
    let gone = to_right.id();
    drop(to_right);
    from_right.finish().await.unwrap();
    while ours.broadcast("who is there").await.unwrap() > 1 {
        A::sleep(std::time::Duration::from_millis(1)).await;
    }
    match ours.send(gone, "too late").await {
        Err(Error::Extension(ExtensionError::Gone)) => {}
        other => panic!("{other:?}"),
    }
    hub.close().await.unwrap();
    let (to_left, from_left) = ends(to_left, from_left).await;
    to_left.unwrap();
    from_left.unwrap();
    assert_eq!(ours.next().await, None);
}

/// Each side learns that the other speaks an extension, on the stream and on a feed's channel. What is sent from then on is heard.
pub async fn what_is_sent_once_both_speak_it_is_heard<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    let feed = filled(&a, "a", 1, 3, 10).await;
    let mut of_feed = feed.events().await.unwrap();
    let (left, right) = A::pair();
    let mut stream = A::open_stream(A::stream(left), Role::Initiator, StreamOptions::default());
    let ours = a.replicate_over(&stream, Replicate::live());
    let theirs = A::replicate(&b, A::stream(right), Role::Responder, Replicate::live());
    let copy = held(&b, feed.key(), 3).await;
    let (on_stream, alone) = (stream.register_extension("x").unwrap(), stream.register_extension("alone").unwrap());
    let (on_feed, alone_there) =
        (feed.register_extension("x").await.unwrap(), feed.register_extension("alone").await.unwrap());
    assert!(!on_stream.is_spoken() && on_feed.speakers().await.unwrap().is_empty());

    let mut their_stream = theirs.register_extension("x").unwrap();
    let mut their_feed = copy.register_extension("x").await.unwrap();
    on_stream.ready().await.unwrap();
    on_stream.send("the first").await.unwrap();
    assert_eq!(their_stream.next().await.unwrap(), "the first");
    assert_eq!(on_feed.ready().await.unwrap(), ours.id());
    assert!(on_feed.spoken_by(ours.id()).await.unwrap());
    assert_eq!(on_feed.broadcast("the first").await.unwrap(), 1);
    assert_eq!(their_feed.next().await.unwrap().body, "the first");
    their_stream.ready().await.unwrap();
    assert_eq!(their_feed.ready().await.unwrap(), theirs.id());
    // Nobody speaks the other ones.
    assert!(!alone.is_spoken());
    assert_eq!(alone_there.broadcast("is anybody there").await.unwrap(), 0);
    assert!(!alone_there.spoken_by(ours.id()).await.unwrap());

    // Both are events too.
    while of_feed.next().await.expect("it is open") != (FeedEvent::Extensions { peer: Some(ours.id()) }) {}
    let name = std::sync::Arc::from("x");
    while stream.next().await.expect("it is open") != (StreamEvent::Spoken { name: std::sync::Arc::clone(&name) }) {}

    // Who waits hears of the end.
    let removes = async {
        copy.remove().await.unwrap();
    };
    let unspoken = copy.register_extension("unspoken").await.unwrap();
    let waited = futures_lite::future::zip(unspoken.ready(), removes).await.0;
    assert!(matches!(waited, Err(Error::Extension(ExtensionError::Gone))), "{waited:?}");
    ours.close();
    let (ours, theirs) = ends(ours, theirs).await;
    ours.unwrap();
    theirs.unwrap();
    stream.finish().await.unwrap();
    assert_eq!(alone.ready().await, Err(ExtensionError::Gone));
    assert!(on_feed.speakers().await.unwrap().is_empty());
    let closes = async {
        a.close().await.unwrap();
    };
    let waited = futures_lite::future::zip(on_feed.ready(), closes).await.0;
    assert!(matches!(waited, Err(Error::Closed)), "{waited:?}");
}

/// Names that are taken, messages that nobody would take.
pub async fn extensions_fail_by_typed_errors<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    let feed = filled(&a, "a", 1, 1, 10).await;
    let (left, right) = connect::<A>(&a, &b, &Replicate::live());
    held(&b, feed.key(), 1).await;
    let on_stream = left.register_extension("x").unwrap();
    let on_feed = feed.register_extension("x").await.unwrap();
    let taken = |error: ExtensionError| assert_eq!(error.code(), "ERR_EXTENSION_TAKEN");
    taken(left.register_extension("x").unwrap_err());
    taken(left.register_extension("MULTIFEED_MANIFEST").unwrap_err());
    for name in ["x", "MULTIFEED_HANDSHAKE"] {
        match feed.register_extension(name).await {
            Err(Error::Extension(error)) => taken(error),
            other => panic!("{other:?}"),
        }
    }
    let long = "x".repeat(257);
    assert_eq!(left.register_extension(&long).unwrap_err().code(), "ERR_EXTENSION_NAME");
    let huge = vec![0; 8 * 1024 * 1024 + 1];
    assert_eq!(on_stream.send(&huge).await.unwrap_err().code(), "ERR_MESSAGE_TOO_LARGE");
    assert_eq!(on_feed.broadcast(&huge).await.unwrap_err().code(), "ERR_MESSAGE_TOO_LARGE");
    assert_eq!(on_feed.send(left.id(), &huge).await.unwrap_err().code(), "ERR_MESSAGE_TOO_LARGE");
    // A name is free when its handle is gone.
    drop((on_stream, on_feed));
    drop(left.register_extension("x").unwrap());
    drop(feed.register_extension("x").await.unwrap());
    hang_up(left, right).await;
}

/// An application that does not take what comes loses what has no room, and learns how much; nothing else waits for that.
pub async fn messages_that_nobody_takes<A: Adapter>() {
    let mut options = Options::default();
    options.pump.extension_messages = 10;
    options.multifeed.limits.extension_bytes = 1000;
    let (a, b) = (memory().await, memory_with(options).await);
    let feed = filled(&a, "a", 1, 50, 100).await;
    let (mut on_feed, last_on_feed) =
        (feed.register_extension("x").await.unwrap(), feed.register_extension("last").await.unwrap());
    let (left, right) = connect::<A>(&a, &b, &Replicate::live());
    let (on_stream, last_on_stream) = (left.register_extension("x").unwrap(), left.register_extension("last").unwrap());
    let (mut untaken, mut last) = (right.register_extension("x").unwrap(), right.register_extension("last").unwrap());
    for n in 0..100 {
        on_stream.send([n]).await.unwrap();
    }
    last_on_stream.send("").await.unwrap();
    assert_eq!(last.next().await.unwrap(), "");
    for n in 0..10 {
        assert_eq!(untaken.next().await.unwrap()[..], [n]);
    }
    assert_eq!(untaken.lost(), 90);

    let copy = held(&b, feed.key(), 50).await;
    let (mut untaken, mut last) =
        (copy.register_extension("x").await.unwrap(), copy.register_extension("last").await.unwrap());
    // Once this is heard there, the names are registered here.
    assert_eq!(untaken.broadcast("now").await.unwrap(), 1);
    assert_eq!(on_feed.next().await.unwrap().body, "now");
    for n in 0..30 {
        on_feed.broadcast([n; 100]).await.unwrap();
    }
    last_on_feed.broadcast("").await.unwrap();
    assert_eq!(last.next().await.unwrap().body, "");
    // Each counts for its 100 bytes and 64 more.
    for n in 0..6 {
        assert_eq!(untaken.next().await.unwrap().body[..], [n; 100]);
    }
    assert_eq!(untaken.lost(), 24);
    hang_up(left, right).await;
}

/// A session on a stream of its own can judge its remote too.
pub async fn a_session_judges_its_remote<A: Adapter>() {
    for accepted in [true, false] {
        let mut ours = Options::default();
        ours.session.authenticate = true;
        let theirs = Options::default().with_static_key(StaticKeyPair::from_secret_key([9; 32]));
        let public_key = *StaticKeyPair::from_secret_key([9; 32]).public_key();
        let (a, b) = (memory_with(ours).await, memory_with(theirs).await);
        let feed = filled(&a, "a", 1, 10, 10).await;
        let (mut left, mut right) = connect::<A>(&a, &b, &Replicate::default());
        let Some(SyncEvent::Connected { remote_public_key, handshake_hash, .. }) = left.next().await else {
            panic!("no Connected");
        };
        assert_eq!(remote_public_key, public_key);
        let Some(SyncEvent::Connected { handshake_hash: theirs, .. }) = right.next().await else {
            panic!("no Connected");
        };
        assert_eq!(handshake_hash, theirs);
        right.ping();
        if accepted {
            left.accept();
            let (left, right) = ends(left, right).await;
            left.unwrap();
            right.unwrap();
            assert_same(&feed, &b).await;
        } else {
            left.refuse();
            assert_eq!(left.finish().await.unwrap_err().code(), "ERR_REFUSED");
            assert_eq!(right.finish().await.unwrap_err().code(), "ERR_DISCONNECTED");
        }
    }
}
