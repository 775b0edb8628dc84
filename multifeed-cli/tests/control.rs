//! The control socket of a store that is served: other users, what a kill left, a second process, long paths and disks without writes.

#![cfg(target_os = "linux")]

use crate::common;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use common::{Done, Running, Store, command};

/// A user who owns nothing.
const NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

/// Whether this process is root's, and the program is there: without, what needs it is left out.
fn can_be_others(program: &str) -> bool {
    let is_root = fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
    let has =
        Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !(is_root && has) {
        println!("left out: it needs root, and `{program}`");
    }
    is_root && has
}

/// Runs the command by way of another one.
fn through(program: &str, options: &[&str], args: &[&str]) -> Result<Done> {
    let ours = command(args);
    let mut other = Command::new(program);
    other.args(options).arg(ours.get_program()).args(ours.get_args());
    let output = other.env_remove("MULTIFEED_KEY").env_remove("RUST_LOG").output()?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(Done { code: output.status.code(), stdout: output.stdout, stderr })
}

fn open_to_all(folder: &std::path::Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            open_to_all(&path)?;
        } else {
            fs::set_permissions(&path, Permissions::from_mode(0o666))?;
        }
    }
    Ok(fs::set_permissions(folder, Permissions::from_mode(0o777))?)
}

#[test]
fn another_users_process_appends_nothing() -> Result<()> {
    // The built binary has to be within nobody's reach too.
    let binary = command(&[]).get_program().to_owned();
    if !can_be_others("setpriv") || !through("setpriv", &NOBODY, &["--version"]).is_ok_and(|done| done.code == Some(0))
    {
        println!("left out: nobody cannot run {}", binary.display());
        return Ok(());
    }
    let outer = Store::new()?;
    fs::set_permissions(outer.path(), Permissions::from_mode(0o755))?;
    let path = outer.path().join("store");
    let store = path.to_str().unwrap_or_default();
    common::run(&["--store", store, "append", "notes", "one"], b"")?.ok()?;
    let mut serving = Running::start(&["--store", store, "--json", "serve", "127.0.0.1:0", "--live"])?;
    serving.event("listening")?;
    let socket = path.join("multifeed.socket");
    let mode =
        |path: &std::path::Path| Ok::<_, anyhow::Error>(fs::symlink_metadata(path)?.permissions().mode() & 0o777);
    assert_eq!((mode(&path)?, mode(&socket)?, mode(&path.join("multifeed.lock"))?), (0o700, 0o600, 0o600));
    // The folder keeps others out; if its user opened that, its files do; and if all is open, the process that serves it.
    let append = ["--store", store, "--json", "append", "notes", "two"];
    let steps: [(&str, &dyn Fn() -> Result<()>); 3] = [
        ("ERR_STORE_IO", &|| Ok(())),
        ("ERR_STORE_IO", &|| Ok(fs::set_permissions(&path, Permissions::from_mode(0o777))?)),
        ("ERR_NOT_PERMITTED", &|| open_to_all(&path)),
    ];
    for (expected, step) in steps {
        step()?;
        let (code, message) = through("setpriv", &NOBODY, &append)?.failure()?;
        ensure!(code == expected, "{code}: {message}");
    }
    assert_eq!(common::run(&["--store", store, "cat", "notes"], b"")?.ok()?.text(), "one");
    // It goes on for its own user.
    common::run(&append, b"")?.ok()?;
    serving.signal("TERM")?;
    serving.ended(0)?;
    assert_eq!(common::run(&["--store", store, "cat", "notes"], b"")?.ok()?.text(), "onetwo");
    Ok(())
}

#[test]
fn a_killed_process_and_a_second_one_leave_the_socket_to_whoever_serves() -> Result<()> {
    let store = Store::new()?;
    let socket = store.path().join("multifeed.socket");
    store.run(&["append", "notes", "one"])?.ok()?;
    let (serving, _) = store.serve(&["--live"])?;
    let second = [&store.option()[..], &["--json", "serve", "127.0.0.1:0", "--live"]].concat();
    let (code, message) = common::run(&second, b"")?.failure()?;
    ensure!(code == "ERR_STORE_LOCKED" && message.contains("process"), "{code}: {message}");
    // The second one took nothing away.
    store.run(&["append", "notes", "two"])?.ok()?;
    serving.kill()?;
    ensure!(socket.exists(), "a kill removes nothing");
    // What the kill left is in nobody's way.
    store.run(&["append", "notes", "three"])?.ok()?;
    let (serving, _) = store.serve(&["--live"])?;
    store.run(&["append", "notes", "four"])?.ok()?;
    serving.signal("TERM")?;
    serving.ended(0)?;
    ensure!(!socket.exists(), "the socket is left over");
    assert_eq!(store.run(&["cat", "notes"])?.ok()?.text(), "onetwothreefour");
    store.checked()?;
    Ok(())
}

/// On a disk without locks nothing else says that a store is open: the process that listens is asked first. A lock whose file is gone locks nothing.
#[test]
fn an_append_asks_whoever_listens_whatever_the_lock_says() -> Result<()> {
    let (store, reader) = (Store::new()?, Store::new()?);
    let key = store.append("notes", &["one"])?;
    let (serving, address) = store.serve(&["--live"])?;
    let lock = store.path().join("multifeed.lock");
    fs::remove_file(&lock)?;
    store.run(&["append", "notes", "two"])?.ok()?;
    ensure!(!lock.exists(), "the append opened the store itself");
    reader.sync(address, &[])?.ended(0)?;
    assert_eq!(reader.run(&["cat", &key])?.ok()?.text(), "onetwo");
    serving.signal("TERM")?;
    serving.ended(0)?;
    store.checked()?;
    Ok(())
}

/// So do those who remove, ban or clear. A second server, and a sync, are refused: what they wrote would be lost, or damage.
#[test]
fn who_changes_the_store_asks_whoever_listens_too() -> Result<()> {
    let store = Store::new()?;
    store.append("notes", &["one", "two"])?;
    store.append("more", &["one"])?;
    let (serving, _) = store.serve(&["--live"])?;
    fs::remove_file(store.path().join("multifeed.lock"))?;
    for args in [
        &["clear", "--writer", "notes", "0..1"][..],
        &["remove", "--writer", "more"],
        &["ban", "notes"],
        &["unban", "notes"],
    ] {
        store.run(&[&["--json"], args].concat())?.ok()?;
    }
    for args in [&["sync", "127.0.0.1:1"][..], &["serve", "127.0.0.1:0"]] {
        let (code, message) = store.run(&[&["--json"], args].concat())?.failure()?;
        ensure!(code == "ERR_STORE_LOCKED" && message.contains(store.text()), "{args:?}: {code}: {message}");
    }
    ensure!(!store.path().join("multifeed.lock").exists());
    serving.signal("TERM")?;
    serving.ended(0)?;
    let facts = store.checked()?;
    ensure!(facts.len() == 1 && facts[0].downloaded == 1, "{facts:?}");
    Ok(())
}

/// A socket's path has 107 bytes at the most.
#[test]
fn a_path_too_long_for_a_socket_is_none_for_a_store() -> Result<()> {
    let outer = Store::new()?;
    let path = outer.path().join("a".repeat(120)).join("b".repeat(120));
    fs::create_dir_all(&path)?;
    let store = path.to_str().unwrap_or_default();
    common::run(&["--store", store, "append", "notes", "one"], b"")?.ok()?;
    let mut serving = Running::start(&["--store", store, "--json", "serve", "127.0.0.1:0", "--live"])?;
    serving.event("listening")?;
    common::run(&["--store", store, "append", "notes", "two"], b"")?.ok()?;
    serving.signal("TERM")?;
    serving.ended(0)?;
    assert_eq!(common::run(&["--store", store, "cat", "notes"], b"")?.ok()?.text(), "onetwo");
    Ok(())
}

/// A store on a mount that takes no writes is served without a socket, and an append says why it fails.
#[test]
fn a_mount_without_writes_has_no_socket() -> Result<()> {
    if !can_be_others("unshare") {
        return Ok(());
    }
    let store = Store::new()?;
    store.run(&["append", "notes", "one"])?.ok()?;
    // In a mount namespace of its own: nothing is left of it.
    let script = r#"mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" || { echo left out; exit 0; }
        shift; "$0" "$@" serve 127.0.0.1:0 --live > /dev/null 2>&1 & serving=$!
        sleep 1; kill -0 $serving || { echo it is not served; exit 3; }
        "$0" "$@" append notes two; code=$?; kill $serving; wait $serving; exit $code"#;
    let ours = command(&[]);
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(ours.get_program())
        .arg(store.path())
        .args(["--store", store.text(), "--json"])
        .output()?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let done = Done { code: output.status.code(), stdout: output.stdout, stderr };
    if done.text().contains("left out") || (done.code == Some(1) && done.stdout.is_empty()) {
        println!("left out: it needs a mount namespace: {}", done.stderr);
        return Ok(());
    }
    let (code, message) = done.failure()?;
    ensure!(code == "ERR_STORE_IO" && message.contains("Read-only file system"), "{code}: {message}");
    assert_eq!(store.run(&["cat", "notes"])?.ok()?.text(), "one");
    Ok(())
}

/// Lines that come slowly are appended while their pipe is open, and those that came before Ctrl-C.
#[test]
fn a_pipe_that_does_not_end_is_appended_as_it_comes() -> Result<()> {
    use std::io::Write;
    for live in [false, true] {
        let store = Store::new()?;
        store.append("w", &["zero"])?;
        let serving = live.then(|| store.serve(&["--live"])).transpose()?;
        let mut append = command(&["--store", store.text(), "--json", "append", "w", "-"]);
        let mut append = append.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut pipe = append.stdin.take().expect("it is piped");
        pipe.write_all(b"one\r\ntwo\n")?;
        let length = || Ok::<_, anyhow::Error>(store.run(&["--json", "feeds"])?.one_object(0)?["length"].clone());
        let start = std::time::Instant::now();
        while length()? != 3 {
            ensure!(start.elapsed() < common::TIMEOUT, "nothing is appended while the pipe is open");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        pipe.write_all(b"three\nfo")?;
        // Less than a second of quiet.
        std::thread::sleep(std::time::Duration::from_millis(700));
        ensure!(Command::new("kill").arg("-INT").arg(append.id().to_string()).status()?.success());
        let done = append.wait_with_output()?;
        let line: serde_json::Value = serde_json::from_slice(&done.stdout)?;
        ensure!(done.status.code() == Some(130) && line["code"] == "ERR_INTERRUPTED", "{done:?}");
        assert_eq!(store.run(&["cat", "w"])?.ok()?.text(), "zeroonetwothree", "live {live}");
        drop(serving);
    }
    Ok(())
}

/// The process that has the store open may be stopped: a signal ends the wait for it, and says what is not known.
#[test]
fn an_append_beside_a_stopped_process_can_be_interrupted() -> Result<()> {
    let store = Store::new()?;
    store.append("w", &["one"])?;
    let (server, _) = store.serve(&["--live"])?;
    server.signal("STOP")?;
    let append = Running::start(&[&store.option()[..], &["--json", "append", "w", "two"]].concat())?;
    // Until it listens for signals.
    std::thread::sleep(std::time::Duration::from_secs(1));
    append.signal("TERM")?;
    let lines = append.ended(143)?;
    server.signal("CONT")?;
    ensure!(lines[0]["code"] == "ERR_INTERRUPTED", "{lines:?}");
    Ok(())
}

/// A name that was mistyped is another author: that one was made is said, whichever process makes it.
#[test]
fn a_new_writer_is_said_also_by_a_process_that_serves() -> Result<()> {
    let store = Store::new()?;
    let made = |done: &common::Done| -> Result<Option<(String, String)>> {
        let lines =
            done.stderr.lines().map(serde_json::from_str::<serde_json::Value>).collect::<Result<Vec<_>, _>>()?;
        let mut new = lines.iter().filter(|line| line["event"] == "new-writer");
        Ok(new.next().map(|line| (line["key"].to_string(), line["name"].to_string())))
    };
    let append = |name: &str| -> Result<bool> {
        let done = store.run(&["--json", "append", name, "x"])?.ok()?;
        let new = made(&done)?;
        let line = done.one_object(0)?;
        ensure!(new.iter().all(|new| *new == (line["key"].to_string(), line["name"].to_string())), "{new:?} {line}");
        Ok(new.is_some())
    };
    assert_eq!((append("notes")?, append("notes")?), (true, false));
    let said = store.run(&["append", "people", "x"])?.ok()?.stderr;
    ensure!(said.starts_with("multifeed: a new writer people, ") && said.lines().count() == 1, "{said}");
    let (serving, _) = store.serve(&["--live"])?;
    assert_eq!((append("more")?, append("more")?, append("notes")?), (true, false, false));
    serving.signal("TERM")?;
    serving.ended(0)?;
    Ok(())
}
