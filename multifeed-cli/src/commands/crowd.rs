//! Those who wait, by the network that they come from: networks have their turns, and the one with most gives way.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use multifeed_tokio::Network;

/// Who waits, each with a number that grows: an older one has a smaller one.
pub(super) struct Crowd<T> {
    of: BTreeMap<Network, BTreeMap<u64, T>>,
    count: usize,
    /// The network whose turn was last.
    last: Option<Network>,
}

impl<T> Default for Crowd<T> {
    fn default() -> Self {
        Self { of: BTreeMap::new(), count: 0, last: None }
    }
}

impl<T> Crowd<T> {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn insert(&mut self, network: Network, number: u64, who: T) {
        self.count += usize::from(self.of.entry(network).or_default().insert(number, who).is_none());
    }

    pub(super) fn remove(&mut self, network: Network, number: u64) -> Option<T> {
        let those = self.of.get_mut(&network)?;
        let who = those.remove(&number)?;
        self.count -= 1;
        if those.is_empty() {
            self.of.remove(&network);
        }
        Some(who)
    }

    /// The oldest of each network, in the order of their turns: from the one after the one whose turn was last. None is taken out.
    pub(super) fn firsts(&self) -> impl Iterator<Item = (Network, u64, &T)> {
        let after = self.of.range((self.last.map_or(Unbounded, Excluded), Unbounded));
        // All of them begin again behind the last one.
        let turns = after.chain(&self.of).take(self.of.len());
        turns.filter_map(|(network, those)| those.first_key_value().map(|(number, who)| (*network, *number, who)))
    }

    /// It was the turn of a network: takes out that one of it.
    pub(super) fn take_turn(&mut self, network: Network, number: u64) -> Option<T> {
        self.last = Some(network);
        self.remove(network, number)
    }

    /// Takes out the oldest of the network with most that may go; if none of that network may, of another.
    pub(super) fn take_oldest_of_most(&mut self, may_go: impl Fn(&T) -> bool) -> Option<T> {
        let first = |those: &BTreeMap<u64, T>| those.iter().find(|(_, who)| may_go(who)).map(|(number, _)| *number);
        let (most, those) = self.of.iter().max_by_key(|(_, those)| those.len())?;
        let (network, number) = first(those)
            .map(|number| (*most, number))
            .or_else(|| self.of.iter().find_map(|(network, those)| Some((*network, first(those)?))))?;
        self.remove(network, number)
    }

    /// Takes out the newest of the network with most.
    pub(super) fn take_newest_of_most(&mut self) -> Option<T> {
        let (network, those) = self.of.iter().max_by_key(|(_, those)| those.len())?;
        let (network, number) = (*network, *those.last_key_value()?.0);
        self.remove(network, number)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn network(number: u8) -> Network {
        IpAddr::from([10, 0, 0, number]).into()
    }

    #[test]
    fn networks_have_their_turns_and_the_one_with_most_gives_way() {
        let mut crowd = Crowd::default();
        for number in 0..100 {
            crowd.insert(network(1), number, (1, number));
        }
        crowd.insert(network(2), 100, (2, 100));
        crowd.insert(network(3), 101, (3, 101));
        assert_eq!(crowd.take_oldest_of_most(|_| true), Some((1, 0)));
        // Some may not go, such as those who have just spoken.
        assert_eq!(crowd.take_oldest_of_most(|who| who.0 == 3), Some((3, 101)));
        assert_eq!(crowd.take_oldest_of_most(|who| who.0 == 3), None);
        crowd.insert(network(3), 101, (3, 101));
        assert_eq!(crowd.take_newest_of_most(), Some((1, 99)));
        assert_eq!(crowd.firsts().map(|(_, number, _)| number).collect::<Vec<_>>(), [1, 100, 101]);
        let take = |crowd: &mut Crowd<(i32, u64)>| {
            let (network, number) = crowd.firsts().next().map(|(network, number, _)| (network, number))?;
            crowd.take_turn(network, number)
        };
        let taken: Vec<_> = std::iter::from_fn(|| take(&mut crowd)).take(4).collect();
        assert_eq!(taken, [(1, 1), (2, 100), (3, 101), (1, 2)]);
        crowd.insert(network(2), 102, (2, 102));
        assert_eq!(take(&mut crowd), Some((2, 102)));
        assert_eq!((crowd.len(), crowd.remove(network(1), 50)), (96, Some((1, 50))));
        assert_eq!(std::iter::from_fn(|| take(&mut crowd)).count(), 95);
        assert!(crowd.len() == 0 && crowd.take_oldest_of_most(|_| true).is_none());
    }
}
