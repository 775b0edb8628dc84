//! `multifeed verify`: every block and signature of the store, checked again.

use multifeed_tokio::{Feed, Multifeed, Options};

use super::reading::{Reading, beside, close_read, open_to_read};
use crate::args::Global;
use crate::error::{CliError, code};
use crate::output::{Event, Output, Unit, count, one_line};
use crate::stop::Stop;

pub(super) async fn run(global: &Global, options: Options, mut output: Output) -> Result<(), CliError> {
    let Some(Reading { multi, beside: is_beside }) = open_to_read(global, options, &output).await? else {
        let message = format!("nothing to verify: there is no store at {}", global.store.display());
        return Err(CliError::new(code::NO_STORE, message));
    };
    let mut stop = Stop::listen()?;
    output.start_bar(Unit::Blocks);
    let result = tokio::select! {
        result = verify(&multi, &output) => result,
        signal = stop.wait() => Err(CliError::new(code::INTERRUPTED, "interrupted").with_exit(signal.exit())),
    };
    output.end_bar();
    close_read(&multi, beside(is_beside, result), &output).await
}

async fn verify(multi: &Multifeed, output: &Output) -> Result<(), CliError> {
    let feeds = multi.feeds();
    let total = feeds.iter().map(Feed::downloaded).sum();
    let (mut done, mut damaged) = (0, 0);
    for problem in multi.problems() {
        damaged += 1;
        let message = problem.to_string();
        let object = Event::Damaged { key: None, name: None, block: None, message: &message };
        output.print(|| format!("damaged: {message}"), &object)?;
    }
    for feed in &feeds {
        let found = verify_feed(feed, done, total, output).await?;
        damaged += u64::from(found > 0);
        done += feed.downloaded();
    }
    match damaged {
        0 => Ok(()),
        _ => Err(CliError::new(
            code::DAMAGED,
            format!("{} of this store {} damaged", count(damaged, "feed"), if damaged == 1 { "is" } else { "are" }),
        )),
    }
}

/// Checks one feed, and prints what is wrong with it: how many things. `done` blocks of `total` were checked before.
async fn verify_feed(feed: &Feed, done: u64, total: u64, output: &Output) -> Result<u64, CliError> {
    let (key, name) = (feed.key().to_string(), feed.name());
    let tell = |block, message: &str| {
        let people = || format!("damaged: {message}");
        output.print(people, &Event::Damaged { key: Some(key.clone()), name: Some(&name), block, message })
    };
    let mut verification = feed.verify();
    let (mut blocks, mut found) = (0, 0);
    loop {
        let step = match verification.next().await {
            Ok(Some(step)) => step,
            Ok(None) => break,
            Err(error) => {
                tell(None, &format!("feed {key}: {error}"))?;
                return Ok(found + 1);
            }
        };
        for finding in &step.findings {
            found += 1;
            tell(Some(finding.block()), &finding.to_string())?;
        }
        blocks += step.blocks;
        output.set_bar(Unit::Blocks, done + blocks, total);
    }
    if found == 0 {
        let sound = count(blocks, "block");
        let people = || format!("sound: feed {key}, named {}: {sound} and their signatures", one_line(&name));
        output.print(people, &Event::Verified { key: key.clone(), name: &name, blocks })?;
    }
    Ok(found)
}
