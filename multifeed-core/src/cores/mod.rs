//! What is kept of all cores of a folder, whichever multifeed has them.

pub(crate) mod journal;
