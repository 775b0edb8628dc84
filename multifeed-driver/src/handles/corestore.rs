//! A corestore, as the application sees it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use multifeed_core::{
    CoreList, CorestoreOptions, FileCoreStorage, KeyPair, Namespace, RepairedInMemory, Storage, StoreError, Unsupported,
};
use multifeed_proto::FeedKey;

use crate::error::Error;
use crate::handles::feed::Feed;
use crate::options::Options;
use crate::randomness::generate_master_key;
use crate::store::calls::call::{Call, WhichCore};
use crate::store::calls::{FolderGuard, Guard, Holder, StoreShared};
use crate::store::thread;

/// A folder of corestore 5, with any number of multifeeds in it, as `@frando/corestore-multifeed` keeps them.
///
/// One thread does all reading, writing and checking for all of its multifeeds, and a feed that several of them have is stored once. A peer
/// gets only feeds of the multifeeds that it replicates. Cores of the application's own ([`named`](Self::named)) are beside them. Clones are the same corestore. The folder is released if all handles of it and of its
/// multifeeds are dropped, or by [`close`](Self::close).
///
/// ```no_run
/// # use multifeed_driver::{Corestore, Error, FeedKey, Multifeed, Namespace, Options};
/// # async fn example(notes: FeedKey, chat: FeedKey) -> Result<(), Error> {
/// let store = Corestore::open("./db", Options::default()).await?;
/// let notes = Multifeed::in_corestore(&store, &Namespace::root(), notes).await?;
/// let chat = Multifeed::in_corestore(&store, &Namespace::root(), chat).await?;
/// notes.writer("local").await?.append("a note").await?;
/// chat.writer("local").await?.append("hello").await?;
/// store.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Corestore {
    guard: Arc<FolderGuard>,
}

impl Corestore {
    /// Opens the corestore in a folder. The folder and its master key are made if they are missing.
    ///
    /// # Errors
    /// [`Error::Store`] if another process has the folder open, it is another kind of store's, or it cannot be made or read.
    pub async fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        let path: PathBuf = path.as_ref().to_owned();
        let place = path.display().to_string();
        let (files, limits) = (options.files.clone(), options.multifeed.limits.clone());
        let master_key = generate_master_key()?;
        let storage = move || {
            let storage = FileCoreStorage::open_with(&path, files).map_err(StoreError::from)?;
            let store = multifeed_core::Corestore::open(storage, CorestoreOptions::default(), || master_key);
            Ok(store.map_err(StoreError::from)?.into_files(&limits)?)
        };
        Self::start(place, storage, options).await
    }

    /// Opens a corestore only to be read: nothing is made or changed in the folder, and what opening repairs stays in memory. `beside` takes no
    /// lock: another process that has the folder open may change what is read.
    ///
    /// # Errors
    /// As [`open`](Self::open), and if the folder or its master key is missing.
    pub async fn open_read_only(path: impl AsRef<Path>, beside: bool, options: Options) -> Result<Self, Error> {
        let path: PathBuf = path.as_ref().to_owned();
        let place = path.display().to_string();
        let (files, limits) = (options.files.clone(), options.multifeed.limits.clone());
        let master_key = generate_master_key()?;
        let storage = move || {
            let open = if beside { FileCoreStorage::open_beside_with } else { FileCoreStorage::open_read_only_with };
            let storage = open(path, files).map_err(StoreError::from)?;
            let store = multifeed_core::Corestore::open(storage, CorestoreOptions::default(), || master_key);
            Ok(RepairedInMemory::new(store.map_err(StoreError::from)?.into_files(&limits)?))
        };
        Self::start(place, storage, options).await
    }

    async fn start<S: Storage + 'static>(
        place: String,
        storage: impl FnOnce() -> Result<S, Error> + Send + 'static,
        options: Options,
    ) -> Result<Self, Error> {
        let shared = Arc::new(StoreShared::new(options));
        let guard = Arc::new(FolderGuard(shared.clone()));
        thread::start(shared, Holder::Folder, place, storage, |_| ()).await?;
        Ok(Self { guard })
    }

    /// Opens a multifeed in it.
    pub(crate) async fn multifeed(&self, namespace: &Namespace, root_key: FeedKey) -> Result<Arc<Guard>, Error> {
        let namespace = namespace.clone();
        self.guard.ask(|answer| Call::OpenMultifeed { namespace, root_key, answer }).await?
    }

    /// Opens the core of a name, or makes it. Its key pair is derived from the master key and the name, as JS's `get({ name })` derives it; a namespace
    /// does not change it. The name is bytes, at most [`Limits::core_name_bytes`](multifeed_core::Limits::core_name_bytes). A core that has
    /// blocks and no name on the disk, as one that was fetched by its key, is opened to be read, as in JS.
    ///
    /// Cores that this and the next methods open are in no multifeed: a peer gets one if it is [replicated](Feed::replicate_over), or is a
    /// multifeed's feed too.
    ///
    /// # Errors
    /// [`Error::Store`] if the name is empty or too long, the core's folder cannot be used, or the core was here and is gone; [`Error::Closed`].
    pub async fn named(&self, name: impl AsRef<[u8]>) -> Result<Feed, Error> {
        self.made(WhichCore::Named(name.as_ref().to_vec())).await
    }

    /// Opens the default core of a namespace, or makes it; that of the corestore itself for [`Namespace::root`].
    ///
    /// # Errors
    /// As [`named`](Self::named).
    pub async fn default_core(&self, namespace: &Namespace) -> Result<Feed, Error> {
        self.named(namespace.default_name()).await
    }

    /// Opens the core of a key pair, or makes it, with its secret key in the folder.
    ///
    /// # Errors
    /// As [`named`](Self::named).
    pub async fn with_key_pair(&self, pair: KeyPair) -> Result<Feed, Error> {
        self.made(WhichCore::Pair(Box::new(pair))).await
    }

    /// Opens the core of a key. `None` if the corestore does not have it; nothing is made then.
    ///
    /// # Errors
    /// As [`named`](Self::named).
    pub async fn get(&self, key: FeedKey) -> Result<Option<Feed>, Error> {
        self.core(WhichCore::Held(key)).await
    }

    /// Opens the core of a key, or makes its folder, so that its blocks can be [fetched](Feed::replicate_over).
    ///
    /// # Errors
    /// As [`named`](Self::named), and if there are as many feeds of others as [may be](multifeed_core::Limits::feeds).
    pub async fn add(&self, key: FeedKey) -> Result<Feed, Error> {
        self.made(WhichCore::Added(key)).await
    }

    /// Lists the cores that are on the disk, those of multifeeds too, about 200 bytes each. None is opened.
    ///
    /// # Errors
    /// [`Error::Store`] if there are more than [`Limits::cores_listed`](multifeed_core::Limits::cores_listed), or the disk fails; [`Error::Closed`].
    pub async fn list(&self) -> Result<CoreList, Error> {
        self.guard.ask(|answer| Call::ListCores { answer }).await?
    }

    async fn made(&self, which: WhichCore) -> Result<Feed, Error> {
        // It is `None` only of a core that is not to be made.
        self.core(which).await?.ok_or(Error::Closed)
    }

    async fn core(&self, which: WhichCore) -> Result<Option<Feed>, Error> {
        let guard = self.guard.ask(|answer| Call::PlainCores { answer }).await??;
        let state = guard.ask(|answer| Call::PlainCore { which, answer }).await??;
        Ok(state.map(|state| Feed::new(state, guard)))
    }

    /// Returns what the disk of the store turned out not to support, as far as it was tried.
    pub fn unsupported(&self) -> Unsupported {
        self.guard.0.unsupported()
    }

    /// Ends all sessions of all multifeeds, cleanly, writes what is not written, and releases the folder. Calls that were accepted before are
    /// done. Further calls, here and on the multifeeds, fail with [`Error::Closed`]. A second call reports how the first one went.
    ///
    /// # Errors
    /// [`Error::Store`] if the last writes fail; [`Error::Closed`] if its thread failed.
    pub async fn close(&self) -> Result<(), Error> {
        let StoreShared { mailbox, closed, .. } = &*self.guard.0;
        // It is not accepted if somebody else has closed it.
        let _ = mailbox.call(Holder::Folder, Call::Close).await;
        closed.wait().await;
        closed.result()
    }

    /// Returns whether the corestore is closed.
    pub fn is_closed(&self) -> bool {
        self.guard.0.closed.is_closed()
    }
}

impl fmt::Debug for Corestore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Corestore").field("closed", &self.is_closed()).finish()
    }
}
