//! The protocol alone: two sessions back to back in memory, on one core, without feeds, proofs, sockets or tasks.
//!
//! `cargo bench -p multifeed-benches --bench proto`. Times are those of the one thread that does it all, by the processor's clock for it.
//! What else runs on the machine costs it its caches, but is not counted.

use std::hint::black_box;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cpu_time::ThreadTime;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use multifeed_cipher::XSalsa20;
use multifeed_proto::{Config, Data, Event, FeedKey, Message, Request, Role, Session, Token};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

const NOW: Duration = Duration::ZERO;
const FEED: FeedKey = FeedKey::new([7; 32]);
const CHANNEL: Token = Token(1);

/// Bytes that a sender queues before they are taken, about what a socket takes and gives at a time.
const BURST: usize = 256 << 10;

/// The part of what the cipher alone allows that large messages have to reach.
const WANTED: f64 = 0.75;

/// Two sessions, and what is on its way from one to the other.
struct Joined {
    sides: [Session; 2],
    wire: BytesMut,
}

impl Joined {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let sides = [Role::Initiator, Role::Responder].map(|role| Session::new(role, Config::default(), NOW, &mut rng));
        Self { sides, wire: BytesMut::new() }
    }

    /// Both sides know that the other has the root key and a handshake that fits.
    fn ready(seed: u64) -> Self {
        let mut joined = Self::new(seed);
        let mut ready = 0;
        while ready < 2 {
            for from in [0, 1] {
                joined.carry(from, |event| ready += usize::from(matches!(event, Event::Ready { .. })));
            }
        }
        joined
    }

    /// One feed's channel is open.
    fn open() -> Self {
        let mut joined = Self::ready(1);
        for side in &mut joined.sides {
            side.open_channel(CHANNEL, FEED).unwrap();
        }
        let mut opened = 0;
        for from in [0, 1] {
            joined.carry(from, |event| opened += usize::from(matches!(event, Event::Opened { .. })));
        }
        assert_eq!(opened, 2);
        joined
    }

    /// Moves what one side has to say to the other, as a socket would.
    fn carry(&mut self, from: usize, mut event: impl FnMut(Event)) {
        self.sides[from].poll_output(&mut self.wire);
        let to = &mut self.sides[1 - from];
        while !self.wire.is_empty() {
            let buf = to.recv_buf().expect("events were taken");
            let room = (buf.capacity() - buf.len()).min(self.wire.len());
            buf.extend_from_slice(&self.wire[..room]);
            bytes::Buf::advance(&mut self.wire, room);
            to.handle_input(NOW).expect("an honest remote");
            while let Some(told) = to.poll_event() {
                event(told);
            }
        }
        self.wire.clear();
    }

    /// Sends a message so many times from the first side to the second.
    fn send(&mut self, message: &Message, count: usize) {
        let mut seen = 0;
        for _ in 0..count {
            self.sides[0].send(CHANNEL, message);
        }
        self.carry(0, |event| {
            seen += usize::from(matches!(event, Event::Message { .. }));
            black_box(&event);
        });
        assert_eq!(seen, count);
    }
}

fn data(size: usize) -> Message {
    let value = Some(Bytes::from(vec![7; size]));
    Message::Data(Data { index: 1000, value, nodes: Vec::new(), signature: None })
}

/// A cipher's work for one direction of a stream: both its ends.
struct Ciphers([XSalsa20; 2], Vec<u8>);

impl Ciphers {
    fn new(size: usize) -> Self {
        Self([(); 2].map(|()| XSalsa20::new(&[7; 32], &[9; 24])), vec![0; size])
    }

    fn apply(&mut self, count: usize) {
        for _ in 0..count {
            for cipher in &mut self.0 {
                cipher.apply(&mut self.1);
            }
        }
    }
}

fn handshakes(c: &mut Criterion<ProcessorTime>) {
    let mut group = c.benchmark_group("handshake");
    group.throughput(Throughput::Elements(1));
    let mut seed = 0;
    group.bench_function("to ready, both sides", |b| {
        b.iter(|| {
            seed += 1;
            Joined::ready(seed)
        });
    });
    group.finish();
}

fn messages(c: &mut Criterion<ProcessorTime>) {
    for (name, message, size) in [
        ("data of 100 B", data(100), 100),
        ("data of 64 KiB", data(64 << 10), 64 << 10),
        ("request", Message::Request(Request { index: 1000, nodes: 1, ..Request::default() }), 16),
    ] {
        let count = BURST / size;
        let mut group = c.benchmark_group(name);
        let mut joined = Joined::open();
        let each =
            if size > 1000 { Throughput::Bytes((count * size) as u64) } else { Throughput::Elements(count as u64) };
        group.throughput(each);
        group.bench_function("session to session", |b| b.iter(|| joined.send(&message, count)));
        let mut ciphers = Ciphers::new(size);
        group.bench_function("the cipher alone, twice", |b| b.iter(|| ciphers.apply(count)));
        group.finish();
    }
}

/// Large messages beside the cipher alone, in turn, so that both meet the same machine.
fn ratio(_: &mut Criterion<ProcessorTime>) {
    const ROUNDS: usize = 201;
    let (message, count) = (data(64 << 10), BURST >> 16);
    let (mut joined, mut ciphers) = (Joined::open(), Ciphers::new(64 << 10));
    let mut ratios: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let ciphers = time(|| ciphers.apply(8 * count));
            let sessions = time(|| (0..8).for_each(|_| joined.send(&message, count)));
            ciphers / sessions
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ROUNDS / 2];
    println!(
        "data of 64 KiB: {:.0} % of what the cipher alone, twice, allows (wanted: {:.0} %)",
        100.0 * median,
        100.0 * WANTED
    );
}

fn time(act: impl FnOnce()) -> f64 {
    let start = ThreadTime::now();
    act();
    start.elapsed().as_secs_f64()
}

/// The time that the thread had a processor.
struct ProcessorTime;

impl Measurement for ProcessorTime {
    type Intermediate = ThreadTime;
    type Value = Duration;

    fn start(&self) -> ThreadTime {
        ThreadTime::now()
    }

    fn end(&self, start: ThreadTime) -> Duration {
        start.elapsed()
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(ProcessorTime);
    targets = handshakes, messages, ratio
}
criterion_main!(benches);
