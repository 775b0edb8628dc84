//! The README's example: `cargo run -p multifeed --example sync -- 127.0.0.1:7000 ./db`, with `multifeed serve 127.0.0.1:7000`.

use multifeed::{Multifeed, Options, Replicate, Role, SyncEvent};
use tokio::net::TcpStream;

/// Appends a block to our own feed in `folder`, then syncs with the peer listening at `address`.
pub async fn sync(address: &str, folder: &str) -> Result<(), Box<dyn std::error::Error>> {
    let multi = Multifeed::open(folder, Options::default()).await?; // the public default key: see Options::new
    let writer = multi.writer("local").await?; // our own `Feed` of that name, created if there is none
    writer.append("foo").await?;

    let stream = TcpStream::connect(address).await?;
    let mut sync = multi.replicate(stream, Role::Initiator, Replicate::default());
    while let Some(event) = sync.next().await {
        if let SyncEvent::Feed { key, .. } = event {
            println!("new feed: {key}");
        }
    }
    let totals = sync.finish().await?; // Ok means that both sides now have the same blocks
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
