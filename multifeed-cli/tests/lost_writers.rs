//! Writers' folders that are gone, come back, or have names that JavaScript objects treat specially: what the command says, and what the real JS sees.

use crate::common;

use std::fs;

use anyhow::{Context, Result, ensure};
use common::{Store, copy, run};
use multifeed_testkit::js;
use serde_json::{Value, json};

/// A store with the writers `w0` to `w3`, a block each: their keys.
fn store() -> Result<(Store, Vec<String>)> {
    let store = Store::new()?;
    let keys: Result<_> = (0..4).map(|n| store.append(&format!("w{n}"), &[format!("text of w{n}")])).collect();
    Ok((store, keys?))
}

fn keys_of(feeds: &[Value]) -> Vec<&str> {
    feeds.iter().filter_map(|feed| feed["key"].as_str()).collect()
}

#[test]
fn a_lost_writer_is_reported_until_it_is_back_or_given_up_and_what_js_sees_meanwhile() -> Result<()> {
    let (store, keys) = store()?;
    let away = tempfile::tempdir()?;
    copy(&store.path().join("1"), away.path())?;
    fs::remove_dir_all(store.path().join("1"))?;

    for command in ["feeds", "verify"] {
        let done = store.run(&[command])?.ended(1)?;
        ensure!(done.stderr.contains(&keys[1]) && done.stderr.contains("`w1`"), "{command}: {}", done.stderr);
    }
    let found = store.run(&["--json", "verify"])?.ended(1)?.objects()?;
    let found = found.iter().find(|event| event["event"] == "damaged").context("it is not told")?;
    ensure!(found["key"] == keys[1] && found["name"] == "w1", "{found}");
    ensure!(found["message"].as_str().is_some_and(|text| text.contains(": 1 block was in folder 1. ")), "{found}");
    let refused = store.run(&["--json", "append", "w1", "next"])?.one_object(1)?;
    ensure!(refused["code"] == "ERR_WRITER_MISSING", "{refused}");
    store.run(&["append", "w1", "next"])?.ended(1)?;
    store.run(&["append", "w4", "another"])?.ok()?;
    ensure!(!store.path().join("1").exists() && store.path().join("4").is_dir(), "the number was given away");

    // JS opens the folders before the gap, and its next feed goes into it.
    let seen = js::audit(store.path())?;
    ensure!(seen.iter().map(|feed| feed.key.as_str()).eq([keys[0].as_str()]), "{seen:?}");
    js::make(store.path(), &json!({"writers": [{"name": "js", "append": [{"count": 1}]}]}))?;
    ensure!(store.path().join("1/key").exists(), "JS put it elsewhere");
    let done = store.run(&["--json", "feeds"])?.ended(1)?;
    ensure!(done.stderr.contains(&keys[1]) || done.text().contains(&keys[1]), "{done:?}");
    let refused = store.run(&["--json", "append", "w1", "next"])?.one_object(1)?;
    ensure!(refused["code"] == "ERR_WRITER_MISSING", "{refused}");

    // Back, under any number: the writer is as before, and JS sees all.
    copy(away.path(), &store.path().join("9"))?;
    let line = store.run(&["--json", "append", "w1", "next"])?.one_object(0)?;
    ensure!(line["key"] == keys[1] && line["start"] == 1, "{line}");
    ensure!(store.checked()?.len() == 6);
    Ok(())
}

#[test]
fn a_new_key_is_made_where_that_is_said_and_what_is_given_up_is_forgotten() -> Result<()> {
    let (store, keys) = store()?;
    fs::remove_dir_all(store.path().join("1"))?;
    let refused = store.run(&["--json", "append", "w0", "--new-key", "next"])?.one_object(1)?;
    ensure!(refused["message"].as_str().is_some_and(|text| text.contains("not missing")), "{refused}");
    let line = store.run(&["--json", "append", "w1", "--new-key", "next"])?.one_object(0)?;
    ensure!(line["key"] != keys[1] && line["start"] == 0, "{line}");
    let again = store.run(&["--json", "append", "w1", "more"])?.one_object(0)?;
    ensure!(again["key"] == line["key"] && again["start"] == 1, "{again}");

    store.run(&["remove", &keys[1]])?.ended(1)?;
    let given_up = store.run(&["--json", "remove", &keys[1], "--writer"])?.one_object(0)?;
    ensure!(given_up["key"] == keys[1] && given_up["length"] == 1, "{given_up}");
    store.run(&["verify"])?.ok()?;
    let feeds = store.run(&["--json", "feeds"])?.ok()?.objects()?;
    ensure!(feeds.iter().any(|feed| feed["key"] == keys[1] && feed["banned"] == true), "{feeds:?}");
    ensure!(store.checked()?.len() == 4);
    Ok(())
}

/// The writer that is in use keeps its name. The one that was lost is shown under its key, to JS too.
#[test]
fn a_lost_writer_that_returns_after_another_took_its_name_has_its_key_as_its_name() -> Result<()> {
    // Under its number, under another one, and where another feed has the number.
    for (is_taken, returns_to) in [(false, "1"), (false, "9"), (true, "9")] {
        let (store, keys) = store()?;
        let away = tempfile::tempdir()?;
        copy(&store.path().join("1"), away.path())?;
        fs::remove_dir_all(store.path().join("1"))?;
        if is_taken {
            // JS does.
            js::make(store.path(), &json!({"writers": [{"name": "js"}]}))?;
        }
        let new = store.run(&["--json", "append", "w1", "--new-key", "next"])?.one_object(0)?;
        ensure!(new["key"] != keys[1] && new["start"] == 0, "{new}");
        let missing = store.run(&["verify"])?.ended(1)?;
        ensure!(missing.stderr.contains(&keys[1]), "{missing:?}");
        copy(away.path(), &store.path().join(returns_to))?;

        let told = store.run(&["--json", "append", "w1", "more"])?;
        ensure!(told.stderr.contains("is named by its key now"), "{}", told.stderr);
        let line = told.one_object(0)?;
        ensure!(line["key"] == new["key"] && line["start"] == 1, "{line}");
        let feeds = store.run(&["--json", "feeds"])?.ok()?;
        ensure!(!feeds.stderr.contains("name"), "{}", feeds.stderr);
        let feeds = feeds.objects()?;
        let old = feeds.iter().find(|feed| feed["key"] == keys[1]).context("it is not shown")?;
        ensure!(old["name"] == keys[1] && old["writable"] == true && old["length"] == 1, "{old}");
        let line = store.run(&["--json", "append", &keys[1], "old"])?.one_object(0)?;
        ensure!(line["key"] == keys[1] && line["start"] == 1, "{line}");
        store.run(&["verify"])?.ok()?;
        let seen = js::audit(store.path())?;
        let named =
            |name: &str| seen.iter().find(|feed| feed.name.as_deref() == Some(name)).map(|feed| feed.key.clone());
        ensure!(
            named("w1").as_deref() == new["key"].as_str() && named(&keys[1]).as_ref() == Some(&keys[1]),
            "{seen:?}"
        );
    }
    Ok(())
}

#[test]
fn a_folder_of_a_writer_beside_the_feed_as_fetched_becomes_it() -> Result<()> {
    let (writer, reader) = (Store::new()?, Store::new()?);
    let key = writer.append("w", &["one", "two"])?;
    let other = reader.append("mine", &["a"])?;
    let (server, address) = writer.serve(&["--once"])?;
    reader.run(&["sync", &address.to_string()])?.ok()?;
    server.ended(0)?;
    writer.append("w", &["three"])?;
    copy(&writer.path().join("0"), &reader.path().join("2"))?;

    let done = reader.run(&["--json", "append", "w", "four"])?;
    ensure!(done.stderr.contains("taken into it"), "{}", done.stderr);
    let line = done.one_object(0)?;
    ensure!(line["key"] == key && line["start"] == 3 && line["length"] == 4, "{line}");
    let feeds = reader.run(&["--json", "feeds"])?.ok()?.objects()?;
    let mut expected = [key.as_str(), other.as_str()];
    let mut found = keys_of(&feeds);
    expected.sort_unstable();
    found.sort_unstable();
    ensure!(found == expected, "{feeds:?}");
    ensure!(reader.checked()?.len() == 2);
    Ok(())
}

#[test]
fn names_of_what_every_js_object_has() -> Result<()> {
    let (store, keys) = store()?;
    let refused = store.run(&["--json", "append", "constructor", "x"])?.one_object(1)?;
    ensure!(refused["code"] == "ERR_BAD_NAME", "{refused}");

    // As an earlier build made it; the journal would know the name.
    fs::write(store.path().join("1/localname"), "__proto__")?;
    fs::remove_file(store.path().join("multifeed.journal"))?;
    let feeds = store.run(&["--json", "feeds"])?.ok()?;
    ensure!(feeds.stderr.contains("__proto__") && feeds.stderr.contains(&keys[1]), "{}", feeds.stderr);
    let line = store.run(&["--json", "append", "__proto__", "next"])?.one_object(0)?;
    ensure!(line["key"] == keys[1] && line["start"] == 1, "{line}");

    // JS misses the feed, and its next writer gets the folder, and so the feed, of another one.
    let seen = js::audit(store.path())?;
    ensure!(seen.len() == 3 && seen.iter().all(|feed| feed.key != keys[1]), "{seen:?}");
    let js = tempfile::tempdir()?;
    copy(store.path(), js.path())?;
    let made = js::make(js.path(), &json!({"writers": [{"name": "new"}]}))?;
    let new = made.iter().find(|feed| feed.name.as_deref() == Some("new")).context("JS made no writer")?;
    ensure!(new.key == keys[3], "{made:?}");

    // No other feed can have that name, so that no message says to make one.
    fs::remove_dir_all(store.path().join("1"))?;
    for command in [&["append", "__proto__", "x"][..], &["append", "--new-key", "__proto__", "x"]] {
        let refused = store.run(&[&["--json"], command].concat())?.one_object(1)?;
        let message = refused["message"].as_str().context("no message")?;
        ensure!(message.contains("`__proto__`") && !message.contains("--new-key"), "{refused}");
    }
    Ok(())
}

#[test]
fn folders_of_old_releases_of_multifeed_open_in_js_after_ours_where_they_did_before() -> Result<()> {
    let releases: Vec<Value> =
        serde_json::from_str(include_str!("../../multifeed-core/tests/vectors/old_releases.json"))?;
    for release in &releases {
        let folder = tempfile::tempdir()?;
        for (path, file) in release["files"].as_object().context("no files")? {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().context("no folder")?)?;
            let digits = file["hex"].as_str().context("no bytes")?;
            let bytes: Result<Vec<u8>, _> =
                (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16)).collect();
            fs::write(&path, bytes?)?;
            fs::File::options().write(true).open(&path)?.set_len(file["length"].as_u64().context("no length")?)?;
        }
        let before = tempfile::tempdir()?;
        copy(folder.path(), before.path())?;
        let before = js::audit(before.path());
        let text = folder.path().to_str().context("not UTF-8")?;
        for (writer, start) in [("alice", 5), ("bob", 6)] {
            let line = run(&["--store", text, "--json", "append", writer, "by ours"], b"")?.one_object(0)?;
            ensure!(line["start"] == start, "{}: {line}", release["release"]);
        }
        run(&["--store", text, "verify"], b"")?.ok()?;
        let before = before.with_context(|| format!("JS did not open the folder of {} before", release["release"]))?;
        let after = js::audit(folder.path())?;
        ensure!(after.len() == before.len() && before.len() == 4, "{}: {after:?}", release["release"]);
        for (old, new) in before.iter().zip(&after) {
            let grew = u64::from(matches!(old.name.as_deref(), Some("alice" | "bob")));
            ensure!(new.key == old.key && new.name == old.name && new.writable == old.writable);
            ensure!(new.length == old.length + grew && new.is_sound() == old.is_sound(), "{old:?} {new:?}");
            ensure!(old.is_sound(), "{}: {old:?}", release["release"]);
        }
    }
    Ok(())
}

/// A writer's name that reads like the start of another feed's key means that writer, also while its folder is missing, or without its secret key.
#[test]
fn a_writers_name_never_stands_for_another_feed() -> Result<()> {
    let other = Store::new()?;
    let theirs = other.append("theirs", &["of another author"])?;
    for lost in ["folder", "emptied", "removed"] {
        let store = Store::new()?;
        let name = &theirs[..4];
        let ours = store.append(name, &["ours"])?;
        let (server, address) = other.serve(&["--once"])?;
        store.sync(address, &[])?.ended(0)?;
        server.ended(0)?;
        let secret = store.path().join("0/secret_key");
        match lost {
            "folder" => fs::remove_dir_all(store.path().join("0"))?,
            "emptied" => fs::write(&secret, "")?,
            _ => fs::remove_file(&secret)?,
        }
        let here = || -> Result<bool> {
            let facts = store.facts()?;
            Ok(facts.iter().any(|feed| feed.key == theirs && feed.downloaded == 1))
        };
        if lost == "folder" {
            let done = store.run(&["--json", "cat", name])?.ended(1)?;
            ensure!(done.stdout.is_empty() && done.stderr.contains(r#""code":"ERR_WRITER_MISSING""#), "{done:?}");
        } else {
            let done = store.run(&["cat", name])?.ok().context(lost)?;
            ensure!(done.text() == "ours", "{lost}: {done:?}");
            let feeds = store.run(&["--json", "feeds"])?.ended(1)?.objects()?;
            ensure!(feeds.iter().any(|feed| feed["key"] == ours && feed["name"] == name), "{lost}: {feeds:?}");
        }
        for command in [&["clear", name, "0..1"][..], &["remove", name], &["remove", name, "--ban"]] {
            let (code, message) = store.run(&[&["--json"], command].concat())?.failure()?;
            ensure!(!message.contains(&theirs), "{lost}, {command:?}: {code}, {message}");
            ensure!(here()?, "{lost}, {command:?}");
        }
        let done = store.run(&["--json", "ban", name])?;
        let banned = store.run(&["--json", "feeds"])?.objects()?;
        ensure!(!banned.iter().any(|line| line["key"] == theirs && line["banned"] == true), "{lost}: {done:?}");
        ensure!(here()?, "{lost}");
    }
    Ok(())
}
