//! How far the multifeed's syncs are.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::leaving::is_served;
use crate::ids::{FeedId, SessionId, SetId};
use crate::multifeed::Multifeed;
use crate::replication::peer_session::PeerSession;
use crate::stats::{FeedSyncState, Meter, Moved, StoreSyncState, SyncState};
use crate::storage::Storage;

/// What moved on all sessions since the store was opened.
#[derive(Debug, Default)]
pub(in crate::multifeed) struct Traffic {
    moved: Moved,
    meter: Meter,
    /// The feeds of which something moved lately; an idle one costs nothing.
    feeds: BTreeMap<FeedId, Meter>,
}

impl Traffic {
    pub(in crate::multifeed) fn note(&mut self, feed: FeedId, moved: Moved, now: Duration) {
        self.moved.add(moved);
        self.meter.add(moved, now);
        self.feeds.entry(feed).or_default().add(moved, now);
    }

    pub(in crate::multifeed) fn forget_idle(&mut self, now: Duration) {
        self.feeds.retain(|_, meter| !meter.is_idle(now));
    }
}

impl<S: Storage> Multifeed<S> {
    /// Wants to know from now on what a session's remote has, of every feed. Without it, a remote is asked only about feeds that are
    /// fetched from it; a remote that is asked tells of each new block too. It costs a message each way for a feed
    /// that is not fetched, and while blocks come, a look at each observed session.
    pub fn observe(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if !session.observe() {
            return;
        }
        for feed in session.peers.keys().copied().collect::<Vec<_>>() {
            self.with_peer(id, feed, |peer, work| {
                peer.observe(work);
                Ok(())
            });
        }
        self.note_in_sync();
        self.wake(id);
    }

    /// Returns how a session stands, or `None` if there is none. It costs the same however many blocks there are, and a step for each feed that the remote does
    /// not take.
    pub fn sync_state(&self, id: SessionId, now: Duration) -> Option<SyncState> {
        let served = |place| is_served(&self.feeds, place);
        Some(self.sessions.get(&id)?.state(self.is_clean(), now.max(self.now), served))
    }

    /// Returns how a feed stands, over all sessions. It costs a step for each session.
    pub fn feed_sync_state(&self, id: FeedId, now: Duration) -> FeedSyncState {
        let Some(slot) = self.entry(id) else { return FeedSyncState::default() };
        let meter = self.traffic.feeds.get(&id);
        let mut state = FeedSyncState {
            len: slot.feed.len(),
            downloaded: slot.feed.downloaded(),
            moved: slot.moved,
            per_second: meter.map(|meter| meter.per_second(now.max(self.now))).unwrap_or_default(),
            ..FeedSyncState::default()
        };
        for (_, info) in self.peers(id) {
            state.remote_len = state.remote_len.max(info.remote_len);
            state.sessions += 1;
            state.sessions_in_sync += u64::from(info.in_sync);
            state.in_flight += info.in_flight;
        }
        for session in self.sessions.values().filter(|session| session.is_running() && session.matched.holds(id)) {
            state.sessions += 1;
            state.sessions_in_sync += u64::from(!session.matched.holds_back(id));
        }
        state
    }

    /// Returns how a set of feeds stands with all peers of its sessions; with [`SetId::ALL`] the whole store. It costs a step for each session.
    ///
    /// What moved is counted of the store since it was opened, of a set over the sessions that are there.
    pub fn store_sync_state(&self, set: SetId, now: Duration) -> StoreSyncState {
        let mut store = StoreSyncState::default();
        let (clean, now) = (self.is_clean(), now.max(self.now));
        let counts = |session: &&PeerSession| !session.is_over() && (set == SetId::ALL || session.options.set == set);
        for session in self.sessions.values().filter(counts) {
            let state = session.state(clean, now, |place| is_served(&self.feeds, place));
            store.sessions += 1;
            store.sessions_in_sync += u64::from(state.in_sync);
            store.all.feeds += state.feeds;
            store.all.feeds_in_sync += state.feeds_in_sync;
            store.all.unwritten += state.unwritten;
            store.all.missing_here += state.missing_here;
            store.all.missing_there += state.missing_there;
            store.all.not_taken += state.not_taken;
            store.all.bytes_missing_here = store.all.bytes_missing_here.wrapping_add(state.bytes_missing_here);
            store.all.bytes_missing_there = store.all.bytes_missing_there.wrapping_add(state.bytes_missing_there);
            store.all.in_flight += state.in_flight;
            store.all.bytes_in_flight += state.bytes_in_flight;
            store.all.requested += state.requested;
            store.all.moved.add(state.moved);
            store.all.per_second.add(state.per_second);
        }
        if set == SetId::ALL {
            store.all.moved = self.traffic.moved;
            store.all.per_second = self.traffic.meter.per_second(now);
        }
        store.all.in_sync = store.sessions > 0 && store.sessions == store.sessions_in_sync;
        store
    }

    /// Returns whether a session's remote and we hold the same blocks, of every feed that the session syncs. Known only once it is
    /// [observed](Self::observe).
    ///
    /// That is so once both feed lists were exchanged and answered, and of each feed whose channel is open:
    ///
    /// - we hold, written to the storage, every block that the remote has announced; in a sparse session every one that is asked for;
    /// - the remote holds every block that we hold: it has said so, or acknowledged it. One that fetches only some blocks (sparse) is so not in
    ///   sync;
    /// - nothing that either side asked for is without an answer, and nothing new is unannounced.
    ///
    /// A feed that needs no channel, because both sides [turned out](crate::reconcile) to hold it alike, is in sync.
    ///
    /// These do not count:
    ///
    /// - a direction that one of the sides does not take part in, by [`Replicate`](crate::Replicate)'s `download` or `upload`, for a feed or for all;
    /// - blocks that neither side has;
    /// - blocks that one side gave up (`clear`) while the session ran, until it asks for them again;
    /// - a block of which a live remote says, when it is asked, that it does not have it (it may have a bad sector there);
    /// - feeds that one side did not ask for, unless a [bound](crate::PeerLimits) of ours is why.
    ///
    /// The session is not in sync if one of these is so:
    ///
    /// - a feed of both sides is damaged here, or has two histories;
    /// - the remote has more of one of our feeds, and that is not fetched;
    /// - the remote of a live session told of blocks that are not here, and then took no more part in the feed, as one that bans it;
    /// - the store has a folder that could not be opened and that holds a feed which the session would exchange, whether the remote has that or
    ///   not;
    /// - the remote was asked what it has and never answers, does not bring a block that it announced, or does not agree to a feed that it
    ///   offered. A session that is not live ends then, and stays out of sync, as when the remote never opened a feed's channel.
    ///
    /// A remote that serves nothing does not say what it has. It counts as having everything once it asked for nothing for 5 s.
    ///
    /// A live remote whose disk fails closes a feed's channel without a word. Its session is then in sync only if the two held the same of the
    /// feed, and until blocks of it come here. So it is with a remote of ours that removes or bans a feed, which says so: what it lacks then, and what
    /// comes here later, stays missing there, and the feed is one that it does [not take](SyncState::not_taken). A feed that is removed or banned here
    /// is not missed.
    ///
    /// It is a state, not an event: after the next append it is false again. Of a session that ended well, it is what it was before the end.
    pub fn in_sync(&self, id: SessionId) -> bool {
        let is_in_sync = |session: &PeerSession| (session.is_over() || self.is_clean()) && session.is_in_sync();
        self.sessions.get(&id).is_some_and(is_in_sync)
    }

    /// Whether all that came and was made here is written and reported.
    pub(in crate::multifeed) fn is_clean(&self) -> bool {
        self.uncommitted.is_empty()
    }

    /// Has sessions report if they came in sync, or fell out of it.
    pub(in crate::multifeed) fn note_in_sync(&mut self) {
        let clean = self.is_clean();
        let mut woken = Vec::new();
        for (&id, session) in self.sessions.iter_mut().filter(|(_, session)| session.is_observed()) {
            session.note_in_sync(clean && session.is_in_sync());
            woken.push(id);
        }
        woken.into_iter().for_each(|id| self.wake(id));
    }

    /// Blocks are held here that were not before; `from` brought them.
    pub(in crate::multifeed) fn gained(&mut self, feed: FeedId, blocks: Range<u64>, from: Option<SessionId>) {
        let mut observing = Vec::new();
        for &id in self.feeds[feed.0 as usize].subscribers.iter().filter(|id| Some(**id) != from) {
            match self.sessions.get_mut(&id) {
                Some(session) if session.is_observed() => observing.push(id),
                // Its end tells what the remote did not take.
                Some(session) if !session.is_live() => {
                    session.peers.get_mut(&feed).into_iter().for_each(|peer| peer.gained(blocks.clone()));
                }
                _ => {}
            }
        }
        for id in observing {
            self.with_peer(id, feed, |peer, _| {
                peer.gained(blocks.clone());
                Ok(())
            });
            self.wake(id);
        }
        if self.slot(feed).is_outgrown {
            let mut counts = false;
            self.sessions.values_mut().for_each(|session| counts |= session.note_gained(feed, &blocks));
            self.feeds[feed.0 as usize].is_outgrown = counts;
        }
    }

    /// Looks at remotes of which only their silence tells that they have everything.
    pub(in crate::multifeed) fn look_at_the_silent(&mut self) {
        let observed = self.sessions.iter().filter(|(_, session)| session.is_observed());
        let silent: Vec<(SessionId, FeedId)> = observed
            .flat_map(|(&id, session)| session.peers.iter().map(move |(&feed, peer)| (id, feed, peer)))
            .filter(|(_, _, peer)| peer.waits_for_silence())
            .map(|(id, feed, _)| (id, feed))
            .collect();
        for (id, feed) in silent {
            self.with_peer(id, feed, |_, _| Ok(()));
        }
        self.note_in_sync();
    }
}
