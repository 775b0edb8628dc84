//! What a session offers: everything, or, where the remote reconciles, what turned out to differ and what is new since.

use multifeed_proto::{FeedKey, RemoteHandshake};

use super::{FeedId, Multifeed, PeerId};
use crate::reconcile::{EXTENSION, Reconciler, is_told_by};
use crate::storage::Storage;

impl<S: Storage> Multifeed<S> {
    /// The remote is ready: finds out what differs where it can do so too, and else offers everything.
    pub(super) fn begin_exchange(&mut self, id: PeerId, remote: &RemoteHandshake) {
        // What is staged now would be news later, and it is not.
        self.commit(self.now);
        let Some(peering) = self.peerings.get_mut(&id) else { return };
        peering.ready(remote);
        let hash = peering.handshake_hash.take();
        match hash.filter(|_| is_told_by(remote) && peering.options.reconciles()) {
            Some(hash) => self.begin_reconciling(id, hash),
            None => self.offer_rest(id),
        }
    }

    /// A message of the remote's in the reconciliation.
    pub(super) fn reconcile(&mut self, id: PeerId, message: &[u8]) {
        let Some(peering) = self.peerings.get_mut(&id).filter(|peering| peering.is_running()) else { return };
        match peering.in_step.handle(message) {
            Ok(answer) => answer.into_iter().for_each(|answer| peering.send_extension(EXTENSION, answer)),
            Err(error) => return peering.abort(error),
        }
        if peering.in_step.conclude() {
            let count = peering.in_step.count();
            (peering.totals.feeds, peering.totals.in_step) = (count, count);
            self.offer_rest(id);
        }
    }

    /// The remote lists its feeds. One that does so before it said what differs does not reconcile after all.
    pub(super) fn give_up_reconciling(&mut self, id: PeerId) {
        if let Some(peering) = self.peerings.get_mut(&id)
            && peering.in_step.is_running()
        {
            peering.in_step.abandon();
            self.offer_rest(id);
        }
    }

    /// A feed is not as it was: sessions whose remote held it alike are offered it by the next commit, as if it were new; one that is ending
    /// is not in sync any more. One that is not live was about what there was when it began.
    pub(super) fn leave_step(&mut self, feed: FeedId) {
        for peering in self.peerings.values_mut().filter(|peering| peering.lists() || peering.is_ending_live()) {
            if peering.in_step.is_running() {
                peering.in_step.remove(feed);
            } else if peering.is_live() && peering.fall_out_of_step(feed) {
                peering.known.remove(u64::from(feed.0));
                self.unannounced.push(feed);
            }
        }
    }

    /// Something is new in a feed and is not announced before it is synced: until then sessions whose remote held it alike are not in sync.
    pub(super) fn hold_back_news(&mut self, feed: FeedId) {
        for peering in self.peerings.values_mut().filter(|peering| peering.is_live()) {
            peering.in_step.hold_back(feed);
        }
    }

    /// The feeds that both sides of a session hold alike, where the application was not told of them yet.
    pub(super) fn tell_in_step(&mut self, id: PeerId) -> Vec<FeedKey> {
        let Some(peering) = self.peerings.get_mut(&id) else { return Vec::new() };
        if std::mem::replace(&mut peering.in_step_told, true) {
            return Vec::new();
        }
        let in_step = self.catalog.feeds().filter(|&feed| peering.in_step.contains(feed));
        in_step.map(|feed| self.feeds[feed.0 as usize].feed.key()).collect()
    }

    fn begin_reconciling(&mut self, id: PeerId, handshake_hash: [u8; 64]) {
        self.sync_all_before_serving();
        // What is not served to anyone is offered as ever, and not compared; what is not offered to this remote is neither.
        let offered = |feed: FeedId| self.slot(feed).upload != Some(false) && self.may_feed(id, feed).offer;
        let compared = self.feeds().filter(|&feed| offered(feed));
        let state = |feed: FeedId| {
            let slot = &self.slot(feed).feed;
            (feed, slot.discovery_key(), slot.served_len(), slot.served_roots(), slot.served_runs())
        };
        let machine = Reconciler::new(handshake_hash, compared.map(state), &self.limits);
        if let Some(peering) = self.peerings.get_mut(&id) {
            let greeting = peering.in_step.begin(machine);
            peering.send_extension(EXTENSION, greeting);
        }
    }

    /// Offers what the remote does not know to be here. An empty offer goes too: the remote waits for it.
    fn offer_rest(&mut self, id: PeerId) {
        let offered: Vec<FeedId> = self.catalog.feeds().filter(|&feed| self.may_feed(id, feed).offer).collect();
        let Some(peering) = self.peerings.get_mut(&id) else { return };
        let mut keys = Vec::new();
        for feed in offered {
            peering.known.insert(u64::from(feed.0));
            let key = self.feeds[feed.0 as usize].feed.key();
            if !peering.in_step.contains(feed) {
                peering.not_taken.offered(feed);
                keys.push(key);
            }
        }
        peering.offer(keys);
        self.wake(id);
    }
}
