//! What a runtime has to bring.

use std::future::Future;
use std::time::Duration;

/// Timers and tasks of an async runtime: all that the adapters add below the streams themselves.
pub trait Runtime: Send + Sync + 'static {
    /// A timer, which does its work only while polled.
    type Sleep: Future<Output = ()> + Send + 'static;

    /// A timer that fires after this long.
    fn sleep(duration: Duration) -> Self::Sleep;

    /// Runs a future to its end in the background.
    fn spawn(future: impl Future<Output = ()> + Send + 'static);
}
