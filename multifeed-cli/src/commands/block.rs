//! `multifeed block` and `multifeed unblock`: feeds that this store never syncs.

use multifeed_tokio::{FeedKey, Multifeed, Options};

use super::{close, find, open};
use crate::args::{Block, Global};
use crate::error::CliError;
use crate::output::{BlockedLine, Output};

pub(super) async fn run(
    args: &Block,
    blocks: bool,
    global: &Global,
    options: Options,
    output: &Output,
) -> Result<(), CliError> {
    let multi = open(global, options, output).await?;
    let result = set(&multi, &args.feed, blocks, output).await;
    close(&multi, result, output).await
}

async fn set(multi: &Multifeed, text: &str, blocks: bool, output: &Output) -> Result<(), CliError> {
    // A whole key need not be of a feed that is here.
    let key = match text.parse::<FeedKey>() {
        Ok(key) => key,
        Err(_) => find(multi, text)?.key(),
    };
    let changed = if blocks { multi.block(key).await? } else { multi.unblock(key).await? };
    let line = BlockedLine { key: key.to_string(), blocked: blocks };
    let people = || match (blocks, changed) {
        (true, true) => format!("blocked feed {key}: it is not synced any more"),
        (true, false) => format!("feed {key} was blocked before"),
        (false, true) => format!("feed {key} is not blocked any more"),
        (false, false) => format!("feed {key} was not blocked"),
    };
    output.print(people, &line)
}
