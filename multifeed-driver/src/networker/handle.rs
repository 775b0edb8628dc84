//! A networker, as the application sees it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::sync::Arc;

use futures_io::{AsyncRead, AsyncWrite};
use multifeed_core::{ExtensionError, Replicate};
use multifeed_proto::{FeedKey, Role, StaticKeyPair};
use rand::rngs::{StdRng, SysRng};
use rand::{Rng, SeedableRng};

use crate::handles::multifeed::Multifeed;
use crate::networker::connection::Connection;
use crate::networker::dial::{self, Dial, DialOptions};
use crate::networker::error::NetworkerError;
use crate::networker::events::NetworkerEvents;
use crate::networker::extension::NetworkerExtension;
use crate::networker::ids::{ConnectionId, PeerKey};
use crate::networker::options::NetworkerOptions;
use crate::networker::orders::EndReason;
use crate::networker::shared::Shared;
use crate::networker::status::{Peer, RootPeer, RootStatus};
use crate::networker::table::Table;
use crate::runtime::Runtime;

/// Syncs any number of multifeeds over any number of connections, which come from anywhere: a listener, a swarm, a
/// [dial](Self::dial_on), a test.
///
/// Multifeeds [`join`](Self::join) and [`leave`](Self::leave) at any time. Each connection carries every root key that both sides have joined; one that joins
/// late starts at once on the connections that are there. If only one side has a root key, the others go on. A peer sees only feeds of root keys
/// that it has proven to know.
///
/// **Two connections to one peer** are merged. The side with the larger static key decides: the newer one stays if bytes had moved both ways on the older one,
/// otherwise the one that it began. The other side holds the newer one until then, for [`merge_time`](crate::NetworkerLimits::merge_time) at most. What was
/// under way on the one that ends is asked for again on the other.
///
/// Cloning is cheap, and all clones refer to the same networker. It closes when the last of them is dropped, or by [`close`](Self::close).
#[derive(Clone)]
pub struct Networker {
    shared: Arc<Shared>,
    _guard: Arc<Guard>,
}

/// Held by every handle; the last one dropped closes the networker.
struct Guard(Arc<Shared>);

impl Networker {
    /// Makes a networker. It needs no runtime before its first connection or dial.
    ///
    /// # Errors
    /// [`NetworkerError::Random`].
    pub fn new(mut options: NetworkerOptions) -> Result<Self, NetworkerError> {
        let static_key = match options.static_key.take() {
            Some(static_key) => static_key,
            None => {
                let mut secret = [0; 32];
                random()?.fill_bytes(&mut secret);
                StaticKeyPair::from_secret_key(secret)
            }
        };
        let shared = Arc::new(Shared::new(static_key, options));
        Ok(Self { _guard: Arc::new(Guard(shared.clone())), shared })
    }

    /// Returns our static key, by which peers know us again.
    pub fn public_key(&self) -> PeerKey {
        self.shared.public_key()
    }

    /// Takes a stream that is connected already, accepted or dialled by the application, and serves it in the background, on this runtime. The two ends of a
    /// stream must have different roles: by custom the side that connected is the initiator, and the side that accepted is the responder. The adapters'
    /// `connect` is this, with their runtime and their streams.
    ///
    /// `source` names who the peer is, such as its address, to sum up what it brings: see [`Replicate::source`].
    ///
    /// # Errors
    /// [`NetworkerError::Full`] and [`NetworkerError::Closed`]: the stream is dropped, and other connections go on. A listener can go on after `Full`.
    pub fn connect_on<R: Runtime>(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        role: Role,
        source: Option<String>,
    ) -> Result<ConnectionId, NetworkerError> {
        let id = self.shared.with(|table, now| table.enter(role == Role::Initiator, None, now))?;
        R::spawn(Connection::<R>::open(self.shared.clone(), id, io, role, None, source));
        Ok(id)
    }

    /// Keeps a connection to a peer, in the background, on this runtime: connects by `connector`, as the initiator, retries until that works, and reconnects
    /// when the connection ends. The returned [`Dial`] is needed only to stop that, and may be dropped. The adapters' `dial` is this, with their runtime and
    /// their streams.
    ///
    /// After a failure it waits for 1 s, then twice as long each time, up to 5 minutes ([`BackoffOptions`](crate::BackoffOptions)); each wait is a random
    /// time between half of that and all of it. A connection that served for 8 s, or that ended in sync, resets the wait. While the peer is connected in
    /// another way, nothing is dialled. [`NetworkerEvent::Redial`](crate::NetworkerEvent::Redial) reports each failure and wait.
    ///
    /// # Errors
    /// [`NetworkerError::TooManyDials`], [`NetworkerError::Closed`], [`NetworkerError::Random`].
    pub fn dial_on<R, C, F, T>(&self, connector: C, options: DialOptions) -> Result<Dial, NetworkerError>
    where
        R: Runtime,
        C: Fn() -> F + Send + 'static,
        F: Future<Output = io::Result<T>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let drawn = random()?.next_u64();
        let seed = self.shared.options.seed;
        let max = self.shared.options.limits.dials;
        let id = self.shared.with(|table, now| {
            if table.is_closing() {
                return Err(NetworkerError::Closed);
            }
            if table.dials.len() >= max {
                return Err(NetworkerError::TooManyDials { max });
            }
            Ok(table.dials.add(options.peer, seed.unwrap_or(drawn), now))
        })?;
        R::spawn(dial::run::<R, C, F, T>(self.shared.clone(), id, connector, options));
        Ok(Dial { shared: self.shared.clone(), id })
    }

    /// Syncs a multifeed on every connection, present and future, whose remote has its root key too. The networker keeps a handle to the multifeed until it
    /// [leaves](Self::leave); a multifeed that is closed leaves by itself. The progress of each peer is known from the start, as after
    /// [`Replication::state`](crate::Replication::state).
    ///
    /// If none of the joined multifeeds is [live](Replicate::live), a connection ends when its last session has ended.
    ///
    /// # Errors
    /// [`NetworkerError::Joined`], [`NetworkerError::TooManyRoots`], [`NetworkerError::Closed`].
    pub fn join(&self, multifeed: &Multifeed, options: Replicate) -> Result<(), NetworkerError> {
        let root = multifeed.root_key();
        if self.shared.join(root, multifeed, options) {
            return Ok(());
        }
        let max = self.shared.options.limits.roots;
        Err(self.shared.with(|table, _| {
            if table.is_closing() {
                NetworkerError::Closed
            } else if table.roots().any(|joined| joined == root) {
                NetworkerError::Joined { root }
            } else {
                NetworkerError::TooManyRoots { max }
            }
        }))
    }

    /// Ends the sessions of a root key on all connections, cleanly, and waits until they have ended. The connections stay. Returns `false` if no multifeed
    /// with that root key had joined. Dropping the future does not undo it.
    pub async fn leave(&self, root: &FeedKey) -> bool {
        let left = self.shared.leave(root);
        // One that joined again meanwhile is none of ours.
        let is_gone = |table: &Table| !table.carries(*root) || table.roots().any(|joined| joined == *root);
        poll_fn(|cx| self.shared.poll_until(cx, is_gone)).await;
        left
    }

    /// Returns the root keys that are joined.
    pub fn roots(&self) -> Vec<FeedKey> {
        self.shared.with(|table, _| table.roots().collect())
    }

    /// Returns the connected peers, without those whose handshake is not done and those that wait to be merged.
    pub fn peers(&self) -> Vec<Peer> {
        let streams = self.shared.streams();
        let (views, now) = self.shared.with(|table, now| (table.open().collect::<Vec<_>>(), now));
        let peers = views.into_iter().filter_map(|view| {
            let (_, stream) = streams.iter().find(|(id, _)| *id == view.id)?;
            Some(Peer {
                connection: view.id,
                key: view.peer,
                initiator: view.initiator,
                dial: view.dial,
                up: now.saturating_sub(view.since),
                roots: view.roots,
                totals: stream.totals(),
            })
        });
        peers.collect()
    }

    /// Returns how many connections there are, including those that [`peers`](Self::peers) does not list.
    pub fn connections(&self) -> usize {
        self.shared.with(|table, _| table.connections())
    }

    /// Returns how many bytes its connections hold of [`queued_bytes`](crate::NetworkerLimits::queued_bytes), received and to be sent together.
    pub fn queued_bytes(&self) -> usize {
        let pump = &self.shared.options.pump;
        pump.receive_budget.used() + pump.send_budget.used()
    }

    /// Returns the state of a root key: who is in sync, how much is missing, and at which rate it is transferred. `None` if no multifeed with it is joined.
    pub fn status(&self, root: &FeedKey) -> Option<RootStatus> {
        let views = self.shared.with(|table, _| {
            let is_joined = table.roots().any(|joined| joined == *root);
            is_joined.then(|| table.open().collect::<Vec<_>>())
        })?;
        let peers = views.into_iter().filter_map(|view| {
            let (_, state) = view.roots.iter().find(|(on, _)| on == root)?;
            let sync = self.shared.sync_of(view.id, *root);
            Some(RootPeer { connection: view.id, key: view.peer, state: *state, sync })
        });
        Some(RootStatus { peers: peers.collect() })
    }

    /// Subscribes to what happens from now on.
    pub fn events(&self) -> NetworkerEvents {
        NetworkerEvents(self.shared.subscribe())
    }

    /// Speaks an extension of the application's own with every peer, on the stream itself (JS's `stream.registerExtension`).
    ///
    /// # Errors
    /// The name is multifeed's own, or taken, there are too many, or the networker is closed.
    pub fn register_extension(&self, name: &str) -> Result<NetworkerExtension, ExtensionError> {
        ExtensionError::check(name, &[])?;
        let name = Arc::from(name);
        let inbox = self.shared.register(&name)?;
        Ok(NetworkerExtension { shared: self.shared.clone(), name, inbox })
    }

    /// Ends a connection cleanly. A dial that keeps it connects again.
    pub fn disconnect(&self, connection: ConnectionId) {
        self.shared.with(|table, now| table.end(connection, EndReason::Disconnected, now));
    }

    /// Bans a peer by its static key: its connections end, and others with that key are refused. The bans are in memory only.
    ///
    /// # Errors
    /// [`NetworkerError::TooManyBanned`].
    pub fn ban(&self, peer: PeerKey) -> Result<(), NetworkerError> {
        let max = self.shared.options.limits.banned;
        let banned = self.shared.with(|table, now| table.ban(peer, now));
        if banned { Ok(()) } else { Err(NetworkerError::TooManyBanned { max }) }
    }

    /// Lifts a ban. `false` if there was none.
    pub fn unban(&self, peer: &PeerKey) -> bool {
        self.shared.with(|table, _| table.unban(peer))
    }

    /// Returns the static keys that are banned, ascending.
    pub fn banned(&self) -> Vec<PeerKey> {
        self.shared.with(|table, _| table.banned())
    }

    /// Stops all dials, ends all connections cleanly, and waits until all of that is over: no task, stream or session is left. It cannot fail. The multifeeds
    /// stay open: close them afterwards. It takes as long as an ending stream may at most ([`PumpOptions::linger`](crate::PumpOptions::linger) and
    /// [`farewell`](crate::PumpOptions::farewell)).
    pub async fn close(&self) {
        self.shared.close();
        poll_fn(|cx| self.shared.poll_until(cx, |table| table.is_closed())).await;
    }

    /// Returns whether the networker is closed, or is being closed.
    pub fn is_closed(&self) -> bool {
        self.shared.with(|table, _| table.is_closing())
    }
}

impl fmt::Debug for Networker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Networker")
            .field("roots", &self.roots().len())
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The system's randomness.
fn random() -> Result<StdRng, NetworkerError> {
    StdRng::try_from_rng(&mut SysRng).map_err(|error| NetworkerError::Random(error.to_string()))
}
