//! Feeds that were taken out of multifeeds of a corestore, whose lists keep them: JS only ever appends to those, and has the feeds again.
//!
//! They stand in `multifeed.removed` in the corestore's folder, a line for each. A line has the key of the core that is the list, a space, and
//! the key of the feed, in hex. A `-` in place of the list says that the feed's folder is being removed.

use std::collections::BTreeSet;

use multifeed_proto::FeedKey;

use crate::error::StoreError;
use crate::limits::Limits;
use crate::storage::{FileId, FileKind, Slot, Storage};

const FILE: FileId = FileId { slot: Slot(0), kind: FileKind::Removed };

/// Bytes of two keys, what is between, and a newline.
const LINE: usize = 130;

/// What was taken out.
#[derive(Debug, Default)]
pub(in crate::multifeed) struct Removed {
    /// Feeds by the lists that have them.
    feeds: BTreeSet<(FeedKey, FeedKey)>,
    /// Feeds whose folders are being removed.
    going: BTreeSet<FeedKey>,
    /// The file is damaged, and is not written over.
    damage: Option<StoreError>,
}

impl Removed {
    /// Reads the file. Of one that is damaged what can be read counts.
    pub(in crate::multifeed) fn read<S: Storage>(
        storage: &mut S,
        limits: &Limits,
    ) -> Result<(Self, Option<StoreError>), StoreError> {
        let failed = |error| StoreError::from_file(FILE, "read", error);
        let mut removed = Self::default();
        let Some(len) = storage.len(FILE).map_err(failed)? else { return Ok((removed, None)) };
        let most = limits.feeds.saturating_mul(LINE);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(most)];
        let count = storage.read_at(FILE, 0, &mut bytes).map_err(failed)?;
        let damaged = |why| StoreError::damaged(FILE.slot, FILE.kind, why);
        if len > most as u64 {
            removed.damage = Some(damaged(format!("it has {len} bytes, and {most} are read")));
        }
        for (number, line) in (1..).zip(String::from_utf8_lossy(&bytes[..count]).lines()) {
            match line.split_once(' ').map(|(list, feed)| (list, list.parse(), feed.parse())) {
                Some(("-", _, Ok(feed))) => _ = removed.going.insert(feed),
                Some((_, Ok(list), Ok(feed))) => _ = removed.feeds.insert((list, feed)),
                _ => {
                    let damage = || damaged(format!("its line {number} is not two keys"));
                    removed.damage.get_or_insert_with(damage);
                }
            }
        }
        let damage = removed.damage.clone();
        Ok((removed, damage))
    }

    /// Whether a feed was taken out of the multifeed that has this list.
    pub(in crate::multifeed) fn contains(&self, list: &FeedKey, feed: &FeedKey) -> bool {
        self.feeds.contains(&(*list, *feed))
    }

    /// The lists of the multifeeds that a feed was taken out of.
    pub(in crate::multifeed) fn lists_of(&self, feed: &FeedKey) -> Vec<FeedKey> {
        self.feeds.iter().filter(|(_, out)| out == feed).map(|(list, _)| *list).collect()
    }

    /// The feeds whose folders are being removed.
    pub(in crate::multifeed) fn going(&self) -> Vec<FeedKey> {
        self.going.iter().copied().collect()
    }

    /// Notes for good that a feed is out of these multifeeds, and with `going` that its folder is about to be removed.
    pub(in crate::multifeed) fn add<S: Storage>(
        &mut self,
        storage: &mut S,
        limits: &Limits,
        lists: &[FeedKey],
        feed: FeedKey,
        going: bool,
    ) -> Result<(), StoreError> {
        let new: Vec<_> = lists.iter().map(|list| (*list, feed)).filter(|new| !self.feeds.contains(new)).collect();
        let max = limits.feeds;
        if self.feeds.len() + self.going.len() + new.len() + usize::from(going) > max {
            return Err(StoreError::TooManyFeeds { max });
        }
        self.feeds.extend(&new);
        let is_new = going && self.going.insert(feed);
        let written = if new.is_empty() && !is_new { Ok(()) } else { self.write(storage) };
        if written.is_err() {
            new.iter().for_each(|new| _ = self.feeds.remove(new));
            self.going.retain(|other| !is_new || *other != feed);
        }
        written
    }

    /// Notes that a feed is in a multifeed again.
    pub(in crate::multifeed) fn take_back<S: Storage>(
        &mut self,
        storage: &mut S,
        list: FeedKey,
        feeds: impl Iterator<Item = FeedKey>,
    ) -> Result<(), StoreError> {
        let back: Vec<_> = feeds.filter(|feed| self.feeds.remove(&(list, *feed))).collect();
        let written = if back.is_empty() { Ok(()) } else { self.write(storage) };
        if written.is_err() {
            self.feeds.extend(back.into_iter().map(|feed| (list, feed)));
        }
        written
    }

    /// Notes that a feed's folder is gone.
    pub(in crate::multifeed) fn gone<S: Storage>(&mut self, storage: &mut S, feed: &FeedKey) -> Result<(), StoreError> {
        if self.going.remove(feed) { self.write(storage) } else { Ok(()) }
    }

    fn write<S: Storage>(&self, storage: &mut S) -> Result<(), StoreError> {
        self.damage.clone().map_or(Ok(()), Err)?;
        let mut text = String::with_capacity(LINE * (self.feeds.len() + self.going.len()));
        self.going.iter().for_each(|feed| text.push_str(&format!("- {feed}\n")));
        self.feeds.iter().for_each(|(list, feed)| text.push_str(&format!("{list} {feed}\n")));
        storage.replace(FILE, text.as_bytes()).map_err(|error| StoreError::from_file(FILE, "write", error))
    }
}
