//! What a multifeed takes of what its remotes offer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use multifeed_driver::{
    Feed, FeedKey, Json, ManifestFields, Options, PeerLimits, Policy, Remote, Replicate, SyncEvent,
};

use super::{Adapter, assert_same, connect, connect_with, ends, fill, filled, held, memory, memory_with};

/// Offers what is said to be public, takes what the remote says is, and no more than so many feeds.
#[derive(Debug, Clone)]
struct Public {
    writers: &'static [&'static str],
    feeds: usize,
}

impl Policy for Public {
    fn offers(&self, _: &FeedKey, writer: Option<&str>, remote: &Remote) -> bool {
        let friend = remote.handshake.user_data.as_ref().is_some_and(|said| said.as_str() == "\"friend\"");
        friend || writer.is_some_and(|name| self.writers.contains(&name))
    }

    fn choose(&self, keys: &mut Vec<FeedKey>, fields: Option<&ManifestFields>, _: &Remote) {
        if fields.and_then(|fields| fields.get("public")).is_none_or(|public| public.as_str() != "true") {
            keys.clear();
        }
    }

    fn fields(&self, _: &[FeedKey], _: &Remote) -> Option<ManifestFields> {
        ManifestFields::new(&Json::new(r#"{"public":true}"#)?)
    }

    fn limits(&self, _: &Remote) -> Option<PeerLimits> {
        Some(PeerLimits { feeds: self.feeds, ..PeerLimits::default() })
    }
}

/// A store offers only some feeds, by who the remote says that it is, and takes only what is offered as the policy has it; a session's own
/// policy goes before the store's.
pub async fn a_policy_says_what_is_told_and_taken<A: Adapter>() {
    let rules = Public { writers: &["public"], feeds: 100 };
    let a = memory_with(Options::default().with_policy(rules.clone())).await;
    let public = filled(&a, "public", 1, 5, 100).await;
    let private = filled(&a, "private", 2, 5, 100).await;
    let b = memory_with(Options::default().with_policy(rules)).await;
    let silent = memory().await;
    let other = filled(&silent, "other", 3, 5, 100).await;

    for _ in 0..2 {
        let (left, right) = connect::<A>(&a, &b, &Replicate::default());
        let (left, right) = ends(left, right).await;
        assert_eq!((left.unwrap().moved.holes.len(), right.unwrap().moved.holes.len()), (0, 0));
        assert_eq!(b.feeds().len(), 1);
        assert_same(&public, &b).await;
    }
    // Nothing is said of what this one offers; it is served all the same.
    let (left, right) = connect::<A>(&b, &silent, &Replicate::default());
    let (left, right) = ends(left, right).await;
    assert_eq!((left.unwrap().moved.blocks_received, right.unwrap().moved.blocks_received), (0, 0));
    let open = Replicate::default().with_policy(Public { writers: &[], feeds: 100 });
    let (left, right) = connect_with::<A>(&a, Replicate::default(), &silent, open);
    let (left, right) = ends(left, right).await;
    assert_eq!((left.unwrap().moved.blocks_received, right.unwrap().moved.blocks_received), (0, 5));
    assert!(a.feed(other.key()).is_none());
    assert_same(&public, &silent).await;

    let friend = Replicate { user_data: Json::new("\"friend\""), ..Replicate::default() };
    let (left, right) = connect_with::<A>(&a, Replicate::default(), &b, friend);
    let (left, right) = ends(left, right).await;
    assert_eq!((left.unwrap().moved.blocks_sent, right.unwrap().moved.blocks_received), (5, 5));
    assert_same(&private, &b).await;
}

/// What the application changes while sessions run: feeds that are not offered, feeds that are not wanted, and how many a remote may bring.
#[derive(Debug, Clone)]
struct Changing(Arc<Mutex<Rules>>);

#[derive(Debug, Default)]
struct Rules {
    hidden: Vec<FeedKey>,
    unwanted: Vec<FeedKey>,
    limits: PeerLimits,
}

impl Changing {
    fn set(&self, hidden: &[&Feed], unwanted: &[&Feed], feeds: usize) {
        let keys = |feeds: &[&Feed]| feeds.iter().map(|feed| feed.key()).collect();
        let limits = PeerLimits { feeds, ..PeerLimits::default() };
        *self.0.lock().unwrap() = Rules { hidden: keys(hidden), unwanted: keys(unwanted), limits };
    }
}

impl Policy for Changing {
    fn offers(&self, key: &FeedKey, _: Option<&str>, _: &Remote) -> bool {
        !self.0.lock().unwrap().hidden.contains(key)
    }

    fn wants(&self, key: &FeedKey, _: &Remote) -> bool {
        !self.0.lock().unwrap().unwanted.contains(key)
    }

    fn limits(&self, _: &Remote) -> Option<PeerLimits> {
        Some(self.0.lock().unwrap().limits)
    }
}

/// A policy that changes: what is offered and wanted now is, what is refused now closes, and may come back; a limit that has grown lets more come.
pub async fn a_policy_that_changes_acts_on_running_sessions<A: Adapter>() {
    let rules = Changing(Arc::default());
    let (a, b) = (memory_with(Options::default().with_policy(rules.clone())).await, memory().await);
    let (one, two) = (filled(&a, "one", 1, 3, 100).await, filled(&a, "two", 2, 3, 100).await);
    let (theirs, other) = (filled(&b, "theirs", 3, 3, 100).await, filled(&b, "other", 4, 3, 100).await);
    rules.set(&[&two], &[&other], 100);
    let (mut left, right) = connect::<A>(&a, &b, &Replicate::live());
    held(&b, one.key(), 3).await;
    held(&a, theirs.key(), 3).await;
    assert!(b.feed(two.key()).is_none() && a.feed(other.key()).is_none());
    left.in_sync().await.unwrap();

    rules.set(&[], &[], 100);
    a.policy_changed().await.unwrap();
    let copies = [held(&b, two.key(), 3).await, held(&a, other.key(), 3).await];
    assert_eq!(copies.map(|feed| feed.downloaded()), [3, 3]);

    // One feed leaves; the others go on.
    rules.set(&[&one, &theirs], &[&one, &theirs], 100);
    a.policy_changed().await.unwrap();
    for feed in [&one, &theirs, &two, &other] {
        feed.append("one more").await.unwrap();
    }
    held(&b, two.key(), 4).await;
    held(&a, other.key(), 4).await;
    assert_eq!([(&b, &one), (&a, &theirs)].map(|(multi, feed)| multi.feed(feed.key()).unwrap().len()), [3, 3]);
    // Fetched, and not offered any more.
    rules.set(&[&one, &theirs], &[&one], 100);
    a.policy_changed().await.unwrap();
    held(&a, theirs.key(), 4).await;
    rules.set(&[], &[], 1);
    a.policy_changed().await.unwrap();
    held(&b, one.key(), 4).await;

    // It brought two: no third one comes before it may.
    let third = filled(&b, "third", 5, 3, 100).await;
    let reached = |event: &SyncEvent| matches!(event, SyncEvent::LimitReached(_));
    while !reached(&left.next().await.expect("it goes on")) {}
    fill(&one, 6, 1, 100).await;
    held(&b, one.key(), 5).await;
    assert!(a.feed(third.key()).is_none());
    rules.set(&[], &[], 3);
    a.policy_changed().await.unwrap();
    held(&a, third.key(), 3).await;
    left.close();
    let (left, right) = ends(left, right).await;
    left.unwrap();
    right.unwrap();
    for feed in [&one, &two] {
        assert_same(feed, &b).await;
    }
    for feed in [&theirs, &other, &third] {
        assert_same(feed, &a).await;
    }
    a.close().await.unwrap();
    assert_eq!(a.policy_changed().await.unwrap_err().code(), "ERR_CLOSED");
}

/// A remote brings as many feeds and bytes as it may, and is served all the same; a session may have options to fetch, or to serve, nothing.
pub async fn what_a_remote_brings_is_bounded<A: Adapter>() {
    let a = memory().await;
    for number in 0..5 {
        filled(&a, &number.to_string(), number, 3, 1000).await;
    }
    let mut options = Options::default();
    options.multifeed.limits.peer.feeds = 2;
    let b = memory_with(options).await;
    let ours = filled(&b, "ours", 9, 4, 100).await;
    let (left, mut right) = connect::<A>(&a, &b, &Replicate::default());
    let mut reached = Vec::new();
    while let Some(event) = right.next().await {
        if let SyncEvent::LimitReached(error) = event {
            reached.push(error.to_string());
        }
    }
    let (left, right) = ends(left, right).await;
    assert_eq!((left.unwrap().moved.blocks_received, right.unwrap().moved.holes.len()), (4, 0));
    assert_eq!((b.feeds().len(), reached.len()), (3, 1), "{reached:?}");
    assert_same(&ours, &a).await;

    let c = memory().await;
    let (left, right) = connect_with::<A>(&a, Replicate::default().download_only(), &c, Replicate::default());
    let (left, right) = ends(left, right).await;
    assert_eq!((left.unwrap().moved.blocks_sent, right.unwrap().moved.blocks_received), (0, 0));
    let (left, right) = connect_with::<A>(&a, Replicate::default(), &c, Replicate::default().upload_only());
    let (left, right) = ends(left, right).await;
    assert_eq!((left.unwrap().moved.blocks_sent, right.unwrap().moved.blocks_received), (0, 0));
}

/// A feed of nothing is in sync, is not here, and comes at once when there is something of it, whoever wants to know how far the
/// sync is; if it is added, it is here before that.
pub async fn a_feed_of_nothing_comes_with_its_first_block<A: Adapter>() {
    for added in [false, true] {
        let (a, b) = (memory().await, memory().await);
        let ours = filled(&a, "a", 1, 20, 100).await;
        let (left, right) = connect::<A>(&a, &b, &Replicate::live());
        futures_lite::future::zip(left.in_sync(), right.in_sync()).await.0.unwrap();
        let late = a.writer("late").await.unwrap();
        for _ in 0..3 {
            let (one, other) = futures_lite::future::zip(left.in_sync(), right.in_sync()).await;
            one.unwrap();
            other.unwrap();
            A::sleep(Duration::from_millis(5)).await;
        }
        assert!(b.feed(late.key()).is_none() && b.feeds().len() == 1);
        if added {
            let here = b.add(late.key()).await.unwrap();
            assert_eq!((here.len(), here.name().as_str(), b.feeds().len()), (0, "1", 2));
            assert_eq!(b.add(late.key()).await.unwrap().name(), "1");
        }
        fill(&late, 2, 5, 100).await;
        assert_eq!(held(&b, late.key(), 5).await.name(), "1");
        left.in_sync().await.unwrap();
        right.in_sync().await.unwrap();
        left.close();
        let (left, right) = ends(left, right).await;
        assert_eq!((left.unwrap().moved.blocks_sent, right.unwrap().moved.blocks_received), (25, 25));
        assert_same(&ours, &b).await;
        assert_same(&late, &b).await;
    }
}

/// Who offers too many feeds is not asked for those past the limit; what was taken is synced.
pub async fn offers_past_the_limit_are_told<A: Adapter>() {
    let a = memory().await;
    for number in 0..5 {
        filled(&a, &number.to_string(), number, 3, 10).await;
    }
    let mut options = Options::default();
    options.multifeed.limits.feeds_offered = 3;
    let b = memory_with(options).await;
    let (left, mut right) = connect::<A>(&a, &b, &Replicate::default());
    let mut refused = None;
    while let Some(event) = right.next().await {
        if let SyncEvent::OffersRefused { feeds, limit } = event {
            refused = Some((feeds, limit));
        }
    }
    let (left, right) = ends(left, right).await;
    assert_eq!((left.unwrap().moved.blocks_sent, right.unwrap().moved.blocks_received), (9, 9));
    assert_eq!((refused, b.feeds().len()), (Some((2, 3)), 3));
}
