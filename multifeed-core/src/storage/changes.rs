//! Files that are replaced and folders that are removed or renamed, each so that a crash in the middle leaves something whole.

use std::io;
use std::path::Path;

use super::folder::{Access, Folder, not_regular};
use super::pool::{OpenFile, Site};
use super::{FileError, FileKind, Found, Slot};

/// What a file is named while it is not whole.
fn temporary_name(name: &str) -> String {
    format!("{name}.tmp")
}

/// Replaces a file in a folder by one that is whole.
pub(super) fn replace(folder: &Folder, path: &Path, name: &str, site: Site, data: &[u8]) -> io::Result<()> {
    // It would be a file of another folder that is replaced.
    if folder.is_linked() {
        return Err(not_regular(Found::BehindLink));
    }
    let temporary = temporary_name(name);
    check_file(folder, name).map_err(|error| match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(Found::Link) => not_regular(Found::BehindLink),
        _ => error,
    })?;
    // Not reused: an old one may be readable by others.
    let removed = check_file(folder, &temporary).and_then(|()| folder.unlink(&temporary));
    removed.map_err(|error| FileError::wrap(&path.with_file_name(&temporary), error))?;
    let write = || {
        let new = folder.file(&temporary, Access::MakeNew, false)?.ok_or(io::ErrorKind::NotFound)?;
        let mut new = OpenFile::new(new, site);
        new.write_at(0, data)?;
        new.sync()?;
        drop(new);
        folder.rename(&temporary, name)
    };
    write().inspect_err(|_| _ = folder.unlink(&temporary))
}

/// Removes a feed's files, and its folder if that is empty then. Nothing is removed unless it is a real folder, and all of them are regular
/// files. An error comes with the name that it is about, if that is one in the folder.
pub(super) fn remove(
    above: &Folder,
    name: &str,
    slot: Slot,
    more: &'static [&'static str],
    follow: bool,
) -> Result<(), InFolder> {
    let whole = |error| (None, error);
    let Some((folder, names)) = check_removable(above, name, slot, more, follow)? else {
        return above.sync().map_err(whole);
    };
    for file in &names {
        let is_data = file == FileKind::Data.name() && folder.look(file).map_err(whole)?.is_some();
        folder.unlink(file).map_err(|error| (Some(file.clone()), error))?;
        // Alone, after a power cut, nobody could tell whose it was.
        if is_data {
            folder.sync().map_err(whole)?;
        }
    }
    // Somebody else's file in it keeps the folder.
    match above.remove_folder(name) {
        Err(_) => folder.sync().map_err(whole),
        Ok(()) => above.sync().map_err(whole),
    }
}

/// The folder of a feed, which has that name in the one above, and the names in it that must be removed, in their order: `more`, then a feed's.
/// `None` if there is no such folder. `follow`: links are followed, so that the caller may take what is behind one for the feed's.
pub(super) fn check_removable(
    above: &Folder,
    name: &str,
    slot: Slot,
    more: &'static [&'static str],
    follow: bool,
) -> Result<Option<(Folder, Vec<String>)>, InFolder> {
    let behind_link = |error: io::Error| match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(Found::Link) if follow => not_regular(Found::BehindLink),
        _ => error,
    };
    let Some(folder) = above.folder(name, Some(slot), false).map_err(|error| (None, behind_link(error)))? else {
        return Ok(None);
    };
    // What a replacement left that was cut short goes with its file. The key last: until then JS finds a feed there, and all that follow it.
    let names = more.iter().copied().chain(FileKind::ALL.into_iter().rev().map(FileKind::name));
    let names = names.flat_map(|name| [temporary_name(name), name.to_owned()]);
    let names: Vec<String> = names.collect();
    let check = |name: &String| check_file(&folder, name).map_err(|error| (Some(name.clone()), behind_link(error)));
    names.iter().try_for_each(check)?;
    Ok(Some((folder, names)))
}

/// What went wrong in a folder, with the name of the file that it is about, if it is about one.
pub(super) type InFolder = (Option<String>, io::Error);

pub(super) fn in_folder(path: &Path, (name, error): InFolder) -> io::Error {
    match name {
        Some(name) => FileError::wrap(&path.join(name), error),
        None => FileError::wrap(path, error),
    }
}

/// Renames a folder. A folder that has that name is put aside.
pub(super) fn rename(root: &Folder, follow: bool, from: &str, to: &str) -> io::Result<()> {
    match root.look(from)? {
        None => return Err(io::ErrorKind::NotFound.into()),
        Some(Found::Folder) => {}
        Some(Found::Link) if follow => {}
        Some(found) => return Err(not_regular(found)),
    }
    match root.look(to)? {
        None => {}
        Some(Found::Folder) => {
            // Somebody else's files: they are put aside, beside those that were before.
            let name = |number: u32| if number == 1 { format!("{to}.left") } else { format!("{to}.left.{number}") };
            let mut asides = (1..=u32::MAX).map(name);
            let aside = asides.find(|aside| !matches!(root.look(aside), Ok(Some(_))));
            root.rename(to, &aside.ok_or(io::ErrorKind::AlreadyExists)?)?;
        }
        Some(found) => return Err(not_regular(found)),
    }
    root.rename(from, to)?;
    root.sync()
}

/// Fails if a name is that of anything but a file.
fn check_file(folder: &Folder, name: &str) -> io::Result<()> {
    match folder.look(name)? {
        // To take away one of its names changes nothing of the others.
        None | Some(Found::File | Found::HardLink) => Ok(()),
        Some(found) => Err(not_regular(found)),
    }
}
