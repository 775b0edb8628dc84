//! What the files of a store are called.

use core::fmt;

/// The number of a feed's folder, from 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

impl Slot {
    /// The number of no folder: that of a feed of which nothing is held yet.
    pub(crate) const NOWHERE: Slot = Slot(u32::MAX);
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The files that a feed consists of, and those of ours that stand beside the folders of all feeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// The feed's public key, 32 bytes.
    Key,
    /// The secret key, 64 bytes: seed, then public key. Only if the feed can be appended to.
    SecretKey,
    /// Tree nodes: a header of 32 bytes, then 40 for each flat-tree index.
    Tree,
    /// Signatures: a header of 32 bytes, then 64 for each length.
    Signatures,
    /// Which blocks and nodes are held: a header of 32 bytes, then pages.
    Bitfield,
    /// The blocks, end to end.
    Data,
    /// The writer's local name, in UTF-8, without a newline.
    LocalName,
    /// What is known to be whole on the disk. One for the store, beside its folders: see [`FileId::beside`].
    Journal,
    /// Evidence of writers that signed two histories, a JSON object a line. One for the store, beside its folders.
    Conflicts,
    /// The keys of feeds that must never be synced, in hex, a line for each. One for the store, beside its folders.
    Banned,
    /// The feeds that were taken out of the multifeeds of a corestore, whose lists keep them, a line for each. One for the corestore.
    Removed,
}

impl FileKind {
    /// Those of a feed.
    pub const ALL: [FileKind; 7] = [
        FileKind::Key,
        FileKind::SecretKey,
        FileKind::Tree,
        FileKind::Signatures,
        FileKind::Bitfield,
        FileKind::Data,
        FileKind::LocalName,
    ];

    /// Those of a feed, and those beside the folders.
    pub const EVERY: [FileKind; 11] = {
        let [key, secret_key, tree, signatures, bitfield, data, local_name] = Self::ALL;
        let [journal, conflicts, banned] = [FileKind::Journal, FileKind::Conflicts, FileKind::Banned];
        [key, secret_key, tree, signatures, bitfield, data, local_name, journal, conflicts, banned, FileKind::Removed]
    };

    /// Returns the file's name in its folder.
    pub fn name(self) -> &'static str {
        match self {
            FileKind::Key => "key",
            FileKind::SecretKey => "secret_key",
            FileKind::Tree => "tree",
            FileKind::Signatures => "signatures",
            FileKind::Bitfield => "bitfield",
            FileKind::Data => "data",
            FileKind::LocalName => "localname",
            FileKind::Journal => "multifeed.journal",
            FileKind::Conflicts => "multifeed.conflicts",
            FileKind::Banned => "multifeed.blocked",
            FileKind::Removed => "multifeed.removed",
        }
    }

    /// Those of a feed that change as blocks come.
    pub(crate) const GROWING: [FileKind; 4] =
        [FileKind::Tree, FileKind::Signatures, FileKind::Bitfield, FileKind::Data];

    /// Returns whether the file stands beside the folders, one for the whole store.
    pub fn is_beside(self) -> bool {
        matches!(self, FileKind::Journal | FileKind::Conflicts | FileKind::Banned | FileKind::Removed)
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One file of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// The folder.
    pub slot: Slot,
    /// The file in it.
    pub kind: FileKind,
}

impl FileId {
    /// Names the file of this kind in this folder.
    pub fn new(slot: Slot, kind: FileKind) -> Self {
        Self { slot, kind }
    }

    /// Names a file that stands beside the folders. Its `slot` says nothing, and is 0.
    pub fn beside(kind: FileKind) -> Self {
        Self { slot: Slot(0), kind }
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind.is_beside() {
            return self.kind.fmt(f);
        }
        write!(f, "{}/{}", self.slot, self.kind)
    }
}
