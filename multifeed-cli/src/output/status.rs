//! What `status` and `conflicts` print.

use std::fmt::Write as _;

use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use super::board::OnBoard;
use super::{PeerName, Standing, count};

/// How a store stands.
#[derive(Serialize)]
pub(crate) struct StatusLine {
    /// The process that has it open, if one does.
    pub(crate) process: Option<u32>,
    pub(crate) feeds: u64,
    /// Blocks of all feeds, those that are held, and the bytes of all.
    pub(crate) length: u64,
    pub(crate) downloaded: u64,
    pub(crate) bytes: u64,
    pub(crate) missing: u64,
    pub(crate) peers: Vec<StatusPeer>,
    pub(crate) bans: u64,
    pub(crate) conflicts: u64,
}

/// How a peer stands.
#[derive(Serialize)]
pub(crate) struct StatusPeer {
    #[serde(flatten)]
    name: PeerName,
    #[serde(flatten)]
    standing: Standing,
}

impl From<OnBoard> for StatusPeer {
    fn from(peer: OnBoard) -> Self {
        Self { name: peer.name, standing: peer.standing }
    }
}

/// Digits of a peer's key that are shown to people.
const DIGITS: usize = 8;

impl StatusLine {
    /// Lines for people.
    pub(crate) fn text(&self) -> String {
        let mut text =
            format!("{}, {} ({})", count(self.feeds, "feed"), count(self.length, "block"), HumanBytes(self.bytes));
        if self.missing > 0 {
            let _ = write!(text, ", {} of them missing", HumanCount(self.missing));
        }
        for (number, what) in [(self.bans, "ban"), (self.conflicts, "fork")] {
            if number > 0 {
                let _ = write!(text, ", {}", count(number, what));
            }
        }
        let Some(process) = self.process else {
            return text + "\nnot live: no `serve`, `sync --live` or `swarm` has it open";
        };
        let _ = write!(text, "\nopen in process {process}, with {}", count(self.peers.len() as u64, "peer"));
        for StatusPeer { name, standing } in &self.peers {
            let id = name.id.as_deref().map(|id| id.get(..DIGITS).unwrap_or(id));
            let names = [name.address.as_deref(), id];
            let names: Vec<&str> = names.into_iter().flatten().collect();
            let _ = write!(text, "\n  {}: {}", names.join(" "), standing.text());
        }
        text
    }
}

/// A fork that is on record.
#[derive(Serialize)]
pub(crate) struct ConflictLine {
    pub(crate) key: String,
    /// The feed's name, if it is here.
    pub(crate) name: Option<String>,
    /// Blocks of each history: what was here, and what a peer had.
    pub(crate) lengths: [u64; 2],
}
