//! The `multifeed` command: the feeds of a folder, in sync with peers. `multifeed --help` says how to use it.

mod args;
mod commands;
mod error;
mod input;
mod line_limit;
mod line_queue;
mod output;
mod problems;
mod stop;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use tracing_subscriber::EnvFilter;

use crate::args::{Args, Command};
use crate::error::{CliError, code};
use crate::output::Output;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return wrong_command_line(&error),
    };
    let output = Output::new(args.global.json);
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
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
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

fn tell(output: &Output, error: &CliError, stdout_has_blocks: bool) {
    match stdout_has_blocks {
        true => output.fail_on_stderr(error),
        false => output.fail(error),
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
    let json = std::env::args_os().skip(1).take_while(|arg| arg != "--").any(|arg| arg == "--json");
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
