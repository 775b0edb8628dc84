//! What one session is asked to do, and what a feed reports, with npm's multifeed 6 as the other side, in both roles.

use crate::common;

use std::time::Duration;

use common::*;
use multifeed_testkit::blocks::{block, blocks};
use multifeed_testkit::js::{self as testkit, JsPeer};
use multifeed_tokio::{FeedEvent, FeedEvents, Replicate, Role};
use serde_json::json;
use tokio::time::timeout;

const ROLES: [Role; 2] = [Role::Initiator, Role::Responder];

/// `sparse` of one session, of a store that fetches everything: only what is asked for comes, and JS gets all of ours. The next session of
/// the same store fetches everything.
#[test]
fn one_session_is_sparse() {
    run(async {
        for role in ROLES {
            for live in [true, false] {
                let mut peer = js(|| JsPeer::spawn(if live { &["--live"] } else { &[] }));
                let key = js(|| peer.append("js", 50, 100, 1));
                let multi = memory().await;
                multi.writer("rust").await.unwrap().append_batch(blocks(30, 100, 2)).await.unwrap();
                let options = Replicate { sparse: Some(true), live, ..Replicate::default() };
                let sync = multi.replicate(socket(&mut peer, role).await, role, options);
                let received = if live {
                    let feed = held(&multi, &key, 0).await;
                    assert_eq!(feed.fetch(7).await.unwrap(), block(1, 7, 100));
                    feed.download(20..23).await.unwrap().await.unwrap();
                    js(|| peer.wait(2, 80, testkit::TIMEOUT));
                    sync.in_sync().await.unwrap();
                    assert_eq!((feed.len(), feed.downloaded()), (50, 4));
                    hang_up_js(sync, &mut peer).await.moved.blocks_received
                } else {
                    let totals = timeout(Duration::from_secs(30), sync.finish()).await.expect("it hangs").unwrap();
                    assert_eq!(js(|| peer.event("ended"))["clean"], true, "{}", peer.history());
                    js(|| peer.wait(2, 80, testkit::TIMEOUT));
                    totals.moved.blocks_received
                };
                assert_eq!(received, if live { 4 } else { 0 }, "{role:?}, live: {live}");

                let options = Replicate { live, ..Replicate::default() };
                let sync = multi.replicate(socket(&mut peer, role).await, role, options);
                held(&multi, &key, 50).await;
                hang_up_js(sync, &mut peer).await;
                assert_eq!(facts(&multi).await, js_facts(&js(|| peer.feeds())));
            }
        }
    });
}

/// `download` and `upload` of one session, ours or the remote's: what is not to move does not, what is moves, and the session ends well.
#[test]
fn one_session_moves_one_way() {
    run(async {
        for role in ROLES {
            for live in [true, false] {
                for ours in [true, false] {
                    for to_us in [true, false] {
                        // Ours does not serve, or JS does not fetch; ours does not fetch, or JS does not serve.
                        let theirs = if to_us { "--download" } else { "--upload" };
                        let mut options = if ours { vec![] } else { vec![theirs, "false"] };
                        options.extend(live.then_some("--live"));
                        let mut peer = js(|| JsPeer::spawn(&options));
                        let key = js(|| peer.append("js", 40, 100, 1));
                        let multi = memory().await;
                        let feed = multi.writer("rust").await.unwrap();
                        feed.append_batch(blocks(30, 100, 2)).await.unwrap();
                        let options = Replicate { live, ..Replicate::default() };
                        let options = match (ours, to_us) {
                            (false, _) => options,
                            (true, true) => options.download_only(),
                            (true, false) => options.upload_only(),
                        };
                        let case = format!("{role:?}, live: {live}, ours: {ours}, to us: {to_us}");
                        let sync = multi.replicate(socket(&mut peer, role).await, role, options);
                        let moved = if live {
                            if to_us {
                                held(&multi, &key, 40).await;
                            } else {
                                js(|| peer.wait(2, 70, testkit::TIMEOUT));
                            }
                            timeout(Duration::from_secs(30), sync.in_sync()).await.expect(&case).unwrap();
                            hang_up_js(sync, &mut peer).await.moved
                        } else {
                            let end = timeout(Duration::from_secs(30), sync.finish()).await.expect(&case);
                            assert_eq!(js(|| peer.event("ended"))["clean"], true, "{case}: {}", peer.history());
                            end.unwrap_or_else(|error| panic!("{case}: {error}")).moved
                        };
                        let expected = if to_us { (0, 40) } else { (30, 0) };
                        assert_eq!((moved.blocks_sent, moved.blocks_received), expected, "{case}");
                        let there: u64 = js(|| peer.feeds()).iter().map(|feed| feed.downloaded).sum();
                        assert_eq!(there, 40 + expected.0, "{case}");
                    }
                }
            }
        }
    });
}

/// The next event of a feed that is the wanted one; those before it are passed over.
async fn until(events: &mut FeedEvents, mut wanted: impl FnMut(&FeedEvent) -> bool) -> FeedEvent {
    let find = async {
        loop {
            let event = events.next().await.expect("the multifeed is open");
            if wanted(&event) {
                return event;
            }
        }
    };
    timeout(Duration::from_secs(20), find).await.expect("the event does not come")
}

/// The events of a feed with a JS remote: its channel opens, it announces blocks, they come and go, and blocks are cleared on either side.
/// The channel goes with the remote, whichever side leaves and however.
#[test]
fn events_of_a_feed_with_js() {
    run(async {
        for role in ROLES {
            for by in ["us", "js", "cut"] {
                let mut peer = js(|| JsPeer::spawn(&["--live"]));
                let key = js(|| peer.append("js", 10, 100, 1));
                let multi = memory().await;
                let ours = multi.writer("rust").await.unwrap();
                ours.append_batch(blocks(10, 100, 2)).await.unwrap();
                let mut of_ours = ours.events().await.unwrap();
                let sync = multi.replicate(socket(&mut peer, role).await, role, Replicate::live());
                let id = Some(sync.id());
                assert_eq!(of_ours.next().await, Some(FeedEvent::PeerOpen { peer: id }));
                until(&mut of_ours, |event| matches!(event, FeedEvent::Upload { .. })).await;
                let copy = held(&multi, &key, 10).await;
                let mut of_copy = copy.events().await.unwrap();
                js(|| peer.append("js", 5, 100, 3));
                let update = |event: &FeedEvent| matches!(event, FeedEvent::RemoteUpdate { len: 15, .. });
                assert_eq!(until(&mut of_copy, update).await, FeedEvent::RemoteUpdate { peer: id, len: 15 });
                until(&mut of_copy, |event| matches!(event, FeedEvent::Download { .. })).await;
                until(&mut of_copy, |event| *event == FeedEvent::Sync).await;
                sync.in_sync().await.unwrap();

                // What we clear, of our own and of the copy. JS hears of it, and what it clears it says too; that is no event here.
                for (feed, events) in [(&ours, &mut of_ours), (&copy, &mut of_copy)] {
                    feed.clear(2..4).await.unwrap();
                    until(events, |event| *event == FeedEvent::Clear { blocks: 2..4 }).await;
                    let key = feed.key().to_string();
                    let has = json!({"cmd": "remote-has", "key": key, "index": 2});
                    while js(|| peer.call(has.clone()))["has"] == true {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
                js(|| peer.call(json!({"cmd": "clear", "key": ours.key().to_string(), "start": 6, "end": 8})));
                js(|| peer.call(json!({"cmd": "clear", "key": key, "start": 6, "end": 8})));

                let gone = |event: &FeedEvent| matches!(event, FeedEvent::PeerClose { .. });
                match by {
                    "us" => drop(hang_up_js(sync, &mut peer).await),
                    "js" => {
                        js(|| peer.call(json!({"cmd": "finish"})));
                        sync.finish().await.unwrap();
                    }
                    _ => {
                        js(|| peer.call(json!({"cmd": "destroy", "reset": true})));
                        // Both are in sync. If a write meets the reset before a read does, the socket then reads as ended, which is a clean end.
                        let end = sync.finish().await;
                        assert!(
                            end.as_ref()
                                .map_or_else(|error| error.code() == "ERR_NETWORK", |totals| totals.moved.missing == 0),
                            "{end:?}"
                        );
                    }
                }
                for events in [&mut of_ours, &mut of_copy] {
                    assert_eq!(until(events, gone).await, FeedEvent::PeerClose { peer: id }, "{role:?}, {by}");
                }
                assert_eq!(copy.peers().await.unwrap().len(), 0);
            }
        }
    });
}
