//! What the folder of a store is: a corestore, or of something else, in which no command makes a store unless that is asked for.

use std::fs;
use std::path::Path;

use multifeed_tokio::{FileStorage, FileStorageOptions, StoreError};

use crate::args::{Command, Global, Key, KeyCommand};
use crate::error::{CliError, EXIT_USAGE, code};

/// Whether the folder is a corestore, or becomes one.
pub(super) fn is_corestore(global: &Global) -> bool {
    let found = || FileStorage::open_beside_with(&global.store, FileStorageOptions::default());
    global.corestore.corestore || matches!(found(), Err(StoreError::IsCorestore { .. }))
}

/// Fails if the command would make a store in a folder that holds other things.
pub(super) fn check(command: &Command, global: &Global) -> Result<(), CliError> {
    let makes = matches!(
        command,
        Command::Append(_)
            | Command::Serve(_)
            | Command::Sync(_)
            | Command::Swarm(_)
            | Command::Ban(_)
            | Command::Key(Key { command: KeyCommand::Import(_) })
    );
    if makes { check_folder(global) } else { Ok(()) }
}

/// As [`check`], for a command that makes a store.
pub(super) fn check_folder(global: &Global) -> Result<(), CliError> {
    let Some(other) = other_things(&global.store).filter(|_| !global.init) else { return Ok(()) };
    // Opening it says what it is.
    if FileStorage::open_beside_with(&global.store, FileStorageOptions::default()).is_err() {
        return Ok(());
    }
    let store = global.store.display();
    let message = format!("{store} is no store, and holds other things ({other}): --init makes one there all the same");
    Err(CliError::new(code::NOT_A_STORE, message).with_exit(EXIT_USAGE))
}

/// The first of the things in a folder, if none of them is a store's. What is hidden does not count.
fn other_things(folder: &Path) -> Option<String> {
    let mut first = None;
    // What cannot be read opening the store reports.
    for entry in fs::read_dir(folder).ok()?.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.bytes().all(|digit| digit.is_ascii_digit()) || name.starts_with("multifeed.") {
            return None;
        }
        // A new file system has one.
        if !name.starts_with('.') && name != "lost+found" && first.as_ref().is_none_or(|first| name < *first) {
            first = Some(name);
        }
    }
    first
}
