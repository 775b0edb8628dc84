//! What an application's policy lets sessions tell and take.

use crate::link;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use link::{Link, Store, run};
use multifeed_core::{
    FeedId, KeyPair, MemoryStorage, Multifeed, Options, PeerEvent, PeerLimits, Policy, Remote, Replicate, Want,
    WantOptions,
};
use multifeed_proto::{Config, Fault, FeedKey, Json, ManifestFields};

const START: Duration = Duration::ZERO;

/// Feeds that are kept from the remote, feeds that are not taken from it, and what it may bring.
#[derive(Debug, Default, Clone)]
struct Rules {
    hidden: Vec<FeedKey>,
    unwanted: Vec<FeedKey>,
    limits: Option<PeerLimits>,
    /// Taken of a manifest: the keys that it names under this, if it has that at all.
    kind: Option<&'static str>,
    /// Said of the feeds that are offered.
    says: Option<&'static str>,
}

impl Policy for Rules {
    fn offers(&self, key: &FeedKey, _: Option<&str>, remote: &Remote) -> bool {
        assert_eq!(remote.handshake.client, "MULTIFEED");
        assert_ne!(remote.public_key.as_bytes(), &[0; 32]);
        !self.hidden.contains(key)
    }

    fn wants(&self, key: &FeedKey, _: &Remote) -> bool {
        !self.unwanted.contains(key)
    }

    fn choose(&self, keys: &mut Vec<FeedKey>, fields: Option<&ManifestFields>, _: &Remote) {
        let Some(kind) = self.kind else { return };
        let named = fields.and_then(|fields| fields.get(kind));
        keys.retain(|key| named.as_ref().is_some_and(|named| named.as_str().contains(&key.to_string())));
    }

    fn fields(&self, keys: &[FeedKey], _: &Remote) -> Option<ManifestFields> {
        let first = format!("{{\"{}\":[\"{}\"]}}", self.says?, keys.first()?);
        ManifestFields::new(&Json::new(first)?)
    }

    fn limits(&self, _: &Remote) -> Option<PeerLimits> {
        self.limits
    }
}

fn key(seed: u8) -> FeedKey {
    KeyPair::from_seed(&[seed; 32]).public_key()
}

fn store_with(rules: Rules) -> Store {
    let options = Options { policy: Some(Arc::new(rules)), ..Options::default() };
    Multifeed::open(MemoryStorage::default(), options).unwrap()
}

fn writer(store: &mut Store, seed: u8, blocks: usize) -> FeedId {
    let id = store.writer(Some(&format!("writer {seed}")), || KeyPair::from_seed(&[seed; 32])).unwrap();
    append(store, id, blocks);
    id
}

fn append(store: &mut Store, id: FeedId, blocks: usize) {
    let blocks: Vec<Bytes> = (0..blocks).map(|block| Bytes::from(vec![block as u8; 100])).collect();
    store.append(id, &blocks).unwrap();
}

fn sync(stores: &mut [Store], options: Replicate) -> [Link; 1] {
    let mut links = [Link::plain(stores, [0, 1], options)];
    run(stores, &mut links, START);
    links
}

/// The feeds of a store, in the order of their keys, and how many blocks of each it holds.
fn held(store: &Store) -> Vec<(FeedKey, u64)> {
    let mut held: Vec<_> =
        store.feeds().map(|id| store.info(id).unwrap()).map(|info| (info.key, info.downloaded)).collect();
    held.sort();
    held
}

fn sorted<const N: usize>(mut feeds: [(FeedKey, u64); N]) -> Vec<(FeedKey, u64)> {
    feeds.sort();
    feeds.to_vec()
}

/// Every way in which a session may begin: live or not, with a comparison of the feeds before or without.
fn ways() -> impl Iterator<Item = Replicate> {
    [(false, true), (false, false), (true, true), (true, false)].into_iter().map(|(live, reconcile)| Replicate {
        live,
        reconcile: Some(reconcile),
        ..Replicate::default()
    })
}

fn limits_reached(link: &Link, side: usize) -> Vec<String> {
    let told = |event: &PeerEvent| match event {
        PeerEvent::LimitReached(error) => {
            assert_eq!((error.fault(), error.code()), (Fault::Limit, "ERR_LIMIT"));
            Some(error.to_string())
        }
        _ => None,
    };
    link.events[side].iter().filter_map(told).collect()
}

#[test]
fn what_is_not_offered_is_not_told_compared_or_served() {
    for options in ways() {
        // The other side knows the key of a feed that is kept from it, and asks for it.
        let mut stores = [store_with(Rules { hidden: vec![key(1), key(2)], ..Rules::default() }), link::store()];
        (1..=3).for_each(|seed| _ = writer(&mut stores[0], seed, 5));
        stores[1].add(key(2)).unwrap();
        writer(&mut stores[1], 9, 4);
        let mut links = sync(&mut stores, options.clone());
        assert_eq!(held(&stores[1]), sorted([(key(2), 0), (key(3), 5), (key(9), 4)]), "{options:?}");
        assert_eq!(held(&stores[0]), sorted([(key(1), 5), (key(2), 5), (key(3), 5), (key(9), 4)]));
        let names = |event: &PeerEvent| matches!(event, PeerEvent::RemoteFeeds { keys } if keys.contains(&key(1)));
        assert!(!links[0].events[1].iter().any(names));
        if options.live {
            // Nor what is new.
            let hidden = stores[0].find(&key(1)).unwrap();
            append(&mut stores[0], hidden, 3);
            writer(&mut stores[0], 4, 2);
            stores[0].commit(START);
            run(&mut stores, &mut links, START);
            assert_eq!(held(&stores[1]), sorted([(key(2), 0), (key(3), 5), (key(4), 2), (key(9), 4)]));
        } else {
            assert_eq!((links[0].totals(0).blocks_sent, links[0].totals(1).blocks_received), (5, 5));
        }
    }
}

#[test]
fn what_is_not_wanted_is_not_fetched() {
    for options in ways() {
        let mut stores = [link::store(), store_with(Rules { unwanted: vec![key(1), key(9)], ..Rules::default() })];
        (1..=3).for_each(|seed| _ = writer(&mut stores[0], seed, 5));
        let old = writer(&mut stores[0], 9, 2);
        // A session's own policy stands in place of the store's.
        let rules = Rules { unwanted: vec![key(1), key(2), key(3)], ..Rules::default() };
        let policies = [Replicate::default(), Replicate::default().with_policy(rules)];
        let mut links = [Link::new(&mut stores, [0, 1], policies, [Config::default(), Config::default()])];
        run(&mut stores, &mut links, START);
        assert_eq!(held(&stores[1]), [(key(9), 2)]);
        // One that is here already gets no more.
        append(&mut stores[0], old, 3);
        let mut links = sync(&mut stores, options.clone());
        assert_eq!(held(&stores[1]), sorted([(key(2), 5), (key(3), 5), (key(9), 2)]), "{options:?}");
        if options.live {
            append(&mut stores[0], old, 3);
            writer(&mut stores[0], 4, 1);
            stores[0].commit(START);
            run(&mut stores, &mut links, START);
            assert_eq!(held(&stores[1]), sorted([(key(2), 5), (key(3), 5), (key(4), 1), (key(9), 2)]));
            let id = stores[1].find(&key(9)).unwrap();
            stores[1].set_transfer(id, Some(true), None).unwrap();
            run(&mut stores, &mut links, START);
            assert_eq!(stores[1].info(id).unwrap().downloaded, 2, "the application's own wish got past its policy");
        } else {
            assert!(links[0].totals(1).holes.is_empty());
        }
    }
}

#[test]
fn feeds_are_chosen_by_what_is_said_of_them() {
    for options in ways() {
        let says = Rules { says: Some("first"), ..Rules::default() };
        let chooses = Rules { kind: Some("first"), ..Rules::default() };
        let mut stores = [store_with(says), store_with(chooses)];
        (1..=3).for_each(|seed| _ = writer(&mut stores[0], seed, 5));
        writer(&mut stores[1], 9, 4);
        let mut links = sync(&mut stores, options.clone());
        // Of three that were offered together it takes the one that is named; the other side takes all.
        assert_eq!(held(&stores[1]).len(), 2, "{options:?}");
        assert_eq!(held(&stores[0]).len(), 4);
        if options.live {
            let chosen = held(&stores[1]).iter().map(|&(key, _)| key).find(|&held| held != key(9)).unwrap();
            let left = (1..=3).map(key).find(|&left| left != chosen).unwrap();
            writer(&mut stores[0], 4, 1);
            stores[0].commit(START);
            run(&mut stores, &mut links, START);
            assert_eq!(held(&stores[1]).len(), 3, "one that is new is the first of its own list");
            for key in [chosen, left] {
                let id = stores[0].find(&key).unwrap();
                append(&mut stores[0], id, 2);
            }
            stores[0].commit(START);
            run(&mut stores, &mut links, START);
            assert!(held(&stores[1]).contains(&(chosen, 7)) && stores[1].find(&left).is_none());
        }
    }
}

#[test]
fn a_remote_brings_as_many_feeds_as_it_may() {
    for options in ways() {
        for feeds in [0, 1, 3] {
            let limits = Some(PeerLimits { feeds, ..PeerLimits::default() });
            let mut stores = [link::store(), store_with(Rules { limits, ..Rules::default() })];
            (1..=6).for_each(|seed| _ = writer(&mut stores[0], seed, 5));
            // One that is here is no new one.
            stores[1].add(key(6)).unwrap();
            writer(&mut stores[1], 9, 4);
            let links = sync(&mut stores, options.clone());
            assert_eq!(held(&stores[1]).len(), feeds + 2, "{options:?}");
            assert!(held(&stores[1]).contains(&(key(6), 5)) && held(&stores[1]).iter().all(|(_, blocks)| *blocks > 0));
            assert!(held(&stores[0]).contains(&(key(9), 4)), "it is served all the same");
            assert_eq!(limits_reached(&links[0], 1).len(), 1);
            assert!(options.live || links[0].totals(1).holes.is_empty());
            // Another session may bring others.
            let links = sync(&mut stores, options.clone());
            assert_eq!(held(&stores[1]).len(), (2 * feeds + 2).min(7));
            drop(links);
        }
    }
}

#[test]
fn a_remote_brings_as_many_bytes_as_it_may() {
    for options in ways() {
        let limits = Some(PeerLimits { bytes: 20_000, ..PeerLimits::default() });
        let mut stores = [link::store(), store_with(Rules { limits, ..Rules::default() })];
        let ids: Vec<FeedId> = (1..=5).map(|seed| writer(&mut stores[0], seed, 2000)).collect();
        writer(&mut stores[1], 9, 300);
        let mut links = sync(&mut stores, options.clone());
        let blocks: u64 = held(&stores[1]).iter().map(|(_, blocks)| *blocks).sum::<u64>() - 300;
        assert_eq!(blocks, 200, "{options:?}");
        assert!(held(&stores[0]).contains(&(key(9), 300)), "it is served all the same");
        assert_eq!(limits_reached(&links[0], 1).len(), 1);
        if options.live {
            ids.iter().for_each(|&id| append(&mut stores[0], id, 10));
            stores[0].commit(START);
            run(&mut stores, &mut links, START);
            let after: u64 = held(&stores[1]).iter().map(|(_, blocks)| *blocks).sum::<u64>() - 300;
            assert_eq!(after, blocks);
        } else {
            assert!(links[0].totals(0).blocks_sent >= 200);
        }
    }
}

#[test]
fn only_down_and_only_up() {
    for options in ways() {
        for (down, up) in [(true, false), (false, true)] {
            let mut stores = [link::store(), link::store()];
            writer(&mut stores[0], 1, 5);
            writer(&mut stores[1], 2, 4);
            let own = if down { options.clone().download_only() } else { options.clone().upload_only() };
            let pair = [own, options.clone()];
            let mut links = [Link::new(&mut stores, [0, 1], pair, [Config::default(), Config::default()])];
            run(&mut stores, &mut links, START);
            assert_eq!((held(&stores[0]).len() == 2, held(&stores[1]).len() == 2), (down, up), "{options:?}");
            assert_eq!(links[0].result(0).is_some(), !options.live);
        }
    }
}

/// Offers what is asked about first, and nothing after that.
#[derive(Debug, Default)]
struct Fickle(AtomicU32);

impl Policy for Fickle {
    fn offers(&self, _: &FeedKey, _: Option<&str>, _: &Remote) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) == 0
    }

    fn wants(&self, _: &FeedKey, _: &Remote) -> bool {
        false
    }
}

#[test]
fn a_feed_that_is_refused_when_it_is_to_be_opened_is_closed_at_the_remote_too() {
    // The policy changes its mind between an offer and its answer.
    let mut stores = [link::store(), link::store()];
    writer(&mut stores[0], 1, 5);
    let options = Replicate { reconcile: Some(false), ..Replicate::default() };
    let options = [options.clone().with_policy(Fickle::default()), options];
    let mut links = [Link::new(&mut stores, [0, 1], options, [Config::default(), Config::default()])];
    run(&mut stores, &mut links, START);
    assert_eq!(held(&stores[1]), []);
    assert!((0..2).all(|side| links[0].totals(side).holes.is_empty()));
}

#[test]
fn a_feed_that_is_banned_while_it_waits_for_its_turn_holds_nobody_up() {
    let mut options = Options::default();
    options.limits.feeds_asked = 1;
    let mut stores = [link::store(), Multifeed::open(MemoryStorage::default(), options).unwrap()];
    (1..=3).for_each(|seed| _ = writer(&mut stores[0], seed, 5));
    let mut links = [Link::plain(&mut stores, [0, 1], Replicate { reconcile: Some(false), ..Replicate::default() })];
    while !links[0].events[1].iter().any(|event| matches!(event, PeerEvent::RemoteFeeds { .. })) {
        assert!(links[0].turn(&mut stores, START));
    }
    let last = (1..=3).map(key).max().unwrap();
    assert!(stores[1].ban(last).unwrap());
    run(&mut stores, &mut links, START);
    assert_eq!(held(&stores[1]).len(), 2);
    assert!((0..2).all(|side| links[0].totals(side).holes.is_empty()));
}

#[test]
fn what_is_not_chosen_of_a_remotes_list_is_not_fetched_from_it_when_others_bring_it() {
    let mut stores = [link::store(), link::store(), link::store()];
    writer(&mut stores[0], 1, 5);
    writer(&mut stores[2], 1, 3);
    let nothing = Rules { kind: Some("nothing"), ..Rules::default() };
    let options = [Replicate::live(), Replicate::live().with_policy(nothing)];
    let mut links = vec![Link::new(&mut stores, [0, 1], options, [Config::default(), Config::default()])];
    run(&mut stores, &mut links, START);
    assert_eq!(held(&stores[1]), []);
    links.push(Link::plain(&mut stores, [2, 1], Replicate::live()));
    run(&mut stores, &mut links, START);
    assert_eq!(held(&stores[1]), [(key(1), 3)]);
    // It is served there all the same.
    let ours = writer(&mut stores[1], 9, 4);
    stores[1].append(ours, &[Bytes::from_static(b"more")]).unwrap();
    stores[1].commit(START);
    run(&mut stores, &mut links, START);
    assert!(held(&stores[0]).contains(&(key(9), 5)));
}

#[test]
fn what_a_remote_brings_too_late_and_past_its_bound_is_fetched_from_others() {
    let blocks = |store: &mut Store| {
        let id = writer(store, 1, 0);
        let blocks: Vec<Bytes> = (0..20).map(|block| Bytes::from(vec![block; 1000])).collect();
        store.append(id, &blocks).unwrap();
        store.commit(START);
    };
    let mut stores = [link::store(), link::store(), link::store()];
    blocks(&mut stores[0]);
    blocks(&mut stores[2]);
    // The remote lacks a block of what is fetched from it, so that the channel stays open.
    let sparse = Replicate { sparse: Some(true), ..Replicate::default() };
    let id = stores[1].add(key(1)).unwrap();
    stores[1].want(id, Want::Block(0), WantOptions::default()).unwrap();
    let mut links = vec![Link::plain(&mut stores, [2, 1], sparse)];
    run(&mut stores, &mut links, START);
    assert_eq!(held(&stores[1]), [(key(1), 1)]);
    let theirs = stores[0].find(&key(1)).unwrap();
    stores[0].clear(theirs, 0..1).unwrap();
    stores[0].set_transfer(theirs, Some(true), None).unwrap();

    let limits = Some(PeerLimits { bytes: 1, ..PeerLimits::default() });
    let options = [Replicate::default(), Replicate::default().with_policy(Rules { limits, ..Rules::default() })];
    links.push(Link::new(&mut stores, [0, 1], options, [Config::default(), Config::default()]));
    links[1].chunk = 300;
    while held(&stores[1]) != [(key(1), 2)] {
        assert!(links[1].turn(&mut stores, START));
    }
    // What was asked for beside that is under way, and comes when nobody waits for it any more.
    let mut later = START;
    while later < Duration::from_secs(25) {
        later = stores[1].poll_timeout().unwrap();
        stores[1].handle_timeout(later);
    }
    run(&mut stores, &mut links, later);
    assert_eq!(held(&stores[1]), [(key(1), 2)]);
    assert!(held(&stores[0]).contains(&(key(1), 20)));
    links.push(Link::plain(&mut stores, [2, 1], Replicate::default()));
    run(&mut stores, &mut links, later);
    assert_eq!(held(&stores[1]), [(key(1), 20)]);
    assert!(links[2].totals(1).holes.is_empty());
}
