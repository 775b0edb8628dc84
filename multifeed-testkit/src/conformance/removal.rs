//! Feeds that are removed from a store, and feeds that are banned.

use multifeed_driver::{Error, Multifeed, MultifeedEvent, Options, Replicate, StoreError, Wait, generate_key_pair};

use super::{Adapter, assert_same, connect, fill, filled, hang_up, held, leave, memory, sync};

fn is_removed<T>(result: Result<T, Error>) -> bool {
    result.is_err_and(|error| error.code() == "ERR_REMOVED")
}

/// A feed that goes while it is synced: the sessions leave it and go on, its handles say so, and the next session brings it again.
pub async fn a_removed_feed_is_gone_until_somebody_brings_it<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    let (first, second) = (filled(&a, "first", 1, 20, 100).await, filled(&a, "second", 2, 20, 100).await);
    let (left, right) = connect::<A>(&a, &b, &Replicate::live());
    let copy = held(&b, first.key(), 20).await;
    let other = held(&b, second.key(), 20).await;
    let mut events = b.events();
    let mut of_feed = copy.events().await.unwrap();
    let mut extension = copy.register_extension("x").await.unwrap();
    let waiting = copy.clone();
    let waiting = async move { waiting.fetch(99).await };
    let removing = async {
        // The fetch goes first, and is ended by the removal.
        copy.has(0).await.unwrap();
        copy.remove().await.unwrap();
    };
    let (fetched, ()) = futures_lite::future::zip(waiting, removing).await;
    assert!(is_removed(fetched));
    assert!(is_removed(copy.get(0).await) && is_removed(copy.append("x").await) && is_removed(copy.remove().await));
    assert!(is_removed(copy.fetch_with(0, Wait::if_available()).await) && is_removed(copy.clear(0..1).await));
    assert_eq!((b.feed(first.key()), b.feeds().len(), copy.len(), copy.downloaded()), (None, 1, 0, 0));
    while of_feed.next().await.is_some() {}
    // Nothing comes for who asks only now, either.
    assert!(copy.events().await.unwrap().next().await.is_none());
    assert_eq!(extension.next().await, None);
    loop {
        match events.next().await {
            Some(MultifeedEvent::Removed(gone)) => break assert_eq!(gone, copy),
            Some(_) => {}
            None => panic!("it was not told"),
        }
    }
    // The folder of the other one is the first now, and so it has that number for a name; handles stay good.
    assert_eq!(b.feed_by_name("0").as_ref(), Some(&other));
    fill(&second, 2, 5, 100).await;
    fill(&first, 1, 5, 100).await;
    held(&b, second.key(), 25).await;
    assert_eq!((other.len(), b.feed(first.key())), (25, None));
    // That it removed the feed is no reason there; here the other side may be known to lack what came later.
    right.in_sync().await.unwrap();
    leave(left, right).await;

    sync::<A>(&a, &b).await;
    assert_same(&first, &b).await;
    assert_same(&second, &b).await;
    assert!(is_removed(copy.get(0).await));
}

/// The last folder takes the number of the one that goes. Names that are numbers, lookups, events and the order of the feeds follow it. All is
/// the same when the store is opened again.
pub async fn removals_change_numbers_and_order<A: Adapter>() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (memory().await, Multifeed::open(folder.path(), Options::default()).await.unwrap());
    let mine = b.writer("mine").await.unwrap();
    for (seed, name) in ["x", "y", "z"].into_iter().enumerate() {
        filled(&a, name, u32::try_from(seed).unwrap(), 2, 10).await;
    }
    sync::<A>(&a, &b).await;
    let [first, second, third] = ["1", "2", "3"].map(|name| b.feed_by_name(name).unwrap());
    let nameless = b.writer(None).await.unwrap();
    let named = b.writer("named").await.unwrap();
    assert_eq!((nameless.name().as_str(), b.feeds().len()), ("4", 6));
    let mut events = b.events();

    // A writer keeps the name that it was given.
    first.remove().await.unwrap();
    assert_eq!(b.feeds(), [&mine, &named, &second, &third, &nameless].map(Clone::clone));
    assert_eq!((named.name().as_str(), b.feed_by_name("1")), ("named", None));
    match events.next().await {
        Some(MultifeedEvent::Removed(gone)) => assert_eq!(gone, first),
        other => panic!("{other:?}"),
    }

    // One without a name has the new number for its name, in the handles that are there too.
    second.remove().await.unwrap();
    assert_eq!(b.feeds(), [&mine, &named, &nameless, &third].map(Clone::clone));
    assert_eq!((nameless.name().as_str(), b.feed_by_name("4")), ("2", None));
    assert_eq!((b.feed_by_name("2").as_ref(), b.writer("2").await.unwrap()), (Some(&nameless), nameless.clone()));

    // Twice before anybody looks: it is reported once.
    nameless.remove_writer().await.unwrap();
    named.remove_writer().await.unwrap();
    assert_eq!((b.feeds(), third.name().as_str()), (vec![mine.clone(), third.clone()], "1"));
    let again = b.add(second.key()).await.unwrap();
    assert_eq!((b.feeds(), again.name().as_str()), (vec![mine, third.clone(), again.clone()], "2"));
    let listed = |multi: &Multifeed| -> Vec<_> { multi.feeds().iter().map(|f| (f.key(), f.name())).collect() };
    let before = listed(&b);
    b.close().await.unwrap();
    let (mut removed, mut renamed, mut new) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(event) = events.next().await {
        match event {
            MultifeedEvent::Removed(feed) => removed.push(feed),
            MultifeedEvent::Renamed(feed) => renamed.push((feed.name(), feed)),
            MultifeedEvent::Feed(feed) => {
                assert!(removed.contains(&second), "it is there again before it is told that it went");
                new.push(feed);
            }
            _ => {}
        }
    }
    assert_eq!((removed, renamed, new), (vec![second, nameless, named], vec![("1".to_owned(), third)], vec![again]));

    let reopened = Multifeed::open(folder.path(), Options::default()).await.unwrap();
    assert_eq!(listed(&reopened), before);
    reopened.close().await.unwrap();
}

/// A feed that is banned goes nowhere, whichever side offers or asks, until it is unbanned.
pub async fn banned_feeds_are_not_synced<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    let (junk, good) = (filled(&a, "junk", 1, 5, 100).await, filled(&a, "good", 2, 5, 100).await);
    let secret = filled(&b, "secret", 3, 5, 100).await;
    assert!(b.ban(junk.key()).await.unwrap() && !b.ban(junk.key()).await.unwrap());
    assert!(b.ban(secret.key()).await.unwrap());
    let mut banned = [junk.key(), secret.key()];
    banned.sort_unstable();
    assert_eq!(b.banned().await.unwrap(), banned);
    for _ in 0..2 {
        sync::<A>(&a, &b).await;
        assert_eq!((b.feed(junk.key()), a.feed(secret.key())), (None, None));
        assert_same(&good, &b).await;
    }
    // While it is synced.
    let (left, right) = connect::<A>(&a, &b, &Replicate::live());
    b.ban(good.key()).await.unwrap();
    fill(&good, 2, 1, 100).await;
    let late = filled(&a, "late", 4, 1, 100).await;
    held(&b, late.key(), 1).await;
    assert_eq!(b.feed(good.key()).unwrap().len(), 5);
    for key in [junk.key(), secret.key(), good.key()] {
        assert!(b.unban(key).await.unwrap() && !b.unban(key).await.unwrap());
    }
    held(&a, secret.key(), 5).await;
    held(&b, good.key(), 6).await;
    held(&b, junk.key(), 5).await;
    left.in_sync().await.unwrap();
    // One that was here and is removed, so that nothing of it is left to offer.
    for feed in [&junk, &late] {
        b.ban(feed.key()).await.unwrap();
        b.feed(feed.key()).unwrap().remove().await.unwrap();
        b.unban(feed.key()).await.unwrap();
        held(&b, feed.key(), feed.len()).await;
    }
    hang_up(left, right).await;
    assert_same(&junk, &b).await;
    // What was removed comes again if that is asked for, and what is unbanned that was alike on both sides, of which no channel was open.
    fill(&good, 2, 1, 100).await;
    let (left, right) = connect::<A>(&a, &b, &Replicate::live());
    held(&b, good.key(), 7).await.remove().await.unwrap();
    b.policy_changed().await.unwrap();
    held(&b, good.key(), 7).await;
    b.ban(junk.key()).await.unwrap();
    b.unban(junk.key()).await.unwrap();
    fill(&junk, 1, 1, 100).await;
    held(&b, junk.key(), 6).await;
    hang_up(left, right).await;
    for feed in [&good, &junk] {
        assert_same(feed, &b).await;
    }
}

/// A writer goes only by `remove_writer`, and its key pair is not taken up again.
pub async fn own_writers_are_removed_by_name<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    let pair = generate_key_pair().unwrap();
    let feed = a.writer_with("mine", pair.clone()).await.unwrap();
    feed.append("a block").await.unwrap();
    sync::<A>(&a, &b).await;
    match feed.remove().await {
        Err(Error::Store(StoreError::OwnWriter { key })) => assert_eq!(key, feed.key()),
        other => panic!("{other:?}"),
    }
    feed.remove_writer().await.unwrap();
    assert_eq!((a.feeds().len(), a.banned().await.unwrap()), (0, vec![feed.key()]));
    sync::<A>(&a, &b).await;
    assert_eq!((a.feeds().len(), b.feed(feed.key()).unwrap().len()), (0, 1));
    match a.writer_with("mine", pair).await {
        Err(Error::Store(StoreError::Banned { key })) => assert_eq!(key, feed.key()),
        other => panic!("{other:?}"),
    }
    let new = a.writer("mine").await.unwrap();
    assert!(new.key() != feed.key() && new.is_empty() && new.name() == "mine");
}
