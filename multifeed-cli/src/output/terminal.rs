//! The terminal's line that a bar is drawn on, also after the terminal was resized.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use console::measure_text_width;
use indicatif::TermLike;

/// Clears what is right of the cursor, or all from it on.
const CLEAR_REST: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// A terminal with one line that is drawn over and over. Indicatif fills it up with spaces; a terminal that gets narrower wraps it, and the rows above
/// would stay for ever.
#[derive(Debug)]
pub(super) struct OneLine<T> {
    term: T,
    drawn: Mutex<Drawn>,
}

/// What stands there.
#[derive(Debug, Default)]
struct Drawn {
    /// How wide the line is.
    line: usize,
    /// How wide the terminal was.
    term: usize,
}

impl<T: TermLike> OneLine<T> {
    pub(super) fn new(term: T) -> Self {
        Self { term, drawn: Mutex::default() }
    }

    fn drawn(&self) -> MutexGuard<'_, Drawn> {
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes to the first of the rows that the line has become, and clears them.
    fn begin(&self) -> io::Result<()> {
        let Drawn { line, term: before } = std::mem::take(&mut *self.drawn());
        let now = usize::from(self.term.width()).max(1);
        let rows = line.saturating_sub(1) / now;
        if now < before && rows > 0 {
            self.term.move_cursor_up(rows)?;
            self.term.write_str("\r")?;
            self.term.write_str(CLEAR_BELOW)?;
        }
        Ok(())
    }
}

impl<T: TermLike> TermLike for OneLine<T> {
    fn width(&self) -> u16 {
        self.term.width()
    }

    fn height(&self) -> u16 {
        self.term.height()
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.term.move_cursor_up(n)
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.term.move_cursor_down(n)
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.term.move_cursor_right(n)
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.term.move_cursor_left(n)
    }

    fn write_line(&self, s: &str) -> io::Result<()> {
        self.term.write_line(s)
    }

    fn write_str(&self, s: &str) -> io::Result<()> {
        if s == "\r" {
            self.begin()?;
        } else if !s.is_empty() && s.bytes().all(|byte| byte == b' ') {
            return self.term.write_str(CLEAR_REST);
        } else {
            let mut drawn = self.drawn();
            drawn.line += measure_text_width(s);
            drawn.term = self.term.width().into();
        }
        self.term.write_str(s)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.begin()?;
        self.term.clear_line()
    }

    fn flush(&self) -> io::Result<()> {
        self.term.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU16, Ordering};

    use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

    use super::*;

    /// A terminal that wraps what stands on it when it gets narrower, as most do: its rows, of which the cursor is in one.
    #[derive(Debug, Default, Clone)]
    struct Wrapping(Arc<AtomicU16>, Arc<Mutex<(Vec<String>, usize)>>);

    impl Wrapping {
        fn resize(&self, width: u16) {
            self.0.store(width, Ordering::Relaxed);
            let mut state = self.1.lock().unwrap();
            let (rows, row) = &mut *state;
            let mut wrapped = Vec::new();
            for (at, text) in rows.iter().enumerate() {
                let chars: Vec<char> = text.trim_end().chars().collect();
                let parts = chars.chunks(width.into()).map(|part| part.iter().collect::<String>());
                wrapped.extend(parts);
                if chars.is_empty() {
                    wrapped.push(String::new());
                }
                if at == *row {
                    *row = wrapped.len() - 1;
                    break;
                }
            }
            *rows = wrapped;
        }

        fn rows(&self) -> Vec<String> {
            self.1.lock().unwrap().0.iter().map(|row| row.trim_end().to_owned()).collect()
        }
    }

    impl TermLike for Wrapping {
        fn width(&self) -> u16 {
            self.0.load(Ordering::Relaxed)
        }

        fn move_cursor_up(&self, n: usize) -> io::Result<()> {
            let mut state = self.1.lock().unwrap();
            state.1 -= n;
            Ok(())
        }

        fn move_cursor_down(&self, n: usize) -> io::Result<()> {
            self.1.lock().unwrap().1 += n;
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, s: &str) -> io::Result<()> {
            self.write_str(s)?;
            let mut state = self.1.lock().unwrap();
            state.1 += 1;
            state.0.push(String::new());
            Ok(())
        }

        fn write_str(&self, s: &str) -> io::Result<()> {
            let mut state = self.1.lock().unwrap();
            let (rows, row) = &mut *state;
            match s {
                "\r" => rows[*row].clear(),
                CLEAR_REST => {}
                CLEAR_BELOW => rows.truncate(*row + 1),
                text => rows[*row].push_str(text),
            }
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            let mut state = self.1.lock().unwrap();
            let row = state.1;
            state.0[row].clear();
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_terminal_that_gets_narrower_keeps_no_old_row() {
        let term = Wrapping::default();
        term.0.store(60, Ordering::Relaxed);
        term.1.lock().unwrap().0 = vec!["what was said before".to_owned(), String::new()];
        term.1.lock().unwrap().1 = 1;
        let bar =
            ProgressBar::with_draw_target(None, ProgressDrawTarget::term_like(Box::new(OneLine::new(term.clone()))));
        bar.set_style(ProgressStyle::with_template("{wide_msg}").unwrap());
        let text = "0123456789 0123456789 0123456789 0123456789 0123456789 and more than fits";
        for width in [60, 25, 12, 40, 12] {
            term.resize(width);
            bar.set_message(text);
            bar.tick();
            let rows = term.rows();
            let last = rows.last().unwrap();
            assert!(text.starts_with(last) && last.len() <= width.into(), "{width}: {rows:?}");
            assert_eq!(rows.concat().matches("01234").count(), last.matches("01234").count(), "{width}: {rows:?}");
        }
        bar.finish_and_clear();
        assert_eq!(term.rows().concat(), "what was said before");
    }
}
