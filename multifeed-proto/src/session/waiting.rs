//! The caller's commands that came before channels may be opened.

use alloc::vec::Vec;
use core::ops::RangeInclusive;

use crate::event::Command;
use crate::ids::Token;
use crate::trace::Scope;

/// Commands in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    commands: Vec<Command>,
    bytes: usize,
}

impl Waiting {
    pub(super) fn push(&mut self, command: Command) {
        self.bytes += command.size();
        self.commands.push(command);
    }

    /// All of them, to be done now.
    pub(super) fn take(&mut self) -> Vec<Command> {
        core::mem::take(self).commands
    }

    /// Those for channels that will not be opened any more are nobody's.
    pub(super) fn forget(&mut self, feeds: &RangeInclusive<Token>) {
        self.commands.retain(|command| !token(command).is_some_and(|token| feeds.contains(&token)));
        self.bytes = self.commands.iter().map(Command::size).sum();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// Their size, by [`Command::size`].
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The channel that a command is for.
fn token(command: &Command) -> Option<Token> {
    match command {
        Command::Open { token, .. } | Command::Send { token, .. } | Command::Close { token } => Some(*token),
        Command::RegisterExtension { scope: Scope::Channel(token), .. }
        | Command::SendExtension { scope: Scope::Channel(token), .. } => Some(*token),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_is_not_counted() {
        let mut waiting = Waiting::default();
        let body = bytes::Bytes::from_static(&[0; 100]);
        for n in 0..3 {
            let scope = Scope::Channel(Token(n));
            waiting.push(Command::SendExtension { scope, name: "x".into(), body: body.clone() });
        }
        waiting.push(Command::Ping);
        let all = waiting.bytes();
        waiting.forget(&(Token(1)..=Token(2)));
        assert!(waiting.bytes() < all - 200 && waiting.bytes() > 100);
        assert_eq!(waiting.take().len(), 2);
        assert_eq!((waiting.bytes(), waiting.is_empty()), (0, true));
    }
}
