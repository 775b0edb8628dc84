//! All of the tests in this folder that need no program of their own: one program is built much sooner than one for each file.
#![allow(missing_docs)]

mod common;

mod about;
mod beside;
mod bounds;
mod commands;
mod control;
mod corestore;
mod corestore_losses;
mod damaged_stores;
mod differential;
mod failures;
mod hostile_folder;
mod interop;
mod library;
mod log;
mod lost_writers;
mod names;
mod network;
mod not_taken;
mod odd_disks;
mod odd_stores;
mod readme;
mod root_keys;
mod status;
mod swarm;
mod through;
mod unread;
mod unwritable;
mod ways;
mod writer_keys;
