//! What happened to one feed, for somebody who may be slow to take it.

use std::collections::VecDeque;
use std::ops::Range;

use crate::ids::SessionId;

/// Something happened to a feed (hypercore's events). Runs of blocks come as one. `P` names a session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FeedEvent<P = SessionId> {
    /// The feed is longer: appended here, or shown by a signature that came (`append`).
    Append {
        /// Its length in blocks.
        len: u64,
    },
    /// Blocks came and were written (`download`).
    Download {
        /// The blocks.
        blocks: Range<u64>,
    },
    /// Blocks were sent (`upload`).
    Upload {
        /// The blocks.
        blocks: Range<u64>,
    },
    /// Every block of a feed that is not ours is held (`sync`).
    Sync,
    /// A remote told of more than before (`remote-update`).
    RemoteUpdate {
        /// The session.
        peer: P,
        /// One past the highest block that it has told of.
        len: u64,
    },
    /// Blocks were given up (`clear`), or an audit found them damaged.
    Clear {
        /// The blocks.
        blocks: Range<u64>,
    },
    /// Both sides of a session opened the feed's channel (`peer-open`).
    PeerOpen {
        /// The session.
        peer: P,
    },
    /// The feed's channel is closed (`peer-remove`).
    PeerClose {
        /// The session.
        peer: P,
    },
    /// The remote of a session said which extensions it speaks on the feed's channel (`remote-extensions`), or said it anew.
    Extensions {
        /// The session.
        peer: P,
    },
    /// Events were not taken in time, and are lost. The feed itself tells how things stand.
    Lagged {
        /// How many.
        missed: u64,
    },
}

/// The events of one feed that wait to be taken: at most `limit`. When there would be more, the oldest ones are lost, and
/// [`FeedEvent::Lagged`] stands in their place.
#[derive(Debug)]
pub struct FeedNews<P = SessionId> {
    events: VecDeque<FeedEvent<P>>,
    missed: u64,
    limit: usize,
}

impl<P> FeedEvent<P> {
    /// Returns the same event, with its session named by this.
    pub fn map_peer<Q>(self, name: impl FnOnce(P) -> Q) -> FeedEvent<Q> {
        match self {
            Self::Append { len } => FeedEvent::Append { len },
            Self::Download { blocks } => FeedEvent::Download { blocks },
            Self::Upload { blocks } => FeedEvent::Upload { blocks },
            Self::Sync => FeedEvent::Sync,
            Self::RemoteUpdate { peer, len } => FeedEvent::RemoteUpdate { peer: name(peer), len },
            Self::Clear { blocks } => FeedEvent::Clear { blocks },
            Self::PeerOpen { peer } => FeedEvent::PeerOpen { peer: name(peer) },
            Self::Extensions { peer } => FeedEvent::Extensions { peer: name(peer) },
            Self::PeerClose { peer } => FeedEvent::PeerClose { peer: name(peer) },
            Self::Lagged { missed } => FeedEvent::Lagged { missed },
        }
    }
}

impl<P: PartialEq> FeedNews<P> {
    /// Makes an empty queue, for at most this many events.
    pub fn new(limit: usize) -> Self {
        Self { events: VecDeque::new(), missed: 0, limit: limit.max(1) }
    }

    /// Adds an event, joined to the last one if it goes on from there.
    pub fn push(&mut self, event: FeedEvent<P>) {
        use FeedEvent::{Append, Clear, Download, Lagged, RemoteUpdate, Upload};
        match (self.events.back_mut(), &event) {
            (_, Lagged { missed }) => {
                // It was lagging before it came here: what waits is older.
                self.missed = self.missed.saturating_add(*missed).saturating_add(self.events.len() as u64);
                self.events.clear();
                return;
            }
            (Some(Append { len }), Append { len: newer }) => {
                *len = *newer;
                return;
            }
            (Some(Download { blocks }), Download { blocks: newer })
            | (Some(Upload { blocks }), Upload { blocks: newer })
            | (Some(Clear { blocks }), Clear { blocks: newer })
                if blocks.end == newer.start =>
            {
                blocks.end = newer.end;
                return;
            }
            (Some(RemoteUpdate { peer, len }), RemoteUpdate { peer: newer, len: longer }) if peer == newer => {
                *len = *longer;
                return;
            }
            _ => {}
        }
        if self.events.len() >= self.limit {
            self.events.pop_front();
            self.missed = self.missed.saturating_add(1);
        }
        self.events.push_back(event);
    }

    /// Returns the next event.
    pub fn pop(&mut self) -> Option<FeedEvent<P>> {
        match std::mem::take(&mut self.missed) {
            0 => self.events.pop_front(),
            missed => Some(FeedEvent::Lagged { missed }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(news: &mut FeedNews) -> Vec<FeedEvent> {
        std::iter::from_fn(|| news.pop()).collect()
    }

    #[test]
    fn runs_are_one_event() {
        let mut news = FeedNews::new(10);
        for index in 0..1000 {
            news.push(FeedEvent::Download { blocks: index..index + 1 });
        }
        for len in [3, 7] {
            news.push(FeedEvent::Append { len });
        }
        news.push(FeedEvent::Download { blocks: 5..6 });
        news.push(FeedEvent::Download { blocks: 7..8 });
        assert_eq!(
            drain(&mut news),
            [
                FeedEvent::Download { blocks: 0..1000 },
                FeedEvent::Append { len: 7 },
                FeedEvent::Download { blocks: 5..6 },
                FeedEvent::Download { blocks: 7..8 },
            ]
        );
    }

    #[test]
    fn what_waits_is_bounded_and_what_is_lost_is_counted() {
        let mut news = FeedNews::new(3);
        for index in 0..10 {
            news.push(FeedEvent::Upload { blocks: 2 * index..2 * index + 1 });
        }
        assert_eq!(news.events.len(), 3);
        assert_eq!(
            drain(&mut news),
            [
                FeedEvent::Lagged { missed: 7 },
                FeedEvent::Upload { blocks: 14..15 },
                FeedEvent::Upload { blocks: 16..17 },
                FeedEvent::Upload { blocks: 18..19 },
            ]
        );
        news.push(FeedEvent::Sync);
        news.push(FeedEvent::Lagged { missed: 2 });
        news.push(FeedEvent::Append { len: 1 });
        assert_eq!(drain(&mut news), [FeedEvent::Lagged { missed: 3 }, FeedEvent::Append { len: 1 }]);
        assert_eq!(drain(&mut news), []);
    }
}
