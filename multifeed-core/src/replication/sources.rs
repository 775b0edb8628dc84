//! What remotes brought, summed up over their sessions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What a remote brought. Its sessions share one, on one thread.
#[derive(Debug, Default)]
pub(crate) struct Brought {
    feeds: AtomicUsize,
    bytes: AtomicU64,
}

impl Brought {
    /// Feeds that were new here.
    pub(crate) fn feeds(&self) -> usize {
        self.feeds.load(Ordering::Relaxed)
    }

    /// Bytes of blocks.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn add_feed(&self) {
        self.feeds.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The remotes that have names, as long as the store is open.
#[derive(Debug, Default)]
pub(crate) struct Sources(BTreeMap<String, Arc<Brought>>);

impl Sources {
    /// What a remote brought so far. Of more than `most`, the one that brought least and has no session is forgotten.
    pub(crate) fn of(&mut self, name: &str, most: usize) -> Arc<Brought> {
        if let Some(brought) = self.0.get(name) {
            return brought.clone();
        }
        if self.0.len() >= most {
            let idle = self.0.iter().filter(|(_, brought)| Arc::strong_count(brought) == 1);
            let least = idle.min_by_key(|(_, brought)| (brought.feeds(), brought.bytes()));
            if let Some(name) = least.map(|(name, _)| name.clone()) {
                self.0.remove(&name);
            }
        }
        let brought = Arc::<Brought>::default();
        self.0.insert(name.to_owned(), brought.clone());
        brought
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_brought_most_is_remembered() {
        let mut sources = Sources::default();
        sources.of("a", 3).add_feed();
        let _connected = sources.of("b", 3);
        sources.of("c", 3).add_bytes(7);
        for number in 0..100 {
            let _ = sources.of(&number.to_string(), 3);
            assert!(sources.0.len() <= 3, "{number}");
        }
        assert_eq!((sources.of("a", 3).feeds(), sources.of("a", 3).bytes()), (1, 0));
        assert!(sources.0.contains_key("b"));
    }
}
