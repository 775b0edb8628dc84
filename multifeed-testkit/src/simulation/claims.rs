//! What sessions claim, held against what both stores hold: in sync, missing at the remote, delivered.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use multifeed_core::{PeerEvent, SyncTotals};
use multifeed_proto::FeedKey;

use super::node::Node;

/// The blocks that a store holds of each feed.
pub(super) type Holdings = BTreeMap<FeedKey, BTreeSet<u64>>;

/// Which of the sessions' claims are checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// In sync, or at a complete end: all that the remote had when the stream began is here.
    pub received: bool,
    /// In sync, or at a complete end: all that is held here is at the remote, not merely on its way.
    pub delivered: bool,
    /// What is reported as missing at the remote is missing there.
    pub missing: bool,
}

impl Checked {
    /// All of them.
    pub const ALL: Self = Self { received: true, delivered: true, missing: true };

    pub(super) fn any(self) -> bool {
        self != Self::default()
    }
}

/// What is known of a stream beside what its sessions say.
pub(super) struct Claims {
    checked: Checked,
    /// What each side held when the stream began. Its remote was offered all of it.
    begun: [Holdings; 2],
    /// A side's store was opened anew since: what it held is not what it said.
    lost: [bool; 2],
    /// Which sides stay when everything is there: the end of one that does claims nothing by itself.
    live: [bool; 2],
    /// A side was asked to leave, or has damaged files: it need not bring or take everything.
    excused: bool,
}

impl Claims {
    pub(super) fn new(checked: Checked, a: &Node, b: &Node, live: [bool; 2]) -> Self {
        Self { checked, begun: [holdings(a), holdings(b)], lost: [false; 2], live, excused: false }
    }

    pub(super) fn lose(&mut self, side: usize) {
        self.lost[side] = true;
    }

    pub(super) fn excuse(&mut self) {
        self.excused = true;
    }

    /// Checks an event that the session of `side` reported just now; `in_sync` is what its store says after it. Returns whether
    /// the event claimed anything.
    pub(super) fn check(
        &mut self,
        side: usize,
        event: &PeerEvent,
        in_sync: bool,
        us: &Node,
        them: &Node,
    ) -> Result<bool> {
        match event {
            // What is held here by now: a block that came or was made since is announced before the session is in sync again.
            PeerEvent::Progress(state) if state.in_sync => self.in_sync(side, &holdings(us), us, them),
            PeerEvent::Damaged { .. } => {
                self.excuse();
                Ok(false)
            }
            PeerEvent::Closed(Ok(totals)) => {
                self.missing(side, totals)?;
                let complete = !self.live[side] && !self.excused && totals.holes.is_empty() && totals.missing == 0;
                if in_sync || complete {
                    self.in_sync(side, &self.begun[side], us, them)
                } else {
                    Ok(!totals.holes.is_empty())
                }
            }
            _ => Ok(false),
        }
    }

    /// All that the remote had from the start is here, and all of `ours` is there.
    fn in_sync(&self, side: usize, ours: &Holdings, us: &Node, them: &Node) -> Result<bool> {
        let lacks = lacking(&holdings(us), &self.begun[1 - side]);
        ensure!(
            !self.checked.received || lacks == 0,
            "in sync, and {lacks} blocks that the remote had from the start are not here"
        );
        if self.checked.delivered && !self.lost[1 - side] {
            let lacks = lacking(&holdings(them), ours);
            ensure!(lacks == 0, "in sync, and {lacks} blocks are not at the remote");
        }
        Ok(true)
    }

    /// What is reported as missing at the remote was not there when the stream began.
    fn missing(&self, side: usize, totals: &SyncTotals) -> Result<()> {
        for holes in &totals.holes {
            let Some(theirs) = self.begun[1 - side].get(&holes.key) else { continue };
            let had = holes.ranges.iter().cloned().flatten().filter(|index| theirs.contains(index)).count();
            ensure!(
                !self.checked.missing || had == 0,
                "{had} blocks of {} are reported missing at the remote, which had them",
                holes.key
            );
        }
        Ok(())
    }
}

fn holdings(node: &Node) -> Holdings {
    let blocks = |id| (0..node.store.info(id).len).filter(|&index| node.store.has(id, index)).collect();
    node.store.feeds().map(|id| (node.store.info(id).key, blocks(id))).collect()
}

/// How many blocks of `all` are not in `here`.
fn lacking(here: &Holdings, all: &Holdings) -> usize {
    let none = BTreeSet::new();
    all.iter().map(|(key, blocks)| blocks.difference(here.get(key).unwrap_or(&none)).count()).sum()
}
