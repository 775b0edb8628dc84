//! A chat between any number of nodes, each in a terminal: `cargo run -p multifeed --example chat -- ann ./ann 7001`, then
//! `… -- bob ./bob 7002 127.0.0.1:7001`. What is typed while nobody is connected arrives later, also through others.

use std::collections::VecDeque;

use multifeed::{Feed, Multifeed, Networker, NetworkerOptions, Options, ReadOptions, Replicate, Role};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Has a node say lines, and prints what each writer says, until there are no more lines.
pub async fn chat(
    name: &str,
    folder: &str,
    listener: TcpListener,
    peers: VecDeque<String>,
    mut lines: mpsc::Receiver<String>,
    said: mpsc::Sender<String>,
) -> Result<()> {
    let multi = Multifeed::open(folder, Options::default()).await?;
    let networker = Networker::new(NetworkerOptions::default())?;
    networker.join(&multi, Replicate::live())?;
    for peer in peers {
        networker.dial(move || TcpStream::connect(peer.clone()))?; // retries until connected, and reconnects when the connection drops
    }
    let accepting = networker.clone();
    let accepts = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            drop(accepting.connect(socket, Role::Responder));
        }
    });
    let mut feeds = multi.all_feeds();
    let reads = tokio::spawn(async move {
        while let Some(feed) = feeds.next().await {
            tokio::spawn(print_all(feed, said.clone()));
        }
    });

    let writer = multi.writer("chat").await?;
    while let Some(line) = lines.recv().await {
        writer.append(format!("{name}: {line}")).await?;
    }
    networker.close().await;
    accepts.abort();
    multi.close().await?; // ends the reads
    reads.await?;
    Ok(())
}

/// Prints a feed's blocks, and those to come.
async fn print_all(feed: Feed, said: mpsc::Sender<String>) {
    let mut blocks = feed.stream(ReadOptions::live());
    while let Some(Ok(block)) = blocks.next().await {
        if said.send(String::from_utf8_lossy(&block).into_owned()).await.is_err() {
            break;
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut args: VecDeque<String> = std::env::args().skip(1).collect();
    let (Some(name), Some(folder), Some(port)) = (args.pop_front(), args.pop_front(), args.pop_front()) else {
        return Err("usage: chat NAME FOLDER PORT [HOST:PORT…]".into());
    };
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let ((to_chat, typed), (said, mut shown)) = (mpsc::channel(1), mpsc::channel(1));
    tokio::spawn(async move {
        let mut stdin = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(line)) = stdin.next_line().await {
            if to_chat.send(line).await.is_err() {
                break;
            }
        }
    });
    tokio::spawn(async move {
        while let Some(line) = shown.recv().await {
            println!("{line}");
        }
    });
    chat(&name, &folder, listener, args, typed, said).await
}
