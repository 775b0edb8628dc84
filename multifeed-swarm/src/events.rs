//! What happens in a swarm, as a stream.

use std::time::Duration;

use multifeed_tokio::PeerKey;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::discovery::Route;
use crate::table::{FoundId, LostReason};

/// Something happened in a swarm. What happens on connections is [`NetworkerEvent`](multifeed_tokio::NetworkerEvent)'s.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SwarmEvent {
    /// A way to reach a peer was found. Nobody knows yet whether it is there, and who.
    Found {
        /// The peer that it is taken for.
        peer: FoundId,
        /// Its static key, if it was announced.
        key: Option<PeerKey>,
        /// The engine.
        engine: &'static str,
        /// The way.
        route: Route,
    },
    /// A peer could not be reached, or shared no root key. It is tried again, unless [`Lost`](Self::Lost) follows.
    Failed {
        /// The peer.
        peer: FoundId,
        /// Its static key, if it is known.
        key: Option<PeerKey>,
        /// Why no connection came about, if none did.
        error: Option<String>,
        /// How long it waits at least.
        after: Duration,
    },
    /// A peer that was found is no longer known.
    Lost {
        /// The peer.
        peer: FoundId,
        /// Its static key, if it was announced.
        key: Option<PeerKey>,
        /// Why.
        reason: LostReason,
    },
    /// A peer was found for which there is no place ([`SwarmLimits::peers`](crate::SwarmLimits::peers)).
    TurnedAway,
    /// Something is wrong with an engine, which goes on as far as it can.
    Trouble {
        /// The engine.
        engine: &'static str,
        /// What, and what to do.
        message: String,
    },
    /// So many events were dropped, as more than [`SwarmLimits::events`](crate::SwarmLimits::events) waited.
    Lagged(u64),
}

/// The events of a swarm from the time on when this was made; it ends when the swarm is closed.
#[derive(Debug)]
pub struct SwarmEvents(pub(crate) broadcast::Receiver<SwarmEvent>);

impl SwarmEvents {
    /// Returns the next event; `None` once the swarm is closed.
    pub async fn next(&mut self) -> Option<SwarmEvent> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(events)) => Some(SwarmEvent::Lagged(events)),
            Err(RecvError::Closed) => None,
        }
    }
}
