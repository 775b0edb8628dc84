//! A remote that does its worst, measured with an allocator that counts: what a session holds at its doing stays under the
//! bounds that its [`Limits`] name.
#![allow(missing_docs, clippy::disallowed_methods, clippy::disallowed_types)]

mod common;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use common::*;
use multifeed_proto::wire::message::kind;
use multifeed_proto::*;

/// One test at a time: some are timed.
static ALONE: Mutex<()> = Mutex::new(());

const KIB: usize = 1024;
const MIB: usize = 1024 * 1024;

/// What a session holds whatever comes: two buffers of 256 KiB for reading, 512 events, the machines themselves.
const BASE: usize = MIB;

fn alone<T>(test: impl FnOnce() -> T) -> T {
    let _guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    test()
}

/// The most bytes that this thread had allocated at one time during `act`, and those that it still has after it.
fn measure<T>(act: impl FnOnce() -> T) -> (T, usize, usize) {
    let mut value = None;
    let used = allocation_counter::measure(|| value = Some(act()));
    let bytes = |count| usize::try_from(count).unwrap_or(0);
    (value.expect("it ran"), bytes(used.bytes_max as i64), bytes(used.bytes_current))
}

/// A remote whose bytes arrive as a socket gives them: as many as there is room for.
struct Flood {
    peer: Peer,
    /// What is encrypted and sent at a time.
    piece: Vec<u8>,
    /// Events are polled after each read.
    polls: bool,
    /// The session reads no more until something is taken.
    paused: bool,
    result: Result<(), SessionError>,
}

impl Flood {
    fn new(peer: Peer) -> Self {
        Self { peer, piece: vec![0; 256 * KIB], polls: true, paused: false, result: Ok(()) }
    }

    fn ready(config: Config) -> Self {
        Self::new(Peer::ready(Role::Responder, config))
    }

    /// With a feed's channel open on both sides: token 1, the remote's id 2.
    fn with_channel(config: Config) -> Self {
        let mut peer = Peer::ready(Role::Responder, config);
        peer.session.open_channel(Token(1), key(1)).unwrap();
        peer.open(2, key(1)).unwrap();
        peer.events();
        peer.frames();
        Self::new(peer)
    }

    /// Sends bytes. `false` once the session is over, or paused with all that it takes.
    fn send(&mut self, bytes: &[u8]) -> bool {
        let mut piece = std::mem::take(&mut self.piece);
        let sent = bytes.chunks(piece.len()).all(|part| {
            let piece = &mut piece[..part.len()];
            piece.copy_from_slice(part);
            self.peer.encrypt_in_place(piece);
            self.wire(piece)
        });
        self.piece = piece;
        sent
    }

    /// Bytes as they stand on the wire.
    fn wire(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let Some(buf) = self.peer.session.recv_buf() else {
                self.paused = self.result.is_ok();
                return false;
            };
            let room = buf.capacity() - buf.len();
            let (part, rest) = bytes.split_at(bytes.len().min(room));
            buf.extend_from_slice(part);
            bytes = rest;
            self.result = self.peer.session.handle_input(Duration::ZERO);
            if self.polls {
                while self.peer.session.poll_event().is_some() {}
            }
            if self.result.is_err() {
                return false;
            }
        }
        true
    }

    fn limit(&self) -> &'static str {
        match self.result {
            Err(SessionError::Limit { what, .. }) => what,
            _ => panic!("{:?}, paused: {}", self.result, self.paused),
        }
    }
}

fn unpolled(mut flood: Flood) -> Flood {
    flood.polls = false;
    flood
}

fn under(what: &str, measured: usize, bound: usize) {
    println!("{what}: {measured} bytes of {bound}");
    assert!(measured <= bound, "{what}: {measured} bytes, {bound} are allowed");
}

fn data_body(size: usize) -> Vec<u8> {
    let mut body = BytesMut::new();
    data(1, vec![7; size].into()).encode(&mut body);
    body.to_vec()
}

#[test]
fn claimed_lengths_cost_what_has_arrived() {
    alone(|| {
        let mut flood = Flood::with_channel(Config::default());
        let claim = &wire(2, kind::DATA, &data_body(8 * MIB - 7))[..1000];
        let (sent, peak, _) = measure(|| flood.send(claim));
        assert!(sent);
        under("a claim of 8 MiB", peak, 16 * KIB);

        let mut flood = Flood::with_channel(Config::default());
        let whole = wire(2, kind::DATA, &data_body(8 * MIB - 7));
        let (sent, peak, after) = measure(|| {
            // The next read gets a buffer of its own.
            flood.send(&whole) && flood.peer.session.recv_buf().is_some()
        });
        assert!(sent);
        // The buffer doubles as bytes arrive, up to the message's length, and the old one stands until the new one is filled.
        under("a message of 8 MiB", peak, 2 * 8 * MIB + BASE);
        let mut flood = Flood::with_channel(Config::default());
        let (sent, _, held) = measure(|| flood.send(&whole[..whole.len() - 1]));
        assert!(sent);
        under("all of it but a byte", held, 8 * MIB + BASE);
        assert_eq!(flood.peer.session.incoming_bytes(), whole.len());
        under("after it", after, BASE);

        for (name, next) in [("the first byte of another", 0x40), ("a keep-alive", 0)] {
            let mut flood = Flood::with_channel(Config::default());
            let (sent, _, after) = measure(|| {
                let act = [&whole[..], &[next]].concat();
                flood.send(&act) && flood.peer.session.recv_buf().is_some()
            });
            assert!(sent);
            under(name, after, BASE);
        }
    });
}

#[test]
fn events_that_are_not_polled() {
    alone(|| {
        let limits = Limits::default();
        let bound = 2 * (limits.event_bytes + limits.message_bytes) + 2 * limits.message_bytes + BASE;
        let keys: Vec<_> = (0..100_000u32).map(numbered).collect();
        let request = wire(0, kind::EXTENSION, &[b"\x03", json_list(&keys).as_bytes()].concat());
        let mut node = vec![0x1a, 38, 0x08, 1, 0x12, 32];
        node.extend_from_slice(&[3; 32]);
        node.extend_from_slice(&[0x18, 1]);
        let mut names = vec![0x0a; 2 * 200];
        names.iter_mut().skip(1).step_by(2).for_each(|len| *len = 0);
        let pinning = [vec![0; 100_000], wire(2, kind::EXTENSION, b"\x01x")].concat();
        let acts: [(&str, Vec<u8>); 8] = [
            ("blocks of 8 MiB", wire(2, kind::DATA, &data_body(8 * MIB - 7))),
            ("blocks of 100 KiB", wire(2, kind::DATA, &data_body(100 * KIB))),
            ("extension messages of 1 MiB", wire(2, kind::EXTENSION, &vec![1; MIB])),
            ("proofs", wire(2, kind::DATA, &[&[0x08, 0][..], &node.repeat(128)].concat())),
            ("tiny messages", wire(2, kind::HAVE, &[8, 1])),
            ("options of a channel", wire(2, kind::OPTIONS, &names)),
            ("small slices of large buffers", pinning),
            ("requests of 100,000 keys", request),
        ];
        for (name, act) in acts {
            let mut flood = unpolled(Flood::with_channel(Config::default()));
            flood.peer.session.offer_feeds(Root::FIRST, &keys).unwrap();
            flood.peer.session.request_feeds(Root::FIRST, &[]).unwrap();
            flood.peer.frames();
            let (_, peak, _) = measure(|| {
                for _ in 0..100_000 {
                    if !flood.send(&act) {
                        break;
                    }
                    flood.peer.session.poll_output(&mut BytesMut::new());
                }
            });
            assert!(flood.paused, "{name}: {:?}", flood.result);
            // What we offered is ours to pay: 100,000 keys and their JSON, and the answers to them.
            let answers = if name.starts_with("requests") { 4 * act.len() } else { 0 };
            under(name, peak, bound + answers);
            // All of it is there once it is polled.
            assert!(!flood.peer.events().is_empty());
            assert!(flood.peer.session.recv_buf().is_some(), "{name}");
        }
    });
}

#[test]
fn reading_pauses_at_the_bound_of_events() {
    let mut config = Config::default();
    config.limits.events = 3;
    let mut peer = Flood::with_channel(config).peer;
    for n in 0..3 {
        assert!(peer.session.recv_buf().is_some(), "after {n}");
        peer.frame(2, kind::HAVE, &[8, 1]).unwrap();
    }
    assert!(peer.session.recv_buf().is_none());
    assert!(peer.session.poll_event().is_some());
    assert!(peer.session.recv_buf().is_some());
}

#[test]
fn a_hundred_thousand_opens() {
    alone(|| {
        let limits = Limits::default();
        let mut flood = Flood::ready(Config::default());
        let capability = [7; 32];
        let (_, peak, _) = measure(|| {
            for n in 2..100_000 {
                if !flood.send(&wire(n, kind::OPEN, &open_body(numbered(n), Some(&capability)))) {
                    break;
                }
            }
        });
        assert_eq!(flood.limit(), "channels");
        under("opens", peak, limits.channels * 400 + BASE);
    });
}

#[test]
fn capabilities_of_any_size() {
    alone(|| {
        let mut flood = Flood::ready(Config::default());
        let mut body = vec![0x0a, 32];
        body.extend_from_slice(&[0; 32]);
        body.extend_from_slice(&[0x12, 0x80, 0x80, 0x40]);
        body.resize(body.len() + MIB, 1);
        let (_, peak, after) = measure(|| {
            for n in 2..100u8 {
                body[2] = n;
                assert!(flood.send(&wire(n.into(), kind::OPEN, &body)));
            }
            flood.peer.session.recv_buf().is_some()
        });
        under("Opens with capabilities of 1 MiB", peak, 6 * MIB + BASE);
        // The buffer that they were read into may still stand, but not ninety-eight capabilities.
        under("what is kept of them", after, 2 * MIB + BASE);
    });
}

#[test]
fn opens_and_closes_without_end() {
    alone(|| {
        let mut flood = Flood::ready(Config::default());
        let capability = [7; 32];
        let (_, peak, after) = measure(|| {
            for n in 2..50_000 {
                assert!(flood.send(&wire(n, kind::OPEN, &open_body(numbered(n), Some(&capability)))));
                assert!(flood.send(&wire(n, kind::CLOSE, &[])));
                assert!(flood.send(&wire(n, kind::CLOSE, &open_body(numbered(n), None))));
            }
        });
        under("opens and closes", peak, BASE);
        under("what is kept of them", after, 64 * KIB);
    });
}

#[test]
fn options_without_end() {
    alone(|| {
        let mut flood = Flood::ready(Config::default());
        let options = wire(0, kind::OPTIONS, &[&[0x0a, 0xf0, 0x01][..], &[b'x'; 240]].concat().repeat(250));
        let (_, peak, after) = measure(|| (0..1000).for_each(|_| assert!(flood.send(&options))));
        under("Options of 60 KiB, over and over", peak, 4 * 65_536 + BASE);
        under("the last of them", after, 2 * 65_536 + BASE);
    });
}

#[test]
fn tiny_frames_and_extension_floods() {
    alone(|| {
        let bytes = |frame: Vec<u8>| frame.repeat(64 * KIB / frame.len());
        for flood_of in [vec![0], wire(2, kind::HAVE, &[8, 1]), wire(2, 12, &[]), wire(0, kind::EXTENSION, &[200, 1])] {
            let mut flood = Flood::with_channel(Config::default());
            let piece = bytes(flood_of.clone());
            let (_, peak, _) = measure(|| {
                for _ in 0..200 {
                    if !flood.send(&piece) {
                        break;
                    }
                }
            });
            under("tiny frames", peak, BASE);
            // Those that mean nothing end it: 1,000,000 are allowed.
            if flood_of.len() > 1 && flood_of[1] != 0x23 {
                assert_eq!(flood.limit(), "stray_messages");
            } else {
                assert_eq!(flood.result, Ok(()));
            }
        }
    });
}

#[test]
fn a_remote_that_never_reads() {
    alone(|| {
        let mut config = Config::default();
        let mut limits = config.limits.clone();
        limits.offers_total = u64::MAX;
        config.limits = limits.clone();
        let keys: Vec<_> = (0..20_000u32).map(numbered).collect();
        let request = wire(0, kind::EXTENSION, &[b"\x03", json_list(&keys).as_bytes()].concat());
        let mut flood = Flood::ready(config);
        flood.peer.session.offer_feeds(Root::FIRST, &keys).unwrap();
        flood.peer.session.request_feeds(Root::FIRST, &[]).unwrap();
        flood.peer.frames();
        let (_, peak, _) = measure(|| (0..1000).any(|_| !flood.send(&request)));
        assert!(flood.paused);
        // The output's buffer doubles, and each list is parsed on its way.
        under("answers", peak, 3 * (limits.reply_bytes + request.len()) + 5 * request.len() + BASE);
        assert!(flood.peer.session.recv_buf().is_none());
        assert!(flood.peer.session.poll_output(&mut BytesMut::new()));
        assert!(flood.peer.session.recv_buf().is_some());
    });
}

#[test]
fn half_a_handshake_for_ever() {
    alone(|| {
        // A length of 65,535, and all but one of its bytes.
        let mut message = vec![0xff, 0xff, 0x03];
        message.resize(3 + 65_534, 1);
        let zeros = vec![0; 4 * MIB];
        for (name, bytes) in [("half a message", &message), ("zero lengths", &zeros)] {
            let mut session = session(Role::Responder, Config::default());
            let (_, peak, _) = measure(|| {
                for piece in bytes.chunks(1000) {
                    session.recv_buf().unwrap().extend_from_slice(piece);
                    session.handle_input(Duration::from_secs(19)).unwrap();
                }
            });
            under(name, peak, 256 * KIB);
            session.handle_timeout(Duration::from_secs(20));
            assert_eq!(session.poll_event(), Some(Event::Closed(Err(SessionError::Timeout(Phase::Noise)))));
        }
        // A thousand of them.
        let (_held, _, after) =
            measure(|| -> Vec<Session> { (0..1000).map(|_| session(Role::Responder, Config::default())).collect() });
        under("1,000 sessions that wait", after, 1000 * 8 * KIB);
    });
}

#[test]
fn lists_and_handshakes_before_the_handshake_counts() {
    alone(|| {
        let connected = || {
            let mut flood = Flood::new(Peer::connect(Role::Responder, Config::default()));
            flood.peer.open(1, DEFAULT_ROOT_KEY).unwrap();
            assert!(flood.send(&wire(0, kind::OPTIONS, &options_body())));
            flood
        };
        // Lists of one key, 90,000 times each: what is kept is what they mean.
        let list = wire(0, kind::EXTENSION, &[b"\x03", json_list(&vec![key(1); 90_000]).as_bytes()].concat());
        let mut flood = connected();
        let (_, peak, after) = measure(|| (0..100).any(|_| !flood.send(&list)));
        assert_eq!(flood.limit(), "early_messages");
        under("lists of one key", peak, 5 * list.len() + BASE);
        under("kept after the end", after, BASE);

        let keys: Vec<_> = (0..30_000u32).map(numbered).collect();
        let list = wire(0, kind::EXTENSION, &[b"\x03", json_list(&keys).as_bytes()].concat());
        let mut flood = connected();
        let (_, peak, _) = measure(|| (0..100).any(|_| !flood.send(&list)));
        assert_eq!(flood.limit(), "manifest_keys");
        under("lists of many keys", peak, 2 * 32 * 130_000 + 5 * list.len() + BASE);

        let json = format!(r#"{{"client":"MULTIFEED","version":"4.0.0","userData":"{}"}}"#, "x".repeat(MIB - 100));
        let handshake = wire(0, kind::EXTENSION, &[b"\x00", json.as_bytes()].concat());
        let mut flood = connected();
        let (_, peak, after) = measure(|| (0..100).for_each(|_| assert!(flood.send(&handshake))));
        under("handshakes", peak, 6 * MIB + BASE);
        under("the last of them, and the buffer", after, 3 * MIB + BASE);
    });
}

/// Before the root key, whatever comes in whatever order: begun messages, lists, handshakes.
#[test]
fn a_stranger_costs_little() {
    alone(|| {
        let keys: Vec<_> = (0..900u32).map(numbered).collect();
        let list = wire(0, kind::EXTENSION, &[b"\x03", json_list(&keys).as_bytes()].concat());
        let json = format!(r#"{{"client":"MULTIFEED","version":"4.0.0","userData":"{}"}}"#, "x".repeat(60_000));
        let handshake = wire(0, kind::EXTENSION, &[b"\x00", json.as_bytes()].concat());
        let begun = &wire(0, kind::EXTENSION, &vec![0; 64 * KIB])[..64 * KIB];
        let whole = 3 * 64 * KIB + 64 * KIB;
        for (name, first) in [("nothing", &[][..]), ("lists", &list.repeat(2)), ("handshakes", &handshake.repeat(2))] {
            let mut flood = Flood::new(Peer::connect(Role::Responder, Config::default()));
            assert!(flood.send(&wire(0, kind::OPTIONS, &options_body())));
            let (sent, peak, after) = measure(|| flood.send(first) && flood.send(begun));
            assert!(sent, "{name}: {:?}", flood.result);
            under(name, peak, 2 * whole);
            under(&format!("{name}, and a message begun"), after, whole);
        }
    });
}

/// What comes early, for each of several multifeeds, on their own channels; and Options on feeds' channels that the application
/// speaks an extension on.
#[test]
fn each_multifeed_and_each_channel_with_an_extension_has_its_own_bounds() {
    alone(|| {
        const ROOTS: u32 = 8;
        let limits = Limits::default();
        let mut config = Config::new(key(1));
        config.idle_timeout = None;
        let mut peer = Peer::connect(Role::Responder, config);
        for n in 2..=ROOTS as u8 {
            peer.session.open_root(Root(n.into()), RootConfig::new(key(n))).unwrap();
        }
        for n in 1..=ROOTS {
            peer.open(n, key(n as u8)).unwrap();
        }
        peer.events();
        peer.frames();
        let mut flood = Flood::new(peer);
        let keys: Vec<_> = (0..90_000u32).map(numbered).collect();
        let body = [b"\x03", json_list(&keys).as_bytes()].concat();
        let handshake = [b"\x00", &br#"{"client":"MULTIFEED","version":"4.0.0"}"#[..]].concat();
        let each = 96 * limits.manifest_keys + 4 * limits.options_bytes + limits.handshake_bytes;
        let (peak, _, after) = measure(|| {
            let (_, peak, _) = measure(|| {
                for n in 1..=ROOTS {
                    assert!(flood.send(&wire(n, kind::OPTIONS, &options_body())));
                    assert!(flood.send(&wire(n, kind::EXTENSION, &body)));
                }
            });
            // One goes on, the others are over, and so are their lists.
            assert!(flood.send(&wire(1, kind::EXTENSION, &handshake)));
            flood.peer.session.handle_timeout(Duration::from_secs(3600));
            let events: Vec<_> = std::iter::from_fn(|| flood.peer.session.poll_event()).collect();
            assert_eq!(events.len(), ROOTS as usize - 1, "{events:?}");
            assert!(events.iter().all(|event| matches!(event, Event::RootClosed { error: Some(_), .. })), "{events:?}");
            peak
        });
        under("early lists of eight", peak, ROOTS as usize * each + 5 * body.len() + BASE);
        under("after the end of seven", after, BASE + 4 * ROOTS as usize * limits.options_bytes);
        assert!(!flood.send(&wire(1, kind::EXTENSION, &body[..1])), "no JSON");

        const CHANNELS: u32 = 50;
        let mut peer = Peer::ready(Role::Responder, Config::default());
        for n in 0..CHANNELS {
            peer.session.open_channel(Token(n.into()), key(n as u8)).unwrap();
            peer.session.register_extension(Scope::Channel(Token(n.into())), "x").unwrap();
            peer.open(n + 2, key(n as u8)).unwrap();
        }
        peer.events();
        peer.frames();
        let mut flood = Flood::new(peer);
        // As many names as are allowed, as long as fits.
        let options: Vec<u8> = (0..limits.extensions)
            .flat_map(|n| [&[0x0a, 0xf8, 0x01][..], format!("{n:0248}").as_bytes()].concat())
            .collect();
        let (_, _, after) = measure(|| {
            for _ in 0..3 {
                (0..CHANNELS).for_each(|n| assert!(flood.send(&wire(n + 2, kind::OPTIONS, &options))));
            }
        });
        assert!(options.len() <= limits.options_bytes && after > CHANNELS as usize * options.len());
        under("names on fifty channels", after, CHANNELS as usize * 4 * limits.options_bytes + BASE);
    });
}

#[test]
fn manifests_of_many_keys() {
    alone(|| {
        let limits = Limits::default();
        let keys: Vec<_> = (0..125_000u32).map(numbered).collect();
        let mut flood = Flood::ready(Config::default());
        let manifest = manifest(&keys);
        assert!(manifest.len() < 8 * MIB + 5);
        let (_, peak, _) = measure(|| flood.send(&manifest));
        assert_eq!(flood.limit(), "manifest_keys");
        under("125,000 keys", peak, 3 * limits.message_bytes + 3 * 32 * limits.manifest_keys + BASE);

        // 10 manifests of 100,000 are the most that a session takes.
        let mut flood = Flood::ready(Config::default());
        let manifest = self::manifest(&keys[..100_000]);
        assert_eq!((0..11).map(|_| flood.send(&manifest)).filter(|sent| *sent).count(), 10);
        assert_eq!(flood.limit(), "offers_total");
    });
}

#[test]
fn manifests_of_many_fields() {
    alone(|| {
        let limits = Limits::default();
        let manifest = |count: usize| {
            let members: String = (0..count).map(|n| format!(",\"{n:x}\":1")).collect();
            wire(0, kind::EXTENSION, format!("\x01{{\"keys\":[]{members}}}").as_bytes())
        };
        // Short names and short values: what is kept most of beside them.
        let mut flood = Flood::ready(Config::default());
        let fits = manifest(28_000);
        let (sent, peak, _) = measure(|| flood.send(&fits));
        assert!(sent);
        under("28,000 fields", peak, 16 * limits.manifest_fields_bytes + BASE);
        let mut flood = Flood::ready(Config::default());
        assert!(!flood.send(&manifest(40_000)));
        assert_eq!(flood.limit(), "manifest_fields_bytes");
    });
}

#[test]
fn a_manifest_takes_time_in_proportion() {
    alone(|| {
        let time = |count: u32| {
            let keys: Vec<_> = (0..count).map(numbered).collect();
            let manifest = manifest(&keys);
            let run = || {
                let mut flood = Flood::ready(Config::default());
                let start = Instant::now();
                assert!(flood.send(&manifest));
                start.elapsed()
            };
            (0..5).map(|_| run()).min().unwrap()
        };
        let (small, large) = (time(5_000), time(100_000));
        // Twenty times the keys; their square would be 400 times the time.
        assert!(large < 200 * small, "{small:?} for 5,000 keys, {large:?} for 100,000");
    });
}

#[test]
fn a_million_messages_leave_nothing() {
    alone(|| {
        let mut flood = Flood::with_channel(Config::default());
        let haves = wire(2, kind::HAVE, &[8, 1]).repeat(1000);
        flood.send(&haves);
        let (_, peak, after) = measure(|| (0..1000).for_each(|_| assert!(flood.send(&haves))));
        under("a million messages", peak, 64 * KIB);
        under("kept after them", after, 16 * KIB);
    });
}

fn numbered(n: u32) -> FeedKey {
    // Spread, so that no order helps.
    let mut key = [0; 32];
    key[..4].copy_from_slice(&n.wrapping_mul(2_654_435_761).to_be_bytes());
    FeedKey::new(key)
}

fn json_list(keys: &[FeedKey]) -> String {
    let keys: Vec<_> = keys.iter().map(|key| format!("\"{key}\"")).collect();
    format!("[{}]", keys.join(","))
}

fn manifest(keys: &[FeedKey]) -> Vec<u8> {
    wire(0, kind::EXTENSION, format!("\x01{{\"keys\":{}}}", json_list(keys)).as_bytes())
}
