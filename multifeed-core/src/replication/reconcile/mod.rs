//! Which feeds differ between two stores, found out at a cost that grows with what differs.
//!
//! Range-based set reconciliation (Aljoscha Meyer, 2023; as in Nostr's negentropy): both sides order their feeds by discovery key, and
//! compare fingerprints of ranges. If two do not agree, the range is split, until what is left of it is short enough to be listed.
//! The messages are specified in `docs/reconciliation.md` of the repository; they go as an extension ([`EXTENSION`]) that npm's multifeed
//! does not know and ignores.
//!
//! A feed is known to the remote only by its *mark*, a hash of its discovery key, its history and the blocks that are held, keyed with the
//! session's handshake hash. Anyone who has not the same feed in the same state learns nothing from it, and nobody can prepare two that
//! are alike. What was found to differ is offered by key afterwards, in an ordinary manifest.
//!
//! A machine works on a snapshot, sorted once. Every message asks about ranges that do not overlap, so that an answer costs one pass
//! over the marks at most, however many ranges there are. A tree of cached hashes would save that pass, but for one session only, as
//! the marks are each session's own. 100,000 feeds take 4.8 MB for as long as the machine lives.

mod message;

use std::ops::Range;
use std::sync::Arc;

use blake2b_simd::Params;
use bytes::Bytes;
use multifeed_proto::{DiscoveryKey, RemoteHandshake, Root, Scope, SessionError};

pub use self::message::ReconcileError;
use self::message::{Bound, Fingerprint, Said, Writer};
use crate::limits::Limits;

/// The name under which it is spoken on the stream. The number is the version of the messages.
pub const EXTENSION: &str = "multifeed/reconcile/1";

/// Returns the scope in which a remote speaks it, which only ours do: the root key's own channel if its lists are sent there, and else the stream.
pub(crate) fn scope(root: Root, remote: &RemoteHandshake) -> Option<Scope> {
    let is_in = |names: &[Arc<str>]| names.iter().any(|name| **name == *EXTENSION);
    if is_in(&remote.root_extensions) {
        return Some(Scope::Root(root));
    }
    is_in(&remote.extensions).then_some(Scope::Stream)
}

/// Into how many ranges one is split.
const SPLIT: usize = 16;

/// Feeds of ours that are listed rather than split: their marks take fewer bytes than the fingerprints of a split would.
const LIST: usize = 32;

/// Says whether two feeds are the same and in the same state; keyed, and so meaningless outside its session.
pub(crate) type Mark = [u8; 8];

/// One side of a reconciliation; `T` names its feeds.
///
/// Send [`greeting`](Self::greeting), give every message of the remote's to [`handle`](Self::handle) and send what comes of it, until
/// [`is_done`](Self::is_done). Then [`into_differing`](Self::into_differing) tells what to offer; the remote offers what differs on its side.
#[derive(Debug)]
pub struct Reconciler<T> {
    secret: [u8; 64],
    /// By discovery key, without duplicates.
    items: Vec<Item<T>>,
    stage: Stage,
    /// What the remote has to answer, in order.
    asked: Vec<Asked>,
    messages: usize,
    limits: Limits,
}

#[derive(Debug)]
struct Item<T> {
    discovery_key: DiscoveryKey,
    mark: Mark,
    name: T,
    differs: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The remote's greeting is still to come.
    Greeting,
    /// It is the remote's turn to answer.
    Asking,
    Done,
}

/// A range that the remote was asked about.
#[derive(Debug, Clone)]
struct Asked {
    lower: Option<[u8; 32]>,
    upper: Bound,
    /// Our feeds in it.
    items: Range<usize>,
    listed: bool,
}

/// What is said of a feed in one session.
#[derive(Debug)]
pub struct Marker<'a> {
    secret: &'a [u8; 64],
}

impl<'a> Marker<'a> {
    /// Makes the marker of the session with this handshake hash.
    pub fn new(handshake_hash: &'a [u8; 64]) -> Self {
        Self { secret: handshake_hash }
    }

    /// The mark of a feed of that length with these roots, of which these runs of blocks are held: ascending, with gaps between them.
    pub(crate) fn mark(
        &self,
        discovery_key: &DiscoveryKey,
        len: u64,
        roots: impl IntoIterator<Item = [u8; 32]>,
        held: impl IntoIterator<Item = Range<u64>>,
    ) -> Mark {
        let mut state = Params::new().hash_length(8).key(self.secret).personal(b"multifeed mark").to_state();
        state.update(discovery_key.as_bytes()).update(&len.to_le_bytes());
        for root in roots {
            state.update(&root);
        }
        for run in held {
            state.update(&run.start.to_le_bytes()).update(&run.end.to_le_bytes());
        }
        let mut mark = Mark::default();
        mark.copy_from_slice(state.finalize().as_bytes());
        mark
    }
}

impl<T> Reconciler<T> {
    /// Makes a machine for the session with this handshake hash and these feeds: name, discovery key, length, the hashes of the roots of that
    /// length, and the runs of blocks that are held. Of two with one discovery key one is left out.
    pub fn new<H: IntoIterator<Item = [u8; 32]>, R: IntoIterator<Item = Range<u64>>>(
        handshake_hash: [u8; 64],
        feeds: impl IntoIterator<Item = (T, DiscoveryKey, u64, H, R)>,
        limits: &Limits,
    ) -> Self {
        let marker = Marker::new(&handshake_hash);
        let item = |(name, discovery_key, len, roots, held)| {
            let mark = marker.mark(&discovery_key, len, roots, held);
            Item { discovery_key, mark, name, differs: false }
        };
        let mut items: Vec<Item<T>> = feeds.into_iter().map(item).collect();
        items.sort_unstable_by_key(|item| item.discovery_key);
        items.dedup_by_key(|item| item.discovery_key);
        Self {
            secret: handshake_hash,
            items,
            stage: Stage::Greeting,
            asked: Vec::new(),
            messages: 0,
            limits: limits.clone(),
        }
    }

    /// Returns the first message, which both sides send.
    pub fn greeting(&self) -> Bytes {
        message::greeting(&self.fingerprint(0..self.items.len()))
    }

    /// Returns whether nothing more has to be sent, nor to come.
    pub fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Returns the names of its feeds.
    pub fn names(&self) -> impl Iterator<Item = &T> {
        self.items.iter().map(|item| &item.name)
    }

    /// Returns the feeds that are not on the other side, or not in the same state: all of those for as long as it is not done.
    pub fn into_differing(self) -> impl Iterator<Item = T> {
        let all = self.stage != Stage::Done;
        self.items.into_iter().filter(move |item| all || item.differs).map(|item| item.name)
    }

    /// Takes a message of the remote's; returns the one to send, if there is one.
    ///
    /// # Errors
    ///
    /// If the remote breaks the rules, or passes a limit: the machine is of no use any more.
    pub fn handle(&mut self, message: &[u8]) -> Result<Option<Bytes>, SessionError> {
        self.messages += 1;
        if message.len() > self.limits.reconcile_bytes {
            return Err(limit("reconcile_bytes", self.limits.reconcile_bytes));
        }
        if self.messages > self.limits.reconcile_messages {
            return Err(limit("reconcile_messages", self.limits.reconcile_messages));
        }
        let answer = match self.stage {
            Stage::Greeting => self.greet(message::parse_greeting(message)?),
            Stage::Asking => {
                let said = message::parse(message, self.limits.reconcile_ranges)?
                    .ok_or_else(|| limit("reconcile_ranges", self.limits.reconcile_ranges))?;
                self.answer(said)?
            }
            Stage::Done => return Err(ReconcileError::Late.into()),
        };
        Ok(answer)
    }

    /// Both fingerprints of all there is are known. If they differ, the side with the lesser one goes on: which one is as good as drawn.
    fn greet(&mut self, theirs: Fingerprint) -> Option<Bytes> {
        let all = 0..self.items.len();
        let (ours, nothing) = (self.fingerprint(all.clone()), self.fingerprint(0..0));
        self.stage = Stage::Done;
        if theirs == ours || ours == nothing {
            return None;
        }
        if theirs == nothing {
            self.differ(all);
            return None;
        }
        if ours > theirs {
            self.stage = Stage::Asking;
            self.asked = vec![Asked { lower: None, upper: Bound::END, items: all, listed: false }];
            return None;
        }
        let mut writer = Writer::default();
        self.say(None, Bound::END, all, &Said::Fingerprint(theirs), 0, &mut writer);
        self.send(writer)
    }

    /// What the remote said of what it was asked: for each range one answer, or several for parts of it that make up the whole.
    fn answer(&mut self, said: Vec<(Bound, Said<'_>)>) -> Result<Option<Bytes>, ReconcileError> {
        let asked = std::mem::take(&mut self.asked);
        let mut left = said.iter().filter(|(_, said)| said.asks()).count();
        let mut writer = Writer::default();
        let mut said = said.into_iter();
        for question in asked {
            let (mut lower, mut first) = (question.lower, question.items.start);
            loop {
                let (upper, said) = said.next().ok_or(ReconcileError::Unanswered)?;
                if !upper.is_above(lower.as_ref()) || upper > question.upper {
                    return Err(ReconcileError::Order);
                }
                let whole = lower == question.lower && upper == question.upper;
                let end = if upper == question.upper { question.items.end } else { self.position(first, &upper) };
                let items = first..end;
                match (&said, question.listed) {
                    (Said::Lacking(bits), true) if whole => self.lacking(items, bits)?,
                    (Said::All, true) if whole => self.differ(items),
                    (_, true) | (Said::Lacking(_), false) => return Err(ReconcileError::Unasked),
                    (said, false) => {
                        left -= usize::from(said.asks());
                        self.say(lower, upper, items, said, left, &mut writer);
                    }
                }
                (lower, first) = (upper.get().copied(), end);
                if upper == question.upper {
                    break;
                }
            }
        }
        if said.next().is_some() {
            return Err(ReconcileError::Unasked);
        }
        Ok(self.send(writer))
    }

    /// Answers what the remote said of a range, in which these are our feeds. `left` more ranges have to be answered.
    fn say(
        &mut self,
        lower: Option<[u8; 32]>,
        upper: Bound,
        items: Range<usize>,
        said: &Said<'_>,
        left: usize,
        writer: &mut Writer,
    ) {
        match said {
            Said::Done | Said::Lacking(_) => {}
            Said::All => self.differ(items),
            Said::Fingerprint(theirs) => {
                if *theirs == self.fingerprint(items.clone()) {
                    writer.done(&upper);
                } else if *theirs == self.fingerprint(0..0) {
                    self.differ(items);
                    writer.done(&upper);
                } else if items.is_empty() {
                    writer.all(&upper);
                } else if items.len() <= LIST && writer.has_room(1, 9 + items.len() * size_of::<Mark>(), left) {
                    writer.list(&upper, self.marks(items.clone()));
                    self.asked.push(Asked { lower, upper, items, listed: true });
                } else if items.len() > LIST && writer.has_room(SPLIT, SPLIT * size_of::<Fingerprint>(), left) {
                    self.split(lower, upper, items, writer);
                } else {
                    self.differ(items);
                    writer.all(&upper);
                }
            }
            Said::List(marks) if writer.has_room(1, 9 + marks.len().div_ceil(8), left) => {
                let found = self.compare(items, marks);
                writer.lacking(&upper, &found);
            }
            Said::List(_) => {
                self.differ(items);
                writer.all(&upper);
            }
        }
    }

    fn split(&mut self, lower: Option<[u8; 32]>, upper: Bound, items: Range<usize>, writer: &mut Writer) {
        let (mut lower, mut first) = (lower, items.start);
        for part in 1..=SPLIT {
            let end = items.start + items.len() * part / SPLIT;
            let bound = match (end < items.end, self.items.get(end - 1), self.items.get(end)) {
                (true, Some(last), Some(next)) => Bound::between(&last.discovery_key, &next.discovery_key),
                _ => upper,
            };
            writer.fingerprint(&bound, &self.fingerprint(first..end));
            self.asked.push(Asked { lower, upper: bound, items: first..end, listed: false });
            (lower, first) = (bound.get().copied(), end);
        }
    }

    /// Compares feeds of ours with a list of the remote's; for each of those whether it is here.
    fn compare(&mut self, items: Range<usize>, marks: &[Mark]) -> Vec<bool> {
        let mut theirs: Vec<(Mark, usize)> = marks.iter().copied().zip(0..).collect();
        theirs.sort_unstable();
        let mut found = vec![false; marks.len()];
        for item in self.items.get_mut(items).into_iter().flatten() {
            match theirs.binary_search_by(|(mark, _)| mark.cmp(&item.mark)).ok().and_then(|at| theirs.get(at)) {
                Some(&(_, at)) => found.get_mut(at).into_iter().for_each(|found| *found = true),
                None => item.differs = true,
            }
        }
        found
    }

    /// The remote lacks some of what was listed.
    fn lacking(&mut self, items: Range<usize>, bits: &[u8]) -> Result<(), ReconcileError> {
        let lacks = |at: usize| bits.get(at / 8).is_some_and(|byte| byte & (0x80 >> (at % 8)) != 0);
        if bits.len() != items.len().div_ceil(8) || (items.len()..bits.len() * 8).any(lacks) {
            return Err(ReconcileError::Bits);
        }
        for (at, item) in self.items.get_mut(items).into_iter().flatten().enumerate() {
            item.differs |= lacks(at);
        }
        Ok(())
    }

    fn send(&mut self, writer: Writer) -> Option<Bytes> {
        self.stage = if self.asked.is_empty() { Stage::Done } else { Stage::Asking };
        writer.finish()
    }

    fn differ(&mut self, items: Range<usize>) {
        self.items.get_mut(items).into_iter().flatten().for_each(|item| item.differs = true);
    }

    /// The first of our feeds from `first` on that is not below a bound.
    fn position(&self, first: usize, bound: &Bound) -> usize {
        let items = self.items.get(first..).unwrap_or_default();
        first + items.partition_point(|item| bound.is_above(Some(item.discovery_key.as_bytes())))
    }

    fn marks(&self, items: Range<usize>) -> impl ExactSizeIterator<Item = &Mark> {
        self.items.get(items).unwrap_or_default().iter().map(|item| &item.mark)
    }

    fn fingerprint(&self, items: Range<usize>) -> Fingerprint {
        let mut state = Params::new().hash_length(16).key(&self.secret).personal(b"multifeed range").to_state();
        for mark in self.marks(items) {
            state.update(mark);
        }
        let mut fingerprint = Fingerprint::default();
        fingerprint.copy_from_slice(state.finalize().as_bytes());
        fingerprint
    }
}

fn limit(what: &'static str, limit: usize) -> SessionError {
    SessionError::Limit { what, limit: limit as u64 }
}

#[cfg(test)]
mod tests;
