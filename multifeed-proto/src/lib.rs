//! The multifeed wire protocol as a sans-IO state machine.
//!
//! A [`Session`] speaks one stream: bytes from a socket go in, [`Event`]s come out; [`Command`]s go in, bytes for the
//! socket come out. It knows no feed, file, clock, socket or thread: time is a [`Duration`](core::time::Duration) on a clock
//! that the caller chose, randomness is drawn once, in the constructor. Given the same seed, inputs and times it emits
//! the same bytes and events.
//!
//! The wire is that of npm's `multifeed` 6.0.0 and `@frando/corestore-multifeed` 0.0.1 (hypercore-protocol 8): Noise XX,
//! XSalsa20, length-prefixed messages on numbered channels, and multifeed's handshake and feed lists as extensions.
//!
//! # The driver loop
//!
//! Whoever owns the socket turns this wheel, on one thread or several, blocking or not:
//!
//! 1. **Read** to the end of [`recv_buf`](Session::recv_buf), then call [`handle_input`](Session::handle_input) with the time. `None`
//!    instead of a buffer means: read nothing now, the session is paused until you took events or output. That is the
//!    back-pressure; it passes on to the remote by itself, since its bytes then wait in the socket. At the end of the stream, call
//!    [`handle_eof`](Session::handle_eof).
//! 2. **Take events** with [`poll_event`](Session::poll_event) until there is none, and answer them with calls, or with [`Command`]s
//!    from elsewhere. [`send_credit`](Session::send_credit) tells how much the session will still queue for a remote that reads
//!    slowly.
//! 3. **Write** what [`poll_output`](Session::poll_output) gives. When [`output_finished`](Session::output_finished), shut your half.
//! 4. **Wait** for the socket, for a command, or until [`poll_timeout`](Session::poll_timeout), and then call
//!    [`handle_timeout`](Session::handle_timeout).
//!
//! Any order of these calls is safe, and none has to come at once: a caller that is late loses nothing. After an error every
//! call tells the same one, what was queued still goes out, and the last event is [`Event::Closed`].
//!
//! A call that does not fit those before it, as one with the token of another channel that is open, does nothing and returns an
//! [`ApiMisuse`]: the session goes on. A call that only comes too late, for a channel that the remote has just closed, is no mistake.
//!
//! Here the two ends of a stream are driven in memory. A real driver does the same with a socket between them; `examples/threads.rs`
//! does it with blocking sockets, `examples/poll_loop.rs` with a thousand sessions on one thread.
//!
//! ```
//! use std::time::Duration;
//!
//! use bytes::{Bytes, BytesMut};
//! use multifeed_proto::{Config, Data, Event, FeedKey, Message, Role, Session, Token};
//!
//! /// One turn of the wheel: what `from` has to say goes to `to`; returns what `to` makes of it.
//! fn turn(from: &mut Session, to: &mut Session, now: Duration) -> Vec<Event> {
//!     let mut wire = BytesMut::new();
//!     from.poll_output(&mut wire);
//!     if let Some(buf) = to.recv_buf() {
//!         buf.extend_from_slice(&wire);
//!         to.handle_input(now).expect("an honest remote");
//!     }
//!     std::iter::from_fn(|| to.poll_event()).collect()
//! }
//!
//! let now = Duration::ZERO; // on any clock that does not run backwards
//! let mut alice = Session::new(Role::Initiator, Config::default(), now, &mut rand::rng());
//! let mut bob = Session::new(Role::Responder, Config::default(), now, &mut rand::rng());
//!
//! let feed = FeedKey::new([7; 32]);
//! let mut block = None;
//! while block.is_none() {
//!     // Alice has the feed: she offers it, opens its channel once both agreed, and sends a block.
//!     for event in turn(&mut bob, &mut alice, now) {
//!         match event {
//!             Event::Ready { root, .. } => alice.offer_feeds(root, &[feed])?,
//!             Event::Manifest { root, .. } => alice.request_feeds(root, &[])?,
//!             Event::Replicate { keys, .. } if keys == [feed] => alice.open_channel(Token(0), feed)?,
//!             Event::Opened { token } => {
//!                 // The holder of the feed (the crate `multifeed-core`) makes proofs and signatures.
//!                 let value = Some(Bytes::from_static(b"hello"));
//!                 alice.send(token, &Message::Data(Data { index: 0, value, nodes: vec![], signature: None }));
//!             }
//!             _ => {}
//!         }
//!     }
//!     // Bob wants whatever is offered.
//!     for event in turn(&mut alice, &mut bob, now) {
//!         match event {
//!             Event::Ready { root, .. } => bob.offer_feeds(root, &[])?,
//!             Event::Manifest { root, keys, .. } => bob.request_feeds(root, &keys)?,
//!             Event::Replicate { keys, .. } => {
//!                 for (token, key) in (0..).zip(keys) {
//!                     bob.open_channel(Token(token), key)?;
//!                 }
//!             }
//!             Event::Message { message: Message::Data(data), .. } => block = data.value,
//!             _ => {}
//!         }
//!     }
//! }
//! assert_eq!(block.as_deref(), Some(&b"hello"[..]));
//!
//! // The end: what is queued still goes out, then each side shuts its half.
//! bob.finish();
//! bob.poll_output(&mut BytesMut::new());
//! assert!(bob.output_finished());
//! assert_eq!(bob.poll_event(), Some(Event::Closed(Ok(()))));
//! alice.handle_eof();
//! assert_eq!(alice.poll_event(), Some(Event::RemoteEnded));
//! # Ok::<(), multifeed_proto::ApiMisuse>(())
//! ```
//!
//! # Several multifeeds, and both dialects
//!
//! A stream can carry many multifeeds: [`Session::open_root`] joins one more, at any time, and every list comes with the
//! [`Root`] that it belongs to. Feeds' channels are the stream's: a feed that two multifeeds share has one. A root key that only one
//! side has ends by itself, by [`Event::RootClosed`]. With the one root key of its [`Config`] and no other, a session insists that the
//! remote knows it, as JS does.
//!
//! multifeed 6 speaks its lists on channel 0, corestore-multifeed on the root key's own channel. A session hears both, and answers
//! in the one that the remote speaks.
//!
//! ```
//! # use std::time::Duration;
//! use multifeed_proto::{Config, FeedKey, Role, Root, RootConfig, Scope, Session};
//!
//! // A stream that several share, and that nobody has to be the first on.
//! let mut session = Session::new(Role::Initiator, Config::plain(), Duration::ZERO, &mut rand::rng());
//! session.open_root(Root(1), RootConfig::new(FeedKey::new([1; 32])))?;
//! session.open_root(Root(2), RootConfig::new(FeedKey::new([2; 32])))?;
//! // An extension of the application's own, as Cabal has one; the remote's messages come as `Event::Extension`.
//! session.register_extension(Scope::Stream, "peer-id")?;
//! session.send_extension(Scope::Stream, "peer-id", br#"{"id":"abc"}"#)?;
//! # Ok::<(), multifeed_proto::ApiMisuse>(())
//! ```
//!
//! # Who the remote is
//!
//! [`Event::Connected`] tells the remote's static key and the handshake hash. With [`Config::authenticate`] nothing else is read or
//! said until [`Session::accept`] or [`Session::refuse`] is called. Give [`Config::static_key`] to be known again yourself.
//!
//! # What goes on
//!
//! [`Session::totals`] counts bytes and messages. [`Session::set_tracer`] gives every message, in and out, to a [`Tracer`] as a
//! [`Record`]; without one it costs a comparison. The state machines are drawn in `docs/state-machines.md` of the repository.
//!
//! # What is bounded
//!
//! Everything that a remote can make a session hold has a name in [`Limits`], and the sum of them is documented there.
//! `docs/threat-model.md` of the repository lists what a hostile remote may try, each act with the test that holds it.
//!
//! # Features
//!
//! `std` (default): errors implement `std::error::Error` by way of std's own crates, and the cipher asks the processor at run time
//! what it can. Without it the crate needs `alloc` alone.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod channel;
mod config;
pub mod crypto;
#[cfg(any(test, feature = "__diagrams"))]
#[doc(hidden)]
pub mod diagrams;
mod error;
mod event;
mod exchange;
pub mod extension;
mod identity;
mod ids;
mod json;
mod key;
mod limits;
#[doc(hidden)]
pub mod machine;
mod roots;
mod session;
mod trace;
pub mod wire;

pub use config::{Config, RootConfig};
pub use error::{ApiMisuse, ExchangeError, Fault, FrameError, HandshakeError, MessageError, Phase, SessionError};
pub use event::{Command, Event, Origin, RemoteHandshake};
pub use exchange::ManifestFields;
pub use identity::{Role, StaticKeyPair};
pub use ids::{Root, Token};
pub use json::Json;
pub use key::{DEFAULT_ROOT_KEY, DiscoveryKey, FeedKey, HandshakeHash, KeyLengthError, ParseKeyError, PeerKey};
pub use limits::Limits;
pub use session::{Session, Totals};
pub use trace::{Direction, Record, Scope, Tracer};
pub use wire::message::{Data, Have, Message, Node, Options, Request};
