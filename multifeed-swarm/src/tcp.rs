//! TCP as multifeed wants it.

use std::io;

use tokio::net::TcpStream;
#[cfg(any(feature = "addresses", feature = "lan"))]
use {
    crate::discovery::{BoxStream, Connecting, Incoming, Route},
    socket2::{Domain, Protocol, Socket, Type},
    std::net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    std::task::{Context, Poll},
    tokio::net::TcpListener,
    tokio_util::compat::TokioAsyncReadCompatExt,
};

/// Bytes that the system keeps of a stream beyond what is under way. More would wait there on a slow link, before our requests and before
/// answers that the peer waits for.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT_BYTES: u32 = 64 * 1024;

/// Has a stream send at once what is written to it, and take little more than it can send.
///
/// # Errors
/// The system's. Only latency is at stake.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    // Without it a slow link is only slower to react.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES);
    stream.set_nodelay(true)
}

/// Connects to a `host:port`.
#[cfg(any(feature = "addresses", feature = "lan"))]
pub(crate) fn connect(route: &Route) -> Connecting {
    let route = route.clone();
    Box::pin(async move {
        let Route::Address(address) = route else { return Err(io::ErrorKind::Unsupported.into()) };
        let stream = TcpStream::connect(address).await?;
        tune(&stream)?;
        Ok(Box::new(stream.compat()) as BoxStream)
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
    listener.poll_accept(cx).map_ok(|(stream, from): (TcpStream, SocketAddr)| {
        let _ = tune(&stream);
        Incoming { stream: Box::new(stream.compat()), from: Some(from.ip().to_canonical()), route: None }
    })
}
