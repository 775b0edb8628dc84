//! How a feed stands on a session: what is missing on either side, and whether both hold the same.

use super::download::{Announced, mean_size};
use super::state::{ChannelState, Ended};
use super::{FeedChannel, PeerFault, Work};
use crate::feed::Feed;
use crate::sets::sparse_bits::SparseBits;
use crate::stats::Moved;
use crate::storage::Storage;

/// The numbers of one feed on one session, which its session sums up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PeerProgress {
    /// Blocks that the remote has to bring.
    pub(crate) missing_here: u64,
    /// Blocks that it did not bring in time, and that are not here.
    pub(crate) given_up: u64,
    /// Blocks that it lacks and we hold, as far as it told.
    pub(crate) missing_there: u64,
    /// Bytes of what is missing here, given up or not, and there, by the mean of the feed.
    pub(crate) bytes_missing: [u64; 2],
    /// Blocks that it was asked for.
    pub(crate) in_flight: u64,
    /// Their bytes, by the mean of the feed.
    pub(crate) bytes_in_flight: u64,
    /// What the answers to those count of the session's budget.
    pub(crate) cost: u64,
    /// Blocks that it asked for.
    pub(crate) requested: u64,
    /// 1 if it fetches nothing, in a live session, and lacks some of them.
    pub(crate) not_taken: u64,
    /// 1 if both sides hold the same.
    pub(crate) in_sync: u64,
}

/// A feed on one session, as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerInfo {
    /// Both sides opened the channel.
    pub opened: bool,
    /// One past the highest block that the remote has told of.
    pub remote_len: u64,
    /// How many blocks it has; `None` if it did not report all of it, and before the session is
    /// [observed](crate::Multifeed::observe).
    pub remote_blocks: Option<u64>,
    /// Whether it has told all that it has, as far as that was asked. One that serves nothing tells nothing.
    pub told: bool,
    /// Blocks that it has to bring, or did not bring in time: in a sparse session those that were requested.
    pub missing: u64,
    /// Blocks that we hold and it lacks, as far as it told. What it was sent counts as its own when it acknowledges it.
    pub missing_there: u64,
    /// Blocks that it was asked for and that did not come yet.
    pub in_flight: u64,
    /// About as many bytes, by the mean size of the feed's blocks.
    pub bytes_in_flight: u64,
    /// Blocks that it asked for and that were not sent yet.
    pub requested: u64,
    /// What moved on this session.
    pub moved: Moved,
    /// Whether both sides hold the same of it: see [`Multifeed::in_sync`](crate::Multifeed::in_sync).
    pub in_sync: bool,
    /// Whether we fetch blocks of it.
    pub downloading: bool,
    /// Whether we serve it blocks.
    pub uploading: bool,
    /// Whether it fetches blocks.
    pub remote_downloading: bool,
    /// Whether it serves blocks.
    pub remote_uploading: bool,
}

/// What the remote of a feed's channel did not bring, as far as it is not here.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// The remote said of all other blocks that it does not have them.
    pub(crate) told: bool,
    /// What it told of, or did not answer about.
    pub(crate) blocks: SparseBits,
    /// Of those, how many were given up; `None` if nothing was left without an answer.
    pub(crate) given_up: Option<u64>,
}

impl PeerProgress {
    /// 1 if the remote has something to bring.
    pub(crate) fn fetches(&self) -> u32 {
        u32::from(self.missing_here > 0)
    }

    pub(crate) fn add(&mut self, other: PeerProgress) {
        self.missing_here += other.missing_here;
        self.given_up += other.given_up;
        self.missing_there += other.missing_there;
        for (sum, bytes) in self.bytes_missing.iter_mut().zip(other.bytes_missing) {
            *sum = sum.wrapping_add(bytes);
        }
        self.in_flight += other.in_flight;
        self.bytes_in_flight += other.bytes_in_flight;
        self.cost += other.cost;
        self.requested += other.requested;
        self.not_taken += other.not_taken;
        self.in_sync += other.in_sync;
    }

    /// Takes out what was added before.
    pub(crate) fn remove(&mut self, other: PeerProgress) {
        self.missing_here -= other.missing_here;
        self.given_up -= other.given_up;
        self.missing_there -= other.missing_there;
        for (sum, bytes) in self.bytes_missing.iter_mut().zip(other.bytes_missing) {
            *sum = sum.wrapping_sub(bytes);
        }
        self.in_flight -= other.in_flight;
        self.bytes_in_flight -= other.bytes_in_flight;
        self.cost -= other.cost;
        self.requested -= other.requested;
        self.not_taken -= other.not_taken;
        self.in_sync -= other.in_sync;
    }
}

impl FeedChannel {
    /// From now on what the remote has must be known, of feeds too that are not fetched from it: asks it.
    pub(crate) fn observe<S: Storage>(&mut self, work: &mut Work<'_, S>) {
        if !std::mem::replace(&mut self.options.observed, true) && self.state.was_opened() {
            self.download.ask_again();
            self.ask_for_acks(work.feed);
            self.advance(work);
        }
    }

    /// Blocks came from elsewhere, or were appended.
    pub(crate) fn gained(&mut self, blocks: std::ops::Range<u64>) {
        self.remote_missing.gained(blocks.clone(), self.download.to_come());
        self.download.gained(blocks);
    }

    /// How things stand now.
    pub(crate) fn assess<S: Storage>(&mut self, work: &mut Work<'_, S>) -> PeerProgress {
        let in_flight = self.download.in_flight() as u64;
        let (missing_here, given_up) = (self.missing(), self.given_up(work.feed));
        let missing_there = self.missing_there(work.feed);
        PeerProgress {
            missing_here,
            given_up,
            missing_there,
            bytes_missing: [bytes_of(work.feed, missing_here + given_up), bytes_of(work.feed, missing_there)],
            in_flight,
            bytes_in_flight: bytes_of(work.feed, in_flight),
            cost: work.share.cost(mean_size(work.feed)).saturating_mul(in_flight),
            requested: self.upload.requested(),
            not_taken: u64::from(self.options.live && !self.remote.downloading && self.lacking(work.feed) > 0),
            in_sync: u64::from(self.is_in_sync(work)),
        }
    }

    /// Whether only time tells that the remote has everything.
    pub(crate) fn waits_for_silence(&self) -> bool {
        self.options.observed && self.standing.in_sync == 0 && self.is_served_in_the_dark()
    }

    /// What is known of it.
    pub(crate) fn info(&self, feed: &Feed) -> PeerInfo {
        let in_flight = self.download.in_flight() as u64;
        let told = self.has_announced();
        let theirs =
            self.remote_missing.remote_blocks(feed.downloaded(), self.download.missing() + self.given_up(feed));
        PeerInfo {
            opened: self.state.was_opened(),
            remote_len: self.download.remote_len(),
            remote_blocks: (told && self.options.observed).then_some(theirs),
            told,
            missing: self.missing() + self.given_up(feed),
            missing_there: self.missing_there(feed),
            in_flight,
            bytes_in_flight: bytes_of(feed, in_flight),
            requested: self.upload.requested(),
            moved: self.moved,
            in_sync: self.standing.in_sync == 1,
            downloading: self.fetch.is_on() && !self.fetch.is_of_writer(),
            uploading: self.uploading,
            remote_downloading: self.remote.downloading,
            remote_uploading: self.remote.uploading,
        }
    }

    /// Whether what the remote lacks is kept account of.
    pub(super) fn keeps_account(&self) -> bool {
        self.options.observed || !self.options.live
    }

    /// The remote told all that it has in a range.
    pub(super) fn note_announced<S: Storage>(
        &mut self,
        told: &Announced,
        work: &mut Work<'_, S>,
    ) -> Result<(), PeerFault> {
        let never_sent = work.feed.oversized(work.storage).map_err(PeerFault::Store)?;
        let feed = &*work.feed;
        // What is held back until it is fsynced will be sent too; an end is not put off for it.
        let all = self.options.observed;
        let held = |word| if all { feed.bitfield().word(word) } else { feed.served_word(word) };
        self.remote_missing.announced(feed, told, held, &never_sent);
        Ok(())
    }

    /// Whether the remote may lack a block that is held here, as far as it told.
    pub(super) fn may_lack(&self, index: u64) -> bool {
        !self.options.observed || !self.has_announced() || self.remote_missing.lacks_block(index)
    }

    /// Blocks that were given up and are not here.
    pub(crate) fn given_up(&self, feed: &Feed) -> u64 {
        self.download.given_up_missing(feed)
    }

    fn missing_there(&self, feed: &Feed) -> u64 {
        match (self.uploading && self.remote.uploading, self.remote.downloading) {
            (false, _) => 0,
            (true, true) => self.remote_missing.count(),
            // It asks for nothing more, and has not written yet what it was sent.
            (true, false) if !self.options.live => self.remote_missing.delivering(),
            (true, false) => self.lacking(feed),
        }
    }

    /// Whether the remote has told all that it has, as far as it serves blocks.
    fn has_announced(&self) -> bool {
        self.state.was_opened()
            && self.remote.uploading
            && self.download.has_announced()
            && !self.download.was_ignored()
    }

    fn is_in_sync<S: Storage>(&mut self, work: &mut Work<'_, S>) -> bool {
        let open = self.options.observed && self.state == ChannelState::Open;
        open && !work.feed.is_held_back()
            && !self.history.is_forked()
            && !self.is_behind(work.feed)
            && !self.was_denied(work.feed)
            && self.holds_all(work)
            && self.remote_holds_all(work)
    }

    /// Whether the remote has another history of it.
    pub(crate) fn is_parted(&self) -> bool {
        self.history.is_forked()
    }

    /// Whether, in a session that is not live, the remote never opened the channel, or is rid of it with something unanswered that it was asked
    /// for. What it has may not be here then. Asked when the channel closes.
    pub(crate) fn is_denied(&mut self, feed: &Feed) -> bool {
        let sparse = self.is_sparse();
        let left = self.is_downloading() && self.remote.uploading && self.download.is_owed(feed, sparse);
        !self.options.live && (!self.state.was_opened() || left || self.was_denied(feed))
    }

    /// Whether the remote left unanswered what it was asked for, or did not bring it, as far as that must be fetched. If the session is not
    /// live nothing is fetched any more when that is known, and the remote may say that it serves no more.
    fn was_denied(&mut self, feed: &Feed) -> bool {
        if self.options.live {
            return self.is_downloading() && self.remote.uploading && self.download.was_denied(feed);
        }
        !self.download.is_draining() && (self.download.was_denied(feed) || self.download.left_question())
    }

    /// What is left of the feed as the channel closes, or stands now.
    pub(crate) fn left(&mut self, feed: &Feed) -> Left {
        if !self.options.fetches() {
            return Left::default();
        }
        Left {
            told: self.state.was_opened() && self.download.has_announced_all(),
            blocks: self.download.left(feed),
            // What it has of a channel that it never opened nobody knows.
            given_up: if self.ended == Some(Ended::Unopened) { Some(0) } else { self.download.given_up_blocks(feed) },
        }
    }

    /// Whether the remote tells of more than there is of a feed that is written here, as when this store is an old copy. Then it is not
    /// fetched, as it may be a lie, but not the same either.
    pub(crate) fn is_behind(&self, feed: &Feed) -> bool {
        feed.writable() && self.remote.uploading && self.download.remote_len() > feed.len()
    }

    /// Counts the blocks that the remote lacks, that we hold and serve, and that it did not take, as far as it announced what it has. Asked when the
    /// channel closes. In a live session that is so only if the remote fetches nothing, and serves something or did before. If it fetches, it only left early; if
    /// it never did either, it takes no part in it.
    pub(crate) fn lacking(&self, feed: &Feed) -> u64 {
        let serves = self.remote.uploading || self.was_given_up_there();
        let left = self.options.live && (self.remote.downloading || !serves);
        if !self.uploading || self.history.is_forked() || feed.downloaded() == 0 || left {
            return 0;
        }
        if self.ended == Some(Ended::Idle) {
            return self.remote_missing.returned_count();
        }
        // It opened the channel and closed it again, without a word of what it has or wants.
        let refused = self.state.was_opened()
            && self.remote.uploading
            && self.upload.asked_at().is_none()
            && self.download.remote_len() == 0;
        // Another may have stored what it did not acknowledge, as it closes the channel as soon as it is done. It says before that it is.
        let ends = !self.options.live || self.was_given_up_there();
        let acknowledges = (self.options.reconciles || self.remote.downloading) && self.acks.are_asked_for() && ends;
        match refused {
            true => feed.downloaded(),
            // One of ours says that it is done before it closes the channel; else what was sent may have met its Close.
            false
                if self.options.reconciles
                    && !self.options.live
                    && self.remote.downloading
                    && !self.acks.are_asked_for() =>
            {
                self.remote_missing.lacking_with_sent()
            }
            false => self.remote_missing.lacking(acknowledges),
        }
    }

    /// How many blocks the remote lacks that it never asked for, if it was left as it asked for nothing more: a JS peer that is sparse.
    pub(crate) fn unwanted(&self, feed: &Feed) -> u64 {
        if self.ended == Some(Ended::Idle) { self.missing_there(feed).saturating_sub(self.lacking(feed)) } else { 0 }
    }

    /// Whether the remote is asked what it has though nothing is fetched, in a session that is not live.
    pub(super) fn only_asks(&self) -> bool {
        self.options.observed && !self.options.fetches() && self.remote.uploading && !self.options.live
    }

    /// Whether the remote told of a block that is not here, and this side fetches nothing.
    pub(crate) fn has_unfetched(&mut self, feed: &Feed) -> bool {
        !self.options.fetches() && !self.download.left(feed).is_empty()
    }

    /// No more is fetched, since the remote brought as many bytes as it may. Whether it may have blocks that are not here, and that were to be.
    pub(crate) fn cut(&mut self) -> bool {
        if !self.options.fetches() || !self.remote.uploading || self.is_sparse() {
            return false;
        }
        self.download.cut();
        self.download.may_have_more()
    }

    fn holds_all<S: Storage>(&mut self, work: &mut Work<'_, S>) -> bool {
        let scope = self.scope(work.wants, 0);
        !(self.fetch.is_on() || scope.compares) || !self.remote.uploading || self.download.finished(scope, work.feed)
    }

    fn remote_holds_all<S: Storage>(&self, work: &Work<'_, S>) -> bool {
        if !self.uploading || !self.remote.downloading {
            // A direction that it never took part in does not count.
            return (self.options.live && !self.was_given_up_there()) || self.lacking(work.feed) == 0;
        }
        let known = if self.remote.uploading {
            self.has_announced() && self.remote_missing.is_empty()
        } else {
            work.now >= self.quiet_at()
        };
        known && self.upload.is_idle()
    }

    /// Whether the remote fetches, and does not say what it has.
    pub(super) fn is_served_in_the_dark(&self) -> bool {
        self.uploading && self.remote.downloading && !self.remote.uploading && self.state.goes_on()
    }
}

/// About as many bytes as these blocks have; of all of them, exactly as many.
fn bytes_of(feed: &Feed, blocks: u64) -> u64 {
    let bytes = u128::from(feed.byte_len()) * u128::from(blocks);
    let mean = bytes.checked_div(u128::from(feed.len())).unwrap_or(0);
    // The sum of many feeds whose writers claim absurd sizes still fits.
    u64::try_from(mean).unwrap_or(u64::MAX).min(1 << 46)
}
