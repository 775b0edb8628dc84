//! Small machines whose moves stand in a table: the code looks its next state up in it, and the diagrams of
//! `docs/state-machines.md` are drawn from it. Not part of the API.

use core::fmt::Debug;

/// A machine: a state, and the moves that there are.
pub trait Machine: Copy + PartialEq + Debug + Sized + 'static {
    /// What makes it move.
    type Input: Copy + PartialEq + Debug;
    /// The state at the start.
    const START: Self;
    /// From which state, by which input, to which state. What is not in it does not happen.
    const MOVES: &'static [(Self, Self::Input, Self)];

    /// Returns the state after an input; `None` if that means nothing in this one.
    fn next(self, input: Self::Input) -> Option<Self> {
        Self::MOVES.iter().find(|(from, by, _)| (*from, *by) == (self, input)).map(|&(_, _, to)| to)
    }

    /// Moves; `false` if the input means nothing in this state, and nothing happened.
    fn on(&mut self, input: Self::Input) -> bool {
        self.next(input).map(|next| *self = next).is_some()
    }
}
