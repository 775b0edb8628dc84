//! The control socket of a store that is served or synced live: commands beside the running process go through it, and print what they print
//! without it.
//!
//! Only the user who runs the process can use it. A connection is one request, a line of JSON. What the other process prints for it comes back, and in
//! the end how it went. `append` is followed by batches of blocks: each is answered by a line of JSON; an empty one ends the request, and is answered
//! after all of it was synced to the disk. A batch is its number of blocks, and for each block its length and its bytes; numbers have 4 bytes,
//! big-endian.

#[cfg_attr(not(unix), allow(dead_code))]
mod answer;
#[cfg(unix)]
mod socket;
#[cfg(not(unix))]
#[path = "control/no_socket.rs"]
mod socket;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use multifeed_tokio::{DEFAULT_ROOT_KEY, FeedKey, Options};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncWriteExt};
use tokio::time::timeout;

use super::feeds::Listing;
use super::opening::root_key;
use crate::args::{Ban, Clear, Conflicts, Global, Remove, Verify};
use crate::error::{CliError, code};
use crate::output::{Output, Unit};
use crate::stop::{Signal, Stop};

use self::wire::{Reply, read_bytes, read_line, write_batch, write_line};

pub(super) use self::socket::Control;
use self::socket::Stream;

/// How long the process that has the store open has for an answer.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// How much longer than a look at its files a store that no process serves is left alone, at the least.
pub(super) const LOOK_SHARE: u32 = 10;

/// What the process that has the store open is asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    /// Which multifeed of a corestore is meant.
    place: Place,
    /// The store's path, as the user gave it.
    store: PathBuf,
    /// Whether objects are printed.
    json: bool,
    ask: Ask,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Ask {
    Append(Appending),
    Feeds(Listing),
    Cat(Blocks),
    Remove(Remove),
    Ban(Ban),
    Unban(Ban),
    Clear(Clear),
    Verify(Verify),
    Status,
    Watch,
    Conflicts(Conflicts),
}

/// What is appended to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Appending {
    pub(super) writer: String,
    pub(super) new_key: bool,
    /// Each batch is synced to the disk before it is answered.
    pub(super) sync_each: bool,
}

/// Blocks that are read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Blocks {
    pub(super) feed: String,
    /// The first; if it is `None`, `last` counts from the end.
    pub(super) start: Option<u64>,
    /// Up to this one, without it; `None` is the end of the feed.
    pub(super) end: Option<u64>,
    pub(super) last: u64,
    /// Blocks that come later are read too.
    pub(super) follow: bool,
}

/// A multifeed of a corestore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// The discovery key of its root key, in hex. The root key itself is not given away.
    root: String,
    namespace: String,
}

impl Place {
    pub(super) fn new(root_key: &FeedKey, global: &Global) -> Self {
        let namespace = global.corestore.namespace().default_name().to_owned();
        Self { root: root_key.discovery_key().to_string(), namespace }
    }

    /// Whether no root key was given.
    fn is_of_no_key(&self) -> bool {
        self.root == DEFAULT_ROOT_KEY.discovery_key().to_string()
    }
}

impl Request {
    pub(super) fn new(ask: Ask, global: &Global, options: &Options) -> Self {
        let place = Place::new(&root_key(options), global);
        Self { place, store: global.store.clone(), json: global.json, ask }
    }
}

/// A writer of a store that another process has open.
pub(super) struct Remote {
    stream: Stream,
    pub(super) key: String,
    pub(super) name: String,
    pub(super) length: u64,
    pub(super) is_new: bool,
}

/// Opens a writer of a store that another process has open; `None` if no process listens there.
pub(super) async fn connect(request: &Request) -> Option<Result<Remote, CliError>> {
    let stream = socket::connect(&request.store).await?;
    Some(Remote::open(stream, request).await)
}

impl Remote {
    /// Opens the writer over there.
    async fn open(mut stream: Stream, request: &Request) -> Result<Self, CliError> {
        match ask(&mut stream, request).await? {
            Reply::Open { key, name, length, is_new } => Ok(Self { stream, key, name, length, is_new }),
            _ => Err(unexpected()),
        }
    }

    /// Appends a batch.
    pub(super) async fn append(&mut self, blocks: &[Bytes]) -> Result<(), CliError> {
        write_batch(&mut self.stream, blocks).await.map_err(lost_append)?;
        match reply(&mut self.stream, lost_append).await? {
            Reply::Done { length } => self.length = length,
            _ => return Err(unexpected()),
        }
        Ok(())
    }

    /// Returns once all that was appended is on the disk.
    pub(super) async fn finish(&mut self) -> Result<(), CliError> {
        let length = self.length;
        self.append(&[]).await?;
        // Others may have appended meanwhile.
        self.length = length;
        Ok(())
    }
}

/// Runs a command in the process that has the store open, if one listens; else here.
pub(super) async fn anywhere(
    ask: Ask,
    global: &Global,
    options: &Options,
    output: &Output,
    here: impl Future<Output = Result<(), CliError>>,
) -> Result<(), CliError> {
    let request = Request::new(ask, global, options);
    if let Some(done) = through(&request, output, &mut NoBlocks).await {
        return done;
    }
    match here.await {
        // The process that has it may listen only now.
        Err(locked) if locked.code() == code::LOCKED => {
            through(&request, output, &mut NoBlocks).await.unwrap_or(Err(locked))
        }
        done => done,
    }
}

/// What takes the blocks of a feed that is read.
pub(super) trait TakeBlocks {
    fn block(&mut self, key: &str, index: u64, block: &[u8]) -> Result<(), CliError>;

    /// Nothing more comes for now.
    fn flush(&mut self) -> Result<(), CliError>;
}

/// Of a command that reads none.
pub(super) struct NoBlocks;

impl TakeBlocks for NoBlocks {
    fn block(&mut self, _key: &str, _index: u64, _block: &[u8]) -> Result<(), CliError> {
        Err(unexpected())
    }

    fn flush(&mut self) -> Result<(), CliError> {
        Ok(())
    }
}

/// Runs a command in the process that has the store open, and prints what it prints. `None` if no process listens there. A signal ends the wait for it.
pub(super) async fn through(
    request: &Request,
    output: &Output,
    blocks: &mut impl TakeBlocks,
) -> Option<Result<(), CliError>> {
    let mut stream = socket::connect(&request.store).await?;
    let mut stop = match Stop::listen() {
        Ok(stop) => stop,
        Err(error) => return Some(Err(error.into())),
    };
    let mut output = output.clone();
    let done = tokio::select! {
        done = relay(&mut stream, request, &mut output, blocks) => done,
        signal = stop.wait() => Err(interrupted(signal)),
    };
    output.end_bar();
    Some(done)
}

async fn relay(
    stream: &mut Stream,
    request: &Request,
    output: &mut Output,
    blocks: &mut impl TakeBlocks,
) -> Result<(), CliError> {
    match answered(ask(stream, request)).await?? {
        Reply::Accepted => {}
        _ => return Err(unexpected()),
    }
    loop {
        match reply(stream, lost).await? {
            Reply::Text { to_stderr, bytes } => {
                let text = read_bytes(stream, bytes).await.map_err(lost)?;
                output.relayed(String::from_utf8_lossy(&text).into_owned(), to_stderr)?;
            }
            Reply::Block { key, index, bytes } => {
                let block = read_bytes(stream, bytes).await.map_err(lost)?;
                blocks.block(&key, index, &block)?;
            }
            Reply::Bar { done, total } => {
                if !output.shows_bar() {
                    output.start_bar(Unit::Blocks);
                }
                output.set_bar(Unit::Blocks, done, total);
            }
            Reply::Flush => blocks.flush()?,
            Reply::End => return blocks.flush(),
            _ => return Err(unexpected()),
        }
    }
}

/// Waits for the process that has the store open, for as long as it has for an answer.
pub(super) async fn answered<T>(asked: impl Future<Output = T>) -> Result<T, CliError> {
    timeout(ANSWER_TIME, asked).await.map_err(|_| {
        let seconds = ANSWER_TIME.as_secs();
        CliError::new(code::NO_ANSWER, format!("the process that has the store open did not answer within {seconds} s"))
    })
}

pub(super) fn interrupted(signal: Signal) -> CliError {
    CliError::new(code::INTERRUPTED, "interrupted").with_exit(signal.exit())
}

/// A signal is the right end of what has no other.
pub(super) fn unless_interrupted(error: CliError) -> Result<(), CliError> {
    if error.code() == code::INTERRUPTED { Ok(()) } else { Err(error) }
}

/// Sends a request, and returns its first answer.
async fn ask(stream: &mut Stream, request: &Request) -> Result<Reply, CliError> {
    let sent = async {
        write_line(stream, request).await?;
        stream.flush().await
    };
    let sent = sent.await;
    // Who is refused may have been answered before it asked.
    match (reply(stream, lost).await, sent) {
        (Err(error), Err(unsent)) if error.code() == code::NO_ANSWER => Err(lost(unsent)),
        (answer, _) => answer,
    }
}

async fn reply(
    stream: &mut (impl AsyncBufRead + Unpin),
    lost: fn(std::io::Error) -> CliError,
) -> Result<Reply, CliError> {
    match read_line(stream).await.map_err(lost)? {
        Some(Reply::Failed(failed)) => Err(failed.into()),
        Some(reply) => Ok(reply),
        None => Err(lost(std::io::ErrorKind::UnexpectedEof.into())),
    }
}

/// The other process ended, or closed the connection.
fn lost(error: std::io::Error) -> CliError {
    CliError::new(code::NO_ANSWER, format!("the process that has the store open did not answer to the end: {error}"))
}

fn lost_append(error: std::io::Error) -> CliError {
    let why = "the process that has the store open did not answer, so the last blocks may be appended or not";
    CliError::new(code::IO, format!("{why}: {error}"))
}

fn unexpected() -> CliError {
    CliError::new(code::IO, "the process that has the store open is of another version: end it, and try again")
}
