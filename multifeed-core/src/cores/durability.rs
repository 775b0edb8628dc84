//! When appended and received blocks are fsynced.

use std::time::Duration;

/// How often received blocks are fsynced with [`Durability::Always`].
const RECEIVED_EVERY: Duration = Duration::from_secs(1);

/// What a power cut or a crash of the system may take.
///
/// Whatever the level: if the process is killed, what was written survives (an append that returned, a block that was reported).
/// What [`Multifeed::close`](crate::Multifeed::close) left of feeds that are written here is on the disk. After a crash every feed opens with a
/// newest length that is signed and whole; blocks of others come again with the next sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// As JS: nothing is fsynced before the store is closed. A power cut may take all that was appended since. If remotes have
    /// some of it already, what is appended next is a second history, and ends in [`MultifeedEvent::Conflict`](crate::MultifeedEvent::Conflict)
    /// there. What was received is not fsynced at all. A power cut may take it until the system has written it, also after a
    /// close. That may show only when it is read or verified. The fastest, and the default.
    #[default]
    None,
    /// What was appended and received is fsynced this long after it at the latest. Remotes hear of an appended block when it is
    /// fsynced, and are served nothing that is not: a power cut takes only what nobody has seen.
    Interval(Duration),
    /// What was appended is fsynced by the next [`Multifeed::commit`](crate::Multifeed::commit), and only then announced and served. Several appends
    /// before it are one group, and cost no more than one append. The adapters answer an append after that. What was received is fsynced every
    /// second.
    Always,
}

impl Durability {
    /// Whether anything is fsynced before the store is closed.
    pub(crate) fn syncs(self) -> bool {
        self != Durability::None
    }

    pub(crate) fn interval(self) -> Option<Duration> {
        match self {
            Durability::None => None,
            Durability::Interval(interval) => Some(interval),
            Durability::Always => Some(RECEIVED_EVERY),
        }
    }
}
