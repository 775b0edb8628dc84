//! A corestore with a multifeed that finds its peers by hyperswarm's DHT, JS ones too: `multifeed testnet`, which says HOST:PORT, `node interop/example-swarm.js
//! HOST:PORT /tmp/js`, and `cargo run -p multifeed-swarm --features hyperswarm --example swarm -- HOST:PORT ./db`.

use std::sync::Arc;

use multifeed_swarm::{Hyperswarm, HyperswarmOptions, Mode, Swarm, SwarmOptions};
use multifeed_tokio::{Corestore, FeedKey, Multifeed, Namespace, Networker, NetworkerOptions, Options, Replicate};

/// The root key, which the JS twin has too. Peers look for each other by its discovery key.
const CHAT: FeedKey = FeedKey::new([2; 32]);

/// Writes to a multifeed of a folder, and prints what the first peer that is found has in it.
pub async fn swarm(bootstrap: &str, folder: &str) -> Result<(), Box<dyn std::error::Error>> {
    let store = Corestore::open(folder, Options::default()).await?;
    let multi = Multifeed::in_corestore(&store, &Namespace::root(), CHAT).await?;
    multi.writer("local").await?.append("hello from Rust").await?;

    let networker = Networker::new(NetworkerOptions::default())?;
    let mut options = HyperswarmOptions::default(); // the public network, if nothing is changed
    (options.bootstrap, options.loopback_only) = (vec![bootstrap.to_owned()], true);
    let dht = Hyperswarm::start(options).await?;
    let swarm = Swarm::new(networker, vec![Arc::new(dht)], SwarmOptions::default());
    let mut events = multi.events();
    swarm.join(&multi, Replicate::live(), Mode::Both)?;

    while multi.feeds().iter().all(|feed| feed.writable() || feed.is_empty()) {
        events.next().await; // a feed, or more of one
    }
    let feeds = multi.feeds();
    let theirs = feeds.iter().find(|feed| !feed.writable()).ok_or("no feed of a peer's")?;
    println!("{}", String::from_utf8_lossy(&theirs.fetch(0).await?));
    multi.in_sync().await?;
    swarm.close().await; // says goodbye, and withdraws the topic
    store.close().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, bootstrap, folder] = args.as_slice() else { return Err("usage: swarm HOST:PORT DIR".into()) };
    swarm(bootstrap, folder).await
}
