//! The store's thread: one owner of a multifeed, and the queue of what it is asked.

pub(crate) mod call;
pub(crate) mod holders;
pub(crate) mod mailbox;
pub(crate) mod shared;
pub(crate) mod table;
pub(crate) mod thread;
pub(crate) mod waits;
