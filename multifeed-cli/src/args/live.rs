//! The commands that show how a store stands, and what happens in it.

use clap::Args as ClapArgs;
use serde::{Deserialize, Serialize};

/// Show how the store stands: its feeds, the peers, what is missing where, and how fast it goes
///
/// The peers are those of `serve`, `sync --live` or `swarm`, if one of them has the store open. Without it, it is about the store alone.
///
/// With --json: {"process","feeds","length","downloaded","bytes","missing","peers":[…],"bans","conflicts"}: the number of the process that has the
/// store open, or null; how many feeds; their blocks, those that are held, and the bytes of all; how many blocks of them are missing;
/// how many feeds are banned; and how many forks are on record (`multifeed conflicts`). A peer is {"id","address"} with the numbers of `progress`.
#[derive(ClapArgs, Debug)]
pub(crate) struct Status {
    /// Show it again every second, until Ctrl-C
    #[arg(long)]
    pub(crate) watch: bool,
}

/// Show all feeds as they grow, until Ctrl-C
///
/// A line for each growth, whether the blocks were appended or came from a peer, and for each feed that is new or gone. While no process has the store
/// open, its files are looked at every second. What happens while that process begins or ends may be left out.
///
/// With --json: {"event":"grown","key","name","length","downloaded"}, {"event":"feed","key","name"} and
/// {"event":"removed","key","name"}.
#[derive(ClapArgs, Debug)]
pub(crate) struct Watch {}

/// List the forks that are on record: feeds whose writers signed two histories
///
/// The evidence is in `multifeed.conflicts` in the store, both signatures included. A fork does not go away by itself: the feed's writer has to make a
/// new feed. `remove FEED --ban` gives the old one up.
///
/// With --json, for each: {"key","name","lengths":[HERE,THERE]}, the blocks of each history; the name is null if the feed is not here any more.
#[derive(ClapArgs, Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Conflicts {
    /// Forget them: the evidence is removed, and nothing is said of them until a peer shows one again
    #[arg(long)]
    pub(crate) clear: bool,
}
