//! `sync --stdio` and `serve --stdio`: a sync over stdin and stdout, as over ssh.

use multifeed_tokio::{Options, Replicate, Role};
use tokio::io::{join, stdin};

use super::control::{Control, Place};
use super::opening::{close, open, root_key};
use super::outcome::Apart;
use super::peer::{self, Peer};
use super::reading::open_to_serve;
use super::root_keys::Unproven;
use super::whereabouts::Whereabouts;
use crate::args::Global;
use crate::error::CliError;
use crate::output::{Output, PeerName, Unit};
use crate::stop::Stop;

/// Syncs with whoever is at the other end of stdin and stdout. All that is said goes to stderr.
pub(super) async fn run(
    role: Role,
    live: bool,
    global: &Global,
    options: Options,
    mut output: Output,
) -> Result<(), CliError> {
    let mut stop = Stop::listen()?;
    let stream = join(stdin(), out::take().map_err(|error| CliError::stdio("stdout", &error))?);
    let place = Place::new(&root_key(&options), global);
    let (multi, only_reads) = match role {
        Role::Responder => open_to_serve(global, options, &output).await?,
        Role::Initiator => (open(global, options, &output).await?, false),
    };
    let unproven = (!only_reads).then(|| Unproven::of(std::slice::from_ref(&multi), global));
    let listens = live && !only_reads;
    let control = if listens { Control::listen(&global.store, vec![(place, multi.clone())], &output) } else { None };
    let whereabouts = Whereabouts::of(global);
    output.start_bar(Unit::Blocks);
    output.queue_lines();
    let replicate = if live { Replicate::live() } else { Replicate::default() };
    let replicate = if only_reads { replicate.upload_only() } else { replicate };
    let sync = multi.replicate(stream, role, replicate);
    let name = PeerName { id: None, address: Some("stdio".to_owned()) };
    let apart = Apart::of_damage(!multi.problems().is_empty());
    let mut peer = Peer { apart, name, live, takes_nothing: only_reads, unproven, ..Peer::default() };
    let followed = peer::follow(sync, live, &mut peer, &mut stop, &output);
    let result = if live { peer::show(std::slice::from_ref(&multi), &output, followed).await } else { followed.await };
    output.end_bar();
    let result = result.and(control.map_or(Ok(()), Control::end)).and_then(|()| whereabouts.check());
    close(&multi, result, &output).await
}

#[cfg(unix)]
mod out {
    use std::fs::OpenOptions;
    use std::io;
    use std::net::Shutdown;
    use std::os::fd::AsFd;
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};

    use tokio::fs::File;
    use tokio::io::AsyncWrite;

    /// Stdout, which ends when it is shut down, and not with the process: the peer may wait for that.
    pub(super) struct Out(Option<File>);

    /// Takes stdout away: what is printed there later goes nowhere.
    pub(super) fn take() -> io::Result<Out> {
        let stdout = io::stdout().as_fd().try_clone_to_owned()?;
        rustix::stdio::dup2_stdout(OpenOptions::new().write(true).open("/dev/null")?)?;
        Ok(Out(Some(File::from_std(stdout.into()))))
    }

    impl AsyncWrite for Out {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            match &mut self.0 {
                Some(file) => Pin::new(file).poll_write(cx, bytes),
                None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.0.as_mut().map_or(Poll::Ready(Ok(())), |file| Pin::new(file).poll_flush(cx))
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            ready!(self.as_mut().poll_flush(cx))?;
            if let Some(file) = self.0.take() {
                // Of a pair of sockets, as socat has, stdin is the same one. A pipe is none.
                let _ = socket2::SockRef::from(&file).shutdown(Shutdown::Write);
            }
            Poll::Ready(Ok(()))
        }
    }
}

#[cfg(not(unix))]
mod out {
    #[allow(clippy::unnecessary_wraps)] // As where it can be taken away.
    pub(super) fn take() -> std::io::Result<tokio::io::Stdout> {
        Ok(tokio::io::stdout())
    }
}
