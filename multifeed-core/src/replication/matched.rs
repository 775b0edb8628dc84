//! What one session knows of feeds that both sides hold alike, so that nothing has to be said of them.

use bytes::Bytes;
use multifeed_proto::SessionError;

use crate::ids::FeedId;
use crate::replication::reconcile::Reconciler;
use crate::sets::sparse_bits::SparseBits;

/// The feeds of a session that need no channel, and the machine that finds them.
///
/// A session with a remote that does not reconcile has none.
#[derive(Debug, Default)]
pub(crate) struct MatchedFeeds {
    stage: Stage,
    /// Those that may turn out to be alike; and those that did, until one side has news of them.
    feeds: SparseBits,
    /// Those of them that have news here, which are announced once they are fsynced.
    held_back: SparseBits,
}

#[derive(Debug, Default)]
enum Stage {
    /// Nobody asked for it, or the remote lists its feeds instead.
    #[default]
    Off,
    Running(Box<Reconciler<FeedId>>),
    Over,
}

impl MatchedFeeds {
    /// Begins to find out; gives the first message.
    pub(crate) fn begin(&mut self, machine: Reconciler<FeedId>) -> Bytes {
        let greeting = machine.greeting();
        machine.names().for_each(|feed| _ = self.feeds.insert(u64::from(feed.0)));
        self.stage = Stage::Running(Box::new(machine));
        greeting
    }

    /// Whether it is not known yet which feeds to offer.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Running(_))
    }

    /// Takes a message of the remote's; returns the one to send, if there is one. One that nobody waits for is ignored if
    /// nothing was ever asked.
    pub(crate) fn handle(&mut self, message: &[u8]) -> Result<Option<Bytes>, SessionError> {
        match &mut self.stage {
            Stage::Off => Ok(None),
            Stage::Running(machine) => machine.handle(message),
            Stage::Over => Err(crate::replication::reconcile::ReconcileError::Late.into()),
        }
    }

    /// Ends it if everything was said: what is left then is in step. Returns whether it ended.
    pub(crate) fn conclude(&mut self) -> bool {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Running(machine) if machine.is_done() => {
                machine.into_differing().for_each(|feed| _ = self.remove(feed));
                true
            }
            stage => {
                self.stage = stage;
                false
            }
        }
    }

    /// Gives up: nothing is known to be in step.
    pub(crate) fn abandon(&mut self) {
        self.stage = Stage::Off;
        self.feeds.clear();
        self.held_back.clear();
    }

    pub(crate) fn contains(&self, feed: FeedId) -> bool {
        self.feeds.get(u64::from(feed.0))
    }

    /// Whether both sides hold a feed alike.
    pub(crate) fn holds(&self, feed: FeedId) -> bool {
        !self.is_running() && self.contains(feed)
    }

    /// A feed is not in step any more. Whether it was, or seemed so.
    pub(crate) fn remove(&mut self, feed: FeedId) -> bool {
        self.held_back.remove(u64::from(feed.0));
        self.feeds.remove(u64::from(feed.0))
    }

    /// A feed has news here that is not announced before it is fsynced.
    pub(crate) fn hold_back(&mut self, feed: FeedId) {
        if self.contains(feed) {
            self.held_back.insert(u64::from(feed.0));
        }
    }

    /// Whether a feed has news here that is not announced yet.
    pub(crate) fn holds_back(&self, feed: FeedId) -> bool {
        self.held_back.get(u64::from(feed.0))
    }

    /// How many feeds seem alike to the remote, and have news here.
    pub(crate) fn behind(&self) -> u64 {
        self.held_back.count()
    }

    /// How many feeds both sides hold alike.
    pub(crate) fn count(&self) -> u64 {
        if self.is_running() { 0 } else { self.feeds.count() }
    }
}
