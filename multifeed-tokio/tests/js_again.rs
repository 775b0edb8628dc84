//! One JS app that comes more than once: after a cut, or several times at once; and one that fetches only what it is asked for.

use crate::common;

use std::time::Duration;

use common::*;
use multifeed_testkit::blocks::block;
use multifeed_testkit::js::JsPeer;
use multifeed_testkit::throttle::Throttle;
use multifeed_tokio::{Replicate, Role};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to a JS peer that may have others.
async fn another(peer: &mut JsPeer, role: Role, link: Option<Throttle>) -> TcpStream {
    match role {
        Role::Initiator => {
            let reply = js(|| peer.call(json!({"cmd": "listen", "address": "127.0.0.1:0"})));
            let target = reply["address"].as_str().unwrap().parse().unwrap();
            let address = link.map_or(target, |link| link.listen(target).unwrap());
            TcpStream::connect(address).await.unwrap()
        }
        Role::Responder => {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let target = listener.local_addr().unwrap();
            let address = link.map_or(target, |link| link.listen(target).unwrap());
            js(|| peer.connect(address));
            listener.accept().await.unwrap().0
        }
    }
}

/// A JS app whose download was cut connects again from the same process, and gets the rest.
async fn a_download_that_was_cut(role: Role) {
    let multi = memory().await;
    let writer = multi.writer("ours").await.unwrap();
    writer.append_batch((0..200).map(|index| block(1, index, 5_000))).await.unwrap();
    let mut peer = js(|| JsPeer::spawn(&[]));
    let stream = another(&mut peer, role, Some(Throttle::rate(300_000))).await;
    let first = multi.replicate(stream, role, Replicate::default());
    js(|| peer.call(json!({"cmd": "wait", "blocks": 10})));
    js(|| peer.call(json!({"cmd": "destroy", "reset": true})));
    timeout(PATIENCE, first.finish()).await.expect("it hangs").expect_err("it was cut");
    let stream = another(&mut peer, role, None).await;
    let second = multi.replicate(stream, role, Replicate::default());
    let end = timeout(PATIENCE, second.finish()).await.expect("it hangs").unwrap();
    assert!((1..200).contains(&end.moved.blocks_sent), "{end:?}");
    assert_eq!(js(|| peer.feeds())[0].downloaded, 200);
}

/// Several connections at once between the same two stores: each ends well.
async fn several_at_once(role: Role) {
    for connections in [2, 5] {
        let multi = memory().await;
        for feed in 0..3 {
            let writer = multi.writer(format!("feed {feed}").as_str()).await.unwrap();
            writer.append_batch((0..40).map(|index| block(feed, index, 500))).await.unwrap();
        }
        let mut peer = js(|| JsPeer::spawn(&[]));
        js(|| peer.append("theirs", 40, 500, 9));
        let mut syncs = Vec::new();
        for _ in 0..connections {
            let stream = another(&mut peer, role, None).await;
            syncs.push(multi.replicate(stream, role, Replicate::default()));
        }
        let mut in_sync = 0;
        for sync in syncs {
            in_sync += usize::from(timeout(PATIENCE, sync.in_sync()).await.expect("it hangs").is_ok());
            timeout(PATIENCE, sync.finish()).await.expect("it hangs").unwrap();
        }
        if facts(&multi).await != js_facts(&js(|| peer.feeds())) {
            // Seen once, on a busy machine: JS says on each connection that it downloads no more while it still waits for blocks of
            // another one. No session says then that both hold the same, and the next one brings the rest.
            assert_eq!(in_sync, 0, "of {connections} sessions");
            let stream = another(&mut peer, role, None).await;
            let last = multi.replicate(stream, role, Replicate::default());
            timeout(PATIENCE, last.finish()).await.expect("it hangs").unwrap();
            assert_eq!(facts(&multi).await, js_facts(&js(|| peer.feeds())));
        }
    }
}

/// A JS app with `sparse: true`, live or not, never says that it is done. Unless both are live, our side ends well.
async fn a_sparse_app(role: Role) {
    for (theirs, ours) in [(&["--sparse", "--live"][..], false), (&["--sparse"][..], true)] {
        let multi = memory().await;
        multi.writer("ours").await.unwrap().append_batch(vec!["block"; 20]).await.unwrap();
        let mut peer = js(|| JsPeer::spawn(theirs));
        js(|| peer.append("theirs", 20, 100, 1));
        let stream = another(&mut peer, role, None).await;
        let sync = multi.replicate(stream, role, Replicate { live: ours, ..Replicate::default() });
        let end = timeout(PATIENCE, sync.finish()).await.unwrap_or_else(|_| panic!("it hangs: {theirs:?}")).unwrap();
        assert_eq!(end.moved.blocks_received, 20);
        // It asked for none of ours.
        assert_eq!((end.moved.not_taken, end.moved.unwanted), (0, 1), "{theirs:?}");
    }
}

macro_rules! in_both_roles {
    ($($scenario:ident),+ $(,)?) => {$(
        mod $scenario {
            use super::*;

            #[test]
            fn as_initiator() {
                run(super::$scenario(Role::Initiator));
            }

            #[test]
            fn as_responder() {
                run(super::$scenario(Role::Responder));
            }
        }
    )+};
}

in_both_roles!(a_download_that_was_cut, several_at_once, a_sparse_app);
