//! The store: its thread, which owns a multifeed, and the queue of what that is asked.

pub(crate) mod calls;
pub(crate) mod thread;
mod waits;
mod watchers;
