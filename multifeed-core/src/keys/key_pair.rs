//! The ed25519 key pair of a writable feed.

use core::fmt;
use std::sync::OnceLock;

use ed25519_dalek::{Signer, SigningKey};
use multifeed_proto::FeedKey;
use rand_core::CryptoRng;
use thiserror::Error;
use zeroize::Zeroizing;

#[cfg(feature = "fuzzing")]
use crate::keys::signatures;

/// An ed25519 key pair: the public half is the feed's key, the secret one signs its length.
///
/// It is wiped from memory when dropped, and prints without its secret.
#[derive(Clone)]
pub struct KeyPair {
    /// In JS's layout: the seed, then the public key.
    secret: Zeroizing<[u8; 64]>,
    /// Made when something is signed first: of the key pairs of ten thousand feeds few are used.
    signing: OnceLock<Box<SigningKey>>,
}

impl KeyPair {
    /// Returns a new key pair from this randomness.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *seed);
        Self::from_seed(&seed)
    }

    /// Returns the key pair of a 32-byte seed, as libsodium's `crypto_sign_seed_keypair` makes it.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self::from_signing(SigningKey::from_bytes(seed))
    }

    /// Returns the key pair of a JS secret key: the seed, then the public key.
    ///
    /// # Errors
    /// [`KeyPairError`] if the public half is not that of the seed.
    pub fn from_secret_key(secret: &[u8; 64]) -> Result<Self, KeyPairError> {
        let (seed, public) = halves(secret);
        let pair = Self::from_seed(&seed);
        if pair.public_key().as_bytes() == public { Ok(pair) } else { Err(KeyPairError) }
    }

    /// As [`from_secret_key`](Self::from_secret_key), of one that passed it before.
    pub(crate) fn from_known(secret: Zeroizing<[u8; 64]>) -> Self {
        Self { secret, signing: OnceLock::new() }
    }

    /// Drops what the next signature makes again.
    pub(crate) fn rest(&mut self) {
        self.signing = OnceLock::new();
    }

    fn from_signing(signing: SigningKey) -> Self {
        Self { secret: Zeroizing::new(signing.to_keypair_bytes()), signing: OnceLock::from(Box::new(signing)) }
    }

    /// Returns the public key: the feed's name.
    pub fn public_key(&self) -> FeedKey {
        FeedKey::new(*halves(&self.secret).1)
    }

    /// Returns the secret key in JS's layout: the seed, then the public key.
    pub fn secret_key(&self) -> Zeroizing<[u8; 64]> {
        self.secret.clone()
    }

    /// Returns the signature of a message, 64 bytes.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signing = self.signing.get_or_init(|| Box::new(SigningKey::from_bytes(&halves(&self.secret).0)));
        let signature = signing.sign(message).to_bytes();
        #[cfg(feature = "fuzzing")]
        signatures::remember(signing.verifying_key(), message, &signature);
        signature
    }
}

/// The seed and the public key of a secret key.
fn halves(secret: &[u8; 64]) -> (Zeroizing<[u8; 32]>, &[u8; 32]) {
    let mut seed = Zeroizing::new([0; 32]);
    let mut public = &[0; 32];
    if let (Some(first), Some(last)) = (secret.first_chunk(), secret.last_chunk()) {
        *seed = *first;
        public = last;
    }
    (seed, public)
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("public_key", &self.public_key()).finish_non_exhaustive()
    }
}

/// The two halves of a secret key do not belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the public half of the secret key is not that of its seed")]
pub struct KeyPairError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_libsodiums_key_pair() {
        // RFC 8032, test 1.
        let seed: [u8; 32] = hex::decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
            .unwrap()
            .try_into()
            .unwrap();
        let pair = KeyPair::from_seed(&seed);
        assert_eq!(pair.public_key().to_string(), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let secret = pair.secret_key();
        assert_eq!(secret[..32], seed);
        assert_eq!(KeyPair::from_secret_key(&secret).unwrap().public_key(), pair.public_key());
    }

    #[test]
    fn halves_that_do_not_match_are_refused() {
        let mut secret = *KeyPair::from_seed(&[7; 32]).secret_key();
        secret[63] ^= 1;
        assert!(KeyPair::from_secret_key(&secret).is_err());
    }

    #[test]
    fn one_that_rested_or_was_known_signs_as_before() {
        let mut pair = KeyPair::from_seed(&[7; 32]);
        let signature = pair.sign(b"block");
        pair.rest();
        assert_eq!(pair.sign(b"block"), signature);
        assert_eq!(KeyPair::from_known(pair.secret_key()).sign(b"block"), signature);
    }

    #[test]
    fn the_secret_is_not_printed() {
        let pair = KeyPair::from_seed(&[0xab; 32]);
        assert!(!format!("{pair:?}").contains("abab"));
        assert!(!format!("{pair:?}").contains("171"));
    }
}
