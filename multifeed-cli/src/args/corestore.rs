//! A store that is in a corestore.

use clap::Args as ClapArgs;
use clap::builder::NonEmptyStringValueParser;
use multifeed_tokio::Namespace;

#[derive(ClapArgs, Debug, Clone)]
pub(crate) struct Corestore {
    /// Make the store as a corestore, as corestore-multifeed does, if it is new
    ///
    /// A folder that is a corestore is opened as one without this. It can hold any number of multifeeds, one for each root key, and a command is
    /// about the one of its root key.
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) corestore: bool,

    /// The namespace of the corestore that the multifeed is in, if it is in one; nested ones are joined by `:`
    ///
    /// It has a name: JS takes another one each time for an empty name.
    #[arg(
        long,
        global = true,
        help_heading = "Options of every command",
        value_name = "NAME",
        value_parser = NonEmptyStringValueParser::new()
    )]
    pub(crate) namespace: Option<String>,
}

impl Corestore {
    pub(crate) fn namespace(&self) -> Namespace {
        self.namespace.as_ref().map_or_else(Namespace::root, |name| Namespace::root().namespace(name))
    }
}
