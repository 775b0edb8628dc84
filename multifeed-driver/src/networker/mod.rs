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
mod left_out;
mod limits;
mod options;
mod shared;
mod status;
mod table;

pub use backoff::BackoffOptions;
pub use dial::{Dial, DialOptions};
pub use dials::DialId;
pub use error::NetworkerError;
pub use events::{NetworkerEvent, NetworkerEvents};
pub use extension::{NetworkerExtension, PeerMessage};
pub use handle::Networker;
pub use limits::NetworkerLimits;
pub use options::NetworkerOptions;
pub use status::{Peer, RootPeer, RootStatus};
pub use table::{ConnectionId, EndReason, PeerKey, RootState};
