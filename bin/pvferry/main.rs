//! The `pvferry` command: every container of a transfer, and its tools.
//!
//! Here arguments are parsed, the process gives up what it does not need, crates are wired together, and errors become
//! exit codes and sentences. Nothing else: what moves data is in the crates.

mod cli;
mod commands;
mod link;
mod memory;
mod outcome;
mod sandbox;
mod setup;

use std::process;

fn main() -> process::ExitCode {
    memory::give_back_soon();
    match cli::parse() {
        Ok(parsed) => commands::run(parsed).into(),
        Err(error) => {
            // Help and version are results, not errors.
            let _ = error.print();
            let code = if error.use_stderr() { pod::ExitCode::Usage } else { pod::ExitCode::Ok };
            code.into()
        }
    }
}
