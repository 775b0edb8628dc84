//! Evidence of writers that signed two histories, kept in a file that a person can read.

use std::fmt::Write;

use multifeed_proto::FeedKey;

use crate::error::{Conflict, StoreError};
use crate::storage::{FileId, FileKind, Storage};

const FILE: FileId = FileId { slot: crate::storage::Slot(0), kind: FileKind::Conflicts };

/// Lines that are kept of one feed: a second history that grows would fill the file.
const MAX_OF_A_FEED: usize = 4;

/// More than [`Limits::conflicts`](crate::Limits::conflicts) lines take at their largest, in bytes for each.
const MAX_LINE: usize = 1024;

/// A second history of a feed that was found, of which the evidence is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeptConflict {
    /// The feed.
    pub key: FeedKey,
    /// The length in blocks of the history that is not here.
    pub length: u64,
    /// That of the history that was held here when the other one was found.
    pub held_length: u64,
}

/// The evidence that is kept: a JSON object a line, with the feed's key, both lengths, root hashes and signatures, and the first
/// tree node found to differ. Hashes, keys and signatures are in hex.
///
/// Each signature is over the root hash and its length (or, in older feeds, over the root hash alone). Anyone who has the feed's key can
/// check both without the feed.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// The lines of the file, once it was read.
    lines: Option<Vec<String>>,
}

impl Evidence {
    /// Reads the file.
    pub(crate) fn read<S: Storage>(storage: &mut S, max: usize) -> Result<Self, StoreError> {
        Ok(Self { lines: Some(read(storage, max)?) })
    }

    /// How many second histories are kept.
    pub(crate) fn len(&self) -> usize {
        self.lines.as_ref().map_or(0, Vec::len)
    }

    /// What is kept, as far as it can be read.
    pub(crate) fn list(&self) -> Vec<KeptConflict> {
        self.lines.iter().flatten().filter_map(|line| kept(line)).collect()
    }

    /// Forgets all of it. Returns how much there was.
    pub(crate) fn clear<S: Storage>(&mut self, storage: &mut S) -> Result<usize, StoreError> {
        let count = self.len();
        if count > 0 {
            replace(storage, &[])?;
            self.lines = Some(Vec::new());
        }
        Ok(count)
    }

    /// Keeps a second history of a feed. Returns whether it was kept before; one that finds no room counts as new.
    pub(crate) fn note<S: Storage>(
        &mut self,
        storage: &mut S,
        key: &FeedKey,
        conflict: &Conflict,
        max: usize,
    ) -> Result<bool, StoreError> {
        let (start, line) = line(key, conflict);
        let lines = match &mut self.lines {
            Some(lines) => lines,
            none => none.insert(read(storage, max)?),
        };
        if lines.iter().any(|line| line.starts_with(&start)) {
            return Ok(true);
        }
        let of_feed = lines.iter().filter(|line| line.contains(&key.to_string())).count();
        if lines.len() < max && of_feed < MAX_OF_A_FEED {
            lines.push(line);
            if let Err(error) = replace(storage, lines) {
                lines.pop();
                return Err(error);
            }
        }
        Ok(false)
    }
}

fn read<S: Storage>(storage: &mut S, max: usize) -> Result<Vec<String>, StoreError> {
    let failed = |error| StoreError::from_file(FILE, "read", error);
    let len = storage.len(FILE).map_err(failed)?.unwrap_or(0);
    let most = max.saturating_mul(MAX_LINE);
    if len > most as u64 {
        // It is not ours, and to add a line would be to lose the rest.
        let why =
            format!("it has {len} bytes, and evidence takes {most} at most: it was not read, and nothing is added");
        return Err(StoreError::damaged(FILE.slot, FILE.kind, why));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(most)];
    let count = storage.read_at(FILE, 0, &mut bytes).map_err(failed)?;
    bytes.truncate(count);
    Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect())
}

fn replace<S: Storage>(storage: &mut S, lines: &[String]) -> Result<(), StoreError> {
    let text: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
    storage.replace(FILE, text.as_bytes()).map_err(|error| StoreError::from_file(FILE, "write", error))
}

/// The line of a conflict, and how every line of the same other history begins.
fn line(key: &FeedKey, conflict: &Conflict) -> (String, String) {
    let Conflict { length, root_hash, signature, node, held_length, held_root_hash, held_signature } = conflict;
    let start = format!(
        r#"{{"key":"{key}","length":{length},"root_hash":"{}","signature":"{}","#,
        hex(root_hash),
        hex(signature)
    );
    let held_signature = held_signature.map_or("null".to_owned(), |signature| format!("\"{}\"", hex(&signature)));
    let line = format!(
        r#"{start}"node":{node},"held_length":{held_length},"held_root_hash":"{}","held_signature":{held_signature}}}"#,
        hex(held_root_hash)
    );
    (start, line)
}

/// What a line of the file says.
fn kept(line: &str) -> Option<KeptConflict> {
    let rest = line.strip_prefix(r#"{"key":""#)?;
    let key = rest.get(..64)?.parse().ok()?;
    let number = |name: &str| {
        let (_, after) = line.split_once(&format!(r#""{name}":"#))?;
        after.split([',', '}']).next()?.parse().ok()
    };
    Some(KeptConflict { key, length: number("length")?, held_length: number("held_length")? })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
