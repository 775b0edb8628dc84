//! XSalsa20, one keystream for each direction of a stream, over everything after the Noise handshake, framing included.
//! There is no MAC: what is not signed otherwise can have been changed on its way.

use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit, StreamCipher};

/// A direction's keystream. It goes on where it stopped, at any chunking.
pub struct Keystream(XSalsa20);

impl Keystream {
    /// The keystream of a direction: its half of Noise's split, and the sender's nonce.
    pub fn new(key: &[u8; 32], nonce: &[u8; 24]) -> Self {
        Self(XSalsa20::new(key.into(), nonce.into()))
    }

    /// Encrypts or decrypts the next bytes in place.
    pub fn apply(&mut self, bytes: &mut [u8]) {
        // The keystream ends after 2^70 bytes, which no stream reaches.
        let _ = self.0.try_apply_keystream(bytes);
    }
}

impl core::fmt::Debug for Keystream {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Keystream")
    }
}
