//! A policy answers otherwise than before: running sessions are brought to what it says now.

use std::collections::BTreeSet;

use multifeed_proto::FeedKey;

use crate::ids::{FeedId, SessionId, SetId};
use crate::multifeed::Multifeed;
use crate::replication::peer_session::PeerSession;
use crate::storage::Storage;

impl<S: Storage> Multifeed<S> {
    /// Asks the policies of a set's running sessions again, and acts on the answers:
    ///
    /// - a feed that is refused now leaves the session, and its channel closes;
    /// - one that is offered now, and was not, is offered;
    /// - one that is wanted now is requested, if the remote had offered it, and fetched;
    /// - one whose direction changed is only served from now on, only fetched, or both;
    /// - [limits](crate::Policy::limits) that have grown let fetching go on, and those that a session is past now stop it;
    /// - one that was [removed](Self::remove) while the session ran, and that the remote had offered, is requested as by a new session.
    ///
    /// JS opens a feed's channel once on a stream: what leaves a session with it comes back with the next one.
    ///
    /// [`Policy::choose`](crate::Policy::choose) is not asked again: what the remote said beside its list is gone. What it left out is left out until the
    /// remote names it again. Blocks that came stay. A session of one feed alone, or that is ending, goes on as it is.
    pub fn policy_changed(&mut self, set: SetId) {
        let concerned = self
            .sessions
            .iter()
            .filter(|(_, session)| session.options.set == set && session.exchanges_lists() && session.remote.is_some());
        let concerned: Vec<SessionId> = concerned.map(|(&id, _)| id).collect();
        let mut offered = BTreeSet::new();
        for id in concerned {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.ask_for_limits(&self.limits);
            }
            for feed in self.feeds_in(set).collect::<Vec<_>>() {
                let may = self.may_feed(id, feed);
                let is_open = self.sessions.get(&id).is_some_and(|session| session.peers.contains_key(&feed));
                if is_open && may.refuses() {
                    self.leave_refused(id, feed);
                } else if is_open {
                    self.apply(id, feed);
                } else if may.offer
                    && self.sessions.get(&id).is_some_and(|session| !session.known.get(u64::from(feed.0)))
                {
                    offered.insert(feed);
                }
            }
            self.leave_refused_offers(id);
            self.request_again(id);
            self.mind_limits(id);
            self.ask_for_offers(id);
            self.end_if_through(id);
            self.wake(id);
        }
        self.uncommitted.unannounced.extend(offered);
        self.commit(self.now);
    }

    /// A feed leaves a session as the policy refuses it. It may come back.
    fn leave_refused(&mut self, id: SessionId, feed: FeedId) {
        let key = self.slot(feed).feed.key();
        self.renounce(id, feed);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.not_taken.forget(feed);
            session.unmatch(feed);
            if session.opens_again() {
                session.known.remove(u64::from(feed.0));
                if session.offered_there.get(u64::from(feed.0)) {
                    session.refused.insert(key);
                }
            }
        }
    }

    /// Feeds that were only offered, and that the policy refuses now, are not asked for any more.
    fn leave_refused_offers(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        let asked: Vec<FeedId> = session.offers.asked().collect();
        for feed in asked {
            if self.may_feed(id, feed).refuses_to_take() {
                let key = self.slot(feed).feed.key();
                self.renounce(id, feed);
                self.note_left_out(id, key);
            }
        }
        let Some(session) = self.sessions.get(&id) else { return };
        for key in session.offers.without_machine() {
            if self.may(id, &key, self.members.catalog.find(&key)).refuses() {
                self.refuse_feed(id, key);
            }
        }
    }

    /// Requests what the remote had offered, and was refused, and is wanted now.
    fn request_again(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        let wanted = |key: &&FeedKey| !self.may(id, key, self.members.catalog.find(key)).refuses_to_take();
        let keys: Vec<FeedKey> = session.refused.iter().filter(wanted).copied().collect();
        if !keys.is_empty() {
            self.request_offered(id, keys);
        }
    }

    /// A feed that is not here is banned no more: requests it of those who offered it.
    pub(in crate::multifeed) fn request_unbanned(&mut self, key: FeedKey) {
        let had = |session: &PeerSession| session.exchanges_lists() && session.refused.contains(&key);
        let concerned: Vec<SessionId> =
            self.sessions.iter().filter(|(_, session)| had(session)).map(|(&id, _)| id).collect();
        for id in concerned {
            if !self.may(id, &key, None).refuses_to_take() {
                self.request_offered(id, vec![key]);
                self.wake(id);
            }
        }
    }

    /// A feed leaves the sessions of a set, or all: those whose remotes offered it can request it again.
    pub(in crate::multifeed) fn note_leaving(&mut self, set: Option<SetId>, id: FeedId) {
        let (key, most) = (self.slot(id).feed.key(), self.limits.feeds_offered);
        for session in self.sessions.values_mut().filter(|session| set.is_none_or(|set| session.options.set == set)) {
            if session.opens_again() && session.offered_there.get(u64::from(id.0)) && session.refused.len() < most {
                session.refused.insert(key);
            }
        }
    }

    /// As [`note_refused`](Self::note_refused), of a feed that was requested: a channel of it is open, or was.
    pub(in crate::multifeed) fn note_left_out(&mut self, id: SessionId, key: FeedKey) {
        if self.sessions.get(&id).is_some_and(|session| session.opens_again()) {
            self.note_refused(id, key);
        }
    }

    /// Remembers a feed of the remote's that is not requested, so that it can be if that changes.
    pub(in crate::multifeed) fn note_refused(&mut self, id: SessionId, key: FeedKey) {
        let most = self.limits.feeds_offered;
        if let Some(session) = self.sessions.get_mut(&id)
            && (session.options.policy.is_some() || self.members.banned.contains(&key))
            && session.refused.len() < most
        {
            session.refused.insert(key);
        }
    }
}
