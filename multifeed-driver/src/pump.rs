//! The pump of one stream: bytes, time and wake-ups, between the stream, its session, and the store.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures_io::{AsyncRead, AsyncWrite};
use multifeed_proto::{Command, Event, Session, SessionError};

use crate::clock::Clock;
use crate::link::{Link, Orders, pinned_bytes};
use crate::options::PumpOptions;
use crate::runtime::Runtime;

/// Turns in one poll before the executor's other tasks have theirs.
const TURNS: usize = 8;

/// The most that is read while the store has no room.
const SIGN_OF_LIFE_BYTES: usize = 1024;

/// A stream's task. It is ready once the session is over and its stream is closed.
///
/// Each turn gives every direction its share, in a fixed order: commands in, at most one read, timers, events out with
/// credit, one burst of writes. A turn in which nothing moved left its waker with all that can move again: the stream's halves, the link,
/// and the timer.
pub(crate) struct Pump<T, R: Runtime> {
    stream: T,
    session: Session,
    link: Arc<Link>,
    clock: Clock,
    options: PumpOptions,
    /// Commands taken from the link; kept for its memory.
    commands: Vec<Command>,
    /// Events on their way to the link; kept for its memory.
    events: Vec<Event>,
    /// Bytes to write.
    out: BytesMut,
    /// Bytes of commands that the store may still send on what it was granted; negative after a large one.
    granted: i64,
    read: Half,
    write: Half,
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
    /// It was told to end, or its stream failed.
    Ending,
    /// The session told its end; what is queued still goes out.
    Closed,
}

/// What a turn came to.
enum Turn {
    Moved,
    Still,
    Done,
}

impl<T: AsyncRead + AsyncWrite + Unpin, R: Runtime> Pump<T, R> {
    pub(crate) fn new(stream: T, session: Session, link: Arc<Link>, clock: Clock, options: PumpOptions) -> Self {
        Self {
            stream,
            session,
            link,
            clock,
            commands: Vec::new(),
            events: Vec::new(),
            out: BytesMut::new(),
            granted: 0,
            read: Half::Open,
            write: Half::Open,
            unflushed: false,
            stage: Stage::Running,
            patience: Duration::MAX,
            timer: Timer::default(),
            left: false,
            options,
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Turn {
        let now = self.clock.now();
        let orders = self.link.orders(cx, &mut self.commands);
        let mut moved = self.obey(orders, now);
        // Before the timers: what came in time counts, however late it is looked at.
        moved |= self.poll_read(cx, orders, now);
        moved |= self.run_timers(cx, now);
        moved |= self.pass_events(orders, now);
        moved |= self.poll_write(cx, now);
        if self.is_done(now) {
            self.leave();
            return Turn::Done;
        }
        if moved { Turn::Moved } else { Turn::Still }
    }

    /// Applies the store's commands, and the wish to end.
    fn obey(&mut self, orders: Orders, now: Duration) -> bool {
        let moved = !self.commands.is_empty();
        for command in self.commands.drain(..) {
            self.granted = self.granted.saturating_sub_unsigned(command.size() as u64);
            if matches!(command, Command::Finish | Command::Abort(_)) && self.stage == Stage::Running {
                self.stage = Stage::Ending;
                self.patience = now.saturating_add(self.options.linger);
            }
            self.session.apply(command);
        }
        if orders.abandoned && self.stage != Stage::Closed {
            self.end(Some(SessionError::Local("the multifeed is closed".into())), now);
        } else if orders.cancelled && self.stage == Stage::Running {
            self.end(None, now);
            return true;
        }
        moved
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
        if self.stage == Stage::Ending && self.patience <= now && self.read == Half::Open {
            // The remote takes no bytes, and does not end its half either: it had its time.
            self.write = Half::Over;
            self.read = Half::Over;
            self.session.handle_eof();
            self.session.abort(SessionError::Network("the remote takes no more bytes".into()));
            moved = true;
        }
        let due = match (self.session.poll_timeout(), self.stage) {
            (due, Stage::Running) => due,
            (Some(due), Stage::Ending) => Some(due.min(self.patience)),
            _ => Some(self.patience),
        };
        self.timer.poll(cx, due, now) || moved
    }

    /// At most one read. While the store has no room for events the stream is not read, except for a few bytes when the
    /// remote's silence is about to end the session: a store that is slow must not make a remote look dead.
    fn poll_read(&mut self, cx: &mut Context<'_>, orders: Orders, now: Duration) -> bool {
        if self.read == Half::Over {
            return false;
        }
        if self.stage == Stage::Closed {
            return self.poll_discard(cx);
        }
        let is_full = orders.events == 0 || orders.event_bytes == 0;
        if is_full && self.session.poll_timeout().is_none_or(|due| due > now) {
            return false;
        }
        let most = if is_full { SIGN_OF_LIFE_BYTES } else { self.options.read_bytes };
        let Some(buf) = self.session.recv_buf() else {
            return false;
        };
        let start = buf.len();
        // The session made room by what earlier reads brought. It has to be zeroed for each try, so not all of it is used.
        let room = (buf.capacity() - start).min(most).max(1);
        buf.resize(start + room, 0);
        let Some(space) = buf.get_mut(start..) else {
            return false;
        };
        let read = Pin::new(&mut self.stream).poll_read(cx, space);
        let count = match &read {
            Poll::Ready(Ok(count)) => (*count).min(room),
            _ => 0,
        };
        buf.truncate(start + count);
        match read {
            Poll::Pending => return false,
            Poll::Ready(Ok(0)) => {
                self.read = Half::Over;
                self.session.handle_eof();
            }
            Poll::Ready(Ok(_)) => {
                // Its error is sticky, and comes as the session's last event.
                let _ = self.session.handle_input(now);
            }
            Poll::Ready(Err(error)) if is_retry(&error) => {}
            Poll::Ready(Err(error)) => {
                self.read = Half::Over;
                self.end(Some(SessionError::Network(error.to_string())), now);
            }
        }
        true
    }

    /// After the session's end: reads on until the remote ended its half, so that closing the stream cannot destroy what is
    /// still under way to the remote.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> bool {
        let mut scratch = [0; 4096];
        match Pin::new(&mut self.stream).poll_read(cx, &mut scratch) {
            Poll::Pending => return false,
            Poll::Ready(Ok(count)) if count > 0 => {}
            Poll::Ready(Err(error)) if is_retry(&error) => {}
            Poll::Ready(_) => self.read = Half::Over,
        }
        true
    }

    /// Passes the session's events to the store, as many as it has room for, and credit.
    fn pass_events(&mut self, orders: Orders, now: Duration) -> bool {
        let mut bytes = 0;
        let room =
            |events: usize, bytes: usize| (events < orders.events && bytes < orders.event_bytes) || orders.abandoned;
        while self.stage != Stage::Closed && room(self.events.len(), bytes) {
            let Some(event) = self.session.poll_event() else {
                break;
            };
            bytes += pinned_bytes(&event);
            if let Event::Closed(result) = &event {
                self.stage = Stage::Closed;
                self.patience = now.saturating_add(self.options.linger);
                if result.as_ref().is_err_and(|error| error.fault() == multifeed_proto::Fault::Network) {
                    // Nobody is there to wait for.
                    self.read = Half::Over;
                }
            }
            self.events.push(event);
        }
        let credit = self.credit();
        let moved = !self.events.is_empty();
        if orders.abandoned {
            self.events.clear();
        } else if moved || credit > 0 {
            self.link.deliver(&mut self.events, bytes, credit);
        }
        moved
    }

    /// The credit to give the store now: what is free of the session's output and the buffer, less what it still has.
    fn credit(&mut self) -> usize {
        if self.stage == Stage::Closed {
            return 0;
        }
        let window = self.options.credit_bytes.max(1);
        let free = window.min(self.session.send_credit()).saturating_sub(self.out.len());
        let free = i64::try_from(free).unwrap_or(i64::MAX);
        let credit = free.saturating_sub(self.granted);
        let quarter = i64::try_from(window / 4).unwrap_or(i64::MAX);
        // Not for every few bytes: each grant wakes the store's thread.
        if free > 0 && credit > 0 && (self.granted <= 0 || credit >= quarter) {
            self.granted = self.granted.saturating_add(credit);
            return usize::try_from(credit).unwrap_or(usize::MAX);
        }
        0
    }

    /// Writes what there is, one buffer at least, then flushes; ends the half after the last byte.
    fn poll_write(&mut self, cx: &mut Context<'_>, now: Duration) -> bool {
        if self.write == Half::Over {
            // The session's output has nowhere to go, but taking it is what lets the session end.
            self.out.clear();
            while self.session.poll_output(&mut self.out) {
                self.out.clear();
            }
            return false;
        }
        let mut moved = false;
        let mut burst = 0;
        while burst < self.options.write_bytes.max(1) {
            // Only into an empty buffer: then the session hands over its own.
            if self.out.is_empty() && !self.session.poll_output(&mut self.out) {
                break;
            }
            match Pin::new(&mut self.stream).poll_write(cx, &self.out) {
                Poll::Pending => break,
                Poll::Ready(Ok(count)) if count > 0 => {
                    self.out.advance(count.min(self.out.len()));
                    burst += count;
                    self.unflushed = true;
                    if self.stage != Stage::Running {
                        self.patience = now.saturating_add(self.options.linger);
                    }
                    moved = true;
                }
                Poll::Ready(Err(error)) if is_retry(&error) => moved = true,
                Poll::Ready(result) => {
                    let error = result.err().unwrap_or_else(|| io::ErrorKind::WriteZero.into());
                    self.write_failed(&error, now);
                    return true;
                }
            }
        }
        if !self.out.is_empty() {
            return moved;
        }
        if self.unflushed {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Pending => return moved,
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => {
                    self.write_failed(&error, now);
                    return true;
                }
            }
        }
        if self.session.output_finished() {
            // Its errors change nothing: every byte was taken.
            if Pin::new(&mut self.stream).poll_close(cx).is_ready() {
                self.write = Half::Over;
                self.patience = now.saturating_add(self.options.farewell);
                return true;
            }
        }
        moved
    }

    /// The remote takes no more bytes. What it sent before may still be here to read, and may hold a clean end.
    fn write_failed(&mut self, error: &io::Error, now: Duration) {
        self.write = Half::Over;
        self.out.clear();
        if self.read == Half::Over {
            self.end(Some(SessionError::Network(error.to_string())), now);
        } else if self.stage == Stage::Running {
            self.stage = Stage::Ending;
            self.patience = now.saturating_add(self.options.linger);
        }
    }

    fn is_done(&self, now: Duration) -> bool {
        self.stage == Stage::Closed
            && self.events.is_empty()
            && ((self.read == Half::Over && self.write == Half::Over) || self.patience <= now)
    }
}

impl<T, R: Runtime> Pump<T, R> {
    fn leave(&mut self) {
        if !std::mem::replace(&mut self.left, true) {
            self.link.leave(self.session.totals());
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
        // A runtime that shuts down drops its tasks: the store has to know.
        self.leave();
    }
}

impl<T, R: Runtime> Unpin for Pump<T, R> {}

fn is_retry(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Interrupted
}

/// One timer, armed anew only when it has to fire earlier than it would: deadlines move on with every byte.
struct Timer<R: Runtime> {
    armed: Option<(Duration, Pin<Box<R::Sleep>>)>,
}

impl<R: Runtime> Default for Timer<R> {
    fn default() -> Self {
        Self { armed: None }
    }
}

impl<R: Runtime> Timer<R> {
    /// True where the time has come.
    fn poll(&mut self, cx: &mut Context<'_>, due: Option<Duration>, now: Duration) -> bool {
        let Some(due) = due else {
            self.armed = None;
            return false;
        };
        if due <= now {
            return true;
        }
        if self.armed.as_ref().is_none_or(|(at, _)| *at > due) {
            self.armed = Some((due, Box::pin(R::sleep(due - now))));
        }
        let fired = self.armed.as_mut().is_some_and(|(_, sleep)| sleep.as_mut().poll(cx).is_ready());
        if fired {
            self.armed = None;
        }
        fired
    }
}
