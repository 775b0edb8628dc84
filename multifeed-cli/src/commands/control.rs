//! The control socket of a store that is served or synced live: `append` beside the running process goes through it.
//!
//! Only the user who runs the process can use it. A connection is one request: a line of JSON, then batches of blocks. Each batch is answered by a line
//! of JSON; an empty one ends the request, and is answered after all of it was synced to the disk. A batch is its number of blocks, and for each
//! block its length and its bytes; numbers have 4 bytes, big-endian.

use std::borrow::Cow;

use bytes::Bytes;
use multifeed_tokio::FeedKey;
use multifeed_tokio::driver::core::limits::MAX_BLOCK_BYTES;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::args::Global;
use crate::error::{CliError, code};
use crate::input::{BATCH_BYTES, LEAST_BLOCK};

use unix::Stream;
pub(super) use unix::{Control, connect, is_served};

/// Bytes of a line, at the most.
const MOST_LINE: u64 = 64 * 1024;

/// What an append is about.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) writer: String,
    pub(super) new_key: bool,
    /// Each batch is synced to the disk before it is answered.
    pub(super) sync_each: bool,
    /// Which multifeed of a corestore is meant.
    pub(super) place: Place,
}

/// A multifeed of a corestore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// The discovery key of its root key, in hex. The root key itself is not given away.
    root: String,
    namespace: String,
}

impl Place {
    pub(super) fn new(root_key: &FeedKey, global: &Global) -> Self {
        let namespace = global.corestore.namespace().default_name().to_owned();
        Self { root: root_key.discovery_key().to_string(), namespace }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Reply {
    /// The writer is open.
    Open {
        key: String,
        name: String,
        length: u64,
    },
    /// A batch was appended, or all is on the disk.
    Done {
        length: u64,
    },
    Failed {
        code: String,
        message: String,
    },
}

/// A writer of a store that another process has open.
pub(super) struct Remote {
    stream: Stream,
    pub(super) key: String,
    pub(super) name: String,
    pub(super) length: u64,
}

impl Remote {
    /// Opens the writer over there.
    async fn open(mut stream: Stream, request: &Request) -> Result<Self, CliError> {
        let sent = write_line(&mut stream, request).await;
        // Who is refused may have been answered before it asked.
        let answer = match (reply(&mut stream).await, sent) {
            (Err(error), Err(unsent)) if error.code() == code::IO => return Err(lost(unsent)),
            (answer, _) => answer?,
        };
        match answer {
            Reply::Open { key, name, length } => Ok(Self { stream, key, name, length }),
            _ => Err(unexpected()),
        }
    }

    /// Appends a batch.
    pub(super) async fn append(&mut self, blocks: &[Bytes]) -> Result<(), CliError> {
        write_batch(&mut self.stream, blocks).await.map_err(lost)?;
        match reply(&mut self.stream).await? {
            Reply::Done { length } => self.length = length,
            _ => return Err(unexpected()),
        }
        Ok(())
    }

    /// Returns once all that was appended is on the disk.
    pub(super) async fn finish(&mut self) -> Result<(), CliError> {
        let length = self.length;
        self.append(&[]).await?;
        // Others may have appended meanwhile.
        self.length = length;
        Ok(())
    }
}

async fn reply(stream: &mut (impl AsyncBufRead + Unpin)) -> Result<Reply, CliError> {
    match read_line(stream).await.map_err(lost)? {
        Some(Reply::Failed { code, message }) => Err(CliError::new(Cow::Owned(code), message)),
        Some(reply) => Ok(reply),
        None => Err(lost(std::io::ErrorKind::UnexpectedEof.into())),
    }
}

fn lost(error: std::io::Error) -> CliError {
    let why = "the process that has the store open did not answer, so the last blocks may be appended or not";
    CliError::new(code::IO, format!("{why}: {error}"))
}

fn unexpected() -> CliError {
    CliError::new(code::IO, "the process that has the store open is of another version: end it, and try again")
}

async fn write_line(stream: &mut (impl AsyncWrite + Unpin), value: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.flush().await
}

/// Reads a line; `None` at the end.
async fn read_line<T: for<'a> Deserialize<'a>>(stream: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<T>> {
    let mut line = Vec::new();
    if stream.take(MOST_LINE).read_until(b'\n', &mut line).await? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

async fn write_batch(stream: &mut (impl AsyncWrite + Unpin), blocks: &[Bytes]) -> std::io::Result<()> {
    let number = |number: usize| u32::try_from(number).map_err(|_| std::io::ErrorKind::InvalidInput);
    stream.write_u32(number(blocks.len())?).await?;
    for block in blocks {
        stream.write_u32(number(block.len())?).await?;
        stream.write_all(block).await?;
    }
    stream.flush().await
}

/// Reads a batch. It has the bounds that [`Input`](crate::input::Input) keeps.
async fn read_batch(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<Bytes>> {
    let too_much = || std::io::Error::new(std::io::ErrorKind::InvalidData, "a batch of more bytes than one may have");
    let mut left = BATCH_BYTES + MAX_BLOCK_BYTES;
    let mut blocks = Vec::new();
    for _ in 0..stream.read_u32().await? {
        let size = stream.read_u32().await? as usize;
        left = left.checked_sub(size.max(LEAST_BLOCK)).ok_or_else(too_much)?;
        let mut block = Vec::new();
        if stream.take(size as u64).read_to_end(&mut block).await? < size {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        blocks.push(block.into());
    }
    Ok(blocks)
}

mod unix {
    use std::fs::{self, File, Permissions};
    use std::io;
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    use std::path::{Path, PathBuf};
    use std::sync::{Arc, OnceLock};

    use multifeed_tokio::{Error, Multifeed, StoreError};
    use tokio::io::BufStream;
    use tokio::net::{UnixListener, UnixStream};
    use tokio::sync::Semaphore;
    use tokio::task::{JoinHandle, JoinSet};

    use super::{CliError, Place, Remote, Reply, Request, code, read_batch, read_line, write_line};
    use crate::commands::writers::open_writer;

    /// The socket's name beside the numbered folders. JS does not look at it.
    const SOCKET: &str = "multifeed.socket";

    /// Requests at once; each may hold a batch in memory.
    const AT_ONCE: usize = 8;

    /// The socket of a store that this process has open. It goes with this.
    pub(in crate::commands) struct Control {
        path: PathBuf,
        serving: JoinHandle<()>,
        /// What an append failed with that found the store moved.
        moved: Arc<OnceLock<CliError>>,
        /// The path leads through it.
        _folder: File,
    }

    impl Control {
        /// Listens for other commands. `None` if the disk holds no sockets; those commands then say that the store is locked.
        pub(in crate::commands) fn listen(store: &Path, served: Vec<(Place, Multifeed)>) -> Option<Self> {
            match Self::try_listen(store, served) {
                Ok(control) => Some(control),
                Err(error) => {
                    tracing::info!("no control socket in {}: {error}", store.display());
                    None
                }
            }
        }

        fn try_listen(store: &Path, served: Vec<(Place, Multifeed)>) -> io::Result<Self> {
            let (folder, path) = path_in(store)?;
            // The lock of the store is ours: what is there is left over, unless the disk has no locks.
            match fs::symlink_metadata(&path) {
                Ok(meta) if meta.file_type().is_socket() && std::os::unix::net::UnixStream::connect(&path).is_err() => {
                    fs::remove_file(&path)?;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
                Err(error) => return Err(error),
            }
            let listener = UnixListener::bind(&path)?;
            fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            let moved = Arc::new(OnceLock::new());
            let serving = tokio::spawn(serve(listener, served.into(), moved.clone()));
            Ok(Self { path, serving, moved, _folder: folder })
        }

        /// Ends listening. Fails if an append failed meanwhile because the store, or a feed's folder, was moved. A program that looks at this
        /// command's exit code alone has to see it too.
        pub(in crate::commands) fn end(self) -> Result<(), CliError> {
            self.moved.get().map_or(Ok(()), |error| Err(error.clone()))
        }
    }

    impl Drop for Control {
        fn drop(&mut self) {
            self.serving.abort();
            let _ = fs::remove_file(&self.path);
        }
    }

    /// The store's folder, and the socket's path. On Linux that leads through the open folder: a path of a socket has 107 bytes at the most, and a
    /// store that is moved takes its socket along.
    fn path_in(store: &Path) -> io::Result<(File, PathBuf)> {
        let folder = File::open(store)?;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let place = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&folder)));
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let place = store.to_path_buf();
        Ok((folder, place.join(SOCKET)))
    }

    /// Whether the process at the other end is of the same user, or of root.
    fn is_of_us(stream: &UnixStream) -> bool {
        let us = rustix::process::geteuid().as_raw();
        stream.peer_cred().is_ok_and(|peer| peer.uid() == us || peer.uid() == 0)
    }

    async fn serve(listener: UnixListener, served: Served, moved: Arc<OnceLock<CliError>>) {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut requests = JoinSet::new();
        while let Ok(permit) = places.clone().acquire_owned().await {
            let stream = match listener.accept().await {
                Ok((stream, _)) if is_of_us(&stream) => stream,
                Ok((stream, _)) => {
                    // It fits into what the system keeps of a new stream; nobody is waited for.
                    let _ = stream.try_write(&refusal());
                    continue;
                }
                // No file handle is left, say.
                Err(_) => {
                    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                    continue;
                }
            };
            let (served, moved) = (served.clone(), moved.clone());
            requests.spawn(async move {
                let _permit = permit;
                let mut stream = BufStream::new(stream);
                if let Err(Failure::Cli(error)) = answer(&mut stream, &served).await {
                    // Noted first: a client that hears of it may end this process.
                    if error.code() == code::MOVED {
                        let _ = moved.set(error.clone());
                    }
                    let failed = Reply::Failed { code: error.code().to_owned(), message: error.message().to_owned() };
                    let _ = write_line(&mut stream, &failed).await;
                }
            });
            while requests.try_join_next().is_some() {}
        }
    }

    /// What another user's process is answered, whatever it asked for.
    fn refusal() -> Vec<u8> {
        let message = "the store is served by another user, who alone can append to it".to_owned();
        let failed = Reply::Failed { code: code::NOT_PERMITTED.to_owned(), message };
        let mut line = serde_json::to_vec(&failed).unwrap_or_default();
        line.push(b'\n');
        line
    }

    /// Why a request ends.
    enum Failure {
        /// The other end has left, or says what makes no sense.
        Gone,
        Cli(CliError),
    }

    impl From<io::Error> for Failure {
        fn from(_: io::Error) -> Self {
            Failure::Gone
        }
    }

    impl<E: Into<CliError>> From<(E,)> for Failure {
        fn from((error,): (E,)) -> Self {
            Failure::Cli(error.into())
        }
    }

    /// The multifeeds that this process has open.
    type Served = Arc<[(Place, Multifeed)]>;

    async fn answer(stream: &mut BufStream<UnixStream>, served: &Served) -> Result<(), Failure> {
        let Some(Request { writer, new_key, sync_each, place }) = read_line(stream).await? else {
            return Err(Failure::Gone);
        };
        // A folder that is a multifeed itself is meant whatever the root key of its sessions is.
        let meant = served.iter().find(|(served, multi)| *served == place || !multi.is_in_corestore());
        let Some((_, multi)) = meant else {
            let message = "the process that has the corestore open serves another multifeed of it, with another root key or namespace: end it, and try again";
            return Err(Failure::Cli(CliError::new(code::LOCKED, message)));
        };
        let feed = open_writer(multi, &writer, new_key).await.map_err(Failure::Cli)?;
        let open = Reply::Open { key: feed.key().to_string(), name: feed.name(), length: feed.len() };
        write_line(stream, &open).await?;
        loop {
            let batch = read_batch(stream).await?;
            let is_last = batch.is_empty();
            if !is_last {
                feed.append_bytes(batch).await.map_err(|error| (error,))?;
            }
            if is_last || sync_each {
                match feed.sync_to_disk().await {
                    // The journal is full, not a file of the feed: the blocks are synced, and opening finds them without it. Reported as a failure, they
                    // would be appended twice.
                    Err(Error::Store(StoreError::Full { slot: None, .. })) => {}
                    synced => synced.map_err(|error| (error,))?,
                }
            }
            write_line(stream, &Reply::Done { length: feed.len() }).await?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Whether another process listens at a store: it has that open, whatever its lock says.
    pub(in crate::commands) async fn is_served(store: &Path) -> bool {
        let Ok((_folder, path)) = path_in(store) else { return false };
        let is_socket = fs::symlink_metadata(&path).is_ok_and(|meta| meta.file_type().is_socket());
        is_socket && UnixStream::connect(&path).await.is_ok()
    }

    /// What a request goes through.
    pub(in crate::commands) type Stream = BufStream<UnixStream>;

    /// Opens a writer of a store that another process has open; `None` if no process listens there.
    pub(in crate::commands) async fn connect(store: &Path, request: &Request) -> Option<Result<Remote, CliError>> {
        let (_folder, path) = path_in(store).ok()?;
        fs::symlink_metadata(&path).ok().filter(|meta| meta.file_type().is_socket())?;
        let stream = UnixStream::connect(&path).await.ok().filter(is_of_us)?;
        Some(Remote::open(BufStream::new(stream), request).await)
    }
}
