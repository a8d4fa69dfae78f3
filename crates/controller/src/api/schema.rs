//! The CustomResourceDefinitions, and fields of an object that they do not have.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt as _;
use serde_json::Value;

use super::{DirectVolumeMigration, DirectVolumeMigrationProgress};

/// Characters of a text that has no bound of its own.
const TEXT: i64 = 1024;
/// Items of a list or map that has no bound of its own.
const ITEMS: i64 = 64;

/// The CustomResourceDefinitions of both kinds, for `kubectl apply`.
#[must_use]
pub fn definitions() -> Vec<CustomResourceDefinition> {
    let mut all = vec![DirectVolumeMigration::crd(), DirectVolumeMigrationProgress::crd()];
    for schema in all.iter_mut().filter_map(schema_of) {
        if let Some(spec) = schema.properties.as_mut().and_then(|all| all.get_mut("spec")) {
            limit(spec);
        }
        describe_values(schema);
        // Users do not write a status: its defaults are of no interest.
        if let Some(spec) = schema.properties.as_mut().and_then(|all| all.get_mut("spec")) {
            describe_defaults(spec);
        }
    }
    all
}

fn schema_of(definition: &mut CustomResourceDefinition) -> Option<&mut JSONSchemaProps> {
    definition.spec.versions.first_mut()?.schema.as_mut()?.open_api_v3_schema.as_mut()
}

/// Lists the values of an enumeration in the descriptions that do not explain each of them.
fn describe_values(schema: &mut JSONSchemaProps) {
    let values = schema.enum_.iter().flatten().filter_map(|value| value.0.as_str());
    let values: Vec<String> = values.map(|value| format!("`{value}`")).collect();
    if let Some(description) = &mut schema.description
        && !values.iter().all(|value| description.contains(value))
    {
        *description = format!("{description} One of {}.", values.join(", "));
    }
    schema.properties.iter_mut().flat_map(|all| all.values_mut()).for_each(describe_values);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        describe_values(items);
    }
}

/// Appends defaults to descriptions: not every version of `kubectl explain` shows them.
fn describe_defaults(schema: &mut JSONSchemaProps) {
    for field in schema.properties.iter_mut().flat_map(|all| all.values_mut()) {
        let default = match field.default.as_ref().map(|default| &default.0) {
            Some(Value::String(text)) => text.clone(),
            Some(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string(),
            _ => String::new(),
        };
        if !default.is_empty() {
            let description = field.description.take().unwrap_or_default();
            field.description = Some(format!("{description} Default: {default}."));
        }
        describe_defaults(field);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        describe_defaults(items);
    }
}

/// The fields of a `DirectVolumeMigration` that its definition does not have, as paths.
#[must_use]
pub fn unknown_fields(migration: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    let mut definition = DirectVolumeMigration::crd();
    let spec = schema_of(&mut definition).and_then(|all| all.properties.as_ref()?.get("spec"));
    if let (Some(schema), Some(spec)) = (spec, migration.get("spec")) {
        compare(schema, spec, "spec", &mut unknown);
    }
    unknown
}

/// The schema of a specification.
pub(super) fn schema_of_spec() -> Option<JSONSchemaProps> {
    let mut definition = DirectVolumeMigration::crd();
    let mut spec = schema_of(&mut definition)?.properties.as_mut()?.remove("spec")?;
    limit(&mut spec);
    Some(spec)
}

/// Gives every text, list and map a bound that has none.
fn limit(schema: &mut JSONSchemaProps) {
    match schema.type_.as_deref() {
        Some("string") if schema.enum_.is_none() => {
            schema.max_length.get_or_insert(TEXT);
        }
        Some("array") => {
            schema.max_items.get_or_insert(ITEMS);
        }
        Some("object") if schema.additional_properties.is_some() => {
            schema.max_properties.get_or_insert(ITEMS);
        }
        _ => {}
    }
    schema.properties.iter_mut().flat_map(|all| all.values_mut()).for_each(limit);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        limit(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        limit(values);
    }
}

/// The fields of defaults for pods that are not known, as paths.
pub(super) fn unknown_defaults(defaults: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    let mut definition = DirectVolumeMigration::crd();
    let spec = schema_of(&mut definition).and_then(|all| all.properties.as_mut()?.get_mut("spec"));
    let Some(pods) = spec.and_then(|spec| spec.properties.as_mut()?.get_mut("pods")) else {
        return unknown;
    };
    let fields = pods.properties.get_or_insert_default();
    // The mode without root goes with options of the copy, and so is for a migration to choose.
    fields.remove("user");
    for other in ["dnsPorts", "endpointHosts"] {
        fields.insert(other.into(), JSONSchemaProps::default());
    }
    compare(pods, defaults, "", &mut unknown);
    unknown
}

fn compare(schema: &JSONSchemaProps, value: &Value, path: &str, unknown: &mut Vec<String>) {
    let below =
        |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let field = schema.properties.as_ref().and_then(|known| known.get(name));
                match (field, &schema.additional_properties) {
                    (Some(field), _) => compare(field, value, &below(name), unknown),
                    (None, Some(JSONSchemaPropsOrBool::Schema(field))) => {
                        compare(field, value, &below(name), unknown);
                    }
                    (None, Some(JSONSchemaPropsOrBool::Bool(true))) => {}
                    (None, _) => unknown.push(below(name)),
                }
            }
        }
        Value::Array(items) => {
            if let Some(JSONSchemaPropsOrArray::Schema(schema)) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    compare(schema, item, &format!("{path}[{index}]"), unknown);
                }
            }
        }
        _ => {}
    }
}
