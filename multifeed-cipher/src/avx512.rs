//! Sixteen blocks at a time in AVX-512's registers: one register per word, one lane per block.
//!
//! The `unsafe` here is of the same two kinds as in `avx2.rs`: the call into code compiled for AVX-512, which [`Avx512`] vouches for,
//! and one load and one store through references to 64 bytes.

#![allow(unsafe_code)]

use core::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_loadu_si512, _mm512_rol_epi32, _mm512_set1_epi32, _mm512_setr_epi32,
    _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_storeu_si512, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi32, _mm512_unpacklo_epi64, _mm512_xor_si512,
};

use crate::avx2::Avx2;
use crate::salsa::{BATCH, BLOCK, Input, LANES, double_round};

/// Proof that this processor has AVX-512's foundation, and AVX2 for half as many blocks. There is no other way to one than
/// [`Avx512::detect`].
#[derive(Clone, Copy)]
pub(crate) struct Avx512(Avx2);

impl Avx512 {
    /// Asks the processor with the feature `std`, and the compiler's settings without.
    pub(crate) fn detect() -> Option<Self> {
        #[cfg(feature = "std")]
        let present = std::arch::is_x86_feature_detected!("avx512f");
        #[cfg(not(feature = "std"))]
        let present = cfg!(target_feature = "avx512f");
        present.then(Avx2::detect).flatten().map(Self)
    }

    /// XORs the keystream that starts at block `counter` into `batches`, eight blocks each.
    pub(crate) fn xor(self, input: &Input, counter: u64, batches: &mut [[u8; BATCH]]) {
        let (pairs, odd) = batches.as_chunks_mut::<2>();
        if !pairs.is_empty() {
            // SAFETY: `self` exists, so `detect` found AVX-512F, the only feature that `xor` is compiled for.
            unsafe { xor(input, counter, pairs) }
        }
        self.0.xor(input, counter.wrapping_add((2 * LANES * pairs.len()) as u64), odd);
    }
}

#[target_feature(enable = "avx512f")]
fn xor(input: &Input, mut counter: u64, pairs: &mut [[[u8; BATCH]; 2]]) {
    // A closure would be compiled for AVX-512 as well, and so not be inlined where `map` calls it.
    let mut start = [_mm512_setzero_si512(); 16];
    for (words, word) in start.iter_mut().zip(input) {
        *words = _mm512_set1_epi32(word.cast_signed());
    }
    for pair in pairs {
        [start[8], start[9]] = counters(counter);
        let keystream = transpose(rounds(start));
        let (blocks, _) = pair.as_flattened_mut().as_chunks_mut::<BLOCK>();
        for (block, keystream) in blocks.iter_mut().zip(keystream) {
            xor_into(block, keystream);
        }
        counter = counter.wrapping_add(2 * LANES as u64);
    }
}

/// The low and the high words of sixteen block numbers from `counter` on.
#[target_feature(enable = "avx512f")]
fn counters(counter: u64) -> [__m512i; 2] {
    let mut blocks = [counter; 2 * LANES];
    for (lane, block) in blocks.iter_mut().enumerate() {
        *block = block.wrapping_add(lane as u64);
    }
    let low = blocks.map(|block| block as i32);
    let high = blocks.map(|block| (block >> 32) as i32);
    [of_lanes(low), of_lanes(high)]
}

#[target_feature(enable = "avx512f")]
fn of_lanes(lanes: [i32; 16]) -> __m512i {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = lanes;
    _mm512_setr_epi32(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)
}

/// The twenty rounds and the final addition of the input.
#[target_feature(enable = "avx512f")]
fn rounds(start: [__m512i; 16]) -> [__m512i; 16] {
    let mut x = start;
    macro_rules! mix {
        ($x:literal, $a:literal, $b:literal, $left:literal) => {
            x[$x] = _mm512_xor_si512(x[$x], _mm512_rol_epi32::<$left>(_mm512_add_epi32(x[$a], x[$b])));
        };
    }
    for _ in 0..10 {
        double_round!(mix);
    }
    for (x, start) in x.iter_mut().zip(start) {
        *x = _mm512_add_epi32(*x, start);
    }
    x
}

/// From sixteen words of sixteen blocks to sixteen blocks of sixteen words.
#[target_feature(enable = "avx512f")]
fn transpose(words: [__m512i; 16]) -> [__m512i; 16] {
    // Fours of words within each 128-bit quarter: of `fours[i]`, the one numbered n of quarter q has words 4 i to 4 i + 3 of block 4 q + n.
    let mut fours = [[words[0]; 4]; 4];
    for (four, words) in fours.iter_mut().zip(words.as_chunks::<4>().0) {
        let [a, b, c, d] = *words;
        let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
        let (ab_high, cd_high) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
        *four = [
            _mm512_unpacklo_epi64(ab, cd),
            _mm512_unpackhi_epi64(ab, cd),
            _mm512_unpacklo_epi64(ab_high, cd_high),
            _mm512_unpackhi_epi64(ab_high, cd_high),
        ];
    }
    // The quarters are a square of four by four, for each n.
    let [a, b, c, d] = fours;
    let mut blocks = [words[0]; 16];
    for n in 0..4 {
        let even = [_mm512_shuffle_i32x4::<0x88>(a[n], b[n]), _mm512_shuffle_i32x4::<0x88>(c[n], d[n])];
        let odd = [_mm512_shuffle_i32x4::<0xdd>(a[n], b[n]), _mm512_shuffle_i32x4::<0xdd>(c[n], d[n])];
        blocks[n] = _mm512_shuffle_i32x4::<0x88>(even[0], even[1]);
        blocks[4 + n] = _mm512_shuffle_i32x4::<0x88>(odd[0], odd[1]);
        blocks[8 + n] = _mm512_shuffle_i32x4::<0xdd>(even[0], even[1]);
        blocks[12 + n] = _mm512_shuffle_i32x4::<0xdd>(odd[0], odd[1]);
    }
    blocks
}

#[target_feature(enable = "avx512f")]
fn xor_into(data: &mut [u8; BLOCK], keystream: __m512i) {
    // SAFETY: the 64 bytes that are read are those of `data`, and the load asks for no alignment.
    let text = unsafe { _mm512_loadu_si512(data.as_ptr().cast()) };
    let text = _mm512_xor_si512(text, keystream);
    // SAFETY: the 64 bytes that are written are those of `data`, and the store asks for no alignment.
    unsafe { _mm512_storeu_si512(data.as_mut_ptr().cast(), text) }
}
