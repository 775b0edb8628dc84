//! The folders of a store that are open.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::folder::{Access, Folder, Opened};
use super::layout::{FolderNames, Paths};
use super::{FileError, FileId, Found, Slot};

/// The folders of a store that are open: its own, and that of the feed that was used last.
#[derive(Debug)]
pub(super) struct Folders {
    pub(super) root: Folder,
    /// Its path when it was opened, whatever folder the process is in by now.
    place: PathBuf,
    /// The one that was used last: a feed's files are mostly opened one after another.
    last: Option<(Slot, Folder)>,
    /// The feeds' folders as they were first seen: nothing is written into another one that took the place of one.
    known: BTreeMap<Slot, u64>,
    pub(super) follow: bool,
}

impl Folders {
    /// Those below one that was opened at this place.
    pub(super) fn new(root: Folder, place: PathBuf, follow: bool) -> Self {
        Self { root, place, last: None, known: BTreeMap::new(), follow }
    }

    /// How many folders are open.
    pub(super) fn open_files(&self) -> usize {
        1 + usize::from(self.last.is_some())
    }

    /// Closes all folders but the store's own.
    pub(super) fn close_last(&mut self) {
        self.last = None;
    }

    /// A file of the store, unless it is absent and not to be made.
    pub(super) fn open(&mut self, paths: &Paths, id: FileId, access: Access) -> io::Result<Option<Opened>> {
        let (name, follow) = (id.kind.name(), self.follow);
        // What is made, or is the store's own, is made in a place that is looked at. Before a feed is written to, its place was looked at already.
        let makes = matches!(access, Access::Make | Access::MakeNew);
        if !makes || (access == Access::Make && !paths.is_in_root(id)) {
            let exists = if makes { Access::Write } else { access };
            let opened = match self.of(paths, id)? {
                Some(folder) => folder.file(name, exists, follow)?,
                None => None,
            };
            if opened.is_some() || !makes {
                return Ok(opened);
            }
        }
        let folder = self.make(paths, id)?;
        if access == Access::Make && !paths.is_in_root(id) {
            match folder.file(name, Access::MakeNew, follow) {
                // Somebody else made it just now.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made,
            }
        }
        folder.file(name, access, follow)
    }

    /// The folder that a file is in, if it exists.
    pub(super) fn of(&mut self, paths: &Paths, id: FileId) -> io::Result<Option<&Folder>> {
        if paths.is_in_root(id) { Ok(Some(&self.root)) } else { self.slot(paths, id.slot) }
    }

    /// Fails if the store's folder is no longer at the path at which it was opened.
    pub(super) fn check_place(&self, paths: &Paths) -> io::Result<()> {
        if self.root.is_at(&self.place) { Ok(()) } else { Err(FileError::store_moved(paths.root())) }
    }

    /// The folder that a file is in, made if it does not exist.
    pub(super) fn make(&mut self, paths: &Paths, id: FileId) -> io::Result<&Folder> {
        self.make_in(paths, Some(id.slot).filter(|_| !paths.is_in_root(id)))
    }

    /// The folder of a feed, or the store's own, made if it does not exist. Nothing is made in a store that was moved.
    pub(super) fn make_in(&mut self, paths: &Paths, slot: Option<Slot>) -> io::Result<&Folder> {
        self.check_place(paths)?;
        let Some(slot) = slot else { return Ok(&self.root) };
        self.check_slot(paths, slot)?;
        if self.slot(paths, slot)?.is_none() {
            let FolderNames { above, name } = paths.names(slot)?;
            let mut last = None;
            for next in &above {
                let folder = last.as_ref().unwrap_or(&self.root);
                folder.make_folder(next)?;
                last = Some(folder.folder(next, None, self.follow)?.ok_or(io::ErrorKind::NotFound)?);
            }
            last.as_ref().unwrap_or(&self.root).make_folder(&name)?;
        }
        self.slot(paths, slot)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The folder of a feed, if it exists.
    pub(super) fn slot(&mut self, paths: &Paths, slot: Slot) -> io::Result<Option<&Folder>> {
        if self.last.as_ref().is_none_or(|(last, _)| *last != slot) {
            self.last = None;
            let Some((above, name)) = self.above(paths, slot)? else { return Ok(None) };
            let opened = above.as_ref().unwrap_or(&self.root).folder(&name, Some(slot), self.follow);
            let opened = opened.map_err(|error| in_the_way(&paths.folder(slot), error))?;
            self.last = opened.map(|folder| (slot, folder));
            let identity = self.last.as_ref().filter(|_| !self.known.contains_key(&slot));
            if let Some(identity) = identity.and_then(|(_, folder)| folder.identity()) {
                self.known.insert(slot, identity);
            }
        }
        Ok(self.last.as_ref().map(|(_, folder)| folder))
    }

    /// The folder that a feed's is in, `None` inside if that is the store's own, and the name of the feed's. `None` if it does not exist.
    pub(super) fn above(&self, paths: &Paths, slot: Slot) -> io::Result<Option<(Option<Folder>, String)>> {
        let FolderNames { above, name } = paths.names(slot)?;
        let mut last: Option<Folder> = None;
        let mut path = paths.root().to_path_buf();
        for next in above {
            path.push(&next);
            let opened = last.as_ref().unwrap_or(&self.root).folder(&next, Some(slot), self.follow);
            match opened.map_err(|error| in_the_way(&path, error))? {
                Some(folder) => last = Some(folder),
                None => return Ok(None),
            }
        }
        Ok(Some((last, name)))
    }

    /// Fails if a feed's folder was seen, and is no longer at its path.
    pub(super) fn check_slot(&self, paths: &Paths, slot: Slot) -> io::Result<()> {
        let Some(&known) = self.known.get(&slot) else { return Ok(()) };
        let is_there = match self.above(paths, slot)? {
            Some((above, name)) => above.as_ref().unwrap_or(&self.root).has(&name, known),
            None => false,
        };
        if is_there { Ok(()) } else { Err(FileError::moved(&paths.folder(slot))) }
    }

    /// A feed's folder is removed, or another one gets its number.
    pub(super) fn forget(&mut self, slot: Slot) {
        self.last = None;
        self.known.remove(&slot);
    }

    /// Makes the names of the folders that lead to a feed's, and its own, outlive a power cut.
    pub(super) fn sync_above(&self, paths: &Paths, slot: Slot) -> io::Result<()> {
        let names = paths.names(slot)?;
        let mut last: Option<Folder> = None;
        for next in &names.above {
            let folder = last.as_ref().unwrap_or(&self.root);
            let Some(opened) = folder.folder(next, Some(slot), self.follow)? else { return Ok(()) };
            opened.sync()?;
            last = Some(opened);
        }
        self.root.sync()
    }
}

/// An error with the path of a folder, if something else stands in the place of the folder and not of a file in it.
fn in_the_way(path: &Path, error: io::Error) -> io::Error {
    match error.get_ref() {
        Some(inner) if inner.is::<Found>() => FileError::wrap(path, error),
        _ => error,
    }
}
