//! The built command against real JS peers (npm multifeed 6.0.0) over loopback: who connects, who writes, live or
//! not, which blocks, what comes late. After each sync the feeds are compared, block for block.

use crate::common;

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::{Facts, Running, Store, TIMEOUT, js_facts};
use multifeed_testkit::blocks::{block, blocks};
use multifeed_testkit::js::{self, JsPeer};
use serde_json::json;

/// Which side connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Initiator {
    Rust,
    Js,
}

use Initiator::{Js, Rust};

/// A writer's blocks: how many, of which size; or of these sizes, one each.
#[derive(Clone, Debug)]
enum Blocks {
    Equal(u32, usize),
    Sizes(Vec<usize>),
}

impl Blocks {
    fn make(&self, seed: u32) -> Vec<Vec<u8>> {
        match self {
            Blocks::Equal(count, size) => blocks(*count, *size, seed),
            Blocks::Sizes(sizes) => (0..).zip(sizes).map(|(index, size)| block(seed, index, *size)).collect(),
        }
    }

    fn count(&self) -> u64 {
        match self {
            Blocks::Equal(count, _) => u64::from(*count),
            Blocks::Sizes(sizes) => sizes.len() as u64,
        }
    }
}

/// One sync of a store of ours with a folder of JS's.
#[derive(Clone, Debug)]
struct Case {
    initiator: Initiator,
    live: bool,
    rust: Vec<Blocks>,
    js: Vec<Blocks>,
    js_options: Vec<&'static str>,
}

impl Case {
    fn new(initiator: Initiator, live: bool, rust: Vec<Blocks>, js: Vec<Blocks>) -> Self {
        Case { initiator, live, rust, js, js_options: Vec::new() }
    }

    fn check(&self) -> Result<()> {
        self.run().with_context(|| format!("{self:?}"))
    }

    fn run(&self) -> Result<()> {
        let (store, js_store) = (Store::new()?, Store::new()?);
        for (seed, blocks) in (1..).zip(&self.rust) {
            store.append(&format!("rust{seed}"), &blocks.make(seed))?;
        }
        let mut options = vec!["--store", js_store.text()];
        options.extend(self.live.then_some("--live"));
        options.extend(&self.js_options);
        let mut js = JsPeer::spawn(&options)?;
        for (seed, blocks) in (100..).zip(&self.js) {
            js_append(&mut js, &format!("js{seed}"), &blocks.make(seed))?;
        }

        let mut ours = connect(self.initiator, self.live, &store, &mut js)?;
        let count = |side: &[Blocks]| side.iter().map(Blocks::count).sum::<u64>();
        let (from_rust, from_js) = (count(&self.rust), count(&self.js));
        if self.live {
            // A live sync has no end of its own.
            js.wait((self.rust.len() + self.js.len()) as u64, from_rust + from_js, TIMEOUT)?;
            match from_js {
                0 => ours.event("remote-feeds")?,
                _ => ours.received(from_js)?,
            };
            ours.in_sync()?;
            ours.signal("INT")?;
        }
        js_ended_cleanly(&mut js)?;
        let events = ours.ended(0)?;
        let closed = events.last().context("no events")?;
        ensure!(closed["event"] == "closed", "the last event is {closed}");
        ensure!(closed["blocks_received"] == from_js && closed["blocks_sent"] == from_rust, "totals: {closed}");

        let theirs = js_facts(&js.feeds()?)?;
        js.close()?;
        equal(&store.checked()?, &theirs)?;
        equal(&js_store.checked()?, &theirs)?;
        ensure!(theirs.len() == self.rust.len() + self.js.len(), "feeds are missing: {theirs:?}");
        ensure!(theirs.iter().all(|feed| feed.downloaded == feed.length), "blocks are missing: {theirs:?}");
        Ok(())
    }
}

/// Appends blocks with JS, in one batch for each few MiB, which is what fits a line.
fn js_append(js: &mut JsPeer, writer: &str, blocks: &[Vec<u8>]) -> Result<()> {
    // Every call makes the writer, even if there is nothing to append.
    js.call(json!({"cmd": "writer", "name": writer}))?;
    let mut rest = blocks;
    while !rest.is_empty() {
        let mut size = 0;
        let fit = rest.iter().take_while(|block| {
            size += block.len();
            size <= 5 << 20
        });
        let (batch, after) = rest.split_at(fit.count().max(1));
        let encoded: Vec<String> = batch.iter().map(|block| STANDARD.encode(block)).collect();
        js.call(json!({"cmd": "append", "name": writer, "blocks": encoded}))?;
        rest = after;
    }
    Ok(())
}

/// Begins a sync of ours with a JS peer, in the given roles; ours is to end by itself after it.
fn connect(initiator: Initiator, live: bool, store: &Store, js: &mut JsPeer) -> Result<Running> {
    let live: &[&str] = if live { &["--live"] } else { &[] };
    match initiator {
        Rust => {
            let reply = js.call(json!({"cmd": "listen", "address": "127.0.0.1:0"}))?;
            let address: SocketAddr = reply["address"].as_str().context("no address")?.parse()?;
            store.sync(address, live)
        }
        Js => {
            let (ours, address) = store.serve(&[live, &["--once"]].concat())?;
            js.connect(address)?;
            Ok(ours)
        }
    }
}

fn js_ended_cleanly(js: &mut JsPeer) -> Result<()> {
    let ended = js.event_within("ended", TIMEOUT)?;
    ensure!(ended["clean"] == true, "not a clean end on JS's side: {}", js.history());
    Ok(())
}

fn equal(one: &[Facts], other: &[Facts]) -> Result<()> {
    ensure!(one == other, "not in sync:\n{one:#?}\n{other:#?}");
    Ok(())
}

/// Every combination of writers on either, both or neither side.
fn writers(initiator: Initiator, live: bool) -> Result<()> {
    let few = || Blocks::Equal(30, 100);
    for (rust, js) in [
        (vec![], vec![]),
        (vec![few()], vec![]),
        (vec![], vec![few()]),
        (vec![few()], vec![few()]),
        (vec![few(), Blocks::Equal(1, 7), Blocks::Equal(0, 0)], vec![Blocks::Equal(33, 64), few()]),
    ] {
        Case::new(initiator, live, rust, js).check()?;
    }
    Ok(())
}

#[test]
fn writers_when_rust_connects() -> Result<()> {
    writers(Rust, false)
}

#[test]
fn writers_when_js_connects() -> Result<()> {
    writers(Js, false)
}

#[test]
fn writers_when_rust_connects_live() -> Result<()> {
    writers(Rust, true)
}

#[test]
fn writers_when_js_connects_live() -> Result<()> {
    writers(Js, true)
}

#[test]
fn blocks_from_nothing_to_4_mib() -> Result<()> {
    let sizes =
        || Blocks::Sizes(vec![0, 1, 2, 63, 64, 65, 127, 128, 1000, 0, 0, 4096, 65_535, 65_536, 1 << 20, 4 << 20, 0, 5]);
    Case::new(Rust, false, vec![sizes()], vec![sizes()]).check()?;
    Case::new(Js, true, vec![sizes()], vec![sizes()]).check()
}

#[test]
fn empty_blocks_alone() -> Result<()> {
    // In memory: on disk JS makes no `data` file for them, and cannot read them.
    for count in [1, 2, 40] {
        let (store, mut js) = (Store::new()?, JsPeer::spawn(&[])?);
        store.append("rust", &Blocks::Equal(count, 0).make(1))?;
        js_append(&mut js, "js", &Blocks::Equal(count, 0).make(2))?;
        let ours = connect(Rust, false, &store, &mut js)?;
        js_ended_cleanly(&mut js)?;
        ours.ended(0)?;
        let theirs = js_facts(&js.feeds()?)?;
        ensure!(theirs.len() == 2 && theirs.iter().all(|feed| feed.downloaded == feed.length), "{theirs:?}");
        equal(&store.checked()?, &theirs)?;
    }
    Ok(())
}

#[test]
fn empty_blocks_go_on_from_a_copy_of_ours() -> Result<()> {
    // JS makes no `data` file for such a copy, and then cannot serve it. Ours makes one, for any program that opens the folder.
    let (store, js_store, third) = (Store::new()?, Store::new()?, Store::new()?);
    let mut js = JsPeer::spawn(&["--store", js_store.text()])?;
    js.append("js", 5, 0, 1)?;
    let ours = connect(Js, false, &store, &mut js)?;
    js_ended_cleanly(&mut js)?;
    ours.ended(0)?;
    js.close()?;
    for folder in [&store, &js_store] {
        // Ours reads and serves either.
        let (server, address) = folder.serve(&["--once"])?;
        third.sync(address, &[])?.ended(0)?;
        server.ended(0)?;
    }
    let (_js, address) = JsPeer::listen(&["--store", store.text()])?;
    let fourth = Store::new()?;
    fourth.sync(address, &[])?.ended(0)?;
    equal(&fourth.checked()?, &third.checked()?)
}

/// If one side is live and the other is not, JS with JS would go on for ever. Ours ends once nothing is left to move.
#[test]
fn one_live_side() -> Result<()> {
    for initiator in [Rust, Js] {
        for ours_is_live in [true, false] {
            one_live(initiator, ours_is_live).with_context(|| format!("{initiator:?}, ours live: {ours_is_live}"))?;
        }
    }
    Ok(())
}

fn one_live(initiator: Initiator, ours_is_live: bool) -> Result<()> {
    let store = Store::new()?;
    store.append("rust", &blocks(40, 10, 1))?;
    let mut js = JsPeer::spawn(if ours_is_live { &[] } else { &["--live"] })?;
    js.append("js", 50, 10, 2)?;
    let ours = connect(initiator, ours_is_live, &store, &mut js)?;
    js_ended_cleanly(&mut js)?;
    ours.ended(0)?;
    // If ours ends it, JS's stream can be gone before its last blocks are stored.
    js.wait(2, 90, TIMEOUT)?;
    let feeds = store.checked()?;
    ensure!(feeds.len() == 2, "{feeds:?}");
    equal(&feeds, &js_facts(&js.feeds()?)?)
}

#[test]
fn feeds_of_thousands_of_blocks() -> Result<()> {
    // Past 8,192 blocks a bitfield takes more than one page.
    for initiator in [Rust, Js] {
        Case::new(initiator, false, vec![Blocks::Equal(3000, 40)], vec![Blocks::Equal(9000, 20)]).check()?;
    }
    Ok(())
}

#[test]
fn lengths_around_the_edges_of_trees_and_bitfields() -> Result<()> {
    let lengths = [1, 2, 3, 7, 8, 9, 31, 32, 33, 255, 256, 257, 1023, 1024, 1025];
    let feeds = || lengths.map(|length| Blocks::Equal(length, 5)).to_vec();
    Case::new(Rust, false, feeds(), feeds()).check()
}

#[test]
fn answers_of_js_that_come_late_and_out_of_order() -> Result<()> {
    for (initiator, seed) in [(Rust, "1"), (Js, "2"), (Rust, "3")] {
        let mut case = Case::new(initiator, false, vec![Blocks::Equal(200, 64)], vec![Blocks::Equal(300, 64)]);
        case.js_options = vec!["--delay-reads", "20", "--reorder", seed];
        case.check()?;
    }
    Ok(())
}

#[test]
fn an_app_with_another_extension() -> Result<()> {
    let mut case = Case::new(Rust, false, vec![Blocks::Equal(3, 3)], vec![Blocks::Equal(3, 3)]);
    case.js_options = vec!["--extension", "peer-id", "--user-data", r#"{"id":"somebody"}"#];
    case.check()
}

#[test]
fn blocks_and_writers_of_js_that_come_late() -> Result<()> {
    for initiator in [Rust, Js] {
        late(initiator).with_context(|| format!("{initiator:?} connects"))?;
    }
    Ok(())
}

fn late(initiator: Initiator) -> Result<()> {
    let store = Store::new()?;
    store.append("rust", &blocks(10, 10, 1))?;
    let mut js = JsPeer::spawn(&["--live"])?;
    js.append("js", 10, 10, 2)?;
    let mut ours = connect(initiator, true, &store, &mut js)?;
    js.wait(2, 20, TIMEOUT)?;
    ours.received(10)?;

    js.append("js", 5, 10, 3)?;
    ours.received(15)?;
    let new = js.append("later", 4, 1000, 4)?;
    let event = ours.wait_for("the later feed", |event| event["event"] == "feed" && event["key"] == *new)?;
    ensure!(common::fields(&event) == ["event", "key", "name", "peer"], "the fields of {event}");
    ours.received(19)?;

    ours.in_sync()?;
    ours.signal("INT")?;
    js_ended_cleanly(&mut js)?;
    ours.ended(0)?;
    equal(&store.checked()?, &js_facts(&js.feeds()?)?)
}

#[test]
fn what_one_js_peer_writes_goes_through_a_live_server_to_another() -> Result<()> {
    let store = Store::new()?;
    let (mut server, address) = store.serve(&["--live"])?;
    let mut one = JsPeer::spawn(&["--live"])?;
    let mut other = JsPeer::spawn(&["--live"])?;
    one.append("one", 3, 10, 1)?;
    one.connect(address)?;
    server.event("connected")?;
    other.connect(address)?;
    server.event("connected")?;
    other.wait(1, 3, TIMEOUT)?;

    // Late blocks, and late writers on both sides, which the two never offered to each other.
    one.append("one", 20, 10, 2)?;
    other.wait(1, 23, TIMEOUT)?;
    other.append("other", 7, 5000, 3)?;
    one.wait(2, 30, TIMEOUT)?;
    one.append("another", 2, 0, 4)?;
    other.wait(3, 32, TIMEOUT)?;

    server.signal("INT")?;
    for peer in [&mut one, &mut other] {
        js_ended_cleanly(peer)?;
    }
    server.ended(0)?;
    let feeds = store.checked()?;
    equal(&feeds, &js_facts(&one.feeds()?)?)?;
    equal(&feeds, &js_facts(&other.feeds()?)?)
}

#[test]
fn a_peer_that_is_not_live_ends_a_live_sync_of_ours() -> Result<()> {
    let store = Store::new()?;
    store.append("rust", &blocks(3, 3, 1))?;
    let mut js = JsPeer::spawn(&[])?;
    let mut ours = connect(Rust, true, &store, &mut js)?;
    js.wait(1, 3, TIMEOUT)?;
    ours.event("connected")?;
    js.call(json!({"cmd": "finish"}))?;
    js_ended_cleanly(&mut js)?;
    ours.ended(0)?;
    Ok(())
}

#[test]
fn syncing_again_moves_only_what_is_new() -> Result<()> {
    for initiator in [Rust, Js] {
        let (store, js_store) = (Store::new()?, Store::new()?);
        for (round, moved) in [10, 5, 0].into_iter().enumerate() {
            let mut js = JsPeer::spawn(&["--store", js_store.text()])?;
            let seed = u32::try_from(round)?;
            store.append("rust", &blocks(moved, 50, seed))?;
            js.append("js", moved, 50, 100 + seed)?;
            let ours = connect(initiator, false, &store, &mut js)?;
            js_ended_cleanly(&mut js)?;
            let events = ours.ended(0)?;
            let closed = events.last().context("no events")?;
            ensure!(closed["blocks_received"] == moved && closed["blocks_sent"] == moved, "round {round}: {closed}");
            js.close()?;
        }
        equal(&store.checked()?, &js_store.checked()?)?;
    }
    Ok(())
}

#[test]
fn the_script_of_the_readme() -> Result<()> {
    let (store, js_store) = (Store::new()?, Store::new()?);
    let key = store.append("rust", &blocks(12, 100, 1))?;
    js::make(js_store.path(), &json!({"writers": [{"name": "js", "append": [{"count": 5, "size": 20}]}]}))?;
    let (server, address) = store.serve(&["--once"])?;
    let printed = js::example(address, js_store.path())?;
    server.ended(0)?;

    let feeds = store.checked()?;
    equal(&feeds, &js_store.checked()?)?;
    let mut expected: Vec<String> = feeds.iter().map(|feed| format!("{} {}", feed.key, feed.length)).collect();
    let mut printed = printed;
    printed.sort();
    expected.sort();
    ensure!(printed == expected && printed.contains(&format!("{key} 12")), "{printed:?}");
    Ok(())
}

#[test]
fn a_root_key_of_their_own() -> Result<()> {
    let key = "5a".repeat(32);
    let store = Store::new()?;
    store.append("rust", &blocks(3, 3, 1))?;
    let (server, address) = store.serve(&["--once", "--key", &key])?;
    let mut js = JsPeer::spawn(&["--key", &key])?;
    js.connect(address)?;
    js.wait(1, 3, TIMEOUT)?;
    js_ended_cleanly(&mut js)?;
    server.ended(0)?;

    // The same key by the other two ways.
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), format!("{}\n", key.to_uppercase()))?;
    let (server, address) = store.serve(&["--once", "--key-file", file.path().to_str().context("not UTF-8")?])?;
    let other = Store::new()?;
    let address = address.to_string();
    let sync = [&other.option()[..], &["sync", &address]].concat();
    let output = common::command(&sync).env("MULTIFEED_KEY", &key).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    server.ended(0)?;
    equal(&store.facts()?, &other.facts()?)?;
    for entry in std::fs::read_dir(store.path())? {
        let path = entry?.path();
        let files = if path.is_dir() {
            std::fs::read_dir(&path)?.map(|f| f.map(|f| f.path())).collect()
        } else {
            Ok(vec![path])
        };
        for file in files? {
            let bytes = std::fs::read(&file)?;
            ensure!(!bytes.windows(32).any(|window| window == [0x5a; 32]), "the root key is in {}", file.display());
        }
    }
    Ok(())
}

/// corestore-multifeed speaks on another channel, never says that it is live, and always is.
#[test]
fn corestore_multifeed_in_both_roles() -> Result<()> {
    for initiator in [Rust, Js] {
        for live in [false, true] {
            // With nothing on one side it closes its lists' channel as soon as it gets an empty one.
            for (from_rust, from_js) in [(30, 20), (0, 20), (30, 0)] {
                corestore(initiator, live, from_rust, from_js)
                    .with_context(|| format!("{initiator:?}, live: {live}, {from_rust} and {from_js} blocks"))?;
            }
        }
    }
    Ok(())
}

fn corestore(initiator: Initiator, live: bool, from_rust: u64, from_js: u64) -> Result<()> {
    let store = Store::new()?;
    if from_rust > 0 {
        store.append("rust", &blocks(from_rust as u32, 1000, 1))?;
    }
    let mut js = JsPeer::spawn(&["--corestore"])?;
    if from_js > 0 {
        js.append("js", from_js as u32, 100, 2)?;
    }
    let mut ours = connect(initiator, live, &store, &mut js)?;
    if live {
        js.wait(u64::from(from_rust > 0) + u64::from(from_js > 0), from_rust + from_js, TIMEOUT)?;
        if from_js > 0 {
            ours.received(from_js)?;
        }
        ours.in_sync()?;
        ours.signal("INT")?;
    }
    js_ended_cleanly(&mut js)?;
    let events = ours.ended(0)?;
    let closed = events.last().context("no events")?;
    ensure!(closed["blocks_received"] == from_js && closed["blocks_sent"] == from_rust, "totals: {closed}");
    let theirs = js_facts(&js.feeds()?)?;
    js.close()?;
    equal(&store.checked()?, &theirs)?;
    ensure!(theirs.iter().map(|feed| feed.downloaded).sum::<u64>() == from_rust + from_js, "blocks: {theirs:?}");
    Ok(())
}
