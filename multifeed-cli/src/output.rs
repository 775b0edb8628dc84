//! What goes to stdout and stderr: readable lines for people, or one JSON object a line for programs.

mod board;
mod lines;
mod relay;
mod standing;
mod status;
mod table;
mod terminal;

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use console::{Term, is_dumb};
use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde::Serialize;
use tokio::sync::mpsc::UnboundedReceiver;

pub(crate) use self::board::{Board, Seat};
pub(crate) use self::lines::{
    AliasLine, AppendLine, BannedLine, BlockLine, ClearedLine, Event, FeedLine, KeyLine, WriterLine,
};
pub(crate) use self::relay::Part;
use self::relay::Relay;
use self::standing::Line;
pub(crate) use self::standing::{Done, FoundBy, Hole, Moved, Rates, Standing};
pub(crate) use self::status::{ConflictLine, StatusLine, StatusPeer};
pub(crate) use self::table::{narrow_table, table};
use self::terminal::OneLine;
use crate::error::CliError;
use crate::line_queue::{LineQueue, Worth};

/// How long a command that a signal ended waits for a reader of its lines that takes none.
const LAST_LINES: Duration = Duration::from_secs(2);

/// How often a bar is drawn, at the most.
const DRAWN_PER_SECOND: u8 = 20;

/// How long something goes on before a time that is left is said.
const GUESSES_AFTER: Duration = Duration::from_secs(3);

/// What stands before a line: a spinner and a space.
const SPINNER_COLUMNS: usize = 2;

/// The streams that a command writes to. In both forms stdout has the results, and stderr the failures, except that a failure's
/// JSON object is a result.
#[derive(Clone)]
pub(crate) struct Output {
    json: bool,
    bar: ProgressBar,
    /// Stdout and stderr, if lines must not wait for their readers.
    queues: Arc<OnceLock<[LineQueue; 2]>>,
    /// Whom all that is printed is about.
    about: Option<Arc<About>>,
    /// The way to the process that asked, if another one did: all goes there.
    relay: Option<Relay>,
    /// The peers of this process.
    board: Board,
    /// Since when it is known how many bytes are missing.
    since: Arc<Mutex<Option<Instant>>>,
    /// Stdout is a peer's: all goes to stderr.
    off_stdout: bool,
}

/// A peer, as programs see it: by its static key, once that is known, and by where it is reached or came from, if that is known.
#[derive(Serialize, Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct PeerName {
    pub(crate) id: Option<String>,
    pub(crate) address: Option<String>,
}

impl From<SocketAddr> for PeerName {
    /// One that came from there.
    fn from(from: SocketAddr) -> Self {
        Self { id: None, address: Some(from.to_string()) }
    }
}

/// A peer, and a root key by its discovery key.
#[derive(Serialize)]
struct About {
    peer: PeerName,
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<String>,
}

/// What is about them.
#[derive(Serialize)]
struct OfPeer<'a, T: Serialize> {
    #[serde(flatten)]
    object: &'a T,
    #[serde(flatten)]
    about: &'a About,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Output {
            json,
            bar: ProgressBar::hidden(),
            queues: Arc::default(),
            about: None,
            relay: None,
            board: Board::default(),
            since: Arc::default(),
            off_stdout: false,
        }
    }

    /// One for what another process asked for, and what there is to send there.
    pub(crate) fn to_relay(json: bool) -> (Self, UnboundedReceiver<Part>) {
        let (relay, parts) = Relay::new();
        (Output { relay: Some(relay), ..Self::new(json) }, parts)
    }

    /// The way to the process that asked, if another one did.
    pub(crate) fn relay(&self) -> Option<&Relay> {
        self.relay.as_ref()
    }

    /// Prints what another process printed for this one.
    ///
    /// # Errors
    /// If stdout failed.
    pub(crate) fn relayed(&self, text: String, to_stderr: bool) -> Result<(), CliError> {
        if to_stderr {
            self.to_stderr(text);
            return Ok(());
        }
        self.to_stdout(text, Worth::Event).map_err(|error| CliError::stdio("stdout", &error))
    }

    /// The same output, all of which goes to stderr, if stdout is a peer's.
    pub(crate) fn off_stdout(self, off_stdout: bool) -> Self {
        Output { off_stdout, ..self }
    }

    /// The same output, whose objects name a peer that they are about.
    pub(crate) fn about(&self, peer: &PeerName) -> Self {
        Output { about: Some(Arc::new(About { peer: peer.clone(), root: None })), ..self.clone() }
    }

    /// The same output, whose objects name a peer and a root key that they are about.
    pub(crate) fn about_root(&self, peer: &PeerName, root: String) -> Self {
        Output { about: Some(Arc::new(About { peer: peer.clone(), root: Some(root) })), ..self.clone() }
    }

    /// The peers of this process, as they stand.
    pub(crate) fn board(&self) -> &Board {
        &self.board
    }

    /// What an object is for programs.
    fn object(&self, object: &impl Serialize) -> String {
        match &self.about {
            Some(about) => to_json(&OfPeer { object, about }),
            None => to_json(object),
        }
    }

    /// Has all lines from now on, also those of clones and of the log, written by threads of their own: sessions do not wait for a reader of them.
    /// If it falls behind by megabytes, lines are left out, and their number is said. To be called when the bar is there.
    pub(crate) fn queue_lines(&self) {
        // A bar is in the way of what goes to the same terminal; it must not wait for anything else.
        let bar = self.bar.clone();
        let to_stdout = move |line: &str| match io::stdout().is_terminal() && !bar.is_hidden() {
            true => bar.suspend(|| write_line(&mut io::stdout().lock(), line)),
            false => write_line(&mut io::stdout().lock(), line),
        };
        let bar = self.bar.clone();
        let to_stderr = move |line: &str| match bar.is_hidden() {
            true => write_line(&mut io::stderr().lock(), line),
            false => bar.suspend(|| write_line(&mut io::stderr().lock(), line)),
        };
        let summary: fn(u64) -> String = if self.json { left_out_object } else { left_out_text };
        if let (Ok(stdout), Ok(stderr)) = (LineQueue::start(summary, to_stdout), LineQueue::start(summary, to_stderr)) {
            let _ = self.queues.set([stdout, stderr]);
        }
    }

    /// The queue of stderr, if there is one.
    pub(crate) fn stderr_queue(&self) -> Option<&LineQueue> {
        self.queues.get().map(|[_, stderr]| stderr)
    }

    /// Waits until all lines are written; if a signal asked for the end, only as long as a reader takes some.
    ///
    /// # Errors
    /// If stdout failed.
    pub(crate) fn finish(&self, interrupted: bool) -> Result<(), CliError> {
        let Some([stdout, stderr]) = self.queues.get() else { return Ok(()) };
        let patience = interrupted.then_some(LAST_LINES);
        let _ = stderr.finish(patience);
        stdout.finish(patience).map_err(|error| CliError::stdio("stdout", &error))
    }

    fn to_stdout(&self, line: String, worth: Worth) -> io::Result<()> {
        if let Some(relay) = &self.relay {
            relay.push(Part::Text { text: line, to_stderr: false });
            return Ok(());
        }
        if self.off_stdout {
            self.to_stderr(line);
            return Ok(());
        }
        match self.queues.get() {
            Some([stdout, _]) => stdout.push(line, worth),
            None => self.bar.suspend(|| write_line(&mut io::stdout().lock(), &line)),
        }
    }

    fn to_stderr(&self, line: String) {
        if let Some(relay) = &self.relay {
            return relay.push(Part::Text { text: line, to_stderr: true });
        }
        let _ = match self.queues.get() {
            Some([_, stderr]) => stderr.push(line, Worth::Event),
            None => self.bar.suspend(|| write_line(&mut io::stderr().lock(), &line)),
        };
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints `text` for people, or `object` for programs.
    pub(crate) fn print(&self, text: impl FnOnce() -> String, object: &impl Serialize) -> Result<(), CliError> {
        let line = if self.json { self.object(object) } else { printable(&text()) };
        self.to_stdout(line, Worth::Event).map_err(|e| CliError::stdio("stdout", &e))
    }

    /// Prints what is for programs alone.
    pub(crate) fn print_object(&self, object: &impl Serialize) -> Result<(), CliError> {
        if !self.json {
            return Ok(());
        }
        self.print(String::new, object)
    }

    /// Prints how a sync stands, for programs. If its reader is behind, it gets the next one.
    pub(crate) fn print_progress(&self, standing: &Event<'_>) -> Result<(), CliError> {
        if !self.json {
            return Ok(());
        }
        self.to_stdout(self.object(standing), Worth::Progress).map_err(|e| CliError::stdio("stdout", &e))
    }

    /// Prints what is for people alone.
    pub(crate) fn say(&self, text: &str) -> Result<(), CliError> {
        if self.json {
            return Ok(());
        }
        self.to_stdout(printable(text), Worth::Event).map_err(|e| CliError::stdio("stdout", &e))
    }

    /// Reports a failure. What cannot be written (stdout and stderr are gone) is dropped: the exit code still says it.
    pub(crate) fn fail(&self, error: &CliError) {
        match self.json {
            // Somebody has to hear of it, if only that stdout takes nothing.
            true if self.to_stdout(error_object(error), Worth::Event).is_err() => self.to_stderr(error_object(error)),
            true => {}
            false => self.to_stderr(error_text(error)),
        }
    }

    /// Reports the failure of a sync with one of several peers, which is no failure of the command.
    pub(crate) fn fail_of(&self, peer: &PeerName, error: &CliError) {
        let (code, message) = (error.code(), error.message());
        match self.json {
            true => {
                let event = Event::PeerError { code, message, us: error.us(), them: error.them() };
                _ = self.to_stdout(self.about(peer).object(&event), Worth::Event);
            }
            false => self.to_stderr(error_text(error)),
        }
    }

    /// Says on stderr, in either form, what is neither a failure nor a warning.
    pub(crate) fn note(&self, message: &str, object: &Event<'_>) {
        self.to_stderr(if self.json { self.object(object) } else { printable(&format!("multifeed: {message}")) });
    }

    /// Reports on stderr, in either form, what is no failure of the command.
    pub(crate) fn warn(&self, message: &str) {
        self.warn_object(message, &Event::Warning { message });
    }

    /// As [`warn`](Self::warn), with an object of its own for programs.
    pub(crate) fn warn_object(&self, message: &str, object: &Event<'_>) {
        self.to_stderr(match self.json {
            true => self.object(object),
            false => printable(&format!("multifeed: warning: {message}")),
        });
    }

    /// Reports a failure on stderr, in either form, if stdout holds blocks.
    pub(crate) fn fail_on_stderr(&self, error: &CliError) {
        self.to_stderr(if self.json { error_object(error) } else { error_text(error) });
    }

    /// Shows a bar on stderr from now on, if that is a terminal with a person in front of it. `unit` names what is
    /// counted.
    pub(crate) fn start_bar(&mut self, unit: Unit) {
        if self.json {
            return;
        }
        let term = Term::buffered_stderr();
        if !term.is_term() || is_dumb() {
            return;
        }
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(OneLine::new(term)), DRAWN_PER_SECOND);
        self.bar = ProgressBar::with_draw_target(None, target);
        self.bar.set_style(unit.spinner());
        self.bar.enable_steady_tick(Duration::from_millis(200));
    }

    /// Moves the bar of a sync that has an end.
    pub(crate) fn set_progress(&self, standing: &Standing) {
        let all = standing.bytes();
        let bar = bar_columns(Term::stderr().size().1.into());
        if all > 0 {
            // The terminal may have another width by now.
            self.bar.set_style(style(&format!("{{bar:{bar}}} {{wide_msg}}")));
            self.bar.set_length(all);
            self.bar.set_position(standing.moved.bytes_received + standing.moved.bytes_sent);
        } else if self.bar.length().is_some() || self.bar.message().is_empty() {
            self.bar.unset_length();
            self.bar.set_style(style("{spinner} {wide_msg}"));
        }
        let beside = if all > 0 { bar + 1 } else { SPINNER_COLUMNS };
        self.bar.set_message(self.with_time_left(standing.progress(), standing, beside));
    }

    /// As much of a line as has room, with the time that is left, once that can be said. `beside` counts the columns that are taken.
    fn with_time_left(&self, line: Line, standing: &Standing, beside: usize) -> String {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let line = match standing.time_left() {
            Some(left) if since.get_or_insert_with(Instant::now).elapsed() >= GUESSES_AFTER => {
                line.with(0, format!("{:#} left", HumanDuration(left)))
            }
            Some(_) => line,
            None => {
                *since = None;
                line
            }
        };
        line.within(usize::from(Term::stderr().size().1).saturating_sub(beside))
    }

    /// Moves the bar. A `total` of 0 is one that is not known.
    pub(crate) fn set_bar(&self, unit: Unit, done: u64, total: u64) {
        if let Some(relay) = &self.relay {
            return relay.push(Part::Bar { done, total });
        }
        if total > 0 && self.bar.length() != Some(total) {
            if self.bar.length().is_none() {
                self.bar.set_style(unit.bar());
            }
            self.bar.set_length(total);
        }
        self.bar.set_position(done);
    }

    /// Whether somebody sees a bar.
    pub(crate) fn shows_bar(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// Shows how a sync without an end stands, instead of a bar.
    pub(crate) fn set_standing(&self, standing: &Standing) {
        if self.bar.length().is_some() || self.bar.message().is_empty() {
            self.bar.unset_length();
            self.bar.set_style(style("{spinner} {wide_msg}"));
        }
        self.bar.set_message(self.with_time_left(standing.line(), standing, SPINNER_COLUMNS));
    }

    pub(crate) fn end_bar(&self) {
        self.bar.finish_and_clear();
    }
}

/// What a bar counts.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    Blocks,
    Bytes,
}

impl Unit {
    fn spinner(self) -> ProgressStyle {
        style(match self {
            Unit::Blocks => "{spinner} {human_pos} blocks  {rate}  {elapsed}",
            Unit::Bytes => "{spinner} {bytes}  {bytes_per_sec}  {elapsed}",
        })
    }

    fn bar(self) -> ProgressStyle {
        style(match self {
            Unit::Blocks => "{bar:30} {human_pos}/{human_len} blocks  {rate}  {left}",
            Unit::Bytes => "{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {left}",
        })
    }
}

/// How wide a bar is on a terminal of so many columns: what is said beside it has more than half of a narrow one.
fn bar_columns(columns: usize) -> usize {
    match columns {
        80.. => 30,
        columns => columns.saturating_sub(30) / 2,
    }
    .max(4)
}

/// "1 block", "2,000 blocks".
pub(crate) fn count(number: u64, what: &str) -> String {
    format!("{} {what}{}", HumanCount(number), if number == 1 { "" } else { "s" })
}

/// A name in a line, with escapes for newlines and tabs.
pub(crate) fn one_line(name: &str) -> String {
    name.replace('\n', "\\n").replace('\t', "\\t")
}

/// What is written to a terminal has no control characters in it but newlines and tabs: names come from folders, and
/// parts of messages from peers.
fn printable(text: &str) -> String {
    text.chars()
        .map(|char| if char.is_control() && !matches!(char, '\n' | '\t') { char::REPLACEMENT_CHARACTER } else { char })
        .collect()
}

fn error_text(error: &CliError) -> String {
    printable(&format!("multifeed: {error}"))
}

fn error_object(error: &CliError) -> String {
    let (code, message) = (error.code(), error.message());
    to_json(&Event::Error { code, message, us: error.us(), them: error.them() })
}

fn left_out_text(lines: u64) -> String {
    format!("{} left out: this was not read fast enough", count(lines, "line"))
}

fn left_out_object(lines: u64) -> String {
    to_json(&Event::LinesLeftOut { lines })
}

pub(crate) fn to_json(object: &impl Serialize) -> String {
    // These objects hold strings, numbers and lists of them, which JSON can always hold.
    serde_json::to_string(object).unwrap_or_default()
}

/// One write for one line, so that lines of two threads do not mix.
fn write_line(out: &mut impl io::Write, text: &str) -> io::Result<()> {
    out.write_all(format!("{text}\n").as_bytes())?;
    out.flush()
}

fn style(template: &str) -> ProgressStyle {
    // Indicatif's own rate has four decimals.
    let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = write!(out, "{}/s", HumanCount(state.per_sec() as u64));
    };
    // At first nobody knows.
    let left = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        if state.elapsed() >= GUESSES_AFTER && state.per_sec() > 0.0 {
            let _ = write!(out, "{:#} left", HumanDuration(state.eta()));
        }
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key("rate", rate).with_key("left", left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_leaves_room_for_words() {
        assert_eq!([200, 80, 60, 40, 10].map(bar_columns), [30, 30, 15, 5, 4]);
    }

    #[test]
    fn a_peer_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\r\n\tc\u{9b}"), "a\u{fffd}[2Jb\u{fffd}\n\tc\u{fffd}");
    }
}
