//! `multifeed ban` and `multifeed unban`: feeds that this store never syncs.

use multifeed_tokio::{FeedKey, Multifeed, Options};

use super::find;
use super::opening::{close, open};
use crate::args::{Ban, Global};
use crate::error::CliError;
use crate::output::{BannedLine, Output};

pub(super) async fn run(
    args: &Ban,
    bans: bool,
    global: &Global,
    options: Options,
    output: &Output,
) -> Result<(), CliError> {
    let multi = open(global, options, output).await?;
    let result = set(&multi, &args.feed, bans, output).await;
    close(&multi, result, output).await
}

async fn set(multi: &Multifeed, text: &str, bans: bool, output: &Output) -> Result<(), CliError> {
    // A whole key need not be of a feed that is here.
    let key = match text.parse::<FeedKey>() {
        Ok(key) => key,
        Err(_) => find(multi, text)?.key(),
    };
    let changed = if bans { multi.ban(key).await? } else { multi.unban(key).await? };
    let line = BannedLine { key: key.to_string(), banned: bans };
    let people = || match (bans, changed) {
        (true, true) => format!("banned feed {key}: it is not synced any more"),
        (true, false) => format!("feed {key} was banned before"),
        (false, true) => format!("feed {key} is not banned any more"),
        (false, false) => format!("feed {key} was not banned"),
    };
    output.print(people, &line)
}
