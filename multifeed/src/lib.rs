//! Append-only signed feeds from many writers, stored in one folder and synced between peers: a Rust implementation of npm's
//! [multifeed](https://github.com/kappa-db/multifeed) 6, compatible with its wire protocol and on-disk format.
//!
//! - A *feed* is an append-only list of blocks (any bytes, just under 8 MiB each at most) signed by one writer.
//! - A [`Multifeed`] is a set of feeds: yours (you may have several, each with a local name) and other people's. Every block is checked against its
//!   writer's signature before it is stored, so any peer that has a feed can pass it on.
//! - A *store* is the folder that a multifeed is kept in.
//! - The *root key* is the multifeed's shared secret: any 32 random bytes, made by [`generate_root_key`] or `multifeed keygen`. Peers with the same root key
//!   sync with each other, and anyone who knows it can read every feed and add feeds. [`Options::new`] takes it. `Options::default()` uses a
//!   publicly known key: anyone can join, so such a set is not private. A root key has the same type as a feed key, [`FeedKey`].
//!
//! ```toml
//! [dependencies]
//! multifeed = { path = "…/multifeed" } # or git = "…": there is no release on crates.io yet
//! tokio = { version = "1", features = ["macros", "net", "rt-multi-thread", "signal"] } # for the examples
//! ```
//!
//! Once, until both sides have the same blocks:
//!
//! ```no_run
//! use multifeed::{Multifeed, Options, Replicate, Role};
//! use tokio::net::TcpStream;
//!
//! # #[cfg(feature = "tokio")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let multi = Multifeed::open("./db", Options::default()).await?;
//! let writer = multi.writer("local").await?; // our own `Feed` of that name, created if there is none
//! writer.append("foo").await?;
//!
//! let stream = TcpStream::connect("192.0.2.7:7000").await?;
//! let sync = multi.replicate(stream, Role::Initiator, Replicate::default());
//! let totals = sync.finish().await?; // Ok means that both sides now have the same blocks
//! println!("{} blocks received", totals.moved.blocks_received);
//! for feed in multi.feeds() {
//!     println!("{} {} {:?}", feed.key(), feed.len(), feed.head().await?);
//! }
//! multi.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Continuously, accepting any number of incoming peers and dialling one:
//!
//! ```no_run
//! use multifeed::{
//!     Feed, FeedKey, Multifeed, Networker, NetworkerEvent, NetworkerOptions, Options, ReadOptions, Replicate, Role,
//! };
//! use tokio::net::{TcpListener, TcpStream};
//!
//! # #[cfg(feature = "tokio")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let root: FeedKey = std::env::var("ROOT_KEY")?.parse()?; // 64 hex digits, as `multifeed keygen` prints them
//! let multi = Multifeed::open("./db", Options::new(root)).await?;
//! let networker = Networker::new(NetworkerOptions::default())?;
//! networker.join(&multi, Replicate::live())?;
//! let mut events = networker.events(); // what happens from now on
//! networker.dial(|| TcpStream::connect("192.0.2.7:7000"))?; // retries until connected, and reconnects when the connection drops
//!
//! tokio::spawn(async move {
//!     while let Some(event) = events.next().await {
//!         match event {
//!             NetworkerEvent::Redial { error: Some(error), after, .. } => eprintln!("{error}: dialling again in {after:?}"),
//!             NetworkerEvent::RootKeyMismatch { .. } => eprintln!("a peer has another root key"),
//!             NetworkerEvent::RootOver { result: Err(error), .. } => eprintln!("a session failed: {error}"),
//!             _ => {}
//!         }
//!     }
//! });
//! let mut feeds = multi.all_feeds(); // each feed once, ours included: those in the store, then each new one
//! tokio::spawn(async move {
//!     while let Some(feed) = feeds.next().await {
//!         tokio::spawn(print_all(feed));
//!     }
//! });
//! let listener = TcpListener::bind("0.0.0.0:7000").await?;
//! loop {
//!     tokio::select! {
//!         accepted = listener.accept() => {
//!             let (stream, address) = accepted?;
//!             // Fails if there are too many connections. The stream is dropped, and the others go on.
//!             if let Err(error) = networker.connect(stream, Role::Responder) {
//!                 eprintln!("{address}: {error}");
//!             }
//!         }
//!         _ = tokio::signal::ctrl_c() => break,
//!     }
//! }
//! networker.close().await; // ends every session cleanly; the multifeed stays open
//! multi.close().await?; // fsyncs, and ends the live streams
//! # Ok(())
//! # }
//!
//! /// Prints a feed's blocks in order, then each new one.
//! async fn print_all(feed: Feed) {
//!     let name = if feed.writable() { "me".into() } else { format!("{:?}", feed.key()) }; // such as "06893efb…"
//!     let mut blocks = feed.stream(ReadOptions::live());
//!     while let Some(block) = blocks.next().await {
//!         match block {
//!             Ok(block) => println!("{name}: {}", String::from_utf8_lossy(&block)),
//!             Err(error) => eprintln!("{name}: {error}"),
//!         }
//!     }
//! }
//! ```
//!
//! # Good to know
//!
//! - `Multifeed`, `Feed` and `Networker` are handles. Cloning one is cheap; clones can be sent to other tasks and all refer to the same underlying object.
//! - Every block of every feed is fetched, unless the multifeed is opened as [sparse](Options::with_sparse).
//! - A live stream (`ReadOptions::live()`) waits for blocks that are missing or not written yet, and ends (`None`) when the multifeed is closed. A stream
//!   with `ReadOptions::default()` also waits for missing blocks, and ends at the length that the feed had when the stream was created. After an error
//!   a stream ends.
//! - [`Multifeed::open`] creates the folder if there is none. Blocks are anything that is `AsRef<[u8]>`.
//! - Blocks are ordered within a feed only. Put a timestamp, or links to other feeds' blocks, into the blocks if you need more.
//! - A writer's name is local: peers see only its key. `{}` prints a key in full, `{:?}` its first eight digits and an ellipsis. A root key
//!   is printed the same way: do not log it with `{}`.
//! - The folder does not record its root key (nor does JS's). Opening it with another key is not an error: the same feeds are then offered to that key's
//!   peers.
//! - Once `append(…).await` has returned, its blocks survive if the process is killed. By default, blocks are fsynced only by [`Multifeed::close`] and
//!   [`Multifeed::sync_to_disk`], so a power cut may take those written since the last of these; [`Durability`] changes that.
//! - `Networker::connect` takes an already connected stream, incoming or outgoing. The side that opened the connection passes `Role::Initiator`, the other
//!   `Role::Responder`. `Networker::dial` opens the connection for you, and keeps retrying even if the first attempt fails. What `join`, `connect` and
//!   `dial` return may be dropped.
//! - Only one process at a time can open a store for writing.
//!
//! # Where to go on
//!
//! | to | see |
//! |---|---|
//! | write blocks and read them | [`Multifeed::writer`], [`Feed::append`], [`Feed::get`], [`Feed::stream`] |
//! | be notified of every feed | [`Multifeed::all_feeds`], [`Multifeed::events`] |
//! | sync over one stream, live or once | [`Multifeed::replicate`], [`Replicate`], [`Replication`] |
//! | track sync progress | [`Replication::state`], [`Multifeed::in_sync`], [`SyncEvent::Progress`] |
//! | sync several root keys over one connection | [`open_stream`], [`Multifeed::replicate_over`] |
//! | keep many connections, and reconnect | [`Networker`] |
//! | have peers find each other | the feature `swarm`, or `hyperswarm` with its DHT |
//! | store many multifeeds in one folder, as corestore does | [`Corestore`], [`Multifeed::in_corestore`] |
//! | choose which feeds are offered, fetched and served | [`Policy`] |
//! | keep a writer's secret key in a keychain or an HSM | [`Signer`], [`Multifeed::writer_with_signer`] |
//! | send custom messages (extensions) | [`Replication::register_extension`], [`Feed::register_extension`] |
//!
//! `examples/` has a chat, several root keys on one connection, an extension, a policy, a progress bar and a corestore.
//!
//! # If two peers do not sync
//!
//! The usual reasons:
//!
//! - The root keys differ: [`NetworkerEvent::RootKeyMismatch`], or, with `Multifeed::replicate`, an error whose `code()` is
//!   `ERR_ROOT_KEY_MISMATCH`.
//! - Both sides have the same [`Role`].
//! - One side used a one-shot `Replicate::default()` and has already finished.
//!
//! With a subscriber such as `tracing-subscriber`, `RUST_LOG=multifeed=debug` shows what happens on each connection.
//!
//! # Features
//!
//! Enable at least one runtime feature. The crate root re-exports that runtime's types; if several are enabled, tokio's.
//!
//! | feature | module | provides |
//! |---|---|---|
//! | `tokio` (default) | the root | tokio streams, tasks and timers |
//! | `smol` | `multifeed::smol` | futures-io streams, smol tasks and timers |
//! | `async-std` | `multifeed::async_std` | the same for async-std, which is discontinued (RUSTSEC-2025-0052): prefer smol. If `smol` is enabled too, `replicate` uses smol |
//! | `swarm` | `multifeed::swarm` | finds peers on the local network, or takes their addresses |
//! | `hyperswarm` | `multifeed::swarm` | also finds peers through hyperswarm's DHT |
//! | `tracing` (default) | | emits `tracing` events, with targets `multifeed::store`, `session`, `feed`, `stream` and `networker` |
//! | `serde` | | serializes keys (as hex), states and totals |
//!
//! # Debug builds
//!
//! Debug builds are slow, because hashing and encryption are unoptimised. Add this to your `Cargo.toml`:
//!
//! ```toml
//! [profile.dev.package."*"]
//! opt-level = 2
//! ```
//!
//! [`Multifeed::open`]: driver::Multifeed::open
//! [`Multifeed::writer`]: driver::Multifeed::writer
//! [`Multifeed::writer_with_signer`]: driver::Multifeed::writer_with_signer
//! [`Multifeed::all_feeds`]: driver::Multifeed::all_feeds
//! [`Multifeed::events`]: driver::Multifeed::events
//! [`Multifeed::in_sync`]: driver::Multifeed::in_sync
//! [`Multifeed::replicate_over`]: driver::Multifeed::replicate_over
//! [`Multifeed::close`]: driver::Multifeed::close
//! [`Multifeed::sync_to_disk`]: driver::Multifeed::sync_to_disk

#[cfg(not(any(feature = "tokio", feature = "smol", feature = "async-std")))]
compile_error!("enable at least one of the features `tokio`, `smol` and `async-std`");

#[cfg(feature = "async-std")]
#[doc(no_inline)]
pub use multifeed_async_std as async_std;
#[cfg(feature = "smol")]
#[doc(no_inline)]
pub use multifeed_async_std as smol;
#[cfg(feature = "swarm")]
#[doc(no_inline)]
pub use multifeed_swarm as swarm;
#[cfg(feature = "tokio")]
#[doc(no_inline)]
pub use multifeed_tokio as tokio;

#[cfg(not(feature = "tokio"))]
pub use multifeed_async_std::*;
#[cfg(feature = "tokio")]
pub use multifeed_tokio::*;

// The README's example compiles.
#[cfg(all(doctest, feature = "tokio"))]
#[doc = include_str!("../README.md")]
struct Readme;
