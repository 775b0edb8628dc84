//! A JS peer, driven over its standard input and output.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::process::Process;
use super::{JsFeed, TIMEOUT, feeds_of};

/// A running `interop/peer.js`: a multifeed 6.0.0 (or corestore-multifeed) peer. It is killed when this is dropped.
///
/// `node interop/peer.js --help` lists the options, the commands and the events.
pub struct JsPeer {
    process: Process,
    /// Events that came, and that nobody asked for yet.
    events: VecDeque<Value>,
    next_id: u64,
}

impl JsPeer {
    /// Starts a peer with these options, in memory unless they say `--store`. It is ready when this returns.
    ///
    /// # Errors
    ///
    /// JS cannot be run, or cannot open the store.
    pub fn spawn(options: &[&str]) -> Result<JsPeer> {
        Self::spawn_script("peer.js", options)
    }

    /// Starts another script of `interop/` that takes commands and prints events as `peer.js` does.
    ///
    /// # Errors
    ///
    /// As [`JsPeer::spawn`].
    pub fn spawn_script(script: &str, options: &[&str]) -> Result<JsPeer> {
        let process = Process::spawn(script, options)?;
        let mut peer = JsPeer { process, events: VecDeque::new(), next_id: 1 };
        peer.event("ready")?;
        Ok(peer)
    }

    /// Starts a peer that listens on a loopback port, and returns which.
    ///
    /// # Errors
    ///
    /// As [`JsPeer::spawn`].
    pub fn listen(options: &[&str]) -> Result<(JsPeer, SocketAddr)> {
        let mut peer = JsPeer::spawn(&[options, &["--listen", "127.0.0.1:0"]].concat())?;
        let event = peer.event("listening")?;
        let address = event["address"].as_str().context("no address")?.parse()?;
        Ok((peer, address))
    }

    /// The first event of this name that was not taken yet, waiting [`TIMEOUT`] for it. Others stay for later calls.
    ///
    /// # Errors
    ///
    /// It does not come in time, or the peer ends first.
    pub fn event(&mut self, name: &str) -> Result<Value> {
        self.event_within(name, TIMEOUT)
    }

    /// As [`JsPeer::event`], with another time.
    ///
    /// # Errors
    ///
    /// As [`JsPeer::event`].
    pub fn event_within(&mut self, name: &str, time: Duration) -> Result<Value> {
        self.find(|event| event["event"] == name, time).with_context(|| format!("waiting for `{name}`"))
    }

    /// The first event of this name that was not taken yet, if it is there already.
    ///
    /// # Errors
    ///
    /// The peer printed something that is no event.
    pub fn poll_event(&mut self, name: &str) -> Result<Option<Value>> {
        while let Some(line) = self.process.try_line() {
            self.events.push_back(parse(&line)?);
        }
        let found = self.events.iter().position(|event| event["event"] == name);
        Ok(found.and_then(|at| self.events.remove(at)))
    }

    /// Sends a command, and gives its number for [`JsPeer::reply`]. Commands run one after another.
    ///
    /// # Errors
    ///
    /// The peer has ended.
    pub fn send(&mut self, mut command: Value) -> Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        command["id"] = json!(id);
        self.process.send(&command.to_string())?;
        Ok(id)
    }

    /// Waits for the reply to a command.
    ///
    /// # Errors
    ///
    /// The command failed, did not end in time, or the peer ended first.
    pub fn reply(&mut self, id: u64, time: Duration) -> Result<Value> {
        let is_reply = |event: &Value| event["id"] == id && (event["event"] == "reply" || event["event"] == "failed");
        let reply = self.find(is_reply, time)?;
        if reply["event"] == "failed" {
            bail!("command {id} failed: {}", reply["message"].as_str().unwrap_or_default());
        }
        Ok(reply)
    }

    /// Sends a command and waits for its reply.
    ///
    /// # Errors
    ///
    /// As [`JsPeer::reply`].
    pub fn call(&mut self, command: Value) -> Result<Value> {
        let text = command.to_string();
        let id = self.send(command)?;
        self.reply(id, TIMEOUT).with_context(|| text)
    }

    /// Connects to a listener, as initiator.
    ///
    /// # Errors
    ///
    /// As [`JsPeer::reply`].
    pub fn connect(&mut self, address: SocketAddr) -> Result<()> {
        self.call(json!({"cmd": "connect", "address": address.to_string()})).map(drop)
    }

    /// Appends `count` made [`blocks`](crate::blocks::blocks) in one batch to a writer, which is made if it is
    /// missing: its key.
    ///
    /// # Errors
    ///
    /// As [`JsPeer::reply`].
    pub fn append(&mut self, name: &str, count: u32, size: usize, seed: u32) -> Result<String> {
        let command = json!({"cmd": "append", "name": name, "count": count, "size": size, "seed": seed});
        let id = self.send(command)?;
        let reply = self.reply(id, TIMEOUT * 3)?;
        Ok(reply["key"].as_str().context("no key")?.to_owned())
    }

    /// The peer's feeds, with digests, sorted by key.
    ///
    /// # Errors
    ///
    /// As [`JsPeer::reply`].
    pub fn feeds(&mut self) -> Result<Vec<JsFeed>> {
        let id = self.send(json!({"cmd": "feeds"}))?;
        feeds_of(self.reply(id, TIMEOUT * 3)?)
    }

    /// Waits until the peer knows at least `feeds` feeds, and holds at least `blocks` blocks in all of them together.
    ///
    /// # Errors
    ///
    /// It does not come to that within `time`.
    pub fn wait(&mut self, feeds: u64, blocks: u64, time: Duration) -> Result<()> {
        let ms = u64::try_from(time.as_millis())?;
        let id = self.send(json!({"cmd": "wait", "feeds": feeds, "blocks": blocks, "ms": ms}))?;
        self.reply(id, time + TIMEOUT).map(drop).with_context(|| self.process.history())
    }

    /// Cuts every connection: the sockets are destroyed, with nothing said on them.
    ///
    /// # Errors
    ///
    /// As [`JsPeer::reply`].
    pub fn disconnect(&mut self) -> Result<()> {
        self.call(json!({"cmd": "destroy"})).map(drop)
    }

    /// Closes the multifeed, and waits until the process has ended.
    ///
    /// # Errors
    ///
    /// It does not end in time, or with another exit code than 0.
    pub fn close(mut self) -> Result<()> {
        self.process.close_input();
        self.process.exit(&[0], Instant::now() + TIMEOUT).map(drop)
    }

    /// Kills the process at once, as a crash would.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()
    }

    /// Waits until the process has ended by itself (`--once`), with one of these exit codes: 0 after a clean end,
    /// 1 after an error, 70 after a crash of JS itself.
    ///
    /// # Errors
    ///
    /// It does not end within `time`, or with another code.
    pub fn exit(mut self, allowed: &[i32], time: Duration) -> Result<ExitStatus> {
        self.process.exit(allowed, Instant::now() + time)
    }

    /// All that the peer printed so far, on both outputs, for a test's own messages.
    pub fn history(&self) -> String {
        self.process.history()
    }

    fn find(&mut self, wanted: impl Fn(&Value) -> bool, time: Duration) -> Result<Value> {
        let deadline = Instant::now() + time;
        if let Some(at) = self.events.iter().position(&wanted) {
            return self.events.remove(at).context("gone");
        }
        loop {
            let Some(line) = self.process.line(deadline)? else { bail!("the JS peer ended{}", self.process.history()) };
            let event = parse(&line)?;
            if wanted(&event) {
                return Ok(event);
            }
            self.events.push_back(event);
        }
    }
}

impl fmt::Debug for JsPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsPeer").field("id", &self.process.id()).field("events", &self.events).finish_non_exhaustive()
    }
}

fn parse(line: &str) -> Result<Value> {
    serde_json::from_str(line).with_context(|| format!("the JS peer printed {line}"))
}
