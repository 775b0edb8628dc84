//! The README's example: `cargo run -p multifeed --example sync -- 127.0.0.1:7000 ./db`, with `multifeed serve 127.0.0.1:7000`.

use multifeed::{Multifeed, Options, Replicate, Role, SyncEvent};
use tokio::net::TcpStream;

/// Appends a block to a folder's writer, and syncs the folder with the peer that listens at an address.
pub async fn sync(address: &str, folder: &str) -> Result<(), Box<dyn std::error::Error>> {
    let multi = Multifeed::open(folder, Options::default()).await?;
    let writer = multi.writer("local").await?; // found, or made
    writer.append("foo").await?;

    let stream = TcpStream::connect(address).await?;
    let mut sync = multi.replicate(stream, Role::Initiator, Replicate::default());
    while let Some(event) = sync.next().await {
        if let SyncEvent::Feed { key, .. } = event {
            println!("a feed that is new here: {key}");
        }
    }
    let totals = sync.finish().await?; // both sides hold the same, or a typed error
    println!("{} blocks received", totals.moved.blocks_received);

    for feed in multi.feeds() {
        println!("{} {}", feed.key(), feed.len());
        if let Some(block) = feed.head().await? {
            println!("{}", String::from_utf8_lossy(&block));
        }
    }
    multi.close().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, address, folder] = args.as_slice() else { return Err("usage: sync HOST:PORT DIR".into()) };
    sync(address, folder).await
}
