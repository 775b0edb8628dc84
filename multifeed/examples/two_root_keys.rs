//! Two multifeeds, each with its root key, over one connection: `cargo run -p multifeed --example two_root_keys`.

use multifeed::{FeedKey, Multifeed, Options, Replicate, Role, StreamOptions, open_stream};
use tokio::io::{AsyncRead, AsyncWrite, duplex};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Syncs notes and chat with the peer at the other end, and returns how many feeds each has then.
pub async fn sync_both<S>(socket: S, role: Role, name: &str) -> Result<[usize; 2]>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = open_stream(socket, role, StreamOptions::default());
    let mut multifeeds = Vec::new();
    for root_key in [[1; 32], [2; 32]] {
        let multi = Multifeed::in_memory(Options::new(FeedKey::new(root_key))).await?;
        multi.writer("local").await?.append(format!("hello from {name}")).await?;
        let sync = multi.replicate_over(&stream, Replicate::default());
        multifeeds.push((multi, sync));
    }
    let mut feeds = [0; 2];
    for (count, (multi, sync)) in feeds.iter_mut().zip(multifeeds) {
        sync.finish().await?; // each has an end of its own
        *count = multi.feeds().len();
    }
    stream.finish().await?;
    Ok(feeds)
}

#[tokio::main]
async fn main() -> Result<()> {
    let (ann, bob) = duplex(64 << 10);
    let both = tokio::join!(sync_both(ann, Role::Initiator, "ann"), sync_both(bob, Role::Responder, "bob"));
    println!("feeds of notes and chat: {:?} here, {:?} there", both.0?, both.1?);
    Ok(())
}
