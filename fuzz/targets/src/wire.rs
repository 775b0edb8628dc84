//! The parsers of untrusted bytes, alone.

use bytes::{Bytes, BytesMut};
use multifeed_core::bitfield::rle;
use multifeed_proto::wire::frame::{self, Frame, Scanner};
use multifeed_proto::wire::message::MAX_NUMBER;
use multifeed_proto::{FrameError, Limits, Message};

/// Bytes of a window of 1 Mi bits.
const WINDOW: usize = 1 << 17;

/// Frames are the same at any chunking: the first byte says in which pieces the others come.
pub fn frames(data: &[u8]) {
    let Some((&size, wire)) = data.split_first() else { return };
    let whole = cut(wire, wire.len().max(1));
    assert_eq!(cut(wire, usize::from(size).max(1)), whole);
    assert_eq!(cut(wire, 1), whole);
}

/// The frames at the start of some bytes, as they come in pieces, and the error if what follows them is none.
fn cut(wire: &[u8], size: usize) -> (Vec<Frame>, Option<FrameError>) {
    let (mut scanner, mut buf, mut found) = (Scanner::default(), BytesMut::new(), Vec::new());
    for piece in wire.chunks(size) {
        buf.extend_from_slice(piece);
        let error = scanner.scan(&buf, 1000).err();
        let mut span = buf.split_to(scanner.whole()).freeze();
        scanner.taken();
        while let Some(frame) = frame::next(&mut span, 1000).expect("it was scanned") {
            assert!(frame.body.len() <= 1000 && frame.channel < frame::CHANNELS && frame.kind < 16);
            found.push(frame);
        }
        assert!(span.is_empty(), "whole frames and keep-alives");
        if error.is_some() {
            return (found, error);
        }
    }
    (found, None)
}

/// A message that is read is written and read again the same: the first byte is its type.
pub fn messages(data: &[u8]) {
    let Some((&kind, body)) = data.split_first() else { return };
    let limits = Limits::default();
    let Ok(Some(message)) = Message::decode(kind & 15, Bytes::copy_from_slice(body), &limits) else { return };
    assert_eq!(message.kind(), kind & 15);
    let mut written = BytesMut::new();
    message.encode(&mut written);
    assert_eq!(written.len(), message.encoded_len());
    assert_eq!(Message::decode(kind & 15, written.freeze(), &limits), Ok(Some(message.clone())));
    match message {
        Message::Have(have) => assert!(have.start <= MAX_NUMBER && have.length <= MAX_NUMBER),
        Message::Data(data) => assert!(data.nodes.len() <= limits.proof_nodes && data.index <= MAX_NUMBER),
        Message::Options(options) => assert!(options.extensions.len() <= limits.extensions),
        _ => {}
    }
}

/// A bitfield that is read is no larger than allowed, and written and read again the same.
pub fn bitfield_rle(data: &[u8]) {
    let Ok(bitfield) = rle::decode(data, WINDOW) else { return };
    assert!(bitfield.len() <= WINDOW && bitfield.len().is_multiple_of(4));
    let written = rle::encode(&bitfield);
    let mut again = rle::decode(&written, WINDOW).expect("we wrote it");
    assert!(again.len() <= bitfield.len());
    again.resize(bitfield.len(), 0);
    assert_eq!(again, bitfield);
}
