//! What is fetched, given up and watched of a feed, on the store's thread.

use bytes::Bytes;
use multifeed_core::limits::MAX_FEED_BLOCKS;
use multifeed_core::{FeedId, Located, Storage, Want, WantEnd, WantError, WantOptions};

use crate::error::Error;
use crate::store::calls::call::{FeedPeer, ReadCall};
use crate::store::calls::waiting::{Ticket, Wait};
use crate::store::thread::Store;
use crate::store::waits::Waiter;

/// Bytes of blocks that one read gives at the most, the first block aside.
const READ_BYTES: usize = 256 * 1024;
/// Blocks that one read gives at the most.
const READ_BLOCKS: usize = 128;
/// Bytes of blocks that one step of an audit reads before the thread looks at its mailbox again.
const AUDIT_STEP_BYTES: usize = 1024 * 1024;
/// Bytes of signatures that one step of a search reads before the thread looks at its mailbox again.
const SIGNATURE_STEP_BYTES: usize = 1024 * 1024;

impl<S: Storage> Store<S> {
    pub(crate) fn read(&mut self, call: ReadCall) {
        match call {
            ReadCall::Fetch { feed, index, until, wait, ticket, answer } => {
                if self.multi.has(feed, index) {
                    answer.send(self.held(feed, index, until));
                    return;
                }
                if let Ok(info) = self.multi.info(feed)
                    && info.writable
                    && index < info.len
                    && !self.multi.is_fetched(feed)
                {
                    answer.send(Err(Error::Cleared { feed: info.key, index }));
                    return;
                }
                self.wait_for(feed, Want::Block(index), wait, ticket, Waiter::Blocks { feed, index, until, answer });
            }
            ReadCall::Held { feed, index, until, answer } => answer.send(self.held(feed, index, until)),
            ReadCall::Download { feed, want, wait, ticket, answer } => {
                self.wait_for(feed, want, wait, ticket, Waiter::Download { answer });
            }
            ReadCall::Update { feed, len, wait, ticket, answer } => {
                let len = len.unwrap_or_else(|| self.len(feed).saturating_add(1)).min(MAX_FEED_BLOCKS + 1);
                self.wait_for(feed, Want::Length(len), wait, ticket, Waiter::Length { feed, answer });
            }
            ReadCall::Seek { feed, offset, wait, ticket, answer } => {
                self.wait_for(feed, Want::Byte(offset), wait, ticket, Waiter::Place { answer });
            }
            ReadCall::Locate { feed, offset, answer } => {
                let located = self.multi.locate(feed, offset).map_err(|error| self.failed(error));
                answer.send(located.map(|located| match located {
                    Located::At(place) => Some(place),
                    Located::Within(_) => None,
                }));
            }
            ReadCall::Cancel { feed, range, answer } => {
                let cancelled = self.multi.cancel(feed, range).map_err(|error| self.failed(error));
                self.end_waits();
                answer.send(cancelled);
            }
            ReadCall::Clear { feed, range, answer } => {
                let cleared = self.multi.clear(feed, range).map_err(|error| self.failed(error));
                self.refresh(feed);
                answer.send(cleared);
            }
            ReadCall::Audit { feed, from, answer } => {
                let audit = self.multi.audit_step(feed, from, AUDIT_STEP_BYTES).map_err(|error| self.failed(error));
                self.refresh(feed);
                answer.send(audit);
            }
            ReadCall::Repair { feed, mut cursor, answer } => {
                let step =
                    self.multi.repair_step(feed, &mut cursor, AUDIT_STEP_BYTES).map_err(|error| self.failed(error));
                self.refresh(feed);
                answer.send(step.map(|step| (step, cursor)));
            }
            ReadCall::CountHeld { feed, range, answer } => answer.send(self.multi.count_held(feed, range)),
            ReadCall::Peers { feed, answer } => {
                let peers = self.multi.peers(feed).into_iter();
                answer.send(
                    peers.filter_map(|(peer, info)| Some(FeedPeer { sync: self.sync_of(peer)?, info })).collect(),
                );
            }
            ReadCall::Roots { feed, blocks, answer } => {
                answer.send(self.multi.roots_at(feed, blocks).map_err(|error| self.failed(error)));
            }
            ReadCall::Signature { feed, from, answer } => {
                answer.send(
                    self.multi.signature_step(feed, from, SIGNATURE_STEP_BYTES).map_err(|error| self.failed(error)),
                );
            }
            ReadCall::VerifySignature { feed, blocks, signature, answer } => {
                answer.send(self.multi.verify_signature(feed, blocks, &signature).map_err(|error| self.failed(error)));
            }
            ReadCall::Transfer { feed, download, upload, answer } => {
                let set = self.multi.set_transfer(feed, download, upload);
                answer.send(set.map_err(|error| self.failed(error)));
            }
            ReadCall::KeyPair { feed, answer } => answer.send(self.multi.key_pair(feed).map(Box::new)),
            ReadCall::Watch { feed, queue, answer } => {
                self.watchers.add(feed, queue);
                let watched = self.multi.watch(feed, true);
                if self.multi.is_removed(feed) {
                    // Its end was reported before.
                    self.watchers.forget(feed);
                }
                answer.send(watched.map_err(|error| self.failed(error)));
            }
        }
    }

    /// Answers the calls whose waiting ended.
    pub(crate) fn end_waits(&mut self) {
        while let Some((want, end)) = self.multi.poll_want() {
            let Some(waiter) = self.waits.take(want) else { continue };
            let failed = match end {
                WantEnd::TimedOut => Some(Error::TimedOut),
                WantEnd::Unavailable => Some(Error::Unavailable),
                WantEnd::Cancelled => Some(Error::Cancelled),
                WantEnd::Removed => Some(Error::Want(WantError::Removed)),
                _ => None,
            };
            match (waiter, failed, end) {
                (waiter, Some(error), _) => waiter.fail(error),
                (Waiter::Blocks { feed, index, until, answer }, None, _) => {
                    self.refresh(feed);
                    answer.send(self.held(feed, index, until));
                }
                (Waiter::Download { answer }, None, _) => answer.send(Ok(())),
                (Waiter::Length { feed, answer }, None, _) => {
                    self.refresh(feed);
                    answer.send(Ok(self.len(feed)));
                }
                (Waiter::Place { answer }, None, WantEnd::Found(place)) => answer.send(Ok(place)),
                (waiter @ Waiter::Place { .. }, None, _) => waiter.fail(Error::Unavailable),
            }
        }
    }

    fn wait_for(&mut self, feed: FeedId, want: Want, wait: Wait, ticket: Ticket, waiter: Waiter) {
        let deadline = wait.timeout.map(|timeout| self.now().saturating_add(timeout));
        match self.multi.want(feed, want, WantOptions { deadline, if_available: wait.if_available }) {
            Ok(want) => self.waits.add(want, ticket, waiter),
            Err(error) => waiter.fail(error.into()),
        }
        self.end_waits();
    }

    fn len(&self, feed: FeedId) -> u64 {
        self.multi.info(feed).map_or(0, |info| info.len)
    }

    /// Held blocks from `index` on; at least that one.
    fn held(&mut self, feed: FeedId, index: u64, until: u64) -> Result<Vec<Bytes>, Error> {
        let mut blocks = Vec::new();
        let mut bytes = 0;
        let mut at = index;
        while at < until && blocks.len() < READ_BLOCKS && bytes < READ_BYTES {
            match self.multi.get(feed, at) {
                Ok(Some(block)) => {
                    bytes += block.len();
                    blocks.push(block);
                    at += 1;
                }
                Ok(None) if at > index => break,
                Ok(None) => return Err(Error::NotHeld { feed: self.multi.info(feed)?.key, index }),
                // What came before it is good.
                Err(_) if at > index => break,
                Err(source) => {
                    let source = self.multi.told(source);
                    return Err(Error::Read { feed: self.multi.info(feed)?.key, index, source });
                }
            }
        }
        Ok(blocks)
    }
}
