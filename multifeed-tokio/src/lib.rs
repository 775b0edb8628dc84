//! Multifeed on tokio: append-only signed feeds from many writers, synced over any tokio stream, also with npm's `multifeed` 6.0.0.
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
//! Most applications depend on the crate `multifeed`, which has this one at its root.
//!
//! This crate brings tokio's streams, timers and tasks; everything else, and all other documentation, is
//! [`multifeed-driver`](multifeed_driver)'s, re-exported here.

use std::future::Future;
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::compat::TokioAsyncReadCompatExt;

#[doc(no_inline)]
pub use multifeed_driver as driver;
pub use multifeed_driver::*;

/// A set of feeds, ours and other people's, that syncs as one; see [`multifeed_driver::Multifeed`], whose methods it has.
///
/// It can be opened and used on any executor; [`replicate`](Self::replicate) has to be called inside a tokio runtime.
#[derive(Debug, Clone)]
pub struct Multifeed(multifeed_driver::Multifeed);

impl Multifeed {
    /// Opens the multifeed in a folder, and makes the folder if there is none.
    ///
    /// # Errors
    /// [`Error::Store`] if another process has the folder open, or it cannot be made or read.
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

    /// Makes a multifeed that lives in memory.
    ///
    /// # Errors
    /// [`Error::Thread`].
    pub async fn in_memory(options: Options) -> Result<Self, Error> {
        multifeed_driver::Multifeed::in_memory(options).await.map(Self)
    }

    /// Opens the multifeed in any storage.
    ///
    /// # Errors
    /// [`Error::Store`] if it cannot be read.
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

/// Syncs any number of multifeeds over any number of connections; see [`multifeed_driver::Networker`], whose methods it has.
///
/// ```no_run
/// use multifeed_tokio::{Multifeed, Networker, NetworkerOptions, Replicate, Role};
/// use tokio::net::{TcpListener, TcpStream};
///
/// # async fn example(notes: Multifeed, chat: Multifeed) -> Result<(), Box<dyn std::error::Error>> {
/// let networker = Networker::new(NetworkerOptions::default())?;
/// networker.join(&notes, Replicate::live())?;
/// networker.dial(|| TcpStream::connect("192.0.2.7:7000"))?; // retries until connected, and reconnects when the connection drops
/// networker.join(&chat, Replicate::live())?; // starts on the existing connections
/// let listener = TcpListener::bind("0.0.0.0:7000").await?;
/// loop {
///     let (socket, address) = listener.accept().await?;
///     let source = address.ip().to_string();
///     if let Err(error) = networker.connect_from(socket, Role::Responder, source) {
///         println!("{address}: {error}");
///     }
/// }
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Networker(multifeed_driver::Networker);

impl Networker {
    /// Makes a networker.
    ///
    /// # Errors
    /// [`NetworkerError::Random`].
    pub fn new(options: NetworkerOptions) -> Result<Self, NetworkerError> {
        multifeed_driver::Networker::new(options).map(Self)
    }

    /// Takes a stream that is connected already, accepted or dialled, and serves it in a task of this runtime; see
    /// [`multifeed_driver::Networker::connect_on`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// Outside a tokio runtime with timers, as tokio's `spawn` does.
    pub fn connect(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        role: Role,
    ) -> Result<ConnectionId, NetworkerError> {
        self.0.connect_on::<Tokio>(stream.compat(), role, None)
    }

    /// As [`connect`](Self::connect), with a name for who the peer is, such as its address: see [`Replicate::source`].
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    ///
    /// # Panics
    /// As [`connect`](Self::connect).
    pub fn connect_from(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        role: Role,
        source: impl Into<String>,
    ) -> Result<ConnectionId, NetworkerError> {
        self.0.connect_on::<Tokio>(stream.compat(), role, Some(source.into()))
    }

    /// Connects and keeps the connection, in a task of this runtime: retries until connected, and reconnects. The returned [`Dial`] may be dropped; see
    /// [`multifeed_driver::Networker::dial_on`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// As [`connect`](Self::connect).
    pub fn dial<C, F, T>(&self, connector: C) -> Result<Dial, NetworkerError>
    where
        C: Fn() -> F + Send + 'static,
        F: Future<Output = io::Result<T>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.dial_with(connector, DialOptions::default())
    }

    /// As [`dial`](Self::dial), with options.
    ///
    /// # Errors
    /// As [`dial`](Self::dial).
    ///
    /// # Panics
    /// As [`connect`](Self::connect).
    pub fn dial_with<C, F, T>(&self, connector: C, options: DialOptions) -> Result<Dial, NetworkerError>
    where
        C: Fn() -> F + Send + 'static,
        F: Future<Output = io::Result<T>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connector = move || {
            let connecting = connector();
            async move { connecting.await.map(TokioAsyncReadCompatExt::compat) }
        };
        self.0.dial_on::<Tokio, _, _, _>(connector, options)
    }
}

impl From<multifeed_driver::Networker> for Networker {
    fn from(networker: multifeed_driver::Networker) -> Self {
        Self(networker)
    }
}

impl Deref for Networker {
    type Target = multifeed_driver::Networker;

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
