//! Made-up blocks and digests over a feed's blocks, the same here as in `interop/lib.js`.

/// Makes the block of `seed` for `index`, of `size` bytes. They are the little-endian words of a 32-bit xorshift
/// (13, 17, 5) that starts at `seed * 0x9e3779b1 + index * 0x85ebca77 + 1` modulo 2^32, or at 1 if that is 0.
///
/// Blocks of four bytes and more differ for every index of one seed.
pub fn block(seed: u32, index: u32, size: usize) -> Vec<u8> {
    let start = seed.wrapping_mul(0x9e37_79b1).wrapping_add(index.wrapping_mul(0x85eb_ca77)).wrapping_add(1);
    let mut state = start.max(1);
    let mut block = Vec::with_capacity(size.next_multiple_of(4));
    while block.len() < size {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        block.extend_from_slice(&state.to_le_bytes());
    }
    block.truncate(size);
    block
}

/// The blocks that JS makes for `{"count", "size", "seed"}`: those of `seed` with the indexes 0 to `count` - 1.
pub fn blocks(count: u32, size: usize, seed: u32) -> Vec<Vec<u8>> {
    (0..count).map(|index| block(seed, index, size)).collect()
}

/// The digest that JS peers print as a feed's `hash`: BLAKE2b-512 over every block that is held, in ascending order:
/// its index and its length, each as 8 bytes little-endian, then its bytes.
#[derive(Clone, Debug, Default)]
pub struct FeedDigest(blake2b_simd::State);

impl FeedDigest {
    /// The digest of a feed of which nothing is held.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next block that is held.
    pub fn update(&mut self, index: u64, value: &[u8]) {
        self.0.update(&index.to_le_bytes());
        self.0.update(&(value.len() as u64).to_le_bytes());
        self.0.update(value);
    }

    /// The digest in hex.
    pub fn finish(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}

/// The [`FeedDigest`] of a feed that holds all of `blocks`, from index 0 on.
pub fn digest<B: AsRef<[u8]>>(blocks: impl IntoIterator<Item = B>) -> String {
    let mut digest = FeedDigest::new();
    for (index, block) in (0..).zip(blocks) {
        digest.update(index, block.as_ref());
    }
    digest.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    // The values stand in interop/test.js too, or were printed by lib.js.
    #[test]
    fn blocks_are_those_of_js() {
        assert_eq!(hex::encode(block(1, 0, 10)), "7227215135ef24cc549d");
        assert_eq!(hex::encode(block(7, 3, 5)), "0d4f2377ec");
        assert_eq!(hex::encode(block(u32::MAX, u32::MAX, 9)), "ca0c50d8ee25ede006");
        assert!(block(0, 0, 0).is_empty());
    }

    #[test]
    fn digest_is_that_of_js() {
        // Three blocks of 7 bytes from seed 4, by a JS peer's "feeds".
        let js = "0e7f43f2ac88b8a7c6f90f743dcd9a7cdf8dd82548f07e863fc1818e3b0677efbf6c9d9dcc8e66996865c69d8957beb4\
                  58117306c9bb9c5749132cd7f4e72e2e";
        assert_eq!(digest(blocks(3, 7, 4)), js);
    }
}
