//! Capabilities: how each side of a channel proves that it knows the feed's key, without telling it to one that does not
//! (hypercore-crypto's `capability` and `remoteCapability`).

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::crypto::blake2b_256;
use crate::key::FeedKey;

/// The two halves of Noise's split, as this side uses them.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Split {
    /// What we encrypt with.
    pub tx: [u8; 32],
    /// What the remote encrypts with.
    pub rx: [u8; 32],
}

impl Split {
    /// Returns the capability that our Open of this feed's channel carries.
    pub fn capability(&self, key: &FeedKey) -> [u8; 32] {
        capability(&self.rx, &self.tx, key)
    }

    /// Returns whether this is the capability that the remote's Open of this feed's channel must carry.
    pub fn verify(&self, key: &FeedKey, capability_of_remote: Option<&[u8]>) -> bool {
        let expected = capability(&self.tx, &self.rx, key);
        capability_of_remote.is_some_and(|capability| bool::from(expected[..].ct_eq(capability)))
    }
}

fn capability(rx: &[u8; 32], tx: &[u8; 32], key: &FeedKey) -> [u8; 32] {
    blake2b_256(rx, &[b"hypercore capability", tx, key.as_bytes()])
}

impl core::fmt::Debug for Split {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Split")
    }
}
