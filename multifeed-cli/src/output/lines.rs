//! What the lines say: the objects that programs read, and their words for people.

use serde::Serialize;

use super::{Done, FoundBy, Rates, Standing};

/// A feed, as `feeds` and `demo` print it.
#[derive(Serialize)]
pub(crate) struct FeedLine {
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) length: u64,
    pub(crate) bytes: u64,
    pub(crate) downloaded: u64,
    pub(crate) writable: bool,
    /// What its user named it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) alias: Option<String>,
}

/// A writer whose key was exported or imported.
#[derive(Serialize)]
pub(crate) struct WriterLine {
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) length: u64,
}

/// The name that the user gave a feed.
#[derive(Serialize)]
pub(crate) struct AliasLine {
    pub(crate) key: String,
    pub(crate) alias: Option<String>,
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
    /// `append` made the writer.
    NewWriter {
        key: &'a str,
        name: &'a str,
    },
    /// Nodes of the tree and signatures that were made again.
    MadeAgain {
        key: String,
        name: &'a str,
        nodes: u64,
        signatures: u64,
    },
    /// Folders that held a feed beside the one in use, and are removed; what was only in them was taken in.
    FoldersJoined {
        key: String,
        name: &'a str,
        folders: u64,
        blocks: u64,
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
    /// A feed has more blocks.
    Grown {
        key: String,
        name: &'a str,
        length: u64,
        downloaded: u64,
    },
    /// A feed is gone.
    Removed {
        key: String,
        name: &'a str,
    },
    /// A feed was banned here.
    Banned {
        key: String,
    },
    /// The peer ends the session once both hold the same.
    PeerNotLive,
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

#[cfg(test)]
mod tests {
    use super::super::{Done, FoundBy, Hole, Moved, Output, PeerName, Rates, Standing, to_json};
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
            (Event::NewWriter { key: "aa", name }, r#"{"event":"new-writer","key":"aa","name":"n"}"#),
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
                    unwritten: 0,
                    bytes_missing: 10,
                    missing_there: 7,
                    bytes_missing_there: 11,
                    not_taken: 12,
                    in_flight: 8,
                    requested: 9,
                    in_sync: false,
                    in_sync_but: false,
                    per_second: Rates { blocks_received: 1, bytes_received: 2, blocks_sent: 3, bytes_sent: 4 },
                }),
                &format!(
                    r#"{{"event":"progress",{numbers},"bytes_missing":10,"missing_there":7,"bytes_missing_there":11,"not_taken":12,"in_flight":8,"requested":9,"in_sync":false,"per_second":{rates}}}"#
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
}
