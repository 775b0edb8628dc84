//! What goes over a control socket: lines of JSON, batches of blocks one way, and text and blocks the other way.

use bytes::Bytes;
use multifeed_tokio::driver::core::limits::MAX_BLOCK_BYTES;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::error::CliError;
use crate::input::{BATCH_BYTES, LEAST_BLOCK};

/// Bytes of a line, at the most.
const MOST_LINE: u64 = 1 << 20;

/// Bytes of a text that follows a line, at the most: the table of more feeds than a store may have.
const MOST_TEXT: u64 = 1 << 30;

/// A line that the process that has the store open answers with.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Reply {
    /// The writer is open.
    Open {
        key: String,
        name: String,
        length: u64,
        is_new: bool,
    },
    /// A batch was appended, or all is on the disk.
    Done {
        length: u64,
    },
    /// The request was read, and its answer follows.
    Accepted,
    /// Lines for stdout, or for stderr: so many bytes follow.
    Text {
        to_stderr: bool,
        bytes: u64,
    },
    /// A block of a feed: so many bytes follow.
    Block {
        key: String,
        index: u64,
        bytes: u64,
    },
    /// How far it is.
    Bar {
        done: u64,
        total: u64,
    },
    /// Nothing more comes for now.
    Flush,
    /// All is done.
    End,
    Failed(Failed),
}

/// A failure, as the command that asked reports it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Failed {
    code: String,
    message: String,
    exit: u8,
}

impl From<&CliError> for Failed {
    fn from(error: &CliError) -> Self {
        Self { code: error.code().to_owned(), message: error.message().to_owned(), exit: error.exit() }
    }
}

impl From<Failed> for CliError {
    fn from(Failed { code, message, exit }: Failed) -> Self {
        CliError::new(code, message).with_exit(exit)
    }
}

pub(super) async fn write_line(
    stream: &mut (impl AsyncWrite + Unpin),
    value: &(impl Serialize + Sync),
) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

/// Reads a line; `None` at the end.
pub(super) async fn read_line<T: for<'a> Deserialize<'a>>(
    stream: &mut (impl AsyncBufRead + Unpin),
) -> std::io::Result<Option<T>> {
    let mut line = Vec::new();
    if stream.take(MOST_LINE).read_until(b'\n', &mut line).await? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

/// Reads the bytes that follow a line.
pub(super) async fn read_bytes(stream: &mut (impl AsyncRead + Unpin), count: u64) -> std::io::Result<Vec<u8>> {
    if count > MOST_TEXT {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    if stream.take(count).read_to_end(&mut bytes).await? as u64 != count {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

pub(super) async fn write_batch(stream: &mut (impl AsyncWrite + Unpin), blocks: &[Bytes]) -> std::io::Result<()> {
    let number = |number: usize| u32::try_from(number).map_err(|_| std::io::ErrorKind::InvalidInput);
    stream.write_u32(number(blocks.len())?).await?;
    for block in blocks {
        stream.write_u32(number(block.len())?).await?;
        stream.write_all(block).await?;
    }
    stream.flush().await
}

/// Reads a batch. It has the bounds that [`Input`](crate::input::Input) keeps.
pub(super) async fn read_batch(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<Bytes>> {
    let too_much = || std::io::Error::new(std::io::ErrorKind::InvalidData, "a batch of more bytes than one may have");
    let mut left = BATCH_BYTES + MAX_BLOCK_BYTES;
    let mut blocks = Vec::new();
    for _ in 0..stream.read_u32().await? {
        let size = stream.read_u32().await? as usize;
        left = left.checked_sub(size.max(LEAST_BLOCK)).ok_or_else(too_much)?;
        let mut block = Vec::new();
        if stream.take(size as u64).read_to_end(&mut block).await? < size {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        blocks.push(block.into());
    }
    Ok(blocks)
}
