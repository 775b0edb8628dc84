//! Processes that are measured: the `multifeed` command, built as its users build it, and other processes that serve.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// A process that reported the address it listens on; dropping this kills it if it did not end by itself.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: String,
}

impl Server {
    /// Starts it, and waits until it listens.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut line = String::new();
        while stdout.read_line(&mut line)? > 0 {
            let event: Value = serde_json::from_str(&line)?;
            if event["event"] == "listening" {
                let address = event["address"].as_str().context("no address")?.to_owned();
                // What it prints from here on is nobody's business, but must not fill its pipe.
                std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
                return Ok(Self { child, address });
            }
            line.clear();
        }
        bail!("the server ended before it listened: {}", child.wait()?);
    }

    /// The address it listens on, as HOST:PORT.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it ended by itself, and well.
    pub fn end(&mut self) -> Result<()> {
        let status = self.child.wait()?;
        ensure!(status.success(), "the server failed: {status}");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Builds the `multifeed` command as its users do, and gives its path.
pub fn build_command() -> Result<PathBuf> {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--release", "-p", "multifeed-cli", "--message-format=json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the build failed");
    let mut messages =
        output.stdout.rsplit(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let executable = messages.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    executable.context("cargo named no executable")
}

/// A path, for a command's arguments.
pub fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
