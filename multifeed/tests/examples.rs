//! The examples do what they say.
#![allow(missing_docs, unreachable_pub, dead_code)]

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

#[path = "../examples/chat.rs"]
mod chat;
#[path = "../examples/extension.rs"]
mod extension;
#[path = "../examples/policy.rs"]
mod policy;
#[path = "../examples/progress.rs"]
mod progress;
#[path = "../examples/two_root_keys.rs"]
mod two_root_keys;

const PATIENCE: Duration = Duration::from_secs(60);

/// A node of the chat: what it is to say, what it shows, and how it ended.
struct Node {
    says: mpsc::Sender<String>,
    shows: mpsc::Receiver<String>,
    ends: tokio::task::JoinHandle<Result<(), String>>,
    address: String,
    folder: tempfile::TempDir,
}

impl Node {
    async fn start(name: &'static str, peers: &[&str]) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let ((says, typed), (said, shows)) = (mpsc::channel(1), mpsc::channel(10));
        let folder = tempfile::tempdir()?;
        let path = folder.path().to_str().context("not UTF-8")?.to_owned();
        let peers: VecDeque<String> = peers.iter().map(|&peer| peer.to_owned()).collect();
        let ends = tokio::spawn(async move {
            chat::chat(name, &path, listener, peers, typed, said).await.map_err(|error| error.to_string())
        });
        Ok(Self { says, shows, ends, address, folder })
    }

    async fn shows(&mut self, lines: &[&str]) -> Result<()> {
        let mut left: Vec<&str> = lines.to_vec();
        while !left.is_empty() {
            let line = tokio::time::timeout(PATIENCE, self.shows.recv()).await?.context("it ended")?;
            let known = left.iter().position(|&wanted| wanted == line);
            left.remove(known.with_context(|| format!("{line}, not one of {left:?}"))?);
        }
        Ok(())
    }

    async fn end(self) -> Result<()> {
        drop((self.says, self.shows));
        tokio::time::timeout(PATIENCE, self.ends).await??.map_err(|error| anyhow!(error))?;
        ensure!(self.folder.path().join("0").exists());
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_chat_and_what_was_said_before_comes_through_another() -> Result<()> {
    let mut ann = Node::start("ann", &[]).await?;
    ann.says.send("hello".into()).await?;
    ann.shows(&["ann: hello"]).await?;
    let mut bob = Node::start("bob", &[&ann.address]).await?;
    bob.says.send("hi".into()).await?;
    bob.shows(&["ann: hello", "bob: hi"]).await?;
    ann.shows(&["bob: hi"]).await?;
    ann.end().await?;
    let mut eve = Node::start("eve", &[&bob.address]).await?;
    eve.shows(&["ann: hello", "bob: hi"]).await?;
    eve.says.send("late".into()).await?;
    bob.shows(&["eve: late"]).await?;
    bob.end().await?;
    eve.end().await
}

#[tokio::test]
async fn the_short_ones() -> Result<()> {
    let text = |error: Box<dyn std::error::Error>| anyhow!("{error}");
    let sockets = || tokio::io::duplex(64 << 10);
    let (ann, bob) = sockets();
    let roles = [multifeed::Role::Initiator, multifeed::Role::Responder];
    let both =
        tokio::join!(two_root_keys::sync_both(ann, roles[0], "ann"), two_root_keys::sync_both(bob, roles[1], "bob"));
    ensure!((both.0.map_err(text)?, both.1.map_err(text)?) == ([2, 2], [2, 2]));
    let (ann, bob) = sockets();
    let met = tokio::join!(extension::greet(ann, roles[0], "ann"), extension::greet(bob, roles[1], "bob"));
    ensure!((met.0.map_err(text)?, met.1.map_err(text)?) == ("bob".into(), "ann".into()));
    let (letter, feeds) = policy::friends().await.map_err(text)?;
    ensure!(feeds == [letter]);
    let seen = progress::watch(2_000).await.map_err(text)?;
    ensure!(seen.last() == Some(&[2_000, 0]) && seen.len() > 1, "{seen:?}");
    ensure!(seen.is_sorted_by_key(|[received, _]| *received), "{seen:?}");
    Ok(())
}
