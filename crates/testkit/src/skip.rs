//! Tests that need what a machine may lack: root, a command, a file system.
//!
//! ```no_run
//! if !testkit::skip::root() {
//!     return;
//! }
//! ```
//!
//! A skipped test passes, and says why in capitals. Under `CI=true` it fails instead: there, a machine
//! that lacks something is set up wrong, and a test that never runs proves nothing.

use std::{env, process::Command};

/// Says that the calling test is skipped, and why. The caller returns.
///
/// # Panics
/// Under `CI=true`.
pub fn skip(why: &str) {
    let forbidden = env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!forbidden, "SKIPPED, which CI does not permit: {why}");
    say(why);
}

/// The same for what the kernel was built without, which no set-up can mend: also CI permits it.
pub fn unsupported(why: &str) {
    say(why);
}

fn say(why: &str) {
    // Past the test harness, which keeps the output of a test that passes to itself.
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("SKIPPED: {name}: {why}\n");
    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
}

/// Whether the test runs as root; where it does not, it is skipped.
#[must_use]
pub fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("needs root");
    }
    root
}

/// Whether all of these commands are installed; where one is not, the test is skipped.
#[must_use]
pub fn commands(names: &[&str]) -> bool {
    match names.iter().find(|name| !installed(name)) {
        Some(missing) => {
            skip(&format!("{missing} is not installed"));
            false
        }
        None => true,
    }
}

fn installed(name: &str) -> bool {
    let script = "command -v -- \"$1\" >/dev/null";
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh", name]);
    shell.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_commands() {
        assert!(installed("sh"));
        assert!(!installed("no-such-command-here"));
        assert!(!installed("sh; true"));
    }
}
