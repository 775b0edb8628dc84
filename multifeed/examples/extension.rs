//! Messages of an application's own beside the feeds: `cargo run -p multifeed --example extension`.

use multifeed::{Multifeed, Options, Replicate, Role};
use tokio::io::{AsyncRead, AsyncWrite, duplex};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Sends who is here to the other end, and returns who is there. Messages are not stored, and not signed.
pub async fn greet<S>(socket: S, role: Role, name: &str) -> Result<String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let multi = Multifeed::in_memory(Options::default()).await?;
    let sync = multi.replicate(socket, role, Replicate::live());
    let mut presence = sync.register_extension("presence")?;
    presence.send(name).await?;
    let there = presence.next().await.ok_or("the other side does not speak it")?;
    sync.close(); // what was sent goes out first
    sync.finish().await?;
    Ok(String::from_utf8_lossy(&there).into_owned())
}

#[tokio::main]
async fn main() -> Result<()> {
    let (ann, bob) = duplex(64 << 10);
    let (bob, ann) = tokio::join!(greet(ann, Role::Initiator, "ann"), greet(bob, Role::Responder, "bob"));
    println!("{} met {}", ann?, bob?);
    Ok(())
}
