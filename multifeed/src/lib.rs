//! Append-only signed feeds of many writers that sync as one set: npm's [multifeed](https://github.com/kappa-db/multifeed) 6 in Rust, on the same
//! wire and on the same disk format.
//!
//! A *feed* is a list of blocks (any bytes, up to a little under 8 MiB each) that one writer extends and signs. A [`Multifeed`] is a set of feeds:
//! your own writers', and those of others, which come from any peer that has them. Every block is checked against its writer's signature before it is
//! stored. Peers that know the same *root key* sync with each other: it is the secret of a set, and whoever knows it can fetch all feeds of the set and
//! add some. [`Options::new`] takes it; `Options::default()` has the one that everyone knows, as in JS.
//!
//! Once, until both hold the same:
//!
//! ```no_run
//! use multifeed::{Multifeed, Options, Replicate, Role};
//! use tokio::net::TcpStream;
//!
//! # #[cfg(feature = "tokio")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let multi = Multifeed::open("./db", Options::default()).await?;
//! let writer = multi.writer("local").await?; // found, or made
//! writer.append("foo").await?;
//!
//! let stream = TcpStream::connect("192.0.2.7:7000").await?;
//! let sync = multi.replicate(stream, Role::Initiator, Replicate::default());
//! let totals = sync.finish().await?; // both sides hold the same, or a typed error
//! println!("{} blocks received", totals.moved.blocks_received);
//! for feed in multi.feeds() {
//!     println!("{} {} {:?}", feed.key(), feed.len(), feed.head().await?);
//! }
//! multi.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! For as long as the program runs, with any number of peers that come, and one that is dialled:
//!
//! ```no_run
//! use multifeed::{Feed, FeedKey, Multifeed, Networker, NetworkerOptions, Options, ReadOptions, Replicate, Role};
//! use tokio::net::{TcpListener, TcpStream};
//!
//! # #[cfg(feature = "tokio")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let root: FeedKey = std::env::var("ROOT_KEY")?.parse()?; // 64 hex digits, as `multifeed keygen` makes them
//! let multi = Multifeed::open("./db", Options::new(root)).await?;
//! let networker = Networker::new(NetworkerOptions::default())?;
//! networker.join(&multi, Replicate::live())?;
//! networker.dial(|| TcpStream::connect("192.0.2.7:7000"))?; // and again, if it breaks
//!
//! let mut feeds = multi.all_feeds(); // each once: those on disk, and those to come
//! tokio::spawn(async move {
//!     while let Some(feed) = feeds.next().await {
//!         tokio::spawn(print_all(feed));
//!     }
//! });
//! let listener = TcpListener::bind("0.0.0.0:7000").await?;
//! loop {
//!     let (stream, _) = listener.accept().await?;
//!     networker.connect(stream, Role::Responder)?;
//! }
//! # }
//!
//! /// Prints a feed's blocks in order, and those to come.
//! async fn print_all(feed: Feed) {
//!     let mut blocks = feed.stream(ReadOptions::live());
//!     while let Some(Ok(block)) = blocks.next().await {
//!         println!("{}", String::from_utf8_lossy(&block));
//!     }
//! }
//! ```
//!
//! `Multifeed`, `Feed` and `Networker` are handles: clones are cheap, can be sent to other tasks, and are the same thing.
//!
//! # Where to go on
//!
//! | to | see |
//! |---|---|
//! | write blocks, and read them | [`Multifeed::writer`], [`Feed::append`], [`Feed::get`], [`Feed::stream`] |
//! | hear of each feed, those on disk and new ones | [`Multifeed::all_feeds`], [`Multifeed::events`] |
//! | sync over one stream, live or until both hold the same | [`Multifeed::replicate`], [`Replicate`], [`Replication`] |
//! | know how far a sync is | [`Replication::state`], [`Multifeed::in_sync`], [`SyncEvent::Progress`] |
//! | run several root keys over one stream | [`open_stream`], [`Multifeed::replicate_over`] |
//! | keep many connections, and dial again | [`Networker`] |
//! | have peers find each other | the feature `swarm`, or `hyperswarm` with its DHT |
//! | store many multifeeds in one folder, as corestore does | [`Corestore`], [`Multifeed::in_corestore`] |
//! | choose what is offered, fetched and served | [`Policy`] |
//! | send messages of your own beside the feeds | [`Replication::register_extension`], [`Feed::register_extension`] |
//!
//! `examples/` has a chat, several root keys on one connection, an extension, a policy, a progress bar and a corestore.
//!
//! # If two peers do not sync
//!
//! `RUST_LOG=multifeed=debug` and a subscriber such as `tracing-subscriber` show what happens on each connection. The usual reasons: the root keys differ
//! (`ERR_ROOT_KEY_MISMATCH`), both sides have the same [`Role`], or one side is not live and has ended.
//!
//! # Features
//!
//! One runtime has to be on. The root of this crate has its types. If several runtimes are on, the root has tokio's.
//!
//! | feature | module | brings |
//! |---|---|---|
//! | `tokio` (default) | the root | streams, tasks and timers of tokio |
//! | `smol` | `multifeed::smol` | streams of futures-io, tasks and timers of smol |
//! | `async-std` | `multifeed::async_std` | the same with async-std, which is discontinued (RUSTSEC-2025-0052): prefer smol. If `smol` is on as well, `replicate` uses smol |
//! | `swarm` | `multifeed::swarm` | peers are found on the local network, or given by address |
//! | `hyperswarm` | `multifeed::swarm` | peers are also found by hyperswarm's DHT |
//! | `tracing` (default) | | what happens is recorded for subscribers of `tracing`, with targets `multifeed::store`, `session`, `feed`, `stream`, `networker` |
//! | `serde` | | keys (as hex), states and totals are serialized |
//!
//! # Debug builds
//!
//! Hashing and ciphers are many times slower without optimisation. Have cargo optimise the dependencies alone:
//!
//! ```toml
//! [profile.dev.package."*"]
//! opt-level = 2
//! ```
//!
//! [`Multifeed::writer`]: driver::Multifeed::writer
//! [`Multifeed::all_feeds`]: driver::Multifeed::all_feeds
//! [`Multifeed::events`]: driver::Multifeed::events
//! [`Multifeed::in_sync`]: driver::Multifeed::in_sync
//! [`Multifeed::replicate_over`]: driver::Multifeed::replicate_over

#[cfg(not(any(feature = "tokio", feature = "smol", feature = "async-std")))]
compile_error!("one of the features `tokio`, `smol` and `async-std` has to be on");

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
