//! Calls whose answers wait for peers.

use std::collections::BTreeMap;

use bytes::Bytes;
use multifeed_core::{FeedId, Place, SetId, WantId};

use crate::error::Error;
use crate::oneshot::Answer;
use crate::store::calls::waiting::Ticket;

/// Who waits for what.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// For a block, and those after it that are there too.
    Blocks { feed: FeedId, index: u64, until: u64, answer: Answer<Result<Vec<Bytes>, Error>> },
    /// For the end of a download.
    Download { answer: Answer<Result<(), Error>> },
    /// For a feed's length.
    Length { feed: FeedId, answer: Answer<Result<u64, Error>> },
    /// For a byte's place.
    Place { answer: Answer<Result<Place, Error>> },
}

impl Waiter {
    pub(crate) fn fail(self, error: Error) {
        match self {
            Self::Blocks { answer, .. } => answer.send(Err(error)),
            Self::Download { answer } => answer.send(Err(error)),
            Self::Length { answer, .. } => answer.send(Err(error)),
            Self::Place { answer } => answer.send(Err(error)),
        }
    }
}

/// All that wait, on the store's thread.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    waiters: BTreeMap<WantId, (Ticket, Waiter)>,
    wants: BTreeMap<Ticket, WantId>,
}

impl Waits {
    pub(crate) fn add(&mut self, want: WantId, ticket: Ticket, waiter: Waiter) {
        self.wants.insert(ticket, want);
        self.waiters.insert(want, (ticket, waiter));
    }

    /// Nobody waits any more: returns the want to take back, unless the answer was given.
    pub(crate) fn give_up(&mut self, ticket: Ticket) -> Option<WantId> {
        let want = self.wants.remove(&ticket)?;
        self.waiters.remove(&want);
        Some(want)
    }

    /// A multifeed is closed, which all that wait for it hear. Returns what was wanted for it.
    pub(crate) fn close(&mut self, set: SetId) -> Vec<WantId> {
        let tickets = self.wants.keys().filter(|ticket| ticket.set == set).copied().collect::<Vec<_>>();
        tickets.into_iter().filter_map(|ticket| self.give_up(ticket)).collect()
    }

    pub(crate) fn take(&mut self, want: WantId) -> Option<Waiter> {
        let (ticket, waiter) = self.waiters.remove(&want)?;
        self.wants.remove(&ticket);
        Some(waiter)
    }
}
