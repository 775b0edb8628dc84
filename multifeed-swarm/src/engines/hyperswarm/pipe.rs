//! A secret stream, which carries messages, as a stream of bytes.
//!
//! One future drives a connection: it always drains what the peer sends, since nothing below holds the peer back, and it gathers what is written into
//! messages. It notices a peer that is gone, and says goodbye at every end: a stream that is only dropped tells the remote nothing.

use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use futures_io::{AsyncRead, AsyncWrite};
use peeroxide_dht::secret_stream::{SecretStream, SecretStreamError, SecretStreamReadHalf, SecretStreamWriteHalf};
use tokio::io::{AsyncRead as TokioRead, AsyncWrite as TokioWrite};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::HyperswarmError;
use crate::lock;

/// Bytes that are written and wait. No more is taken meanwhile.
const UNSENT_BYTES: usize = 256 * 1024;

/// The least and the most bytes of a message. One waits until the one before is acknowledged, so its size follows the speed of the link.
const MESSAGE_BYTES: (usize, usize) = (16 * 1024, UNSENT_BYTES);

/// After so long without a message an empty one is sent. JS drops those too.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// A peer that does not acknowledge a message in this time is gone.
const ACKNOWLEDGE: Duration = Duration::from_secs(15);

/// A message that is acknowledged sooner than the first of these may be followed by a longer one; after the second, by a shorter one.
const PACE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(4));

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// The application's side.
#[derive(Debug)]
pub(super) struct Pipe(Arc<Shared>);

/// The engine's side.
#[derive(Debug, Clone)]
pub(super) struct Control(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Received bytes that the application may leave unread.
    unread_bytes: usize,
    state: Mutex<State>,
    /// Something was written, or the application is done.
    work: Notify,
    /// It ends now.
    cut: CancellationToken,
    /// The application dropped its side.
    left: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    incoming: VecDeque<Vec<u8>>,
    /// Bytes of the first of `incoming` that were read.
    taken: usize,
    unread: usize,
    /// Nothing more comes, or why not.
    end: Option<io::Result<()>>,
    outgoing: BytesMut,
    /// The application closed, or dropped its side.
    done: bool,
    /// Goodbye was said: nothing is sent any more.
    closed: bool,
    received: bool,
    sent: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// Marks the end, even if the future is dropped.
struct Over(Arc<Shared>);

/// Makes a stream of bytes of `stream`. It moves while the future is polled, which ends with the connection.
pub(super) fn open<T>(
    stream: SecretStream<T>,
    unread_bytes: usize,
) -> (Pipe, Control, impl Future<Output = ()> + Send + 'static)
where
    T: TokioRead + TokioWrite + Unpin + Send + 'static,
{
    let shared = Arc::new(Shared::new(unread_bytes));
    let over = Over(shared.clone());
    (Pipe(shared.clone()), Control(shared), drive(stream, over))
}

async fn drive<T: TokioRead + TokioWrite + Unpin + Send>(stream: SecretStream<T>, over: Over) {
    let shared = &over.0;
    let (read, write) = stream.into_split();
    let mut reading = pin!(receive(shared, read));
    let mut writing = pin!(send_and_part(shared, write));
    let (mut is_reading, mut is_writing) = (true, true);
    // Either side may be done before the other.
    while is_reading || is_writing {
        tokio::select! {
            end = &mut reading, if is_reading => {
                is_reading = false;
                if end.is_err() {
                    shared.cut.cancel();
                }
                shared.ended(end);
            }
            end = &mut writing, if is_writing => {
                is_writing = false;
                match end {
                    Ok(()) => shared.closed(),
                    Err(error) => return shared.ended(Err(error)),
                }
            }
            () = shared.left.cancelled(), if !is_writing => return,
        }
    }
}

/// Sends what there is until there will be no more, or the connection is cut, and says goodbye.
async fn send_and_part<W: TokioWrite + Unpin + Send>(
    shared: &Shared,
    mut write: SecretStreamWriteHalf<W>,
) -> io::Result<()> {
    let sent = tokio::select! {
        sent = send(shared, &mut write) => sent,
        () = shared.cut.cancelled() => Err(io::ErrorKind::ConnectionAborted.into()),
    };
    // Also to one that seems to be gone: it may only be slow.
    let _ = timeout(GOODBYE, write.shutdown()).await;
    sent
}

async fn receive<R: TokioRead + Unpin + Send>(shared: &Shared, mut read: SecretStreamReadHalf<R>) -> io::Result<()> {
    while let Some(message) = read.read().await.map_err(io_error)? {
        shared.take_in(message)?;
    }
    Ok(())
}

async fn send<W: TokioWrite + Unpin + Send>(shared: &Shared, write: &mut SecretStreamWriteHalf<W>) -> io::Result<()> {
    let (least, most) = MESSAGE_BYTES;
    let mut size = least;
    loop {
        let message = match timeout(KEEP_ALIVE, shared.next_message(size)).await {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(()),
            Err(_) => BytesMut::new(),
        };
        let start = Instant::now();
        match timeout(ACKNOWLEDGE, write.write(&message)).await {
            Ok(sent) => sent.map_err(io_error)?,
            Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, HyperswarmError::Silent(ACKNOWLEDGE))),
        }
        let took = start.elapsed();
        if took > PACE.1 {
            size = (size / 2).max(least);
        } else if took < PACE.0 && message.len() == size {
            size = (size * 2).min(most);
        }
    }
}

fn io_error(error: SecretStreamError) -> io::Error {
    match error {
        SecretStreamError::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
    }
}

impl Control {
    /// Ends the connection. What was not sent is lost.
    pub(super) fn cut(&self) {
        self.0.cut.cancel();
    }

    /// Whether bytes went both ways.
    pub(super) fn is_used(&self) -> bool {
        let state = lock(&self.0.state);
        state.received && state.sent
    }
}

#[cfg(test)]
impl Control {
    pub(super) fn unused() -> Self {
        Self(Arc::new(Shared::new(0)))
    }

    pub(super) fn used() -> Self {
        let control = Self::unused();
        {
            let mut state = lock(&control.0.state);
            (state.received, state.sent) = (true, true);
        }
        control
    }

    pub(super) fn is_cut(&self) -> bool {
        self.0.cut.is_cancelled()
    }
}

impl Shared {
    fn new(unread_bytes: usize) -> Self {
        Self {
            unread_bytes,
            state: Mutex::default(),
            work: Notify::new(),
            cut: CancellationToken::new(),
            left: CancellationToken::new(),
        }
    }

    fn take_in(&self, message: Vec<u8>) -> io::Result<()> {
        let waker = {
            let mut state = lock(&self.state);
            let unread = state.unread.saturating_add(message.len());
            if unread > self.unread_bytes {
                let error = HyperswarmError::Unread { bytes: self.unread_bytes };
                return Err(io::Error::new(io::ErrorKind::QuotaExceeded, error));
            }
            (state.unread, state.received) = (unread, true);
            state.incoming.push_back(message);
            state.reader.take()
        };
        waker.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// The next bytes to send; `None` if there will be none.
    async fn next_message(&self, most: usize) -> Option<BytesMut> {
        loop {
            {
                let state = &mut *lock(&self.state);
                if !state.outgoing.is_empty() {
                    let message = state.outgoing.split_to(most.min(state.outgoing.len()));
                    state.sent = true;
                    state.writer.take().into_iter().for_each(Waker::wake);
                    return Some(message);
                }
                if state.done {
                    return None;
                }
            }
            self.work.notified().await;
        }
    }

    /// The first end is the one that counts.
    fn ended(&self, end: io::Result<()>) {
        let mut state = lock(&self.state);
        state.end.get_or_insert(end);
        state.reader.take().into_iter().for_each(Waker::wake);
        state.writer.take().into_iter().for_each(Waker::wake);
    }

    fn closed(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        state.writer.take().into_iter().for_each(Waker::wake);
    }

    fn done(&self) {
        lock(&self.state).done = true;
        self.work.notify_one();
    }
}

impl Drop for Over {
    fn drop(&mut self) {
        self.0.closed();
        self.0.ended(Err(io::ErrorKind::ConnectionAborted.into()));
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.0.done();
        self.0.left.cancel();
    }
}

impl State {
    /// Why it failed: the engine's own reason stays one.
    fn failure(&self) -> Option<io::Error> {
        let Some(Err(error)) = &self.end else { return None };
        let ours = error.get_ref().and_then(|inner| inner.downcast_ref::<HyperswarmError>());
        Some(match ours {
            Some(ours) => io::Error::new(error.kind(), ours.clone()),
            None => io::Error::new(error.kind(), error.to_string()),
        })
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let state = &mut *lock(&self.0.state);
        let Some(first) = state.incoming.front() else {
            return match &state.end {
                Some(_) => Poll::Ready(state.failure().map_or(Ok(0), Err)),
                None => {
                    state.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        };
        let rest = first.get(state.taken..).unwrap_or_default();
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        if count == rest.len() {
            state.taken = 0;
            state.incoming.pop_front();
        } else {
            state.taken += count;
        }
        state.unread -= count;
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let count = {
            let state = &mut *lock(&self.0.state);
            if let Some(error) = state.failure() {
                return Poll::Ready(Err(error));
            }
            if state.done || state.closed {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let count = UNSENT_BYTES.saturating_sub(state.outgoing.len()).min(buf.len());
            if count == 0 && !buf.is_empty() {
                state.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            state.outgoing.extend_from_slice(&buf[..count]);
            count
        };
        self.0.work.notify_one();
        Poll::Ready(Ok(count))
    }

    /// What was written is sent as soon as the peer acknowledged what was before.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(lock(&self.0.state).failure().map_or(Ok(()), Err))
    }

    /// Sends what is left and says goodbye; ready when both is done.
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.done();
        let mut state = lock(&self.0.state);
        if state.closed {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use peeroxide_dht::noise::generate_keypair;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

    use super::*;

    type Stream = SecretStream<DuplexStream>;

    async fn streams() -> (Stream, Stream) {
        let (a, b) = duplex(1024);
        let (a, b) = tokio::join!(
            SecretStream::new(true, a, generate_keypair()),
            SecretStream::new(false, b, generate_keypair())
        );
        (a.unwrap(), b.unwrap())
    }

    fn run(stream: Stream, unread_bytes: usize) -> (Compat<Pipe>, Control, JoinHandle<()>) {
        let (pipe, control, driving) = open(stream, unread_bytes);
        (pipe.compat(), control, tokio::spawn(driving))
    }

    fn cause(error: &io::Error) -> Option<&HyperswarmError> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_go_both_ways_and_each_half_ends_alone() {
        let (a, b) = streams().await;
        let ((mut a, _, driven_a), (mut b, _, driven_b)) = (run(a, 1 << 24), run(b, 1 << 24));
        let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
        let sending = async {
            a.write_all(&sent).await.unwrap();
            a.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let (read, ()) = tokio::join!(b.read_to_end(&mut received), sending);
        assert!(read.is_ok() && received == sent);
        assert_eq!(a.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        // What the other side says after that still arrives.
        b.write_all(b"thanks").await.unwrap();
        drop(b);
        let mut answer = String::new();
        a.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "thanks");
        driven_a.await.unwrap();
        driven_b.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_sends_more_than_is_read_is_ended() {
        let (a, b) = streams().await;
        let ((mut a, control, driven_a), (mut b, ..)) = (run(a, 100_000), run(b, 1 << 24));
        let flood = tokio::spawn(async move {
            let _ = b.write_all(&[7; 1_000_000]).await;
            let mut rest = Vec::new();
            let _ = b.read_to_end(&mut rest).await;
        });
        driven_a.await.unwrap();
        assert!(!control.is_used());
        // What came before stays; then the reason.
        let mut received = Vec::new();
        let error = a.read_to_end(&mut received).await.unwrap_err();
        assert!(!received.is_empty() && received.len() <= 100_000);
        assert_eq!(
            (error.kind(), cause(&error)),
            (io::ErrorKind::QuotaExceeded, Some(&HyperswarmError::Unread { bytes: 100_000 }))
        );
        assert_eq!(a.write(b"x").await.unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
        // The peer hears of the end.
        flood.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_acknowledges_nothing_is_ended() {
        for written in [0, 500_000] {
            let (a, _silent) = streams().await;
            let (mut a, _, driven) = run(a, 1 << 24);
            let begun = Instant::now();
            if written > 0 {
                let _ = timeout(Duration::ZERO, a.write_all(&vec![1; written])).await;
            }
            let error = a.read_u8().await.unwrap_err();
            assert_eq!(
                (error.kind(), cause(&error)),
                (io::ErrorKind::TimedOut, Some(&HyperswarmError::Silent(ACKNOWLEDGE)))
            );
            // Idle, the keep-alives have to fill what is between the two first.
            let most = if written > 0 { ACKNOWLEDGE + GOODBYE } else { 60 * KEEP_ALIVE };
            assert!(begun.elapsed() <= most, "{:?}", begun.elapsed());
            driven.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_stays_and_a_cut_one_says_goodbye() {
        let (a, b) = streams().await;
        let ((mut a, control, driven), (mut b, ..)) = (run(a, 1 << 24), run(b, 1 << 24));
        assert!(timeout(Duration::from_secs(3600), b.read_u8()).await.is_err(), "nothing comes, and it stays");
        a.write_all(b"one").await.unwrap();
        let mut three = [0; 3];
        b.read_exact(&mut three).await.unwrap();
        b.write_all(b"two").await.unwrap();
        a.read_exact(&mut three).await.unwrap();
        assert!(control.is_used());
        control.cut();
        assert_eq!(b.read(&mut three).await.unwrap(), 0);
        assert_eq!(a.read(&mut three).await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        driven.await.unwrap();
    }
}
