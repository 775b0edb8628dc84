//! Stores of more and more feeds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use multifeed_benches::processes::{Server, build_command, text};
use multifeed_testkit::js;
use serde_json::Value;

use crate::plot;
use multifeed_benches::watch::{Peak, report, wait, wait_for};

#[derive(Args)]
pub(crate) struct Feeds {
    /// How many feeds the stores have.
    #[arg(long, value_delimiter = ',', default_value = "100,1000,10000,50000,100000")]
    counts: Vec<u32>,
    /// Blocks of each feed.
    #[arg(long, default_value_t = 3)]
    blocks: u64,
    /// Bytes of each block.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// JS opens and pulls stores of at most so many feeds; 0 leaves it out.
    #[arg(long, default_value_t = 1000)]
    js: u32,
    /// Both sides stay connected: what was seen while they were is told, until everything is there.
    #[arg(long)]
    live: bool,
    /// The command to measure; by default it is built.
    #[arg(long)]
    command: Option<PathBuf>,
    /// A folder for the plots; by default none are made.
    #[arg(long)]
    plots: Option<PathBuf>,
}

/// The command takes no more feeds from peers (`Limits::feeds`).
const MOST_PULLED: u32 = 131_072;

/// One line of the table.
pub(crate) struct Row {
    pub(crate) feeds: u32,
    /// Opening, by ours and by JS, in seconds.
    pub(crate) open: f64,
    pub(crate) open_js: Option<f64>,
    pub(crate) open_bytes: u64,
    /// Pulling everything, and then once more with nothing new.
    pub(crate) pull: Option<Duration>,
    pub(crate) again: Option<Duration>,
    /// JS pulling everything from ours.
    pub(crate) pull_js: Option<Duration>,
    pub(crate) server: Peak,
    pub(crate) puller: Peak,
}

impl Feeds {
    pub(crate) fn run(self) -> Result<()> {
        let command = match &self.command {
            Some(command) => command.clone(),
            None => build_command()?,
        };
        if self.js > 0 {
            js::install()?;
        }
        println!(
            "| feeds | open, s | JS, s | times as fast | open, MB | pull, s | again, s | JS pulls, s | server, MB | puller, MB | server, files | puller, files |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
        let mut rows = Vec::new();
        for &feeds in &self.counts {
            let row = self.measure(&command, feeds).with_context(|| format!("with {feeds} feeds"))?;
            println!("{}", row.line());
            rows.push(row);
        }
        match &self.plots {
            Some(folder) => plot::feeds(folder, &rows),
            None => Ok(()),
        }
    }

    fn measure(&self, command: &Path, feeds: u32) -> Result<Row> {
        let [source, target] = [tempfile::tempdir()?, tempfile::tempdir()?];
        let arguments = [feeds.to_string(), self.blocks.to_string(), self.size.to_string()];
        report(role("make")?.arg(source.path()).args(arguments))?;
        let open_js = if feeds <= self.js { Some(self.open_js(source.path())?) } else { None };
        let opened = report(role("open")?.arg(source.path()))?;
        ensure!(opened["feeds"] == feeds && opened["blocks"] == u64::from(feeds) * self.blocks, "{opened}");
        let mut row = Row {
            feeds,
            open: opened["seconds"].as_f64().unwrap_or_default(),
            open_js,
            open_bytes: opened["bytes"].as_u64().unwrap_or_default(),
            pull: None,
            again: None,
            pull_js: None,
            server: Peak::default(),
            puller: Peak::default(),
        };
        if feeds > MOST_PULLED {
            return Ok(row);
        }
        row.pull = Some(self.pull(command, source.path(), target.path(), &mut row)?);
        if !self.live {
            row.again = Some(self.pull(command, source.path(), target.path(), &mut row)?);
        }
        if feeds <= self.js {
            row.pull_js = Some(self.pull_js(command, source.path(), &mut row)?);
        }
        Ok(row)
    }

    /// JS pulls from ours: it lists all keys, and opens all feeds.
    fn pull_js(&self, command: &Path, source: &Path, row: &mut Row) -> Result<Duration> {
        let target = tempfile::tempdir()?;
        let mut server = Command::new(command);
        server.arg("--json").arg("--store").arg(source).args(["serve", "127.0.0.1:0", "--once"]);
        let mut server = Server::spawn(&mut server)?;
        let script = js::interop_dir().join("bench.js");
        let arguments = ["pull".to_owned(), text(target.path()), server.address().to_owned()];
        let mut puller = Command::new("node").arg(script).args(arguments).stdout(Stdio::null()).spawn()?;
        let time = wait(&mut puller, &mut Peak::default(), Some((server.id(), &mut row.server)))?;
        server.end()?;
        Ok(time)
    }

    fn open_js(&self, store: &Path) -> Result<f64> {
        let script = js::interop_dir().join("bench.js");
        let opened = report(Command::new("node").arg(script).args(["open".to_owned(), text(store)]))?;
        opened["seconds"].as_f64().context("JS told no time")
    }

    /// The whole life of the pulling process, against a server that listens already.
    fn pull(&self, command: &Path, source: &Path, target: &Path, row: &mut Row) -> Result<Duration> {
        let ours = |store: &Path, arguments: &[&str]| {
            let mut command = Command::new(command);
            command.arg("--json").arg("--store").arg(store).args(arguments);
            command
        };
        let live: &[&str] = if self.live { &["--live"] } else { &[] };
        let mut server = Server::spawn(&mut ours(source, &[&["serve", "127.0.0.1:0", "--once"], live].concat()))?;
        let process = server.id();
        let mut puller = ours(target, &[&["sync", server.address()], live].concat());
        if self.live {
            let expected = u64::from(row.feeds) * self.blocks;
            let arrived = |event: &Value| event["blocks_received"].as_u64() == Some(expected);
            return wait_for(&mut puller, arrived, |puller| {
                row.puller.look(puller);
                row.server.look(process);
            });
        }
        let mut puller = puller.stdout(Stdio::null()).spawn()?;
        let time = wait(&mut puller, &mut row.puller, Some((process, &mut row.server)))?;
        server.end()?;
        let arrived = report(role("open")?.arg(target))?;
        ensure!(arrived["blocks"] == u64::from(row.feeds) * self.blocks, "{arrived}");
        Ok(time)
    }
}

impl Row {
    fn line(&self) -> String {
        let mb = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
        let or_none =
            |value: Option<f64>, digits: usize| value.map_or("–".to_owned(), |value| format!("{value:.digits$}"));
        let cells = [
            self.feeds.to_string(),
            format!("{:.3}", self.open),
            or_none(self.open_js, 3),
            or_none(self.open_js.map(|js| js / self.open), 1),
            mb(self.open_bytes),
            or_none(self.pull.map(|time| time.as_secs_f64()), 2),
            or_none(self.again.map(|time| time.as_secs_f64()), 2),
            or_none(self.pull_js.map(|time| time.as_secs_f64()), 2),
            or_none(self.pull.map(|_| self.server.bytes as f64 / 1e6), 1),
            or_none(self.pull.map(|_| self.puller.bytes as f64 / 1e6), 1),
            or_none(self.pull.map(|_| self.server.files as f64), 0),
            or_none(self.pull.map(|_| self.puller.files as f64), 0),
        ];
        format!("| {} |", cells.join(" | "))
    }
}

/// This program, as one of its roles.
pub(crate) fn role(name: &str) -> Result<Command> {
    let mut command = Command::new(fs::read_link("/proc/self/exe")?);
    command.args(["role", name]);
    Ok(command)
}
