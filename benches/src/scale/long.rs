//! One feed of many blocks.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use clap::Args;
use multifeed_benches::processes::{Server, build_command};
use serde_json::Value;

use crate::feeds::role;
use multifeed_benches::watch::{Peak, report, wait};

#[derive(Args)]
pub(crate) struct Long {
    /// Lengths of the feed, in blocks.
    #[arg(long, value_delimiter = ',', default_value = "100000,1000000,10000000")]
    blocks: Vec<u64>,
    /// Bytes of each block.
    #[arg(long, default_value_t = 10)]
    size: usize,
    /// Blocks of a batch, each with one signature.
    #[arg(long, default_value_t = 1000)]
    batch: u64,
    /// Blocks that are read, far apart from each other.
    #[arg(long, default_value_t = 100_000)]
    reads: u64,
    /// The command to measure; by default it is built.
    #[arg(long)]
    command: Option<PathBuf>,
}

impl Long {
    pub(crate) fn run(self) -> Result<()> {
        let command = match &self.command {
            Some(command) => command.clone(),
            None => build_command()?,
        };
        println!("| blocks | append, s | MB | open, s | MB | read, s | MB | pull, s | server, MB | puller, MB |");
        println!("|---|---|---|---|---|---|---|---|---|---|");
        for &blocks in &self.blocks {
            self.measure(&command, blocks)?;
        }
        Ok(())
    }

    fn measure(&self, command: &PathBuf, blocks: u64) -> Result<()> {
        let [source, target] = [tempfile::tempdir()?, tempfile::tempdir()?];
        let numbers = [blocks.to_string(), self.size.to_string(), self.batch.to_string()];
        let appended = report(role("append")?.arg(source.path()).args(numbers))?;
        let opened = report(role("open")?.arg(source.path()))?;
        ensure!(opened["blocks"] == blocks, "{opened}");
        let read = report(role("read")?.arg(source.path()).arg(self.reads.to_string()))?;
        let ours = |store: &std::path::Path, arguments: &[&str]| {
            let mut command = Command::new(command);
            command.arg("--json").arg("--store").arg(store).args(arguments);
            command
        };
        let [mut server_peak, mut puller_peak] = [Peak::default(), Peak::default()];
        let mut server = Server::spawn(&mut ours(source.path(), &["serve", "127.0.0.1:0", "--once"]))?;
        let mut puller = ours(target.path(), &["sync", server.address()]).stdout(Stdio::null()).spawn()?;
        let pull = wait(&mut puller, &mut puller_peak, Some((server.id(), &mut server_peak)))?;
        server.end()?;
        let arrived = report(role("open")?.arg(target.path()))?;
        ensure!(arrived["blocks"] == blocks, "{arrived}");
        let seconds = |value: &Value| format!("{:.3}", value["seconds"].as_f64().unwrap_or_default());
        let mb = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
        let own = |value: &Value| mb(value["bytes"].as_u64().unwrap_or_default());
        let cells = [
            blocks.to_string(),
            seconds(&appended),
            own(&appended),
            seconds(&opened),
            own(&opened),
            seconds(&read),
            own(&read),
            format!("{:.2}", pull.as_secs_f64()),
            mb(server_peak.bytes),
            mb(puller_peak.bytes),
        ];
        println!("| {} |", cells.join(" | "));
        Ok(())
    }
}
