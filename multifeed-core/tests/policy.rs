//! What remotes may make a store hold, and what its owner lets in.

use crate::link;
use crate::played;

use std::time::Duration;

use allocation_counter::measure;
use bytes::Bytes;
use link::{Link, Store, run, store};
use multifeed_core::{
    FeedId, KeyPair, Limits, MemoryStorage, Multifeed, MultifeedEvent, Options, PeerEvent, Replicate, Storage, Want,
    WantEnd, WantOptions,
};
use multifeed_proto::{Command, Config, Event, FeedKey, Have, Message, Origin, Root, Token};
use played::Played;

fn writer(store: &mut Store, seed: u8, blocks: usize) -> FeedId {
    let id = store.writer(Some("w"), || KeyPair::from_seed(&[seed; 32])).unwrap();
    append(store, id, blocks);
    id
}

fn append(store: &mut Store, id: FeedId, blocks: usize) {
    let blocks: Vec<Bytes> = (0..blocks).map(|block| Bytes::from(vec![block as u8; 10])).collect();
    store.append(id, &blocks).unwrap();
}

fn key_of(seed: u8) -> FeedKey {
    KeyPair::from_seed(&[seed; 32]).public_key()
}

fn limited(change: impl FnOnce(&mut Limits)) -> Store {
    let mut options = Options::default();
    change(&mut options.limits);
    Multifeed::open(MemoryStorage::default(), options).unwrap()
}

/// The feeds of a store and how many blocks of each are held.
fn held(store: &Store) -> Vec<(FeedKey, u64)> {
    store.feeds().map(|id| store.info(id).unwrap()).map(|info| (info.key, info.downloaded)).collect()
}

fn folders(store: &Store) -> usize {
    store.storage().clone().list().unwrap().len()
}

fn new_feeds(link: &Link, side: usize) -> Vec<FeedKey> {
    let key = |event: &PeerEvent| match event {
        PeerEvent::Feed { key, .. } => Some(*key),
        _ => None,
    };
    link.events[side].iter().filter_map(key).collect()
}

impl Played {
    fn met(store: Store, options: Replicate) -> Self {
        let live = options.live;
        let mut played = Self::start(store, options, live);
        played.commands();
        played
    }

    /// The remote offers feeds, and agrees to what is requested of them: how many those are.
    fn offer(&mut self, keys: Vec<FeedKey>) -> usize {
        self.event(Event::Manifest { root: Root::FIRST, keys, fields: None });
        let commands = self.commands();
        let [Command::Request { keys, .. }] = &commands[..] else { panic!("{commands:?}") };
        let requested = keys.len();
        self.event(Event::Replicate { root: Root::FIRST, keys: keys.clone(), origin: Origin::Remote });
        requested
    }

    /// The next channel that is opened, whatever else is sent before it.
    fn next_open(&mut self) -> Option<Token> {
        loop {
            if let Command::Open { token, .. } = self.store.poll_command(self.peer)? {
                return Some(token);
            }
        }
    }

    /// The channels that are opened now, and nothing else.
    fn opens(&mut self) -> Vec<Token> {
        let token = |command| match command {
            Command::Open { token, .. } => token,
            other => panic!("{other:?}"),
        };
        self.commands().into_iter().map(token).collect()
    }
}

fn junk(count: usize) -> Vec<FeedKey> {
    let key = |number: u64| {
        let mut key = [7; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        FeedKey::new(key)
    };
    (0..count as u64).map(key).collect()
}

fn has_nothing() -> Message {
    Message::Have(Have { start: 0, length: 1 << 20, bitfield: Some(Bytes::new()), ack: false })
}

fn has(blocks: u64) -> Message {
    Message::Have(Have { start: 0, length: blocks, bitfield: None, ack: false })
}

#[test]
fn junk_offers_cost_nothing_that_lasts() {
    let limits = Limits::default();
    // Whatever the remote does then: nothing, or it opens the channels and has nothing, or claims a block that never comes.
    for behaviour in 0..3 {
        let mut store = store();
        let lasting = measure(|| {
            let during = measure(|| {
                let mut played = Played::met(std::mem::replace(&mut store, link::store()), Replicate::live());
                assert_eq!(played.offer(junk(200_000)), limits.feeds_offered);
                let refused = played.events().into_iter().find_map(|event| match event {
                    PeerEvent::OffersRefused { feeds, limit } => Some((feeds, limit)),
                    _ => None,
                });
                assert_eq!(refused, Some((200_000 - limits.feeds_offered as u64, limits.feeds_offered)));
                let mut opened = 0;
                for round in 0.. {
                    let before = opened;
                    while let Some(token) = played.next_open() {
                        opened += 1;
                        if behaviour > 0 {
                            played.event(Event::Opened { token });
                            let message = if behaviour == 1 { has_nothing() } else { has(1) };
                            played.event(Event::Message { token, message });
                        }
                    }
                    // What is asked for in vain is so for 20 seconds.
                    assert!(behaviour == 1 || opened - before <= 2 * limits.feeds_asked);
                    if opened == limits.feeds_offered {
                        break;
                    }
                    assert!(round < 200, "no more than {opened} were asked for");
                    played.time((round + 1) * 25);
                }
                assert!(played.store.feeds().next().is_none(), "a junk feed is listed");
                assert!(played.store.find(&junk(1)[0]).is_none());
                played.event(Event::Closed(Ok(())));
                played.store.disconnect(played.peer);
                store = played.store;
            });
            let most = limits.feeds_offered * 400 + limits.feeds_asked * 4096 + (16 << 20);
            println!(
                "behaviour {behaviour}: {} bytes at the most, {} after it",
                during.bytes_max, during.bytes_current
            );
            assert!(during.bytes_max < most as u64, "{} bytes while it lasts", during.bytes_max);
        });
        assert!(lasting.bytes_current < 64 << 10, "{} bytes stay", lasting.bytes_current);
        assert_eq!(folders(&store), 0);
        assert!(store.poll_event().is_none());
        store.close().unwrap();
    }
}

#[test]
fn an_offered_feed_gets_its_folder_with_its_first_block() {
    let mut stores = [store(), store()];
    let id = writer(&mut stores[0], 1, 0);
    let mut link = Link::plain(&mut stores, [0, 1], Replicate::live());
    run(&mut stores, std::slice::from_mut(&mut link), Duration::ZERO);
    assert_eq!((held(&stores[1]), folders(&stores[1])), (vec![], 0));
    assert!(
        link.events[1].iter().any(|event| matches!(event, PeerEvent::RemoteFeeds { keys } if keys[..] == [key_of(1)]))
    );
    assert!(stores[1].poll_event().is_none());

    // Long after it was asked for.
    let later = Duration::from_secs(100);
    stores[1].handle_timeout(later);
    append(&mut stores[0], id, 3);
    run(&mut stores, std::slice::from_mut(&mut link), later);
    assert_eq!((held(&stores[1]), folders(&stores[1])), (vec![(key_of(1), 3)], 1));
    assert_eq!(new_feeds(&link, 1), [key_of(1)]);
    let events: Vec<_> = std::iter::from_fn(|| stores[1].poll_event()).collect();
    assert!(matches!(&events[..], [MultifeedEvent::Feed { name, .. }, MultifeedEvent::Blocks { .. }] if name == "0"));
    assert!(link.result(0).is_none() && link.result(1).is_none());
}

#[test]
fn a_feed_of_nothing_is_in_sync_until_it_is_more() {
    for first_observed in [0, 1] {
        let mut stores = [store(), store()];
        writer(&mut stores[0], 1, 5);
        let empty = stores[0].writer(Some("empty"), || KeyPair::from_seed(&[2; 32])).unwrap();
        let mut links = [Link::plain(&mut stores, [0, 1], Replicate::live())];
        let peers = [0, 1].map(|side| links[0].ends[side].1.peer());
        let in_sync = |stores: &[Store; 2]| [0, 1].map(|side| stores[side].in_sync(peers[side]));
        // Asked for from the start, or when the feed of nothing has no machine any more.
        stores[first_observed].observe(peers[first_observed]);
        run(&mut stores, &mut links, Duration::ZERO);
        assert!(in_sync(&stores)[first_observed]);
        stores[1 - first_observed].observe(peers[1 - first_observed]);
        run(&mut stores, &mut links, Duration::ZERO);
        assert_eq!(in_sync(&stores), [true, true]);
        for (store, peer) in stores.iter().zip(peers) {
            let state = store.sync_state(peer, Duration::ZERO).unwrap();
            assert_eq!((state.feeds, state.feeds_in_sync, state.missing_here, state.missing_there), (2, 2, 0, 0));
        }
        append(&mut stores[0], empty, 3);
        assert!(!in_sync(&stores)[0]);
        stores[0].commit(Duration::ZERO);
        run(&mut stores, &mut links, Duration::ZERO);
        assert_eq!((in_sync(&stores), held(&stores[1]).len()), ([true, true], 2));
    }
}

#[test]
fn a_remote_that_serves_nothing_is_not_asked_again_and_again() {
    // Each offers a feed to the other, which cannot get it; nobody reports what comes of either.
    for (download, upload) in [(Some(false), None), (None, Some(false))] {
        let mut stores = [store(), store()];
        writer(&mut stores[0], 1, 5);
        writer(&mut stores[1], 2, 5);
        let options = [Replicate { download, upload, ..Replicate::live() }, Replicate::live()];
        let mut links = [Link::new(&mut stores, [0, 1], options, [Config::default(), Config::default()])];
        for (store, (_, connection)) in stores.iter_mut().zip(&links[0].ends) {
            store.observe(connection.peer());
        }
        run(&mut stores, &mut links, Duration::ZERO);
        assert_eq!([held(&stores[0]).len(), held(&stores[1]).len()], if upload.is_some() { [2, 1] } else { [1, 2] });
    }
}

#[test]
fn a_feed_that_comes_by_another_session_goes_out_where_it_was_only_offered() {
    // The first has the writer's key, and lost its blocks. The third hears of the feed from it before the second brings them.
    let mut stores = [store(), store(), store()];
    let id = writer(&mut stores[0], 1, 0);
    stores[0].set_transfer(id, Some(true), None).unwrap();
    writer(&mut stores[1], 1, 40);
    let mut links = vec![Link::plain(&mut stores, [0, 2], Replicate::live())];
    run(&mut stores, &mut links, Duration::ZERO);
    assert_eq!(held(&stores[2]), []);
    links.push(Link::plain(&mut stores, [1, 2], Replicate::live()));
    run(&mut stores, &mut links, Duration::ZERO);
    assert_eq!(held(&stores[2]), [(key_of(1), 40)]);
    assert_eq!(held(&stores[0]), [(key_of(1), 40)]);
    let peers = stores[2].peers(stores[2].find(&key_of(1)).unwrap());
    assert_eq!(peers.len(), 2);
    assert!(peers.iter().all(|(_, peer)| peer.opened));
    assert_eq!((new_feeds(&links[0], 1), new_feeds(&links[1], 1)), (vec![], vec![key_of(1)]));
}

#[test]
fn feeds_are_asked_for_in_turn() {
    for live in [false, true] {
        let mut stores = [store(), limited(|limits| limits.feeds_asked = 2)];
        for seed in 1..=30 {
            let id = stores[0].writer(None, || KeyPair::from_seed(&[seed; 32])).unwrap();
            append(&mut stores[0], id, usize::from(seed % 3));
        }
        let options = Replicate { live, ..Replicate::default() };
        let mut link = Link::plain(&mut stores, [0, 1], options);
        run(&mut stores, std::slice::from_mut(&mut link), Duration::ZERO);
        let mut expected: Vec<_> = held(&stores[0]).into_iter().filter(|(_, blocks)| *blocks > 0).collect();
        let mut feeds = held(&stores[1]);
        expected.sort();
        feeds.sort();
        assert_eq!(feeds, expected, "live: {live}");
        assert_eq!(link.result(1).is_some(), !live);
    }
}

#[test]
fn a_remote_that_opens_no_channel_holds_up_only_itself() {
    let mut played = Played::met(limited(|limits| limits.feeds_asked = 2), Replicate::live());
    played.offer(junk(5));
    let first = played.opens();
    assert_eq!(first.len(), 2);
    // It opened the second one and answers nothing there.
    played.event(Event::Opened { token: first[1] });
    played.commands();
    played.time(19);
    assert_eq!(played.opens(), []);
    played.time(30);
    assert_eq!(played.opens().len(), 2);
    played.time(60);
    assert_eq!(played.opens().len(), 1);
    // It comes back to the first after all, which is asked again if it was opened.
    played.time(90);
    played.event(Event::Opened { token: first[0] });
    let commands = played.commands();
    assert!(
        matches!(commands[..], [Command::Send { token, message: Message::Want { start: 0, .. } }] if token == first[0]),
        "{commands:?}"
    );
    played.event(Event::Message { token: first[0], message: has(1) });
    let commands = played.commands();
    assert!(matches!(commands[..], [Command::Send { message: Message::Request(_), .. }]), "{commands:?}");
    // What is said on a channel that was closed is nobody's.
    played.event(Event::ChannelClosed { token: first[0] });
    played.event(Event::Message { token: first[0], message: has(1) });
    assert_eq!(played.commands(), []);
    assert_eq!(held(&played.store), []);
}

#[test]
fn a_writer_can_be_made_of_a_key_that_was_offered() {
    let mut stores = [store(), store(), store()];
    writer(&mut stores[0], 1, 0);
    let mut links = vec![Link::plain(&mut stores, [0, 1], Replicate::live())];
    run(&mut stores, &mut links, Duration::ZERO);
    let id = writer(&mut stores[1], 1, 0);
    assert!(stores[1].info(id).unwrap().writable);
    links.push(Link::plain(&mut stores, [1, 2], Replicate::live()));
    append(&mut stores[1], id, 4);
    run(&mut stores, &mut links, Duration::ZERO);
    assert_eq!(held(&stores[2]), [(key_of(1), 4)]);
    assert_eq!(stores[1].peers(id).len(), 2);
}

#[test]
fn a_feed_that_is_added_while_it_is_asked_for_stays_one_feed() {
    for others in [false, true] {
        let mut stores = [store(), store(), store()];
        let id = writer(&mut stores[0], 1, 5);
        let mut links = vec![Link::plain(&mut stores, [0, 1], Replicate::live())];
        if others {
            // It waits, or is asked for, on a second session as well.
            writer(&mut stores[2], 1, 2);
            links.push(Link::plain(&mut stores, [2, 1], Replicate::live()));
        }
        let told = |link: &Link| link.events[1].iter().any(|event| matches!(event, PeerEvent::RemoteFeeds { .. }));
        while !links.iter().all(told) {
            links.iter_mut().filter(|link| !told(link)).for_each(|link| _ = link.turn(&mut stores, Duration::ZERO));
        }
        assert_eq!(held(&stores[1]), []);
        let added = stores[1].add(key_of(1)).unwrap();
        run(&mut stores, &mut links, Duration::ZERO);
        assert_eq!(held(&stores[1]), [(key_of(1), 5)]);
        for seconds in 1..=30 {
            let now = Duration::from_secs(seconds);
            for store in &mut stores {
                store.poll_timeout();
                store.handle_timeout(now);
            }
            run(&mut stores, &mut links, now);
        }
        append(&mut stores[0], id, 1);
        stores[0].commit(Duration::from_secs(30));
        run(&mut stores, &mut links, Duration::from_secs(30));
        assert_eq!((held(&stores[1]), folders(&stores[1])), (vec![(key_of(1), 6)], 1));
        assert_eq!(stores[1].find(&key_of(1)), Some(added));
        let feeds = |event| matches!(event, MultifeedEvent::Feed { .. });
        assert_eq!(std::iter::from_fn(|| stores[1].poll_event()).filter(|event| feeds(event.clone())).count(), 1);
    }
}

#[test]
fn a_sparse_session_brings_a_feed_with_its_length() {
    let mut stores = [store(), store()];
    writer(&mut stores[0], 1, 9);
    let options = Replicate { sparse: Some(true), ..Replicate::live() };
    let mut link = Link::plain(&mut stores, [0, 1], options);
    run(&mut stores, std::slice::from_mut(&mut link), Duration::ZERO);
    assert_eq!(held(&stores[1]), [(key_of(1), 0)]);
    let id = stores[1].find(&key_of(1)).unwrap();
    assert_eq!(stores[1].info(id).unwrap().len, 9);
    let want = stores[1].want(id, Want::Block(5), WantOptions::default()).unwrap();
    run(&mut stores, std::slice::from_mut(&mut link), Duration::ZERO);
    assert_eq!(stores[1].poll_want(), Some((want, WantEnd::Done)));
    assert_eq!(stores[1].poll_want(), None);
    assert_eq!(held(&stores[1]), [(key_of(1), 1)]);
}
