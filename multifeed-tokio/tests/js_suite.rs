//! The tests of npm's multifeed 6 (kappa-db/multifeed, `test/`), under their names: between two of ours, and, if there are two
//! sides, with JS as the other one.
//!
//! `basic.js`, `existing-protocol.js`, `mux.js` and `regression.js` are here.

use crate::common;

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::{
    facts, finish, hang_up, hang_up_js, held, join, join_js, js, js_facts, memory, remote_feeds, run, socket, sync,
    sync_js,
};
use multifeed_testkit::js::{self as testkit, JsPeer};
use multifeed_tokio::core::{FileId, Slot};
use multifeed_tokio::proto::{Command, Config, Event, FeedKey, Origin, Root, Session};
use multifeed_tokio::{
    DEFAULT_ROOT_KEY, Fault, Feed, Json, KeyPair, MemoryStorage, Multifeed, MultifeedEvent, Options, ProtocolStream,
    Replicate, Role, Storage, StreamOptions, SyncError, SyncEvent, open_stream,
};
use rand::SeedableRng;
use serde_json::json;

/// A multifeed with a nameless writer that appended one text, which can be read.
async fn setup(multi: &Multifeed, text: &str) -> Feed {
    let writer = multi.writer(None).await.unwrap();
    writer.append(text).await.unwrap();
    assert_eq!(writer.get(0).await.unwrap().unwrap(), text);
    // Others' may have come already, if a session runs.
    assert!(multi.feeds().contains(&writer));
    writer
}

/// A JS peer with a nameless writer that appended one text: its key.
fn setup_js(peer: &mut JsPeer, text: &str) -> String {
    // Texts of three bytes have a plain base64 form.
    let encoded = match text {
        "foo" => "Zm9v",
        "bar" => "YmFy",
        other => panic!("{other}"),
    };
    let reply = js(|| peer.call(json!({"cmd": "append", "name": null, "blocks": [encoded]})));
    reply["key"].as_str().unwrap().to_owned()
}

/// The names of the feeds that a multifeed has reported since these events began.
async fn feed_events(mut events: multifeed_tokio::Events, multi: &Multifeed) -> Vec<String> {
    multi.close().await.unwrap();
    let mut names = Vec::new();
    while let Some(event) = events.next().await {
        if let MultifeedEvent::Feed(feed) = event {
            names.push(feed.name());
        }
    }
    names
}

mod basic {
    use super::*;

    #[test]
    fn no_feeds() {
        run(async { assert!(memory().await.feeds().is_empty()) });
    }

    #[test]
    fn create_writer() {
        run(async { drop(setup(&memory().await, "foo").await) });
    }

    #[test]
    fn get_feed_by_key() {
        run(async {
            let multi = memory().await;
            let writer = multi.writer(None).await.unwrap();
            assert_eq!(multi.feed(writer.key()), Some(writer.clone()));
            assert_eq!(multi.feed(&writer.key().to_string()), Some(writer));
        });
    }

    #[test]
    fn get_localfeed_by_name() {
        run(async {
            let multi = memory().await;
            let writer = multi.writer("bob").await.unwrap();
            assert_eq!(multi.writer("bob").await.unwrap(), writer);
        });
    }

    #[test]
    fn replicate_two_multifeeds_one_empty() {
        run(async {
            let (m1, m2) = (memory().await, memory().await);
            m1.writer(None).await.unwrap();
            let events = sync(&m1, &m2).await;
            assert!(remote_feeds(&events[0]) > 0);
            // Of a feed without a block nothing is kept here, other than in JS.
            assert_eq!((m1.feeds().len(), m2.feeds().len()), (1, 0));

            let (mut peer, address) = js(|| JsPeer::listen(&[]));
            assert!(remote_feeds(&sync_js(&m1, &mut peer, address).await) > 0);
            assert_eq!(js(|| peer.feeds()).len(), 1);
            let (mut peer, address) = js(|| JsPeer::listen(&[]));
            js(|| peer.call(json!({"cmd": "writer", "name": null})));
            let empty = memory().await;
            assert!(remote_feeds(&sync_js(&empty, &mut peer, address).await) > 0);
            assert_eq!(empty.feeds().len(), 0);
        });
    }

    #[test]
    fn replicate_two_empty_multifeeds() {
        run(async {
            let (m1, m2) = (memory().await, memory().await);
            let events = sync(&m1, &m2).await;
            assert!(remote_feeds(&events[0]) > 0 && m1.feeds().is_empty() && m2.feeds().is_empty());

            let (mut peer, address) = js(|| JsPeer::listen(&[]));
            assert!(remote_feeds(&sync_js(&m1, &mut peer, address).await) > 0);
            assert!(js(|| peer.feeds()).is_empty());
        });
    }

    #[test]
    fn replicate_two_multifeeds() {
        run(async {
            let (m1, m2) = (memory().await, memory().await);
            let (told_1, told_2) = (m1.events(), m2.events());
            setup(&m1, "foo").await;
            setup(&m2, "bar").await;
            let events = sync(&m1, &m2).await;
            assert!(remote_feeds(&events[0]) > 0 && remote_feeds(&events[1]) > 0);
            assert_eq!(m1.feeds()[1].get(0).await.unwrap().unwrap(), "bar");
            assert_eq!(m2.feeds()[1].get(0).await.unwrap().unwrap(), "foo");
            assert_eq!(feed_events(told_2, &m2).await, ["0", "1"]);

            let (mut peer, address) = js(|| JsPeer::listen(&[]));
            setup_js(&mut peer, "bar");
            sync_js(&m1, &mut peer, address).await;
            assert_eq!(m1.feeds()[2].get(0).await.unwrap().unwrap(), "bar");
            assert_eq!(feed_events(told_1, &m1).await, ["0", "1", "2"]);
            assert_eq!(js(|| peer.event("feed"))["name"], "0");
            assert_eq!(js(|| peer.event("feed"))["name"], "1");
        });
    }

    #[test]
    fn live_replicate_two_multifeeds() {
        run(async {
            let (m1, m2) = (memory().await, memory().await);
            let told = m1.events();
            let (w1, w2) = (setup(&m1, "foo").await, setup(&m2, "bar").await);
            let (left, right) = join(&m1, &m2, &Replicate::live());
            held(&m1, &w2.key().to_string(), 1).await;
            held(&m2, &w1.key().to_string(), 1).await;
            assert_eq!(m1.feeds()[1].get(0).await.unwrap().unwrap(), "bar");
            assert_eq!(m2.feeds()[1].get(0).await.unwrap().unwrap(), "foo");
            hang_up(left, right).await;

            let (mut peer, address) = js(|| JsPeer::listen(&["--live"]));
            let key = setup_js(&mut peer, "bar");
            let live = join_js(&m1, address, Replicate::live()).await;
            held(&m1, &key, 1).await;
            js(|| peer.wait(3, 3, testkit::TIMEOUT));
            live.in_sync().await.unwrap();
            assert_eq!(facts(&m1).await, js_facts(&js(|| peer.feeds())));
            hang_up_js(live, &mut peer).await;
            assert_eq!(feed_events(told, &m1).await, ["0", "1", "2"]);
        });
    }

    #[test]
    fn get_localfeed_by_name_across_disk_loads() {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let multi = Multifeed::open(dir.path(), Options::default()).await.unwrap();
            let key = multi.writer("minuette").await.unwrap().key();
            multi.close().await.unwrap();
            let multi = Multifeed::open(dir.path(), Options::default()).await.unwrap();
            assert_eq!(multi.writer("minuette").await.unwrap().key(), key);
            multi.close().await.unwrap();
            // And JS finds it by that name.
            let made = js(|| testkit::make(dir.path(), &json!({"writers": [{"name": "minuette"}]})));
            assert_eq!((made.len(), made[0].key.clone()), (1, key.to_string()));
        });
    }

    #[test]
    fn close() {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let multi = Multifeed::open(dir.path(), Options::default()).await.unwrap();
            multi.writer("minuette").await.unwrap();
            multi.close().await.unwrap();
            assert!(multi.feeds().is_empty() && multi.is_closed());
            std::fs::remove_dir_all(dir.path()).unwrap();
        });
    }

    #[test]
    fn close_after_double_open() {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            for _ in 0..2 {
                let multi = Multifeed::open(dir.path(), Options::default()).await.unwrap();
                multi.writer("minuette").await.unwrap().append(r#"{"type":"node"}"#).await.unwrap();
                multi.close().await.unwrap();
            }
            std::fs::remove_dir_all(dir.path()).unwrap();
        });
    }

    #[test]
    fn can_provide_custom_encryption_key() {
        run(async {
            let key = KeyPair::from_seed(&[7; 32]).public_key();
            let options = Options::new(key);
            assert_eq!(options.session.root.as_ref().unwrap().key, key);
            let (m1, m2) =
                (Multifeed::in_memory(options.clone()).await.unwrap(), Multifeed::in_memory(options).await.unwrap());
            setup(&m1, "foo").await;
            sync(&m1, &m2).await;
            let key = key.to_string();
            let (mut peer, address) = js(|| JsPeer::listen(&["--key", &key]));
            sync_js(&m1, &mut peer, address).await;
            assert_eq!(js(|| peer.feeds()).len(), 1);
        });
    }

    #[test]
    fn replicate_slow_to_open_multifeeds() {
        run(async {
            let slow = || Slow(MemoryStorage::default(), Duration::from_millis(5));
            let m1 = Multifeed::with_storage(slow(), Options::default()).await.unwrap();
            let m2 = Multifeed::with_storage(slow(), Options::default()).await.unwrap();
            let (told_1, told_2) = (m1.events(), m2.events());
            setup(&m1, "foo").await;
            setup(&m2, "bar").await;
            sync(&m1, &m2).await;
            assert_eq!(m1.feeds()[1].get(0).await.unwrap().unwrap(), "bar");
            assert_eq!(m2.feeds()[1].get(0).await.unwrap().unwrap(), "foo");
            assert_eq!(feed_events(told_2, &m2).await, ["0", "1"]);
            let (mut peer, address) = js(|| JsPeer::listen(&["--delay-reads", "30"]));
            setup_js(&mut peer, "bar");
            sync_js(&m1, &mut peer, address).await;
            assert_eq!(feed_events(told_1, &m1).await, ["0", "1", "2"]);
        });
    }

    const FIRST: &str = "bf54c2aa004c76e7575839ff1fd7c242f9ba14b019afeed0e0536a6c3483e78c\
                         731e8277432cad15c39f275de593a50cf2e689b0139f2d1ad2a130b84a8b1407";
    const SECOND: &str = "559f807745b2dd136ec96ebdffa81f0631bfc4bc6ee4bc86f5666b24db91665a\
                          ce1f0639f6559736d5c98f9df9af111ff20f0980674297e4eb40cc8f00f1157e";

    /// The key pair of a JS secret key in hex.
    fn key_pair(hex: &str) -> KeyPair {
        let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
        KeyPair::from_secret_key(&std::array::from_fn(byte)).unwrap()
    }

    #[test]
    fn can_create_writer_with_custom_keypair() {
        run(async {
            let multi = memory().await;
            let pair = key_pair(SECOND);
            let writer = multi.writer_with("moose", pair.clone()).await.unwrap();
            assert_eq!(writer.key().to_string(), &SECOND[64..]);
            let exported = writer.key_pair().await.unwrap().unwrap();
            assert_eq!(*exported.secret_key(), *pair.secret_key());
            writer.append("foo").await.unwrap();
            assert_eq!(writer.get(0).await.unwrap().unwrap(), "foo");
            assert_eq!(multi.feeds(), [writer]);
        });
    }

    #[test]
    fn can_replicate_with_custom_keypairs() {
        run(async {
            let (m1, m2) = (memory().await, memory().await);
            let w1 = m1.writer_with("local", key_pair(FIRST)).await.unwrap();
            w1.append("foo").await.unwrap();
            let w2 = m2.writer_with("local", key_pair(SECOND)).await.unwrap();
            w2.append("bar").await.unwrap();
            sync(&m1, &m2).await;
            assert_eq!(m1.feed(w2.key()).unwrap().get(0).await.unwrap().unwrap(), "bar");
            assert_eq!(m2.feed(w1.key()).unwrap().get(0).await.unwrap().unwrap(), "foo");

            // JS with the same seed has the same writer.
            let m1 = memory().await;
            m1.writer_with("local", key_pair(FIRST)).await.unwrap().append("foo").await.unwrap();
            let (mut peer, address) = js(|| JsPeer::listen(&[]));
            let theirs = js(|| peer.call(json!({"cmd": "writer", "name": "local", "seed": &SECOND[..64]})));
            assert_eq!(theirs["key"], SECOND[64..]);
            js(|| peer.append("local", 1, 3, 1));
            sync_js(&m1, &mut peer, address).await;
            assert!(m1.feed(w2.key()).is_some());
        });
    }
}

mod existing_protocol {
    use super::*;

    /// Two streams, joined, that are there before any multifeed replicates.
    fn protocols() -> [ProtocolStream; 2] {
        let (left, right) = tokio::io::duplex(64 * 1024);
        [
            open_stream(left, Role::Initiator, StreamOptions::default()),
            open_stream(right, Role::Responder, StreamOptions::default()),
        ]
    }

    /// A stream to a JS peer, whose own was made before its multifeed replicates too.
    async fn protocol_to_js(address: std::net::SocketAddr) -> ProtocolStream {
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        open_stream(socket, Role::Initiator, StreamOptions::default())
    }

    #[test]
    fn replicate_from_existing_protocols() {
        run(async {
            let (m1, m2) = (memory().await, memory().await);
            let (told_1, told_2) = (m1.events(), m2.events());
            setup(&m1, "foo").await;
            setup(&m2, "bar").await;
            let [p1, p2] = protocols();
            let r1 = m1.replicate_over(&p1, Replicate::default());
            let r2 = m2.replicate_over(&p2, Replicate::default());
            let (r1, r2) = tokio::join!(finish(r1), finish(r2));
            assert!(remote_feeds(&r1) > 0 && remote_feeds(&r2) > 0);
            p1.finish().await.unwrap();
            p2.finish().await.unwrap();
            assert_eq!((m1.feeds().len(), m2.feeds().len()), (2, 2));
            assert_eq!(m1.feeds()[1].get(0).await.unwrap().unwrap(), "bar");
            assert_eq!(m2.feeds()[1].get(0).await.unwrap().unwrap(), "foo");
            assert_eq!(feed_events(told_2, &m2).await, ["0", "1"]);

            let (mut peer, address) = js(|| JsPeer::listen(&["--existing"]));
            setup_js(&mut peer, "bar");
            let protocol = protocol_to_js(address).await;
            let events = finish(m1.replicate_over(&protocol, Replicate::default())).await;
            assert!(remote_feeds(&events) > 0);
            protocol.finish().await.unwrap();
            assert_eq!(js(|| peer.event("ended"))["clean"], true, "{}", peer.history());
            js(|| peer.event("remote-feeds"));
            assert_eq!(facts(&m1).await, js_facts(&js(|| peer.feeds())));
            assert_eq!(m1.feeds()[2].get(0).await.unwrap().unwrap(), "bar");
            assert_eq!(feed_events(told_1, &m1).await, ["0", "1", "2"]);
        });
    }

    #[test]
    fn live_replicate_from_existing_protocols() {
        run(async {
            let (m1, m2) = (memory().await, memory().await);
            let (told_1, told_2) = (m1.events(), m2.events());
            let (w1, w2) = (setup(&m1, "foo").await, setup(&m2, "bar").await);
            let [p1, p2] = protocols();
            let r1 = m1.replicate_over(&p1, Replicate::live());
            let r2 = m2.replicate_over(&p2, Replicate::live());
            held(&m1, &w2.key().to_string(), 1).await;
            held(&m2, &w1.key().to_string(), 1).await;
            assert_eq!((m1.feeds().len(), m2.feeds().len()), (2, 2));
            assert_eq!(m1.feeds()[1].get(0).await.unwrap().unwrap(), "bar");
            assert_eq!(m2.feeds()[1].get(0).await.unwrap().unwrap(), "foo");
            w1.append("more").await.unwrap();
            held(&m2, &w1.key().to_string(), 2).await;
            p1.close();
            finish(r1).await;
            finish(r2).await;
            p2.finish().await.unwrap();
            assert_eq!(feed_events(told_2, &m2).await, ["0", "1"]);

            let (mut peer, address) = js(|| JsPeer::listen(&["--live", "--existing"]));
            let key = setup_js(&mut peer, "bar");
            let protocol = protocol_to_js(address).await;
            let live = m1.replicate_over(&protocol, Replicate::live());
            held(&m1, &key, 1).await;
            js(|| peer.wait(3, 4, testkit::TIMEOUT));
            // Appends go on, either way.
            js(|| peer.call(json!({"cmd": "append", "name": "0", "blocks": ["Zm9v"]})));
            held(&m1, &key, 2).await;
            w1.append("and more").await.unwrap();
            js(|| peer.wait(3, 6, testkit::TIMEOUT));
            assert_eq!(facts(&m1).await, js_facts(&js(|| peer.feeds())));
            protocol.close();
            finish(live).await;
            protocol.finish().await.unwrap();
            assert_eq!(js(|| peer.event("ended"))["clean"], true, "{}", peer.history());
            assert_eq!(feed_events(told_1, &m1).await, ["0", "1", "2"]);
        });
    }
}

mod mux {
    use super::*;

    /// Moves bytes and events between two sessions until nothing moves.
    fn pump(ends: &mut [Session; 2], mut on: impl FnMut(usize, Event) -> Option<Command>) {
        let mut moved = true;
        while std::mem::take(&mut moved) {
            for side in 0..2 {
                while let Some(event) = ends[side].poll_event() {
                    moved = true;
                    if let Some(command) = on(side, event) {
                        ends[side].apply(command).unwrap();
                    }
                }
                let mut wire = bytes::BytesMut::new();
                while ends[side].poll_output(&mut wire) {}
                if !wire.is_empty() {
                    moved = true;
                    ends[1 - side].recv_buf().unwrap().extend_from_slice(&wire);
                    ends[1 - side].handle_input(Duration::ZERO).unwrap();
                }
            }
        }
    }

    fn sessions() -> [Session; 2] {
        let mut rng = rand::rngs::StdRng::seed_from_u64(5);
        [Role::Initiator, Role::Responder].map(|role| Session::new(role, Config::default(), Duration::ZERO, &mut rng))
    }

    #[test]
    fn key_exchange_api() {
        let [a, b, c, x] = [1, 2, 3, 9].map(|byte| FeedKey::new([byte; 32]));
        let mut replicated = [None, None];
        pump(&mut sessions(), |side, event| match (side, event) {
            (0, Event::Ready { root, .. }) => Some(Command::Offer { root, keys: vec![a, b, c], fields: None }),
            (1, Event::Manifest { root, keys, .. }) => {
                assert_eq!(keys, [a, b, c]);
                Some(Command::Request { root, keys: vec![a, c, x] })
            }
            (_, Event::Replicate { keys, origin, .. }) => {
                assert_eq!(origin, if side == 0 { Origin::Local } else { Origin::Remote });
                assert_eq!(replicated[side].replace(keys), None);
                None
            }
            _ => None,
        });
        assert_eq!(replicated, [Some(vec![a, c]), Some(vec![a, c])]);
        assert_eq!(Root::FIRST, Root(0));
    }

    #[test]
    fn regression_ensure_we_re_receiving_remote_handshake() {
        run(async {
            let (m1, m2) = (memory().await, memory().await);
            let data = |text: &str| Replicate { user_data: Json::new(text), ..Replicate::default() };
            let heard = |events: &[SyncEvent]| {
                events.iter().find_map(|event| match event {
                    SyncEvent::Ready(remote) => Some(remote.user_data.as_ref().map(|json| json.as_str().to_owned())),
                    _ => None,
                })
            };
            let (left, right) = tokio::io::duplex(4096);
            let (left, right) =
                (m1.replicate(left, Role::Initiator, data("0.25")), m2.replicate(right, Role::Responder, data("0.75")));
            let (left, right) = tokio::join!(finish(left), finish(right));
            assert_eq!(heard(&left).flatten().as_deref(), Some("0.75"));
            assert_eq!(heard(&right).flatten().as_deref(), Some("0.25"));

            let (mut peer, address) = js(|| JsPeer::listen(&["--user-data", "0.75"]));
            let events = finish(join_js(&m1, address, data("0.25")).await).await;
            assert_eq!(heard(&events).flatten().as_deref(), Some("0.75"));
            assert_eq!(js(|| peer.event("handshake"))["header"]["userData"], 0.25);
        });
    }
}

mod regression {
    use super::*;

    #[test]
    fn concurrency_of_writer_creation() {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let multi = Multifeed::open(dir.path(), Options::default()).await.unwrap();
            assert!(multi.feeds().is_empty());
            let (first, second) = tokio::join!(multi.writer("minuette"), multi.writer("minuette"));
            // In JS these are two feeds of one name.
            assert_eq!(first.unwrap(), second.unwrap());
            assert_eq!(multi.feeds().len(), 1);
            multi.close().await.unwrap();
        });
    }

    #[test]
    fn mf_with_no_writer_replicate_to_mf_with_1_writer() {
        run(async {
            let (m1, m2) = (memory().await, memory().await);
            let w1 = m1.writer(None).await.unwrap();
            w1.append_batch(vec!["foo"; 1000]).await.unwrap();
            assert_eq!(w1.get(13).await.unwrap().unwrap(), "foo");
            let w2 = m2.writer(None).await.unwrap();
            w2.append_batch(vec!["bar"; 10]).await.unwrap();
            sync(&m1, &m2).await;
            let lengths = |multi: &Multifeed| multi.feeds().iter().map(Feed::len).collect::<Vec<_>>();
            assert_eq!((lengths(&m1), lengths(&m2)), (vec![1000, 10], vec![10, 1000]));
            assert_eq!(m1.feeds()[1].get(0).await.unwrap().unwrap(), "bar");
            assert_eq!(m2.feeds()[1].get(0).await.unwrap().unwrap(), "foo");

            for (ours, theirs) in [(1000, 10), (10, 1000)] {
                let multi = memory().await;
                multi.writer(None).await.unwrap().append_batch(vec!["foo"; ours]).await.unwrap();
                let (mut peer, address) = js(|| JsPeer::listen(&[]));
                js(|| peer.append("js", theirs, 3, 1));
                sync_js(&multi, &mut peer, address).await;
                assert_eq!(lengths(&multi), [ours as u64, u64::from(theirs)]);
            }
        });
    }

    #[test]
    fn start_replicating_before_feeds_are_loaded() {
        run(async {
            // The session begins while the writer is still being made; it comes too.
            let slow = || Slow(MemoryStorage::default(), Duration::from_millis(2));
            let m1 = Multifeed::with_storage(slow(), Options::default()).await.unwrap();
            let m2 = Multifeed::with_storage(slow(), Options::default()).await.unwrap();
            let (left, right) = join(&m1, &m2, &Replicate::live());
            let (w1, w2) = tokio::join!(setup(&m1, "foo"), async {
                let writer = m2.writer("second").await.unwrap();
                writer.append("bar").await.unwrap();
                writer
            });
            assert_eq!(held(&m1, &w2.key().to_string(), 1).await.get(0).await.unwrap().unwrap(), "bar");
            assert_eq!(held(&m2, &w1.key().to_string(), 1).await.get(0).await.unwrap().unwrap(), "foo");
            hang_up(left, right).await;

            let m3 = Multifeed::with_storage(slow(), Options::default()).await.unwrap();
            let (mut peer, address) = js(|| JsPeer::listen(&["--live", "--delay-reads", "10"]));
            let live = join_js(&m3, address, Replicate::live()).await;
            let key = setup_js(&mut peer, "bar");
            m3.writer("late").await.unwrap().append("foo").await.unwrap();
            held(&m3, &key, 1).await;
            js(|| peer.wait(2, 2, testkit::TIMEOUT));
            hang_up_js(live, &mut peer).await;
        });
    }

    #[test]
    fn announce_new_feed_on_existing_connections() {
        run(async {
            let (m1, m2, m3) = (memory().await, memory().await, memory().await);
            let w1 = setup(&m1, "First").await;
            let (w2, w3) = (setup(&m2, "Second").await, setup(&m3, "Third").await);
            let mut told = m1.events();
            let first = join(&m1, &m2, &Replicate::live());
            held(&m1, &w2.key().to_string(), 1).await;
            let second = join(&m3, &m2, &Replicate::live());
            assert_eq!(held(&m1, &w3.key().to_string(), 1).await.get(0).await.unwrap().unwrap(), "Third");
            held(&m3, &w1.key().to_string(), 1).await;
            let mut seen = Vec::new();
            while seen.len() < 2 {
                if let Some(MultifeedEvent::Feed(feed)) = told.next().await {
                    seen.push(feed.key());
                }
            }
            assert_eq!(seen, [w2.key(), w3.key()]);
            hang_up(first.0, first.1).await;
            hang_up(second.0, second.1).await;

            // The same with JS in the middle.
            let (m1, m3) = (memory().await, memory().await);
            let (w1, w3) = (setup(&m1, "First").await, setup(&m3, "Third").await);
            let (mut peer, address) = js(|| JsPeer::listen(&["--live"]));
            let key = setup_js(&mut peer, "bar");
            let first = join_js(&m1, address, Replicate::live()).await;
            held(&m1, &key, 1).await;
            let second = join_js(&m3, address, Replicate::live()).await;
            assert_eq!(held(&m1, &w3.key().to_string(), 1).await.get(0).await.unwrap().unwrap(), "Third");
            held(&m3, &w1.key().to_string(), 1).await;
            hang_up_js(first, &mut peer).await;
            hang_up_js(second, &mut peer).await;
        });
    }

    #[test]
    fn replicate_before_multifeed_is_ready() {
        run(async {
            // There is nothing to replicate before `open` has ended; afterwards, and once it is closed, a session says why.
            let mut opening = pin!(Multifeed::in_memory(Options::default()));
            let multi = match opening.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(multi) => multi.unwrap(),
                Poll::Pending => opening.await.unwrap(),
            };
            let other = memory().await;
            multi.close().await.unwrap();
            let (left, right) = join(&multi, &other, &Replicate::default());
            match left.finish().await.unwrap_err() {
                SyncError::Session(error) => assert_eq!(error.fault(), Fault::Local),
                error => panic!("{error}"),
            }
            right.finish().await.unwrap_err();
        });
    }

    #[test]
    fn mfs_with_different_root_keys_cannot_replicate() {
        run(async {
            let key = KeyPair::from_seed(&[8; 32]).public_key();
            let m1 = Multifeed::in_memory(Options::new(key)).await.unwrap();
            let m2 = memory().await;
            for multi in [&m1, &m2] {
                let writer = multi.writer(None).await.unwrap();
                writer.append_batch(vec!["foo"; 1000]).await.unwrap();
            }
            let (left, right) = join(&m1, &m2, &Replicate::default());
            let (left, right) = tokio::join!(left.finish(), right.finish());
            let codes = [left.unwrap_err().code(), right.unwrap_err().code()];
            assert!(codes.contains(&"ERR_ROOT_KEY_MISMATCH"), "{codes:?}");

            // JS has no code for it, and says so in its own words. Whichever side connects, ours reports both keys.
            assert_ne!(key, DEFAULT_ROOT_KEY);
            let mut peer = js(|| JsPeer::spawn(&[]));
            js(|| peer.append("js", 1000, 3, 1));
            for role in [Role::Initiator, Role::Responder] {
                let stream = socket(&mut peer, role).await;
                let error = m1.replicate(stream, role, Replicate::default()).finish().await.unwrap_err();
                assert_eq!(error.code(), "ERR_ROOT_KEY_MISMATCH", "{role:?}: {error}");
                assert!(error.us().is_some() && error.them().is_some() && error.us() != error.them(), "{error}");
                assert_eq!(js(|| peer.event("error"))["message"], "Exchange key did not match remote", "{role:?}");
                assert_eq!(js(|| peer.event("ended"))["clean"], false);
            }
            assert_eq!((m1.feeds().len(), js(|| peer.feeds()).len()), (1, 1));
        });
    }

    #[test]
    fn calling_close_while_closing_should_not_throw_errors() {
        run(async {
            let multi = memory().await;
            multi.writer("default").await.unwrap().append("some data").await.unwrap();
            assert!(!multi.is_closed());
            let (first, second) = tokio::join!(multi.close(), async {
                multi.close().await.unwrap();
                multi.closed().await;
            });
            first.unwrap();
            assert!(multi.is_closed());
            let () = second;
        });
    }

    #[test]
    fn sync_two_single_core_multifeeds_with_different_storage_speeds() {
        run(async {
            let slow = |ms| Slow(MemoryStorage::default(), Duration::from_millis(ms));
            let m1 = Multifeed::with_storage(slow(1), Options::default()).await.unwrap();
            let m2 = Multifeed::with_storage(slow(50), Options::default()).await.unwrap();
            setup(&m1, "foo").await;
            setup(&m2, "bar").await;
            sync(&m1, &m2).await;
            assert_eq!((m1.feeds().len(), m2.feeds().len()), (2, 2));

            let (mut peer, address) = js(|| JsPeer::listen(&["--delay-reads", "200"]));
            setup_js(&mut peer, "foo");
            sync_js(&m1, &mut peer, address).await;
            assert_eq!(m1.feeds().len(), 3);
        });
    }

    #[test]
    fn ensure_encryption_key_is_not_written_to_disk() {
        fn contains(dir: &Path, needles: &[&[u8]]) -> bool {
            std::fs::read_dir(dir).unwrap().map(Result::unwrap).any(|entry| {
                if entry.file_type().unwrap().is_dir() {
                    return contains(&entry.path(), needles);
                }
                let bytes = std::fs::read(entry.path()).unwrap();
                needles.iter().any(|needle| bytes.windows(needle.len()).any(|window| window == *needle))
            })
        }
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let key = KeyPair::from_seed(&[9; 32]).public_key();
            let multi = Multifeed::open(dir.path(), Options::new(key)).await.unwrap();
            let writer = multi.writer(None).await.unwrap();
            writer.append("foo").await.unwrap();
            let other = Multifeed::in_memory(Options::new(key)).await.unwrap();
            sync(&multi, &other).await;
            multi.close().await.unwrap();
            let hex = key.to_string();
            assert!(!contains(dir.path(), &[key.as_bytes(), hex.as_bytes()]));
            assert!(contains(dir.path(), &[writer.key().as_bytes()]), "the search finds what is there");
            let numbered = |entry: &std::fs::DirEntry| entry.file_name().to_str().unwrap().parse::<u32>().is_ok();
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap).filter(numbered).count(), 1);
        });
    }

    #[test]
    fn replicate_two_multifeeds_twice() {
        run(async {
            let (m1, m2) = (memory().await, memory().await);
            setup(&m1, "foo").await;
            setup(&m2, "bar").await;
            for _ in 0..2 {
                let events = sync(&m1, &m2).await;
                assert!(remote_feeds(&events[0]) > 0 && remote_feeds(&events[1]) > 0);
                assert_eq!((m1.feeds().len(), m2.feeds().len()), (2, 2));
            }
            let (mut peer, address) = js(|| JsPeer::listen(&[]));
            for _ in 0..2 {
                assert!(remote_feeds(&sync_js(&m1, &mut peer, address).await) > 0);
                assert_eq!(js(|| peer.feeds()).len(), 2);
            }
        });
    }
}

/// A storage each of whose calls takes this long.
#[derive(Debug)]
struct Slow(MemoryStorage, Duration);

impl Slow {
    fn inner(&mut self) -> &mut MemoryStorage {
        std::thread::sleep(self.1);
        &mut self.0
    }
}

impl Storage for Slow {
    fn list(&mut self) -> io::Result<Vec<Slot>> {
        self.inner().list()
    }
    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.inner().read_at(file, offset, buf)
    }
    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner().write_at(file, offset, data)
    }
    fn len(&mut self, file: FileId) -> io::Result<Option<u64>> {
        self.inner().len(file)
    }
    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()> {
        self.inner().truncate(file, len)
    }
    fn replace(&mut self, file: FileId, data: &[u8]) -> io::Result<()> {
        self.inner().replace(file, data)
    }
    fn sync(&mut self, file: FileId) -> io::Result<()> {
        self.inner().sync(file)
    }
    fn remove(&mut self, slot: Slot) -> io::Result<()> {
        self.inner().remove(slot)
    }
    fn rename(&mut self, from: Slot, to: Slot) -> io::Result<()> {
        self.inner().rename(from, to)
    }
    fn close(&mut self) -> io::Result<()> {
        self.inner().close()
    }
}
