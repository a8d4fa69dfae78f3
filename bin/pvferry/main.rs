//! The `pvferry` command: every container of a transfer, and its tools.
//!
//! Here arguments are parsed, crates are wired together, and errors become exit codes and sentences.
//! Nothing else: what moves data is in the crates.

mod cli;
mod commands;
mod link;
mod outcome;
mod setup;

use std::process;

/// Buffers are filled by one thread and freed by another all the time. The system's allocator gives
/// them back to the kernel in between, and a static binary's is slower still.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> process::ExitCode {
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
