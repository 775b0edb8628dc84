//! What a peer of a live sync does not take of what is here: while the sync runs, in `status`, and at its end.

#![cfg(unix)]

use crate::common;

use anyhow::{Context, Result, ensure};
use common::{Running, Store};
use multifeed_testkit::js::JsPeer;
use serde_json::Value;

/// Says that so many feeds are not taken, of which so many blocks are missing there.
fn not_taken(live: &mut Running, feeds: u64, blocks: u64) -> Result<Value> {
    live.wait_for(&format!("{feeds} feeds not taken, {blocks} blocks of them"), |event| {
        event["not_taken"] == feeds && event["missing_there"] == blocks && event["in_sync"] == false
    })
}

/// Ctrl-C ends it as one that was not in sync, with the reason.
fn ends_not_in_sync(live: Running, feeds: u64) -> Result<()> {
    live.signal("INT")?;
    let events = live.ended(130)?;
    let [.., end, error] = &events[..] else { anyhow::bail!("{events:?}") };
    ensure!(end["event"] == "closed" && end["in_sync"] == false && end["not_taken"] == feeds, "{end}");
    let said = error["message"].as_str().context("no message")?;
    ensure!(said.contains("did not take all of 1 feed"), "{error}");
    Ok(())
}

fn status(store: &Store) -> Result<String> {
    Ok(store.run(&["status"])?.ok()?.text())
}

/// A peer bans or removes a feed that both hold alike. What is appended after that does not go there, and is not said to be in sync.
#[test]
fn what_is_appended_to_a_feed_that_the_peer_gave_up_is_not_in_sync() -> Result<()> {
    for how in [&["ban"][..], &["remove"], &["remove", "--ban"]] {
        // Both hold all of it from the start, or it comes on that session.
        for (appends, alike) in [(false, false), (true, false), (false, true), (true, true)] {
            if alike && how == ["remove"] {
                continue;
            }
            let (store, peer) = (Store::new()?, Store::new()?);
            let key = store.append("notes", &["one", "two"])?;
            store.append("more", &["three"])?;
            if alike {
                let (serving, address) = store.serve(&["--once"])?;
                peer.sync(address, &[])?.ended(0)?;
                serving.ended(0)?;
            }
            let (serving, address) = peer.serve(&["--live"])?;
            let mut live = store.sync(address, &["--live"])?;
            live.wait_for("in sync", |event| event["in_sync"] == true && event["feeds"] == 2)?;
            peer.run(&[how, &[&key]].concat())?.ok()?;
            if !alike {
                // Of one that both held alike nothing is said until there is more.
                let left = live.wait_for("the end of the feed", |event| event["feeds"] == 1)?;
                ensure!(left["missing_there"] == 0, "{how:?}: {left}");
            }
            if !appends {
                // It had all of it as it gave it up.
                live.in_sync()?;
                live.signal("INT")?;
                live.ended(0)?;
                serving.kill()?;
                continue;
            }
            store.append("notes", &["three", "four"])?;
            // One that was alike is offered anew, and not asked for.
            let (blocks, words) = match alike {
                true => (0, "in sync but for 1 feed not taken there"),
                false => (2, "1 feed, 1 feed not taken there, 2 blocks missing there"),
            };
            not_taken(&mut live, 1, blocks)?;
            live.until(|| status(&store).is_ok_and(|said| said.contains(words)))?;
            // The rest goes on.
            store.append("more", &["four"])?;
            let goes = live.wait_for("the rest", |event| event["blocks_sent"] == if alike { 1 } else { 4 })?;
            ensure!(goes["not_taken"] == 1, "{goes}");
            if how == ["ban"] {
                peer.run(&["unban", &key])?.ok()?;
                live.in_sync()?;
                store.append("notes", &["five"])?;
                let sent = if alike { 4 } else { 7 };
                live.wait_for("what came later", |event| event["blocks_sent"] == sent && event["in_sync"] == true)?;
                live.signal("INT")?;
                live.ended(0)?;
            } else {
                ends_not_in_sync(live, 1)?;
            }
            serving.kill()?;
            let mut held: Vec<u64> = peer.facts()?.iter().map(|feed| feed.downloaded).collect();
            held.sort_unstable();
            assert_eq!(held, if how == ["ban"] { vec![2, 5] } else { vec![2] });
        }
    }
    Ok(())
}

/// A feed that the peer never asked for, as it bans it: `status` says of the live sync what its end says.
#[test]
fn a_feed_that_the_peer_never_takes_is_said_from_the_start() -> Result<()> {
    let (store, peer) = (Store::new()?, Store::new()?);
    let key = store.append("notes", &["one", "two"])?;
    store.append("more", &["three"])?;
    peer.append("theirs", &["four"])?;
    peer.run(&["ban", &key])?.ok()?;
    let (serving, address) = peer.serve(&["--live"])?;
    let mut live = store.sync(address, &["--live"])?;
    live.wait_for("the rest", |event| {
        event["not_taken"] == 1 && event["in_sync"] == false && event["missing_there"] == 0 && event["feeds"] == 2
    })?;
    live.until(|| status(&store).is_ok_and(|said| said.contains("in sync but for 1 feed not taken there")))?;
    ends_not_in_sync(live, 1)?;
    serving.kill()?;
    Ok(())
}

/// A feed that is removed or banned here is not missed: that is the wish of the user, and said.
#[test]
fn a_feed_that_is_given_up_here_is_not_missed() -> Result<()> {
    for how in [&["ban"][..], &["remove"]] {
        let (store, peer) = (Store::new()?, Store::new()?);
        let key = peer.append("notes", &["one", "two"])?;
        store.append("more", &["three"])?;
        let (serving, address) = peer.serve(&["--live"])?;
        let mut live = store.sync(address, &["--live"])?;
        live.wait_for("in sync", |event| event["in_sync"] == true && event["feeds"] == 2)?;
        store.run(&[how, &[&key]].concat())?.ok()?;
        let said = live.event(if how == ["ban"] { "banned" } else { "removed" })?;
        ensure!(said["key"] == key.as_str(), "{said}");
        peer.append("notes", &["three"])?;
        store.append("more", &["four"])?;
        live.wait_for("the rest", |event| {
            event["blocks_sent"] == 2 && event["feeds"] == 1 && event["not_taken"] == 0 && event["in_sync"] == true
        })?;
        live.signal("INT")?;
        live.ended(0)?;
        serving.kill()?;
    }
    Ok(())
}

/// A JS app that has a feed's secret key takes no blocks of it: those that are appended here, by the same key, do not go there.
#[test]
fn a_js_writer_takes_nothing_of_its_own_feed() -> Result<()> {
    let (old, new, files) = (Store::new()?, Store::new()?, tempfile::tempdir()?);
    let file = files.path().join("notes.key").display().to_string();
    old.append("notes", &["one", "two"])?;
    old.run(&["key", "export", "notes", &file])?.ok()?;
    let (mut js, address) = JsPeer::listen(&["--store", old.text(), "--live"])?;
    new.sync(address, &[])?.ended(0)?;
    new.run(&["key", "import", &file])?.ok()?;
    let mut live = new.sync(address, &["--live"])?;
    live.in_sync()?;
    new.append("notes", &["three", "four", "five"])?;
    not_taken(&mut live, 1, 3)?;
    let said = status(&new)?;
    ensure!(said.contains("1 feed not taken there, 3 blocks missing there"), "{said}");
    ends_not_in_sync(live, 1)?;
    ensure!(js.feeds()?[0].length == 2);
    js.kill()
}
