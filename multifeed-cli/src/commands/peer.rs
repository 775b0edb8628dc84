//! One sync, followed to its end: what it reports, and how a signal ends it.

use std::time::Duration;

use multifeed_tokio::{Sync, SyncEvent};
use tokio::time::{Instant, sleep_until};

use crate::error::{CliError, code};
use crate::output::{Event, Hole, Moved, Output, Unit, count};
use crate::stop::Stop;

/// How often progress is told of, at the most. What came between is not lost: the newest is told at the end.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Prints what happens in a sync until it is over. `who` stands before lines for people, where there are several peers.
///
/// A signal ends the sync cleanly; one that is not live has then failed, since it was not done.
///
/// # Errors
///
/// Why the sync failed, or what was wrong with stdout: the sync is then ended too.
pub(super) async fn follow(
    mut sync: Sync,
    live: bool,
    who: &str,
    stop: &mut Stop,
    output: &Output,
) -> Result<(), CliError> {
    let mut stopped = None;
    let mut waiting: Option<Moved> = None;
    let mut next_progress = Instant::now();
    loop {
        tokio::select! {
            event = sync.next() => match event {
                Some(SyncEvent::Progress(progress)) => {
                    let moved = Moved::from(progress);
                    let done = moved.blocks_received + moved.blocks_sent;
                    output.set_bar(Unit::Blocks, done, if moved.missing > 0 { done + moved.missing } else { 0 });
                    waiting = Some(moved);
                }
                Some(event) => print(&event, who, output)?,
                None => break,
            },
            () = sleep_until(next_progress), if waiting.is_some() => {
                if let Some(moved) = waiting.take() {
                    output.print_object(&Event::Progress(moved))?;
                }
                next_progress = Instant::now() + PROGRESS_EVERY;
            }
            signal = stop.wait(), if stopped.is_none() => {
                stopped = Some(signal);
                sync.close();
            }
        }
    }
    if let Some(moved) = waiting {
        output.print_object(&Event::Progress(moved))?;
    }

    let totals = sync.finish().await?;
    let moved = Moved::from(&totals);
    let holes = totals.moved.holes.iter().map(|(key, blocks)| Hole { key: key.to_string(), blocks: *blocks }).collect();
    let early = totals.moved.missing;
    let state = if early == 0 { "in sync" } else { "ended early" };
    output.print(|| format!("{who}{state}: {}", moved.text()), &Event::Closed { moved, holes })?;
    if early > 0 {
        output.say(&format!("{who}the session ended before {} came that the peer has", count(early, "block")))?;
    }
    for (key, blocks) in &totals.moved.holes {
        output.say(&format!(
            "{who}feed {key}: the peer does not have {} of it either",
            count(*blocks, "missing block")
        ))?;
    }
    match stopped {
        Some(signal) if !live => {
            Err(CliError::new(code::INTERRUPTED, "interrupted before it was done").with_exit(signal.exit()))
        }
        _ => Ok(()),
    }
}

fn print(event: &SyncEvent, who: &str, output: &Output) -> Result<(), CliError> {
    match event {
        SyncEvent::Connected { .. } => output.print(|| format!("{who}connected"), &Event::Connected),
        SyncEvent::Feed { key, name } => {
            let key = key.to_string();
            output.print(|| format!("{who}new feed {key}, named {name}"), &Event::Feed { key: key.clone(), name })
        }
        SyncEvent::RemoteFeeds { keys } => {
            let feeds: Vec<String> = keys.iter().map(ToString::to_string).collect();
            let people = || format!("{who}the peer shares {}", count(feeds.len() as u64, "feed"));
            output.print(people, &Event::RemoteFeeds { feeds: feeds.clone() })
        }
        SyncEvent::TooLarge { key, index, size } => {
            let people = || format!("{who}feed {key}: block {index} has {size} bytes, too many to be sent to any peer");
            output.print(people, &Event::TooLarge { key: key.to_string(), block: *index, bytes: *size })
        }
        other => {
            tracing::debug!("{who}{other:?}");
            Ok(())
        }
    }
}
