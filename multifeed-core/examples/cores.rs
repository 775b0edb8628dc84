//! Cores in a folder that npm corestore 5 opens too: `cargo run --example cores -- FOLDER TEXT`.

use std::error::Error;

use bytes::Bytes;
use multifeed_core::{Corestore, CorestoreOptions, FileCoreStorage, MasterKey, Namespace};

// An application draws its own randomness; this crate does not.
#[allow(clippy::disallowed_methods)]
fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(folder), Some(text)) = (args.next(), args.next()) else {
        return Err("usage: cores FOLDER TEXT".into());
    };
    let storage = FileCoreStorage::open(folder)?;
    let mut store = Corestore::open(storage, CorestoreOptions::default(), || MasterKey::generate(&mut rand::rng()))?;

    // `store.namespace('notes').default()` in JS.
    let mut notes = store.default_core(&Namespace::root().namespace("notes"))?;
    notes.append(&[Bytes::from(text)])?;
    for index in 0..notes.info().len {
        println!("{index}: {}", String::from_utf8_lossy(&notes.block(index)?.unwrap_or_default()));
    }
    for core in store.list()?.cores {
        println!("{} {:?}", core.key, core.name.map(|name| String::from_utf8_lossy(&name).into_owned()));
    }
    store.close()?;
    Ok(())
}
