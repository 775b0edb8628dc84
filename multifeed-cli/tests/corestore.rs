//! The built command on a folder that JS's corestore-multifeed made.

use crate::common;

use anyhow::{Result, ensure};
use common::Store;
use multifeed_testkit::js::JsCorestore;
use serde_json::json;

#[test]
fn every_command_opens_a_corestore_of_js() -> Result<()> {
    let (store, copy) = (Store::new()?, Store::new()?);
    let key = "17".repeat(32);
    let append = json!([{"seed": 1, "from": 0, "count": 3, "size": 10}]);
    let spec =
        |more: serde_json::Value| json!({"multifeeds": [{"key": key, "writers": more}, {"key": "18".repeat(32)}]});
    JsCorestore::open(store.path(), &spec(json!([{"name": "alice", "append": append}, {"name": "bob"}])))?.close()?;
    let before = std::fs::read_dir(store.path())?.count();
    let feeds = store.run(&["--json", "--key", &key, "feeds"])?.ok()?.objects()?;
    let listed: Vec<_> = feeds.iter().map(|feed| (feed["name"].as_str(), feed["length"].as_u64())).collect();
    ensure!(listed == [(Some("alice"), Some(3)), (Some("bob"), Some(0))], "{feeds:?}");
    ensure!(std::fs::read_dir(store.path())?.count() == before, "it was only read");
    // Of another root key there is nothing.
    ensure!(store.run(&["--json", "feeds"])?.ok()?.objects()?.is_empty());

    store.run(&["--key", &key, "append", "alice", "four", "five"])?.ok()?;
    store.run(&["--key", &key, "append", "carol", "one"])?.ok()?;
    let cat = store.run(&["--key", &key, "cat", "alice"])?.ok()?;
    ensure!(cat.text().contains("four") && cat.text().contains("five"), "{}", cat.text());
    store.run(&["--key", &key, "verify"])?.ok()?;

    // JS has what was appended, and goes on.
    let append = json!([{"seed": 1, "from": 0, "count": 1, "size": 10}]);
    let js = JsCorestore::open(store.path(), &spec(json!([{"name": "carol", "append": append}])))?;
    let names: Vec<_> = js.multifeeds[0].iter().map(|(name, _)| name.clone().unwrap_or_default()).collect();
    ensure!(names == ["alice", "bob", "carol"], "{names:?}");
    js.close()?;

    // Served to a folder of ours. What is appended beside it has to be for the same multifeed.
    let (server, address) = store.serve(&["--key", &key])?;
    store.run(&["--key", &key, "append", "alice", "six"])?.ok()?;
    for other in [&["--key", &"18".repeat(32)][..], &[], &["--key", &key, "--namespace", "x"]] {
        let (code, said) = store.run(&[&["--json", "append", "alice", "lost"], other].concat())?.failure()?;
        ensure!(code == "ERR_STORE_LOCKED" && said.contains("another multifeed"), "{code}: {said}");
    }
    copy.sync(address, &["--key", &key])?.ended(0)?;
    server.kill()?;
    let copied = copy.run(&["--json", "--key", &key, "feeds"])?.ok()?.objects()?;
    ensure!(copied.iter().filter_map(|feed| feed["length"].as_u64()).sum::<u64>() == 8, "{copied:?}");
    Ok(())
}

#[test]
fn a_corestore_is_made_where_that_is_asked_for() -> Result<()> {
    let (store, numbered) = (Store::new()?, Store::new()?);
    let key = "19".repeat(32);
    store.run(&["--corestore", "--key", &key, "append", "alice", "one", "two"])?.ok()?;
    store.run(&["--key", &key, "--namespace", "x", "append", "bob", "one"])?.ok()?;
    for (options, name) in [(&[][..], "alice"), (&["--namespace", "x"], "bob")] {
        let feeds = store.run(&[&["--json", "--key", &key, "feeds"], options].concat())?.ok()?.objects()?;
        ensure!(feeds.len() == 1 && feeds[0]["name"] == name, "{feeds:?}");
    }
    let js = JsCorestore::open(store.path(), &json!({"multifeeds": [{"key": key}]}))?;
    ensure!(js.multifeeds[0].len() == 1 && js.multifeeds[0][0].0.as_deref() == Some("alice"), "{:?}", js.multifeeds);
    js.close()?;
    // A folder with numbers is none, and stays as it is.
    numbered.run(&["append", "alice", "one"])?.ok()?;
    let (code, _) = numbered.run(&["--json", "--corestore", "append", "alice", "one"])?.failure()?;
    ensure!(code == "ERR_OTHER_STORE" && !numbered.path().join("master_key").exists(), "{code}");
    Ok(())
}
