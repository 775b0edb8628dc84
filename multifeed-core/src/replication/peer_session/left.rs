//! What a remote did not bring, and what of that was given up.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use multifeed_proto::{Command, FeedKey, Message, Token};

use super::{Channel, PeerSession};
use crate::feed::Feed;
use crate::ids::FeedId;
use crate::replication::missing_ranges;
use crate::replication::peer::{Deserted, Left};
use crate::sets::sparse_bits::SparseBits;

/// How many blocks of a feed that a remote told of too late are counted at the least; if there are more, some are not.
const MORE_COUNTED: u64 = 4096;

/// What was given up of feeds without a machine.
#[derive(Debug, Default)]
pub(super) struct GivenUp {
    /// How many blocks, by feed; none if the remote never said what it has.
    feeds: BTreeMap<FeedKey, u64>,
    /// All of them.
    blocks: u64,
    /// Since when blocks have been given up, and how many had come by then.
    silence: Option<(Duration, u64)>,
}

impl GivenUp {
    pub(super) fn insert(&mut self, feed: FeedKey, blocks: u64) {
        self.remove(&feed);
        self.feeds.insert(feed, blocks);
        self.blocks += blocks;
    }

    fn remove(&mut self, feed: &FeedKey) {
        self.blocks -= self.feeds.remove(feed).unwrap_or_default();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.feeds.is_empty()
    }

    pub(super) fn feeds(&self) -> u64 {
        self.feeds.len() as u64
    }

    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }
}

/// Feeds whose channels the remote of a live session closed, and that it may want still.
#[derive(Debug, Default)]
pub(super) struct DesertedFeeds {
    /// Both sides held the same as it closed them, and nothing has come since.
    even: BTreeSet<FeedKey>,
    /// Those of which they did not, each with how many blocks the remote lacked.
    uneven: BTreeMap<FeedKey, u64>,
    /// Those that the remote said before that it takes no part in any more, each with how many blocks are missing here that it told of.
    cut_short: BTreeMap<FeedKey, u64>,
}

impl DesertedFeeds {
    fn insert(&mut self, feed: FeedKey, deserted: Deserted, missing_there: u64) {
        match deserted {
            Deserted { even: false, .. } => _ = self.uneven.insert(feed, missing_there),
            Deserted { fetches: true, .. } => _ = self.even.insert(feed),
            Deserted { .. } => {}
        }
    }

    fn remove(&mut self, feed: &FeedKey) {
        self.even.remove(feed);
        self.uneven.remove(feed);
        self.cut_short.remove(feed);
    }

    /// Whether both sides hold the same of each, as far as that is known.
    pub(super) fn are_even(&self) -> bool {
        self.uneven.is_empty() && self.cut_short.is_empty()
    }

    /// How many blocks are missing here that the remote told of.
    pub(super) fn missing_here(&self) -> u64 {
        self.cut_short.values().sum()
    }

    /// How many blocks the remote lacked of them.
    pub(super) fn missing_there(&self) -> u64 {
        self.uneven.values().sum()
    }
}

impl PeerSession {
    /// Blocks are given up. Whether others were a request timeout ago, and none has come since.
    pub(crate) fn note_silence(&mut self, now: Duration, patience: Duration) -> bool {
        let came = self.totals.blocks_received;
        match self.given_up.silence {
            Some((since, before)) if before == came => now >= since.saturating_add(patience),
            _ => {
                self.given_up.silence = Some((now, came));
                false
            }
        }
    }

    /// Closes the channel of a feed that is not wanted (any more). In a live session it says so first: a remote that is left without a word takes
    /// itself to be out of sync.
    pub(crate) fn renounce(&mut self, token: Token) {
        if self.is_live() {
            let message = Message::Status { uploading: false, downloading: false };
            self.extend(Command::Send { token, message });
        }
        self.extend(Command::Close { token });
    }

    /// The remote closed a feed's channel.
    pub(crate) fn closed_by_remote(&mut self, id: FeedId, feed: &Feed) {
        self.note_denied(id, feed);
        let Some(peer) = self.peers.get(&id) else { return };
        if let Some(deserted) = peer.deserted() {
            self.deserted.insert(feed.key(), deserted, peer.standing.missing_there);
        }
    }

    /// The remote closed the channel of a feed that has no machine. If the remote is live and was not heard, as while the disk is full, it may
    /// have something of it.
    pub(crate) fn quiet_closed_by_remote(&mut self, key: &FeedKey) {
        let is_heard = self.offers.is_heard(key);
        if let (Some(quiet), true) = (self.offers.quiet(key), self.is_live()) {
            let (uploading, downloading) = quiet.remote_transfers;
            let even = !uploading || (!is_heard && (quiet.downloading || self.paused.is_none()));
            let fetches = downloading && self.options.upload != Some(false);
            if quiet.opened && (uploading || downloading) {
                self.deserted.insert(*key, Deserted { even, fetches }, 0);
            }
        }
        self.forget(key);
    }

    /// Whether it counts a feed as one of both sides, or did.
    pub(crate) fn relies_on(&self, feed: FeedId) -> bool {
        self.known.get(u64::from(feed.0)) || self.matched.holds(feed)
    }

    /// So many blocks of a feed are here that were not before.
    pub(crate) fn outgrows(&mut self, id: FeedId, feed: &Feed, blocks: u64) {
        let key = feed.key();
        if self.deserted.even.remove(&key) {
            self.deserted.uneven.insert(key, blocks);
            self.progress_due |= self.observed;
        }
        if let Some(missing) = self.deserted.cut_short.get_mut(&key) {
            let all = 0..u64::MAX;
            *missing = self.left.get(&id).map_or(0, |(_, blocks)| missing_ranges::coming(feed, blocks, &all));
            if *missing == 0 {
                self.deserted.cut_short.remove(&key);
            }
        }
    }

    /// Notes what the remote did not bring of a feed, as the feed's machine is taken out. Returns whether to
    /// [count](Self::note_gained) what comes here later.
    pub(crate) fn note_left(&mut self, id: FeedId, feed: &Feed) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else { return false };
        if peer.standing.in_sync == 1 && feed.is_settled() {
            self.closed_in_sync.insert(u64::from(id.0));
        }
        let lacking = peer.lacking(feed);
        let unwanted = peer.unwanted(feed);
        self.totals.unwanted += u64::from(unwanted > 0);
        self.unwanted_blocks += unwanted;
        let fetches_nothing = self.options.download == Some(false);
        self.totals.unfetched += u64::from(fetches_nothing && peer.has_unfetched(feed));
        self.not_taken.closed(id, lacking);
        self.progress_due |= lacking + unwanted > 0;
        if lacking > 0 {
            // They are counted as not taken.
            self.deserted.uneven.insert(feed.key(), 0);
        }
        let Left { told, blocks, given_up } = peer.left(feed);
        if peer.was_cut_short() && !blocks.is_empty() {
            self.deserted.cut_short.insert(feed.key(), blocks.count());
            self.progress_due |= self.observed;
        }
        let hears_no_more = (told && peer.hears_no_more()) || peer.was_given_up_there();
        let outgrown = hears_no_more && feed.is_settled() && !self.is_over();
        if outgrown {
            self.not_taken.watch(id);
        }
        if !feed.is_settled() {
            // Its place may be another's before the session ends.
            if !blocks.is_empty() {
                self.left_new.insert(feed.key(), blocks.count());
            }
        } else if told || !blocks.is_empty() {
            self.left.insert(id, (told, blocks));
        }
        if let Some(blocks) = given_up {
            self.given_up.insert(feed.key(), blocks);
        }
        outgrown
    }

    /// Blocks of a feed are here that were not before. Whether they count, if the remote does not have them: its channel of the feed is closed,
    /// in a session that has to end, or since it takes no part in it any more.
    pub(crate) fn note_gained(&mut self, feed: FeedId, blocks: &Range<u64>) -> bool {
        let counts = !self.is_over() && self.not_taken.watches(feed);
        if counts {
            self.closed_in_sync.remove(u64::from(feed.0));
            let there = self.left.get(&feed).map(|(_, there)| there);
            let has = |index: &u64| there.is_some_and(|there| there.get(*index));
            self.not_taken.gained(feed, blocks.clone().filter(|index| !has(index)).count() as u64);
            self.progress_due |= self.is_observed();
        }
        counts
    }

    /// This side closed a feed's channel. In a session that has to end, [what the remote still tells of it](Self::note_more) is not fetched.
    pub(crate) fn closed_here(&mut self, token: Token, feed: FeedId) {
        if !self.is_live() && !self.is_sparse() && self.options.download != Some(false) {
            self.channels.insert(token, Channel::Closed(feed));
        }
    }

    /// The remote told of blocks of a feed after this side was through with it.
    pub(crate) fn note_more(&mut self, id: FeedId, feed: &Feed, blocks: Range<u64>) {
        let lacks = feed.bitfield().next_missing(blocks.start, blocks.end);
        let is_through = !self.is_over() && !self.peers.contains_key(&id);
        let Some(first) = lacks.filter(|_| is_through) else { return };
        self.part();
        self.closed_in_sync.remove(u64::from(id.0));
        let (_, left) = self.left.entry(id).or_insert_with(|| (true, SparseBits::default()));
        if left.count() < MORE_COUNTED {
            left.insert_range(first, blocks.end.min(first.saturating_add(MORE_COUNTED)));
        }
        self.progress_due |= self.observed;
    }

    /// What the remote did not bring of a feed does not count: it is asked again, or the feed is removed.
    pub(crate) fn forget_left(&mut self, feed: FeedId, key: &FeedKey) {
        self.left.remove(&feed);
        self.closed_in_sync.remove(u64::from(feed.0));
        self.left_new.remove(key);
        self.given_up.remove(key);
        self.deserted.remove(key);
    }

    /// What the remote did not bring of a feed, if it said of all other blocks that it does not have them.
    pub(crate) fn left_of(&self, feed: FeedId) -> Option<Option<&SparseBits>> {
        match self.left.get(&feed) {
            Some((told, blocks)) => told.then_some(Some(blocks)),
            None => self.matched.holds(feed).then_some(None),
        }
    }

    /// How many blocks the remote told of, or did not answer about, and did not bring; `missing` counts those of a feed that are not here.
    pub(crate) fn left(&self, missing: impl Fn(FeedId, &SparseBits) -> u64) -> u64 {
        let left: u64 = self.left.iter().map(|(&feed, (_, blocks))| missing(feed, blocks)).sum();
        left + self.left_new.values().sum::<u64>()
    }
}
