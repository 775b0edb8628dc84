//! Names of feeds and sessions inside one store, while it is open.

/// A feed of a [`Multifeed`](crate::Multifeed): good while that is open, and never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeedId(pub(crate) u32);

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
