//! The `pvferry` command: every container of a transfer, and its tools.
//!
//! Here arguments are parsed, the process gives up what it does not need, crates are wired together, and errors become
//! exit codes and sentences. Nothing else: what moves data is in the crates.

mod cli;
mod commands;
mod link;
mod memory;
mod out_of_memory;
mod outcome;
mod sandbox;
mod setup;

use std::{io, process};

/// Prints what the parser has to say. Help and version are results, not errors.
fn explain(message: &clap::Error) -> pod::ExitCode {
    let printed = message.print();
    match printed {
        _ if message.use_stderr() => pod::ExitCode::Usage,
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => pod::ExitCode::Ok,
        Err(error) => {
            let failure = outcome::Failure::lost_output(&error);
            let text = format!("pvferry: {}", failure.what);
            telemetry::Console::stdio().message(tracing::Level::ERROR, &text);
            failure.code
        }
        Ok(()) => pod::ExitCode::Ok,
    }
}

fn main() -> process::ExitCode {
    memory::give_back_soon();
    out_of_memory::report_missing_threads();
    match cli::parse() {
        Ok(parsed) => commands::run(parsed).into(),
        Err(error) => explain(&error).into(),
    }
}
