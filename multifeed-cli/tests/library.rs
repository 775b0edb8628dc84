//! What the command cannot do, since it holds one store for one run, against real JS peers through multifeed-tokio.
//! That is writers and blocks of ours that come late, and the folders of either side extended by the other.

use crate::common;

use anyhow::{Context, Result, ensure};
use common::{Store, TIMEOUT, block_on, js_facts, multi_facts};
use multifeed_testkit::blocks::{block, blocks};
use multifeed_testkit::js::{self, JsPeer};
use multifeed_tokio::{Json, Multifeed, Options, Replicate, Role, SyncEvent};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_blocking;

/// Has the JS peer do something that blocks, while our side's tasks go on.
async fn with_js<T: Send + 'static>(
    js: JsPeer,
    call: impl FnOnce(&mut JsPeer) -> Result<T> + Send + 'static,
) -> Result<(JsPeer, T)> {
    spawn_blocking(move || {
        let mut js = js;
        let value = call(&mut js)?;
        Ok((js, value))
    })
    .await?
}

#[test]
fn blocks_and_writers_of_ours_that_come_late() -> Result<()> {
    // multifeed 6, and corestore-multifeed, which speaks on another channel.
    for dialect in ["--live", "--corestore"] {
        for role in [Role::Initiator, Role::Responder] {
            block_on(late(role, dialect)).with_context(|| format!("{role:?} {dialect}"))?;
        }
    }
    Ok(())
}

async fn late(role: Role, dialect: &str) -> Result<()> {
    let multi = Multifeed::in_memory(Options::default()).await?;
    let (mut js, address) = JsPeer::listen(&[dialect])?;
    let stream = match role {
        Role::Initiator => TcpStream::connect(address).await?,
        Role::Responder => {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            js.connect(listener.local_addr()?)?;
            listener.accept().await?.0
        }
    };
    let mut sync = multi.replicate(stream, role, Replicate::live());
    while let Some(event) = sync.next().await {
        if matches!(event, SyncEvent::Ready(_)) {
            break;
        }
    }

    // Nobody had anything to offer; now ours comes, in several steps.
    let first = multi.writer("first").await?;
    let (js, ()) = with_js(js, |js| js.wait(1, 0, TIMEOUT)).await?;
    first.append_batch(blocks(10, 100, 1)).await?;
    let (js, ()) = with_js(js, |js| js.wait(1, 10, TIMEOUT)).await?;
    for index in 0..5 {
        first.append(block(2, index, 10)).await?;
    }
    let second = multi.writer("second").await?;
    second.append_batch(blocks(1, 4 << 20, 3)).await?;
    let (js, ()) = with_js(js, |js| js.wait(2, 16, TIMEOUT)).await?;

    let (mut js, key) = with_js(js, |js| js.append("js", 7, 7, 4)).await?;
    let mut events = multi.events();
    while multi.feed(&key).is_none_or(|feed| feed.downloaded() < 7) {
        events.next().await.context("closed")?;
    }
    let theirs = js_facts(&js.feeds()?)?;
    ensure!(multi_facts(&multi).await? == theirs && theirs.len() == 3, "not in sync: {theirs:?}");

    sync.close();
    let totals = sync.finish().await?;
    ensure!(totals.moved.blocks_sent == 16 && totals.moved.blocks_received == 7, "{totals:?}");
    ensure!(js.event("ended")?["clean"] == true, "{}", js.history());
    multi.close().await?;
    Ok(())
}

#[test]
fn what_is_written_while_a_sync_that_is_not_live_runs() -> Result<()> {
    // Such blocks go over with it, or with the next one, and are never lost.
    block_on(async {
        let multi = Multifeed::in_memory(Options::default()).await?;
        let writer = multi.writer("w").await?;
        writer.append_batch(blocks(2000, 100, 1)).await?;
        let (mut js, address) = JsPeer::listen(&[])?;
        for round in 0..2 {
            let sync = multi.replicate(TcpStream::connect(address).await?, Role::Initiator, Replicate::default());
            if round == 0 {
                for index in 0..50 {
                    writer.append(block(2, index, 100)).await?;
                }
            }
            sync.finish().await?;
            ensure!(js.event("ended")?["clean"] == true, "{}", js.history());
        }
        ensure!(multi_facts(&multi).await? == js_facts(&js.feeds()?)?, "not in sync");
        multi.close().await?;
        Ok(())
    })
}

#[test]
fn user_data_goes_both_ways() -> Result<()> {
    block_on(async {
        let multi = Multifeed::in_memory(Options::default()).await?;
        let (mut js, address) = JsPeer::listen(&["--user-data", r#"{"from":"js"}"#])?;
        let options = Replicate { user_data: Json::new(r#"{"from":["rust",1]}"#), ..Replicate::default() };
        let mut sync = multi.replicate(TcpStream::connect(address).await?, Role::Initiator, options);
        let mut remote = None;
        while let Some(event) = sync.next().await {
            if let SyncEvent::Ready(handshake) = event {
                remote = handshake.user_data;
            }
        }
        sync.finish().await?;
        let remote: Value = serde_json::from_str(remote.context("no user data")?.as_str())?;
        assert_eq!(remote, json!({"from": "js"}));
        assert_eq!(js.event("handshake")?["header"]["userData"], json!({"from": ["rust", 1]}));
        multi.close().await?;
        Ok(())
    })
}

#[test]
fn a_folder_of_js_is_opened_and_extended_by_rust() -> Result<()> {
    let store = Store::new()?;
    let append = json!([{"count": 9, "size": 100, "seed": 5, "batch": 4}]);
    let spec = json!({
        "writers": [
            {"name": "one", "append": append},
            {"name": "empty"},
            {"name": "long", "append": [{"count": 9000, "size": 8, "seed": 6, "batch": 1000}]},
        ],
        "copies": [{"append": append, "have": [[0, 2], [7, 9]]}, {"append": [{"count": 40, "size": 1}]}],
    });
    let made = js_facts(&js::make(store.path(), &spec)?)?;
    ensure!(store.checked()? == made && made.len() == 5, "{made:?}");

    for (writer, length) in [("one", 12), ("empty", 3), ("long", 9003), ("new", 3)] {
        store.append(writer, &blocks(3, 33, 7))?;
        let feed = store.run(&["--json", "feeds"])?.objects()?;
        let feed = feed.into_iter().find(|feed| feed["name"] == writer).context("it is gone")?;
        ensure!(feed["length"] == length && feed["writable"] == true, "{feed}");
    }
    ensure!(store.checked()?.len() == 6, "a feed is missing");

    // And once more by JS, on top of what Rust wrote.
    let again = json!({"writers": [{"name": "one", "append": append}, {"name": "new", "append": append}]});
    let extended = js_facts(&js::make(store.path(), &again)?)?;
    ensure!(store.checked()? == extended && extended.iter().any(|feed| feed.length == 21), "{extended:?}");
    Ok(())
}

#[test]
fn a_folder_of_rust_is_opened_and_extended_by_js() -> Result<()> {
    let store = Store::new()?;
    for (writer, count, size) in [("one", 10, 100), ("two", 2000, 3), ("three", 1, 1 << 20), ("four", 33, 0)] {
        store.append(writer, &blocks(count, size, 1))?;
        store.append(writer, &blocks(count, size, 2))?;
    }
    let before = store.checked()?;
    let append = json!([{"count": 9, "size": 100, "seed": 5, "batch": 4}]);
    let spec = json!({"writers": [{"name": "one", "append": append}, {"name": "four", "append": append}, {"name": "js", "append": append}]});
    let extended = js_facts(&js::make(store.path(), &spec)?)?;
    // The writers were found by name, with their secret keys, and not made anew.
    ensure!(extended.len() == 5, "{extended:?}");
    for feed in &before {
        ensure!(extended.iter().any(|other| other.key == feed.key && other.length >= feed.length), "{feed:?} is gone");
    }
    ensure!(store.checked()? == extended, "two views of one folder");
    store.append("js", &blocks(3, 3, 3))?;
    store.checked()?;
    Ok(())
}

#[test]
fn a_sparse_folder_of_js_is_completed_by_rust() -> Result<()> {
    let (source, store) = (Store::new()?, Store::new()?);
    let append = json!([{"count": 300, "size": 50, "seed": 5, "batch": 7}]);
    let seed = "0a".repeat(32);
    js::make(source.path(), &json!({"writers": [{"name": "w", "seed": seed, "append": append}]}))?;
    let have = json!([[0, 3], [64, 65], [100, 200], [299, 300]]);
    js::make(store.path(), &json!({"copies": [{"seed": seed, "append": append, "have": have}]}))?;
    let (server, address) = source.serve(&["--once"])?;
    let events = store.sync(address, &[])?.ended(0)?;
    server.ended(0)?;
    let closed = events.last().context("no events")?;
    ensure!(closed["blocks_received"] == 300 - 105 && closed["missing"] == 0, "{closed}");
    ensure!(store.checked()? == source.checked()?, "not in sync");
    Ok(())
}
