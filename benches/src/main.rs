//! Whole processes side by side: multifeed for Rust and npm's multifeed 6, in turn, in one run.
//!
//! `cargo run --release -p multifeed-benches` pulls the same folder over loopback TCP, folder to folder, by each of the two from each of the two, one after the
//! other in each round. It prints medians: the time, the processor's time and the peak memory of each side, and the median of the rounds' ratios to JS
//! from JS. It checks that everything arrived, and says if the machine had other work. Only ratios carry over to another machine. Linux only.

mod opening;
mod peers;

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use blake2b_simd::Params;
use blake2b_simd::many::{HashManyJob, hash_many};
use clap::Parser;
use multifeed_benches::processes::{Server, build_command, text};
use multifeed_benches::watch::{self, Peak};
use multifeed_cipher::XSalsa20;
use multifeed_testkit::js;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde_json::Value;
use tempfile::TempDir;

/// Syncs measured against JS, whole processes, folder to folder.
#[derive(Parser)]
struct Args {
    /// Rounds of each workload: in each, every pair of peers once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Where the stores are, instead of the folder for temporary files: on a disk, or in memory.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Only JS from JS, and Rust from Rust.
    #[arg(long)]
    alike: bool,
    /// Workloads to run, by name (also `peers` and `opening`); all by default.
    workloads: Vec<String>,
}

/// A store to pull.
struct Workload {
    name: &'static str,
    feeds: u64,
    blocks: u64,
    size: u64,
    /// The pulling side has as much of its own, which the other one gets.
    both: bool,
}

const WORKLOADS: &[Workload] = &[
    Workload { name: "small", feeds: 1, blocks: 100_000, size: 100, both: false },
    Workload { name: "large", feeds: 1, blocks: 4_096, size: 64 << 10, both: false },
    Workload { name: "feeds", feeds: 1_000, blocks: 10, size: 100, both: false },
    Workload { name: "both", feeds: 1, blocks: 50_000, size: 100, both: true },
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Js,
    Rust,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Js => "JS",
            Self::Rust => "Rust",
        }
    }
}

/// Who pulls, and from whom. The first is what the others are held against.
const PAIRS: [(Kind, Kind); 4] =
    [(Kind::Js, Kind::Js), (Kind::Rust, Kind::Rust), (Kind::Rust, Kind::Js), (Kind::Js, Kind::Rust)];

/// What a pull took. Of each side: the processor's time in seconds, and its peak memory in bytes.
#[derive(Clone, Copy)]
struct Took {
    /// The whole life of the pulling process, against a server that listens already, in seconds.
    wall: f64,
    cpu: [f64; 2],
    memory: [u64; 2],
}

fn main() -> Result<()> {
    let args = Args::parse();
    js::install()?;
    let bench = Bench {
        binary: build_command()?,
        script: js::interop_dir().join("bench.js"),
        folder: args.folder.unwrap_or_else(std::env::temp_dir),
    };
    let pairs: Vec<_> = PAIRS.into_iter().filter(|(pulls, serves)| !args.alike || pulls == serves).collect();
    let is_asked_for =
        |workload: &Workload| args.workloads.is_empty() || args.workloads.iter().any(|name| name == workload.name);
    for workload in WORKLOADS.iter().filter(|workload| is_asked_for(workload)) {
        bench.run(workload, &pairs, args.rounds)?;
    }
    if is_asked_for(&peers::STORE) {
        bench.serve_many(args.rounds)?;
    }
    if is_asked_for(&opening::STORE) {
        bench.open_many(args.rounds)?;
    }
    Ok(())
}

struct Bench {
    binary: PathBuf,
    script: PathBuf,
    folder: PathBuf,
}

impl Bench {
    fn run(&self, workload: &Workload, pairs: &[(Kind, Kind)], rounds: usize) -> Result<()> {
        let Workload { name, feeds, blocks, size, both } = workload;
        let source = self.make(workload)?;
        let own = both.then(|| self.make(workload)).transpose()?;
        let pull = |&(pulls, serves): &(Kind, Kind)| {
            self.pull(source.path(), own.as_ref().map(TempDir::path), workload, pulls, serves)
        };
        // A round for the caches, not counted.
        pairs.iter().try_for_each(|pair| pull(pair).map(drop))?;
        let before = (Instant::now(), machine_busy()?, children()?);
        let mut took = Vec::new();
        for _ in 0..rounds {
            took.push(pairs.iter().map(pull).collect::<Result<Vec<Took>>>()?);
        }
        let (since, busy, ours) = before;
        // What ran beside: of all processors, as a part of the time.
        let processors = std::thread::available_parallelism()?.get() as f64;
        let others = (machine_busy()? - busy) - (children()? - ours).as_secs_f64();
        let others = 100.0 * others.max(0.0) / (since.elapsed().as_secs_f64() * processors);

        println!(
            "\n**{name}**: {feeds} × {blocks} × {size} B{}\n",
            if *both { ", and as many the other way" } else { "" }
        );
        println!(
            "| pulls from | s | processor: pulls, s | serves, s | peak: pulls, MB | serves, MB | times as fast | processor, times less |"
        );
        println!("|---|---|---|---|---|---|---|---|");
        for (at, (pulls, serves)) in pairs.iter().enumerate() {
            let of = |value: &dyn Fn(&Took) -> f64| median(took.iter().map(|round| value(&round[at])));
            let ratio =
                |value: &dyn Fn(&Took) -> f64| median(took.iter().map(|round| value(&round[0]) / value(&round[at])));
            println!(
                "| {} from {} | {:.3} | {:.3} | {:.3} | {:.0} | {:.0} | {:.1} | {:.1} |",
                pulls.name(),
                serves.name(),
                of(&|took| took.wall),
                of(&|took| took.cpu[0]),
                of(&|took| took.cpu[1]),
                of(&|took| took.memory[0] as f64 / 1e6),
                of(&|took| took.memory[1] as f64 / 1e6),
                ratio(&|took| took.wall),
                ratio(&|took| took.cpu[0] + took.cpu[1]),
            );
        }
        println!(
            "\nHashing and enciphering it once on each side, by the fastest code at hand: {:.3} s of one processor.",
            least(workload).as_secs_f64()
        );
        println!(
            "Other processes took {others:.0} % of the machine{}.",
            if others > 5.0 { ": IT WAS NOT QUIET" } else { "" }
        );
        Ok(())
    }

    /// Makes a store by JS.
    fn make(&self, workload: &Workload) -> Result<TempDir> {
        let Workload { feeds, blocks, size, .. } = workload;
        let store = self.store()?;
        let make = ["make".to_owned(), text(store.path()), feeds.to_string(), blocks.to_string(), size.to_string()];
        let made = self.js().args(make).stdout(Stdio::null()).status()?;
        ensure!(made.success(), "the JS maker failed: {made}");
        Ok(store)
    }

    /// With what the pulling side has of its own, both work on copies.
    fn pull(&self, source: &Path, own: Option<&Path>, workload: &Workload, pulls: Kind, serves: Kind) -> Result<Took> {
        let (target, copied) = (self.store()?, self.store()?);
        let source = match own {
            Some(own) => {
                copy(own, target.path())?;
                copy(source, copied.path())?;
                copied.path()
            }
            None => source,
        };
        let mut serve = match serves {
            Kind::Js => self.js(),
            Kind::Rust => self.rust(source),
        };
        match serves {
            Kind::Js => serve.args(["serve".to_owned(), text(source)]),
            Kind::Rust => serve.args(["serve", "127.0.0.1:0", "--once"]),
        };
        let mut server = Server::spawn(&mut serve)?;
        let mut pull = match pulls {
            Kind::Js => self.js(),
            Kind::Rust => self.rust(target.path()),
        };
        match pulls {
            Kind::Js => pull.args(["pull".to_owned(), text(target.path()), server.address().to_owned()]),
            Kind::Rust => pull.args(["sync", server.address()]),
        };
        let before = children()?;
        let start = Instant::now();
        let mut child = pull.stdout(Stdio::null()).spawn()?;
        let (mut pulling, mut serving) = (Peak::default(), Peak::default());
        watch::wait(&mut child, &mut pulling, Some((server.id(), &mut serving)))
            .with_context(|| format!("{} pulls from {}", pulls.name(), serves.name()))?;
        let wall = start.elapsed().as_secs_f64();
        let between = children()?;
        server.end()?;
        let after = children()?;
        self.check(target.path(), workload)?;
        if own.is_some() {
            self.check(source, workload)?;
        }
        Ok(Took {
            wall,
            cpu: [(between - before).as_secs_f64(), (after - between).as_secs_f64()],
            memory: [pulling.bytes, serving.bytes],
        })
    }

    /// Everything arrived: a fast sync of nothing would be no figure.
    fn check(&self, target: &Path, workload: &Workload) -> Result<()> {
        let listed = self.rust(target).arg("feeds").output()?;
        let feeds: Vec<Value> = listed
            .stdout
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(serde_json::from_slice)
            .collect::<Result<_, _>>()?;
        let blocks: u64 = feeds.iter().filter_map(|feed| feed["downloaded"].as_u64()).sum();
        let sides = if workload.both { 2 } else { 1 };
        ensure!(blocks == sides * workload.feeds * workload.blocks, "{blocks} blocks arrived");
        Ok(())
    }

    fn store(&self) -> Result<TempDir> {
        Ok(tempfile::tempdir_in(&self.folder)?)
    }

    fn js(&self) -> Command {
        let mut command = Command::new("node");
        command.arg(&self.script);
        command
    }

    fn rust(&self, store: &Path) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--json").arg("--store").arg(store);
        command
    }
}

/// Copies the files of a store, and those in its folders.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &to)?,
            false => _ = std::fs::copy(entry.path(), to)?,
        }
    }
    Ok(())
}

/// The processor's time of all processes that were waited for.
fn children() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(micros.unsigned_abs()))
}

/// Seconds for which the machine's processors were busy since it started.
fn machine_busy() -> Result<f64> {
    const HERTZ: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("no line in /proc/stat")?;
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|number| number.parse().ok()).collect();
    // user, nice and system; then interrupts. Idle and waiting for a disk are neither.
    Ok([0, 1, 2, 5, 6].into_iter().filter_map(|at| ticks.get(at)).sum::<u64>() as f64 / HERTZ)
}

/// How long the fastest code at hand takes to hash, encipher, decipher and hash the blocks of a workload, on one processor.
fn least(workload: &Workload) -> Duration {
    const LANES: usize = 4;
    let mut params = Params::new();
    params.hash_length(32);
    let mut blocks = vec![vec![7u8; workload.size as usize]; LANES];
    let (mut sends, mut receives) = (XSalsa20::new(&[1; 32], &[2; 24]), XSalsa20::new(&[1; 32], &[2; 24]));
    let start = Instant::now();
    for _ in 0..workload.feeds * workload.blocks / LANES as u64 {
        for _ in 0..2 {
            let mut jobs: Vec<_> = blocks.iter().map(|block| HashManyJob::new(&params, block)).collect();
            hash_many(jobs.iter_mut());
            black_box(&jobs);
        }
        for block in &mut blocks {
            sends.apply(block);
            receives.apply(black_box(block));
        }
    }
    start.elapsed()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
