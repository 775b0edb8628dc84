//! Evidence of writers that signed two histories, kept where a person can read it.

use std::fmt::Write;

use multifeed_proto::FeedKey;

use super::{Multifeed, MultifeedEvent};
use crate::error::{Conflict, StoreError};
use crate::ids::FeedId;
use crate::storage::{FileId, FileKind, Storage};

const FILE: FileId = FileId { slot: crate::storage::Slot(0), kind: FileKind::Conflicts };

/// Lines that are kept of one feed: a second history that grows would fill the file.
const MAX_OF_A_FEED: usize = 4;

/// More than [`Limits::conflicts`](crate::Limits::conflicts) lines take at their largest, in bytes for each.
const MAX_LINE: usize = 1024;

/// The evidence that is kept: a JSON object a line, with the feed's key, both lengths, root hashes and signatures, and the first
/// tree node found to differ. Hashes, keys and signatures are in hex.
///
/// Each signature is over the root hash and its length (or, in older feeds, over the root hash alone): who has the feed's key can
/// check both without the feed.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// The lines of the file, once it was read.
    lines: Option<Vec<String>>,
}

impl Evidence {
    /// Reads the file.
    pub(super) fn read<S: Storage>(storage: &mut S, max: usize) -> Result<Self, StoreError> {
        Ok(Self { lines: Some(read(storage, max)?) })
    }
}

impl<S: Storage> Multifeed<S> {
    /// How many second histories are kept as evidence, in `multifeed.conflicts` beside the feeds.
    pub fn conflicts_kept(&self) -> usize {
        self.evidence.lines.as_ref().map_or(0, Vec::len)
    }

    /// Keeps a second history as evidence, and tells it, the first time that it is found.
    pub(super) fn note_conflict(&mut self, id: FeedId, conflict: &Conflict) {
        let key = self.slot(id).feed.key();
        let (start, line) = line(&key, conflict);
        let max = self.limits.conflicts;
        let lines = match self.evidence.lines.take() {
            Some(lines) => Ok(lines),
            None => read(&mut self.storage, max),
        };
        let noted = lines.and_then(|mut lines| {
            let known = lines.iter().any(|line| line.starts_with(&start));
            let mut written = Ok(());
            let of_feed = lines.iter().filter(|line| line.contains(&key.to_string())).count();
            if !known && lines.len() < max && of_feed < MAX_OF_A_FEED {
                lines.push(line);
                written = replace(&mut self.storage, &lines);
                if written.is_err() {
                    lines.pop();
                }
            }
            self.evidence.lines = Some(lines);
            written.map(|()| known)
        });
        // Where the evidence cannot be kept, it is told all the same.
        if !matches!(noted, Ok(true)) {
            self.outbox.push(MultifeedEvent::Conflict { id, key, conflict: Box::new(conflict.clone()) });
        }
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
    let mut text = lines.join("\n");
    text.push('\n');
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
