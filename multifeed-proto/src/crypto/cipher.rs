//! XSalsa20, one keystream for each direction of a stream, over everything after the Noise handshake, framing included.
//! There is no MAC: what is not signed otherwise can have been changed on its way.

/// A direction's keystream, from its half of Noise's split and the sender's nonce. It goes on from its last byte, at any chunking.
pub use multifeed_cipher::XSalsa20 as Keystream;
