//! What may be done with which feed on which session: decided here, and nowhere else.

use std::sync::Arc;

use multifeed_proto::{FeedKey, ManifestFields, SessionError};

use crate::ids::{FeedId, SessionId};
use crate::multifeed::Multifeed;
use crate::replication::peer_session::PeerSession;
use crate::replication::replicate::PeerEvent;
use crate::storage::Storage;

/// What may be done with a feed on a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::multifeed) struct May {
    /// The remote may hear of it, and is served.
    pub(in crate::multifeed) offer: bool,
    /// It is fetched from the remote.
    pub(in crate::multifeed) want: bool,
    /// It is fetched as soon as the disk has room.
    pub(in crate::multifeed) waits: bool,
    /// It would be fetched, if the remote had not brought as much as it may, or the store had not as many feeds.
    bounded: bool,
}

impl May {
    const NOTHING: Self = Self { offer: false, want: false, waits: false, bounded: false };

    /// Whether nothing of it is fetched, now or later.
    pub(in crate::multifeed) fn refuses_to_take(self) -> bool {
        !(self.want || self.waits)
    }

    /// Whether its channel must not be opened at all.
    pub(in crate::multifeed) fn refuses(self) -> bool {
        !self.offer && self.refuses_to_take()
    }
}

impl<S: Storage> Multifeed<S> {
    /// Says what may be done with a feed on a session, if it is here (`feed`) and if it is not. The code that offers, requests, opens, fetches or
    /// compares a feed asks this first.
    pub(in crate::multifeed) fn may(&self, id: SessionId, key: &FeedKey, feed: Option<FeedId>) -> May {
        let Some(session) = self.sessions.get(&id).filter(|_| !self.members.banned.contains(key)) else {
            return May::NOTHING;
        };
        let slot = feed.and_then(|feed| self.feeds.get(feed.0 as usize)).filter(|slot| slot.feed.is_settled());
        // A feed of other sets alone is not spoken of here before the remote does.
        let shown = session.single_feed().is_some()
            || slot.is_none()
            || feed.is_some_and(|feed| self.members.sets.contains(session.options.set, feed));
        if let Some(feed) = feed.filter(|_| !shown)
            && !self.may_be_brought(session.options.set, feed)
        {
            return May::NOTHING;
        }
        // Of a feed that is written here next to nothing comes.
        let full = self.cores.disk.is_full()
            && !slot.is_some_and(|slot| slot.feed.writable() && !slot.feed.is_writer_behind());
        let taken = !session.is_byte_limit_reached() && (slot.is_some() || !(session.is_full() || self.is_full()));
        // If a session is about one feed alone, the application named it.
        let Some(policy) = session.options.policy.as_ref().filter(|_| session.single_feed().is_none()) else {
            let waits = taken && full && session.is_live();
            return May { offer: shown, want: taken && !full, waits, bounded: !taken };
        };
        let Some(remote) = &session.remote else { return May::NOTHING };
        let named = |feed| slot?.feed.local_name().or_else(|| self.name_in(session.options.set, feed));
        let writer = feed.filter(|_| slot.is_some_and(|slot| slot.feed.writable())).and_then(named);
        let wanted = !session.declined.contains(key) && policy.wants(key, remote);
        May {
            offer: shown && policy.offers(key, writer, remote),
            want: wanted && taken && !full,
            waits: wanted && taken && full && session.is_live(),
            bounded: wanted && !taken,
        }
    }

    /// As [`may`](Self::may), of a feed that is here.
    pub(in crate::multifeed) fn may_feed(&self, id: SessionId, feed: FeedId) -> May {
        self.may(id, &self.slot(feed).feed.key(), Some(feed))
    }

    /// Takes out of a list of the remote's what is not wanted, and stops fetching what of that was fetched.
    pub(in crate::multifeed) fn choose(
        &mut self,
        id: SessionId,
        keys: &mut Vec<FeedKey>,
        fields: Option<&ManifestFields>,
    ) {
        let Some(session) = self.sessions.get(&id) else { return };
        if let (Some(policy), Some(remote)) = (&session.options.policy, &session.remote) {
            let mut chosen = keys.clone();
            policy.choose(&mut chosen, fields, remote);
            chosen.sort_unstable();
            for key in keys.iter() {
                self.decline(id, key, chosen.binary_search(key).is_err());
            }
            keys.retain(|key| chosen.binary_search(key).is_ok());
        }
        let chosen = keys.len();
        let mut bounded = May::NOTHING;
        let mut refused = Vec::new();
        keys.retain(|key| {
            let feed = self.members.catalog.find(key);
            let may = self.may(id, key, feed);
            bounded.bounded |= may.bounded && feed.is_none();
            refused.extend(may.refuses_to_take().then_some(*key));
            !may.refuses_to_take()
        });
        refused.into_iter().for_each(|key| self.note_refused(id, key));
        self.part_if_bounded(id, bounded);
        if keys.len() < chosen {
            // One that may bring nothing at all comes here first.
            self.mind_limits(id);
        }
    }

    /// A new feed is not taken: if only a bound is why, the two are not in sync.
    pub(in crate::multifeed) fn part_if_bounded(&mut self, id: SessionId, may: May) {
        if let Some(session) = self.sessions.get_mut(&id).filter(|_| may.bounded) {
            session.part();
        }
    }

    /// Notes whether a feed was left out of the list in which the remote last announced it: it may come here by others.
    fn decline(&mut self, id: SessionId, key: &FeedKey, declined: bool) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let changed = match declined {
            true => session.declined.insert(*key),
            false => session.declined.remove(key),
        };
        if changed && let Some(feed) = self.members.catalog.find(key).or_else(|| self.members.catalog.offered(key)) {
            self.apply(id, feed);
        }
    }

    /// Whether the store has as many feeds as remotes may bring.
    fn is_full(&self) -> bool {
        self.members.catalog.others() >= self.limits.feeds
    }

    /// Says whether to fetch and to serve a feed on a session: what the application said of the feed, or else of the session, as
    /// far as it may be.
    pub(in crate::multifeed) fn transfers(&self, id: SessionId, feed: FeedId) -> (Option<bool>, Option<bool>) {
        let may = self.may_feed(id, feed);
        let Some(session) = self.sessions.get(&id) else { return (Some(false), Some(false)) };
        let slot = self.slot(feed);
        let options = session.peer_options();
        let download = if may.want { slot.download.or(options.download) } else { Some(false) };
        let upload = if may.offer { slot.upload.or(options.upload) } else { Some(false) };
        (download, upload)
    }

    /// Whether a feed is not fetched on a session only as long as the disk is full.
    pub(in crate::multifeed) fn waits_for_disk(&self, id: SessionId, feed: FeedId) -> bool {
        let Some(session) = self.sessions.get(&id) else { return false };
        let wanted = self.slot(feed).download.or(session.peer_options().download);
        wanted.unwrap_or(!self.slot(feed).feed.writable()) && self.may_feed(id, feed).waits
    }

    /// Has a feed's open channel go on as it may now.
    pub(in crate::multifeed) fn apply(&mut self, id: SessionId, feed: FeedId) {
        let (download, upload) = self.transfers(id, feed);
        let waits = self.waits_for_disk(id, feed);
        self.with_peer(id, feed, |peer, work| {
            peer.set_waits_for_disk(waits);
            peer.go_on(download, upload.unwrap_or(true), work);
            Ok(())
        });
        self.wake(id);
    }

    /// Refuses a feed that both sides agreed on before: the remote hears of it, and nothing of the feed stays.
    pub(in crate::multifeed) fn refuse_feed(&mut self, id: SessionId, key: FeedKey) {
        self.note_left_out(id, key);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.refuse(key, self.now);
        }
    }

    /// A session brought a feed that was new here.
    pub(in crate::multifeed) fn count_feed(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.brought.add_feed();
            self.mind_limits(id);
        }
    }

    /// Fetches no more on a session that brought as much as it may, and reports that to the application, once for each bound.
    pub(in crate::multifeed) fn mind_limits(&mut self, id: SessionId) {
        let store_full = self.is_full();
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let full = (session.is_full() || store_full) && !std::mem::replace(&mut session.full_reported, true);
        let byte_limit_reached =
            session.is_byte_limit_reached() && !std::mem::replace(&mut session.byte_limit_reported, true);
        let limits = session.limits;
        if full {
            let (what, limit) =
                if session.is_full() { ("peer.feeds", limits.feeds) } else { ("feeds", self.limits.feeds) };
            let limit = u64::try_from(limit).unwrap_or(u64::MAX);
            session.events.push_back(PeerEvent::LimitReached(SessionError::Limit { what, limit }));
        }
        if byte_limit_reached {
            let error = SessionError::Limit { what: "peer.bytes", limit: limits.bytes };
            session.events.push_back(PeerEvent::LimitReached(error));
        }
        if full || byte_limit_reached {
            let brought = session.brought.clone();
            self.stop_fetching(id);
            // Its other sessions have brought as much.
            let same = |(&other, session): (&SessionId, &PeerSession)| {
                (other != id && Arc::ptr_eq(&session.brought, &brought)).then_some(other)
            };
            for other in self.sessions.iter().filter_map(same).collect::<Vec<_>>() {
                self.mind_limits(other);
                self.end_if_through(other);
                self.wake(other);
            }
        }
    }

    /// Fetches no more of what may not be fetched; what was asked for is not taken, and others are asked for it.
    pub(in crate::multifeed) fn stop_fetching(&mut self, id: SessionId) {
        let store_full = self.is_full();
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let feeds: Vec<FeedId> = session.peers.keys().copied().collect();
        // If the disk is full and the session stays, they wait until there is room.
        let waits = self.cores.disk.is_full()
            && session.is_live()
            && !(session.is_byte_limit_reached() || session.is_full() || store_full);
        // What is here is served all the same.
        let refused = session.offers.take_waiting(|key| !waits && self.members.catalog.find(key).is_none());
        if !refused.is_empty() {
            session.part();
        }
        refused.into_iter().for_each(|key| self.refuse_feed(id, key));
        for feed in feeds {
            if self.may_feed(id, feed).want {
                continue;
            }
            if let Some(session) = self.sessions.get_mut(&id).filter(|_| !waits) {
                session.note_cut(feed);
            }
            let mut released = false;
            self.with_peer(id, feed, |peer, work| {
                released = peer.give_up(work);
                Ok(())
            });
            self.apply(id, feed);
            if released {
                self.retry_requests(feed, Some(id));
            }
        }
        self.hush_offers(id);
    }
}
