//! What the lines say: the objects that programs read, and their words for people.

use std::fmt::Write as _;

use indicatif::{HumanBytes, HumanCount};
use multifeed_tokio::{FeedHoles, SyncState, SyncTotals};
use serde::Serialize;

use super::count;

/// A feed, as `feeds` and `demo` print it.
#[derive(Serialize)]
pub(crate) struct FeedLine {
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) length: u64,
    pub(crate) bytes: u64,
    pub(crate) downloaded: u64,
    pub(crate) writable: bool,
}

/// A feed that is banned, or is not any more.
#[derive(Serialize)]
pub(crate) struct BannedLine {
    pub(crate) key: String,
    pub(crate) banned: bool,
}

/// What `clear` did: how many of the blocks from `start` up to, and without, `end` were held, and how many of the feed's are now.
#[derive(Serialize)]
pub(crate) struct ClearedLine {
    pub(crate) key: String,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) cleared: u64,
    pub(crate) downloaded: u64,
}

/// A root key that was made.
#[derive(Serialize)]
pub(crate) struct KeyLine {
    pub(crate) key: String,
}

/// A block, as `cat` writes it for programs: as text if it is UTF-8, else in base64.
#[derive(Serialize)]
pub(crate) struct BlockLine<'a> {
    pub(crate) key: String,
    pub(crate) block: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) base64: Option<String>,
}

/// What `append` did: `length` is the feed's after it.
#[derive(Serialize)]
pub(crate) struct AppendLine {
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) start: u64,
    pub(crate) length: u64,
}

/// What happens while a store is served, synced or verified, as programs see it.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Event<'a> {
    Listening {
        address: String,
    },
    Connected,
    Feed {
        key: String,
        name: &'a str,
    },
    RemoteFeeds {
        feeds: Vec<String>,
    },
    Progress(Standing),
    Closed {
        #[serde(flatten)]
        done: Done,
        /// Whether both sides held the same at the end.
        in_sync: bool,
    },
    TooLarge {
        key: String,
        block: u64,
        bytes: u64,
    },
    /// A JS peer may not wait for a block that is being sent.
    SlowBlock {
        key: String,
        block: u64,
        bytes: u64,
        bytes_per_second: u64,
        message: &'a str,
    },
    /// A feed's writer signed two histories.
    Conflict {
        key: String,
        /// Blocks of each: what is here, and what the peer has.
        lengths: [u64; 2],
    },
    /// The peer has more of a feed that is written here.
    WriterBehind {
        key: String,
        /// Blocks: what was here, and what there is.
        lengths: [u64; 2],
    },
    /// The peer offered more feeds than it may.
    OffersRefused {
        feeds: u64,
        limit: u64,
    },
    /// The peer brought as much as it may.
    LimitReached {
        message: String,
    },
    /// Nothing new is taken.
    DiskFull {
        message: &'a str,
    },
    /// It is again.
    SpaceFreed,
    /// Nodes of the tree and signatures that were made again.
    MadeAgain {
        key: String,
        name: &'a str,
        nodes: u64,
        signatures: u64,
    },
    /// What counts as held no more, so that it can be fetched again; and signatures that are not needed.
    GivenUp {
        key: String,
        name: &'a str,
        blocks: Vec<u64>,
        nodes: u64,
        signatures: u64,
    },
    /// The list of feeds of a corestore's multifeed was made anew.
    ListRebuilt {
        feeds: u64,
    },
    Verified {
        key: String,
        name: &'a str,
        blocks: u64,
    },
    Damaged {
        key: Option<String>,
        name: Option<&'a str>,
        block: Option<u64>,
        message: &'a str,
    },
    /// Of several multifeeds on each connection: a peer is connected.
    PeerConnected,
    /// A peer has this root key too. Root keys are named by their discovery keys.
    RootReady,
    /// A feed is new in the multifeed of a root key.
    RootFeed {
        root: String,
        key: String,
        name: String,
    },
    /// How the sync of a root key with a peer stands.
    RootProgress(Standing),
    /// What it moved, if it ended well; else why it did not.
    RootClosed {
        #[serde(flatten)]
        done: Option<Done>,
        in_sync: bool,
        message: Option<String>,
    },
    PeerDisconnected {
        in_sync: bool,
        /// The root keys that the peer does not have.
        not_shared: Vec<String>,
        message: Option<String>,
    },
    /// The peer is dialled again.
    Redial {
        seconds: f64,
        message: Option<String>,
    },
    /// A peer was found, and is dialled.
    PeerFound {
        found: u64,
        by: &'a str,
    },
    /// It could not be reached, and is tried again.
    PeerUnreachable {
        found: u64,
        seconds: f64,
        message: String,
    },
    /// It is no longer known.
    PeerLost {
        found: u64,
        reason: &'a str,
    },
    /// How a peer was found, and how it stands.
    PeerStatus {
        found: Vec<FoundBy>,
        came: Option<&'a str>,
        seconds: f64,
        in_sync: bool,
        per_second: Rates,
    },
    /// What is wrong with the store beyond what was said of it one by one.
    MoreProblems {
        problems: u64,
    },
    /// Whoever reads was behind: so many objects before this one are missing.
    LinesLeftOut {
        lines: u64,
    },
    Warning {
        message: &'a str,
    },
    /// A sync with one of several peers failed. The command goes on.
    PeerError {
        code: &'a str,
        message: &'a str,
        us: Option<&'a str>,
        them: Option<&'a str>,
    },
    Error {
        code: &'a str,
        message: &'a str,
        us: Option<&'a str>,
        them: Option<&'a str>,
    },
}

/// How a peer was found: by which engine, where, and how many seconds ago.
#[derive(Serialize, Clone, PartialEq)]
pub(crate) struct FoundBy {
    pub(crate) by: &'static str,
    pub(crate) at: String,
    pub(crate) seconds: f64,
}

/// What one sync has moved. Blocks and bytes are those of the feeds, not of the wire.
#[derive(Serialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Moved {
    pub(crate) feeds: u64,
    pub(crate) blocks_received: u64,
    pub(crate) bytes_received: u64,
    pub(crate) blocks_sent: u64,
    pub(crate) bytes_sent: u64,
    /// Blocks that are known to be there and that this store still lacks; after the end, the holes included.
    pub(crate) missing: u64,
}

/// What a sync that ended well came to.
#[derive(Serialize)]
pub(crate) struct Done {
    #[serde(flatten)]
    pub(crate) moved: Moved,
    /// Feeds that both sides held alike from the start.
    pub(crate) in_step: u64,
    /// Feeds that the peer did not take, or not all of them.
    pub(crate) not_taken: u64,
    /// Feeds of which the peer lacks blocks that it never asked for.
    pub(crate) unwanted: u64,
    /// Feeds of which the peer has more than is here, as this store can only be read.
    pub(crate) unfetched: u64,
    pub(crate) holes: Vec<Hole>,
}

/// The blocks of a feed that neither side has.
#[derive(Serialize)]
pub(crate) struct Hole {
    key: String,
    blocks: u64,
    /// The first block of each range, and the one past its last.
    ranges: Vec<[u64; 2]>,
    /// Blocks in ranges that are not listed.
    unlisted: u64,
}

/// Ranges of missing blocks that are named to people for one feed, at the most.
const RANGES_SAID: usize = 8;

impl Hole {
    /// Words for people, such as "3 missing blocks of feed ab…: 2..5".
    pub(crate) fn text(&self) -> String {
        let range = |[start, end]: &[u64; 2]| match end - start {
            1 => start.to_string(),
            _ => format!("{start}..{end}"),
        };
        let ranges: Vec<String> = self.ranges.iter().take(RANGES_SAID).map(range).collect();
        let said: u64 = self.ranges.iter().take(RANGES_SAID).map(|[start, end]| end - start).sum();
        let mut text = format!("{} of feed {}: {}", count(self.blocks, "missing block"), self.key, ranges.join(", "));
        if self.blocks > said {
            let _ = write!(text, ", and {} more", HumanCount(self.blocks - said));
        }
        text
    }
}

impl From<&FeedHoles> for Hole {
    fn from(holes: &FeedHoles) -> Self {
        Hole {
            key: holes.key.to_string(),
            blocks: holes.blocks,
            ranges: holes.ranges.iter().map(|range| [range.start, range.end]).collect(),
            unlisted: holes.unlisted,
        }
    }
}

/// How a sync stands.
#[derive(Serialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Standing {
    #[serde(flatten)]
    pub(crate) moved: Moved,
    /// Blocks that are here and that the peer is known to lack.
    pub(crate) missing_there: u64,
    /// Blocks that the peer was asked for, and those that it asked for.
    pub(crate) in_flight: u64,
    pub(crate) requested: u64,
    /// Whether both sides hold the same.
    pub(crate) in_sync: bool,
    pub(crate) per_second: Rates,
}

/// What moves in a second, over the last ten.
#[derive(Serialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Rates {
    pub(crate) blocks_received: u64,
    pub(crate) bytes_received: u64,
    pub(crate) blocks_sent: u64,
    pub(crate) bytes_sent: u64,
}

impl From<SyncState> for Standing {
    fn from(state: SyncState) -> Self {
        let SyncState { feeds, moved, per_second, missing_here, missing_there, in_flight, requested, in_sync, .. } =
            state;
        Standing {
            moved: Moved {
                feeds,
                blocks_received: moved.blocks_received,
                bytes_received: moved.bytes_received,
                blocks_sent: moved.blocks_sent,
                bytes_sent: moved.bytes_sent,
                missing: missing_here,
            },
            missing_there,
            in_flight,
            requested,
            in_sync,
            per_second: Rates::from(per_second),
        }
    }
}

impl From<multifeed_tokio::Moved> for Rates {
    fn from(moved: multifeed_tokio::Moved) -> Self {
        Rates {
            blocks_received: moved.blocks_received,
            bytes_received: moved.bytes_received,
            blocks_sent: moved.blocks_sent,
            bytes_sent: moved.bytes_sent,
        }
    }
}

impl From<&SyncTotals> for Moved {
    fn from(totals: &SyncTotals) -> Self {
        Moved {
            feeds: totals.feeds,
            blocks_received: totals.blocks_received,
            bytes_received: totals.bytes_received,
            blocks_sent: totals.blocks_sent,
            bytes_sent: totals.bytes_sent,
            missing: totals.missing + totals.holes.iter().map(|holes| holes.blocks).sum::<u64>(),
        }
    }
}

impl Standing {
    /// Both together.
    pub(crate) fn and(self, other: &Self) -> Self {
        let (moved, rates) = (self.moved, self.per_second);
        Self {
            moved: Moved {
                feeds: moved.feeds + other.moved.feeds,
                blocks_received: moved.blocks_received + other.moved.blocks_received,
                bytes_received: moved.bytes_received + other.moved.bytes_received,
                blocks_sent: moved.blocks_sent + other.moved.blocks_sent,
                bytes_sent: moved.bytes_sent + other.moved.bytes_sent,
                missing: moved.missing + other.moved.missing,
            },
            missing_there: self.missing_there + other.missing_there,
            in_flight: self.in_flight + other.in_flight,
            requested: self.requested + other.requested,
            in_sync: self.in_sync && other.in_sync,
            per_second: Rates {
                blocks_received: rates.blocks_received + other.per_second.blocks_received,
                bytes_received: rates.bytes_received + other.per_second.bytes_received,
                blocks_sent: rates.blocks_sent + other.per_second.blocks_sent,
                bytes_sent: rates.bytes_sent + other.per_second.bytes_sent,
            },
        }
    }

    /// A line for people, such as "3 feeds, in sync" or "3 feeds, 20 blocks missing here, 5 there, receiving 7/s (1.5 KiB/s)".
    pub(crate) fn text(&self) -> String {
        let mut text = count(self.moved.feeds, "feed");
        if self.in_sync {
            text.push_str(", in sync");
        }
        match (self.moved.missing, self.missing_there) {
            (0, 0) => {}
            (here, 0) => _ = write!(text, ", {} missing here", count(here, "block")),
            (0, there) => _ = write!(text, ", {} missing there", count(there, "block")),
            (here, there) => _ = write!(text, ", {} missing here, {} there", count(here, "block"), HumanCount(there)),
        }
        let Rates { blocks_received, bytes_received, blocks_sent, bytes_sent } = self.per_second;
        for (blocks, bytes, doing) in
            [(blocks_received, bytes_received, "receiving"), (blocks_sent, bytes_sent, "sending")]
        {
            // What moved is not moving any more.
            if !self.in_sync && (blocks > 0 || bytes > 0) {
                let _ = write!(text, ", {doing} {}/s ({}/s)", HumanCount(blocks), HumanBytes(bytes));
            }
        }
        text
    }
}

impl Moved {
    /// A line for people, such as "3 feeds (2 alike from the start), 20 blocks (1.5 KiB) received, nothing sent".
    pub(crate) fn text(&self, in_step: u64) -> String {
        let way = |blocks, bytes, done: &str| match blocks {
            0 => format!("nothing {done}"),
            _ => format!("{} ({}) {done}", count(blocks, "block"), HumanBytes(bytes)),
        };
        let alike = match in_step {
            0 => String::new(),
            all if all == self.feeds => " (all alike from the start)".to_owned(),
            some => format!(" ({} alike from the start)", HumanCount(some)),
        };
        let mut text = format!(
            "{}{alike}, {}, {}",
            count(self.feeds, "feed"),
            way(self.blocks_received, self.bytes_received, "received"),
            way(self.blocks_sent, self.bytes_sent, "sent"),
        );
        if self.missing > 0 {
            let _ = write!(text, ", {} still missing", count(self.missing, "block"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Output, PeerName, to_json};
    use super::*;

    #[test]
    fn events_have_exactly_the_fields_that_the_help_names() {
        let moved =
            Moved { feeds: 1, blocks_received: 2, bytes_received: 3, blocks_sent: 4, bytes_sent: 5, missing: 6 };
        let numbers = r#""feeds":1,"blocks_received":2,"bytes_received":3,"blocks_sent":4,"bytes_sent":5,"missing":6"#;
        let rates = r#"{"blocks_received":1,"bytes_received":2,"blocks_sent":3,"bytes_sent":4}"#;
        let (key, name) = ("aa".to_owned(), "n");
        for (event, expected) in [
            (Event::Listening { address: "127.0.0.1:7".into() }, r#"{"event":"listening","address":"127.0.0.1:7"}"#),
            (Event::Connected, r#"{"event":"connected"}"#),
            (Event::Feed { key: key.clone(), name }, r#"{"event":"feed","key":"aa","name":"n"}"#),
            (Event::PeerFound { found: 7, by: "lan" }, r#"{"event":"peer-found","found":7,"by":"lan"}"#),
            (
                Event::PeerUnreachable { found: 7, seconds: 1.5, message: "why".into() },
                r#"{"event":"peer-unreachable","found":7,"seconds":1.5,"message":"why"}"#,
            ),
            (Event::PeerLost { found: 7, reason: "gone" }, r#"{"event":"peer-lost","found":7,"reason":"gone"}"#),
            (
                Event::PeerStatus {
                    found: vec![FoundBy { by: "lan", at: "a:1".into(), seconds: 2.5 }],
                    came: None,
                    seconds: 2.5,
                    in_sync: true,
                    per_second: Rates::default(),
                },
                &format!(
                    r#"{{"event":"peer-status","found":[{{"by":"lan","at":"a:1","seconds":2.5}}],"came":null,"seconds":2.5,"in_sync":true,"per_second":{}}}"#,
                    r#"{"blocks_received":0,"bytes_received":0,"blocks_sent":0,"bytes_sent":0}"#
                ),
            ),
            (Event::RemoteFeeds { feeds: vec![key] }, r#"{"event":"remote-feeds","feeds":["aa"]}"#),
            (
                Event::Progress(Standing {
                    moved,
                    missing_there: 7,
                    in_flight: 8,
                    requested: 9,
                    in_sync: false,
                    per_second: Rates { blocks_received: 1, bytes_received: 2, blocks_sent: 3, bytes_sent: 4 },
                }),
                &format!(
                    r#"{{"event":"progress",{numbers},"missing_there":7,"in_flight":8,"requested":9,"in_sync":false,"per_second":{rates}}}"#
                ),
            ),
            (
                Event::Closed {
                    done: Done {
                        moved,
                        in_step: 1,
                        not_taken: 2,
                        unwanted: 3,
                        unfetched: 4,
                        holes: vec![Hole { key: "bb".into(), blocks: 6, ranges: vec![[0, 2], [5, 8]], unlisted: 1 }],
                    },
                    in_sync: false,
                },
                &format!(
                    r#"{{"event":"closed",{numbers},"in_step":1,"not_taken":2,"unwanted":3,"unfetched":4,"holes":[{{"key":"bb","blocks":6,"ranges":[[0,2],[5,8]],"unlisted":1}}],"in_sync":false}}"#
                ),
            ),
            (Event::LinesLeftOut { lines: 3 }, r#"{"event":"lines-left-out","lines":3}"#),
            (
                Event::PeerError { code: "ERR_X", message: "m", us: None, them: Some("2") },
                r#"{"event":"peer-error","code":"ERR_X","message":"m","us":null,"them":"2"}"#,
            ),
            (Event::Warning { message: "m" }, r#"{"event":"warning","message":"m"}"#),
            (
                Event::Error { code: "ERR_X", message: "m", us: Some("1"), them: None },
                r#"{"event":"error","code":"ERR_X","message":"m","us":"1","them":null}"#,
            ),
        ] {
            assert_eq!(to_json(&event), expected);
        }
        let output = Output::new(true);
        let peer = PeerName { id: Some("bb".into()), address: None };
        let named = r#"{"event":"connected","peer":{"id":"bb","address":null}}"#;
        assert_eq!(output.about(&peer).object(&Event::Connected), named);
        let rooted = r#"{"event":"root-ready","peer":{"id":"bb","address":null},"root":"cc"}"#;
        assert_eq!(output.about_root(&peer, "cc".into()).object(&Event::RootReady), rooted);
    }

    #[test]
    fn a_sync_without_an_end_in_words() {
        let mut standing =
            Standing { moved: Moved { feeds: 3, missing: 2000, ..Moved::default() }, ..Standing::default() };
        standing.missing_there = 5;
        standing.per_second = Rates { blocks_received: 7, bytes_received: 1536, ..Rates::default() };
        let text = "3 feeds, 2,000 blocks missing here, 5 there, receiving 7/s (1.50 KiB/s)";
        assert_eq!(standing.text(), text);
        let done = Standing { moved: Moved { feeds: 1, ..Moved::default() }, in_sync: true, ..Standing::default() };
        assert_eq!(done.text(), "1 feed, in sync");
    }

    #[test]
    fn holes_in_words() {
        let hole = |ranges: Vec<[u64; 2]>, blocks| Hole { key: "bb".into(), blocks, ranges, unlisted: 0 }.text();
        assert_eq!(hole(vec![[2, 5], [9, 10]], 4), "4 missing blocks of feed bb: 2..5, 9");
        let many = (0..10).map(|at| [at * 10, at * 10 + 2]).collect();
        assert_eq!(
            hole(many, 1025),
            "1,025 missing blocks of feed bb: 0..2, 10..12, 20..22, 30..32, 40..42, 50..52, 60..62, 70..72, and 1,009 more"
        );
    }

    #[test]
    fn what_moved_in_words() {
        let moved = Moved { feeds: 2, blocks_received: 1, bytes_received: 1536, ..Moved::default() };
        assert_eq!(moved.text(0), "2 feeds, 1 block (1.50 KiB) received, nothing sent");
        assert_eq!(moved.text(1), "2 feeds (1 alike from the start), 1 block (1.50 KiB) received, nothing sent");
        let nothing = Moved { feeds: 2, ..Moved::default() };
        assert_eq!(nothing.text(2), "2 feeds (all alike from the start), nothing received, nothing sent");
    }
}
