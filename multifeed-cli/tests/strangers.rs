//! `serve` among strangers, and among peers that take what they can: what they cost, and whether others get in.

mod common;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use common::{Store, TIMEOUT, block_on};
use multifeed_testkit::blocks::blocks;
use multifeed_testkit::js::JsPeer;
use multifeed_testkit::strangers::{Hoarder, resident};
use multifeed_tokio::{DEFAULT_ROOT_KEY, Multifeed, Options, Replicate, Role};

const MIB: usize = 1024 * 1024;
const LARGE: usize = 8 * MIB - 100;

/// As many connections as asked for.
fn hoarders(address: SocketAddr, count: usize, with_key: bool, size: usize) -> Result<Vec<Hoarder>> {
    (0..count).map(|_| Hoarder::connect(address, with_key.then_some(DEFAULT_ROOT_KEY), size, 1)).collect()
}

fn alive(hoarders: &mut [Hoarder]) -> usize {
    hoarders.iter_mut().filter_map(|hoarder| hoarder.is_alive().then_some(())).count()
}

/// A peer with a block of its own syncs, and what that took.
fn honest_sync(address: SocketAddr, size: usize) -> Result<Duration> {
    let store = Store::new()?;
    store.append("honest", &blocks(1, size, 9))?;
    let start = Instant::now();
    store.sync(address, &[])?.ended(0)?;
    Ok(start.elapsed())
}

#[test]
fn strangers_cost_little_and_keep_nobody_out() -> Result<()> {
    let store = Store::new()?;
    store.append("rust", &blocks(3, 100, 1))?;
    let (server, address) = store.serve(&["--live"])?;
    let before = resident(server.id())?;
    // One after another: none of them is refused, but the oldest give way.
    let mut strangers = hoarders(address, 100, false, 100_000)?;
    let mut begun = hoarders(address, 150, false, 65_000)?;
    let cost = resident(server.id())?.saturating_sub(before);
    ensure!(cost < 60_000_000, "250 strangers cost {cost} bytes");
    ensure!(alive(&mut strangers) == 0, "a large message was begun, and not refused");
    let stay = alive(&mut begun);
    ensure!((1..=128).contains(&stay), "{stay} strangers are there");

    let took = honest_sync(address, 1000)?;
    ensure!(took < Duration::from_secs(5), "an honest sync took {took:?}");
    let mut js = JsPeer::spawn(&[])?;
    js.connect(address)?;
    js.wait(2, 4, TIMEOUT)?;
    ensure!(js.event("ended")?["clean"] == true, "{}", js.history());
    server.signal("INT")?;
    // Ten lines of them all are enough, and are no news of connections.
    let events = server.ended(0)?;
    let errors = events.iter().filter(|event| event["event"] == "peer-error").count();
    ensure!((1..=10 + 6).contains(&errors), "{errors} errors were written");
    ensure!(events.iter().filter(|event| event["event"] == "connected").count() == 2, "{events:?}");
    Ok(())
}

#[test]
fn sessions_with_the_root_key_share_one_budget_and_others_have_their_turn() -> Result<()> {
    let store = Store::new()?;
    let (server, address) = store.serve(&["--live"])?;
    let before = resident(server.id())?;
    let hoarders = hoarders(address, 10, true, LARGE)?;
    let cost = resident(server.id())?.saturating_sub(before);
    let sent: usize = hoarders.iter().map(Hoarder::sent).sum();
    ensure!(sent > 40 * MIB, "they did not get to hold anything: {sent}");
    ensure!(cost < 110_000_000, "10 sessions of 8 MiB hold {cost} bytes");
    let took = honest_sync(address, 1000)?;
    ensure!(took < Duration::from_secs(5), "a sync of small blocks took {took:?}");
    // Ten seconds for those that hold the budget, and do not go on.
    let took = honest_sync(address, 2 * MIB)?;
    ensure!(took < Duration::from_secs(40), "a sync of a large block took {took:?}");
    server.signal("INT")?;
    server.ended(0)?;
    ensure!(store.facts()?.len() == 2);
    Ok(())
}

#[test]
fn an_idle_session_gives_way_when_all_places_are_taken() -> Result<()> {
    let store = Store::new()?;
    let (mut server, address) = store.serve(&["--live", "--max-peers", "4"])?;
    let mut idle = hoarders(address, 4, true, 0)?;
    ensure!(alive(&mut idle) == 4);
    std::thread::sleep(Duration::from_secs(11));
    let mut js = JsPeer::spawn(&["--live"])?;
    js.connect(address)?;
    js.append("js", 3, 3, 2)?;
    let deadline = Instant::now() + TIMEOUT;
    while alive(&mut idle) == 4 && Instant::now() < deadline {}
    ensure!(alive(&mut idle) == 3, "{} idle sessions are there", alive(&mut idle));
    server.wait_for("blocks of the peer", |event| event["event"] == "progress" && event["blocks_received"] == 3)?;
    server.signal("INT")?;
    let events = server.ended(0)?;
    let gone = events.iter().filter(|event| event["code"] == "ERR_NO_PLACE").count();
    ensure!(gone == 1, "{events:?}");
    ensure!(store.facts()?.iter().map(|feed| feed.downloaded).sum::<u64>() == 3);
    Ok(())
}

#[test]
fn one_address_leaves_places_to_others() -> Result<()> {
    let store = Store::new()?;
    let (server, address) = store.serve(&["--live", "--max-per-address", "4"])?;
    let mut busy = hoarders(address, 4, true, 0)?;
    let mut refused = TcpStream::connect(address)?;
    refused.write_all(&[0x28, 0x0a])?;
    let mut server = server;
    let error = server.event("peer-error")?;
    ensure!(error["code"] == "ERR_NO_PLACE", "{error}");
    ensure!(alive(&mut busy) == 4);
    drop(refused);
    server.signal("INT")?;
    server.ended(0)?;
    Ok(())
}

/// The protocol has no words for a peer for which there is no place: its own side says what may be behind it.
#[test]
fn a_peer_for_which_there_is_no_place_is_told_to_try_again() -> Result<()> {
    let [store, honest] = [Store::new()?, Store::new()?];
    let (server, address) = store.serve(&["--live", "--max-per-address", "4"])?;
    let mut busy = hoarders(address, 4, true, 0)?;
    for _ in 0..3 {
        let done = honest.run(&["--json", "sync", &address.to_string()])?;
        let (code, message) = done.failure()?;
        ensure!(code == "ERR_DISCONNECTED", "{code}: {message}");
        ensure!(
            message.contains("is that a multifeed? If it is, it may have no place for another connection; try again"),
            "{message}"
        );
    }
    ensure!(alive(&mut busy) == 4);
    server.signal("INT")?;
    server.ended(0)?;
    Ok(())
}

#[test]
fn a_peer_whose_address_is_full_has_the_place_of_one_that_ends() -> Result<()> {
    let [store, honest] = [Store::new()?, Store::new()?];
    store.append("rust", &blocks(3, 100, 1))?;
    let (server, address) = store.serve(&["--live", "--max-per-address", "4"])?;
    let mut busy = hoarders(address, 4, true, 0)?;
    let peer = honest.sync(address, &[])?;
    std::thread::sleep(Duration::from_millis(300));
    busy.pop();
    peer.ended(0)?;
    ensure!(honest.facts()?.len() == 1 && alive(&mut busy) == 3);
    server.signal("INT")?;
    server.ended(0)?;
    Ok(())
}

/// A peer that is turned away learns that it was not done.
#[test]
fn a_live_sync_that_is_turned_away_has_failed() -> Result<()> {
    let [store, first, second] = [Store::new()?, Store::new()?, Store::new()?];
    store.append("rust", &blocks(3, 100, 1))?;
    let (mut server, address) = store.serve(&["--live", "--max-peers", "1"])?;
    let mut stays = first.sync(address, &["--live"])?;
    stays.wait_for("all blocks", |event| event["in_sync"] == true)?;
    let failed = second.sync(address, &["--live"])?.failed()?;
    eprintln!("{failed}");
    ensure!(server.event("peer-error")?["code"] == "ERR_NO_PLACE");
    server.signal("INT")?;
    server.ended(0)?;
    // This one had everything.
    stays.ended(0)?;
    Ok(())
}

#[test]
fn serve_once_waits_for_a_peer_that_proves_the_root_key() -> Result<()> {
    let store = Store::new()?;
    store.append("rust", &blocks(3, 100, 1))?;
    let (mut server, address) = store.serve(&["--once"])?;
    // A port scan, many times over, and strangers that stay.
    for _ in 0..30 {
        drop(TcpStream::connect(address)?);
    }
    server.event("peer-error")?;
    let mut strangers = hoarders(address, 3, false, 0)?;
    let mut wrong = JsPeer::spawn(&["--key", &"33".repeat(32)])?;
    wrong.connect(address)?;
    wrong.event("ended")?;

    let mut js = JsPeer::spawn(&[])?;
    js.connect(address)?;
    js.wait(1, 3, TIMEOUT)?;
    let events = server.ended(0)?;
    ensure!(js.event("ended")?["clean"] == true, "{}", js.history());
    ensure!(alive(&mut strangers) == 0);
    let errors = events.iter().filter(|event| event["event"] == "peer-error").count();
    ensure!((1..=12).contains(&errors), "{errors} errors were written");
    ensure!(events.iter().filter(|event| event["event"] == "closed").count() == 1, "{events:?}");
    Ok(())
}

/// All from one address, as behind a NAT.
#[test]
fn many_honest_peers_of_one_address_are_served() -> Result<()> {
    const PEERS: u32 = 150;
    let store = Store::new()?;
    store.append("rust", &blocks(3, 100, 1))?;
    let (server, address) = store.serve(&[])?;
    block_on(async {
        let mut peers = tokio::task::JoinSet::new();
        for _ in 0..PEERS {
            peers.spawn(async move {
                let multi = Multifeed::in_memory(Options::default()).await?;
                let stream = tokio::net::TcpStream::connect(address).await?;
                let totals = multi.replicate(stream, Role::Initiator, Replicate::default()).finish().await?;
                anyhow::Ok(totals.moved.blocks_received)
            });
        }
        while let Some(peer) = peers.join_next().await {
            ensure!(peer?? == 3, "a peer did not get all");
        }
        Ok(())
    })?;
    server.signal("INT")?;
    let events = server.ended(0)?;
    let closed = events.iter().filter(|event| event["event"] == "closed").count();
    ensure!(closed == PEERS as usize, "{closed} peers were reported");
    Ok(())
}

/// JS says all that its options hold in its handshake, right behind its Open.
#[test]
fn a_js_peer_may_say_much_in_its_handshake() -> Result<()> {
    let user_data = format!("{{\"note\":\"{}\"}}", "x".repeat(110_000));
    let options = ["--user-data", &user_data, "--extension", "chat", "--extension", "peer-id"];
    for rust_connects in [true, false] {
        let store = Store::new()?;
        store.append("rust", &blocks(3, 100, 1))?;
        if rust_connects {
            let (mut js, address) = JsPeer::listen(&options)?;
            js.append("js", 2, 2, 2)?;
            store.sync(address, &[])?.ended(0)?;
        } else {
            let (server, address) = store.serve(&["--once"])?;
            let mut js = JsPeer::spawn(&options)?;
            js.append("js", 2, 2, 2)?;
            js.connect(address)?;
            server.ended(0)?;
        }
        let feeds = store.facts()?;
        ensure!(feeds.len() == 2, "Rust connects: {rust_connects}: {feeds:?}");
    }
    Ok(())
}
