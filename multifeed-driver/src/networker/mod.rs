//! Any number of multifeeds, over any number of connections that come from anywhere.
//!
//! ```text
//! connections in, dials ─▶ connection (a task for each; one stream, a session for each root key) ─▶ multifeeds
//!                                │ what happened        ▲ orders
//!                                ▼                      │
//!                          table (decides; reads no clock, touches no stream) ◀─ handles
//! ```

mod backoff;
mod connection;
mod dial;
mod dials;
mod error;
mod events;
mod extension;
mod handle;
mod ids;
mod left_out;
mod limits;
mod options;
mod orders;
mod shared;
mod status;
mod table;

pub use backoff::BackoffOptions;
pub use dial::{Dial, DialOptions};
pub use error::NetworkerError;
pub use events::{NetworkerEvent, NetworkerEvents, PeerMessage};
pub use extension::NetworkerExtension;
pub use handle::Networker;
pub use ids::{ConnectionId, DialId, PeerKey};
pub use limits::NetworkerLimits;
pub use options::NetworkerOptions;
pub use orders::{EndReason, RootState};
pub use status::{Peer, RootPeer, RootStatus};
