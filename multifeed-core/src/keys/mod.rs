//! Key pairs, and signatures under them.

pub(crate) mod key_pair;
pub(crate) mod signatures;
pub(crate) mod signer;
