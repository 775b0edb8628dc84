//! The sessions of a multifeed, and which of them have something to send or to report.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::ids::SessionId;
use crate::limits::Limits;
use crate::log::{Span, log};
use crate::replication::peer_session::PeerSession;
use crate::replication::policy::Policy;
use crate::replication::replicate::Replicate;
use crate::replication::sources::Sources;

/// All sessions, by their names, which are never given twice.
#[derive(Debug)]
pub(in crate::multifeed) struct Sessions {
    all: BTreeMap<SessionId, PeerSession>,
    next: u64,
    /// Sessions that have something to send or to report, each once.
    ready: VecDeque<SessionId>,
    /// What sessions do that do not say it themselves.
    sparse: bool,
    policy: Option<Arc<dyn Policy>>,
    /// What remotes brought that have names.
    sources: Sources,
}

impl Sessions {
    /// None yet. `sparse` and `policy` are for those whose options do not say it.
    pub(in crate::multifeed) fn new(sparse: bool, policy: Option<Arc<dyn Policy>>) -> Self {
        Self { all: BTreeMap::new(), next: 0, ready: VecDeque::new(), sparse, policy, sources: Sources::default() }
    }

    /// Adds a session.
    pub(in crate::multifeed) fn add(
        &mut self,
        mut options: Replicate,
        limits: &Limits,
        new: impl FnOnce(Replicate) -> PeerSession,
    ) -> SessionId {
        options.sparse.get_or_insert(self.sparse);
        options.policy = options.policy.or_else(|| self.policy.clone());
        let mut session = new(options);
        session.limits = limits.peer;
        if let Some(source) = &session.options.source {
            session.brought = self.sources.of(source, limits.sources);
        }
        let id = SessionId(self.next);
        self.next += 1;
        session.span = Span::session(id);
        log!(DEBUG, "session", in session.span, "begins",
            live = ?session.options.live, source = ?session.options.source);
        self.all.insert(id, session);
        id
    }

    pub(in crate::multifeed) fn remove(&mut self, id: &SessionId) {
        self.all.remove(id);
    }

    pub(in crate::multifeed) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(in crate::multifeed) fn get(&self, id: &SessionId) -> Option<&PeerSession> {
        self.all.get(id)
    }

    pub(in crate::multifeed) fn get_mut(&mut self, id: &SessionId) -> Option<&mut PeerSession> {
        self.all.get_mut(id)
    }

    pub(in crate::multifeed) fn keys(&self) -> impl Iterator<Item = &SessionId> {
        self.all.keys()
    }

    pub(in crate::multifeed) fn values(&self) -> impl Iterator<Item = &PeerSession> {
        self.all.values()
    }

    pub(in crate::multifeed) fn values_mut(&mut self) -> impl Iterator<Item = &mut PeerSession> {
        self.all.values_mut()
    }

    pub(in crate::multifeed) fn iter(&self) -> impl Iterator<Item = (&SessionId, &PeerSession)> {
        self.all.iter()
    }

    pub(in crate::multifeed) fn iter_mut(&mut self) -> impl Iterator<Item = (&SessionId, &mut PeerSession)> {
        self.all.iter_mut()
    }

    /// Puts a session among those that are ready, if it has something to send or to report.
    pub(in crate::multifeed) fn wake(&mut self, id: SessionId) {
        if let Some(session) = self.all.get_mut(&id)
            && session.has_output()
            && !std::mem::replace(&mut session.queued, true)
        {
            self.ready.push_back(id);
        }
    }

    /// The next session that is ready.
    pub(in crate::multifeed) fn pop_ready(&mut self) -> Option<SessionId> {
        while let Some(id) = self.ready.pop_front() {
            if let Some(session) = self.all.get_mut(&id) {
                session.queued = false;
                if session.has_output() {
                    return Some(id);
                }
            }
        }
        None
    }
}
