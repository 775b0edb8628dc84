//! Small text files of this command's beside the feeds. JavaScript does not look at them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::args::Global;
use crate::error::{CliError, code};

/// Bytes of such a file, at the most.
const MOST_BYTES: u64 = 4 << 20;

pub(super) struct SideFile {
    path: PathBuf,
    follow_links: bool,
}

impl SideFile {
    pub(super) fn of(global: &Global, name: &str) -> Self {
        Self::new(&global.store, global.follow_links, name)
    }

    pub(super) fn new(store: &Path, follow_links: bool, name: &str) -> Self {
        Self { path: store.join(name), follow_links }
    }

    /// Returns the text; `None` if there is no such file.
    ///
    /// # Errors
    /// `ERR_STORE_NOT_REGULAR` if it is a link or no file, `ERR_STORE_DAMAGED` if it is no text or too long, `ERR_STORE_IO`.
    pub(super) fn read(&self) -> Result<Option<String>, CliError> {
        if self.is_link() && !self.follow_links {
            return Err(self.not_regular("a link"));
        }
        let file = match self.open() {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(self.failed(&error)),
        };
        if !file.metadata().is_ok_and(|meta| meta.is_file()) {
            return Err(self.not_regular("no file"));
        }
        let mut bytes = Vec::new();
        file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| self.failed(&error))?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(self.damaged(&format!("it is longer than {MOST_BYTES} bytes")));
        }
        String::from_utf8(bytes).map(Some).map_err(|_| self.damaged("it is no text"))
    }

    /// Replaces the text in one step: after a crash the file has the old one or the new one. Its mode is 0600.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn replace(&self, text: &str) -> io::Result<()> {
        // What stands there may be a link that is to be followed.
        let path = if self.is_link() { fs::canonicalize(&self.path)? } else { self.path.clone() };
        let mut new = path.clone().into_os_string();
        new.push(".new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&new)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        if let Err(error) = written.and_then(|()| fs::rename(&new, &path)) {
            let _ = fs::remove_file(&new);
            return Err(error);
        }
        #[cfg(unix)]
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(())
    }

    /// Keeps other commands that change such a file waiting, as far as the disk has locks.
    pub(super) fn lock(&self) -> Option<File> {
        let folder = File::open(self.path.parent()?).ok()?;
        folder.lock().ok()?;
        Some(folder)
    }

    pub(super) fn damaged(&self, why: &str) -> CliError {
        CliError::new(code::DAMAGED, format!("{}: {why}; correct it, or remove it", self.path.display()))
    }

    pub(super) fn failed(&self, error: &io::Error) -> CliError {
        CliError::new(code::STORE_IO, format!("{}: {error}", self.path.display()))
    }

    fn not_regular(&self, what: &str) -> CliError {
        let path = self.path.display();
        CliError::new(code::NOT_REGULAR, format!("{path}: there is {what}, where a file has to be; it was left alone"))
    }

    fn is_link(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.is_symlink())
    }

    fn open(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true);
        #[cfg(unix)]
        {
            // A pipe is not waited for.
            let link = if self.follow_links { 0 } else { libc::O_NOFOLLOW };
            std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK | link);
        }
        options.open(&self.path)
    }
}
