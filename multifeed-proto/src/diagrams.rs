//! Diagrams of state machines, drawn from their tables. Not part of the API.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::channel::Side;
use crate::error::Phase;
use crate::exchange::Stage;
use crate::machine::Machine;
use crate::roots::Turn;

/// Draws a section with a Mermaid diagram, with the moves between the same states on one line.
pub fn draw<M: Machine>(title: &str, text: &str) -> String {
    let mut out = format!("\n## {title}\n\n{text}\n\n```mermaid\nstateDiagram-v2\n    [*] --> {:?}\n", M::START);
    let mut seen = Vec::new();
    for (from, _, to) in M::MOVES {
        if seen.contains(&(*from, *to)) {
            continue;
        }
        seen.push((*from, *to));
        let same = M::MOVES.iter().filter(|(a, _, b)| (a, b) == (from, to));
        let inputs: Vec<_> = same.map(|(_, input, _)| format!("{input:?}")).collect();
        out += &format!("    {from:?} --> {to:?}: {}\n", inputs.join(", "));
    }
    out + "```\n"
}

/// Checks that each move stands in the table once, and that every state can be reached.
///
/// # Panics
/// If not.
pub fn check<M: Machine>() {
    for (at, (from, input, _)) in M::MOVES.iter().enumerate() {
        let again = M::MOVES.iter().skip(at + 1).any(|(a, b, _)| (a, b) == (from, input));
        assert!(!again, "{from:?} on {input:?} stands in the table twice");
    }
    let mut reached = vec![M::START];
    let mut at = 0;
    while let Some(state) = reached.get(at).copied() {
        for (from, _, to) in M::MOVES {
            if *from == state && !reached.contains(to) {
                reached.push(*to);
            }
        }
        at += 1;
    }
    for (from, _, to) in M::MOVES {
        assert!(reached.contains(from) && reached.contains(to), "{from:?} or {to:?} cannot be reached");
    }
}

/// Returns the sections of a session's machines.
pub fn of_sessions() -> String {
    [
        draw::<Phase>(
            "The session",
            "From the first byte to the last (`error.rs`, moved by `session/`). `Held` is passed through only where \
             `Config::authenticate` asks\nfor it; a session whose\n`Config` names no root key is `Ready` once Noise is done.",
        ),
        draw::<Turn>(
            "When root keys' channels are opened",
            "JS takes an Open that is not for its own root key, before that key's, for another root key (`roots.rs`). So a side \
             with\nseveral opens one and waits, or waits to be told which.",
        ),
        draw::<Stage>(
            "The exchange of one root key",
            "Multifeed's handshake and feed lists (`exchange/`). Its channel may close early; that ends the exchange only in the \
             dialect of\ncorestore-multifeed, whose lists go over that channel.",
        ),
        draw::<Side>(
            "A channel",
            "Who opened it (`channel.rs`). An Open of the remote's whose capability is wrong, where we opened first, ends the \
             session;\nwhere the remote opened first, it is told by a Close.",
        ),
    ]
    .concat()
}

#[cfg(test)]
#[test]
fn tables_are_sound() {
    check::<Phase>();
    check::<Turn>();
    check::<Stage>();
    check::<Side>();
}
