//! What multifeed's own tests stand on, and nothing else uses:
//!
//! - [`js`]: real JS peers (npm `multifeed` 6.0.0) as child processes, and their view of a folder;
//! - [`mod@conformance`]: what every adapter has to do alike, as tests that an adapter runs;
//! - [`blocks`]: made-up blocks and digests over them that JS computes as well;
//! - [`net`]: a simulated network on virtual time that delays, splits, joins and cuts;
//! - [`disk`]: storage that fails when a test wants it to, and what a disk holds after a crash at any moment;
//! - [`simulation`]: many stores on such a network, with bad disks and crashes, from one seed;
//! - [`cuts`]: random histories of a store, cut at every moment;
//! - [`throttle`]: a slow link between two loopback ports, for real peers;
//! - [`random`]: randomness that a seed repeats;
//! - [`strangers`]: connections that take a listener's memory and places.

pub mod blocks;
pub mod conformance;
pub mod cuts;
pub mod disk;
pub mod js;
pub mod net;
pub mod random;
pub mod simulation;
pub mod strangers;
pub mod throttle;
