//! All of the tests in this folder that need no program of their own: one program is built much sooner than one for each file.
#![allow(missing_docs)]

mod circles;
mod corestore;
mod corestore_multifeed;
mod late_blocks;
mod matrix;
mod programs;
mod serialized;
mod slow_links;
mod streams;
mod threat_model;
