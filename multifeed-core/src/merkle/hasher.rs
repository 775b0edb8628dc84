//! BLAKE2b-256 of one message, by whichever code is faster on this processor.

use blake2::{Blake2b256, Digest};
use blake2b_simd::{Params, State};

/// A hash under way.
pub(crate) enum Hasher {
    /// Ordinary instructions: on some processors the faster for one message.
    Scalar(Blake2b256),
    /// AVX2 within one message, if there is such.
    Vector(State),
}

impl Hasher {
    pub(crate) fn new() -> Self {
        if is_scalar_faster() { Self::Scalar(Blake2b256::new()) } else { Self::Vector(params().to_state()) }
    }

    pub(crate) fn update(&mut self, piece: &[u8]) {
        match self {
            Self::Scalar(state) => Digest::update(state, piece),
            Self::Vector(state) => {
                state.update(piece);
            }
        }
    }

    pub(crate) fn finish(self) -> [u8; 32] {
        match self {
            Self::Scalar(state) => state.finalize().into(),
            Self::Vector(state) => bytes(state.finalize()),
        }
    }
}

/// The hash of a message that is there as a whole.
pub(crate) fn hash(message: &[u8]) -> [u8; 32] {
    if is_scalar_faster() { Blake2b256::digest(message).into() } else { bytes(params().hash(message)) }
}

pub(super) fn params() -> Params {
    let mut params = Params::new();
    params.hash_length(32);
    params
}

pub(super) fn bytes(hash: blake2b_simd::Hash) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (to, from) in bytes.iter_mut().zip(hash.as_bytes()) {
        *to = *from;
    }
    bytes
}

/// Elsewhere `blake2b_simd` has no vector code for one message.
#[cfg(not(target_arch = "x86_64"))]
fn is_scalar_faster() -> bool {
    true
}

/// Measured at the first hash, for some 50 microseconds: which one it is depends on the processor, not on what that can do.
#[cfg(target_arch = "x86_64")]
#[expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "both codes give the same hashes: nothing that happens depends on it"
)]
fn is_scalar_faster() -> bool {
    use std::hint::black_box;
    use std::sync::OnceLock;
    use std::time::{Duration, Instant};

    const ROUNDS: usize = 5;

    static FASTER: OnceLock<bool> = OnceLock::new();
    *FASTER.get_or_init(|| {
        // None older is known where it is; and valgrind, which shows programs none that has it, counts the same each time.
        if !std::is_x86_feature_detected!("avx512f") {
            return false;
        }
        let message = [7; 2048];
        // In turn, and the shortest of each: the machine may be busy with other things.
        let mut shortest = [Duration::MAX; 2];
        for _ in 0..ROUNDS {
            let start = Instant::now();
            black_box(params().hash(black_box(&message)));
            let between = Instant::now();
            black_box(Blake2b256::digest(black_box(&message)));
            let end = Instant::now();
            for (shortest, time) in shortest.iter_mut().zip([between - start, end - between]) {
                *shortest = time.min(*shortest);
            }
        }
        shortest[1] < shortest[0]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_give_the_same() {
        let message: Vec<u8> = (0..1000u32).map(|i| (i * 7) as u8).collect();
        for size in [0, 1, 73, 127, 128, 129, 255, 256, 257, 1000] {
            let message = &message[..size];
            let whole = bytes(params().hash(message));
            assert_eq!(hash(message), whole, "{size}");
            for mut hasher in [Hasher::Scalar(Blake2b256::new()), Hasher::Vector(params().to_state())] {
                message.chunks(100).for_each(|piece| hasher.update(piece));
                assert_eq!(hasher.finish(), whole, "{size}");
            }
        }
    }
}
