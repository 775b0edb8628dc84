//! The lists of feeds that both sides give each other, and what either still has to answer.

use std::collections::BTreeSet;

use multifeed_proto::{Command, FeedKey};

use super::PeerSession;
use crate::log::log;

/// Keys in one list of what is offered. A default peer of ours takes ten times as many in one, and JS's work for a list grows faster than the list.
const OFFERED_AT_ONCE: usize = 10_000;

/// What the feed exchange still owes either side.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    pub(super) manifest_seen: bool,
    pub(super) offers_unanswered: u64,
    /// The remote answered an offer.
    pub(super) offer_answered: bool,
    pub(super) requests_unanswered: u64,
    /// Feeds that were requested, and that the remote did not name in an answer: after that none, as all were offered by it.
    pub(super) requested: BTreeSet<FeedKey>,
}

impl PeerSession {
    /// Offers feeds to the remote.
    ///
    /// A long list goes in parts, each of which is answered.
    pub(crate) fn offer(&mut self, mut keys: Vec<FeedKey>) {
        log!(DEBUG, "session", in self.span, "offers feeds", feeds = ?keys.len());
        loop {
            let rest = if keys.len() > OFFERED_AT_ONCE { keys.split_off(OFFERED_AT_ONCE) } else { Vec::new() };
            self.exchange.offers_unanswered += 1;
            let fields = match (&self.options.policy, &self.remote) {
                (Some(policy), Some(remote)) => policy.fields(&keys, remote),
                _ => None,
            };
            self.outgoing.push(Command::Offer { root: self.root, keys, fields });
            if rest.is_empty() {
                return;
            }
            keys = rest;
        }
    }

    /// Answers the remote's offer.
    pub(crate) fn request(&mut self, keys: Vec<FeedKey>) {
        log!(DEBUG, "session", in self.span, "requests feeds", feeds = ?keys.len());
        self.exchange.manifest_seen = true;
        self.exchange.requests_unanswered += 1;
        self.exchange.requested.extend(&keys);
        self.outgoing.push(Command::Request { root: self.root, keys });
    }

    /// The remote requested feeds of ours.
    pub(crate) fn offer_answered(&mut self) {
        self.exchange.offers_unanswered = self.exchange.offers_unanswered.saturating_sub(1);
        self.exchange.offer_answered = true;
    }

    /// The remote named feeds that it replicates.
    pub(crate) fn request_answered(&mut self, keys: &[FeedKey]) {
        keys.iter().for_each(|key| _ = self.exchange.requested.remove(key));
        self.exchange.requests_unanswered = self.exchange.requests_unanswered.saturating_sub(1);
    }

    /// Whether the remote answered all that it was offered.
    pub(crate) fn is_offer_answered(&self) -> bool {
        self.exchange.offers_unanswered == 0
    }

    /// Whether both sides have named their feeds, and answered.
    pub(super) fn lists_are_exchanged(&self) -> bool {
        let exchange = &self.exchange;
        exchange.manifest_seen && exchange.offers_unanswered == 0 && exchange.requests_unanswered == 0
    }
}
