//! Feeds, their storage and replication, and the multifeed that holds them, without IO of its own.
//!
//! A [`Multifeed`] owns its feeds and their [`Storage`]. It does nothing by itself: it reads no clock, opens no socket and starts no
//! thread. Sessions of `multifeed-proto` are driven through it by an adapter crate, or on one thread by a [`Connection`].

pub mod bitfield;
mod connection;
mod cores;
mod corestore;
mod error;
pub mod feed;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod ids;
mod keys;
pub mod limits;
#[doc(hidden)]
pub mod log;
pub mod merkle;
mod multifeed;
mod prepared;
mod replication;
mod sets;
mod stats;
pub mod storage;

pub use bitfield::Bitfield;
pub use connection::Connection;
pub use cores::durability::Durability;
pub use cores::evidence::KeptConflict;
pub use cores::report::ExposedKey;
pub use corestore::{
    Core, CoreFiles, CoreInfo, Corestore, CorestoreOptions, FeedList, MasterKey, NamedFeed, Namespace,
};
pub use error::{AppendError, Conflict, CorestoreError, ProofError, PutError, StoreError};
pub use feed::local_name::is_object_property;
pub use feed::{
    Answer, Audit, Contradiction, Feed, Located, Place, Put, Recovered, Repair, RepairCursor, SignatureSearch,
    VerifyCursor, VerifyStep,
};
pub use ids::{FeedId, SessionId, SetId};
pub use keys::key_pair::{KeyPair, KeyPairError};
pub use keys::signer::{Signer, Signers};
pub use limits::{Limits, PeerLimits, message_cost};
pub use multifeed::feed_events::{FeedEvent, FeedNews};
pub use multifeed::{ExtensionError, FeedInfo, FeedMessage, Multifeed, MultifeedEvent, Options, Rearranged};
pub use prepared::{PreparedData, PreparedEvent, prepare, prepare_events};
pub use replication::missing_ranges::FeedHoles;
pub use replication::peer::PeerInfo;
pub use replication::policy::{Policy, Remote};
pub use replication::reconcile;
pub use replication::replicate::{PeerEvent, Replicate, STALL_TIMEOUT, SyncError, SyncTotals};
pub use replication::wants::{Want, WantEnd, WantError, WantId, WantOptions};
pub use stats::{FeedSyncState, Moved, RATE_WINDOW, StoreSyncState, SyncState};
#[cfg(feature = "file-storage")]
pub use storage::FileCoreStorage;
pub use storage::core_list::{CoreList, ListedCore};
pub use storage::other_store::{OtherStore, StoreKind};
pub use storage::{CoreFile, CoreFolders, CoreStorage, MemoryCoreStorage, SmallFile};
pub use storage::{FileId, FileKind, Found, MemoryStorage, RepairedInMemory, Slot, Storage, Unsupported};
#[cfg(feature = "file-storage")]
pub use storage::{FileStorage, FileStorageOptions};
