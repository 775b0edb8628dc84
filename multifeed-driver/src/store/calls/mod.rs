//! How the handles reach the store's thread: what they hold it open by, the queue of their calls, and the waiting for answers.

pub(crate) mod call;
pub(crate) mod mailbox;
pub(crate) mod waiting;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};

use multifeed_core::{ExposedKey, Rearranged, Recovered, SetId, Storage, StoreError, Unsupported};
use multifeed_proto::Config;

use crate::clock::Clock;
use crate::error::Error;
use crate::lock;
use crate::oneshot::{self, Answer};
use crate::options::Options;
use crate::shared::feed_table::FeedTable;
use crate::shared::multifeed_events::EventQueue;
use crate::store::calls::call::Call;
use crate::store::calls::mailbox::Mailbox;
use crate::store::calls::waiting::{Ticket, Waiting};
use crate::waking::Waiters;

/// Who holds a store open and makes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// The handles of the corestore.
    Folder,
    /// Those of one multifeed.
    Multifeed(SetId),
}

/// What all handles of a store and its thread share.
#[derive(Debug)]
pub(crate) struct StoreShared {
    pub(crate) mailbox: Mailbox,
    pub(crate) clock: Clock,
    pub(crate) options: Options,
    syncs: AtomicU64,
    tickets: AtomicU64,
    found: Mutex<Found>,
    unsupported: Mutex<Unsupported>,
    pub(crate) closed: Closed,
}

/// What opening found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    pub(crate) problems: Vec<StoreError>,
    pub(crate) lost_writers: BTreeMap<String, StoreError>,
    pub(crate) sealed_keys: Vec<StoreError>,
    pub(crate) recovered: Vec<Recovered>,
    pub(crate) exposed: Vec<ExposedKey>,
    pub(crate) rearranged: Vec<Rearranged>,
}

/// What the handles of one multifeed and the thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Arc<StoreShared>,
    /// Its feeds: all, or in a corestore those of a root key.
    pub(crate) set: SetId,
    /// How its sessions begin, with its root key.
    pub(crate) session: Config,
    pub(crate) table: FeedTable,
    subscribers: Mutex<Vec<Weak<EventQueue>>>,
    /// Its sessions are ending, and no others begin.
    closing: AtomicBool,
    pub(crate) closed: Closed,
}

/// Held by every handle of a multifeed; the last one dropped closes it.
#[derive(Debug)]
pub(crate) struct Guard(pub(crate) Arc<Shared>);

/// Held by every handle of a corestore itself.
#[derive(Debug)]
pub(crate) struct FolderGuard(pub(crate) Arc<StoreShared>);

/// Whether something is closed, how that went, and who waits for it.
#[derive(Debug, Default)]
pub(crate) struct Closed(Mutex<Closing>);

#[derive(Debug, Default)]
struct Closing {
    closed: bool,
    /// `None` if the thread failed.
    result: Option<Result<(), StoreError>>,
    waiters: Waiters,
}

impl StoreShared {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            mailbox: Mailbox::new(options.calls),
            clock: Clock::start(),
            options,
            syncs: AtomicU64::new(0),
            tickets: AtomicU64::new(0),
            found: Mutex::default(),
            unsupported: Mutex::default(),
            closed: Closed::default(),
        }
    }

    /// A number for a session, used once.
    pub(crate) fn next_sync(&self) -> u64 {
        self.syncs.fetch_add(1, Ordering::Relaxed)
    }

    /// What opening found.
    pub(crate) fn found(&self) -> Found {
        lock(&self.found).clone()
    }

    pub(crate) fn unsupported(&self) -> Unsupported {
        *lock(&self.unsupported)
    }

    /// Notes what opening found, by the numbers that the folders have now.
    pub(crate) fn note_found<S: Storage>(&self, multi: &multifeed_core::Multifeed<S>) {
        *lock(&self.found) = Found {
            problems: multi.problems().iter().map(|problem| multi.told(problem.clone())).collect(),
            lost_writers: multi.lost_writers().map(|(name, why)| (name.to_owned(), multi.told(why.clone()))).collect(),
            sealed_keys: multi.sealed_keys().map(|problem| multi.told(problem.clone())).collect(),
            recovered: multi.recovered().to_vec(),
            exposed: multi.exposed_keys().to_vec(),
            rearranged: multi.rearranged().to_vec(),
        };
        self.note_unsupported(multi.unsupported());
    }

    /// Notes what the disk turned out not to support until now.
    pub(crate) fn note_unsupported(&self, unsupported: Unsupported) {
        *lock(&self.unsupported) = unsupported;
    }

    async fn ask<T>(&self, holder: Holder, call: impl FnOnce(Answer<T>) -> Call) -> Result<T, Error> {
        let (answer, waiting) = oneshot::channel();
        let looks = self.mailbox.is_looking();
        self.mailbox.call(holder, call(answer)).await?;
        waiting.looking(looks).await.map_err(|_| Error::Closed)
    }
}

impl Shared {
    pub(crate) fn new(store: Arc<StoreShared>, set: SetId, session: Config) -> Self {
        Self {
            store,
            set,
            session,
            table: FeedTable::default(),
            subscribers: Mutex::default(),
            closing: AtomicBool::new(false),
            closed: Closed::default(),
        }
    }

    /// Its sessions are about to end, and no others begin.
    pub(crate) fn set_closing(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Whether the application closed it, or is closing it: its thread did not fail.
    pub(crate) fn is_closed_by_call(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Whether it is closed, or is being closed.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire) || self.closed.is_closed()
    }

    /// Adds a subscriber of events.
    pub(crate) fn subscribe(&self) -> Arc<EventQueue> {
        let queue = Arc::new(EventQueue::default());
        let mut subscribers = lock(&self.subscribers);
        subscribers.retain(|subscriber| subscriber.strong_count() > 0);
        subscribers.push(Arc::downgrade(&queue));
        drop(subscribers);
        if self.closed.is_closed() {
            queue.close();
        }
        queue
    }

    /// Gives this to every subscriber.
    pub(crate) fn publish(&self, tell: impl Fn(&EventQueue)) {
        lock(&self.subscribers).iter().filter_map(Weak::upgrade).for_each(|queue| tell(&queue));
    }

    /// The multifeed is closed: nothing will happen any more.
    pub(crate) fn close(&self) {
        self.table.clear();
        self.closed.close();
        self.publish(EventQueue::close);
    }
}

impl Closed {
    /// Notes how closing went.
    pub(crate) fn set_result(&self, result: Result<(), StoreError>) {
        lock(&self.0).result = Some(result);
    }

    pub(crate) fn close(&self) {
        let waiters = {
            let mut closing = lock(&self.0);
            closing.closed = true;
            closing.waiters.take()
        };
        waiters.wake();
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.0).closed
    }

    /// Waits until it is closed.
    pub(crate) async fn wait(&self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    /// How closing went.
    pub(crate) fn result(&self) -> Result<(), Error> {
        let result = lock(&self.0).result.clone();
        result.map_or(Err(Error::Closed), |result| result.map_err(Error::Store))
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut closing = lock(&self.0);
        if closing.closed {
            return Poll::Ready(());
        }
        closing.waiters.add(cx);
        Poll::Pending
    }
}

impl Guard {
    /// Has the store's thread do a call, and waits for its answer.
    pub(crate) async fn ask<T>(&self, call: impl FnOnce(Answer<T>) -> Call) -> Result<T, Error> {
        self.0.store.ask(Holder::Multifeed(self.0.set), call).await
    }

    /// As [`ask`](Self::ask), for what may have to wait for a peer: dropping the future ends the waiting.
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
        let Shared { store, set, .. } = &*self.0;
        let ticket = Ticket { set: *set, number: store.tickets.fetch_add(1, Ordering::Relaxed) };
        let (answer, waiting) = oneshot::channel();
        let looks = store.mailbox.is_looking();
        store.mailbox.call(Holder::Multifeed(*set), call(ticket, answer)).await?;
        Ok(Waiting::new(self.clone(), ticket, waiting.looking(looks)))
    }
}

impl FolderGuard {
    pub(crate) async fn ask<T>(&self, call: impl FnOnce(Answer<T>) -> Call) -> Result<T, Error> {
        self.0.ask(Holder::Folder, call).await
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store.mailbox.desert(Holder::Multifeed(self.0.set));
    }
}

impl Drop for FolderGuard {
    fn drop(&mut self) {
        self.0.mailbox.desert(Holder::Folder);
    }
}
