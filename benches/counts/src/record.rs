//! The counts on record, the tools that made them, and when a difference is a failure.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::callgrind::run_under_valgrind;

/// A count may grow by this much, in percent, before it has to be recorded and explained.
pub(crate) const MAX_GROWTH: f64 = 3.0;

/// What one side of a scenario cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) name: String,
    pub(crate) instructions: u64,
}

/// Counts, and all that decides them beside the code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// Name and value, in the order of the file.
    pub(crate) tools: Vec<(String, String)>,
    pub(crate) counts: Vec<Count>,
}

const HEAD: &str = "\
# Instructions that fixed work costs, as callgrind counts them. `.ci/run` fails if one grows by more than 3 %.
# Written by `cargo run --release -p multifeed-counts -- record`. A commit that makes a count grow says why in a
# line of its body that begins with `Counts:`.
";

impl Record {
    /// The folder of the record's file.
    pub(crate) fn folder() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    /// The record's file.
    pub(crate) fn path() -> PathBuf {
        Self::folder().join("record.txt")
    }

    /// Reads a record's text.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut record = Self::default();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, value) =
                line.split_once(':').with_context(|| format!("no `:` in the record's line `{line}`"))?;
            let (name, value) = (name.to_owned(), value.trim());
            match name.strip_prefix("tool ") {
                Some(tool) => record.tools.push((tool.to_owned(), value.to_owned())),
                None => {
                    let instructions =
                        value.replace(',', "").parse().with_context(|| format!("the count of `{name}`"))?;
                    record.counts.push(Count { name, instructions });
                }
            }
        }
        Ok(record)
    }

    /// By how many percent each count differs from that of an earlier record; `None` if that has none.
    pub(crate) fn growth<'a>(&'a self, before: &'a Record) -> impl Iterator<Item = (&'a Count, Option<f64>)> {
        self.counts.iter().map(|count| {
            let then = before.counts.iter().find(|then| then.name == count.name);
            (count, then.map(|then| 100.0 * (count.instructions as f64 / then.instructions as f64 - 1.0)))
        })
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEAD}")?;
        for (name, value) in &self.tools {
            writeln!(f, "tool {name}: {value}")?;
        }
        writeln!(f)?;
        let width = self.counts.iter().map(|count| count.name.len()).max().unwrap_or(0);
        for Count { name, instructions } in &self.counts {
            writeln!(f, "{name}:{:1$}{2:>14}", "", width - name.len(), grouped(*instructions))?;
        }
        Ok(())
    }
}

/// A number with a comma before each three digits.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && at % 3 == first {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The tools here that decide how many instructions the same code takes.
pub(crate) fn tools() -> Result<Vec<(String, String)>> {
    let rustc = output("rustc", &["-vV"], Record::folder())?;
    let field = |name| rustc.lines().find_map(|line: &str| line.strip_prefix(name)).unwrap_or("?").trim();
    let compiler =
        format!("{}, {}, LLVM {}", rustc.lines().next().unwrap_or("?"), field("host:"), field("LLVM version:"));
    let valgrind = output("valgrind", &["--version"], Record::folder())?;
    let libc = output("getconf", &["GNU_LIBC_VERSION"], Record::folder()).unwrap_or_else(|_| "unknown".into());
    let folder = tempfile::tempdir()?;
    // Valgrind shows a processor of its own, which knows no more than the real one and no more than valgrind does.
    let features = run_under_valgrind(&["--tool=none", "-q"], &["features"], folder.path())?;
    let named = [("rustc", compiler), ("valgrind", valgrind), ("libc", libc), ("processor", features)];
    Ok(named.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).to_vec())
}

/// What the processor can do, of all that code in this workspace looks for.
pub(crate) fn features() -> String {
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! found {
            ($($name:tt)*) => {
                [$(if std::arch::is_x86_feature_detected!($name) { Some($name) } else { None }),*]
            };
        }
        let found = found!("sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "lzcnt" "bmi1" "bmi2" "avx" "avx2" "fma" "aes" "pclmulqdq"
            "sha" "rdrand" "rdseed" "avx512f" "avx512vl" "avx512ifma" "avx512vbmi");
        found.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        std::env::consts::ARCH.to_owned()
    }
}

/// What a program prints that runs in a folder.
pub(crate) fn output(program: &str, arguments: &[&str], folder: &Path) -> Result<String> {
    let output = Command::new(program).args(arguments).current_dir(folder).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    ensure!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_as_it_was_written() {
        let tools = vec![("rustc".to_owned(), "1.2: x".to_owned())];
        let counts = [("sync, 2 x 3 sender", 1_234_567), ("open", 999), ("get", 100_000)];
        let counts = counts.map(|(name, instructions)| Count { name: name.to_owned(), instructions }).to_vec();
        let record = Record { tools, counts };
        assert_eq!(Record::parse(&record.to_string()).unwrap(), record);
        assert!(record.to_string().contains("\nsync, 2 x 3 sender:     1,234,567\n"), "{record}");
        assert!(Record::parse("open: many").is_err() && Record::parse("open").is_err());
    }

    #[test]
    fn growth_is_in_percent() {
        let one = |instructions| Record { counts: vec![Count { name: "a".into(), instructions }], ..Record::default() };
        let (now, before) = (one(103), one(100));
        assert_eq!(now.growth(&before).next().and_then(|(_, growth)| growth.map(f64::round)), Some(3.0));
        assert_eq!(now.growth(&Record::default()).next().map(|(_, growth)| growth), Some(None));
    }
}
