//! Each command on a store that somebody else made: links, pipes, devices and folders in place of its files.
#![cfg(unix)]

use crate::common;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use common::{Done, Running, Store, command, copy};

/// Longer than a command takes on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// The files of a store, one of each kind in a feed's folder, and the folder.
const NAMES: [&str; 12] = [
    "0/key",
    "0/secret_key",
    "0/tree",
    "0/signatures",
    "0/bitfield",
    "0/data",
    "0/localname",
    "multifeed.lock",
    "multifeed.journal",
    "multifeed.conflicts",
    "multifeed.blocked",
    "0",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thing {
    Link,
    Dangling,
    Pipe,
    Device,
    /// In place of the folder, a file.
    Folder,
}

const THINGS: [Thing; 5] = [Thing::Link, Thing::Dangling, Thing::Pipe, Thing::Device, Thing::Folder];

/// A folder with stores in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Result<Self> {
        let place = Place(tempfile::tempdir()?);
        for (store, writer) in [("template", "ours"), ("victim", "theirs"), ("peer", "peer")] {
            place.run(store, &["append", writer, "a block of", writer])?.ok()?;
            place.run(store, &["append", "second", "of", writer])?.ok()?;
            place.run(store, &["ban", &"ab".repeat(32)])?.ok()?;
        }
        fs::write(place.path("victim/multifeed.conflicts"), "{}\n")?;
        Ok(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A copy of the template, with a thing in place of one of its files.
    fn with(&self, thing: Thing, name: &str) -> Result<PathBuf> {
        let store = self.path("store");
        if store.exists() {
            fs::remove_dir_all(&store)?;
        }
        copy(&self.path("template"), &store)?;
        let at = store.join(name);
        if at.is_dir() {
            fs::remove_dir_all(&at)?;
        } else if at.exists() {
            fs::remove_file(&at)?;
        }
        match thing {
            Thing::Link => symlink(self.path("victim").join(name), &at)?,
            Thing::Dangling => symlink(self.path("made through a link"), &at)?,
            Thing::Pipe => ensure!(Command::new("mkfifo").arg(&at).status()?.success()),
            Thing::Device => {
                let made = Command::new("mknod").arg(&at).args(["c", "1", "5"]).stderr(Stdio::null()).status()?;
                if !made.success() {
                    let short = tempfile::tempdir()?;
                    std::os::unix::net::UnixListener::bind(short.path().join("s"))?;
                    fs::rename(short.path().join("s"), &at)?;
                }
            }
            Thing::Folder if name == "0" => fs::write(&at, "a file")?,
            Thing::Folder => fs::create_dir(&at)?,
        }
        Ok(at)
    }

    /// Runs a command on one of the stores, which has to end soon.
    fn run(&self, store: &str, args: &[&str]) -> Result<Done> {
        let store = self.path(store);
        timed(&[&["--store", store.to_str().context("not UTF-8")?], args].concat())
    }

    /// Everything but the store that is attacked with, and the peer's.
    fn outside(&self) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.path("victim"), self.path("template")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => _ = found.insert(path.clone(), fs::read(path)?),
                }
            }
        }
        ensure!(!self.path("made through a link").exists(), "a file was made through a link");
        Ok(found)
    }
}

fn timed(args: &[&str]) -> Result<Done> {
    let mut child = command(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut pipe = child.stdout.take().context("no stdout")?;
    let stdout = thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).map(|_| bytes)
    });
    let mut pipe = child.stderr.take().context("no stderr")?;
    let stderr = thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).map(|_| text)
    });
    let deadline = Instant::now() + SOON;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            anyhow::bail!("{args:?} does not end");
        }
        thread::sleep(Duration::from_millis(2));
    };
    let (stdout, stderr) = (stdout.join(), stderr.join());
    let (Ok(stdout), Ok(stderr)) = (stdout, stderr) else { anyhow::bail!("a reader failed") };
    Ok(Done { code: status.code(), stdout: stdout?, stderr: stderr? })
}

fn look(at: &Path) -> Result<(u64, u32, Option<PathBuf>)> {
    let meta = fs::symlink_metadata(at)?;
    Ok((meta.ino(), meta.mode(), fs::read_link(at).ok()))
}

/// Runs a command on a store with each thing in place of each file.
fn each(commands: &[&[&str]]) -> Result<()> {
    let place = Place::new()?;
    let outside = place.outside()?;
    for name in NAMES {
        for thing in THINGS {
            for args in commands {
                let at = place.with(thing, name)?;
                let before = look(&at)?;
                let done = place.run("store", args)?;
                let case = format!("{args:?}, {thing:?} in place of {name}");
                let text = format!("{}{}", done.text(), done.stderr);
                let path = at.to_str().context("not UTF-8")?;
                ensure!(text.contains(path), "{case} is not named: {text}");
                ensure!(look(&at)? == before, "{case}: it did not stay");
                ensure!(place.outside()? == outside, "{case}: something outside changed");
                ensure!(!text.contains("theirs"), "{case}: {text}");
                // Whatever is wrong is a failure for who asks what there is.
                ensure!(args[0] != "feeds" || done.code == Some(1), "{case}: {:?}", done.code);
            }
        }
    }
    Ok(())
}

#[test]
fn reading_commands_leave_alone_what_is_no_file_of_the_store() -> Result<()> {
    each(&[&["feeds"], &["cat", "ours"], &["verify"]])
}

#[test]
fn writing_commands_leave_alone_what_is_no_file_of_the_store() -> Result<()> {
    let key = "cd".repeat(32);
    each(&[&["append", "ours", "more"], &["remove", "ours", "--writer"], &["ban", &key]])
}

#[test]
fn syncing_commands_leave_alone_what_is_no_file_of_the_store() -> Result<()> {
    let place = Place::new()?;
    let peer = place.path("peer");
    let peer = ["--store", peer.to_str().context("not UTF-8")?];
    let mut server = Running::start(&[&peer[..], &["--json", "serve", "127.0.0.1:0"]].concat())?;
    let address = server.event("listening")?["address"].as_str().context("no address")?.to_owned();
    let outside = place.outside()?;
    for name in NAMES {
        for thing in THINGS {
            let case = format!("{thing:?} in place of {name}");
            let at = place.with(thing, name)?;
            let before = look(&at)?;
            let done = place.run("store", &["sync", &address])?;
            let text = format!("{}{}", done.text(), done.stderr);
            ensure!(text.contains(at.to_str().context("not UTF-8")?), "{case} is not named: {text}");
            // And the other way round.
            let store = place.path("store");
            let store = ["--store", store.to_str().context("not UTF-8")?];
            let mut ours = Running::start(&[&store[..], &["--json", "serve", "127.0.0.1:0", "--once"]].concat())?;
            if let Ok(listening) = ours.event("listening") {
                let fresh = Store::new()?;
                let address = listening["address"].as_str().context("no address")?.to_owned();
                timed(&[&fresh.option()[..], &["sync", &address]].concat())?;
                let brought = timed(&[&fresh.option()[..], &["feeds"]].concat())?.text();
                ensure!(!brought.contains(&key_of(&place, "victim/0")?), "{case}: {brought}");
            }
            drop(ours);
            ensure!(look(&at)? == before, "{case}: it did not stay");
            ensure!(place.outside()? == outside, "{case}: something outside changed");
        }
    }
    drop(server);
    let listed = place.run("peer", &["feeds"])?.text();
    for feed in ["victim/0", "victim/1"] {
        ensure!(!listed.contains(&key_of(&place, feed)?), "the peer has what is behind a link: {listed}");
    }
    Ok(())
}

fn key_of(place: &Place, folder: &str) -> Result<String> {
    Ok(fs::read(place.path(folder).join("key"))?.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[test]
fn links_are_followed_where_that_is_asked_for() -> Result<()> {
    let place = Place::new()?;
    let at = place.with(Thing::Link, "0")?;
    let (elsewhere, theirs) = (place.path("victim/0"), key_of(&place, "victim/0")?);
    let listed = place.run("store", &["feeds"])?.ended(1)?;
    ensure!(!listed.text().contains(&theirs) && listed.stderr.contains("--follow-links"), "{listed:?}");
    // The writer that was in folder 0 is missing.
    let listed = place.run("store", &["--follow-links", "feeds"])?.ended(1)?;
    ensure!(listed.text().contains(&theirs) && listed.stderr.contains("the writer `ours`"), "{listed:?}");
    place.run("store", &["--follow-links", "append", "theirs", "more"])?.ok()?;
    ensure!(fs::read(elsewhere.join("data"))?.ends_with(b"more"));
    let removed = place.run("store", &["--follow-links", "--json", "remove", "theirs", "--writer"])?;
    ensure!(removed.failure()?.0 == "ERR_STORE_NOT_REGULAR");
    ensure!(elsewhere.join("secret_key").exists() && at.is_symlink());
    Ok(())
}

#[test]
fn nothing_is_cleared_through_a_link() -> Result<()> {
    let place = Place::new()?;
    let at = place.with(Thing::Link, "0")?;
    let before = place.outside()?;
    // The second time is no better than the first.
    for command in [["clear", "theirs", "0..1"], ["clear", "theirs", "0..1"], ["remove", "theirs", "--writer"]] {
        let more: &[&str] = if command[0] == "clear" { &["--writer"] } else { &[] };
        let done = place.run("store", &[&["--follow-links", "--json"], &command[..], more].concat())?;
        let (code, message) = done.failure()?;
        ensure!(code == "ERR_STORE_NOT_REGULAR", "{code}: {message}");
        ensure!(message.contains("is behind a link") && message.contains("nothing is deleted"), "{message}");
        ensure!(!message.contains("--follow-links"), "{message}");
        ensure!(place.outside()? == before && at.is_symlink(), "{command:?}");
    }
    Ok(())
}

#[test]
fn of_many_problems_a_hundred_are_said_and_how_many_more() -> Result<()> {
    let place = Place::new()?;
    for number in 2..402 {
        fs::write(place.path("template").join(number.to_string()), "no folder")?;
    }
    for (command, ended) in [(&["feeds"][..], 1), (&["append", "ours", "x"], 0), (&["verify"], 1)] {
        let done = place.run("template", command)?.ended(ended)?;
        // `feeds` says them once more at the end, in a line.
        let lines = done.stderr.lines().count();
        ensure!((101..110).contains(&lines), "{command:?}: {lines} lines");
        ensure!(done.stderr.contains("and 300 more problems"), "{command:?}: {}", done.stderr);
        ensure!(done.stderr.len() < 50_000 && done.text().len() < 50_000, "{command:?}");
        let done = place.run("template", &[&["--json"], command].concat())?.ended(ended)?;
        let more = r#"{"event":"more-problems","problems":300}"#;
        ensure!(done.stderr.lines().filter(|line| *line == more).count() == 1, "{command:?}: {}", done.stderr);
        let in_results = done.text().lines().filter(|line| *line == more).count();
        ensure!(in_results == usize::from(command == ["verify"]), "{command:?}: {}", done.text());
        ensure!(done.stderr.lines().count() < 110, "{command:?}");
    }
    Ok(())
}

/// Writes the journal of a store that was not closed, which says that the feed in a folder is being removed.
fn forge_removal(store: &Path, slot: u32, key: &[u8]) -> Result<()> {
    let mut body = slot.to_le_bytes().to_vec();
    body.push(16);
    body.extend(blake2b_simd::Params::new().hash_length(8).personal(b"multifeed key").hash(key).as_bytes());
    body.extend(u64::MAX.to_le_bytes());
    body.extend([0; 12]);
    let mut bytes = b"multifeed-journal 1\no\n\0\0".to_vec();
    bytes.extend(u32::MAX.to_le_bytes());
    bytes.resize(32, 0);
    let mut hasher = blake2b_simd::Params::new().hash_length(8).to_state();
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(hasher.update(&0u64.to_le_bytes()).update(&body).finalize().as_bytes());
    bytes.extend(body);
    Ok(fs::write(store.join("multifeed.journal"), bytes)?)
}

#[test]
fn a_removal_is_said_to_be_done_only_if_it_was() -> Result<()> {
    let done = "the removal of the feed in folder 1, which was cut short before, is done";
    let later = "the removal of the feed in folder 1 was cut short before, and nothing was changed";
    let place = Place::new()?;
    let (store, folder) = (place.path("template"), place.path("template/1"));
    forge_removal(&store, 1, &fs::read(folder.join("key"))?)?;
    let read = place.run("template", &["feeds"])?.ended(0)?;
    ensure!(read.stderr.contains(later) && !read.stderr.contains("is done"), "{}", read.stderr);
    ensure!(folder.join("key").exists());
    let written = place.run("template", &["append", "ours", "x"])?.ok()?;
    ensure!(written.stderr.contains(done) && !folder.exists(), "{}", written.stderr);

    // What is none of a store's stays, and nothing is said of it that is not so.
    let place = Place::new()?;
    let folder = place.path("template/2024");
    fs::create_dir(&folder)?;
    fs::write(folder.join("notes.txt"), "holidays")?;
    forge_removal(&place.path("template"), 2024, &[7; 32])?;
    for command in [&["feeds"][..], &["append", "ours", "x"]] {
        let said = place.run("template", command)?.ended(0)?;
        ensure!(!said.stderr.contains("removal"), "{command:?}: {}", said.stderr);
    }
    ensure!(fs::read(folder.join("notes.txt"))? == b"holidays");
    Ok(())
}

#[test]
fn keys_that_others_can_read_are_reported() -> Result<()> {
    let place = Place::new()?;
    let (secret, root) = (place.path("peer/0/secret_key"), place.path("root key"));
    fs::write(&root, "12".repeat(32))?;
    let file = ["--key-file", root.to_str().context("not UTF-8")?];
    for (mode, told) in [(0o600, false), (0o644, true)] {
        fs::set_permissions(&secret, fs::Permissions::from_mode(mode))?;
        fs::set_permissions(&root, fs::Permissions::from_mode(mode))?;
        let done = place.run("peer", &[&file[..], &["feeds"]].concat())?.ok()?;
        for what in ["`secret_key` of folder 0", "the key file"] {
            ensure!(done.stderr.contains(what) == told, "{mode:o}: {}", done.stderr);
        }
        ensure!(!done.stderr.contains("1212"), "{}", done.stderr);
    }
    Ok(())
}

/// Whether it is a writer's or a remote's, what cannot be removed is not banned either.
#[test]
fn what_is_not_removed_is_not_banned() -> Result<()> {
    let place = Place::new()?;
    // The peer's feeds, as remotes' feeds.
    let peer = place.path("peer");
    let serve = ["--store", peer.to_str().context("not UTF-8")?, "--json", "serve", "127.0.0.1:0"];
    let mut server = Running::start(&serve)?;
    let address = server.event("listening")?["address"].as_str().context("no address")?.to_owned();
    place.run("template", &["sync", &address])?.ok()?;
    drop(server);
    let remote = (2..4).map(|folder| place.path("template").join(folder.to_string()));
    let remote = remote.max().context("no folder")?;
    let theirs: String = fs::read(remote.join("key"))?.iter().map(|byte| format!("{byte:02x}")).collect();
    let (elsewhere, name) = (place.path("elsewhere"), remote.file_name().context("no name")?.to_owned());
    for (key, writer) in [(theirs.as_str(), false), ("second", true)] {
        let _ = fs::remove_dir_all(&elsewhere);
        let at = if writer { place.path("template/1") } else { place.path("template").join(&name) };
        fs::rename(&at, &elsewhere)?;
        symlink(&elsewhere, &at)?;
        let banned = || fs::read_to_string(place.path("template/multifeed.blocked"));
        let before = banned()?;
        let more: &[&str] = if writer { &["--writer"] } else { &[] };
        let args = [&["--follow-links", "--json", "remove", key, "--ban"], more].concat();
        let (code, message) = place.run("template", &args)?.failure()?;
        ensure!(code == "ERR_STORE_NOT_REGULAR", "{key}: {code}: {message}");
        let after = banned()?;
        ensure!(after == before, "{key}: {after}");
        fs::remove_file(&at)?;
        fs::rename(&elsewhere, &at)?;
    }
    Ok(())
}
