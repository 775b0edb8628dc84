//! What protects a stream: Noise, the cipher that follows it, and the proofs that a side knows a feed's key.

pub mod capability;
pub mod cipher;
pub mod noise;

/// BLAKE2b with 32 bytes of output over the parts, one after another, keyed with `key`.
pub(crate) fn blake2b_256(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut state = blake2b_simd::Params::new().hash_length(32).key(key).to_state();
    for part in parts {
        state.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(state.finalize().as_bytes());
    out
}
