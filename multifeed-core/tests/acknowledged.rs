//! When a block counts as delivered: who receives it acknowledges it once it is written, and who sent it waits for that. The remote is played
//! by hand, on virtual time.

use crate::common;
use crate::link;
use crate::played;

use bytes::Bytes;
use common::{create, key_pair};
use link::Link;
use multifeed_core::{
    Answer, MemoryStorage, Multifeed, Options, PeerEvent, Replicate, SyncError, SyncState, SyncTotals,
};
use multifeed_proto::{Command, Event, Have, Message, Origin, Request, Root, Token};
use played::Played;

const MI: u64 = 1 << 20;
const TOKEN: Token = Token(0);

/// A session of a store that has a feed of two blocks, or none, with a remote that is not of ours and opened its channel.
fn start(writes: bool) -> Played {
    start_with(writes, Played::start)
}

fn start_with(writes: bool, start: fn(Multifeed<MemoryStorage>, Replicate, bool) -> Played) -> Played {
    let mut store = Multifeed::open(MemoryStorage::default(), Options::default()).unwrap();
    let key = key_pair(1).public_key();
    if writes {
        let id = store.writer(Some("w"), || key_pair(1)).unwrap();
        store.append(id, &blocks()).unwrap();
    }
    let mut played = start(store, Replicate::default(), false);
    let (ours, theirs) = if writes { (vec![key], vec![]) } else { (vec![], vec![key]) };
    played.event(Event::Manifest { root: Root::FIRST, keys: theirs.clone(), fields: None });
    played.event(Event::Replicate { root: Root::FIRST, keys: theirs, origin: Origin::Remote });
    played.event(Event::Replicate { root: Root::FIRST, keys: ours, origin: Origin::Local });
    played.event(Event::Opened { token: TOKEN });
    played
}

fn blocks() -> [Bytes; 2] {
    [Bytes::from_static(b"a"), Bytes::from_static(b"b")]
}

fn message(played: &mut Played, message: Message) {
    played.event(Event::Message { token: TOKEN, message });
}

fn have(start: u64, length: u64, bitfield: Option<&'static [u8]>, ack: bool) -> Message {
    Message::Have(Have { start, length, bitfield: bitfield.map(Bytes::from_static), ack })
}

fn acks(played: &mut Played) -> Vec<(u64, u64)> {
    let ack = |command| match command {
        Command::Send { message: Message::Have(have), .. } if have.ack => Some((have.start, have.length)),
        _ => None,
    };
    played.commands().into_iter().filter_map(ack).collect()
}

/// On a slow link the answers to a JS peer are on their way for long, in which it asks for nothing more. It is not left before it has them.
#[test]
fn what_is_on_its_way_is_not_idleness() {
    let mut played = start(true);
    message(&mut played, have(0, MI, Some(&[]), false));
    message(&mut played, Message::Want { start: 0, length: MI });
    played.commands();
    for index in 0..2 {
        message(&mut played, Message::Request(Request { index, bytes: 0, hash: false, nodes: 0 }));
    }
    let sent = played.commands();
    let is_data = |command: &&Command| matches!(command, Command::Send { message: Message::Data(_), .. });
    assert_eq!(sent.iter().filter(is_data).count(), 2, "{sent:?}");
    let asks = Message::Options(multifeed_proto::Options { extensions: vec![], ack: true });
    assert_eq!(sent[0], Command::Send { token: TOKEN, message: asks }, "before the first block");

    played.time(60);
    message(&mut played, have(0, 1, None, true));
    played.time(120);
    assert_eq!(played.commands(), [], "the second block is on its way");
    message(&mut played, have(1, 1, None, true));
    played.time(122);
    // It is reminded once that nothing is fetched from it.
    let reminder = Message::Status { uploading: true, downloading: false };
    assert_eq!(played.commands(), [Command::Send { token: TOKEN, message: reminder }]);
    played.time(125);
    assert_eq!(played.commands(), []);
    played.time(132);
    assert_eq!(played.commands()[0], Command::Close { token: TOKEN });
}

/// A disk may be full: a remote that hears of a block before it is written takes it for delivered, and says so.
#[test]
fn a_block_is_acknowledged_when_it_is_written() {
    let mut played = start(false);
    receive(&mut played);
    assert_eq!(acks(&mut played), []);
}

/// The remote is live and fetches nothing, and the last block comes alone: the channel closes behind the acknowledgement.
#[test]
fn a_side_that_has_all_acknowledges_before_it_closes() {
    let mut played = start_with(false, |store, options, _| Played::start_with_ours(store, options, true));
    message(&mut played, Message::Status { uploading: true, downloading: false });
    let last = receive(&mut played);
    let is_close = |command: &Command| *command == Command::Close { token: TOKEN };
    assert!(last.iter().any(is_close), "{last:?}");
    let at = |is: &dyn Fn(&Command) -> bool| last.iter().position(is);
    assert!(at(&is_ack) < at(&is_close), "{last:?}");
}

fn is_ack(command: &Command) -> bool {
    matches!(command, Command::Send { message: Message::Have(have), .. } if have.ack)
}

fn requests(commands: Vec<Command>) -> impl Iterator<Item = Request> {
    commands.into_iter().filter_map(|command| match command {
        Command::Send { message: Message::Request(request), .. } => Some(request),
        _ => None,
    })
}

/// Both blocks of the remote's feed come and are written, one after the other: nothing is acknowledged and no channel closed before. Returns what
/// is sent after the last.
fn receive(played: &mut Played) -> Vec<Command> {
    message(played, Message::Options(multifeed_proto::Options { extensions: vec![], ack: true }));
    message(played, have(0, MI, Some(&[0x02, 0xc0]), false));
    let mut disk = MemoryStorage::new();
    let mut feed = create(&mut disk, 0, 1, None);
    feed.append(&mut disk, &blocks()).unwrap();
    let mut asked: Vec<Request> = requests(played.commands()).collect();
    let mut last = Vec::new();
    for _ in 0..2 {
        let request = asked.remove(0);
        let Answer::Data(data) = feed.answer(&mut disk, &request).unwrap() else { panic!("no answer to {request:?}") };
        let (peer, now) = (played.peer, played.now);
        played.store.handle(peer, Event::Message { token: TOKEN, message: Message::Data(data) }, now);
        let before = played.commands();
        let is_early = |command: &Command| is_ack(command) || matches!(command, Command::Close { .. });
        assert!(!before.iter().any(is_early), "{before:?}");
        asked.extend(requests(before));
        played.store.commit(now);
        last = played.commands();
        assert_eq!(last.iter().filter(|command| is_ack(command)).count(), 1, "{last:?}");
        asked.extend(requests(last.clone()));
    }
    last
}

/// A session that is not live with one of ours, which was sent two blocks and is through.
fn sent_to_ours() -> Played {
    let mut played = start_with(true, Played::start_with_ours);
    played.store.observe(played.peer);
    let wants = |command: &Command| matches!(command, Command::Send { message: Message::Want { .. }, .. });
    while played.commands().iter().any(wants) {
        message(&mut played, have(0, MI, Some(&[]), false));
    }
    message(&mut played, Message::Want { start: 0, length: MI });
    for index in 0..2 {
        message(&mut played, Message::Request(Request { index, bytes: 0, hash: false, nodes: 0 }));
    }
    let sent = played.commands();
    let is_data = |command: &&Command| matches!(command, Command::Send { message: Message::Data(_), .. });
    assert_eq!(sent.iter().filter(is_data).count(), 2, "{sent:?}");
    assert_eq!(missing_there(&played), 2);
    message(&mut played, Message::Status { uploading: true, downloading: false });
    assert!(!closes(&mut played), "nothing is acknowledged");
    assert_eq!(missing_there(&played), 2);
    played
}

fn missing_there(played: &Played) -> u64 {
    let state = played.store.sync_state(played.peer, played.now).unwrap();
    assert!(!state.in_sync);
    state.missing_there
}

fn closes(played: &mut Played) -> bool {
    played.commands().contains(&Command::Close { token: TOKEN })
}

/// How many feeds were not taken, and whether the two are in sync.
fn ended(mut played: Played) -> (u64, bool) {
    played.event(Event::Closed(Ok(())));
    let end = played.events().into_iter().find_map(|event| match event {
        PeerEvent::Closed(end) => Some(end.unwrap().not_taken),
        _ => None,
    });
    (end.unwrap(), played.store.in_sync(played.peer))
}

#[test]
fn a_channel_is_closed_when_what_was_sent_is_acknowledged() {
    let mut played = sent_to_ours();
    message(&mut played, have(1, 1, None, true));
    assert!(!closes(&mut played));
    assert_eq!(missing_there(&played), 1);
    message(&mut played, have(0, 1, None, true));
    assert!(closes(&mut played));
    assert_eq!(ended(played), (0, true));
}

#[test]
fn a_remote_of_ours_that_never_acknowledges_is_left() {
    let mut played = sent_to_ours();
    played.time(19);
    assert!(!closes(&mut played));
    played.time(25);
    assert!(closes(&mut played));
    assert_eq!(ended(played), (1, false));
    // As if it leaves by itself.
    let mut played = sent_to_ours();
    played.event(Event::ChannelClosed { token: TOKEN });
    assert_eq!(ended(played), (1, false));
}

/// How one side of a session ended, whether it was in sync then, and what it reported last.
type End = (Result<SyncTotals, SyncError>, bool, SyncState);

/// Two of ours, one of which has a block of 30 kB, over a link that takes so many bytes a second, from a second on faster ones. Returns the ends of
/// the one that has it, and of the other.
fn trickle(live: [bool; 2], observed: bool, rate: usize, faster: Option<(u64, usize)>) -> [End; 2] {
    let mut stores = [0; 2].map(|_| link::store());
    let id = stores[0].writer(Some("w"), || key_pair(1)).unwrap();
    stores[0].append(id, &[Bytes::from(vec![7; 30_000])]).unwrap();
    let options = live.map(|live| Replicate { live, ..Replicate::default() });
    let mut links = [Link::new(&mut stores, [0, 1], options, Default::default())];
    for (side, store) in stores.iter_mut().enumerate().filter(|_| observed) {
        store.observe(links[0].ends[side].1.peer());
    }
    for second in 0..400 {
        let now = std::time::Duration::from_secs(second);
        links[0].chunk = faster.filter(|&(from, _)| second >= from).map_or(rate, |(_, rate)| rate);
        for store in &mut stores {
            _ = store.poll_timeout();
            store.handle_timeout(now);
        }
        links[0].ends.iter_mut().for_each(|(_, end)| end.session().handle_timeout(now));
        links[0].turn(&mut stores, now);
        stores.iter_mut().for_each(|store| store.commit(now));
    }
    let held = stores[1].find(&key_pair(1).public_key()).map_or(0, |id| stores[1].info(id).unwrap().downloaded);
    let ends = [0, 1].map(|side| {
        let state = |event: &PeerEvent| match event {
            PeerEvent::Progress(state) => Some(*state),
            _ => None,
        };
        let events = &links[0].events[side];
        let in_sync = stores[side].in_sync(links[0].ends[side].1.peer());
        let told = events.iter().filter_map(state).any(|state| state.in_sync);
        assert!(!told || held == 1, "side {side} reported in sync: {events:?}");
        (links[0].result(side).unwrap().clone(), in_sync, events.iter().rev().find_map(state).unwrap_or_default())
    });
    assert_eq!(ends[1].0.is_ok(), held == 1);
    ends
}

/// The receiver gives up what trickles; who sent it, and asks for no acknowledgements, hears of that.
#[test]
fn a_block_that_the_receiver_gives_up_is_not_delivered() {
    for (live, observed) in
        [([false, false], false), ([false, false], true), ([true, false], false), ([true, false], true)]
    {
        let [sender, receiver] = trickle(live, observed, 150, None);
        assert!(receiver.0.is_err() && !receiver.1, "{:?}", receiver.0);
        assert_eq!(sender.0.as_ref().map(|totals| totals.not_taken).ok(), Some(1), "{sender:?}");
        assert_eq!((sender.1, sender.2.in_sync, sender.2.missing_there), (false, false, 1), "{live:?}, {observed}");
        // At a rate that is enough it comes.
        let [sender, receiver] = trickle(live, observed, 1_000, None);
        assert_eq!([sender.0, receiver.0].map(|end| end.unwrap().not_taken), [0, 0]);
        assert_eq!((sender.1, receiver.1, sender.2.missing_there), (true, true, 0), "{live:?}, {observed}");
    }
}

/// It says so of each block that it gave up, and of each that comes late all the same.
#[test]
fn what_is_given_up_is_said_and_what_comes_late_is_acknowledged() {
    let mut disk = MemoryStorage::new();
    let mut feed = create(&mut disk, 0, 1, None);
    feed.append(&mut disk, &blocks()).unwrap();
    for ours in [true, false] {
        let mut played = start_with(false, if ours { Played::start_with_ours } else { Played::start });
        message(&mut played, have(0, MI, Some(&[0x02, 0xc0]), false));
        let is_unhave = |command: &Command| matches!(command, Command::Send { message: Message::Unhave { .. }, .. });
        let asked: Vec<Request> = requests(played.commands()).collect();
        assert_eq!(asked.len(), 2);
        played.time(25);
        let said: Vec<Command> = played.commands().into_iter().filter(is_unhave).collect();
        let unhave = |index| Command::Send { token: TOKEN, message: Message::Unhave { start: index, length: 1 } };
        // JS does not ask.
        assert_eq!(said, if ours { vec![unhave(0), unhave(1)] } else { vec![] });
        for (request, late) in asked.iter().zip(0..) {
            let Answer::Data(data) = feed.answer(&mut disk, request).unwrap() else {
                panic!("no answer to {request:?}")
            };
            message(&mut played, Message::Data(data));
            assert_eq!(acks(&mut played), if ours { vec![(late, 1)] } else { vec![] });
        }
    }
}
