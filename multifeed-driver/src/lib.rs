//! What the multifeed adapters share: the store's thread, the pump of a stream, and the handles that applications touch.
//!
//! An application uses an adapter, `multifeed-tokio` or `multifeed-async-std`, which re-export all of this. A new adapter
//! brings timers and tasks as a [`Runtime`], streams as `futures-io` traits, and nothing else.
//!
//! ```text
//! stream ⇄ pump (a task; proto's session: cipher, frames) ⇄ link ⇄ store (a thread; core's multifeed: checks, writes) ⇄ handles
//! ```
//!
//! | folder | what it is | knows of these |
//! |---|---|---|
//! | `shared` | links, inboxes, queues of events, the table of feeds: what the others pass each other | none |
//! | `stream` | the pump, and what the handles of a stream pass it | `shared` |
//! | `store` | the thread, its mailbox and calls | `shared` |
//! | `handles` | what an application holds | `shared`, `stream`, `store` |
//! | `networker` | many streams, and who is at their other ends | `shared`, `stream`, `handles` |
//!
//! The link between a pump and the store is bounded in both directions, and neither side ever waits for the other. While the
//! store is behind, the pump does not read its stream, but still writes. While the stream is slow, the store hands that
//! session no commands, and serves the others.

mod admission;
mod budget;
mod clock;
mod error;
mod handles;
mod networker;
mod oneshot;
mod options;
mod pace;
mod randomness;
mod runtime;
mod shared;
mod store;
mod stream;
mod timer;
mod waking;

pub use admission::{Admission, AdmissionLimits, Admitted, Full, Network};
pub use budget::Budget;
pub use error::Error;
pub use handles::all_feeds::AllFeeds;
pub use handles::blocks::{Blocks, ReadOptions};
pub use handles::corestore::Corestore;
pub use handles::events::{Events, MultifeedEvent};
pub use handles::extension::{FeedExtension, StreamExtension};
pub use handles::feed::{Feed, Verification};
pub use handles::multifeed::{FeedRef, Multifeed};
pub use handles::reads::{Download, Selection};
pub use handles::replication::{Replication, SyncCloser};
pub use handles::sink::{BlockSink, WriteOptions};
pub use handles::stream::{ProtocolStream, StreamOptions};
pub use handles::watch::FeedEvents;
pub use networker::{
    BackoffOptions, ConnectionId, Dial, DialId, DialOptions, EndReason, Networker, NetworkerError, NetworkerEvent,
    NetworkerEvents, NetworkerExtension, NetworkerLimits, NetworkerOptions, Peer, PeerKey, PeerMessage, RootPeer,
    RootState, RootStatus,
};
pub use options::{Options, PumpOptions};
pub use randomness::{generate_key_pair, generate_root_key};
pub use runtime::Runtime;
pub use shared::feed_events::FeedEvent;
pub use shared::inbox::FeedMessage;
pub use shared::session_events::{SyncEvent, SyncId, Totals};
pub use store::calls::call::FeedPeer;
pub use store::calls::waiting::Wait;
pub use stream::hub::StreamEvent;

pub use multifeed_core as core;
pub use multifeed_proto as proto;

pub use multifeed_core::{
    AppendError, Audit, Conflict, CoreList, CorestoreError, Durability, ExposedKey, ExtensionError, FeedHoles,
    FeedSyncState, FileStorage, FileStorageOptions, Found, KeptConflict, KeyPair, ListedCore, MemoryStorage, Moved,
    Namespace, PeerLimits, Place, Policy, Rearranged, Recovered, Remote, Repair, RepairedInMemory, Replicate, Signer,
    Storage, StoreError, StoreSyncState, SyncError, SyncState, SyncTotals, Unsupported, VerifyStep, WantError,
    is_object_property,
};
pub use multifeed_proto::{
    DEFAULT_ROOT_KEY, DiscoveryKey, Fault, FeedKey, HandshakeHash, Json, KeyLengthError, ManifestFields, Node,
    ParseKeyError, RemoteHandshake, Role, SessionError, StaticKeyPair,
};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, even if a thread died while it held the lock: what is guarded here is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
