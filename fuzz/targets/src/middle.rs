//! Two sessions past the Noise handshake, and somebody between them who changes what they say. The cipher has no MAC, so all of it
//! arrives; it must end in events or an error.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use bytes::{Bytes, BytesMut};
use multifeed_proto::{Data, Event, FeedKey, Message, Role, Session, Token};

use crate::sides::{Told, Watch, is_no_fault_of_ours, key, session};

#[derive(Debug, Arbitrary)]
struct Input {
    offers: [Vec<u8>; 2],
    calls: Vec<(bool, Told)>,
    acts: Vec<(bool, Act)>,
}

/// What happens to a stream, counted from the byte after the last act on it.
#[derive(Debug, Clone, Arbitrary)]
enum Act {
    Flip { after: u16, bits: u8 },
    Insert { after: u16, bytes: Vec<u8> },
    Drop { after: u16, count: u8 },
    Cut { after: u16 },
}

impl Act {
    fn after(&self) -> usize {
        let (Self::Flip { after, .. } | Self::Insert { after, .. } | Self::Drop { after, .. } | Self::Cut { after }) =
            self;
        (*after).into()
    }
}

struct Side {
    session: Session,
    watch: Watch,
    offers: Vec<FeedKey>,
    opened: Vec<FeedKey>,
    /// What the caller opened of its own, without an agreement.
    inbox: BytesMut,
    acts: Vec<Act>,
    passed: usize,
    ended: bool,
}

impl Side {
    fn new(role: Role, offers: &[u8], acts: Vec<Act>) -> Self {
        let offers = offers.iter().take(4).map(|n| key(*n)).collect();
        Self {
            session: session(role, 64),
            watch: Watch::default(),
            offers,
            opened: Vec::new(),
            inbox: BytesMut::new(),
            acts,
            passed: 0,
            ended: false,
        }
    }

    /// Bytes arrive, after what the middle does to them.
    fn arrive(&mut self, mut bytes: BytesMut) {
        while let Some(act) = self.acts.first() {
            let Some(at) = act.after().checked_sub(self.passed).filter(|at| *at < bytes.len()) else { break };
            let after = bytes.split_off(at);
            self.inbox.extend_from_slice(&bytes);
            bytes = after;
            self.passed = 0;
            match self.acts.remove(0) {
                Act::Flip { bits, .. } => {
                    if let Some(byte) = bytes.first_mut() {
                        *byte ^= bits;
                    }
                }
                Act::Insert { bytes: more, .. } => self.inbox.extend_from_slice(&more),
                Act::Drop { count, .. } => drop(bytes.split_to(bytes.len().min(count.into()))),
                Act::Cut { .. } => {
                    self.ended = true;
                    return;
                }
            }
        }
        self.passed += bytes.len();
        if !self.ended {
            self.inbox.extend_from_slice(&bytes);
        }
    }

    fn poll(&mut self) -> bool {
        let Some(event) = self.session.poll_event() else { return false };
        self.watch.event(&event);
        match event {
            Event::Ready { root, .. } => self.session.offer_feeds(root, &self.offers).expect("it is ready"),
            Event::Manifest { root, keys, .. } => self.session.request_feeds(root, &keys).expect("it is ready"),
            Event::Replicate { keys, .. } => {
                for key in keys {
                    if !self.opened.contains(&key) {
                        // Tokens of the caller's own calls are below 8.
                        let opened = self.session.open_channel(Token(8 + self.opened.len() as u64), key);
                        opened.expect("a token of its own");
                        self.opened.push(key);
                    }
                }
            }
            Event::Opened { token } => {
                let value = Some(Bytes::from_static(b"a block of a feed"));
                let data = Data { index: 1, value, nodes: Vec::new(), signature: Some([1; 64]) };
                self.session.send(token, &Message::Data(data));
            }
            Event::Closed(Err(error)) => assert!(is_no_fault_of_ours(&error), "{error}"),
            _ => {}
        }
        true
    }
}

/// Somebody in the middle.
pub fn middle(data: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let acts = |to: bool| input.acts.iter().filter(|(side, _)| *side == to).map(|(_, act)| act.clone()).collect();
    let mut a = Side::new(Role::Initiator, &input.offers[0], acts(true));
    let mut b = Side::new(Role::Responder, &input.offers[1], acts(false));
    let mut calls = input.calls.iter();
    let mut now = Duration::ZERO;
    for turn in 0.. {
        assert!(turn < 10_000, "it does not come to rest");
        let mut moved = false;
        for first in [true, false] {
            let (this, that) = if first { (&mut a, &mut b) } else { (&mut b, &mut a) };
            let mut out = BytesMut::new();
            if this.session.poll_output(&mut out) {
                moved = true;
                that.arrive(out);
            }
            if !this.inbox.is_empty()
                && let Some(buf) = this.session.recv_buf()
            {
                buf.extend_from_slice(&this.inbox.split());
                let _ = this.session.handle_input(now);
                moved = true;
            }
            if this.ended && this.inbox.is_empty() {
                this.session.handle_eof();
            }
            while this.poll() {
                moved = true;
            }
        }
        if moved {
            continue;
        }
        if let Some((first, told)) = calls.next() {
            let side = if *first { &mut a } else { &mut b };
            let command = told.command();
            side.watch.told(&command);
            // It may be a mistake, which does nothing.
            let _ = side.session.apply(command);
        } else if now < Duration::from_secs(60) {
            // What was made longer is waited for until the time is over.
            now += Duration::from_secs(5);
            a.session.handle_timeout(now);
            b.session.handle_timeout(now);
        } else {
            return;
        }
    }
}
