//! What handles see of the feeds without asking the store's thread.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use multifeed_core::{FeedId, FeedInfo, Slot};
use multifeed_proto::{DiscoveryKey, FeedKey};

use crate::lock;

/// One feed, as of the last thing that the store's thread did: all its handles have this one.
#[derive(Debug)]
pub(crate) struct FeedState {
    pub(crate) id: FeedId,
    pub(crate) key: FeedKey,
    pub(crate) discovery_key: DiscoveryKey,
    pub(crate) writable: bool,
    pub(crate) lost_key: bool,
    place: Mutex<Place>,
    len: AtomicU64,
    byte_len: AtomicU64,
    downloaded: AtomicU64,
}

/// What a removal of another feed can change.
#[derive(Debug)]
struct Place {
    slot: Slot,
    name: String,
}

impl FeedState {
    pub(crate) fn new(info: FeedInfo, slot: Slot) -> Self {
        Self {
            id: info.id,
            key: info.key,
            discovery_key: info.key.discovery_key(),
            writable: info.writable,
            lost_key: info.lost_key,
            place: Mutex::new(Place { slot, name: info.name }),
            len: info.len.into(),
            byte_len: info.byte_len.into(),
            downloaded: info.downloaded.into(),
        }
    }

    fn set(&self, info: &FeedInfo) {
        self.len.store(info.len, Ordering::Release);
        self.byte_len.store(info.byte_len, Ordering::Release);
        self.downloaded.store(info.downloaded, Ordering::Release);
    }

    fn slot(&self) -> Slot {
        lock(&self.place).slot
    }

    pub(crate) fn name(&self) -> String {
        lock(&self.place).name.clone()
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

impl Rows {
    /// Adds a feed behind the others. Of two with one name the first has it.
    fn add(&mut self, feed: Arc<FeedState>) {
        let row = self.feeds.len();
        self.by_id.insert(feed.id, row);
        self.by_key.insert(feed.key, row);
        self.by_discovery_key.insert(feed.discovery_key, row);
        self.by_name.entry(feed.name()).or_insert(row);
        self.feeds.push(feed);
    }
}

impl FeedTable {
    /// Sets a feed's numbers, and adds the feed if it is not known.
    pub(crate) fn update(&self, info: FeedInfo, slot: Slot) -> Arc<FeedState> {
        if let Some(feed) = self.by_id(info.id) {
            feed.set(&info);
            return feed;
        }
        let feed = Arc::new(FeedState::new(info, slot));
        if self.read().feeds.last().is_some_and(|last| last.slot() > slot) {
            self.rebuild(|feeds| feeds.push(feed.clone()));
        } else {
            self.write().add(feed.clone());
        }
        feed
    }

    /// A feed was removed: these are the numbers of what is left of it.
    pub(crate) fn remove(&self, info: FeedInfo) -> Option<Arc<FeedState>> {
        let feed = self.by_id(info.id)?;
        feed.set(&info);
        self.rebuild(|feeds| feeds.retain(|feed| feed.id != info.id));
        Some(feed)
    }

    /// A feed's folder has another number. Returns the feed if its name is another one now.
    pub(crate) fn move_to(&self, id: FeedId, slot: Slot, name: String) -> Option<Arc<FeedState>> {
        let feed = self.by_id(id)?;
        let before = std::mem::replace(&mut *lock(&feed.place), Place { slot, name });
        self.rebuild(|_| {});
        (before.name != feed.name()).then_some(feed)
    }

    fn rebuild(&self, change: impl FnOnce(&mut Vec<Arc<FeedState>>)) {
        let mut rows = self.write();
        let mut feeds = std::mem::take(&mut rows.feeds);
        change(&mut feeds);
        feeds.sort_by_key(|feed| feed.slot());
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
