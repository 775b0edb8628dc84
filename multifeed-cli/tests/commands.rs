//! The commands that work on one store, through the built binary: what they print, in both forms, and how they end.

use crate::common;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use common::{Running, Store, command, failure_of, fields, run};
use multifeed_testkit::blocks::blocks;
use multifeed_testkit::js;
use serde_json::{Value, json};

fn line(object: &Value) -> (&str, u64, u64) {
    let number = |name: &str| object[name].as_u64().unwrap_or(u64::MAX);
    (object["name"].as_str().unwrap_or_default(), number("start"), number("length"))
}

#[test]
fn append_feeds_and_cat() -> Result<()> {
    let store = Store::new()?;
    let first = store.run(&["--json", "append", "notes", "one", "two"])?.one_object(0)?;
    ensure!(fields(&first) == ["key", "length", "name", "start"], "{first}");
    assert_eq!(line(&first), ("notes", 0, 2));
    let second = store.run(&["append", "notes", "three", "--json"])?.one_object(0)?;
    assert_eq!(line(&second), ("notes", 2, 3));
    assert_eq!(first["key"], second["key"]);

    let feed = store.run(&["--json", "feeds"])?.one_object(0)?;
    assert_eq!(
        feed,
        json!({"key": first["key"], "name": "notes", "length": 3, "bytes": 11, "downloaded": 3, "writable": true})
    );
    let key = first["key"].as_str().context("no key")?;
    for (args, expected) in [
        (&["cat", "notes"][..], "onetwothree"),
        (&["cat", key], "onetwothree"),
        (&["cat", &key.to_uppercase()], "onetwothree"),
        (&["cat", &key[..6]], "onetwothree"),
        (&["cat", "notes", "1..2"], "two"),
        (&["cat", "notes", "1.."], "twothree"),
        (&["cat", "notes", "..1"], "one"),
        (&["cat", "notes", "2"], "three"),
        (&["cat", "notes", "3..3"], ""),
    ] {
        let done = store.run(args)?.ok()?;
        assert_eq!((done.text(), done.stderr), (expected.to_owned(), String::new()), "{args:?}");
    }

    let people = store.run(&["feeds"])?.ok()?.text();
    ensure!(people.contains(key) && people.contains("notes") && people.contains("writable"), "{people}");
    store.checked()?;
    Ok(())
}

#[test]
fn one_run_is_one_batch() -> Result<()> {
    let store = Store::new()?;
    store.run(&["append", "w", "a", "b", "c"])?.ok()?;
    store.run(&["append", "w", "d"])?.ok()?;
    // A signature stands at the end of each batch, zeros elsewhere: 64 bytes each, after 32 bytes of header.
    let signatures = std::fs::read(store.path().join("0/signatures"))?;
    let signed: Vec<bool> = signatures[32..].chunks(64).map(|one| one.iter().any(|byte| *byte != 0)).collect();
    assert_eq!(signed, [false, false, true, true]);
    Ok(())
}

#[test]
fn lines_of_stdin_become_blocks() -> Result<()> {
    for (stdin, expected) in [
        (&b""[..], vec![]),
        (b"\n", vec![&b""[..]]),
        (b"a", vec![b"a"]),
        (b"a\n", vec![b"a"]),
        (b"a\n\nb", vec![b"a", b"", b"b"]),
        (b"\xff\xfe\r\n\0\n\n", vec![b"\xff\xfe", b"\0", b""]),
    ] {
        let store = Store::new()?;
        let object = store.run_with(&["--json", "append", "w", "-"], stdin)?.one_object(0)?;
        assert_eq!(line(&object), ("w", 0, expected.len() as u64), "{stdin:?}");
        for (index, block) in expected.iter().enumerate() {
            let done = store.run(&["cat", "w", &index.to_string()])?.ok()?;
            assert_eq!(done.stdout, *block, "block {index} of {stdin:?}");
        }
    }
    Ok(())
}

#[test]
fn long_input_is_several_batches() -> Result<()> {
    let store = Store::new()?;
    let line = [vec![b'x'; (1 << 20) - 1], vec![b'\n']].concat();
    let stdin = line.repeat(35);
    let object = store.run_with(&["--json", "append", "w", "-"], &stdin)?.one_object(0)?;
    assert_eq!(self::line(&object), ("w", 0, 35));
    let signatures = std::fs::read(store.path().join("0/signatures"))?;
    let signed = signatures[32..].chunks(64).filter(|one| one.iter().any(|byte| *byte != 0)).count();
    assert_eq!(signed, 3);
    store.checked()?;
    Ok(())
}

#[test]
fn files_become_blocks() -> Result<()> {
    let store = Store::new()?;
    let files = tempfile::tempdir()?;
    let file = |name: &str, bytes: &[u8]| -> Result<String> {
        let path = files.path().join(name);
        std::fs::write(&path, bytes)?;
        Ok(path.to_str().context("not UTF-8")?.to_owned())
    };
    let (one, two, none) = (file("1", b"one\n")?, file("2", &[0, 255])?, file("3", b"")?);
    let object = store.run(&["--json", "append", "w", "--file", &one, "--file", &two, &none])?.one_object(0)?;
    assert_eq!(line(&object), ("w", 0, 3));
    assert_eq!(store.run(&["cat", "w"])?.ok()?.stdout, b"one\n\0\xff");

    let missing = files.path().join("missing");
    let missing = missing.to_str().context("not UTF-8")?;
    let (code, message) = store.run(&["--json", "append", "w", "--file", missing])?.failure()?;
    ensure!(code == "ERR_IO" && message.contains(missing), "{code}: {message}");
    let done = store.run(&["append", "w", "--file", missing])?.ended(1)?;
    ensure!(done.stdout.is_empty() && done.stderr.contains(missing), "{done:?}");
    Ok(())
}

#[test]
fn a_block_that_no_peer_could_be_sent_is_refused() -> Result<()> {
    let store = Store::new()?;
    store.run(&["append", "w", "small"])?.ok()?;
    let files = tempfile::tempdir()?;
    let path = files.path().join("large");
    // The first is stopped as it is read; the second only when its proof is counted too.
    for size in [(8 << 20) + 1, 8 << 20] {
        std::fs::write(&path, vec![1; size])?;
        let file = path.to_str().context("not UTF-8")?;
        let (code, message) = store.run(&["--json", "append", "w", "--file", file])?.failure()?;
        ensure!(code == "ERR_BLOCK_TOO_LARGE", "{size}: {code}: {message}");
    }
    let feed = store.run(&["--json", "feeds"])?.one_object(0)?;
    assert_eq!(feed["length"], 1);
    std::fs::write(&path, vec![1; (8 << 20) - 16384])?;
    store.run(&["append", "w", "--file", path.to_str().context("not UTF-8")?])?.ok()?;
    store.checked()?;
    Ok(())
}

#[test]
fn cat_names_what_it_cannot_find() -> Result<()> {
    let store = Store::new()?;
    let spec = json!({"copies": [{"append": [{"count": 6, "size": 4, "seed": 9}], "have": [[0, 2], [4, 6]]}]});
    let key = js::make(store.path(), &spec)?[0].key.clone();
    let held = blocks(6, 4, 9);

    let done = store.run(&["cat", &key])?.ended(1)?;
    assert_eq!(done.stdout, held[..2].concat(), "what stands before the hole is written");
    ensure!(done.stderr.contains("block 2") && done.stderr.contains(&key), "{}", done.stderr);
    let done = store.run(&["--json", "cat", &key, "3"])?.ended(1)?;
    ensure!(done.stdout.is_empty(), "stdout is for blocks");
    let (code, message) = failure_of(&serde_json::from_str(&done.stderr)?)?;
    ensure!(code == "ERR_BLOCK_NOT_HELD" && message.contains("block 3"), "{code}: {message}");
    assert_eq!(store.run(&["cat", &key, "4.."])?.ok()?.stdout, held[4..].concat());

    let done = store.run(&["cat", &key, "4..8"])?.ended(1)?;
    assert_eq!(done.stdout, held[4..].concat());
    ensure!(done.stderr.contains("block 6"), "{}", done.stderr);

    for feed in ["nobody", "zz", &"0".repeat(64)] {
        let done = store.run(&["--json", "cat", feed])?.ended(1)?;
        let (code, message) = failure_of(&serde_json::from_str(&done.stderr)?)?;
        ensure!(code == "ERR_FEED_NOT_FOUND" && message.contains(feed), "{code}: {message}");
    }
    Ok(())
}

#[test]
fn an_ambiguous_start_of_a_key_lists_the_feeds() -> Result<()> {
    let store = Store::new()?;
    // Of 17 keys two have the same first digit; names are longer than one character.
    for writer in 0..17 {
        store.run(&["append", &format!("writer-{writer}"), &format!("{writer}")])?.ok()?;
    }
    let keys: BTreeSet<String> = store
        .run(&["--json", "feeds"])?
        .objects()?
        .iter()
        .filter_map(|feed| feed["key"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(keys.len(), 17);
    let same = |digit: char| keys.iter().filter(move |key| key.starts_with(digit)).collect::<Vec<_>>();
    let digit = "0123456789abcdef".chars().find(|digit| same(*digit).len() > 1).context("no two keys")?;
    let done = store.run(&["cat", &digit.to_string()])?.ended(1)?;
    for key in same(digit) {
        ensure!(done.stderr.contains(key.as_str()), "{key} is not in {}", done.stderr);
    }
    let done = store.run(&["--json", "cat", &digit.to_string()])?.ended(1)?;
    assert_eq!(failure_of(&serde_json::from_str(&done.stderr)?)?.0, "ERR_FEED_AMBIGUOUS");
    Ok(())
}

#[test]
fn a_reader_that_goes_away_is_no_failure() -> Result<()> {
    let store = Store::new()?;
    store.append("w", &blocks(64, 1 << 16, 1))?;
    for args in [&["cat", "w"][..], &["feeds"], &["--json", "feeds"]] {
        let mut child = command(&[&store.option(), args].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut out = child.stdout.take().context("no stdout")?;
        let mut stderr = child.stderr.take().context("no stderr")?;
        if args[0] == "cat" {
            out.read_exact(&mut [0; 10])?;
        }
        drop(out);
        let mut said = String::new();
        stderr.read_to_string(&mut said)?;
        let status = child.wait()?;
        ensure!(said.is_empty() && status.code() == Some(0), "{args:?}: {status}: {said}");
    }
    Ok(())
}

#[test]
fn verify_names_the_damaged_block() -> Result<()> {
    let store = Store::new()?;
    let good = store.append("good", &blocks(10, 100, 1))?;
    let bad = store.append("bad", &blocks(10, 100, 2))?;
    let done = store.run(&["verify"])?.ok()?;
    ensure!(done.text().contains(&good) && done.text().contains(&bad), "{}", done.text());
    let objects = store.run(&["--json", "verify"])?.ok()?.objects()?;
    ensure!(objects.len() == 2 && objects.iter().all(|object| object["event"] == "verified"), "{objects:?}");

    let path = store.path().join("1/data");
    let mut data = std::fs::read(&path)?;
    data[350] ^= 1;
    std::fs::write(&path, data)?;
    let done = store.run(&["verify"])?.ended(1)?;
    ensure!(format!("{}{}", done.text(), done.stderr).contains("block 3"), "{done:?}");
    let done = store.run(&["--json", "verify"])?.ended(1)?;
    let objects = done.objects()?;
    let damaged: Vec<&Value> = objects.iter().filter(|object| object["event"] == "damaged").collect();
    ensure!(damaged.len() == 1 && damaged[0]["block"] == 3 && damaged[0]["key"] == *bad, "{objects:?}");
    ensure!(objects.iter().any(|object| object["event"] == "verified" && object["key"] == *good), "{objects:?}");
    assert_eq!(failure_of(objects.last().context("none")?)?.0, "ERR_STORE_DAMAGED");
    Ok(())
}

#[test]
fn a_damaged_folder_harms_no_other() -> Result<()> {
    let store = Store::new()?;
    let good = store.append("good", &blocks(3, 3, 1))?;
    store.append("bad", &blocks(3, 3, 2))?;
    // With the one or the other it would be opened.
    ["key", "secret_key"].iter().try_for_each(|file| std::fs::write(store.path().join("1").join(file), [1; 7]))?;
    let done = store.run(&["--json", "feeds"])?.ended(1)?;
    let objects = done.objects()?;
    ensure!(objects.len() == 2 && objects[0]["key"] == *good, "{objects:?}");
    assert_eq!(failure_of(&objects[1])?.0, "ERR_STORE_DAMAGED");
    let objects = store.run(&["--json", "verify"])?.ended(1)?.objects()?;
    let damaged = objects.iter().find(|object| object["event"] == "damaged").context("nothing is damaged")?;
    ensure!(damaged["message"].as_str().is_some_and(|message| message.contains('1')), "{damaged}");
    assert_eq!(store.run(&["cat", "good"])?.ok()?.stdout, blocks(3, 3, 1).concat());

    // What is in it stays in place: a writer's that the journal knows.
    store.run(&["append", "new", "a"])?.ok()?;
    assert_eq!(std::fs::read(store.path().join("1/key"))?, [1; 7]);
    assert_eq!(std::fs::read(store.path().join("2/key"))?.len(), 32);
    let (server, address) = store.serve(&["--once"])?;
    let other = Store::new()?;
    other.sync(address, &[])?.ended(0)?;
    // Whose it is nobody knows: the peer may lack it.
    server.ended(3)?;
    assert_eq!(other.facts()?.len(), 2);
    Ok(())
}

#[test]
fn a_file_that_cannot_be_read_harms_no_other_feed() -> Result<()> {
    for file in ["tree", "data", "signatures", "bitfield", "key", "secret_key"] {
        let store = Store::new()?;
        let good = store.append("good", &blocks(3, 3, 1))?;
        store.append("bad", &blocks(3, 3, 2))?;
        let path = store.path().join("1").join(file);
        std::fs::remove_file(&path)?;
        std::fs::create_dir(&path)?;
        let objects = store.run(&["--json", "feeds"])?.ended(1)?.objects()?;
        // Without its secret key it is read.
        let shown = 1 + usize::from(file == "secret_key");
        ensure!(objects.len() == shown + 1 && objects[0]["key"] == *good, "{file}: {objects:?}");
        let (code, message) = failure_of(&objects[shown])?;
        ensure!(code == "ERR_STORE_DAMAGED" && message.contains(file), "{code} {message}");
        store.run(&["append", "good", "more"])?.ok()?;
        // A second writer of that name would be another one.
        store.run(&["append", "bad", "more"])?.ended(1)?;
    }
    Ok(())
}

#[test]
fn a_lost_secret_key_and_a_stale_name_are_told() -> Result<()> {
    let (store, other) = (Store::new()?, Store::new()?);
    let key = store.append("w", &blocks(3, 3, 1))?;
    let theirs = other.append("theirs", &blocks(3, 3, 2))?;
    let (server, address) = other.serve(&["--once"])?;
    store.sync(address, &[])?.ended(0)?;
    server.ended(0)?;
    store.run(&["verify"])?.ok()?;
    std::fs::write(store.path().join("1/localname"), "stale")?;
    std::fs::remove_file(store.path().join("0/secret_key"))?;
    let objects = store.run(&["--json", "feeds"])?.ended(1)?.objects()?;
    ensure!(objects.len() == 3 && objects[0]["key"] == *key && objects[1]["key"] == *theirs, "{objects:?}");
    let (_, message) = failure_of(&objects[2])?;
    ensure!(message.contains("`secret_key` of folder 0") && message.contains("`localname` of folder 1"), "{message}");
    assert_eq!(store.run(&["cat", &key])?.ok()?.stdout, blocks(3, 3, 1).concat());
    Ok(())
}

#[test]
fn a_writer_whose_secret_key_is_lost_is_not_made_anew() -> Result<()> {
    let store = Store::new()?;
    store.append("w", &blocks(3, 3, 1))?;
    std::fs::remove_file(store.path().join("0/secret_key"))?;
    for _ in 0..2 {
        let done = store.run(&["append", "w", "more"])?.ended(1)?;
        ensure!(done.stderr.contains("`secret_key` of folder 0"), "{done:?}");
        ensure!(!store.path().join("1").exists());
    }
    Ok(())
}

/// A live sync that found two histories and is ended by the user says so.
#[test]
fn two_histories_are_told_at_the_end_of_a_live_sync() -> Result<()> {
    let (first, second) = (Store::new()?, Store::new()?);
    first.append("w", &blocks(3, 3, 1))?;
    copy_folder(&first, &second)?;
    first.append("w", &blocks(2, 3, 2))?;
    second.append("w", &blocks(4, 3, 3))?;
    let reader = Store::new()?;
    let (server, address) = first.serve(&["--once"])?;
    reader.sync(address, &[])?.ended(0)?;
    server.ended(0)?;
    let (server, address) = second.serve(&["--live"])?;
    for how in [&["--live"][..], &["--live", "--retry"]] {
        let mut live = reader.sync(address, how)?;
        live.wait_for("a conflict", |event| event["event"] == "conflict" || event["event"] == "root-conflict")?;
        live.signal("INT")?;
        let events = live.ended(3)?;
        assert_eq!(failure_of(events.last().expect("an error"))?.0, "ERR_CONFLICT", "{how:?}");
    }
    server.kill()
}

#[test]
fn two_histories_of_a_writer_are_told() -> Result<()> {
    let (first, second, reader) = (Store::new()?, Store::new()?, Store::new()?);
    let key = first.append("w", &blocks(3, 3, 1))?;
    copy_folder(&first, &second)?;
    first.append("w", &blocks(2, 3, 2))?;
    second.append("w", &blocks(4, 3, 3))?;
    let (server, address) = first.serve(&["--once"])?;
    reader.sync(address, &[])?.ended(0)?;
    server.ended(0)?;
    let (server, address) = second.serve(&["--once"])?;
    let mut client = reader.sync(address, &[])?;
    let told = client.event("conflict")?;
    ensure!(told["key"] == *key && told["lengths"] == json!([5, 7]), "{told}");
    assert_eq!(failure_of(client.ended(3)?.last().expect("an error"))?.0, "ERR_CONFLICT");
    // It may hear of it from the other before it finds it out.
    server.ended_with_one_of(&[1, 3])?;
    let done = reader.run(&["verify"])?.ok()?;
    ensure!(done.stderr.contains("multifeed.conflicts") && done.stderr.contains(&key), "{done:?}");
    let fork = json!({"key": key, "name": "0", "lengths": [5, 7]});
    assert_eq!(reader.run(&["--json", "conflicts"])?.one_object(0)?, fork);
    // What was given up is not said again.
    reader.run(&["remove", &key, "--ban"])?.ok()?;
    ensure!(reader.run(&["verify"])?.ok()?.stderr.is_empty(), "it is gone");
    let (live, _) = reader.serve(&["--live"])?;
    let fork = json!({"key": key, "name": null, "lengths": [5, 7]});
    assert_eq!(reader.run(&["--json", "conflicts", "--clear"])?.one_object(0)?, fork);
    ensure!(reader.run(&["--json", "conflicts"])?.ok()?.stdout.is_empty());
    live.signal("TERM")?;
    live.ended(0)?;
    assert_eq!(reader.run(&["conflicts"])?.ok()?.text(), "no forks are on record\n");
    // The two of them, too, when they meet.
    let (server, address) = first.serve(&["--once"])?;
    let mut client = second.sync(address, &[])?;
    let told = client.event("conflict")?;
    ensure!(told["key"] == *key && told["lengths"] == json!([7, 5]), "{told}");
    client.ended(3)?;
    server.ended_with_one_of(&[1, 3])?;
    Ok(())
}

#[test]
fn a_restored_copy_of_a_writer_goes_on_where_the_other_ended() -> Result<()> {
    let (first, second) = (Store::new()?, Store::new()?);
    let key = first.append("w", &blocks(3, 3, 1))?;
    copy_folder(&first, &second)?;
    first.append("w", &blocks(4, 3, 2))?;
    let (server, address) = first.serve(&["--once"])?;
    let mut client = second.sync(address, &[])?;
    let told = client.event("writer-behind")?;
    ensure!(told["key"] == *key && told["lengths"] == json!([3, 7]), "{told}");
    client.ended(0)?;
    server.ended(0)?;
    second.append("w", &blocks(1, 3, 3))?;
    let all: Vec<u8> = [blocks(3, 3, 1), blocks(4, 3, 2), blocks(1, 3, 3)].concat().concat();
    assert_eq!(second.run(&["cat", &key])?.ok()?.stdout, all);
    Ok(())
}

/// The first folder, as a copy of a store has it.
fn copy_folder(from: &Store, to: &Store) -> Result<()> {
    std::fs::create_dir(to.path().join("0"))?;
    for entry in std::fs::read_dir(from.path().join("0"))? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.path().join("0").join(entry.file_name()))?;
    }
    Ok(())
}

#[test]
fn a_store_in_use_is_locked() -> Result<()> {
    let store = Store::new()?;
    store.run(&["append", "w", "a"])?.ok()?;
    let (server, _) = store.serve(&[])?;
    // All else goes through the process that has it: see through.rs.
    for args in [&["sync", "127.0.0.1:1"][..], &["serve", "127.0.0.1:0"]] {
        let (code, message) = store.run(&[&["--json"], args].concat())?.failure()?;
        ensure!(code == "ERR_STORE_LOCKED" && message.contains(store.text()), "{args:?}: {code}: {message}");
    }
    server.signal("INT")?;
    server.ended(0)?;
    store.run(&["append", "w", "b"])?.ok()?;
    Ok(())
}

#[test]
fn reading_makes_no_store() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("none");
    let store = path.to_str().context("not UTF-8")?;
    assert_eq!(run(&["--store", store, "--json", "feeds"], b"")?.ok()?.text(), "");
    ensure!(run(&["--store", store, "feeds"], b"")?.ok()?.text().contains("no feeds"), "people are told");
    // A store that was mistyped is not sound.
    let verified = run(&["--store", store, "--json", "verify"], b"")?;
    assert_eq!(verified.failure()?.0, "ERR_NO_STORE");
    // What cannot be read makes no store either.
    run(&["--store", store, "append", "w", "--file", "/nowhere/at/all"], b"")?.ended(1)?;
    run(&["--store", store, "cat", "w"], b"")?.ended(1)?;
    ensure!(!path.exists(), "{store} was made");
    Ok(())
}

#[test]
fn a_store_that_is_a_file() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("file");
    std::fs::write(&path, b"not a folder")?;
    let done = run(&["--store", path.to_str().context("not UTF-8")?, "--json", "append", "w", "a"], b"")?;
    let (_, message) = done.failure()?;
    ensure!(message.contains("file"), "{message}");
    assert_eq!(std::fs::read(&path)?, b"not a folder");
    Ok(())
}

#[test]
fn wrong_command_lines() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("key");
    std::fs::write(&file, "xyz")?;
    let file = file.to_str().context("not UTF-8")?;
    let key = "11".repeat(32);
    for (args, exit, word) in [
        (&["append", "w"][..], 2, "TEXT"),
        (&["append", "w", "-", "a"], 2, "stdin"),
        (&["append", "w", "a", "--file", "f"], 2, "cannot be used with"),
        (&["cat", "w", "5..2"], 2, "ends before it starts"),
        (&["serve", "7000"], 2, "HOST:PORT"),
        (&["serve", "127.0.0.1:0", "--max-peers", "0"], 2, "1 or more"),
        (&["serve", "127.0.0.1:0", "--max-per-address", "0"], 2, "1 or more"),
        (&["--durability", "interval:0", "feeds"], 2, "longer than 0 seconds"),
        (&["nonsense"], 2, "nonsense"),
        (&["--corestore", "--namespace", "", "feeds"], 2, "--namespace"),
        (&["--key", "abc", "feeds"], 2, "64 hex digits"),
        (&["--key", &key, "--key-file", file, "feeds"], 2, "64 hex digits"),
        (&["--key-file", file, "feeds"], 2, "64 hex digits"),
        (&["--key-file", "/nowhere/key", "feeds"], 2, "/nowhere/key"),
    ] {
        let store = Store::new()?;
        let done = store.run(args)?.ended(exit)?;
        ensure!(done.stdout.is_empty() && done.stderr.contains(word), "{args:?}: {done:?}");
        let done = store.run(&[&["--json"], args].concat())?.ended(exit)?;
        // The stdout of `cat` is for blocks.
        let (said, silent) = if args[0] == "cat" { (&done.stderr, &done.text()) } else { (&done.text(), &done.stderr) };
        ensure!(silent.is_empty(), "{args:?}: {done:?}");
        let (code, message) = failure_of(&serde_json::from_str(said)?)?;
        let expected = if args[0].starts_with("--key") { "ERR_KEY" } else { "ERR_USAGE" };
        ensure!(code == expected && message.contains(word), "{code}: {message}");
    }
    let output = command(&["feeds"]).env("MULTIFEED_KEY", "12").current_dir(folder.path()).output()?;
    ensure!(String::from_utf8_lossy(&output.stderr).contains("MULTIFEED_KEY"), "{output:?}");
    Ok(())
}

#[test]
fn help_teaches() -> Result<()> {
    let all = run(&["--help"], b"")?.ok()?.text();
    for word in [
        "append",
        "feeds",
        "cat",
        "serve",
        "sync",
        "verify",
        "demo",
        "--store",
        "MULTIFEED_KEY",
        "Examples:",
        "Exit codes:",
    ] {
        ensure!(all.contains(word), "{word} is not in the help");
    }
    for name in ["append", "feeds", "cat", "serve", "sync", "verify", "demo"] {
        let help = run(&["help", name], b"")?.ok()?.text();
        ensure!(help.contains("Usage:") && help.contains("--json"), "{help}");
    }
    Ok(())
}

#[test]
fn the_demo_shows_two_stores_in_sync() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let output = command(&["demo"]).current_dir(folder.path()).output()?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Each of the two feeds is listed in both stores.
    let keys: Vec<&str> = text
        .split_whitespace()
        .filter(|word| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit()))
        .collect();
    let different: BTreeSet<&&str> = keys.iter().collect();
    ensure!(different.len() == 2, "{text}");
    for key in different {
        ensure!(keys.iter().filter(|other| *other == key).count() >= 2, "{key} is not in both stores: {text}");
    }
    ensure!(std::fs::read_dir(folder.path())?.next().is_none(), "the demo left something behind");
    Ok(())
}

#[test]
fn stdin_is_not_read_into_memory_whole() -> Result<()> {
    let store = Store::new()?;
    let mut append = Running::start_with_input(&[&store.option()[..], &["--json", "append", "w", "-"]].concat())?;
    let mut stdin = append.take_input().context("no stdin")?;
    let line = [vec![b'x'; (1 << 20) - 1], vec![b'\n']].concat();
    // While input is open, the first batches are in the store already.
    for _ in 0..40 {
        stdin.write_all(&line)?;
    }
    let data = store.path().join("0/data");
    append.until(|| data.metadata().is_ok_and(|data| data.len() >= 16 << 20))?;
    drop(stdin);
    let events = append.ended(0)?;
    assert_eq!(events.last().map(|object| object["length"].as_u64()), Some(Some(40)));
    Ok(())
}

#[test]
fn a_live_sync_tells_when_both_sides_hold_the_same() -> Result<()> {
    let (one, other) = (Store::new()?, Store::new()?);
    one.append("one", &blocks(50, 100, 1))?;
    other.append("other", &blocks(20, 100, 2))?;
    let (mut server, address) = one.serve(&["--live"])?;
    let mut client = other.sync(address, &["--live"])?;
    for (side, received) in [(&mut server, 20), (&mut client, 50)] {
        let state = side.wait_for("a sync", |event| event["in_sync"] == true)?;
        ensure!(state["event"] == "progress" && state["blocks_received"] == received, "{state}");
        ensure!(state["missing"] == 0 && state["missing_there"] == 0 && state["in_flight"] == 0, "{state}");
        ensure!(state["per_second"]["blocks_received"] == received, "younger than a second: {state}");
    }
    client.signal("INT")?;
    client.ended(0)?;
    server.signal("INT")?;
    server.ended(0)?;
    ensure!(one.checked()? == other.checked()?, "not in sync");
    Ok(())
}

#[test]
fn removed_and_banned_feeds() -> Result<()> {
    let store = Store::new()?;
    let key = |name: &str| -> Result<String> {
        let object = store.run(&["--json", "append", name, "a block"])?.one_object(0)?;
        Ok(object["key"].as_str().context("no key")?.to_owned())
    };
    let (first, second, third) = (key("first")?, key("second")?, key("third")?);
    let (code, message) = store.run(&["--json", "remove", "first"])?.failure()?;
    ensure!(code == "ERR_OWN_WRITER" && message.contains("--writer"), "{code}: {message}");
    let gone = store.run(&["--json", "remove", "first", "--writer"])?.one_object(0)?;
    assert_eq!((gone["key"].as_str(), gone["name"].as_str()), (Some(&first[..]), Some("first")));
    ensure!(store.path().join("1/key").exists() && !store.path().join("2").exists());
    let (code, _) = store.run(&["--json", "remove", &first])?.failure()?;
    assert_eq!(code, "ERR_FEED_NOT_FOUND");

    // By name, by the start of a key, and by a whole key that is nowhere here.
    let elsewhere = "ab".repeat(32);
    for feed in ["second", &third[..8], &elsewhere] {
        store.run(&["ban", feed])?.ok()?;
    }
    let again = store.run(&["ban", &elsewhere])?.ok()?.text();
    ensure!(again.contains("was banned before"), "{again}");
    let banned = || -> Result<BTreeSet<String>> {
        let lines = store.run(&["--json", "feeds"])?.objects()?;
        let lines = lines.iter().filter(|line| line["banned"] == true);
        Ok(lines.filter_map(|line| line["key"].as_str().map(str::to_owned)).collect())
    };
    let all: BTreeSet<String> = [&first, &second, &third, &elsewhere].into_iter().cloned().collect();
    assert_eq!(banned()?, all);
    let people = store.run(&["feeds"])?.ok()?.text();
    ensure!(people.contains(&format!("banned: {elsewhere}")), "{people}");
    let line = store.run(&["--json", "unban", "second"])?.one_object(0)?;
    assert_eq!(line, json!({"key": second, "banned": false}));
    assert_eq!(banned()?.len(), 3);
    // A sync neither gives nor takes what is banned, and `--ban` is both in one.
    let other = Store::new()?;
    let theirs = other.run(&["--json", "append", "theirs", "a block"])?.one_object(0)?;
    let theirs = theirs["key"].as_str().context("no key")?;
    let sync = |code| -> Result<()> {
        let (server, address) = store.serve(&["--once"])?;
        other.sync(address, &[])?.ended(code)?;
        server.ended(0).map(drop)
    };
    sync(0)?;
    assert_eq!((other.facts()?.len(), store.facts()?.len()), (2, 3));
    store.run(&["remove", theirs, "--ban"])?.ok()?;
    // The other side learns that its feed is not taken any more.
    sync(3)?;
    assert_eq!((other.facts()?.len(), store.facts()?.len()), (2, 2));
    store.checked()?;
    Ok(())
}

/// The command as a user who may read a folder and not write it. Root may write everything, and so becomes somebody else, with a copy of the
/// command that everybody may run.
#[cfg(unix)]
struct Reader {
    command: std::path::PathBuf,
    is_root: bool,
    _folder: tempfile::TempDir,
}

#[cfg(unix)]
impl Reader {
    fn new() -> Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir()?;
        allow(folder.path(), 0o755)?;
        let command = folder.path().join("multifeed");
        std::fs::copy(env!("CARGO_BIN_EXE_multifeed"), &command)?;
        allow(&command, 0o755)?;
        Ok(Self { command, is_root: folder.path().metadata()?.uid() == 0, _folder: folder })
    }

    fn run(&self, store: &Store, args: &[&str]) -> Result<common::Done> {
        use std::os::unix::process::CommandExt;
        let mut command = std::process::Command::new(&self.command);
        command.args(store.option()).args(args).env_remove("MULTIFEED_KEY").env_remove("RUST_LOG").stdin(Stdio::null());
        if self.is_root {
            command.uid(65534).gid(65534);
        }
        let output = command.output()?;
        Ok(common::Done {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

#[cfg(unix)]
fn allow(path: &std::path::Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?)
}

/// Lets everybody read a folder and nobody write it, or its owner alone do both.
#[cfg(unix)]
fn seal(path: &std::path::Path, sealed: bool) -> Result<()> {
    let (folder, file) = if sealed { (0o555, 0o444) } else { (0o700, 0o600) };
    allow(
        path,
        if path.is_dir() && !sealed {
            0o700
        } else if path.is_dir() {
            0o755
        } else {
            file
        },
    )?;
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            seal(&entry?.path(), sealed)?;
        }
        allow(path, folder)?;
    }
    Ok(())
}

#[cfg(unix)]
#[test]
fn a_store_that_cannot_be_written_can_be_read() -> Result<()> {
    let (store, reader) = (Store::new()?, Reader::new()?);
    store.run(&["append", "notes", "one"])?.ok()?;
    store.run(&["append", "notes", "two"])?.ok()?;
    let files = || -> Result<BTreeSet<_>> {
        let folders = [store.path().to_owned(), store.path().join("0")];
        let entries = folders.iter().map(std::fs::read_dir).collect::<Result<Vec<_>, _>>()?;
        Ok(entries
            .into_iter()
            .flatten()
            .map(|entry| Ok::<_, std::io::Error>(entry?.path()))
            .collect::<Result<_, _>>()?)
    };
    for with_lock in [true, false] {
        if !with_lock {
            std::fs::remove_file(store.path().join("multifeed.lock"))?;
        }
        let before = files()?;
        seal(store.path(), true)?;
        let feed = reader.run(&store, &["--json", "feeds"])?.one_object(0)?;
        ensure!(feed["name"] == "notes" && feed["length"] == 2, "{feed}");
        let done = reader.run(&store, &["cat", "notes"])?.ok()?;
        // Who reads it here is another user, who can read the secret key as well.
        let told = done.stderr.lines().count() == 1 && done.stderr.contains("`secret_key` of folder 0");
        ensure!(done.text() == "onetwo" && told, "{done:?}");
        reader.run(&store, &["verify"])?.ok()?;
        // What is to write says what it cannot write.
        for args in [&["append", "notes", "three"][..], &["remove", "notes", "--writer"], &["sync", "127.0.0.1:1"]] {
            let (code, message) = reader.run(&store, &[&["--json"], args].concat())?.failure()?;
            let place = store.path().join("multifeed.lock");
            ensure!(code == "ERR_STORE_IO" && message.contains(place.to_str().context("not UTF-8")?), "{message}");
        }
        assert_eq!(files()?, before);
        seal(store.path(), false)?;
    }

    // The marks are torn, as a crash of JS may leave them: they are repaired in memory.
    store.run(&["append", "other", "three"])?.ok()?;
    std::fs::remove_file(store.path().join("multifeed.journal"))?;
    std::fs::write(store.path().join("0/bitfield"), "")?;
    seal(store.path(), true)?;
    let done = reader.run(&store, &["cat", "notes"])?.ok()?;
    ensure!(done.text() == "onetwo" && done.stderr.contains("repaired"), "{done:?}");
    ensure!(std::fs::read(store.path().join("0/bitfield"))?.is_empty(), "it was written");
    assert_eq!(reader.run(&store, &["cat", "other"])?.ok()?.text(), "three");
    seal(store.path(), false)?;
    let done = store.run(&["--json", "cat", "notes"])?.ok()?;
    let warning: Value = serde_json::from_str(&done.stderr)?;
    assert_eq!((done.objects()?.len(), common::fields(&warning)), (2, vec!["event", "message"]));
    ensure!(warning["event"] == "warning" && done.stderr.contains("repaired"), "{}", done.stderr);
    Ok(())
}

/// Files that may be read and not written: the feed is left out by name, and the others sync.
#[cfg(unix)]
#[test]
fn a_feed_whose_files_may_not_be_written_keeps_no_other_back() -> Result<()> {
    let (theirs, ours, user) = (Store::new()?, Store::new()?, Reader::new()?);
    let keys: Vec<String> = ["a", "b", "c"].iter().map(|name| theirs.append(name, &["one"])).collect::<Result<_>>()?;
    ours.append("mine", &["one"])?;
    let (server, address) = theirs.serve(&["--once"])?;
    ours.sync(address, &[])?.ended(0)?;
    server.ended(0)?;
    for name in ["a", "b", "c"] {
        theirs.append(name, &["two"])?;
    }
    let sealed =
        keys.iter().find(|key| std::fs::read(ours.path().join("2/key")).is_ok_and(|bytes| &hex_of(&bytes) == *key));
    let sealed = sealed.context("no such feed")?;
    if user.is_root {
        give(ours.path())?;
    }
    for folder in ["0", "2"] {
        for entry in std::fs::read_dir(ours.path().join(folder))? {
            allow(&entry?.path(), 0o400)?;
        }
    }
    let (server, address) = theirs.serve(&["--once"])?;
    let done = user.run(&ours, &["--json", "sync", &address.to_string()])?.ended(1)?;
    server.ended_with_one_of(&[0, 1, 3])?;
    let damaged: Vec<_> = done.objects()?.into_iter().filter(|event| event["event"] == "damaged").collect();
    ensure!(damaged.len() == 1 && damaged[0]["key"] == **sealed, "{damaged:?}");
    let told = damaged[0]["message"].as_str().unwrap_or_default();
    ensure!(told.contains("2/data") && told.contains("Permission denied"), "{told}");
    let facts = ours.facts()?;
    for key in &keys {
        let feed = facts.iter().find(|feed| feed.key == *key).context("a feed is gone")?;
        ensure!(feed.length == if key == sealed { 1 } else { 2 }, "{key}: {}", feed.length);
    }
    let (code, message) = user.run(&ours, &["--json", "append", "mine", "two"])?.failure()?;
    ensure!(code == "ERR_STORE_IO" && message.contains("Permission denied"), "{message}");
    Ok(())
}

#[cfg(unix)]
fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Who may read a store and not its secret keys, as another user whom its owner lets read it, reads it as a sound one: by its writers' names.
#[cfg(unix)]
#[test]
fn a_store_of_another_user_is_read_by_its_names() -> Result<()> {
    let user = Reader::new()?;
    if !user.is_root {
        println!("left out: only root can run commands as another user");
        return Ok(());
    }
    let store = Store::new()?;
    for name in ["notes", "ideas"] {
        store.append(name, &["one", "two"])?;
    }
    seal(store.path(), true)?;
    for folder in ["0", "1"] {
        allow(&store.path().join(folder).join("secret_key"), 0o600)?;
    }
    for _ in 0..2 {
        let done = user.run(&store, &["--json", "feeds"])?.ended(0)?;
        ensure!(done.stderr.matches("secret_key").count() == 1, "{done:?}");
        ensure!(done.stderr.contains("Permission denied") && done.stderr.contains("1 key more"), "{done:?}");
        let feeds = done.objects()?;
        ensure!(feeds.iter().map(|feed| &feed["name"]).eq(["notes", "ideas"]), "{feeds:?}");
        ensure!(feeds.iter().all(|feed| feed["writable"] == false && feed["downloaded"] == 2), "{feeds:?}");
        ensure!(user.run(&store, &["cat", "ideas"])?.ok()?.text() == "onetwo");
        let done = user.run(&store, &["--json", "verify"])?.ended(0)?;
        ensure!(done.objects()?.iter().all(|line| line["event"] == "verified"), "{done:?}");
    }
    // Nobody appends without the key.
    let (_, message) = user.run(&store, &["--json", "append", "notes", "three"])?.failure()?;
    ensure!(message.contains("Permission denied"), "{message}");
    seal(store.path(), false)?;
    store.append("notes", &["three"])?;
    ensure!(store.run(&["cat", "notes"])?.ok()?.text() == "onetwothree");
    store.run(&["verify"])?.ok()?;
    Ok(())
}

/// A lock or a journal that cannot be read, or that is something else, keeps nobody from reading the store.
#[cfg(unix)]
#[test]
fn a_store_whose_lock_or_journal_cannot_be_read_can_be_read() -> Result<()> {
    use std::os::unix::fs::symlink;
    let user = Reader::new()?;
    for name in ["multifeed.lock", "multifeed.journal"] {
        for what in ["mode", "folder", "pipe", "link"] {
            let store = Store::new()?;
            store.append("notes", &["one", "two"])?;
            let path = store.path().join(name);
            if what != "mode" {
                std::fs::remove_file(&path)?;
            }
            match what {
                "folder" => std::fs::create_dir(&path)?,
                "pipe" => ensure!(std::process::Command::new("mkfifo").arg(&path).status()?.success()),
                "link" => symlink("nowhere", &path)?,
                _ => {}
            }
            if user.is_root {
                give(store.path())?;
            }
            if what == "mode" {
                allow(&path, 0o000)?;
            }
            let case = format!("{name}, {what}");
            let feed = user.run(&store, &["--json", "feeds"])?;
            ensure!(feed.stderr.contains(name), "{case}: {feed:?}");
            // Whatever is wrong is a failure for who asks what there is.
            ensure!(feed.code == Some(1), "{case}: {feed:?}");
            let feed = feed.objects()?.remove(0);
            ensure!(feed["name"] == "notes" && feed["length"] == 2, "{case}: {feed}");
            ensure!(user.run(&store, &["cat", "notes"])?.ok().context(case.clone())?.text() == "onetwo", "{case}");
            let done = user.run(&store, &["verify"])?;
            ensure!(done.text().contains("sound"), "{case}: {done:?}");
            let (_, message) = user.run(&store, &["--json", "append", "notes", "three"])?.failure()?;
            ensure!(message.contains(name), "{case}: {message}");
            // And nothing was made of it.
            let done = user.run(&store, &["cat", "notes"])?.ok()?;
            ensure!(done.text() == "onetwo", "{case}: {done:?}");
        }
    }
    Ok(())
}

/// Gives a store to the user who runs the commands of [`Reader`] for root.
#[cfg(unix)]
fn give(path: &std::path::Path) -> Result<()> {
    std::os::unix::fs::lchown(path, Some(65534), Some(65534))?;
    if path.symlink_metadata()?.is_dir() {
        for entry in std::fs::read_dir(path)? {
            give(&entry?.path())?;
        }
    }
    Ok(())
}

/// A `secret_key` or a `localname` that is no file: the feed is shown and read, and nothing is appended to it.
#[cfg(unix)]
#[test]
fn a_feed_whose_secret_key_is_no_file_is_read() -> Result<()> {
    for name in ["secret_key", "localname"] {
        for pipe in [true, false] {
            let store = Store::new()?;
            let key = store.append("notes", &["one", "two"])?;
            let path = store.path().join("0").join(name);
            std::fs::remove_file(&path)?;
            match pipe {
                true => ensure!(std::process::Command::new("mkfifo").arg(&path).status()?.success()),
                false => std::fs::create_dir(&path)?,
            }
            let case = format!("{name}, pipe: {pipe}");
            let done = store.run(&["--json", "feeds"])?;
            ensure!(done.stderr.contains(name), "{case}: {done:?}");
            ensure!(done.code == Some(1), "{case}: {done:?}");
            let feed = done.objects()?.remove(0);
            ensure!(feed["key"] == key && feed["length"] == 2, "{case}: {feed}");
            ensure!(store.run(&["cat", &key])?.ok().context(case.clone())?.text() == "onetwo", "{case}");
            if name == "secret_key" {
                let (_, message) = store.run(&["--json", "append", "notes", "three"])?.failure()?;
                ensure!(!message.is_empty(), "{case}");
            }
            // Nobody else gets the name.
            ensure!(store.facts()?.len() == 1, "{case}");
        }
    }
    Ok(())
}

#[test]
fn a_warning_is_said_whatever_the_log_and_the_colours_are() -> Result<()> {
    let store = Store::new()?;
    store.run(&["append", "w", "one"])?.ok()?;
    std::fs::remove_file(store.path().join("multifeed.journal"))?;
    std::fs::write(store.path().join("0/bitfield"), "")?;
    for (variable, value) in [("RUST_LOG", "off"), ("RUST_LOG", "error"), ("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")] {
        let mut command = command(&["--store", store.text(), "feeds"]);
        let output = command.env(variable, value).output()?;
        let stderr = String::from_utf8(output.stderr)?;
        ensure!(stderr.starts_with("multifeed: warning: ") && stderr.contains("repaired"), "{variable}: {stderr:?}");
        ensure!(stderr.lines().count() == 1 && !stderr.contains('\u{1b}'), "{variable}: {stderr:?}");
    }
    Ok(())
}

#[test]
fn blocks_come_out_as_lines_with_zeros_as_objects_and_as_files() -> Result<()> {
    let store = Store::new()?;
    store.run_with(&["append", "w", "-"], b"one\n\n\xff\xfe\nfour\n")?.ok()?;
    let key = store.facts()?[0].key.clone();
    let out = |args: &[&str]| Ok::<_, anyhow::Error>(store.run(args)?.ok()?.stdout);
    assert_eq!(out(&["cat", "w"])?, b"one\xff\xfefour");
    assert_eq!(out(&["cat", "w", "--lines"])?, b"one\n\n\xff\xfe\nfour\n");
    assert_eq!(out(&["cat", "w", "-0"])?, b"one\0\0\xff\xfe\0four\0");
    assert_eq!(out(&["cat", "w", "-n", "2", "--lines"])?, b"\xff\xfe\nfour\n");
    assert_eq!(out(&["cat", "w", "-n", "9"])?, b"one\xff\xfefour");
    let objects = store.run(&["--json", "cat", "w", "1.."])?.ok()?.objects()?;
    let expected = [
        serde_json::json!({"key": key, "block": 1, "text": ""}),
        serde_json::json!({"key": key, "block": 2, "base64": "//4="}),
        serde_json::json!({"key": key, "block": 3, "text": "four"}),
    ];
    assert_eq!(objects, expected);
    let folder = store.path().with_extension("blocks");
    let to = folder.to_str().context("not UTF-8")?;
    store.run(&["cat", "w", "2..", "--to", to])?.ok()?;
    assert_eq!(std::fs::read(folder.join("00000003"))?, b"four");
    assert_eq!(std::fs::read_dir(&folder)?.count(), 2);
    // Nothing is written over.
    std::fs::write(folder.join("00000003"), "mine")?;
    std::fs::remove_file(folder.join("00000002"))?;
    store.run(&["cat", "w", "--to", to])?.ended(1)?;
    assert_eq!(std::fs::read(folder.join("00000003"))?, b"mine");
    std::fs::remove_dir_all(folder)?;
    for wrong in
        [&["cat", "w", "--lines", "-0"][..], &["cat", "w", "1", "-n", "1"], &["cat", "w", "--to", "x", "--lines"]]
    {
        store.run(wrong)?.ended(2)?;
    }
    Ok(())
}

#[test]
fn the_store_may_be_named_by_a_variable() -> Result<()> {
    let store = Store::new()?;
    let mut append = command(&["append", "w", "one"]);
    ensure!(append.env("MULTIFEED_STORE", store.path()).output()?.status.success());
    assert_eq!(store.run(&["cat", "w"])?.ok()?.text(), "one");
    // The option wins.
    let other = Store::new()?;
    let mut feeds = command(&["--store", other.text(), "--json", "feeds"]);
    ensure!(feeds.env("MULTIFEED_STORE", store.path()).output()?.stdout.is_empty());
    Ok(())
}

#[test]
fn a_root_key_is_made_for_its_owner_alone() -> Result<()> {
    let (one, other) = (run(&["keygen"], b"")?.ok()?.text(), run(&["--json", "keygen"], b"")?.ok()?.objects()?);
    let other = other[0]["key"].as_str().context("no key")?;
    ensure!(one.trim().len() == 64 && other.len() == 64 && one.trim() != other, "{one} {other}");
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("k");
    let file = path.to_str().context("not UTF-8")?;
    ensure!(run(&["keygen", file], b"")?.ok()?.text().is_empty());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(path.metadata()?.permissions().mode() & 0o777, 0o600);
    }
    let store = Store::new()?;
    let said = store.run(&["--key-file", file, "append", "w", "one"])?.ok()?.stderr;
    ensure!(said.lines().count() == 1 && said.contains("new writer"), "{said}");
    // It is not written over.
    let before = std::fs::read(&path)?;
    run(&["keygen", file], b"")?.ended(1)?;
    assert_eq!(std::fs::read(&path)?, before);
    Ok(())
}

#[test]
fn a_server_that_others_reach_is_warned_of_the_key_that_everyone_knows() -> Result<()> {
    let store = Store::new()?;
    for (address, key, warned) in
        [("127.0.0.1:0", None, false), ("0.0.0.0:0", None, true), ("0.0.0.0:0", Some("11".repeat(32)), false)]
    {
        let key = key.iter().flat_map(|key| ["--key", key]).collect::<Vec<_>>();
        let mut server = command(&[&store.option()[..], &key, &["serve", address]].concat());
        let mut server = server.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut line = String::new();
        std::io::BufRead::read_line(
            &mut std::io::BufReader::new(server.stdout.take().context("no stdout")?),
            &mut line,
        )?;
        ensure!(line.contains("listening"), "{line}");
        std::process::Command::new("kill").arg("-INT").arg(server.id().to_string()).status()?;
        let done = server.wait_with_output()?;
        assert_eq!(String::from_utf8_lossy(&done.stderr).contains("everyone knows"), warned, "{address}");
    }
    Ok(())
}

#[test]
fn what_comes_to_nothing_makes_no_store() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("store");
    let store = path.to_str().context("not UTF-8")?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    for (args, expected) in [
        (&["sync", &port][..], "ERR_CONNECT"),
        (&["ban", "nosuch"], "ERR_FEED_NOT_FOUND"),
        (&["unban", "nosuch"], "ERR_FEED_NOT_FOUND"),
    ] {
        let (code, message) = run(&[&["--json", "--store", store], args].concat(), b"")?.failure()?;
        ensure!(code == expected && !path.exists(), "{code}: {message}");
    }
    // A whole key can be banned from the start, and unbanned by how it starts.
    let key = "5a".repeat(32);
    run(&["--store", store, "ban", &key], b"")?.ok()?;
    run(&["--store", store, "unban", "5A5a"], b"")?.ok()?;
    let listed = run(&["--store", store, "--json", "feeds"], b"")?.ok()?;
    ensure!(listed.objects()?.is_empty(), "{listed:?}");
    Ok(())
}

#[cfg(target_os = "linux")]
#[test]
fn a_failure_of_stdout_is_said_on_stderr() -> Result<()> {
    let store = Store::new()?;
    for json in [&["--json"][..], &[]] {
        let mut append = command(&[&store.option()[..], json, &["append", "w", "one"]].concat());
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full")?;
        let output = append.stdout(full).output()?;
        ensure!(output.status.code() == Some(1), "{output:?}");
        ensure!(String::from_utf8_lossy(&output.stderr).contains("No space left"), "{output:?}");
    }
    Ok(())
}
