//! Names between a session and its caller.

use core::ops::RangeInclusive;

/// A channel's name between a session and its caller, chosen by the caller when it opens the channel, and unique among
/// its open channels. If several multifeeds share a stream, give each a range of its own: [`Token::new`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

impl Token {
    /// Returns the name of a multifeed's feed: the multifeed's in the upper half, the feed's own number in the lower one.
    pub const fn new(root: Root, feed: u32) -> Self {
        Self((root.0 as u64) << 32 | feed as u64)
    }

    /// Returns the multifeed, if [`new`](Self::new) made it.
    pub const fn root(self) -> Root {
        Root((self.0 >> 32) as u32)
    }

    /// Returns the feed's number, if [`new`](Self::new) made it.
    pub const fn feed(self) -> u32 {
        (self.0 & 0xffff_ffff) as u32
    }

    /// Returns the names of all feeds of a multifeed.
    pub const fn all(root: Root) -> RangeInclusive<Self> {
        Self::new(root, 0)..=Self::new(root, u32::MAX)
    }
}

/// A multifeed's name between a session and its caller, chosen by the caller when it opens the root key, and used once in a
/// session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Root(pub u32);

impl Root {
    /// The one that a session's [`Config`](crate::Config) names.
    pub const FIRST: Self = Self(0);
}
