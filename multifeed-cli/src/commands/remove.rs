//! `multifeed remove`: a feed less.

use multifeed_tokio::{Multifeed, Options, StoreError};

use super::{close, feed_line, find, open_existing};
use crate::args::{Global, Remove};
use crate::error::{CliError, code};
use crate::output::Output;

pub(super) async fn run(args: Remove, global: &Global, options: Options, output: &Output) -> Result<(), CliError> {
    let Some(multi) = open_existing(global, options, output).await? else {
        let message = format!("no feed {}: there is no store at {}", args.feed, global.store.display());
        return Err(CliError::new(code::FEED, message));
    };
    let result = remove(&multi, &args, output).await;
    close(&multi, result, output).await
}

async fn remove(multi: &Multifeed, args: &Remove, output: &Output) -> Result<(), CliError> {
    let feed = find(multi, &args.feed)?;
    let line = feed_line(&feed);
    if feed.writable() && !args.writer {
        let error = StoreError::OwnWriter { key: feed.key() };
        return Err(CliError::new(error.code(), format!("{error}; --writer does that all the same")));
    }
    if args.block {
        multi.block(feed.key()).await?;
    }
    match feed.writable() {
        true => feed.remove_writer().await?,
        false => feed.remove().await?,
    }
    let blocked = args.block || line.writable;
    let people = || {
        let also = if blocked { ", and blocked" } else { "" };
        format!("removed feed {}, which was named {}{also}", line.key, line.name)
    };
    output.print(people, &line)
}
