//! `key` and `secret_key` of a folder: whose feed it is, also if one of them rotted, and who signs it.
//!
//! The secret key is a seed and the public key that is made of it, and `key` is that once more. What two of the three say is written again over the third;
//! if that is another whole key, the journal has to know the feed by the secret key's. A seed that rotted is gone: the feed is read then, and not written.
//! The `key` of a feed that was fetched is written again if one byte of it is wrong and the journal knows the right one.

use multifeed_proto::FeedKey;
use zeroize::Zeroizing;

use super::Opening;
use super::files::{Files, WRITTEN_AGAIN};
use crate::cores::journal::{Checkpoint, Journal};
use crate::error::StoreError;
use crate::keys::key_pair::KeyPair;
use crate::keys::signer::WriterKey;
use crate::storage::{FileKind, Storage};

/// What is said of a secret key that is none of the feed.
const UNUSABLE: &str = "the feed can be read, and nothing can be appended to it before the file is put back";

impl<S: Storage + ?Sized> Files<'_, S> {
    /// What signs for a writer, whose public key is then in `key`. `None` if that is nowhere. What was written again is added to `opening`.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] with [`FileKind::SecretKey`] if that is not the one of `key`; [`StoreError::NoSigner`]; else the storage's error.
    pub(super) fn writer_key(
        &mut self,
        journal: &Journal,
        opening: &mut Opening,
    ) -> Result<Option<WriterKey>, StoreError> {
        let slot = self.slot;
        let unusable = |why: &str| StoreError::damaged(slot, FileKind::SecretKey, format!("{why}: {UNUSABLE}"));
        let secret = match self.len(FileKind::SecretKey)? {
            Some(len) if len != 64 => return Err(unusable(&format!("it has {len} bytes where 64 belong"))),
            _ => self.read_exactly::<64>(FileKind::SecretKey)?.map(Zeroizing::new),
        };
        let Some(secret) = secret else { return self.signer(journal, opening) };
        let there = match self.len(FileKind::Key)?.unwrap_or(0) {
            // A crash in the middle of a creation, or a lost file: the secret key tells it.
            0 => None,
            _ => Some(self.key()?),
        };
        let known = journal.knows_secret(slot, &secret);
        let pair = match if known { None } else { Some(KeyPair::from_secret_key(&secret)) } {
            None => KeyPair::from_known(secret),
            Some(Ok(pair)) => pair,
            Some(Err(_)) => {
                let seed = secret.first_chunk().map(KeyPair::from_seed);
                let Some(pair) = seed.filter(|pair| there.flatten() == Some(pair.public_key())) else {
                    return Err(unusable("its two halves do not belong together"));
                };
                self.replace(FileKind::SecretKey, &*pair.secret_key())?;
                let why = format!("its public half was not that of its seed, which is that of `key`; {WRITTEN_AGAIN}");
                opening.unread.push(StoreError::damaged(slot, FileKind::SecretKey, why));
                pair
            }
        };
        match there {
            None => {
                self.replace(FileKind::Key, pair.public_key().as_bytes())?;
                // A creation that was cut short has no blocks yet.
                if self.len(FileKind::Data)?.unwrap_or(0) > 0 {
                    let why = format!("it was missing or empty, and `secret_key` tells it; {WRITTEN_AGAIN}");
                    opening.unread.push(StoreError::damaged(slot, FileKind::Key, why));
                }
            }
            Some(there) if there == Some(pair.public_key()) => {}
            // What is no key is nobody's.
            Some(there) if there.is_none() || journal.mark(slot, &pair.public_key()).is_some() => {
                self.replace(FileKind::Key, pair.public_key().as_bytes())?;
                let why = format!("it was not the key of `secret_key`, which is the feed's; {WRITTEN_AGAIN}");
                opening.unread.push(StoreError::damaged(slot, FileKind::Key, why));
            }
            Some(_) => return Err(unusable("it is not that of `key`")),
        }
        Ok(Some(WriterKey::Here(pair)))
    }

    /// The signer of a feed without a secret key, if it was given.
    fn signer(&mut self, journal: &Journal, opening: &mut Opening) -> Result<Option<WriterKey>, StoreError> {
        let slot = self.slot;
        let is_whole = |len: Option<u64>| len == Some(32);
        // Of ten thousand feeds that were fetched nothing is read for this.
        let may_be = !opening.signers.is_empty() || journal.is_signed_elsewhere(slot);
        if !may_be || !is_whole(self.len(FileKind::Key)?) {
            return Ok(None);
        }
        let key = self.readers_key(journal, opening)?;
        match opening.signers.find(&key) {
            None if journal.mark(slot, &key).is_some_and(Checkpoint::is_signed_elsewhere) => {
                Err(StoreError::NoSigner { slot, key })
            }
            signer => Ok(signer),
        }
    }

    /// The key of a feed that was fetched. If one byte of it is another one than the journal knows, the right one is written again, and what was wrong
    /// is added to `opening`.
    pub(super) fn readers_key(&mut self, journal: &Journal, opening: &mut Opening) -> Result<FeedKey, StoreError> {
        let key = self.read_exactly(FileKind::Key)?.map(FeedKey::new);
        let key = key.ok_or_else(|| StoreError::damaged(self.slot, FileKind::Key, "it is missing"))?;
        let Some(known) = journal.mark_of_another(self.slot, &key) else { return Ok(key) };
        for at in 0..32 {
            for change in 1..=u8::MAX {
                let mut bytes = *key.as_bytes();
                bytes[at] ^= change;
                let other = FeedKey::new(bytes);
                if known.is_of(&other) {
                    self.replace(FileKind::Key, &bytes)?;
                    let why = format!(
                        "a byte of it was another one than in the key that the journal knows, {other}; {WRITTEN_AGAIN}"
                    );
                    opening.unread.push(StoreError::damaged(self.slot, FileKind::Key, why));
                    return Ok(other);
                }
            }
        }
        Ok(key)
    }

    /// What is in `key`, if that is as long as a key.
    fn key(&mut self) -> Result<Option<FeedKey>, StoreError> {
        match self.read_exactly(FileKind::Key) {
            Err(StoreError::Damaged { .. }) => Ok(None),
            key => Ok(key?.map(FeedKey::new)),
        }
    }
}
