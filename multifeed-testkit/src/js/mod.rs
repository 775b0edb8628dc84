//! Real JS peers: the scripts of `interop/`, as child processes, behind blocking calls with timeouts.
//!
//! Async tests call these from `spawn_blocking` or a thread. Every failure carries what the script printed, on both
//! of its outputs.

mod corestore;
mod install;
mod peer;
mod process;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

pub use self::corestore::{JsCore, JsCorestore, corestore};
pub use self::install::{install, install_hyperswarm, interop_dir};
pub use self::peer::JsPeer;
use self::process::Process;

/// How long a JS peer has for anything that names no other time.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// How long a script has that does one thing and ends.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a script has for one of many things.
const MANY_TIMEOUT: Duration = Duration::from_secs(600);

/// A feed as JS sees it: a peer's `feeds`, `make` and `audit`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct JsFeed {
    /// The public key, 64 hex digits.
    pub key: String,
    /// The writer's name, or the number that JS calls a remote's feed by.
    pub name: Option<String>,
    /// Blocks that the feed is known to have.
    pub length: u64,
    /// Bytes of all those blocks.
    pub bytes: u64,
    /// Blocks that are held.
    pub downloaded: u64,
    /// Whether the secret key is held.
    pub writable: bool,
    /// The [`FeedDigest`](crate::blocks::FeedDigest) of the blocks that are held; `None` if one that should be
    /// there cannot be read, or the digest was not asked for.
    pub hash: Option<String>,
    /// What `audit` found in addition.
    #[serde(flatten)]
    pub audit: Option<JsAudit>,
}

/// What hypercore says to one feed of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct JsAudit {
    /// Blocks that are held and have the hash of their tree node.
    pub valid: u64,
    /// Blocks that should be held, but are not what the tree says. 0 in a sound feed.
    pub invalid: u64,
    /// Tree nodes: those that are held and, if both children are held too, are their parent.
    pub nodes: Count,
    /// Signatures whose roots are held; the feed's last one must be among them.
    pub signatures: Count,
}

/// Things that hold, and things that do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Count {
    /// Those that verified.
    pub valid: u64,
    /// Those that did not.
    pub invalid: u64,
}

impl JsFeed {
    /// Whether `audit` looked, and everything that this feed claims to hold is there and verifies.
    pub fn is_sound(&self) -> bool {
        self.hash.is_some()
            && self.audit.is_some_and(|audit| {
                audit.valid == self.downloaded
                    && audit.invalid == 0
                    && audit.nodes.invalid == 0
                    && audit.signatures.invalid == 0
                    && (self.length == 0 || audit.signatures.valid > 0)
            })
    }
}

/// Opens a folder with JS and checks all of it (`audit.js`): the feeds, sorted by key.
///
/// Beware: JS writes as it opens (headers), and its audit takes the bits of bad blocks out of the bitfield.
///
/// # Errors
///
/// JS cannot be run, or cannot open the folder. A damaged feed is no error: see [`JsFeed::is_sound`].
pub fn audit(dir: &Path) -> Result<Vec<JsFeed>> {
    let dir = dir.to_str().context("the folder's name is not UTF-8")?;
    feeds_of(run("audit.js", &[dir], &[0, 1])?)
}

/// As [`audit`], of many folders with one process: the feeds of each.
///
/// # Errors
///
/// As [`audit`]; the message names the folder.
pub fn audit_all(dirs: &[std::path::PathBuf]) -> Result<Vec<Vec<JsFeed>>> {
    if dirs.is_empty() {
        return Ok(Vec::new());
    }
    let names: Option<Vec<&str>> = dirs.iter().map(|dir| dir.to_str()).collect();
    let mut process = Process::spawn("audit.js", &names.context("a folder's name is not UTF-8")?)?;
    let mut all = Vec::new();
    while let Some(line) = process.line(Instant::now() + MANY_TIMEOUT)? {
        all.push(feeds_of(serde_json::from_str(&line).with_context(|| format!("audit.js printed {line}"))?)?);
    }
    process.exit(&[0, 1], Instant::now() + SCRIPT_TIMEOUT)?;
    ensure!(all.len() == dirs.len(), "{} of {} folders", all.len(), dirs.len());
    Ok(all)
}

/// Makes or extends a folder with JS (`make.js`, which says what `spec` may hold): the feeds, sorted by key.
///
/// # Errors
///
/// JS cannot be run, or fails.
pub fn make(dir: &Path, spec: &Value) -> Result<Vec<JsFeed>> {
    let dir = dir.to_str().context("the folder's name is not UTF-8")?;
    feeds_of(run("make.js", &[dir, &spec.to_string()], &[0])?)
}

/// Runs the script that the README shows (`example.js`) to its end: what it printed, by line.
///
/// # Errors
///
/// JS cannot be run, or fails.
pub fn example(address: SocketAddr, dir: &Path) -> Result<Vec<String>> {
    let dir = dir.to_str().context("the folder's name is not UTF-8")?;
    let mut process = Process::spawn("example.js", &[&address.to_string(), dir])?;
    let mut lines = Vec::new();
    let deadline = Instant::now() + SCRIPT_TIMEOUT;
    while let Some(line) = process.line(deadline)? {
        lines.push(line);
    }
    process.exit(&[0], deadline)?;
    Ok(lines)
}

/// Runs a script that prints one object and ends with one of the exit codes in `allowed`.
fn run(script: &str, args: &[&str], allowed: &[i32]) -> Result<Value> {
    let mut process = Process::spawn(script, args)?;
    let deadline = Instant::now() + SCRIPT_TIMEOUT;
    let line = process.line(deadline)?;
    process.exit(allowed, deadline)?;
    let Some(line) = line else { bail!("{script} printed nothing") };
    serde_json::from_str(&line).with_context(|| format!("{script} printed {line}"))
}

fn feeds_of(mut printed: Value) -> Result<Vec<JsFeed>> {
    let mut feeds: Vec<JsFeed> = serde_json::from_value(printed["feeds"].take())?;
    feeds.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(feeds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::{FeedDigest, block, blocks, digest};
    use serde_json::json;

    #[test]
    fn js_syncs_with_js_in_both_roles() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let store = dir.path().join("a");
        let (mut listener, address) = JsPeer::listen(&["--store", store.to_str().context("UTF-8")?])?;
        let mut dialer = JsPeer::spawn(&["--user-data", r#"{"hello":1}"#])?;
        let alice = listener.append("alice", 30, 50, 1)?;
        let bob = dialer.append("bob", 3, 9, 2)?;
        dialer.connect(address)?;

        assert_eq!(listener.event("handshake")?["header"]["userData"], json!({"hello": 1}));
        for peer in [&mut listener, &mut dialer] {
            assert_eq!(peer.event("ended")?["clean"], json!(true));
            let feeds = peer.feeds()?;
            assert_eq!(feeds.len(), 2);
            let hash = |key: &str| feeds.iter().find(|feed| feed.key == key).and_then(|feed| feed.hash.clone());
            assert_eq!(hash(&alice), Some(digest(blocks(30, 50, 1))));
            assert_eq!(hash(&bob), Some(digest(blocks(3, 9, 2))));
        }
        listener.close()?;
        let audited = audit(&store)?;
        assert!(audited.len() == 2 && audited.iter().all(JsFeed::is_sound), "{audited:?}");
        Ok(())
    }

    #[test]
    fn answers_that_overtake_each_other_still_arrive() -> Result<()> {
        let (mut listener, address) = JsPeer::listen(&["--delay-reads", "20", "--reorder", "7"])?;
        let mut dialer = JsPeer::spawn(&[])?;
        let alice = listener.append("alice", 100, 30, 1)?;
        // Two JS peers, one of them without any feed, may end before anything moved.
        dialer.append("bob", 1, 1, 1)?;
        dialer.connect(address)?;
        assert_eq!(dialer.event("ended")?["clean"], json!(true));
        let feeds = dialer.feeds()?;
        let copy = feeds.iter().find(|feed| feed.key == alice).context("no copy")?;
        assert_eq!(copy.hash, Some(digest(blocks(100, 30, 1))));
        Ok(())
    }

    #[test]
    fn make_and_audit_agree_on_holes() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let append = json!([{"count": 20, "size": 10, "seed": 5, "batch": 7}]);
        let spec = json!({
            "writers": [{"name": "w", "seed": "01".repeat(32), "append": append}],
            "copies": [{"append": append, "have": [[0, 2], [19, 20]]}],
        });
        let made = make(dir.path(), &spec)?;
        let audited = audit(dir.path())?;
        assert!(audited.iter().all(JsFeed::is_sound), "{audited:?}");
        for (made, audited) in made.iter().zip(&audited) {
            assert_eq!((&made.key, &made.hash), (&audited.key, &audited.hash));
        }
        let sparse = audited.iter().find(|feed| !feed.writable).context("no copy")?;
        assert_eq!((sparse.length, sparse.downloaded), (20, 3));
        let mut expected = FeedDigest::new();
        for index in [0, 1, 19] {
            expected.update(index.into(), &block(5, index, 10));
        }
        assert_eq!(sparse.hash, Some(expected.finish()));
        Ok(())
    }

    #[test]
    fn audit_finds_a_changed_byte() -> Result<()> {
        let dir = tempfile::tempdir()?;
        make(dir.path(), &json!({"writers": [{"name": "w", "append": [{"count": 4, "size": 10}]}]}))?;
        let data = dir.path().join("0/data");
        let mut bytes = std::fs::read(&data)?;
        bytes[25] ^= 1;
        std::fs::write(&data, bytes)?;
        let audited = audit(dir.path())?;
        assert_eq!(audited[0].audit.map(|audit| (audit.valid, audit.invalid)), Some((3, 1)));
        assert!(!audited[0].is_sound());
        Ok(())
    }

    #[test]
    fn a_silent_peer_is_an_error_that_tells_what_it_did() -> Result<()> {
        let mut peer = JsPeer::spawn(&[])?;
        let error = peer.event_within("ended", Duration::from_millis(50)).expect_err("nothing ended");
        let error = format!("{error:#}");
        assert!(error.contains(r#""event":"ready""#), "{error}");
        let error = peer.call(json!({"cmd": "get", "key": "00", "index": 0})).expect_err("no such feed");
        let error = format!("{error:#}");
        assert!(error.contains("no feed 00"), "{error}");
        Ok(())
    }
}
