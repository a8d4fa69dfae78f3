//! Shows the progress of a session that only pretends: `cargo run --example bar -- [MODE] [TICKS]`.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::sleep,
    time::Duration,
};

use session::monitor::{Monitor, Phase, Progress};
use telemetry::{Changes, Console, Reporter, logging};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mode = arguments.next().as_deref().unwrap_or("auto").parse()?;
    let ticks = arguments.next().as_deref().unwrap_or("100").parse::<u64>()?;

    let console = Console::stdio();
    logging::init("info", &console)?;
    let progress = Arc::new(Progress::default());
    let reporter = Reporter::start(mode, Changes::Stdout, Arc::clone(&progress), &console)?;
    sleep(Duration::from_secs(1));
    reporter.phase(Phase::Transfer);
    for tick in 0..ticks {
        sleep(Duration::from_millis(100));
        if tick < ticks / 4 {
            progress.bytes_total.fetch_add(400 << 20, Relaxed);
            progress.entries_total.fetch_add(4000, Relaxed);
        }
        progress.listing_complete.store(tick >= ticks / 4, Relaxed);
        progress.bytes_done.fetch_add(100 << 20, Relaxed);
        progress.entries.fetch_add(1000, Relaxed);
        if tick == ticks / 3 {
            tracing::info!("a log record beside the bar");
            progress.errors.fetch_add(1, Relaxed);
            reporter.error("dir/file", "permission denied");
            reporter.action("delete dir/old");
        }
    }
    reporter.phase(Phase::Flush);
    sleep(Duration::from_secs(1));
    reporter.finish();
    Ok(())
}
