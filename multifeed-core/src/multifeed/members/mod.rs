//! Which feeds there are: their keys, names and folders.

pub(super) mod banned;
pub(super) mod catalog;
pub(super) mod copies;
pub(super) mod folder_numbers;
pub(super) mod missing;
pub(super) mod names;
pub(super) mod rearranged;
pub(super) mod remove;
