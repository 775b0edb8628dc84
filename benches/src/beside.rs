//! Appends to a store that another process serves, through its control socket: over one connection, and by one process each; beside those of the process
//! that has the store open itself.
//!
//! `cargo run --release -p multifeed-benches --bin beside`; `--command PATH` takes a command that is built already.

#[cfg(unix)]
fn main() -> anyhow::Result<()> {
    unix::main()
}

#[cfg(not(unix))]
fn main() {
    println!("there is no control socket on this system");
}

#[cfg(unix)]
mod unix {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::net::UnixStream;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use anyhow::{Result, ensure};
    use clap::Parser;
    use multifeed_benches::processes::{Server, build_command, text};
    use multifeed_tokio::{Multifeed, Options};
    use serde_json::{Value, json};

    #[derive(Parser)]
    struct Args {
        /// The command; without it, it is built
        #[arg(long)]
        command: Option<PathBuf>,

        /// Appends over one connection, of one block of 100 bytes each
        #[arg(long, default_value_t = 10_000)]
        appends: u32,

        /// Processes that append such a block each
        #[arg(long, default_value_t = 200)]
        processes: u32,
    }

    const BLOCK: [u8; 100] = [7; 100];

    pub(super) fn main() -> Result<()> {
        let args = Args::parse();
        let command = args.command.map_or_else(build_command, Ok)?;
        let folder = tempfile::tempdir()?;
        let here = in_process(&folder.path().join("here"), args.appends)?;
        let store = folder.path().join("served");
        let alone = by_processes(&command, &store, args.processes)?;
        let server = Server::spawn(Command::new(&command).args([
            "--store",
            &text(&store),
            "--json",
            "serve",
            "127.0.0.1:0",
            "--live",
        ]))?;
        let beside = by_processes(&command, &store, args.processes)?;
        let through = over_one_connection(&store, args.appends)?;
        drop(server);
        let rate = |count: u32, took: Duration| f64::from(count) / took.as_secs_f64();
        let base = rate(args.appends, here);
        for (what, rate) in [
            ("in the process that has the store open", base),
            ("through its socket, over one connection", rate(args.appends, through)),
            ("through its socket, by a process each", rate(args.processes, beside)),
            ("by a process each, which opens the store", rate(args.processes, alone)),
        ] {
            println!("{rate:>8.0} appends/s  {:.3} of the first  {what}", rate / base);
        }
        Ok(())
    }

    fn in_process(store: &Path, appends: u32) -> Result<Duration> {
        tokio::runtime::Runtime::new()?.block_on(async {
            let multi = Multifeed::open(store, Options::default()).await?;
            let feed = multi.writer("w").await?;
            let start = Instant::now();
            for _ in 0..appends {
                feed.append(BLOCK).await?;
            }
            let took = start.elapsed();
            multi.close().await?;
            Ok(took)
        })
    }

    fn by_processes(command: &Path, store: &Path, processes: u32) -> Result<Duration> {
        let block = "7".repeat(BLOCK.len());
        let start = Instant::now();
        for _ in 0..processes {
            let mut append = Command::new(command);
            append.args(["--store", &text(store), "append", "w", &block]).stdout(Stdio::null());
            ensure!(append.status()?.success(), "an append failed");
        }
        Ok(start.elapsed())
    }

    fn over_one_connection(store: &Path, appends: u32) -> Result<Duration> {
        let mut stream = BufReader::new(UnixStream::connect(store.join("multifeed.socket"))?);
        let append = json!({"Append": {"writer": "w", "new_key": false, "sync_each": false}});
        let place = json!({"root": "", "namespace": ""});
        let request = json!({"place": place, "store": text(store), "json": false, "ask": append});
        writeln!(stream.get_mut(), "{request}")?;
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let mut batch = Vec::from(1_u32.to_be_bytes());
        batch.extend((BLOCK.len() as u32).to_be_bytes());
        batch.extend(BLOCK);
        let start = Instant::now();
        for _ in 0..appends {
            stream.get_mut().write_all(&batch)?;
            line.clear();
            stream.read_line(&mut line)?;
            let reply: Value = serde_json::from_str(&line)?;
            ensure!(reply["done"]["length"].is_u64(), "{reply}");
        }
        let took = start.elapsed();
        // The last batch is empty, and answered once all is on the disk.
        stream.get_mut().write_all(&0_u32.to_be_bytes())?;
        stream.read_to_string(&mut line)?;
        Ok(took)
    }
}
