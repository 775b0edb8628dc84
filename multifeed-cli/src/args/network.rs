//! The commands that sync with peers.

use std::net::TcpListener;
use std::path::{MAIN_SEPARATOR, Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args as ClapArgs;

use crate::error::{CliError, EXIT_USAGE, code};

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
#[derive(ClapArgs, Debug)]
#[command(after_help = "\
Examples:
  multifeed serve 127.0.0.1:7000            each peer until both sides have everything
  multifeed serve 127.0.0.1:7000 --live     each peer for as long as it stays, news included
  multifeed serve 127.0.0.1:0 --once        one peer, on a port that the system picks
  ssh host multifeed serve --stdio          one peer, at the other end of the pipe")]
pub(crate) struct Serve {
    /// Where to listen, as HOST:PORT; port 0 takes a free one
    ///
    /// Without it, the listening TCP socket that systemd passes (LISTEN_FDS) is taken, the first one.
    #[arg(value_name = "ADDR", value_parser = address)]
    pub(crate) address: Option<String>,

    /// Sync with one peer over stdin and stdout, as over ssh; what is said goes to stderr
    ///
    /// The other end is `sync --stdio`, or whatever connects as a peer does that dials.
    #[arg(long, conflicts_with_all = ["address", "once"])]
    pub(crate) stdio: bool,

    /// The socket that was passed on.
    #[arg(skip)]
    pub(crate) inherited: Option<TcpListener>,

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

/// Connect to a peer, and sync with it
///
/// Ends when both sides have everything, or, with --live, stays connected: blocks and feeds that either side adds
/// later go over at once.
///
/// With --json, each with "peer":{"id","address"}, the peer's static key and the address that was given: {"event":"connected"}, {"event":"feed","key","name"} for each feed that is new here,
/// {"event":"remote-feeds","feeds":[key,…]}, and {"event":"progress","feeds","blocks_received","bytes_received",
/// "blocks_sent","bytes_sent","missing","bytes_missing","missing_there","bytes_missing_there","not_taken","in_flight","requested","in_sync","per_second":{…}}, at most ten
/// a second: "missing" here and there are blocks that the other side has, "bytes_missing" about as many bytes (0 until a signature came that
/// tells), "in_flight" those that were requested,
/// "not_taken" the feeds that the peer does not take, or takes no more of, "requested" the blocks that it waits for, "per_second" the rates of the last ten
/// seconds ("missing_there", "not_taken" and "in_sync" are known with --live; with "not_taken" the two are not in sync). {"event":"removed","key","name"} and
/// {"event":"banned","key"} are for a feed that was removed or banned here meanwhile: it is not missed. {"event":"peer-not-live"} with --live is for a peer that leaves once both hold the same. {"event":"too-large","key","block","bytes"} is for a block of a JS store that no message can
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
#[derive(ClapArgs, Debug)]
#[command(after_help = "\
Examples:
  multifeed sync 127.0.0.1:7000             fetch and give what is missing, then end
  multifeed sync example.org:7000 --live    until Ctrl-C
  multifeed sync example.org:7000 --live --retry                 and again if the connection breaks
  multifeed sync example.org:7000 --key-file a --key-file b      two multifeeds of a corestore
  multifeed sync /media/stick/notes         another store of this machine
  socat EXEC:'multifeed sync --stdio' EXEC:'ssh host multifeed serve --stdio'    over ssh")]
pub(crate) struct Sync {
    /// The peer, as HOST:PORT; or the folder of another store, with a slash in it or one that is there
    ///
    /// Another store is opened and locked as well, and has all afterwards that is here. If there is none, --init makes it.
    #[arg(value_name = "ADDR|DIR", value_parser = target, required_unless_present = "stdio")]
    pub(crate) address: Option<String>,

    /// Sync with the peer at the other end of stdin and stdout, which is `serve --stdio`; what is said goes to stderr
    #[arg(long, conflicts_with_all = ["address", "retry"])]
    pub(crate) stdio: bool,

    /// How long to wait for the connection, and then for the handshake, which has 20 seconds at the most
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,

    /// Stay in sync until the peer leaves
    #[arg(long)]
    pub(crate) live: bool,

    /// Connect again, after 1 s to 5 minutes, if the peer cannot be reached or the connection breaks
    ///
    /// Ends when both sides have everything; with --live not before Ctrl-C.
    #[arg(long)]
    pub(crate) retry: bool,
}

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
#[derive(ClapArgs, Debug)]
#[command(after_help = "\
Examples:
  multifeed swarm --key-file k                   on two machines of a network: both hold the same in the end
  multifeed swarm --key-file k --live            until Ctrl-C: news go over at once
  multifeed swarm --key-file k --live --peer example.org:7000      a server besides
  multifeed swarm --key-file k --live --no-lan --port 7000         such a server
  multifeed swarm --key-file k --live --dht      anywhere, by hyperswarm's public network")]
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

/// Start a DHT of this machine alone, for `swarm --bootstrap`, until Ctrl-C
///
/// Four nodes on 127.0.0.1, to try the DHT with. They hold no multifeed.
#[derive(ClapArgs, Debug)]
pub(crate) struct Testnet {
    /// The UDP port of the first node; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) port: u16,
}

impl Serve {
    /// Takes the socket that systemd passed, if there is no address; `ERR_USAGE` without either.
    pub(crate) fn take_socket(&mut self) -> Result<(), CliError> {
        if self.address.is_some() || self.stdio {
            return Ok(());
        }
        let usage = |message: String| CliError::new(code::USAGE, message).with_exit(EXIT_USAGE);
        #[cfg(unix)]
        {
            let socket = listenfd::ListenFd::from_env().take_tcp_listener(0);
            self.inherited =
                socket.map_err(|error| usage(format!("what LISTEN_FDS passes cannot be listened on: {error}")))?;
        }
        match self.inherited {
            Some(_) => Ok(()),
            None => Err(usage("give an address to listen on, as HOST:PORT, or --stdio".to_owned())),
        }
    }
}

impl Sync {
    /// The peer's address.
    pub(crate) fn address(&self) -> &str {
        self.address.as_deref().unwrap_or_default()
    }

    /// The folder of the other store, if one is meant.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        self.address.as_ref().filter(|text| is_folder(text)).map(PathBuf::from)
    }

    /// How long connecting may take.
    pub(crate) fn time(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

impl Swarm {
    /// Whether the DHT is used.
    pub(crate) fn is_on_dht(&self) -> bool {
        self.dht || !self.bootstrap.is_empty()
    }
}

fn one_or_more(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("with 0 nobody could connect: give 1 or more".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{text:?} is not a number: {error}")),
    }
}

fn is_folder(text: &str) -> bool {
    text.contains(['/', MAIN_SEPARATOR]) || (address(text).is_err() && Path::new(text).is_dir())
}

fn target(text: &str) -> Result<String, String> {
    let or_folder = |error| format!("{error}; a folder is one that is there, or has a slash in it");
    if is_folder(text) { Ok(text.to_owned()) } else { address(text).map_err(or_folder) }
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
    use clap::Parser;

    use super::super::{Args, Command};
    use super::*;

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
    fn folders_and_addresses() {
        for folder in ["/media/stick", "./a:7000", "a/b", "."] {
            assert!(is_folder(folder) && target(folder).is_ok(), "{folder}");
        }
        for text in ["127.0.0.1:7000", "nowhere", "a:b"] {
            assert!(!is_folder(text), "{text}");
        }
        assert!(target("nowhere").is_err_and(|error| error.contains("slash")));
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
