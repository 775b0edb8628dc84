//! What the feature `serde` writes, and reads again.

use std::fmt::Debug;

use anyhow::{Result, ensure};
use futures_lite::future::block_on;
use multifeed_driver::{DEFAULT_ROOT_KEY, DiscoveryKey, FeedKey, Multifeed, Options, SyncTotals, Totals};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn there_and_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> Result<String> {
    let text = serde_json::to_string(value)?;
    let back: T = serde_json::from_str(&text)?;
    ensure!(back == *value, "{value:?} came back as {back:?}");
    Ok(text)
}

#[test]
fn a_key_is_its_text() -> Result<()> {
    let text = format!("\"{DEFAULT_ROOT_KEY}\"");
    ensure!(there_and_back(&DEFAULT_ROOT_KEY)? == text);
    ensure!(there_and_back(&DEFAULT_ROOT_KEY.discovery_key())? == format!("\"{}\"", DEFAULT_ROOT_KEY.discovery_key()));
    let error = serde_json::from_str::<DiscoveryKey>("\"be\"").unwrap_err().to_string();
    ensure!(error.starts_with("a key has 64 hex digits"), "{error}");
    ensure!(serde_json::from_str::<FeedKey>("[1]").is_err(), "a list is no key");
    Ok(())
}

#[test]
fn states_and_totals_come_back_as_they_were() -> Result<()> {
    block_on(async {
        let multi = Multifeed::in_memory(Options::default()).await?;
        let feed = multi.writer("w").await?;
        feed.append("block").await?;
        let text = there_and_back(&feed.sync_state().await?)?;
        ensure!(text.contains("\"len\":1"), "{text}");
        there_and_back(&multi.sync_state().await?)?;
        let mut totals = Totals::default();
        totals.moved = SyncTotals { feeds: 1, blocks_received: u64::MAX, ..SyncTotals::default() };
        let text = there_and_back(&totals)?;
        ensure!(text.contains("\"blocks_received\":18446744073709551615") && text.contains("\"bytes_in\":0"), "{text}");
        Ok(())
    })
}
