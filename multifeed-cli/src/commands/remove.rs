//! `multifeed remove`: a feed less.

use multifeed_tokio::{FeedKey, Multifeed, Options, StoreError};

use super::opening::{close, open_existing};
use super::{feed_line, find};
use crate::args::{Global, Remove};
use crate::error::{CliError, code};
use crate::output::{FeedLine, Output};

pub(super) async fn run(args: Remove, global: &Global, options: Options, output: &Output) -> Result<(), CliError> {
    let Some(multi) = open_existing(global, options, output).await? else {
        let message = format!("no feed {}: there is no store at {}", args.feed, global.store.display());
        return Err(CliError::new(code::FEED, message));
    };
    let result = remove(&multi, &args, output).await.map(drop);
    close(&multi, result, output).await
}

/// Returns the feed as it was.
pub(super) async fn remove(multi: &Multifeed, args: &Remove, output: &Output) -> Result<FeedLine, CliError> {
    let found = find(multi, &args.feed);
    if let Some((key, line)) = missing(multi, &args.feed).filter(|_| found.is_err() || args.writer) {
        if !args.writer {
            let message =
                format!("the writer {} ({key}) is missing; --writer gives it up, and bans its feed", line.name);
            return Err(CliError::new(code::FEED, message));
        }
        multi.give_up_missing(key).await?;
        let people =
            || format!("gave up the writer of feed {key}, which was named {} and is missing, and banned it", line.name);
        output.print(people, &line)?;
        return Ok(line);
    }
    let feed = found?;
    let line = feed_line(&feed);
    let ours = feed.writable() || feed.lost_key();
    if ours && !args.writer {
        let error = StoreError::OwnWriter { key: feed.key() };
        return Err(CliError::new(error.code(), format!("{error}; --writer does that all the same")));
    }
    // A peer must not bring it again meanwhile. A writer's is banned as it is removed.
    let banned_first = args.ban && !ours && multi.ban(feed.key()).await?;
    let removed = if ours { feed.remove_writer().await } else { feed.remove().await };
    if let Err(error) = removed {
        if banned_first && multi.feed(feed.key()).is_some() {
            multi.unban(feed.key()).await?;
        }
        return Err(error.into());
    }
    let banned = args.ban || ours;
    let people = || {
        let also = if banned { ", and banned" } else { "" };
        format!("removed feed {}, which was named {}{also}", line.key, line.name)
    };
    output.print(people, &line)?;
    Ok(line)
}

/// The missing writer that is meant, by its name or how its key starts, as it was known.
fn missing(multi: &Multifeed, text: &str) -> Option<(FeedKey, FeedLine)> {
    let start = text.to_ascii_lowercase();
    let mut found = multi.problems().into_iter().filter_map(|problem| match problem {
        StoreError::MissingWriter { key: Some(key), name, blocks, .. }
        | StoreError::CoreMissing { key, name, blocks } => {
            let is_it = name.as_deref() == Some(text) || (!start.is_empty() && key.to_string().starts_with(&start));
            let name = name.unwrap_or_default();
            let line = FeedLine {
                key: key.to_string(),
                name,
                length: blocks,
                bytes: 0,
                downloaded: 0,
                writable: false,
                alias: None,
            };
            is_it.then_some((key, line))
        }
        _ => None,
    });
    let first = found.next()?;
    found.next().is_none().then_some(first)
}
