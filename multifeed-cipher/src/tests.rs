//! Every path against the crate `salsa20`, and known answers from the papers' author.

use std::{eprintln, format, vec, vec::Vec};

use proptest::prelude::*;
use salsa20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek, consts::U10};

use super::*;

const KEY: [u8; 32] = *b"a key of thirty-two bytes, or so";
const NONCE: [u8; 24] = *b"twenty-four bytes' nonce";

/// Miri takes every so many of the cases: it is a thousand times slower, and what it looks for is in each of them.
const STEP: usize = if cfg!(miri) { 21 } else { 1 };

/// Each path that this processor has. Without AVX2 that is the portable one alone; Miri has AVX2 and AVX-512 if
/// `-C target-feature=+avx2,+avx512f` says so.
fn paths() -> Vec<(&'static str, Path)> {
    let mut paths = vec![("portable", Path::Portable)];
    #[cfg(target_arch = "x86_64")]
    if let Some(avx2) = avx2::Avx2::detect() {
        paths.push(("avx2", Path::Avx2(avx2)));
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(avx512) = avx512::Avx512::detect() {
        paths.push(("avx512", Path::Avx512(avx512)));
    }
    paths
}

/// The keystream as `salsa20` has it, from block `block` on.
fn reference(key: &[u8; 32], nonce: &[u8; 24], block: u64, len: usize) -> Vec<u8> {
    let mut cipher = salsa20::XSalsa20::new(key.into(), nonce.into());
    cipher.seek(u128::from(block) * 64);
    let mut keystream = vec![0; len];
    cipher.apply_keystream(&mut keystream);
    keystream
}

/// Some bytes that are not zero, so that a path that overwrites instead of XORing is found.
fn text(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + 1) as u8).collect()
}

fn xored(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).map(|(a, b)| a ^ b).collect()
}

#[test]
fn every_length_at_every_offset() {
    // Past a batch with the offset, and past two pairs of them with the length: every way to share and to split batches.
    let (offsets, lengths) = if cfg!(miri) {
        (vec![0, 1, 511], vec![0, 1, 513, 1537])
    } else {
        ((0..=600).collect::<Vec<usize>>(), (0..=1100).chain(1500..1600).chain(2000..2100).collect::<Vec<usize>>())
    };
    let keystream = reference(&KEY, &NONCE, 0, 4096);
    let text = text(2100);
    for (name, path) in paths() {
        for &offset in &offsets {
            let mut start = XSalsa20::with_path(&KEY, &NONCE, path);
            let mut skipped = text[..offset].to_vec();
            start.apply(&mut skipped);
            assert_eq!(skipped, xored(&text, &keystream[..offset]), "{name}, first {offset}");
            for &len in &lengths {
                let mut cipher = start.clone();
                let mut data = [0; 2100];
                let data = &mut data[..len];
                data.copy_from_slice(&text[..len]);
                cipher.apply(data);
                // The place that is reached then shows in one more byte.
                let mut next = [0];
                cipher.apply(&mut next);
                let expected = &keystream[offset..];
                assert!(
                    data.iter().zip(&text).zip(expected).all(|((data, text), key)| *data == text ^ key),
                    "{name}: {len} bytes from {offset}"
                );
                assert_eq!(next[0], expected[len], "{name}: after {len} bytes from {offset}");
            }
        }
    }
}

#[test]
fn neighbours_of_the_data_are_left_alone() {
    // The vectors' loads and stores at every alignment, with a margin on both sides.
    let keystream = reference(&KEY, &NONCE, 0, 1024);
    for (name, path) in paths() {
        for margin in (0..64).step_by(STEP) {
            let mut buffer = vec![0xa5; margin + 1024 + 64];
            XSalsa20::with_path(&KEY, &NONCE, path).apply(&mut buffer[margin..margin + 1024]);
            assert!(buffer[..margin].iter().all(|byte| *byte == 0xa5), "{name}, {margin}");
            assert!(buffer[margin + 1024..].iter().all(|byte| *byte == 0xa5), "{name}, {margin}");
            assert_eq!(buffer[margin..margin + 1024], xored(&[0xa5; 1024], &keystream), "{name}, {margin}");
        }
    }
}

#[test]
fn counter_beyond_32_bits() {
    // Every place of the carry among the lanes of a batch, or of a pair of them, and between two; then the second half
    // of the counter alone, and its end.
    let carry = 1 << 32;
    let starts = (carry - 40..carry + 3).chain((7 << 32) - 9..(7 << 32) + 1).chain([u64::MAX - 100, u64::MAX - 48]);
    for (name, path) in paths() {
        for block in starts.clone().step_by(STEP) {
            let mut cipher = XSalsa20::with_path(&KEY, &NONCE, path);
            cipher.counter = block;
            let mut data = vec![0; 5 * BATCH - 10];
            cipher.apply(&mut data[..100]);
            cipher.apply(&mut []);
            cipher.apply(&mut data[100..]);
            assert!(data == reference(&KEY, &NONCE, block, 5 * BATCH - 10), "{name}, block {block}");
        }
    }
}

#[test]
fn keystream_starts_over_after_its_last_block() {
    let start = reference(&KEY, &NONCE, 0, 2 * BATCH);
    for (name, path) in paths() {
        let mut cipher = XSalsa20::with_path(&KEY, &NONCE, path);
        cipher.counter = u64::MAX - 2;
        let mut data = vec![0; 2 * BATCH];
        cipher.apply(&mut data);
        assert!(data[3 * 64..] == start[..2 * BATCH - 3 * 64], "{name}");
    }
}

#[test]
fn known_answers_of_nacl() {
    // "Cryptography in NaCl" (Bernstein, 2009), sections 8 and 9: the first and the second key of its example, and
    // the start of its keystream.
    let shared = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    let first = hex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389");
    let second = hex("dc908dda0b9344a953629b733820778880f3ceb421bb61b91cbd4c3e66256ce4");
    let nonce: [u8; 24] = hex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37");
    let [n0, n1, n2, n3, ..]: [u32; 6] = salsa::words(&nonce);
    assert_eq!(*salsa::hsalsa20(&shared, [0; 4]), first);
    assert_eq!(*salsa::hsalsa20(&first, [n0, n1, n2, n3]), second);
    let start: [u8; 32] = hex("eea6a7251c1e72916d11c2cb214d3c252539121d8e234e652d651fa4c8cff880");
    for (name, path) in paths() {
        let mut data = [0; 32];
        XSalsa20::with_path(&first, &nonce, path).apply(&mut data);
        assert_eq!(data, start, "{name}");
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_widest_path_is_chosen() {
    let (avx2, avx512) = (avx2::Avx2::detect().is_some(), avx512::Avx512::detect().is_some());
    match XSalsa20::new(&KEY, &NONCE).path {
        Path::Avx512(_) => assert!(avx512),
        Path::Avx2(_) => assert!(avx2 && !avx512),
        Path::Portable => assert!(!avx2),
    }
    assert_eq!(paths().len(), 1 + usize::from(avx2) + usize::from(avx512));
    if cfg!(feature = "std") {
        assert_eq!(avx2, std::is_x86_feature_detected!("avx2"));
        assert_eq!(avx512, avx2 && std::is_x86_feature_detected!("avx512f"));
    }
    for (name, detected) in [("AVX2", avx2), ("AVX-512", avx512)] {
        if !detected {
            eprintln!("no {name} here: its path is not tested");
        }
    }
}

#[test]
fn debug_tells_nothing() {
    let mut cipher = XSalsa20::new(&KEY, &NONCE);
    cipher.apply(&mut [0; 10]);
    assert_eq!(format!("{cipher:?}"), "XSalsa20 { .. }");
}

#[test]
fn wiping_leaves_no_secret() {
    let mut cipher = XSalsa20::new(&KEY, &NONCE);
    cipher.apply(&mut [0; 10]);
    assert!(cipher.ahead.iter().any(|byte| *byte != 0));
    cipher.wipe();
    assert_eq!(cipher.input, [0; 16]);
    assert_eq!(cipher.ahead, [0; BATCH]);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_chunking_is_the_same(
        key: [u8; 32],
        nonce: [u8; 24],
        data in prop::collection::vec(any::<u8>(), 0..6000),
        chunks in prop::collection::vec(prop_oneof![0_usize..80, 0_usize..700, 500_usize..2500], 0..60),
    ) {
        let expected = xored(&data, &reference(&key, &nonce, 0, data.len()));
        for (name, path) in paths() {
            let mut cipher = XSalsa20::with_path(&key, &nonce, path);
            let mut out = data.clone();
            let mut rest = out.as_mut_slice();
            for &len in &chunks {
                let (chunk, after) = rest.split_at_mut(len.min(rest.len()));
                cipher.apply(chunk);
                rest = after;
            }
            cipher.apply(rest);
            prop_assert_eq!(&out, &expected, "{}", name);
            // And back, in one piece.
            XSalsa20::with_path(&key, &nonce, path).apply(&mut out);
            prop_assert_eq!(&out, &data, "{}", name);
        }
    }

    #[test]
    fn hsalsa20_is_the_same(key: [u8; 32], nonce: [u8; 16]) {
        let expected = salsa20::hsalsa::<U10>(&key.into(), &nonce.into());
        prop_assert_eq!(&salsa::hsalsa20(&key, salsa::words(&nonce))[..], expected.as_slice());
    }
}

fn hex<const N: usize>(digits: &str) -> [u8; N] {
    assert_eq!(digits.len(), 2 * N);
    core::array::from_fn(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap())
}
