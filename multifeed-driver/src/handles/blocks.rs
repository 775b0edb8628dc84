//! The blocks of a feed, one after another, as a stream.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::ops::RangeBounds;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;

use crate::error::Error;
use crate::handles::feed::Feed;
use crate::handles::reads::range_of;
use crate::store::calls::waiting::Wait;

/// Which blocks a stream gives (hypercore's `createReadStream`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadOptions {
    /// The first block. Default 0.
    pub start: u64,
    /// One past the last block; by default as `live` and `snapshot` say.
    pub end: Option<u64>,
    /// Without an `end`, waits for new blocks at the feed's end, until the multifeed is closed.
    pub live: bool,
    /// Begins with the block after the last that the feed has now.
    pub tail: bool,
    /// Without an end and not live: ends at the length that the feed has now (the default), or at the one that it has
    /// when the stream comes there.
    pub snapshot: bool,
    /// How long to wait for each missing block; `None`: not at all. By default for as long as it takes.
    pub wait: Option<Wait>,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { start: 0, end: None, live: false, tail: false, snapshot: true, wait: Some(Wait::default()) }
    }
}

impl ReadOptions {
    /// Yields all blocks, then each new one. The stream waits for new blocks, and ends when the multifeed is closed.
    pub fn live() -> Self {
        Self { live: true, ..Self::default() }
    }
}

type Reading = Pin<Box<dyn Future<Output = Result<Vec<Bytes>, Error>> + Send>>;

/// The blocks of a feed in order. It reads no further than it is taken from, apart from what one read of the store gives (at most
/// 128 blocks and about 256 KiB). It ends after an error.
///
/// If the application closes the multifeed, a live stream without an end is over, without an error. Any other stream that has not come to its end
/// yields [`Error::Closed`], so that what was cut off is never taken for the whole.
#[must_use = "a stream does nothing unless it is polled"]
pub struct Blocks {
    feed: Feed,
    /// The next block to give.
    index: u64,
    end: End,
    wait: Option<Wait>,
    ready: VecDeque<Bytes>,
    reading: Option<Reading>,
    over: bool,
}

#[derive(Debug, Clone, Copy)]
enum End {
    At(u64),
    /// Wherever the feed ends when the stream comes there.
    Length,
    Never,
}

impl Feed {
    /// Yields the blocks of a range, in order; those that are not held are fetched and waited for. A range without an end stops at the
    /// length that the feed has now.
    pub fn blocks(&self, blocks: impl RangeBounds<u64>) -> Blocks {
        let range = range_of(&blocks);
        let end = (range.end < u64::MAX).then_some(range.end);
        self.stream(ReadOptions { start: range.start, end, ..ReadOptions::default() })
    }

    /// Yields the feed's blocks, in order, as the options say.
    pub fn stream(&self, options: ReadOptions) -> Blocks {
        let len = self.len();
        let end = match options.end {
            Some(end) => End::At(end),
            None if options.live => End::Never,
            None if options.snapshot => End::At(len),
            None => End::Length,
        };
        Blocks {
            feed: self.clone(),
            index: if options.tail { len } else { options.start },
            end,
            wait: options.wait,
            ready: VecDeque::new(),
            reading: None,
            over: false,
        }
    }
}

impl Blocks {
    /// Returns the next block; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Returns the index of the block that [`next`](Self::next) gives next.
    pub fn index(&self) -> u64 {
        self.index
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        loop {
            if let Some(block) = self.ready.pop_front() {
                self.index += 1;
                return Poll::Ready(Some(Ok(block)));
            }
            let end = match self.end {
                End::At(end) => end,
                End::Length => self.feed.len(),
                End::Never => u64::MAX,
            };
            if self.over || self.index >= end {
                self.over = true;
                return Poll::Ready(None);
            }
            let (feed, index, wait) = (&self.feed, self.index, self.wait);
            let reading = self.reading.get_or_insert_with(|| {
                let feed = feed.clone();
                Box::pin(async move {
                    match wait {
                        Some(wait) => feed.fetch_some(index, end, wait).await,
                        None => feed.read_some(index, end).await,
                    }
                })
            });
            let Poll::Ready(read) = reading.as_mut().poll(cx) else { return Poll::Pending };
            self.reading = None;
            match read {
                Ok(blocks) => self.ready.extend(blocks),
                // Nothing more comes, and the application knows why.
                Err(Error::Closed) if matches!(self.end, End::Never) && self.feed.guard.0.is_closed_by_call() => {
                    self.over = true;
                }
                Err(error) => {
                    self.over = true;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

impl Stream for Blocks {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(cx)
    }
}

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { feed, index, end, wait, ready, over, .. } = self;
        f.debug_struct("Blocks")
            .field("feed", feed)
            .field("index", index)
            .field("end", end)
            .field("wait", wait)
            .field("ready", &ready.len())
            .field("over", over)
            .finish_non_exhaustive()
    }
}
