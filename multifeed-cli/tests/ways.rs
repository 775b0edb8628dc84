//! Ways to a peer beside an address: pipes, a folder, a socket that was passed on; and an address that does not answer.

use crate::common;

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use common::{Running, Store};
use multifeed_testkit::js::{install, interop_dir, make};
use serde_json::{Value, json};

/// Starts two commands, each of whose stdout is the other's stdin.
fn joined(one: &mut Command, other: &mut Command) -> Result<[Child; 2]> {
    let mut one = one.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (stdin, stdout) = (one.stdin.take().context("no stdin")?, one.stdout.take().context("no stdout")?);
    let other = other.stdin(Stdio::from(stdout)).stdout(Stdio::from(stdin)).stderr(Stdio::piped()).spawn()?;
    Ok([one, other])
}

/// What a command said on stderr, having ended well.
fn ended(child: Child) -> Result<String> {
    let done = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    ensure!(done.status.success(), "{}: {said}", done.status);
    Ok(said)
}

#[test]
fn two_stores_sync_over_pipes() -> Result<()> {
    let (a, b) = (Store::new()?, Store::new()?);
    a.run(&["append", "a", "one", "two"])?.ok()?;
    b.run(&["append", "b", "three"])?.ok()?;
    let sync = [&a.option()[..], &["--json", "sync", "--stdio"]].concat();
    let serve = [&b.option()[..], &["--json", "serve", "--stdio"]].concat();
    for child in joined(&mut common::command(&sync), &mut common::command(&serve))? {
        // All that it says is on stderr, as stdout is the peer's.
        let said = ended(child)?;
        let closed: Value = serde_json::from_str(said.lines().last().context("it said nothing")?)?;
        ensure!(closed["event"] == "closed" && closed["in_sync"] == true, "{said}");
        ensure!(closed["peer"]["address"] == "stdio", "{said}");
    }
    ensure!(a.checked()? == b.checked()? && a.facts()?.len() == 2);
    // Several root keys share no pipe.
    let keys = ["--corestore", "--key", &"61".repeat(32), "--key", &"62".repeat(32)];
    for command in ["sync", "serve"] {
        let store = Store::new()?;
        store.run(&[&[command, "--stdio"], &keys[..]].concat())?.ended(2)?;
    }
    Ok(())
}

#[test]
fn js_syncs_over_pipes_in_either_role() -> Result<()> {
    install()?;
    for (ours, theirs) in [("sync", "answer"), ("serve", "initiate")] {
        let (store, js) = (Store::new()?, Store::new()?);
        store.run(&["append", "ours", "one", "two"])?.ok()?;
        make(js.path(), &json!({"writers": [{"name": "theirs", "append": [{"count": 5, "size": 3000, "seed": 7}]}]}))?;
        let args = [&store.option()[..], &[ours, "--stdio"]].concat();
        let mut node = Command::new("node");
        node.current_dir(interop_dir()).args(["stdio.js", js.text(), theirs]);
        let [node, ours] = joined(&mut node, &mut common::command(&args))?;
        let (theirs, ours) = (ended(node)?, ended(ours)?);
        ensure!(ours.contains("in sync") && theirs.lines().count() == 2, "{ours}\n{theirs}");
        ensure!(store.checked()? == js.audited()? && store.facts()?.len() == 2);
    }
    Ok(())
}

#[test]
fn a_folder_on_a_stick_is_synced_and_locked() -> Result<()> {
    let (store, stick) = (Store::new()?, Store::new()?);
    store.run(&["append", "a", "one", "two"])?.ok()?;
    stick.run(&["append", "b", "three"])?.ok()?;
    let sync = |folder: &str, more: &[&str]| store.run(&[&["--json", "sync", folder], more].concat());
    let events = sync(stick.text(), &[])?.ok()?.objects()?;
    let closed = events.last().context("it said nothing")?;
    ensure!(closed["in_sync"] == true && closed["peer"]["address"] == stick.text(), "{events:?}");
    ensure!(store.checked()? == stick.checked()? && store.facts()?.len() == 2);

    // Whoever has it open keeps it.
    let (server, _) = stick.serve(&[])?;
    let (code, said) = sync(stick.text(), &[])?.failure()?;
    ensure!(code == "ERR_STORE_LOCKED", "{code}: {said}");
    server.kill()?;
    // None is made by mistake, neither here nor there, and the store is no other store.
    let none = stick.path().join("none");
    let none = none.to_str().context("not UTF-8")?;
    let refused = |folder: &str| sync(folder, &[])?.one_object(2);
    ensure!(refused(none)?["code"] == "ERR_NO_STORE" && !std::path::Path::new(none).exists());
    ensure!(refused(store.text())?["code"] == "ERR_USAGE");
    let other = tempfile::tempdir()?;
    std::fs::write(other.path().join("letter.txt"), "dear")?;
    ensure!(refused(other.path().to_str().context("not UTF-8")?)?["code"] == "ERR_NOT_A_STORE");
    ensure!(std::fs::read_dir(other.path())?.count() == 1);
    sync(none, &["--init"])?.ok()?;
    ensure!(common::facts(std::path::Path::new(none))? == store.facts()?);
    // A root key that is the folder's and not the store's would mix the two.
    let private = Store::new()?;
    private.run(&["--key", &"63".repeat(32), "append", "secret", "one"])?.ok()?;
    ensure!(refused(private.text())?["code"] == "ERR_OTHER_ROOT_KEY");
    Ok(())
}

/// As systemd does it: the descriptor 3 is a socket that listens, and two variables say so.
#[cfg(unix)]
#[test]
fn a_socket_that_was_passed_on_is_served() -> Result<()> {
    use std::os::fd::OwnedFd;
    let (store, copy) = (Store::new()?, Store::new()?);
    store.run(&["append", "a", "one", "two"])?.ok()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let script = "export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\" 3<&0 </dev/null";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_multifeed")]).args(store.option());
    command.args(["--json", "serve", "--once"]).env_remove("MULTIFEED_KEY").env_remove("RUST_LOG");
    let mut server = command.stdin(Stdio::from(OwnedFd::from(listener))).stdout(Stdio::piped()).spawn()?;
    if let Err(error) = copy.sync(address, &[])?.ended(0) {
        server.kill()?;
        return Err(error);
    }
    let done = server.wait_with_output()?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let listening: Value = serde_json::from_str(said.lines().next().unwrap_or_default())?;
    ensure!(done.status.success() && listening["event"] == "listening", "{}: {said}", done.status);
    ensure!(listening["address"] == address.to_string(), "{said}");
    ensure!(copy.facts()? == store.facts()?);

    // Without one, and without an address, there is nothing to listen on; and a file is no socket.
    let none = store.run(&["--json", "serve"])?.one_object(2)?;
    ensure!(none["code"] == "ERR_USAGE" && none["message"].to_string().contains("HOST:PORT"), "{none}");
    let mut command = Command::new("sh");
    let script = "export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\" 3</dev/null";
    command.args(["-c", script, env!("CARGO_BIN_EXE_multifeed")]).args(store.option()).args(["--json", "serve"]);
    let error = Running::start_command(command)?.ended(2)?.pop().context("it said nothing")?;
    ensure!(error["code"] == "ERR_USAGE" && error["message"].to_string().contains("LISTEN_FDS"), "{error}");
    Ok(())
}

/// A listener whose queue is full drops what asks for a connection, as a firewall does. The system alone would go on asking for two minutes.
#[cfg(target_os = "linux")]
#[test]
fn an_address_that_does_not_answer_is_waited_for_as_long_as_was_said() -> Result<()> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>()?.into())?;
    socket.listen(0)?;
    let address = socket.local_addr()?.as_socket().context("no address")?;
    let mut queue = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, std::time::Duration::from_millis(300)) {
        queue.push(stream);
    }
    let address = address.to_string();
    let store = Store::new()?;
    let (code, said) = store.run(&["--json", "sync", &address, "--timeout", "1"])?.failure()?;
    ensure!(code == "ERR_CONNECT" && said.contains("no answer within 1 s"), "{code}: {said}");
    let retrying = [&store.option()[..], &["--json", "sync", &address, "--timeout", "1", "--retry"]].concat();
    let mut retrying = Running::start(&retrying)?;
    let redial = retrying.event("redial")?;
    ensure!(redial["message"].to_string().contains("no answer within 1 s"), "{redial}");
    retrying.kill()
}

/// A listener that takes the connection and says nothing: that is why it is dialled again.
#[test]
fn what_never_shakes_hands_is_dialled_again_for_that_reason() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let store = Store::new()?;
    let args = ["sync", &address, "--timeout", "1", "--retry"];
    let mut retrying = Running::start(&[&store.option()[..], &["--json"], &args].concat())?;
    let message = retrying.event("redial")?["message"].as_str().context("no reason")?.to_owned();
    ensure!(message.contains("handshake"), "{message}");
    retrying.kill()?;
    let mut people = common::command(&[&store.option()[..], &args].concat());
    let mut people = people.stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(people.stdout.take().context("no stdout")?).read_line(&mut line)?;
    people.kill()?;
    people.wait()?;
    ensure!(line.starts_with("connecting again in ") && line.trim_end().ends_with(&message), "{line}");
    drop(listener);
    Ok(())
}
