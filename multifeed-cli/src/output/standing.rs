//! How a sync stands and what it moved: the numbers that programs read, and their words for people.

use std::fmt::Write as _;
use std::time::Duration;

use console::measure_text_width;
use indicatif::{HumanBytes, HumanCount};
use multifeed_tokio::{FeedHoles, SyncState, SyncTotals};
use serde::Serialize;

use super::count;

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
    pub(super) key: String,
    pub(super) blocks: u64,
    /// The first block of each range, and the one past its last.
    pub(super) ranges: Vec<[u64; 2]>,
    /// Blocks in ranges that are not listed.
    pub(super) unlisted: u64,
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
    /// Blocks that were received and are not written.
    #[serde(skip)]
    pub(crate) unwritten: u64,
    /// About as many bytes as the missing blocks have, as far as a signature that came tells; 0 if none did.
    pub(crate) bytes_missing: u64,
    /// Blocks that are here and that the peer is known to lack, and about as many bytes.
    pub(crate) missing_there: u64,
    pub(crate) bytes_missing_there: u64,
    /// Feeds that the peer does not take, or takes no more of.
    pub(crate) not_taken: u64,
    /// Blocks that the peer was asked for, and those that it asked for.
    pub(crate) in_flight: u64,
    pub(crate) requested: u64,
    /// Whether both sides hold the same, and nothing is left out.
    pub(crate) in_sync: bool,
    /// Whether they do but for feeds that the peer does not take.
    #[serde(skip)]
    pub(crate) in_sync_but: bool,
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
        let SyncState { feeds, moved, unwritten, per_second, missing_here, bytes_missing_here, .. } = state;
        let SyncState { missing_there, bytes_missing_there, not_taken, in_flight, requested, in_sync, .. } = state;
        Standing {
            moved: Moved {
                feeds,
                blocks_received: moved.blocks_received,
                bytes_received: moved.bytes_received,
                blocks_sent: moved.blocks_sent,
                bytes_sent: moved.bytes_sent,
                missing: missing_here,
            },
            unwritten,
            bytes_missing: bytes_missing_here,
            missing_there,
            bytes_missing_there,
            not_taken,
            in_flight,
            requested,
            in_sync: in_sync && not_taken == 0,
            in_sync_but: in_sync && not_taken > 0,
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
            unwritten: self.unwritten + other.unwritten,
            bytes_missing: self.bytes_missing.saturating_add(other.bytes_missing),
            missing_there: self.missing_there + other.missing_there,
            bytes_missing_there: self.bytes_missing_there.saturating_add(other.bytes_missing_there),
            not_taken: self.not_taken + other.not_taken,
            in_flight: self.in_flight + other.in_flight,
            requested: self.requested + other.requested,
            in_sync: self.in_sync && other.in_sync,
            in_sync_but: [self, *other].iter().all(|of| of.in_sync || of.in_sync_but)
                && !(self.in_sync && other.in_sync),
            per_second: Rates {
                blocks_received: rates.blocks_received + other.per_second.blocks_received,
                bytes_received: rates.bytes_received + other.per_second.bytes_received,
                blocks_sent: rates.blocks_sent + other.per_second.blocks_sent,
                bytes_sent: rates.bytes_sent + other.per_second.bytes_sent,
            },
        }
    }

    /// A line for people, such as "3 feeds, in sync" or "3 feeds, 20 blocks missing here, 5 there, receiving 7/s (1.5 KiB/s)".
    pub(crate) fn line(&self) -> Line {
        let mut line = Line::default().with(2, count(self.moved.feeds, "feed"));
        if self.in_sync {
            line = line.with(1, "in sync".into());
        }
        if self.not_taken > 0 {
            let but = if self.in_sync_but { "in sync but for " } else { "" };
            line = line.with(1, format!("{but}{} not taken there", count(self.not_taken, "feed")));
        }
        let (bytes, bytes_there) = (of_bytes(self.bytes_missing), of_bytes(self.bytes_missing_there));
        line = match (self.moved.missing, self.missing_there) {
            (0, 0) => line,
            (here, 0) => line.with(1, format!("{} missing here{bytes}", count(here, "block"))),
            (0, there) => line.with(1, format!("{} missing there{bytes_there}", count(there, "block"))),
            (here, there) => {
                let line = line.with(1, format!("{} missing here{bytes}", count(here, "block")));
                line.with(1, format!("{} there{bytes_there}", HumanCount(there)))
            }
        };
        let Rates { blocks_received, bytes_received, blocks_sent, bytes_sent } = self.per_second;
        for (blocks, bytes, doing) in
            [(blocks_received, bytes_received, "receiving"), (blocks_sent, bytes_sent, "sending")]
        {
            // What moved is not moving any more.
            if !self.in_sync && (blocks > 0 || bytes > 0) {
                line = line.with(3, format!("{doing} {}/s ({}/s)", HumanCount(blocks), HumanBytes(bytes)));
            }
        }
        line
    }

    /// The whole [`line`](Self::line).
    pub(crate) fn text(&self) -> String {
        self.line().within(usize::MAX)
    }
}

/// Parts of a line for people, each with how soon it is left out if there is no room for all.
#[derive(Default)]
pub(crate) struct Line(Vec<(u8, String)>);

impl Line {
    /// The line with one more part. Those of the highest number are left out first, and of the number 0 none.
    pub(crate) fn with(mut self, number: u8, part: String) -> Self {
        self.0.push((number, part));
        self
    }

    /// What has room in so many columns.
    pub(crate) fn within(mut self, width: usize) -> String {
        loop {
            let parts: Vec<&str> = self.0.iter().map(|(_, part)| part.as_str()).collect();
            let text = parts.join(", ");
            let last = self.0.iter().enumerate().max_by_key(|(_, (number, _))| *number);
            match last.filter(|(_, (number, _))| *number > 0 && measure_text_width(&text) > width) {
                Some((at, _)) => _ = self.0.remove(at),
                None => return text,
            }
        }
    }
}

impl Standing {
    /// A line for people of a sync that has an end, such as "12 blocks, 1.50 KiB of 3.00 KiB, 100 B/s".
    pub(crate) fn progress(&self) -> Line {
        let moved = &self.moved;
        let bytes = moved.bytes_received + moved.bytes_sent;
        let line = Line::default().with(3, count(moved.blocks_received + moved.blocks_sent, "block"));
        let line = match self.bytes() {
            0 => line.with(1, HumanBytes(bytes).to_string()),
            all => line.with(1, format!("{} of {}", HumanBytes(bytes), HumanBytes(all))),
        };
        match self.per_second.bytes_received + self.per_second.bytes_sent {
            rate if !self.in_sync && rate > 0 => line.with(2, format!("{}/s", HumanBytes(rate))),
            _ => line,
        }
    }

    /// Bytes of the whole sync, once they are known; else 0.
    pub(crate) fn bytes(&self) -> u64 {
        let left = self.bytes_missing.saturating_add(self.bytes_missing_there);
        match left {
            0 => 0,
            left => left.saturating_add(self.moved.bytes_received).saturating_add(self.moved.bytes_sent),
        }
    }

    /// How long what is missing takes at this rate, once bytes tell.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        let ways = [
            (self.bytes_missing, self.per_second.bytes_received),
            (self.bytes_missing_there, self.per_second.bytes_sent),
        ];
        let known = ways.iter().filter(|(bytes, rate)| *bytes > 0 && *rate > 0).map(|(bytes, rate)| bytes / rate);
        known.max().map(Duration::from_secs)
    }
}

/// Bytes in brackets, if they are known.
fn of_bytes(bytes: u64) -> String {
    if bytes == 0 { String::new() } else { format!(" ({})", HumanBytes(bytes)) }
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
    use super::*;

    #[test]
    fn a_sync_without_an_end_in_words() {
        let mut standing =
            Standing { moved: Moved { feeds: 3, missing: 2000, ..Moved::default() }, ..Standing::default() };
        standing.missing_there = 5;
        standing.per_second = Rates { blocks_received: 7, bytes_received: 1536, ..Rates::default() };
        let text = "3 feeds, 2,000 blocks missing here, 5 there, receiving 7/s (1.50 KiB/s)";
        assert_eq!(standing.text(), text);
        assert_eq!((standing.time_left(), standing.bytes()), (None, 0), "only counts are known");
        standing.bytes_missing = 15_360;
        assert_eq!(standing.text(), text.replace(" here", " here (15.00 KiB)"));
        assert_eq!((standing.time_left(), standing.bytes()), (Some(Duration::from_secs(10)), 15_360));
        standing.moved.bytes_received = 1024;
        assert_eq!(standing.progress().within(80), "0 blocks, 1.00 KiB of 16.00 KiB, 1.50 KiB/s");
        standing.not_taken = 1;
        assert_eq!(
            standing.text(),
            text.replace("3 feeds", "3 feeds, 1 feed not taken there").replace(" here", " here (15.00 KiB)")
        );
        let but = Standing { in_sync_but: true, not_taken: 2, ..Standing::default() };
        assert_eq!(but.text(), "0 feeds, in sync but for 2 feeds not taken there");
        let done = Standing { moved: Moved { feeds: 1, ..Moved::default() }, in_sync: true, ..Standing::default() };
        assert_eq!(done.text(), "1 feed, in sync");
    }

    /// The time that is left is seen beside a bar in 80 columns, and alone on a narrow terminal.
    #[test]
    fn the_time_that_is_left_has_room() {
        let moved = Moved { feeds: 1234, blocks_received: 1_234_567, bytes_received: 999 << 20, ..Moved::default() };
        let rates = Rates { blocks_received: 123_456, bytes_received: 123 << 20, blocks_sent: 5, bytes_sent: 999 };
        let standing = Standing {
            moved: Moved { missing: 1_234_567, ..moved },
            bytes_missing: 123 << 30,
            missing_there: 7,
            bytes_missing_there: 70,
            per_second: rates,
            ..Standing::default()
        };
        let left = |line: Line, width| line.with(0, "59m left".into()).within(width);
        assert_eq!(left(standing.progress(), 80), "1,234,567 blocks, 999.00 MiB of 123.98 GiB, 123.00 MiB/s, 59m left");
        assert_eq!(left(standing.progress(), 49), "999.00 MiB of 123.98 GiB, 123.00 MiB/s, 59m left");
        assert_eq!(left(standing.progress(), 40), "999.00 MiB of 123.98 GiB, 59m left");
        let line = "1,234 feeds, 1,234,567 blocks missing here (123.00 GiB), 7 there (70 B), 59m left";
        assert_eq!(left(standing.line(), 100), line);
        assert_eq!(left(standing.line(), 78), line.strip_prefix("1,234 feeds, ").unwrap());
        assert_eq!((left(standing.line(), 20), left(standing.progress(), 3)), ("59m left".into(), "59m left".into()));
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
