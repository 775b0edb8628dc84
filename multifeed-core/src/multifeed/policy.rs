//! What may be done with which feed on which session: decided here, and nowhere else.

use std::sync::Arc;

use multifeed_proto::{FeedKey, ManifestFields, SessionError};

use super::{FeedId, Multifeed, PeerId};
use crate::peering::Peering;
use crate::replicate::PeerEvent;
use crate::storage::Storage;

/// What may be done with a feed on a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct May {
    /// The remote may hear of it, and is served.
    pub(super) offer: bool,
    /// It is fetched from the remote.
    pub(super) want: bool,
    /// It is fetched as soon as the disk has room.
    pub(super) waits: bool,
}

impl May {
    const NOTHING: Self = Self { offer: false, want: false, waits: false };

    /// Whether nothing of it is fetched, now or later.
    pub(super) fn refuses_to_take(self) -> bool {
        !(self.want || self.waits)
    }

    /// Whether its channel is not to be opened at all.
    pub(super) fn refuses(self) -> bool {
        self == Self::NOTHING
    }
}

impl<S: Storage> Multifeed<S> {
    /// What may be done with a feed on a session, where it is here (`feed`) and where it is not. Whoever offers, requests, opens, fetches or
    /// compares a feed asks this first.
    pub(super) fn may(&self, id: PeerId, key: &FeedKey, feed: Option<FeedId>) -> May {
        let Some(peering) = self.peerings.get(&id).filter(|_| !self.blocked.contains(key)) else { return May::NOTHING };
        let slot = feed.and_then(|feed| self.feeds.get(feed.0 as usize)).filter(|slot| slot.feed.is_settled());
        // Of a feed that is written here next to nothing comes.
        let full = self.disk.is_full() && !slot.is_some_and(|slot| slot.feed.writable() && !slot.feed.is_outgrown());
        let taken = !peering.is_sated() && (slot.is_some() || !(peering.is_full() || self.is_full()));
        // Where a session is about one feed alone, the application named it.
        let Some(policy) = peering.options.policy.as_ref().filter(|_| peering.lone().is_none()) else {
            return May { offer: true, want: taken && !full, waits: taken && full && peering.is_live() };
        };
        let Some(remote) = &peering.remote else { return May::NOTHING };
        let writer = slot.and_then(|slot| slot.feed.local_name().filter(|_| slot.feed.writable()));
        let wanted = taken && !peering.declined.contains(key) && policy.wants(key, remote);
        May {
            offer: policy.offers(key, writer, remote),
            want: wanted && !full,
            waits: wanted && full && peering.is_live(),
        }
    }

    /// As [`may`](Self::may), of a feed that is here.
    pub(super) fn may_feed(&self, id: PeerId, feed: FeedId) -> May {
        self.may(id, &self.slot(feed).feed.key(), Some(feed))
    }

    /// Takes out of a list of the remote's what is not wanted, and stops fetching what of that was fetched.
    pub(super) fn choose(&mut self, id: PeerId, keys: &mut Vec<FeedKey>, fields: Option<&ManifestFields>) {
        let Some(peering) = self.peerings.get(&id) else { return };
        if let (Some(policy), Some(remote)) = (&peering.options.policy, &peering.remote) {
            let mut chosen = keys.clone();
            policy.choose(&mut chosen, fields, remote);
            chosen.sort_unstable();
            for key in keys.iter() {
                self.decline(id, key, chosen.binary_search(key).is_err());
            }
            keys.retain(|key| chosen.binary_search(key).is_ok());
        }
        let chosen = keys.len();
        keys.retain(|key| {
            let may = self.may(id, key, self.catalog.find(key));
            may.want || may.waits
        });
        if keys.len() < chosen {
            // One that may bring nothing at all comes here first.
            self.mind_limits(id);
        }
    }

    /// Notes whether a feed was left out of the list that the remote told it in last: it may come here by others.
    fn decline(&mut self, id: PeerId, key: &FeedKey, declined: bool) {
        let Some(peering) = self.peerings.get_mut(&id) else { return };
        let changed = match declined {
            true => peering.declined.insert(*key),
            false => peering.declined.remove(key),
        };
        if changed && let Some(feed) = self.catalog.find(key).or_else(|| self.catalog.offered(key)) {
            self.apply(id, feed);
        }
    }

    /// Whether the store has as many feeds as remotes may bring.
    fn is_full(&self) -> bool {
        self.catalog.others() >= self.limits.feeds
    }

    /// Whether a feed is to be fetched and served on a session: what the application said of the feed, or else of the session, as
    /// far as it may be.
    pub(super) fn transfers(&self, id: PeerId, feed: FeedId) -> (Option<bool>, Option<bool>) {
        let may = self.may_feed(id, feed);
        let Some(peering) = self.peerings.get(&id) else { return (Some(false), Some(false)) };
        let slot = self.slot(feed);
        let options = peering.peer_options();
        let download = if may.want { slot.download.or(options.download) } else { Some(false) };
        let upload = if may.offer { slot.upload.or(options.upload) } else { Some(false) };
        (download, upload)
    }

    /// Has a feed's open channel go on as it may now.
    pub(super) fn apply(&mut self, id: PeerId, feed: FeedId) {
        let (download, upload) = self.transfers(id, feed);
        let download = download.unwrap_or(!self.slot(feed).feed.writable());
        self.with_peer(id, feed, |peer, work| {
            peer.set_transfer(Some(download), Some(upload.unwrap_or(true)), work);
            Ok(())
        });
        self.wake(id);
    }

    /// A feed that both sides agreed on before is not to be opened after all: the remote is told, and nothing of it stays.
    pub(super) fn refuse_feed(&mut self, id: PeerId, key: FeedKey) {
        if let Some(peering) = self.peerings.get_mut(&id) {
            peering.refuse(key, self.now);
        }
    }

    /// A session brought a feed that was new here.
    pub(super) fn count_feed(&mut self, id: PeerId) {
        if let Some(peering) = self.peerings.get_mut(&id) {
            peering.brought.add_feed();
            self.mind_limits(id);
        }
    }

    /// Where a session brought as much as it may, no more is fetched on it, and the application is told so, once for each bound.
    pub(super) fn mind_limits(&mut self, id: PeerId) {
        let store_full = self.is_full();
        let Some(peering) = self.peerings.get_mut(&id) else { return };
        let full = (peering.is_full() || store_full) && !std::mem::replace(&mut peering.told_full, true);
        let sated = peering.is_sated() && !std::mem::replace(&mut peering.told_sated, true);
        let limits = peering.limits;
        if full {
            let (what, limit) =
                if peering.is_full() { ("peer.feeds", limits.feeds) } else { ("feeds", self.limits.feeds) };
            let limit = u64::try_from(limit).unwrap_or(u64::MAX);
            peering.events.push_back(PeerEvent::LimitReached(SessionError::Limit { what, limit }));
        }
        if sated {
            let error = SessionError::Limit { what: "peer.bytes", limit: limits.bytes };
            peering.events.push_back(PeerEvent::LimitReached(error));
        }
        if full || sated {
            let brought = peering.brought.clone();
            self.stop_fetching(id);
            // Its other sessions have brought as much.
            let same = |(&other, peering): (&PeerId, &Peering)| {
                (other != id && Arc::ptr_eq(&peering.brought, &brought)).then_some(other)
            };
            for other in self.peerings.iter().filter_map(same).collect::<Vec<_>>() {
                self.mind_limits(other);
                self.settle(other);
                self.wake(other);
            }
        }
    }

    /// Fetches no more of what may not be fetched; what was asked for is not taken, and others are asked for it.
    pub(super) fn stop_fetching(&mut self, id: PeerId) {
        let store_full = self.is_full();
        let Some(peering) = self.peerings.get_mut(&id) else { return };
        let feeds: Vec<FeedId> = peering.peers.keys().copied().collect();
        // Where the disk is full and the session stays, they wait until there is room.
        let waits =
            self.disk.is_full() && peering.is_live() && !(peering.is_sated() || peering.is_full() || store_full);
        // What is here is served all the same.
        for key in peering.offers.take_waiting(|key| !waits && self.catalog.find(key).is_none()) {
            peering.refuse(key, self.now);
        }
        for feed in feeds {
            if self.may_feed(id, feed).want {
                continue;
            }
            let mut released = false;
            self.with_peer(id, feed, |peer, work| {
                released = peer.give_up(work);
                Ok(())
            });
            self.apply(id, feed);
            if released {
                self.rewind(feed, Some(id));
            }
        }
        self.hush_offers(id);
    }
}
