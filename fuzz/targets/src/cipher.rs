//! The cipher beside the crate `salsa20`.

use arbitrary::{Arbitrary, Unstructured};
use multifeed_cipher::XSalsa20;
use salsa20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};

/// Bytes that the calls of one input cover at the most.
const MOST: usize = 1 << 14;

/// What stands beside the bytes of a call.
const MARGIN: u8 = 0xa5;

#[derive(Debug, Arbitrary)]
struct Input {
    key: [u8; 32],
    nonce: [u8; 24],
    block: u64,
    /// Each call's length, and at what distance from a vector's boundary its bytes begin.
    calls: Vec<(u16, u8)>,
}

/// Calls of any length, from any block on, give the bytes of `salsa20`, and touch no others.
pub fn cipher(data: &[u8]) {
    let Ok(Input { key, nonce, block, calls }) = Input::arbitrary_take_rest(Unstructured::new(data)) else { return };
    // `salsa20` refuses to start over after its last block.
    let block = block.min(u64::MAX - MOST as u64);
    let mut reference = salsa20::XSalsa20::new(&key.into(), &nonce.into());
    reference.seek(u128::from(block) * 64);
    let mut ours = [true, false].map(|portable| XSalsa20::from_block(&key, &nonce, block, portable));
    let mut left = MOST;
    for (call, (len, shift)) in calls.into_iter().enumerate() {
        let (len, shift) = (usize::from(len).min(left), usize::from(shift % 64));
        left -= len;
        let text: Vec<u8> = (call..call + len).map(|n| n as u8).collect();
        let mut expected = text.clone();
        reference.apply_keystream(&mut expected);
        for cipher in &mut ours {
            let mut buffer = vec![MARGIN; shift + len + 64];
            buffer[shift..shift + len].copy_from_slice(&text);
            cipher.apply(&mut buffer[shift..shift + len]);
            assert_eq!(buffer[shift..shift + len], expected);
            assert!(buffer[..shift].iter().chain(&buffer[shift + len..]).all(|byte| *byte == MARGIN));
        }
    }
}
