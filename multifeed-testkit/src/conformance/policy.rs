//! What a multifeed takes of what its remotes offer.

use std::time::Duration;

use multifeed_driver::{Options, Replicate, SyncEvent};

use super::{Adapter, assert_same, connect, ends, fill, filled, held, memory, memory_with};

/// A feed of nothing is in sync, is not here, and comes at once when there is something of it, whoever wants to know how far the
/// sync is; where it is added, it is here before that.
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
            assert_eq!((here.len(), here.name(), b.feeds().len()), (0, "1", 2));
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
