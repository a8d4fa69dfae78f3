//! What the receiver reports to both ends: failures of entries, notes, and what was done.

use std::fmt::Display;

use rustix::io::Errno;
use volume::metadata::Applied;
use wire::ToSender;

use super::{room, state::Shared};
use crate::{Error, control::Stopped};

impl Shared {
    /// Names everything about an entry that could not be set.
    pub(super) fn report(
        &self,
        name: &(impl Display + ?Sized),
        applied: &Applied,
    ) -> Result<(), Stopped> {
        for problem in &applied.problems {
            self.problem(name, &problem.to_string(), 23)?;
        }
        Ok(())
    }

    /// A failed operation: one that shows the volume itself to be unusable ends the session, any
    /// other is named and the run goes on.
    pub(super) fn failed(&self, error: &volume::Error) -> Result<(), Stopped> {
        if room::put_off(self, error) {
            let what = format!("{} before anything was deleted", error.what());
            return self.problem(&error.name, &what, 11);
        }
        if error.is_volume_failure() {
            self.control.fail(Error::Volume(error.clone()));
            return Err(Stopped);
        }
        let code = if error.errno == Errno::FBIG { 11 } else { 23 };
        self.problem(&error.name, &error.what(), code)
    }

    /// The same for an entry: the error is reported under its name, and not under that of the file that it is built in.
    pub(super) fn failed_on(
        &self,
        entry: &(impl Display + ?Sized),
        error: &volume::Error,
    ) -> Result<(), Stopped> {
        self.failed(&volume::Error { name: entry.to_string(), ..error.clone() })
    }

    /// A line for people: what was done, or would be.
    pub(super) fn action(&self, what: &str, name: &(impl Display + ?Sized)) -> Result<(), Stopped> {
        if !self.dry_run() && !self.options().itemize {
            return Ok(());
        }
        if self.dry_run() && self.target.would_fail.read_only {
            let error = volume::Error::new("write", name.to_string(), Errno::ROFS);
            return self.failed(&error);
        }
        self.send(&ToSender::Action(format!("{what} {name}").into()))
    }

    /// Shows a note at both ends. It has no effect on the exit code.
    pub(super) fn note(&self, what: &str) -> Result<(), Stopped> {
        self.context.monitor.action(what);
        self.send(&ToSender::Action(what.into()))
    }
}
