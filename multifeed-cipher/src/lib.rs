//! XSalsa20 in place, continuous over any chunking: the stream cipher of hypercore's wire protocol.
//!
//! ```
//! use multifeed_cipher::XSalsa20;
//!
//! let (key, nonce) = ([7; 32], [9; 24]);
//! let mut message = *b"in two pieces there, in one piece here";
//!
//! let mut sender = XSalsa20::new(&key, &nonce);
//! let (first, second) = message.split_at_mut(13);
//! sender.apply(first);
//! sender.apply(second);
//! assert_ne!(&message, b"in two pieces there, in one piece here");
//!
//! let mut receiver = XSalsa20::new(&key, &nonce);
//! receiver.apply(&mut message);
//! assert_eq!(&message, b"in two pieces there, in one piece here");
//! ```
//!
//! A stream cipher hides, it does not authenticate: anyone who flips a bit on the way flips that bit of the message. What
//! is received has to be checked by other means.
//!
//! # Sources of the rules
//!
//! - Salsa20, its rounds and its layout of key, nonce and 64-bit block counter: D. J. Bernstein, [*The Salsa20 family
//!   of stream ciphers*](https://cr.yp.to/snuffle/salsafamily-20071225.pdf) (2007), and the
//!   [specification](https://cr.yp.to/snuffle/spec.pdf) (2005).
//! - XSalsa20 with its 24-byte nonce, and HSalsa20, which derives its key: D. J. Bernstein, [*Extending the Salsa20
//!   nonce*](https://cr.yp.to/snuffle/xsalsa-20110204.pdf) (2011).
//!
//! The tests hold every path against the crate `salsa20`, and against the example of *Cryptography in NaCl* (2009).
//! Time and memory accesses depend on lengths alone, never on the key, the nonce or the data.
//!
//! # Speed
//!
//! Eight blocks are made at a time: with AVX2 if the processor has it, else in plain Rust of a shape that compilers
//! turn into the target's vectors; with AVX-512 sixteen at a time where a call takes as many. Calls of 512 bytes or
//! more XOR straight into the caller's bytes. What is left of eight blocks is kept for the next call, so that no
//! keystream is wasted between short messages.
//!
//! One core of an AMD EPYC with AVX2, rustc 1.95, the shortest of 40 runs, in ns a call and GB/s:
//!
//! | bytes a call | AVX2 | plain Rust (SSE2) | `salsa20` 0.11 |
//! |---:|---:|---:|---:|
//! | 16 | 10 ns, 1.6 | 17 ns, 0.95 | 38 ns, 0.42 |
//! | 64 | 28 ns, 2.3 | 55 ns, 1.2 | 110 ns, 0.58 |
//! | 100 | 43 ns, 2.3 | 85 ns, 1.2 | 197 ns, 0.51 |
//! | 300 | 124 ns, 2.4 | 248 ns, 1.2 | 530 ns, 0.57 |
//! | 1,024 | 0.37 µs, 2.8 | 0.82 µs, 1.3 | 1.7 µs, 0.59 |
//! | 65,536 | 24 µs, 2.8 | 51 µs, 1.3 | 109 µs, 0.60 |
//!
//! With AVX-512 (EPYC, Zen 5, the median, beside other work): 1,024 bytes 0.18 µs, 5.8 GB/s; 65,536 bytes 10 µs, 6.5 GB/s.
//! Shorter calls are as with AVX2.
//!
//! The price is paid by a keystream that ends after a few bytes: making one and using 64 bytes of it takes 0.47 µs
//! here and 0.23 µs there. `cargo bench -p multifeed-cipher` measures the first and the last column anew.
//!
//! # Features
//!
//! - `std` (default): whether there is AVX2 or AVX-512 is asked of the processor, at run time. Without it the crate is
//!   `no_std`, and uses what it is compiled for, as with `-C target-feature=+avx2`.

#![no_std]

#[cfg(any(feature = "std", test))]
extern crate std;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
mod salsa;
#[cfg(test)]
mod tests;

use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use salsa::{BATCH, Input, LANES};

/// An XSalsa20 keystream, and the place in it that has been reached.
///
/// Successive calls of [`apply`](Self::apply) take successive bytes of the keystream, whatever their lengths. The same
/// bytes come out of one call over a whole message as out of one call per byte of it. Encrypting and decrypting are the
/// same operation, so each direction of a conversation has one `XSalsa20` at each of its ends.
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
    /// Returns the keystream of `key` and `nonce`, from its start.
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
        self.path.xor(&self.input, self.counter, core::slice::from_mut(&mut self.ahead));
        self.counter = self.counter.wrapping_add(LANES as u64);
        xor(tail, &self.ahead[..tail.len()]);
        self.used = tail.len();
    }

    /// Returns the keystream from one of its blocks of 64 bytes on, in plain Rust if `portable`, so that fuzzers reach every place of it
    /// on every path.
    #[cfg(feature = "fuzzing")]
    #[doc(hidden)]
    #[must_use]
    pub fn from_block(key: &[u8; 32], nonce: &[u8; 24], block: u64, portable: bool) -> Self {
        let path = if portable { Path::Portable } else { Path::best() };
        Self { counter: block, ..Self::with_path(key, nonce, path) }
    }

    fn with_path(key: &[u8; 32], nonce: &[u8; 24], path: Path) -> Self {
        let [n0, n1, n2, n3, n4, n5] = salsa::words(nonce);
        let key = salsa::hsalsa20(key, [n0, n1, n2, n3]);
        Self { input: salsa::layout(&key, [n4, n5, 0, 0]), counter: 0, ahead: [0; BATCH], used: BATCH, path }
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
    Avx512(avx512::Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    Portable,
}

impl Path {
    fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx512) = avx512::Avx512::detect() {
            return Self::Avx512(avx512);
        }
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
            Self::Avx512(avx512) => avx512.xor(input, counter, batches),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(avx2) => avx2.xor(input, counter, batches),
            Self::Portable => portable::xor(input, counter, batches),
        }
    }
}

/// XORs `keystream` into `data`, which are as long as each other.
fn xor(data: &mut [u8], keystream: &[u8]) {
    // The compiler makes vectors of this; eight bytes at a time by hand measured slower.
    for (byte, keystream) in data.iter_mut().zip(keystream) {
        *byte ^= keystream;
    }
}
