//! Calls that a caller must not make.

use alloc::string::String;

use super::{Fault, Phase};
use crate::ids::{Root, Token};
use crate::key::DiscoveryKey;

/// A call that does not fit those before it: a mistake of the caller's, never of the remote's. The call did nothing, and the session goes on.
///
/// What a race explains is no mistake. After the session's end, and for a channel or a multifeed that has just ended, calls do nothing and
/// return `Ok`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApiMisuse {
    /// [`open_root`](crate::Session::open_root) with a name that was used before.
    #[error("the name {} was given to a root key before: each needs a new one", .0.0)]
    RootInUse(Root),
    /// [`open_root`](crate::Session::open_root) with a root key that is open on the stream.
    #[error("the root key of the discovery key {0} is open on this stream already")]
    RootKeyInUse(DiscoveryKey),
    /// A multifeed is named that was never opened on the stream.
    #[error("no root key was opened under the name {}", .0.0)]
    UnknownRoot(Root),
    /// [`open_channel`](crate::Session::open_channel) with the token of a channel that is open.
    #[error("the token {} is that of an open channel: close that, or use another", .0.0)]
    TokenInUse(Token),
    /// An extension has a name that multifeed uses itself.
    #[error("the extension's name {0} is multifeed's own")]
    ReservedExtension(String),
    /// [`register_extension`](crate::Session::register_extension) of a name that is registered in that place.
    #[error("the extension {0} is registered there already")]
    ExtensionTaken(String),
    /// The name does not fit into what peers take of extensions' names: see [`Limits::extensions`](crate::Limits::extensions).
    #[error("there is no room for the extension {0}: peers take no more names in one place")]
    NoRoomForExtension(String),
    /// [`send_extension`](crate::Session::send_extension) of a name that is not registered in that place.
    #[error("the extension {0} is not registered there")]
    UnknownExtension(String),
    /// The call does not fit the session's phase.
    #[error("{call} in the phase {phase:?}: no key of the remote's waits to be judged")]
    WrongPhase {
        /// The name of the method.
        call: &'static str,
        /// The phase.
        phase: Phase,
    },
}

impl ApiMisuse {
    /// Returns whose fault it is: [`Fault::Caller`].
    pub fn fault(&self) -> Fault {
        Fault::Caller
    }

    /// Returns a stable name for programs.
    pub fn code(&self) -> &'static str {
        "ERR_API_MISUSE"
    }
}
