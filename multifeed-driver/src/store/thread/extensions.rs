//! The application's extensions on feeds' channels, as the store's thread serves them.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use multifeed_core::{ExtensionError, FeedId, Limits, Multifeed, SessionId, Storage};

use crate::error::Error;
use crate::shared::inbox::{FeedMessage, Inbox, Room};
use crate::shared::session_events::SyncId;
use crate::store::calls::call::ExtensionCall;
use crate::store::thread::Store;

/// The applications' inboxes for extensions on feeds' channels, as the store's thread keeps them.
#[derive(Debug)]
pub(crate) struct FeedInboxes {
    inboxes: BTreeMap<(FeedId, Arc<str>), Weak<Inbox<FeedMessage>>>,
    room: Room,
}

impl FeedInboxes {
    pub(crate) fn new(limits: &Limits) -> Self {
        let room = Room { messages: limits.extension_messages, bytes: limits.extension_bytes };
        Self { inboxes: BTreeMap::new(), room }
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
            ExtensionCall::Send { feed, to, name, body, answer } => {
                let peer = |id: SyncId| {
                    self.peers.iter().find(|(_, connected)| connected.link.id == id).map(|(&peer, _)| peer)
                };
                let to = to.map(peer);
                answer.send(send(&mut self.multi, feed, to, &name, &body).map_err(Error::Extension));
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

/// Sends to one peer, or to all; how many took it.
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
            let peers = multi.extension_peers(feed);
            Ok(peers.into_iter().filter(|&peer| multi.send_extension(feed, peer, name, body.clone()).is_ok()).count())
        }
    }
}
