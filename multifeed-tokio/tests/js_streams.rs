//! Streams that several multifeeds share, with corestore-multifeed as the other side.

use crate::common;

use std::time::Duration;

use common::{held, js, run, socket};
use multifeed_testkit::js::{JsPeer, TIMEOUT};
use multifeed_tokio::{FeedKey, Json, Multifeed, Options, Replicate, Role, StreamOptions, open_stream};
use serde_json::json;

/// Cabal's extension on the stream, and one on a feed's channel, with stores behind them, while feeds are synced.
#[test]
fn extensions_with_js() {
    run(async {
        for role in [Role::Initiator, Role::Responder] {
            let options = ["--live", "--extension", "peer-id", "--feed-extension", "typing"];
            let mut peer = js(|| JsPeer::spawn(&options));
            let key = js(|| peer.append("writer", 3, 10, 1));
            let multi = Multifeed::in_memory(Options::default()).await.unwrap();
            let ours = multi.writer("ours").await.unwrap();
            ours.append("a block").await.unwrap();
            let sync = multi.replicate(socket(&mut peer, role).await, role, Replicate::live());
            let mut peer_id = sync.register_extension("peer-id").unwrap();
            let unheard = sync.register_extension("unheard").unwrap();
            peer_id.send_json(&Json::new(r#"{"id":"ours"}"#).unwrap()).await.unwrap();
            unheard.send("dropped, as in JS").await.unwrap();
            peer_id.ready().await.unwrap();
            assert!(peer_id.is_spoken() && !unheard.is_spoken());
            let theirs = held(&multi, &key, 3).await;
            js(|| peer.wait(2, 4, TIMEOUT));
            let heard = js(|| peer.event("extension"));
            assert_eq!((&heard["name"], &heard["data"]), (&json!("peer-id"), &json!("eyJpZCI6Im91cnMifQ==")));
            js(|| peer.call(json!({"cmd": "extension", "name": "peer-id", "data": "eyJpZCI6InRoZWlycyJ9"})));
            assert_eq!(peer_id.next().await.unwrap(), r#"{"id":"theirs"}"#);

            for feed in [theirs, ours] {
                let key = feed.key().to_string();
                let mut typing = feed.register_extension("typing").await.unwrap();
                assert_eq!(typing.ready().await.unwrap(), sync.id());
                assert!(typing.spoken_by(sync.id()).await.unwrap());
                assert_eq!(typing.broadcast([0, 1, 2]).await.unwrap(), 1);
                let heard = js(|| peer.event("feed-extension"));
                assert_eq!((&heard["key"], &heard["data"]), (&json!(key), &json!("AAEC")));
                let data = json!({"cmd": "feed-extension", "key": key, "name": "typing", "data": "aGk="});
                js(|| peer.call(data));
                let message = typing.next().await.unwrap();
                assert_eq!((message.from, &message.body[..]), (sync.id(), &b"hi"[..]));
                let unheard = feed.register_extension("unheard").await.unwrap();
                assert_eq!(unheard.broadcast("dropped, as in JS").await.unwrap(), 0);
            }
            sync.close();
            sync.finish().await.unwrap();
            js(|| peer.close());
        }
    });
}

/// Each has its own root key, writers and end. One that only we have ends alone.
#[test]
fn several_multifeeds_with_corestore_multifeed() {
    run(async {
        for role in [Role::Initiator, Role::Responder] {
            let keys = [1, 2, 3].map(|n| FeedKey::new([n; 32]));
            let texts = keys.map(|key| key.to_string());
            let mut peer =
                js(|| JsPeer::spawn(&["--corestore", "--key", &texts[0], "--key", &texts[1], "--key", &texts[2]]));
            let mut theirs = Vec::new();
            for key in &texts {
                let reply = js(|| {
                    peer.call(
                        json!({"cmd": "append", "name": "writer", "key": key, "count": 5, "size": 100, "seed": 1}),
                    )
                });
                theirs.push(reply["key"].as_str().unwrap().to_owned());
            }
            let mut options = StreamOptions::default();
            options.session.handshake_timeout = Some(Duration::from_secs(5));
            let stream = open_stream(socket(&mut peer, role).await, role, options);
            let lone = Multifeed::in_memory(Options::new(FeedKey::new([9; 32]))).await.unwrap();
            let mut ours = Vec::new();
            for at in [2, 0, 1] {
                let multi = Multifeed::in_memory(Options::new(keys[at])).await.unwrap();
                let writer = multi.writer("writer").await.unwrap();
                writer.append_batch(["a", "b"]).await.unwrap();
                let sync = multi.replicate_over(&stream, Replicate::live());
                ours.push((at, multi, writer, sync));
            }
            let lone = lone.replicate_over(&stream, Replicate::live());
            for (at, multi, ..) in &ours {
                assert_eq!(held(multi, &theirs[*at], 5).await.len(), 5);
                assert_eq!(multi.feeds().len(), 2, "no feed of another root key");
            }
            js(|| peer.wait(6, 21, TIMEOUT));
            assert_eq!(lone.finish().await.unwrap_err().code(), "ERR_TIMEOUT");
            // The others go on.
            for (at, multi, writer, _) in &ours {
                writer.append("late").await.unwrap();
                js(|| {
                    peer.call(
                        json!({"cmd": "append", "name": "writer", "key": texts[*at], "count": 1, "size": 9, "seed": 2}),
                    )
                });
                held(multi, &theirs[*at], 6).await;
            }
            js(|| peer.wait(6, 27, TIMEOUT));
            stream.close();
            for (.., sync) in ours {
                sync.finish().await.unwrap();
            }
            stream.finish().await.unwrap();
            js(|| peer.event("ended"));
        }
    });
}

/// What hypercore's own `feed.replicate` speaks: no root key, no lists.
#[test]
fn one_feed_alone_with_hypercore() {
    run(async {
        for role in [Role::Initiator, Role::Responder] {
            for live in [&[][..], &["--live"]] {
                let options = Replicate { live: !live.is_empty(), ..Replicate::default() };
                // Theirs comes here; what else they have does not.
                let mut peer = js(|| JsPeer::spawn(live));
                let theirs = js(|| peer.append("theirs", 20, 100, 1));
                js(|| peer.append("other", 5, 100, 2));
                js(|| peer.call(json!({"cmd": "alone", "key": theirs})));
                let multi = Multifeed::in_memory(Options::default()).await.unwrap();
                let ours = multi.writer("ours").await.unwrap();
                ours.append_batch(["a", "b", "c"]).await.unwrap();
                let stream = open_stream(socket(&mut peer, role).await, role, StreamOptions::default());
                let sync = multi.replicate_feed(&stream, theirs.parse().unwrap(), options.clone());
                held(&multi, &theirs, 20).await;
                assert_eq!(multi.feeds().len(), 2);
                if options.live {
                    js(|| peer.append("theirs", 1, 100, 3));
                    held(&multi, &theirs, 21).await;
                    stream.close();
                }
                sync.finish().await.unwrap();
                stream.finish().await.unwrap();
                assert_eq!(js(|| peer.event("ended"))["clean"], true, "{}", peer.history());

                // Ours goes there, which knows its key alone.
                let mut peer = js(|| JsPeer::spawn(live));
                js(|| peer.call(json!({"cmd": "alone", "key": ours.key().to_string()})));
                let stream = open_stream(socket(&mut peer, role).await, role, StreamOptions::default());
                let sync = multi.replicate_feed(&stream, ours.key(), options.clone());
                js(|| peer.wait(1, 3, TIMEOUT));
                if options.live {
                    ours.append("late").await.unwrap();
                    js(|| peer.wait(1, 4, TIMEOUT));
                    js(|| peer.call(json!({"cmd": "finish"})));
                }
                sync.finish().await.unwrap();
                stream.finish().await.unwrap();
                assert_eq!(js(|| peer.event("ended"))["clean"], true, "{}", peer.history());
            }
        }
    });
}
