//! `--version`, `--help` and `help` for programs.

use clap::{ArgAction, Command};
use serde::Serialize;

#[derive(Serialize)]
pub(crate) struct Version {
    name: &'static str,
    version: &'static str,
}

pub(crate) fn version() -> Version {
    Version { name: "multifeed", version: env!("CARGO_PKG_VERSION") }
}

/// A command and what it takes.
#[derive(Serialize)]
pub(crate) struct Help {
    command: String,
    about: String,
    /// The whole text, as people read it.
    text: String,
    arguments: Vec<Argument>,
    options: Vec<Argument>,
    commands: Vec<Named>,
}

#[derive(Serialize)]
struct Named {
    command: String,
    about: String,
}

/// An argument by its place, or an option.
#[derive(Serialize)]
struct Argument {
    /// Of an option.
    #[serde(skip_serializing_if = "Option::is_none")]
    long: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    short: Option<char>,
    /// What its value is called; an option without one is a flag.
    value: Option<String>,
    required: bool,
    /// Whether it may be given more than once.
    many: bool,
    default: Option<String>,
    /// The variable that stands for it.
    variable: Option<String>,
    about: String,
}

/// Describes the command that the words name, the first ones that do.
pub(crate) fn help(root: &Command, words: impl Iterator<Item = String>) -> Help {
    let mut root = root.clone();
    root.build();
    let mut found = &root;
    for word in words {
        if let Some(sub) = found.find_subcommand(&word) {
            found = sub;
        }
    }
    let about = |command: &Command| command.get_about().map(ToString::to_string).unwrap_or_default();
    let (mut arguments, mut options) = (Vec::new(), Vec::new());
    for arg in found.get_arguments().filter(|arg| !arg.is_hide_set()) {
        let takes = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
        let value = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
        let value = value.unwrap_or_else(|| arg.get_id().to_string().to_uppercase());
        let default = arg.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
        let several = arg.get_num_args().is_some_and(|number| number.max_values() > 1);
        let described = Argument {
            long: arg.get_long().map(str::to_owned),
            short: arg.get_short(),
            value: takes.then_some(value),
            required: arg.is_required_set(),
            many: several || matches!(arg.get_action(), ArgAction::Append),
            default: default.filter(|_| takes),
            variable: arg.get_env().map(|name| name.to_string_lossy().into_owned()),
            about: arg.get_help().map(ToString::to_string).unwrap_or_default(),
        };
        if arg.is_positional() { arguments.push(described) } else { options.push(described) }
    }
    let named = |sub: &Command| Named { command: sub.get_name().to_owned(), about: about(sub) };
    Help {
        command: found.get_bin_name().unwrap_or("multifeed").to_owned(),
        about: about(found),
        text: found.clone().render_long_help().to_string(),
        arguments,
        options,
        commands: found
            .get_subcommands()
            .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
            .map(named)
            .collect(),
    }
}
