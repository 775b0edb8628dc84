//! Names of feeds and sessions inside one store, while it is open.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

/// A feed of a [`Multifeed`](crate::Multifeed): good while that is open, and never given twice.
///
/// It names the feed of that [`Multifeed`](crate::Multifeed) alone. Any other of the process refuses it: calls that can fail return
/// [`StoreError::UnknownFeed`](crate::StoreError::UnknownFeed) or the variant of that name of their own error, and the others answer as for a
/// feed of which nothing is held.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeedId(pub(crate) u32, pub(crate) StoreNumber);

impl fmt::Debug for FeedId {
    /// Prints its place alone, which is the same in each run.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FeedId").field(&self.0).finish()
    }
}

/// Tells the stores of a process apart: the ids of one are not those of another. It decides nothing else, and leaves the process nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StoreNumber(u32);

impl StoreNumber {
    /// Returns the next one. They repeat after 4,294,967,296.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

#[cfg(test)]
impl FeedId {
    /// One of a store that is none.
    pub(crate) const fn test(place: u32) -> Self {
        Self(place, StoreNumber(0))
    }
}

/// A session of a [`Multifeed`](crate::Multifeed), never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub(crate) u64);

/// One set of feeds of a [`Multifeed`](crate::Multifeed): those that are replicated under one root key. By default [`SetId::ALL`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(pub(crate) u32);

impl SetId {
    /// Every feed of the store.
    pub const ALL: Self = Self(0);
}
