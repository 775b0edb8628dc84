//! The engines that come with this crate.

#[cfg(feature = "addresses")]
pub(crate) mod addresses;
#[cfg(any(feature = "addresses", feature = "lan"))]
mod door;
#[cfg(feature = "hyperswarm")]
pub(crate) mod hyperswarm;
#[cfg(feature = "lan")]
pub(crate) mod lan;
