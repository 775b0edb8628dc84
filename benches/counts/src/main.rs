//! Counts the instructions of fixed work with callgrind, and holds them against those on record.
//!
//! `cargo run --release -p multifeed-counts -- check` is what `.ci/run` does; `record` writes `record.txt` anew. `check` exits with 0 if all
//! counts hold, 1 if one grew, and 77 if nothing was counted.
//!
//! Unlike time, a count is the same on a busy machine. It is not time either: waiting, system calls, cache misses and instructions that
//! valgrind does not know (AVX-512) are not in it.

mod callgrind;
mod commits;
mod record;
mod scenarios;

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};

use record::{Count, MAX_GROWTH, Record, grouped};

const USAGE: &str = "usage: multifeed-counts check | record | print";
/// The exit code if nothing was counted; `.ci/run` knows it. The same as of a test that automake skips.
const NOT_COUNTED: u8 = 77;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["check"] => match check() {
            Ok(Checked::Counts) => Ok(()),
            Ok(Checked::Nothing { why }) => {
                println!("NOT COUNTED: {why}");
                return ExitCode::from(NOT_COUNTED);
            }
            Err(error) => Err(error),
        },
        ["record"] => rewrite(),
        ["print"] => counted().map(|record| print!("{record}")),
        // Under valgrind.
        ["run", name] => run(name),
        ["features"] => {
            println!("{}", record::features());
            Ok(())
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What `check` did.
enum Checked {
    /// It held the counts against those on record.
    Counts,
    /// It counted nothing.
    Nothing { why: String },
}

/// Fails if a count grew too much, or if the record did and no commit says why.
fn check() -> Result<Checked> {
    let on_record = Record::parse(&std::fs::read_to_string(Record::path()).context("cannot read record.txt")?)?;
    commits::check(&on_record, Record::folder())?.iter().for_each(|note| println!("{note}"));
    if let Err(error) = find_valgrind() {
        return Ok(Checked::Nothing { why: format!("{error:#}. Install valgrind, and run this again.") });
    }
    let tools = record::tools()?;
    if let Some(differences) = differences(&on_record.tools, &tools) {
        let why = format!("the counts on record were made with other tools, and cannot be compared:\n{differences}");
        return Ok(Checked::Nothing { why });
    }
    let now = Record { tools, counts: callgrind::count_all()? };
    let mut failures = Vec::new();
    let mut shrunk = false;
    for (count, growth) in now.growth(&on_record) {
        let Count { name, instructions } = count;
        match growth {
            None => failures.push(format!("`{name}` is not on record")),
            Some(percent) => {
                println!("{name:<42}{:>14} {percent:+7.2} %", grouped(*instructions));
                if percent > MAX_GROWTH {
                    failures.push(format!("`{name}` grew by {percent:.2} %"));
                }
                shrunk |= percent < -MAX_GROWTH;
            }
        }
    }
    if shrunk {
        println!("Some shrank. `record` keeps them from growing back unseen.");
    }
    ensure!(
        failures.is_empty(),
        "{}\nMake it as fast as before, or run `cargo run --release -p multifeed-counts -- record`, and say why in a line of the \
         commit's body that begins with `{}`.",
        failures.join("\n"),
        commits::REASON
    );
    Ok(Checked::Counts)
}

fn rewrite() -> Result<()> {
    let now = counted()?;
    let path = Record::path();
    let before = std::fs::read_to_string(&path).ok().and_then(|text| Record::parse(&text).ok()).unwrap_or_default();
    for (Count { name, instructions }, growth) in now.growth(&before) {
        let growth = growth.map_or("new".into(), |percent| format!("{percent:+.2} %"));
        println!("{name:<42}{:>14} {growth:>9}", grouped(*instructions));
    }
    std::fs::write(&path, now.to_string()).with_context(|| format!("cannot write {}", path.display()))
}

fn counted() -> Result<Record> {
    find_valgrind()?;
    Ok(Record { tools: record::tools()?, counts: callgrind::count_all()? })
}

fn run(name: &str) -> Result<()> {
    match scenarios::SCENARIOS.iter().find(|scenario| scenario.name == name) {
        Some(scenario) => (scenario.run)(),
        None => bail!("no scenario `{name}`"),
    }
}

/// Whether valgrind is here. A machine whose root this is, and which has apt, gets it.
fn find_valgrind() -> Result<()> {
    if record::output("valgrind", &["--version"], Record::folder()).is_ok() {
        return Ok(());
    }
    let root = record::output("id", &["-u"], Record::folder()).is_ok_and(|user| user == "0");
    if root {
        let installed = Command::new("apt-get").args(["install", "-y", "valgrind"]).stdout(Stdio::null()).status();
        ensure!(installed.is_ok_and(|status| status.success()), "apt-get cannot install valgrind");
    }
    record::output("valgrind", &["--version"], Record::folder()).map(drop).context("there is no valgrind")
}

/// What differs between two lists of tools, a line each.
fn differences(then: &[(String, String)], now: &[(String, String)]) -> Option<String> {
    let other = |(name, value): &(String, String)| match then.iter().find(|(then, _)| then == name) {
        Some((_, then)) if then == value => None,
        then => Some(format!("  {name}: {value}, and on record {}", then.map_or("nothing", |(_, then)| then))),
    };
    let lines: Vec<String> = now.iter().filter_map(other).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}
