//! Looking at a process from outside.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// How often a process is looked at: its peak of memory is the kernel's own, and so misses only its last moments.
const EVERY: Duration = Duration::from_millis(10);

/// The most that a process was seen to use.
#[derive(Debug, Clone, Copy, Default)]
pub struct Peak {
    /// Bytes resident.
    pub bytes: u64,
    /// Open files, sockets and pipes included.
    pub files: usize,
}

impl Peak {
    /// Looks at a process once. One that is gone changes nothing.
    pub fn look(&mut self, process: u32) {
        self.bytes = self.bytes.max(peak_bytes(&format!("/proc/{process}/status")));
        self.files = self.files.max(fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count));
    }
}

/// The most that this process had resident so far, in bytes.
pub fn own_peak_bytes() -> u64 {
    peak_bytes("/proc/self/status")
}

/// Waits for a process while looking at it and at another one. Gives how long that took.
pub fn wait(child: &mut Child, peak: &mut Peak, other: Option<(u32, &mut Peak)>) -> Result<Duration> {
    let start = Instant::now();
    let mut other = other;
    loop {
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "a measured process failed: {status}");
            return Ok(start.elapsed());
        }
        peak.look(child.id());
        if let Some((process, peak)) = &mut other {
            peak.look(*process);
        }
        std::thread::sleep(EVERY);
    }
}

/// Runs a process that prints JSON objects until one of them is the one that is waited for, then ends it. Gives how long that took.
pub fn wait_for(
    command: &mut Command,
    awaited: impl Fn(&Value) -> bool,
    mut look: impl FnMut(u32),
) -> Result<Duration> {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let stdout = BufReader::new(child.stdout.take().context("no stdout")?);
    let (sender, events) = channel();
    let reader = std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            if serde_json::from_str(&line).is_ok_and(|event: Value| sender.send(event).is_ok()) {
                continue;
            }
            return;
        }
    });
    let result = loop {
        match events.recv_timeout(EVERY) {
            Ok(event) if awaited(&event) => break Ok(start.elapsed()),
            Ok(_) => continue,
            Err(RecvTimeoutError::Timeout) => look(child.id()),
            Err(RecvTimeoutError::Disconnected) => break Err(()),
        }
    };
    look(child.id());
    child.kill()?;
    let status = child.wait()?;
    let _ = reader.join();
    match result {
        Ok(time) => Ok(time),
        Err(()) => bail!("a measured process ended: {status}"),
    }
}

/// Runs a process that prints one JSON object as its last line.
pub fn report(command: &mut Command) -> Result<Value> {
    let output = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "a measured process failed: {}", output.status);
    let last = output.stdout.split(|&byte| byte == b'\n').rfind(|line| !line.is_empty()).unwrap_or_default();
    Ok(serde_json::from_slice(last)?)
}

fn peak_bytes(status: &str) -> u64 {
    let Ok(text) = fs::read_to_string(status) else { return 0 };
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib =
        line.and_then(|rest| rest.trim().strip_suffix(" kB")).and_then(|number| number.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
