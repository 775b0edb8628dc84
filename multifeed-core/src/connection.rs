//! A session and the multifeed on one thread: for simulators, fuzzers, tests and small embedders.

use std::time::Duration;

use multifeed_proto::{Config, Event, Role, Session};
use rand_core::CryptoRng;

use crate::ids::SessionId;
use crate::multifeed::Multifeed;
use crate::prepared::prepare_events;
use crate::replication::replicate::{PeerEvent, Replicate};
use crate::storage::Storage;

/// One stream to a remote, joined to a [`Multifeed`] that is lent for each call.
///
/// Read the stream into [`Session::recv_buf`], then call [`handle_input`](Self::handle_input); send what
/// [`Session::poll_output`] gives, then call [`pump`](Self::pump). If several connections share a multifeed, pump each of them
/// after any of them was given something.
#[derive(Debug)]
pub struct Connection {
    session: Session,
    peer: SessionId,
    /// Kept for its memory.
    events: Vec<Event>,
}

impl Connection {
    /// Joins a new stream to a multifeed. What `config` says of the session's first words is taken from `options`.
    pub fn new<S: Storage>(
        multifeed: &mut Multifeed<S>,
        role: Role,
        mut config: Config,
        options: Replicate,
        now: Duration,
        rng: &mut impl CryptoRng,
    ) -> Self {
        options.configure(&mut config);
        let peer = multifeed.connect(options);
        Self { session: Session::new(role, config, now, rng), peer, events: Vec::new() }
    }

    /// Joins a stream whose Noise handshake is done, so that simulators need not wait for it.
    #[cfg(feature = "fuzzing")]
    #[doc(hidden)]
    pub fn past_noise<S: Storage>(
        multifeed: &mut Multifeed<S>,
        role: Role,
        mut config: Config,
        options: Replicate,
        now: Duration,
        established: multifeed_proto::crypto::noise::Established,
    ) -> Self {
        options.configure(&mut config);
        let peer = multifeed.connect(options);
        Self { session: Session::past_noise(role, config, now, established), peer, events: Vec::new() }
    }

    /// Returns the session: for its buffers, timers, totals and end of stream.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Returns the session's name in the multifeed.
    pub fn peer(&self) -> SessionId {
        self.peer
    }

    /// Takes what was read into [`Session::recv_buf`].
    pub fn handle_input<S: Storage>(&mut self, multifeed: &mut Multifeed<S>, now: Duration) {
        // The error is sticky, and comes as the last event.
        let _ = self.session.handle_input(now);
        self.pump(multifeed, now);
    }

    /// Moves events to the multifeed and commands from it, as far as the session's output has room. Whether anything moved.
    pub fn pump<S: Storage>(&mut self, multifeed: &mut Multifeed<S>, now: Duration) -> bool {
        let mut moved = false;
        loop {
            let mut turn = false;
            self.events.extend(std::iter::from_fn(|| self.session.poll_event()));
            for event in prepare_events(&mut self.events) {
                multifeed.handle(self.peer, event, now);
                turn = true;
            }
            multifeed.commit(now);
            multifeed.set_grant(self.peer, self.session.send_credit());
            while let Some(command) = multifeed.poll_command(self.peer) {
                if let Err(misuse) = self.session.apply(command) {
                    self.session.abort(misuse.into());
                }
                turn = true;
            }
            if !turn {
                return moved;
            }
            moved = true;
        }
    }

    /// Returns the next thing that happened on the session.
    pub fn poll_event<S: Storage>(&mut self, multifeed: &mut Multifeed<S>) -> Option<PeerEvent> {
        multifeed.poll_peer_event(self.peer)
    }

    /// Forgets the session.
    pub fn close<S: Storage>(self, multifeed: &mut Multifeed<S>) {
        multifeed.disconnect(self.peer);
    }
}
