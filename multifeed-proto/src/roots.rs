//! The multifeeds of a stream: one exchange for each root key, and the order in which their channels are opened.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use crate::config::RootConfig;
use crate::error::ApiMisuse;
use crate::exchange::{Exchange, Kind, Stage};
use crate::extension::Extensions;
use crate::identity::Role;
use crate::ids::Root;
use crate::key::{DiscoveryKey, FeedKey};
use crate::limits::Limits;
use crate::machine::Machine;

/// The multifeeds of a stream.
#[derive(Debug)]
pub(crate) struct Roots {
    entries: BTreeMap<Root, Box<Entry>>,
    keys: BTreeMap<DiscoveryKey, Root>,
    turn: Turn,
    /// The caller named one for the session's start, and the remote must have it as long as there is no other.
    strict: bool,
    /// The remote's first channel, if that was not a root key's of ours, or of one that is over.
    foreign: Option<DiscoveryKey>,
    /// Whether the remote opened one of ours.
    came: bool,
    /// Those that the remote opened, in that order, from the first that is not over: lists on channel 0 are its.
    named: VecDeque<Root>,
    /// The one whose they are heard our handshake, and is over: what may still come is nobody's, and not the next one's.
    spent: bool,
    /// Keys of those that are over.
    dead: BTreeSet<DiscoveryKey>,
    /// Those whose channels we have not opened.
    unopened: BTreeSet<Root>,
    /// Those that are still to become ready.
    waiting: BTreeSet<Root>,
}

/// A multifeed on a stream.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: FeedKey,
    pub(crate) discovery_key: DiscoveryKey,
    pub(crate) exchange: Exchange,
    /// Over which channel we send our lists; known once we had to send something, or heard the remote.
    pub(crate) dialect: Option<Dialect>,
    /// Our handshake went out in two dialects: that is all there are.
    greeted_twice: bool,
    /// The extensions of the root key's own channel.
    pub(crate) extensions: Extensions,
    /// Until when the exchange has to be ready.
    deadline: Option<Duration>,
    /// The remote opened it.
    named: bool,
    /// It was ready once.
    was_ready: bool,
    /// The caller wants its channel closed, once it is ready.
    pub(crate) close: bool,
}

/// Where multifeed's four extensions are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// On channel 0: multifeed 6. A stream has one multifeed.
    Stream,
    /// On the root key's own channel: corestore-multifeed.
    Channel,
}

/// How far the opening of root keys' channels has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Noise is not done.
    Noise,
    /// An initiator gives the remote a moment to open its own first. A JS responder that reads a foreign Open together with the
    /// last handshake message drops the stream before it ever says which root key it has. One that is left to open first tells,
    /// so that we can too.
    Hold,
    /// A responder with several waits to hear which one the remote names.
    Listen,
    /// One is open, the others wait for an Open of the remote's.
    One,
    /// Whatever there is may be opened.
    All,
}

/// What goes on with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Noise is done, there is a root key, and we are the initiator.
    Initiator,
    /// Noise is done, there is one root key, and we are the responder.
    Responder,
    /// Noise is done, there are several, and we are the responder.
    ResponderOfSeveral,
    /// Noise is done, and there is no root key.
    Plain,
    /// The initiator waited long enough.
    Waited,
    /// The remote opened a channel.
    RemoteOpen,
    /// There is no root key left to be opened.
    NoneLeft,
}

impl Machine for Turn {
    type Input = Step;
    const START: Self = Self::Noise;
    const MOVES: &'static [(Self, Step, Self)] = &[
        (Self::Noise, Step::Initiator, Self::Hold),
        (Self::Noise, Step::Responder, Self::One),
        (Self::Noise, Step::ResponderOfSeveral, Self::Listen),
        (Self::Noise, Step::Plain, Self::All),
        (Self::Hold, Step::Waited, Self::One),
        (Self::Hold, Step::RemoteOpen, Self::All),
        (Self::Listen, Step::RemoteOpen, Self::All),
        (Self::One, Step::RemoteOpen, Self::All),
        (Self::Hold, Step::NoneLeft, Self::All),
        (Self::Listen, Step::NoneLeft, Self::All),
        (Self::One, Step::NoneLeft, Self::All),
    ];
}

impl Roots {
    pub(crate) fn new(config: Option<RootConfig>, deadline: Option<Duration>, limits: &Limits) -> Self {
        let mut roots = Self {
            entries: BTreeMap::new(),
            keys: BTreeMap::new(),
            turn: Turn::START,
            strict: config.is_some(),
            foreign: None,
            came: false,
            named: VecDeque::new(),
            spent: false,
            dead: BTreeSet::new(),
            unopened: BTreeSet::new(),
            waiting: BTreeSet::new(),
        };
        if let Some(config) = config {
            // The first of all.
            let _ = roots.add(Root::FIRST, config, deadline, limits);
        }
        roots
    }

    /// Adds a multifeed. Fails if its name was used before, or its key is there already.
    pub(crate) fn add(
        &mut self,
        root: Root,
        config: RootConfig,
        deadline: Option<Duration>,
        limits: &Limits,
    ) -> Result<(), ApiMisuse> {
        if self.entries.contains_key(&root) {
            return Err(ApiMisuse::RootInUse(root));
        }
        let (key, discovery_key) = (config.key, config.key.discovery_key());
        if self.keys.contains_key(&discovery_key) {
            return Err(ApiMisuse::RootKeyInUse(discovery_key));
        }
        let mut extensions = Extensions::default();
        for kind in Kind::ALL {
            extensions.add(kind.name());
        }
        for name in &config.extensions {
            if extensions.has_room_for(name, limits) {
                extensions.add(name);
            }
        }
        let exchange = Exchange::new(root, config);
        let entry = Entry {
            key,
            discovery_key,
            exchange,
            dialect: None,
            greeted_twice: false,
            extensions,
            deadline,
            named: false,
            was_ready: false,
            close: false,
        };
        self.entries.insert(root, Box::new(entry));
        self.keys.insert(discovery_key, root);
        self.unopened.insert(root);
        self.waiting.insert(root);
        Ok(())
    }

    pub(crate) fn get(&mut self, root: Root) -> Option<&mut Entry> {
        self.entries.get_mut(&root).map(|entry| &mut **entry)
    }

    pub(crate) fn peek(&self, root: Root) -> Option<&Entry> {
        self.entries.get(&root).map(|entry| &**entry)
    }

    /// The multifeed whose root key a discovery key belongs to.
    pub(crate) fn find(&self, discovery_key: &DiscoveryKey) -> Option<Root> {
        self.keys.get(discovery_key).copied()
    }

    /// Noise is done.
    pub(crate) fn established(&mut self, role: Role) -> Turn {
        let step = match (role, self.keys.len()) {
            (_, 0) => Step::Plain,
            (Role::Initiator, _) => Step::Initiator,
            (Role::Responder, 1) => Step::Responder,
            (Role::Responder, _) => Step::ResponderOfSeveral,
        };
        self.turn.on(step);
        self.turn
    }

    /// The initiator waited long enough.
    pub(crate) fn waited(&mut self) {
        self.turn.on(Step::Waited);
    }

    /// The remote opened a channel that is `root`'s, or no root key's.
    pub(crate) fn remote_opened(&mut self, discovery_key: DiscoveryKey, root: Option<Root>) {
        match root {
            Some(root) => {
                self.came = true;
                // It may close its channel and open it again, without end.
                if let Some(entry) = self.get(root)
                    && !core::mem::replace(&mut entry.named, true)
                {
                    self.named.push_back(root);
                }
            }
            None => {
                // A remote whose lists are on channel 0 has one multifeed, and opened it first: this one, that is over here.
                self.spent |= self.named.is_empty() && self.dead.contains(&discovery_key);
                if !self.came {
                    self.foreign.get_or_insert(discovery_key);
                }
            }
        }
        self.turn.on(Step::RemoteOpen);
    }

    /// The next root key to be opened, if one may be now: the one that the remote named before others.
    pub(crate) fn next(&mut self) -> Option<(Root, FeedKey)> {
        let may = match self.turn {
            Turn::Noise | Turn::Hold | Turn::Listen => false,
            Turn::One => !self.any_opened(),
            Turn::All => true,
        };
        if !may {
            return None;
        }
        let named = self.named.front().filter(|root| self.unopened.contains(root));
        let root = named.or(self.unopened.first()).copied()?;
        self.unopened.remove(&root);
        Some((root, self.entries.get(&root)?.key))
    }

    /// Counts the channels that follow from what we said: one for each feed that we offered or requested.
    pub(crate) fn named(&self) -> usize {
        self.entries.values().map(|entry| entry.exchange.named()).sum()
    }

    /// Whether other channels may be opened: not before a root key's, if there is one.
    pub(crate) fn others_may_follow(&self) -> bool {
        match self.turn {
            Turn::Noise | Turn::Hold | Turn::Listen => false,
            Turn::One | Turn::All => true,
        }
    }

    /// Whether there is one root key, named at the start, and the remote has opened another channel and not that one: nothing else is said to it.
    pub(crate) fn is_doubtful(&self) -> bool {
        let only = self.entries.values().next().filter(|_| self.strict && self.entries.len() == 1);
        only.is_some_and(|entry| !self.came && !entry.exchange.is_over()) && self.foreign.is_some()
    }

    /// Returns our first root key and the remote's, if the remote has opened another and none of ours.
    pub(crate) fn mismatch(&self) -> Option<(DiscoveryKey, DiscoveryKey)> {
        let them = self.foreign.filter(|_| !self.came)?;
        // It may have come too late for one that had failed.
        let is_ours = self.entries.values().any(|entry| entry.discovery_key == them);
        let ours = self.entries.values().find(|entry| !entry.exchange.is_over())?;
        Some((ours.discovery_key, them)).filter(|_| !is_ours)
    }

    /// Whether the caller named a root key for the session's start.
    pub(crate) fn is_strict(&self) -> bool {
        self.strict
    }

    /// Whose the lists on channel 0 are: the root key's that the remote opened first, of those that are not over; while it opened
    /// nothing, our only one's.
    pub(crate) fn of_stream(&mut self) -> Option<(Root, &mut Entry)> {
        let is_alone = !self.came && !self.is_doubtful() && self.keys.len() == 1;
        let only = || self.keys.values().next().filter(|_| is_alone);
        let root = *self.named.front().or_else(only).filter(|_| !self.spent)?;
        self.get(root).map(|entry| (root, entry))
    }

    /// How a multifeed speaks as long as the remote has not shown how it does: as multifeed 6 if the stream is its own. If others
    /// are on it, or may come, in the dialect that can say that one of them leaves.
    pub(crate) fn default_dialect(&self) -> Dialect {
        if self.strict && self.entries.len() == 1 { Dialect::Stream } else { Dialect::Channel }
    }

    /// Whether a multifeed that fails ends the session: the caller named one for its start, and no other is there or ever was ready.
    pub(crate) fn is_last(&self, root: Root) -> bool {
        let is_nothing = |entry: &Entry| entry.exchange.is_over() && !entry.was_ready;
        self.strict && self.entries.iter().all(|(other, entry)| *other == root || is_nothing(entry))
    }

    /// A multifeed's exchange is ready.
    pub(crate) fn ready(&mut self, root: Root) {
        self.waiting.remove(&root);
        if let Some(entry) = self.get(root) {
            entry.was_ready = true;
        }
    }

    /// A multifeed is over: its key may be opened again, under another name.
    pub(crate) fn over(&mut self, root: Root) {
        if let Some(entry) = self.entries.get_mut(&root) {
            self.dead.insert(entry.discovery_key);
            let was_greeted = entry.exchange.stage() != Stage::Waiting;
            entry.exchange.end();
            entry.extensions = Extensions::default();
            if self.keys.get(&entry.discovery_key) == Some(&root) {
                self.keys.remove(&entry.discovery_key);
            }
            self.unopened.remove(&root);
            self.waiting.remove(&root);
            self.spent |= was_greeted && self.named.front() == Some(&root);
        }
        while self.named.front().and_then(|first| self.entries.get(first)).is_some_and(|entry| entry.exchange.is_over())
        {
            self.named.pop_front();
        }
        if self.keys.is_empty() {
            self.turn.on(Step::NoneLeft);
        }
    }

    /// Whether a multifeed is over, or never was there.
    pub(crate) fn is_over(&self, root: Root) -> bool {
        self.entries.get(&root).is_none_or(|entry| entry.exchange.is_over())
    }

    /// When the next of those that are not ready has to be.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.waiting().filter_map(|(_, entry)| entry.deadline).min()
    }

    /// All that are not ready have until then.
    pub(crate) fn wait_until(&mut self, deadline: Option<Duration>) {
        for root in &self.waiting {
            if let Some(entry) = self.entries.get_mut(root) {
                entry.deadline = deadline;
            }
        }
    }

    /// Those that should have been ready by `now`.
    pub(crate) fn late(&self, now: Duration) -> Vec<Root> {
        let late = |entry: &Entry| entry.deadline.is_some_and(|deadline| deadline <= now);
        self.waiting().filter(|(_, entry)| late(entry)).map(|(root, _)| root).collect()
    }

    /// Those whose handshake of ours is held.
    pub(crate) fn held(&self) -> Vec<Root> {
        let held = |entry: &Entry| entry.exchange.stage() == Stage::Verified;
        self.waiting().filter(|(_, entry)| held(entry)).map(|(root, _)| root).collect()
    }

    /// Keys of the caller's that wait until their exchange is ready.
    pub(crate) fn waiting_keys(&self) -> usize {
        self.waiting().map(|(_, entry)| entry.exchange.waiting_keys()).sum()
    }

    fn waiting(&self) -> impl Iterator<Item = (Root, &Entry)> {
        self.waiting.iter().filter_map(|root| Some((*root, &**self.entries.get(root)?)))
    }

    /// Whether a root key's channel is open that may yet be answered, or was.
    fn any_opened(&self) -> bool {
        self.keys.values().any(|root| !self.unopened.contains(root))
    }
}

impl Entry {
    /// The remote was heard to speak a dialect; whether our handshake has to be said again in it.
    pub(crate) fn hear(&mut self, dialect: Dialect) -> bool {
        // Once it is ready the remote has understood us.
        if self.exchange.stage() == Stage::Ready || self.dialect == Some(dialect) {
            return false;
        }
        self.dialect = Some(dialect);
        self.exchange.stage() == Stage::Greeted && !core::mem::replace(&mut self.greeted_twice, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::DEFAULT_ROOT_KEY;

    #[test]
    fn a_root_key_that_is_opened_over_and_over_leaves_nothing_behind() {
        let mut roots = Roots::new(Some(RootConfig::new(DEFAULT_ROOT_KEY)), None, &Limits::default());
        for _ in 0..1000 {
            roots.remote_opened(DEFAULT_ROOT_KEY.discovery_key(), Some(Root::FIRST));
        }
        assert_eq!(roots.named, [Root::FIRST]);
    }
}
