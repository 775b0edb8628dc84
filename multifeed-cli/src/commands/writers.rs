//! The writer that blocks are appended to.

use multifeed_tokio::{Feed, Multifeed};

use crate::error::{CliError, code};

/// Opens the writer, made if it is not there.
pub(super) async fn open_writer(multi: &Multifeed, writer: &str, new_key: bool) -> Result<Feed, CliError> {
    if new_key && !multi.release_missing_name(writer).await? && multi.feeds().iter().any(|feed| feed.name() == writer) {
        let message = format!("the feed `{writer}` is not missing: leave --new-key out, or choose another name");
        return Err(CliError::new(code::FEED, message));
    }
    Ok(multi.writer(writer).await?)
}
