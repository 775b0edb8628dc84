//! A writer that goes on in another store, by its exported key.

use crate::common;

use anyhow::{Context, Result, ensure};
use common::Store;
use serde_json::Value;

/// The text of a path in a temporary folder.
fn path(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).display().to_string()
}

fn sync(from: &Store, to: &Store) -> Result<()> {
    let (server, address) = from.serve(&["--once"])?;
    to.sync(address, &[])?.ended(0)?;
    server.ended(0)?;
    Ok(())
}

#[test]
fn a_writer_goes_on_in_another_store() -> Result<()> {
    let files = tempfile::tempdir()?;
    let file = path(&files, "notes.key");
    let (old, new) = (Store::new()?, Store::new()?);
    let key = old.append("notes", &["one", "two"])?;
    let done = old.run(&["--json", "key", "export", "notes", &file])?.ok()?;
    let warning: Value = serde_json::from_str(done.stderr.trim())?;
    ensure!(warning["message"].as_str().is_some_and(|said| said.contains("two histories")), "{warning}");
    let line = done.one_object(0)?;
    ensure!(line == serde_json::json!({"key": key, "name": "notes", "length": 2}), "{line}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&file)?.permissions().mode();
        ensure!(mode & 0o777 == 0o600, "{mode:o}");
    }
    // A file that is there is not written over.
    ensure!(old.run(&["--json", "key", "export", "notes", &file])?.failure()?.0 == "ERR_IO");

    // Without its blocks the first one here would be a second history.
    let import = |store: &Store| store.run(&["--json", "key", "import", &file]);
    let (code, said) = import(&new)?.failure()?;
    ensure!(code == "ERR_WRITER_OLDER" && said.contains("sync first"), "{code}: {said}");
    sync(&old, &new)?;
    let line = import(&new)?.one_object(0)?;
    ensure!(line == serde_json::json!({"key": key, "name": "notes", "length": 2}), "{line}");
    let appended = new.run(&["--json", "append", "notes", "three"])?.one_object(0)?;
    ensure!(appended["key"] == key && appended["start"] == 2, "{appended}");
    // JS has it as its own, and so has who reads it elsewhere.
    let audited = multifeed_testkit::js::audit(new.path())?;
    ensure!(audited.len() == 1 && audited[0].writable && audited[0].name.as_deref() == Some("notes"), "{audited:?}");
    new.checked()?;
    sync(&new, &old)?;
    ensure!(old.run(&["cat", "notes"])?.ok()?.text() == "onetwothree");

    // Here it is written already, and what was exported before is behind.
    ensure!(import(&new)?.failure()?.0 == "ERR_STORE_OCCUPIED");
    let third = Store::new()?;
    sync(&new, &third)?;
    let (code, said) = import(&third)?.failure()?;
    ensure!(code == "ERR_WRITER_OLDER" && said.contains("went on"), "{code}: {said}");
    third.checked()?;
    Ok(())
}

/// Blocks that were cleared at the old place are not waited for: the writer goes on after them, and who has them keeps them.
#[test]
fn a_writer_whose_blocks_were_cleared_goes_on_in_another_store() -> Result<()> {
    let files = tempfile::tempdir()?;
    let file = path(&files, "notes.key");
    let (old, new, reader) = (Store::new()?, Store::new()?, Store::new()?);
    let key = old.append("notes", &["one", "two", "three"])?;
    sync(&old, &reader)?;
    old.run(&["clear", "--writer", "notes", "0..2"])?.ok()?;
    old.run(&["key", "export", "notes", &file])?.ok()?;
    sync(&old, &new)?;
    new.run(&["key", "import", &file])?.ok()?;
    let appended = new.run(&["--json", "append", "notes", "four"])?.one_object(0)?;
    ensure!(appended["key"] == key.as_str() && appended["start"] == 3, "{appended}");
    // They count as cleared there: a writer takes back none of its own, which whoever offers them hears of.
    let (server, address) = new.serve(&["--once"])?;
    let client = reader.sync(address, &[])?;
    client.ended_with_one_of(&[0, 3])?;
    server.ended_with_one_of(&[0, 3])?;
    ensure!(reader.run(&["cat", &key])?.ok()?.text() == "onetwothreefour");
    reader.checked()?;
    new.audited()?;
    Ok(())
}

#[test]
fn what_cannot_be_exported_or_imported_is_refused_and_changes_nothing() -> Result<()> {
    let files = tempfile::tempdir()?;
    let [empty, full] = ["empty", "full"].map(|name| path(&files, name));
    let (old, new) = (Store::new()?, Store::new()?);
    old.append::<&str>("empty", &[])?;
    // Without a block nothing of it has to be here.
    old.run(&["key", "export", "empty", &empty])?.ok()?;
    let unused = Store::new()?;
    unused.run(&["key", "import", &empty])?.ok()?;
    let first = unused.run(&["--json", "append", "empty", "one"])?.one_object(0)?;
    let keys: Vec<_> = old.facts()?.into_iter().map(|feed| feed.key).collect();
    ensure!(keys.len() == 1 && first["key"] == keys[0].as_str() && first["start"] == 0, "{first} {keys:?}");
    unused.checked()?;
    std::fs::remove_file(&empty)?;
    let key = old.append("full", &["one"])?;
    old.run(&["key", "export", "full", &full])?.ok()?;
    sync(&old, &new)?;
    // Another feed has the name, which another one may be chosen for.
    new.append("full", &["mine"])?;
    let (code, said) = new.run(&["--json", "key", "import", &full])?.failure()?;
    ensure!(code == "ERR_NAME_TAKEN" && said.contains("--name"), "{code}: {said}");
    ensure!(new.run(&["--json", "key", "export", &key, &empty])?.failure()?.0 == "ERR_READ_ONLY");
    ensure!(!std::path::Path::new(&empty).exists());
    new.run(&["key", "import", &full, "--name", "theirs"])?.ok()?;
    new.run(&["append", "theirs", "two"])?.ok()?;
    ensure!(new.run(&["cat", &key])?.ok()?.text() == "onetwo");
    new.checked()?;

    // A file that is none, and one in which a digit is another.
    let third = Store::new()?;
    let text = std::fs::read_to_string(&full)?;
    let at = text.find("secret_key").context("no secret key")? + 13;
    let mut torn = text.clone();
    torn.replace_range(at..=at, if &text[at..=at] == "0" { "1" } else { "0" });
    for bad in ["", "{}", "no key", &torn, &text[..text.len() / 2]] {
        std::fs::write(&empty, bad)?;
        ensure!(third.run(&["--json", "key", "import", &empty])?.failure()?.0 == "ERR_KEY_MISMATCH", "{bad}");
    }
    // A corestore derives its writers' keys. One of them can go on elsewhere.
    let corestore = Store::new()?;
    corestore.run(&["--corestore", "append", "w", "one"])?.ok()?;
    let (code, said) = corestore.run(&["--json", "key", "import", &full])?.failure()?;
    ensure!(code == "ERR_OTHER_STORE" && said.contains("master_key"), "{code}: {said}");
    let derived = path(&files, "derived");
    corestore.run(&["key", "export", "w", &derived])?.ok()?;
    sync(&corestore, &third)?;
    third.run(&["key", "import", &derived])?.ok()?;
    third.run(&["append", "w", "two"])?.ok()?;
    third.checked()?;
    sync(&third, &corestore)
}
