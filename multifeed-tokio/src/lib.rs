//! Multifeed on tokio: sets of signed append-only feeds that sync as one, with npm's `multifeed` 6.0.0 too, over any tokio stream.
//!
//! ```no_run
//! use multifeed_tokio::{Multifeed, Options, Replicate, Role};
//!
//! # async fn example(stream: tokio::net::TcpStream) -> Result<(), Box<dyn std::error::Error>> {
//! let multi = Multifeed::open("./db", Options::default()).await?;
//! let writer = multi.writer("local").await?;
//! writer.append("foo").await?;
//! let mut sync = multi.replicate(stream, Role::Initiator, Replicate::live());
//! while let Some(event) = sync.next().await {
//!     println!("{event:?}");
//! }
//! sync.finish().await?;
//! for feed in multi.feeds() {
//!     println!("{} {}", feed.key(), feed.len());
//! }
//! multi.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! This crate brings tokio's streams, timers and tasks; everything else, and all other documentation, is
//! [`multifeed-driver`](multifeed_driver)'s, re-exported here.

use std::future::Future;
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::compat::TokioAsyncReadCompatExt;

#[doc(no_inline)]
pub use multifeed_driver as driver;
pub use multifeed_driver::*;

/// A set of feeds that syncs as one; see [`multifeed_driver::Multifeed`], whose methods it has.
///
/// It can be opened and used on any executor; [`replicate`](Self::replicate) has to be called inside a tokio runtime.
#[derive(Debug, Clone)]
pub struct Multifeed(multifeed_driver::Multifeed);

impl Multifeed {
    /// Opens the multifeed in a folder; the folder is made where there is none.
    ///
    /// # Errors
    /// [`Error::Store`] where another process has the folder open, or it cannot be made or read.
    pub async fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        multifeed_driver::Multifeed::open(path, options).await.map(Self)
    }

    /// Opens the multifeed of a root key in a corestore; see [`multifeed_driver::Multifeed::in_corestore`].
    ///
    /// # Errors
    /// As there.
    pub async fn in_corestore(store: &Corestore, namespace: &Namespace, root_key: FeedKey) -> Result<Self, Error> {
        multifeed_driver::Multifeed::in_corestore(store, namespace, root_key).await.map(Self)
    }

    /// A new multifeed that lives in memory.
    ///
    /// # Errors
    /// [`Error::Thread`].
    pub async fn in_memory(options: Options) -> Result<Self, Error> {
        multifeed_driver::Multifeed::in_memory(options).await.map(Self)
    }

    /// Opens the multifeed in any storage.
    ///
    /// # Errors
    /// [`Error::Store`] where it cannot be read.
    pub async fn with_storage(storage: impl Storage + Send + 'static, options: Options) -> Result<Self, Error> {
        multifeed_driver::Multifeed::with_storage(storage, options).await.map(Self)
    }

    /// Syncs with the multifeed at the other end of a stream, in a task of this runtime. The two ends of a stream must have
    /// different roles: by custom the side that connected is the initiator.
    ///
    /// # Panics
    /// Outside a tokio runtime with timers, as tokio's `spawn` does.
    pub fn replicate(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        role: Role,
        options: Replicate,
    ) -> Replication {
        self.0.replicate_on::<Tokio>(stream.compat(), role, options)
    }
}

/// Opens a stream that several multifeeds share, in a task of this runtime: see [`ProtocolStream`]. The two ends of a stream must have
/// different roles.
///
/// ```no_run
/// use multifeed_tokio::{Multifeed, Replicate, Role, StreamOptions, open_stream};
///
/// # async fn example(socket: tokio::net::TcpStream, notes: Multifeed, chat: Multifeed) -> Result<(), Box<dyn std::error::Error>> {
/// let stream = open_stream(socket, Role::Initiator, StreamOptions::default());
/// let notes = notes.replicate_over(&stream, Replicate::default());
/// let chat = chat.replicate_over(&stream, Replicate::default());
/// notes.finish().await?; // each has its own end
/// chat.finish().await?;
/// stream.finish().await?;
/// # Ok(())
/// # }
/// ```
///
/// # Panics
/// Outside a tokio runtime with timers, as tokio's `spawn` does.
pub fn open_stream(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    role: Role,
    options: StreamOptions,
) -> ProtocolStream {
    ProtocolStream::open_on::<Tokio>(stream.compat(), role, options)
}

impl From<multifeed_driver::Multifeed> for Multifeed {
    fn from(multifeed: multifeed_driver::Multifeed) -> Self {
        Self(multifeed)
    }
}

impl Deref for Multifeed {
    type Target = multifeed_driver::Multifeed;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// Tokio's timers and tasks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tokio;

impl Runtime for Tokio {
    type Sleep = tokio::time::Sleep;

    fn sleep(duration: Duration) -> Self::Sleep {
        tokio::time::sleep(duration)
    }

    fn spawn(future: impl Future<Output = ()> + Send + 'static) {
        drop(tokio::spawn(future));
    }
}
