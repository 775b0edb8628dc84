//! The application's extensions on feeds' channels, as the store's thread serves them.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use multifeed_core::{ExtensionError, FeedId, Limits, Multifeed, SessionId, SetId, Storage};

use crate::error::Error;
use crate::oneshot::Answer;
use crate::shared::inbox::{FeedMessage, Inbox, Room};
use crate::shared::session_events::SyncId;
use crate::store::calls::call::ExtensionCall;
use crate::store::calls::waiting::Ticket;
use crate::store::thread::Store;

/// The applications' inboxes for extensions on feeds' channels, as the store's thread keeps them.
#[derive(Debug)]
pub(crate) struct FeedInboxes {
    inboxes: BTreeMap<(FeedId, Arc<str>), Weak<Inbox<FeedMessage>>>,
    /// Who waits until a remote speaks which.
    waiting: BTreeMap<Ticket, Waiter>,
    room: Room,
}

#[derive(Debug)]
struct Waiter {
    feed: FeedId,
    name: Arc<str>,
    answer: Answer<Result<SyncId, Error>>,
}

impl FeedInboxes {
    pub(crate) fn new(limits: &Limits) -> Self {
        let room = Room { messages: limits.extension_messages, bytes: limits.extension_bytes };
        Self { inboxes: BTreeMap::new(), waiting: BTreeMap::new(), room }
    }

    /// An inbox for an extension that was registered; none if another handle has that name.
    pub(crate) fn register(&mut self, feed: FeedId, name: Arc<str>) -> Option<Arc<Inbox<FeedMessage>>> {
        let slot = self.inboxes.entry((feed, name)).or_default();
        if slot.strong_count() > 0 {
            return None;
        }
        let inbox = Arc::new(Inbox::new(self.room));
        *slot = Arc::downgrade(&inbox);
        Some(inbox)
    }

    /// A feed was removed: its extensions hear nothing any more.
    pub(crate) fn forget(&mut self, feed: FeedId) {
        self.inboxes.retain(|(of, _), inbox| {
            if *of == feed {
                inbox.upgrade().into_iter().for_each(|inbox| inbox.close());
            }
            *of != feed
        });
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let (gone, waiting): (Vec<_>, Vec<_>) = waiting.partition(|(_, waiter)| waiter.feed == feed);
        self.waiting = waiting.into_iter().collect();
        gone.into_iter().for_each(|(_, waiter)| waiter.answer.send(Err(Error::Extension(ExtensionError::Gone))));
    }

    /// Nobody waits any more. Whether somebody did.
    pub(crate) fn give_up(&mut self, ticket: Ticket) -> bool {
        self.waiting.remove(&ticket).is_some()
    }

    /// A multifeed is closed, which all that wait for it hear.
    pub(crate) fn close(&mut self, set: SetId) {
        self.waiting.retain(|ticket, _| ticket.set != set);
    }

    /// All are.
    pub(crate) fn close_all(&mut self) {
        self.waiting.clear();
    }

    pub(crate) fn deliver(&self, message: multifeed_core::FeedMessage, from: Option<SyncId>) {
        let size = message.body.len();
        let inbox = self.inboxes.get(&(message.feed, message.name)).and_then(Weak::upgrade);
        if let (Some(inbox), Some(from)) = (inbox, from) {
            inbox.push(FeedMessage { from, body: message.body }, size);
        }
    }
}

impl Drop for FeedInboxes {
    fn drop(&mut self) {
        self.inboxes.values().filter_map(Weak::upgrade).for_each(|inbox| inbox.close());
    }
}

impl<S: Storage> Store<S> {
    pub(super) fn extend(&mut self, call: ExtensionCall) {
        match call {
            ExtensionCall::Register { feed, name, answer } => {
                let registered = self.multi.register_extension(feed, &name).and_then(|()| {
                    let inbox = self.inboxes.register(feed, name.clone());
                    inbox.ok_or_else(|| ExtensionError::Taken(name.as_ref().to_owned()))
                });
                answer.send(registered.map_err(Error::Extension));
            }
            ExtensionCall::Speakers { feed, name, answer } => {
                let speakers = self.multi.extension_speakers(feed, &name);
                answer.send(speakers.into_iter().filter_map(|peer| self.sync_of(peer)).collect());
            }
            ExtensionCall::Ready { feed, name, ticket, answer } => {
                self.inboxes.waiting.insert(ticket, Waiter { feed, name, answer });
                self.answer_ready();
            }
            ExtensionCall::Send { feed, to, name, body, answer } => {
                let peer = |id: SyncId| {
                    self.peers.iter().find(|(_, connected)| connected.link.id == id).map(|(&peer, _)| peer)
                };
                let to = to.map(peer);
                answer.send(send(&mut self.multi, feed, to, &name, &body).map_err(Error::Extension));
            }
        }
    }

    /// Answers those that wait for a remote that speaks an extension now.
    pub(super) fn answer_ready(&mut self) {
        if self.inboxes.waiting.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut self.inboxes.waiting);
        for (ticket, waiter) in waiting {
            let speakers = self.multi.extension_speakers(waiter.feed, &waiter.name);
            match speakers.into_iter().find_map(|peer| self.sync_of(peer)) {
                Some(speaker) => waiter.answer.send(Ok(speaker)),
                None => _ = self.inboxes.waiting.insert(ticket, waiter),
            }
        }
    }

    /// Passes on what extensions say on feeds' channels: at once, so that what is lost is lost, and counted, in the application's queue.
    pub(super) fn pass_messages(&mut self) {
        while let Some(message) = self.multi.poll_extension() {
            let from = self.sync_of(message.from);
            self.inboxes.deliver(message, from);
        }
    }
}

/// Sends to one peer, or to all: how many of those that it went to say that they speak it.
fn send<S: Storage>(
    multi: &mut Multifeed<S>,
    feed: FeedId,
    to: Option<Option<SessionId>>,
    name: &str,
    body: &Bytes,
) -> Result<usize, ExtensionError> {
    match to {
        Some(peer) => multi.send_extension(feed, peer.ok_or(ExtensionError::Gone)?, name, body.clone()).map(|()| 1),
        None => {
            ExtensionError::check(name, body)?;
            let speakers = multi.extension_speakers(feed, name);
            // To the others as well: one may have registered it, and what says so be under way.
            let peers = multi.extension_peers(feed).into_iter();
            let took = peers.filter(|&peer| multi.send_extension(feed, peer, name, body.clone()).is_ok());
            Ok(took.filter(|peer| speakers.contains(peer)).count())
        }
    }
}
