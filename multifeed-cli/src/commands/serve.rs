//! `multifeed serve`: accept peers, and sync with each of them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use multifeed_tokio::{AdmissionLimits, Full, Multifeed, Options, PeerLimits, Replicate, Role};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, interval, sleep, sleep_until};

use super::guest::House;
use super::peer::Peer;
use super::reading::open_to_serve;
use super::{close, peer, tune, warn_unsupported};
use crate::args::{Bounds, Global, Serve};
use crate::error::{CliError, code};
use crate::line_limit::SUM_UP_EVERY;
use crate::output::{Event, Output, Unit};
use crate::stop::Stop;

/// How long to wait after the system refused to accept (no file handle is left, say) before the next try.
const PAUSE: Duration = Duration::from_millis(200);

/// Whom lines are about that are about no connection.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

pub(super) async fn run(args: Serve, global: &Global, options: Options, mut output: Output) -> Result<(), CliError> {
    let options = bounded(options, &args.bounds);
    let stop = Stop::listen()?;
    let (multi, only_reads) = open_to_serve(global, options, &output).await?;
    if args.once || args.live {
        output.start_bar(Unit::Blocks);
    }
    let work = serve(&multi, &args, only_reads, stop, &output);
    let result = if args.live { peer::show(&multi, &output, work).await } else { work.await };
    output.end_bar();
    close(&multi, result, &output).await
}

async fn serve(
    multi: &Multifeed,
    args: &Serve,
    only_reads: bool,
    mut stop: Stop,
    output: &Output,
) -> Result<(), CliError> {
    let cannot = |error| CliError::new(code::LISTEN, format!("cannot listen on {}: {error}", args.address));
    let listener = TcpListener::bind(&args.address).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?.to_string();
    output.print(|| format!("listening on {address}"), &Event::Listening { address: address.clone() })?;

    let replicate = if args.live { Replicate::live() } else { Replicate::default() };
    let replicate = if only_reads { replicate.upload_only() } else { replicate };
    let mut limits = AdmissionLimits::default();
    (limits.sessions, limits.per_network) = (args.max_peers, args.max_per_address);
    let house = House::new(limits, args.once);
    let mut peers = JoinSet::new();
    // A connection for which there is no place yet, and when to try again.
    let mut waiting: Option<((TcpStream, SocketAddr), Instant)> = None;
    let mut sums = interval(SUM_UP_EVERY);
    let mut listener = Some(listener);
    loop {
        let accepted = tokio::select! {
            accepted = accept(listener.as_ref()), if waiting.is_none() => accepted,
            () = sleep_until(waiting.as_ref().map_or_else(Instant::now, |(_, until)| *until)), if waiting.is_some() => {
                let Some((accepted, _)) = waiting.take() else { continue };
                Ok(accepted)
            }
            Some(ended) = peers.join_next() => {
                let first = report(ended, &house, output)?;
                if let Some(result) = first {
                    return result;
                }
                continue;
            }
            () = house.has_first(), if listener.is_some() => {
                (listener, waiting) = (None, None);
                continue;
            }
            _ = sums.tick() => {
                house.unsaid().iter().for_each(|unsaid| output.warn(unsaid));
                warn_unsupported(multi, output);
                continue;
            }
            _ = stop.wait() => break,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            // Peers are worth more than files that may be needed again.
            Err(_) if multi.close_idle_files().await.is_ok_and(|closed| closed > 0) => continue,
            Err(error) => {
                if house.may_say(NOBODY, true) {
                    output.fail(&CliError::new(code::LISTEN, format!("cannot accept a peer: {error}")));
                }
                house.make_room();
                sleep(PAUSE).await;
                continue;
            }
        };
        match house.enter(from) {
            Ok(guest) => {
                let peer = Peer { who: format!("{from}: "), guest: Some(guest) };
                peers.spawn(sync_with(multi.clone(), stream, peer, replicate.clone(), stop.clone(), output.clone()));
            }
            Err(Full::Until(time)) => waiting = Some(((stream, from), house.instant(time))),
            Err(error) if house.may_say(from, false) => {
                output.fail(&CliError::new(code::NO_PLACE, format!("{from}: turned away: {error}")));
            }
            Err(_) => {}
        }
    }
    drop(listener);
    let mut result = Ok(());
    while let Some(ended) = peers.join_next().await {
        if let Some(first) = report(ended, &house, output)? {
            result = first;
        }
    }
    house.unsaid().iter().for_each(|unsaid| output.warn(unsaid));
    result
}

/// The next connection; never, once the one peer has come that there is to be.
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
    // Only latency is at stake.
    let _ = tune(&stream);
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

/// The store's bounds, as the command line says.
fn bounded(mut options: Options, bounds: &Bounds) -> Options {
    let limits = &mut options.multifeed.limits;
    limits.peer = PeerLimits { feeds: bounds.max_feeds_per_peer, bytes: bounds.max_bytes_per_peer.as_u64() };
    limits.keep_free = bounds.keep_free.as_u64();
    options
}

/// Tells of a peer's end if that was a failure, which does not end the server; only what is wrong with stdout does. The result of the one peer
/// that there is to be is the command's.
fn report(
    ended: Result<(Peer, Result<(), CliError>), JoinError>,
    house: &House,
    output: &Output,
) -> Result<Option<Result<(), CliError>>, CliError> {
    let (guest, error) = match ended {
        Ok((Peer { guest: Some(guest), .. }, result)) if guest.is_first() => return Ok(Some(result)),
        Ok((_, Ok(()))) => return Ok(None),
        Ok((_, Err(error))) if error.is_stdio() => return Err(error),
        // That the server was told to end is no failure of it.
        Ok((_, Err(error))) if error.code() == code::INTERRUPTED => return Ok(None),
        Ok((peer, Err(error))) => (peer.guest, error),
        Err(error) => (None, CliError::new(code::INTERNAL, format!("a peer's task failed: {error}"))),
    };
    if guest.map_or_else(|| house.may_say(NOBODY, true), |guest| guest.may_say()) {
        output.fail(&error);
    }
    Ok(None)
}
