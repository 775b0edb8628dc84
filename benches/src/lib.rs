//! What the measuring programs share.

pub mod processes;
pub mod watch;
