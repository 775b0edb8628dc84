//! `multifeed name`: names of this store's user for feeds, whoever writes them.
//!
//! They stand in `multifeed.names`, beside the feeds: a feed's key, a space and the name, a line each.

use std::collections::BTreeMap;
use std::path::Path;

use multifeed_tokio::{FeedKey, Multifeed, Options};

use super::find;
use super::reading::{close_read, open_to_read};
use super::side_file::SideFile;
use crate::args::{Command, Global, Name};
use crate::error::{CliError, code};
use crate::output::{AliasLine, FeedLine, Output, one_line};

const FILE: &str = "multifeed.names";

/// Bytes of a name, at the most.
const MOST_BYTES: usize = 255;

/// Names by the key of their feed.
type Names = BTreeMap<String, String>;

/// Replaces a name by the key of its feed, if the command is about a feed. `append` makes no writer of such a name.
pub(super) fn resolve(command: &mut Command, global: &Global, output: &Output) -> Result<(), CliError> {
    let writer = match command {
        Command::Append(args) => Some(args.writer.clone()),
        _ => None,
    };
    let feed = command.feed_mut();
    if writer.is_none() && feed.is_none() {
        return Ok(());
    }
    let names = match read(&SideFile::of(global, FILE)) {
        Ok(names) => names,
        Err(error) => {
            output.warn(error.message());
            return Ok(());
        }
    };
    let key_of = |name: &str| names.iter().find(|(_, own)| *own == name).map(|(key, _)| key.clone());
    if let Some(key) = writer.as_deref().and_then(key_of) {
        let name = one_line(&writer.unwrap_or_default());
        let message =
            format!("`{name}` is a name that was given to feed {key} here: append needs the name of a writer");
        return Err(CliError::new(code::NAME_TAKEN, message));
    }
    if let Some(feed) = feed
        && let Some(key) = key_of(feed)
    {
        *feed = key;
    }
    Ok(())
}

/// Notes with each feed the name that it was given here. What cannot be read is a warning.
pub(super) fn note(feeds: &mut [FeedLine], store: &Path, follow_links: bool, output: &Output) {
    match read(&SideFile::new(store, follow_links, FILE)) {
        Ok(names) => feeds.iter_mut().for_each(|feed| feed.alias = names.get(&feed.key).cloned()),
        Err(error) => output.warn(error.message()),
    }
}

pub(super) async fn run(args: Name, global: &Global, options: Options, output: &Output) -> Result<(), CliError> {
    let Some(reading) = open_to_read(global, options, output).await? else {
        let message = format!("no feed {}: there is no store at {}", args.feed, global.store.display());
        return Err(CliError::new(code::FEED, message));
    };
    let result = set(&args, &reading.multi, global, output);
    close_read(&reading.multi, result, output).await
}

fn set(args: &Name, multi: &Multifeed, global: &Global, output: &Output) -> Result<(), CliError> {
    // A whole key need not be of a feed that is here: it may have been removed, or not have come yet.
    let key = match args.feed.parse::<FeedKey>() {
        Ok(key) => key,
        Err(_) => find(multi, &args.feed)?.key(),
    };
    let file = SideFile::of(global, FILE);
    let _locked = file.lock();
    let mut names = read(&file)?;
    let before = match &args.alias {
        Some(alias) => {
            check(alias, key, multi, &names)?;
            names.insert(key.to_string(), alias.clone())
        }
        None => names.remove(&key.to_string()),
    };
    if before != args.alias {
        let text: String = names.iter().map(|(key, name)| format!("{key} {name}\n")).collect();
        file.replace(&text).map_err(|error| file.failed(&error))?;
    }
    let people = || match (&args.alias, &before) {
        (Some(alias), _) => format!("feed {key} is named {alias} here"),
        (None, Some(before)) => format!("feed {key} is no longer named {}", one_line(before)),
        (None, None) => format!("feed {key} had no name here"),
    };
    output.print(people, &AliasLine { key: key.to_string(), alias: args.alias.clone() })
}

/// Fails if the name may mean something else too.
fn check(alias: &str, key: FeedKey, multi: &Multifeed, names: &Names) -> Result<(), CliError> {
    if alias.is_empty() || alias.len() > MOST_BYTES || alias.chars().any(char::is_control) || alias.trim() != alias {
        let message = format!(
            "a name has 1 to {MOST_BYTES} bytes, no control characters, and neither begins nor ends with a space"
        );
        return Err(CliError::new(code::BAD_NAME, message));
    }
    let taken = |what: String| Err(CliError::new(code::NAME_TAKEN, format!("`{alias}` {what}: choose another name")));
    if alias.bytes().all(|digit| digit.is_ascii_digit()) {
        return taken("is a number, and feeds of peers are named by numbers".to_owned());
    }
    if let Some((other, _)) = names.iter().find(|(other, name)| *name == alias && **other != key.to_string()) {
        return taken(format!("is the name of feed {other} here"));
    }
    let start = alias.to_ascii_lowercase();
    for feed in multi.feeds() {
        if feed.name() == alias {
            return taken(format!("is the name of the writer of feed {}", feed.key()));
        }
        if feed.key().to_string().starts_with(&start) {
            return taken(format!("is how the key {} begins", feed.key()));
        }
    }
    Ok(())
}

fn read(file: &SideFile) -> Result<Names, CliError> {
    let Some(text) = file.read()? else { return Ok(Names::new()) };
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty());
    lines
        .map(|(at, line)| {
            let entry = line.split_once(' ').filter(|(_, name)| !name.is_empty());
            let entry = entry.and_then(|(key, name)| Some((key.parse::<FeedKey>().ok()?.to_string(), name.to_owned())));
            entry.ok_or_else(|| file.damaged(&format!("line {} is not a key, a space and a name", at + 1)))
        })
        .collect()
}
