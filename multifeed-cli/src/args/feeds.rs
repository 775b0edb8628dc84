//! The commands about feeds, and about the store as a whole.

use clap::Args as ClapArgs;
use serde::{Deserialize, Serialize};

/// List the feeds: key, name, length, bytes, blocks held, writable
///
/// With --json, for each feed: {"key","name","length","bytes","downloaded","writable"}, and "alias" if `name` gave it one. A length is in blocks, and
/// `downloaded` counts those that this store holds. Writers have the name that they were made with; feeds
/// from peers are named by a number. A writer whose folder is missing is reported on stderr, and the exit code is then 1. After them, for each feed that is banned: {"key","banned":true}.
#[derive(ClapArgs, Debug)]
pub(crate) struct Feeds {
    /// Whole keys and names also on a terminal, which otherwise has the starts of keys, in 80 columns
    #[arg(short, long)]
    pub(crate) long: bool,
}

/// Remove a feed from this store: its folder is gone
///
/// A peer that has the feed brings it again with the next sync, unless it is banned too. The last folder takes the number of the one
/// that is gone, and with it the feed its name, where that is a number.
///
/// With --json: the feed as it was, as `feeds` prints it.
#[derive(ClapArgs, Debug, Clone, Serialize, Deserialize)]
#[command(after_help = "\
Examples:
  multifeed remove 5af3 --ban       the feed whose key starts with 5af3, for good
  multifeed remove notes --writer   a writer of this store, with its secret key")]
pub(crate) struct Remove {
    /// The feed: its key, its name, or the start of its key where no other key starts so (a name wins over a start)
    pub(crate) feed: String,

    /// Ban it too, so that no peer brings it again
    #[arg(long, alias = "block")]
    pub(crate) ban: bool,

    /// Remove it also if it is a writer of this store: its secret key is destroyed, and it is banned. One whose folder is missing is given up
    #[arg(long)]
    pub(crate) writer: bool,
}

#[derive(ClapArgs, Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ban {
    /// The feed: a whole key, whether the feed is here or not; or, of one that is here, its name or the start of its key
    pub(crate) feed: String,
}

/// Check every block and every signature of the store again
///
/// Names each damaged block, and ends with exit code 1 then; also if blocks that were held are gone. With --repair, damage is repaired first: nodes of the
/// hash tree and signatures that the rest proves are made again, and the rest, with damaged blocks, is given up, so that the next `sync` with a
/// peer that has them brings them back. A feed that is written here stays as long as it is. If a feed that was fetched is in two folders, the one in use
/// takes in what only the other one has, and that is removed.
///
/// With --json, for each feed {"event":"verified","key","name","blocks"} or
/// {"event":"damaged","key","name","block","message"}, where what is not known is null; with --repair before them
/// {"event":"made-again","key","name","nodes","signatures"}, {"event":"folders-joined","key","name","folders","blocks"} and
/// {"event":"given-up","key","name","blocks":[A,B,…],"nodes","signatures"} for each feed of which that was done; with --rebuild-list {"event":"list-rebuilt","feeds"} if the list was.
#[derive(ClapArgs, Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Verify {
    /// Give up damaged blocks, so that the next sync with a peer that has them brings them back
    #[arg(long)]
    pub(crate) repair: bool,

    /// Make the list of feeds of a corestore's multifeed anew from the cores that are here, if it is lost for good or damaged
    ///
    /// It has what can be read of the old one, which is removed, the writers of this root key, and the feeds that were fetched and that
    /// no other multifeed of the corestore lists.
    #[arg(long)]
    pub(crate) rebuild_list: bool,
}

/// Give a feed a name of your own, which other commands take where they take a feed
///
/// It is known in this store alone, and stands beside the feeds in `multifeed.names`; JavaScript does not look at it. One that a writer has, or that a
/// key begins with, is refused. A feed has one such name, which wins over names of writers that come later.
///
/// With --json: {"key","alias"}, where "alias" is null if there is none now.
#[derive(ClapArgs, Debug)]
#[command(after_help = "\
Examples:
  multifeed name 5af3 alice       `multifeed cat alice` is that feed from now on
  multifeed name alice --remove   and no longer")]
pub(crate) struct Name {
    /// The feed: its key, its name, or the start of its key
    pub(crate) feed: String,

    /// The new name
    #[arg(value_name = "NAME", required_unless_present = "remove", conflicts_with = "remove")]
    pub(crate) alias: Option<String>,

    /// Take its name away
    #[arg(long)]
    pub(crate) remove: bool,
}
