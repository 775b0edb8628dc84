//! One feed on one connection: want, have, request, data, and the end of it.
//!
//! The rules are those of hypercore 9's `lib/replicate.js`; if two of ours meet, they keep to the same ones.

mod acknowledgements;
mod closing;
mod doubled;
mod download;
mod history;
mod holding;
pub(crate) mod parked;
mod progress;
mod questions;
mod received;
mod relayed;
mod remote_missing;
mod state;
mod unanswered;
mod upload;
mod work;

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use multifeed_proto::machine::Machine;
use multifeed_proto::{Have, Message, Token};

use self::acknowledgements::Acks;
use self::download::{Download, Scope, WANT_BLOCKS};
use self::history::Terms;
use self::remote_missing::RemoteMissing;
use self::state::{ChannelState, ChannelStep, Ended, Fetch, FetchStep, History, HistoryStep, RemoteStatus};
use self::upload::Upload;
use crate::feed::Feed;
use crate::limits::Limits;
use crate::replication::wants::{WantId, Wants};
use crate::sets::sparse_bits::SparseBits;
use crate::stats::Moved;
use crate::storage::Storage;

pub(crate) use self::closing::Deserted;
pub use self::progress::PeerInfo;
pub(crate) use self::progress::{Left, PeerProgress};
pub(crate) use self::received::unproven;
pub(crate) use self::work::{Effect, PeerFault, PeerOptions, Sent, Shown, TooLarge, Work};

/// Between peers of ours, an Unhave of so many blocks from the first tells that the sender has another history of the feed. It
/// means all blocks that a number of JavaScript's can name, and so nothing but what it says to one that does not know.
const ANOTHER_HISTORY: u64 = (1 << 53) - 1;

/// The place of a feed's channel in its session.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Place {
    /// In the queue of those with something to send.
    pub(crate) active: bool,
    /// In the queue of those that wait for room to ask for more.
    pub(crate) starved: bool,
    /// Among those on which something is under way.
    pub(crate) busy: bool,
}

/// The machine of one feed on one connection.
#[derive(Debug)]
pub(crate) struct FeedChannel {
    /// The channel's name on its session, which gives it.
    pub(crate) token: Token,
    /// Its place in its session, which keeps that.
    pub(crate) place: Place,
    /// What moved.
    pub(crate) moved: Moved,
    /// How it stood when its session last looked.
    pub(crate) standing: PeerProgress,
    options: PeerOptions,
    state: ChannelState,
    /// Why this side ended it, if it did.
    ended: Option<Ended>,
    fetch: Fetch,
    history: History,
    /// Whether blocks are served.
    uploading: bool,
    /// Whether nothing is fetched only as long as the disk is full.
    waits_for_disk: bool,
    remote: RemoteStatus,
    holding: holding::Holding,
    acks: Acks,
    /// When the channel was opened here.
    since: Duration,
    /// Until when blocks are waited for that the remote may pass on.
    relay_until: Option<Duration>,
    download: Download,
    upload: Upload,
    /// What the remote lacks; kept if somebody wants to know, or our end hangs on it.
    remote_missing: RemoteMissing,
    out: VecDeque<Message>,
}

impl FeedChannel {
    pub(crate) fn new(feed: &Feed, options: PeerOptions, now: Duration) -> Self {
        // Of one whose signature is lost the answer brings that back.
        let asks_all = feed.writable() || feed.lacks_signature();
        let terms = match (asks_all, options.reconciles, options.sparse) {
            (true, _, _) => Terms::Always,
            (false, true, _) => Terms::AsLong,
            (false, false, true) => Terms::OnceUnlessLonger,
            (false, false, false) => Terms::Once,
        };
        let (mut fetch, mut history) = (Fetch::START, History::START);
        if options.fetches() {
            let is_whole = options.download.is_none() && is_whole_writer(feed);
            fetch.on(if is_whole { FetchStep::StartOfWriter } else { FetchStep::Start });
            history.on(HistoryStep::Check);
        }
        Self {
            token: Token(0),
            place: Place::default(),
            moved: Moved::default(),
            standing: PeerProgress::default(),
            options,
            state: ChannelState::START,
            ended: None,
            fetch,
            history,
            uploading: options.upload.unwrap_or(true),
            waits_for_disk: false,
            remote: RemoteStatus::default(),
            holding: holding::Holding::default(),
            acks: Acks::default(),
            since: now,
            relay_until: None,
            download: Download::new(terms, options.reconciles),
            upload: Upload::default(),
            remote_missing: RemoteMissing::default(),
            out: VecDeque::new(),
        }
    }

    /// Blocks that the remote has and we lack.
    pub(crate) fn missing(&self) -> u64 {
        match (self.fetch.is_on() && !self.download.is_draining(), self.is_sparse()) {
            (false, _) => 0,
            (true, false) => self.download.missing(),
            (true, true) => self.download.in_flight() as u64,
        }
    }

    /// How many bytes the block has that waits until there is room to send it.
    pub(crate) fn room_needed(&self) -> Option<u64> {
        self.upload.room_needed()
    }

    /// Whether what it is sent waits for acknowledgements. One of ours asks for no more than it can take soon.
    pub(crate) fn acknowledges_to_us(&self) -> bool {
        self.acks.are_asked_for() && !self.options.reconciles
    }

    /// Whether the next block waits until the remote acknowledges others.
    pub(crate) fn is_paced(&self) -> bool {
        self.upload.is_paced()
    }

    /// The block that waits for that may be tried again.
    pub(crate) fn unpace(&mut self) {
        self.upload.unpace();
    }

    /// The block that waits for room may be tried again.
    pub(crate) fn make_room(&mut self) {
        self.upload.make_room();
    }

    /// Whether there is something for [`FeedChannel::poll`].
    pub(crate) fn has_output(&self) -> bool {
        !self.state.is_closed()
            && (!self.out.is_empty()
                || self.state.is_closing()
                || (self.state.was_opened() && self.upload.has_output()))
    }

    /// Whether both sides opened the channel.
    pub(crate) fn is_opened(&self) -> bool {
        self.state.was_opened()
    }

    /// The remote opened the channel too.
    pub(crate) fn open<S: Storage>(&mut self, work: &mut Work<'_, S>) {
        self.state.on(ChannelStep::RemoteOpen);
        self.await_relay(work);
        self.download.start(work.now);
        self.ask_for_acks(work.feed);
        if self.only_asks() {
            // JS may close the channel once it hears that nothing is fetched: what it has is asked before.
            self.advance(work);
        }
        if !self.uploading || !self.fetch.is_on() {
            self.send_status(self.uploading, self.fetch.is_on());
        }
        self.advance(work);
    }

    /// Takes a message of the remote's.
    pub(crate) fn handle<S: Storage>(&mut self, message: Message, work: &mut Work<'_, S>) -> Result<Effect, PeerFault> {
        let mut effect = Effect::default();
        if !self.state.goes_on() {
            // What came there before the end still counts, and so does what is missing here from now on.
            if let Message::Have(have @ Have { bitfield: None, .. }) = message {
                self.remote_missing.has(have.start, have.length);
                if !have.ack && !self.options.live {
                    self.download.have(work.feed, &have)?;
                }
            }
            return Ok(effect);
        }
        let waited = self.waits_since().unwrap_or_default();
        match message {
            Message::Options(options) => self.acks.set_remote(options.ack),
            Message::Status { uploading, downloading } => {
                effect.released = self.status(uploading, downloading, work);
            }
            Message::Have(have) if have.ack => {
                effect.arrived = Some(have.start..have.start.saturating_add(have.length.max(1)));
                self.remote_missing.acknowledged(work.feed, have.start, have.length, self.download.to_come());
            }
            Message::Have(have) => {
                let before = self.download.remote_len();
                // What a remote has is no answer to a request that waits for longer.
                let waits = self.download.waits_for(false).is_some();
                let told = self.download.have(work.feed, &have)?;
                effect.answered = (waits && told.is_some()).then_some(waited);
                effect.remote_len = Some(self.download.remote_len()).filter(|&len| len > before);
                if self.keeps_account() {
                    match told {
                        Some(told) => self.note_announced(&told, work)?,
                        None => self.remote_missing.has(have.start, have.length),
                    }
                }
            }
            // What it has can still show which of the two is here.
            Message::Unhave { start: 0, length: ANOTHER_HISTORY } if self.options.reconciles => {
                self.history.on(HistoryStep::Claim);
            }
            Message::Unhave { start, length } => {
                let was_sent = length == 1 && self.remote_missing.was_sent(start);
                effect.arrived = (length == 1).then(|| start..start.saturating_add(1));
                let lost = self.download.unhave(start, length, self.options.live);
                effect.released = self.free(lost, work.reserved);
                if self.acks.are_asked_for() && !self.options.observed {
                    // It did not take what it was sent, or gave it up: the end does not wait for it.
                    self.remote_missing.forget(&(start..start.saturating_add(length.max(1))));
                }
                if was_sent {
                    self.remote_missing.returned(start);
                }
                if self.options.observed {
                    match length.max(1) {
                        // Cheaper to hear again what is left; all else counts as missing there.
                        WANT_BLOCKS.. => self.download.ask_again(),
                        length => self.remote_missing.lost(work.feed, start..start.saturating_add(length)),
                    }
                }
            }
            Message::Want { start, length } if self.uploading => {
                self.upload.want(start, length, work.limits, work.now)?
            }
            Message::Request(request) if self.uploading => {
                self.upload.request(request, work.limits, work.now)?;
                self.ask_for_acks(work.feed);
            }
            Message::Cancel { index, .. } => self.upload.cancel(index),
            Message::Data(data) => self.data(data, waited, work, &mut effect)?,
            // Unwant, extensions that nobody registered, and what a remote asks that is not served.
            _ => {}
        }
        self.advance(work);
        Ok(effect)
    }

    fn status<S: Storage>(&mut self, uploading: bool, downloading: bool, work: &mut Work<'_, S>) -> bool {
        if uploading && !self.remote.uploading {
            self.download.restart();
        }
        (self.remote.uploading, self.remote.downloading) = (uploading, downloading);
        if !downloading {
            // One of ours has to know what came here from others: else it would report that it was not taken.
            self.upload.stop(self.options.live || self.options.reconciles);
            self.remote.reads = self.upload.was_asked();
        }
        let mut released = false;
        if !uploading {
            if self.options.live {
                // What it told of stays missing, as one of ours that bans the feed brings no more.
                self.download.cut();
            }
            let asked = self.download.stop();
            released = self.free(asked, work.reserved);
        }
        let is_answered = !self.only_asks() || self.download.has_announced();
        let may_end = !downloading && !self.options.live && !work.stays && is_answered;
        if may_end && !self.wants_more(work.feed, work.wants) && !self.holds(work) {
            self.end_acknowledged(work);
        }
        released
    }

    /// Blocks were given up here. If what the remote has is fetched, they are too: it is asked again what it has, if it spoke of as many or was sent any.
    pub(crate) fn retract(&mut self, blocks: Range<u64>, limits: &Limits) {
        self.download.given_up(&blocks);
        // Of what it was sent from here it need not have told.
        let was_sent = self.upload.was_asked() && !self.remote_missing.lacks_all(&blocks);
        let may_have = blocks.start < self.download.remote_len() || was_sent;
        if self.fetch.is_on() && !self.is_sparse() && may_have {
            self.download.ask_again();
        }
        if self.options.observed {
            self.remote_missing.cleared(&blocks);
        } else {
            self.remote_missing.forget(&blocks);
        }
        if self.uploading {
            self.upload.retract(blocks, limits);
        }
    }

    /// Somebody waits no longer: in a sparse session, what was requested only for that is taken back. Whether anything was.
    pub(crate) fn cancel<S: Storage>(&mut self, work: &mut Work<'_, S>) -> bool {
        if !self.is_sparse() {
            return false;
        }
        let cancelled = self.download.cancel(work.wants);
        for &index in &cancelled {
            self.out.push_back(Message::Cancel { index, bytes: 0, hash: false });
        }
        let released = self.free(cancelled, work.reserved);
        self.advance(work);
        released
    }

    /// Notes whether nothing is fetched only as long as the disk is full, before that is [set](Self::set_transfer).
    pub(crate) fn set_waits_for_disk(&mut self, waits: bool) {
        self.waits_for_disk = waits;
    }

    /// Begins or ends to fetch and to serve; `None` leaves it as it is.
    pub(crate) fn set_transfer<S: Storage>(
        &mut self,
        download: Option<bool>,
        upload: Option<bool>,
        work: &mut Work<'_, S>,
    ) {
        if !self.state.goes_on() {
            return;
        }
        if self.download.is_draining() && download == Some(true) && !self.history.is_forked() {
            self.begin_again(work);
        }
        let download = if self.download.is_draining() && download == Some(false) { None } else { download };
        // Nothing of another history is fetched, and if the remote only claims one, it is asked for the proof all the same.
        let download = download.filter(|&download| !(download && self.history.is_forked()));
        let before = (self.uploading, self.fetch.is_on());
        if let Some(download) = download {
            self.fetch.on(if download { FetchStep::Start } else { FetchStep::Stop });
            self.history.on(if download { HistoryStep::Check } else { HistoryStep::Leave });
            if !download {
                self.download.excuse();
            }
        }
        self.uploading = upload.unwrap_or(self.uploading);
        if !self.uploading {
            self.upload.stop(self.options.live);
        }
        if self.state.was_opened() && before != (self.uploading, self.fetch.is_on()) {
            self.send_status(self.uploading, self.fetch.is_on());
        }
        self.retry_requests(work);
    }

    /// Fetches and serves as a channel that begins now: what nobody said of fetching hangs on the feed.
    pub(crate) fn go_on<S: Storage>(&mut self, download: Option<bool>, upload: bool, work: &mut Work<'_, S>) {
        if download.is_some() || !is_whole_writer(work.feed) {
            return self.set_transfer(Some(download.unwrap_or(true)), Some(upload), work);
        }
        self.set_transfer(None, Some(upload), work);
        if self.state.goes_on() && !self.history.is_forked() && self.fetch.on(FetchStep::StartOfWriter) {
            self.history.on(HistoryStep::Check);
            if self.state.was_opened() {
                self.send_status(self.uploading, true);
            }
            self.advance(work);
        }
    }

    /// Takes nothing that was asked for any more. Whether anything was.
    ///
    /// In a session that is not live the remote hears of it only when it answered all that it was asked. JS closes the channel at once when it
    /// hears of it. What it is reading from its disk then follows on a channel that is closed, as bytes that are no frame.
    pub(crate) fn give_up<S: Storage>(&mut self, work: &mut Work<'_, S>) -> bool {
        let drains = self.download.is_draining();
        let asked = if self.options.live { self.download.stop() } else { self.download.drain() };
        let released = !drains && release(asked, work.reserved);
        self.advance(work);
        released
    }

    /// Others may be asked for what this remote was asked for. Whether that was anything: what is drained was free before, and somebody
    /// else may be asked for it by now.
    fn free(&self, asked: impl IntoIterator<Item = u64>, reserved: &mut SparseBits) -> bool {
        !self.download.is_draining() && release(asked, reserved)
    }

    /// Forgets what the remote has, to ask it anew.
    pub(crate) fn begin_again<S: Storage>(&mut self, work: &mut Work<'_, S>) {
        let _ = self.give_up(work);
        self.download.stop_draining();
        self.download.restart();
        self.download.start(work.now);
    }

    /// Whether this remote may still bring what is waited for.
    pub(crate) fn may_bring(&self, wants: &Wants, id: WantId) -> bool {
        let expected = self.state.goes_on() && self.is_downloading() && self.remote.uploading;
        expected && (!self.state.was_opened() || self.download.may_bring(wants, id))
    }

    /// Whether it fetches blocks, as far as this side is concerned.
    pub(crate) fn is_downloading(&self) -> bool {
        self.fetch.is_on() && !self.download.is_draining()
    }

    /// Blocks came from elsewhere or were appended here.
    pub(crate) fn announce(&mut self, blocks: Range<u64>, limits: &Limits) {
        if self.uploading {
            self.upload.announce(blocks, limits);
        }
    }

    /// Gives back memory that is kept for what may come.
    pub(crate) fn shrink(&mut self) {
        self.out.shrink_to_fit();
        self.download.shrink();
        self.upload.shrink();
    }

    /// Blocks that others were asked for are free again.
    pub(crate) fn retry_requests<S: Storage>(&mut self, work: &mut Work<'_, S>) {
        self.download.retry_requests();
        self.advance(work);
    }

    /// Asks for what can be asked for, and ends if there is nothing left to do.
    pub(crate) fn advance<S: Storage>(&mut self, work: &mut Work<'_, S>) {
        if self.state != ChannelState::Open {
            return;
        }
        self.mind_relay(work);
        if self.fetch.is_of_writer() && work.feed.is_writer_behind() {
            self.fetch_the_rest();
        }
        self.resume(work);
        let alone = self.ends_alone(work.feed);
        let reach = if alone || self.options.observed { work.feed.len() } else { 0 };
        let downloading = self.fetch.is_on() && !self.download.is_draining();
        let scope = Scope { fetches: downloading && !self.is_sparse(), ..self.scope(work.wants, reach) };
        if self.remote.uploading
            && (downloading || alone || self.options.observed || scope.compares)
            && !self.download.is_draining()
        {
            self.download.wants(scope, work.feed, work.now, &mut self.out);
        }
        if !self.download.waits_for_comparison() {
            self.upload.was_answered();
        }
        if scope.compares
            && let Some(request) = self.download.compare(work.feed, work.now)
        {
            self.upload.questions();
            self.out.push_back(Message::Request(request));
        }
        self.upload.withhold(scope.compares && self.download.may_differ(work.feed));
        if self.history.is_forked() && !self.options.reconciles && self.upload.is_asked_for_blocks() {
            self.end();
            return;
        }
        let compared = !scope.compares || !self.download.is_comparing(work.feed);
        if self.remote.uploading && downloading && compared {
            while let Some(request) = self.download.request(scope, work.feed, work.reserved, &mut work.share, work.now)
            {
                self.out.push_back(Message::Request(request));
            }
        }
        let ends = !self.options.live || self.fetch.is_of_writer();
        if !ends || self.wants_more(work.feed, work.wants) || self.holds(work) || self.awaits_write(work) {
            return;
        }
        if work.stays && !self.options.live {
            work.stayed = true;
            return;
        }
        if self.acks.waits_since().is_some() {
            self.end_acknowledged(work);
            return;
        }
        if self.fetch.is_on() {
            self.fetch.on(FetchStep::Through);
            self.send_status(self.uploading || !self.options.live, false);
            if !self.options.live && !self.remote.uploading && !self.remote.downloading {
                self.end_acknowledged(work);
            }
        }
        let announced_all = self.only_asks() && self.download.has_announced() && !self.remote.downloading;
        if announced_all || (alone && self.serves_nothing_more()) {
            self.end_acknowledged(work);
        }
    }

    /// There is more of a feed that is written here than is held of it: it is fetched as any other.
    fn fetch_the_rest(&mut self) {
        let was_on = self.fetch.is_on();
        self.fetch.on(FetchStep::WriterBehind);
        if !was_on {
            self.send_status(self.uploading, true);
        }
        // What it has of what was sent to it from here it need not have told.
        self.download.ask_again();
        self.download.retry_requests();
    }

    /// The next thing to send. Blocks are read here, one for each call.
    pub(crate) fn poll<S: Storage>(&mut self, work: &mut Work<'_, S>) -> Result<Option<Sent>, PeerFault> {
        if self.state.is_closed() {
            return Ok(None);
        }
        if let Some(message) = self.out.pop_front() {
            return Ok(Some(Sent::Message(message)));
        }
        if self.state.is_closing() {
            if self.options.reconciles
                && let Some(have) = self.upload.last_news()
            {
                return Ok(Some(Sent::Message(Message::Have(have))));
            }
            self.state.on(ChannelStep::Close);
            return Ok(Some(Sent::Close));
        }
        if !self.state.was_opened() {
            return Ok(None);
        }
        // That was taken account of as it happened, and may be here again.
        let retracts = self.upload.retracts();
        let uploaded = self.upload.poll(work)?;
        match &uploaded {
            // What it asked for and got elsewhere it does not acknowledge.
            Some(Message::Data(data)) if data.value.is_some() && self.may_lack(data.index) => {
                let may_return = self.options.reconciles && !self.options.live;
                self.remote_missing.sent(data.index, self.download.is_asking(), self.acks.are_asked_for(), may_return);
            }
            // Asked for and not to be had.
            Some(Message::Unhave { start, length }) if !retracts => {
                self.remote_missing.forget(&(*start..start.saturating_add(*length)))
            }
            _ => {}
        }
        if self.ends_alone(work.feed) || self.is_holding() {
            self.advance(work);
        }
        Ok(uploaded.map(Sent::Message))
    }

    /// Whether only what is asked for is fetched.
    fn is_sparse(&self) -> bool {
        self.options.sparse || self.fetch.is_of_writer()
    }

    fn scope<'a>(&self, wants: &'a Wants, reach: u64) -> Scope<'a> {
        let compares = self.history.is_checked()
            && self.remote.uploading
            && !self.download.is_draining()
            && (self.fetch.is_on() || self.options.live);
        Scope { wants, sparse: self.is_sparse(), fetches: self.fetch.is_on(), compares, reach }
    }

    /// A live remote that heard that nothing is fetched would take the two to be in sync, whatever is missing here.
    fn send_status(&mut self, uploading: bool, downloading: bool) {
        let waits = self.waits_for_disk
            && self.options.reconciles
            && self.options.live
            && self.state.goes_on()
            && !self.history.is_forked();
        let downloading = downloading || waits;
        self.out.push_back(Message::Status { uploading, downloading });
    }
}

/// Whether a feed is written here, and all of it is here as far as is known.
fn is_whole_writer(feed: &Feed) -> bool {
    let last_held = feed.len().checked_sub(1).is_none_or(|last| feed.has(last));
    feed.writable() && last_held && !feed.is_writer_behind()
}

/// Others may be asked for these blocks. Whether any was asked for.
fn release(asked: impl IntoIterator<Item = u64>, reserved: &mut SparseBits) -> bool {
    asked.into_iter().filter(|&index| reserved.remove(index)).count() > 0
}
