//! One writer's key in two stores that meet each other: the one that is behind learns of it in time, and both report two histories.

use crate::link;
use crate::played;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use link::{Link, Store, run, store};
use multifeed_core::{
    FeedId, FileId, FileKind, KeyPair, MultifeedEvent, Options, PeerEvent, Policy, Remote, Replicate, Slot, Storage,
    Want, WantOptions,
};
use multifeed_proto::{Command, Event, FeedKey, Have, ManifestFields, Message, Origin, Request, Root, Token};
use played::Played;

const NOW: Duration = Duration::ZERO;

fn pair() -> KeyPair {
    KeyPair::from_seed(&[1; 32])
}

fn append(store: &mut Store, blocks: &[&str]) {
    let id = feed(store);
    let blocks: Vec<Bytes> = blocks.iter().map(|block| Bytes::copy_from_slice(block.as_bytes())).collect();
    store.append(id, &blocks).unwrap();
    store.commit(NOW);
}

fn feed(store: &mut Store) -> FeedId {
    store.writer(Some("w"), pair).unwrap()
}

/// Two stores with the same key: the blocks that both begin with, and what each has appended to them since.
fn devices(shared: &[&str], more: [&[&str]; 2]) -> Vec<Store> {
    let mut first = store();
    append(&mut first, shared);
    let disk = first.storage().clone();
    let mut stores = vec![first, multifeed_core::Multifeed::open(disk, Options::default()).unwrap()];
    for (store, more) in stores.iter_mut().zip(more) {
        append(store, more);
    }
    stores
}

fn blocks(store: &mut Store) -> Vec<String> {
    feed(store);
    blocks_of(store)
}

fn blocks_of(store: &mut Store) -> Vec<String> {
    let id = store.find(&pair().public_key()).unwrap();
    let len = store.info(id).unwrap().len;
    let text = |block: Option<Bytes>| block.map_or("-".to_owned(), |block| String::from_utf8(block.into()).unwrap());
    (0..len).map(|index| text(store.get(id, index).unwrap())).collect()
}

fn meet(stores: &mut [Store], options: &Replicate) -> Link {
    run_once(stores, [0, 1], options)
}

fn run_once(stores: &mut [Store], ends: [usize; 2], options: &Replicate) -> Link {
    let mut link = Link::plain(stores, ends, options.clone());
    run(stores, std::slice::from_mut(&mut link), NOW);
    link
}

/// The lengths of the two histories in each side's reports of a conflict: its own, and the remote's.
fn conflicts(link: &Link) -> [Vec<(u64, u64)>; 2] {
    link.events.each_ref().map(|events| {
        let lengths = events.iter().filter_map(|event| match event {
            PeerEvent::Conflict { conflict, .. } => Some((conflict.held_length, conflict.length)),
            _ => None,
        });
        lengths.collect()
    })
}

/// The lengths in a side's reports that its own feed had grown elsewhere: before, and now.
fn writer_behind(link: &Link) -> [Vec<(u64, u64)>; 2] {
    link.events.each_ref().map(|events| {
        let lengths = events.iter().filter_map(|event| match event {
            PeerEvent::WriterBehind { held, len, .. } => Some((*held, *len)),
            _ => None,
        });
        lengths.collect()
    })
}

fn once() -> Replicate {
    Replicate { live: false, ..Replicate::default() }
}

fn live() -> Replicate {
    Replicate { live: true, ..Replicate::default() }
}

fn listed(options: Replicate) -> Replicate {
    Replicate { reconcile: Some(false), ..options }
}

#[test]
fn two_histories_are_told_to_both_writers_whatever_their_lengths() {
    let cases: [(&[&str], [&[&str]; 2]); 7] = [
        (&["a", "b", "c"], [&["x"], &["y"]]),
        (&["a", "b", "c"], [&["x"], &["y", "z"]]),
        (&["a", "b", "c"], [&["x", "z"], &["y"]]),
        // The block that ends both is the same, and so is its hash.
        (&["a"], [&["x", "same"], &["y", "same"]]),
        (&["a", "b", "c", "d"], [&["x", "same"], &["y", "same", "z", "same"]]),
        (&[], [&["x"], &["y", "x"]]),
        (&["a"], [&["x"; 40], &["x", "y", "x", "x", "x"]]),
    ];
    for (shared, more) in cases {
        for options in [once(), listed(once()), live(), listed(live())] {
            let mut stores = devices(shared, more);
            let before = stores.iter_mut().map(blocks).collect::<Vec<_>>();
            let [ours, theirs] = more.map(|more| (shared.len() + more.len()) as u64);
            // What else there is, is synced.
            stores[1].writer(Some("other"), || KeyPair::from_seed(&[2; 32])).unwrap();
            let other = stores[1].find(&KeyPair::from_seed(&[2; 32]).public_key()).unwrap();
            stores[1].append(other, &[Bytes::from("fine")]).unwrap();
            stores[1].commit(NOW);

            for again in [false, true] {
                let mut link = Link::plain(&mut stores, [0, 1], options.clone());
                let peers = link.ends.each_ref().map(|(_, end)| end.peer());
                stores.iter_mut().zip(peers).for_each(|(store, peer)| store.observe(peer));
                run(&mut stores, std::slice::from_mut(&mut link), NOW);
                assert!(stores.iter().zip(peers).all(|(store, peer)| !store.in_sync(peer)));
                let case = format!("{shared:?} and {more:?}, {options:?}, again: {again}: {:?}", link.events);
                assert_eq!(conflicts(&link), [vec![(ours, theirs)], vec![(theirs, ours)]], "{case}");
                assert_eq!(writer_behind(&link), [vec![], vec![]], "{case}");
                for (side, store) in stores.iter_mut().enumerate() {
                    match options.live {
                        true => assert!(link.result(side).is_none(), "{case}"),
                        false => assert_eq!(link.totals(side).holes, [], "{case}"),
                    }
                    let told = std::iter::from_fn(|| store.poll_event());
                    let told = told.filter(|event| matches!(event, MultifeedEvent::Conflict { .. })).count();
                    assert_eq!(told, usize::from(!again), "{case}");
                    let kept = store.storage().contents(FileId::beside(FileKind::Conflicts)).unwrap();
                    assert_eq!(kept.iter().filter(|&&byte| byte == b'\n').count(), 1, "{case}");
                }
                assert_eq!(stores.iter_mut().map(blocks).collect::<Vec<_>>(), before, "{case}");
                let other = stores[0].find(&KeyPair::from_seed(&[2; 32]).public_key()).unwrap();
                assert_eq!(stores[0].get(other, 0).unwrap().unwrap(), "fine");
            }
        }
    }
}

#[test]
fn an_old_copy_learns_what_was_signed_since_and_goes_on_from_there() {
    for (shared, more) in [(1, 1), (1, 2), (3, 1), (3, 6), (8, 8), (5, 100), (0, 1), (0, 9)] {
        for options in [once(), listed(once()), live(), listed(live())] {
            let shared: Vec<String> = (0..shared).map(|at| format!("shared {at}")).collect();
            let more: Vec<String> = (0..more).map(|at| format!("more {at}")).collect();
            let [shared, more] = [&shared, &more].map(|list| list.iter().map(String::as_str).collect::<Vec<_>>());
            let mut stores = devices(&shared, [&more, &[]]);
            let (held, len) = (shared.len() as u64, (shared.len() + more.len()) as u64);
            let link = meet(&mut stores, &options);
            let case = format!("{held} of {len}, {options:?}: {:?}", link.events);
            assert_eq!(conflicts(&link), [vec![], vec![]], "{case}");
            assert_eq!(writer_behind(&link), [vec![], vec![(held, len)]], "{case}");
            assert_eq!(blocks(&mut stores[0]), blocks(&mut stores[1]), "{case}");
            let told: Vec<_> = std::iter::from_fn(|| stores[1].poll_event()).collect();
            let writer_behind = |event: &MultifeedEvent| matches!(event, MultifeedEvent::WriterBehind { held: was, len: is, .. } if (*was, *is) == (held, len));
            assert_eq!(told.iter().filter(|event| writer_behind(event)).count(), 1, "{case}");

            // It is one history that goes on, here and there, and after it was opened anew.
            append(&mut stores[1], &["after"]);
            let disk = stores[1].storage().clone();
            stores[1] = multifeed_core::Multifeed::open(disk, Options::default()).unwrap();
            assert!(stores[1].problems().is_empty() && stores[1].recovered().is_empty(), "{case}");
            let link = meet(&mut stores, &options);
            assert_eq!(conflicts(&link), [vec![], vec![]], "{case}");
            assert_eq!(blocks(&mut stores[0]), blocks(&mut stores[1]), "{case}");
            assert_eq!(blocks(&mut stores[0]).last().unwrap(), "after");
        }
    }
}

#[test]
fn in_a_live_session_two_devices_take_turns() {
    let mut stores = devices(&["shared"], [&[], &[]]);
    let mut link = Link::plain(&mut stores, [0, 1], live());
    run(&mut stores, std::slice::from_mut(&mut link), NOW);
    for at in 0..6 {
        append(&mut stores[at % 2], &[&format!("block {at}"), "and one more"]);
        run(&mut stores, std::slice::from_mut(&mut link), NOW);
        assert_eq!(blocks(&mut stores[0]), blocks(&mut stores[1]));
    }
    assert_eq!(blocks(&mut stores[0]).len(), 13);
    assert_eq!(conflicts(&link), [vec![], vec![]]);
    assert_eq!(writer_behind(&link).map(|told| told.len()), [3, 3]);
    // Both at once, which nobody can prevent: it shows at once.
    append(&mut stores[0], &["mine"]);
    append(&mut stores[1], &["mine, too", "and longer"]);
    run(&mut stores, std::slice::from_mut(&mut link), NOW);
    assert_eq!(conflicts(&link), [vec![(14, 15)], vec![(15, 14)]], "{:?}", link.events);
    let ends = stores.iter_mut().map(|store| blocks(store).split_off(13)).collect::<Vec<_>>();
    assert_eq!(ends, [vec!["mine"], vec!["mine, too", "and longer"]]);
}

#[test]
fn a_sparse_session_tells_the_length_and_brings_what_is_asked_for() {
    let mut stores = devices(&["a", "b"], [&["c", "d", "e"], &[]]);
    let link = meet(&mut stores, &Replicate { sparse: Some(true), ..once() });
    assert_eq!((conflicts(&link), writer_behind(&link)), ([vec![], vec![]], [vec![], vec![(2, 5)]]));
    assert_eq!(blocks(&mut stores[1]), ["a", "b", "-", "-", "-"]);
    append(&mut stores[1], &["f"]);
    let disk = stores[1].storage().clone();
    stores[1] = multifeed_core::Multifeed::open(disk, Options::default()).unwrap();
    let id = feed(&mut stores[1]);
    assert_eq!(blocks(&mut stores[1]), ["a", "b", "-", "-", "-", "f"]);
    stores[1].want(id, Want::Block(3), WantOptions::default()).unwrap();
    let link = meet(&mut stores, &Replicate { sparse: Some(true), ..once() });
    assert_eq!((conflicts(&link), writer_behind(&link)), ([vec![], vec![]], [vec![(5, 6)], vec![]]));
    assert_eq!(blocks(&mut stores[1]), ["a", "b", "-", "d", "-", "f"]);
}

#[test]
fn what_an_old_copy_had_no_time_to_fetch_comes_later() {
    for options in [once(), listed(once()), live()] {
        let case = format!("{options:?}");
        let mut stores = devices(&["a", "b"], [&["c", "d", "e"], &[]]);
        // The length is learnt, and the session over before a block came.
        let link = meet(&mut stores, &Replicate { sparse: Some(true), ..once() });
        assert_eq!(writer_behind(&link), [vec![], vec![(2, 5)]], "{case}");
        append(&mut stores[1], &["f"]);
        let id = feed(&mut stores[1]);
        assert!(stores[1].is_fetched(id), "{case}");
        let disk = stores[1].storage().clone();
        stores[1] = multifeed_core::Multifeed::open(disk, Options::default()).unwrap();
        assert_eq!(blocks(&mut stores[1]), ["a", "b", "-", "-", "-", "f"], "{case}");
        let link = meet(&mut stores, &options);
        assert_eq!(conflicts(&link), [vec![], vec![]], "{case}");
        for store in &mut stores {
            assert_eq!(blocks(store), ["a", "b", "c", "d", "e", "f"], "{case}");
        }
        // What is cleared of a feed that was whole is not fetched again, after it was opened anew either.
        let id = feed(&mut stores[1]);
        stores[1].clear(id, 1..3).unwrap();
        stores[1].commit(NOW);
        for again in [false, true] {
            if again {
                let disk = stores[1].storage().clone();
                stores[1] = multifeed_core::Multifeed::open(disk, Options::default()).unwrap();
            }
            meet(&mut stores, &options);
            assert_eq!(blocks(&mut stores[1]), ["a", "-", "-", "d", "e", "f"], "{case}");
        }
    }
}

/// A reader that took in blocks of both histories, before anything showed that they are two, learns it once they touch; the session goes on.
#[test]
fn a_reader_that_holds_some_of_both_histories_is_told() {
    for options in [once(), listed(once()), live()] {
        let mut stores = devices(&["a", "b", "c", "d"], [&["x", "x", "x", "x", "x", "x"], &["y", "z"]]);
        stores.push(store());
        run_once(&mut stores, [1, 2], &once());
        let id = stores[2].find(&pair().public_key()).unwrap();
        stores[2].want(id, Want::Block(9), WantOptions::default()).unwrap();
        let link = run_once(&mut stores, [0, 2], &Replicate { sparse: Some(true), ..once() });
        assert_eq!(conflicts(&link), [vec![(10, 6)], vec![]]);
        assert_eq!((stores[2].info(id).unwrap().len, stores[2].info(id).unwrap().downloaded), (10, 7));
        let other = stores[0].writer(Some("other"), || KeyPair::from_seed(&[2; 32])).unwrap();
        stores[0].append(other, &[Bytes::from("fine")]).unwrap();
        stores[0].commit(NOW);
        let link = run_once(&mut stores, [0, 2], &options);
        let case = format!("{options:?}: {:?}", link.events);
        assert_eq!(conflicts(&link), [vec![], vec![(10, 6)]], "{case}");
        if !options.live {
            link.totals(0);
            link.totals(1);
        }
        assert!(stores[2].find(&KeyPair::from_seed(&[2; 32]).public_key()).is_some(), "{case}");
    }
}

/// The signature of the older history may lie behind many that rotted: it is looked for in steps, and nothing is fetched from the remote
/// meanwhile.
#[test]
fn a_fork_is_proven_in_steps() {
    let theirs: Vec<&str> = vec!["x"; 600];
    let ours: Vec<&str> = vec!["y"; 400];
    for (options, rotten, steps) in
        [(once(), 256..400, 2), (live(), 256..400, 2), (live(), 390..400, 0), (live(), 256..320, 1)]
    {
        let case = format!("{options:?}, {rotten:?}");
        let mut stores = devices(&[], [&theirs, &ours]);
        stores.push(store());
        let id = stores[2].add(pair().public_key()).unwrap();
        for (from, block) in [(1, 5), (0, 599)] {
            stores[2].want(id, Want::Block(block), WantOptions::default()).unwrap();
            run_once(&mut stores, [from, 2], &Replicate { sparse: Some(true), ..once() });
        }
        assert_eq!((stores[2].info(id).unwrap().len, stores[2].info(id).unwrap().downloaded), (600, 2));
        let mut disk = link::closed(&stores.pop().unwrap());
        for length in rotten {
            let file = FileId::new(Slot(0), FileKind::Signatures);
            disk.write_at(file, 32 + 64 * (length - 1), &[7; 64]).unwrap();
        }
        stores.push(multifeed_core::Multifeed::open(disk, Options::default()).unwrap());
        let id = stores[2].find(&pair().public_key()).unwrap();
        let mut link = Link::plain(&mut stores, [0, 2], options);
        run(&mut stores, std::slice::from_mut(&mut link), NOW);
        let held = stores[2].info(id).unwrap().downloaded;
        for step in 0..steps {
            assert_eq!(conflicts(&link), [vec![], vec![]], "{case}: {step}");
            assert_eq!(stores[2].poll_timeout(), Some(NOW), "{case}: {step}");
            assert_eq!(stores[2].info(id).unwrap().downloaded, held, "{case}: {step}");
            stores[2].handle_timeout(NOW);
            run(&mut stores, std::slice::from_mut(&mut link), NOW);
        }
        assert_ne!(stores[2].poll_timeout(), Some(NOW), "{case}");
        assert_eq!(conflicts(&link), [vec![], vec![(600, 400)]], "{case}: {:?}", link.events);
    }
}

/// What one remote proved, another may bring: also in a session that was there before.
#[test]
fn the_rest_of_an_old_copy_comes_from_anyone() {
    let mut stores = devices(&["a", "b"], [&["c", "d", "e"], &[]]);
    stores.push(store());
    run_once(&mut stores, [0, 2], &once());
    let options = [Replicate { upload: Some(false), ..live() }, live()];
    let mut reader = Link::new(&mut stores, [2, 1], options, Default::default());
    run(&mut stores, std::slice::from_mut(&mut reader), NOW);
    assert_eq!(blocks(&mut stores[1]), ["a", "b"]);
    let id = stores[2].find(&pair().public_key()).unwrap();
    run_once(&mut stores, [0, 1], &Replicate { sparse: Some(true), ..once() });
    stores[2].set_transfer(id, None, Some(true)).unwrap();
    run(&mut stores, std::slice::from_mut(&mut reader), NOW);
    assert_eq!(blocks(&mut stores[1]), ["a", "b", "c", "d", "e"], "{:?}", reader.events);
}

#[test]
fn who_fetches_nothing_asks_nothing() {
    let mut stores = devices(&["a"], [&["x"], &["y"]]);
    let link = meet(&mut stores, &Replicate { download: Some(false), ..once() });
    assert_eq!(conflicts(&link), [vec![], vec![]]);
    link.totals(0);
    link.totals(1);
}

/// The window of a feed that holds its end is asked for, too, if that is not the first.
#[test]
fn of_long_feeds_too() {
    const WINDOW: usize = 1 << 20;
    let mut first = store();
    let id = feed(&mut first);
    first.append(id, &vec![Bytes::from_static(b"x"); WINDOW + 3]).unwrap();
    first.commit(NOW);
    let disk = first.storage().clone();
    let mut stores = vec![first, multifeed_core::Multifeed::open(disk, Options::default()).unwrap()];
    append(&mut stores[0], &["more"]);
    let link = meet(&mut stores, &once());
    let len = WINDOW as u64 + 3;
    assert_eq!((conflicts(&link), writer_behind(&link)), ([vec![], vec![]], [vec![], vec![(len, len + 1)]]));
    append(&mut stores[0], &["mine"]);
    append(&mut stores[1], &["mine, too", "and longer"]);
    let link = meet(&mut stores, &once());
    assert_eq!(conflicts(&link), [vec![(len + 2, len + 3)], vec![(len + 3, len + 2)]]);
}

#[test]
fn a_writer_and_who_reads_it_are_as_quiet_as_before() {
    let mut stores = vec![store(), store()];
    append(&mut stores[0], &["a", "b"]);
    let link = meet(&mut stores, &once());
    assert_eq!((conflicts(&link), writer_behind(&link)), ([vec![], vec![]], [vec![], vec![]]));
    assert_eq!(link.totals(1).blocks_received, 2);
    // A reader that is behind, and one that has all of it, and is listed all the same.
    append(&mut stores[0], &["c"]);
    for received in [1, 0] {
        let link = meet(&mut stores, &listed(once()));
        assert_eq!((conflicts(&link), writer_behind(&link)), ([vec![], vec![]], [vec![], vec![]]));
        assert_eq!(link.totals(1).blocks_received, received);
    }
    let id = stores[1].find(&pair().public_key()).unwrap();
    assert_eq!(stores[1].info(id).unwrap().downloaded, 3);
}

/// A remote that holds but some blocks of a longer history, none past our end, shows its length: that is asked for once, and the session ends.
#[test]
fn a_remote_that_holds_a_few_blocks_of_more_is_asked_once() {
    for options in [once(), live()] {
        let mut stores = devices(&["a", "b", "c", "d", "e"], [&["f", "g", "h", "i"], &[]]);
        stores.push(store());
        let mut link = Link::plain(&mut stores, [0, 2], Replicate { sparse: Some(true), ..once() });
        run(&mut stores, std::slice::from_mut(&mut link), NOW);
        let id = stores[2].find(&pair().public_key()).unwrap();
        stores[2].want(id, Want::Block(3), WantOptions::default()).unwrap();
        let mut link = Link::plain(&mut stores, [0, 2], Replicate { sparse: Some(true), ..once() });
        run(&mut stores, std::slice::from_mut(&mut link), NOW);
        assert_eq!((stores[2].info(id).unwrap().len, stores[2].info(id).unwrap().downloaded), (9, 1));

        let mut link = Link::plain(&mut stores, [1, 2], listed(options));
        run(&mut stores, std::slice::from_mut(&mut link), NOW);
        assert_eq!(conflicts(&link), [vec![], vec![]]);
    }
}

/// As much here as there, and at the same time: the lengths tell nothing, and what they are made of does.
#[test]
fn two_blocks_at_the_same_moment_are_told_in_a_live_session() {
    for options in [live(), listed(live())] {
        for turns in 0..4 {
            let mut stores = devices(&["shared"], [&[], &[]]);
            let mut link = Link::plain(&mut stores, [0, 1], options.clone());
            let peers = link.ends.each_ref().map(|(_, end)| end.peer());
            stores.iter_mut().zip(peers).for_each(|(store, peer)| store.observe(peer));
            run(&mut stores, std::slice::from_mut(&mut link), NOW);
            for at in 0..turns {
                append(&mut stores[at % 2], &["in turn"]);
                run(&mut stores, std::slice::from_mut(&mut link), NOW);
            }
            append(&mut stores[0], &["mine"]);
            append(&mut stores[1], &["mine, too"]);
            run(&mut stores, std::slice::from_mut(&mut link), NOW);
            let len = turns as u64 + 2;
            let case = format!("{turns}, {options:?}: {:?}", link.events);
            assert_eq!(conflicts(&link), [vec![(len, len)], vec![(len, len)]], "{case}");
            assert!(stores.iter().zip(peers).all(|(store, peer)| !store.in_sync(peer)), "{case}");
        }
    }
}

/// Readers of two histories, one of which may be longer: none says that it holds the same as the other, and the one that is behind learns why.
#[test]
fn readers_of_two_histories_are_not_in_sync() {
    for (first, second) in [(1, 1), (3, 1), (1, 3), (9, 9), (70, 2)] {
        for options in [once(), live()] {
            let [first, second] = [first, second].map(|count| vec!["x"; count]);
            let mut stores = devices(&["a", "b"], [&first, &second]);
            append(&mut stores[1], &["y"]);
            append(&mut stores[0], &["z"]);
            let lens = [first.len() as u64 + 3, second.len() as u64 + 3];
            stores.extend([store(), store()]);
            run_once(&mut stores, [0, 2], &once());
            run_once(&mut stores, [1, 3], &once());
            let before = [2, 3].map(|at: usize| blocks_of(&mut stores[at]));
            let mut link = Link::plain(&mut stores, [2, 3], options.clone());
            let peers = link.ends.each_ref().map(|(_, end)| end.peer());
            [2, 3].into_iter().zip(peers).for_each(|(at, peer): (usize, _)| stores[at].observe(peer));
            run(&mut stores, std::slice::from_mut(&mut link), NOW);
            let case = format!("{lens:?}, {options:?}: {:?}", link.events);
            let [left, right] = conflicts(&link);
            assert!(lens[0] > lens[1] || left == [(lens[0], lens[1])], "{case}");
            assert!(lens[1] > lens[0] || right == [(lens[1], lens[0])], "{case}");
            assert!([2, 3].into_iter().zip(peers).all(|(at, peer): (usize, _)| !stores[at].in_sync(peer)), "{case}");
            let said = |events: &[PeerEvent]| {
                events.iter().any(|event| matches!(event, PeerEvent::Progress(state) if state.in_sync))
            };
            assert!(!link.events.iter().any(|events| said(events)), "{case}");
            // Who is asked to fetch it all the same fetches nothing of the other history.
            for (at, peer) in [2, 3].into_iter().zip(peers).filter(|_| options.live) {
                let id = stores[at].find(&pair().public_key()).unwrap();
                stores[at].set_transfer(id, Some(false), None).unwrap();
                stores[at].set_transfer(id, Some(true), None).unwrap();
                run(&mut stores, std::slice::from_mut(&mut link), NOW);
                assert!(!stores[at].in_sync(peer), "{case}");
            }
            assert_eq!([2, 3].map(|at: usize| blocks_of(&mut stores[at])), before, "{case}");
        }
    }
}

/// A remote of ours that claims a fork is asked for the proof, whether the application has the feed fetched or not, before the question is out or
/// before the claim came.
#[test]
fn a_claimed_fork_is_still_proven_after_the_feed_is_set_to_be_fetched_or_not() {
    let (fetched, not) = (Some(true), Some(false));
    for (before, sets) in [(None, None), (None, fetched), (None, not), (not, None), (not, fetched), (not, not)] {
        let mut stores = devices(&["a", "b"], [&["z"], &["y"]]);
        stores.push(store());
        run_once(&mut stores, [0, 2], &once());
        let [mut reader, mut other] = [stores.swap_remove(2), stores.swap_remove(1)].map(opened);
        let id = reader.store.find(&pair().public_key()).unwrap();
        reader.store.set_transfer(id, before, None).unwrap();
        reader.said();
        let mut said = reader.say(Message::Unhave { start: 0, length: (1 << 53) - 1 });
        reader.store.set_transfer(id, sets, None).unwrap();
        said.extend(reader.said());
        let sets = format!("{before:?}, {sets:?}: {said:?}");
        let fetches = Message::Status { uploading: true, downloading: true };
        assert!(!said.iter().any(|message| matches!(message, Message::Request(_)) || *message == fetches), "{sets}");
        let three = Some(Bytes::from_static(&[0x02, 0xe0]));
        let said = reader.say(Message::Have(Have { start: 0, length: 1 << 20, bitfield: three, ack: false }));
        let question = Message::Request(Request { index: 2, bytes: 0, hash: true, nodes: 0 });
        assert_eq!(said, std::slice::from_ref(&question), "{sets}");
        let proof = other.say(question).into_iter().find(|message| matches!(message, Message::Data(_))).unwrap();
        reader.say(proof);
        let lengths = reader.events().into_iter().find_map(|event| match event {
            PeerEvent::Conflict { conflict, .. } => Some((conflict.held_length, conflict.length)),
            _ => None,
        });
        assert_eq!(lengths, Some((3, 3)), "{sets}");
    }
}

/// The remote takes a writer's feed out of what it offers, and back: whether it has the same history is asked from then on as before.
#[test]
fn a_writer_that_is_wanted_again_is_compared_again() {
    #[derive(Debug)]
    struct Chosen;
    impl Policy for Chosen {
        fn choose(&self, keys: &mut Vec<FeedKey>, _: Option<&ManifestFields>, _: &Remote) {
            if keys.len() > 1 {
                keys.clear();
            }
        }
    }
    let mut stores = devices(&["a", "b"], [&[], &["z"]]);
    let options = Replicate { policy: Some(Arc::new(Chosen)), ..live() };
    let mut writer = opened_with(stores.swap_remove(0), options);
    let key = pair().public_key();
    for (chosen, downloading) in [(false, false), (true, true)] {
        let mut keys = vec![key];
        keys.extend((!chosen).then_some(FeedKey::new([0xff; 32])));
        writer.event(Event::Manifest { root: Root::FIRST, keys, fields: None });
        assert_eq!(writer.said(), [Message::Status { uploading: true, downloading }]);
    }
    let three = Some(Bytes::from_static(&[0x02, 0xe0]));
    let said = writer.say(Message::Have(Have { start: 0, length: 1 << 20, bitfield: three, ack: false }));
    assert_eq!(said, [Message::Request(Request { index: 2, bytes: 0, hash: true, nodes: 0 })]);
}

/// A store on whose live session with one of ours both sides opened the feed's channel.
fn opened(store: Store) -> Played {
    opened_with(store, live())
}

fn opened_with(store: Store, options: Replicate) -> Played {
    let key = pair().public_key();
    let mut played = Played::start_with_ours(store, options, true);
    played.event(Event::Manifest { root: Root::FIRST, keys: vec![key], fields: None });
    played.event(Event::Replicate { root: Root::FIRST, keys: vec![key], origin: Origin::Remote });
    played.event(Event::Replicate { root: Root::FIRST, keys: vec![key], origin: Origin::Local });
    played.event(Event::Opened { token: Token(0) });
    played.commands();
    played
}

impl Played {
    /// Takes a message of the feed's, and returns what goes out then.
    fn say(&mut self, message: Message) -> Vec<Message> {
        self.event(Event::Message { token: Token(0), message });
        self.said()
    }

    fn said(&mut self) -> Vec<Message> {
        let message = |command| match command {
            Command::Send { message, .. } => Some(message),
            _ => None,
        };
        self.commands().into_iter().filter_map(message).collect()
    }
}
