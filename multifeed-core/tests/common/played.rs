//! A store whose remote is played by the test, event by event.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::time::Duration;

use multifeed_core::reconcile::EXTENSION;
use multifeed_core::{MemoryStorage, Multifeed, PeerEvent, Replicate, SessionId};
use multifeed_proto::{Command, Config, Event, Role, Session};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// A store, and one session of it whose other side is the test.
pub struct Played {
    pub store: Multifeed<MemoryStorage>,
    pub peer: SessionId,
    pub now: Duration,
}

impl Played {
    /// The session's handshake is done; what it sends then is still to be taken.
    pub fn start(store: Multifeed<MemoryStorage>, options: Replicate, remote_live: bool) -> Self {
        Self::start_with_grant(store, options, remote_live, usize::MAX)
    }

    /// The same, if the stream takes so many bytes.
    pub fn start_with_grant(
        mut store: Multifeed<MemoryStorage>,
        options: Replicate,
        remote_live: bool,
        bytes: usize,
    ) -> Self {
        let peer = store.connect(options);
        store.grant(peer, bytes);
        let mut played = Self { store, peer, now: Duration::ZERO };
        played.event(ready(remote_live, &[]));
        played
    }

    /// The same as [`start`](Self::start), with a remote that is one of ours.
    pub fn start_with_ours(mut store: Multifeed<MemoryStorage>, options: Replicate, remote_live: bool) -> Self {
        let peer = store.connect(options);
        store.grant(peer, usize::MAX);
        let mut played = Self { store, peer, now: Duration::ZERO };
        played.event(ready(remote_live, &[EXTENSION]));
        played
    }

    pub fn event(&mut self, event: Event) {
        self.store.handle(self.peer, event, self.now);
        self.store.commit(self.now);
    }

    /// Lets the clock come to a second, looking at the timers on the way as a driver does.
    pub fn time(&mut self, seconds: u64) {
        self.millis(seconds * 1_000);
    }

    /// The same, in milliseconds.
    pub fn millis(&mut self, millis: u64) {
        let until = Duration::from_millis(millis);
        while self.now < until {
            self.now = self.store.poll_timeout().unwrap().min(until).max(self.now);
            self.store.handle_timeout(self.now);
            self.store.commit(self.now);
        }
    }

    pub fn commands(&mut self) -> Vec<Command> {
        std::iter::from_fn(|| self.store.poll_command(self.peer)).collect()
    }

    pub fn events(&mut self) -> Vec<PeerEvent> {
        std::iter::from_fn(|| self.store.poll_peer_event(self.peer)).collect()
    }
}

/// A remote's accepted handshake, as a real session tells it.
fn ready(live: bool, extensions: &[&str]) -> Event {
    let mut rng = StdRng::seed_from_u64(3);
    let mut config = Config::default();
    config.root.as_mut().unwrap().live = live;
    config.extensions.extend(extensions.iter().map(|&name| name.into()));
    let mut ends =
        [Role::Initiator, Role::Responder].map(|role| Session::new(role, config.clone(), Duration::ZERO, &mut rng));
    loop {
        for side in 0..2 {
            let mut wire = bytes::BytesMut::new();
            while ends[side].poll_output(&mut wire) {}
            ends[1 - side].recv_buf().unwrap().extend_from_slice(&wire);
            ends[1 - side].handle_input(Duration::ZERO).unwrap();
        }
        while let Some(event) = ends[0].poll_event() {
            if matches!(event, Event::Ready { .. }) {
                return event;
            }
        }
    }
}
