//! A networker over real sockets: dials that come back, hostile peers, and corestore-multifeed's own networker.

use crate::common;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use common::{held, js, run};
use multifeed_proto::{Config, Event, Session, Token};
use multifeed_testkit::js::{JsPeer, TIMEOUT};
use multifeed_tokio::{
    EndReason, FeedKey, Multifeed, Networker, NetworkerEvent, NetworkerEvents, NetworkerOptions, Options, Replicate,
    Role, RootState,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

fn root(n: u8) -> FeedKey {
    FeedKey::new([n; 32])
}

async fn memory(n: u8) -> Multifeed {
    Multifeed::in_memory(Options::new(root(n))).await.unwrap()
}

/// Listens, and gives a networker all that comes.
async fn listen(networker: &Networker) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let networker = networker.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            if networker.is_closed() {
                break;
            }
            // Too many: the socket is dropped.
            drop(networker.connect_from(socket, Role::Responder, "127.0.0.1"));
        }
    });
    address
}

async fn until(events: &mut NetworkerEvents, is_it: impl Fn(&NetworkerEvent) -> bool) -> NetworkerEvent {
    loop {
        let event = events.next().await.expect("the networker is open");
        if is_it(&event) {
            return event;
        }
    }
}

fn fast() -> NetworkerOptions {
    let mut options = NetworkerOptions::default();
    options.backoff.first = Duration::from_millis(20);
    options.backoff.most = Duration::from_millis(50);
    options
}

#[test]
fn a_dial_comes_back_and_a_stop_leaves_nothing() {
    run(async {
        let (ours, theirs) = (Networker::new(fast()).unwrap(), Networker::new(fast()).unwrap());
        let (a, b) = (memory(1).await, memory(1).await);
        ours.join(&a, Replicate::live()).unwrap();
        theirs.join(&b, Replicate::live()).unwrap();
        let (mut here, mut there) = (ours.events(), theirs.events());
        let address = listen(&theirs).await;
        let tries = Arc::new(AtomicUsize::new(0));
        let counted = tries.clone();
        let connector = move || {
            // Nobody listens at first.
            let n = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                if n < 3 {
                    Err(std::io::ErrorKind::ConnectionRefused.into())
                } else {
                    TcpStream::connect(address).await
                }
            }
        };
        let dial = ours.dial(connector).unwrap();
        for _ in 0..3 {
            until(&mut here, |event| matches!(event, NetworkerEvent::Redial { error: Some(_), .. })).await;
        }
        let writer = b.writer("w").await.unwrap();
        for n in 1..=3 {
            writer.append(format!("block {n}")).await.unwrap();
            held(&a, &writer.key().to_string(), n).await;
            // The other side ends it, or the network does; once in sync that is no failure.
            let peer = theirs.peers()[0].connection;
            while ours.status(&root(1)).unwrap().in_sync().count() == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            theirs.disconnect(peer);
            let end = until(&mut here, |event| matches!(event, NetworkerEvent::Disconnected { .. })).await;
            assert!(matches!(end, NetworkerEvent::Disconnected { in_sync: true, reason: None, .. }), "{end:?}");
            let redial = until(&mut here, |event| matches!(event, NetworkerEvent::Redial { .. })).await;
            assert!(
                matches!(redial, NetworkerEvent::Redial { after, .. } if after <= Duration::from_millis(20)),
                "{redial:?}"
            );
            until(&mut here, |event| matches!(event, NetworkerEvent::Ready { .. })).await;
        }
        // A second dial to the same peer waits for the end of what is there.
        let mut options = multifeed_tokio::DialOptions::default();
        options.peer = Some(theirs.public_key());
        let dialled = Arc::new(AtomicUsize::new(0));
        let counted = dialled.clone();
        let second = ours.dial_with(
            move || {
                counted.fetch_add(1, Ordering::Relaxed);
                TcpStream::connect(address)
            },
            options,
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!((dialled.load(Ordering::Relaxed), ours.connections()), (0, 1));
        dial.stop().await;
        until(&mut here, |event| matches!(event, NetworkerEvent::Ready { .. })).await;
        let tried = tries.load(Ordering::Relaxed);
        second.unwrap().stop().await;
        until(&mut there, |event| matches!(event, NetworkerEvent::Disconnected { .. })).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!((tries.load(Ordering::Relaxed), dialled.load(Ordering::Relaxed)), (tried, 1));
        ours.close().await;
        theirs.close().await;
        assert_eq!((ours.connections(), theirs.connections()), (0, 0));
        assert_eq!((ours.queued_bytes(), theirs.queued_bytes()), (0, 0));
        // Each handle is one of the test's own: nothing else holds the multifeeds.
        drop((ours, theirs));
        a.close().await.unwrap();
        b.close().await.unwrap();
    });
}

/// Offers so many root keys on a stream, and reads until the remote ends it.
async fn offer(mut socket: TcpStream, roots: u32) {
    let mut rng = StdRng::seed_from_u64(1);
    let mut session = Session::new(Role::Initiator, Config::plain(), Duration::ZERO, &mut rng);
    let mut out = BytesMut::new();
    loop {
        while let Some(event) = session.poll_event() {
            match event {
                Event::Connected { .. } => {
                    for n in 0..roots {
                        let mut key = [7; 32];
                        key[..4].copy_from_slice(&n.to_le_bytes());
                        session.open_channel(Token(n.into()), FeedKey::new(key)).unwrap();
                    }
                }
                Event::Opened { .. } | Event::Message { .. } => panic!("a stranger learns something: {event:?}"),
                _ => {}
            }
        }
        while session.poll_output(&mut out) {}
        if socket.write_all(&out.split()).await.is_err() {
            return;
        }
        let Some(buf) = session.recv_buf() else { return };
        match socket.read_buf(buf).await {
            Ok(0) | Err(_) => return,
            Ok(_) => drop(session.handle_input(Duration::ZERO)),
        }
    }
}

#[test]
fn hostile_peers_stay_inside_the_limits_and_others_go_on() {
    run(async {
        let mut options = NetworkerOptions::default();
        (options.limits.handshakes, options.limits.handshake_time) = (8, Duration::ZERO);
        options.limits.unshared_time = Duration::from_millis(500);
        let ours = Networker::new(options).unwrap();
        let (a, secret) = (memory(1).await, memory(2).await);
        let writer = a.writer("w").await.unwrap();
        secret.writer("s").await.unwrap().append("a secret").await.unwrap();
        ours.join(&a, Replicate::live()).unwrap();
        ours.join(&secret, Replicate::live()).unwrap();
        let mut here = ours.events();
        let address = listen(&ours).await;
        // One who is honest all the while.
        let honest = Networker::new(NetworkerOptions::default()).unwrap();
        let b = memory(1).await;
        honest.join(&b, Replicate::live()).unwrap();
        honest.dial(move || TcpStream::connect(address)).unwrap();
        until(&mut here, |event| matches!(event, NetworkerEvent::Ready { .. })).await;

        // Connections without a handshake: the oldest give way.
        let mut silent = Vec::new();
        for _ in 0..40 {
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.write_all(&[0, 0]).await.unwrap();
            silent.push(socket);
        }
        until(&mut here, |event| {
            matches!(event, NetworkerEvent::Disconnected { reason: Some(EndReason::GaveWay), peer: None, .. })
        })
        .await;
        assert!(ours.connections() <= 8 + 40 && ours.peers().len() == 1);
        drop(silent);

        // Root keys without end, none of which is known here. Of one who has proven none no more than 512 KiB are taken.
        let stranger = tokio::spawn(offer(TcpStream::connect(address).await.unwrap(), 10_000));
        let end = until(&mut here, |event| matches!(event, NetworkerEvent::Disconnected { peer: Some(_), .. })).await;
        let NetworkerEvent::Disconnected { reason, error, unanswered, .. } = end else { unreachable!() };
        let limit = error.as_ref().map(|error| error.code());
        assert!(reason == Some(EndReason::NothingShared) || limit == Some("ERR_LIMIT"), "{reason:?} {error:?}");
        assert!(unanswered.is_empty());
        stranger.await.unwrap();

        // The honest one heard nothing of all that.
        writer.append("a block").await.unwrap();
        held(&b, &writer.key().to_string(), 1).await;
        assert_eq!(b.feeds().len(), 1);
        honest.close().await;
        ours.close().await;
        assert_eq!((ours.connections(), honest.connections()), (0, 0));
    });
}

/// JS has another root key: that is reported, whichever side connects. JS's multifeed 6 ends the stream, or waits.
#[test]
fn another_root_key_of_js_is_reported() {
    run(async {
        let (ours, theirs) = (root(1), root(2).to_string());
        let networker = Networker::new(fast()).unwrap();
        let mut here = networker.events();
        let multi = memory(1).await;
        multi.writer("ours").await.unwrap().append("a block").await.unwrap();
        networker.join(&multi, Replicate::live()).unwrap();
        assert_eq!(multi.root_key(), ours);
        let is_mismatch = |event: &NetworkerEvent| matches!(event, NetworkerEvent::RootKeyMismatch { .. });
        // JS connects.
        let mut peer = js(|| JsPeer::spawn(&["--key", &theirs, "--live"]));
        js(|| peer.append("theirs", 1, 10, 1));
        let address = listen(&networker).await;
        js(|| peer.connect(address));
        let event = until(&mut here, is_mismatch).await;
        let NetworkerEvent::RootKeyMismatch { dial: None, theirs: them, .. } = event else { panic!("{event:?}") };
        assert_eq!(them, root(2).discovery_key());
        js(|| peer.close());
        // We do, and each new connection says so.
        let (peer, address) = js(|| JsPeer::listen(&["--key", &theirs, "--live"]));
        let dial = networker.dial(move || TcpStream::connect(address)).unwrap();
        for _ in 0..2 {
            let event = until(&mut here, is_mismatch).await;
            let NetworkerEvent::RootKeyMismatch { dial: of, theirs: them, connection, .. } = event else {
                panic!("{event:?}")
            };
            assert_eq!((of, them), (Some(dial.id()), root(2).discovery_key()));
            networker.disconnect(connection);
        }
        assert_eq!(multi.feeds().len(), 1, "a feed came over");
        networker.close().await;
        js(|| peer.close());
    });
}

/// Root keys that join on either side while the stream is open, a peer that breaks the connection, and one root key that JS has alone: JS ends the
/// stream over that, and the shared ones go on after it.
#[test]
fn a_dial_keeps_corestore_multifeeds_networker() {
    run(async {
        let texts = [1, 2, 3].map(|n| root(n).to_string());
        let mut peer = js(|| {
            let keys = ["--key", &texts[0], "--key", &texts[1]];
            JsPeer::spawn(&[&["--corestore", "--networker", "--root-timeout", "1000"], &keys[..]].concat())
        });
        let append = |peer: &mut JsPeer, key: &str, seed: u32| {
            let call = json!({"cmd": "append", "name": "w", "key": key, "count": 5, "size": 100, "seed": seed});
            js(|| peer.call(call))["key"].as_str().unwrap().to_owned()
        };
        let theirs = [append(&mut peer, &texts[0], 1), append(&mut peer, &texts[1], 2)];
        let ours = Networker::new(fast()).unwrap();
        let mut here = ours.events();
        let multis = [memory(1).await, memory(2).await, memory(3).await];
        for multi in &multis {
            multi.writer("ours").await.unwrap().append("a block").await.unwrap();
        }
        // One that both have, and one that JS lacks at first.
        ours.join(&multis[0], Replicate::live()).unwrap();
        ours.join(&multis[2], Replicate::live()).unwrap();
        let reply = js(|| peer.call(json!({"cmd": "listen", "address": "127.0.0.1:0"})));
        let address: SocketAddr = reply["address"].as_str().unwrap().parse().unwrap();
        ours.dial(move || TcpStream::connect(address)).unwrap();
        held(&multis[0], &theirs[0], 5).await;
        js(|| peer.call(json!({"cmd": "join", "key": texts[2]})));
        let third = append(&mut peer, &texts[2], 3);
        held(&multis[2], &third, 5).await;
        // JS waits for the second one, and then ends the stream, over and over. Once what is shared was in sync, the dial comes back at once.
        until(&mut here, |event| matches!(event, NetworkerEvent::Disconnected { in_sync: true, reason: None, .. }))
            .await;
        let redial = until(&mut here, |event| matches!(event, NetworkerEvent::Redial { .. })).await;
        assert!(matches!(redial, NetworkerEvent::Redial { after, .. } if after <= fast().backoff.first), "{redial:?}");
        ours.join(&multis[1], Replicate::live()).unwrap();
        held(&multis[1], &theirs[1], 5).await;
        js(|| peer.wait(6, 18, TIMEOUT));
        assert!(multis.iter().all(|multi| multi.feeds().len() == 2), "no feed of another root key");
        // The network fails.
        js(|| peer.call(json!({"cmd": "destroy", "reset": true})));
        until(&mut here, |event| matches!(event, NetworkerEvent::Redial { .. })).await;
        for multi in &multis {
            multi.writer("ours").await.unwrap().append("another").await.unwrap();
        }
        js(|| peer.wait(6, 21, TIMEOUT));
        ours.close().await;
        js(|| peer.close());
    });
}

/// A root key of JS that we lack makes it end the stream. What it did not answer until then is left out of the next one, until JS opens it. (On a stream that
/// JS's corestore replicates itself it closes what it lacks at once.)
#[test]
fn a_root_key_that_js_does_not_answer_is_left_out_until_js_has_it() {
    run(async {
        let texts = [1, 2, 3].map(|n| root(n).to_string());
        let mut peer = js(|| {
            let keys = ["--key", &texts[0], "--key", &texts[1]];
            JsPeer::spawn(&[&["--corestore", "--root-timeout", "1000"], &keys[..]].concat())
        });
        let append = |peer: &mut JsPeer, key: &str, seed: u32| {
            let call = json!({"cmd": "append", "name": "w", "key": key, "count": 5, "size": 100, "seed": seed});
            js(|| peer.call(call))["key"].as_str().unwrap().to_owned()
        };
        let theirs = append(&mut peer, &texts[0], 1);
        let mut options = fast();
        options.limits.unanswered_time = Duration::from_millis(500);
        let ours = Networker::new(options).unwrap();
        let mut here = ours.events();
        let multis = [memory(1).await, memory(3).await];
        for multi in &multis {
            ours.join(multi, Replicate::live()).unwrap();
        }
        let reply = js(|| peer.call(json!({"cmd": "listen", "address": "127.0.0.1:0"})));
        let address: SocketAddr = reply["address"].as_str().unwrap().parse().unwrap();
        ours.dial(move || TcpStream::connect(address)).unwrap();
        held(&multis[0], &theirs, 5).await;
        let end = until(&mut here, |event| matches!(event, NetworkerEvent::Disconnected { .. })).await;
        let NetworkerEvent::Disconnected { reason: None, unanswered, .. } = end else { panic!("{end:?}") };
        assert_eq!(unanswered, [root(3)]);
        until(&mut here, |event| matches!(event, NetworkerEvent::Ready { .. })).await;
        assert_eq!(ours.peers()[0].roots, [(root(1), RootState::Ready), (root(3), RootState::LeftOut)]);
        js(|| peer.call(json!({"cmd": "join", "key": texts[2]})));
        let third = append(&mut peer, &texts[2], 3);
        held(&multis[1], &third, 5).await;
        ours.close().await;
        js(|| peer.close());
    });
}

#[test]
fn a_networker_relays_between_corestore_multifeed_and_multifeed_6() {
    run(async {
        let key = root(1).to_string();
        let mut corestore = js(|| JsPeer::spawn(&["--corestore", "--networker", "--key", &key]));
        let mut six = js(|| JsPeer::spawn(&["--key", &key, "--live"]));
        let append = |peer: &mut JsPeer, name: &str, seed: u32| {
            let call = json!({"cmd": "append", "name": name, "count": 20, "size": 1000, "seed": seed});
            js(|| peer.call(call))["key"].as_str().unwrap().to_owned()
        };
        let keys = [append(&mut corestore, "a", 1), append(&mut six, "b", 2)];
        let ours = Networker::new(fast()).unwrap();
        let multi = memory(1).await;
        ours.join(&multi, Replicate::live()).unwrap();
        let reply = js(|| corestore.call(json!({"cmd": "listen", "address": "127.0.0.1:0"})));
        let dialled: SocketAddr = reply["address"].as_str().unwrap().parse().unwrap();
        ours.dial(move || TcpStream::connect(dialled)).unwrap();
        let address = listen(&ours).await;
        js(|| six.connect(address));
        for key in &keys {
            held(&multi, key, 20).await;
        }
        js(|| corestore.wait(2, 40, TIMEOUT));
        js(|| six.wait(2, 40, TIMEOUT));
        // And live.
        append(&mut six, "b", 3);
        js(|| corestore.wait(2, 60, TIMEOUT));
        append(&mut corestore, "a", 4);
        js(|| six.wait(2, 80, TIMEOUT));
        ours.close().await;
        js(|| corestore.close());
        js(|| six.close());
    });
}

/// A stream whose writes fail once that is said.
struct Failing(DuplexStream, Arc<AtomicBool>);

impl AsyncRead for Failing {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Failing {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.1.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A process that is killed: writes to it fail first, and the end of what it sent is read afterwards.
#[test]
fn a_stream_that_takes_nothing_more_and_then_ends_is_over() {
    run(async {
        let (ours, theirs) = (Networker::new(fast()).unwrap(), Networker::new(fast()).unwrap());
        let multis = [memory(1).await, memory(2).await, memory(1).await, memory(2).await];
        for (at, multi) in multis.iter().enumerate() {
            [&ours, &theirs][at / 2].join(multi, Replicate::live()).unwrap();
        }
        let mut here = ours.events();
        let (a, b) = tokio::io::duplex(64 * 1024);
        let fails = Arc::new(AtomicBool::new(false));
        ours.connect(Failing(a, fails.clone()), Role::Responder).unwrap();
        let other = tokio::runtime::Runtime::new().unwrap();
        {
            let _inside = other.enter();
            theirs.connect(b, Role::Initiator).unwrap();
        }
        let writer = multis[0].writer("w").await.unwrap();
        writer.append("seen").await.unwrap();
        held(&multis[2], &writer.key().to_string(), 1).await;
        fails.store(true, Ordering::Relaxed);
        writer.append("not seen").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        other.shutdown_background();
        let end = until(&mut here, |event| matches!(event, NetworkerEvent::Disconnected { .. }));
        let end = tokio::time::timeout(Duration::from_secs(4), end).await.unwrap();
        assert!(matches!(end, NetworkerEvent::Disconnected { error: Some(_), in_sync: false, .. }), "{end:?}");
        ours.close().await;
    });
}
