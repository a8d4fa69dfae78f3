//! The pods of a migration, without a cluster.

use serde::Serialize;

use crate::{
    api::{DirectVolumeMigration, unknown_fields},
    build::{self, Address, Defaults, Names, Role},
    plan::{self, Ready},
};

/// Pods that a migration would get in its first run, source and destination of each transfer in turn, as YAML documents.
///
/// Where claims are mounted, and so which of them share a pod, is known to a cluster only: here all of one pair of namespaces
/// share as many pods as they need. The source connects to the destination by the name of its Service.
///
/// # Errors
/// A sentence, where the migration makes no sense.
pub fn render(migration: &DirectVolumeMigration, defaults: &Defaults) -> Result<String, String> {
    plan::check(migration)?;
    let volumes = plan::volumes(&migration.spec);
    let ready: Vec<_> = volumes
        .iter()
        .map(|volume| Ready { volume: volume.clone(), node: None, reach: Default::default() })
        .collect();
    let parallel = usize::try_from(migration.spec.limits.parallel).unwrap_or(usize::MAX);
    let mut documents = String::new();
    let mut rest = &ready[..];
    let mut number = 0;
    while !rest.is_empty() {
        let (batch, others) = rest.split_at(parallel.max(1).min(rest.len()));
        rest = others;
        for group in plan::group(batch) {
            number += 1;
            let names = Names::new(migration, migration.spec.run, number, "");
            let chosen: Vec<_> = group.volumes.iter().map(|index| &volumes[*index]).collect();
            let Some(first) = chosen.first() else { continue };
            let endpoint = &migration.spec.endpoint;
            let address = Address {
                host: build::host_of(migration, &names).unwrap_or_else(|| {
                    format!("{}.{}.svc", names.of(Role::Destination), first.target.namespace)
                }),
                port: endpoint.port.unwrap_or(build::PORT),
            };
            let source = build::source_pod(migration, defaults, &names, &chosen, &address, None);
            let destination = build::destination_pod(migration, defaults, &names, &chosen);
            document(&mut documents, &destination)?;
            document(&mut documents, &source)?;
        }
    }
    Ok(documents)
}

/// A migration from YAML.
///
/// # Errors
/// A sentence, where a field is not valid or not known.
pub fn parse(text: &str) -> Result<DirectVolumeMigration, String> {
    let fields: serde_json::Value =
        serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    if let Some(field) = unknown_fields(&fields).first() {
        return Err(format!("unknown field {field}"));
    }
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

/// Adds a YAML document.
///
/// # Errors
/// Where the object has no such form.
pub fn document(documents: &mut String, object: &impl Serialize) -> Result<(), String> {
    documents.push_str("---\n");
    documents.push_str(&serde_saphyr::to_string(object).map_err(|error| error.to_string())?);
    Ok(())
}
