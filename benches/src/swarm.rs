//! How long peers of a local DHT take to be in sync, and to be so again: Rust and JS, in turn, in one run.
//!
//! `cargo run --release -p multifeed-benches --bin swarm` prints the table of docs/performance.md. Stores are in memory, all nodes on loopback; JS is
//! multifeed 6 on hyperswarm 4, as an application joins them. Each time ends when both sides hold all blocks.

use std::future::Future;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use multifeed_swarm::{Hyperswarm, HyperswarmOptions, Mode, Swarm, SwarmOptions, Testnet};
use multifeed_testkit::js::{self, JsPeer};
use multifeed_tokio::{FeedKey, Multifeed, Networker, NetworkerOptions, Options, Replicate};
use serde_json::json;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A root key for each round: who was killed before stands in the DHT for 20 minutes, and JS dials three at a time.
fn new_root() -> FeedKey {
    FeedKey::new(rand::random())
}

#[derive(Parser)]
struct Args {
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Subcommand)]
enum Role {
    /// A Rust peer that is there until it is killed.
    #[command(hide = true)]
    Peer { bootstrap: String, root: FeedKey },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rust,
    Js,
}

/// A peer of this process, or a JS one.
enum Peer {
    Rust { multi: Multifeed, swarm: Swarm },
    Js(JsPeer),
}

/// A peer in a process that is killed.
enum Other {
    Rust(Child),
    Js(JsPeer),
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match args.role {
            Some(Role::Peer { bootstrap, root }) => {
                let mut peer = Peer::new(Kind::Rust, root).await?;
                peer.append().await?;
                peer.join(&bootstrap, Mode::Both).await?;
                std::future::pending().await
            }
            None => measure(args.rounds).await,
        }
    })
}

async fn measure(rounds: usize) -> Result<()> {
    js::install()?;
    js::install_hyperswarm()?;
    let testnet = Testnet::start(4, 0).await?;
    let bootstrap = testnet.bootstrap()[0].to_string();
    println!("| | median, s | of |\n|---|---|---|");
    let (rust, js) = (Kind::Rust, Kind::Js);
    for (first, second) in [(rust, rust), (js, rust), (rust, js), (js, js)] {
        let pair = |what: &str| format!("{first:?} is there, and {second:?} {what}");
        show(&pair("joins, until both are in sync"), rounds, || join(&bootstrap, first, second)).await?;
        for by_dialler in [true, false] {
            let who = if by_dialler { second } else { first };
            let what = format!("dialled it; {who:?} ends the connection, until both are in sync again");
            show(&pair(&what), rounds, || cut(&bootstrap, first, second, by_dialler)).await?;
        }
    }
    for (stays, killed) in [(rust, rust), (rust, js), (js, rust), (js, js)] {
        let what = format!("{killed:?} is killed, and starts again at once, until {stays:?} is in sync with it");
        show(&what, rounds, || kill(&bootstrap, stays, killed)).await?;
    }
    Ok(())
}

/// Measures so many times, and prints a line.
async fn show<F: Future<Output = Result<Duration>>>(what: &str, rounds: usize, one: impl Fn() -> F) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..rounds {
        times.push(one().await.with_context(|| what.to_owned())?.as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let (median, least, most) = (times[times.len() / 2], times[0], times[times.len() - 1]);
    println!("| {what} | {median:.3} | {least:.3} to {most:.3}, {rounds} runs |");
    Ok(())
}

/// Two peers with a block each, of which the second one dials the first.
async fn pair(bootstrap: &str, first: Kind, second: Kind) -> Result<(Peer, Peer, Duration)> {
    let root = new_root();
    let (mut a, mut b) = (Peer::new(first, root).await?, Peer::new(second, root).await?);
    a.append().await?;
    b.append().await?;
    a.join(bootstrap, Mode::Server).await?;
    let start = Instant::now();
    b.join(bootstrap, Mode::Client).await?;
    a.holds(2).await?;
    b.holds(2).await?;
    Ok((a, b, start.elapsed()))
}

async fn join(bootstrap: &str, first: Kind, second: Kind) -> Result<Duration> {
    let (a, b, took) = pair(bootstrap, first, second).await?;
    b.close().await?;
    a.close().await?;
    Ok(took)
}

async fn cut(bootstrap: &str, first: Kind, second: Kind, by_dialler: bool) -> Result<Duration> {
    let (mut a, mut b, _) = pair(bootstrap, first, second).await?;
    let start = Instant::now();
    if by_dialler {
        b.cut()?
    } else {
        a.cut()?
    };
    a.append().await?;
    b.append().await?;
    a.holds(4).await?;
    b.holds(4).await?;
    let took = start.elapsed();
    b.close().await?;
    a.close().await?;
    Ok(took)
}

async fn kill(bootstrap: &str, stays: Kind, killed: Kind) -> Result<Duration> {
    let root = new_root();
    let mut a = Peer::new(stays, root).await?;
    a.append().await?;
    a.join(bootstrap, Mode::Both).await?;
    let other = Other::start(bootstrap, killed, root)?;
    a.holds(2).await?;
    let start = Instant::now();
    other.kill()?;
    let other = Other::start(bootstrap, killed, root)?;
    a.holds(3).await?;
    let took = start.elapsed();
    other.kill()?;
    a.close().await?;
    Ok(took)
}

fn js_peer(root: FeedKey) -> Result<JsPeer> {
    JsPeer::spawn(&["--key", &root.to_string(), "--live"])
}

impl Other {
    fn start(bootstrap: &str, kind: Kind, root: FeedKey) -> Result<Self> {
        Ok(match kind {
            Kind::Rust => {
                let mut command = Command::new(std::env::current_exe()?);
                Self::Rust(command.args(["peer", bootstrap, &root.to_string()]).stdout(Stdio::null()).spawn()?)
            }
            Kind::Js => tokio::task::block_in_place(|| -> Result<Self> {
                let mut peer = js_peer(root)?;
                peer.append("w", 1, 100, 1)?;
                peer.send(json!({"cmd": "swarm", "bootstrap": [bootstrap]}))?;
                Ok(Self::Js(peer))
            })?,
        })
    }

    fn kill(self) -> Result<()> {
        match self {
            Self::Rust(mut child) => {
                child.kill()?;
                child.wait()?;
                Ok(())
            }
            Self::Js(peer) => peer.kill(),
        }
    }
}

impl Peer {
    async fn new(kind: Kind, root: FeedKey) -> Result<Self> {
        Ok(match kind {
            Kind::Rust => {
                let multi = Multifeed::in_memory(Options::new(root)).await?;
                let networker = Networker::new(NetworkerOptions::default())?;
                Self::Rust { multi, swarm: Swarm::new(networker, Vec::new(), SwarmOptions::default()) }
            }
            Kind::Js => Self::Js(tokio::task::block_in_place(|| js_peer(root))?),
        })
    }

    async fn append(&mut self) -> Result<()> {
        match self {
            Self::Rust { multi, .. } => _ = multi.writer("w").await?.append("a block").await?,
            Self::Js(peer) => _ = tokio::task::block_in_place(|| peer.append("w", 1, 100, 1))?,
        }
        Ok(())
    }

    /// Joins, and can be found when this returns.
    async fn join(&mut self, bootstrap: &str, mode: Mode) -> Result<()> {
        match self {
            Self::Rust { multi, swarm } => {
                let mut options = HyperswarmOptions::default();
                (options.bootstrap, options.loopback_only) = (vec![bootstrap.to_owned()], true);
                let engine = Arc::new(Hyperswarm::start(options).await?);
                let networker = Networker::new(NetworkerOptions::default())?;
                *swarm = Swarm::new(networker, vec![engine.clone()], SwarmOptions::default());
                swarm.join(multi, Replicate::live(), mode)?;
                if mode.is_server() {
                    tokio::time::timeout(PATIENCE, engine.settled()).await??;
                }
            }
            Self::Js(peer) => {
                let join = json!({"cmd": "swarm", "bootstrap": [bootstrap]});
                tokio::task::block_in_place(|| peer.send(join).and_then(|id| peer.reply(id, PATIENCE)))?;
            }
        }
        Ok(())
    }

    async fn holds(&mut self, blocks: u64) -> Result<()> {
        match self {
            Self::Rust { multi, .. } => {
                let mut events = multi.events();
                let held = async {
                    while multi.feeds().iter().map(|feed| feed.downloaded()).sum::<u64>() < blocks {
                        events.next().await.context("it is closed")?;
                    }
                    Ok::<_, anyhow::Error>(())
                };
                tokio::time::timeout(PATIENCE, held).await.context("the blocks do not come")?
            }
            Self::Js(peer) => tokio::task::block_in_place(|| peer.wait(0, blocks, PATIENCE)),
        }
    }

    /// Ends its connections.
    fn cut(&mut self) -> Result<()> {
        match self {
            Self::Rust { swarm, .. } => {
                let peers = swarm.networker().peers();
                ensure!(!peers.is_empty(), "it has no connection");
                peers.iter().for_each(|peer| swarm.networker().disconnect(peer.connection));
                Ok(())
            }
            Self::Js(peer) => tokio::task::block_in_place(|| peer.disconnect()),
        }
    }

    async fn close(self) -> Result<()> {
        match self {
            Self::Rust { multi, swarm } => {
                swarm.close().await;
                multi.close().await?;
                Ok(())
            }
            Self::Js(peer) => tokio::task::block_in_place(|| peer.close()),
        }
    }
}
