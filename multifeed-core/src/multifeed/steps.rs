//! Work that is more than one call may do: a step of it is done in each call of [`Multifeed::handle_timeout`], which is due at once as long as some is
//! left.

use std::collections::BTreeSet;

use super::Multifeed;
use super::members::missing::LookAgain;
use super::sessions::searches::Searches;
use crate::ids::SessionId;
use crate::storage::Storage;

/// What is left to do.
#[derive(Debug, Default)]
pub(super) struct Steps {
    pub(super) searches: Searches,
    /// Sessions on which more channels may be opened.
    pub(super) openings: BTreeSet<SessionId>,
    pub(super) missing: LookAgain,
}

impl Steps {
    /// Whether [`Multifeed::step`] has something to do.
    pub(super) fn are_left(&self) -> bool {
        self.searches.are_under_way() || !self.openings.is_empty() || self.missing.is_under_way()
    }
}

impl<S: Storage> Multifeed<S> {
    /// Takes the next step of each.
    pub(super) fn step(&mut self) {
        self.search_on();
        self.take_back_missing();
        if let Some(session) = self.steps.openings.pop_first() {
            self.ask_for_offers(session);
            self.wake(session);
        }
    }
}
