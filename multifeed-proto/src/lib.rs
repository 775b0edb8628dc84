//! The multifeed wire protocol as a sans-IO state machine.
//!
//! A [`Session`] speaks one stream: bytes from a socket go in, [`Event`]s come out; [`Command`]s go in, bytes for the
//! socket come out. It knows no feed, file, clock, socket or thread: time is a [`Duration`](core::time::Duration) on a clock
//! that the caller chose, randomness is drawn once, in the constructor. Given the same seed, inputs and times it emits
//! the same bytes and events.
//!
//! The wire is that of npm's `multifeed` 6.0.0 (hypercore-protocol 8): Noise XX, XSalsa20, length-prefixed messages on
//! numbered channels, and multifeed's handshake and feed lists as stream extensions.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod channel;
mod config;
pub mod crypto;
mod error;
mod event;
mod exchange;
pub mod extension;
mod json;
mod key;
mod limits;
mod session;
pub mod wire;

pub use config::{Config, Role, StaticKeyPair};
pub use error::{ExchangeError, Fault, FrameError, HandshakeError, MessageError, Phase, SessionError};
pub use event::{Command, Event, Origin, RemoteHandshake, Token};
pub use json::Json;
pub use key::{DEFAULT_ROOT_KEY, DiscoveryKey, FeedKey, ParseKeyError};
pub use limits::Limits;
pub use session::{Session, Totals};
pub use wire::message::{Data, Have, Message, Node, Options, Request};
