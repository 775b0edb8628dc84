//! Which folders of cores a folder has.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use multifeed_proto::DiscoveryKey;

use super::CoreFolders;
use crate::storage::folder::{Folder, not_regular};
use crate::storage::{FileError, Found};

/// Whether a folder has cores, as far as it can be read.
pub(in crate::storage) fn has_cores(root: &Folder, path: &Path, follow: bool) -> bool {
    let Ok(mut entries) = root.entries() else { return false };
    // Folders of feeds are numbered without gaps: what may be a core's by its name and is one of those is not looked into.
    let numbers: BTreeSet<usize> = entries.iter().filter_map(|(name, _)| name.parse().ok()).collect();
    let feeds = numbers.iter().enumerate().take_while(|(at, number)| at == *number).count();
    entries.retain(|(name, _)| name.starts_with('0') || name.parse().map_or(true, |number: usize| number >= feeds));
    let mut found = CoreFolders::default();
    let _ = list_in(root, entries, path, follow, &mut found, 0);
    found.more
}

/// Lists the folders of cores in that of a corestore, at most this many.
pub(super) fn list_in(
    root: &Folder,
    entries: Vec<(String, Found)>,
    path: &Path,
    follow: bool,
    folders: &mut CoreFolders,
    max: usize,
) -> io::Result<()> {
    for (first, found) in sorted(entries, 2) {
        let path = path.join(&first);
        let Some(outer) = open(root, &path, &first, found, follow, folders) else { continue };
        for (second, found) in sorted(outer.entries().map_err(|error| FileError::wrap(&path, error))?, 2) {
            let path = path.join(&second);
            let Some(inner) = open(&outer, &path, &second, found, follow, folders) else { continue };
            for (name, found) in sorted(inner.entries().map_err(|error| FileError::wrap(&path, error))?, 64) {
                if !name.starts_with(&first) || !name[2..].starts_with(&second) {
                    continue;
                }
                if folders.cores.len() + folders.obstacles.len() >= max {
                    folders.more = true;
                    return Ok(());
                }
                match (found, name.parse::<DiscoveryKey>()) {
                    (Found::Folder, Ok(core)) => folders.cores.push(core),
                    (Found::Link, Ok(core)) if follow => folders.cores.push(core),
                    (found, _) => folders.obstacles.push(FileError::wrap(&path.join(&name), not_regular(found))),
                }
            }
        }
    }
    Ok(())
}

/// Names of so many hex digits, as corestore writes them, in their order.
fn sorted(entries: Vec<(String, Found)>, digits: usize) -> Vec<(String, Found)> {
    let is_hex = |name: &str| name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut entries = entries;
    entries.retain(|(name, _)| name.len() == digits && is_hex(name));
    entries.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    entries
}

/// Opens a folder that leads to those of cores. What else has its name is an obstacle.
fn open(
    above: &Folder,
    path: &Path,
    name: &str,
    found: Found,
    follow: bool,
    folders: &mut CoreFolders,
) -> Option<Folder> {
    let opened = match found {
        Found::Folder | Found::Link => above.folder(name, None, follow),
        found => Err(not_regular(found)),
    };
    opened.unwrap_or_else(|error| {
        folders.obstacles.push(FileError::wrap(path, error));
        None
    })
}
