//! All of the tests in this folder that need no program of their own: one program is built much sooner than one for each file.
#![allow(missing_docs)]

#[path = "../../multifeed-core/tests/common/link.rs"]
mod link;

mod circles;
mod corestore;
mod corestore_multifeed;
mod corestore_turns;
mod late_blocks;
mod matrix;
mod programs;
mod serialized;
mod slow_links;
mod streams;
mod threat_model;
