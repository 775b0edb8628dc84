//! A reconciliation: two sets of feeds, and a remote that alters what it says.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use multifeed_core::Limits;
use multifeed_core::reconcile::Reconciler;
use multifeed_proto::FeedKey;

/// The most messages of one conversation: each side takes 32, and the one after them is an error.
const MESSAGES: usize = 70;

/// The first byte says how many feeds follow, two bytes each: which one, and who has it in what state. Each three bytes after them alter a
/// message: which one, where, and what to. Without alterations both sides find what a naive comparison does; with them nobody panics, and it
/// ends.
pub fn reconcile(data: &[u8]) {
    let Some((&count, rest)) = data.split_first() else { return };
    let (feeds, alterations) = rest.split_at(rest.len().min(2 * usize::from(count)));
    let mut sets = [BTreeMap::new(), BTreeMap::new()];
    for feed in feeds.chunks_exact(2) {
        // Each byte stands for several feeds, so that ranges are split.
        for copy in 0..8 {
            let key = FeedKey::new([feed[0].wrapping_add(copy); 32]);
            for (set, state) in sets.iter_mut().zip([feed[1] & 7, feed[1] >> 4]).filter(|(_, state)| *state > 0) {
                set.insert(key, u64::from(state));
            }
        }
    }
    let found = talk(&sets, alterations);
    for (side, set) in sets.iter().enumerate() {
        let differs = |(key, state): (&FeedKey, &u64)| (sets[1 - side].get(key) != Some(state)).then_some(*key);
        let mut naive: Vec<FeedKey> = set.iter().filter_map(differs).collect();
        naive.sort_unstable();
        if alterations.len() < 3 {
            assert_eq!(found[side], Some(naive));
        } else {
            assert!(found[side].iter().flatten().all(|key| set.contains_key(key)));
        }
    }
}

/// Lets two machines talk. Returns what each found, or `None` if it heard something that broke the rules.
fn talk(sets: &[BTreeMap<FeedKey, u64>; 2], alterations: &[u8]) -> [Option<Vec<FeedKey>>; 2] {
    let mut machines = sets.each_ref().map(|set| {
        let feeds = set.iter().map(|(key, state)| (*key, key.discovery_key(), *state, [[0; 32]], runs(*state)));
        Some(Reconciler::new([9; 64], feeds, &Limits::default()))
    });
    let greetings = [1, 0].map(|side: usize| machines[side].as_ref().map(Reconciler::greeting));
    let mut queue: VecDeque<_> = greetings.into_iter().flatten().enumerate().collect();
    for number in 0.. {
        let Some((to, message)) = queue.pop_front() else { break };
        assert!(number < MESSAGES, "it goes on for ever");
        let mut message = message.to_vec();
        for alteration in alterations.chunks_exact(3).filter(|alteration| usize::from(alteration[0]) == number) {
            let len = message.len();
            match message.get_mut(usize::from(alteration[1])) {
                Some(byte) => *byte = alteration[2],
                None => message.truncate(len / 2),
            }
        }
        let Some(machine) = &mut machines[to] else { continue };
        match machine.handle(&message) {
            Ok(answer) => queue.extend(answer.map(|answer| (1 - to, answer))),
            Err(_) => machines[to] = None,
        }
    }
    machines.map(|machine| {
        let mut found: Vec<FeedKey> = machine?.into_differing().collect();
        found.sort_unstable();
        Some(found)
    })
}

/// A state is a length, and odd ones have a hole.
fn runs(state: u64) -> Vec<Range<u64>> {
    let hole = if state.is_multiple_of(2) { state } else { state / 2 };
    Vec::from_iter([0..hole, hole + 1..state].into_iter().filter(|run| !run.is_empty()))
}
