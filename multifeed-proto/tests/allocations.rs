//! What a message costs once a feed's channel is open: allocations, counted for the side that sends and the side that receives.
#![allow(missing_docs)]

mod common;

use std::collections::VecDeque;
use std::time::Duration;

use allocation_counter::{AllocationInfo, measure};
use bytes::{Buf, Bytes, BytesMut};
use common::*;
use multifeed_proto::*;

const NOW: Duration = Duration::ZERO;

/// Bursts of messages that are measured.
const ROUNDS: usize = 20;

/// Messages of a burst, which is handed on at once.
const COUNTS: [usize; 4] = [1, 3, 16, 100];

/// The most that a buffer to read into has room for, if no single message is larger.
const READ_MAX: usize = 256 * 1024;

/// An extension of the application's own, on the stream and on the feed's channel.
const NAME: &str = "peer-id";

/// What is said again and again.
enum Say {
    Message(Message),
    Extension(Scope),
}

/// Has a look at each message.
struct Look(usize);

impl Tracer for Look {
    fn message(&mut self, record: &Record<'_>) {
        self.0 += record.size;
    }
}

/// One direction of a stream.
struct Way {
    from: Session,
    to: Session,
    token: Token,
    wire: BytesMut,
    /// Events that the receiver's caller holds on to: so many of the newest.
    kept: VecDeque<Event>,
    keeps: usize,
}

impl Way {
    fn new(keeps: usize) -> Self {
        let mut pair = Pair::offering(&[key(1)], &[]);
        pair.run();
        let token = pair.a.token(key(1));
        assert_eq!(pair.b.token(key(1)), token);
        for side in [&mut pair.a, &mut pair.b] {
            for scope in [Scope::Stream, Scope::Channel(token)] {
                side.session.register_extension(scope, NAME).unwrap();
            }
        }
        pair.run();
        Self { from: pair.a.session, to: pair.b.session, token, wire: BytesMut::new(), kept: VecDeque::new(), keeps }
    }

    fn send(&mut self, say: &Say, count: usize) {
        for _ in 0..count {
            match say {
                Say::Message(message) => self.from.send(self.token, message),
                Say::Extension(scope) => self.from.send_extension(*scope, NAME, &[7; 50]).unwrap(),
            }
        }
        self.from.poll_output(&mut self.wire);
    }

    /// Reads as a socket gives: no more than there is room for.
    fn receive(&mut self) -> usize {
        let mut messages = 0;
        while !self.wire.is_empty() {
            let buf = self.to.recv_buf().expect("events were taken");
            let part = (buf.capacity() - buf.len()).min(self.wire.len());
            buf.extend_from_slice(&self.wire[..part]);
            self.wire.advance(part);
            self.to.handle_input(NOW).unwrap();
            while let Some(event) = self.to.poll_event() {
                messages += 1;
                self.kept.push_back(event);
                if self.kept.len() > self.keeps {
                    self.kept.pop_front();
                }
            }
        }
        messages
    }

    /// What it costs each side, once their buffers have grown, that a message goes over `count` times, [`ROUNDS`] times.
    fn cost(&mut self, say: &Say, count: usize) -> [AllocationInfo; 2] {
        self.kept.reserve(2 * count * ROUNDS + 1);
        for _ in 0..ROUNDS {
            self.send(say, count);
            assert_eq!(self.receive(), count);
        }
        let mut cost = [AllocationInfo::default(); 2];
        for _ in 0..ROUNDS {
            cost[0] += measure(|| self.send(say, count));
            cost[1] += measure(|| assert_eq!(self.receive(), count));
        }
        cost
    }
}

/// Messages without anything that has to live on its own.
fn plain() -> Vec<(&'static str, Say)> {
    let have = |bitfield| Message::Have(Have { start: 0, length: 8192, bitfield, ack: false });
    let messages = [
        ("a request", Message::Request(Request { index: 1000, nodes: 5, ..Request::default() })),
        ("a Have", have(None)),
        ("a Have with a bitfield", have(Some(Bytes::from_static(&[7; 40])))),
        ("an empty block", data(1000, Bytes::new())),
        ("a block of 100 B", data(1000, vec![7; 100].into())),
        ("a block of 64 KiB", data(1000, vec![7; 64 * 1024].into())),
    ];
    let mut all: Vec<_> = messages.into_iter().map(|(name, message)| (name, Say::Message(message))).collect();
    all.push(("an extension's message on the stream", Say::Extension(Scope::Stream)));
    all.push(("an extension's message on the channel", Say::Extension(Scope::Channel(Token(0)))));
    all
}

/// Bytes of a message on the wire, and some to spare.
fn wire_bytes(say: &Say) -> usize {
    8 + match say {
        Say::Message(message) => message.encoded_len(),
        Say::Extension(_) => 51,
    }
}

/// A block of 100 B with a proof.
fn proven(nodes: usize) -> Say {
    let nodes = (0..nodes as u64).map(|n| Node { index: (1 << n) - 1, hash: [7; 32], size: 100 << n }).collect();
    let value = Some(Bytes::from_static(&[7; 100]));
    Say::Message(Message::Data(Data { index: 1000, value, nodes, signature: Some([7; 64]) }))
}

#[test]
fn a_message_that_is_handled_at_once_costs_none() {
    for (name, say) in plain() {
        for count in COUNTS {
            let [sent, received] = Way::new(0).cost(&say, count);
            assert_eq!(sent.count_total, 0, "{name}, {count} at a time, sent");
            assert_eq!(received.count_total, 0, "{name}, {count} at a time, received");
        }
    }
}

#[test]
fn a_trace_adds_none() {
    for (name, say) in plain() {
        let mut way = Way::new(0);
        way.from.set_tracer(Some(Box::new(Look(0))));
        way.to.set_tracer(Some(Box::new(Look(0))));
        assert_eq!(way.cost(&say, 16).map(|cost| cost.count_total), [0, 0], "{name}");
    }
}

#[test]
fn a_proof_costs_one() {
    for nodes in [1, 2, 5, 17, 40] {
        for count in COUNTS {
            let [sent, received] = Way::new(0).cost(&proven(nodes), count);
            assert_eq!(sent.count_total, 0, "{nodes} nodes, {count} at a time, sent");
            assert_eq!(received.count_total, (ROUNDS * count) as u64, "{nodes} nodes, {count} at a time, received");
            let bytes = received.bytes_total as usize / (ROUNDS * count);
            let each = size_of::<Node>();
            assert!(bytes <= each * (nodes + nodes / 4 + 3), "{bytes} bytes for {nodes} nodes");
        }
    }
}

/// Buffers are read into again as soon as the values in them are dropped.
#[test]
fn values_that_are_in_use_for_a_while_cost_none() {
    for (name, say) in plain() {
        for count in COUNTS {
            let mut way = Way::new((2 * count).min(16));
            // Until a few buffers were filled.
            while way.to.totals().bytes_in < 64 * 1024 {
                way.cost(&say, count);
            }
            let [_, received] = way.cost(&say, count);
            assert_eq!(received.count_total, 0, "{name}, {count} at a time");
        }
    }
}

/// A stream on which nothing more is to be said keeps one buffer.
#[test]
fn buffers_are_given_back_with_the_keep_alive() {
    let mut way = Way::new(16);
    way.cost(&Say::Message(data(1000, vec![7; 64 * 1024].into())), 16);
    way.kept.clear();
    let quiet = measure(|| way.to.handle_timeout(way.to.poll_timeout().unwrap()));
    assert!(quiet.bytes_current <= -4 * READ_MAX as i64, "{quiet:?}");
}

/// If the caller keeps the values, it keeps the buffers that they came in, and others have to be read to.
#[test]
fn values_that_are_kept_cost_read_buffers() {
    for (name, say) in plain() {
        for count in COUNTS {
            let mut way = Way::new(usize::MAX);
            let [sent, received] = way.cost(&say, count);
            assert_eq!(sent.count_total, 0, "{name}, {count} at a time, sent");
            let wire = ROUNDS * count * wire_bytes(&say);
            let at_once = (count * wire_bytes(&say)).min(READ_MAX);
            // A buffer, and the count of those who hold on to it; each takes a burst, or as much as is read at a time.
            let buffers = 2 * wire.div_ceil(at_once) as u64;
            assert!(received.count_total <= buffers, "{name}, {count} at a time: {} allocations", received.count_total);
            assert!(
                received.bytes_total as usize <= 2 * wire + ROUNDS * 8192,
                "{name}, {count} at a time: {} bytes for {wire}",
                received.bytes_total
            );
        }
    }
}
