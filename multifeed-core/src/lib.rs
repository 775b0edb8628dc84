//! Feeds, their storage and replication, and the multifeed that holds them, without IO of its own.
//!
//! A [`Multifeed`] owns its feeds and their [`Storage`]. It does nothing by itself: it reads no clock, opens no socket and starts no
//! thread. Sessions of `multifeed-proto` are driven through it by an adapter crate, or on one thread by a [`Connection`].

pub mod bitfield;
mod connection;
mod error;
pub mod feed;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod holes;
mod in_step;
mod journal;
mod key_pair;
pub mod limits;
pub mod merkle;
mod multifeed;
mod news;
mod not_taken;
mod offers;
mod peer;
mod peering;
mod policy;
mod prepared;
mod range_set;
pub mod reconcile;
mod replicate;
mod signatures;
mod sparse_bits;
mod state;
pub mod storage;
mod transfer;
mod wants;

pub use bitfield::Bitfield;
pub use connection::Connection;
pub use error::{AppendError, Conflict, ProofError, PutError, StoreError};
pub use feed::{Answer, Audit, Feed, Located, Place, Put, Recovered, VerifyCursor, VerifyStep};
pub use holes::FeedHoles;
pub use key_pair::{KeyPair, KeyPairError};
pub use limits::{Limits, PeerLimits};
pub use multifeed::{
    Durability, ExposedKey, ExtensionError, FeedId, FeedInfo, FeedMessage, Multifeed, MultifeedEvent, Options, PeerId,
    Rearranged, is_object_property, message_cost,
};
pub use news::{FeedEvent, FeedNews};
pub use peer::PeerInfo;
pub use policy::{Policy, Remote};
pub use prepared::{PreparedData, prepare};
pub use replicate::{PeerEvent, Replicate, STALL_TIMEOUT, SyncError, SyncTotals};
pub use state::{FeedSyncState, Moved, RATE_WINDOW, StoreSyncState, SyncState};
pub use storage::{FileId, FileKind, Found, MemoryStorage, RepairedInMemory, Slot, Storage, Unsupported};
#[cfg(feature = "file-storage")]
pub use storage::{FileStorage, FileStorageOptions};
pub use wants::{Want, WantEnd, WantError, WantId, WantOptions};
