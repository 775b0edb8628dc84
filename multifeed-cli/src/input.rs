//! The blocks that `append` takes: texts, files, or the lines of stdin, gathered into batches of at most 16 MiB, so
//! that no more than one batch is in memory.

use std::ffi::OsString;
use std::io::{self, BufRead, Read};
use std::path::PathBuf;

use bytes::Bytes;
use multifeed_tokio::driver::core::limits::MAX_BLOCK_BYTES;

use crate::error::{CliError, code};

/// Bytes of blocks after which a batch is closed and another begun.
pub(crate) const BATCH_BYTES: usize = 16 << 20;

/// What a block counts as, at the least, towards [`BATCH_BYTES`]: memory is used for empty ones too.
pub(crate) const LEAST_BLOCK: usize = 16;

/// Bytes past which a line or a file cannot become a block, since no peer could be sent it.
const MOST_BLOCK: usize = MAX_BLOCK_BYTES;

/// Blocks to append, read as they are asked for.
pub(crate) enum Input {
    Texts(std::vec::IntoIter<OsString>),
    Files(std::vec::IntoIter<PathBuf>),
    Lines { stdin: Box<dyn BufRead + Send>, line: u64 },
}

impl Input {
    /// The blocks that `append`'s arguments stand for.
    ///
    /// # Errors
    ///
    /// `ERR_USAGE` if `-`, stdin, stands beside texts.
    pub(crate) fn new(texts: Vec<OsString>, files: Vec<PathBuf>) -> Result<Self, CliError> {
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
        Ok(Input::Lines { stdin: Box::new(io::BufReader::with_capacity(1 << 16, io::stdin())), line: 0 })
    }

    /// The blocks of the next batch; empty at the end.
    ///
    /// # Errors
    ///
    /// `ERR_IO` if a file or stdin cannot be read, `ERR_BLOCK_TOO_LARGE` for what no peer could be sent.
    pub(crate) fn next_batch(&mut self) -> Result<Vec<Bytes>, CliError> {
        self.next_batch_of(BATCH_BYTES)
    }

    fn next_batch_of(&mut self, most: usize) -> Result<Vec<Bytes>, CliError> {
        let mut batch = Vec::new();
        let mut size = 0_usize;
        while size < most {
            let Some(block) = self.next_block()? else { break };
            size = size.saturating_add(block.len().max(LEAST_BLOCK));
            batch.push(block);
        }
        Ok(batch)
    }

    fn next_block(&mut self) -> Result<Option<Bytes>, CliError> {
        match self {
            Input::Texts(texts) => Ok(texts.next().map(|text| Bytes::from(text.into_encoded_bytes()))),
            Input::Files(files) => files.next().map(read_file).transpose(),
            Input::Lines { stdin, line } => {
                *line += 1;
                read_line(stdin, *line)
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

fn read_line(stdin: &mut impl BufRead, line: u64) -> Result<Option<Bytes>, CliError> {
    let mut bytes = Vec::new();
    let read = stdin.take(MOST_BLOCK as u64 + 1).read_until(b'\n', &mut bytes);
    if read.map_err(|error| CliError::new(code::IO, format!("stdin, line {line}: {error}")))? == 0 {
        return Ok(None);
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    } else if bytes.len() > MOST_BLOCK {
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

    fn lines(text: &'static [u8]) -> Input {
        Input::Lines { stdin: Box::new(text), line: 0 }
    }

    #[test]
    fn lines_become_blocks() {
        for (text, expected) in [
            (&b""[..], &[][..]),
            (b"\n", &[&b""[..]]),
            (b"a", &[b"a"]),
            (b"a\n", &[b"a"]),
            (b"a\n\nb", &[b"a", b"", b"b"]),
            (b"\xff\xfe\r\n\0\n", &[b"\xff\xfe\r", b"\0"]),
        ] {
            assert_eq!(lines(text).next_batch().unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_batch_ends_once_it_is_full() {
        let mut input = Input::Texts(vec!["0123456789".repeat(5).into(); 5].into_iter());
        let mut sizes = Vec::new();
        loop {
            let batch = input.next_batch_of(100).unwrap();
            if batch.is_empty() {
                break;
            }
            sizes.push(batch.len());
        }
        assert_eq!(sizes, [2, 2, 1]);
        assert_eq!(lines(&[b'\n'; 100]).next_batch_of(160).unwrap().len(), 10, "empty blocks count too");
    }

    #[test]
    fn what_is_too_large_is_named() {
        let text = [&b"ok\n"[..], &vec![b'x'; MOST_BLOCK + 1]].concat();
        let error = Input::Lines { stdin: Box::new(io::Cursor::new(text)), line: 0 }.next_batch().unwrap_err();
        assert_eq!(error.code(), code::TOO_LARGE);
        assert!(error.message().contains("line 2"), "{error}");

        let fits = [&vec![b'x'; MOST_BLOCK][..], b"\nok"].concat();
        let batch = Input::Lines { stdin: Box::new(io::Cursor::new(fits)), line: 0 }.next_batch().unwrap();
        assert_eq!(batch.iter().map(Bytes::len).collect::<Vec<_>>(), [MOST_BLOCK, 2]);
    }

    #[test]
    fn a_dash_stands_alone() {
        let error = Input::new(vec!["-".into(), "a".into()], Vec::new()).err().unwrap();
        assert_eq!((error.code(), error.exit()), (code::USAGE, 2));
    }
}
