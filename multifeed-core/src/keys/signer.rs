//! Who signs a feed that is written here: a key pair in the store, or a signer of the application's.

use core::fmt;
use std::error::Error;
use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use multifeed_proto::FeedKey;

use crate::error::StoreError;
use crate::keys::key_pair::KeyPair;
use crate::keys::signatures;
use crate::storage::Slot;

/// Signs for a feed whose secret key the application keeps: in the system's keychain, an HSM, or the enclave of a phone.
///
/// Nothing secret is in the feed's folder then. It has no `secret_key`, like that of a feed that was fetched, and JS opens it to be read.
///
/// A batch is signed once. What opening a store after a crash has to sign again it signed before: the same message. Signatures are Ed25519
/// (RFC 8032, "pure": no hash of the message, no context). Each is checked before anything is written.
///
/// # While it signs
///
/// [`sign`](Self::sign) is called where the feeds are: with a driver, on the store's thread. All feeds of the store, and their sessions, wait for it, and
/// for nothing else that an append does not cost anyway. So it should take milliseconds. What takes longer returns an error at once, such as a
/// question to a person: the append fails, nothing is written, and the application appends again when the answer is there. Many small blocks are one
/// signature if they are one batch.
pub trait Signer: Send + Sync {
    /// Returns the public key: the feed's. It is asked for once, and needs no secret.
    fn public_key(&self) -> FeedKey;

    /// Returns the signature of a message, 64 bytes. The message has 40 bytes: the root hash of the feed's tree, and its length in blocks (big-endian).
    ///
    /// # Errors
    /// Whatever keeps it from signing now. It is the source of [`StoreError::Signer`], and the feed stays as it was.
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], Box<dyn Error + Send + Sync>>;
}

impl<T: Signer + ?Sized> Signer for Box<T> {
    fn public_key(&self) -> FeedKey {
        (**self).public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], Box<dyn Error + Send + Sync>> {
        (**self).sign(message)
    }
}

impl<T: Signer + ?Sized> Signer for Arc<T> {
    fn public_key(&self) -> FeedKey {
        (**self).public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], Box<dyn Error + Send + Sync>> {
        (**self).sign(message)
    }
}

/// The signers that a store has, by their public keys. It prints those alone.
#[derive(Clone, Default)]
pub struct Signers(Vec<Signed>);

impl Signers {
    /// Adds a signer, in the place of one of the same public key.
    pub fn add(&mut self, signer: impl Signer + 'static) {
        let signed = Signed { key: signer.public_key(), signer: Arc::new(signer) };
        self.0.retain(|other| other.key != signed.key);
        self.0.push(signed);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn find(&self, key: &FeedKey) -> Option<WriterKey> {
        self.0.iter().find(|signed| signed.key == *key).cloned().map(WriterKey::Elsewhere)
    }
}

impl fmt::Debug for Signers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|signed| signed.key)).finish()
    }
}

/// A signer, and the public key that it gave.
#[derive(Clone)]
pub(crate) struct Signed {
    key: FeedKey,
    signer: Arc<dyn Signer>,
}

/// By what a feed that is written here is signed.
#[derive(Clone)]
pub(crate) enum WriterKey {
    /// By a key pair that is in the store.
    Here(KeyPair),
    /// By the application.
    Elsewhere(Signed),
}

impl WriterKey {
    pub(crate) fn public_key(&self) -> FeedKey {
        match self {
            Self::Here(pair) => pair.public_key(),
            Self::Elsewhere(signed) => signed.key,
        }
    }

    pub(crate) fn key_pair(&self) -> Option<&KeyPair> {
        match self {
            Self::Here(pair) => Some(pair),
            Self::Elsewhere(_) => None,
        }
    }

    /// Drops what the next signature makes again.
    pub(crate) fn rest(&mut self) {
        if let Self::Here(pair) = self {
            pair.rest();
        }
    }

    /// The signature of a message, for the feed in a folder. One of a signer's is checked.
    pub(crate) fn sign(&self, slot: Slot, message: &[u8]) -> Result<[u8; 64], StoreError> {
        let Signed { key, signer } = match self {
            Self::Here(pair) => return Ok(pair.sign(message)),
            Self::Elsewhere(signed) => signed,
        };
        let failed =
            |source: Box<dyn Error + Send + Sync>| StoreError::Signer { slot, key: *key, source: source.into() };
        let signature = signer.sign(message).map_err(failed)?;
        let verifying = VerifyingKey::from_bytes(key.as_bytes()).ok();
        match verifying.is_some_and(|verifying| signatures::is_valid(&verifying, message, &signature)) {
            true => Ok(signature),
            false => Err(failed("its signature is not valid under that key".into())),
        }
    }
}

impl fmt::Debug for WriterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(pair) => pair.fmt(f),
            Self::Elsewhere(signed) => f.debug_tuple("Signer").field(&signed.key).finish(),
        }
    }
}
