//! The store's thread.

mod extensions;
mod holders;
mod in_sync;
mod reads;
mod telling;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use multifeed_core::log::{Span, log};
use multifeed_core::{
    AppendError, Durability, FeedId, Multifeed, SessionId, SetId, Storage, StoreError, SyncError, SyncTotals,
    Unsupported,
};
use multifeed_proto::{Command, Event, SessionError};

use crate::error::Error;
use crate::oneshot::{self, Answer};
use crate::randomness::generate_key_pair;
use crate::shared::feed_table::FeedState;
use crate::shared::link::Link;
use crate::shared::session_events::{SyncId, Totals};
use crate::store::calls::call::{Call, NewWriter};
use crate::store::calls::mailbox::Mail;
use crate::store::calls::{Holder, StoreShared};
use crate::store::thread::extensions::FeedInboxes;
use crate::store::thread::holders::Holders;
use crate::store::thread::in_sync::InSync;
use crate::store::waits::Waits;
use crate::store::watchers::Watchers;

/// Bytes of blocks that one step of a check reads before the thread looks at its mailbox again.
const VERIFY_STEP_BYTES: usize = 1024 * 1024;

/// Bytes of received blocks that are written at the latest, though more events are waiting.
const COMMIT_BYTES: usize = 1024 * 1024;

/// How long received blocks wait for others at the most, before they are written and reported.
const COMMIT_WAIT: Duration = Duration::from_millis(10);

/// How long the thread may be at one thing before that counts as being behind with what came.
const BEHIND: Duration = Duration::from_millis(100);

/// Quanta of commands handed out before the thread looks at its mailbox again.
const QUANTA_IN_A_ROW: usize = 8;

/// The thread's state. The application's calls go first: they are done between any two sessions' turns.
pub(crate) struct Store<S: Storage> {
    multi: Multifeed<S>,
    peers: BTreeMap<SessionId, Connected>,
    /// Commands were left when the thread's turn was over.
    unfinished: bool,
    /// When the oldest blocks that are not written came.
    uncommitted_since: Option<Duration>,
    /// When the thread last looked at what came.
    looked_at: Duration,
    quantum_bytes: usize,
    /// Calls that wait for peers.
    waits: Waits,
    /// Calls that wait until sessions are in sync.
    in_sync: InSync,
    /// Who watches which feed.
    watchers: Watchers,
    /// Who hears which extension on which feed's channels.
    inboxes: FeedInboxes,
    /// Appends that are answered when they are synced.
    appended: Vec<Appended>,
    /// What the disk does not support, as far as the handles know.
    unsupported: Unsupported,
    closing: bool,
    // Buffers that are kept for their memory.
    mail: Mail,
    events: Vec<Event>,
    commands: Vec<Command>,
    // Last: dropped after everything above.
    holders: Holders,
}

/// An append that is not synced, and where its answer goes.
struct Appended {
    feed: FeedId,
    blocks: Range<u64>,
    answer: Answer<Result<Range<u64>, Error>>,
}

/// A session, from its first sign of life until its stream is closed.
struct Connected {
    link: Arc<Link>,
    end: Option<Result<SyncTotals, SyncError>>,
    /// Its stream is closed.
    left: bool,
}

impl Drop for Connected {
    fn drop(&mut self) {
        // If the thread dies of a bug, nobody may wait for it for ever.
        if !self.left {
            self.link.abandon();
        }
    }
}

/// Starts a store's thread. Opening reads the disk: it too is the thread's work.
pub(crate) async fn start<S: Storage + 'static, T: Send + 'static>(
    shared: Arc<StoreShared>,
    holder: Holder,
    place: String,
    storage: impl FnOnce() -> Result<S, Error> + Send + 'static,
    opened: impl FnOnce(&mut Store<S>) -> T + Send + 'static,
) -> Result<T, Error> {
    let (answer, waiting) = oneshot::channel();
    let body = move || {
        let _store = Span::store(&place).enter();
        log!(DEBUG, "store", "opens");
        let options = shared.options.multifeed.clone();
        let multi = storage().and_then(|storage| Ok(multifeed_core::Multifeed::open(storage, options)?));
        match multi {
            Ok(multi) => {
                let mut store = Store::new(multi, shared, holder);
                answer.send(Ok(opened(&mut store)));
                store.run();
            }
            Err(error) => {
                log!(DEBUG, "store", "could not be opened", error = %error);
                answer.send(Err(error));
            }
        }
    };
    thread::Builder::new().name("multifeed-store".into()).spawn(body).map_err(|error| Error::Thread(error.into()))?;
    waiting.await.map_err(|_| Error::Closed)?
}

impl<S: Storage> Store<S> {
    pub(crate) fn new(multi: Multifeed<S>, shared: Arc<StoreShared>, holder: Holder) -> Self {
        let inboxes = FeedInboxes::new(&shared.options.multifeed.limits);
        shared.note_found(&multi);
        Self {
            multi,
            peers: BTreeMap::new(),
            unfinished: false,
            uncommitted_since: None,
            looked_at: Duration::ZERO,
            quantum_bytes: shared.options.quantum_bytes.max(1),
            waits: Waits::default(),
            in_sync: InSync::default(),
            watchers: Watchers::default(),
            inboxes,
            appended: Vec::new(),
            unsupported: Unsupported::default(),
            closing: false,
            mail: Mail::new(),
            events: Vec::new(),
            commands: Vec::new(),
            holders: Holders {
                store: shared,
                folder: holder == Holder::Folder,
                multifeeds: BTreeMap::new(),
                plain: None,
            },
        }
    }

    /// Works until the store is closed, or its last handle is dropped.
    pub(crate) fn run(mut self) {
        while !(self.closing && self.peers.is_empty()) {
            self.release_closed();
            let timeout = self.timeout();
            self.take(timeout);
            self.commit(self.mail.links.is_empty());
            self.excuse();
            let mut links = std::mem::take(&mut self.mail.links);
            for link in links.drain(..) {
                self.take_calls();
                self.serve(&link);
                self.excuse();
            }
            // What rang in the meantime stands behind.
            links.append(&mut self.mail.links);
            self.mail.links = links;
            let now = self.now();
            if self.multi.poll_timeout().is_some_and(|due| due <= now) {
                for (&peer, connected) in &self.peers {
                    self.multi.excuse(peer, connected.link.take_excused());
                }
                self.multi.handle_timeout(now);
            }
            self.hand_out();
            self.tell();
            self.answer_in_sync();
            self.answer_ready();
            self.excuse();
        }
        self.close();
    }

    /// Stops the sessions' clocks for the time in which the thread was behind: what came in it is still to be looked at.
    fn excuse(&mut self) {
        let now = self.now();
        let behind = now.saturating_sub(std::mem::replace(&mut self.looked_at, now));
        if behind >= BEHIND {
            self.multi.excuse_all(behind);
        }
    }

    /// How long there is nothing to do, as far as is known.
    fn timeout(&mut self) -> Option<Duration> {
        if self.unfinished || !self.mail.links.is_empty() || self.multi.uncommitted().is_some() {
            return Some(Duration::ZERO);
        }
        self.multi.poll_timeout().map(|due| due.saturating_sub(self.now()))
    }

    /// Takes what the mailbox holds, and does the calls in it.
    fn take(&mut self, timeout: Option<Duration>) {
        let known = self.mail.links.len();
        self.holders.store.mailbox.take(timeout, &mut self.mail);
        // A call knows of the sessions that were begun before it.
        for at in known..self.mail.links.len() {
            if let Some(link) = self.mail.links.get(at).filter(|link| link.peer.get().is_none()).cloned() {
                self.connect(&link);
            }
        }
        if timeout != Some(Duration::ZERO) {
            self.looked_at = self.now();
        }
        // What is given up makes room for what comes; what is given up of what comes is so afterwards.
        self.give_up();
        if !self.mail.calls.is_empty() {
            while let Some((holder, call)) = self.mail.calls.pop_front() {
                self.call(holder, call);
            }
            // Sessions hear of what was appended.
            self.multi.commit(self.now());
            self.answer_appended();
        }
        self.give_up();
        self.mail.given_up.clear();
        for holder in std::mem::take(&mut self.mail.deserted) {
            let is_gone = match holder {
                Holder::Folder => true,
                // Another may have been made since.
                Holder::Multifeed(set) => {
                    self.holders.multifeeds.get(&set).is_some_and(|opened| opened.guard.strong_count() == 0)
                }
            };
            if is_gone {
                self.leave(holder);
            }
        }
    }

    /// Waits no longer for what nobody waits for.
    fn give_up(&mut self) {
        let (waits, in_sync, inboxes) = (&mut self.waits, &mut self.in_sync, &mut self.inboxes);
        let multi = &mut self.multi;
        self.mail.given_up.retain(|&ticket| match waits.give_up(ticket) {
            _ if in_sync.give_up(ticket) || inboxes.give_up(ticket) => false,
            Some(want) => {
                multi.unwant(want);
                false
            }
            None => true,
        });
    }

    /// Writes what was received, if there is nothing else to do, or it is much, or waited long.
    fn commit(&mut self, idle: bool) {
        let Some(bytes) = self.multi.uncommitted() else {
            self.uncommitted_since = None;
            return;
        };
        let now = self.now();
        let since = *self.uncommitted_since.get_or_insert(now);
        if idle || bytes >= COMMIT_BYTES || now.saturating_sub(since) >= COMMIT_WAIT {
            self.multi.commit(now);
            self.uncommitted_since = None;
        }
    }

    fn take_calls(&mut self) {
        if self.holders.store.mailbox.has_calls() {
            self.take(Some(Duration::ZERO));
        }
    }

    fn call(&mut self, holder: Holder, call: Call) {
        let set = match holder {
            Holder::Multifeed(set) if self.holders.multifeeds.get(&set).is_some_and(|opened| !opened.closing) => set,
            Holder::Folder => SetId::ALL,
            // Dropping it answers that the multifeed is closed.
            Holder::Multifeed(_) => return,
        };
        match call {
            _ if self.closing => {}
            Call::Writer { name, writer, answer } => {
                let result = self.writer(set, name.as_deref(), writer);
                let result = result.map_err(|error| match error {
                    Error::Store(error) => self.failed(error),
                    error => error,
                });
                self.tell();
                answer.send(result);
            }
            Call::Add { key, answer } => {
                let added = self.multi.add(key).and_then(|feed| {
                    if set != SetId::ALL {
                        self.multi.include(set, feed)?;
                    }
                    Ok(feed)
                });
                let result = added.and_then(|feed| self.state(set, feed)).map_err(|error| self.failed(error));
                self.tell();
                answer.send(result);
            }
            Call::Append { feed, blocks, answer } => {
                let result = self.multi.append(feed, &blocks).map_err(|error| match error {
                    AppendError::Store(error) => self.failed(error),
                    error => Error::Append(error),
                });
                self.tell();
                self.refresh(feed);
                match result {
                    // All that wait in the mailbox are synced together.
                    Ok(range) if self.multi.durability() == Durability::Always && !range.is_empty() => {
                        self.appended.push(Appended { feed, blocks: range, answer });
                    }
                    result => answer.send(result),
                }
            }
            Call::Get { feed, index, answer } => {
                let result = self.multi.get(feed, index);
                self.refresh(feed);
                answer.send(result.map_err(|source| match self.multi.info(feed) {
                    Ok(info) => Error::Read { feed: info.key, index, source: self.multi.told(source) },
                    Err(error) => error.into(),
                }));
            }
            Call::Has { feed, index, answer } => answer.send(self.multi.has(feed, index)),
            Call::Verify { feed, mut cursor, answer } => {
                let step = self.multi.verify_step(feed, &mut cursor, VERIFY_STEP_BYTES);
                answer.send(step.map(|step| (cursor, step)).map_err(|error| self.failed(error)));
            }
            Call::Read(call) => self.read(call),
            Call::State(call) => self.answer_state(set, call),
            Call::SyncToDisk { from, answer } => {
                let (next, step) = self.multi.sync_step(from);
                self.tell();
                answer.send((next, step.map_err(|error| self.multi.told(error))));
            }
            Call::SyncFeedToDisk { feed, answer } => {
                let synced = self.multi.sync_feed(feed);
                self.tell();
                answer.send(synced.map_err(|error| self.multi.told(error)));
            }
            Call::Remove { feed, writer, answer } => {
                let removed = self.remove(set, feed, writer);
                self.tell();
                answer.send(removed.map_err(|error| self.failed(error)));
            }
            Call::Ban { key, bans, answer } => {
                let changed = if bans { self.multi.ban(key) } else { self.multi.unban(key) };
                answer.send(changed.map_err(|error| self.failed(error)));
            }
            Call::Conflicts { answer } => answer.send(self.multi.conflicts()),
            Call::ClearConflicts { answer } => {
                let cleared = self.multi.clear_conflicts();
                answer.send(cleared.map_err(|error| self.failed(error)));
            }
            Call::PolicyChanged { answer } => {
                self.multi.policy_changed(set);
                answer.send(());
            }
            Call::ReleaseName { name, answer } => answer.send(self.multi.release_missing_name(&name)),
            Call::GiveUp { key, answer } => {
                let given_up = self.multi.give_up_missing(&key);
                self.holders.store.note_found(&self.multi);
                self.tell();
                answer.send(given_up.map_err(|error| self.failed(error)));
            }
            Call::RebuildList { answer } => {
                let rebuilt = self.multi.rebuild_list(set);
                self.holders.store.note_found(&self.multi);
                self.tell();
                answer.send(rebuilt.map_err(|error| self.failed(error)));
            }
            Call::Banned { answer } => answer.send(self.multi.banned().collect()),
            Call::CloseIdleFiles { answer } => answer.send(self.multi.close_idle_files()),
            Call::Extension(call) => self.extend(call),
            Call::OpenMultifeed { namespace, root_key, answer } => {
                answer.send(self.open_multifeed(&namespace, root_key));
            }
            Call::PlainCores { answer } => answer.send(self.open_plain_cores()),
            Call::PlainCore { which, answer } => answer.send(self.plain_core(set, which)),
            Call::ListCores { answer } => answer.send(self.multi.list_cores().map_err(Error::Store)),
            Call::Close => match holder {
                Holder::Folder => self.begin_closing(),
                Holder::Multifeed(_) => self.leave(holder),
            },
        }
    }

    /// A failure of the store, as callers get it.
    fn failed(&self, error: StoreError) -> Error {
        Error::Store(self.multi.told(error))
    }

    /// Answers the appends that wait for their sync, which was tried.
    fn answer_appended(&mut self) {
        for Appended { feed, blocks, answer } in std::mem::take(&mut self.appended) {
            let failed = (self.multi.synced_len(feed) < blocks.end).then(|| self.multi.sync_error(feed).cloned());
            answer.send(match failed {
                None => Ok(blocks),
                Some(Some(error)) => Err(self.failed(error)),
                Some(None) => Err(Error::Closed),
            });
        }
    }

    fn writer(&mut self, set: SetId, name: Option<&str>, writer: NewWriter) -> Result<Arc<FeedState>, Error> {
        let feed = match writer {
            NewWriter::Random if set != SetId::ALL => self.multi.writer_in(set, name)?,
            NewWriter::Signer(_) if set != SetId::ALL => {
                let key = self.multi.writer_key_in(set, name)?;
                return Err(Error::Store(StoreError::KeyMismatch { key }));
            }
            NewWriter::Pair(key_pair) if set != SetId::ALL => {
                let key = self.multi.writer_key_in(set, name)?;
                if key != key_pair.public_key() {
                    return Err(Error::Store(StoreError::KeyMismatch { key }));
                }
                self.multi.writer_in(set, name)?
            }
            NewWriter::Pair(key_pair) => self.multi.writer(name, || *key_pair)?,
            NewWriter::Signer(signer) => self.multi.writer_with_signer(name, signer)?,
            NewWriter::Random => {
                let key_pair = generate_key_pair()?;
                self.multi.writer(name, || key_pair)?
            }
        };
        Ok(self.state(set, feed)?)
    }

    /// The application's number of a session.
    fn sync_of(&self, peer: SessionId) -> Option<SyncId> {
        Some(self.peers.get(&peer)?.link.id)
    }

    fn now(&self) -> Duration {
        self.holders.store.clock.now()
    }

    /// A session rang: takes its events and its credit, or its end.
    fn serve(&mut self, link: &Arc<Link>) {
        let Some(&peer) = link.peer.get() else { return };
        let delivery = link.collect(&mut self.events);
        if !self.peers.contains_key(&peer) {
            self.events.clear();
            return;
        }
        if !self.events.is_empty() {
            let now = self.now();
            let mut events = std::mem::take(&mut self.events);
            for event in multifeed_core::prepare_events(&mut events) {
                self.multi.handle(peer, event, now);
                self.pass_messages();
            }
            self.events = events;
            self.commit(false);
        }
        if let Some((per_second, unwritten)) = delivery.send_rate {
            self.multi.set_send_rate(peer, per_second, unwritten);
        }
        let credit = usize::try_from(delivery.credit.unsigned_abs()).unwrap_or(usize::MAX);
        match delivery.credit {
            1.. => self.multi.grant(peer, credit),
            ..0 => self.multi.revoke(peer, credit),
            0 => {}
        }
        if delivery.room > 0 {
            self.multi.give_room(peer, delivery.room);
        }
        if let Some(stream) = delivery.left {
            self.pass_events(peer);
            if self.multi.in_sync(peer) {
                link.set_ended_in_sync();
            }
            self.answer_in_sync();
            self.multi.disconnect(peer);
            self.tell();
            let end = self.peers.remove(&peer).and_then(|mut connected| {
                connected.left = true;
                connected.end.take()
            });
            let end = end.unwrap_or_else(|| {
                Err(SyncError::Session(SessionError::Local("the session's task was dropped by its runtime".into())))
            });
            link.sync.end(end.map(|moved| Totals { moved, stream }));
        }
    }

    fn connect(&mut self, link: &Arc<Link>) {
        let set = link.options.set;
        if self.holders.multifeeds.get(&set).is_none_or(|opened| opened.closing) || self.closing {
            link.cancel();
        }
        let options = link.options.clone();
        let peer = match link.lone {
            None => self.multi.connect_as(link.root, options),
            Some(key) => self.multi.connect_feed(link.root, key, options),
        };
        self.multi.set_spare(peer, self.holders.store.options.pump.send_bytes as u64);
        self.peers.insert(peer, Connected { link: link.clone(), end: None, left: false });
        link.peer.get_or_init(|| peer);
        self.observe_new(link);
    }

    fn is_connected(&self, peer: SessionId) -> bool {
        self.peers.contains_key(&peer)
    }

    /// The sessions that are there.
    fn links(&self) -> Vec<Arc<Link>> {
        self.peers.values().map(|connected| connected.link.clone()).collect()
    }

    /// Hands out commands, each session at most its quantum in its turn.
    fn hand_out(&mut self) {
        let mut total = 0;
        self.unfinished = false;
        while let Some(peer) = self.multi.poll_ready() {
            let mut bytes = 0;
            while bytes < self.quantum_bytes
                && let Some(command) = self.multi.poll_command(peer)
            {
                bytes = bytes.saturating_add(command.size());
                self.commands.push(command);
            }
            self.pass_events(peer);
            match self.peers.get(&peer) {
                Some(connected) if !self.commands.is_empty() => connected.link.command(&mut self.commands),
                _ => self.commands.clear(),
            }
            if let (Some(bytes), Some(connected)) = (self.multi.room_needed(peer), self.peers.get(&peer)) {
                connected.link.need(usize::try_from(bytes).unwrap_or(usize::MAX));
            }
            self.take_calls();
            total += bytes;
            if total >= QUANTA_IN_A_ROW * self.quantum_bytes {
                self.unfinished = true;
                break;
            }
        }
    }

    /// No more calls; the sessions end, and take their time for it, which each of them bounds.
    fn begin_closing(&mut self) {
        self.closing = true;
        // Said first: what the mailbox refuses from now on was closed, and did not fail.
        self.holders.multifeeds.values().for_each(|opened| opened.shared.set_closing());
        self.holders.store.mailbox.close();
        // Everyone who waits for a peer hears that the multifeed is closed.
        self.waits = Waits::default();
        self.in_sync = InSync::default();
        self.inboxes.close_all();
        self.peers.values().for_each(|connected| connected.link.cancel());
    }

    fn close(mut self) {
        self.multi.commit(self.now());
        self.tell();
        let Self { multi, holders, .. } = self;
        let (result, unsupported) = multi.close_and_tell();
        match &result {
            Ok(()) => log!(DEBUG, "store", "closed"),
            Err(error) => log!(DEBUG, "store", "closed, and its last writes failed", error = %error),
        }
        holders.store.note_unsupported(unsupported);
        holders.multifeeds.values().for_each(|opened| opened.shared.closed.set_result(result.clone()));
        holders.store.closed.set_result(result);
    }
}
