//! The built command on a folder that JS's corestore-multifeed made.

use crate::common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use common::{Store, copy};
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
    for other in [&["--key", &"18".repeat(32)][..], &["--other-key"], &["--key", &key, "--namespace", "x"]] {
        let (code, said) = store.run(&[&["--json", "append", "alice", "lost"], other].concat())?.failure()?;
        ensure!(code == "ERR_STORE_LOCKED" && said.contains("another multifeed"), "{code}: {said}");
    }
    copy.sync(address, &["--key", &key])?.ended(0)?;
    server.kill()?;
    let copied = copy.run(&["--json", "--key", &key, "feeds"])?.ok()?.objects()?;
    ensure!(copied.iter().filter_map(|feed| feed["length"].as_u64()).sum::<u64>() == 8, "{copied:?}");
    Ok(())
}

/// A second writer is made while the list and the first one are open: each core keeps its own files.
#[test]
fn a_second_writer_writes_into_its_own_core() -> Result<()> {
    let store = Store::new()?;
    let key = "1a".repeat(32);
    store.run(&["--corestore", "--key", &key, "append", "alice", "one", "two"])?.ok()?;
    for name in ["bob", "carol"] {
        store.run(&["--key", &key, "append", name, "x"])?.ok()?;
    }
    store.run(&["--key", &key, "verify"])?.ok()?;
    let cat = store.run(&["--key", &key, "cat", "bob"])?.ok()?;
    ensure!(cat.text().trim_end() == "x", "{}", cat.text());
    let js = JsCorestore::open(store.path(), &json!({"multifeeds": [{"key": key}]}))?;
    ensure!(js.multifeeds[0].len() == 3, "{:?}", js.multifeeds);
    js.close()?;
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

/// All files below a folder, but for the lock.
fn files(path: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(self::files(&path)?);
        } else if !path.ends_with("multifeed.lock") {
            files.insert(path.clone(), std::fs::read(&path)?);
        }
    }
    Ok(files)
}

/// Each command fails by this name, its message has these words, and nothing in the folder is changed.
fn is_refused(store: &Store, options: &[&str], expected: &str, says: &str) -> Result<()> {
    let before = files(store.path())?;
    let commands: [&[&str]; 7] = [
        &["feeds"],
        &["verify"],
        &["append", "alice", "x"],
        &["remove", "alice"],
        &["clear", "alice", "0"],
        &["serve", "127.0.0.1:0"],
        &["sync", "127.0.0.1:1"],
    ];
    for command in commands {
        let (code, said) = store.run(&[&["--json"], options, command].concat())?.failure()?;
        ensure!(code == expected && said.contains(says), "{command:?}: {code}: {said}");
        ensure!(files(store.path())? == before, "{command:?} changed the folder");
    }
    Ok(())
}

/// A corestore as JS makes it, with a writer `alice` of three blocks in the multifeed of this root key.
fn of_js(store: &Store, key: &str) -> Result<()> {
    let append = json!([{"seed": 1, "from": 0, "count": 3, "size": 10}]);
    let spec = json!({"multifeeds": [{"key": key, "writers": [{"name": "alice", "append": append}]}]});
    JsCorestore::open(store.path(), &spec)?.close()?;
    Ok(())
}

#[test]
fn a_corestore_of_js_without_its_master_key_is_refused_and_left() -> Result<()> {
    let (store, mixed) = (Store::new()?, Store::new()?);
    let key = "1a".repeat(32);
    of_js(&store, &key)?;
    let master_key = store.path().join("master_key");
    let kept = std::fs::read(&master_key)?;
    std::fs::remove_file(&master_key)?;
    is_refused(&store, &["--key", &key], "ERR_MASTER_KEY_MISSING", "backup")?;
    is_refused(&store, &["--key", &key, "--corestore"], "ERR_MASTER_KEY_MISSING", "backup")?;
    std::fs::write(&master_key, kept)?;
    store.run(&["--key", &key, "append", "alice", "four"])?.ok()?;

    // What an older version of the command left: numbered folders beside the cores.
    mixed.run(&["--key", &key, "append", "alice", "x"])?.ok()?;
    copy(&mixed.path().join("0"), &store.path().join("0"))?;
    is_refused(&store, &["--key", &key], "ERR_OTHER_STORE", "has both a multifeed")?;
    std::fs::remove_file(&master_key)?;
    is_refused(&store, &["--key", &key], "ERR_OTHER_STORE", "has both a multifeed")
}

#[test]
fn another_master_key_makes_no_other_author() -> Result<()> {
    let store = Store::new()?;
    let key = "1a".repeat(32);
    of_js(&store, &key)?;
    let master_key = store.path().join("master_key");
    let kept = std::fs::read(&master_key)?;
    std::fs::write(&master_key, [7; 32])?;
    is_refused(&store, &["--key", &key], "ERR_MASTER_KEY_MISMATCH", "backup")?;
    is_refused(&store, &["--key", &"2b".repeat(32)], "ERR_MASTER_KEY_MISMATCH", "backup")?;
    std::fs::write(&master_key, kept)?;
    store.run(&["--key", &"2b".repeat(32), "append", "bob", "one"])?.ok()?;
    store.run(&["--key", &key, "append", "alice", "four"])?.ok()?;
    Ok(())
}

#[test]
fn folders_of_other_generations_are_refused_and_left() -> Result<()> {
    let stores: [(&[&str], &str); 4] = [
        (&["primary-key", "cores/7d/35/7d35/oplog"], "corestore 6"),
        (&["CORESTORE", "db/CURRENT", "db/IDENTITY"], "corestore 7"),
        (&["oplog", "tree", "bitfield", "data"], "hypercore 10"),
        (&["key", "tree", "bitfield"], "single hypercore 9"),
    ];
    let several = ["--key", &"1b".repeat(32), "--key", &"1c".repeat(32)];
    for (names, says) in stores {
        let store = Store::new()?;
        for name in names {
            let file = store.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap_or(store.path()))?;
            std::fs::write(file, b"x")?;
        }
        for options in [&[][..], &["--corestore"], &["--namespace", "x"]] {
            is_refused(&store, options, "ERR_OTHER_STORE", says)?;
            ensure!(!store.path().join("multifeed.lock").exists(), "a lock was made");
        }
        for command in [["serve", "127.0.0.1:0"], ["sync", "127.0.0.1:1"]] {
            let (code, said) = store.run(&[&["--json"], &several[..], &command].concat())?.failure()?;
            ensure!(code == "ERR_OTHER_STORE" && said.contains(says), "{command:?}: {code}: {said}");
        }
    }
    Ok(())
}

#[test]
fn a_hypercore_in_a_corestores_own_folder_is_left_alone() -> Result<()> {
    let (store, other) = (Store::new()?, Store::new()?);
    let key = "1e".repeat(32);
    of_js(&store, &key)?;
    other.run(&["append", "bob", "x"])?.ok()?;
    copy(&other.path().join("0"), store.path())?;
    let foreign = ["bitfield", "data", "key", "localname", "secret_key", "signatures", "tree"];
    let read = || foreign.map(|name| std::fs::read(store.path().join(name)).ok());
    let before = read();
    ensure!(before.iter().all(Option::is_some), "a file is missing");
    for command in [&["append", "alice", "four"][..], &["verify"], &["append", "carol", "one"]] {
        store.run(&[&["--key", &key], command].concat())?.ok()?;
    }
    let feeds = store.run(&["--json", "--key", &key, "feeds"])?.ok()?.objects()?;
    ensure!(feeds.len() == 2 && feeds[0]["length"] == 4, "{feeds:?}");
    let js = JsCorestore::open(store.path(), &json!({"multifeeds": [{"key": key}]}))?;
    ensure!(js.multifeeds[0].len() == 2, "{:?}", js.multifeeds);
    js.close()?;
    ensure!(read() == before, "a file was changed");
    Ok(())
}

#[test]
fn a_namespace_needs_a_corestore() -> Result<()> {
    let store = Store::new()?;
    for _ in 0..2 {
        let new = store.path().join("new");
        let new = new.to_str().unwrap_or_default();
        for option in [&["--store", new][..], &["--store", store.text()]] {
            for command in [&["feeds"][..], &["append", "alice", "x"]] {
                let done = common::run(&[&["--json", "--namespace", "x"], option, command].concat(), &[])?.ended(2)?;
                let (code, said) = common::failure_of(done.objects()?.last().context("no line")?)?;
                ensure!(code == "ERR_USAGE" && said.contains("--namespace"), "{code}: {said}");
            }
        }
        ensure!(!store.path().join("new").exists(), "a store was made");
        store.run(&["append", "alice", "one"])?.ok()?;
    }
    Ok(())
}

#[test]
fn a_sync_names_a_new_feed_as_the_multifeed_does() -> Result<()> {
    let (store, copied) = (Store::new()?, Store::new()?);
    let key = ["--key", &"1d".repeat(32)];
    store.run(&[&["--corestore"], &key[..], &["append", "alice", "one"]].concat())?.ok()?;
    copied.run(&[&["--corestore"], &key[..], &["append", "bob", "one"]].concat())?.ok()?;
    let (server, address) = store.serve(&key)?;
    let events = copied.sync(address, &key)?.ended(0)?;
    server.kill()?;
    let said = events.iter().find(|event| event["event"] == "feed").context("no feed")?;
    let feeds = copied.run(&[&["--json"], &key[..], &["feeds"]].concat())?.ok()?.objects()?;
    let feed = feeds.iter().find(|feed| feed["key"] == said["key"]).context("not listed")?;
    ensure!(said["name"] == feed["name"], "{said}, {feed}");
    Ok(())
}
