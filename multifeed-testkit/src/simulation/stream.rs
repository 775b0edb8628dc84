//! A stream between two nodes.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::BytesMut;
use multifeed_core::{Connection, PeerEvent, Replicate, SessionId, SyncError, SyncTotals};
use multifeed_proto::crypto::capability::Split;
use multifeed_proto::crypto::noise::Established;
use multifeed_proto::{Config, Fault, HandshakeHash, PeerKey, Role, SessionError};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::Report;
use super::claims::{Checked, Claims};
use super::node::Node;
use crate::net::{Arrival, Link, Shape, Side};

/// One stream in so many begins with a Noise handshake; the others start with what one would have left. It costs more than all that
/// follows.
const NOISE: u64 = 16;

pub(super) struct Stream {
    pub(super) nodes: [usize; 2],
    pub(super) link: Link,
    ends: [Option<Connection>; 2],
    unsent: [Vec<u8>; 2],
    /// Until when a side reads nothing.
    stalled: [Duration; 2],
    /// A side does not serve, or does not fetch, or left a feed, or refused a block, because of its disk: for as long as the session lasts.
    partial: bool,
    /// Which sides stay when everything is there.
    live: [bool; 2],
    /// Both sides know each other as ours.
    ours: bool,
    /// What the sessions claim, if that is checked.
    claims: Option<Claims>,
    /// What the session of a side moved, once it ended well, and whether it was in sync.
    pub(super) totals: [Option<(SyncTotals, bool)>; 2],
}

impl Stream {
    pub(super) fn new(
        all: &mut [Node],
        nodes: [usize; 2],
        shapes: [Shape; 2],
        options: [Replicate; 2],
        now: Duration,
        seed: u64,
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let roles = [Role::Initiator, Role::Responder];
        let partial = options.iter().any(|options| options.upload.is_some() || options.download.is_some());
        let mut established = (!seed.is_multiple_of(NOISE)).then(|| establish(&mut rng));
        let live = [options[0].live, options[1].live];
        let ours = options.iter().all(|options| options.reconcile != Some(false));
        let mut ends = [None, None];
        for (side, options) in options.into_iter().enumerate() {
            let store = &mut all[nodes[side]].store;
            let (role, config) = (roles[side], Config::default());
            ends[side] = Some(match established.as_mut().and_then(|sides| sides[side].take()) {
                Some(established) => Connection::past_noise(store, role, config, options, now, established),
                None => Connection::new(store, role, config, options, now, &mut rng),
            });
        }
        let (unsent, stalled) = Default::default();
        let link = Link::uneven(shapes, rng.next_u64());
        Self { nodes, ends, link, unsent, stalled, partial, live, ours, claims: None, totals: [None, None] }
    }

    /// Holds what the sessions report against what the stores hold, from the start of the stream on. Those that are `observed` report more.
    pub(super) fn check_claims(&mut self, checked: Checked, all: &mut [Node], observed: [bool; 2]) {
        if self.partial {
            return;
        }
        self.claims = Some(Claims::new(checked, &all[self.nodes[0]], &all[self.nodes[1]], self.live, self.ours));
        for ((node, end), observed) in self.nodes.into_iter().zip(&self.ends).zip(observed) {
            if let Some(end) = end.as_ref().filter(|_| observed) {
                all[node].store.observe(end.peer());
            }
        }
    }

    pub(super) fn joins(&self, a: usize, b: usize) -> bool {
        self.nodes == [a, b] || self.nodes == [b, a]
    }

    /// Nobody is at either end any more.
    pub(super) fn is_over(&self) -> bool {
        self.ends.iter().all(Option::is_none)
    }

    /// The session of a side, while it runs.
    pub(super) fn peer(&self, side: Side) -> Option<SessionId> {
        Some(self.ends[side as usize].as_ref()?.peer())
    }

    /// A side reads nothing until then.
    pub(super) fn stall(&mut self, side: Side, until: Duration) {
        self.stalled[side as usize] = until;
    }

    /// A side wants to end well.
    pub(super) fn finish(&mut self, side: Side, all: &mut [Node]) {
        if let Some(claims) = &mut self.claims {
            claims.excuse();
        }
        if let Some(end) = &self.ends[side as usize] {
            all[self.nodes[side as usize]].store.finish(end.peer());
        }
    }

    /// The process at this node died.
    pub(super) fn lose(&mut self, node: usize) {
        for side in 0..2 {
            if self.nodes[side] == node {
                self.ends[side] = None;
                self.link.cut();
                if let Some(claims) = &mut self.claims {
                    claims.lose(side);
                }
            }
        }
    }

    /// No trouble any more, and only streams on which everything moves.
    pub(super) fn heal(&mut self) {
        self.stalled = Default::default();
        if self.partial {
            self.link.cut();
        }
    }

    /// When something is due.
    pub(super) fn wakes(&mut self) -> Vec<Duration> {
        let ends = self.ends.iter_mut().flatten();
        let mut wakes: Vec<_> = ends.filter_map(|end| end.session().poll_timeout()).collect();
        wakes.extend(self.link.poll_timeout());
        wakes
    }

    /// Moves bytes and events in both directions, as far as they have come by now. Whether anything moved.
    pub(super) fn turn(&mut self, all: &mut [Node], now: Duration, report: &mut Report) -> Result<bool> {
        self.link.advance(now);
        let mut moved = false;
        for side in Side::BOTH {
            moved |= self.turn_side(side, all, now, report)?;
        }
        Ok(moved)
    }

    fn turn_side(&mut self, side: Side, all: &mut [Node], now: Duration, report: &mut Report) -> Result<bool> {
        let place = side as usize;
        let Some(end) = &mut self.ends[place] else {
            // Nobody is there any more: what comes is lost.
            while self.link.poll(side).is_some() {}
            return Ok(false);
        };
        let node = &mut all[self.nodes[place]];
        let store = &mut node.store;
        if store.poll_timeout().is_some_and(|time| time <= now) {
            store.handle_timeout(now);
        }
        if end.session().poll_timeout().is_some_and(|time| time <= now) {
            end.session().handle_timeout(now);
        }
        let mut moved = end.pump(store, now);
        if self.stalled[place] <= now {
            moved |= read(end, node, &mut self.link, side, now);
        }
        let mut out = BytesMut::new();
        while end.session().poll_output(&mut out) {}
        let unsent = &mut self.unsent[place];
        unsent.extend_from_slice(&out);
        let taken = self.link.send(side, unsent);
        unsent.drain(..taken);
        moved |= taken > 0;
        let (mut over, peer) = (None, end.peer());
        while let Some(event) = end.poll_event(&mut all[self.nodes[place]].store) {
            report.digest = mix(report.digest, &event);
            if let Some(claims) = &mut self.claims {
                let (us, them) = (&all[self.nodes[place]], &all[self.nodes[1 - place]]);
                let in_sync = us.store.in_sync(end.peer());
                let checked = claims.check(place, &event, in_sync, us, them);
                let claimed =
                    checked.with_context(|| format!("between {:?}, side {side:?} reports {event:?}", self.nodes))?;
                report.claims += u64::from(claimed);
            }
            match event {
                PeerEvent::Closed(result) => over = Some(result),
                PeerEvent::Damaged { .. } => self.partial = true,
                PeerEvent::Conflict { key, .. } => bail!("a conflict of {key}, which has one writer"),
                _ => {}
            }
        }
        if end.session().output_finished() && unsent.is_empty() {
            self.link.shut(side);
        }
        let Some(result) = over else { return Ok(moved) };
        match result {
            Ok(totals) => {
                report.ended += 1;
                self.totals[place] = Some((totals, all[self.nodes[place]].store.in_sync(peer)));
            }
            // Everybody is honest: it may be the network, or a disk, and nobody's fault.
            Err(SyncError::Session(error)) if matches!(error.fault(), Fault::Network | Fault::Local) => {
                report.broken += 1;
            }
            // A remote that was cut off, or stood still, for longer than it is waited for.
            Err(SyncError::Store(_) | SyncError::GivenUp { .. }) => report.broken += 1,
            Err(error) => bail!("between {:?}: {error}", self.nodes),
        }
        if let Some(end) = self.ends[place].take() {
            self.link.send(side, &self.unsent[place]);
            end.close(&mut all[self.nodes[place]].store);
        }
        self.link.shut(side);
        Ok(true)
    }
}

/// What a Noise handshake leaves at both sides.
fn establish(rng: &mut StdRng) -> [Option<Established>; 2] {
    let mut keys = [[0; 32]; 2];
    let mut nonces = [[0; 24]; 2];
    keys.iter_mut().for_each(|key| rng.fill_bytes(key));
    nonces.iter_mut().for_each(|nonce| rng.fill_bytes(nonce));
    [0, 1].map(|side| {
        Some(Established {
            remote_public_key: PeerKey::new([1 - side as u8; 32]),
            handshake_hash: HandshakeHash::new([0; 64]),
            split: Split { tx: keys[side], rx: keys[1 - side] },
            nonce: nonces[side],
            remote_nonce: nonces[1 - side],
        })
    })
}

/// Reads what has come, as far as the session takes it.
fn read(end: &mut Connection, node: &mut Node, link: &mut Link, side: Side, now: Duration) -> bool {
    let mut moved = false;
    while end.session().recv_buf().is_some()
        && let Some(arrival) = link.poll(side)
    {
        moved = true;
        match arrival {
            Arrival::Bytes(bytes) => {
                if let Some(buf) = end.session().recv_buf() {
                    buf.extend_from_slice(&bytes);
                }
                end.handle_input(&mut node.store, now);
            }
            Arrival::End => {
                end.session().handle_eof();
                end.pump(&mut node.store, now);
            }
            Arrival::Cut => {
                end.session().abort(SessionError::Network("cut".into()));
                end.pump(&mut node.store, now);
            }
        }
    }
    moved
}

fn mix(digest: u64, event: &impl fmt::Debug) -> u64 {
    let mut digest = Digest(digest);
    // It takes everything.
    let _ = fmt::write(&mut digest, format_args!("{event:?}"));
    digest.0
}

struct Digest(u64);

impl fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = text.bytes().fold(self.0, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Ok(())
    }
}
