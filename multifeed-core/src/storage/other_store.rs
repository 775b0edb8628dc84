//! Folders that look like a corestore and belong to other software: recognised, named, and left as they are.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What a folder was made or changed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreKind {
    /// corestore 6: `primary-key`, and cores of hypercore 10 below `cores`.
    Corestore6,
    /// corestore 7: `CORESTORE` and `db`, into which it moves what an older corestore left.
    Corestore7,
    /// The `db` of a corestore 7: a RocksDB.
    Corestore7Db,
    /// hypercore 9: a core that is in no corestore.
    Hypercore9,
    /// hypercore 10: `oplog`.
    Hypercore10,
    /// hypercore 11: its files are below `db`.
    Hypercore11,
    /// A multifeed: numbered folders.
    Multifeed,
    /// A multifeed and the cores of a corestore 5 in one folder.
    MultifeedAndCores,
}

/// A folder that another kind of store has. It was left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherStore {
    kind: StoreKind,
    path: PathBuf,
    had_corestore5: bool,
}

impl OtherStore {
    /// Returns what it is.
    pub fn kind(&self) -> StoreKind {
        self.kind
    }

    /// Returns the folder: a path, or what it is called in the corestore.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks for what other stores have in the folder of a corestore, or of a multifeed. `has_cores`: whether cores of a corestore 5 are in it.
    #[cfg_attr(not(feature = "file-storage"), allow(dead_code))]
    pub(crate) fn recognise(
        path: &Path,
        has_cores: bool,
        mut has: impl FnMut(&str) -> io::Result<bool>,
    ) -> io::Result<Option<OtherStore>> {
        let master_key = has("master_key")?;
        let kind = if has("CORESTORE")? {
            StoreKind::Corestore7
        } else if has("CURRENT")? && has("IDENTITY")? {
            StoreKind::Corestore7Db
        } else if has("oplog")? {
            StoreKind::Hypercore10
        } else if has("primary-key")? && !master_key {
            // Beside a `master_key` it leaves the older corestore alone.
            StoreKind::Corestore6
        } else if has("0/key")? {
            if has_cores { StoreKind::MultifeedAndCores } else { StoreKind::Multifeed }
        } else if has("bitfield")? && has("key")? && !master_key && !has_cores {
            // In a corestore's folder it is one that somebody made there by mistake.
            StoreKind::Hypercore9
        } else {
            return Ok(None);
        };
        let had_corestore5 = match kind {
            StoreKind::Corestore7 => has("db/master_key")?,
            _ => master_key,
        };
        Ok(Some(Self { kind, path: path.to_path_buf(), had_corestore5 }))
    }

    /// As [`recognise`](Self::recognise), in the folder of a core.
    pub(crate) fn recognise_core(
        folder: &str,
        mut has: impl FnMut(&str) -> io::Result<bool>,
    ) -> io::Result<Option<OtherStore>> {
        let kind = if has("db")? || has("CORESTORE")? {
            StoreKind::Hypercore11
        } else if has("oplog")? {
            StoreKind::Hypercore10
        } else {
            return Ok(None);
        };
        Ok(Some(Self { kind, path: PathBuf::from(folder), had_corestore5: false }))
    }
}

impl fmt::Display for OtherStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        let by = match self.kind {
            StoreKind::Corestore6 => "is a corestore 6 (`primary-key`)",
            StoreKind::Corestore7 => "was opened by corestore 7 (`CORESTORE`)",
            StoreKind::Corestore7Db => "is the `db` of a corestore 7",
            StoreKind::Hypercore9 => "is a single hypercore 9",
            StoreKind::Hypercore10 => "was opened by hypercore 10 or later (`oplog`)",
            StoreKind::Hypercore11 => "was opened by hypercore 11 or later (`db`)",
            StoreKind::Multifeed => "is a multifeed (numbered folders)",
            StoreKind::MultifeedAndCores => "has both a multifeed (numbered folders) and the cores of a corestore",
        };
        write!(f, "{path} {by}, and was left as it is: ")?;
        match self.kind {
            StoreKind::Corestore7 if self.had_corestore5 => write!(
                f,
                "it moved the older corestore into `db`; copy `master_key` and the folders of two hex digits from there into another folder"
            ),
            StoreKind::Corestore7Db if self.had_corestore5 => {
                write!(f, "copy `master_key` and the folders of two hex digits into another folder")
            }
            StoreKind::Multifeed => write!(f, "open it as a multifeed"),
            StoreKind::MultifeedAndCores => {
                write!(f, "move the numbered folders into another folder, and both can be opened")
            }
            StoreKind::Hypercore9 => write!(f, "name the folder of the multifeed or corestore that it is in"),
            StoreKind::Hypercore10 | StoreKind::Hypercore11 => {
                write!(f, "only files of hypercore 9 can be opened; take the folder from a backup that is older")
            }
            _ => write!(f, "only a folder of corestore 5 can be opened; name another one"),
        }
    }
}

impl std::error::Error for OtherStore {}
