//! `multifeed watch`: all feeds as they grow.

use std::collections::BTreeMap;
use std::time::Duration;

use multifeed_tokio::{Feed, FeedKey, Multifeed, MultifeedEvent, Options};
use tokio::time::{Instant, sleep};

use super::control::{self, Ask, LOOK_SHARE, NoBlocks, Request, unless_interrupted};
use super::reading::{close_read, open_beside, open_to_read};
use crate::args::Global;
use crate::error::{CliError, code};
use crate::output::{Event, Output, count, one_line};
use crate::stop::Stop;

/// How often a store that no process serves is looked at, at the most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Length, blocks held, and name of each feed, as it was said last.
type Known = BTreeMap<FeedKey, (u64, u64, String)>;

pub(super) async fn run(global: &Global, options: Options, output: &Output) -> Result<(), CliError> {
    let mut stop = Stop::listen()?;
    tokio::select! {
        result = watch(global, options, output) => result.or_else(unless_interrupted),
        // It has no other end.
        _ = stop.wait() => Ok(()),
    }
}

async fn watch(global: &Global, options: Options, output: &Output) -> Result<(), CliError> {
    let request = Request::new(Ask::Watch, global, &options);
    let mut known: Option<Known> = None;
    let mut failed = None;
    loop {
        let answered = control::through(&request, output, &mut NoBlocks).await;
        // What looking at the files costs decides when to look again, not how long another process answered.
        let begun = Instant::now();
        let looked = match answered {
            // That process ended; another one may have the store next. What it said is not to be said again.
            Some(Err(error)) if error.code() == code::NO_ANSWER => {
                known = None;
                look(None, global, &options, output).await
            }
            Some(done) => return done,
            None => look(known.take(), global, &options, output).await,
        };
        match looked {
            Ok(now) => known = Some(now),
            // What is being written just then is whole when it is looked at again.
            Err(error) if error.code() != code::NO_STORE && failed.as_deref() != Some(error.message()) => {
                failed = Some(error.message().to_owned());
            }
            Err(error) => return Err(error),
        }
        sleep(LOOK_EVERY.max(LOOK_SHARE * begun.elapsed())).await;
    }
}

/// Looks at the files, and says what is new to what was known.
async fn look(known: Option<Known>, global: &Global, options: &Options, output: &Output) -> Result<Known, CliError> {
    let no_store = || CliError::new(code::NO_STORE, format!("there is no store at {}", global.store.display()));
    let Some(mut known) = known else {
        let reading = open_to_read(global, options.clone(), output).await?.ok_or_else(no_store)?;
        let now = all_of(&reading.multi);
        return close_read(&reading.multi, Ok(now), output).await;
    };
    let multi = open_beside(global, options.clone()).await?;
    let result = multi.feeds().iter().try_for_each(|feed| say(feed, &mut known, output)).and_then(|()| {
        let now = all_of(&multi);
        let gone: Vec<FeedKey> = known.keys().filter(|key| !now.contains_key(*key)).copied().collect();
        gone.into_iter().try_for_each(|key| say_removed(key, &mut known, output))
    });
    close_read(&multi, result, output).await?;
    Ok(known)
}

fn all_of(multi: &Multifeed) -> Known {
    multi.feeds().iter().map(|feed| (feed.key(), (feed.len(), feed.downloaded(), feed.name()))).collect()
}

/// Of a store that this process has open, for another one.
pub(super) async fn of_open(multi: &Multifeed, output: &Output) -> Result<(), CliError> {
    let Some(relay) = output.relay() else { return Ok(()) };
    let mut events = multi.events();
    let mut known = all_of(multi);
    while let Some(event) = events.next().await {
        match event {
            MultifeedEvent::Feed(feed) | MultifeedEvent::Blocks(feed) | MultifeedEvent::WriterBehind(feed) => {
                say(&feed, &mut known, output)?;
            }
            MultifeedEvent::Removed(feed) => say_removed(feed.key(), &mut known, output)?,
            _ => {}
        }
        relay.flush().await?;
    }
    Ok(())
}

/// Says that a feed is new, or has grown, if that is so.
fn say(feed: &Feed, known: &mut Known, output: &Output) -> Result<(), CliError> {
    let (key, name) = (feed.key(), feed.name());
    let (length, downloaded) = (feed.len(), feed.downloaded());
    let text = key.to_string();
    if !known.contains_key(&key) {
        let people = || format!("{}: a new feed, {text}", one_line(&name));
        output.print(people, &Event::Feed { key: text.clone(), name: &name })?;
    }
    let before = known.insert(key, (length, downloaded, name.clone())).unwrap_or_default();
    if (length, downloaded) == (before.0, before.1) {
        return Ok(());
    }
    let people = || {
        let more = count(length.saturating_sub(before.0), "block");
        let held = if downloaded < length { format!(", {downloaded} held") } else { String::new() };
        format!("{}: {more} more, {length} now{held}", one_line(&name))
    };
    output.print(people, &Event::Grown { key: text.clone(), name: &name, length, downloaded })
}

fn say_removed(key: FeedKey, known: &mut Known, output: &Output) -> Result<(), CliError> {
    let name = known.remove(&key).map(|(_, _, name)| name).unwrap_or_default();
    let people = || format!("{}: removed", one_line(&name));
    output.print(people, &Event::Removed { key: key.to_string(), name: &name })
}
