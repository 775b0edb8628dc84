//! `swarm`: processes find each other on a local network that is loopback's, with multicast DNS on a port of each test's own, or by address.

use std::net::UdpSocket;

use anyhow::{Context, Result, ensure};
use multifeed_testkit::js::{JsPeer, TIMEOUT};
use serde_json::{Value, json};

use crate::common::{Running, Store, run};

fn key() -> String {
    "2a".repeat(32)
}

/// A UDP port that nobody has.
fn free_port() -> Result<String> {
    Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port().to_string())
}

/// A store with a writer of two blocks.
fn store(name: &str) -> Result<Store> {
    let store = Store::new()?;
    store.run(&["--key", &key(), "append", name, "one", "two"])?.ok()?;
    Ok(store)
}

/// Starts `swarm` on this network, with these further arguments.
fn swarm(store: &Store, network: &str, args: &[&str]) -> Result<Running> {
    let all = ["--json", "--key", &key(), "swarm", "--loopback", network];
    Running::start(&[&store.option()[..], &all, args].concat())
}

/// As [`swarm`], live on the local network, once its store is open: what looks at the store before that may have it locked.
fn live(store: &Store, network: &str, args: &[&str]) -> Result<Running> {
    let mut running = swarm(store, network, &[&["--live"], args].concat())?;
    listening(&mut running)?;
    Ok(running)
}

/// Waits until a store holds so many feeds and blocks.
fn holds(running: &mut Running, store: &Store, feeds: usize, blocks: u64) -> Result<()> {
    let held = || -> Result<bool> {
        let lines = store.run(&["--json", "feeds"])?.ok()?.objects()?;
        let there: u64 = lines.iter().filter_map(|line| line["downloaded"].as_u64()).sum();
        Ok(lines.len() == feeds && there == blocks)
    };
    running.until(|| held().is_ok_and(|held| held))
}

/// The TCP address on which it listens.
fn listening(running: &mut Running) -> Result<String> {
    Ok(running.event("listening")?["address"].as_str().context("no address")?.to_owned())
}

#[test]
fn two_processes_find_each_other_and_end_in_sync() -> Result<()> {
    let network = free_port()?;
    let (a, b) = (store("a")?, store("b")?);
    let (first, second) = (swarm(&a, &network, &[])?, swarm(&b, &network, &[])?);
    let lines = [first.ended(0)?, second.ended(0)?];
    for lines in &lines {
        let by_name = |name: &str| lines.iter().filter(|line| line["event"] == name).cloned().collect::<Vec<_>>();
        let found = by_name("peer-found");
        ensure!(found.len() == 1 && found[0]["by"] == "lan", "{found:?}");
        let closed = by_name("root-closed");
        ensure!(closed.iter().any(|closed| closed["in_sync"] == true), "{lines:#?}");
        ensure!(!lines.iter().any(|line| line["event"] == "error"), "{lines:#?}");
        // Each that is about a peer names it.
        for line in lines {
            let name = line["event"].as_str().context("no name")?;
            let is_own = matches!(name, "listening" | "root-feed" | "warning");
            ensure!(is_own || line["peer"]["id"].as_str().is_some_and(|peer| peer.len() == 64), "{line}");
            ensure!(!line.to_string().contains(&key()), "the root key: {line}");
        }
    }
    ensure!(a.checked()? == b.checked()? && a.facts()?.len() == 2);
    Ok(())
}

#[test]
fn one_joins_late_and_one_is_killed_and_comes_back() -> Result<()> {
    let network = free_port()?;
    let (a, b, c) = (store("a")?, store("b")?, store("c")?);
    let (mut first, mut second) = (live(&a, &network, &[])?, live(&b, &network, &[])?);
    holds(&mut first, &a, 2, 4)?;
    holds(&mut second, &b, 2, 4)?;
    let status = first.wait_for("status", |event| event["event"] == "peer-status" && event["in_sync"] == true)?;
    let by = &status["found"][0];
    let came = status["came"] == "lan";
    ensure!(came || by["by"] == "lan" && by["seconds"].is_number(), "{status}");
    // What is appended beside it goes over at once.
    a.run(&["--key", &key(), "append", "a", "three"])?.ok()?;
    holds(&mut second, &b, 2, 5)?;
    let mut third = live(&c, &network, &[])?;
    holds(&mut third, &c, 3, 7)?;
    holds(&mut first, &a, 3, 7)?;

    second.kill()?;
    first.event("peer-disconnected")?;
    a.run(&["--key", &key(), "append", "a", "four"])?.ok()?;
    b.run(&["--key", &key(), "append", "b", "three"])?.ok()?;
    let mut second = live(&b, &network, &[])?;
    for (running, store) in [(&mut first, &a), (&mut second, &b), (&mut third, &c)] {
        holds(running, store, 3, 9)?;
    }
    // The one that was killed is no longer known, though it said no goodbye.
    first.event("peer-lost")?;
    for running in [&first, &second, &third] {
        running.signal("INT")?;
    }
    for running in [first, second, third] {
        running.ended(0)?;
    }
    let facts = a.checked()?;
    ensure!(facts == b.checked()? && facts == c.checked()?);
    Ok(())
}

/// One on the local network, one that has an address alone, and one between them.
#[test]
fn a_mixed_net_is_in_sync() -> Result<()> {
    let network = free_port()?;
    let [lan, between, server] = [store("lan")?, store("between")?, store("server")?];
    let mut by_address = swarm(&server, &network, &["--live", "--no-lan", "--port", "0"])?;
    let address = listening(&mut by_address)?;
    let mut by_lan = live(&lan, &network, &[])?;
    let mut both = live(&between, &network, &["--peer", &address])?;
    for (running, store) in [(&mut by_address, &server), (&mut by_lan, &lan), (&mut both, &between)] {
        holds(running, store, 3, 6)?;
    }
    // One that only stays until it is in sync.
    let guest = store("guest")?;
    let lines = swarm(&guest, &network, &["--no-lan", "--peer", &address])?.ended(0)?;
    ensure!(!lines.iter().any(|line| line["event"] == "peer-found" && line["by"] != "addresses"), "{lines:?}");
    holds(&mut by_lan, &lan, 4, 8)?;
    for running in [&by_address, &by_lan, &both] {
        running.signal("TERM")?;
    }
    for running in [by_address, by_lan, both] {
        running.ended(0)?;
    }
    let facts = lan.checked()?;
    ensure!(facts == between.checked()? && facts == server.checked()? && facts == guest.checked()?);
    Ok(())
}

#[test]
fn a_peer_that_is_named_is_waited_for() -> Result<()> {
    let network = free_port()?;
    let (a, b) = (store("a")?, store("b")?);
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let peer = format!("127.0.0.1:{port}");
    let mut waits = swarm(&a, &network, &["--no-lan", "--peer", &peer])?;
    let found = waits.event("peer-found")?;
    ensure!(found["peer"]["address"] == peer.as_str(), "{found}");
    let tried = waits.event("peer-unreachable")?;
    ensure!(tried["seconds"].as_f64().is_some_and(|seconds| (0.5..=1.0).contains(&seconds)), "{tried}");
    ensure!(tried["message"].as_str().is_some_and(|message| message.contains(&peer)), "{tried}");
    ensure!(tried["peer"] == json!({"id": null, "address": peer}), "{tried}");
    let server = swarm(&b, &network, &["--live", "--no-lan", "--port", &port])?;
    waits.ended(0)?;
    server.signal("INT")?;
    server.ended(0)?;
    ensure!(a.checked()? == b.checked()?);
    Ok(())
}

/// It is back under another key: what broke with the old one is no failure, once everything is there.
#[test]
fn a_peer_that_is_killed_in_the_middle_and_comes_back_is_waited_for() -> Result<()> {
    let from = Store::new()?;
    let block = vec![7; 1 << 20];
    let file = from.path().with_extension("block");
    std::fs::write(&file, &block)?;
    let name = file.to_str().context("no text")?;
    let files = vec![name; 30];
    from.run(&[&["--key", &key(), "append", "w", "--file"], &files[..]].concat())?.ok()?;
    std::fs::remove_file(&file)?;
    for by_address in [true, false] {
        let network = free_port()?;
        let to = Store::new()?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
        let mut serving = vec!["--live", "--port", &port];
        serving.extend(by_address.then_some("--no-lan"));
        let peer = format!("127.0.0.1:{port}");
        let pulling = if by_address { vec!["--no-lan", "--peer", &peer] } else { Vec::new() };
        let mut first = swarm(&from, &network, &serving)?;
        listening(&mut first)?;
        let mut puller = swarm(&to, &network, &pulling)?;
        puller.event("root-feed")?;
        first.kill()?;
        let mut second = swarm(&from, &network, &serving)?;
        listening(&mut second)?;
        puller.ended(0)?;
        second.signal("INT")?;
        second.ended(0)?;
        ensure!(to.facts()? == from.facts()?, "{by_address}");
    }
    Ok(())
}

#[test]
fn js_multifeed_6_by_address_in_both_roles() -> Result<()> {
    for js_dials in [false, true] {
        let network = free_port()?;
        let ours = store("ours")?;
        let mut peer = JsPeer::spawn(&["--key", &key(), "--live"])?;
        peer.call(json!({"cmd": "append", "name": "theirs", "count": 3, "size": 50, "seed": 1}))?;
        let mut running = match js_dials {
            true => {
                let mut running = swarm(&ours, &network, &["--live", "--no-lan", "--port", "0"])?;
                peer.connect(listening(&mut running)?.parse()?)?;
                running
            }
            false => {
                let reply = peer.call(json!({"cmd": "listen", "address": "127.0.0.1:0"}))?;
                let address = reply["address"].as_str().context("no address")?.to_owned();
                swarm(&ours, &network, &["--live", "--no-lan", "--peer", &address])?
            }
        };
        peer.wait(2, 5, TIMEOUT)?;
        holds(&mut running, &ours, 2, 5)?;
        ours.run(&["--key", &key(), "append", "ours", "three"])?.ok()?;
        peer.wait(2, 6, TIMEOUT)?;
        running.signal("INT")?;
        running.ended(0)?;
        peer.close()?;
    }
    Ok(())
}

#[test]
fn two_multifeeds_of_a_corestore_on_one_network() -> Result<()> {
    let network = free_port()?;
    let keys = ["31", "32"].map(|digits| digits.repeat(32));
    let stores = [Store::new()?, Store::new()?];
    for (store, name) in stores.iter().zip(["a", "b"]) {
        for key in &keys {
            store.run(&["--corestore", "--key", key, "append", name, "one", "two"])?.ok()?;
        }
    }
    let mut running = Vec::new();
    for store in &stores {
        let args = ["--json", "--key", &keys[0], "--key", &keys[1], "swarm", "--loopback", &network];
        running.push(Running::start(&[&store.option()[..], &args].concat())?);
    }
    for running in running {
        let lines = running.ended(0)?;
        let is_ready = |line: &&Value| line["event"] == "root-ready";
        let roots: std::collections::BTreeSet<_> =
            lines.iter().filter(is_ready).filter_map(|line| line["root"].as_str()).collect();
        ensure!(roots.len() == 2, "{lines:?}");
    }
    for store in &stores {
        for key in &keys {
            let feeds = store.run(&["--json", "--key", key, "feeds"])?.ok()?.objects()?;
            ensure!(feeds.len() == 2 && feeds.iter().all(|feed| feed["downloaded"] == 2), "{feeds:?}");
        }
    }
    Ok(())
}

#[test]
fn the_key_that_everyone_knows_is_warned_of_and_nobody_to_find_is_an_error() -> Result<()> {
    let network = free_port()?;
    let folder = Store::new()?;
    let mut alone = Running::start_command({
        let mut command = crate::common::command(&["--store", folder.text(), "swarm", "--loopback", &network]);
        command.arg("--json");
        command
    })?;
    listening(&mut alone)?;
    alone.signal("INT")?;
    // Nobody was found: it was not done.
    let lines = alone.ended(130)?;
    ensure!(lines.last().is_some_and(|line| line["code"] == "ERR_INTERRUPTED"), "{lines:?}");

    let done = run(&["--json", "--store", folder.text(), "swarm", "--no-lan"], b"")?.ended(2)?;
    ensure!(done.objects()?.last().is_some_and(|line| line["code"] == "ERR_USAGE"), "{done:?}");
    // A port that another one has.
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    for args in [&["--no-lan"][..], &[]] {
        let all = ["--json", "--store", folder.text(), "swarm", "--loopback", &network, "--port", &port];
        let (code, message) = run(&[&all, args].concat(), b"")?.failure()?;
        ensure!(code == "ERR_LISTEN" && message.contains(&port), "{code} {message}");
        let stderr = run(&[&all, args].concat(), b"")?.stderr;
        ensure!(stderr.contains("everyone knows"), "{stderr}");
    }
    Ok(())
}

#[test]
fn two_processes_find_each_other_on_a_testnet() -> Result<()> {
    let mut testnet = Running::start(&["--json", "testnet"])?;
    let bootstrap = listening(&mut testnet)?;
    let network = free_port()?;
    let (a, b) = (store("a")?, store("b")?);
    // A node that is not there is no matter.
    let args = ["--no-lan", "--bootstrap", "127.0.0.1:9", "--bootstrap", &bootstrap];
    let (first, second) = (swarm(&a, &network, &args)?, swarm(&b, &network, &args)?);
    let lines = [first.ended(0)?, second.ended(0)?];
    let found = lines.iter().flatten().filter(|line| line["event"] == "peer-found");
    ensure!(found.clone().count() > 0 && found.clone().all(|found| found["by"] == "hyperswarm"), "{lines:#?}");
    for lines in &lines {
        ensure!(lines.iter().any(|line| line["event"] == "root-closed" && line["in_sync"] == true), "{lines:#?}");
        ensure!(!lines.iter().any(|line| line["event"] == "error" || line["event"] == "warning"), "{lines:#?}");
    }
    ensure!(a.checked()? == b.checked()? && a.facts()?.len() == 2);
    testnet.signal("INT")?;
    testnet.ended(0)?;
    Ok(())
}

#[test]
fn a_store_that_takes_nothing_any_more_ends_a_swarm_that_is_not_live() -> Result<()> {
    let network = free_port()?;
    let (a, b) = (store("a")?, store("b")?);
    let mut waits = swarm(&a, &network, &[])?;
    listening(&mut waits)?;
    // It is moved away before anybody is found.
    let moved = a.path().with_extension("moved");
    std::fs::rename(a.path(), &moved)?;
    let server = live(&b, &network, &[])?;
    let last = waits.failed()?;
    ensure!(last["code"] == "ERR_STORE_MOVED", "{last}");
    server.signal("INT")?;
    server.ended(0)?;
    std::fs::rename(&moved, a.path())?;
    Ok(())
}

#[test]
fn people_read_that_each_peer_is_in_sync() -> Result<()> {
    let network = free_port()?;
    let (a, b) = (store("a")?, store("b")?);
    let (server, address) = a.serve(&["--once", "--key", &key()])?;
    b.sync(address, &["--key", &key()])?.ended(0)?;
    server.ended(0)?;
    // Both hold the same from the start.
    let people = |store: &Store| {
        let all = ["--key", &key(), "swarm", "--live", "--loopback", &network];
        let mut command = crate::common::command(&[&store.option()[..], &all].concat());
        Ok::<_, anyhow::Error>(command.stdout(std::process::Stdio::piped()).spawn()?)
    };
    let mut both = [people(&a)?, people(&b)?];
    let (says, said) = std::sync::mpsc::channel();
    for (at, one) in both.iter_mut().enumerate() {
        let (stdout, says) = (one.stdout.take().context("no stdout")?, says.clone());
        // It reads on: whoever writes to nobody ends.
        std::thread::spawn(move || {
            for line in std::io::BufRead::lines(std::io::BufReader::new(stdout)).map_while(std::result::Result::ok) {
                if line.contains("in sync; ") {
                    let _ = says.send(at);
                }
            }
        });
    }
    let mut heard = std::collections::BTreeSet::new();
    let deadline = std::time::Instant::now() + crate::common::TIMEOUT;
    while heard.len() < 2 {
        match said.recv_timeout(deadline.saturating_duration_since(std::time::Instant::now())) {
            Ok(at) => _ = heard.insert(at),
            Err(_) => break,
        }
    }
    for mut one in both {
        one.kill()?;
        one.wait()?;
    }
    ensure!(heard.len() == 2, "{heard:?}");
    Ok(())
}
