//! Two stores that find out what differs before they speak of it.

use crate::link;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use link::{Link, Store, run, store};
use multifeed_core::reconcile::EXTENSION;
use multifeed_core::{
    Connection, FeedId, KeyPair, PeerEvent, Replicate, SetId, SyncError, SyncTotals, Want, WantEnd, WantOptions,
};
use multifeed_proto::wire::message::kind;
use multifeed_proto::{
    Config, Direction, Event, Fault, FeedKey, Record, Role, Root, Scope, Session, SessionError, Tracer,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const PLAIN: Replicate = Replicate {
    live: false,
    download: None,
    upload: None,
    sparse: None,
    reconcile: Some(false),
    policy: None,
    user_data: None,
    source: None,
    set: SetId::ALL,
};

/// What a side sent: messages by their kind or extension, and how many.
#[derive(Debug, Clone, Default)]
struct Sent(Arc<Mutex<BTreeMap<String, usize>>>);

impl Tracer for Sent {
    fn message(&mut self, record: &Record<'_>) {
        if record.direction == Direction::Out {
            let name = record.extension.map_or_else(|| record.kind.to_string(), str::to_owned);
            *self.0.lock().unwrap().entry(name).or_default() += 1;
        }
    }
}

impl Sent {
    fn watch(link: &mut Link) -> [Self; 2] {
        let sent = [Self::default(), Self::default()];
        for (side, sent) in sent.iter().enumerate() {
            link.ends[side].1.session().set_tracer(Some(Box::new(sent.clone())));
        }
        sent
    }

    fn count(&self, name: &str) -> usize {
        self.0.lock().unwrap().get(name).copied().unwrap_or(0)
    }

    /// Channels opened, the root key's left out.
    fn channels(&self) -> usize {
        self.count(&kind::OPEN.to_string()) - 1
    }

    fn messages(&self) -> usize {
        self.0.lock().unwrap().values().sum()
    }
}

fn key_pair(number: usize) -> KeyPair {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    KeyPair::from_seed(&seed)
}

fn writer(store: &mut Store, number: usize, blocks: usize) -> FeedId {
    let id = store.writer(Some(&format!("writer {number}")), || key_pair(number)).unwrap();
    append(store, id, blocks);
    id
}

fn append(store: &mut Store, id: FeedId, count: usize) {
    let from = store.info(id).unwrap().len;
    let blocks: Vec<Bytes> = (from..from + count as u64).map(|index| format!("block {index}").into()).collect();
    store.append(id, &blocks).unwrap();
}

/// Which blocks of which feed are held.
fn held(store: &Store) -> BTreeMap<FeedKey, Vec<bool>> {
    let feed = |id| {
        let info = store.info(id).unwrap();
        (info.key, (0..info.len).map(|index| store.has(id, index)).collect())
    };
    store.feeds().map(feed).collect()
}

fn find(store: &Store, number: usize) -> FeedId {
    store.find(&key_pair(number).public_key()).expect("the feed")
}

fn sync(stores: &mut [Store], options: Replicate) -> (Link, [Sent; 2]) {
    let mut link = Link::plain(stores, [0, 1], options);
    let sent = Sent::watch(&mut link);
    run(stores, std::slice::from_mut(&mut link), Duration::ZERO);
    (link, sent)
}

/// Two stores with writers of their own, and everything of the other's.
fn synced(count: usize) -> [Store; 2] {
    let mut stores = [store(), store()];
    (0..count).for_each(|number| _ = writer(&mut stores[number % 2], number, 3));
    sync(&mut stores, PLAIN);
    assert_eq!(held(&stores[0]), held(&stores[1]));
    stores
}

fn told_feeds(link: &Link, side: usize) -> Vec<BTreeSet<FeedKey>> {
    let told = link.events[side].iter().filter_map(|event| match event {
        PeerEvent::RemoteFeeds { keys } => Some(keys.iter().copied().collect()),
        _ => None,
    });
    told.collect()
}

#[test]
fn equal_stores_open_nothing_and_find_out_in_a_handful_of_messages() {
    for count in [0, 1, 2, 2000] {
        let mut stores = [store(), store()];
        for store in &mut stores {
            (0..count).for_each(|number| _ = writer(store, number, 2));
        }
        let (mut link, sent) = sync(&mut stores, Replicate::default());
        let in_step = count as u64;
        for (side, sent) in sent.iter().enumerate() {
            assert_eq!(link.totals(side), &SyncTotals { feeds: in_step, in_step, ..SyncTotals::default() });
            assert_eq!((sent.channels(), sent.count(EXTENSION)), (0, 1), "{sent:?}");
            // Besides: Open, Options, the handshake, an empty MANIFEST, REQUEST_FEEDS and REPLICATE_FEEDS, and Close.
            assert!(sent.messages() <= 8, "{sent:?}");
            let bytes = link.ends[side].1.session().totals().bytes_out;
            assert!(bytes < 1000, "{count} feeds: {bytes} bytes");
            assert_eq!(told_feeds(&link, side), [held(&stores[side]).into_keys().collect()]);
        }
    }
}

#[test]
fn a_feed_that_is_served_to_nobody_is_not_compared() {
    let mut stores = synced(4);
    let id = find(&stores[0], 1);
    stores[0].set_transfer(id, None, Some(false)).unwrap();
    let (link, _) = sync(&mut stores, Replicate::default());
    assert_eq!([0, 1].map(|side| link.totals(side).in_step), [3, 3]);
}

#[test]
fn what_differs_is_synced_and_nothing_else_is_spoken_of() {
    let mut stores = synced(60);
    // Longer on either side, new on either side, and holes in what came from the other.
    let id = find(&stores[0], 10);
    append(&mut stores[0], id, 4);
    let id = find(&stores[1], 11);
    append(&mut stores[1], id, 1);
    writer(&mut stores[0], 100, 5);
    writer(&mut stores[1], 101, 1);
    for (side, number) in [(0, 21), (1, 22)] {
        let id = find(&stores[side], number);
        assert_eq!(stores[side].clear(id, 1..2).unwrap(), 1);
    }
    let (mut link, sent) = sync(&mut stores, Replicate::default());
    assert_eq!(held(&stores[0]), held(&stores[1]));
    assert!(held(&stores[0]).values().flatten().all(|held| *held), "the holes were filled");
    for (side, sent) in sent.iter().enumerate() {
        let totals = link.totals(side);
        assert_eq!((totals.feeds, totals.in_step, sent.channels()), (62, 56, 6), "{sent:?}");
        assert!(link.ends[side].1.session().totals().bytes_out < 5000);
    }
    // And then there is nothing more to say.
    let (_, sent) = sync(&mut stores, Replicate::default());
    assert_eq!(sent.map(|sent| sent.channels()), [0, 0]);
}

#[test]
fn what_is_new_in_a_live_session_reaches_the_other_side() {
    let mut stores = synced(20);
    let (link, sent) = sync(&mut stores, Replicate::live());
    let mut links = [link];
    assert_eq!(sent.clone().map(|sent| sent.channels()), [0, 0]);
    for round in 0..3 {
        for (side, number) in [(0, 4), (1, 5), (1, 7), (0, 8)] {
            let id = find(&stores[side], number);
            append(&mut stores[side], id, 1 + round);
            // Both at once as well.
            if number != 5 {
                run(&mut stores, &mut links, Duration::ZERO);
            }
        }
        (0..2).for_each(|side| _ = writer(&mut stores[side], 200 + round * 2 + side, round + 1));
        run(&mut stores, &mut links, Duration::ZERO);
        assert_eq!(held(&stores[0]), held(&stores[1]));
        assert!(held(&stores[0]).values().flatten().all(|held| *held));
    }
    assert_eq!(sent.map(|sent| sent.channels()), [10, 10]);
    let peer = links[0].ends[0].1.peer();
    stores[0].finish(peer);
    run(&mut stores, &mut links, Duration::ZERO);
    for side in 0..2 {
        assert_eq!((links[0].totals(side).feeds, links[0].totals(side).in_step), (26, 16));
    }
}

#[test]
fn what_comes_from_elsewhere_goes_on_to_a_remote_that_was_in_step() {
    let mut stores = [store(), store(), store()];
    let id = writer(&mut stores[0], 1, 3);
    for pair in [[0, 1], [1, 2]] {
        let mut link = Link::plain(&mut stores, pair, Replicate::default());
        run(&mut stores, std::slice::from_mut(&mut link), Duration::ZERO);
    }
    let live = Replicate::live();
    let mut links = [Link::plain(&mut stores, [0, 1], live.clone()), Link::plain(&mut stores, [1, 2], live)];
    run(&mut stores, &mut links, Duration::ZERO);
    append(&mut stores[0], id, 5);
    run(&mut stores, &mut links, Duration::ZERO);
    assert_eq!(held(&stores[0]), held(&stores[2]));
}

#[test]
fn a_block_that_was_given_up_can_be_fetched_again_from_a_remote_in_step() {
    for sparse in [false, true] {
        let mut stores = synced(4);
        let options = Replicate { sparse: Some(sparse), ..Replicate::live() };
        let (link, sent) = sync(&mut stores, options);
        let mut links = [link];
        let id = find(&stores[0], 1);
        assert_eq!(stores[0].clear(id, 0..2).unwrap(), 2);
        let want = stores[0].want(id, Want::Block(1), WantOptions::default()).unwrap();
        run(&mut stores, &mut links, Duration::ZERO);
        assert_eq!(stores[0].poll_want(), Some((want, WantEnd::Done)));
        assert!(stores[0].has(id, 1));
        assert_eq!(sent[0].channels(), 1);
    }
}

#[test]
fn changes_while_it_is_being_found_out_are_not_missed() {
    // A byte at a time, and an append after every so many of them, wherever that is in the conversation.
    for step in [40, 97, 200] {
        let mut stores = synced(100);
        let id = find(&stores[1], 51);
        append(&mut stores[1], id, 1);
        let mut links = [Link::plain(&mut stores, [0, 1], Replicate::live())];
        links[0].chunk = 1;
        let mut turns = 0;
        while links[0].turn(&mut stores, Duration::ZERO) {
            turns += 1;
            let number = turns / step;
            if turns % step == 0 && number < 30 {
                let side = number % 2;
                let id = find(&stores[side], number);
                append(&mut stores[side], id, 1);
                if number % 7 == 0 {
                    writer(&mut stores[side], 1000 + number, 1);
                }
            }
        }
        assert!(turns > 30 * step, "it was over before it began: {turns}");
        assert_eq!(held(&stores[0]), held(&stores[1]), "every {step}");
        assert!(held(&stores[0]).values().flatten().all(|held| *held));
    }
}

#[test]
fn a_remote_that_does_not_reconcile_is_synced_with_as_ever() {
    for plain in 0..2 {
        let mut stores = synced(20);
        let id = find(&stores[0], 2);
        append(&mut stores[0], id, 1);
        let mut options = [Replicate::default(), Replicate::default()];
        options[plain] = PLAIN;
        let mut link = Link::new(&mut stores, [0, 1], options, Default::default());
        let sent = Sent::watch(&mut link);
        run(&mut stores, std::slice::from_mut(&mut link), Duration::ZERO);
        assert_eq!(held(&stores[0]), held(&stores[1]));
        for (side, sent) in sent.iter().enumerate() {
            assert_eq!((sent.channels(), sent.count(EXTENSION)), (20, 0));
            assert_eq!((link.totals(side).feeds, link.totals(side).in_step), (20, 0));
        }
    }
}

/// Random stores and options: with and without it, both sides end with the same.
#[test]
fn it_changes_nothing_of_what_is_synced() {
    for seed in 0..60 {
        let outcome = |reconcile: bool| {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut stores = synced(12);
            for _ in 0..rng.random_range(0..6) {
                let side = rng.random_range(0..2);
                let number = rng.random_range(0..16);
                match stores[side].find(&key_pair(number).public_key()) {
                    Some(id) if stores[side].info(id).unwrap().writable => append(&mut stores[side], id, 2),
                    Some(id) => _ = stores[side].clear(id, 0..rng.random_range(1..4)).unwrap(),
                    None => _ = writer(&mut stores[side], number, 2),
                }
            }
            let flag = |rng: &mut StdRng| [None, None, Some(true), Some(false)][rng.random_range(0..4)];
            let options = [(); 2].map(|()| Replicate {
                live: rng.random_range(0..3) == 0,
                download: flag(&mut rng),
                upload: flag(&mut rng),
                sparse: Some(rng.random_range(0..4) == 0),
                reconcile: Some(reconcile),
                policy: None,
                user_data: None,
                source: None,
                set: SetId::ALL,
            });
            let mut link = Link::new(&mut stores, [0, 1], options.clone(), Default::default());
            // A remote that serves nothing says nothing: time tells that it has all it wants.
            for seconds in 0..60 {
                let now = Duration::from_secs(seconds);
                stores.iter_mut().for_each(|store| store.handle_timeout(now));
                run(&mut stores, std::slice::from_mut(&mut link), now);
            }
            let holes = [0, 1].map(|side| link.result(side).map(|end| end.clone().map(|totals| totals.holes).ok()));
            (stores.map(|store| held(&store)), holes, format!("{options:?}").replace("Some(true)", "yes"))
        };
        let (with, without) = (outcome(true), outcome(false));
        assert_eq!(with.0, without.0, "seed {seed}: {}", with.2);
        assert_eq!(with.1, without.1, "seed {seed}: {}", with.2);
    }
}

/// A store of ours with a session that somebody plays by hand at the other end.
struct Played {
    store: Store,
    connection: Connection,
    remote: Session,
    heard: Vec<Event>,
}

impl Played {
    fn new(count: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(5);
        let mut config = Config::default();
        config.extensions.push(EXTENSION.into());
        let mut store = store();
        (0..count).for_each(|number| _ = writer(&mut store, number, 1));
        let options = Replicate::default();
        let start = Duration::ZERO;
        let connection = Connection::new(&mut store, Role::Responder, Config::default(), options, start, &mut rng);
        let remote = Session::new(Role::Initiator, config, start, &mut rng);
        let mut played = Self { store, connection, remote, heard: Vec::new() };
        played.run();
        played
    }

    fn run(&mut self) {
        for _ in 0..20 {
            let mut wire = BytesMut::new();
            while self.remote.poll_output(&mut wire) {}
            if let Some(buffer) = self.connection.session().recv_buf() {
                buffer.extend_from_slice(&wire);
            }
            self.connection.handle_input(&mut self.store, Duration::ZERO);
            let mut wire = BytesMut::new();
            while self.connection.session().poll_output(&mut wire) {}
            if let Some(buffer) = self.remote.recv_buf() {
                buffer.extend_from_slice(&wire);
                let _ = self.remote.handle_input(Duration::ZERO);
            }
            self.remote.handle_timeout(Duration::from_millis(200));
            self.heard.extend(std::iter::from_fn(|| self.remote.poll_event()));
        }
    }

    fn say(&mut self, message: &[u8]) {
        self.remote.send_extension(Scope::Stream, EXTENSION, message).unwrap();
        self.run();
    }

    fn offered(&self) -> Option<usize> {
        self.heard.iter().find_map(|event| match event {
            Event::Manifest { keys, .. } => Some(keys.len()),
            _ => None,
        })
    }

    fn greeting(&self) -> Bytes {
        let greeting = self.heard.iter().find_map(|event| match event {
            Event::Extension { name, body, .. } if **name == *EXTENSION => Some(body.clone()),
            _ => None,
        });
        greeting.expect("a greeting")
    }

    fn end(&mut self) -> Option<Result<SyncTotals, SyncError>> {
        std::iter::from_fn(|| self.connection.poll_event(&mut self.store)).find_map(|event| match event {
            PeerEvent::Closed(end) => Some(end),
            _ => None,
        })
    }
}

#[test]
fn a_remote_that_breaks_the_rules_ends_its_session() {
    for message in [&[9, 9][..], &[], &[0], &[1, 0, 0]] {
        let mut played = Played::new(10);
        assert_eq!((played.greeting().len(), played.offered()), (17, None));
        played.say(message);
        let end = played.end().expect("the session goes on").expect_err("it ended well");
        let SyncError::Session(error) = &end else { panic!("{end}") };
        assert!(matches!(error, SessionError::Extension { name, .. } if name == EXTENSION), "{error}");
        assert_eq!((error.fault(), end.code()), (Fault::Remote, "ERR_MESSAGE"));
    }
    // One more after the end.
    let mut played = Played::new(10);
    let greeting = played.greeting();
    played.say(&greeting);
    assert_eq!(played.offered(), Some(0), "nothing differs");
    assert!(played.end().is_none());
    played.say(&greeting);
    assert!(matches!(played.end(), Some(Err(SyncError::Session(SessionError::Extension { .. })))));
}

#[test]
fn a_remote_that_lists_its_feeds_instead_is_offered_everything() {
    let mut played = Played::new(10);
    played.remote.offer_feeds(Root::FIRST, &[]).unwrap();
    played.run();
    assert_eq!(played.offered(), Some(10));
    // What it says of it later means nothing.
    played.say(&[9, 9]);
    assert!(played.end().is_none());
}
