//! The command line: what a user can say, and the help that teaches it.

mod blocks;
mod corestore;
mod feeds;
mod global;
mod keys;
mod live;
mod network;
mod range;
mod shell;

use clap::{Parser, Subcommand};

pub(crate) use self::blocks::{Append, Cat, Clear};
pub(crate) use self::feeds::{Ban, Feeds, Name, Remove, Verify};
pub(crate) use self::global::Global;
pub(crate) use self::keys::{KEY_VARIABLE, Key, KeyCommand, KeyExport, KeyImport, Keygen};
pub(crate) use self::live::{Conflicts, Status, Watch};
pub(crate) use self::network::{Bounds, Serve, Swarm, Sync, Testnet};
pub(crate) use self::range::BlockRange;
pub(crate) use self::shell::{Completions, Man};

const ABOUT: &str = "Append-only feeds of many writers, in one folder, in sync with peers";

const LONG_ABOUT: &str = "\
Append-only feeds of many writers, in one folder, in sync with peers.

A store is a folder of feeds. A feed is a list of blocks (any bytes) that one writer extends and signs; nobody can \
change what is in it. Two stores that are in sync hold the same feeds: each side's own, and those it got from others. \
The folder and the wire are those of npm's multifeed 6, so either side of a sync, and either user of a folder (one \
at a time), may be JavaScript.";

const EXAMPLES: &str = "\
Examples:
  multifeed demo                                  two stores, made and synced before your eyes
  multifeed append notes 'first' 'second'         two blocks for the writer \"notes\"
  dmesg | multifeed append log -                  each line a block
  multifeed append photos --file a.jpg b.jpg      each file a block
  multifeed feeds                                 what this store holds
  multifeed cat notes 0..1                        the first block of \"notes\"

  multifeed --store a serve 127.0.0.1:7000        one side waits for peers,
  multifeed --store b sync 127.0.0.1:7000         the other connects: now both hold the same

  multifeed swarm --key-file k                    peers on this network find each other, and sync

Exit codes:
  0    done: `sync` is in sync, or the peer was sent all that it asked for; a feed that is banned
       here does not count; also when Ctrl-C or SIGTERM ended `serve`, `swarm --live`, `watch`,
       `status --watch` or `cat --follow`, or `sync --live` while both sides held the same
  1    it failed: the message says why, and --json gives a code for it; also when a `sync` ended
       early (ERR_ENDED_EARLY, ERR_GIVEN_UP), and the next one can bring the rest
  2    the command line is wrong
  3    `sync` is done, and not in sync: the peer did not take all that it was offered, as it does
       not want more or what it bans, or cannot (ERR_NOT_TAKEN); or a feed has two histories
       (ERR_CONFLICT); or damage or a bound, as reported before, keep the two apart, or the peer has more than a store
       that can only be read takes (ERR_NOT_IN_SYNC)
  130  Ctrl-C ended it before it was done, or a `sync --live` while the two were not in sync
       (143: SIGTERM did); what was received is on disk

The variable RUST_LOG (for example RUST_LOG=multifeed=debug) writes a log to stderr.";

/// All that was said on the command line.
#[derive(Parser, Debug)]
#[command(name = "multifeed", version, about = ABOUT, long_about = LONG_ABOUT, after_help = EXAMPLES)]
#[command(subcommand_required = true, arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    Append(Append),

    Feeds(Feeds),

    Remove(Remove),

    /// Ban a feed: it is never offered, fetched or served again
    ///
    /// What is here of it stays, and can be read; `remove` takes it away. The keys are kept beside the feeds, in
    /// `multifeed.blocked`; JavaScript does not look at them.
    ///
    /// With --json: {"key","banned":true}.
    #[command(alias = "block")]
    Ban(Ban),

    /// Lift the ban of a feed
    ///
    /// With --json: {"key","banned":false}.
    #[command(alias = "unblock")]
    Unban(Ban),

    Name(Name),

    Cat(Cat),

    Clear(Clear),

    Status(Status),

    Watch(Watch),

    Conflicts(Conflicts),

    Serve(Serve),

    Sync(Sync),

    Swarm(Swarm),

    Keygen(Keygen),

    Key(Key),

    Testnet(Testnet),

    Verify(Verify),

    /// Show what this does: two stores with a writer each, synced over a loopback socket
    ///
    /// The stores are in a temporary folder, which is removed at the end. --store is not touched.
    Demo,

    Completions(Completions),

    Man(Man),
}

impl Command {
    /// Whether it is about a store.
    pub(crate) fn has_store(&self) -> bool {
        !matches!(
            self,
            Command::Demo | Command::Testnet(_) | Command::Keygen(_) | Command::Completions(_) | Command::Man(_)
        )
    }

    /// Whether stdin and stdout are a peer's.
    pub(crate) fn is_on_stdio(&self) -> bool {
        match self {
            Command::Serve(args) => args.stdio,
            Command::Sync(args) => args.stdio,
            _ => false,
        }
    }

    /// The feed that it is about.
    pub(crate) fn feed_mut(&mut self) -> Option<&mut String> {
        match self {
            Command::Cat(Cat { feed, .. })
            | Command::Clear(Clear { feed, .. })
            | Command::Remove(Remove { feed, .. })
            | Command::Ban(Ban { feed, .. })
            | Command::Unban(Ban { feed, .. })
            | Command::Name(Name { feed, .. })
            | Command::Key(Key { command: KeyCommand::Export(KeyExport { feed, .. }) }) => Some(feed),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
