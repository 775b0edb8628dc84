//! What a remote may send before it has proven anything, and how much of a message is there.

use super::{Session, State};
use crate::error::SessionError;

impl Session {
    /// Returns whether the remote has proven that it knows a key of ours: it opened a root key's channel, or a feed's, that is open here, with the
    /// right capability. Also true once it was [accepted](Self::accept). Until then it is bounded by
    /// [`Limits::unproven_message_bytes`](crate::Limits::unproven_message_bytes) and
    /// [`Limits::unproven_bytes`](crate::Limits::unproven_bytes).
    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// Returns how many bytes the message that is arriving takes in all, its header included, as far as that is known: what
    /// [`recv_buf`](Self::recv_buf) grows to. 0 between messages.
    pub fn incoming_bytes(&self) -> usize {
        self.arriving().map_or(0, |(_, _, size)| size)
    }

    /// Returns the message that is arriving: its offset in the stream, and how many of its bytes came, of how many.
    pub(super) fn arriving(&self) -> Option<(u64, u64, usize)> {
        let is_there = matches!(self.state, State::Open(_)) && self.input.is_partial() && !self.input.is_waiting();
        is_there.then(|| {
            let (start, size) = self.input.arriving();
            (start, self.input.buf.len() as u64, size)
        })
    }

    /// The largest message body that is taken now.
    pub(super) fn message_limit(&self) -> usize {
        let limits = &self.io.limits;
        if self.proven { limits.message_bytes } else { limits.message_bytes.min(limits.unproven_message_bytes) }
    }

    /// Counts what a remote sends that has proven nothing. If no root key was named, nobody can prove one before a multifeed joins; who was
    /// admitted is to do so all the same.
    pub(super) fn count_unproven(&mut self) -> Result<(), SessionError> {
        if self.proven || !(self.roots.is_strict() || self.admitted) {
            return Ok(());
        }
        self.unproven = self.unproven.saturating_add(self.input.consumed as u64);
        let limit = self.io.limits.unproven_bytes;
        if self.unproven > limit { Err(SessionError::Limit { what: "unproven_bytes", limit }) } else { Ok(()) }
    }
}
