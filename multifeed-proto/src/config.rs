//! What a session is told at its start.

use alloc::string::String;
use core::fmt;
use core::time::Duration;

use zeroize::Zeroize;

use crate::crypto::noise;
use crate::json::Json;
use crate::key::{DEFAULT_ROOT_KEY, FeedKey};
use crate::limits::Limits;

/// Which side of the Noise handshake we are. The two ends of a stream must have different ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Speaks first: by custom the side that connected.
    Initiator,
    /// Answers: by custom the side that accepted.
    Responder,
}

/// What a session is told at its start.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The key that both sides must know; the first channel is its.
    pub root_key: FeedKey,
    /// Told to the remote in our handshake as `userData`.
    pub user_data: Option<Json>,
    /// Our client name, which must equal the remote's: `MULTIFEED` in JS.
    pub client: String,
    /// Our multifeed protocol version, whose major number must equal the remote's: `4.0.0` in multifeed 6.
    pub version: String,
    /// Our X25519 key pair for Noise; one is drawn for this session where there is none.
    pub static_key: Option<StaticKeyPair>,
    /// Whether we say in our handshake that we stay after everything is synced. The session itself does not act on it.
    pub live: bool,
    /// How long the remote may send nothing at all. JS: 20 s.
    pub idle_timeout: Option<Duration>,
    /// After how long without sending a keep-alive goes out. JS: half of the timeout, 10 s.
    pub keep_alive: Option<Duration>,
    /// How long it may take until [`Event::Ready`](crate::Event::Ready). JS has none; ours is 20 s.
    pub handshake_timeout: Option<Duration>,
    /// The session's bounds.
    pub limits: Limits,
}

/// A static X25519 key pair, by which Noise authenticates a side. Zeroized when dropped, redacted when printed.
#[derive(Clone)]
pub struct StaticKeyPair {
    secret: [u8; 32],
    public: [u8; 32],
}

impl Config {
    /// The defaults of JS, with this root key.
    pub fn new(root_key: FeedKey) -> Self {
        Self {
            root_key,
            user_data: None,
            client: String::from("MULTIFEED"),
            version: String::from("4.0.0"),
            static_key: None,
            live: false,
            idle_timeout: Some(Duration::from_secs(20)),
            keep_alive: Some(Duration::from_secs(10)),
            handshake_timeout: Some(Duration::from_secs(20)),
            limits: Limits::default(),
        }
    }
}

impl Default for Config {
    /// [`Config::new`] with [`DEFAULT_ROOT_KEY`].
    fn default() -> Self {
        Self::new(DEFAULT_ROOT_KEY)
    }
}

impl StaticKeyPair {
    /// The pair that belongs to a secret key (any 32 bytes; they are clamped as X25519 asks when used).
    pub fn from_secret_key(secret: [u8; 32]) -> Self {
        let public = noise::public_key(&secret);
        Self { secret, public }
    }

    /// The public half, which the remote sees as its [`Event::Connected`](crate::Event::Connected)'s `remote_public_key`.
    pub fn public_key(&self) -> &[u8; 32] {
        &self.public
    }

    pub(crate) fn secret_key(&self) -> &[u8; 32] {
        &self.secret
    }
}

impl fmt::Debug for StaticKeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticKeyPair").field("public", &hex::encode(self.public)).finish_non_exhaustive()
    }
}

impl Drop for StaticKeyPair {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}
