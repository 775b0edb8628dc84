//! The channels of a session, each of a feed with a machine or of one that was only offered.

use std::time::Duration;

use multifeed_proto::{Command, FeedKey, Token};

use super::PeerSession;
use crate::ids::FeedId;
use crate::replication::peer::FeedChannel;
use crate::replication::peer::parked::ParkedChannel;

/// What a channel is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    /// A feed with a machine.
    Feed(FeedId),
    /// A feed that was only offered, and has none.
    Offer(FeedKey),
    /// A feed whose channel this side closed, in a session that has to end.
    Closed(FeedId),
}

impl PeerSession {
    /// Gives a feed a machine, on the quiet channel that its offer left or on one that is opened. Returns what was known of a quiet one.
    pub(crate) fn open(&mut self, feed: FeedId, key: FeedKey, mut peer: FeedChannel) -> Option<ParkedChannel> {
        self.unmatch(feed);
        self.forget_left(feed, &key);
        self.not_taken.reopened(feed);
        let quiet = self.offers.forget(&key);
        peer.token = match &quiet {
            Some(quiet) => quiet.token,
            None => {
                let token = Token::new(self.root, self.next_token);
                self.next_token = self.next_token.wrapping_add(1);
                self.totals.feeds += 1;
                self.outgoing.push(Command::Open { token, key });
                token
            }
        };
        self.channels.insert(peer.token, Channel::Feed(feed));
        self.turns.set_busy(&mut peer, true);
        self.peers.insert(feed, Box::new(peer));
        quiet
    }

    /// The name of a feed's channel, if the feed has a machine.
    pub(crate) fn token(&self, feed: FeedId) -> Option<Token> {
        Some(self.peers.get(&feed)?.token)
    }

    /// What a channel is of, if it is not closed.
    pub(crate) fn channel(&self, token: Token) -> Option<Channel> {
        self.channels.get(&token).copied()
    }

    /// Takes a feed's machine away, and leaves its channel open and quiet.
    pub(crate) fn park(&mut self, feed: FeedId, key: FeedKey) -> Option<FeedChannel> {
        let peer = self.remove(feed)?;
        self.offers.park(key, peer.quiet());
        self.channels.insert(peer.token, Channel::Offer(key));
        Some(peer)
    }

    /// A quiet channel is closed. Its name, if there is one.
    pub(crate) fn forget(&mut self, key: &FeedKey) -> Option<Token> {
        let token = self.offers.forget(key)?.token;
        self.channels.remove(&token);
        Some(token)
    }

    /// A feed that both sides agreed on is not to be (any more): its channel closes as soon as the remote has opened it. Before that it could
    /// not tell that it is closed; so if there is none, it is opened for it, and is quiet until then.
    pub(crate) fn refuse(&mut self, key: FeedKey, now: Duration) {
        if let Some(token) = self.end_refused(key, now) {
            self.renounce(token);
        }
    }

    /// As [`refuse`](Self::refuse), of a feed that is wanted: a live remote takes itself to be out of sync then.
    pub(crate) fn refuse_silently(&mut self, key: FeedKey, now: Duration) {
        if let Some(token) = self.end_refused(key, now) {
            self.extend(Command::Close { token });
        }
    }

    /// The channel of a feed that is not to be, if it is open on both sides. If it is not, it is opened, and is quiet until then.
    fn end_refused(&mut self, key: FeedKey, now: Duration) -> Option<Token> {
        let now = self.transfer.time(now);
        if self.offers.is_unopened(&key) {
            self.offers.pass_over(&key);
            return None;
        }
        if let Some(token) = self.forget(&key) {
            return Some(token);
        }
        if !self.is_running() {
            return None;
        }
        let token = Token::new(self.root, self.next_token);
        self.next_token = self.next_token.wrapping_add(1);
        let quiet = ParkedChannel {
            token,
            since: now,
            opened: false,
            wants: None,
            remote_transfers: (true, true),
            acks: false,
            downloading: false,
        };
        self.outgoing.push(Command::Open { token, key });
        self.channels.insert(token, Channel::Offer(key));
        self.offers.park(key, quiet);
        None
    }

    /// In a session that has to end, channels that the remote left unopened since then are closed.
    pub(crate) fn close_unopened(&mut self, since: Duration) {
        if self.is_live() {
            return;
        }
        for key in self.offers.unopened_since(since) {
            if let Some(token) = self.forget(&key) {
                self.extend(Command::Close { token });
            }
        }
    }
}
