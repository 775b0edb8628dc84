//! What commands say of a store in which something is damaged, and what they do not call damage.

use crate::common;

use std::fs;

use anyhow::{Context, Result, ensure};
use common::{Store, copy};
use multifeed_testkit::js::{self, JsPeer};
use multifeed_tokio::{Durability, Multifeed, Options};
use serde_json::json;

/// A store with so many writers `w0`, `w1` and so on, a block each: their keys.
fn writers(count: u32) -> Result<(Store, Vec<String>)> {
    let store = Store::new()?;
    let keys: Result<_> = (0..count).map(|n| store.append(&format!("w{n}"), &[format!("text of w{n}")])).collect();
    Ok((store, keys?))
}

/// A store that fetched a feed of three blocks, the feed's own store, and the feed's key.
fn fetched() -> Result<(Store, Store, String)> {
    let (writer, reader) = (Store::new()?, Store::new()?);
    let key = writer.append("w", &["one", "two", "three"])?;
    let (server, address) = writer.serve(&["--once"])?;
    reader.run(&["sync", &address.to_string()])?.ok()?;
    server.ended(0)?;
    Ok((reader, writer, key))
}

#[test]
fn what_the_next_command_that_writes_sets_in_order_is_no_damage() -> Result<()> {
    // A number that is free.
    let (store, keys) = writers(3)?;
    fs::remove_file(store.path().join("multifeed.journal"))?;
    fs::remove_dir_all(store.path().join("1"))?;
    for command in ["feeds", "verify"] {
        let done = store.run(&[command])?.ok()?;
        ensure!(done.stderr.is_empty() && !done.text().contains("damaged"), "{command}: {done:?}");
    }
    store.run(&["append", "w0", "more"])?.ok()?;
    ensure!(fs::read(store.path().join("1/key"))? == hex(&keys[2])?, "the number was not given to the last feed");

    // A copy to merge.
    let (reader, writer, _) = fetched()?;
    copy(&writer.path().join("0"), &reader.path().join("1"))?;
    for command in ["feeds", "verify"] {
        reader.run(&[command])?.ok()?;
    }
    ensure!(reader.run(&["append", "w", "four"])?.ok()?.stderr.contains("taken into it"));
    reader.run(&["verify"])?.ok()?;
    Ok(())
}

/// A fetched feed whose folder was copied inside the store: `verify` names the copy once and what to do, and that makes one folder of the two.
#[test]
fn two_copies_of_a_fetched_feed_are_made_one_by_verify_repair() -> Result<()> {
    let (reader, _, key) = fetched()?;
    copy(&reader.path().join("0"), &reader.path().join("1"))?;
    let done = reader.run(&["verify"])?.ended(1)?;
    let said = done.text();
    ensure!(said.matches("folder 1 holds feed").count() == 1 && said.contains("`verify --repair`"), "{said}");
    ensure!(done.text().contains(&format!("sound: feed {key}")), "{done:?}");
    let done = reader.run(&["--json", "verify", "--repair"])?.ok()?.objects()?;
    let joined = done.iter().find(|event| event["event"] == "folders-joined").context("nothing was joined")?;
    ensure!(joined["key"] == json!(key) && joined["folders"] == 1 && joined["blocks"] == 0, "{joined}");
    ensure!(!reader.path().join("1").exists() && reader.path().join("0/key").exists());
    ensure!(reader.run(&["verify"])?.ok()?.stderr.is_empty());

    // The folder in use lost what the other one has.
    copy(&reader.path().join("0"), &reader.path().join("1"))?;
    fs::write(reader.path().join("0/data"), "oneTWOthree")?;
    let done = reader.run(&["verify", "--repair"])?.ok()?.text();
    ensure!(done.contains("removed: 1 folder of feed") && done.contains("took in 1 block"), "{done}");
    ensure!(!done.contains("given up"), "{done}");
    ensure!(reader.run(&["cat", "0", "1"])?.ok()?.text().trim_end() == "two");
    Ok(())
}

/// A leaf of the tree that rotted: `verify` does not blame `data`, `append` does not say that all is repaired, and a repair says what it made.
#[test]
fn a_leaf_that_rotted_is_named_and_made_again_by_name() -> Result<()> {
    let store = Store::new()?;
    store.append("w", &["one", "two", "three", "four", "five"])?;
    let tree = store.path().join("0/tree");
    let mut bytes = fs::read(&tree)?;
    // The leaf of block 2, and the root above it, which opening makes again.
    [4, 3].into_iter().for_each(|node| bytes[32 + 40 * node + 5] ^= 1);
    fs::write(&tree, bytes)?;
    let done = store.run(&["verify"])?.ended(1)?.text();
    ensure!(done.contains("(`tree` of folder 0): block 2 is as it was written"), "{done}");
    ensure!(!done.contains("`data`"), "{done}");
    let appended = store.run(&["append", "w", "six"])?.ok()?.stderr;
    ensure!(appended.contains("as far as opening the store needs it") && appended.contains("`verify`"), "{appended}");
    store.run(&["verify"])?.ended(1)?;
    let done = store.run(&["verify", "--repair"])?.ok()?.text();
    ensure!(done.contains("made again: 1 tree node of feed"), "{done}");
    Ok(())
}

/// A writer's last block that rotted, which opening gives up: `verify` names `data`, and says it once.
#[test]
fn a_last_block_that_rotted_is_named_once_and_in_data() -> Result<()> {
    let store = Store::new()?;
    store.append("w", &["one", "two", "three"])?;
    fs::write(store.path().join("0/data"), "onetwothreX")?;
    let done = store.run(&["verify"])?.ended(1)?;
    let said: Vec<_> = done.text().lines().filter(|line| line.starts_with("damaged: ")).map(str::to_owned).collect();
    ensure!(said.len() == 1 && said[0].contains("(`data` of folder 0): block 2 of this writer"), "{said:?}");
    ensure!(done.stderr.contains("1 damaged feed"), "{done:?}");
    Ok(())
}

/// What is written again of a name is said as what a command that writes does: one that reads does not.
#[test]
fn an_emptied_name_is_put_back_by_the_next_command_that_writes() -> Result<()> {
    let (store, _) = writers(1)?;
    let name = store.path().join("0/localname");
    fs::write(&name, "")?;
    let said = store.run(&["feeds"])?.ended(1)?.stderr;
    ensure!(said.contains("`w0`") && said.contains("opening the store to write puts that back"), "{said}");
    ensure!(fs::read(&name)?.is_empty());
    store.run(&["append", "w0", "more"])?.ok()?;
    ensure!(fs::read(&name)? == b"w0");
    ensure!(store.run(&["feeds"])?.ok()?.stderr.is_empty());
    Ok(())
}

/// A writer's `key` that is gone is said to be, also by a command that does not write: JS takes the folder for an empty one then, and makes
/// another author in it.
#[test]
fn a_key_that_is_lost_is_put_back_by_the_next_command_that_writes() -> Result<()> {
    for is_empty in [false, true] {
        let (store, _) = writers(1)?;
        let key = store.path().join("0/key");
        let before = fs::read(&key)?;
        fs::remove_file(&key)?;
        if is_empty {
            fs::write(&key, "")?;
        }
        for command in ["feeds", "verify"] {
            let done = store.run(&[command])?.ended(1)?;
            let said = [done.text(), done.stderr].concat();
            ensure!(said.contains("`key` of folder 0"), "{command}: {said}");
            ensure!(said.contains("opening the store to write puts that back"), "{command}: {said}");
        }
        store.run(&["append", "w0", "more"])?.ok()?;
        ensure!(fs::read(&key)? == before);
        ensure!(store.run(&["verify"])?.ok()?.stderr.is_empty());
    }
    Ok(())
}

/// A byte of `localname` that changed: the writer is the one that it was, to ours and to JS.
#[test]
fn a_name_that_rotted_makes_no_other_author() -> Result<()> {
    let (store, keys) = writers(2)?;
    fs::write(store.path().join("1/localname"), "w3")?;
    let done = store.run(&["verify"])?.ended(1)?;
    ensure!(done.stderr.contains("`localname`") && done.stderr.contains("`w1`"), "{done:?}");
    let line = store.run(&["--json", "append", "w1", "more"])?.one_object(0)?;
    ensure!(line["key"] == keys[1] && line["start"] == 1, "{line}");
    let seen = js::audit(store.path())?;
    let found = seen.iter().find(|feed| feed.key == keys[1]).map(|feed| feed.name.as_deref());
    ensure!(seen.len() == 2 && found == Some(Some("w1")), "{seen:?}");
    ensure!(store.run(&["verify"])?.ok()?.stderr.is_empty());
    Ok(())
}

fn hex(text: &str) -> Result<Vec<u8>> {
    (0..text.len()).step_by(2).map(|at| Ok(u8::from_str_radix(&text[at..at + 2], 16)?)).collect()
}

#[test]
fn blocks_that_were_held_and_are_gone_are_damage() -> Result<()> {
    for (file, lost) in [("data", "not there: 3"), ("tree", "has 0 blocks")] {
        let (reader, writer, key) = fetched()?;
        ensure!(reader.run(&["verify"])?.ok()?.text().contains("sound"));
        fs::remove_file(reader.path().join("0").join(file))?;
        let done = reader.run(&["verify"])?.ended(1)?;
        ensure!(!done.text().contains("sound"), "{file}: {}", done.text());
        let said = done.text().contains("damaged: ") && done.text().contains(&key) && done.text().contains(lost);
        ensure!(said, "{done:?}");
        let lines = reader.run(&["--json", "verify"])?.ended(1)?.objects()?;
        ensure!(lines.iter().any(|line| line["event"] == "damaged" && line["key"] == key), "{lines:?}");
        let (server, address) = writer.serve(&["--once"])?;
        reader.run(&["sync", &address.to_string()])?.ok()?;
        server.ended(0)?;
        ensure!(reader.run(&["verify"])?.ok()?.text().contains("sound"), "{file}");
    }
    Ok(())
}

type Damage = fn(&mut Vec<u8>);

/// What the journal knows of a copy is not given up by a command that writes another feed: it is said each time, until a peer brings the rest.
#[test]
fn what_the_journal_knows_of_a_copy_is_said_until_it_is_back() -> Result<()> {
    let damages: [(&str, Damage); 4] = [
        ("tree", |bytes| bytes.truncate(60)),
        ("tree", |bytes| bytes.fill(0)),
        ("signatures", |bytes| bytes.clear()),
        ("signatures", |bytes| *bytes.last_mut().unwrap() ^= 1),
    ];
    for (file, damage) in damages {
        let (reader, writer, key) = fetched()?;
        reader.run(&["append", "mine", "a"])?.ok()?;
        let path = reader.path().join("0").join(file);
        let mut bytes = fs::read(&path)?;
        damage(&mut bytes);
        fs::write(&path, bytes)?;
        let data = fs::read(reader.path().join("0/data"))?;
        for _ in 0..2 {
            ensure!(reader.run(&["append", "mine", "b"])?.ok()?.stderr.contains(file));
            for command in ["feeds", "verify"] {
                let done = reader.run(&[command])?.ended(1)?;
                ensure!(done.stderr.contains(&format!("`{file}`")), "{command}: {done:?}");
            }
        }
        ensure!(fs::read(reader.path().join("0/data"))? == data, "{file}: its blocks were cut");
        // A peer that has none of it either.
        let other = Store::new()?;
        other.append("other", &["x"])?;
        let (server, address) = other.serve(&["--once"])?;
        let done = reader.run(&["sync", &address.to_string()])?;
        ensure!(done.stderr.contains(&format!("`{file}`")), "{file}: {done:?}");
        server.ended_with_one_of(&[0, 1, 3])?;
        let (server, address) = writer.serve(&["--once"])?;
        reader.run(&["sync", &address.to_string()])?.ok()?;
        server.ended(0)?;
        for command in ["feeds", "verify"] {
            let done = reader.run(&[command])?.ok()?;
            ensure!(done.stderr.is_empty() && done.text().contains(&key), "{file}, {command}: {done:?}");
        }
        // JS finds it whole, too.
        ensure!(js::audit(reader.path())?.iter().any(|feed| feed.key == key), "{file}");
    }
    Ok(())
}

/// A JS peer brings back what is lost of a copy: the tree, and the newest signature, which it is asked for.
#[test]
fn a_js_peer_brings_back_what_is_lost_of_a_copy() -> Result<()> {
    let damages: [(&str, Damage); 3] = [
        ("tree", |bytes| bytes.truncate(60)),
        ("signatures", |bytes| bytes.clear()),
        ("signatures", |bytes| *bytes.last_mut().unwrap() ^= 1),
    ];
    let js_store = Store::new()?;
    js::make(js_store.path(), &json!({"writers": [{"name": "js", "append": [{"count": 9, "size": 20}]}]}))?;
    let mut js = JsPeer::spawn(&["--store", js_store.text()])?;
    for (file, damage) in damages {
        let reader = Store::new()?;
        let mut sync = || -> Result<()> {
            let (server, address) = reader.serve(&["--once"])?;
            js.connect(address)?;
            server.ended(0)?;
            js.disconnect()
        };
        sync()?;
        let path = reader.path().join("0").join(file);
        let mut bytes = fs::read(&path)?;
        damage(&mut bytes);
        fs::write(&path, bytes)?;
        reader.run(&["append", "mine", "a"])?.ok()?;
        ensure!(reader.run(&["verify"])?.ended(1)?.stderr.contains(&format!("`{file}`")));
        sync()?;
        ensure!(reader.run(&["verify"])?.ok()?.stderr.is_empty(), "{file}");
        let found = js::audit(reader.path())?;
        ensure!(found.len() >= 2 && found.iter().all(js::JsFeed::is_sound), "{file}: {found:?}");
    }
    Ok(())
}

#[test]
fn a_damaged_journal_is_told_and_makes_no_other_author_of_a_lost_writer() -> Result<()> {
    let (store, keys) = writers(4)?;
    let journal = store.path().join("multifeed.journal");
    let mut bytes = fs::read(&journal)?;
    bytes[100..110].copy_from_slice(b"XXXXXXXXXX");
    fs::write(&journal, bytes)?;
    for command in ["feeds", "verify"] {
        let done = store.run(&[command])?.ended(1)?;
        ensure!(done.stderr.contains("`multifeed.journal` is damaged"), "{command}: {}", done.stderr);
    }
    fs::remove_dir_all(store.path().join("1"))?;
    // Also once the journal was written anew.
    for _ in 0..2 {
        let refused = store.run(&["--json", "append", "w1", "z"])?.one_object(1)?;
        ensure!(refused["code"] == "ERR_STORE_DAMAGED", "{refused}");
        ensure!(refused["message"].as_str().is_some_and(|text| text.contains("--new-key")), "{refused}");
        let line = store.run(&["--json", "append", "w0", "more"])?.one_object(0)?;
        ensure!(line["key"] == keys[0], "{line}");
    }
    store.run(&["append", "w0", "--new-key", "z"])?.ended(1)?;
    let line = store.run(&["--json", "append", "w1", "--new-key", "z"])?.one_object(0)?;
    ensure!(line["key"] != keys[1] && line["start"] == 0, "{line}");
    // Nobody is missing, says who deletes it.
    fs::remove_file(&journal)?;
    store.run(&["verify"])?.ok()?;
    store.run(&["append", "new", "z"])?.ok()?;
    ensure!(store.checked()?.len() == 5);
    Ok(())
}

#[test]
fn an_end_of_the_journal_that_is_missing_is_no_damage() -> Result<()> {
    let (store, _) = writers(2)?;
    let journal = store.path().join("multifeed.journal");
    let bytes = fs::read(&journal)?;
    for lost in [1, 20, 60] {
        fs::write(&journal, &bytes[..bytes.len() - lost])?;
        let done = store.run(&["verify"])?.ok()?;
        ensure!(done.stderr.is_empty(), "{lost}: {}", done.stderr);
    }
    Ok(())
}

/// More than are said one by one; each is a folder of files, which cost time on a busy disk.
const FEEDS: u32 = 300;

/// A store with many feeds that cannot be opened, and a peer that has them: a hundred lines say so, and the end is always said.
#[test]
fn of_many_feeds_that_cannot_be_opened_a_hundred_are_said_and_the_end() -> Result<()> {
    let (damaged, peer) = (Store::new()?, Store::new()?);
    let keys = common::block_on(async {
        // Syncing each of so many to the disk takes minutes on a busy one.
        let mut options = Options::default();
        options.multifeed.durability = Durability::None;
        let multi = Multifeed::open(damaged.path(), options).await?;
        let mut keys = Vec::new();
        for number in 0..FEEDS {
            let writer = multi.writer(format!("w{number}").as_str()).await?;
            writer.append(format!("text of w{number}")).await?;
            keys.push(writer.key().to_string());
        }
        multi.close().await?;
        Ok(keys)
    })?;
    let (serving, address) = damaged.serve(&["--once"])?;
    peer.sync(address, &[])?.ended(0)?;
    serving.ended(0)?;
    for folder in 0..FEEDS {
        std::fs::write(damaged.path().join(folder.to_string()).join("signatures"), "no signatures")?;
    }
    let check = |lines: Vec<serde_json::Value>| {
        let count = |event: &str| lines.iter().filter(|line| line["event"] == event).count();
        assert_eq!((count("damaged"), count("more-problems"), count("closed")), (100, 1, 1), "{}", lines.len());
        let [.., closed, last] = &lines[..] else { panic!("{lines:?}") };
        assert!(closed["event"] == "closed" && closed["in_sync"] == false, "{closed}");
        assert_eq!(last["code"], "ERR_NOT_IN_SYNC", "{last}");
        // By key, as no feed is named otherwise.
        let named = |line: &serde_json::Value| keys.iter().any(|key| line["key"] == **key);
        assert!(lines.iter().filter(|line| line["event"] == "damaged").all(named));
    };
    let (serving, address) = damaged.serve(&["--once"])?;
    let lines = peer.sync(address, &[])?.ended(3)?;
    ensure!(lines.iter().any(|line| line["event"] == "closed" && line["not_taken"] == FEEDS), "{:?}", lines.last());
    check(serving.ended(3)?);
    let (serving, address) = peer.serve(&["--once"])?;
    check(damaged.sync(address, &[])?.ended(3)?);
    // What it has is not taken there: the one sync of this server did not do what it was to.
    serving.ended(3)?;
    Ok(())
}

/// Changes a byte of a block in the middle of a feed.
fn rot(store: &Store, folder: &str) -> Result<()> {
    let data = store.path().join(folder).join("data");
    let mut bytes = fs::read(&data)?;
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    Ok(fs::write(&data, bytes)?)
}

/// A corrupt block is given up by `verify --repair`, and comes back with the next sync, from ours and from JS. So does one of a writer's own
/// feed, which appends nothing in its place.
#[test]
fn a_block_that_rotted_is_given_up_and_comes_back() -> Result<()> {
    let blocks = ["one", "two", "three", "four", "five"];
    for (writes, js_made) in [(true, false), (true, true), (false, false)] {
        let (ours, theirs) = (Store::new()?, Store::new()?);
        let (author, reader) = if writes { (&ours, &theirs) } else { (&theirs, &ours) };
        if js_made {
            js::make(ours.path(), &json!({"writers": [{"name": "w", "append": [{"count": 5, "batch": 2}]}]}))?;
        } else {
            author.append("w", &blocks)?;
        }
        let key = author.facts()?[0].key.clone();
        let sync = |code: i32| -> Result<()> {
            let (server, address) = theirs.serve(&["--once"])?;
            ours.sync(address, &[])?.ended(code)?;
            server.ended_with_one_of(&[0, 3]).map(drop)
        };
        sync(0)?;
        let whole = ours.facts()?;
        rot(&ours, "0")?;
        let damaged = ours.run(&["--json", "verify"])?.ended(1)?;
        ensure!(damaged.text().contains("damaged"), "{damaged:?}");
        let case = format!("ours writes: {writes}, JS made it: {js_made}");
        // A writer's block is missing until it is back; a copy only lacks it.
        let done = ours.run(&["--json", "verify", "--repair"])?.ended(i32::from(writes))?;
        let given_up =
            done.objects()?.into_iter().find(|event| event["event"] == "given-up").context("nothing given up")?;
        ensure!(given_up["key"] == key && given_up["blocks"] == json!([2]), "{case}: {given_up}");
        // Nothing is left to give up.
        let done = ours.run(&["--json", "verify", "--repair"])?.ended(i32::from(writes))?;
        ensure!(!done.text().contains("given-up"), "{case}: {done:?}");
        sync(0)?;
        for store in [&ours, reader] {
            ensure!(store.facts()? == whole, "{case}: {:?}, not {whole:?}", store.facts()?);
        }
        ours.run(&["verify"])?.ok().context(case.clone())?;
        if writes {
            let line = ours.run(&["--json", "append", "w", "six"])?.one_object(0)?;
            ensure!(line["key"] == *key && line["start"] == 5, "{case}: {line}");
            sync(0)?;
            ensure!(theirs.facts()?[0].length == 6, "{case}");
        }
    }
    // From a JS peer.
    let root = "22".repeat(32);
    let (js, address) = JsPeer::listen(&["--key", &root])?;
    let ours = Store::new()?;
    ours.append("w", &blocks)?;
    let address = address.to_string();
    let sync = || ours.run(&["sync", &address, "--key", &root])?.ok();
    sync()?;
    let whole = ours.facts()?;
    rot(&ours, "0")?;
    ours.run(&["verify", "--repair"])?.ended(1)?;
    sync()?;
    ensure!(ours.facts()? == whole, "JS did not bring it back");
    ours.run(&["verify"])?.ok()?;
    js.close()
}

/// A session that could not give a block, as it is corrupt here, is not in sync.
#[test]
fn a_sync_that_meets_a_rotted_block_does_not_say_that_both_hold_the_same() -> Result<()> {
    for serves in [true, false] {
        let (ours, theirs) = (Store::new()?, Store::new()?);
        ours.append("w", &["one", "two", "three", "four", "five"])?;
        rot(&ours, "0")?;
        let (server, client) = if serves { (&ours, &theirs) } else { (&theirs, &ours) };
        let (server, address) = server.serve(&["--once"])?;
        let mut running = client.sync(address, &[])?;
        let closed = running.event("closed")?;
        ensure!(closed["in_sync"] == false, "{closed}");
        running.ended_with_one_of(&[1, 3])?;
        server.ended_with_one_of(&[1, 3])?;
    }
    Ok(())
}

/// A sector of the tree, and a node of it: `verify --repair` makes again what the rest proves, and a JS peer brings the rest, of a feed that it wrote
/// and of one that was written here. Then JS finds all of it sound.
#[test]
fn what_rotted_of_the_tree_is_repaired_and_js_brings_the_rest() -> Result<()> {
    let root = "22".repeat(32);
    let (mut js, address) = JsPeer::listen(&["--key", &root])?;
    let theirs = js.append("theirs", 300, 20, 1)?;
    let ours = Store::new()?;
    let key = ours.append("w", &(0..300).map(|index| format!("block {index}")).collect::<Vec<_>>())?;
    let address = address.to_string();
    let sync = |code| ours.run(&["sync", &address, "--key", &root])?.ended(code);
    sync(0)?;
    let whole = ours.facts()?;
    for folder in ["0", "1"] {
        let tree = ours.path().join(folder).join("tree");
        let mut bytes = fs::read(&tree)?;
        bytes[4096..4608].fill(0);
        bytes[32 + 40 * 3] ^= 1;
        fs::write(&tree, bytes)?;
    }
    let (empty, to) = JsPeer::listen(&["--key", &root])?;
    let not_synced = ours.run(&["sync", &to.to_string(), "--key", &root])?.ended(3)?;
    ensure!(not_synced.text().matches("verify --repair").count() == 2, "{not_synced:?}");
    empty.close()?;
    let done = ours.run(&["--json", "verify", "--repair"])?.ended(1)?.objects()?;
    for feed in [&key, &theirs] {
        let of = |event: &str| done.iter().find(|line| line["event"] == event && line["key"] == **feed);
        let made = of("made-again").context("nothing made again")?;
        ensure!(made["nodes"].as_u64() >= Some(1) && made["signatures"] == 0, "{made}");
        let given_up = of("given-up").context("nothing given up")?;
        let blocks = given_up["blocks"].as_array().context("no blocks")?.len();
        // Of a copy all is given up that does not lead to a root any more.
        ensure!((1..33).contains(&blocks) && given_up["nodes"].as_u64() > Some(0), "{given_up}");
    }
    sync(0)?;
    ensure!(ours.facts()? == whole, "JS did not bring it back");
    let done = ours.run(&["--json", "verify", "--repair"])?.ok()?;
    ensure!(!done.text().contains("given-up") && !done.text().contains("made-again"), "{done:?}");
    js.close()?;
    let audited = js::audit(ours.path())?;
    ensure!(audited.len() == 2 && audited.iter().all(js::JsFeed::is_sound), "{audited:?}");
    Ok(())
}

/// A sector of the tree that was written to the wrong place, of a feed whose bytes repeat, fits the blocks that it leads to. Nothing wrong is read, a repair
/// gives up what no signature covers, and a JS peer brings it, of a feed that was written here and of a copy.
#[test]
fn a_sector_in_the_wrong_place_makes_no_block_another() -> Result<()> {
    let root = "23".repeat(32);
    let (js, address) = JsPeer::listen(&["--key", &root])?;
    let (writer, reader) = (Store::new()?, Store::new()?);
    let lines: Vec<_> = (0..300).map(|n| "ping ok\n".repeat([1, 2, 8, 1, 1, 2, 1][n * n % 83 % 7])).collect();
    let key = writer.append("w", &lines)?;
    let address = address.to_string();
    let sync = |store: &Store| store.run(&["sync", &address, "--key", &root])?.ended(0);
    sync(&writer)?;
    sync(&reader)?;
    for store in [&writer, &reader] {
        let whole = store.facts()?;
        let tree = store.path().join("0").join("tree");
        for (from, to) in [(5120, 7680), (12800, 5120), (2560, 20480), (17920, 10240)] {
            let case = format!("{from} to {to}");
            let mut bytes = fs::read(&tree)?;
            bytes.copy_within(from..from + 512, to);
            fs::write(&tree, bytes)?;
            let reads = || -> Result<()> {
                let blocks = lines.chunks(20).enumerate().map(|(at, lines)| (20 * at, lines));
                for (start, lines) in blocks.chain([(0, &lines[..])]) {
                    let range = format!("{start}..{}", start + lines.len());
                    let read = store.run(&["cat", &key, &range])?;
                    let is_whole = read.stdout == lines.concat().as_bytes();
                    ensure!(is_whole || read.code != Some(0), "{case}: {range}: {read:?}");
                }
                Ok(())
            };
            reads()?;
            store.run(&["verify"])?.ended(1)?;
            let repaired = store.run(&["verify", "--repair"])?;
            ensure!(matches!(repaired.code, Some(0 | 1)), "{case}: {repaired:?}");
            reads()?;
            sync(store)?;
            ensure!(store.facts()? == whole, "{case}: JS did not bring it back");
            store.run(&["verify"])?.ok()?;
        }
    }
    js.close()?;
    for store in [writer, reader] {
        let audited = js::audit(store.path())?;
        ensure!(audited.len() == 1 && audited.iter().all(js::JsFeed::is_sound), "{audited:?}");
    }
    Ok(())
}
