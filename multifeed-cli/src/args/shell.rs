//! What a shell and `man` have to know of the command.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use clap_complete::Shell;

/// Print a script that completes commands and options in a shell
#[derive(ClapArgs, Debug)]
#[command(after_help = "\
Examples:
  multifeed completions bash > ~/.local/share/bash-completion/completions/multifeed
  multifeed completions fish > ~/.config/fish/completions/multifeed.fish
  multifeed completions zsh > \"${fpath[1]}/_multifeed\"")]
pub(crate) struct Completions {
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

/// Print the manual page, or write those of all commands to a folder
#[derive(ClapArgs, Debug)]
#[command(after_help = "\
Examples:
  multifeed man | man -l -                        read it
  multifeed man ~/.local/share/man/man1           `man multifeed`, `man multifeed-sync`")]
pub(crate) struct Man {
    /// The folder; it is made
    #[arg(value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
}
