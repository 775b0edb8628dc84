//! `multifeed ban` and `multifeed unban`: feeds that this store never syncs.

use multifeed_tokio::{FeedKey, Multifeed, Options};

use super::find;
use super::opening::{close, open};
use crate::args::{Ban, Global};
use crate::error::{CliError, code};
use crate::output::{BannedLine, Output};

pub(super) async fn run(
    args: &Ban,
    bans: bool,
    global: &Global,
    options: Options,
    output: &Output,
) -> Result<(), CliError> {
    // A whole key may be banned before there is a store; nothing else means anything then.
    let whole = args.feed.parse::<FeedKey>();
    if whole.is_err() && matches!(global.store.try_exists(), Ok(false)) {
        let message = format!("no feed {}: there is no store at {}", args.feed, global.store.display());
        return Err(CliError::new(code::FEED, message));
    }
    let multi = open(global, options, output).await?;
    let result = set(&multi, &args.feed, bans, output).await.map(drop);
    close(&multi, result, output).await
}

/// Returns the feed, if that was another way before.
pub(super) async fn set(
    multi: &Multifeed,
    text: &str,
    bans: bool,
    output: &Output,
) -> Result<Option<FeedKey>, CliError> {
    // A whole key need not be of a feed that is here.
    let key = match text.parse::<FeedKey>() {
        Ok(key) => key,
        Err(_) if bans => find(multi, text)?.key(),
        // It need not be here any more.
        Err(_) => match banned_as(&multi.banned().await?, text)? {
            Some(key) => key,
            None => find(multi, text)?.key(),
        },
    };
    let changed = if bans { multi.ban(key).await? } else { multi.unban(key).await? };
    let line = BannedLine { key: key.to_string(), banned: bans };
    let people = || match (bans, changed) {
        (true, true) => format!("banned feed {key}: it is not synced any more"),
        (true, false) => format!("feed {key} was banned before"),
        (false, true) => format!("feed {key} is not banned any more"),
        (false, false) => format!("feed {key} was not banned"),
    };
    output.print(people, &line)?;
    Ok(changed.then_some(key))
}

/// The only key of these that starts like this.
fn banned_as(banned: &[FeedKey], text: &str) -> Result<Option<FeedKey>, CliError> {
    let start = text.to_ascii_lowercase();
    let mut starting = banned.iter().filter(|key| !start.is_empty() && key.to_string().starts_with(&start));
    match (starting.next(), starting.next()) {
        (Some(_), Some(_)) => {
            Err(CliError::new(code::AMBIGUOUS, format!("the keys of several banned feeds start with {text}")))
        }
        (first, _) => Ok(first.copied()),
    }
}
