//! What an application holds: each handle asks the store's thread, and waits for its answer.

pub(crate) mod all_feeds;
pub(crate) mod blocks;
pub(crate) mod corestore;
pub(crate) mod events;
pub(crate) mod extension;
pub(crate) mod feed;
pub(crate) mod multifeed;
pub(crate) mod reads;
pub(crate) mod replicate;
pub(crate) mod replication;
pub(crate) mod sink;
pub(crate) mod state;
pub(crate) mod stream;
pub(crate) mod watch;
