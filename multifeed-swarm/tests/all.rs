//! Swarms over real sockets of this machine: loopback alone.

#![allow(unreachable_pub, missing_docs)]

mod common;

mod addresses;
#[cfg(feature = "hyperswarm")]
mod hyperswarm;
mod lan;
