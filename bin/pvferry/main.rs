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
mod policy;
mod setup;

use std::{env, io, process};

/// Prints what the parser has to say. Help and version are results, not errors.
fn explain(message: &clap::Error) -> pod::ExitCode {
    if message.use_stderr() {
        let hint = cli::hint(message);
        usage_error(
            &hint.map_or_else(|| message.render().to_string(), |hint| format!("pvferry: {hint}")),
        );
        return pod::ExitCode::Usage;
    }
    match message.print() {
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

/// It quotes arguments, so it goes the way of all messages, and has the format that was asked for, as far as that is known.
fn usage_error(text: &str) {
    let console = telemetry::Console::stdio();
    let arguments: Vec<_> = env::args_os().collect();
    let json = arguments.iter().any(|argument| argument == "--log-format=json")
        || arguments.windows(2).any(|two| two == ["--log-format", "json"]);
    if json {
        let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let console = console.with_format(telemetry::Format::Json);
        console.message(tracing::Level::ERROR, &lines.join(" "));
    } else {
        text.lines().for_each(|line| console.message(tracing::Level::ERROR, line));
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
