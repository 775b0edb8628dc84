//! Channels on which nothing moves, and that need no machine until the remote says something.

use std::time::Duration;

use multifeed_proto::{Message, Token};

use super::download::WANT_BLOCKS;
use super::{FeedChannel, PeerFault, Work};
use crate::storage::Storage;

/// A channel of which nothing is remembered but that it is there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ParkedChannel {
    pub(crate) token: Token,
    /// When it was opened here.
    pub(crate) since: Duration,
    /// Both sides opened it.
    pub(crate) opened: bool,
    /// What the remote wants to hear of it: the start and length of a Want.
    pub(crate) wants: Option<(u64, u64)>,
    /// Whether the remote serves and fetches blocks of it, as it said last.
    pub(crate) remote_transfers: (bool, bool),
    /// Whether the remote wants to hear of each block that it sent when that is here.
    pub(crate) acks: bool,
    /// Whether it is fetched if the remote has something of it.
    pub(crate) downloading: bool,
}

impl FeedChannel {
    /// Returns what another machine needs to know of the channel, when it takes over.
    pub(crate) fn quiet(&self) -> ParkedChannel {
        ParkedChannel {
            token: self.token,
            since: self.since,
            opened: self.state.was_opened(),
            wants: self.upload.asked_at().map(|_| (0, WANT_BLOCKS)),
            remote_transfers: (self.remote.uploading, self.remote.downloading),
            acks: self.acks.remote(),
            downloading: self.fetch.is_on(),
        }
    }

    /// Takes over a channel of which another machine left this.
    pub(crate) fn take_over<S: Storage>(
        &mut self,
        quiet: &ParkedChannel,
        work: &mut Work<'_, S>,
    ) -> Result<(), PeerFault> {
        self.acks.set_remote(quiet.acks);
        let (uploading, downloading) = quiet.remote_transfers;
        if !(uploading && downloading) {
            let _ = self.handle(Message::Status { uploading, downloading }, work)?;
        }
        if let Some((start, length)) = quiet.wants {
            let _ = self.handle(Message::Want { start, length }, work)?;
        }
        if quiet.opened {
            self.open(work);
            if self.fetch.is_on() && self.uploading && !quiet.downloading {
                // It heard the contrary.
                self.send_status(true, true);
            }
        }
        Ok(())
    }

    /// Whether, in a live session, both sides opened the channel, and nothing is under way on it for now.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.options.live
            && self.state.was_opened()
            && self.out.is_empty()
            && self.upload.is_idle()
            && self.download.waits_since().is_none()
    }

    /// Whether the remote has not opened the channel, which was opened here at that time or before.
    pub(crate) fn is_unopened_since(&self, time: Duration) -> bool {
        !self.state.was_opened() && self.since <= time
    }

    /// Whether, in a live session, nothing will come or go until the remote says something. Either it told what it has and that is
    /// nothing, or it did not open the channel for so long.
    pub(crate) fn is_quiet(&self, now: Duration, patience: Duration) -> bool {
        if !self.options.live || !self.state.goes_on() || !self.out.is_empty() || !self.upload.is_idle() {
            return false;
        }
        match self.state.was_opened() {
            false => now >= self.since + patience,
            true => self.download.has_nothing() || (!self.fetch.is_on() && !self.download.is_asking()),
        }
    }
}
