//! The `multifeed` command: the feeds of a folder, in sync with peers. `multifeed --help` says how to use it.

mod args;
mod commands;
mod error;
mod help;
mod input;
mod line_limit;
mod line_queue;
mod output;
mod problems;
mod stop;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use tracing_subscriber::EnvFilter;

use crate::args::{Args, Command};
use crate::error::{CliError, code};
use crate::output::Output;

fn main() -> ExitCode {
    if let Some(words) = help_in_json() {
        return print(&help::help(&Args::command(), words.into_iter()));
    }
    let mut args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return wrong_command_line(&error),
    };
    let output = Output::new(args.global.json).off_stdout(args.command.is_on_stdio());
    // The environment is changed by that: before there are threads.
    if let Command::Serve(serve) = &mut args.command
        && let Err(error) = serve.take_socket()
    {
        output.fail(&error);
        return ExitCode::from(error.exit());
    }
    let log = output.clone();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error")))
        .with_writer(move || -> Box<dyn io::Write> {
            match log.stderr_queue() {
                Some(queue) => Box::new(queue.clone()),
                None => Box::new(io::stderr()),
            }
        })
        .with_ansi(io::stderr().is_terminal())
        .init();
    let stdout_has_blocks = matches!(args.command, Command::Cat(_));
    let result = check_handles()
        .and_then(|()| tokio::runtime::Builder::new_multi_thread().enable_all().build())
        .map_err(|error| CliError::new(code::IO, format!("the runtime cannot be started: {error}")))
        .and_then(|runtime| {
            let result = runtime.block_on(async {
                stop::outlive_full_files();
                commands::run(args, output.clone()).await
            });
            // A thread that waits for stdin cannot be stopped, and nothing waits for it.
            runtime.shutdown_background();
            result
        });
    if let Err(error) = &result
        && !error.was_told()
    {
        tell(&output, error, stdout_has_blocks);
    }
    // A reader that has stopped reading does not put off an end that was asked for.
    let written = output.finish(stop::was_asked_for());
    match result.and(written) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(error.exit()),
    }
}

/// That the process may open as many files as tokio's runtime needs to start: it panics if the last of them cannot be had.
fn check_handles() -> io::Result<()> {
    #[cfg(unix)]
    if let Err(error) = (0..4).map(|_| std::os::unix::net::UnixStream::pair()).collect::<io::Result<Vec<_>>>() {
        let why = format!("{error}; it opens 8 files, and the limit of this process (`ulimit -n`) does not allow them");
        return Err(io::Error::new(error.kind(), why));
    }
    Ok(())
}

fn tell(output: &Output, error: &CliError, stdout_has_blocks: bool) {
    match stdout_has_blocks {
        true => output.fail_on_stderr(error),
        false => output.fail(error),
    }
}

/// What is said on the command line before `--`.
fn words() -> impl Iterator<Item = String> {
    let said = std::env::args_os().skip(1).take_while(|arg| arg != "--");
    said.map(|arg| arg.to_string_lossy().into_owned())
}

/// The command that `help --json` is about, if it is that.
fn help_in_json() -> Option<Vec<String>> {
    let is_help = words().find(|word| !word.starts_with('-')).is_some_and(|word| word == "help");
    (is_help && words().any(|word| word == "--json"))
        .then(|| words().filter(|word| !word.starts_with('-')).skip(1).collect())
}

fn print(object: &impl serde::Serialize) -> ExitCode {
    let output = Output::new(true);
    match output.print_object(object) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.fail(&error);
            ExitCode::from(error.exit())
        }
    }
}

/// Whether a command line that is wrong is one of `cat`.
fn is_cat() -> bool {
    let matches = Args::command().ignore_errors(true).try_get_matches();
    matches.is_ok_and(|matches| matches.subcommand_name() == Some("cat"))
}

/// Prints what clap has to say: help that was asked for, or what is wrong with the command line.
fn wrong_command_line(error: &clap::Error) -> ExitCode {
    // It could not be parsed, so whether it says --json has to be looked for.
    let json = words().any(|word| word == "--json");
    if json && error.kind() == ErrorKind::DisplayVersion {
        return print(&help::version());
    }
    if json && error.kind() == ErrorKind::DisplayHelp {
        return print(&help::help(&Args::command(), words()));
    }
    if json && error.use_stderr() {
        let message = error.to_string();
        let message = message.trim_end().trim_start_matches("error: ");
        tell(&Output::new(true), &CliError::new(code::USAGE, message), is_cat());
    } else {
        // If its reader has gone there is nobody left to tell.
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(error::EXIT_USAGE))
}
