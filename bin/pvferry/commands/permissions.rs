//! What `serve` permits the sources of its volumes, from its options.

use pod::{ExitCode, VolumeName};
use session::Policy;

use crate::{
    cli::{Scope, ServeArgs},
    outcome::Failure,
};

/// Refuses options that could have no effect: an operator who mistypes a name must not believe that it is protected.
pub(super) fn check(args: &ServeArgs) -> Result<(), Failure> {
    let named = |option: &'static str, scope: &Scope| (option, scope.clone());
    let scopes = (args.allow_delete.iter().map(|scope| named("--allow-delete", scope)))
        .chain(args.max_delete.iter().map(|(scope, _)| named("--max-delete", scope)))
        .chain(args.allow_empty_source.iter().map(|scope| named("--allow-empty-source", scope)))
        .chain(args.no_delta.iter().map(|scope| named("--no-delta", scope)));
    for (option, scope) in scopes {
        let Scope::Volume(name) = &scope else { continue };
        if !args.volume.iter().any(|(volume, _)| volume == name) {
            let what = format!("{option}: volume {name} is not one of --volume");
            return Err(Failure::new(ExitCode::Usage, what));
        }
        if option == "--max-delete" && !permits(&args.allow_delete, name) {
            let what = format!("--max-delete: volume {name} has no --allow-delete");
            return Err(Failure::new(ExitCode::Usage, what));
        }
    }
    Ok(())
}

/// What the source of `volume` may do. A limit of the volume takes precedence over the one of all volumes.
pub(super) fn policy(args: &ServeArgs, volume: &VolumeName) -> Policy {
    let limit = |own: bool| {
        let of = args.max_delete.iter().filter(|(scope, _)| own == (*scope != Scope::All));
        of.filter(|(scope, _)| scope.covers(volume)).map(|(_, limit)| *limit).min()
    };
    Policy {
        delete: permits(&args.allow_delete, volume),
        max_delete: limit(true).or_else(|| limit(false)),
        allow_empty: permits(&args.allow_empty_source, volume),
        delta: !permits(&args.no_delta, volume),
    }
}

fn permits(scopes: &[Scope], volume: &VolumeName) -> bool {
    scopes.iter().any(|scope| scope.covers(volume))
}
