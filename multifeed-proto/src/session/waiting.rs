//! The caller's commands that came before channels may be opened.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use crate::error::ApiMisuse;
use crate::event::Command;
use crate::extension::Extensions;
use crate::ids::Token;
use crate::limits::Limits;
use crate::trace::Scope;

/// Commands in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    commands: Vec<Command>,
    bytes: usize,
    /// The channels that are open once all is done, with the extensions that are registered on them.
    channels: BTreeMap<Token, Extensions>,
}

impl Waiting {
    /// Takes a command, unless it does not fit those before it.
    pub(super) fn push(&mut self, command: Command, limits: &Limits) -> Result<(), ApiMisuse> {
        match &command {
            Command::Open { token, .. } if self.channels.contains_key(token) => {
                return Err(ApiMisuse::TokenInUse(*token));
            }
            Command::Open { token, .. } => _ = self.channels.insert(*token, Extensions::default()),
            Command::Close { token } => _ = self.channels.remove(token),
            Command::RegisterExtension { scope: Scope::Channel(token), name } => {
                if let Some(extensions) = self.channels.get_mut(token) {
                    extensions.register(name, limits)?;
                }
            }
            _ => {}
        }
        self.bytes += command.size();
        self.commands.push(command);
        Ok(())
    }

    /// Returns the extensions of a channel that will be open.
    pub(super) fn get(&self, token: Token) -> Option<&Extensions> {
        self.channels.get(&token)
    }

    /// All of them, to be done now.
    pub(super) fn take(&mut self) -> Vec<Command> {
        core::mem::take(self).commands
    }

    /// Those for channels that will not be opened any more are nobody's.
    pub(super) fn forget(&mut self, feeds: &RangeInclusive<Token>) {
        self.channels.retain(|token, _| !feeds.contains(token));
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
        let (mut waiting, limits) = (Waiting::default(), Limits::default());
        let body = bytes::Bytes::from_static(&[0; 100]);
        for n in 0..3 {
            let scope = Scope::Channel(Token(n));
            waiting.push(Command::SendExtension { scope, name: "x".into(), body: body.clone() }, &limits).unwrap();
        }
        waiting.push(Command::Ping, &limits).unwrap();
        let all = waiting.bytes();
        waiting.forget(&(Token(1)..=Token(2)));
        assert!(waiting.bytes() < all - 200 && waiting.bytes() > 100);
        assert_eq!(waiting.take().len(), 2);
        assert_eq!((waiting.bytes(), waiting.is_empty()), (0, true));
    }
}
