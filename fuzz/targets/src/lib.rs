//! What the fuzzers run. Each target takes bytes and panics where something does not hold; `fuzz/fuzz_targets` hands them
//! libfuzzer's, and the ordinary tests the committed seeds.

mod calls;
mod cipher;
mod handshake;
mod middle;
mod reconcile;
mod session;
mod sides;
mod wire;

pub use calls::calls;
pub use cipher::cipher;
pub use handshake::{handshake_initiator, handshake_responder};
pub use middle::middle;
pub use reconcile::reconcile;
pub use session::session;
pub use wire::{bitfield_rle, frames, messages};

/// A target, by its name.
pub type Target = fn(&[u8]);

/// All targets.
pub const TARGETS: [(&str, Target); 10] = [
    ("cipher", cipher),
    ("frames", frames),
    ("messages", messages),
    ("bitfield_rle", bitfield_rle),
    ("handshake_initiator", handshake_initiator),
    ("handshake_responder", handshake_responder),
    ("session", session),
    ("calls", calls),
    ("middle", middle),
    ("reconcile", reconcile),
];
