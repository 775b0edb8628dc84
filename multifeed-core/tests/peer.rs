//! The exact messages of one feed on one connection, in hypercore's order: the other side is played by hand.

use crate::played;

use std::time::Duration;

use bytes::Bytes;
use multifeed_core::{FeedId, KeyPair, MemoryStorage, Multifeed, Options, PeerEvent, Replicate, SyncError};
use multifeed_proto::{Command, Data, Event, FeedKey, Have, Message, Origin, Request, Root, SessionError, Token};
use played::Played;

const MI: u64 = 1 << 20;

impl Played {
    fn new(options: Replicate, remote_live: bool) -> Self {
        let store = Multifeed::open(MemoryStorage::default(), Options::default()).unwrap();
        let mut played = Self::start(store, options, remote_live);
        assert_eq!(played.commands(), [Command::Offer { root: Root::FIRST, keys: vec![], fields: None }]);
        played
    }

    fn with_writer(count: usize, options: Replicate, remote_live: bool) -> (Self, FeedId, FeedKey) {
        let mut played = Self::new(options, remote_live);
        let id = played.store.writer(Some("w"), || KeyPair::from_seed(&[1; 32])).unwrap();
        let key = played.store.info(id).unwrap().key;
        played.store.append(id, &blocks(count)).unwrap();
        played.store.commit(Duration::ZERO);
        assert_eq!(played.commands(), [Command::Offer { root: Root::FIRST, keys: vec![key], fields: None }]);
        (played, id, key)
    }

    fn message(&mut self, message: Message) -> Vec<Command> {
        self.event(Event::Message { token: Token(0), message });
        self.commands()
    }

    /// The messages that answer a message, which must be no other commands.
    fn answers(&mut self, message: Message) -> Vec<Message> {
        messages(self.message(message))
    }

    /// Both sides open the channel of the one feed.
    fn open(&mut self, key: FeedKey) -> Vec<Command> {
        // They request what is here, and we what is not.
        let origin = if self.store.find(&key).is_some() { Origin::Local } else { Origin::Remote };
        self.event(Event::Replicate { root: Root::FIRST, keys: vec![key], origin });
        assert_eq!(self.commands(), [Command::Open { token: Token(0), key }]);
        self.event(Event::Opened { token: Token(0) });
        self.commands()
    }
}

fn blocks(count: usize) -> Vec<Bytes> {
    (0..count).map(|index| Bytes::from(vec![index as u8; 10])).collect()
}

fn messages(commands: Vec<Command>) -> Vec<Message> {
    let message = |command| match command {
        Command::Send { token: Token(0), message } => message,
        other => panic!("not a message: {other:?}"),
    };
    commands.into_iter().map(message).collect()
}

fn status(uploading: bool, downloading: bool) -> Message {
    Message::Status { uploading, downloading }
}

fn have(start: u64, length: u64, bitfield: Option<&'static [u8]>) -> Message {
    Message::Have(Have { start, length, bitfield: bitfield.map(Bytes::from_static), ack: false })
}

/// It has to say what it got of what it is sent.
fn acks() -> Message {
    Message::Options(multifeed_proto::Options { extensions: vec![], ack: true })
}

fn ack(index: u64) -> Message {
    Message::Have(Have { start: index, length: 1, bitfield: None, ack: true })
}

fn request(index: u64, nodes: u64) -> Message {
    Message::Request(Request { index, bytes: 0, hash: false, nodes })
}

fn data(message: &Message) -> &Data {
    match message {
        Message::Data(data) => data,
        other => panic!("not Data: {other:?}"),
    }
}

/// What a second store with the same writer answers, as the remote's blocks.
fn served(count: usize, request: &Message) -> Data {
    let (mut server, _, key) = Played::with_writer(count, Replicate::live(), true);
    server.open(key);
    // It may ask for acknowledgements first.
    data(server.answers(request.clone()).last().unwrap()).clone()
}

/// The remote tells what it has of a feed that is written here, and shows that its history is the same.
fn compare(played: &mut Played, bitfield: &'static [u8], len: usize) {
    let index = len as u64 - 1;
    let question = Message::Request(Request { index, bytes: 0, hash: true, nodes: 0 });
    assert_eq!(played.answers(have(0, MI, Some(bitfield))), std::slice::from_ref(&question));
    let shown = served(len, &question);
    assert_eq!((shown.index, shown.value.is_none(), shown.signature.is_some()), (index, true, true));
    assert_eq!(played.answers(Message::Data(shown)), [status(true, false)]);
}

#[test]
fn a_writer_serves_and_closes_when_the_reader_is_done() {
    let (mut played, _, key) = Played::with_writer(3, Replicate::default(), false);
    // If the remote has any of it, it is asked whether its history is the same.
    assert_eq!(messages(played.open(key)), [Message::Want { start: 0, length: MI }]);
    assert_eq!(played.answers(have(0, MI, Some(&[]))), [status(true, false)]);
    // The last block first, then the answer to the Want itself.
    let want = Message::Want { start: 0, length: MI };
    assert_eq!(played.answers(want), [have(2, 1, None), have(0, MI, Some(&[0x02, 0xe0]))]);
    // A reader that may never say that it is done says what came.
    let first = played.answers(request(0, 0));
    assert_eq!(first[0], acks());
    let first = data(&first[1]);
    assert_eq!((first.index, first.value.as_deref()), (0, Some(&[0u8; 10][..])));
    assert_eq!(first.nodes.iter().map(|node| node.index).collect::<Vec<_>>(), [2, 4]);
    assert!(first.signature.is_some());
    // The sibling's hash is held: nothing has to be proven.
    let second = played.answers(request(1, 1));
    assert!(data(&second[0]).nodes.is_empty() && data(&second[0]).signature.is_none());
    // Not there: the remote hears so.
    assert_eq!(played.answers(request(7, 0)), [Message::Unhave { start: 7, length: 1 }]);
    assert_eq!(played.message(status(true, false)), [Command::Close { token: Token(0) }]);
    // The lists are not exchanged yet: no end before that.
    assert_eq!(played.commands(), []);
    played.event(Event::Manifest { root: Root::FIRST, keys: vec![], fields: None });
    assert_eq!(played.commands(), [Command::Request { root: Root::FIRST, keys: vec![] }]);
    played.event(Event::Replicate { root: Root::FIRST, keys: vec![], origin: Origin::Remote });
    // Two offers went out, one of them was answered.
    assert_eq!(played.commands(), []);
    played.event(Event::Replicate { root: Root::FIRST, keys: vec![], origin: Origin::Local });
    assert_eq!(played.commands(), [Command::CloseRoot { root: Root::FIRST }, Command::Finish]);
}

#[test]
fn a_reader_wants_requests_stores_and_says_that_it_is_done() {
    let mut played = Played::new(Replicate::default(), false);
    let key = KeyPair::from_seed(&[1; 32]).public_key();
    played.event(Event::Manifest { root: Root::FIRST, keys: vec![key], fields: None });
    assert_eq!(played.commands(), [Command::Request { root: Root::FIRST, keys: vec![key] }]);
    let opened = played.open(key);
    assert_eq!(messages(opened), [Message::Want { start: 0, length: MI }]);
    assert_eq!(played.answers(status(true, false)), []);
    assert_eq!(played.answers(have(2, 1, None)), [request(2, 0)]);
    assert_eq!(played.answers(have(0, MI, Some(&[0x02, 0xe0]))), [request(0, 0), request(1, 0)]);
    for index in [0, 2] {
        assert_eq!(played.answers(Message::Data(served(3, &request(index, 0)))), []);
    }
    assert_eq!(played.store.info(played.store.find(&key).unwrap()).unwrap().downloaded, 2);
    assert_eq!(played.answers(Message::Data(served(3, &request(1, 0)))), [status(true, false)]);
    // The writer is done too: whoever hears it last closes, and so may both.
    assert_eq!(played.message(status(false, false)), [Command::Close { token: Token(0) }]);
    played.event(Event::ChannelClosed { token: Token(0) });
    assert_eq!(played.commands(), []);
}

#[test]
fn what_was_not_asked_for_is_not_stored_and_said_so() {
    let mut played = Played::new(Replicate::live(), true);
    let key = KeyPair::from_seed(&[1; 32]).public_key();
    played.open(key);
    let block = served(3, &request(1, 0));
    assert_eq!(played.answers(Message::Data(block)), [Message::Unhave { start: 1, length: 1 }]);
    assert_eq!(played.store.find(&key), None);
}

#[test]
fn acks_are_sent_to_those_who_want_them() {
    let mut played = Played::new(Replicate::live(), true);
    let key = KeyPair::from_seed(&[1; 32]).public_key();
    played.open(key);
    let options = multifeed_proto::Options { extensions: vec![], ack: true };
    assert_eq!(played.answers(Message::Options(options)), []);
    assert_eq!(played.answers(have(1, 1, None)), [request(1, 0)]);
    let ack = Message::Have(Have { start: 1, length: 1, bitfield: None, ack: true });
    assert_eq!(played.answers(Message::Data(served(2, &request(1, 0)))), [ack]);
}

#[test]
fn new_blocks_are_announced_as_runs_to_those_who_wanted_any() {
    let (mut played, id, key) = Played::with_writer(1, Replicate::live(), true);
    played.open(key);
    let append = |played: &mut Played, count| {
        played.store.append(id, &blocks(count)).unwrap();
        played.store.commit(Duration::ZERO);
        messages(played.commands())
    };
    assert_eq!(append(&mut played, 2), []);
    // Past the end of what there is, and not on a page's border.
    assert_eq!(played.answers(Message::Want { start: 3, length: MI }), []);
    let empty = played.answers(Message::Want { start: MI, length: MI });
    assert_eq!(empty, [have(2, 1, None), have(MI, MI, Some(&[]))]);
    assert_eq!(append(&mut played, 1), [have(3, 1, None)]);
    assert_eq!(append(&mut played, 5), [have(4, 5, None)]);
    // One who does not listen hears the whole, in the end, not every run.
    for _ in 0..3 {
        played.store.append(id, &blocks(1)).unwrap();
        played.store.append(id, &blocks(2)).unwrap();
        played.store.commit(Duration::ZERO);
    }
    assert_eq!(messages(played.commands()), [have(9, 9, None)]);
}

#[test]
fn a_live_remote_that_has_everything_is_left() {
    // JS's live side never says that it is done; a side that is not live ends by what it knows.
    let (mut played, _, key) = Played::with_writer(3, Replicate::default(), true);
    assert_eq!(messages(played.open(key)), [acks(), Message::Want { start: 0, length: MI }]);
    compare(&mut played, &[0x02, 0x80], 1);
    assert!(matches!(played.answers(request(1, 0))[..], [Message::Data(_)]));
    assert!(matches!(played.answers(request(2, 0))[..], [Message::Data(_)]));
    // Sent is not delivered.
    assert_eq!(played.answers(ack(1)), []);
    assert_eq!(played.commands(), []);
    assert_eq!(played.message(ack(2)), [Command::Close { token: Token(0) }]);
}

#[test]
fn a_live_remote_that_had_the_rest_from_elsewhere_is_left() {
    let (mut played, _, key) = Played::with_writer(3, Replicate::default(), true);
    played.open(key);
    compare(&mut played, &[0x02, 0x80], 1);
    assert_eq!(played.message(have(1, 2, None)), [Command::Close { token: Token(0) }]);
}

#[test]
fn a_live_remote_that_serves_nothing_is_served_until_it_is_quiet() {
    // It does not say what it has, and never that it is done.
    let (mut played, _, key) = Played::with_writer(3, Replicate::default(), true);
    played.open(key);
    assert_eq!(played.answers(status(false, true)), [status(true, false)]);
    assert_eq!(played.answers(Message::Want { start: 0, length: MI }).len(), 2);
    assert!(matches!(played.answers(request(0, 0))[..], [Message::Data(_)]));
    played.time(4);
    assert!(matches!(played.answers(request(1, 1))[..], [Message::Data(_)]));
    played.time(8);
    assert_eq!(played.commands(), []);
    played.time(12);
    assert_eq!(played.commands(), [Command::Close { token: Token(0) }]);
}

#[test]
fn a_remote_that_does_not_answer_is_done_with_in_time() {
    let mut played = Played::new(Replicate::default(), false);
    let key = KeyPair::from_seed(&[1; 32]).public_key();
    played.open(key);
    assert_eq!(played.answers(have(0, MI, Some(&[0x02, 0xe0]))).len(), 3);
    played.time(10);
    assert_eq!(played.commands(), []);
    // Its blocks count as not there, and are not asked for again.
    played.time(30);
    assert_eq!(messages(played.commands()), [status(true, false)]);
}

/// What a remote does that was asked for a feed of three blocks.
type Remote = fn(&mut Played, FeedKey);

/// It agrees to replicate the feed.
fn agrees(played: &mut Played, key: FeedKey) {
    played.event(Event::Replicate { root: Root::FIRST, keys: vec![key], origin: Origin::Remote });
    assert_eq!(played.commands(), [Command::Open { token: Token(0), key }]);
}

/// It opens the channel, too.
fn opens(played: &mut Played, key: FeedKey) {
    agrees(played, key);
    played.event(Event::Opened { token: Token(0) });
    let said = messages(played.commands());
    assert_eq!(said.strip_prefix(&[acks()]).unwrap_or(&said), [Message::Want { start: 0, length: MI }]);
}

/// It tells of all three blocks, and brings two.
fn brings_two(played: &mut Played, key: FeedKey) {
    opens(played, key);
    played.message(have(0, MI, Some(&[0x02, 0xe0])));
    brings(played, 0..2);
}

fn brings(played: &mut Played, blocks: std::ops::Range<u64>) {
    for index in blocks {
        played.message(Message::Data(served(3, &request(index, 0))));
    }
}

/// A session that offers nothing, with a remote whose one feed was requested.
fn requested(options: Replicate, remote_live: bool) -> (Played, FeedKey) {
    let mut played = Played::new(options, remote_live);
    let key = KeyPair::from_seed(&[1; 32]).public_key();
    played.event(Event::Manifest { root: Root::FIRST, keys: vec![key], fields: None });
    played.event(Event::Replicate { root: Root::FIRST, keys: vec![], origin: Origin::Local });
    assert_eq!(played.commands(), [Command::Request { root: Root::FIRST, keys: vec![key] }]);
    (played, key)
}

type Ended = (bool, u64, Result<(u64, u64), (u64, u64)>);

/// A session that is not live, up to its end. Whether it is in sync then, how many blocks are held, and what was given up or the blocks of
/// which the remote said that it does not have them, and those that it has.
fn ended(remote: Remote) -> Ended {
    let (mut played, key) = requested(Replicate::default(), false);
    remote(&mut played, key);
    // What is not answered is given up; then the remote, which lacks nothing, is done as well.
    played.time(60);
    played.message(status(true, false));
    played.event(Event::Closed(Ok(())));
    let events = played.events();
    let end = match events.last() {
        Some(PeerEvent::Closed(Ok(totals))) => {
            Ok((totals.holes.iter().map(|holes| holes.blocks).sum(), totals.missing))
        }
        Some(PeerEvent::Closed(Err(error @ SyncError::GivenUp { blocks, feeds }))) => {
            assert_eq!(error.code(), "ERR_GIVEN_UP");
            Err((*blocks, *feeds))
        }
        _ => panic!("{events:?}"),
    };
    let held = played.store.find(&key).map_or(0, |id| played.store.info(id).unwrap().downloaded);
    (played.store.in_sync(played.peer), held, end)
}

#[test]
fn what_was_asked_in_vain_is_not_in_sync() {
    let all: Remote = |played, key| {
        brings_two(played, key);
        brings(played, 2..3);
    };
    let hole: Remote = |played, key| {
        opens(played, key);
        played.message(have(0, MI, Some(&[0x02, 0xc0])));
        brings(played, 0..2);
    };
    let nothing: Remote = |played, key| {
        opens(played, key);
        played.message(status(false, true));
    };
    let unnamed: Remote =
        |played, _| played.event(Event::Replicate { root: Root::FIRST, keys: vec![], origin: Origin::Remote });
    let hash: Remote = |played, key| {
        brings_two(played, key);
        played.message(Message::Data(Data { value: None, ..served(3, &request(2, 0)) }));
    };
    let unhave: Remote = |played, key| {
        brings_two(played, key);
        played.message(Message::Unhave { start: 2, length: 1 });
    };
    let closed: Remote = |played, key| {
        brings_two(played, key);
        played.event(Event::ChannelClosed { token: Token(0) });
    };
    let stops: Remote = |played, key| {
        brings_two(played, key);
        played.time(30);
        played.message(status(false, false));
    };
    let cases: [(&str, Remote, _); 11] = [
        ("brought all", all, (true, 3, Ok((0, 0)))),
        ("has a hole", hole, (true, 2, Ok((1, 0)))),
        ("serves nothing", nothing, (true, 0, Ok((0, 0)))),
        ("did not agree to what it had offered", unnamed, (false, 0, Ok((0, 0)))),
        ("never opened the channel", agrees, (false, 0, Err((0, 1)))),
        ("never told what it has", opens, (false, 0, Err((0, 1)))),
        ("never brought a block", brings_two, (false, 2, Err((1, 1)))),
        ("brought the hash of a block alone", hash, (false, 2, Ok((1, 0)))),
        ("told of a block and took it back", unhave, (false, 2, Ok((1, 0)))),
        ("closed the channel with a block left", closed, (false, 2, Ok((0, 1)))),
        ("never brought a block, and serves nothing at last", stops, (false, 2, Err((1, 1)))),
    ];
    for (name, remote, expected) in cases {
        assert_eq!(ended(remote), expected, "a remote that {name}");
    }
}

/// In a live session too, until it comes.
#[test]
fn a_block_that_a_live_remote_does_not_bring_is_waited_for() {
    let (mut played, key) = requested(Replicate::live(), true);
    played.store.observe(played.peer);
    brings_two(&mut played, key);
    played.time(30);
    assert!(!played.store.in_sync(played.peer));
    brings(&mut played, 2..3);
    assert!(played.store.in_sync(played.peer));
}

/// If all streams stood still for longer than the patience lasts, nothing of what then comes is lost.
#[test]
fn a_remote_that_was_only_slow_brings_it_all() {
    let mut played = Played::new(Replicate::live(), true);
    let key = KeyPair::from_seed(&[1; 32]).public_key();
    played.open(key);
    let asked = played.answers(have(0, MI, Some(&[0x02, 0xe0])));
    assert_eq!(asked, [request(0, 0), request(1, 0), request(2, 0)]);
    // Of a feed that is not here yet too.
    played.time(30);
    assert_eq!(played.commands(), []);
    let at_hand = |played: &Played| played.store.find(&key).map_or(0, |id| played.store.info(id).unwrap().downloaded);
    assert_eq!(played.answers(Message::Data(served(3, &request(0, 0)))), []);
    assert_eq!(at_hand(&played), 1);

    played.time(60);
    assert_eq!(played.answers(Message::Data(served(3, &request(1, 0)))), []);
    assert_eq!(at_hand(&played), 2);
    // The others are waited for again, and if that is in vain too they are still welcome; but not what was never asked for.
    played.time(90);
    assert_eq!(played.answers(Message::Data(served(3, &request(2, 0)))), []);
    assert_eq!(played.answers(Message::Data(served(4, &request(3, 0)))), [Message::Unhave { start: 3, length: 1 }]);
    assert_eq!(at_hand(&played), 3);
}

#[test]
fn messages_that_cannot_be_end_the_session_by_name() {
    let key = KeyPair::from_seed(&[1; 32]).public_key();
    let hostile = [
        have(0, MI, Some(&[0x80])), // a literal of 64 bytes, of which none came
        have(0, MI, Some(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f])), // a run past all windows
        have(0, 1 << 40, Some(&[0x02, 0xe0])),
        have(3, MI, Some(&[0x02, 0xe0])),
        have(u64::MAX, 5, None),
    ];
    for message in hostile {
        let mut played = Played::new(Replicate::live(), true);
        played.open(key);
        let ended = played.message(message.clone());
        assert!(
            matches!(&ended[..], [Command::Abort(SessionError::Feed { feed, .. })] if *feed == key),
            "{message:?}: {ended:?}"
        );
    }
}

#[test]
fn claims_without_end_cost_nothing() {
    let mut played = Played::new(Replicate::live(), true);
    let key = KeyPair::from_seed(&[1; 32]).public_key();
    played.open(key);
    // 2^53 blocks in one Have: heard window by window, which are asked for one after the other.
    let asked = played.answers(have(0, 1 << 53, None));
    assert!(asked.len() <= 2, "{asked:?}");
    assert_eq!(played.answers(Message::Unhave { start: 0, length: u64::MAX }), []);
    assert_eq!(played.answers(have((1 << 53) - 1, 1, None)).len(), 0);
}

#[test]
fn queues_of_a_remote_that_does_not_read_are_bounded() {
    let (mut played, _, key) = Played::with_writer(3, Replicate::live(), true);
    played.open(key);
    played.store.grant(played.peer, 0);
    let mut sent = 0;
    let abort = loop {
        played.event(Event::Message { token: Token(0), message: request(sent % 3, 0) });
        sent += 1;
        assert!(sent < 10_000);
        if played.store.poll_peer_event(played.peer).is_none() && sent > 4_096 {
            break played.commands();
        }
    };
    assert!(
        matches!(&abort[..], [Command::Abort(SessionError::Limit { what: "requests_queued", limit: 4_096 })]),
        "{sent}: {:?}",
        abort.first()
    );
}

#[test]
fn events_after_the_end_do_nothing() {
    let (mut played, _, key) = Played::with_writer(3, Replicate::live(), true);
    played.open(key);
    played.event(Event::Closed(Ok(())));
    for event in [Event::Opened { token: Token(0) }, Event::RemoteEnded, Event::ChannelClosed { token: Token(9) }] {
        played.event(event);
    }
    assert_eq!(played.message(request(0, 0)), []);
    let mut ends = 0;
    while let Some(event) = played.store.poll_peer_event(played.peer) {
        ends += usize::from(matches!(event, PeerEvent::Closed(Ok(_))));
    }
    assert_eq!(ends, 1);
}
