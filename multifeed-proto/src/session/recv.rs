//! The way in: bytes are decrypted where they were read to, once, and cut into whole frames.

use alloc::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::crypto::cipher::Keystream;
use crate::error::FrameError;
use crate::wire::frame::{self, Frame, Scanner};

/// Room that a new session's buffer has for a read; it doubles while reads fill it, up to [`READ_MAX`].
const READ_MIN: usize = 4 * 1024;
const READ_MAX: usize = 256 * 1024;
/// Buffers that are kept while the messages in them are in use, to be read into again.
const SPENT_MAX: usize = 8;

/// What was received.
#[derive(Debug)]
pub(crate) struct Input {
    /// What was read and is not part of `span`.
    pub(crate) buf: BytesMut,
    /// Bytes at the start of `buf` that were counted, and are decrypted if there is a cipher.
    seen: usize,
    /// Messages in `buf` were handed out.
    is_shared: bool,
    /// Buffers before `buf`, oldest first: the messages in them may still be in use. No bytes that wait are in them.
    spent: VecDeque<BytesMut>,
    cipher: Option<Keystream>,
    scanner: Scanner,
    /// Whole frames, not parsed yet.
    span: Bytes,
    /// Bytes that the last frame took off the span, with the keep-alives in front of it.
    pub(crate) consumed: usize,
    /// What follows the span is not a frame.
    bad: Option<FrameError>,
    /// How much room the next read gets.
    room: usize,
    /// The size of the allocation that `buf` is in, or more.
    held: usize,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Input {
    pub(crate) fn new() -> Self {
        Self {
            buf: BytesMut::new(),
            seen: 0,
            is_shared: false,
            spent: VecDeque::new(),
            cipher: None,
            scanner: Scanner::default(),
            span: Bytes::new(),
            consumed: 0,
            bad: None,
            room: READ_MIN,
            held: 0,
            messages: 0,
            bytes: 0,
        }
    }

    /// Where to read to, with some room at its end. The room does not depend on what the remote claims will come, but that it does not go
    /// past the end of a long message.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        if self.held > 4 * self.room && self.buf.len() <= READ_MIN {
            // A stream that has become quiet does not keep the room of a busy one, nor that of a large message for the first
            // bytes of what follows it.
            let mut fresh = BytesMut::with_capacity(self.buf.len() + self.room);
            fresh.extend_from_slice(&self.buf);
            self.buf = fresh;
            self.is_shared = false;
            self.spent = VecDeque::new();
            self.held = self.buf.capacity();
        }
        let free = self.buf.capacity() - self.buf.len();
        let (_, size) = self.arriving();
        let rest = size - self.buf.len();
        let ends_here = rest > 0 && free >= rest;
        if free < self.room / 2 && !ends_here {
            if rest > 0 && size > READ_MAX && 2 * self.buf.capacity() + self.room >= size {
                // It would double past the message's end.
                let mut whole = BytesMut::with_capacity(size);
                whole.extend_from_slice(&self.buf);
                self.buf = whole;
                self.is_shared = false;
                self.held = self.buf.capacity();
            } else {
                self.renew();
            }
        }
        &mut self.buf
    }

    /// Makes room for a read: in the buffer itself, or, if messages in it may be in use, in the oldest one before it, if that is free by now.
    /// The system gives out fresh memory page by page, which costs more than to read into it.
    fn renew(&mut self) {
        if !self.is_shared || self.held > 2 * READ_MAX || self.buf.try_reclaim(self.room) {
            self.buf.reserve(self.room);
            self.held = self.held.max(self.buf.capacity());
            return;
        }
        let size = self.buf.len() + self.room;
        let is_free = self.spent.front_mut().is_some_and(|oldest| oldest.try_reclaim(size));
        let oldest = if is_free { self.spent.pop_front() } else { None };
        let mut next = oldest.unwrap_or_else(|| BytesMut::with_capacity(size));
        next.extend_from_slice(&self.buf);
        let mut used = core::mem::replace(&mut self.buf, next);
        self.held = self.buf.capacity();
        self.is_shared = false;
        used.clear();
        if self.spent.len() == SPENT_MAX {
            self.spent.pop_front();
        }
        self.spent.push_back(used);
    }

    /// Returns the offset in the stream of the message that is arriving, and its bytes with what stands in front of it: those that came, if its
    /// length is not known yet.
    pub(crate) fn arriving(&self) -> (u64, usize) {
        (self.bytes.saturating_sub(self.buf.len() as u64), self.scanner.needed().max(self.buf.len()))
    }

    /// The rest of the stream is encrypted, from the buffer's start on.
    pub(crate) fn decrypt_with(&mut self, cipher: Keystream) {
        self.cipher = Some(cipher);
        self.seen = 0;
    }

    /// Counts what was appended to the buffer, and returns how much that was.
    pub(crate) fn count(&mut self) -> usize {
        let new = self.buf.len().saturating_sub(self.seen);
        self.bytes += new as u64;
        // The caller may have made it larger.
        self.held = self.held.max(self.buf.capacity());
        if new >= self.room {
            self.room = (self.room * 2).min(READ_MAX);
        } else if new < self.room / 8 {
            self.room = (self.room / 2).max(READ_MIN);
        }
        new
    }

    /// The handshake took what it could; what is left was counted.
    pub(crate) fn counted(&mut self) {
        self.seen = self.buf.len();
    }

    /// Decrypts what was appended, and cuts off what is whole.
    pub(crate) fn take_frames(&mut self, message_bytes: usize) {
        let new = self.buf.get_mut(self.seen..).unwrap_or_default();
        if let Some(cipher) = &mut self.cipher {
            cipher.apply(new);
        }
        self.seen = self.buf.len();
        self.cut(message_bytes);
    }

    /// The next whole frame.
    pub(crate) fn next(&mut self, message_bytes: usize) -> Result<Option<Frame>, FrameError> {
        if let Some(frame) = self.next_of_span(message_bytes)? {
            return Ok(Some(frame));
        }
        self.cut(message_bytes);
        match self.next_of_span(message_bytes)? {
            Some(frame) => Ok(Some(frame)),
            None => self.bad.map_or(Ok(None), Err),
        }
    }

    /// Whether whole frames wait.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.span.is_empty()
    }

    /// Whether the buffer ends in the middle of a frame.
    pub(crate) fn is_partial(&self) -> bool {
        !self.buf.is_empty()
    }

    /// Returns the channel and the type of the message that is not whole yet, and how many bytes of it are here. `None` while whole ones
    /// wait, and until its header is here.
    pub(crate) fn partial(&self) -> Option<(u32, u8, usize)> {
        let (channel, kind) = self.scanner.partial().filter(|_| self.span.is_empty())?;
        Some((channel, kind, self.seen.min(self.buf.len())))
    }

    /// The stream is quiet: buffers before this one are not kept.
    pub(crate) fn rest(&mut self) {
        self.spent = VecDeque::new();
    }

    /// Nothing of it is needed any more.
    pub(crate) fn clear(&mut self) {
        self.buf = BytesMut::new();
        self.spent = VecDeque::new();
        self.span = Bytes::new();
        self.seen = 0;
        self.held = 0;
        self.bad = None;
    }

    fn next_of_span(&mut self, message_bytes: usize) -> Result<Option<Frame>, FrameError> {
        let before = self.span.len();
        let frame = frame::next(&mut self.span, message_bytes)?;
        if frame.is_some() {
            self.messages += 1;
            self.consumed = before - self.span.len();
        } else if self.span.is_empty() {
            // Even with nothing left of it, it would hold on to the buffer.
            self.span = Bytes::new();
        }
        Ok(frame)
    }

    fn cut(&mut self, message_bytes: usize) {
        if !self.span.is_empty() {
            return;
        }
        // Only what is decrypted: a caller may have appended more. What was too long before may not be any more.
        let clear = self.buf.get(..self.seen).unwrap_or_default();
        self.bad = self.scanner.scan(clear, message_bytes).err();
        let whole = self.scanner.whole();
        if whole > 0 {
            self.span = self.buf.split_to(whole).freeze();
            self.is_shared = true;
            self.seen -= whole;
            self.scanner.taken();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 8 * 1024 * 1024;

    fn input() -> Input {
        let mut input = Input::new();
        input.decrypt_with(Keystream::new(&[0; 32], &[0; 24]));
        input
    }

    #[test]
    fn values_are_slices_of_the_buffer_that_was_read_to() {
        let mut input = input();
        let mut wire = BytesMut::new();
        frame::put_header(&mut wire, 3, 9, 1000);
        wire.resize(wire.len() + 1000, 7);
        wire.extend_from_slice(&[5, 5]);
        Keystream::new(&[0; 32], &[0; 24]).apply(&mut wire);
        input.buffer().extend_from_slice(&wire);
        let start = input.buf.as_ptr() as usize;
        input.count();
        input.take_frames(MAX);
        let body = input.next(MAX).unwrap().unwrap().body;
        assert_eq!(body, [7; 1000][..]);
        assert!((start..start + 1010).contains(&(body.as_ptr() as usize)));
        assert_eq!(input.next(MAX), Ok(None));
        assert!(input.is_partial());
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        let mut input = input();
        let mut wire = BytesMut::new();
        frame::put_header(&mut wire, 3, 9, MAX);
        Keystream::new(&[0; 32], &[0; 24]).apply(&mut wire);
        input.buffer().extend_from_slice(&wire);
        input.count();
        input.take_frames(MAX);
        assert_eq!(input.next(MAX), Ok(None));
        assert!(input.buffer().capacity() < 2 * READ_MIN);
    }

    #[test]
    fn the_start_of_a_frame_moves_out_of_a_large_buffer() {
        let mut input = input();
        let mut wire = BytesMut::new();
        frame::put_header(&mut wire, 3, 9, MAX);
        wire.resize(wire.len() + MAX, 7);
        frame::put_header(&mut wire, 3, 9, 4);
        let (first, second) = (wire.split_to(wire.len() - 1), wire);
        let mut cipher = Keystream::new(&[0; 32], &[0; 24]);
        for (mut piece, frames) in [(first, 1), (second, 0), (BytesMut::from(&[1, 2, 3, 4][..]), 1)] {
            cipher.apply(&mut piece);
            input.buffer().extend_from_slice(&piece);
            input.count();
            input.take_frames(MAX);
            for _ in 0..frames {
                let body = input.next(MAX).unwrap().unwrap().body;
                assert!(body == [7; MAX][..] || body == [1, 2, 3, 4][..]);
            }
            assert_eq!(input.next(MAX), Ok(None));
            let held = input.held;
            input.buffer();
            assert!(held <= 4 * input.room || input.held <= READ_MIN + input.room);
        }
        assert!(input.held < READ_MAX);
    }

    #[test]
    fn room_follows_what_is_read() {
        let mut input = input();
        for _ in 0..20 {
            let room = input.room;
            let buf = input.buffer();
            buf.resize(buf.len() + room, 0);
            input.count();
            input.clear();
        }
        assert_eq!(input.room, READ_MAX);
        assert!(input.buffer().capacity() >= READ_MAX);
        for _ in 0..20 {
            input.buffer().extend_from_slice(&[0]);
            input.count();
            input.buf.clear();
        }
        assert_eq!(input.room, READ_MIN);
        assert!(input.buffer().capacity() <= 4 * READ_MIN);
    }

    #[test]
    fn no_more_buffers_are_kept_than_the_bound_and_none_is_written_over() {
        const MESSAGE: usize = 1003;
        let (mut input, mut cipher) = (input(), Keystream::new(&[0; 32], &[0; 24]));
        let mut kept = Vec::new();
        while input.spent.len() < SPENT_MAX || kept.len() < 4 * SPENT_MAX * READ_MAX / MESSAGE {
            let mut wire = BytesMut::new();
            for _ in 0..input.room / MESSAGE {
                frame::put_header(&mut wire, 3, 9, 1000);
                wire.resize(wire.len() + 1000, kept.len() as u8);
            }
            cipher.apply(&mut wire);
            input.buffer().extend_from_slice(&wire);
            input.count();
            input.take_frames(MAX);
            let value = kept.len() as u8;
            while let Some(frame) = input.next(MAX).unwrap() {
                kept.push((value, frame.body));
            }
            assert!(input.spent.len() <= SPENT_MAX);
        }
        assert!(kept.iter().all(|(value, body)| body == &[*value; 1000][..]));
        input.rest();
        assert!(input.spent.is_empty());
    }
}
