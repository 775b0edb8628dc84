//! How many connections come from one network.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite, IoSlice, IoSliceMut};
use multifeed_tokio::Network;

use crate::discovery::BoxStream;
use crate::lock;

/// The connections that came, by network.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places(Arc<Mutex<BTreeMap<Network, usize>>>);

/// One of them, until this is dropped.
#[derive(Debug)]
struct Place {
    places: Places,
    network: Network,
}

impl Places {
    /// The stream with its place; `None` if `most` come from there already.
    pub(crate) fn enter(&self, stream: BoxStream, network: Network, most: usize) -> Option<Placed> {
        let mut there = lock(&self.0);
        let count = there.entry(network).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Placed { stream, _place: Place { places: self.clone(), network } })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut there = lock(&self.places.0);
        if let Some(count) = there.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                there.remove(&self.network);
            }
        }
    }
}

/// A stream that has a place.
pub(crate) struct Placed {
    stream: BoxStream,
    _place: Place,
}

impl AsyncRead for Placed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read_vectored(cx, bufs)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use tokio_util::compat::TokioAsyncReadCompatExt;

    use super::*;

    #[test]
    fn a_network_has_its_places_and_gives_them_back() {
        let places = Places::default();
        let stream = || Box::new(tokio::io::duplex(1).0.compat()) as BoxStream;
        let network = |n: u8| Network::from(IpAddr::from([192, 0, 2, n]));
        let two: Vec<_> = (0..2).filter_map(|_| places.enter(stream(), network(1), 2)).collect();
        assert!(two.len() == 2 && places.enter(stream(), network(1), 2).is_none());
        assert!(places.enter(stream(), network(2), 2).is_some());
        drop(two);
        assert!(places.enter(stream(), network(1), 2).is_some());
        assert!(lock(&places.0).is_empty());
    }
}
