//! `multifeed serve`: accept peers, and sync with each of them.

use std::net::SocketAddr;
use std::time::Duration;

use multifeed_tokio::{Multifeed, Options, Replicate, Role};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{close, open, peer, tune};
use crate::args::{Global, Serve};
use crate::error::{CliError, code};
use crate::output::{Event, Output, Unit};
use crate::stop::Stop;

/// Peers that are connected at once, at the most; further ones wait until one has gone.
const PEERS: usize = 1024;

/// How long to wait after the system refused to accept (no file handle is left, say) before the next try.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) async fn run(args: Serve, global: &Global, options: Options, mut output: Output) -> Result<(), CliError> {
    let stop = Stop::listen()?;
    let multi = open(global, options, &output).await?;
    if args.once || args.live {
        output.start_bar(Unit::Blocks);
    }
    let work = serve(&multi, &args, stop, &output);
    let result = if args.live { peer::show(&multi, &output, work).await } else { work.await };
    output.end_bar();
    close(&multi, result).await
}

async fn serve(multi: &Multifeed, args: &Serve, mut stop: Stop, output: &Output) -> Result<(), CliError> {
    let cannot = |error| CliError::new(code::LISTEN, format!("cannot listen on {}: {error}", args.address));
    let listener = TcpListener::bind(&args.address).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?.to_string();
    output.print(|| format!("listening on {address}"), &Event::Listening { address: address.clone() })?;

    let mut peers = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if peers.len() < PEERS => match accepted {
                Ok((stream, from)) if args.once => {
                    drop(listener);
                    return sync_with(multi.clone(), stream, from, args.live, stop, output.clone()).await;
                }
                Ok((stream, from)) => {
                    peers.spawn(sync_with(multi.clone(), stream, from, args.live, stop.clone(), output.clone()));
                }
                Err(error) => {
                    output.fail(&CliError::new(code::LISTEN, format!("cannot accept a peer: {error}")));
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(ended) = peers.join_next() => report(ended, output)?,
            _ = stop.wait() => break,
        }
    }
    drop(listener);
    while let Some(ended) = peers.join_next().await {
        report(ended, output)?;
    }
    Ok(())
}

async fn sync_with(
    multi: Multifeed,
    stream: TcpStream,
    from: SocketAddr,
    live: bool,
    mut stop: Stop,
    output: Output,
) -> Result<(), CliError> {
    // Only latency is at stake.
    let _ = tune(&stream);
    let who = format!("{from}: ");
    let replicate = if live { Replicate::live() } else { Replicate::default() };
    let sync = multi.replicate(stream, Role::Responder, replicate);
    peer::follow(sync, live, &who, &mut stop, &output).await.map_err(|error| error.of_peer(&who))
}

/// Tells of a peer's end where that was a failure, which does not end the server; only what is wrong with stdout does.
fn report(ended: Result<Result<(), CliError>, tokio::task::JoinError>, output: &Output) -> Result<(), CliError> {
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) if error.is_stdio() => Err(error),
        // That the server was told to end is no failure of it.
        Ok(Err(error)) if error.code() == code::INTERRUPTED => Ok(()),
        Ok(Err(error)) => {
            output.fail(&error);
            Ok(())
        }
        Err(error) => {
            output.fail(&CliError::new(code::INTERNAL, format!("a peer's task failed: {error}")));
            Ok(())
        }
    }
}
