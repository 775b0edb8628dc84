#![doc = "XSalsa20"]
#![no_std]

#[cfg(any(feature = "std", test))]
extern crate std;

#[cfg(target_arch = "x86_64")]
mod avx2;
mod portable;
mod salsa;
#[cfg(test)]
mod tests;

use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use salsa::{BATCH, Input, LANES};

/// An XSalsa20 keystream, and the place in it that has been reached.
///
/// Successive calls of [`apply`](Self::apply) take successive bytes of the keystream, whatever their lengths: the
/// same bytes come out of one call over a whole message as out of one call per byte of it. Encrypting and decrypting
/// are the same operation, so each direction of a conversation has one `XSalsa20` at each of its ends.
///
/// There is no `Clone`: a copy would use the same keystream twice. The key and the keystream that was made ahead
/// are wiped on drop, and left out of `Debug`.
#[cfg_attr(test, derive(Clone))]
pub struct XSalsa20 {
    /// The words of a block without the counter; here is the derived key.
    input: Input,
    /// The block after those made so far.
    counter: u64,
    /// Keystream made ahead, so that short messages in a row share a batch; `ahead[used..]` is still to be used.
    ahead: [u8; BATCH],
    used: usize,
    path: Path,
}

impl XSalsa20 {
    /// The keystream of `key` and `nonce`, from its start.
    ///
    /// The same key and nonce give the same keystream: a pair must never be used for two different messages. A
    /// keystream is 2^70 bytes long, after which it starts over.
    #[must_use]
    pub fn new(key: &[u8; 32], nonce: &[u8; 24]) -> Self {
        Self::with_path(key, nonce, Path::best())
    }

    /// XORs the next `data.len()` bytes of the keystream into `data`.
    pub fn apply(&mut self, data: &mut [u8]) {
        // What was made ahead.
        let rest = self.ahead.get(self.used..).unwrap_or_default();
        let shared = rest.len().min(data.len());
        let (head, data) = data.split_at_mut(shared);
        xor(head, &rest[..shared]);
        self.used += shared;
        if data.is_empty() {
            return;
        }
        // Whole batches, straight into the caller's bytes.
        let (batches, tail) = data.as_chunks_mut::<BATCH>();
        self.path.xor(&self.input, self.counter, batches);
        self.counter = self.counter.wrapping_add((batches.len() * LANES) as u64);
        if tail.is_empty() {
            return;
        }
        // The start of one more batch, of which the rest is for the calls to come.
        self.ahead.fill(0);
        self.path.xor(
            &self.input,
            self.counter,
            core::slice::from_mut(&mut self.ahead),
        );
        self.counter = self.counter.wrapping_add(LANES as u64);
        xor(tail, &self.ahead[..tail.len()]);
        self.used = tail.len();
    }

    fn with_path(key: &[u8; 32], nonce: &[u8; 24], path: Path) -> Self {
        let [n0, n1, n2, n3, n4, n5] = salsa::words(nonce);
        let key = salsa::hsalsa20(key, [n0, n1, n2, n3]);
        Self {
            input: salsa::layout(&key, [n4, n5, 0, 0]),
            counter: 0,
            ahead: [0; BATCH],
            used: BATCH,
            path,
        }
    }

    fn wipe(&mut self) {
        self.input.zeroize();
        self.ahead.zeroize();
    }
}

impl fmt::Debug for XSalsa20 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XSalsa20").finish_non_exhaustive()
    }
}

impl Drop for XSalsa20 {
    fn drop(&mut self) {
        self.wipe();
    }
}

impl ZeroizeOnDrop for XSalsa20 {}

/// The ways to make the keystream. All give the same bytes.
#[derive(Clone, Copy)]
enum Path {
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    Portable,
}

impl Path {
    fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = avx2::Avx2::detect() {
            return Self::Avx2(avx2);
        }
        Self::Portable
    }

    /// XORs the keystream that starts at block `counter` into `batches`.
    fn xor(self, input: &Input, counter: u64, batches: &mut [[u8; BATCH]]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(avx2) => avx2.xor(input, counter, batches),
            Self::Portable => portable::xor(input, counter, batches),
        }
    }
}

/// XORs `keystream` into `data`, as far as both go.
fn xor(data: &mut [u8], keystream: &[u8]) {
    // In words first: the loop over bytes alone would take up to 31 turns after its last vector.
    let (data, data_rest) = data.as_chunks_mut::<8>();
    let (keystream, keystream_rest) = keystream.as_chunks::<8>();
    for (word, keystream) in data.iter_mut().zip(keystream) {
        *word = (u64::from_ne_bytes(*word) ^ u64::from_ne_bytes(*keystream)).to_ne_bytes();
    }
    for (byte, keystream) in data_rest.iter_mut().zip(keystream_rest) {
        *byte ^= keystream;
    }
}
