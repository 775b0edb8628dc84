//! What a command can fail with, and the codes by which programs distinguish failures.

use std::borrow::Cow;
use std::fmt;
use std::io;

use multifeed_tokio::{Error, SessionError, SyncError};

/// The codes of failures that arise in this program; those of a sync and a store come from the layers below.
pub(crate) mod code {
    /// The command line is wrong.
    pub(crate) const USAGE: &str = "ERR_USAGE";
    /// The root key is not one.
    pub(crate) const KEY: &str = "ERR_KEY";
    /// No feed, or more than one, is meant by what was given.
    pub(crate) const FEED: &str = "ERR_FEED_NOT_FOUND";
    /// More than one feed's key starts as was given.
    pub(crate) const AMBIGUOUS: &str = "ERR_FEED_AMBIGUOUS";
    /// Another process has the store open.
    pub(crate) const LOCKED: &str = "ERR_STORE_LOCKED";
    /// A block that no peer could be sent.
    pub(crate) const TOO_LARGE: &str = "ERR_BLOCK_TOO_LARGE";
    /// A block is not held by this store.
    pub(crate) const NOT_HELD: &str = "ERR_BLOCK_NOT_HELD";
    /// Blocks that the feed does not have.
    pub(crate) const RANGE: &str = "ERR_RANGE";
    /// A file, stdin or stdout failed.
    pub(crate) const IO: &str = "ERR_IO";
    /// The address cannot be listened on.
    pub(crate) const LISTEN: &str = "ERR_LISTEN";
    /// A connection had to give way to others, or there was no place for it.
    pub(crate) const NO_PLACE: &str = "ERR_NO_PLACE";
    /// The peer left while it was not known that both sides hold the same.
    pub(crate) const ENDED_EARLY: &str = "ERR_ENDED_EARLY";
    /// A sync is done, and something that was reported keeps the two from holding the same.
    pub(crate) const NOT_IN_SYNC: &str = "ERR_NOT_IN_SYNC";
    /// The peer has another history of a feed.
    pub(crate) const CONFLICT: &str = "ERR_CONFLICT";
    /// The peer did not take all that it was offered.
    pub(crate) const NOT_TAKEN: &str = "ERR_NOT_TAKEN";
    /// The peer does not have a root key that was to be synced with it.
    pub(crate) const NOT_SHARED: &str = "ERR_NOT_SHARED";
    /// The folder is another kind of store.
    pub(crate) const OTHER_STORE: &str = "ERR_OTHER_STORE";
    /// The peer cannot be reached, or refused the connection.
    pub(crate) const CONNECT: &str = "ERR_CONNECT";
    /// The store was used with another root key.
    pub(crate) const OTHER_ROOT_KEY: &str = "ERR_OTHER_ROOT_KEY";
    /// The folder holds other things, and no store.
    pub(crate) const NOT_A_STORE: &str = "ERR_NOT_A_STORE";
    /// A feed is not written here.
    pub(crate) const READ_ONLY: &str = "ERR_READ_ONLY";
    /// A name is another feed's.
    pub(crate) const NAME_TAKEN: &str = "ERR_NAME_TAKEN";
    /// Nothing can be named so.
    pub(crate) const BAD_NAME: &str = "ERR_BAD_NAME";
    /// What a writer signed is not all here.
    pub(crate) const WRITER_OLDER: &str = "ERR_WRITER_OLDER";
    /// A feed is here already.
    pub(crate) const OCCUPIED: &str = "ERR_STORE_OCCUPIED";
    /// A key pair is none, or another feed's.
    pub(crate) const KEY_MISMATCH: &str = "ERR_KEY_MISMATCH";
    /// A file of the store cannot be read or written.
    pub(crate) const STORE_IO: &str = "ERR_STORE_IO";
    /// A link, a pipe or a folder stands where a file has to be.
    pub(crate) const NOT_REGULAR: &str = "ERR_STORE_NOT_REGULAR";
    /// There is no store at the path.
    pub(crate) const NO_STORE: &str = "ERR_NO_STORE";
    /// Something of the store is not as it was written.
    pub(crate) const DAMAGED: &str = "ERR_STORE_DAMAGED";
    /// The store, or a feed's folder, was moved while it was open.
    pub(crate) const MOVED: &str = "ERR_STORE_MOVED";
    /// The process that has the store open does not answer.
    pub(crate) const NO_ANSWER: &str = "ERR_NO_ANSWER";
    /// Another process changed the store while it was read.
    pub(crate) const CHANGED: &str = "ERR_STORE_CHANGED";
    /// The process that has the store open is another user's.
    #[cfg(unix)]
    pub(crate) const NOT_PERMITTED: &str = "ERR_NOT_PERMITTED";
    /// This program is wrong.
    pub(crate) const INTERNAL: &str = "ERR_INTERNAL";
    /// A signal ended it before it was done.
    pub(crate) const INTERRUPTED: &str = "ERR_INTERRUPTED";
}

/// The exit code of a command line that is wrong, as clap has it.
pub(crate) const EXIT_USAGE: u8 = 2;

/// The exit code of a sync that is done, and after which the two do not hold the same: another sync changes nothing.
pub(crate) const EXIT_NOT_IN_SYNC: u8 = 3;

/// Why a command failed.
#[derive(Debug, Clone)]
pub(crate) struct CliError {
    code: Cow<'static, str>,
    message: String,
    us: Option<String>,
    them: Option<String>,
    exit: u8,
    told: bool,
    stdio: bool,
}

impl CliError {
    pub(crate) fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        CliError {
            code: code.into(),
            message: message.into(),
            us: None,
            them: None,
            exit: 1,
            told: false,
            stdio: false,
        }
    }

    /// The same with another exit code than 1.
    pub(crate) fn with_exit(self, exit: u8) -> Self {
        CliError { exit, ..self }
    }

    /// The same, and not shown to the user.
    fn untold(self) -> Self {
        CliError { told: true, ..self }
    }

    /// The same, saying what was done before.
    pub(crate) fn after(self, done: &str) -> Self {
        CliError { message: format!("{} ({done})", self.message), ..self }
    }

    /// The same, saying what may be behind it.
    pub(crate) fn explained(self, why: &str) -> Self {
        CliError { message: format!("{}; {why}", self.message), ..self }
    }

    /// The same, saying with which of several peers.
    pub(crate) fn of_peer(self, who: &str) -> Self {
        CliError { message: format!("{who}{}", self.message), ..self }
    }

    /// Stdout or stdin failed. If stdout's reader has gone (`| head`), that is no failure, and nothing is said.
    pub(crate) fn stdio(what: &str, error: &io::Error) -> Self {
        let failure = CliError { stdio: true, ..CliError::new(code::IO, format!("{what}: {error}")) };
        match error.kind() {
            io::ErrorKind::BrokenPipe => failure.with_exit(0).untold(),
            _ => failure,
        }
    }

    pub(crate) fn code(&self) -> &str {
        &self.code
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn us(&self) -> Option<&str> {
        self.us.as_deref()
    }

    pub(crate) fn them(&self) -> Option<&str> {
        self.them.as_deref()
    }

    pub(crate) fn exit(&self) -> u8 {
        self.exit
    }

    /// Whether this store is at fault, which no other peer and no other try changes.
    pub(crate) fn is_of_the_store(&self) -> bool {
        self.code.starts_with("ERR_STORE")
    }

    /// Whether stdout or stdin failed.
    pub(crate) fn is_stdio(&self) -> bool {
        self.stdio
    }

    pub(crate) fn was_told(&self) -> bool {
        self.told
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        CliError::new(error.code(), error.to_string())
    }
}

impl From<SyncError> for CliError {
    fn from(error: SyncError) -> Self {
        let cli = CliError { us: error.us(), them: error.them(), ..CliError::new(error.code(), error.to_string()) };
        match error {
            SyncError::Session(SessionError::RootKeyMismatch { .. }) => {
                cli.explained("the peer was given another --key")
            }
            SyncError::Session(SessionError::Handshake(_)) => cli.explained("is that a multifeed?"),
            _ => cli,
        }
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        CliError::new(code::IO, error.to_string())
    }
}
