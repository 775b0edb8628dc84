//! How far a sync is, while it goes on: `cargo run -p multifeed --example progress`.

use multifeed::{Multifeed, Options, Replicate, Role, SyncEvent};
use tokio::io::duplex;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Syncs so many blocks between two multifeeds, and returns what the receiving side saw on the way: blocks received, and missing.
pub async fn watch(blocks: usize) -> Result<Vec<[u64; 2]>> {
    let (ann, bob) = (Multifeed::in_memory(Options::default()).await?, Multifeed::in_memory(Options::default()).await?);
    ann.writer("local").await?.append_batch((0..blocks).map(|index| format!("block {index}"))).await?;
    let (here, there) = duplex(4 << 10);
    let serves = ann.replicate(here, Role::Responder, Replicate::default());
    let mut sync = bob.replicate(there, Role::Initiator, Replicate::default());
    let mut seen = Vec::new();
    while let Some(event) = sync.next().await {
        match event {
            SyncEvent::Feed { key, name } => println!("a feed that is new here: {name}, {key}"),
            SyncEvent::Progress(state) => seen.push([state.moved.blocks_received, state.missing_here]),
            _ => {}
        }
    }
    sync.finish().await?;
    serves.finish().await?;
    Ok(seen)
}

#[tokio::main]
async fn main() -> Result<()> {
    for [received, missing] in watch(10_000).await? {
        println!("{received} blocks received, {missing} missing");
    }
    Ok(())
}
