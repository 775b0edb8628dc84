//! The application's calls, as the store's thread gets them.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use multifeed_core::{FeedId, KeyPair, VerifyCursor, VerifyStep};

use crate::error::Error;
use crate::oneshot::Answer;
use crate::table::FeedState;

/// One call, and where its answer goes.
#[derive(Debug)]
pub(crate) enum Call {
    Writer { name: Option<String>, key_pair: Option<Box<KeyPair>>, answer: Answer<Result<Arc<FeedState>, Error>> },
    Append { feed: FeedId, blocks: Vec<Bytes>, answer: Answer<Result<Range<u64>, Error>> },
    Get { feed: FeedId, index: u64, answer: Answer<Result<Option<Bytes>, Error>> },
    Has { feed: FeedId, index: u64, answer: Answer<bool> },
    Verify { feed: FeedId, cursor: VerifyCursor, answer: Answer<Result<(VerifyCursor, VerifyStep), Error>> },
    Close { answer: Answer<Result<(), Error>> },
}
