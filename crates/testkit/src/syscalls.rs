//! System calls of a process, listed by strace, and the process killed at one of them.
//!
//! strace counts the calls of each thread for itself, and so does this.

use std::{collections::BTreeMap, ffi::OsStr, fmt, path::Path, process::Command};

/// The calls that change a file system, and those that move bytes between processes. With a question mark, as not
/// every architecture has all of them.
const CHANGES: &str = "?write,?writev,?pwrite64,?pwritev,?pwritev2,?sendto,?sendmsg,?sendfile,?splice,?copy_file_range,\
    ?openat2,?mkdir,?mkdirat,?mknodat,?symlinkat,?linkat,?rename,?renameat,?renameat2,?unlink,?unlinkat,\
    ?ftruncate,?fallocate,?ioctl,?fchmod,?fchmodat,?fchmodat2,?fchown,?fchownat,?setxattr,?lsetxattr,?fsetxattr,\
    ?removexattr,?lremovexattr,?fremovexattr,?setxattrat,?removexattrat,?utimensat,?flock,\
    ?fsync,?fdatasync,?syncfs,?fadvise64,?recvfrom";

/// A moment in the life of a process: right before a thread of it, the first to come so far, makes this call for the
/// `nth` time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The name of the system call.
    pub call: String,
    /// Counted from 1, in one thread.
    pub nth: u32,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.call, self.nth)
    }
}

/// `command`, with its calls that change anything listed in the file `list`. It must end by itself: to kill the child is
/// to kill strace alone.
#[must_use]
pub fn listed(command: &Command, list: &Path) -> Command {
    let trace = format!("trace={CHANGES}");
    let options = ["--seccomp-bpf", "-e", &trace, "-o"].map(OsStr::new);
    traced(command, options.into_iter().chain([list.as_os_str()]))
}

/// `command`, killed (SIGKILL) at `moment`. It is the child itself, and strace its grandchild.
#[must_use]
pub fn killed_at(command: &Command, moment: &Moment) -> Command {
    let Moment { call, nth } = moment;
    let inject = format!("inject={call}:signal=KILL:when={nth}");
    let trace = format!("trace={call}");
    // Not with --seccomp-bpf, which lets no signal through (strace 6.1).
    traced(command, ["-D", "-o", "/dev/null", "-e", &trace, "-e", &inject].map(OsStr::new))
}

fn traced<'a>(command: &Command, options: impl IntoIterator<Item = &'a OsStr>) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", "signal=none"]).args(options);
    strace.arg("--").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    strace
}

/// How often each call was made by the thread that made it most often.
#[must_use]
pub fn counts(list: &str) -> BTreeMap<String, u32> {
    let mut of_threads = BTreeMap::<(&str, &str), u32>::new();
    for line in list.lines() {
        // "1234  pwrite64(7, ..."; what goes on from an earlier line begins with "<...".
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((call, _)) = rest.trim_start().split_once('(') else { continue };
        // What strace does not know by name it cannot stop at.
        let known = call.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if known && !call.starts_with("syscall_") {
            *of_threads.entry((thread, call)).or_default() += 1;
        }
    }
    let mut most = BTreeMap::new();
    for ((_, call), count) in of_threads {
        let known = most.entry(call.to_owned()).or_insert(0);
        *known = count.max(*known);
    }
    most
}

/// About `limit` moments spread over all calls: of each call the first, the last, and what lies between at even
/// distances.
#[must_use]
pub fn grid(counts: &BTreeMap<String, u32>, limit: u32) -> Vec<Moment> {
    let total: u32 = counts.values().sum();
    let mut moments = Vec::new();
    for (call, &count) in counts {
        let share = if limit >= total { count } else { (count * limit).div_ceil(total) };
        for index in 0..share {
            let nth =
                if share == 1 { count.div_ceil(2) } else { 1 + index * (count - 1) / (share - 1) };
            moments.push(Moment { call: call.clone(), nth });
        }
    }
    moments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Process, skip};
    use std::os::unix::process::ExitStatusExt;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).env("SET", "value").env_remove("HOME");
        command
    }

    #[test]
    fn calls_are_counted_and_cut_short() {
        if !skip::commands(&["strace"]) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("list");
        let script = shell("echo $SET; echo b; echo c$HOME; exit 3");
        let finished = Process::run(listed(&script, &list));
        assert_eq!(finished.expect(3).stdout, "value\nb\nc\n");
        let counts = counts(&std::fs::read_to_string(list).unwrap());
        assert_eq!(counts.get("write"), Some(&3), "{counts:?}");

        let moment = Moment { call: "write".into(), nth: 3 };
        let finished = Process::run(killed_at(&script, &moment));
        assert_eq!((finished.status.signal(), &*finished.stdout), (Some(9), "value\nb\n"));
    }

    #[test]
    fn a_list_is_read() {
        let list = "12 write(1, \"a(b\", 3 <unfinished ...>\n\
                    13 write(1, \"c\", 1) = 1\n\
                    12 <... write resumed>) = 3\n\
                    13 renameat(3, \"x\", 4, \"y\") = 0\n\
                    12 write(2, \"\", 0) = 0\n\
                    12 syscall_0x1d1(0x3, 0) = 0\n\
                    13 +++ exited with 0 +++\n";
        assert_eq!(counts(list), [("write".into(), 2), ("renameat".into(), 1)].into());
    }

    #[test]
    fn a_grid_has_both_ends_of_every_call() {
        let counts = [("a".to_owned(), 1), ("b".to_owned(), 100)].into();
        let grid_of = |limit| -> Vec<String> {
            grid(&counts, limit).iter().map(ToString::to_string).collect()
        };
        assert_eq!(grid_of(1000).len(), 101);
        assert_eq!(grid_of(4), ["a 1", "b 1", "b 34", "b 67", "b 100"]);
        assert_eq!(grid_of(1), ["a 1", "b 50"]);
    }
}
