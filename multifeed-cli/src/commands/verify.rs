//! `multifeed verify`: every block and signature of the store, checked again.

use multifeed_tokio::{Feed, Multifeed, Options};

use super::{close, open_existing};
use crate::args::Global;
use crate::error::{CliError, code};
use crate::output::{Event, Output, Unit, count};
use crate::stop::Stop;

pub(super) async fn run(global: &Global, options: Options, mut output: Output) -> Result<(), CliError> {
    let Some(multi) = open_existing(global, options).await? else {
        return output.say(&format!("nothing to verify: there is no store at {}", global.store.display()));
    };
    let mut stop = Stop::listen()?;
    output.start_bar(Unit::Blocks);
    let result = tokio::select! {
        result = verify(&multi, &output) => result,
        signal = stop.wait() => Err(CliError::new(code::INTERRUPTED, "interrupted").with_exit(signal.exit())),
    };
    output.end_bar();
    close(&multi, result).await
}

async fn verify(multi: &Multifeed, output: &Output) -> Result<(), CliError> {
    let feeds = multi.feeds();
    let total = feeds.iter().map(Feed::downloaded).sum();
    let (mut done, mut damaged) = (0, 0);
    for problem in multi.problems() {
        damaged += 1;
        output.print(|| format!("damaged: {problem}"), &Event::DamagedFolder { message: &problem })?;
    }
    for feed in &feeds {
        let (key, name) = (feed.key().to_string(), feed.name());
        let mut verification = feed.verify();
        let mut blocks = 0;
        let failure = loop {
            match verification.next().await {
                Ok(Some(verified)) => blocks = verified.blocks,
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
            output.set_bar(Unit::Blocks, done + blocks, total);
        };
        done += feed.downloaded();
        match failure {
            None => {
                let people = || format!("{key}  {name}: {} and their signatures are sound", count(blocks, "block"));
                output.print(people, &Event::Verified { key: key.clone(), name, blocks })?;
            }
            Some(error) => {
                damaged += 1;
                let message = error.to_string();
                let people = || format!("{key}  {name}: damaged: {message}");
                output.print(people, &Event::Damaged { key: key.clone(), name, block: None, message: &message })?;
            }
        }
    }
    match damaged {
        0 => Ok(()),
        _ => Err(CliError::new(
            code::DAMAGED,
            format!("{} of this store {} damaged", count(damaged, "feed"), if damaged == 1 { "is" } else { "are" }),
        )),
    }
}
