//! Eight blocks at a time in plain Rust, for every target.
//!
//! Each of the sixteen words is a row of eight lanes, one lane per block, and the double round is a loop over the
//! lanes. The loop's body is too long to be unrolled, so that the compiler's loop vectoriser takes it, with whatever
//! vectors the target has (on x86-64: SSE2, four lanes in a register).

use crate::salsa::{BATCH, BLOCK, Input, LANES, double_round};

/// XORs the keystream that starts at block `counter` into `batches`, eight blocks each.
pub(crate) fn xor(input: &Input, mut counter: u64, batches: &mut [[u8; BATCH]]) {
    for batch in batches {
        let rows = keystream(input, counter);
        let (blocks, _) = batch.as_chunks_mut::<BLOCK>();
        for (lane, block) in blocks.iter_mut().enumerate() {
            let (words, _) = block.as_chunks_mut::<4>();
            for (word, row) in words.iter_mut().zip(&rows) {
                *word = (u32::from_le_bytes(*word) ^ row[lane]).to_le_bytes();
            }
        }
        counter = counter.wrapping_add(LANES as u64);
    }
}

// Loops over lane numbers are the shape that the vectoriser takes.
#[allow(clippy::needless_range_loop)]
fn keystream(input: &Input, counter: u64) -> [[u32; LANES]; 16] {
    let mut start = input.map(|word| [word; LANES]);
    for lane in 0..LANES {
        let block = counter.wrapping_add(lane as u64);
        start[8][lane] = block as u32;
        start[9][lane] = (block >> 32) as u32;
    }
    let mut rows = start;
    for _ in 0..10 {
        for lane in 0..LANES {
            let mut x: [u32; 16] = core::array::from_fn(|word| rows[word][lane]);
            macro_rules! mix {
                ($x:literal, $a:literal, $b:literal, $left:literal) => {
                    x[$x] ^= x[$a].wrapping_add(x[$b]).rotate_left($left);
                };
            }
            double_round!(mix);
            for word in 0..16 {
                rows[word][lane] = x[word];
            }
        }
    }
    for (row, start) in rows.iter_mut().zip(&start) {
        for (word, start) in row.iter_mut().zip(start) {
            *word = word.wrapping_add(*start);
        }
    }
    rows
}
