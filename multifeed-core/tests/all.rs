//! All of the tests in this folder that need no program of their own: one program is built much sooner than one for each file.
#![allow(missing_docs)]

mod common;
#[path = "common/link.rs"]
mod link;
#[path = "common/long.rs"]
mod long;
#[path = "common/played.rs"]
mod played;

mod acknowledged;
mod bad_ends;
mod banned;
mod copies;
mod corestore;
mod corestore_losses;
mod corestore_multifeed;
mod corestore_names;
mod corestore_states;
mod damaged_copies;
mod damaged_journal;
mod disk_faults;
mod durability;
mod ends;
mod feed_faults;
mod feed_put;
mod feed_vectors;
mod foreign_ids;
mod full_disk;
mod given_up;
mod hidden_blocks;
mod holding;
mod hostile_folder;
mod in_step;
mod long_claims;
mod losses;
mod lost_leaf;
mod many_feeds;
mod missing;
mod names;
mod not_taken;
mod numbers;
mod old_releases;
mod older_writers;
mod opening;
mod peer;
mod policy;
mod power_cut;
mod promised;
mod random_order;
mod reads;
mod rearranged;
mod reconcile;
mod recovery;
mod relays;
mod removal;
mod repair;
mod replicate;
mod scale;
mod sets;
mod sharing;
mod signer;
mod silent_remote;
mod slow_block;
mod state;
mod transfer;
mod two_devices;
mod unchanged;
mod unended;
mod unopened_feed;
mod unread_files;
mod unwritable_feed;
mod withheld;
