//! Frames: varint(length) varint(channel << 4 | type) body, the length counting the header varint; a zero length is a
//! keep-alive (simple-message-channels).

use bytes::{Buf, BufMut, Bytes};

use crate::error::FrameError;
use crate::wire::varint;

/// Channel ids are below this.
pub const CHANNELS: u32 = 1 << 27;

/// What stands in front of a frame's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The channel, 0 for the stream's own.
    pub channel: u32,
    /// The message type, 0 to 15.
    pub kind: u8,
    /// Bytes in front of the body.
    pub start: usize,
    /// Bytes of the body.
    pub body: usize,
}

/// A whole frame; its body is a slice of the buffer that it was read into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The channel, 0 for the stream's own.
    pub channel: u32,
    /// The message type, 0 to 15.
    pub kind: u8,
    /// The message.
    pub body: Bytes,
}

enum Start {
    /// More bytes are needed.
    Partial,
    /// A zero length, of so many bytes.
    KeepAlive(usize),
    /// So many bytes, of a message that is on no channel.
    Stray(usize),
    Message(Header),
}

/// The header of a message that a JS peer sends on a channel that it closed meanwhile, without the type: the channel is -1, of which it writes 32 bits.
/// It makes room for one byte of header and writes five, so that the message lacks its last four. A JS peer does not look at these either,
/// but fails if it cannot decode what is left.
const STRAY: u64 = (u32::MAX >> 4) as u64;

/// Finds out how many bytes at the start of a growing buffer are whole frames. What was scanned once is not scanned again,
/// however small the pieces are in which the rest arrives.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Bytes of whole frames at the buffer's start.
    whole: usize,
    /// Bytes that the frame after them takes, once its header was read.
    needed: usize,
    /// The channel and the type of that frame; of a keep-alive, those of the frame before, and of a stray message no channel.
    last: (u32, u8),
}

impl Scanner {
    /// Scans on: the bytes of whole frames at the start of `buf`, which is the buffer of the last call with bytes added. On an
    /// error, [`whole`](Self::whole) still tells what stood in front of it.
    pub fn scan(&mut self, buf: &[u8], message_bytes: usize) -> Result<usize, FrameError> {
        loop {
            let rest = buf.get(self.whole..).unwrap_or_default();
            if self.needed == 0 {
                match start(rest, message_bytes)? {
                    Start::Partial => return Ok(self.whole),
                    Start::KeepAlive(len) => self.needed = len,
                    Start::Stray(len) => {
                        self.needed = len;
                        self.last = (CHANNELS, 15);
                    }
                    Start::Message(header) => {
                        self.needed = header.start + header.body;
                        self.last = (header.channel, header.kind);
                    }
                }
            }
            if rest.len() < self.needed {
                return Ok(self.whole);
            }
            self.whole += self.needed;
            self.needed = 0;
        }
    }

    /// Returns how many bytes the frame behind the whole ones takes, if its header has come; 0 if not.
    pub fn needed(&self) -> usize {
        self.needed
    }

    /// Returns how many bytes of whole frames were found so far.
    pub fn whole(&self) -> usize {
        self.whole
    }

    /// Returns the channel and the type of the frame that is not whole yet, once its header was read.
    pub fn partial(&self) -> Option<(u32, u8)> {
        (self.needed > 0).then_some(self.last)
    }

    /// Notes that the whole frames were cut off the buffer's start.
    pub fn taken(&mut self) {
        self.whole = 0;
    }
}

/// Cuts the next frame off `span`, which holds whole frames, as [`Scanner`] found them. Keep-alives are skipped, and so is what is on no channel.
pub fn next(span: &mut Bytes, message_bytes: usize) -> Result<Option<Frame>, FrameError> {
    loop {
        match start(span, message_bytes)? {
            Start::KeepAlive(len) => span.advance(len),
            Start::Stray(len) if len <= span.len() => span.advance(len),
            Start::Message(header) if header.start + header.body <= span.len() => {
                span.advance(header.start);
                return Ok(Some(Frame {
                    channel: header.channel,
                    kind: header.kind,
                    body: span.split_to(header.body),
                }));
            }
            Start::Partial | Start::Stray(_) | Start::Message(_) => return Ok(None),
        }
    }
}

/// Writes what stands in front of a body of `body` bytes.
pub fn put_header(buf: &mut impl BufMut, channel: u32, kind: u8, body: usize) {
    let header = u64::from(channel) << 4 | u64::from(kind & 15);
    varint::encode((varint::len(header) + body) as u64, buf);
    varint::encode(header, buf);
}

fn start(bytes: &[u8], message_bytes: usize) -> Result<Start, FrameError> {
    let Some((length, first)) = varint::decode(bytes, varint::FRAME_MAX).map_err(|_| FrameError::Varint)? else {
        return Ok(Start::Partial);
    };
    if length == 0 {
        return Ok(Start::KeepAlive(first));
    }
    let rest = bytes.get(first..).unwrap_or_default();
    let Some((header, second)) = varint::decode(rest, varint::FRAME_MAX).map_err(|_| FrameError::Varint)? else {
        return Ok(Start::Partial);
    };
    let size = length.checked_sub(second as u64).ok_or(FrameError::TooShort(length))?;
    let too_long = FrameError::TooLong { size, limit: message_bytes as u64 };
    let body = usize::try_from(size).map_err(|_| too_long)?;
    if body > message_bytes {
        return Err(too_long);
    }
    if header >> 4 == STRAY {
        return Ok(Start::Stray(first + second + body));
    }
    let channel = u32::try_from(header >> 4).ok().filter(|&channel| channel < CHANNELS).ok_or(FrameError::Channel)?;
    let kind = (header & 15) as u8;
    Ok(Start::Message(Header { channel, kind, start: first + second, body }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use bytes::BytesMut;
    use proptest::prelude::*;

    const MAX: usize = 8 * 1024 * 1024;

    fn write(frames: &[(u32, u8, Vec<u8>)]) -> BytesMut {
        let mut buf = BytesMut::new();
        for (channel, kind, body) in frames {
            put_header(&mut buf, *channel, *kind, body.len());
            buf.put_slice(body);
        }
        buf
    }

    proptest! {
        #[test]
        fn frames_round_trip_at_any_chunking(
            frames in prop::collection::vec((0..CHANNELS, 0u8..16, prop::collection::vec(any::<u8>(), 0..300)), 0..8),
            cuts in prop::collection::vec(1usize..40, 1..60),
        ) {
            let wire = write(&frames);
            let (mut scanner, mut buf, mut found) = (Scanner::default(), BytesMut::new(), Vec::new());
            let mut rest = &wire[..];
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let (chunk, after) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                buf.extend_from_slice(chunk);
                rest = after;
                let whole = scanner.scan(&buf, MAX).unwrap();
                let mut span = buf.split_to(whole).freeze();
                scanner.taken();
                while let Some(frame) = next(&mut span, MAX).unwrap() {
                    found.push((frame.channel, frame.kind, frame.body.to_vec()));
                }
                prop_assert!(span.is_empty());
            }
            prop_assert_eq!(found, frames);
            prop_assert!(buf.is_empty());
        }

        #[test]
        fn garbage_is_an_error_or_frames_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut scanner = Scanner::default();
            if let Ok(whole) = scanner.scan(&bytes, 64) {
                let mut span = Bytes::copy_from_slice(&bytes[..whole]);
                while next(&mut span, 64).unwrap().is_some() {}
                prop_assert!(span.is_empty());
            }
        }
    }

    #[test]
    fn an_empty_body_and_keep_alives() {
        let mut span = Bytes::from_static(&[0, 0x01, 0x1a, 0, 0x80, 0, 0x01, 0x1a]);
        let close = Frame { channel: 1, kind: 10, body: Bytes::new() };
        assert_eq!(Scanner::default().scan(&span, MAX), Ok(8));
        assert_eq!(next(&mut span, MAX), Ok(Some(close.clone())));
        assert_eq!(next(&mut span, MAX), Ok(Some(close)));
        assert_eq!(next(&mut span, MAX), Ok(None));
    }

    /// What `simple-message-channels` 1.2.1 writes for a Data with the value `hello world` and for a Have, both on channel -1.
    #[test]
    fn what_js_sends_on_a_channel_that_it_closed_is_skipped() {
        let data = [&[0x10, 0xf9, 0xff, 0xff, 0xff, 0x0f, 0x08, 0x03, 0x12, 0x0b][..], &b"hello w"[..]].concat();
        let have = [0x07, 0xf3, 0xff, 0xff, 0xff, 0x0f, 0x08, 0x05];
        let close = [0x01, 0x1a];
        let wire = [&data[..], &have, &close].concat();
        let mut scanner = Scanner::default();
        assert_eq!(scanner.scan(&wire[..data.len() - 1], MAX), Ok(0));
        assert_eq!(scanner.partial(), Some((CHANNELS, 15)));
        assert_eq!(scanner.scan(&wire, MAX), Ok(wire.len()));
        let mut span = Bytes::from(wire);
        assert_eq!(next(&mut span, MAX), Ok(Some(Frame { channel: 1, kind: 10, body: Bytes::new() })));
        assert_eq!(next(&mut span, MAX), Ok(None));
        // It is bound like any other.
        let long = [0xff, 0xff, 0xff, 0x7f, 0xf9, 0xff, 0xff, 0xff, 0x0f];
        assert!(matches!(Scanner::default().scan(&long, MAX), Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn lengths_at_the_bounds() {
        let frame = |body: u64, header: &[u8]| {
            let mut buf = BytesMut::new();
            varint::encode(body + header.len() as u64, &mut buf);
            buf.put_slice(header);
            Scanner::default().scan(&buf, MAX)
        };
        assert_eq!(frame(MAX as u64, &[0x19]), Ok(0));
        assert_eq!(
            frame(MAX as u64 + 1, &[0x19]),
            Err(FrameError::TooLong { size: MAX as u64 + 1, limit: MAX as u64 })
        );
        // A header of two bytes does not count against the body.
        assert_eq!(frame(MAX as u64, &[0x99, 0x01]), Ok(0));
        assert_eq!(Scanner::default().scan(&[0x01, 0x99, 0x01], MAX), Err(FrameError::TooShort(1)));
        assert_eq!(Scanner::default().scan(&[0xff; 8], MAX), Err(FrameError::Varint));
        assert_eq!(Scanner::default().scan(&[0x09, 0x80, 0x80, 0x80, 0x80, 0x08], MAX), Err(FrameError::Channel));
        assert_eq!(Scanner::default().scan(&[0x09, 0xff, 0xff, 0xff, 0xff, 0x07], MAX), Ok(0));
    }

    #[test]
    fn good_frames_in_front_of_a_bad_one_are_known() {
        let mut scanner = Scanner::default();
        assert_eq!(scanner.scan(&[0x01, 0x1a, 0, 0x01, 0x99, 0x01], MAX), Err(FrameError::TooShort(1)));
        assert_eq!(scanner.whole(), 3);
    }
}
