//! A trace of a session's messages, as data.

use core::time::Duration;

use crate::ids::{Root, Token};
use crate::wire::message::kind;

/// Takes the trace of a session: see [`Session::set_tracer`](crate::Session::set_tracer).
///
/// It is called while the session works, for each message, so it should be quick: count, or put the record away.
pub trait Tracer: Send + Sync {
    /// A message went in or out.
    fn message(&mut self, record: &Record<'_>);
}

/// A message on its way through a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record<'a> {
    /// When, on the caller's clock. For a message that came in: the time of the call that brought its bytes. For one that goes out:
    /// the last time that the caller gave the session.
    pub time: Duration,
    /// Which way.
    pub direction: Direction,
    /// The channel's number on the wire, which is the sender's: the two sides number on their own.
    pub channel: u32,
    /// The feed's channel that it is, if both sides opened it, or we did and it goes out.
    pub token: Option<Token>,
    /// The multifeed whose root key's channel it is, or whose lists the message carries.
    pub root: Option<Root>,
    /// The message's type: 0 Open, 1 Options … 10 Close, 15 Extension (simple-hypercore-protocol's `messages.js`).
    pub kind: u8,
    /// The name of the extension, if the message is one of an extension that both sides know.
    pub extension: Option<&'a str>,
    /// Bytes of the message, without length and header.
    pub size: usize,
}

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the remote.
    In,
    /// To the remote: when it was queued.
    Out,
}

/// Where an extension is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// On the stream (channel 0).
    Stream,
    /// On a feed's channel.
    Channel(Token),
    /// On a root key's own channel, if the remote speaks multifeed there.
    Root(Root),
}

impl Record<'_> {
    /// Returns the name of the message's type, as in simple-hypercore-protocol.
    pub fn name(&self) -> &'static str {
        kind::name(self.kind)
    }
}
