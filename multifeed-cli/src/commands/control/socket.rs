//! The socket itself: where it is, who may use it, and what listens there.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use multifeed_tokio::Multifeed;
use tokio::io::{AsyncWriteExt, BufStream};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use super::Place;
use super::answer::{Failure, Served, answer};
use super::wire::{Failed, Reply, write_line};
use crate::commands::listener::{ELSEWHERE, SOCKET, elsewhere, identity, path_in, runtime_folders, socket_of};
use crate::error::{CliError, code};
use crate::output::Output;

/// Requests at once.
const AT_ONCE: usize = 64;

/// What a request goes through.
pub(in crate::commands) type Stream = BufStream<UnixStream>;

/// The socket of a store that this process has open. It goes with this.
pub(in crate::commands) struct Control {
    /// The socket, or the file that names its folder, in the store.
    path: PathBuf,
    elsewhere: Option<tempfile::TempDir>,
    serving: JoinHandle<()>,
    /// What a request failed with that found the store moved.
    moved: Arc<OnceLock<CliError>>,
    /// The path leads through it.
    _folder: File,
}

impl Control {
    /// Listens for other commands. `None` if there can be no socket; those commands then say that the store is locked.
    pub(in crate::commands) fn listen(store: &Path, served: Vec<(Place, Multifeed)>, output: &Output) -> Option<Self> {
        match Self::try_listen(store, served, output.clone()) {
            Ok(control) => Some(control),
            Err(error) => {
                tracing::info!("no control socket in {}: {error}", store.display());
                None
            }
        }
    }

    fn try_listen(store: &Path, served: Vec<(Place, Multifeed)>, output: Output) -> io::Result<Self> {
        let (folder, path) = path_in(store)?;
        // The lock of the store is ours: what is there is left over, unless the disk has no locks.
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_file() || meta.file_type().is_socket() => {
                let listens = socket_of(&folder, &path)
                    .is_some_and(|socket| std::os::unix::net::UnixStream::connect(socket).is_ok());
                // Whatever else has that name is not ours to remove.
                if listens || (meta.is_file() && elsewhere(&path).is_none()) {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                fs::remove_file(&path)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) => return Err(error),
        }
        let (listener, elsewhere) = match UnixListener::bind(&path) {
            Ok(listener) => {
                fs::set_permissions(&path, Permissions::from_mode(0o600))?;
                (listener, None)
            }
            Err(error) => {
                tracing::info!("no socket in {} itself: {error}", store.display());
                let (listener, runtime) = listen_elsewhere(&folder, &path)?;
                (listener, Some(runtime))
            }
        };
        let moved = Arc::new(OnceLock::new());
        let serving = tokio::spawn(serve(listener, served.into(), output, moved.clone()));
        Ok(Self { path, elsewhere, serving, moved, _folder: folder })
    }

    /// Ends listening. Fails if a request failed meanwhile because the store, or a feed's folder, was moved. A program that looks at this
    /// command's exit code alone has to see it too.
    pub(in crate::commands) fn end(self) -> Result<(), CliError> {
        self.moved.get().map_or(Ok(()), |error| Err(error.clone()))
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.serving.abort();
        let _ = fs::remove_file(&self.path);
        drop(self.elsewhere.take());
    }
}

/// Listens in a folder of this process's own, which a file in the store names: its disk holds no sockets, or its path is too long for one.
fn listen_elsewhere(folder: &File, path: &Path) -> io::Result<(UnixListener, tempfile::TempDir)> {
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for parent in runtime_folders() {
        let mut builder = tempfile::Builder::new();
        let made = builder.prefix(ELSEWHERE).permissions(Permissions::from_mode(0o700)).tempdir_in(&parent);
        let listening = made.and_then(|runtime| {
            let socket = runtime.path().join(SOCKET);
            let listener = UnixListener::bind(&socket)?;
            fs::set_permissions(&socket, Permissions::from_mode(0o600))?;
            Ok((listener, runtime))
        });
        match listening {
            Ok((listener, runtime)) => {
                let name = runtime.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
                let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
                let named = io::Write::write_all(&mut &file, format!("{name} {}\n", identity(folder)?).as_bytes());
                if let Err(error) = named {
                    let _ = fs::remove_file(path);
                    return Err(error);
                }
                return Ok((listener, runtime));
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Whether the process at the other end is of the same user, or of root.
fn is_of_us(stream: &UnixStream) -> bool {
    let us = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == us || peer.uid() == 0)
}

async fn serve(listener: UnixListener, served: Served, output: Output, moved: Arc<OnceLock<CliError>>) {
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
        let (served, output, moved) = (served.clone(), output.clone(), moved.clone());
        requests.spawn(async move {
            let _permit = permit;
            let mut stream = BufStream::new(stream);
            if let Err(Failure::Cli(error)) = answer(&mut stream, &served, &output).await {
                // Noted first: a client that hears of it may end this process.
                if error.code() == code::MOVED {
                    let _ = moved.set(error.clone());
                }
                let _ = write_line(&mut stream, &Reply::Failed(Failed::from(&error))).await;
                let _ = stream.flush().await;
            }
        });
        while requests.try_join_next().is_some() {}
    }
}

/// What another user's process is answered, whatever it asked for.
fn refusal() -> Vec<u8> {
    let error = CliError::new(code::NOT_PERMITTED, "the store is served by another user, who alone can use it");
    let mut line = serde_json::to_vec(&Reply::Failed(Failed::from(&error))).unwrap_or_default();
    line.push(b'\n');
    line
}

/// A connection to the process that has a store open; `None` if no process listens there.
pub(super) async fn connect(store: &Path) -> Option<Stream> {
    let (folder, path) = path_in(store).ok()?;
    let stream = UnixStream::connect(socket_of(&folder, &path)?).await.ok().filter(is_of_us)?;
    Some(BufStream::new(stream))
}
