//! The commands that write, read and free blocks.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use serde::{Deserialize, Serialize};

use super::BlockRange;

/// Append blocks to a writer of this store
///
/// The writer is made where there is none of that name. One run is one batch, with one signature; input over
/// 16 MiB is a batch for each 16 MiB. Of lines of stdin that come slowly, a batch is appended once none came for a second, and at Ctrl-C. A block that peers could not be sent (a little under 8 MiB) is refused.
///
/// With --json: {"key","name","start","length"}: the index of the first block appended, and the feed's length in
/// blocks after it. If the writer was made: {"event":"new-writer","key","name"} on stderr.
///
/// While `serve`, `sync --live` or `swarm` of the same user has the store open, the blocks go through it, and so to its peers at once.
#[derive(ClapArgs, Debug)]
#[command(after_help = "\
Examples:
  multifeed append notes 'first' 'second'       two blocks
  multifeed append photos --file a.jpg b.jpg    a file is a block
  printf 'a\\n\\nb' | multifeed append log -      three blocks: a, an empty one, b
  multifeed append notes -- -v                  a text that looks like an option")]
#[command(
    override_usage = "multifeed append [OPTIONS] <WRITER> <TEXT>...\n       multifeed append [OPTIONS] <WRITER> --file <FILE>..."
)]
pub(crate) struct Append {
    /// The writer's name in this store; peers do not see it
    pub(crate) writer: String,

    /// A block's text each; or - alone: each line of stdin is a block, without its newline, or carriage return and newline
    #[arg(value_name = "TEXT", required_unless_present = "file", conflicts_with = "file")]
    pub(crate) text: Vec<OsString>,

    /// Make another feed, with a key of its own, if the writer of that name is missing, or may be
    ///
    /// Without it that fails: peers would see another author. The missing writer stays known; `remove KEY --writer` gives it up.
    /// If multifeed.journal is damaged, nobody knows which writers are missing: each new name needs this option.
    #[arg(long)]
    pub(crate) new_key: bool,

    /// Files, each of which becomes a block
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) file: Vec<PathBuf>,

    /// Keep the carriage return of lines of stdin that end with one, as lines of Windows do
    #[arg(long, conflicts_with = "file")]
    pub(crate) keep_cr: bool,
}

/// Write a feed's blocks to stdout, one after another
///
/// Nothing is put between the blocks, except on a terminal, where each is a line. A block that this store does not hold ends it with an error that
/// names the block; those before it are written.
///
/// With --json: {"key","block","text"} for each block, or {"key","block","base64"} if it is no text. Stdout is for blocks alone: a
/// failure's object goes to stderr.
#[derive(ClapArgs, Debug)]
#[command(after_help = "\
Examples:
  multifeed cat notes            the whole feed of the writer \"notes\"
  multifeed cat 5af3 2..5        blocks 2, 3 and 4 of the feed whose key starts with 5af3
  multifeed cat notes 7          block 7 alone
  multifeed cat notes -n 10 --lines   the last ten blocks, a line each
  multifeed cat photos --to dir  a file for each block
  multifeed cat notes 7..        from block 7 to the end
  multifeed cat notes -n 10 -f   the last ten, and each that comes")]
pub(crate) struct Cat {
    /// The feed: its key, its name, or the start of its key where no other key starts so (a name wins over a start)
    pub(crate) feed: String,

    /// The blocks, counted from 0: A..B (without B), A.., ..B, or A alone; all where it is left out
    #[arg(value_name = "A..B")]
    pub(crate) range: Option<BlockRange>,

    /// The last COUNT blocks
    #[arg(short = 'n', long, value_name = "COUNT", conflicts_with = "range")]
    pub(crate) last: Option<u64>,

    /// Go on as blocks come, until Ctrl-C; a block that is not here yet is waited for
    ///
    /// Also while no process serves the store: its files are then looked at every second.
    #[arg(short = 'f', long)]
    pub(crate) follow: bool,

    /// A newline after each block, as on a terminal
    #[arg(long, group = "form")]
    pub(crate) lines: bool,

    /// A zero byte after each block
    #[arg(short = '0', long, group = "form")]
    pub(crate) null: bool,

    /// Each block into a file of this folder, named by its number; the folder is made, and no file is written over
    #[arg(long, value_name = "DIR", group = "form", conflicts_with = "json")]
    pub(crate) to: Option<PathBuf>,
}

/// Clear blocks: they are no longer held, and their space goes back to the disk
///
/// Their hashes stay, so that the rest of the feed can be read, checked and served. A sync fetches them again, if a peer has them and the
/// feed is not written here. The space in the middle of a feed is given back if the disk can make holes in files, as most of Linux can;
/// that at its end always is.
///
/// With --json: {"key","start","end","cleared","downloaded"}: how many blocks were held until now, and how many of the feed are held
/// after it.
#[derive(ClapArgs, Debug, Clone, Serialize, Deserialize)]
#[command(after_help = "\
Examples:
  multifeed clear 5af3 0..1000            the first 1000 blocks of the feed whose key starts with 5af3
  multifeed clear 5af3 ..                 all of them
  multifeed clear notes 3 --writer        block 3 of a feed that is written here")]
pub(crate) struct Clear {
    /// The feed: its key, its name, or the start of its key
    pub(crate) feed: String,

    /// The blocks, counted from 0: A..B (without B), A.., ..B, `..` for all, or A alone
    #[arg(value_name = "A..B")]
    pub(crate) range: BlockRange,

    /// Also blocks of a feed that is written here: unless a peer has them, they are lost
    #[arg(long)]
    pub(crate) writer: bool,
}
