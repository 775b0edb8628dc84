//! A multifeed, as the application sees it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use multifeed_core::{
    ExposedKey, FileStorage, KeptConflict, KeyPair, MemoryStorage, Namespace, Rearranged, Recovered, SetId, Signer,
    Storage, StoreError, Unsupported,
};
use multifeed_proto::{DEFAULT_ROOT_KEY, DiscoveryKey, FeedKey};

use crate::error::Error;
use crate::handles::corestore::Corestore;
use crate::handles::events::Events;
use crate::handles::feed::Feed;
use crate::options::Options;
use crate::store::calls::call::{Call, NewWriter};
use crate::store::calls::{Guard, Holder, Shared, StoreShared};
use crate::store::thread::{self, Store};

/// A set of feeds that syncs as one: ours, each with a writer's name, and those that others share with us.
///
/// The feeds live on a thread of their own, which does all reading, writing and checking. Clones are the same multifeed;
/// when the last of them, and of its feeds and sessions, is dropped, it is closed. One of a corestore shares that thread, and what it says of the
/// store as a whole ([`problems`](Self::problems), [`ban`](Self::ban), [`sync_to_disk`](Self::sync_to_disk) and their like), with the
/// others of it: see [`Corestore`](crate::Corestore).
#[derive(Clone)]
pub struct Multifeed {
    guard: Arc<Guard>,
}

impl Multifeed {
    /// Opens the multifeed in a folder, and makes the folder if there is none.
    ///
    /// # Errors
    /// [`Error::Store`] if another process has the folder open, or it cannot be made or read.
    pub async fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        let path: PathBuf = path.as_ref().to_owned();
        let files = options.files.clone();
        let place = path.display().to_string();
        Self::start(place, move || Ok(FileStorage::open_with(&path, files)?), options).await
    }

    /// Opens the multifeed of a root key in a namespace of a corestore, or makes it. If it is open already, this is another handle of it.
    ///
    /// Writers' keys are derived from the master key, the namespace, the root key and the name. So a key pair of one's own
    /// ([`writer_with`](Self::writer_with)) is refused, and without a name there is one writer, as in JS. Its sessions begin as
    /// [`Options::session`] of the corestore says, with this root key in place of the one there.
    ///
    /// # Errors
    /// [`Error::Store`] if the list of its feeds cannot be read or made; [`Error::Closed`], also while it is being closed.
    pub async fn in_corestore(store: &Corestore, namespace: &Namespace, root_key: FeedKey) -> Result<Self, Error> {
        store.multifeed(namespace, root_key).await.map(Self::new)
    }

    /// Makes a multifeed that lives in memory.
    ///
    /// # Errors
    /// [`Error::Thread`].
    pub async fn in_memory(options: Options) -> Result<Self, Error> {
        Self::with_storage(MemoryStorage::default(), options).await
    }

    /// Opens the multifeed in any storage.
    ///
    /// # Errors
    /// [`Error::Store`] if it cannot be read.
    pub async fn with_storage(storage: impl Storage + Send + 'static, options: Options) -> Result<Self, Error> {
        Self::start("a storage of the application's".into(), move || Ok(storage), options).await
    }

    async fn start<S: Storage + 'static>(
        place: String,
        storage: impl FnOnce() -> Result<S, Error> + Send + 'static,
        options: Options,
    ) -> Result<Self, Error> {
        let session = options.session.clone();
        let shared = Arc::new(StoreShared::new(options));
        let opened = move |store: &mut Store<S>| store.open_set(SetId::ALL, session);
        thread::start(shared, Holder::Multifeed(SetId::ALL), place, storage, opened).await.map(Self::new)
    }

    pub(crate) fn new(guard: Arc<Guard>) -> Self {
        Self { guard }
    }

    /// Returns whether it is one of a corestore's, and not a folder of its own.
    pub fn is_in_corestore(&self) -> bool {
        self.shared().set != SetId::ALL
    }

    /// Finds the writer of this name, or makes it with a new key pair. Without a name it is named by the number of its folder, or by
    /// its key if that number is another writer's name. A remote's feed whose number is the name that is asked for is named by its key
    /// from then on. No two feeds have one name: JS would return that feed for the writer.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Random`], [`Error::Closed`].
    pub async fn writer<'a>(&self, name: impl Into<Option<&'a str>>) -> Result<Feed, Error> {
        self.writer_of(name.into().map(str::to_owned), NewWriter::Random).await
    }

    /// Finds the writer of this name, or makes it with this key pair.
    ///
    /// # Errors
    /// As [`writer`](Self::writer), and [`StoreError::KeyInUse`], which names the feed that has the key pair, if that is not the writer of this name.
    pub async fn writer_with<'a>(&self, name: impl Into<Option<&'a str>>, key_pair: KeyPair) -> Result<Feed, Error> {
        self.writer_of(name.into().map(str::to_owned), NewWriter::Pair(Box::new(key_pair))).await
    }

    /// Finds the writer that this signer signs for, by the name or by the signer's key, or makes it. Its secret key is the application's alone: none is in the
    /// folder. Give the signer to [`Options::with_signer`] whenever the store is opened.
    ///
    /// The store's other feeds wait while it signs, once for each batch: see [`Signer`].
    ///
    /// # Errors
    /// As [`writer`](Self::writer). [`Error::Store`] with
    /// - [`KeyMismatch`](StoreError::KeyMismatch) if the writer of that name has another key, or the multifeed is in a corestore, which derives keys;
    /// - [`KeyInUse`](StoreError::KeyInUse) if the feed of that key has another name;
    /// - [`NoSigner`](StoreError::NoSigner) if the feed is here, and the store was opened without its signer.
    ///
    /// ```
    /// use std::error::Error;
    /// use multifeed_driver::{FeedKey, KeyPair, Signer};
    ///
    /// /// Stands for the system's keychain.
    /// struct Keychain(KeyPair);
    ///
    /// impl Signer for Keychain {
    ///     fn public_key(&self) -> FeedKey {
    ///         self.0.public_key()
    ///     }
    ///
    ///     fn sign(&self, message: &[u8]) -> Result<[u8; 64], Box<dyn Error + Send + Sync>> {
    ///         Ok(self.0.sign(message)) // or an error: it is locked, the person said no
    ///     }
    /// }
    ///
    /// # use std::sync::Arc;
    /// # use multifeed_driver::{Multifeed, Options};
    /// # async fn example(keychain: Keychain) -> Result<(), Box<dyn Error>> {
    /// let keychain = Arc::new(keychain);
    /// let multi = Multifeed::open("./db", Options::default().with_signer(keychain.clone())).await?;
    /// let writer = multi.writer_with_signer("local", keychain).await?;
    /// writer.append("signed elsewhere").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn writer_with_signer<'a>(
        &self,
        name: impl Into<Option<&'a str>>,
        signer: impl Signer + 'static,
    ) -> Result<Feed, Error> {
        self.writer_of(name.into().map(str::to_owned), NewWriter::Signer(Box::new(signer))).await
    }

    async fn writer_of(&self, name: Option<String>, writer: NewWriter) -> Result<Feed, Error> {
        let state = self.guard.ask(|answer| Call::Writer { name, writer, answer }).await??;
        Ok(Feed::new(state, self.guard.clone()))
    }

    /// Returns the root key: anyone who knows it can sync this multifeed.
    pub fn root_key(&self) -> FeedKey {
        self.shared().session.root.as_ref().map_or(DEFAULT_ROOT_KEY, |root| root.key)
    }

    /// Finds the feed of this key, or gives it its folder now, before anything of it came. Without this, a feed of somebody else's is here
    /// once its first block came (in a sparse session its length). Until then it is known by its key alone, which
    /// [`SyncEvent::RemoteFeeds`](crate::SyncEvent::RemoteFeeds) reports.
    ///
    /// # Errors
    /// [`Error::Store`] if there are as many feeds as there may be, or writing fails; [`Error::Closed`].
    pub async fn add(&self, key: FeedKey) -> Result<Feed, Error> {
        let state = self.guard.ask(|answer| Call::Add { key, answer }).await??;
        Ok(Feed::new(state, self.guard.clone()))
    }

    /// Returns all feeds, ours and others', in the order of their folders. None after [`close`](Self::close).
    pub fn feeds(&self) -> Vec<Feed> {
        self.shared().table.all().into_iter().map(|state| Feed::new(state, self.guard.clone())).collect()
    }

    /// Returns the feed of this key, if it is known: a [`FeedKey`], a [`DiscoveryKey`], or 64 hex digits, which may be either.
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

    /// Returns the feed of this name, if there is one.
    pub fn feed_by_name(&self, name: &str) -> Option<Feed> {
        Some(Feed::new(self.shared().table.by_name(name)?, self.guard.clone()))
    }

    /// Subscribes to what happens to the feeds from now on.
    pub fn events(&self) -> Events {
        let queue = self.shared().subscribe();
        Events::new(queue, self.guard.clone())
    }

    /// Writes all that was appended and received before this call, and syncs it to the disk, whatever the
    /// [`Durability`](multifeed_core::Durability). A power cut does not take what is there when this returns. The store does its other work
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

    /// Bans a feed, whether it is here or not. No session offers it, asks for it, opens it for a remote or fetches it
    /// until it is [unbanned](Self::unban). Sessions that sync it close its channel, and go on. The banned keys are kept beside the
    /// feeds (`multifeed.blocked`). Returns false if it was banned before.
    ///
    /// What is here of the feed stays, and can be read; [`Feed::remove`] takes it away. A key pair of a banned feed that is not here is not
    /// taken for a new writer.
    ///
    /// # Errors
    /// [`Error::Store`] if as many are banned as [may be](multifeed_core::Limits::banned), or the disk fails; it is not banned then.
    /// [`Error::Closed`].
    pub async fn ban(&self, key: FeedKey) -> Result<bool, Error> {
        self.guard.ask(|answer| Call::Ban { key, bans: true, answer }).await?
    }

    /// Lifts the ban of a feed. What is here of it is offered to the sessions that are there; what their remotes have of it comes with the next
    /// ones. Returns false if it was not banned.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails, [`Error::Closed`].
    pub async fn unban(&self, key: FeedKey) -> Result<bool, Error> {
        self.guard.ask(|answer| Call::Ban { key, bans: false, answer }).await?
    }

    /// Returns the banned feeds, ascending.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn banned(&self) -> Result<Vec<FeedKey>, Error> {
        self.guard.ask(|answer| Call::Banned { answer }).await
    }

    /// Asks the [`Policy`](crate::Policy) of each session that is there again, and brings the session to what it says now: closes feeds that are
    /// refused, offers and requests those that are not any more, and goes on fetching if the remote may bring more. See
    /// [`policy_changed`](multifeed_core::Multifeed::policy_changed). Without this call a policy that changes is asked for feeds that come up from then on.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn policy_changed(&self) -> Result<(), Error> {
        self.guard.ask(|answer| Call::PolicyChanged { answer }).await
    }

    /// Lets a new writer have the name of one that is [missing](StoreError::MissingWriter): the next [`writer`](Self::writer) of that name makes
    /// another feed, with a key of its own. False if no writer is missing that has, or may have, that name.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn release_missing_name(&self, name: &str) -> Result<bool, Error> {
        self.guard.ask(|answer| Call::ReleaseName { name: name.to_owned(), answer }).await
    }

    /// Gives up a writer that is missing ([`StoreError::MissingWriter`], [`StoreError::CoreMissing`]). Its folder's number and its name
    /// are free then. Its feed is banned, as a copy of its key elsewhere could sign a second history.
    /// Returns false if no writer of that key is missing.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails or as many feeds are banned as may be, [`Error::Closed`].
    pub async fn give_up_missing(&self, key: FeedKey) -> Result<bool, Error> {
        self.guard.ask(|answer| Call::GiveUp { key, answer }).await?
    }

    /// Makes a multifeed's list of feeds in a corestore anew from the cores that are here, if the list is [lost](StoreError::ListLost) for good, or blocks
    /// of it are damaged. Returns how many feeds it has then; `None` if nothing is wrong with it. See
    /// [`rebuild_list`](multifeed_core::Multifeed::rebuild_list).
    ///
    /// # Errors
    /// [`Error::Store`], for example if the store is no corestore; [`Error::Closed`].
    pub async fn rebuild_list(&self) -> Result<Option<usize>, Error> {
        self.guard.ask(|answer| Call::RebuildList { answer }).await?
    }

    /// Returns the feeds that could not be opened, and the writers that are missing; the others are unharmed.
    pub fn problems(&self) -> Vec<StoreError> {
        self.shared().store.found().problems
    }

    /// Returns why the writer of a name cannot be used, if the store knows that there is one: its folder is [missing](StoreError::MissingWriter), or
    /// could not be opened, or its secret key cannot be read. Such a name stands for no other feed.
    pub fn lost_writer(&self, name: &str) -> Option<StoreError> {
        self.shared().store.found().lost_writers.remove(name)
    }

    /// Returns why secret keys may not be read, as those of another user's store, of feeds that are open all the same: they are read, checked and
    /// served as ever, and only cannot be written. Each is among the [`problems`](Self::problems), too.
    pub fn sealed_keys(&self) -> Vec<StoreError> {
        self.shared().store.found().sealed_keys
    }

    /// Returns what opening had to cut off after a crash.
    pub fn recovered(&self) -> Vec<Recovered> {
        self.shared().store.found().recovered
    }

    /// Returns what opening changed of folders: removals that were cut short before, and folders that hold no feed and had to give their numbers to
    /// feeds.
    pub fn rearranged(&self) -> Vec<Rearranged> {
        self.shared().store.found().rearranged
    }

    /// Returns the secret keys that others than the owner of their file may read or change, by its permissions on unix.
    pub fn exposed_keys(&self) -> Vec<ExposedKey> {
        self.shared().store.found().exposed
    }

    /// Returns what the disk of the store turned out not to support, as far as it was tried: the store does without. Each is worth a warning, once.
    pub fn unsupported(&self) -> Unsupported {
        self.shared().store.unsupported()
    }

    /// Closes files of the store that are open and not in use, for a process that has no file handle left for a connection. Returns how many
    /// that were. They are opened again as they are needed.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn close_idle_files(&self) -> Result<usize, Error> {
        self.guard.ask(|answer| Call::CloseIdleFiles { answer }).await
    }

    /// Returns the second histories that were found, of this multifeed's feeds and others, also of such as were removed since. The evidence is in
    /// `multifeed.conflicts` beside the feeds.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn conflicts(&self) -> Result<Vec<KeptConflict>, Error> {
        self.guard.ask(|answer| Call::Conflicts { answer }).await
    }

    /// Removes the evidence of all second histories. One that a peer shows again is reported, and kept, anew.
    ///
    /// # Errors
    /// [`Error::Store`] if the file cannot be written; [`Error::Closed`].
    pub async fn clear_conflicts(&self) -> Result<usize, Error> {
        self.guard.ask(|answer| Call::ClearConflicts { answer }).await?
    }

    /// Ends all sessions, cleanly, writes what is not written, and releases the store, if no other multifeed of the same corestore and no
    /// [`Corestore`](crate::Corestore) is left. Calls that were accepted before are done. A second call reports how the first one went.
    ///
    /// # Errors
    /// [`Error::Store`] if the last writes fail; [`Error::Closed`] if its thread failed.
    pub async fn close(&self) -> Result<(), Error> {
        let Shared { store, set, closed, .. } = &**self.shared();
        // It is not accepted if somebody else has closed it.
        let _ = store.mailbox.call(Holder::Multifeed(*set), Call::Close).await;
        closed.wait().await;
        closed.result()
    }

    /// Waits until the multifeed is closed, by whomever.
    pub async fn closed(&self) {
        self.shared().closed.wait().await;
    }

    /// Returns whether the multifeed is closed.
    pub fn is_closed(&self) -> bool {
        self.shared().closed.is_closed()
    }

    pub(crate) fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
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
