//! The ways that a volume takes: one process, three processes, a receiver without privileges.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use testkit::{Finished, Process, lock};

use crate::{
    grow::NOBODY,
    pod::Pod,
    stage::Stage,
    support::{below, copy_command},
};

pub(crate) enum Route {
    /// `pvferry copy`, as root.
    Copy,
    /// `pvferry copy`, as an ordinary user.
    CopyAsUser,
    /// `sync`, `tunnel` and `serve`.
    Pods(Box<Transfer>),
}

/// The processes that last over all cases.
pub(crate) struct Transfer {
    pod: Pod,
    is_privileged: bool,
    _serve: Process,
    _tunnel: Process,
}

impl Route {
    /// Three processes; `serve` for the destination of `stage`, as root or as an ordinary user.
    pub(crate) fn pods(stage: &Stage, root: bool) -> Self {
        let pod = Pod::new();
        let identity = pod.pki.destination();
        let volumes = [("a", stage.destination.path())];
        let serve = if root {
            pod.serve(&volumes, &[])
        } else {
            give_away(&identity);
            let (keys, markers) = (pod.pki.path(), pod.markers());
            for (dir, mode) in [(keys, 0o755), (markers.parent().unwrap(), 0o777)] {
                fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();
            }
            let command = pod.serve_command(&identity, &volumes, &[]);
            let serve = Process::start(below(&as_nobody(), &command));
            serve.wait_for_line("listening on");
            serve
        };
        let tunnel = pod.tunnel(&[]);
        Self::Pods(Box::new(Transfer { pod, is_privileged: root, _serve: serve, _tunnel: tunnel }))
    }

    /// Whether both ends may read everything.
    pub(crate) fn is_privileged(&self) -> bool {
        match self {
            Self::Copy => true,
            Self::CopyAsUser => false,
            Self::Pods(transfer) => transfer.is_privileged,
        }
    }

    /// One run to its end.
    pub(crate) fn run(&self, stage: &Stage, arguments: &[String]) -> Finished {
        let finished = Process::run(self.command(stage, arguments));
        lock::wait_until_free(stage.destination.path());
        finished
    }

    /// One run, ready to start.
    pub(crate) fn command(&self, stage: &Stage, arguments: &[String]) -> Command {
        let (source, destination) = (stage.source.path(), stage.destination.path());
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        match self {
            Self::Copy => copy_command(source, destination, &arguments),
            Self::CopyAsUser => below(&as_nobody(), &copy_command(source, destination, &arguments)),
            Self::Pods(transfer) => transfer.pod.sync(source, "a", &arguments),
        }
    }
}

fn as_nobody() -> [String; 5] {
    ["setpriv", &format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}"), "--clear-groups", "--"]
        .map(str::to_owned)
}

fn give_away(path: &Path) {
    for entry in walkdir::WalkDir::new(path) {
        let path = entry.unwrap().into_path();
        std::os::unix::fs::lchown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}
