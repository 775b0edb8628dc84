//! The messages of a reconciliation: see `docs/reconciliation.md`.

use bytes::{BufMut, Bytes};
use multifeed_proto::wire::varint;
use multifeed_proto::{DiscoveryKey, SessionError};

use super::{EXTENSION, Mark};

/// Says whether two ranges hold the same.
pub(super) type Fingerprint = [u8; 16];

/// The most bytes of a message of ours, and by default of one that we take.
pub(crate) const MESSAGE_BYTES: usize = 1 << 20;
/// The most ranges in a message of ours, and by default in one that we take.
pub(crate) const MESSAGE_RANGES: usize = 16_384;

const GREETING: u8 = 0;
const RANGES: u8 = 1;

const DONE: u8 = 0;
const FINGERPRINT: u8 = 1;
const LIST: u8 = 2;
const LACKING: u8 = 3;
const ALL: u8 = 4;

/// The most bytes of a range's head: its bound with a length, and what it says.
const HEAD: usize = 1 + 32 + 1;

/// How a reconciliation's message breaks the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReconcileError {
    /// A kind of message that is not due, or that there is none of.
    #[error("a message of kind {0}, where that is not due")]
    Kind(u8),
    /// It ends in the middle, or goes on after its end.
    #[error("a message that is cut short, or too long")]
    Length,
    /// A bound of more than 32 bytes, or with a zero at its end.
    #[error("a bound that is not the shortest form of a discovery key's start")]
    Bound,
    /// Something is said of a range that has no name.
    #[error("a range of kind {0}, of which there is none")]
    Range(u8),
    /// A bound that does not follow the one before it, or lies outside what was asked.
    #[error("bounds that do not ascend, or lie outside what was asked")]
    Order,
    /// An answer to what was not asked.
    #[error("an answer to what was not asked")]
    Unasked,
    /// A question that was not answered.
    #[error("a range that was asked about and not answered")]
    Unanswered,
    /// An answer to a list that speaks of another number of feeds.
    #[error("an answer to a list of another length")]
    Bits,
    /// A message after the end.
    #[error("a message after the last one")]
    Late,
}

impl From<ReconcileError> for SessionError {
    fn from(error: ReconcileError) -> Self {
        Self::Extension { name: EXTENSION.into(), reason: error.to_string() }
    }
}

/// The end of a range: before the first discovery key that is not less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bound(Option<[u8; 32]>);

impl Bound {
    /// Past all keys.
    pub(super) const END: Self = Self(None);

    /// The shortest one that parts two keys.
    pub(super) fn between(last: &DiscoveryKey, next: &DiscoveryKey) -> Self {
        let mut bound = [0; 32];
        for ((to, last), next) in bound.iter_mut().zip(last.as_bytes()).zip(next.as_bytes()) {
            *to = *next;
            if last != next {
                break;
            }
        }
        Self(Some(bound))
    }

    pub(super) fn get(&self) -> Option<&[u8; 32]> {
        self.0.as_ref()
    }

    /// Whether a key lies before it. `None` is what lies before all keys.
    pub(super) fn is_above(&self, key: Option<&[u8; 32]>) -> bool {
        match (&self.0, key) {
            (Some(bound), Some(key)) => key < bound,
            _ => true,
        }
    }

    fn shortest(&self) -> &[u8] {
        let Some(bound) = &self.0 else { return &[] };
        let len = bound.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        bound.get(..len).unwrap_or_default()
    }
}

impl PartialOrd for Bound {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Bound {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // What is past all keys is the greatest.
        (self.0.is_none(), self.0).cmp(&(other.0.is_none(), other.0))
    }
}

/// What is said of a range.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    /// Nothing is left to ask: both hold the same, or one of us nothing.
    Done,
    /// All of it as one.
    Fingerprint(Fingerprint),
    /// All of it one by one.
    List(&'a [Mark]),
    /// Which ones of a list the other side has not, the first in the most significant bit.
    Lacking(&'a [u8]),
    /// Both have to offer whatever they have there.
    All,
}

impl Said<'_> {
    /// Whether it needs an answer.
    pub(super) fn asks(&self) -> bool {
        matches!(self, Self::Fingerprint(_) | Self::List(_))
    }
}

pub(super) fn greeting(fingerprint: &Fingerprint) -> Bytes {
    let mut message = vec![GREETING];
    message.extend_from_slice(fingerprint);
    message.into()
}

pub(super) fn parse_greeting(message: &[u8]) -> Result<Fingerprint, ReconcileError> {
    match message.split_first() {
        Some((&GREETING, fingerprint)) => fingerprint.try_into().map_err(|_| ReconcileError::Length),
        Some((&kind, _)) => Err(ReconcileError::Kind(kind)),
        None => Err(ReconcileError::Length),
    }
}

/// Reads a message of ranges; `None` if there are more than `limit`.
pub(super) fn parse(message: &[u8], limit: usize) -> Result<Option<Vec<(Bound, Said<'_>)>>, ReconcileError> {
    let mut rest = match message.split_first() {
        Some((&RANGES, rest)) => rest,
        Some((&kind, _)) => return Err(ReconcileError::Kind(kind)),
        None => return Err(ReconcileError::Length),
    };
    let mut ranges = Vec::new();
    while !rest.is_empty() {
        if ranges.len() >= limit {
            return Ok(None);
        }
        let bound = parse_bound(&mut rest)?;
        let said = match take::<1>(&mut rest)? {
            [DONE] => Said::Done,
            [FINGERPRINT] => Said::Fingerprint(*take(&mut rest)?),
            [LIST] => {
                let count = parse_count(&mut rest)?;
                let (marks, []) = take_slice(&mut rest, count.saturating_mul(size_of::<Mark>()))?.as_chunks() else {
                    return Err(ReconcileError::Length);
                };
                Said::List(marks)
            }
            [LACKING] => {
                let count = parse_count(&mut rest)?;
                Said::Lacking(take_slice(&mut rest, count)?)
            }
            [ALL] => Said::All,
            [kind] => return Err(ReconcileError::Range(*kind)),
        };
        ranges.push((bound, said));
    }
    Ok(Some(ranges))
}

fn parse_bound(rest: &mut &[u8]) -> Result<Bound, ReconcileError> {
    let &[len] = take(rest)?;
    let bytes = match usize::from(len) {
        0 => return Ok(Bound::END),
        len @ 1..=32 => take_slice(rest, len)?,
        _ => return Err(ReconcileError::Bound),
    };
    if bytes.last() == Some(&0) {
        return Err(ReconcileError::Bound);
    }
    let mut bound = [0; 32];
    bound.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    Ok(Bound(Some(bound)))
}

fn parse_count(rest: &mut &[u8]) -> Result<usize, ReconcileError> {
    let Ok(Some((count, len))) = varint::decode(rest, varint::FRAME_MAX) else { return Err(ReconcileError::Length) };
    take_slice(rest, len)?;
    usize::try_from(count).map_err(|_| ReconcileError::Length)
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], ReconcileError> {
    let (taken, left) = rest.split_first_chunk().ok_or(ReconcileError::Length)?;
    *rest = left;
    Ok(taken)
}

fn take_slice<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], ReconcileError> {
    let (taken, left) = rest.split_at_checked(len).ok_or(ReconcileError::Length)?;
    *rest = left;
    Ok(taken)
}

/// A message of ranges that is being written.
#[derive(Debug, Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    ranges: usize,
}

impl Writer {
    /// Whether so many ranges with so many bytes besides their heads fit, and an [`ALL`] for each of `left` more.
    pub(super) fn has_room(&self, ranges: usize, bytes: usize, left: usize) -> bool {
        let bytes = 1 + self.bytes.len() + ranges * HEAD + bytes + left * HEAD;
        bytes <= MESSAGE_BYTES && self.ranges + ranges + left <= MESSAGE_RANGES
    }

    pub(super) fn done(&mut self, upper: &Bound) {
        self.head(upper, DONE);
    }

    pub(super) fn all(&mut self, upper: &Bound) {
        self.head(upper, ALL);
    }

    pub(super) fn fingerprint(&mut self, upper: &Bound, fingerprint: &Fingerprint) {
        self.head(upper, FINGERPRINT);
        self.bytes.put_slice(fingerprint);
    }

    pub(super) fn list<'a>(&mut self, upper: &Bound, marks: impl ExactSizeIterator<Item = &'a Mark>) {
        self.head(upper, LIST);
        varint::encode(marks.len() as u64, &mut self.bytes);
        marks.for_each(|mark| self.bytes.put_slice(mark));
    }

    pub(super) fn lacking(&mut self, upper: &Bound, found: &[bool]) {
        self.head(upper, LACKING);
        varint::encode(found.len().div_ceil(8) as u64, &mut self.bytes);
        for found in found.chunks(8) {
            let bits = found.iter().zip([0x80, 0x40, 0x20, 0x10, 8, 4, 2, 1]);
            self.bytes.put_u8(bits.filter(|(found, _)| !**found).map(|(_, bit)| bit).sum());
        }
    }

    /// Returns the message, if it says anything.
    pub(super) fn finish(self) -> Option<Bytes> {
        if self.ranges == 0 {
            return None;
        }
        let mut message = Vec::with_capacity(1 + self.bytes.len());
        message.push(RANGES);
        message.extend_from_slice(&self.bytes);
        Some(message.into())
    }

    fn head(&mut self, upper: &Bound, kind: u8) {
        let bound = upper.shortest();
        // At most 32.
        self.bytes.put_u8(bound.len() as u8);
        self.bytes.put_slice(bound);
        self.bytes.put_u8(kind);
        self.ranges += 1;
    }
}
