//! What became of a sync that ended well: words, and the exit code.

use multifeed_tokio::{SyncEvent, SyncTotals};

use crate::error::{CliError, EXIT_NOT_IN_SYNC, code};
use crate::output::{Done, Hole, Moved, Output, count};
use crate::stop::Signal;

/// What was reported that keeps the two apart, however often they sync.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Apart {
    /// Anything: damage here, another history of a feed, or a bound.
    any: bool,
    /// The peer has another history of a feed.
    conflict: bool,
    /// It brought as much as it may.
    bounded: bool,
}

impl Apart {
    /// Of a store in which something is damaged, or nothing is.
    pub(super) fn of_damage(any: bool) -> Self {
        Self { any, ..Self::default() }
    }

    /// Whether the peer has another history of a feed.
    pub(super) fn is_conflict(self) -> bool {
        self.conflict
    }

    /// Takes note of what a sync reports.
    pub(super) fn note(&mut self, event: &SyncEvent) {
        self.any |= matches!(
            event,
            SyncEvent::Damaged { .. }
                | SyncEvent::Conflict { .. }
                | SyncEvent::WriterBehind { .. }
                | SyncEvent::LimitReached(_)
        );
        self.conflict |= matches!(event, SyncEvent::Conflict { .. });
        self.bounded |= matches!(event, SyncEvent::LimitReached(_));
    }
}

/// What became of a sync that ended well. The help text has the exit codes.
///
/// | outcome | when | code | exit |
/// |---|---|---|---|
/// | in sync | both hold the same | | 0 |
/// | unwanted | the peer lacks blocks that it never asked for, as a JS peer that is sparse | | 0 |
/// | ended early | blocks did not come that the peer has, or it is not known that both hold the same | `ERR_ENDED_EARLY` | 1 |
/// | two histories | all is done that can be, and the peer has another history of a feed | `ERR_CONFLICT` | 3 |
/// | not taken | the peer did not take all that it was offered | `ERR_NOT_TAKEN` | 3 |
/// | unfetched | the peer has blocks that a store which can only be read does not take | `ERR_NOT_IN_SYNC` | 3 |
/// | apart | all is done that can be; what keeps the two apart was reported | `ERR_NOT_IN_SYNC` | 3 |
///
/// It is the same for `sync` and `serve --once`, live or not. A peer that comes to another server takes what it likes, and goes when it likes.
pub(super) struct Outcome {
    kind: Kind,
    alike: bool,
    /// Blocks that were to come.
    early: u64,
    totals: SyncTotals,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    InSync,
    Unwanted,
    Forked,
    EndedEarly,
    NotTaken,
    Unfetched,
    Apart,
}

impl Outcome {
    /// What a sync came to at whose end both sides are known to be `alike`, or not.
    pub(super) fn of(live: bool, alike: bool, apart: Apart, totals: SyncTotals) -> Self {
        // A block of another history is not to come, nor one that a bound keeps out.
        let early = if apart.conflict || apart.bounded { 0 } else { totals.missing };
        let kind = match (early, totals.not_taken) {
            (0, _) if apart.conflict => Kind::Forked,
            (0, 0) if totals.unfetched > 0 => Kind::Unfetched,
            (0, 0) if alike => Kind::InSync,
            (0, 0) if totals.unwanted > 0 => Kind::Unwanted,
            // A live session has no end of its own: the peer left it.
            (0, 0) if apart.any && !live => Kind::Apart,
            (0, 1..) => Kind::NotTaken,
            _ => Kind::EndedEarly,
        };
        Self { kind, alike, early, totals }
    }

    /// How many feeds the peer did not take, or not all of them, if no blocks are to come that it has.
    pub(super) fn not_taken(&self) -> u64 {
        if self.early > 0 { 0 } else { self.totals.not_taken }
    }

    pub(super) fn is_in_sync(&self) -> bool {
        self.alike && self.totals.not_taken == 0 && self.totals.unfetched == 0 && self.kind != Kind::Forked
    }

    /// Whether the peer has another history of a feed.
    pub(super) fn is_forked(&self) -> bool {
        self.kind == Kind::Forked
    }

    /// Its numbers, for programs.
    pub(super) fn done(&self) -> Done {
        let SyncTotals { in_step, not_taken, unwanted, unfetched, .. } = self.totals;
        let holes = self.totals.holes.iter().map(Hole::from).collect();
        Done { moved: Moved::from(&self.totals), in_step, not_taken, unwanted, unfetched, holes }
    }

    /// A line for people.
    pub(super) fn text(&self) -> String {
        let state = match self.kind {
            Kind::InSync => "in sync",
            Kind::Unwanted => "done, and the peer asked for no more",
            Kind::NotTaken | Kind::Unfetched | Kind::Apart => "done, and not in sync",
            Kind::Forked => "done, but for a feed of two histories",
            Kind::EndedEarly => "ended early",
        };
        format!("{state}: {}", Moved::from(&self.totals).text(self.totals.in_step))
    }

    /// Says to people what keeps the two apart, and `all` of it even if the command's error does.
    pub(super) fn say_more(&self, who: &str, all: bool, output: &Output) -> Result<(), CliError> {
        if self.early > 0 {
            let blocks = count(self.early, "block");
            output.say(&format!("{who}{blocks} that the peer has did not come before the session ended"))?;
        }
        if self.totals.unfetched > 0 {
            let feeds = count(self.totals.unfetched, "feed");
            let why = "which this store does not take: it can only be read";
            output.say(&format!("{who}the peer has more of {feeds}, {why}"))?;
        }
        if all && self.totals.not_taken > 0 {
            output.say(&format!("{who}the peer did not take all of {}", count(self.totals.not_taken, "feed")))?;
        }
        for holes in self.totals.holes.iter().map(Hole::from) {
            output.say(&format!("{who}the peer does not have these either: {}", holes.text()))?;
        }
        Ok(())
    }

    /// # Errors
    ///
    /// What the command fails with.
    pub(super) fn result(&self) -> Result<(), CliError> {
        match self.kind {
            Kind::InSync | Kind::Unwanted => Ok(()),
            Kind::NotTaken => {
                let message = format!("{}; the rest is done", not_taken(self.totals.not_taken));
                Err(CliError::new(code::NOT_TAKEN, message).with_exit(EXIT_NOT_IN_SYNC))
            }
            Kind::Unfetched => {
                let feeds = count(self.totals.unfetched, "feed");
                let message = format!(
                    "the peer has more of {feeds}, which this store did not take: it can only be read; all that the peer lacked was served"
                );
                Err(CliError::new(code::NOT_IN_SYNC, message).with_exit(EXIT_NOT_IN_SYNC))
            }
            Kind::Apart => {
                let message = "the sync is done, and the two stores do not hold the same: what keeps them apart was reported before";
                Err(CliError::new(code::NOT_IN_SYNC, message).with_exit(EXIT_NOT_IN_SYNC))
            }
            Kind::Forked => Err(two_histories()),
            Kind::EndedEarly if self.early > 0 => {
                let blocks = count(self.early, "block");
                let message = format!("{blocks} that the peer has did not come before the session ended; sync again");
                Err(CliError::new(code::ENDED_EARLY, message))
            }
            Kind::EndedEarly => {
                let message = "the session is over, and the two stores are not known to hold the same: the peer may have had no place for it, be \
                               shutting down, or its disk may have failed; sync again";
                Err(CliError::new(code::ENDED_EARLY, message))
            }
        }
    }
}

/// What a live sync fails with that a signal ended while both sides did not hold the same, and the peer did not take so many feeds.
pub(super) fn not_in_sync(signal: Signal, feeds: u64) -> CliError {
    let message = match feeds {
        0 => "interrupted while the two were not in sync; sync again".to_owned(),
        feeds => format!("interrupted while the two were not in sync: {}", not_taken(feeds)),
    };
    CliError::new(code::INTERRUPTED, message).with_exit(signal.exit())
}

/// What is said of so many feeds that the peer did not take.
fn not_taken(feeds: u64) -> String {
    let feeds = count(feeds, "feed");
    format!(
        "the peer did not take all of {feeds} that it was offered: its user removed or banned them, its application does not want more of them, or \
         a bound of its store, or its disk, lets it take no more, or it cannot open a feed that it has, or it gave up waiting on a slow link"
    )
}

/// What a sync fails with whose peer has another history of a feed.
pub(super) fn two_histories() -> CliError {
    let message = "the two stores have two histories of a feed, both signed by its writer, which no sync brings together: all else is done \
                   (`multifeed conflicts` lists them; `remove FEED --ban` gives one up)";
    CliError::new(code::CONFLICT, message).with_exit(EXIT_NOT_IN_SYNC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_its_exit_code() {
        let exit = |live, alike, [missing, not_taken, unwanted, unfetched]: [u64; 4], apart| {
            let mut totals = SyncTotals::default();
            (totals.missing, totals.not_taken, totals.unwanted, totals.unfetched) =
                (missing, not_taken, unwanted, unfetched);
            let outcome = Outcome::of(live, alike, Apart::of_damage(apart), totals);
            let state = outcome.text().split(':').next().unwrap_or_default().to_owned();
            outcome.result().map_or_else(|error| (error.exit(), error.code().to_owned()), |()| (0, state))
        };
        for live in [false, true] {
            let expected = |exit, code: &str| (exit, code.to_owned());
            assert_eq!(exit(live, true, [0; 4], false), expected(0, "in sync"));
            let why = "what was damaged concerns no feed of both";
            assert_eq!(exit(live, true, [0; 4], true), expected(0, "in sync"), "{why}");
            assert_eq!(exit(live, false, [0, 0, 1, 0], false), expected(0, "done, and the peer asked for no more"));
            assert_eq!(exit(live, false, [0; 4], false), expected(1, code::ENDED_EARLY));
            // What is missing here comes first.
            for not_taken in 0..2 {
                assert_eq!(exit(live, false, [5, not_taken, 0, 0], true), expected(1, code::ENDED_EARLY));
            }
            assert_eq!(exit(live, false, [0, 1, 0, 0], true), expected(3, code::NOT_TAKEN));
            assert_eq!(exit(live, true, [0, 0, 1, 1], false), expected(3, code::NOT_IN_SYNC));
        }
        for live in [false, true] {
            for numbers in [[0; 4], [5, 1, 0, 0]] {
                let mut totals = SyncTotals::default();
                (totals.missing, totals.not_taken) = (numbers[0], numbers[1]);
                let forked = Apart { any: true, conflict: true, bounded: false };
                let error = Outcome::of(live, false, forked, totals).result().unwrap_err();
                assert_eq!((error.exit(), error.code()), (3, code::CONFLICT));
            }
        }
        assert_eq!(exit(false, false, [0; 4], true), (3, code::NOT_IN_SYNC.to_owned()));
        assert_eq!(exit(true, false, [0; 4], true), (1, code::ENDED_EARLY.to_owned()));
    }
}
