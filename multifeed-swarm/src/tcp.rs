//! TCP as multifeed wants it.

use std::io;

use tokio::net::TcpStream;
#[cfg(any(feature = "addresses", feature = "lan"))]
use {
    crate::discovery::{BoxStream, Connecting, Incoming, Route},
    std::net::SocketAddr,
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
