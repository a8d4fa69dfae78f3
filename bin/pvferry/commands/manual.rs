//! The manual page and the completions, generated from the definition of the command line.

use std::io::{self, Write as _};

use clap::CommandFactory as _;
use pod::ExitCode;

use crate::{cli::Cli, outcome::Failure};

pub(super) fn completions(shell: clap_complete::Shell) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pvferry", &mut script);
    print(&script)
}

pub(super) fn man() -> Result<ExitCode, Failure> {
    let failed = |error: io::Error| Failure::new(ExitCode::FileIo, error.to_string());
    let mut page = Vec::new();
    let mut command = Cli::command();
    command.build();
    clap_mangen::Man::new(command.clone()).render(&mut page).map_err(failed)?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        clap_mangen::Man::new(sub.clone()).render(&mut page).map_err(failed)?;
    }
    print(&page)
}

fn print(bytes: &[u8]) -> Result<ExitCode, Failure> {
    match io::stdout().write_all(bytes) {
        // Whoever stops reading has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::Ok),
        Err(error) => Err(Failure::new(ExitCode::FileIo, error.to_string())),
        Ok(()) => Ok(ExitCode::Ok),
    }
}
