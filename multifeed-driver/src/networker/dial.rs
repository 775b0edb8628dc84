//! The task of a dial, which keeps a connection.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_io::{AsyncRead, AsyncWrite};
use multifeed_proto::Role;

use crate::networker::connection::Connection;
use crate::networker::dials::Step;
use crate::networker::events::NetworkerEvent;
use crate::networker::ids::{DialId, PeerKey};
use crate::networker::shared::Shared;
use crate::runtime::Runtime;
use crate::timer::Timer;

/// What a dial keeps.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DialOptions {
    /// The static key of the only peer that it is for. Another one is refused. While this peer is connected otherwise, nothing is dialled.
    pub peer: Option<PeerKey>,
    /// How long the connector may take. Default 20 s.
    pub connect_timeout: Duration,
    /// Names who the peer is, such as its address, to sum up what it brings: see [`Replicate::source`](multifeed_core::Replicate::source).
    pub source: Option<String>,
}

impl Default for DialOptions {
    fn default() -> Self {
        Self { peer: None, connect_timeout: Duration::from_secs(20), source: None }
    }
}

/// A connection that is kept: see [`Networker::dial_on`](crate::Networker::dial_on). Dropping this changes nothing.
pub struct Dial {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: DialId,
}

impl Dial {
    /// Returns the dial's number, by which events name it.
    pub fn id(&self) -> DialId {
        self.id
    }

    /// Dials no more, ends its connection cleanly, and waits until both are over. A peer that came by itself stays.
    pub async fn stop(&self) {
        self.shared.with(|table, now| table.stop_dial(self.id, now));
        poll_fn(|cx| self.shared.poll_until(cx, |table| !table.dials.has(self.id))).await;
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dial").field(&self.id).finish()
    }
}

/// Dials, until it is stopped.
pub(crate) async fn run<R, C, F, T>(shared: Arc<Shared>, id: DialId, connector: C, options: DialOptions)
where
    R: Runtime,
    C: Fn() -> F + Send + 'static,
    F: Future<Output = io::Result<T>> + Send,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Even if the runtime drops this task.
    let task = Task { shared, id };
    let shared = &task.shared;
    let mut timer = Timer::<R>::default();
    loop {
        let step = poll_fn(|cx| match shared.poll_dial(cx, id) {
            Step::Wait(due) if timer.poll(cx, due, shared.clock.now()) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Step::Wait(_) => Poll::Pending,
            step => Poll::Ready(step),
        });
        if step.await == Step::Stop {
            return;
        }
        let io = connect::<R, T>(shared, id, pin!(connector()), options.connect_timeout).await;
        let entered = io.and_then(|io| {
            let taken = shared.with(|table, now| table.enter(true, Some(id), now));
            taken.map(|connection| (connection, io)).map_err(|reason| Some(io::Error::other(reason)))
        });
        match entered {
            Ok((connection, io)) => {
                let source = options.source.clone();
                Connection::<R>::open(shared.clone(), connection, io, Role::Initiator, Some(id), source).await;
            }
            Err(Some(error)) => {
                if let Some(after) = shared.with(|table, now| table.dials.failed(id, now)) {
                    shared.publish(&NetworkerEvent::Redial { dial: id, after, error: Some(error.to_string()) });
                }
            }
            // It is stopped.
            Err(None) => {}
        }
    }
}

/// Connects, in its time. No error if the dial was stopped meanwhile.
async fn connect<R: Runtime, T>(
    shared: &Shared,
    id: DialId,
    mut connecting: Pin<&mut impl Future<Output = io::Result<T>>>,
    timeout: Duration,
) -> Result<T, Option<io::Error>> {
    let until = shared.clock.now().saturating_add(timeout);
    let mut timer = Timer::<R>::default();
    poll_fn(|cx: &mut Context<'_>| {
        if shared.poll_dial(cx, id) == Step::Stop {
            return Poll::Ready(Err(None));
        }
        if let Poll::Ready(result) = connecting.as_mut().poll(cx) {
            return Poll::Ready(result.map_err(Some));
        }
        if timer.poll(cx, Some(until), shared.clock.now()) {
            return Poll::Ready(Err(Some(io::ErrorKind::TimedOut.into())));
        }
        Poll::Pending
    })
    .await
}

/// Removes the dial when its task ends, however it ends.
struct Task {
    shared: Arc<Shared>,
    id: DialId,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.shared.remove_dial(self.id);
    }
}
