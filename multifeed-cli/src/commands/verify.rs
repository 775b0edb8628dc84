//! `multifeed verify`: every block and signature of the store, checked again.

use std::collections::HashSet;

use multifeed_tokio::{Error, Feed, FeedKey, Multifeed, Options, StoreError};

use super::opening::{close, open_existing};
use super::reading::{self, Reading, close_read, open_to_read};
use crate::args::{Global, Verify};
use crate::error::{CliError, code};
use crate::output::{Event, Output, Unit, count, one_line};
use crate::problems::print_each;
use crate::stop::Stop;

/// Findings of a feed that are kept to be looked for again; beyond that the feed is not read further.
const MOST_KEPT: usize = 100_000;

pub(super) async fn run(args: &Verify, global: &Global, options: Options, mut output: Output) -> Result<(), CliError> {
    if args.rebuild_list
        && let Some(multi) = open_existing(global, options.clone(), &output).await?
    {
        let result = rebuild_list(&multi, &output).await;
        close(&multi, result, &output).await?;
    }
    if args.repair
        && let Some(multi) = open_existing(global, options.clone(), &output).await?
    {
        let result = repair(&multi, &output).await;
        close(&multi, result, &output).await?;
    }
    let Some(mut reading) = open_to_read(global, options.clone(), &output).await? else {
        let message = format!("nothing to verify: there is no store at {}", global.store.display());
        return Err(CliError::new(code::NO_STORE, message));
    };
    let mut stop = Stop::listen()?;
    output.start_bar(Unit::Blocks);
    let again = async |reading: &Reading| reading.again(global, options.clone(), &output).await;
    let result = tokio::select! {
        result = verify(&mut reading, again, &output) => result,
        signal = stop.wait() => Err(CliError::new(code::INTERRUPTED, "interrupted").with_exit(signal.exit())),
    };
    output.end_bar();
    close_read(&reading.multi, result, &output).await
}

/// Of a store that this process has open.
pub(super) async fn of_open(multi: &Multifeed, args: &Verify, output: &Output) -> Result<(), CliError> {
    if args.rebuild_list {
        rebuild_list(multi, output).await?;
    }
    if args.repair {
        repair(multi, output).await?;
    }
    // A block that was being changed is looked at again.
    let again = async |reading: &Reading| Ok(Reading::of_open(&reading.multi));
    verify(&mut Reading::of_open(multi), again, output).await
}

/// Makes a list of feeds anew that is lost for good.
async fn rebuild_list(multi: &Multifeed, output: &Output) -> Result<(), CliError> {
    match multi.rebuild_list().await? {
        Some(feeds) => output.print(
            || format!("the list of feeds was made anew: it has {}", count(feeds as u64, "feed")),
            &Event::ListRebuilt { feeds: feeds as u64 },
        ),
        None => output.say("nothing is wrong with the list of feeds"),
    }
}

/// Makes again what the rest proves, and gives up what is damaged, so that the next session fetches it. A feed that nothing can be changed of is left as
/// it is: checking the store names it.
async fn repair(multi: &Multifeed, output: &Output) -> Result<(), CliError> {
    for feed in multi.feeds() {
        let done = match feed.repair().await {
            Err(Error::Store(error)) => {
                output.warn(&format!("feed {}: nothing of it was repaired: {error}", feed.key()));
                continue;
            }
            done => done?,
        };
        let (key, name) = (feed.key().to_string(), feed.name());
        let of_feed = format!("of feed {key}, named {}", one_line(&name));
        if let Some(what) = listed(0, done.nodes_made, done.signatures_made) {
            let (nodes, signatures) = (done.nodes_made, done.signatures_made);
            let event = Event::MadeAgain { key: key.clone(), name: &name, nodes, signatures };
            output.print(|| format!("made again: {what} {of_feed}"), &event)?;
        }
        if done.folders_joined > 0 {
            let (folders, blocks) = (done.folders_joined, done.joined.iter().map(|run| run.end - run.start).sum());
            let people = || {
                let (folders, blocks) = (count(folders, "folder"), count(blocks, "block"));
                format!("removed: {folders} {of_feed} that stood beside the one in use, which took in {blocks}")
            };
            output.print(people, &Event::FoldersJoined { key: key.clone(), name: &name, folders, blocks })?;
        }
        let blocks: Vec<u64> = done.dropped.into_iter().flatten().collect();
        let (nodes, signatures) = (done.nodes_dropped, done.signatures_dropped);
        if let Some(what) = listed(blocks.len() as u64, nodes, signatures) {
            let people = || match blocks.is_empty() && nodes == 0 {
                true => format!("given up: {what} {of_feed}; the newest signature proves what it did"),
                false => format!("given up: {what} {of_feed}; a sync with a peer that has them brings them back"),
            };
            output.print(
                people,
                &Event::GivenUp { key: key.clone(), name: &name, blocks: blocks.clone(), nodes, signatures },
            )?;
        }
    }
    Ok(())
}

/// So many of each, as far as there are any.
fn listed(blocks: u64, nodes: u64, signatures: u64) -> Option<String> {
    let all = [(blocks, "damaged block"), (nodes, "tree node"), (signatures, "signature")];
    let some: Vec<String> = all.into_iter().filter(|(of, _)| *of > 0).map(|(of, what)| count(of, what)).collect();
    (!some.is_empty()).then(|| some.join(" and "))
}

/// Something that is wrong in a feed.
#[derive(PartialEq, Eq, Hash)]
struct Wrong {
    block: Option<u64>,
    message: String,
}

/// A feed in which something seemed wrong, which another process may have been changing just then.
struct Doubtful {
    key: FeedKey,
    wrong: Vec<Wrong>,
}

async fn verify(
    reading: &mut Reading,
    again: impl AsyncFn(&Reading) -> Result<Reading, CliError>,
    output: &Output,
) -> Result<(), CliError> {
    let feeds = reading.multi.feeds();
    if feeds.is_empty() && reading.problems.is_empty() && reading.multi.is_in_corestore() {
        let message = "nothing to verify: the corestore has no feeds of this root key and namespace (--key, --key-file, --namespace)";
        return Err(CliError::new(code::FEED, message));
    }
    let total = feeds.iter().map(Feed::downloaded).sum();
    let (mut done, mut damaged) = (0, 0);
    let typed = reading.multi.problems();
    let print_problem = |message: &str| {
        let feed = typed.iter().find(|problem| problem.to_string() == message).map(feed_of);
        let (key, name) = feed.unwrap_or_default();
        print(key, name.as_deref(), None, message, output)
    };
    print_each(&reading.problems, print_problem, output)?;
    let (problems, lost) = (reading.problems.len() as u64, reading.lost.clone());
    let is_less = |feed: &Feed| {
        typed.iter().any(|problem| matches!(problem, StoreError::OlderCopy { key, .. } if *key == feed.key()))
    };
    let mut changed = reading.changed.clone();
    let mut doubtful = Vec::new();
    for feed in &feeds {
        let bar = |blocks| output.set_bar(Unit::Blocks, done + blocks, total);
        let (blocks, wrong) = check(feed, bar).await;
        // What is found names the blocks of a writer that are lost.
        if let Some(found) = lost.get(&feed.key()) {
            damaged += 1;
            if !feed.writable() || wrong.is_empty() {
                print_damage(Some(feed), None, &format!("feed {}: {found}", feed.key()), output)?;
            }
        }
        match wrong.is_empty() {
            true if lost.contains_key(&feed.key()) || is_less(feed) => {}
            true => print_sound(feed, blocks, output)?,
            false => doubtful.push(Doubtful { key: feed.key(), wrong }),
        }
        done += feed.downloaded();
    }
    if !doubtful.is_empty() {
        *reading = again(reading).await?;
        for Doubtful { key, wrong: before } in doubtful {
            let feeds = reading.multi.feeds();
            let Some(feed) = feeds.iter().find(|feed| feed.key() == key) else {
                changed.push(format!("feed {key} is gone, or cannot be opened"));
                continue;
            };
            let (blocks, now) = check(feed, |_| ()).await;
            let before: HashSet<Wrong> = before.into_iter().collect();
            let mut sure = now.iter().filter(|wrong| before.contains(wrong)).peekable();
            if sure.peek().is_some() {
                damaged += u64::from(!lost.contains_key(&key));
                sure.try_for_each(|wrong| print_damage(Some(feed), wrong.block, &wrong.message, output))?;
            } else if let Some(first) = now.into_iter().next() {
                changed.push(first.message);
            } else if !lost.contains_key(&key) {
                print_sound(feed, blocks, output)?;
            }
        }
    }
    // A problem need not be one of a feed.
    let found = [(problems, "problem"), (damaged, "damaged feed")].into_iter().filter(|(number, _)| *number > 0);
    let found: Vec<String> = found.map(|(number, what)| count(number, what)).collect();
    match (found.is_empty(), changed.first()) {
        (true, None) => Ok(()),
        (true, Some(seen)) => Err(reading::changed(seen)),
        (false, _) => {
            Err(CliError::new(code::DAMAGED, format!("not all of this store is sound: {}", found.join(" and "))))
        }
    }
}

/// Checks a feed, and calls `bar` with how many blocks were checked. Returns that, and what is wrong, as far as it is kept.
async fn check(feed: &Feed, bar: impl Fn(u64)) -> (u64, Vec<Wrong>) {
    let mut verification = feed.verify();
    let (mut blocks, mut wrong) = (0, Vec::new());
    loop {
        if wrong.len() >= MOST_KEPT {
            wrong.truncate(MOST_KEPT);
            let message = format!("feed {}: it was not read further, as so much of it is damaged", feed.key());
            wrong.push(Wrong { block: None, message });
            break;
        }
        match verification.next().await {
            Ok(Some(step)) => {
                let found = step.findings.iter();
                wrong.extend(found.map(|it| Wrong { block: Some(it.block()), message: it.to_string() }));
                blocks += step.blocks;
                bar(blocks);
            }
            Ok(None) => break,
            Err(error) => {
                wrong.push(Wrong { block: None, message: format!("feed {}: {error}", feed.key()) });
                break;
            }
        }
    }
    (blocks, wrong)
}

fn print_damage(feed: Option<&Feed>, block: Option<u64>, message: &str, output: &Output) -> Result<(), CliError> {
    let (key, name) = (feed.map(|feed| feed.key().to_string()), feed.map(Feed::name));
    print(key, name.as_deref(), block, message, output)
}

fn print(
    key: Option<String>,
    name: Option<&str>,
    block: Option<u64>,
    message: &str,
    output: &Output,
) -> Result<(), CliError> {
    output.print(|| format!("damaged: {message}"), &Event::Damaged { key, name, block, message })
}

/// The key and the name of the feed whose folder is missing or has less than it had, as far as they are known.
fn feed_of(problem: &StoreError) -> (Option<String>, Option<String>) {
    match problem {
        StoreError::MissingWriter { key, name, .. } => (key.map(|key| key.to_string()), name.clone()),
        StoreError::OlderWriter { key, name, .. } | StoreError::ForkedWriter { key, name, .. } => {
            (Some(key.to_string()), name.clone())
        }
        StoreError::CoreMissing { key, name, .. } | StoreError::OfCore { key, name, .. } => {
            (Some(key.to_string()), name.clone())
        }
        StoreError::OlderCopy { key, .. } => (Some(key.to_string()), None),
        _ => (None, None),
    }
}

fn print_sound(feed: &Feed, blocks: u64, output: &Output) -> Result<(), CliError> {
    let (key, name) = (feed.key().to_string(), feed.name());
    let sound = count(blocks, "block");
    let people = || format!("sound: feed {key}, named {}: {sound} and their signatures", one_line(&name));
    output.print(people, &Event::Verified { key: key.clone(), name: &name, blocks })
}
