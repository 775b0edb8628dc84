//! The secret of a corestore, and the key pairs that are derived from it.

use core::fmt;

use blake2b_simd::Params;
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::KeyPair;

/// What a seed is derived for: derive-key's namespace, and its separator.
const CONTEXT: &[u8] = b"9\ncorestore";

/// The secret of a corestore: anyone who has it has the secret keys of all its named cores.
///
/// It is wiped from memory when dropped, and prints nothing.
#[derive(Clone)]
pub struct MasterKey(Zeroizing<[u8; 32]>);

impl MasterKey {
    /// Bytes in the file `master_key`.
    pub const BYTES: usize = 32;

    /// Returns the master key of these 32 bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Makes a new master key from this randomness.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *bytes);
        Self(bytes)
    }

    /// Returns the 32 bytes, as they are in `master_key`.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Derives the key pair of a named core.
    ///
    /// The seed is BLAKE2b-256, keyed with the master key, over `9`, a newline, `corestore` and the name (derive-key 1, as corestore 5 calls it).
    /// A name is bytes; JS encodes text as UTF-8. Namespaces are not mixed in.
    pub fn key_pair(&self, name: &[u8]) -> KeyPair {
        let mut state = Params::new().hash_length(32).key(&*self.0).to_state();
        let hash = state.update(CONTEXT).update(name).finalize();
        let mut seed = Zeroizing::new([0; 32]);
        seed.copy_from_slice(hash.as_bytes());
        KeyPair::from_seed(&seed)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}
