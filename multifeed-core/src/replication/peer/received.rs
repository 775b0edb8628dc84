//! What a remote sends of a feed: blocks, and the hashes that it was asked for.

use std::time::Duration;

use multifeed_proto::machine::Machine;
use multifeed_proto::{Data, Message, SessionError};

use super::state::{FetchStep, HistoryStep};
use super::{ANOTHER_HISTORY, Effect, FeedChannel, PeerFault, Shown, TooLarge, Work};
use crate::error::{ProofError, PutError};
use crate::feed::{Compared, Contradiction, Put};
use crate::log::log;
use crate::prepared::{PreparedData, prepare};
use crate::storage::Storage;

impl FeedChannel {
    pub(super) fn data<S: Storage>(
        &mut self,
        data: Data,
        waited: Duration,
        work: &mut Work<'_, S>,
        effect: &mut Effect,
    ) -> Result<(), PeerFault> {
        let index = data.index;
        if data.value.is_none() && self.download.answered_comparison(index, work.now) {
            effect.answered = Some(waited);
            return self.compare(data, work, effect);
        }
        if data.value.is_none() && self.download.answered_question(index, work.now) {
            effect.answered = Some(waited);
            effect.proven = !matches!(self.put(data, work, effect)?, None | Some(Put::Known));
            return Ok(());
        }
        if data.value.is_none() && self.download.came_late_of_comparison(index) {
            return Ok(());
        }
        let late = data.value.is_some() && !self.download.is_draining();
        let answers = self.download.answered(index, data.value.is_some(), work.now)
            || (late && self.download.came_late(index, work.feed, work.reserved, work.now));
        if !answers {
            self.download.came_unasked(index);
            // The answer says whether it is here, as hypercore's does for what it does not store. A remote that sends without end and reads nothing gets none.
            if data.value.is_some() && self.out.len() < work.limits.requests_queued {
                match work.feed.has(index) {
                    false => self.return_block(index),
                    true => self.confirm(index, work, effect),
                }
            }
            return Ok(());
        }
        effect.answered = data.value.is_some().then_some(waited);
        if self.download.is_draining() {
            self.give_back(index, work.feed);
            if data.value.is_some() {
                self.confirm(index, work, effect);
            }
            return Ok(());
        }
        work.reserved.remove(index);
        self.download.stored(index);
        self.remote_missing.received(index);
        let Some(size) = data.value.as_ref().map(|value| value.len() as u64) else {
            // The remote has the hash alone: others are asked.
            self.download.came_without_value(index);
            effect.released = true;
            return Ok(());
        };
        match self.put(data, work, effect)? {
            Some(Put::Stored { .. }) => (effect.stored, work.unannounced) = (Some((index, size)), true),
            // It hears of it when it is written.
            Some(put) if put != Put::Unplaced && work.feed.is_staged() => {
                (effect.held, work.unannounced) = (Some(index), true)
            }
            // A whole proof does not show either where it begins. Others are asked, and this one in the next session.
            Some(Put::Unplaced) => {
                self.download.came_without_value(index);
                effect.released = true;
            }
            Some(_) if self.acks.are_given() => self.ack(index..index + 1),
            Some(_) | None => {}
        }
        Ok(())
    }

    /// Proves and stages a message's block or nodes; `None` if they are another history's, and the channel closes, or if a whole
    /// proof is asked for first.
    fn put<S: Storage>(
        &mut self,
        data: Data,
        work: &mut Work<'_, S>,
        effect: &mut Effect,
    ) -> Result<Option<Put>, PeerFault> {
        let index = data.index;
        let block = data.value.is_some();
        let len = work.feed.len();
        let prepared = match work.leaf.take() {
            Some(leaf) if block => PreparedData { data, leaf: Some(leaf) },
            _ => prepare(data),
        };
        match work.feed.put_within(work.storage, prepared, work.limits.feed_size()) {
            Ok(Put::Unplaced) if self.ask_again(index, work) => Ok(None),
            Ok(put) => {
                log!(TRACE, "feed", "verified", block = ?index, len = ?work.feed.len());
                self.download.proved(index);
                if work.feed.len() > len {
                    self.download.grew(work.feed);
                }
                if work.feed.writable() && work.feed.len() > len {
                    (effect.writer_behind, effect.released) = (Some(len), true);
                }
                Ok(Some(put))
            }
            Err(PutError::Proof(ProofError::Conflict(conflict))) => {
                effect.conflict = Some(conflict);
                self.is_forked(Shown::Block(index), work);
                Ok(None)
            }
            Err(PutError::Contradiction(contradiction)) => {
                self.suspect((Shown::Block(index), contradiction), work, effect);
                Ok(None)
            }
            // It left out what is held here. If that is of another history, only a whole proof shows whose fault it is.
            Err(PutError::Proof(error))
                if block && !matches!(error, ProofError::Malformed { .. }) && self.ask_again(index, work) =>
            {
                Ok(None)
            }
            Err(PutError::Proof(error)) => {
                log!(DEBUG, "feed", "not verified", block = ?index, error = %error);
                Err(unproven(index, &error, work))
            }
            Err(PutError::TooLong { length, limit }) => {
                effect.too_large = Some(TooLarge::Blocks(length, limit));
                self.give_back(index, work.feed);
                self.end();
                Ok(None)
            }
            Err(PutError::TooManyBytes { bytes, limit }) => {
                effect.too_large = Some(TooLarge::Bytes(bytes, limit));
                self.give_back(index, work.feed);
                self.end();
                Ok(None)
            }
            Err(PutError::Store(error)) => Err(PeerFault::Store(error)),
        }
    }

    /// Asks for a block again whose proof does not hold here, unless that was a whole one. Whether it was asked for.
    fn ask_again<S: Storage>(&mut self, index: u64, work: &mut Work<'_, S>) -> bool {
        let Some(request) = self.download.asks_again(work.feed, index, work.now) else { return false };
        work.reserved.insert(index);
        self.out.push_back(Message::Request(request));
        true
    }

    /// The remote showed its history. If a feed that is written here is longer than was known, the rest is fetched from it.
    fn compare<S: Storage>(
        &mut self,
        data: Data,
        work: &mut Work<'_, S>,
        effect: &mut Effect,
    ) -> Result<(), PeerFault> {
        let index = data.index;
        let len = work.feed.len();
        match work.feed.compare(work.storage, &data, work.limits.feed_size()) {
            Ok(Compared::Same) => {}
            Ok(Compared::Signed) => effect.proven = true,
            Ok(Compared::Unclear(length)) => self.download.was_unclear(work.feed, length),
            Ok(Compared::Grew) => {
                (effect.proven, effect.writer_behind) = (true, work.feed.writable().then_some(len));
                self.download.grew(work.feed);
                // Others may bring it as well.
                effect.released = true;
            }
            Err(PutError::Proof(ProofError::Conflict(conflict))) => {
                effect.conflict = Some(conflict);
                effect.released |= self.is_forked(Shown::History, work);
            }
            Err(PutError::Contradiction(contradiction)) => self.suspect((Shown::History, contradiction), work, effect),
            // Without what it sent before, as hypercore leaves it out, nothing can be known.
            Err(PutError::Proof(
                ProofError::Mismatch { .. } | ProofError::MissingRoot { .. } | ProofError::MissingSignature { .. },
            )) => {}
            Err(PutError::Proof(error)) => {
                let reason = error.to_string();
                return Err(PeerFault::Remote(SessionError::Proof { feed: work.feed.key(), index, reason }));
            }
            Err(PutError::TooLong { length, limit }) => {
                effect.too_large = Some(TooLarge::Blocks(length, limit));
                self.end();
            }
            Err(PutError::TooManyBytes { bytes, limit }) => {
                effect.too_large = Some(TooLarge::Bytes(bytes, limit));
                self.end();
            }
            Err(PutError::Store(error)) => return Err(PeerFault::Store(error)),
        }
        Ok(())
    }

    /// What the remote showed is of another history than the one that is here, or what is here is damaged. Nothing is taken from it until it is known.
    fn suspect<S: Storage>(
        &mut self,
        contradiction: (Shown, Box<Contradiction>),
        work: &mut Work<'_, S>,
        effect: &mut Effect,
    ) {
        effect.contradiction = Some(contradiction);
        self.history.on(HistoryStep::Proof);
        effect.released |= self.part(work);
    }

    /// What the remote showed is of another history, as is known now. Returns whether anything was asked for that others may be asked for.
    pub(crate) fn is_forked<S: Storage>(&mut self, shown: Shown, work: &mut Work<'_, S>) -> bool {
        let Shown::Block(index) = shown else {
            self.tell_of_another_history();
            return self.part(work);
        };
        if self.options.reconciles {
            self.tell_of_another_history();
        } else {
            // What it takes for ours is not.
            let length = self.download.remote_len().saturating_sub(index).max(1);
            self.out.push_back(Message::Unhave { start: index, length });
        }
        self.end();
        false
    }

    /// There are two histories: a remote of ours that has the longer one does not look itself.
    fn tell_of_another_history(&mut self) {
        self.history.on(HistoryStep::Proof);
        if self.options.reconciles {
            self.out.push_back(Message::Unhave { start: 0, length: ANOTHER_HISTORY });
        }
    }

    /// Nothing of the remote's other history is fetched; a remote of ours can go on, and find it out for itself. A JS peer that gets a block of it ends its whole stream, or takes it in: if it asks for one, the channel closes.
    /// Whether anything was asked for.
    fn part<S: Storage>(&mut self, work: &mut Work<'_, S>) -> bool {
        let released = self.give_up(work);
        if self.options.live && self.fetch.on(FetchStep::End) {
            self.send_status(self.uploading, false);
        }
        released
    }
}

/// Whose fault it is that the proof of a block does not hold.
pub(crate) fn unproven<S: Storage>(index: u64, error: &ProofError, work: &mut Work<'_, S>) -> PeerFault {
    // JS leaves out of a whole proof, too, what it sent before: what is held here stood in for it.
    match work.feed.damage_on_the_way(work.storage, index) {
        Ok(None) => PeerFault::Remote(SessionError::Proof { feed: work.feed.key(), index, reason: error.to_string() }),
        Ok(Some(damage)) | Err(damage) => PeerFault::Store(damage),
    }
}
