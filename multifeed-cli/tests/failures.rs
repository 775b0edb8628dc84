//! Syncs that cannot work, or that are cut: which error says so on which side, and what is on disk afterwards.

use crate::common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use anyhow::{Context, Result, ensure};
use common::{Running, Store, TIMEOUT, block_on, failure_of, js_facts, run};
use multifeed_testkit::blocks::blocks;
use multifeed_testkit::js::JsPeer;
use multifeed_tokio::{FeedKey, Multifeed, Options, Replicate, Role};
use serde_json::{Value, json};
use tokio::net::TcpListener as AsyncListener;
use tokio::net::TcpStream as AsyncStream;

/// The root key's discovery keys, as `us` and `them` give them if root keys differ.
fn discovery_key(root_key: &str) -> Result<String> {
    Ok(root_key.parse::<FeedKey>()?.discovery_key().to_string())
}

#[test]
fn a_js_peer_of_another_version_client_or_root_key() -> Result<()> {
    let (one, two) = ("11".repeat(32), "22".repeat(32));
    let (us, them) = (discovery_key(&one)?, discovery_key(&two)?);
    let version: &[&str] = &["--version", "5.1.0", "--key", &one];
    let old: &[&str] = &["--version", "3.9.9", "--key", &one];
    let client: &[&str] = &["--client", "CABAL", "--key", &one];
    let key: &[&str] = &["--key", &two];
    for (options, code, us, them) in [
        (version, "ERR_VERSION_MISMATCH", "4.0.0", "5.1.0"),
        (old, "ERR_VERSION_MISMATCH", "4.0.0", "3.9.9"),
        (client, "ERR_CLIENT_MISMATCH", "MULTIFEED", "CABAL"),
        (key, "ERR_ROOT_KEY_MISMATCH", &us, &them),
    ] {
        for rust_connects in [true, false] {
            let store = Store::new()?;
            store.append("rust", &blocks(2, 2, 1))?;
            let error = if rust_connects {
                let (_js, address) = JsPeer::listen(options)?;
                store.sync(address, &["--key", &one])?.failed()?
            } else {
                let (ours, address) = store.serve(&["--once", "--key", &one])?;
                let mut js = JsPeer::spawn(options)?;
                js.connect(address)?;
                if code == "ERR_ROOT_KEY_MISMATCH" {
                    // It is no peer of ours, and the server waits for one.
                    reported(ours)?
                } else {
                    ours.failed()?
                }
            };
            ensure!(
                error["code"] == code && error["us"] == us && error["them"] == them,
                "{options:?}, Rust connects: {rust_connects}: {error}"
            );
            ensure!(store.facts()?.len() == 1, "{options:?}: a feed came over");
        }
    }
    Ok(())
}

#[test]
fn a_minor_version_is_no_mismatch() -> Result<()> {
    let store = Store::new()?;
    let (mut js, address) = JsPeer::listen(&["--version", "4.9.1"])?;
    js.append("js", 3, 3, 1)?;
    store.sync(address, &[])?.ended(0)?;
    ensure!(store.facts()?.iter().map(|feed| feed.downloaded).sum::<u64>() == 3, "nothing came");
    Ok(())
}

#[test]
fn js_tells_what_it_finds_wrong_with_us() -> Result<()> {
    for rust_connects in [true, false] {
        for (change, code) in [
            (Change::Version("3.0.0"), Some("ERR_VERSION_MISMATCH")),
            (Change::Client("OTHER"), Some("ERR_CLIENT_MISMATCH")),
            (Change::RootKey, None),
        ] {
            let error = js_error(&change, rust_connects).with_context(|| format!("{change:?}, {rust_connects}"))?;
            let (us, them) = match change {
                Change::Version(theirs) => ("4.0.0", theirs),
                Change::Client(theirs) => ("MULTIFEED", theirs),
                // JS has neither a code nor values for it.
                Change::RootKey => {
                    ensure!(error["message"] == "Exchange key did not match remote", "{error}");
                    continue;
                }
            };
            ensure!(error["code"] == json!(code) && error["us"] == us && error["them"] == them, "{error}");
        }
    }
    Ok(())
}

#[derive(Debug)]
enum Change {
    Version(&'static str),
    Client(&'static str),
    RootKey,
}

/// What JS reports after a session with a peer of ours that is changed so.
fn js_error(change: &Change, rust_connects: bool) -> Result<Value> {
    let mut options = match change {
        Change::RootKey => Options::new(FeedKey::new([7; 32])),
        _ => Options::default(),
    };
    match change {
        Change::Version(version) => options.session.root.as_mut().unwrap().version = (*version).to_owned(),
        Change::Client(client) => options.session.root.as_mut().unwrap().client = (*client).to_owned(),
        Change::RootKey => {}
    }
    let (mut js, address) = JsPeer::listen(&[])?;
    let (listener, ours) = block_on(async {
        let listener = AsyncListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        Ok((listener.into_std()?, address))
    })?;
    if !rust_connects {
        js.connect(ours)?;
    }
    block_on(async move {
        let multi = Multifeed::in_memory(options).await?;
        let sync = if rust_connects {
            multi.replicate(AsyncStream::connect(address).await?, Role::Initiator, Replicate::default())
        } else {
            let listener = AsyncListener::from_std(listener)?;
            multi.replicate(listener.accept().await?.0, Role::Responder, Replicate::default())
        };
        ensure!(sync.finish().await.is_err(), "it worked");
        multi.close().await?;
        Ok(())
    })?;
    js.event("error")
}

#[test]
fn what_is_no_multifeed() -> Result<()> {
    // A first message whose length is that of Noise's, and whose key is of low order; one that is no handshake at
    // all; one that is cut; nothing.
    let zeros = [&[58][..], &[0; 32], &[0x0a, 0x18], &[1; 24]].concat();
    for (bytes, code) in [
        (
            &b"GET /index.html HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nUser-Agent: somebody's browser\r\n\r\n"[..],
            "ERR_HANDSHAKE",
        ),
        (&[0xff; 400], "ERR_HANDSHAKE"),
        (&zeros, "ERR_HANDSHAKE"),
        (&[58, 1, 2, 3], "ERR_DISCONNECTED"),
        (&[], "ERR_DISCONNECTED"),
    ] {
        let store = Store::new()?;
        let (ours, address) = store.serve(&["--once"])?;
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(bytes)?;
        if code == "ERR_DISCONNECTED" {
            stream.shutdown(std::net::Shutdown::Write)?;
        } // Else it stays: of one that leaves before it is let in, nothing is read.
        let error = reported(ours)?;
        ensure!(error["code"] == code, "serve, {bytes:?}: {error}");

        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let ours = store.sync(address, &[])?;
        let (mut stream, _) = listener.accept()?;
        // The initiator speaks first; what comes back should be an answer, and is not.
        stream.write_all(bytes)?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let error = ours.failed()?;
        ensure!(error["code"] == code, "sync, {bytes:?}: {error}");
    }
    Ok(())
}

/// The failure of a connection that `serve --once` reports; it then waits for a peer until a signal ends it.
fn reported(mut server: Running) -> Result<Value> {
    let error = server.event("peer-error")?;
    server.signal("INT")?;
    let events = server.ended(0)?;
    ensure!(events.iter().filter(|event| event["event"] == "peer-error").count() == 1, "{events:?}");
    Ok(error)
}

#[test]
fn a_peer_that_says_nothing() -> Result<()> {
    let store = Store::new()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let ours = store.sync(listener.local_addr()?, &[])?;
    let (mut stream, _) = listener.accept()?;
    let error = ours.failed()?;
    ensure!(error["code"] == "ERR_TIMEOUT", "{error}");
    stream.read_to_end(&mut Vec::new())?;
    Ok(())
}

#[test]
fn nobody_listens() -> Result<()> {
    let store = Store::new()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    drop(listener);
    let (code, message) = store.run(&["--json", "sync", &address])?.failure()?;
    ensure!(code == "ERR_CONNECT" && message.contains(&address), "{code}: {message}");
    let done = store.run(&["sync", &address])?.ended(1)?;
    ensure!(done.stderr.contains(&format!("cannot connect to {address}")), "{done:?}");

    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let (code, message) = store.run(&["--json", "serve", &address])?.failure()?;
    ensure!(code == "ERR_LISTEN" && message.contains(&address), "{code}: {message}");
    Ok(())
}

#[test]
fn one_peers_fault_does_not_end_the_server() -> Result<()> {
    let store = Store::new()?;
    store.append("rust", &blocks(5, 5, 1))?;
    let (mut server, address) = store.serve(&["--live"])?;
    let mut waiting = JsPeer::spawn(&["--live"])?;
    waiting.connect(address)?;
    waiting.wait(1, 5, TIMEOUT)?;

    let mut garbage = TcpStream::connect(address)?;
    garbage.write_all(&[0xff; 400])?;
    let error = server.event("peer-error")?;
    ensure!(failure_of(&error)?.0 == "ERR_HANDSHAKE", "{error}");
    let mut wrong = JsPeer::spawn(&["--key", &"33".repeat(32)])?;
    wrong.connect(address)?;
    let error = server.event("peer-error")?;
    ensure!(failure_of(&error)?.0 == "ERR_ROOT_KEY_MISMATCH", "{error}");

    // The one that was there still is, and another can come.
    waiting.append("js", 5, 5, 2)?;
    server.received(5)?;
    let mut js = JsPeer::spawn(&[])?;
    js.connect(address)?;
    js.wait(2, 10, TIMEOUT)?;
    ensure!(js.event("ended")?["clean"] == true, "{}", js.history());
    server.signal("TERM")?;
    server.ended(0)?;
    ensure!(store.checked()?.len() == 2, "a feed is missing");
    Ok(())
}

/// Blocks that take long enough to be cut in the middle of.
const MANY: u32 = 1500;
const SIZE: usize = 20_000;

// In these three JS only writes. What it was downloading when a stream was cut it may never complete, not from another
// JS peer either, whether it was killed or not: JS with JS then ends such a sync cleanly, with nothing moved.

#[test]
fn a_js_peer_that_is_killed_and_comes_back() -> Result<()> {
    let (store, js_store) = (Store::new()?, Store::new()?);
    let mut js = JsPeer::spawn(&["--store", js_store.text()])?;
    js.append("js", MANY, SIZE, 1)?;
    let (mut server, address) = store.serve(&[])?;
    js.connect(address)?;
    server.received(50)?;
    js.kill()?;
    let error = server.event("peer-error")?;
    ensure!(["ERR_DISCONNECTED", "ERR_NETWORK"].contains(&failure_of(&error)?.0.as_str()), "{error}");

    let mut js = JsPeer::spawn(&["--store", js_store.text()])?;
    js.connect(address)?;
    ensure!(js.event_within("ended", TIMEOUT)?["clean"] == true, "{}", js.history());
    let closed = server.event("closed")?;
    ensure!(closed["blocks_received"].as_u64().is_some_and(|blocks| blocks <= u64::from(MANY) - 50), "{closed}");
    server.signal("INT")?;
    server.ended(0)?;
    let theirs = js_facts(&js.feeds()?)?;
    js.close()?;
    ensure!(store.checked()? == theirs && theirs.len() == 1, "{theirs:?} after {closed}");
    Ok(())
}

#[test]
fn a_js_peer_that_is_cut_off_and_connects_again() -> Result<()> {
    for reset in [false, true] {
        let store = Store::new()?;
        let mut js = JsPeer::spawn(&[])?;
        js.append("js", MANY, SIZE, 1)?;
        let (mut server, address) = store.serve(&[])?;
        js.connect(address)?;
        server.received(50)?;
        js.call(json!({"cmd": "destroy", "reset": reset}))?;
        let error = server.event("peer-error")?;
        ensure!(["ERR_DISCONNECTED", "ERR_NETWORK"].contains(&failure_of(&error)?.0.as_str()), "{error}");
        js.event("ended")?;

        js.connect(address)?;
        ensure!(js.event_within("ended", TIMEOUT)?["clean"] == true, "{}", js.history());
        server.event("closed")?;
        server.signal("INT")?;
        server.ended(0)?;
        let theirs = js_facts(&js.feeds()?)?;
        ensure!(store.checked()? == theirs && theirs.len() == 1, "reset {reset}: {theirs:?}");
    }
    Ok(())
}

#[test]
fn our_process_is_killed_and_comes_back() -> Result<()> {
    let store = Store::new()?;
    let (mut js, address) = JsPeer::listen(&[])?;
    js.append("js", MANY, SIZE, 1)?;
    let mut ours = store.sync(address, &[])?;
    ours.received(50)?;
    ours.kill()?;
    store.run(&["verify"])?.ok()?;
    let before = store.facts()?;
    ensure!(before.len() == 1, "{before:?}");

    store.sync(address, &[])?.ended(0)?;
    let after = store.checked()?;
    ensure!(after == js_facts(&js.feeds()?)?, "{before:?}\n{after:?}");
    Ok(())
}

#[test]
fn two_rust_processes_one_of_which_is_killed() -> Result<()> {
    let (one, other) = (Store::new()?, Store::new()?);
    one.append("one", &blocks(MANY, SIZE, 1))?;
    other.append("other", &blocks(MANY, SIZE, 2))?;
    let (mut server, address) = one.serve(&[])?;
    for _ in 0..3 {
        let mut client = other.sync(address, &[])?;
        // On a fast machine one turn may bring it all; the next one then has nothing to receive.
        let moves = |event: &Value| event["event"] == "closed" || event["blocks_received"].as_u64() > Some(0);
        client.wait_for("blocks, or its end", moves)?;
        client.kill()?;
        server.wait_for("its end", |event| event["event"] == "peer-error" || event["event"] == "closed")?;
    }
    other.run(&["verify"])?.ok()?;
    other.sync(address, &[])?.ended(0)?;
    server.signal("INT")?;
    server.ended(0)?;
    let feeds = one.checked()?;
    ensure!(feeds == other.checked()? && feeds.iter().all(|feed| feed.downloaded == u64::from(MANY)), "{feeds:?}");
    Ok(())
}

#[test]
fn a_signal_in_the_middle_loses_nothing_that_was_received() -> Result<()> {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let store = Store::new()?;
        let (mut js, address) = JsPeer::listen(&["--delay-reads", "5"])?;
        js.append("js", MANY, 1000, 1)?;
        let mut ours = store.sync(address, &[])?;
        let progress = ours.received(20)?;
        ours.signal(signal)?;
        let events = ours.ended(code)?;
        let (last, closed) = (events.last().context("none")?, events.iter().find(|event| event["event"] == "closed"));
        ensure!(failure_of(last)?.0 == "ERR_INTERRUPTED", "{last}");
        ensure!(closed.is_none_or(|closed| closed["in_sync"] == false), "{closed:?}");
        let held: u64 = store.checked()?.iter().map(|feed| feed.downloaded).sum();
        let said = closed.unwrap_or(&progress)["blocks_received"].as_u64().context("no number")?;
        ensure!(held >= said && held < u64::from(MANY), "{signal}: {held} blocks held, {said} received");
        // It goes on from there.
        store.sync(address, &[])?.ended(0)?;
        ensure!(store.checked()? == js_facts(&js.feeds()?)?, "{signal}: not in sync");
    }
    Ok(())
}

#[test]
fn a_signal_while_connecting_listening_or_reading() -> Result<()> {
    let store = Store::new()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let ours = store.sync(listener.local_addr()?, &["--live"])?;
    // Its first message is here: it is in the middle of the handshake.
    let (mut stream, _) = listener.accept()?;
    stream.read_exact(&mut [0])?;
    ours.signal("INT")?;
    // The two were not in sync.
    let events = ours.ended(130)?;
    ensure!(events.last().is_some_and(|event| event["code"] == "ERR_INTERRUPTED"), "{events:?}");

    let (server, _) = store.serve(&["--once"])?;
    server.signal("INT")?;
    server.ended(0)?;

    let mut append =
        common::Running::start_with_input(&[&store.option()[..], &["--json", "append", "w", "-"]].concat())?;
    let mut stdin = append.take_input().context("no stdin")?;
    // A batch is appended, and the next one is waited for.
    let mut line = vec![b'a'; 1 << 20];
    line.push(b'\n');
    for _ in 0..17 {
        stdin.write_all(&line)?;
    }
    append.until(|| store.path().join("0/key").exists())?;
    append.signal("INT")?;
    let events = append.ended(130)?;
    ensure!(events.last().is_some_and(|event| event["code"] == "ERR_INTERRUPTED"), "{events:?}");
    drop(stdin);
    Ok(())
}

#[test]
fn two_rust_processes() -> Result<()> {
    for live in [false, true] {
        let (one, other) = (Store::new()?, Store::new()?);
        one.append("one", &blocks(300, 100, 1))?;
        one.append("empty", &blocks(0, 0, 0))?;
        other.append("other", &blocks(200, 5000, 2))?;
        let live: &[&str] = if live { &["--live"] } else { &[] };
        let (mut server, address) = one.serve(&[&["--once"], live].concat())?;
        let mut client = other.sync(address, live)?;
        client.received(300)?;
        server.received(200)?;
        if !live.is_empty() {
            client.in_sync()?;
            client.signal("INT")?;
        }
        client.ended(0)?;
        server.ended(0)?;
        let (mut feeds, theirs) = (one.checked()?, other.checked()?);
        // One without a block is only offered, and takes no folder there.
        feeds.retain(|feed| feed.length > 0);
        ensure!(feeds.len() == 2 && feeds == theirs, "live {live:?}: {feeds:?}, there {theirs:?}");
    }
    Ok(())
}

#[test]
fn events_of_a_sync_have_their_fields() -> Result<()> {
    let (one, other) = (Store::new()?, Store::new()?);
    let key = one.append("one", &blocks(3, 7, 1))?;
    let (server, address) = one.serve(&["--once"])?;
    let events = other.sync(address, &[])?.ended(0)?;
    let served = server.ended(0)?;
    let find = |events: &[Value], name: &str| -> Result<Value> {
        let found = events.iter().find(|event| event["event"] == name).cloned();
        let mut event = found.with_context(|| format!("no {name} in {events:?}"))?;
        if name != "listening" {
            let peer = event.as_object_mut().and_then(|event| event.remove("peer")).context("no peer")?;
            ensure!(peer["address"] == address.to_string() && peer["id"].is_string(), "{peer}");
        }
        Ok(event)
    };
    assert_eq!(find(&served, "listening")?, json!({"event": "listening", "address": address.to_string()}));
    assert_eq!(find(&events, "connected")?, json!({"event": "connected"}));
    assert_eq!(find(&events, "feed")?, json!({"event": "feed", "key": key, "name": "0"}));
    assert_eq!(find(&events, "remote-feeds")?, json!({"event": "remote-feeds", "feeds": [key]}));
    assert_eq!(
        find(&events, "closed")?,
        json!({
            "event": "closed", "feeds": 1, "blocks_received": 3, "bytes_received": 21, "blocks_sent": 0, "bytes_sent": 0,
            "missing": 0, "in_step": 0, "not_taken": 0, "unwanted": 0, "unfetched": 0, "in_sync": true, "holes": []
        })
    );
    let progress = find(&events, "progress")?;
    assert_eq!(
        common::fields(&progress),
        [
            "blocks_received",
            "blocks_sent",
            "bytes_missing",
            "bytes_missing_there",
            "bytes_received",
            "bytes_sent",
            "event",
            "feeds",
            "in_flight",
            "in_sync",
            "missing",
            "missing_there",
            "not_taken",
            "per_second",
            "requested"
        ]
    );
    ensure!(events.last().is_some_and(|event| event["event"] == "closed"), "{events:?}");
    Ok(())
}

#[test]
fn people_get_lines() -> Result<()> {
    let (one, other) = (Store::new()?, Store::new()?);
    let key = one.append("one", &blocks(3, 7, 1))?;
    let (server, address) = one.serve(&["--once"])?;
    let done = other.run(&["sync", &address.to_string()])?.ok()?;
    server.ended(0)?;
    let text = done.text();
    for words in ["connected", &key, "3 blocks (21 B) received", "nothing sent"] {
        ensure!(text.contains(words), "{words} is not in {text}");
    }
    ensure!(text.contains("in sync: 1 feed, "), "{text}");
    ensure!(done.stderr.is_empty(), "a bar where there is no terminal: {}", done.stderr);

    let (server, address) = one.serve(&["--once"])?;
    let again = other.run(&["sync", &address.to_string()])?.ok()?.text();
    ensure!(again.contains("in sync: 1 feed (all alike from the start), nothing received, nothing sent"), "{again}");
    let served = server.ended(0)?;
    let closed = served.last().context("none")?;
    ensure!(closed["in_step"] == 1 && closed["in_sync"] == true, "{closed}");
    Ok(())
}

#[test]
fn a_hole_that_nobody_can_fill_is_told_of() -> Result<()> {
    let (one, other) = (Store::new()?, Store::new()?);
    let spec = json!({"copies": [{"append": [{"count": 9, "size": 4, "seed": 9}], "have": [[0, 2], [5, 9]]}]});
    let key = multifeed_testkit::js::make(one.path(), &spec)?[0].key.clone();
    let (server, address) = one.serve(&["--once"])?;
    let events = other.sync(address, &[])?.ended(0)?;
    server.ended(0)?;
    let closed = events.last().context("none")?;
    let holes = json!([{"key": key, "blocks": 3, "ranges": [[2, 5]], "unlisted": 0}]);
    ensure!(closed["missing"] == 3 && closed["holes"] == holes, "{closed}");
    ensure!(closed["blocks_received"] == 6 && closed["in_sync"] == true, "{closed}");
    ensure!(one.checked()? == other.checked()?, "not in sync");

    let (server, address) = one.serve(&["--once"])?;
    let done = other.run(&["sync", &address.to_string()])?.ok()?;
    server.ended(0)?;
    let words = format!("3 missing blocks of feed {key}: 2..5");
    ensure!(done.text().contains(&words), "{words} is not in {}", done.text());
    Ok(())
}

#[test]
fn many_peers_at_once() -> Result<()> {
    let store = Store::new()?;
    store.append("rust", &blocks(100, 1000, 1))?;
    let (server, address) = store.serve(&[])?;
    let others: Result<Vec<Store>> = (0..8).map(|_| Store::new()).collect();
    let others = others?;
    for (seed, other) in (2..).zip(&others) {
        other.append("own", &blocks(20, 100, seed))?;
    }
    let ends: Vec<Vec<Value>> = thread::scope(|scope| {
        // One that is through may hear at its end of what came to the server meanwhile: it says then that it ended early.
        let sync = |other: &'_ Store| other.sync(address, &[])?.ended_with_one_of(&[0, 1]);
        let syncs: Vec<_> = others.iter().map(|other| scope.spawn(move || sync(other))).collect();
        let ends = syncs.into_iter().map(|sync| sync.join().map_err(|_| anyhow::anyhow!("a panic"))?);
        ends.collect::<Result<_>>()
    })?;
    for end in ends {
        let early = end.last().filter(|last| last["event"] == "error").map(|last| &last["code"]);
        ensure!(early.is_none_or(|code| code == "ERR_ENDED_EARLY"), "{end:?}");
    }
    // Once more, for what came to the server after a peer had gone.
    for other in &others {
        other.sync(address, &[])?.ended(0)?;
    }
    server.signal("INT")?;
    server.ended(0)?;
    let feeds = store.facts()?;
    ensure!(feeds.len() == 9, "{feeds:?}");
    for other in &others {
        ensure!(other.facts()? == feeds, "not in sync");
    }
    Ok(())
}

#[test]
fn the_log_goes_to_stderr() -> Result<()> {
    let (one, other) = (Store::new()?, Store::new()?);
    one.append("one", &blocks(1, 1, 1))?;
    let (server, address) = one.serve(&["--once"])?;
    let output = common::command(&[&other.option()[..], &["--json", "sync", &address.to_string()]].concat())
        .env("RUST_LOG", "debug")
        .output()?;
    server.ended(0)?;
    ensure!(output.status.success() && !output.stderr.is_empty(), "{output:?}");
    for line in String::from_utf8(output.stdout)?.lines() {
        serde_json::from_str::<Value>(line).with_context(|| line.to_owned())?;
    }
    drop(run(&["--version"], b"")?.ok()?);
    Ok(())
}

/// A file that may not grow any more is an error like a full disk: SIGXFSZ ends nobody.
#[cfg(unix)]
#[test]
fn a_limit_on_the_size_of_files_is_told() -> Result<()> {
    let store = Store::new()?;
    store.append("w", &blocks(3, 100, 1))?;
    let kept = store.facts()?;
    let block = tempfile::NamedTempFile::new()?;
    std::fs::write(block.path(), vec![7; 3 << 20])?;
    // Of 512 or 1,024 bytes each, as the shell counts.
    let script = "ulimit -f 512; exec \"$0\" \"$@\"";
    let done = std::process::Command::new("sh")
        .args([
            "-c",
            script,
            env!("CARGO_BIN_EXE_multifeed"),
            "--json",
            "--store",
            store.text(),
            "append",
            "w",
            "--file",
        ])
        .arg(block.path())
        .output()?;
    let text = String::from_utf8(done.stdout)?;
    ensure!(done.status.code() == Some(1), "{:?}: {text}{}", done.status, String::from_utf8_lossy(&done.stderr));
    let told: Value = serde_json::from_str(text.lines().last().context("nothing was told")?)?;
    let (code, message) = failure_of(&told)?;
    ensure!(code == "ERR_STORE_IO" && message.contains("data") && message.contains("too large"), "{code}: {message}");
    // What was there is there, and goes on without the limit.
    assert_eq!(store.checked()?, kept);
    store.append("w", &blocks(1, 100, 2))?;
    assert_eq!(store.checked()?[0].length, 4);
    Ok(())
}

#[test]
fn every_event_of_a_server_names_the_peer_that_it_is_about() -> Result<()> {
    let store = Store::new()?;
    store.append("w", &blocks(2, 100, 1))?;
    let (mut server, address) = store.serve(&["--live"])?;
    let others = [Store::new()?, Store::new()?];
    let mut peers = Vec::new();
    for other in &others {
        let mut peer = other.sync(address, &["--live"])?;
        peer.wait_for("in sync", |event| event["event"] == "progress" && event["in_sync"] == true)?;
        peers.push(peer);
    }
    // One that is no multifeed.
    std::io::Write::write_all(&mut std::net::TcpStream::connect(address)?, b"GET / HTTP/1.1\r\n\r\n")?;
    server.event("peer-error")?;
    for peer in peers {
        peer.signal("INT")?;
        for event in peer.ended(0)? {
            ensure!(event["peer"]["address"] == address.to_string(), "{event}");
        }
        server.event("closed")?;
    }
    server.signal("INT")?;
    let events = server.ended(0)?;
    let mut connections = std::collections::BTreeMap::<_, Vec<_>>::new();
    for event in &events[1..] {
        let peer = event["peer"]["address"].as_str().with_context(|| format!("of whom: {event}"))?;
        connections.entry(peer).or_default().push(event);
    }
    ensure!(connections.len() == 3, "{connections:#?}");
    let mut ids = std::collections::BTreeSet::new();
    for events in connections.values().filter(|events| events.len() > 1) {
        let id = events[0]["peer"]["id"].as_str().context("the static key")?;
        ensure!(id.len() == 64 && ids.insert(id), "{events:?}");
        ensure!(events.iter().all(|event| event["peer"]["id"] == id), "{events:?}");
        let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap_or_default()).collect();
        ensure!(names[0] == "connected" && names.last() == Some(&"closed"), "{names:?}");
    }
    ensure!(ids.len() == 2);
    Ok(())
}

/// `--timeout` is for the handshake too: one that waits for less ends while another one still waits.
#[test]
fn a_handshake_that_is_not_answered_is_bounded() -> Result<()> {
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = silent.local_addr()?;
    let (patient, other) = (Store::new()?, Store::new()?);
    let waiting = patient.sync(address, &[])?;
    let first = silent.accept()?;
    let error = other.sync(address, &["--timeout", "1"])?.failed()?;
    assert_eq!(failure_of(&error)?.0, "ERR_TIMEOUT");
    waiting.signal("INT")?;
    waiting.ended(130)?;
    drop(first);
    Ok(())
}
