//! `multifeed sync`: connect to a peer, and sync with it.

use std::time::Duration;

use multifeed_swarm::tcp::Tuned;
use multifeed_tokio::{Multifeed, Options, Replicate, Role};

use super::connecting;
use super::control::{Control, Place};
use super::opening::{close, open, root_key};
use super::outcome::Apart;
use super::peer::{self, Peer};
use super::root_keys::Unproven;
use super::whereabouts::Whereabouts;
use crate::args::{Global, Sync};
use crate::error::{CliError, code};
use crate::output::{Output, PeerName, Unit};
use crate::stop::Stop;

pub(super) async fn run(args: Sync, global: &Global, mut options: Options, mut output: Output) -> Result<(), CliError> {
    bound_handshake(&mut options.session.handshake_timeout, &args);
    let mut stop = Stop::listen()?;
    let place = Place::new(&root_key(&options), global);
    // No store is made for a peer that is not there.
    let early = match global.store.try_exists() {
        Ok(false) => Some(connect(&args, &mut stop).await?),
        Ok(true) | Err(_) => None,
    };
    let multi = open(global, options, &output).await?;
    let control = if args.live { Control::listen(&global.store, vec![(place, multi.clone())], &output) } else { None };
    let whereabouts = Whereabouts::of(global);
    output.start_bar(Unit::Blocks);
    output.queue_lines();
    let stream = match early {
        Some(stream) => Ok(stream),
        None => connect(&args, &mut stop).await,
    };
    let result = match stream {
        Ok(stream) => {
            let unproven = Unproven::of(std::slice::from_ref(&multi), global);
            sync(&multi, stream, unproven, &args, &mut stop, &output).await
        }
        Err(error) => Err(error),
    };
    output.end_bar();
    let result = result.and(control.map_or(Ok(()), Control::end)).and_then(|()| whereabouts.check());
    close(&multi, result, &output).await
}

/// Who is connected has no longer for the handshake than for the connection.
pub(super) fn bound_handshake(timeout: &mut Option<Duration>, args: &Sync) {
    *timeout = Some(timeout.map_or(args.time(), |timeout| timeout.min(args.time())));
}

async fn connect(args: &Sync, stop: &mut Stop) -> Result<Tuned, CliError> {
    let stream = tokio::select! {
        stream = connecting::connect(args.address(), args.time()) => stream,
        signal = stop.wait() => {
            return Err(CliError::new(code::INTERRUPTED, "interrupted before it was connected").with_exit(signal.exit()));
        }
    };
    stream.map_err(|error| CliError::new(code::CONNECT, format!("cannot connect to {}: {error}", args.address())))
}

async fn sync(
    multi: &Multifeed,
    stream: Tuned,
    unproven: Unproven,
    args: &Sync,
    stop: &mut Stop,
    output: &Output,
) -> Result<(), CliError> {
    let replicate = if args.live { Replicate::live() } else { Replicate::default() };
    let sync = multi.replicate(stream, Role::Initiator, replicate);
    let name = PeerName { id: None, address: args.address.clone() };
    let apart = Apart::of_damage(!multi.problems().is_empty());
    let mut peer = Peer { apart, name, live: args.live, unproven: Some(unproven), ..Peer::default() };
    let followed = peer::follow(sync, args.live, &mut peer, stop, output);
    if args.live { peer::show(std::slice::from_ref(multi), output, followed).await } else { followed.await }
}
