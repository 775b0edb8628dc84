//! Corestore folders that the real package has open.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use super::SCRIPT_TIMEOUT;
use super::process::Process;

/// A core as JS has it after one step of `corestore.js`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JsCore {
    /// The public key, 64 hex digits.
    pub key: String,
    /// The discovery key, 64 hex digits.
    pub discovery_key: String,
    /// Blocks that the core is known to have.
    pub length: u64,
    /// Bytes of all those blocks.
    pub bytes: u64,
    /// Blocks that are held.
    pub downloaded: u64,
    /// Whether the secret key is held.
    pub writable: bool,
    /// The [`FeedDigest`](crate::blocks::FeedDigest) of the blocks that are held.
    pub hash: Option<String>,
}

/// A corestore folder while JS has it open.
pub struct JsCorestore {
    process: Process,
    /// What each step came to: the core, or what JS said.
    pub cores: Vec<Result<JsCore, String>>,
    /// The feeds of each multifeed, by name and key.
    pub multifeeds: Vec<Vec<(Option<String>, String)>>,
}

impl JsCorestore {
    /// Opens or makes a folder, and takes the steps of `spec` in it (`corestore.js` says what it may hold).
    ///
    /// # Errors
    ///
    /// JS cannot be run, or cannot open the folder.
    pub fn open(dir: &Path, spec: &Value) -> Result<Self> {
        let dir = dir.to_str().context("the folder's name is not UTF-8")?;
        let mut process = Process::spawn("corestore.js", &[dir, &spec.to_string()])?;
        let line = process.line(Instant::now() + SCRIPT_TIMEOUT)?;
        let line = line.with_context(|| format!("corestore.js printed nothing{}", process.history()))?;
        let mut printed: Value = serde_json::from_str(&line).with_context(|| format!("corestore.js printed {line}"))?;
        let steps: Vec<Value> = serde_json::from_value(printed["cores"].take())?;
        let cores = steps.into_iter().map(|step| match step["error"].as_str() {
            Some(error) => Ok(Err(error.to_owned())),
            None => Ok(Ok(serde_json::from_value(step)?)),
        });
        let cores = cores.collect::<Result<_>>()?;
        let multifeeds = serde_json::from_value(printed["multifeeds"].take())?;
        Ok(Self { process, cores, multifeeds })
    }

    /// Closes it, and returns what each step came to.
    ///
    /// # Errors
    ///
    /// JS fails to close it, or does not end.
    pub fn close(mut self) -> Result<Vec<Result<JsCore, String>>> {
        self.process.close_input();
        self.process.exit(&[0], Instant::now() + SCRIPT_TIMEOUT)?;
        Ok(self.cores)
    }
}

/// Opens a folder, takes the steps of `spec` in it and closes it: the cores, of which none may fail.
///
/// # Errors
///
/// As [`JsCorestore::open`], and if a step fails.
pub fn corestore(dir: &Path, spec: &Value) -> Result<Vec<JsCore>> {
    let cores = JsCorestore::open(dir, spec)?.close()?;
    cores.into_iter().map(|core| core.map_err(anyhow::Error::msg)).collect()
}
