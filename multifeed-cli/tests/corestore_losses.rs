//! The built command on a corestore of which something is lost: a writer that was removed, a core, the list of the feeds.

use crate::common;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use common::{Done, Store, TIMEOUT, copy};
use multifeed_testkit::js::{JsCorestore, JsPeer, corestore};
use serde_json::{Value, json};

/// A store with one root key.
struct Rooted(Store, String);

impl Rooted {
    fn new(byte: &str) -> Result<Self> {
        Ok(Self(Store::new()?, byte.repeat(32)))
    }

    fn run(&self, args: &[&str]) -> Result<Done> {
        self.0.run(&[&["--json", "--corestore", "--key", &self.1], args].concat())
    }

    /// The names and the lengths of its feeds.
    fn feeds(&self) -> Result<Vec<(String, u64)>> {
        let feeds = self.run(&["feeds"])?.objects()?;
        let feed = |feed: &Value| Some((feed["name"].as_str()?.to_owned(), feed["length"].as_u64()?));
        Ok(feeds.iter().filter_map(feed).collect())
    }

    /// What JS has of it: names and lengths.
    fn js_names(&self) -> Result<Vec<String>> {
        let js = JsCorestore::open(self.0.path(), &json!({"multifeeds": [{"key": self.1}]}))?;
        let names = js.multifeeds[0].iter().map(|(name, _)| name.clone().unwrap_or_default()).collect();
        js.close()?;
        Ok(names)
    }

    /// The folder of the core whose `name` ends so; of one that was fetched if that is empty.
    fn core(&self, name: &str) -> Result<PathBuf> {
        let folders = |path: &Path| -> Result<Vec<PathBuf>> {
            let entries = std::fs::read_dir(path)?.collect::<std::io::Result<Vec<_>>>()?;
            Ok(entries.into_iter().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
        };
        for first in folders(self.0.path())? {
            for second in folders(&first)? {
                for core in folders(&second)? {
                    let named = std::fs::read(core.join("name")).unwrap_or_default();
                    if if name.is_empty() { named.is_empty() } else { named.ends_with(name.as_bytes()) } {
                        return Ok(core);
                    }
                }
            }
        }
        anyhow::bail!("no core {name}")
    }

    /// Syncs with a JS peer, which connects or listens.
    fn sync(&self, js: &mut JsPeer, js_listens: bool) -> Result<()> {
        let options = ["--key", &self.1];
        if js_listens {
            let reply = js.call(json!({"cmd": "listen", "address": "127.0.0.1:0"}))?;
            let address: SocketAddr = reply["address"].as_str().context("no address")?.parse()?;
            self.0.sync(address, &options)?.ended(0)?;
        } else {
            let (ours, address) = self.0.serve(&[&options[..], &["--once"]].concat())?;
            js.connect(address)?;
            ours.ended(0)?;
        }
        js.event_within("ended", TIMEOUT)?;
        Ok(())
    }
}

#[test]
fn a_writer_that_was_removed_signs_no_second_history() -> Result<()> {
    for (js_listens, asks) in [(true, true), (false, false), (false, true)] {
        let store = Rooted::new("2a")?;
        store.run(&["append", "alice", "one", "two", "three"])?.ok()?;
        let mut js = JsPeer::spawn(&["--key", &store.1])?;
        store.sync(&mut js, js_listens)?;
        let key = js.feeds()?.first().context("JS has no feed")?.key.clone();
        store.run(&["remove", "--writer", "alice"])?.ok()?;
        store.run(&["unban", &key])?.ok()?;
        if asks {
            let (code, said) = store.run(&["append", "alice", "another"])?.failure()?;
            ensure!(
                code == "ERR_WRITER_OLDER" && said.contains("sync with a peer") && said.contains("another name"),
                "{code}: {said}"
            );
            // Again, and of another process.
            ensure!(store.run(&["append", "alice", "another"])?.failure()?.0 == "ERR_WRITER_OLDER");
        }
        store.sync(&mut js, js_listens)?;
        store.run(&["append", "alice", "four"])?.ok()?;
        store.run(&["verify"])?.ok()?;
        store.sync(&mut js, js_listens)?;
        let feeds = js.feeds()?;
        ensure!(feeds.len() == 1 && feeds[0].length == 4, "{feeds:?}");
        js.close()?;
        ensure!(store.feeds()? == [("alice".to_owned(), 4)]);
        ensure!(store.js_names()? == ["alice"]);
    }
    Ok(())
}

#[test]
fn a_writer_that_was_removed_and_is_put_back_is_listed_and_synced() -> Result<()> {
    for js_listens in [true, false] {
        let store = Rooted::new("2e")?;
        store.run(&["append", "alice", "one", "two"])?.ok()?;
        let core = store.core(":alice")?;
        let aside = tempfile::tempdir()?;
        copy(&core, &aside.path().join("core"))?;
        store.run(&["append", "alice", "three"])?.ok()?;
        let mut js = JsPeer::spawn(&["--key", &store.1])?;
        store.sync(&mut js, js_listens)?;
        let key = js.feeds()?.first().context("JS has no feed")?.key.clone();
        store.run(&["remove", "--writer", "alice"])?.ok()?;
        copy(&aside.path().join("core"), &core)?;
        store.run(&["unban", &key])?.ok()?;
        ensure!(store.feeds()? == [("alice".to_owned(), 2)], "{:?}", store.feeds()?);
        store.sync(&mut js, js_listens)?;
        ensure!(store.feeds()? == [("alice".to_owned(), 3)], "{:?}", store.feeds()?);
        store.run(&["append", "alice", "four"])?.ok()?;
        store.sync(&mut js, js_listens)?;
        let feeds = js.feeds()?;
        ensure!(feeds.len() == 1 && feeds[0].length == 4, "{feeds:?}");
        js.close()?;
        ensure!(store.js_names()? == ["alice"]);
    }
    Ok(())
}

/// JS makes a core that is gone by its key, without a `name`, and can never write it.
#[test]
fn a_core_that_js_made_without_a_name_is_the_writers_again() -> Result<()> {
    for (js_listens, removed) in [(true, true), (false, true), (true, false)] {
        let store = Rooted::new("2f")?;
        store.run(&["append", "alice", "one", "two"])?.ok()?;
        let core = store.core(":alice")?;
        let mut js = JsPeer::spawn(&["--key", &store.1])?;
        store.sync(&mut js, js_listens)?;
        if removed {
            let key = js.feeds()?.first().context("JS has no feed")?.key.clone();
            store.run(&["remove", "--writer", "alice"])?.ok()?;
            let made = corestore(store.0.path(), &json!({"steps": [{"key": key}]}))?;
            ensure!(made[0].length == 0 && !made[0].writable && !core.join("name").exists(), "{made:?}");
            store.run(&["unban", &key])?.ok()?;
        } else {
            std::fs::remove_file(core.join("name"))?;
        }
        let listed = store.run(&["feeds"])?;
        ensure!(!listed.text().contains("secret_key"), "{}", listed.text());
        store.sync(&mut js, js_listens)?;
        store.run(&["append", "alice", "three"])?.ok()?;
        ensure!(store.feeds()? == [("alice".to_owned(), 3)], "{:?}", store.feeds()?);
        let append = json!([{"seed": 1, "from": 0, "count": 1, "size": 10}]);
        let spec = json!({"multifeeds": [{"key": store.1, "writers": [{"name": "alice", "append": append}]}]});
        JsCorestore::open(store.0.path(), &spec)?.close()?;
        store.sync(&mut js, js_listens)?;
        ensure!(js.feeds()?.iter().map(|feed| feed.length).eq([4]), "{:?}", js.feeds()?);
        js.close()?;
    }
    Ok(())
}

#[test]
fn a_list_that_is_gone_is_told_and_made_anew_if_that_is_asked_for() -> Result<()> {
    let store = Rooted::new("2b")?;
    for name in ["alice", "bob"] {
        store.run(&["append", name, "one", "two"])?.ok()?;
    }
    let list = store.core("@multifeed:persist")?;
    let aside = tempfile::tempdir()?;
    copy(&list, &aside.path().join("list"))?;
    std::fs::remove_dir_all(&list)?;
    for command in ["feeds", "verify"] {
        let (code, said) = store.run(&[command])?.failure()?;
        ensure!(code == "ERR_STORE_DAMAGED", "{command}: {code}: {said}");
    }
    let found = store.run(&["verify"])?;
    ensure!(
        found.text().contains("is gone, and had 2 entries") && found.text().contains("--rebuild-list"),
        "{}",
        found.text()
    );
    store.run(&["append", "alice", "three"])?.ok()?;
    let (code, said) = store.run(&["append", "carol", "one"])?.failure()?;
    ensure!(code == "ERR_LIST_LOST" && said.contains("put its folder back"), "{code}: {said}");
    // What feeds there are is not known: no session is in sync.
    let mut js = JsPeer::spawn(&["--key", &store.1])?;
    let (ours, address) = store.0.serve(&["--key", &store.1, "--once"])?;
    js.connect(address)?;
    ours.ended(3)?;
    js.close()?;
    ensure!(!list.exists(), "a list was made");
    // Put back it is as before.
    copy(&aside.path().join("list"), &list)?;
    ensure!(store.feeds()? == [("alice".to_owned(), 3), ("bob".to_owned(), 2)], "{:?}", store.feeds()?);
    std::fs::remove_dir_all(&list)?;
    let made = store.run(&["verify", "--rebuild-list"])?.ok()?.objects()?;
    ensure!(made.iter().any(|event| event["event"] == "list-rebuilt" && event["feeds"] == 2), "{made:?}");
    store.run(&["append", "carol", "one"])?.ok()?;
    let expected = [("alice".to_owned(), 3), ("bob".to_owned(), 2), ("carol".to_owned(), 1)];
    ensure!(store.feeds()? == expected, "{:?}", store.feeds()?);
    let mut names = store.js_names()?;
    names.sort();
    ensure!(names == ["alice", "bob", "carol"], "{names:?}");
    Ok(())
}

/// By one root key and by two, as the one that connects and as the one that listens.
#[test]
fn with_a_lost_list_a_sync_names_what_helps_and_no_feed_as_new() -> Result<()> {
    let (store, remote) = (Rooted::new("2d")?, Rooted::new("2d")?);
    let two = "3d".repeat(32);
    for (rooted, name) in [(&store, "alice"), (&remote, "bob")] {
        rooted.run(&["append", name, "one"])?.ok()?;
        rooted.0.run(&["--key", &two, "append", name, "one"])?.ok()?;
    }
    let keys = [&["--key", &*store.1][..], &["--key", &store.1, "--key", &two]];
    let (server, address) = remote.0.serve(keys[1])?;
    store.0.sync(address, keys[1])?.ended(0)?;
    server.kill()?;
    std::fs::remove_dir_all(store.core(&format!("@multifeed:{}:@multifeed:persist", store.1))?)?;
    remote.run(&["append", "carol", "one"])?.ok()?;
    for keys in keys {
        let (server, address) = remote.0.serve(&[keys, &["--once"]].concat())?;
        let done = store.0.run(&[keys, &["sync", &address.to_string()]].concat())?.ended(3)?;
        server.ended(3)?;
        let said = done.text();
        ensure!(said.contains("is not taken") && said.contains("--rebuild-list"), "{said}");
        ensure!(!said.contains("--repair") && !said.contains("new feed"), "{said}");
        let (server, address) = store.0.serve(&[keys, &["--once"]].concat())?;
        remote.0.sync(address, keys)?.ended(3)?;
        let events = server.ended(3)?;
        let is_told = |event: &Value| event["message"].as_str().is_some_and(|told| told.contains("--rebuild-list"));
        ensure!(events.iter().any(|event| event["event"] == "damaged" && is_told(event)), "{events:?}");
        ensure!(!events.iter().any(|event| event["event"] == "feed" || event["event"] == "root-feed"), "{events:?}");
    }
    store.run(&["verify", "--rebuild-list"])?.ok()?;
    let (server, address) = remote.0.serve(keys[1])?;
    store.0.sync(address, keys[1])?.ended(0)?;
    server.kill()?;
    ensure!(store.feeds()?.len() == 3, "{:?}", store.feeds()?);
    Ok(())
}

#[test]
fn a_bad_byte_in_the_list_hides_one_feed_alone() -> Result<()> {
    let store = Rooted::new("2c")?;
    for name in ["alice", "bob", "carol"] {
        store.run(&["append", name, "one"])?.ok()?;
    }
    let data = store.core("@multifeed:persist")?.join("data");
    let whole = std::fs::read(&data)?;
    let mut bytes = whole.clone();
    bytes[20] ^= 1;
    std::fs::write(&data, &bytes)?;
    let feeds = store.run(&["feeds"])?;
    let (code, said) = feeds.failure()?;
    ensure!(
        code == "ERR_STORE_DAMAGED" && said.contains("block 0 of the list of feeds") && !said.contains("a sync with"),
        "{said}"
    );
    ensure!(store.feeds()?.iter().map(|feed| &*feed.0).eq(["bob", "carol"]), "{:?}", store.feeds()?);
    store.run(&["append", "alice", "two"])?.ok()?;
    store.run(&["append", "dave", "one"])?.ok()?;
    let made = store.run(&["verify", "--rebuild-list"])?.ok()?;
    ensure!(made.text().contains("list-rebuilt"), "{}", made.text());
    let mut names: Vec<_> = store.feeds()?.into_iter().collect();
    names.sort();
    ensure!(names.iter().map(|feed| &*feed.0).eq(["alice", "bob", "carol", "dave"]) && names[0].1 == 2, "{names:?}");
    let mut names = store.js_names()?;
    names.sort();
    ensure!(names == ["alice", "bob", "carol", "dave"], "{names:?}");
    Ok(())
}

#[test]
fn a_fetched_core_that_is_gone_is_told_as_in_a_folder_of_numbers() -> Result<()> {
    let said = |numbered: bool| -> Result<Vec<(Option<i32>, String)>> {
        let store = Rooted::new("2d")?;
        let run = |args: &[&str]| match numbered {
            true => store.0.run(&[&["--key", &store.1], args].concat()),
            false => store.0.run(&[&["--corestore", "--key", &store.1], args].concat()),
        };
        run(&["append", "alice", "one"])?.ok()?;
        let mut js = JsPeer::spawn(&["--key", &store.1])?;
        js.append("bob", 3, 10, 1)?;
        store.sync(&mut js, true)?;
        js.close()?;
        let gone = if numbered { store.0.path().join("1") } else { store.core("")? };
        std::fs::remove_dir_all(gone)?;
        let mut all = Vec::new();
        for command in ["feeds", "verify"] {
            let done = run(&[command])?;
            all.push((done.code, done.stderr));
        }
        run(&["append", "alice", "two"])?.ok()?;
        let after = run(&["feeds"])?;
        all.push((after.code, after.stderr));
        Ok(all)
    };
    let (cores, numbers) = (said(false)?, said(true)?);
    for (core, number) in cores.iter().zip(&numbers) {
        ensure!(core.0 == number.0, "{core:?}, {number:?}");
        let told = |text: &str| text.contains("of 3 blocks that was fetched") && text.contains("is gone");
        ensure!(told(&core.1) == told(&number.1), "{core:?}, {number:?}");
    }
    ensure!(cores[0].1.contains("is gone") && !cores[2].1.contains("is gone"), "{cores:?}");
    Ok(())
}

/// Whether a number stands for a folder in what was said.
fn numbers_a_folder(said: &str) -> bool {
    said.match_indices("folder ")
        .any(|(at, found)| said[at + found.len()..].starts_with(|next: char| next.is_ascii_digit()))
}

/// A corestore has no numbered folders: whatever is damaged of a core, it is named by its path, and by its key and name.
#[test]
fn what_is_wrong_with_a_core_is_told_by_its_path_key_and_name() -> Result<()> {
    type Harm = fn(&Path) -> Result<()>;
    fn flip(file: &Path, at: usize) -> Result<()> {
        let mut bytes = std::fs::read(file)?;
        *bytes.get_mut(at).context("it is shorter")? ^= 1;
        Ok(std::fs::write(file, bytes)?)
    }
    fn cut(file: &Path, len: usize) -> Result<()> {
        let bytes = std::fs::read(file)?;
        Ok(std::fs::write(file, &bytes[..len])?)
    }
    let harms: [(&str, &str, Harm); 7] = [
        ("a block", "alice", |core| flip(&core.join("data"), 1)),
        ("the end of data", "alice", |core| cut(&core.join("data"), 4)),
        ("the tree", "alice", |core| cut(&core.join("tree"), 40)),
        ("a header", "alice", |core| [1, 9].into_iter().try_for_each(|at| flip(&core.join("tree"), at))),
        ("the bitfield", "alice", |core| cut(&core.join("bitfield"), 0)),
        ("the tree of a feed that was fetched", "", |core| cut(&core.join("tree"), 40)),
        ("a node of a feed that was fetched", "", |core| flip(&core.join("tree"), 75)),
    ];
    for (what, name, harm) in harms {
        let store = Rooted::new("2e")?;
        store.run(&["append", "alice", "one", "two", "three"])?.ok()?;
        let mut js = JsPeer::spawn(&["--key", &store.1])?;
        js.append("bob", 3, 10, 1)?;
        store.sync(&mut js, true)?;
        js.close()?;
        let feeds = store.run(&["feeds"])?.objects()?;
        let name_of = if name.is_empty() { "1" } else { name };
        let key = feeds.iter().find(|feed| feed["name"] == name_of).context("no such feed")?["key"].clone();
        let key = key.as_str().context("no key")?;
        let core = store.core(name)?;
        let place = core.strip_prefix(store.0.path())?.to_str().context("no text")?.to_owned();
        harm(&core)?;
        let mut told = false;
        for command in [&["feeds"][..], &["verify"], &["cat", name_of], &["append", name_of, "four"], &["verify"]] {
            let done = store.run(command)?;
            let said = format!("{}{}", done.text(), done.stderr);
            ensure!(!numbers_a_folder(&said), "{what}, {command:?}: {said}");
            told |= said.contains(&place) && said.contains(&key[..8]);
        }
        ensure!(told, "{what} is not told by the core's path and key");
    }
    Ok(())
}
