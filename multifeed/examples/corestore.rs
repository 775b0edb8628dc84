//! A corestore with two multifeeds, which a networker syncs over one connection: `node interop/example-corestore.js 7000 /tmp/js`, then
//! `cargo run -p multifeed --example corestore -- 127.0.0.1:7000 ./db`.

use multifeed::{Corestore, FeedKey, Multifeed, Namespace, Networker, NetworkerOptions, Options, Replicate};
use tokio::net::TcpStream;

/// The root keys of the two, which the JS twin has too.
const NOTES: FeedKey = FeedKey::new([1; 32]);
const CHAT: FeedKey = FeedKey::new([2; 32]);

/// Writes to both multifeeds of a folder, and prints what a peer at an address has in them.
pub async fn corestore(address: &str, folder: &str) -> Result<(), Box<dyn std::error::Error>> {
    let store = Corestore::open(folder, Options::default()).await?;
    let networker = Networker::new(NetworkerOptions::default())?;
    let mut multifeeds = Vec::new();
    for (root_key, block) in [(NOTES, "a note from Rust"), (CHAT, "hello from Rust")] {
        let multi = Multifeed::in_corestore(&store, &Namespace::root(), root_key).await?;
        multi.writer("local").await?.append(block).await?;
        networker.join(&multi, Replicate::live())?;
        multifeeds.push((multi.events(), multi));
    }
    let address = address.to_owned();
    networker.dial(move || TcpStream::connect(address.clone()))?; // and again, if it breaks

    for (events, multi) in &mut multifeeds {
        while multi.feeds().iter().all(|feed| feed.writable() || feed.is_empty()) {
            events.next().await; // a feed, or more of one
        }
        let feeds = multi.feeds();
        let theirs = feeds.iter().find(|feed| !feed.writable()).ok_or("no feed of the peer's")?;
        println!("{}", String::from_utf8_lossy(&theirs.fetch(0).await?));
        multi.in_sync().await?;
    }
    networker.close().await;
    store.close().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, address, folder] = args.as_slice() else { return Err("usage: corestore HOST:PORT DIR".into()) };
    corestore(address, folder).await
}
