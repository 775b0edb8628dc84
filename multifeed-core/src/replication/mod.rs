//! One remote: what is asked of it, what it is sent, and what it lacks.

pub(crate) mod ahead;
pub(crate) mod link_budget;
pub(crate) mod matched;
pub(crate) mod missing_ranges;
pub(crate) mod not_taken;
pub(crate) mod offers;
pub(crate) mod peer;
pub(crate) mod peer_session;
pub(crate) mod policy;
pub mod reconcile;
pub(crate) mod replicate;
pub(crate) mod sources;
pub(crate) mod transfer;
pub(crate) mod wants;
