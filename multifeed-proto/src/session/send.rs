//! The way out: frames are written into one buffer, and encrypted when they are taken.

use core::mem;

use bytes::{BufMut, BytesMut};

use crate::crypto::cipher::Keystream;
use crate::wire::frame;

/// What waits to be sent.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Handshake messages, which are not encrypted. All of them go before everything else.
    pub(crate) handshake: BytesMut,
    /// Frames, still in the clear.
    frames: BytesMut,
    cipher: Option<Keystream>,
    /// Bytes of frames that answer the remote.
    answers: usize,
    /// Messages that were taken.
    taken: u64,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Output {
    /// The Noise handshake is done.
    pub(crate) fn encrypt_with(&mut self, cipher: Keystream) {
        self.cipher = Some(cipher);
    }

    /// Bytes that wait to be taken.
    pub(crate) fn len(&self) -> usize {
        self.handshake.len() + self.frames.len()
    }

    /// Bytes that wait to be taken and answer the remote.
    pub(crate) fn answers(&self) -> usize {
        self.answers
    }

    /// Whether a message waits to be taken: more than a keep-alive.
    pub(crate) fn has_messages(&self) -> bool {
        self.messages > self.taken
    }

    /// What was written since the output had `before` bytes answers the remote.
    pub(crate) fn answered(&mut self, before: usize) {
        self.answers += self.len().saturating_sub(before);
    }

    /// Gives back memory that is kept for what may come.
    pub(crate) fn shrink(&mut self) {
        if self.frames.is_empty() {
            self.frames = BytesMut::new();
        }
    }

    /// Starts a message; exactly `body` bytes must be appended to the buffer.
    pub(crate) fn message(&mut self, channel: u32, kind: u8, body: usize) -> &mut BytesMut {
        self.frames.reserve(body + 16);
        frame::put_header(&mut self.frames, channel, kind, body);
        self.messages += 1;
        &mut self.frames
    }

    /// Starts a message whose length its writer knows.
    pub(crate) fn frames(&mut self) -> &mut BytesMut {
        self.messages += 1;
        &mut self.frames
    }

    /// Writes a keep-alive.
    pub(crate) fn keep_alive(&mut self) {
        self.frames.put_u8(0);
    }

    /// Moves everything to the end of `out`, encrypted: without a copy if `out` is empty. Not more than `keep` bytes of
    /// capacity stay behind.
    pub(crate) fn take(&mut self, out: &mut BytesMut, keep: usize) -> bool {
        if self.len() == 0 {
            return false;
        }
        self.bytes += self.len() as u64;
        if !self.handshake.is_empty() {
            out.extend_from_slice(&self.handshake);
            self.handshake = BytesMut::new();
        }
        if let Some(cipher) = &mut self.cipher {
            cipher.apply(&mut self.frames);
        }
        if out.is_empty() {
            mem::swap(out, &mut self.frames);
        } else {
            out.extend_from_slice(&self.frames);
            self.frames.clear();
        }
        if self.frames.capacity() > keep {
            self.frames = BytesMut::new();
        }
        self.answers = 0;
        self.taken = self.messages;
        true
    }
}
