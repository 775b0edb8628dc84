//! `multifeed completions` and `multifeed man`: what a shell and `man` have to know of the command.

use std::io::Write;

use clap::CommandFactory;

use crate::args::{Args, Completions, Man};
use crate::error::{CliError, code};

pub(super) fn completions(args: &Completions) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "multifeed", &mut script);
    print(&script)
}

pub(super) fn man(args: &Man) -> Result<(), CliError> {
    let Some(folder) = &args.folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Args::command()).render(&mut page)?;
        return print(&page);
    };
    let failed = |error| CliError::new(code::IO, format!("{}: {error}", folder.display()));
    std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(Args::command(), folder)).map_err(failed)
}

fn print(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| CliError::stdio("stdout", &error))
}
