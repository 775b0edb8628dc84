//! TCP as multifeed wants it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(any(feature = "addresses", feature = "lan"))]
use {
    crate::discovery::{BoxStream, Connecting, Incoming, Route},
    socket2::{Domain, Protocol, Socket, Type},
    std::net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    tokio::net::TcpListener,
    tokio_util::compat::TokioAsyncReadCompatExt,
};

/// Bytes that the system keeps of a stream beyond what is under way. More would wait there on a slow link, before our requests and before
/// answers that the peer waits for.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT_BYTES: u32 = 64 * 1024;

/// A TCP stream that sends at once what is written to it, takes little more than it can send, and acknowledges at once what it reads.
///
/// The last is for peers that gather small writes (Nagle's algorithm), as sockets of node do by default: such a peer sends nothing more until what it sent
/// is acknowledged, which the system puts off by 40 ms if there is nothing to answer. A JS peer then got 16 blocks in each 40 ms.
#[derive(Debug)]
pub struct Tuned(TcpStream);

impl Tuned {
    /// Tunes a stream.
    pub fn new(stream: TcpStream) -> Self {
        // Only latency is at stake: without them it is slower to react.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES);
        let _ = stream.set_nodelay(true);
        Self(stream)
    }

    /// Returns the stream as it was given, which stays as it is now.
    pub fn get_ref(&self) -> &TcpStream {
        &self.0
    }
}

impl AsyncRead for Tuned {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.0).poll_read(cx, buf);
        // The system forgets it after a while.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Poll::Ready(Ok(())) = read {
            let _ = socket2::SockRef::from(&self.0).set_tcp_quickack(true);
        }
        read
    }
}

impl AsyncWrite for Tuned {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Connects to a `host:port`.
#[cfg(any(feature = "addresses", feature = "lan"))]
pub(crate) fn connect(route: &Route) -> Connecting {
    let route = route.clone();
    Box::pin(async move {
        let Route::Address(address) = route else { return Err(io::ErrorKind::Unsupported.into()) };
        let stream = TcpStream::connect(address).await?;
        Ok(Box::new(Tuned::new(stream).compat()) as BoxStream)
    })
}

/// Connections that the system keeps until they are accepted.
#[cfg(any(feature = "addresses", feature = "lan"))]
const BACKLOG: i32 = 1024;

/// Listens on all addresses of this machine: of IPv6 and IPv4, whatever the system's default is, or of IPv4 if there is no IPv6.
#[cfg(any(feature = "addresses", feature = "lan"))]
pub(crate) fn listen_everywhere(port: u16) -> io::Result<TcpListener> {
    listen((Ipv6Addr::UNSPECIFIED, port).into()).or_else(|_| listen((Ipv4Addr::UNSPECIFIED, port).into()))
}

/// Listens on one address.
#[cfg(any(feature = "addresses", feature = "lan"))]
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // As tokio and std do.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The next one that connects.
///
/// # Errors
/// The system's, such as that no file handle is left: to be tried again later.
#[cfg(any(feature = "addresses", feature = "lan"))]
pub(crate) fn poll_accept(listener: &TcpListener, cx: &mut Context<'_>) -> Poll<io::Result<Incoming>> {
    listener.poll_accept(cx).map_ok(|(stream, from): (TcpStream, SocketAddr)| Incoming {
        stream: Box::new(Tuned::new(stream).compat()),
        from: Some(from.ip().to_canonical()),
        route: None,
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    trait Both: AsyncRead + AsyncWrite + Unpin {}

    impl<T: AsyncRead + AsyncWrite + Unpin> Both for T {}

    /// Bytes that a socket sent, and that are not acknowledged.
    fn unacknowledged(socket: &TcpStream) -> u64 {
        let (own, remote) = (socket.local_addr().unwrap().port(), socket.peer_addr().unwrap().port());
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let (own, remote) = (format!(":{own:04X}"), format!(":{remote:04X}"));
        let line = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let line = line.into_iter().find(|line| line[1].ends_with(&own) && line[2].ends_with(&remote)).unwrap();
        u64::from_str_radix(line[4].split(':').next().unwrap(), 16).unwrap()
    }

    /// How often what a peer sent, and what asks for no answer, was acknowledged when it was read.
    async fn acknowledged(tuned: bool) -> usize {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (ours, _) = listener.accept().await.unwrap();
        ours.set_nodelay(true).unwrap();
        let mut ours: Box<dyn Both> = if tuned { Box::new(Tuned::new(ours)) } else { Box::new(ours) };
        let mut buffer = [0; 64];
        let mut at_once = 0;
        for _ in 0..40 {
            // Requests and answers: the system then expects an answer to all that comes, and puts acknowledgements off.
            for _ in 0..4 {
                peer.write_all(b"request").await.unwrap();
                let read = ours.read(&mut buffer).await.unwrap();
                ours.write_all(&buffer[..read]).await.unwrap();
                peer.read_exact(&mut buffer[..read]).await.unwrap();
            }
            peer.write_all(b"no answer").await.unwrap();
            ours.read_exact(&mut buffer[..9]).await.unwrap();
            at_once += usize::from(unacknowledged(&peer) == 0);
        }
        at_once
    }

    #[tokio::test]
    async fn what_is_read_is_acknowledged_at_once() {
        assert_eq!(acknowledged(true).await, 40);
        let plain = acknowledged(false).await;
        assert!(plain < 40, "the system puts nothing off here: this shows nothing");
    }
}
