//! Lines on their way to stdout or stderr. A thread of their own writes them, so that a reader that stops reading holds up nobody else.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Bytes of lines that wait, at the most. Lines past it are left out, and counted.
const BYTES: usize = 4 << 20;

/// Bytes of waiting lines from which on a line that the next one of its kind replaces is left out.
const BYTES_BEFORE_PROGRESS: usize = 64 << 10;

/// What a line is worth if the reader is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Worth {
    /// It is written if there is room.
    Event,
    /// The next line of its kind says the same, newer: it is written if the reader keeps up.
    Progress,
}

/// A bounded queue in front of a stream, and the thread that empties it. Clones are the same queue.
#[derive(Clone)]
pub(crate) struct LineQueue(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// The line that says how many lines were left out.
    summary: fn(u64) -> String,
}

#[derive(Default)]
struct State {
    lines: VecDeque<String>,
    bytes: usize,
    left_out: u64,
    /// A line is being written.
    writing: bool,
    written: u64,
    failed: Option<(io::ErrorKind, String)>,
}

impl LineQueue {
    /// Starts the thread, which hands each line to `write`.
    ///
    /// # Errors
    /// If the system starts no thread.
    pub(crate) fn start(
        summary: fn(u64) -> String,
        write: impl FnMut(&str) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let queue = Self(Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), summary }));
        let shared = queue.0.clone();
        thread::Builder::new().name("multifeed-lines".into()).spawn(move || shared.run(write))?;
        Ok(queue)
    }

    /// Takes a line, without its newline. It never waits: if too many bytes wait already, the line is left out.
    ///
    /// # Errors
    /// If a line before it could not be written: nothing is written after that.
    pub(crate) fn push(&self, line: String, worth: Worth) -> io::Result<()> {
        let mut state = self.0.lock();
        if let Some((kind, reason)) = &state.failed {
            return Err(io::Error::new(*kind, reason.clone()));
        }
        let most = match worth {
            Worth::Event => BYTES,
            Worth::Progress => BYTES_BEFORE_PROGRESS,
        };
        if state.bytes > 0 && state.bytes.saturating_add(line.len()) > most {
            // Progress is no loss.
            state.left_out += u64::from(worth == Worth::Event);
            return Ok(());
        }
        self.0.sum_up(&mut state);
        state.add(line);
        drop(state);
        self.0.changed.notify_all();
        Ok(())
    }

    /// Waits until all is written. With `patience`, it gives up once the reader took nothing for so long.
    ///
    /// # Errors
    /// If a line could not be written.
    pub(crate) fn finish(&self, patience: Option<Duration>) -> io::Result<()> {
        let mut state = self.0.lock();
        self.0.sum_up(&mut state);
        self.0.changed.notify_all();
        loop {
            if let Some((kind, reason)) = &state.failed {
                return Err(io::Error::new(*kind, reason.clone()));
            }
            if state.lines.is_empty() && !state.writing {
                return Ok(());
            }
            let written = state.written;
            let Some(patience) = patience else {
                state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let moved = |state: &mut State| state.written == written && state.failed.is_none();
            let waited = self.0.changed.wait_timeout_while(state, patience, moved);
            let (now, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() {
                return Ok(());
            }
            state = now;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how many lines were left out, before the one that comes next.
    fn sum_up(&self, state: &mut State) {
        let left_out = std::mem::take(&mut state.left_out);
        if left_out > 0 {
            state.add((self.summary)(left_out));
        }
    }

    fn run(&self, mut write: impl FnMut(&str) -> io::Result<()>) {
        let mut state = self.lock();
        loop {
            let Some(line) = state.lines.pop_front() else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.writing = true;
            drop(state);
            let result = write(&line);
            state = self.lock();
            state.writing = false;
            state.bytes -= line.len();
            state.written += 1;
            if state.lines.is_empty() {
                self.sum_up(&mut state);
            }
            self.changed.notify_all();
            if let Err(error) = result {
                (state.lines, state.bytes) = (VecDeque::new(), 0);
                state.failed = Some((error.kind(), error.to_string()));
                self.changed.notify_all();
                return;
            }
        }
    }
}

impl State {
    fn add(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line);
    }
}

/// What the log writes is one line each time.
impl io::Write for LineQueue {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes);
        self.push(line.strip_suffix('\n').unwrap_or(&line).to_owned(), Worth::Event)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    fn summary(lines: u64) -> String {
        format!("{lines} left out")
    }

    /// A reader that takes a line each time that it is asked to, and what it got.
    fn slow() -> (LineQueue, Sender<()>, Receiver<String>) {
        let (takes, taking) = channel();
        let (got, lines) = channel();
        let write = move |line: &str| {
            taking.recv().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            got.send(line.to_owned()).map_err(io::Error::other)
        };
        (LineQueue::start(summary, write).unwrap(), takes, lines)
    }

    #[test]
    fn a_reader_that_stops_holds_up_nobody_and_hears_what_it_missed() {
        let (queue, takes, lines) = slow();
        let long = "x".repeat(BYTES / 4);
        for _ in 0..6 {
            queue.push(long.clone(), Worth::Event).unwrap();
            queue.push("progress".into(), Worth::Progress).unwrap();
        }
        // Nothing was read: who ends gives up.
        queue.finish(Some(Duration::from_millis(10))).unwrap();
        takes.send(()).unwrap();
        assert_eq!(lines.recv().unwrap().len(), long.len());
        (0..9).for_each(|_| takes.send(()).unwrap());
        queue.finish(None).unwrap();
        queue.push("last".into(), Worth::Event).unwrap();
        queue.finish(None).unwrap();
        let rest: Vec<String> = lines.try_iter().filter(|line| line.len() < 100).collect();
        assert_eq!(rest, ["2 left out", "last"]);
    }

    #[test]
    fn nothing_is_lost_of_what_a_slow_reader_reads() {
        let (queue, takes, lines) = slow();
        for number in 0..1000 {
            queue.push(number.to_string(), Worth::Progress).unwrap();
        }
        (0..1000).for_each(|_| takes.send(()).unwrap());
        queue.finish(None).unwrap();
        assert!((0..1000).map(|number: u32| number.to_string()).eq(lines.try_iter()));
    }

    #[test]
    fn a_reader_that_is_gone_is_an_error_from_then_on() {
        let (queue, takes, _lines) = slow();
        queue.push("one".into(), Worth::Event).unwrap();
        drop(takes);
        assert_eq!(queue.finish(None).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(queue.push("two".into(), Worth::Event).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
