//! A stream that several multifeeds share, as the application sees it.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_io::{AsyncRead, AsyncWrite};
use multifeed_proto::{Command, Config, Role, Session, SessionError, Totals, Tracer};

use crate::clock::Clock;
use crate::options::PumpOptions;
use crate::randomness::system_rng;
use crate::runtime::Runtime;
use crate::stream::hub::{StreamEvent, StreamShared};
use crate::stream::pump::Pump;

/// A stream of hypercore-protocol that is there already, for multifeeds to join: JS's `new Protocol(…)`, that `replicate` is then
/// given. The adapters open one with their `open_stream`.
///
/// [`Multifeed::replicate_over`](crate::Multifeed::replicate_over) joins a multifeed, at any time, and gives its own
/// [`Replication`](crate::Replication): with its own events, and its own end. Their root keys distinguish them. One that leaves, fails, or whose
/// root key the remote does not have in time, ends by itself, and the others go on.
///
/// Clones are the same stream. It ends cleanly when its last handle is dropped and the last multifeed on it is through, or when the
/// remote ends it; by [`close`](Self::close) at once. A remote that speaks as npm's multifeed 6 does has one multifeed on a stream, and no
/// word for one that leaves: it stays until the stream ends.
///
/// **A feed that two multifeeds share** has one channel on a stream: the one that opens it first syncs it there.
///
/// **Nobody waits for the slowest** longer than [`PumpOptions::backlog_time`] says: what comes for a store that is behind is kept for it, up to
/// [`PumpOptions::backlog_events`] and [`PumpOptions::backlog_bytes`]. Then the stream is not read any more, and when that time has passed
/// it is taken off the stream, with [`SessionError::Behind`]. What an application does not take is bounded elsewhere, and stops nobody.
pub struct ProtocolStream {
    hub: Arc<StreamShared>,
}

/// How a stream is opened.
#[non_exhaustive]
pub struct StreamOptions {
    /// Its session's options: whether to [authenticate](Config::authenticate) the remote by its static key, whether to report what it
    /// [discovers](Config::discover) (not by default), our static key, timeouts and limits. It has no root key: multifeeds bring theirs.
    /// By default it may stand still ([`Config::stall_timeout`]): the code that opened it may have more to say later.
    pub session: Config,
    /// Its buffers. Those for events, of which each multifeed has its own, are as that multifeed's options say.
    pub pump: PumpOptions,
    /// Who is given each message, in and out.
    pub tracer: Option<Box<dyn Tracer>>,
}

impl ProtocolStream {
    /// Opens a stream, in the background, on this runtime. The two ends must have different roles. The adapters' `open_stream` is this,
    /// with their runtime and their streams.
    pub fn open_on<R: Runtime>(
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        role: Role,
        options: StreamOptions,
    ) -> Self {
        let hub = Arc::new(StreamShared::new(&options.pump));
        let stream = Self { hub: hub.clone() };
        hub.hold();
        let StreamOptions { mut session, pump, tracer } = options;
        session.root = None;
        // The multifeeds on it hear of them in any case.
        let tells_discovered = std::mem::replace(&mut session.discover, true);
        let clock = Clock::start();
        match system_rng() {
            Ok(mut rng) => {
                let mut session = Session::new(role, session, clock.now(), &mut rng);
                session.set_tracer(tracer);
                let mut pump = Pump::<_, R>::shared(io, session, hub, clock, pump);
                pump.tells_discovered = tells_discovered;
                R::spawn(pump);
            }
            Err(error) => {
                hub.end(Err(SessionError::Local(error.to_string())), Totals::default());
            }
        }
        stream
    }

    /// Returns the next thing that happens; `None` once the stream is over. Clones share these: each event comes to one of them.
    pub async fn next(&mut self) -> Option<StreamEvent> {
        poll_fn(|cx| self.hub.poll_next(cx)).await
    }

    /// Accepts the remote's static key: see [`Config::authenticate`].
    ///
    /// If the session does not wait for that, it means nothing.
    pub fn accept(&self) {
        self.hub.command(Command::Accept);
    }

    /// Refuses the remote's static key: the stream ends with [`SessionError::Refused`].
    ///
    /// Before the remote's key is known it means nothing.
    pub fn refuse(&self) {
        self.hub.command(Command::Refuse);
    }

    /// Sends a keep-alive now, whenever the next one would be due.
    pub fn ping(&self) {
        self.hub.command(Command::Ping);
    }

    /// Returns what went over the stream so far.
    pub fn totals(&self) -> Totals {
        self.hub.totals()
    }

    /// Ends the stream cleanly, and with it whatever is synced over it.
    pub fn close(&self) {
        self.hub.close();
    }

    /// Gives up this handle, and waits until the stream is over: for the other handles to be dropped, and the multifeeds on it to be
    /// through. Returns what went over it in all.
    ///
    /// # Errors
    /// Why the stream ended before its time. Errors of one multifeed are its own [`Replication`](crate::Replication)'s.
    pub async fn finish(self) -> Result<Totals, SessionError> {
        let hub = self.hub.clone();
        drop(self);
        poll_fn(|cx| hub.poll_end(cx)).await
    }

    pub(crate) fn hub(&self) -> &Arc<StreamShared> {
        &self.hub
    }
}

impl Stream for ProtocolStream {
    type Item = StreamEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<StreamEvent>> {
        self.hub.poll_next(cx)
    }
}

impl Clone for ProtocolStream {
    fn clone(&self) -> Self {
        self.hub.hold();
        Self { hub: self.hub.clone() }
    }
}

impl Drop for ProtocolStream {
    fn drop(&mut self) {
        self.hub.release();
    }
}

impl fmt::Debug for ProtocolStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProtocolStream").field("totals", &self.totals()).finish_non_exhaustive()
    }
}

impl Default for StreamOptions {
    fn default() -> Self {
        let mut session = Config::plain();
        session.discover = false;
        Self { session, pump: PumpOptions::default(), tracer: None }
    }
}

impl fmt::Debug for StreamOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamOptions")
            .field("session", &self.session)
            .field("pump", &self.pump)
            .field("tracer", &self.tracer.is_some())
            .finish()
    }
}
