//! Feeds as a table for people.

use std::fmt::Write as _;

use super::{FeedLine, one_line};

/// Columns of a terminal that is as narrow as they are.
const COLUMNS: usize = 80;

/// Digits of a key that are shown in few columns, or more if two keys begin so.
const DIGITS: usize = 8;

const HEADS: [&str; 3] = ["BLOCKS", "BYTES", "HELD"];
const WRITABLE: &str = "  writable";

/// A table with whole keys and names, its columns aligned; with what to say if there are no feeds.
pub(crate) fn table(feeds: &[FeedLine]) -> String {
    if feeds.is_empty() {
        return "no feeds".to_owned();
    }
    let name = feeds.iter().map(|feed| shown(feed).chars().count()).max().unwrap_or(0).max("NAME".len());
    let mut out = format!("{:64}  {:name$}  {:>10}  {:>14}  {:>10}", "KEY", "NAME", "BLOCKS", "BYTES", "HELD");
    for feed in feeds {
        let FeedLine { key, length, bytes, downloaded, .. } = feed;
        let (own, writer) = (shown(feed), if feed.writable { WRITABLE } else { "" });
        let _ = write!(out, "\n{key:64}  {own:name$}  {length:>10}  {bytes:>14}  {downloaded:>10}{writer}");
    }
    out
}

/// The same in 80 columns: of each key as much as tells it from the others, and long names cut.
pub(crate) fn narrow_table(feeds: &[FeedLine]) -> String {
    if feeds.is_empty() {
        return "no feeds".to_owned();
    }
    let digits = digits(feeds);
    let numbers = feeds.iter().map(|feed| [feed.length, feed.bytes, feed.downloaded].map(|number| number.to_string()));
    let numbers: Vec<[String; 3]> = numbers.collect();
    let widths: [usize; 3] = std::array::from_fn(|column| {
        numbers.iter().map(|row| row[column].len()).max().unwrap_or(0).max(HEADS[column].len())
    });
    let taken = digits + widths.iter().map(|width| width + 2).sum::<usize>() + 2 + WRITABLE.len();
    let longest = feeds.iter().map(|feed| shown(feed).chars().count()).max().unwrap_or(0).max("NAME".len());
    let name = longest.min(COLUMNS.saturating_sub(taken)).max("NAME".len());
    let row = |key: &str, own: &str, numbers: [&str; 3], writer: &str| {
        let [length, bytes, held] = numbers;
        let [l, b, h] = widths;
        format!("{key:digits$}  {own:name$}  {length:>l$}  {bytes:>b$}  {held:>h$}{writer}")
    };
    let mut rows = vec![row("KEY", "NAME", HEADS, "")];
    for (feed, numbers) in feeds.iter().zip(&numbers) {
        let writer = if feed.writable { WRITABLE } else { "" };
        let key: String = feed.key.chars().take(digits).collect();
        rows.push(row(&key, &cut(&shown(feed), name), numbers.each_ref().map(String::as_str), writer));
    }
    rows.join("\n")
}

/// The name that its user gave it, or else its own.
fn shown(feed: &FeedLine) -> String {
    one_line(feed.alias.as_ref().unwrap_or(&feed.name))
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// How many digits tell all keys apart.
fn digits(feeds: &[FeedLine]) -> usize {
    let mut keys: Vec<&str> = feeds.iter().map(|feed| feed.key.as_str()).collect();
    keys.sort_unstable();
    let alike = |pair: &[&str]| pair[0].chars().zip(pair[1].chars()).take_while(|(one, other)| one == other).count();
    keys.windows(2).map(|pair| alike(pair) + 1).max().unwrap_or(0).max(DIGITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(key: &str, name: &str, [length, bytes]: [u64; 2]) -> FeedLine {
        let key = format!("{key:0<64}");
        let name = name.to_owned();
        FeedLine { key, name, length, bytes, downloaded: length, writable: true, alias: None }
    }

    #[test]
    fn eighty_columns_hold_any_feed() {
        let long = "a name that is much too long for a line of a terminal";
        let feeds = [
            feed("abcdef0123", long, [1 << 30, 1 << 40]),
            feed("abcdef0124", "short", [1, u64::MAX >> 10]),
            feed("77", "", [0, 0]),
        ];
        let text = narrow_table(&feeds);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        // Each key is told from the others, and can be given as it is shown.
        for key in ["abcdef0123  ", "abcdef0124  ", "7700000000  "] {
            assert_eq!(text.lines().filter(|line| line.starts_with(key)).count(), 1, "{text}");
        }
        assert!(text.contains("a name") && text.contains('…') && !text.contains(long), "{text}");
        let whole = table(&feeds);
        assert!(whole.contains(long) && feeds.iter().all(|feed| whole.contains(&feed.key)), "{whole}");
    }
}
