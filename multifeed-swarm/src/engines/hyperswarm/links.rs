//! One connection with each peer of the DHT, by the rule of JS hyperswarm, so that both sides keep the same one.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Key;
use super::pipe::Control;

/// How long a dial of ours has to succeed before a peer that comes meanwhile goes first. One to an address that a peer no longer has takes many
/// seconds to fail, and nobody comes in again if both sides dial at once.
const HEAD_START: Duration = Duration::from_secs(2);

/// Who has a connection, and who is dialled.
#[derive(Debug)]
pub(super) struct Links {
    own_key: Key,
    open: BTreeMap<Key, Link>,
    /// Since when; each as long as its job holds the other end.
    dials: BTreeMap<Key, (Weak<()>, Duration)>,
    next: u64,
}

#[derive(Debug)]
struct Link {
    id: u64,
    control: Control,
}

impl Links {
    pub(super) fn new(own_key: Key) -> Self {
        Self { own_key, open: BTreeMap::new(), dials: BTreeMap::new(), next: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn is_open(&self, key: &Key) -> bool {
        self.open.contains_key(key)
    }

    /// A dial is under way as long as what this returns is held.
    pub(super) fn dials(&mut self, key: Key, now: Duration) -> Arc<()> {
        let dial = Arc::new(());
        self.dials.retain(|_, (dial, _)| dial.strong_count() > 0);
        self.dials.insert(key, (Arc::downgrade(&dial), now));
        dial
    }

    /// Whether a dial is under way that may succeed any moment.
    fn is_dialled(&self, key: &Key, now: Duration) -> bool {
        let is_new = |(dial, since): &(Weak<()>, Duration)| dial.strong_count() > 0 && now < *since + HEAD_START;
        self.dials.get(key).is_some_and(is_new)
    }

    /// Whether a further connection with a peer may stay. If one is there that went both ways, the peer has lost it, and the new one counts. Else
    /// the side with the larger key begins.
    pub(super) fn admits(&self, key: &Key, initiator: bool, now: Duration) -> bool {
        let begins = (self.own_key > *key) == initiator;
        match self.open.get(key) {
            Some(link) => begins || link.control.is_used(),
            // A dial of ours that has begun counts as one that is there.
            None => initiator || begins || !self.is_dialled(key, now),
        }
    }

    /// Adds a connection, and cuts the one that it takes the place of.
    pub(super) fn add(&mut self, key: Key, control: Control) -> u64 {
        let id = self.next;
        self.next += 1;
        if let Some(before) = self.open.insert(key, Link { id, control }) {
            before.control.cut();
        }
        id
    }

    pub(super) fn cut_all(&self) {
        self.open.values().for_each(|link| link.control.cut());
    }

    /// A connection is over. `false` if another one has taken its place.
    pub(super) fn ended(&mut self, key: &Key, id: u64) -> bool {
        let is_it = self.open.get(key).is_some_and(|link| link.id == id);
        if is_it {
            self.open.remove(key);
        }
        is_it
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::hyperswarm::pipe::Control;

    const SMALL: Key = [1; 32];
    const LARGE: Key = [2; 32];
    const NOW: Duration = Duration::from_secs(60);

    #[test]
    fn of_two_new_connections_both_sides_keep_the_one_of_the_larger_key() {
        for first_of_small in [true, false] {
            let admits = |own: Key, remote: Key| {
                let mut links = Links::new(own);
                let first_is_ours = first_of_small == (own == SMALL);
                assert!(links.admits(&remote, first_is_ours, NOW));
                links.add(remote, Control::unused());
                // The other one, begun by the other side.
                links.admits(&remote, !first_is_ours, NOW)
            };
            let (small, large) = (admits(SMALL, LARGE), admits(LARGE, SMALL));
            assert_eq!((small, large), (first_of_small, first_of_small), "the second stays if the larger key began it");
        }
    }

    #[test]
    fn a_peer_that_comes_while_it_is_dialled_waits_for_the_larger_key() {
        for (own, remote, comes_in) in [(SMALL, LARGE, true), (LARGE, SMALL, false)] {
            let mut links = Links::new(own);
            let dial = links.dials(remote, NOW);
            assert_eq!(links.admits(&remote, false, NOW), comes_in);
            assert!(links.admits(&remote, true, NOW));
            // A dial that takes long is to somebody who is not there any more.
            assert_eq!(links.admits(&remote, false, NOW + HEAD_START / 2), comes_in);
            assert!(links.admits(&remote, false, NOW + HEAD_START));
            // The dial is over, whichever way.
            drop(dial);
            assert!(links.admits(&remote, false, NOW));
        }
    }

    #[test]
    fn one_that_comes_back_takes_the_place_of_what_it_lost() {
        let mut links = Links::new(LARGE);
        let control = Control::used();
        let first = links.add(SMALL, control.clone());
        assert!(links.admits(&SMALL, false, NOW));
        let second = links.add(SMALL, Control::unused());
        assert!(control.is_cut());
        assert!(!links.ended(&SMALL, first) && links.is_open(&SMALL));
        assert!(links.ended(&SMALL, second) && links.len() == 0);
    }
}
