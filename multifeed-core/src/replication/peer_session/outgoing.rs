//! What a session has to send, in order, and how much of it the stream takes.

use std::collections::VecDeque;

use multifeed_proto::{Command, Scope};

use crate::limits::message_cost;

/// The commands that stand ready, within a grant.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    commands: VecDeque<Command>,
    /// Bytes of commands that the stream takes now; negative after a large one.
    grant: i64,
}

impl Outgoing {
    pub(super) fn push(&mut self, command: Command) {
        self.commands.push_back(command);
    }

    pub(super) fn clear(&mut self) {
        self.commands.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// Whether the stream takes something.
    pub(super) fn has_room(&self) -> bool {
        self.grant > 0
    }

    /// Whether it was sent more than it takes.
    pub(super) fn is_overdrawn(&self) -> bool {
        self.grant < 0
    }

    pub(crate) fn grant(&mut self, bytes: usize) {
        self.grant = self.grant.saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(crate) fn revoke(&mut self, bytes: usize) {
        self.grant = self.grant.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(crate) fn set_grant(&mut self, bytes: usize) {
        self.grant = i64::try_from(bytes).unwrap_or(i64::MAX);
    }

    pub(super) fn charge(&mut self, command: &Command) {
        self.grant = self.grant.saturating_sub(i64::try_from(command.size()).unwrap_or(i64::MAX));
    }

    /// The next command, within the grant.
    pub(crate) fn pop(&mut self) -> Option<Command> {
        if self.grant <= 0 && !self.ends_now() {
            return None;
        }
        let command = self.commands.pop_front()?;
        self.charge(&command);
        Some(command)
    }

    /// Whether the next command is an end: it takes no room, and a remote that reads nothing must not put it off.
    pub(super) fn ends_now(&self) -> bool {
        matches!(self.commands.front(), Some(Command::Finish | Command::Abort(_)))
    }

    /// The memory of messages of the application's extensions that were not sent.
    pub(crate) fn extension_bytes(&self) -> usize {
        let size = |command: &Command| match command {
            Command::SendExtension { scope: Scope::Channel(_), body, .. } => message_cost(body.len()),
            _ => 0,
        };
        self.commands.iter().map(size).sum()
    }
}
