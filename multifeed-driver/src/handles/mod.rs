//! What an application holds: each handle asks the store's thread, and waits for its answer.
//!
//! A method that makes another handle stands in that one's file: what is made knows its maker, and the maker does not know what is made of it.

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
