//! What is offered, fetched and stored is the application's choice: `cargo run -p multifeed --example policy`.

use multifeed::{FeedKey, Multifeed, Options, PeerLimits, Policy, Remote, Replicate, Role};
use tokio::io::duplex;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Offers nothing that is named as a draft, fetches from friends alone, and no more than a megabyte of each connection.
#[derive(Debug)]
struct Friends(Vec<FeedKey>);

impl Policy for Friends {
    fn offers(&self, _: &FeedKey, writer: Option<&str>, _: &Remote) -> bool {
        writer.is_none_or(|name| !name.starts_with("draft"))
    }

    fn wants(&self, key: &FeedKey, _: &Remote) -> bool {
        self.0.contains(key)
    }

    fn limits(&self, _: &Remote) -> Option<PeerLimits> {
        Some(PeerLimits { bytes: 1 << 20, ..PeerLimits::default() })
    }
}

/// Ann writes a letter and a draft, and a stranger writes too. Returns the keys that Bob, whose friend Ann is, has in the end, with Ann's letter first.
pub async fn friends() -> Result<(FeedKey, Vec<FeedKey>)> {
    let ann = Multifeed::in_memory(Options::default().with_policy(Friends(Vec::new()))).await?;
    let letter = ann.writer("letter").await?;
    letter.append("Dear Bob").await?;
    ann.writer("draft of another").await?.append("Dear …").await?;
    let stranger = Multifeed::in_memory(Options::default()).await?;
    stranger.writer("advertisement").await?.append("Buy!").await?;

    let bob = Multifeed::in_memory(Options::default().with_policy(Friends(vec![letter.key()]))).await?;
    for other in [&ann, &stranger] {
        let (here, there) = duplex(64 << 10);
        let bobs = bob.replicate(here, Role::Initiator, Replicate::default());
        let theirs = other.replicate(there, Role::Responder, Replicate::default());
        bobs.finish().await?;
        theirs.finish().await?;
    }
    Ok((letter.key(), bob.feeds().iter().map(multifeed::Feed::key).collect()))
}

#[tokio::main]
async fn main() -> Result<()> {
    let (letter, feeds) = friends().await?;
    println!("Bob has {} feed, Ann's letter: {}", feeds.len(), feeds == [letter]);
    Ok(())
}
