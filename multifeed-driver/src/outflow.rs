//! How much may wait to be written to one stream.

use std::time::Duration;

use crate::options::PumpOptions;

/// How much may wait to be written, of commands: on a slow stream what goes out in about a second, since what is sent next waits behind it,
/// and a JS peer ends the stream after 20 s without an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outflow {
    window: usize,
    least: usize,
    most: usize,
    since: Duration,
    written: usize,
    /// The stream took no more.
    blocked: bool,
}

impl Outflow {
    pub(crate) fn new(options: &PumpOptions) -> Self {
        let most = options.credit_bytes.max(1);
        let least = options.slow_credit_bytes.clamp(1, most);
        Self { window: least, least, most, since: Duration::ZERO, written: 0, blocked: false }
    }

    pub(crate) fn written(&mut self, bytes: usize) {
        self.written = self.written.saturating_add(bytes);
        if !self.blocked && self.written >= self.window {
            self.window = self.window.saturating_mul(2).min(self.most);
        }
    }

    pub(crate) fn blocked(&mut self) {
        self.blocked = true;
    }

    pub(crate) fn window(&mut self, now: Duration) -> usize {
        if now >= self.since.saturating_add(Duration::from_secs(1)) {
            if self.blocked {
                self.window = self.written.clamp(self.least, self.most);
            }
            (self.since, self.written, self.blocked) = (now, 0, false);
        }
        self.window
    }
}
