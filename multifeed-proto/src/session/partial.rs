//! Messages that take long to arrive, as on a slow link: the caller hears that they do.

use core::time::Duration;

use super::Session;
use crate::channel::Owner;
use crate::event::Event;
use crate::wire::message::kind;

/// How often the caller hears of a message that is not whole, at the most. One that is whole by then is never spoken of, so that
/// on a fast link it costs a comparison for each read.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// The message that is arriving.
#[derive(Debug, Default)]
pub(super) struct Partial {
    /// How many messages were whole before it.
    message: u64,
    /// When it was last spoken of, or its start was first seen.
    at: Duration,
    /// How much of it was here then, in bytes.
    bytes: usize,
}

impl Session {
    /// Reports a message of which more arrived.
    pub(super) fn report_partial(&mut self) {
        let Some((channel, kind, bytes)) = self.input.partial() else { return };
        let (now, message) = (self.timers.now(), self.input.messages);
        if self.partial.message != message {
            self.partial = Partial { message, at: now, bytes: 0 };
        }
        if now < self.partial.at.saturating_add(REPORT_EVERY) || bytes <= self.partial.bytes {
            return;
        }
        self.partial.at = now;
        let bytes = bytes - core::mem::replace(&mut self.partial.bytes, bytes);
        if let (kind::DATA | kind::HAVE, Some(Owner::Feed(token))) = (kind, self.channels.route(channel)) {
            self.io.events.push(Event::Partial { token, is_data: kind == kind::DATA, bytes });
        }
    }
}
