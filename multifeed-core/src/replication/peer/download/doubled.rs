//! What a second remote is asked for too, and what is taken back of the first one when the second brought it.

use std::collections::VecDeque;
use std::time::Duration;

use multifeed_proto::Request;

use super::mean_size;
use super::{Download, MOST_LATE};
use crate::feed::Feed;
use crate::replication::transfer::Share;
use crate::sets::sparse_bits::SparseBits;

/// Requests that were taken back since another remote brought the block. A remote answers in order, and may have sent the answer: until a later
/// one comes, what it was asked for after them is taken to wait for theirs.
#[derive(Debug, Default)]
pub(super) struct Withdrawn {
    /// Each block, after how many of the requests that are in flight: in that order.
    requests: VecDeque<(usize, u64)>,
}

impl Withdrawn {
    /// How many stand before the request at a place.
    fn before(&self, place: usize) -> usize {
        self.requests.partition_point(|&(after, _)| after <= place)
    }

    /// The request at a place is taken back.
    fn insert(&mut self, place: usize, index: u64) {
        let at = self.before(place);
        self.requests.range_mut(at..).for_each(|(after, _)| *after -= 1);
        if self.requests.len() < MOST_LATE {
            self.requests.insert(at, (place, index));
        }
    }

    /// The request at a place was answered, and so all before it.
    pub(super) fn answered(&mut self, place: usize) {
        if !self.requests.is_empty() {
            self.requests.drain(..self.before(place));
            self.requests.iter_mut().for_each(|(after, _)| *after -= 1);
        }
    }

    /// A block came that was perhaps taken back. What stood before it came, or does not come any more.
    fn came(&mut self, index: u64) {
        if let Some(at) = self.requests.iter().position(|&(_, withdrawn)| withdrawn == index) {
            self.requests.drain(..=at);
        }
    }

    pub(super) fn clear(&mut self) {
        self.requests = VecDeque::new();
    }
}

impl Download {
    /// Whether nothing is asked for, though the remote has something that is not here: others were asked for it.
    pub(in crate::replication::peer) fn is_spare(&self) -> bool {
        self.in_flight.is_empty() && !self.has.is_empty() && self.has_announced()
    }

    /// What was asked for, the oldest first, each with how much comes up to its end, if one answer counts `cost` and so much comes up to the
    /// end of the last one.
    pub(in crate::replication::peer) fn asked(&self, cost: u64, last: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let count = self.in_flight.len();
        self.in_flight.iter().enumerate().map(move |(place, &index)| {
            let of_this_feed = (place + self.withdrawn.before(place) + 1) as u64;
            let after = ((count - place - 1) as u64).saturating_mul(cost);
            (index, of_this_feed.saturating_mul(cost).max(last.saturating_sub(after)))
        })
    }

    /// Where the answer for the last block [ends](Share::through) that was asked for.
    pub(in crate::replication::peer) fn asked_through(&self) -> u64 {
        self.asked_through
    }

    /// The next of these blocks, of which another remote was asked for, is asked for here too, if there is room and this one has it.
    pub(in crate::replication::peer) fn ask_too(
        &mut self,
        index: u64,
        feed: &Feed,
        reserved: &mut SparseBits,
        share: &mut Share,
        now: Duration,
    ) -> Option<Request> {
        let cost = share.cost(mean_size(feed));
        if !share.has_room(cost) || !self.has.get(index) || feed.has(index) {
            return None;
        }
        share.take(cost);
        Some(self.ask_for(index, feed, reserved, share.through(), now))
    }

    /// A block came from another remote that was asked for it too. Whether this one was.
    pub(in crate::replication::peer) fn came_elsewhere(&mut self, index: u64) -> bool {
        let Some(place) = self.in_flight.iter().position(|&asked| asked == index) else { return false };
        self.in_flight.remove(place);
        self.withdrawn.insert(place, index);
        self.promised.clear();
        true
    }

    /// A block came that is not asked for, perhaps since that was taken back.
    pub(in crate::replication::peer) fn came_unasked(&mut self, index: u64) {
        self.withdrawn.came(index);
    }
}
