//! What the handles, the store's thread and the streams' pumps pass each other. Each of them knows these; these know none of them.
//!
//! All of it is bounded, and no thread that puts something in waits for the one that takes it out.

pub(crate) mod feed_events;
pub(crate) mod feed_table;
pub(crate) mod inbox;
pub(crate) mod link;
pub(crate) mod multifeed_events;
pub(crate) mod session_events;
