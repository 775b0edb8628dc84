//! Beginning to sync: a multifeed or one feed, on a stream.

use std::sync::Arc;

use futures_io::{AsyncRead, AsyncWrite};
use multifeed_core::{Replicate, SyncError};
use multifeed_proto::{DEFAULT_ROOT_KEY, FeedKey, Role, Root, RootConfig, Session, SessionError};

use crate::handles::feed::Feed;
use crate::handles::multifeed::Multifeed;
use crate::handles::replication::Replication;
use crate::handles::stream::ProtocolStream;
use crate::options::PumpOptions;
use crate::randomness::system_rng;
use crate::runtime::Runtime;
use crate::shared::link::Link;
use crate::shared::session_events::SyncId;
use crate::store::calls::Shared;
use crate::stream::hub::{Join, StreamShared, Subject};
use crate::stream::member::Member;
use crate::stream::pump::Pump;

impl Multifeed {
    /// Syncs with the multifeed at the other end of a stream, in the background, on this runtime. The two ends of a stream must
    /// have different roles. The adapters' `replicate` is this, with their runtime and their streams.
    pub fn replicate_on<R: Runtime>(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        role: Role,
        options: Replicate,
    ) -> Replication {
        let shared = self.shared();
        let mut config = shared.session.clone();
        let tells_discovered = config.discover;
        options.configure(&mut config);
        let key = config.root.as_ref().map_or(DEFAULT_ROOT_KEY, |root| root.key);
        let link = self.link(Root::FIRST, None, options);
        let hub = Arc::new(StreamShared::new(&shared.store.options.pump));
        match system_rng() {
            Ok(mut rng) => {
                let session = Session::new(role, config, shared.store.clock.now(), &mut rng);
                // Before any call that comes after this one.
                link.begin();
                let member = Member::new(link.clone(), key);
                let options = shared.store.options.pump.clone();
                let mut pump = Pump::<_, R>::own(stream, session, member, hub.clone(), shared.store.clock, options);
                pump.tells_discovered = tells_discovered;
                R::spawn(pump);
            }
            Err(error) => {
                let error = SessionError::Local(error.to_string());
                hub.end(Err(error.clone()), Default::default());
                link.sync.end(Err(SyncError::Session(error)));
            }
        }
        Replication::new(link, hub, self.guard().clone())
    }

    /// Syncs over a stream that is there already, and that others may use as well, with the multifeed of the same root key at its other
    /// end. See [`ProtocolStream`]. The root key, and what our handshake says, are those of [`Options::session`](crate::Options::session).
    ///
    /// It fails with [`SessionError::Local`] if the stream is over, or a multifeed of the same root key is synced over it already. It
    /// fails with [`SessionError::Timeout`] if the remote does not have the root key in time.
    pub fn replicate_over(&self, stream: &ProtocolStream, options: Replicate) -> Replication {
        self.join_stream(stream, options, false)
    }

    /// As [`replicate_over`](Self::replicate_over); if `observed`, what the remote has is asked of it from the start.
    pub(crate) fn join_stream(&self, stream: &ProtocolStream, options: Replicate, observed: bool) -> Replication {
        let mut session = self.shared().session.clone();
        options.configure(&mut session);
        let config = session.root.unwrap_or_else(|| RootConfig::new(DEFAULT_ROOT_KEY));
        let link = self.link(stream.hub().next_root(), None, options);
        if observed {
            link.set_observed();
        }
        // Before any call that comes after this one.
        link.begin();
        stream.hub().join(Join { link: link.clone(), subject: Subject::Multifeed(config) });
        Replication::new(link, stream.hub().clone(), self.guard().clone())
    }

    /// Syncs one feed alone over a stream that is there already, and that others may use as well: what hypercore's own `feed.replicate` does, which
    /// may be at the other end. There is no root key and no list: both sides name the feed by its key. One that is new here has its
    /// place in the store from then on.
    ///
    /// A session that is not live ends when both sides hold the same blocks; a live one when the remote closes the feed's channel, or the
    /// stream. It fails with [`SessionError::NoFeed`] if the remote does not have the feed, or, unless live, has not
    /// opened it in [`request_timeout`](multifeed_core::Limits::request_timeout); and with [`SessionError::Local`] if the stream is over, or that
    /// key is synced over it already. If a multifeed on the same stream has the feed too, whichever opens it first syncs it there.
    ///
    /// ```no_run
    /// # use multifeed_driver::{FeedKey, Multifeed, ProtocolStream, Replicate};
    /// # async fn example(multi: Multifeed, stream: ProtocolStream, key: FeedKey) -> Result<(), Box<dyn std::error::Error>> {
    /// multi.replicate_feed(&stream, key, Replicate::default()).finish().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn replicate_feed(&self, stream: &ProtocolStream, key: FeedKey, options: Replicate) -> Replication {
        let link = self.link(stream.hub().next_root(), Some(key), options);
        // Before any call that comes after this one.
        link.begin();
        stream.hub().join(Join { link: link.clone(), subject: Subject::Feed(key) });
        Replication::new(link, stream.hub().clone(), self.guard().clone())
    }

    /// A link to the store, for a stream on which this multifeed is named `root`.
    fn link(&self, root: Root, lone: Option<FeedKey>, mut options: Replicate) -> Arc<Link> {
        let Shared { store, set, .. } = &**self.shared();
        options.set = *set;
        let id = SyncId(store.next_sync());
        let PumpOptions { events, event_bytes, .. } = store.options.pump;
        Arc::new(Link::new(root, lone, id, store.mailbox.rung.clone(), options, events, event_bytes))
    }
}

impl Feed {
    /// Syncs this feed alone over a stream that is there already: see [`Multifeed::replicate_feed`].
    pub fn replicate_over(&self, stream: &ProtocolStream, options: Replicate) -> Replication {
        Multifeed::new(self.guard.clone()).replicate_feed(stream, self.key(), options)
    }
}
