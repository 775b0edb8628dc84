//! The Salsa20 core: how a block's sixteen words are laid out and mixed.
//!
//! Everything here is from D. J. Bernstein, "The Salsa20 family of stream ciphers" (2007), sections 4 and 5, and, for
//! HSalsa20, from his "Extending the Salsa20 nonce" (2011), section 2.

use zeroize::Zeroizing;

/// Bytes of keystream in one block.
pub(crate) const BLOCK: usize = 64;

/// How many blocks every path makes at a time.
pub(crate) const LANES: usize = 8;

/// Bytes of keystream that every path makes at a time.
pub(crate) const BATCH: usize = LANES * BLOCK;

/// A block's sixteen words before the rounds, without the counter: words 8 and 9 are zero.
pub(crate) type Input = [u32; 16];

/// "expand 32-byte k", on the diagonal of the words seen as a 4 by 4 square.
const SIGMA: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// One of the ten double rounds, for any kind of word: the quarter rounds of the four columns, then of the four rows, each from its diagonal
/// word on. `$mix!(x, a, b, left)` is word x ^= (word a + word b) rotated left.
macro_rules! double_round {
    ($mix:ident) => {
        $crate::salsa::quarter_round!($mix, 0, 4, 8, 12);
        $crate::salsa::quarter_round!($mix, 5, 9, 13, 1);
        $crate::salsa::quarter_round!($mix, 10, 14, 2, 6);
        $crate::salsa::quarter_round!($mix, 15, 3, 7, 11);
        $crate::salsa::quarter_round!($mix, 0, 1, 2, 3);
        $crate::salsa::quarter_round!($mix, 5, 6, 7, 4);
        $crate::salsa::quarter_round!($mix, 10, 11, 8, 9);
        $crate::salsa::quarter_round!($mix, 15, 12, 13, 14);
    };
}
macro_rules! quarter_round {
    ($mix:ident, $a:literal, $b:literal, $c:literal, $d:literal) => {
        $mix!($b, $a, $d, 7);
        $mix!($c, $b, $a, 9);
        $mix!($d, $c, $b, 13);
        $mix!($a, $d, $c, 18);
    };
}
pub(crate) use {double_round, quarter_round};

/// Lays out the words of a block: the constants, the key, and the four words between the halves of the key.
pub(crate) fn layout(key: &[u8; 32], middle: [u32; 4]) -> Input {
    let mut input = [0; 16];
    [input[0], input[5], input[10], input[15]] = SIGMA;
    let [k0, k1, k2, k3, k4, k5, k6, k7] = words(key);
    [input[1], input[2], input[3], input[4]] = [k0, k1, k2, k3];
    [input[6], input[7], input[8], input[9]] = middle;
    [input[11], input[12], input[13], input[14]] = [k4, k5, k6, k7];
    input
}

/// HSalsa20: a key for Salsa20 out of a key and the first 16 bytes of XSalsa20's nonce.
///
/// The rounds without the final addition, and of the result only the words at which the attacker knew the input.
pub(crate) fn hsalsa20(key: &[u8; 32], nonce: [u32; 4]) -> Zeroizing<[u8; 32]> {
    let mut x = Zeroizing::new(layout(key, nonce));
    macro_rules! mix {
        ($x:literal, $a:literal, $b:literal, $left:literal) => {
            x[$x] ^= x[$a].wrapping_add(x[$b]).rotate_left($left);
        };
    }
    for _ in 0..10 {
        double_round!(mix);
    }
    let mut derived = Zeroizing::new([0; 32]);
    let (chunks, _) = derived.as_chunks_mut::<4>();
    for (chunk, from) in chunks.iter_mut().zip([0, 5, 10, 15, 6, 7, 8, 9]) {
        *chunk = x[from].to_le_bytes();
    }
    derived
}

/// The little-endian words of `bytes`; `N` is a quarter of `M`.
pub(crate) fn words<const M: usize, const N: usize>(bytes: &[u8; M]) -> [u32; N] {
    const { assert!(M == 4 * N) };
    let mut words = [0; N];
    let (chunks, _) = bytes.as_chunks::<4>();
    for (word, chunk) in words.iter_mut().zip(chunks) {
        *word = u32::from_le_bytes(*chunk);
    }
    words
}
