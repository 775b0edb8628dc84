//! The cores that are on a disk.

use multifeed_proto::{DiscoveryKey, FeedKey};

use crate::error::CorestoreError;

/// The cores of a corestore, and what of it could not be listed.
#[derive(Debug, Clone, Default)]
pub struct CoreList {
    /// The cores, by their discovery keys.
    pub cores: Vec<ListedCore>,
    /// Folders of cores that cannot be used, and what stands in the place of one. They were left as they are.
    pub problems: Vec<CorestoreError>,
}

/// A core that is on the disk. It was not opened, and nothing but its keys and its name was read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListedCore {
    /// The public key.
    pub key: FeedKey,
    /// The discovery key, which names the core's folder.
    pub discovery_key: DiscoveryKey,
    /// What the key pair is derived from, if it is.
    pub name: Option<Vec<u8>>,
    /// Whether the secret key is here.
    pub writable: bool,
}
