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
use common::{Done, Running, Store, command};

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
            place.run(store, &["block", &"ab".repeat(32)])?.ok()?;
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

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let to = to.join(path.file_name().context("no name")?);
        if path.is_dir() { copy(&path, &to)? } else { _ = fs::copy(&path, to)? }
    }
    Ok(())
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
    each(&[&["append", "ours", "more"], &["remove", "ours", "--writer"], &["block", &key]])
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
