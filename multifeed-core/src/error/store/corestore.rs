//! What can go wrong with a corestore, and in which core.

use multifeed_proto::DiscoveryKey;
use thiserror::Error;

use super::StoreError;
use crate::error::{AppendError, PutError, core as place};
use crate::storage::other_store::OtherStore;

/// A corestore, or one of its cores, failed. Never a peer's fault, unless it is a [`Put`](Self::Put).
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum CorestoreError {
    /// The folder as a whole could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The folder of one core could not be used. The others are none the worse.
    #[error("{}: {source}", place(.core))]
    Core {
        /// The core.
        core: DiscoveryKey,
        /// What failed.
        source: StoreError,
    },
    /// A file of a core does not hold what it must. The folder was left as it is.
    #[error("{}: `{file}` is damaged: {why}", place(.core))]
    Damaged {
        /// The core.
        core: DiscoveryKey,
        /// The file's name.
        file: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A core's `name` does not derive the core's key: the name is damaged, or the master key is another one. The folder was left as it is.
    #[error(
        "{}: its `name` ({}) derives another key from this master key: take `name` or `master_key` from a backup",
        place(.core), String::from_utf8_lossy(.name).escape_debug()
    )]
    NameMismatch {
        /// The core.
        core: DiscoveryKey,
        /// The name.
        name: Vec<u8>,
    },
    /// `master_key` is no master key. It was left as it is, and so were the cores. JS takes a short one for none, and writes over it.
    #[error(
        "`master_key` is damaged: {why}. Take it from a backup; if there is none, `Corestore` with another master key reads the cores that have no `name`"
    )]
    MasterKeyDamaged {
        /// What is wrong with it.
        why: String,
    },
    /// There are cores, and no `master_key`. None was made: the cores would seem to be of another corestore.
    #[error(
        "`master_key` is missing, and there are cores: give the master key that they were made with, or take the file from a backup"
    )]
    MasterKeyMissing,
    /// The corestore was made with another master key: no core that is written here has a key that this one derives. Nothing new was made: it would be
    /// another author's.
    #[error(
        "the master key is not the one that the cores were made with: of {named} cores with a `name` it derives none. Take `master_key` from a backup"
    )]
    MasterKeyMismatch {
        /// The cores with a `name` that were looked at.
        named: usize,
    },
    /// The folder is another kind of store's.
    #[error("{0}")]
    OtherStore(OtherStore),
    /// A core's name is empty or too long.
    #[error("a core's name has 1 to {max} bytes, this one {size}")]
    BadName {
        /// Its size in bytes.
        size: usize,
        /// [`Limits::core_name_bytes`](crate::Limits::core_name_bytes).
        max: usize,
    },
    /// There are more cores than are listed.
    #[error("the corestore has more than {max} cores, which are not listed: raise the limit `cores_listed`")]
    TooManyCores {
        /// [`Limits::cores_listed`](crate::Limits::cores_listed).
        max: usize,
    },
    /// Blocks could not be appended. The core is as it was before.
    #[error("{}: {source}", place(.core))]
    Append {
        /// The core.
        core: DiscoveryKey,
        /// Why.
        source: AppendError,
    },
    /// A block that was received could not be stored.
    #[error("{}: {source}", place(.core))]
    Put {
        /// The core.
        core: DiscoveryKey,
        /// Why.
        source: PutError,
    },
}

impl From<CorestoreError> for StoreError {
    fn from(error: CorestoreError) -> Self {
        match error {
            CorestoreError::Store(error) => error,
            error => StoreError::Core(std::sync::Arc::new(error)),
        }
    }
}

impl CorestoreError {
    /// Returns a name for the kind of failure, in the style of the JS error codes.
    pub fn code(&self) -> &'static str {
        match self {
            CorestoreError::Store(source) | CorestoreError::Core { source, .. } => source.code(),
            CorestoreError::Damaged { .. } => "ERR_STORE_DAMAGED",
            CorestoreError::NameMismatch { .. } => "ERR_NAME_MISMATCH",
            CorestoreError::MasterKeyDamaged { .. } => "ERR_MASTER_KEY_DAMAGED",
            CorestoreError::MasterKeyMissing => "ERR_MASTER_KEY_MISSING",
            CorestoreError::MasterKeyMismatch { .. } => "ERR_MASTER_KEY_MISMATCH",
            CorestoreError::OtherStore(_) => "ERR_OTHER_STORE",
            CorestoreError::BadName { .. } => "ERR_BAD_NAME",
            CorestoreError::TooManyCores { .. } => "ERR_LIMIT",
            CorestoreError::Append { source, .. } => source.code(),
            CorestoreError::Put { source, .. } => source.code(),
        }
    }

    /// Returns the core that it is about, if it is about one.
    pub fn core(&self) -> Option<DiscoveryKey> {
        match self {
            CorestoreError::Core { core, .. }
            | CorestoreError::Damaged { core, .. }
            | CorestoreError::NameMismatch { core, .. }
            | CorestoreError::Append { core, .. }
            | CorestoreError::Put { core, .. } => Some(*core),
            _ => None,
        }
    }

    /// An error of the files of a core, whose number in this process says nothing.
    pub(crate) fn of_core(core: DiscoveryKey, source: StoreError) -> Self {
        match source {
            StoreError::Damaged { file, why, .. } => Self::damaged(core, file.name(), why),
            StoreError::Occupied { .. } => {
                Self::damaged(core, "key", "it is missing, and the folder has more in it than that of a new core")
            }
            source => CorestoreError::Core { core, source },
        }
    }

    pub(crate) fn of_append(core: DiscoveryKey, source: AppendError) -> Self {
        match source {
            AppendError::Store(source) => Self::of_core(core, source),
            source => CorestoreError::Append { core, source },
        }
    }

    pub(crate) fn of_put(core: DiscoveryKey, source: PutError) -> Self {
        match source {
            PutError::Store(source) => Self::of_core(core, source),
            source => CorestoreError::Put { core, source },
        }
    }

    pub(crate) fn damaged(core: DiscoveryKey, file: &'static str, why: impl Into<String>) -> Self {
        CorestoreError::Damaged { core, file, why: why.into() }
    }
}
