//! Where the process that has a store open listens for other commands.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use tokio::net::UnixStream;

/// The socket's name beside the numbered folders. JS does not look at it.
pub(super) const SOCKET: &str = "multifeed.socket";

/// How the name of a folder begins that holds the socket of a store whose disk holds none.
pub(super) const ELSEWHERE: &str = "multifeed-";

/// Bytes of a file that names such a folder, at the most.
const MOST_NAME: u64 = 200;

/// The store's folder, and the socket's path. On Linux that leads through the open folder: a path of a socket has 107 bytes at the most, and a
/// store that is moved takes its socket along.
pub(super) fn path_in(store: &Path) -> io::Result<(File, PathBuf)> {
    let folder = File::open(store)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let place = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&folder)));
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let place = store.to_path_buf();
    Ok((folder, place.join(SOCKET)))
}

/// Folders that programs of this user keep their sockets in.
pub(super) fn runtime_folders() -> impl Iterator<Item = PathBuf> {
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    own.into_iter().chain([std::env::temp_dir()])
}

/// A store's folder, so that a copy of it is another one.
pub(super) fn identity(folder: &File) -> io::Result<String> {
    let meta = folder.metadata()?;
    Ok(format!("{}:{}", meta.dev(), meta.ino()))
}

/// What a file in a store says: the name of a folder, and of which store it is.
pub(super) fn elsewhere(path: &Path) -> Option<(String, String)> {
    let mut text = String::new();
    File::open(path).ok()?.take(MOST_NAME).read_to_string(&mut text).ok()?;
    let (name, store) = text.trim_end().split_once(' ')?;
    // A store from somebody else names no other socket of this user's.
    let is_name = |char: char| char.is_ascii_alphanumeric() || char == '-' || char == '_';
    let own = name.strip_prefix(ELSEWHERE)?;
    (!own.is_empty() && own.chars().all(is_name)).then(|| (name.to_owned(), store.to_owned()))
}

/// The socket of a store, in it or where a file in it says.
pub(super) fn socket_of(folder: &File, path: &Path) -> Option<PathBuf> {
    let meta = fs::symlink_metadata(path).ok()?;
    if meta.file_type().is_socket() {
        return Some(path.to_owned());
    }
    let (name, store) = elsewhere(path).filter(|_| meta.is_file())?;
    if store != identity(folder).ok()? {
        return None;
    }
    let us = rustix::process::geteuid().as_raw();
    runtime_folders().map(|parent| parent.join(&name)).find_map(|runtime| {
        let meta = fs::symlink_metadata(&runtime).ok()?;
        let is_ours = meta.is_dir() && meta.uid() == us && meta.mode() & 0o077 == 0;
        is_ours.then(|| runtime.join(SOCKET))
    })
}

/// Whether another process listens at a store: it has that open, whatever its lock says.
pub(super) async fn is_served(store: &Path) -> bool {
    let Ok((folder, path)) = path_in(store) else { return false };
    match socket_of(&folder, &path) {
        Some(socket) => UnixStream::connect(socket).await.is_ok(),
        None => false,
    }
}
