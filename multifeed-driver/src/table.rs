//! What handles see of the feeds without asking the store's thread.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use multifeed_core::{FeedId, FeedInfo};
use multifeed_proto::{DiscoveryKey, FeedKey};

/// One feed's key and name as of the time when a handle asked for it, and its numbers as of the last thing that the store's thread did.
#[derive(Debug)]
pub(crate) struct FeedState {
    pub(crate) id: FeedId,
    pub(crate) key: FeedKey,
    pub(crate) discovery_key: DiscoveryKey,
    pub(crate) name: String,
    pub(crate) writable: bool,
    numbers: Arc<Numbers>,
}

#[derive(Debug, Default)]
struct Numbers {
    len: AtomicU64,
    byte_len: AtomicU64,
    downloaded: AtomicU64,
}

impl Numbers {
    fn set(&self, info: &FeedInfo) {
        self.len.store(info.len, Ordering::Release);
        self.byte_len.store(info.byte_len, Ordering::Release);
        self.downloaded.store(info.downloaded, Ordering::Release);
    }
}

impl FeedState {
    fn new(info: FeedInfo, numbers: Arc<Numbers>) -> Self {
        numbers.set(&info);
        Self {
            id: info.id,
            key: info.key,
            discovery_key: info.key.discovery_key(),
            name: info.name,
            writable: info.writable,
            numbers,
        }
    }

    /// Whether this is the same feed of the same multifeed.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.numbers, &other.numbers)
    }

    pub(crate) fn len(&self) -> u64 {
        self.numbers.len.load(Ordering::Acquire)
    }

    pub(crate) fn byte_len(&self) -> u64 {
        self.numbers.byte_len.load(Ordering::Acquire)
    }

    pub(crate) fn downloaded(&self) -> u64 {
        self.numbers.downloaded.load(Ordering::Acquire)
    }
}

/// All feeds, in the order of their folders as the store was opened, then those that are newer.
#[derive(Debug, Default)]
pub(crate) struct FeedTable(RwLock<Rows>);

#[derive(Debug, Default)]
struct Rows {
    feeds: Vec<Arc<FeedState>>,
    by_id: HashMap<FeedId, usize>,
    by_key: HashMap<FeedKey, usize>,
    by_discovery_key: HashMap<DiscoveryKey, usize>,
    by_name: HashMap<String, usize>,
}

impl Rows {
    fn add(&mut self, feed: Arc<FeedState>) {
        let row = self.feeds.len();
        self.by_id.insert(feed.id, row);
        self.by_key.insert(feed.key, row);
        self.by_discovery_key.insert(feed.discovery_key, row);
        self.by_name.entry(feed.name.clone()).or_insert(row);
        self.feeds.push(feed);
    }
}

impl FeedTable {
    /// Sets a feed's numbers, and adds the feed where it is not known.
    pub(crate) fn update(&self, info: FeedInfo) -> Arc<FeedState> {
        if let Some(feed) = self.by_id(info.id) {
            feed.numbers.set(&info);
            return feed;
        }
        let feed = Arc::new(FeedState::new(info, Arc::default()));
        self.write().add(feed.clone());
        feed
    }

    /// What is left of a feed that was removed.
    pub(crate) fn unlisted(info: FeedInfo) -> Arc<FeedState> {
        Arc::new(FeedState::new(info, Arc::default()))
    }

    /// A feed was removed: these are the numbers of what is left of it.
    pub(crate) fn remove(&self, info: FeedInfo) -> Option<Arc<FeedState>> {
        let feed = self.by_id(info.id)?;
        feed.numbers.set(&info);
        self.rebuild(|feeds| feeds.retain(|feed| feed.id != info.id));
        Some(feed)
    }

    /// A feed has another name.
    pub(crate) fn rename(&self, info: &FeedInfo) {
        self.rebuild(|feeds| {
            for feed in feeds.iter_mut().filter(|feed| feed.id == info.id) {
                *feed = Arc::new(FeedState::new(info.clone(), feed.numbers.clone()));
            }
        });
    }

    fn rebuild(&self, change: impl FnOnce(&mut Vec<Arc<FeedState>>)) {
        let mut rows = self.write();
        let mut feeds = std::mem::take(&mut rows.feeds);
        change(&mut feeds);
        *rows = Rows::default();
        feeds.into_iter().for_each(|feed| rows.add(feed));
    }

    /// Forgets all feeds.
    pub(crate) fn clear(&self) {
        *self.write() = Rows::default();
    }

    pub(crate) fn all(&self) -> Vec<Arc<FeedState>> {
        self.read().feeds.clone()
    }

    pub(crate) fn by_id(&self, id: FeedId) -> Option<Arc<FeedState>> {
        let rows = self.read();
        rows.by_id.get(&id).and_then(|&row| rows.feeds.get(row)).cloned()
    }

    pub(crate) fn by_key(&self, key: &FeedKey) -> Option<Arc<FeedState>> {
        let rows = self.read();
        rows.by_key.get(key).and_then(|&row| rows.feeds.get(row)).cloned()
    }

    pub(crate) fn by_discovery_key(&self, key: &DiscoveryKey) -> Option<Arc<FeedState>> {
        let rows = self.read();
        rows.by_discovery_key.get(key).and_then(|&row| rows.feeds.get(row)).cloned()
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<Arc<FeedState>> {
        let rows = self.read();
        rows.by_name.get(name).and_then(|&row| rows.feeds.get(row)).cloned()
    }

    fn read(&self) -> RwLockReadGuard<'_, Rows> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Rows> {
        self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
