//! The feeds of one session that wait for their turn, and what its remote offered and nobody here holds: keys, until something is proven.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use multifeed_proto::{DiscoveryKey, FeedKey, Message};

use crate::ids::FeedId;
use crate::replication::peer::parked::ParkedChannel;

/// The offers of one session.
///
/// A feed has a machine while its channel is open and busy, and an offered one while it is *asked* for. Then its channel is being opened, the
/// remote tells what it has, a block is on its way. Only so many are at once; the others wait, as keys. If a live remote has nothing of a feed
/// (yet), its machine is taken away, and the channel stays, *quiet*, until the remote says something there.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    /// Feeds with machines and without a block.
    asked: BTreeSet<FeedId>,
    /// Feeds with machines of which blocks were given up, so that they may still come.
    late: BTreeSet<FeedId>,
    /// Feeds whose turn is to come, here or only offered. Both sides take them in the order of their discovery keys, so that they mostly open the same
    /// ones.
    waiting: BTreeMap<DiscoveryKey, FeedKey>,
    /// Those of them whose channels the remote has opened: their turn is next.
    opened_there: BTreeSet<DiscoveryKey>,
    /// Quiet feeds that are to have a machine again.
    heard: BTreeSet<FeedKey>,
    /// Offers that are not asked for before the disk has room.
    held: BTreeSet<FeedKey>,
    /// When the remote last opened a channel that was open here.
    last_opened: Duration,
    /// Open channels without a machine.
    quiet: BTreeMap<FeedKey, ParkedChannel>,
    /// Those of them that the remote did not open.
    unopened: usize,
    /// Offers of feeds that were not here, in all.
    taken: usize,
}

impl Offers {
    /// Whether nothing is asked for or waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.waiting.is_empty() && self.held.is_empty() && self.quiet.is_empty()
    }

    /// Whether the remote offered a feed that has no machine on its session.
    pub(crate) fn has(&self, key: &FeedKey) -> bool {
        self.quiet.contains_key(key)
            || self.held.contains(key)
            || (!self.waiting.is_empty() && self.waiting.contains_key(&key.discovery_key()))
    }

    /// Counts an offer of a feed that is not here; false if there were as many as may be.
    pub(crate) fn take(&mut self, limit: usize) -> bool {
        let room = self.taken < limit;
        self.taken += usize::from(room);
        room
    }

    /// A feed waits for its turn.
    pub(crate) fn wait(&mut self, key: FeedKey) {
        self.waiting.insert(key.discovery_key(), key);
    }

    /// A feed whose turn it was waits until the disk has room.
    pub(crate) fn hold(&mut self, key: FeedKey) {
        match self.quiet.get_mut(&key) {
            Some(quiet) => quiet.downloading = false,
            None => _ = self.held.insert(key),
        }
    }

    /// There is room again: what was held has its turn, and what was quiet as nothing was fetched is looked at.
    pub(crate) fn go_on(&mut self) {
        std::mem::take(&mut self.held).into_iter().for_each(|key| self.wait(key));
        let quiet = self.quiet.iter().filter(|(_, quiet)| quiet.opened && !quiet.downloading);
        self.heard.extend(quiet.map(|(key, _)| key));
    }

    /// The remote opened a channel that is not open here. Whether its feed waits for its turn, which is next then.
    pub(crate) fn opened_there(&mut self, discovery_key: DiscoveryKey) -> bool {
        self.waiting.contains_key(&discovery_key) && self.opened_there.insert(discovery_key)
    }

    /// Takes out what waits and is not to have its turn.
    pub(crate) fn take_waiting(&mut self, is_over: impl Fn(&FeedKey) -> bool) -> Vec<FeedKey> {
        let taken: Vec<FeedKey> = self.waiting.values().copied().filter(is_over).collect();
        taken.iter().for_each(|key| self.stop_waiting(key));
        taken
    }

    /// The feed whose turn it is. Of those that the remote did not open, only while fewer than `limit` are asked for and `open`, the channels on
    /// which something is under way, are fewer than `most`. Of those that it opened up to twice as many, so that two sides that opened
    /// different ones never wait for each other.
    pub(crate) fn next(&mut self, limit: usize, open: usize, most: usize) -> Option<FeedKey> {
        if self.heard.is_empty() && self.waiting.is_empty() {
            return None;
        }
        let asked = self.asked.len();
        let has_room = |times: usize| asked < limit.saturating_mul(times) && open < most.saturating_mul(times);
        if !has_room(2) {
            return None;
        }
        if let Some(key) = self.heard.pop_first() {
            return Some(key);
        }
        if let Some(discovery_key) = self.opened_there.pop_first() {
            return self.waiting.remove(&discovery_key);
        }
        if has_room(1) { self.waiting.pop_first().map(|(_, key)| key) } else { None }
    }

    /// A feed's machine begins to ask.
    pub(crate) fn ask(&mut self, feed: FeedId) {
        self.asked.insert(feed);
    }

    /// A feed's machine is gone, or something of the feed came.
    pub(crate) fn ask_no_more(&mut self, feed: FeedId) {
        self.asked.remove(&feed);
        self.late.remove(&feed);
    }

    /// Nothing more is asked of a feed of which blocks may come late. Whether its machine stays for them, as those of at most `limit` do.
    pub(crate) fn stay(&mut self, feed: FeedId, limit: usize) -> bool {
        let stays = self.late.contains(&feed) || self.late.len() < limit;
        if stays {
            self.asked.remove(&feed);
            self.late.insert(feed);
        }
        stays
    }

    /// The remote's offers that have no machine: those that wait, and those whose channels are quiet.
    pub(crate) fn without_machine(&self) -> Vec<FeedKey> {
        self.waiting.values().chain(&self.held).chain(self.quiet.keys()).copied().collect()
    }

    /// Feeds that are asked for.
    pub(crate) fn asked(&self) -> impl Iterator<Item = FeedId> + '_ {
        self.asked.iter().copied()
    }

    /// A machine is taken away, and its channel stays.
    pub(crate) fn park(&mut self, key: FeedKey, quiet: ParkedChannel) {
        self.unopened += usize::from(!quiet.opened);
        self.quiet.insert(key, quiet);
    }

    /// Whether a quiet channel is not opened by the remote yet.
    pub(crate) fn is_unopened(&self, key: &FeedKey) -> bool {
        self.quiet.get(key).is_some_and(|quiet| !quiet.opened)
    }

    /// Quiet channels that the remote has not opened, since they were opened here at that time or before.
    pub(crate) fn unopened_since(&self, time: Duration) -> Vec<FeedKey> {
        if self.unopened == 0 || self.last_opened > time {
            return Vec::new();
        }
        self.quiet.iter().filter(|(_, quiet)| !quiet.opened && quiet.since <= time).map(|(&key, _)| key).collect()
    }

    /// A feed's turn is not to come.
    pub(crate) fn pass_over(&mut self, key: &FeedKey) {
        self.stop_waiting(key);
    }

    fn stop_waiting(&mut self, key: &FeedKey) {
        self.held.remove(key);
        if !self.waiting.is_empty() {
            let discovery_key = key.discovery_key();
            self.waiting.remove(&discovery_key);
            self.opened_there.remove(&discovery_key);
        }
    }

    /// Whether the channel of a feed that has no machine is open.
    pub(crate) fn is_quiet(&self, key: &FeedKey) -> bool {
        self.quiet.contains_key(key)
    }

    /// What is known of a quiet channel.
    pub(crate) fn quiet(&self, key: &FeedKey) -> Option<ParkedChannel> {
        self.quiet.get(key).copied()
    }

    /// Whether the remote said something on a quiet channel that was not looked at yet.
    pub(crate) fn is_heard(&self, key: &FeedKey) -> bool {
        self.heard.contains(key)
    }

    /// The remote opened a channel that was open here.
    pub(crate) fn note_opened(&mut self, now: Duration) {
        self.last_opened = now;
    }

    /// Feeds without a machine: those whose channels are quiet, and those that wait.
    pub(crate) fn count(&self) -> u64 {
        (self.quiet.len() + self.waiting.len() + self.held.len()) as u64
    }

    /// Those of them whose remotes have nothing.
    pub(crate) fn empty(&self) -> u64 {
        (self.quiet.len() - self.unopened) as u64
    }

    /// Whether something is still to be asked, or to be opened by the remote.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty() || !self.heard.is_empty() || !self.held.is_empty() || self.unopened > 0
    }

    /// The remote opened a quiet channel too: it may have something.
    pub(crate) fn opened(&mut self, key: FeedKey) {
        if let Some(quiet) = self.quiet.get_mut(&key) {
            self.unopened -= usize::from(!std::mem::replace(&mut quiet.opened, true));
            self.heard.insert(key);
        }
    }

    /// The remote said something on a quiet channel. It is asked again if it may have something now, or wants an answer.
    pub(crate) fn heard(&mut self, key: FeedKey, message: &Message) {
        let Some(quiet) = self.quiet.get_mut(&key) else { return };
        match message {
            Message::Options(options) => {
                quiet.acks = options.ack;
                return;
            }
            Message::Want { start, length } => quiet.wants = Some((*start, *length)),
            Message::Have(have) if !have.ack && quiet.downloading => {}
            // The answer to a request that was given up: it was only slow.
            Message::Data(_) if quiet.downloading => {}
            Message::Status { uploading, downloading } => {
                quiet.remote_transfers = (*uploading, *downloading);
                if !(*uploading && quiet.downloading) {
                    return;
                }
            }
            // Of a feed without a block there is nothing to be requested or lost.
            _ => return,
        }
        self.heard.insert(key);
    }

    /// A feed gets a machine, or is gone: what is known of its channel.
    pub(crate) fn forget(&mut self, key: &FeedKey) -> Option<ParkedChannel> {
        self.stop_waiting(key);
        self.heard.remove(key);
        let quiet = self.quiet.remove(key)?;
        self.unopened -= usize::from(!quiet.opened);
        Some(quiet)
    }
}
