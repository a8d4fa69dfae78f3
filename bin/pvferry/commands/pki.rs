//! `pvferry pki`: the keys of a migration.

use std::time::Duration;

use pod::ExitCode;
use telemetry::Console;
use tunnel::{Role, pki};

use crate::{
    cli::{PkiCommand, RoleArg},
    outcome::Failure,
};

pub(super) fn run(command: &PkiCommand, console: &Console) -> Result<ExitCode, Failure> {
    let hours = |hours: u32| Duration::from_secs(u64::from(hours) * 3600);
    let done = match command {
        PkiCommand::Init { directory, migration, hours: validity } => {
            pki::init(directory, migration, hours(*validity))
        }
        PkiCommand::Issue { directory, role, volume, out, hours: validity } => {
            let role = match role {
                RoleArg::Source => Role::Source,
                RoleArg::Destination => Role::Destination,
            };
            let volume = volume.as_ref().map(pod::VolumeName::as_str);
            pki::issue(directory, role, volume, out, hours(*validity))
        }
    };
    done.map_err(|error| Failure::new(ExitCode::StartUp, error.to_string()))?;
    if let PkiCommand::Init { directory, .. } = command {
        let directory = directory.display();
        console.print(&format!(
            "{directory}/source: identity for sync or tunnel\n\
             {directory}/destination: identity for serve\n\
             {directory}/ca.key: keep it secret, it can issue further identities"
        ));
    }
    Ok(ExitCode::Ok)
}
