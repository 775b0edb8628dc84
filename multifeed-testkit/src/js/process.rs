//! One script as a child process.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::install::{install, interop_dir, missing};

/// How often an exit is looked for.
const EXIT_POLL: Duration = Duration::from_millis(5);

/// A running script. It is killed when this is dropped.
pub(super) struct Process {
    script: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    /// All that it printed so far, and was read.
    log: Vec<String>,
    errors: Arc<Mutex<String>>,
}

impl Process {
    /// Starts a script of `interop/`.
    pub(super) fn spawn(script: &str, args: &[&str]) -> Result<Process> {
        install()?;
        let mut child = Command::new("node")
            .arg(script)
            .args(args)
            .current_dir(interop_dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|err| missing("node", err))?;
        let stdin = child.stdin.take();
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
        let errors = Arc::new(Mutex::new(String::new()));
        let sink = errors.clone();
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = stderr.read(&mut chunk) {
                let text = String::from_utf8_lossy(&chunk[..n]);
                sink.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Ok(Process { script: script.to_owned(), child, stdin, lines, log: Vec::new(), errors })
    }

    /// The next line that it prints, `None` at the end of its output.
    pub(super) fn line(&mut self, deadline: Instant) -> Result<Option<String>> {
        match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                self.log.push(line.clone());
                Ok(Some(line))
            }
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => bail!("{} printed nothing more in time{}", self.script, self.history()),
        }
    }

    /// A line that is there already.
    pub(super) fn try_line(&mut self) -> Option<String> {
        let line = self.lines.try_recv().ok()?;
        self.log.push(line.clone());
        Some(line)
    }

    /// Sends one line to it.
    pub(super) fn send(&mut self, line: &str) -> Result<()> {
        let Some(stdin) = &mut self.stdin else { bail!("{} has no input any more", self.script) };
        let sent = stdin.write_all(line.as_bytes()).and_then(|()| stdin.write_all(b"\n")).and_then(|()| stdin.flush());
        sent.with_context(|| format!("{} takes no input{}", self.script, self.history()))
    }

    /// Ends its input.
    pub(super) fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Waits for its end, which has to come with one of these exit codes.
    pub(super) fn exit(&mut self, allowed: &[i32], deadline: Instant) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                while let Ok(Some(_)) = self.line(deadline) {}
                if status.code().is_none_or(|code| !allowed.contains(&code)) {
                    bail!("{} ended with {status}{}", self.script, self.history());
                }
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} did not end in time{}", self.script, self.history());
            }
            thread::sleep(EXIT_POLL);
        }
    }

    /// Kills it, as a crash or a power cut would.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far, for error messages.
    pub(super) fn history(&self) -> String {
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: String = self.log.iter().map(|line| format!("\n  {}", shorten(line))).collect();
        format!("; printed:{lines}\nerrors:\n{errors}")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended long ago, which is as good.
        let _ = self.kill();
    }
}

fn shorten(line: &str) -> String {
    const MOST: usize = 400;
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}
