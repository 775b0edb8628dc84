//! The writer that blocks are appended to.

use multifeed_tokio::{Feed, Multifeed};
use tokio::sync::Mutex;

use crate::error::{CliError, code};

/// A writer that is open.
pub(super) struct OpenWriter {
    pub(super) feed: Feed,
    /// It was made just now.
    pub(super) is_new: bool,
}

/// Opens the writer, made if it is not there.
pub(super) async fn open_writer(multi: &Multifeed, writer: &str, new_key: bool) -> Result<OpenWriter, CliError> {
    if new_key && !multi.release_missing_name(writer).await? && multi.feeds().iter().any(|feed| feed.name() == writer) {
        let message = format!("the feed `{writer}` is not missing: leave --new-key out, or choose another name");
        return Err(CliError::new(code::FEED, message));
    }
    // Of several that open it at once, one makes it.
    static ONE: Mutex<()> = Mutex::const_new(());
    let _one = ONE.lock().await;
    let was_here = multi.feeds().iter().any(|feed| feed.writable() && feed.name() == writer);
    let feed = multi.writer(writer).await?;
    // One whose folder came back has its blocks.
    let is_new = !was_here && feed.is_empty();
    Ok(OpenWriter { feed, is_new })
}
