//! Message types, the low four bits of a frame's header.

/// Opens a channel.
pub const OPEN: u8 = 0;
/// Extension names, acknowledgements.
pub const OPTIONS: u8 = 1;
/// Uploading, downloading.
pub const STATUS: u8 = 2;
/// Blocks that the sender has.
pub const HAVE: u8 = 3;
/// Blocks that the sender has no more.
pub const UNHAVE: u8 = 4;
/// Blocks that the sender would like to hear of.
pub const WANT: u8 = 5;
/// The opposite.
pub const UNWANT: u8 = 6;
/// Asks for a block.
pub const REQUEST: u8 = 7;
/// Takes a request back.
pub const CANCEL: u8 = 8;
/// A block and its proof.
pub const DATA: u8 = 9;
/// Closes a channel.
pub const CLOSE: u8 = 10;
/// An extension's message.
pub const EXTENSION: u8 = 15;

/// Returns a type's name, as in simple-hypercore-protocol.
pub const fn name(kind: u8) -> &'static str {
    match kind {
        OPEN => "Open",
        OPTIONS => "Options",
        STATUS => "Status",
        HAVE => "Have",
        UNHAVE => "Unhave",
        WANT => "Want",
        UNWANT => "Unwant",
        REQUEST => "Request",
        CANCEL => "Cancel",
        DATA => "Data",
        CLOSE => "Close",
        EXTENSION => "Extension",
        _ => "unknown",
    }
}
