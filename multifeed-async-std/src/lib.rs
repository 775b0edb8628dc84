//! Multifeed on `futures-io` streams: append-only signed feeds from many writers, synced also with npm's `multifeed` 6.0.0.
//!
//! Tasks and timers are smol's (feature `smol`, the default) or async-std's (feature `async-std`; async-std is discontinued, see RUSTSEC-2025-0052).
//! If both features are on, [`Multifeed::replicate`] uses smol's. [`Multifeed::replicate_on`] names the runtime.
//!
//! Most applications depend on the crate `multifeed`, which has this one as `multifeed::smol`.
//!
//! ```no_run
//! use multifeed_async_std::{Multifeed, Options, Replicate, Role};
//!
//! # async fn example<S>(stream: S) -> Result<(), Box<dyn std::error::Error>>
//! # where S: futures_io::AsyncRead + futures_io::AsyncWrite + Unpin + Send + 'static {
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
//! This crate brings tasks and timers; everything else, and all other documentation, is
//! [`multifeed-driver`](multifeed_driver)'s, re-exported here.

#[cfg(not(any(feature = "async-std", feature = "smol")))]
compile_error!("enable at least one of the features `async-std` and `smol`");

mod half_close;

use std::future::Future;
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use futures_io::{AsyncRead, AsyncWrite};

use half_close::HalfClose;

#[doc(no_inline)]
pub use multifeed_driver as driver;
pub use multifeed_driver::*;

/// A set of feeds, ours and other people's, that syncs as one; see [`multifeed_driver::Multifeed`], whose methods it has.
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

    /// Syncs with the multifeed at the other end of a stream, in a task of the runtime. The two ends of a stream must have
    /// different roles: by custom the side that connected is the initiator.
    pub fn replicate(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        role: Role,
        options: Replicate,
    ) -> Replication {
        self.replicate_on::<DefaultRuntime>(stream, role, options)
    }

    /// As [`replicate`](Self::replicate), on the given runtime.
    pub fn replicate_on<R: Runtime>(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        role: Role,
        options: Replicate,
    ) -> Replication {
        self.0.replicate_on::<R>(HalfClose::new(stream), role, options)
    }
}

/// Opens a stream that several multifeeds share, in a task of the runtime: see [`ProtocolStream`]. The two ends of a stream must have
/// different roles.
///
/// ```no_run
/// use multifeed_async_std::{Multifeed, Replicate, Role, StreamOptions, open_stream};
///
/// # async fn example<S>(socket: S, notes: Multifeed, chat: Multifeed) -> Result<(), Box<dyn std::error::Error>>
/// # where S: futures_io::AsyncRead + futures_io::AsyncWrite + Unpin + Send + 'static {
/// let stream = open_stream(socket, Role::Initiator, StreamOptions::default());
/// let notes = notes.replicate_over(&stream, Replicate::default());
/// let chat = chat.replicate_over(&stream, Replicate::default());
/// notes.finish().await?; // each has its own end
/// chat.finish().await?;
/// stream.finish().await?;
/// # Ok(())
/// # }
/// ```
pub fn open_stream(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    role: Role,
    options: StreamOptions,
) -> ProtocolStream {
    open_stream_on::<DefaultRuntime>(stream, role, options)
}

/// As [`open_stream`], on the given runtime.
pub fn open_stream_on<R: Runtime>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    role: Role,
    options: StreamOptions,
) -> ProtocolStream {
    ProtocolStream::open_on::<R>(HalfClose::new(stream), role, options)
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
/// use multifeed_async_std::{Multifeed, Networker, NetworkerOptions, Replicate, Role};
///
/// # async fn example<S>(notes: Multifeed, chat: Multifeed, socket: S) -> Result<(), Box<dyn std::error::Error>>
/// # where S: futures_io::AsyncRead + futures_io::AsyncWrite + Unpin + Send + 'static {
/// let networker = Networker::new(NetworkerOptions::default())?;
/// networker.join(&notes, Replicate::live())?;
/// networker.connect(socket, Role::Responder)?;
/// networker.join(&chat, Replicate::live())?; // starts on the existing connections
/// # Ok(())
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

    /// Takes a stream that is connected already, accepted or dialled, and serves it in a task of the runtime; see
    /// [`multifeed_driver::Networker::connect_on`].
    ///
    /// # Errors
    /// As there.
    pub fn connect(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        role: Role,
    ) -> Result<ConnectionId, NetworkerError> {
        self.connect_on::<DefaultRuntime>(stream, role, None)
    }

    /// As [`connect`](Self::connect), with a name for who the peer is, such as its address: see [`Replicate::source`].
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_from(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        role: Role,
        source: impl Into<String>,
    ) -> Result<ConnectionId, NetworkerError> {
        self.connect_on::<DefaultRuntime>(stream, role, Some(source.into()))
    }

    /// As [`connect_from`](Self::connect_from), on the given runtime.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_on<R: Runtime>(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        role: Role,
        source: Option<String>,
    ) -> Result<ConnectionId, NetworkerError> {
        self.0.connect_on::<R>(HalfClose::new(stream), role, source)
    }

    /// Connects and keeps the connection, in a task of the runtime: retries until connected, and reconnects. The returned [`Dial`] may be dropped; see
    /// [`multifeed_driver::Networker::dial_on`].
    ///
    /// # Errors
    /// As there.
    pub fn dial<C, F, T>(&self, connector: C) -> Result<Dial, NetworkerError>
    where
        C: Fn() -> F + Send + 'static,
        F: Future<Output = io::Result<T>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.dial_on::<DefaultRuntime, C, F, T>(connector, DialOptions::default())
    }

    /// As [`dial`](Self::dial), with options, on the given runtime.
    ///
    /// # Errors
    /// As [`dial`](Self::dial).
    pub fn dial_on<R, C, F, T>(&self, connector: C, options: DialOptions) -> Result<Dial, NetworkerError>
    where
        R: Runtime,
        C: Fn() -> F + Send + 'static,
        F: Future<Output = io::Result<T>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connector = move || {
            let connecting = connector();
            async move { connecting.await.map(HalfClose::new) }
        };
        self.0.dial_on::<R, _, _, _>(connector, options)
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

#[cfg(feature = "smol")]
type DefaultRuntime = Smol;
#[cfg(not(feature = "smol"))]
type DefaultRuntime = AsyncStd;

/// async-std's tasks and timers.
#[cfg(feature = "async-std")]
#[derive(Debug, Clone, Copy, Default)]
pub struct AsyncStd;

#[cfg(feature = "async-std")]
impl Runtime for AsyncStd {
    type Sleep = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

    fn sleep(duration: Duration) -> Self::Sleep {
        Box::pin(async_std::task::sleep(duration))
    }

    fn spawn(future: impl Future<Output = ()> + Send + 'static) {
        drop(async_std::task::spawn(future));
    }
}

/// smol's tasks, on its global executor, and timers.
#[cfg(feature = "smol")]
#[derive(Debug, Clone, Copy, Default)]
pub struct Smol;

#[cfg(feature = "smol")]
impl Runtime for Smol {
    type Sleep = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

    fn sleep(duration: Duration) -> Self::Sleep {
        Box::pin(async move {
            smol::Timer::after(duration).await;
        })
    }

    fn spawn(future: impl Future<Output = ()> + Send + 'static) {
        smol::spawn(future).detach();
    }
}
