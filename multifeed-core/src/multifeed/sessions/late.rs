//! Time: remotes that do not answer, and sessions on which nothing moves.

use std::time::Duration;

use crate::ids::{FeedId, SessionId};
use crate::multifeed::{FeedSlot, Multifeed};
use crate::replication::peer::FeedChannel;
use crate::storage::Storage;

/// How often overdue answers are looked for.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// How long others wait for what one remote alone was asked for, in [`Limits::request_timeout`]s, while that remote answers what it was asked
/// of other feeds.
const LONGEST_TURN: u32 = 4;

impl<S: Storage> Multifeed<S> {
    /// Fsyncs what is due, and ends what is overdue. Call it when [`poll_timeout`](Self::poll_timeout) says so; any other time does no harm.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.now = self.now.max(now);
        self.give_up_late();
        self.sync_due();
        self.look_at_disk();
        self.step();
        if self.next_check.is_none_or(|at| now < at) {
            return;
        }
        self.next_check = None;
        let patience = self.limits.request_timeout;
        let mut overdue = Vec::new();
        for (&id, session) in self.sessions.iter() {
            let now = session.transfer.time(now);
            let due = |peer: &FeedChannel| match peer.waits_since() {
                Some(since) => session.transfer.is_overdue(since, now, patience),
                None => peer.is_silent(now),
            };
            let relayed = |peer: &FeedChannel| peer.is_relay_due(now);
            let holds_up = |feed_id: FeedId, peer: &FeedChannel| {
                let FeedSlot { feed, subscribers, .. } = self.slot(feed_id);
                let since = peer.holds_up_since(feed).filter(|_| subscribers.len() > 1);
                since.is_some_and(|since| {
                    (now >= since.saturating_add(patience.saturating_mul(LONGEST_TURN))
                        && !session.transfer.is_arriving(feed_id))
                        || session.transfer.is_overdue(since, now, patience)
                })
            };
            let is_overdue = |feed: FeedId, peer: &FeedChannel| relayed(peer) || due(peer) || holds_up(feed, peer);
            overdue.extend(
                session.peers.iter().filter(|(feed, peer)| is_overdue(**feed, peer)).map(|(&feed, _)| (id, feed)),
            );
        }
        for (id, feed) in overdue {
            if self.miss_lone(id) {
                continue;
            }
            self.expire(id, feed);
        }
        let spare = self.sessions.iter().flat_map(|(&id, session)| {
            session.peers.iter().filter(|(_, peer)| peer.has_spare_room()).map(move |(&feed, _)| (id, feed))
        });
        for (id, feed) in spare.collect::<Vec<_>>() {
            self.ask_too(id, feed);
        }
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.give_turns(id);
            self.end_late(id);
            self.end_idle(id);
            self.hush_offers(id);
            if let Some(session) = self.sessions.get_mut(&id) {
                session.ahead.look(session.transfer.time(now));
            }
            if let Some(session) = self.sessions.get_mut(&id)
                && let Some(since) = session.transfer.time(now).checked_sub(patience)
            {
                session.close_unopened(since);
                session.pass_over_unopened(since);
                self.end_if_through(id);
            }
            self.ask_for_offers(id);
            self.wake(id);
        }
        if self.sessions.values().any(|session| session.awaits_relays()) {
            self.check_relays();
        }
        self.look_at_the_holding();
        self.look_at_the_silent();
        self.traffic.forget_idle(now);
        self.give_up_unavailable();
    }

    /// Returns when to call [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&mut self) -> Option<Duration> {
        if self.sessions.is_empty() {
            self.next_check = None;
        } else if self.next_check.is_none() {
            self.next_check = Some(self.now + CHECK_EVERY);
        }
        let step = self.steps.are_left().then_some(self.now);
        [self.next_check, self.waits.next_deadline(), self.cores.next_sync, step].into_iter().flatten().min()
    }

    /// Ends a session in which nothing is left to do for us, and whose remote does not say that it is done.
    fn end_idle(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| session.may_hang()) else { return };
        let feeds = &self.feeds;
        let idle = session
            .peers
            .iter_mut()
            .all(|(feed, peer)| feeds.get(feed.0 as usize).is_some_and(|slot| peer.is_idle(&slot.feed, &slot.wants)));
        if session.has_idled(idle, session.transfer.time(self.now), self.limits.idle_end) {
            session.leave();
        }
    }

    /// Stops a session's clock for so long: the remote was not read, or what it was asked for was not sent yet, so that it could not answer.
    pub fn excuse(&mut self, id: SessionId, time: Duration) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.transfer.excuse(time);
        }
    }

    /// Stops the clocks of all sessions for so long: the store was behind with what had come.
    pub fn excuse_all(&mut self, time: Duration) {
        self.sessions.values_mut().for_each(|session| session.transfer.excuse(time));
    }

    /// A remote did not answer in time what it was asked of a feed: others are asked.
    pub(super) fn expire(&mut self, id: SessionId, feed: FeedId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let now = session.transfer.time(self.now);
        let awaited = session.peers.get(&feed).is_some_and(|peer| peer.awaits_block(now));
        let silent = awaited && session.note_silence(now, self.limits.request_timeout);
        let mut released = false;
        self.with_peer(id, feed, |peer, work| {
            released = peer.expire(silent, work);
            Ok(())
        });
        if released {
            self.retry_requests(feed, Some(id));
        }
        self.wake(id);
    }
}
