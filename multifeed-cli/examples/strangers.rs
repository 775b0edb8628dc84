//! Measures what connections cost `multifeed serve` that begin a message of 8 MiB and hold it, and how an honest sync fares beside them:
//! `cargo run --release -p multifeed-cli --example strangers -- target/release/multifeed`. All of them have one address, as the honest one
//! has: `--max-per-address 2000` behind it lets them fill all places.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use multifeed_testkit::strangers::{Hoarder, resident};
use multifeed_tokio::{DEFAULT_ROOT_KEY, FeedKey};

const MIB: usize = 1024 * 1024;

/// A server that ends with this.
struct Served {
    child: Child,
    address: SocketAddr,
    _store: tempfile::TempDir,
}

impl Served {
    fn start(command: &str, options: &[String]) -> Result<Self> {
        let store = tempfile::tempdir()?;
        run(command, store.path(), &["append", "w", "a block"])?;
        let mut child = Command::new(command)
            .args(["--json", "serve", "127.0.0.1:0", "--live", "--store"])
            .arg(store.path())
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        let line: serde_json::Value = serde_json::from_str(&lines.next().context("it does not listen")??)?;
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let address = line["address"].as_str().context("no address")?.parse()?;
        Ok(Self { child, address, _store: store })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(command: &str, store: &Path, args: &[&str]) -> Result<()> {
    let mut command = Command::new(command);
    let done = command.args(args).arg("--store").arg(store).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    ensure!(done.success(), "{args:?} ended with {done}");
    Ok(())
}

fn measure(command: &str, what: &str, count: usize, root_key: Option<FeedKey>, size: usize) -> Result<()> {
    let options: Vec<String> = std::env::args().skip(2).collect();
    let served = Served::start(command, &options)?;
    let before = resident(served.child.id())?;
    let start = Instant::now();
    let mut hoarders = Vec::new();
    let mut refused = 0;
    for _ in 0..count {
        match Hoarder::connect(served.address, root_key, size, 1) {
            Ok(hoarder) => hoarders.push(hoarder),
            Err(_) => refused += 1,
        }
    }
    std::thread::sleep(Duration::from_millis(300));
    let after = resident(served.child.id())?;
    let took = start.elapsed();
    if root_key.is_some() && size == 0 {
        // Nobody who has just come is idle yet.
        std::thread::sleep(Duration::from_secs(11));
    }
    let store = tempfile::tempdir()?;
    let start = Instant::now();
    let mut honest = Command::new(command)
        .args(["sync", &served.address.to_string(), "--store"])
        .arg(store.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let honest = loop {
        if let Some(done) = honest.try_wait()? {
            let failed = if done.success() { "" } else { " (failed)" };
            break format!("{:.2} s{failed}", start.elapsed().as_secs_f64());
        }
        if start.elapsed() > Duration::from_secs(15) {
            honest.kill()?;
            honest.wait()?;
            break "none in 15 s".to_owned();
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let sent: usize = hoarders.iter().map(Hoarder::sent).sum();
    let alive = hoarders.iter_mut().filter_map(|hoarder| hoarder.is_alive().then_some(())).count();
    println!(
        "{what}: {count} connections in {:.1} s, {refused} refused, {alive} alive at the end; {} MB sent; resident {} MB, {} MB more; \
         honest sync: {honest}",
        took.as_secs_f64(),
        sent / 1_000_000,
        after / 1_000_000,
        after.saturating_sub(before) / 1_000_000,
    );
    Ok(())
}

fn main() -> Result<()> {
    let command = std::env::args().nth(1).context("which multifeed?")?;
    measure(&command, "strangers, 8 MiB begun", 200, None, 8 * MIB - 100)?;
    measure(&command, "strangers, 8 MiB begun", 1024, None, 8 * MIB - 100)?;
    measure(&command, "strangers, 64 KiB begun", 1024, None, 65_000)?;
    measure(&command, "strangers, idle", 1024, None, 0)?;
    measure(&command, "with the root key, 8 MiB begun", 60, Some(DEFAULT_ROOT_KEY), 8 * MIB - 100)?;
    measure(&command, "with the root key, idle", 1024, Some(DEFAULT_ROOT_KEY), 0)
}
