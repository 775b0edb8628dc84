//! Keys, and what else must not be guessed, from the system's randomness.

use multifeed_core::{KeyPair, MasterKey};
use multifeed_proto::FeedKey;
use rand::rngs::{StdRng, SysRng};
use rand::{Rng, SeedableRng};

use crate::error::Error;

/// Makes a new key pair, from the system's randomness: for a writer whose key must be known before, or kept elsewhere.
///
/// # Errors
/// [`Error::Random`].
pub fn generate_key_pair() -> Result<KeyPair, Error> {
    Ok(KeyPair::generate(&mut system_rng()?))
}

/// Makes a new root key, from the system's randomness. Everyone who is to sync with the multifeed needs it; anyone who has it can read every feed and
/// add feeds, so share it as a password.
///
/// # Errors
/// [`Error::Random`].
pub fn generate_root_key() -> Result<FeedKey, Error> {
    let mut bytes = [0; 32];
    system_rng()?.fill_bytes(&mut bytes);
    Ok(FeedKey::new(bytes))
}

/// A new master key, for a corestore that has none.
pub(crate) fn generate_master_key() -> Result<MasterKey, Error> {
    Ok(MasterKey::generate(&mut system_rng()?))
}

/// A generator that the system seeded.
pub(crate) fn system_rng() -> Result<StdRng, Error> {
    StdRng::try_from_rng(&mut SysRng).map_err(|error| Error::Random(error.to_string()))
}
