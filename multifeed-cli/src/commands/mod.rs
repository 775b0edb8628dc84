//! The commands, each in its own file, and what they share.

mod append;
mod block;
mod cat;
mod crowd;
mod demo;
mod door;
mod feeds;
mod guest;
mod peer;
mod remove;
mod serve;
mod sync;
mod verify;

use std::io::ErrorKind;

use tokio::net::TcpStream;

use multifeed_tokio::{Error, Feed, FileStorage, Multifeed, Options, StoreError, is_object_property};

use crate::args::{Args, Command, Global, KEY_VARIABLE};
use crate::error::{CliError, code};
use crate::output::{FeedLine, Output, count};

/// Hex digits of a key.
const KEY_DIGITS: usize = 64;

/// Does what the command line says.
pub(crate) async fn run(args: Args, output: Output) -> Result<(), CliError> {
    let Args { global, command } = args;
    // A wrong root key is told of by each command, also by those that need none.
    let options = options(&global, &output)?;
    match command {
        Command::Append(args) => append::run(args, &global, options, output).await,
        Command::Feeds => feeds::run(&global, options, &output).await,
        Command::Cat(args) => cat::run(args, &global, options, &output).await,
        Command::Remove(args) => remove::run(args, &global, options, &output).await,
        Command::Block(args) => block::run(&args, true, &global, options, &output).await,
        Command::Unblock(args) => block::run(&args, false, &global, options, &output).await,
        Command::Serve(args) => serve::run(args, &global, options, output).await,
        Command::Sync(args) => sync::run(args, &global, options, output).await,
        Command::Verify => verify::run(&global, options, output).await,
        Command::Demo => demo::run(options, &output).await,
    }
}

/// Bytes that the system keeps of a stream beyond what is under way. More would wait there on a slow link, before our requests and before
/// answers that the peer waits for.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT_BYTES: u32 = 64 * 1024;

/// Has a stream send at once what is written to it, and take little more than it can send.
fn tune(stream: &TcpStream) -> std::io::Result<()> {
    // Without it a slow link is only slower to react.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES);
    stream.set_nodelay(true)
}

fn options(global: &Global, output: &Output) -> Result<Options, CliError> {
    let (key, warning) = global.root_key(std::env::var_os(KEY_VARIABLE))?;
    if let Some(warning) = warning {
        output.warn(&warning);
    }
    let mut options = key.map_or_else(Options::default, Options::new).with_durability(global.durability);
    options.files.follow_links = global.follow_links;
    Ok(options)
}

/// Opens the store, and makes it where there is none. Feeds in it that cannot be opened are told of on stderr; the
/// others are unharmed.
async fn open(global: &Global, options: Options, output: &Output) -> Result<Multifeed, CliError> {
    let multi = Multifeed::open(&global.store, options).await?;
    warn(&multi, global, output);
    Ok(multi)
}

fn warn(multi: &Multifeed, global: &Global, output: &Output) {
    for problem in multi.problems() {
        output.warn(&problem.to_string());
    }
    for rearranged in multi.rearranged() {
        output.warn(&rearranged.to_string());
    }
    for feed in multi.feeds().iter().filter(|feed| feed.writable() && is_object_property(&feed.name())) {
        output.warn(&format!(
            "a JavaScript app cannot reach the writer `{}` (feed {}) by its name: every JavaScript object has a property of that name",
            feed.name(),
            feed.key()
        ));
    }
    for recovered in multi.recovered() {
        output.warn(&format!("a crash or damage was repaired: {recovered}"));
    }
    let exposed = multi.exposed_keys();
    if let Some(first) = exposed.first() {
        let others = exposed.len() as u64 - 1;
        let others = if others > 0 { format!("; so can {} more", count(others, "key")) } else { String::new() };
        output.warn(&format!("{first}{others}"));
    }
    let found = multi.conflicts_kept() as u64;
    if found > 0 {
        let evidence = global.store.join("multifeed.conflicts");
        let (found, evidence) = (count(found, "time"), evidence.display());
        output.warn(&format!(
            "{found} a peer had another history of a feed, signed by its writer as well: {evidence} is the evidence"
        ));
    }
}

/// As [`open`], for commands that add nothing: `None` where there is no store, and none is made.
async fn open_existing(global: &Global, options: Options, output: &Output) -> Result<Option<Multifeed>, CliError> {
    match global.store.try_exists() {
        Ok(false) => Ok(None),
        // What is in the way, opening will tell.
        Ok(true) | Err(_) => open(global, options, output).await.map(Some),
    }
}

/// As [`open_existing`], for commands that only read: a folder that cannot be written is opened for reading alone.
async fn open_to_read(global: &Global, options: Options, output: &Output) -> Result<Option<Multifeed>, CliError> {
    if let Ok(false) = global.store.try_exists() {
        return Ok(None);
    }
    let opened = match Multifeed::open(&global.store, options.clone()).await {
        Err(error) if cannot_be_written(&error) => {
            let storage =
                FileStorage::open_read_only_with(&global.store, options.files.clone()).map_err(Error::Store)?;
            // A feed that has to be repaired first is told as one that cannot be opened.
            Multifeed::with_storage(storage, options).await.map_err(CliError::from)
        }
        opened => opened.map_err(CliError::from),
    };
    let multi = opened?;
    warn(&multi, global, output);
    Ok(Some(multi))
}

/// Whether the disk takes no writes, or not ours.
fn cannot_be_written(error: &Error) -> bool {
    let Error::Store(StoreError::Io { source, .. }) = error else { return false };
    matches!(source.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

/// As [`close`], after a command that only read: what cannot be written then is no more than a note that nothing changed.
async fn close_read<T>(multi: &Multifeed, result: Result<T, CliError>) -> Result<T, CliError> {
    match multi.close().await {
        Err(error) if !cannot_be_written(&error) => result.and(Err(error.into())),
        _ => result,
    }
}

/// Closes the store after a command. Where both failed, the command's own failure is what the user has to know.
async fn close<T>(multi: &Multifeed, result: Result<T, CliError>) -> Result<T, CliError> {
    let closed = multi.close().await.map_err(CliError::from);
    let value = result?;
    closed?;
    Ok(value)
}

fn feed_line(feed: &Feed) -> FeedLine {
    FeedLine {
        key: feed.key().to_string(),
        name: feed.name(),
        length: feed.len(),
        bytes: feed.byte_len(),
        downloaded: feed.downloaded(),
        writable: feed.writable(),
    }
}

/// The feed that is meant: by its whole key, by its name, or by how its key starts.
fn find(multi: &Multifeed, text: &str) -> Result<Feed, CliError> {
    let start = text.to_ascii_lowercase();
    let feeds = multi.feeds();
    let by_key = feeds.iter().find(|feed| start.len() == KEY_DIGITS && feed.key().to_string() == start);
    if let Some(feed) = by_key.or_else(|| feeds.iter().find(|feed| feed.name() == text)) {
        return Ok(feed.clone());
    }
    let mut starting = feeds.iter().filter(|feed| !start.is_empty() && feed.key().to_string().starts_with(&start));
    let Some(feed) = starting.next() else {
        return Err(CliError::new(
            code::FEED,
            format!("no feed has the key or the name {text}, or a key that starts so"),
        ));
    };
    let others: Vec<&Feed> = starting.collect();
    if others.is_empty() {
        return Ok(feed.clone());
    }
    let mut message = format!("the keys of {} feeds start with {text}:", others.len() + 1);
    for feed in std::iter::once(feed).chain(others) {
        message.push_str(&format!("\n  {}  {}", feed.key(), feed.name()));
    }
    Err(CliError::new(code::AMBIGUOUS, message))
}
