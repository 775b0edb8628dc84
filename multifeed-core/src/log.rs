//! What happens in a store and on its sessions, for those who subscribe with `tracing`. Without the feature `tracing` nothing is recorded.
//!
//! Targets are `multifeed::store`, `multifeed::session` and `multifeed::feed`, whichever crate records: the filter `multifeed=debug` has all of
//! them. At `debug` there is a line for each step of a session and each write, at `trace` one for each block.
//!
//! No secret is recorded: of keys the first eight digits, of blocks their numbers and sizes, and of what applications tell each other
//! nothing. The text of an error may name a feed by its whole public key; it never has a root key or a secret key.

use multifeed_proto::FeedKey;

use crate::feed::Feed;
use crate::ids::SessionId;

#[cfg(feature = "tracing")]
#[doc(hidden)]
pub use tracing;

/// Records what happened: level, target, a span to stand in if it is not the current one, a text, and fields. Each value has `?` or `%` in front.
#[cfg(feature = "tracing")]
#[doc(hidden)]
#[macro_export]
macro_rules! __log {
    ($level:ident, $target:literal, in $span:expr, $text:literal $(, $name:ident = $mark:tt $value:expr)* $(,)?) => {
        if $crate::log::tracing::level_enabled!($crate::log::tracing::Level::$level) {
            $crate::log::cold(|| $crate::log::tracing::event!(
                target: concat!("multifeed::", $target), parent: &$span.0, $crate::log::tracing::Level::$level,
                $($name = $mark $value,)* $text
            ))
        }
    };
    ($level:ident, $target:literal, $text:literal $(, $name:ident = $mark:tt $value:expr)* $(,)?) => {
        if $crate::log::tracing::level_enabled!($crate::log::tracing::Level::$level) {
            $crate::log::cold(|| $crate::log::tracing::event!(
                target: concat!("multifeed::", $target), $crate::log::tracing::Level::$level,
                $($name = $mark $value,)* $text
            ))
        }
    };
}

/// Keeps what is done only for subscribers out of the way of the rest.
#[cfg(feature = "tracing")]
#[doc(hidden)]
#[cold]
#[inline(never)]
pub fn cold(record: impl FnOnce()) {
    record();
}

/// Records nothing, and evaluates nothing.
#[cfg(not(feature = "tracing"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __log {
    ($level:ident, $target:literal, $(in $span:expr,)? $text:literal $(, $name:ident = $mark:tt $value:expr)* $(,)?) => {
        if false {
            $(let _ = &$span;)?
            $(let _ = &$value;)*
        }
    };
}

pub use crate::__log as log;

/// What a stretch of work belongs to: a store, a session or a feed.
#[derive(Debug, Clone)]
pub struct Span(#[cfg(feature = "tracing")] pub tracing::Span);

/// Work of a span is under way until this is dropped. Boxed, so that nothing costs while nobody subscribes.
#[derive(Debug)]
pub struct Entered {
    #[cfg(feature = "tracing")]
    _spans: Option<Box<[tracing::span::EnteredSpan]>>,
}

impl Span {
    /// Returns a span that stands for nothing.
    pub(crate) fn none() -> Self {
        Self(
            #[cfg(feature = "tracing")]
            tracing::Span::none(),
        )
    }

    /// Returns the span of a store's work. `place` says where the store is.
    pub fn store(place: &str) -> Self {
        #[cfg(feature = "tracing")]
        return Self(tracing::debug_span!(target: "multifeed::store", "store", place));
        #[cfg(not(feature = "tracing"))]
        {
            let _ = place;
            Self()
        }
    }

    /// Returns the span of a session, in the current span.
    pub(crate) fn session(id: SessionId) -> Self {
        #[cfg(feature = "tracing")]
        return Self(tracing::debug_span!(target: "multifeed::session", "session", id = id.0));
        #[cfg(not(feature = "tracing"))]
        {
            let _ = id;
            Self()
        }
    }

    /// Enters the span.
    #[inline]
    pub fn enter(&self) -> Entered {
        Entered {
            #[cfg(feature = "tracing")]
            _spans: tracing::level_enabled!(tracing::Level::DEBUG).then(|| self.entered(None)),
        }
    }

    /// Enters the span, and that of a feed in it.
    #[inline]
    pub(crate) fn enter_feed(&self, feed: &Feed) -> Entered {
        #[cfg(not(feature = "tracing"))]
        let _ = feed;
        Entered {
            #[cfg(feature = "tracing")]
            _spans: tracing::level_enabled!(tracing::Level::DEBUG).then(|| self.entered(Some(feed))),
        }
    }

    #[cfg(feature = "tracing")]
    #[cold]
    #[inline(never)]
    fn entered(&self, feed: Option<&Feed>) -> Box<[tracing::span::EnteredSpan]> {
        let outer = self.0.clone().entered();
        let inner = feed.map(|feed| {
            let key = feed.key();
            tracing::debug_span!(target: "multifeed::feed", "feed", ?key).entered()
        });
        // Dropped in this order: the inner one first.
        inner.into_iter().chain([outer]).collect()
    }
}

/// The first digits of a key that is not a feed's.
pub struct Short<'a>(pub &'a [u8; 32]);

impl core::fmt::Debug for Short<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        FeedKey::new(*self.0).fmt(f)
    }
}
