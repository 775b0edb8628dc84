#![allow(clippy::single_range_in_vec_init, reason = "runs of blocks")]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::message::{MESSAGE_BYTES, MESSAGE_RANGES};
use crate::replication::reconcile::*;

/// Of each discovery key the length, which tells its one root too, and the blocks that are held.
type Set = BTreeMap<[u8; 32], (u64, Vec<Range<u64>>)>;

const HASH: [u8; 64] = [3; 64];

fn machine(set: &Set, hash: [u8; 64]) -> Reconciler<[u8; 32]> {
    let feeds =
        set.iter().map(|(key, (len, held))| (*key, DiscoveryKey::new(*key), *len, [[*len as u8; 32]], held.clone()));
    Reconciler::new(hash, feeds, &Limits::default())
}

/// Lets two machines talk until both are done: what each found, the messages, and their bytes.
fn talk(ours: &Set, theirs: &Set) -> ([Vec<[u8; 32]>; 2], usize, usize) {
    let (mut a, mut b) = (machine(ours, HASH), machine(theirs, HASH));
    let mut messages = [Some(b.greeting()), Some(a.greeting())];
    let (mut count, mut bytes) = (0, 0);
    while messages.iter().any(Option::is_some) {
        for message in messages.iter().flatten() {
            assert!(message.len() <= MESSAGE_BYTES);
            count += 1;
            bytes += message.len();
        }
        let [to_a, to_b] = messages;
        let from_a = to_a.and_then(|message| a.handle(&message).expect("an honest remote"));
        let from_b = to_b.and_then(|message| b.handle(&message).expect("an honest remote"));
        messages = [from_b, from_a];
    }
    assert!(a.is_done() && b.is_done(), "one of them waits for ever");
    ([a.into_differing().collect(), b.into_differing().collect()], count, bytes)
}

/// The feeds of one set that are not in the other, or not in the same state.
fn naive(ours: &Set, theirs: &Set) -> Vec<[u8; 32]> {
    ours.iter().filter(|(key, state)| theirs.get(*key) != Some(*state)).map(|(key, _)| *key).collect()
}

fn key(number: u64) -> [u8; 32] {
    *FeedKeyBytes(number).discovery_key().as_bytes()
}

struct FeedKeyBytes(u64);

impl FeedKeyBytes {
    fn discovery_key(&self) -> DiscoveryKey {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.0.to_le_bytes());
        multifeed_proto::FeedKey::new(key).discovery_key()
    }
}

fn whole(numbers: impl IntoIterator<Item = u64>) -> Set {
    numbers.into_iter().map(|number| (key(number), (5, vec![0..5]))).collect()
}

fn state() -> impl Strategy<Value = (u64, Vec<Range<u64>>)> {
    prop_oneof![
        (0u64..4).prop_map(|len| (len, Vec::from_iter((len > 0).then_some(0..len)))),
        (1u64..3).prop_map(|end| (8, vec![0..end, 4..6])),
    ]
}

/// Keys that are spread, and keys that have long beginnings in common, zeros and ones among them.
fn any_key() -> impl Strategy<Value = [u8; 32]> {
    prop_oneof![
        6 => (0u64..400).prop_map(key),
        1 => (0u8..6, 0usize..32).prop_map(|(byte, at)| {
            let mut key = [0; 32];
            key[at] = byte;
            key
        }),
        1 => (0u8..4).prop_map(|byte| {
            let mut key = [255; 32];
            key[31] -= byte;
            key
        }),
    ]
}

fn sets() -> impl Strategy<Value = (Set, Set)> {
    let set = |most| prop::collection::btree_map(any_key(), state(), 0..most);
    (set(300), set(40), set(40), prop::collection::vec((any::<prop::sample::Index>(), state()), 0..10)).prop_map(
        |(common, ours, theirs, changed)| {
            let (mut a, mut b) = (common.clone(), common);
            let keys: Vec<[u8; 32]> = b.keys().copied().collect();
            for (at, state) in changed.into_iter().filter(|_| !keys.is_empty()) {
                b.insert(*at.get(&keys), state);
            }
            a.extend(ours);
            b.extend(theirs);
            (a, b)
        },
    )
}

proptest! {
    #[test]
    fn what_differs_is_what_a_naive_comparison_finds((a, b) in sets()) {
        let ([from_a, from_b], messages, _) = talk(&a, &b);
        prop_assert_eq!(from_a, naive(&a, &b));
        prop_assert_eq!(from_b, naive(&b, &a));
        prop_assert!(messages <= 8, "{} messages", messages);
    }

    #[test]
    fn whatever_a_remote_says_is_taken_or_refused(
        (set, _) in sets(),
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..5),
    ) {
        let mut machine = machine(&set, HASH);
        for message in messages {
            if machine.handle(&message).is_err() {
                break;
            }
        }
        prop_assert!(machine.into_differing().count() <= set.len());
    }

    /// Bytes of a real conversation, altered: nothing panics, and every message of ours stays one that can be read.
    #[test]
    fn altered_messages(
        (a, b) in sets(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        which in 0usize..6,
    ) {
        let (mut a, mut b) = (machine(&a, HASH), machine(&b, HASH));
        let mut queue = std::collections::VecDeque::from([(true, b.greeting()), (false, a.greeting())]);
        let mut count = 0;
        while let Some((to_a, message)) = queue.pop_front() {
            let mut message = message.to_vec();
            if count == which {
                let at = at.index(message.len());
                message[at] = byte;
            }
            count += 1;
            let machine = if to_a { &mut a } else { &mut b };
            match machine.handle(&message) {
                Ok(answer) => queue.extend(answer.map(|answer| (!to_a, answer))),
                Err(_) => break,
            }
        }
        prop_assert!(count < 40);
    }
}

#[test]
fn equal_sets_take_a_message_each_way() {
    for count in [0, 1, 1000, 20_000] {
        let set = whole(0..count);
        let (found, messages, bytes) = talk(&set, &set);
        assert_eq!((found, messages, bytes), ([vec![], vec![]], 2, 34));
    }
}

#[test]
fn one_of_many_is_found_in_a_handful_of_messages() {
    let ours = whole(0..20_000);
    let mut theirs = ours.clone();
    theirs.insert(key(7), (6, vec![0..6]));
    let (found, messages, bytes) = talk(&ours, &theirs);
    assert_eq!(found, [vec![key(7)], vec![key(7)]]);
    assert!(messages <= 7 && bytes < 1500, "{messages} messages, {bytes} bytes");
}

#[test]
fn all_against_nothing_is_known_at_once() {
    let (ours, nothing) = (whole(0..5000), Set::new());
    for [a, b] in [[&ours, &nothing], [&nothing, &ours]] {
        let (found, messages, bytes) = talk(a, b);
        assert_eq!(found, [naive(a, b), naive(b, a)]);
        assert_eq!((messages, bytes), (2, 34));
    }
}

#[test]
fn holes_and_lengths_tell_feeds_apart() {
    let states = [
        (0, vec![]),
        (8, vec![]),
        (8, vec![0..8]),
        (9, vec![0..8]),
        (8, vec![0..4]),
        (8, vec![4..8]),
        (8, vec![0..2, 4..6]),
        (8, vec![0..2, 5..7]),
    ];
    for (i, ours) in states.iter().enumerate() {
        for (j, theirs) in states.iter().enumerate() {
            let set = |state: &(u64, Vec<Range<u64>>)| Set::from([(key(1), state.clone())]);
            let (found, ..) = talk(&set(ours), &set(theirs));
            assert_eq!(found[0].is_empty(), i == j, "{ours:?} {theirs:?}");
            assert_eq!(found[0], found[1]);
        }
    }
}

#[test]
fn marks_are_each_sessions_own() {
    let set = whole(0..10);
    let (one, other) = (machine(&set, [1; 64]), machine(&set, [2; 64]));
    assert_ne!(one.greeting(), other.greeting());
    let marks = |machine: &Reconciler<[u8; 32]>| machine.items.iter().map(|item| item.mark).collect::<Vec<_>>();
    assert!(marks(&one).iter().all(|mark| !marks(&other).contains(mark)));
}

/// If two sets have next to nothing in common, the messages stay inside their bounds, and nothing that differs is missed.
#[test]
fn very_different_sets() {
    let (ours, theirs) = (whole(0..150_000), whole(149_990..300_000));
    let ([from_a, from_b], messages, _) = talk(&ours, &theirs);
    for (found, differ) in [(from_a, naive(&ours, &theirs)), (from_b, naive(&theirs, &ours))] {
        let found = std::collections::BTreeSet::from_iter(found);
        assert!(differ.iter().all(|key| found.contains(key)));
    }
    assert!(messages <= 10, "{messages}");
}

/// A machine that was greeted by somebody with another set, and has the word or asked.
fn greeted(asking: bool) -> Reconciler<[u8; 32]> {
    for number in 0.. {
        let mut machine = machine(&whole(0..100), HASH);
        let mut other = whole(0..100);
        other.insert(key(1000 + number), (1, vec![0..1]));
        let greeting = super::tests::machine(&other, HASH).greeting();
        let asks = machine.handle(&greeting).expect("a greeting").is_none();
        if asks == asking {
            return machine;
        }
    }
    unreachable!()
}

fn refused(message: &[u8]) -> SessionError {
    greeted(true).handle(message).expect_err("it breaks the rules")
}

fn broken(error: ReconcileError) -> SessionError {
    error.into()
}

/// A range of fingerprints that match nothing.
fn range(bound: &[u8], said: &[u8]) -> Vec<u8> {
    let mut range = vec![bound.len() as u8];
    range.extend_from_slice(bound);
    range.extend_from_slice(said);
    range
}

fn ranges(ranges: &[Vec<u8>]) -> Vec<u8> {
    [vec![1], ranges.concat()].concat()
}

const STRANGE: [u8; 17] = [1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9];

#[test]
fn what_breaks_the_rules_is_the_remotes_fault() {
    use ReconcileError as E;
    // Kinds: another version, a second greeting, nothing at all.
    assert_eq!(refused(&[7]), broken(E::Kind(7)));
    assert_eq!(refused(&[&[0][..], &[1; 16]].concat()), broken(E::Kind(0)));
    assert_eq!(refused(&[]), broken(E::Length));
    for (greeting, error) in [
        (&[][..], E::Length),
        (&[0; 16], E::Length),
        (&[0; 18], E::Length),
        (&[1; 17], E::Kind(1)),
        (&[99], E::Kind(99)),
    ] {
        assert_eq!(machine(&whole(0..3), HASH).handle(greeting), Err(broken(error)));
    }
    // Cut short at every place.
    let whole_message =
        ranges(&[range(&[0x80], &STRANGE), range(&[0xc0], &[2, 1, 1, 2, 3, 4, 5, 6, 7, 8]), range(&[], &[4])]);
    greeted(true).handle(&whole_message).expect("it is as it should be");
    for cut in 1..whole_message.len() {
        refused(&whole_message[..cut]);
    }
    // Bounds.
    assert_eq!(refused(&ranges(&[range(&[0x80, 0], &[0])])), broken(E::Bound));
    assert_eq!(refused(&[1, 33]), broken(E::Bound));
    let to_the_end = range(&[], &[0]);
    for (first, second) in [([0x80], [0x80]), ([0x80], [0x40])] {
        let message = ranges(&[range(&first, &[0]), range(&second, &[0]), to_the_end.clone()]);
        assert_eq!(refused(&message), broken(E::Order));
    }
    assert_eq!(refused(&ranges(&[to_the_end.clone(), to_the_end.clone()])), broken(E::Unasked));
    assert_eq!(refused(&ranges(&[to_the_end.clone(), range(&[0x80], &[0])])), broken(E::Unasked));
    assert_eq!(refused(&ranges(&[range(&[0x80], &[0])])), broken(E::Unanswered));
    assert_eq!(refused(&ranges(&[])), broken(E::Unanswered));
    // What is said.
    assert_eq!(refused(&ranges(&[range(&[], &[5])])), broken(E::Range(5)));
    assert_eq!(refused(&ranges(&[range(&[], &[3, 0])])), broken(E::Unasked));
    // Counts that nothing stands behind.
    for count in [&[1][..], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], &[0xff; 9], &[0x80]] {
        assert_eq!(refused(&ranges(&[range(&[], &[&[2][..], count].concat())])), broken(E::Length));
    }
    // After the end.
    let mut done = greeted(true);
    assert_eq!(done.handle(&ranges(std::slice::from_ref(&to_the_end))), Ok(None));
    assert!(done.is_done());
    assert_eq!(done.handle(&ranges(&[to_the_end])), Err(broken(E::Late)));
    assert_eq!(broken(E::Late).fault(), multifeed_proto::Fault::Remote);
}

#[test]
fn an_answer_to_a_list_has_to_fit_it() {
    use ReconcileError as E;
    // A list of the feeds before a bound: asked for by a fingerprint that is not ours.
    let listed = || {
        let mut machine = greeted(true);
        let answer = machine.handle(&ranges(&[range(&[0x10], &STRANGE), range(&[], &[0])])).unwrap().unwrap();
        let said = message::parse(&answer, 9).unwrap().unwrap();
        let [(_, Said::List(marks))] = &said[..] else { panic!("{said:?}") };
        (machine, marks.len())
    };
    let (_, count) = listed();
    assert!((1..8).contains(&count), "{count}");
    for (said, error) in [
        (vec![3, 1, 0xff], E::Bits),
        (vec![3, 2, 0, 0], E::Bits),
        (vec![3, 0], E::Bits),
        (vec![0], E::Unasked),
        (STRANGE.to_vec(), E::Unasked),
        (vec![2, 0], E::Unasked),
    ] {
        assert_eq!(listed().0.handle(&ranges(&[range(&[0x10], &said)])), Err(broken(error)), "{said:?}");
    }
    let parts = ranges(&[range(&[8], &[4]), range(&[0x10], &[4])]);
    assert_eq!(listed().0.handle(&parts), Err(broken(E::Unasked)));
    assert_eq!(listed().0.handle(&ranges(&[range(&[], &[4])])), Err(broken(E::Order)));
    for (said, lacking) in [(vec![3, 1, 0x80], 1), (vec![3, 1, 0], 0), (vec![4], count)] {
        let mut machine = listed().0;
        assert_eq!(machine.handle(&ranges(&[range(&[0x10], &said)])), Ok(None));
        assert_eq!(machine.into_differing().count(), lacking);
    }
}

#[test]
fn bounds_of_messages() {
    let is_limit = |error, name| assert!(matches!(error, SessionError::Limit { what, .. } if what == name), "{error}");
    is_limit(refused(&vec![1; MESSAGE_BYTES + 1]), "reconcile_bytes");
    let mut many = vec![1];
    for number in 0..=MESSAGE_RANGES as u16 {
        many.extend_from_slice(&[2, (number >> 8) as u8, number as u8 | 1, 0]);
    }
    is_limit(refused(&many), "reconcile_ranges");
    // A remote that only ever asks again ends somewhere.
    let mut machine = greeted(true);
    let error = loop {
        match machine.handle(&ranges(&[range(&[], &STRANGE)])) {
            Ok(answer) => {
                // Each range of the answer is asked about anew, as a whole, and the first of them over again.
                let said = answer.expect("there is something to say");
                assert!(said.len() < MESSAGE_BYTES);
                machine.asked = vec![Asked { lower: None, upper: Bound::END, items: 0..100, listed: false }];
            }
            Err(error) => break error,
        }
    };
    is_limit(error, "reconcile_messages");
}

/// As many questions as a message holds: the answer stays inside the bounds, and what cannot be said in detail is offered.
#[test]
fn a_remote_that_asks_about_everything_at_once() {
    let set = whole(0..60_000);
    let mut machine = machine(&set, HASH);
    for number in 100_000.. {
        // Until it is the one that asks.
        if machine.handle(&super::tests::machine(&whole([number]), HASH).greeting()).unwrap().is_none() {
            break;
        }
        machine = super::tests::machine(&set, HASH);
    }
    let mut message = vec![1];
    for number in 1..MESSAGE_RANGES as u32 {
        let bound = (number << 18 | 1).to_be_bytes();
        message.extend_from_slice(&range(&bound, &STRANGE));
    }
    message.extend_from_slice(&range(&[], &STRANGE));
    assert!(message.len() <= MESSAGE_BYTES);
    let answer = machine.handle(&message).unwrap().unwrap();
    assert!(answer.len() <= MESSAGE_BYTES);
    assert_eq!(message::parse(&answer, MESSAGE_RANGES).unwrap().unwrap().len(), MESSAGE_RANGES);
}

#[test]
fn what_is_not_done_differs_in_all() {
    assert_eq!(machine(&whole(0..10), HASH).into_differing().count(), 10);
    assert_eq!(greeted(true).into_differing().count(), 100);
    assert_eq!(greeted(false).into_differing().count(), 100);
}
