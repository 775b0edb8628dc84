//! One stream: the machine that reads and writes it, and what it shares with the store's thread.

pub(crate) mod hub;
pub(crate) mod link;
pub(crate) mod member;
pub(crate) mod outflow;
pub(crate) mod pump;
