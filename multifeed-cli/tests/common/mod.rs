//! What the tests of the command share: the built binary as a child process, and both sides' view of a folder.

// Each test binary uses its own part of this.
#![allow(dead_code, unreachable_pub)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use multifeed_testkit::blocks::FeedDigest;
use multifeed_testkit::js::{self, JsFeed};
use multifeed_tokio::{Multifeed, Options};
use serde_json::Value;

/// How long one step of a test may take before it counts as stuck.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// How often a test looks into a folder, if no event reports a change.
const POLL: Duration = Duration::from_millis(5);

/// A folder for a store, removed at the end.
pub struct Store(tempfile::TempDir);

/// One feed, as either side sees it: what has to be equal once two sides are in sync.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Facts {
    pub key: String,
    pub length: u64,
    pub bytes: u64,
    pub downloaded: u64,
    /// The digest of testkit's `blocks`, over the blocks held.
    pub hash: String,
}

impl Store {
    pub fn new() -> Result<Self> {
        Ok(Store(tempfile::tempdir()?))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn text(&self) -> &str {
        self.path().to_str().expect("temporary folders have UTF-8 names here")
    }

    /// `--store` and its folder.
    pub fn option(&self) -> [&str; 2] {
        ["--store", self.text()]
    }

    /// Runs a command of ours on this store to its end.
    pub fn run(&self, args: &[&str]) -> Result<Done> {
        self.run_with(args, b"")
    }

    /// As [`run`](Self::run), with bytes on stdin.
    pub fn run_with(&self, args: &[&str], stdin: &[u8]) -> Result<Done> {
        run(&[&self.option(), args].concat(), stdin)
    }

    /// Starts `serve` on a free port, with these further arguments, and waits until it listens.
    pub fn serve(&self, args: &[&str]) -> Result<(Running, SocketAddr)> {
        let serve = ["--json", "serve", "127.0.0.1:0"];
        let mut running = Running::start(&[&self.option()[..], &serve, args].concat())?;
        let address = running.event("listening")?["address"].as_str().context("no address")?.parse()?;
        Ok((running, address))
    }

    /// Starts `sync` with a peer, with these further arguments.
    pub fn sync(&self, address: SocketAddr, args: &[&str]) -> Result<Running> {
        let address = address.to_string();
        Running::start(&[&self.option()[..], &["--json", "sync", &address], args].concat())
    }

    /// Appends made blocks, each a file, in one batch, and returns the feed's key.
    pub fn append<B: AsRef<[u8]>>(&self, writer: &str, blocks: &[B]) -> Result<String> {
        let files = tempfile::tempdir()?;
        // No file at all is no command line; no line on stdin is no block.
        let from = if blocks.is_empty() { "-" } else { "--file" };
        let mut args = ["--json", "append", writer, from].map(str::to_owned).to_vec();
        for (index, block) in blocks.iter().enumerate() {
            let path = files.path().join(index.to_string());
            std::fs::write(&path, block)?;
            args.push(path.to_str().context("not UTF-8")?.to_owned());
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let line = self.run(&args)?.one_object(0)?;
        Ok(line["key"].as_str().context("no key")?.to_owned())
    }

    /// The feeds as our own library reads them, every block included, sorted by key.
    pub fn facts(&self) -> Result<Vec<Facts>> {
        facts(self.path())
    }

    /// The feeds as JS reads them, all of them sound, sorted by key.
    pub fn audited(&self) -> Result<Vec<Facts>> {
        let feeds = js::audit(self.path())?;
        ensure!(feeds.iter().all(JsFeed::is_sound), "JS finds damage: {feeds:?}");
        js_facts(&feeds)
    }

    /// Both views of this store agree, and `verify` finds no damage: that view.
    pub fn checked(&self) -> Result<Vec<Facts>> {
        self.run(&["verify"])?.ok()?;
        let ours = self.facts()?;
        let theirs = self.audited()?;
        ensure!(ours == theirs, "two views of one folder:\nours   {ours:#?}\nJS's   {theirs:#?}");
        Ok(ours)
    }
}

/// What JS says of its feeds, in the form that both sides are compared in.
pub fn js_facts(feeds: &[JsFeed]) -> Result<Vec<Facts>> {
    feeds
        .iter()
        .map(|feed| {
            Ok(Facts {
                key: feed.key.clone(),
                length: feed.length,
                bytes: feed.bytes,
                downloaded: feed.downloaded,
                hash: feed.hash.clone().with_context(|| format!("JS cannot read all of {feed:?}"))?,
            })
        })
        .collect()
}

/// A command that has ended.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

/// Runs the built command to its end.
pub fn run(args: &[&str], stdin: &[u8]) -> Result<Done> {
    let mut child = spawn(args)?;
    let mut input = child.stdin.take().context("no stdin")?;
    let stdin = stdin.to_vec();
    // It may end without reading all of its input.
    let writer = thread::spawn(move || drop(input.write_all(&stdin)));
    let output = child.wait_with_output()?;
    drop(writer.join());
    Ok(Done {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// The built command, not yet started; with no root key of the user's in its environment.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_multifeed"));
    command.args(args).env_remove("MULTIFEED_KEY").env_remove("MULTIFEED_STORE").env_remove("RUST_LOG");
    command
}

fn spawn(args: &[&str]) -> Result<Child> {
    spawn_command(command(args))
}

fn spawn_command(mut command: Command) -> Result<Child> {
    Ok(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

impl Done {
    /// The same, if it succeeded.
    pub fn ok(self) -> Result<Self> {
        self.ended(0)
    }

    /// The same, if it ended with this code.
    pub fn ended(self, code: i32) -> Result<Self> {
        ensure!(self.code == Some(code), "ended with {:?}, not {code}: {}\n{}", self.code, self.text(), self.stderr);
        Ok(self)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The lines of stdout as JSON.
    pub fn objects(&self) -> Result<Vec<Value>> {
        self.text().lines().map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))).collect()
    }

    /// The one object that it printed, if it ended with this code.
    pub fn one_object(self, code: i32) -> Result<Value> {
        let done = self.ended(code)?;
        let mut objects = done.objects()?;
        ensure!(objects.len() == 1, "not one object: {objects:?}");
        objects.pop().context("none")
    }

    /// The failure that it printed as its last object, having ended with exit code 1, as its code and message.
    pub fn failure(self) -> Result<(String, String)> {
        let done = self.ended(1)?;
        let last = done.objects()?.pop().context("it printed nothing")?;
        failure_of(&last)
    }
}

/// A failure's code and message; it has to have its fields, and no other.
pub fn failure_of(object: &Value) -> Result<(String, String)> {
    // A failure of one of several peers names it.
    let is_of_peer = object["event"] == "peer-error";
    ensure!(is_of_peer || object["event"] == "error", "{object} is no error");
    let own = fields(object).into_iter().filter(|name| !(is_of_peer && *name == "peer"));
    ensure!(own.eq(["code", "event", "message", "them", "us"]), "the fields of {object}");
    ensure!(!is_of_peer || fields(&object["peer"]) == ["address", "id"], "{object}");
    let text = |name: &str| Ok::<_, anyhow::Error>(object[name].as_str().context("no text")?.to_owned());
    Ok((text("code")?, text("message")?))
}

/// The names of an object's fields, sorted.
pub fn fields(object: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = object.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names
}

/// A command that runs, printing events. It is killed when this is dropped.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
    seen: Vec<Value>,
    /// How many of `seen` [`event`](Self::event) has passed.
    passed: usize,
}

impl Running {
    pub fn start(args: &[&str]) -> Result<Self> {
        let mut child = spawn(args)?;
        drop(child.stdin.take());
        Self::of(child)
    }

    fn of(mut child: Child) -> Result<Self> {
        let stdout = child.stdout.take().context("no stdout")?;
        let mut stderr = child.stderr.take().context("no stderr")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let stderr = thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        Ok(Running { child, lines, stderr: Some(stderr), seen: Vec::new(), passed: 0 })
    }

    /// As [`start`](Self::start), with its stdin left open for [`take_input`](Self::take_input).
    pub fn start_with_input(args: &[&str]) -> Result<Self> {
        Self::of(spawn(args)?)
    }

    /// As [`start_with_input`](Self::start_with_input), of whatever runs the command.
    pub fn start_command(command: Command) -> Result<Self> {
        Self::of(spawn_command(command)?)
    }

    pub fn take_input(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Waits until something outside of it is so.
    pub fn until(&mut self, condition: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        while !condition() {
            ensure!(Instant::now() < deadline, "it did not come to that in time");
            if let Some(status) = self.child.try_wait()? {
                let lines: Vec<String> = self.lines.iter().collect();
                bail!("it ended before, with {status}: {lines:#?}\n{}", self.stderr());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Waits for the next event of this name; those before it are passed over.
    pub fn event(&mut self, name: &str) -> Result<Value> {
        self.wait_for(name, |event| event["event"] == name)
    }

    /// Waits for the next event that is as `wanted`; those before it are passed over.
    pub fn wait_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            while let Some(event) = self.seen.get(self.passed) {
                self.passed += 1;
                if wanted(event) {
                    return Ok(event.clone());
                }
            }
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(serde_json::from_str(&line).with_context(|| format!("no JSON: {line}"))?),
                Err(RecvTimeoutError::Timeout) => bail!("no {what} in time; seen: {:#?}", self.seen),
                Err(RecvTimeoutError::Disconnected) => {
                    let stderr = self.stderr();
                    bail!("it ended without {what}; seen: {:#?}\nstderr: {stderr}", self.seen)
                }
            }
        }
    }

    /// Waits until it says that both sides hold the same, if that is not the last that it said.
    pub fn in_sync(&mut self) -> Result<()> {
        let is_progress = |event: &&Value| event["event"] == "progress" || event["event"] == "root-progress";
        while self.seen.iter().rev().find(is_progress).is_none_or(|event| event["in_sync"] != true) {
            self.wait_for("in sync", |event| event["in_sync"] == true)?;
        }
        Ok(())
    }

    /// As [`wait_for`](Self::wait_for), for half a second at the most.
    pub fn wait_a_moment(&mut self, wanted: impl Fn(&Value) -> bool) -> Result<Option<Value>> {
        let until = Instant::now() + Duration::from_millis(500);
        loop {
            while let Some(event) = self.seen.get(self.passed) {
                self.passed += 1;
                if wanted(event) {
                    return Ok(Some(event.clone()));
                }
            }
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(serde_json::from_str(&line).with_context(|| format!("no JSON: {line}"))?),
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => bail!("it ended: {}", self.stderr()),
            }
        }
    }

    /// Waits until a sync says that it has received this many blocks.
    pub fn received(&mut self, blocks: u64) -> Result<Value> {
        let what = format!("progress of {blocks} blocks");
        self.wait_for(&what, |event| event["blocks_received"].as_u64().is_some_and(|received| received >= blocks))
    }

    /// Waits for its end, which has to come with this code: all of its events.
    pub fn ended(self, code: i32) -> Result<Vec<Value>> {
        self.ended_with_one_of(&[code])
    }

    /// Waits for its end, which has to come with one of these codes: all of its events.
    pub fn ended_with_one_of(mut self, codes: &[i32]) -> Result<Vec<Value>> {
        let status = self.wait()?;
        if !status.code().is_some_and(|code| codes.contains(&code)) {
            let stderr = self.stderr();
            bail!("ended with {status}, not {codes:?}; seen: {:#?}\nstderr: {stderr}", self.seen);
        }
        Ok(std::mem::take(&mut self.seen))
    }

    /// Waits for its end with exit code 1: the last event, which has to be a failure.
    pub fn failed(self) -> Result<Value> {
        let last = self.ended(1)?.pop().context("it printed nothing")?;
        failure_of(&last)?;
        Ok(last)
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, such as `INT`.
    pub fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status()?;
        ensure!(status.success(), "kill: {status}");
        Ok(())
    }

    /// Kills it at once, as a crash would.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(serde_json::from_str(&line).with_context(|| format!("no JSON: {line}"))?),
                // Its stdout is closed: it ends, or has ended.
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => bail!("it does not end; seen: {:#?}", self.seen),
            }
        }
        Ok(self.child.wait()?)
    }

    fn stderr(&mut self) -> String {
        self.stderr.take().and_then(|reader| reader.join().ok()).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder with all that is in it.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name()))?,
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name()))?),
        }
    }
    Ok(())
}

/// The feeds of a folder as our own library reads them, sorted by key.
pub fn facts(dir: &Path) -> Result<Vec<Facts>> {
    let dir: PathBuf = dir.to_owned();
    block_on(async move {
        let multi = Multifeed::open(&dir, Options::default()).await?;
        let facts = multi_facts(&multi).await?;
        multi.close().await?;
        Ok(facts)
    })
}

/// The feeds of an open multifeed, sorted by key.
pub async fn multi_facts(multi: &Multifeed) -> Result<Vec<Facts>> {
    let mut facts = Vec::new();
    for feed in multi.feeds() {
        let mut digest = FeedDigest::new();
        for index in 0..feed.len() {
            if let Some(block) = feed.get(index).await? {
                digest.update(index, &block);
            }
        }
        facts.push(Facts {
            key: feed.key().to_string(),
            length: feed.len(),
            bytes: feed.byte_len(),
            downloaded: feed.downloaded(),
            hash: digest.finish(),
        });
    }
    facts.sort();
    Ok(facts)
}

/// Runs a future of multifeed-tokio's to its end.
pub fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Runtime::new()?.block_on(future)
}
