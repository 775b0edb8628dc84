//! One stream: the machine that reads and writes it, and what the stream's handles pass it.

pub(crate) mod hub;
pub(crate) mod member;
mod outflow;
pub(crate) mod pump;
