//! The command line: what a user can say, and the help that teaches it.

mod corestore;
mod range;

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args as ClapArgs, Parser, Subcommand};
use multifeed_tokio::{Durability, FeedKey};

pub(crate) use self::range::BlockRange;
use crate::error::{CliError, EXIT_USAGE, code};

/// The variable that holds the root key where neither `--key` nor `--key-file` is given.
pub(crate) const KEY_VARIABLE: &str = "MULTIFEED_KEY";

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
       here does not count; also when Ctrl-C or SIGTERM ended `serve`, `sync --live` or
       `swarm --live`
  1    it failed: the message says why, and --json gives a code for it; also when a `sync` ended
       early (ERR_ENDED_EARLY, ERR_GIVEN_UP), and the next one can bring the rest
  2    the command line is wrong
  3    `sync` is done, and not in sync: the peer did not take all that it was offered, as it does
       not want more or what it bans, or cannot (ERR_NOT_TAKEN); or damage, two histories of a
       feed or a bound, as reported before, keep the two apart, or the peer has more than a store
       that can only be read takes (ERR_NOT_IN_SYNC)
  130  Ctrl-C ended it before it was done (143: SIGTERM did); what was received is on disk

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

/// More than a key file has to hold: a key, and room for spaces and newlines.
const KEY_FILE_BYTES: u64 = 4096;

/// A root key as it was written. It is not shown: whoever has it can sync.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Secret(text)
    }
}

/// What every command takes.
#[derive(ClapArgs, Debug)]
pub(crate) struct Global {
    /// The folder with the feeds; made if it is not there
    #[arg(
        long,
        global = true,
        help_heading = "Options of every command",
        value_name = "DIR",
        env = "MULTIFEED_STORE",
        default_value = "./multifeed"
    )]
    pub(crate) store: PathBuf,

    /// The root key, 64 hex digits: only peers with the same one can sync
    ///
    /// Without one, a key that everyone knows is used. It is never written to disk. Other users of this machine can see
    /// it here: --key-file or the variable MULTIFEED_KEY (which these two options win over) hide it.
    /// `serve`, `sync` and `swarm` take several, of either or both, for several multifeeds of a corestore.
    #[arg(long, global = true, help_heading = "Options of every command", value_name = "HEX")]
    pub(crate) key: Vec<Secret>,

    /// A file with the root key in it, as 64 hex digits
    ///
    /// It is reported if others can read it.
    #[arg(long, global = true, help_heading = "Options of every command", value_name = "FILE")]
    pub(crate) key_file: Vec<PathBuf>,

    /// Follow links in the store: a feed's folder or a file that is kept elsewhere on purpose
    ///
    /// By default a link below --store is not followed, but reported, so that a store from somebody else cannot reach any other file of
    /// this machine. If it is, what is behind it is read and written, and never deleted, cut or replaced. --store itself may always be a
    /// link.
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) follow_links: bool,

    #[command(flatten)]
    pub(crate) corestore: corestore::Corestore,

    /// What a power cut may take: none, interval, interval:SECONDS or always
    ///
    /// none: as JS, nothing is synced to the disk before the command ends; then what was appended is. interval: what is
    /// new is synced every so often (each second), and peers see no block before that. always: every append
    /// is synced before it counts as done.
    #[arg(
        long,
        global = true,
        help_heading = "Options of every command",
        value_name = "LEVEL",
        default_value = "none",
        value_parser = durability
    )]
    pub(crate) durability: Durability,

    /// Print one JSON object a line, for programs
    ///
    /// A failure is then {"event":"error","code","message","us","them"}, with an exit code that is not 0. What
    /// was repaired or is damaged when a store is opened is told by {"event":"warning","message"} on stderr, and past a hundred of
    /// them by {"event":"more-problems","problems"}, their number.
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) json: bool,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Append blocks to a writer of this store
    ///
    /// The writer is made where there is none of that name. One run is one batch, with one signature; input over
    /// 16 MiB is a batch for each 16 MiB. Of lines of stdin that come slowly, a batch is appended once none came for a second, and at Ctrl-C. A block that peers could not be sent (a little under 8 MiB) is refused.
    ///
    /// With --json: {"key","name","start","length"}: the index of the first block appended, and the feed's length in
    /// blocks after it.
    ///
    /// While `serve`, `sync --live` or `swarm` of the same user has the store open, the blocks go through it, and so to its peers at once.
    #[command(after_help = "\
Examples:
  multifeed append notes 'first' 'second'       two blocks
  multifeed append photos --file a.jpg b.jpg    a file is a block
  printf 'a\\n\\nb' | multifeed append log -      three blocks: a, an empty one, b
  multifeed append notes -- -v                  a text that looks like an option")]
    #[command(
        override_usage = "multifeed append [OPTIONS] <WRITER> <TEXT>...\n       multifeed append [OPTIONS] <WRITER> --file <FILE>..."
    )]
    Append(Append),

    /// List the feeds: key, name, length, bytes, blocks held, writable
    ///
    /// With --json, for each feed: {"key","name","length","bytes","downloaded","writable"}. A length is in blocks, and
    /// `downloaded` counts those that this store holds. Writers have the name that they were made with; feeds
    /// from peers are named by a number. A writer whose folder is missing is reported on stderr, and the exit code is then 1. After them, for each feed that is banned: {"key","banned":true}.
    Feeds,

    /// Remove a feed from this store: its folder is gone
    ///
    /// A peer that has the feed brings it again with the next sync, unless it is banned too. The last folder takes the number of the one
    /// that is gone, and with it the feed its name, where that is a number.
    ///
    /// With --json: the feed as it was, as `feeds` prints it.
    #[command(after_help = "\
Examples:
  multifeed remove 5af3 --ban       the feed whose key starts with 5af3, for good
  multifeed remove notes --writer   a writer of this store, with its secret key")]
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

    /// Write a feed's blocks to stdout, one after another
    ///
    /// Nothing is put between the blocks, except on a terminal, where each is a line. A block that this store does not hold ends it with an error that
    /// names the block; those before it are written.
    ///
    /// With --json: {"key","block","text"} for each block, or {"key","block","base64"} if it is no text. Stdout is for blocks alone: a
    /// failure's object goes to stderr.
    #[command(after_help = "\
Examples:
  multifeed cat notes            the whole feed of the writer \"notes\"
  multifeed cat 5af3 2..5        blocks 2, 3 and 4 of the feed whose key starts with 5af3
  multifeed cat notes 7          block 7 alone
  multifeed cat notes -n 10 --lines   the last ten blocks, a line each
  multifeed cat photos --to dir  a file for each block
  multifeed cat notes 7..        from block 7 to the end")]
    Cat(Cat),

    /// Clear blocks: they are no longer held, and their space goes back to the disk
    ///
    /// Their hashes stay, so that the rest of the feed can be read, checked and served. A sync fetches them again, if a peer has them and the
    /// feed is not written here. The space in the middle of a feed is given back if the disk can make holes in files, as most of Linux can;
    /// that at its end always is.
    ///
    /// With --json: {"key","start","end","cleared","downloaded"}: how many blocks were held until now, and how many of the feed are held
    /// after it.
    #[command(after_help = "\
Examples:
  multifeed clear 5af3 0..1000            the first 1000 blocks of the feed whose key starts with 5af3
  multifeed clear 5af3 ..                 all of them
  multifeed clear notes 3 --writer        block 3 of a feed that is written here")]
    Clear(Clear),

    /// Accept peers, and sync with each of them
    ///
    /// Up to --max-peers can be connected at once; what one brings goes on to the others that are live. A peer
    /// that fails is reported and does not end the server; Ctrl-C does. Connections that have not proven the root key have 128
    /// places of their own: if more come, the oldest gives way. Of each address only so many lines are written.
    ///
    /// With --json: {"event":"listening","address"} with the real port where 0 was asked for, and the events of
    /// `sync` for each peer, of which "peer" names it: {"id","address"}, its static key, null until it is known, and where it came from. A peer's failure is
    /// {"event":"peer-error","code","message","us","them"}. {"event":"lines-left-out","lines"} if they were not read fast enough, which holds up no peer; {"event":"limit-reached","message"} for a peer that brought as much as it may, and {"event":"disk-full","message"}
    /// and {"event":"space-freed"} for each that is connected then.
    ///
    /// With several root keys each connection carries the multifeeds that the peer has too. Of another peer's address more connections than
    /// --max-per-address are turned away. With --json: {"event":"peer-connected"}, {"event":"root-ready","root"},
    /// {"event":"root-feed","root","key","name"}, {"event":"root-progress","root"} with the numbers of `progress`,
    /// {"event":"root-closed","root","in_sync","message"} with those of `closed` if it ended well, and
    /// {"event":"peer-disconnected","in_sync","not_shared":[root,…],"message"}; "root" is the discovery key of a root key. What else `sync` reports
    /// has "root" too, and all but root-feed have "peer".
    #[command(after_help = "\
Examples:
  multifeed serve 127.0.0.1:7000            each peer until both sides have everything
  multifeed serve 127.0.0.1:7000 --live     each peer for as long as it stays, news included
  multifeed serve 127.0.0.1:0 --once        one peer, on a port that the system picks")]
    Serve(Serve),

    /// Connect to a peer, and sync with it
    ///
    /// Ends when both sides have everything, or, with --live, stays connected: blocks and feeds that either side adds
    /// later go over at once.
    ///
    /// With --json, each with "peer":{"id","address"}, the peer's static key and the address that was given: {"event":"connected"}, {"event":"feed","key","name"} for each feed that is new here,
    /// {"event":"remote-feeds","feeds":[key,…]}, and {"event":"progress","feeds","blocks_received","bytes_received",
    /// "blocks_sent","bytes_sent","missing","missing_there","in_flight","requested","in_sync","per_second":{…}}, at most ten
    /// a second: "missing" here and there are blocks that the other side has, "in_flight" those that were requested,
    /// "requested" those that the peer waits for, "per_second" the rates of the last ten seconds ("missing_there" and
    /// "in_sync" are known with --live). {"event":"too-large","key","block","bytes"} is for a block of a JS store that no message can
    /// carry. {"event":"slow-block","key","block","bytes","bytes_per_second","message"} is for one that takes 10 s or longer to send, so that a
    /// JavaScript peer may give up, after 20 s without an answer. In the end {"event":"closed",…} with the numbers up to "missing", "in_step" (the feeds that both
    /// sides held alike from the start, which two of these find out at little cost), "not_taken" (the feeds that the peer did not take, or not all
    /// of them, though it was offered them: by its own choice or a bound of its), "unwanted" (the feeds of which
    /// a peer that is sparse did not ask for all), "unfetched" (the feeds of which the peer has more than is here, as this store can only be read), "in_sync" (whether both sides hold the same) and
    /// "holes":[{"key","blocks","ranges":[["start","end"],…],"unlisted"},…], the blocks that neither side has, by feed: "ranges" names
    /// them, the end not included, but for the "unlisted" ones where there are too many ("missing" counts them too); or {"event":"error","code","message","us","them"}.
    ///
    /// With several root keys, and with --retry, the events are those that `serve` has for several root keys, and
    /// {"event":"redial","seconds","message"} before each further try. A root key that the peer does not have is an error in the end (ERR_NOT_SHARED), with exit code 3; the
    /// others are synced.
    #[command(after_help = "\
Examples:
  multifeed sync 127.0.0.1:7000             fetch and give what is missing, then end
  multifeed sync example.org:7000 --live    until Ctrl-C
  multifeed sync example.org:7000 --live --retry                 and again if the connection breaks
  multifeed sync example.org:7000 --key-file a --key-file b      two multifeeds of a corestore")]
    Sync(Sync),

    /// Find peers, and sync with all of them
    ///
    /// Peers with the same root key on the local network find each other by multicast DNS, with nothing else said; others are given by --peer. Anyone on the network
    /// can see that somebody syncs this root key, and cannot see the root key. Several root keys are synced side by side, as by `serve`.
    ///
    /// Ends when this store is in sync with all peers that were found, and neither a peer nor a block came for 3 seconds; not before the first peer. One that was found
    /// and cannot be reached is tried once, which takes up to 30 s on the DHT, and then not waited for; one that --peer names is. With --live it goes on until Ctrl-C, and follows changes of the network.
    ///
    /// With --json: the events of `serve` for several root keys; all that is about a peer names it by "peer":{"id","address"}; "id" is its static key, which is another one each time that it is started.
    /// {"event":"listening","address"}; {"event":"peer-found","found","by"}, where "found" is its number, its address is how it is reached, and "id" null if it is
    /// known by that alone; {"event":"peer-unreachable","found","seconds","message"} before each further try;
    /// {"event":"peer-lost","found","reason"}, where "reason" is gone, given-up, left, gave-way or same; and {"event":"peer-status","found":[{"by","at","seconds"},…],"came","seconds","in_sync",
    /// "per_second":{…}} when one of them is connected, in sync, or found in another way: since when each is known, and by what it came, if it did.
    #[command(after_help = "\
Examples:
  multifeed swarm --key-file k                   on two machines of a network: both hold the same in the end
  multifeed swarm --key-file k --live            until Ctrl-C: news go over at once
  multifeed swarm --key-file k --live --peer example.org:7000      a server besides
  multifeed swarm --key-file k --live --no-lan --port 7000         such a server
  multifeed swarm --key-file k --live --dht      anywhere, by hyperswarm's public network")]
    Swarm(Swarm),

    /// Make a root key of your own: print it, or write it to a file
    ///
    /// Whoever has it can sync, and nobody else. With --json: {"key"} if it is printed.
    #[command(after_help = "\
Examples:
  multifeed keygen k                       a file that only you can read
  multifeed --key-file k append notes hi   and its use, here and where others have it")]
    Keygen(Keygen),

    /// Start a DHT of this machine alone, for `swarm --bootstrap`, until Ctrl-C
    ///
    /// Four nodes on 127.0.0.1, to try the DHT with. They hold no multifeed.
    Testnet(Testnet),

    /// Check every block and every signature of the store again
    ///
    /// Names each damaged block, and ends with exit code 1 then; also if blocks that were held are gone. With --repair, damage is repaired first: nodes of the
    /// hash tree and signatures that the rest proves are made again, and the rest, with damaged blocks, is given up, so that the next `sync` with a
    /// peer that has them brings them back. A feed that is written here stays as long as it is.
    ///
    /// With --json, for each feed {"event":"verified","key","name","blocks"} or
    /// {"event":"damaged","key","name","block","message"}, where what is not known is null; with --repair before them
    /// {"event":"made-again","key","name","nodes","signatures"} and {"event":"given-up","key","name","blocks":[A,B,…],"nodes","signatures"} for each
    /// feed of which that was done; with --rebuild-list {"event":"list-rebuilt","feeds"} if the list was.
    Verify(Verify),

    /// Show what this does: two stores with a writer each, synced over a loopback socket
    ///
    /// The stores are in a temporary folder, which is removed at the end. --store is not touched.
    Demo,
}

#[derive(ClapArgs, Debug)]
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

#[derive(ClapArgs, Debug)]
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

#[derive(ClapArgs, Debug)]
pub(crate) struct Ban {
    /// The feed: a whole key, whether the feed is here or not; or, of one that is here, its name or the start of its key
    pub(crate) feed: String,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Cat {
    /// The feed: its key, its name, or the start of its key where no other key starts so (a name wins over a start)
    pub(crate) feed: String,

    /// The blocks, counted from 0: A..B (without B), A.., ..B, or A alone; all where it is left out
    #[arg(value_name = "A..B")]
    pub(crate) range: Option<BlockRange>,

    /// The last COUNT blocks
    #[arg(short = 'n', long, value_name = "COUNT", conflicts_with = "range")]
    pub(crate) last: Option<u64>,

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

#[derive(ClapArgs, Debug)]
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

#[derive(ClapArgs, Debug)]
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

#[derive(ClapArgs, Debug)]
pub(crate) struct Serve {
    /// Where to listen, as HOST:PORT; port 0 takes a free one
    #[arg(value_name = "ADDR", value_parser = address)]
    pub(crate) address: String,

    /// Stay in sync with each peer until it leaves
    #[arg(long)]
    pub(crate) live: bool,

    /// End after the first peer; the exit code is then that sync's, as `sync` has it
    ///
    /// The first peer is the first that proves the root key. A connection that does not, such as a port scan's, is reported, and does
    /// not count.
    #[arg(long)]
    pub(crate) once: bool,

    /// Peers that are connected at once; if there are as many, the one that has been idle for longest gives way
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = one_or_more)]
    pub(crate) max_peers: usize,

    /// Connections from one IPv4 address, or one IPv6 /64; for more, idle ones from there give way
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = one_or_more)]
    pub(crate) max_per_address: usize,

    #[command(flatten)]
    pub(crate) bounds: Bounds,
}

/// What peers may bring.
#[derive(ClapArgs, Debug)]
pub(crate) struct Bounds {
    /// New feeds that one peer may bring; it is served all the same
    ///
    /// A peer is an IP address (of IPv6 the first 64 bits), and all its connections since `serve` began count together, under all root keys. Feeds
    /// that are here already go on from every peer.
    #[arg(long, value_name = "N", default_value_t = 16_384)]
    pub(crate) max_feeds_per_peer: usize,

    /// Bytes of blocks that one peer may bring, as 500MB or 16GiB; it is served all the same
    #[arg(long, value_name = "BYTES", default_value = "16GiB")]
    pub(crate) max_bytes_per_peer: ByteSize,

    /// Bytes of the disk to keep free, as 500MB or 1GiB: with fewer, nothing new is taken from any peer
    ///
    /// Serving and reading go on, and so do the feeds that are written here. Taking goes on when there is room.
    #[arg(long, value_name = "BYTES", default_value = "100MB")]
    pub(crate) keep_free: ByteSize,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Sync {
    /// The peer, as HOST:PORT
    #[arg(value_name = "ADDR", value_parser = address)]
    pub(crate) address: String,

    /// Stay in sync until the peer leaves
    #[arg(long)]
    pub(crate) live: bool,

    /// Connect again, after 1 s to 5 minutes, if the peer cannot be reached or the connection breaks
    ///
    /// Ends when both sides have everything; with --live not before Ctrl-C.
    #[arg(long)]
    pub(crate) retry: bool,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Swarm {
    /// Stay in sync until Ctrl-C
    #[arg(long)]
    pub(crate) live: bool,

    /// Use no multicast DNS: find nobody on the local network, and announce nothing there
    #[arg(long)]
    pub(crate) no_lan: bool,

    /// Find peers by hyperswarm's DHT too, on the public network if no --bootstrap says otherwise
    ///
    /// That announces to anyone who asks that this address has the topic, which is computed from the root key. The root key itself is not shown.
    #[arg(long)]
    pub(crate) dht: bool,

    /// A node of the DHT to begin with, as HOST:PORT, instead of the public network's; may be given more than once
    ///
    /// Implies --dht. One that answers is enough. `multifeed testnet` starts some. The DHT has no IPv6.
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub(crate) bootstrap: Vec<String>,

    /// A peer, as HOST:PORT; may be given more than once
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub(crate) peer: Vec<String>,

    /// The TCP port to listen on; 0 takes a free one
    ///
    /// Without it, a free one is taken with the local network, and none with --no-lan.
    #[arg(long, value_name = "N")]
    pub(crate) port: Option<u16>,

    #[command(flatten)]
    pub(crate) bounds: Bounds,

    /// For tests: listen and look on loopback alone, with multicast DNS on this UDP port
    #[arg(long, hide = true, value_name = "PORT")]
    pub(crate) loopback: Option<u16>,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Keygen {
    /// A file that is not there yet
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Testnet {
    /// The UDP port of the first node; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) port: u16,
}

impl Swarm {
    /// Whether the DHT is used.
    pub(crate) fn is_on_dht(&self) -> bool {
        self.dht || !self.bootstrap.is_empty()
    }
}

impl Global {
    /// The root keys that were given, each once, those of `--key` first, or that of the variable if there are none; none for the one that everyone knows.
    /// `variable` is what `MULTIFEED_KEY` holds. With them come warnings, if others can read a key file.
    ///
    /// # Errors
    ///
    /// `ERR_KEY`, naming the source, where that is not 64 hex digits or cannot be read. The key itself is not in the
    /// message: it may be all but right.
    pub(crate) fn root_keys(&self, variable: Option<OsString>) -> Result<(Vec<FeedKey>, Vec<String>), CliError> {
        let (mut keys, mut warnings) = (Vec::new(), Vec::new());
        for Secret(text) in &self.key {
            keys.push(parse_key(text, "--key")?);
        }
        for path in &self.key_file {
            let (key, warning) = read_key(path)?;
            keys.push(key);
            warnings.extend(warning);
        }
        // `MULTIFEED_KEY= multifeed …` is how a shell user says "without it".
        if let Some(text) = variable.filter(|text| keys.is_empty() && !text.is_empty()) {
            keys.push(parse_key(&text.to_string_lossy(), &format!("the variable {KEY_VARIABLE}"))?);
        }
        let mut seen = HashSet::new();
        keys.retain(|key| seen.insert(*key));
        Ok((keys, warnings))
    }
}

fn read_key(path: &Path) -> Result<(FeedKey, Option<String>), CliError> {
    let source = format!("the key file {}", path.display());
    let failed = |error| CliError::new(code::KEY, format!("{source}: {error}")).with_exit(EXIT_USAGE);
    let file = File::open(path).map_err(failed)?;
    let warning = exposure(&file).map(|mode| {
        format!("others can read or change {source} (permissions {mode:04o}): make it yours alone (chmod 600)")
    });
    let mut text = Vec::new();
    file.take(KEY_FILE_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > KEY_FILE_BYTES {
        let message = format!("{source}: a root key is 64 hex digits, and this is longer than {KEY_FILE_BYTES} bytes");
        return Err(CliError::new(code::KEY, message).with_exit(EXIT_USAGE));
    }
    Ok((parse_key(&String::from_utf8_lossy(&text), &source)?, warning))
}

/// The permissions of a file, if others than its owner may read or change it. A pipe, as of `<(…)`, is nobody else's.
fn exposure(file: &File) -> Option<u32> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let meta = file.metadata().ok().filter(|meta| meta.is_file())?;
        Some(meta.permissions().mode() & 0o777).filter(|mode| mode & 0o077 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        None
    }
}

fn parse_key(text: &str, source: &str) -> Result<FeedKey, CliError> {
    let text = text.trim();
    let wrong = |what: String| {
        CliError::new(code::KEY, format!("{source}: a root key is 64 hex digits, {what}")).with_exit(EXIT_USAGE)
    };
    if let Some(at) = text.chars().position(|digit| !digit.is_ascii_hexdigit()) {
        return Err(wrong(format!("and character {} of this one is not a hex digit", at + 1)));
    }
    text.parse().map_err(|_| wrong(format!("this one has {}", text.len())))
}

fn one_or_more(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("with 0 nobody could connect: give 1 or more".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{text:?} is not a number: {error}")),
    }
}

fn durability(text: &str) -> Result<Durability, String> {
    match text.split_once(':') {
        None if text == "none" => Ok(Durability::None),
        None if text == "always" => Ok(Durability::Always),
        None if text == "interval" => Ok(Durability::Interval(Duration::from_secs(1))),
        Some(("interval", seconds)) => match seconds.parse().map(Duration::try_from_secs_f64) {
            Ok(Ok(Duration::ZERO)) => {
                Err("an interval is longer than 0 seconds; `always` syncs every append".to_owned())
            }
            Ok(Ok(interval)) => Ok(Durability::Interval(interval)),
            _ => Err(format!("{seconds:?} is not a number of seconds")),
        },
        _ => Err("a durability is none, interval, interval:SECONDS or always".to_owned()),
    }
}

fn address(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(_)) => Ok(text.to_owned()),
        _ => Err("an address is HOST:PORT, for example 127.0.0.1:7000 or [::1]:7000".to_owned()),
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

    #[test]
    fn durabilities() {
        assert_eq!(durability("none"), Ok(Durability::None));
        assert_eq!(durability("always"), Ok(Durability::Always));
        assert_eq!(durability("interval"), Ok(Durability::Interval(Duration::from_secs(1))));
        assert_eq!(durability("interval:0.5"), Ok(Durability::Interval(Duration::from_millis(500))));
        for text in ["", "None", "interval:", "interval:-1", "interval:1e99", "always:1", "sometimes"] {
            assert!(durability(text).is_err(), "{text:?} was taken");
        }
    }

    fn global(args: &[&str]) -> Global {
        Args::try_parse_from(["multifeed", "feeds"].iter().chain(args)).expect("these arguments are right").global
    }

    #[test]
    fn the_root_key_comes_from_the_option_before_the_variable() {
        let (one, two) = ("11".repeat(32), "22".repeat(32));
        let key = |text: &str| text.parse::<FeedKey>().expect("64 hex digits");

        assert_eq!(global(&[]).root_keys(None).unwrap().0, []);
        assert_eq!(global(&[]).root_keys(Some("".into())).unwrap().0, []);
        assert_eq!(global(&[]).root_keys(Some(two.clone().into())).unwrap().0, [key(&two)]);
        assert_eq!(global(&["--key", &one]).root_keys(Some(two.clone().into())).unwrap().0, [key(&one)]);
        let several = global(&["--key", &two, "--key", &one, "--key", &two]);
        assert_eq!(several.root_keys(None).unwrap().0, [key(&two), key(&one)]);

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, format!("{one}\n")).unwrap();
        let from_file = global(&["--key-file", file.to_str().unwrap()]);
        assert_eq!(from_file.root_keys(Some(two.into())).unwrap().0, [key(&one)]);
    }

    #[test]
    fn a_wrong_root_key_names_its_source_and_not_itself() {
        let mut text = "11".repeat(32);
        text.replace_range(9..10, "x");

        let error = global(&["--key", &text]).root_keys(None).unwrap_err();
        assert_eq!(error.code(), code::KEY);
        assert!(error.message().contains("--key") && error.message().contains("character 10"), "{error}");
        assert!(!error.message().contains(&text), "{error}");

        let error = global(&[]).root_keys(Some("abc".into())).unwrap_err();
        assert!(error.message().contains(KEY_VARIABLE) && error.message().contains("has 3"), "{error}");

        let error = global(&["--key-file", "/nowhere/at/all"]).root_keys(None).unwrap_err();
        assert!(error.message().contains("/nowhere/at/all"), "{error}");
    }

    #[test]
    fn what_is_printed_of_the_arguments_holds_no_root_key() {
        let key = "5a".repeat(32);
        let args = Args::try_parse_from(["multifeed", "--key", &key, "feeds"]).expect("these arguments are right");
        let printed = format!("{args:?} {args:#?}");
        assert!(!printed.contains("5a5a") && printed.contains("Feeds"), "{printed}");
    }

    #[cfg(unix)]
    #[test]
    fn a_key_file_that_others_can_read_is_reported_and_a_long_one_is_none() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, "11".repeat(32)).unwrap();
        let option = ["--key-file", file.to_str().unwrap()];
        for (mode, told) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true), (0o666, true), (0o620, true)]
        {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            let (keys, warnings) = global(&option).root_keys(None).unwrap();
            assert_eq!((keys.len(), warnings.len()), (1, usize::from(told)), "{mode:o}");
            let warning = warnings.concat();
            assert!(!warning.contains("1111") && (!told || warning.contains(&format!("{mode:04o}"))), "{warning}");
        }
        File::options().write(true).open(&file).unwrap().set_len(1 << 40).unwrap();
        let error = global(&option).root_keys(None).unwrap_err();
        assert!(error.message().contains("longer than"), "{error}");
    }

    #[test]
    fn keys_and_key_files_go_together() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, "22".repeat(32)).unwrap();
        let one = "11".repeat(32);
        let (keys, _) = global(&["--key-file", file.to_str().unwrap(), "--key", &one]).root_keys(None).unwrap();
        assert_eq!(keys, [one.parse().unwrap(), "22".repeat(32).parse().unwrap()]);
    }

    #[test]
    fn bounds_of_what_peers_bring() {
        let bounds = |args: &[&str]| {
            let all = ["multifeed", "serve", "127.0.0.1:0"].iter().chain(args);
            Args::try_parse_from(all).map(|args| match args.command {
                Command::Serve(serve) => serve.bounds,
                other => panic!("{other:?}"),
            })
        };
        let none = bounds(&[]).unwrap();
        assert_eq!((none.max_feeds_per_peer, none.keep_free.as_u64()), (16_384, 100_000_000));
        assert_eq!(none.max_bytes_per_peer.as_u64(), 16 << 30);
        let some =
            bounds(&["--max-feeds-per-peer", "7", "--max-bytes-per-peer", "5000", "--keep-free", "1.5 GB"]).unwrap();
        assert_eq!((some.max_feeds_per_peer, some.max_bytes_per_peer.as_u64()), (7, 5000));
        assert_eq!(some.keep_free.as_u64(), 1_500_000_000);
        for bad in ["", "-1", "much", "5 parsecs"] {
            assert!(bounds(&["--keep-free", bad]).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn addresses() {
        for good in ["127.0.0.1:0", "[::1]:7000", "example.org:80"] {
            assert_eq!(address(good).as_deref(), Ok(good));
        }
        for bad in ["7000", ":7000", "host", "host:", "host:99999", "host:http"] {
            assert!(address(bad).is_err(), "{bad:?} was taken");
        }
    }
}
