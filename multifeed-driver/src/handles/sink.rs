//! Blocks appended one after another, as a sink.

use std::fmt;
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_sink::Sink;

use crate::error::Error;
use crate::handles::feed::Feed;

/// Blocks that wait to be appended as one batch, at the most.
const BATCH_BLOCKS: usize = 1024;
/// Bytes of blocks that wait to be appended as one batch; the block that passes it is still taken.
const BATCH_BYTES: usize = 1024 * 1024;

/// How a sink appends (hypercore's `createWriteStream`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// What is longer than this is appended as several blocks of this many bytes, the last one shorter (`maxBlockSize`). By default, and
    /// with 0, each item is one block.
    pub max_block_bytes: Option<usize>,
}

type Appending = Pin<Box<dyn Future<Output = Result<Range<u64>, Error>> + Send>>;

/// A sink of blocks. What was sent into it is appended in batches, each under one signature, at the latest when the sink is flushed or closed;
/// it takes no more while a batch is full and the one before it is not appended. Dropped before, it appends no more than that one.
///
/// An error is that of a whole batch: none of its blocks was appended, the feed is as it was, and the sink goes on after it.
#[must_use = "a sink appends nothing unless it is flushed"]
pub struct BlockSink {
    feed: Feed,
    options: WriteOptions,
    waiting: Vec<Bytes>,
    bytes: usize,
    appending: Option<Appending>,
}

impl Feed {
    /// Makes a sink whose items become the feed's blocks: anything that is made into [`Bytes`].
    pub fn sink(&self, options: WriteOptions) -> BlockSink {
        BlockSink { feed: self.clone(), options, waiting: Vec::new(), bytes: 0, appending: None }
    }
}

impl BlockSink {
    /// Takes a block. Waits while a batch is full and the one before it is being appended.
    ///
    /// # Errors
    /// Those of [`Feed::append`], of a batch before: its blocks are not appended, and the sink goes on with the next.
    pub async fn send(&mut self, block: impl Into<Bytes>) -> Result<(), Error> {
        poll_fn(|cx| self.poll_append(cx, false)).await?;
        self.take(block.into());
        Ok(())
    }

    /// Appends every block that was taken. When this returns, they are in the feed.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn flush(&mut self) -> Result<(), Error> {
        poll_fn(|cx| self.poll_append(cx, true)).await
    }

    /// Appends every block that was taken, and gives up the sink.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn close(mut self) -> Result<(), Error> {
        self.flush().await
    }

    fn take(&mut self, mut item: Bytes) {
        self.bytes = self.bytes.saturating_add(item.len());
        if let Some(max) = self.options.max_block_bytes.filter(|max| *max > 0) {
            while item.len() > max {
                self.waiting.push(item.split_to(max));
            }
        }
        self.waiting.push(item);
    }

    fn is_full(&self) -> bool {
        self.waiting.len() >= BATCH_BLOCKS || self.bytes >= BATCH_BYTES
    }

    /// Appends what waits, if `all` is set or the batch is full.
    fn poll_append(&mut self, cx: &mut Context<'_>, all: bool) -> Poll<Result<(), Error>> {
        loop {
            if let Some(appending) = &mut self.appending {
                let Poll::Ready(appended) = appending.as_mut().poll(cx) else {
                    // There may be room for more meanwhile.
                    return if all || self.is_full() { Poll::Pending } else { Poll::Ready(Ok(())) };
                };
                self.appending = None;
                appended?;
            }
            if self.waiting.is_empty() || !(all || self.is_full()) {
                return Poll::Ready(Ok(()));
            }
            let (feed, blocks) = (self.feed.clone(), std::mem::take(&mut self.waiting));
            self.bytes = 0;
            self.appending = Some(Box::pin(async move { feed.append_bytes(blocks).await }));
        }
    }
}

impl<B: Into<Bytes>> Sink<B> for BlockSink {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_append(cx, false)
    }

    fn start_send(mut self: Pin<&mut Self>, item: B) -> Result<(), Error> {
        self.take(item.into());
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_append(cx, true)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_append(cx, true)
    }
}

impl fmt::Debug for BlockSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockSink")
            .field("feed", &self.feed)
            .field("options", &self.options)
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}
