//! Who a side is in the Noise handshake.

use core::fmt;

use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use zeroize::Zeroize;

use crate::key::PeerKey;

/// Which side of the Noise handshake we are. The two ends of a stream must have different ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Speaks first: by custom the side that connected.
    Initiator,
    /// Answers: by custom the side that accepted.
    Responder,
}

/// A static X25519 key pair, by which Noise authenticates a side. Zeroized when dropped, redacted when printed.
#[derive(Clone)]
pub struct StaticKeyPair {
    secret: [u8; 32],
    public: PeerKey,
}

impl StaticKeyPair {
    /// Returns the pair that belongs to a secret key (any 32 bytes; they are clamped as X25519 asks when used).
    pub fn from_secret_key(secret: [u8; 32]) -> Self {
        let public = PeerKey::new(public_key(&secret));
        Self { secret, public }
    }

    /// Returns the public half, which the remote sees as its [`Event::Connected`](crate::Event::Connected)'s `remote_public_key`.
    pub fn public_key(&self) -> &PeerKey {
        &self.public
    }

    pub(crate) fn secret_key(&self) -> &[u8; 32] {
        &self.secret
    }
}

impl fmt::Debug for StaticKeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticKeyPair").field("public", &self.public).finish_non_exhaustive()
    }
}

impl Drop for StaticKeyPair {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// The public key of an X25519 secret key.
fn public_key(secret: &[u8; 32]) -> [u8; 32] {
    let mut public = [0; 32];
    if let Some(mut dh) = DefaultResolver.resolve_dh(&DHChoice::Curve25519) {
        dh.set(secret);
        public.copy_from_slice(dh.pubkey());
    }
    public
}
