//! Two copies of one feed in a store: whether they are one history, and what the one has beyond the other.

use std::ops::Range;

use multifeed_proto::Request;

use super::{Answer, Feed};
use crate::error::{Conflict, ProofError, PutError, StoreError};
use crate::limits::FeedSize;
use crate::prepared::prepare;
use crate::storage::Storage;

use super::put::Compared;

/// Bytes of blocks that are staged before they are written.
const STAGED: usize = 4 << 20;

/// What two copies of a feed are to each other.
#[derive(Debug)]
pub(crate) enum Relation {
    /// One history. The length of the longer one is known in this one now.
    Same,
    /// The writer signed two.
    Two(Box<Conflict>),
    /// The copy holds too little to tell.
    Unclear,
}

impl Feed {
    /// Holds a copy's history against this one's, and stages the length of the copy if that is greater.
    ///
    /// # Errors
    /// The storage's error, of either; [`StoreError::Damaged`] if the copy does not prove what it claims.
    pub(crate) fn relate<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        copy: &mut Feed,
    ) -> Result<Relation, StoreError> {
        if copy.is_empty() {
            return Ok(Relation::Same);
        }
        let next = self.len();
        // Of a longer one it is the block after ours, as in a session: its proof is built on all of our roots.
        let subject = match copy.len() > next {
            true if next > 0 => Some(next),
            true => copy.bitfield.next_held(0, copy.length),
            false => copy.bitfield.last_held(copy.length),
        };
        let Some(index) = subject else { return Ok(Relation::Unclear) };
        let request = Request { index, bytes: 0, hash: true, nodes: 0 };
        let Answer::Data(data) = copy.answer(storage, &request)? else { return Ok(Relation::Unclear) };
        match self.compare(storage, &data, FeedSize::MAX) {
            Ok(Compared::Same | Compared::Signed | Compared::Grew) => Ok(Relation::Same),
            Ok(Compared::Unclear(_)) => Ok(Relation::Unclear),
            Err(PutError::Proof(ProofError::Conflict(conflict))) => Ok(Relation::Two(conflict)),
            // It is no more than opening looks at.
            Err(PutError::Contradiction(mut contradiction)) => loop {
                match self.resolve(storage, &mut contradiction) {
                    None => {}
                    Some(PutError::Proof(ProofError::Conflict(conflict))) => return Ok(Relation::Two(conflict)),
                    Some(error) => return Err(copy.unproven(error)),
                }
            },
            Err(error) => Err(copy.unproven(error)),
        }
    }

    /// Takes in the blocks that a copy of the same history holds and this one does not, each proven, and returns which, ascending. Of those that are
    /// damaged there none are.
    ///
    /// # Errors
    /// The storage's error. What was taken in before stays.
    pub(crate) fn take_in<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        copy: &mut Feed,
    ) -> Result<Vec<Range<u64>>, StoreError> {
        let (mut taken, mut staged, mut at): (Vec<Range<u64>>, _, _) = (Vec::new(), 0, 0);
        while let Some(index) = copy.bitfield.next_held(at, copy.length) {
            at = index + 1;
            if self.has(index) {
                at = self.bitfield.next_missing(index, copy.length).unwrap_or(copy.length);
                continue;
            }
            let request = Request { index, bytes: 0, hash: false, nodes: self.digest(index) };
            let data = match copy.answer(storage, &request) {
                Ok(Answer::Data(data)) => data,
                Ok(_) | Err(StoreError::Damaged { .. }) => continue,
                Err(error) => return Err(error),
            };
            staged += data.value.as_ref().map_or(0, |value| value.len());
            self.put(storage, prepare(data)).map_err(|error| copy.unproven(error))?;
            match taken.last_mut() {
                _ if !self.has(index) => {}
                Some(last) if last.end == index => last.end = at,
                _ => taken.push(index..at),
            }
            if staged >= STAGED {
                self.flush(storage)?;
                staged = 0;
            }
        }
        self.flush(storage)?;
        Ok(taken)
    }

    /// Whether every block of a copy is held here too.
    pub(crate) fn holds_all_of(&self, copy: &Feed) -> bool {
        let mut at = 0;
        while let Some(index) = copy.bitfield.next_held(at, copy.length) {
            if !self.has(index) {
                return false;
            }
            at = self.bitfield.next_missing(index, copy.length).unwrap_or(copy.length);
        }
        true
    }

    fn unproven(&self, error: PutError) -> StoreError {
        match error {
            PutError::Store(error) => error,
            error => StoreError::damaged(self.slot, crate::storage::FileKind::Tree, error.to_string()),
        }
    }
}
