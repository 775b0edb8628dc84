//! `multifeed feeds`: what the store holds.

use multifeed_tokio::{FeedKey, Multifeed, Options};

use super::feed_line;
use super::opening::problems;
use super::reading::{self, Reading, close_read, open_to_read};
use crate::args::Global;
use crate::error::{CliError, code};
use crate::output::{BannedLine, FeedLine, Output, table};
use crate::problems::in_a_line;

pub(super) async fn run(global: &Global, options: Options, output: &Output) -> Result<(), CliError> {
    let Some(reading) = open_to_read(global, options, output).await? else {
        return output.say(&format!("no feeds: there is no store at {}", global.store.display()));
    };
    let Reading { multi, problems, changed, .. } = reading;
    let result = print(&multi, &problems, output).await;
    close_read(&multi, result, output).await?;
    check(&problems, &changed)
}

/// Of a store that this process has open.
pub(super) async fn of_open(multi: &Multifeed, output: &Output) -> Result<(), CliError> {
    let problems = problems(multi);
    print(multi, &problems, output).await?;
    check(&problems, &[])
}

async fn print(multi: &Multifeed, problems: &[String], output: &Output) -> Result<(), CliError> {
    let feeds: Vec<FeedLine> = multi.feeds().iter().map(feed_line).collect();
    match multi.banned().await {
        Ok(banned) if feeds.is_empty() && !problems.is_empty() => {
            output.say("no feed can be opened").and_then(|()| list(&feeds, &banned, output))
        }
        Ok(banned) if feeds.is_empty() && multi.is_in_corestore() => {
            let hint = "the corestore has no feeds of this root key and namespace (--key, --key-file, --namespace)";
            output.say(hint).and_then(|()| list(&feeds, &banned, output))
        }
        Ok(banned) => output.say(&table(&feeds)).and_then(|()| list(&feeds, &banned, output)),
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
