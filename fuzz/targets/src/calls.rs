//! Calls of the API in any order, on two sessions joined by a pipe that changes nothing, against a model of what they must report.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use bytes::BytesMut;
use multifeed_proto::{
    Command, DEFAULT_ROOT_KEY, Event, Fault, FeedKey, Have, Message, Origin, Phase, Role, Root, Session, SessionError,
    Token,
};

use crate::sides::{Told, Watch, key, session};

#[derive(Debug, Arbitrary)]
struct Input {
    events: [u8; 2],
    calls: Vec<(bool, Call)>,
}

#[derive(Debug, Arbitrary)]
enum Call {
    Told(Told),
    /// Moves so many bytes of what is on its way.
    Read(u8),
    ReadAll,
    Poll(u8),
    Output,
    Seconds(u8),
    Finish,
    /// Until nothing moves any more.
    Settle,
}

/// A session, and the model of what it heard.
struct Side {
    session: Session,
    watch: Watch,
    inbox: BytesMut,
    offers: BTreeMap<Root, Vec<BTreeSet<FeedKey>>>,
    offered: BTreeSet<(Root, FeedKey)>,
    requested: BTreeSet<(Root, FeedKey)>,
    /// Keys of channels that were opened here at some time, those of root keys too: one that is over for the remote may be its feed's.
    opened: Vec<FeedKey>,
    keys: Vec<(Token, FeedKey)>,
    /// Manifests that came.
    manifests: BTreeMap<Root, usize>,
    /// A root key's channel was closed: its lists may end.
    closes: bool,
    /// The other side left the first multifeed, perhaps before it said that it has it.
    deserted: bool,
    sent: u64,
    received: Option<u64>,
    finished: bool,
    closed: bool,
    shut: bool,
    roots: BTreeSet<Root>,
}

impl Side {
    fn new(role: Role, events: u8) -> Self {
        Self {
            session: session(role, usize::from(events).max(1)),
            watch: Watch::default(),
            inbox: BytesMut::new(),
            offers: BTreeMap::new(),
            offered: BTreeSet::new(),
            requested: BTreeSet::new(),
            opened: vec![DEFAULT_ROOT_KEY],
            keys: Vec::new(),
            manifests: BTreeMap::new(),
            closes: false,
            deserted: false,
            sent: 0,
            received: None,
            finished: false,
            closed: false,
            shut: false,
            roots: BTreeSet::new(),
        }
    }

    fn tell(&mut self, told: &Told) {
        if self.closed || self.finished {
            let _ = self.session.apply(told.command());
            return;
        }
        let mut command = told.command();
        self.watch.told(&command);
        match &mut command {
            // What is offered to a multifeed that is not there yet is nobody's.
            Command::Offer { root, keys, .. } if *root == Root::FIRST || self.roots.contains(root) => {
                self.offers.entry(*root).or_default().push(keys.iter().copied().collect());
                self.offered.extend(keys.iter().map(|key| (*root, *key)));
            }
            Command::Request { root, keys } => self.requested.extend(keys.iter().map(|key| (*root, *key))),
            Command::OpenRoot { root, config } => {
                self.roots.insert(*root);
                self.opened.push(config.key);
            }
            Command::CloseRoot { .. } => self.closes = true,
            Command::LeaveRoot { feeds, .. } => {
                self.closes = true;
                self.keys.retain(|(token, _)| !feeds.contains(token));
            }
            Command::Open { token, key } => {
                self.opened.push(*key);
                // Also one that is there already: it may be free again, and the event that says so not polled.
                self.keys.push((*token, *key));
            }
            Command::Close { token } => self.keys.retain(|(known, _)| known != token),
            // Numbered, so that their order can be checked.
            Command::Send { message: Message::Have(Have { start, .. }), .. } => {
                self.sent += 1;
                *start = self.sent;
            }
            Command::Send { message: Message::Request(request), .. } => {
                request.index >>= 11;
                request.nodes >>= 11;
            }
            Command::Send { message: Message::Extension { id, .. }, .. } => *id >>= 8,
            _ => {}
        }
        // It may be a mistake, which does nothing.
        let _ = self.session.apply(command);
    }

    fn poll(&mut self, remote: &Model) -> bool {
        let Some(event) = self.session.poll_event() else { return false };
        self.watch.event(&event);
        match event {
            Event::Manifest { root, keys, .. } => {
                let count = self.manifests.entry(root).or_default();
                let offer =
                    remote.offers.get(&root).and_then(|offers| offers.get(*count)).expect("an offer of the remote's");
                assert!(keys.iter().eq(offer), "{keys:?} is not {offer:?}");
                *count += 1;
            }
            Event::Replicate { root, keys, origin: Origin::Local } => {
                let agreed =
                    |key: &FeedKey| self.offered.contains(&(root, *key)) && remote.requested.contains(&(root, *key));
                assert!(keys.iter().all(agreed));
            }
            Event::Replicate { root, keys, origin: Origin::Remote } => {
                let agreed =
                    |key: &FeedKey| self.requested.contains(&(root, *key)) && remote.offered.contains(&(root, *key));
                assert!(keys.iter().all(agreed));
            }
            Event::Opened { token } => {
                let mut ours = self.keys.iter().filter(|(known, _)| *known == token);
                assert!(ours.any(|(_, key)| remote.opened.contains(key)), "the remote never opened what {token:?} is");
            }
            Event::ChannelClosed { token } => {
                if let Some(at) = self.keys.iter().position(|(known, _)| *known == token) {
                    self.keys.remove(at);
                }
            }
            Event::Message { message: Message::Have(have), .. } => {
                assert!(self.received < Some(have.start) && have.start <= remote.sent, "out of order");
                self.received = Some(have.start);
            }
            Event::Closed(result) => {
                self.closed = true;
                match result {
                    Ok(()) => assert!(self.finished),
                    // Nobody broke a rule; time may be over, and the other side may have gone.
                    Err(error) => assert!(self.is_no_fault(&error), "{error}"),
                }
            }
            _ => {}
        }
        true
    }

    fn read(&mut self, size: usize, now: Duration) -> bool {
        let size = size.min(self.inbox.len());
        if size == 0 {
            return false;
        }
        let Some(buf) = self.session.recv_buf() else { return false };
        buf.extend_from_slice(&self.inbox.split_to(size));
        if let Err(error) = self.session.handle_input(now) {
            assert!(self.is_no_fault(&error), "{error}");
        }
        true
    }

    /// Nobody broke a rule.
    fn is_no_fault(&self, error: &SessionError) -> bool {
        let mismatch = matches!(error, SessionError::RootKeyMismatch { .. });
        error.fault() == Fault::Network || (mismatch && self.deserted)
    }

    fn model(&self) -> Model {
        Model {
            offers: self.offers.clone(),
            offered: self.offered.clone(),
            requested: self.requested.clone(),
            opened: self.opened.clone(),
            sent: self.sent,
        }
    }
}

/// What the other side heard.
struct Model {
    offers: BTreeMap<Root, Vec<BTreeSet<FeedKey>>>,
    offered: BTreeSet<(Root, FeedKey)>,
    requested: BTreeSet<(Root, FeedKey)>,
    opened: Vec<FeedKey>,
    sent: u64,
}

/// Calls in any order.
pub fn calls(data: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let mut sides = [Side::new(Role::Initiator, input.events[0]), Side::new(Role::Responder, input.events[1])];
    let mut now = Duration::ZERO;
    let mut timed_out = false;
    for (first, call) in &input.calls {
        if !first {
            sides.swap(0, 1);
        }
        let [this, that] = &mut sides;
        match call {
            Call::Told(told) => {
                that.deserted |= matches!(told.command(), Command::LeaveRoot { root: Root::FIRST, .. });
                this.tell(told);
            }
            Call::Read(size) => drop(this.read((*size).into(), now)),
            Call::ReadAll => drop(this.read(usize::MAX, now)),
            Call::Poll(count) => drop((0..*count).all(|_| this.poll(&that.model()))),
            Call::Output => output(this, that),
            Call::Seconds(seconds) => {
                now += Duration::from_secs((*seconds).into());
                this.session.handle_timeout(now);
                timed_out = true;
            }
            Call::Finish => {
                this.finished |= !this.closed;
                this.session.finish();
            }
            Call::Settle => settle(this, that, now),
        }
        if !first {
            sides.swap(0, 1);
        }
    }
    let [a, b] = &mut sides;
    settle(a, b, now);
    // Without the other's Open an initiator waits for a moment.
    now += Duration::from_millis(100);
    a.session.handle_timeout(now);
    settle(a, b, now);
    let deserted = a.deserted || b.deserted;
    if !timed_out && !a.finished && !b.finished && !deserted {
        assert!(!a.closed && !b.closed);
        if !a.closes && !b.closes {
            for root in
                (0..4).map(Root).filter(|root| *root == Root::FIRST || a.roots.contains(root) && b.roots.contains(root))
            {
                for (from, to) in [(&*a, &*b), (&*b, &*a)] {
                    let sent = from.offers.get(&root).map_or(0, Vec::len);
                    assert_eq!(to.manifests.get(&root).copied().unwrap_or(0), sent, "every offer of {root:?} arrived");
                }
            }
        }
    }
    for side in [a, b] {
        side.finished |= !side.closed;
        side.session.finish();
        while side.session.poll_output(&mut BytesMut::new()) {}
        assert!(side.session.output_finished());
        let expected = SessionError::Disconnected(Phase::Ready).fault();
        assert_eq!(expected, Fault::Network);
        let mut last = None;
        while let Some(event) = side.session.poll_event() {
            last = Some(event);
        }
        assert!(side.closed != matches!(last, Some(Event::Closed(_))), "one Closed");
    }
    assert_ne!(key(0), key(7));
}

fn output(from: &mut Side, to: &mut Side) {
    from.session.poll_output(&mut to.inbox);
    if from.session.output_finished() {
        from.shut = true;
    }
}

/// Moves everything, until nothing moves.
fn settle(a: &mut Side, b: &mut Side, now: Duration) {
    for turn in 0.. {
        assert!(turn < 10_000, "it does not come to rest");
        let mut moved = false;
        for first in [true, false] {
            let (this, that) = if first { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
            let before = that.inbox.len();
            output(this, that);
            moved |= that.inbox.len() > before;
            moved |= this.read(usize::MAX, now);
            while this.poll(&that.model()) {
                moved = true;
            }
            if that.shut && this.inbox.is_empty() {
                this.session.handle_eof();
            }
        }
        if !moved {
            return;
        }
    }
}
