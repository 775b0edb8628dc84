//! Sets of numbers that are small if the numbers lie together.

pub(crate) mod range_set;
pub(crate) mod sparse_bits;
