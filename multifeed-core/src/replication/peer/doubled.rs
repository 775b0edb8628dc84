//! Blocks that two remotes are asked for: the first is slow, and the second has nothing else to do.

use super::state::ChannelState;
use super::{FeedChannel, Message, Work};
use crate::storage::Storage;

impl FeedChannel {
    /// Whether this remote could bring what others were asked for.
    pub(crate) fn has_spare_room(&self) -> bool {
        let fetches = self.state == ChannelState::Open && self.is_downloading() && self.remote.uploading;
        fetches && !self.is_sparse() && self.download.is_spare()
    }

    /// What it was asked for, the oldest first, each with how much comes up to its end, if one answer counts `cost` and so much comes up to the
    /// end of the last one.
    pub(crate) fn asked(&self, cost: u64, last: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.download.asked(cost, last)
    }

    /// Where the answer for the last block [ends](crate::replication::transfer::Share::through) that it was asked for.
    pub(crate) fn asked_through(&self) -> u64 {
        self.download.asked_through()
    }

    /// Asks for blocks that another remote was asked for: for which.
    pub(crate) fn ask_too<S: Storage>(&mut self, blocks: &[u64], work: &mut Work<'_, S>) -> Vec<u64> {
        let mut asked = Vec::new();
        if self.has_spare_room() && !self.download.may_differ(work.feed) {
            for &index in blocks {
                let Work { feed, reserved, share, now, .. } = work;
                if let Some(request) = self.download.ask_too(index, feed, reserved, share, *now) {
                    self.out.push_back(Message::Request(request));
                    asked.push(index);
                }
            }
        }
        asked
    }

    /// A block came from another remote that was asked for it too. Whether it is taken back here: JS does not heed a Cancel, and what it sends
    /// is dropped.
    pub(crate) fn came_elsewhere(&mut self, index: u64) -> bool {
        let cancelled = self.options.reconciles && self.download.came_elsewhere(index);
        if cancelled {
            self.out.push_back(Message::Cancel { index, bytes: 0, hash: false });
        }
        cancelled
    }
}
