//! How a session ends, and what each side may claim then. What is given up has a table of its own, in `peer.rs`.

use crate::common;
use crate::link;

use std::time::Duration;

use bytes::Bytes;
use common::key_pair;
use link::{Link, run, store};
use multifeed_core::{MemoryStorage, Multifeed, Options, PeerEvent, Replicate, SyncError};

const WRITER: usize = 0;
const READER: usize = 1;
const BLOCKS: u64 = 20;

/// How a session is brought to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// Nothing is left to do.
    Done,
    /// The reader may be brought fewer bytes than there are.
    Limit,
    /// The stream breaks on the way.
    Cut,
    /// The reader fetches nothing.
    NotFetched,
}

/// What one side reports: its error's code, whether it is in sync, the blocks that are missing, and the feeds that the other did not take.
type End = (Option<&'static str>, bool, u64, u64);

/// A session of a writer of 20 blocks and an empty store: what both report, and how many blocks came.
fn end(how: How, live: bool) -> ([End; 2], u64) {
    let mut writer = store();
    let id = writer.writer(Some("w"), || key_pair(1)).unwrap();
    writer.append(id, &[0; BLOCKS as usize].map(|_| Bytes::from(vec![7; 5_000]))).unwrap();
    let mut options = Options::default();
    if how == How::Limit {
        options.limits.peer.bytes = 20_000;
    }
    let mut stores = [writer, Multifeed::open(MemoryStorage::default(), options).unwrap()];
    let options = if live { Replicate::live() } else { Replicate::default() };
    let theirs = Replicate { download: (how == How::NotFetched).then_some(false), ..options.clone() };
    let mut links = [Link::new(&mut stores, [WRITER, READER], [options, theirs], Default::default())];
    let peers = [0, 1].map(|side| links[0].ends[side].1.peer());
    (0..2).for_each(|side| stores[side].observe(peers[side]));
    links[0].chunk = 1_000;
    if how == How::Cut {
        while stores[READER]
            .find(&key_pair(1).public_key())
            .is_none_or(|id| stores[READER].info(id).unwrap().downloaded < 5)
        {
            assert!(links[0].turn(&mut stores, Duration::ZERO));
        }
        links[0].ends.iter_mut().for_each(|(_, connection)| connection.session().handle_eof());
    } else {
        run(&mut stores, &mut links, Duration::ZERO);
        stores[WRITER].finish(peers[WRITER]);
    }
    run(&mut stores, &mut links, Duration::ZERO);

    let limited = links[0].events[READER].iter().any(|event| matches!(event, PeerEvent::LimitReached(_)));
    assert_eq!(limited, how == How::Limit);
    let ends = [WRITER, READER].map(|side| {
        let last = links[0].events[side].iter().rev().find_map(|event| match event {
            PeerEvent::Progress(state) => Some(state.in_sync),
            _ => None,
        });
        let in_sync = stores[side].in_sync(peers[side]);
        assert_eq!(last, Some(in_sync), "{how:?}, live {live}, side {side}: the last progress says otherwise");
        match links[0].result(side).unwrap_or_else(|| panic!("{how:?}, live {live}: it goes on")) {
            Ok(totals) => (None, in_sync, totals.missing, totals.not_taken),
            Err(SyncError::Session(error)) => (Some(error.code()), in_sync, 0, 0),
            Err(error) => panic!("{error}"),
        }
    });
    let held =
        stores[READER].find(&key_pair(1).public_key()).map_or(0, |id| stores[READER].info(id).unwrap().downloaded);
    (ends, held)
}

#[test]
fn each_end_claims_what_is_true() {
    let broken = (Some("ERR_DISCONNECTED"), false, 0, 0);
    let done = (None, true, 0, 0);
    for live in [false, true] {
        assert_eq!(end(How::Done, live), ([done, done], BLOCKS));
        // Five blocks are more than 20,000 bytes, as few as it may be brought.
        let ([writer, reader], held) = end(How::Limit, live);
        assert_eq!(reader, (None, false, BLOCKS - held, 0), "live {live}, {held} held");
        assert_eq!((writer, held), ((None, false, 0, 1), 4), "live {live}");
        let (ends, held) = end(How::Cut, live);
        // A live remote may leave when it likes; the reader was in the middle of a message.
        let writer = if live { (None, false, 0, 0) } else { broken };
        assert_eq!(ends, [writer, broken], "live {live}");
        assert!(held < BLOCKS);
    }
    // It asked for nothing, so nothing is missing, and it has what it wants; the writer reports that the feed was not taken.
    assert_eq!(end(How::NotFetched, false), ([(None, false, 0, 1), done], 0));
}
