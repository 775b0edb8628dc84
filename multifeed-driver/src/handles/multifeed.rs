//! A multifeed, as the application sees it.

use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};
use std::{fmt, thread};

use futures_io::{AsyncRead, AsyncWrite};
use multifeed_core::{
    Corestore, CorestoreOptions, ExposedKey, FileCoreStorage, FileStorage, KeyPair, MasterKey, MemoryStorage,
    Namespace, Rearranged, Recovered, RepairedInMemory, Replicate, SetId, Storage, StoreError, SyncError, Unsupported,
};
use multifeed_proto::{DEFAULT_ROOT_KEY, DiscoveryKey, FeedKey, Role, Root, RootConfig, Session, SessionError};
use rand::SeedableRng;
use rand::rngs::{StdRng, SysRng};

use crate::clock::Clock;
use crate::error::Error;
use crate::handles::events::{EventQueue, Events};
use crate::handles::feed::Feed;
use crate::handles::replication::{Replication, SyncId};
use crate::handles::stream::ProtocolStream;
use crate::lock;
use crate::oneshot::{self, Answer};
use crate::options::{Options, PumpOptions};
use crate::runtime::Runtime;
use crate::store::call::Call;
use crate::store::mailbox::Mailbox;
use crate::store::table::FeedTable;
use crate::store::thread::Store;
use crate::store::waits::{Ticket, Waiting};
use crate::stream::hub::{Join, StreamShared, Subject};
use crate::stream::link::Link;
use crate::stream::member::Member;
use crate::stream::pump::Pump;

/// A set of feeds that syncs as one: ours, each with a writer's name, and those that others share with us.
///
/// The feeds live on a thread of their own, which does all reading, writing and checking. Clones are the same multifeed;
/// when the last of them, and of its feeds and sessions, is dropped, it is closed.
#[derive(Clone)]
pub struct Multifeed {
    guard: Arc<Guard>,
}

/// What the handles and the store's thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) table: FeedTable,
    pub(crate) clock: Clock,
    subscribers: Mutex<Vec<Weak<EventQueue>>>,
    closed: Mutex<Closed>,
    pub(crate) options: Options,
    syncs: AtomicU64,
    tickets: AtomicU64,
    problems: Mutex<Vec<StoreError>>,
    recovered: Mutex<Vec<Recovered>>,
    exposed: Mutex<Vec<ExposedKey>>,
    rearranged: Mutex<Vec<Rearranged>>,
    conflicts: AtomicUsize,
    unsupported: Mutex<Unsupported>,
}

#[derive(Debug, Default)]
struct Closed {
    closed: bool,
    /// How it went; `None` where the thread failed.
    result: Option<Result<(), StoreError>>,
    wakers: Vec<Waker>,
}

/// Held by every handle; the last one dropped closes the store.
#[derive(Debug)]
pub(crate) struct Guard(pub(crate) Arc<Shared>);

impl Multifeed {
    /// Opens the multifeed in a folder; the folder is made where there is none.
    ///
    /// # Errors
    /// [`Error::Store`] where another process has the folder open, or it cannot be made or read.
    pub async fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        let path: PathBuf = path.as_ref().to_owned();
        let files = options.files.clone();
        Self::start(move || Ok(FileStorage::open_with(&path, files)?), options).await
    }

    /// Opens the multifeed of a root key, that of [`Options::session`], in a corestore's folder, as `@frando/corestore-multifeed` keeps it there; or in
    /// a namespace of the corestore. The folder, its master key and the multifeed are made if they are missing. Writers' keys are derived from the
    /// master key, the root key and the name: a key pair of one's own ([`writer_with`](Self::writer_with)) is refused, and without a name there is one
    /// writer, as in JS.
    ///
    /// While it is open no other multifeed of the folder can be.
    ///
    /// # Errors
    /// [`Error::Store`] if another process has the folder open, it is another kind of store's, or it cannot be made or read.
    pub async fn open_corestore(
        path: impl AsRef<Path>,
        namespace: &Namespace,
        options: Options,
    ) -> Result<Self, Error> {
        let path: PathBuf = path.as_ref().to_owned();
        let (files, limits) = (options.files.clone(), options.multifeed.limits.clone());
        let master_key = generate_master_key()?;
        let storage = move || {
            let storage = FileCoreStorage::open_with(&path, files).map_err(StoreError::from)?;
            let store = Corestore::open(storage, CorestoreOptions::default(), || master_key);
            Ok(store.map_err(StoreError::from)?.into_files(&limits)?)
        };
        Self::start_in(storage, options, Some(namespace.clone())).await
    }

    /// As [`open_corestore`](Self::open_corestore), only to be read: nothing is made or changed in the folder, and what opening repairs stays in memory.
    /// `beside` takes no lock: another process that has the folder open may change what is read.
    ///
    /// # Errors
    /// As there, and if the folder or its master key is missing.
    pub async fn read_corestore(
        path: impl AsRef<Path>,
        namespace: &Namespace,
        beside: bool,
        options: Options,
    ) -> Result<Self, Error> {
        let path: PathBuf = path.as_ref().to_owned();
        let (files, limits) = (options.files.clone(), options.multifeed.limits.clone());
        let master_key = generate_master_key()?;
        let storage = move || {
            let open = if beside { FileCoreStorage::open_beside_with } else { FileCoreStorage::open_read_only_with };
            let storage = open(path, files).map_err(StoreError::from)?;
            let store = Corestore::open(storage, CorestoreOptions::default(), || master_key);
            Ok(RepairedInMemory::new(store.map_err(StoreError::from)?.into_files(&limits)?))
        };
        Self::start_in(storage, options, Some(namespace.clone())).await
    }

    /// A new multifeed that lives in memory.
    ///
    /// # Errors
    /// [`Error::Thread`].
    pub async fn in_memory(options: Options) -> Result<Self, Error> {
        Self::with_storage(MemoryStorage::default(), options).await
    }

    /// Opens the multifeed in any storage.
    ///
    /// # Errors
    /// [`Error::Store`] where it cannot be read.
    pub async fn with_storage(storage: impl Storage + Send + 'static, options: Options) -> Result<Self, Error> {
        Self::start(move || Ok(storage), options).await
    }

    async fn start<S: Storage + 'static>(
        storage: impl FnOnce() -> Result<S, Error> + Send + 'static,
        options: Options,
    ) -> Result<Self, Error> {
        Self::start_in(storage, options, None).await
    }

    async fn start_in<S: Storage + 'static>(
        storage: impl FnOnce() -> Result<S, Error> + Send + 'static,
        options: Options,
        namespace: Option<Namespace>,
    ) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            mailbox: Arc::new(Mailbox::new(options.calls)),
            table: FeedTable::default(),
            clock: Clock::start(),
            subscribers: Mutex::default(),
            closed: Mutex::default(),
            options,
            syncs: AtomicU64::new(0),
            tickets: AtomicU64::new(0),
            problems: Mutex::default(),
            recovered: Mutex::default(),
            exposed: Mutex::default(),
            rearranged: Mutex::default(),
            conflicts: AtomicUsize::new(0),
            unsupported: Mutex::default(),
        });
        let guard = Arc::new(Guard(shared.clone()));
        let (answer, opened) = oneshot::channel();
        // Opening reads the disk: it too is the thread's work.
        let body = move || match open(storage, &shared, namespace.as_ref()) {
            Ok(store) => {
                answer.send(Ok(()));
                store.run();
            }
            Err(error) => answer.send(Err(error)),
        };
        thread::Builder::new().name("multifeed-store".into()).spawn(body).map_err(Error::Thread)?;
        opened.await.map_err(|_| Error::Closed)??;
        Ok(Self { guard })
    }

    /// The writer of this name: found, or made with a new key pair. Without a name it is named by the number of its folder, or by
    /// its key where that number is another writer's name. A remote's feed whose number is the name that is asked for is named by its key
    /// from then on: no two feeds have one name, and JS would give it for the writer.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Random`], [`Error::Closed`].
    pub async fn writer<'a>(&self, name: impl Into<Option<&'a str>>) -> Result<Feed, Error> {
        self.writer_of(name.into().map(str::to_owned), None).await
    }

    /// The writer of this name: found, or made with this key pair.
    ///
    /// # Errors
    /// As [`writer`](Self::writer).
    pub async fn writer_with<'a>(&self, name: impl Into<Option<&'a str>>, key_pair: KeyPair) -> Result<Feed, Error> {
        self.writer_of(name.into().map(str::to_owned), Some(Box::new(key_pair))).await
    }

    async fn writer_of(&self, name: Option<String>, key_pair: Option<Box<KeyPair>>) -> Result<Feed, Error> {
        let state = self.guard.ask(|answer| Call::Writer { name, key_pair, answer }).await??;
        Ok(Feed::new(state, self.guard.clone()))
    }

    /// The feed of this key: found, or given its folder now, before anything of it came. Without this, a feed of somebody else's is here
    /// once its first block came (in a sparse session its length), and until then known by its key alone, which
    /// [`SyncEvent::RemoteFeeds`](crate::SyncEvent::RemoteFeeds) tells.
    ///
    /// # Errors
    /// [`Error::Store`] where there are as many feeds as there may be, or writing fails; [`Error::Closed`].
    pub async fn add(&self, key: FeedKey) -> Result<Feed, Error> {
        let state = self.guard.ask(|answer| Call::Add { key, answer }).await??;
        Ok(Feed::new(state, self.guard.clone()))
    }

    /// All feeds, ours and others', in the order of their folders. None after [`close`](Self::close).
    pub fn feeds(&self) -> Vec<Feed> {
        self.shared().table.all().into_iter().map(|state| Feed::new(state, self.guard.clone())).collect()
    }

    /// The feed of this key, where it is known: a [`FeedKey`], a [`DiscoveryKey`], or 64 hex digits, which may be either.
    pub fn feed(&self, key: impl Into<FeedRef>) -> Option<Feed> {
        let table = &self.shared().table;
        let state = match key.into().0 {
            Reference::Key(key) => table.by_key(&key),
            Reference::DiscoveryKey(key) => table.by_discovery_key(&key),
            Reference::Either(bytes) => {
                table.by_key(&FeedKey::new(bytes)).or_else(|| table.by_discovery_key(&DiscoveryKey::new(bytes)))
            }
            Reference::Neither => None,
        }?;
        Some(Feed::new(state, self.guard.clone()))
    }

    /// The feed of this name, where there is one.
    pub fn feed_by_name(&self, name: &str) -> Option<Feed> {
        Some(Feed::new(self.shared().table.by_name(name)?, self.guard.clone()))
    }

    /// What happens to the feeds from now on.
    pub fn events(&self) -> Events {
        let queue = Arc::new(EventQueue::default());
        let mut subscribers = lock(&self.shared().subscribers);
        subscribers.retain(|subscriber| subscriber.strong_count() > 0);
        subscribers.push(Arc::downgrade(&queue));
        drop(subscribers);
        if self.is_closed() {
            queue.close();
        }
        Events::new(queue, self.guard.clone())
    }

    /// Syncs with the multifeed at the other end of a stream, in the background, on this runtime. The two ends of a stream must
    /// have different roles. The adapters' `replicate` is this, with their runtime and their streams.
    pub fn replicate_on<R: Runtime>(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        role: Role,
        options: Replicate,
    ) -> Replication {
        let shared = self.shared();
        let mut config = shared.options.session.clone();
        let tells_discovered = config.discover;
        options.configure(&mut config);
        let key = config.root.as_ref().map_or(DEFAULT_ROOT_KEY, |root| root.key);
        let link = self.link(Root::FIRST, None, options);
        let hub = Arc::new(StreamShared::new(&shared.options.pump));
        match StdRng::try_from_rng(&mut SysRng) {
            Ok(mut rng) => {
                let session = Session::new(role, config, shared.clock.now(), &mut rng);
                // Before any call that comes after this one.
                link.begin();
                let member = Member::new(link.clone(), key);
                let options = shared.options.pump.clone();
                let mut pump = Pump::<_, R>::own(stream, session, member, hub.clone(), shared.clock, options);
                pump.tells_discovered = tells_discovered;
                R::spawn(pump);
            }
            Err(error) => {
                let error = SessionError::Local(Error::Random(error.to_string()).to_string());
                hub.end(Err(error.clone()), Default::default());
                link.sync.end(Err(SyncError::Session(error)));
            }
        }
        Replication::new(link, hub, self.guard.clone())
    }

    /// Syncs over a stream that is there already, and that others may use as well, with the multifeed of the same root key at its other
    /// end. See [`ProtocolStream`]. The root key, and what our handshake says, are those of [`Options::session`].
    ///
    /// It fails by [`SessionError::Local`] where the stream is over, or a multifeed of the same root key is synced over it already, and
    /// by [`SessionError::Timeout`] where the remote does not have the root key in time.
    pub fn replicate_over(&self, stream: &ProtocolStream, options: Replicate) -> Replication {
        let mut session = self.shared().options.session.clone();
        options.configure(&mut session);
        let config = session.root.unwrap_or_else(|| RootConfig::new(DEFAULT_ROOT_KEY));
        let link = self.link(stream.hub().next_root(), None, options);
        // Before any call that comes after this one.
        link.begin();
        stream.hub().join(Join { link: link.clone(), subject: Subject::Multifeed(config) });
        Replication::new(link, stream.hub().clone(), self.guard.clone())
    }

    /// Syncs one feed alone over a stream that is there already, and that others may use as well: what hypercore's own `feed.replicate` does, which
    /// may be at the other end. There is no root key and no list: both sides name the feed by its key. One that is new here has its
    /// place in the store from then on.
    ///
    /// A session that is not live ends when both sides hold the same; a live one when the remote closes the feed's channel, or the
    /// stream. It fails by [`SessionError::NoFeed`] where the remote does not have the feed, or, unless live, has not
    /// opened it in [`request_timeout`](multifeed_core::Limits::request_timeout); and by [`SessionError::Local`] where the stream is over, or that
    /// key is synced over it already. Where a multifeed on the same stream has the feed too, whichever opens it first syncs it there.
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
        Replication::new(link, stream.hub().clone(), self.guard.clone())
    }

    /// A link to the store, for a stream on which this multifeed is named `root`.
    fn link(&self, root: Root, lone: Option<FeedKey>, options: Replicate) -> Arc<Link> {
        let shared = self.shared();
        let id = SyncId(shared.syncs.fetch_add(1, Ordering::Relaxed));
        let PumpOptions { events, event_bytes, .. } = shared.options.pump;
        Arc::new(Link::new(root, lone, id, shared.mailbox.clone(), options, events, event_bytes))
    }

    /// Writes all that was appended and received before this call, and syncs it to the disk, whatever the
    /// [`Durability`](multifeed_core::Durability): what is there when this returns, a power cut does not take. The store does its other work
    /// in between. (JS has no such call.)
    ///
    /// # Errors
    /// [`Error::Store`], the first one: the other feeds are synced all the same. [`Error::Closed`].
    pub async fn sync_to_disk(&self) -> Result<(), Error> {
        let (mut from, mut result) = (None, Ok(()));
        loop {
            let (next, step) = self.guard.ask(|answer| Call::SyncToDisk { from, answer }).await?;
            (from, result) = (next, result.and(step));
            if from.is_none() {
                return Ok(result?);
            }
        }
    }

    /// Blocks a feed, whether it is here or not: it is not offered, not asked for, not opened for a remote and not fetched, on any session,
    /// until it is [unblocked](Self::unblock); sessions that sync it close its channel, and go on. The blocked keys are kept beside the
    /// feeds (`multifeed.blocked`). False where it was blocked before.
    ///
    /// What is here of the feed stays, and can be read; [`Feed::remove`] takes it away. A key pair of a blocked feed that is not here is not
    /// taken for a new writer.
    ///
    /// # Errors
    /// [`Error::Store`] where as many are blocked as [may be](multifeed_core::Limits::blocked), or the disk fails; it is not blocked then.
    /// [`Error::Closed`].
    pub async fn block(&self, key: FeedKey) -> Result<bool, Error> {
        self.guard.ask(|answer| Call::Block { key, blocks: true, answer }).await?
    }

    /// Unblocks a feed. What is here of it is offered to the sessions that are there; what their remotes have of it comes with the next
    /// ones. False where it was not blocked.
    ///
    /// # Errors
    /// [`Error::Store`] where the disk fails, [`Error::Closed`].
    pub async fn unblock(&self, key: FeedKey) -> Result<bool, Error> {
        self.guard.ask(|answer| Call::Block { key, blocks: false, answer }).await?
    }

    /// The blocked feeds, ascending.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn blocked(&self) -> Result<Vec<FeedKey>, Error> {
        self.guard.ask(|answer| Call::Blocked { answer }).await
    }

    /// Lets a new writer have the name of one that is [missing](StoreError::MissingWriter): the next [`writer`](Self::writer) of that name makes
    /// another feed, with a key of its own. False if no writer is missing that has, or may have, that name.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn release_missing_name(&self, name: &str) -> Result<bool, Error> {
        self.guard.ask(|answer| Call::ReleaseName { name: name.to_owned(), answer }).await
    }

    /// Gives up a writer that is [missing](StoreError::MissingWriter): its folder's number and its name are free, and its feed is blocked, as a
    /// copy of its key elsewhere could sign a second history. False if no writer of that key is missing.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails or as many feeds are blocked as may be, [`Error::Closed`].
    pub async fn give_up_missing(&self, key: FeedKey) -> Result<bool, Error> {
        self.guard.ask(|answer| Call::GiveUp { key, answer }).await?
    }

    /// The feeds that could not be opened, and the writers that are missing; the others are unharmed.
    pub fn problems(&self) -> Vec<StoreError> {
        lock(&self.shared().problems).clone()
    }

    /// What opening had to cut off after a crash.
    pub fn recovered(&self) -> Vec<Recovered> {
        lock(&self.shared().recovered).clone()
    }

    /// What opening changed of folders: removals that were cut short before, and folders that hold no feed and had to give their numbers to
    /// feeds.
    pub fn rearranged(&self) -> Vec<Rearranged> {
        lock(&self.shared().rearranged).clone()
    }

    /// The secret keys that others than the owner of their file may read or change, by its permissions on unix.
    pub fn exposed_keys(&self) -> Vec<ExposedKey> {
        lock(&self.shared().exposed).clone()
    }

    /// What the disk of the store turned out not to support, as far as it was tried: the store does without. Each is worth a warning, once.
    pub fn unsupported(&self) -> Unsupported {
        *lock(&self.shared().unsupported)
    }

    /// Closes files of the store that are open and not in use, for a process that has no file handle left for a connection. Returns how many
    /// that were. They are opened again as they are needed.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn close_idle_files(&self) -> Result<usize, Error> {
        self.guard.ask(|answer| Call::CloseIdleFiles { answer }).await
    }

    /// How many second histories were kept as evidence when the store was opened, in `multifeed.conflicts` beside the feeds.
    pub fn conflicts_kept(&self) -> usize {
        self.shared().conflicts.load(Ordering::Relaxed)
    }

    /// Ends all sessions, cleanly, writes what is not written, and releases the store. Calls that were accepted before are done. Whoever closes
    /// it again, meanwhile or later, is told how it went.
    ///
    /// # Errors
    /// [`Error::Store`] where the last writes fail; [`Error::Closed`] where its thread failed.
    pub async fn close(&self) -> Result<(), Error> {
        // Where it is not accepted somebody else has closed it.
        let _ = self.shared().mailbox.call(Call::Close).await;
        self.closed().await;
        let result = lock(&self.shared().closed).result.clone();
        result.map_or(Err(Error::Closed), |result| result.map_err(Error::Store))
    }

    /// Waits until the multifeed is closed, by whomever.
    pub async fn closed(&self) {
        poll_fn(|cx| self.shared().poll_closed(cx)).await;
    }

    /// Whether the multifeed is closed.
    pub fn is_closed(&self) -> bool {
        lock(&self.shared().closed).closed
    }

    pub(crate) fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.guard.0
    }
}

impl fmt::Debug for Multifeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Multifeed")
            .field("feeds", &self.shared().table.all().len())
            .field("closed", &self.is_closed())
            .finish()
    }
}

fn open<S: Storage>(
    storage: impl FnOnce() -> Result<S, Error>,
    shared: &Arc<Shared>,
    namespace: Option<&Namespace>,
) -> Result<Store<S>, Error> {
    let options = shared.options.clone();
    let mut multi = multifeed_core::Multifeed::open(storage()?, options.multifeed)?;
    let set = match namespace {
        None => SetId::ALL,
        Some(namespace) => {
            let root = options.session.root.as_ref().map_or(DEFAULT_ROOT_KEY, |root| root.key);
            multi.open_root(namespace, &root)?
        }
    };
    shared.found(&multi);
    Ok(Store::new(multi, set, shared.clone(), options.quantum_bytes))
}

impl Shared {
    /// Gives this to every subscriber.
    pub(crate) fn publish(&self, tell: impl Fn(&EventQueue)) {
        lock(&self.subscribers).iter().filter_map(Weak::upgrade).for_each(|queue| tell(&queue));
    }

    /// What opening found, by the numbers that the folders have now.
    pub(crate) fn found<S: Storage>(&self, multi: &multifeed_core::Multifeed<S>) {
        *lock(&self.problems) = multi.problems().to_vec();
        *lock(&self.recovered) = multi.recovered().to_vec();
        *lock(&self.exposed) = multi.exposed_keys().to_vec();
        *lock(&self.rearranged) = multi.rearranged().to_vec();
        self.conflicts.store(multi.conflicts_kept(), Ordering::Relaxed);
        self.lacks(multi.unsupported());
    }

    /// What the disk turned out not to support until now.
    pub(crate) fn lacks(&self, unsupported: Unsupported) {
        *lock(&self.unsupported) = unsupported;
    }

    /// How closing the store went.
    pub(crate) fn ended(&self, result: Result<(), StoreError>) {
        lock(&self.closed).result = Some(result);
    }

    /// The store is released: nothing will happen any more.
    pub(crate) fn close(&self) {
        self.table.clear();
        let wakers = {
            let mut closed = lock(&self.closed);
            closed.closed = true;
            std::mem::take(&mut closed.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
        self.publish(EventQueue::close);
    }

    fn poll_closed(&self, cx: &Context<'_>) -> Poll<()> {
        let mut closed = lock(&self.closed);
        if closed.closed {
            return Poll::Ready(());
        }
        if !closed.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            closed.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Guard {
    /// Has the store's thread do a call, and waits for its answer.
    pub(crate) async fn ask<T>(&self, call: impl FnOnce(Answer<T>) -> Call) -> Result<T, Error> {
        let (answer, waiting) = oneshot::channel();
        self.0.mailbox.call(call(answer)).await?;
        waiting.await.map_err(|_| Error::Closed)
    }

    /// As [`ask`](Self::ask), for what may have to wait for a peer: whoever drops the future is waited for no longer.
    pub(crate) async fn ask_waiting<T>(
        self: &Arc<Self>,
        call: impl FnOnce(Ticket, Answer<Result<T, Error>>) -> Call,
    ) -> Result<T, Error> {
        self.begin(call).await?.await
    }

    /// Puts a call that may have to wait into the queue. What it gives is a future of the answer.
    pub(crate) async fn begin<T>(
        self: &Arc<Self>,
        call: impl FnOnce(Ticket, Answer<Result<T, Error>>) -> Call,
    ) -> Result<Waiting<T>, Error> {
        let ticket = Ticket(self.0.tickets.fetch_add(1, Ordering::Relaxed));
        let (answer, waiting) = oneshot::channel();
        self.0.mailbox.call(call(ticket, answer)).await?;
        Ok(Waiting::new(self.clone(), ticket, waiting))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.mailbox.desert();
    }
}

/// A new key pair, from the system's randomness: for a writer whose key is to be known before, or kept elsewhere.
///
/// # Errors
/// [`Error::Random`].
pub fn generate_key_pair() -> Result<KeyPair, Error> {
    let mut rng = StdRng::try_from_rng(&mut SysRng).map_err(|error| Error::Random(error.to_string()))?;
    Ok(KeyPair::generate(&mut rng))
}

/// A new master key, for a corestore that has none.
fn generate_master_key() -> Result<MasterKey, Error> {
    let mut rng = StdRng::try_from_rng(&mut SysRng).map_err(|error| Error::Random(error.to_string()))?;
    Ok(MasterKey::generate(&mut rng))
}

/// What a feed can be looked up by: see [`Multifeed::feed`].
#[derive(Debug, Clone, Copy)]
pub struct FeedRef(Reference);

#[derive(Debug, Clone, Copy)]
enum Reference {
    Key(FeedKey),
    DiscoveryKey(DiscoveryKey),
    Either([u8; 32]),
    /// A text that is no key: no feed has it.
    Neither,
}

impl From<FeedKey> for FeedRef {
    fn from(key: FeedKey) -> Self {
        Self(Reference::Key(key))
    }
}

impl From<&FeedKey> for FeedRef {
    fn from(key: &FeedKey) -> Self {
        Self(Reference::Key(*key))
    }
}

impl From<DiscoveryKey> for FeedRef {
    fn from(key: DiscoveryKey) -> Self {
        Self(Reference::DiscoveryKey(key))
    }
}

impl From<&DiscoveryKey> for FeedRef {
    fn from(key: &DiscoveryKey) -> Self {
        Self(Reference::DiscoveryKey(*key))
    }
}

impl From<&str> for FeedRef {
    fn from(text: &str) -> Self {
        Self(text.parse::<FeedKey>().map_or(Reference::Neither, |key| Reference::Either(*key.as_bytes())))
    }
}

impl From<&String> for FeedRef {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}
