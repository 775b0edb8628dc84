//! A store remembers the root keys that it was used with: a `--key` that was forgotten gives it to nobody.

use crate::common;

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use common::{Running, Store};
use multifeed_testkit::js::{JsCorestore, JsPeer, TIMEOUT};
use multifeed_tokio::FeedKey;
use serde_json::{Value, json};

fn discovery_key(key: &str) -> Result<String> {
    Ok(key.parse::<FeedKey>().map_err(|_| anyhow::anyhow!("no key"))?.discovery_key().to_string())
}

/// The root keys that a store remembers.
fn remembered(store: &Store) -> Result<BTreeSet<String>> {
    let text = std::fs::read_to_string(store.path().join("multifeed.roots"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// What a command that must not go on says; one that does go on would wait for peers.
fn refused(store: &Store, args: &[&str]) -> Result<Value> {
    let mut events = Running::start(&[&store.option()[..], &["--json"], args].concat())?.ended(2)?;
    events.pop().context("it said nothing")
}

/// Waits until a server listens, and ends it.
fn serves(store: &Store, args: &[&str]) -> Result<()> {
    let (server, _) = store.serve(args)?;
    server.signal("INT")?;
    server.ended(0)?;
    Ok(())
}

const SERVE: [&str; 2] = ["serve", "127.0.0.1:0"];
const SYNC: [&str; 2] = ["sync", "127.0.0.1:1"];
const SWARM: [&str; 4] = ["swarm", "--no-lan", "--port", "0"];

#[test]
fn a_forgotten_root_key_gives_no_store_away() -> Result<()> {
    let (key, other) = ("51".repeat(32), "52".repeat(32));
    let store = Store::new()?;
    store.run(&["--key", &key, "append", "w", "one"])?.ok()?;
    ensure!(remembered(&store)? == BTreeSet::from([discovery_key(&key)?]));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(store.path().join("multifeed.roots"))?.permissions().mode();
        ensure!(mode & 0o777 == 0o600, "{mode:o}");
    }
    for command in [&SERVE[..], &SYNC, &SWARM] {
        for (given, why) in [(&[][..], "no root key is given"), (&["--key", &other], "another root key")] {
            let error = refused(&store, &[command, given].concat())?;
            ensure!(error["code"] == "ERR_OTHER_ROOT_KEY", "{command:?} {given:?}: {error}");
            let said = error["message"].as_str().unwrap_or_default();
            ensure!(said.contains(why) && said.contains("--other-key") && !said.contains(&other), "{said}");
        }
    }
    ensure!(refused(&store, &["append", "w", "two", "--key", &other])?["code"] == "ERR_OTHER_ROOT_KEY");
    // What sends nothing to anybody needs no root key.
    for args in [&["feeds"][..], &["cat", "w"], &["verify"], &["append", "w", "two"]] {
        store.run(args)?.ok()?;
    }
    serves(&store, &["--key", &key])?;
    // The file is nothing to JS.
    ensure!(store.checked()?.len() == 1);

    // Asked for, another one is taken, and remembered; the one that everyone knows is not.
    serves(&store, &["--key", &other, "--other-key"])?;
    let both = BTreeSet::from([discovery_key(&key)?, discovery_key(&other)?]);
    ensure!(remembered(&store)? == both);
    serves(&store, &["--other-key"])?;
    ensure!(remembered(&store)? == both);
    for given in [&key, &other] {
        serves(&store, &["--key", given])?;
    }
    ensure!(refused(&store, &SERVE)?["code"] == "ERR_OTHER_ROOT_KEY");
    Ok(())
}

#[test]
fn a_store_of_an_earlier_build_or_of_js_remembers_its_first_root_key() -> Result<()> {
    let key = "53".repeat(32);
    let store = Store::new()?;
    store.run(&["append", "w", "one"])?.ok()?;
    // The one that everyone knows keeps nobody out, so nothing of it is remembered.
    serves(&store, &[])?;
    ensure!(!store.path().join("multifeed.roots").exists());
    let (server, address) = store.serve(&["--once", "--key", &key])?;
    let mut js = JsPeer::spawn(&["--key", &key])?;
    js.append("theirs", 2, 10, 1)?;
    js.connect(address)?;
    js.wait(2, 3, TIMEOUT)?;
    server.ended(0)?;
    js.close()?;
    ensure!(remembered(&store)? == BTreeSet::from([discovery_key(&key)?]));
    for command in [&SERVE[..], &SYNC, &SWARM] {
        ensure!(refused(&store, command)?["code"] == "ERR_OTHER_ROOT_KEY");
    }
    ensure!(store.checked()?.len() == 2);
    Ok(())
}

/// A root key that was mistyped is none of the store's: it is remembered once a peer has it.
#[test]
fn a_root_key_is_remembered_once_a_peer_proved_it() -> Result<()> {
    let (right, wrong) = ("58".repeat(32), "59".repeat(32));
    let (store, other) = (Store::new()?, Store::new()?);
    other.run(&["--key", &right, "append", "w", "one"])?.ok()?;
    let (server, address) = other.serve(&["--key", &right])?;
    let roots = store.path().join("multifeed.roots");
    let error = store.sync(address, &["--key", &wrong])?.failed()?;
    ensure!(error["code"] == "ERR_ROOT_KEY_MISMATCH" && !roots.exists(), "{error}");
    let at = address.to_string();
    let mut retrying = store.sync(address, &["--key", &wrong, "--retry"])?;
    let end = retrying.event("peer-disconnected")?;
    ensure!(end["message"].as_str().is_some_and(|said| said.contains("given another --key")), "{end}");
    retrying.event("redial")?;
    retrying.signal("INT")?;
    retrying.ended(130)?;
    let swarm = ["--json", "swarm", "--no-lan", "--peer", &at, "--key", &wrong];
    let mut swarm = Running::start(&[&store.option()[..], &swarm].concat())?;
    let error = swarm.event("peer-error")?;
    ensure!(error["code"] == "ERR_ROOT_KEY_MISMATCH", "{error}");
    swarm.signal("INT")?;
    swarm.ended(130)?;
    ensure!(!roots.exists(), "nobody had it");
    store.sync(address, &["--key", &right])?.ended(0)?;
    ensure!(remembered(&store)? == BTreeSet::from([discovery_key(&right)?]));
    ensure!(refused(&store, &["sync", &at, "--key", &wrong])?["code"] == "ERR_OTHER_ROOT_KEY");
    server.signal("INT")?;
    server.ended(0)?;
    Ok(())
}

#[test]
fn a_corestore_remembers_its_root_keys_and_takes_those_that_are_given() -> Result<()> {
    let (a, b) = ("54".repeat(32), "55".repeat(32));
    let store = Store::new()?;
    let append = json!([{"seed": 1, "from": 0, "count": 2, "size": 10}]);
    let spec = json!({"multifeeds": [{"key": a, "writers": [{"name": "alice", "append": append}]}, {"key": b}]});
    JsCorestore::open(store.path(), &spec)?.close()?;
    serves(&store, &["--key", &a])?;
    ensure!(remembered(&store)? == BTreeSet::from([discovery_key(&a)?]));
    // Without one it would be another multifeed: neither served nor appended to.
    for command in [&SERVE[..], &SYNC, &SWARM, &["append", "w", "lost"]] {
        let error = refused(&store, command)?;
        ensure!(error["code"] == "ERR_OTHER_ROOT_KEY", "{error}");
    }
    // Each root key is a multifeed of its own: what is given is meant.
    store.run(&["--key", &b, "append", "bob", "one"])?.ok()?;
    serves(&store, &["--key", &a, "--key", &b])?;
    ensure!(remembered(&store)? == BTreeSet::from([discovery_key(&a)?, discovery_key(&b)?]));
    store.run(&["--other-key", "append", "w", "one"])?.ok()?;
    store.run(&["append", "w", "two"])?.ok()?;
    ensure!(remembered(&store)?.len() == 3);
    // JS opens the folder with that file in it.
    let js = JsCorestore::open(store.path(), &spec)?;
    let names: Vec<_> = js.multifeeds.iter().map(|feeds| feeds.len()).collect();
    js.close()?;
    ensure!(names == [1, 1], "{names:?}");
    Ok(())
}

#[test]
fn what_is_no_list_of_root_keys_is_named_and_left_alone() -> Result<()> {
    let key = "56".repeat(32);
    let store = Store::new()?;
    store.run(&["--key", &key, "append", "w", "one"])?.ok()?;
    let path = store.path().join("multifeed.roots");
    let whole = std::fs::read(&path)?;
    for bad in [&whole[..40], b"\xff\xfe", b"no key\n"] {
        std::fs::write(&path, bad)?;
        let args = [&store.option()[..], &["--json", "serve", "127.0.0.1:0", "--key", &key]].concat();
        let error = Running::start(&args)?.failed()?;
        ensure!(error["code"] == "ERR_STORE_DAMAGED" && error["message"].to_string().contains("roots"), "{error}");
        ensure!(std::fs::read(&path)? == bad);
    }
    std::fs::remove_file(&path)?;
    #[cfg(unix)]
    {
        let elsewhere = tempfile::NamedTempFile::new()?;
        std::fs::write(elsewhere.path(), &whole)?;
        std::os::unix::fs::symlink(elsewhere.path(), &path)?;
        let args = [&store.option()[..], &["--json", "serve", "127.0.0.1:0", "--key", &key]].concat();
        ensure!(Running::start(&args)?.failed()?["code"] == "ERR_STORE_NOT_REGULAR");
        serves(&store, &["--key", &key, "--follow-links"])?;
        ensure!(std::fs::read(elsewhere.path())? == whole);
        std::fs::remove_file(&path)?;
    }
    // What a crash left of a file that was to replace it does no harm.
    std::fs::write(store.path().join("multifeed.roots.new"), &whole[..20])?;
    serves(&store, &["--key", &key])?;
    ensure!(std::fs::read(&path)? == whole && !store.path().join("multifeed.roots.new").exists());
    Ok(())
}

/// No store grows among other things by mistake.
#[test]
fn a_folder_of_other_things_becomes_a_store_only_if_asked_for() -> Result<()> {
    let store = Store::new()?;
    std::fs::create_dir(store.path().join("photos"))?;
    std::fs::write(store.path().join(".hidden"), "")?;
    let whole = "57".repeat(32);
    for command in [&["append", "w", "one"][..], &SERVE, &SYNC, &SWARM, &["ban", &whole]] {
        let error = refused(&store, command)?;
        ensure!(error["code"] == "ERR_NOT_A_STORE", "{command:?}: {error}");
        let said = error["message"].as_str().unwrap_or_default();
        ensure!(said.contains("photos") && said.contains("--init") && !said.contains("hidden"), "{said}");
    }
    ensure!(store.path().read_dir()?.count() == 2, "something was made");
    store.run(&["--init", "append", "w", "one"])?.ok()?;
    // It is a store from then on, and so is one of JS's, and a new disk.
    store.run(&["append", "w", "two"])?.ok()?;
    store.checked()?;
    let new = Store::new()?;
    std::fs::create_dir(new.path().join("lost+found"))?;
    std::fs::write(new.path().join(".hidden"), "")?;
    new.run(&["append", "w", "one"])?.ok()?;
    Ok(())
}
