//! The root keys that a store was used with, so that a forgotten `--key` does not give it to others.
//!
//! Their discovery keys stand in `multifeed.roots`, beside the feeds, 64 hex digits a line: a root key itself is never written to disk. The root key that
//! everyone knows keeps nobody out. So it is not remembered of a store that is one multifeed, and once that was used with a key of its own, it is
//! another one each time. In a corestore each root key is a multifeed of its own: one that is given is never another, and the one that everyone knows
//! is remembered like others.

use std::collections::BTreeSet;

use multifeed_tokio::{DEFAULT_ROOT_KEY, FeedKey, Multifeed};

use super::folder::is_corestore;
use super::side_file::SideFile;
use crate::args::{Command, Global};
use crate::error::{CliError, EXIT_USAGE, code};
use crate::output::Output;

const FILE: &str = "multifeed.roots";

const DIGITS: usize = 64;

/// Fails if the command would use the store with another root key than it was used with, and that was not asked for. Commands that change no more than
/// this store, or that only read, have no use for a root key, unless it says which multifeed of a corestore is meant.
pub(super) fn check(command: &Command, global: &Global, keys: &[FeedKey]) -> Result<(), CliError> {
    let is_given = keys != [DEFAULT_ROOT_KEY];
    let uses = match command {
        Command::Serve(_) | Command::Sync(_) | Command::Swarm(_) => true,
        Command::Append(_) => is_given || is_corestore(global),
        _ => false,
    };
    if uses { check_store(global, keys) } else { Ok(()) }
}

/// As [`check`], for a command that uses the root keys.
pub(super) fn check_store(global: &Global, keys: &[FeedKey]) -> Result<(), CliError> {
    if global.other_key {
        return Ok(());
    }
    let known = read(&SideFile::of(global, FILE))?;
    let is_other = |key: &&FeedKey| !known.contains(&key.discovery_key().to_string());
    let Some(other) = keys.iter().find(is_other).filter(|_| !known.is_empty()) else { return Ok(()) };
    let in_corestore = is_corestore(global);
    let is_default = *other == DEFAULT_ROOT_KEY;
    if in_corestore && !is_default {
        return Ok(());
    }
    let store = global.store.display();
    let what = match (in_corestore, is_default) {
        (true, _) => {
            "no root key is given, and the corestore was used with others: without one another multifeed of it is meant"
        }
        (false, true) => {
            "no root key is given, and the store was used with one: without it anyone gets all of the store, and adds to it"
        }
        (false, false) => {
            "the store was used with another root key: all of its feeds would go to those who have this one"
        }
    };
    let message = format!(
        "{store}: {what}; give the root key that it was used with (--key-file, or the variable MULTIFEED_KEY), or --other-key if this is meant"
    );
    Err(CliError::new(code::OTHER_ROOT_KEY, message).with_exit(EXIT_USAGE))
}

/// Notes the root keys that an open store, which this process has locked, is used with.
/// If that fails, as on a full disk, it is a warning.
pub(super) fn remember(multis: &[Multifeed], global: &Global, output: &Output) {
    note(&SideFile::of(global, FILE), used(multis), output);
}

/// Root keys that are noted once a peer proves to have them: one that was mistyped is none of the store's.
pub(super) struct Unproven {
    file: SideFile,
    keys: BTreeSet<String>,
}

impl Unproven {
    /// Those that an open store is used with.
    pub(super) fn of(multis: &[Multifeed], global: &Global) -> Self {
        Self { file: SideFile::of(global, FILE), keys: used(multis) }
    }

    /// The only peer has the root key.
    pub(super) fn prove_all(self, output: &Output) {
        note(&self.file, self.keys, output);
    }

    /// A peer has this root key.
    pub(super) fn prove(&mut self, root: &FeedKey, output: &Output) {
        if let Some(key) = self.keys.take(&root.discovery_key().to_string()) {
            note(&self.file, BTreeSet::from([key]), output);
        }
    }
}

/// Notes the root key with which two stores of this machine are synced, if one of them was used with it before: nothing else proves it.
pub(super) fn remember_shared(stores: [(&Multifeed, &Global); 2], output: &Output) {
    let is_known = |(multi, global): &(&Multifeed, &Global)| {
        let known = read(&SideFile::of(global, FILE)).unwrap_or_default();
        used(std::slice::from_ref(*multi)).iter().any(|key| known.contains(key))
    };
    if stores.iter().any(is_known) {
        stores.into_iter().for_each(|(multi, global)| remember(std::slice::from_ref(multi), global, output));
    }
}

/// The root keys of these that are remembered, by their discovery keys.
fn used(multis: &[Multifeed]) -> BTreeSet<String> {
    let used = multis.iter().filter(|multi| multi.is_in_corestore() || multi.root_key() != DEFAULT_ROOT_KEY);
    used.map(|multi| multi.root_key().discovery_key().to_string()).collect()
}

fn note(file: &SideFile, used: BTreeSet<String>, output: &Output) {
    let noted = read(file).and_then(|known| {
        if used.is_subset(&known) {
            return Ok(());
        }
        let text: String = known.union(&used).map(|key| format!("{key}\n")).collect();
        file.replace(&text).map_err(|error| file.failed(&error))
    });
    if let Err(error) = noted {
        output.warn(&format!("{error} (the root key is not remembered, so that a command without it is not refused)"));
    }
}

fn read(file: &SideFile) -> Result<BTreeSet<String>, CliError> {
    let Some(text) = file.read()? else { return Ok(BTreeSet::new()) };
    let keys = text.lines().map(str::trim).filter(|line| !line.is_empty()).enumerate().map(|(at, line)| {
        let is_key = line.len() == DIGITS && line.bytes().all(|digit| digit.is_ascii_hexdigit());
        let wrong = || file.damaged(&format!("line {} is not the discovery key of a root key", at + 1));
        if is_key { Ok(line.to_ascii_lowercase()) } else { Err(wrong()) }
    });
    keys.collect()
}
