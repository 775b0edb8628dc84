//! The dials of a networker: when each is to try, on virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::networker::backoff::{Backoff, BackoffOptions, Outcome};
use crate::networker::ids::{ConnectionId, DialId, PeerKey};

/// What the task of a dial is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Connect now.
    Connect,
    /// Ask again then, or when it is woken.
    Wait(Option<Duration>),
    /// End.
    Stop,
}

#[derive(Debug)]
pub(crate) struct Dials {
    options: BackoffOptions,
    next: u64,
    dials: BTreeMap<DialId, Dial>,
    /// Those to be asked again.
    touched: BTreeSet<DialId>,
}

#[derive(Debug)]
struct Dial {
    /// The only peer that it is for.
    expected: Option<PeerKey>,
    /// Who was there the last time, or is expected.
    peer: Option<PeerKey>,
    backoff: Backoff,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting(Duration),
    Dialling,
    Connected(ConnectionId),
    Stopped,
}

impl Dials {
    pub(crate) fn new(options: BackoffOptions) -> Self {
        Self { options, next: 0, dials: BTreeMap::new(), touched: BTreeSet::new() }
    }

    /// Adds a dial, which is due at once.
    pub(crate) fn add(&mut self, expected: Option<PeerKey>, seed: u64, now: Duration) -> DialId {
        let id = DialId(self.next);
        self.next += 1;
        let backoff = Backoff::new(self.options.clone(), seed);
        self.dials.insert(id, Dial { expected, peer: expected, backoff, state: State::Waiting(now) });
        id
    }

    /// What a dial is to do now. One whose peer is connected, or dialled by another, waits.
    pub(crate) fn poll(&mut self, id: DialId, now: Duration, is_connected: impl Fn(&PeerKey) -> bool) -> Step {
        let Some(dial) = self.dials.get(&id) else { return Step::Stop };
        let at = match dial.state {
            State::Stopped => return Step::Stop,
            State::Dialling | State::Connected(_) => return Step::Wait(None),
            State::Waiting(at) => at,
        };
        if at > now {
            return Step::Wait(Some(at));
        }
        if let Some(peer) = dial.peer {
            let is_busy = |other: &Dial| matches!(other.state, State::Dialling | State::Connected(_));
            let mut others = self.dials.values().filter(|other| other.peer == Some(peer) && is_busy(other));
            if is_connected(&peer) || others.next().is_some() {
                return Step::Wait(None);
            }
        }
        self.set(id, State::Dialling);
        Step::Connect
    }

    /// A dial has its connection.
    pub(crate) fn connected(&mut self, id: DialId, connection: ConnectionId) {
        if self.dials.get(&id).is_some_and(|dial| dial.state == State::Dialling) {
            self.set(id, State::Connected(connection));
        }
    }

    /// A dial's connection has this remote. `false` if it is for another one.
    pub(crate) fn met(&mut self, id: DialId, peer: PeerKey) -> bool {
        let Some(dial) = self.dials.get_mut(&id) else { return true };
        dial.peer = dial.expected.or(Some(peer));
        dial.expected.is_none_or(|expected| expected == peer)
    }

    /// A dial came to nothing. Returns how long it waits.
    pub(crate) fn failed(&mut self, id: DialId, now: Duration) -> Option<Duration> {
        self.ended(id, Outcome::Failed, None, now)
    }

    /// A dial's connection is over. Returns how long it waits: `delay`, or as its outcome says.
    pub(crate) fn ended(
        &mut self,
        id: DialId,
        outcome: Outcome,
        delay: Option<Duration>,
        now: Duration,
    ) -> Option<Duration> {
        let dial = self.dials.get_mut(&id).filter(|dial| dial.state != State::Stopped)?;
        let delay = delay.unwrap_or_else(|| dial.backoff.after(outcome));
        self.set(id, State::Waiting(now.saturating_add(delay)));
        Some(delay)
    }

    /// The last connection to a peer is over: dials that waited for its end try again, in their time.
    pub(crate) fn peer_left(&mut self, peer: PeerKey, outcome: Outcome, now: Duration) {
        for (id, dial) in self.dials.iter_mut().filter(|(_, dial)| dial.peer == Some(peer)) {
            if matches!(dial.state, State::Waiting(at) if at <= now) {
                dial.state = State::Waiting(now.saturating_add(dial.backoff.after(outcome)));
            }
            self.touched.insert(*id);
        }
    }

    /// Stops a dial. Returns its connection, if it has one; nothing if the dial is over or stopped.
    pub(crate) fn stop(&mut self, id: DialId) -> Option<Option<ConnectionId>> {
        let state = self.dials.get(&id)?.state;
        self.set(id, State::Stopped);
        match state {
            State::Stopped => None,
            State::Connected(connection) => Some(Some(connection)),
            State::Waiting(_) | State::Dialling => Some(None),
        }
    }

    pub(crate) fn stop_all(&mut self) {
        for (id, dial) in &mut self.dials {
            dial.state = State::Stopped;
            self.touched.insert(*id);
        }
    }

    /// A dial's task ends.
    pub(crate) fn remove(&mut self, id: DialId) {
        self.dials.remove(&id);
        self.touched.remove(&id);
    }

    pub(crate) fn has(&self, id: DialId) -> bool {
        self.dials.contains_key(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.dials.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.dials.is_empty()
    }

    pub(crate) fn take_touched(&mut self) -> BTreeSet<DialId> {
        std::mem::take(&mut self.touched)
    }

    /// Changes a dial's state. Others for the same peer may have waited for that.
    fn set(&mut self, id: DialId, state: State) {
        let Some(dial) = self.dials.get_mut(&id) else { return };
        dial.state = state;
        let peer = dial.peer;
        self.touched.insert(id);
        if peer.is_some() && !matches!(state, State::Dialling | State::Connected(_)) {
            self.touched.extend(self.dials.iter().filter(|(_, dial)| dial.peer == peer).map(|(id, _)| *id));
        }
    }
}
