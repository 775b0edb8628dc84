//! The session: routes between the machines.

use core::time::Duration;

use bytes::BytesMut;
use rand_core::CryptoRng;

use crate::config::{Config, Role};
use crate::error::SessionError;
use crate::event::{Command, Event, Token};
use crate::key::FeedKey;
use crate::wire::message::Message;

/// One stream's protocol (its machines follow in the next commit).
#[derive(Debug)]
pub struct Session {}

/// What went over a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Bytes received, framing and handshake included.
    pub bytes_in: u64,
    /// Bytes handed out to be sent.
    pub bytes_out: u64,
    /// Messages received.
    pub messages_in: u64,
    /// Messages sent.
    pub messages_out: u64,
}

#[allow(missing_docs, clippy::todo, unused_variables)]
impl Session {
    pub fn new(role: Role, config: Config, now: Duration, rng: &mut impl CryptoRng) -> Self {
        todo!()
    }
    pub fn recv_buf(&mut self) -> Option<&mut BytesMut> {
        todo!()
    }
    pub fn handle_input(&mut self, now: Duration) -> Result<(), SessionError> {
        todo!()
    }
    pub fn handle_eof(&mut self) {
        todo!()
    }
    pub fn handle_timeout(&mut self, now: Duration) {
        todo!()
    }
    pub fn poll_timeout(&self) -> Option<Duration> {
        todo!()
    }
    pub fn poll_event(&mut self) -> Option<Event> {
        todo!()
    }
    pub fn poll_output(&mut self, out: &mut BytesMut) -> bool {
        todo!()
    }
    pub fn output_finished(&self) -> bool {
        todo!()
    }
    pub fn send_credit(&self) -> usize {
        todo!()
    }
    pub fn totals(&self) -> Totals {
        todo!()
    }
    pub fn offer_feeds(&mut self, keys: &[FeedKey]) {
        todo!()
    }
    pub fn request_feeds(&mut self, keys: &[FeedKey]) {
        todo!()
    }
    pub fn open_channel(&mut self, token: Token, key: FeedKey) {
        todo!()
    }
    pub fn close_channel(&mut self, token: Token) {
        todo!()
    }
    pub fn send(&mut self, token: Token, message: &Message) {
        todo!()
    }
    pub fn close_root(&mut self) {
        todo!()
    }
    pub fn finish(&mut self) {
        todo!()
    }
    pub fn abort(&mut self, error: SessionError) {
        todo!()
    }
    pub fn apply(&mut self, command: Command) {
        todo!()
    }
}
