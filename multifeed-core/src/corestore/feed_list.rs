//! What corestore-multifeed keeps in a corestore: the names of its cores, and its list of feeds.
//!
//! The rules are those of `@frando/corestore-multifeed` 0.0.1 (`index.js`). A multifeed is a namespace named by its root key. In it each writer has
//! a namespace, whose default core is the writer's feed, and the list of feeds has one. The list is a local core that is only ever appended to: a
//! block for each feed, a line of JSON `{"key":"<hex>","name":"…"}`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bytes::Bytes;
use multifeed_proto::{DiscoveryKey, FeedKey};
use serde::{Deserialize, Serialize};

use super::{Core, Namespace};
use crate::error::{CorestoreError, StoreError};
use crate::limits::Limits;
use crate::storage::CoreStorage;

/// A feed of a list, under the name that it has there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamedFeed {
    /// The feed's key.
    pub key: FeedKey,
    /// A writer's name; of a feed of somebody else's the number of feeds that were in the list before it.
    pub name: String,
}

/// The list of feeds that a corestore-multifeed keeps in its corestore, as far as it was read.
///
/// ```
/// # use multifeed_core::{Corestore, CorestoreOptions, FeedList, MasterKey, MemoryCoreStorage};
/// # fn main() -> Result<(), multifeed_core::CorestoreError> {
/// # let mut store = Corestore::open(MemoryCoreStorage::new(), CorestoreOptions::default(), || MasterKey::new([7; 32]))?;
/// let root = multifeed_proto::DEFAULT_ROOT_KEY;
/// let key = store.default_core(&FeedList::writer_namespace(&root, Some("alice")))?.info().key;
/// let mut core = store.default_core(&FeedList::list_namespace(&root))?;
/// core.append(&[FeedList::entry(&key, "alice")])?;
///
/// let mut list = FeedList::default();
/// list.read(&mut core)?;
/// assert_eq!(list.find_name("alice").map(|feed| feed.key), Some(key));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct FeedList {
    feeds: Vec<NamedFeed>,
    /// Their places in the list, by key and by name.
    keys: BTreeMap<FeedKey, usize>,
    names: BTreeMap<String, usize>,
    problems: Vec<CorestoreError>,
    blocks_read: u64,
    /// Blocks that could not be read, or are no entries: each may have had a feed with a number as its name.
    unread: usize,
}

#[derive(Deserialize)]
struct Line {
    key: String,
    name: Option<String>,
}

#[derive(Serialize)]
struct NewEntry<'a> {
    key: &'a str,
    name: &'a str,
}

impl FeedList {
    /// Returns the namespace of a multifeed.
    pub fn namespace(root_key: &FeedKey) -> Namespace {
        Self::namespace_in(&Namespace::root(), root_key)
    }

    /// As [`namespace`](Self::namespace), of a multifeed on a namespace of the corestore.
    pub fn namespace_in(base: &Namespace, root_key: &FeedKey) -> Namespace {
        base.namespace(&format!("@multifeed:{root_key}"))
    }

    /// Returns the namespace whose default core is the feed of a writer. Without a name JS has one writer, called `undefined`.
    pub fn writer_namespace(root_key: &FeedKey, name: Option<&str>) -> Namespace {
        Self::writer_namespace_in(&Namespace::root(), root_key, name)
    }

    /// As [`writer_namespace`](Self::writer_namespace), of a multifeed on a namespace of the corestore.
    pub fn writer_namespace_in(base: &Namespace, root_key: &FeedKey, name: Option<&str>) -> Namespace {
        let name = format!("@multifeed:feed:{}", name.unwrap_or("undefined"));
        Self::namespace_in(base, root_key).namespace(&name)
    }

    /// Returns the namespace whose default core is the list of feeds.
    pub fn list_namespace(root_key: &FeedKey) -> Namespace {
        Self::list_namespace_in(&Namespace::root(), root_key)
    }

    /// As [`list_namespace`](Self::list_namespace), of a multifeed on a namespace of the corestore.
    pub fn list_namespace_in(base: &Namespace, root_key: &FeedKey) -> Namespace {
        Self::namespace_in(base, root_key).namespace("@multifeed:persist")
    }

    /// Returns the block that lists a feed, as JS writes it.
    pub fn entry(key: &FeedKey, name: &str) -> Bytes {
        let key = key.to_string();
        // Two texts are always JSON.
        let mut line = serde_json::to_vec(&NewEntry { key: &key, name }).unwrap_or_default();
        line.push(b'\n');
        line.into()
    }

    /// Reads what the core of the list has beyond what was read before.
    ///
    /// A key that comes again is passed over, as in JS: JS lists a feed twice if two multifeeds have the list open. A block that is no entry is
    /// passed over too, and is among the [problems](Self::problems).
    ///
    /// # Errors
    /// As [`Core::block`]; the next call goes on with the same block. [`StoreError::TooManyFeeds`] if there are more than
    /// [`Limits::feeds`](crate::Limits::feeds).
    pub fn read<S: CoreStorage>(&mut self, core: &mut Core<'_, S>) -> Result<(), CorestoreError> {
        while self.blocks_read < core.info().len {
            let block = core.block(self.blocks_read)?;
            self.read_block(Ok(block.as_deref()), core.core, core.limits)?;
        }
        Ok(())
    }

    /// Reads the next block of the core of the list, which may be damaged: the others count all the same.
    pub(crate) fn read_block(
        &mut self,
        block: Result<Option<&[u8]>, &StoreError>,
        core: DiscoveryKey,
        limits: &Limits,
    ) -> Result<(), CorestoreError> {
        let max = limits.feeds;
        if self.feeds.len() >= max {
            return Err(StoreError::TooManyFeeds { max }.into());
        }
        let entry = block.ok().flatten().and_then(parse);
        match entry.filter(|(_, name)| name.as_ref().is_none_or(|name| name.len() <= limits.core_name_bytes)) {
            Some((key, name)) => self.add(key, name),
            None => {
                self.unread += 1;
                // As many as there may be feeds: the list itself has what they are.
                if self.problems.len() < max {
                    self.problems.push(CorestoreError::damaged(core, "data", self.unread_block(block)));
                }
            }
        }
        self.blocks_read += 1;
        Ok(())
    }

    /// Returns the feeds, each once, in the order in which they were listed first.
    pub fn feeds(&self) -> &[NamedFeed] {
        &self.feeds
    }

    /// How many feeds are listed before a feed.
    pub(crate) fn position(&self, key: &FeedKey) -> Option<usize> {
        self.keys.get(key).copied()
    }

    /// Whether each block is an entry.
    pub(crate) fn is_whole(&self) -> bool {
        self.unread == 0
    }

    /// Returns whether a feed is listed.
    pub fn has(&self, key: &FeedKey) -> bool {
        self.keys.contains_key(key)
    }

    /// Returns the feed of a name: of two with one name the later one, as in JS.
    pub fn find_name(&self, name: &str) -> Option<&NamedFeed> {
        self.feeds.get(*self.names.get(name)?)
    }

    /// Returns the name of a feed.
    pub fn name_of(&self, key: &FeedKey) -> Option<&str> {
        Some(&self.feeds.get(*self.keys.get(key)?)?.name)
    }

    /// Returns the blocks that are no entries.
    pub fn problems(&self) -> &[CorestoreError] {
        &self.problems
    }

    /// What is wrong with the next block, which gives no feed.
    fn unread_block(&self, block: Result<Option<&[u8]>, &StoreError>) -> String {
        let number = self.blocks_read;
        let what = match block {
            Ok(Some(_)) => return format!("block {number} of the list of feeds is no entry of one"),
            Ok(None) => "is not there".to_owned(),
            Err(StoreError::Damaged { why, .. }) => format!("is damaged ({why})"),
            Err(error) => format!("cannot be read ({error})"),
        };
        format!(
            "block {number} of the list of feeds {what}: the feed that it names is not shown, until a writer is appended to by its name, or a peer \
             offers the feed. No peer has the list: put its folder back, or have it made anew from the cores that are here (`rebuild_list`, verify \
             --rebuild-list)"
        )
    }

    fn add(&mut self, key: FeedKey, name: Option<String>) {
        if let Entry::Vacant(new) = self.keys.entry(key) {
            let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| self.feeds.len().to_string());
            new.insert(self.feeds.len());
            self.names.insert(name.clone(), self.feeds.len());
            self.feeds.push(NamedFeed { key, name });
        }
    }

    /// Adds a feed that is not listed. Without a name of a writer's it is listed under the number of feeds before it, or under its key if
    /// that number is a feed's name. JS would take that feed for another.
    pub(crate) fn add_new(&mut self, key: FeedKey, name: Option<&str>) {
        // No number that the feed of a block may have which could not be read: of two feeds with one name JS finds the later one.
        let mut name = name.map_or_else(|| (self.feeds.len() + self.unread).to_string(), str::to_owned);
        while self.names.contains_key(&name) {
            name = if name.starts_with(&key.to_string()) { format!("{name}.") } else { key.to_string() };
        }
        self.add(key, Some(name));
    }
}

/// The key and the name in a block.
fn parse(block: &[u8]) -> Option<(FeedKey, Option<String>)> {
    let Line { key, name } = serde_json::from_slice(block).ok()?;
    Some((key.parse().ok()?, name))
}
