//! What every command takes.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use multifeed_tokio::{Durability, FeedKey};

use super::corestore;
use super::keys::{self, Secret};
use crate::error::CliError;

/// What every command takes.
#[derive(ClapArgs, Debug, Clone)]
pub(crate) struct Global {
    /// The folder with the feeds; made if it is not there
    #[arg(
        long,
        global = true,
        help_heading = "Options of every command",
        value_name = "DIR",
        env = "MULTIFEED_STORE",
        default_value = "./multifeed"
    )]
    pub(crate) store: PathBuf,

    /// The root key, 64 hex digits: only peers with the same one can sync
    ///
    /// Without one, a key that everyone knows is used. It is never written to disk. Other users of this machine can see
    /// it here: --key-file or the variable MULTIFEED_KEY (which these two options win over) hide it.
    /// `serve`, `sync` and `swarm` take several, of either or both, for several multifeeds of a corestore.
    #[arg(long, global = true, help_heading = "Options of every command", value_name = "HEX")]
    pub(crate) key: Vec<Secret>,

    /// A file with the root key in it, as 64 hex digits
    ///
    /// It is reported if others can read it.
    #[arg(long, global = true, help_heading = "Options of every command", value_name = "FILE")]
    pub(crate) key_file: Vec<PathBuf>,

    /// Use the store with another root key than it was used with
    ///
    /// `serve`, `sync`, `swarm` and `append` remember in the store with which root keys they were used (by their discovery keys, in `multifeed.roots`), and
    /// refuse another one, so that a key that was forgotten does not give a private store to others. A store is used with one of its own from
    /// the first time that one is given. Commands that only read need none. A corestore refuses no key that is given, only that none is.
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) other_key: bool,

    /// Make the store also in a folder that holds other things
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) init: bool,

    /// Follow links in the store: a feed's folder or a file that is kept elsewhere on purpose
    ///
    /// By default a link below --store is not followed, but reported, so that a store from somebody else cannot reach any other file of
    /// this machine. If it is, what is behind it is read and written, and never deleted, cut or replaced. --store itself may always be a
    /// link.
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) follow_links: bool,

    #[command(flatten)]
    pub(crate) corestore: corestore::Corestore,

    /// What a power cut may take: none, interval, interval:SECONDS or always
    ///
    /// none: as JS, nothing is synced to the disk before the command ends; then what was appended is. interval: what is
    /// new is synced every so often (each second), and peers see no block before that. always: every append
    /// is synced before it counts as done.
    #[arg(
        long,
        global = true,
        help_heading = "Options of every command",
        value_name = "LEVEL",
        default_value = "none",
        value_parser = durability
    )]
    pub(crate) durability: Durability,

    /// Print one JSON object a line, for programs
    ///
    /// A failure is then {"event":"error","code","message","us","them"}, with an exit code that is not 0. What
    /// was repaired or is damaged when a store is opened is told by {"event":"warning","message"} on stderr, and past a hundred of
    /// them by {"event":"more-problems","problems"}, their number.
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) json: bool,
}

impl Global {
    /// The root keys that were given, as [`keys::root_keys`] finds them.
    ///
    /// # Errors
    /// `ERR_KEY`.
    pub(crate) fn root_keys(&self, variable: Option<OsString>) -> Result<(Vec<FeedKey>, Vec<String>), CliError> {
        keys::root_keys(&self.key, &self.key_file, variable)
    }
}

fn durability(text: &str) -> Result<Durability, String> {
    match text.split_once(':') {
        None if text == "none" => Ok(Durability::None),
        None if text == "always" => Ok(Durability::Always),
        None if text == "interval" => Ok(Durability::Interval(Duration::from_secs(1))),
        Some(("interval", seconds)) => match seconds.parse().map(Duration::try_from_secs_f64) {
            Ok(Ok(Duration::ZERO)) => {
                Err("an interval is longer than 0 seconds; `always` syncs every append".to_owned())
            }
            Ok(Ok(interval)) => Ok(Durability::Interval(interval)),
            _ => Err(format!("{seconds:?} is not a number of seconds")),
        },
        _ => Err("a durability is none, interval, interval:SECONDS or always".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durabilities() {
        assert_eq!(durability("none"), Ok(Durability::None));
        assert_eq!(durability("always"), Ok(Durability::Always));
        assert_eq!(durability("interval"), Ok(Durability::Interval(Duration::from_secs(1))));
        assert_eq!(durability("interval:0.5"), Ok(Durability::Interval(Duration::from_millis(500))));
        for text in ["", "None", "interval:", "interval:-1", "interval:1e99", "always:1", "sometimes"] {
            assert!(durability(text).is_err(), "{text:?} was taken");
        }
    }
}
