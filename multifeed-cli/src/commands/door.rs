//! Connections that `serve` accepted and that have no place yet: nobody who waits keeps others from being accepted.
//!
//! The side that connects speaks first. Until a connection has said something it takes no place, and costs a socket. Those that have spoken wait for
//! a place, networks in turn.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use multifeed_tokio::proto::Phase;
use multifeed_tokio::{Network, SessionError, SyncError};
use tokio::io::{Interest, Ready};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::crowd::Crowd;
use crate::args::Serve;
use crate::error::{CliError, code};
use crate::output::{Event, Output};

/// Connections that the system keeps until they are accepted, as far as it does. It drops more, and their senders try again after a second.
const BACKLOG: i32 = 4096;

/// How long a connection may say nothing, as in a session.
const SILENCE: Duration = Duration::from_secs(20);

/// Connections that have said nothing yet, and as many that have and wait for a place. There are fewer if the system allows few file handles.
/// Then those that have said nothing, who mostly speak in a moment, have half of the handles beside [`OURS`]; those that wait have an eighth.
const WAITING: usize = 1024;

/// File handles of the process itself, and of a feed that is read and one that is written.
const OURS: usize = 24;

/// Networks of which one is tried before it is waited for a place.
const TRIED: usize = 8;

/// Listens, and says where.
pub(super) async fn listen(args: &Serve, output: &Output) -> Result<TcpListener, CliError> {
    let address = args.address.as_deref().unwrap_or("the socket that was passed");
    let cannot = |error| CliError::new(code::LISTEN, format!("cannot listen on {address}: {error}"));
    let listener = match &args.inherited {
        Some(socket) => socket
            .try_clone()
            .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
            .and_then(TcpListener::from_std),
        None => TcpListener::bind(address).await,
    };
    let listener = listener.map_err(cannot)?;
    // The system's own bound is lower, or it is this. If it refuses, connections wait a little longer under a flood.
    let _ = socket2::SockRef::from(&listener).listen(BACKLOG);
    let address = listener.local_addr().map_err(cannot)?.to_string();
    output.print(|| format!("listening on {address}"), &Event::Listening { address: address.clone() })?;
    Ok(listener)
}

/// Somebody who connected.
pub(super) struct Caller {
    pub(super) stream: TcpStream,
    pub(super) from: SocketAddr,
}

/// Somebody who has said nothing yet, as far as was heard.
struct Silent {
    stream: Arc<TcpStream>,
    from: SocketAddr,
    listening: AbortHandle,
}

impl Silent {
    /// Whether it has spoken, and is heard next. One that hung up has not.
    fn has_spoken(&self) -> bool {
        let ready = readiness(&self.stream);
        if !ready.is_empty() {
            return !ready.is_read_closed();
        }
        // The system did not say so yet.
        socket2::SockRef::from(&*self.stream).peek(&mut [MaybeUninit::uninit()]).is_ok_and(|bytes| bytes > 0)
    }
}

impl Caller {
    /// Whether the other side has ended the connection, as far as the system said: what it sent before is still to be read.
    ///
    /// Without a handshake nobody closes only one direction.
    fn is_gone(&self) -> bool {
        readiness(&self.stream).is_read_closed()
    }
}

/// What the system said of reading from a connection, which may be what was so a moment ago.
fn readiness(stream: &TcpStream) -> Ready {
    match pin!(stream.ready(Interest::READABLE)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(ready)) => ready,
        _ => Ready::EMPTY,
    }
}

/// Why a connection that has no place is ended.
pub(super) struct TurnedAway {
    pub(super) from: SocketAddr,
    pub(super) error: CliError,
}

pub(super) struct Door {
    /// Those that have said nothing, until they do.
    listening: JoinSet<(SocketAddr, u64, io::Result<usize>)>,
    silent: Crowd<Silent>,
    /// Those that have, and wait for a place.
    waiting: Crowd<Caller>,
    most_silent: usize,
    most_waiting: usize,
    next: u64,
}

impl Door {
    pub(super) fn new() -> Self {
        let handles = handles().unwrap_or(usize::MAX);
        let silent = (handles.saturating_sub(OURS) / 2).max(1);
        let (most_silent, most_waiting) = (WAITING.min(silent), WAITING.min(handles / 8));
        let (silent, waiting) = (Crowd::default(), Crowd::default());
        Self { listening: JoinSet::new(), silent, waiting, most_silent, most_waiting, next: 0 }
    }

    /// Somebody connected. Of those that say nothing the oldest may have to go, of the network that has most of them.
    pub(super) fn arrives(&mut self, stream: TcpStream, from: SocketAddr) -> Option<TurnedAway> {
        let number = self.next;
        self.next += 1;
        let stream = Arc::new(stream);
        let heard = stream.clone();
        let listening = self.listening.spawn(async move {
            let said = match timeout(SILENCE, heard.peek(&mut [0])).await {
                Ok(said) => said,
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            };
            (from, number, said)
        });
        self.silent.insert(from.ip().into(), number, Silent { stream, from, listening });
        if self.silent.len() > self.most_silent { self.ends_a_silent_one() } else { None }
    }

    /// Whether all who are listened to have spoken, and are to be heard before others are accepted.
    pub(super) fn is_behind(&self) -> bool {
        self.silent.len() > self.most_silent
    }

    fn ends_a_silent_one(&mut self) -> Option<TurnedAway> {
        let Silent { listening, from, .. } = self.silent.take_oldest_of_most(|silent| !silent.has_spoken())?;
        listening.abort();
        Some(TurnedAway { from, error: no_place("it said nothing, and others came") })
    }

    /// Ends one of those that have said nothing, or else of those that wait.
    pub(super) fn make_room(&mut self) -> Option<TurnedAway> {
        if let Some(gone) = self.ends_a_silent_one() {
            return Some(gone);
        }
        self.ends_one_that_waits()
    }

    /// One that is gone makes room, and if there is none, the newest of the network that has most of them.
    fn ends_one_that_waits(&mut self) -> Option<TurnedAway> {
        if let Some(Caller { from, .. }) = self.waiting.take_oldest_of_most(Caller::is_gone) {
            return Some(TurnedAway { from, error: disconnected() });
        }
        let Caller { from, .. } = self.waiting.take_newest_of_most()?;
        Some(TurnedAway { from, error: no_place("too many connections at once that have not proven the root key") })
    }

    /// Waits until somebody says something, who then waits for a place, or ends without a word. Never ready if nobody is silent.
    pub(super) async fn hears(&mut self) -> Option<TurnedAway> {
        let (from, number, said) = match self.listening.join_next().await {
            Some(Ok(heard)) => heard,
            // It had to go.
            Some(Err(_)) => return None,
            None => std::future::pending().await,
        };
        let network = Network::from(from.ip());
        // Otherwise it had to go just now.
        let stream = Arc::into_inner(self.silent.remove(network, number)?.stream)?;
        let error = match said {
            Ok(1..) => {
                let caller = Caller { stream, from };
                if !caller.is_gone() {
                    self.waiting.insert(network, number, caller);
                    return if self.waiting.len() > self.most_waiting { self.ends_one_that_waits() } else { None };
                }
                disconnected()
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                SyncError::Session(SessionError::Timeout(Phase::Noise)).into()
            }
            _ => disconnected(),
        };
        Some(TurnedAway { from, error })
    }

    /// The addresses and numbers of those whose turn it is, networks in turn.
    pub(super) fn firsts(&self) -> Vec<(SocketAddr, u64)> {
        self.waiting.firsts().take(TRIED).map(|(_, number, caller)| (caller.from, number)).collect()
    }

    /// Takes out one of them.
    pub(super) fn take(&mut self, from: SocketAddr, number: u64) -> Option<Caller> {
        self.waiting.take_turn(from.ip().into(), number)
    }
}

fn disconnected() -> CliError {
    SyncError::Session(SessionError::Disconnected(Phase::Noise)).into()
}

fn no_place(why: &str) -> CliError {
    CliError::new(code::NO_PLACE, format!("turned away: {why}"))
}

/// Raises how many files the process may have open to [`ENOUGH_HANDLES`], as far as the system allows it. How many it may have then.
fn handles() -> Option<usize> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let wanted = maximum.unwrap_or(ENOUGH_HANDLES).min(ENOUGH_HANDLES);
        if current.is_some_and(|current| current < wanted) {
            // If the system refuses, it stays as it was.
            let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
        }
        getrlimit(Resource::Nofile).current.and_then(|handles| usize::try_from(handles).ok())
    }
    #[cfg(not(unix))]
    None
}

/// File handles for all sessions, all who wait, and the store.
#[cfg(unix)]
const ENOUGH_HANDLES: u64 = 16_384;
