//! What sessions brought is written, and then announced.

use std::time::Duration;

use multifeed_proto::FeedKey;

use super::work;
use crate::ids::FeedId;
use crate::log::{Span, log};
use crate::multifeed::{Multifeed, MultifeedEvent};
use crate::storage::Storage;

impl<S: Storage> Multifeed<S> {
    /// Returns whether [`commit`](Self::commit) has something to do, and about how many bytes wait for it.
    pub fn uncommitted(&self) -> Option<usize> {
        self.uncommitted.size()
    }

    /// Writes the blocks that came, then tells the other sessions and the application of them. To be called after a batch of
    /// events, or after several if more are waiting (a feed's blocks then go out in fewer writes), and after appends.
    ///
    /// If a feed's own files cannot be written (EIO, EFBIG), its channels close, and the sessions that brought it end with that error when all
    /// else is done. If writing fails otherwise, they end at once, and the blocks wait for the next call; for a full disk see
    /// [`disk_full`](Self::disk_full).
    pub fn commit(&mut self, now: Duration) {
        self.now = self.now.max(now);
        self.uncommitted.bytes = 0;
        if self.has_unlisted()
            && let Err(error) = self.write_lists()
        {
            self.cores.report.note_problem(error);
        }
        self.sync_appended();
        let unwritten = std::mem::take(&mut self.uncommitted.unwritten);
        for id in std::mem::take(&mut self.uncommitted.dirty).into_iter().chain(unwritten) {
            self.feeds[id.0 as usize].dirty = false;
            self.commit_feed(id);
        }
        let written = self.sessions.iter_mut().filter_map(|(&id, session)| session.note_written().then_some(id));
        written.collect::<Vec<_>>().into_iter().for_each(|id| self.wake(id));
        self.announce_feeds();
        self.give_up_unavailable();
        self.cores.plan_sync(self.now);
        self.note_in_sync();
    }

    pub(in crate::multifeed) fn commit_feed(&mut self, id: FeedId) {
        self.begin_use(id);
        let _in = Span::none().enter_feed(&self.slot(id).feed);
        let begun = if self.slot(id).feed.is_staged() { self.touch(id) } else { Ok(()) };
        let slot = &mut self.feeds[id.0 as usize];
        if let Err(error) = begun.and_then(|()| slot.feed.flush(&mut self.cores.storage)) {
            return self.not_written(id, error);
        }
        slot.unwritten = None;
        for from in slot.unannounced.iter().filter_map(|(_, from)| *from) {
            self.sessions.get_mut(&from).into_iter().for_each(|session| session.note_feed_written(id, false));
        }
        let slot = &mut self.feeds[id.0 as usize];
        if slot.feed.was_mended() {
            self.cores.report.caught_up(&slot.feed);
        }
        if !std::mem::replace(&mut slot.reported, true) {
            self.outbox.push(MultifeedEvent::Blocks { id });
        }
        if !slot.unannounced.is_empty() {
            let blocks = slot.unannounced.iter().map(|(run, _)| run.end - run.start).sum();
            self.sessions.values_mut().for_each(|session| session.outgrows(id, &slot.feed, blocks));
        }
        let slot = &mut self.feeds[id.0 as usize];
        if slot.feed.is_held_back() {
            // Announced when it is fsynced.
            self.committed(id, &[]);
            return self.hold_back_news(id);
        }
        let fresh = std::mem::take(&mut slot.unannounced);
        let blocks = || fresh.iter().map(|(run, _)| run.end - run.start).sum::<u64>();
        log!(DEBUG, "feed", "written", blocks = ?blocks(), held = ?slot.feed.downloaded(), len = ?slot.feed.len());
        self.committed(id, &fresh);
        if !fresh.is_empty() {
            self.unmatch(id);
        }
        for peer_id in self.slot(id).subscribers.clone() {
            let Some(session) = self.sessions.get_mut(&peer_id) else { continue };
            let slot = &mut self.feeds[id.0 as usize];
            let _in = session.span.enter_feed(&slot.feed);
            let now = session.transfer.time(self.now);
            let share = session.share(id, now);
            let stays = session.stays_open(id, now);
            if let Some(peer) = session.peers.get_mut(&id) {
                for (blocks, from) in &fresh {
                    match *from == Some(peer_id) {
                        true => peer.acknowledge(blocks.clone()),
                        false => peer.announce(blocks.clone(), &self.limits),
                    }
                }
                let mut work = work(slot, &mut self.cores.storage, &self.limits, share, now);
                work.stays = stays;
                peer.advance(&mut work);
                let standing = peer.assess(&mut work);
                let (share, stayed) = (work.share, work.stayed);
                if stayed {
                    session.relays.stay(id);
                }
                session.set_standing(id, standing, &mut slot.fetching);
                session.activate(id);
                session.shared(id, share);
            }
            self.give_turns(peer_id);
            self.wake(peer_id);
        }
    }

    /// Offers feeds that are new here to every session that does not know them. One that is ending is not in sync then.
    fn announce_feeds(&mut self) {
        let new = std::mem::take(&mut self.uncommitted.unannounced);
        if new.is_empty() {
            return;
        }
        let ending = self.sessions.iter().filter(|(_, session)| session.is_ending_live()).map(|(&id, _)| id);
        for id in ending.collect::<Vec<_>>() {
            let lacks = |feed: FeedId| {
                let known = self.sessions.get(&id).is_none_or(|session| session.known.get(u64::from(feed.0)));
                let slot = self.feeds.get(feed.0 as usize).filter(|slot| !slot.removed && !slot.feed.is_empty());
                !known && slot.is_some() && self.may_feed(id, feed).offer
            };
            if new.iter().any(|&feed| lacks(feed))
                && let Some(session) = self.sessions.get_mut(&id)
            {
                session.part();
            }
        }
        // If the feeds are being compared, they are offered with all others when that is done.
        let running =
            self.sessions.iter().filter(|(_, session)| session.exchanges_lists() && !session.matched.is_running());
        for id in running.map(|(&id, _)| id).collect::<Vec<_>>() {
            let may = |feed: FeedId| {
                self.feeds.get(feed.0 as usize).is_some_and(|slot| !slot.removed) && self.may_feed(id, feed).offer
            };
            let may: Vec<FeedId> = new.iter().copied().filter(|&feed| may(feed)).collect();
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            // Over an open channel one of ours hears of it anyway. If both end, an offer could find it closed at one side only, which would then
            // wait for the other to open it again.
            let ends = !session.is_live() && session.peer_options().reconciles;
            let hears = |feed: &FeedId| ends && session.peers.get(feed).is_some_and(|peer| !peer.is_closing());
            let unknown = may.into_iter().filter(|feed| session.known.insert(u64::from(feed.0)) && !hears(feed));
            let unknown: Vec<FeedId> = unknown.collect();
            unknown.iter().for_each(|feed| session.not_taken.offered(*feed));
            let keys: Vec<FeedKey> = unknown.iter().map(|feed| self.feeds[feed.0 as usize].feed.key()).collect();
            if !keys.is_empty() {
                session.offer(keys);
                self.wake(id);
            }
        }
    }
}
