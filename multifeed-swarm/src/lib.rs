//! Peers of a multifeed find each other: on the local network, by hyperswarm's DHT, or by address.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use multifeed_swarm::{Lan, LanOptions, Mode, Swarm, SwarmOptions};
//! use multifeed_tokio::{FeedKey, Multifeed, Networker, NetworkerOptions, Options, Replicate};
//!
//! # async fn example(root: FeedKey) -> Result<(), Box<dyn std::error::Error>> {
//! let multi = Multifeed::open("./db", Options::new(root)).await?;
//! let networker = Networker::new(NetworkerOptions::default())?;
//! let lan = Lan::start(networker.public_key(), LanOptions::default()).await?;
//! let swarm = Swarm::new(networker, vec![Arc::new(lan)], SwarmOptions::default());
//! swarm.join(&multi, Replicate::live(), Mode::Both)?;
//! let mut events = swarm.events();
//! while let Some(event) = events.next().await {
//!     println!("{event:?}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! An engine ([`Discovery`]) finds addresses and brings streams; the [`Swarm`] decides whom to dial; the
//! [`Networker`](multifeed_tokio::Networker) keeps the connections, makes two to one peer one, and says when a dial is repeated.
//!
//! ```text
//! engines: lan, addresses, yours ─▶ swarm (a task) ─▶ networker (a task for each connection) ─▶ multifeeds
//!                   found, lost, │     ▲ whom to dial
//!                   came         ▼     │
//!                            table: decides; no clock, no IO
//! ```
//!
//! Peers look for each other by the **topic**, which is the discovery key of the root key. It may be shown to anyone: the root key cannot be computed
//! from it, and anyone who has only the topic learns nothing of the feeds. What is shown to whom, and which engine to take, is in
//! `docs/finding-peers.md` of the repository.
//!
//! Nothing that is found is trusted. Of an announcement come at most a bounded number of dials ([`SwarmLimits`]), and a peer that does not prove to
//! know the root key hears nothing of feeds.
//!
//! Features: `lan` and `addresses`, both on by default; `hyperswarm`, the DHT and the UDP streams of JS hyperswarm 4. That one announces to a public network,
//! and the libraries below it are young: it is off by default.

mod discovery;
mod engines;
mod events;
mod limits;
mod links;
mod place;
mod shared;
mod swarm;
mod table;
mod task;
pub mod tcp;

pub use discovery::{BoxStream, Connecting, Discovery, DiscoveryEvent, Found, Incoming, Mode, Route, Stream, Topic};
#[cfg(feature = "addresses")]
pub use engines::addresses::{Addresses, AddressesOptions};
#[cfg(feature = "hyperswarm")]
pub use engines::hyperswarm::{Hyperswarm, HyperswarmError, HyperswarmOptions, PUBLIC_BOOTSTRAP, testnet::Testnet};
#[cfg(feature = "lan")]
pub use engines::lan::{Lan, LanError, LanOptions};
pub use events::{SwarmEvent, SwarmEvents};
pub use limits::SwarmLimits;
pub use swarm::{Finding, Swarm, SwarmOptions, SwarmPeer};
pub use table::{FoundId, FoundState, LostReason};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, even if a thread died while it held the lock: what is guarded here is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
