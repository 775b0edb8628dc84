//! More feeds than a session opens at once, with multifeed 6 as the other side, in both roles.

use crate::common;

use common::{finish, held, js, run, socket};
use multifeed_testkit::js::{JsPeer, TIMEOUT};
use multifeed_tokio::{Multifeed, Options, Replicate, Role};

const EACH: u32 = 30;

/// All feeds of both sides go over, and in a live session those that are done go on when there is something new.
#[test]
fn js_and_ours_sync_more_feeds_than_are_open_at_once() {
    run(async {
        for (role, live, open) in [
            (Role::Initiator, false, 1),
            (Role::Responder, false, 4),
            (Role::Initiator, false, 4),
            (Role::Responder, false, 1),
            (Role::Initiator, true, 4),
            (Role::Responder, true, 1),
        ] {
            let mut peer = js(|| JsPeer::spawn(if live { &["--live"] } else { &[] }));
            let mut theirs = Vec::new();
            for name in 0..EACH {
                theirs.push(js(|| peer.append(&format!("js{name}"), 2, 50, name)));
            }
            let mut options = Options::default();
            (options.multifeed.limits.feeds_open, options.multifeed.limits.feeds_asked) = (open, open);
            let multi = Multifeed::in_memory(options).await.unwrap();
            let mut ours = Vec::new();
            for name in 0..EACH {
                let feed = multi.writer(format!("ours{name}").as_str()).await.unwrap();
                feed.append_batch(["a", "b"]).await.unwrap();
                ours.push(feed);
            }
            let sync = multi.replicate(socket(&mut peer, role).await, role, Replicate { live, ..Replicate::default() });
            if live {
                js(|| peer.wait(u64::from(2 * EACH), u64::from(4 * EACH), TIMEOUT));
                for key in &theirs {
                    held(&multi, key, 2).await;
                }
                // The first and the last, and one that is new on each side.
                for at in [0, EACH as usize - 1] {
                    ours[at].append("c").await.unwrap();
                    js(|| peer.append(&format!("js{at}"), 1, 50, 7));
                    held(&multi, &theirs[at], 3).await;
                }
                multi.writer("new").await.unwrap().append("d").await.unwrap();
                let new = js(|| peer.append("new", 1, 50, 8));
                held(&multi, &new, 1).await;
                js(|| peer.wait(u64::from(2 * EACH + 2), u64::from(4 * EACH + 6), TIMEOUT));
                sync.close();
                finish(sync).await;
            } else {
                finish(sync).await;
                js(|| peer.wait(u64::from(2 * EACH), u64::from(4 * EACH), TIMEOUT));
                assert!(multi.feeds().iter().all(|feed| feed.downloaded() == 2), "{role:?} {open}");
                assert_eq!(multi.feeds().len(), 2 * EACH as usize);
            }
            assert_eq!(js(|| peer.event("ended"))["clean"], true, "{}", peer.history());
        }
    });
}
