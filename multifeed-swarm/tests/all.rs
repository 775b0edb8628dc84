//! Swarms over real sockets of this machine: loopback alone.

#![allow(unreachable_pub, missing_docs)]

mod common;

mod addresses;
mod lan;
