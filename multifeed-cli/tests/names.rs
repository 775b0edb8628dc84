//! Names that a store's user gives to feeds.

use crate::common;

use anyhow::{Result, ensure};
use common::Store;
use serde_json::{Value, json};

#[test]
fn a_feed_is_meant_by_the_name_that_it_was_given() -> Result<()> {
    let (theirs, store) = (Store::new()?, Store::new()?);
    let key = theirs.append("w", &["one", "two"])?;
    store.append("mine", &["three"])?;
    let (server, address) = theirs.serve(&["--once"])?;
    store.sync(address, &[])?.ended(0)?;
    server.ended(0)?;
    let named = store.run(&["--json", "name", &key[..8], "alice b"])?.one_object(0)?;
    ensure!(named == json!({"key": key, "alias": "alice b"}), "{named}");
    ensure!(store.run(&["cat", "alice b"])?.ok()?.text() == "onetwo");
    let feeds = |store: &Store| store.run(&["--json", "feeds"])?.ok()?.objects();
    let aliases: Vec<Value> = feeds(&store)?.iter().map(|feed| feed["alias"].clone()).collect();
    ensure!(aliases.contains(&json!("alice b")) && aliases.contains(&Value::Null), "{aliases:?}");
    ensure!(store.run(&["feeds"])?.ok()?.text().contains("alice b"));
    // The folder is as JS has it.
    store.checked()?;
    // Where a feed is meant, it is taken; a writer is not made under it.
    store.run(&["clear", "alice b", "0"])?.ok()?;
    let (code, _) = store.run(&["--json", "append", "alice b", "x"])?.failure()?;
    ensure!(code == "ERR_NAME_TAKEN", "{code}");

    // What may mean another feed too is refused, and changes nothing.
    for (alias, code) in [
        ("mine", "ERR_NAME_TAKEN"),
        (&key[..3], "ERR_NAME_TAKEN"),
        (&key[..3].to_uppercase(), "ERR_NAME_TAKEN"),
        ("1", "ERR_NAME_TAKEN"),
        ("", "ERR_BAD_NAME"),
        (" a", "ERR_BAD_NAME"),
        ("a\nb", "ERR_BAD_NAME"),
        (&"x".repeat(256), "ERR_BAD_NAME"),
    ] {
        let (refused, said) = store.run(&["--json", "name", &key, alias])?.failure()?;
        ensure!(refused == code, "{alias:?}: {refused}: {said}");
    }
    let (code, _) = store.run(&["--json", "name", "mine", "alice b"])?.failure()?;
    ensure!(code == "ERR_NAME_TAKEN", "{code}");
    ensure!(store.run(&["cat", "alice b", "1"])?.ok()?.text() == "two");

    // Another name takes its place, and none is left in the end.
    store.run(&["name", "alice b", "bob"])?.ok()?;
    ensure!(store.run(&["--json", "cat", "alice b"])?.code == Some(1));
    store.run(&["name", "bob", "--remove"])?.ok()?;
    ensure!(store.run(&["--json", "cat", "bob"])?.code == Some(1));
    ensure!(feeds(&store)?.iter().all(|feed| feed.get("alias").is_none()));

    // A ban by its name is lifted by its name, also of a feed that is gone.
    store.run(&["name", &key, "alice"])?.ok()?;
    store.run(&["remove", "alice", "--ban"])?.ok()?;
    let lifted = store.run(&["--json", "unban", "alice"])?.one_object(0)?;
    ensure!(lifted == json!({"key": key, "banned": false}), "{lifted}");
    Ok(())
}

#[test]
fn a_list_of_names_that_is_damaged_keeps_nobody_from_reading() -> Result<()> {
    let store = Store::new()?;
    let key = store.append("w", &["one"])?;
    let path = store.path().join("multifeed.names");
    for bad in ["no key alice\n", &key, "\u{0}"] {
        std::fs::write(&path, bad)?;
        let done = store.run(&["cat", "w"])?.ok()?;
        ensure!(done.text() == "one" && done.stderr.contains("multifeed.names"), "{}", done.stderr);
        ensure!(store.run(&["--json", "name", "w", "alice"])?.failure()?.0 == "ERR_STORE_DAMAGED");
        ensure!(std::fs::read_to_string(&path)? == bad, "a person's notes are theirs");
    }
    Ok(())
}

/// In a terminal of a person, which `script` makes.
#[cfg(target_os = "linux")]
#[test]
fn a_terminal_has_feeds_in_eighty_columns_and_all_of_them_if_asked_for() -> Result<()> {
    let store = Store::new()?;
    let key =
        store.append("a name that is much too long for a line of a terminal, whatever else is in it", &["one"])?;
    let other = store.append("w", &["one", "two"])?;
    let on_terminal = |more: &str| -> Result<String> {
        let line = format!("'{}' --store '{}' feeds {more}", env!("CARGO_BIN_EXE_multifeed"), store.text());
        let done = std::process::Command::new("script").args(["-qec", &line, "/dev/null"]).output()?;
        ensure!(done.status.success(), "{done:?}");
        Ok(String::from_utf8_lossy(&done.stdout).replace('\r', ""))
    };
    let narrow = on_terminal("")?;
    ensure!(narrow.lines().count() == 3 && narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
    for key in [&key, &other] {
        let line = narrow.lines().find(|line| line.starts_with(&key[..8])).unwrap_or_default();
        ensure!(!line.is_empty() && !line.contains(key.as_str()), "{narrow}");
        // What is shown is enough to mean it.
        let shown = line.split_whitespace().next().unwrap_or_default();
        store.run(&["cat", shown])?.ok()?;
    }
    let whole = on_terminal("-l")?;
    ensure!(
        [&key, &other].iter().all(|key| whole.contains(key.as_str())) && whole.contains("whatever else"),
        "{whole}"
    );
    // Piped, and for programs, all is whole.
    let piped = store.run(&["feeds"])?.ok()?.text();
    ensure!(piped.trim_end() == whole.trim_end(), "{piped}\n{whole}");
    Ok(())
}
