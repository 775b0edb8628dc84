//! The blocks that `append` takes: texts, files, or the lines of stdin, gathered into batches of at most 16 MiB, so
//! that no more than one batch is in memory.

use std::ffi::OsString;
use std::io::{self, BufRead, Read as _};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use multifeed_tokio::driver::core::limits::MAX_BLOCK_BYTES;
use tokio::sync::Notify;
use tokio::time::{sleep, sleep_until};

use crate::error::{CliError, code};
use crate::stop::{Signal, Stop};

/// Bytes of blocks after which a batch is closed and another begun.
pub(crate) const BATCH_BYTES: usize = 16 << 20;

/// What a block counts as, at the least, towards [`BATCH_BYTES`]: memory is used for empty ones too.
pub(crate) const LEAST_BLOCK: usize = 16;

/// Bytes past which a line or a file cannot become a block, since no peer could be sent it.
const MOST_BLOCK: usize = MAX_BLOCK_BYTES;

/// How long no line has to come until those that came are appended.
const QUIET: Duration = Duration::from_secs(1);

/// How long lines are gathered at the most, if they keep coming.
const LONGEST: Duration = Duration::from_secs(5);

/// What is on its way through a pipe when a signal comes is still taken.
const ON_ITS_WAY: Duration = Duration::from_millis(100);

/// Blocks to append, read as they are asked for.
pub(crate) enum Input {
    Texts(std::vec::IntoIter<OsString>),
    Files(std::vec::IntoIter<PathBuf>),
    Lines(Arc<Lines>),
}

/// The lines of stdin, which a thread reads: it may wait for them without end.
pub(crate) struct Lines {
    read: Mutex<Read>,
    /// Bytes of a full batch.
    most: usize,
    /// Something was read.
    came: Notify,
    /// There is room for more.
    room: Condvar,
}

#[derive(Default)]
struct Read {
    batch: Vec<Bytes>,
    size: usize,
    /// When the first and the last block of the batch came.
    first: Option<Instant>,
    last: Option<Instant>,
    /// Nothing comes any more; and why, if that is no end.
    ended: bool,
    error: Option<CliError>,
}

/// A batch, and whether a signal ended the wait for more.
pub(crate) struct Batch {
    pub(crate) blocks: Vec<Bytes>,
    pub(crate) stopped: Option<Signal>,
}

impl Input {
    /// The blocks that `append`'s arguments stand for.
    ///
    /// # Errors
    ///
    /// `ERR_USAGE` if `-`, stdin, stands beside texts.
    pub(crate) fn new(texts: Vec<OsString>, files: Vec<PathBuf>, keep_cr: bool) -> Result<Self, CliError> {
        if !files.is_empty() {
            return Ok(Input::Files(files.into_iter()));
        }
        if !texts.iter().any(|text| text == "-") {
            return Ok(Input::Texts(texts.into_iter()));
        }
        if texts.len() > 1 {
            let message = "- stands for the lines of stdin, and has to stand alone";
            return Err(CliError::new(code::USAGE, message).with_exit(crate::error::EXIT_USAGE));
        }
        let stdin = io::BufReader::with_capacity(1 << 16, io::stdin());
        Ok(Input::Lines(Lines::start(stdin, keep_cr, BATCH_BYTES)?))
    }

    /// The blocks of the next batch; none at the end. A signal ends the wait for lines: what came before it is the batch then.
    ///
    /// # Errors
    ///
    /// `ERR_IO` if a file or stdin cannot be read, `ERR_BLOCK_TOO_LARGE` for what no peer could be sent.
    pub(crate) async fn next_batch(&mut self, stop: &mut Stop) -> Result<Batch, CliError> {
        let blocks = match self {
            Input::Lines(lines) => return lines.next_batch(stop).await,
            Input::Texts(texts) => {
                gather(BATCH_BYTES, || Ok(texts.next().map(|text| Bytes::from(text.into_encoded_bytes()))))?
            }
            Input::Files(files) => {
                let mut paths = std::mem::take(files);
                // A pipe among them may not end.
                let read = tokio::task::spawn_blocking(move || {
                    gather(BATCH_BYTES, || paths.next().map(read_file).transpose()).map(|blocks| (paths, blocks))
                });
                let (rest, blocks) = tokio::select! {
                    read = read => {
                        read.map_err(|error| CliError::new(code::IO, format!("reading failed: {error}")))??
                    }
                    signal = stop.wait() => return Ok(Batch { blocks: Vec::new(), stopped: Some(signal) }),
                };
                *files = rest;
                blocks
            }
        };
        Ok(Batch { blocks, stopped: None })
    }
}

/// Blocks until a batch is full, or there are no more.
fn gather(most: usize, mut next: impl FnMut() -> Result<Option<Bytes>, CliError>) -> Result<Vec<Bytes>, CliError> {
    let mut batch = Vec::new();
    let mut size = 0_usize;
    while size < most {
        let Some(block) = next()? else { break };
        size = size.saturating_add(block.len().max(LEAST_BLOCK));
        batch.push(block);
    }
    Ok(batch)
}

impl Lines {
    fn start(mut stdin: impl BufRead + Send + 'static, keep_cr: bool, most: usize) -> Result<Arc<Self>, CliError> {
        let lines = Arc::new(Self { read: Mutex::default(), most, came: Notify::new(), room: Condvar::new() });
        let shared = lines.clone();
        let read = move || {
            for number in 1.. {
                let line = read_line(&mut stdin, number, keep_cr);
                let is_last = !matches!(line, Ok(Some(_)));
                shared.take(line);
                if is_last {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("stdin".to_owned()).spawn(read);
        thread.map_err(|error| CliError::new(code::IO, format!("stdin: {error}")))?;
        Ok(lines)
    }

    fn lock(&self) -> MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, line: Result<Option<Bytes>, CliError>) {
        let mut read = self.lock();
        while read.size >= self.most {
            read = self.room.wait(read).unwrap_or_else(PoisonError::into_inner);
        }
        match line {
            Ok(Some(block)) => {
                read.size = read.size.saturating_add(block.len().max(LEAST_BLOCK));
                read.batch.push(block);
                let now = Instant::now();
                read.first.get_or_insert(now);
                read.last = Some(now);
            }
            Ok(None) => read.ended = true,
            Err(error) => (read.ended, read.error) = (true, Some(error)),
        }
        drop(read);
        self.came.notify_one();
    }

    async fn next_batch(&self, stop: &mut Stop) -> Result<Batch, CliError> {
        let mut stopped = None;
        loop {
            let due = {
                let mut read = self.lock();
                let now = Instant::now();
                let due = read.first.zip(read.last).map(|(first, last)| (first + LONGEST).min(last + QUIET));
                let is_full = read.size >= self.most;
                if is_full || read.ended || stopped.is_some() || due.is_some_and(|due| due <= now) {
                    // Nothing of the batch that it is in is appended.
                    if !is_full && let Some(error) = read.error.take() {
                        return Err(error);
                    }
                    let blocks = std::mem::take(&mut read.batch);
                    (read.size, read.first, read.last) = (0, None, None);
                    self.room.notify_one();
                    return Ok(Batch { blocks, stopped });
                }
                due
            };
            let until_due = async {
                match due {
                    Some(due) => sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.came.notified() => {}
                () = until_due => {}
                signal = stop.wait() => {
                    sleep(ON_ITS_WAY).await;
                    stopped = Some(signal);
                }
            }
        }
    }
}

fn read_file(path: PathBuf) -> Result<Bytes, CliError> {
    let name = path.display().to_string();
    let read = || {
        let mut bytes = Vec::new();
        // A pipe or a device has no length that could be asked first.
        std::fs::File::open(&path)?.take(MOST_BLOCK as u64 + 1).read_to_end(&mut bytes)?;
        io::Result::Ok(bytes)
    };
    let bytes = read().map_err(|error| CliError::new(code::IO, format!("{name}: {error}")))?;
    if bytes.len() > MOST_BLOCK {
        return Err(too_large(&name));
    }
    Ok(Bytes::from(bytes))
}

fn read_line(stdin: &mut impl BufRead, line: u64, keep_cr: bool) -> Result<Option<Bytes>, CliError> {
    let mut bytes = Vec::new();
    let read = stdin.take(MOST_BLOCK as u64 + 2).read_until(b'\n', &mut bytes);
    if read.map_err(|error| CliError::new(code::IO, format!("stdin, line {line}: {error}")))? == 0 {
        return Ok(None);
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if !keep_cr && bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    if bytes.len() > MOST_BLOCK {
        return Err(too_large(&format!("stdin, line {line}")));
    }
    Ok(Some(Bytes::from(bytes)))
}

fn too_large(what: &str) -> CliError {
    CliError::new(code::TOO_LARGE, format!("{what} is over {MOST_BLOCK} bytes: no peer could be sent such a block"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The batches of these lines.
    fn batches(text: Vec<u8>, keep_cr: bool, most: usize) -> Result<Vec<Vec<Bytes>>, CliError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let lines = Lines::start(io::Cursor::new(text), keep_cr, most)?;
            let mut stop = Stop::deaf();
            let mut all = Vec::new();
            loop {
                let batch = lines.next_batch(&mut stop).await?;
                if batch.blocks.is_empty() {
                    return Ok(all);
                }
                all.push(batch.blocks);
            }
        })
    }

    #[test]
    fn lines_become_blocks() {
        for (text, expected) in [
            (&b""[..], &[][..]),
            (b"\n", &[&b""[..]]),
            (b"a", &[b"a"]),
            (b"a\n", &[b"a"]),
            (b"a\n\nb", &[b"a", b"", b"b"]),
            (b"\xff\xfe\r\n\0\n\r\n\r\r\n\r", &[b"\xff\xfe", b"\0", b"", b"\r", b"\r"]),
        ] {
            assert_eq!(batches(text.to_vec(), false, BATCH_BYTES).unwrap().concat(), expected, "{text:?}");
        }
        assert_eq!(batches(b"a\r\nb\n".to_vec(), true, BATCH_BYTES).unwrap(), [[&b"a\r"[..], b"b"]]);
    }

    #[test]
    fn a_batch_ends_once_it_is_full() {
        let mut texts = vec![Bytes::from("0123456789".repeat(5)); 5].into_iter();
        let sizes: Vec<_> = (0..4).map(|_| gather(100, || Ok(texts.next())).unwrap().len()).collect();
        assert_eq!(sizes, [2, 2, 1, 0]);
        let of_lines: Vec<_> = batches(vec![b'\n'; 100], false, 160).unwrap().iter().map(Vec::len).collect();
        assert_eq!(of_lines, [10; 10], "empty blocks count too");
    }

    #[test]
    fn what_is_too_large_is_named() {
        let error = batches([&b"ok\n"[..], &vec![b'x'; MOST_BLOCK + 1]].concat(), false, BATCH_BYTES).unwrap_err();
        assert_eq!(error.code(), code::TOO_LARGE);
        assert!(error.message().contains("line 2"), "{error}");

        let fits = [&vec![b'x'; MOST_BLOCK][..], b"\r\nok"].concat();
        let batch = batches(fits, false, BATCH_BYTES).unwrap().concat();
        assert_eq!(batch.iter().map(Bytes::len).collect::<Vec<_>>(), [MOST_BLOCK, 2]);
    }

    #[test]
    fn a_dash_stands_alone() {
        let error = Input::new(vec!["-".into(), "a".into()], Vec::new(), false).err().unwrap();
        assert_eq!((error.code(), error.exit()), (code::USAGE, 2));
    }
}
