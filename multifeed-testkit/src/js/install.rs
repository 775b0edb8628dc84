//! The npm packages of `interop/`, installed if they are missing.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow, bail};

/// The folder of the JS scripts.
pub fn interop_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("interop")
}

/// Makes sure that the npm packages which the scripts need are there: `npm ci`, once, in whichever test process comes
/// first. Every call in this module does so by itself.
///
/// No install script is run: the native packages bring what they need as prebuilt files.
///
/// # Errors
///
/// No node or npm, or npm fails.
pub fn install() -> Result<()> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    install_once(&DONE, &interop_dir())
}

/// As [`install`], of what stands apart in `interop/hyperswarm/`: hyperswarm 4, which only some tests need. A peer's commands `swarm` and `testnet` want
/// it.
///
/// # Errors
///
/// As [`install`].
pub fn install_hyperswarm() -> Result<()> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    install_once(&DONE, &interop_dir().join("hyperswarm"))
}

fn install_once(done: &OnceLock<Result<(), String>>, dir: &Path) -> Result<()> {
    done.get_or_init(|| install_in(dir).map_err(|err| format!("{err:#}")))
        .as_ref()
        .map_err(|err| anyhow!("{err}"))
        .copied()
}

fn install_in(dir: &Path) -> Result<()> {
    // Beside node_modules, because npm ci deletes that.
    let lock = File::create(dir.join(".install.lock")).with_context(|| format!("{}/.install.lock", dir.display()))?;
    lock.lock().with_context(|| format!("{}/.install.lock", dir.display()))?;
    if is_current(dir)? {
        return Ok(());
    }
    let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
    let run = Command::new(npm)
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(dir)
        .output()
        .map_err(|err| missing(npm, err))?;
    if !run.status.success() {
        let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        bail!("`npm ci` in {} ended with {}:\n{out}{err}", dir.display(), run.status);
    }
    Ok(())
}

/// Says why a program does not start.
pub(super) fn missing(program: &str, err: io::Error) -> anyhow::Error {
    if err.kind() == io::ErrorKind::NotFound {
        anyhow!("`{program}` is not installed: the tests against JS peers need Node.js 20 or newer, with npm")
    } else {
        anyhow::Error::new(err).context(format!("cannot run `{program}`"))
    }
}

// npm writes node_modules/.package-lock.json last.
fn is_current(dir: &Path) -> Result<bool> {
    let wanted = modified(&dir.join("package-lock.json"))?
        .with_context(|| format!("{}/package-lock.json is missing", dir.display()))?;
    let installed = modified(&dir.join("node_modules/.package-lock.json"))?;
    Ok(installed.is_some_and(|installed| installed >= wanted))
}

fn modified(path: &Path) -> Result<Option<SystemTime>> {
    match path.metadata() {
        Ok(metadata) => Ok(Some(metadata.modified()?)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err).with_context(|| path.display().to_string()),
    }
}
