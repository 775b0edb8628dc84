//! Sessions of one feed alone, without lists: what hypercore's own `replicate` does.

use multifeed_proto::{FeedKey, Root, SessionError};

use crate::error::StoreError;
use crate::ids::SessionId;
use crate::multifeed::{Multifeed, feed_name};
use crate::replication::peer_session::PeerSession;
use crate::replication::replicate::{PeerEvent, Replicate};
use crate::storage::Storage;

impl<S: Storage> Multifeed<S> {
    /// Adds a session of one feed alone, as hypercore's `feed.replicate()` has: without a root key, without lists of feeds. The stream may be
    /// one that others use as well, on which this session is named `root`; its channel is named by [`Token::new`](multifeed_proto::Token::new)
    /// with that. A feed that is not known yet has its place in the store from when the stream is there.
    ///
    /// Nothing tells here whether the remote stays. A session that is not live ends when both sides hold the same; a live one
    /// when the remote closes the feed's channel, or the stream. Either ends with [`SessionError::NoFeed`] if the remote closes it without
    /// having opened it; one that is not live also if it is not opened in [`Limits::request_timeout`](crate::Limits::request_timeout).
    pub fn connect_feed(&mut self, root: Root, key: FeedKey, options: Replicate) -> SessionId {
        self.add_peering(options, |options| PeerSession::of_one(root, options, key))
    }

    /// The stream is there: if a session is about one feed alone, that is all it needs.
    pub(in crate::multifeed) fn begin_lone(&mut self, id: SessionId) {
        let Some(key) = self.sessions.get_mut(&id).and_then(PeerSession::begin_lone) else { return };
        let is_new = self.members.catalog.find(&key).is_none();
        let banned = self.members.banned.contains(&key).then_some(StoreError::Banned { key });
        let added = banned.map_or_else(|| self.add(key), Err).map(|feed| (feed, feed_name(&self.slot(feed).feed)));
        let Some(session) = self.sessions.get_mut(&id) else { return };
        match added {
            Ok((feed, name)) => {
                session.known.insert(u64::from(feed.0));
                if is_new {
                    session.events.push_back(PeerEvent::Feed { key, name });
                }
                self.replicate_feed(id, feed);
            }
            Err(error) => session.fail(error),
        }
    }

    /// A session of one feed alone has lost it, or waited for it long enough. Whether it ends because the remote never opened it.
    pub(in crate::multifeed) fn miss_lone(&mut self, id: SessionId) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        let missed = session.is_running() && !session.peers.values().any(|peer| peer.is_opened());
        let Some(feed) = session.single_feed().filter(|_| missed) else {
            return false;
        };
        session.abort(SessionError::NoFeed { feed });
        self.wake(id);
        true
    }
}
