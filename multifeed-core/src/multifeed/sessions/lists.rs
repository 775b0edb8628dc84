//! What a session offers: everything, or, if the remote reconciles, what turned out to differ and what is new since.

use multifeed_proto::{FeedKey, HandshakeHash, RemoteHandshake};

use crate::ids::{FeedId, SessionId};
use crate::log::log;
use crate::multifeed::Multifeed;
use crate::replication::reconcile::Reconciler;
use crate::storage::Storage;

impl<S: Storage> Multifeed<S> {
    /// The remote is ready: finds out what differs if it can do so too, and else offers everything.
    pub(in crate::multifeed) fn begin_exchange(&mut self, id: SessionId, remote: &RemoteHandshake) {
        // What is staged now would be news later, and it is not.
        self.commit(self.now);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.ready(remote);
        let hash = session.handshake_hash.take();
        self.report_unopened(id);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        match hash.filter(|_| session.reconcile_scope().is_some() && session.options.reconciles()) {
            Some(hash) => self.begin_reconciling(id, hash),
            None => self.offer_rest(id),
        }
    }

    /// A message of the remote's in the reconciliation.
    pub(in crate::multifeed) fn reconcile(&mut self, id: SessionId, message: &[u8]) {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| session.is_running()) else { return };
        match session.matched.handle(message) {
            Ok(answer) => answer.into_iter().for_each(|answer| session.send_reconcile(answer)),
            Err(error) => return session.abort(error),
        }
        if session.matched.conclude() {
            let count = session.matched.count();
            (session.totals.feeds, session.totals.in_step) = (count, count);
            log!(DEBUG, "session", "compared with the remote", alike = ?count);
            self.offer_rest(id);
        }
    }

    /// The remote lists its feeds. One that does so before it said what differs does not reconcile after all.
    pub(in crate::multifeed) fn give_up_reconciling(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id)
            && session.matched.is_running()
        {
            session.matched.abandon();
            self.offer_rest(id);
        }
    }

    /// A feed is not as it was. The next commit offers it to sessions whose remote held it alike, as if it were new. A session that is
    /// ending is not in sync any more. One that is not live was about what there was when it began.
    pub(in crate::multifeed) fn unmatch(&mut self, feed: FeedId) {
        for session in
            self.sessions.values_mut().filter(|session| session.exchanges_lists() || session.is_ending_live())
        {
            if session.matched.is_running() {
                session.matched.remove(feed);
            } else if session.is_live() && session.unmatch(feed) {
                session.known.remove(u64::from(feed.0));
                self.uncommitted.unannounced.push(feed);
            }
        }
    }

    /// Something is new in a feed and is not announced before it is fsynced: until then sessions whose remote held it alike are not in sync.
    pub(in crate::multifeed) fn hold_back_news(&mut self, feed: FeedId) {
        for session in self.sessions.values_mut().filter(|session| session.is_live()) {
            session.matched.hold_back(feed);
        }
    }

    /// Returns the feeds that both sides of a session hold alike, if they were not reported to the application yet.
    pub(in crate::multifeed) fn report_matched(&mut self, id: SessionId) -> Vec<FeedKey> {
        let Some(session) = self.sessions.get_mut(&id) else { return Vec::new() };
        if std::mem::replace(&mut session.matched_reported, true) {
            return Vec::new();
        }
        let in_step = self.members.catalog.feeds().filter(|&feed| session.matched.contains(feed));
        in_step.map(|feed| self.feeds[feed.0 as usize].feed.key()).collect()
    }

    fn begin_reconciling(&mut self, id: SessionId, handshake_hash: HandshakeHash) {
        self.sync_some_before_serving();
        // What is not served to anyone is offered as ever, and not compared; what is not offered to this remote is neither.
        let offered = |feed: FeedId| self.slot(feed).upload != Some(false) && self.may_feed(id, feed).offer;
        // One whose signature is lost needs a channel, to ask for that.
        let is_signed = |feed: &FeedId| !self.slot(*feed).feed.lacks_signature();
        let feeds = self.feeds_in(self.set_of(id).unwrap_or_default()).filter(is_signed);
        let compared = feeds.filter(|&feed| offered(feed));
        let state = |feed: FeedId| {
            let slot = &self.slot(feed).feed;
            (feed, slot.discovery_key(), slot.served_len(), slot.served_roots(), slot.served_runs())
        };
        let machine = Reconciler::new(*handshake_hash.as_bytes(), compared.map(state), &self.limits);
        if let Some(session) = self.sessions.get_mut(&id) {
            let greeting = session.matched.begin(machine);
            session.send_reconcile(greeting);
        }
    }

    /// Offers what the remote does not know to be here. An empty offer goes too: the remote waits for it.
    fn offer_rest(&mut self, id: SessionId) {
        let set = self.set_of(id).unwrap_or_default();
        let offered: Vec<FeedId> = self.feeds_in(set).filter(|&feed| self.may_feed(id, feed).offer).collect();
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let mut keys = Vec::new();
        for feed in offered {
            session.known.insert(u64::from(feed.0));
            let key = self.feeds[feed.0 as usize].feed.key();
            if !session.matched.contains(feed) {
                session.not_taken.offered(feed);
                keys.push(key);
            }
        }
        session.offer(keys);
        self.wake(id);
    }
}
