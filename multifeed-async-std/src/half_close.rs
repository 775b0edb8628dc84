//! A stream whose closing is seen by the remote.

use std::any::Any;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead, AsyncWrite};

/// A stream whose `close` ends the write half. async-std's sockets, and those in async-io's `Async`, only flush when they are closed.
/// So the remote would see the end only when the socket is dropped, and both sides would wait for each other's.
pub(crate) struct HalfClose<S>(S);

impl<S> HalfClose<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self(stream)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HalfClose<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin + 'static> AsyncWrite for HalfClose<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.0).poll_close(cx))?;
        // A socket that is shut already, or gone, is as closed as it can be.
        let _ = shut(&self.0);
        Poll::Ready(Ok(()))
    }
}

/// Ends the writing half of the sockets that do not do so themselves.
fn shut(stream: &dyn Any) -> io::Result<()> {
    #[cfg(feature = "async-std")]
    {
        if let Some(tcp) = stream.downcast_ref::<async_std::net::TcpStream>() {
            return tcp.shutdown(Shutdown::Write);
        }
        #[cfg(unix)]
        if let Some(unix) = stream.downcast_ref::<async_std::os::unix::net::UnixStream>() {
            return unix.shutdown(Shutdown::Write);
        }
    }
    #[cfg(feature = "smol")]
    {
        if let Some(tcp) = stream.downcast_ref::<smol::Async<std::net::TcpStream>>() {
            return tcp.get_ref().shutdown(Shutdown::Write);
        }
        #[cfg(unix)]
        if let Some(unix) = stream.downcast_ref::<smol::Async<std::os::unix::net::UnixStream>>() {
            return unix.get_ref().shutdown(Shutdown::Write);
        }
    }
    Ok(())
}
