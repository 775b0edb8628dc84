//! Ranges of blocks on the command line.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Which blocks `cat` writes: from `start` up to, and without, `end`; to the feed's end if that is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlockRange {
    pub(crate) start: u64,
    pub(crate) end: Option<u64>,
}

impl FromStr for BlockRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| {
            part.parse::<u64>().map_err(|_| format!("{part:?} is not the number of a block; write A..B, A.., ..B or A"))
        };
        let Some((start, end)) = text.split_once("..") else {
            let start = number(text)?;
            let end = start.checked_add(1).ok_or_else(|| format!("no feed has a block {start}"))?;
            return Ok(BlockRange { start, end: Some(end) });
        };
        let start = if start.is_empty() { 0 } else { number(start)? };
        let end = if end.is_empty() { None } else { Some(number(end)?) };
        if end.is_some_and(|end| end < start) {
            return Err(format!("{text} ends before it starts"));
        }
        Ok(BlockRange { start, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_ranges() {
        let range = |start, end| Ok(BlockRange { start, end });
        for (text, expected) in [
            ("2..5", range(2, Some(5))),
            ("2..", range(2, None)),
            ("..5", range(0, Some(5))),
            ("..", range(0, None)),
            ("7", range(7, Some(8))),
            ("3..3", range(3, Some(3))),
        ] {
            assert_eq!(text.parse(), expected, "{text}");
        }
        for text in ["", "a", "-1", "5..2", "1..2..3", "1...3", "18446744073709551615", "1 ..2"] {
            assert!(text.parse::<BlockRange>().is_err(), "{text:?} was taken");
        }
    }
}
