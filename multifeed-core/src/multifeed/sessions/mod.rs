//! The multifeed's side of its sessions: events in, commands out.
mod commit;
pub(super) mod doubled;
pub(super) mod holding;
mod late;
mod leaving;
pub(super) mod lists;
pub(super) mod offered;
pub(super) mod permissions;
mod policy_changed;
pub(super) mod progress;
pub(super) mod ready;
pub(super) mod relays;
pub(super) mod searches;
pub(super) mod single_feed;

use std::ops::Range;
use std::time::Duration;

use multifeed_proto::{Command, Event, Have, Message, Root, Scope, SessionError};

use super::{FeedSlot, Multifeed, MultifeedEvent};
use crate::error::StoreError;
use crate::ids::{FeedId, SessionId};
use crate::limits::{Limits, MAX_BLOCK_BYTES};
use crate::log::log;
use crate::multifeed::feed_events::FeedEvent;
use crate::prepared::PreparedEvent;
use crate::replication::peer::{FeedChannel, PeerFault, Sent, TooLarge, Work};
use crate::replication::peer_session::{Channel, PeerSession};
use crate::replication::reconcile::EXTENSION;
use crate::replication::replicate::{PeerEvent, Replicate};
use crate::replication::transfer::Share;
use crate::stats::Moved;
use crate::storage::Storage;

impl<S: Storage> Multifeed<S> {
    /// Adds a session. Its events are then given to [`handle`](Self::handle).
    pub fn connect(&mut self, options: Replicate) -> SessionId {
        self.connect_as(Root::FIRST, options)
    }

    /// Adds a session on a stream that others use as well, on which this multifeed is named `root`. Its channels are named by
    /// [`Token::new`](multifeed_proto::Token::new) with that, and of the stream's events it is given its own, and those that are for all.
    pub fn connect_as(&mut self, root: Root, options: Replicate) -> SessionId {
        self.add_peering(options, |options| PeerSession::new(root, options))
    }

    pub(super) fn add_peering(&mut self, options: Replicate, new: impl FnOnce(Replicate) -> PeerSession) -> SessionId {
        self.look_at_disk_now();
        self.steps.missing.begin();
        self.take_back_missing();
        let id = self.sessions.add(options, &self.limits, new);
        if let (Some(error), Some(session)) = (self.cores.disk.why(), self.sessions.get_mut(&id)) {
            session.pause(error.clone());
        }
        id
    }

    /// Takes an event of a session. It never fails: a fault of the remote's, or of our storage, ends that session by a
    /// [`Command::Abort`], and [`PeerEvent::Closed`] reports it.
    ///
    /// An event is taken as it is, or [prepared](crate::prepare_events) with others.
    pub fn handle(&mut self, id: SessionId, event: impl Into<PreparedEvent>, now: Duration) {
        let PreparedEvent { event, leaf } = event.into();
        self.handle_event(id, event, leaf, now);
    }

    fn handle_event(&mut self, id: SessionId, event: Event, leaf: Option<[u8; 32]>, now: Duration) {
        self.now = self.now.max(now);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let _session = session.span.enter();
        match event {
            Event::Connected { remote_public_key, handshake_hash } => {
                log!(DEBUG, "session", "the handshake is done", remote = ?remote_public_key);
                session.handshake_hash = Some(handshake_hash);
                session.remote_public_key = remote_public_key;
                session.events.push_back(PeerEvent::Connected { remote_public_key, handshake_hash });
                self.begin_lone(id);
            }
            Event::Ready { remote: handshake, .. } => {
                session.events.push_back(PeerEvent::Ready(handshake.clone()));
                self.begin_exchange(id, &handshake);
            }
            Event::Extension { scope: Scope::Channel(token), name, body } => {
                if let Some(Channel::Feed(feed)) = self.channel(id, token) {
                    self.hear(id, feed, name, &body);
                }
            }
            Event::Extension { scope: Scope::Stream | Scope::Root(_), name, body } if *name == *EXTENSION => {
                self.reconcile(id, &body);
            }
            Event::Manifest { keys, fields, .. } => self.manifest(id, keys, fields.as_ref()),
            Event::Replicate { keys, origin, .. } => self.replicate(id, keys, origin),
            Event::Discovered { discovery_key } => {
                // What both sides agreed on, and waits here for its turn.
                session.offers.opened_there(discovery_key);
            }
            Event::Opened { token } => match self.channel(id, token) {
                Some(Channel::Feed(feed)) => {
                    self.note_opened(id);
                    log!(DEBUG, "feed", "the remote opened the channel", key = ?self.slot(feed).feed.key());
                    self.tell(feed, FeedEvent::PeerOpen { peer: id });
                    let (mut waited, mut relayed) = (None, false);
                    self.with_peer(id, feed, |peer, work| {
                        waited = peer.waits_since();
                        peer.open(work);
                        relayed = peer.awaits_relay();
                        Ok(())
                    });
                    if relayed {
                        self.check_relays();
                    }
                    self.heard(id, waited);
                }
                Some(Channel::Offer(key)) => {
                    self.note_opened(id);
                    self.offer_heard(id, key, None);
                }
                Some(Channel::Closed(_)) | None => {}
            },
            Event::Message { token, message } => match self.channel(id, token) {
                Some(Channel::Feed(feed)) => {
                    if let Message::Options(options) = &message {
                        self.note_spoken(id, self.slot(feed).feed.key(), &options.extensions);
                    }
                    self.message(id, feed, message, leaf);
                }
                Some(Channel::Offer(key)) => {
                    if let Message::Options(options) = &message {
                        self.note_spoken(id, key, &options.extensions);
                    }
                    self.offer_heard(id, key, Some(&message));
                }
                Some(Channel::Closed(feed)) => {
                    if let Message::Have(Have { start, length, bitfield: None, ack: false }) = message {
                        self.heard_of_more(id, feed, start..start.saturating_add(length.max(1)));
                    }
                }
                None => {}
            },
            Event::LateHave { token, blocks } => {
                if let Some(Channel::Closed(feed)) = self.channel(id, token) {
                    self.heard_of_more(id, feed, blocks);
                }
            }
            Event::Partial { token, is_data, bytes } => {
                if let Some(Channel::Feed(feed)) = self.channel(id, token) {
                    self.heard_part(id, feed, is_data, bytes);
                }
            }
            Event::ChannelClosed { token } => {
                self.miss_lone(id);
                match self.channel(id, token) {
                    Some(Channel::Feed(feed)) => {
                        let state = self.feeds.get(feed.0 as usize).map(|slot| &slot.feed);
                        if let (Some(session), Some(state)) = (self.sessions.get_mut(&id), state) {
                            session.closed_by_remote(feed, state);
                        }
                        self.drop_peer(id, feed);
                    }
                    Some(Channel::Offer(key)) => {
                        self.extensions.forget_channel(id, &key);
                        if let Some(session) = self.sessions.get_mut(&id) {
                            session.quiet_closed_by_remote(&key);
                        }
                    }
                    Some(Channel::Closed(_)) | None => {}
                }
                self.ask_for_offers(id);
                self.end_if_through(id);
            }
            Event::RootClosed { error: None, .. } => session.root_closed(),
            Event::RemoteEnded => {
                let serves = session.options.upload != Some(false);
                session.remote_ended(|feed| {
                    let feed = &self.feeds.get(feed.0 as usize)?.feed;
                    let is_whole = feed.downloaded() > 0 && feed.downloaded() == feed.len();
                    (serves || !is_whole).then(|| feed.key())
                });
            }
            Event::Closed(result) => {
                // A session ends well only if all that it brought is written.
                self.commit(now);
                self.mind_unwritten(id);
                let Some(session) = self.sessions.get(&id).filter(|session| !session.is_over()) else { return };
                let mut state = session.state(self.is_clean(), self.now, |_| false);
                self.extensions.forget_session(id);
                self.drop_peers(id);
                let Some(session) = self.sessions.get(&id) else { return };
                let (holes, missing) = (self.holes(id, session), self.missing(session));
                let not_taken = self.not_taken(session);
                state.not_taken = not_taken;
                state.missing_here = state.missing_here.max(missing) + session.waiting_for_disk();
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.totals.holes = holes;
                    session.totals.missing = missing;
                    session.totals.not_taken = not_taken;
                    session.closed(result, state);
                }
            }
            // An event that is not known yet is one that asks for nothing.
            _ => {}
        }
        self.ask_for_offers(id);
        self.give_turns(id);
        self.give_up_unavailable();
        self.wake(id);
    }

    /// Lets a session be sent `bytes` more.
    pub fn grant(&mut self, id: SessionId, bytes: usize) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.outgoing.grant(bytes);
            self.wake(id);
        }
    }

    /// Lets a session be sent `bytes`, whatever it was allowed before.
    pub(crate) fn set_grant(&mut self, id: SessionId, bytes: usize) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.outgoing.set_grant(bytes);
            self.wake(id);
        }
    }

    /// Notes how many bytes a second a session's stream takes, as far as it was measured while more waited to be sent, and how many wait.
    ///
    /// A block that may take longer than a JS peer waits is then reported by [`PeerEvent::SlowBlock`].
    pub fn set_send_rate(&mut self, id: SessionId, per_second: u64, unwritten: u64) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.set_send_rate(per_second, unwritten);
            self.wake(id);
        }
    }

    /// Returns the next session with commands that its grant allows, or with events, in turn. It is not returned again until something is
    /// new, or until [`poll_command`](Self::poll_command) was called and left something.
    pub fn poll_ready(&mut self) -> Option<SessionId> {
        self.sessions.pop_ready()
    }

    /// Returns the next command for a session, or `None` if there is none now, or the grant is used up.
    pub fn poll_command(&mut self, id: SessionId) -> Option<Command> {
        loop {
            let session = self.sessions.get_mut(&id)?;
            if let Some(command) = session.outgoing.pop() {
                self.wake(id);
                return Some(command);
            }
            let Some(feed) = session.poll_active() else {
                // What was just sent may have made room.
                self.ask_for_offers(id);
                return self.sessions.get_mut(&id)?.outgoing.pop();
            };
            self.begin_use(feed);
            let session = self.sessions.get_mut(&id)?;
            let now = session.transfer.time(self.now);
            let share = session.share(feed, now);
            let Some(peer) = session.peers.get_mut(&feed) else { continue };
            let Some(slot) = self.feeds.get_mut(feed.0 as usize) else { continue };
            let key = slot.feed.key();
            let _in = session.span.enter_feed(&slot.feed);
            let mut work = work(slot, &mut self.cores.storage, &self.limits, share, now);
            work.room = session.room.of(feed);
            let (acknowledges, was_paced) = (peer.acknowledges_to_us(), peer.is_paced());
            work.paced = acknowledges && !session.ahead.has_room();
            let sent = peer.poll(&mut work);
            let standing = peer.assess(&mut work);
            let token = peer.token;
            let sent_block = matches!(&sent, Ok(Some(sent)) if sent.block().is_some());
            let is_paced = peer.is_paced() && !was_paced;
            let (waits, has_used) = (peer.room_needed().is_some(), sent_block || !peer.has_output());
            let share = work.share;
            let (damaged, too_large) = (work.damaged.take(), work.too_large.drain(..));
            session.events.extend(too_large.map(|(index, size)| PeerEvent::TooLarge { key, index, size }));
            if let Some((block, error)) = damaged {
                session.damaged(key, Some(block), error);
            }
            session.set_standing(feed, standing, &mut slot.fetching);
            session.shared(feed, share);
            session.room.note(feed, waits, has_used);
            if is_paced {
                session.ahead.wait(feed);
            }
            match sent {
                Ok(Some(sent)) => {
                    session.stir();
                    if let Sent::Message(Message::Request(request)) = &sent {
                        log!(TRACE, "feed", "request", block = ?request.index, hash_only = ?request.hash);
                    }
                    if let Some((index, size)) = sent.block() {
                        log!(TRACE, "feed", "block sent", block = ?index, bytes = ?size);
                        session.sends(feed, key, index, size);
                        if acknowledges {
                            session.ahead.sent(feed, index, size, now);
                        }
                        let moved = Moved::sent(size);
                        session.note_moved(feed, moved, self.now);
                        slot.moved.add(moved);
                        self.traffic.note(feed, moved, self.now);
                        self.outbox.push_feed_event(feed, slot, FeedEvent::Upload { blocks: index..index + 1 });
                    }
                    let closes = matches!(sent, Sent::Close);
                    let command = session.command(token, sent);
                    session.sent(feed, command.size());
                    let only_offered = !slot.feed.is_settled();
                    if closes {
                        session.note_denied(feed, &slot.feed);
                        self.drop_peer(id, feed);
                        if let Some(session) = self.sessions.get_mut(&id).filter(|_| !only_offered) {
                            session.closed_here(token, feed);
                        }
                        self.ask_for_offers(id);
                        self.end_if_through(id);
                    }
                    if only_offered {
                        self.hush_offer(id, feed);
                    }
                    self.wake(id);
                    return Some(command);
                }
                Ok(None) => session.activate(feed),
                Err(fault) => self.feed_fault(id, feed, fault),
            }
        }
    }

    /// Returns the next thing that happened on a session.
    pub fn poll_peer_event(&mut self, id: SessionId) -> Option<PeerEvent> {
        let (clean, now) = (self.is_clean(), self.now);
        self.sessions.get_mut(&id)?.poll_event(clean, now, |place| leaving::is_served(&self.feeds, place))
    }

    /// Ends a session cleanly: what is queued goes out first.
    pub fn finish(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.finish();
            self.wake(id);
        }
    }

    /// Forgets a session. What it was asked for can be asked of others.
    pub fn disconnect(&mut self, id: SessionId) {
        self.drop_peers(id);
        self.extensions.forget_session(id);
        self.sessions.remove(&id);
        self.give_up_unavailable();
    }

    fn note_opened(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.offers.note_opened(self.now);
        }
    }

    fn message(&mut self, id: SessionId, feed: FeedId, message: Message, leaf: Option<[u8; 32]>) {
        let mut effect = crate::replication::peer::Effect::default();
        let tells = matches!(message, Message::Have(_));
        let spare = self.lend(id, feed, |peer, work| {
            work.leaf = leaf;
            effect = peer.handle(message, work)?;
            Ok(())
        });
        // What came stands among the blocks to acknowledge before the feed's turn comes: with nothing left to do it closes its channel then.
        let stored = effect.stored.filter(|(_, size)| *size <= MAX_BLOCK_BYTES as u64).map(|(index, _)| index);
        let only_offered = !self.slot(feed).feed.is_settled();
        let came = effect.held.or(stored);
        if let Some(index) = came.filter(|_| !only_offered) {
            self.feeds[feed.0 as usize].stored(index, id);
        }
        self.take_turns(id, feed, spare);
        self.heard(id, effect.answered);
        if let (Some(blocks), Some(session)) = (effect.arrived, self.sessions.get_mut(&id)) {
            session.ahead.arrived(feed, &blocks, session.answers_take(), session.transfer.time(self.now));
        }
        if let (true, Some(since), Some(session)) = (tells, effect.answered, self.sessions.get_mut(&id)) {
            session.transfer.took(session.transfer.time(self.now).saturating_sub(since));
        }
        if let Some(conflict) = effect.conflict {
            self.forked(id, feed, conflict);
        }
        if let Some((shown, contradiction)) = effect.contradiction {
            self.begin_search(id, feed, shown, contradiction);
        }
        if let Some(too_large) = effect.too_large {
            let feed = self.feeds[feed.0 as usize].feed.key();
            if let Some(session) = self.sessions.get_mut(&id) {
                session.part();
                let error = match too_large {
                    TooLarge::Blocks(length, limit) => SessionError::FeedTooLong { feed, length, limit },
                    TooLarge::Bytes(bytes, limit) => SessionError::FeedTooLarge { feed, bytes, limit },
                };
                session.events.push_back(PeerEvent::LimitReached(error));
            }
        }
        if let Some(held) = effect.writer_behind {
            let slot = &self.feeds[feed.0 as usize].feed;
            let (key, len) = (slot.key(), slot.len());
            match self.outbox.last_mut() {
                Some(MultifeedEvent::WriterBehind { id, len: told, .. }) if *id == feed => *told = len,
                _ => self.outbox.push(MultifeedEvent::WriterBehind { id: feed, key, held, len }),
            }
            self.outgrew(feed);
            if let Some(session) = self.sessions.get_mut(&id) {
                session.events.push_back(PeerEvent::WriterBehind { key, held, len });
            }
        }
        if let Some(len) = effect.remote_len {
            self.tell(feed, FeedEvent::RemoteUpdate { peer: id, len });
        }
        let proven = effect.proven || effect.stored.is_some();
        if only_offered && proven && !self.settle_offered(feed, id) {
            return;
        }
        if let Some(index) = came.filter(|_| only_offered) {
            self.feeds[feed.0 as usize].stored(index, id);
        }
        if effect.proven {
            self.mark_dirty(feed);
        }
        if effect.held.is_some() {
            // Acknowledged with what is written next.
            self.mark_dirty(feed);
        }
        if let Some((index, size)) = effect.stored {
            // One that no message can carry is kept, and not announced. Others note that it is here before anything else is looked at: what
            // they told of is forgotten as it is seen to be held.
            if stored.is_some() {
                self.gained(feed, index..index + 1, Some(id));
            }
            self.came_from(id, feed, index, size);
            let moved = Moved::received(size);
            if let Some(session) = self.sessions.get_mut(&id) {
                if stored.is_some() {
                    session.note_unwritten(feed);
                }
                session.transfer.brought(size, session.ahead.delay(), session.transfer.time(self.now));
                session.note_moved(feed, moved, self.now);
            }
            self.feeds[feed.0 as usize].moved.add(moved);
            self.traffic.note(feed, moved, self.now);
            self.mark_dirty(feed);
            self.mind_limits(id);
            self.uncommitted.bytes += size as usize;
            self.mind_space(size);
            if self.feeds[feed.0 as usize].feed.staged_bytes() > self.limits.staged_bytes {
                self.commit_feed(feed);
            }
        }
        if effect.released {
            self.retry_requests(feed, Some(id));
        }
        if only_offered && !proven {
            self.hush_offer(id, feed);
        }
    }

    /// The remote told of blocks of a feed after this side had closed the channel: those that are not here are missing.
    fn heard_of_more(&mut self, id: SessionId, feed: FeedId, blocks: Range<u64>) {
        if let (Some(slot), Some(session)) = (self.feeds.get(feed.0 as usize), self.sessions.get_mut(&id))
            && !slot.removed
            && slot.download != Some(false)
        {
            session.note_more(feed, &slot.feed, blocks);
        }
    }

    /// Notes that a message came on a feed's channel, and since when what it answers had waited.
    fn heard(&mut self, id: SessionId, answered: Option<Duration>) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.heard();
        match answered {
            Some(since) => session.transfer.came(since, session.transfer.time(self.now)),
            None => session.transfer.came_in_vain(),
        }
    }

    /// Notes that a part of a message came. If it can answer something, the remote is not silent.
    fn heard_part(&mut self, id: SessionId, feed: FeedId, is_data: bool, bytes: usize) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let now = session.transfer.time(self.now);
        if let Some(since) = session.peers.get(&feed).and_then(|peer| peer.waits_for(is_data)) {
            session.transfer.arrives(feed, bytes, since, now, self.limits.slowest_rate);
        }
    }

    /// Runs a call on the machine of a feed on a session, and deals with what it leaves.
    pub(super) fn with_peer(
        &mut self,
        id: SessionId,
        feed: FeedId,
        call: impl FnOnce(&mut FeedChannel, &mut Work<'_, S>) -> Result<(), PeerFault>,
    ) {
        let spare = self.lend(id, feed, call);
        self.take_turns(id, feed, spare);
    }

    /// Lends a feed to its machine on a session. The turns of the session's feeds have to be [taken](Self::take_turns) afterwards; returns whether
    /// it has room to spare.
    fn lend(
        &mut self,
        id: SessionId,
        feed: FeedId,
        call: impl FnOnce(&mut FeedChannel, &mut Work<'_, S>) -> Result<(), PeerFault>,
    ) -> bool {
        self.begin_use(feed);
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        let now = session.transfer.time(self.now);
        let (share, may_double) = (session.share(feed, now), !session.turns.is_taken());
        let stays = session.stays_open(feed, now);
        let Some(slot) = self.feeds.get_mut(feed.0 as usize) else { return false };
        let Some(peer) = session.peers.get_mut(&feed) else { return false };
        let _in = session.span.enter_feed(&slot.feed);
        let shared = slot.subscribers.len() > 1;
        let mut work = work(slot, &mut self.cores.storage, &self.limits, share, now);
        work.stays = stays;
        let mut spare = false;
        match call(peer, &mut work) {
            Ok(()) => {
                spare = shared && may_double && peer.has_spare_room();
                let standing = peer.assess(&mut work);
                let (share, stayed) = (work.share, work.stayed);
                if stayed {
                    session.relays.stay(feed);
                }
                session.set_standing(feed, standing, &mut slot.fetching);
                session.activate(feed);
                session.shared(feed, share);
            }
            Err(fault) => self.feed_fault(id, feed, fault),
        }
        spare
    }

    /// After a feed was lent: those that wait for room ask, and then it asks for what others are slow with.
    fn take_turns(&mut self, id: SessionId, feed: FeedId, spare: bool) {
        self.give_turns(id);
        if spare {
            self.ask_too(id, feed);
        }
    }

    /// Lets those feeds of a session ask for more that wait for room, one after the other, as far as there is some.
    fn give_turns(&mut self, id: SessionId) {
        while let Some(feed) = self.sessions.get_mut(&id).and_then(PeerSession::next_asker) {
            self.with_peer(id, feed, |peer, work| {
                peer.advance(work);
                Ok(())
            });
            if let Some(session) = self.sessions.get_mut(&id) {
                session.turns.end();
            }
        }
    }

    /// Something went wrong with a feed on a session. If that is damage in the feed's own files, or its folder was moved or cannot be opened, only its
    /// channel closes: the others are not harmed by it.
    pub(super) fn feed_fault(&mut self, id: SessionId, feed: FeedId, fault: PeerFault) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let is_of_the_feed = |error: &StoreError| {
            let elsewhere = matches!(error, StoreError::Occupied { .. } | StoreError::Moved { slot: Some(_), .. });
            elsewhere || error.is_of_one_place()
        };
        match fault {
            PeerFault::Store(error) if is_of_the_feed(&error) && session.single_feed().is_none() => {
                let (key, error) = (self.feeds[feed.0 as usize].feed.key(), self.why_occupied(error));
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.damaged(key, None, error);
                }
                self.leave_channel(id, feed);
            }
            fault => self.fault(id, fault),
        }
    }

    pub(super) fn fault(&mut self, id: SessionId, fault: PeerFault) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        match fault {
            PeerFault::Remote(error) => session.abort(error),
            PeerFault::Store(error) => session.fail(error),
        }
        self.wake(id);
    }

    /// Blocks are free that a remote was asked for. Asks the others, those after `from` first and that one last, so that each has its turn
    /// whatever any of them does.
    pub(super) fn retry_requests(&mut self, feed: FeedId, from: Option<SessionId>) {
        self.feeds[feed.0 as usize].doubled.clear();
        let mut subscribers = self.feeds[feed.0 as usize].subscribers.clone();
        if let Some(at) = subscribers.iter().position(|&subscriber| Some(subscriber) == from) {
            subscribers.rotate_left(at + 1);
        }
        for id in subscribers {
            self.with_peer(id, feed, |peer, work| {
                peer.retry_requests(work);
                Ok(())
            });
            self.wake(id);
        }
    }

    pub(super) fn end_if_through(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.end_if_through();
        // What it told of and did not bring is missing, however it ended, and so is there what it did not take.
        let through = self.sessions.get(&id).filter(|session| session.is_through());
        let lacks = through.is_some_and(|session| self.missing(session) > 0 || self.not_taken(session) > 0);
        if let Some(session) = self.sessions.get_mut(&id).filter(|_| lacks) {
            session.part();
        }
    }

    pub(super) fn wake(&mut self, id: SessionId) {
        self.sessions.wake(id);
    }
}

impl FeedSlot {
    /// Notes a block that a session brought, joined to the run that it continues.
    fn stored(&mut self, index: u64, from: SessionId) {
        match self.unannounced.last_mut() {
            Some((blocks, source)) if blocks.end == index && *source == Some(from) => blocks.end += 1,
            _ => self.unannounced.push((index..index + 1, Some(from))),
        }
    }
}

pub(super) fn work<'a, S>(
    slot: &'a mut FeedSlot,
    storage: &'a mut S,
    limits: &'a Limits,
    share: Share,
    now: Duration,
) -> Work<'a, S> {
    let FeedSlot { feed, reserved, wants, fetching, unannounced, unwritten, .. } = slot;
    Work {
        feed,
        reserved,
        fetching: *fetching,
        unannounced: !unannounced.is_empty() && unwritten.is_none(),
        wants,
        storage,
        limits,
        share,
        room: u64::MAX,
        paced: false,
        now,
        leaf: None,
        stays: false,
        stayed: false,
        too_large: Vec::new(),
        damaged: None,
    }
}
