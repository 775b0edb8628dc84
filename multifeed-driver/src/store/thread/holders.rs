//! Who holds a store open: the handles of a corestore, and those of each multifeed.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use multifeed_core::{FeedId, FeedInfo, Multifeed, Namespace, SetId, Storage, StoreError};
use multifeed_proto::{Config, DEFAULT_ROOT_KEY, FeedKey, RootConfig};

use crate::error::Error;
use crate::shared::feed_table::FeedState;
use crate::shared::multifeed_events::EventQueue;
use crate::store::calls::call::WhichCore;
use crate::store::calls::{Guard, Holder, Shared, StoreShared};
use crate::store::thread::Store;

/// Who has handles of the store. Dropped with the thread, however it went: all of them hear of it.
pub(super) struct Holders {
    pub(super) store: Arc<StoreShared>,
    /// There are handles of the corestore itself.
    pub(super) folder: bool,
    pub(super) multifeeds: BTreeMap<SetId, Opened>,
    /// Which of them are the plain cores. They are held as long as the corestore is, though no handle of one may be left.
    pub(super) plain: Option<SetId>,
}

/// A multifeed that has handles.
pub(super) struct Opened {
    pub(super) shared: Arc<Shared>,
    pub(super) guard: Weak<Guard>,
    /// What its sessions' remotes have is reported.
    observes_all: bool,
    /// Its sessions are ending.
    pub(super) closing: bool,
}

impl Holders {
    /// Whether nobody is left for whom the store is open.
    pub(super) fn are_gone(&self) -> bool {
        let is_gone = |(set, opened): (&SetId, &Opened)| {
            opened.closing || self.plain == Some(*set) && opened.guard.strong_count() == 0
        };
        !self.folder && self.multifeeds.iter().all(is_gone)
    }
}

impl Opened {
    /// Another handle of it.
    fn handle(&mut self) -> Result<Arc<Guard>, Error> {
        if self.closing {
            return Err(Error::Closed);
        }
        Ok(self.guard.upgrade().unwrap_or_else(|| {
            // Its last handle is being dropped.
            let guard = Arc::new(Guard(self.shared.clone()));
            self.guard = Arc::downgrade(&guard);
            guard
        }))
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        self.store.mailbox.leave().iter().for_each(|link| link.abandon());
        self.multifeeds.values().for_each(|opened| opened.shared.close());
        self.store.closed.close();
    }
}

impl<S: Storage> Store<S> {
    /// Gives a set of feeds its first handle.
    pub(crate) fn open_set(&mut self, set: SetId, session: Config) -> Arc<Guard> {
        let shared = Arc::new(Shared::new(self.holders.store.clone(), set, session));
        for feed in self.multi.feeds_in(set) {
            if let (Ok(info), Ok(slot)) = (info(&self.multi, set, feed), self.multi.slot_of(feed)) {
                shared.table.update(info, slot);
            }
        }
        let guard = Arc::new(Guard(shared.clone()));
        let opened = Opened { shared, guard: Arc::downgrade(&guard), observes_all: false, closing: false };
        self.holders.multifeeds.insert(set, opened);
        guard
    }

    /// Opens a multifeed of a corestore, or finds it open.
    pub(super) fn open_multifeed(&mut self, namespace: &Namespace, root_key: FeedKey) -> Result<Arc<Guard>, Error> {
        let opened = self.multi.open_root(namespace, &root_key);
        self.holders.store.note_found(&self.multi);
        self.tell();
        let set = opened?;
        if let Some(opened) = self.holders.multifeeds.get_mut(&set) {
            return opened.handle();
        }
        let mut session = self.holders.store.options.session.clone();
        session.root.get_or_insert_with(|| RootConfig::new(DEFAULT_ROOT_KEY)).key = root_key;
        Ok(self.open_set(set, session))
    }

    /// Opens the plain cores of a corestore, or finds them open.
    pub(super) fn open_plain_cores(&mut self) -> Result<Arc<Guard>, Error> {
        let set = self.multi.plain_cores()?;
        self.holders.plain = Some(set);
        if let Some(opened) = self.holders.multifeeds.get_mut(&set) {
            return opened.handle();
        }
        Ok(self.open_set(set, self.holders.store.options.session.clone()))
    }

    /// Opens or makes a plain core.
    pub(super) fn plain_core(&mut self, set: SetId, which: WhichCore) -> Result<Option<Arc<FeedState>>, Error> {
        let core = match which {
            WhichCore::Named(name) => self.multi.core_named(&name).map(Some),
            WhichCore::Pair(pair) => self.multi.core_with_key_pair(&pair).map(Some),
            WhichCore::Held(key) => self.multi.core_of(&key),
            WhichCore::Added(key) => self.multi.add_core(key).map(Some),
        };
        let state = core.and_then(|core| core.map(|core| self.state(set, core)).transpose());
        self.holders.store.note_found(&self.multi);
        self.tell();
        Ok(state?)
    }

    /// A holder is gone, or closes what it holds. The last one closes the store.
    pub(super) fn leave(&mut self, holder: Holder) {
        match holder {
            Holder::Folder => self.holders.folder = false,
            Holder::Multifeed(set) if self.holders.plain == Some(set) => {}
            Holder::Multifeed(set) => {
                if let Some(opened) = self.holders.multifeeds.get_mut(&set) {
                    opened.closing = true;
                    opened.shared.set_closing();
                }
            }
        }
        if self.holders.are_gone() {
            return self.begin_closing();
        }
        if let Holder::Multifeed(set) = holder
            && self.holders.plain != Some(set)
        {
            self.waits.close(set).into_iter().for_each(|want| _ = self.multi.unwant(want));
            self.in_sync.close(set);
            self.inboxes.close(set);
            self.peers.values().filter(|peer| peer.link.options.set == set).for_each(|peer| peer.link.cancel());
        }
    }

    /// Lets go of the multifeeds that are closing and whose sessions have ended. The store stays open for others.
    pub(super) fn release_closed(&mut self) {
        if self.closing || self.holders.multifeeds.values().all(|opened| !opened.closing) {
            return;
        }
        let busy: Vec<SetId> = self.peers.values().map(|peer| peer.link.options.set).collect();
        let mut over = Vec::new();
        self.holders.multifeeds.retain(|set, opened| {
            let stays = !opened.closing || busy.contains(set);
            if !stays {
                over.push(opened.shared.clone());
            }
            stays
        });
        for shared in over {
            shared.closed.set_result(self.multi.sync());
            shared.close();
        }
        self.tell();
    }

    /// Takes a feed out of the store; out of one multifeed alone, if another one that is open has it as well.
    pub(super) fn remove(&mut self, set: SetId, feed: FeedId, writer: bool) -> Result<(), StoreError> {
        let is_shared = self.holders.multifeeds.keys().any(|&other| other != set && self.multi.is_in(other, feed));
        if !is_shared {
            return if writer { self.multi.remove_writer(feed) } else { self.multi.remove(feed) };
        }
        let info = self.multi.info(feed)?;
        if info.writable && !writer {
            return Err(StoreError::OwnWriter { key: info.key });
        }
        if self.holders.plain == Some(set) {
            // Nothing lists it here.
            self.multi.exclude(set, feed)?;
        } else if !self.multi.take_out_of(set, feed)? {
            return Ok(());
        }
        if let Some(opened) = self.holders.multifeeds.get(&set)
            && let Some(feed) = opened.shared.table.remove(info)
        {
            opened.shared.publish(|queue| queue.removed(&feed));
        }
        Ok(())
    }

    /// A feed's numbers, as they are now, for all handles of a multifeed.
    pub(super) fn state(&self, set: SetId, feed: FeedId) -> Result<Arc<FeedState>, StoreError> {
        let (info, slot) = (info(&self.multi, set, feed)?, self.multi.slot_of(feed)?);
        Ok(match self.holders.multifeeds.get(&set) {
            Some(opened) if !self.multi.is_removed(feed) => opened.shared.table.update(info, slot),
            _ => Arc::new(FeedState::new(info, slot)),
        })
    }

    /// Shows a feed's numbers, as they are now, to the handles of all multifeeds that it is in.
    pub(crate) fn refresh(&self, feed: FeedId) {
        self.holding(feed).for_each(|(&set, _)| _ = self.state(set, feed));
    }

    /// The multifeeds that have a feed.
    pub(super) fn holding(&self, feed: FeedId) -> impl Iterator<Item = (&SetId, &Opened)> {
        self.holders.multifeeds.iter().filter(move |(set, _)| self.multi.is_in(**set, feed))
    }

    /// Gives the handles that have a feed an event of it.
    pub(super) fn publish(&self, feed: FeedId, tell: impl Fn(&EventQueue, &Arc<FeedState>)) {
        for (&set, opened) in self.holding(feed) {
            if let Ok(feed) = self.state(set, feed) {
                opened.shared.publish(|queue| tell(queue, &feed));
            }
        }
    }

    /// Whether it is reported of every session of a multifeed what its remote has.
    pub(crate) fn observes_all(&self, set: SetId) -> bool {
        self.holders.multifeeds.get(&set).is_some_and(|opened| opened.observes_all)
    }

    pub(crate) fn set_observes_all(&mut self, set: SetId) {
        self.holders.multifeeds.get_mut(&set).into_iter().for_each(|opened| opened.observes_all = true);
    }

    pub(super) fn tell_of_new(&self, set: SetId, feed: FeedId) {
        if let Some(opened) = self.holders.multifeeds.get(&set)
            && let Ok(feed) = self.state(set, feed)
        {
            opened.shared.publish(|queue| queue.feed(&feed));
        }
    }
}

/// What a feed is and holds, by its name in the set.
fn info<S: Storage>(multi: &Multifeed<S>, set: SetId, feed: FeedId) -> Result<FeedInfo, StoreError> {
    let mut info = multi.info(feed)?;
    if let Some(name) = multi.name_in(set, feed) {
        info.name = name.to_owned();
    }
    Ok(info)
}
