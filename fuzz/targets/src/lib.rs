//! What the fuzzers run. Each target takes bytes and panics if something does not hold; `fuzz/fuzz_targets` hands them
//! libfuzzer's, and the ordinary tests the committed seeds.

mod bitfields;
mod calls;
mod cipher;
mod folders;
mod handshake;
mod middle;
mod proofs;
mod reconcile;
mod session;
mod sides;
mod wire;

pub use bitfields::bitfields;
pub use calls::calls;
pub use cipher::cipher;
pub use folders::folders;
pub use handshake::{handshake_initiator, handshake_responder};
pub use middle::middle;
pub use proofs::proofs;
pub use reconcile::reconcile;
pub use session::session;
pub use wire::{bitfield_rle, frames, messages};

/// A target, by its name.
pub type Target = fn(&[u8]);

/// All targets.
pub const TARGETS: [(&str, Target); 13] = [
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
    ("bitfields", bitfields),
    ("proofs", proofs),
    ("folders", folders),
];
