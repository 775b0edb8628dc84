//! How a networker is made.

use std::fmt;
use std::sync::Arc;

use multifeed_proto::{Config, StaticKeyPair};

use crate::networker::backoff::BackoffOptions;
use crate::networker::ids::PeerKey;
use crate::networker::limits::NetworkerLimits;
use crate::options::PumpOptions;

/// The hook that says which peers may stay.
pub(crate) type Accept = Arc<dyn Fn(&PeerKey) -> bool + Send + Sync>;

/// How a networker is made.
#[derive(Clone)]
#[non_exhaustive]
pub struct NetworkerOptions {
    /// How each stream begins: its timeouts and limits. Root keys, the static key and whether it waits for the remote to be accepted are the
    /// networker's. A remote that has proven nothing may send 512 KiB of messages ([`unproven_bytes`](multifeed_proto::Limits::unproven_bytes)), as one that
    /// replicates a whole corestore opens a channel for each core first.
    pub session: Config,
    /// Our static key pair, by which peers know us again. By default a new one is drawn for each networker. Two that run at one time must not have the same
    /// one.
    pub static_key: Option<StaticKeyPair>,
    /// The buffers of each stream. Both budgets are the networker's: [`NetworkerLimits::queued_bytes`].
    pub pump: PumpOptions,
    /// The bounds of the networker.
    pub limits: NetworkerLimits,
    /// When dials are repeated.
    pub backoff: BackoffOptions,
    /// The seed of the dials' jitter. By default it is drawn.
    pub seed: Option<u64>,
    pub(crate) accept: Option<Accept>,
}

impl NetworkerOptions {
    /// Returns these options with this hook. It is asked for each connection, with the remote's static key, before anything is said to the remote.
    /// Anyone can make up a static key; nobody can take another's. It must not block.
    pub fn with_accept(mut self, accept: impl Fn(&PeerKey) -> bool + Send + Sync + 'static) -> Self {
        self.accept = Some(Arc::new(accept));
        self
    }
}

impl Default for NetworkerOptions {
    fn default() -> Self {
        let mut session = Config::plain();
        session.limits.unproven_bytes = 512 * 1024;
        Self {
            session,
            static_key: None,
            pump: PumpOptions::default(),
            limits: NetworkerLimits::default(),
            backoff: BackoffOptions::default(),
            seed: None,
            accept: None,
        }
    }
}

impl fmt::Debug for NetworkerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkerOptions")
            .field("session", &self.session)
            .field("static_key", &self.static_key)
            .field("pump", &self.pump)
            .field("limits", &self.limits)
            .field("backoff", &self.backoff)
            .field("accept", &self.accept.is_some())
            .finish_non_exhaustive()
    }
}
