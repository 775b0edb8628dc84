//! Feeds, their storage and replication, and the multifeed that holds them, without IO of its own.
//!
//! A [`Multifeed`] owns its feeds and their [`Storage`]. It does nothing by itself: it reads no clock, opens no socket and starts no
//! thread. Sessions of `multifeed-proto` are driven through it by an adapter crate, or on one thread by a [`Connection`].

pub mod bitfield;
mod connection;
mod error;
pub mod feed;
mod key_pair;
pub mod limits;
pub mod merkle;
mod multifeed;
mod peer;
mod peering;
mod prepared;
mod replicate;
mod sparse_bits;
pub mod storage;

pub use bitfield::Bitfield;
pub use connection::Connection;
pub use error::{AppendError, Conflict, ProofError, PutError, StoreError};
pub use feed::{Answer, Feed, Put, Recovered, VerifyCursor, VerifyStep};
pub use key_pair::{KeyPair, KeyPairError};
pub use limits::Limits;
pub use multifeed::{FeedId, FeedInfo, Multifeed, MultifeedEvent, Options, PeerId};
pub use prepared::{PreparedData, prepare};
pub use replicate::{PeerEvent, Progress, Replicate, SyncError, SyncTotals};
pub use storage::{FileId, FileKind, FileStorage, MemoryStorage, Slot, Storage};
