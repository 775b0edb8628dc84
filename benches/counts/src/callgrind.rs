//! Running a scenario under callgrind, and reading what it counted.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, ensure};

use crate::record::Count;
use crate::scenarios::{COUNTED, SCENARIOS, Scenario};

/// Counts all scenarios, as many at a time as there are processors.
pub(crate) fn count_all() -> Result<Vec<Count>> {
    let next = Mutex::new(SCENARIOS.iter().enumerate());
    let counts = Mutex::new(Vec::new());
    let work = || -> Result<()> {
        loop {
            let taken = next.lock().ok().and_then(|mut next| next.next());
            let Some((number, scenario)) = taken else { return Ok(()) };
            let found = count(scenario).with_context(|| format!("cannot count `{}`", scenario.name))?;
            if let Ok(mut counts) = counts.lock() {
                counts.push((number, found));
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(SCENARIOS.len());
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| anyhow::bail!("a worker panicked")))
    })?;
    let mut counts = counts.into_inner().unwrap_or_default();
    counts.sort_by_key(|(number, _)| *number);
    Ok(counts.into_iter().flat_map(|(_, counts)| counts).collect())
}

fn count(scenario: &Scenario) -> Result<Vec<Count>> {
    // In memory if there is such a folder: what is fsynced would else wait for a disk.
    let memory = Path::new("/dev/shm");
    let folder = tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir())?;
    let profile = folder.path().join("profile");
    let mut options = vec!["--tool=callgrind", "--compress-strings=no", "--compress-pos=no"];
    let out = format!("--callgrind-out-file={}", profile.display());
    options.push(&out);
    run_under_valgrind(&options, &["run", scenario.name], folder.path())?;
    let costs = inclusive(&std::fs::read_to_string(&profile)?)?;
    let counted = scenario.sides.iter().zip(costs).map(|(side, instructions)| {
        ensure!(instructions > 0, "nothing was counted: is {COUNTED:?} inlined?");
        Ok(Count { name: format!("{} {side}", scenario.name).trim_end().to_owned(), instructions })
    });
    counted.collect()
}

/// Runs this program under valgrind in a folder, with nothing in its environment that could differ. Gives its output.
pub(crate) fn run_under_valgrind(options: &[&str], arguments: &[&str], folder: &Path) -> Result<String> {
    let output = Command::new("valgrind")
        .args(options)
        .arg(std::env::current_exe()?)
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        // Symbols are looked up before the work begins, not in it.
        .env("LD_BIND_NOW", "1")
        .stdin(Stdio::null())
        .output()
        .context("cannot run valgrind")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind failed ({}): {errors}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What the calls of the two counted functions cost, with everything that they called.
fn inclusive(profile: &str) -> Result<[u64; 2]> {
    let mut costs = [0; 2];
    let mut lines = profile.lines();
    let mut called = None;
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("cfn=") {
            called = COUNTED.iter().position(|counted| name.contains(counted));
        } else if line.starts_with("calls=") {
            let cost = lines.next().and_then(|line| line.split_ascii_whitespace().nth(1));
            if let Some(side) = called.take() {
                costs[side] += cost.context("a call without a cost")?.parse::<u64>()?;
            }
        }
    }
    Ok(costs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_the_counted_functions_are_summed() {
        let profile = "events: Ir\nfn=main\n3 7\ncfn=a::counted_for_first\ncalls=2 9\n4 100\ncfn=other\ncalls=1 9\n4 1000\n\
                       cfi=x\ncfn=a::counted_for_second\ncalls=1 1\n5 20\n6 4\nfn=a::counted_for_first\n9 5\ncfn=other\n\
                       calls=2 3\n9 95\nfn=late\ncfn=a::counted_for_first\ncalls=1 9\n4 11\n";
        assert_eq!(inclusive(profile).unwrap(), [111, 20]);
    }
}
