//! Feeds that must never be synced, whoever offers or asks for them.
//!
//! Their keys stand in `multifeed.blocked`, beside the folders: 64 hex digits and a newline for each. A person may write there too: a call changes
//! the lines of its own key, and every other byte stays as it is. An empty file is none of ours: once the last ban is lifted a note is in it.

use std::collections::BTreeSet;

use multifeed_proto::FeedKey;

use crate::error::StoreError;
use crate::limits::Limits;
use crate::multifeed::Multifeed;
use crate::storage::{FileId, FileKind, Slot, Storage};

const FILE: FileId = FileId { slot: Slot(0), kind: FileKind::Banned };

/// What the file says if nobody is banned any more.
const NOBODY: &[u8] = b"# no feed is banned\n";

/// Bytes of a key and its newline.
const LINE: usize = 65;

/// The banned keys, and those of feeds that are no remote's business: they are not in the file.
#[derive(Debug, Default)]
pub(in crate::multifeed) struct Banned(BTreeSet<FeedKey>, BTreeSet<FeedKey>);

impl Banned {
    /// Reads the file. Lines that are no keys are passed over, and reported; those that are empty or begin with `#` are not.
    pub(in crate::multifeed) fn read<S: Storage>(
        storage: &mut S,
        limits: &Limits,
    ) -> Result<(Self, Option<StoreError>), StoreError> {
        let (text, mut damage) = load(storage, limits)?;
        let is_there = storage.len(FILE).map_err(|error| StoreError::from_file(FILE, "read", error))?.is_some();
        if is_there && text.is_empty() {
            let why = "it is empty, and whom it named is not banned any more: ban them again, or delete this file if there was nobody";
            damage = Some(damaged(why.to_owned()));
        }
        let mut keys = BTreeSet::new();
        for (number, line) in (1..).zip(lines(&text)) {
            match line {
                (_, Line::Key(key)) => _ = keys.insert(key),
                (_, Line::Note) => {}
                (_, Line::Unknown) => damage = damage.or_else(|| Some(damaged(format!("its line {number} is no key")))),
            }
        }
        Ok((Self(keys, BTreeSet::new()), damage))
    }

    pub(in crate::multifeed) fn contains(&self, key: &FeedKey) -> bool {
        self.0.contains(key) || self.1.contains(key)
    }

    /// Whether a feed is no remote's business.
    pub(in crate::multifeed) fn is_hidden(&self, key: &FeedKey) -> bool {
        self.1.contains(key)
    }

    /// Keeps a feed of the store's own from all sessions.
    pub(in crate::multifeed) fn hide(&mut self, key: FeedKey) {
        self.1.insert(key);
    }
}

/// Takes a key's lines out of the file, or adds one.
fn write<S: Storage>(storage: &mut S, limits: &Limits, key: &FeedKey, banned: bool) -> Result<(), StoreError> {
    let (mut text, damage) = load(storage, limits)?;
    // What was not read would be lost.
    damage.map_or(Ok(()), Err)?;
    let is_its = |line: &Line| matches!(line, Line::Key(other) if other == key);
    if banned {
        if lines(&text).any(|(_, line)| is_its(&line)) {
            return Ok(());
        }
        if text.last().is_some_and(|last| *last != b'\n') {
            text.push(b'\n');
        }
        text.extend_from_slice(format!("{key}\n").as_bytes());
        if text.len() > most(limits) {
            return Err(StoreError::TooManyBanned { max: limits.banned });
        }
    } else {
        text = lines(&text).filter(|(_, line)| !is_its(line)).flat_map(|(bytes, _)| bytes).copied().collect();
        if text.is_empty() {
            text = NOBODY.to_vec();
        }
    }
    storage.replace(FILE, &text).map_err(|error| StoreError::from_file(FILE, "write", error))
}

/// What the file holds, and whether that is not all.
fn load<S: Storage>(storage: &mut S, limits: &Limits) -> Result<(Vec<u8>, Option<StoreError>), StoreError> {
    let failed = |error| StoreError::from_file(FILE, "read", error);
    let Some(len) = storage.len(FILE).map_err(failed)? else { return Ok((Vec::new(), None)) };
    let most = most(limits);
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(most)];
    let count = storage.read_at(FILE, 0, &mut bytes).map_err(failed)?;
    bytes.truncate(count);
    let more = len > most as u64;
    Ok((bytes, more.then(|| damaged(format!("it has {len} bytes, and {most} are read")))))
}

fn most(limits: &Limits) -> usize {
    limits.banned.saturating_mul(LINE).max(limits.banned_bytes)
}

enum Line {
    Key(FeedKey),
    /// Somebody's, and not meant to be a key.
    Note,
    Unknown,
}

/// The lines with their ends, and what they are.
fn lines(text: &[u8]) -> impl Iterator<Item = (&[u8], Line)> {
    text.split_inclusive(|byte| *byte == b'\n').map(|bytes| {
        let line = str::from_utf8(bytes).map(str::trim);
        let kind = match line {
            Ok(line) if line.is_empty() || line.starts_with('#') => Line::Note,
            Ok(line) => line.parse().map_or(Line::Unknown, Line::Key),
            Err(_) => Line::Unknown,
        };
        (bytes, kind)
    })
}

fn damaged(why: String) -> StoreError {
    StoreError::damaged(FILE.slot, FILE.kind, why)
}

impl<S: Storage> Multifeed<S> {
    /// Bans a feed, whether it is here or not. It is not offered, not asked for, not opened for a remote and not fetched, on any session,
    /// until it is [unbanned](Self::unban). Sessions that sync it close its channel, and go on. It is known for good when this returns.
    /// False if it was banned before.
    ///
    /// What is here of it stays, and can be read; [`remove`](Self::remove) takes it away. A writer that is banned can be appended to, and
    /// nobody hears of it. A key pair of a banned feed that is not here is not taken for a new writer.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooManyBanned`], [`StoreError::Damaged`] if the file is longer than what is read of it, or the storage's error; the feed is
    /// not banned then.
    pub fn ban(&mut self, key: FeedKey) -> Result<bool, StoreError> {
        if self.members.banned.0.contains(&key) {
            return Ok(false);
        }
        let max = self.limits.banned;
        if self.members.banned.0.len() >= max {
            return Err(StoreError::TooManyBanned { max });
        }
        self.members.banned.0.insert(key);
        if let Err(error) = write(&mut self.cores.storage, &self.limits, &key, true) {
            self.members.banned.0.remove(&key);
            return Err(error);
        }
        match self.members.catalog.find(&key) {
            Some(id) => self.leave_sessions(id),
            None => self.leave_offers(&key),
        }
        Ok(true)
    }

    /// Lifts the ban of a feed. What is here of it is offered to the sessions that are there, and what their remotes offered of it before is requested.
    /// JS opens a feed's channel once on a stream: if it was open before the ban, the feed comes back with the next session. False if it was not banned.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] as of [`ban`](Self::ban), or the storage's error; it is banned then as before.
    pub fn unban(&mut self, key: FeedKey) -> Result<bool, StoreError> {
        if !self.members.banned.0.contains(&key) {
            return Ok(false);
        }
        let listed = self.list_again(&key)?;
        self.members.banned.0.remove(&key);
        if let Err(error) = write(&mut self.cores.storage, &self.limits, &key, false) {
            self.members.banned.0.insert(key);
            return Err(error);
        }
        match self.members.catalog.find(&key) {
            Some(id) => {
                self.sessions.values_mut().for_each(|session| _ = session.known.remove(u64::from(id.0)));
                self.uncommitted.unannounced.push(id);
            }
            None => self.request_unbanned(key),
        }
        listed.into_iter().for_each(|set| self.open_again(set, &key));
        Ok(true)
    }

    /// Returns whether a feed is banned.
    pub fn is_banned(&self, key: &FeedKey) -> bool {
        self.members.banned.0.contains(key)
    }

    /// Returns the banned feeds, ascending.
    pub fn banned(&self) -> impl Iterator<Item = FeedKey> {
        self.members.banned.0.iter().copied()
    }
}
