//! A connection that `serve` accepted: its place, what is said about it, and how it is cut.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use multifeed_swarm::tcp::Tuned;
use multifeed_tokio::{Admission, AdmissionLimits, Admitted, Full, Network, SyncEvent};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{CliError, code};
use crate::line_limit::LineLimit;

/// How long a session that gives way has for a clean end.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);

/// What all guests of a listener share.
#[derive(Clone)]
pub(super) struct House {
    admission: Admission,
    lines: LineLimit,
    start: Instant,
    /// Whether the peer has come, if only one may.
    first: Option<watch::Sender<bool>>,
}

/// A connection that was accepted.
pub(super) struct Guest {
    admitted: Admitted,
    house: House,
    from: SocketAddr,
    cut: Arc<AtomicBool>,
    proven: bool,
    is_first: bool,
    /// That it is connected, which was not said yet.
    connected: Option<SyncEvent>,
}

/// Why a guest has to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    Full,
    /// The listener was for one peer, and that is another one.
    NotFirst,
}

impl House {
    pub(super) fn new(limits: AdmissionLimits, once: bool) -> Self {
        let first = once.then(|| watch::Sender::new(false));
        Self { admission: Admission::new(limits), lines: LineLimit::default(), start: Instant::now(), first }
    }

    /// Lets a connection in.
    ///
    /// # Errors
    /// As [`Admission::enter`].
    pub(super) fn enter(&self, from: SocketAddr) -> Result<Guest, Full> {
        let admitted = self.admission.enter(from.ip(), self.now())?;
        let (house, cut) = (self.clone(), Arc::default());
        Ok(Guest { admitted, house, from, cut, proven: false, is_first: false, connected: None })
    }

    /// The time that [`Full::Until`] means.
    pub(super) fn instant(&self, time: Duration) -> Instant {
        self.start + time
    }

    /// Makes one connection give way, since file handles have run out.
    pub(super) fn make_room(&self) -> bool {
        self.admission.make_room(self.now())
    }

    /// Whether something may be said about a connection from there.
    pub(super) fn may_say(&self, from: SocketAddr, proven: bool) -> bool {
        self.lines.allows(from.ip(), proven, self.now())
    }

    /// What was not said of late.
    pub(super) fn unsaid(&self) -> Option<String> {
        self.lines.sum_up(self.now())
    }

    /// Waits for the peer, if only one may come; for ever if any number may.
    pub(super) async fn has_first(&self) {
        match &self.first {
            Some(first) => _ = first.subscribe().wait_for(|came| *came).await,
            None => std::future::pending().await,
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

impl Guest {
    /// The stream, which this guest can cut.
    pub(super) fn stream(&self, stream: TcpStream) -> Cuttable {
        Cuttable { stream: Tuned::new(stream), cut: self.cut.clone() }
    }

    /// Cuts the stream, the next time that it is read or written.
    pub(super) fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    /// Who it counts as, for its places and for what it may bring.
    pub(super) fn network(&self) -> Network {
        self.from.ip().into()
    }

    /// Whether it has proven the root key.
    pub(super) fn is_proven(&self) -> bool {
        self.proven
    }

    /// Whether it is the only peer that may come.
    pub(super) fn is_first(&self) -> bool {
        self.is_first
    }

    /// Whether something may be said about it.
    pub(super) fn may_say(&self) -> bool {
        self.house.may_say(self.from, self.proven)
    }

    /// Waits until it has to go.
    pub(super) async fn has_to_leave(&self) -> Leave {
        tokio::select! {
            () = self.admitted.lost() => Leave::Full,
            () = self.house.has_first(), if !self.is_first => Leave::NotFirst,
        }
    }

    /// Hears of an event of its session. Nothing is said of a stranger but how it ended: that it was connected is said once it has proven the
    /// root key. Returns what to say now, if not the event itself.
    pub(super) fn hear(&mut self, event: SyncEvent) -> Result<Option<SyncEvent>, Leave> {
        match event {
            SyncEvent::Proven => {
                self.admitted.prove(self.house.now()).map_err(|_| Leave::Full)?;
                self.proven = true;
                if let Some(first) = &self.house.first {
                    self.is_first = first.send_if_modified(|came| !std::mem::replace(came, true));
                    if !self.is_first {
                        return Err(Leave::NotFirst);
                    }
                }
                Ok(self.connected.take())
            }
            event @ SyncEvent::Connected { .. } if !self.proven => {
                self.connected = Some(event);
                Ok(None)
            }
            event => {
                self.admitted.touch(self.house.now());
                Ok(Some(event))
            }
        }
    }
}

impl Leave {
    /// What is said of a guest that had to go.
    pub(super) fn error(self, proven: bool) -> CliError {
        CliError::new(
            code::NO_PLACE,
            match (self, proven) {
                (Leave::NotFirst, _) => "turned away: another peer was first",
                (Leave::Full, false) => "turned away: it did not prove the root key in time, and others came",
                (Leave::Full, true) => "turned away: all places are taken, and it did nothing for longest",
            },
        )
    }
}

/// A stream that can be cut from elsewhere. Closing it cleanly would wait for the other side.
pub(super) struct Cuttable {
    stream: Tuned,
    cut: Arc<AtomicBool>,
}

impl Cuttable {
    fn check(&self) -> io::Result<()> {
        if self.cut.load(Ordering::Relaxed) { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Cuttable {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
