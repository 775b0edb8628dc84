//! A disk that is far behind with what came, and a remote that is gone by then.
#![allow(missing_docs)]

mod common;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use common::{facts, memory, run};
use multifeed_core::MemoryStorage;
use multifeed_testkit::blocks::block;
use multifeed_testkit::disk::FaultyStorage;
use multifeed_tokio::{Multifeed, Options, Replicate, Role};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// A stream that takes no more bytes once the remote's end was read, as a socket whose other end is closed.
struct Brittle {
    inner: DuplexStream,
    over: bool,
}

impl AsyncRead for Brittle {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.over |= matches!(read, Poll::Ready(Ok(()))) && buf.filled().len() == before;
        read
    }
}

impl AsyncWrite for Brittle {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.over {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A remote that has given everything, and is gone while the disk here is behind with it, has ended well. What could not be said to it any
/// more makes no failure of it.
#[test]
fn a_remote_that_is_gone_before_its_blocks_are_written_has_ended_well() {
    run(async {
        let a = memory().await;
        for number in 0..12 {
            let writer = a.writer(format!("feed {number}").as_str()).await.unwrap();
            writer.append_batch((0..5).map(|index| block(number, index, 10))).await.unwrap();
        }
        let (storage, faults) = FaultyStorage::new(MemoryStorage::default());
        let mut options = Options::default();
        // Keep-alives are due while it writes.
        options.session.keep_alive = Some(Duration::from_millis(5));
        let b = Multifeed::with_storage(storage, options).await.unwrap();
        faults.delay(Duration::from_millis(15));
        let (left, right) = tokio::io::duplex(64 * 1024);
        let left = a.replicate(left, Role::Responder, Replicate::default());
        let right = b.replicate(Brittle { inner: right, over: false }, Role::Initiator, Replicate::default());
        let (left, right) = tokio::join!(left.finish(), right.finish());
        left.unwrap();
        assert_eq!(right.unwrap().moved.blocks_received, 60);
        faults.heal();
        assert_eq!(facts(&b).await, facts(&a).await);
    });
}
