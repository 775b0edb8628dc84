//! Feeds that remotes offer: asked for without a trace in the store, and given a folder with the first block that is proven.

use multifeed_proto::{FeedKey, ManifestFields, Message, Origin, Token};

use crate::error::StoreError;
use crate::feed::Feed;
use crate::ids::{FeedId, SessionId};
use crate::log::log;
use crate::multifeed::disk::FEED_BYTES;
use crate::multifeed::{FeedSlot, Multifeed, feed_name};
use crate::replication::peer::{FeedChannel, PeerFault};
use crate::replication::peer_session::Channel;
use crate::replication::replicate::PeerEvent;
use crate::replication::wants::{Want, WantOptions};
use crate::storage::Storage;

/// Feeds that are opened, or fsynced, in one go so that their channels can be opened.
const MOST_FROM_DISK: usize = 16;

impl<S: Storage> Multifeed<S> {
    /// The remote offers feeds: those that may be taken are requested.
    pub(in crate::multifeed) fn manifest(
        &mut self,
        id: SessionId,
        mut keys: Vec<FeedKey>,
        fields: Option<&ManifestFields>,
    ) {
        log!(DEBUG, "session", "the remote offers feeds", feeds = ?keys.len());
        self.give_up_reconciling(id);
        self.choose(id, &mut keys, fields);
        self.request_offered(id, keys);
    }

    /// Requests feeds of the remote's that may be taken: those that are here, and as many others as there may be.
    pub(in crate::multifeed) fn request_offered(&mut self, id: SessionId, mut keys: Vec<FeedKey>) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let (catalog, limit) = (&self.members.catalog, self.limits.feeds_offered);
        let mut refused = 0;
        keys.retain(|key| {
            session.refused.remove(key);
            if let Some(feed) = catalog.find(key) {
                session.known.insert(u64::from(feed.0));
                session.offered_there.insert(u64::from(feed.0));
                session.not_taken.asked(feed);
                return true;
            }
            let taken = session.offers.has(key) || session.offers.take(limit);
            refused += u64::from(!taken);
            taken
        });
        let relays = session.note_relays(session.transfer.time(self.now), self.limits.relay_wait);
        if refused > 0 {
            session.events.push_back(PeerEvent::OffersRefused { feeds: refused, limit });
        }
        session.request(keys);
        if relays {
            self.check_relays();
        }
    }

    /// Both sides agreed on feeds.
    pub(in crate::multifeed) fn replicate(&mut self, id: SessionId, mut keys: Vec<FeedKey>, origin: Origin) {
        match origin {
            Origin::Local => log!(DEBUG, "session", "the remote requested feeds", feeds = ?keys.len()),
            Origin::Remote => log!(DEBUG, "session", "the remote answered a request", feeds = ?keys.len()),
        }
        for &key in &keys {
            if let Some(feed) = self.members.catalog.find(&key)
                && let Some(session) = self.sessions.get_mut(&id)
            {
                session.not_taken.asked(feed);
            }
            match self.members.catalog.find(&key) {
                // It was banned since it was offered or requested.
                _ if self.members.banned.contains(&key) => self.refuse_feed(id, key),
                // What they requested was taken out of the set since it was offered.
                Some(feed) if origin == Origin::Local && !self.is_in(self.set_of(id).unwrap_or_default(), feed) => {
                    self.refuse_feed(id, key)
                }
                Some(feed) => self.take_turn(id, key, Some(feed)),
                // What they requested was here when it was offered to them.
                None if origin == Origin::Local => self.refuse_feed(id, key),
                None => match self.may(id, &key, None) {
                    may if may.refuses_to_take() => {
                        self.part_if_bounded(id, may);
                        self.refuse_feed(id, key);
                    }
                    _ => self.take_turn(id, key, self.members.catalog.offered(&key)),
                },
            }
        }
        self.ask_for_offers(id);
        let in_step = if origin == Origin::Remote { self.report_matched(id) } else { Vec::new() };
        let Some(session) = self.sessions.get_mut(&id) else { return };
        match origin {
            Origin::Local => session.offer_answered(),
            Origin::Remote => {
                session.request_answered(&keys);
                if !in_step.is_empty() {
                    keys.extend(in_step);
                    keys.sort_unstable();
                    keys.dedup();
                }
                session.events.push_back(PeerEvent::RemoteFeeds { keys });
            }
        }
        session.end_if_through();
    }

    /// Both sides agreed on a feed: its channel is opened as soon as it is its turn.
    fn take_turn(&mut self, id: SessionId, key: FeedKey, feed: Option<FeedId>) {
        if let Some(session) = self.sessions.get_mut(&id).filter(|session| session.is_running())
            && !feed.is_some_and(|feed| session.peers.contains_key(&feed))
            && !session.offers.has(&key)
        {
            session.offers.wait(key);
        }
    }

    /// Opens a feed's channel on a session.
    pub(in crate::multifeed) fn replicate_feed(&mut self, id: SessionId, feed: FeedId) {
        self.include_by(id, feed);
        self.sync_before_serving(feed);
        let Some(session) = self.sessions.get(&id) else { return };
        if session.peers.contains_key(&feed) || !session.is_running() {
            return;
        }
        if self.may_feed(id, feed).refuses() {
            return self.refuse_feed(id, self.slot(feed).feed.key());
        }
        let (download, upload) = self.transfers(id, feed);
        let waits = self.waits_for_disk(id, feed);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let slot = &mut self.feeds[feed.0 as usize];
        let now = session.transfer.time(self.now);
        let mut options = session.peer_options();
        (options.download, options.upload) = (download, upload);
        slot.subscribers.push(id);
        log!(DEBUG, "feed", in session.span, "opens the channel",
            key = ?slot.feed.key(), len = ?slot.feed.len(), held = ?slot.feed.downloaded());
        let mut peer = FeedChannel::new(&slot.feed, options, now);
        peer.set_waits_for_disk(waits);
        let quiet = session.open(feed, slot.feed.key(), peer);
        self.speak(id, feed);
        let Some(quiet) = quiet else { return };
        self.with_peer(id, feed, |peer, work| peer.take_over(&quiet, work));
    }

    /// Opens the channels of a session whose turn it is, of feeds that are here, and of offers, which are asked for.
    pub(in crate::multifeed) fn ask_for_offers(&mut self, id: SessionId) {
        if self.steps.openings.contains(&id) {
            return;
        }
        let mut left = MOST_FROM_DISK;
        while let Some(session) = self.sessions.get_mut(&id).filter(|session| session.is_running())
            && left > 0
            && let Some(key) = session.next_turn(&self.limits)
        {
            let sparse = session.is_sparse();
            if let Some(feed) = self.members.catalog.find(&key) {
                left -= usize::from(self.slot(feed).feed.is_held_back());
                self.replicate_feed(id, feed);
                continue;
            }
            if self.unopened_folder(&key).is_some() {
                self.leave_unopened(id, key, None);
                continue;
            }
            let may = self.may(id, &key, self.members.catalog.offered(&key));
            if !may.want {
                match self.sessions.get_mut(&id) {
                    Some(session) if may.waits => session.offers.hold(key),
                    _ => {
                        self.part_if_bounded(id, may);
                        self.refuse_feed(id, key);
                    }
                }
                continue;
            }
            let feed = match self.members.catalog.offered(&key) {
                Some(feed) => feed,
                None => match self.find_offered(id, &key) {
                    Ok(None) => self.insert_offered(key),
                    Ok(Some(feed)) => {
                        left -= 1;
                        self.replicate_feed(id, feed);
                        continue;
                    }
                    Err(error) => {
                        left -= 1;
                        self.leave_unopened(id, key, Some(error));
                        continue;
                    }
                },
            };
            if let Some(session) = self.sessions.get_mut(&id) {
                session.offers.ask(feed);
            }
            let wants = &mut self.feeds[feed.0 as usize].wants;
            if sparse && wants.is_empty() {
                // Nobody can wait for anything of a feed that is not there yet: its length has to do.
                wants.add(self.waits.next_id(), Want::Length(1), WantOptions::default());
            }
            self.replicate_feed(id, feed);
        }
        if left == 0 {
            self.steps.openings.insert(id);
        }
    }

    /// Something on a channel whose feed has no machine.
    pub(in crate::multifeed) fn offer_heard(&mut self, id: SessionId, key: FeedKey, message: Option<&Message>) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        match message {
            Some(message) => session.offers.heard(key, message),
            None => session.offers.opened(key),
        }
        self.ask_for_offers(id);
        self.end_if_through(id);
    }

    /// Returns what a channel is of, if it is open.
    pub(in crate::multifeed) fn channel(&self, id: SessionId, token: Token) -> Option<Channel> {
        self.sessions.get(&id)?.channel(token)
    }

    /// Takes machines away whose remotes do not open their channels, or do not answer.
    pub(in crate::multifeed) fn hush_offers(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        for feed in session.offers.asked().collect::<Vec<_>>() {
            self.hush_offer(id, feed);
        }
    }

    /// Takes a machine away whose remote has nothing (yet).
    pub(in crate::multifeed) fn hush_offer(&mut self, id: SessionId, feed: FeedId) {
        let patience = self.limits.request_timeout;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let now = session.transfer.time(self.now);
        let Some(peer) = session.peers.get(&feed).filter(|peer| peer.is_quiet(now, patience)) else { return };
        let Some(slot) = self.feeds.get(feed.0 as usize) else { return };
        if peer.given_up(&slot.feed) > 0 && session.offers.stay(feed, self.limits.feeds_asked) {
            return self.ask_for_offers(id);
        }
        if let Some(peer) = {
            let _ = session.note_left(feed, &slot.feed);
            session.park(feed, slot.feed.key())
        } {
            self.unsubscribe(id, feed, peer);
            self.ask_for_offers(id);
        }
    }

    /// Something of an offered feed was proven: it gets its folder, and is a feed like any other. If it cannot have one, nothing of it is
    /// kept, and false is returned.
    pub(in crate::multifeed) fn settle_offered(&mut self, id: FeedId, by: SessionId) -> bool {
        let key = self.slot(id).feed.key();
        let mut feed = std::mem::replace(&mut self.feeds[id.0 as usize].feed, Feed::offered(key));
        match self.find_folder(&key, false, None, |storage, slot, name| feed.settle(storage, slot, name)) {
            Ok(()) => {}
            Err(error) => {
                self.drop_offered(id, &error);
                return false;
            }
        }
        self.mind_space(FEED_BYTES);
        let name = feed_name(&feed);
        let slot = &mut self.feeds[id.0 as usize];
        slot.feed = feed;
        slot.wants = Default::default();
        self.index(id);
        self.created(id, key, name.clone());
        self.slot(id).subscribers.clone().into_iter().for_each(|subscriber| self.include_by(subscriber, id));
        // In a multifeed of a corestore it has a name that is not its folder's number.
        let set = self.sessions.get(&by).map(|session| session.options.set);
        let name = set.and_then(|set| self.name_in(set, id)).map_or(name, str::to_owned);
        if let Some(session) = self.sessions.get_mut(&by) {
            session.offers.ask_no_more(id);
            session.offered_there.insert(u64::from(id.0));
            session.events.push_back(PeerEvent::Feed { key, name });
        }
        self.count_feed(by);
        self.adopt_offers(id, key, Some(by));
        self.ask_for_offers(by);
        true
    }

    /// A feed that was only offered is here now, brought by a session or made here. Sessions on which it is asked for go on with it as with
    /// any other. Those on which it waits, or is quiet, get a machine for it.
    pub(in crate::multifeed) fn adopt_offers(&mut self, id: FeedId, key: FeedKey, by: Option<SessionId>) {
        for peer in self.slot(id).subscribers.clone() {
            let Some(session) = self.sessions.get_mut(&peer) else { continue };
            session.offers.ask_no_more(id);
            session.known.insert(u64::from(id.0));
            session.offered_there.insert(u64::from(id.0));
            // It is served now, and fetched even from those that may bring no new one.
            if by != Some(peer) && session.is_full() {
                self.with_peer(peer, id, |peer, work| {
                    peer.begin_again(work);
                    Ok(())
                });
                self.apply(peer, id);
                self.retry_requests(id, Some(peer));
            }
            if by != Some(peer) {
                self.ask_for_offers(peer);
            }
        }
        let waits = |(&peer, session): (&SessionId, &crate::replication::peer_session::PeerSession)| {
            session.offers.has(&key).then_some(peer)
        };
        for peer in self.sessions.iter().filter_map(waits).collect::<Vec<_>>() {
            let Some(session) = self.sessions.get_mut(&peer) else { continue };
            session.known.insert(u64::from(id.0));
            session.offered_there.insert(u64::from(id.0));
            // One that waits has its turn.
            if session.offers.is_quiet(&key) {
                self.replicate_feed(peer, id);
                self.wake(peer);
            }
        }
    }

    /// An offered feed cannot have a folder: what came of it is dropped. If the store has as many feeds as it may, nobody is asked for
    /// new ones any more, and the sessions go on. If it has a folder of the feed that cannot be opened, the feed leaves the sessions. Else
    /// they end.
    fn drop_offered(&mut self, id: FeedId, error: &StoreError) {
        let slot = &mut self.feeds[id.0 as usize];
        slot.reserved.clear();
        slot.unannounced.clear();
        for peer in slot.subscribers.clone() {
            match error {
                StoreError::TooManyFeeds { .. } => {
                    self.with_peer(peer, id, |peer, work| {
                        peer.begin_again(work);
                        Ok(())
                    });
                    self.mind_limits(peer);
                    self.stop_fetching(peer);
                    self.end_if_through(peer);
                    self.wake(peer);
                }
                StoreError::Full { .. } => self.with_peer(peer, id, |peer, work| {
                    peer.begin_again(work);
                    Ok(())
                }),
                StoreError::Occupied { .. } => self.feed_fault(peer, id, PeerFault::Store(error.clone())),
                error => self.fault(peer, PeerFault::Store(error.clone())),
            }
        }
        if let StoreError::Full { .. } = error {
            self.stop_at_full_disk(error.clone());
        }
    }

    fn insert_offered(&mut self, key: FeedKey) -> FeedId {
        let slot = Box::new(FeedSlot::new(Feed::offered(key)));
        let id = match self.members.vacant.pop_first() {
            Some(id) => {
                self.feeds[id.0 as usize] = slot;
                id
            }
            None => self.push_slot(slot),
        };
        self.members.catalog.offer(id, key);
        id
    }

    /// Nobody is asked for an offered feed any more: nothing is left of it.
    pub(in crate::multifeed) fn forget_offered(&mut self, id: FeedId) {
        let slot = &self.feeds[id.0 as usize];
        if slot.feed.is_settled() || slot.removed || !slot.subscribers.is_empty() {
            return;
        }
        let key = slot.feed.key();
        self.members.catalog.withdraw(&key);
        let in_use = slot.in_use;
        *self.feeds[id.0 as usize] = FeedSlot::new(Feed::offered(FeedKey::new([0; 32])));
        self.feeds[id.0 as usize].in_use = in_use;
        self.members.vacant.insert(id);
        while self.members.vacant.last().is_some_and(|last| last.0 as usize + 1 == self.feeds.len()) {
            self.members.vacant.pop_last();
            self.feeds.pop();
        }
        if self.feeds.capacity() > 2 * self.feeds.len() + 64 {
            self.feeds.shrink_to_fit();
        }
    }
}
