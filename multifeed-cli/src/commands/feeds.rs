//! `multifeed feeds`: what the store holds.

use multifeed_tokio::{FeedKey, Options};

use super::feed_line;
use super::reading::{self, Reading, close_read, open_to_read};
use crate::args::Global;
use crate::error::{CliError, code};
use crate::output::{BlockedLine, FeedLine, Output, table};

pub(super) async fn run(global: &Global, options: Options, output: &Output) -> Result<(), CliError> {
    let Some(reading) = open_to_read(global, options, output).await? else {
        return output.say(&format!("no feeds: there is no store at {}", global.store.display()));
    };
    let Reading { multi, problems, changed, .. } = reading;
    let feeds: Vec<FeedLine> = multi.feeds().iter().map(feed_line).collect();
    let result = match multi.blocked().await {
        Ok(blocked) if feeds.is_empty() && !problems.is_empty() => {
            output.say("no feed can be opened").and_then(|()| list(&feeds, &blocked, output))
        }
        Ok(blocked) => output.say(&table(&feeds)).and_then(|()| list(&feeds, &blocked, output)),
        Err(error) => Err(error.into()),
    };
    close_read(&multi, result, output).await?;
    match (problems.is_empty(), changed.is_empty()) {
        (true, true) => Ok(()),
        (true, false) => Err(reading::changed(&changed.join("; "))),
        (false, _) => {
            let message = format!("not all of this store is sound: {}", problems.join("; "));
            Err(CliError::new(code::DAMAGED, message))
        }
    }
}

fn list(feeds: &[FeedLine], blocked: &[FeedKey], output: &Output) -> Result<(), CliError> {
    feeds.iter().try_for_each(|feed| output.print_object(feed))?;
    blocked.iter().try_for_each(|key| {
        output.say(&format!("blocked: {key}"))?;
        output.print_object(&BlockedLine { key: key.to_string(), blocked: true })
    })
}
