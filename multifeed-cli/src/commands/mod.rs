//! The commands, each in its own file, and what they share.

mod append;
mod ban;
mod cat;
mod clear;
mod conflicts;
mod connecting;
mod control;
mod crowd;
mod demo;
mod door;
mod feeds;
mod folder;
mod guest;
mod holder;
mod key;
mod keygen;
#[cfg(unix)]
mod listener;
#[cfg(not(unix))]
#[path = "no_listener.rs"]
mod listener;
mod local;
mod names;
mod network;
mod opening;
mod outcome;
mod peer;
mod pipes;
mod reading;
mod remove;
mod root_keys;
mod serve;
mod shell;
mod side_file;
mod status;
mod swarm;
mod sync;
mod testnet;
mod verify;
mod watch;
mod whereabouts;
mod writers;

use multifeed_tokio::{DEFAULT_ROOT_KEY, Error, Feed, FeedKey, Multifeed, Options, Role};

use self::control::Ask;
use self::feeds::Listing;
use self::opening::bounded;
use crate::args::{Args, Command, Global, KEY_VARIABLE, Key, KeyCommand};
use crate::error::{CliError, EXIT_USAGE, code};
use crate::output::{FeedLine, Output};

/// Hex digits of a key.
const KEY_DIGITS: usize = 64;

/// Does what the command line says.
pub(crate) async fn run(args: Args, output: Output) -> Result<(), CliError> {
    let Args { global, mut command } = args;
    // Each command reports a wrong root key, also by those that need none.
    let (options, keys) = options(&global, &output)?;
    if command.has_store() {
        opening::check_corestore(&global, keys.len())?;
        folder::check(&command, &global)?;
        root_keys::check(&command, &global, &keys)?;
        names::resolve(&mut command, &global, &output)?;
    }
    match command {
        Command::Serve(args) if args.stdio && keys.len() == 1 => {
            pipes::run(Role::Responder, args.live, &global, bounded(options, &args.bounds), output).await
        }
        Command::Sync(args) if args.stdio && keys.len() == 1 => {
            pipes::run(Role::Initiator, args.live, &global, options, output).await
        }
        Command::Sync(args) if args.folder().is_some() && keys.len() == 1 => {
            local::run(&args, &global, options, output).await
        }
        Command::Serve(args) if keys.len() > 1 && !args.stdio => {
            network::serve(args, &global, options, &keys, output).await
        }
        Command::Sync(args) if !args.stdio && args.folder().is_none() && (keys.len() > 1 || args.retry) => {
            network::sync(args, &global, options, &keys, output).await
        }
        Command::Swarm(args) => swarm::run(args, &global, options, &keys, output).await,
        _ if keys.len() > 1 => {
            let message = "only `serve`, `sync` and `swarm` take several root keys, and those with an address: give the one of the multifeed that is meant";
            Err(CliError::new(code::USAGE, message).with_exit(EXIT_USAGE))
        }
        Command::Append(args) => append::run(args, &global, options, output).await,
        Command::Cat(args) => cat::run(args, &global, options, &output).await,
        Command::Status(args) => status::run(&args, &global, options, &output).await,
        Command::Watch(_) => watch::run(&global, options, &output).await,
        command @ (Command::Feeds(_)
        | Command::Remove(_)
        | Command::Ban(_)
        | Command::Unban(_)
        | Command::Clear(_)
        | Command::Verify(_)
        | Command::Conflicts(_)) => on_store(command, &global, options, &output).await,
        Command::Serve(args) => serve::run(args, &global, options, output).await,
        Command::Sync(args) => sync::run(args, &global, options, output).await,
        Command::Demo => demo::run(options, &output).await,
        Command::Name(args) => names::run(args, &global, options, &output).await,
        Command::Key(Key { command: KeyCommand::Export(args) }) => key::export(&args, &global, options, &output).await,
        Command::Key(Key { command: KeyCommand::Import(args) }) => key::import(args, &global, options, &output).await,
        Command::Completions(args) => shell::completions(&args),
        Command::Man(args) => shell::man(&args),
        Command::Keygen(args) => keygen::run(&args, &output),
        Command::Testnet(args) => testnet::run(&args, &output).await,
    }
}

/// Runs a command on the store, in the process that has it open if one listens there.
async fn on_store(command: Command, global: &Global, options: Options, output: &Output) -> Result<(), CliError> {
    let ask = match &command {
        Command::Remove(args) => Ask::Remove(args.clone()),
        Command::Ban(args) => Ask::Ban(args.clone()),
        Command::Unban(args) => Ask::Unban(args.clone()),
        Command::Clear(args) => Ask::Clear(args.clone()),
        Command::Verify(args) => Ask::Verify(args.clone()),
        Command::Conflicts(args) => Ask::Conflicts(args.clone()),
        Command::Feeds(args) => Ask::Feeds(Listing::new(args, global)),
        _ => return Ok(()),
    };
    let given = options.clone();
    let here = async {
        match command {
            Command::Remove(args) => remove::run(args, global, given, output).await,
            Command::Ban(args) => ban::run(&args, true, global, given, output).await,
            Command::Unban(args) => ban::run(&args, false, global, given, output).await,
            Command::Clear(args) => clear::run(args, global, given, output).await,
            Command::Conflicts(args) => conflicts::run(&args, global, given, output).await,
            Command::Verify(args) => verify::run(&args, global, given, output.clone()).await,
            Command::Feeds(args) => feeds::run(Listing::new(&args, global), global, given, output).await,
            _ => Ok(()),
        }
    };
    control::anywhere(ask, global, &options, output, here).await
}

/// The options of the command line, with the first of the root keys that are given, and these; the default one if none is.
fn options(global: &Global, output: &Output) -> Result<(Options, Vec<FeedKey>), CliError> {
    let (mut keys, warnings) = global.root_keys(std::env::var_os(KEY_VARIABLE))?;
    warnings.iter().for_each(|warning| output.warn(warning));
    let mut options = keys.first().copied().map_or_else(Options::default, Options::new);
    if keys.is_empty() {
        keys.push(DEFAULT_ROOT_KEY);
    }
    options = options.with_durability(global.durability);
    options.files.follow_links = global.follow_links;
    Ok((options, keys))
}

fn feed_line(feed: &Feed) -> FeedLine {
    FeedLine {
        key: feed.key().to_string(),
        name: feed.name(),
        length: feed.len(),
        bytes: feed.byte_len(),
        downloaded: feed.downloaded(),
        writable: feed.writable(),
        alias: None,
    }
}

/// The feed that is meant: by its whole key, by its name, or by how its key starts. The name of a writer whose folder is missing, or cannot be opened,
/// fails with that.
fn find(multi: &Multifeed, text: &str) -> Result<Feed, CliError> {
    let start = text.to_ascii_lowercase();
    let feeds = multi.feeds();
    let by_key = feeds.iter().find(|feed| start.len() == KEY_DIGITS && feed.key().to_string() == start);
    if let Some(feed) = by_key.or_else(|| feeds.iter().find(|feed| feed.name() == text)) {
        return Ok(feed.clone());
    }
    // A writer's name is that writer's, and no start of another feed's key.
    if let Some(why) = multi.lost_writer(text) {
        return Err(Error::Store(why).into());
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
