//! All of the tests in this folder that need no program of their own: one program is built much sooner than one for each file.
#![allow(missing_docs)]

mod common;
#[path = "../../multifeed-core/tests/common/long.rs"]
mod long;

mod js_again;
mod js_bugs;
mod js_corestore;
mod js_crowd;
mod js_long;
mod js_many;
mod js_mismatch;
mod js_names;
mod js_options;
mod js_policy;
mod js_reads;
mod js_removal;
mod js_signer;
mod js_slow_crowd;
mod js_slow_links;
mod js_state;
mod js_streams;
mod js_suite;
mod js_two_devices;
mod networker;
mod slow_links;
