//! Checking signatures; and, for simulators, each of them once only.

use ed25519_dalek::{Signature, VerifyingKey};

/// Whether this is the key's signature of the message.
pub(crate) fn is_valid(key: &VerifyingKey, message: &[u8], signature: &[u8; 64]) -> bool {
    #[cfg(feature = "fuzzing")]
    if is_remembered(key, message, signature) {
        return true;
    }
    let valid = key.verify_strict(message, &Signature::from_bytes(signature)).is_ok();
    #[cfg(feature = "fuzzing")]
    if valid {
        remember(*key, message, signature);
    }
    valid
}

#[cfg(feature = "fuzzing")]
pub use memory::Remembered;
#[cfg(feature = "fuzzing")]
use memory::is_remembered;
#[cfg(feature = "fuzzing")]
pub(crate) use memory::remember;

/// What is valid stays valid: a simulator of many stores on one thread asks for the same signature over and over, and would
/// spend most of its time there.
#[cfg(feature = "fuzzing")]
mod memory {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use ed25519_dalek::VerifyingKey;

    /// Signatures remembered at most, before all are forgotten.
    const MOST: usize = 1 << 16;

    thread_local! {
        static VALID: RefCell<Option<BTreeSet<[u8; 32]>>> = const { RefCell::new(None) };
    }

    /// While one lives, a signature that was made or found valid on this thread is not checked again: key, message and
    /// signature have to be the same. All others are.
    #[derive(Debug)]
    pub struct Remembered(());

    impl Remembered {
        /// Remembers from now on.
        pub fn begin() -> Self {
            VALID.with_borrow_mut(|valid| *valid = Some(BTreeSet::new()));
            Self(())
        }
    }

    impl Drop for Remembered {
        fn drop(&mut self) {
            VALID.with_borrow_mut(|valid| *valid = None);
        }
    }

    pub(crate) fn is_remembered(key: &VerifyingKey, message: &[u8], signature: &[u8; 64]) -> bool {
        VALID.with_borrow(|valid| valid.as_ref().is_some_and(|valid| valid.contains(&name(key, message, signature))))
    }

    pub(crate) fn remember(key: VerifyingKey, message: &[u8], signature: &[u8; 64]) {
        VALID.with_borrow_mut(|valid| {
            if let Some(valid) = valid {
                if valid.len() >= MOST {
                    valid.clear();
                }
                valid.insert(name(&key, message, signature));
            }
        });
    }

    fn name(key: &VerifyingKey, message: &[u8], signature: &[u8; 64]) -> [u8; 32] {
        let mut state = blake2b_simd::Params::new().hash_length(32).to_state();
        state.update(key.as_bytes()).update(signature).update(message);
        let mut name = [0; 32];
        name.copy_from_slice(state.finalize().as_bytes());
        name
    }
}
