//! Blocks that come to a hub while a peer that does not stay is there, or leaves: what the two say of each other.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use multifeed_core::{KeyPair, Replicate};
use multifeed_testkit::net::{Shape, Side};
use multifeed_testkit::simulation::Field;

const HUB: usize = 0;
const UPLOADER: usize = 1;
const THIRD: usize = 2;

/// A slow peer like JS brings a new feed of sixty blocks, and a third one fetches what the hub has.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// The third one has no extension of ours.
    like_js: bool,
    hub_stays: bool,
    observed: bool,
    /// Blocks of 1 kB that the hub writes itself: the third one needs 7 s for twenty.
    own: usize,
    /// Bytes of each block that comes, 1 kB/s.
    size: usize,
    /// Milliseconds from the hub to the third one.
    delay: u64,
}

/// How a session ended.
#[derive(Debug, Default)]
struct End {
    in_sync: bool,
    missing: u64,
    not_taken: u64,
    /// How many blocks the hub held then that the third one lacked.
    lacking: u64,
}

impl Case {
    fn run(self) -> Result<[End; 2]> {
        let mut field = Field::new(3)?;
        fill(&mut field, UPLOADER, 60, self.size)?;
        fill(&mut field, HUB, self.own, 1000)?;
        let live = Replicate { reconcile: Some(false), ..Replicate::live() };
        let slow = Shape::slow(1_000, Duration::from_millis(50));
        field.join([UPLOADER, HUB], [slow.clone(), slow], [live.clone(), live]);
        ensure!(field.run(Duration::from_secs(60), |field| field.held(HUB) > self.own as u64)?, "no block comes");
        let link = Shape::slow(3_000, Duration::from_millis(self.delay));
        let third = Replicate { reconcile: self.like_js.then_some(false), ..Replicate::default() };
        let hub = Replicate { live: self.hub_stays, ..third.clone() };
        let stream = field.join_observed([THIRD, HUB], [link.clone(), link], [third, hub], [self.observed; 2]);
        let mut ends = [None, None];
        let end = field.now() + Duration::from_secs(600);
        field.run(end, |field| {
            for side in Side::BOTH {
                let (Some(totals), Some(in_sync)) = (field.totals(stream, side), field.ended_in_sync(stream, side))
                else {
                    continue;
                };
                let lacking = field.held(HUB) - field.held(THIRD);
                let (missing, not_taken) = (totals.missing, totals.not_taken);
                ends[side as usize].get_or_insert(End { in_sync, missing, not_taken, lacking });
            }
            field.is_over(stream)
        })?;
        let [third, hub] = ends;
        Ok([third.context("the third one failed")?, hub.context("the hub failed")?])
    }
}

fn fill(field: &mut Field, store: usize, blocks: usize, size: usize) -> Result<()> {
    if blocks > 0 {
        let id = field.store(store).writer(Some("w"), || KeyPair::from_seed(&[1 + store as u8; 32]))?;
        let batch: Vec<Bytes> = (0..blocks).map(|block| vec![block as u8; size].into()).collect();
        field.store(store).append(id, &batch)?;
    }
    Ok(())
}

/// The hub says that the third one took everything if that is so, and only then.
#[test]
fn a_hub_counts_what_comes_after_a_feeds_channel_closed() {
    let mut counted = 0;
    for like_js in [true, false] {
        for hub_stays in [true, false] {
            for observed in [true, false] {
                for (own, size, delay) in [
                    (0, 500, 5),
                    (0, 500, 300),
                    (0, 2_000, 50),
                    (0, 2_000, 300),
                    (0, 6_500, 1_500),
                    (20, 500, 5),
                    (20, 500, 50),
                    (20, 2_000, 5),
                    (20, 2_000, 300),
                    (20, 6_500, 5),
                    (20, 6_500, 300),
                    (20, 13_000, 50),
                    (20, 13_000, 1_500),
                ] {
                    let case = Case { like_js, hub_stays, observed, own, size, delay };
                    let [third, hub] = case.run().unwrap_or_else(|error| panic!("{case:?}: {error:#}"));
                    let whole = hub.lacking == 0;
                    assert_eq!((hub.in_sync, hub.not_taken == 0), (whole, whole), "{case:?}: {third:?} {hub:?}");
                    assert!(!third.in_sync || third.missing == 0, "{case:?}: {third:?}");
                    counted += u64::from(!whole);
                }
            }
        }
    }
    assert!(counted > 20, "{counted} hubs of which the third one lacked something");
}

/// The third one is through with the feed, and closes it; the hub announced one more block before it heard that.
#[test]
fn what_is_heard_after_a_channel_closed_is_missing() {
    for (like_js, hub_stays, size, delay) in
        [(false, false, 6_500, 5), (false, false, 6_500, 50), (true, false, 13_000, 1_500), (true, true, 13_000, 1_500)]
    {
        for observed in [true, false] {
            let case = Case { like_js, hub_stays, observed, own: 20, size, delay };
            let [third, hub] = case.run().unwrap_or_else(|error| panic!("{case:?}: {error:#}"));
            assert_eq!((third.in_sync, third.missing), (false, 1), "{case:?}: {third:?} {hub:?}");
        }
    }
}

/// One side stays, the other has nothing and does not: what it took is acknowledged before it closes a feed, whichever feed's turn it is.
#[test]
fn one_that_stays_hears_of_each_block_before_its_feed_closes() {
    for (feeds, blocks, size) in [(5, 5, 20_000), (40, 3, 5_000)] {
        for rate in [60_000, 1_000_000] {
            for delay in [10, 50] {
                for [stays, reader] in [[0, 1], [1, 0]] {
                    let case = (feeds, blocks, size, rate, delay, stays);
                    let mut field = Field::new(2).unwrap();
                    for feed in 0..feeds {
                        let pair = KeyPair::from_seed(&[feed + 1; 32]);
                        let store = field.store(stays);
                        let id = store.writer(Some(&format!("w{feed}")), || pair).unwrap();
                        let batch: Vec<Bytes> = (0..blocks).map(|block| vec![block; size].into()).collect();
                        store.append(id, &batch).unwrap();
                    }
                    let link = Shape::slow(rate, Duration::from_millis(delay));
                    let mut options = [Replicate::default(), Replicate::default()];
                    options[stays].live = true;
                    let mut observed = [false; 2];
                    observed[stays] = true;
                    let stream = field.join_observed([0, 1], [link.clone(), link], options, observed);
                    assert!(field.run(Duration::from_secs(600), |field| field.is_over(stream)).unwrap(), "{case:?}");
                    assert_eq!(field.held(reader), u64::from(feeds) * u64::from(blocks), "{case:?}");
                    for side in Side::BOTH {
                        let totals = field.totals(stream, side).unwrap();
                        assert_eq!((totals.not_taken, totals.missing), (0, 0), "{case:?}, {side:?}");
                        assert_eq!(field.ended_in_sync(stream, side), Some(true), "{case:?}, {side:?}");
                    }
                }
            }
        }
    }
}
