//! The two halves of a stream: what is read goes to its session, and what that has to say is written.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures_io::{AsyncRead, AsyncWrite};
use multifeed_proto::SessionError;

use super::{Half, Pump, Stage};
use crate::runtime::Runtime;
use crate::stream::member::Member;

/// The most that is read while a store has no room.
const SIGN_OF_LIFE_BYTES: usize = 1024;

impl<T: AsyncRead + AsyncWrite + Unpin, R: Runtime> Pump<T, R> {
    /// Reads at most once. While a store has no room for events, or the budget none for the message, the stream is not read. The exception is a few
    /// bytes when the remote's silence is about to end the session: a store that is slow must not make a remote look dead.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, now: Duration) -> bool {
        let has_share = self.has_share(cx);
        if self.read == Half::Over {
            return false;
        }
        if self.stage == Stage::Closed {
            return self.poll_discard(cx);
        }
        let is_full = !has_share || !self.has_room();
        if is_full && self.session.poll_timeout().is_none_or(|due| due > now) {
            return false;
        }
        let most = if is_full { SIGN_OF_LIFE_BYTES } else { self.options.read_bytes };
        let Some(buf) = self.session.recv_buf() else {
            return false;
        };
        let start = buf.len();
        // The session made room by what earlier reads brought. It has to be zeroed for each try, so not all of it is used.
        let room = (buf.capacity() - start).min(most).max(1);
        buf.resize(start + room, 0);
        let Some(space) = buf.get_mut(start..) else {
            return false;
        };
        let read = Pin::new(&mut self.stream).poll_read(cx, space);
        let count = match &read {
            Poll::Ready(Ok(count)) => (*count).min(room),
            _ => 0,
        };
        buf.truncate(start + count);
        match read {
            Poll::Pending => return false,
            Poll::Ready(Ok(0)) => {
                self.read = Half::Over;
                self.session.handle_eof();
            }
            Poll::Ready(Ok(_)) => {
                // Its error is sticky, and comes as the session's last event.
                let _ = self.session.handle_input(now);
            }
            Poll::Ready(Err(error)) if is_retry(&error) => {}
            Poll::Ready(Err(error)) => {
                self.read = Half::Over;
                self.end(Some(SessionError::Network(error.to_string())), now);
            }
        }
        true
    }

    /// After the session's end: reads on until the remote ended its half, so that closing the stream cannot destroy what is
    /// still under way to the remote.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> bool {
        let mut scratch = [0; 4096];
        match Pin::new(&mut self.stream).poll_read(cx, &mut scratch) {
            Poll::Pending => return false,
            Poll::Ready(Ok(count)) if count > 0 => {}
            Poll::Ready(Err(error)) if is_retry(&error) => {}
            Poll::Ready(_) => self.read = Half::Over,
        }
        true
    }

    /// Writes what there is, one buffer at least, then flushes; ends the half after the last byte.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, now: Duration) -> bool {
        if self.write == Half::Over {
            // The session's output has nowhere to go, but taking it is what lets the session end.
            self.out = BytesMut::new();
            while self.session.poll_output(&mut self.out) {
                self.out = BytesMut::new();
            }
            return false;
        }
        let mut moved = false;
        let mut burst = 0;
        while burst < self.options.write_bytes.max(1) {
            // Only into an empty buffer: then the session hands over its own.
            if self.out.is_empty() {
                if !self.session.poll_output(&mut self.out) {
                    break;
                }
                self.filled = self.out.len();
            }
            match Pin::new(&mut self.stream).poll_write(cx, &self.out) {
                Poll::Pending => {
                    self.outflow.blocked(now);
                    break;
                }
                Poll::Ready(Ok(count)) if count > 0 => {
                    self.outflow.written(count);
                    self.out.advance(count.min(self.out.len()));
                    if self.out.is_empty() && self.filled > self.options.credit_bytes {
                        // Not kept for the next: it is larger than most.
                        self.out = BytesMut::new();
                    }
                    burst += count;
                    self.unflushed = true;
                    if self.stage != Stage::Running {
                        self.patience = now.saturating_add(self.options.linger);
                    }
                    moved = true;
                }
                Poll::Ready(Err(error)) if is_retry(&error) => moved = true,
                Poll::Ready(result) => {
                    let error = result.err().unwrap_or_else(|| io::ErrorKind::WriteZero.into());
                    self.write_failed(&error, now);
                    return true;
                }
            }
        }
        if !self.out.is_empty() {
            return moved;
        }
        if burst < self.options.write_bytes.max(1) {
            self.outflow.drained();
        }
        if self.unflushed {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Pending => return moved,
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => {
                    self.write_failed(&error, now);
                    return true;
                }
            }
        }
        if self.session.output_finished() {
            // Its errors change nothing: every byte was taken.
            if Pin::new(&mut self.stream).poll_close(cx).is_ready() {
                self.write = Half::Over;
                self.patience = now.saturating_add(self.options.farewell);
                return true;
            }
        }
        moved
    }

    /// The remote takes no more bytes. What it sent before may still be here to read, and may hold a clean end.
    fn write_failed(&mut self, error: &io::Error, now: Duration) {
        self.write = Half::Over;
        self.out.clear();
        if self.read == Half::Over && self.stage == Stage::Running && self.members.iter().any(Member::is_synced) {
            // All that the remote sent was read: the stores are about to say whether that was all, or too early an end.
        } else if self.read == Half::Over {
            self.end(Some(SessionError::Network(error.to_string())), now);
        } else if self.stage == Stage::Running {
            self.stage = Stage::Ending;
            self.patience = now.saturating_add(self.options.linger);
        }
    }
}

fn is_retry(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Interrupted
}
