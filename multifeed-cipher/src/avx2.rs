//! Eight blocks at a time in AVX2's registers: one register per word, one lane per block.
//!
//! All the `unsafe` of the crate is in this file and in `avx512.rs`. It is the call into code compiled for AVX2, which [`Avx2`] vouches
//! for, and one load and one store through references to 32 bytes.

#![allow(unsafe_code)]

use core::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_loadu_si256, _mm256_permute2x128_si256, _mm256_set1_epi32, _mm256_setr_epi32,
    _mm256_setzero_si256, _mm256_slli_epi32, _mm256_srli_epi32, _mm256_storeu_si256, _mm256_unpackhi_epi32,
    _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm256_xor_si256,
};

use crate::salsa::{BATCH, Input, LANES, double_round};

/// Proof that this processor has AVX2: there is no other way to one than [`Avx2::detect`].
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// Asks the processor with the feature `std`, and the compiler's settings without.
    pub(crate) fn detect() -> Option<Self> {
        #[cfg(feature = "std")]
        let present = std::arch::is_x86_feature_detected!("avx2");
        #[cfg(not(feature = "std"))]
        let present = cfg!(target_feature = "avx2");
        present.then_some(Self(()))
    }

    /// XORs the keystream that starts at block `counter` into `batches`, eight blocks each.
    pub(crate) fn xor(self, input: &Input, counter: u64, batches: &mut [[u8; BATCH]]) {
        // SAFETY: `self` exists, so `detect` found AVX2, the only feature that `xor` is compiled for.
        unsafe { xor(input, counter, batches) }
    }
}

#[target_feature(enable = "avx2")]
fn xor(input: &Input, mut counter: u64, batches: &mut [[u8; BATCH]]) {
    // A closure would be compiled for AVX2 as well, and so not be inlined where `map` calls it.
    let mut start = [_mm256_setzero_si256(); 16];
    for (words, word) in start.iter_mut().zip(input) {
        *words = _mm256_set1_epi32(word.cast_signed());
    }
    for batch in batches {
        let [low, high] = counters(counter);
        start[8] = low;
        start[9] = high;
        let x = rounds(start);
        let (halves, _) = batch.as_chunks_mut::<32>();
        let [x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, xa, xb, xc, xd, xe, xf] = x;
        let front = transpose([x0, x1, x2, x3, x4, x5, x6, x7]);
        for (half, keystream) in halves.iter_mut().step_by(2).zip(front) {
            xor_into(half, keystream);
        }
        let back = transpose([x8, x9, xa, xb, xc, xd, xe, xf]);
        for (half, keystream) in halves.iter_mut().skip(1).step_by(2).zip(back) {
            xor_into(half, keystream);
        }
        counter = counter.wrapping_add(LANES as u64);
    }
}

/// The low and the high words of eight block numbers from `counter` on.
#[target_feature(enable = "avx2")]
fn counters(counter: u64) -> [__m256i; 2] {
    let mut blocks = [counter; LANES];
    for (lane, block) in blocks.iter_mut().enumerate() {
        *block = block.wrapping_add(lane as u64);
    }
    let [a, b, c, d, e, f, g, h] = blocks;
    let low = |block: u64| block as i32;
    let high = |block: u64| (block >> 32) as i32;
    [
        _mm256_setr_epi32(low(a), low(b), low(c), low(d), low(e), low(f), low(g), low(h)),
        _mm256_setr_epi32(high(a), high(b), high(c), high(d), high(e), high(f), high(g), high(h)),
    ]
}

/// The twenty rounds and the final addition of the input.
#[target_feature(enable = "avx2")]
fn rounds(start: [__m256i; 16]) -> [__m256i; 16] {
    let mut x = start;
    // `x ^= rotate_left(a + b, n)` without a rotation, which AVX2 has not: both shifted halves are XORed in.
    macro_rules! mix {
        ($x:literal, $a:literal, $b:literal, $left:literal) => {
            let sum = _mm256_add_epi32(x[$a], x[$b]);
            x[$x] = _mm256_xor_si256(x[$x], _mm256_slli_epi32::<$left>(sum));
            x[$x] = _mm256_xor_si256(x[$x], _mm256_srli_epi32::<{ 32 - $left }>(sum));
        };
    }
    for _ in 0..10 {
        double_round!(mix);
    }
    for (x, start) in x.iter_mut().zip(start) {
        *x = _mm256_add_epi32(*x, start);
    }
    x
}

/// From eight words of eight blocks to eight blocks of eight words.
#[target_feature(enable = "avx2")]
fn transpose(rows: [__m256i; 8]) -> [__m256i; 8] {
    let [a, b, c, d, e, f, g, h] = rows;
    // Pairs of words, then fours, within each 128-bit half.
    let ab = [_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b)];
    let cd = [_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d)];
    let ef = [_mm256_unpacklo_epi32(e, f), _mm256_unpackhi_epi32(e, f)];
    let gh = [_mm256_unpacklo_epi32(g, h), _mm256_unpackhi_epi32(g, h)];
    let abcd = [
        _mm256_unpacklo_epi64(ab[0], cd[0]),
        _mm256_unpackhi_epi64(ab[0], cd[0]),
        _mm256_unpacklo_epi64(ab[1], cd[1]),
        _mm256_unpackhi_epi64(ab[1], cd[1]),
    ];
    let efgh = [
        _mm256_unpacklo_epi64(ef[0], gh[0]),
        _mm256_unpackhi_epi64(ef[0], gh[0]),
        _mm256_unpacklo_epi64(ef[1], gh[1]),
        _mm256_unpackhi_epi64(ef[1], gh[1]),
    ];
    // `abcd[i]` has words a to d of block i in its low half, of block i + 4 in its high half.
    [
        _mm256_permute2x128_si256::<0x20>(abcd[0], efgh[0]),
        _mm256_permute2x128_si256::<0x20>(abcd[1], efgh[1]),
        _mm256_permute2x128_si256::<0x20>(abcd[2], efgh[2]),
        _mm256_permute2x128_si256::<0x20>(abcd[3], efgh[3]),
        _mm256_permute2x128_si256::<0x31>(abcd[0], efgh[0]),
        _mm256_permute2x128_si256::<0x31>(abcd[1], efgh[1]),
        _mm256_permute2x128_si256::<0x31>(abcd[2], efgh[2]),
        _mm256_permute2x128_si256::<0x31>(abcd[3], efgh[3]),
    ]
}

#[target_feature(enable = "avx2")]
fn xor_into(data: &mut [u8; 32], keystream: __m256i) {
    // SAFETY: the 32 bytes that are read are those of `data`, and the load asks for no alignment.
    let text = unsafe { _mm256_loadu_si256(data.as_ptr().cast()) };
    let text = _mm256_xor_si256(text, keystream);
    // SAFETY: the 32 bytes that are written are those of `data`, and the store asks for no alignment.
    unsafe { _mm256_storeu_si256(data.as_mut_ptr().cast(), text) }
}
