//! What handles see of the feeds without asking the store's thread.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use multifeed_core::{FeedId, FeedInfo};
use multifeed_proto::{DiscoveryKey, FeedKey};

/// One feed's key and name, and its numbers as of the last thing that the store's thread did.
#[derive(Debug)]
pub(crate) struct FeedState {
    pub(crate) id: FeedId,
    pub(crate) key: FeedKey,
    pub(crate) discovery_key: DiscoveryKey,
    pub(crate) name: String,
    pub(crate) writable: bool,
    len: AtomicU64,
    byte_len: AtomicU64,
    downloaded: AtomicU64,
}

impl FeedState {
    fn new(info: FeedInfo) -> Self {
        Self {
            id: info.id,
            key: info.key,
            discovery_key: info.key.discovery_key(),
            name: info.name,
            writable: info.writable,
            len: AtomicU64::new(info.len),
            byte_len: AtomicU64::new(info.byte_len),
            downloaded: AtomicU64::new(info.downloaded),
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    pub(crate) fn byte_len(&self) -> u64 {
        self.byte_len.load(Ordering::Acquire)
    }

    pub(crate) fn downloaded(&self) -> u64 {
        self.downloaded.load(Ordering::Acquire)
    }
}

/// All feeds, in the order of their folders.
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

impl FeedTable {
    /// Sets a feed's numbers, and adds the feed where it is not known.
    pub(crate) fn update(&self, info: FeedInfo) -> Arc<FeedState> {
        if let Some(feed) = self.by_id(info.id) {
            feed.len.store(info.len, Ordering::Release);
            feed.byte_len.store(info.byte_len, Ordering::Release);
            feed.downloaded.store(info.downloaded, Ordering::Release);
            return feed;
        }
        let feed = Arc::new(FeedState::new(info));
        let mut rows = self.write();
        let row = rows.feeds.len();
        rows.feeds.push(feed.clone());
        rows.by_id.insert(feed.id, row);
        rows.by_key.insert(feed.key, row);
        rows.by_discovery_key.insert(feed.discovery_key, row);
        rows.by_name.entry(feed.name.clone()).or_insert(row);
        feed
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
