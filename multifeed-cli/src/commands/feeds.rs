//! `multifeed feeds`: what the store holds.

use std::io::{self, IsTerminal};
use std::path::Path;

use multifeed_tokio::{FeedKey, Multifeed, Options};
use serde::{Deserialize, Serialize};

use super::opening::problems;
use super::reading::{self, Reading, close_read, open_to_read};
use super::{feed_line, names};
use crate::args::{Feeds, Global};
use crate::error::{CliError, code};
use crate::output::{BannedLine, FeedLine, Output, narrow_table, table};
use crate::problems::in_a_line;

/// How feeds are listed.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Listing {
    /// In the columns of a terminal.
    narrow: bool,
    follow_links: bool,
}

impl Listing {
    pub(super) fn new(args: &Feeds, global: &Global) -> Self {
        Self { narrow: !args.long && io::stdout().is_terminal(), follow_links: global.follow_links }
    }
}

pub(super) async fn run(listing: Listing, global: &Global, options: Options, output: &Output) -> Result<(), CliError> {
    let Some(reading) = open_to_read(global, options, output).await? else {
        return output.say(&format!("no feeds: there is no store at {}", global.store.display()));
    };
    let Reading { multi, problems, changed, .. } = reading;
    let result = print(&multi, &problems, listing, &global.store, output).await;
    close_read(&multi, result, output).await?;
    check(&problems, &changed)
}

/// Of a store that this process has open.
pub(super) async fn of_open(
    multi: &Multifeed,
    listing: Listing,
    store: &Path,
    output: &Output,
) -> Result<(), CliError> {
    let problems = problems(multi);
    print(multi, &problems, listing, store, output).await?;
    check(&problems, &[])
}

async fn print(
    multi: &Multifeed,
    problems: &[String],
    listing: Listing,
    store: &Path,
    output: &Output,
) -> Result<(), CliError> {
    let mut feeds: Vec<FeedLine> = multi.feeds().iter().map(feed_line).collect();
    names::note(&mut feeds, store, listing.follow_links, output);
    let shown = if listing.narrow { narrow_table } else { table };
    match multi.banned().await {
        Ok(banned) if feeds.is_empty() && !problems.is_empty() => {
            output.say("no feed can be opened").and_then(|()| list(&feeds, &banned, output))
        }
        Ok(banned) if feeds.is_empty() && multi.is_in_corestore() => {
            let hint = "the corestore has no feeds of this root key and namespace (--key, --key-file, --namespace)";
            output.say(hint).and_then(|()| list(&feeds, &banned, output))
        }
        Ok(banned) => output.say(&shown(&feeds)).and_then(|()| list(&feeds, &banned, output)),
        Err(error) => Err(error.into()),
    }
}

fn check(problems: &[String], changed: &[String]) -> Result<(), CliError> {
    match (problems.is_empty(), changed.is_empty()) {
        (true, true) => Ok(()),
        (true, false) => Err(reading::changed(&in_a_line(changed))),
        (false, _) => {
            let message = format!("not all of this store is sound: {}", in_a_line(problems));
            Err(CliError::new(code::DAMAGED, message))
        }
    }
}

fn list(feeds: &[FeedLine], banned: &[FeedKey], output: &Output) -> Result<(), CliError> {
    feeds.iter().try_for_each(|feed| output.print_object(feed))?;
    banned.iter().try_for_each(|key| {
        output.say(&format!("banned: {key}"))?;
        output.print_object(&BannedLine { key: key.to_string(), banned: true })
    })
}
