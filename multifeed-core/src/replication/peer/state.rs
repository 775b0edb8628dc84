//! The states of a feed's channel, whose moves stand in tables: `docs/state-machines.md` is drawn from them.

use multifeed_proto::machine::Machine;

/// Who opened the channel, and who closed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChannelState {
    /// This side opened it, and the remote has not.
    Opening,
    /// Both sides did.
    Open,
    /// This side's Close follows what waits to be sent.
    Closing,
    /// It is closed, by either side.
    Closed,
    /// As `Closing`, of one that the remote has not opened.
    Withdrawing,
    /// As `Closed`, of one that the remote never opened.
    Withdrawn,
}

/// What changes that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChannelStep {
    RemoteOpen,
    /// This side is through with it, or gives it up.
    End,
    /// A Close of either side, or the end of the stream.
    Close,
}

impl Machine for ChannelState {
    type Input = ChannelStep;
    const START: Self = Self::Opening;
    const MOVES: &'static [(Self, ChannelStep, Self)] = &[
        (Self::Opening, ChannelStep::RemoteOpen, Self::Open),
        (Self::Opening, ChannelStep::End, Self::Withdrawing),
        (Self::Opening, ChannelStep::Close, Self::Withdrawn),
        (Self::Open, ChannelStep::End, Self::Closing),
        (Self::Open, ChannelStep::Close, Self::Closed),
        (Self::Closing, ChannelStep::Close, Self::Closed),
        (Self::Withdrawing, ChannelStep::RemoteOpen, Self::Closing),
        (Self::Withdrawing, ChannelStep::Close, Self::Withdrawn),
    ];
}

impl ChannelState {
    /// Whether the remote opened it, now or before it was closed.
    pub(super) fn was_opened(self) -> bool {
        matches!(self, Self::Open | Self::Closing | Self::Closed)
    }

    /// Whether this side has not ended it.
    pub(super) fn goes_on(self) -> bool {
        matches!(self, Self::Opening | Self::Open)
    }

    /// Whether a Close has to be sent.
    pub(super) fn is_closing(self) -> bool {
        matches!(self, Self::Closing | Self::Withdrawing)
    }

    /// Whether nothing can be sent any more.
    pub(super) fn is_closed(self) -> bool {
        matches!(self, Self::Closed | Self::Withdrawn)
    }
}

/// Which blocks of the feed are fetched from the remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fetch {
    /// None, and the remote knows.
    Off,
    /// What is missing here, or in a sparse session what is asked for.
    Blocks,
    /// What is asked for, of a feed that is written here: it is whole as far as is known, and only the remote's history is asked about.
    HistoryOnly,
    /// None any more: what the remote told of is here.
    Done,
    /// As `Done`, after `HistoryOnly`.
    HistoryDone,
}

/// What changes that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FetchStep {
    /// Blocks shall be fetched.
    Start,
    /// The feed is written here, and has no known holes.
    StartOfWriter,
    /// Nothing is missing any more, as far as the remote told.
    Through,
    /// The remote, one of ours, told of blocks after that.
    RemoteHasMore,
    /// It turned out that there are more blocks of a feed that is written here.
    WriterBehind,
    /// No blocks shall be fetched any more.
    Stop,
    /// The channel ends, or the remote has another history.
    End,
}

impl Machine for Fetch {
    type Input = FetchStep;
    const START: Self = Self::Off;
    const MOVES: &'static [(Self, FetchStep, Self)] = &[
        (Self::Off, FetchStep::Start, Self::Blocks),
        (Self::Off, FetchStep::StartOfWriter, Self::HistoryOnly),
        (Self::Blocks, FetchStep::Through, Self::Done),
        (Self::Blocks, FetchStep::Stop, Self::Off),
        (Self::Blocks, FetchStep::End, Self::Off),
        (Self::Done, FetchStep::RemoteHasMore, Self::Blocks),
        (Self::Done, FetchStep::Start, Self::Blocks),
        (Self::Done, FetchStep::Stop, Self::Off),
        (Self::HistoryOnly, FetchStep::WriterBehind, Self::Blocks),
        (Self::HistoryOnly, FetchStep::Start, Self::Blocks),
        (Self::HistoryOnly, FetchStep::Through, Self::HistoryDone),
        (Self::HistoryOnly, FetchStep::End, Self::HistoryDone),
        (Self::HistoryOnly, FetchStep::Stop, Self::Off),
        (Self::HistoryDone, FetchStep::WriterBehind, Self::Blocks),
        (Self::HistoryDone, FetchStep::Start, Self::Blocks),
        (Self::HistoryDone, FetchStep::Stop, Self::Off),
    ];
}

impl Fetch {
    /// Whether blocks are fetched, as this side's Status says.
    pub(super) fn is_on(self) -> bool {
        matches!(self, Self::Blocks | Self::HistoryOnly)
    }

    /// Whether no more is fetched than what is asked for, as all is here as far as is known.
    pub(super) fn is_of_writer(self) -> bool {
        matches!(self, Self::HistoryOnly | Self::HistoryDone)
    }
}

/// Whether the remote has the history that is here, as far as that is known and asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum History {
    /// It is not asked.
    Unchecked,
    /// It is asked, on its [`Terms`](super::history::Terms), and showed no other.
    Checked,
    /// It, one of ours, says that it has another. It is asked all the same, whether blocks are fetched from it or not: its answer is the proof.
    ForkClaimed,
    /// It has another. It is not asked any more.
    Forked,
}

/// What changes that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HistoryStep {
    /// Blocks shall be fetched from it, so that it must be known.
    Check,
    /// None are.
    Leave,
    /// The remote says that it has another.
    Claim,
    /// The remote showed another, signed by the same writer.
    Proof,
}

impl Machine for History {
    type Input = HistoryStep;
    const START: Self = Self::Unchecked;
    const MOVES: &'static [(Self, HistoryStep, Self)] = &[
        (Self::Unchecked, HistoryStep::Check, Self::Checked),
        (Self::Unchecked, HistoryStep::Claim, Self::ForkClaimed),
        (Self::Unchecked, HistoryStep::Proof, Self::Forked),
        (Self::Checked, HistoryStep::Leave, Self::Unchecked),
        (Self::Checked, HistoryStep::Claim, Self::ForkClaimed),
        (Self::Checked, HistoryStep::Proof, Self::Forked),
        (Self::ForkClaimed, HistoryStep::Proof, Self::Forked),
    ];
}

impl History {
    /// Whether the remote is asked.
    pub(super) fn is_checked(self) -> bool {
        matches!(self, Self::Checked | Self::ForkClaimed)
    }

    /// Whether the remote has another one, or says so.
    pub(super) fn is_forked(self) -> bool {
        matches!(self, Self::ForkClaimed | Self::Forked)
    }
}

/// Why this side ended the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nothing is left to do on it, or it cannot go on.
    Through,
    /// The remote asked for nothing more, and did not say that it is done.
    Idle,
    /// The remote did not open it in time.
    Unopened,
}

/// What the remote does with the feed, as it said in its last Status.
#[derive(Debug, Clone, Copy)]
pub(super) struct RemoteStatus {
    /// It serves blocks.
    pub(super) uploading: bool,
    /// It fetches blocks.
    pub(super) downloading: bool,
    /// It asked for something before it said that it fetches nothing.
    pub(super) reads: bool,
}

impl Default for RemoteStatus {
    /// Before it said anything.
    fn default() -> Self {
        Self { uploading: true, downloading: true, reads: true }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use multifeed_proto::diagrams::{check, draw, of_sessions};

    use super::*;

    fn diagrams() -> String {
        let head = "# The state machines\n\n\
            Drawn from the transition tables in `multifeed-proto/src` and `multifeed-core/src/replication/peer/state.rs` by a test, which\n\
            fails where this file is not what they say; `UPDATE_DOCS=1 cargo test -p multifeed-core --lib diagrams` writes it anew. An\n\
            input that a state has no arrow for does nothing there, or is an error that ends the session.\n";
        let of_channels = [
            draw::<ChannelState>(
                "A feed's channel",
                "Who opened it and who closed it, as core keeps it. `Withdrawing` and `Withdrawn` are of a channel that the remote never opened: what\n\
                 it has of the feed is not known then.",
            ),
            draw::<Fetch>(
                "What is fetched on it",
                "A feed that is written here and whole begins with `HistoryOnly`: nothing is fetched, as long as nothing proves that there is\n\
                 more. `Done` is left only for a remote of ours. Beside it, a session that is not live and wants nothing more drains: what\n\
                 was asked for comes, and is not taken.",
            ),
            draw::<History>(
                "Whose history it is",
                "A remote whose history is being checked is sent no block that it asked for since: a JS peer that gets one of another history\n\
                 ends its whole stream. Nothing is fetched of a fork.",
            ),
        ];
        [head.to_owned(), of_sessions()].into_iter().chain(of_channels).collect()
    }

    #[test]
    fn tables_are_sound() {
        check::<ChannelState>();
        check::<Fetch>();
        check::<History>();
    }

    #[test]
    fn the_diagrams_are_current() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/state-machines.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, diagrams()).unwrap();
        }
        let written = std::fs::read_to_string(&path).expect("docs/state-machines.md");
        assert!(written == diagrams(), "docs/state-machines.md is not current: UPDATE_DOCS=1 writes it anew");
    }
}
