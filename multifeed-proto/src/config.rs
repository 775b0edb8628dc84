//! The configuration of a session.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::identity::StaticKeyPair;
use crate::json::Json;
use crate::key::{DEFAULT_ROOT_KEY, FeedKey};
use crate::limits::Limits;

/// What the caller sets for a session at its start.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The multifeed to sync, named [`Root::FIRST`](crate::Root::FIRST). With one and no other the remote must know its key, or the
    /// session ends. `None` for a stream that others use as well: multifeeds join it by
    /// [`open_root`](crate::Session::open_root), and it is nobody's fault when the remote opens other channels first.
    pub root: Option<RootConfig>,
    /// Whether the session stops once it knows the remote's static key, after the Noise handshake and before anything else is
    /// read or said, until [`accept`](crate::Session::accept) or [`refuse`](crate::Session::refuse) is called.
    pub authenticate: bool,
    /// Whether [`Event::Discovered`](crate::Event::Discovered) tells of channels that the remote opens and we have not.
    pub discover: bool,
    /// Names of [extensions](crate::Session::register_extension) that are spoken on the stream from the start. The remote hears of
    /// them no later than of multifeed's own, and [`RemoteHandshake::extensions`](crate::RemoteHandshake) tells which of them it
    /// speaks as well. Those that `register_extension` would not take are left out.
    pub extensions: Vec<String>,
    /// Our X25519 key pair for Noise; one is drawn for this session if there is none.
    pub static_key: Option<StaticKeyPair>,
    /// How long the remote may send nothing at all. JS: 20 s.
    pub idle_timeout: Option<Duration>,
    /// After how long without sending a keep-alive goes out. JS: half of the timeout, 10 s.
    pub keep_alive: Option<Duration>,
    /// How long a session that is up may exchange nothing but keep-alives, before it ends with
    /// [`SessionError::Stalled`](crate::SessionError::Stalled). The wire has no checksum: a bit that was flipped on its way can swallow
    /// messages without an error. Then each side waits for the other for as long as the stream stays. Time in which events or output of
    /// ours wait does not count. By default none, as in JS: a side that stays for what is new may have nothing to say for days.
    pub stall_timeout: Option<Duration>,
    /// How long the Noise handshake may take, and each root key until its [`Event::Ready`](crate::Event::Ready), counted from the
    /// session's start or from when it was opened later. JS multifeed has none, corestore-multifeed 10 s; ours is 20 s.
    pub handshake_timeout: Option<Duration>,
    /// How long our multifeed handshake is held for a remote that has proved that it knows the root key, until its own is there
    /// or its Options show that it need not be. A JS peer that gets ours together with our Open, and does not agree with it, drops
    /// the stream before its own leaves, so that we could not say why. Default 1 s, which only a remote takes that says nothing.
    pub greeting_hold: Duration,
    /// The session's bounds.
    pub limits: Limits,
}

/// A multifeed on a stream: the key that both sides must know, and what our handshake says. Printed without the key: anyone who has it can sync.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RootConfig {
    /// The root key.
    pub key: FeedKey,
    /// Sent to the remote in our handshake as `userData`.
    pub user_data: Option<Json>,
    /// Our client name, which must equal the remote's: `MULTIFEED` in JS.
    pub client: String,
    /// Our multifeed protocol version, whose major number must equal the remote's: `4.0.0` in multifeed 6.
    pub version: String,
    /// Whether we say in our handshake that we stay after everything is synced. The session itself does not act on it.
    pub live: bool,
    /// The extensions of ours on the root key's own channel, beside multifeed's four ([`Scope::Root`](crate::Scope::Root)). They are announced
    /// there before our handshake, and only to a remote that speaks multifeed there, as corestore-multifeed does. More than
    /// [`Limits::extensions`] are left out.
    pub extensions: Vec<String>,
}

impl Config {
    /// Returns the defaults of JS, with this root key.
    pub fn new(root_key: FeedKey) -> Self {
        Self { root: Some(RootConfig::new(root_key)), discover: false, ..Self::plain() }
    }

    /// Returns the defaults of JS, without a root key: a plain stream of hypercore-protocol.
    pub fn plain() -> Self {
        Self {
            root: None,
            authenticate: false,
            discover: true,
            extensions: Vec::new(),
            static_key: None,
            idle_timeout: Some(Duration::from_secs(20)),
            keep_alive: Some(Duration::from_secs(10)),
            stall_timeout: None,
            handshake_timeout: Some(Duration::from_secs(20)),
            greeting_hold: Duration::from_secs(1),
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

impl RootConfig {
    /// Returns what JS multifeed 6 says, with this root key.
    pub fn new(key: FeedKey) -> Self {
        Self {
            key,
            user_data: None,
            client: String::from("MULTIFEED"),
            version: String::from("4.0.0"),
            live: false,
            extensions: Vec::new(),
        }
    }
}

impl fmt::Debug for RootConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key: _, user_data, client, version, live, extensions } = self;
        f.debug_struct("RootConfig")
            .field("user_data", user_data)
            .field("client", client)
            .field("version", version)
            .field("live", live)
            .field("extensions", extensions)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn what_is_printed_of_a_config_holds_no_secret() {
        let mut config = Config::new(FeedKey::new([0x5a; 32]));
        config.static_key = Some(StaticKeyPair::from_secret_key([0xa5; 32]));
        for printed in [format!("{config:?}"), format!("{config:#?}"), format!("{:?}", config.root)] {
            let printed = printed.to_lowercase();
            for secret in ["5a5a5a5a", "a5a5a5a5", "90, 90, 90", "165, 165, 165"] {
                assert!(!printed.contains(secret), "{printed}");
            }
        }
    }
}
