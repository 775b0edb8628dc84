//! The timer of a pump.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use crate::runtime::Runtime;

/// One timer, armed anew only when it has to fire earlier than it would: deadlines move on with every byte.
pub(crate) struct Timer<R: Runtime> {
    armed: Option<(Duration, Pin<Box<R::Sleep>>)>,
}

impl<R: Runtime> Default for Timer<R> {
    fn default() -> Self {
        Self { armed: None }
    }
}

impl<R: Runtime> Timer<R> {
    /// Returns true if the time has come.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, due: Option<Duration>, now: Duration) -> bool {
        let Some(due) = due else {
            self.armed = None;
            return false;
        };
        if due <= now {
            return true;
        }
        if self.armed.as_ref().is_none_or(|(at, _)| *at > due) {
            self.armed = Some((due, Box::pin(R::sleep(due - now))));
        }
        let fired = self.armed.as_mut().is_some_and(|(_, sleep)| sleep.as_mut().poll(cx).is_ready());
        if fired {
            self.armed = None;
        }
        fired
    }
}
