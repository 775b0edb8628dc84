//! One writer's key here and in a JS store: a store of ours that is behind learns it from JS, and a fork is reported.

use crate::common;

use std::path::Path;

use common::{hang_up_js, js, js_facts, run, socket};
use multifeed_testkit::js::{JsPeer, audit};
use multifeed_tokio::{Feed, Multifeed, MultifeedEvent, Options, Replicate, Role, SyncEvent};

/// A store with a writer "w", made by JS: its folder, and a copy of it that is ours.
async fn devices(shared: u32) -> (tempfile::TempDir, tempfile::TempDir, Multifeed, Feed) {
    let [theirs, ours] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let path = theirs.path().to_str().unwrap().to_owned();
    let mut peer = js(|| JsPeer::spawn(&["--store", &path]));
    let key = js(|| peer.append("w", shared, 30, 1));
    js(|| peer.close());
    let copied = std::process::Command::new("cp").arg("-r").arg(theirs.path().join(".")).arg(ours.path()).status();
    assert!(copied.unwrap().success());
    let multi = Multifeed::open(ours.path(), Options::default()).await.unwrap();
    let feed = multi.feed(&key).unwrap();
    assert_eq!((feed.len(), feed.writable()), (u64::from(shared), true));
    (theirs, ours, multi, feed)
}

fn spawn(path: &Path, live: bool) -> JsPeer {
    let path = path.to_str().unwrap();
    let options: &[&str] = if live { &["--store", path, "--live"] } else { &["--store", path] };
    js(|| JsPeer::spawn(options))
}

/// The lengths that a session reported: of two histories, and of one that had grown.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    conflicts: Vec<(u64, u64)>,
    writer_behind: Vec<(u64, u64)>,
}

impl Told {
    fn note(&mut self, event: &SyncEvent) {
        match event {
            SyncEvent::Conflict { conflict, .. } => self.conflicts.push((conflict.held_length, conflict.length)),
            SyncEvent::WriterBehind { held, len, .. } => self.writer_behind.push((*held, *len)),
            _ => {}
        }
    }
}

async fn meet(multi: &Multifeed, peer: &mut JsPeer, role: Role) -> Told {
    let stream = socket(peer, role).await;
    let mut sync = multi.replicate(stream, role, Replicate::default());
    let mut told = Told::default();
    while let Some(event) = sync.next().await {
        told.note(&event);
    }
    sync.finish().await.unwrap();
    assert_eq!(js(|| peer.event("ended"))["clean"], true, "{}", peer.history());
    told
}

#[test]
fn two_histories_are_told_whatever_their_lengths() {
    run(async {
        for (role, shared, theirs, ours) in [
            (Role::Initiator, 3, 1, 1),
            (Role::Responder, 3, 1, 1),
            (Role::Initiator, 4, 9, 2),
            (Role::Responder, 4, 2, 9),
            (Role::Initiator, 1, 40, 70),
        ] {
            let (folder, _ours, multi, feed) = devices(shared).await;
            let mut peer = spawn(folder.path(), false);
            js(|| peer.append("w", theirs, 30, 2));
            feed.append_batch((0..ours).map(|at| format!("ours {at}"))).await.unwrap();
            let other = js(|| peer.append("other", 3, 30, 3));
            let lengths = (u64::from(shared + ours), u64::from(shared + theirs));
            let mut events = multi.events();
            let told = meet(&multi, &mut peer, role).await;
            assert_eq!(told, Told { conflicts: vec![lengths], writer_behind: vec![] }, "{role:?}");
            // The other feed came, and neither history changed.
            assert_eq!(multi.feed(&other).unwrap().downloaded(), 3);
            assert_eq!((feed.len(), feed.downloaded()), (lengths.0, lengths.0));
            assert_eq!(feed.get(lengths.0 - 1).await.unwrap().unwrap(), format!("ours {}", ours - 1));
            let theirs = js(|| peer.feeds());
            let theirs = theirs.iter().find(|feed| feed.key != other).unwrap();
            assert_eq!((theirs.length, theirs.downloaded), (lengths.1, lengths.1));
            let conflict = loop {
                if let MultifeedEvent::Conflict { conflict, .. } = events.next().await.unwrap() {
                    break conflict;
                }
            };
            assert_eq!((conflict.held_length, conflict.length), lengths);
            js(|| peer.close());
            multi.close().await.unwrap();
        }
    });
}

/// A block of another history makes JS end the whole stream, or mixes the two: it gets none, and the other feeds come.
#[test]
fn a_js_reader_of_the_other_history_gets_no_block_of_ours() {
    run(async {
        for (role, shared, theirs, ours) in [
            (Role::Initiator, 4, 2, 6),
            (Role::Responder, 4, 2, 6),
            (Role::Responder, 8, 3, 70),
            (Role::Initiator, 3, 9, 2),
        ] {
            let (folder, _ours, multi, feed) = devices(shared).await;
            let mut writer = spawn(folder.path(), false);
            js(|| writer.append("w", theirs, 30, 2));
            let between = Multifeed::in_memory(Options::default()).await.unwrap();
            meet(&between, &mut writer, Role::Initiator).await;
            js(|| writer.close());
            let reader = tempfile::tempdir().unwrap();
            let mut reader = spawn(reader.path(), false);
            meet(&between, &mut reader, Role::Initiator).await;

            feed.append_batch((0..ours).map(|at| format!("ours {at}"))).await.unwrap();
            let other = multi.writer("other").await.unwrap();
            other.append_batch((0..300).map(|at| format!("other {at}"))).await.unwrap();
            let lengths = (u64::from(shared + ours), u64::from(shared + theirs));
            for _ in 0..2 {
                let told = meet(&multi, &mut reader, role).await;
                assert_eq!(told, Told { conflicts: vec![lengths], writer_behind: vec![] }, "{role:?}");
            }
            let held = js(|| reader.feeds());
            let held = |key: multifeed_tokio::FeedKey| {
                held.iter().find(|feed| feed.key == key.to_string()).map(|feed| (feed.length, feed.downloaded))
            };
            assert_eq!(
                (held(feed.key()), held(other.key())),
                (Some((lengths.1, lengths.1)), Some((300, 300))),
                "{role:?}"
            );
            js(|| reader.close());
        }
    });
}

/// Nobody writes here, on neither side: a JS reader would take in the other history, or end its stream.
#[test]
fn a_js_reader_and_ours_do_not_mix_two_histories() {
    run(async {
        for (role, shared, theirs, ours) in [
            (Role::Initiator, 4, 2, 13),
            (Role::Responder, 4, 13, 2),
            (Role::Responder, 3, 3, 3),
            (Role::Initiator, 1, 70, 40),
        ] {
            let (folder, _ours, multi, feed) = devices(shared).await;
            let mut writer = spawn(folder.path(), false);
            js(|| writer.append("w", theirs, 30, 2));
            feed.append_batch((0..ours).map(|at| format!("ours {at}"))).await.unwrap();
            let [between, reader] =
                [Multifeed::in_memory(Options::default()), Multifeed::in_memory(Options::default())];
            let (between, reader) = (between.await.unwrap(), reader.await.unwrap());
            meet(&between, &mut writer, Role::Initiator).await;
            js(|| writer.close());
            let js_reader = tempfile::tempdir().unwrap();
            let mut js_reader = spawn(js_reader.path(), false);
            meet(&between, &mut js_reader, Role::Initiator).await;
            let (here, there) = tokio::io::duplex(1 << 16);
            let first = multi.replicate(here, Role::Initiator, Replicate::default());
            let second = reader.replicate(there, Role::Responder, Replicate::default());
            first.finish().await.unwrap();
            second.finish().await.unwrap();

            let copy = reader.feed(&feed.key().to_string()).unwrap();
            let other = reader.writer("other").await.unwrap();
            other.append_batch((0..30).map(|at| format!("other {at}"))).await.unwrap();
            let lengths = (u64::from(shared + ours), u64::from(shared + theirs));
            assert_eq!((copy.len(), copy.downloaded(), copy.writable()), (lengths.0, lengths.0, false));
            for _ in 0..2 {
                let told = meet(&reader, &mut js_reader, role).await;
                assert_eq!(told, Told { conflicts: vec![lengths], writer_behind: vec![] }, "{role:?}");
            }
            let held = js(|| js_reader.feeds());
            let held = |key: multifeed_tokio::FeedKey| {
                held.iter().find(|feed| feed.key == key.to_string()).map(|feed| (feed.length, feed.downloaded))
            };
            let whole = (Some((lengths.1, lengths.1)), Some((30, 30)));
            assert_eq!((held(feed.key()), held(other.key())), whole, "{role:?}");
            assert_eq!((copy.len(), copy.downloaded()), (lengths.0, lengths.0));
            assert_eq!(copy.get(lengths.0 - 1).await.unwrap().unwrap(), format!("ours {}", ours - 1));
            js(|| js_reader.close());
        }
    });
}

#[test]
fn an_old_copy_learns_what_js_signed_since() {
    run(async {
        for (role, shared, more) in [(Role::Initiator, 1, 1), (Role::Responder, 3, 8), (Role::Initiator, 8, 70)] {
            let (folder, ours, multi, feed) = devices(shared).await;
            let mut peer = spawn(folder.path(), false);
            js(|| peer.append("w", more, 30, 2));
            let lengths = (u64::from(shared), u64::from(shared + more));
            let told = meet(&multi, &mut peer, role).await;
            assert_eq!(told, Told { conflicts: vec![], writer_behind: vec![lengths] }, "{role:?}");
            assert_eq!((feed.len(), feed.downloaded()), (lengths.1, lengths.1));
            assert_eq!(feed.append("after").await.unwrap(), lengths.1);
            assert_eq!(meet(&multi, &mut peer, role).await, Told::default());
            js(|| peer.close());
            multi.close().await.unwrap();
            // JS takes the store that was ours for the only one, and it is sound.
            let audited = js(|| audit(ours.path()));
            assert!(audited.iter().all(multifeed_testkit::js::JsFeed::is_sound), "{audited:?}");
            assert_eq!(js_facts(&audited)[0].1, lengths.1 + 1);
        }
    });
}

#[test]
fn in_a_live_session_ours_follows_what_js_appends() {
    run(async {
        for role in [Role::Initiator, Role::Responder] {
            let (folder, _ours, multi, feed) = devices(2).await;
            let mut peer = spawn(folder.path(), true);
            let stream = socket(&mut peer, role).await;
            let mut events = multi.events();
            let sync = multi.replicate(stream, role, Replicate::live());
            let mut writer_behind = 0;
            for turn in 1..=5u64 {
                js(|| peer.append("w", 3, 30, 10 + turn as u32));
                while feed.downloaded() < 2 + 3 * turn {
                    match events.next().await.unwrap() {
                        MultifeedEvent::WriterBehind(_) => writer_behind += 1,
                        MultifeedEvent::Conflict { conflict, .. } => panic!("{conflict:?}"),
                        _ => {}
                    }
                }
            }
            assert_eq!(feed.len(), 17);
            assert!(writer_behind > 0);
            // From here on they part, and that shows.
            feed.append("ours").await.unwrap();
            js(|| peer.append("w", 2, 30, 20));
            let conflict = loop {
                if let MultifeedEvent::Conflict { conflict, .. } = events.next().await.unwrap() {
                    break conflict;
                }
            };
            assert_eq!((conflict.held_length, conflict.length), (18, 19));
            assert_eq!(feed.get(17).await.unwrap().unwrap(), "ours");
            hang_up_js(sync, &mut peer).await;
            js(|| peer.close());
        }
    });
}
