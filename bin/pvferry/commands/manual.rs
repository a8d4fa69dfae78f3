//! The manual page and the completions, generated from the definition of the command line.

use std::io;

use clap::{Command, CommandFactory as _};
use pod::ExitCode;
use telemetry::Console;

use crate::{cli::Cli, outcome::Failure};

pub(super) fn completions(
    shell: clap_complete::Shell,
    console: &Console,
) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pvferry", &mut script);
    print(&script, console)
}

pub(super) fn man(console: &Console) -> Result<ExitCode, Failure> {
    let failed = |error: io::Error| Failure::new(ExitCode::FileIo, error.to_string());
    let mut page = Vec::new();
    let mut command = Cli::command();
    command.build();
    render(&command, &mut page).map_err(failed)?;
    print(&page, console)
}

/// Adds a command and those below it.
fn render(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    clap_mangen::Man::new(command.clone()).render(page)?;
    let below = command.get_subcommands().filter(|sub| sub.get_name() != "help");
    below.into_iter().try_for_each(|sub| render(sub, page))
}

fn print(document: &[u8], console: &Console) -> Result<ExitCode, Failure> {
    console.print_bytes(document);
    match console.take_output_error() {
        // The reader of a document has seen enough.
        Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::Ok),
        Some(error) => Err(Failure::lost_output(&error)),
        None => Ok(ExitCode::Ok),
    }
}
