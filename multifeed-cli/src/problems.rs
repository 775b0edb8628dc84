//! The problems of a store that a command prints when it opens it, and a sync when it finds them: no more than a person can read. A forged
//! store can have any number of problems, of which each takes a line.

use crate::error::CliError;
use crate::output::{Event, Output, count};

/// Problems of one store that a command, or a sync, says one by one. Of those beyond it says how many there are.
const MOST_SAID: usize = 100;

/// Warns of each on stderr, up to the bound.
pub(crate) fn warn_of(problems: &[String], output: &Output) {
    let (said, more) = said(problems);
    said.iter().for_each(|problem| output.warn(problem));
    if more > 0 {
        output.warn_object(&more_text(more), &Event::MoreProblems { problems: more });
    }
}

/// Prints each as a result of the command, up to the bound.
pub(crate) fn print_each(
    problems: &[String],
    mut print: impl FnMut(&str) -> Result<(), CliError>,
    output: &Output,
) -> Result<(), CliError> {
    let (said, more) = said(problems);
    said.iter().try_for_each(|problem| print(problem))?;
    if more == 0 {
        return Ok(());
    }
    output.print(|| more_text(more), &Event::MoreProblems { problems: more })
}

/// All in one line, up to the bound.
pub(crate) fn in_a_line(problems: &[String]) -> String {
    let (said, more) = said(problems);
    let more = (more > 0).then(|| more_text(more));
    said.iter().map(String::as_str).chain(more.as_deref()).collect::<Vec<_>>().join("; ")
}

/// The problems that show during one sync.
#[derive(Default)]
pub(crate) struct Found {
    said: usize,
    more: u64,
}

impl Found {
    /// Whether to print one more. If not, it is counted.
    pub(crate) fn may_say(&mut self) -> bool {
        let may = self.said < MOST_SAID;
        self.said += usize::from(may);
        self.more += u64::from(!may);
        may
    }

    /// Says at the end of it how many there were beyond those that were said.
    pub(crate) fn end(&self, who: &str, output: &Output) -> Result<(), CliError> {
        if self.more == 0 {
            return Ok(());
        }
        output.print(|| format!("{who}{}", more_text(self.more)), &Event::MoreProblems { problems: self.more })
    }
}

fn said(problems: &[String]) -> (&[String], u64) {
    let (said, more) = problems.split_at(problems.len().min(MOST_SAID));
    (said, more.len() as u64)
}

fn more_text(more: u64) -> String {
    format!("and {}", count(more, "more problem"))
}
