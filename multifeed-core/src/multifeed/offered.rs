//! Feeds that remotes offer: asked for without a trace in the store, and given a folder with the first block that is proven.

use multifeed_proto::{FeedKey, ManifestFields, Message, Origin, Token};

use super::disk::FEED_BYTES;
use super::{FeedId, FeedSlot, Multifeed, PeerId, feed_name};
use crate::error::StoreError;
use crate::feed::Feed;
use crate::peer::Peer;
use crate::peering::Channel;
use crate::replicate::PeerEvent;
use crate::storage::Storage;
use crate::wants::{Want, WantId, WantOptions};

impl<S: Storage> Multifeed<S> {
    /// The remote offers feeds: those that may be taken are requested.
    pub(super) fn manifest(&mut self, id: PeerId, mut keys: Vec<FeedKey>, fields: Option<&ManifestFields>) {
        self.give_up_reconciling(id);
        self.choose(id, &mut keys, fields);
        let Some(peering) = self.peerings.get_mut(&id) else { return };
        let (catalog, limit) = (&self.catalog, self.limits.feeds_offered);
        let mut refused = 0;
        keys.retain(|key| {
            if let Some(feed) = catalog.find(key) {
                peering.known.insert(u64::from(feed.0));
                peering.not_taken.asked(feed);
                return true;
            }
            let taken = peering.offers.has(key) || peering.offers.take(limit);
            refused += u64::from(!taken);
            taken
        });
        if refused > 0 {
            peering.events.push_back(PeerEvent::OffersRefused { feeds: refused, limit });
        }
        peering.request(keys);
    }

    /// Both sides agreed on feeds.
    pub(super) fn replicate(&mut self, id: PeerId, mut keys: Vec<FeedKey>, origin: Origin) {
        for &key in &keys {
            if let Some(feed) = self.catalog.find(&key)
                && let Some(peering) = self.peerings.get_mut(&id)
            {
                peering.not_taken.asked(feed);
            }
            match self.catalog.find(&key) {
                // It was blocked since it was offered or requested.
                _ if self.blocked.contains(&key) => self.refuse_feed(id, key),
                Some(feed) => self.take_turn(id, key, Some(feed)),
                // What they requested was here when it was offered to them.
                None if origin == Origin::Local => self.refuse_feed(id, key),
                None if self.may(id, &key, None).refuses_to_take() => self.refuse_feed(id, key),
                None => self.take_turn(id, key, self.catalog.offered(&key)),
            }
        }
        self.ask_for_offers(id);
        let in_step = if origin == Origin::Remote { self.tell_in_step(id) } else { Vec::new() };
        let Some(peering) = self.peerings.get_mut(&id) else { return };
        match origin {
            Origin::Local => peering.offer_answered(),
            Origin::Remote => {
                peering.request_answered(&keys);
                if !in_step.is_empty() {
                    keys.extend(in_step);
                    keys.sort_unstable();
                    keys.dedup();
                }
                peering.events.push_back(PeerEvent::RemoteFeeds { keys });
            }
        }
        peering.settle();
    }

    /// Both sides agreed on a feed: its channel is opened as soon as it is its turn.
    fn take_turn(&mut self, id: PeerId, key: FeedKey, feed: Option<FeedId>) {
        if let Some(peering) = self.peerings.get_mut(&id).filter(|peering| peering.is_running())
            && !feed.is_some_and(|feed| peering.peers.contains_key(&feed))
            && !peering.offers.has(&key)
        {
            peering.offers.wait(key);
        }
    }

    /// Opens a feed's channel on a session.
    pub(super) fn replicate_feed(&mut self, id: PeerId, feed: FeedId) {
        self.sync_before_serving(feed);
        let Some(peering) = self.peerings.get(&id) else { return };
        if peering.peers.contains_key(&feed) || !peering.is_running() {
            return;
        }
        if self.may_feed(id, feed).refuses() {
            return self.refuse_feed(id, self.slot(feed).feed.key());
        }
        let (download, upload) = self.transfers(id, feed);
        let Some(peering) = self.peerings.get_mut(&id) else { return };
        let slot = &mut self.feeds[feed.0 as usize];
        let now = peering.transfer.time(self.now);
        let mut options = peering.peer_options();
        (options.download, options.upload) = (download, upload);
        slot.subscribers.push(id);
        let quiet = peering.open(feed, slot.feed.key(), Peer::new(&slot.feed, options, now));
        self.speak(id, feed);
        let Some(quiet) = quiet else { return };
        self.with_peer(id, feed, |peer, work| peer.take_over(&quiet, work));
    }

    /// Opens the channels of a session whose turn it is, of feeds that are here, and of offers, which are asked for.
    pub(super) fn ask_for_offers(&mut self, id: PeerId) {
        while let Some(peering) = self.peerings.get_mut(&id).filter(|peering| peering.is_running())
            && let Some(key) = peering.next_turn(&self.limits)
        {
            let sparse = peering.is_sparse();
            if let Some(feed) = self.catalog.find(&key) {
                self.replicate_feed(id, feed);
                continue;
            }
            let may = self.may(id, &key, self.catalog.offered(&key));
            if !may.want {
                match self.peerings.get_mut(&id) {
                    Some(peering) if may.waits => peering.offers.hold(key),
                    _ => self.refuse_feed(id, key),
                }
                continue;
            }
            let feed = match self.catalog.offered(&key) {
                Some(feed) => feed,
                None => self.insert_offered(key),
            };
            if let Some(peering) = self.peerings.get_mut(&id) {
                peering.offers.ask(feed);
            }
            let wants = &mut self.feeds[feed.0 as usize].wants;
            if sparse && wants.is_empty() {
                // Nobody can wait for anything of a feed that is not there yet: its length has to do.
                wants.add(WantId(self.next_want), Want::Length(1), WantOptions::default());
                self.next_want += 1;
            }
            self.replicate_feed(id, feed);
        }
    }

    /// Something on a channel whose feed has no machine.
    pub(super) fn offer_heard(&mut self, id: PeerId, key: FeedKey, message: Option<&Message>) {
        let Some(peering) = self.peerings.get_mut(&id) else { return };
        match message {
            Some(message) => peering.offers.heard(key, message),
            None => peering.offers.opened(key),
        }
        self.ask_for_offers(id);
        self.settle(id);
    }

    /// What a channel is of, where it is open.
    pub(super) fn channel(&self, id: PeerId, token: Token) -> Option<Channel> {
        self.peerings.get(&id)?.channel(token)
    }

    /// Takes machines away whose remotes do not open their channels, or do not answer.
    pub(super) fn hush_offers(&mut self, id: PeerId) {
        let Some(peering) = self.peerings.get(&id) else { return };
        for feed in peering.offers.asked().collect::<Vec<_>>() {
            self.hush_offer(id, feed);
        }
    }

    /// Takes a machine away whose remote has nothing (yet).
    pub(super) fn hush_offer(&mut self, id: PeerId, feed: FeedId) {
        let patience = self.limits.request_timeout;
        let Some(peering) = self.peerings.get_mut(&id) else { return };
        let now = peering.transfer.time(self.now);
        if peering.peers.get(&feed).is_some_and(|peer| peer.is_quiet(now, patience))
            && let Some(slot) = self.feeds.get(feed.0 as usize)
            && let Some(peer) = {
                peering.note_left(feed, &slot.feed);
                peering.hush(feed, slot.feed.key())
            }
        {
            self.unsubscribe(id, feed, peer);
            self.ask_for_offers(id);
        }
    }

    /// Something of an offered feed was proven: it gets its folder, and is a feed like any other. Where it cannot have one, nothing of it is
    /// kept, and false is returned.
    pub(super) fn settle_offered(&mut self, id: FeedId, by: PeerId) -> bool {
        let key = self.slot(id).feed.key();
        let mut feed = std::mem::replace(&mut self.feeds[id.0 as usize].feed, Feed::offered(key));
        match self.find_folder(&key, false, |storage, slot, name| feed.settle(storage, slot, name)) {
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
        if let Some(peering) = self.peerings.get_mut(&by) {
            peering.offers.settle(id);
            peering.events.push_back(PeerEvent::Feed { key, name });
        }
        self.count_feed(by);
        self.adopt_offers(id, key, Some(by));
        self.ask_for_offers(by);
        true
    }

    /// A feed that was only offered is here now, brought by a session or made here: those on which it is asked for go on with it as with any
    /// other, and those on which it waits, or is quiet, get a machine for it.
    pub(super) fn adopt_offers(&mut self, id: FeedId, key: FeedKey, by: Option<PeerId>) {
        for peer in self.slot(id).subscribers.clone() {
            let Some(peering) = self.peerings.get_mut(&peer) else { continue };
            peering.offers.settle(id);
            peering.known.insert(u64::from(id.0));
            // It is served now, and fetched even from those that may bring no new one.
            if by != Some(peer) && peering.is_full() {
                self.with_peer(peer, id, |peer, work| {
                    peer.begin_again(work);
                    Ok(())
                });
                self.apply(peer, id);
                self.rewind(id, Some(peer));
            }
            if by != Some(peer) {
                self.ask_for_offers(peer);
            }
        }
        let waits = |(&peer, peering): (&PeerId, &crate::peering::Peering)| peering.offers.has(&key).then_some(peer);
        for peer in self.peerings.iter().filter_map(waits).collect::<Vec<_>>() {
            let Some(peering) = self.peerings.get_mut(&peer) else { continue };
            peering.known.insert(u64::from(id.0));
            // One that waits has its turn.
            if peering.offers.is_quiet(&key) {
                self.replicate_feed(peer, id);
                self.wake(peer);
            }
        }
    }

    /// An offered feed cannot have a folder: what came of it is dropped. Where the store has as many feeds as it may, nobody is asked for
    /// new ones any more, and the sessions go on; else whoever is asked for it hears why it ends.
    fn drop_offered(&mut self, id: FeedId, error: &StoreError) {
        let slot = &mut self.feeds[id.0 as usize];
        slot.reserved.clear();
        slot.fresh.clear();
        for peer in slot.subscribers.clone() {
            match error {
                StoreError::TooManyFeeds { .. } => {
                    self.with_peer(peer, id, |peer, work| {
                        peer.begin_again(work);
                        Ok(())
                    });
                    self.mind_limits(peer);
                    self.stop_fetching(peer);
                    self.settle(peer);
                    self.wake(peer);
                }
                StoreError::Full { .. } => self.with_peer(peer, id, |peer, work| {
                    peer.begin_again(work);
                    Ok(())
                }),
                error => self.fault(peer, crate::peer::PeerFault::Store(error.clone())),
            }
        }
        if let StoreError::Full { .. } = error {
            self.stop_at_full_disk(error.clone());
        }
    }

    fn insert_offered(&mut self, key: FeedKey) -> FeedId {
        let slot = Box::new(FeedSlot::new(Feed::offered(key)));
        let id = match self.vacant.pop_first() {
            Some(id) => {
                self.feeds[id.0 as usize] = slot;
                id
            }
            None => {
                self.feeds.push(slot);
                FeedId(self.feeds.len() as u32 - 1)
            }
        };
        self.catalog.offer(id, key);
        id
    }

    /// Nobody is asked for an offered feed any more: nothing is left of it.
    pub(super) fn forget_offered(&mut self, id: FeedId) {
        let slot = &self.feeds[id.0 as usize];
        if slot.feed.is_settled() || slot.removed || !slot.subscribers.is_empty() {
            return;
        }
        let key = slot.feed.key();
        self.catalog.withdraw(&key);
        let in_use = slot.in_use;
        *self.feeds[id.0 as usize] = FeedSlot::new(Feed::offered(FeedKey::new([0; 32])));
        self.feeds[id.0 as usize].in_use = in_use;
        self.vacant.insert(id);
        while self.vacant.last().is_some_and(|last| last.0 as usize + 1 == self.feeds.len()) {
            self.vacant.pop_last();
            self.feeds.pop();
        }
        if self.feeds.capacity() > 2 * self.feeds.len() + 64 {
            self.feeds.shrink_to_fit();
        }
    }
}
