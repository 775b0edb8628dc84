//! Root keys: where the command line takes them from.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Subcommand};
use multifeed_tokio::FeedKey;

use crate::error::{CliError, EXIT_USAGE, code};

/// The variable that holds the root key where neither `--key` nor `--key-file` is given.
pub(crate) const KEY_VARIABLE: &str = "MULTIFEED_KEY";

/// More than a key file has to hold: a key, and room for spaces and newlines.
const KEY_FILE_BYTES: u64 = 4096;

/// A root key as it was written. It is not shown: whoever has it can sync.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Secret(text)
    }
}

/// Make a root key of your own: print it, or write it to a file
///
/// Whoever has it can sync, and nobody else. With --json: {"key"} if it is printed.
#[derive(ClapArgs, Debug)]
#[command(after_help = "\
Examples:
  multifeed keygen k                       a file that only you can read
  multifeed --key-file k append notes hi   and its use, here and where others have it")]
pub(crate) struct Keygen {
    /// A file that is not there yet
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// Take a writer to another store: its key to a file, or from one
#[derive(ClapArgs, Debug)]
#[command(after_help = "\
Examples:
  multifeed key export notes notes.key                on the old machine, where nothing is appended any more
  multifeed sync old:7000                             on the new one, so that it has all blocks
  multifeed key import notes.key                      and then goes on in the same feed")]
pub(crate) struct Key {
    #[command(subcommand)]
    pub(crate) command: KeyCommand,
}

#[derive(Subcommand, Debug)]
pub(crate) enum KeyCommand {
    /// Write the key of a writer of this store to a new file, which only you can read
    ///
    /// Whoever has it can write the feed. Append at one place alone: if two append to one feed apart, they sign two histories, and peers refuse both.
    ///
    /// With --json: {"key","name","length"}; "length" is the feed's, in blocks.
    Export(KeyExport),

    /// Make a feed one that is written here, by the file that `key export` wrote
    ///
    /// The feed has to be here, with all the blocks that it had when its key was exported, and with no more: what is appended would else be a second
    /// history. A corestore takes none, as the keys of its writers are derived from its `master_key` and their names; one that was exported
    /// from a corestore can go on in another store, and the corestore still has it.
    ///
    /// With --json: {"key","name","length"}.
    Import(KeyImport),
}

#[derive(ClapArgs, Debug)]
pub(crate) struct KeyExport {
    /// The writer: its name, its key, or the start of its key
    pub(crate) feed: String,

    /// A file that is not there yet
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct KeyImport {
    /// The file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// Another name for the writer than it had
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// The root keys that were given, each once, those of `--key` first, or that of the variable if there are none; none for the one that everyone knows.
/// `variable` is what `MULTIFEED_KEY` holds. With them come warnings, if others can read a key file.
///
/// # Errors
///
/// `ERR_KEY`, naming the source, where that is not 64 hex digits or cannot be read. The key itself is not in the
/// message: it may be all but right.
pub(super) fn root_keys(
    given: &[Secret],
    files: &[PathBuf],
    variable: Option<OsString>,
) -> Result<(Vec<FeedKey>, Vec<String>), CliError> {
    let (mut keys, mut warnings) = (Vec::new(), Vec::new());
    for Secret(text) in given {
        keys.push(parse_key(text, "--key")?);
    }
    for path in files {
        let (key, warning) = read_key(path)?;
        keys.push(key);
        warnings.extend(warning);
    }
    // `MULTIFEED_KEY= multifeed …` is how a shell user says "without it".
    if let Some(text) = variable.filter(|text| keys.is_empty() && !text.is_empty()) {
        keys.push(parse_key(&text.to_string_lossy(), &format!("the variable {KEY_VARIABLE}"))?);
    }
    let mut seen = HashSet::new();
    keys.retain(|key| seen.insert(*key));
    Ok((keys, warnings))
}

fn read_key(path: &Path) -> Result<(FeedKey, Option<String>), CliError> {
    let source = format!("the key file {}", path.display());
    let failed = |error| CliError::new(code::KEY, format!("{source}: {error}")).with_exit(EXIT_USAGE);
    let file = File::open(path).map_err(failed)?;
    let warning = exposure(&file).map(|mode| {
        format!("others can read or change {source} (permissions {mode:04o}): make it yours alone (chmod 600)")
    });
    let mut text = Vec::new();
    file.take(KEY_FILE_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > KEY_FILE_BYTES {
        let message = format!("{source}: a root key is 64 hex digits, and this is longer than {KEY_FILE_BYTES} bytes");
        return Err(CliError::new(code::KEY, message).with_exit(EXIT_USAGE));
    }
    Ok((parse_key(&String::from_utf8_lossy(&text), &source)?, warning))
}

/// The permissions of a file, if others than its owner may read or change it. A pipe, as of `<(…)`, is nobody else's.
fn exposure(file: &File) -> Option<u32> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let meta = file.metadata().ok().filter(|meta| meta.is_file())?;
        Some(meta.permissions().mode() & 0o777).filter(|mode| mode & 0o077 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        None
    }
}

fn parse_key(text: &str, source: &str) -> Result<FeedKey, CliError> {
    let text = text.trim();
    let wrong = |what: String| {
        CliError::new(code::KEY, format!("{source}: a root key is 64 hex digits, {what}")).with_exit(EXIT_USAGE)
    };
    if let Some(at) = text.chars().position(|digit| !digit.is_ascii_hexdigit()) {
        return Err(wrong(format!("and character {} of this one is not a hex digit", at + 1)));
    }
    text.parse().map_err(|_| wrong(format!("this one has {}", text.len())))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Args, Global};
    use super::*;

    fn global(args: &[&str]) -> Global {
        Args::try_parse_from(["multifeed", "feeds"].iter().chain(args)).expect("these arguments are right").global
    }

    #[test]
    fn the_root_key_comes_from_the_option_before_the_variable() {
        let (one, two) = ("11".repeat(32), "22".repeat(32));
        let key = |text: &str| text.parse::<FeedKey>().expect("64 hex digits");

        assert_eq!(global(&[]).root_keys(None).unwrap().0, []);
        assert_eq!(global(&[]).root_keys(Some("".into())).unwrap().0, []);
        assert_eq!(global(&[]).root_keys(Some(two.clone().into())).unwrap().0, [key(&two)]);
        assert_eq!(global(&["--key", &one]).root_keys(Some(two.clone().into())).unwrap().0, [key(&one)]);
        let several = global(&["--key", &two, "--key", &one, "--key", &two]);
        assert_eq!(several.root_keys(None).unwrap().0, [key(&two), key(&one)]);

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, format!("{one}\n")).unwrap();
        let from_file = global(&["--key-file", file.to_str().unwrap()]);
        assert_eq!(from_file.root_keys(Some(two.into())).unwrap().0, [key(&one)]);
    }

    #[test]
    fn a_wrong_root_key_names_its_source_and_not_itself() {
        let mut text = "11".repeat(32);
        text.replace_range(9..10, "x");

        let error = global(&["--key", &text]).root_keys(None).unwrap_err();
        assert_eq!(error.code(), code::KEY);
        assert!(error.message().contains("--key") && error.message().contains("character 10"), "{error}");
        assert!(!error.message().contains(&text), "{error}");

        let error = global(&[]).root_keys(Some("abc".into())).unwrap_err();
        assert!(error.message().contains(KEY_VARIABLE) && error.message().contains("has 3"), "{error}");

        let error = global(&["--key-file", "/nowhere/at/all"]).root_keys(None).unwrap_err();
        assert!(error.message().contains("/nowhere/at/all"), "{error}");
    }

    #[test]
    fn what_is_printed_of_the_arguments_holds_no_root_key() {
        let key = "5a".repeat(32);
        let args = Args::try_parse_from(["multifeed", "--key", &key, "feeds"]).expect("these arguments are right");
        let printed = format!("{args:?} {args:#?}");
        assert!(!printed.contains("5a5a") && printed.contains("Feeds"), "{printed}");
    }

    #[cfg(unix)]
    #[test]
    fn a_key_file_that_others_can_read_is_reported_and_a_long_one_is_none() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, "11".repeat(32)).unwrap();
        let option = ["--key-file", file.to_str().unwrap()];
        for (mode, told) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true), (0o666, true), (0o620, true)]
        {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            let (keys, warnings) = global(&option).root_keys(None).unwrap();
            assert_eq!((keys.len(), warnings.len()), (1, usize::from(told)), "{mode:o}");
            let warning = warnings.concat();
            assert!(!warning.contains("1111") && (!told || warning.contains(&format!("{mode:04o}"))), "{warning}");
        }
        File::options().write(true).open(&file).unwrap().set_len(1 << 40).unwrap();
        let error = global(&option).root_keys(None).unwrap_err();
        assert!(error.message().contains("longer than"), "{error}");
    }

    #[test]
    fn keys_and_key_files_go_together() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, "22".repeat(32)).unwrap();
        let one = "11".repeat(32);
        let (keys, _) = global(&["--key-file", file.to_str().unwrap(), "--key", &one]).root_keys(None).unwrap();
        assert_eq!(keys, [one.parse().unwrap(), "22".repeat(32).parse().unwrap()]);
    }
}
