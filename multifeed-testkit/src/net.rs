//! A simulated connection on virtual time: two byte streams with a bandwidth, a delay and a buffer, that split, join, hold
//! back and cut, the same for the same seed. Nothing sleeps.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::random::Random;

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The left end.
    A,
    /// The right end.
    B,
}

impl Side {
    /// Both, for loops.
    pub const BOTH: [Side; 2] = [Side::A, Side::B];

    /// The end that this one talks to.
    pub fn other(self) -> Side {
        match self {
            Side::A => Side::B,
            Side::B => Side::A,
        }
    }
}

/// How one direction of a [`Link`] treats what is sent.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The bandwidth, in bytes a second; `None` for no bound. A piece leaves once those before it have left, and arrives
    /// after its delay, so a full buffer adds to the delay as it does in a modem.
    pub rate: Option<u64>,
    /// How long a piece is on its way after it has left. Pieces never overtake each other.
    pub delay: RangeInclusive<Duration>,
    /// How many bytes a piece has, at most and at least; the last one of a send may have fewer.
    pub piece: RangeInclusive<usize>,
    /// Whether pieces that have arrived may be read as one.
    pub join: bool,
    /// How many bytes each direction holds, sent and not yet read. What is more is not taken: see [`Link::send`].
    pub capacity: usize,
}

impl Shape {
    /// Delivers at once, in the pieces in which it was sent, any amount.
    pub fn plain() -> Shape {
        Shape {
            rate: None,
            delay: Duration::ZERO..=Duration::ZERO,
            piece: usize::MAX..=usize::MAX,
            join: false,
            capacity: usize::MAX,
        }
    }

    /// Delays of up to 100 ms, and pieces from one byte on, that are sometimes joined.
    pub fn rough() -> Shape {
        Shape {
            delay: Duration::ZERO..=Duration::from_millis(100),
            piece: 1..=1500,
            join: true,
            capacity: 256 * 1024,
            ..Shape::plain()
        }
    }

    /// Delivers `rate` bytes a second, at least 1, after `delay`, in pieces of at most 50 ms. Takes up to 4 MiB before it is
    /// full: what the send buffer, the devices in between and the receive buffer of a real connection hold together.
    pub fn slow(rate: u64, delay: Duration) -> Shape {
        let piece = usize::try_from(rate / 20).unwrap_or(usize::MAX).clamp(1, LARGEST_PIECE);
        Shape {
            rate: Some(rate.max(1)),
            delay: delay..=delay,
            piece: piece..=piece,
            join: false,
            capacity: SLOW_BUFFER,
        }
    }

    /// A byte at a time.
    pub fn trickle() -> Shape {
        Shape { piece: 1..=1, ..Shape::plain() }
    }

    /// Takes no more than `capacity` bytes in each direction until they are read.
    pub fn narrow(capacity: usize) -> Shape {
        Shape { capacity, ..Shape::plain() }
    }
}

/// Bytes that a [slow](Shape::slow) direction holds.
pub const SLOW_BUFFER: usize = 4 << 20;

/// The most bytes of a piece of a slow direction: one read of a socket.
const LARGEST_PIECE: usize = 64 * 1024;

/// What a read gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The next bytes, never none.
    Bytes(Vec<u8>),
    /// The other end has shut its half; all that it sent was read.
    End,
    /// The connection is broken. Nothing arrives any more, and nothing can be sent.
    Cut,
}

/// A connection between [`Side::A`] and [`Side::B`].
#[derive(Debug)]
pub struct Link {
    now: Duration,
    random: Random,
    /// What is on its way to A, and to B.
    lanes: [Lane; 2],
    cut: bool,
}

#[derive(Debug)]
struct Lane {
    shape: Shape,
    pieces: VecDeque<Piece>,
    held: usize,
    /// When the last piece has left.
    free: Duration,
    last_arrival: Duration,
    sent: u64,
    ended: bool,
    end_read: bool,
    cut_read: bool,
    cut_after: Option<u64>,
}

#[derive(Debug)]
struct Piece {
    arrives: Duration,
    bytes: Vec<u8>,
}

impl Link {
    /// A connection at time zero, both directions alike.
    pub fn new(shape: Shape, seed: u64) -> Link {
        Link::uneven([shape.clone(), shape], seed)
    }

    /// A connection at time zero whose directions differ: first that of what [`Side::A`] sends.
    pub fn uneven([from_a, from_b]: [Shape; 2], seed: u64) -> Link {
        let lanes = [Lane::new(from_b), Lane::new(from_a)];
        Link { now: Duration::ZERO, random: Random::new(seed), lanes, cut: false }
    }

    /// The time now.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Lets time pass up to `now`; never back.
    pub fn advance(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    /// How many bytes [`Link::send`] would take.
    pub fn room(&self, from: Side) -> usize {
        let lane = &self.lanes[from.other() as usize];
        if self.cut || lane.ended { 0 } else { lane.shape.capacity.saturating_sub(lane.held) }
    }

    /// Sends what there is room for, from the front of `bytes`: how many it took.
    pub fn send(&mut self, from: Side, bytes: &[u8]) -> usize {
        let taken = self.room(from).min(bytes.len());
        let lane = &mut self.lanes[from.other() as usize];
        let mut left = &bytes[..taken];
        if let Some(limit) = lane.cut_after {
            let before = usize::try_from(limit.saturating_sub(lane.sent)).unwrap_or(usize::MAX);
            if before <= left.len() {
                left = &left[..before];
                self.cut = true;
            }
        }
        while !left.is_empty() {
            let (low, high) = (*lane.shape.piece.start() as u64, *lane.shape.piece.end() as u64);
            let size = usize::try_from(self.random.between(low, high)).unwrap_or(usize::MAX).clamp(1, left.len());
            let (piece, rest) = left.split_at(size);
            left = rest;
            let (low, high) = (lane.shape.delay.start().as_nanos() as u64, lane.shape.delay.end().as_nanos() as u64);
            let delay = Duration::from_nanos(self.random.between(low, high));
            lane.free = lane.free.max(self.now) + lane.shape.time_for(size);
            lane.last_arrival = lane.last_arrival.max(lane.free + delay);
            lane.pieces.push_back(Piece { arrives: lane.last_arrival, bytes: piece.to_vec() });
            lane.held += size;
            lane.sent += size as u64;
        }
        taken
    }

    /// Shuts one side's half: once all that it sent was read, the other side reads [`Arrival::End`].
    pub fn shut(&mut self, from: Side) {
        self.lanes[from.other() as usize].ended = true;
    }

    /// Breaks the connection at once, in both directions. What has arrived by now can still be read.
    pub fn cut(&mut self) {
        self.cut = true;
        for lane in &mut self.lanes {
            let arrived = lane.pieces.iter().take_while(|piece| piece.arrives <= self.now).count();
            lane.pieces.truncate(arrived);
        }
    }

    /// Breaks the connection once one side has sent so many bytes in all. What was sent before, by either side, still
    /// arrives.
    pub fn cut_after(&mut self, from: Side, bytes: u64) {
        self.lanes[from.other() as usize].cut_after = Some(bytes);
    }

    /// How many bytes of one side are on their way, or have arrived and were not read.
    pub fn held(&self, from: Side) -> usize {
        self.lanes[from.other() as usize].held
    }

    /// How many bytes one side has sent.
    pub fn sent(&self, from: Side) -> u64 {
        self.lanes[from.other() as usize].sent
    }

    /// Changes bytes that are on their way from one side, as a man in the middle would: `change` gets the offset of
    /// the first of them in that side's stream, and the bytes.
    pub fn tamper(&mut self, from: Side, mut change: impl FnMut(u64, &mut [u8])) {
        let lane = &mut self.lanes[from.other() as usize];
        let held: usize = lane.pieces.iter().map(|piece| piece.bytes.len()).sum();
        let mut at = lane.sent - held as u64;
        for piece in &mut lane.pieces {
            change(at, &mut piece.bytes);
            at += piece.bytes.len() as u64;
        }
    }

    /// What has arrived at one side, if anything. [`Arrival::End`] and [`Arrival::Cut`] come once.
    pub fn poll(&mut self, to: Side) -> Option<Arrival> {
        let lane = &mut self.lanes[to as usize];
        let mut read: Option<Vec<u8>> = None;
        while lane.pieces.front().is_some_and(|piece| piece.arrives <= self.now) {
            let Some(piece) = lane.pieces.pop_front() else {
                break;
            };
            lane.held -= piece.bytes.len();
            read.get_or_insert_default().extend_from_slice(&piece.bytes);
            if !lane.shape.join || self.random.one_in(3) {
                break;
            }
        }
        if let Some(bytes) = read {
            return Some(Arrival::Bytes(bytes));
        }
        if !lane.pieces.is_empty() {
            return None;
        }
        if lane.ended && !lane.end_read {
            lane.end_read = true;
            return Some(Arrival::End);
        }
        if self.cut && !lane.end_read && !lane.cut_read {
            lane.cut_read = true;
            return Some(Arrival::Cut);
        }
        None
    }

    /// When the next bytes arrive that have not yet.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.lanes.iter().filter_map(|lane| lane.pieces.front()).map(|piece| piece.arrives).min()
    }
}

impl Shape {
    /// How long so many bytes take to leave.
    fn time_for(&self, bytes: usize) -> Duration {
        let Some(rate) = self.rate else { return Duration::ZERO };
        let nanos = bytes as u128 * 1_000_000_000 / u128::from(rate.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl Lane {
    fn new(shape: Shape) -> Self {
        Self {
            shape,
            pieces: VecDeque::new(),
            held: 0,
            free: Duration::ZERO,
            last_arrival: Duration::ZERO,
            sent: 0,
            ended: false,
            end_read: false,
            cut_read: false,
            cut_after: None,
        }
    }
}

/// One end's machine, for [`run`].
pub trait Endpoint {
    /// Whether it takes input now. One that never does again stops the run only if the other side ends too.
    fn wants_input(&mut self) -> bool {
        true
    }

    /// Takes what arrived.
    fn receive(&mut self, now: Duration, arrival: Arrival);

    /// Appends up to `room` bytes (or a little more) that it wants to send. True once it has ended its half.
    fn transmit(&mut self, now: Duration, room: usize, out: &mut Vec<u8>) -> bool;

    /// When it wants [`Endpoint::handle_timeout`].
    fn poll_timeout(&mut self) -> Option<Duration>;

    /// Its time has come.
    fn handle_timeout(&mut self, now: Duration);
}

/// Why a [`run`] stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Nobody has anything to send, and nobody waits for a time.
    Idle,
    /// The next thing would happen after the deadline.
    Deadline,
}

/// Steps without time passing after which two endpoints are taken to keep each other busy for ever.
const MOST_STEPS_AT_ONCE: usize = 1_000_000;

/// Runs two endpoints over a link until they are idle, or virtual time reaches the deadline.
///
/// # Panics
///
/// The endpoints go on and on without time passing.
pub fn run(link: &mut Link, a: &mut dyn Endpoint, b: &mut dyn Endpoint, deadline: Duration) -> Stopped {
    let mut unsent = [Vec::new(), Vec::new()];
    let mut steps = 0;
    loop {
        let mut busy = false;
        for side in Side::BOTH {
            let end: &mut dyn Endpoint = if side == Side::A { &mut *a } else { &mut *b };
            let unsent = &mut unsent[side as usize];
            if end.poll_timeout().is_some_and(|at| at <= link.now) {
                end.handle_timeout(link.now);
                busy = true;
            }
            if end.wants_input()
                && let Some(arrival) = link.poll(side)
            {
                end.receive(link.now, arrival);
                busy = true;
            }
            let before = unsent.len();
            let room = link.room(side).saturating_sub(before);
            let ended = end.transmit(link.now, room, unsent);
            let taken = link.send(side, unsent);
            unsent.drain(..taken);
            busy |= taken > 0;
            if ended && unsent.is_empty() && !link.lanes[side.other() as usize].ended {
                link.shut(side);
                busy = true;
            }
        }
        steps += 1;
        assert!(steps < MOST_STEPS_AT_ONCE, "busy for ever at {:?}", link.now);
        if busy {
            continue;
        }
        let times = [link.poll_timeout(), a.poll_timeout(), b.poll_timeout()];
        let Some(next) = times.into_iter().flatten().filter(|at| *at > link.now).min() else {
            return Stopped::Idle;
        };
        if next > deadline {
            return Stopped::Deadline;
        }
        link.advance(next);
        steps = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(link: &mut Link, to: Side) -> (Vec<u8>, Option<Arrival>) {
        let mut bytes = Vec::new();
        loop {
            match link.poll(to) {
                Some(Arrival::Bytes(more)) => bytes.extend(more),
                Some(last) => return (bytes, Some(last)),
                None => match link.poll_timeout() {
                    Some(at) if at > link.now() => link.advance(at),
                    _ => return (bytes, None),
                },
            }
        }
    }

    #[test]
    fn a_rough_link_keeps_the_order() {
        let sent: Vec<u8> = (0..50_000).map(|i| (i % 251) as u8).collect();
        for seed in 0..20 {
            let mut link = Link::new(Shape::rough(), seed);
            for chunk in sent.chunks(7001) {
                assert_eq!(link.send(Side::A, chunk), chunk.len());
                link.advance(link.now() + Duration::from_millis(3));
            }
            link.shut(Side::A);
            assert_eq!(read_all(&mut link, Side::B), (sent.clone(), Some(Arrival::End)));
            assert_eq!(link.poll(Side::B), None);
        }
    }

    #[test]
    fn the_same_seed_is_the_same_network() {
        let reads = |seed| {
            let mut link = Link::new(Shape::rough(), seed);
            link.send(Side::B, &[7; 20_000]);
            let mut reads = Vec::new();
            while let Some(at) = link.poll_timeout() {
                link.advance(at);
                reads.push((at, link.poll(Side::A)));
            }
            reads
        };
        assert_eq!(reads(3), reads(3));
        assert_ne!(reads(3), reads(4));
    }

    #[test]
    fn a_full_direction_takes_nothing_until_it_is_read() {
        let mut link = Link::new(Shape::narrow(10), 0);
        assert_eq!(link.send(Side::A, &[1; 30]), 10);
        assert_eq!(link.send(Side::A, &[1; 30]), 0);
        assert_eq!(link.send(Side::B, &[1; 3]), 3);
        assert_eq!(link.poll(Side::B), Some(Arrival::Bytes(vec![1; 10])));
        assert_eq!(link.room(Side::A), 10);
    }

    /// Reads what comes until nothing is on its way, and gives the time of each read with its bytes.
    fn read_timed(link: &mut Link, to: Side) -> Vec<(Duration, usize)> {
        let mut reads = Vec::new();
        loop {
            match link.poll(to) {
                Some(Arrival::Bytes(bytes)) => reads.push((link.now(), bytes.len())),
                Some(_) => {}
                None => match link.poll_timeout() {
                    Some(at) => link.advance(at),
                    None => return reads,
                },
            }
        }
    }

    #[test]
    fn a_slow_direction_has_its_bandwidth_and_its_delay() {
        let (rate, delay) = (100_000, Duration::from_secs(2));
        let mut link = Link::new(Shape::slow(rate, delay), 0);
        assert_eq!(link.send(Side::A, &[1; 300_000]), 300_000);
        let reads = read_timed(&mut link, Side::B);
        assert_eq!(reads.iter().map(|(_, bytes)| bytes).sum::<usize>(), 300_000);
        assert_eq!(reads.first(), Some(&(delay + Duration::from_millis(50), 5_000)));
        assert_eq!(reads.last(), Some(&(delay + Duration::from_secs(3), 5_000)));
        // Over any second no more than the rate comes, and what is sent later waits for nothing.
        for (start, _) in &reads {
            let second = reads.iter().filter(|(at, _)| (*start..*start + Duration::from_secs(1)).contains(at));
            assert!(second.map(|(_, bytes)| bytes).sum::<usize>() <= 100_000);
        }
        let now = link.now();
        link.send(Side::A, b"late");
        assert_eq!(read_timed(&mut link, Side::B), [(now + delay + Duration::from_micros(40), 4)]);
    }

    #[test]
    fn a_slow_direction_holds_megabytes_and_then_takes_as_much_as_was_read() {
        let mut link = Link::new(Shape::slow(1_000_000, Duration::ZERO), 0);
        assert_eq!(link.send(Side::A, &vec![1; 10 << 20]), SLOW_BUFFER);
        assert_eq!((link.held(Side::A), link.room(Side::A)), (SLOW_BUFFER, 0));
        link.advance(Duration::from_secs(1));
        while link.poll(Side::B).is_some() {}
        assert_eq!(link.room(Side::A), 1_000_000);
    }

    #[test]
    fn the_directions_may_differ() {
        let slow = Shape::slow(1_000, Duration::from_millis(300));
        let mut link = Link::uneven([slow, Shape::plain()], 0);
        link.send(Side::A, &[1; 1_000]);
        link.send(Side::B, &[1; 1_000]);
        assert_eq!(link.poll(Side::A), Some(Arrival::Bytes(vec![1; 1_000])));
        assert_eq!(read_timed(&mut link, Side::B).last(), Some(&(Duration::from_millis(1_300), 50)));
    }

    #[test]
    fn a_cut_ends_both_directions() {
        let mut link = Link::new(Shape::plain(), 0);
        link.cut_after(Side::A, 5);
        assert_eq!(link.send(Side::A, b"123"), 3);
        assert_eq!(link.send(Side::A, b"4567"), 4);
        assert_eq!(read_all(&mut link, Side::B), (b"12345".to_vec(), Some(Arrival::Cut)));
        assert_eq!(read_all(&mut link, Side::A), (Vec::new(), Some(Arrival::Cut)));
        assert_eq!(link.send(Side::B, b"x"), 0);
    }

    #[test]
    fn bytes_on_their_way_can_be_changed() {
        let mut link =
            Link::new(Shape { delay: Duration::from_secs(1)..=Duration::from_secs(1), ..Shape::trickle() }, 0);
        link.send(Side::A, b"hello");
        link.tamper(Side::A, |at, bytes| {
            if at == 1 {
                bytes[0] = b'a';
            }
        });
        assert_eq!(read_all(&mut link, Side::B).0, b"hallo");
    }

    /// Sends `left` bytes, and echoes nothing.
    struct Sender {
        left: usize,
        got: usize,
        ended: bool,
        wake: Option<Duration>,
    }

    impl Endpoint for Sender {
        fn receive(&mut self, _now: Duration, arrival: Arrival) {
            match arrival {
                Arrival::Bytes(bytes) => self.got += bytes.len(),
                Arrival::End => self.ended = true,
                Arrival::Cut => panic!("cut"),
            }
        }

        fn transmit(&mut self, _now: Duration, room: usize, out: &mut Vec<u8>) -> bool {
            let count = room.min(self.left).min(1000);
            out.extend(std::iter::repeat_n(1, count));
            self.left -= count;
            self.left == 0 && self.wake.is_none()
        }

        fn poll_timeout(&mut self) -> Option<Duration> {
            self.wake
        }

        fn handle_timeout(&mut self, _now: Duration) {
            self.wake = None;
        }
    }

    #[test]
    fn two_endpoints_run_until_both_are_done() {
        let sender = |left, wake| Sender { left, got: 0, ended: false, wake };
        let mut a = sender(100_000, None);
        let mut b = sender(33, Some(Duration::from_secs(60)));
        let mut link = Link::new(Shape { capacity: 700, ..Shape::rough() }, 9);
        assert_eq!(run(&mut link, &mut a, &mut b, Duration::from_secs(50)), Stopped::Deadline);
        assert_eq!((b.got, a.got, a.ended), (100_000, 33, false));
        assert_eq!(run(&mut link, &mut a, &mut b, Duration::from_secs(70)), Stopped::Idle);
        assert!(a.ended && b.ended);
        assert!(link.now() >= Duration::from_secs(60));
    }
}
