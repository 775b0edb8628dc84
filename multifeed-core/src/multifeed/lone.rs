//! Sessions of one feed alone, without lists: what hypercore's own `replicate` does.

use multifeed_proto::{FeedKey, Root, SessionError};

use super::{Multifeed, PeerId};
use crate::error::StoreError;
use crate::peering::Peering;
use crate::replicate::{PeerEvent, Replicate};
use crate::storage::Storage;

impl<S: Storage> Multifeed<S> {
    /// Adds a session of one feed alone, as hypercore's `feed.replicate()` has: without a root key, without lists of feeds. The stream may be
    /// one that others use as well, on which this session is named `root`; its channel is named by [`Token::new`](multifeed_proto::Token::new)
    /// with that. A feed that is not known yet has its place in the store from when the stream is there.
    ///
    /// Nothing tells here whether the remote stays. A session that is not live ends when both sides hold the same; a live one
    /// when the remote closes the feed's channel, or the stream. Either ends with [`SessionError::NoFeed`] where the remote closes it without
    /// having opened it; one that is not live also where it is not opened in [`Limits::request_timeout`](crate::Limits::request_timeout).
    pub fn connect_feed(&mut self, root: Root, key: FeedKey, options: Replicate) -> PeerId {
        self.add_peering(options, |options| Peering::of_one(root, options, key))
    }

    /// The stream is there: where a session is about one feed alone, that is all it needs.
    pub(super) fn begin_lone(&mut self, id: PeerId) {
        let Some(key) = self.peerings.get_mut(&id).and_then(Peering::begin_lone) else { return };
        let is_new = self.catalog.find(&key).is_none();
        let blocked = self.blocked.contains(&key).then_some(StoreError::Blocked { key });
        let added = blocked.map_or_else(|| self.add(key), Err).map(|feed| (feed, self.info(feed).name));
        let Some(peering) = self.peerings.get_mut(&id) else { return };
        match added {
            Ok((feed, name)) => {
                peering.known.insert(u64::from(feed.0));
                if is_new {
                    peering.events.push_back(PeerEvent::Feed { key, name });
                }
                self.replicate_feed(id, feed);
            }
            Err(error) => peering.fail(error),
        }
    }

    /// A session of one feed alone has lost it, or waited for it long enough. Whether it ends because the remote never opened it.
    pub(super) fn miss_lone(&mut self, id: PeerId) -> bool {
        let Some(peering) = self.peerings.get_mut(&id) else { return false };
        let missed = peering.is_running() && !peering.peers.values().any(|peer| peer.is_opened());
        let Some(feed) = peering.lone().filter(|_| missed) else {
            return false;
        };
        peering.abort(SessionError::NoFeed { feed });
        self.wake(id);
        true
    }
}
