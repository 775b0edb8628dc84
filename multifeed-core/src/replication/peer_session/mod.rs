//! One connection: the feeds that both sides agreed on, each with its machine, and what is sent in which order.

mod channels;
mod ending;
mod exchange;
mod left;
mod outgoing;
mod relays;
mod room;
mod slow;
mod turns;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use exchange::Exchange;
use left::{DesertedFeeds, GivenUp};
use multifeed_proto::{Command, FeedKey, HandshakeHash, PeerKey, RemoteHandshake, Root, Scope, Token};
use outgoing::Outgoing;
use relays::Relays;
use room::Room;
use turns::Turns;

use crate::error::StoreError;
use crate::feed::Feed;
use crate::ids::FeedId;
use crate::limits::{Limits, PeerLimits};
use crate::log::{Span, log};
use crate::replication::ahead::Ahead;
use crate::replication::matched::MatchedFeeds;
use crate::replication::not_taken::NotTaken;
use crate::replication::offers::Offers;
use crate::replication::peer::{FeedChannel, PeerOptions, PeerProgress, Sent};
use crate::replication::policy::Remote;
use crate::replication::reconcile;
use crate::replication::replicate::{PeerEvent, Replicate, SyncTotals};
use crate::replication::sources::Brought;
use crate::replication::transfer::{Share, Transfer};
use crate::replication::wants::{WantId, Wants};
use crate::sets::sparse_bits::SparseBits;
use crate::stats::{Meter, Moved, SyncState};

pub(crate) use channels::Channel;

/// The machine of one connection. It owns the order of what is sent; the feeds belong to the multifeed.
#[derive(Debug)]
pub(crate) struct PeerSession {
    /// This multifeed's name on the stream.
    root: Root,
    /// The feed that it is about, if that is one alone: then there are no lists.
    single_feed: Option<FeedKey>,
    pub(crate) options: Replicate,
    /// Feeds that the remote offered or that were offered to it.
    pub(crate) known: SparseBits,
    /// Those of them that the remote offered: it answers a request for no others.
    pub(crate) offered_there: SparseBits,
    pub(crate) peers: BTreeMap<FeedId, Box<FeedChannel>>,
    /// Feeds that both sides hold alike, of which nothing has to be said.
    pub(crate) matched: MatchedFeeds,
    /// What the remote does not take of what it is offered.
    pub(crate) not_taken: NotTaken,
    /// Blocks that it lacked as it was left, and never asked for.
    unwanted_blocks: u64,
    /// Whether the matched feeds were reported to the application.
    pub(crate) matched_reported: bool,
    /// Until the session is ready.
    pub(crate) handshake_hash: Option<HandshakeHash>,
    /// What the remote offered and nobody here holds.
    pub(crate) offers: Offers,
    /// The remote, once it is known.
    pub(crate) remote: Option<Box<Remote>>,
    pub(crate) remote_public_key: PeerKey,
    /// What is recorded of it stands in this.
    pub(crate) span: Span,
    /// What it may bring.
    pub(crate) limits: PeerLimits,
    /// What it brought, on all its sessions.
    pub(crate) brought: Arc<Brought>,
    /// Blocks that it brought and that are not written yet, by feed, and how many the disk did not take.
    unwritten: BTreeMap<FeedId, u64>,
    dropped: u64,
    /// Why nothing is fetched, or, in a session that is not live, was not all the time: the disk is full, or was.
    paused: Option<StoreError>,
    /// It was reported to the application that this session brought as many bytes as it may.
    pub(crate) byte_limit_reported: bool,
    /// And as many feeds.
    pub(crate) full_reported: bool,
    /// Feeds that were left out of the list in which the remote last announced them: at the most as many as it may offer, all lists together.
    pub(crate) declined: BTreeSet<FeedKey>,
    /// Feeds of the remote's that its policy, what it may bring, or a ban refused, or that were removed: at the most as many as it may offer.
    pub(crate) refused: BTreeSet<FeedKey>,
    pub(crate) totals: SyncTotals,
    /// What the remote was asked for, of all feeds, and when it answered.
    pub(crate) transfer: Transfer,
    pub(crate) events: VecDeque<PeerEvent>,
    /// Whether it stands in the multifeed's queue of those with something to send or to tell.
    pub(crate) queued: bool,
    /// What stands ready to be sent.
    pub(crate) outgoing: Outgoing,
    /// What each channel is of. A name is used once: what the session reported of a channel that was closed is nobody's.
    channels: BTreeMap<Token, Channel>,
    next_token: u32,
    /// Which feeds have something to do.
    pub(crate) turns: Turns,
    slow_sends: slow::SlowSends,
    /// Which feeds' blocks wait for room.
    pub(crate) room: Room,
    /// What was sent and is not acknowledged, and which feeds' blocks wait for that.
    pub(crate) ahead: Ahead,
    exchange: Exchange,
    /// The live flag of the remote, once it is known.
    remote_live: Option<bool>,
    stage: Stage,
    progress_due: bool,
    /// Blocks came that are not written yet: that is progress once they are.
    brought_unwritten: bool,
    /// What the remote has of every feed must be known.
    observed: bool,
    /// The sum of how the feeds stand.
    sums: PeerProgress,
    /// What moved lately.
    meter: Meter,
    /// Feeds whose channels are closed, and of which both sides held the same then, and since.
    closed_in_sync: SparseBits,
    /// It came to its end because nothing was left to do.
    through: bool,
    /// It is over, and was in sync until then.
    ended_in_sync: bool,
    /// A feed of both sides is left as it is. It is damaged here, or has two histories, or is one of ours of which the remote has more, or the
    /// remote left something of it unanswered.
    apart: bool,
    /// What it did not bring of feeds whose channels are closed, and whether it said of all else that it does not have it.
    left: BTreeMap<FeedId, (bool, SparseBits)>,
    /// How many blocks that was of feeds that have no place in the store.
    left_new: BTreeMap<FeedKey, u64>,
    given_up: GivenUp,
    deserted: DesertedFeeds,
    /// Whether it was in sync at the last report.
    in_sync_reported: bool,
    /// Since when nothing was asked or under way either way, as of the last look.
    idle_since: Option<Duration>,
    /// The remote was reminded of the end since it last said something.
    nudged: bool,
    /// The feeds of others that the remote passes on.
    pub(crate) relays: Relays,
    /// The remote closed the root key's channel: one that is not live has come to an end with a feed.
    root_closed: bool,
    /// Why it has to end, if our own storage failed.
    failure: Option<StoreError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Until the remote's handshake was accepted.
    Greeting,
    Running,
    /// Finish or Abort is queued.
    Ending,
    /// The session reported its end.
    Closed,
}

impl PeerSession {
    pub(crate) fn new(root: Root, options: Replicate) -> Self {
        Self {
            root,
            single_feed: None,
            options,
            known: SparseBits::default(),
            offered_there: SparseBits::default(),
            peers: BTreeMap::new(),
            matched: MatchedFeeds::default(),
            not_taken: NotTaken::default(),
            unwanted_blocks: 0,
            matched_reported: false,
            handshake_hash: None,
            offers: Offers::default(),
            remote: None,
            remote_public_key: PeerKey::new([0; 32]),
            span: Span::none(),
            limits: PeerLimits::default(),
            brought: Arc::default(),
            paused: None,
            unwritten: BTreeMap::new(),
            dropped: 0,
            byte_limit_reported: false,
            full_reported: false,
            declined: BTreeSet::new(),
            refused: BTreeSet::new(),
            totals: SyncTotals::default(),
            transfer: Transfer::default(),
            events: VecDeque::new(),
            queued: false,
            outgoing: Outgoing::default(),
            channels: BTreeMap::new(),
            next_token: 0,
            turns: Turns::default(),
            slow_sends: slow::SlowSends::default(),
            room: Room::default(),
            ahead: Ahead::default(),
            exchange: Exchange::default(),
            remote_live: None,
            stage: Stage::Greeting,
            progress_due: false,
            brought_unwritten: false,
            observed: false,
            sums: PeerProgress::default(),
            meter: Meter::default(),
            closed_in_sync: SparseBits::default(),
            through: false,
            ended_in_sync: false,
            apart: false,
            left: BTreeMap::new(),
            left_new: BTreeMap::new(),
            given_up: GivenUp::default(),
            deserted: DesertedFeeds::default(),
            in_sync_reported: false,
            idle_since: None,
            nudged: false,
            relays: Relays::default(),
            root_closed: false,
            failure: None,
        }
    }

    /// A session of one feed alone.
    pub(crate) fn of_one(root: Root, options: Replicate, key: FeedKey) -> Self {
        Self { single_feed: Some(key), ..Self::new(root, options) }
    }

    /// The stream is there: a session of one feed alone needs nothing more, and tells which feed that is.
    pub(crate) fn begin_lone(&mut self) -> Option<FeedKey> {
        let key = self.single_feed.filter(|_| self.stage == Stage::Greeting)?;
        self.stage = Stage::Running;
        self.exchange.manifest_seen = true;
        Some(key)
    }

    /// Returns the feed that it is about, if that is one alone.
    pub(crate) fn single_feed(&self) -> Option<FeedKey> {
        self.single_feed
    }

    /// Whether lists of feeds are exchanged, now or later.
    pub(crate) fn exchanges_lists(&self) -> bool {
        self.is_running() && self.single_feed.is_none()
    }

    /// Whether feeds are replicated: the handshake is done, and no end is near.
    pub(crate) fn is_running(&self) -> bool {
        self.stage == Stage::Running
    }

    /// Whether it is live, and takes nothing new any more: what is made or comes now does not reach the remote.
    pub(crate) fn is_ending_live(&self) -> bool {
        self.stage == Stage::Ending && self.single_feed.is_none() && self.is_live()
    }

    /// Whether this session goes on after both sides have everything.
    pub(crate) fn is_live(&self) -> bool {
        self.options.live && self.remote_live != Some(false)
    }

    /// The remote's handshake was accepted.
    pub(crate) fn ready(&mut self, handshake: &RemoteHandshake) {
        if self.stage == Stage::Greeting {
            self.stage = Stage::Running;
            // JS sends the option only if it was given.
            self.remote_live = Some(handshake.live.unwrap_or(false));
            log!(DEBUG, "session", in self.span, "the remote is ready",
                client = ?handshake.client, version = ?handshake.version, live = ?handshake.live);
            let remote = Remote { public_key: self.remote_public_key, handshake: handshake.clone() };
            if let Some(limits) = self.options.policy.as_ref().and_then(|policy| policy.limits(&remote)) {
                self.limits = limits;
            }
            self.remote = Some(Box::new(remote));
        }
    }

    /// Asks the policy again what the remote may bring. A bound that is reached now is reported as if it had not been before.
    pub(crate) fn ask_for_limits(&mut self, limits: &Limits) {
        if let (Some(policy), Some(remote)) = (&self.options.policy, &self.remote) {
            self.limits = policy.limits(remote).unwrap_or(limits.peer);
        }
        self.full_reported &= self.is_full();
        self.byte_limit_reported &= self.is_byte_limit_reached();
    }

    /// Whether the remote opens a feed's channel again that was closed: one of ours does. JS folds a feed into a stream once.
    pub(crate) fn opens_again(&self) -> bool {
        self.reconcile_scope().is_some()
    }

    pub(crate) fn peer_options(&self) -> PeerOptions {
        let reconciles = self.reconcile_scope().is_some();
        PeerOptions {
            live: self.is_live(),
            // Nothing tells of one feed alone whether the remote stays.
            one_sided: !self.options.live && (self.remote_live == Some(true) || self.single_feed.is_some()),
            download: self.options.download,
            upload: self.options.upload,
            sparse: self.is_sparse(),
            observed: self.observed,
            reconciles,
            relays: self.relays.is_some() && !reconciles,
        }
    }

    /// Whether only what is asked for is fetched.
    pub(crate) fn is_sparse(&self) -> bool {
        self.options.sparse.unwrap_or(false)
    }

    /// Whether this session may still bring what is waited for.
    pub(crate) fn may_bring(&self, feed: FeedId, wants: &Wants, id: WantId) -> bool {
        match (self.stage, self.peers.get(&feed)) {
            (Stage::Greeting, _) => true,
            (Stage::Running, Some(peer)) => peer.may_bring(wants, id),
            (Stage::Running, None) => !self.lists_are_exchanged() || self.offers.is_waiting(),
            (Stage::Ending | Stage::Closed, _) => false,
        }
    }

    /// Returns the scope in which the remote reconciles, if it does.
    pub(crate) fn reconcile_scope(&self) -> Option<Scope> {
        reconcile::scope(self.root, &self.remote.as_ref()?.handshake)
    }

    /// Sends a message of the reconciliation.
    pub(crate) fn send_reconcile(&mut self, body: Bytes) {
        let scope = self.reconcile_scope().unwrap_or(Scope::Stream);
        self.outgoing.push(Command::SendExtension { scope, name: reconcile::EXTENSION.into(), body });
    }

    /// A feed is not in step with the remote's any more. Whether it was.
    pub(crate) fn unmatch(&mut self, feed: FeedId) -> bool {
        let was = self.matched.remove(feed);
        if was {
            self.totals.in_step = self.totals.in_step.saturating_sub(1);
            self.totals.feeds = self.totals.feeds.saturating_sub(1);
        }
        was
    }

    /// Whether the remote brought as many bytes as it may.
    pub(crate) fn is_byte_limit_reached(&self) -> bool {
        self.brought.bytes() >= self.limits.bytes
    }

    /// Whether it brought as many new feeds as it may.
    pub(crate) fn is_full(&self) -> bool {
        self.brought.feeds() >= self.limits.feeds
    }

    /// Has a command of the application's extensions done.
    pub(crate) fn extend(&mut self, command: Command) {
        if self.is_running() {
            self.outgoing.push(command);
        }
    }

    /// Notes that a feed's machine has something to send.
    pub(crate) fn activate(&mut self, feed: FeedId) {
        if let Some(peer) = self.peers.get_mut(&feed) {
            self.turns.activate(feed, peer);
        }
    }

    /// Notes that a feed sent so many bytes.
    pub(crate) fn sent(&mut self, feed: FeedId, bytes: usize) {
        if let Some(peer) = self.peers.get_mut(&feed) {
            self.turns.sent(feed, peer, bytes);
        }
    }

    /// Takes a feed's machine out: the channel is closed.
    pub(crate) fn remove(&mut self, feed: FeedId) -> Option<FeedChannel> {
        let mut peer = self.peers.remove(&feed)?;
        self.turns.set_busy(&mut peer, false);
        self.offers.ask_no_more(feed);
        self.channels.remove(&peer.token);
        self.ahead.forget(feed);
        self.sums.remove(peer.standing);
        self.progress_due |= self.observed;
        Some(*peer)
    }

    /// Sets how a feed stands. `fetching` counts the sessions that have something of it to bring.
    pub(crate) fn set_standing(&mut self, feed: FeedId, standing: PeerProgress, fetching: &mut u32) {
        let Some(peer) = self.peers.get_mut(&feed) else { return };
        *fetching = (*fetching + standing.fetches()).saturating_sub(peer.standing.fetches());
        let before = std::mem::replace(&mut peer.standing, standing);
        let busy = !peer.is_at_rest();
        self.turns.set_busy(peer, busy);
        if before != standing {
            match (before.in_flight, standing.in_flight) {
                (0, 1..) => log!(DEBUG, "feed", "requests blocks", missing = ?standing.missing_here),
                (1.., 0) => log!(DEBUG, "feed", "every request was answered", missing = ?standing.missing_here),
                _ => {}
            }
            self.sums.remove(before);
            self.sums.add(standing);
            self.progress_due |= self.observed;
        }
    }

    /// What a feed may ask for now.
    pub(crate) fn share(&mut self, feed: FeedId, now: Duration) -> Share {
        if self.turns.is_behind(feed) {
            return self.transfer.no_share(now);
        }
        self.transfer.share(self.sums.cost, self.turns.is_of(feed), self.turns.has_starved(), now)
    }

    /// What an answer counts, if blocks have so many bytes.
    pub(crate) fn answer_cost(&self, mean: Option<u64>) -> u64 {
        self.transfer.answer_cost(mean)
    }

    /// How much comes up to the end of an answer that ends [there](Share::through).
    pub(crate) fn comes_before(&self, through: u64) -> u64 {
        self.transfer.comes_before(through, self.sums.cost)
    }

    /// How long the answers take that are waited for.
    pub(crate) fn answers_take(&self) -> Duration {
        self.transfer.delay(self.sums.cost)
    }

    /// Notes whether a feed had more to ask for than its share.
    pub(crate) fn shared(&mut self, feed: FeedId, share: Share) {
        self.transfer.used(share);
        if share.is_starved()
            && let Some(peer) = self.peers.get_mut(&feed)
        {
            self.turns.starve(feed, peer);
        }
    }

    /// Notes that what came is written. Returns whether that is progress.
    pub(crate) fn note_written(&mut self) -> bool {
        let brought = std::mem::take(&mut self.brought_unwritten);
        self.progress_due |= brought;
        brought
    }

    /// Notes what moved of a feed.
    pub(crate) fn note_moved(&mut self, feed: FeedId, moved: Moved, now: Duration) {
        let totals = &mut self.totals;
        self.brought.add_bytes(moved.bytes_received);
        totals.blocks_received += moved.blocks_received;
        totals.bytes_received += moved.bytes_received;
        totals.blocks_sent += moved.blocks_sent;
        totals.bytes_sent += moved.bytes_sent;
        self.meter.add(moved, now);
        self.brought_unwritten |= moved.blocks_received > 0;
        self.progress_due |= moved.blocks_received == 0;
        if let Some(peer) = self.peers.get_mut(&feed) {
            peer.moved.add(moved);
        }
    }

    /// Notes that what the remote has must be known from now on. False if it was so already.
    pub(crate) fn observe(&mut self) -> bool {
        !std::mem::replace(&mut self.observed, true)
    }

    pub(crate) fn is_observed(&self) -> bool {
        self.observed
    }

    /// Whether both sides hold the same, apart from what is not written here yet.
    pub(crate) fn is_in_sync(&self) -> bool {
        if self.stage == Stage::Closed {
            return self.ended_in_sync;
        }
        let all = self.sums.in_sync == self.peers.len() as u64;
        let listed = self.lists_are_exchanged()
            && !self.matched.is_running()
            && self.matched.behind() == 0
            && !self.offers.is_waiting();
        !self.is_apart()
            && self.totals.unwanted == 0
            && self.not_taken.blocks() == 0
            && (self.through || (self.observed && self.stage != Stage::Greeting && listed && all))
    }

    /// Whether something was asked in vain, of either side, or is left as it is.
    fn is_apart(&self) -> bool {
        let left = !self.given_up.is_empty() || !self.deserted.are_even();
        self.apart || left || self.paused.is_some() || !self.exchange.requested.is_empty()
    }

    /// A feed of both sides is left as it is, though they do not hold the same of it.
    pub(crate) fn part(&mut self) {
        self.apart = true;
    }

    /// No more of a feed is fetched, since the remote brought as much as it may. What is left of it keeps both from being in sync.
    pub(crate) fn note_cut(&mut self, feed: FeedId) {
        self.apart |= self.peers.get_mut(&feed).is_some_and(|peer| peer.cut());
    }

    /// A feed's own files are damaged.
    pub(crate) fn damaged(&mut self, key: FeedKey, block: Option<u64>, error: StoreError) {
        self.part();
        log!(DEBUG, "feed", in self.span, "damaged here", key = ?key, block = ?block, error = %error);
        self.events.push_back(PeerEvent::Damaged { key, block, error });
    }

    /// Remembers, as a feed's channel closes, whether the remote denied it.
    pub(crate) fn note_denied(&mut self, id: FeedId, feed: &Feed) {
        self.apart |= self.peers.get_mut(&id).is_some_and(|peer| peer.is_denied(feed));
    }

    /// Has progress reported if it is in sync now and was not at the last report, or the other way round.
    pub(crate) fn note_in_sync(&mut self, in_sync: bool) {
        self.progress_due |= self.observed && in_sync != self.in_sync_reported && self.stage != Stage::Closed;
    }

    /// The remote said something.
    pub(crate) fn heard(&mut self) {
        self.nudged = false;
        self.stir();
    }

    /// Something came, or went, so that the session is not idle. The reminder that was sent does not count, until the remote says something.
    pub(crate) fn stir(&mut self) {
        if !self.nudged {
            self.idle_since = None;
        }
    }

    /// Whether the session should be polled.
    pub(crate) fn has_output(&self) -> bool {
        let is_active = self.turns.has_active() || self.ahead.has_next();
        let commands = self.outgoing.has_room() && (is_active || !self.outgoing.is_empty());
        commands || self.outgoing.ends_now() || self.progress_due || !self.events.is_empty()
    }

    /// The feed whose turn it is to send, within the grant.
    pub(crate) fn poll_active(&mut self) -> Option<FeedId> {
        if !self.outgoing.has_room() || !self.outgoing.is_empty() {
            return None;
        }
        if let Some(feed) = self.turns.next_active() {
            if let Some(peer) = self.peers.get_mut(&feed) {
                peer.place.active = false;
            }
            return Some(feed);
        }
        let feed = self.ahead.next()?;
        if let Some(peer) = self.peers.get_mut(&feed) {
            peer.unpace();
        }
        Some(feed)
    }

    /// What a feed's machine gave, as the command that sends it.
    pub(crate) fn command(&mut self, token: Token, sent: Sent) -> Command {
        let message = match sent {
            Sent::Close => {
                let command = Command::Close { token };
                self.outgoing.charge(&command);
                return command;
            }
            Sent::Message(message) => message,
        };
        let command = Command::Send { token, message };
        self.outgoing.charge(&command);
        command
    }

    /// Returns what the application is told next. `clean` says that all that came is written and reported, and `served` which feeds, by their places,
    /// have blocks that are served.
    pub(crate) fn poll_event(&mut self, clean: bool, now: Duration, served: impl Fn(u32) -> bool) -> Option<PeerEvent> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        if !std::mem::take(&mut self.progress_due) {
            return None;
        }
        let state = self.state(clean, now, served);
        self.in_sync_reported = state.in_sync;
        Some(PeerEvent::Progress(state))
    }

    /// A block of a feed came, and is not written yet.
    pub(crate) fn note_unwritten(&mut self, feed: FeedId) {
        *self.unwritten.entry(feed).or_default() += 1;
    }

    /// What it brought of a feed is written now, or `lost`: the disk did not take it, and it has to come again.
    pub(crate) fn note_feed_written(&mut self, feed: FeedId, lost: bool) {
        let blocks = self.unwritten.remove(&feed).unwrap_or_default();
        self.dropped += if lost { blocks } else { 0 };
    }

    /// How many blocks that it brought wait for the disk.
    pub(crate) fn waiting_for_disk(&self) -> u64 {
        self.unwritten.values().sum()
    }

    /// How many feeds of those that are `served`, by their places, its remote does not take, or takes no more of.
    pub(crate) fn feeds_not_taken(&self, served: impl Fn(u32) -> bool) -> u64 {
        match self.options.upload {
            Some(false) => 0,
            _ => self.not_taken.count(self.is_offer_answered(), served),
        }
    }

    /// How it stands.
    pub(crate) fn state(&self, clean: bool, now: Duration, served: impl Fn(u32) -> bool) -> SyncState {
        let PeerProgress {
            missing_here,
            given_up,
            missing_there,
            bytes_missing,
            in_flight,
            bytes_in_flight,
            requested,
            not_taken,
            in_sync,
            ..
        } = self.sums;
        let totals = &self.totals;
        let all_in_sync = clean && self.is_in_sync();
        let mut feeds = self.peers.len() as u64 + self.matched.count() + self.offers.count();
        let mut feeds_in_sync =
            in_sync + self.matched.count().saturating_sub(self.matched.behind()) + self.offers.empty();
        if !self.is_live() {
            feeds = feeds.max(totals.feeds);
            feeds_in_sync = match all_in_sync {
                true => feeds,
                false => feeds_in_sync + self.closed_in_sync.count(),
            };
        }
        SyncState {
            feeds,
            feeds_in_sync,
            moved: Moved {
                blocks_received: totals.blocks_received,
                bytes_received: totals.bytes_received,
                blocks_sent: totals.blocks_sent,
                bytes_sent: totals.bytes_sent,
            },
            per_second: self.meter.per_second(now),
            unwritten: self.waiting_for_disk() + self.dropped,
            missing_here: missing_here + given_up + self.given_up.blocks() + self.deserted.missing_here(),
            bytes_missing_here: bytes_missing[0],
            missing_there: missing_there
                + self.not_taken.blocks()
                + self.deserted.missing_there()
                + self.unwanted_blocks,
            bytes_missing_there: bytes_missing[1],
            not_taken: not_taken + self.feeds_not_taken(served),
            in_flight,
            bytes_in_flight,
            requested,
            in_sync: all_in_sync,
        }
    }
}
