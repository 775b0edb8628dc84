//! What sessions claim, held against what both stores hold: in sync, missing at the remote, delivered.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail, ensure};
use multifeed_core::{PeerEvent, SyncError, SyncTotals};
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
    /// What each side held when the stream began, without what it found that it cannot read. Its remote was offered all of it.
    begun: [Holdings; 2],
    /// A side's store was opened anew since: what it held is not what it said.
    lost: [bool; 2],
    /// A side's disk was full, so that it said that it fetches nothing: that direction does not count.
    full: [bool; 2],
    /// Which sides stay when everything is there: the end of one that does claims nothing by itself.
    live: [bool; 2],
    /// Whether the session of a side that is over ended well, or said what it gave up.
    ended: [Option<bool>; 2],
    /// Both know each other as ours: each says of what it gives up that it did.
    ours: bool,
    /// What a side of a session that is not live claimed falsely, unless the other one fails. Before it leaves out what it had to fetch, it
    /// says that it fetches nothing more, so that the direction does not count any more.
    doubts: [Option<String>; 2],
    /// A side was asked to leave, or has damaged files: it need not bring or take everything.
    excused: bool,
}

impl Claims {
    pub(super) fn new(checked: Checked, a: &Node, b: &Node, live: [bool; 2], ours: bool) -> Self {
        Self {
            checked,
            begun: [holdings(a), holdings(b)],
            lost: [false; 2],
            full: [false; 2],
            live,
            ended: [None; 2],
            ours,
            doubts: [None, None],
            excused: false,
        }
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
        if let PeerEvent::Closed(result) = event {
            let said = self.ours && matches!(result, Err(SyncError::GivenUp { .. }));
            let counts = result.is_ok() || said;
            self.ended[side] = Some(counts);
            if let Some(doubt) = self.doubts[1 - side].take().filter(|_| counts) {
                bail!("the other side was {doubt}");
            }
        }
        match event {
            // What is held here by now: a block that came or was made since is announced before the session is in sync again. A
            // session that is not live is about what there was when it began.
            PeerEvent::Progress(state) if state.in_sync => match self.live {
                [true, true] => self.in_sync(side, &holdings(us), us, them),
                _ => self.in_sync(side, &self.begun[side].clone(), us, them),
            },
            PeerEvent::DiskFull(_) => {
                self.full[side] = true;
                Ok(false)
            }
            PeerEvent::Damaged { key, block, .. } => {
                self.excuse();
                // It says of a block that it cannot read that it does not have it. Of a feed that it leaves it says nothing.
                if let (Some(block), Some(held)) = (block, self.begun[side].get_mut(key)) {
                    held.remove(block);
                }
                Ok(false)
            }
            PeerEvent::Closed(Ok(totals)) => {
                self.missing(side, totals)?;
                let complete = !self.live[side] && !self.excused && totals.holes.is_empty() && totals.missing == 0;
                match (in_sync, complete) {
                    (true, _) => self.in_sync(side, &self.begun[side].clone(), us, them),
                    // It ended well, which says nothing of what a remote holds that asked for nothing more.
                    (false, true) => self.received(side, us),
                    (false, false) => Ok(!totals.holes.is_empty()),
                }
            }
            _ => Ok(false),
        }
    }

    /// All that the remote had from the start is here.
    fn received(&self, side: usize, us: &Node) -> Result<bool> {
        let lacks = lacking(&holdings(us), &self.begun[1 - side]);
        ensure!(
            !self.checked.received || lacks == 0,
            "in sync, and {lacks} blocks that the remote had from the start are not here"
        );
        Ok(true)
    }

    /// All that the remote had from the start is here, and all of `ours` is there.
    fn in_sync(&mut self, side: usize, ours: &Holdings, us: &Node, them: &Node) -> Result<bool> {
        self.received(side, us)?;
        if self.checked.delivered && !self.lost[1 - side] && !self.full[1 - side] {
            let there = holdings(them);
            let lacks = lacking(&there, ours);
            if lacks > 0 {
                let feeds: Vec<_> = ours.keys().filter(|key| lacking_of(&there, ours, key) > 0).collect();
                let doubt =
                    format!("in sync, and {lacks} blocks of {feeds:?} are not at the remote; live {:?}", self.live);
                match self.ended[1 - side] {
                    Some(false) if self.live != [true, true] => {}
                    None if self.live != [true, true] => self.doubts[side] = Some(doubt),
                    _ => bail!("{doubt}"),
                }
            }
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
    let blocks = |id| (0..node.store.info(id).unwrap().len).filter(|&index| node.store.has(id, index)).collect();
    node.store.feeds().map(|id| (node.store.info(id).unwrap().key, blocks(id))).collect()
}

/// How many blocks of `all` are not in `here`.
fn lacking(here: &Holdings, all: &Holdings) -> usize {
    all.keys().map(|key| lacking_of(here, all, key)).sum()
}

/// How many blocks of a feed of `all` are not in `here`.
fn lacking_of(here: &Holdings, all: &Holdings, key: &FeedKey) -> usize {
    let none = BTreeSet::new();
    all.get(key).map_or(0, |blocks| blocks.difference(here.get(key).unwrap_or(&none)).count())
}
