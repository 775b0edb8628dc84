//! `multifeed serve`: accept peers, and sync with each of them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use multifeed_tokio::{AdmissionLimits, DEFAULT_ROOT_KEY, Full, Multifeed, Options, Replicate, Role};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, interval, sleep, sleep_until};

use super::control::{Control, Place};
use super::door::{Caller, Door, TurnedAway, listen};
use super::guest::{Guest, House};
use super::opening::{bounded, close, root_key, warn_unsupported};
use super::outcome::Apart;
use super::peer::{self, Peer};
use super::reading::open_to_serve;
use super::root_keys;
use super::whereabouts::Whereabouts;
use crate::args::{Global, Serve};
use crate::error::{CliError, code};
use crate::line_limit::SUM_UP_EVERY;
use crate::output::{Output, Unit};
use crate::stop::Stop;

/// How long to wait after the system refused to accept (no file handle is left, say) before the next try.
const PAUSE: Duration = Duration::from_millis(200);

/// How long a connection waits for others of its network to end, if there are as many as there may be, and how often it tries again.
const RETRY_FOR: Duration = Duration::from_secs(1);
const RETRY_EVERY: Duration = Duration::from_millis(20);

/// Connections that do so at once. Others are turned away.
const MOST_RETRYING: usize = 64;

/// Whom lines are about that are about no connection.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

pub(super) async fn run(args: Serve, global: &Global, options: Options, mut output: Output) -> Result<(), CliError> {
    let options = bounded(options, &args.bounds);
    let stop = Stop::listen()?;
    let place = Place::new(&root_key(&options), global);
    let (multi, only_reads) = open_to_serve(global, options, &output).await?;
    if !only_reads {
        root_keys::remember(std::slice::from_ref(&multi), global, &output);
    }
    let control = if only_reads { None } else { Control::listen(&global.store, vec![(place, multi.clone())], &output) };
    let whereabouts = Whereabouts::of(global);
    if args.once || args.live {
        output.start_bar(Unit::Blocks);
    }
    output.queue_lines();
    let work = serve(&multi, &args, only_reads, &whereabouts, stop, &output);
    let result = if args.live { peer::show(std::slice::from_ref(&multi), &output, work).await } else { work.await };
    output.end_bar();
    let result = result.and(control.map_or(Ok(()), Control::end)).and_then(|()| whereabouts.check());
    close(&multi, result, &output).await
}

async fn serve(
    multi: &Multifeed,
    args: &Serve,
    only_reads: bool,
    whereabouts: &Whereabouts,
    mut stop: Stop,
    output: &Output,
) -> Result<(), CliError> {
    let listener = listen(args, output).await?;
    let is_beyond = listener.local_addr().is_ok_and(|address| !address.ip().is_loopback());
    if is_beyond && multi.root_key() == DEFAULT_ROOT_KEY {
        output.warn(
            "this root key is the one that everyone knows: whoever connects gets all of this store, and adds to it; --key-file gives one of your own \
             (`multifeed keygen FILE` makes it)",
        );
    }
    let replicate = if args.live { Replicate::live() } else { Replicate::default() };
    let replicate = if only_reads { replicate.upload_only() } else { replicate };
    let mut limits = AdmissionLimits::default();
    (limits.sessions, limits.per_network) = (args.max_peers, args.max_per_address);
    let house = House::new(limits, args.once);
    let mut peers = JoinSet::new();
    let mut door = Door::new();
    // Those whose network has as many connections as it may.
    let mut retrying = JoinSet::new();
    // When to try again to find a place for those at the door.
    let mut full_until: Option<Instant> = None;
    let mut sums = interval(SUM_UP_EVERY);
    let turn_away = |gone: Option<TurnedAway>| {
        if let Some(TurnedAway { from, error }) = gone
            && house.may_say(from, false)
        {
            output.fail_of(&from.into(), &error.of_peer(&format!("{from}: ")));
        }
    };
    let stopped = stop.clone();
    let let_in = |peers: &mut JoinSet<_>, Caller { stream, from }, guest| {
        let apart = Apart::of_damage(!multi.problems().is_empty());
        let (who, name) = (format!("{from}: "), from.into());
        let peer = Peer {
            who,
            name,
            guest: Some(guest),
            apart,
            takes_nothing: only_reads,
            live: args.live,
            ..Peer::default()
        };
        peers.spawn(sync_with(multi.clone(), stream, peer, replicate.clone(), stopped.clone(), output.clone()));
    };
    let mut listener = Some(listener);
    // What was not written is lost to a program that looks at the exit code alone.
    let mut moved = None;
    loop {
        while full_until.is_none() {
            let mut let_go = false;
            for (from, number) in door.firsts() {
                let guest = match house.enter(from) {
                    Err(Full::Until(time)) => {
                        let time = house.instant(time);
                        full_until = Some(full_until.map_or(time, |until| until.min(time)));
                        continue;
                    }
                    guest => guest,
                };
                let_go = true;
                let Some(caller) = door.take(from, number) else { continue };
                match guest {
                    Ok(guest) => let_in(&mut peers, caller, guest),
                    Err(Full::Network) if retrying.len() < MOST_RETRYING => {
                        _ = retrying.spawn(retry(house.clone(), caller))
                    }
                    Err(error) => turn_away(Some(refuse(caller, &error))),
                }
            }
            if !let_go {
                break;
            }
        }
        // What gives back a place or a file handle goes before what needs one.
        let accepted = tokio::select! {
            biased;
            _ = stop.wait() => break,
            gone = door.hears() => {
                turn_away(gone);
                continue;
            }
            Some(Ok((caller, guest))) = retrying.join_next() => {
                match guest {
                    Ok(guest) => let_in(&mut peers, caller, guest),
                    Err(error) => turn_away(Some(refuse(caller, &error))),
                }
                continue;
            }
            Some(ended) = peers.join_next() => {
                full_until = None;
                let first = report(ended, &house, &mut moved, output)?;
                if let Some(result) = first {
                    return result;
                }
                continue;
            }
            () = house.has_first(), if listener.is_some() => {
                (listener, door, retrying) = (None, Door::new(), JoinSet::new());
                continue;
            }
            () = sleep_until(full_until.unwrap_or_else(Instant::now)), if full_until.is_some() => {
                full_until = None;
                continue;
            }
            _ = sums.tick() => {
                house.unsaid().iter().for_each(|unsaid| output.warn(unsaid));
                warn_unsupported(multi, output);
                if let (None, Err(error)) = (&moved, whereabouts.check()) {
                    output.fail(&error);
                    moved = Some(error);
                }
                continue;
            }
            accepted = accept(listener.as_ref()), if !door.is_behind() => accepted,
        };
        match accepted {
            Ok((stream, from)) => turn_away(door.arrives(stream, from)),
            // Peers are worth more than files that may be needed again.
            Err(_) if multi.close_idle_files().await.is_ok_and(|closed| closed > 0) => {}
            Err(error) => {
                if house.may_say(NOBODY, true) {
                    output.fail(&CliError::new(code::LISTEN, format!("cannot accept a peer: {error}")));
                }
                match door.make_room() {
                    None => {
                        house.make_room();
                        sleep(PAUSE).await;
                    }
                    gone => turn_away(gone),
                }
            }
        }
    }
    drop((door, retrying));
    drop(listener);
    let mut result = Ok(());
    while let Some(ended) = peers.join_next().await {
        if let Some(first) = report(ended, &house, &mut moved, output)? {
            result = first;
        }
    }
    house.unsaid().iter().for_each(|unsaid| output.warn(unsaid));
    result.and(moved.map_or(Ok(()), Err))
}

/// Tries for a while to find a place for a connection whose network has as many as it may. Some of them may have ended without their
/// sessions' notice yet.
async fn retry(house: House, caller: Caller) -> (Caller, Result<Guest, Full>) {
    let until = Instant::now() + RETRY_FOR;
    loop {
        match house.enter(caller.from) {
            Err(_) if Instant::now() < until => sleep(RETRY_EVERY).await,
            guest => return (caller, guest),
        }
    }
}

/// Ends a connection for which there is no place. What it said is read: else it would hear of a reset, as of a broken network.
fn refuse(Caller { stream, from }: Caller, why: &Full) -> TurnedAway {
    let mut said = [0; 4096];
    while stream.try_read(&mut said).is_ok_and(|count| count == said.len()) {}
    TurnedAway { from, error: CliError::new(code::NO_PLACE, format!("turned away: {why}")) }
}

/// Accepts the next connection; waits for ever once the peer has come, if only one may.
async fn accept(listener: Option<&TcpListener>) -> std::io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

async fn sync_with(
    multi: Multifeed,
    stream: TcpStream,
    mut peer: Peer,
    mut replicate: Replicate,
    mut stop: Stop,
    output: Output,
) -> (Peer, Result<(), CliError>) {
    let live = replicate.live;
    let result = match &peer.guest {
        Some(guest) => {
            replicate.source = Some(guest.network().to_string());
            let sync = multi.replicate(guest.stream(stream), Role::Responder, replicate);
            peer::follow(sync, live, &mut peer, &mut stop, &output).await
        }
        None => Ok(()),
    };
    let result = result.map_err(|error| error.of_peer(&peer.who));
    (peer, result)
}

/// Reports a peer's end if that was a failure, which does not end the server; only what is wrong with stdout does. If only one peer may come,
/// its result is the command's. If the store, or a feed's folder, was moved meanwhile, that is noted: the server goes on serving, and then
/// fails.
fn report(
    ended: Result<(Peer, Result<(), CliError>), JoinError>,
    house: &House,
    moved: &mut Option<CliError>,
    output: &Output,
) -> Result<Option<Result<(), CliError>>, CliError> {
    let (peer, error) = match ended {
        Ok((Peer { guest: Some(guest), .. }, result)) if guest.is_first() => return Ok(Some(result)),
        Ok((_, Ok(()))) => return Ok(None),
        Ok((_, Err(error))) if error.is_stdio() => return Err(error),
        // A signal that ends the server is no failure of it.
        Ok((_, Err(error))) if error.code() == code::INTERRUPTED => return Ok(None),
        Ok((peer, Err(error))) => (Some(peer), error),
        Err(error) => (None, CliError::new(code::INTERNAL, format!("a peer's task failed: {error}"))),
    };
    if peer.as_ref().map_or_else(|| house.may_say(NOBODY, true), Peer::may_say_end) {
        match &peer {
            Some(peer) => output.fail_of(&peer.name, &error),
            None => output.fail(&error),
        }
    }
    if error.code() == code::MOVED {
        moved.get_or_insert(error);
    }
    Ok(None)
}
