//! `sync DIR`: with another store of this machine, as on a stick.

use multifeed_tokio::{Options, Replicate, Role};
use tokio::io::duplex;

use super::opening::{close, open, root_key};
use super::outcome::Apart;
use super::peer::{self, Peer};
use super::whereabouts::Whereabouts;
use super::{folder, root_keys};
use crate::args::{Global, Sync};
use crate::error::{CliError, EXIT_USAGE, code};
use crate::output::{Output, PeerName, Unit};
use crate::stop::Stop;

/// Bytes that are on their way, in either direction.
const PIPE_BYTES: usize = 256 * 1024;

/// Opens the other store too, with a lock of its own, and syncs the two in this process.
pub(super) async fn run(args: &Sync, global: &Global, options: Options, output: Output) -> Result<(), CliError> {
    if args.live || args.retry {
        let message = "with a folder --live and --retry mean nothing: what is in both is synced once";
        return Err(CliError::new(code::USAGE, message).with_exit(EXIT_USAGE));
    }
    let mut output = output;
    let mut stop = Stop::listen()?;
    let there = Global { store: args.folder().unwrap_or_default(), ..global.clone() };
    check(&there, global)?;
    root_keys::check_store(&there, &[root_key(&options)])?;
    let ours = open(global, options.clone(), &output).await?;
    let theirs = match open(&there, options, &output).await {
        Ok(theirs) => theirs,
        Err(error) => return close(&ours, Err(error), &output).await,
    };
    root_keys::remember_shared([(&ours, global), (&theirs, &there)], &output);
    let whereabouts = [Whereabouts::of(global), Whereabouts::of(&there)];
    output.start_bar(Unit::Blocks);
    let (near, far) = duplex(PIPE_BYTES);
    let sync = ours.replicate(near, Role::Initiator, Replicate::default());
    let other = theirs.replicate(far, Role::Responder, Replicate::default());
    let apart = !ours.problems().is_empty() || !theirs.problems().is_empty();
    let name = PeerName { id: None, address: Some(there.store.display().to_string()) };
    let mut peer = Peer { apart: Apart::of_damage(apart), name, ..Peer::default() };
    let (result, other) = tokio::join!(peer::follow(sync, false, &mut peer, &mut stop, &output), other.finish());
    output.end_bar();
    // What is wrong over there is known there, and here no more than that the session ended.
    let other = other.map(drop).map_err(|error| CliError::from(error).of_peer(&format!("{}: ", there.store.display())));
    let result = match (result, other) {
        (Err(error), Err(other)) if other.is_of_the_store() && error.code() != code::INTERRUPTED => Err(other),
        (result, _) => result,
    };
    let result = whereabouts.iter().fold(result, |result, place| result.and_then(|()| place.check()));
    let result = close(&theirs, result, &output).await;
    close(&ours, result, &output).await
}

/// Fails if it is the same folder, or would be made by mistake.
fn check(there: &Global, here: &Global) -> Result<(), CliError> {
    let path = there.store.display();
    let wrong = |code, message| Err(CliError::new(code, message).with_exit(EXIT_USAGE));
    match (there.store.canonicalize(), here.store.canonicalize()) {
        (Ok(one), Ok(other)) if one == other => {
            wrong(code::USAGE, format!("{path} is the store itself: give the folder of another one"))
        }
        (Err(_), _) if !there.init => {
            wrong(code::NO_STORE, format!("there is no store at {path}: --init makes one there"))
        }
        _ => folder::check_folder(there),
    }
}
