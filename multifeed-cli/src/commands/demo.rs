//! `multifeed demo`: two stores with a writer each, synced over a loopback socket.

use std::path::Path;

use multifeed_tokio::{Feed, Multifeed, Options, Replicate, Role};
use tokio::net::{TcpListener, TcpStream};

use super::feed_line;
use crate::error::{CliError, code};
use crate::output::{FeedLine, Moved, Output, table};

/// The two sides, with what each writes.
const SIDES: [(&str, &[&str]); 2] = [
    ("alice", &["Hello Bob, this is Alice.", "Feeds only grow, and only I can extend mine."]),
    ("bob", &["Hi Alice!", "Now you hold my feed,", "and I hold yours."]),
];

pub(super) async fn run(options: Options, output: &Output) -> Result<(), CliError> {
    let folder =
        tempfile::tempdir().map_err(|error| CliError::new(code::IO, format!("no temporary folder: {error}")))?;
    let [alice, bob] = [0, 1].map(|side| make(folder.path(), SIDES[side], options.clone()));
    let (alice, bob) = (alice.await?, bob.await?);
    output.say("Two stores in a temporary folder, each with one writer's feed:\n")?;
    show(&alice, SIDES[0].0, output).await?;
    show(&bob, SIDES[1].0, output).await?;

    let moved = sync(&alice, &bob).await?;
    output.say(&format!("bob connects to alice over a loopback socket; alice's side counts: {}.\n", moved.text(0)))?;
    output.say("Now both hold both feeds, every block checked against its writer's signature:\n")?;
    show(&alice, SIDES[0].0, output).await?;
    show(&bob, SIDES[1].0, output).await?;
    let in_sync = contents(&alice).await? == contents(&bob).await?;
    alice.close().await?;
    bob.close().await?;
    if !in_sync {
        return Err(CliError::new(code::INTERNAL, "the two stores are not in sync"));
    }
    output.say(
        "The same by hand:\n  multifeed --store alice append notes 'Hello'\n  multifeed --store alice serve \
         127.0.0.1:7000 --once &\n  multifeed --store bob sync 127.0.0.1:7000\n  multifeed --store bob feeds",
    )
}

async fn make(folder: &Path, (name, blocks): (&str, &[&str]), options: Options) -> Result<Multifeed, CliError> {
    let multi = Multifeed::open(folder.join(name), options).await?;
    multi.writer(name).await?.append_batch(blocks).await?;
    Ok(multi)
}

async fn sync(alice: &Multifeed, bob: &Multifeed) -> Result<Moved, CliError> {
    let io = |error| CliError::new(code::LISTEN, format!("the loopback socket failed: {error}"));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(io)?;
    let address = listener.local_addr().map_err(io)?;
    let (accepted, connected) = tokio::try_join!(listener.accept(), TcpStream::connect(address)).map_err(io)?;
    let responder = alice.replicate(accepted.0, Role::Responder, Replicate::default());
    let initiator = bob.replicate(connected, Role::Initiator, Replicate::default());
    let (totals, _) = tokio::try_join!(responder.finish(), initiator.finish())?;
    Ok(Moved::from(&totals.moved))
}

async fn show(multi: &Multifeed, whose: &str, output: &Output) -> Result<(), CliError> {
    let feeds = multi.feeds();
    let lines: Vec<FeedLine> = feeds.iter().map(feed_line).collect();
    if output.is_json() {
        return lines.iter().try_for_each(|line| output.print_object(line));
    }
    output.say(&format!("{whose}'s store\n{}", table(&lines)))?;
    for feed in &feeds {
        for index in 0..feed.len() {
            output.say(&format!("    {} block {index}: {}", short(feed), text(feed, index).await?))?;
        }
    }
    output.say("")
}

async fn contents(multi: &Multifeed) -> Result<Vec<(String, Vec<String>)>, CliError> {
    let mut feeds = Vec::new();
    for feed in multi.feeds() {
        let mut blocks = Vec::new();
        for index in 0..feed.len() {
            blocks.push(text(&feed, index).await?);
        }
        feeds.push((feed.key().to_string(), blocks));
    }
    feeds.sort();
    Ok(feeds)
}

async fn text(feed: &Feed, index: u64) -> Result<String, CliError> {
    let block = feed.get(index).await?;
    Ok(block.map_or_else(|| "not here".to_owned(), |bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

fn short(feed: &Feed) -> String {
    feed.key().to_string().chars().take(8).collect()
}
