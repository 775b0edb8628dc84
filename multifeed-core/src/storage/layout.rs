//! The place of a feed's folder: numbered in a multifeed's store, named by its discovery key in a corestore.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use multifeed_proto::DiscoveryKey;

use super::{FileId, Slot};

/// The paths of a store's files.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    root: PathBuf,
    /// Whose folder a number stands for, in a corestore; `None` in a store with numbered folders.
    cores: Option<Cores>,
}

/// The cores of a corestore that have numbers.
#[derive(Debug, Clone, Default)]
struct Cores {
    by_slot: BTreeMap<Slot, DiscoveryKey>,
    slots: BTreeMap<DiscoveryKey, Slot>,
    /// Numbers below that of the last one that stand for nothing.
    free: BTreeSet<Slot>,
}

/// The names of a feed's folder, and of those above it in the store.
#[derive(Debug)]
pub(super) struct FolderNames {
    /// From the store's own folder downward.
    pub(super) above: Vec<String>,
    pub(super) name: String,
}

impl Paths {
    /// A store of numbered folders.
    pub(super) fn numbered(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), cores: None }
    }

    /// A corestore.
    pub(super) fn cores(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), cores: Some(Cores::default()) }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn is_corestore(&self) -> bool {
        self.cores.is_some()
    }

    /// Whether a file stands in the store's own folder. In a corestore each core has its own, and that of [`Slot::NOWHERE`] is the corestore's.
    pub(super) fn is_in_root(&self, file: FileId) -> bool {
        file.kind.is_beside() && (file.slot == Slot::NOWHERE || !self.is_corestore())
    }

    /// The numbers that stand for a core now, ascending.
    pub(super) fn assigned(&self) -> impl Iterator<Item = Slot> + '_ {
        self.cores.iter().flat_map(|cores| cores.by_slot.keys().copied())
    }

    /// Has a number stand for the folder of this core: the one that it has, or the lowest that is free.
    pub(super) fn assign(&mut self, core: DiscoveryKey) -> io::Result<Slot> {
        let cores = self.cores.as_mut().ok_or(io::ErrorKind::Unsupported)?;
        if let Some(slot) = cores.slots.get(&core) {
            return Ok(*slot);
        }
        let slot = cores.free.pop_first().unwrap_or(Slot(cores.by_slot.len() as u32));
        cores.by_slot.insert(slot, core);
        cores.slots.insert(core, slot);
        Ok(slot)
    }

    /// The number stands for nothing any more.
    pub(super) fn release(&mut self, slot: Slot) {
        if let Some(cores) = &mut self.cores
            && let Some(core) = cores.by_slot.remove(&slot)
        {
            cores.slots.remove(&core);
            cores.free.insert(slot);
        }
    }

    /// The path of a file, for errors and locks.
    pub(super) fn of(&self, file: FileId) -> PathBuf {
        let mut path = if self.is_in_root(file) { self.root.clone() } else { self.folder(file.slot) };
        path.push(file.kind.name());
        path
    }

    /// The path of a feed's folder, for errors.
    pub(super) fn folder(&self, slot: Slot) -> PathBuf {
        let Ok(names) = self.names(slot) else { return self.root.clone() };
        let mut path = self.root.clone();
        path.extend(&names.above);
        path.push(names.name);
        path
    }

    /// The names of a feed's folder.
    ///
    /// # Errors
    /// If the store is a corestore and the number stands for no core.
    pub(super) fn names(&self, slot: Slot) -> io::Result<FolderNames> {
        let Some(cores) = &self.cores else {
            return Ok(FolderNames { above: Vec::new(), name: slot.to_string() });
        };
        let core = cores.by_slot.get(&slot).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let name = core.to_string();
        let above = vec![name.get(..2).unwrap_or_default().to_owned(), name.get(2..4).unwrap_or_default().to_owned()];
        Ok(FolderNames { above, name })
    }
}
