//! Bytes on the (decrypted) wire: varints, frames, messages.

pub mod frame;
pub mod message;
pub(crate) mod schema;
pub mod varint;
