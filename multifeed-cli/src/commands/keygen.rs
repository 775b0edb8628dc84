//! `multifeed keygen`: a root key of one's own.

use std::fs::OpenOptions;
use std::io::Write;

use multifeed_tokio::generate_key_pair;

use crate::args::Keygen;
use crate::error::{CliError, code};
use crate::output::{KeyLine, Output};

pub(super) fn run(args: &Keygen, output: &Output) -> Result<(), CliError> {
    // Any 32 bytes that nobody can guess are one.
    let key = generate_key_pair()?.public_key().to_string();
    let Some(path) = &args.file else {
        return output.print(|| key.clone(), &KeyLine { key: key.clone() });
    };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(path).and_then(|mut file| writeln!(file, "{key}"));
    written.map_err(|error| CliError::new(code::IO, format!("the key file {}: {error}", path.display())))
}
