//! `multifeed conflicts`: the forks that are on record.

use multifeed_tokio::{Multifeed, Options};

use super::opening::{close, open_existing};
use super::reading::{close_read, open_to_read};
use crate::args::{Conflicts, Global};
use crate::error::{CliError, code};
use crate::output::{ConflictLine, Output, count, one_line};

pub(super) async fn run(args: &Conflicts, global: &Global, options: Options, output: &Output) -> Result<(), CliError> {
    let no_store = || CliError::new(code::NO_STORE, format!("there is no store at {}", global.store.display()));
    if args.clear {
        let multi = open_existing(global, options, output).await?.ok_or_else(no_store)?;
        let result = of_open(&multi, args, output).await;
        return close(&multi, result, output).await;
    }
    let multi = open_to_read(global, options, output).await?.ok_or_else(no_store)?.multi;
    let result = of_open(&multi, args, output).await;
    close_read(&multi, result, output).await
}

/// Of a store that is open.
pub(super) async fn of_open(multi: &Multifeed, args: &Conflicts, output: &Output) -> Result<(), CliError> {
    let kept = multi.conflicts().await?;
    if kept.is_empty() {
        output.say("no forks are on record")?;
    }
    for conflict in &kept {
        let name = multi.feed(conflict.key).map(|feed| feed.name());
        let lengths = [conflict.held_length, conflict.length];
        let line = ConflictLine { key: conflict.key.to_string(), name, lengths };
        let people = || {
            let name = match &line.name {
                Some(name) => format!("named {}", one_line(name)),
                None => "which is not here any more".to_owned(),
            };
            let [here, there] = lengths;
            format!(
                "feed {}, {name}: two histories, both signed by its writer: one of {} here, one of {} at a peer",
                line.key,
                count(here, "block"),
                count(there, "block")
            )
        };
        output.print(people, &line)?;
    }
    if args.clear {
        multi.clear_conflicts().await?;
        if !kept.is_empty() {
            output.say(&format!("forgotten: {}", count(kept.len() as u64, "fork")))?;
        }
    }
    Ok(())
}
