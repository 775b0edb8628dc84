//! The pump of one stream: bytes, time and wake-ups, between the stream, its session, and the stores of the multifeeds on it.

mod halves;
mod shares;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use futures_io::{AsyncRead, AsyncWrite};
use multifeed_core::log::log;
use multifeed_proto::{ApiMisuse, Command, Event, Message, Root, Scope, Session, SessionError, Token};

use crate::budget::Share;
use crate::clock::Clock;
use crate::options::PumpOptions;
use crate::pace::Pace;
use crate::runtime::Runtime;
use crate::shared::session_events::SyncEvent;
use crate::stream::hub::{HandleRequests, Join, StreamEvent, StreamShared, Subject};
use crate::stream::member::{self, Member};
use crate::stream::outflow::Outflow;
use crate::timer::Timer;

/// Turns in one poll before the executor's other tasks have theirs.
const TURNS: usize = 8;

/// A stream's task. It is ready once the session is over and its stream is closed.
///
/// Each turn gives every direction its share, in a fixed order: handles and commands in, at most one read, timers, events out with
/// credit, one burst of writes. A turn in which nothing moved left its waker with all that can move again: the stream's halves, the hub, the
/// links, and the timer.
pub(crate) struct Pump<T, R: Runtime> {
    stream: T,
    session: Session,
    /// What the stream's handles ask for comes from here, and its events for them go here.
    hub: Arc<StreamShared>,
    /// The stream is one multifeed's own: it ends with it, and its errors are the stream's.
    is_own: bool,
    /// The multifeeds on the stream, by their names, which ascend.
    members: Vec<Member>,
    wishes: HandleRequests,
    /// The stream's handles hear of channels that nobody here opened.
    pub(crate) tells_discovered: bool,
    /// The event that Noise's handshake is done, which each member gets first.
    connected: Option<Event>,
    remote_ended: bool,
    /// How the session ended.
    result: Option<Result<(), SessionError>>,
    clock: Clock,
    options: PumpOptions,
    /// Kept for its memory.
    commands: Vec<Command>,
    joins: Vec<Join>,
    /// Bytes to write.
    out: BytesMut,
    /// How many there were when the buffer was filled.
    filled: usize,
    read: Half,
    /// What was received and is not taken, of the budget of all sessions.
    share: Share,
    /// How fast a large message comes.
    pace: Pace,
    /// A large message waits until the store took what came before it.
    drains: bool,
    /// The number of the message that the share is for.
    granted: Option<u64>,
    write: Half,
    /// How many bytes have to be written until the remote has all that it was asked.
    asked: u64,
    /// How much may wait to be written.
    outflow: Outflow,
    /// Whether the stores know that the remote cannot answer, because it was not sent or is not read.
    held_up: bool,
    /// Something was written since the last flush.
    unflushed: bool,
    stage: Stage,
    /// When a session that is ending, or has ended, has waited long enough.
    patience: Duration,
    timer: Timer<R>,
    left: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    Open,
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    /// A handle closed it, its work was done, or its stream failed.
    Ending,
    /// The session reported its end; what is queued still goes out.
    Closed,
}

/// What a turn came to.
enum Turn {
    Moved,
    Still,
    Done,
}

impl<T: AsyncRead + AsyncWrite + Unpin, R: Runtime> Pump<T, R> {
    /// The pump of a stream that is one multifeed's own.
    pub(crate) fn own(
        stream: T,
        session: Session,
        member: Member,
        hub: Arc<StreamShared>,
        clock: Clock,
        options: PumpOptions,
    ) -> Self {
        let mut pump = Self::new(stream, session, hub, clock, options, member.link.options.source.as_deref());
        pump.is_own = true;
        pump.members.push(member);
        pump
    }

    /// The pump of a stream that multifeeds join by its handles.
    pub(crate) fn shared(
        stream: T,
        session: Session,
        hub: Arc<StreamShared>,
        clock: Clock,
        options: PumpOptions,
    ) -> Self {
        Self::new(stream, session, hub, clock, options, None)
    }

    fn new(
        stream: T,
        session: Session,
        hub: Arc<StreamShared>,
        clock: Clock,
        options: PumpOptions,
        source: Option<&str>,
    ) -> Self {
        let share = options.receive_budget.share(source);
        let outflow = Outflow::new(&options, source);
        Self {
            outflow,
            stream,
            session,
            hub,
            is_own: false,
            members: Vec::new(),
            wishes: HandleRequests { is_held: true, closing: false },
            tells_discovered: false,
            connected: None,
            remote_ended: false,
            result: None,
            clock,
            options,
            commands: Vec::new(),
            joins: Vec::new(),
            out: BytesMut::new(),
            filled: 0,
            read: Half::Open,
            share,
            pace: Pace::default(),
            drains: false,
            granted: None,
            write: Half::Open,
            asked: 0,
            held_up: false,
            unflushed: false,
            stage: Stage::Running,
            patience: Duration::MAX,
            timer: Timer::default(),
            left: false,
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Turn {
        let now = self.clock.now();
        let was_attentive = self.is_attentive();
        let mut moved = self.poll_handles(cx, now);
        moved |= self.apply_orders(cx, now);
        // Before the timers: what came in time counts, however late it is looked at.
        moved |= self.poll_read(cx, now);
        moved |= self.run_timers(cx, now);
        moved |= self.pass_events(cx, now);
        moved |= self.poll_write(cx, now);
        // The links have to know.
        moved |= self.is_attentive() != was_attentive;
        self.note_held_up();
        if self.is_done(now) {
            self.leave();
            return Turn::Done;
        }
        if moved { Turn::Moved } else { Turn::Still }
    }

    /// What the stream's handles want.
    fn poll_handles(&mut self, cx: &Context<'_>, now: Duration) -> bool {
        let Self { hub, session, joins, commands, .. } = self;
        self.wishes = hub.wishes(cx, session, joins, commands);
        let moved = !(joins.is_empty() && commands.is_empty());
        // Multifeeds that joined before the remote was let in are known when the first root key is opened.
        let lets_in = |command: &Command| matches!(command, Command::Accept | Command::Admit);
        let let_in = commands.iter().position(lets_in).map(|at| commands.remove(at));
        // The handle looked at what can be looked at there. What it asks of a stream that waits for no such word means nothing.
        for command in commands.drain(..) {
            let _ = session.apply(command);
        }
        for join in std::mem::take(&mut self.joins) {
            self.join(join);
        }
        let_in.into_iter().for_each(|command| _ = self.session.apply(command));
        if self.wishes.closing && self.stage == Stage::Running {
            self.end(None, now);
            return true;
        }
        moved
    }

    fn join(&mut self, join: Join) {
        // The same key may be a multifeed's and a feed's, with one channel between them.
        let key = match &join.subject {
            Subject::Multifeed(config) => config.key,
            Subject::Feed(key) => *key,
        };
        let is_there = |member: &Member| member.is_synced() && member.key == key;
        if self.stage != Stage::Running || self.remote_ended {
            return join.refuse(self.result.clone().and_then(Result::err));
        }
        if self.members.iter().any(is_there) {
            let text = match &join.subject {
                Subject::Multifeed(_) => "a multifeed of this root key is synced over the stream already",
                Subject::Feed(_) => "a feed of this key is synced over the stream already",
            };
            return join.refuse(Some(SessionError::Local(text.into())));
        }
        let mut member = Member::new(join.link, key);
        self.connected.iter().for_each(|event| member.push(event.clone()));
        if let Subject::Multifeed(config) = join.subject {
            call(&mut self.session, |session| session.open_root(member.root, config));
        }
        // Names were given in order, but may come in another.
        let at = self.members.partition_point(|other| other.root < member.root);
        self.members.insert(at, member);
    }

    /// Applies the stores' commands, and their wishes to end.
    fn apply_orders(&mut self, cx: &Context<'_>, now: Duration) -> bool {
        let mut moved = false;
        let attentive = self.is_attentive();
        let mut commands = std::mem::take(&mut self.commands);
        for at in 0..self.members.len() {
            let Some(member) = self.members.get_mut(at) else { break };
            member.orders = member.link.orders(cx, attentive, &mut commands);
            let orders = member.orders;
            let asks = commands.iter().any(is_asking);
            let mut end = None;
            if !member.is_synced() {
                commands.clear();
            }
            for command in commands.drain(..) {
                moved = true;
                member.granted = member.granted.saturating_sub_unsigned(command.size() as u64);
                member.has_surplus |= command.size() > self.outflow.own();
                match command {
                    Command::Finish => end = end.or(Some(Ok(()))),
                    Command::Abort(error) => end = end.or(Some(Err(error))),
                    command => call(&mut self.session, |session| session.apply(command)),
                }
            }
            if asks {
                self.asked = self.session.totals().bytes_out + self.session.unsent() as u64;
            }
            if orders.abandoned {
                end = Some(Err(SessionError::Local("the multifeed is closed".into())));
            } else if orders.cancelled && self.stage == Stage::Running {
                end = end.or(Some(Ok(())));
            }
            if let Some(result) = end.filter(|_| member.is_synced()) {
                moved |= self.part(at, result, now);
            }
        }
        self.commands = commands;
        let is_empty = !self.members.iter().any(Member::is_synced);
        if is_empty && !self.is_own && self.stage == Stage::Running && (self.remote_ended || !self.wishes.is_held) {
            self.end(None, now);
            moved = true;
        }
        if is_empty && !self.is_own && self.stage == Stage::Ending && self.is_cut() {
            // No store is left that could say how it ended.
            self.session.abort(SessionError::Network("the remote takes no more bytes".into()));
            moved = true;
        }
        moved
    }

    /// Nothing comes and goes any more.
    fn is_cut(&self) -> bool {
        self.read == Half::Over && self.write == Half::Over
    }

    /// Reports to the stores from when to when the remote's silence is our own. That is while what it was asked was not written yet, or another
    /// store on the stream has no room for what comes. It is also while the stream waits for its share of the receive budget.
    fn note_held_up(&mut self) {
        let written = self.session.totals().bytes_out - self.out.len() as u64;
        let is_stuck = self.is_shared() && (self.drains || !self.has_room());
        let held_up = written < self.asked || is_stuck || self.share.waits();
        if std::mem::replace(&mut self.held_up, held_up) != held_up {
            self.members.iter().for_each(|member| member.link.hold_up(held_up, self.clock));
        }
    }

    /// A multifeed is through. Its own stream ends with it; one that others may use goes on without it.
    fn part(&mut self, at: usize, result: Result<(), SessionError>, now: Duration) -> bool {
        if self.is_own {
            let was_running = self.stage == Stage::Running;
            self.end(result.err(), now);
            return was_running;
        }
        let Some(member) = self.members.get_mut(at) else { return false };
        self.session.leave_root(member.root, Token::all(member.root));
        member.end(result, member::Stage::Left);
        true
    }

    /// Ends the session, with an error or without.
    fn end(&mut self, error: Option<SessionError>, now: Duration) {
        if self.stage == Stage::Running {
            self.stage = Stage::Ending;
            self.patience = now.saturating_add(self.options.linger);
        }
        match error {
            Some(error) => self.session.abort(error),
            None => self.session.finish(),
        }
    }

    fn run_timers(&mut self, cx: &mut Context<'_>, now: Duration) -> bool {
        let mut moved = false;
        if self.session.poll_timeout().is_some_and(|due| due <= now) {
            self.session.handle_timeout(now);
            moved = true;
        }
        if self.stage == Stage::Ending && self.write == Half::Over && !self.has_room() {
            // The store is behind: what the remote sent may hold its end.
            self.patience = now.saturating_add(self.options.linger);
        }
        if self.stage == Stage::Ending && self.patience <= now {
            // The remote takes no bytes, or does not end its half, or no store says how it ended: all of them had their time.
            self.write = Half::Over;
            if std::mem::replace(&mut self.read, Half::Over) == Half::Open {
                self.session.handle_eof();
            }
            self.session.abort(SessionError::Network("the remote takes no more bytes".into()));
            moved = true;
        }
        moved |= self.part_from_the_slowest(now);
        let rated = self.rate(now);
        moved |= rated.is_err();
        let behind = self.members.iter().filter_map(|member| member.full_since).min();
        let behind = behind.map(|since| since.saturating_add(self.options.backlog_time));
        let due = match (self.session.poll_timeout(), self.stage) {
            (due, Stage::Running) => {
                let idle = self.outflow.idle_at(now);
                due.into_iter().chain(behind).chain(rated.ok().flatten()).chain(idle).min()
            }
            (Some(due), Stage::Ending) => Some(due.min(self.patience)),
            _ => Some(self.patience),
        };
        self.timer.poll(cx, due, now) || moved
    }

    /// A store that holds up others for too long is taken off their stream.
    fn part_from_the_slowest(&mut self, now: Duration) -> bool {
        let mut moved = false;
        let shares = self.is_shared();
        // A large message waits for those that have more than their part of the session's own bytes: without them the sum is small enough.
        let part = self.options.receive_bytes / self.synced().count().max(1);
        for at in 0..self.members.len() {
            let Some(member) = self.members.get_mut(at) else { break };
            let is_slow = !member.has_room(shares, &self.options) || (self.drains && member.pinned() > part);
            if !is_slow || !shares {
                member.full_since = None;
                continue;
            }
            let since = *member.full_since.get_or_insert(now);
            let waited = now.saturating_sub(since);
            if waited >= self.options.backlog_time {
                member.full_since = None;
                moved |= self.part(at, Err(SessionError::Behind { waited }), now);
            }
        }
        moved
    }

    /// Whether it has to know when a store took something.
    fn is_attentive(&self) -> bool {
        self.drains || self.share.held() > 0 || self.share.waits()
    }

    /// The multifeeds that are on the stream now.
    fn synced(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.is_synced())
    }

    /// Whether more than one multifeed is on the stream now.
    fn is_shared(&self) -> bool {
        self.synced().nth(1).is_some()
    }

    /// Whether every multifeed can be given an event.
    fn has_room(&self) -> bool {
        let shares = self.is_shared();
        self.members.iter().all(|member| member.has_room(shares, &self.options))
    }

    /// Passes the session's events to the stores, as many as all of them have room for, and credit.
    fn pass_events(&mut self, cx: &Context<'_>, now: Duration) -> bool {
        let mut moved = false;
        if self.session.is_proven() {
            for member in self.members.iter_mut().filter(|member| !member.told_proven) {
                member.told_proven = true;
                member.link.sync.push(SyncEvent::Proven);
            }
        }
        while self.stage != Stage::Closed && self.has_room() {
            let Some(event) = self.session.poll_event() else {
                break;
            };
            moved = true;
            self.route(event, now);
        }
        moved |= self.grant(cx, now);
        if let Some(per_second) = self.outflow.new_rate() {
            let unwritten = (self.out.len() + self.session.unsent()) as u64;
            self.synced().for_each(|member| member.link.set_send_rate(per_second, unwritten));
        }
        let totals = self.session.totals();
        self.members.retain(|member| {
            let gone = member.stage == member::Stage::Left && member.is_delivered();
            if gone {
                member.link.leave(totals);
            }
            !gone
        });
        moved
    }

    /// Gives an event to the multifeed that it is for, or to all.
    fn route(&mut self, event: Event, now: Duration) {
        match event {
            Event::Connected { remote_public_key, handshake_hash } => {
                self.connected = Some(event.clone());
                self.hub.push(StreamEvent::Connected { remote_public_key, handshake_hash });
                self.members.iter_mut().for_each(|member| member.push(event.clone()));
            }
            Event::Discovered { discovery_key } => {
                // Of a multifeed's feed that waits for its turn; or of nobody's here.
                self.members.iter_mut().for_each(|member| member.push(Event::Discovered { discovery_key }));
                if self.tells_discovered {
                    self.hub.push(StreamEvent::Discovered { discovery_key });
                }
            }
            Event::RemoteEnded => {
                self.remote_ended = true;
                self.members.iter_mut().for_each(|member| member.push(Event::RemoteEnded));
            }
            Event::Closed(result) => {
                self.stage = Stage::Closed;
                self.patience = now.saturating_add(self.options.linger);
                if result.as_ref().is_err_and(|error| error.fault() == multifeed_proto::Fault::Network) {
                    // Nobody is there to wait for.
                    self.read = Half::Over;
                }
                for member in &mut self.members {
                    member.end(result.clone(), member::Stage::Over);
                }
                self.result = Some(result);
            }
            Event::RootClosed { root, error } => {
                let is_over = self.session.root_is_over(root);
                let Some(at) = self.find(root) else { return };
                match error {
                    Some(error) => _ = self.part(at, Err(error), now),
                    // To this multifeed it is as if the remote had ended the stream.
                    None if is_over => self.give(root, Event::RemoteEnded),
                    None => self.give(root, Event::RootClosed { root, error: None }),
                }
            }
            Event::Ready { root, .. } | Event::Manifest { root, .. } | Event::Replicate { root, .. } => {
                self.give(root, event);
            }
            Event::Opened { token }
            | Event::ChannelClosed { token }
            | Event::Partial { token, .. }
            | Event::LateHave { token, .. }
            | Event::Message { token, .. } => {
                self.give(token.root(), event);
            }
            Event::Extension { scope: Scope::Channel(token), .. } => self.give(token.root(), event),
            Event::Extension { scope: Scope::Root(root), .. } => self.give(root, event),
            Event::Extension { ref name, ref body, .. } if self.hub.message(name, body) => {}
            // Anything else on the stream itself is nobody's if the stream is shared.
            event if self.is_own => self.members.iter_mut().for_each(|member| member.push(event.clone())),
            _ => {}
        }
    }

    fn give(&mut self, root: Root, event: Event) {
        if let Some(member) = self.find(root).and_then(|at| self.members.get_mut(at)) {
            member.push(event);
        }
    }

    fn find(&self, root: Root) -> Option<usize> {
        self.members.binary_search_by_key(&root, |member| member.root).ok()
    }

    fn is_done(&self, now: Duration) -> bool {
        self.stage == Stage::Closed
            && self.members.iter().all(|member| member.orders.abandoned || member.is_delivered())
            && (self.is_cut() || self.patience <= now)
    }
}

impl<T, R: Runtime> Pump<T, R> {
    fn leave(&mut self) {
        if !std::mem::replace(&mut self.left, true) {
            let totals = self.session.totals();
            log!(DEBUG, "stream", "over", bytes_in = ?totals.bytes_in, bytes_out = ?totals.bytes_out,
                messages_in = ?totals.messages_in, messages_out = ?totals.messages_out, result = ?self.result);
            self.members.iter().for_each(|member| member.link.leave(totals));
            let dropped = || Err(SessionError::Local("the stream's task was dropped by its runtime".into()));
            self.hub.end(self.result.take().unwrap_or_else(dropped), totals);
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin, R: Runtime> Future for Pump<T, R> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let pump = self.get_mut();
        for _ in 0..TURNS {
            match pump.turn(cx) {
                Turn::Moved => {}
                Turn::Still => return Poll::Pending,
                Turn::Done => return Poll::Ready(()),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<T, R: Runtime> Drop for Pump<T, R> {
    fn drop(&mut self) {
        // A runtime that shuts down drops its tasks: the stores have to know.
        self.leave();
    }
}

impl<T, R: Runtime> Unpin for Pump<T, R> {}

/// Whether a command asks the remote for something, so that its answer is waited for.
fn is_asking(command: &Command) -> bool {
    match command {
        Command::Send { message, .. } => matches!(message, Message::Request(_) | Message::Want { .. }),
        Command::Open { .. } => true,
        _ => false,
    }
}

/// Makes a call that must fit those before it: if it does not, the stream ends with that.
fn call(session: &mut Session, call: impl FnOnce(&mut Session) -> Result<(), ApiMisuse>) {
    if let Err(misuse) = call(session) {
        session.abort(misuse.into());
    }
}
